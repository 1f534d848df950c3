/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stage-2 walk of EPT, rule by rule: SDM vol. 3, 29.3 and table 28-7. Codes are written out,
 * so that they can be compared with the manual's table.
 */
#include "support/stage2_space.h"
#include "support/testing.h"

#define ALL_PAGES (MV_FEATURE_2M | MV_FEATURE_1G)
#define READ	  MV_ACCESS_READ
#define WRITE	  MV_ACCESS_WRITE
#define FETCH	  MV_ACCESS_FETCH
#define USER	  MV_ACCESS_USER
#define LINEAR	  MV_ACCESS_LINEAR
#define TABLE	  (MV_ACCESS_GUEST_TABLE | MV_ACCESS_LINEAR)

static struct stage2_space *open_ept(uint32_t features)
{
	return space_open(MV_FORMAT_EPT_4L, features);
}

/* --- translations --------------------------------------------------------------------------- */

static void each_page_size_leads_to_its_address(void **state)
{
	for (unsigned int level = 1; level <= 3; level++) {
		struct stage2_space *space = open_ept(ALL_PAGES);
		uint64_t size = 1ULL << (3 + 9 * level);

		space_make_page(space, level);
		space_expect_ok(space, READ);
		assert_int_equal(space->walk.phys, 7 * size + (SPACE_GPA & (size - 1)));
		assert_int_equal(space->walk.page_lg2, 3 + 9 * level);
		assert_int_equal(space->walk.level, level);
		assert_int_equal(MV_ATTR_TYPE_OF(space->walk.attr), MV_TYPE_WB);
		space_close(space);
	}
}

static void steps_are_the_entries_read(void **state)
{
	struct stage2_space *space = space_open(MV_FORMAT_EPT_5L, 0);

	space_expect_ok(space, READ);
	assert_int_equal(space->walk.steps, 5);
	for (unsigned int i = 0; i < 5; i++) {
		uintptr_t base = (uintptr_t)space->page;

		assert_int_equal(space->walk.step[i].level, 5 - i);
		assert_int_equal(space->walk.step[i].entry, *space_entry(space, 5 - i));
		assert_int_equal(space->walk.step[i].gpa,
				 (uintptr_t)space_entry(space, 5 - i) - base);
	}
	space_close(space);
}

static void rights_are_those_of_all_levels_together(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_EXEC_ONLY);

	*space_entry(space, 4) &= ~E_W;
	*space_entry(space, 2) &= ~E_X;
	space_expect_ok(space, READ);
	assert_int_equal(space->walk.attr & MV_ATTR_RIGHTS, MV_ATTR_READ);
	space_expect_violation(space, WRITE, 0x0a);
	space_expect_violation(space, FETCH, 0x0c);
	space_close(space);
}

static void a_look_asks_no_rights_and_sets_nothing(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_ACCESSED | MV_FEATURE_EXEC_ONLY);

	*space_entry(space, 1) = SPACE_PAGE | E_X | E_WB;
	space_expect_ok(space, LINEAR);
	assert_int_equal(*space_entry(space, 1), SPACE_PAGE | E_X | E_WB);
	space_close(space);
}

static void an_address_too_wide_for_the_format_is_absent(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_VE);
	struct mv_stage2_walk walk;

	assert_int_equal(
		mv_stage2_walk(&space->stage2, SPACE_GPA | 1ULL << 48, READ | LINEAR, &walk), 0);
	assert_int_equal(walk.kind, MV_STAGE2_VIOLATION);
	assert_int_equal(walk.code, 0x181);
	assert_int_equal(walk.steps, 0);
	assert_true(walk.suppress_ve);
	assert_int_equal(walk.level, 4);
	space_close(space);
	space = space_open(MV_FORMAT_EPT_5L, 0);
	assert_int_equal(mv_stage2_walk(&space->stage2, SPACE_GPA | 1ULL << 57, READ, &walk), 0);
	assert_int_equal(walk.code, 0x1);
	assert_false(walk.suppress_ve);
	space_close(space);
}

/* --- absent --------------------------------------------------------------------------------- */

static void absent_is_a_violation_without_rights_at_every_level(void **state)
{
	for (unsigned int level = 1; level <= 4; level++) {
		struct stage2_space *space = open_ept(ALL_PAGES);

		*space_entry(space, level) = 0;
		space_expect_violation(space, READ | LINEAR, 0x181);
		space_expect_violation(space, WRITE | LINEAR, 0x182);
		space_expect_violation(space, FETCH | LINEAR, 0x184);
		assert_int_equal(space->walk.level, level);
		assert_int_equal(space->walk.steps, 5 - level);
		space_close(space);
	}
}

static void an_absent_entry_ignores_its_other_bits(void **state)
{
	for (unsigned int level = 1; level <= 4; level++) {
		struct stage2_space *space = open_ept(ALL_PAGES);

		*space_entry(space, level) = ~E_RWX;
		space_expect_violation(space, READ, 0x1);
		space_close(space);
	}
}

/* --- misconfigurations ---------------------------------------------------------------------- */

static void expect_misconfigured_with(uint32_t features, unsigned int level, uint64_t clear,
				      uint64_t set)
{
	struct stage2_space *space = open_ept(features);

	*space_entry(space, level) = (*space_entry(space, level) & ~clear) | set;
	space_expect_misconfigured(space, READ | LINEAR, 0);
	assert_int_equal(space->walk.level, level);
	space_close(space);
}

static void write_without_read_is_misconfigured(void **state)
{
	for (unsigned int level = 1; level <= 4; level++) {
		expect_misconfigured_with(MV_FEATURE_EXEC_ONLY, level, E_R, 0);
		expect_misconfigured_with(MV_FEATURE_EXEC_ONLY, level, E_R | E_X, 0);
		expect_misconfigured_with(MV_FEATURE_EXEC_ONLY | MV_FEATURE_MODE_EXEC, level,
					  E_R | E_X, E_XU);
	}
}

static void execute_only_needs_the_capability(void **state)
{
	for (unsigned int level = 1; level <= 4; level++) {
		struct stage2_space *space = open_ept(MV_FEATURE_EXEC_ONLY);

		expect_misconfigured_with(0, level, E_R | E_W, 0);
		*space_entry(space, level) &= ~(E_R | E_W);
		space_expect_ok(space, FETCH);
		space_expect_violation(space, READ, 0x21);
		space_close(space);
	}
}

static void bit_10_alone_is_present_with_mode_based_execute(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_EXEC_ONLY | MV_FEATURE_MODE_EXEC);

	for (unsigned int level = 1; level <= 4; level++)
		*space_entry(space, level) |= E_XU;
	*space_entry(space, 1) = SPACE_PAGE | E_XU | E_WB;
	space_expect_ok(space, FETCH | USER);
	space_expect_violation(space, FETCH, 0x44);
	space_close(space);
	expect_misconfigured_with(MV_FEATURE_MODE_EXEC, 1, E_RWX, E_XU);
}

static void bit_10_is_ignored_without_mode_based_execute(void **state)
{
	struct stage2_space *space = open_ept(0);

	*space_entry(space, 1) = E_XU;
	space_expect_violation(space, FETCH | USER, 0x4);
	*space_entry(space, 1) = SPACE_PAGE | E_R | E_XU | E_WB;
	space_expect_violation(space, FETCH | USER, 0xc);
	space_close(space);
}

static void address_bits_beyond_the_width_are_reserved(void **state)
{
	for (unsigned int level = 1; level <= 4; level++)
		for (unsigned int bit = 46; bit <= 51; bit++)
			expect_misconfigured_with(ALL_PAGES, level, 0, 1ULL << bit);
}

static void type_bits_are_reserved_in_entries_that_point_to_tables(void **state)
{
	for (unsigned int level = 2; level <= 4; level++)
		for (unsigned int bit = 3; bit <= 6; bit++)
			expect_misconfigured_with(ALL_PAGES, level, 0, 1ULL << bit);
}

static void bit_7_is_reserved_where_there_are_no_such_pages(void **state)
{
	expect_misconfigured_with(MV_FEATURE_1G, 2, 0, E_PAGE);
	expect_misconfigured_with(MV_FEATURE_2M, 3, 0, E_PAGE);
	expect_misconfigured_with(ALL_PAGES, 4, 0, E_PAGE);
}

static void alignment_bits_of_large_pages_are_reserved(void **state)
{
	for (unsigned int level = 2; level <= 3; level++)
		for (unsigned int bit = 12; bit < 3 + 9 * level; bit++) {
			struct stage2_space *space = open_ept(ALL_PAGES);

			space_make_page(space, level);
			space_expect_ok(space, READ);
			*space_entry(space, level) |= 1ULL << bit;
			space_expect_misconfigured(space, READ, 0);
			space_close(space);
		}
}

static void memory_types_2_3_and_7_are_reserved(void **state)
{
	for (unsigned int level = 1; level <= 3; level++)
		for (unsigned int type = 0; type < 8; type++) {
			struct stage2_space *space = open_ept(ALL_PAGES);

			space_make_page(space, level);
			*space_entry(space, level) ^= (uint64_t)(type ^ 6) << 3;
			if (type == 2 || type == 3 || type == 7)
				space_expect_misconfigured(space, READ, 0);
			else
				space_expect_ok(space, READ);
			space_close(space);
		}
}

static void a_misconfiguration_comes_before_missing_rights(void **state)
{
	struct stage2_space *space = open_ept(0);

	*space_entry(space, 4) &= ~(E_W | E_X);
	*space_entry(space, 1) |= E_WB | 1 << 3;
	space_expect_misconfigured(space, WRITE | LINEAR, 0);
	space_close(space);
}

static void ignored_bits_change_nothing(void **state)
{
	uint64_t ignored = 0xfffULL << 52 | E_ACCESSED | E_DIRTY | E_XU | 1 << 11;
	struct stage2_space *space = open_ept(ALL_PAGES);

	for (unsigned int level = 1; level <= 4; level++)
		*space_entry(space, level) |= ignored;
	space_expect_ok(space, READ | WRITE);
	assert_int_equal(space->walk.phys, SPACE_PAGE | (SPACE_GPA & 0xfff));
	assert_int_equal(space->walk.attr & (MV_ATTR_ACCESSED | MV_ATTR_DIRTY |
					     MV_ATTR_SUPPRESS_VE | MV_ATTR_EXEC_USER),
			 0);
	space_close(space);
}

/* --- qualification -------------------------------------------------------------------------- */

static void bits_7_and_8_tell_of_the_linear_address(void **state)
{
	struct stage2_space *space = open_ept(0);

	*space_entry(space, 1) = 0;
	space_expect_violation(space, READ, 0x001);
	space_expect_violation(space, READ | LINEAR, 0x181);
	space_expect_violation(space, READ | TABLE, 0x081);
	space_expect_violation(space, TABLE, 0x081);
	space_expect_violation(space, WRITE | TABLE, 0x082);
	space_expect_violation(space, READ | WRITE | LINEAR, 0x183);
	space_expect_violation(space, WRITE | LINEAR | MV_ACCESS_SHADOW_STACK, 0x2182);
	space_close(space);
}

static void mode_based_execute_separates_user_and_supervisor_fetches(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_MODE_EXEC);

	for (unsigned int level = 1; level <= 4; level++)
		*space_entry(space, level) |= E_XU;
	*space_entry(space, 1) &= ~E_X;
	space_expect_ok(space, FETCH | USER);
	assert_int_equal(space->walk.attr & MV_ATTR_RIGHTS,
			 MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC_USER);
	space_expect_violation(space, FETCH | LINEAR, 0x1dc);
	*space_entry(space, 1) ^= E_X | E_XU;
	space_expect_ok(space, FETCH);
	space_expect_violation(space, FETCH | LINEAR | USER, 0x1bc);
	space_close(space);
}

static void exit_information_tells_what_the_guest_grants(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_EXIT_INFO);
	unsigned int told = USER | MV_ACCESS_GUEST_WRITABLE | MV_ACCESS_GUEST_NO_EXEC;

	*space_entry(space, 1) = 0;
	space_expect_violation(space, READ | LINEAR | told, 0xf81);
	space_expect_violation(space, READ | LINEAR | USER, 0x381);
	space_expect_violation(space, READ | TABLE | told, 0x081);
	space_expect_violation(space, READ | told, 0x001);
	space_close(space);
	space = open_ept(0);
	*space_entry(space, 1) = 0;
	space_expect_violation(space, READ | LINEAR | told, 0x181);
	space_close(space);
}

static void suppress_ve_is_that_of_the_entry_that_decides(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_VE);

	*space_entry(space, 3) |= E_NO_VE;
	*space_entry(space, 1) = 0;
	assert_false(space_walk(space, READ)->suppress_ve);
	*space_entry(space, 1) = E_NO_VE;
	assert_true(space_walk(space, READ)->suppress_ve);
	*space_entry(space, 1) = SPACE_PAGE | E_R | E_WB | E_NO_VE;
	assert_true(space_walk(space, WRITE)->suppress_ve);
	*space_entry(space, 1) &= ~E_NO_VE;
	assert_false(space_walk(space, WRITE)->suppress_ve);
	space_close(space);
	space = open_ept(0);
	*space_entry(space, 1) = E_NO_VE;
	assert_false(space_walk(space, READ)->suppress_ve);
	space_close(space);
}

/* --- accessed and dirty --------------------------------------------------------------------- */

static void a_walk_sets_accessed_everywhere_and_dirty_in_the_page(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_ACCESSED);

	space_expect_ok(space, READ);
	for (unsigned int level = 1; level <= 4; level++)
		assert_int_equal(*space_entry(space, level) & (E_ACCESSED | E_DIRTY), E_ACCESSED);
	assert_int_equal(space->walk.attr & (MV_ATTR_ACCESSED | MV_ATTR_DIRTY), MV_ATTR_ACCESSED);
	assert_int_equal(space->walk.step[3].entry, SPACE_PAGE | E_RWX | E_WB);
	space_expect_ok(space, WRITE);
	assert_int_equal(*space_entry(space, 1), SPACE_PAGE | E_RWX | E_WB | E_ACCESSED | E_DIRTY);
	assert_int_equal(*space_entry(space, 2) & E_DIRTY, 0);
	assert_true(space->walk.attr & MV_ATTR_DIRTY);
	space_close(space);
}

static void nothing_is_set_where_it_must_not_be(void **state)
{
	struct stage2_space *space = open_ept(0);

	space_expect_ok(space, WRITE);
	assert_int_equal(*space_entry(space, 1), SPACE_PAGE | E_RWX | E_WB);
	space_close(space);
	space = open_ept(MV_FEATURE_ACCESSED);
	space_expect_ok(space, WRITE | MV_ACCESS_NO_UPDATE);
	*space_entry(space, 1) &= ~E_W;
	space_expect_violation(space, WRITE, 0x2a);
	assert_int_equal(*space_entry(space, 1), SPACE_PAGE | E_R | E_X | E_WB);
	assert_int_equal(*space_entry(space, 4) & E_ACCESSED, 0);
	space_close(space);
}

static void with_accessed_flags_a_guest_table_is_written(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_ACCESSED);

	space_expect_ok(space, READ | TABLE);
	assert_true(*space_entry(space, 1) & E_DIRTY);
	*space_entry(space, 1) = SPACE_PAGE | E_R | E_X | E_WB;
	space_expect_violation(space, READ | TABLE, 0x0ab);
	*space_entry(space, 1) = 0;
	space_expect_violation(space, TABLE, 0x083);
	space_close(space);
}

static void without_them_reading_a_guest_table_needs_read(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_EXEC_ONLY);

	*space_entry(space, 1) = SPACE_PAGE | E_R | E_WB;
	space_expect_ok(space, READ | TABLE);
	space_expect_ok(space, TABLE);
	space_expect_violation(space, WRITE | TABLE, 0x08a);
	*space_entry(space, 1) = SPACE_PAGE | E_X | E_WB;
	space_expect_violation(space, TABLE, 0x0a1);
	space_close(space);
}

static void a_load_of_pdptes_is_a_read(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_ACCESSED);

	space_expect_ok(space, READ);
	assert_int_equal(*space_entry(space, 1) & E_DIRTY, 0);
	*space_entry(space, 1) = 0;
	space_expect_violation(space, READ, 0x001);
	space_close(space);
}

/* --- accessors ------------------------------------------------------------------------------ */

static void an_accessor_serves_the_same_walk(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_ACCESSED);

	space_use_accessor(space, true);
	space_expect_ok(space, WRITE);
	assert_int_equal(space->walk.phys, SPACE_PAGE | (SPACE_GPA & 0xfff));
	assert_int_equal(*space_entry(space, 1), SPACE_PAGE | E_RWX | E_WB | E_ACCESSED | E_DIRTY);
	assert_int_equal(space->reads, 4);
	assert_int_equal(space->changes, 4);
	space_expect_ok(space, WRITE);
	assert_int_equal(space->changes, 4);
	space_close(space);
}

static void an_accessor_that_cannot_change_leaves_bits_alone(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_ACCESSED);

	space_use_accessor(space, false);
	space_expect_ok(space, WRITE);
	assert_int_equal(*space_entry(space, 1), SPACE_PAGE | E_RWX | E_WB);
	space_close(space);
}

static void what_an_accessor_returns_ends_the_walk(void **state)
{
	struct stage2_space *space = open_ept(0);
	struct mv_stage2_walk before, walk;

	space_use_accessor(space, true);
	space->error = -EFAULT;
	memset(&before, 0x5a, sizeof(before));
	for (unsigned int n = 1; n <= 4; n++) {
		space->reads = 0;
		space->fail_read = n;
		walk = before;
		assert_int_equal(mv_stage2_walk(&space->stage2, SPACE_GPA, READ, &walk), -EFAULT);
		assert_memory_equal(&walk, &before, sizeof(walk));
	}
	space_close(space);
}

static void a_walk_starts_again_where_an_entry_changed(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_ACCESSED);

	/* Somebody takes the right to write away just when accessed is to be set at the root. */
	space_use_accessor(space, true);
	space->disturb = 1;
	space->disturb_xor = E_W;
	space_expect_violation(space, WRITE | LINEAR, 0x1aa);
	assert_int_equal(space->reads, 8);
	assert_int_equal(*space_entry(space, 1), SPACE_PAGE | E_RWX | E_WB);
	space_close(space);
}

static void a_walk_gives_up_where_entries_change_for_ever(void **state)
{
	struct stage2_space *space = open_ept(MV_FEATURE_ACCESSED);
	struct mv_stage2_walk before, walk;

	memset(&before, 0x5a, sizeof(before));
	walk = before;
	space_use_accessor(space, true);
	space->disturb = ~0u;
	assert_int_equal(mv_stage2_walk(&space->stage2, SPACE_GPA, READ, &walk), -EAGAIN);
	assert_memory_equal(&walk, &before, sizeof(walk));
	assert_true(space->reads >= 40);
	space_close(space);
}

/* --- preparation ---------------------------------------------------------------------------- */

static void expect_invalid(struct mv_stage2_config config)
{
	struct mv_stage2 stage2 = { .root = 1 };

	assert_int_equal(mv_stage2_init(&stage2, &config), -EINVAL);
	assert_int_equal(stage2.root, 1);
}

static void a_config_that_is_not_valid_is_refused(void **state)
{
	struct stage2_space *space = open_ept(0);
	struct mv_stage2_config good = space->config, bad;

	bad = good, bad.size--;
	expect_invalid(bad);
	bad = good, bad.format = MV_FORMAT_X86_5L;
	expect_invalid(bad);
	bad = good, bad.format = MV_FORMATS;
	expect_invalid(bad);
	bad = good, bad.maxphyaddr = 31;
	expect_invalid(bad);
	bad = good, bad.maxphyaddr = 53;
	expect_invalid(bad);
	bad = good, bad.root |= 8;
	expect_invalid(bad);
	bad = good, bad.root = 1ULL << 46;
	expect_invalid(bad);
	space_use_accessor(space, true);
	bad = space->config, bad.accessor.read = NULL;
	expect_invalid(bad);
	assert_int_equal(mv_stage2_init(&space->stage2, NULL), -EINVAL);
	space_close(space);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_page_size_leads_to_its_address),
		cmocka_unit_test(steps_are_the_entries_read),
		cmocka_unit_test(rights_are_those_of_all_levels_together),
		cmocka_unit_test(a_look_asks_no_rights_and_sets_nothing),
		cmocka_unit_test(an_address_too_wide_for_the_format_is_absent),
		cmocka_unit_test(absent_is_a_violation_without_rights_at_every_level),
		cmocka_unit_test(an_absent_entry_ignores_its_other_bits),
		cmocka_unit_test(write_without_read_is_misconfigured),
		cmocka_unit_test(execute_only_needs_the_capability),
		cmocka_unit_test(bit_10_alone_is_present_with_mode_based_execute),
		cmocka_unit_test(bit_10_is_ignored_without_mode_based_execute),
		cmocka_unit_test(address_bits_beyond_the_width_are_reserved),
		cmocka_unit_test(type_bits_are_reserved_in_entries_that_point_to_tables),
		cmocka_unit_test(bit_7_is_reserved_where_there_are_no_such_pages),
		cmocka_unit_test(alignment_bits_of_large_pages_are_reserved),
		cmocka_unit_test(memory_types_2_3_and_7_are_reserved),
		cmocka_unit_test(a_misconfiguration_comes_before_missing_rights),
		cmocka_unit_test(ignored_bits_change_nothing),
		cmocka_unit_test(bits_7_and_8_tell_of_the_linear_address),
		cmocka_unit_test(mode_based_execute_separates_user_and_supervisor_fetches),
		cmocka_unit_test(exit_information_tells_what_the_guest_grants),
		cmocka_unit_test(suppress_ve_is_that_of_the_entry_that_decides),
		cmocka_unit_test(a_walk_sets_accessed_everywhere_and_dirty_in_the_page),
		cmocka_unit_test(nothing_is_set_where_it_must_not_be),
		cmocka_unit_test(with_accessed_flags_a_guest_table_is_written),
		cmocka_unit_test(without_them_reading_a_guest_table_needs_read),
		cmocka_unit_test(a_load_of_pdptes_is_a_read),
		cmocka_unit_test(an_accessor_serves_the_same_walk),
		cmocka_unit_test(an_accessor_that_cannot_change_leaves_bits_alone),
		cmocka_unit_test(what_an_accessor_returns_ends_the_walk),
		cmocka_unit_test(a_walk_starts_again_where_an_entry_changed),
		cmocka_unit_test(a_walk_gives_up_where_entries_change_for_ever),
		cmocka_unit_test(a_config_that_is_not_valid_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
