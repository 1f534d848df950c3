/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The policy over time, against guests that grow, work, idle and go silent: the
 * budget is kept in every moment, not only at the ticks, and limits come to rest.
 */
#include <math.h>

#include "support/policy_vm.h"
#include "support/testing.h"

#define VMS_MAX 8

/** struct guest - a VM that lives: what it has populated, and how the pager follows */
struct guest {
	struct mv_policy_vm vm;
	double populated;
	double resident;
	double wants; /* populates up to this */
	double grows_per_s;
	double ratio;	/* of what is stored */
	double working; /* of what is populated, in use */
	uint64_t last_limit;
	int turns; /* changes of direction of its limit */
	int direction;
};

static double used(const struct guest *g)
{
	return g->resident + (g->populated - g->resident) * g->ratio + (double)MIB;
}

static void live(struct guest *g, double seconds)
{
	double limit = g->vm.numbers.limit_bytes == MV_POLICY_UNLIMITED
			       ? g->populated
			       : (double)g->vm.numbers.limit_bytes;

	g->populated = fmin(g->wants, g->populated + g->grows_per_s * seconds);
	/* What is in use comes back as far as the limit lets it. */
	g->resident = fmin(g->populated, limit);
}

static void report_numbers(struct guest *g)
{
	struct mv_policy_numbers *n = &g->vm.numbers;

	n->resident_bytes = (uint64_t)g->resident;
	n->managed_bytes = n->configured_bytes;
	n->stored_pages = (uint64_t)((g->populated - g->resident) / 4096);
	n->store_memory_bytes = (uint64_t)((g->populated - g->resident) * g->ratio);
	/* Each page in use that is not resident comes back once a second. */
	n->restores_per_s =
		(uint64_t)(fmax(fmin(g->working, g->populated) - g->resident, 0) / 4096);
}

static void count_turns(struct guest *g)
{
	int direction = g->vm.limit_bytes > g->last_limit ? 1 : -1;

	if (g->vm.limit_bytes == g->last_limit)
		return;
	if (g->direction && direction != g->direction)
		g->turns++;
	g->direction = direction;
	g->last_limit = g->vm.limit_bytes;
}

static void tick(struct mv_policy *policy, struct guest *guests, unsigned int count)
{
	struct mv_policy_vm vms[VMS_MAX];

	for (unsigned int i = 0; i < count; i++) {
		report_numbers(&guests[i]);
		vms[i] = guests[i].vm;
	}
	assert_int_equal(mv_policy_decide(policy, vms, count, SECOND), 0);
	for (unsigned int i = 0; i < count; i++) {
		guests[i].vm = vms[i];
		guests[i].vm.numbers.limit_bytes = vms[i].limit_bytes;
		count_turns(&guests[i]);
	}
}

static struct guest make_guest(double wants, double grows_per_s, double ratio, double working)
{
	struct guest g = {
		.populated = 60.0 * MIB,
		.resident = 60.0 * MIB,
		.wants = wants,
		.grows_per_s = grows_per_s,
		.ratio = ratio,
		.working = working,
		.last_limit = 512 * MIB,
	};

	mv_policy_vm_init(&g.vm);
	g.vm.numbers = policy_nothing_known();
	g.vm.numbers.pager_fresh = true;
	g.vm.numbers.configured_bytes = 512 * MIB;
	g.vm.numbers.limit_bytes = 512 * MIB;
	g.vm.numbers.overhead_bytes = MIB;
	return g;
}

/*
 * Two guests of 512 MiB that fill 450 of it, on 576: within the budget all the way, with
 * eviction in time, and at rest in the end.
 */
static void test_two_growing_guests(void **unused)
{
	struct mv_policy policy = make_policy(576 * MIB, 64 * MIB);
	struct guest guests[] = { make_guest(450.0 * MIB, 150.0 * MIB, 0.42, 100.0 * MIB),
				  make_guest(450.0 * MIB, 90.0 * MIB, 0.42, 100.0 * MIB) };
	uint64_t before[2] = { 0, 0 };

	for (int second = 0; second < 60; second++) {
		for (int step = 0; step < 10; step++) {
			live(&guests[0], 0.1);
			live(&guests[1], 0.1);
			assert_true(used(&guests[0]) + used(&guests[1]) <= 576.0 * MIB);
		}
		before[0] = guests[0].vm.numbers.limit_bytes;
		before[1] = guests[1].vm.numbers.limit_bytes;
		tick(&policy, guests, 2);
	}
	assert_false(policy.too_small);
	assert_true(guests[0].vm.limit_bytes == before[0]);
	assert_true(guests[1].vm.limit_bytes == before[1]);
	/* The budget is there to be used. */
	assert_true(used(&guests[0]) + used(&guests[1]) >= 0.80 * 576 * MIB);
	mv_policy_fini(&policy);
}

/* Guests by chance, that stay as they are after a while: limits come to rest. */
static void test_comes_to_rest(void **unused)
{
	struct chance chance = chance_of(test_seed(), 1);
	uint64_t rounds = test_rounds(400);

	for (uint64_t round = 0; round < rounds; round++) {
		struct guest guests[4];
		struct mv_policy policy =
			make_policy((400 + chance_below(&chance, 1400)) * MIB, 32 * MIB);
		int turns = 0;

		for (int i = 0; i < 4; i++)
			guests[i] = make_guest((100 + (double)chance_below(&chance, 400)) * MIB,
					       (20 + (double)chance_below(&chance, 180)) * MIB,
					       0.1 + (double)chance_below(&chance, 8) / 10,
					       (double)chance_below(&chance, 300) * MIB);
		for (int second = 0; second < 160; second++) {
			for (int i = 0; i < 4; i++)
				live(&guests[i], 1);
			tick(&policy, guests, 4);
			/* The slowest has long stopped growing. */
			if (second == 100)
				for (int i = 0; i < 4; i++)
					guests[i].turns = 0;
		}
		for (int i = 0; i < 4; i++)
			turns += guests[i].turns;
		assert_in_range(turns, 0, 2);
		mv_policy_fini(&policy);
	}
}

/* A VM that stops reporting keeps what it had, until it reports again. */
static void test_silent_for_a_while(void **unused)
{
	struct mv_policy policy = make_policy(576 * MIB, 64 * MIB);
	struct guest guests[] = { make_guest(450.0 * MIB, 500.0 * MIB, 0.42, 100.0 * MIB),
				  make_guest(450.0 * MIB, 500.0 * MIB, 0.42, 300.0 * MIB) };
	uint64_t kept = 0;

	for (int second = 0; second < 40; second++) {
		live(&guests[0], 1);
		live(&guests[1], 1);
		guests[0].vm.numbers.pager_fresh = second < 10 || second >= 30;
		tick(&policy, guests, 2);
		if (second == 9)
			kept = guests[0].vm.limit_bytes;
		if (second >= 10 && second < 30)
			assert_true(guests[0].vm.limit_bytes == kept);
		if (second > 3)
			assert_true(used(&guests[0]) + used(&guests[1]) <= 576.0 * MIB);
	}
	mv_policy_fini(&policy);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_growing_guests),
		cmocka_unit_test(test_comes_to_rest),
		cmocka_unit_test(test_silent_for_a_while),
	};

	return cmocka_run_group_tests_name("policy_over_time", tests, NULL, NULL);
}
