/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stage-2 walk of nested page tables, rule by rule: APM vol. 2, 15.25. Codes are written out,
 * so that they can be compared with the manual.
 */
#include "support/stage2_space.h"
#include "support/testing.h"

#define READ   MV_ACCESS_READ
#define WRITE  MV_ACCESS_WRITE
#define FETCH  MV_ACCESS_FETCH
#define TABLE  MV_ACCESS_GUEST_TABLE
#define USUAL  (MV_FEATURE_1G | MV_FEATURE_NX)
#define MARKED (N_ACCESSED | N_DIRTY)

static struct stage2_space *open_npt(uint32_t features)
{
	return space_open(MV_FORMAT_NPT_4L, features);
}

/* --- translations --------------------------------------------------------------------------- */

static void each_page_size_leads_to_its_address(void **state)
{
	for (unsigned int level = 1; level <= 3; level++) {
		struct stage2_space *space = open_npt(USUAL);
		uint64_t size = 1ULL << (3 + 9 * level);

		space_make_page(space, level);
		space_expect_ok(space, READ);
		assert_int_equal(space->walk.phys, 7 * size + (SPACE_GPA & (size - 1)));
		assert_int_equal(space->walk.page_lg2, 3 + 9 * level);
		space_close(space);
	}
}

static void five_levels_are_walked(void **state)
{
	struct stage2_space *space = space_open(MV_FORMAT_NPT_5L, USUAL);

	space_expect_ok(space, READ);
	assert_int_equal(space->walk.steps, 5);
	assert_int_equal(space->walk.phys, SPACE_PAGE | (SPACE_GPA & 0xfff));
	*space_entry(space, 5) = 0;
	space_expect_violation(space, READ, 0x100000004);
	assert_int_equal(space->walk.level, 5);
	space_close(space);
}

static void the_pat_index_is_the_type(void **state)
{
	struct stage2_space *space = open_npt(USUAL);

	*space_entry(space, 1) |= 1 << 7 | 1 << 3;
	space_expect_ok(space, READ);
	assert_int_equal(MV_ATTR_TYPE_OF(space->walk.attr), 5);
	space_make_page(space, 2);
	*space_entry(space, 2) |= 1 << 12 | 1 << 4;
	space_expect_ok(space, READ);
	assert_int_equal(MV_ATTR_TYPE_OF(space->walk.attr), 6);
	space_close(space);
}

static void an_address_too_wide_for_the_format_is_absent(void **state)
{
	struct stage2_space *space = open_npt(USUAL);
	struct mv_stage2_walk walk;

	assert_int_equal(mv_stage2_walk(&space->stage2, SPACE_GPA | 1ULL << 48, WRITE, &walk), 0);
	assert_int_equal(walk.kind, MV_STAGE2_VIOLATION);
	assert_int_equal(walk.code, 0x100000006);
	assert_int_equal(walk.steps, 0);
	space_close(space);
}

/* --- codes ---------------------------------------------------------------------------------- */

static void absent(void **state)
{
	for (unsigned int level = 1; level <= 4; level++) {
		struct stage2_space *space = open_npt(USUAL);

		*space_entry(space, level) = ~N_P;
		space_expect_violation(space, READ, 0x100000004);
		space_expect_violation(space, WRITE, 0x100000006);
		space_expect_violation(space, FETCH, 0x100000014);
		space_expect_violation(space, TABLE, 0x200000006);
		space_expect_violation(space, TABLE | READ, 0x200000006);
		space_close(space);
	}
}

static void not_a_user_page(void **state)
{
	for (unsigned int level = 1; level <= 4; level++) {
		struct stage2_space *space = open_npt(USUAL);

		*space_entry(space, level) &= ~N_U;
		space_expect_violation(space, READ, 0x100000005);
		space_expect_violation(space, FETCH, 0x100000015);
		space_expect_violation(space, TABLE, 0x200000007);
		space_close(space);
	}
}

static void read_only(void **state)
{
	for (unsigned int level = 1; level <= 4; level++) {
		struct stage2_space *space = open_npt(USUAL);

		*space_entry(space, level) &= ~N_W;
		space_expect_ok(space, READ);
		assert_int_equal(space->walk.attr & MV_ATTR_RIGHTS, MV_ATTR_READ | MV_ATTR_EXEC);
		space_expect_violation(space, WRITE, 0x100000007);
		space_expect_violation(space, TABLE | READ, 0x200000007);
		space_close(space);
	}
}

static void no_execute(void **state)
{
	for (unsigned int level = 1; level <= 4; level++) {
		struct stage2_space *space = open_npt(USUAL);

		*space_entry(space, level) |= N_NX;
		space_expect_ok(space, READ);
		assert_int_equal(space->walk.attr & MV_ATTR_RIGHTS, MV_ATTR_READ | MV_ATTR_WRITE);
		space_expect_violation(space, FETCH, 0x100000015);
		space_close(space);
	}
}

/* A walk of the guest's tables on behalf of a fetch is no fetch. */
static void a_guest_table_is_never_fetched_from(void **state)
{
	struct stage2_space *space = open_npt(USUAL);

	*space_entry(space, 1) |= N_NX;
	space_expect_ok(space, TABLE | FETCH);
	*space_entry(space, 1) = 0;
	space_expect_violation(space, TABLE | FETCH, 0x200000006);
	space_close(space);
}

static void a_shadow_stack_access_is_told(void **state)
{
	struct stage2_space *space = open_npt(USUAL);

	*space_entry(space, 1) = 0;
	space_expect_violation(space, WRITE | MV_ACCESS_SHADOW_STACK, 0x100000046);
	space_close(space);
}

/* --- reserved bits -------------------------------------------------------------------------- */

static void expect_reserved(uint32_t features, unsigned int level, uint64_t bit)
{
	struct stage2_space *space = open_npt(features);

	*space_entry(space, level) |= bit;
	space_expect_misconfigured(space, READ, 0x10000000d);
	space_expect_misconfigured(space, FETCH, 0x10000001d);
	space_expect_misconfigured(space, TABLE, 0x20000000f);
	assert_int_equal(space->walk.level, level);
	space_close(space);
}

static void address_bits_beyond_the_width_are_reserved(void **state)
{
	for (unsigned int level = 1; level <= 4; level++)
		for (unsigned int bit = 46; bit <= 51; bit++)
			expect_reserved(USUAL, level, 1ULL << bit);
}

static void no_execute_is_reserved_while_the_host_has_it_off(void **state)
{
	for (unsigned int level = 1; level <= 4; level++)
		expect_reserved(MV_FEATURE_1G, level, N_NX);
}

static void bits_7_and_8_are_reserved_in_the_upper_levels(void **state)
{
	struct stage2_space *space = open_npt(USUAL);

	expect_reserved(USUAL, 4, 1 << 7);
	expect_reserved(USUAL, 4, 1 << 8);
	*space_entry(space, 3) |= 1 << 8;
	*space_entry(space, 2) |= 1 << 8;
	space_expect_ok(space, READ);
	space_close(space);
}

static void bit_7_is_reserved_without_1_gib_pages(void **state)
{
	expect_reserved(MV_FEATURE_NX, 3, N_PAGE);
}

static void alignment_bits_of_large_pages_are_reserved(void **state)
{
	for (unsigned int level = 2; level <= 3; level++)
		for (unsigned int bit = 13; bit < 3 + 9 * level; bit++) {
			struct stage2_space *space = open_npt(USUAL);

			space_make_page(space, level);
			space_expect_ok(space, READ);
			*space_entry(space, level) |= 1ULL << bit;
			space_expect_misconfigured(space, READ, 0x10000000d);
			space_close(space);
		}
}

static void a_reserved_bit_comes_before_missing_rights(void **state)
{
	struct stage2_space *space = open_npt(USUAL);

	*space_entry(space, 4) &= ~(N_U | N_W);
	*space_entry(space, 1) |= 1ULL << 51;
	space_expect_misconfigured(space, WRITE, 0x10000000f);
	space_close(space);
}

static void keys_and_features_of_ept_mean_nothing(void **state)
{
	struct stage2_space *space =
		open_npt(USUAL | MV_FEATURE_PKEY | MV_FEATURE_VE | MV_FEATURE_MODE_EXEC);

	*space_entry(space, 1) |= 15ULL << 59;
	space_expect_ok(space, READ | WRITE);
	*space_entry(space, 1) = 0x8000000000000400;
	space_expect_violation(space, READ, 0x100000004);
	assert_false(space->walk.suppress_ve);
	space_close(space);
}

/* --- accessed and dirty --------------------------------------------------------------------- */

static void a_walk_sets_accessed_everywhere_and_dirty_in_the_page(void **state)
{
	struct stage2_space *space = open_npt(USUAL);

	space_expect_ok(space, READ);
	for (unsigned int level = 1; level <= 4; level++)
		assert_int_equal(*space_entry(space, level) & MARKED, N_ACCESSED);
	space_expect_ok(space, WRITE);
	assert_int_equal(*space_entry(space, 1) & MARKED, MARKED);
	assert_int_equal(*space_entry(space, 2) & MARKED, N_ACCESSED);
	space_close(space);
}

static void reading_a_guest_table_makes_its_page_dirty(void **state)
{
	struct stage2_space *space = open_npt(USUAL);

	space_expect_ok(space, TABLE | READ);
	assert_int_equal(*space_entry(space, 1) & MARKED, MARKED);
	space_close(space);
}

static void a_fault_sets_nothing(void **state)
{
	struct stage2_space *space = open_npt(USUAL);

	*space_entry(space, 1) &= ~N_W;
	space_expect_violation(space, WRITE, 0x100000007);
	for (unsigned int level = 1; level <= 4; level++)
		assert_int_equal(*space_entry(space, level) & MARKED, 0);
	space_close(space);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_page_size_leads_to_its_address),
		cmocka_unit_test(five_levels_are_walked),
		cmocka_unit_test(the_pat_index_is_the_type),
		cmocka_unit_test(an_address_too_wide_for_the_format_is_absent),
		cmocka_unit_test(absent),
		cmocka_unit_test(not_a_user_page),
		cmocka_unit_test(read_only),
		cmocka_unit_test(no_execute),
		cmocka_unit_test(a_guest_table_is_never_fetched_from),
		cmocka_unit_test(a_shadow_stack_access_is_told),
		cmocka_unit_test(address_bits_beyond_the_width_are_reserved),
		cmocka_unit_test(no_execute_is_reserved_while_the_host_has_it_off),
		cmocka_unit_test(bits_7_and_8_are_reserved_in_the_upper_levels),
		cmocka_unit_test(bit_7_is_reserved_without_1_gib_pages),
		cmocka_unit_test(alignment_bits_of_large_pages_are_reserved),
		cmocka_unit_test(a_reserved_bit_comes_before_missing_rights),
		cmocka_unit_test(keys_and_features_of_ept_mean_nothing),
		cmocka_unit_test(a_walk_sets_accessed_everywhere_and_dirty_in_the_page),
		cmocka_unit_test(reading_a_guest_table_makes_its_page_dirty),
		cmocka_unit_test(a_fault_sets_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
