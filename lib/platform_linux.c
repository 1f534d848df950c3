/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The platform of a Linux process: mmap, malloc and libnuma, liburcu's bulletproof flavour,
 * stderr.
 *
 * What does not belong here: anything about guest memory.
 */
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <numa.h>

/*
 * The inline read side, which its licence allows to any LGPL-compatible source. Not under the
 * sanitizers: liburcu places its readers' records with less alignment than it declares, which
 * UBSan reports, and ends the program, where the code is inlined.
 */
#ifndef __SANITIZE_ADDRESS__
#define _LGPL_SOURCE
#endif
#include <urcu/urcu-bp.h>

#include "page_arena.h"
#include "region.h"

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define THREAD_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define THREAD_SANITIZER 1
#endif

/*
 * liburcu itself is not instrumented, so ThreadSanitizer has to be told what a grace period
 * orders: what readers did comes before its end, and its begin before the readers that it
 * need not wait for. Two addresses nobody uses otherwise stand for the two.
 */
#ifdef THREAD_SANITIZER
#include <sanitizer/tsan_interface.h>
static char grace_begin, grace_end;
#define order_before(mark) __tsan_release(mark)
#define order_after(mark)  __tsan_acquire(mark)
#else
#define order_before(mark) ((void)0)
#define order_after(mark)  ((void)0)
#endif

#define PAGE_BYTES  4096
#define LINE_BYTES  64
#define TURNS_PAUSE 32 /* about a microsecond */
#define TURNS_YIELD 64 /* lets the owner run where it shares our processor */
#define NAP_NS	    20000

static bool whole_pages(size_t bytes)
{
	return bytes % PAGE_BYTES == 0;
}

/* Best effort: where the node is unknown the memory is as good as any. */
static void place(void *mem, size_t bytes, int node)
{
	if (node >= 0 && numa_available() >= 0 && node <= numa_max_node())
		numa_tonode_memory(mem, bytes, node);
}

static void *alloc_pages(size_t bytes, int node)
{
	/* Large indexes are sparse: not all that is reserved will be used. */
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		return NULL;
	place(mem, bytes, node);
	return mem;
}

static void *linux_alloc(void *ctx, size_t bytes, int node)
{
	void *mem;

	if (!bytes)
		bytes = LINE_BYTES;
	if (whole_pages(bytes))
		return alloc_pages(bytes, node);
	if (posix_memalign(&mem, LINE_BYTES, bytes))
		return NULL;
	return memset(mem, 0, bytes);
}

static void linux_free(void *ctx, void *mem, size_t bytes)
{
	if (mem && bytes && whole_pages(bytes))
		munmap(mem, bytes);
	else
		free(mem);
}

static void linux_read_enter(void *ctx)
{
	urcu_bp_read_lock();
	order_after(&grace_begin);
}

static void linux_read_leave(void *ctx)
{
	order_before(&grace_end);
	urcu_bp_read_unlock();
}

static void linux_wait_readers(void *ctx)
{
	order_before(&grace_begin);
	urcu_bp_synchronize_rcu();
	order_after(&grace_end);
}

static void linux_relax(void *ctx, unsigned int turns)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };

	if (turns < TURNS_PAUSE)
		caa_cpu_relax();
	else if (turns < TURNS_YIELD)
		sched_yield();
	else
		nanosleep(&nap, NULL);
}

static void linux_log(void *ctx, enum mv_log_level level, const char *line)
{
	/* One call, one write: stderr is unbuffered, and lines of several threads stay whole. */
	if (level <= MV_LOG_INFO)
		dprintf(STDERR_FILENO, "memvirt: %s\n", line);
}

static void *linux_table_alloc(void *ctx, int node)
{
	return mv_page_arena_alloc(node);
}

static void linux_table_free(void *ctx, void *page)
{
	mv_page_arena_free(page);
}

static const struct mv_platform_ops linux_ops = {
	.alloc = linux_alloc,
	.free = linux_free,
	.read_enter = linux_read_enter,
	.read_leave = linux_read_leave,
	.wait_readers = linux_wait_readers,
	.relax = linux_relax,
	.log = linux_log,
	.table_alloc = linux_table_alloc,
	.table_free = linux_table_free,
};

static const struct mv_platform linux_platform = { .ops = &linux_ops };

const struct mv_platform *mv_platform_linux(void)
{
	return &linux_platform;
}

const struct mv_platform *mv_platform_default(void)
{
	return &linux_platform;
}
