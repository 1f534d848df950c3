/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow tables: the cases that are easily got wrong, one by one, on the machine of
 * shadow_machine.h, which judges each access besides. SDM vol. 3, 4.6 to 4.10.
 *
 * The guest of most cases has four levels, one table each at ROOT, DIRECTORIES, DIRECTORY and
 * TABLE, and data pages from DATA.
 */
#include "support/shadow_machine.h"

#define P   0x001ULL
#define W   0x002ULL
#define U   0x004ULL
#define A   0x020ULL
#define D   0x040ULL
#define PS  0x080ULL
#define NX  (1ULL << 63)
#define ALL (P | W | U | A | D)

#define ROOT	    0x1000ULL
#define DIRECTORIES 0x2000ULL
#define DIRECTORY   0x3000ULL
#define TABLE	    0x4000ULL
#define TABLE2	    0x5000ULL
#define DATA	    0x10000ULL

#define READ  MV_ACCESS_READ
#define WRITE MV_ACCESS_WRITE
#define FETCH MV_ACCESS_FETCH
#define USER  MV_ACCESS_USER

#define NO_FAULT UINT32_MAX

static uint64_t entry_at(uint64_t table, unsigned int index)
{
	return table + 8ULL * index;
}

static struct shadow_machine *open_blank(unsigned int vcpus, bool tlb)
{
	struct shadow_machine *machine = calloc(1, sizeof(*machine));

	assert_non_null(machine);
	sm_map(machine);
	machine->tlb = tlb;
	sm_open(machine, vcpus);
	return machine;
}

static struct shadow_machine *open_guest(unsigned int vcpus, bool tlb)
{
	struct shadow_machine *machine = open_blank(vcpus, tlb);
	struct mv_paging_registers registers;

	sm_set(machine, entry_at(ROOT, 0), DIRECTORIES | ALL);
	sm_set(machine, entry_at(DIRECTORIES, 0), DIRECTORY | ALL);
	sm_set(machine, entry_at(DIRECTORY, 0), TABLE | ALL);
	for (unsigned int i = 0; i < 16; i++)
		sm_set(machine, entry_at(TABLE, i), (DATA + i * 0x1000) | ALL);
	sm_registers(SREF_4L, ROOT, &registers);
	for (unsigned int i = 0; i < vcpus; i++)
		assert_int_equal(sm_load(machine, i, &registers, false), 0);
	return machine;
}

static void close_guest(struct shadow_machine *machine)
{
	sm_compare_all(machine);
	sm_close(machine);
	sm_unmap(machine);
	free(machine);
}

/* The vCPU's registers with some bits changed; a change of mode. */
static void set_mode(struct shadow_machine *machine, uint64_t cr0_clear, uint64_t cr4_set)
{
	struct mv_paging_registers registers = machine->vcpus[0].cpu.registers;

	registers.cr0 = (registers.cr0 | SM_CR0_WP) & ~cr0_clear;
	registers.cr4 = (registers.cr4 & ~(SM_CR4_SMEP | SM_CR4_SMAP)) | cr4_set;
	assert_int_equal(sm_load(machine, 0, &registers, false), 0);
}

/* --- translation-rules.md, "Shadow and invalidation" --------------------------------------- */

/* CVE-2021-38198. */
static void one_table_under_parents_of_different_rights_is_not_shared(void **state)
{
	struct shadow_machine *machine = open_guest(1, false);

	sm_set(machine, entry_at(DIRECTORY, 1), TABLE | P | U | A);
	assert_int_equal(sm_error(machine, 0, 0x0000, WRITE | USER), NO_FAULT);
	assert_int_equal(sm_error(machine, 0, 0x200000, READ | USER), NO_FAULT);
	assert_int_equal(sm_error(machine, 0, 0x200000, WRITE | USER), 7);
	assert_int_equal(sm_error(machine, 0, 0x0000, WRITE | USER), NO_FAULT);
	assert_int_equal(sm_error(machine, 0, 0x200000, WRITE | USER), 7);
	close_guest(machine);
}

static void what_becomes_present_needs_no_flush(void **state)
{
	for (unsigned int tlb = 0; tlb < 2; tlb++) {
		struct shadow_machine *machine = open_guest(1, tlb);
		const uint64_t entries[] = { entry_at(ROOT, 0), entry_at(DIRECTORIES, 0),
					     entry_at(DIRECTORY, 0), entry_at(TABLE, 3) };

		for (unsigned int i = 0; i < COUNT_OF(entries); i++) {
			uint64_t entry = sm_get(machine, entries[i]);

			sm_set(machine, entries[i], 0);
			sm_invlpg(machine, 0, 0x3000);
			assert_int_equal(sm_error(machine, 0, 0x3000, READ), 0);
			sm_set(machine, entries[i], entry);
			assert_int_equal(sm_touch(machine, 0, 0x3000, READ), DATA + 0x3000);
		}
		close_guest(machine);
	}
}

/* The same, where the guest itself stores into a table that it has mapped, and nobody is told. */
static void what_the_guest_makes_present_itself_needs_no_flush(void **state)
{
	struct shadow_machine *machine = open_guest(1, false);
	struct sm_access access = { .kind = WRITE, .bytes = 8 };

	sm_set(machine, entry_at(TABLE, 4), TABLE | ALL);
	for (unsigned int i = 20; i < 40; i++) {
		assert_int_equal(sm_error(machine, 0, i << 12, READ), 0);
		access.gva = 0x4000 + 8 * i;
		access.value = (DATA + (uint64_t)i * 0x1000) | P | W;
		sm_access(machine, 0, &access);
		assert_int_equal(sm_touch(machine, 0, i << 12, READ), DATA + i * 0x1000);
	}
	close_guest(machine);
}

/* Judged in every access by the processor: judge_absent(). */
static void absent_entries_hold_no_frame(void **state)
{
	struct shadow_machine *machine = open_guest(1, false);

	assert_int_equal(sm_touch(machine, 0, 0x3000, WRITE), DATA + 0x3000);
	assert_true(sm_maps(machine, 0, 0x3000, WRITE));
	sm_set(machine, entry_at(TABLE, 3), (DATA + 0x3000) & ~P);
	assert_false(sm_maps(machine, 0, 0x3000, READ));
	assert_int_equal(sm_touch(machine, 0, 0x2000, WRITE), DATA + 0x2000);
	sm_discard(machine, DATA + 0x2000, 1);
	assert_false(sm_maps(machine, 0, 0x2000, READ));
	close_guest(machine);
}

/* --- failure-modes.md, "Shadow" --------------------------------------------------------------- */

/* CVE-2021-22543; Xen's CVE-2026-23554: the frame is another's after the flush, not before. */
static void a_page_given_away_is_reached_by_no_processor(void **state)
{
	struct shadow_machine *machine = open_guest(2, true);

	for (unsigned int i = 0; i < 8; i++) {
		uint64_t flushes = machine->flushes;

		assert_int_equal(sm_touch(machine, 0, 0x1000, WRITE), DATA + 0x1000);
		assert_int_equal(sm_touch(machine, 1, 0x1000, READ), DATA + 0x1000);
		sm_discard(machine, DATA + 0x1000, 1);
		assert_true(machine->flushes > flushes);
		assert_false(sm_maps(machine, 0, 0x1000, READ));
		assert_false(sm_maps(machine, 1, 0x1000, READ));
	}
	close_guest(machine);
}

static void a_table_given_away_is_forgotten(void **state)
{
	struct shadow_machine *machine = open_guest(1, false);

	assert_int_equal(sm_touch(machine, 0, 0x1000, READ), DATA + 0x1000);
	sm_discard(machine, DIRECTORY, 1);
	sm_reload(machine, 0);
	assert_int_equal(sm_error(machine, 0, 0x1000, READ), 0);
	sm_set(machine, entry_at(DIRECTORY, 0), TABLE | ALL);
	assert_int_equal(sm_touch(machine, 0, 0x1000, READ), DATA + 0x1000);
	close_guest(machine);
}

/* CVE-2022-45869's single-threaded half: at the smallest budget all goes on, and stays right. */
static void the_smallest_budget_is_enough(void **state)
{
	struct shadow_machine *machine = calloc(1, sizeof(*machine));
	struct mv_paging_registers registers;

	assert_non_null(machine);
	sm_map(machine);
	machine->budget = MV_SHADOW_BUDGET_MIN;
	sm_open(machine, 1);
	sm_registers(SREF_4L, ROOT, &registers);
	sm_set(machine, entry_at(ROOT, 0), DIRECTORIES | ALL);
	sm_set(machine, entry_at(DIRECTORIES, 0), DIRECTORY | ALL);
	for (unsigned int i = 0; i < 256; i++) {
		uint64_t table = 0x400000 + i * 0x1000ULL;

		sm_set(machine, entry_at(DIRECTORY, i), table | ALL);
		sm_set(machine, entry_at(table, i), (DATA + i * 0x1000) | ALL);
	}
	assert_int_equal(sm_load(machine, 0, &registers, false), 0);
	for (unsigned int round = 0; round < 3; round++)
		for (uint64_t i = 0; i < 256; i++)
			assert_int_equal(sm_touch(machine, 0, i << 21 | i << 12, WRITE),
					 DATA + i * 0x1000);
	close_guest(machine);
}

/* --- permissions along two paths ---------------------------------------------------------- */

#define PATH_ALL 0x0000ULL
#define PATH_RO	 0x200000ULL
#define PATH_SUP 0x400000ULL
#define PATH_NX	 0x600000ULL

static void check_path(struct shadow_machine *machine, uint64_t gva)
{
	bool writable = gva != PATH_RO, user = gva != PATH_SUP, exec = gva != PATH_NX;

	assert_int_equal(sm_error(machine, 0, gva, READ | USER), user ? NO_FAULT : 5);
	assert_int_equal(sm_error(machine, 0, gva, WRITE), writable ? NO_FAULT : 3);
	assert_int_equal(sm_error(machine, 0, gva, WRITE | USER), writable && user ? NO_FAULT : 7);
	assert_int_equal(sm_error(machine, 0, gva, FETCH), exec ? NO_FAULT : 0x11);
}

static void check_order(unsigned int order)
{
	uint64_t paths[] = { PATH_ALL, PATH_RO, PATH_SUP, PATH_NX };
	struct shadow_machine *machine = open_guest(1, order & 1);

	sm_set(machine, entry_at(DIRECTORY, 1), TABLE | P | U | A);
	sm_set(machine, entry_at(DIRECTORY, 2), TABLE | P | W | A);
	sm_set(machine, entry_at(DIRECTORY, 3), TABLE | ALL | NX);
	for (unsigned int left = 4; left; left--) {
		unsigned int choice = order % left;

		order /= left;
		check_path(machine, paths[choice]);
		paths[choice] = paths[left - 1];
	}
	for (uint64_t gva = PATH_ALL; gva <= PATH_NX; gva += 0x200000)
		check_path(machine, gva);
	close_guest(machine);
}

static void rights_along_four_paths_hold_in_all_24_orders(void **state)
{
	for (unsigned int order = 0; order < 24; order++)
		check_order(order);
}

/* --- large and small ------------------------------------------------------------------------- */

static void large_becomes_small_and_large_again(void **state)
{
	struct shadow_machine *machine = open_guest(1, true);

	for (unsigned int round = 0; round < 4; round++) {
		sm_set(machine, entry_at(DIRECTORY, 5), 0x400000 | ALL | PS);
		sm_invlpg(machine, 0, 0xa03000);
		assert_int_equal(sm_touch(machine, 0, 0xa03000, WRITE), 0x403000);
		assert_int_equal(sm_touch(machine, 0, 0xa13000, READ), 0x413000);
		sm_set(machine, entry_at(TABLE, 3), (DATA + 0x7000) | ALL);
		sm_set(machine, entry_at(DIRECTORY, 5), TABLE | ALL);
		sm_invlpg(machine, 0, 0xa03000);
		assert_int_equal(sm_touch(machine, 0, 0xa03000, WRITE), DATA + 0x7000);
		assert_int_equal(sm_error(machine, 0, 0xa20000, READ), 0);
	}
	close_guest(machine);
}

/* One INVLPG is for all of a page, however small the pieces are in which it is shadowed. */
static void invlpg_takes_all_of_a_large_page(void **state)
{
	struct shadow_machine *machine = open_guest(1, true);

	machine->large = false;
	sm_set(machine, entry_at(DIRECTORY, 5), 0x400000 | ALL | PS);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(sm_touch(machine, 0, 0xa00000 + i * 0x1000, READ),
				 0x400000 + i * 0x1000);
	sm_set(machine, entry_at(DIRECTORY, 5), 0x600000 | ALL | PS);
	sm_invlpg(machine, 0, 0xa03000);
	for (uint64_t i = 0; i < 8; i++)
		assert_int_equal(sm_touch(machine, 0, 0xa00000 + i * 0x1000, READ),
				 0x600000 + i * 0x1000);
	close_guest(machine);
}

/* --- tables and data ---------------------------------------------------------------------------
 */

static void a_table_becomes_data_and_data_a_table(void **state)
{
	struct shadow_machine *machine = open_guest(1, true);

	/* TABLE2 is data, at 0x8000, and written to freely. */
	sm_set(machine, entry_at(TABLE, 8), TABLE2 | ALL);
	sm_invlpg(machine, 0, 0x8000);
	for (unsigned int round = 0; round < 3; round++) {
		struct sm_access access = { .gva = 0x8000 + 8 * 9, .kind = WRITE, .bytes = 8 };

		assert_int_equal(sm_touch(machine, 0, 0x8000, WRITE), TABLE2);
		access.value = (DATA + 0x1000 * round) | ALL;
		sm_access(machine, 0, &access);
		/* A table. */
		sm_set(machine, entry_at(DIRECTORY, 1), TABLE2 | ALL);
		assert_int_equal(sm_touch(machine, 0, 0x209000, READ), DATA + 0x1000 * round);
		access.value = (DATA + 0x1000 * (round + 5)) | ALL;
		sm_access(machine, 0, &access);
		sm_invlpg(machine, 0, 0x209000);
		assert_int_equal(sm_touch(machine, 0, 0x209000, READ), DATA + 0x1000 * (round + 5));
		/* Data again. */
		sm_set(machine, entry_at(DIRECTORY, 1), 0);
		sm_reload(machine, 0);
		for (uint64_t i = 0; i < 16; i++)
			assert_int_equal(sm_touch(machine, 0, 0x8800 + 8 * i, WRITE),
					 TABLE2 + 0x800 + 8 * i);
	}
	close_guest(machine);
}

static void tables_that_map_themselves_are_read_and_written_through_it(void **state)
{
	struct shadow_machine *machine = open_guest(1, false);
	/* Root entry 256 is the root: all tables are seen from here on. */
	const uint64_t self = 0xffff800000000000ULL;
	struct sm_access access = { .gva = self, .kind = WRITE, .bytes = 8 };

	sm_set(machine, entry_at(ROOT, 256), ROOT | ALL);
	for (unsigned int i = 0; i < 16; i++) {
		access.gva = self + 8 * i;
		access.value = (DATA + 0x1000 * (15 - i)) | ALL;
		sm_access(machine, 0, &access);
		assert_int_equal(access.gpa, TABLE + 8 * i);
		sm_invlpg(machine, 0, i << 12);
		assert_int_equal(sm_touch(machine, 0, i << 12, READ), DATA + 0x1000 * (15 - i));
	}
	/* The root, as its own directories, directory, table and page. */
	assert_int_equal(sm_touch(machine, 0, self | 0x804020100000ULL | 256ULL << 12, READ), ROOT);
	close_guest(machine);
}

static void a_table_mapped_at_ten_addresses_is_protected_at_all(void **state)
{
	struct shadow_machine *machine = open_guest(1, true);
	struct sm_access access = { .kind = WRITE, .bytes = 8 };

	for (unsigned int i = 0; i < 10; i++) {
		sm_set(machine, entry_at(TABLE, 20 + i), TABLE2 | ALL);
		assert_int_equal(sm_touch(machine, 0, (20 + i) * 0x1000 + 0x800, WRITE),
				 TABLE2 + 0x800);
	}
	sm_set(machine, entry_at(DIRECTORY, 1), TABLE2 | ALL);
	for (unsigned int i = 0; i < 10; i++) {
		assert_int_equal(sm_error(machine, 0, 0x200000, READ) & 1, 0 == i ? 0 : 1);
		access.gva = (20 + i) * 0x1000ULL;
		access.value = (DATA + 0x1000 * i) | ALL;
		sm_access(machine, 0, &access);
		sm_invlpg(machine, 0, 0x200000);
		assert_int_equal(sm_touch(machine, 0, 0x200000, READ), DATA + 0x1000 * i);
	}
	close_guest(machine);
}

/* --- modes ---------------------------------------------------------------------------------------
 */

static void without_wp_supervisors_write_and_users_do_not(void **state)
{
	struct shadow_machine *machine = open_guest(1, true);

	sm_set(machine, entry_at(TABLE, 2), (DATA + 0x2000) | P | U | A | D);
	for (unsigned int round = 0; round < 3; round++) {
		set_mode(machine, SM_CR0_WP, 0);
		assert_int_equal(sm_error(machine, 0, 0x2000, READ | USER), NO_FAULT);
		assert_int_equal(sm_error(machine, 0, 0x2000, WRITE), NO_FAULT);
		assert_int_equal(sm_error(machine, 0, 0x2000, WRITE | USER), 7);
		assert_int_equal(sm_error(machine, 0, 0x2000, READ | USER), NO_FAULT);
		set_mode(machine, 0, 0);
		assert_int_equal(sm_error(machine, 0, 0x2000, WRITE), 3);
	}
	close_guest(machine);
}

static void without_wp_smep_and_smap_still_hold(void **state)
{
	struct shadow_machine *machine = open_guest(1, true);

	sm_set(machine, entry_at(TABLE, 2), (DATA + 0x2000) | P | U | A | D);
	set_mode(machine, SM_CR0_WP, SM_CR4_SMEP);
	assert_int_equal(sm_error(machine, 0, 0x2000, WRITE), NO_FAULT);
	assert_int_equal(sm_error(machine, 0, 0x2000, FETCH), 0x11);
	assert_int_equal(sm_error(machine, 0, 0x2000, FETCH | USER), NO_FAULT);
	set_mode(machine, SM_CR0_WP, SM_CR4_SMAP);
	assert_int_equal(sm_error(machine, 0, 0x2000, WRITE | MV_ACCESS_AC), NO_FAULT);
	assert_int_equal(sm_error(machine, 0, 0x2000, WRITE), 3);
	assert_int_equal(sm_error(machine, 0, 0x2000, READ), 1);
	assert_int_equal(sm_error(machine, 0, 0x2000, READ | MV_ACCESS_IMPLICIT | MV_ACCESS_AC), 1);
	close_guest(machine);
}

static void the_first_write_sets_dirty_and_again_after_it_was_cleared(void **state)
{
	struct shadow_machine *machine = open_guest(1, true);

	for (unsigned int round = 0; round < 3; round++) {
		sm_set(machine, entry_at(TABLE, 2), (DATA + 0x2000) | P | W | U);
		sm_invlpg(machine, 0, 0x2000);
		assert_int_equal(sm_touch(machine, 0, 0x2000, READ), DATA + 0x2000);
		assert_int_equal(sm_get(machine, entry_at(TABLE, 2)) & (A | D), A);
		assert_int_equal(sm_touch(machine, 0, 0x2000, WRITE), DATA + 0x2000);
		assert_int_equal(sm_get(machine, entry_at(TABLE, 2)) & (A | D), A | D);
	}
	close_guest(machine);
}

/* A 32-bit table is shadowed in two halves, a directory in four quarters. */
static void every_part_of_32_bit_tables_follows_writes(void **state)
{
	struct shadow_machine *machine = open_blank(1, true);
	struct mv_paging_registers registers;

	sm_registers(SREF_32, ROOT, &registers);
	for (unsigned int i = 0; i < 1024; i += 93) {
		sm_set_narrow(machine, ROOT + 4 * i, TABLE | ALL);
		sm_set_narrow(machine, TABLE + 4 * i, (DATA + i * 0x1000) | ALL);
	}
	assert_int_equal(sm_load(machine, 0, &registers, false), 0);
	for (uint64_t high = 0; high < 1024; high += 93)
		for (uint64_t low = 0; low < 1024; low += 93)
			assert_int_equal(sm_touch(machine, 0, high << 22 | low << 12, READ),
					 DATA + low * 0x1000);
	for (uint64_t i = 0; i < 1024; i += 93) {
		sm_set_narrow(machine, TABLE + 4 * i, 0);
		sm_invlpg(machine, 0, i << 22 | i << 12);
		assert_int_equal(sm_error(machine, 0, i << 22 | i << 12, READ), 0);
		sm_set_narrow(machine, TABLE + 4 * i, (DATA + 0x2000) | ALL);
		assert_int_equal(sm_touch(machine, 0, i << 22 | i << 12, READ), DATA + 0x2000);
	}
	close_guest(machine);
}

/* They are registers: what is stored afterwards counts from the next load on. */
static void pdptes_are_those_of_the_last_load(void **state)
{
	struct shadow_machine *machine = open_blank(1, true);
	struct mv_paging_registers registers;

	sm_registers(SREF_PAE, ROOT, &registers);
	sm_set(machine, entry_at(ROOT, 1), DIRECTORY | P);
	sm_set(machine, entry_at(DIRECTORY, 0), TABLE | ALL);
	sm_set(machine, entry_at(TABLE, 0), DATA | ALL);
	assert_int_equal(sm_load(machine, 0, &registers, false), 0);
	assert_int_equal(sm_touch(machine, 0, 0x40000000, READ), DATA);
	sm_set(machine, entry_at(ROOT, 1), 0);
	sm_set(machine, entry_at(ROOT, 2), DIRECTORY | P);
	assert_int_equal(sm_touch(machine, 0, 0x40000000, READ), DATA);
	assert_int_equal(sm_error(machine, 0, 0x80000000, READ), 0);
	assert_int_equal(sm_reload(machine, 0), 0);
	assert_int_equal(sm_error(machine, 0, 0x40000000, READ), 0);
	assert_int_equal(sm_touch(machine, 0, 0x80000000, READ), DATA);
	sm_set(machine, entry_at(ROOT, 3), DIRECTORY | P | W);
	assert_int_equal(sm_reload(machine, 0), -EINVAL);
	assert_int_equal(sm_touch(machine, 0, 0x80000000, READ), DATA);
	close_guest(machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_table_under_parents_of_different_rights_is_not_shared),
		cmocka_unit_test(what_becomes_present_needs_no_flush),
		cmocka_unit_test(what_the_guest_makes_present_itself_needs_no_flush),
		cmocka_unit_test(absent_entries_hold_no_frame),
		cmocka_unit_test(a_page_given_away_is_reached_by_no_processor),
		cmocka_unit_test(a_table_given_away_is_forgotten),
		cmocka_unit_test(the_smallest_budget_is_enough),
		cmocka_unit_test(rights_along_four_paths_hold_in_all_24_orders),
		cmocka_unit_test(large_becomes_small_and_large_again),
		cmocka_unit_test(invlpg_takes_all_of_a_large_page),
		cmocka_unit_test(a_table_becomes_data_and_data_a_table),
		cmocka_unit_test(tables_that_map_themselves_are_read_and_written_through_it),
		cmocka_unit_test(a_table_mapped_at_ten_addresses_is_protected_at_all),
		cmocka_unit_test(without_wp_supervisors_write_and_users_do_not),
		cmocka_unit_test(without_wp_smep_and_smap_still_hold),
		cmocka_unit_test(the_first_write_sets_dirty_and_again_after_it_was_cleared),
		cmocka_unit_test(every_part_of_32_bit_tables_follows_writes),
		cmocka_unit_test(pdptes_are_those_of_the_last_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
