/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow or nested: that it settles on what costs less, changes no oftener than it says, and tries
 * what it knows nothing of less and less often.
 */
#include <memvirt/choice.h>

#include "support/testing.h"

#define MS 1000000ULL

static const struct mv_choice_costs costs = {
	.trap_ns = 2000,
	.sync_ns = 1000,
	.shadow_miss_ns = 30,
	.nested_miss_ns = 130,
	.assumed_misses = 1000000,
};

/* A guest, by what it does in a second. What a trap costs is known under shadow tables only. */
struct guest_load {
	uint64_t traps, misses;
};

static enum mv_translation run_for(struct mv_choice *choice, const struct guest_load *load,
				   unsigned int ms, unsigned int *in_shadow, unsigned int *changes)
{
	for (unsigned int i = 0; i < ms; i += 10) {
		enum mv_translation before = choice->now;
		struct mv_choice_sample sample = {
			.ns = 10 * MS,
			.traps = before == MV_TRANSLATE_SHADOW ? load->traps / 100
							       : MV_CHOICE_UNKNOWN,
			.syncs = before == MV_TRANSLATE_SHADOW ? 0 : MV_CHOICE_UNKNOWN,
			.tlb_misses = load->misses / 100,
		};

		*in_shadow += before == MV_TRANSLATE_SHADOW ? 10 : 0;
		*changes += mv_choice_update(choice, &sample) != before;
	}
	return choice->now;
}

static void it_settles_on_what_costs_less(void **state)
{
	/* Nested walks cost 100 ns more at a miss; a trap costs 2 us. */
	static const struct {
		struct guest_load load;
		enum mv_translation expected;
	} cases[] = {
		{ { 100, 2000000 }, MV_TRANSLATE_SHADOW },    /* many misses, few changes */
		{ { 500000, 2000000 }, MV_TRANSLATE_NESTED }, /* it builds its tables */
		{ { 1000, 0 }, MV_TRANSLATE_NESTED },	      /* nothing to gain */
	};

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		for (int begin = 0; begin < 2; begin++) {
			unsigned int in_shadow = 0, changes = 0;
			struct mv_choice choice;

			assert_int_equal(mv_choice_init(&choice, &costs, begin), 0);
			run_for(&choice, &cases[i].load, 5000, &in_shadow, &changes);
			/* The last bit of a trial may be what we see. */
			run_for(&choice, &cases[i].load, 300, &in_shadow, &changes);
			if (cases[i].expected == MV_TRANSLATE_SHADOW)
				assert_int_equal(choice.now, MV_TRANSLATE_SHADOW);
			else
				assert_true(in_shadow <= 1000);
		}
	}
}

static void a_guest_that_changes_is_followed(void **state)
{
	static const struct guest_load computes = { 100, 2000000 }, forks = { 500000, 2000000 };
	unsigned int in_shadow = 0, changes = 0;
	struct mv_choice choice;

	assert_int_equal(mv_choice_init(&choice, &costs, MV_TRANSLATE_NESTED), 0);
	assert_int_equal(run_for(&choice, &computes, 2000, &in_shadow, &changes),
			 MV_TRANSLATE_SHADOW);
	assert_int_equal(changes, 1);
	assert_int_equal(run_for(&choice, &forks, 200, &in_shadow, &changes), MV_TRANSLATE_NESTED);
	assert_int_equal(changes, 2);
	/* It had paid, so it is tried again soon. */
	assert_int_equal(run_for(&choice, &computes, 1500, &in_shadow, &changes),
			 MV_TRANSLATE_SHADOW);
}

static void trials_in_vain_become_rare(void **state)
{
	static const struct guest_load forks = { 500000, 2000000 };
	unsigned int first = 0, later = 0, changes = 0;
	struct mv_choice choice;

	assert_int_equal(mv_choice_init(&choice, &costs, MV_TRANSLATE_NESTED), 0);
	run_for(&choice, &forks, 4000, &first, &changes);
	assert_true(first > 0);
	run_for(&choice, &forks, 60000, &later, &changes);
	run_for(&choice, &forks, 60000, &later, &changes);
	/* In 124 s: after 1, 2, 4, ... 64 s, for a tenth of a second each. */
	assert_in_range(changes, 10, 16);
	assert_true(first + later < 1200);
}

static void where_traps_are_counted_nobody_has_to_try(void **state)
{
	struct mv_choice_sample sample = { 10 * MS, 5000, 0, 20000 };
	struct mv_choice choice;

	assert_int_equal(mv_choice_init(&choice, &costs, MV_TRANSLATE_NESTED), 0);
	for (int i = 0; i < 10000; i++)
		assert_int_equal(mv_choice_update(&choice, &sample), MV_TRANSLATE_NESTED);
	sample.traps = 1;
	for (int i = 0; i < 100; i++)
		mv_choice_update(&choice, &sample);
	assert_int_equal(choice.now, MV_TRANSLATE_SHADOW);
}

static void costs_near_each_other_change_nothing(void **state)
{
	/* 130 ns against 30 and 0.04 traps of 2 us: 15% less. */
	struct mv_choice_sample sample = { 10 * MS, 800, 0, 20000 };
	struct mv_choice choice;

	for (int begin = 0; begin < 2; begin++) {
		assert_int_equal(mv_choice_init(&choice, &costs, begin), 0);
		for (int i = 0; i < 1000; i++)
			assert_int_equal(mv_choice_update(&choice, &sample), begin);
	}
}

static uint64_t any_number(struct chance *chance)
{
	switch (chance_below(chance, 4)) {
	case 0:
		return MV_CHOICE_UNKNOWN;
	case 1:
		return chance_next(chance);
	case 2:
		return 0;
	default:
		return chance_below(chance, 1000000);
	}
}

/* Whatever it is told: rates stay in range, and two changes are as far apart as promised. */
static void any_samples_are_borne(void **state)
{
	struct chance chance = chance_of(test_seed(), 0);
	uint64_t rounds = test_rounds(200000), held = 0;
	struct mv_choice choice;

	assert_int_equal(mv_choice_init(&choice, &costs, MV_TRANSLATE_NESTED), 0);
	for (uint64_t i = 0; i < rounds; i++) {
		enum mv_translation before = choice.now;
		struct mv_choice_sample sample = {
			.ns = chance_one_in(&chance, 100) ? any_number(&chance)
							  : chance_below(&chance, 50 * MS),
			.traps = any_number(&chance),
			.syncs = any_number(&chance),
			.tlb_misses = any_number(&chance),
		};

		held = sample.ns > UINT64_MAX - held ? UINT64_MAX : held + sample.ns;
		if (mv_choice_update(&choice, &sample) != before) {
			assert_true(held >= MV_CHOICE_HOLD_NS);
			held = 0;
		}
		assert_true(choice.traps <= 1000000000 || choice.traps == MV_CHOICE_UNKNOWN);
		assert_true(choice.misses <= 1000000000 || choice.misses == MV_CHOICE_UNKNOWN);
		assert_in_range(choice.wait_ns, MV_CHOICE_WAIT_NS, MV_CHOICE_WAIT_MAX_NS);
	}
}

static void costs_have_a_limit(void **state)
{
	struct mv_choice_costs wrong = costs;
	struct mv_choice choice;

	wrong.trap_ns = MV_CHOICE_COST_MAX + 1;
	assert_int_equal(mv_choice_init(&choice, &wrong, MV_TRANSLATE_NESTED), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_settles_on_what_costs_less),
		cmocka_unit_test(a_guest_that_changes_is_followed),
		cmocka_unit_test(trials_in_vain_become_rare),
		cmocka_unit_test(where_traps_are_counted_nobody_has_to_try),
		cmocka_unit_test(costs_near_each_other_change_nothing),
		cmocka_unit_test(any_samples_are_borne),
		cmocka_unit_test(costs_have_a_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
