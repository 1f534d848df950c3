/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memvirt-test-timeout: 900
 *
 * Storms: threads read, write, pin and discard at random over a region ten times the limit,
 * while evictors run. Every page carries its number and generation; none may ever be wrong.
 *
 * STORM_OPS sets the number of operations (default 200,000, a quarter of that with discards;
 * fewer under ThreadSanitizer). `make check-long` makes it a million.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "support/pager_rig.h"

#define THREADS 4
#define MIB	(1UL << 20)

#ifdef __SANITIZE_THREAD__
#define DEFAULT_OPS 40000
#else
#define DEFAULT_OPS 200000
#endif

static struct pager_rig rig;

/* Each thread has the pages whose number is its own modulo THREADS: neighbours of others'. */
struct storm {
	unsigned int thread;
	uint64_t ops;
	uint64_t random;
	bool discards;
	uint64_t *generation; /* of every page; DISCARDED for zeros */
	uint64_t wrong;
};

#define DISCARDED UINT64_MAX

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static int punch(void *ctx)
{
	uint64_t page = (uintptr_t)ctx;

	return fallocate(rig.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			 (off_t)(page * MV_PAGE_SIZE), MV_PAGE_SIZE);
}

static void discard(uint64_t page)
{
	if (rig.kind == RIG_PRIVATE)
		madvise(rig_page(&rig, page), MV_PAGE_SIZE, MADV_DONTNEED);
	else
		mv_pager_discard_around(rig.pager, rig_page(&rig, page), MV_PAGE_SIZE, punch,
					(void *)(uintptr_t)page);
}

static bool page_right(const struct storm *storm, uint64_t page)
{
	if (storm->generation[page] == DISCARDED)
		return rig_page_is_zero(rig_page(&rig, page));
	return rig_check_page(rig_page(&rig, page), page, storm->generation[page]);
}

static void one_operation(struct storm *storm)
{
	uint64_t draw = next_random(&storm->random);
	uint64_t page = (draw >> 8) % (rig.pages / THREADS) * THREADS + storm->thread;
	uint64_t gpa = RIG_GPA + page * MV_PAGE_SIZE;

	storm->wrong += !page_right(storm, page);
	switch (draw % 16) {
	case 0 ... 6:
		storm->generation[page] = draw >> 40;
		rig_fill_page(rig_page(&rig, page), page, storm->generation[page]);
		break;
	case 7:
		if (storm->discards) {
			discard(page);
			storm->generation[page] = DISCARDED;
		}
		break;
	case 8:
		mv_memory_pin(rig.memory, gpa, gpa);
		storm->wrong += !page_right(storm, page);
		mv_memory_unpin(rig.memory, gpa, gpa);
		break;
	}
}

static void *run_storm(void *ctx)
{
	struct storm *storm = ctx;

	for (uint64_t i = 0; i < storm->ops; i++)
		one_operation(storm);
	return NULL;
}

static uint64_t from_environment(const char *name, uint64_t otherwise)
{
	const char *text = getenv(name);

	return text ? strtoull(text, NULL, 0) : otherwise;
}

static void storm(void **state, uint64_t pages, unsigned int evictors, bool discards)
{
	enum rig_kind kind = (enum rig_kind)(intptr_t)*state;
	uint64_t seed = from_environment("SEED", (uint64_t)time(NULL));
	uint64_t ops = from_environment("STORM_OPS", DEFAULT_OPS) / (discards ? 4 : 1), wrong = 0;
	struct storm storms[THREADS];
	pthread_t threads[THREADS];
	uint64_t *generation;

	if (!rig_possible(kind))
		skip();
	print_message("# seed %llu\n", (unsigned long long)seed);
	rig_open(&rig, kind, pages, pages * MV_PAGE_SIZE / 10);
	rig_start(&rig, evictors);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	rig_fill(&rig);
	generation = calloc(pages, sizeof(*generation));
	assert_non_null(generation);
	for (unsigned int i = 0; i < THREADS; i++) {
		storms[i] = (struct storm){ .thread = i,
					    .ops = ops / THREADS,
					    .random = (seed + i) * 2654435761u + 1,
					    .discards = discards,
					    .generation = generation };
		assert_int_equal(pthread_create(&threads[i], NULL, run_storm, &storms[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		pthread_join(threads[i], NULL);
		wrong += storms[i].wrong;
	}
	for (uint64_t page = 0; page < pages; page++)
		wrong += !page_right(&storms[0], page);
	struct mv_pager_stats stats = rig_stats(&rig);

	print_message("# faults %llu evictions %llu restores %llu cancels %llu waits %llu\n",
		      (unsigned long long)stats.faults, (unsigned long long)stats.evictions,
		      (unsigned long long)stats.restores, (unsigned long long)stats.cancels,
		      (unsigned long long)stats.waits);
	assert_int_equal(wrong, 0);
	assert_true(stats.evictions > ops / 4);
	rig_close(&rig);
	free(generation);
}

static void test_storm(void **state)
{
	storm(state, 20480, 1, false);
}

/* Small, with several evictors, so that they meet each other, faults and discards often. */
static void test_storm_with_discards(void **state)
{
	storm(state, 4096, 3, true);
}

#define ON(kind, test, value) { #test " on " kind, test, NULL, NULL, (void *)(intptr_t)(value) }

int main(void)
{
	const struct CMUnitTest tests[] = {
		ON("memfd", test_storm, RIG_SHARED),
		ON("anonymous", test_storm, RIG_PRIVATE),
		ON("memfd", test_storm_with_discards, RIG_SHARED),
		ON("anonymous", test_storm_with_discards, RIG_PRIVATE),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
