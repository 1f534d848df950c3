/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest walk's modes: which registers make which, page sizes and reserved bits, PDPTEs,
 * addresses that are not canonical or carry a tag. SDM vol. 3, 4.1 to 4.5.
 */
#include "support/paged_guest.h"
#include "support/testing.h"

#define READ MV_ACCESS_READ
#define USER MV_ACCESS_USER
#define RSVD 0x09u /* P and RSVD */

#define CR0_PE	    1ULL
#define CR0_WP	    0x10000ULL
#define CR0_PG	    0x80000000ULL
#define CR4_PAE	    0x20ULL
#define CR4_PGE	    0x80ULL
#define CR4_CET	    0x800000ULL
#define CR4_LAM_SUP (1ULL << 28)
#define CR3_LAM_U57 (1ULL << 61)
#define CR3_LAM_U48 (1ULL << 62)
#define EFER_LME    0x100ULL
#define EFER_LMA    0x400ULL

static struct paged_guest guest;

static int init_with(uint64_t cr0, uint64_t cr3, uint64_t cr4, uint64_t efer, unsigned int width)
{
	struct mv_paging_registers registers = { .cr0 = cr0, .cr3 = cr3, .cr4 = cr4, .efer = efer };
	struct mv_cpu_model cpu = { .maxphyaddr = width };
	struct mv_paging paging, untouched;
	int error;

	memset(&paging, 0x5a, sizeof(paging));
	memcpy(&untouched, &paging, sizeof(paging));
	error = mv_paging_init(&paging, &registers, &cpu);
	if (error)
		assert_memory_equal(&paging, &untouched, sizeof(paging));
	return error;
}

static void impossible_registers_are_refused(void **state)
{
	const uint64_t pg = CR0_PG | CR0_PE;

	assert_int_equal(init_with(0, 0, 0, 0, 32), 0);
	assert_int_equal(init_with(pg, 0, 0, 0, 52), 0);
	assert_int_equal(init_with(CR0_PG, 0, 0, 0, 40), -EINVAL);
	assert_int_equal(init_with(pg, 0, 0, EFER_LME, 40), -EINVAL);
	assert_int_equal(init_with(CR0_PE, 0, 0, EFER_LME, 40), 0);
	assert_int_equal(init_with(pg, 0, CR4_PAE, EFER_LME | EFER_LMA, 40), 0);
	assert_int_equal(init_with(pg, 0, CR4_PAE, EFER_LMA, 40), -EINVAL);
	assert_int_equal(init_with(CR0_PE, 0, CR4_PAE, EFER_LME | EFER_LMA, 40), -EINVAL);
	assert_int_equal(init_with(pg, 0, CR4_CET, 0, 40), -EINVAL);
	assert_int_equal(init_with(pg | CR0_WP, 0, CR4_CET, 0, 40), 0);
	assert_int_equal(init_with(pg, 1ULL << 40, CR4_PAE, EFER_LME, 40), -EINVAL);
	assert_int_equal(init_with(pg, 1ULL << 40, CR4_PAE, EFER_LME, 41), 0);
	assert_int_equal(init_with(pg, 1ULL << 40, CR4_PAE, 0, 40), 0);
	assert_int_equal(init_with(pg, 0, 0, 0, 31), -EINVAL);
	assert_int_equal(init_with(pg, 0, 0, 0, 53), -EINVAL);
}

static void without_paging_an_address_is_physical_and_32_bits_wide(void **state)
{
	paged_init(&guest, PAGED_32);
	guest.registers.cr0 = CR0_PE;
	guest.gva = 0x1fedcba98;
	paged_load(&guest);
	assert_int_equal(paged_fault(&guest, READ | USER), PAGED_OK);
	assert_int_equal(guest.walk.gpa, 0xfedcba98);
	assert_int_equal(guest.walk.page_lg2, 32);
	assert_int_equal(guest.walk.attr,
			 MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_USER);
	assert_int_equal(guest.walk.steps, 0);
	assert_int_equal(guest.reads, 0);
}

static void each_step_is_told(void **state)
{
	for (enum paged_mode mode = 0; mode < PAGED_MODES; mode++) {
		paged_init(&guest, mode);
		assert_int_equal(paged_fault(&guest, 0), PAGED_OK);
		assert_int_equal(guest.walk.steps, guest.levels);
		assert_int_equal(guest.walk.level, 1);
		assert_int_equal(guest.walk.page_lg2, 12);
		assert_int_equal(guest.reads, guest.levels - (mode == PAGED_PAE));
		for (unsigned int i = 0; i < guest.walk.steps; i++) {
			const struct mv_walk_step *step = &guest.walk.step[i];

			assert_int_equal(step->level, guest.levels - i);
			assert_int_equal(step->gpa, paged_entry_gpa(&guest, step->level));
			assert_int_equal(step->entry, paged_get(&guest, step->level));
		}
	}
}

static void large_page(enum paged_mode mode, unsigned int level, uint64_t entry, uint64_t gpa,
		       unsigned int page_lg2)
{
	paged_init(&guest, mode);
	paged_set(&guest, level, entry | PTE_PS | PTE_ALL);
	assert_int_equal(paged_fault(&guest, READ | USER), PAGED_OK);
	assert_int_equal(guest.walk.page_lg2, page_lg2);
	assert_int_equal(guest.walk.level, level);
	assert_int_equal(guest.walk.gpa, gpa | (guest.gva & ((1ULL << page_lg2) - 1)));
}

static void large_pages_are_as_large_as_the_mode_says(void **state)
{
	large_page(PAGED_PSE, 2, 0xffc00000, 0xffc00000, 22);
	large_page(PAGED_PSE, 2, 0xffdfe000, 0xffffc00000, 22);
	large_page(PAGED_PAE, 2, 0xffffe00000, 0xffffe00000, 21);
	large_page(PAGED_4L, 2, 0xffffe00000, 0xffffe00000, 21);
	large_page(PAGED_4L, 3, 0xffc0000000, 0xffc0000000, 30);
	large_page(PAGED_5L, 3, 0xffc0000000, 0xffc0000000, 30);
}

static void reserved(unsigned int level, uint64_t base, unsigned int high, unsigned int low,
		     uint32_t error)
{
	for (unsigned int bit = low; bit <= high; bit++) {
		paged_set(&guest, level, base | 1ULL << bit);
		assert_int_equal(paged_fault(&guest, READ), error);
		assert_int_equal(guest.walk.level, level);
	}
}

static void bits_of_large_pages_below_the_address_are_reserved(void **state)
{
	paged_init(&guest, PAGED_4L);
	reserved(2, PTE_PS | PTE_ALL, 20, 13, RSVD);
	reserved(2, PTE_PS | PTE_ALL, 12, 12, PAGED_OK);
	paged_init(&guest, PAGED_4L);
	reserved(3, PTE_PS | PTE_ALL, 29, 13, RSVD);
	reserved(3, PTE_PS | PTE_ALL, 12, 12, PAGED_OK);
	paged_init(&guest, PAGED_PAE);
	reserved(2, PTE_PS | PTE_ALL, 20, 13, RSVD);
	reserved(2, PTE_PS | PTE_ALL, 62, 52, RSVD);
	paged_init(&guest, PAGED_PSE);
	reserved(2, PTE_PS | PTE_ALL, 21, 21, RSVD);
	reserved(2, PTE_PS | PTE_ALL, 20, 13, PAGED_OK);
}

static void address_bits_beyond_the_width_are_reserved(void **state)
{
	for (unsigned int width = 32; width <= 52; width += 4) {
		for (enum paged_mode mode = PAGED_PAE; mode < PAGED_MODES; mode++) {
			paged_init(&guest, mode);
			guest.cpu.maxphyaddr = width;
			paged_load(&guest);
			if (width < 52)
				reserved(1, PTE_ALL, 51, width, RSVD);
			reserved(1, PTE_ALL, width - 1, 12, PAGED_OK);
			paged_set(&guest, 2, PTE_ALL | 1ULL << 51);
			assert_int_equal(mv_guest_walk(&guest.paging, &guest.accessor, guest.gva,
						       READ, &guest.walk),
					 width < 52 ? 0 : -EFAULT);
		}
	}
}

static void pse36_reaches_as_far_as_the_width(void **state)
{
	paged_init(&guest, PAGED_PSE);
	guest.cpu.maxphyaddr = 36;
	paged_load(&guest);
	reserved(2, PTE_PS | PTE_ALL, 21, 17, RSVD);
	reserved(2, PTE_PS | PTE_ALL, 16, 13, PAGED_OK);
	guest.cpu.features = 0;
	paged_load(&guest);
	reserved(2, PTE_PS | PTE_ALL, 21, 13, RSVD);
}

static void page_size_is_reserved_or_ignored_where_there_are_no_large_pages(void **state)
{
	for (enum paged_mode mode = PAGED_4L; mode < PAGED_MODES; mode++) {
		paged_init(&guest, mode);
		for (unsigned int level = 4; level <= guest.levels; level++) {
			uint64_t entry = paged_get(&guest, level);

			reserved(level, entry, 7, 7, RSVD);
			paged_set(&guest, level, entry);
		}
		guest.cpu.features &= ~MV_CPU_1G;
		paged_load(&guest);
		reserved(3, PTE_ALL, 7, 7, RSVD);
	}
	paged_init(&guest, PAGED_32);
	paged_set(&guest, 2, paged_get(&guest, 2) | PTE_PS);
	assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
	assert_int_equal(guest.walk.page_lg2, 12);
}

static void amd_reserves_bit_8_above_level_3(void **state)
{
	for (int amd = 0; amd < 2; amd++) {
		paged_init(&guest, PAGED_5L);
		guest.cpu.features |= amd ? MV_CPU_AMD : 0;
		paged_load(&guest);
		for (unsigned int level = 2; level <= 5; level++) {
			uint64_t entry = paged_get(&guest, level);

			paged_set(&guest, level, entry | PTE_G);
			assert_int_equal(paged_fault(&guest, READ),
					 amd && level >= 4 ? RSVD : PAGED_OK);
			paged_set(&guest, level, entry);
		}
		paged_set(&guest, 3, PTE_ALL | PTE_PS | PTE_G);
		assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
	}
}

static void the_leaf_tells_type_and_global(void **state)
{
	paged_init(&guest, PAGED_4L);
	paged_set(&guest, 1, PTE_ALL | PTE_G | 1 << 3 | 1 << 7);
	assert_int_equal(paged_fault(&guest, 0), PAGED_OK);
	assert_int_equal(MV_ATTR_TYPE_OF(guest.walk.attr), 5);
	assert_false(guest.walk.attr & MV_ATTR_GLOBAL);
	guest.registers.cr4 |= CR4_PGE;
	paged_load(&guest);
	assert_int_equal(paged_fault(&guest, 0), PAGED_OK);
	assert_true(guest.walk.attr & MV_ATTR_GLOBAL);
	paged_set(&guest, 2, PTE_ALL | PTE_PS | 1 << 4 | 1 << 12);
	assert_int_equal(paged_fault(&guest, 0), PAGED_OK);
	assert_int_equal(MV_ATTR_TYPE_OF(guest.walk.attr), 6);
}

/* --- PDPTEs --------------------------------------------------------------------------------- */

static void a_reserved_bit_in_any_pdpte_refuses_the_load(void **state)
{
	for (unsigned int i = 0; i < 4; i++) {
		for (unsigned int bit = 1; bit < 64; bit++) {
			bool bad = (bit <= 2) || (bit >= 5 && bit <= 8) || bit >= 40;
			uint64_t before[4];

			paged_init(&guest, PAGED_PAE);
			memcpy(before, guest.paging.pdpte, sizeof(before));
			paged_store(&guest, paged_table_gpa(&guest, 3) + 8 * i, 1 | 1ULL << bit);
			assert_int_equal(mv_paging_load_pdptes(&guest.paging, &guest.accessor),
					 bad ? -EINVAL : 0);
			if (bad)
				assert_memory_equal(before, guest.paging.pdpte, sizeof(before));
			paged_store(&guest, paged_table_gpa(&guest, 3) + 8 * i, 1ULL << bit);
			assert_int_equal(mv_paging_load_pdptes(&guest.paging, &guest.accessor), 0);
		}
	}
}

static void pdptes_count_as_they_were_at_the_load(void **state)
{
	paged_init(&guest, PAGED_PAE);
	paged_set(&guest, 3, 0);
	assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
	paged_load(&guest);
	assert_int_equal(paged_fault(&guest, READ), 0);
	assert_int_equal(guest.walk.level, 3);
}

static void pdptes_may_lie_at_any_32_bytes(void **state)
{
	paged_init(&guest, PAGED_PAE);
	paged_store(&guest, 0x9fe0 + 8 * 2, paged_get(&guest, 3));
	guest.registers.cr3 = 0x700009fe0;
	guest.registers.cr3 |= 0x18;
	paged_load(&guest);
	assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
	assert_int_equal(guest.walk.step[0].gpa, 0x9fe0 + 8 * 2);
}

static void a_failed_load_of_pdptes_says_why(void **state)
{
	paged_init(&guest, PAGED_PAE);
	guest.fail_gpa = paged_table_gpa(&guest, 3) + 24;
	guest.fail_error = -EIO;
	assert_int_equal(mv_paging_load_pdptes(&guest.paging, &guest.accessor), -EIO);
	paged_init(&guest, PAGED_4L);
	guest.fail_gpa = paged_table_gpa(&guest, 4);
	assert_int_equal(mv_paging_load_pdptes(&guest.paging, &guest.accessor), 0);
	assert_int_equal(guest.reads, 0);
}

/* --- addresses ------------------------------------------------------------------------------ */

static enum mv_walk_kind kind_of(uint64_t gva, unsigned int access)
{
	memset(&guest.walk, 0x5a, sizeof(guest.walk));
	assert_int_equal(mv_guest_walk(&guest.paging, &guest.accessor, gva, access, &guest.walk),
			 0);
	if (guest.walk.kind == MV_WALK_NOT_CANONICAL)
		assert_int_equal(guest.walk.steps | guest.walk.level | guest.walk.error_code |
					 guest.walk.gpa | guest.walk.page_lg2 | guest.walk.attr,
				 0);
	return guest.walk.kind;
}

static void an_address_that_is_not_canonical_is_no_page_fault(void **state)
{
	paged_init(&guest, PAGED_4L);
	for (unsigned int bit = 47; bit < 64; bit++)
		assert_int_equal(kind_of(guest.gva ^ 1ULL << bit, READ), MV_WALK_NOT_CANONICAL);
	assert_int_equal(kind_of(0x00007fffffffffff, READ), MV_WALK_PAGE_FAULT);
	assert_int_equal(kind_of(0x0000800000000000, READ), MV_WALK_NOT_CANONICAL);
	assert_int_equal(kind_of(0xffff7fffffffffff, READ), MV_WALK_NOT_CANONICAL);
	paged_init(&guest, PAGED_5L);
	for (unsigned int bit = 56; bit < 64; bit++)
		assert_int_equal(kind_of(guest.gva ^ 1ULL << bit, READ), MV_WALK_NOT_CANONICAL);
	assert_int_equal(kind_of(0x00ffffffffffffff, READ), MV_WALK_PAGE_FAULT);
	assert_int_equal(kind_of(0x0100000000000000, READ), MV_WALK_NOT_CANONICAL);
}

static void short_modes_take_the_low_32_bits(void **state)
{
	for (enum paged_mode mode = 0; mode <= PAGED_PAE; mode++) {
		paged_init(&guest, mode);
		guest.gva |= 0xabcd00000000;
		assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
	}
}

static void map_low(enum paged_mode mode)
{
	paged_init(&guest, mode);
	guest.gva &= mode == PAGED_4L ? 0x7fffffffffff : 0xffffffffffffff;
	for (unsigned int level = guest.levels; level > 1; level--)
		paged_set(&guest, level, paged_table_gpa(&guest, level - 1) | PTE_ALL);
	paged_set(&guest, 1, 0x7654000 | PTE_ALL);
}

static void a_tag_on_a_user_pointer_is_dropped(void **state)
{
	const unsigned int not_data[] = { MV_ACCESS_FETCH, READ | MV_ACCESS_IMPLICIT };

	map_low(PAGED_4L);
	guest.registers.cr3 |= CR3_LAM_U48;
	paged_load(&guest);
	assert_int_equal(kind_of(guest.gva | 0x7fffULL << 48, READ), MV_WALK_OK);
	assert_int_equal(guest.walk.gpa, 0x7654123);
	assert_int_equal(kind_of(guest.gva | 1ULL << 47, READ), MV_WALK_NOT_CANONICAL);
	assert_int_equal(kind_of(guest.gva | 1ULL << 63, READ), MV_WALK_NOT_CANONICAL);
	for (unsigned int i = 0; i < COUNT_OF(not_data); i++)
		assert_int_equal(kind_of(guest.gva | 1ULL << 48, not_data[i]),
				 MV_WALK_NOT_CANONICAL);

	/* Bit 61 goes before bit 62. */
	guest.registers.cr3 |= CR3_LAM_U57;
	paged_load(&guest);
	assert_int_equal(kind_of(guest.gva | 0x3fULL << 57, READ), MV_WALK_OK);
	assert_int_equal(kind_of(guest.gva | 1ULL << 56, READ), MV_WALK_NOT_CANONICAL);
	assert_int_equal(kind_of(guest.gva | 1ULL << 48, READ), MV_WALK_NOT_CANONICAL);

	map_low(PAGED_5L);
	guest.registers.cr3 |= CR3_LAM_U57;
	paged_load(&guest);
	assert_int_equal(kind_of(guest.gva | 0x3fULL << 57, READ), MV_WALK_OK);
	assert_int_equal(kind_of(guest.gva | 1ULL << 56, READ), MV_WALK_NOT_CANONICAL);
}

static void a_tag_on_a_supervisor_pointer_is_dropped(void **state)
{
	for (enum paged_mode mode = PAGED_4L; mode < PAGED_MODES; mode++) {
		uint64_t tag = mode == PAGED_4L ? 0x7fffULL << 48 : 0x3fULL << 57;

		paged_init(&guest, mode);
		assert_int_equal(kind_of(guest.gva & ~tag, READ), MV_WALK_NOT_CANONICAL);
		guest.registers.cr4 |= CR4_LAM_SUP;
		paged_load(&guest);
		assert_int_equal(kind_of(guest.gva & ~tag, READ), MV_WALK_OK);
		assert_int_equal(guest.walk.gpa, 0x7654123);
		assert_int_equal(kind_of(guest.gva & ~(1ULL << 63), READ), MV_WALK_NOT_CANONICAL);
		assert_int_equal(kind_of(guest.gva & ~tag, MV_ACCESS_FETCH), MV_WALK_NOT_CANONICAL);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(impossible_registers_are_refused),
		cmocka_unit_test(without_paging_an_address_is_physical_and_32_bits_wide),
		cmocka_unit_test(each_step_is_told),
		cmocka_unit_test(large_pages_are_as_large_as_the_mode_says),
		cmocka_unit_test(bits_of_large_pages_below_the_address_are_reserved),
		cmocka_unit_test(address_bits_beyond_the_width_are_reserved),
		cmocka_unit_test(pse36_reaches_as_far_as_the_width),
		cmocka_unit_test(page_size_is_reserved_or_ignored_where_there_are_no_large_pages),
		cmocka_unit_test(amd_reserves_bit_8_above_level_3),
		cmocka_unit_test(the_leaf_tells_type_and_global),
		cmocka_unit_test(a_reserved_bit_in_any_pdpte_refuses_the_load),
		cmocka_unit_test(pdptes_count_as_they_were_at_the_load),
		cmocka_unit_test(pdptes_may_lie_at_any_32_bytes),
		cmocka_unit_test(a_failed_load_of_pdptes_says_why),
		cmocka_unit_test(an_address_that_is_not_canonical_is_no_page_fault),
		cmocka_unit_test(short_modes_take_the_low_32_bits),
		cmocka_unit_test(a_tag_on_a_user_pointer_is_dropped),
		cmocka_unit_test(a_tag_on_a_supervisor_pointer_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
