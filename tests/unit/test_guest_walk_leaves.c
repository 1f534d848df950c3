/* SPDX-License-Identifier: BSD-2-Clause */
/* All leaves of a guest's address space: order, rights, ranges, and what is passed over. */
#include "support/paged_guest.h"
#include "support/testing.h"

static struct paged_guest guest;

struct found {
	struct mv_mapping mapping[64];
	unsigned int count;
	unsigned int stop_after;
};

static int note_leaf(void *ctx, const struct mv_mapping *mapping)
{
	struct found *found = ctx;

	assert_true(found->count < COUNT_OF(found->mapping));
	found->mapping[found->count++] = *mapping;
	return found->count == found->stop_after ? 17 : 0;
}

static int leaves(uint64_t first, uint64_t last, struct found *found)
{
	found->count = 0;
	return mv_guest_for_each_leaf(&guest.paging, &guest.accessor, first, last, note_leaf,
				      found);
}

static void one_leaf_of_each_mode(void **state)
{
	for (enum paged_mode mode = 0; mode < PAGED_MODES; mode++) {
		struct found found = { .count = 0 };

		paged_init(&guest, mode);
		assert_int_equal(leaves(0, mode <= PAGED_PAE ? UINT32_MAX : UINT64_MAX, &found), 0);
		assert_int_equal(found.count, 1);
		assert_int_equal(found.mapping[0].address, guest.gva & ~0xfffULL);
		assert_int_equal(found.mapping[0].phys, 0x7654000);
		assert_int_equal(found.mapping[0].page_lg2, 12);
		assert_int_equal(found.mapping[0].level, 1);
		assert_int_equal(guest.changes, 0);
		for (unsigned int level = 1; level <= guest.levels; level++)
			assert_false(paged_get(&guest, level) & PTE_A);
	}
}

/* Every leaf is what a walk to its first address says. */
static void leaves_grant_what_a_walk_says(void **state)
{
	struct chance chance = chance_of(test_seed(), 0);

	for (unsigned int round = 0; round < 2000; round++) {
		struct found found = { .count = 0 };

		paged_init(&guest, PAGED_5L);
		for (unsigned int level = 1; level <= 5; level++) {
			uint64_t entry = paged_get(&guest, level);
			uint64_t noise = chance_next(&chance);

			paged_set(&guest, level,
				  entry ^ (noise & (PTE_W | PTE_U | PTE_NX | PTE_G | PTE_KEY(15))));
		}
		if (chance_one_in(&chance, 4))
			paged_set(&guest, 3, 0x40000000 | PTE_PS | PTE_ALL);
		assert_int_equal(leaves(0, UINT64_MAX, &found), 0);
		assert_int_equal(paged_fault(&guest, 0), PAGED_OK);
		assert_int_equal(found.count, 1);
		assert_int_equal(found.mapping[0].attr, guest.walk.attr);
		assert_int_equal(found.mapping[0].page_lg2, guest.walk.page_lg2);
		assert_int_equal(found.mapping[0].phys,
				 guest.walk.gpa & ~((1ULL << guest.walk.page_lg2) - 1));
	}
}

/* Page n of the guest at the nth entry, in both halves of the space. */
static void map_sixteen(void)
{
	paged_init(&guest, PAGED_4L);
	memset(guest.page, 0, sizeof(guest.page));
	guest.page[1][3] = guest.page[1][400] = 0x2000 | PTE_ALL;
	guest.page[2][7] = 0x3000 | PTE_ALL;
	guest.page[2][9] = 0x80000000 | PTE_ALL | PTE_PS;
	guest.page[3][1] = 0x4000 | PTE_ALL;
	guest.page[3][500] = 0x600000 | PTE_ALL | PTE_PS;
	for (unsigned int i = 0; i < 6; i++)
		guest.page[4][i * 90] = (0x100000 + i * 0x1000) | PTE_ALL;
}

#define LOW  0x00000181c0000000ULL /* entries 3 and 7 */
#define HIGH 0xffffc801c0000000ULL /* entries 400 and 7 */

static void leaves_come_in_ascending_order_across_the_hole(void **state)
{
	struct found found = { .count = 0 };

	map_sixteen();
	assert_int_equal(leaves(0, UINT64_MAX, &found), 0);
	assert_int_equal(found.count, 16);
	assert_int_equal(found.mapping[0].address, LOW + 0x200000);
	assert_int_equal(found.mapping[6].address, LOW + (500ULL << 21));
	assert_int_equal(found.mapping[6].page_lg2, 21);
	assert_int_equal(found.mapping[7].address, LOW + (2ULL << 30));
	assert_int_equal(found.mapping[7].page_lg2, 30);
	assert_int_equal(found.mapping[8].address, HIGH + 0x200000);
	for (unsigned int i = 1; i < found.count; i++)
		assert_true(found.mapping[i].address > found.mapping[i - 1].address);
}

static void a_range_takes_what_lies_in_it_even_in_part(void **state)
{
	struct found found = { .count = 0 };

	map_sixteen();
	assert_int_equal(leaves(LOW, LOW + 0x1fffff, &found), 0);
	assert_int_equal(found.count, 0);
	assert_int_equal(leaves(LOW + 0x200fff, LOW + 0x200fff, &found), 0);
	assert_int_equal(found.count, 1);
	assert_int_equal(leaves(LOW + 0x201000, LOW + 0x200000 + 180 * 0x1000, &found), 0);
	assert_int_equal(found.count, 2);
	assert_int_equal(leaves(LOW + (2ULL << 30) + 5, HIGH - 1, &found), 0);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.mapping[0].address, LOW + (2ULL << 30));
	assert_int_equal(leaves(HIGH, UINT64_MAX, &found), 0);
	assert_int_equal(found.count, 8);
}

static void ranges_that_are_none_are_refused(void **state)
{
	struct found found = { .count = 0 };

	map_sixteen();
	assert_int_equal(leaves(1, 0, &found), -EINVAL);
	assert_int_equal(leaves(0, 1ULL << 47, &found), -EINVAL);
	assert_int_equal(leaves(1ULL << 63, UINT64_MAX, &found), -EINVAL);
	paged_init(&guest, PAGED_PAE);
	assert_int_equal(leaves(0, 1ULL << 32, &found), -EINVAL);
}

static void it_ends_where_the_caller_says(void **state)
{
	struct found found = { .stop_after = 5 };

	map_sixteen();
	assert_int_equal(leaves(0, UINT64_MAX, &found), 17);
	assert_int_equal(found.count, 5);
}

static void bad_entries_and_missing_tables_are_passed_over(void **state)
{
	struct found found = { .count = 0 };

	map_sixteen();
	guest.page[4][90] |= 1ULL << 45;
	guest.page[3][1] = 0x7ff000 | PTE_ALL; /* outside memory */
	guest.page[3][2] = 0x4000 | PTE_ALL;
	assert_int_equal(leaves(0, UINT64_MAX, &found), 0);
	assert_int_equal(found.count, 14);
	assert_int_equal(found.mapping[1].address, LOW + 0x400000 + 180 * 0x1000);
}

static void other_errors_of_the_accessor_are_passed_on(void **state)
{
	struct found found = { .count = 0 };

	map_sixteen();
	guest.fail_gpa = 0x4000 + 8 * 200;
	guest.fail_error = -EIO;
	assert_int_equal(leaves(0, UINT64_MAX, &found), -EIO);
	assert_int_equal(found.count, 3);
}

static void without_paging_all_is_one_leaf(void **state)
{
	struct found found = { .count = 0 };

	paged_init(&guest, PAGED_32);
	guest.registers.cr0 = 1;
	paged_load(&guest);
	assert_int_equal(leaves(0, UINT32_MAX, &found), 0);
	assert_int_equal(found.count, 1);
	assert_int_equal(found.mapping[0].address, 0);
	assert_int_equal(found.mapping[0].phys, 0);
	assert_int_equal(found.mapping[0].page_lg2, 32);
	assert_int_equal(leaves(0, 1ULL << 32, &found), -EINVAL);
}

/* A guest makes 2^48 bytes of pages out of one table; the caller ends it. */
static void a_table_that_holds_itself_goes_on_until_the_caller_ends_it(void **state)
{
	struct found found = { .stop_after = 64 };

	paged_init(&guest, PAGED_4L);
	for (unsigned int i = 0; i < 512; i++)
		guest.page[1][i] = 0x1000 | PTE_ALL;
	assert_int_equal(leaves(0, UINT64_MAX, &found), 17);
	assert_int_equal(found.mapping[63].address, 63 * 0x1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_leaf_of_each_mode),
		cmocka_unit_test(leaves_grant_what_a_walk_says),
		cmocka_unit_test(leaves_come_in_ascending_order_across_the_hole),
		cmocka_unit_test(a_range_takes_what_lies_in_it_even_in_part),
		cmocka_unit_test(ranges_that_are_none_are_refused),
		cmocka_unit_test(it_ends_where_the_caller_says),
		cmocka_unit_test(bad_entries_and_missing_tables_are_passed_over),
		cmocka_unit_test(other_errors_of_the_accessor_are_passed_on),
		cmocka_unit_test(without_paging_all_is_one_leaf),
		cmocka_unit_test(a_table_that_holds_itself_goes_on_until_the_caller_ends_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
