/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pager's numbers for a statistics segment, with those of its store and of the memory.
 */
#include "now.h"
#include "pager_internal.h"

static void publish_pager(struct mv_pager *pager, struct mv_stats *stats)
{
	struct mv_pager_stats now;

	mv_pager_get_stats(pager, &now);
	stats->managed_bytes = now.managed_bytes;
	stats->resident_bytes = now.resident_bytes;
	stats->limit_bytes =
		now.limit_bytes == MV_PAGER_UNLIMITED ? MV_STATS_UNKNOWN : now.limit_bytes;
	stats->holds = now.holds;
	stats->faults = now.faults;
	stats->zero_fills = now.zero_fills;
	stats->touches = now.touches;
	stats->restores = now.restores;
	stats->restore_ns = now.restore_ns;
	stats->evictions = now.evictions;
	stats->discards = now.discards;
	stats->cancels = now.cancels;
	stats->waits = now.waits;
	stats->over_limit = now.over_limit;
	stats->refusals = now.refusals;
	stats->store_full = now.store_full;
	stats->poisoned = now.poisoned;
	stats->overhead_bytes = now.overhead_bytes;
}

static void publish_store(struct mv_store *store, struct mv_stats *stats)
{
	struct mv_store_stats now;

	store->ops->get_stats(store, &now);
	stats->stored_pages = now.pages;
	stats->stored_same_filled = now.same_filled;
	stats->stored_bytes = now.compressed_bytes;
	stats->store_memory_bytes = now.memory_bytes;
}

static void publish_memory(struct mv_memory *memory, struct mv_stats *stats)
{
	struct mv_memory_counts now;

	mv_memory_get_counts(memory, &now);
	stats->configured_bytes = now.total * MV_PAGE_SIZE;
	stats->discarded_bytes = now.pages[MV_PAGE_DISCARDED] * MV_PAGE_SIZE;
	stats->pinned_bytes = now.pinned * MV_PAGE_SIZE;
}

void mv_pager_publish(struct mv_pager *pager, struct mv_stats *stats)
{
	stats->pager_time = now_ns();
	publish_pager(pager, stats);
	publish_store(pager->store, stats);
	publish_memory(pager->memory, stats);
}
