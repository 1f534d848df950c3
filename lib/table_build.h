/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the operations that change a table have in common: why they pause, which ranges they
 * take, and how tables that nobody sees yet are linked.
 *
 * What does not belong here: how tables go (table_gather.h).
 */
#ifndef MV_TABLE_BUILD_H
#define MV_TABLE_BUILD_H

#include "table_gather.h"
#include "table_walk.h"

/* What an operation meets that it cannot deal with inside a read section. */
enum mv_step {
	MV_STEP_WAIT = 1,   /* somebody has frozen or sealed something */
	MV_STEP_AGAIN,	    /* the table has changed shape: from the root again */
	MV_STEP_FULL,	    /* the gather is */
	MV_STEP_SPLIT,	    /* a large page reaches beyond the range */
	MV_STEP_PAGES = 16, /* plus the pages that the cache lacks */
};

MV_INLINE void mv_engine_relax(const struct mv_engine *e, unsigned int turns)
{
	e->platform.ops->relax(e->platform.ctx, turns);
}

MV_INLINE void mv_fill_empty(const struct mv_format *f, const struct mv_engine *e, void *table,
			     unsigned int from, unsigned int to)
{
	for (unsigned int i = from; i < to; i++)
		mv_entry_fill(f, table, i, e->rules.empty);
}

/* An entry of a level that points to a table. */
MV_INLINE uint64_t mv_table_entry(const struct mv_format *f, const struct mv_engine *e,
				  unsigned int level, const void *table)
{
	return mv_engine_phys(e, table) | (f->table_rights[level] & e->rules.meaningful);
}

MV_INLINE bool mv_range_valid(const struct mv_format *f, uint64_t first, uint64_t last)
{
	return first <= last && last <= mv_format_last_address(f) && !(first & 4095) &&
	       !(~last & 4095);
}

/* Bitmap of the levels whose pages are at most so large; 0 says any. */
MV_INLINE unsigned int mv_levels_upto(const struct mv_format *f, const struct mv_engine *e,
				      unsigned int largest_lg2)
{
	unsigned int levels = 0;

	for (unsigned int level = 1; level <= 3; level++)
		if ((e->leaf_levels >> level & 1) &&
		    (!largest_lg2 || f->shift[level] <= largest_lg2))
			levels |= 1u << level;
	return levels;
}

/* Whether a leaf of a level has the bits for an address. */
MV_INLINE bool mv_phys_fits(const struct mv_format *f, const struct mv_engine *e,
			    unsigned int level, uint64_t phys)
{
	unsigned int width = e->maxphyaddr;

	if (f->entry_lg2 == 2)
		width = !f->pse36 || level == 1 ? 32 : width < 40 ? width : 40;
	return phys >> width == 0;
}

/*
 * Link a table of level @lowest, which has been filled, below the entry at a place: by a chain of
 * new tables, where levels lie between, and one compare-exchange. False where the entry has
 * changed: @lowest and the others are in the cache then. The cache has enough pages.
 */
MV_INLINE bool mv_link_chain(const struct mv_format *f, struct mv_engine *e,
			     struct mv_page_cache *cache, void *table, unsigned int lowest,
			     uint64_t address, struct mv_place *place)
{
	void *made[MV_LEVEL_MAX + 1];

	made[lowest] = table;
	for (unsigned int level = lowest + 1; level < place->level; level++) {
		table = made[level] = mv_page_cache_take(cache);
		mv_fill_empty(f, e, table, 0, mv_entries(f, level));
		mv_entry_fill(f, table, mv_index(f, level, address),
			      mv_table_entry(f, e, level, made[level - 1]));
	}
	if (mv_entry_swap(f, place->table, place->index, &place->entry,
			  mv_table_entry(f, e, place->level, table)))
		return true;
	for (unsigned int level = lowest; level < place->level; level++)
		mv_page_cache_put(cache, made[level]);
	return false;
}

#endif /* MV_TABLE_BUILD_H */
