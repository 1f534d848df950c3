/* SPDX-License-Identifier: BSD-2-Clause */
/* What a stage-2 space promises to a VMM: rights, views, #VE, sizes of pages. */
#include "support/ept_contract.h"

/* --- rights and views ------------------------------------------------------------------------- */

static void rights_hold_at_once(void **state)
{
	struct mv_stage2_exit exit;
	uint64_t hpa;
	uint32_t rights;

	open_plain(state);
	ept_rig_region(&rig, BASE, 4 * 512, 0);
	assert_touch(BASE, WRITE, MV_EPT_FIXED);
	assert_int_equal(leaf_at(0, BASE).page_lg2, 21);
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

/* --- a fault in the middle of a change ------------------------------------------------------- */

static struct mv_platform_ops hooked_ops;
static bool hook_armed;
static enum mv_ept_fault_kind kind_within;

/* What is recorded of ranges is being merged, and a part of it cannot be read for a moment. */
static void hooked_wait_readers(void *ctx)
{
	struct mv_stage2_exit exit = rig_exit(BASE + 5 * PAGE, WRITE);
	struct mv_ept_outcome outcome;

	if (hook_armed) {
		hook_armed = false;
		insist(!mv_ept_fault(rig.ept, 0, &exit, &outcome));
		kind_within = outcome.kind;
	}
	rig.guest.fake.platform.ops->wait_readers(ctx);
}

static void nobody_goes_by_rights_that_are_being_rewritten(void **state)
{
	struct mv_ept_config config = { .size = sizeof(config),
					.format = format_of(state),
					.features = rig_is_ept(format_of(state)) ? RIG_EPT_FEATURES
										 : RIG_NPT_FEATURES,
					.maxphyaddr = 52,
					.node = -1 };

	memset(&rig, 0, sizeof(rig));
	guest_init(&rig.guest, 1024 * PAGE);
	hooked_ops = *rig.guest.fake.platform.ops;
	hooked_ops.wait_readers = hooked_wait_readers;
	rig.guest.memory->platform.ops = &hooked_ops;
	config.memory = rig.guest.memory;
	assert_int_equal(mv_ept_create(&config, &rig.ept), 0);
	assert_int_equal(guest_add(&rig.guest, BASE, 512, 0), 0);
	assert_int_equal(mv_ept_attach(rig.ept, BASE), 0);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + 256 * PAGE - 1, RX), 0);
	/* The two halves become one record of 2 MiB. */
	hook_armed = true;
	kind_within = MV_EPT_FAULT_KINDS;
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE + 256 * PAGE, BASE + 512 * PAGE - 1, RX),
			 0);
	assert_int_equal(kind_within, MV_EPT_RETRY);
	assert_int_equal(leaf_at(0, BASE + 5 * PAGE).page_lg2, 0);
	assert_int_equal(rig_fault(&rig, 0, BASE + 5 * PAGE, WRITE).kind, MV_EPT_PROTECTED);
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
	assert_int_equal(leaf_at(0, BASE).page_lg2, 0);
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
	assert_int_equal(leaf_at(0, BASE).attr & MV_ATTR_RIGHTS, R | MV_ATTR_EXEC_USER);
	assert_int_equal(rig_fault(&rig, 0, BASE + PAGE, FETCH).kind, MV_EPT_FIXED);
	assert_int_equal(leaf_at(0, BASE + PAGE).attr & MV_ATTR_RIGHTS, RIG_ALL);
	close_rig();
}

/*
 * Without EXIT_INFO the rights that the entry granted tell whose fetch it was: it asked for the
 * other one. To call such a fetch spurious would repeat it for ever.
 */
static void a_refused_fetch_tells_whose_it_was(void **state)
{
	struct mv_ept_outcome outcome;
	struct mv_stage2_exit exit;
	uint64_t hpa;

	if (!rig_is_ept(format_of(state)))
		return;
	open_with(state, (struct ept_rig_options){ .features = MV_FEATURE_ACCESSED |
								 MV_FEATURE_MODE_EXEC });
	ept_rig_region(&rig, BASE, 512, 0);
	assert_int_equal(mv_ept_protect(rig.ept, 0, BASE, BASE + PAGE - 1, R | MV_ATTR_EXEC_USER),
			 0);
	assert_touch(BASE, READ, MV_EPT_FIXED);
	assert_false(sim_cpu_access(&cpu, BASE, FETCH, &hpa, &exit));
	assert_int_equal(mv_ept_fault(rig.ept, 0, &exit, &outcome), 0);
	assert_int_equal(outcome.kind, MV_EPT_PROTECTED);
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
	assert_int_equal(leaf_at(none, BASE + MIB2).page_lg2, 21);
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
	assert_int_equal(leaf_at(0, BASE).page_lg2, 30);
	assert_int_equal(mv_ept_split(rig.ept, BASE + MIB2, BASE + MIB2 + PAGE - 1, 12), 0);
	assert_int_equal(leaf_at(0, BASE).page_lg2, 21);
	assert_int_equal(leaf_at(0, BASE + MIB2).page_lg2, 12);
	assert_int_equal(leaf_at(0, BASE + MIB2 + 5 * PAGE).phys, hpa_at(MIB2 + 5 * PAGE));
	assert_int_equal(mv_ept_split(rig.ept, BASE, BASE + PAGE - 1, 13), -EINVAL);
	assert_int_equal(mv_ept_collapse(rig.ept, BASE, BASE + GIB - 1), 2);
	assert_int_equal(leaf_at(0, BASE + MIB2).page_lg2, 30);
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
	assert_int_equal(leaf_at(0, BASE).page_lg2, 21);
	assert_false(leaf_at(0, BASE).attr & MV_ATTR_EXEC);
	flushes = rig.flushes;
	assert_touch(BASE + 9 * PAGE, FETCH, MV_EPT_FIXED);
	assert_true(rig.flushes > flushes);
	assert_int_equal(leaf_at(0, BASE + 9 * PAGE).page_lg2, 12);
	assert_true(leaf_at(0, BASE + 9 * PAGE).attr & MV_ATTR_EXEC);
	/* The others are small by now, still mapped, and not executable before they are asked. */
	assert_int_equal(leaf_at(0, BASE).page_lg2, 12);
	assert_false(leaf_at(0, BASE).attr & MV_ATTR_EXEC);
	assert_int_equal(rig_fault(&rig, 0, BASE + 4 * MIB2, FETCH).mapping.page_lg2, 12);
	assert_int_equal(mv_ept_collapse(rig.ept, BASE, BASE + 8 * MIB2 - 1), 1);
	assert_int_equal(leaf_at(0, BASE + 9 * PAGE).page_lg2, 21);
	assert_false(leaf_at(0, BASE + 9 * PAGE).attr & MV_ATTR_EXEC);
	assert_touch(BASE + 9 * PAGE, FETCH, MV_EPT_FIXED);
	close_rig();
}

int main(void)
{
	static const struct ept_case cases[] = {
		EPT_CASE(rights_hold_at_once),
		EPT_CASE(nobody_goes_by_rights_that_are_being_rewritten),
		EPT_CASE(rights_can_be_none),
		EPT_CASE(rights_that_tables_cannot_say_are_refused),
		EPT_CASE(execute_only_pages),
		EPT_CASE(modes_have_rights_of_their_own),
		EPT_CASE(a_refused_fetch_tells_whose_it_was),
		EPT_CASE(views_differ_in_rights_only),
		EPT_CASE(the_list_names_all_views),
		EPT_CASE(violations_become_exceptions_where_allowed),
		EPT_CASE(split_and_collapse_keep_translations),
		EPT_CASE(no_huge_page_is_executable),
	};

	return ept_cases_run(cases, COUNT_OF(cases));
}
