/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest pages by ranges: who has to see their writes, which were written, which were used, and all
 * that maps them taken away. All of it through the chains of the pages' frames.
 *
 * A page is tracked as long as anybody counts on it. A log of writes is one bit of each frame:
 * while a region is logged, a page may be writable only when its bit is set. A harvest takes the
 * bit and the right to write together, under the frame's lock; what writes without a mapping (the
 * library in the guest's tables, the VMM for an instruction) sets the bit afterwards.
 *
 * Freestanding. What does not belong here: tables, tracked by their own count (shadow_page.c).
 */
#include "../page_report.h"
#include "shadow_internal.h"

/* --- ranges ---------------------------------------------------------------------------------- */

static bool range_valid(uint64_t first_gpa, uint64_t last_gpa)
{
	return first_gpa <= last_gpa && !(first_gpa & (MV_PAGE_SIZE - 1)) &&
	       !(~last_gpa & (MV_PAGE_SIZE - 1));
}

/**
 * struct part - of a range, what lies in one slot
 * @first, @last: addresses
 */
struct part {
	struct shadow_slot *slot;
	uint64_t first, last;
};

/* The part of a range in a slot. Return: whether there is any. */
static bool part_of(struct mv_shadow *s, unsigned int number, uint64_t first_gpa, uint64_t last_gpa,
		    struct part *part)
{
	struct shadow_slot *slot = &s->slots[number];

	part->slot = slot;
	part->first = first_gpa > slot->first_gpa ? first_gpa : slot->first_gpa;
	part->last = last_gpa < slot->last_gpa ? last_gpa : slot->last_gpa;
	return part->first <= part->last;
}

typedef void frame_fn(struct mv_shadow *s, struct shadow_frame *frame, uint64_t gpa, uint64_t last,
		      void *ctx);

/* Each frame of a level that lies in a part, or reaches into it. */
static void each_frame(struct mv_shadow *s, const struct part *part, unsigned int level,
		       frame_fn *call, void *ctx)
{
	uint64_t mask = mv_span_mask(s->format, level), gpa = part->first & ~mask;

	for (;; gpa += mask + 1) {
		call(s, shadow_frame_in(s, part->slot, level, gpa), gpa, gpa | mask, ctx);
		if ((gpa | mask) >= part->last)
			break;
	}
}

static void each_frame_of_range(struct mv_shadow *s, uint64_t first_gpa, uint64_t last_gpa,
				frame_fn *call, void *ctx)
{
	struct part part;

	for (unsigned int i = 0; i < s->slot_count; i++)
		if (part_of(s, i, first_gpa, last_gpa, &part))
			for (unsigned int level = 1; level < SHADOW_SIZES; level++)
				each_frame(s, &part, level, call, ctx);
}

/* Whether every page of a range is in a region, and, where asked, is logged. */
static bool range_is_covered(struct mv_shadow *s, uint64_t first_gpa, uint64_t last_gpa,
			     bool logged)
{
	for (unsigned int i = 0; i < s->slot_count; i++) {
		struct part part;

		if (!part_of(s, i, first_gpa, last_gpa, &part))
			continue;
		if (part.first != first_gpa || (logged && !shadow_is_logging(part.slot)))
			return false;
		if (part.last == last_gpa)
			return true;
		first_gpa = part.last + 1;
	}
	return false;
}

/* --- taken away, used ------------------------------------------------------------------------ */

static void zap_frame(struct mv_shadow *s, struct shadow_frame *frame, uint64_t gpa, uint64_t last,
		      void *ctx)
{
	shadow_zap_frame(s, frame);
}

int mv_shadow_zap(struct mv_shadow *shadow, uint64_t first_gpa, uint64_t last_gpa)
{
	if (!range_valid(first_gpa, last_gpa))
		return -EINVAL;
	/* First: what a fault has been told of before is not mapped any more, or is taken below. */
	__atomic_fetch_add(&shadow->zaps, 1, __ATOMIC_SEQ_CST);
	each_frame_of_range(shadow, first_gpa, last_gpa, zap_frame, NULL);
	shadow_flush(shadow);
	return 0;
}

static void age_frame(struct mv_shadow *s, struct shadow_frame *frame, uint64_t gpa, uint64_t last,
		      void *ctx)
{
	bool used;

	shadow_lock(s, frame);
	used = shadow_age_locked(s, frame);
	shadow_unlock(frame);
	if (used)
		mv_report_range(ctx, gpa, last);
}

int mv_shadow_age(struct mv_shadow *shadow, uint64_t first_gpa, uint64_t last_gpa, uint64_t *bitmap,
		  uint64_t *used)
{
	struct mv_page_report report = { first_gpa, last_gpa, bitmap, 0, false };

	if (!range_valid(first_gpa, last_gpa))
		return -EINVAL;
	each_frame_of_range(shadow, first_gpa, last_gpa, age_frame, &report);
	if (used)
		*used = report.count;
	return 0;
}

/* --- who wants to see writes ----------------------------------------------------------------- */

static int track_page(struct mv_shadow *s, struct shadow_frame *frame, uint64_t gpa)
{
	int error = 0;

	/* Before it is protected: a page around it must not be mapped after that. */
	shadow_break_up_around(s, gpa);
	shadow_lock(s, frame);
	if ((shadow_word(frame) & SHADOW_TRACKERS) == SHADOW_TRACKERS) {
		error = -EOVERFLOW;
	} else {
		__atomic_fetch_add(&frame->word, SHADOW_TRACKER, __ATOMIC_SEQ_CST);
		shadow_protect_locked(s, frame);
	}
	shadow_unlock(frame);
	if (error)
		shadow_let_grow_around(s, gpa);
	return error;
}

static void untrack_page(struct mv_shadow *s, struct shadow_frame *frame, uint64_t gpa)
{
	__atomic_fetch_sub(&frame->word, SHADOW_TRACKER, __ATOMIC_SEQ_CST);
	shadow_let_grow_around(s, gpa);
}

int mv_shadow_track(struct mv_shadow *shadow, uint64_t first_gpa, uint64_t last_gpa)
{
	uint64_t gpa = first_gpa;
	int error = 0;

	if (!range_valid(first_gpa, last_gpa))
		return -EINVAL;
	if (!range_is_covered(shadow, first_gpa, last_gpa, false))
		return -ENOENT;
	for (; !error && gpa - 1 != last_gpa; gpa += MV_PAGE_SIZE) {
		error = track_page(shadow, shadow_frame_of_base(shadow, gpa), gpa);
		if (error && gpa > first_gpa)
			mv_shadow_untrack(shadow, first_gpa, gpa - 1);
	}
	shadow_flush(shadow);
	return error;
}

void mv_shadow_untrack(struct mv_shadow *shadow, uint64_t first_gpa, uint64_t last_gpa)
{
	for (uint64_t gpa = first_gpa; gpa - 1 != last_gpa; gpa += MV_PAGE_SIZE)
		untrack_page(shadow, shadow_frame_of_base(shadow, gpa), gpa);
}

/* --- what was written ------------------------------------------------------------------------- */

/* Clean from now on, of which the next write takes note. */
static void arm_frame(struct mv_shadow *s, struct shadow_frame *frame, uint64_t gpa, uint64_t last,
		      void *ctx)
{
	shadow_lock(s, frame);
	__atomic_fetch_and(&frame->word, ~SHADOW_DIRTY, __ATOMIC_SEQ_CST);
	shadow_protect_locked(s, frame);
	shadow_unlock(frame);
}

int mv_shadow_track_dirty(struct mv_shadow *shadow, uint64_t first_gpa, bool on)
{
	struct part part = { .slot = NULL };

	for (unsigned int i = 0; i < shadow->slot_count && !part.slot; i++)
		if (shadow->slots[i].first_gpa == first_gpa)
			part_of(shadow, i, 0, UINT64_MAX, &part);
	if (!part.slot)
		return -ENOENT;
	/* First, so that whoever maps a page after it was armed asks for the log. */
	__atomic_store_n(&part.slot->logging, on, __ATOMIC_SEQ_CST);
	if (!on)
		return 0;
	for (unsigned int level = 2; level < SHADOW_SIZES; level++)
		each_frame(shadow, &part, level, zap_frame, NULL);
	each_frame(shadow, &part, 1, arm_frame, NULL);
	shadow_flush(shadow);
	return 0;
}

static void harvest_frame(struct mv_shadow *s, struct shadow_frame *frame, uint64_t gpa,
			  uint64_t last, void *ctx)
{
	if (!(shadow_word(frame) & SHADOW_DIRTY))
		return;
	arm_frame(s, frame, gpa, last, NULL);
	mv_report_page(ctx, gpa);
}

int mv_shadow_harvest(struct mv_shadow *shadow, uint64_t first_gpa, uint64_t last_gpa,
		      uint64_t *bitmap, uint64_t *dirty)
{
	struct mv_page_report report = { first_gpa, last_gpa, bitmap, 0, false };
	struct part part;

	if (!range_valid(first_gpa, last_gpa) || !bitmap)
		return -EINVAL;
	if (!range_is_covered(shadow, first_gpa, last_gpa, true))
		return -ENOENT;
	for (unsigned int i = 0; i < shadow->slot_count; i++)
		if (part_of(shadow, i, first_gpa, last_gpa, &part))
			each_frame(shadow, &part, 1, harvest_frame, &report);
	if (report.found)
		shadow_flush(shadow);
	if (dirty)
		*dirty = report.count;
	return 0;
}
