/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Grants against revokes, for ThreadSanitizer and for what the threads themselves insist on: no
 * entry of a table outlives a revoke of its page.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/crew.h"
#include "support/fake_view.h"
#include "support/guest.h"
#include "support/testing.h"

#define PAGE  MV_PAGE_SIZE
#define PAGES 600 /* more than a granule */
#define HOT   24  /* that they all want */

static struct guest guest;
static struct crew crew;

/*
 * A table with one large entry over a granule, which may stand only while no page of it is
 * gone. Installed under a lock, or in two steps without.
 */
enum entry { ENTRY_NONE, ENTRY_FROZEN, ENTRY_PRESENT };

static struct {
	pthread_mutex_t lock;
	bool locked;	       /* which of the two */
	int entry;	       /* atomic */
	bool gone[PAGES];      /* atomic: dropped and not restored */
	unsigned int installs; /* atomic */
} table = { .lock = PTHREAD_MUTEX_INITIALIZER };

static void table_prepare(struct mv_view *view, struct mv_batch *batch)
{
}

static void table_nothing(struct mv_view *view, const struct mv_batch *batch)
{
}

static void table_commit(struct mv_view *view, const struct mv_batch *batch)
{
	if (table.locked)
		pthread_mutex_lock(&table.lock);
	__atomic_store_n(&table.entry, ENTRY_NONE, __ATOMIC_SEQ_CST);
	if (table.locked)
		pthread_mutex_unlock(&table.lock);
}

static const struct mv_view_ops table_ops = {
	.prepare_revoke = table_prepare,
	.commit_revoke = table_commit,
	.abort_revoke = table_nothing,
	.flush = table_nothing,
};

/* Can one large entry stand for the granule? */
static bool resolve_large(void)
{
	for (unsigned int page = 0; page < HOT; page++)
		if (__atomic_load_n(&table.gone[page], __ATOMIC_RELAXED))
			return false;
	return true;
}

static bool swap_entry(int from, int to)
{
	return __atomic_compare_exchange_n(&table.entry, &from, to, false, __ATOMIC_SEQ_CST,
					   __ATOMIC_SEQ_CST);
}

static bool install_locked(const struct mv_region *region, uint64_t sample)
{
	bool installed;

	pthread_mutex_lock(&table.lock);
	installed = !mv_granule_changed(region, 0, sample) && swap_entry(ENTRY_NONE, ENTRY_PRESENT);
	pthread_mutex_unlock(&table.lock);
	return installed;
}

static bool install_in_two_steps(const struct mv_region *region, uint64_t sample)
{
	if (!swap_entry(ENTRY_NONE, ENTRY_FROZEN))
		return false;
	if (!mv_granule_changed(region, 0, sample))
		return swap_entry(ENTRY_FROZEN, ENTRY_PRESENT);
	swap_entry(ENTRY_FROZEN, ENTRY_NONE);
	return false;
}

static void grant_large(struct chance *chance)
{
	struct mv_region *region = mv_region_get(guest.memory, 0);

	while (!crew_done(&crew)) {
		uint64_t sample = mv_granule_sample(region, 0);

		if (!resolve_large() || chance_one_in(chance, 4)) {
			sched_yield();
			continue;
		}
		if (table.locked ? install_locked(region, sample)
				 : install_in_two_steps(region, sample))
			__atomic_fetch_add(&table.installs, 1, __ATOMIC_RELAXED);
	}
	mv_region_release(region);
}

static void drop_under_table(void *ctx, struct mv_batch *batch)
{
	mv_batch_for_each_page (batch, bit)
		__atomic_store_n(&table.gone[bit], true, __ATOMIC_RELAXED);
	/* Nobody reaches what is being dropped, and nobody will until it is back. */
	for (int i = 0; i < 3; i++) {
		insist(__atomic_load_n(&table.entry, __ATOMIC_SEQ_CST) != ENTRY_PRESENT);
		sched_yield();
	}
}

static void restore(struct mv_region *region, uint64_t page)
{
	mv_page_begin(mv_platform_linux(), &region->words[page]);
	__atomic_store_n(&table.gone[page], false, __ATOMIC_RELAXED);
	mv_region_end(region, page, MV_PAGE_RESIDENT, 0, 0);
}

/* Enough revokes, and enough grants between them, to mean something. */
static bool enough(uint64_t revokes)
{
	return revokes >= test_rounds(1600) &&
	       __atomic_load_n(&table.installs, __ATOMIC_RELAXED) >= 100;
}

static void revoke_and_restore(struct chance *chance)
{
	struct mv_region *region = mv_region_get(guest.memory, 0);

	for (uint64_t i = 0; !enough(i); i++) {
		uint64_t page = chance_below(chance, HOT);

		insist(!mv_memory_discard(guest.memory, page * PAGE, page * PAGE + PAGE - 1,
					  drop_under_table, NULL, NULL));
		restore(region, page);
		/* Time for a grant now and then. */
		if (chance_one_in(chance, 4))
			usleep(1);
	}
	mv_region_release(region);
}

static void check_grants(bool locked)
{
	struct mv_view view = { .ops = &table_ops, .rank = MV_VIEW_RANK_TABLES };

	table.locked = locked;
	table.installs = 0;
	guest_init(&guest, PAGES * PAGE);
	assert_int_equal(guest_add(&guest, 0, PAGES, 0), 0);
	assert_int_equal(mv_memory_attach_view(guest.memory, &view), 0);
	crew_add(&crew, revoke_and_restore);
	crew_add(&crew, revoke_and_restore);
	crew_add(&crew, grant_large);
	crew_add(&crew, grant_large);
	crew_finish(&crew, 2);
	mv_memory_detach_view(guest.memory, &view);
	guest_finish(&guest);
	print_message("# %u large entries installed\n", table.installs);
}

static void no_grant_outlives_a_revoke_with_a_lock(void **state)
{
	check_grants(true);
}

static void no_grant_outlives_a_revoke_without_one(void **state)
{
	check_grants(false);
}

static int set_up(void **state)
{
	crew.seed = test_seed();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_grant_outlives_a_revoke_with_a_lock),
		cmocka_unit_test(no_grant_outlives_a_revoke_without_one),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
