/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A VM as the governor sees it: what was heard from its segment, its control socket and its
 * QMP socket, and what it is to be told.
 *
 * What does not belong here: how much it gets (memvirt/policy.h), who is governed (govern.c).
 */
#ifndef MEMVIRT_GOVERN_VM_H
#define MEMVIRT_GOVERN_VM_H

#include <stdbool.h>
#include <stdint.h>

#include <memvirt/policy.h>
#include "govern_config.h"
#include "govern_libvirt.h"
#include "vm/find.h"
#include "vm/qmp.h"
#include "vm/rpc.h"

/**
 * enum govern_task - what a VM is asked or told, in the order in which it is
 */
enum govern_task {
	TASK_NONE,
	/* over the control socket */
	TASK_INFO,
	TASK_NOTE,
	TASK_LIMIT,
	TASK_SET_BALLOON,
	/* over QMP */
	TASK_LIST,
	TASK_LIST_ANON,
	TASK_SIZE,
	TASK_POLLING,
	TASK_BALLOON,
	TASK_STATS,
	TASK_TARGET,
	TASKS,
};

/**
 * struct govern_lane - one of a VM's two connections
 * @rpc:        NULL while not connected
 * @path:       of the socket; empty where none is known
 * @task:       under way, or TASK_NONE
 * @started_ns: when that began
 * @tried:      connecting failed in this tick
 * @complained: tasks whose failure was reported, one bit each, and no success since; that of
 *              TASK_NONE is for the connection
 */
struct govern_lane {
	struct rpc *rpc;
	char path[RUNDIR_PATH_MAX];
	enum govern_task task;
	uint64_t started_ns;
	bool tried;
	unsigned int complained;
};

/**
 * struct govern_rate - of a number that only rises
 * @count, @at_ns: as they were when the rate was taken; MV_STATS_UNKNOWN for never
 * @per_s:         MV_POLICY_UNKNOWN until there are two
 */
struct govern_rate {
	uint64_t count;
	uint64_t at_ns;
	uint64_t per_s;
};

/**
 * struct govern_vm - a VM
 * @plain:       memvirt did not start it: there is QMP, and no segment
 * @own_balloon: the VMM's control socket takes balloon targets, and its segment has the guest's
 *               numbers: no QMP is needed
 * @libvirt:     who knows it and tells it, where it is one of libvirt's; else NULL
 * @stats_fd:    of its segment; -1 while it is not open
 * @due:         tasks to do, one bit each
 * @device:      QOM path of the balloon device; empty where there is none or not yet found
 * @size_bytes:  of a plain one; 0 until it is known
 * @restores, @waited: pages that came back, and time that was waited for them
 * @guest_waits: of the guest's own paging, in pages
 * @outside_bytes, @outside_until_ns: what somebody else wants for it, and until when
 * @balloon_ns:  when @balloon_actual_bytes was heard; 0 for never
 * @guest_ns:    when the guest said @guest; 0 for never
 * @limit_asked_bytes: of the request sent last
 * @limit_set_bytes, @limit_set_ns: set by us last, and when; 0 for never
 * @limit_shown, @shown_limit_bytes, @shown_balloon_bytes: decisions printed last
 */
struct govern_vm {
	struct find_vm found;
	bool plain;
	bool own_balloon;
	bool seen;	  /* in this tick's search */
	bool said_joined; /* a message was given */
	struct mv_policy_vm policy;

	struct govern_lane control;
	struct govern_lane qmp;
	unsigned int due;
	bool dry_run;
	unsigned int polling_s;
	char device[QMP_PATH_MAX];

	struct govern_libvirt *libvirt;
	int stats_fd;
	uint64_t size_bytes;
	struct govern_rate restores;
	struct govern_rate waited;
	struct govern_rate guest_waits;
	uint64_t outside_bytes;
	uint64_t outside_until_ns;
	uint64_t balloon_actual_bytes;
	uint64_t balloon_ns;
	struct qmp_guest_stats guest;
	uint64_t guest_ns;
	bool guest_news; /* not yet noted */
	uint64_t limit_asked_bytes;
	uint64_t limit_set_bytes;
	uint64_t limit_set_ns;
	bool limit_shown;
	uint64_t shown_limit_bytes;
	uint64_t shown_balloon_bytes;
};

/**
 * govern_vm_init() - begin to govern a VM
 * @found:      where it was found
 * @qmp_path:   its QMP socket; NULL for the one that its control socket names
 * @interval_s: between two ticks
 * @dry_run:    tell it nothing
 */
void govern_vm_init(struct govern_vm *vm, const struct find_vm *found, const char *qmp_path,
		    double interval_s, bool dry_run);

/** govern_vm_drop() - hang up; the VM stays as it is */
void govern_vm_drop(struct govern_vm *vm);

/** govern_vm_hear_libvirt() - what libvirt says of it */
void govern_vm_hear_libvirt(struct govern_vm *vm, const struct libvirt_vm *said);

/** govern_vm_configured() - how large it is, bytes; MV_POLICY_UNKNOWN while that is not known */
uint64_t govern_vm_configured(const struct govern_vm *vm);

/**
 * govern_vm_glance() - look at its segment, between two ticks
 * @limit_ppm: time lost from which on it is short of memory
 *
 * Return: whether it is.
 */
bool govern_vm_glance(struct govern_vm *vm, uint32_t limit_ppm);

/**
 * govern_vm_set_wants() - what is wanted of it
 * @want: NULL for nothing in particular
 */
void govern_vm_set_wants(struct govern_vm *vm, const struct govern_want *want);

/** govern_vm_release() - queue what becomes of it at the end, but for GOVERN_EXIT_KEEP */
void govern_vm_release(struct govern_vm *vm, bool limit_too);

/** govern_vm_begin_tick() - what is to be asked anew */
void govern_vm_begin_tick(struct govern_vm *vm);

/**
 * govern_vm_numbers() - what is known by now, for the policy
 * @stale_ns: older numbers count as missing
 */
void govern_vm_numbers(struct govern_vm *vm, uint64_t stale_ns);

/** govern_vm_tell() - queue what was decided, and what the segment should know */
void govern_vm_tell(struct govern_vm *vm);

/**
 * govern_talk() - do what is due with all VMs at once
 * @vms:      pointers to them
 * @count:    how many
 * @deadline: CLOCK_MONOTONIC, nanoseconds; what is not done by then is left for later. Who
 *            has not answered since an earlier tick is not waited for
 */
void govern_talk(struct govern_vm **vms, unsigned int count, uint64_t deadline);

#endif /* MEMVIRT_GOVERN_VM_H */
