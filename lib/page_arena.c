/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Table pages come from chunks of 2 MiB, aligned, so that the kernel can back each by one huge
 * page and the tables of a large space by few TLB entries. A chunk's first page is its record:
 * what is free is known there, and not touched. The lowest free page goes first, so that who
 * takes many gets neighbours.
 *
 * This state is the process's, not an object's: the platform of a process is a constant, and
 * the memory that its tables have freed serves the next table. Nothing happens before the
 * first page is asked for.
 *
 * What does not belong here: memory other than table pages (platform_linux.c).
 */
#include <pthread.h>
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
#define NODES	    64 /* that are kept apart; pages of the others come from any */

#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/**
 * struct chunk - a chunk's first page
 * @next, @prev: among the chunks of the node that have a free page
 * @place:       index of that list
 * @count:       free pages
 * @free:        one bit each
 */
struct chunk {
	struct chunk *next, *prev;
	unsigned int place;
	unsigned int count;
	uint64_t free[CHUNK_PAGES / 64];
};

_Static_assert(sizeof(struct chunk) <= PAGE_BYTES, "the record is a page");

/*
 * @lists:  by node, the last for any: chunks with a free page
 * @unused: chunks without a page in use
 * @hint:   where to look next, once the lowest 2 GiB are full
 */
static struct {
	pthread_mutex_t lock;
	struct chunk *lists[NODES + 1];
	unsigned int unused;
	uintptr_t hint;
} arena = { .lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP, .hint = 1UL << 32 };

static unsigned int list_of_node(int node)
{
	if (node < 0 || node >= NODES || numa_available() < 0 || node > numa_max_node())
		return NODES;
	return (unsigned int)node;
}

static void list_add(struct chunk *chunk)
{
	struct chunk **list = &arena.lists[chunk->place];

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
		arena.lists[chunk->place] = chunk->next;
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
		uintptr_t at = arena.hint;
		void *mem = map_at(at, CHUNK_BYTES, MAP_FIXED_NOREPLACE);

		arena.hint = at + CHUNK_BYTES;
		if (mem == (void *)at)
			return mem;
		if (mem) /* a kernel that takes it for a hint */
			munmap(mem, CHUNK_BYTES);
	}
	return NULL;
}

static struct chunk *chunk_new(unsigned int place)
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
	chunk->place = place;
	chunk->count = CHUNK_PAGES - 1;
	for (unsigned int i = 0; i < CHUNK_PAGES / 64; i++)
		chunk->free[i] = ~(i ? 0ULL : 1ULL);
	arena.unused++;
	list_add(chunk);
	return chunk;
}

static void chunk_drop(struct chunk *chunk)
{
	uintptr_t at = (uintptr_t)chunk;

	list_remove(chunk);
	arena.unused--;
	munmap(chunk, CHUNK_BYTES);
	if (at >= 1UL << 32 && at < arena.hint)
		arena.hint = at;
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
		arena.unused--;
	if (--chunk->count == 0)
		list_remove(chunk);
	return (char *)chunk + number * PAGE_BYTES;
}

void *mv_page_arena_alloc(int node)
{
	unsigned int place = list_of_node(node);
	struct chunk *chunk;
	void *page = NULL;

	pthread_mutex_lock(&arena.lock);
	chunk = arena.lists[place] ? arena.lists[place] : chunk_new(place);
	if (chunk)
		page = take_page(chunk);
	pthread_mutex_unlock(&arena.lock);
	return page;
}

void mv_page_arena_free(void *page)
{
	struct chunk *chunk = (struct chunk *)((uintptr_t)page & ~(CHUNK_BYTES - 1));
	unsigned int number = (unsigned int)(((uintptr_t)page & (CHUNK_BYTES - 1)) / PAGE_BYTES);

	pthread_mutex_lock(&arena.lock);
	chunk->free[number / 64] |= 1ULL << number % 64;
	if (chunk->count++ == 0)
		list_add(chunk);
	if (chunk->count == CHUNK_PAGES - 1 && ++arena.unused > CHUNKS_KEPT)
		chunk_drop(chunk);
	pthread_mutex_unlock(&arena.lock);
}
