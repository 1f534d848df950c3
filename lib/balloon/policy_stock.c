/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each VM has, may come to have, and is in demand of.
 */
#include <math.h>

#include "policy_internal.h"

/*
 * How fast a guest is expected to populate memory until the decision after next: as fast as it
 * did, which is forgotten slowly; never so slowly that a sudden start is a surprise, and not
 * faster than faults can be handled.
 */
#define GROWTH_MIN_PER_S (32 * POLICY_MIB)
#define GROWTH_MAX_PER_S (256 * POLICY_MIB)
#define GROWTH_FORGOTTEN 0.12 /* in a second */
#define GROWTH_TICKS	 2
#define GROWTH_STEP	 (16 * POLICY_MIB)

/* Over less time a rate is chance. */
#define GROWTH_LOOK_MIN_S 0.2

/*
 * How fast the ratio comes to what is measured: faster up, for caution, and slower the less is
 * stored. Where nothing is, what was measured once is remembered.
 */
#define RATIO_MAX	0.98
#define RATIO_RISES	0.5
#define RATIO_FALLS	0.1
#define RATIO_HALF_SURE (64 * POLICY_MIB)

/*
 * What is restored in so many seconds is missing; up to once what is resident. How many
 * restores more memory would save is not known, so more weight makes limits swing.
 */
#define RESTORE_WEIGHT_S 2

/* How much of a new demand counts after an interval; the rest is remembered. */
#define DEMAND_RISES 0.3
#define DEMAND_FALLS 0.1

/* Who is short of memory is in demand of so much more than it has. */
#define DEMAND_PRESSED 1.25

#define GROWTH_BISECTIONS 12

double policy_or_zero(uint64_t number)
{
	return number == MV_POLICY_UNKNOWN ? 0 : (double)number;
}

/* What a decision's share of a change is, where an interval's is @part. */
static double per_decision(const struct mv_policy *policy, double part)
{
	return part * policy->part;
}

double mv_policy_cost(const struct mv_policy_vm *vm, double limit)
{
	double resident = fmin(limit, vm->potential);

	if (!vm->adjustable)
		return vm->cost_fixed;
	return resident + (vm->potential - resident) * vm->ratio + vm->overhead;
}

static bool is_managed(const struct mv_policy_numbers *n)
{
	return n->managed_bytes != MV_POLICY_UNKNOWN && n->managed_bytes > 0 &&
	       n->resident_bytes != MV_POLICY_UNKNOWN;
}

static double populated(const struct mv_policy_numbers *n)
{
	return (double)n->resident_bytes + policy_or_zero(n->stored_pages) * POLICY_PAGE;
}

/* What the balloon leaves it: it cannot populate more. */
static double most(const struct mv_policy_numbers *n)
{
	double configured = policy_or_zero(n->configured_bytes);

	return n->balloon_actual_bytes == MV_POLICY_UNKNOWN
		       ? configured
		       : fmin(configured, (double)n->balloon_actual_bytes);
}

double policy_used(const struct mv_policy_vm *vm)
{
	const struct mv_policy_numbers *n = &vm->numbers;
	double resident = is_managed(n) ? (double)n->resident_bytes : most(n);

	return resident + policy_or_zero(n->store_memory_bytes) + policy_or_zero(n->overhead_bytes);
}

static void update_growth(const struct mv_policy *policy, struct mv_policy_vm *vm)
{
	double now = populated(&vm->numbers);
	double interval_s = (double)policy->config.interval_ns / 1e9;

	vm->growth_per_s *= pow(1 - GROWTH_FORGOTTEN, policy->elapsed_s);
	if (vm->populated > 0)
		vm->growth_per_s =
			fmax(vm->growth_per_s,
			     (now - vm->populated) / fmax(policy->elapsed_s, GROWTH_LOOK_MIN_S));
	vm->growth_per_s = fmin(fmax(vm->growth_per_s, GROWTH_MIN_PER_S), GROWTH_MAX_PER_S);
	vm->growth_bytes = vm->growth_per_s * GROWTH_TICKS * interval_s;
	vm->populated = now;
}

/* @part of the growth that is expected, in steps, so that a limit does not follow each page. */
static double potential(const struct mv_policy_vm *vm, double part)
{
	const struct mv_policy_numbers *n = &vm->numbers;
	double soon;

	if (!is_managed(n))
		return most(n);
	soon = ceil((vm->populated + vm->growth_bytes) / GROWTH_STEP) * GROWTH_STEP;
	soon = vm->populated + part * (soon - vm->populated);
	return fmax(vm->populated, fmin(most(n), soon));
}

/* Same-filled pages and the store's waste are in it, as what is measured is its memory. */
static void update_ratio(const struct mv_policy *policy, struct mv_policy_vm *vm)
{
	double bytes = policy_or_zero(vm->numbers.stored_pages) * POLICY_PAGE;
	double memory = policy_or_zero(vm->numbers.store_memory_bytes);
	double sure = bytes / (bytes + RATIO_HALF_SURE);
	double change = bytes > 0 ? fmin(memory / bytes, RATIO_MAX) - vm->ratio : 0;

	if (vm->numbers.pager_fresh)
		vm->ratio += change * sure *
			     per_decision(policy, change > 0 ? RATIO_RISES : RATIO_FALLS);
	vm->overhead = policy_or_zero(vm->numbers.overhead_bytes);
	/* What the store takes beyond that it takes all the same. */
	vm->overhead += fmax(memory - vm->ratio * bytes, 0);
}

/* Without a limit nothing is known of what is resident. */
bool policy_needs_learning(const struct mv_policy_numbers *n)
{
	return n->pager_fresh && !n->held && !is_managed(n) &&
	       n->limit_bytes == MV_POLICY_UNLIMITED && n->configured_bytes != MV_POLICY_UNKNOWN &&
	       n->configured_bytes >= MV_POLICY_FLOOR_MIN;
}

/* A VM whose limit stays counts with all that it may come to. */
static double cost_of_fixed(const struct mv_policy_vm *vm)
{
	const struct mv_policy_numbers *n = &vm->numbers;
	double limit = n->held ? vm->potential : policy_or_zero(n->limit_bytes);

	/* For the one tick it counts with little, so that others need not make room blindly. */
	if (policy_needs_learning(n))
		return vm->floor;
	if (n->limit_bytes == MV_POLICY_UNLIMITED || !is_managed(n))
		limit = vm->potential;
	limit = fmin(limit, vm->potential);
	return limit + (vm->potential - limit) * vm->ratio + vm->overhead +
	       (n->held ? policy_or_zero(n->store_memory_bytes) : 0);
}

/*
 * A VM that has no pager. Its balloon is a limit that evicts nothing: what the guest uses stays,
 * and there is no store.
 */
static bool is_by_balloon(const struct mv_policy_vm *vm)
{
	const struct mv_policy_numbers *n = &vm->numbers;

	return n->managed_bytes == MV_POLICY_UNKNOWN && n->limit_bytes == MV_POLICY_UNLIMITED &&
	       !policy_needs_learning(n) && n->configured_bytes >= MV_POLICY_FLOOR_MIN &&
	       policy_guest_uses(vm) > 0;
}

bool policy_has_limit(const struct mv_policy_vm *vm)
{
	return vm->by_balloon || vm->numbers.limit_bytes != MV_POLICY_UNLIMITED;
}

static void take_balloon_for_limit(struct mv_policy_vm *vm)
{
	double configured = (double)vm->numbers.configured_bytes;
	double actual = (double)vm->numbers.balloon_actual_bytes;

	vm->ratio = 0;
	vm->potential = fmax(configured, vm->floor);
	vm->low = fmax(fmax((double)vm->min_bytes, vm->floor), policy_guest_uses(vm));
	vm->low = fmin(vm->low, vm->potential);
	vm->high = fmax(fmin(configured, (double)vm->max_bytes), vm->low);
	vm->resident = actual;
	vm->old = actual;
}

/* What follows from how much it can have populated by the time of the next decisions. */
static void expect_growth(struct mv_policy_vm *vm, double part)
{
	const struct mv_policy_numbers *n = &vm->numbers;

	if (vm->by_balloon) {
		take_balloon_for_limit(vm);
		return;
	}
	vm->potential = fmax(potential(vm, part), vm->floor);
	vm->high = fmax(fmin(vm->potential, (double)vm->max_bytes), vm->floor);
	vm->low = fmin(fmax((double)vm->min_bytes, vm->floor), vm->high);
	vm->resident = is_managed(n) ? fmin((double)n->resident_bytes, vm->potential) : 0;
	vm->old = n->limit_bytes == MV_POLICY_UNLIMITED
			  ? vm->potential
			  : fmin((double)n->limit_bytes, vm->potential);
	vm->cost_fixed = cost_of_fixed(vm);
}

static bool is_pressed(const struct mv_policy *policy, const struct mv_policy_numbers *n)
{
	return policy_guest_is_pressed(policy, n) ||
	       (n->pager_fresh && n->host_pressure_ppm != MV_POLICY_UNKNOWN &&
		n->host_pressure_ppm >= policy->config.pressure_limit_ppm);
}

static void set_floor(const struct mv_policy *policy, struct mv_policy_vm *vm)
{
	uint64_t wanted = vm->floor_bytes ? vm->floor_bytes : policy->config.floor_bytes;

	vm->floor = fmin((double)wanted, policy_or_zero(vm->numbers.configured_bytes));
	vm->floor = fmax(vm->floor, MV_POLICY_FLOOR_MIN);
}

void policy_take_stock(const struct mv_policy *policy, struct mv_policy_vm *vm)
{
	const struct mv_policy_numbers *n = &vm->numbers;

	if (is_managed(n))
		update_growth(policy, vm);
	update_ratio(policy, vm);
	set_floor(policy, vm);
	policy_hear_guest(vm);
	vm->by_balloon = is_by_balloon(vm);
	vm->adjustable = vm->by_balloon || (n->pager_fresh && !n->held && is_managed(n));
	vm->pressed = is_pressed(policy, n);
	expect_growth(vm, 1);
	vm->limit_bytes = n->limit_bytes;
	vm->limit_why = !n->pager_fresh ? MV_POLICY_STALE
			: n->held	? MV_POLICY_HELD
					: MV_POLICY_SAME;
	vm->balloon_bytes = MV_POLICY_UNKNOWN;
	vm->balloon_why = n->guest_fresh ? MV_POLICY_SAME : MV_POLICY_STALE;
}

/* --- the least that everybody is to have -------------------------------------------------- */

static double least_at(const struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count,
		       double part)
{
	struct policy_solve solve;

	for (unsigned int i = 0; i < count; i++)
		expect_growth(&vms[i], part);
	solve = policy_solve_begin(policy, vms, count);
	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			policy_solve_add(&solve, policy_point(&vms[i], vms[i].low));
	return policy_solve_total(&solve, 0);
}

static struct policy_path from_floor(const struct mv_policy_vm *vm)
{
	double floor =
		vm->by_balloon ? fmin(fmax(vm->floor, policy_guest_uses(vm)), vm->low) : vm->floor;

	return policy_line(vm, floor, vm->low - floor, floor, vm->low);
}

/*
 * From the floors up to the minima, as far as the budget goes. What a guest uses cannot be taken
 * by a balloon.
 */
static double lower_minima(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count,
			   double budget)
{
	struct policy_solve solve = policy_solve_begin(policy, vms, count);
	unsigned int path = 0;
	double at;

	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			policy_solve_add(&solve, from_floor(&vms[i]));
	at = policy_solve_highest(&solve, 1, budget);
	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			vms[i].low = policy_path_limit(&solve.paths[path++], at);
	return policy_solve_total(&solve, at);
}

void policy_fit(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count)
{
	double budget = policy->usable_bytes * POLICY_AIM;
	double low = 0, high = 1;

	if (least_at(policy, vms, count, 1) <= budget)
		return;
	/* What may come does not make the budget too small for what is. */
	for (int i = 0; i < GROWTH_BISECTIONS; i++) {
		double middle = (low + high) / 2;

		if (least_at(policy, vms, count, middle) <= budget)
			low = middle;
		else
			high = middle;
	}
	if (least_at(policy, vms, count, low) > policy->usable_bytes)
		policy->too_small = lower_minima(policy, vms, count, budget) > policy->usable_bytes;
}

/* --- demand ------------------------------------------------------------------------------- */

/*
 * The demand for resident memory: what is in use of what is resident, and what had to be
 * brought back; halfway to what the guest says it uses, since of that some is cold.
 */
static double new_demand(const struct mv_policy_vm *vm)
{
	double missing =
		policy_or_zero(vm->numbers.restores_per_s) * POLICY_PAGE * RESTORE_WEIGHT_S;
	double used = vm->resident;
	double guest = policy_guest_uses(vm);
	double demand;

	if (vm->by_balloon)
		return policy_guest_wants(vm);
	if (vm->numbers.active_bytes != MV_POLICY_UNKNOWN)
		used = fmin(used, (double)vm->numbers.active_bytes);
	demand = used + fmin(missing, vm->resident);
	return guest > 0 ? (demand + guest) / 2 : demand;
}

void policy_update_demand(const struct mv_policy *policy, struct mv_policy_vm *vm)
{
	double demand = new_demand(vm);
	double part = per_decision(policy, demand > vm->demand ? DEMAND_RISES : DEMAND_FALLS);

	if (vm->pressed)
		demand = fmax(fmax(demand, vm->demand), vm->old * DEMAND_PRESSED);
	demand = fmin(fmax(demand, vm->floor), vm->potential);
	if (vm->demand > 0 && !vm->pressed)
		demand = vm->demand + (demand - vm->demand) * part;
	vm->demand = demand;
}
