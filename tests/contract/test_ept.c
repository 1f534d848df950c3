/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a stage-2 space promises to a VMM: faults, regions, revokes, memory types. The judge is the
 * walk that a processor makes (stage2.h), and a processor that keeps what it has walked until it
 * is flushed. Views are in test_ept_views.c, tracking in test_ept_track.c.
 */
#include <limits.h>

#include "support/ept_contract.h"
#include "support/fake_view.h"

/* --- faults ------------------------------------------------------------------------------- */

static void a_fault_maps_the_page(void **state)
{
	struct mv_ept_outcome outcome;

	open_plain(state);
	rig.page_lg2 = 12;
	ept_rig_region(&rig, BASE, 1024, 0);
	outcome = rig_fault(&rig, 0, BASE + 5 * PAGE + 123, WRITE);
	assert_int_equal(outcome.kind, MV_EPT_FIXED);
	assert_int_equal(outcome.mapping.address, BASE + 5 * PAGE);
	assert_int_equal(outcome.mapping.phys, hpa_at(5 * PAGE));
	assert_int_equal(outcome.mapping.page_lg2, 12);
	assert_touch(BASE + 5 * PAGE + 8, WRITE, MV_EPT_SPURIOUS);
	assert_touch(BASE + 6 * PAGE, FETCH, MV_EPT_FIXED);
	assert_int_equal(leaf_at(0, BASE + 7 * PAGE).page_lg2, 0);
	assert_int_equal(stats_now().faults[MV_EPT_FIXED], 2);
	close_rig();
}

static void the_same_fault_again_is_spurious(void **state)
{
	open_plain(state);
	ept_rig_region(&rig, BASE, 1, 0);
	assert_int_equal(rig_fault(&rig, 0, BASE, READ).kind, MV_EPT_FIXED);
	assert_int_equal(rig_fault(&rig, 0, BASE, WRITE).kind, MV_EPT_SPURIOUS);
	assert_int_equal(rig_fault(&rig, 0, BASE, WRITE).mapping.phys, hpa_at(0));
	assert_int_equal(stats_now().faults[MV_EPT_SPURIOUS], 2);
	close_rig();
}

static void where_no_region_is_there_is_mmio(void **state)
{
	struct mv_stage2_exit exit = rig_exit(UINT64_MAX, READ);
	struct mv_ept_outcome outcome;

	open_plain(state);
	ept_rig_region(&rig, BASE, 2, 0);
	assert_int_equal(rig_fault(&rig, 0, BASE - 1, READ).kind, MV_EPT_MMIO);
	assert_int_equal(rig_fault(&rig, 0, BASE + 2 * PAGE, WRITE).kind, MV_EPT_MMIO);
	/* Whatever the guest says: beyond all tables too. */
	assert_int_equal(mv_ept_fault(rig.ept, 0, &exit, &outcome), 0);
	assert_int_equal(outcome.kind, MV_EPT_MMIO);
	assert_int_equal(mv_ept_fault(rig.ept, 7, &exit, &outcome), -ENOENT);
	assert_int_equal(mv_ept_fault(rig.ept, 100000, &exit, &outcome), -ENOENT);
	/* Of the memory, but not attached. */
	assert_int_equal(guest_add(&rig.guest, 0, 1, 3 * PAGE), 0);
	assert_int_equal(rig_fault(&rig, 0, 0, READ).kind, MV_EPT_MMIO);
	close_rig();
}

static void pages_are_as_large_as_all_allow(void **state)
{
	open_with(state, (struct ept_rig_options){ .bytes = 3 * GIB });
	/* From 2 MiB before a GiB: large pages of two sizes, and small ones at the end. */
	ept_rig_region(&rig, BASE - MIB2, (GIB + 2 * MIB2) / PAGE + 3, GIB - MIB2);
	assert_int_equal(rig_fault(&rig, 0, BASE - 1, READ).mapping.page_lg2, 21);
	assert_int_equal(rig_fault(&rig, 0, BASE + 12345678, READ).mapping.page_lg2, 30);
	assert_int_equal(rig_fault(&rig, 0, BASE + GIB, READ).mapping.page_lg2, 21);
	assert_int_equal(rig_fault(&rig, 0, BASE + GIB + MIB2, READ).mapping.page_lg2, 12);
	assert_int_equal(leaf_at(0, BASE + 12345678).phys, hpa_at(GIB));
	/* Not where the two addresses differ in what the page would cover. */
	ept_rig_region(&rig, 64 * GIB, 4096, 2 * GIB + 8 * MIB2 + PAGE);
	assert_int_equal(rig_fault(&rig, 0, 64 * GIB + MIB2, READ).mapping.page_lg2, 12);
	close_rig();
}

static void the_backing_decides_too(void **state)
{
	open_plain(state);
	ept_rig_region(&rig, BASE, GIB / PAGE, 0);
	rig.page_lg2 = 12;
	assert_int_equal(rig_fault(&rig, 0, BASE, READ).mapping.page_lg2, 12);
	rig.page_lg2 = 21;
	assert_int_equal(rig_fault(&rig, 0, BASE + MIB2, READ).mapping.page_lg2, 21);
	/* Among small ones there is no room for a large one. */
	assert_int_equal(rig_fault(&rig, 0, BASE + PAGE, READ).mapping.page_lg2, 12);
	rig.read_only = true;
	assert_int_equal(rig_fault(&rig, 0, BASE + 4 * MIB2, READ).kind, MV_EPT_FIXED);
	assert_false(leaf_at(0, BASE + 4 * MIB2).attr & MV_ATTR_WRITE);
	assert_int_equal(rig_fault(&rig, 0, BASE + 4 * MIB2, WRITE).kind, MV_EPT_PROTECTED);
	/* It may be by now: the page is granted anew. */
	rig.read_only = false;
	assert_touch(BASE + 4 * MIB2, WRITE, MV_EPT_FIXED);
	rig.resolve_error = -EAGAIN;
	assert_int_equal(rig_fault(&rig, 0, BASE + 8 * MIB2, READ).kind, MV_EPT_RETRY);
	rig.resolve_error = 0;
	close_rig();
}

static void a_limit_of_size_is_kept(void **state)
{
	open_with(state, (struct ept_rig_options){ .largest_lg2 = 21 });
	ept_rig_region(&rig, BASE, GIB / PAGE, 0);
	assert_int_equal(rig_fault(&rig, 0, BASE, READ).mapping.page_lg2, 21);
	close_rig();
	open_with(state, (struct ept_rig_options){ .largest_lg2 = 12 });
	ept_rig_region(&rig, BASE, GIB / PAGE, 0);
	assert_int_equal(rig_fault(&rig, 0, BASE, READ).mapping.page_lg2, 12);
	close_rig();
}

static void a_misconfiguration_is_told(void **state)
{
	struct mv_stage2_exit exit = { .kind = MV_STAGE2_MISCONFIGURED, .gpa = BASE };
	struct mv_ept_outcome outcome;

	open_plain(state);
	ept_rig_region(&rig, BASE, 1, 0);
	rig_fault(&rig, 0, BASE, READ);
	assert_int_equal(mv_ept_fault(rig.ept, 0, &exit, &outcome), 0);
	assert_int_equal(outcome.kind, MV_EPT_MISCONFIGURED);
	assert_int_equal(outcome.mapping.phys, hpa_at(0));
	assert_int_equal(mv_ept_fault(rig.ept, 1, &exit, &outcome), -ENOENT);
	assert_int_equal(stats_now().faults[MV_EPT_MISCONFIGURED], 1);
	close_rig();
}

static void prefault_maps_what_faults_would(void **state)
{
	uint64_t mapped = 0;

	open_plain(state);
	ept_rig_region(&rig, BASE, 3 * 512 + 7, 0);
	ept_rig_region(&rig, BASE + 16 * MIB2, 10, 32 * MIB2);
	assert_int_equal(mv_ept_prefault(rig.ept, 0, BASE, BASE + 64 * MIB2 - 1, &mapped), 0);
	assert_int_equal(mapped, (3 * 512 + 7 + 10) * PAGE);
	assert_int_equal(stats_now().prefaults, 3 + 7 + 10);
	assert_false(leaf_at(0, BASE).attr & MV_ATTR_ACCESSED);
	for (uint64_t gpa = BASE; gpa < BASE + (3 * 512 + 7) * PAGE; gpa += 64 * PAGE)
		assert_touch(gpa, WRITE, MV_EPT_SPURIOUS);
	/* Again: nothing is left to map. */
	assert_int_equal(mv_ept_prefault(rig.ept, 0, BASE, BASE + 64 * MIB2 - 1, &mapped), 0);
	assert_int_equal(mapped, (3 * 512 + 7 + 10) * PAGE);
	assert_int_equal(stats_now().prefaults, 3 + 7 + 10);
	assert_int_equal(mv_ept_prefault(rig.ept, 0, BASE + 1, BASE + PAGE, &mapped), -EINVAL);
	assert_int_equal(mv_ept_prefault(rig.ept, 3, BASE, BASE + PAGE - 1, &mapped), -ENOENT);
	close_rig();
}

/* --- regions and revokes -------------------------------------------------------------------- */

static void attached_regions_stay(void **state)
{
	struct mv_ept_stats before;

	open_plain(state);
	before = stats_now();
	ept_rig_region(&rig, BASE, 1000, 0);
	assert_int_equal(mv_memory_remove_region(rig.guest.memory, BASE), -EBUSY);
	assert_int_equal(mv_ept_attach(rig.ept, BASE), -EEXIST);
	assert_int_equal(mv_ept_attach(rig.ept, BASE + PAGE), -ENOENT);
	assert_int_equal(mv_ept_prefault(rig.ept, 0, BASE, BASE + 1000 * PAGE - 1, NULL), 0);
	assert_int_equal(mv_ept_detach(rig.ept, BASE + PAGE), -ENOENT);
	assert_int_equal(mv_ept_detach(rig.ept, BASE), 0);
	assert_int_equal(leaf_at(0, BASE).page_lg2, 0);
	/* And the tables that served it alone are gone. */
	assert_int_equal(stats_now().table_pages, before.table_pages);
	assert_int_equal(mv_ept_detach(rig.ept, BASE), -ENOENT);
	assert_int_equal(mv_memory_remove_region(rig.guest.memory, BASE), 0);
	assert_int_equal(rig_fault(&rig, 0, BASE, READ).kind, MV_EPT_MMIO);
	close_rig();
}

static void a_detach_reaches_processors(void **state)
{
	struct mv_stage2_exit exit;
	uint64_t hpa;

	open_plain(state);
	ept_rig_region(&rig, BASE, 10, 0);
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_int_equal(mv_ept_detach(rig.ept, BASE), 0);
	assert_false(sim_cpu_access(&cpu, BASE, READ, &hpa, &exit));
	close_rig();
}

static void a_revoke_reaches_all_views_and_processors(void **state)
{
	struct mv_stage2_exit exit;
	unsigned int second;
	uint64_t hpa;

	open_plain(state);
	rig.page_lg2 = 12;
	ept_rig_region(&rig, BASE, 1024, 0);
	assert_int_equal(mv_ept_view_create(rig.ept, RX, &second), 0);
	sim_cpu_load_view(&cpu, second);
	for (unsigned int view = 0; view < 2; view++) {
		cpu.view = view;
		for (uint64_t page = 0; page < 4; page++)
			assert_touch(BASE + page * PAGE, READ, MV_EPT_FIXED);
	}
	assert_int_equal(rig_discard(&rig, BASE + PAGE, BASE + 3 * PAGE - 1), 0);
	assert_int_equal(stats_now().revoked, 4);
	for (unsigned int view = 0; view < 2; view++) {
		cpu.view = view;
		for (uint64_t page = 0; page < 4; page++)
			assert_int_equal(sim_cpu_access(&cpu, BASE + page * PAGE, READ, &hpa,
							&exit),
					 page < 1 || page > 2);
	}
	/* And the pages come back. */
	assert_touch(BASE + PAGE, READ, MV_EPT_FIXED);
	close_rig();
}

static void a_large_page_is_revoked_whole(void **state)
{
	struct mv_stage2_exit exit;
	uint64_t hpa, tables;

	open_plain(state);
	ept_rig_region(&rig, BASE, GIB / PAGE, 0);
	assert_touch(BASE + 77 * PAGE, WRITE, MV_EPT_FIXED);
	assert_int_equal(leaf_at(0, BASE).page_lg2, 30);
	tables = stats_now().table_pages;
	rig.guest.fake.fail_after = 0; /* a revoke has no memory to ask for */
	assert_int_equal(rig_discard(&rig, BASE + 500 * MIB2, BASE + 500 * MIB2 + PAGE - 1), 0);
	rig.guest.fake.fail_after = ULONG_MAX;
	assert_false(sim_cpu_access(&cpu, BASE + 77 * PAGE, READ, &hpa, &exit));
	assert_int_equal(leaf_at(0, BASE).page_lg2, 0);
	assert_int_equal(stats_now().table_pages, tables);
	close_rig();
}

static void what_is_not_mapped_is_not_flushed(void **state)
{
	uint64_t flushes;

	open_plain(state);
	rig.page_lg2 = 12;
	ept_rig_region(&rig, BASE, 2048, 0);
	assert_touch(BASE, READ, MV_EPT_FIXED);
	flushes = rig.flushes;
	assert_int_equal(rig_discard(&rig, BASE + 1000 * PAGE, BASE + 1200 * PAGE - 1), 0);
	assert_int_equal(rig.flushes, flushes);
	assert_int_equal(rig_discard(&rig, BASE, BASE + PAGE - 1), 0);
	assert_int_equal(rig.flushes, flushes + 1);
	assert_int_equal(rig_discard(&rig, BASE, BASE + PAGE - 1), 0);
	assert_int_equal(rig.flushes, flushes + 1);
	/* A leaf that a fault replaced may be known to a processor: the next revoke flushes. */
	rig.read_only = true;
	assert_touch(BASE, READ, MV_EPT_FIXED);
	rig.read_only = false;
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_int_equal(rig.flushes, flushes + 1);
	assert_int_equal(rig_discard(&rig, BASE + PAGE, BASE + 2 * PAGE - 1), 0);
	assert_int_equal(rig.flushes, flushes + 2);
	close_rig();
}

/* A large page was taken away for one of its pages, and its flush has not returned. */
static void discard_within(void)
{
	insist(!rig_discard(&rig, BASE + PAGE, BASE + 2 * PAGE - 1));
}

static void whoever_finds_a_page_gone_waits_for_the_flush_too(void **state)
{
	uint64_t flushes;

	open_plain(state);
	ept_rig_region(&rig, BASE, 512, 0);
	assert_touch(BASE, READ, MV_EPT_FIXED);
	assert_int_equal(leaf_at(0, BASE).page_lg2, 21);
	flushes = rig.flushes;
	rig.on_flush = discard_within;
	assert_int_equal(rig_discard(&rig, BASE, BASE + PAGE - 1), 0);
	assert_int_equal(rig.flushes, flushes + 2);
	/* Both are complete: there is nothing left to flush. */
	assert_int_equal(rig_discard(&rig, BASE, BASE + PAGE - 1), 0);
	assert_int_equal(rig.flushes, flushes + 2);
	close_rig();
}

static void a_pinned_page_stays_mapped(void **state)
{
	struct mv_stage2_exit exit;
	uint64_t hpa;

	open_plain(state);
	rig.page_lg2 = 12;
	ept_rig_region(&rig, BASE, 8, 0);
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_int_equal(mv_memory_pin(rig.guest.memory, BASE, BASE), 0);
	assert_int_equal(rig_discard(&rig, BASE, BASE + 2 * PAGE - 1), -EBUSY);
	assert_true(sim_cpu_access(&cpu, BASE, WRITE, &hpa, &exit));
	mv_memory_unpin(rig.guest.memory, BASE, BASE);
	close_rig();
}

/* In the middle of a revoke: what is asked for is being given away. */
static struct mv_ept_outcome outcome_within;

static void fault_within(struct fake_view *fake, enum fake_op op, const struct mv_batch *batch)
{
	struct mv_stage2_exit exit = rig_exit(BASE + 3 * PAGE, READ);

	if (op == FAKE_COMMIT)
		insist(!mv_ept_fault(rig.ept, 0, &exit, &outcome_within));
}

static void a_fault_under_a_revoke_is_to_be_tried_again(void **state)
{
	struct fake_view other;

	open_plain(state);
	ept_rig_region(&rig, BASE, 16, 0);
	fake_view_init(&other, MV_VIEW_RANK_PROCESS, BASE / PAGE + 16);
	other.on_op = fault_within;
	assert_int_equal(mv_memory_attach_view(rig.guest.memory, &other.view), 0);
	assert_int_equal(rig_discard(&rig, BASE, BASE + PAGE - 1), 0);
	assert_int_equal(outcome_within.kind, MV_EPT_RETRY);
	assert_int_equal(leaf_at(0, BASE + 3 * PAGE).page_lg2, 0);
	assert_int_equal(rig_fault(&rig, 0, BASE + 3 * PAGE, READ).kind, MV_EPT_FIXED);
	mv_memory_detach_view(rig.guest.memory, &other.view);
	fake_view_finish(&other);
	close_rig();
}

/* --- types ---------------------------------------------------------------------------------- */

static uint32_t expected_type(enum mv_memory_type type)
{
	/* The PAT after a reset: WB, WT, UC-, UC; no WC. */
	if (rig_is_ept(rig.format))
		return MV_ATTR_TYPE(type);
	return MV_ATTR_TYPE(type == MV_TYPE_WB ? 0 : type == MV_TYPE_WT ? 1 : 3);
}

static void types_follow_their_ranges(void **state)
{
	open_plain(state);
	ept_rig_region(&rig, BASE, 8 * 512, 0);
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_int_equal(leaf_at(0, BASE).attr & MV_ATTR_TYPE_MASK, expected_type(MV_TYPE_WB));
	assert_int_equal(leaf_at(0, BASE).page_lg2, 21);
	assert_int_equal(
		mv_ept_set_type(rig.ept, BASE + PAGE, BASE + 3 * PAGE - 1, MV_TYPE_WT, true), 0);
	assert_int_equal(mv_ept_set_type(rig.ept, BASE + 4 * MIB2, BASE + 6 * MIB2 - 1, MV_TYPE_WC,
					 false),
			 0);
	/* What was mapped is gone, and comes back in pages of one type each. */
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_touch(BASE + PAGE, WRITE, MV_EPT_FIXED);
	assert_touch(BASE + 5 * MIB2, WRITE, MV_EPT_FIXED);
	assert_int_equal(leaf_at(0, BASE).page_lg2, 12);
	assert_int_equal(leaf_at(0, BASE).attr & MV_ATTR_TYPE_MASK, expected_type(MV_TYPE_WB));
	assert_int_equal(leaf_at(0, BASE + PAGE).attr & MV_ATTR_TYPE_MASK,
			 expected_type(MV_TYPE_WT));
	assert_int_equal(!!(leaf_at(0, BASE + PAGE).attr & MV_ATTR_IGNORE_PAT),
			 rig_is_ept(rig.format));
	assert_false(leaf_at(0, BASE).attr & MV_ATTR_IGNORE_PAT);
	assert_int_equal(leaf_at(0, BASE + 5 * MIB2).page_lg2, 21);
	assert_int_equal(leaf_at(0, BASE + 5 * MIB2).attr & MV_ATTR_TYPE_MASK,
			 expected_type(MV_TYPE_WC));
	assert_int_equal(mv_ept_set_type(rig.ept, BASE, BASE + PAGE - 1, (enum mv_memory_type)2,
					 false),
			 -EINVAL);
	assert_int_equal(mv_ept_set_type(rig.ept, BASE, BASE + 5, MV_TYPE_UC, false), -EINVAL);
	close_rig();
}

/* --- software that walks the tables too --------------------------------------------------------
 */

static void caches_are_told(void **state)
{
	struct mv_nested_log *log;
	unsigned long waits;

	open_plain(state);
	assert_null(mv_ept_log(rig.ept));
	close_rig();
	open_with(state, (struct ept_rig_options){ .policy = MV_EPT_SOFTWARE_WALK });
	log = mv_ept_log(rig.ept);
	assert_non_null(log);
	ept_rig_region(&rig, BASE, 4, 0);
	assert_touch(BASE, READ, MV_EPT_FIXED);
	waits = rig.guest.fake.waits;
	assert_int_equal(rig_discard(&rig, BASE, BASE + PAGE - 1), 0);
	assert_true(rig.guest.fake.waits > waits);
	close_rig();
}

static void configs_that_make_no_sense_are_refused(void **state)
{
	struct mv_ept_config good = { .size = sizeof(good),
				      .format = format_of(state),
				      .features = RIG_EPT_FEATURES | RIG_NPT_FEATURES,
				      .maxphyaddr = 52,
				      .node = -1 };
	struct mv_ept_config bad;
	struct mv_ept *ept = NULL;

	guest_init(&rig.guest, PAGE);
	good.memory = rig.guest.memory;
	assert_int_equal(mv_ept_create(NULL, &ept), -EINVAL);
#define REFUSED(field, value)                                                                      \
	(bad = good, bad.field = value, assert_int_equal(mv_ept_create(&bad, &ept), -EINVAL))
	REFUSED(size, 4);
	REFUSED(memory, NULL);
	REFUSED(format, MV_FORMAT_X86_4L);
	REFUSED(format, MV_FORMATS);
	REFUSED(maxphyaddr, 31);
	REFUSED(maxphyaddr, 53);
	REFUSED(policy, 0x80);
	REFUSED(largest_lg2, 22);
	assert_null(ept);
	assert_int_equal(mv_ept_create(&good, &ept), 0);
	mv_ept_destroy(ept);
	mv_ept_destroy(NULL);
	guest_finish(&rig.guest);
}

int main(void)
{
	static const struct ept_case cases[] = {
		EPT_CASE(a_fault_maps_the_page),
		EPT_CASE(the_same_fault_again_is_spurious),
		EPT_CASE(where_no_region_is_there_is_mmio),
		EPT_CASE(pages_are_as_large_as_all_allow),
		EPT_CASE(the_backing_decides_too),
		EPT_CASE(a_limit_of_size_is_kept),
		EPT_CASE(a_misconfiguration_is_told),
		EPT_CASE(prefault_maps_what_faults_would),
		EPT_CASE(attached_regions_stay),
		EPT_CASE(a_detach_reaches_processors),
		EPT_CASE(a_revoke_reaches_all_views_and_processors),
		EPT_CASE(a_large_page_is_revoked_whole),
		EPT_CASE(what_is_not_mapped_is_not_flushed),
		EPT_CASE(whoever_finds_a_page_gone_waits_for_the_flush_too),
		EPT_CASE(a_pinned_page_stays_mapped),
		EPT_CASE(a_fault_under_a_revoke_is_to_be_tried_again),
		EPT_CASE(types_follow_their_ranges),
		EPT_CASE(caches_are_told),
		EPT_CASE(configs_that_make_no_sense_are_refused),
	};

	return ept_cases_run(cases, COUNT_OF(cases));
}
