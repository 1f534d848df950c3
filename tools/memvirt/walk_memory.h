/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest-physical memory of a running VM, read from outside: which addresses are memory,
 * where each is kept, and its content, page by page, each read once.
 *
 * Looking must not change the VM. What memvirt manages is read through the VM's control socket
 * alone; a file behind other memory with pread(), which leaves its holes as they are; private
 * memory only where the process has a page.
 *
 * What does not belong here: what the content means.
 */
#ifndef MEMVIRT_WALK_MEMORY_H
#define MEMVIRT_WALK_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <memvirt/guest_walk.h>

#include "vm/machine.h"
#include "vm/process.h"
#include "vm/rpc.h"

#define WALK_PAGE 4096

/** enum walk_source - how a range is read */
enum walk_source {
	WALK_UNREADABLE,
	WALK_FILE,    /* shared: pread() from the file */
	WALK_PROCESS, /* private: from the process, and the file where it has no page of its own */
	WALK_CONTROL, /* managed: by the VM itself */
};

/**
 * struct walk_range - guest-physical addresses and what is behind them
 * @machine:     as QEMU says
 * @hva:         of the first byte, in the VMM's process; 0 for unknown
 * @source:      how it is read
 * @fd:          the file, or -1
 * @file_offset: of the first byte in it
 * @file:        its path, to be shown; NULL for none
 */
struct walk_range {
	struct machine_range machine;
	uint64_t hva;
	enum walk_source source;
	int fd;
	uint64_t file_offset;
	char *file;
};

/** struct walk_page - a page that was read; @key is its number plus 1, 0 for a free place */
struct walk_page {
	uint64_t key;
	unsigned char *bytes;
};

/**
 * struct walk_memory - all of it
 * @ranges:  sorted; the memory's, as are descriptors and paths in it
 * @count:   how many
 * @pid:     the VMM's; 0 for unknown
 * @pagemap: of that process, or -1
 * @control: its control socket; NULL where it is not managed; the caller's
 * @page, @places, @pages: what was read; a table of so many places, a power of two
 * @failure: the last error that was more than "no memory there", in words; empty for none
 */
struct walk_memory {
	struct walk_range *ranges;
	unsigned int count;
	pid_t pid;
	int pagemap;
	struct rpc *control;
	struct walk_page *page;
	size_t places;
	size_t pages;
	char failure[RPC_WHY];
};

/** walk_memory_init() - nothing yet */
void walk_memory_init(struct walk_memory *memory);

/** walk_memory_close() - free all, but @control */
void walk_memory_close(struct walk_memory *memory);

/** walk_memory_find() - the range of an address; NULL where no memory is */
const struct walk_range *walk_memory_find(const struct walk_memory *memory, uint64_t gpa);

/**
 * walk_memory_read() - an entry of a table, or anything within a page
 * @memory: the memory
 * @gpa:    its address; it does not cross a page
 * @bytes:  set on success
 * @len:    how many
 *
 * Return: 0; -EFAULT where no memory is; -EIO where it cannot be read, memory->failure says
 * why; -ENOMEM.
 */
int walk_memory_read(struct walk_memory *memory, uint64_t gpa, void *bytes, size_t len);

/**
 * walk_memory_fetch() - read pages that will be asked for, with as few questions as can be
 * @memory: the memory
 * @gpa:    addresses of pages
 * @count:  how many
 *
 * For memory that is read by asking: of other memory nothing is read ahead. What cannot be read
 * is left out, and fails when it is asked for.
 */
void walk_memory_fetch(struct walk_memory *memory, const uint64_t *gpa, size_t count);

#endif /* MEMVIRT_WALK_MEMORY_H */
