/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The RAM store under several threads: puts, gets and drops of different keys at once, with
 * cleaning by two more threads, which moves objects under the readers' hands; and pages that
 * change while they are put. Run under ThreadSanitizer too (make check-tsan).
 */
#include "support/testing.h"

#include <pthread.h>

#include "support/page_mix.h"
#include "support/ram_probe.h"

#define MIB	 (1UL << 20)
#define WORKERS	 4
#define CLEANERS 2
#define KEYS	 1500 /* of each worker */

struct crew {
	struct mv_store *store;
	uint64_t seed;
	uint64_t steps;
	bool stop;
};

struct worker {
	struct crew *crew;
	unsigned int number;
	pthread_t thread;
	uint64_t full;
};

static bool stopped(struct crew *crew)
{
	return __atomic_load_n(&crew->stop, __ATOMIC_ACQUIRE);
}

/* What a worker's keys hold: 0 for nothing, else the seed of the page. */
struct content {
	uint64_t seeds[KEYS];
};

static void work_on(struct worker *worker, struct content *content, uint64_t slot, uint64_t seed,
		    void *scratch)
{
	struct mv_store *store = worker->crew->store;
	uint64_t key = worker->number + slot * WORKERS; /* neighbours of other workers' */
	unsigned char page[MV_PAGE_SIZE], wanted[MV_PAGE_SIZE];
	uint64_t have = content->seeds[slot];
	int error;

	if (!have) {
		page_make(page, page_mix_kind(seed), seed);
		error = store->ops->put(store, key, page, scratch);
		insist(!error || error == -ENOSPC);
		content->seeds[slot] = error ? 0 : seed;
		worker->full += !!error;
		return;
	}
	page_make(wanted, page_mix_kind(have), have);
	insist(!store->ops->get(store, key, page));
	insist(!memcmp(page, wanted, sizeof(page)));
	if (seed % 2) {
		store->ops->drop(store, key);
		content->seeds[slot] = 0;
		insist(store->ops->get(store, key, page) == -ENOENT);
	}
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	struct crew *crew = worker->crew;
	struct chance chance = chance_of(crew->seed, worker->number);
	struct content *content = calloc(1, sizeof(*content));
	void *scratch = malloc(crew->store->ops->scratch_bytes);

	insist(content && scratch);
	for (uint64_t i = 0; i < crew->steps; i++)
		work_on(worker, content, chance_below(&chance, KEYS),
			chance_next(&chance) | 1ULL << 63, scratch);
	for (uint64_t slot = 0; slot < KEYS; slot++)
		if (content->seeds[slot])
			work_on(worker, content, slot, 0, scratch);
	free(scratch);
	free(content);
	return NULL;
}

static void *clean(void *argument)
{
	struct crew *crew = argument;
	struct mv_store_stats stats;

	while (!stopped(crew)) {
		crew->store->ops->maintain(crew->store);
		crew->store->ops->get_stats(crew->store, &stats);
		insist(stats.memory_bytes <= stats.limit_bytes);
		insist(stats.pages <= WORKERS * KEYS);
	}
	return NULL;
}

static void run(uint64_t limit, bool expect_full)
{
	struct crew crew = { .seed = test_seed(), .steps = test_rounds(40000) };
	struct worker workers[WORKERS];
	pthread_t cleaners[CLEANERS];
	uint64_t full = 0;

	crew.store = ram_open(WORKERS * KEYS, limit);
	for (unsigned int i = 0; i < CLEANERS; i++)
		assert_int_equal(pthread_create(&cleaners[i], NULL, clean, &crew), 0);
	for (unsigned int i = 0; i < WORKERS; i++) {
		workers[i] = (struct worker){ .crew = &crew, .number = i };
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned int i = 0; i < WORKERS; i++) {
		pthread_join(workers[i].thread, NULL);
		full += workers[i].full;
	}
	__atomic_store_n(&crew.stop, true, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < CLEANERS; i++)
		pthread_join(cleaners[i], NULL);

	struct mv_store_stats stats = ram_stats(crew.store);

	ram_check(crew.store);
	assert_int_equal(stats.full, full);
	assert_int_equal(stats.corrupt, 0);
	assert_int_equal(full > 0, expect_full);
	assert_true(stats.moved_bytes > 0);
	for (uint64_t key = 0; key < WORKERS * KEYS; key++)
		crew.store->ops->drop(crew.store, key);
	ram_clean(crew.store);
	ram_check(crew.store);
	mv_store_destroy(crew.store);
}

static void all_at_once_without_a_limit(void **state)
{
	run(UINT64_MAX, false);
}

static void all_at_once_in_a_full_store(void **state)
{
	run(5 * MIB, true);
}

/* --- pages that change while they are put -------------------------------------------------- */

struct scribble {
	uint64_t page[MV_PAGE_SIZE / sizeof(uint64_t)];
	bool stop;
};

/*
 * The race is the point of the test, and what a guest does: not one to be reported, so
 * ThreadSanitizer is not to see it.
 */
__attribute__((no_sanitize("thread"))) static void *scribble(void *argument)
{
	struct scribble *s = argument;
	uint64_t random = 1;

	while (!__atomic_load_n(&s->stop, __ATOMIC_RELAXED)) {
		volatile uint64_t *page = s->page;

		for (unsigned int i = 0; i < 64; i++) {
			random = random * 6364136223846793005ULL + 1442695040888963407ULL;
			/* Make and break repetitions: what a compressor believes in. */
			page[random >> 55] = random >> 40 & 3 ? 0 : random;
		}
	}
	return NULL;
}

static void changing_pages_are_kept_somehow(void **state)
{
	struct scribble *s = calloc(1, sizeof(*s));
	struct mv_store *store = ram_open(64, 16 * MIB);
	unsigned char *guarded = malloc(3 * MV_PAGE_SIZE);
	void *scratch = malloc(store->ops->scratch_bytes);
	pthread_t thread;

	assert_non_null(s);
	assert_non_null(guarded);
	assert_non_null(scratch);
	assert_int_equal(pthread_create(&thread, NULL, scribble, s), 0);
	memset(guarded, 0xc3, 3 * MV_PAGE_SIZE);
	for (uint64_t turn = 0; turn < test_rounds(100000); turn++) {
		uint64_t key = turn % 64;

		assert_int_equal(store->ops->put(store, key, s->page, scratch), 0);
		assert_int_equal(store->ops->get(store, key, guarded + MV_PAGE_SIZE), 0);
		store->ops->drop(store, key);
		store->ops->maintain(store);
	}
	for (size_t i = 0; i < MV_PAGE_SIZE; i++) {
		assert_int_equal(guarded[i], 0xc3);
		assert_int_equal(guarded[2 * MV_PAGE_SIZE + i], 0xc3);
	}
	__atomic_store_n(&s->stop, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	assert_int_equal(ram_stats(store).corrupt, 0);
	ram_check(store);
	mv_store_destroy(store);
	free(scratch);
	free(guarded);
	free(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_at_once_without_a_limit),
		cmocka_unit_test(all_at_once_in_a_full_store),
		cmocka_unit_test(changing_pages_are_kept_somehow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
