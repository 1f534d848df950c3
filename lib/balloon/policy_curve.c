/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where the next byte saves most misses.
 *
 * A VM's curve is seen from below: its lower convex hull, whose edges are steps that save fewer
 * and fewer misses a byte. So a plateau before a cliff is one step: half the way over it is worth
 * nothing. Of all VMs' steps the best are taken until the budget is spent; the price of a byte is
 * what the last of them saves. To find it they need no sorting, only halving (quickselect).
 */
#include <math.h>

#include "policy_internal.h"

#define STEPS_MAX (MV_POLICY_CURVE_POINTS + 1)

/* A price that everybody pays: it is for memory without which nobody knows how it would do. */
#define PRICE_OF_THE_LEAST 1e30

bool policy_has_curve(const struct mv_policy_vm *vm)
{
	return vm->numbers.curve && vm->numbers.curve->count >= 2 &&
	       vm->outside_bytes == MV_POLICY_UNKNOWN;
}

/** struct hull - a curve's lower hull between the least and the greatest limit */
struct hull {
	unsigned int count;
	double bytes[STEPS_MAX];
	double misses[STEPS_MAX];
};

/* Misses saved by a byte, from @from to @to. */
static double slope(const struct hull *hull, unsigned int from, double bytes, double misses)
{
	return (hull->misses[from] - misses) / (bytes - hull->bytes[from]);
}

/* Whether the last point lies above the line from the one before it to the next. */
static bool is_above(const struct hull *hull, double bytes, double misses)
{
	unsigned int last = hull->count - 1, before = last - 1;

	return (hull->misses[before] - hull->misses[last]) * (bytes - hull->bytes[last]) <=
	       (hull->misses[last] - misses) * (hull->bytes[last] - hull->bytes[before]);
}

static void hull_add(struct hull *hull, double bytes, double misses)
{
	if (hull->count && bytes <= hull->bytes[hull->count - 1]) {
		hull->misses[hull->count - 1] = fmin(hull->misses[hull->count - 1], misses);
		return;
	}
	while (hull->count >= 2 && is_above(hull, bytes, misses))
		hull->count--;
	hull->bytes[hull->count] = bytes;
	hull->misses[hull->count++] = misses;
}

/* On the line between two points of the curve. */
static double misses_at(const struct mv_policy_curve *curve, unsigned int before, double bytes)
{
	double part =
		(bytes - curve->bytes[before]) / (curve->bytes[before + 1] - curve->bytes[before]);

	return curve->misses_per_s[before] +
	       part * (curve->misses_per_s[before + 1] - curve->misses_per_s[before]);
}

/* A point of the curve, and what lies between it and the next of the range that counts. */
static void hull_take(struct hull *hull, const struct mv_policy_vm *vm, unsigned int i)
{
	const struct mv_policy_curve *curve = vm->numbers.curve;
	double bytes = curve->bytes[i];

	if (bytes >= vm->low && bytes <= vm->high)
		hull_add(hull, bytes, curve->misses_per_s[i]);
	if (i + 1 == curve->count)
		return;
	if (bytes < vm->low && curve->bytes[i + 1] > vm->low)
		hull_add(hull, vm->low, misses_at(curve, i, vm->low));
	if (bytes < vm->high && curve->bytes[i + 1] > vm->high)
		hull_add(hull, vm->high, misses_at(curve, i, vm->high));
}

/* In order of their bytes; the first from vm->low. */
static unsigned int steps_of(const struct mv_policy_vm *vm, struct policy_step *steps)
{
	double shares = vm->shares / (double)MV_POLICY_SHARES_DEFAULT;
	struct hull hull;
	unsigned int count = 0;

	hull.count = 0; /* the rest need not be cleared */
	for (unsigned int i = 0; i < vm->numbers.curve->count; i++)
		hull_take(&hull, vm, i);
	/* Below where the curve begins nothing is known. */
	if (hull.count && hull.bytes[0] > vm->low)
		steps[count++] = (struct policy_step){ .price = PRICE_OF_THE_LEAST,
						       .bytes = hull.bytes[0] - vm->low };
	for (unsigned int i = 0; i + 1 < hull.count; i++)
		steps[count++] = (struct policy_step){
			.price = fmax(slope(&hull, i, hull.bytes[i + 1], hull.misses[i + 1]), 0) *
				 shares,
			.bytes = hull.bytes[i + 1] - hull.bytes[i],
		};
	for (unsigned int i = 0; i < count; i++)
		steps[i].cost = steps[i].bytes * (1 - vm->ratio);
	return count;
}

void policy_curve_range(const struct mv_policy_vm *vm, double price, double *above, double *with)
{
	struct policy_step steps[STEPS_MAX];
	unsigned int count = steps_of(vm, steps);

	*above = vm->low;
	*with = vm->low;
	for (unsigned int i = 0; i < count; i++) {
		if (steps[i].price > price)
			*above += steps[i].bytes;
		if (steps[i].price >= price)
			*with += steps[i].bytes;
	}
}

/* --- the price ---------------------------------------------------------------------------- */

static void swap(struct policy_step *a, struct policy_step *b)
{
	struct policy_step saved = *a;

	*a = *b;
	*b = saved;
}

static double middle_price(const struct policy_step *steps, unsigned long count)
{
	double a = steps[0].price, b = steps[count / 2].price, c = steps[count - 1].price;

	return fmax(fmin(a, b), fmin(fmax(a, b), c));
}

/** struct parted - steps by a price: dearer ones first, those of the price next */
struct parted {
	unsigned long dearer, same;
	double dearer_cost, same_cost;
};

static struct parted part(struct policy_step *steps, unsigned long count, double price)
{
	struct parted parted = { 0 };
	unsigned long end = count;

	for (unsigned long i = 0; i < end;) {
		if (steps[i].price > price) {
			parted.dearer_cost += steps[i].cost;
			swap(&steps[i++], &steps[parted.dearer++]);
		} else if (steps[i].price < price) {
			swap(&steps[i], &steps[--end]);
		} else {
			parted.same_cost += steps[i++].cost;
		}
	}
	parted.same = end - parted.dearer;
	return parted;
}

/* Of the step at which @budget is spent; -1 where it suffices for all, no price for none. */
static double price_of(struct policy_step *steps, unsigned long count, double budget)
{
	if (budget < 0)
		return INFINITY;
	while (count) {
		double price = middle_price(steps, count);
		struct parted parted = part(steps, count, price);

		if (parted.dearer_cost > budget) {
			count = parted.dearer;
			continue;
		}
		budget -= parted.dearer_cost + parted.same_cost;
		if (budget < 0)
			return price;
		steps += parted.dearer + parted.same;
		count -= parted.dearer + parted.same;
	}
	return -1;
}

double policy_curve_price(const struct mv_policy *policy, const struct mv_policy_vm *vms,
			  unsigned int count, double budget)
{
	unsigned long steps = 0;

	for (unsigned int i = 0; i < count; i++) {
		bool by_curve = vms[i].adjustable && policy_has_curve(&vms[i]);

		budget -= mv_policy_cost(&vms[i], by_curve ? vms[i].low : vms[i].target);
		if (by_curve)
			steps += steps_of(&vms[i], policy->steps + steps);
	}
	return price_of(policy->steps, steps, budget);
}
