/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What each VM should have, by the rule that is in force.
 *
 * A rule gives each VM a limit that rises with one number common to all; the solver finds the
 * greatest that fits. For MV_POLICY_DEMAND that number is memory by demand; for MV_POLICY_SHARES
 * memory by share; for MV_POLICY_PRESSURE the part of their wants that is granted; for
 * MV_POLICY_CURVE it is the price of a byte, in misses that it saves.
 */
#include <math.h>

#include "policy_internal.h"

/*
 * MV_POLICY_PRESSURE: how much is taken in a second from a VM that loses no time at all, and
 * how much is given at most to one that loses too much.
 */
#define COLD_PER_S  0.01
#define PRESS_PER_S 0.5

/* Who is short of memory gets so much more than it has, where there is any. */
#define RELIEF 1.25

typedef struct policy_path (*path_of)(const struct mv_policy *policy, const struct mv_policy_vm *vm,
				      double price);

/* Where a path comes to its end. */
static double end_of(const struct policy_path *path)
{
	double end = 0;

	if (path->s1 > 0)
		end = fmax(end, (path->high - path->c1) / path->s1);
	if (path->s2 > 0)
		end = fmax(end, (path->high - path->c2) / path->s2);
	return end;
}

static bool is_outside(const struct mv_policy_vm *vm)
{
	return vm->outside_bytes != MV_POLICY_UNKNOWN;
}

/* First of all rules: as far as the least of all others leaves room for it. */
static struct policy_path by_outside(const struct mv_policy *policy, const struct mv_policy_vm *vm,
				     double unused)
{
	if (!is_outside(vm))
		return policy_point(vm, vm->low);
	return policy_line(vm, vm->low, (double)vm->outside_bytes - vm->low, vm->low,
			   fmin(vm->high, (double)vm->outside_bytes));
}

/*
 * Solve with one path for each adjustable VM, but for those whose limit somebody else has set.
 * @top: the greatest number; 0 for as far as it goes.
 */
static void solve_with(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count,
		       path_of rule, double price, double top)
{
	struct policy_solve solve = policy_solve_begin(policy, vms, count);
	double end = 0, at;
	unsigned int path = 0;

	for (unsigned int i = 0; i < count; i++) {
		if (!vms[i].adjustable)
			continue;
		policy_solve_add(&solve, is_outside(&vms[i]) && rule != by_outside
						 ? policy_point(&vms[i], vms[i].target)
						 : rule(policy, &vms[i], price));
		end = fmax(end, end_of(&solve.paths[solve.count - 1]));
	}
	at = policy_solve_highest(&solve, top > 0 ? top : end, policy->usable_bytes * POLICY_AIM);
	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			vms[i].target = policy_path_limit(&solve.paths[path++], at);
}

/* --- demand, shares ----------------------------------------------------------------------- */

static struct policy_path by_demand(const struct mv_policy *policy, const struct mv_policy_vm *vm,
				    double unused)
{
	return policy_line(vm, 0, vm->demand * vm->shares, vm->low, vm->high);
}

/*
 * ESX takes from who has the fewest shares for a page, S / (P × (f + k × (1 − f))), where a part
 * f of its P pages is active and an idle page is charged k = 1 / (1 − tax) times as much. Left to
 * itself that ends where all have the same, A + k × (P − A) = S × at: which is two lines,
 * S × at while it is all active, and then 1/k as steep.
 */
static struct policy_path by_shares(const struct mv_policy *policy, const struct mv_policy_vm *vm,
				    double unused)
{
	double tax = policy->config.idle_tax;
	double active = vm->numbers.active_bytes != MV_POLICY_UNKNOWN
				? (double)vm->numbers.active_bytes
				: vm->demand;
	struct policy_path path = policy_line(vm, 0, vm->shares, vm->low, vm->high);

	path.c2 = active * tax;
	path.s2 = path.s1 * (1 - tax);
	return path;
}

/* --- pressure ----------------------------------------------------------------------------- */

/* The time that it loses; of host and guest the worse. 0 where it is unknown: it is not said. */
static bool read_pressure(const struct mv_policy_vm *vm, double *ppm)
{
	const struct mv_policy_numbers *n = &vm->numbers;
	bool known = false;

	*ppm = 0;
	if (n->pager_fresh && n->host_pressure_ppm != MV_POLICY_UNKNOWN) {
		*ppm = (double)n->host_pressure_ppm;
		known = true;
	}
	if (n->guest_fresh && n->guest_pressure_ppm != MV_POLICY_UNKNOWN) {
		*ppm = fmax(*ppm, (double)n->guest_pressure_ppm);
		known = true;
	}
	return known;
}

/* TMO's step: memory × rate × (1 − pressure / target), which is negative above the target. */
static struct policy_path by_pressure(const struct mv_policy *policy, const struct mv_policy_vm *vm,
				      double unused)
{
	double want = fmin(vm->resident, vm->old);
	double ppm, over;

	if (!read_pressure(vm, &ppm))
		return policy_line(vm, 0, fmax(vm->old, vm->low), vm->low, vm->high);
	over = ppm / policy->config.pressure_target_ppm - 1;
	if (over < 0)
		want *= 1 + over * COLD_PER_S * policy->elapsed_s;
	else
		want = vm->old * (1 + fmin(over, 1) * PRESS_PER_S * policy->elapsed_s);
	if (vm->pressed)
		want = fmax(want, vm->demand);
	return policy_line(vm, 0, fmax(want, vm->low), vm->low, vm->high);
}

/* --- the curve ---------------------------------------------------------------------------- */

/* Who pays more has his step; at the price itself each gets the same part of it. */
static struct policy_path by_curve(const struct mv_policy *policy, const struct mv_policy_vm *vm,
				   double price)
{
	double above, with;

	/* Who has no curve keeps what demand gave it. */
	if (!policy_has_curve(vm))
		return policy_point(vm, vm->target);
	policy_curve_range(vm, price, &above, &with);
	return policy_line(vm, above, with - above, above, with);
}

static void set_targets_by_curve(struct mv_policy *policy, struct mv_policy_vm *vms,
				 unsigned int count)
{
	double price;

	solve_with(policy, vms, count, by_demand, 0, 0);
	price = policy_curve_price(policy, vms, count, policy->usable_bytes * POLICY_AIM);
	solve_with(policy, vms, count, by_curve, price, 1);
}

/* --- who is short of memory --------------------------------------------------------------- */

/* From what the rule gives it towards more than it has. */
static struct policy_path by_relief(const struct mv_policy *policy, const struct mv_policy_vm *vm,
				    double unused)
{
	double relief = fmin(vm->old * RELIEF, vm->high);

	if (!vm->pressed || relief <= vm->target)
		return policy_point(vm, vm->target);
	return policy_line(vm, vm->target, relief - vm->target, vm->target, relief);
}

static void set_targets_by_rule(struct mv_policy *policy, struct mv_policy_vm *vms,
				unsigned int count)
{
	switch (policy->config.rule) {
	case MV_POLICY_SHARES:
		solve_with(policy, vms, count, by_shares, 0, 0);
		break;
	case MV_POLICY_PRESSURE:
		/* Nobody gets more than it wants: what is left stays free. */
		solve_with(policy, vms, count, by_pressure, 0, 1);
		break;
	case MV_POLICY_CURVE:
		set_targets_by_curve(policy, vms, count);
		break;
	default:
		solve_with(policy, vms, count, by_demand, 0, 0);
	}
}

void policy_set_targets(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count)
{
	solve_with(policy, vms, count, by_outside, 0, 1);
	set_targets_by_rule(policy, vms, count);
	/* What the rule leaves over is theirs first. */
	if (policy->pressed)
		solve_with(policy, vms, count, by_relief, 0, 1);
	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			vms[i].target =
				fmax(floor(vms[i].target / POLICY_MIB) * POLICY_MIB, vms[i].low);
}
