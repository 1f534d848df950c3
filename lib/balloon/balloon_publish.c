// SPDX-License-Identifier: BSD-2-Clause
/*
 * The balloon's numbers and the guest's for a statistics segment.
 */
#include "balloon_internal.h"
#include "now.h"

static uint64_t guest_value(const struct mv_balloon_guest_stats *guest, enum mv_balloon_stat tag)
{
	return guest->known >> tag & 1 ? guest->values[tag] : MV_STATS_UNKNOWN;
}

static void publish_guest(const struct mv_balloon_guest_stats *guest, struct mv_stats *stats)
{
	stats->guest_time = guest->at_ns;
	stats->guest_total_bytes = guest_value(guest, MV_BALLOON_STAT_TOTAL);
	stats->guest_free_bytes = guest_value(guest, MV_BALLOON_STAT_FREE);
	stats->guest_available_bytes = guest_value(guest, MV_BALLOON_STAT_AVAILABLE);
	stats->guest_disk_cache_bytes = guest_value(guest, MV_BALLOON_STAT_CACHES);
	stats->guest_major_faults = guest_value(guest, MV_BALLOON_STAT_MAJOR_FAULTS);
	stats->guest_minor_faults = guest_value(guest, MV_BALLOON_STAT_MINOR_FAULTS);
	stats->guest_swap_in_bytes = guest_value(guest, MV_BALLOON_STAT_SWAP_IN);
	stats->guest_swap_out_bytes = guest_value(guest, MV_BALLOON_STAT_SWAP_OUT);
	stats->guest_oom_kills = guest_value(guest, MV_BALLOON_STAT_OOM_KILLS);
}

static uint64_t left_of(uint64_t total, uint64_t taken)
{
	return taken < total ? total - taken : 0;
}

void mv_balloon_publish(struct mv_balloon *balloon, struct mv_stats *stats)
{
	struct mv_balloon_guest_stats guest;
	struct mv_balloon_stats device;
	struct mv_memory_counts memory;

	mv_memory_get_counts(balloon->memory, &memory);
	mv_balloon_get_stats(balloon, &device);
	stats->balloon_time = now_ns();
	stats->balloon_actual_bytes = left_of(memory.total * MV_PAGE_SIZE, device.actual_bytes);
	stats->balloon_target_bytes = left_of(memory.total * MV_PAGE_SIZE, device.target_bytes);
	if (!mv_balloon_get_guest_stats(balloon, &guest))
		publish_guest(&guest, stats);
}
