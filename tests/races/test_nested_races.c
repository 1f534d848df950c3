/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nested walks by way of caches against threads that take pages away in stage 2, write-protect
 * them and give them back: once a flush has returned, no walk leads to the page any more, or
 * grants more than it may.
 *
 * What only the owner of a page may touch once it is taken is plain data: a walker that comes
 * late is a race for ThreadSanitizer, and a lie for the walker itself.
 */
#include <pthread.h>
#include <sched.h>

#include "support/nested_guest.h"
#include "support/testing.h"

#define PAGES	 48
#define WALKERS	 3
#define CHANGERS 2
#define GONE	 0
#define READABLE 1
#define WRITABLE 2

static uint64_t seed;
static struct nested_guest guest;
static struct mv_nested_log change_log;
static bool done; /* atomic */

/* By page. Atomic: rights. Plain: content, of whoever may reach the page. */
static unsigned int rights[PAGES];
static uint64_t content[PAGES];

static const struct mv_platform *platform(void)
{
	return mv_platform_linux();
}

static uint64_t gva_of(uint64_t page)
{
	return page * 4096;
}

static uint64_t gpa_of(uint64_t page)
{
	return GUEST_DATA + page * 4096;
}

static uint64_t leaf_of(uint64_t page, unsigned int right)
{
	return right == GONE ? 0 : gpa_of(page) | 0x335 | (right == WRITABLE ? 2 : 0);
}

static void set_leaf(uint64_t page, unsigned int right)
{
	__atomic_store_n(nested_guest_stage2(&guest, gpa_of(page)), leaf_of(page, right),
			 __ATOMIC_RELEASE);
}

/* What a view's flush does. */
static void flush(uint64_t page)
{
	mv_nested_log_add(&change_log, gpa_of(page), gpa_of(page) + 4095);
	platform()->ops->wait_readers(platform()->ctx);
}

static void take(uint64_t page, unsigned int right)
{
	set_leaf(page, right);
	flush(page);
	__atomic_store_n(&rights[page], right, __ATOMIC_RELAXED);
	if (right == GONE)
		content[page]++;
}

static void give(uint64_t page)
{
	__atomic_store_n(&rights[page], WRITABLE, __ATOMIC_RELAXED);
	set_leaf(page, WRITABLE);
}

static void *change(void *argument)
{
	uint64_t number = (uintptr_t)argument;
	struct chance chance = chance_of(seed, 1 + number);

	for (uint64_t i = test_rounds(2000); i; i--) {
		uint64_t page = chance_below(&chance, PAGES / CHANGERS) * CHANGERS + number;

		take(page, chance_one_in(&chance, 2) ? GONE : READABLE);
		if (chance_one_in(&chance, 4))
			sched_yield();
		give(page);
	}
	return NULL;
}

/* The rights that a page had, or still has, when the read section began. */
static void check(const struct mv_nested_walk *walk, uint64_t page, unsigned int access)
{
	unsigned int right = __atomic_load_n(&rights[page], __ATOMIC_RELAXED);

	insist(walk->hpa == gpa_of(page));
	insist(right != GONE);
	insist(right == WRITABLE || !(access & MV_ACCESS_WRITE));
	insist(content[page] < UINT64_MAX);
}

static void walk_once(struct mv_nested_cache *cache, struct chance *chance)
{
	uint64_t page = chance_below(chance, PAGES);
	unsigned int access =
		MV_ACCESS_USER | (chance_one_in(chance, 2) ? MV_ACCESS_READ : MV_ACCESS_WRITE);
	struct mv_nested_walk walk;

	platform()->ops->read_enter(platform()->ctx);
	insist(!mv_nested_cached_walk(cache, &guest.world.nested, gva_of(page), access, &walk));
	if (walk.kind == MV_NESTED_OK)
		check(&walk, page, access);
	else
		insist(walk.kind == MV_NESTED_STAGE2 && !walk.guest_table &&
		       walk.gpa == gpa_of(page));
	platform()->ops->read_leave(platform()->ctx);
}

static void *walk(void *argument)
{
	struct mv_nested_cache_config config = { .size = sizeof(config), .node = -1 };
	struct chance chance = chance_of(seed, 100 + (uintptr_t)argument);
	struct mv_nested_cache_counts counts;
	struct mv_nested_cache *cache;

	insist(!mv_nested_cache_create(&config, &cache));
	while (!__atomic_load_n(&done, __ATOMIC_RELAXED))
		for (unsigned int i = 0; i < 100; i++)
			walk_once(cache, &chance);
	mv_nested_cache_get_counts(cache, &counts);
	insist(counts.hits > 0 && counts.walks > 0);
	mv_nested_cache_destroy(cache);
	return NULL;
}

static void open_guest(void)
{
	nested_guest_open(&guest, MV_FORMAT_EPT_4L, MV_FEATURE_ACCESSED, false);
	mv_nested_log_init(&change_log);
	guest.world.log = &change_log;
	nested_guest_load(&guest, 0, 0, 0);
	for (uint64_t page = 0; page < PAGES; page++) {
		nested_guest_map(&guest, 0, gva_of(page), 1, gpa_of(page) | GUEST_ENTRY);
		give(page);
	}
}

static void no_walk_uses_what_a_flush_took(void **state)
{
	pthread_t walkers[WALKERS], changers[CHANGERS];

	open_guest();
	for (uintptr_t i = 0; i < WALKERS; i++)
		assert_int_equal(pthread_create(&walkers[i], NULL, walk, (void *)i), 0);
	for (uintptr_t i = 0; i < CHANGERS; i++)
		assert_int_equal(pthread_create(&changers[i], NULL, change, (void *)i), 0);
	for (unsigned int i = 0; i < CHANGERS; i++)
		pthread_join(changers[i], NULL);
	__atomic_store_n(&done, true, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < WALKERS; i++)
		pthread_join(walkers[i], NULL);
	nested_guest_close(&guest);
}

/* --- the log alone ------------------------------------------------------------------------------
 */

#define WRITERS 3

static uint64_t written; /* atomic */

static void *write_log(void *argument)
{
	for (uint64_t i = test_rounds(100000); i; i--) {
		uint64_t page = __atomic_add_fetch(&written, 1, __ATOMIC_RELAXED);

		mv_nested_log_add(&change_log, page << 12, (page << 12) + 4095);
	}
	return NULL;
}

/* Many writers may overrun each other; a reader that falls behind loses everything, no less. */
static void no_change_is_lost_among_writers(void **state)
{
	struct mv_nested_cache_config config = { .size = sizeof(config), .node = -1 };
	struct mv_nested_walk made;
	struct mv_nested_cache *cache;
	pthread_t writers[WRITERS];

	open_guest();
	assert_int_equal(mv_nested_cache_create(&config, &cache), 0);
	for (unsigned int i = 0; i < WRITERS; i++)
		assert_int_equal(pthread_create(&writers[i], NULL, write_log, NULL), 0);
	for (uint64_t i = test_rounds(5000); i; i--) {
		uint64_t page = i % PAGES;

		set_leaf(page, WRITABLE);
		mv_nested_log_add(&change_log, gpa_of(page), gpa_of(page) + 4095);
		assert_int_equal(mv_nested_cached_walk(cache, &guest.world.nested, gva_of(page),
						       MV_ACCESS_READ, &made),
				 0);
		assert_int_equal(made.kind, MV_NESTED_OK);
		set_leaf(page, GONE);
		mv_nested_log_add(&change_log, gpa_of(page), gpa_of(page) + 4095);
		assert_int_equal(mv_nested_cached_walk(cache, &guest.world.nested, gva_of(page),
						       MV_ACCESS_READ, &made),
				 0);
		assert_int_equal(made.kind, MV_NESTED_STAGE2);
	}
	for (unsigned int i = 0; i < WRITERS; i++)
		pthread_join(writers[i], NULL);
	mv_nested_cache_destroy(cache);
	nested_guest_close(&guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_walk_uses_what_a_flush_took),
		cmocka_unit_test(no_change_is_lost_among_writers),
	};

	seed = test_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
