/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pager's fault path beside a bare handler (support/bare_handler.h).
 *
 * The store is one that has every page at once, so that what is measured is the pager.
 * Restoring from a real store, and evicting, are in bench_swap.c.
 */
#include "support/bench.h"

#include <stdlib.h>
#include <string.h>

#include "support/bare_handler.h"
#include "support/bench_pager.h"

#define PAGES	    4096
#define PAGES_QUICK 1024

struct setting {
	struct bench *bench;
	enum bench_memory kind;
	unsigned int handler_cpu;
	uint32_t pages;
	uint32_t *order;
	double *latency;
};

/* --- a store that costs nothing ---------------------------------------------------------- */

static int null_put(struct mv_store *store, uint64_t key, const void *page, void *scratch)
{
	return 0;
}

static int null_get(struct mv_store *store, uint64_t key, void *page)
{
	return 0;
}

static void null_drop(struct mv_store *store, uint64_t key)
{
}

static int null_maintain(struct mv_store *store)
{
	return 0;
}

static void null_stats(struct mv_store *store, struct mv_store_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
}

static const struct mv_store_ops null_ops = {
	.put = null_put,
	.get = null_get,
	.drop = null_drop,
	.maintain = null_maintain,
	.get_stats = null_stats,
};

/* --- rounds ------------------------------------------------------------------------------- */

/* The median time of a touch that faults, in microseconds. */
static double touch_all(struct setting *s, volatile unsigned char *mem)
{
	for (uint32_t i = 0; i < s->pages; i++) {
		volatile unsigned char *page = mem + (size_t)s->order[i] * MV_PAGE_SIZE;
		uint64_t start = bench_ticks();

		(void)*page;
		s->latency[i] = bench_ns(s->bench, bench_ticks() - start) / 1000;
	}
	return bench_median(s->latency, s->pages);
}

static double pager_round(void *ctx)
{
	struct setting *s = ctx;
	struct mv_store store = { .ops = &null_ops };
	struct bench_pager bp;
	double median;

	bench_pager_open(&bp, s->kind, s->pages, &store);
	bench_pager_evict_all(&bp, 1);
	bench_pager_start_handler(&bp, s->handler_cpu);
	median = touch_all(s, bp.mem);
	bench_pager_close(&bp);
	return median;
}

static double bare_round(void *ctx)
{
	struct setting *s = ctx;
	struct bare_handler bare = { .cpu = s->handler_cpu };
	double median;

	bare_handler_open(&bare, s->kind, s->pages);
	median = touch_all(s, bare.mem);
	bare_handler_close(&bare);
	return median;
}

/* --- figures ------------------------------------------------------------------------------ */

static void compare(struct setting *s, enum bench_memory kind, unsigned int cpu, const char *name,
		    const char *goal)
{
	s->kind = kind;
	s->handler_cpu = cpu;
	if (cpu >= bench_cpus()) {
		bench_skip(s->bench, name, "one processor");
		return;
	}
	bench_compare(s->bench, &(struct bench_pair){
					.name = name,
					.unit = "us",
					.peer_name = "bare handler",
					.ours = pager_round,
					.peer = bare_round,
					.ctx = s,
					.goal = goal,
				});
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);
	struct setting s = { .bench = &bench, .pages = bench.quick ? PAGES_QUICK : PAGES };
	unsigned int features;

	if (mv_pager_probe(&features)) {
		bench_skip(&bench, "fault", "no userfaultfd for this user");
		return bench_close(&bench);
	}
	s.order = malloc(s.pages * sizeof(*s.order));
	s.latency = malloc(s.pages * sizeof(*s.latency));
	if (!s.order || !s.latency)
		bench_die("no memory");
	bench_shuffle(s.order, s.pages, 1);
	bench_pin(0);
	compare(&s, BENCH_SHARED, 0, "fault, memfd, handler on the core", "<=1.10");
	compare(&s, BENCH_SHARED, 1, "fault, memfd, handler elsewhere", NULL);
	if (features & MV_PAGER_MOVE) {
		compare(&s, BENCH_PRIVATE, 0, "fault, anonymous, handler on the core", "<=1.10");
		compare(&s, BENCH_PRIVATE, 1, "fault, anonymous, handler elsewhere", NULL);
	} else {
		bench_skip(&bench, "fault, anonymous", "no UFFDIO_MOVE (Linux 6.8)");
	}
	free(s.order);
	free(s.latency);
	return bench_close(&bench);
}
