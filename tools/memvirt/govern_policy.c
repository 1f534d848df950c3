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

#define MIB (1024.0 * 1024)
#define PAGE 4096.0

/* Of the budget; resident memory lags its limit a little, and stores grow meanwhile. */
#define HEADROOM 0.05

/* What a handler of faults can bring into one guest, with room; bounds its growth. */
#define GROWTH_PER_S (256 * MIB)
#define GROWTH_TICKS 2

/* The ratio assumed of content that was never stored, and how much of it is mixed in. */
#define RATIO_PRIOR	0.5
#define RATIO_PRIOR_FOR (64 * MIB)
#define RATIO_MAX	0.98

/* A page restored in a second is worth this many seconds' worth of them. */
#define RESTORE_WEIGHT_S 5

/* Of what is new in the demand; the rest is remembered. */
#define DEMAND_NEW 0.3

/* How far a limit is lowered in a second where nothing forces it. */
#define SHRINK_PER_S	 0.10
#define SHRINK_MIN_PER_S (16 * MIB)

/* Changes of a limit below this are not worth the trouble. */
#define DEAD_BAND     0.02
#define DEAD_BAND_MIN (2 * MIB)

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

static double potential(const struct policy *policy, const struct policy_numbers *n)
{
	double growth = GROWTH_PER_S * GROWTH_TICKS * interval_s(policy);
	double now;

	if (!is_managed(n))
		return most(n);
	/* In steps, so that a limit does not follow each page. */
	now = populated(n);
	return fmax(now, fmin(most(n), ceil((now + growth) / (64 * MIB)) * 64 * MIB));
}

/* Same-filled pages and the store's waste are in it, as what is measured is its memory. */
static double store_ratio(const struct policy_numbers *n)
{
	double bytes = or_zero(n->stored_pages) * PAGE;
	double ratio = (or_zero(n->store_memory_bytes) + RATIO_PRIOR * RATIO_PRIOR_FOR) /
		       (bytes + RATIO_PRIOR_FOR);

	return fmin(ratio, RATIO_MAX);
}

/* A VM whose limit stays counts with all that it may come to. */
static double cost_of_fixed(const struct policy_vm *vm)
{
	const struct policy_numbers *n = &vm->numbers;
	double limit = n->held ? vm->potential : or_zero(n->limit_bytes);

	if (n->limit_bytes == POLICY_UNLIMITED || !is_managed(n))
		limit = vm->potential;
	limit = fmin(limit, vm->potential);
	return limit + (vm->potential - limit) * vm->ratio + vm->overhead +
	       (n->held ? or_zero(n->store_memory_bytes) : 0);
}

static void take_stock(const struct policy *policy, struct policy_vm *vm)
{
	const struct policy_numbers *n = &vm->numbers;

	vm->potential = potential(policy, n);
	vm->resident = is_managed(n) ? fmin((double)n->resident_bytes, vm->potential) : 0;
	vm->ratio = store_ratio(n);
	vm->overhead = or_zero(n->overhead_bytes);
	vm->floor = fmin((double)policy->config.floor_bytes, or_zero(n->configured_bytes));
	vm->floor = fmax(vm->floor, POLICY_FLOOR_MIN);
	vm->potential = fmax(vm->potential, vm->floor);
	vm->adjustable = n->pager_fresh && !n->held && is_managed(n);
	vm->cost_fixed = cost_of_fixed(vm);
	vm->old = n->limit_bytes == POLICY_UNLIMITED ? vm->potential
						     : fmin((double)n->limit_bytes, vm->potential);
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
	double guest = balloon_guest_wants(vm);
	double demand = vm->resident +
			or_zero(vm->numbers.restores_per_s) * PAGE * RESTORE_WEIGHT_S;

	if (guest > 0)
		demand = (demand + guest) / 2;
	demand = fmin(fmax(demand, vm->floor), vm->potential);
	vm->demand = vm->demand > 0 ? vm->demand + DEMAND_NEW * (demand - vm->demand) : demand;
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

/* The highest point of the scale from 0 to @top that can be afforded; 0 where none can. */
static double highest(const struct policy *policy, const struct policy_vm *vms,
		      unsigned int count, limit_at limit, double top)
{
	double low = 0;

	if (total_at(vms, count, limit, top) <= policy->usable_bytes)
		return top;
	for (int i = 0; i < BISECTIONS; i++) {
		double middle = (low + top) / 2;

		if (total_at(vms, count, limit, middle) <= policy->usable_bytes)
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

static void set_targets(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
	double top = 1;

	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			top = fmax(top, vms[i].potential / vms[i].demand);
	policy->too_small = total_at(vms, count, in_proportion, 0) > policy->usable_bytes;

	double factor = highest(policy, vms, count, in_proportion, top);
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

/* From the target to where it may shrink gently. Growers stay. */
static double while_shrinking(const struct policy_vm *vm, double at)
{
	return shrinks(vm) ? vm->target + at * (vm->next - vm->target) : base(vm);
}

/* Growers, from where they are to their target; who shrinks still has what is resident. */
static double while_growing(const struct policy_vm *vm, double at)
{
	if (shrinks(vm))
		return fmax(vm->next, fmin(vm->resident, vm->old));
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
	double at;

	for (unsigned int i = 0; i < count; i++)
		vms[i].next = gently(policy, &vms[i]);
	at = highest(policy, vms, count, while_shrinking, 1);
	for (unsigned int i = 0; i < count; i++)
		if (shrinks(&vms[i]))
			vms[i].next = while_shrinking(&vms[i], at);
	at = highest(policy, vms, count, while_growing, 1);
	for (unsigned int i = 0; i < count; i++)
		if (!shrinks(&vms[i]))
			vms[i].next = while_growing(&vms[i], at);
}

/* --- the decisions ------------------------------------------------------------------------ */

static bool is_small_change(const struct policy_vm *vm)
{
	double change = fabs(vm->next - vm->old);

	return vm->numbers.limit_bytes != POLICY_UNLIMITED && vm->old >= vm->floor &&
	       change < fmax(vm->old * DEAD_BAND, DEAD_BAND_MIN);
}

static double next_limit(const struct policy_vm *vm, double unused)
{
	return vm->next;
}

/* Small steps down are left out while the whole fits without them, small steps up always. */
static void skip_small_changes(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
	double total = total_at(vms, count, next_limit, 0);

	for (unsigned int i = 0; i < count; i++) {
		struct policy_vm *vm = &vms[i];
		double more = policy_cost(vm, vm->old) - policy_cost(vm, vm->next);

		if (!vm->adjustable || !is_small_change(vm) ||
		    (more > 0 && total + more > policy->usable_bytes))
			continue;
		vm->next = vm->old;
		total += more;
	}
	policy->planned_bytes = total;
}

static enum policy_why why_limit(const struct policy *policy, const struct policy_vm *vm)
{
	if (vm->next == vm->old && vm->numbers.limit_bytes != POLICY_UNLIMITED)
		return POLICY_SAME;
	if (policy->too_small)
		return POLICY_FLOOR;
	if (vm->next > vm->old)
		return POLICY_GROW;
	return vm->numbers.limit_bytes == POLICY_UNLIMITED ? POLICY_OVER : POLICY_SHRINK;
}

static void write_limit(const struct policy *policy, struct policy_vm *vm)
{
	vm->limit_why = why_limit(policy, vm);
	if (vm->limit_why != POLICY_SAME)
		vm->limit_bytes = (uint64_t)vm->next;
}

/* Without a limit nothing is known of residency: set one that evicts nothing, and look. */
static bool learn(struct policy_vm *vm)
{
	const struct policy_numbers *n = &vm->numbers;

	if (!n->pager_fresh || n->held || is_managed(n) || n->limit_bytes != POLICY_UNLIMITED ||
	    n->configured_bytes == POLICY_UNKNOWN || n->configured_bytes < POLICY_FLOOR_MIN)
		return false;
	vm->limit_bytes = n->configured_bytes;
	vm->limit_why = POLICY_LEARN;
	/* For this tick it counts with little, so that others need not make room blindly. */
	vm->cost_fixed = vm->floor;
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
static bool is_ample(const struct policy *policy, const struct policy_vm *vms, unsigned int count)
{
	double total = 0;

	for (unsigned int i = 0; i < count; i++) {
		if (vms[i].numbers.configured_bytes == POLICY_UNKNOWN)
			return false;
		total += (double)vms[i].numbers.configured_bytes + vms[i].overhead;
	}
	return total <= policy->usable_bytes * (policy->ample ? 1 : AMPLE_ENTER);
}

static void divide(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
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

void policy_decide(struct policy *policy, struct policy_vm *vms, unsigned int count)
{
	policy->usable_bytes = (double)policy->config.budget_bytes * (1 - HEADROOM);
	policy->planned_bytes = 0;
	policy->too_small = false;
	for (unsigned int i = 0; i < count; i++)
		take_stock(policy, &vms[i]);
	policy->ample = is_ample(policy, vms, count);
	for (unsigned int i = 0; i < count; i++)
		balloon_decide(policy, &vms[i]);
	if (!policy->ample) {
		divide(policy, vms, count);
		return;
	}
	for (unsigned int i = 0; i < count; i++) {
		lift_limit(&vms[i]);
		policy->planned_bytes += vms[i].potential + vms[i].overhead;
	}
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
		[POLICY_OVER] = "the VMs together need a limit",
		[POLICY_FLOOR] = "the budget is too small for what the VMs hold",
		[POLICY_GUEST_SPARES] = "the guest can spare it",
		[POLICY_GUEST_NEEDS] = "the guest is short of memory",
	};

	return texts[why];
}
