/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A view is whatever lets someone reach guest pages: stage-2 tables, shadow tables, DMA
 * mappings, the VMM's own mapping. Giving a page away is one transaction over all views:
 *
 *     busy -> prepare in every view (any may refuse a page) -> commit -> flush -> drop
 *
 * The unit is a batch: a set of pages within one granule of 2 MiB, so that neighbours
 * cost one system call and a view may refuse one page without losing the others.
 */
#ifndef MEMVIRT_VIEW_H
#define MEMVIRT_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/memory.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct mv_region;

#define MV_BATCH_WORDS (MV_GRANULE_PAGES / 64)

/**
 * struct mv_batch - a set of pages of one region, within one granule
 * @region:     the region
 * @first_page: number within the region of the page that bit 0 stands for; a multiple of
 *              512. A region's last granule may be short.
 * @bits:       one bit a page
 */
struct mv_batch {
	struct mv_region *region;
	uint64_t first_page;
	uint64_t bits[MV_BATCH_WORDS];
};

struct mv_view;

/**
 * struct mv_view_ops - what a view does when pages change hands
 * @grant:          optional: the pages of the batch are resident and may be reached again.
 *                  0, or -errno where the view could not take them back; it then has none.
 * @prepare_revoke: take from the batch every page that the view cannot give up now. What
 *                  it did for those that stay is undone by @abort_revoke.
 * @commit_revoke:  stop reaching the pages; no refusal is possible any more.
 * @abort_revoke:   undo @prepare_revoke for the pages of the batch.
 * @flush:          return when no processor and no device reaches the pages through this
 *                  view any more.
 * @wake:           optional, and only of the pages of mv_memory_discard(): the transaction has
 *                  ended, and somebody met these pages busy meanwhile: let those try again.
 *                  The pages are not the caller's any more.
 *
 * All pages of a batch are busy and belong to the caller. Called in the order of
 * attachment rank, @abort_revoke in the opposite one; may sleep, must not wait for a busy
 * page, must not touch the pages, and must not attach or detach a view or a region.
 */
struct mv_view_ops {
	int (*grant)(struct mv_view *view, const struct mv_batch *batch);
	void (*prepare_revoke)(struct mv_view *view, struct mv_batch *batch);
	void (*commit_revoke)(struct mv_view *view, const struct mv_batch *batch);
	void (*abort_revoke)(struct mv_view *view, const struct mv_batch *batch);
	void (*flush)(struct mv_view *view, const struct mv_batch *batch);
	void (*wake)(struct mv_view *view, const struct mv_batch *batch);
};

/**
 * enum mv_view_rank - the order in which views are asked
 *
 * Those that refuse most come first, so that little has to be undone; the VMM's own
 * mapping comes last, because all others resolve their misses through it.
 */
enum mv_view_rank {
	MV_VIEW_RANK_DMA,
	MV_VIEW_RANK_TABLES,
	MV_VIEW_RANK_PROCESS,
};

/**
 * struct mv_view - a view, embedded in the object that implements it
 * @ops:  operations
 * @rank: place in the order; among equals the first attached comes first
 */
struct mv_view {
	const struct mv_view_ops *ops;
	enum mv_view_rank rank;
};

/**
 * mv_memory_attach_view() - from now on ask a view before pages are given away
 * @memory: the memory
 * @view:   stays the caller's; must live until detached
 *
 * Context: takes memory->lock; sleeps; not in a read section.
 * Return: 0; -EINVAL where an operation that is not optional is missing; -EEXIST where it is
 * attached already; -ENOMEM.
 */
int mv_memory_attach_view(struct mv_memory *memory, struct mv_view *view);

/**
 * mv_memory_detach_view() - stop asking a view
 * @memory: the memory
 * @view:   an attached view; when the call returns no transaction uses it any more
 *
 * Context: takes memory->lock; sleeps; not in a read section.
 */
void mv_memory_detach_view(struct mv_memory *memory, struct mv_view *view);

/**
 * mv_batch_region_span() - the host-virtual and guest-physical place of a batch
 * @batch: the batch
 * @hva:   set to the address of the page of bit 0, where not NULL
 * @gpa:   the same in guest-physical terms, where not NULL
 *
 * Context: whoever holds the batch.
 */
void mv_batch_region_span(const struct mv_batch *batch, void **hva, uint64_t *gpa);

/**
 * mv_batch_next_run() - the next run of neighbouring pages
 * @batch: the batch
 * @bit:   in: where to begin to look; out: first bit of the run
 * @count: out: pages in the run
 *
 * Context: whoever holds the batch.
 * Return: false where there is none.
 */
bool mv_batch_next_run(const struct mv_batch *batch, unsigned int *bit, unsigned int *count);

/**
 * struct mv_gpa_range - a closed range of guest-physical addresses
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  last address, inclusive; the length is a multiple of 4 KiB
 */
struct mv_gpa_range {
	uint64_t first_gpa;
	uint64_t last_gpa;
};

/**
 * mv_memory_discard_ranges() - give up the content of ranges, as one transaction per granule
 * @memory:  the memory
 * @ranges:  ascending, without overlap; neighbours in a granule share its transaction
 * @count:   of @ranges; 0 succeeds
 * @drop:    called with each batch after the flush, to let the host's pages go; what it
 *           leaves in the batch is gone, what it takes out keeps its content. Pages of all
 *           states come: the ledger does not know what nobody manages.
 * @ctx:     for @drop
 * @dropped: where not NULL, set to the number of pages given up, also on -EBUSY
 *
 * Pages that are pinned, or that a view refuses, keep their content. When it returns 0
 * every page of the ranges reads as zeros.
 *
 * Context: any thread but one that resolves faults; waits for busy pages; sleeps.
 * Return: 0; -EINVAL for a bad range or order; -EFAULT where one leaves the regions, nothing
 * done; -EBUSY where at least one page was refused.
 */
int mv_memory_discard_ranges(struct mv_memory *memory, const struct mv_gpa_range *ranges,
			     size_t count, void (*drop)(void *ctx, struct mv_batch *batch),
			     void *ctx, uint64_t *dropped);

/**
 * mv_memory_discard() - mv_memory_discard_ranges() of one range
 * @memory:    the memory
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  last address, inclusive; the length is a multiple of 4 KiB
 * @drop:      as there
 * @ctx:       for @drop
 * @dropped:   as there
 *
 * Context: as there.
 * Return: as there.
 */
int mv_memory_discard(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa,
		      void (*drop)(void *ctx, struct mv_batch *batch), void *ctx,
		      uint64_t *dropped);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_VIEW_H */
