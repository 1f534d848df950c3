/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is behind a mapping of this process: anonymous memory, a memfd, a file, huge pages;
 * and a descriptor to it. Found out from /proc, because a KVM memory slot names only an
 * address, and because a mapping may have changed since it was made.
 *
 * What does not belong here: whether the memory is managed.
 */
#ifndef PRELOAD_BACKING_H
#define PRELOAD_BACKING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum backing_kind {
	BACKING_ANONYMOUS, /* private, no file */
	BACKING_MEMFD,
	BACKING_SHM_FILE, /* a file on tmpfs, or shared anonymous memory */
	BACKING_HUGETLB,
	BACKING_FILE, /* any other file, and private copies of a file */
};

/** backing_kind_name() - as query-info spells it */
const char *backing_kind_name(enum backing_kind kind);

/**
 * struct backing - one stretch of addresses with the same thing behind it
 * @first:  first address
 * @last:   last one
 * @kind:   what it is
 * @shared: MAP_SHARED
 * @fd:     a descriptor of its own, close-on-exec, for reading and writing; -1 for none
 * @offset: in the file, of @first
 * @dev:    of the file
 * @ino:    of the file; 0 for none
 * @why:    why the memory cannot be managed, a constant text; NULL where it may be possible
 */
struct backing {
	uintptr_t first;
	uintptr_t last;
	enum backing_kind kind;
	bool shared;
	int fd;
	uint64_t offset;
	dev_t dev;
	ino_t ino;
	const char *why;
};

#define BACKING_PIECES_MAX 64

/**
 * backing_examine() - what is behind a range
 * @first:  first address
 * @last:   last one
 * @pieces: BACKING_PIECES_MAX of them; set to the readable and writable stretches, joined
 *          where neighbours continue each other, in order. Whoever takes a piece closes its
 *          descriptor.
 * @count:  set to how many
 *
 * Return: 0; -errno where /proc/self/maps cannot be read.
 */
int backing_examine(uintptr_t first, uintptr_t last, struct backing *pieces, unsigned int *count);

#endif /* PRELOAD_BACKING_H */
