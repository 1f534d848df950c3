/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which VMs there are: the run directory's statistics segments and control sockets, and
 * whether the processes behind them live. Reads files only; nobody is disturbed.
 */
#ifndef VM_FIND_H
#define VM_FIND_H

#include <stdbool.h>

#include <memvirt/stats.h>

#include "vm/rundir.h"

/* A VM publishes several times a second; after this long it is stuck or stopped. */
#define FIND_SILENT_NS 5000000000ULL

/**
 * enum find_state - how a VM does
 * @FIND_OK:         its process lives and publishes
 * @FIND_DEAD:       its process has gone and left its files
 * @FIND_SILENT:     its process lives and has published nothing for 5 s, or never
 * @FIND_UNREADABLE: there is no statistics segment, or one we cannot read
 */
enum find_state {
	FIND_OK,
	FIND_DEAD,
	FIND_SILENT,
	FIND_UNREADABLE,
};

/**
 * struct find_vm - a VM that was found
 * @error: why it is FIND_UNREADABLE, -errno
 * @stats: unless FIND_UNREADABLE
 */
struct find_vm {
	char name[RUNDIR_NAME_MAX + 1];
	char socket[RUNDIR_PATH_MAX];
	char stats_path[RUNDIR_PATH_MAX];
	enum find_state state;
	int error;
	struct mv_stats stats;
};

/**
 * find_vms() - all VMs of a run directory, by name
 * @dir:   the run directory
 * @vms:   set on success; the caller's, to free(); NULL where there are none
 * @count: set on success
 *
 * Return: 0; -ENOMEM; -errno of opendir(): -ENOENT where no VM ever ran.
 */
int find_vms(const char *dir, struct find_vm **vms, unsigned int *count);

/**
 * find_vm() - one VM
 * @dir:  the run directory
 * @name: its name
 * @vm:   set on success
 *
 * Return: 0; -ENOENT where it has no files there; -EINVAL; -ENAMETOOLONG.
 */
int find_vm(const char *dir, const char *name, struct find_vm *vm);

/** find_refresh() - read a VM's segment again, and see how it does */
void find_refresh(struct find_vm *vm);

/** find_state_name() - "ok", "dead", "no answer", "unreadable" */
const char *find_state_name(enum find_state state);

#endif /* VM_FIND_H */
