/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the governor is told to do: an INI file and the command line, which goes before it.
 * Each setting of the host has one name in both.
 *
 * What does not belong here: what follows from it.
 */
#ifndef MEMVIRT_GOVERN_CONFIG_H
#define MEMVIRT_GOVERN_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include <memvirt/policy.h>

#include "vm/rundir.h"

/**
 * enum govern_exit - what becomes of the VMs when the governor ends
 * @GOVERN_EXIT_SAFE:    limits stay, and bound what the host needs; balloons under a limit are
 *                       given back, since nobody will when the guest needs the memory
 * @GOVERN_EXIT_KEEP:    everything stays
 * @GOVERN_EXIT_RELEASE: no limits, no balloons
 */
enum govern_exit {
	GOVERN_EXIT_SAFE,
	GOVERN_EXIT_KEEP,
	GOVERN_EXIT_RELEASE,
};

/**
 * struct govern_want - what is wanted of one VM
 * @qmp:   its QMP socket; empty where none was given
 * @named: on the command line
 *
 * The rest as in struct mv_policy_vm.
 */
struct govern_want {
	char name[RUNDIR_NAME_MAX + 1];
	char qmp[RUNDIR_PATH_MAX];
	uint32_t shares;
	uint64_t floor_bytes;
	uint64_t min_bytes;
	uint64_t max_bytes;
	bool named;
};

/**
 * struct govern_config - all of it; texts are empty where they were not given
 * @run_dir:    as it was given; see rundir_choose()
 * @qmp_dir:    where QMP sockets of VMs without memvirt are, each NAME.qmp
 * @libvirt:    URI of VMs under libvirt
 * @journal:    file for decisions
 * @listen:     socket for targets from outside
 * @some_named: only VMs named on the command line are governed
 */
struct govern_config {
	struct mv_policy_config policy;
	double interval_s;
	char run_dir[RUNDIR_PATH_MAX];
	char qmp_dir[RUNDIR_PATH_MAX];
	char libvirt[256];
	char journal[PATH_MAX];
	char listen[RUNDIR_PATH_MAX];
	enum govern_exit on_exit;
	bool once;
	bool dry_run;
	bool json;
	struct govern_want *wants;
	unsigned int want_count;
	bool some_named;
};

/**
 * govern_config_read() - from the command line, and from the file that it names
 * @config: set; to be given to govern_config_free() in any case
 *
 * Return: 0; the exit status, with a message.
 */
int govern_config_read(int argc, char **argv, struct govern_config *config);

/** govern_config_free() - what belongs to it */
void govern_config_free(struct govern_config *config);

/** govern_config_want() - what is wanted of a VM; NULL for nothing in particular */
const struct govern_want *govern_config_want(const struct govern_config *config, const char *name);

#endif /* MEMVIRT_GOVERN_CONFIG_H */
