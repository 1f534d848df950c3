/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest can spare: the part of the policy that works with the guest's own numbers.
 * Pure functions, as all of it.
 */
#ifndef MEMVIRT_GOVERN_BALLOON_H
#define MEMVIRT_GOVERN_BALLOON_H

#include "govern_policy.h"

/**
 * balloon_decide() - set @vm's balloon_bytes and balloon_why
 *
 * Nothing where the guest's numbers are missing, old, or contradict each other.
 */
void balloon_decide(const struct policy *policy, struct policy_vm *vm);

/** balloon_guest_uses() - what the guest says it uses, bytes; 0 where that is unknown */
double balloon_guest_uses(const struct policy_vm *vm);

#endif /* MEMVIRT_GOVERN_BALLOON_H */
