/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The policy's balloons: what guests spare and need. Limits are in test_policy.c.
 */
#include <math.h>

#include "support/policy_vm.h"
#include "support/testing.h"

/* --- the balloon -------------------------------------------------------------------------- */

static void test_guest_spares(void **unused)
{
	struct mv_policy policy = make_policy(270 * MIB, 32 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);
	uint64_t wants;

	/* 32 MiB of the kernel's own, 180 used, 300 free; a guest that hardly grows. */
	vm.growth_per_s = 0;
	give_guest(&vm, 512 * MIB, 480 * MIB, 300 * MIB, 300 * MIB);
	decide(&policy, &vm, 1);
	assert_int_equal(vm.balloon_why, MV_POLICY_GUEST_SPARES);
	/* Not below what it needs, and a step at a time. */
	wants = 32 * MIB + 180 * MIB + 102 * MIB;
	assert_true(vm.balloon_bytes >= wants);
	assert_true(vm.balloon_bytes == 512 * MIB - 64 * MIB);
	for (int i = 0; i < 10; i++) {
		uint64_t actual = vm.target_bytes;
		uint64_t total = actual - 32 * MIB;

		give_guest(&vm, actual, total, total - 180 * MIB, total - 180 * MIB);
		decide(&policy, &vm, 1);
	}
	assert_in_range(vm.target_bytes, wants, wants + 8 * MIB);
	assert_true(vm.balloon_bytes == MV_POLICY_UNKNOWN);
}

/* One that grows keeps what it may need before the balloon can give way. */
static void test_growing_guest(void **unused)
{
	struct mv_policy policy = make_policy(256 * MIB, 32 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	vm.growth_per_s = 200.0 * MIB;
	give_guest(&vm, 512 * MIB, 480 * MIB, 300 * MIB, 300 * MIB);
	decide(&policy, &vm, 1);
	assert_true(vm.balloon_bytes == MV_POLICY_UNKNOWN);
}

static void test_guest_needs(void **unused)
{
	struct mv_policy policy = make_policy(256 * MIB, 32 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 0);

	give_guest(&vm, 256 * MIB, 224 * MIB, 4 * MIB, 4 * MIB);
	decide(&policy, &vm, 1);
	assert_int_equal(vm.balloon_why, MV_POLICY_GUEST_NEEDS);
	assert_true(vm.balloon_bytes > 256 * MIB);
	assert_true(vm.balloon_bytes <= 512 * MIB);
}

/* Nothing follows from numbers that are old, missing, or cannot be. */
static void test_guest_unclear(void **unused)
{
	struct mv_policy policy = make_policy(256 * MIB, 32 * MIB);

	for (int i = 0; i < 5; i++) {
		struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 0);

		give_guest(&vm, 512 * MIB, 480 * MIB, 300 * MIB, 300 * MIB);
		if (i == 0)
			vm.numbers.guest_fresh = false;
		else if (i == 1)
			vm.numbers.guest_available_bytes = MV_POLICY_UNKNOWN;
		else if (i == 2)
			vm.numbers.guest_available_bytes = 481 * MIB;
		else if (i == 3)
			vm.numbers.guest_total_bytes = 600 * MIB;
		else
			vm.numbers.balloon_actual_bytes = UINT32_MAX * 4096ULL;
		decide(&policy, &vm, 1);
		assert_true(vm.balloon_bytes == MV_POLICY_UNKNOWN);
	}
}

/* A driver that leaves ballooned pages in the total gets the same target. */
static void test_two_kinds_of_total(void **unused)
{
	struct mv_policy policy = make_policy(256 * MIB, 32 * MIB);
	struct mv_policy_vm less = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 0);
	struct mv_policy_vm whole = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 0);

	give_guest(&less, 400 * MIB, 368 * MIB, 100 * MIB, 100 * MIB);
	give_guest(&whole, 400 * MIB, 480 * MIB, 100 * MIB, 100 * MIB);
	decide(&policy, &less, 1);
	decide(&policy, &whole, 1);
	assert_true(less.balloon_bytes != MV_POLICY_UNKNOWN);
	assert_true(less.balloon_bytes == whole.balloon_bytes);
}

/* --- the balloon and reporting ------------------------------------------------------------ */

/* Free pages that the guest reports are given up already. */
static void test_reporting_spares_the_balloon(void **unused)
{
	struct mv_policy policy = make_policy(256 * MIB, 32 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	vm.growth_per_s = 0;
	vm.numbers.reporting = true;
	give_guest(&vm, 512 * MIB, 480 * MIB, 300 * MIB, 300 * MIB);
	decide(&policy, &vm, 1);
	assert_true(vm.balloon_bytes == MV_POLICY_UNKNOWN);
}

/* A guest that says it loses time gets memory back, though it seems to have some. */
static void test_pressed_guest(void **unused)
{
	struct mv_policy policy = make_policy(256 * MIB, 32 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	give_guest(&vm, 256 * MIB, 224 * MIB, 200 * MIB, 200 * MIB);
	vm.numbers.guest_pressure_ppm = 100000;
	decide(&policy, &vm, 1);
	assert_int_equal(vm.balloon_why, MV_POLICY_GUEST_NEEDS);
	assert_true(vm.balloon_bytes >= 320 * MIB);
}

/* A VM without a pager: its balloon is its limit, down to what the guest uses. */
static void test_by_balloon(void **unused)
{
	struct mv_policy policy = make_policy(900 * MIB, 64 * MIB);
	struct mv_policy_vm vms[2];

	for (int i = 0; i < 2; i++) {
		mv_policy_vm_init(&vms[i]);
		vms[i].numbers = policy_nothing_known();
		vms[i].numbers.configured_bytes = GIB;
		give_guest(&vms[i], GIB, 990 * MIB, i ? 890 * MIB : 390 * MIB, 300 * MIB);
	}
	for (int second = 0; second < 20; second++) {
		decide(&policy, vms, 2);
		for (int i = 0; i < 2; i++) {
			uint64_t left = vms[i].target_bytes, used = i ? 100 * MIB : 600 * MIB;

			assert_true(vms[i].limit_bytes == MV_POLICY_UNLIMITED);
			give_guest(&vms[i], left, left - 34 * MIB, left - 34 * MIB - used, MIB);
		}
	}
	/* 634 and 134 are in use, and what is more is divided by what they want. */
	assert_true(vms[0].target_bytes >= 634 * MIB && vms[1].target_bytes >= 134 * MIB);
	assert_in_range((vms[0].target_bytes + vms[1].target_bytes) / MIB, 800, 855);
}

/* Who waits for its pages to come back has memory of its own enough. */
static void test_pressed_by_the_host(void **unused)
{
	struct mv_policy policy = make_policy(270 * MIB, 32 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	vm.growth_per_s = 0;
	vm.numbers.host_pressure_ppm = 300000;
	give_guest(&vm, 512 * MIB, 480 * MIB, 300 * MIB, 300 * MIB);
	decide(&policy, &vm, 1);
	assert_true(vm.pressed);
	assert_int_equal(vm.balloon_why, MV_POLICY_GUEST_SPARES);
}

/* Decisions that come soon after one another do not take each other's steps back. */
static void test_a_step_under_way(void **unused)
{
	struct mv_policy policy = make_policy(270 * MIB, 32 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	vm.growth_per_s = 0;
	give_guest(&vm, 512 * MIB, 480 * MIB, 300 * MIB, 300 * MIB);
	decide(&policy, &vm, 1);
	assert_true(vm.target_bytes == 448 * MIB);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(mv_policy_decide(&policy, &vm, 1, SECOND / 25), 0);
		assert_true(vm.balloon_bytes == MV_POLICY_UNKNOWN);
	}
	mv_policy_fini(&policy);
	assert_true(vm.target_bytes == 448 * MIB);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_guest_spares),
		cmocka_unit_test(test_growing_guest),
		cmocka_unit_test(test_guest_needs),
		cmocka_unit_test(test_guest_unclear),
		cmocka_unit_test(test_two_kinds_of_total),
		cmocka_unit_test(test_reporting_spares_the_balloon),
		cmocka_unit_test(test_pressed_guest),
		cmocka_unit_test(test_pressed_by_the_host),
		cmocka_unit_test(test_a_step_under_way),
		cmocka_unit_test(test_by_balloon),
	};

	return cmocka_run_group_tests_name("policy_guest", tests, NULL, NULL);
}
