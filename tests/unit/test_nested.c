/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nested walk rule by rule: which fault comes first, how each access to a guest table counts,
 * what PDPTEs are, how sizes, rights and memory types of both stages combine.
 */
#include "support/nested_guest.h"
#include "support/testing.h"

#define READ	  (MV_ACCESS_READ | MV_ACCESS_USER)
#define WRITE	  (MV_ACCESS_WRITE | MV_ACCESS_USER)
#define FETCH	  (MV_ACCESS_FETCH | MV_ACCESS_USER)
#define PRESENT_W (MV_PF_PRESENT | MV_PF_WRITE | MV_PF_USER)

static struct nested_guest guest;

static void open_guest(enum mv_format_id format2, uint32_t features2)
{
	nested_guest_open(&guest, format2, features2, false);
}

static struct mv_nested_walk walk(uint64_t gva, unsigned int access)
{
	struct mv_nested_walk made = { 0 };

	assert_int_equal(mv_nested_walk(&guest.world.nested, gva, access, &made), 0);
	return made;
}

static void expect_page_fault(uint64_t gva, unsigned int access, uint32_t code)
{
	struct mv_nested_walk made = walk(gva, access);

	assert_int_equal(made.kind, MV_NESTED_PAGE_FAULT);
	assert_int_equal(made.error_code, code);
}

static void expect_stage2(uint64_t gva, unsigned int access, uint64_t gpa, uint64_t code,
			  bool guest_table)
{
	struct mv_nested_walk made = walk(gva, access);

	assert_int_equal(made.kind, MV_NESTED_STAGE2);
	assert_int_equal(made.stage2_kind, MV_STAGE2_VIOLATION);
	assert_int_equal(made.gpa, gpa);
	assert_int_equal(made.code, code);
	assert_int_equal(made.guest_table, guest_table);
}

static void forbid(uint64_t gpa, uint64_t bits)
{
	*nested_guest_stage2(&guest, gpa) &= ~bits;
}

/* --- the order of faults -----------------------------------------------------------------------
 */

static void a_guest_permission_fault_precedes_a_violation_of_the_final_address(void **state)
{
	open_guest(MV_FORMAT_EPT_4L, 0);
	nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | (GUEST_ENTRY & ~2ull));
	forbid(GUEST_DATA, 7);
	expect_page_fault(0, WRITE, PRESENT_W);
	expect_stage2(0, READ, GUEST_DATA, 0x181, false);
	nested_guest_close(&guest);
}

static void a_violation_of_a_table_precedes_what_its_entry_says(void **state)
{
	uint64_t table;

	open_guest(MV_FORMAT_EPT_4L, 0);
	table = nested_guest_map(&guest, 0, 0x1000, 1, 0);
	expect_page_fault(0x1000, READ, MV_PF_USER);
	forbid(table, 7);
	expect_stage2(0x1000, READ, table + 8, 0x81, true);
	nested_guest_close(&guest);
}

static void an_absent_upper_entry_precedes_a_violation_of_a_lower_table(void **state)
{
	uint64_t table, upper;

	open_guest(MV_FORMAT_EPT_4L, 0);
	table = nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | GUEST_ENTRY);
	upper = nested_guest_next(&guest, guest.root[0], 4, 0);
	forbid(table, 7);
	*nested_guest_entry(&guest, upper, 3, 0) &= ~1ull;
	expect_page_fault(0, READ, MV_PF_USER);
	nested_guest_close(&guest);
}

static void accessed_is_set_through_stage_2_before_the_final_address(void **state)
{
	uint64_t table;

	open_guest(MV_FORMAT_EPT_4L, 0);
	table = nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | (GUEST_ENTRY & ~0x20ull));
	forbid(GUEST_DATA, 7);
	/* A read-only table can be read, but not have a flag set. */
	forbid(table, 2);
	expect_stage2(0, READ, table, 0x80 | 2 | 5 << 3, true);
	*nested_guest_entry(&guest, table, 1, 0) |= 0x20;
	expect_stage2(0, READ, GUEST_DATA, 0x181, false);
	nested_guest_close(&guest);
}

static void a_refused_access_sets_nothing(void **state)
{
	uint64_t table, leaf = GUEST_DATA | (GUEST_ENTRY & ~0x62ull);

	open_guest(MV_FORMAT_EPT_4L, MV_FEATURE_ACCESSED);
	table = nested_guest_map(&guest, 0, 0, 1, leaf);
	forbid(GUEST_DATA, 0x300);
	expect_page_fault(0, WRITE, PRESENT_W);
	assert_int_equal(*nested_guest_entry(&guest, table, 1, 0), leaf);
	assert_int_equal(*nested_guest_stage2(&guest, GUEST_DATA) & 0x300, 0);
	nested_guest_close(&guest);
}

static void an_address_that_is_not_canonical_reads_no_table(void **state)
{
	open_guest(MV_FORMAT_EPT_4L, 0);
	forbid(guest.root[0], 7);
	assert_int_equal(walk(1ull << 47, READ).kind, MV_NESTED_NOT_CANONICAL);
	nested_guest_close(&guest);
}

/* --- how accesses count ------------------------------------------------------------------------
 */

static void with_ept_flags_a_table_is_read_and_written(void **state)
{
	uint64_t table;

	open_guest(MV_FORMAT_EPT_4L, MV_FEATURE_ACCESSED);
	table = nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | GUEST_ENTRY);
	forbid(table, 0x300);
	assert_int_equal(walk(0, READ).kind, MV_NESTED_OK);
	assert_int_equal(*nested_guest_stage2(&guest, table) & 0x300, 0x300);
	forbid(table, 2);
	expect_stage2(0, READ, table, 0x83 | 5 << 3, true);
	nested_guest_close(&guest);
}

static void without_ept_flags_reading_a_table_needs_read(void **state)
{
	uint64_t table;

	open_guest(MV_FORMAT_EPT_4L, MV_FEATURE_EXEC_ONLY);
	table = nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | GUEST_ENTRY);
	forbid(table, 2);
	assert_int_equal(walk(0, READ).kind, MV_NESTED_OK);
	forbid(table, 3);
	expect_stage2(0, READ, table, 0x81 | 4 << 3, true);
	nested_guest_close(&guest);
}

static void npt_counts_a_table_as_written_by_a_user(void **state)
{
	uint64_t table;

	open_guest(MV_FORMAT_NPT_4L, 0);
	table = nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | GUEST_ENTRY);
	forbid(table, 2);
	expect_stage2(0, READ, table, 0x200000007, true);
	forbid(table, 1);
	expect_stage2(0, READ, table, 0x200000006, true);
	*nested_guest_stage2(&guest, table) |= 3;
	forbid(GUEST_DATA, 1);
	expect_stage2(0, READ, GUEST_DATA, 0x100000004, false);
	nested_guest_close(&guest);
}

static void a_supervisors_access_is_a_users_to_npt(void **state)
{
	open_guest(MV_FORMAT_NPT_4L, 0);
	nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | (GUEST_ENTRY & ~4ull));
	forbid(GUEST_DATA, 4);
	expect_stage2(0, MV_ACCESS_READ, GUEST_DATA, 0x100000005, false);
	nested_guest_close(&guest);
}

static void mode_based_execute_follows_the_guests_page(void **state)
{
	open_guest(MV_FORMAT_EPT_4L, MV_FEATURE_MODE_EXEC);
	nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | GUEST_ENTRY);
	nested_guest_map(&guest, 0, 0x1000, 1, GUEST_DATA | (GUEST_ENTRY & ~4ull));
	/* Supervisor mode may execute there, user mode may not. */
	expect_stage2(0, FETCH, GUEST_DATA, 0x184 | 7 << 3, false);
	assert_int_equal(walk(0x1000, MV_ACCESS_FETCH).kind, MV_NESTED_OK);
	/* A supervisor at a page of users counts as one. */
	expect_stage2(0, MV_ACCESS_FETCH, GUEST_DATA, 0x184 | 7 << 3, false);
	nested_guest_close(&guest);
}

static void advanced_information_tells_the_guests_rights(void **state)
{
	open_guest(MV_FORMAT_EPT_4L, MV_FEATURE_EXIT_INFO);
	nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | 1ull << 63 | (GUEST_ENTRY & ~4ull));
	forbid(GUEST_DATA, 7);
	expect_stage2(0, MV_ACCESS_READ, GUEST_DATA, 0x181 | 0xc00, false);
	nested_guest_close(&guest);
}

static void translating_only_sets_nothing_and_asks_no_rights(void **state)
{
	uint64_t table, leaf = GUEST_DATA | (GUEST_ENTRY & ~0x66ull);

	open_guest(MV_FORMAT_EPT_4L, MV_FEATURE_ACCESSED);
	table = nested_guest_map(&guest, 0, 0, 1, leaf);
	*nested_guest_stage2(&guest, GUEST_DATA) = GUEST_DATA | 0x31;
	forbid(table, 0x300);
	assert_int_equal(walk(0x123, 0).hpa, GUEST_DATA + 0x123);
	assert_int_equal(*nested_guest_entry(&guest, table, 1, 0), leaf);
	assert_int_equal(*nested_guest_stage2(&guest, table) & 0x300, 0);
	nested_guest_close(&guest);
}

/* --- paging off, PAE
 * ------------------------------------------------------------------------------ */

static void with_paging_off_addresses_are_guest_physical(void **state)
{
	struct mv_nested_walk made;

	open_guest(MV_FORMAT_EPT_4L, MV_FEATURE_EXIT_INFO);
	guest.world.registers = (struct mv_paging_registers){ .cr0 = 1 };
	nested_world_prepare(&guest.world);
	made = walk(GUEST_DATA_2M + 5, WRITE);
	assert_int_equal(made.hpa, GUEST_DATA_2M + 5);
	assert_int_equal(made.page_lg2, 21);
	assert_int_equal(made.type, MV_TYPE_WB);
	forbid(GUEST_DATA, 7);
	/* It counts as a user's page, writable and executable. */
	expect_stage2(GUEST_DATA, MV_ACCESS_READ, GUEST_DATA, 0x181 | 0x600, false);
	nested_guest_close(&guest);
}

/* PDPTEs at 32 bytes into a page, the second of which maps 2 MiB. */
static uint64_t *open_pae(enum mv_format_id format2, uint32_t features2)
{
	uint64_t pdpt, directory, *pdptes;

	open_guest(format2, features2);
	pdpt = nested_guest_table(&guest);
	directory = nested_guest_table(&guest);
	pdptes = nested_guest_entry(&guest, pdpt, 1, 4 * 4096);
	pdptes[1] = directory | 1;
	*nested_guest_entry(&guest, directory, 2, 0) = GUEST_DATA_2M | GUEST_ENTRY | GUEST_LARGE;
	guest.world.registers.cr4 = 0x20;
	guest.world.registers.efer = 0;
	guest.world.registers.cr3 = pdpt | 32;
	nested_world_prepare(&guest.world);
	return pdptes;
}

static struct mv_nested_walk load(void)
{
	struct mv_nested_walk made = { 0 };

	assert_int_equal(mv_nested_load_pdptes(&guest.world.nested, &made), 0);
	return made;
}

static void ept_keeps_pdptes_from_the_load_of_cr3(void **state)
{
	uint64_t *pdptes = open_pae(MV_FORMAT_EPT_4L, MV_FEATURE_ACCESSED), good = pdptes[1];

	expect_page_fault(0x40000000, READ, MV_PF_USER);
	assert_int_equal(load().kind, MV_NESTED_OK);
	assert_int_equal(walk(0x40000000, READ).hpa, GUEST_DATA_2M);
	pdptes[1] = 0;
	assert_int_equal(walk(0x40000000, READ).hpa, GUEST_DATA_2M);
	pdptes[1] = good | 2; /* reserved */
	assert_int_equal(load().kind, MV_NESTED_BAD_PDPTE);
	assert_int_equal(walk(0x40000000, READ).hpa, GUEST_DATA_2M);
	pdptes[1] = 0;
	assert_int_equal(load().kind, MV_NESTED_OK);
	expect_page_fault(0x40000000, READ, MV_PF_USER);
	nested_guest_close(&guest);
}

/* A read, whatever the flags of EPT, without a linear address: SDM vol. 3, 29.3.5. */
static void a_load_of_pdptes_may_violate_stage_2(void **state)
{
	struct mv_nested_walk made;
	uint64_t page;

	open_pae(MV_FORMAT_EPT_4L, MV_FEATURE_ACCESSED);
	page = guest.world.registers.cr3 & ~0xfffull;
	forbid(page, 0x302);
	assert_int_equal(load().kind, MV_NESTED_OK);
	assert_int_equal(*nested_guest_stage2(&guest, page) & 0x300, 0x100);
	forbid(page, 7);
	made = load();
	assert_int_equal(made.kind, MV_NESTED_STAGE2);
	assert_int_equal(made.code, 1);
	assert_int_equal(made.gpa, page + 32);
	nested_guest_close(&guest);
}

static void npt_reads_pdptes_in_each_walk(void **state)
{
	uint64_t *pdptes = open_pae(MV_FORMAT_NPT_4L, 0), good = pdptes[1];

	assert_int_equal(load().kind, MV_NESTED_OK);
	assert_int_equal(walk(0x40000000, READ).hpa, GUEST_DATA_2M);
	pdptes[1] = 0;
	expect_page_fault(0x40000000, READ, MV_PF_USER);
	pdptes[1] = good | 2;
	expect_page_fault(0x40000000, READ, MV_PF_USER | MV_PF_PRESENT | MV_PF_RESERVED);
	nested_guest_close(&guest);
}

/* --- what both come to -------------------------------------------------------------------------
 */

static void the_smaller_page_counts(void **state)
{
	open_guest(MV_FORMAT_EPT_4L, 0);
	nested_guest_map(&guest, 0, 0x40000000, 2, GUEST_DATA | GUEST_ENTRY);
	nested_guest_map(&guest, 0, 0x80000000, 3, GUEST_DATA_1G | GUEST_ENTRY);
	nested_guest_map(&guest, 0, 0x1000, 1, GUEST_DATA_1G | GUEST_ENTRY);
	nested_guest_map(&guest, 0, 0x40200000, 2, GUEST_DATA_1G | GUEST_ENTRY);
	assert_int_equal(walk(0x40001000, READ).page_lg2, 12);
	assert_int_equal(walk(0x80000000, READ).page_lg2, 30);
	assert_int_equal(walk(0x1000, READ).page_lg2, 12);
	assert_int_equal(walk(0x40200000, READ).page_lg2, 21);
	nested_guest_close(&guest);
}

static void rights_are_those_of_both_stages(void **state)
{
	open_guest(MV_FORMAT_EPT_4L, 0);
	nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | 1ull << 63 | GUEST_ENTRY);
	nested_guest_map(&guest, 0, 0x1000, 1, (GUEST_DATA + 0x1000) | (GUEST_ENTRY & ~6ull));
	forbid(GUEST_DATA, 2);
	assert_int_equal(walk(0, READ).attr & MV_ATTR_RIGHTS, MV_ATTR_READ | MV_ATTR_USER);
	assert_int_equal(walk(0x1000, MV_ACCESS_READ).attr & MV_ATTR_RIGHTS,
			 MV_ATTR_READ | MV_ATTR_EXEC);
	nested_guest_close(&guest);
}

static void a_trace_tells_each_step(void **state)
{
	struct mv_nested_trace trace;
	struct mv_nested_walk made;

	open_guest(MV_FORMAT_EPT_5L, 0);
	nested_guest_map(&guest, 0, 0x5000, 1, GUEST_DATA | GUEST_ENTRY);
	assert_int_equal(mv_nested_trace(&guest.world.nested, 0x5123, READ, &made, &trace), 0);
	assert_int_equal(made.hpa, GUEST_DATA + 0x123);
	assert_int_equal(trace.guest.steps, 4);
	assert_int_equal(trace.walks, 5);
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(trace.stage2[i].gpa, trace.guest.step[i].gpa);
		assert_int_equal(trace.stage2[i].steps, 5);
	}
	assert_int_equal(trace.stage2[4].gpa, GUEST_DATA + 0x123);
	nested_guest_close(&guest);
}

static void a_bad_config_is_refused(void **state)
{
	struct mv_nested_config config = { .size = sizeof(config) };
	struct mv_stage2 stage2;
	struct mv_nested made;

	open_guest(MV_FORMAT_EPT_4L, 0);
	assert_int_equal(mv_nested_init(&made, &config), -EINVAL);
	stage2 = guest.world.nested.stage2;
	config.stage2 = &stage2;
	assert_int_equal(mv_nested_init(&made, &config), 0);
	stage2.format = MV_FORMAT_X86_4L;
	assert_int_equal(mv_nested_init(&made, &config), -EINVAL);
	config.size--;
	assert_int_equal(mv_nested_init(&made, &config), -EINVAL);
	nested_guest_close(&guest);
}

/* --- memory types ------------------------------------------------------------------------------
 */

enum { UC, WC, WT = 4, WP, WB, UM, CD, WD };

static const unsigned int pat_types[] = { UC, UM, WC, WT, WB, WP };
static const unsigned int cache_types[] = { UC, WC, WT, WB, WP };

/* SDM vol. 3, table 12-7, line by line. */
static void ept_and_pat_combine_as_the_table_says(void **state)
{
	static const unsigned int expected[5][6] = {
		/* UC  UC- WC  WT  WB  WP */
		{ UC, UC, WC, UC, UC, UC }, /* UC */
		{ UC, WC, WC, UC, WC, UC }, /* WC */
		{ UC, UC, WC, WT, WT, WP }, /* WT */
		{ UC, UC, WC, WT, WB, WP }, /* WB */
		{ UC, WC, WC, WT, WP, WP }, /* WP */
	};

	for (unsigned int i = 0; i < 5; i++)
		for (unsigned int j = 0; j < 6; j++) {
			assert_int_equal(mv_nested_type_ept(cache_types[i], false, pat_types[j]),
					 expected[i][j]);
			assert_int_equal(mv_nested_type_ept(cache_types[i], true, pat_types[j]),
					 cache_types[i]);
		}
}

/* APM vol. 2, tables 15-19 and 15-20: first with MTRRs that say write-back, which change little. */
static void npt_combines_both_pats_as_the_table_says(void **state)
{
	static const unsigned int expected[6][6] = {
		/* host: UC UC- WC  WT  WB  WP */
		{ CD, CD, CD, CD, CD, CD }, /* guest UC */
		{ CD, CD, WC, CD, CD, CD }, /* UC- */
		{ WC, WC, WC, WD, WD, WD }, /* WC */
		{ CD, CD, WD, WT, WT, CD }, /* WT */
		{ CD, CD, WD, WT, WB, WP }, /* WB */
		{ CD, CD, WD, CD, WP, WP }, /* WP */
	};

	for (unsigned int i = 0; i < 6; i++)
		for (unsigned int j = 0; j < 6; j++)
			assert_int_equal(mv_nested_type_npt(pat_types[i], pat_types[j], WB),
					 expected[i][j]);
}

static void npt_combines_that_with_mtrrs_as_the_table_says(void **state)
{
	/* Pairs of PAT types that come to UC, UC-, WC, WC+, WT, WB, WP. */
	static const unsigned int pairs[7][2] = { { UC, WB }, { UM, UM }, { WC, WC }, { WC, WB },
						  { WT, WB }, { WB, WB }, { WP, WB } };
	static const unsigned int expected[7][5] = {
		/* MTRR: UC WC  WT  WB  WP */
		{ UC, CD, CD, CD, CD }, { UC, WC, CD, CD, CD }, { WC, WC, WC, WC, WC },
		{ WC, WC, WD, WD, WD }, { UC, CD, WT, WT, CD }, { UC, WC, WT, WB, WP },
		{ UC, CD, CD, WP, WP },
	};

	for (unsigned int i = 0; i < 7; i++)
		for (unsigned int j = 0; j < 5; j++)
			assert_int_equal(mv_nested_type_npt(pairs[i][0], pairs[i][1],
							    cache_types[j]),
					 expected[i][j]);
}

static void cache_disable_overrides_all_types(void **state)
{
	open_guest(MV_FORMAT_EPT_4L, 0);
	nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | GUEST_ENTRY);
	guest.world.registers.cr0 |= 1u << 30;
	nested_world_prepare(&guest.world);
	assert_int_equal(walk(0, READ).type, MV_TYPE_UC);
	nested_guest_close(&guest);
	open_guest(MV_FORMAT_NPT_4L, 0);
	nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | GUEST_ENTRY);
	assert_int_equal(walk(0, READ).type, MV_TYPE_WB);
	guest.world.registers.cr0 |= 1u << 30;
	nested_world_prepare(&guest.world);
	assert_int_equal(walk(0, READ).type, MV_TYPE_CD);
	nested_guest_close(&guest);
}

static void reserved_types_of_a_pat_count_as_uncached(void **state)
{
	open_guest(MV_FORMAT_EPT_4L, 0);
	nested_guest_map(&guest, 0, 0, 1, GUEST_DATA | GUEST_ENTRY);
	mv_nested_set_guest_pat(&guest.world.nested, 2);
	assert_int_equal(walk(0, READ).type, MV_TYPE_UC);
	mv_nested_set_guest_pat(&guest.world.nested, 0xf6);
	assert_int_equal(walk(0, READ).type, MV_TYPE_UC);
	mv_nested_set_guest_pat(&guest.world.nested, 6);
	assert_int_equal(walk(0, READ).type, MV_TYPE_WB);
	nested_guest_close(&guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(
			a_guest_permission_fault_precedes_a_violation_of_the_final_address),
		cmocka_unit_test(a_violation_of_a_table_precedes_what_its_entry_says),
		cmocka_unit_test(an_absent_upper_entry_precedes_a_violation_of_a_lower_table),
		cmocka_unit_test(accessed_is_set_through_stage_2_before_the_final_address),
		cmocka_unit_test(a_refused_access_sets_nothing),
		cmocka_unit_test(an_address_that_is_not_canonical_reads_no_table),
		cmocka_unit_test(with_ept_flags_a_table_is_read_and_written),
		cmocka_unit_test(without_ept_flags_reading_a_table_needs_read),
		cmocka_unit_test(npt_counts_a_table_as_written_by_a_user),
		cmocka_unit_test(a_supervisors_access_is_a_users_to_npt),
		cmocka_unit_test(mode_based_execute_follows_the_guests_page),
		cmocka_unit_test(advanced_information_tells_the_guests_rights),
		cmocka_unit_test(translating_only_sets_nothing_and_asks_no_rights),
		cmocka_unit_test(with_paging_off_addresses_are_guest_physical),
		cmocka_unit_test(ept_keeps_pdptes_from_the_load_of_cr3),
		cmocka_unit_test(a_load_of_pdptes_may_violate_stage_2),
		cmocka_unit_test(npt_reads_pdptes_in_each_walk),
		cmocka_unit_test(the_smaller_page_counts),
		cmocka_unit_test(rights_are_those_of_both_stages),
		cmocka_unit_test(a_trace_tells_each_step),
		cmocka_unit_test(a_bad_config_is_refused),
		cmocka_unit_test(ept_and_pat_combine_as_the_table_says),
		cmocka_unit_test(npt_combines_both_pats_as_the_table_says),
		cmocka_unit_test(npt_combines_that_with_mtrrs_as_the_table_says),
		cmocka_unit_test(cache_disable_overrides_all_types),
		cmocka_unit_test(reserved_types_of_a_pat_count_as_uncached),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
