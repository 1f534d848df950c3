/* SPDX-License-Identifier: BSD-2-Clause */
/* See bench_pager.h. */
#include "bench_pager.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"

#define GPA 0x100000000ULL

#define LIMIT_PAGES 8192 /* what stays resident */

unsigned char *bench_map(enum bench_memory kind, size_t bytes, int *fd)
{
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;

	*fd = -1;
	if (kind == BENCH_SHARED) {
		*fd = memfd_create("bench", MFD_CLOEXEC);
		if (*fd < 0 || ftruncate(*fd, (off_t)bytes))
			bench_die("memfd: %s", strerror(errno));
		flags = MAP_SHARED;
	}
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, *fd, 0);

	if (mem == MAP_FAILED)
		bench_die("mmap: %s", strerror(errno));
	madvise(mem, bytes, MADV_NOHUGEPAGE);
	return mem;
}

void bench_unmap(unsigned char *mem, size_t bytes, int fd)
{
	munmap(mem, bytes);
	if (fd >= 0)
		close(fd);
}

static void must(int error, const char *what)
{
	if (error)
		bench_die("%s: %s", what, strerror(-error));
}

void bench_pager_open(struct bench_pager *bp, enum bench_memory kind, uint64_t pages,
		      struct mv_store *store)
{
	struct mv_memory_config memory = { .size = sizeof(memory) };
	uint64_t bytes = (pages + BENCH_PAGER_EXTRA) * MV_PAGE_SIZE;

	*bp = (struct bench_pager){ .kind = kind, .pages = pages + BENCH_PAGER_EXTRA };
	bp->mem = bench_map(kind, bytes, &bp->fd);
	must(mv_memory_create(&memory, &bp->memory), "mv_memory_create");
	struct mv_region_config region = {
		.size = sizeof(region),
		.first_gpa = GPA,
		.last_gpa = GPA + bytes - 1,
		.hva = bp->mem,
		.fd = bp->fd,
	};
	must(mv_memory_add_region(bp->memory, &region), "mv_memory_add_region");
	struct mv_pager_config pager = {
		.size = sizeof(pager),
		.memory = bp->memory,
		.store = store,
		.store_keys = bp->pages,
		.limit_bytes = MV_PAGER_UNLIMITED,
	};
	must(mv_pager_create(&pager, &bp->pager), "mv_pager_create");
	must(mv_pager_attach(bp->pager, GPA), "mv_pager_attach");
	memset(bp->mem, 1, bytes);
}

void bench_pager_fill(struct bench_pager *bp, const unsigned char *source, uint64_t pages)
{
	memcpy(bp->mem, source, pages * MV_PAGE_SIZE);
}

/* --- threads ------------------------------------------------------------------------------ */

struct evictor_start {
	struct bench_pager *bp;
	unsigned int cpu;
	pthread_barrier_t *barrier;
};

static void *run_evictor(void *ctx)
{
	struct evictor_start start = *(struct evictor_start *)ctx;

	bench_pin(start.cpu);
	pthread_barrier_wait(start.barrier);
	mv_pager_evict(start.bp->pager);
	return NULL;
}

static void *run_handler(void *ctx)
{
	struct bench_pager *bp = ctx;

	bench_pin(bp->handler_cpu);
	mv_pager_handle_faults(bp->pager);
	return NULL;
}

static uint64_t resident_pages(struct bench_pager *bp)
{
	struct mv_pager_stats stats;

	mv_pager_get_stats(bp->pager, &stats);
	return stats.resident_bytes / MV_PAGE_SIZE;
}

static void wait_for_eviction(struct bench_pager *bp)
{
	const struct timespec moment = { .tv_nsec = 1000000 };

	/* The evictors stop a little below the limit, not at it. */
	while (resident_pages(bp) > LIMIT_PAGES - LIMIT_PAGES / 64)
		nanosleep(&moment, NULL);
}

/* The hands go upwards, so what stays resident are the pages at the end. */
static void check_evicted(struct bench_pager *bp)
{
	for (uint64_t page = 0; page < bp->pages - BENCH_PAGER_EXTRA; page++) {
		enum mv_page_state state;

		mv_memory_page_state(bp->memory, GPA + page * MV_PAGE_SIZE, &state);
		if (state != MV_PAGE_STORED)
			bench_die("page %llu was not evicted", (unsigned long long)page);
	}
}

double bench_pager_evict_all(struct bench_pager *bp, unsigned int evictors)
{
	struct evictor_start starts[4];
	pthread_barrier_t barrier;
	double begin;

	must(mv_pager_set_limit(bp->pager, LIMIT_PAGES * MV_PAGE_SIZE), "mv_pager_set_limit");
	pthread_barrier_init(&barrier, NULL, evictors + 1);
	for (unsigned int i = 0; i < evictors; i++) {
		starts[i] = (struct evictor_start){ bp, i, &barrier };
		if (pthread_create(&bp->evictor[i], NULL, run_evictor, &starts[i]))
			bench_die("no thread");
	}
	bp->evictors = evictors;
	pthread_barrier_wait(&barrier);
	begin = bench_now();
	wait_for_eviction(bp);
	double took = bench_now() - begin;

	bp->evicted = bp->pages - resident_pages(bp);
	mv_pager_hold(bp->pager, MV_PAGER_HOLD_CALLER);
	pthread_barrier_destroy(&barrier);
	check_evicted(bp);
	return took;
}

void bench_pager_start_handler(struct bench_pager *bp, unsigned int cpu)
{
	const struct timespec moment = { .tv_nsec = 1000000 };

	bp->handler_cpu = cpu;
	if (pthread_create(&bp->handler, NULL, run_handler, bp))
		bench_die("no thread");
	bp->handling = true;
	nanosleep(&moment, NULL);
}

void bench_pager_close(struct bench_pager *bp)
{
	must(mv_pager_forget(bp->pager, GPA), "mv_pager_forget");
	mv_pager_stop(bp->pager);
	if (bp->handling)
		pthread_join(bp->handler, NULL);
	for (unsigned int i = 0; i < bp->evictors; i++)
		pthread_join(bp->evictor[i], NULL);
	mv_pager_destroy(bp->pager);
	must(mv_memory_remove_region(bp->memory, GPA), "mv_memory_remove_region");
	mv_memory_destroy(bp->memory);
	bench_unmap(bp->mem, bp->pages * MV_PAGE_SIZE, bp->fd);
}
