/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VMs for the tests of the policy.
 */
#ifndef SUPPORT_POLICY_VM_H
#define SUPPORT_POLICY_VM_H

#include <memvirt/policy.h>

#define MIB    (1ULL << 20)
#define GIB    (1ULL << 30)
#define SECOND 1000000000ULL

/* Nothing is known. */
struct mv_policy_numbers policy_nothing_known(void);

/* A decision a second. */
struct mv_policy make_policy(uint64_t budget, uint64_t floor);

/* A VM with a limit, some of it stored at a ratio of 0.4, and no balloon. Bytes. */
struct mv_policy_vm make_vm(uint64_t configured, uint64_t limit, uint64_t resident,
			    uint64_t stored);

/* Fails the test where it fails. The policy is as after mv_policy_fini(): it may decide again. */
void decide(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count);

/* What its guest says, bytes. */
void give_guest(struct mv_policy_vm *vm, uint64_t actual, uint64_t total, uint64_t available,
		uint64_t free);

#endif /* SUPPORT_POLICY_VM_H */
