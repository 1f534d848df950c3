/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table engine beside bare loops over the same memory: stores, compare-exchanges, loads, with
 * no checks, no read sections and nobody else to think of.
 */
#include "support/bench.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memvirt/table.h>

#include "formats.h"
#include "table_engine.h"
#include "table_entry.h"

#define PAGE	 4096ULL
#define GIB	 (1ULL << 30)
#define RW	 (MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC)
#define MAP_GIB	 2 /* 4 MiB of tables */
#define WALKS	 200000
#define AT_ONCE	 1024
#define FRAME	 0x000ffffffffff000ULL
#define ACCESSED (1ULL << 5)

struct setting {
	struct mv_table_config config;
	struct mv_engine engine;
	uint64_t bytes;	  /* mapped, or to be */
	uint64_t entries; /* of 4 KiB in them */
	uint64_t *flat;	  /* so many entries */
	uint64_t address[AT_ONCE], phys[AT_ONCE];
	uint64_t random;
	unsigned int threads;
};

static void need(int error, const char *what)
{
	if (error)
		bench_die("%s: %s", what, strerror(-error));
}

static void open_table(struct setting *s, uint64_t bytes)
{
	memset(s, 0, sizeof(*s));
	s->config = (struct mv_table_config){
		.size = sizeof(s->config),
		.format = MV_FORMAT_X86_4L,
		.features = MV_FEATURE_NX,
		.maxphyaddr = 48,
		.node = -1,
	};
	need(mv_engine_init(&s->engine, &s->config), "mv_engine_init");
	s->bytes = bytes;
	s->entries = bytes / PAGE;
	s->flat = bench_pages(s->entries * sizeof(*s->flat));
	s->random = 1;
}

static void map_all(struct setting *s)
{
	need(mv_engine_map(&s->engine, 0, s->bytes - 1, GIB, RW, 12), "map");
}

static void unmap_all(struct setting *s)
{
	need(mv_engine_unmap(&s->engine, 0, s->bytes - 1, NULL, NULL, NULL), "unmap");
}

static double per_entry(const struct setting *s, double began)
{
	return (bench_now() - began) / (double)s->entries;
}

/* --- mapping ---------------------------------------------------------------------------------- */

static double map_fresh(void *ctx)
{
	struct setting *s = ctx;
	double began = bench_now(), figure;

	map_all(s);
	figure = per_entry(s, began);
	unmap_all(s);
	return figure;
}

static double store_loop(void *ctx)
{
	struct setting *s = ctx;
	double began = bench_now();
	uint64_t entry = GIB | 7;

	for (uint64_t i = 0; i < s->entries; i++, entry += PAGE)
		*(volatile uint64_t *)&s->flat[i] = entry;
	return per_entry(s, began);
}

static double map_linked(void *ctx)
{
	struct setting *s = ctx;
	struct mv_zapped zapped;
	double began = bench_now(), figure;

	map_all(s);
	figure = per_entry(s, began);
	mv_engine_zap(&s->engine, 0, s->bytes - 1, &zapped, NULL, NULL);
	return figure;
}

static double exchange_loop(void *ctx)
{
	struct setting *s = ctx;
	uint64_t entry = GIB | 7;
	double began;

	memset(s->flat, 0, s->entries * sizeof(*s->flat));
	began = bench_now();
	for (uint64_t i = 0; i < s->entries; i++, entry += PAGE) {
		uint64_t old = 0;

		__atomic_compare_exchange_n(&s->flat[i], &old, entry, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
	}
	return per_entry(s, began);
}

static void bench_map(struct bench *bench)
{
	static struct setting s;
	struct mv_zapped zapped;

	open_table(&s, bench->quick ? GIB / 8 : MAP_GIB * GIB);
	bench_compare(bench, &(struct bench_pair){ .name = "map 4K pages, new tables",
						   .unit = "ns/entry",
						   .peer_name = "plain stores",
						   .ours = map_fresh,
						   .peer = store_loop,
						   .ctx = &s,
						   .goal = "<=1.50" });
	map_all(&s);
	mv_engine_zap(&s.engine, 0, s.bytes - 1, &zapped, NULL, NULL);
	bench_compare(bench, &(struct bench_pair){ .name = "map 4K pages, linked tables",
						   .unit = "ns/entry",
						   .peer_name = "lock cmpxchg",
						   .ours = map_linked,
						   .peer = exchange_loop,
						   .ctx = &s,
						   .goal = "<=1.30" });
	mv_engine_finish(&s.engine);
}

/* --- two threads ------------------------------------------------------------------------------ */

struct half {
	struct setting *s;
	unsigned int number;
	pthread_barrier_t *begin;
	double seconds;
};

/* A half of the range each, above each other's root entry. */
static void *map_half(void *arg)
{
	struct half *half = arg;
	uint64_t first = half->number * 512 * GIB;
	double began;

	bench_pin(half->number % bench_cpus());
	pthread_barrier_wait(half->begin);
	began = bench_now();
	need(mv_engine_map(&half->s->engine, first, first + half->s->bytes - 1, GIB, RW, 12),
	     "map");
	half->seconds = (bench_now() - began) / 1e9;
	return NULL;
}

/* Million entries a second of so many threads, the slowest one's time. */
static double map_by(struct setting *s, unsigned int threads)
{
	struct half half[2];
	pthread_barrier_t begin;
	pthread_t thread[2];
	double longest = 0;

	pthread_barrier_init(&begin, NULL, threads);
	for (unsigned int i = 0; i < threads; i++) {
		half[i] = (struct half){ s, i, &begin, 0 };
		need(-pthread_create(&thread[i], NULL, map_half, &half[i]), "pthread_create");
	}
	for (unsigned int i = 0; i < threads; i++) {
		pthread_join(thread[i], NULL);
		longest = half[i].seconds > longest ? half[i].seconds : longest;
	}
	pthread_barrier_destroy(&begin);
	need(mv_engine_unmap(&s->engine, 0, 1024 * GIB - 1, NULL, NULL, NULL), "unmap");
	return (double)(threads * s->entries) / longest / 1e6;
}

static double map_by_two(void *ctx)
{
	return map_by(ctx, 2);
}

static double map_by_one(void *ctx)
{
	return map_by(ctx, 1);
}

static void bench_threads(struct bench *bench)
{
	static struct setting s;

	if (bench_cpus() < 2) {
		bench_skip(bench, "map by 2 threads", "there is one processor");
		return;
	}
	open_table(&s, bench->quick ? GIB / 8 : 4 * GIB);
	bench_compare(bench, &(struct bench_pair){ .name = "map by 2 threads, disjoint ranges",
						   .unit = "M entries/s",
						   .peer_name = "1 thread",
						   .ours = map_by_two,
						   .peer = map_by_one,
						   .ctx = &s,
						   .goal = ">=1.70" });
	mv_engine_finish(&s.engine);
	bench_pin(0);
}

/* --- walks ------------------------------------------------------------------------------------ */

static uint64_t random_address(struct setting *s)
{
	return bench_random(&s->random) % s->entries * PAGE;
}

/* The next address waits for the last answer, as it does for who chases pointers. */
static double walk_ours(void *ctx)
{
	struct setting *s = ctx;
	double began = bench_now();
	uint64_t wait = 0;

	for (unsigned int i = 0; i < WALKS; i++) {
		struct mv_mapping mapping;

		if (mv_engine_walk(&s->engine, random_address(s) + wait, &mapping))
			bench_die("not mapped");
		wait = mapping.phys >> 63;
	}
	return (bench_now() - began) / WALKS;
}

static double walk_unchecked(void *ctx)
{
	struct setting *s = ctx;
	double began = bench_now();
	uint64_t wait = 0;

	for (unsigned int i = 0; i < WALKS; i++) {
		uint64_t address = random_address(s) + wait, entry = s->engine.root;

		for (int shift = 39; shift >= 12; shift -= 9)
			entry = ((volatile uint64_t *)(entry & FRAME))[address >> shift & 511];
		wait = entry >> 63; /* 0: pages are executable */
	}
	return (bench_now() - began) / WALKS;
}

static double translate_many(void *ctx)
{
	struct setting *s = ctx;
	double spent = 0;

	for (unsigned int i = 0; i < WALKS; i += AT_ONCE) {
		double began;

		for (unsigned int n = 0; n < AT_ONCE; n++)
			s->address[n] = random_address(s);
		began = bench_now();
		if (mv_engine_translate_many(&s->engine, s->address, s->phys, AT_ONCE) != AT_ONCE)
			bench_die("not mapped");
		spent += bench_now() - began;
	}
	return spent / ((WALKS + AT_ONCE - 1) / AT_ONCE * AT_ONCE);
}

static void bench_walks(struct bench *bench, uint64_t gib)
{
	static struct setting s;
	char name[64];

	open_table(&s, gib * GIB);
	map_all(&s);
	snprintf(name, sizeof(name), "walk, random in %llu GiB", (unsigned long long)gib);
	bench_compare(bench, &(struct bench_pair){ .name = name,
						   .unit = "ns",
						   .peer_name = "4 loads, unchecked",
						   .ours = walk_ours,
						   .peer = walk_unchecked,
						   .ctx = &s,
						   .goal = gib >= 16 ? "<=1.15" : NULL });
	snprintf(name, sizeof(name), "translate_many, random in %llu GiB", (unsigned long long)gib);
	bench_compare(bench, &(struct bench_pair){ .name = name,
						   .unit = "ns",
						   .peer_name = "4 loads, unchecked",
						   .ours = translate_many,
						   .peer = walk_unchecked,
						   .ctx = &s,
						   .goal = gib >= 16 ? "<=0.20" : NULL });
	mv_engine_finish(&s.engine);
}

/* --- taking away ------------------------------------------------------------------------------ */

static double unmap_ours(void *ctx)
{
	struct setting *s = ctx;
	double began, figure;

	map_all(s);
	began = bench_now();
	unmap_all(s);
	figure = per_entry(s, began);
	return figure;
}

static double take_loop(void *ctx)
{
	struct setting *s = ctx;
	double began = bench_now();

	for (uint64_t i = 0; i < s->entries; i++)
		__atomic_exchange_n(&s->flat[i], 0, __ATOMIC_SEQ_CST);
	return per_entry(s, began);
}

/* As a processor would have set them. */
static void access_all(struct setting *s)
{
	for (uint64_t at = 0; at < s->bytes; at += 512 * PAGE) {
		uint64_t entry = s->engine.root;

		for (int shift = 39; shift > 12; shift -= 9)
			entry = ((uint64_t *)(entry & FRAME))[at >> shift & 511];
		for (int i = 0; i < 512; i++)
			((uint64_t *)(entry & FRAME))[i] |= ACCESSED;
	}
}

static double harvest_ours(void *ctx)
{
	struct setting *s = ctx;
	double began = bench_now();

	mv_engine_harvest(&s->engine, 0, s->bytes - 1, MV_ATTR_ACCESSED, NULL, NULL, true);
	return per_entry(s, began);
}

static double harvest_all_ours(void *ctx)
{
	access_all(ctx);
	return harvest_ours(ctx);
}

static double harvest_loop(void *ctx)
{
	struct setting *s = ctx;
	double began = bench_now();
	uint64_t count = 0;

	for (uint64_t i = 0; i < s->entries; i++)
		if (*(volatile uint64_t *)&s->flat[i] & ACCESSED) {
			__atomic_fetch_and(&s->flat[i], ~ACCESSED, __ATOMIC_SEQ_CST);
			count++;
		}
	s->phys[0] = count;
	return per_entry(s, began);
}

static double harvest_all_loop(void *ctx)
{
	struct setting *s = ctx;

	for (uint64_t i = 0; i < s->entries; i++)
		s->flat[i] |= ACCESSED;
	return harvest_loop(ctx);
}

static void bench_taking(struct bench *bench)
{
	static struct setting s;

	open_table(&s, bench->quick ? GIB / 8 : MAP_GIB * GIB);
	bench_compare(bench, &(struct bench_pair){ .name = "unmap 4K pages with their tables",
						   .unit = "ns/entry",
						   .peer_name = "lock xchg",
						   .ours = unmap_ours,
						   .peer = take_loop,
						   .ctx = &s,
						   .goal = "<=0.50" });
	map_all(&s);
	bench_compare(bench, &(struct bench_pair){ .name = "harvest, all accessed",
						   .unit = "ns/entry",
						   .peer_name = "test, lock and",
						   .ours = harvest_all_ours,
						   .peer = harvest_all_loop,
						   .ctx = &s,
						   .goal = "<=1.30" });
	bench_compare(bench, &(struct bench_pair){ .name = "harvest, none accessed",
						   .unit = "ns/entry",
						   .peer_name = "test",
						   .ours = harvest_ours,
						   .peer = harvest_loop,
						   .ctx = &s,
						   .goal = "<=1.50" });
	mv_engine_finish(&s.engine);
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);

	bench_pin(0);
	bench_map(&bench);
	bench_threads(&bench);
	bench_walks(&bench, 1);
	bench_walks(&bench, bench.quick ? 2 : 16);
	bench_taking(&bench);
	return bench_close(&bench);
}
