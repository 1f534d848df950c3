/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The RAM store beside the kernel's compressed swap: the memory that the same pages take in
 * either, and what it costs to put them there and to have them back.
 *
 * The times compare parts with wholes, the store being what a pager calls, the kernel's figures
 * a page-out and a fault: so they have no goals here. The pager's own are in bench_swap.c.
 */
#include "support/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memvirt/memory.h>
#include <memvirt/store.h>

#include "../tests/support/page_mix.h"
#include "support/heap_pages.h"
#include "support/zram.h"

#define PAGES	    16384
#define PAGES_QUICK 2048

/* The usual mixture of kinds, and a real heap. */
#define KIND_MIX  PAGE_KINDS
#define KIND_REAL (PAGE_KINDS + 1)

/* What one round measured on one side. */
struct outcome {
	double put_ns;	/* the mean */
	double get_p50; /* ns */
	double get_p99;
	double memory; /* MiB */
};

struct setting {
	struct bench *bench;
	struct zram_peer *zram;
	char *pages;
	uint32_t count;
	double *latency;
	uint32_t *order;
	void *scratch;
	size_t scratch_bytes;
};

static void *allocate(size_t bytes)
{
	void *memory = aligned_alloc(64, (bytes + 63) & ~63UL);

	if (!memory)
		bench_die("no memory for %zu bytes", bytes);
	return memory;
}

static void take_percentiles(struct setting *s, size_t measured, struct outcome *outcome)
{
	outcome->get_p50 = bench_percentile(s->latency, measured, 50);
	outcome->get_p99 = bench_percentile(s->latency, measured, 99);
}

static struct mv_store *new_store(uint64_t keys)
{
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.keys = keys,
		.limit_bytes = UINT64_MAX,
	};
	struct mv_store *store;
	int error = mv_ram_store_create(&config, &store);

	if (error)
		bench_die("mv_ram_store_create: %s", strerror(-error));
	return store;
}

static void measure_ours(struct setting *s, struct outcome *outcome)
{
	static char out[MV_PAGE_SIZE] __attribute__((aligned(4096)));
	struct mv_store *store = new_store(s->count);
	struct mv_store_stats stats;
	double begin = bench_now();

	for (uint32_t i = 0; i < s->count; i++)
		if (store->ops->put(store, i, s->pages + i * MV_PAGE_SIZE, s->scratch))
			bench_die("put failed");
	outcome->put_ns = (bench_now() - begin) / s->count;
	store->ops->get_stats(store, &stats);
	outcome->memory = (double)stats.memory_bytes / (1 << 20);
	for (uint32_t i = 0; i < s->count; i++) {
		uint64_t ticks = bench_ticks();

		if (store->ops->get(store, s->order[i], out))
			bench_die("get failed");
		s->latency[i] = bench_ns(s->bench, bench_ticks() - ticks);
	}
	take_percentiles(s, s->count, outcome);
	mv_store_destroy(store);
}

static void measure_zram(struct setting *s, struct outcome *outcome)
{
	double content, memory;
	size_t measured;

	if (zram_peer_pageout(s->zram, s->pages, s->count, &outcome->put_ns) ||
	    zram_peer_usage(s->zram, &content, &memory))
		bench_die("pages do not go out to the zram device");
	/* What stayed behind would make the device look smaller than it is. */
	outcome->memory = memory / content * s->count * MV_PAGE_SIZE / (1 << 20);
	zram_peer_swapin(s->zram, s->pages, s->count, s->latency, &measured);
	take_percentiles(s, measured, outcome);
}

static void report(struct setting *s, const char *what, const char *kind, const char *unit,
		   const struct outcome *ours, const struct outcome *peer, size_t field,
		   const char *peer_name, const char *goal)
{
	double our_values[BENCH_ROUNDS_MAX], peer_values[BENCH_ROUNDS_MAX];
	char name[64];

	for (unsigned int i = 0; i < s->bench->rounds; i++) {
		memcpy(&our_values[i], (const char *)&ours[i] + field, sizeof(double));
		memcpy(&peer_values[i], (const char *)&peer[i] + field, sizeof(double));
	}
	snprintf(name, sizeof(name), "%s, %s pages", what, kind);
	bench_report(s->bench, &(struct bench_figure){
				       .name = name,
				       .unit = unit,
				       .ours = our_values,
				       .peer_name = peer_name,
				       .peer = peer_values,
				       .goal = goal,
				       .rounds = s->bench->rounds,
			       });
}

static int make_pages(struct setting *s, unsigned int kind)
{
	if (kind == KIND_REAL)
		return heap_pages(s->pages, s->count);
	for (uint32_t i = 0; i < s->count; i++)
		page_make(s->pages + i * MV_PAGE_SIZE, kind == KIND_MIX ? page_mix_kind(i) : kind,
			  i);
	return 0;
}

static void measure_kind(struct setting *s, unsigned int kind)
{
	const char *name = kind == KIND_REAL  ? "real heap"
			   : kind == KIND_MIX ? "mix"
					      : page_kind_name(kind);
	struct outcome ours[BENCH_ROUNDS_MAX], peer[BENCH_ROUNDS_MAX];

	if (make_pages(s, kind)) {
		bench_skip(s->bench, "memory, real heap pages", "no python3 to take them from");
		return;
	}
	measure_zram(s, &peer[0]);
	for (unsigned int i = 0; i < s->bench->rounds; i++) {
		measure_ours(s, &ours[i]);
		measure_zram(s, &peer[i]);
	}
	/* A tenth more real pages in the same memory, where zram's size classes leave room. */
	report(s, "memory", name, "MiB", ours, peer, offsetof(struct outcome, memory), "zram",
	       kind == KIND_REAL ? "<=0.91" : NULL);
	report(s, "put", name, "ns", ours, peer, offsetof(struct outcome, put_ns), "zram page-out",
	       NULL);
	report(s, "get p50", name, "ns", ours, peer, offsetof(struct outcome, get_p50),
	       "zram swap-in p50", NULL);
	report(s, "get p99", name, "ns", ours, peer, offsetof(struct outcome, get_p99),
	       "zram swap-in p99", NULL);
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);
	static const unsigned int kinds[] = { PAGE_TEXT, PAGE_HEAP, KIND_MIX, KIND_REAL };
	struct setting s = { .bench = &bench, .count = bench.quick ? PAGES_QUICK : PAGES };
	struct mv_store *store;
	const char *reason;

	if (zram_peer_open(&bench, &s.zram, &reason)) {
		bench_skip(&bench, "memory, put and get beside zram", reason);
		return bench_close(&bench);
	}
	bench_pin(0);
	store = new_store(1);
	s.scratch = allocate(store->ops->scratch_bytes);
	mv_store_destroy(store);
	s.pages = bench_pages(s.count * MV_PAGE_SIZE);
	s.latency = allocate(s.count * sizeof(*s.latency));
	s.order = allocate(s.count * sizeof(*s.order));
	bench_shuffle(s.order, s.count, 1);
	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		measure_kind(&s, kinds[i]);
	zram_peer_close(s.zram);
	return bench_close(&bench);
}
