/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables whose leaves are one contiguous large page become that page: break before make. SDM
 * vol. 3, 4.10.2.3 leaves it open which of two sizes a processor uses that has both.
 *
 * What does not belong here: the way back (table_split.h).
 */
#ifndef MV_TABLE_COLLAPSE_H
#define MV_TABLE_COLLAPSE_H

#include "table_map.h"

/*
 * The large leaf of @level that says what a table's leaves say together, or 0 where they do not
 * agree. Accessed and dirty are united.
 */
MV_INLINE uint64_t mv_united_leaf(const struct mv_format *f, const struct mv_engine *e,
				  unsigned int level, const void *table)
{
	const uint64_t processors = f->accessed | f->dirty, stride = MV_BIT(f->shift[level - 1]);
	uint64_t first = mv_entry_load(f, table, 0), want = first & ~processors, found = first;
	uint64_t phys = mv_entry_page(f, level - 1, first);

	if (!mv_entry_present(&e->rules, first) ||
	    !mv_entry_is_leaf(f, &e->rules, level - 1, first) || (phys & mv_span_mask(f, level)))
		return 0;
	for (unsigned int i = 1; i < mv_entries(f, level - 1); i++) {
		uint64_t entry = mv_entry_load(f, table, i);

		want += stride;
		if ((entry & ~processors) != want)
			return 0;
		found |= entry & processors;
	}
	first |= found & processors;
	return mv_leaf_bits(f, &e->rules, level, mv_leaf_attr(f, &e->rules, level - 1, first)) |
	       mv_page_bits(f, level, phys);
}

/* Freeze what can be collapsed, from @at on, until the gather is full or the section too long. */
MV_INLINE void mv_collapse_find(const struct mv_format *f, struct mv_engine *e, struct mv_gather *g,
				unsigned int level, uint64_t *at, uint64_t last)
{
	mv_engine_enter(e);
	for (int i = 0; *at <= last && !mv_gather_full(g) && i < MV_TABLES_A_SECTION; i++) {
		struct mv_place place;
		bool there = mv_descend_to(f, e, *at, level, &place);

		if (there && mv_place_is_table(f, e, &place) &&
		    mv_span_inside(f, level, *at, *at, last) &&
		    mv_united_leaf(f, e, level, mv_engine_page(e, mv_entry_table(f, place.entry))))
			mv_gather_freeze(g, *at, &place); /* else somebody is at it: let it be */
		*at = (*at | mv_span_mask(f, place.level)) + 1;
	}
	mv_engine_leave(e);
}

/*
 * After the flush and the grace period nobody changes these tables: look again, and install the
 * large leaf, or the table as it was.
 */
MV_INLINE uint64_t mv_collapse_settle(const struct mv_format *f, struct mv_engine *e,
				      struct mv_gather *g)
{
	uint64_t collapsed = 0;

	for (unsigned int i = 0; i < g->count; i++) {
		const struct mv_frozen *frozen = &g->frozen[i];
		uint64_t leaf = mv_united_leaf(f, e, frozen->level, frozen->table);
		bool settled = mv_gather_settle(g, frozen, leaf ? leaf : frozen->entry);

		collapsed += leaf && settled;
		if (leaf || !settled)
			mv_gather_free(g, frozen, false);
	}
	return collapsed;
}

/* All of a range that can become leaves of one level. */
MV_INLINE uint64_t mv_collapse_level(const struct mv_format *f, struct mv_engine *e, uint64_t first,
				     uint64_t last, unsigned int level)
{
	uint64_t collapsed = 0;

	for (uint64_t at = first; at <= last;) {
		struct mv_gather g;

		mv_gather_init(&g, e, NULL, NULL);
		mv_collapse_find(f, e, &g, level, &at, last);
		if (!g.count)
			continue;
		mv_gather_flush(&g);
		collapsed += mv_collapse_settle(f, e, &g);
	}
	return collapsed;
}

MV_INLINE uint64_t mv_do_collapse(const struct mv_format *f, struct mv_engine *e, uint64_t first,
				  uint64_t last, unsigned int largest_lg2)
{
	unsigned int levels = mv_levels_upto(f, e, largest_lg2);
	uint64_t collapsed = 0;

	if (last > mv_format_last_address(f))
		last = mv_format_last_address(f);
	for (unsigned int level = 2; level <= 3; level++)
		if (levels >> level & 1)
			collapsed += mv_collapse_level(f, e, first, last, level);
	return collapsed;
}

#endif /* MV_TABLE_COLLAPSE_H */
