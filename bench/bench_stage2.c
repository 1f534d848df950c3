/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One translation by stage 2 with every check, beside four dependent loads that check nothing: what
 * the checks, the rights and the record of the steps cost. Random addresses in 4 KiB pages, each
 * known only when the last is translated; tables' pages lie in random order. And what it costs
 * to decode an exit.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memvirt/stage2.h>

#include "support/bench.h"

#define WALKS	    500000
#define WALKS_QUICK 5000
#define EPT_LEAF    0x337 /* R, W, X, write-back, accessed, dirty */
#define EPT_TABLE   0x107
#define NPT_LEAF    0x067
#define NPT_TABLE   0x027

/* Tables over guest memory of some size, each page of it mapped by itself. */
struct tables {
	char *pool;
	size_t pool_bytes;
	uint32_t *order; /* of the pool's pages */
	size_t used;
	uint64_t pages;
	uint64_t table_bits;
	uint64_t root;
};

struct setting {
	struct tables tables;
	struct mv_stage2 stage2;
	unsigned int walks;
	uint64_t state;
};

static uint64_t new_table(struct tables *tables)
{
	return (uintptr_t)tables->pool + (uint64_t)tables->order[tables->used++] * 4096;
}

static uint64_t *entry_of(uint64_t table, uint64_t gpa, unsigned int level)
{
	return (uint64_t *)table + (gpa >> (3 + 9 * level) & 511);
}

static void map_page(struct tables *tables, uint64_t gpa, uint64_t leaf)
{
	uint64_t table = tables->root;

	for (unsigned int level = 4; level > 1; level--) {
		uint64_t *entry = entry_of(table, gpa, level);

		if (!*entry)
			*entry = new_table(tables) | tables->table_bits;
		table = *entry & 0xffffffffff000ULL;
	}
	*entry_of(table, gpa, 1) = leaf;
}

static void build(struct tables *tables, uint64_t bytes, uint64_t table_bits, uint64_t leaf_bits)
{
	size_t pages = (bytes >> 21) + (bytes >> 30) + 3;

	tables->pool_bytes = pages * 4096;
	tables->pool = bench_pages(tables->pool_bytes);
	tables->order = malloc(pages * sizeof(*tables->order));
	if (!tables->order)
		bench_die("no memory for %zu page numbers", pages);
	bench_shuffle(tables->order, pages, 1);
	tables->used = 0;
	tables->pages = bytes >> 12;
	tables->table_bits = table_bits;
	tables->root = new_table(tables);
	for (uint64_t gpa = 0; gpa < bytes; gpa += 4096)
		map_page(tables, gpa, gpa | leaf_bits);
}

/* --- one round each ------------------------------------------------------------------------- */

/* The next address depends on what the last one led to, though it is the same whatever that is. */
static uint64_t next_gpa(struct setting *s, uint64_t phys)
{
	return ((bench_random(&s->state) + (phys >> 63)) & (s->tables.pages - 1)) << 12;
}

static double walk_ours(void *ctx)
{
	struct setting *s = ctx;
	struct mv_stage2_walk walk = { 0 };
	double start = bench_now();

	for (unsigned int i = 0; i < s->walks; i++) {
		uint64_t gpa = next_gpa(s, walk.phys);

		if (mv_stage2_walk(&s->stage2, gpa, MV_ACCESS_READ | MV_ACCESS_LINEAR, &walk) ||
		    walk.kind != MV_STAGE2_OK)
			bench_die("no translation of %#lx", gpa);
	}
	return (bench_now() - start) / s->walks;
}

/* Nobody can do with less: a function as ours is, which believes what it reads. */
static __attribute__((noinline)) uint64_t load_leaf(uint64_t root, uint64_t gpa)
{
	uint64_t entry = root;

	for (unsigned int level = 4; level; level--)
		entry = *entry_of(entry & 0xffffffffff000ULL, gpa, level);
	return (entry & 0xffffffffff000ULL) | (gpa & 0xfff);
}

static double walk_loads(void *ctx)
{
	struct setting *s = ctx;
	uint64_t phys = 0;
	double start = bench_now();

	for (unsigned int i = 0; i < s->walks; i++) {
		/* All bits may be set, as far as the compiler knows. */
		__asm__ volatile("" : "+r"(phys));
		phys = load_leaf(s->tables.root, next_gpa(s, phys));
	}
	return (bench_now() - start) / s->walks;
}

/* --- translations --------------------------------------------------------------------------- */

/*
 * The goal is on 16 GiB, where loads wait for memory. In 1 GiB a walk is 70 cycles in all, of which
 * the way of the address through the result's structure is one part in ten.
 */
static void compare_walks(struct bench *bench, const char *name, enum mv_format_id format,
			  uint64_t gib)
{
	bool ept = format == MV_FORMAT_EPT_4L;
	struct setting s = { .walks = bench->quick ? WALKS_QUICK : WALKS, .state = 1 };
	struct mv_stage2_config config = {
		.size = sizeof(config),
		.format = format,
		.features = MV_FEATURE_2M | MV_FEATURE_1G | MV_FEATURE_NX | MV_FEATURE_ACCESSED |
			    MV_FEATURE_VE,
		.maxphyaddr = 52,
	};

	build(&s.tables, gib << 30, ept ? EPT_TABLE : NPT_TABLE, ept ? EPT_LEAF : NPT_LEAF);
	config.root = s.tables.root;
	if (mv_stage2_init(&s.stage2, &config))
		bench_die("mv_stage2_init");
	bench_compare(bench, &(struct bench_pair){
				     .name = name,
				     .unit = "ns",
				     .peer_name = "4 dependent loads, no checks",
				     .ours = walk_ours,
				     .peer = walk_loads,
				     .ctx = &s,
				     .goal = gib > 1 ? "<=1.15" : NULL,
			     });
	munmap(s.tables.pool, s.tables.pool_bytes);
	free(s.tables.order);
}

/* --- exits ---------------------------------------------------------------------------------- */

static double decode_violations(unsigned int count, uint64_t *state)
{
	struct mv_stage2_exit exit;
	uint64_t seen = 0;
	double start = bench_now();

	for (unsigned int i = 0; i < count; i++) {
		mv_stage2_decode_violation(bench_random(state) & 0x3fff, i, i,
					   MV_FEATURE_MODE_EXEC | MV_FEATURE_EXIT_INFO, &exit);
		seen += exit.access;
	}
	__asm__ volatile("" ::"r"(seen));
	return (bench_now() - start) / count;
}

static double decode_npfs(unsigned int count, uint64_t *state)
{
	struct mv_stage2_exit exit;
	uint64_t seen = 0;
	double start = bench_now();

	for (unsigned int i = 0; i < count; i++) {
		mv_stage2_decode_npf(bench_random(state) & 0x30000001fULL, i, &exit);
		seen += exit.access;
	}
	__asm__ volatile("" ::"r"(seen));
	return (bench_now() - start) / count;
}

static void measure_decoding(struct bench *bench, const char *name,
			     double (*decode)(unsigned int count, uint64_t *state))
{
	double ours[BENCH_ROUNDS_MAX];
	uint64_t state = 1;

	for (unsigned int i = 0; i < bench->rounds; i++)
		ours[i] = decode(bench->quick ? WALKS_QUICK : WALKS, &state);
	bench_report(bench, &(struct bench_figure){
				    .name = name,
				    .unit = "ns",
				    .ours = ours,
				    .rounds = bench->rounds,
			    });
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);

	bench_pin(0);
	compare_walks(&bench, "EPT walk, 1 GiB", MV_FORMAT_EPT_4L, 1);
	compare_walks(&bench, "EPT walk, 16 GiB", MV_FORMAT_EPT_4L, 16);
	compare_walks(&bench, "NPT walk, 1 GiB", MV_FORMAT_NPT_4L, 1);
	compare_walks(&bench, "NPT walk, 16 GiB", MV_FORMAT_NPT_4L, 16);
	measure_decoding(&bench, "decode an EPT violation", decode_violations);
	measure_decoding(&bench, "decode a nested page fault", decode_npfs);
	return bench_close(&bench);
}
