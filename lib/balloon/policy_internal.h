/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The parts of a decision, in the order in which they come:
 *
 *   policy_stock.c   what each VM has, may come to have, and is in demand of
 *   policy_guest.c   what the guests can spare by their balloons
 *   policy_rules.c   what each VM should have; policy_curve.c, for the rule that has prices
 *   policy_move.c    what it gets now, on its way there
 *
 * policy.c puts them together. Each divides the budget by the same means: a limit for each VM
 * that rises with one number common to all, and the greatest such number whose sum of costs
 * fits (policy_solve.c).
 *
 * Limits are worked out in double: exact to the byte up to 8 PiB.
 */
#ifndef BALLOON_POLICY_INTERNAL_H
#define BALLOON_POLICY_INTERNAL_H

#include <memvirt/policy.h>

#define POLICY_MIB  (1024.0 * 1024)
#define POLICY_PAGE 4096.0

/*
 * What limits aim at, of what is usable. They are left alone in between, so that each small
 * change of the numbers does not push them down and let them up again.
 */
#define POLICY_AIM 0.985

/* --- policy_solve.c ----------------------------------------------------------------------- */

/**
 * struct policy_path - one VM's limit as a number common to all, @at, rises
 * @weight: what a byte of limit costs
 * @c1, @s1, @c2, @s2: the lower of the two lines c + s × @at, neither of which falls
 * @low, @high: it stays between
 */
struct policy_path {
	double weight;
	double c1, s1;
	double c2, s2;
	double low, high;
};

/**
 * struct policy_solve - a budget to divide
 * @fixed: what is taken whatever the limits
 */
struct policy_solve {
	struct policy_path *paths;
	unsigned int count;
	double fixed;
};

/* One line. */
struct policy_path policy_line(const struct mv_policy_vm *vm, double c, double s, double low,
			       double high);

/* A limit that stays where it is. */
struct policy_path policy_point(const struct mv_policy_vm *vm, double limit);

double policy_path_limit(const struct policy_path *path, double at);

/* Begin anew with what all VMs cost whatever their limits; then one path for each adjustable. */
struct policy_solve policy_solve_begin(const struct mv_policy *policy,
				       const struct mv_policy_vm *vms, unsigned int count);
void policy_solve_add(struct policy_solve *solve, struct policy_path path);

double policy_solve_total(const struct policy_solve *solve, double at);

/* The highest @at from 0 to @top whose limits take @budget; 0 where none does. */
double policy_solve_highest(const struct policy_solve *solve, double top, double budget);

/* --- policy_stock.c ----------------------------------------------------------------------- */

void policy_take_stock(const struct mv_policy *policy, struct mv_policy_vm *vm);

/* Make room for the least that everybody is to have: expect less growth, then less than minima. */
void policy_fit(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count);

/* What it would use if it had it. */
void policy_update_demand(const struct mv_policy *policy, struct mv_policy_vm *vm);

/* What is in use now, of the budget, by a VM. */
double policy_used(const struct mv_policy_vm *vm);

/* A VM without a limit is to be given one of its own size, to look. */
bool policy_needs_learning(const struct mv_policy_numbers *n);

/* Whether its limit, by whatever means, is in force already. */
bool policy_has_limit(const struct mv_policy_vm *vm);

/* An unknown number counts as none. */
double policy_or_zero(uint64_t number);

/* --- policy_guest.c ----------------------------------------------------------------------- */

/*
 * Set @vm's balloon_bytes and balloon_why; nothing where the guest's numbers are missing, old,
 * or contradict each other.
 */
void policy_decide_balloon(const struct mv_policy *policy, struct mv_policy_vm *vm);

/* What the guest says it uses, bytes; 0 where that is unknown. */
double policy_guest_uses(const struct mv_policy_vm *vm);

/* The same with a reserve, in which it can go on; 0 where that is unknown. */
double policy_guest_wants(const struct mv_policy_vm *vm);

/* Whether the guest itself is short of memory, whatever its limit on the host does to it. */
bool policy_guest_is_pressed(const struct mv_policy *policy, const struct mv_policy_numbers *n);

/* Learn what can be from the guest's numbers. */
void policy_hear_guest(struct mv_policy_vm *vm);

/* By balloon, from what it has to vm->next. */
void policy_balloon_to_next(struct mv_policy_vm *vm, enum mv_policy_why why);

/* --- policy_curve.c ----------------------------------------------------------------------- */

/**
 * struct policy_step - more memory for a VM, all or nothing
 * @price: misses a second that each byte of it saves, times shares
 * @cost:  of the budget
 */
struct policy_step {
	double price;
	double bytes;
	double cost;
};

/* Whether it counts: who has been told from outside has no say. */
bool policy_has_curve(const struct mv_policy_vm *vm);

/* The price of a byte at which @budget is spent; what has no curve takes its target of it. */
double policy_curve_price(const struct mv_policy *policy, const struct mv_policy_vm *vms,
			  unsigned int count, double budget);

/* The limit with the steps @above a price, and with those of that price too. */
void policy_curve_range(const struct mv_policy_vm *vm, double price, double *above, double *with);

/* --- policy_rules.c, policy_move.c -------------------------------------------------------- */

/* Set each adjustable VM's target. */
void policy_set_targets(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count);

/* Set what each adjustable VM gets next. */
void policy_move(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count);

#endif /* BALLOON_POLICY_INTERNAL_H */
