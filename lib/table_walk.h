/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading tables that memvirt built: one address, many at once, all leaves of a range. And the
 * descent with which operations find the entry they work on.
 *
 * Tables of one's own need no checks: nothing reserved is ever in them. The walks of others'
 * tables, with every check, are guest_walk.h and ept/stage2.c.
 */
#ifndef MV_TABLE_WALK_H
#define MV_TABLE_WALK_H

#include <errno.h>

#include "table_engine.h"
#include "table_entry.h"

/*
 * The leaf that maps an address, and its level; 0 where there is none. An entry of value 0 is
 * never present.
 *
 * Context: a read section of the platform, for as long as what is found is used.
 */
MV_INLINE uint64_t mv_lookup(const struct mv_format *f, const struct mv_rules *rules, uint64_t root,
			     uintptr_t direct_map, uint64_t address, unsigned int *level)
{
	uint64_t table = root;

#pragma GCC unroll 5
	for (unsigned int l = f->levels; l; l--) {
		uint64_t offset = (uint64_t)mv_index(f, l, address) << f->entry_lg2;
		uint64_t mapped = mv_sum_first(direct_map + offset);
		uint64_t entry = mv_entry_load(f, (const void *)(uintptr_t)(mapped + table), 0);

		if (!mv_entry_present(rules, entry))
			return 0;
		if (mv_entry_is_leaf(f, rules, l, entry)) {
			*level = l;
			return entry;
		}
		table = mv_entry_table(f, entry);
	}
	return 0;
}

/* What a leaf says, for those who asked for an address in it. */
MV_INLINE void mv_leaf_mapping(const struct mv_format *f, const struct mv_rules *rules,
			       unsigned int level, uint64_t address, uint64_t entry,
			       struct mv_mapping *mapping)
{
	mapping->address = address & ~mv_span_mask(f, level);
	mapping->phys = mv_entry_page(f, level, entry);
	mapping->page_lg2 = f->shift[level];
	mapping->level = level;
	mapping->attr = mv_leaf_attr(f, rules, level, entry);
}

MV_INLINE int mv_do_walk(const struct mv_format *f, const struct mv_engine *e, uint64_t address,
			 struct mv_mapping *mapping)
{
	unsigned int level = 0;
	uint64_t entry;

	if (address > mv_format_last_address(f))
		return -EINVAL;
	mv_engine_enter(e);
	entry = mv_lookup(f, &e->rules, e->root, e->platform.direct_map, address, &level);
	mv_engine_leave(e);
	if (!entry)
		return -ENOENT;
	mv_leaf_mapping(f, &e->rules, level, address, entry, mapping);
	return 0;
}

/* --- many at once ------------------------------------------------------------------------- */

#define MV_WALKS_AT_ONCE 16

/*
 * Up to 16 walks, a level at a time: each entry is asked for before it is needed, and the
 * answers arrive while the others are looked at.
 */
MV_INLINE size_t mv_translate_batch(const struct mv_format *f, const struct mv_engine *e,
				    const uint64_t *address, uint64_t *phys, unsigned int count)
{
	const uintptr_t direct_map = e->platform.direct_map;
	const uint64_t top = mv_format_last_address(f);
	uintptr_t table[MV_WALKS_AT_ONCE];
	size_t mapped = 0;

	for (unsigned int i = 0; i < count; i++) {
		table[i] = address[i] > top ? 0 : (uintptr_t)e->root + direct_map;
		phys[i] = UINT64_MAX;
	}
#pragma GCC unroll 5
	for (unsigned int l = f->levels; l; l--) {
		for (unsigned int i = 0; i < count; i++) {
			uint64_t entry;

			if (!table[i])
				continue;
			entry = mv_entry_load(f, (const void *)table[i],
					      mv_index(f, l, address[i]));
			table[i] = 0;
			if (!mv_entry_present(&e->rules, entry))
				continue;
			if (mv_entry_is_leaf(f, &e->rules, l, entry)) {
				phys[i] = mv_entry_page(f, l, entry) |
					  (address[i] & mv_span_mask(f, l));
				mapped++;
				continue;
			}
			table[i] = (uintptr_t)mv_entry_table(f, entry) + direct_map;
			mv_entry_prefetch(f, (const void *)table[i],
					  mv_index(f, l - 1, address[i]));
		}
	}
	return mapped;
}

MV_INLINE size_t mv_do_translate_many(const struct mv_format *f, const struct mv_engine *e,
				      const uint64_t *address, uint64_t *phys, size_t count)
{
	size_t mapped = 0;

	for (size_t at = 0; at < count; at += MV_WALKS_AT_ONCE) {
		size_t left = count - at;
		unsigned int now = left < MV_WALKS_AT_ONCE ? (unsigned int)left : MV_WALKS_AT_ONCE;

		mv_engine_enter(e);
		mapped += mv_translate_batch(f, e, address + at, phys + at, now);
		mv_engine_leave(e);
	}
	return mapped;
}

/* --- descents ----------------------------------------------------------------------------- */

/**
 * struct mv_place - an entry
 * @table: the page it is in
 * @level: its level
 * @index: its number
 * @entry: its value when it was read
 */
struct mv_place {
	void *table;
	unsigned int level;
	unsigned int index;
	uint64_t entry;
};

MV_INLINE void mv_place_read(const struct mv_format *f, const struct mv_engine *e, void *table,
			     unsigned int level, uint64_t address, struct mv_place *place)
{
	place->table = table;
	place->level = level;
	place->index = mv_index(f, level, address);
	place->entry = mv_entry_load(f, table, place->index);
}

/* To the table that an entry points to. */
MV_INLINE void mv_place_down(const struct mv_format *f, const struct mv_engine *e, uint64_t address,
			     struct mv_place *place)
{
	mv_place_read(f, e, mv_engine_page(e, mv_entry_table(f, place->entry)), place->level - 1,
		      address, place);
}

MV_INLINE void mv_place_root(const struct mv_format *f, const struct mv_engine *e, uint64_t address,
			     struct mv_place *place)
{
	mv_place_read(f, e, mv_engine_page(e, e->root), f->levels, address, place);
}

MV_INLINE bool mv_place_is_table(const struct mv_format *f, const struct mv_engine *e,
				 const struct mv_place *place)
{
	return mv_entry_is_table(f, &e->rules, place->level, place->entry);
}

/* From the root to the first entry on the way to an address that points to no table. */
MV_INLINE void mv_descend(const struct mv_format *f, const struct mv_engine *e, uint64_t address,
			  struct mv_place *place)
{
	mv_place_root(f, e, address, place);
	while (mv_place_is_table(f, e, place))
		mv_place_down(f, e, address, place);
}

/* The same, but not below a level. False where something else ends it before. */
MV_INLINE bool mv_descend_to(const struct mv_format *f, const struct mv_engine *e, uint64_t address,
			     unsigned int level, struct mv_place *place)
{
	mv_place_root(f, e, address, place);
	while (place->level > level && mv_place_is_table(f, e, place))
		mv_place_down(f, e, address, place);
	return place->level == level;
}

/* The last address that an entry of a level, or a range, reaches to from @address on. */
MV_INLINE uint64_t mv_span_last(const struct mv_format *f, unsigned int level, uint64_t address,
				uint64_t last)
{
	uint64_t end = address | mv_span_mask(f, level);

	return end < last ? end : last;
}

/* Whether all that an entry of a level stands for lies between @first and @last. */
MV_INLINE bool mv_span_inside(const struct mv_format *f, unsigned int level, uint64_t address,
			      uint64_t first, uint64_t last)
{
	uint64_t mask = mv_span_mask(f, level);

	return (address & ~mask) >= first && (address | mask) <= last;
}

/* Index of the last entry of a place's table that a range reaches. */
MV_INLINE unsigned int mv_place_end(const struct mv_format *f, const struct mv_place *place,
				    uint64_t at, uint64_t last)
{
	unsigned int level = place->level;
	uint64_t end = at | (MV_BIT(f->shift[level] + f->index_lg2[level]) - 1);

	return mv_index(f, level, end < last ? end : last);
}

/* To the next entry of the same table, up to @end. @at moves on in any case. */
MV_INLINE bool mv_place_next(const struct mv_format *f, uint64_t *at, unsigned int end,
			     struct mv_place *place)
{
	*at = (*at | mv_span_mask(f, place->level)) + 1;
	if (place->index == end)
		return false;
	place->index++;
	place->entry = mv_entry_load(f, place->table, place->index);
	return true;
}

/* --- all leaves of a range ---------------------------------------------------------------- */

/* Tables between two rests, so that a long walk does not hold up every grace period. */
#define MV_TABLES_A_SECTION 256

/*
 * Most entries are of the lowest level, and code that knows its level is much faster. So each
 * operation's loop over a table's entries is inlined twice:
 *
 *	if (place.level == 1)
 *		loop(..., 1, &place)
 *	else
 *		loop(..., place.level, &place)
 *
 * and begins with place->level = level.
 */

/* One table's leaves. Not 0: what @leaf said. */
MV_INLINE int mv_leaves_of_table(const struct mv_format *f, const struct mv_engine *e, uint64_t *at,
				 uint64_t last, unsigned int level, struct mv_place *place,
				 int (*leaf)(void *ctx, const struct mv_mapping *mapping),
				 void *ctx)
{
	unsigned int end;
	int error = 0;

	place->level = level;
	end = mv_place_end(f, place, *at, last);
	do {
		struct mv_mapping mapping;

		if (!mv_entry_present(&e->rules, place->entry))
			continue;
		if (mv_place_is_table(f, e, place))
			return 0;
		mv_leaf_mapping(f, &e->rules, level, *at, place->entry, &mapping);
		error = leaf(ctx, &mapping);
	} while (mv_place_next(f, at, end, place) && !error);
	return error;
}

MV_INLINE int mv_do_for_each_leaf(const struct mv_format *f, const struct mv_engine *e,
				  uint64_t first, uint64_t last,
				  int (*leaf)(void *ctx, const struct mv_mapping *mapping),
				  void *ctx)
{
	uint64_t at = first;
	int error = 0;

	if (last > mv_format_last_address(f))
		last = mv_format_last_address(f);
	while (!error && at <= last) {
		mv_engine_enter(e);
		for (int i = 0; !error && at <= last && i < MV_TABLES_A_SECTION; i++) {
			struct mv_place place;

			mv_descend(f, e, at, &place);
			if (place.level == 1)
				error = mv_leaves_of_table(f, e, &at, last, 1, &place, leaf, ctx);
			else
				error = mv_leaves_of_table(f, e, &at, last, place.level, &place,
							   leaf, ctx);
		}
		mv_engine_leave(e);
	}
	return error;
}

#endif /* MV_TABLE_WALK_H */
