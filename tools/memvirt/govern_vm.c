/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is known of a VM and what it is told; see govern_vm.h. The talking is in
 * govern_talk.c.
 */
#include "govern_vm.h"

#include <fcntl.h>
#include <math.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "govern_tasks.h"
#include "vm/clock.h"

/* What a guest said longer ago is no news, to be passed on as of now. */
#define NEWS_MAX_S 3

static const struct govern_rate no_rate = { MV_STATS_UNKNOWN, MV_STATS_UNKNOWN, MV_POLICY_UNKNOWN };

/* A rate over less time is chance. */
#define RATE_MIN_NS (40 * CLOCK_MS)

/* Who waits for the guest's own swap waits about so long for each page. */
#define SWAP_IN_US 100

/* From two looks at a number. Without news the last rate stays. */
static void update_rate(struct govern_rate *rate, uint64_t count, uint64_t at_ns)
{
	if (count == MV_STATS_UNKNOWN || at_ns == MV_STATS_UNKNOWN || count < rate->count ||
	    at_ns <= rate->at_ns) {
		/* The first, or a number that begins anew. */
		if (count != rate->count || at_ns != rate->at_ns)
			*rate = (struct govern_rate){ count, at_ns, MV_POLICY_UNKNOWN };
		return;
	}
	if (at_ns - rate->at_ns < RATE_MIN_NS)
		return;
	rate->per_s =
		(uint64_t)((double)(count - rate->count) * 1e9 / (double)(at_ns - rate->at_ns));
	rate->count = count;
	rate->at_ns = at_ns;
}

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
		.stats_fd = -1,
		.restores = no_rate,
		.waited = no_rate,
		.guest_waits = no_rate,
		.outside_bytes = MV_POLICY_UNKNOWN,
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
	if (vm->stats_fd >= 0)
		close(vm->stats_fd);
	vm->stats_fd = -1;
	vm->control.rpc = NULL;
	vm->qmp.rpc = NULL;
}

void govern_vm_begin_tick(struct govern_vm *vm)
{
	vm->control.tried = false;
	vm->qmp.tried = false;
	/* Of a QEMU that memvirt did not start nobody else knows the size. */
	if (vm->plain && !vm->size_bytes)
		task_due(vm, TASK_SIZE);
	if (vm->device[0]) {
		task_due(vm, TASK_BALLOON);
		task_due(vm, TASK_STATS);
	}
}

/* --- hearing ------------------------------------------------------------------------------ */

/* What the guest had to fetch from its own swap; its other major faults are of files. */
static void update_guest_waits(struct govern_vm *vm)
{
	uint64_t bytes = vm->guest.swap_in_bytes;

	update_rate(&vm->guest_waits, bytes == UINT64_MAX ? bytes : bytes / 4096, vm->guest_ns);
}

void govern_vm_hear_size(struct govern_vm *vm, uint64_t bytes)
{
	vm->size_bytes = bytes;
}

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
	update_guest_waits(vm);
	/* The segment stamps it with the time of the call. */
	vm->guest_news = age_s <= NEWS_MAX_S;
}

void govern_vm_hear_balloon(struct govern_vm *vm, uint64_t actual_bytes)
{
	vm->balloon_actual_bytes = actual_bytes;
	vm->balloon_ns = clock_now();
}

void govern_vm_hear_libvirt(struct govern_vm *vm, const struct libvirt_vm *said)
{
	govern_vm_hear_size(vm, said->size_bytes);
	if (said->actual_bytes != UINT64_MAX)
		govern_vm_hear_balloon(vm, said->actual_bytes);
	govern_vm_hear_guest(vm, &said->guest);
}

/* --- for the policy ----------------------------------------------------------------------- */

static bool is_fresh(uint64_t taken_ns, uint64_t stale_ns)
{
	uint64_t now = clock_now();

	return taken_ns != 0 && taken_ns != MV_STATS_UNKNOWN &&
	       (taken_ns >= now || now - taken_ns <= stale_ns);
}

/* Nanoseconds in a second to millionths; two threads may wait at once. */
static uint64_t ppm(uint64_t ns_per_s)
{
	if (ns_per_s == MV_POLICY_UNKNOWN)
		return MV_POLICY_UNKNOWN;
	return ns_per_s < CLOCK_S ? ns_per_s / 1000 : MV_POLICY_PPM;
}

static void update_rates(struct govern_vm *vm)
{
	const struct mv_stats *stats = &vm->found.stats;

	update_rate(&vm->restores, stats->restores, stats->pager_time);
	update_rate(&vm->waited, stats->restore_ns, stats->pager_time);
}

/* The VMM has the device itself, and publishes what it hears. */
static void hear_segment(struct govern_vm *vm)
{
	const struct mv_stats *stats = &vm->found.stats;

	if (stats->balloon_time != MV_STATS_UNKNOWN) {
		vm->balloon_actual_bytes = stats->balloon_actual_bytes;
		vm->balloon_ns = stats->balloon_time;
	}
	if (stats->guest_time == MV_STATS_UNKNOWN || stats->guest_time == vm->guest_ns)
		return;
	vm->guest_ns = stats->guest_time;
	vm->guest = (struct qmp_guest_stats){
		.total_bytes = stats->guest_total_bytes,
		.free_bytes = stats->guest_free_bytes,
		.available_bytes = stats->guest_available_bytes,
		.disk_cache_bytes = stats->guest_disk_cache_bytes,
		.major_faults = stats->guest_major_faults,
		.minor_faults = stats->guest_minor_faults,
		.swap_in_bytes = stats->guest_swap_in_bytes,
		.swap_out_bytes = stats->guest_swap_out_bytes,
		.oom_kills = stats->guest_oom_kills,
	};
	update_guest_waits(vm);
}

static void take_pager_numbers(struct govern_vm *vm, uint64_t stale_ns)
{
	struct mv_policy_numbers *n = &vm->policy.numbers;
	const struct mv_stats *stats = &vm->found.stats;

	if (vm->plain) {
		n->configured_bytes = vm->size_bytes ? vm->size_bytes : MV_POLICY_UNKNOWN;
		n->limit_bytes = MV_POLICY_UNLIMITED;
		return;
	}
	/* Without a segment the last numbers stay, as old ones. */
	if (vm->found.state == FIND_UNREADABLE) {
		n->pager_fresh = false;
		return;
	}
	/* A VMM that has just been started has no guest memory yet: nothing is known of it. */
	n->configured_bytes = stats->configured_bytes ? stats->configured_bytes : MV_POLICY_UNKNOWN;
	n->pager_fresh = vm->found.state == FIND_OK && is_fresh(stats->pager_time, stale_ns) &&
			 n->configured_bytes != MV_POLICY_UNKNOWN;
	if (vm->own_balloon)
		hear_segment(vm);
	n->held = stats->holds != MV_STATS_UNKNOWN && stats->holds != 0;
	n->managed_bytes = stats->managed_bytes;
	n->resident_bytes = stats->resident_bytes;
	n->limit_bytes = stats->limit_bytes;
	n->stored_pages = stats->stored_pages;
	n->store_memory_bytes = stats->store_memory_bytes;
	n->overhead_bytes = stats->overhead_bytes;
	n->active_bytes = stats->active_bytes;
	update_rates(vm);
	n->restores_per_s = vm->restores.per_s;
	n->host_pressure_ppm = ppm(vm->waited.per_s);
	/* The segment may not yet show what it was told. */
	if (vm->limit_set_ns && vm->limit_set_ns > stats->pager_time)
		n->limit_bytes = vm->limit_set_bytes;
}

void govern_vm_numbers(struct govern_vm *vm, uint64_t stale_ns)
{
	struct mv_policy_numbers *n = &vm->policy.numbers;
	bool heard;

	n->held = false;
	take_pager_numbers(vm, stale_ns);
	heard = is_fresh(vm->balloon_ns, stale_ns);
	n->balloon_actual_bytes = heard ? vm->balloon_actual_bytes : MV_POLICY_UNKNOWN;
	n->guest_fresh = is_fresh(vm->guest_ns, stale_ns);
	n->guest_pressure_ppm = vm->guest_waits.per_s == MV_POLICY_UNKNOWN
					? MV_POLICY_UNKNOWN
					: ppm(vm->guest_waits.per_s * SWAP_IN_US * 1000);
	n->guest_total_bytes = vm->guest.total_bytes;
	n->guest_free_bytes = vm->guest.free_bytes;
	n->guest_available_bytes = vm->guest.available_bytes;
	n->guest_disk_cache_bytes = vm->guest.disk_cache_bytes;
}

uint64_t govern_vm_configured(const struct govern_vm *vm)
{
	uint64_t bytes = vm->plain ? vm->size_bytes : vm->found.stats.configured_bytes;

	if (!vm->plain && vm->found.state != FIND_OK)
		return MV_POLICY_UNKNOWN;
	return bytes == 0 || bytes == MV_STATS_UNKNOWN ? MV_POLICY_UNKNOWN : bytes;
}

bool govern_vm_glance(struct govern_vm *vm, uint32_t limit_ppm)
{
	struct mv_stats stats;

	if (vm->plain || vm->found.state != FIND_OK)
		return false;
	if (vm->stats_fd < 0)
		vm->stats_fd = open(vm->found.stats_path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (vm->stats_fd < 0 || mv_stats_read_fd(vm->stats_fd, &stats))
		return false;
	/* The next search finds out what has become of the one that was open. */
	if (stats.pid != vm->found.stats.pid || stats.start_time != vm->found.stats.start_time) {
		close(vm->stats_fd);
		vm->stats_fd = -1;
		return false;
	}
	vm->found.stats = stats;
	update_rates(vm);
	return vm->waited.per_s != MV_POLICY_UNKNOWN && ppm(vm->waited.per_s) >= limit_ppm;
}

void govern_vm_set_wants(struct govern_vm *vm, const struct govern_want *want)
{
	uint64_t now = clock_now();

	vm->policy.shares = want ? want->shares : MV_POLICY_SHARES_DEFAULT;
	vm->policy.floor_bytes = want ? want->floor_bytes : 0;
	vm->policy.min_bytes = want ? want->min_bytes : 0;
	vm->policy.max_bytes = want ? want->max_bytes : MV_POLICY_UNLIMITED;
	vm->policy.outside_bytes =
		now < vm->outside_until_ns ? vm->outside_bytes : MV_POLICY_UNKNOWN;
}

/* --- telling ------------------------------------------------------------------------------ */

static void tell_target(struct govern_vm *vm)
{
	if (vm->libvirt)
		govern_libvirt_set(vm->libvirt, vm->found.name, vm->policy.target_bytes);
	else if (vm->own_balloon)
		task_due(vm, TASK_SET_BALLOON);
	else if (vm->device[0])
		task_due(vm, TASK_TARGET);
}

void govern_vm_tell(struct govern_vm *vm)
{
	if (vm->dry_run)
		return;
	if (vm->policy.limit_bytes != vm->policy.numbers.limit_bytes)
		task_due(vm, TASK_LIMIT);
	if (vm->policy.balloon_bytes != MV_POLICY_UNKNOWN)
		tell_target(vm);
	if (!vm->own_balloon && (vm->balloon_ns || vm->guest_news))
		task_due(vm, TASK_NOTE);
}

void govern_vm_release(struct govern_vm *vm, bool limit_too)
{
	struct mv_policy_vm *policy = &vm->policy;
	bool limited = policy->numbers.limit_bytes != MV_POLICY_UNLIMITED;

	if (vm->dry_run)
		return;
	/* Without a limit the balloon is all that bounds what it takes. */
	if (policy->numbers.configured_bytes != MV_POLICY_UNKNOWN && (limited || limit_too)) {
		policy->target_bytes = policy->numbers.configured_bytes;
		tell_target(vm);
	}
	if (limit_too && limited) {
		policy->limit_bytes = MV_POLICY_UNLIMITED;
		task_due(vm, TASK_LIMIT);
	}
}
