/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pager with all its pages evicted, for benchmarks to bring them back from, and the time
 * that it took to evict them.
 */
#ifndef BENCH_PAGER_H
#define BENCH_PAGER_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <memvirt/memory.h>
#include <memvirt/pager.h>
#include <memvirt/store.h>

enum bench_memory {
	BENCH_SHARED,  /* memfd */
	BENCH_PRIVATE, /* anonymous */
};

/* Pages beyond those asked for: some stay resident, and evictors finish out of order. */
#define BENCH_PAGER_EXTRA 12288

struct bench_pager {
	enum bench_memory kind;
	struct mv_memory *memory;
	struct mv_pager *pager;
	unsigned char *mem;
	uint64_t pages; /* with the extra ones */
	uint64_t evicted; /* how many were, in bench_pager_evict_all() */
	int fd;
	bool handling;
	unsigned int evictors;
	unsigned int handler_cpu;
	pthread_t handler;
	pthread_t evictor[4];
};

/* Memory of 4 KiB pages of a kind; @fd is -1 for anonymous memory. */
unsigned char *bench_map(enum bench_memory kind, size_t bytes, int *fd);
void bench_unmap(unsigned char *mem, size_t bytes, int fd);

/* @pages of memory, attached, none present. Ends the program on an error, like all here. */
void bench_pager_open(struct bench_pager *bp, enum bench_memory kind, uint64_t pages,
		      struct mv_store *store);

/*
 * Fill what is not yet, and evict the first @pages, by so many threads. Then no thread runs
 * and nothing more will be evicted. Return: nanoseconds from the order to the last page.
 */
double bench_pager_evict_all(struct bench_pager *bp, unsigned int evictors);

/* Give each page its content before bench_pager_evict_all(). */
void bench_pager_fill(struct bench_pager *bp, const unsigned char *source, uint64_t pages);

void bench_pager_start_handler(struct bench_pager *bp, unsigned int cpu);
void bench_pager_close(struct bench_pager *bp);

#endif /* BENCH_PAGER_H */
