/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * On the way to the targets: who shrinks does so slowly where the budget allows it, and who
 * grows gets only what has been freed in fact.
 */
#include <math.h>

#include "policy_internal.h"

/* How far a limit is lowered in a second where nothing forces it. */
#define SHRINK_PER_S	 0.10
#define SHRINK_MIN_PER_S (16 * POLICY_MIB)

/* Changes of a limit below this are not worth the trouble. */
#define DEAD_BAND     0.04
#define DEAD_BAND_MIN (4 * POLICY_MIB)

static bool shrinks(const struct mv_policy_vm *vm)
{
	return vm->target < vm->old;
}

static double base(const struct mv_policy_vm *vm)
{
	return fmax(vm->old, vm->floor);
}

/* What is resident counts until it has been evicted. */
static double next_or_resident(const struct mv_policy_vm *vm)
{
	return fmax(vm->next, fmin(vm->resident, vm->old));
}

/* From the target to where it may shrink gently. Growers stay. */
static struct policy_path while_shrinking(const struct mv_policy_vm *vm)
{
	return shrinks(vm)
		       ? policy_line(vm, vm->target, vm->next - vm->target, vm->target, vm->next)
		       : policy_point(vm, base(vm));
}

/* Growers, from where they are to their target; who shrinks still has what is resident. */
static struct policy_path while_growing(const struct mv_policy_vm *vm)
{
	double from = base(vm), to = fmax(vm->target, base(vm));

	return shrinks(vm) ? policy_point(vm, next_or_resident(vm))
			   : policy_line(vm, from, to - from, from, to);
}

static struct policy_path as_next(const struct mv_policy_vm *vm)
{
	return policy_point(vm, vm->next);
}

static struct policy_path as_next_or_resident(const struct mv_policy_vm *vm)
{
	return policy_point(vm, next_or_resident(vm));
}

static struct policy_solve solve_of(const struct mv_policy *policy, const struct mv_policy_vm *vms,
				    unsigned int count,
				    struct policy_path (*path)(const struct mv_policy_vm *vm))
{
	struct policy_solve solve = policy_solve_begin(policy, vms, count);

	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			policy_solve_add(&solve, path(&vms[i]));
	return solve;
}

/* Lowering a limit to what is resident takes nothing away; below that it goes slowly. */
static double gently(const struct mv_policy *policy, const struct mv_policy_vm *vm)
{
	double step = fmax(vm->old * SHRINK_PER_S, SHRINK_MIN_PER_S) * policy->elapsed_s;

	if (policy->state >= MV_POLICY_HARD)
		return vm->target;
	return fmax(vm->target, fmin(vm->old, vm->resident) - step);
}

/* What the solution gives to those who shrink, or to those who do not. */
static void take(const struct policy_solve *solve, double at, struct mv_policy_vm *vms,
		 unsigned int count, bool shrinking)
{
	unsigned int path = 0;

	for (unsigned int i = 0; i < count; i++) {
		double limit;

		if (!vms[i].adjustable)
			continue;
		limit = policy_path_limit(&solve->paths[path++], at);
		if (shrinks(&vms[i]) == shrinking)
			vms[i].next = limit;
	}
}

static void shrink(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count)
{
	struct policy_solve solve;
	double at = 1;

	for (unsigned int i = 0; i < count; i++)
		vms[i].next = vms[i].adjustable ? gently(policy, &vms[i]) : 0;
	solve = solve_of(policy, vms, count, while_shrinking);
	policy->over = policy_solve_total(&solve, 1) > policy->usable_bytes;
	if (policy->over)
		at = policy_solve_highest(&solve, 1, policy->usable_bytes * POLICY_AIM);
	take(&solve, at, vms, count, true);
}

static void grow(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count)
{
	struct policy_solve solve = solve_of(policy, vms, count, while_growing);
	double at = 0;

	if (policy->state < MV_POLICY_LOW)
		at = policy_solve_highest(&solve, 1, policy->usable_bytes * POLICY_AIM);
	take(&solve, at, vms, count, false);
}

/* Who shrinks goes in steps that may be small; what counts is where to. */
static bool is_small_change(const struct mv_policy_vm *vm)
{
	double change = shrinks(vm) ? vm->old - vm->target : vm->next - vm->old;

	return policy_has_limit(vm) && vm->old >= vm->floor && vm->old <= vm->high &&
	       change < fmax(vm->old * DEAD_BAND, DEAD_BAND_MIN);
}

/* Somebody else's number is wanted as it is, and pressure's steps are small ones. */
static bool may_skip(const struct mv_policy *policy, const struct mv_policy_vm *vm)
{
	return vm->adjustable && vm->outside_bytes == MV_POLICY_UNKNOWN &&
	       policy->config.rule != MV_POLICY_PRESSURE && is_small_change(vm);
}

/* Small steps down are left out while the whole fits without them, small steps up always. */
static void skip_small_changes(struct mv_policy *policy, struct mv_policy_vm *vms,
			       unsigned int count)
{
	struct policy_solve solve = solve_of(policy, vms, count, as_next_or_resident);
	double total = policy_solve_total(&solve, 0);

	for (unsigned int i = 0; i < count; i++) {
		struct mv_policy_vm *vm = &vms[i];
		double more = mv_policy_cost(vm, vm->old) - mv_policy_cost(vm, vm->next);

		if (!may_skip(policy, vm) || (more > 0 && total + more > policy->usable_bytes))
			continue;
		vm->next = vm->old;
		total += more;
	}
}

void policy_move(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count)
{
	struct policy_solve solve;

	shrink(policy, vms, count);
	grow(policy, vms, count);
	skip_small_changes(policy, vms, count);
	solve = solve_of(policy, vms, count, as_next);
	policy->planned_bytes = policy_solve_total(&solve, 0);
}
