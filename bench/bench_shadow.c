/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow tables: what a fault costs beside the pure walk of the guest's tables, a comparison of
 * a table beside a loop over two arrays, how often a burst of writes traps, what a second vCPU
 * gains, and how well a quarter of the pages does beside exact LRU.
 *
 * No processor walks the tables but a loop that does what one does: it looks an address up, sets
 * accessed, and faults where it finds nothing. So traps are counted, and cost nothing.
 */
#include "support/bench.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memvirt/guest_walk.h>
#include <memvirt/memory.h>
#include <memvirt/shadow.h>

#define PAGE	    4096ULL
#define TABLES	    256		  /* leaf tables of the guest: 512 MiB of addresses */
#define TABLES_FEW  64		  /* where what is measured is work, rather than the caches' size */
#define GUEST_BYTES (1ULL << 30)  /* of addresses; data pages have no memory */
#define DATA	    (64ULL << 20) /* the guest's tables lie below */
#define GVA	    (1ULL << 30)
#define TABLE_GVA   (1ULL << 36) /* where the guest maps one of its tables */
#define FRAME	    0x000ffffffffff000ULL
#define P	    0x01ULL
#define W	    0x02ULL
#define A	    0x20ULL
#define READY	    0x67ULL /* present, writable, user, accessed, dirty */

struct setting {
	struct bench *bench;
	unsigned char *mem;
	struct mv_memory *memory;
	struct mv_shadow *shadow;
	struct mv_shadow_vcpu *vcpu[2];
	uint64_t root[2];
	struct mv_paging paging;
	struct mv_guest_accessor accessor;
	uint32_t tables;
	uint64_t next_table;
	uint32_t *order;
};

static void must(int error, const char *what)
{
	if (error)
		bench_die("%s: %s", what, strerror(-error));
}

/* --- the guest -------------------------------------------------------------------------------- */

static uint64_t *guest_word(struct setting *s, uint64_t gpa)
{
	return (uint64_t *)(s->mem + gpa);
}

/* Where the guest's leaf entry of an address is; tables above are made. */
static uint64_t leaf_gpa(struct setting *s, uint64_t gva)
{
	uint64_t table = 0;

	for (unsigned int shift = 39; shift > 12; shift -= 9) {
		uint64_t *entry = guest_word(s, table + (gva >> shift & 511) * 8);

		if (!*entry) {
			*entry = s->next_table | READY;
			s->next_table += PAGE;
		}
		table = *entry & FRAME;
	}
	return table + (gva >> 12 & 511) * 8;
}

/* All pages; of each eight, the first is ready and the others, so that it comes alone, are not. */
static void fill_tables(struct setting *s, bool alone)
{
	for (uint64_t page = 0; page < s->tables * 512ULL; page++) {
		uint64_t entry = (DATA + page * PAGE) | READY;

		*guest_word(s, leaf_gpa(s, GVA + page * PAGE)) =
			alone && page % 8 ? entry & ~A : entry;
	}
}

static void load(struct setting *s, unsigned int v)
{
	const struct mv_paging_registers registers = { .cr0 = 0x80010001,
						       .cr4 = 0x20,
						       .efer = 0xd00 };
	const struct mv_cpu_model cpu = { .maxphyaddr = 46 };

	must(mv_shadow_load_root(s->vcpu[v], &registers, &cpu, false, &s->root[v]), "load");
	must(mv_paging_init(&s->paging, &registers, &cpu), "paging");
}

static void open_guest(struct setting *s, size_t budget, bool alone)
{
	struct mv_memory_config memory_config = { .size = sizeof(memory_config) };
	struct mv_region_config region = { .size = sizeof(region),
					   .last_gpa = GUEST_BYTES - 1,
					   .fd = -1 };
	struct mv_shadow_config config = {
		.size = sizeof(config),
		.format = MV_FORMAT_X86_4L,
		.features = MV_FEATURE_NX,
		.maxphyaddr = 52,
		.node = -1,
		.page_budget = budget,
	};

	s->mem = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (s->mem == MAP_FAILED)
		bench_die("no guest memory");
	region.hva = s->mem;
	must(mv_memory_create(&memory_config, &s->memory), "memory");
	must(mv_memory_add_region(s->memory, &region), "region");
	config.memory = s->memory;
	must(mv_shadow_create(&config, &s->shadow), "shadow");
	s->next_table = PAGE;
	bench_shuffle(s->order, s->tables * 64, 1);
	fill_tables(s, alone);
	mv_guest_accessor_memory(&s->accessor, s->memory);
	for (unsigned int v = 0; v < 2; v++) {
		must(mv_shadow_vcpu_create(s->shadow, &s->vcpu[v]), "vcpu");
		load(s, v);
	}
}

static void close_guest(struct setting *s)
{
	for (unsigned int v = 0; v < 2; v++)
		mv_shadow_vcpu_destroy(s->vcpu[v]);
	mv_shadow_destroy(s->shadow);
	mv_memory_destroy(s->memory);
	munmap(s->mem, GUEST_BYTES);
}

/* --- the processor -----------------------------------------------------------------------------
 */

/* Return: where the access goes, or 0 where it faults. */
static uint64_t look_up(uint64_t root, uint64_t gva, bool write)
{
	uint64_t table = root, entry = 0;

	for (unsigned int shift = 39; shift >= 12; shift -= 9) {
		uint64_t *at = (uint64_t *)(uintptr_t)(table & FRAME) + (gva >> shift & 511);

		entry = __atomic_load_n(at, __ATOMIC_ACQUIRE);
		if (!(entry & P) || (write && !(entry & W)))
			return 0;
		if (!(entry & A))
			__atomic_fetch_or(at, A, __ATOMIC_RELAXED);
		table = entry;
	}
	return (entry & FRAME) | (gva & (PAGE - 1));
}

static enum mv_shadow_kind fault(struct setting *s, unsigned int v, uint64_t gva,
				 unsigned int access)
{
	struct mv_shadow_outcome outcome;

	must(mv_shadow_fault(s->vcpu[v], gva, access, &outcome), "fault");
	return outcome.kind;
}

/* Return: how many faults it took. */
static unsigned int reach(struct setting *s, uint64_t gva)
{
	unsigned int faults = 0;

	for (; !look_up(s->root[0], gva, false); faults++)
		if (faults == 10)
			bench_die("an access is never made");
		else
			fault(s, 0, gva, MV_ACCESS_READ);
	return faults;
}

static void forget_leaves(struct setting *s)
{
	must(mv_shadow_zap(s->shadow, DATA, DATA + s->tables * 512 * PAGE - 1), "zap");
}

/* --- faults --------------------------------------------------------------------------------------
 */

/* The first page of a line; @wait adds nothing but the wait for what it was made from. */
static uint64_t eighth_page(const struct setting *s, uint32_t i, uint64_t wait)
{
	return GVA + (uint64_t)s->order[i + (wait >> 63)] * 8 * PAGE;
}

static double fault_alone(void *ctx)
{
	struct setting *s = ctx;
	uint32_t count = s->tables * 64;
	double begin;

	forget_leaves(s);
	begin = bench_now();
	for (uint32_t i = 0; i < count; i++)
		if (fault(s, 0, eighth_page(s, i, 0), MV_ACCESS_READ) != MV_SHADOW_FIXED)
			bench_die("a fault is not fixed");
	return (bench_now() - begin) / count;
}

/* Faults come one by one, and so do these: each waits for the one before. */

static double pure_walk(void *ctx)
{
	struct setting *s = ctx;
	uint32_t count = s->tables * 64;
	double begin = bench_now();
	uint64_t wait = 0;

	for (uint32_t i = 0; i < count; i++) {
		struct mv_walk walk;

		if (mv_guest_walk(&s->paging, &s->accessor, eighth_page(s, i, wait), MV_ACCESS_READ,
				  &walk) ||
		    walk.kind != MV_WALK_OK)
			bench_die("no translation");
		wait = walk.gpa;
	}
	return (bench_now() - begin) / count;
}

/* A whole line of entries comes with each fault: the time a page. */
static double fault_in_lines(void *ctx)
{
	return fault_alone(ctx) / 8;
}

static void bench_faults(struct bench *bench, struct setting *s)
{
	open_guest(s, 4096, true);
	fault_alone(s); /* pages and links are there from now on */
	bench_compare(bench, &(struct bench_pair){ .name = "fault, fixed",
						   .unit = "ns",
						   .peer_name = "pure guest walk",
						   .ours = fault_alone,
						   .peer = pure_walk,
						   .ctx = s,
						   .goal = "<=3.00" });
	fill_tables(s, false);
	bench_compare(bench, &(struct bench_pair){ .name = "page mapped, with its neighbours",
						   .unit = "ns",
						   .peer_name = "pure guest walk",
						   .ours = fault_in_lines,
						   .peer = pure_walk,
						   .ctx = s });
	close_guest(s);
}

/* --- two vCPUs
 * -------------------------------------------------------------------------------------- */

struct worker {
	struct setting *s;
	unsigned int v;
	uint32_t first, count;
	pthread_barrier_t *begin;
	pthread_t thread;
	double took;
};

static void *fault_part(void *arg)
{
	struct worker *w = arg;
	double began;

	bench_pin(w->v);
	pthread_barrier_wait(w->begin);
	began = bench_now();
	for (uint32_t i = w->first; i < w->first + w->count; i++)
		if (fault(w->s, w->v, eighth_page(w->s, i, 0), MV_ACCESS_READ) != MV_SHADOW_FIXED)
			bench_die("a fault is not fixed");
	w->took = bench_now() - began;
	return NULL;
}

/* Million faults a second, by the slowest one's time. */
static double faults_by(struct setting *s, unsigned int threads)
{
	struct worker workers[2];
	pthread_barrier_t begin;
	uint32_t count = s->tables * 64 / threads;
	double longest = 0;

	forget_leaves(s);
	pthread_barrier_init(&begin, NULL, threads);
	for (unsigned int v = 0; v < threads; v++) {
		workers[v] = (struct worker){ s, v, v * count, count, &begin, 0, 0 };
		if (pthread_create(&workers[v].thread, NULL, fault_part, &workers[v]))
			bench_die("no thread");
	}
	for (unsigned int v = 0; v < threads; v++) {
		pthread_join(workers[v].thread, NULL);
		longest = workers[v].took > longest ? workers[v].took : longest;
	}
	pthread_barrier_destroy(&begin);
	return threads * count / longest * 1000;
}

static double faults_by_two(void *ctx)
{
	return faults_by(ctx, 2);
}

static double faults_by_one(void *ctx)
{
	return faults_by(ctx, 1);
}

static void bench_two(struct bench *bench, struct setting *s)
{
	if (bench_cpus() < 2) {
		bench_skip(bench, "faults by two vCPUs", "there is one processor");
		return;
	}
	s->tables = TABLES;
	open_guest(s, 4096, true);
	faults_by(s, 1);
	bench_compare(bench, &(struct bench_pair){ .name = "faults by two vCPUs",
						   .unit = "M/s",
						   .peer_name = "by one",
						   .ours = faults_by_two,
						   .peer = faults_by_one,
						   .ctx = s,
						   .goal = ">=1.60" });
	close_guest(s);
	s->tables = TABLES_FEW;
	bench_pin(0);
}

/* --- tables out of sync
 * ---------------------------------------------------------------------------- */

#define SYNCS 3 /* before a table that does not change is protected again */

/* The guest writes to entry @index of the table, as it does by itself. Return: traps. */
static unsigned int write_entry(struct setting *s, unsigned int index, uint64_t value)
{
	uint64_t gva = TABLE_GVA + index * 8, gpa = leaf_gpa(s, GVA) & FRAME, hpa;
	unsigned int traps = 0;

	for (; !(hpa = look_up(s->root[0], gva, true)); traps++) {
		if (fault(s, 0, gva, MV_ACCESS_WRITE) == MV_SHADOW_EMULATE_WRITE) {
			*guest_word(s, gpa + index * 8) = value;
			mv_shadow_guest_wrote(s->shadow, gpa + index * 8, 8);
			return traps + 1;
		}
	}
	*(uint64_t *)(uintptr_t)hpa = value;
	return traps;
}

static double sync_table(void *ctx)
{
	struct setting *s = ctx;
	double took = 0;

	for (unsigned int round = 0; round < 200; round++) {
		double begin;

		write_entry(s, 5, (DATA + round % 2 * PAGE) | READY);
		mv_shadow_flush(s->vcpu[0], false);
		for (unsigned int page = 0; page < 8; page++)
			reach(s, GVA + page * PAGE);
		begin = bench_now();
		for (unsigned int i = 0; i < SYNCS; i++)
			mv_shadow_flush(s->vcpu[0], false);
		took += bench_now() - begin;
	}
	return took / 200 / SYNCS;
}

/* What is compared, and with what. */
static double flat_loop(void *ctx)
{
	static uint64_t seen[512];
	struct setting *s = ctx;
	const uint64_t *table = guest_word(s, leaf_gpa(s, GVA) & FRAME);
	uint64_t changed = 0;
	double begin = bench_now();

	for (unsigned int round = 0; round < 600; round++)
		for (unsigned int i = 0; i < 512; i++) {
			uint64_t now = __atomic_load_n(&table[i], __ATOMIC_ACQUIRE);

			if (__atomic_load_n(&seen[i], __ATOMIC_RELAXED) != now) {
				__atomic_store_n(&seen[i], now, __ATOMIC_RELAXED);
				changed++;
			}
		}
	__asm__ volatile("" ::"r"(changed));
	return (bench_now() - begin) / 600;
}

static double burst(void *ctx)
{
	struct setting *s = ctx;
	unsigned int traps = 0;

	/* The table is protected again. */
	for (unsigned int i = 0; i < 8; i++)
		mv_shadow_flush(s->vcpu[0], false);
	for (unsigned int page = 0; page < 512; page++)
		reach(s, GVA + page * PAGE);
	for (unsigned int i = 0; i < 512; i++)
		traps += write_entry(s, i, ((DATA + i * PAGE) | READY) & ~W);
	mv_shadow_flush(s->vcpu[0], false);
	for (unsigned int i = 0; i < 512; i++)
		write_entry(s, i, (DATA + i * PAGE) | READY);
	return traps;
}

static double each_traps(void *ctx)
{
	return 512;
}

static void bench_sync(struct bench *bench, struct setting *s)
{
	open_guest(s, 4096, false);
	*guest_word(s, leaf_gpa(s, TABLE_GVA)) = (leaf_gpa(s, GVA) & FRAME) | READY;
	for (unsigned int page = 0; page < 512; page++)
		reach(s, GVA + page * PAGE);
	bench_compare(bench, &(struct bench_pair){ .name = "comparison of 512 entries",
						   .unit = "ns",
						   .peer_name = "flat loop",
						   .ours = sync_table,
						   .peer = flat_loop,
						   .ctx = s,
						   .goal = "<=1.50" });
	bench_compare(bench, &(struct bench_pair){ .name = "traps of a burst of 512 writes",
						   .unit = "traps",
						   .peer_name = "each emulated",
						   .ours = burst,
						   .peer = each_traps,
						   .ctx = s,
						   .goal = "<=0.0040" });
	close_guest(s);
}

/* --- a quarter of the pages ----------------------------------------------------------------------
 */

#define ACCESSES 60000

/* Exact LRU over leaf tables, of which @most fit. */
struct lru {
	uint64_t used[TABLES];
	bool there[TABLES];
	uint32_t count, most;
};

static bool lru_misses(struct lru *lru, uint32_t tables, uint32_t table, uint64_t now)
{
	bool miss = !lru->there[table];

	if (miss && lru->count == lru->most) {
		uint32_t oldest = tables;

		for (uint32_t i = 0; i < tables; i++)
			if (lru->there[i] && (oldest == tables || lru->used[i] < lru->used[oldest]))
				oldest = i;
		lru->there[oldest] = false;
		lru->count--;
	}
	lru->count += miss;
	lru->there[table] = true;
	lru->used[table] = now;
	return miss;
}

/* One page in each table, so that a fault is a table that is not there. Most go to a fifth. */
static uint32_t any_table(const struct setting *s, uint64_t *random, bool skewed)
{
	uint64_t number = bench_random(random) >> 16;

	if (skewed && bench_random(random) % 5)
		return (uint32_t)(number % (s->tables / 5));
	return (uint32_t)(number % s->tables);
}

static void compare_with_lru(struct bench *bench, struct setting *s, const char *name, bool skewed)
{
	double ours[BENCH_ROUNDS_MAX], theirs[BENCH_ROUNDS_MAX];

	for (unsigned int round = 0; round < bench->rounds; round++) {
		/* Besides the leaf tables: the root, and the tables above them. */
		struct lru lru = { .most = s->tables / 4 };
		uint64_t random = round + 1, faults = 0, misses = 0;

		open_guest(s, s->tables / 4 + 16 + 3, false);
		for (uint64_t i = 0; i < ACCESSES; i++) {
			uint32_t table = any_table(s, &random, skewed);

			faults += reach(s, GVA + ((uint64_t)table << 21));
			misses += lru_misses(&lru, s->tables, table, i);
		}
		ours[round] = (double)faults;
		theirs[round] = (double)misses;
		close_guest(s);
	}
	bench_report(bench, &(struct bench_figure){ .name = name,
						    .unit = "faults",
						    .ours = ours,
						    .peer_name = "misses of exact LRU",
						    .peer = theirs,
						    .goal = "<=2.00",
						    .rounds = bench->rounds });
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);
	struct setting s = { .bench = &bench, .tables = TABLES_FEW };

	s.order = malloc(TABLES * 64 * sizeof(*s.order));
	if (!s.order)
		bench_die("no memory");
	bench_pin(0);
	bench_faults(&bench, &s);
	bench_two(&bench, &s);
	bench_sync(&bench, &s);
	s.tables = TABLES;
	compare_with_lru(&bench, &s, "a quarter of the tables, uniform", false);
	compare_with_lru(&bench, &s, "a quarter of the tables, skewed", true);
	free(s.order);
	return bench_close(&bench);
}
