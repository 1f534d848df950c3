/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The greatest number whose limits fit a budget; see policy_internal.h.
 */
#include <math.h>

#include "policy_internal.h"

/* Halves the interval down to less than a byte of any budget. */
#define BISECTIONS 48

struct policy_path policy_line(const struct mv_policy_vm *vm, double c, double s, double low,
			       double high)
{
	return (struct policy_path){ .weight = 1 - vm->ratio,
				     .c1 = c,
				     .s1 = s,
				     .c2 = c,
				     .s2 = s,
				     .low = low,
				     .high = fmax(low, high) };
}

struct policy_path policy_point(const struct mv_policy_vm *vm, double limit)
{
	return policy_line(vm, limit, 0, limit, limit);
}

double policy_path_limit(const struct policy_path *path, double at)
{
	double limit = path->c1 + path->s1 * at;
	double other = path->c2 + path->s2 * at;

	/* Not fmin() and fmax(): these are the processor's own instructions, and numbers are. */
	limit = limit < other ? limit : other;
	limit = limit > path->low ? limit : path->low;
	return limit < path->high ? limit : path->high;
}

struct policy_solve policy_solve_begin(const struct mv_policy *policy,
				       const struct mv_policy_vm *vms, unsigned int count)
{
	struct policy_solve solve = { .paths = policy->paths };

	for (unsigned int i = 0; i < count; i++)
		solve.fixed += vms[i].adjustable ? vms[i].potential * vms[i].ratio + vms[i].overhead
						 : vms[i].cost_fixed;
	return solve;
}

void policy_solve_add(struct policy_solve *solve, struct policy_path path)
{
	solve->paths[solve->count++] = path;
}

double policy_solve_total(const struct policy_solve *solve, double at)
{
	double total = solve->fixed;

	for (unsigned int i = 0; i < solve->count; i++)
		total += solve->paths[i].weight * policy_path_limit(&solve->paths[i], at);
	return total;
}

double policy_solve_highest(const struct policy_solve *solve, double top, double budget)
{
	double low = 0;

	if (policy_solve_total(solve, top) <= budget)
		return top;
	for (int i = 0; i < BISECTIONS; i++) {
		double middle = (low + top) / 2;

		if (policy_solve_total(solve, middle) <= budget)
			low = middle;
		else
			top = middle;
	}
	return low;
}
