/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One decision; see memvirt/policy.h, policy_internal.h and docs/policy.md.
 *
 * A decision: take stock of each VM, let the balloons give what the guests can spare, find the
 * limits that divide the budget by the rule (targets), and move towards them.
 */
#include <memvirt/policy.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "policy_internal.h"

/* Of the budget; resident memory lags its limit a little, and stores grow meanwhile. */
#define HEADROOM 0.05

/* Limits come back once everything takes more than this part of what is usable. */
#define AMPLE_ENTER 0.95

/* While somebody is short of memory, or little is free, it is decided so often. */
#define HURRY_NS 50000000ULL

#define IDLE_TAX_MAX		0.99
#define PRESSURE_TARGET_DEFAULT 1000
#define PRESSURE_LIMIT_DEFAULT	50000

/* What is assumed of content that was never stored, and of a guest that was never seen. */
#define RATIO_FIRST	   0.5
#define GROWTH_FIRST_PER_S (96 * POLICY_MIB)

/* From which part of the budget on that is free a state begins, and how much more leads back. */
static const double state_free[] = {
	[MV_POLICY_HIGH] = 0.06,
	[MV_POLICY_SOFT] = 0.04,
	[MV_POLICY_HARD] = 0.02,
	[MV_POLICY_LOW] = -INFINITY,
};
#define STATE_BACK 0.01

static uint32_t or_default(uint32_t ppm, uint32_t otherwise)
{
	return ppm ? ppm : otherwise;
}

void mv_policy_configure(struct mv_policy *policy, const struct mv_policy_config *config)
{
	struct mv_policy_config *c = &policy->config;

	*c = *config;
	if (c->floor_bytes < MV_POLICY_FLOOR_MIN)
		c->floor_bytes = MV_POLICY_FLOOR_MIN;
	if (c->interval_ns == 0)
		c->interval_ns = 1;
	c->idle_tax = fmin(fmax(c->idle_tax, 0), IDLE_TAX_MAX);
	c->pressure_target_ppm = or_default(c->pressure_target_ppm, PRESSURE_TARGET_DEFAULT);
	c->pressure_limit_ppm = or_default(c->pressure_limit_ppm, PRESSURE_LIMIT_DEFAULT);
}

void mv_policy_init(struct mv_policy *policy, const struct mv_policy_config *config)
{
	*policy = (struct mv_policy){ 0 };
	mv_policy_configure(policy, config);
}

void mv_policy_fini(struct mv_policy *policy)
{
	free(policy->paths);
	free(policy->steps);
	policy->paths = NULL;
	policy->steps = NULL;
	policy->room = 0;
	policy->steps_room = 0;
}

void mv_policy_vm_init(struct mv_policy_vm *vm)
{
	*vm = (struct mv_policy_vm){
		.shares = MV_POLICY_SHARES_DEFAULT,
		.max_bytes = MV_POLICY_UNLIMITED,
		.outside_bytes = MV_POLICY_UNKNOWN,
		.ratio = RATIO_FIRST,
		.growth_per_s = GROWTH_FIRST_PER_S,
		.reserved_bytes = MV_POLICY_UNKNOWN,
		.last_actual = MV_POLICY_UNKNOWN,
		.target_bytes = MV_POLICY_UNKNOWN,
		.balloon_bytes = MV_POLICY_UNKNOWN,
	};
}

/* --- the state ---------------------------------------------------------------------------- */

static void update_state(struct mv_policy *policy, const struct mv_policy_vm *vms,
			 unsigned int count)
{
	enum mv_policy_state state = MV_POLICY_HIGH;
	double part;

	policy->used_bytes = 0;
	for (unsigned int i = 0; i < count; i++)
		policy->used_bytes += policy_used(&vms[i]);
	part = 1 - policy->used_bytes / (double)policy->config.budget_bytes;
	while (part < state_free[state] + (state < policy->state ? STATE_BACK : 0))
		state++;
	policy->state = state;
}

/* --- limits ------------------------------------------------------------------------------- */

static enum mv_policy_why why_less(const struct mv_policy *policy, const struct mv_policy_vm *vm)
{
	if (policy->over || policy->state >= MV_POLICY_HARD || !policy_has_limit(vm))
		return MV_POLICY_OVER;
	return policy->config.rule == MV_POLICY_PRESSURE ? MV_POLICY_COLD : MV_POLICY_SHRINK;
}

static enum mv_policy_why why_limit(const struct mv_policy *policy, const struct mv_policy_vm *vm)
{
	if (vm->next == vm->old && policy_has_limit(vm))
		return MV_POLICY_SAME;
	if (policy->too_small)
		return MV_POLICY_FLOOR;
	if (vm->outside_bytes != MV_POLICY_UNKNOWN)
		return MV_POLICY_OUTSIDE;
	if (vm->next > vm->old)
		return vm->pressed ? MV_POLICY_PRESSED : MV_POLICY_GROW;
	return why_less(policy, vm);
}

static void write_limit(const struct mv_policy *policy, struct mv_policy_vm *vm)
{
	enum mv_policy_why why = why_limit(policy, vm);

	if (vm->by_balloon) {
		if (why != MV_POLICY_SAME)
			policy_balloon_to_next(vm, why);
		return;
	}
	vm->limit_why = why;
	if (why != MV_POLICY_SAME)
		vm->limit_bytes = (uint64_t)vm->next;
}

/* Set a limit that evicts nothing, and look. */
static bool learn(struct mv_policy_vm *vm)
{
	if (!policy_needs_learning(&vm->numbers))
		return false;
	vm->limit_bytes = vm->numbers.configured_bytes;
	vm->limit_why = MV_POLICY_LEARN;
	return true;
}

static void divide(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count)
{
	policy_fit(policy, vms, count);
	for (unsigned int i = 0; i < count; i++)
		if (!learn(&vms[i]) && vms[i].adjustable)
			policy_update_demand(policy, &vms[i]);
	policy_set_targets(policy, vms, count);
	policy_move(policy, vms, count);
	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			write_limit(policy, &vms[i]);
}

/* --- where everything fits ---------------------------------------------------------------- */

static bool has_maximum(const struct mv_policy_vm *vm)
{
	return vm->max_bytes < vm->numbers.configured_bytes ||
	       vm->outside_bytes != MV_POLICY_UNKNOWN;
}

/* Whether all VMs fit whole, with some distance to where that was decided last. */
static bool fits(const struct mv_policy *policy, const struct mv_policy_vm *vms, unsigned int count)
{
	double total = 0;

	if (policy->config.rule == MV_POLICY_PRESSURE)
		return false;
	for (unsigned int i = 0; i < count; i++) {
		/* Who is to have a limit all the same needs the whole of the rule. */
		if (vms[i].numbers.configured_bytes == MV_POLICY_UNKNOWN || has_maximum(&vms[i]))
			return false;
		total += (double)vms[i].numbers.configured_bytes + vms[i].overhead;
	}
	return total <= policy->usable_bytes * (policy->ample ? 1 : AMPLE_ENTER);
}

/* VMs that start one after the other fit at first: wait before anything follows from it. */
static void see_whether_ample(struct mv_policy *policy, const struct mv_policy_vm *vms,
			      unsigned int count, uint64_t elapsed_ns)
{
	bool fit = fits(policy, vms, count);

	policy->ample = fit && (policy->ample || policy->fits_ns >= policy->config.patience_ns);
	policy->waiting = fit && !policy->ample;
	policy->fits_ns = fit ? policy->fits_ns + elapsed_ns : 0;
}

static void lift_limits(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		struct mv_policy_vm *vm = &vms[i];

		policy->planned_bytes += vm->potential + vm->overhead;
		if (!vm->numbers.pager_fresh || vm->numbers.held ||
		    vm->numbers.limit_bytes == MV_POLICY_UNLIMITED)
			continue;
		vm->limit_bytes = MV_POLICY_UNLIMITED;
		vm->limit_why = MV_POLICY_AMPLE;
	}
}

/* --- a decision --------------------------------------------------------------------------- */

/* For paths, and by curves for steps too. */
static int make_room(struct mv_policy *policy, unsigned int count)
{
	size_t steps_of_each = (MV_POLICY_CURVE_POINTS + 1) * sizeof(*policy->steps);
	struct policy_path *paths;
	struct policy_step *steps;

	if (count > policy->room) {
		paths = realloc(policy->paths, count * sizeof(*paths));
		if (!paths)
			return -ENOMEM;
		policy->paths = paths;
		policy->room = count;
	}
	if (policy->config.rule == MV_POLICY_CURVE && count > policy->steps_room) {
		steps = realloc(policy->steps, count * steps_of_each);
		if (!steps)
			return -ENOMEM;
		policy->steps = steps;
		policy->steps_room = count;
	}
	return 0;
}

static void take_stock(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count,
		       uint64_t elapsed_ns)
{
	policy->elapsed_s = (double)elapsed_ns / 1e9;
	policy->part = fmin((double)elapsed_ns / (double)policy->config.interval_ns, 1);
	policy->usable_bytes = (double)policy->config.budget_bytes * (1 - HEADROOM);
	policy->planned_bytes = 0;
	policy->too_small = false;
	policy->over = false;
	policy->pressed = false;
	for (unsigned int i = 0; i < count; i++) {
		policy_take_stock(policy, &vms[i]);
		policy->pressed = policy->pressed || vms[i].pressed;
	}
	update_state(policy, vms, count);
}

int mv_policy_decide(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count,
		     uint64_t elapsed_ns)
{
	int err = make_room(policy, count);

	if (err)
		return err;
	take_stock(policy, vms, count, elapsed_ns);
	see_whether_ample(policy, vms, count, elapsed_ns);
	if (policy->waiting)
		return 0;
	for (unsigned int i = 0; i < count; i++)
		policy_decide_balloon(policy, &vms[i]);
	if (policy->ample)
		lift_limits(policy, vms, count);
	else
		divide(policy, vms, count);
	return 0;
}

uint64_t mv_policy_next_ns(const struct mv_policy *policy)
{
	bool hurry = policy->pressed || policy->state >= MV_POLICY_HARD;

	return hurry && policy->config.interval_ns > HURRY_NS ? HURRY_NS
							      : policy->config.interval_ns;
}

/* --- names -------------------------------------------------------------------------------- */

const char *mv_policy_why_text(enum mv_policy_why why)
{
	static const char *const texts[] = {
		[MV_POLICY_SAME] = "nothing to change",
		[MV_POLICY_STALE] = "its numbers are missing or old: left as it is",
		[MV_POLICY_HELD] = "it cannot evict at the moment: left as it is",
		[MV_POLICY_AMPLE] = "the budget holds every VM whole",
		[MV_POLICY_LEARN] = "to find out what is resident",
		[MV_POLICY_GROW] = "its demand is worth more than it has",
		[MV_POLICY_SHRINK] = "to make room for others",
		[MV_POLICY_COLD] = "it does not miss what it has not",
		[MV_POLICY_PRESSED] = "it loses time for want of memory",
		[MV_POLICY_OVER] = "the budget would be exceeded otherwise",
		[MV_POLICY_FLOOR] = "the budget is too small for what the VMs hold",
		[MV_POLICY_OUTSIDE] = "set from outside",
		[MV_POLICY_GUEST_SPARES] = "the guest can spare it",
		[MV_POLICY_GUEST_NEEDS] = "the guest is short of memory",
	};

	return texts[why];
}

const char *mv_policy_rule_name(enum mv_policy_rule rule)
{
	static const char *const names[] = {
		[MV_POLICY_DEMAND] = "demand",
		[MV_POLICY_SHARES] = "shares",
		[MV_POLICY_PRESSURE] = "pressure",
		[MV_POLICY_CURVE] = "curve",
	};

	return names[rule];
}

int mv_policy_rule_parse(const char *name, enum mv_policy_rule *rule)
{
	for (enum mv_policy_rule known = 0; known < MV_POLICY_RULES; known++) {
		if (strcmp(name, mv_policy_rule_name(known)))
			continue;
		*rule = known;
		return 0;
	}
	return -EINVAL;
}

const char *mv_policy_state_name(enum mv_policy_state state)
{
	static const char *const names[] = {
		[MV_POLICY_HIGH] = "high",
		[MV_POLICY_SOFT] = "soft",
		[MV_POLICY_HARD] = "hard",
		[MV_POLICY_LOW] = "low",
	};

	return names[state];
}
