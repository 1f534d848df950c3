/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mapping a range, all or nothing: look whether it is free and how many tables it needs, take
 * those, install. Where others were faster, take back what was installed.
 *
 * Tables are filled by plain stores before a single compare-exchange links them with all that
 * they map; only in tables that others can reach does each entry cost one.
 *
 * What does not belong here: single leaves that may be out of date (table_change.h).
 */
#ifndef MV_TABLE_MAP_H
#define MV_TABLE_MAP_H

#include "table_unmap.h"

/**
 * struct mv_map_job - what is to be mapped
 * @first, @last: the range
 * @phys:         what @first maps to
 * @attr:         what leaves say
 * @levels:       bitmap: where leaves may be; all below the highest one are set
 */
struct mv_map_job {
	uint64_t first, last;
	uint64_t phys;
	uint32_t attr;
	unsigned int levels;
};

MV_INLINE uint64_t mv_job_phys(const struct mv_map_job *job, uint64_t at)
{
	return job->phys + (at - job->first);
}

MV_INLINE uint64_t mv_job_leaf(const struct mv_format *f, const struct mv_engine *e,
			       const struct mv_map_job *job, unsigned int level, uint64_t at)
{
	return mv_leaf_bits(f, &e->rules, level, job->attr) |
	       mv_page_bits(f, level, mv_job_phys(job, at));
}

/* What the next entry of a run of leaves adds, where PSE-36 does not scatter the address. */
MV_INLINE uint64_t mv_job_stride(const struct mv_format *f, unsigned int level)
{
	return MV_BIT(f->shift[level]);
}

/* Level of the largest page that may map @at. */
MV_INLINE unsigned int mv_job_level(const struct mv_format *f, const struct mv_map_job *job,
				    uint64_t at)
{
	uint64_t both = at | mv_job_phys(job, at);

	for (unsigned int level = 3; level > 1; level--) {
		uint64_t mask = mv_span_mask(f, level);

		if ((job->levels >> level & 1) && !(both & mask) && job->last - at >= mask)
			return level;
	}
	return 1;
}

/* --- is it free, and what does it need? ---------------------------------------------------- */

/*
 * Tables that map @at to @end where there is none: at each level, the spans that the range
 * touches, less those that one leaf of the next level maps whole.
 */
MV_INLINE size_t mv_job_tables(const struct mv_format *f, const struct mv_map_job *job,
			       unsigned int level, uint64_t at, uint64_t end)
{
	uint64_t differ = at ^ mv_job_phys(job, at);
	size_t tables = 0;

	for (unsigned int above = level; above > 1; above--) {
		unsigned int shift = f->shift[above];
		uint64_t first_whole = (at + mv_span_mask(f, above)) >> shift;
		uint64_t end_whole = (end + 1) >> shift;

		tables += (size_t)((end >> shift) - (at >> shift) + 1);
		if ((job->levels >> above & 1) && !(differ & mv_span_mask(f, above)) &&
		    end_whole > first_whole)
			tables -= (size_t)(end_whole - first_whole);
	}
	return tables;
}

/* The entries of a table of the lowest level, of which there are many. */
MV_INLINE int mv_survey_lowest(const struct mv_format *f, const struct mv_engine *e,
			       const struct mv_map_job *job, uint64_t *at,
			       const struct mv_place *place)
{
	uint64_t end = mv_span_last(f, 2, *at, job->last);
	unsigned int last = mv_index(f, 1, end);
	unsigned int i = place->index;
	uint64_t all = 0;

	for (; i + 4 <= last + 1; i += 4)
		all |= mv_entry_four(f, place->table, i);
	for (; i <= last; i++)
		all |= mv_entry_load(f, place->table, i);
	*at = end + 1;
	return mv_entry_present(&e->rules, all) ? -EEXIST : 0;
}

/* One table: the entries from @at on. */
MV_INLINE int mv_survey_table(const struct mv_format *f, const struct mv_engine *e,
			      const struct mv_map_job *job, uint64_t *at, struct mv_place *place,
			      size_t *tables)
{
	unsigned int end;

	if (place->level == 1)
		return mv_survey_lowest(f, e, job, at, place);
	end = mv_place_end(f, place, *at, job->last);
	do {
		if (mv_place_is_table(f, e, place))
			return 0;
		if (mv_entry_present(&e->rules, place->entry))
			return -EEXIST;
		*tables += mv_job_tables(f, job, place->level, *at,
					 mv_span_last(f, place->level, *at, job->last));
	} while (mv_place_next(f, at, end, place));
	return 0;
}

MV_INLINE int mv_survey(const struct mv_format *f, const struct mv_engine *e,
			const struct mv_map_job *job, size_t *tables)
{
	uint64_t at = job->first;
	int error = 0;

	while (!error && at <= job->last) {
		mv_engine_enter(e);
		for (int i = 0; !error && at <= job->last && i < MV_TABLES_A_SECTION; i++) {
			struct mv_place place;

			mv_descend(f, e, at, &place);
			error = mv_survey_table(f, e, job, &at, &place, tables);
		}
		mv_engine_leave(e);
	}
	return error;
}

/* --- tables that nobody sees yet ------------------------------------------------------------ */

/* A table of leaves, from @at as far as it and the range go. Return: the address after it. */
MV_INLINE uint64_t mv_build_leaves(const struct mv_format *f, const struct mv_engine *e,
				   const struct mv_map_job *job, unsigned int level, uint64_t at,
				   void *table)
{
	const uint64_t stride = mv_job_stride(f, level);
	unsigned int first = mv_index(f, level, at), size = mv_entries(f, level);
	uint64_t left = (job->last - at + 1) >> f->shift[level];
	unsigned int end = left < size - first ? first + (unsigned int)left : size;
	uint64_t entry = mv_job_leaf(f, e, job, level, at);

	mv_fill_empty(f, e, table, 0, first);
	/* One turn an entry takes twice as long where it happens to lie across 32 bytes of code. */
#pragma GCC unroll 8
	for (unsigned int i = first; i < end; i++, entry += stride)
		mv_entry_fill(f, table, i, entry);
	mv_fill_empty(f, e, table, end, size);
	return at + (uint64_t)(end - first) * stride;
}

/* --- install -------------------------------------------------------------------------------- */

/* Leaves into a table that others can reach, as far as it and the range go. */
MV_INLINE int mv_install_leaves(const struct mv_format *f, struct mv_engine *e,
				const struct mv_map_job *job, uint64_t *at, unsigned int level,
				const struct mv_place *place)
{
	const uint64_t stride = mv_job_stride(f, level), empty = e->rules.empty;
	uint64_t left = (job->last - *at + 1) >> f->shift[level], began = *at;
	unsigned int size = mv_entries(f, level) - place->index;
	unsigned int count = left < size ? (unsigned int)left : size;
	uint64_t entry = mv_job_leaf(f, e, job, level, began);

	for (unsigned int i = 0; i < count; i++, entry += stride) {
		uint64_t old = empty;

		if (f->pse36)
			entry = mv_job_leaf(f, e, job, level, *at);
		while (!mv_entry_swap(f, place->table, place->index + i, &old, entry)) {
			if (mv_entry_present(&e->rules, old))
				return mv_entry_is_table(f, &e->rules, level, old) ? 0 : -EEXIST;
			if (mv_entry_is_held(&e->rules, old))
				return MV_STEP_WAIT;
		}
		*at = began + (uint64_t)(i + 1) * stride;
	}
	return 0;
}

/* At least one entry more, or why not. */
MV_INLINE int mv_map_step(const struct mv_format *f, struct mv_engine *e,
			  const struct mv_map_job *job, struct mv_page_cache *cache, uint64_t *at)
{
	struct mv_place place;
	unsigned int level;
	uint64_t next;
	void *table;

	mv_descend(f, e, *at, &place);
	if (mv_entry_present(&e->rules, place.entry))
		return -EEXIST;
	if (mv_entry_is_held(&e->rules, place.entry))
		return MV_STEP_WAIT;
	level = mv_job_level(f, job, *at);
	if (place.level == 1)
		return mv_install_leaves(f, e, job, at, 1, &place);
	if (level >= place.level)
		return mv_install_leaves(f, e, job, at, place.level, &place);
	if (cache->count < place.level - level)
		return MV_STEP_PAGES + (int)(place.level - level);
	table = mv_page_cache_take(cache);
	next = mv_build_leaves(f, e, job, level, *at, table);
	if (mv_link_chain(f, e, cache, table, level, *at, &place))
		*at = next;
	return 0;
}

/* From @at to the end; @at says how far it came. */
MV_INLINE int mv_install(const struct mv_format *f, struct mv_engine *e,
			 const struct mv_map_job *job, struct mv_page_cache *cache, uint64_t *at)
{
	unsigned int turns = 0;
	int step = 0;

	while (*at <= job->last && step >= 0) {
		mv_engine_enter(e);
		for (int i = 0; *at <= job->last && i < MV_TABLES_A_SECTION; i++) {
			step = mv_map_step(f, e, job, cache, at);
			if (step)
				break;
		}
		mv_engine_leave(e);
		if (step == MV_STEP_WAIT)
			mv_engine_relax(e, turns++);
		else if (step > 0)
			step = mv_page_cache_fill(e, cache, (size_t)(step - MV_STEP_PAGES));
	}
	return step < 0 ? step : 0;
}

/* --- and back ------------------------------------------------------------------------------- */

/* One table's leaves, as far as they are ours. */
MV_INLINE void mv_take_back_table(const struct mv_format *f, struct mv_engine *e,
				  const struct mv_map_job *job, struct mv_gather *g, uint64_t *at,
				  uint64_t last)
{
	const uint64_t processors = f->accessed | f->dirty;
	struct mv_place place;
	unsigned int end;

	mv_descend(f, e, *at, &place);
	end = mv_place_end(f, &place, *at, last);
	do {
		uint64_t entry = mv_job_leaf(f, e, job, place.level, *at);

		if (mv_place_is_table(f, e, &place))
			return;
		while ((place.entry & ~processors) == (entry & ~processors))
			if (mv_entry_swap(f, place.table, place.index, &place.entry,
					  e->rules.empty)) {
				mv_gather_leaf(f, g, place.level, *at, place.entry);
				break;
			}
	} while (mv_place_next(f, at, end, &place));
}

/* Remove what was installed up to @end; what others put there meanwhile stays. */
MV_INLINE void mv_take_back(const struct mv_format *f, struct mv_engine *e,
			    const struct mv_map_job *job, uint64_t end)
{
	struct mv_gather g;

	for (uint64_t at = job->first; at < end;) {
		uint64_t began = at;

		mv_gather_init(&g, e, NULL, NULL);
		mv_engine_enter(e);
		mv_take_back_table(f, e, job, &g, &at, end - 1);
		mv_engine_leave(e);
		mv_gather_finish(&g);
		mv_trim_path(f, e, began);
	}
}

/* Small pages, where there are any, are at the ends. */
MV_INLINE bool mv_job_fits(const struct mv_format *f, const struct mv_engine *e,
			   const struct mv_map_job *job)
{
	unsigned int level = f->pse36 ? mv_job_level(f, job, job->first) : 1;
	uint64_t last_phys = mv_job_phys(job, job->last);
	uint64_t tail = job->last & mv_span_mask(f, 2);

	if (last_phys < job->phys || !mv_phys_fits(f, e, f->pse36 ? 2 : 1, last_phys))
		return false;
	if (!f->pse36 || mv_phys_fits(f, e, 1, last_phys))
		return true;
	/* PSE-36 above 4 GiB: all in large pages, or the small ones at the front and below. */
	if (tail != mv_span_mask(f, 2) || !(job->levels >> 2 & 1) ||
	    ((job->first ^ job->phys) & mv_span_mask(f, 2)))
		return false;
	return level > 1 || mv_phys_fits(f, e, 1, job->phys | mv_span_mask(f, 2));
}

MV_INLINE int mv_do_map(const struct mv_format *f, struct mv_engine *e, uint64_t first,
			uint64_t last, uint64_t phys, uint32_t attr, unsigned int largest_lg2)
{
	const struct mv_map_job job = { first, last, phys, attr,
					mv_levels_upto(f, e, largest_lg2) };
	struct mv_page_cache cache = { NULL, 0 };
	uint64_t at = first;
	size_t tables = 0;
	int error;

	if (!mv_range_valid(f, first, last) || (phys & 4095) || !job.levels ||
	    !mv_job_fits(f, e, &job) || !mv_engine_attr_valid(e, attr))
		return -EINVAL;
	error = mv_survey(f, e, &job, &tables);
	if (!error)
		error = mv_page_cache_fill(e, &cache, tables);
	if (!error) {
		error = mv_install(f, e, &job, &cache, &at);
		if (error)
			mv_take_back(f, e, &job, at);
	}
	mv_page_cache_drain(e, &cache);
	return error;
}

#endif /* MV_TABLE_MAP_H */
