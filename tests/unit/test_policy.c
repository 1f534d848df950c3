/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The policy, one rule of it at a time. What must hold in every state is in
 * test_policy_states.c, how it behaves over time in tests/model/test_policy_over_time.c.
 */
#include <math.h>

#include "support/policy_vm.h"
#include "support/testing.h"

#define HEADROOM 0.95
#define AIM	 0.985

/* --- one rule at a time ------------------------------------------------------------------- */

static void test_no_vms(void **unused)
{
	struct mv_policy policy = make_policy(GIB, 64 * MIB);

	decide(&policy, NULL, 0);
	assert_true(policy.ample);
	assert_false(policy.too_small);
}

static void test_ample(void **unused)
{
	struct mv_policy policy = make_policy(4 * GIB, 64 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	decide(&policy, &vm, 1);
	assert_true(vm.limit_bytes == MV_POLICY_UNLIMITED);
	assert_int_equal(vm.limit_why, MV_POLICY_AMPLE);
}

/* Everything has to fit for a while: VMs that start one after the other fit at first. */
static void test_ample_takes_patience(void **unused)
{
	struct mv_policy policy = make_policy(4 * GIB, 64 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	policy.config.patience_ns = 3 * SECOND;
	for (int second = 0; second < 3; second++) {
		decide(&policy, &vm, 1);
		assert_true(vm.limit_bytes == 200 * MIB);
		assert_true(vm.balloon_bytes == MV_POLICY_UNKNOWN);
	}
	decide(&policy, &vm, 1);
	assert_true(vm.limit_bytes == MV_POLICY_UNLIMITED);
}

/* A VM of which nothing is known may need anything. */
static void test_not_ample_with_unknown(void **unused)
{
	struct mv_policy policy = make_policy(4 * GIB, 64 * MIB);
	struct mv_policy_vm vms[] = { make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB),
				      make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB) };

	vms[1].numbers = policy_nothing_known();
	decide(&policy, vms, 2);
	assert_false(policy.ample);
	assert_true(vms[0].limit_bytes != MV_POLICY_UNLIMITED);
	assert_true(vms[1].limit_bytes == MV_POLICY_UNLIMITED);
}

/* At the edge the answer depends on where one comes from, so that it does not flicker. */
static void test_ample_edge(void **unused)
{
	uint64_t edge = (uint64_t)(513 * MIB / HEADROOM * 1.02);
	struct mv_policy policy = make_policy(edge, 64 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 512 * MIB, 400 * MIB, 0);

	decide(&policy, &vm, 1);
	assert_false(policy.ample);
	policy.ample = true;
	decide(&policy, &vm, 1);
	assert_true(policy.ample);
}

/* An unlimited VM is first put under a limit that evicts nothing, to see what it holds. */
static void test_learn(void **unused)
{
	struct mv_policy policy = make_policy(256 * MIB, 64 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, MV_POLICY_UNLIMITED, 0, 0);

	vm.numbers.managed_bytes = 0;
	decide(&policy, &vm, 1);
	assert_int_equal(vm.limit_why, MV_POLICY_LEARN);
	assert_true(vm.limit_bytes == 512 * MIB);
}

static void test_stale(void **unused)
{
	struct mv_policy policy = make_policy(256 * MIB, 32 * MIB);
	struct mv_policy_vm vms[] = { make_vm(512 * MIB, 300 * MIB, 300 * MIB, 100 * MIB),
				      make_vm(512 * MIB, 100 * MIB, 100 * MIB, 100 * MIB) };

	vms[0].numbers.pager_fresh = false;
	decide(&policy, vms, 2);
	assert_true(vms[0].limit_bytes == 300 * MIB);
	assert_int_equal(vms[0].limit_why, MV_POLICY_STALE);
	/* What it may take still counts, and nothing is left for the other. */
	assert_true(policy.too_small);
	assert_true(vms[1].limit_bytes == 32 * MIB);
}

static void test_held(void **unused)
{
	struct mv_policy policy = make_policy(256 * MIB, 32 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 300 * MIB, 300 * MIB, 100 * MIB);

	vm.numbers.held = true;
	decide(&policy, &vm, 1);
	assert_true(vm.limit_bytes == 300 * MIB);
	assert_int_equal(vm.limit_why, MV_POLICY_HELD);
}

static void test_too_small(void **unused)
{
	struct mv_policy policy = make_policy(100 * MIB, 64 * MIB);
	struct mv_policy_vm vms[] = { make_vm(512 * MIB, 300 * MIB, 300 * MIB, 100 * MIB),
				      make_vm(512 * MIB, 300 * MIB, 300 * MIB, 100 * MIB) };

	decide(&policy, vms, 2);
	assert_true(policy.too_small);
	for (int i = 0; i < 2; i++) {
		assert_true(vms[i].limit_bytes == 64 * MIB);
		assert_int_equal(vms[i].limit_why, MV_POLICY_FLOOR);
	}
}

/* A floor above the VM's size is its size. */
static void test_floor_of_a_small_vm(void **unused)
{
	struct mv_policy policy = make_policy(200 * MIB, 128 * MIB);
	struct mv_policy_vm vms[] = { make_vm(32 * MIB, 32 * MIB, 32 * MIB, 0),
				      make_vm(512 * MIB, 150 * MIB, 150 * MIB, 0) };

	decide(&policy, vms, 2);
	assert_true(vms[0].limit_bytes == 32 * MIB);
	assert_true(vms[1].limit_bytes >= 128 * MIB);
}

/* Where only demand moves memory, a VM gives a little at a time. */
static void test_gentle(void **unused)
{
	struct mv_policy policy = make_policy(1045 * MIB, 64 * MIB);
	struct mv_policy_vm vms[] = { make_vm(GIB, 400 * MIB, 400 * MIB, 0),
				      make_vm(GIB, 200 * MIB, 200 * MIB, 400 * MIB) };

	vms[1].numbers.restores_per_s = 50000;
	decide(&policy, vms, 2);
	assert_true(vms[0].limit_bytes < 400 * MIB);
	assert_true(vms[0].limit_bytes >= 360 * MIB - MIB);
	assert_int_equal(vms[0].limit_why, MV_POLICY_SHRINK);
}

/* Where the budget is exceeded otherwise, all at once. */
static void test_forced(void **unused)
{
	struct mv_policy policy = make_policy(640 * MIB, 64 * MIB);
	struct mv_policy_vm vms[] = { make_vm(512 * MIB, 500 * MIB, 450 * MIB, 0),
				      make_vm(512 * MIB, 500 * MIB, 450 * MIB, 0) };

	decide(&policy, vms, 2);
	assert_false(policy.too_small);
	assert_int_equal(vms[0].limit_why, MV_POLICY_OVER);
	assert_true(mv_policy_cost(&vms[0], (double)vms[0].limit_bytes) +
			    mv_policy_cost(&vms[1], (double)vms[1].limit_bytes) <=
		    policy.usable_bytes);
}

/* --- states of the host ------------------------------------------------------------------- */

static enum mv_policy_state state_with(struct mv_policy *policy, uint64_t resident)
{
	struct mv_policy_vm vm = make_vm(GIB, 900 * MIB, resident, 0);

	vm.numbers.overhead_bytes = 0;
	decide(policy, &vm, 1);
	return policy->state;
}

/* 6, 4 and 2% of 1000 MiB, down at once, and up with another 1%. */
static void test_states(void **unused)
{
	struct mv_policy policy = make_policy(1000 * MIB, 64 * MIB);

	assert_int_equal(state_with(&policy, 939 * MIB), MV_POLICY_HIGH);
	assert_int_equal(state_with(&policy, 941 * MIB), MV_POLICY_SOFT);
	assert_int_equal(state_with(&policy, 935 * MIB), MV_POLICY_SOFT);
	assert_int_equal(state_with(&policy, 929 * MIB), MV_POLICY_HIGH);
	assert_int_equal(state_with(&policy, 961 * MIB), MV_POLICY_HARD);
	assert_int_equal(state_with(&policy, 955 * MIB), MV_POLICY_HARD);
	assert_int_equal(state_with(&policy, 949 * MIB), MV_POLICY_SOFT);
	assert_int_equal(state_with(&policy, 1100 * MIB), MV_POLICY_LOW);
	assert_int_equal(state_with(&policy, 975 * MIB), MV_POLICY_LOW);
	assert_int_equal(state_with(&policy, 969 * MIB), MV_POLICY_HARD);
}

/* A limit falls gently while the host has memory, and at once where it has not. */
static void test_hard_is_at_once(void **unused)
{
	for (int hard = 0; hard < 2; hard++) {
		struct mv_policy policy = make_policy(1000 * MIB, 64 * MIB);
		struct mv_policy_vm vms[] = { make_vm(GIB, 600 * MIB, 600 * MIB, 0),
					      make_vm(GIB, 300 * MIB, 300 * MIB, 0) };

		vms[0].ratio = vms[1].ratio = 0;
		vms[0].outside_bytes = 200 * MIB;
		vms[1].numbers.overhead_bytes = hard ? 70 * MIB : MIB;
		decide(&policy, vms, 2);
		assert_int_equal(policy.state, hard ? MV_POLICY_HARD : MV_POLICY_HIGH);
		assert_true(vms[0].limit_bytes == (hard ? 200 * MIB : 540 * MIB));
	}
}

static void test_next(void **unused)
{
	struct mv_policy policy = make_policy(1000 * MIB, 64 * MIB);
	struct mv_policy_vm vm = make_vm(GIB, 500 * MIB, 500 * MIB, 0);

	decide(&policy, &vm, 1);
	assert_true(mv_policy_next_ns(&policy) == SECOND);
	vm.numbers.guest_fresh = true;
	vm.numbers.guest_pressure_ppm = 60000;
	decide(&policy, &vm, 1);
	assert_true(mv_policy_next_ns(&policy) <= SECOND / 10);
}

/* --- shares ------------------------------------------------------------------------------- */

static struct mv_policy make_shares(uint64_t usable, double tax)
{
	/* Such that usable memory, at which limits aim, is just that. */
	struct mv_policy policy =
		make_policy((uint64_t)((double)usable / HEADROOM / AIM), 16 * MIB);

	policy.config.rule = MV_POLICY_SHARES;
	policy.config.idle_tax = tax;
	return policy;
}

/* A VM whose stored pages cost nothing, so that limits are all that counts, as in ESX. */
static struct mv_policy_vm make_share(uint32_t shares, uint64_t size, uint64_t active)
{
	struct mv_policy_vm vm = make_vm(size, size, size, 0);

	vm.shares = shares;
	vm.ratio = 0;
	vm.numbers.overhead_bytes = 0;
	vm.numbers.active_bytes = active;
	return vm;
}

/*
 * The experiment of section 5.3 and figure 7 of the ESX paper: two VMs of 256 MB with the same
 * shares, one idle, one that works with all it gets. Without tax each has 179 MB; with 75% the
 * busy one gets nearly all of its 256 MB.
 */
static void test_esx_idle_tax(void **unused)
{
	for (int taxed = 0; taxed < 2; taxed++) {
		struct mv_policy policy = make_shares(2 * 179 * MIB, taxed ? 0.75 : 0);
		struct mv_policy_vm vms[] = { make_share(1000, 256 * MIB, 10 * MIB),
					      make_share(1000, 256 * MIB, 256 * MIB) };

		decide(&policy, vms, 2);
		assert_in_range(vms[0].target / MIB, taxed ? 101 : 178, taxed ? 102 : 179);
		assert_in_range(vms[1].target / MIB, taxed ? 255 : 178, taxed ? 256 : 179);
	}
}

/*
 * The formula itself, S / (P x (f + k x (1 - f))), k = 1 / (1 - tax): where nobody is at an end
 * of his range, all have the same.
 */
static void test_shares_per_page(void **unused)
{
	struct mv_policy policy = make_shares(1200 * MIB, 0.5);
	struct mv_policy_vm vms[] = { make_share(1000, GIB, 100 * MIB),
				      make_share(2000, GIB, 300 * MIB), make_share(500, GIB, GIB) };
	double first = 0;

	decide(&policy, vms, 3);
	for (int i = 0; i < 3; i++) {
		double pages = vms[i].target / 4096;
		double active = fmin((double)vms[i].numbers.active_bytes / vms[i].target, 1);
		double rho = vms[i].shares / (pages * (active + 2 * (1 - active)));

		first = i ? first : rho;
		assert_true(fabs(rho / first - 1) < 0.01);
	}
}

static void test_shares_in_proportion(void **unused)
{
	struct mv_policy policy = make_shares(900 * MIB, 0);
	struct mv_policy_vm vms[] = { make_share(1000, GIB, GIB), make_share(2000, GIB, GIB) };

	decide(&policy, vms, 2);
	assert_in_range(vms[0].target / MIB, 299, 300);
	assert_in_range(vms[1].target / MIB, 599, 600);
}

/* --- minimum, maximum, and who decides outside -------------------------------------------- */

static void test_minimum(void **unused)
{
	struct mv_policy policy = make_shares(900 * MIB, 0);
	struct mv_policy_vm vms[] = { make_share(1, GIB, GIB), make_share(100000, GIB, GIB) };

	vms[0].min_bytes = 250 * MIB;
	decide(&policy, vms, 2);
	assert_in_range(vms[0].target / MIB, 250, 251);
}

/* Minima that do not fit all are lowered together, floors are not. */
static void test_minima_too_large(void **unused)
{
	struct mv_policy policy = make_shares(400 * MIB, 0);
	struct mv_policy_vm vms[] = { make_share(1000, GIB, GIB), make_share(1000, GIB, GIB) };

	vms[0].min_bytes = 300 * MIB;
	vms[1].min_bytes = 300 * MIB;
	vms[0].floor_bytes = 220 * MIB;
	decide(&policy, vms, 2);
	assert_false(policy.too_small);
	assert_in_range(vms[0].target / MIB, 220, 280);
	assert_in_range(vms[1].target / MIB, 100, 180);
}

static void test_maximum(void **unused)
{
	struct mv_policy policy = make_policy(4 * GIB, 64 * MIB);
	struct mv_policy_vm vm = make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB);

	vm.max_bytes = 256 * MIB;
	decide(&policy, &vm, 1);
	assert_false(policy.ample);
	assert_true(vm.limit_bytes == 256 * MIB);
}

static void test_outside(void **unused)
{
	struct mv_policy policy = make_policy(GIB, 64 * MIB);
	struct mv_policy_vm vms[] = { make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB),
				      make_vm(512 * MIB, 200 * MIB, 200 * MIB, 100 * MIB) };

	vms[0].outside_bytes = 203 * MIB; /* a change too small for a rule */
	vms[1].outside_bytes = MIB;	  /* below the floor */
	decide(&policy, vms, 2);
	assert_int_equal(vms[0].limit_why, MV_POLICY_OUTSIDE);
	assert_true(vms[0].limit_bytes == 203 * MIB);
	assert_true(vms[1].target == 64.0 * MIB);
}

/* --- pressure ----------------------------------------------------------------------------- */

static void test_pressure_rule(void **unused)
{
	static const struct {
		uint64_t ppm;
		int direction;
	} cases[] = { { 0, -1 }, { 500, -1 }, { 1000, 0 }, { 3000, 1 }, { MV_POLICY_UNKNOWN, 0 } };

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct mv_policy policy = make_policy(4 * GIB, 64 * MIB);
		struct mv_policy_vm vm = make_vm(GIB, 500 * MIB, 500 * MIB, 100 * MIB);

		policy.config.rule = MV_POLICY_PRESSURE;
		vm.numbers.host_pressure_ppm = cases[i].ppm;
		for (int second = 0; second < 3; second++) {
			decide(&policy, &vm, 1);
			vm.numbers.limit_bytes = vm.limit_bytes;
			vm.numbers.resident_bytes =
				vm.limit_bytes < 900 * MIB ? vm.limit_bytes : 900 * MIB;
		}
		if (cases[i].direction < 0)
			assert_in_range(vm.limit_bytes, 480 * MIB, 499 * MIB);
		else if (cases[i].direction > 0)
			assert_in_range(vm.limit_bytes, 900 * MIB, GIB);
		else
			assert_true(vm.limit_bytes == 500 * MIB);
	}
}

/* Whoever is short of memory gets more with the very next decision, by each rule. */
static void test_relief(void **unused)
{
	for (int rule = 0; rule < MV_POLICY_RULES; rule++) {
		struct mv_policy policy = make_policy(1045 * MIB, 64 * MIB);
		struct mv_policy_vm vms[] = { make_vm(GIB, 300 * MIB, 300 * MIB, 50 * MIB),
					      make_vm(GIB, 300 * MIB, 300 * MIB, 0) };
		struct mv_policy_curve flat = { 2, { 4096, 128.0 * MIB }, { 10, 0 } };

		policy.config.rule = rule;
		vms[0].numbers.curve = &flat;
		vms[1].numbers.curve = &flat;
		vms[0].numbers.host_pressure_ppm = 200000;
		vms[0].demand = 100.0 * MIB; /* as it seemed so far */
		assert_int_equal(mv_policy_decide(&policy, vms, 2, SECOND / 20), 0);
		mv_policy_fini(&policy);
		assert_true(vms[0].limit_bytes >= 330 * MIB);
		assert_int_equal(vms[0].limit_why, MV_POLICY_PRESSED);
	}
}

/* --- the curve ---------------------------------------------------------------------------- */

static struct mv_policy make_curves(uint64_t usable)
{
	struct mv_policy policy = make_shares(usable, 0);

	policy.config.rule = MV_POLICY_CURVE;
	return policy;
}

/* The VM that misses more for each page gets its knee, the other what is left. */
static void test_curve(void **unused)
{
	static const struct mv_policy_curve steep = { 3,
						      { 64.0 * MIB, 400.0 * MIB, 1000.0 * MIB },
						      { 50000, 100, 0 } };
	static const struct mv_policy_curve shallow = { 3,
							{ 64.0 * MIB, 400.0 * MIB, 1000.0 * MIB },
							{ 900, 300, 0 } };
	struct mv_policy policy = make_curves(600 * MIB);
	struct mv_policy_vm vms[] = { make_share(1000, GIB, GIB), make_share(1000, GIB, GIB) };

	vms[0].numbers.curve = &steep;
	vms[1].numbers.curve = &shallow;
	decide(&policy, vms, 2);
	assert_in_range(vms[0].target / MIB, 399, 400);
	assert_in_range(vms[1].target / MIB, 199, 200);
}

/* Halfway over a plateau saves nothing: all of it or none of it is seen as a price. */
static void test_curve_with_a_plateau(void **unused)
{
	static const struct mv_policy_curve cliff = {
		4, { 64.0 * MIB, 100.0 * MIB, 400.0 * MIB, 410.0 * MIB }, { 9100, 9000, 8990, 0 }
	};
	static const struct mv_policy_curve smooth = { 3,
						       { 64.0 * MIB, 300.0 * MIB, 1000.0 * MIB },
						       { 6000, 1000, 0 } };
	struct mv_policy policy = make_curves(720 * MIB);
	struct mv_policy_vm vms[] = { make_share(1000, GIB, GIB), make_share(1000, GIB, GIB) };

	vms[0].numbers.curve = &cliff;
	vms[1].numbers.curve = &smooth;
	decide(&policy, vms, 2);
	assert_in_range(vms[0].target / MIB, 409, 410);
	assert_in_range(vms[1].target / MIB, 309, 310);
}

/* A VM without a curve keeps what demand gives it. */
static void test_without_a_curve(void **unused)
{
	static const struct mv_policy_curve curve = { 2, { 64.0 * MIB, 500.0 * MIB }, { 9000, 0 } };
	struct mv_policy policy = make_curves(600 * MIB);
	struct mv_policy_vm vms[] = { make_share(1000, GIB, GIB), make_share(1000, GIB, GIB) };

	vms[0].numbers.curve = &curve;
	decide(&policy, vms, 2);
	assert_in_range(vms[1].target / MIB, 299, 300);
	assert_in_range(vms[0].target / MIB, 299, 300);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
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
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_hard_is_at_once),
		cmocka_unit_test(test_next),
		cmocka_unit_test(test_esx_idle_tax),
		cmocka_unit_test(test_shares_per_page),
		cmocka_unit_test(test_shares_in_proportion),
		cmocka_unit_test(test_minimum),
		cmocka_unit_test(test_minima_too_large),
		cmocka_unit_test(test_maximum),
		cmocka_unit_test(test_outside),
		cmocka_unit_test(test_pressure_rule),
		cmocka_unit_test(test_relief),
		cmocka_unit_test(test_curve),
		cmocka_unit_test(test_curve_with_a_plateau),
		cmocka_unit_test(test_without_a_curve),
	};

	return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
