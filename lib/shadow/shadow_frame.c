/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Frames: the record of each guest page, found by number in a flat array of its region, one for
 * each size of page; and the lock that each has.
 *
 * 20 bytes for each 4 KiB. What does not belong here: chains (shadow_entry.c), tables
 * (shadow_page.c).
 */
#include "shadow_internal.h"

/* --- made and freed ------------------------------------------------------------------------- */

static size_t frames_bytes(const struct mv_shadow *s, const struct mv_region *region,
			   unsigned int level)
{
	unsigned int shift = s->format->shift[level];

	return ((region->last_gpa >> shift) - (region->first_gpa >> shift) + 1) *
	       sizeof(struct shadow_frame);
}

static int slot_init(struct mv_shadow *s, struct shadow_slot *slot)
{
	for (unsigned int level = 1; level < SHADOW_SIZES; level++) {
		slot->frames[level] = s->platform.ops->alloc(
			s->platform.ctx, frames_bytes(s, slot->region, level), s->node);
		if (!slot->frames[level])
			return -ENOMEM;
	}
	return 0;
}

static void slot_finish(struct mv_shadow *s, struct shadow_slot *slot)
{
	for (unsigned int level = 1; level < SHADOW_SIZES; level++)
		if (slot->frames[level])
			s->platform.ops->free(s->platform.ctx, slot->frames[level],
					      frames_bytes(s, slot->region, level));
	if (slot->region)
		mv_region_release(slot->region);
}

static void slot_of_region(struct shadow_slot *slot, struct mv_region *region)
{
	slot->region = region;
	slot->first_gpa = region->first_gpa;
	slot->last_gpa = region->last_gpa;
	slot->mapped = (uintptr_t)region->hva - region->first_gpa;
}

/* Regions by address, each held, as far as there is room. Return: how many there are; -EBUSY. */
static int hold_regions(struct mv_shadow *s, unsigned int room)
{
	int count;

	mv_memory_read_enter(s->memory);
	const struct mv_region_set *set = mv_memory_regions(s->memory);

	count = (int)set->count;
	for (unsigned int i = 0; i < set->count && i < room && count >= 0; i++) {
		if (mv_region_hold(set->by_gpa[i]))
			slot_of_region(&s->slots[s->slot_count++], set->by_gpa[i]);
		else
			count = -EBUSY;
	}
	mv_memory_read_leave(s->memory);
	return count;
}

#define SLOTS_ROOM 64 /* to begin with */

static void drop_slots(struct mv_shadow *s, unsigned int room)
{
	for (unsigned int i = 0; i < s->slot_count; i++)
		slot_finish(s, &s->slots[i]);
	if (s->slots)
		s->platform.ops->free(s->platform.ctx, s->slots, room * sizeof(*s->slots));
	s->slots = NULL;
	s->slot_count = 0;
}

/* Until all fit: regions may come meanwhile. Return: the room that was made, or -errno. */
static int take_regions(struct mv_shadow *s)
{
	int count = SLOTS_ROOM;

	for (;;) {
		unsigned int room = (unsigned int)count;

		s->slots =
			s->platform.ops->alloc(s->platform.ctx, room * sizeof(*s->slots), s->node);
		if (!s->slots)
			return -ENOMEM;
		count = hold_regions(s, room);
		if (count >= 0 && (unsigned int)count <= room)
			return (int)room;
		drop_slots(s, room);
		if (count < 0)
			return count;
	}
}

int shadow_frames_init(struct mv_shadow *s)
{
	int room = take_regions(s);

	if (room < 0)
		return room;
	s->slot_room = (unsigned int)room;
	for (unsigned int i = 0; i < s->slot_count; i++) {
		int error = slot_init(s, &s->slots[i]);

		if (error)
			return error;
	}
	return 0;
}

void shadow_frames_finish(struct mv_shadow *s)
{
	drop_slots(s, s->slot_room);
}

/* --- found ---------------------------------------------------------------------------------- */

const struct shadow_slot *shadow_slot_at(const struct mv_shadow *s, uint64_t gpa)
{
	unsigned int low = 0, high = s->slot_count;

	while (low < high) {
		unsigned int middle = low + (high - low) / 2;
		const struct shadow_slot *slot = &s->slots[middle];

		if (gpa < slot->first_gpa)
			high = middle;
		else if (gpa > slot->last_gpa)
			low = middle + 1;
		else
			return slot;
	}
	return NULL;
}

struct shadow_frame *shadow_frame_of_base(struct mv_shadow *s, uint64_t base)
{
	const struct shadow_slot *slot = shadow_slot_at(s, base);

	if (slot)
		return shadow_frame_in(s, slot, 1, base);
	return &s->strays[base >> MV_PAGE_SHIFT & (SHADOW_STRAYS - 1)];
}

/* --- the lock ------------------------------------------------------------------------------- */

void shadow_lock_slowly(struct shadow_frame *frame)
{
	do
		while (__atomic_load_n(&frame->word, __ATOMIC_RELAXED) & SHADOW_LOCK)
			shadow_pause();
	while (__atomic_fetch_or(&frame->word, SHADOW_LOCK, __ATOMIC_ACQUIRE) & SHADOW_LOCK);
}
