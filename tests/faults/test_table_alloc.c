/* SPDX-License-Identifier: BSD-2-Clause */
/* Each allocation of each operation on a table fails in turn: the table is as before, nothing
 * leaks. */
#include <memvirt/table.h>

#include "support/fake_platform.h"
#include "support/testing.h"
#include "table_engine.h"

#define RW   (MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_TYPE(6))
#define MIB2 0x200000ULL
#define GIB  0x40000000ULL

/* Leaves, as one number: it changes if any of them does. */
static int sum_leaf(void *ctx, const struct mv_mapping *mapping)
{
	uint64_t *sum = ctx;

	*sum = *sum * 0x9e3779b97f4a7c15ULL + mapping->address;
	*sum = *sum * 0x9e3779b97f4a7c15ULL + mapping->phys;
	*sum = *sum * 0x9e3779b97f4a7c15ULL + mapping->attr;
	*sum = *sum * 0x9e3779b97f4a7c15ULL + mapping->page_lg2;
	return 0;
}

static uint64_t leaves(const struct mv_table *table)
{
	uint64_t sum = 1;

	assert_int_equal(mv_table_for_each_leaf(table, 0, UINT64_MAX, sum_leaf, &sum), 0);
	return sum;
}

/* What every address translates to, large pages or small. */
static uint64_t translations(const struct mv_table *table)
{
	uint64_t sum = 1;

	for (uint64_t at = 0; at < 6 * GIB; at += 0x1f000) {
		struct mv_mapping mapping = { 0 };
		int error = mv_table_walk(table, at, &mapping);

		sum = sum * 0x9e3779b97f4a7c15ULL + (uint64_t)error;
		sum = sum * 0x9e3779b97f4a7c15ULL +
		      (error ? 0 : mapping.phys + (at - mapping.address) + mapping.attr);
	}
	return sum;
}

/* An operation, and whether its failure may leave pages split. */
struct operation {
	const char *name;
	int (*run)(struct mv_table *table);
	bool may_split;
	unsigned int pages; /* that it takes */
};

static int map_small(struct mv_table *table)
{
	return mv_table_map(table, 5 * GIB - 0x3000, 5 * GIB + MIB2 + 0x1fff, 0x7000, RW, 0);
}

static int map_many(struct mv_table *table)
{
	return mv_table_map(table, 512 * GIB - MIB2 * 20, 512 * GIB + MIB2 * 20 - 1, 0x1000, RW, 0);
}

static int unmap_in_large(struct mv_table *table)
{
	return mv_table_unmap(table, 0x5000, GIB + 0x4fff, NULL);
}

static int unmap_in_one(struct mv_table *table)
{
	return mv_table_unmap(table, 0x5000, MIB2 + 0x4fff, NULL);
}

static int protect_in_large(struct mv_table *table)
{
	return mv_table_protect(table, GIB - 0x1000, GIB + 0xfff, MV_ATTR_WRITE, 0);
}

static int split_all(struct mv_table *table)
{
	return mv_table_split(table, GIB - MIB2, GIB + MIB2 * 3, 12);
}

/* By hand: 1 GiB of one page and 20 MiB of 2 MiB pages are mapped from 0. */
static const struct operation operations[] = {
	/* of 4K pages: before 5 GiB, and the two after; of 2M: before and after */
	{ "map_small", map_small, false, 5 },
	/* of 4K pages: 20 before and 20 after; of 2M: before and after; of 1G: after */
	{ "map_many", map_many, false, 40 + 2 + 1 },
	/* 1 GiB to 2 MiB to 4 KiB; 2 MiB to 4 KiB */
	{ "unmap_in_large", unmap_in_large, false, 3 },
	/* 1 GiB to 2 MiB, two of which to 4 KiB */
	{ "unmap_in_one", unmap_in_one, false, 3 },
	{ "protect_in_large", protect_in_large, false, 3 },
	/* 1 GiB to 2 MiB, the last of which to 4 KiB; four 2 MiB, the last touched by one byte */
	{ "split_all", split_all, true, 2 + 4 },
};

static struct mv_table *table_new(struct fake_platform *fake, size_t limit)
{
	struct mv_table_config config = {
		.size = sizeof(config),
		.platform = &fake->platform,
		.format = MV_FORMAT_EPT_4L,
		.features = MV_FEATURE_2M | MV_FEATURE_1G,
		.maxphyaddr = 46,
		.node = -1,
		.page_limit = limit,
	};
	struct mv_table *table;

	assert_int_equal(mv_table_create(&config, &table), 0);
	assert_int_equal(mv_table_map(table, 0, GIB + 10 * MIB2 - 1, 0, RW, 0), 0);
	return table;
}

static void expect_as_before(const struct operation *op, struct mv_table *table, uint64_t before,
			     uint64_t as_leaves, size_t pages)
{
	struct mv_table_usage usage;
	struct mv_table_defect defect;

	mv_table_get_usage(table, &usage);
	assert_true(mv_table_check(table, &defect));
	assert_int_equal(translations(table), before);
	if (op->may_split)
		return;
	assert_int_equal(leaves(table), as_leaves);
	assert_int_equal(usage.pages, pages);
}

/* One operation, whose @nth allocation fails. Return: what it returned. */
static int fail_nth(const struct operation *op, unsigned long nth)
{
	struct mv_table_usage usage;
	struct fake_platform fake;
	struct mv_table *table;
	uint64_t before, as_leaves;
	int error;

	fake_platform_init(&fake);
	table = table_new(&fake, 0);
	mv_table_get_usage(table, &usage);
	before = translations(table);
	as_leaves = leaves(table);
	fake.fail_at = fake.allocations + nth;
	error = op->run(table);
	fake.fail_at = 0;
	if (error) {
		assert_int_equal(error, -ENOMEM);
		assert_int_equal(fake.failures, 1);
		expect_as_before(op, table, before, as_leaves, usage.pages);
		/* And it comes about once there is memory. */
		assert_int_equal(op->run(table), 0);
	}
	mv_table_get_usage(table, &usage);
	assert_int_equal(fake.table_pages, usage.pages);
	mv_table_destroy(table);
	fake_platform_finish(&fake);
	return error;
}

static void each_allocation_may_fail(void **state)
{
	for (size_t i = 0; i < COUNT_OF(operations); i++) {
		unsigned long nth = 1;

		while (fail_nth(&operations[i], nth))
			nth++;
		/* Each page that it takes has failed once: what it takes is what it must. */
		print_message("# %s: %lu allocations\n", operations[i].name, nth - 1);
		assert_int_equal(nth - 1, operations[i].pages);
	}
}

static void at_the_limit_nothing_changes(void **state)
{
	for (size_t i = 0; i < COUNT_OF(operations); i++) {
		const struct operation *op = &operations[i];
		const size_t made = 4; /* root, 1 GiB's, and GIB's 2 MiB pages' */

		for (size_t more = 0; more <= op->pages; more++) {
			struct mv_table_usage usage;
			struct fake_platform fake;
			struct mv_table *table;
			uint64_t before, as_leaves;
			int error;

			fake_platform_init(&fake);
			table = table_new(&fake, made - 1 + more);
			mv_table_get_usage(table, &usage);
			assert_int_equal(usage.pages, made - 1);
			before = translations(table);
			as_leaves = leaves(table);
			error = op->run(table);
			assert_int_equal(error, more < op->pages ? -ENOSPC : 0);
			if (error)
				expect_as_before(op, table, before, as_leaves, usage.pages);
			mv_table_destroy(table);
			fake_platform_finish(&fake);
		}
	}
}

static void a_table_that_cannot_be_made_leaks_nothing(void **state)
{
	for (unsigned long nth = 1; nth <= 2; nth++) {
		struct fake_platform fake;
		struct mv_table *table = (void *)1;
		struct mv_table_config config = {
			.size = sizeof(config),
			.platform = &fake.platform,
			.node = -1,
			.format = MV_FORMAT_NPT_5L,
			.maxphyaddr = 52,
		};

		fake_platform_init(&fake);
		fake.fail_at = nth;
		assert_int_equal(mv_table_create(&config, &table), -ENOMEM);
		assert_ptr_equal(table, (void *)1);
		fake_platform_finish(&fake);
	}
}

/* A grant takes what is missing above its leaf. */
static void a_grant_without_memory_changes_nothing(void **state)
{
	for (unsigned long nth = 1; nth <= 4; nth++) {
		struct fake_platform fake;
		struct mv_engine e;
		struct mv_mapping found;
		struct mv_grant grant = { .address = GIB, .phys = GIB, .level = 1, .attr = RW };
		struct mv_table_config config = {
			.size = sizeof(config),
			.platform = &fake.platform,
			.node = -1,
			.format = MV_FORMAT_EPT_4L,
			.maxphyaddr = 46,
		};

		fake_platform_init(&fake);
		assert_int_equal(mv_engine_init(&e, &config), 0);
		fake.fail_at = fake.allocations + nth;
		assert_int_equal(mv_engine_grant(&e, &grant, &found), nth < 4 ? -ENOMEM : 0);
		assert_int_equal(e.pages, nth < 4 ? 1 : 4);
		mv_engine_finish(&e);
		fake_platform_finish(&fake);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_may_fail),
		cmocka_unit_test(at_the_limit_nothing_changes),
		cmocka_unit_test(a_table_that_cannot_be_made_leaks_nothing),
		cmocka_unit_test(a_grant_without_memory_changes_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
