/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Writes of the guest to pages that are its tables.
 *
 * A write that was emulated takes away the entries that were made from what it changed. A page
 * that is written to again and again while no fault comes through its shadow is no table any
 * more, most likely: its shadow pages go, and the guest writes there by itself.
 *
 * Freestanding. What does not belong here: taking entries away (shadow_entry.c).
 */
#include "shadow_internal.h"

#define FLOOD 3 /* writes in a row */

/* An entry of the guest's table, or two of ours: 32-bit directories span 4 MiB an entry. */
static void zap_made_from(struct mv_shadow *s, struct shadow_page *page, unsigned int number)
{
	union shadow_role role = page->role;

	if (mv_formats[role.format]->entry_lg2 == 3) {
		shadow_zap(s, page, number);
		return;
	}
	if (role.level == 1 && number / 512 == role.quadrant) {
		shadow_zap(s, page, number % 512);
	} else if (role.level == 2 && number / 256 == role.quadrant) {
		shadow_zap(s, page, number % 256 * 2);
		shadow_zap(s, page, number % 256 * 2 + 1);
	}
}

static void zap_written(struct mv_shadow *s, struct shadow_page *page, unsigned int first,
			unsigned int last)
{
	unsigned int entry_lg2 = mv_formats[page->role.format]->entry_lg2;

	for (unsigned int number = first >> entry_lg2; number <= last >> entry_lg2; number++)
		zap_made_from(s, page, number);
}

/* Leaf tables are written to often, and in bursts; that is not what tells. */
static bool is_flooded(struct shadow_page *page)
{
	return __atomic_add_fetch(&page->flood, 1, __ATOMIC_RELAXED) > FLOOD &&
	       page->role.level > 1;
}

/* A part of one page: bytes @first to @last of it. */
static void wrote_page(struct mv_shadow *s, const struct shadow_slot *slot, uint64_t gpa,
		       unsigned int first, unsigned int last)
{
	struct shadow_frame *frame = shadow_frame_in(s, slot, 1, gpa);
	uint32_t number;

	shadow_count(&s->stats.emulated, 1);
	shadow_log_write(slot, frame);
	/* Before the entries are looked at: who installs one from now on read the new ones. */
	__atomic_fetch_add(&frame->writes, 1, __ATOMIC_SEQ_CST);
	shadow_enter(s);
	number = __atomic_load_n(&frame->pages, __ATOMIC_SEQ_CST);
	while (number) {
		struct shadow_page *page = &s->pages[number];

		number = __atomic_load_n(&page->next, __ATOMIC_SEQ_CST);
		if (!shadow_of_table(page->role))
			continue;
		zap_written(s, page, first, last);
		if (is_flooded(page))
			shadow_kill(s, page);
	}
	shadow_leave(s);
}

void mv_shadow_guest_wrote(struct mv_shadow *shadow, uint64_t gpa, size_t bytes)
{
	while (bytes) {
		unsigned int first = gpa & (MV_PAGE_SIZE - 1);
		size_t here = MV_PAGE_SIZE - first;
		const struct shadow_slot *slot = shadow_slot_at(shadow, gpa);

		here = here < bytes ? here : bytes;
		if (slot)
			wrote_page(shadow, slot, gpa, first, first + (unsigned int)here - 1);
		gpa += here;
		bytes -= here;
	}
}
