/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The RAM store beside the bare codec: LZ4 from the same pages, into and out of a buffer, and
 * nothing else: no index, no checksum, no room to be found, no memory given back.
 *
 * Pages and buffers together are larger than the processor's caches, and pages come back in
 * random order, because a page that is evicted has not been touched for long, and neither has
 * its copy when it is wanted.
 */
#include "support/bench.h"

#include <lz4.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memvirt/memory.h>
#include <memvirt/store.h>

#include "../tests/support/page_mix.h"

#define PAGES	    32768
#define PAGES_QUICK 2048
#define WINDOW	    1024 /* pages a round; divides the above */
#define BATCH	    64

/* Stands for the usual mixture of kinds. */
#define KIND_MIX PAGE_KINDS

struct packed {
	uint32_t at; /* in units of 8 bytes */
	uint32_t length;
};

/* Pages of one kind, in a store and in the codec's buffer. */
struct setting {
	struct bench *bench;
	const char *kind;
	uint32_t pages;
	char *source;
	uint32_t *order; /* the pages in random order */
	uint64_t seed; /* of what is dropped */
	uint32_t cursor;

	struct mv_store *store;
	void *scratch;

	char *buffer;
	size_t buffer_bytes;
	struct packed *packed;
	void *state;
	char out[MV_PAGE_SIZE] __attribute__((aligned(4096)));
};

static char *source_page(struct setting *s, uint32_t page)
{
	return s->source + (size_t)page * MV_PAGE_SIZE;
}

static void *allocate(size_t bytes)
{
	void *memory = aligned_alloc(64, (bytes + 63) & ~63UL);

	if (!memory)
		bench_die("no memory for %zu bytes", bytes);
	return memory;
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

/* --- one page on either side ------------------------------------------------------------ */

static void put_ours(struct setting *s, uint32_t page)
{
	int error = s->store->ops->put(s->store, page, source_page(s, page), s->scratch);

	if (error)
		bench_die("put: %s", strerror(-error));
}

static void get_ours(struct setting *s, uint32_t page)
{
	int error = s->store->ops->get(s->store, page, s->out);

	if (error)
		bench_die("get: %s", strerror(-error));
}

/* To where the page lies already. */
static void put_codec(struct setting *s, uint32_t page)
{
	struct packed *packed = &s->packed[page];

	packed->length = (uint32_t)LZ4_compress_fast_extState(
		s->state, source_page(s, page), s->buffer + (size_t)packed->at * 8, MV_PAGE_SIZE,
		LZ4_COMPRESSBOUND(MV_PAGE_SIZE), 1);
}

static void get_codec(struct setting *s, uint32_t page)
{
	const struct packed *packed = &s->packed[page];

	if (LZ4_decompress_safe(s->buffer + (size_t)packed->at * 8, s->out, (int)packed->length,
				MV_PAGE_SIZE) != MV_PAGE_SIZE)
		bench_die("LZ4_decompress_safe failed");
}

static bool is_among(const uint32_t *keys, uint32_t count)
{
	for (uint32_t i = 0; i < count; i++)
		if (keys[i] == keys[count])
			return true;
	return false;
}

static void drop_batch(struct setting *s, const uint32_t *keys, uint32_t first)
{
	for (uint32_t i = 0; i < BATCH; i++)
		s->store->ops->drop(s->store, keys ? keys[i] : first + i);
	while (s->store->ops->maintain(s->store))
		;
}

/* One after the other, with a little room between, as the compressor may write ahead. */
static void pack_all(struct setting *s)
{
	uint32_t at = 0;

	for (uint32_t page = 0; page < s->pages; page++) {
		s->packed[page].at = at;
		put_codec(s, page);
		at += (s->packed[page].length + 7) / 8 + 1;
	}
}

static void open_setting(struct setting *s, struct bench *bench, unsigned int kind)
{
	*s = (struct setting){
		.bench = bench,
		.kind = kind == KIND_MIX ? "mix" : page_kind_name(kind),
		.pages = bench->quick ? PAGES_QUICK : PAGES,
	};
	s->source = bench_pages((size_t)s->pages * MV_PAGE_SIZE);
	s->buffer_bytes = (size_t)s->pages * (MV_PAGE_SIZE + MV_PAGE_SIZE / 16);
	s->buffer = bench_pages(s->buffer_bytes);
	s->order = allocate(s->pages * sizeof(*s->order));
	s->packed = allocate(s->pages * sizeof(*s->packed));
	s->state = allocate((size_t)LZ4_sizeofState());
	s->store = new_store(s->pages);
	s->scratch = allocate(s->store->ops->scratch_bytes);

	for (uint32_t page = 0; page < s->pages; page++) {
		page_make(source_page(s, page), kind == KIND_MIX ? page_mix_kind(page) : kind,
			  page);
		put_ours(s, page);
	}
	bench_shuffle(s->order, s->pages, 1);
	pack_all(s);
}

static void close_setting(struct setting *s)
{
	mv_store_destroy(s->store);
	free(s->scratch);
	free(s->state);
	free(s->packed);
	free(s->order);
	munmap(s->buffer, s->buffer_bytes);
	munmap(s->source, (size_t)s->pages * MV_PAGE_SIZE);
}

/* --- put and get, page by page ---------------------------------------------------------- */

/*
 * Ours and the codec's pages alternate one by one, so that both find the machine in the same
 * state, and each is timed alone. A few in a hundred are left out on both sides: those that an
 * interrupt or another process got into.
 */
#define KEPT_PERCENT 97

static uint32_t next_window(struct setting *s)
{
	uint32_t first = s->cursor;

	s->cursor = (first + WINDOW) % s->pages;
	return first;
}

static double timed(struct setting *s, void (*operation)(struct setting *, uint32_t),
		    uint32_t page)
{
	uint64_t begin = bench_ticks();

	operation(s, page);
	return bench_ns(s->bench, bench_ticks() - begin);
}

/*
 * Keys are dropped and put again, the oldest first, so that the store lives on and its memory
 * is there, as the codec's buffer is.
 */
static void round_of_puts(struct setting *s, double *ours, double *peer)
{
	uint32_t first = next_window(s), far = (first + s->pages / 2) % s->pages;

	for (uint32_t i = 0; i < WINDOW; i++) {
		if (i % BATCH == 0)
			drop_batch(s, NULL, first + i);
		ours[i] = timed(s, put_ours, first + i);
		peer[i] = timed(s, put_codec, far + i);
	}
}

static void round_of_gets(struct setting *s, double *ours, double *peer)
{
	uint32_t first = next_window(s), far = (first + s->pages / 2) % s->pages;

	for (uint32_t i = 0; i < WINDOW; i++) {
		ours[i] = timed(s, get_ours, s->order[first + i]);
		peer[i] = timed(s, get_codec, s->order[far + i]);
	}
}

static void page_by_page(struct setting *s, const char *what, const char *peer_name,
			 void (*measure)(struct setting *, double *, double *))
{
	double ours[BENCH_ROUNDS_MAX], peer[BENCH_ROUNDS_MAX];
	static double our_pages[WINDOW], peer_pages[WINDOW];
	char name[64];

	snprintf(name, sizeof(name), "%s, %s pages", what, s->kind);
	measure(s, our_pages, peer_pages);
	for (unsigned int i = 0; i < s->bench->rounds; i++) {
		measure(s, our_pages, peer_pages);
		ours[i] = bench_mean(our_pages, WINDOW, KEPT_PERCENT);
		peer[i] = bench_mean(peer_pages, WINDOW, KEPT_PERCENT);
	}
	bench_report(s->bench, &(struct bench_figure){
				       .name = name,
				       .unit = "ns",
				       .ours = ours,
				       .peer_name = peer_name,
				       .peer = peer,
				       .goal = "<=1.10",
				       .rounds = s->bench->rounds,
			       });
}

/* --- what the time of single pages does not show ------------------------------------------ */

/* A store that grows needs memory; so does the codec whose buffer does. */
static double grow_ours(void *ctx)
{
	struct setting *s = ctx;
	struct mv_store *kept = s->store;
	double begin;

	s->store = new_store(s->pages);
	begin = bench_now();
	for (uint32_t page = 0; page < s->pages; page++)
		put_ours(s, page);

	double took = bench_now() - begin;

	mv_store_destroy(s->store);
	s->store = kept;
	return took / s->pages;
}

static double grow_codec(void *ctx)
{
	struct setting *s = ctx;

	madvise(s->buffer, s->buffer_bytes, MADV_DONTNEED);

	double begin = bench_now();

	for (uint32_t page = 0; page < s->pages; page++)
		put_codec(s, page);
	return (bench_now() - begin) / s->pages;
}

/*
 * What it costs to keep the log tidy. In the processor's time: a grace period waits, which
 * matters to nobody but the evictor, and takes as long as the rest of the machine likes.
 */
static double clean_ours(struct setting *s, uint32_t of_pages)
{
	double total = 0;
	uint32_t keys[BATCH];

	for (uint32_t done = 0; done < WINDOW; done += BATCH) {
		for (uint32_t i = 0; i < BATCH; i++)
			keys[i] = bench_random(&s->seed) % 10 ? bench_random(&s->seed) % of_pages
							     : bench_random(&s->seed) % s->pages;

		double begin = bench_cpu_time();

		drop_batch(s, keys, 0);
		total += bench_cpu_time() - begin;
		for (uint32_t i = 0; i < BATCH; i++)
			if (i == 0 || !is_among(keys, i))
				put_ours(s, keys[i]);
	}
	return total / WINDOW;
}

/* The worst: pages are dropped in no order at all. */
static double clean_random(void *ctx)
{
	struct setting *s = ctx;

	return clean_ours(s, s->pages);
}

/* A tenth of the pages comes and goes nine times in ten. */
static double clean_hot(void *ctx)
{
	struct setting *s = ctx;

	return clean_ours(s, s->pages / 10);
}

static double clean_codec(void *ctx)
{
	struct setting *s = ctx;
	uint32_t first = next_window(s);
	double begin = bench_cpu_time();

	for (uint32_t i = 0; i < WINDOW; i++)
		put_codec(s, first + i);
	return (bench_cpu_time() - begin) / WINDOW;
}

static void measure_growth(struct setting *s)
{
	bench_compare(s->bench, &(struct bench_pair){
					.name = "put, mix pages, growing",
					.unit = "ns",
					.peer_name = "LZ4 to new memory",
					.ours = grow_ours,
					.peer = grow_codec,
					.ctx = s,
					.goal = "<=1.10",
					.rounds = s->bench->quick ? 0 : 7,
				});
}

static void measure_cleaning(struct setting *s, const char *name, double (*ours)(void *),
			     const char *goal)
{
	/* Until the log is as untidy as it gets. */
	for (uint32_t i = 0; i < 3 * s->pages; i += WINDOW)
		ours(s);
	bench_compare(s->bench, &(struct bench_pair){
					.name = name,
					.unit = "ns",
					.peer_name = "LZ4 compress",
					.ours = ours,
					.peer = clean_codec,
					.ctx = s,
					.goal = goal,
				});
}

static void measure_overhead(struct setting *s, const char *name, const char *goal)
{
	struct mv_store_stats stats;

	s->store->ops->get_stats(s->store, &stats);

	double content = (double)stats.compressed_bytes / (1 << 20);
	double overhead = (double)(stats.memory_bytes - stats.compressed_bytes) / (1 << 20);

	bench_report(s->bench, &(struct bench_figure){
				       .name = name,
				       .unit = "MiB",
				       .ours = &overhead,
				       .peer_name = "content",
				       .peer = &content,
				       .goal = goal,
				       .rounds = 1,
			       });
}

/* --- two processors --------------------------------------------------------------------- */

struct evictor {
	struct setting *s;
	pthread_t thread;
	unsigned int number, count;
	void *scratch;
	double cpu_ns;
};

/* Each thread puts its part of the pages, and keeps up what an evictor does between. */
static void *evict(void *argument)
{
	struct evictor *e = argument;
	struct setting *s = e->s;
	uint32_t share = s->pages / e->count;
	double begin = bench_cpu_time();

	bench_pin(e->number);
	for (uint32_t page = e->number * share; page < (e->number + 1) * share; page++) {
		if (page % BATCH == 0)
			drop_batch(s, NULL, page);
		if (s->store->ops->put(s->store, page, source_page(s, page), e->scratch))
			bench_die("put failed");
	}
	e->cpu_ns = bench_cpu_time() - begin;
	return NULL;
}

struct evicting {
	double pages_per_ms;
	double cpu_ns_per_page; /* of all threads together */
};

static struct evicting evict_by(struct setting *s, unsigned int threads)
{
	struct evictor evictors[2];
	double begin = bench_now(), cpu_ns = 0;

	for (unsigned int i = 0; i < threads; i++) {
		evictors[i] = (struct evictor){ .s = s, .number = i, .count = threads };
		evictors[i].scratch = allocate(s->store->ops->scratch_bytes);
		if (pthread_create(&evictors[i].thread, NULL, evict, &evictors[i]))
			bench_die("cannot start a thread");
	}
	for (unsigned int i = 0; i < threads; i++) {
		pthread_join(evictors[i].thread, NULL);
		free(evictors[i].scratch);
		cpu_ns += evictors[i].cpu_ns;
	}
	return (struct evicting){ s->pages / (bench_now() - begin) * 1e6, cpu_ns / s->pages };
}

/*
 * The rate says what two processors gain where nobody else wants them; the processor time says
 * what the threads cost each other, also on a machine that is busy with other things.
 */
static void measure_scaling(struct setting *s)
{
	double rates[2][BENCH_ROUNDS_MAX], costs[2][BENCH_ROUNDS_MAX];
	unsigned int rounds = s->bench->rounds;

	if (bench_cpus() < 2) {
		bench_skip(s->bench, "evicting, two threads", "needs two processors");
		return;
	}
	for (unsigned int i = 0; i < 2 * rounds; i++) {
		struct evicting evicting = evict_by(s, 1 + i % 2);

		rates[i % 2][i / 2] = evicting.pages_per_ms;
		costs[i % 2][i / 2] = evicting.cpu_ns_per_page;
	}
	bench_report(s->bench, &(struct bench_figure){
				       .name = "drop and put, two threads",
				       .unit = "pages/ms",
				       .ours = rates[1],
				       .peer_name = "one thread",
				       .peer = rates[0],
				       .goal = ">=1.70",
				       .rounds = rounds,
			       });
	bench_report(s->bench, &(struct bench_figure){
				       .name = "processor time of that",
				       .unit = "ns",
				       .ours = costs[1],
				       .peer_name = "one thread",
				       .peer = costs[0],
				       .goal = "<=1.10",
				       .rounds = rounds,
			       });
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);
	static const unsigned int kinds[] = { PAGE_ZERO, PAGE_TEXT, PAGE_HEAP, PAGE_NOISE,
					      KIND_MIX };
	static struct setting s;

	bench_pin(0);
	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		open_setting(&s, &bench, kinds[i]);
		if (kinds[i] == KIND_MIX)
			measure_overhead(&s, "overhead, as filled", "<=0.03");
		page_by_page(&s, "put", "LZ4 compress", round_of_puts);
		page_by_page(&s, "get", "LZ4 decompress", round_of_gets);
		if (kinds[i] == KIND_MIX) {
			measure_growth(&s);
			measure_scaling(&s);
			measure_cleaning(&s, "drop and clean, hot tenth", clean_hot, "<=0.60");
			measure_overhead(&s, "overhead, hot tenth", "<=0.06");
			measure_cleaning(&s, "drop and clean, random", clean_random, "<=1.00");
			measure_overhead(&s, "overhead, random", "<=0.06");
		}
		close_setting(&s);
	}
	return bench_close(&bench);
}
