/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The governor's policy: what must hold in every state, by chance, and one rule at a time.
 * How it behaves over time is in tests/model/test_govern_over_time.c.
 */
#include <math.h>

#include "memvirt/govern_policy.h"
#include "support/testing.h"

#define MIB	 (1ULL << 20)
#define GIB	 (1ULL << 30)
#define SECOND	 1000000000ULL
#define VMS_MAX	 8
#define STATES	 200000
#define HEADROOM 0.95

static const struct policy_numbers nothing_known = {
	.configured_bytes = POLICY_UNKNOWN,
	.managed_bytes = POLICY_UNKNOWN,
	.resident_bytes = POLICY_UNKNOWN,
	.limit_bytes = POLICY_UNLIMITED,
	.stored_pages = POLICY_UNKNOWN,
	.store_memory_bytes = POLICY_UNKNOWN,
	.overhead_bytes = POLICY_UNKNOWN,
	.restores_per_s = POLICY_UNKNOWN,
	.balloon_actual_bytes = POLICY_UNKNOWN,
	.guest_total_bytes = POLICY_UNKNOWN,
	.guest_free_bytes = POLICY_UNKNOWN,
	.guest_available_bytes = POLICY_UNKNOWN,
	.guest_disk_cache_bytes = POLICY_UNKNOWN,
};

static struct policy make_policy(uint64_t budget, uint64_t floor)
{
	const struct policy_config config = { .budget_bytes = budget,
					      .floor_bytes = floor,
					      .interval_ns = SECOND };
	struct policy policy;

	policy_init(&policy, &config);
	return policy;
}

/* A VM with a limit, some of it stored at a ratio of 0.4, and no balloon. */
static struct policy_vm make_vm(uint64_t configured, uint64_t limit, uint64_t resident,
				uint64_t stored)
{
	struct policy_vm vm;

	policy_vm_init(&vm);
	vm.numbers = nothing_known;
	vm.numbers.pager_fresh = true;
	vm.numbers.configured_bytes = configured;
	vm.numbers.managed_bytes = configured;
	vm.numbers.resident_bytes = resident;
	vm.numbers.limit_bytes = limit;
	vm.numbers.stored_pages = stored / 4096;
	vm.numbers.store_memory_bytes = stored * 2 / 5;
	vm.numbers.overhead_bytes = MIB;
	vm.numbers.restores_per_s = 0;
	return vm;
}

static void give_guest(struct policy_vm *vm, uint64_t actual, uint64_t total, uint64_t available,
		       uint64_t free)
{
	vm->numbers.guest_fresh = true;
	vm->numbers.balloon_actual_bytes = actual;
	vm->numbers.guest_total_bytes = total;
	vm->numbers.guest_available_bytes = available;
	vm->numbers.guest_free_bytes = free;
}

/* --- in every state ----------------------------------------------------------------------- */

static uint64_t known_or_not(struct chance *chance, uint64_t limit)
{
	return chance_one_in(chance, 12) ? POLICY_UNKNOWN : chance_below(chance, limit + 1);
}

static struct policy_vm random_vm(struct chance *chance)
{
	uint64_t configured = chance_one_in(chance, 20) ? 4096 * chance_below(chance, 1000)
							: 64 * MIB + chance_below(chance, 8 * GIB);
	struct policy_vm vm;

	policy_vm_init(&vm);
	vm.numbers = nothing_known;
	vm.numbers.pager_fresh = !chance_one_in(chance, 6);
	vm.numbers.guest_fresh = !chance_one_in(chance, 3);
	vm.numbers.held = chance_one_in(chance, 10);
	vm.numbers.configured_bytes = chance_one_in(chance, 40) ? POLICY_UNKNOWN : configured;
	vm.numbers.managed_bytes = chance_one_in(chance, 10) ? 0 : configured;
	vm.numbers.resident_bytes = known_or_not(chance, configured);
	vm.numbers.limit_bytes = chance_one_in(chance, 5)
					 ? POLICY_UNLIMITED
					 : MIB + chance_below(chance, 2 * configured + 1);
	vm.numbers.stored_pages = known_or_not(chance, configured / 4096);
	vm.numbers.store_memory_bytes = known_or_not(chance, configured);
	vm.numbers.overhead_bytes = known_or_not(chance, configured / 100);
	vm.numbers.restores_per_s = known_or_not(chance, 100000);
	vm.numbers.balloon_actual_bytes = known_or_not(chance, configured + configured / 8);
	vm.numbers.guest_total_bytes = known_or_not(chance, configured);
	vm.numbers.guest_available_bytes = known_or_not(chance, configured);
	vm.numbers.guest_free_bytes = known_or_not(chance, configured);
	vm.numbers.guest_disk_cache_bytes = known_or_not(chance, configured);
	if (chance_one_in(chance, 2))
		vm.demand = (double)chance_below(chance, configured + 1);
	return vm;
}

static void check_balloon(const struct policy_vm *vm)
{
	if (vm->balloon_bytes == POLICY_UNKNOWN)
		return;
	assert_true(vm->numbers.guest_fresh);
	assert_true(vm->numbers.balloon_actual_bytes != POLICY_UNKNOWN);
	assert_true(vm->balloon_bytes <= vm->numbers.configured_bytes);
	assert_true((double)vm->balloon_bytes >=
		    fmin(vm->floor, (double)vm->numbers.configured_bytes));
}

static void check_limit(const struct policy_vm *vm)
{
	const struct policy_numbers *n = &vm->numbers;

	if (vm->limit_bytes == n->limit_bytes)
		return;
	/* Old numbers, or none: the limit stays. */
	assert_true(n->pager_fresh);
	assert_false(n->held);
	if (vm->limit_why == POLICY_AMPLE || vm->limit_why == POLICY_LEARN)
		return;
	assert_true(n->resident_bytes != POLICY_UNKNOWN);
	assert_true(vm->limit_bytes >= POLICY_FLOOR_MIN);
	assert_true((double)vm->limit_bytes >= vm->floor);
}

static double planned(const struct policy_vm *vms, unsigned int count)
{
	double total = 0;

	for (unsigned int i = 0; i < count; i++)
		total += policy_cost(&vms[i], (double)vms[i].limit_bytes);
	return total;
}

/* Within the budget, unless the floors alone are above it; then everyone is at his floor. */
static void check_budget(const struct policy *policy, const struct policy_vm *vms,
			 unsigned int count)
{
	double slack = 4096.0 * count;

	if (policy->ample || policy->waiting)
		return;
	if (!policy->too_small) {
		assert_true(planned(vms, count) <= policy->usable_bytes + slack);
		return;
	}
	for (unsigned int i = 0; i < count; i++)
		if (vms[i].adjustable)
			assert_true(fmin((double)vms[i].limit_bytes, vms[i].potential) <=
				    fmax(vms[i].floor, vms[i].old) + 1);
}

/*
 * Nobody grows above his floor on what others have not given back yet: with who shrinks
 * still counted at what is resident, it fits.
 */
static void check_growth(const struct policy *policy, const struct policy_vm *vms,
			 unsigned int count)
{
	double total = 0;
	bool grown = false;

	if (policy->ample || policy->waiting || policy->too_small)
		return;
	for (unsigned int i = 0; i < count; i++) {
		const struct policy_vm *vm = &vms[i];
		double limit = (double)vm->limit_bytes;

		grown = grown || (vm->adjustable && limit > fmax(vm->old, vm->floor) + 1 &&
				  vm->limit_why == POLICY_GROW);
		total += policy_cost(vm, fmax(limit, fmin(vm->resident, vm->old)));
	}
	if (grown)
		assert_true(total <= policy->usable_bytes + 4096.0 * count);
}

static void test_every_state(void **unused)
{
	struct chance chance = chance_of(test_seed(), 0);
	uint64_t rounds = test_rounds(STATES);

	for (uint64_t round = 0; round < rounds; round++) {
		unsigned int count = (unsigned int)chance_below(&chance, VMS_MAX + 1);
		struct policy policy = make_policy(MIB + chance_below(&chance, 16 * GIB),
						   chance_below(&chance, 512 * MIB));
		struct policy_vm vms[VMS_MAX];

		policy.ample = chance_one_in(&chance, 2);
		policy.config.patience_ns = chance_below(&chance, 2) * SECOND;
		for (unsigned int i = 0; i < count; i++)
			vms[i] = random_vm(&chance);
		policy_decide(&policy, vms, count);
		for (unsigned int i = 0; i < count; i++) {
			check_limit(&vms[i]);
			check_balloon(&vms[i]);
		}
		check_budget(&policy, vms, count);
		check_growth(&policy, vms, count);
	}
}

/* --- one rule at a time ------------------------------------------------------------------- */

static void test_no_vms(void **unused)
{
	struct policy policy = make_policy(GIB, 64 * MIB);

	policy_decide(&policy, NULL, 0);
	assert_true(policy.ample);
	assert_false(policy.too_small);
}

static void test_ample(void **unused)
{
	struct policy policy = make_policy(4 * GIB, 64 * MIB);
	struct policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	policy_decide(&policy, &vm, 1);
	assert_true(vm.limit_bytes == POLICY_UNLIMITED);
	assert_int_equal(vm.limit_why, POLICY_AMPLE);
}

/* Everything has to fit for a while: VMs that start one after the other fit at first. */
static void test_ample_takes_patience(void **unused)
{
	struct policy policy = make_policy(4 * GIB, 64 * MIB);
	struct policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	policy.config.patience_ns = 3 * SECOND;
	for (int second = 0; second < 3; second++) {
		policy_decide(&policy, &vm, 1);
		assert_true(vm.limit_bytes == 200 * MIB);
		assert_true(vm.balloon_bytes == POLICY_UNKNOWN);
	}
	policy_decide(&policy, &vm, 1);
	assert_true(vm.limit_bytes == POLICY_UNLIMITED);
}

/* A VM of which nothing is known may need anything. */
static void test_not_ample_with_unknown(void **unused)
{
	struct policy policy = make_policy(4 * GIB, 64 * MIB);
	struct policy_vm vms[] = { make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB),
				   make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB) };

	vms[1].numbers = nothing_known;
	policy_decide(&policy, vms, 2);
	assert_false(policy.ample);
	assert_true(vms[0].limit_bytes != POLICY_UNLIMITED);
	assert_true(vms[1].limit_bytes == POLICY_UNLIMITED);
}

/* At the edge the answer depends on where one comes from, so that it does not flicker. */
static void test_ample_edge(void **unused)
{
	uint64_t edge = (uint64_t)(513 * MIB / HEADROOM * 1.02);
	struct policy policy = make_policy(edge, 64 * MIB);
	struct policy_vm vm = make_vm(512 * MIB, 512 * MIB, 400 * MIB, 0);

	policy_decide(&policy, &vm, 1);
	assert_false(policy.ample);
	policy.ample = true;
	policy_decide(&policy, &vm, 1);
	assert_true(policy.ample);
}

/* An unlimited VM is first put under a limit that evicts nothing, to see what it holds. */
static void test_learn(void **unused)
{
	struct policy policy = make_policy(256 * MIB, 64 * MIB);
	struct policy_vm vm = make_vm(512 * MIB, POLICY_UNLIMITED, 0, 0);

	vm.numbers.managed_bytes = 0;
	policy_decide(&policy, &vm, 1);
	assert_int_equal(vm.limit_why, POLICY_LEARN);
	assert_true(vm.limit_bytes == 512 * MIB);
}

static void test_stale(void **unused)
{
	struct policy policy = make_policy(256 * MIB, 32 * MIB);
	struct policy_vm vms[] = { make_vm(512 * MIB, 300 * MIB, 300 * MIB, 100 * MIB),
				   make_vm(512 * MIB, 100 * MIB, 100 * MIB, 100 * MIB) };

	vms[0].numbers.pager_fresh = false;
	policy_decide(&policy, vms, 2);
	assert_true(vms[0].limit_bytes == 300 * MIB);
	assert_int_equal(vms[0].limit_why, POLICY_STALE);
	/* What it may take still counts, and nothing is left for the other. */
	assert_true(policy.too_small);
	assert_true(vms[1].limit_bytes == 32 * MIB);
}

static void test_held(void **unused)
{
	struct policy policy = make_policy(256 * MIB, 32 * MIB);
	struct policy_vm vm = make_vm(512 * MIB, 300 * MIB, 300 * MIB, 100 * MIB);

	vm.numbers.held = true;
	policy_decide(&policy, &vm, 1);
	assert_true(vm.limit_bytes == 300 * MIB);
	assert_int_equal(vm.limit_why, POLICY_HELD);
}

static void test_too_small(void **unused)
{
	struct policy policy = make_policy(100 * MIB, 64 * MIB);
	struct policy_vm vms[] = { make_vm(512 * MIB, 300 * MIB, 300 * MIB, 100 * MIB),
				   make_vm(512 * MIB, 300 * MIB, 300 * MIB, 100 * MIB) };

	policy_decide(&policy, vms, 2);
	assert_true(policy.too_small);
	for (int i = 0; i < 2; i++) {
		assert_true(vms[i].limit_bytes == 64 * MIB);
		assert_int_equal(vms[i].limit_why, POLICY_FLOOR);
	}
}

/* A floor above the VM's size is its size. */
static void test_floor_of_a_small_vm(void **unused)
{
	struct policy policy = make_policy(200 * MIB, 128 * MIB);
	struct policy_vm vms[] = { make_vm(32 * MIB, 32 * MIB, 32 * MIB, 0),
				   make_vm(512 * MIB, 150 * MIB, 150 * MIB, 0) };

	policy_decide(&policy, vms, 2);
	assert_true(vms[0].limit_bytes == 32 * MIB);
	assert_true(vms[1].limit_bytes >= 128 * MIB);
}

/* Where only demand moves memory, a VM gives a little at a time. */
static void test_gentle(void **unused)
{
	struct policy policy = make_policy(1045 * MIB, 64 * MIB);
	struct policy_vm vms[] = { make_vm(GIB, 400 * MIB, 400 * MIB, 0),
				   make_vm(GIB, 200 * MIB, 200 * MIB, 400 * MIB) };

	vms[1].numbers.restores_per_s = 50000;
	policy_decide(&policy, vms, 2);
	assert_true(vms[0].limit_bytes < 400 * MIB);
	assert_true(vms[0].limit_bytes >= 360 * MIB - MIB);
	assert_int_equal(vms[0].limit_why, POLICY_SHRINK);
}

/* Where the budget is exceeded otherwise, all at once. */
static void test_forced(void **unused)
{
	struct policy policy = make_policy(640 * MIB, 64 * MIB);
	struct policy_vm vms[] = { make_vm(512 * MIB, 500 * MIB, 450 * MIB, 0),
				   make_vm(512 * MIB, 500 * MIB, 450 * MIB, 0) };

	policy_decide(&policy, vms, 2);
	assert_false(policy.too_small);
	assert_int_equal(vms[0].limit_why, POLICY_OVER);
	assert_true(planned(vms, 2) <= policy.usable_bytes);
}

/* --- the balloon -------------------------------------------------------------------------- */

static void test_guest_spares(void **unused)
{
	struct policy policy = make_policy(256 * MIB, 32 * MIB);
	struct policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);
	uint64_t wants;

	/* 32 MiB of the kernel's own, 180 used, 300 free; a guest that hardly grows. */
	vm.growth_per_s = 0;
	give_guest(&vm, 512 * MIB, 480 * MIB, 300 * MIB, 300 * MIB);
	policy_decide(&policy, &vm, 1);
	assert_int_equal(vm.balloon_why, POLICY_GUEST_SPARES);
	/* Not below what it needs, and a step at a time. */
	wants = 32 * MIB + 180 * MIB + 102 * MIB;
	assert_true(vm.balloon_bytes >= wants);
	assert_true(vm.balloon_bytes == 512 * MIB - 64 * MIB);
	for (int i = 0; i < 10; i++) {
		uint64_t actual = vm.target_bytes;
		uint64_t total = actual - 32 * MIB;

		give_guest(&vm, actual, total, total - 180 * MIB, total - 180 * MIB);
		policy_decide(&policy, &vm, 1);
	}
	assert_in_range(vm.target_bytes, wants, wants + 8 * MIB);
	assert_true(vm.balloon_bytes == POLICY_UNKNOWN);
}

/* One that grows keeps what it may need before the balloon can give way. */
static void test_growing_guest(void **unused)
{
	struct policy policy = make_policy(256 * MIB, 32 * MIB);
	struct policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	vm.growth_per_s = 200.0 * MIB;
	give_guest(&vm, 512 * MIB, 480 * MIB, 300 * MIB, 300 * MIB);
	policy_decide(&policy, &vm, 1);
	assert_true(vm.balloon_bytes == POLICY_UNKNOWN);
}

static void test_guest_needs(void **unused)
{
	struct policy policy = make_policy(256 * MIB, 32 * MIB);
	struct policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 0);

	give_guest(&vm, 256 * MIB, 224 * MIB, 4 * MIB, 4 * MIB);
	policy_decide(&policy, &vm, 1);
	assert_int_equal(vm.balloon_why, POLICY_GUEST_NEEDS);
	assert_true(vm.balloon_bytes > 256 * MIB);
	assert_true(vm.balloon_bytes <= 512 * MIB);
}

/* Nothing follows from numbers that are old, missing, or cannot be. */
static void test_guest_unclear(void **unused)
{
	struct policy policy = make_policy(256 * MIB, 32 * MIB);

	for (int i = 0; i < 5; i++) {
		struct policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 0);

		give_guest(&vm, 512 * MIB, 480 * MIB, 300 * MIB, 300 * MIB);
		if (i == 0)
			vm.numbers.guest_fresh = false;
		else if (i == 1)
			vm.numbers.guest_available_bytes = POLICY_UNKNOWN;
		else if (i == 2)
			vm.numbers.guest_available_bytes = 481 * MIB;
		else if (i == 3)
			vm.numbers.guest_total_bytes = 600 * MIB;
		else
			vm.numbers.balloon_actual_bytes = UINT32_MAX * 4096ULL;
		policy_decide(&policy, &vm, 1);
		assert_true(vm.balloon_bytes == POLICY_UNKNOWN);
	}
}

/* A driver that leaves ballooned pages in the total gets the same target. */
static void test_two_kinds_of_total(void **unused)
{
	struct policy policy = make_policy(256 * MIB, 32 * MIB);
	struct policy_vm less = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 0);
	struct policy_vm whole = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 0);

	give_guest(&less, 400 * MIB, 368 * MIB, 100 * MIB, 100 * MIB);
	give_guest(&whole, 400 * MIB, 480 * MIB, 100 * MIB, 100 * MIB);
	policy_decide(&policy, &less, 1);
	policy_decide(&policy, &whole, 1);
	assert_true(less.balloon_bytes != POLICY_UNKNOWN);
	assert_true(less.balloon_bytes == whole.balloon_bytes);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_state),
		cmocka_unit_test(test_no_vms),
		cmocka_unit_test(test_ample),
		cmocka_unit_test(test_ample_takes_patience),
		cmocka_unit_test(test_not_ample_with_unknown),
		cmocka_unit_test(test_ample_edge),
		cmocka_unit_test(test_learn),
		cmocka_unit_test(test_stale),
		cmocka_unit_test(test_held),
		cmocka_unit_test(test_too_small),
		cmocka_unit_test(test_floor_of_a_small_vm),
		cmocka_unit_test(test_gentle),
		cmocka_unit_test(test_forced),
		cmocka_unit_test(test_guest_spares),
		cmocka_unit_test(test_growing_guest),
		cmocka_unit_test(test_guest_needs),
		cmocka_unit_test(test_guest_unclear),
		cmocka_unit_test(test_two_kinds_of_total),
	};

	return cmocka_run_group_tests_name("govern_policy", tests, NULL, NULL);
}
