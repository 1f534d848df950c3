/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VMs under libvirt, where that is installed: it is loaded at run time. Its calls wait for as
 * long as its daemon pleases, so a thread of its own makes them; the governor looks at what the
 * thread saw last, and leaves it what is to be told.
 */
#ifndef MEMVIRT_GOVERN_LIBVIRT_H
#define MEMVIRT_GOVERN_LIBVIRT_H

#include <stdint.h>

#include "vm/qmp.h"
#include "vm/rundir.h"

#define LIBVIRT_WHY 160

struct govern_libvirt;

/**
 * struct libvirt_vm - a VM as it was seen last
 * @size_bytes:   its greatest memory
 * @actual_bytes: what its balloon leaves it; UINT64_MAX where it has none
 * @guest:        what its guest says
 */
struct libvirt_vm {
	char name[RUNDIR_NAME_MAX + 1];
	uint64_t size_bytes;
	uint64_t actual_bytes;
	struct qmp_guest_stats guest;
};

/**
 * govern_libvirt_open() - load it, and start the thread
 * @uri:        "qemu:///system"
 * @interval_s: between two looks
 * @libvirt:    set on success
 * @why:        LIBVIRT_WHY bytes, set on failure
 *
 * Return: 0; -ENOENT where it is not installed; -ENOMEM; -errno of the thread. A daemon that
 * cannot be reached is said and tried again.
 */
int govern_libvirt_open(const char *uri, double interval_s, struct govern_libvirt **libvirt,
			char *why);

/** govern_libvirt_close() - end the thread, after what is to be told or a second; takes NULL */
void govern_libvirt_close(struct govern_libvirt *libvirt);

/**
 * govern_libvirt_vms() - what the thread saw last; never waits for libvirt
 * @vms: set to a copy, to free(); NULL for none
 *
 * Return: how many. What was seen longer than some intervals ago is not there any more.
 */
unsigned int govern_libvirt_vms(struct govern_libvirt *libvirt, struct libvirt_vm **vms);

/** govern_libvirt_set() - a balloon target, to be told as soon as can be */
void govern_libvirt_set(struct govern_libvirt *libvirt, const char *name, uint64_t bytes);

#endif /* MEMVIRT_GOVERN_LIBVIRT_H */
