/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The functions of one format: included once by each table_<format>.c, which names its constant
 * as TABLE_FORMAT, so that the compiler folds it into all of them.
 *
 * What does not belong here: anything but handing on.
 */
#ifndef TABLE_FORMAT
#error "say which format: #define TABLE_FORMAT mv_format_…"
#endif

#include "formats.h"
#include "table_change.h"
#include "table_collapse.h"
#include "table_map.h"
#include "table_split.h"
#include "table_unmap.h"
#include "table_walk.h"

static int map(struct mv_engine *e, uint64_t first, uint64_t last, uint64_t phys, uint32_t attr,
	       unsigned int largest_lg2)
{
	return mv_do_map(&TABLE_FORMAT, e, first, last, phys, attr, largest_lg2);
}

static int unmap(struct mv_engine *e, uint64_t first, uint64_t last, uint64_t *removed,
		 mv_leaf_fn gone, void *ctx)
{
	return mv_do_unmap(&TABLE_FORMAT, e, first, last, removed, gone, ctx);
}

static void zap(struct mv_engine *e, uint64_t first, uint64_t last, struct mv_zapped *zapped,
		mv_leaf_fn gone, void *ctx)
{
	mv_do_zap(&TABLE_FORMAT, e, first, last, zapped, gone, ctx);
}

static void trim(struct mv_engine *e, uint64_t first, uint64_t last)
{
	mv_do_trim(&TABLE_FORMAT, e, first, last);
}

static int protect(struct mv_engine *e, uint64_t first, uint64_t last, uint32_t clear, uint32_t set)
{
	return mv_do_protect(&TABLE_FORMAT, e, first, last, clear, set);
}

static int grant(struct mv_engine *e, const struct mv_grant *what, struct mv_mapping *found)
{
	return mv_do_grant(&TABLE_FORMAT, e, what, found);
}

static int change(struct mv_engine *e, const struct mv_mapping *expected, uint32_t attr)
{
	return mv_do_change(&TABLE_FORMAT, e, expected, attr);
}

static int walk(const struct mv_engine *e, uint64_t address, struct mv_mapping *mapping)
{
	return mv_do_walk(&TABLE_FORMAT, e, address, mapping);
}

static size_t translate_many(const struct mv_engine *e, const uint64_t *address, uint64_t *phys,
			     size_t count)
{
	return mv_do_translate_many(&TABLE_FORMAT, e, address, phys, count);
}

static int for_each_leaf(const struct mv_engine *e, uint64_t first, uint64_t last,
			 int (*leaf)(void *ctx, const struct mv_mapping *mapping), void *ctx)
{
	return mv_do_for_each_leaf(&TABLE_FORMAT, e, first, last, leaf, ctx);
}

static uint64_t harvest(struct mv_engine *e, uint64_t first, uint64_t last, uint32_t what,
			mv_leaf_fn found, void *ctx, bool flush)
{
	return mv_do_harvest(&TABLE_FORMAT, e, first, last, what, found, ctx, flush);
}

static int split(struct mv_engine *e, uint64_t first, uint64_t last, unsigned int page_lg2)
{
	return mv_do_split(&TABLE_FORMAT, e, first, last, page_lg2);
}

static uint64_t collapse(struct mv_engine *e, uint64_t first, uint64_t last,
			 unsigned int largest_lg2)
{
	return mv_do_collapse(&TABLE_FORMAT, e, first, last, largest_lg2);
}

/* clang-format off */
#define TABLE_OPS {						\
	.map = map, .unmap = unmap, .zap = zap, .trim = trim,	\
	.protect = protect, .grant = grant, .change = change,	\
	.walk = walk, .translate_many = translate_many,		\
	.for_each_leaf = for_each_leaf, .harvest = harvest,	\
	.split = split, .collapse = collapse,			\
}
/* clang-format on */
