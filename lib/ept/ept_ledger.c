/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A space as a view of the ledger: pages that are given away are removed from all its tables.
 *
 * Freestanding. What does not belong here: the transaction (view.c), grants (ept_fault.c).
 */
#include "ept_internal.h"

static struct mv_ept *ept_of(struct mv_view *view)
{
	return (struct mv_ept *)view;
}

/* Tables can give up anything at any time. */
static void ledger_prepare(struct mv_view *view, struct mv_batch *batch)
{
}

static void ledger_abort(struct mv_view *view, const struct mv_batch *batch)
{
}

/* Large pages go whole: those of their pages that stay fault again. */
static void ledger_commit(struct mv_view *view, const struct mv_batch *batch)
{
	struct mv_ept *ept = ept_of(view);
	unsigned int bit = 0, count;
	uint64_t gpa, revoked = 0;

	mv_batch_region_span(batch, NULL, &gpa);
	for (; mv_batch_next_run(batch, &bit, &count); bit += count) {
		uint64_t first = gpa + ((uint64_t)bit << MV_PAGE_SHIFT);

		revoked += ept_zap_all(ept, first, first + ((uint64_t)count << MV_PAGE_SHIFT) - 1);
	}
	if (revoked)
		__atomic_fetch_add(&ept->revoked, revoked, __ATOMIC_RELAXED);
}

/**
 * struct flush_need - what a granule's accounts said before a flush
 * @born:     of the slot; 0 where there was none
 * @removals: that the flush will cover
 */
struct flush_need {
	uint64_t born;
	uint64_t removals;
};

/* Whether leaves that reached the granule were removed, by anybody, and not flushed since. */
static bool flush_wanted(struct mv_ept *ept, const struct mv_batch *batch, uint64_t gpa,
			 struct flush_need *need)
{
	uint64_t number = batch->first_page / MV_GRANULE_PAGES;
	bool wanted = false;

	ept_enter(ept);
	const struct ept_slot *slot = ept_slot_find(ept, gpa);

	if (slot) {
		const struct ept_granule *granule = &slot->granules[number];

		need->born = slot->born;
		need->removals = __atomic_load_n(&granule->removals, __ATOMIC_SEQ_CST);
		wanted = __atomic_load_n(&granule->flushed, __ATOMIC_SEQ_CST) < need->removals;
	}
	/* After the look at the slots: who removes one has raised this before. */
	wanted |= __atomic_load_n(&ept->removing, __ATOMIC_SEQ_CST) != 0;
	ept_leave(ept);
	return wanted;
}

/* The granule's word is only raised: of two flushes the later one may be the first to end. */
static void note_flushed(struct mv_ept *ept, const struct mv_batch *batch, uint64_t gpa,
			 const struct flush_need *need)
{
	uint64_t number = batch->first_page / MV_GRANULE_PAGES;

	ept_enter(ept);
	struct ept_slot *slot = ept_slot_find(ept, gpa);

	if (slot && slot->born == need->born) {
		uint64_t *flushed = &slot->granules[number].flushed;
		uint64_t now = __atomic_load_n(flushed, __ATOMIC_SEQ_CST);

		while (now < need->removals &&
		       !__atomic_compare_exchange_n(flushed, &now, need->removals, false,
						    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
			;
	}
	ept_leave(ept);
}

static void ledger_flush(struct mv_view *view, const struct mv_batch *batch)
{
	struct mv_ept *ept = ept_of(view);
	struct flush_need need = { 0, 0 };
	uint64_t gpa, last;

	mv_batch_region_span(batch, NULL, &gpa);
	last = gpa + MV_GRANULE_SIZE - 1;
	if (last > batch->region->last_gpa)
		last = batch->region->last_gpa;
	if (!flush_wanted(ept, batch, gpa, &need))
		return;
	ept_flush(ept, gpa, last);
	note_flushed(ept, batch, gpa, &need);
}

const struct mv_view_ops ept_view_ops = {
	.prepare_revoke = ledger_prepare,
	.commit_revoke = ledger_commit,
	.abort_revoke = ledger_abort,
	.flush = ledger_flush,
};
