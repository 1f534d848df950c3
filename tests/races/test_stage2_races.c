/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Walks against somebody who changes the entries they read. Pages are installed one after the
 * other in one leaf; each is taken out by an exchange, which tells whether it was dirty. Who was
 * told by a write's walk that a page is there will write to it: so it must come out dirty.
 */
#include <pthread.h>
#include <sched.h>

#include "support/stage2_space.h"
#include "support/testing.h"

#define PAGES	50000 /* below the 2^34 pages of the width */
#define WALKERS 2

struct race {
	struct stage2_space *space;
	uint64_t plain; /* bits of a leaf beside the address */
	uint64_t dirty; /* the bit */
	uint64_t pages;
	bool *came_dirty; /* by page; the changer's */
	bool done;	  /* atomic */
	bool met;	  /* atomic: some walker found a page */
	struct walker {
		struct race *race;
		pthread_t thread;
		bool *was_told; /* by page */
		uint64_t told, absent;
	} walkers[WALKERS];
};

static void take_note(struct race *race, struct walker *walker, const struct mv_stage2_walk *walk)
{
	uint64_t page = walk->phys >> 12;

	if (walk->kind != MV_STAGE2_OK) {
		insist(walk->kind == MV_STAGE2_VIOLATION);
		walker->absent++;
		return;
	}
	insist(page && page < race->pages);
	insist(walk->attr & MV_ATTR_DIRTY);
	walker->was_told[page] = true;
	walker->told++;
	__atomic_store_n(&race->met, true, __ATOMIC_RELAXED);
}

static void *walk_on(void *arg)
{
	struct walker *walker = arg;
	struct race *race = walker->race;
	struct mv_stage2_walk walk;

	while (!__atomic_load_n(&race->done, __ATOMIC_ACQUIRE)) {
		int error = mv_stage2_walk(&race->space->stage2, SPACE_GPA,
					   MV_ACCESS_WRITE | MV_ACCESS_LINEAR, &walk);

		insist(!error || error == -EAGAIN);
		if (!error)
			take_note(race, walker, &walk);
	}
	return NULL;
}

/* One page in, the one before out; now and then nothing for a while. */
static void change_pages(struct race *race, struct chance *chance)
{
	uint64_t *leaf = space_entry(race->space, 1);
	uint64_t old = __atomic_exchange_n(leaf, 0, __ATOMIC_RELAXED);

	for (uint64_t page = 1; page < race->pages; page++) {
		uint64_t entry = page << 12 | race->plain;

		old = __atomic_exchange_n(leaf, entry, __ATOMIC_RELAXED);
		race->came_dirty[old >> 12] |= !!(old & race->dirty);
		for (uint64_t i = chance_below(chance, 64); i; i--)
			__atomic_load_n(leaf, __ATOMIC_RELAXED);
		if (chance_one_in(chance, 256))
			sched_yield();
		if (chance_one_in(chance, 16)) {
			old = __atomic_exchange_n(leaf, 0, __ATOMIC_RELAXED);
			race->came_dirty[page] |= !!(old & race->dirty);
		}
	}
	old = __atomic_exchange_n(leaf, 0, __ATOMIC_RELAXED);
	race->came_dirty[old >> 12] |= !!(old & race->dirty);
}

static void judge(struct race *race)
{
	uint64_t told = 0;

	for (unsigned int i = 0; i < WALKERS; i++) {
		told += race->walkers[i].told;
		for (uint64_t page = 1; page < race->pages; page++)
			assert_true(!race->walkers[i].was_told[page] || race->came_dirty[page]);
	}
	print_message("# %llu translations\n", (unsigned long long)told);
	assert_true(told);
}

static void run(enum mv_format_id format, uint64_t plain, uint64_t dirty)
{
	struct chance chance = chance_of(test_seed(), format);
	struct race race = { .plain = plain, .dirty = dirty, .pages = test_rounds(PAGES) };

	race.space = space_open(format, MV_FEATURE_ACCESSED | MV_FEATURE_NX);
	race.came_dirty = calloc(race.pages, sizeof(bool));
	assert_non_null(race.came_dirty);
	*space_entry(race.space, 1) = 0;
	for (unsigned int i = 0; i < WALKERS; i++) {
		struct walker *walker = &race.walkers[i];

		walker->race = &race;
		walker->was_told = calloc(race.pages, sizeof(bool));
		assert_non_null(walker->was_told);
		assert_int_equal(pthread_create(&walker->thread, NULL, walk_on, walker), 0);
	}
	/* Again where the walkers had no turn meanwhile. */
	do
		change_pages(&race, &chance);
	while (!__atomic_load_n(&race.met, __ATOMIC_RELAXED));
	__atomic_store_n(&race.done, true, __ATOMIC_RELEASE);
	for (unsigned int i = 0; i < WALKERS; i++)
		assert_int_equal(pthread_join(race.walkers[i].thread, NULL), 0);
	judge(&race);
	for (unsigned int i = 0; i < WALKERS; i++)
		free(race.walkers[i].was_told);
	free(race.came_dirty);
	space_close(race.space);
}

static void a_page_that_ept_let_be_written_is_dirty(void **state)
{
	run(MV_FORMAT_EPT_4L, E_RWX | E_WB, E_DIRTY);
}

static void a_page_that_npt_let_be_written_is_dirty(void **state)
{
	run(MV_FORMAT_NPT_5L, N_PWU, N_DIRTY);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_page_that_ept_let_be_written_is_dirty),
		cmocka_unit_test(a_page_that_npt_let_be_written_is_dirty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
