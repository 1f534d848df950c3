/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow tables, case by case: tables of the guest that turn into data and back, that are mapped in
 * strange ways, that the guest writes to by itself.
 */
#include "guest_walk.h"
#include "support/shadow_lab.h"
#include "support/testing.h"

#define READ  MV_ACCESS_READ
#define WRITE MV_ACCESS_WRITE
#define FETCH MV_ACCESS_FETCH
#define USER  MV_ACCESS_USER

#define DATA 0x100000ULL /* guest pages from here on are nobody's */

static struct lab lab;

static const struct lab_options four_levels = { .mode = PAGED_4L };

/* --- what tables turn into ------------------------------------------------------------------ */

static void test_table_becomes_data(void **state)
{
	uint64_t table, other;

	lab_init(&lab, &four_levels);
	table = lab_table(&lab);
	other = lab_table(&lab);
	lab_poke(&lab, table, DATA | PTE_ALL);
	lab_poke(&lab, other, (DATA + MV_PAGE_SIZE) | PTE_ALL);
	lab_map(&lab, 0x40000000, 2, table | PTE_ALL);
	lab_check(&lab, 0x40000000, WRITE);
	/* Its page is mapped as data, while another takes its place. */
	lab_map(&lab, 0x80000000, 1, table | PTE_ALL);
	lab_map(&lab, 0x40000000, 2, other | PTE_ALL);
	lab_check(&lab, 0x40000000, READ);
	lab_check(&lab, 0x80000000, READ);
	/* And as a table again, when something else stands in it. */
	if (lab_touch(&lab, 0x80000000, WRITE).kind == MV_SHADOW_EMULATE_WRITE)
		lab_write(&lab, table, (DATA + 2 * MV_PAGE_SIZE) | PTE_ALL);
	else
		lab_poke(&lab, table, (DATA + 2 * MV_PAGE_SIZE) | PTE_ALL);
	lab_map(&lab, 0x40000000, 2, table | PTE_ALL);
	assert_int_equal(lab_load(&lab), 0);
	lab_check(&lab, 0x40000000, READ);
	lab_finish(&lab);
}

static void test_data_becomes_table(void **state)
{
	uint64_t table, hpa;

	lab_init(&lab, &four_levels);
	table = lab_table(&lab);
	lab_map(&lab, 0x80000000, 1, table | PTE_ALL);
	lab_check(&lab, 0x80000000, WRITE);
	lab_poke(&lab, table, DATA | PTE_ALL);
	lab.flushes = 0;
	lab_map(&lab, 0x40000000, 2, table | PTE_ALL);
	lab_check(&lab, 0x40000000, READ);
	/* No processor may go on writing there unseen. */
	assert_false(lab_reaches(&lab, 0x80000000, WRITE, &hpa));
	assert_true(lab_reaches(&lab, 0x80000000, READ, &hpa));
	assert_int_equal(lab.flushes, 1);
	lab_finish(&lab);
}

#define ALIASES 10

/* All of them go read-only at once when it becomes an upper table. */
static void test_table_mapped_at_ten_addresses(void **state)
{
	uint64_t table, hpa;

	lab_init(&lab, &four_levels);
	table = lab_table(&lab);
	for (uint64_t i = 0; i < ALIASES; i++) {
		lab_map(&lab, 0x80000000 + (i << 21), 1, table | PTE_ALL);
		lab_check(&lab, 0x80000000 + (i << 21), WRITE);
	}
	lab_map(&lab, 0x40000000, 3, table | PTE_ALL);
	lab_map(&lab, 0x40000000, 1, DATA | PTE_ALL);
	lab_check(&lab, 0x40000000, WRITE);
	for (uint64_t i = 0; i < ALIASES; i++) {
		assert_false(lab_reaches(&lab, 0x80000000 + (i << 21), WRITE, &hpa));
		assert_int_equal(lab_touch(&lab, 0x80000000 + (i << 21), WRITE).kind,
				 MV_SHADOW_EMULATE_WRITE);
	}
	lab_finish(&lab);
}

/* The root is an entry of itself: its page is a table of every level, and data. */
static void test_recursive_tables(void **state)
{
	const uint64_t slot = 0x1ed, sign = 0xffff000000000000;
	uint64_t root, self, entry, pte;

	lab_init(&lab, &four_levels);
	root = lab.registers.cr3;
	self = sign | slot << 39 | slot << 30 | slot << 21 | slot << 12;
	entry = sign | slot << 39 | 1 << 12; /* the table of the first 2 MiB above 512 GiB… */
	lab_write(&lab, root + slot * 8, root | PTE_ALL);
	lab_map(&lab, 0x1000, 1, DATA | PTE_ALL);
	lab_check(&lab, 0x1000, WRITE);
	lab_check(&lab, self + slot * 8, READ);
	assert_int_equal(lab_touch(&lab, self, WRITE).kind, MV_SHADOW_EMULATE_WRITE);
	/* The entry of 0x1000, through the recursion. */
	pte = sign | slot << 39 | 0x1000 >> 9;
	lab_check(&lab, pte, READ);
	lab_check(&lab, entry, READ);
	lab_map(&lab, 0x1000, 1, (DATA + MV_PAGE_SIZE) | PTE_ALL);
	lab_check(&lab, 0x1000, READ);
	/* Gone from the root: every level of it. */
	lab_write(&lab, root + slot * 8, 0);
	lab_check(&lab, self + slot * 8, READ);
	lab_check(&lab, pte, READ);
	lab_finish(&lab);
}

/* Half an entry, and a block over many. */
static void test_writes_of_any_size(void **state)
{
	uint64_t entry;

	lab_init(&lab, &four_levels);
	for (uint64_t i = 0; i < 4; i++)
		lab_map(&lab, i << 12, 1, (DATA + (i << 12)) | PTE_ALL);
	entry = lab_entry(&lab, 0, 1);
	for (uint64_t i = 0; i < 4; i++)
		lab_check(&lab, i << 12, WRITE);
	lab.guest.mem[entry + 2] ^= 0x10; /* bit 20 of the address */
	mv_shadow_guest_wrote(lab.shadow, entry + 2, 1);
	lab_check(&lab, 0, READ);
	memset(lab.guest.mem + entry + 12, 0, 20);
	mv_shadow_guest_wrote(lab.shadow, entry + 12, 20);
	for (uint64_t i = 0; i < 4; i++)
		lab_check(&lab, i << 12, READ);
	lab_finish(&lab);
}

static void test_dirty_waits_for_the_first_write(void **state)
{
	uint64_t hpa;

	lab_init(&lab, &four_levels);
	lab_map(&lab, 0x40000000, 1, DATA | PTE_ALL);
	lab_check(&lab, 0x40000000, READ);
	assert_false(lab_reaches(&lab, 0x40000000, WRITE, &hpa));
	assert_false(lab_read(&lab, lab_entry(&lab, 0x40000000, 1)) & PTE_D);
	lab_check(&lab, 0x40000000, WRITE);
	/* The guest clears it: the next write sets it again. */
	lab_map(&lab, 0x40000000, 1, DATA | PTE_ALL | PTE_A);
	lab_check(&lab, 0x40000000, READ);
	lab_check(&lab, 0x40000000, WRITE);
	lab_finish(&lab);
}

/* --- out of sync ---------------------------------------------------------------------------- */

#define TABLE_GVA 0x80000000ULL /* where the leaf table of 0x40000000 is mapped */

/* The guest stores an entry by itself, as often as it takes. Return: how often it trapped. */
static unsigned int store_entry(uint64_t gva, uint64_t entry)
{
	unsigned int before = 0, after = 0;
	struct lab_access made;

	for (unsigned int i = 0; i < MV_SHADOW_KINDS; i++)
		before += lab.faults[i];
	made = lab_touch(&lab, gva, WRITE);
	for (unsigned int i = 0; i < MV_SHADOW_KINDS; i++)
		after += lab.faults[i];
	if (made.kind == MV_SHADOW_FIXED) {
		*(uint64_t *)(uintptr_t)made.hpa = entry;
	} else {
		assert_int_equal(made.kind, MV_SHADOW_EMULATE_WRITE);
		lab_write(&lab, made.walk.gpa, entry);
	}
	return after - before;
}

/* A leaf table, used, and mapped where the guest can write to it. */
static uint64_t with_leaf_table(void)
{
	uint64_t table;

	lab_init(&lab, &four_levels);
	for (uint64_t i = 0; i < 512; i++)
		lab_map(&lab, 0x40000000 + (i << 12), 1, (DATA + (i << 12)) | PTE_ALL);
	table = lab_entry(&lab, 0x40000000, 1) & ~0xfffULL;
	lab_map(&lab, TABLE_GVA, 1, table | PTE_ALL);
	lab_check(&lab, TABLE_GVA, READ);
	for (uint64_t i = 0; i < 512; i++)
		lab_check(&lab, 0x40000000 + (i << 12), WRITE);
	return table;
}

/* As a fork does: every entry becomes read-only, and then all are forgotten. */
static void test_burst_of_writes_traps_twice_at_most(void **state)
{
	unsigned int traps = 0;

	(void)with_leaf_table();
	for (uint64_t i = 0; i < 512; i++)
		traps += store_entry(TABLE_GVA + i * 8, (DATA + (i << 12)) | PTE_P | PTE_U | PTE_A);
	assert_in_range(traps, 1, 2);
	assert_int_equal(lab_load(&lab), 0);
	for (uint64_t i = 0; i < 512; i++)
		lab_check(&lab, 0x40000000 + (i << 12), WRITE);
	lab_finish(&lab);
}

static void test_invlpg_forgets_one_entry(void **state)
{
	uint64_t hpa;

	(void)with_leaf_table();
	store_entry(TABLE_GVA + 8, (DATA + 0x10000) | PTE_ALL);
	store_entry(TABLE_GVA + 16, (DATA + 0x20000) | PTE_ALL);
	mv_shadow_invlpg(lab.vcpu, 0x40001000);
	lab_check(&lab, 0x40001000, READ);
	/* May be stale still, and is: so it is INVLPG that was seen to. */
	assert_true(lab_reaches(&lab, 0x40002000, READ, &hpa));
	assert_int_equal(hpa, lab_hpa(&lab, DATA + 0x2000));
	mv_shadow_invpcid(lab.vcpu, MV_INVPCID_ADDRESS, 0, 0x40002000);
	lab_check(&lab, 0x40002000, READ);
	store_entry(TABLE_GVA + 24, 0);
	mv_shadow_flush(lab.vcpu, false);
	lab_check(&lab, 0x40003000, READ);
	lab_finish(&lab);
}

/* What the guest took accessed and dirty from gets them again after the flush. */
static void test_marks_are_set_again_after_a_flush(void **state)
{
	(void)with_leaf_table();
	store_entry(TABLE_GVA + 8, (DATA + 0x1000) | PTE_ALL);
	store_entry(TABLE_GVA + 16, (DATA + 0x2000) | PTE_ALL | PTE_A);
	assert_int_equal(lab_load(&lab), 0);
	lab_check(&lab, 0x40001000, READ);
	lab_check(&lab, 0x40002000, WRITE);
	lab_finish(&lab);
}

/* A table that nobody writes to any more is watched again, and its next write is seen. */
static void test_quiet_tables_are_protected_again(void **state)
{
	uint64_t hpa;

	(void)with_leaf_table();
	store_entry(TABLE_GVA + 8, (DATA + 0x10000) | PTE_ALL);
	lab.flushes = 0;
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(lab_load(&lab), 0);
	assert_false(lab_reaches(&lab, TABLE_GVA, WRITE, &hpa));
	assert_int_equal(lab.flushes, 1);
	store_entry(TABLE_GVA + 8, (DATA + 0x20000) | PTE_ALL);
	assert_int_equal(lab_load(&lab), 0);
	lab_check(&lab, 0x40001000, READ);
	lab_finish(&lab);
}

/* A leaf table that is out of sync becomes an upper table too. */
static void test_unsync_table_becomes_an_upper_one(void **state)
{
	uint64_t table = with_leaf_table(), lower = lab_table(&lab), hpa;

	lab_poke(&lab, lower, (DATA + 0x5000) | PTE_ALL);
	store_entry(TABLE_GVA + 8, lower | PTE_ALL);
	lab_map(&lab, 0xc0000000, 3, table | PTE_ALL);
	lab_check(&lab, 0xc0200000, WRITE);
	assert_false(lab_reaches(&lab, TABLE_GVA, WRITE, &hpa));
	lab_check(&lab, 0x40001000, READ);
	assert_int_equal(lab_touch(&lab, TABLE_GVA, WRITE).kind, MV_SHADOW_EMULATE_WRITE);
	lab_finish(&lab);
}

/* An INVLPG anywhere in a large page of the guest's reaches all of it, in however many parts. */
static void test_invlpg_of_a_large_page_in_parts(void **state)
{
	lab_init(&lab, &four_levels);
	lab.page_lg2 = 12;
	lab_map(&lab, 0x40000000, 2, 0x400000 | PTE_ALL | PTE_PS);
	lab_check(&lab, 0x40003000, WRITE);
	lab.flushes = 0;
	lab_map(&lab, 0x40000000, 2, 0x600000 | PTE_ALL | PTE_PS);
	mv_shadow_invlpg(lab.vcpu, 0x40000000);
	assert_int_equal(lab.flushes, 1);
	mv_shadow_invlpg(lab.vcpu, 0x40000000);
	assert_int_equal(lab.flushes, 1);
	lab_check(&lab, 0x40003000, READ);
	lab_finish(&lab);
}

/* Two large pages of the guest are one and the same memory, and only one of them is dirty. */
static void test_dirty_of_one_large_page_is_not_the_others(void **state)
{
	lab_init(&lab, &four_levels);
	lab.page_lg2 = 12;
	lab.registers.cr0 &= ~MV_CR0_WP;
	assert_int_equal(lab_load(&lab), 0);
	lab_map(&lab, 0x40000000, 2, 0x400000 | PTE_P | PTE_U | PTE_PS);
	lab_map(&lab, 0x80000000, 2, 0x400000 | PTE_P | PTE_U | PTE_PS);
	lab_check(&lab, 0x80000000, READ);
	lab_check(&lab, 0x40000000, WRITE);
	lab_check(&lab, 0x80000000, WRITE);
	lab_finish(&lab);
}

static void test_statistics(void **state)
{
	uint64_t faults[MV_SHADOW_KINDS];
	struct mv_shadow_stats stats;

	(void)with_leaf_table();
	store_entry(TABLE_GVA + 8, 0);
	assert_int_equal(lab_load(&lab), 0);
	lab_check(&lab, 0x40001000, READ);
	mv_shadow_vcpu_faults(lab.vcpu, faults);
	for (unsigned int kind = 0; kind < MV_SHADOW_KINDS; kind++)
		assert_int_equal(faults[kind], lab.faults[kind]);
	assert_int_equal(faults[MV_SHADOW_INJECT], 1);
	mv_shadow_get_stats(lab.shadow, &stats);
	assert_int_equal(stats.unsyncs, 1);
	assert_int_equal(stats.syncs, 1);
	assert_true(stats.emulated >= 512);
	assert_int_equal(stats.flushes, lab.flushes);
	assert_true(stats.taken > 0);
	lab_finish(&lab);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table_becomes_data),
		cmocka_unit_test(test_data_becomes_table),
		cmocka_unit_test(test_table_mapped_at_ten_addresses),
		cmocka_unit_test(test_recursive_tables),
		cmocka_unit_test(test_writes_of_any_size),
		cmocka_unit_test(test_dirty_waits_for_the_first_write),
		cmocka_unit_test(test_burst_of_writes_traps_twice_at_most),
		cmocka_unit_test(test_invlpg_forgets_one_entry),
		cmocka_unit_test(test_marks_are_set_again_after_a_flush),
		cmocka_unit_test(test_quiet_tables_are_protected_again),
		cmocka_unit_test(test_unsync_table_becomes_an_upper_one),
		cmocka_unit_test(test_invlpg_of_a_large_page_in_parts),
		cmocka_unit_test(test_dirty_of_one_large_page_is_not_the_others),
		cmocka_unit_test(test_statistics),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
