/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The run directory: where each running VM has its control socket and its statistics
 * segment, and how a VM's name becomes their paths.
 *
 * What does not belong here: who is alive (find.h), what is said over the socket
 * (control_wire.h). No json-c: the preload library links this.
 */
#ifndef VM_RUNDIR_H
#define VM_RUNDIR_H

#include <stdbool.h>
#include <stddef.h>

/* Room for any path that a control socket can be bound to (sun_path), with its NUL. */
#define RUNDIR_PATH_MAX 108
#define RUNDIR_NAME_MAX 63

#define RUNDIR_SOCKET ".sock"
#define RUNDIR_STATS  ".stats"

/**
 * rundir_choose() - which run directory is meant
 * @option: what the user gave, or NULL: then $MEMVIRT_RUN_DIR, else /run/memvirt as root,
 *          else $XDG_RUNTIME_DIR/memvirt
 * @dir:    RUNDIR_PATH_MAX bytes; set to an absolute path on success
 *
 * Looks at nothing on disk but the working directory, where a path is relative.
 *
 * Return: 0; -ENOENT where nothing names one; -ENAMETOOLONG; -errno of getcwd().
 */
int rundir_choose(const char *option, char *dir);

/**
 * rundir_absolute() - a path that stays right when the working directory changes
 * @given: a path
 * @path:  RUNDIR_PATH_MAX bytes; set on success
 *
 * Return: 0; -ENAMETOOLONG; -errno of getcwd().
 */
int rundir_absolute(const char *given, char *path);

/**
 * rundir_create() - see to it that the run directory exists, for this user alone
 * @dir: as rundir_choose() gave it; its parent must exist
 *
 * Return: 0; -EPERM where it belongs to another user or others may write to it; -ENOTDIR;
 * -errno of mkdir().
 */
int rundir_create(const char *dir);

/**
 * rundir_name_valid() - whether a VM may have this name
 * @name: 1 to 63 of A-Z a-z 0-9 . _ -, the first one neither '.' nor '-'
 */
bool rundir_name_valid(const char *name);

/**
 * rundir_path() - the path of one of a VM's files
 * @dir:    run directory
 * @name:   the VM's name
 * @suffix: RUNDIR_SOCKET or RUNDIR_STATS
 * @path:   RUNDIR_PATH_MAX bytes; set on success
 *
 * Return: 0; -EINVAL for a bad name; -ENAMETOOLONG.
 */
int rundir_path(const char *dir, const char *name, const char *suffix, char *path);

#endif /* VM_RUNDIR_H */
