/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ledger by the memory: pins over ranges, states with their counts.
 *
 * Freestanding. What happens within one word is in ledger.h; what moves a page from one
 * state to another belongs to whoever does it (pager, mv_memory_discard()).
 */
#include <errno.h>

#include "region.h"

static void count_add(uint64_t *count)
{
	__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
}

static void count_sub(uint64_t *count)
{
	__atomic_fetch_sub(count, 1, __ATOMIC_RELAXED);
}

uint32_t mv_region_end(struct mv_region *region, uint64_t page, enum mv_page_state state,
		       uint32_t clear, uint32_t set)
{
	uint32_t *word = &region->words[page];
	uint64_t *states = region->memory->states;
	/* Ours to change only: the page is busy. */
	enum mv_page_state before = mv_word_state(mv_page_load(word));

	/*
	 * Counted while the page is still ours: its next owner takes from the new state what
	 * was added here, so that no count ever goes below zero.
	 */
	if (state != before) {
		count_add(&states[state]);
		count_sub(&states[before]);
	}
	return mv_page_end(word, clear | MV_WORD_STATE, set | state);
}

/* --- pins ------------------------------------------------------------------------------- */

/*
 * Neither the region nor its words may be looked at once the last pin is gone: nothing else
 * may keep them.
 */
static void unpin_words(struct mv_memory *memory, uint32_t *words, uint64_t count)
{
	while (count--)
		if (mv_page_unpin(words++))
			count_sub(&memory->pinned);
}

static int pin_pages(struct mv_region *region, uint64_t first_page, uint64_t last_page)
{
	struct mv_memory *memory = region->memory;
	uint32_t *words = &region->words[first_page];
	uint64_t count = last_page - first_page + 1;

	for (uint64_t i = 0; i < count; i++) {
		bool first;

		if (!mv_page_pin(&memory->platform, &words[i], &first)) {
			unpin_words(memory, words, i);
			return -EOVERFLOW;
		}
		if (first)
			count_add(&memory->pinned);
	}
	return 0;
}

/* Every region of the range is held. */
static int pin_held(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa)
{
	struct mv_pages pages;

	mv_pages_first(memory, first_gpa, last_gpa, &pages);
	do {
		int error = pin_pages(pages.region, pages.first_page, pages.last_page);

		if (error) {
			if (pages.region->first_gpa > first_gpa)
				mv_memory_unpin(memory, first_gpa, pages.region->first_gpa - 1);
			return error;
		}
	} while (mv_pages_next(&pages));
	return 0;
}

int mv_memory_pin(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa)
{
	int error;

	if (last_gpa < first_gpa)
		return -EFAULT;
	/* Once pinned, the pages keep their regions; until then the holds do. */
	error = mv_memory_hold_range(memory, first_gpa, last_gpa);
	if (error)
		return error;
	error = pin_held(memory, first_gpa, last_gpa);
	mv_memory_release_range(memory, first_gpa, last_gpa);
	return error;
}

void mv_memory_unpin(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa)
{
	struct mv_pages pages;
	bool more = true;

	mv_pages_first(memory, first_gpa, last_gpa, &pages);
	while (more) {
		struct mv_pages part = pages;

		/* Step first: a region without its pins may go at any moment. */
		more = mv_pages_next(&pages);
		unpin_words(memory, &part.region->words[part.first_page],
			    part.last_page - part.first_page + 1);
	}
}

/* --- looking ---------------------------------------------------------------------------- */

int mv_memory_page_state(struct mv_memory *memory, uint64_t gpa, enum mv_page_state *state)
{
	int error = -EFAULT;

	mv_memory_read_enter(memory);
	const struct mv_region *region = mv_region_by_gpa(memory, gpa);

	if (region) {
		*state = mv_word_state(mv_page_load(&region->words[mv_region_page(region, gpa)]));
		error = 0;
	}
	mv_memory_read_leave(memory);
	return error;
}
