/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Every allocation of the core fails in turn. What failed says so and has changed nothing;
 * tried again it succeeds; in the end everything has been freed.
 */
#include <limits.h>

#include "support/fake_view.h"
#include "support/guest.h"
#include "support/testing.h"

#define PAGE	MV_PAGE_SIZE
#define REGIONS 20 /* more than a set has room for at first */
#define VIEWS	12
#define PAGES	4

struct sweep {
	struct guest guest;
	struct mv_view views[VIEWS];
	unsigned int added, attached; /* so far */
	unsigned int failures;	      /* met by a call */
};

static void no_pages(struct mv_view *view, const struct mv_batch *batch)
{
}

static void refuse_none(struct mv_view *view, struct mv_batch *batch)
{
}

static const struct mv_view_ops quiet_ops = {
	.prepare_revoke = refuse_none,
	.commit_revoke = no_pages,
	.abort_revoke = no_pages,
	.flush = no_pages,
};

static void drop_all(void *ctx, struct mv_batch *batch)
{
}

static uint64_t region_gpa(unsigned int index)
{
	return (uint64_t)index * 2 * PAGES * PAGE;
}

/* All that can be asked of what is there, none of which needs memory. */
static void use_it(struct sweep *sweep)
{
	struct mv_memory *memory = sweep->guest.memory;
	unsigned long before = sweep->guest.fake.allocations;
	unsigned char byte = 7;

	for (unsigned int i = 0; i < REGIONS; i++) {
		bool there = i < sweep->added;
		uint64_t gpa = region_gpa(i), last = gpa + PAGES * PAGE - 1, dropped;
		struct mv_region *region = mv_region_get(memory, gpa);

		assert_int_equal(region != NULL, there);
		if (region)
			mv_region_release(region);
		assert_int_equal(mv_memory_write(memory, last, &byte, 1), there ? 0 : -EFAULT);
		assert_int_equal(mv_memory_pin(memory, gpa, last), there ? 0 : -EFAULT);
		if (there)
			mv_memory_unpin(memory, gpa, last);
		assert_int_equal(mv_memory_discard(memory, gpa, last, drop_all, NULL, &dropped),
				 there ? 0 : -EFAULT);
	}
	guest_check_counts(&sweep->guest);
	assert_int_equal(sweep->guest.fake.allocations, before);
}

/* Until it succeeds: once a sweep it fails, and then nothing has changed. */
static void try_again(struct sweep *sweep, int (*call)(struct sweep *sweep))
{
	unsigned long live = sweep->guest.fake.live, failed = sweep->guest.fake.failures;
	int error = call(sweep);

	if (error) {
		assert_int_equal(error, -ENOMEM);
		assert_int_equal(sweep->guest.fake.failures, failed + 1);
		assert_int_equal(sweep->guest.fake.live, live);
		sweep->failures++;
		use_it(sweep);
		assert_int_equal(call(sweep), 0);
	} else {
		assert_int_equal(sweep->guest.fake.failures, failed);
	}
}

static int create(struct sweep *sweep)
{
	struct mv_memory_config config = { .size = sizeof(config),
					   .platform = &sweep->guest.fake.platform };

	return mv_memory_create(&config, &sweep->guest.memory);
}

static int add_next(struct sweep *sweep)
{
	return guest_add(&sweep->guest, region_gpa(sweep->added), PAGES,
			 sweep->added * PAGES * PAGE);
}

static int attach_next(struct sweep *sweep)
{
	sweep->views[sweep->attached] = (struct mv_view){ .ops = &quiet_ops };
	return mv_memory_attach_view(sweep->guest.memory, &sweep->views[sweep->attached]);
}

static void build(struct sweep *sweep)
{
	for (; sweep->added < REGIONS; sweep->added++)
		try_again(sweep, add_next);
	for (; sweep->attached < VIEWS; sweep->attached++)
		try_again(sweep, attach_next);
	use_it(sweep);
}

/* With no memory to be had at all. */
static void take_down(struct sweep *sweep)
{
	sweep->guest.fake.fail_after = 0;
	while (sweep->attached)
		mv_memory_detach_view(sweep->guest.memory, &sweep->views[--sweep->attached]);
	while (sweep->added > REGIONS / 2)
		assert_int_equal(mv_memory_remove_region(sweep->guest.memory,
							 region_gpa(--sweep->added)),
				 0);
	use_it(sweep);
}

/* Begin with a memory whose creation may fail too. Return: failures met. */
static unsigned int run(struct sweep *sweep, unsigned long fail_at)
{
	memset(sweep, 0, sizeof(*sweep));
	guest_init(&sweep->guest, 1 << 20);
	mv_memory_destroy(sweep->guest.memory);
	assert_int_equal(sweep->guest.fake.live, 0);
	sweep->guest.fake.allocations = 0;
	sweep->guest.fake.fail_at = fail_at;

	if (create(sweep)) {
		assert_int_equal(sweep->guest.fake.live, 0);
		sweep->failures++;
		assert_int_equal(create(sweep), 0);
	}
	build(sweep);
	take_down(sweep);
	guest_finish(&sweep->guest);
	return sweep->failures;
}

static void every_allocation_may_fail(void **state)
{
	static struct sweep sweep;
	unsigned long fail_at = 1;

	while (run(&sweep, fail_at))
		fail_at++;
	/* Of a memory, of each region, and sets that grew: fewer would mean a sweep that ended
	 * early. */
	assert_true(fail_at > 3 + 3 * REGIONS);
	print_message("# %lu allocations made to fail\n", fail_at - 1);
}

static void nothing_works_without_memory(void **state)
{
	static struct sweep sweep;

	guest_init(&sweep.guest, 1 << 20);
	sweep.guest.fake.fail_after = sweep.guest.fake.allocations;
	assert_int_equal(add_next(&sweep), -ENOMEM);
	assert_int_equal(attach_next(&sweep), -ENOMEM);
	use_it(&sweep);
	guest_finish(&sweep.guest);
}

/* A size that no machine has. */
static void a_region_without_end_is_refused(void **state)
{
	static struct sweep sweep;
	struct mv_region_config config = { .size = sizeof(config), .fd = -1 };

	guest_init(&sweep.guest, 1 << 20);
	config.hva = sweep.guest.mem;
	config.last_gpa = UINT64_MAX - (uintptr_t)sweep.guest.mem;
	config.last_gpa |= PAGE - 1;
	config.last_gpa -= PAGE;
	assert_int_equal(mv_memory_add_region(sweep.guest.memory, &config), -ENOMEM);
	use_it(&sweep);
	guest_finish(&sweep.guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_allocation_may_fail),
		cmocka_unit_test(nothing_works_without_memory),
		cmocka_unit_test(a_region_without_end_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
