/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What must hold of the policy in every state: a million of them by chance, under each rule.
 */
#include <math.h>

#include "support/policy_vm.h"
#include "support/testing.h"

#define VMS_MAX 8
#define STATES	1000000

/* As the policy's: what limits aim at, of what is usable. */
#define AIM 0.985

/* Rounding: limits are whole bytes. */
#define SLACK 4096.0

static uint64_t known_or_not(struct chance *chance, uint64_t limit)
{
	return chance_one_in(chance, 12) ? MV_POLICY_UNKNOWN : chance_below(chance, limit + 1);
}

/* Calm, around where the rule of pressure stands, or short of memory. */
static uint64_t random_pressure(struct chance *chance)
{
	static const uint64_t below[] = { 1, 3000, 100000, 1000000 };

	return known_or_not(chance, below[chance_below(chance, COUNT_OF(below))]);
}

static void random_wants(struct chance *chance, struct mv_policy_vm *vm, uint64_t configured)
{
	if (chance_one_in(chance, 3))
		vm->shares = 1 + (uint32_t)chance_below(chance, 4000);
	if (chance_one_in(chance, 3))
		vm->min_bytes = chance_below(chance, configured + 1);
	if (chance_one_in(chance, 4))
		vm->max_bytes = MIB + chance_below(chance, configured + 1);
	if (chance_one_in(chance, 5))
		vm->floor_bytes = chance_below(chance, configured / 4 + 1);
	if (chance_one_in(chance, 8))
		vm->outside_bytes = chance_below(chance, configured + configured / 4 + 1);
}

static struct mv_policy_curve random_curve(struct chance *chance, uint64_t configured)
{
	struct mv_policy_curve curve = { .count = 2 + (unsigned int)chance_below(
							      chance, MV_POLICY_CURVE_POINTS - 1) };
	double misses = (double)chance_below(chance, 200000);
	double bytes = 0;

	for (unsigned int i = 0; i < curve.count; i++) {
		bytes += 4096.0 + (double)chance_below(chance, configured / 8 + 1);
		curve.bytes[i] = bytes;
		curve.misses_per_s[i] = misses;
		if (!chance_one_in(chance, 3)) /* else a plateau */
			misses *= (double)chance_below(chance, 100) / 100;
	}
	return curve;
}

static void random_guest(struct chance *chance, struct mv_policy_numbers *n, uint64_t configured)
{
	n->guest_fresh = !chance_one_in(chance, 3);
	n->reporting = chance_one_in(chance, 3);
	n->guest_pressure_ppm = random_pressure(chance);
	n->balloon_actual_bytes = known_or_not(chance, configured + configured / 8);
	n->guest_total_bytes = known_or_not(chance, configured);
	n->guest_available_bytes = known_or_not(chance, configured);
	n->guest_free_bytes = known_or_not(chance, configured);
	n->guest_disk_cache_bytes = known_or_not(chance, configured);
}

static void random_pager(struct chance *chance, struct mv_policy_numbers *n, uint64_t configured)
{
	n->pager_fresh = !chance_one_in(chance, 6);
	n->held = chance_one_in(chance, 10);
	n->configured_bytes = chance_one_in(chance, 40) ? MV_POLICY_UNKNOWN : configured;
	n->managed_bytes = chance_one_in(chance, 10)  ? 0
			   : chance_one_in(chance, 5) ? MV_POLICY_UNKNOWN
						      : configured;
	n->resident_bytes = known_or_not(chance, configured);
	n->limit_bytes = n->managed_bytes == MV_POLICY_UNKNOWN || chance_one_in(chance, 5)
				 ? MV_POLICY_UNLIMITED
				 : MIB + chance_below(chance, 2 * configured + 1);
	n->stored_pages = known_or_not(chance, configured / 4096);
	n->store_memory_bytes = known_or_not(chance, configured);
	n->overhead_bytes = known_or_not(chance, configured / 100);
	n->restores_per_s = known_or_not(chance, 100000);
	n->active_bytes = known_or_not(chance, configured);
	n->host_pressure_ppm = random_pressure(chance);
}

static struct mv_policy_vm random_vm(struct chance *chance, struct mv_policy_curve *curve)
{
	uint64_t configured = chance_one_in(chance, 20) ? 4096 * chance_below(chance, 1000)
							: 64 * MIB + chance_below(chance, 8 * GIB);
	struct mv_policy_vm vm;

	mv_policy_vm_init(&vm);
	vm.numbers = policy_nothing_known();
	random_pager(chance, &vm.numbers, configured);
	random_guest(chance, &vm.numbers, configured);
	random_wants(chance, &vm, configured);
	*curve = random_curve(chance, configured);
	if (chance_one_in(chance, 2))
		vm.numbers.curve = curve;
	if (chance_one_in(chance, 2))
		vm.demand = (double)chance_below(chance, configured + 1);
	return vm;
}

static struct mv_policy random_policy(struct chance *chance)
{
	struct mv_policy_config config = {
		.budget_bytes = MIB + chance_below(chance, 16 * GIB),
		.floor_bytes = chance_below(chance, 512 * MIB),
		.interval_ns = SECOND,
		.patience_ns = chance_below(chance, 2) * SECOND,
		.rule = chance_below(chance, MV_POLICY_RULES),
		.idle_tax = (double)chance_below(chance, 101) / 100,
	};
	struct mv_policy policy;

	mv_policy_init(&policy, &config);
	policy.ample = chance_one_in(chance, 2);
	policy.state = chance_below(chance, MV_POLICY_LOW + 1);
	return policy;
}

/* --- what holds of one VM ----------------------------------------------------------------- */

static void check_balloon(const struct mv_policy *policy, const struct mv_policy_vm *vm)
{
	const struct mv_policy_numbers *n = &vm->numbers;
	double inflates, most;

	if (vm->balloon_bytes == MV_POLICY_UNKNOWN)
		return;
	assert_true(n->guest_fresh);
	assert_true(n->balloon_actual_bytes != MV_POLICY_UNKNOWN);
	assert_true(vm->balloon_bytes <= n->configured_bytes);
	assert_true((double)vm->balloon_bytes >= fmin(vm->floor, (double)n->configured_bytes));
	/* Not faster than it may, and not at all from who is short of memory. */
	inflates = (double)n->balloon_actual_bytes - (double)vm->balloon_bytes;
	most = fmax((double)n->configured_bytes / 8, 32.0 * MIB) * policy->elapsed_s;
	if (vm->by_balloon && !policy->ample) {
		/* As a limit; but what the guest uses it keeps. */
		assert_true((double)vm->balloon_bytes >= fmin(vm->low, vm->old) - 1);
		return;
	}
	assert_true(inflates <= fmax(most * (policy->state >= MV_POLICY_SOFT ? 2 : 1), MIB) + 1);
	if (n->guest_pressure_ppm != MV_POLICY_UNKNOWN &&
	    n->guest_pressure_ppm >= policy->config.pressure_limit_ppm)
		assert_true(inflates <= 0);
}

/* What it may have by whatever means. */
static double given(const struct mv_policy_vm *vm)
{
	if (!vm->by_balloon)
		return (double)vm->limit_bytes;
	return vm->balloon_bytes == MV_POLICY_UNKNOWN ? vm->old : (double)vm->balloon_bytes;
}

/* Old numbers, or none: the limit stays. Floors hold, and a maximum is not grown above. */
static void check_limit(const struct mv_policy_vm *vm)
{
	const struct mv_policy_numbers *n = &vm->numbers;

	if (vm->limit_bytes == n->limit_bytes)
		return;
	assert_true(n->pager_fresh);
	assert_false(n->held);
	if (vm->limit_why == MV_POLICY_AMPLE || vm->limit_why == MV_POLICY_LEARN)
		return;
	assert_true(n->resident_bytes != MV_POLICY_UNKNOWN);
	assert_true(vm->limit_bytes >= MV_POLICY_FLOOR_MIN);
	assert_true((double)vm->limit_bytes >= vm->floor - 1);
	if ((double)vm->limit_bytes > vm->old)
		assert_true((double)vm->limit_bytes <= fmax((double)vm->max_bytes, vm->floor));
}

/* Where nothing forces it a limit falls by a tenth a second, below what is resident. */
static void check_gentle(const struct mv_policy *policy, const struct mv_policy_vm *vm)
{
	double from = fmin(vm->old, vm->resident);
	double step = fmax(vm->old * 0.1, 16.0 * MIB) * policy->elapsed_s;

	if (!vm->adjustable || policy->over || policy->state >= MV_POLICY_HARD || policy->ample ||
	    policy->waiting)
		return;
	assert_true(fmin(given(vm), vm->old) >= fmin(from - step, vm->old) - 1);
}

/* --- what holds of all of them ------------------------------------------------------------ */

static double planned(const struct mv_policy_vm *vms, unsigned int count)
{
	double total = 0;

	for (unsigned int i = 0; i < count; i++)
		total += mv_policy_cost(&vms[i], given(&vms[i]));
	return total;
}

/* Who shrinks still has what is resident. */
static double planned_now(const struct mv_policy_vm *vms, unsigned int count)
{
	double total = 0;

	for (unsigned int i = 0; i < count; i++)
		total += mv_policy_cost(&vms[i],
					fmax(given(&vms[i]), fmin(vms[i].resident, vms[i].old)));
	return total;
}

/* Within the budget, unless the floors alone are above it; then everyone is at his floor. */
static void check_budget(const struct mv_policy *policy, const struct mv_policy_vm *vms,
			 unsigned int count)
{
	if (!policy->too_small) {
		assert_true(planned(vms, count) <= policy->usable_bytes + SLACK * count);
		return;
	}
	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			assert_true(fmin(given(&vms[i]), vms[i].potential) <=
				    fmax(vms[i].floor, vms[i].old) + 1);
}

static bool grows(const struct mv_policy_vm *vm)
{
	return vm->adjustable &&
	       (vm->by_balloon || (vm->limit_bytes != vm->numbers.limit_bytes &&
				   vm->numbers.limit_bytes != MV_POLICY_UNLIMITED)) &&
	       given(vm) > fmax(vm->old, vm->floor) + 1;
}

/* Nobody grows above his floor on what others have not given back yet, nor where all is gone. */
static void check_growth(const struct mv_policy *policy, const struct mv_policy_vm *vms,
			 unsigned int count)
{
	bool grown = false;

	if (policy->too_small)
		return;
	for (unsigned int i = 0; i < count; i++)
		grown = grown || grows(&vms[i]);
	if (!grown)
		return;
	assert_true(policy->state < MV_POLICY_LOW);
	assert_true(planned_now(vms, count) <= policy->usable_bytes + SLACK * count);
}

static double targeted(const struct mv_policy_vm *vms, unsigned int count)
{
	double total = 0;

	for (unsigned int i = 0; i < count; i++)
		total += mv_policy_cost(&vms[i], vms[i].target);
	return total;
}

/*
 * Who is short of memory grows with this very decision, unless the rule has given all away, or what
 * is left is too little to be worth it.
 */
static void check_relief(const struct mv_policy *policy, const struct mv_policy_vm *vms,
			 unsigned int count)
{
	double full = policy->usable_bytes * AIM - (double)MIB * (count + 1);

	/* Steps below a twenty-fifth of a limit, or 4 MiB, are not made. */
	for (unsigned int i = 0; i < count; i++)
		full -= vms[i].adjustable ? fmax(vms[i].old * 0.05, 5.0 * MIB) : 0;
	if (policy->too_small || policy->state == MV_POLICY_LOW || planned_now(vms, count) > full ||
	    targeted(vms, count) > full)
		return;
	for (unsigned int i = 0; i < count; i++) {
		const struct mv_policy_vm *vm = &vms[i];

		if (vm->pressed && vm->adjustable && vm->outside_bytes == MV_POLICY_UNKNOWN &&
		    (vm->by_balloon || vm->numbers.limit_bytes != MV_POLICY_UNLIMITED) &&
		    vm->old * 1.05 + 5.0 * MIB < vm->high && vm->old >= 32.0 * MIB)
			assert_true(grows(vm) || vm->old <= vm->floor + MIB);
	}
}

/* The least that a VM is to have; what its guest uses too, where only its balloon gives. */
static double minimum(const struct mv_policy_vm *vm)
{
	double wanted = fmin(fmax((double)vm->min_bytes, vm->floor), vm->high);

	return vm->by_balloon ? fmax(wanted, vm->low) : wanted;
}

/* Nobody is shrunk below his minimum where all of them fit. */
static void check_minima(const struct mv_policy *policy, const struct mv_policy_vm *vms,
			 unsigned int count)
{
	double total = 0;

	for (unsigned int i = 0; i < count; i++) {
		/* Lowered, since they did not. */
		if (vms[i].by_balloon && vms[i].low < minimum(&vms[i]))
			return;
		total += mv_policy_cost(&vms[i], minimum(&vms[i]));
	}
	if (total > policy->usable_bytes * AIM)
		return;
	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable && given(&vms[i]) < vms[i].old)
			assert_true(given(&vms[i]) + MIB >=
				    fmin((double)vms[i].min_bytes, vms[i].high));
}

/* The same numbers give the same decisions. */
static void check_pure(const struct mv_policy *before, const struct mv_policy_vm *vms,
		       const struct mv_policy_vm *decided, unsigned int count, uint64_t elapsed)
{
	struct mv_policy policy = *before;
	struct mv_policy_vm again[VMS_MAX];

	policy.paths = NULL;
	policy.steps = NULL;
	policy.room = policy.steps_room = 0;
	memcpy(again, vms, sizeof(again));
	assert_int_equal(mv_policy_decide(&policy, again, count, elapsed), 0);
	mv_policy_fini(&policy);
	for (unsigned int i = 0; i < count; i++) {
		assert_true(again[i].limit_bytes == decided[i].limit_bytes);
		assert_true(again[i].balloon_bytes == decided[i].balloon_bytes);
	}
}

static void check_all(const struct mv_policy *policy, const struct mv_policy_vm *vms,
		      unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		check_limit(&vms[i]);
		check_gentle(policy, &vms[i]);
		check_balloon(policy, &vms[i]);
	}
	if (policy->ample || policy->waiting)
		return;
	check_budget(policy, vms, count);
	check_growth(policy, vms, count);
	check_minima(policy, vms, count);
	check_relief(policy, vms, count);
}

static void test_every_state(void **unused)
{
	static const uint64_t times[] = { SECOND / 20, SECOND, 3 * SECOND };
	struct chance chance = chance_of(test_seed(), 0);
	uint64_t rounds = test_rounds(STATES);

	for (uint64_t round = 0; round < rounds; round++) {
		unsigned int count = (unsigned int)chance_below(&chance, VMS_MAX + 1);
		uint64_t elapsed = times[chance_below(&chance, COUNT_OF(times))];
		struct mv_policy policy = random_policy(&chance), before = policy;
		struct mv_policy_curve curves[VMS_MAX];
		struct mv_policy_vm vms[VMS_MAX], start[VMS_MAX];

		for (unsigned int i = 0; i < count; i++)
			vms[i] = random_vm(&chance, &curves[i]);
		memcpy(start, vms, sizeof(start));
		assert_int_equal(mv_policy_decide(&policy, vms, count, elapsed), 0);
		check_all(&policy, vms, count);
		if (round % 16 == 0)
			check_pure(&before, start, vms, count, elapsed);
		mv_policy_fini(&policy);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_state),
	};

	return cmocka_run_group_tests_name("policy_states", tests, NULL, NULL);
}
