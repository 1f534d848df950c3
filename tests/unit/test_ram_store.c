/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The RAM store's own promises, beyond those of every store (test_store_contract.c): its
 * configuration, how little it keeps of a page, what memory it takes, and cleaning.
 */
#include "support/testing.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "balloon/same_fill.h"
#include "support/fake_platform.h"
#include "support/page_mix.h"
#include "support/ram_probe.h"

#define MIB (1UL << 20)

/* Enough for any store's scratch. */
static char scratch[64 << 10];

static int put(struct mv_store *store, uint64_t key, enum page_kind kind, uint64_t seed)
{
	unsigned char page[MV_PAGE_SIZE];

	page_make(page, kind, seed);
	return store->ops->put(store, key, page, scratch);
}

static void expect(struct mv_store *store, uint64_t key, enum page_kind kind, uint64_t seed)
{
	unsigned char page[MV_PAGE_SIZE], wanted[MV_PAGE_SIZE];

	page_make(wanted, kind, seed);
	assert_int_equal(store->ops->get(store, key, page), 0);
	assert_memory_equal(page, wanted, sizeof(page));
}

/* --- same-filled pages -------------------------------------------------------------------- */

static void same_filled_is_found_and_made_again(void **state)
{
	uint64_t words[512], again[512], word = 0;

	for (uint64_t seed = 0; seed < 200; seed++) {
		uint64_t state_of = seed, random = page_mix_random(&state_of);

		page_fill_word(words, random);
		assert_true(mv_same_filled(words, &word));
		assert_true(word == random);
		mv_same_fill(again, random);
		assert_memory_equal(words, again, sizeof(words));
	}
}

static void one_odd_bit_anywhere_is_not_same_filled(void **state)
{
	unsigned char page[MV_PAGE_SIZE];
	uint64_t word = 77;

	memset(page, 0x11, sizeof(page));
	for (size_t bit = 0; bit < MV_PAGE_SIZE * 8; bit++) {
		page[bit / 8] ^= 1 << bit % 8;
		assert_false(mv_same_filled(page, &word));
		page[bit / 8] ^= 1 << bit % 8;
	}
	assert_int_equal(word, 77);
}

/* Words at the edges of what an index word can hold, and whether it does. */
static const struct {
	uint64_t word;
	bool in_index;
} edges[] = {
	{ 0, true },
	{ 1, true },
	{ UINT64_MAX, true },
	{ 0x1fffffffffffffff, true },
	{ 0x2000000000000000, false },
	{ 0x3fffffffffffffff, false },
	{ 0x4000000000000000, false },
	{ 0x7fffffffffffffff, false },
	{ 0x8000000000000000, false },
	{ 0xdfffffffffffffff, false },
	{ 0xe000000000000000, true },
	{ 0xffff888012345678, true }, /* a kernel's pointer */
	{ 0x00007f31c4000000, true }, /* a process's */
	{ 0xaaaaaaaaaaaaaaaa, true },
	{ 0x5555555555555555, true },
	{ 0x8000000080000000, true },
	{ 0xdeadbeefdeadbeef, true },
	{ 0xdeadbeefdeadbeee, false },
};

static void word_is_kept_in_the_index_where_it_fits(void **state)
{
	struct mv_store *store = ram_open(COUNT_OF(edges), 4 * MIB);
	unsigned char page[MV_PAGE_SIZE], out[MV_PAGE_SIZE];

	for (size_t i = 0; i < COUNT_OF(edges); i++) {
		page_fill_word(page, edges[i].word);
		assert_int_equal(store->ops->put(store, i, page, scratch), 0);
		assert_int_equal(store->ops->get(store, i, out), 0);
		assert_memory_equal(out, page, sizeof(page));
		assert_int_equal(!ram_object_of(store, i), edges[i].in_index);
		assert_int_equal(ram_stats(store).same_filled, i + 1);
	}
	ram_check(store);
	for (size_t i = 0; i < COUNT_OF(edges); i++)
		store->ops->drop(store, i);
	assert_int_equal(ram_stats(store).same_filled, 0);
	ram_check(store);
	mv_store_destroy(store);
}

/* Each byte of such a page looks random; only that it comes again tells that it is not. */
static void random_content_twice_is_kept_once(void **state)
{
	struct mv_store *store = ram_open(1000, UINT64_MAX);
	unsigned char page[MV_PAGE_SIZE];

	for (uint64_t key = 0; key < 1000; key++) {
		page_make(page, PAGE_NOISE, key);
		memcpy(page + MV_PAGE_SIZE / 2, page, MV_PAGE_SIZE / 2);
		assert_int_equal(store->ops->put(store, key, page, scratch), 0);
	}
	assert_true(ram_stats(store).compressed_bytes < 1000 * (MV_PAGE_SIZE / 2 + 64));
	mv_store_destroy(store);
}

static void zero_pages_take_nothing_but_the_index(void **state)
{
	uint64_t keys = 100000;
	struct mv_store *store = ram_open(keys, UINT64_MAX);
	uint64_t before = ram_stats(store).memory_bytes;

	for (uint64_t key = 0; key < keys; key++)
		assert_int_equal(put(store, key, PAGE_ZERO, 0), 0);

	uint64_t taken = ram_stats(store).memory_bytes - before;

	assert_in_range(taken, keys * 8, keys * 8 + MV_PAGE_SIZE);
	ram_check(store);
	mv_store_destroy(store);
}

/* --- configuration ------------------------------------------------------------------------ */

static void bad_configurations_are_refused(void **state)
{
	const struct mv_ram_store_config good = {
		.size = sizeof(good),
		.keys = 1000,
		.limit_bytes = 2 * MIB,
	};
	struct mv_ram_store_config bad[7];
	struct mv_store *store = (void *)bad;

	for (size_t i = 0; i < COUNT_OF(bad); i++)
		bad[i] = good;
	bad[0].size--;
	bad[1].keys = 0;
	bad[2].keys = UINT64_MAX;
	bad[3].limit_bytes = 0;
	bad[4].limit_bytes = MIB;
	bad[5].slack_percent = 51;
	bad[6].keys = 1UL << 36; /* whose bookkeeping alone takes more than the limit */
	for (size_t i = 0; i < COUNT_OF(bad); i++)
		assert_int_equal(mv_ram_store_create(&bad[i], &store), -EINVAL);
	assert_int_equal(mv_ram_store_create(NULL, &store), -EINVAL);
	assert_ptr_equal(store, bad);

	assert_int_equal(mv_ram_store_create(&good, &store), 0);
	mv_store_destroy(store);
}

static void keys_without_address_space_are_refused(void **state)
{
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.keys = 1ULL << 40,
		.limit_bytes = UINT64_MAX,
	};
	struct mv_store *store = NULL;

	assert_int_equal(mv_ram_store_create(&config, &store), -ENOMEM);
	assert_null(store);
}

static void big_store_takes_memory_only_where_used(void **state)
{
	uint64_t keys = 1ULL << 28; /* a tebibyte of guest */
	struct mv_store *store = ram_open(keys, UINT64_MAX);
	uint64_t before = ram_stats(store).memory_bytes;

	assert_int_equal(put(store, 0, PAGE_TEXT, 1), 0);
	assert_int_equal(put(store, keys / 2, PAGE_TEXT, 2), 0);
	assert_int_equal(put(store, keys - 1, PAGE_TEXT, 3), 0);
	expect(store, keys - 1, PAGE_TEXT, 3);
	/* Three pages of the index, a segment, and the page that the segment's record is in. */
	assert_int_equal(ram_stats(store).memory_bytes - before,
			 4 * MV_PAGE_SIZE + RAM_SEGMENT_BYTES);
	assert_true(before < MIB);
	mv_store_destroy(store);
}

static void keys_beyond_the_last_are_refused(void **state)
{
	struct mv_store *store = ram_open(10, 4 * MIB);
	unsigned char page[MV_PAGE_SIZE];

	assert_int_equal(put(store, 10, PAGE_TEXT, 1), -EINVAL);
	assert_int_equal(put(store, UINT64_MAX, PAGE_TEXT, 1), -EINVAL);
	assert_int_equal(store->ops->get(store, 10, page), -ENOENT);
	assert_int_equal(store->ops->get(store, UINT64_MAX, page), -ENOENT);
	store->ops->drop(store, 10);
	store->ops->drop(store, UINT64_MAX);
	assert_int_equal(ram_stats(store).full, 0);
	ram_check(store);
	mv_store_destroy(store);
}

static void used_key_keeps_its_content(void **state)
{
	struct mv_store *store = ram_open(10, 4 * MIB);

	for (unsigned int kind = 0; kind < PAGE_KINDS; kind++)
		assert_int_equal(put(store, kind, kind, 1), 0);
	for (unsigned int kind = 0; kind < PAGE_KINDS; kind++)
		for (unsigned int other = 0; other < PAGE_KINDS; other++)
			assert_int_equal(put(store, kind, other, 2), -EEXIST);
	for (unsigned int kind = 0; kind < PAGE_KINDS; kind++)
		expect(store, kind, kind, 1);
	ram_check(store);
	mv_store_destroy(store);
}

/* --- memory ------------------------------------------------------------------------------- */

static void memory_is_counted_exactly(void **state)
{
	struct mv_store *store = ram_open(50000, UINT64_MAX);

	ram_check(store);
	for (uint64_t key = 0; key < 50000; key += 7) {
		assert_int_equal(put(store, key, page_mix_kind(key), key), 0);
		if (key % 1000 == 0)
			ram_check(store);
	}
	for (uint64_t key = 0; key < 50000; key += 7) {
		if (key % 3)
			store->ops->drop(store, key);
		if (key % 1000 == 0)
			ram_check(store);
	}
	ram_clean(store);
	ram_check(store);
	mv_store_destroy(store);
}

static void a_look_at_a_free_key_populates_nothing(void **state)
{
	struct mv_store *store = ram_open(1 << 20, UINT64_MAX);
	unsigned char page[MV_PAGE_SIZE];

	for (uint64_t key = 0; key < 1 << 20; key += 100) {
		assert_int_equal(store->ops->get(store, key, page), -ENOENT);
		store->ops->drop(store, key);
	}
	ram_check(store);
	mv_store_destroy(store);
}

/* A store that was just filled: little more than its content. */
static void overhead_is_small(void **state)
{
	uint64_t keys = 40000;
	struct mv_store *store = ram_open(keys, UINT64_MAX);

	for (uint64_t key = 0; key < keys; key++)
		assert_int_equal(put(store, key, page_mix_kind(key), key), 0);

	struct mv_store_stats stats = ram_stats(store);

	assert_true(stats.memory_bytes < stats.compressed_bytes / 100 * 103);
	mv_store_destroy(store);
}

static void put_all(struct mv_store *store, uint64_t keys, uint64_t generation)
{
	for (uint64_t key = 0; key < keys; key++)
		assert_int_equal(put(store, key, PAGE_HEAP, key + generation), 0);
}

static void cleaning_gives_memory_back(void **state)
{
	uint64_t keys = 20000;
	struct mv_store *store = ram_open(keys, UINT64_MAX);

	put_all(store, keys, 0);

	uint64_t full = ram_stats(store).memory_bytes;

	for (uint64_t key = 0; key < keys; key++)
		if (key % 4)
			store->ops->drop(store, key);
	assert_int_equal(ram_stats(store).memory_bytes, full);
	ram_clean(store);
	ram_check(store);
	assert_true(ram_stats(store).memory_bytes < full / 3);
	assert_true(ram_stats(store).moved_bytes > 0);
	for (uint64_t key = 0; key < keys; key += 4)
		expect(store, key, PAGE_HEAP, key);
	mv_store_destroy(store);
}

static void emptied_segments_go_without_copying(void **state)
{
	uint64_t keys = 20000;
	struct mv_store *store = ram_open(keys, UINT64_MAX);

	put_all(store, keys, 0);
	for (uint64_t key = 0; key < keys; key++)
		store->ops->drop(store, key);
	ram_clean(store);
	ram_check(store);
	assert_int_equal(ram_stats(store).moved_bytes, 0);
	assert_true(ram_stats(store).memory_bytes < 2 * MIB);
	mv_store_destroy(store);
}

static void less_slack_leaves_less_dead(void **state)
{
	uint64_t keys = 30000, dead[2];
	const unsigned int slack[] = { 2, 30 };

	for (unsigned int i = 0; i < 2; i++) {
		struct mv_ram_store_config config = {
			.size = sizeof(config),
			.keys = keys,
			.limit_bytes = UINT64_MAX,
			.slack_percent = slack[i],
		};
		struct mv_store *store;
		struct chance chance = chance_of(1, 1);

		assert_int_equal(mv_ram_store_create(&config, &store), 0);
		put_all(store, keys, 0);
		for (unsigned int turn = 0; turn < 20000; turn++) {
			uint64_t key = chance_below(&chance, keys);

			store->ops->drop(store, key);
			assert_int_equal(put(store, key, PAGE_HEAP, key), 0);
			if (turn % 64 == 0)
				ram_clean(store);
		}
		ram_clean(store);
		ram_check(store);
		dead[i] = RAM_SUM(ram_of(store), dead);
		assert_true(dead[i] <= ram_stats(store).memory_bytes / 100 * slack[i] +
					       RAM_SEGMENT_BYTES);
		mv_store_destroy(store);
	}
	assert_true(dead[0] < dead[1] / 4);
}

/* --- locked memory ------------------------------------------------------------------------ */

static uint64_t locked_bytes(void)
{
	FILE *status = fopen("/proc/self/status", "r");
	unsigned long kib = 0;
	char line[256];

	assert_non_null(status);
	while (fgets(line, sizeof(line), status))
		if (sscanf(line, "VmLck: %lu kB", &kib) == 1)
			break;
	fclose(status);
	return kib << 10;
}

static unsigned int warnings;
static char warning[256];

static void note_warning(void *ctx, enum mv_log_level level, const char *line)
{
	warnings++;
	snprintf(warning, sizeof(warning), "%s", line);
}

static void memory_is_locked_where_asked_for(void **state)
{
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.keys = 2000,
		.limit_bytes = 4 * MIB,
		.lock_memory = 1,
	};
	struct rlimit limit;
	struct mv_store *store;
	uint64_t before = locked_bytes();

	getrlimit(RLIMIT_MEMLOCK, &limit);
	if (geteuid() && limit.rlim_cur < 5 * MIB) {
		print_message("# skip-reason: RLIMIT_MEMLOCK allows less than 5 MiB\n");
		skip();
	}
	assert_int_equal(mv_ram_store_create(&config, &store), 0);
	assert_true(locked_bytes() - before >= 3 * MIB);
	ram_check(store);

	/* Locked memory is given back as well. */
	put_all(store, 2000, 0);
	for (uint64_t key = 0; key < 2000; key++)
		store->ops->drop(store, key);
	ram_clean(store);
	ram_check(store);
	assert_true(ram_stats(store).memory_bytes < 2 * MIB);
	mv_store_destroy(store);
	assert_int_equal(locked_bytes(), before);
}

/* In a process that may lock nothing: exit status 0 where the store works and says so. */
static int try_without_permission(void)
{
	struct mv_platform_ops ops = *mv_platform_linux()->ops;
	struct mv_platform platform = { .ops = &ops };
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.platform = &platform,
		.keys = 2000,
		.limit_bytes = 4 * MIB,
		.lock_memory = 1,
	};
	const struct rlimit none = { 0, 0 };
	struct mv_store *store;

	ops.log = note_warning;
	if (setrlimit(RLIMIT_MEMLOCK, &none) || (!geteuid() && setuid(65534)))
		return 10;
	if (mv_ram_store_create(&config, &store))
		return 11;
	put_all(store, 2000, 0);
	for (uint64_t key = 0; key < 2000; key++)
		store->ops->drop(store, key);
	ram_clean(store);
	ram_check(store);
	mv_store_destroy(store);
	return warnings == 1 && strstr(warning, "RLIMIT_MEMLOCK") ? 0 : 12;
}

static void store_works_where_memory_cannot_be_locked(void **state)
{
	int status;
	pid_t child = fork();

	if (!child)
		_exit(try_without_permission());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(same_filled_is_found_and_made_again),
		cmocka_unit_test(one_odd_bit_anywhere_is_not_same_filled),
		cmocka_unit_test(word_is_kept_in_the_index_where_it_fits),
		cmocka_unit_test(random_content_twice_is_kept_once),
		cmocka_unit_test(zero_pages_take_nothing_but_the_index),
		cmocka_unit_test(bad_configurations_are_refused),
		cmocka_unit_test(keys_without_address_space_are_refused),
		cmocka_unit_test(big_store_takes_memory_only_where_used),
		cmocka_unit_test(keys_beyond_the_last_are_refused),
		cmocka_unit_test(used_key_keeps_its_content),
		cmocka_unit_test(memory_is_counted_exactly),
		cmocka_unit_test(a_look_at_a_free_key_populates_nothing),
		cmocka_unit_test(overhead_is_small),
		cmocka_unit_test(cleaning_gives_memory_back),
		cmocka_unit_test(emptied_segments_go_without_copying),
		cmocka_unit_test(less_slack_leaves_less_dead),
		cmocka_unit_test(memory_is_locked_where_asked_for),
		cmocka_unit_test(store_works_where_memory_cannot_be_locked),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
