/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Removing: ranges with the tables that map them, leaves alone, and tables that are empty.
 *
 * What does not belong here: how what was unlinked is freed (table_gather.c).
 */
#ifndef MV_TABLE_UNMAP_H
#define MV_TABLE_UNMAP_H

#include "table_split.h"

/* --- a range ---------------------------------------------------------------------------------- */

/*
 * From the root to the entry that stands for @at and can be dealt with whole: no table, or a
 * table that the range covers.
 */
MV_INLINE void mv_descend_covered(const struct mv_format *f, const struct mv_engine *e, uint64_t at,
				  uint64_t last, struct mv_place *place)
{
	mv_place_root(f, e, at, place);
	while (mv_place_is_table(f, e, place) && !mv_span_inside(f, place->level, at, at, last))
		mv_place_down(f, e, at, place);
}

/*
 * Take one entry away. Levels above the first are frozen until the flush, so that nobody puts
 * another size of page there before.
 */
MV_INLINE int mv_remove_entry(const struct mv_format *f, struct mv_engine *e, struct mv_gather *g,
			      uint64_t at, uint64_t last, struct mv_place *place)
{
	while (place->entry != e->rules.empty) {
		bool present = mv_entry_present(&e->rules, place->entry);

		if (mv_entry_is_mark(&e->rules, place->entry, MV_MARK_FROZEN))
			return MV_STEP_WAIT;
		if (mv_entry_is_mark(&e->rules, place->entry, MV_MARK_SEALED))
			return 0; /* as good as empty */
		if (present && !mv_span_inside(f, place->level, at, at, last))
			return mv_place_is_table(f, e, place) ? MV_STEP_AGAIN : MV_STEP_SPLIT;
		if (present && place->level > 1) {
			if (mv_gather_full(g))
				return MV_STEP_FULL;
			if (mv_gather_freeze(g, at, place))
				return 0;
		} else if (mv_entry_swap(f, place->table, place->index, &place->entry,
					 e->rules.empty)) {
			if (present)
				mv_gather_leaf(f, g, place->level, at, place->entry);
			return 0;
		}
	}
	return 0;
}

MV_INLINE int mv_remove_entries(const struct mv_format *f, struct mv_engine *e, struct mv_gather *g,
				uint64_t *at, uint64_t last, unsigned int level,
				struct mv_place *place)
{
	unsigned int end;
	int step;

	place->level = level;
	end = mv_place_end(f, place, *at, last);
	do {
		step = mv_remove_entry(f, e, g, *at, last, place);
		if (step)
			return step == MV_STEP_AGAIN ? 0 : step;
	} while (mv_place_next(f, at, end, place));
	return 0;
}

/* One table's entries, or a whole subtree. @at moves past what was dealt with. */
MV_INLINE int mv_remove_table(const struct mv_format *f, struct mv_engine *e, struct mv_gather *g,
			      uint64_t *at, uint64_t last)
{
	struct mv_place place;

	mv_descend_covered(f, e, *at, last, &place);
	if (place.level == 1)
		return mv_remove_entries(f, e, g, at, last, 1, &place);
	return mv_remove_entries(f, e, g, at, last, place.level, &place);
}

MV_INLINE int mv_remove_section(const struct mv_format *f, struct mv_engine *e, struct mv_gather *g,
				uint64_t *at, uint64_t last)
{
	int step = 0;

	mv_engine_enter(e);
	for (int i = 0; !step && *at <= last && i < MV_TABLES_A_SECTION; i++)
		step = mv_remove_table(f, e, g, at, last);
	mv_engine_leave(e);
	return step;
}

/* --- tables that are empty ---------------------------------------------------------------------
 */

/* How an attempt to seal a table ended. */
enum mv_seal {
	MV_SEAL_DONE,
	MV_SEAL_LIVE, /* something is in it */
	MV_SEAL_BUSY, /* somebody else is at it, and may not come through with it */
};

/* Begin where entries most likely are: next to the one that was just removed. */
MV_INLINE enum mv_seal mv_seal_look(const struct mv_format *f, const struct mv_engine *e,
				    const struct mv_place *place, bool skip)
{
	unsigned int size = mv_entries(f, place->level);

	for (unsigned int n = skip; n < size; n++) {
		uint64_t entry = mv_entry_load(f, place->table, (place->index + n) & (size - 1));

		if (entry == e->rules.empty)
			continue;
		return mv_entry_is_mark(&e->rules, entry, MV_MARK_SEALED) ? MV_SEAL_BUSY
									  : MV_SEAL_LIVE;
	}
	return MV_SEAL_DONE;
}

MV_INLINE void mv_unseal(const struct mv_format *f, struct mv_engine *e, void *table,
			 unsigned int count, uint64_t mark)
{
	for (unsigned int i = 0; i < count; i++) {
		uint64_t old = mark;

		mv_entry_swap(f, table, i, &old, e->rules.empty);
	}
}

/*
 * Mark every entry of a table, but place's own where @skip: it points to the sealed table below.
 * In ascending order from the first, so that of two who try one gives way at once.
 */
MV_INLINE enum mv_seal mv_seal(const struct mv_format *f, struct mv_engine *e,
			       const struct mv_place *place, bool skip, uint64_t mark)
{
	enum mv_seal look = mv_seal_look(f, e, place, skip);

	if (look != MV_SEAL_DONE)
		return look;
	for (unsigned int i = 0; i < mv_entries(f, place->level); i++) {
		uint64_t old = e->rules.empty;

		if (skip && i == place->index)
			continue;
		if (mv_entry_swap(f, place->table, i, &old, mark))
			continue;
		mv_unseal(f, e, place->table, i, mark);
		return mv_entry_is_mark(&e->rules, old, MV_MARK_SEALED) ? MV_SEAL_BUSY
									: MV_SEAL_LIVE;
	}
	return MV_SEAL_DONE;
}

/* The way from the root to an address, by level. Return: the lowest. */
MV_INLINE unsigned int mv_path(const struct mv_format *f, const struct mv_engine *e,
			       uint64_t address, struct mv_place *path)
{
	struct mv_place place;

	mv_place_root(f, e, address, &place);
	path[place.level] = place;
	while (mv_place_is_table(f, e, &place)) {
		mv_place_down(f, e, address, &place);
		path[place.level] = place;
	}
	return place.level;
}

/* Freeze the entry that points to the highest sealed table; a processor may set A meanwhile. */
MV_INLINE bool mv_unlink_sealed(const struct mv_format *f, struct mv_engine *e, struct mv_gather *g,
				uint64_t address, struct mv_place *parent)
{
	uint64_t table = mv_entry_table(f, parent->entry);

	while (mv_place_is_table(f, e, parent) && mv_entry_table(f, parent->entry) == table)
		if (mv_gather_freeze(g, address, parent))
			return true;
	return false;
}

/*
 * Unlink the tables on the way to an address that map nothing, from the lowest up. DONE: some;
 * LIVE: none is empty.
 */
MV_INLINE enum mv_seal mv_trim_section(const struct mv_format *f, struct mv_engine *e,
				       struct mv_gather *g, uint64_t address)
{
	uint64_t mark = mv_mark_make(f, &e->rules, MV_MARK_SEALED, mv_engine_mark_number(e));
	struct mv_place path[MV_LEVEL_MAX + 1];
	unsigned int lowest = mv_path(f, e, address, path), level = lowest;
	enum mv_seal seal = MV_SEAL_LIVE, result = MV_SEAL_LIVE;

	while (level < f->levels) {
		seal = mv_seal(f, e, &path[level], level > lowest, mark);
		if (seal != MV_SEAL_DONE)
			break;
		level++;
	}
	if (level == lowest)
		return level == f->levels ? MV_SEAL_LIVE : seal;
	if (mv_unlink_sealed(f, e, g, address, &path[level]))
		return MV_SEAL_DONE;
	/* Somebody unlinked it with a table above: then these are theirs. Else try again. */
	result = MV_SEAL_BUSY;
	for (unsigned int l = lowest; l < level; l++)
		mv_unseal(f, e, path[l].table, mv_entries(f, l), mark);
	return result;
}

/*
 * Free the empty tables on the way to an address. What was frozen itself hides whether the table
 * above is empty too, and so may another's: so look again until nothing is.
 */
MV_INLINE void mv_trim_path(const struct mv_format *f, struct mv_engine *e, uint64_t address)
{
	struct mv_gather g;
	enum mv_seal seal;
	unsigned int turns = 0;

	mv_gather_init(&g, e, NULL, NULL);
	do {
		mv_engine_enter(e);
		seal = mv_trim_section(f, e, &g, address);
		mv_engine_leave(e);
		if (seal == MV_SEAL_DONE)
			mv_gather_finish(&g);
		else if (seal == MV_SEAL_BUSY)
			mv_engine_relax(e, turns++);
	} while (seal != MV_SEAL_LIVE);
}

MV_INLINE void mv_trim_ends(const struct mv_format *f, struct mv_engine *e, uint64_t first,
			    uint64_t last)
{
	mv_trim_path(f, e, first);
	if (first >> f->shift[2] != last >> f->shift[2])
		mv_trim_path(f, e, last);
}

/* From one lowest table to the next. */
MV_INLINE void mv_do_trim(const struct mv_format *f, struct mv_engine *e, uint64_t first,
			  uint64_t last)
{
	if (last > mv_format_last_address(f))
		last = mv_format_last_address(f);
	for (uint64_t at = first; at <= last;) {
		struct mv_place place;
		unsigned int end;

		mv_trim_path(f, e, at);
		mv_engine_enter(e);
		mv_descend(f, e, at, &place);
		end = mv_place_end(f, &place, at, last);
		while (mv_place_next(f, &at, end, &place))
			if (mv_place_is_table(f, e, &place))
				break;
		mv_engine_leave(e);
	}
}

/* --- all of it ---------------------------------------------------------------------------------
 */

/*
 * What a step could not do inside a read section. Whoever waits has frozen nothing itself, or
 * two could wait for each other.
 */
MV_INLINE int mv_remove_pause(const struct mv_format *f, struct mv_engine *e, struct mv_gather *g,
			      int step, uint64_t at, uint64_t last, unsigned int *turns)
{
	mv_gather_finish(g);
	if (step == MV_STEP_WAIT)
		mv_engine_relax(e, (*turns)++);
	/* A collapse came between the split and here. */
	return step == MV_STEP_SPLIT ? mv_split_ends(f, e, at, last) : 0;
}

MV_INLINE int mv_do_unmap(const struct mv_format *f, struct mv_engine *e, uint64_t first,
			  uint64_t last, uint64_t *removed, mv_leaf_fn gone, void *ctx)
{
	struct mv_gather g;
	unsigned int turns = 0;
	uint64_t at = first;
	int error;

	if (!mv_range_valid(f, first, last))
		return -EINVAL;
	error = mv_split_ends(f, e, first, last);
	if (error)
		return error;
	mv_gather_init(&g, e, gone, ctx);
	while (!error && at <= last) {
		int step = mv_remove_section(f, e, &g, &at, last);

		if (step)
			error = mv_remove_pause(f, e, &g, step, at, last, &turns);
	}
	mv_gather_finish(&g);
	mv_trim_ends(f, e, first, last);
	if (removed && !error)
		*removed = g.removed;
	return error;
}

/* --- leaves alone ------------------------------------------------------------------------------
 */

MV_INLINE int mv_zap_entry(const struct mv_format *f, struct mv_engine *e, struct mv_gather *g,
			   uint64_t at, struct mv_place *place)
{
	while (place->entry != e->rules.empty) {
		bool present = mv_entry_present(&e->rules, place->entry);

		if (mv_place_is_table(f, e, place))
			return MV_STEP_AGAIN;
		if (mv_entry_is_mark(&e->rules, place->entry, MV_MARK_FROZEN))
			return MV_STEP_WAIT;
		if (mv_entry_is_mark(&e->rules, place->entry, MV_MARK_SEALED))
			return 0;
		if (!mv_entry_swap(f, place->table, place->index, &place->entry, e->rules.empty))
			continue;
		if (present)
			mv_gather_leaf(f, g, place->level, at, place->entry);
		return 0;
	}
	return 0;
}

MV_INLINE int mv_zap_entries(const struct mv_format *f, struct mv_engine *e, struct mv_gather *g,
			     uint64_t *at, uint64_t last, unsigned int level,
			     struct mv_place *place)
{
	unsigned int end;
	int step;

	place->level = level;
	end = mv_place_end(f, place, *at, last);
	do {
		step = mv_zap_entry(f, e, g, *at, place);
		if (step)
			return step == MV_STEP_AGAIN ? 0 : step;
	} while (mv_place_next(f, at, end, place));
	return 0;
}

MV_INLINE int mv_zap_table(const struct mv_format *f, struct mv_engine *e, struct mv_gather *g,
			   uint64_t *at, uint64_t last)
{
	struct mv_place place;

	mv_descend(f, e, *at, &place);
	if (place.level == 1)
		return mv_zap_entries(f, e, g, at, last, 1, &place);
	return mv_zap_entries(f, e, g, at, last, place.level, &place);
}

MV_INLINE void mv_do_zap(const struct mv_format *f, struct mv_engine *e, uint64_t first,
			 uint64_t last, struct mv_zapped *zapped, mv_leaf_fn gone, void *ctx)
{
	struct mv_gather g;
	unsigned int turns = 0;

	if (last > mv_format_last_address(f))
		last = mv_format_last_address(f);
	mv_gather_init(&g, e, gone, ctx);
	for (uint64_t at = first; at <= last;) {
		int step = 0;

		mv_engine_enter(e);
		for (int i = 0; !step && at <= last && i < MV_TABLES_A_SECTION; i++)
			step = mv_zap_table(f, e, &g, &at, last);
		mv_engine_leave(e);
		if (step)
			mv_engine_relax(e, turns++);
	}
	zapped->first = g.first < first ? g.first : first;
	zapped->last = g.last > last ? g.last : last;
	zapped->bytes = g.removed;
}

#endif /* MV_TABLE_UNMAP_H */
