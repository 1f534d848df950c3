/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The tasks of a VM, between govern_vm.c, which knows what they are for, and govern_talk.c,
 * which carries them out.
 */
#ifndef MEMVIRT_GOVERN_TASKS_H
#define MEMVIRT_GOVERN_TASKS_H

#include "govern_vm.h"

static inline void task_due(struct govern_vm *vm, enum govern_task task)
{
	vm->due |= 1U << task;
}

static inline void task_settled(struct govern_vm *vm, enum govern_task task)
{
	vm->due &= ~(1U << task);
}

static inline bool task_is_due(const struct govern_vm *vm, enum govern_task task)
{
	return vm->due & (1U << task);
}

/* The guest said something; the balloon is so large. */
void govern_vm_hear_guest(struct govern_vm *vm, const struct qmp_guest_stats *stats);
void govern_vm_hear_balloon(struct govern_vm *vm, uint64_t actual_bytes);
void govern_vm_hear_size(struct govern_vm *vm, uint64_t bytes);

#endif /* MEMVIRT_GOVERN_TASKS_H */
