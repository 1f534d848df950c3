/* SPDX-License-Identifier: BSD-2-Clause */
/* What a stage-2 space promises to a VMM: which pages are written, which are used. */
#include "support/ept_contract.h"

/* --- tracking --------------------------------------------------------------------------------- */

static uint64_t bitmap[64];

static uint64_t harvest(uint64_t pages)
{
	uint64_t dirty = 0;

	memset(bitmap, 0, sizeof(bitmap));
	assert_int_equal(mv_ept_harvest(rig.ept, BASE, BASE + pages * PAGE - 1, bitmap, &dirty), 0);
	return dirty;
}

static bool reported(uint64_t page)
{
	return bitmap[page / 64] >> (page % 64) & 1;
}

static void tracking_finds_what_is_written(enum mv_ept_track how)
{
	const uint64_t written[] = { 0, 3, 63, 64, 700, 1023 };

	ept_rig_region(&rig, BASE, 1024, 0);
	assert_touch(BASE + 700 * PAGE, WRITE, MV_EPT_FIXED);
	assert_int_equal(mv_ept_track(rig.ept, BASE, how), 0);
	cpu.pml = how == MV_EPT_TRACK_PML;
	rig.page_lg2 = 12;
	assert_int_equal(harvest(1024), 0);
	for (int round = 0; round < 2; round++) {
		uint64_t hpa;

		for (uint64_t page = 0; page < 1024; page += 5)
			rig_touch(&rig, &cpu, BASE + page * PAGE, READ, &hpa);
		for (unsigned int i = 0; i < COUNT_OF(written); i++)
			rig_touch(&rig, &cpu, BASE + written[i] * PAGE, WRITE, &hpa);
		if (cpu.pml)
			sim_cpu_drain(&cpu);
		/* A page that is given away takes its record along. */
		assert_int_equal(rig_discard(&rig, BASE + 3 * PAGE, BASE + 4 * PAGE - 1), 0);
		harvest(1024);
		for (unsigned int i = 0; i < COUNT_OF(written); i++)
			assert_true(reported(written[i]));
		if (how != MV_EPT_TRACK_DIRTY)
			assert_false(reported(5) || reported(1) || reported(701));
		assert_int_equal(harvest(1024), 0);
	}
	ept_rig_check(&rig);
	assert_int_equal(mv_ept_track(rig.ept, BASE, MV_EPT_TRACK_NONE), 0);
	assert_int_equal(mv_ept_harvest(rig.ept, BASE, BASE + PAGE - 1, bitmap, NULL), -ENOENT);
}

static void dirty_bits_are_harvested(void **state)
{
	open_plain(state);
	tracking_finds_what_is_written(MV_EPT_TRACK_DIRTY);
	close_rig();
}

/* Of a huge page that was asked for in part, the other pages are reported when they are. */
static void the_rest_of_a_dirty_page_is_kept(void **state)
{
	open_plain(state);
	ept_rig_region(&rig, BASE, 1024, 0);
	assert_int_equal(mv_ept_track(rig.ept, BASE, MV_EPT_TRACK_DIRTY), 0);
	assert_touch(BASE + 700 * PAGE, WRITE, MV_EPT_FIXED);
	assert_int_equal(leaf_at(0, BASE + 700 * PAGE).page_lg2, 21);
	assert_int_equal(harvest(600), 600 - 512);
	assert_int_equal(harvest(600), 0);
	assert_int_equal(harvest(1024), 1024 - 600);
	assert_true(reported(700));
	assert_int_equal(harvest(1024), 0);
	close_rig();
}

/* A view takes no record of writes along. */
static void a_view_that_goes_leaves_its_record(void **state)
{
	unsigned int view;
	uint64_t hpa;

	open_plain(state);
	rig.page_lg2 = 12;
	ept_rig_region(&rig, BASE, 64, 0);
	assert_int_equal(mv_ept_view_create(rig.ept, RIG_ALL, &view), 0);
	sim_cpu_load_view(&cpu, view);
	assert_int_equal(mv_ept_track(rig.ept, BASE, MV_EPT_TRACK_DIRTY), 0);
	cpu.view = view;
	rig_touch(&rig, &cpu, BASE + 9 * PAGE, WRITE, &hpa);
	assert_int_equal(mv_ept_view_destroy(rig.ept, view), 0);
	assert_int_equal(harvest(64), 1);
	assert_true(reported(9));
	close_rig();
}

static void write_faults_are_harvested(void **state)
{
	open_plain(state);
	tracking_finds_what_is_written(MV_EPT_TRACK_WRITE_PROTECT);
	close_rig();
	/* On a processor that has no such bits. */
	if (rig_is_ept(format_of(state))) {
		open_with(state, (struct ept_rig_options){ .features = MV_FEATURE_2M });
		tracking_finds_what_is_written(MV_EPT_TRACK_WRITE_PROTECT);
		close_rig();
	}
}

static void logs_of_processors_are_harvested(void **state)
{
	open_plain(state);
	if (rig_is_ept(rig.format)) {
		tracking_finds_what_is_written(MV_EPT_TRACK_PML);
	} else {
		ept_rig_region(&rig, BASE, 1, 0);
		assert_int_equal(mv_ept_track(rig.ept, BASE, MV_EPT_TRACK_PML), -EOPNOTSUPP);
	}
	close_rig();
}

static void tracking_needs_what_it_needs(void **state)
{
	open_with(state, (struct ept_rig_options){ .features = MV_FEATURE_2M | MV_FEATURE_NX });
	ept_rig_region(&rig, BASE, 10, 0);
	assert_int_equal(mv_ept_track(rig.ept, BASE, MV_EPT_TRACK_DIRTY),
			 rig_is_ept(rig.format) ? -EOPNOTSUPP : 0);
	assert_int_equal(mv_ept_track(rig.ept, BASE + PAGE, MV_EPT_TRACK_WRITE_PROTECT), -ENOENT);
	assert_int_equal(mv_ept_age(rig.ept, BASE, BASE + PAGE - 1, bitmap, NULL),
			 rig_is_ept(rig.format) ? -EOPNOTSUPP : 0);
	assert_int_equal(mv_ept_harvest(rig.ept, BASE, BASE + 20 * PAGE - 1, bitmap, NULL),
			 -ENOENT);
	assert_int_equal(mv_ept_harvest(rig.ept, BASE, BASE + 20, bitmap, NULL), -EINVAL);
	close_rig();
}

/* A guest chooses the addresses in a log. */
static void hostile_logs_do_no_harm(void **state)
{
	static uint64_t log[MV_EPT_PML_ENTRIES];
	struct chance chance = chance_of(1, 1);

	open_plain(state);
	if (rig_is_ept(rig.format)) {
		ept_rig_region(&rig, BASE, 100, 0);
		ept_rig_region(&rig, 2 * BASE, 100, 100 * PAGE);
		assert_int_equal(mv_ept_track(rig.ept, BASE, MV_EPT_TRACK_PML), 0);
		for (unsigned int i = 0; i < MV_EPT_PML_ENTRIES; i++)
			log[i] = chance_next(&chance) | 1ULL << 40;
		log[0] = BASE + 100 * PAGE - 1;
		log[1] = BASE + 100 * PAGE;
		log[2] = 2 * BASE; /* attached, but not tracked */
		log[511] = UINT64_MAX;
		assert_int_equal(mv_ept_pml_drain(rig.ept, log, 511), 0);
		assert_int_equal(mv_ept_pml_drain(rig.ept, log, 510), 0);
		assert_int_equal(stats_now().pml_ignored, 1);
		assert_int_equal(mv_ept_pml_drain(rig.ept, log, 0xffff), 1);
		assert_int_equal(stats_now().pml_ignored, 512);
		assert_int_equal(stats_now().pml_logged, 1);
		assert_int_equal(harvest(100), 1);
		assert_true(reported(99));
	}
	close_rig();
}

static void ageing_tells_hot_from_cold(void **state)
{
	uint64_t used = 99, hpa;

	open_plain(state);
	rig.page_lg2 = 12;
	ept_rig_region(&rig, BASE, 512, 0);
	assert_int_equal(mv_ept_prefault(rig.ept, 0, BASE, BASE + 512 * PAGE - 1, NULL), 0);
	assert_int_equal(mv_ept_age(rig.ept, BASE, BASE + 512 * PAGE - 1, bitmap, &used), 0);
	assert_int_equal(used, 0);
	for (uint64_t page = 0; page < 512; page += 100)
		rig_touch(&rig, &cpu, BASE + page * PAGE, READ, &hpa);
	memset(bitmap, 0, sizeof(bitmap));
	assert_int_equal(mv_ept_age(rig.ept, BASE, BASE + 512 * PAGE - 1, bitmap, &used), 0);
	assert_int_equal(used, 6);
	for (uint64_t page = 0; page < 512; page++)
		assert_int_equal(reported(page), page % 100 == 0);
	assert_int_equal(mv_ept_age(rig.ept, BASE, BASE + 512 * PAGE - 1, NULL, &used), 0);
	assert_int_equal(used, 0);
	close_rig();
}

int main(void)
{
	static const struct ept_case cases[] = {
		EPT_CASE(dirty_bits_are_harvested),
		EPT_CASE(the_rest_of_a_dirty_page_is_kept),
		EPT_CASE(a_view_that_goes_leaves_its_record),
		EPT_CASE(write_faults_are_harvested),
		EPT_CASE(logs_of_processors_are_harvested),
		EPT_CASE(tracking_needs_what_it_needs),
		EPT_CASE(hostile_logs_do_no_harm),
		EPT_CASE(ageing_tells_hot_from_cold),
	};

	return ept_cases_run(cases, COUNT_OF(cases));
}
