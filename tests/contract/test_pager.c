/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the pager promises, for every kind of memory: directed cases, each run on memfd and
 * on anonymous memory. What happens in the middle of an eviction, and discards, are in
 * test_pager_meanwhile.c; storms of random accesses in tests/races.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <signal.h>
#include <unistd.h>

#include "support/pager_rig.h"

#define MIB (1UL << 20)

static struct pager_rig rig;

/* --- limits ----------------------------------------------------------------------------- */

static void test_keeps_the_limit_and_every_byte(void **state)
{
	rig_open_full(&rig, rig_kind_of(state), 4096, 4 * MIB);
	assert_true(rig_allocated(&rig) <= 4 * MIB);
	assert_int_equal(rig_check(&rig), 0);
	assert_true(rig_stats(&rig).evictions > 3000);
	assert_true(rig_stats(&rig).restores > 3000);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void test_unlimited_registers_nothing(void **state)
{
	rig_open(&rig, rig_kind_of(state), 1024, MV_PAGER_UNLIMITED);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	/* No handler runs: a fault reported to the pager would hang. */
	rig_fill(&rig);
	assert_int_equal(rig_check(&rig), 0);
	assert_int_equal(rig_stats(&rig).managed_bytes, 0);
	rig_close(&rig);
}

static void test_limit_comes_and_goes_on_a_living_memory(void **state)
{
	rig_open(&rig, rig_kind_of(state), 2048, MV_PAGER_UNLIMITED);
	rig_start(&rig, 2);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	rig_fill(&rig);
	for (int round = 0; round < 3; round++) {
		assert_int_equal(mv_pager_set_limit(rig.pager, 2 * MIB), 0);
		rig_wait(rig_resident(&rig) <= 2 * MIB);
		assert_true(rig_allocated(&rig) <= 2 * MIB);
		assert_int_equal(mv_pager_set_limit(rig.pager, 4 * MIB), 0);
		assert_int_equal(rig_check(&rig), 0);
		assert_int_equal(mv_pager_set_limit(rig.pager, MV_PAGER_UNLIMITED), 0);
		assert_int_equal(rig_stats(&rig).managed_bytes, 0);
		assert_int_equal(rig_allocated(&rig), 2048 * MV_PAGE_SIZE);
		assert_int_equal(rig_check(&rig), 0);
	}
	assert_int_equal(mv_pager_set_limit(rig.pager, MIB - 1), -EINVAL);
	rig_close(&rig);
}

static void test_untouched_pages_read_as_zeros_and_are_not_stored(void **state)
{
	rig_open(&rig, rig_kind_of(state), 1024, 2 * MIB);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	for (uint64_t page = 0; page < rig.pages; page++)
		assert_true(rig_page_is_zero(rig_page(&rig, page)));
	rig_close(&rig);
}

static void test_cold_scan_spares_the_hot_set(void **state)
{
	uint64_t hot = 256, restores;

	rig_open_full(&rig, rig_kind_of(state), 8192, 8 * MIB);
	for (int round = 0; round < 50; round++)
		for (uint64_t page = 0; page < hot; page++)
			assert_true(rig_check_page(rig_page(&rig, page), page, 0));
	restores = rig_stats(&rig).restores;
	/* Scan all the rest slowly, touching the hot set all the time. */
	for (uint64_t page = hot; page < rig.pages; page++) {
		assert_true(rig_check_page(rig_page(&rig, page), page, 0));
		assert_true(rig_check_page(rig_page(&rig, page % hot), page % hot, 0));
	}
	/* Nearly all restores are the scan's own: a hot page is hardly ever among them. */
	restores = rig_stats(&rig).restores - restores;
	assert_true(restores < (rig.pages - hot) + hot * 4);
	rig_close(&rig);
}

/* --- attach and detach -------------------------------------------------------------------- */

static void test_attach_errors(void **state)
{
	rig_open(&rig, rig_kind_of(state), 512, 2 * MIB);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA + MV_PAGE_SIZE), -ENOENT);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), -EEXIST);
	assert_int_equal(mv_pager_detach(rig.pager, RIG_GPA + MV_PAGE_SIZE), -ENOENT);
	assert_int_equal(mv_memory_remove_region(rig.memory, RIG_GPA), -EBUSY);
	rig_fill(&rig);
	assert_int_equal(mv_pager_detach(rig.pager, RIG_GPA), 0);
	assert_int_equal(mv_pager_detach(rig.pager, RIG_GPA), -ENOENT);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void test_detach_brings_everything_back(void **state)
{
	rig_open_full(&rig, rig_kind_of(state), 2048, 2 * MIB);
	assert_int_equal(mv_pager_detach(rig.pager, RIG_GPA), 0);
	assert_int_equal(rig_allocated(&rig), rig.pages * MV_PAGE_SIZE);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void test_forget_empties_the_store(void **state)
{
	struct mv_store_stats stats;

	rig_open_full(&rig, rig_kind_of(state), 2048, 2 * MIB);
	assert_int_equal(mv_pager_forget(rig.pager, RIG_GPA), 0);
	rig.store.real->ops->get_stats(rig.store.real, &stats);
	assert_int_equal(stats.pages, 0);
	rig_close(&rig);
}

static void *keep_touching(void *ctx)
{
	const bool *stop = ctx;
	uint64_t wrong = 0;

	while (!__atomic_load_n(stop, __ATOMIC_RELAXED))
		wrong += rig_check(&rig);
	return (void *)(uintptr_t)wrong;
}

static void test_detach_under_fire(void **state)
{
	bool stop = false;
	pthread_t threads[2];
	void *wrong;

	rig_open_full(&rig, rig_kind_of(state), 1024, MIB);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, keep_touching, &stop), 0);
	for (int round = 0; round < 20; round++) {
		usleep(10000);
		assert_int_equal(mv_pager_detach(rig.pager, RIG_GPA), 0);
		assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
	rig_close(&rig);
}

static void test_masked_features_are_refused(void **state)
{
	struct mv_pager_config config = { .size = sizeof(config),
					  .store_keys = 512,
					  .limit_bytes = MIB,
					  .feature_mask = MV_PAGER_SHMEM | MV_PAGER_MOVE };
	struct mv_pager *pager;

	rig_open(&rig, rig_kind_of(state), 512, MIB);
	mv_pager_detach(rig.pager, RIG_GPA);
	config.memory = rig.memory;
	config.store = &rig.store.store;
	assert_int_equal(mv_pager_create(&config, &pager), 0);
	assert_int_equal(mv_pager_attach(pager, RIG_GPA), -EOPNOTSUPP);
	rig_fill(&rig);
	assert_int_equal(rig_check(&rig), 0);
	mv_pager_destroy(pager);
	rig_close(&rig);
}

/* --- holds and pins ------------------------------------------------------------------------ */

static void test_hold_stops_evicting(void **state)
{
	uint64_t evictions;

	rig_open_full(&rig, rig_kind_of(state), 2048, 2 * MIB);
	mv_pager_hold(rig.pager, MV_PAGER_HOLD_CALLER);
	evictions = rig_stats(&rig).evictions;
	assert_int_equal(rig_check(&rig), 0);
	assert_int_equal(rig_stats(&rig).evictions, evictions);
	assert_int_equal(rig_resident(&rig), rig.pages * MV_PAGE_SIZE);
	mv_pager_unhold(rig.pager, MV_PAGER_HOLD_CALLER);
	rig_wait(rig_resident(&rig) <= 2 * MIB);
	rig_close(&rig);
}

static void test_pinned_pages_stay(void **state)
{
	uint64_t first = RIG_GPA + 100 * MV_PAGE_SIZE, last = first + 50 * MV_PAGE_SIZE - 1;

	rig_open(&rig, rig_kind_of(state), 2048, 2 * MIB);
	rig_start(&rig, 2);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	assert_int_equal(mv_memory_pin(rig.memory, first, last), 0);
	rig_fill(&rig);
	for (int i = 0; i < 3; i++)
		assert_int_equal(rig_check(&rig), 0);
	for (uint64_t page = 100; page < 150; page++)
		assert_int_equal(rig_state(&rig, page), MV_PAGE_RESIDENT);
	mv_memory_unpin(rig.memory, first, last);
	for (int i = 0; i < 3; i++)
		assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

/* Everything pinned: faults must pass the limit instead of waiting for ever. */
static void test_all_pinned_passes_the_limit(void **state)
{
	rig_open(&rig, rig_kind_of(state), 1024, MIB);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	assert_int_equal(
		mv_memory_pin(rig.memory, RIG_GPA, RIG_GPA + 1024 * MV_PAGE_SIZE - 1), 0);
	rig_fill(&rig);
	assert_int_equal(rig_check(&rig), 0);
	assert_true(rig_stats(&rig).over_limit > 0);
	mv_memory_unpin(rig.memory, RIG_GPA, RIG_GPA + 1024 * MV_PAGE_SIZE - 1);
	rig_wait(rig_resident(&rig) <= MIB);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void *touch_last(void *ctx)
{
	*(volatile unsigned char *)rig_page(&rig, rig.pages - 1) = 1;
	return NULL;
}

/* Runs in one evictor, which so keeps all there is to evict from the other. */
static void let_the_other_look(void *ctx)
{
	usleep(20000);
	assert_int_equal(pthread_create(ctx, NULL, touch_last, NULL), 0);
	usleep(100000);
}

/* An evictor that finds nothing, because another is at it, is not stuck: faults still wait. */
static void test_idle_evictor_lets_nothing_pass(void **state)
{
	pthread_t toucher;

	rig_open(&rig, rig_kind_of(state), 512, MV_PAGER_UNLIMITED);
	rig_start(&rig, 2);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	for (uint64_t i = 0; i < rig.pages - 1; i++)
		rig_fill_page(rig_page(&rig, i), i, 0);
	rig.store.during_put = let_the_other_look;
	rig.store.ctx = &toucher;
	rig.store.pause_key = 70;
	assert_int_equal(mv_pager_set_limit(rig.pager, MIB), 0);
	rig_wait(__atomic_load_n(&rig.store.paused, __ATOMIC_ACQUIRE));
	rig_wait(rig_resident(&rig) <= MIB);
	assert_int_equal(pthread_join(toucher, NULL), 0);
	assert_int_equal(rig_stats(&rig).over_limit, 0);
	rig_close(&rig);
}

/* --- the store fails --------------------------------------------------------------------------- */

static void test_full_store_keeps_pages_resident(void **state)
{
	rig_open(&rig, rig_kind_of(state), 1024, MIB);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	__atomic_store_n(&rig.store.put_error, -ENOSPC, __ATOMIC_RELEASE);
	rig_fill(&rig);
	assert_int_equal(rig_check(&rig), 0);
	rig_wait(rig_stats(&rig).store_full > 0);
	assert_int_equal(rig_stats(&rig).evictions, 0);
	__atomic_store_n(&rig.store.put_error, 0, __ATOMIC_RELEASE);
	rig_wait(rig_resident(&rig) <= MIB);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static sigjmp_buf escape;

static void on_bus_error(int signal)
{
	siglongjmp(escape, signal);
}

/* Return: whether a touch raises SIGBUS. */
static bool touch_raises(uint64_t page)
{
	struct sigaction action = { .sa_handler = on_bus_error }, before;
	volatile bool raised = false;

	sigaction(SIGBUS, &action, &before);
	if (sigsetjmp(escape, 1))
		raised = true;
	else
		*(volatile unsigned char *)rig_page(&rig, page);
	sigaction(SIGBUS, &before, NULL);
	return raised;
}

static void lost_page(unsigned int feature_mask, void **state)
{
	uint64_t lost;

	rig_open(&rig, rig_kind_of(state), 1024, MIB);
	if (feature_mask) {
		struct mv_pager_config config = { .size = sizeof(config),
						  .memory = rig.memory,
						  .store = &rig.store.store,
						  .store_keys = 1024,
						  .limit_bytes = MIB,
						  .feature_mask = feature_mask };

		mv_pager_destroy(rig.pager);
		assert_int_equal(mv_pager_create(&config, &rig.pager), 0);
	}
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	rig_fill(&rig);
	rig_wait(rig_resident(&rig) <= MIB);
	mv_pager_hold(rig.pager, MV_PAGER_HOLD_CALLER);
	lost = rig_find_page(&rig, MV_PAGE_STORED);
	rig.store.get_error_key = lost;
	__atomic_store_n(&rig.store.get_error, -EILSEQ, __ATOMIC_RELEASE);
	assert_true(touch_raises(lost));
	assert_true(touch_raises(lost));
	rig_wait(rig_state(&rig, lost) == MV_PAGE_POISONED);
	assert_int_equal(rig_stats(&rig).poisoned, 1);
	for (uint64_t page = 0; page < rig.pages; page++)
		assert_true(page == lost || rig_check_page(rig_page(&rig, page), page, 0));
	rig_close(&rig);
}

static void test_unreadable_page_raises_an_error(void **state)
{
	lost_page(0, state);
}

static void test_unreadable_page_without_poison(void **state)
{
	lost_page(MV_PAGER_POISON, state);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_keeps_the_limit_and_every_byte),
		RIG_BOTH(test_unlimited_registers_nothing),
		RIG_BOTH(test_limit_comes_and_goes_on_a_living_memory),
		RIG_BOTH(test_untouched_pages_read_as_zeros_and_are_not_stored),
		RIG_BOTH(test_cold_scan_spares_the_hot_set),
		RIG_BOTH(test_attach_errors),
		RIG_BOTH(test_detach_brings_everything_back),
		RIG_BOTH(test_forget_empties_the_store),
		RIG_BOTH(test_detach_under_fire),
		RIG_BOTH(test_masked_features_are_refused),
		RIG_BOTH(test_hold_stops_evicting),
		RIG_BOTH(test_pinned_pages_stay),
		RIG_BOTH(test_all_pinned_passes_the_limit),
		RIG_BOTH(test_idle_evictor_lets_nothing_pass),
		RIG_BOTH(test_full_store_keeps_pages_resident),
		RIG_BOTH(test_unreadable_page_raises_an_error),
		RIG_BOTH(test_unreadable_page_without_poison),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
