/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking into another process; see process.h.
 */
#include "vm/process.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE_BYTES 4096

/* Present, swapped. */
#define PAGEMAP_CONTENT (3ULL << 62)

/* --- what it maps ------------------------------------------------------------------------- */

static bool parse_line(const char *line, struct process_mapping *mapping)
{
	unsigned long long first, end, offset, inode;
	char flags[5];
	int used = 0;

	if (sscanf(line, "%llx-%llx %4s %llx %x:%x %llu %n", &first, &end, flags, &offset,
		   &mapping->dev_major, &mapping->dev_minor, &inode, &used) < 7)
		return false;
	mapping->first = first;
	mapping->last = end - 1;
	mapping->shared = flags[3] == 's';
	mapping->offset = offset;
	mapping->inode = inode;
	snprintf(mapping->path, sizeof(mapping->path), "%.*s", (int)strcspn(line + used, "\n"),
		 line + used);
	return true;
}

/* Calls until one is wanted. Return: 0; -ENOENT where none was; -errno of opening. */
static int search(pid_t pid, bool (*wanted)(const struct process_mapping *, const void *),
		  const void *what, struct process_mapping *mapping)
{
	char line[PATH_MAX + 128];
	int err = -ENOENT;

	snprintf(line, sizeof(line), "/proc/%d/maps", (int)pid);
	FILE *file = fopen(line, "re");
	if (!file)
		return -errno;
	while (err && fgets(line, sizeof(line), file))
		if (parse_line(line, mapping) && wanted(mapping, what))
			err = 0;
	fclose(file);
	return err;
}

static bool covers(const struct process_mapping *mapping, const void *what)
{
	uint64_t address = *(const uint64_t *)what;

	return mapping->first <= address && mapping->last >= address;
}

int process_find_mapping(pid_t pid, uint64_t address, struct process_mapping *mapping)
{
	return search(pid, covers, &address, mapping);
}

static bool is_of_file(const struct process_mapping *mapping, const void *name)
{
	const char *slash = strrchr(mapping->path, '/');

	return slash && !strcmp(slash + 1, name);
}

bool process_maps_file(pid_t pid, const char *name)
{
	struct process_mapping mapping;

	return search(pid, is_of_file, name, &mapping) == 0;
}

/* --- the file behind it ------------------------------------------------------------------- */

static bool is_file_of(int fd, const struct process_mapping *mapping)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_ino == mapping->inode &&
	       major(st.st_dev) == mapping->dev_major && minor(st.st_dev) == mapping->dev_minor;
}

static int open_if(const char *path, const struct process_mapping *mapping, int *fd)
{
	/* What else a path may lead to, a fifo for one, is not to be waited for. */
	int found = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	if (found < 0)
		return -errno;
	if (!is_file_of(found, mapping)) {
		close(found);
		return -ENOENT;
	}
	*fd = found;
	return 0;
}

/* Only of a file that is mapped: to open a descriptor of a device may have effects. */
static bool links_to(const char *path, const struct process_mapping *mapping)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISREG(st.st_mode) && st.st_ino == mapping->inode;
}

/* The kernel asks for more rights to open map_files than to open the process's descriptors. */
static int open_descriptor(pid_t pid, const struct process_mapping *mapping, int *fd)
{
	char path[64 + NAME_MAX];
	struct dirent *entry;
	int err = -ENOENT;

	snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
	DIR *dir = opendir(path);
	if (!dir)
		return -errno;
	while (err && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/fd/%s", (int)pid, entry->d_name);
		if (links_to(path, mapping))
			err = open_if(path, mapping, fd);
	}
	closedir(dir);
	return err;
}

int process_open_file(pid_t pid, const struct process_mapping *mapping, int *fd)
{
	char path[128];
	int err;

	snprintf(path, sizeof(path), "/proc/%d/map_files/%llx-%llx", (int)pid,
		 (unsigned long long)mapping->first, (unsigned long long)mapping->last + 1);
	err = open_if(path, mapping, fd);
	if (err)
		err = open_descriptor(pid, mapping, fd);
	return err ? open_if(mapping->path, mapping, fd) : 0;
}

/* --- its memory --------------------------------------------------------------------------- */

int process_open_pagemap(pid_t pid, int *fd)
{
	char path[64];
	int found;

	snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)pid);
	found = open(path, O_RDONLY | O_CLOEXEC);
	if (found < 0)
		return -errno;
	*fd = found;
	return 0;
}

int process_page_has_content(int pagemap, uint64_t address, bool *has)
{
	uint64_t entry;
	ssize_t got = pread(pagemap, &entry, sizeof(entry),
			    (off_t)(address / PAGE_BYTES * sizeof(entry)));

	if (got < 0)
		return -errno;
	if (got != sizeof(entry))
		return -ESRCH;
	*has = entry & PAGEMAP_CONTENT;
	return 0;
}

int process_read(pid_t pid, uint64_t address, void *bytes, size_t len)
{
	struct iovec to = { bytes, len };
	struct iovec from = { (void *)(uintptr_t)address, len };
	ssize_t got = process_vm_readv(pid, &to, 1, &from, 1, 0);

	if (got < 0)
		return -errno;
	return got == (ssize_t)len ? 0 : -EFAULT;
}
