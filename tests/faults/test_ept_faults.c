/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every allocation of a stage-2 space fails in turn, and every resolution: what failed says so,
 * nothing that was promised has changed, tried again it works, and in the end all is freed.
 */
#include <limits.h>

#include "support/ept_rig.h"
#include "support/testing.h"

#define PAGE MV_PAGE_SIZE
#define MIB2 (1ULL << 21)
#define BASE (4ULL << 30)
#define RX   (MV_ATTR_READ | MV_ATTR_EXEC)

/**
 * struct sweep - one run through everything, with one allocation that fails
 * @failures: met by a call
 * @view:     a second view, once it is there
 */
struct sweep {
	struct ept_rig rig;
	struct sim_cpu cpu;
	enum mv_format_id format;
	unsigned int failures;
	unsigned int view;
	uint64_t bitmap[64];
};

static struct sweep sweep;

/* What must hold whatever failed: rights of a page that was protected, and what is mapped. */
static void check(bool protected)
{
	uint32_t rights = 0;

	ept_rig_check(&sweep.rig);
	assert_int_equal(mv_ept_get_rights(sweep.rig.ept, 0, BASE + PAGE, &rights), 0);
	assert_int_equal(rights & (RX | MV_ATTR_WRITE), protected ? RX : RX | MV_ATTR_WRITE);
}

/* Until it succeeds, which is at once or the second time. */
static void retry(int (*call)(void), bool protected)
{
	unsigned long failed = sweep.rig.guest.fake.failures;
	int error = call();

	if (error) {
		assert_int_equal(error, -ENOMEM);
		assert_true(sweep.rig.guest.fake.failures > failed);
		sweep.failures++;
		check(protected);
		assert_int_equal(call(), 0);
	}
}

static int attach(void)
{
	return mv_ept_attach(sweep.rig.ept, BASE);
}

static int fault_at(uint64_t gpa, unsigned int access)
{
	struct mv_stage2_exit exit = rig_exit(gpa, access);
	struct mv_ept_outcome outcome = { .kind = MV_EPT_FAULT_KINDS };
	int error = mv_ept_fault(sweep.rig.ept, 0, &exit, &outcome);

	if (error) {
		struct mv_mapping mapping;

		/* Untouched, and nothing is mapped. */
		assert_int_equal(outcome.kind, MV_EPT_FAULT_KINDS);
		assert_int_equal(mv_ept_walk(sweep.rig.ept, 0, gpa, &mapping), -ENOENT);
	} else {
		assert_true(outcome.kind == MV_EPT_FIXED || outcome.kind == MV_EPT_SPURIOUS);
	}
	return error;
}

static int fault_large(void)
{
	return fault_at(BASE + 5, MV_ACCESS_WRITE);
}

static int fault_small(void)
{
	sweep.rig.page_lg2 = 12;
	return fault_at(BASE + 4 * MIB2 + PAGE, MV_ACCESS_READ);
}

static int prefault(void)
{
	sweep.rig.page_lg2 = 21;
	return mv_ept_prefault(sweep.rig.ept, 0, BASE, BASE + 8 * MIB2 - 1, NULL);
}

static int protect(void)
{
	return mv_ept_protect(sweep.rig.ept, 0, BASE + PAGE, BASE + 2 * PAGE - 1, RX);
}

static int unprotect(void)
{
	return mv_ept_unprotect(sweep.rig.ept, 0, BASE + PAGE, BASE + 2 * PAGE - 1);
}

static int set_type(void)
{
	return mv_ept_set_type(sweep.rig.ept, BASE + 3 * PAGE, BASE + 4 * PAGE - 1, MV_TYPE_UC,
			       false);
}

static int create_view(void)
{
	return mv_ept_view_create(sweep.rig.ept, RX, &sweep.view);
}

static int protect_in_view(void)
{
	return mv_ept_protect(sweep.rig.ept, sweep.view, BASE, BASE + 3 * MIB2 + PAGE - 1, 0);
}

static int split(void)
{
	return mv_ept_split(sweep.rig.ept, BASE, BASE + 8 * MIB2 - 1, 12);
}

static int track(void)
{
	return mv_ept_track(sweep.rig.ept, BASE, MV_EPT_TRACK_WRITE_PROTECT);
}

/* None of which needs memory. */
static void without_memory(void)
{
	uint64_t hpa, dirty = 0;

	sweep.rig.guest.fake.fail_after = 0;
	rig_touch(&sweep.rig, &sweep.cpu, BASE + 6 * MIB2, MV_ACCESS_WRITE, &hpa);
	assert_int_equal(
		mv_ept_harvest(sweep.rig.ept, BASE, BASE + 8 * MIB2 - 1, sweep.bitmap, &dirty), 0);
	assert_int_equal(dirty, 1);
	assert_int_equal(mv_ept_track(sweep.rig.ept, BASE, MV_EPT_TRACK_NONE), 0);
	mv_ept_collapse(sweep.rig.ept, BASE, BASE + 8 * MIB2 - 1);
	assert_int_equal(rig_discard(&sweep.rig, BASE + MIB2, BASE + 2 * MIB2 - 1), 0);
	assert_int_equal(mv_ept_age(sweep.rig.ept, BASE, BASE + 8 * MIB2 - 1, NULL, NULL), 0);
	assert_int_equal(mv_ept_view_destroy(sweep.rig.ept, sweep.view), 0);
	ept_rig_check(&sweep.rig);
	assert_int_equal(mv_ept_detach(sweep.rig.ept, BASE), 0);
}

static int create(struct mv_ept **ept)
{
	struct mv_ept_config config = {
		.size = sizeof(config),
		.memory = sweep.rig.guest.memory,
		.format = sweep.format,
		.features = rig_is_ept(sweep.format) ? RIG_EPT_FEATURES : RIG_NPT_FEATURES,
		.maxphyaddr = 52,
		.node = -1,
	};

	return mv_ept_create(&config, ept);
}

/* The creation may fail too: once more, beside the rig's. */
static void create_another(void)
{
	unsigned long live = sweep.rig.guest.fake.live;
	struct mv_ept *ept = NULL;

	if (create(&ept)) {
		assert_null(ept);
		assert_int_equal(sweep.rig.guest.fake.live, live);
		sweep.failures++;
		assert_int_equal(create(&ept), 0);
	}
	mv_ept_destroy(ept);
}

/* Return: failures met. */
static unsigned int run(enum mv_format_id format, unsigned long fail_at)
{
	const struct ept_rig_options options = { .format = format, .bytes = 8 * MIB2 };

	memset(&sweep, 0, sizeof(sweep));
	sweep.format = format;
	ept_rig_open(&sweep.rig, &options);
	sim_cpu_init(&sweep.cpu, sweep.rig.ept, &sweep.rig.guest.fake.platform, 0, 1);
	assert_int_equal(guest_add(&sweep.rig.guest, BASE, 8 * 512,
				   (size_t)(sweep.rig.base - sweep.rig.guest.mem)),
			 0);
	sweep.rig.guest.fake.allocations = 0;
	sweep.rig.guest.fake.fail_at = fail_at;
	create_another();
	retry(attach, false);
	sweep.rig.page_lg2 = 21;
	retry(fault_large, false);
	retry(fault_small, false);
	retry(prefault, false);
	retry(protect, false);
	retry(set_type, true);
	retry(create_view, true);
	retry(protect_in_view, true);
	retry(split, true);
	retry(track, true);
	retry(unprotect, true);
	retry(prefault, false);
	without_memory();
	ept_rig_close(&sweep.rig);
	return sweep.failures;
}

static void every_allocation_may_fail(enum mv_format_id format)
{
	unsigned long fail_at = 1;

	while (run(format, fail_at))
		fail_at++;
	assert_true(fail_at > 20);
	print_message("# %lu allocations made to fail\n", fail_at - 1);
}

static void every_allocation_of_ept_may_fail(void **state)
{
	every_allocation_may_fail(MV_FORMAT_EPT_4L);
}

static void every_allocation_of_npt_may_fail(void **state)
{
	every_allocation_may_fail(MV_FORMAT_NPT_5L);
}

/* --- the page limit, and resolutions ---------------------------------------------------------- */

static void a_page_limit_is_kept(void **state)
{
	const struct ept_rig_options options = { .format = MV_FORMAT_EPT_4L,
						 .bytes = 8 * MIB2,
						 .page_limit = 5 };
	struct mv_stage2_exit exit = rig_exit(BASE + 2 * MIB2, MV_ACCESS_READ);
	struct mv_ept_outcome outcome;
	struct mv_ept_stats stats;

	ept_rig_open(&sweep.rig, &options);
	sweep.rig.page_lg2 = 12;
	ept_rig_region(&sweep.rig, BASE, 8 * 512, 0);
	assert_int_equal(rig_fault(&sweep.rig, 0, BASE, MV_ACCESS_READ).kind, MV_EPT_FIXED);
	assert_int_equal(rig_fault(&sweep.rig, 0, BASE + MIB2, MV_ACCESS_READ).kind, MV_EPT_FIXED);
	assert_int_equal(mv_ept_fault(sweep.rig.ept, 0, &exit, &outcome), -ENOSPC);
	mv_ept_get_stats(sweep.rig.ept, &stats);
	assert_int_equal(stats.table_pages, 5);
	/* Rights cannot be said of a part of a page that cannot be split. */
	ept_rig_check(&sweep.rig);
	ept_rig_close(&sweep.rig);
}

static void rights_stay_where_a_split_fails(void **state)
{
	const struct ept_rig_options options = { .format = MV_FORMAT_EPT_4L,
						 .bytes = 8 * MIB2,
						 .page_limit = 3 };
	struct mv_mapping mapping;
	uint32_t rights = 0;

	ept_rig_open(&sweep.rig, &options);
	ept_rig_region(&sweep.rig, BASE, 8 * 512, 0);
	assert_int_equal(rig_fault(&sweep.rig, 0, BASE, MV_ACCESS_READ).mapping.page_lg2, 21);
	assert_int_equal(mv_ept_protect(sweep.rig.ept, 0, BASE, BASE + PAGE - 1, RX), -ENOSPC);
	assert_int_equal(mv_ept_get_rights(sweep.rig.ept, 0, BASE, &rights), 0);
	assert_true(rights & MV_ATTR_WRITE);
	assert_int_equal(mv_ept_walk(sweep.rig.ept, 0, BASE, &mapping), 0);
	assert_int_equal(mapping.page_lg2, 21);
	assert_int_equal(mv_ept_track(sweep.rig.ept, BASE, MV_EPT_TRACK_PML), -ENOSPC);
	assert_int_equal(mv_ept_harvest(sweep.rig.ept, BASE, BASE + PAGE - 1, sweep.bitmap, NULL),
			 -ENOENT);
	/* What needs none goes on. */
	assert_int_equal(mv_ept_protect(sweep.rig.ept, 0, BASE, BASE + MIB2 - 1, RX), 0);
	ept_rig_check(&sweep.rig);
	ept_rig_close(&sweep.rig);
}

static void resolutions_may_fail(void **state)
{
	const struct ept_rig_options options = { .format = MV_FORMAT_NPT_4L, .bytes = 8 * MIB2 };
	struct mv_stage2_exit exit = rig_exit(BASE, MV_ACCESS_READ);
	struct mv_ept_outcome outcome = { .kind = MV_EPT_FAULT_KINDS };
	uint64_t mapped = 7;

	ept_rig_open(&sweep.rig, &options);
	ept_rig_region(&sweep.rig, BASE, 8 * 512, 0);
	sweep.rig.resolve_error = -EIO;
	assert_int_equal(mv_ept_fault(sweep.rig.ept, 0, &exit, &outcome), -EIO);
	assert_int_equal(outcome.kind, MV_EPT_FAULT_KINDS);
	assert_int_equal(mv_ept_prefault(sweep.rig.ept, 0, BASE, BASE + MIB2 - 1, &mapped), -EIO);
	assert_int_equal(mapped, 0);
	sweep.rig.resolve_error = -EAGAIN;
	assert_int_equal(mv_ept_prefault(sweep.rig.ept, 0, BASE, BASE + MIB2 - 1, &mapped), 0);
	assert_int_equal(mapped, 0);
	sweep.rig.resolve_error = 0;
	assert_int_equal(mv_ept_fault(sweep.rig.ept, 0, &exit, &outcome), 0);
	assert_int_equal(outcome.kind, MV_EPT_FIXED);
	ept_rig_close(&sweep.rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_allocation_of_ept_may_fail),
		cmocka_unit_test(every_allocation_of_npt_may_fail),
		cmocka_unit_test(a_page_limit_is_kept),
		cmocka_unit_test(rights_stay_where_a_split_fails),
		cmocka_unit_test(resolutions_may_fail),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
