/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Samples of VMs: what is derived from one, and from two. A number that follows from an
 * unknown one is unknown.
 */
#include "memstat.h"

#include <errno.h>
#include <string.h>

#include <memvirt/memory.h>

#include "vm/clock.h"
#include "vm/stat_names.h"

static uint64_t age(uint64_t now, uint64_t taken)
{
	return taken == UNKNOWN || taken > now ? UNKNOWN : now - taken;
}

/* A process that has gone uses nothing, and what it used last is of no interest. */
static void forget_numbers(struct mv_stats *stats)
{
	for (unsigned int i = 0; i < stat_name_count; i++)
		*stat_field(stats, &stat_names[i]) = UNKNOWN;
	stats->pager_time = UNKNOWN;
	stats->balloon_time = UNKNOWN;
	stats->guest_time = UNKNOWN;
}

static void derive(struct sample *sample)
{
	struct mv_stats *stats = &sample->vm.stats;

	sample->now = clock_now();
	if (sample->vm.state == FIND_UNREADABLE)
		stats->pid = UNKNOWN;
	if (sample->vm.state == FIND_UNREADABLE || sample->vm.state == FIND_DEAD)
		forget_numbers(stats);

	sample->stored_original_bytes = UNKNOWN;
	if (stats->stored_pages < UNKNOWN / MV_PAGE_SIZE)
		sample->stored_original_bytes = stats->stored_pages * MV_PAGE_SIZE;
	sample->stored_ratio = 0;
	if (sample->stored_original_bytes != UNKNOWN && stats->stored_bytes != UNKNOWN &&
	    stats->stored_bytes > 0)
		sample->stored_ratio =
			(double)sample->stored_original_bytes / (double)stats->stored_bytes;
	sample->ballooned_bytes = UNKNOWN;
	if (stats->configured_bytes != UNKNOWN && stats->balloon_actual_bytes != UNKNOWN &&
	    stats->configured_bytes >= stats->balloon_actual_bytes)
		sample->ballooned_bytes = stats->configured_bytes - stats->balloon_actual_bytes;
	sample->pager_age_ns = age(sample->now, stats->pager_time);
	sample->balloon_age_ns = age(sample->now, stats->balloon_time);
	sample->guest_age_ns = age(sample->now, stats->guest_time);
}

void sample_first(struct sample *sample, const struct find_vm *vm)
{
	*sample = (struct sample){ .vm = *vm };
	memset(&sample->rates, 0xff, sizeof(sample->rates));
	derive(sample);
}

static uint64_t rate(uint64_t before, uint64_t after, uint64_t ns)
{
	if (before == UNKNOWN || after == UNKNOWN || after < before || ns == 0)
		return UNKNOWN;
	return (uint64_t)((double)(after - before) * (double)CLOCK_S / (double)ns + 0.5);
}

void sample_again(struct sample *sample)
{
	struct mv_stats before = sample->vm.stats;
	bool known = sample->vm.state == FIND_OK || sample->vm.state == FIND_SILENT;
	struct mv_stats *after = &sample->vm.stats;

	find_refresh(&sample->vm);
	/* Its files were taken away: the VM ended in order. */
	if (known && sample->vm.error == -ENOENT) {
		sample->vm.state = FIND_DEAD;
		after->pid = before.pid;
	}
	derive(sample);
	/* By the writer's clock: it does not publish when we look. */
	uint64_t ns = before.pager_time == UNKNOWN || after->pager_time == UNKNOWN ||
				      after->pager_time < before.pager_time ||
				      after->start_time != before.start_time
			      ? 0
			      : after->pager_time - before.pager_time;
	sample->rates = (struct rates){
		.faults = rate(before.faults, after->faults, ns),
		.zero_fills = rate(before.zero_fills, after->zero_fills, ns),
		.restores = rate(before.restores, after->restores, ns),
		.evictions = rate(before.evictions, after->evictions, ns),
		.discards = rate(before.discards, after->discards, ns),
	};
}
