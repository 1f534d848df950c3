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

#endif /* SUPPORT_POLICY_VM_H */
