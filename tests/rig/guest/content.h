/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a page of the workload holds: 4,096 bytes that follow from the page's number, its
 * generation and the seed, so that any page can be checked without a copy of it.
 *
 * Three kinds, by the page's number: of ten pages one is filled with one word, seven
 * compress about 3.5 times with LZ4 (records that share most of their bytes), and two not at
 * all. A page that comes back as zeros, as an older generation, or as another page is found
 * in every kind, for each word depends on the tag.
 *
 * What does not belong here: when pages are written and checked.
 */
#ifndef RIG_CONTENT_H
#define RIG_CONTENT_H

#include <stdbool.h>
#include <stdint.h>

#define PAGE_BYTES 4096
#define PAGE_WORDS (PAGE_BYTES / 8)

enum kind { KIND_SAME, KIND_RECORDS, KIND_RANDOM, KINDS };

/* Every bit of the input moves about half of the output's (splitmix64's finish). */
static inline uint64_t mix(uint64_t x)
{
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static inline enum kind page_kind(uint64_t seed, uint64_t page)
{
	static const enum kind kinds[10] = {
		KIND_SAME,    KIND_RECORDS, KIND_RECORDS, KIND_RANDOM,	KIND_RECORDS,
		KIND_RECORDS, KIND_RECORDS, KIND_RANDOM,  KIND_RECORDS, KIND_RECORDS,
	};

	/* Ten in a row have the right shares; the seed moves where the row begins. */
	return kinds[(page + seed % 10) % 10];
}

/* Never 0: a page of zeros is not among the contents. */
static inline uint64_t page_tag(uint64_t seed, uint64_t page, uint32_t generation)
{
	return mix(mix(seed ^ page) + generation) | 1;
}

/* The next of a sequence without a pattern that LZ4 could use; one multiplication. */
static inline uint64_t next_random(uint64_t x)
{
	return x * 6364136223846793005ULL + 1442695040888963407ULL;
}

/* A record: 8 words, of which 13 bytes are its own and the rest the page's. */
#define RECORD_WORDS 8

static inline void record_words(uint64_t tag, uint64_t *state, uint64_t own[2])
{
	own[0] = next_random(*state);
	*state = next_random(own[0]);
	own[1] = (tag & 0xffffff0000000000ULL) | *state >> 24;
}

static inline void fill_records(uint64_t *words, uint64_t tag)
{
	uint64_t state = tag;

	for (unsigned int i = 0; i < PAGE_WORDS; i += RECORD_WORDS) {
		record_words(tag, &state, &words[i]);
		for (unsigned int k = 2; k < RECORD_WORDS; k++)
			words[i + k] = tag + k;
	}
}

static inline bool check_records(const uint64_t *words, uint64_t tag)
{
	uint64_t state = tag, wrong = 0, own[2];

	for (unsigned int i = 0; i < PAGE_WORDS; i += RECORD_WORDS) {
		record_words(tag, &state, own);
		wrong |= words[i] ^ own[0];
		wrong |= words[i + 1] ^ own[1];
		for (unsigned int k = 2; k < RECORD_WORDS; k++)
			wrong |= words[i + k] ^ (tag + k);
	}
	return !wrong;
}

static inline void fill_random(uint64_t *words, uint64_t tag)
{
	for (unsigned int i = 0; i < PAGE_WORDS; i++)
		words[i] = tag = next_random(tag);
}

static inline bool check_random(const uint64_t *words, uint64_t tag)
{
	uint64_t wrong = 0;

	for (unsigned int i = 0; i < PAGE_WORDS; i++) {
		tag = next_random(tag);
		wrong |= words[i] ^ tag;
	}
	return !wrong;
}

static inline void fill_same(uint64_t *words, uint64_t tag)
{
	for (unsigned int i = 0; i < PAGE_WORDS; i++)
		words[i] = tag;
}

static inline bool check_same(const uint64_t *words, uint64_t tag)
{
	uint64_t wrong = 0;

	for (unsigned int i = 0; i < PAGE_WORDS; i++)
		wrong |= words[i] ^ tag;
	return !wrong;
}

static inline void fill_page(uint64_t *words, enum kind kind, uint64_t tag)
{
	switch (kind) {
	case KIND_SAME:
		fill_same(words, tag);
		break;
	case KIND_RECORDS:
		fill_records(words, tag);
		break;
	default:
		fill_random(words, tag);
		break;
	}
}

/* All 4,096 bytes, always: no early way out, so that a check takes as long as it takes. */
static inline bool check_page(const uint64_t *words, enum kind kind, uint64_t tag)
{
	switch (kind) {
	case KIND_SAME:
		return check_same(words, tag);
	case KIND_RECORDS:
		return check_records(words, tag);
	default:
		return check_random(words, tag);
	}
}

#endif /* RIG_CONTENT_H */
