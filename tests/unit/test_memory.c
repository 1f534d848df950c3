/* SPDX-License-Identifier: BSD-2-Clause */
/* Regions: added, found, held, taken away. */
#include <pthread.h>
#include <unistd.h>

#include "support/guest.h"
#include "support/testing.h"

#define PAGE  MV_PAGE_SIZE
#define BYTES (64UL << 20)

static int set_up(void **state)
{
	static struct guest guest;

	guest_init(&guest, BYTES);
	*state = &guest;
	return 0;
}

static int tear_down(void **state)
{
	guest_finish(*state);
	return 0;
}

static void create_refuses_a_bad_config(void **state)
{
	struct mv_memory_config config = { .size = sizeof(config) - 1 };
	struct mv_memory *memory = (void *)1;

	assert_int_equal(mv_memory_create(&config, &memory), -EINVAL);
	assert_int_equal(mv_memory_create(NULL, &memory), -EINVAL);
	assert_ptr_equal(memory, (void *)1);
	mv_memory_destroy(NULL);
}

static void create_takes_the_platform_of_the_process(void **state)
{
	struct mv_memory_config config = { .size = sizeof(config) };
	struct mv_memory *memory;

	assert_int_equal(mv_memory_create(&config, &memory), 0);
	assert_ptr_equal(memory->platform.ops, mv_platform_linux()->ops);
	mv_memory_destroy(memory);
}

static int add_raw(struct guest *guest, uint64_t first, uint64_t last, void *hva, int fd,
		   uint64_t offset)
{
	struct mv_region_config config = {
		.size = sizeof(config),
		.first_gpa = first,
		.last_gpa = last,
		.hva = hva,
		.fd = fd,
		.fd_offset = offset,
	};

	return mv_memory_add_region(guest->memory, &config);
}

static void add_refuses_bad_ranges(void **state)
{
	struct guest *guest = *state;
	unsigned char *mem = guest->mem;
	struct mv_region_config config = { .size = 3, .last_gpa = PAGE - 1, .hva = mem };

	assert_int_equal(mv_memory_add_region(guest->memory, &config), -EINVAL);
	assert_int_equal(mv_memory_add_region(guest->memory, NULL), -EINVAL);
	assert_int_equal(add_raw(guest, 1, PAGE, mem, -1, 0), -EINVAL);
	assert_int_equal(add_raw(guest, 0, PAGE, mem, -1, 0), -EINVAL);
	assert_int_equal(add_raw(guest, 0, PAGE - 2, mem, -1, 0), -EINVAL);
	assert_int_equal(add_raw(guest, PAGE, PAGE - 1, mem, -1, 0), -EINVAL);
	assert_int_equal(add_raw(guest, 2 * PAGE, PAGE - 1, mem, -1, 0), -EINVAL);
	assert_int_equal(add_raw(guest, 0, PAGE - 1, mem + 8, -1, 0), -EINVAL);
	assert_int_equal(add_raw(guest, 0, PAGE - 1, NULL, -1, 0), -EINVAL);
	assert_int_equal(add_raw(guest, 0, PAGE - 1, mem, 1, 512), -EINVAL);
	assert_int_equal(add_raw(guest, 0, 2 * PAGE - 1, mem, 1, UINT64_MAX - PAGE + 1), -EINVAL);
	/* Wraps in this process's addresses. */
	assert_int_equal(add_raw(guest, 0, UINT64_MAX, mem, -1, 0), -EINVAL);
	assert_int_equal(add_raw(guest, 0, 2 * PAGE - 1, (void *)(UINTPTR_MAX - PAGE + 1), -1, 0),
			 -EINVAL);
	guest_check_counts(guest);
	assert_int_equal(guest->memory->set->count, 0);
}

static void add_refuses_overlaps(void **state)
{
	struct guest *guest = *state;
	static const struct {
		uint64_t page, pages, at; /* guest pages, and where in the mapping */
		int wanted;
	} cases[] = {
		/* 10 … 19 are there, at 10 … 19. */
		{ 10, 10, 30, -EEXIST }, { 9, 2, 30, -EEXIST },	 { 19, 1, 30, -EEXIST },
		{ 5, 20, 30, -EEXIST },	 { 12, 3, 30, -EEXIST }, { 30, 10, 10, -EEXIST },
		{ 30, 2, 9, -EEXIST },	 { 30, 1, 19, -EEXIST }, { 30, 20, 5, -EEXIST },
		{ 30, 3, 12, -EEXIST },	 { 9, 1, 9, 0 },	 { 20, 1, 20, 0 },
	};

	assert_int_equal(guest_add(guest, 10 * PAGE, 10, 10 * PAGE), 0);
	for (size_t i = 0; i < COUNT_OF(cases); i++)
		assert_int_equal(guest_add(guest, cases[i].page * PAGE, cases[i].pages,
					   cases[i].at * PAGE),
				 cases[i].wanted);
	assert_int_equal(guest->memory->set->count, 3);
	guest_check_counts(guest);
}

static void the_top_of_the_address_space_can_be_named(void **state)
{
	struct guest *guest = *state;
	const uint64_t top = UINT64_MAX - 4 * PAGE + 1;

	assert_int_equal(guest_add(guest, top, 4, 0), 0);
	struct mv_region *region = guest_region(guest, UINT64_MAX);

	assert_int_equal(region->last_gpa, UINT64_MAX);
	assert_int_equal(region->pages, 4);
	assert_int_equal(mv_region_page(region, UINT64_MAX), 3);
	assert_int_equal(mv_memory_remove_region(guest->memory, top), 0);
}

/* Both lookups against a search in which nothing can go wrong. */
static void check_lookups(struct guest *guest, const bool *there, unsigned int slots)
{
	mv_memory_read_enter(guest->memory);
	for (unsigned int page = 0; page < slots * 4; page++) {
		unsigned int slot = page / 4, within = page % 4;
		bool found = slot < slots && there[slot] && within < 3;
		struct mv_region *by_gpa = mv_region_by_gpa(guest->memory, page * PAGE + 5);
		/* In the mapping they lie the other way round. */
		struct mv_region *by_hva = mv_region_by_hva(
			guest->memory, guest->mem + ((slots - 1 - slot) * 4 + within) * PAGE + 7);

		assert_int_equal(by_gpa != NULL, found);
		assert_ptr_equal(by_gpa, by_hva);
		if (found)
			assert_int_equal(by_gpa->first_gpa, slot * 4 * PAGE);
	}
	mv_memory_read_leave(guest->memory);
}

static void regions_are_found_whatever_the_order(void **state)
{
	enum { SLOTS = 100 };
	struct guest *guest = *state;
	struct chance chance = chance_of(test_seed(), 0);
	bool there[SLOTS] = { false };

	for (unsigned int step = 0; step < 600; step++) {
		unsigned int slot = (unsigned int)chance_below(&chance, SLOTS);
		uint64_t gpa = slot * 4 * PAGE;

		if (there[slot])
			assert_int_equal(mv_memory_remove_region(guest->memory, gpa), 0);
		else
			assert_int_equal(guest_add(guest, gpa, 3, (SLOTS - 1 - slot) * 4 * PAGE),
					 0);
		there[slot] = !there[slot];
		if (step % 20 == 0)
			check_lookups(guest, there, SLOTS);
	}
	guest_check_counts(guest);
}

static void remove_wants_the_first_address(void **state)
{
	struct guest *guest = *state;

	assert_int_equal(guest_add(guest, 4 * PAGE, 4, 0), 0);
	assert_int_equal(mv_memory_remove_region(guest->memory, 0), -ENOENT);
	assert_int_equal(mv_memory_remove_region(guest->memory, 5 * PAGE), -ENOENT);
	assert_int_equal(mv_memory_remove_region(guest->memory, 8 * PAGE), -ENOENT);
	assert_int_equal(mv_memory_remove_region(guest->memory, 4 * PAGE), 0);
	assert_int_equal(mv_memory_remove_region(guest->memory, 4 * PAGE), -ENOENT);
}

static void remove_is_refused_while_in_use(void **state)
{
	struct guest *guest = *state;
	uint32_t word;

	assert_int_equal(guest_add(guest, 0, 4, 0), 0);
	struct mv_region *region = mv_region_get(guest->memory, PAGE);

	assert_ptr_equal(region, guest_region(guest, 0));
	assert_int_equal(mv_memory_remove_region(guest->memory, 0), -EBUSY);
	mv_region_release(region);

	assert_int_equal(mv_memory_pin(guest->memory, 3 * PAGE, 3 * PAGE), 0);
	assert_int_equal(mv_memory_remove_region(guest->memory, 0), -EBUSY);
	mv_memory_unpin(guest->memory, 3 * PAGE, 3 * PAGE);

	assert_true(mv_page_begin_if(guest_word(guest, 0), 0, 0, 0, &word));
	assert_int_equal(mv_memory_remove_region(guest->memory, 0), -EBUSY);
	mv_page_end(guest_word(guest, 0), 0, 0);

	/* A refused removal leaves nothing behind: it can be held again. */
	region = mv_region_get(guest->memory, 0);
	assert_non_null(region);
	mv_region_release(region);
	assert_int_equal(mv_memory_remove_region(guest->memory, 0), 0);
	assert_null(mv_region_get(guest->memory, 0));
}

static void a_closing_region_gives_no_hold(void **state)
{
	struct guest *guest = *state;

	assert_int_equal(guest_add(guest, 0, 4, 0), 0);
	struct mv_region *region = guest_region(guest, 0);

	region->holds = MV_REGION_CLOSING;
	assert_false(mv_region_hold(region));
	assert_int_equal(region->holds, MV_REGION_CLOSING);
	region->holds = 0;
	assert_true(mv_region_hold(region));
	mv_region_release(region);
}

static void removal_needs_no_memory(void **state)
{
	struct guest *guest = *state;

	for (uint64_t i = 0; i < 40; i++)
		assert_int_equal(guest_add(guest, i * 2 * PAGE, 1, i * 2 * PAGE), 0);
	guest->fake.fail_after = guest->fake.allocations;
	for (uint64_t i = 0; i < 40; i++)
		assert_int_equal(mv_memory_remove_region(guest->memory, i * 2 * PAGE), 0);
	assert_int_equal(guest->fake.failures, 0);
	guest_check_counts(guest);
}

static void a_range_is_held_whole_or_not_at_all(void **state)
{
	struct guest *guest = *state;

	assert_int_equal(guest_add(guest, 0, 2, 0), 0);
	assert_int_equal(guest_add(guest, 2 * PAGE, 2, 8 * PAGE), 0);
	assert_int_equal(guest_add(guest, 5 * PAGE, 1, 16 * PAGE), 0);

	assert_int_equal(mv_memory_hold_range(guest->memory, 0, 5 * PAGE), -EFAULT);
	assert_int_equal(guest_region(guest, 0)->holds, 0);
	assert_int_equal(guest_region(guest, 2 * PAGE)->holds, 0);
	assert_int_equal(mv_memory_hold_range(guest->memory, 1, 4 * PAGE - 1), 0);
	assert_int_equal(guest_region(guest, 0)->holds, 1);
	assert_int_equal(guest_region(guest, 2 * PAGE)->holds, 1);
	mv_memory_release_range(guest->memory, 1, 4 * PAGE - 1);
	assert_int_equal(guest_region(guest, 0)->holds, 0);
	assert_int_equal(guest_region(guest, 2 * PAGE)->holds, 0);
}

static void pages_of_a_range_come_region_by_region(void **state)
{
	struct guest *guest = *state;
	struct mv_pages pages;

	assert_int_equal(guest_add(guest, 0, 2, 0), 0);
	assert_int_equal(guest_add(guest, 2 * PAGE, 3, 8 * PAGE), 0);
	mv_pages_first(guest->memory, PAGE + 9, 4 * PAGE, &pages);
	assert_ptr_equal(pages.region, guest_region(guest, 0));
	assert_int_equal(pages.first_page, 1);
	assert_int_equal(pages.last_page, 1);
	assert_true(mv_pages_next(&pages));
	assert_ptr_equal(pages.region, guest_region(guest, 2 * PAGE));
	assert_int_equal(pages.first_page, 0);
	assert_int_equal(pages.last_page, 2);
	assert_false(mv_pages_next(&pages));
}

static bool removed; /* atomic */

static void *remove_first(void *arg)
{
	insist(!mv_memory_remove_region(arg, 0));
	__atomic_store_n(&removed, true, __ATOMIC_RELEASE);
	return NULL;
}

/* An access may take long: a fault has to be resolved first, by others who wait for readers. */
static void an_access_keeps_its_regions_and_holds_up_no_reader(void **state)
{
	struct guest *guest = *state;
	pthread_t thread;

	assert_int_equal(guest_add(guest, 0, 4, 0), 0);
	struct mv_region_set *set = mv_memory_get_set(guest->memory);

	guest->fake.platform.ops->wait_readers(guest->fake.platform.ctx);
	assert_int_equal(pthread_create(&thread, NULL, remove_first, guest->memory), 0);
	while (mv_memory_gpa(guest->memory, guest->mem, &(uint64_t){ 0 }) == 0)
		usleep(100);
	usleep(10000);
	/* Out of sight, and yet there for whoever has it. */
	assert_false(__atomic_load_n(&removed, __ATOMIC_ACQUIRE));
	assert_int_equal(mv_set_by_gpa(set, 3 * PAGE)->pages, 4);
	mv_memory_put_set(set);
	pthread_join(thread, NULL);
	assert_true(removed);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(create_refuses_a_bad_config),
		TEST(create_takes_the_platform_of_the_process),
		TEST(add_refuses_bad_ranges),
		TEST(add_refuses_overlaps),
		TEST(the_top_of_the_address_space_can_be_named),
		TEST(regions_are_found_whatever_the_order),
		TEST(remove_wants_the_first_address),
		TEST(remove_is_refused_while_in_use),
		TEST(a_closing_region_gives_no_hold),
		TEST(removal_needs_no_memory),
		TEST(a_range_is_held_whole_or_not_at_all),
		TEST(pages_of_a_range_come_region_by_region),
		TEST(an_access_keeps_its_regions_and_holds_up_no_reader),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
