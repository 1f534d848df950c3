/* SPDX-License-Identifier: BSD-2-Clause */
/* The ledger's words: who owns a page, who waits, pins, states and their counts. */
#include "support/guest.h"
#include "support/testing.h"

#define PAGE	 MV_PAGE_SIZE
#define PINS_MAX 65535u

static int set_up(void **state)
{
	static struct guest guest;

	guest_init(&guest, 16UL << 20);
	assert_int_equal(guest_add(&guest, 0, 4, 0), 0);
	*state = &guest;
	return 0;
}

static int tear_down(void **state)
{
	guest_finish(*state);
	return 0;
}

/* --- one word --------------------------------------------------------------------------- */

static void begin_if_wants_its_word(void **state)
{
	uint32_t page = MV_PAGE_RESIDENT | MV_WORD_UNMAPPED, word = 0;
	const uint32_t mask = MV_WORD_STATE | MV_WORD_UNMAPPED | MV_WORD_PINS;

	assert_false(mv_page_begin_if(&page, mask, MV_PAGE_RESIDENT, 0, &word));
	assert_int_equal(word, MV_PAGE_RESIDENT | MV_WORD_UNMAPPED);
	assert_true(mv_page_begin_if(&page, mask, MV_PAGE_RESIDENT | MV_WORD_UNMAPPED,
				     MV_WORD_COPYING, &word));
	assert_int_equal(word, MV_PAGE_RESIDENT | MV_WORD_UNMAPPED);
	assert_int_equal(page, word | MV_WORD_BUSY | MV_WORD_COPYING);
	/* Busy: nobody else. */
	assert_false(mv_page_begin_if(&page, 0, 0, 0, &word));
	assert_int_equal(word, page);

	page = MV_PAGE_RESIDENT | MV_WORD_PIN;
	assert_false(mv_page_begin_if(&page, MV_WORD_PINS, 0, 0, &word));
	assert_int_equal(page, MV_PAGE_RESIDENT | MV_WORD_PIN);
}

static void a_claim_owns_a_free_page(void **state)
{
	uint32_t page = MV_PAGE_STORED, word;

	assert_true(mv_page_claim(&page, &word));
	assert_int_equal(word, MV_PAGE_STORED);
	assert_int_equal(page, MV_PAGE_STORED | MV_WORD_BUSY);
	assert_int_equal(mv_page_end(&page, MV_WORD_STATE, MV_PAGE_RESIDENT | MV_WORD_ACTIVE),
			 MV_PAGE_STORED | MV_WORD_BUSY);
	assert_int_equal(page, MV_PAGE_RESIDENT | MV_WORD_ACTIVE);
}

static void a_claim_of_a_busy_page_is_told_to_its_owner(void **state)
{
	uint32_t page = MV_PAGE_STORED | MV_WORD_BUSY, word;

	assert_false(mv_page_claim(&page, &word));
	assert_false(mv_page_claim(&page, &word));
	assert_true(mv_page_end(&page, 0, 0) & MV_WORD_WAITED);
	assert_int_equal(page, MV_PAGE_STORED);
}

static void a_claim_takes_a_copy_over(void **state)
{
	uint32_t page = MV_PAGE_RESIDENT | MV_WORD_UNMAPPED, word;

	assert_true(mv_page_begin_if(&page, 0, 0, MV_WORD_COPYING, &word));
	assert_true(mv_page_claim(&page, &word));
	assert_true(word & MV_WORD_COPYING);
	assert_int_equal(page, MV_PAGE_RESIDENT | MV_WORD_UNMAPPED | MV_WORD_BUSY);
	/* Whoever copied learns it, before and after the new owner has ended. */
	assert_false(mv_page_seal(&page));
	mv_page_end(&page, MV_WORD_UNMAPPED, 0);
	assert_false(mv_page_seal(&page));
	assert_int_equal(page, MV_PAGE_RESIDENT);
}

static void a_sealed_page_is_not_taken_over(void **state)
{
	uint32_t page = MV_PAGE_RESIDENT, word;

	assert_true(mv_page_begin_if(&page, 0, 0, MV_WORD_COPYING, &word));
	assert_true(mv_page_seal(&page));
	assert_int_equal(page, MV_PAGE_RESIDENT | MV_WORD_BUSY);
	assert_false(mv_page_claim(&page, &word));
	assert_true(mv_page_end(&page, MV_WORD_STATE, MV_PAGE_STORED) & MV_WORD_WAITED);
	assert_int_equal(page, MV_PAGE_STORED);
}

static void begin_takes_a_copy_over(void **state)
{
	uint32_t page = MV_PAGE_RESIDENT | MV_WORD_BUSY | MV_WORD_COPYING;

	assert_true(mv_page_begin(mv_platform_linux(), &page) & MV_WORD_COPYING);
	assert_int_equal(page, MV_PAGE_RESIDENT | MV_WORD_BUSY);
	assert_false(mv_page_seal(&page));
}

static void a_pin_ends_a_copy(void **state)
{
	uint32_t page = MV_PAGE_RESIDENT | MV_WORD_BUSY | MV_WORD_COPYING | MV_WORD_UNMAPPED;
	bool first = false;

	assert_true(mv_page_pin(mv_platform_linux(), &page, &first));
	assert_true(first);
	assert_int_equal(page, MV_PAGE_RESIDENT | MV_WORD_UNMAPPED | MV_WORD_PIN);
	assert_false(mv_page_seal(&page));
}

static void ending_leaves_pins_and_flags(void **state)
{
	const uint32_t kept = MV_WORD_ACTIVE | MV_WORD_UNMAPPED | 3 * MV_WORD_PIN;
	uint32_t page = MV_PAGE_RESIDENT | kept;

	mv_page_begin(mv_platform_linux(), &page);
	assert_true(page & MV_WORD_BUSY);
	assert_false(mv_page_unpin(&page));
	mv_page_end(&page, MV_WORD_UNMAPPED, 0);
	assert_int_equal(page, MV_PAGE_RESIDENT | MV_WORD_ACTIVE | 2 * MV_WORD_PIN);
}

static void pins_count_to_their_limit(void **state)
{
	const struct mv_platform *platform = mv_platform_linux();
	uint32_t page = MV_PAGE_ABSENT | MV_WORD_ACTIVE;
	bool first;

	for (unsigned int i = 0; i < PINS_MAX; i++) {
		assert_true(mv_page_pin(platform, &page, &first));
		assert_int_equal(first, i == 0);
	}
	assert_false(mv_page_pin(platform, &page, &first));
	for (unsigned int i = 0; i < PINS_MAX; i++)
		assert_int_equal(mv_page_unpin(&page), i == PINS_MAX - 1);
	assert_int_equal(page, MV_PAGE_ABSENT | MV_WORD_ACTIVE);
}

/* --- a memory's ------------------------------------------------------------------------- */

static uint64_t pinned(struct guest *guest)
{
	struct mv_memory_counts counts;

	mv_memory_get_counts(guest->memory, &counts);
	return counts.pinned;
}

static void a_range_is_pinned_by_the_page(void **state)
{
	struct guest *guest = *state;

	/* Two bytes, in two pages. */
	assert_int_equal(mv_memory_pin(guest->memory, PAGE - 1, PAGE), 0);
	assert_int_equal(pinned(guest), 2);
	assert_int_equal(mv_memory_pin(guest->memory, PAGE, 2 * PAGE), 0);
	assert_int_equal(pinned(guest), 3);
	assert_int_equal(*guest_word(guest, PAGE), 2 * MV_WORD_PIN);
	mv_memory_unpin(guest->memory, PAGE - 1, PAGE);
	assert_int_equal(pinned(guest), 2);
	mv_memory_unpin(guest->memory, PAGE, 2 * PAGE);
	assert_int_equal(pinned(guest), 0);
	guest_check_counts(guest);
}

static void pins_cross_regions_that_touch(void **state)
{
	struct guest *guest = *state;

	assert_int_equal(guest_add(guest, 4 * PAGE, 4, 8 * PAGE), 0);
	assert_int_equal(mv_memory_pin(guest->memory, 2 * PAGE, 6 * PAGE - 1), 0);
	assert_int_equal(pinned(guest), 4);
	assert_int_equal(guest_region(guest, 0)->holds, 0);
	mv_memory_unpin(guest->memory, 2 * PAGE, 6 * PAGE - 1);
	guest_check_counts(guest);
}

static void a_pin_outside_pins_nothing(void **state)
{
	struct guest *guest = *state;

	assert_int_equal(mv_memory_pin(guest->memory, 0, 4 * PAGE), -EFAULT);
	assert_int_equal(mv_memory_pin(guest->memory, PAGE, UINT64_MAX), -EFAULT);
	assert_int_equal(mv_memory_pin(guest->memory, PAGE, 0), -EFAULT);
	assert_int_equal(mv_memory_pin(guest->memory, UINT64_MAX, UINT64_MAX), -EFAULT);
	assert_int_equal(pinned(guest), 0);
	assert_int_equal(guest_region(guest, 0)->holds, 0);
}

static void too_many_pins_pin_nothing(void **state)
{
	struct guest *guest = *state;

	assert_int_equal(guest_add(guest, 4 * PAGE, 4, 8 * PAGE), 0);
	for (unsigned int i = 0; i < PINS_MAX; i++)
		assert_int_equal(mv_memory_pin(guest->memory, 5 * PAGE, 5 * PAGE), 0);
	assert_int_equal(mv_memory_pin(guest->memory, 2 * PAGE, 6 * PAGE), -EOVERFLOW);
	assert_int_equal(*guest_word(guest, 2 * PAGE), 0);
	assert_int_equal(*guest_word(guest, 4 * PAGE), 0);
	assert_int_equal(pinned(guest), 1);
	for (unsigned int i = 0; i < PINS_MAX; i++)
		mv_memory_unpin(guest->memory, 5 * PAGE, 5 * PAGE);
	guest_check_counts(guest);
}

static void the_top_page_can_be_pinned(void **state)
{
	struct guest *guest = *state;
	const uint64_t top = UINT64_MAX - PAGE + 1;

	assert_int_equal(guest_add(guest, top - PAGE, 2, 8 * PAGE), 0);
	assert_int_equal(mv_memory_pin(guest->memory, top - 1, UINT64_MAX), 0);
	assert_int_equal(pinned(guest), 2);
	mv_memory_unpin(guest->memory, top - 1, UINT64_MAX);
	guest_check_counts(guest);
}

static void a_state_takes_its_count_along(void **state)
{
	struct guest *guest = *state;
	struct mv_region *region = guest_region(guest, 0);
	enum mv_page_state now = MV_PAGE_ABSENT;
	struct mv_memory_counts counts;

	for (unsigned int next = MV_PAGE_RESIDENT; next < MV_PAGE_STATES; next++) {
		mv_page_begin(mv_platform_linux(), &region->words[2]);
		uint32_t before =
			mv_region_end(region, 2, (enum mv_page_state)next, MV_WORD_ACTIVE, 0);

		assert_int_equal(mv_word_state(before), now);
		assert_int_equal(mv_memory_page_state(guest->memory, 2 * PAGE + 1, &now), 0);
		assert_int_equal(now, next);
		guest_check_counts(guest);
	}
	mv_memory_get_counts(guest->memory, &counts);
	assert_int_equal(counts.total, 4);
	assert_int_equal(counts.pages[MV_PAGE_ABSENT], 3);
	assert_int_equal(counts.pages[MV_PAGE_POISONED], 1);
}

static void the_state_of_no_page_is_an_error(void **state)
{
	struct guest *guest = *state;
	enum mv_page_state page_state = MV_PAGE_STORED;

	assert_int_equal(mv_memory_page_state(guest->memory, 4 * PAGE, &page_state), -EFAULT);
	assert_int_equal(page_state, MV_PAGE_STORED);
}

static void a_region_takes_its_counts_away(void **state)
{
	struct guest *guest = *state;
	struct mv_region *region = guest_region(guest, 0);
	struct mv_memory_counts counts, none = { { 0 } };

	mv_page_begin(mv_platform_linux(), &region->words[1]);
	mv_region_end(region, 1, MV_PAGE_RESIDENT, 0, MV_WORD_ACTIVE);
	assert_int_equal(mv_memory_remove_region(guest->memory, 0), 0);
	mv_memory_get_counts(guest->memory, &counts);
	assert_memory_equal(&counts, &none, sizeof(counts));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(begin_if_wants_its_word),
		cmocka_unit_test(a_claim_owns_a_free_page),
		cmocka_unit_test(a_claim_of_a_busy_page_is_told_to_its_owner),
		cmocka_unit_test(a_claim_takes_a_copy_over),
		cmocka_unit_test(a_sealed_page_is_not_taken_over),
		cmocka_unit_test(begin_takes_a_copy_over),
		cmocka_unit_test(a_pin_ends_a_copy),
		cmocka_unit_test(ending_leaves_pins_and_flags),
		cmocka_unit_test(pins_count_to_their_limit),
		TEST(a_range_is_pinned_by_the_page),
		TEST(pins_cross_regions_that_touch),
		TEST(a_pin_outside_pins_nothing),
		TEST(too_many_pins_pin_nothing),
		TEST(the_top_page_can_be_pinned),
		TEST(a_state_takes_its_count_along),
		TEST(the_state_of_no_page_is_an_error),
		TEST(a_region_takes_its_counts_away),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
