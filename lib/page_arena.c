/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Table pages come from chunks of 2 MiB, aligned, so that the kernel can back each by one huge
 * page and the tables of a large space by few TLB entries. A chunk's first page is its record:
 * what is free is known there, and not touched. The lowest free page goes first, so that who
 * takes many gets neighbours.
 *
 * Processors take pages from different stripes, so that they do not wait for each other.
 *
 * This state is the process's, not an object's: the platform of a process is a constant, and
 * the memory that its tables have freed serves the next table. Nothing happens before the
 * first page is asked for.
 *
 * What does not belong here: memory other than table pages (platform_linux.c).
 */
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>

#include <numa.h>

#include "page_arena.h"

#define PAGE_BYTES  4096UL
#define CHUNK_BYTES (2UL << 20)
#define CHUNK_PAGES (CHUNK_BYTES / PAGE_BYTES)
#define CHUNKS_KEPT 16 /* of those that are wholly free */
#define STRIPES	    8
#define NODES	    64 /* that are kept apart; pages of the others come from any */

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/**
 * struct chunk - a chunk's first page
 * @next, @prev: among the chunks of the node that have a free page
 * @stripe:      that it belongs to
 * @place:       index of that list
 * @count:       free pages
 * @free:        one bit each
 */
struct chunk {
	struct chunk *next, *prev;
	struct stripe *stripe;
	unsigned int place;
	unsigned int count;
	uint64_t free[CHUNK_PAGES / 64];
};

_Static_assert(sizeof(struct chunk) <= PAGE_BYTES, "the record is a page");

/**
 * struct stripe - some of the chunks
 * @lock:   of all that follows, and of the chunks' records
 * @lists:  by node, the last for any: chunks with a free page
 */
struct stripe {
	pthread_mutex_t lock;
	struct chunk *lists[NODES + 1];
} __attribute__((aligned(64)));

static struct stripe stripes[STRIPES] = {
	[0 ... STRIPES - 1] = { .lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP },
};

/* Atomic: chunks of all stripes without a page in use. */
static unsigned int unused;

/* Atomic: where to look for room, once the lowest 2 GiB are full. */
static uintptr_t next_room = 1UL << 32;

/* The processor's, which nobody else uses at this time but who was moved away in between. */
static struct stripe *stripe_here(void)
{
	int cpu = sched_getcpu();

	return &stripes[cpu < 0 ? 0 : (unsigned int)cpu % STRIPES];
}

static unsigned int list_of_node(int node)
{
	if (node < 0 || node >= NODES || numa_available() < 0 || node > numa_max_node())
		return NODES;
	return (unsigned int)node;
}

static void list_add(struct chunk *chunk)
{
	struct chunk **list = &chunk->stripe->lists[chunk->place];

	chunk->prev = NULL;
	chunk->next = *list;
	if (*list)
		(*list)->prev = chunk;
	*list = chunk;
}

static void list_remove(struct chunk *chunk)
{
	if (chunk->prev)
		chunk->prev->next = chunk->next;
	else
		chunk->stripe->lists[chunk->place] = chunk->next;
	if (chunk->next)
		chunk->next->prev = chunk->prev;
}

/* --- chunks ------------------------------------------------------------------------------- */

static void *map_at(uintptr_t at, size_t bytes, int flags)
{
	void *mem = mmap((void *)at, bytes, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | flags, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

/* Twice the size, and what is not aligned given back. */
static void *map_aligned(int flags)
{
	char *mem = map_at(0, 2 * CHUNK_BYTES, flags), *chunk;

	if (!mem)
		return NULL;
	chunk = (char *)(((uintptr_t)mem + CHUNK_BYTES - 1) & ~(CHUNK_BYTES - 1));
	if (chunk > mem)
		munmap(mem, (size_t)(chunk - mem));
	munmap(chunk + CHUNK_BYTES, (size_t)(mem + CHUNK_BYTES - chunk));
	return chunk;
}

/* From 4 GiB upwards; other mappings are stepped over. */
static void *map_low(void)
{
	for (int i = 0; i < 64; i++) {
		uintptr_t at = __atomic_fetch_add(&next_room, CHUNK_BYTES, __ATOMIC_RELAXED);
		void *mem = map_at(at, CHUNK_BYTES, MAP_FIXED_NOREPLACE);

		if (mem == (void *)at)
			return mem;
		if (mem) /* a kernel that takes it for a hint */
			munmap(mem, CHUNK_BYTES);
	}
	return NULL;
}

static struct chunk *chunk_new(struct stripe *stripe, unsigned int place)
{
	struct chunk *chunk = map_aligned(MAP_32BIT);

	if (!chunk)
		chunk = map_low();
	if (!chunk)
		chunk = map_aligned(0);
	if (!chunk)
		return NULL;
	if (place < NODES)
		numa_tonode_memory(chunk, CHUNK_BYTES, (int)place);
	madvise(chunk, CHUNK_BYTES, MADV_HUGEPAGE);
	chunk->stripe = stripe;
	chunk->place = place;
	chunk->count = CHUNK_PAGES - 1;
	for (unsigned int i = 0; i < CHUNK_PAGES / 64; i++)
		chunk->free[i] = ~(i ? 0ULL : 1ULL);
	__atomic_add_fetch(&unused, 1, __ATOMIC_RELAXED);
	list_add(chunk);
	return chunk;
}

static void chunk_drop(struct chunk *chunk)
{
	uintptr_t at = (uintptr_t)chunk;

	list_remove(chunk);
	__atomic_sub_fetch(&unused, 1, __ATOMIC_RELAXED);
	munmap(chunk, CHUNK_BYTES);
	if (at >= 1UL << 32 && at < __atomic_load_n(&next_room, __ATOMIC_RELAXED))
		__atomic_store_n(&next_room, at, __ATOMIC_RELAXED);
}

/* --- pages -------------------------------------------------------------------------------- */

/* Of a chunk that has one. */
static void *take_page(struct chunk *chunk)
{
	unsigned int word = 0, number;

	while (!chunk->free[word])
		word++;
	number = word * 64 + (unsigned int)__builtin_ctzll(chunk->free[word]);
	chunk->free[word] &= chunk->free[word] - 1;
	if (chunk->count == CHUNK_PAGES - 1)
		__atomic_sub_fetch(&unused, 1, __ATOMIC_RELAXED);
	if (--chunk->count == 0)
		list_remove(chunk);
	return (char *)chunk + number * PAGE_BYTES;
}

void *mv_page_arena_alloc(int node)
{
	unsigned int place = list_of_node(node);
	struct stripe *stripe = stripe_here();
	struct chunk *chunk;
	void *page = NULL;

	pthread_mutex_lock(&stripe->lock);
	chunk = stripe->lists[place];
	if (!chunk)
		chunk = chunk_new(stripe, place);
	if (chunk)
		page = take_page(chunk);
	pthread_mutex_unlock(&stripe->lock);
	return page;
}

void mv_page_arena_free(void *page)
{
	struct chunk *chunk = (struct chunk *)((uintptr_t)page & ~(CHUNK_BYTES - 1));
	unsigned int number = (unsigned int)(((uintptr_t)page & (CHUNK_BYTES - 1)) / PAGE_BYTES);
	struct stripe *stripe = chunk->stripe;

	pthread_mutex_lock(&stripe->lock);
	chunk->free[number / 64] |= 1ULL << number % 64;
	if (chunk->count++ == 0)
		list_add(chunk);
	if (chunk->count == CHUNK_PAGES - 1 &&
	    __atomic_add_fetch(&unused, 1, __ATOMIC_RELAXED) > CHUNKS_KEPT)
		chunk_drop(chunk);
	pthread_mutex_unlock(&stripe->lock);
}
