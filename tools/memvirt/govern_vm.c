/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is known of a VM and what it is told; see govern_vm.h. The talking is in
 * govern_talk.c.
 */
#include "govern_vm.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "govern_tasks.h"
#include "vm/clock.h"

/* What a guest said longer ago is no news, to be passed on as of now. */
#define NEWS_MAX_S 3

static void nothing_known(struct mv_policy_numbers *n)
{
	memset(n, 0xff, sizeof(*n)); /* MV_POLICY_UNKNOWN, each of them */
	n->pager_fresh = false;
	n->guest_fresh = false;
	n->held = false;
	n->reporting = false;
	n->curve = NULL;
}

void govern_vm_init(struct govern_vm *vm, const struct find_vm *found, const char *qmp_path,
		    double interval_s, bool dry_run)
{
	*vm = (struct govern_vm){
		.found = *found,
		.dry_run = dry_run,
		.polling_s = (unsigned int)fmax(1, floor(interval_s)),
		.restores = MV_STATS_UNKNOWN,
		.balloon_actual_bytes = MV_POLICY_UNKNOWN,
		.shown_balloon_bytes = MV_POLICY_UNKNOWN,
	};
	mv_policy_vm_init(&vm->policy);
	nothing_known(&vm->policy.numbers);
	strcpy(vm->control.path, found->socket);
	if (qmp_path)
		strcpy(vm->qmp.path, qmp_path);
	task_due(vm, TASK_INFO);
	task_due(vm, TASK_LIST);
}

void govern_vm_drop(struct govern_vm *vm)
{
	rpc_close(vm->control.rpc);
	rpc_close(vm->qmp.rpc);
	vm->control.rpc = NULL;
	vm->qmp.rpc = NULL;
}

void govern_vm_begin_tick(struct govern_vm *vm)
{
	vm->control.tried = false;
	vm->qmp.tried = false;
	if (vm->device[0]) {
		task_due(vm, TASK_BALLOON);
		task_due(vm, TASK_STATS);
	}
}

/* --- hearing ------------------------------------------------------------------------------ */

void govern_vm_hear_guest(struct govern_vm *vm, const struct qmp_guest_stats *stats)
{
	uint64_t now = clock_now();
	uint64_t wall_s = (uint64_t)time(NULL);
	uint64_t age_s = wall_s > stats->update_s ? wall_s - stats->update_s : 0;

	/* The same word as before has not become younger by being heard again. */
	if (stats->update_s == 0 || stats->update_s == vm->guest.update_s)
		return;
	vm->guest = *stats;
	vm->guest_ns = age_s < now / CLOCK_S ? now - age_s * CLOCK_S : 0;
	/* The segment stamps it with the time of the call. */
	vm->guest_news = age_s <= NEWS_MAX_S;
}

void govern_vm_hear_balloon(struct govern_vm *vm, uint64_t actual_bytes)
{
	vm->balloon_actual_bytes = actual_bytes;
	vm->balloon_ns = clock_now();
}

/* --- for the policy ----------------------------------------------------------------------- */

static bool is_fresh(uint64_t taken_ns, uint64_t stale_ns)
{
	uint64_t now = clock_now();

	return taken_ns != 0 && taken_ns != MV_STATS_UNKNOWN &&
	       (taken_ns >= now || now - taken_ns <= stale_ns);
}

static uint64_t restore_rate(struct govern_vm *vm)
{
	const struct mv_stats *stats = &vm->found.stats;
	uint64_t rate = MV_POLICY_UNKNOWN;

	if (vm->restores != MV_STATS_UNKNOWN && stats->restores != MV_STATS_UNKNOWN &&
	    stats->restores >= vm->restores && stats->pager_time > vm->restores_ns)
		rate = (uint64_t)((double)(stats->restores - vm->restores) * 1e9 /
				  (double)(stats->pager_time - vm->restores_ns));
	vm->restores = stats->restores;
	vm->restores_ns = stats->pager_time;
	return rate;
}

static void take_pager_numbers(struct govern_vm *vm, uint64_t stale_ns)
{
	struct mv_policy_numbers *n = &vm->policy.numbers;
	const struct mv_stats *stats = &vm->found.stats;

	/* Without a segment the last numbers stay, as old ones. */
	if (vm->found.state == FIND_UNREADABLE) {
		n->pager_fresh = false;
		return;
	}
	/* A VMM that has just been started has no guest memory yet: nothing is known of it. */
	n->configured_bytes = stats->configured_bytes ? stats->configured_bytes : MV_POLICY_UNKNOWN;
	n->pager_fresh = vm->found.state == FIND_OK && is_fresh(stats->pager_time, stale_ns) &&
			 n->configured_bytes != MV_POLICY_UNKNOWN;
	n->held = stats->holds != MV_STATS_UNKNOWN && stats->holds != 0;
	n->managed_bytes = stats->managed_bytes;
	n->resident_bytes = stats->resident_bytes;
	n->limit_bytes = stats->limit_bytes;
	n->stored_pages = stats->stored_pages;
	n->store_memory_bytes = stats->store_memory_bytes;
	n->overhead_bytes = stats->overhead_bytes;
	n->restores_per_s = restore_rate(vm);
	/* The segment may not yet show what it was told. */
	if (vm->limit_set_ns && vm->limit_set_ns > stats->pager_time)
		n->limit_bytes = vm->limit_set_bytes;
}

void govern_vm_numbers(struct govern_vm *vm, uint64_t stale_ns)
{
	struct mv_policy_numbers *n = &vm->policy.numbers;
	bool heard = is_fresh(vm->balloon_ns, stale_ns);

	n->held = false;
	take_pager_numbers(vm, stale_ns);
	n->balloon_actual_bytes = heard ? vm->balloon_actual_bytes : MV_POLICY_UNKNOWN;
	n->guest_fresh = is_fresh(vm->guest_ns, stale_ns);
	n->guest_total_bytes = vm->guest.total_bytes;
	n->guest_free_bytes = vm->guest.free_bytes;
	n->guest_available_bytes = vm->guest.available_bytes;
	n->guest_disk_cache_bytes = vm->guest.disk_cache_bytes;
}

/* --- telling ------------------------------------------------------------------------------ */

void govern_vm_tell(struct govern_vm *vm)
{
	if (vm->dry_run)
		return;
	if (vm->policy.limit_bytes != vm->policy.numbers.limit_bytes)
		task_due(vm, TASK_LIMIT);
	if (vm->policy.balloon_bytes != MV_POLICY_UNKNOWN && vm->device[0])
		task_due(vm, TASK_TARGET);
	if (vm->balloon_ns || vm->guest_news)
		task_due(vm, TASK_NOTE);
}
