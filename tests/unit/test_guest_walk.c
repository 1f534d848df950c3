/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest walk's rights, one rule of the manual after the other: SDM vol. 3, 4.6 and 4.7.
 * Formats and addresses: test_guest_walk_modes.c. Accessed, dirty and what goes wrong with
 * memory: test_guest_walk_memory.c.
 */
#include "support/paged_guest.h"
#include "support/testing.h"

#define READ	 MV_ACCESS_READ
#define WRITE	 MV_ACCESS_WRITE
#define FETCH	 MV_ACCESS_FETCH
#define USER	 MV_ACCESS_USER
#define AC	 MV_ACCESS_AC
#define IMPLICIT MV_ACCESS_IMPLICIT
#define SHADOW	 MV_ACCESS_SHADOW_STACK

#define P    0x01u
#define W    0x02u
#define U    0x04u
#define RSVD 0x08u
#define ID   0x10u
#define PK   0x20u
#define SS   0x40u

#define CR0_WP	 0x10000ULL
#define CR4_SMEP 0x100000ULL
#define CR4_SMAP 0x200000ULL
#define CR4_PKE	 0x400000ULL
#define CR4_PKS	 0x1000000ULL
#define EFER_NXE 0x800ULL

static struct paged_guest guest;

static bool has_rights(enum paged_mode mode, unsigned int level)
{
	return mode != PAGED_PAE || level < 3;
}

static void with_cr4(uint64_t bits)
{
	guest.registers.cr4 |= bits;
	paged_load(&guest);
}

static void without_wp(void)
{
	guest.registers.cr0 &= ~CR0_WP;
	paged_load(&guest);
}

static void without_nxe(void)
{
	guest.registers.efer &= ~EFER_NXE;
	paged_load(&guest);
}

static void change_entry(unsigned int level, uint64_t clear, uint64_t set)
{
	paged_set(&guest, level, (paged_get(&guest, level) & ~clear) | set);
	if (guest.mode == PAGED_PAE && level == 3)
		paged_load(&guest);
}

static void leaf_becomes(uint64_t bits)
{
	paged_set(&guest, 1, 0x7654000 | bits);
}

static void each_access_passes(void **state)
{
	for (enum paged_mode mode = 0; mode < PAGED_MODES; mode++) {
		for (unsigned int access = 0; access < 16; access++) {
			paged_init(&guest, mode);
			assert_int_equal(paged_fault(&guest, access), PAGED_OK);
			assert_int_equal(guest.walk.gpa, 0x7654123);
		}
	}
}

/* Also where the entry is otherwise all ones, reserved bits included. */
static void absence_ends_the_walk_whatever_else_the_entry_says(void **state)
{
	for (enum paged_mode mode = 0; mode < PAGED_MODES; mode++) {
		paged_init(&guest, mode);
		for (unsigned int level = 1; level <= guest.levels; level++) {
			uint64_t before = paged_get(&guest, level);

			for (int ones = 0; ones < 2; ones++) {
				paged_set(&guest, level, ones ? ~1ULL : 0);
				paged_load(&guest);
				assert_int_equal(paged_fault(&guest, READ), 0);
				assert_int_equal(paged_fault(&guest, WRITE | USER), W | U);
				assert_int_equal(guest.walk.level, level);
				assert_int_equal(guest.walk.steps, guest.levels - level + 1);
			}
			paged_set(&guest, level, before);
			paged_load(&guest);
		}
	}
}

static void a_reserved_bit_comes_before_rights_and_keys(void **state)
{
	for (unsigned int level = 1; level <= 4; level++) {
		paged_init(&guest, PAGED_4L);
		guest.registers.pkru = 0xffffffff;
		with_cr4(CR4_PKE);
		change_entry(level, PTE_U | PTE_W, 1ULL << 51);
		assert_int_equal(paged_fault(&guest, WRITE | USER), P | W | U | RSVD);
		assert_int_equal(guest.walk.level, level);
	}
}

static void all_levels_together_grant_user_and_write(void **state)
{
	for (enum paged_mode mode = 0; mode < PAGED_MODES; mode++) {
		paged_init(&guest, mode);
		for (unsigned int level = 1; level <= guest.levels; level++) {
			if (!has_rights(mode, level))
				continue;
			change_entry(level, PTE_U, 0);
			assert_int_equal(paged_fault(&guest, READ | USER), P | U);
			assert_int_equal(guest.walk.level, 1);
			assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
			assert_int_equal(guest.walk.attr & MV_ATTR_USER, 0);
			change_entry(level, PTE_W, PTE_U);
			assert_int_equal(paged_fault(&guest, WRITE | USER), P | W | U);
			assert_int_equal(paged_fault(&guest, READ | USER), PAGED_OK);
			assert_int_equal(guest.walk.attr & MV_ATTR_WRITE, 0);
			change_entry(level, 0, PTE_W);
		}
	}
}

static void one_level_forbids_to_fetch_for_all(void **state)
{
	for (enum paged_mode mode = PAGED_PAE; mode < PAGED_MODES; mode++) {
		paged_init(&guest, mode);
		for (unsigned int level = 1; level <= guest.levels; level++) {
			if (!has_rights(mode, level))
				continue;
			change_entry(level, 0, PTE_NX);
			assert_int_equal(paged_fault(&guest, FETCH), P | ID);
			assert_int_equal(paged_fault(&guest, FETCH | USER), P | ID | U);
			assert_int_equal(paged_fault(&guest, READ | USER), PAGED_OK);
			assert_int_equal(guest.walk.attr & MV_ATTR_EXEC, 0);
			change_entry(level, PTE_NX, 0);
		}
	}
}

static void no_execute_is_reserved_while_nxe_is_off(void **state)
{
	for (enum paged_mode mode = PAGED_PAE; mode < PAGED_MODES; mode++) {
		paged_init(&guest, mode);
		without_nxe();
		for (unsigned int level = 1; level <= guest.levels; level++) {
			if (!has_rights(mode, level))
				continue;
			change_entry(level, 0, PTE_NX);
			assert_int_equal(paged_fault(&guest, READ), P | RSVD);
			assert_int_equal(guest.walk.level, level);
			change_entry(level, PTE_NX, 0);
		}
	}
}

static void write_protection_holds_a_supervisor_only_with_wp(void **state)
{
	paged_init(&guest, PAGED_4L);
	leaf_becomes(PTE_P | PTE_U);
	assert_int_equal(paged_fault(&guest, WRITE), P | W);
	without_wp();
	assert_int_equal(paged_fault(&guest, WRITE | USER), P | W | U);
	assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
	assert_true(paged_get(&guest, 1) & PTE_D);
}

static void smep_keeps_a_supervisor_from_user_code_whatever_wp(void **state)
{
	paged_init(&guest, PAGED_4L);
	with_cr4(CR4_SMEP);
	for (int wp = 1; wp >= 0; wp--) {
		assert_int_equal(paged_fault(&guest, FETCH), P | ID);
		assert_int_equal(paged_fault(&guest, FETCH | AC), P | ID);
		assert_int_equal(paged_fault(&guest, FETCH | USER), PAGED_OK);
		assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
		without_wp();
	}
	change_entry(3, PTE_U, 0);
	assert_int_equal(paged_fault(&guest, FETCH), PAGED_OK);
}

static void smap_keeps_a_supervisor_from_user_data_unless_ac_is_set(void **state)
{
	paged_init(&guest, PAGED_4L);
	with_cr4(CR4_SMAP);
	for (int wp = 1; wp >= 0; wp--) {
		assert_int_equal(paged_fault(&guest, READ), P);
		assert_int_equal(paged_fault(&guest, WRITE), P | W);
		assert_int_equal(paged_fault(&guest, READ | AC), PAGED_OK);
		assert_int_equal(paged_fault(&guest, WRITE | AC), PAGED_OK);
		assert_int_equal(paged_fault(&guest, READ | USER), PAGED_OK);
		assert_int_equal(paged_fault(&guest, FETCH), PAGED_OK);
		without_wp();
	}
	change_entry(2, PTE_U, 0);
	assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
}

/* Descriptor tables, the TSS: as a supervisor, even by code of CPL 3. */
static void ac_does_not_excuse_implicit_accesses(void **state)
{
	paged_init(&guest, PAGED_4L);
	with_cr4(CR4_SMAP);
	assert_int_equal(paged_fault(&guest, READ | IMPLICIT | AC), P);
	assert_int_equal(paged_fault(&guest, READ | IMPLICIT | USER | AC), P);
	assert_int_equal(paged_fault(&guest, WRITE | IMPLICIT), P | W);
	leaf_becomes(PTE_P | PTE_W);
	assert_int_equal(paged_fault(&guest, READ | IMPLICIT | USER), PAGED_OK);
}

static void a_key_denies_access_or_writes(void **state)
{
	for (unsigned int key = 0; key < 16; key++) {
		paged_init(&guest, PAGED_5L);
		leaf_becomes(PTE_ALL | PTE_KEY(key));
		guest.registers.pkru = 1u << 2 * key;
		with_cr4(CR4_PKE);
		assert_int_equal(paged_fault(&guest, READ | USER), P | U | PK);
		assert_int_equal(paged_fault(&guest, READ), P | PK);
		assert_int_equal(paged_fault(&guest, WRITE), P | W | PK);
		assert_int_equal(paged_fault(&guest, FETCH | USER), PAGED_OK);
		guest.registers.pkru = 2u << 2 * key;
		paged_load(&guest);
		assert_int_equal(paged_fault(&guest, READ | USER), PAGED_OK);
		assert_int_equal(MV_ATTR_PKEY_OF(guest.walk.attr), key);
		assert_int_equal(paged_fault(&guest, WRITE | USER), P | W | U | PK);
		assert_int_equal(paged_fault(&guest, WRITE), P | W | PK);
		without_wp();
		assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
		assert_int_equal(paged_fault(&guest, WRITE | USER), P | W | U | PK);
	}
}

static void keys_count_in_leaves_of_long_mode_only(void **state)
{
	paged_init(&guest, PAGED_4L);
	guest.registers.pkru = guest.registers.pkrs = 1u << 2 * 7;
	leaf_becomes(PTE_ALL | PTE_KEY(7));
	paged_load(&guest);
	assert_int_equal(paged_fault(&guest, READ | USER), PAGED_OK);
	leaf_becomes(PTE_ALL);
	for (unsigned int level = 2; level <= 4; level++)
		change_entry(level, 0, PTE_KEY(7));
	with_cr4(CR4_PKE | CR4_PKS);
	assert_int_equal(paged_fault(&guest, READ | USER), PAGED_OK);
	leaf_becomes(PTE_ALL | PTE_KEY(7));
	assert_int_equal(paged_fault(&guest, READ | USER), P | U | PK);

	paged_init(&guest, PAGED_PAE);
	guest.registers.pkru = 0xffffffff;
	with_cr4(CR4_PKE);
	assert_int_equal(paged_fault(&guest, READ | USER), PAGED_OK);
}

static void pkru_is_for_user_pages_and_pkrs_for_the_others(void **state)
{
	paged_init(&guest, PAGED_4L);
	leaf_becomes(PTE_P | PTE_W | PTE_KEY(3));
	guest.registers.pkru = 0xffffffff;
	with_cr4(CR4_PKE);
	assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
	guest.registers.pkru = 0;
	guest.registers.pkrs = 2u << 2 * 3;
	with_cr4(CR4_PKS);
	assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
	assert_int_equal(paged_fault(&guest, WRITE), P | W | PK);
	leaf_becomes(PTE_ALL | PTE_KEY(3));
	assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
	leaf_becomes(PTE_P | PTE_W | PTE_KEY(3));
	without_wp();
	assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
	/* Not to be reached by a user in any case; and PKRS, without CR0.WP, is not why. */
	assert_int_equal(paged_fault(&guest, WRITE | USER), P | W | U);
}

static void the_key_is_told_even_where_another_right_is_missing(void **state)
{
	paged_init(&guest, PAGED_4L);
	guest.registers.pkru = 2u << 2 * 3;
	guest.registers.pkrs = 1u << 2 * 3;
	leaf_becomes(PTE_P | PTE_U | PTE_KEY(3));
	with_cr4(CR4_PKE | CR4_PKS);
	assert_int_equal(paged_fault(&guest, WRITE | USER), P | W | U | PK);
	leaf_becomes(PTE_P | PTE_KEY(3));
	assert_int_equal(paged_fault(&guest, READ | USER), P | U | PK);
	with_cr4(CR4_SMAP);
	leaf_becomes(PTE_P | PTE_U | PTE_KEY(3));
	assert_int_equal(paged_fault(&guest, READ), P);
	assert_int_equal(paged_fault(&guest, WRITE), P | W | PK);
}

static void fetch_is_told_only_where_fetches_can_be_forbidden(void **state)
{
	for (enum paged_mode mode = 0; mode < PAGED_MODES; mode++) {
		bool knows_nx = mode >= PAGED_PAE;

		paged_init(&guest, mode);
		leaf_becomes(0);
		assert_int_equal(paged_fault(&guest, FETCH), knows_nx ? ID : 0);
		without_nxe();
		assert_int_equal(paged_fault(&guest, FETCH | USER), U);
		with_cr4(CR4_SMEP);
		assert_int_equal(paged_fault(&guest, FETCH), ID);
		assert_int_equal(paged_fault(&guest, READ), 0);
	}
}

static void a_shadow_stack_is_read_only_and_dirty_below_writable_levels(void **state)
{
	for (unsigned int access = READ; access <= WRITE; access <<= 1) {
		uint32_t w = access == WRITE ? W : 0;

		paged_init(&guest, PAGED_4L);
		assert_int_equal(paged_fault(&guest, access | USER | SHADOW), P | w | U | SS);
		leaf_becomes(PTE_P | PTE_U);
		assert_int_equal(paged_fault(&guest, access | USER | SHADOW), P | w | U | SS);
		leaf_becomes(PTE_ALL | PTE_D);
		assert_int_equal(paged_fault(&guest, access | USER | SHADOW), P | w | U | SS);
		leaf_becomes(PTE_P | PTE_U | PTE_D);
		assert_int_equal(paged_fault(&guest, access | USER | SHADOW), PAGED_OK);
		assert_int_equal(paged_fault(&guest, WRITE | USER), P | W | U);
		for (unsigned int level = 2; level <= 4; level++) {
			change_entry(level, PTE_W, 0);
			assert_int_equal(paged_fault(&guest, access | USER | SHADOW),
					 P | w | U | SS);
			change_entry(level, 0, PTE_W);
		}
	}
	leaf_becomes(0);
	assert_int_equal(paged_fault(&guest, READ | SHADOW), SS);
}

static void each_ring_has_shadow_stacks_of_its_own(void **state)
{
	paged_init(&guest, PAGED_PAE);
	leaf_becomes(PTE_P | PTE_D);
	assert_int_equal(paged_fault(&guest, WRITE | SHADOW), PAGED_OK);
	assert_int_equal(paged_fault(&guest, WRITE | SHADOW | USER), P | W | U | SS);
	leaf_becomes(PTE_P | PTE_U | PTE_D);
	assert_int_equal(paged_fault(&guest, WRITE | SHADOW), P | W | SS);
	assert_int_equal(paged_fault(&guest, WRITE | SHADOW | USER), PAGED_OK);
}

static void to_translate_only_asks_no_rights(void **state)
{
	paged_init(&guest, PAGED_4L);
	guest.registers.pkru = guest.registers.pkrs = 0xffffffff;
	with_cr4(CR4_SMAP | CR4_SMEP | CR4_PKE | CR4_PKS);
	leaf_becomes(PTE_P | PTE_NX);
	assert_int_equal(paged_fault(&guest, USER), PAGED_OK);
	assert_int_equal(paged_fault(&guest, 0), PAGED_OK);
	leaf_becomes(PTE_ALL);
	assert_int_equal(paged_fault(&guest, 0), PAGED_OK);
	leaf_becomes(PTE_ALL | 1ULL << 45);
	assert_int_equal(paged_fault(&guest, 0), P | RSVD);
}

static void a_read_and_write_needs_both(void **state)
{
	paged_init(&guest, PAGED_4L);
	assert_int_equal(paged_fault(&guest, READ | WRITE | USER), PAGED_OK);
	leaf_becomes(PTE_P | PTE_U);
	assert_int_equal(paged_fault(&guest, READ | WRITE | USER), P | W | U);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_access_passes),
		cmocka_unit_test(absence_ends_the_walk_whatever_else_the_entry_says),
		cmocka_unit_test(a_reserved_bit_comes_before_rights_and_keys),
		cmocka_unit_test(all_levels_together_grant_user_and_write),
		cmocka_unit_test(one_level_forbids_to_fetch_for_all),
		cmocka_unit_test(no_execute_is_reserved_while_nxe_is_off),
		cmocka_unit_test(write_protection_holds_a_supervisor_only_with_wp),
		cmocka_unit_test(smep_keeps_a_supervisor_from_user_code_whatever_wp),
		cmocka_unit_test(smap_keeps_a_supervisor_from_user_data_unless_ac_is_set),
		cmocka_unit_test(ac_does_not_excuse_implicit_accesses),
		cmocka_unit_test(a_key_denies_access_or_writes),
		cmocka_unit_test(keys_count_in_leaves_of_long_mode_only),
		cmocka_unit_test(pkru_is_for_user_pages_and_pkrs_for_the_others),
		cmocka_unit_test(the_key_is_told_even_where_another_right_is_missing),
		cmocka_unit_test(fetch_is_told_only_where_fetches_can_be_forbidden),
		cmocka_unit_test(a_shadow_stack_is_read_only_and_dirty_below_writable_levels),
		cmocka_unit_test(each_ring_has_shadow_stacks_of_its_own),
		cmocka_unit_test(to_translate_only_asks_no_rights),
		cmocka_unit_test(a_read_and_write_needs_both),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
