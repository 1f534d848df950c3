/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a QEMU command line tells about its VM.
 */
#ifndef MEMVIRT_RUN_QEMU_H
#define MEMVIRT_RUN_QEMU_H

#include <stdbool.h>
#include <stddef.h>

/**
 * run_qemu_name() - the VM's name: -name X, -name guest=X
 * @args: the VMM's arguments, NULL at the end
 * @name: set to the name as QEMU reads it, cut to @size
 * @size: bytes at @name
 *
 * Return: false where there is none; @name is then untouched.
 */
bool run_qemu_name(char *const *args, char *name, size_t size);

/**
 * run_qemu_qmp() - the path of a QMP socket that QEMU will listen on
 * @args: the VMM's arguments, NULL at the end
 * @path: set to the path, as it stands there
 * @size: bytes at @path
 *
 * Knows -qmp and -qmp-pretty unix:PATH,… and -mon …,mode=control with its
 * -chardev socket,…,path=PATH.
 *
 * Return: false where there is none, or it does not fit; @path is then untouched.
 */
bool run_qemu_qmp(char *const *args, char *path, size_t size);

/**
 * run_qemu_is_probe() - whether this start only asks what the program can do, as libvirt
 * does before it starts VMs: -version, -help, -machine none, -cpu help, …
 * @args: the VMM's arguments, NULL at the end
 */
bool run_qemu_is_probe(char *const *args);

#endif /* MEMVIRT_RUN_QEMU_H */
