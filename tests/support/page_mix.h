/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages with the kinds of content that memory really has, made from a seed: the same seed
 * gives the same page. For tests and benchmarks; a header alone, so that both can use it.
 */
#ifndef PAGE_MIX_H
#define PAGE_MIX_H

#include <stdint.h>
#include <string.h>

#define PAGE_MIX_BYTES 4096

/**
 * enum page_kind - what a page looks like
 * @PAGE_ZERO:  zeros
 * @PAGE_SMALL: one repeated word that is zero-extended, sign-extended or a short pattern
 * @PAGE_WORD:  one repeated word of 64 random bits
 * @PAGE_TEXT:  words separated by blanks, some far more frequent; LZ4 leaves some 57%
 * @PAGE_HEAP:  records of pointers, counts, flags and short strings; LZ4 leaves some 36%
 * @PAGE_NOISE: random bits
 */
enum page_kind {
	PAGE_ZERO,
	PAGE_SMALL,
	PAGE_WORD,
	PAGE_TEXT,
	PAGE_HEAP,
	PAGE_NOISE,
	PAGE_KINDS,
};

static inline const char *page_kind_name(enum page_kind kind)
{
	static const char *const names[PAGE_KINDS] = { "zero", "small", "word",
						       "text", "heap",  "noise" };

	return names[kind];
}

/* splitmix64: every seed is good, also 0, 1, 2 … */
static inline uint64_t page_mix_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static inline void page_fill_word(void *page, uint64_t word)
{
	for (size_t at = 0; at < PAGE_MIX_BYTES; at += sizeof(word))
		memcpy((char *)page + at, &word, sizeof(word));
}

static inline uint64_t page_small_word(uint64_t random)
{
	uint64_t value = random >> 8;

	switch (random & 3) {
	case 0:
		return value & 0xffff;
	case 1:
		return -(value & 0xffffff);
	case 2:
		return (value & 0xff) * 0x0101010101010101ULL;
	default:
		return (value & 0xffffffff) * 0x0000000100000001ULL;
	}
}

/* A vocabulary of 512 words of 3 to 12 letters; the product of three draws favours the first. */
static inline void page_fill_text(char *page, uint64_t *state)
{
	for (size_t at = 0; at < PAGE_MIX_BYTES;) {
		uint64_t draw = page_mix_random(state);
		uint64_t word = (draw & 511) * (draw >> 9 & 511) * (draw >> 18 & 511) >> 18;
		uint64_t letters = page_mix_random(&word);
		size_t length = 3 + letters % 10;

		for (size_t i = 0; i <= length && at < PAGE_MIX_BYTES; i++, letters >>= 5)
			page[at++] = i == length ? (draw >> 60 ? ' ' : '\n')
						 : (char)('a' + (letters & 31) % 26);
	}
}

/* Records of 64 bytes, as an allocator would lay them. */
static inline void page_fill_heap(char *page, uint64_t *state)
{
	uint64_t heap = 0x00005580a0000000ULL + (page_mix_random(state) & 0xfff000);
	uint64_t vtable = 0x00007f31c4000000ULL + (page_mix_random(state) & 0xfff0);

	for (size_t at = 0; at < PAGE_MIX_BYTES; at += 64) {
		uint64_t random = page_mix_random(state);
		uint64_t record[8] = {
			0x41,				     /* the allocator's size */
			vtable + (random & 3) * 0x40,	     /* a type */
			heap + at + 64,			     /* the next one */
			heap + (random >> 2 & 0xffff) * 16,  /* another object */
			random >> 18 & 0xff,		     /* a count */
			random >> 26 & 1,		     /* a flag */
			random >> 27 & 7 ? 0 : random >> 32, /* often not used */
			0,
		};
		if (random >> 30 & 1)
			memcpy(&record[7], "name", 4);
		memcpy(page + at, record, sizeof(record));
	}
}

static inline void page_fill_noise(char *page, uint64_t *state)
{
	for (size_t at = 0; at < PAGE_MIX_BYTES; at += 8) {
		uint64_t word = page_mix_random(state);

		memcpy(page + at, &word, sizeof(word));
	}
}

/* Make a page of a kind. */
static inline void page_make(void *page, enum page_kind kind, uint64_t seed)
{
	uint64_t state = seed * PAGE_KINDS + kind;

	switch (kind) {
	case PAGE_ZERO:
		memset(page, 0, PAGE_MIX_BYTES);
		break;
	case PAGE_SMALL:
		page_fill_word(page, page_small_word(page_mix_random(&state)));
		break;
	case PAGE_WORD:
		page_fill_word(page, page_mix_random(&state));
		break;
	case PAGE_TEXT:
		page_fill_text(page, &state);
		break;
	case PAGE_HEAP:
		page_fill_heap(page, &state);
		break;
	default:
		page_fill_noise(page, &state);
		break;
	}
}

/* A kind by the lot: 10% same-filled, 35% text, 35% heap, 20% noise. */
static inline enum page_kind page_mix_kind(uint64_t seed)
{
	uint64_t state = seed ^ 0x6d6978;
	unsigned int lot = page_mix_random(&state) % 100;

	return lot < 6 ? PAGE_ZERO
	     : lot < 8 ? PAGE_SMALL
	     : lot < 10 ? PAGE_WORD
	     : lot < 45 ? PAGE_TEXT
	     : lot < 80 ? PAGE_HEAP
			: PAGE_NOISE;
}

#endif /* PAGE_MIX_H */
