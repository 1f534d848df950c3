/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is recorded of ranges: rights in a view, memory types. A record is a table like any
 * other, that no processor walks: an address maps to itself, and the leaf's attributes say what is
 * to be said. So a range costs as many entries as pages of the largest sizes fill it, lookups
 * take no lock, and nothing new is needed to split and to merge.
 *
 * The layout is x86's, whose attributes leave room whatever rights they stand for.
 *
 * What does not belong here: what the attributes mean (ept_map.c, ept_views.c).
 */
#include <errno.h>

#include "ept_internal.h"

#define RECORDED (MV_ATTR_PKEY_MASK | MV_ATTR_TYPE_MASK | MV_ATTR_SOFT0 | MV_ATTR_SOFT1)

static struct mv_table *ranges_of(struct mv_table *const *ranges)
{
	/* Acquire pairs with the release in ranges_make(). */
	return __atomic_load_n(ranges, __ATOMIC_ACQUIRE);
}

static uint32_t recorded(const struct mv_mapping *mapping)
{
	return (mapping->attr & RECORDED) | MV_ATTR_READ;
}

uint32_t ept_ranges_get(struct mv_table *const *ranges, uint64_t gpa, uint32_t otherwise)
{
	const struct mv_table *table = ranges_of(ranges);
	struct mv_mapping mapping;

	if (!table || mv_table_walk(table, gpa, &mapping))
		return otherwise;
	return recorded(&mapping);
}

/* --- is it all alike? --------------------------------------------------------------------- */

/**
 * struct alike - leaves met so far in ascending order
 * @next:      address up to which all is known
 * @value:     what was recorded there, where @any
 * @otherwise: what holes stand for
 */
struct alike {
	uint64_t next;
	uint32_t value;
	uint32_t otherwise;
	bool any;
};

/* False where it differs from what came before. */
static bool alike_add(struct alike *alike, uint32_t value)
{
	if (alike->any && alike->value != value)
		return false;
	alike->any = true;
	alike->value = value;
	return true;
}

static int alike_leaf(void *ctx, const struct mv_mapping *mapping)
{
	struct alike *alike = ctx;
	bool hole = mapping->address > alike->next;

	if (hole && !alike_add(alike, alike->otherwise))
		return 1;
	alike->next = mapping->address + MV_BIT(mapping->page_lg2);
	return !alike_add(alike, recorded(mapping));
}

bool ept_ranges_uniform(struct mv_table *const *ranges, uint64_t first, uint64_t last,
			uint32_t otherwise)
{
	const struct mv_table *table = ranges_of(ranges);
	struct alike alike = { .next = first, .otherwise = otherwise };

	if (!table)
		return true;
	if (mv_table_for_each_leaf(table, first, last, alike_leaf, &alike))
		return false;
	return alike.next > last || alike_add(&alike, otherwise);
}

/* --- change ------------------------------------------------------------------------------- */

static int ranges_make(struct mv_ept *ept, struct mv_table **ranges)
{
	struct mv_table_config config = {
		.size = sizeof(config),
		.platform = &ept->platform,
		.format = ept->format->levels == 5 ? MV_FORMAT_X86_5L : MV_FORMAT_X86_4L,
		.features = MV_FEATURE_1G | MV_FEATURE_PKEY,
		.maxphyaddr = 52,
		.node = -1,
	};
	struct mv_table *table;
	int error = mv_table_create(&config, &table);

	if (!error)
		__atomic_store_n(ranges, table, __ATOMIC_RELEASE);
	return error;
}

struct hole {
	uint64_t first, last;
	bool found;
};

/* The first hole at or after hole->first. */
static int hole_leaf(void *ctx, const struct mv_mapping *mapping)
{
	struct hole *hole = ctx;

	if (mapping->address > hole->first) {
		hole->last = mapping->address - 1;
		hole->found = true;
		return 1;
	}
	hole->first = mapping->address + MV_BIT(mapping->page_lg2);
	return 0;
}

static bool next_hole(const struct mv_table *table, uint64_t last, struct hole *hole)
{
	hole->found = false;
	if (hole->first <= last)
		mv_table_for_each_leaf(table, hole->first, last, hole_leaf, hole);
	if (!hole->found && hole->first <= last) {
		hole->last = last;
		hole->found = true;
	}
	return hole->found;
}

/* Say of holes what they stand for anyhow: as a failure leaves them, nothing has changed. */
static int fill_holes(struct mv_table *table, uint64_t first, uint64_t last, uint32_t otherwise)
{
	struct hole hole = { .first = first };
	int error = 0;

	while (!error && next_hole(table, last, &hole)) {
		error = mv_table_map(table, hole.first, hole.last, hole.first, otherwise, 0);
		hole.first = hole.last + 1;
	}
	return error;
}

static int change(struct mv_table *table, uint64_t first, uint64_t last, uint32_t otherwise,
		  uint32_t clear, uint32_t set)
{
	int error = fill_holes(table, first, last, otherwise);

	if (!error)
		error = mv_table_protect(table, first, last, clear, set);
	/* What is merged is not there for a moment, and would be taken for a hole. */
	if (!error)
		mv_table_collapse(table, first & ~(MV_BIT(30) - 1), last | (MV_BIT(30) - 1), 0);
	return error;
}

int ept_ranges_change(struct mv_ept *ept, struct mv_table **ranges, uint64_t first, uint64_t last,
		      uint32_t otherwise, uint32_t clear, uint32_t set)
{
	int error = *ranges ? 0 : ranges_make(ept, ranges);

	if (error)
		return error;
	__atomic_fetch_add(&ept->changes, 1, __ATOMIC_SEQ_CST);
	error = change(*ranges, first, last, otherwise, clear, set);
	__atomic_fetch_add(&ept->changes, 1, __ATOMIC_SEQ_CST);
	return error;
}
