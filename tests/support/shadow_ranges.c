/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a shadow says of ranges of guest memory, judged by what the machine of shadow_machine.h has
 * done: pages whose content has changed have to be told of as dirty, whoever changed it and
 * however; pages that a processor has walked to as used; and of tracked ones it makes no write.
 */
#include "support/shadow_machine.h"

#define MAX_PAGES 512

static uint64_t last_of(uint64_t first_page, uint64_t pages)
{
	return ((first_page + pages) << 12) - 1;
}

static bool is_set(const uint64_t *bitmap, uint64_t bit)
{
	return bitmap[bit / 64] >> bit % 64 & 1;
}

static uint64_t count_of(const uint64_t *bitmap)
{
	uint64_t count = 0;

	for (unsigned int i = 0; i < MAX_PAGES / 64; i++)
		count += (uint64_t)__builtin_popcountll(bitmap[i]);
	return count;
}

/* For a reason: from now on they are somewhere else. */
void sm_zap(struct shadow_machine *machine, uint64_t first_page, uint64_t pages)
{
	for (uint64_t page = first_page; page < first_page + pages; page++)
		sm_move(machine, page);
	insist(!mv_shadow_zap(machine->shadow, first_page << 12, last_of(first_page, pages)));
}

void sm_note_hit(struct shadow_machine *machine, uint64_t gpa, bool write)
{
	insist(!write || !machine->tracked[gpa >> 12]);
	/* A TLB spares the walk, and so the sign of it. */
	machine->used[gpa >> 12] |= !machine->tlb;
}

/* A large page was used as a whole, and counts for those who ask for a part of it first. */
static void forget_uses(struct shadow_machine *machine, uint64_t first_page, uint64_t pages)
{
	for (uint64_t page = first_page & ~511ULL; page < ((first_page + pages + 511) & ~511ULL);
	     page++)
		machine->used[page] = false;
}

void sm_age(struct shadow_machine *machine, uint64_t first_page, uint64_t pages)
{
	uint64_t bitmap[MAX_PAGES / 64] = { 0 }, used;

	insist(pages <= MAX_PAGES);
	insist(!mv_shadow_age(machine->shadow, first_page << 12, last_of(first_page, pages), bitmap,
			      &used));
	insist(used == count_of(bitmap));
	for (uint64_t i = 0; i < pages; i++)
		insist(!machine->used[first_page + i] || is_set(bitmap, i));
	forget_uses(machine, first_page, pages);
}

void sm_harvest(struct shadow_machine *machine, uint64_t first_page, uint64_t pages)
{
	uint64_t bitmap[MAX_PAGES / 64] = { 0 }, dirty;

	insist(pages <= MAX_PAGES);
	insist(!mv_shadow_harvest(machine->shadow, first_page << 12, last_of(first_page, pages),
				  bitmap, &dirty));
	insist(dirty == count_of(bitmap));
	for (uint64_t i = 0; i < pages; i++) {
		uint64_t at = (first_page + i) << 12;

		insist(is_set(bitmap, i) || !memcmp(machine->hva + at, machine->seen + at, 4096));
		memcpy(machine->seen + at, machine->hva + at, 4096);
	}
}

void sm_track(struct shadow_machine *machine, uint64_t first_page, uint64_t pages)
{
	insist(!mv_shadow_track(machine->shadow, first_page << 12, last_of(first_page, pages)));
	for (uint64_t i = 0; i < pages; i++)
		machine->tracked[first_page + i]++;
}

void sm_untrack(struct shadow_machine *machine, uint64_t first_page, uint64_t pages)
{
	mv_shadow_untrack(machine->shadow, first_page << 12, last_of(first_page, pages));
	for (uint64_t i = 0; i < pages; i++)
		machine->tracked[first_page + i]--;
}

void sm_log(struct shadow_machine *machine, unsigned int region, bool on)
{
	uint64_t first = region ? SREF_HOLE_LAST + 1 : 0;
	uint64_t end = region ? SREF_BYTES : SREF_HOLE_FIRST;

	insist(!mv_shadow_track_dirty(machine->shadow, first, on));
	machine->logged[region] = on;
	if (on)
		memcpy(machine->seen + first, machine->hva + first, end - first);
}
