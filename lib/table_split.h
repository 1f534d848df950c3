/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Large pages into small ones. No break is needed: the new table says what the large leaf
 * said, with its accessed and dirty bits, and replaces it by one compare-exchange.
 *
 * What does not belong here: the way back (table_collapse.h).
 */
#ifndef MV_TABLE_SPLIT_H
#define MV_TABLE_SPLIT_H

#include "table_build.h"

/* A table that says what a leaf of the level above says. */
MV_INLINE void mv_fill_split(const struct mv_format *f, const struct mv_engine *e,
			     unsigned int level, uint64_t leaf, void *table)
{
	uint32_t attr = mv_leaf_attr(f, &e->rules, level + 1, leaf);
	uint64_t entry = mv_leaf_bits(f, &e->rules, level, attr) |
			 mv_page_bits(f, level, mv_entry_page(f, level + 1, leaf));

	for (unsigned int i = 0; i < mv_entries(f, level); i++, entry += MV_BIT(f->shift[level]))
		mv_entry_fill(f, table, i, entry);
}

/* A page of PSE-36 above 4 GiB is one that only a large leaf can map. */
MV_INLINE bool mv_splittable(const struct mv_format *f, unsigned int level, uint64_t leaf)
{
	return !f->pse36 || !(mv_entry_page(f, level, leaf) >> 32);
}

/* Split the leaf at a place. Return: 0, also where it is another by now; MV_STEP_PAGES + 1;
 * -EINVAL. */
MV_INLINE int mv_split_leaf(const struct mv_format *f, struct mv_engine *e,
			    struct mv_page_cache *cache, struct mv_place *place)
{
	const uint64_t processors = f->accessed | f->dirty;
	uint64_t leaf = place->entry;
	void *table;

	if (!mv_splittable(f, place->level, leaf))
		return -EINVAL;
	if (!cache->count)
		return MV_STEP_PAGES + 1;
	table = mv_page_cache_take(cache);
	/* Again where a processor has set accessed or dirty meanwhile. */
	while (!((place->entry ^ leaf) & ~processors)) {
		mv_fill_split(f, e, place->level - 1, place->entry, table);
		if (mv_entry_swap(f, place->table, place->index, &place->entry,
				  mv_table_entry(f, e, place->level, table)))
			return 0;
	}
	mv_page_cache_put(cache, table);
	return 0;
}

/* --- the ends of a range ---------------------------------------------------------------------- */

/*
 * The levels at which the leaf that maps an address reaches beyond a range: a bitmap. Bit 0:
 * it cannot be split.
 */
MV_INLINE unsigned int mv_levels_beyond(const struct mv_format *f, const struct mv_engine *e,
					uint64_t address, uint64_t first, uint64_t last)
{
	unsigned int levels = 0, level = 0;
	uint64_t leaf = mv_lookup(f, &e->rules, e->root, e->platform.direct_map, address, &level);
	bool splittable = leaf && mv_splittable(f, level, leaf);

	if (!leaf)
		return 0;
	for (; level > 1 && !mv_span_inside(f, level, address, first, last); level--)
		levels |= 1u << level;
	return levels && !splittable ? levels | 1 : levels;
}

/* Tables that splitting at both ends of a range takes, or -EINVAL. */
MV_INLINE int mv_count_splits(const struct mv_format *f, const struct mv_engine *e, uint64_t first,
			      uint64_t last)
{
	unsigned int at_first, at_last;
	int tables = 0;

	mv_engine_enter(e);
	at_first = mv_levels_beyond(f, e, first, first, last);
	at_last = mv_levels_beyond(f, e, last, first, last);
	mv_engine_leave(e);
	if ((at_first | at_last) & 1)
		return -EINVAL;
	for (unsigned int level = 2; level <= 3; level++) {
		bool same = first >> f->shift[level] == last >> f->shift[level];

		tables += at_first >> level & 1;
		tables += (at_last >> level & 1) && !(same && (at_first >> level & 1));
	}
	return tables;
}

/* Until no large page maps both an address and something beyond the range. */
MV_INLINE int mv_split_end(const struct mv_format *f, struct mv_engine *e,
			   struct mv_page_cache *cache, uint64_t address, uint64_t first,
			   uint64_t last)
{
	struct mv_place place;

	for (;;) {
		int step;

		mv_descend(f, e, address, &place);
		if (mv_entry_is_mark(&e->rules, place.entry, MV_MARK_FROZEN))
			return MV_STEP_WAIT;
		if (place.level == 1 || !mv_entry_present(&e->rules, place.entry) ||
		    mv_span_inside(f, place.level, address, first, last))
			return 0;
		step = mv_split_leaf(f, e, cache, &place);
		if (step)
			return step;
	}
}

/* Both ends, with the pages that it takes. All translations stay as they are. */
MV_INLINE int mv_split_ends(const struct mv_format *f, struct mv_engine *e, uint64_t first,
			    uint64_t last)
{
	struct mv_page_cache cache = { NULL, 0 };
	unsigned int turns = 0;
	int tables = mv_count_splits(f, e, first, last);
	int error = tables < 0 ? tables : mv_page_cache_fill(e, &cache, (size_t)tables);
	int step = error ? error : MV_STEP_AGAIN;

	while (step > 0) {
		mv_engine_enter(e);
		step = mv_split_end(f, e, &cache, first, first, last);
		if (!step)
			step = mv_split_end(f, e, &cache, last, first, last);
		mv_engine_leave(e);
		if (step == MV_STEP_WAIT)
			mv_engine_relax(e, turns++);
		else if (step > 0)
			error = mv_page_cache_fill(e, &cache, 1);
		if (error)
			step = error;
	}
	mv_page_cache_drain(e, &cache);
	return step;
}

/* --- a range -----------------------------------------------------------------------------------
 */

/* One table's leaves of more than a level. */
MV_INLINE int mv_split_table(const struct mv_format *f, struct mv_engine *e,
			     struct mv_page_cache *cache, unsigned int most, uint64_t *at,
			     uint64_t last)
{
	struct mv_place place;
	unsigned int end;

	mv_descend(f, e, *at, &place);
	if (place.level == 1) {
		*at = mv_span_last(f, 2, *at, last) + 1;
		return 0;
	}
	end = mv_place_end(f, &place, *at, last);
	do {
		if (mv_place_is_table(f, e, &place))
			return 0;
		if (mv_entry_is_mark(&e->rules, place.entry, MV_MARK_FROZEN))
			return MV_STEP_WAIT;
		if (place.level > most && mv_entry_present(&e->rules, place.entry))
			return mv_split_leaf(f, e, cache, &place); /* and then into it */
	} while (mv_place_next(f, at, end, &place));
	return 0;
}

MV_INLINE int mv_do_split(const struct mv_format *f, struct mv_engine *e, uint64_t first,
			  uint64_t last, unsigned int page_lg2)
{
	unsigned int most = page_lg2 >= f->shift[2] ? 2 : 1, turns = 0;
	struct mv_page_cache cache = { NULL, 0 };
	int step = 0;

	if (first > last || last > mv_format_last_address(f) ||
	    (page_lg2 != f->shift[1] && page_lg2 != f->shift[2]))
		return -EINVAL;
	for (uint64_t at = first; at <= last && step >= 0;) {
		mv_engine_enter(e);
		step = 0;
		for (int i = 0; !step && at <= last && i < MV_TABLES_A_SECTION; i++)
			step = mv_split_table(f, e, &cache, most, &at, last);
		mv_engine_leave(e);
		if (step == MV_STEP_WAIT)
			mv_engine_relax(e, turns++);
		else if (step > 0)
			step = mv_page_cache_fill(e, &cache, 1);
	}
	mv_page_cache_drain(e, &cache);
	return step < 0 ? step : 0;
}

#endif /* MV_TABLE_SPLIT_H */
