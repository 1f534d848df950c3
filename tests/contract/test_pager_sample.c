/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pager's sampled estimate of what is used, against a thread that knows what it touches. On
 * memfd and on anonymous memory.
 */
#include <stdlib.h>
#include <unistd.h>

#include "support/pager_rig.h"
#include "support/testing.h"

#define PAGES	4096
#define SAMPLED 2000

static struct pager_rig rig;

static void touch(uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++)
		*(volatile unsigned char *)rig_page(&rig, page);
}

static void open_resident(void **state)
{
	rig_open(&rig, rig_kind_of(state), PAGES, PAGES * 2 * MV_PAGE_SIZE);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	rig_fill(&rig);
	/* The handler wakes who waited for the last page before it has counted it. */
	rig_wait(rig_resident(&rig) == PAGES * MV_PAGE_SIZE);
}

static struct mv_pager_touches sample_while_touching(uint64_t pages, uint64_t seed)
{
	struct mv_pager_sample *sample;
	struct mv_pager_touches touches;

	assert_int_equal(mv_pager_sample_begin(rig.pager, SAMPLED, seed, &sample), 0);
	touch(0, pages);
	mv_pager_sample_end(sample, &touches);
	return touches;
}

/* Within 5% of what is resident, whatever the part; and nothing is lost. */
static void test_estimate(void **state)
{
	static const unsigned int percents[] = { 0, 5, 25, 50, 90, 100 };
	uint64_t seed = test_seed();

	open_resident(state);
	for (unsigned int i = 0; i < COUNT_OF(percents); i++) {
		uint64_t used = PAGES * percents[i] / 100;
		struct mv_pager_touches touches = sample_while_touching(used, seed + i);
		int64_t off = (int64_t)(touches.active_bytes / MV_PAGE_SIZE) - (int64_t)used;

		assert_int_equal(touches.sampled, SAMPLED);
		assert_true(llabs(off) <= PAGES / 20);
	}
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

/* With the evictor at work it sees what of the resident pages is used; stored ones are none. */
static void test_with_evictions(void **state)
{
	struct mv_pager_touches touches;

	rig_open_full(&rig, rig_kind_of(state), PAGES, PAGES / 2 * MV_PAGE_SIZE);
	touches = sample_while_touching(0, test_seed());
	assert_true(touches.sampled > 0);
	assert_true(touches.touched <= touches.sampled / 20);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void test_pinned_counts_as_used(void **state)
{
	struct mv_pager_touches touches;

	open_resident(state);
	assert_int_equal(mv_memory_pin(rig.memory, RIG_GPA, RIG_GPA + PAGES / 2 * MV_PAGE_SIZE - 1),
			 0);
	touches = sample_while_touching(0, test_seed());
	assert_in_range(touches.touched, SAMPLED * 45 / 100, SAMPLED * 55 / 100);
	mv_memory_unpin(rig.memory, RIG_GPA, RIG_GPA + PAGES / 2 * MV_PAGE_SIZE - 1);
	rig_close(&rig);
}

/* Pages given up meanwhile say nothing. */
static void test_discarded_meanwhile(void **state)
{
	struct mv_pager_sample *sample;
	struct mv_pager_touches touches;

	open_resident(state);
	assert_int_equal(mv_pager_sample_begin(rig.pager, SAMPLED, test_seed(), &sample), 0);
	assert_int_equal(
		mv_pager_discard(rig.pager, RIG_GPA, RIG_GPA + PAGES / 2 * MV_PAGE_SIZE - 1), 0);
	touch(PAGES / 2, PAGES);
	mv_pager_sample_end(sample, &touches);
	assert_in_range(touches.sampled, SAMPLED * 45 / 100, SAMPLED * 55 / 100);
	assert_int_equal(touches.touched, touches.sampled);
	rig_close(&rig);
}

static void test_refusals(void **state)
{
	struct mv_pager_sample *sample;
	struct mv_pager_touches touches;

	rig_open(&rig, rig_kind_of(state), PAGES, PAGES * 2 * MV_PAGE_SIZE);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	assert_int_equal(mv_pager_sample_begin(rig.pager, 15, 1, &sample), -EINVAL);
	assert_int_equal(mv_pager_sample_begin(rig.pager, 65537, 1, &sample), -EINVAL);
	assert_int_equal(mv_pager_sample_begin(rig.pager, 16, 1, &sample), -ENODATA);
	rig_fill(&rig);
	mv_pager_hold(rig.pager, MV_PAGER_HOLD_DMA);
	assert_int_equal(mv_pager_sample_begin(rig.pager, 16, 1, &sample), -EBUSY);
	mv_pager_unhold(rig.pager, MV_PAGER_HOLD_DMA);
	mv_pager_sample_end(NULL, &touches);
	assert_int_equal(touches.sampled, 0);
	rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_estimate),
		RIG_BOTH(test_with_evictions),
		RIG_BOTH(test_pinned_counts_as_used),
		RIG_BOTH(test_discarded_meanwhile),
		RIG_BOTH(test_refusals),
	};

	return cmocka_run_group_tests_name("pager_sample", tests, NULL, NULL);
}
