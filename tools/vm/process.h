/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking into another process: what it maps where, and the content of its memory, without
 * making pages where it has none. proc(5), and the kernel's pagemap.rst.
 */
#ifndef VM_PROCESS_H
#define VM_PROCESS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/**
 * struct process_mapping - one line of /proc/PID/maps
 * @first:  first address
 * @last:   last one
 * @shared: MAP_SHARED
 * @offset: of @first in the file, bytes
 * @inode:  0 for none: anonymous memory
 * @dev_major, @dev_minor: of the file
 * @path:   of the file, as the kernel shows it; a memfd's begins with "/memfd:"
 */
struct process_mapping {
	uint64_t first;
	uint64_t last;
	bool shared;
	uint64_t offset;
	uint64_t inode;
	unsigned int dev_major;
	unsigned int dev_minor;
	char path[PATH_MAX];
};

/**
 * process_find_mapping() - what a process has at an address
 * @pid:     the process
 * @address: in it
 * @mapping: set on success
 *
 * Return: 0; -ENOENT where nothing is; -errno of opening its maps: -EACCES, -ENOENT.
 */
int process_find_mapping(pid_t pid, uint64_t address, struct process_mapping *mapping);

/**
 * process_maps_file() - whether a process maps a file of this name, wherever that lies
 * @pid:  the process
 * @name: last part of its path
 */
bool process_maps_file(pid_t pid, const char *name);

/**
 * process_open_file() - the file behind a mapping, for reading
 * @pid:     the process
 * @mapping: one with a file
 * @fd:      set on success; the caller's
 *
 * Return: 0; -errno.
 */
int process_open_file(pid_t pid, const struct process_mapping *mapping, int *fd);

/**
 * process_open_pagemap() - which pages of a process have content
 * @pid: the process
 * @fd:  set on success; the caller's
 *
 * Return: 0; -errno.
 */
int process_open_pagemap(pid_t pid, int *fd);

/**
 * process_page_has_content() - present, or swapped out
 * @pagemap: of process_open_pagemap()
 * @address: in the page
 * @has:     set on success
 *
 * Return: 0; -errno.
 */
int process_page_has_content(int pagemap, uint64_t address, bool *has);

/**
 * process_read() - copy from the memory of a process
 * @pid:     the process
 * @address: in it
 * @bytes:   at least @len bytes
 * @len:     how many
 *
 * Like a touch by the process itself: asks process_page_has_content() first, who wants none.
 *
 * Return: 0; -EFAULT; -EPERM; -ESRCH.
 */
int process_read(pid_t pid, uint64_t address, void *bytes, size_t len);

#endif /* VM_PROCESS_H */
