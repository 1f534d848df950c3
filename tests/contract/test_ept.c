/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a stage-2 space promises to a VMM, over all four formats. The judge is the walk that a
 * processor makes (stage2.h), and a processor that keeps what it has walked until it is flushed.
 */
#include <limits.h>

#include "support/ept_rig.h"
#include "support/fake_view.h"
#include "support/testing.h"

#define PAGE  MV_PAGE_SIZE
#define MIB2  (1ULL << 21)
#define GIB   (1ULL << 30)
#define BASE  (4 * GIB) /* of most regions */
#define READ  MV_ACCESS_READ
#define WRITE MV_ACCESS_WRITE
#define FETCH MV_ACCESS_FETCH
#define R     MV_ATTR_READ
#define RW    (MV_ATTR_READ | MV_ATTR_WRITE)
#define RX    (MV_ATTR_READ | MV_ATTR_EXEC)

static struct ept_rig rig;
static struct sim_cpu cpu;

static enum mv_format_id format_of(void **state)
{
	return *(const enum mv_format_id *)*state;
}

static void open_with(void **state, struct ept_rig_options options)
{
	options.format = format_of(state);
	options.bytes = options.bytes ? options.bytes : GIB;
	ept_rig_open(&rig, &options);
	rig.cpus = &cpu;
	rig.cpu_count = 1;
	sim_cpu_init(&cpu, rig.ept, &rig.guest.fake.platform, 0, 1);
}

static void open_plain(void **state)
{
	open_with(state, (struct ept_rig_options){ 0 });
}

static void close_rig(void)
{
	ept_rig_check(&rig);
	ept_rig_close(&rig);
}

static uint64_t hpa_at(uint64_t offset)
{
	return (uintptr_t)rig.base + offset;
}

static struct mv_mapping walk(unsigned int view, uint64_t gpa)
{
	struct mv_mapping mapping = { 0 };

	if (mv_ept_walk(rig.ept, view, gpa, &mapping))
		mapping.page_lg2 = 0;
	return mapping;
}

static struct mv_ept_stats stats(void)
{
	struct mv_ept_stats now;

	mv_ept_get_stats(rig.ept, &now);
	return now;
}

static void assert_touch(uint64_t gpa, unsigned int access, enum mv_ept_fault_kind how)
{
	uint64_t hpa = 0;

	assert_int_equal(rig_touch(&rig, &cpu, gpa, access, &hpa), how);
	if (how == MV_EPT_FIXED || how == MV_EPT_SPURIOUS)
		assert_int_equal(hpa, hpa_at(gpa - BASE));
}

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
	assert_int_equal(walk(0, BASE + 7 * PAGE).page_lg2, 0);
	assert_int_equal(stats().faults[MV_EPT_FIXED], 2);
	close_rig();
}

static void the_same_fault_again_is_spurious(void **state)
{
	open_plain(state);
	ept_rig_region(&rig, BASE, 1, 0);
	assert_int_equal(rig_fault(&rig, 0, BASE, READ).kind, MV_EPT_FIXED);
	assert_int_equal(rig_fault(&rig, 0, BASE, WRITE).kind, MV_EPT_SPURIOUS);
	assert_int_equal(rig_fault(&rig, 0, BASE, WRITE).mapping.phys, hpa_at(0));
	assert_int_equal(stats().faults[MV_EPT_SPURIOUS], 2);
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
	assert_int_equal(walk(0, BASE + 12345678).phys, hpa_at(GIB));
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
	assert_false(walk(0, BASE + 4 * MIB2).attr & MV_ATTR_WRITE);
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
	assert_int_equal(stats().faults[MV_EPT_MISCONFIGURED], 1);
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
	assert_int_equal(stats().prefaults, 3 + 7 + 10);
	assert_false(walk(0, BASE).attr & MV_ATTR_ACCESSED);
	for (uint64_t gpa = BASE; gpa < BASE + (3 * 512 + 7) * PAGE; gpa += 64 * PAGE)
		assert_touch(gpa, WRITE, MV_EPT_SPURIOUS);
	/* Again: nothing is left to map. */
	assert_int_equal(mv_ept_prefault(rig.ept, 0, BASE, BASE + 64 * MIB2 - 1, &mapped), 0);
	assert_int_equal(mapped, (3 * 512 + 7 + 10) * PAGE);
	assert_int_equal(stats().prefaults, 3 + 7 + 10);
	assert_int_equal(mv_ept_prefault(rig.ept, 0, BASE + 1, BASE + PAGE, &mapped), -EINVAL);
	assert_int_equal(mv_ept_prefault(rig.ept, 3, BASE, BASE + PAGE - 1, &mapped), -ENOENT);
	close_rig();
}

/* --- regions and revokes -------------------------------------------------------------------- */

static void attached_regions_stay(void **state)
{
	struct mv_ept_stats before;

	open_plain(state);
	before = stats();
	ept_rig_region(&rig, BASE, 1000, 0);
	assert_int_equal(mv_memory_remove_region(rig.guest.memory, BASE), -EBUSY);
	assert_int_equal(mv_ept_attach(rig.ept, BASE), -EEXIST);
	assert_int_equal(mv_ept_attach(rig.ept, BASE + PAGE), -ENOENT);
	assert_int_equal(mv_ept_prefault(rig.ept, 0, BASE, BASE + 1000 * PAGE - 1, NULL), 0);
	assert_int_equal(mv_ept_detach(rig.ept, BASE + PAGE), -ENOENT);
	assert_int_equal(mv_ept_detach(rig.ept, BASE), 0);
	assert_int_equal(walk(0, BASE).page_lg2, 0);
	/* And the tables that served it alone are gone. */
	assert_int_equal(stats().table_pages, before.table_pages);
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
	assert_int_equal(stats().revoked, 4);
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
	assert_int_equal(walk(0, BASE).page_lg2, 30);
	tables = stats().table_pages;
	rig.guest.fake.fail_after = 0; /* a revoke has no memory to ask for */
	assert_int_equal(rig_discard(&rig, BASE + 500 * MIB2, BASE + 500 * MIB2 + PAGE - 1), 0);
	rig.guest.fake.fail_after = ULONG_MAX;
	assert_false(sim_cpu_access(&cpu, BASE + 77 * PAGE, READ, &hpa, &exit));
	assert_int_equal(walk(0, BASE).page_lg2, 0);
	assert_int_equal(stats().table_pages, tables);
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
	assert_int_equal(walk(0, BASE + 3 * PAGE).page_lg2, 0);
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
	assert_int_equal(walk(0, BASE).attr & MV_ATTR_TYPE_MASK, expected_type(MV_TYPE_WB));
	assert_int_equal(walk(0, BASE).page_lg2, 21);
	assert_int_equal(
		mv_ept_set_type(rig.ept, BASE + PAGE, BASE + 3 * PAGE - 1, MV_TYPE_WT, true), 0);
	assert_int_equal(mv_ept_set_type(rig.ept, BASE + 4 * MIB2, BASE + 6 * MIB2 - 1, MV_TYPE_WC,
					 false),
			 0);
	/* What was mapped is gone, and comes back in pages of one type each. */
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_touch(BASE + PAGE, WRITE, MV_EPT_FIXED);
	assert_touch(BASE + 5 * MIB2, WRITE, MV_EPT_FIXED);
	assert_int_equal(walk(0, BASE).page_lg2, 12);
	assert_int_equal(walk(0, BASE).attr & MV_ATTR_TYPE_MASK, expected_type(MV_TYPE_WB));
	assert_int_equal(walk(0, BASE + PAGE).attr & MV_ATTR_TYPE_MASK, expected_type(MV_TYPE_WT));
	assert_int_equal(!!(walk(0, BASE + PAGE).attr & MV_ATTR_IGNORE_PAT),
			 rig_is_ept(rig.format));
	assert_false(walk(0, BASE).attr & MV_ATTR_IGNORE_PAT);
	assert_int_equal(walk(0, BASE + 5 * MIB2).page_lg2, 21);
	assert_int_equal(walk(0, BASE + 5 * MIB2).attr & MV_ATTR_TYPE_MASK,
			 expected_type(MV_TYPE_WC));
	assert_int_equal(mv_ept_set_type(rig.ept, BASE, BASE + PAGE - 1, (enum mv_memory_type)2,
					 false),
			 -EINVAL);
	assert_int_equal(mv_ept_set_type(rig.ept, BASE, BASE + 5, MV_TYPE_UC, false), -EINVAL);
	close_rig();
}

/* --- rights and views ------------------------------------------------------------------------- */

static void rights_hold_at_once(void **state)
{
	struct mv_stage2_exit exit;
	uint64_t hpa;
	uint32_t rights;

	open_plain(state);
	ept_rig_region(&rig, BASE, 4 * 512, 0);
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_int_equal(walk(0, BASE).page_lg2, 21);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE + PAGE, BASE + 2 * PAGE - 1, RX), 0);
	assert_false(sim_cpu_access(&cpu, BASE + PAGE, WRITE, &hpa, &exit));
	assert_touch(BASE + PAGE, WRITE, MV_EPT_PROTECTED);
	assert_touch(BASE + PAGE, READ, MV_EPT_SPURIOUS);
	assert_touch(BASE + PAGE, FETCH, MV_EPT_SPURIOUS);
	/* Its neighbours do not even fault: the page was split, not taken away. */
	assert_true(sim_cpu_access(&cpu, BASE, WRITE, &hpa, &exit));
	assert_true(sim_cpu_access(&cpu, BASE + 2 * PAGE, WRITE, &hpa, &exit));
	assert_int_equal(mv_ept_get_rights(rig.ept, 0, BASE + PAGE, &rights), 0);
	assert_int_equal(rights & ~MV_ATTR_EXEC_USER, RX);
	assert_int_equal(mv_ept_unprotect(rig.ept, 0, BASE, BASE + MIB2 - 1), 0);
	assert_touch(BASE + PAGE, WRITE, MV_EPT_FIXED);
	assert_int_equal(mv_ept_get_rights(rig.ept, 0, BASE + PAGE, &rights), 0);
	assert_int_equal(rights, RIG_ALL);
	close_rig();
}

static void rights_can_be_none(void **state)
{
	open_plain(state);
	ept_rig_region(&rig, BASE, 512, 0);
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + 5 * PAGE - 1, 0), 0);
	assert_touch(BASE, READ, MV_EPT_PROTECTED);
	assert_touch(BASE + 4 * PAGE, FETCH, MV_EPT_PROTECTED);
	assert_touch(BASE + 5 * PAGE, WRITE, MV_EPT_SPURIOUS);
	assert_int_equal(walk(0, BASE).page_lg2, 0);
	close_rig();
}

static void rights_that_tables_cannot_say_are_refused(void **state)
{
	bool ept = rig_is_ept(format_of(state));
	unsigned int view = 99;

	open_plain(state);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + PAGE - 1, MV_ATTR_WRITE), -EINVAL);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + PAGE - 1, MV_ATTR_EXEC),
			 ept ? 0 : -EINVAL);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + PAGE - 1, MV_ATTR_DIRTY), -EINVAL);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE + 8, BASE + PAGE - 1, R), -EINVAL);
	assert_int_equal(mv_ept_protect(rig.ept, 5, BASE, BASE + PAGE - 1, R), -ENOENT);
	assert_int_equal(mv_ept_view_create(rig.ept, MV_ATTR_WRITE, &view), -EINVAL);
	assert_int_equal(view, 99);
	close_rig();
	open_with(state, (struct ept_rig_options){ .features = MV_FEATURE_2M });
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + PAGE - 1, MV_ATTR_EXEC), -EINVAL);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + PAGE - 1, R), ept ? 0 : -EINVAL);
	close_rig();
}

static void execute_only_pages(void **state)
{
	open_plain(state);
	ept_rig_region(&rig, BASE, 4, 0);
	if (rig_is_ept(rig.format)) {
		assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + PAGE - 1, MV_ATTR_EXEC),
				 0);
		assert_touch(BASE, FETCH, MV_EPT_FIXED);
		assert_touch(BASE, READ, MV_EPT_PROTECTED);
		assert_touch(BASE, WRITE, MV_EPT_PROTECTED);
	}
	close_rig();
}

static void modes_have_rights_of_their_own(void **state)
{
	const uint32_t features =
		MV_FEATURE_2M | MV_FEATURE_ACCESSED | MV_FEATURE_MODE_EXEC | MV_FEATURE_EXIT_INFO;

	if (!rig_is_ept(format_of(state)))
		return;
	open_with(state, (struct ept_rig_options){ .features = features });
	ept_rig_region(&rig, BASE, 512, 0);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + PAGE - 1, R | MV_ATTR_EXEC_USER),
			 0);
	assert_int_equal(rig_fault(&rig, 0, BASE, FETCH).kind, MV_EPT_PROTECTED);
	assert_int_equal(rig_fault(&rig, 0, BASE, FETCH | MV_ACCESS_USER).kind, MV_EPT_FIXED);
	assert_int_equal(walk(0, BASE).attr & MV_ATTR_RIGHTS, R | MV_ATTR_EXEC_USER);
	assert_int_equal(rig_fault(&rig, 0, BASE + PAGE, FETCH).kind, MV_EPT_FIXED);
	assert_int_equal(walk(0, BASE + PAGE).attr & MV_ATTR_RIGHTS, RIG_ALL);
	close_rig();
}

static void views_differ_in_rights_only(void **state)
{
	unsigned int code, none;

	open_plain(state);
	ept_rig_region(&rig, BASE, 8 * 512, 0);
	assert_int_equal(mv_ept_view_create(rig.ept, RX, &code), 0);
	assert_int_equal(mv_ept_view_create(rig.ept, 0, &none), 0);
	assert_int_equal(code, 1);
	assert_int_equal(none, 2);
	sim_cpu_load_view(&cpu, code);
	sim_cpu_load_view(&cpu, none);
	assert_int_equal(mv_ept_protect(rig.ept, none, BASE + MIB2, BASE + 2 * MIB2 - 1, RW), 0);
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	cpu.view = code;
	assert_touch(BASE, FETCH, MV_EPT_FIXED);
	assert_touch(BASE, WRITE, MV_EPT_PROTECTED);
	cpu.view = none;
	assert_touch(BASE, READ, MV_EPT_PROTECTED);
	assert_touch(BASE + MIB2, WRITE, MV_EPT_FIXED);
	assert_touch(BASE + MIB2, FETCH, MV_EPT_PROTECTED);
	assert_int_equal(walk(none, BASE + MIB2).page_lg2, 21);
	/* Rights of one are no affair of the others. */
	cpu.view = 0;
	assert_touch(BASE + MIB2, FETCH, MV_EPT_FIXED);
	assert_int_equal(mv_ept_view_destroy(rig.ept, code), 0);
	assert_int_equal(mv_ept_view_destroy(rig.ept, code), -ENOENT);
	assert_int_equal(mv_ept_view_destroy(rig.ept, 0), -EINVAL);
	assert_int_equal(mv_ept_view_create(rig.ept, R, &code), 0);
	assert_int_equal(code, 1);
	close_rig();
}

static void the_list_names_all_views(void **state)
{
	static uint64_t list[MV_EPT_VIEWS] __attribute__((aligned(4096)));
	unsigned int view, walk_length = format_of(state) == MV_FORMAT_EPT_5L ? 4 : 3;
	uint64_t root = 0;

	open_plain(state);
	for (unsigned int i = 1; i < MV_EPT_VIEWS; i++)
		assert_int_equal(mv_ept_view_create(rig.ept, RX, &view), 0);
	assert_int_equal(mv_ept_view_create(rig.ept, RX, &view), -ENOSPC);
	assert_int_equal(mv_ept_view_destroy(rig.ept, 300), 0);
	mv_ept_fill_eptp_list(rig.ept, list);
	assert_int_equal(list[300], 0);
	for (unsigned int i = 0; i < MV_EPT_VIEWS; i++) {
		if (i == 300)
			continue;
		assert_int_equal(list[i], mv_ept_pointer(rig.ept, i));
		assert_true((list[i] & ~4095ULL) != root);
		root = list[i] & ~4095ULL;
		/* Write-back, the length less one, accessed and dirty. */
		assert_int_equal(list[i] & 4095,
				 rig_is_ept(rig.format) ? 6 | walk_length << 3 | 1 << 6 : 0);
	}
	assert_int_equal(mv_ept_pointer(rig.ept, MV_EPT_VIEWS), 0);
	close_rig();
}

/* --- #VE -------------------------------------------------------------------------------------- */

static void violations_become_exceptions_where_allowed(void **state)
{
	struct mv_ve_info area = { 0 };
	struct mv_stage2_walk found;
	struct mv_stage2_exit exit;
	unsigned int view;

	open_plain(state);
	if (!rig_is_ept(rig.format)) {
		assert_int_equal(mv_ept_set_convertible(rig.ept, 0, BASE, BASE + PAGE - 1, true),
				 -EINVAL);
		close_rig();
		return;
	}
	ept_rig_region(&rig, BASE, 512, 0);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + 8 * PAGE - 1, RX), 0);
	assert_touch(BASE, READ, MV_EPT_FIXED);
	assert_touch(BASE + PAGE, READ, MV_EPT_FIXED);
	assert_int_equal(mv_ept_set_convertible(rig.ept, 0, BASE + PAGE, BASE + 3 * PAGE - 1, true),
			 0);
	assert_touch(BASE + 2 * PAGE, READ, MV_EPT_FIXED);
	for (uint64_t page = 0; page < 5; page++) {
		assert_int_equal(mv_stage2_walk(&cpu.stage2[0], BASE + page * PAGE, WRITE, &found),
				 0);
		assert_int_equal(found.kind, MV_STAGE2_VIOLATION);
		assert_int_equal(found.suppress_ve, page != 1 && page != 2);
		assert_int_equal(mv_ve_deliver(&area, &found, 0x1234, 5), !found.suppress_ve);
		/* Not before it has been read. */
		assert_false(mv_ve_deliver(&area, &found, 0x1234, 5));
		assert_int_equal(mv_ve_take(&area, rig.features, &exit, &view), !found.suppress_ve);
		if (found.suppress_ve)
			continue;
		assert_int_equal(area.reason, 48);
		assert_int_equal(area.busy, 0);
		assert_int_equal(exit.gpa, BASE + page * PAGE);
		assert_int_equal(view, 5);
		assert_true(exit.access & WRITE);
	}
	assert_int_equal(mv_ept_set_convertible(rig.ept, 0, BASE, BASE + 512 * PAGE - 1, false), 0);
	assert_int_equal(mv_stage2_walk(&cpu.stage2[0], BASE + PAGE, WRITE, &found), 0);
	assert_true(found.suppress_ve);
	close_rig();
}

/* --- sizes ------------------------------------------------------------------------------------ */

static void split_and_collapse_keep_translations(void **state)
{
	open_plain(state);
	ept_rig_region(&rig, BASE, GIB / PAGE, 0);
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_int_equal(walk(0, BASE).page_lg2, 30);
	assert_int_equal(mv_ept_split(rig.ept, BASE + MIB2, BASE + MIB2 + PAGE - 1, 12), 0);
	assert_int_equal(walk(0, BASE).page_lg2, 21);
	assert_int_equal(walk(0, BASE + MIB2).page_lg2, 12);
	assert_int_equal(walk(0, BASE + MIB2 + 5 * PAGE).phys, hpa_at(MIB2 + 5 * PAGE));
	assert_int_equal(mv_ept_split(rig.ept, BASE, BASE + PAGE - 1, 13), -EINVAL);
	assert_int_equal(mv_ept_collapse(rig.ept, BASE, BASE + GIB - 1), 2);
	assert_int_equal(walk(0, BASE + MIB2).page_lg2, 30);
	/* With a hole in it a page stays in parts. */
	assert_int_equal(mv_ept_split(rig.ept, BASE, BASE + GIB - 1, 21), 0);
	assert_int_equal(rig_discard(&rig, BASE + MIB2, BASE + MIB2 + PAGE - 1), 0);
	assert_int_equal(mv_ept_collapse(rig.ept, BASE, BASE + GIB - 1), 0);
	assert_touch(BASE + MIB2, WRITE, MV_EPT_FIXED);
	assert_int_equal(mv_ept_collapse(rig.ept, BASE, BASE + GIB - 1), 1);
	close_rig();
}

static void no_huge_page_is_executable(void **state)
{
	uint64_t flushes;

	open_with(state, (struct ept_rig_options){ .policy = MV_EPT_NX_HUGE });
	ept_rig_region(&rig, BASE, 8 * 512, 0);
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_int_equal(walk(0, BASE).page_lg2, 21);
	assert_false(walk(0, BASE).attr & MV_ATTR_EXEC);
	flushes = rig.flushes;
	assert_touch(BASE + 9 * PAGE, FETCH, MV_EPT_FIXED);
	assert_true(rig.flushes > flushes);
	assert_int_equal(walk(0, BASE + 9 * PAGE).page_lg2, 12);
	assert_true(walk(0, BASE + 9 * PAGE).attr & MV_ATTR_EXEC);
	/* The others are small by now, still mapped, and not executable before they are asked. */
	assert_int_equal(walk(0, BASE).page_lg2, 12);
	assert_false(walk(0, BASE).attr & MV_ATTR_EXEC);
	assert_int_equal(rig_fault(&rig, 0, BASE + 4 * MIB2, FETCH).mapping.page_lg2, 12);
	assert_int_equal(mv_ept_collapse(rig.ept, BASE, BASE + 8 * MIB2 - 1), 1);
	assert_int_equal(walk(0, BASE + 9 * PAGE).page_lg2, 21);
	assert_false(walk(0, BASE + 9 * PAGE).attr & MV_ATTR_EXEC);
	assert_touch(BASE + 9 * PAGE, FETCH, MV_EPT_FIXED);
	close_rig();
}

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
	assert_int_equal(walk(0, BASE + 700 * PAGE).page_lg2, 21);
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
		assert_int_equal(stats().pml_ignored, 1);
		assert_int_equal(mv_ept_pml_drain(rig.ept, log, 0xffff), 1);
		assert_int_equal(stats().pml_ignored, 512);
		assert_int_equal(stats().pml_logged, 1);
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
	static const struct {
		const char *name;
		void (*run)(void **state);
	} cases[] = {
#define CASE(name) { #name, name }
		CASE(a_fault_maps_the_page),
		CASE(the_same_fault_again_is_spurious),
		CASE(where_no_region_is_there_is_mmio),
		CASE(pages_are_as_large_as_all_allow),
		CASE(the_backing_decides_too),
		CASE(a_limit_of_size_is_kept),
		CASE(a_misconfiguration_is_told),
		CASE(prefault_maps_what_faults_would),
		CASE(attached_regions_stay),
		CASE(a_detach_reaches_processors),
		CASE(a_revoke_reaches_all_views_and_processors),
		CASE(a_large_page_is_revoked_whole),
		CASE(what_is_not_mapped_is_not_flushed),
		CASE(a_pinned_page_stays_mapped),
		CASE(a_fault_under_a_revoke_is_to_be_tried_again),
		CASE(types_follow_their_ranges),
		CASE(rights_hold_at_once),
		CASE(rights_can_be_none),
		CASE(rights_that_tables_cannot_say_are_refused),
		CASE(execute_only_pages),
		CASE(modes_have_rights_of_their_own),
		CASE(views_differ_in_rights_only),
		CASE(the_list_names_all_views),
		CASE(violations_become_exceptions_where_allowed),
		CASE(split_and_collapse_keep_translations),
		CASE(no_huge_page_is_executable),
		CASE(dirty_bits_are_harvested),
		CASE(the_rest_of_a_dirty_page_is_kept),
		CASE(a_view_that_goes_leaves_its_record),
		CASE(write_faults_are_harvested),
		CASE(logs_of_processors_are_harvested),
		CASE(tracking_needs_what_it_needs),
		CASE(hostile_logs_do_no_harm),
		CASE(ageing_tells_hot_from_cold),
		CASE(caches_are_told),
		CASE(configs_that_make_no_sense_are_refused),
	};
	static enum mv_format_id formats[] = { MV_FORMAT_EPT_4L, MV_FORMAT_EPT_5L, MV_FORMAT_NPT_4L,
					       MV_FORMAT_NPT_5L };
	static const char *const format_names[] = { "EPT 4", "EPT 5", "NPT 4", "NPT 5" };
	static char names[COUNT_OF(cases) * COUNT_OF(formats)][80];
	struct CMUnitTest tests[COUNT_OF(cases) * COUNT_OF(formats)];
	unsigned int count = 0;

	for (unsigned int f = 0; f < COUNT_OF(formats); f++)
		for (unsigned int i = 0; i < COUNT_OF(cases); i++, count++) {
			snprintf(names[count], sizeof(names[count]), "%s: %s", format_names[f],
				 cases[i].name);
			tests[count] = (struct CMUnitTest){ .name = names[count],
							    .test_func = cases[i].run,
							    .initial_state = &formats[f] };
		}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
