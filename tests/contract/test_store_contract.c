/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What include/memvirt/store.h promises of every page store. Each test runs once for each
 * implementation in the table below.
 */
#include "support/testing.h"

#include <memvirt/memory.h>
#include <memvirt/store.h>

#include "support/page_mix.h"

#define KEYS 3000
#define ROOM (64UL << 20)

struct implementation {
	const char *name;
	struct mv_store *(*create)(uint64_t keys, uint64_t limit_bytes);
};

static struct mv_store *create_ram(uint64_t keys, uint64_t limit_bytes)
{
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.keys = keys,
		.limit_bytes = limit_bytes,
	};
	struct mv_store *store = NULL;

	assert_int_equal(mv_ram_store_create(&config, &store), 0);
	return store;
}

static const struct implementation implementations[] = {
	{ "ram", create_ram },
};

/* A store under test, and a thread's scratch. */
struct opened_store {
	struct mv_store *store;
	void *scratch;
};

static struct opened_store open_store(void **state, uint64_t limit)
{
	const struct implementation *implementation = *state;
	struct opened_store s = { .store = implementation->create(KEYS, limit) };

	s.scratch = malloc(s.store->ops->scratch_bytes);
	assert_non_null(s.scratch);
	memset(s.scratch, 0xa5, s.store->ops->scratch_bytes);
	return s;
}

static void close_store(struct opened_store *s)
{
	free(s->scratch);
	mv_store_destroy(s->store);
}

static int put(struct opened_store *s, uint64_t key, enum page_kind kind, uint64_t seed)
{
	unsigned char page[MV_PAGE_SIZE], before[MV_PAGE_SIZE];

	page_make(page, kind, seed);
	memcpy(before, page, sizeof(page));

	int error = s->store->ops->put(s->store, key, page, s->scratch);

	assert_memory_equal(page, before, sizeof(page));
	return error;
}

static void expect(struct opened_store *s, uint64_t key, enum page_kind kind, uint64_t seed)
{
	unsigned char page[MV_PAGE_SIZE], wanted[MV_PAGE_SIZE];

	page_make(wanted, kind, seed);
	memset(page, 0x5a, sizeof(page));
	assert_int_equal(s->store->ops->get(s->store, key, page), 0);
	assert_memory_equal(page, wanted, sizeof(page));
}

static void drop(struct opened_store *s, uint64_t key)
{
	s->store->ops->drop(s->store, key);
}

static struct mv_store_stats stats_of(struct opened_store *s)
{
	struct mv_store_stats stats;

	memset(&stats, 0xff, sizeof(stats));
	s->store->ops->get_stats(s->store, &stats);
	return stats;
}

static void gives_back_every_kind_of_page(void **state)
{
	struct opened_store s = open_store(state, ROOM);

	for (unsigned int kind = 0; kind < PAGE_KINDS; kind++) {
		for (uint64_t seed = 0; seed < 50; seed++) {
			uint64_t key = kind * 50 + seed;

			assert_int_equal(put(&s, key, kind, seed), 0);
			expect(&s, key, kind, seed);
		}
	}
	/* Later ones have not disturbed earlier ones; a get takes nothing away. */
	for (unsigned int kind = 0; kind < PAGE_KINDS; kind++)
		for (uint64_t seed = 0; seed < 50; seed++)
			expect(&s, kind * 50 + seed, kind, seed);
	close_store(&s);
}

static void first_and_last_key_are_good(void **state)
{
	struct opened_store s = open_store(state, ROOM);

	assert_int_equal(put(&s, 0, PAGE_TEXT, 1), 0);
	assert_int_equal(put(&s, KEYS - 1, PAGE_HEAP, 2), 0);
	expect(&s, 0, PAGE_TEXT, 1);
	expect(&s, KEYS - 1, PAGE_HEAP, 2);
	close_store(&s);
}

static void free_key_has_nothing(void **state)
{
	struct opened_store s = open_store(state, ROOM);
	unsigned char page[MV_PAGE_SIZE];

	assert_int_equal(s.store->ops->get(s.store, 7, page), -ENOENT);
	drop(&s, 7);
	assert_int_equal(put(&s, 7, PAGE_TEXT, 7), 0);
	assert_int_equal(s.store->ops->get(s.store, 8, page), -ENOENT);
	drop(&s, 8);
	drop(&s, 7);
	assert_int_equal(s.store->ops->get(s.store, 7, page), -ENOENT);
	drop(&s, 7);
	assert_int_equal(stats_of(&s).pages, 0);
	assert_int_equal(stats_of(&s).drops, 1);
	close_store(&s);
}

static void dropped_key_takes_new_content(void **state)
{
	struct opened_store s = open_store(state, ROOM);

	for (uint64_t turn = 0; turn < 20; turn++) {
		for (unsigned int kind = 0; kind < PAGE_KINDS; kind++) {
			assert_int_equal(put(&s, 5, kind, turn), 0);
			expect(&s, 5, kind, turn);
			drop(&s, 5);
		}
	}
	close_store(&s);
}

static void unaligned_buffers_will_do(void **state)
{
	struct opened_store s = open_store(state, ROOM);
	unsigned char page[MV_PAGE_SIZE + 3], out[MV_PAGE_SIZE + 5];
	char *scratch = malloc(s.store->ops->scratch_bytes + 1);

	assert_non_null(scratch);
	for (unsigned int kind = 0; kind < PAGE_KINDS; kind++) {
		page_make(page + 3, kind, 9);
		assert_int_equal(s.store->ops->put(s.store, kind, page + 3, scratch + 1), 0);
		assert_int_equal(s.store->ops->get(s.store, kind, out + 5), 0);
		assert_memory_equal(out + 5, page + 3, MV_PAGE_SIZE);
	}
	free(scratch);
	close_store(&s);
}

static void statistics_count(void **state)
{
	struct opened_store s = open_store(state, ROOM);
	struct mv_store_stats empty = stats_of(&s), full;

	assert_int_equal(empty.pages, 0);
	assert_int_equal(empty.compressed_bytes, 0);
	assert_int_equal(empty.limit_bytes, ROOM);
	assert_true(empty.memory_bytes <= ROOM);

	for (uint64_t key = 0; key < 600; key++)
		assert_int_equal(put(&s, key, key % PAGE_KINDS, key), 0);
	for (uint64_t key = 0; key < 60; key++)
		expect(&s, key, key % PAGE_KINDS, key);
	full = stats_of(&s);
	assert_int_equal(full.pages, 600);
	assert_int_equal(full.puts, 600);
	assert_int_equal(full.gets, 60);
	assert_int_equal(full.same_filled, 300); /* zero, small, word */
	assert_int_equal(full.incompressible, 100);
	assert_true(full.compressed_bytes >= 100 * MV_PAGE_SIZE);
	assert_true(full.memory_bytes >= full.compressed_bytes);
	assert_true(full.memory_bytes <= ROOM);

	for (uint64_t key = 0; key < 600; key++)
		drop(&s, key);
	assert_int_equal(stats_of(&s).drops, 600);
	assert_int_equal(stats_of(&s).pages, 0);
	assert_int_equal(stats_of(&s).same_filled, 0);
	assert_int_equal(stats_of(&s).incompressible, 0);
	assert_int_equal(stats_of(&s).compressed_bytes, 0);
	assert_int_equal(stats_of(&s).corrupt, 0);
	close_store(&s);
}

static void full_store_keeps_what_it_has(void **state)
{
	struct opened_store s = open_store(state, 3UL << 20);
	unsigned char page[MV_PAGE_SIZE];
	uint64_t keys = 0;
	int error;

	while (!(error = put(&s, keys, PAGE_NOISE, keys)))
		keys++;
	assert_int_equal(error, -ENOSPC);
	assert_in_range(keys, 100, 768);
	assert_int_equal(s.store->ops->get(s.store, keys, page), -ENOENT);
	assert_int_equal(stats_of(&s).full, 1);
	assert_int_equal(stats_of(&s).pages, keys);
	assert_true(stats_of(&s).memory_bytes <= 3UL << 20);
	for (uint64_t key = 0; key < keys; key++)
		expect(&s, key, PAGE_NOISE, key);

	/* What is dropped makes room again, at the latest after maintenance. */
	for (uint64_t key = 0; key < keys; key++)
		drop(&s, key);
	while (s.store->ops->maintain(s.store))
		;
	for (uint64_t key = 0; key < keys / 2; key++)
		assert_int_equal(put(&s, key, PAGE_NOISE, key + 1), 0);
	close_store(&s);
}

static void maintenance_ends_and_loses_nothing(void **state)
{
	struct opened_store s = open_store(state, ROOM);

	for (uint64_t key = 0; key < KEYS; key++)
		assert_int_equal(put(&s, key, page_mix_kind(key), key), 0);
	for (uint64_t key = 0; key < KEYS; key++)
		if (key % 3)
			drop(&s, key);

	unsigned int pieces = 0;

	while (s.store->ops->maintain(s.store))
		assert_true(++pieces < 10000);
	for (uint64_t key = 0; key < KEYS; key += 3)
		expect(&s, key, page_mix_kind(key), key);
	assert_int_equal(s.store->ops->maintain(s.store), 0);
	close_store(&s);
}

static void destroy_takes_null(void **state)
{
	mv_store_destroy(NULL);
}

static const struct CMUnitTest each[] = {
	cmocka_unit_test(gives_back_every_kind_of_page),
	cmocka_unit_test(first_and_last_key_are_good),
	cmocka_unit_test(free_key_has_nothing),
	cmocka_unit_test(dropped_key_takes_new_content),
	cmocka_unit_test(unaligned_buffers_will_do),
	cmocka_unit_test(statistics_count),
	cmocka_unit_test(full_store_keeps_what_it_has),
	cmocka_unit_test(maintenance_ends_and_loses_nothing),
	cmocka_unit_test(destroy_takes_null),
};

int main(void)
{
	struct CMUnitTest tests[COUNT_OF(implementations) * COUNT_OF(each)];
	char names[COUNT_OF(tests)][80];

	for (size_t i = 0; i < COUNT_OF(tests); i++) {
		const struct implementation *implementation =
			&implementations[i / COUNT_OF(each)];

		tests[i] = each[i % COUNT_OF(each)];
		snprintf(names[i], sizeof(names[i]), "%s: %s", implementation->name,
			 tests[i].name);
		tests[i].name = names[i];
		tests[i].initial_state = (void *)implementation;
	}
	return _cmocka_run_group_tests("store", tests, COUNT_OF(tests), NULL, NULL);
}
