/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The least that answering faults takes from user space: a thread that polls userfaultfd, reads,
 * and answers each fault with UFFDIO_COPY. It keeps no record of anything, and trusts all it is
 * told: the limit to measure a pager's fault path against.
 */
#ifndef BARE_HANDLER_H
#define BARE_HANDLER_H

#include <pthread.h>
#include <stdint.h>

#include "bench_pager.h"

/**
 * struct bare_handler - a range and the thread that answers its faults
 * @mem:    the range, no page of it present
 * @bytes:  of it
 * @fill:   makes the content of a page, by its number, before it is copied there; or NULL, for any
 * @ctx:    of @fill
 * @cpu:    where the thread runs
 */
struct bare_handler {
	unsigned char *mem;
	size_t bytes;
	void (*fill)(void *ctx, uint64_t page, void *content);
	void *ctx;
	unsigned int cpu;
	int fd, uffd, stop;
	void *content;
	pthread_t thread;
};

/* @fill, @ctx and @cpu set; ends the program on an error. */
void bare_handler_open(struct bare_handler *bare, enum bench_memory memory, uint64_t pages);
void bare_handler_close(struct bare_handler *bare);

#endif /* BARE_HANDLER_H */
