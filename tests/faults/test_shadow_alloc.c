/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every allocation that a shadow makes fails in turn, and all from some one on: what failed says
 * so, what is shown is still right, tried again it works, and in the end all is freed.
 */
#include <limits.h>

#include "support/shadow_machine.h"

#define ALL   0x067ULL
#define LARGE 0x0e7ULL

#define ROOT  0x1000ULL
#define POOL  0x100000ULL /* tables */
#define DATA  0x10000ULL
#define VCPUS 2

/**
 * struct sweep - one run through everything
 * @failures: that the machine's user was told of
 */
struct sweep {
	struct shadow_machine machine;
	unsigned int failures;
};

/* Addresses far apart, each through tables of its own. */
static void fill(struct shadow_machine *machine)
{
	for (uint64_t i = 0; i < 16; i++) {
		uint64_t table = POOL + i * 0x4000;

		sm_set(machine, ROOT + 8 * i, table | ALL);
		sm_set(machine, table + 8 * i, (table + 0x1000) | ALL);
		sm_set(machine, table + 0x1000 + 8 * i, (table + 0x2000) | ALL);
		sm_set(machine, table + 0x1000 + 8 * (i + 1), 0x400000 | LARGE);
		sm_set(machine, table + 0x2000 + 8 * i, (DATA + i * 0x1000) | ALL);
	}
}

static uint64_t address(uint64_t i)
{
	return i << 39 | i << 30 | i << 21 | i << 12;
}

static void load(struct sweep *sweep, unsigned int vcpu, enum sref_mode mode)
{
	struct mv_paging_registers registers;
	int error;

	sm_registers(mode, ROOT, &registers);
	error = sm_load(&sweep->machine, vcpu, &registers, false);
	if (error) {
		assert_int_equal(error, -ENOMEM);
		sweep->failures++;
		sweep->machine.fake.fail_after = ULONG_MAX;
		error = sm_load(&sweep->machine, vcpu, &registers, false);
	}
	assert_int_equal(error, 0);
}

static void touch(struct sweep *sweep, unsigned int vcpu, uint64_t gva, unsigned int kind,
		  uint64_t gpa)
{
	struct sm_access access = { .gva = gva, .kind = kind, .value = gva, .bytes = 8 };

	sm_access(&sweep->machine, vcpu, &access);
	if (access.end == SM_NO_MEMORY) {
		sweep->failures++;
		sweep->machine.fake.fail_after = ULONG_MAX;
		sm_access(&sweep->machine, vcpu, &access);
	}
	assert_int_equal(access.end, SM_DONE);
	assert_int_equal(access.gpa, gpa);
}

static void run(struct sweep *sweep)
{
	struct shadow_machine *machine = &sweep->machine;

	fill(machine);
	for (unsigned int vcpu = 0; vcpu < VCPUS; vcpu++)
		load(sweep, vcpu, SREF_4L);
	for (uint64_t i = 0; i < 16; i++) {
		touch(sweep, i % VCPUS, address(i), MV_ACCESS_WRITE, DATA + i * 0x1000);
		touch(sweep, i % VCPUS, address(i) + 0x200000, MV_ACCESS_READ, 0x400000 | i << 12);
	}
	sm_discard(machine, DATA, 4);
	for (uint64_t i = 0; i < 16; i++)
		touch(sweep, (i + 1) % VCPUS, address(i), MV_ACCESS_READ, DATA + i * 0x1000);
	load(sweep, 0, SREF_OFF);
	touch(sweep, 0, 0x5000, MV_ACCESS_WRITE, 0x5000);
	sm_compare_all(machine);
}

/* Return: whether an allocation failed. */
static bool sweep_once(struct sweep *sweep, unsigned long fail_at, unsigned long fail_after)
{
	struct shadow_machine *machine = &sweep->machine;
	bool failed;
	int error;

	fake_platform_init(&machine->fake);
	machine->fake.fail_at = fail_at;
	machine->fake.fail_after = fail_after;
	machine->lenient = true;
	machine->tlb = true;
	error = sm_try_open(machine, VCPUS);
	if (error) {
		assert_int_equal(error, -ENOMEM);
		assert_int_equal(machine->fake.live, 0);
		sweep->failures++;
		machine->fake.fail_after = ULONG_MAX;
		error = sm_try_open(machine, VCPUS);
	}
	assert_int_equal(error, 0);
	run(sweep);
	failed = machine->fake.failures;
	sm_close(machine);
	return failed;
}

static void run_sweep(bool all_after)
{
	struct sweep *sweep = calloc(1, sizeof(*sweep));
	unsigned long number = 1;

	assert_non_null(sweep);
	sm_map(&sweep->machine);
	sweep->machine.budget = MV_SHADOW_BUDGET_MIN;
	while (sweep_once(sweep, all_after ? 0 : number, all_after ? number - 1 : ULONG_MAX))
		number++;
	print_message("# %lu allocations, %u failures told\n", number - 1, sweep->failures);
	assert_true(number > 5 && sweep->failures > 5);
	sm_unmap(&sweep->machine);
	free(sweep);
}

static void each_allocation_fails_in_turn(void **state)
{
	run_sweep(false);
}

static void all_allocations_fail_from_each_on(void **state)
{
	run_sweep(true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_fails_in_turn),
		cmocka_unit_test(all_allocations_fail_from_each_on),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
