/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that are one repeated 64-bit word; see same_fill.h.
 */
#include "same_fill.h"

#include <string.h>

#include <memvirt/memory.h>

static uint64_t word_at(const void *page, size_t offset)
{
	uint64_t word;

	memcpy(&word, (const char *)page + offset, sizeof(word));
	return word;
}

bool mv_same_filled(const void *page, uint64_t *word)
{
	uint64_t first = word_at(page, 0);

	/* Pages that begin with zeros and end in something else are common: look there first. */
	if (word_at(page, MV_PAGE_SIZE - sizeof(first)) != first ||
	    word_at(page, sizeof(first)) != first)
		return false;
	/*
	 * Equal to itself one word on, then every word equals the next. The C library's memcmp
	 * uses the widest vectors that the processor has; a loop compiled for any x86-64 takes
	 * five times as long.
	 */
	if (memcmp(page, (const char *)page + sizeof(first), MV_PAGE_SIZE - sizeof(first)))
		return false;
	*word = first;
	return true;
}

void mv_same_fill(void *page, uint64_t word)
{
	unsigned char byte = (unsigned char)word;

	if (word == byte * 0x0101010101010101ULL) {
		memset(page, byte, MV_PAGE_SIZE);
		return;
	}
	for (size_t at = 0; at < MV_PAGE_SIZE; at += sizeof(word))
		memcpy((char *)page + at, &word, sizeof(word));
}
