/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much memory each VM gets; see govern_policy.h and docs/governor.md.
 *
 * A tick: take stock of each VM, let the balloons give what the guests can spare, find the
 * limits that divide the budget in proportion to demand (targets), and move towards them:
 * who shrinks does so slowly where the budget allows it, and who grows gets only what has
 * been freed in fact.
 *
 * Limits are worked out in double: exact to the byte up to 8 PiB.
 */
#include "govern_policy.h"

#include <math.h>

#include "govern_balloon.h"

#define MIB  (1024.0 * 1024)
#define PAGE 4096.0

/* Of the budget; resident memory lags its limit a little, and stores grow meanwhile. */
#define HEADROOM 0.05

/*
 * What limits aim at, of what is usable. They are left alone in between, so that each small
 * change of the numbers does not push them down and let them up again.
 */
#define AIM 0.985

/*
 * How fast a guest is expected to populate memory until the tick after next: as fast as it
 * did, which is forgotten slowly; never so slowly that a sudden start is a surprise, and not
 * faster than faults can be handled.
 */
#define GROWTH_FIRST_PER_S (96 * MIB)
#define GROWTH_MIN_PER_S   (32 * MIB)
#define GROWTH_MAX_PER_S   (256 * MIB)
#define GROWTH_FORGOTTEN   0.12 /* in a second */
#define GROWTH_TICKS	   2
#define GROWTH_STEP	   (16 * MIB)

/*
 * The ratio assumed of content that was never stored, and how fast it comes to what is
 * measured: faster up, for caution, and slower the less is stored. Where nothing is, what was
 * measured once is remembered.
 */
#define RATIO_FIRST	0.5
#define RATIO_MAX	0.98
#define RATIO_RISES	0.5
#define RATIO_FALLS	0.1
#define RATIO_HALF_SURE (64 * MIB)

/*
 * What is restored in so many seconds is missing; up to once what is resident. How many
 * restores more memory would save is not known, so more weight makes limits swing.
 */
#define RESTORE_WEIGHT_S 2

/* How much of a new demand counts at once; the rest is remembered. */
#define DEMAND_RISES 0.3
#define DEMAND_FALLS 0.1

/* How far a limit is lowered in a second where nothing forces it. */
#define SHRINK_PER_S	 0.10
#define SHRINK_MIN_PER_S (16 * MIB)

/* Changes of a limit below this are not worth the trouble. */
#define DEAD_BAND     0.04
#define DEAD_BAND_MIN (4 * MIB)

/* Limits come back once everything takes more than this part of what is usable. */
#define AMPLE_ENTER 0.95

#define BISECTIONS 48

void policy_init(struct policy *policy, const struct policy_config *config)
{
	*policy = (struct policy){ .config = *config };
	if (policy->config.floor_bytes < POLICY_FLOOR_MIN)
		policy->config.floor_bytes = POLICY_FLOOR_MIN;
}

void policy_vm_init(struct policy_vm *vm)
{
	*vm = (struct policy_vm){
		.ratio = RATIO_FIRST,
		.growth_per_s = GROWTH_FIRST_PER_S,
		.reserved_bytes = POLICY_UNKNOWN,
		.last_actual = POLICY_UNKNOWN,
		.target_bytes = POLICY_UNKNOWN,
		.balloon_bytes = POLICY_UNKNOWN,
	};
}

static double or_zero(uint64_t number)
{
	return number == POLICY_UNKNOWN ? 0 : (double)number;
}

static double interval_s(const struct policy *policy)
{
	return (double)policy->config.interval_ns / 1e9;
}

double policy_cost(const struct policy_vm *vm, double limit)
{
	double resident = fmin(limit, vm->potential);

	if (!vm->adjustable)
		return vm->cost_fixed;
	return resident + (vm->potential - resident) * vm->ratio + vm->overhead;
}

/* --- taking stock ------------------------------------------------------------------------- */

static bool is_managed(const struct policy_numbers *n)
{
	return n->managed_bytes != POLICY_UNKNOWN && n->managed_bytes > 0 &&
	       n->resident_bytes != POLICY_UNKNOWN;
}

static double populated(const struct policy_numbers *n)
{
	return n->resident_bytes + or_zero(n->stored_pages) * PAGE;
}

/* What the balloon leaves it: it cannot populate more. */
static double most(const struct policy_numbers *n)
{
	double configured = or_zero(n->configured_bytes);

	return n->balloon_actual_bytes == POLICY_UNKNOWN
		       ? configured
		       : fmin(configured, (double)n->balloon_actual_bytes);
}

static void update_growth(const struct policy *policy, struct policy_vm *vm)
{
	double now = populated(&vm->numbers);
	double seconds = interval_s(policy);

	vm->growth_per_s *= pow(1 - GROWTH_FORGOTTEN, seconds);
	if (vm->populated > 0)
		vm->growth_per_s = fmax(vm->growth_per_s, (now - vm->populated) / seconds);
	vm->growth_per_s = fmin(fmax(vm->growth_per_s, GROWTH_MIN_PER_S), GROWTH_MAX_PER_S);
	vm->growth_bytes = vm->growth_per_s * GROWTH_TICKS * seconds;
	vm->populated = now;
}

/* @part of the growth that is expected, in steps, so that a limit does not follow each page. */
static double potential(const struct policy_vm *vm, double part)
{
	const struct policy_numbers *n = &vm->numbers;
	double soon;

	if (!is_managed(n))
		return most(n);
	soon = ceil((vm->populated + vm->growth_bytes) / GROWTH_STEP) * GROWTH_STEP;
	soon = vm->populated + part * (soon - vm->populated);
	return fmax(vm->populated, fmin(most(n), soon));
}

/* Same-filled pages and the store's waste are in it, as what is measured is its memory. */
static void update_ratio(struct policy_vm *vm)
{
	double bytes = or_zero(vm->numbers.stored_pages) * PAGE;
	double memory = or_zero(vm->numbers.store_memory_bytes);
	double sure = bytes / (bytes + RATIO_HALF_SURE);
	double change = bytes > 0 ? fmin(memory / bytes, RATIO_MAX) - vm->ratio : 0;

	if (vm->numbers.pager_fresh)
		vm->ratio += change * sure * (change > 0 ? RATIO_RISES : RATIO_FALLS);
	vm->overhead = or_zero(vm->numbers.overhead_bytes);
	/* What the store takes beyond that it takes all the same. */
	vm->overhead += fmax(memory - vm->ratio * bytes, 0);
}

/* Without a limit nothing is known of what is resident. */
static bool needs_learning(const struct policy_numbers *n)
{
	return n->pager_fresh && !n->held && !is_managed(n) && n->limit_bytes == POLICY_UNLIMITED &&
	       n->configured_bytes != POLICY_UNKNOWN && n->configured_bytes >= POLICY_FLOOR_MIN;
}

/* A VM whose limit stays counts with all that it may come to. */
static double cost_of_fixed(const struct policy_vm *vm)
{
	const struct policy_numbers *n = &vm->numbers;
	double limit = n->held ? vm->potential : or_zero(n->limit_bytes);

	/* For the one tick it counts with little, so that others need not make room blindly. */
	if (needs_learning(n))
		return vm->floor;
	if (n->limit_bytes == POLICY_UNLIMITED || !is_managed(n))
		limit = vm->potential;
	limit = fmin(limit, vm->potential);
	return limit + (vm->potential - limit) * vm->ratio + vm->overhead +
	       (n->held ? or_zero(n->store_memory_bytes) : 0);
}

/* What follows from how much it can have populated by the time of the next ticks. */
static void expect_growth(struct policy_vm *vm, double part)
{
	const struct policy_numbers *n = &vm->numbers;

	vm->potential = fmax(potential(vm, part), vm->floor);
	vm->resident = is_managed(n) ? fmin((double)n->resident_bytes, vm->potential) : 0;
	vm->old = n->limit_bytes == POLICY_UNLIMITED ? vm->potential
						     : fmin((double)n->limit_bytes, vm->potential);
	vm->cost_fixed = cost_of_fixed(vm);
}

static void take_stock(const struct policy *policy, struct policy_vm *vm)
{
	const struct policy_numbers *n = &vm->numbers;

	if (is_managed(n))
		update_growth(policy, vm);
	update_ratio(vm);
	vm->floor = fmin((double)policy->config.floor_bytes, or_zero(n->configured_bytes));
	vm->floor = fmax(vm->floor, POLICY_FLOOR_MIN);
	vm->adjustable = n->pager_fresh && !n->held && is_managed(n);
	expect_growth(vm, 1);
	vm->limit_bytes = n->limit_bytes;
	vm->limit_why = !n->pager_fresh ? POLICY_STALE : n->held ? POLICY_HELD : POLICY_SAME;
	vm->balloon_bytes = POLICY_UNKNOWN;
	vm->balloon_why = n->guest_fresh ? POLICY_SAME : POLICY_STALE;
}

/*
 * The demand for resident memory: what is resident and what had to be brought back; halfway
 * to what the guest says it uses, since of that some is cold.
 */
static void update_demand(struct policy_vm *vm)
{
	double missing = or_zero(vm->numbers.restores_per_s) * PAGE * RESTORE_WEIGHT_S;
	double demand = vm->resident + fmin(missing, vm->resident);
	double guest = balloon_guest_uses(vm);

	if (guest > 0)
		demand = (demand + guest) / 2;
	demand = fmin(fmax(demand, vm->floor), vm->potential);
	if (vm->demand > 0)
		demand = vm->demand + (demand - vm->demand) *
					      (demand > vm->demand ? DEMAND_RISES : DEMAND_FALLS);
	vm->demand = demand;
}

/* --- the targets -------------------------------------------------------------------------- */

/* A set of limits, one number on a scale of them. */
typedef double (*limit_at)(const struct policy_vm *vm, double at);

static double total_at(const struct policy_vm *vms, unsigned int count, limit_at limit, double at)
{
	double total = 0;

	for (unsigned int i = 0; i < count; i++)
		total += policy_cost(&vms[i], limit(&vms[i], at));
	return total;
}

/* The highest point of the scale from 0 to @top that takes @budget; 0 where none does. */
static double highest(const struct policy_vm *vms, unsigned int count, limit_at limit, double top,
		      double budget)
{
	double low = 0;

	if (total_at(vms, count, limit, top) <= budget)
		return top;
	for (int i = 0; i < BISECTIONS; i++) {
		double middle = (low + top) / 2;

		if (total_at(vms, count, limit, middle) <= budget)
			low = middle;
		else
			top = middle;
	}
	return low;
}

/* In proportion to demand, between the floor and what can be used at all. */
static double in_proportion(const struct policy_vm *vm, double factor)
{
	return fmin(fmax(factor * vm->demand, vm->floor), vm->potential);
}

static double floors_at(struct policy_vm *vms, unsigned int count, double part)
{
	for (unsigned int i = 0; i < count; i++)
		expect_growth(&vms[i], part);
	return total_at(vms, count, in_proportion, 0);
}

/*
 * Where the floors leave no room for all the growth that is expected, expect less: what may
 * come does not make the budget too small for what is.
 */
static void fit_growth(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
	double budget = policy->usable_bytes * AIM;
	double low = 0, high = 1;

	if (floors_at(vms, count, 1) <= budget)
		return;
	for (int i = 0; i < BISECTIONS / 4; i++) {
		double middle = (low + high) / 2;

		if (floors_at(vms, count, middle) <= budget)
			low = middle;
		else
			high = middle;
	}
	policy->too_small = floors_at(vms, count, low) > policy->usable_bytes;
}

static void set_targets(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
	double factor, top = 1;

	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			top = fmax(top, vms[i].potential / vms[i].demand);
	factor = highest(vms, count, in_proportion, top, policy->usable_bytes * AIM);
	for (unsigned int i = 0; i < count; i++) {
		double target = in_proportion(&vms[i], factor);

		vms[i].target = fmax(floor(target / MIB) * MIB, vms[i].floor);
	}
}

/* --- moving towards them ------------------------------------------------------------------ */

static bool shrinks(const struct policy_vm *vm)
{
	return vm->target < vm->old;
}

static double base(const struct policy_vm *vm)
{
	return fmax(vm->old, vm->floor);
}

static double next_limit(const struct policy_vm *vm, double unused)
{
	return vm->next;
}

/* What is resident counts until it has been evicted. */
static double next_or_resident(const struct policy_vm *vm, double unused)
{
	return fmax(vm->next, fmin(vm->resident, vm->old));
}

/* From the target to where it may shrink gently. Growers stay. */
static double while_shrinking(const struct policy_vm *vm, double at)
{
	return shrinks(vm) ? vm->target + at * (vm->next - vm->target) : base(vm);
}

/* Growers, from where they are to their target; who shrinks still has what is resident. */
static double while_growing(const struct policy_vm *vm, double at)
{
	if (shrinks(vm))
		return next_or_resident(vm, at);
	return base(vm) + at * (fmax(vm->target, base(vm)) - base(vm));
}

/* Lowering a limit to what is resident takes nothing away; below that it goes slowly. */
static double gently(const struct policy *policy, const struct policy_vm *vm)
{
	double step = fmax(vm->old * SHRINK_PER_S, SHRINK_MIN_PER_S) * interval_s(policy);

	return fmax(vm->target, fmin(vm->old, vm->resident) - step);
}

static void move(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
	double aim = policy->usable_bytes * AIM;
	double at = 1;

	for (unsigned int i = 0; i < count; i++)
		vms[i].next = gently(policy, &vms[i]);
	policy->over = total_at(vms, count, while_shrinking, 1) > policy->usable_bytes;
	if (policy->over)
		at = highest(vms, count, while_shrinking, 1, aim);
	for (unsigned int i = 0; i < count; i++)
		if (shrinks(&vms[i]))
			vms[i].next = while_shrinking(&vms[i], at);
	at = highest(vms, count, while_growing, 1, aim);
	for (unsigned int i = 0; i < count; i++)
		if (!shrinks(&vms[i]))
			vms[i].next = while_growing(&vms[i], at);
}

/* --- the decisions ------------------------------------------------------------------------ */

/* Who shrinks goes in steps that may be small; what counts is where to. */
static bool is_small_change(const struct policy_vm *vm)
{
	double change = shrinks(vm) ? vm->old - vm->target : vm->next - vm->old;

	return vm->numbers.limit_bytes != POLICY_UNLIMITED && vm->old >= vm->floor &&
	       change < fmax(vm->old * DEAD_BAND, DEAD_BAND_MIN);
}

/* Small steps down are left out while the whole fits without them, small steps up always. */
static void skip_small_changes(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
	double total = total_at(vms, count, next_or_resident, 0);

	for (unsigned int i = 0; i < count; i++) {
		struct policy_vm *vm = &vms[i];
		double more = policy_cost(vm, vm->old) - policy_cost(vm, vm->next);

		if (!vm->adjustable || !is_small_change(vm) ||
		    (more > 0 && total + more > policy->usable_bytes))
			continue;
		vm->next = vm->old;
		total += more;
	}
	policy->planned_bytes = total_at(vms, count, next_limit, 0);
}

static enum policy_why why_limit(const struct policy *policy, const struct policy_vm *vm)
{
	if (vm->next == vm->old && vm->numbers.limit_bytes != POLICY_UNLIMITED)
		return POLICY_SAME;
	if (policy->too_small)
		return POLICY_FLOOR;
	if (vm->next > vm->old)
		return POLICY_GROW;
	return policy->over || vm->numbers.limit_bytes == POLICY_UNLIMITED ? POLICY_OVER
									   : POLICY_SHRINK;
}

static void write_limit(const struct policy *policy, struct policy_vm *vm)
{
	vm->limit_why = why_limit(policy, vm);
	if (vm->limit_why != POLICY_SAME)
		vm->limit_bytes = (uint64_t)vm->next;
}

/* Set a limit that evicts nothing, and look. */
static bool learn(struct policy_vm *vm)
{
	if (!needs_learning(&vm->numbers))
		return false;
	vm->limit_bytes = vm->numbers.configured_bytes;
	vm->limit_why = POLICY_LEARN;
	return true;
}

static void lift_limit(struct policy_vm *vm)
{
	if (!vm->numbers.pager_fresh || vm->numbers.held ||
	    vm->numbers.limit_bytes == POLICY_UNLIMITED)
		return;
	vm->limit_bytes = POLICY_UNLIMITED;
	vm->limit_why = POLICY_AMPLE;
}

/* Whether all VMs fit whole, with some distance to where that was decided last. */
static bool fits(const struct policy *policy, const struct policy_vm *vms, unsigned int count)
{
	double total = 0;

	for (unsigned int i = 0; i < count; i++) {
		if (vms[i].numbers.configured_bytes == POLICY_UNKNOWN)
			return false;
		total += (double)vms[i].numbers.configured_bytes + vms[i].overhead;
	}
	return total <= policy->usable_bytes * (policy->ample ? 1 : AMPLE_ENTER);
}

/* VMs that start one after the other fit at first: wait before anything follows from it. */
static void see_whether_ample(struct policy *policy, const struct policy_vm *vms,
			      unsigned int count)
{
	bool fit = fits(policy, vms, count);

	policy->ample = fit && (policy->ample || policy->fits_ns >= policy->config.patience_ns);
	policy->waiting = fit && !policy->ample;
	policy->fits_ns = fit ? policy->fits_ns + policy->config.interval_ns : 0;
}

static void divide(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
	fit_growth(policy, vms, count);
	for (unsigned int i = 0; i < count; i++)
		if (!learn(&vms[i]) && vms[i].adjustable)
			update_demand(&vms[i]);
	set_targets(policy, vms, count);
	move(policy, vms, count);
	skip_small_changes(policy, vms, count);
	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			write_limit(policy, &vms[i]);
}

static void lift_limits(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		lift_limit(&vms[i]);
		policy->planned_bytes += vms[i].potential + vms[i].overhead;
	}
}

void policy_decide(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
	policy->usable_bytes = (double)policy->config.budget_bytes * (1 - HEADROOM);
	policy->planned_bytes = 0;
	policy->too_small = false;
	policy->over = false;
	for (unsigned int i = 0; i < count; i++)
		take_stock(policy, &vms[i]);
	see_whether_ample(policy, vms, count);
	if (policy->waiting)
		return;
	for (unsigned int i = 0; i < count; i++)
		balloon_decide(policy, &vms[i]);
	if (policy->ample)
		lift_limits(policy, vms, count);
	else
		divide(policy, vms, count);
}

const char *policy_why_text(enum policy_why why)
{
	static const char *const texts[] = {
		[POLICY_SAME] = "nothing to change",
		[POLICY_STALE] = "its numbers are missing or old: left as it is",
		[POLICY_HELD] = "it cannot evict at the moment: left as it is",
		[POLICY_AMPLE] = "the budget holds every VM whole",
		[POLICY_LEARN] = "to find out what is resident",
		[POLICY_GROW] = "its demand is worth more than it has",
		[POLICY_SHRINK] = "to make room for others",
		[POLICY_OVER] = "the budget would be exceeded otherwise",
		[POLICY_FLOOR] = "the budget is too small for what the VMs hold",
		[POLICY_GUEST_SPARES] = "the guest can spare it",
		[POLICY_GUEST_NEEDS] = "the guest is short of memory",
	};

	return texts[why];
}
