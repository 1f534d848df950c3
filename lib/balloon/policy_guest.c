/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest can spare: the part of a decision that works with the guest's own numbers.
 *
 * The target is worked out whole each time (what the guest uses, what it should have left,
 * and what its kernel keeps outside its total), never as a change: a change would be made
 * again while the guest's numbers still lag behind the balloon.
 */
#include <math.h>

#include "policy_internal.h"

/*
 * What a guest should have left, free or to be had by dropping cache: a part of its size, and
 * what it may come to need until the balloon can give way. A guest that runs out before that
 * kills a process.
 */
#define RESERVE 0.20

/* Of its cache a guest keeps this part, or the reserve where that is more. */
#define CACHE_KEEP 0.5

/* How far a balloon is inflated in a second. Deflating is never slowed down. */
#define INFLATE_PER_S	  0.125
#define INFLATE_MIN_PER_S (32 * POLICY_MIB)

/* So much faster where little of the budget is free. */
#define INFLATE_SHORT 2

/* Who is short of memory gets so much of its size back at once, whatever its numbers say. */
#define DEFLATE_PRESSED 0.125

/* Smaller changes are not worth the trouble. */
#define DEAD_BAND     (1.0 / 64)
#define DEAD_BAND_MIN (8 * POLICY_MIB)

/* More than this part of a VM outside the guest's total is a contradiction. */
#define RESERVED_MAX 0.5

/** struct guest - a guest's numbers, made consistent */
struct guest {
	double total; /* less what is in the balloon, whether the driver counts so or not */
	double used;
	double cache; /* of what is available */
	double available;
};

static bool read_guest(const struct mv_policy_numbers *n, struct guest *guest)
{
	double ballooned;

	if (!n->guest_fresh || n->configured_bytes == MV_POLICY_UNKNOWN ||
	    n->balloon_actual_bytes == MV_POLICY_UNKNOWN ||
	    n->guest_total_bytes == MV_POLICY_UNKNOWN ||
	    n->guest_available_bytes == MV_POLICY_UNKNOWN ||
	    n->guest_free_bytes == MV_POLICY_UNKNOWN)
		return false;
	if (n->balloon_actual_bytes > n->configured_bytes ||
	    n->guest_total_bytes > n->configured_bytes ||
	    n->guest_available_bytes > n->guest_total_bytes)
		return false;
	guest->total = (double)n->guest_total_bytes;
	guest->available = (double)n->guest_available_bytes;
	/* With deflate-on-oom Linux leaves ballooned pages in the total, as if in use. */
	ballooned = (double)(n->configured_bytes - n->balloon_actual_bytes);
	if (n->guest_total_bytes > n->balloon_actual_bytes)
		guest->total -= ballooned;
	guest->used = guest->total - guest->available;
	guest->cache = fmax(guest->available - (double)n->guest_free_bytes, 0);
	if (n->guest_disk_cache_bytes != MV_POLICY_UNKNOWN)
		guest->cache = fmin(guest->cache, (double)n->guest_disk_cache_bytes);
	return guest->used >= 0;
}

static double uses(const struct mv_policy_vm *vm, const struct guest *guest)
{
	return (double)vm->reserved_bytes + guest->used;
}

static double wants(const struct mv_policy_vm *vm, const struct guest *guest)
{
	double reserve = fmax((double)vm->numbers.configured_bytes * RESERVE, vm->growth_bytes);

	/* What is free has been given up already, at no cost; a balloon would only be in the way.
	 */
	if (vm->numbers.reporting)
		reserve = fmax(reserve, guest->available - guest->cache);
	return uses(vm, guest) + fmax(reserve, guest->cache * CACHE_KEEP);
}

double policy_guest_uses(const struct mv_policy_vm *vm)
{
	struct guest guest;

	if (vm->reserved_bytes == MV_POLICY_UNKNOWN || !read_guest(&vm->numbers, &guest))
		return 0;
	return uses(vm, &guest) + guest.cache * CACHE_KEEP;
}

double policy_guest_wants(const struct mv_policy_vm *vm)
{
	struct guest guest;

	if (vm->reserved_bytes == MV_POLICY_UNKNOWN || !read_guest(&vm->numbers, &guest))
		return 0;
	return wants(vm, &guest);
}

/*
 * What the guest's kernel keeps outside its total shows while the balloon stands still: in
 * motion the guest's numbers and the balloon's are of different moments.
 */
static void learn_reserved(struct mv_policy_vm *vm, const struct guest *guest)
{
	uint64_t actual = vm->numbers.balloon_actual_bytes;
	double reserved = (double)actual - guest->total;

	if ((vm->last_actual == MV_POLICY_UNKNOWN || vm->last_actual == actual) && reserved >= 0 &&
	    reserved <= RESERVED_MAX * (double)vm->numbers.configured_bytes)
		vm->reserved_bytes = (uint64_t)reserved;
	vm->last_actual = actual;
}

void policy_hear_guest(struct mv_policy_vm *vm)
{
	struct guest guest;

	if (read_guest(&vm->numbers, &guest))
		learn_reserved(vm, &guest);
}

static double current_target(const struct mv_policy_vm *vm)
{
	return (double)(vm->target_bytes == MV_POLICY_UNKNOWN ? vm->numbers.balloon_actual_bytes
							      : vm->target_bytes);
}

/* All the way back is worth a small step, so that it ends exactly there. */
static bool is_worth_it(const struct mv_policy_vm *vm, double wanted)
{
	double configured = (double)vm->numbers.configured_bytes;
	double change = fabs(wanted - current_target(vm));

	return change >= fmax(configured * DEAD_BAND, DEAD_BAND_MIN) ||
	       (wanted == configured && change > 0);
}

static void set_target(struct mv_policy_vm *vm, double target, enum mv_policy_why why)
{
	if (target == current_target(vm))
		return;
	vm->target_bytes = (uint64_t)target;
	vm->balloon_bytes = vm->target_bytes;
	vm->balloon_why = why;
}

bool policy_guest_is_pressed(const struct mv_policy *policy, const struct mv_policy_numbers *n)
{
	return n->guest_fresh && n->guest_pressure_ppm != MV_POLICY_UNKNOWN &&
	       n->guest_pressure_ppm >= policy->config.pressure_limit_ppm;
}

/*
 * Inflated by so much at once, from where the balloon is in fact; but a step under way is not
 * taken back by a decision that comes soon after it.
 */
static double inflate_to(const struct mv_policy *policy, const struct mv_policy_vm *vm,
			 double wanted)
{
	double step =
		fmax((double)vm->numbers.configured_bytes * INFLATE_PER_S, INFLATE_MIN_PER_S) *
		policy->elapsed_s;

	if (policy->state >= MV_POLICY_SOFT)
		step *= INFLATE_SHORT;
	step = floor(step / POLICY_MIB) * POLICY_MIB;
	step = (double)vm->numbers.balloon_actual_bytes - fmax(step, POLICY_MIB);
	return fmax(wanted, fmin(step, current_target(vm)));
}

void policy_decide_balloon(const struct mv_policy *policy, struct mv_policy_vm *vm)
{
	double configured = (double)vm->numbers.configured_bytes;
	double actual = (double)vm->numbers.balloon_actual_bytes;
	double least = (double)vm->min_bytes;
	struct guest guest;
	double wanted;

	if (!read_guest(&vm->numbers, &guest))
		return;
	/* Its balloon goes where its limit goes. */
	if (vm->by_balloon && !policy->ample)
		return;
	if (!policy->ample && vm->reserved_bytes == MV_POLICY_UNKNOWN)
		return;
	wanted = policy->ample ? configured : ceil(wants(vm, &guest) / POLICY_MIB) * POLICY_MIB;
	/* Who waits for the host has no use for more of its own: it would only be stored. */
	if (policy_guest_is_pressed(policy, &vm->numbers))
		wanted = fmax(wanted, actual + ceil(configured * DEFLATE_PRESSED));
	wanted = fmin(fmax(wanted, fmax(vm->floor, least)), configured);
	if (!is_worth_it(vm, wanted))
		return;
	set_target(vm, inflate_to(policy, vm, wanted),
		   policy->ample     ? MV_POLICY_AMPLE
		   : wanted < actual ? MV_POLICY_GUEST_SPARES
				     : MV_POLICY_GUEST_NEEDS);
}

void policy_balloon_to_next(struct mv_policy_vm *vm, enum mv_policy_why why)
{
	set_target(vm, floor(vm->next), why);
}
