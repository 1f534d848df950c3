/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Evicting and restoring by the pager with the compressed store, beside the kernel's own swap
 * to zram with the same LZ4 and the same pages: heap-like ones, and the usual mixture.
 *
 * Restoring: the time of one touch of an evicted page. Evicting: the time a page, all of it:
 * finding it, unmapping, compressing, letting the host's page go. Both also beside bare loops that
 * do only what has to be done, which is what user space can reach. And evicting by two threads
 * beside one.
 */
#include "support/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../tests/support/page_mix.h"
#include "support/bare_evict.h"
#include "support/bare_restore.h"
#include "support/bench_pager.h"
#include "support/zram.h"

#define PAGES	    16384
#define PAGES_QUICK 4096

#define KIND_MIX PAGE_KINDS

struct setting {
	struct bench *bench;
	struct zram_peer *zram;
	const char *no_zram; /* why not */
	enum bench_memory memory;
	unsigned int handler_cpu;
	uint32_t count;
	unsigned char *source;
	unsigned char *swapped; /* the peer's copy of the source */
	uint32_t *order;
	double *latency;
};

/* What one round measured. */
struct outcome {
	double evict_us; /* a page */
	double restore_p50;
	double restore_p99;
};

static void make_pages(struct setting *s, int kind)
{
	for (uint32_t i = 0; i < s->count; i++)
		page_make(s->source + (size_t)i * MV_PAGE_SIZE,
			  kind == KIND_MIX ? page_mix_kind(i) : (enum page_kind)kind, i);
}

static struct mv_store *new_store(uint64_t keys)
{
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.keys = keys,
		.limit_bytes = UINT64_MAX,
		.lock_memory = 1,
	};
	struct mv_store *store;

	if (mv_ram_store_create(&config, &store))
		bench_die("no store");
	return store;
}

static void touch_all(struct setting *s, const volatile unsigned char *mem,
		      struct outcome *outcome)
{
	for (uint32_t i = 0; i < s->count; i++) {
		uint64_t start = bench_ticks();

		(void)mem[(size_t)s->order[i] * MV_PAGE_SIZE];
		s->latency[i] = bench_ns(s->bench, bench_ticks() - start) / 1000;
	}
	outcome->restore_p50 = bench_percentile(s->latency, s->count, 50);
	outcome->restore_p99 = bench_percentile(s->latency, s->count, 99);
}

static void measure_ours(struct setting *s, unsigned int evictors, bool restore,
			 struct outcome *outcome)
{
	struct mv_store *store = new_store(s->count + BENCH_PAGER_EXTRA);
	struct bench_pager bp;

	bench_pager_open(&bp, s->memory, s->count, store);
	bench_pager_fill(&bp, s->source, s->count);
	outcome->evict_us = bench_pager_evict_all(&bp, evictors) / bp.evicted / 1000;
	if (restore) {
		bench_pager_start_handler(&bp, s->handler_cpu);
		touch_all(s, bp.mem, outcome);
	}
	bench_pager_close(&bp);
	mv_store_destroy(store);
}

static void measure_zram(struct setting *s, struct outcome *outcome)
{
	size_t measured;

	memcpy(s->swapped, s->source, (size_t)s->count * MV_PAGE_SIZE);
	if (zram_peer_pageout(s->zram, s->swapped, s->count, &outcome->evict_us))
		bench_die("pages do not go out to the zram device");
	outcome->evict_us /= 1000;
	zram_peer_swapin(s->zram, s->swapped, s->count, s->latency, &measured);
	outcome->restore_p50 = bench_percentile(s->latency, measured, 50) / 1000;
	outcome->restore_p99 = bench_percentile(s->latency, measured, 99) / 1000;
}

static void report(struct setting *s, const char *what, const char *kind, const char *unit,
		   const double *ours, const char *peer_name, const double *peer, const char *goal)
{
	char name[80];

	snprintf(name, sizeof(name), "%s, %s, %s", what,
		 s->memory == BENCH_SHARED ? "memfd" : "anonymous", kind);
	bench_report(s->bench, &(struct bench_figure){
				       .name = name,
				       .unit = unit,
				       .ours = ours,
				       .peer_name = peer_name,
				       .peer = peer,
				       .goal = goal,
				       .rounds = s->bench->rounds,
			       });
}

static void beside_zram(struct setting *s, const char *kind)
{
	double ours[3][BENCH_ROUNDS_MAX], peer[3][BENCH_ROUNDS_MAX];
	unsigned int rounds = s->bench->rounds;

	for (unsigned int i = 0; i < rounds; i++) {
		struct outcome our, their;

		measure_ours(s, 1, true, &our);
		measure_zram(s, &their);
		ours[0][i] = our.evict_us;
		peer[0][i] = their.evict_us;
		ours[1][i] = our.restore_p50;
		peer[1][i] = their.restore_p50;
		ours[2][i] = our.restore_p99;
		peer[2][i] = their.restore_p99;
	}
	report(s, "evict a page", kind, "us", ours[0], "zram page-out", peer[0], "<=0.50");
	report(s, "restore p50, handler on the core", kind, "us", ours[1], "zram swap-in", peer[1],
	       "<=1.50");
	report(s, "restore p99, handler on the core", kind, "us", ours[2], "zram swap-in", peer[2],
	       NULL);
}

static double bare_restore_p50(struct setting *s)
{
	struct outcome outcome;
	struct bare_restore bare;

	bare_restore_open(&bare, s->memory, s->source, s->count, s->handler_cpu);
	touch_all(s, bare.handler.mem, &outcome);
	bare_restore_close(&bare);
	return outcome.restore_p50;
}

static void beside_bare_loops(struct setting *s, const char *kind)
{
	double ours[2][BENCH_ROUNDS_MAX], bare[2][BENCH_ROUNDS_MAX];
	unsigned int rounds = s->bench->rounds;

	for (unsigned int i = 0; i < rounds; i++) {
		struct outcome our;

		measure_ours(s, 1, true, &our);
		ours[0][i] = our.evict_us;
		bare[0][i] = bare_evict(s->memory, s->source, s->count, 1) / 1000;
		ours[1][i] = our.restore_p50;
		bare[1][i] = bare_restore_p50(s);
	}
	report(s, "evict a page, raw limit", kind, "us", ours[0], "bare loop", bare[0], "<=1.10");
	report(s, "restore p50, raw limit", kind, "us", ours[1], "bare handler", bare[1], "<=1.10");
}

static void elsewhere(struct setting *s, const char *kind)
{
	double ours[BENCH_ROUNDS_MAX], peer[BENCH_ROUNDS_MAX];
	unsigned int rounds = s->bench->rounds;

	s->handler_cpu = 1;
	for (unsigned int i = 0; i < rounds; i++) {
		struct outcome our, their;

		measure_ours(s, 1, true, &our);
		measure_zram(s, &their);
		ours[i] = our.restore_p50;
		peer[i] = their.restore_p50;
	}
	s->handler_cpu = 0;
	report(s, "restore p50, handler elsewhere", kind, "us", ours, "zram swap-in", peer, NULL);
}

/*
 * The figure is the rate, so that two threads at twice the rate of one are 2. What the kernel lets
 * two threads of a process gain, who unmap and let go pages, two bare loops tell.
 */
static void two_evictors(struct setting *s, const char *kind)
{
	double two[BENCH_ROUNDS_MAX], one[BENCH_ROUNDS_MAX], bare[BENCH_ROUNDS_MAX];

	for (unsigned int i = 0; i < s->bench->rounds; i++) {
		struct outcome outcome;

		measure_ours(s, 1, false, &outcome);
		one[i] = 1000 / outcome.evict_us;
		measure_ours(s, 2, false, &outcome);
		two[i] = 1000 / outcome.evict_us;
		bare[i] = 1e6 / bare_evict(s->memory, s->source, s->count, 2);
	}
	report(s, "two evictors", kind, "k/s", two, "one evictor", one, ">=1.70");
	report(s, "two evictors, raw limit", kind, "k/s", two, "two bare loops", bare, ">=0.90");
}

static void all_of(struct setting *s, enum bench_memory memory)
{
	static const struct {
		int kind;
		const char *name;
	} kinds[] = { { PAGE_HEAP, "heap pages" }, { KIND_MIX, "mixed pages" } };

	s->memory = memory;
	for (unsigned int i = 0; i < 2; i++) {
		make_pages(s, kinds[i].kind);
		if (s->zram)
			beside_zram(s, kinds[i].name);
		else
			bench_skip(s->bench, "evict and restore beside zram", s->no_zram);
		beside_bare_loops(s, kinds[i].name);
	}
	if (bench_cpus() < 2) {
		bench_skip(s->bench, "two evictors", "one processor");
		return;
	}
	if (s->zram)
		elsewhere(s, "mixed pages");
	two_evictors(s, "mixed pages");
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);
	struct setting s = { .bench = &bench, .count = bench.quick ? PAGES_QUICK : PAGES };
	unsigned int features;

	if (mv_pager_probe(&features)) {
		bench_skip(&bench, "swap", "no userfaultfd for this user");
		return bench_close(&bench);
	}
	if (zram_peer_open(&bench, &s.zram, &s.no_zram))
		s.zram = NULL;
	s.source = bench_pages((size_t)s.count * MV_PAGE_SIZE);
	s.swapped = bench_pages((size_t)s.count * MV_PAGE_SIZE);
	s.order = malloc(s.count * sizeof(*s.order));
	s.latency = malloc(s.count * sizeof(*s.latency));
	if (!s.order || !s.latency)
		bench_die("no memory");
	bench_shuffle(s.order, s.count, 1);
	bench_pin(0);
	all_of(&s, BENCH_SHARED);
	if (features & MV_PAGER_MOVE)
		all_of(&s, BENCH_PRIVATE);
	else
		bench_skip(&bench, "swap, anonymous", "no UFFDIO_MOVE (Linux 6.8)");
	free(s.order);
	free(s.latency);
	zram_peer_close(s.zram);
	return bench_close(&bench);
}
