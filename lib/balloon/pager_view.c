// SPDX-License-Identifier: BSD-2-Clause
/*
 * The VMM's own mapping as a view: revoking it is unmapping, in the way of each backing.
 *
 * Pages that are unmapped already, or not resident, have nothing to be revoked.
 */
#include <stddef.h>

#include "pager_internal.h"
#include "uffd.h"

/*
 * The region of a batch, or NULL where it is not managed; to be left in any case. The read
 * section keeps the region, which may be detached at any moment once its pages are free.
 */
static struct pager_region *enter_region(struct mv_view *view, const struct mv_batch *batch)
{
	struct mv_pager *pager = (void *)((char *)view - offsetof(struct mv_pager, view));

	mv_memory_read_enter(pager->memory);
	return pager_region_of(pager, batch->region);
}

static void leave_region(const struct mv_batch *batch)
{
	mv_memory_read_leave(batch->region->memory);
}

/* The pages of a batch that are still mapped: the others have been revoked before. */
static void only_mapped(const struct mv_batch *batch, struct mv_batch *mapped)
{
	*mapped = *batch;
	mv_batch_for_each_page(batch, bit) {
		uint32_t word = mv_page_load(mv_batch_word(batch, bit));

		if (mv_word_state(word) != MV_PAGE_RESIDENT || (word & MV_WORD_UNMAPPED))
			mv_batch_take(mapped, bit);
	}
}

static void view_prepare(struct mv_view *view, struct mv_batch *batch)
{
	struct pager_region *pr = enter_region(view, batch);
	struct mv_batch mapped, could;

	if (pr) {
		only_mapped(batch, &mapped);
		could = mapped;
		pr->backing->prepare(pr, &could);
		for (unsigned int i = 0; i < MV_BATCH_WORDS; i++)
			batch->bits[i] &= ~(mapped.bits[i] & ~could.bits[i]);
	}
	leave_region(batch);
}

static void view_abort(struct mv_view *view, const struct mv_batch *batch)
{
	struct pager_region *pr = enter_region(view, batch);
	struct mv_batch mapped;

	if (pr) {
		only_mapped(batch, &mapped);
		pr->backing->abort(pr, &mapped);
	}
	leave_region(batch);
}

static void view_commit(struct mv_view *view, const struct mv_batch *batch)
{
	struct pager_region *pr = enter_region(view, batch);
	struct mv_batch mapped;

	if (pr) {
		only_mapped(batch, &mapped);
		pr->backing->commit(pr, &mapped);
	}
	leave_region(batch);
}

/* The kernel has flushed every processor's TLB when its call returns. */
static void view_flush(struct mv_view *view, const struct mv_batch *batch)
{
}

static void view_wake(struct mv_view *view, const struct mv_batch *batch)
{
	struct pager_region *pr = enter_region(view, batch);
	unsigned int bit = 0, count;

	for (; pr && mv_batch_next_run(batch, &bit, &count); bit += count)
		mv_uffd_wake(pr->uffd, pr_hva(pr, batch->first_page + bit),
			     (uint64_t)count << MV_PAGE_SHIFT);
	leave_region(batch);
}

const struct mv_view_ops pager_view_ops = {
	.prepare_revoke = view_prepare,
	.commit_revoke = view_commit,
	.abort_revoke = view_abort,
	.flush = view_flush,
	.wake = view_wake,
};
