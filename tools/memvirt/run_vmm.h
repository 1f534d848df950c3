/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What `memvirt run` must know of a VMM's file before it starts it.
 */
#ifndef MEMVIRT_RUN_VMM_H
#define MEMVIRT_RUN_VMM_H

#include <limits.h>

/**
 * run_find_vmm() - the file that a command name means
 * @name: a path where it has a slash, else looked up in $PATH
 * @path: PATH_MAX bytes; set on success
 *
 * Return: 0; -1 after saying what is wrong.
 */
int run_find_vmm(const char *name, char *path);

/**
 * run_check_vmm() - whether a preloaded library would get into a program
 * @path: its file
 *
 * Refuses static programs, those of another machine or C library, and those for which the
 * dynamic linker would ignore LD_PRELOAD (set-uid, set-gid, file capabilities). Of a script
 * the interpreter is looked at.
 *
 * Return: 0; -1 after saying what is wrong and what to do.
 */
int run_check_vmm(const char *path);

#endif /* MEMVIRT_RUN_VMM_H */
