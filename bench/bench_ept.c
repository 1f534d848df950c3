/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stage-2 spaces: faults resolved by one thread and by two, pages mapped ahead, dirty pages
 * harvested, a granule revoked.
 *
 * No processor walks the tables here, so flushes cost nothing: what is measured is the work of
 * the space. Pages are 4 KiB, where nothing else is said.
 */
#include "support/bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memvirt/ept.h>
#include <memvirt/view.h>

#define PAGES	    65536 /* 256 MiB */
#define PAGES_QUICK 4096
#define BASE	    (4ULL << 30)
#define DIRTY	    (1ULL << 9) /* EPT */

struct setting {
	struct bench *bench;
	uint64_t pages;
	struct mv_memory *memory; /* with the space */
	struct mv_memory *bare;	  /* without */
	struct mv_ept *ept;
	struct mv_table *table; /* without a memory */
	unsigned char *mem;
	uint64_t *bitmap;
	/* Entries in a flat array, for the harvest's limit. */
	uint64_t *entries;
	uint64_t every; /* of so many pages one is dirty; 0: none */
};

static void must(int error, const char *what)
{
	if (error)
		bench_die("%s: %s", what, strerror(-error));
}

static uint64_t gpa_of(uint64_t page)
{
	return BASE + page * MV_PAGE_SIZE;
}

/* --- faults ------------------------------------------------------------------------------- */

struct worker {
	struct setting *s;
	unsigned int index;
	uint64_t first, pages;
	pthread_barrier_t *start;
	pthread_t thread;
	double began, ended; /* of its own clock: whoever waits for it may run late */
};

static void *fault_range(void *arg)
{
	struct worker *w = arg;
	struct mv_stage2_exit exit = { .kind = MV_STAGE2_VIOLATION, .access = MV_ACCESS_WRITE };
	struct mv_ept_outcome outcome;

	bench_pin(w->index);
	pthread_barrier_wait(w->start);
	w->began = bench_now();
	for (uint64_t page = w->first; page < w->first + w->pages; page++) {
		exit.gpa = gpa_of(page);
		must(mv_ept_fault(w->s->ept, 0, &exit, &outcome), "mv_ept_fault");
		if (outcome.kind != MV_EPT_FIXED)
			bench_die("a fault was not fixed, but %d", (int)outcome.kind);
	}
	w->ended = bench_now();
	return NULL;
}

static void empty_space(struct setting *s)
{
	must(mv_ept_detach(s->ept, BASE), "mv_ept_detach");
	must(mv_ept_attach(s->ept, BASE), "mv_ept_attach");
}

/* Millions of faults a second, of all threads together. */
static double fault_with(struct setting *s, unsigned int threads)
{
	struct worker workers[2];
	pthread_barrier_t start;
	double began = 0, ended = 0;

	empty_space(s);
	pthread_barrier_init(&start, NULL, threads);
	for (unsigned int i = 0; i < threads; i++) {
		workers[i] = (struct worker){ .s = s, .index = i, .start = &start };
		workers[i].pages = s->pages / threads;
		workers[i].first = i * workers[i].pages;
		if (pthread_create(&workers[i].thread, NULL, fault_range, &workers[i]))
			bench_die("no thread");
	}
	for (unsigned int i = 0; i < threads; i++) {
		pthread_join(workers[i].thread, NULL);
		began = i && began < workers[i].began ? began : workers[i].began;
		ended = ended > workers[i].ended ? ended : workers[i].ended;
	}
	pthread_barrier_destroy(&start);
	return (double)s->pages * 1e3 / (ended - began);
}

static double fault_by_one(void *ctx)
{
	return fault_with(ctx, 1);
}

static double fault_by_two(void *ctx)
{
	return fault_with(ctx, 2);
}

/* --- ahead of faults ------------------------------------------------------------------------ */

static double prefault(void *ctx)
{
	struct setting *s = ctx;
	uint64_t mapped;
	double began;

	empty_space(s);
	began = bench_now();
	must(mv_ept_prefault(s->ept, 0, BASE, gpa_of(s->pages) - 1, &mapped), "mv_ept_prefault");
	began = bench_now() - began;
	if (mapped != s->pages * MV_PAGE_SIZE)
		bench_die("not all was mapped");
	return began / (double)s->pages;
}

/* The engine alone, a page at a time: no memory, no revokes, no rights. */
static double map_pages(void *ctx)
{
	struct setting *s = ctx;
	uint64_t removed;
	double began = bench_now();

	for (uint64_t page = 0; page < s->pages; page++)
		must(mv_table_map(s->table, gpa_of(page), gpa_of(page + 1) - 1,
				  (uintptr_t)s->mem + page * MV_PAGE_SIZE,
				  MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_TYPE(MV_TYPE_WB), 12),
		     "mv_table_map");
	began = bench_now() - began;
	must(mv_table_unmap(s->table, BASE, gpa_of(s->pages) - 1, &removed), "mv_table_unmap");
	return began / (double)s->pages;
}

/* --- harvest -------------------------------------------------------------------------------- */

/* As a processor that writes: D in the leaf. */
static void dirty_pages(struct setting *s)
{
	struct mv_stage2_config config;
	struct mv_stage2 stage2;
	struct mv_stage2_walk walk;

	must(mv_ept_get_stage2_config(s->ept, 0, &config), "mv_ept_get_stage2_config");
	must(mv_stage2_init(&stage2, &config), "mv_stage2_init");
	for (uint64_t page = 0; s->every && page < s->pages; page += s->every)
		must(mv_stage2_walk(&stage2, gpa_of(page), MV_ACCESS_WRITE, &walk),
		     "mv_stage2_walk");
}

static double harvest(void *ctx)
{
	struct setting *s = ctx;
	uint64_t dirty;
	double began;

	dirty_pages(s);
	memset(s->bitmap, 0, s->pages / 8);
	began = bench_now();
	must(mv_ept_harvest(s->ept, BASE, gpa_of(s->pages) - 1, s->bitmap, &dirty),
	     "mv_ept_harvest");
	began = bench_now() - began;
	if (dirty != (s->every ? (s->pages + s->every - 1) / s->every : 0))
		bench_die("%llu pages were dirty", (unsigned long long)dirty);
	return began / (double)s->pages;
}

static double harvest_array(void *ctx)
{
	struct setting *s = ctx;
	double began;

	for (uint64_t page = 0; s->every && page < s->pages; page += s->every)
		s->entries[page] |= DIRTY;
	memset(s->bitmap, 0, s->pages / 8);
	began = bench_now();
	for (uint64_t page = 0; page < s->pages; page++) {
		if (!(__atomic_load_n(&s->entries[page], __ATOMIC_RELAXED) & DIRTY))
			continue;
		__atomic_fetch_and(&s->entries[page], ~DIRTY, __ATOMIC_RELAXED);
		s->bitmap[page / 64] |= 1ULL << (page % 64);
	}
	return (bench_now() - began) / (double)s->pages;
}

static void compare_harvests(struct setting *s)
{
	static const struct {
		const char *name;
		uint64_t every;
	} shares[] = { { "harvest, clean", 0 },
		       { "harvest, 1% dirty", 100 },
		       { "harvest, all dirty", 1 } };

	empty_space(s);
	must(mv_ept_prefault(s->ept, 0, BASE, gpa_of(s->pages) - 1, NULL), "mv_ept_prefault");
	must(mv_ept_track(s->ept, BASE, MV_EPT_TRACK_DIRTY), "mv_ept_track");
	for (unsigned int i = 0; i < sizeof(shares) / sizeof(shares[0]); i++) {
		s->every = shares[i].every;
		bench_compare(s->bench, &(struct bench_pair){ .name = shares[i].name,
							      .unit = "ns/page",
							      .peer_name = "flat array of entries",
							      .ours = harvest,
							      .peer = harvest_array,
							      .ctx = s });
	}
	must(mv_ept_track(s->ept, BASE, MV_EPT_TRACK_NONE), "mv_ept_track");
}

/* --- revoke --------------------------------------------------------------------------------- */

static void drop(void *ctx, struct mv_batch *batch)
{
}

static double discard_all(struct setting *s, struct mv_memory *memory)
{
	double began = bench_now();

	for (uint64_t page = 0; page < s->pages; page += MV_GRANULE_PAGES)
		must(mv_memory_discard(memory, gpa_of(page), gpa_of(page + MV_GRANULE_PAGES) - 1,
				       drop, NULL, NULL),
		     "mv_memory_discard");
	return (bench_now() - began) / ((double)s->pages / MV_GRANULE_PAGES);
}

static double revoke(void *ctx)
{
	struct setting *s = ctx;

	must(mv_ept_prefault(s->ept, 0, BASE, gpa_of(s->pages) - 1, NULL), "mv_ept_prefault");
	return discard_all(s, s->memory);
}

static double revoke_nothing(void *ctx)
{
	struct setting *s = ctx;

	return discard_all(s, s->bare);
}

/* --- all of it ------------------------------------------------------------------------------ */

static struct mv_memory *new_memory(struct setting *s)
{
	struct mv_memory_config config = { .size = sizeof(config) };
	struct mv_region_config region = { .size = sizeof(region),
					   .first_gpa = BASE,
					   .last_gpa = gpa_of(s->pages) - 1,
					   .hva = s->mem,
					   .fd = -1 };
	struct mv_memory *memory;

	must(mv_memory_create(&config, &memory), "mv_memory_create");
	must(mv_memory_add_region(memory, &region), "mv_memory_add_region");
	return memory;
}

static void set_up(struct setting *s)
{
	struct mv_ept_config config = { .size = sizeof(config),
					.format = MV_FORMAT_EPT_4L,
					.features = MV_FEATURE_2M | MV_FEATURE_ACCESSED,
					.maxphyaddr = 48,
					.node = -1,
					.largest_lg2 = 12 };
	struct mv_table_config table = { .size = sizeof(table),
					 .format = MV_FORMAT_EPT_4L,
					 .features = MV_FEATURE_2M | MV_FEATURE_ACCESSED,
					 .maxphyaddr = 48,
					 .node = -1 };

	/* Guest memory that nobody touches. */
	s->mem = mmap(NULL, s->pages * MV_PAGE_SIZE, PROT_NONE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->mem == MAP_FAILED)
		bench_die("no address space");
	s->memory = config.memory = new_memory(s);
	s->bare = new_memory(s);
	must(mv_ept_create(&config, &s->ept), "mv_ept_create");
	must(mv_ept_attach(s->ept, BASE), "mv_ept_attach");
	must(mv_table_create(&table, &s->table), "mv_table_create");
	s->bitmap = bench_pages(s->pages / 8 + MV_PAGE_SIZE);
	s->entries = bench_pages(s->pages * sizeof(uint64_t));
	for (uint64_t page = 0; page < s->pages; page++)
		s->entries[page] = page << 12 | 7;
}

static void tear_down(struct setting *s)
{
	mv_table_destroy(s->table);
	mv_ept_destroy(s->ept);
	mv_memory_destroy(s->memory);
	mv_memory_destroy(s->bare);
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);
	struct setting s = { .bench = &bench, .pages = bench.quick ? PAGES_QUICK : PAGES };

	bench_pin(0);
	set_up(&s);
	if (bench_cpus() < 2)
		bench_skip(&bench, "faults by two threads", "one processor only");
	else
		bench_compare(&bench, &(struct bench_pair){ .name = "faults by two threads",
							    .unit = "M/s",
							    .peer_name = "by one thread",
							    .ours = fault_by_two,
							    .peer = fault_by_one,
							    .ctx = &s,
							    .goal = ">=1.70" });
	bench_compare(&bench, &(struct bench_pair){ .name = "prefault",
						    .unit = "ns/page",
						    .peer_name = "engine, page by page",
						    .ours = prefault,
						    .peer = map_pages,
						    .ctx = &s });
	compare_harvests(&s);
	empty_space(&s);
	bench_compare(&bench, &(struct bench_pair){ .name = "revoke of 512 pages",
						    .unit = "ns",
						    .peer_name = "discard without a space",
						    .ours = revoke,
						    .peer = revoke_nothing,
						    .ctx = &s });
	tear_down(&s);
	return bench_close(&bench);
}
