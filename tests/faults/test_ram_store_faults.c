/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The RAM store when things go wrong: no memory, no address space, no room, and bits that
 * flip in its objects.
 */
#include "support/testing.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/fake_platform.h"
#include "support/page_mix.h"
#include "support/ram_probe.h"

#define MIB (1UL << 20)

static char scratch[64 << 10];

static int put(struct mv_store *store, uint64_t key, enum page_kind kind, uint64_t seed)
{
	unsigned char page[MV_PAGE_SIZE];

	page_make(page, kind, seed);
	return store->ops->put(store, key, page, scratch);
}

static int get(struct mv_store *store, uint64_t key)
{
	unsigned char page[MV_PAGE_SIZE];

	return store->ops->get(store, key, page);
}

static void expect(struct mv_store *store, uint64_t key, enum page_kind kind, uint64_t seed)
{
	unsigned char page[MV_PAGE_SIZE], wanted[MV_PAGE_SIZE];

	page_make(wanted, kind, seed);
	assert_int_equal(store->ops->get(store, key, page), 0);
	assert_memory_equal(page, wanted, sizeof(page));
}

static void drop_all(struct mv_store *store)
{
	for (uint64_t key = 0; key < ram_of(store)->keys; key++)
		store->ops->drop(store, key);
}

/* --- memory and address space ------------------------------------------------------------- */

static void every_allocation_may_fail(void **state)
{
	struct fake_platform fake;
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.platform = &fake.platform,
		.keys = 1000,
		.limit_bytes = 4 * MIB,
	};
	unsigned long failed = 0;

	for (;;) {
		struct mv_store *store = (void *)state;

		fake_platform_init(&fake);
		fake.fail_at = failed + 1;

		int error = mv_ram_store_create(&config, &store);

		if (!fake.failures) {
			assert_int_equal(error, 0);
			/* Nothing but creation allocates. */
			put(store, 1, PAGE_TEXT, 1);
			expect(store, 1, PAGE_TEXT, 1);
			drop_all(store);
			ram_clean(store);
			assert_int_equal(fake.allocations, failed);
			mv_store_destroy(store);
			fake_platform_finish(&fake);
			break;
		}
		assert_int_equal(error, -ENOMEM);
		assert_ptr_equal(store, state);
		fake_platform_finish(&fake);
		failed++;
	}
	assert_true(failed >= 3);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)

static void every_mapping_may_fail(void **state)
{
	print_message("# skip-reason: a sanitizer needs address space without end\n");
	skip();
}

#else

static uint64_t address_space(void)
{
	unsigned long pages = 0;
	FILE *statm = fopen("/proc/self/statm", "r");

	if (!statm || fscanf(statm, "%lu", &pages) != 1)
		pages = 0;
	if (statm)
		fclose(statm);
	return pages * MV_PAGE_SIZE;
}

/* In a process of its own: 0 where each shortage was met with -ENOMEM and nothing leaked. */
static int try_with_little_address_space(void)
{
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.keys = 1 << 20,
		.limit_bytes = 64 * MIB,
	};
	uint64_t before = address_space();
	unsigned int refused = 0;

	for (uint64_t more = 0; more < 200 * MIB; more += 2 * MIB) {
		struct rlimit limit = { before + more, RLIM_INFINITY };
		struct mv_store *store = NULL;

		if (setrlimit(RLIMIT_AS, &limit))
			return 10;

		int error = mv_ram_store_create(&config, &store);

		limit.rlim_cur = RLIM_INFINITY;
		setrlimit(RLIMIT_AS, &limit);
		if (!error) {
			mv_store_destroy(store);
			return address_space() == before && refused >= 10 ? 0 : 11;
		}
		if (error != -ENOMEM || store || address_space() != before)
			return 12;
		refused++;
	}
	return 13;
}

static void every_mapping_may_fail(void **state)
{
	int status;
	pid_t child = fork();

	if (!child)
		_exit(try_with_little_address_space());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

#endif

/* The host has no page for us: as seen from here, populating fails. */
static void no_memory_for_the_log(void **state)
{
	struct mv_store *store = ram_open(1000, 4 * MIB);
	struct ram_store *rs = ram_of(store);

	assert_int_equal(put(store, 0, PAGE_ZERO, 0), 0);
	assert_int_equal(mprotect(rs->log.base, rs->log.bytes, PROT_NONE), 0);
	for (uint64_t key = 1; key < 20; key++)
		assert_int_equal(put(store, key, PAGE_TEXT, key), -ENOSPC);
	/* What needs no log goes on. */
	assert_int_equal(put(store, 20, PAGE_ZERO, 0), 0);
	assert_int_equal(ram_stats(store).full, 19);
	ram_check(store);

	assert_int_equal(mprotect(rs->log.base, rs->log.bytes, PROT_READ | PROT_WRITE), 0);
	for (uint64_t key = 1; key < 20; key++)
		assert_int_equal(put(store, key, PAGE_TEXT, key), 0);
	ram_check(store);
	mv_store_destroy(store);
}

static void no_memory_for_the_index(void **state)
{
	struct mv_store *store = ram_open(4096, 4 * MIB);
	struct ram_store *rs = ram_of(store);
	uint64_t far = 4000;

	assert_int_equal(put(store, 0, PAGE_TEXT, 0), 0);
	assert_int_equal(mprotect(rs->index + 512, 7 * MV_PAGE_SIZE, PROT_NONE), 0);
	assert_int_equal(put(store, far, PAGE_TEXT, far), -ENOSPC);
	assert_int_equal(get(store, far), -ENOENT);
	store->ops->drop(store, far);
	assert_int_equal(put(store, 1, PAGE_TEXT, 1), 0);

	assert_int_equal(mprotect(rs->index + 512, 7 * MV_PAGE_SIZE, PROT_READ | PROT_WRITE), 0);
	ram_check(store);
	assert_int_equal(put(store, far, PAGE_TEXT, far), 0);
	expect(store, far, PAGE_TEXT, far);
	ram_check(store);
	mv_store_destroy(store);
}

/* --- no room ------------------------------------------------------------------------------ */

/* Fill a store to the brim; return how many pages went in. */
static uint64_t fill(struct mv_store *store, enum page_kind kind, uint64_t generation)
{
	uint64_t key = 0;
	int error = 0;

	for (; key < ram_of(store)->keys && !error; key++)
		error = put(store, key, kind, key + generation);
	if (!error)
		return key;
	assert_int_equal(error, -ENOSPC);
	assert_int_equal(get(store, key - 1), -ENOENT);
	return key - 1;
}

static void full_at_every_size(void **state)
{
	static const enum page_kind kinds[] = { PAGE_TEXT, PAGE_HEAP, PAGE_NOISE, PAGE_WORD };

	/* From too small for anything, in steps that are no multiple of anything. */
	for (uint64_t limit = MIB + 12345; limit < 3 * MIB; limit += 99991) {
		struct mv_ram_store_config config = {
			.size = sizeof(config),
			.keys = 20000,
			.limit_bytes = limit,
		};
		enum page_kind kind = kinds[limit / 99991 % COUNT_OF(kinds)];
		struct mv_store *store;
		uint64_t pages;

		if (mv_ram_store_create(&config, &store))
			continue;
		pages = fill(store, kind, 0);
		assert_true(pages > 0);
		ram_check(store);
		for (uint64_t key = 0; key < pages; key++)
			expect(store, key, kind, key);
		drop_all(store);
		ram_clean(store);
		ram_check(store);
		assert_true(fill(store, kind, 7) >= pages / 2);
		ram_check(store);
		mv_store_destroy(store);
	}
}

/* Rounds of: full, drop half of it by chance, clean, fill again; half must go in again. */
static void cleaning_goes_on_in_a_full_store(void **state)
{
	struct chance chance = chance_of(test_seed(), 1);
	struct mv_store *store = ram_open(20000, 6 * MIB);
	uint64_t keys = fill(store, PAGE_HEAP, 0);

	assert_true(keys < 20000);
	for (unsigned int round = 0; round < 20; round++) {
		uint64_t dropped = 0, again = 0;

		for (uint64_t key = 0; key < keys; key++) {
			if (get(store, key) || chance_one_in(&chance, 2))
				continue;
			store->ops->drop(store, key);
			dropped++;
		}
		ram_clean(store);
		ram_check(store);
		for (uint64_t key = 0; key < keys; key++)
			again += get(store, key) == -ENOENT && !put(store, key, PAGE_HEAP, key);
		assert_true(again >= dropped * 8 / 10);
		ram_check(store);
	}
	for (uint64_t key = 0; key < keys; key++)
		if (!get(store, key))
			expect(store, key, PAGE_HEAP, key);
	mv_store_destroy(store);
}

/* The way an evictor works at the limit: on -ENOSPC clean, and try once more. */
static void full_store_takes_what_others_leave(void **state)
{
	struct chance chance = chance_of(test_seed(), 2);
	struct mv_store *store = ram_open(20000, 6 * MIB);
	uint64_t keys = fill(store, PAGE_HEAP, 0) * 9 / 10;

	for (uint64_t key = keys; key < 20000; key++)
		store->ops->drop(store, key);
	for (unsigned int turn = 0; turn < test_rounds(30000); turn++) {
		uint64_t key = chance_below(&chance, keys);

		store->ops->drop(store, key);
		if (put(store, key, PAGE_HEAP, key) == -ENOSPC) {
			ram_clean(store);
			assert_int_equal(put(store, key, PAGE_HEAP, key), 0);
		}
	}
	ram_check(store);
	for (uint64_t key = 0; key < keys; key++)
		expect(store, key, PAGE_HEAP, key);
	mv_store_destroy(store);
}

/* Cleaning that is cut short for want of memory loses nothing and goes on later. */
static void cleaning_may_run_out_of_memory(void **state)
{
	struct mv_store *store = ram_open(20000, UINT64_MAX);
	struct ram_log *log = &ram_of(store)->log;
	uint64_t limit = log->limit;

	for (uint64_t key = 0; key < 10000; key++)
		assert_int_equal(put(store, key, PAGE_HEAP, key), 0);
	for (uint64_t key = 0; key < 10000; key += 2)
		store->ops->drop(store, key);
	log->limit = log->memory; /* not a segment more */
	assert_int_equal(store->ops->maintain(store), 0);
	ram_check(store);
	log->limit = log->memory + RAM_SEGMENT_BYTES; /* one, for two victims */
	store->ops->maintain(store);
	ram_check(store);
	log->limit = limit;
	ram_clean(store);
	ram_check(store);
	for (uint64_t key = 1; key < 10000; key += 2)
		expect(store, key, PAGE_HEAP, key);
	mv_store_destroy(store);
}

/* --- flipped bits ------------------------------------------------------------------------- */

static void flip(void *base, size_t bit)
{
	((unsigned char *)base)[bit / 8] ^= 1 << bit % 8;
}

static void flipped_bit_anywhere_is_found(void **state)
{
	static const enum page_kind kinds[] = { PAGE_WORD, PAGE_TEXT, PAGE_HEAP, PAGE_NOISE };
	struct mv_store *store = ram_open(100, 4 * MIB);
	uint64_t corrupt = 0;

	for (unsigned int i = 0; i < COUNT_OF(kinds); i++) {
		assert_int_equal(put(store, i, kinds[i], 3), 0);

		struct ram_object *object = ram_object_of(store, i);
		size_t bits = (sizeof(*object) + ram_object_length(object)) * 8;

		for (size_t bit = 0; bit < bits; bit += bit < 2000 ? 1 : 37) {
			flip(object, bit);
			assert_int_equal(get(store, i), -EILSEQ);
			flip(object, bit);
			corrupt++;
		}
		/* The key was left in place, and what is whole is readable. */
		expect(store, i, kinds[i], 3);
	}
	assert_int_equal(ram_stats(store).corrupt, corrupt);
	assert_int_equal(ram_stats(store).pages, COUNT_OF(kinds));
	ram_check(store);
	mv_store_destroy(store);
}

/* Another key's object, whole in itself, is not mistaken for this key's. */
static void object_of_another_key_is_found_out(void **state)
{
	struct mv_store *store = ram_open(100, 4 * MIB);
	struct ram_store *rs = ram_of(store);
	uint64_t entry;

	assert_int_equal(put(store, 1, PAGE_TEXT, 1), 0);
	assert_int_equal(put(store, 2, PAGE_TEXT, 1), 0);
	entry = rs->index[1];
	rs->index[1] = rs->index[2];
	assert_int_equal(get(store, 1), -EILSEQ);
	rs->index[1] = entry;
	expect(store, 1, PAGE_TEXT, 1);
	mv_store_destroy(store);
}

static void corrupt_page_can_be_dropped(void **state)
{
	struct mv_store *store = ram_open(100, 4 * MIB);

	/* Bits of checksum, key, length and payload. */
	for (size_t bit = 0; bit < 200; bit++) {
		assert_int_equal(put(store, 5, PAGE_HEAP, bit), 0);
		flip(ram_object_of(store, 5), bit);
		assert_int_equal(get(store, 5), -EILSEQ);
		store->ops->drop(store, 5);
		assert_int_equal(get(store, 5), -ENOENT);
		assert_int_equal(ram_stats(store).compressed_bytes, 0);
	}
	ram_check(store);
	mv_store_destroy(store);
}

static void count_line(void *ctx, enum mv_log_level level, const char *line)
{
	if (level == MV_LOG_ERROR && strstr(line, "damaged"))
		++*(unsigned int *)ctx;
}

/* Cleaning walks from header to header: one that is broken must cost no other object. */
static unsigned int clean_past_a_broken_header(size_t bit)
{
	struct mv_platform_ops ops = *mv_platform_linux()->ops;
	unsigned int complaints = 0;
	struct mv_platform platform = { .ops = &ops, .ctx = &complaints };
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.platform = &platform,
		.keys = 4000,
		.limit_bytes = UINT64_MAX,
	};
	uint64_t keys = config.keys, broken = 777;
	struct mv_store *store = NULL;

	ops.log = count_line;
	assert_int_equal(mv_ram_store_create(&config, &store), 0);
	for (uint64_t key = 0; key < keys; key++)
		assert_int_equal(put(store, key, PAGE_HEAP, key), 0);
	flip(ram_object_of(store, broken), bit);

	for (uint64_t key = 0; key < keys; key++)
		if (key % 3 && key != broken)
			store->ops->drop(store, key);
	ram_clean(store);
	assert_true(ram_stats(store).moved_bytes > 0);
	for (uint64_t key = 0; key < keys; key += 3)
		if (key != broken)
			expect(store, key, PAGE_HEAP, key);
	assert_int_equal(get(store, broken), -EILSEQ);

	/* And the segment comes back once all of it has gone. */
	drop_all(store);
	for (uint64_t key = 0; key < keys; key++)
		assert_int_equal(put(store, key, PAGE_HEAP, key + 1), 0);
	drop_all(store);
	ram_clean(store);
	ram_check(store);
	assert_true(ram_stats(store).memory_bytes < 2 * MIB);
	for (uint32_t i = 0; i < ram_of(store)->log.count; i++)
		assert_int_not_equal(ram_of(store)->log.segments[i].state, RAM_SEGMENT_DAMAGED);
	mv_store_destroy(store);
	return complaints;
}

static void broken_headers_stop_no_cleaning(void **state)
{
	/* A broken checksum goes unnoticed until someone reads; key and length do not. */
	for (size_t bit = 0; bit < 32; bit++)
		assert_int_equal(clean_past_a_broken_header(bit), 0);
	for (size_t bit = 32; bit < 96; bit++)
		assert_int_equal(clean_past_a_broken_header(bit), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_allocation_may_fail),
		cmocka_unit_test(every_mapping_may_fail),
		cmocka_unit_test(no_memory_for_the_log),
		cmocka_unit_test(no_memory_for_the_index),
		cmocka_unit_test(full_at_every_size),
		cmocka_unit_test(cleaning_goes_on_in_a_full_store),
		cmocka_unit_test(full_store_takes_what_others_leave),
		cmocka_unit_test(cleaning_may_run_out_of_memory),
		cmocka_unit_test(flipped_bit_anywhere_is_found),
		cmocka_unit_test(object_of_another_key_is_found_out),
		cmocka_unit_test(corrupt_page_can_be_dropped),
		cmocka_unit_test(broken_headers_stop_no_cleaning),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
