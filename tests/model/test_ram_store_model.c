/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The RAM store against a plain array of pages: random operations, and after each get the
 * exact content, at intervals the exact accounting. What is tested of single operations is
 * in test_store_contract.c and test_ram_store.c.
 */
#include "support/testing.h"

#include <lz4.h>

#include "support/page_mix.h"
#include "support/ram_probe.h"

#define KEYS	  4096
#define MIB	  (1UL << 20)

struct model {
	struct mv_store *store;
	struct chance chance;
	unsigned char (*pages)[MV_PAGE_SIZE];
	bool used[KEYS];
	uint32_t lengths[KEYS]; /* what should be kept of each */
	uint64_t hot;		/* keys below are drawn more often */
	uint64_t puts, gets, drops, full;
	uint64_t count, content;
	void *scratch;
};

static uint64_t draw_key(struct model *m)
{
	return chance_below(&m->chance, chance_one_in(&m->chance, 3) ? KEYS : m->hot);
}

/* Bytes that the store may keep of a page: written anew from the rules in store.h. */
static uint32_t length_of(const unsigned char *page)
{
	char out[LZ4_COMPRESSBOUND(MV_PAGE_SIZE)];
	uint64_t first, word;
	uint32_t halves[2];
	int length;

	memcpy(&first, page, sizeof(first));
	memcpy(halves, page, sizeof(halves));
	for (size_t at = 0; at < MV_PAGE_SIZE; at += sizeof(word)) {
		memcpy(&word, page + at, sizeof(word));
		if (word != first) {
			length = LZ4_compress_default((const char *)page, out, MV_PAGE_SIZE,
						      sizeof(out));
			return length > 4032 ? MV_PAGE_SIZE : (uint32_t)length;
		}
	}
	/* The top three bits alike, or two equal halves: no content but the index. */
	return first >> 61 == 0 || first >> 61 == 7 || halves[0] == halves[1] ? 0 : 8;
}

/* Most pages are of the usual mix; some are a mixture of two kinds, cut anywhere. */
static void draw_page(struct model *m, unsigned char *page)
{
	uint64_t seed = chance_next(&m->chance);

	page_make(page, page_mix_kind(seed), seed);
	if (chance_one_in(&m->chance, 8)) {
		unsigned char other[MV_PAGE_SIZE];
		size_t cut = chance_below(&m->chance, MV_PAGE_SIZE);

		page_make(other, page_mix_kind(~seed), ~seed);
		memcpy(page + cut, other + cut, MV_PAGE_SIZE - cut);
	}
}

/*
 * What was kept of a page just put. Little effort is made with one that looks random: what LZ4
 * would save of it, an eighth of a page at most, may be lost.
 */
static uint32_t length_kept(struct model *m, const unsigned char *page)
{
	uint32_t best = length_of(page);
	uint64_t kept = ram_stats(m->store).compressed_bytes - m->content;

	if (best <= MV_PAGE_SIZE / 2)
		assert_int_equal(kept, best);
	assert_in_range(kept, best - (best > MV_PAGE_SIZE / 2 ? 64 : 0), MV_PAGE_SIZE);
	assert_true(kept <= best + MV_PAGE_SIZE / 8);
	return (uint32_t)kept;
}

static void model_put(struct model *m, uint64_t key)
{
	unsigned char page[MV_PAGE_SIZE];

	draw_page(m, page);

	int error = m->store->ops->put(m->store, key, page, m->scratch);

	if (m->used[key]) {
		assert_true(error == -EEXIST || error == -ENOSPC);
		m->full += error == -ENOSPC;
		return;
	}
	if (error) {
		assert_int_equal(error, -ENOSPC);
		m->full++;
		return;
	}
	memcpy(m->pages[key], page, sizeof(page));
	m->used[key] = true;
	m->lengths[key] = length_kept(m, page);
	m->content += m->lengths[key];
	m->count++;
	m->puts++;
}

static void model_get(struct model *m, uint64_t key)
{
	unsigned char page[MV_PAGE_SIZE];
	int error = m->store->ops->get(m->store, key, page);

	assert_int_equal(error, m->used[key] ? 0 : -ENOENT);
	if (error)
		return;
	m->gets++;
	assert_memory_equal(page, m->pages[key], sizeof(page));
}

static void model_drop(struct model *m, uint64_t key)
{
	m->store->ops->drop(m->store, key);
	if (!m->used[key])
		return;
	m->used[key] = false;
	m->content -= m->lengths[key];
	m->count--;
	m->drops++;
}

static void check_counts(struct model *m)
{
	struct mv_store_stats stats = ram_stats(m->store);

	assert_int_equal(stats.pages, m->count);
	assert_int_equal(stats.compressed_bytes, m->content);
	assert_int_equal(stats.puts, m->puts);
	assert_int_equal(stats.gets, m->gets);
	assert_int_equal(stats.drops, m->drops);
	assert_int_equal(stats.full, m->full);
	assert_int_equal(stats.corrupt, 0);
	ram_check(m->store);
}

static void step(struct model *m)
{
	uint64_t key = draw_key(m);

	switch (chance_below(&m->chance, 10)) {
	case 0 ... 3:
		model_put(m, key);
		break;
	case 4 ... 6:
		model_get(m, key);
		break;
	case 7 ... 8:
		model_drop(m, key);
		break;
	default:
		if (chance_one_in(&m->chance, 8))
			m->store->ops->maintain(m->store);
	}
}

/* From time to time drop most of the keys at once, as a detach does. */
static void drop_many(struct model *m)
{
	for (uint64_t key = 0; key < KEYS; key++)
		if (chance_below(&m->chance, 8))
			model_drop(m, key);
}

static void run(uint64_t limit, uint64_t stream)
{
	struct model m = { .chance = chance_of(test_seed(), stream), .hot = 400 };
	uint64_t steps = test_rounds(120000);

	m.store = ram_open(KEYS, limit);
	m.pages = calloc(KEYS, MV_PAGE_SIZE);
	m.scratch = malloc(m.store->ops->scratch_bytes);
	assert_non_null(m.pages);
	assert_non_null(m.scratch);

	for (uint64_t i = 0; i < steps; i++) {
		step(&m);
		if (i % 2000 == 0)
			check_counts(&m);
		if (i % 30000 == 29999)
			drop_many(&m);
	}
	for (uint64_t key = 0; key < KEYS; key++)
		model_get(&m, key);
	check_counts(&m);
	for (uint64_t key = 0; key < KEYS; key++)
		model_drop(&m, key);
	ram_clean(m.store);
	check_counts(&m);
	free(m.scratch);
	free(m.pages);
	mv_store_destroy(m.store);
}

static void like_an_array_without_a_limit(void **state)
{
	run(UINT64_MAX, 1);
}

static void like_an_array_that_is_too_small(void **state)
{
	run(5 * MIB / 2, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(like_an_array_without_a_limit),
		cmocka_unit_test(like_an_array_that_is_too_small),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
