/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nested walk beside its raw limit: the 24 dependent loads that a walk of four levels over four
 * levels is made of, with no check at all, in the same tables and in the same order of
 * addresses. Each address depends on the translation before it, so that no side gains by what
 * a processor does of two walks at once; but where a batch is what is measured.
 *
 * The guest has 1 GiB, whose tables caches hold for the most part, or 16 GiB, whose tables (64 MiB)
 * they do not; all of it in 4 KiB pages at both stages, its tables and those of stage 2 scattered
 * at random; its memory lies in runs of 2 MiB.
 */
#include "support/bench.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memvirt/nested.h>

#include "support/kvm_translate.h"

#define PAGES	    (1u << 18)
#define PAGES_LARGE (1u << 22)
#define PAGES_QUICK (1u << 14)
#define WALKS	    200000u
#define KVM_BYTES   (256ul << 20)

#define FRAME	    0x000ffffffffff000ull
#define STAGE1	    0x67ull /* present, writable, user, accessed, dirty */
#define STAGE2	    0x37ull /* EPT: readable, writable, executable, write-back */
#define STAGE2_DOWN 0x07ull

/**
 * struct setting - a guest, its tables, and what walks them
 * @pages:   of the guest's memory, which begins at 0; its tables come after it
 * @walked:  of them, those whose addresses are translated
 * @pool:    host memory of all tables, taken in random order
 * @root:    of stage 2
 * @cr3:     of the guest
 */
struct setting {
	struct bench *bench;
	uint32_t pages;
	uint32_t walked;
	unsigned char *pool;
	size_t pool_bytes;
	uint32_t *order;
	uint32_t taken;
	uint64_t root;
	uint64_t cr3;
	uint32_t guest_tables;
	uint32_t *guest_order;
	uint32_t guest_taken;
	struct mv_nested nested;
	struct mv_nested_cache *cache;
	struct kvm_guest kvm;
	uint64_t seed;
};

/* --- the tables --------------------------------------------------------------------------- */

static uint64_t take_page(struct setting *s)
{
	return (uint64_t)(uintptr_t)(s->pool + (size_t)s->order[s->taken++] * 4096);
}

static uint64_t *entry_of(uint64_t table, unsigned int level, uint64_t address)
{
	return (uint64_t *)(uintptr_t)(table & FRAME) + (address >> (3 + 9 * level) & 511);
}

static void map_stage2(struct setting *s, uint64_t gpa, uint64_t hpa)
{
	uint64_t table = s->root;

	for (unsigned int level = 4; level > 1; level--) {
		uint64_t *entry = entry_of(table, level, gpa);

		if (!*entry)
			*entry = take_page(s) | STAGE2_DOWN;
		table = *entry;
	}
	*entry_of(table, 1, gpa) = hpa | STAGE2;
}

/* What is raw: loads, each of which waits for the one before. */
static inline __attribute__((always_inline)) uint64_t raw_stage2(uint64_t root, uint64_t gpa)
{
	uint64_t entry = root;

	for (unsigned int level = 4; level > 0; level--)
		entry = *entry_of(entry, level, gpa);
	return (entry & FRAME) | (gpa & 4095);
}

static inline __attribute__((always_inline)) uint64_t raw_walk(uint64_t root, uint64_t cr3,
							       uint64_t gva)
{
	uint64_t entry = cr3;

	for (unsigned int level = 4; level > 0; level--) {
		uint64_t gpa = (entry & FRAME) + (gva >> (3 + 9 * level) & 511) * 8;

		entry = *(const uint64_t *)(uintptr_t)raw_stage2(root, gpa);
	}
	return raw_stage2(root, (entry & FRAME) | (gva & 4095));
}

static uint64_t take_guest_table(struct setting *s)
{
	return ((uint64_t)s->pages + s->guest_order[s->guest_taken++]) << 12;
}

static void map_stage1(struct setting *s, uint64_t gva, uint64_t gpa)
{
	uint64_t table = s->cr3;

	for (unsigned int level = 4; level > 0; level--) {
		uint64_t at = (table & FRAME) + (gva >> (3 + 9 * level) & 511) * 8;
		uint64_t *entry = (uint64_t *)(uintptr_t)raw_stage2(s->root, at);

		if (level == 1)
			*entry = gpa | STAGE1;
		else if (!*entry)
			*entry = take_guest_table(s) | STAGE1;
		table = *entry;
	}
}

static uint32_t *shuffled(size_t count, uint64_t seed)
{
	uint32_t *order = malloc(count * sizeof(*order));

	if (!order)
		bench_die("no memory");
	bench_shuffle(order, count, seed);
	return order;
}

static void build_tables(struct setting *s)
{
	uint32_t runs = s->pages / 512;
	uint32_t *run = shuffled(runs, 3);
	size_t pool_pages = 2 * (s->guest_tables + runs) + 64;

	s->pool_bytes = pool_pages * 4096;
	s->pool = bench_pages(s->pool_bytes);
	memset(s->pool, 0, s->pool_bytes);
	s->order = shuffled(pool_pages, 1);
	s->guest_order = shuffled(s->guest_tables, 2);
	s->root = take_page(s);
	for (uint64_t i = 0; i < s->guest_tables; i++)
		map_stage2(s, (s->pages + i) << 12, take_page(s));
	for (uint64_t i = 0; i < s->pages; i++)
		map_stage2(s, i << 12, i << 12);
	s->cr3 = take_guest_table(s);
	for (uint64_t i = 0; i < s->pages; i++)
		map_stage1(s, i << 12, ((uint64_t)run[i / 512] * 512 + i % 512) << 12);
	free(run);
}

static void prepare_walks(struct setting *s)
{
	const struct mv_paging_registers registers = {
		.cr0 = 0x80010001, /* PG, WP, PE */
		.cr3 = s->cr3,
		.cr4 = 0x3000a0, /* SMAP, SMEP, PGE, PAE */
		.efer = 0xd00,	 /* NXE, LMA, LME */
	};
	const struct mv_cpu_model cpu = { .maxphyaddr = 46, .features = MV_CPU_1G };
	const struct mv_stage2_config stage2_config = {
		.size = sizeof(stage2_config),
		.format = MV_FORMAT_EPT_4L,
		.features = MV_FEATURE_2M | MV_FEATURE_1G,
		.maxphyaddr = 52,
		.root = s->root,
	};
	const struct mv_nested_cache_config cache_config = { .size = sizeof(cache_config),
							     .node = -1 };
	struct mv_stage2 stage2;
	struct mv_nested_config config = { .size = sizeof(config),
					   .stage2 = &stage2,
					   .guest_pat = MV_PAT_RESET };
	struct mv_paging paging;

	if (mv_paging_init(&paging, &registers, &cpu) || mv_stage2_init(&stage2, &stage2_config) ||
	    mv_nested_init(&s->nested, &config) || mv_nested_cache_create(&cache_config, &s->cache))
		bench_die("cannot prepare the walks");
	mv_nested_set_paging(&s->nested, &paging);
}

static void open_setting(struct setting *s, struct bench *bench, uint32_t pages)
{
	*s = (struct setting){ .bench = bench, .pages = bench->quick ? PAGES_QUICK : pages };
	s->walked = s->pages;
	s->guest_tables = s->pages / 512 + 64;
	build_tables(s);
	prepare_walks(s);
	for (uint64_t gva = 0; gva < (uint64_t)s->pages << 12; gva += 4096 * 37) {
		struct mv_nested_walk walk;

		if (mv_nested_walk(&s->nested, gva, MV_ACCESS_READ | MV_ACCESS_USER, &walk) ||
		    walk.kind != MV_NESTED_OK || walk.hpa != raw_walk(s->root, s->cr3, gva))
			bench_die("ours and the raw walk disagree at %#lx", (unsigned long)gva);
	}
}

static void close_setting(struct setting *s)
{
	mv_nested_cache_destroy(s->cache);
	munmap(s->pool, s->pool_bytes);
	free(s->order);
	free(s->guest_order);
}

/* --- addresses ---------------------------------------------------------------------------- */

/* The next page at random; @last, a translation, adds nothing but the wait for it. */
static inline uint64_t random_gva(const struct setting *s, uint64_t *state, uint64_t last)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	*state ^= last >> 60;
	return (*state & (s->walked - 1)) << 12;
}

static inline uint64_t next_gva(const struct setting *s, uint64_t gva, uint64_t last)
{
	return ((gva + 4096) & (((uint64_t)s->pages << 12) - 1)) + (last >> 60);
}

/* Keeps a value, and what led to it, from being optimized away. */
static inline void keep(uint64_t *value)
{
	__asm__ volatile("" : "+r"(*value));
}

/* --- rounds ------------------------------------------------------------------------------- */

static uint64_t translate(const struct setting *s, uint64_t gva)
{
	struct mv_nested_walk walk;

	if (mv_nested_walk(&s->nested, gva, MV_ACCESS_READ | MV_ACCESS_USER, &walk) ||
	    walk.kind != MV_NESTED_OK)
		bench_die("no translation of %#lx", (unsigned long)gva);
	return walk.hpa;
}

static uint64_t translate_cached(const struct setting *s, uint64_t gva)
{
	struct mv_nested_walk walk;

	if (mv_nested_cached_walk(s->cache, &s->nested, gva, MV_ACCESS_READ | MV_ACCESS_USER,
				  &walk) ||
	    walk.kind != MV_NESTED_OK)
		bench_die("no translation of %#lx", (unsigned long)gva);
	return walk.hpa;
}

static double random_ours(void *ctx)
{
	struct setting *s = ctx;
	uint64_t hpa = 0, state = ++s->seed * 0x9e3779b97f4a7c15ull;
	double begin = bench_now();

	for (uint32_t i = 0; i < WALKS; i++) {
		hpa = translate(s, random_gva(s, &state, hpa));
		keep(&hpa);
	}
	return (bench_now() - begin) / WALKS;
}

static double random_raw(void *ctx)
{
	struct setting *s = ctx;
	uint64_t hpa = 0, state = ++s->seed * 0x9e3779b97f4a7c15ull;
	double begin = bench_now();

	for (uint32_t i = 0; i < WALKS; i++) {
		hpa = raw_walk(s->root, s->cr3, random_gva(s, &state, hpa));
		keep(&hpa);
	}
	return (bench_now() - begin) / WALKS;
}

static double random_cached(void *ctx)
{
	struct setting *s = ctx;
	uint64_t hpa = 0, state = ++s->seed * 0x9e3779b97f4a7c15ull;
	double begin = bench_now();

	for (uint32_t i = 0; i < WALKS; i++) {
		hpa = translate_cached(s, random_gva(s, &state, hpa));
		keep(&hpa);
	}
	return (bench_now() - begin) / WALKS;
}

static double batch_ours(void *ctx)
{
	struct setting *s = ctx;
	uint64_t gva[64], hpa[64], state = ++s->seed * 0x9e3779b97f4a7c15ull;
	double begin = bench_now();

	for (uint32_t done = 0; done < WALKS; done += 64) {
		for (unsigned int i = 0; i < 64; i++)
			gva[i] = random_gva(s, &state, 0);
		if (mv_nested_translate_many(&s->nested, gva, MV_ACCESS_READ | MV_ACCESS_USER, hpa,
					     64) != 64)
			bench_die("not all were translated");
		state ^= hpa[63] >> 60;
	}
	return (bench_now() - begin) / WALKS;
}

static double sequential_ours(void *ctx)
{
	struct setting *s = ctx;
	uint64_t hpa = 0, gva = 0;
	double begin = bench_now();

	for (uint32_t i = 0; i < WALKS; i++) {
		hpa = translate_cached(s, gva);
		keep(&hpa);
		gva = next_gva(s, gva, hpa);
	}
	return (bench_now() - begin) / WALKS;
}

static double sequential_raw(void *ctx)
{
	struct setting *s = ctx;
	uint64_t hpa = 0, gva = 0;
	double begin = bench_now();

	for (uint32_t i = 0; i < WALKS; i++) {
		hpa = raw_walk(s->root, s->cr3, gva);
		keep(&hpa);
		gva = next_gva(s, gva, hpa);
	}
	return (bench_now() - begin) / WALKS;
}

/* The same few pages again and again: what a cached translation costs. */
static double again_ours(void *ctx)
{
	struct setting *s = ctx;
	uint64_t hpa = 0;
	double begin = bench_now();

	for (uint32_t i = 0; i < WALKS; i++) {
		hpa = translate_cached(s, ((uint64_t)(i & 255) << 12) + (hpa >> 60));
		keep(&hpa);
	}
	return (bench_now() - begin) / WALKS;
}

static double again_raw(void *ctx)
{
	struct setting *s = ctx;
	uint64_t hpa = 0;
	double begin = bench_now();

	for (uint32_t i = 0; i < WALKS; i++) {
		hpa = raw_walk(s->root, s->cr3, ((uint64_t)(i & 255) << 12) + (hpa >> 60));
		keep(&hpa);
	}
	return (bench_now() - begin) / WALKS;
}

static double kvm_peer(void *ctx)
{
	struct setting *s = ctx;
	const uint32_t asks = 2000;
	uint64_t first = kvm_guest_first_free(&s->kvm), state = ++s->seed;
	double begin = bench_now();

	for (uint32_t i = 0; i < asks; i++) {
		uint64_t gva = first + (bench_random(&state) << 12) % (KVM_BYTES - first);

		if (kvm_guest_translate(&s->kvm, gva) != gva)
			bench_die("KVM_TRANSLATE knows no %#lx", (unsigned long)gva);
	}
	return (bench_now() - begin) / asks;
}

/* --- figures ------------------------------------------------------------------------------ */

static void compare(struct setting *s, const char *name, double (*ours)(void *),
		    const char *peer_name, double (*peer)(void *), const char *goal)
{
	bench_compare(s->bench, &(struct bench_pair){ .name = name,
						      .unit = "ns",
						      .peer_name = peer_name,
						      .ours = ours,
						      .peer = peer,
						      .ctx = s,
						      .goal = goal });
}

static void measure_kvm(struct setting *s)
{
	if (kvm_guest_open(&s->kvm, KVM_BYTES)) {
		bench_skip(s->bench, "nested walk, translate service", s->kvm.why);
		return;
	}
	s->walked = s->pages < KVM_BYTES / 4096 ? s->pages : KVM_BYTES / 4096;
	compare(s, "nested walk, translate service", random_ours, "KVM_TRANSLATE", kvm_peer,
		"<=0.02");
	s->walked = s->pages;
	kvm_guest_close(&s->kvm);
}

/* LibVMI is not to be had here: its best figure, measured elsewhere, stands beside ours. */
static void quote_libvmi(struct setting *s)
{
	double ours[BENCH_ROUNDS_MAX], quoted[BENCH_ROUNDS_MAX];

	for (unsigned int i = 0; i < s->bench->rounds; i++) {
		ours[i] = random_ours(s);
		quoted[i] = 1727;
	}
	bench_report(s->bench, &(struct bench_figure){ .name = "nested walk beside LibVMI",
						       .unit = "ns",
						       .ours = ours,
						       .peer_name = "LibVMI's best, quoted",
						       .peer = quoted,
						       .rounds = s->bench->rounds });
}

static void measure_small(struct bench *bench)
{
	struct setting s;

	open_setting(&s, bench, PAGES);
	compare(&s, "nested walk, random in 1 GiB", random_ours, "24 raw loads", random_raw,
		"<=1.30");
	compare(&s, "nested walk, batches of 64, 1 GiB", batch_ours, "24 raw loads", random_raw,
		NULL);
	compare(&s, "nested walk, sequential, cache", sequential_ours, "24 raw loads, sequential",
		sequential_raw, "<=0.25");
	compare(&s, "nested walk, random, cache", random_cached, "24 raw loads", random_raw, NULL);
	compare(&s, "nested walk, 256 pages, cache", again_ours, "24 raw loads, 256 pages",
		again_raw, NULL);
	measure_kvm(&s);
	quote_libvmi(&s);
	close_setting(&s);
}

static void measure_large(struct bench *bench)
{
	struct setting s;

	open_setting(&s, bench, PAGES_LARGE);
	compare(&s, "nested walk, random in 16 GiB", random_ours, "24 raw loads", random_raw,
		"<=1.30");
	compare(&s, "nested walk, batches of 64, 16 GiB", batch_ours, "24 raw loads", random_raw,
		"<=0.50");
	close_setting(&s);
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);

	bench_pin(0);
	measure_small(&bench);
	measure_large(&bench);
	return bench_close(&bench);
}
