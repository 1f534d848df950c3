/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow tables by ranges of guest memory: what maps them taken away, who sees writes, what was
 * written, what was used; neighbours that are mapped ahead; pages that are brought back ahead.
 */
#include "support/shadow_lab.h"
#include "support/testing.h"

#define READ  MV_ACCESS_READ
#define WRITE MV_ACCESS_WRITE
#define USER  MV_ACCESS_USER
#define PAGE  MV_PAGE_SIZE

#define READY (PTE_ALL | PTE_A | PTE_D) /* to be mapped ahead */

#define GVA  0x40000000ULL
#define DATA 0x400000ULL

static struct lab lab;

/* @count pages of the guest, from GVA on; small ones, whatever stands behind them. */
static void open_guest(unsigned int count, uint64_t entry)
{
	lab_init(&lab, &(struct lab_options){ .mode = PAGED_4L });
	for (unsigned int i = 0; i < count; i++)
		lab_map(&lab, GVA + i * PAGE, 1, (DATA + i * PAGE) | entry);
}

static bool maps(unsigned int page, unsigned int access)
{
	uint64_t hpa;

	return lab_reaches(&lab, GVA + page * PAGE, access, &hpa);
}

static enum mv_shadow_kind touch(unsigned int page, unsigned int access)
{
	return lab_touch(&lab, GVA + page * PAGE, access).kind;
}

/* --- ranges that are none -------------------------------------------------------------------- */

static void ranges_are_checked(void **state)
{
	const uint64_t end = LAB_PAGES * PAGE;
	uint64_t bitmap[LAB_PAGES / 64];

	open_guest(1, PTE_ALL);
	assert_int_equal(mv_shadow_zap(lab.shadow, 1, PAGE - 1), -EINVAL);
	assert_int_equal(mv_shadow_zap(lab.shadow, 0, PAGE), -EINVAL);
	assert_int_equal(mv_shadow_zap(lab.shadow, PAGE, PAGE - 1), -EINVAL);
	assert_int_equal(mv_shadow_age(lab.shadow, 0, PAGE, bitmap, NULL), -EINVAL);
	assert_int_equal(mv_shadow_track(lab.shadow, 0, PAGE), -EINVAL);
	assert_int_equal(mv_shadow_track(lab.shadow, 0, end + PAGE - 1), -ENOENT);
	assert_int_equal(mv_shadow_track_dirty(lab.shadow, PAGE, true), -ENOENT);
	assert_int_equal(mv_shadow_harvest(lab.shadow, 0, end - 1, bitmap, NULL), -ENOENT);
	assert_int_equal(mv_shadow_track_dirty(lab.shadow, 0, true), 0);
	assert_int_equal(mv_shadow_harvest(lab.shadow, 0, end - 1, NULL, NULL), -EINVAL);
	assert_int_equal(mv_shadow_harvest(lab.shadow, 0, end + PAGE - 1, bitmap, NULL), -ENOENT);
	/* What has no memory is not mapped: nothing is there to be taken away. */
	assert_int_equal(mv_shadow_zap(lab.shadow, 0, UINT64_MAX), 0);
	assert_int_equal(mv_shadow_age(lab.shadow, end, UINT64_MAX, NULL, NULL), 0);
	lab_finish(&lab);
}

/* --- zap ---------------------------------------------------------------------------------------
 */

static void zap_takes_what_maps_a_range(void **state)
{
	unsigned int flushes;

	open_guest(8, PTE_ALL);
	/* A second way to one of the pages, and a large one. */
	lab_map(&lab, GVA + 64 * PAGE, 1, (DATA + 3 * PAGE) | PTE_ALL);
	lab_map(&lab, 2 * GVA, 2, DATA | PTE_ALL | PTE_PS);
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(touch(i, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(touch(64, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(lab_touch(&lab, 2 * GVA, WRITE).kind, MV_SHADOW_FIXED);
	flushes = lab.flushes;
	assert_int_equal(mv_shadow_zap(lab.shadow, DATA + 3 * PAGE, DATA + 5 * PAGE - 1), 0);
	assert_true(lab.flushes > flushes);
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(maps(i, READ), i < 3 || i > 4);
	assert_false(maps(64, READ));
	assert_false(lab_reaches(&lab, 2 * GVA, READ, &(uint64_t){ 0 }));
	assert_int_equal(touch(3, WRITE), MV_SHADOW_FIXED);
	lab_finish(&lab);
}

/* --- age ---------------------------------------------------------------------------------------
 */

static uint64_t used_pages(uint64_t *bitmap)
{
	uint64_t used;

	*bitmap = 0;
	assert_int_equal(mv_shadow_age(lab.shadow, DATA, DATA + 64 * PAGE - 1, bitmap, &used), 0);
	return used;
}

static void age_tells_what_was_used_once(void **state)
{
	uint64_t bitmap;

	open_guest(64, READY);
	assert_int_equal(touch(5, READ), MV_SHADOW_FIXED);
	assert_int_equal(touch(40, WRITE), MV_SHADOW_FIXED);
	/* Mapped ahead, but not used. */
	assert_true(maps(6, READ));
	assert_int_equal(used_pages(&bitmap), 2);
	assert_int_equal(bitmap, 1ULL << 5 | 1ULL << 40);
	assert_int_equal(used_pages(&bitmap), 0);
	assert_int_equal(bitmap, 0);
	/* Used, and not mapped any more when somebody asks. */
	assert_int_equal(touch(60, READ), MV_SHADOW_FIXED);
	assert_int_equal(mv_shadow_zap(lab.shadow, DATA, DATA + 64 * PAGE - 1), 0);
	assert_int_equal(used_pages(&bitmap), 1);
	assert_int_equal(bitmap, 1ULL << 60);
	lab_finish(&lab);
}

static void a_large_page_is_used_as_a_whole(void **state)
{
	uint64_t bitmap;

	open_guest(0, 0);
	lab_map(&lab, GVA, 2, DATA | PTE_ALL | PTE_PS);
	assert_int_equal(touch(100, READ), MV_SHADOW_FIXED);
	assert_int_equal(used_pages(&bitmap), 64);
	assert_int_equal(bitmap, UINT64_MAX);
	assert_int_equal(used_pages(&bitmap), 0);
	lab_finish(&lab);
}

/* --- who sees writes ---------------------------------------------------------------------------
 */

static void track_is_counted(void **state)
{
	const uint64_t first = DATA + PAGE, last = DATA + 3 * PAGE - 1;

	open_guest(4, PTE_ALL);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(touch(i, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(mv_shadow_track(lab.shadow, first, last), 0);
	assert_int_equal(mv_shadow_track(lab.shadow, first, last), 0);
	for (unsigned int i = 0; i < 4; i++) {
		bool tracked = i == 1 || i == 2;

		assert_int_equal(touch(i, READ), MV_SHADOW_FIXED);
		assert_int_equal(touch(i, WRITE),
				 tracked ? MV_SHADOW_EMULATE_WRITE : MV_SHADOW_FIXED);
	}
	mv_shadow_untrack(lab.shadow, first, last);
	assert_int_equal(touch(1, WRITE), MV_SHADOW_EMULATE_WRITE);
	mv_shadow_untrack(lab.shadow, first, last);
	assert_int_equal(touch(1, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(touch(2, WRITE), MV_SHADOW_FIXED);
	lab_finish(&lab);
}

static void track_takes_large_pages_apart(void **state)
{
	struct mv_mapping mapping;

	open_guest(0, 0);
	lab_map(&lab, GVA, 2, DATA | PTE_ALL | PTE_PS);
	assert_int_equal(touch(7, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(mv_shadow_walk(lab.vcpu, GVA, &mapping), 0);
	assert_int_equal(mapping.page_lg2, 21);
	assert_int_equal(mv_shadow_track(lab.shadow, DATA + 7 * PAGE, DATA + 8 * PAGE - 1), 0);
	assert_int_equal(touch(7, WRITE), MV_SHADOW_EMULATE_WRITE);
	assert_int_equal(touch(8, WRITE), MV_SHADOW_FIXED);
	mv_shadow_untrack(lab.shadow, DATA + 7 * PAGE, DATA + 8 * PAGE - 1);
	assert_int_equal(touch(7, WRITE), MV_SHADOW_FIXED);
	lab_finish(&lab);
}

static void track_has_a_limit(void **state)
{
	const uint64_t last = DATA + 2 * PAGE - 1;

	open_guest(2, PTE_ALL);
	for (unsigned int i = 0; i < 4095; i++)
		assert_int_equal(mv_shadow_track(lab.shadow, DATA + PAGE, last), 0);
	/* All or nothing: the first page is as before. */
	assert_int_equal(mv_shadow_track(lab.shadow, DATA, last), -EOVERFLOW);
	assert_int_equal(touch(0, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(touch(1, WRITE), MV_SHADOW_EMULATE_WRITE);
	for (unsigned int i = 0; i < 4095; i++)
		mv_shadow_untrack(lab.shadow, DATA + PAGE, last);
	assert_int_equal(touch(1, WRITE), MV_SHADOW_FIXED);
	lab_finish(&lab);
}

/* --- what was written ------------------------------------------------------------------------- */

/* Of the data pages; tables of the guest are elsewhere. */
static uint64_t dirty_pages(void)
{
	uint64_t bitmap = 0, dirty;

	assert_int_equal(mv_shadow_harvest(lab.shadow, DATA, DATA + 64 * PAGE - 1, &bitmap, &dirty),
			 0);
	assert_int_equal(dirty, __builtin_popcountll(bitmap));
	return bitmap;
}

static void harvest_tells_what_was_written_once(void **state)
{
	uint64_t whole[LAB_PAGES / 64] = { 0 }, dirty;

	open_guest(64, PTE_ALL);
	for (unsigned int i = 0; i < 64; i++)
		assert_int_equal(touch(i, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(mv_shadow_track_dirty(lab.shadow, 0, true), 0);
	assert_int_equal(dirty_pages(), 0);
	assert_true(maps(9, READ) && !maps(9, WRITE));
	assert_int_equal(touch(9, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(touch(10, READ), MV_SHADOW_FIXED);
	lab_write(&lab, DATA + 33 * PAGE + 8, 1); /* for the guest */
	assert_int_equal(dirty_pages(), 1ULL << 9 | 1ULL << 33);
	assert_int_equal(dirty_pages(), 0);
	assert_int_equal(touch(9, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(dirty_pages(), 1ULL << 9);
	/* A first access marks the guest's own tables. */
	assert_int_equal(mv_shadow_harvest(lab.shadow, 0, LAB_PAGES * PAGE - 1, whole, NULL), 0);
	lab_map(&lab, 2 * GVA, 1, DATA | PTE_P);
	assert_int_equal(mv_shadow_harvest(lab.shadow, 0, LAB_PAGES * PAGE - 1, whole, NULL), 0);
	memset(whole, 0, sizeof(whole));
	assert_int_equal(lab_touch(&lab, 2 * GVA, READ).kind, MV_SHADOW_FIXED);
	assert_int_equal(mv_shadow_harvest(lab.shadow, 0, LAB_PAGES * PAGE - 1, whole, &dirty), 0);
	assert_int_equal(dirty,
			 3); /* its tables of levels 3 to 1 are new; lab_map() has marked 4's */
	assert_int_equal(mv_shadow_track_dirty(lab.shadow, 0, false), 0);
	assert_int_equal(touch(20, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(mv_shadow_harvest(lab.shadow, DATA, DATA + 64 * PAGE - 1, whole, NULL),
			 -ENOENT);
	lab_finish(&lab);
}

static void logged_pages_are_small(void **state)
{
	struct mv_mapping mapping;

	open_guest(0, 0);
	lab_map(&lab, GVA, 2, DATA | PTE_ALL | PTE_PS);
	assert_int_equal(touch(7, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(mv_shadow_track_dirty(lab.shadow, 0, true), 0);
	assert_int_equal(touch(7, WRITE), MV_SHADOW_FIXED);
	assert_int_equal(mv_shadow_walk(lab.vcpu, GVA + 7 * PAGE, &mapping), 0);
	assert_int_equal(mapping.page_lg2, 12);
	assert_int_equal(dirty_pages(), 1ULL << 7);
	assert_int_equal(mv_shadow_track_dirty(lab.shadow, 0, false), 0);
	lab_finish(&lab);
}

/* --- neighbours ---------------------------------------------------------------------------------
 */

static uint64_t ahead(void)
{
	struct mv_shadow_stats stats;

	mv_shadow_get_stats(lab.shadow, &stats);
	return stats.ahead;
}

static void neighbours_come_along(void **state)
{
	open_guest(32, READY);
	/* Of these, one was never used, one not written, one is absent, one no memory, one
	 * reserved. */
	lab_map(&lab, GVA + 17 * PAGE, 1, (DATA + 17 * PAGE) | (READY & ~PTE_A));
	lab_map(&lab, GVA + 18 * PAGE, 1, (DATA + 18 * PAGE) | (READY & ~PTE_D));
	lab_map(&lab, GVA + 19 * PAGE, 1, 0);
	lab_map(&lab, GVA + 20 * PAGE, 1, (LAB_PAGES * PAGE) | READY);
	lab_map(&lab, GVA + 21 * PAGE, 1, (1ULL << 46) | READY);
	assert_int_equal(touch(16, READ), MV_SHADOW_FIXED);
	assert_int_equal(ahead(), 3);
	assert_false(maps(15, READ) || maps(17, READ) || maps(19, READ) || maps(20, READ) ||
		     maps(21, READ) || maps(24, READ));
	assert_true(maps(18, READ) && !maps(18, WRITE));
	assert_true(maps(22, WRITE | USER) && maps(23, WRITE | USER));
	/* The guest takes one back: emulated, so at once. */
	lab_map(&lab, GVA + 22 * PAGE, 1, 0);
	assert_false(maps(22, READ));
	lab_check(&lab, GVA + 17 * PAGE, WRITE);
	lab_check(&lab, GVA + 18 * PAGE, WRITE);
	lab_finish(&lab);
}

/* Between the read of a neighbour and its mapping the guest changes it. */
static void change_neighbour(uint64_t gpa)
{
	if (gpa == DATA + 3 * PAGE)
		lab_write(&lab, lab_entry(&lab, GVA + 3 * PAGE, 1), (DATA + 40 * PAGE) | READY);
}

/* Or somebody wants to see writes to the page that it leads to. */
static void track_neighbour(uint64_t gpa)
{
	if (gpa == DATA + 3 * PAGE)
		assert_int_equal(mv_shadow_track(lab.shadow, gpa, gpa + PAGE - 1), 0);
}

static void neighbours_may_change_meanwhile(void **state)
{
	open_guest(8, READY);
	lab.on_ahead = change_neighbour;
	assert_int_equal(touch(2, READ), MV_SHADOW_FIXED);
	assert_false(maps(3, READ));
	lab_check(&lab, GVA + 3 * PAGE, READ);
	lab_finish(&lab);
	open_guest(8, READY);
	lab.on_ahead = track_neighbour;
	assert_int_equal(touch(2, READ), MV_SHADOW_FIXED);
	assert_true(maps(3, READ) && !maps(3, WRITE));
	assert_true(maps(4, WRITE));
	mv_shadow_untrack(lab.shadow, DATA + 3 * PAGE, DATA + 4 * PAGE - 1);
	lab_finish(&lab);
}

/* --- pages brought back ahead ----------------------------------------------------------------- */

static unsigned int told;

static void short_of_pages(void *ctx)
{
	told++;
}

/* As many leaf tables, hence shadow pages, as wanted. Return: whether a fault has flushed. */
static bool use_tables(unsigned int count)
{
	bool flushed = false;

	for (unsigned int i = 0; i < count; i++) {
		unsigned int before;

		lab_map(&lab, GVA + ((uint64_t)i << 21), 1, DATA | PTE_ALL);
		before = lab.flushes;
		assert_int_equal(lab_touch(&lab, GVA + ((uint64_t)i << 21), READ).kind,
				 MV_SHADOW_FIXED);
		flushed |= lab.flushes != before;
		if (told) {
			told = 0;
			assert_true(mv_shadow_reclaim(lab.shadow) > 0);
		}
	}
	return flushed;
}

static void faults_need_not_wait_for_pages(void **state)
{
	struct mv_shadow_stats stats;

	told = 0;
	lab_init(&lab, &(struct lab_options){
			       .mode = PAGED_4L, .budget = 128, .short_of_pages = short_of_pages });
	assert_false(use_tables(1000));
	mv_shadow_get_stats(lab.shadow, &stats);
	assert_true(stats.reclaimed > 700);
	/* Many for one flush. */
	assert_true(stats.flushes < 200);
	assert_int_equal(mv_shadow_reclaim(lab.shadow), 0);
	lab_finish(&lab);
	/* Without anybody to tell they do it themselves. */
	lab_init(&lab, &(struct lab_options){ .mode = PAGED_4L, .budget = 128 });
	assert_true(use_tables(1000));
	lab_finish(&lab);
}

/* --- what an address space costs ----------------------------------------------------------------
 */

static void a_root_tells_what_it_cost(void **state)
{
	struct mv_shadow_cost cost;
	uint64_t table;

	open_guest(4, PTE_ALL);
	assert_int_equal(mv_shadow_root_cost(lab.vcpu, &cost), 0);
	assert_int_equal(cost.faults, 0);
	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(touch(i, READ), MV_SHADOW_FIXED);
	assert_int_equal(touch(4, READ), MV_SHADOW_INJECT); /* not our fault */
	/* The guest maps a table of an upper level, and writes there. */
	table = lab_entry(&lab, GVA, 2) & ~(PAGE - 1);
	lab_map(&lab, GVA + 5 * PAGE, 1, table | PTE_ALL);
	assert_int_equal(touch(5, WRITE), MV_SHADOW_EMULATE_WRITE);
	assert_int_equal(mv_shadow_root_cost(lab.vcpu, &cost), 0);
	assert_int_equal(cost.faults, 5);
	assert_int_equal(cost.table_writes, 1);
	lab_finish(&lab);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ranges_are_checked),
		cmocka_unit_test(zap_takes_what_maps_a_range),
		cmocka_unit_test(age_tells_what_was_used_once),
		cmocka_unit_test(a_large_page_is_used_as_a_whole),
		cmocka_unit_test(track_is_counted),
		cmocka_unit_test(track_takes_large_pages_apart),
		cmocka_unit_test(track_has_a_limit),
		cmocka_unit_test(harvest_tells_what_was_written_once),
		cmocka_unit_test(logged_pages_are_small),
		cmocka_unit_test(neighbours_come_along),
		cmocka_unit_test(neighbours_may_change_meanwhile),
		cmocka_unit_test(faults_need_not_wait_for_pages),
		cmocka_unit_test(a_root_tells_what_it_cost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
