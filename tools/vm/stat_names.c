/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of statistics; see stat_names.h.
 */
#include "vm/stat_names.h"

#define STAT(group, name, field)                                                                   \
	{                                                                                          \
		name, group, offsetof(struct mv_stats, field)                                      \
	}

const struct stat_name stat_names[] = {
	STAT(STAT_PAGER, "configured-bytes", configured_bytes),
	STAT(STAT_PAGER, "managed-bytes", managed_bytes),
	STAT(STAT_PAGER, "resident-bytes", resident_bytes),
	STAT(STAT_PAGER, "limit-bytes", limit_bytes),
	STAT(STAT_PAGER, "stored-pages", stored_pages),
	STAT(STAT_PAGER, "stored-same-filled", stored_same_filled),
	STAT(STAT_PAGER, "stored-bytes", stored_bytes),
	STAT(STAT_PAGER, "store-memory-bytes", store_memory_bytes),
	STAT(STAT_PAGER, "discarded-bytes", discarded_bytes),
	STAT(STAT_PAGER, "pinned-bytes", pinned_bytes),
	STAT(STAT_PAGER, "holds", holds),
	STAT(STAT_PAGER, "faults", faults),
	STAT(STAT_PAGER, "zero-fills", zero_fills),
	STAT(STAT_PAGER, "touches", touches),
	STAT(STAT_PAGER, "restores", restores),
	STAT(STAT_PAGER, "restore-ns", restore_ns),
	STAT(STAT_PAGER, "active-bytes", active_bytes),
	STAT(STAT_PAGER, "evictions", evictions),
	STAT(STAT_PAGER, "discards", discards),
	STAT(STAT_PAGER, "cancels", cancels),
	STAT(STAT_PAGER, "waits", waits),
	STAT(STAT_PAGER, "over-limit", over_limit),
	STAT(STAT_PAGER, "refusals", refusals),
	STAT(STAT_PAGER, "store-full", store_full),
	STAT(STAT_PAGER, "poisoned", poisoned),
	STAT(STAT_PAGER, "overhead-bytes", overhead_bytes),
	STAT(STAT_BALLOON, "balloon-actual-bytes", balloon_actual_bytes),
	STAT(STAT_BALLOON, "balloon-target-bytes", balloon_target_bytes),
	STAT(STAT_GUEST, "guest-total-bytes", guest_total_bytes),
	STAT(STAT_GUEST, "guest-free-bytes", guest_free_bytes),
	STAT(STAT_GUEST, "guest-available-bytes", guest_available_bytes),
	STAT(STAT_GUEST, "guest-disk-cache-bytes", guest_disk_cache_bytes),
	STAT(STAT_GUEST, "guest-major-faults", guest_major_faults),
	STAT(STAT_GUEST, "guest-minor-faults", guest_minor_faults),
	STAT(STAT_GUEST, "guest-swap-in-bytes", guest_swap_in_bytes),
	STAT(STAT_GUEST, "guest-swap-out-bytes", guest_swap_out_bytes),
	STAT(STAT_GUEST, "guest-oom-kills", guest_oom_kills),
};
const unsigned int stat_name_count = sizeof(stat_names) / sizeof(stat_names[0]);

uint64_t stat_group_time(const struct mv_stats *stats, enum stat_group group)
{
	switch (group) {
	case STAT_BALLOON:
		return stats->balloon_time;
	case STAT_GUEST:
		return stats->guest_time;
	case STAT_PAGER:
		break;
	}
	return stats->pager_time;
}

const char *stat_hold_name(unsigned int bit)
{
	static const char *const names[] = { "caller", "dma", "shared", "foreign", "kernel" };

	return bit < sizeof(names) / sizeof(names[0]) ? names[bit] : "unknown";
}
