/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The governor as a whole. govern.c is its loop; govern_config.c what it is told;
 * govern_who.c which VMs there are, and govern_libvirt.c those of libvirt; govern_vm.c and
 * govern_talk.c a VM and the talking; govern_report.c what it says of its decisions;
 * govern_listen.c who decides for it.
 */
#ifndef MEMVIRT_GOVERN_H
#define MEMVIRT_GOVERN_H

#include "govern_config.h"
#include "govern_libvirt.h"
#include "govern_listen.h"
#include "govern_report.h"
#include "govern_vm.h"

/** struct governor - the command's state */
struct governor {
	struct govern_config config;
	char run_dir[RUNDIR_PATH_MAX];
	struct mv_policy policy;
	uint64_t decided_ns; /* the last decision; 0 for none yet */
	struct govern_vm **vms;
	unsigned int count;
	struct govern_output output;
	struct govern_listener *listener; /* NULL for none */
	struct govern_libvirt *libvirt;	  /* the same */
	bool said_none;
	bool said_too_small;
	bool said_output;
};

/**
 * govern_search() - who has come, and who has gone
 *
 * Return: 0; -1 with a message where the run directory cannot be read.
 */
int govern_search(struct governor *governor);

/** govern_check_named() - -1 with a message where somebody named is not there; or 0 */
int govern_check_named(const struct governor *governor);

/** govern_find() - a VM that is governed, by its name; NULL for none */
struct govern_vm *govern_find(const struct governor *governor, const char *name);

#endif /* MEMVIRT_GOVERN_H */
