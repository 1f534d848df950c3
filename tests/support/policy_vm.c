/* SPDX-License-Identifier: BSD-2-Clause */
#include "policy_vm.h"

#include <string.h>

#include "testing.h"

struct mv_policy_numbers policy_nothing_known(void)
{
	struct mv_policy_numbers n;

	memset(&n, 0xff, sizeof(n)); /* MV_POLICY_UNKNOWN, each of them */
	n.pager_fresh = false;
	n.guest_fresh = false;
	n.held = false;
	n.reporting = false;
	n.curve = NULL;
	return n;
}

struct mv_policy make_policy(uint64_t budget, uint64_t floor)
{
	const struct mv_policy_config config = { .budget_bytes = budget,
						 .floor_bytes = floor,
						 .interval_ns = SECOND };
	struct mv_policy policy;

	mv_policy_init(&policy, &config);
	return policy;
}

struct mv_policy_vm make_vm(uint64_t configured, uint64_t limit, uint64_t resident, uint64_t stored)
{
	struct mv_policy_vm vm;

	mv_policy_vm_init(&vm);
	vm.numbers = policy_nothing_known();
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

void decide(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count)
{
	assert_int_equal(mv_policy_decide(policy, vms, count, SECOND), 0);
	mv_policy_fini(policy);
}

void give_guest(struct mv_policy_vm *vm, uint64_t actual, uint64_t total, uint64_t available,
		uint64_t free)
{
	vm->numbers.guest_fresh = true;
	vm->numbers.balloon_actual_bytes = actual;
	vm->numbers.guest_total_bytes = total;
	vm->numbers.guest_available_bytes = available;
	vm->numbers.guest_free_bytes = free;
}
