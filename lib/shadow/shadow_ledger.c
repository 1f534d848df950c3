/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A shadow as a view of the ledger: the entries that map a page which is given away are found from
 * its frame.
 *
 * A commit takes each frame's lock, and a grant asks the granule's sequence under that lock: so the
 * grant is either there for the commit to remove, or sees that a revoke runs (lib/region.h).
 *
 * A page of the guest's that is a table may be given away like any other. What stands for it goes
 * too: a page that comes back as zeros was written to by nobody.
 *
 * Freestanding. What does not belong here: the transaction (view.c), grants (shadow_entry.c).
 */
#include "shadow_internal.h"

static struct mv_shadow *shadow_of(struct mv_view *view)
{
	return (struct mv_shadow *)view;
}

/* A shadow can give up anything at any time. */
static void ledger_prepare(struct mv_view *view, struct mv_batch *batch)
{
}

static void ledger_abort(struct mv_view *view, const struct mv_batch *batch)
{
}

/* Empty the shadow pages of a table of the guest. */
static void forget_table(struct mv_shadow *s, struct shadow_frame *frame)
{
	uint32_t number;

	__atomic_fetch_add(&frame->writes, 1, __ATOMIC_SEQ_CST);
	shadow_enter(s);
	number = __atomic_load_n(&frame->pages, __ATOMIC_SEQ_CST);
	while (number) {
		struct shadow_page *page = &s->pages[number];

		number = __atomic_load_n(&page->next, __ATOMIC_SEQ_CST);
		if (shadow_of_table(page->role) && !shadow_kill(s, page))
			shadow_sweep(s, page);
	}
	shadow_leave(s);
}

static void commit_page(struct mv_shadow *s, const struct shadow_slot *slot, uint64_t gpa)
{
	struct shadow_frame *frame = shadow_frame_in(s, slot, 1, gpa);

	shadow_zap_frame(s, frame);
	if (__atomic_load_n(&frame->pages, __ATOMIC_SEQ_CST))
		forget_table(s, frame);
}

/* Large pages go whole: those of their pages that stay fault again. */
static void ledger_commit(struct mv_view *view, const struct mv_batch *batch)
{
	struct mv_shadow *s = shadow_of(view);
	const struct shadow_slot *slot;
	uint64_t gpa;

	mv_batch_region_span(batch, NULL, &gpa);
	slot = shadow_slot_at(s, gpa);
	/* A region that came after us. */
	if (!slot)
		return;
	mv_batch_for_each_page (batch, bit) {
		uint64_t page_gpa = gpa + ((uint64_t)bit << MV_PAGE_SHIFT);

		for (unsigned int level = 2; level < SHADOW_SIZES; level++)
			shadow_zap_frame(s, shadow_frame_in(s, slot, level, page_gpa));
		commit_page(s, slot, page_gpa);
	}
}

static void ledger_flush(struct mv_view *view, const struct mv_batch *batch)
{
	shadow_flush(shadow_of(view));
}

const struct mv_view_ops shadow_view_ops = {
	.prepare_revoke = ledger_prepare,
	.commit_revoke = ledger_commit,
	.abort_revoke = ledger_abort,
	.flush = ledger_flush,
};
