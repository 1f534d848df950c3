/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest can spare; see govern_balloon.h.
 *
 * The target is worked out whole each time (what the guest uses, what it should have left,
 * and what its kernel keeps outside its total), never as a change: a change would be made
 * again while the guest's numbers still lag behind the balloon.
 */
#include "govern_balloon.h"

#include <math.h>

#define MIB (1024.0 * 1024)

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
#define INFLATE_MIN_PER_S (32 * MIB)

/* Smaller changes are not worth the trouble. */
#define DEAD_BAND     (1.0 / 64)
#define DEAD_BAND_MIN (8 * MIB)

/* More than this part of a VM outside the guest's total is a contradiction. */
#define RESERVED_MAX 0.5

/** struct guest - a guest's numbers, made consistent */
struct guest {
	double total; /* less what is in the balloon, whether the driver counts so or not */
	double used;
	double cache; /* of what is available */
	double available;
};

static bool read_guest(const struct policy_numbers *n, struct guest *guest)
{
	double ballooned;

	if (!n->guest_fresh || n->configured_bytes == POLICY_UNKNOWN ||
	    n->balloon_actual_bytes == POLICY_UNKNOWN || n->guest_total_bytes == POLICY_UNKNOWN ||
	    n->guest_available_bytes == POLICY_UNKNOWN || n->guest_free_bytes == POLICY_UNKNOWN)
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
	if (n->guest_disk_cache_bytes != POLICY_UNKNOWN)
		guest->cache = fmin(guest->cache, (double)n->guest_disk_cache_bytes);
	return guest->used >= 0;
}

static double uses(const struct policy_vm *vm, const struct guest *guest)
{
	return (double)vm->reserved_bytes + guest->used;
}

static double wants(const struct policy_vm *vm, const struct guest *guest)
{
	double reserve = fmax((double)vm->numbers.configured_bytes * RESERVE, vm->growth_bytes);

	return uses(vm, guest) + fmax(reserve, guest->cache * CACHE_KEEP);
}

double balloon_guest_uses(const struct policy_vm *vm)
{
	struct guest guest;

	if (vm->reserved_bytes == POLICY_UNKNOWN || !read_guest(&vm->numbers, &guest))
		return 0;
	return uses(vm, &guest) + guest.cache * CACHE_KEEP;
}

/*
 * What the guest's kernel keeps outside its total shows while the balloon stands still: in
 * motion the guest's numbers and the balloon's are of different moments.
 */
static void learn_reserved(struct policy_vm *vm, const struct guest *guest)
{
	uint64_t actual = vm->numbers.balloon_actual_bytes;
	double reserved = (double)actual - guest->total;

	if ((vm->last_actual == POLICY_UNKNOWN || vm->last_actual == actual) && reserved >= 0 &&
	    reserved <= RESERVED_MAX * (double)vm->numbers.configured_bytes)
		vm->reserved_bytes = (uint64_t)reserved;
	vm->last_actual = actual;
}

static double current_target(const struct policy_vm *vm)
{
	return (double)(vm->target_bytes == POLICY_UNKNOWN ? vm->numbers.balloon_actual_bytes
							   : vm->target_bytes);
}

/* All the way back is worth a small step, so that it ends exactly there. */
static bool is_worth_it(const struct policy_vm *vm, double wanted)
{
	double configured = (double)vm->numbers.configured_bytes;
	double change = fabs(wanted - current_target(vm));

	return change >= fmax(configured * DEAD_BAND, DEAD_BAND_MIN) ||
	       (wanted == configured && change > 0);
}

static void set_target(struct policy_vm *vm, double target, enum policy_why why)
{
	if (target == current_target(vm))
		return;
	vm->target_bytes = (uint64_t)target;
	vm->balloon_bytes = vm->target_bytes;
	vm->balloon_why = why;
}

/* Inflated by so much in a tick, from where the balloon is in fact. */
static double inflate_to(const struct policy *policy, const struct policy_vm *vm, double wanted)
{
	double step =
		fmax((double)vm->numbers.configured_bytes * INFLATE_PER_S, INFLATE_MIN_PER_S) *
		(double)policy->config.interval_ns / 1e9;

	step = floor(step / MIB) * MIB;
	return fmax(wanted, (double)vm->numbers.balloon_actual_bytes - fmax(step, MIB));
}

void balloon_decide(const struct policy *policy, struct policy_vm *vm)
{
	double configured = (double)vm->numbers.configured_bytes;
	double actual = (double)vm->numbers.balloon_actual_bytes;
	struct guest guest;
	double wanted;

	if (!read_guest(&vm->numbers, &guest))
		return;
	learn_reserved(vm, &guest);
	if (!policy->ample && vm->reserved_bytes == POLICY_UNKNOWN)
		return;
	wanted = policy->ample ? configured : ceil(wants(vm, &guest) / MIB) * MIB;
	wanted = fmin(fmax(wanted, vm->floor), configured);
	if (!is_worth_it(vm, wanted))
		return;
	set_target(vm, inflate_to(policy, vm, wanted),
		   policy->ample     ? POLICY_AMPLE
		   : wanted < actual ? POLICY_GUEST_SPARES
				     : POLICY_GUEST_NEEDS);
}
