/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Changing what leaves say: rights of a range, accessed and dirty bits, and the two operations on
 * one leaf that faults need.
 *
 * What does not belong here: whether a change is allowed (region.h, ept/).
 */
#ifndef MV_TABLE_CHANGE_H
#define MV_TABLE_CHANGE_H

#include "table_split.h"

/* --- protect --------------------------------------------------------------------------------- */

/**
 * struct mv_change_job - what is to become of a range
 * @first, @last: the range
 * @clear, @set:  attributes
 * @flush_first, @flush_last: what has to be flushed; nothing where the one is above the other
 */
struct mv_change_job {
	uint64_t first, last;
	uint32_t clear, set;
	uint64_t flush_first, flush_last;
};

MV_INLINE uint32_t mv_job_attr(const struct mv_change_job *job, uint32_t attr)
{
	return (attr & ~job->clear) | job->set;
}

/*
 * Whether a processor may go on with what it knows of a leaf: it then misses rights, which
 * ends in a fault that is spurious, and bits that only software reads.
 */
MV_INLINE bool mv_change_is_harmless(uint32_t before, uint32_t after)
{
	const uint32_t grows = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_EXEC_USER |
			       MV_ATTR_ACCESSED | MV_ATTR_DIRTY;
	uint32_t changed = (before ^ after) & ~(MV_ATTR_SOFT0 | MV_ATTR_SOFT1);

	return !(changed & ~grows) && !(changed & before);
}

/* All leaves of a range, before any is changed. */
MV_INLINE int mv_protect_check(const struct mv_format *f, const struct mv_engine *e,
			       const struct mv_change_job *job, uint64_t *at)
{
	struct mv_place place;
	uint32_t checked = ~0u;
	unsigned int end;

	mv_descend(f, e, *at, &place);
	end = mv_place_end(f, &place, *at, job->last);
	do {
		uint32_t attr;

		if (mv_place_is_table(f, e, &place))
			return 0;
		if (!mv_entry_present(&e->rules, place.entry))
			continue;
		attr = mv_leaf_attr(f, &e->rules, place.level, place.entry);
		if (attr != checked && !mv_engine_attr_valid(e, mv_job_attr(job, attr)))
			return -EINVAL;
		checked = attr;
	} while (mv_place_next(f, at, end, &place));
	return 0;
}

/* One entry. A processor may set accessed or dirty between two attempts: they are kept. */
MV_INLINE int mv_protect_entry(const struct mv_format *f, struct mv_engine *e,
			       struct mv_change_job *job, uint64_t at, struct mv_place *place)
{
	while (mv_entry_present(&e->rules, place->entry)) {
		uint64_t page = mv_entry_page(f, place->level, place->entry);
		uint32_t before = mv_leaf_attr(f, &e->rules, place->level, place->entry);
		uint32_t after = mv_job_attr(job, before);
		uint64_t entry = mv_leaf_bits(f, &e->rules, place->level, after) |
				 mv_page_bits(f, place->level, page);

		if (mv_place_is_table(f, e, place))
			return MV_STEP_AGAIN;
		if (!mv_span_inside(f, place->level, at, job->first, job->last))
			return MV_STEP_SPLIT;
		if (entry == place->entry)
			return 0;
		if (!mv_entry_swap(f, place->table, place->index, &place->entry, entry))
			continue;
		if (!mv_change_is_harmless(before,
					   mv_leaf_attr(f, &e->rules, place->level, entry))) {
			job->flush_first = at < job->flush_first ? at : job->flush_first;
			job->flush_last = at | mv_span_mask(f, place->level);
		}
		return 0;
	}
	return mv_entry_is_mark(&e->rules, place->entry, MV_MARK_FROZEN) ? MV_STEP_WAIT : 0;
}

MV_INLINE int mv_protect_entries(const struct mv_format *f, struct mv_engine *e,
				 struct mv_change_job *job, uint64_t *at, unsigned int level,
				 struct mv_place *place)
{
	unsigned int end;
	int step;

	place->level = level;
	end = mv_place_end(f, place, *at, job->last);
	do {
		step = mv_protect_entry(f, e, job, *at, place);
		if (step)
			return step == MV_STEP_AGAIN ? 0 : step;
	} while (mv_place_next(f, at, end, place));
	return 0;
}

MV_INLINE int mv_protect_table(const struct mv_format *f, struct mv_engine *e,
			       struct mv_change_job *job, uint64_t *at)
{
	struct mv_place place;

	mv_descend(f, e, *at, &place);
	if (place.level == 1)
		return mv_protect_entries(f, e, job, at, 1, &place);
	return mv_protect_entries(f, e, job, at, place.level, &place);
}

MV_INLINE int mv_protect_checks(const struct mv_format *f, const struct mv_engine *e,
				const struct mv_change_job *job)
{
	int error = 0;

	for (uint64_t at = job->first; !error && at <= job->last;) {
		mv_engine_enter(e);
		for (int i = 0; !error && at <= job->last && i < MV_TABLES_A_SECTION; i++)
			error = mv_protect_check(f, e, job, &at);
		mv_engine_leave(e);
	}
	return error;
}

MV_INLINE int mv_protect_changes(const struct mv_format *f, struct mv_engine *e,
				 struct mv_change_job *job)
{
	unsigned int turns = 0;
	int error = 0;

	for (uint64_t at = job->first; !error && at <= job->last;) {
		int step = 0;

		mv_engine_enter(e);
		for (int i = 0; !step && at <= job->last && i < MV_TABLES_A_SECTION; i++)
			step = mv_protect_table(f, e, job, &at);
		mv_engine_leave(e);
		if (step == MV_STEP_WAIT)
			mv_engine_relax(e, turns++);
		else if (step == MV_STEP_SPLIT) /* a collapse came between the split and here */
			error = mv_split_ends(f, e, job->first, job->last);
	}
	return error;
}

MV_INLINE int mv_do_protect(const struct mv_format *f, struct mv_engine *e, uint64_t first,
			    uint64_t last, uint32_t clear, uint32_t set)
{
	struct mv_change_job job = { first, last, clear, set, UINT64_MAX, 0 };
	int error;

	if (!mv_range_valid(f, first, last))
		return -EINVAL;
	error = mv_protect_checks(f, e, &job);
	if (!error)
		error = mv_split_ends(f, e, first, last);
	if (!error)
		error = mv_protect_changes(f, e, &job);
	if (job.flush_first <= job.flush_last)
		mv_engine_flush(e, job.flush_first, job.flush_last);
	return error;
}

/* --- harvest ---------------------------------------------------------------------------------- */

/**
 * struct mv_harvest_job - what is looked for, and found
 * @last:  of the range
 * @bits:  in entries
 * @found, @ctx: told of each leaf
 * @count: leaves
 * @flush_first, @flush_last: where they were
 */
struct mv_harvest_job {
	uint64_t last;
	uint64_t bits;
	mv_leaf_fn found;
	void *ctx;
	uint64_t count;
	uint64_t flush_first, flush_last;
};

/*
 * Take the bits from one entry; false where there are none to take. By compare-exchange, since an
 * atomic and does not tell which of two bits it cleared.
 */
MV_INLINE bool mv_harvest_entry(const struct mv_format *f, struct mv_engine *e,
				const struct mv_harvest_job *job, unsigned int level,
				struct mv_place *place)
{
	do {
		/* What was a leaf may be a mark, a table or nothing by now. */
		if (!(place->entry & job->bits) || !mv_entry_present(&e->rules, place->entry) ||
		    !mv_entry_is_leaf(f, &e->rules, level, place->entry))
			return false;
	} while (!mv_entry_swap(f, place->table, place->index, &place->entry,
				place->entry & ~job->bits));
	return true;
}

MV_INLINE void mv_harvest_note(const struct mv_format *f, struct mv_engine *e,
			       struct mv_harvest_job *job, uint64_t at, unsigned int level,
			       const struct mv_place *place)
{
	struct mv_mapping mapping;

	if (!job->count++)
		job->flush_first = at & ~mv_span_mask(f, level);
	job->flush_last = at | mv_span_mask(f, level);
	if (!job->found)
		return;
	mv_leaf_mapping(f, &e->rules, level, at, place->entry, &mapping);
	mapping.attr = mv_leaf_attr(f, &e->rules, level, place->entry & job->bits) &
		       (MV_ATTR_ACCESSED | MV_ATTR_DIRTY);
	job->found(job->ctx, &mapping);
}

/* Past the entries that have none of the bits, which most often are nearly all. */
MV_INLINE void mv_harvest_skip(const struct mv_format *f, const struct mv_harvest_job *job,
			       uint64_t *at, unsigned int end, struct mv_place *place)
{
	unsigned int i = place->index;

	while (i + 4 <= end && !(mv_entry_four(f, place->table, i) & job->bits))
		i += 4;
	if (i == place->index)
		return;
	*at = (*at & ~mv_span_mask(f, 1)) + ((uint64_t)(i - place->index) << f->shift[1]);
	place->index = i;
	place->entry = mv_entry_load(f, place->table, i);
}

MV_INLINE void mv_harvest_entries(const struct mv_format *f, struct mv_engine *e,
				  struct mv_harvest_job *job, uint64_t *at, unsigned int level,
				  struct mv_place *place)
{
	unsigned int end;

	place->level = level;
	end = mv_place_end(f, place, *at, job->last);
	do {
		if (level == 1 && !(place->entry & job->bits))
			mv_harvest_skip(f, job, at, end, place);
		if (mv_place_is_table(f, e, place))
			return;
		if (mv_harvest_entry(f, e, job, level, place))
			mv_harvest_note(f, e, job, *at, level, place);
	} while (mv_place_next(f, at, end, place));
}

MV_INLINE void mv_harvest_table(const struct mv_format *f, struct mv_engine *e,
				struct mv_harvest_job *job, uint64_t *at)
{
	struct mv_place place;

	mv_descend(f, e, *at, &place);
	if (place.level == 1)
		mv_harvest_entries(f, e, job, at, 1, &place);
	else
		mv_harvest_entries(f, e, job, at, place.level, &place);
}

MV_INLINE uint64_t mv_do_harvest(const struct mv_format *f, struct mv_engine *e, uint64_t first,
				 uint64_t last, uint32_t what, mv_leaf_fn found, void *ctx,
				 bool flush)
{
	struct mv_harvest_job job = { last, 0, found, ctx, 0, UINT64_MAX, 0 };

	if (last > mv_format_last_address(f))
		job.last = mv_format_last_address(f);
	job.bits = ((what & MV_ATTR_ACCESSED ? f->accessed : 0) |
		    (what & MV_ATTR_DIRTY ? f->dirty : 0)) &
		   e->rules.meaningful;
	for (uint64_t at = first; job.bits && at <= job.last;) {
		mv_engine_enter(e);
		for (int i = 0; at <= job.last && i < MV_TABLES_A_SECTION; i++)
			mv_harvest_table(f, e, &job, &at);
		mv_engine_leave(e);
	}
	if (flush && job.count)
		mv_engine_flush(e, job.flush_first, job.flush_last);
	return job.count;
}

/* --- one leaf that is to hold ------------------------------------------------------------------
 */

/* A new table with the reservation in it, where none is. */
MV_INLINE int mv_reserve_below(const struct mv_format *f, struct mv_engine *e,
			       const struct mv_grant *grant, struct mv_page_cache *cache,
			       uint64_t mark, struct mv_place *place)
{
	unsigned int index = mv_index(f, grant->level, grant->address);
	unsigned int missing = place->level - grant->level;
	void *table;

	if (cache->count < missing)
		return MV_STEP_PAGES + (int)missing;
	table = mv_page_cache_take(cache);
	mv_fill_empty(f, e, table, 0, mv_entries(f, grant->level));
	mv_entry_fill(f, table, index, mark);
	if (!mv_link_chain(f, e, cache, table, grant->level, grant->address, place))
		return MV_STEP_AGAIN;
	*place = (struct mv_place){ table, grant->level, index, mark };
	return 0;
}

/* Put the mark where the leaf is to be. */
MV_INLINE int mv_reserve(const struct mv_format *f, struct mv_engine *e,
			 const struct mv_grant *grant, struct mv_page_cache *cache, uint64_t mark,
			 struct mv_place *place)
{
	mv_place_root(f, e, grant->address, place);
	while (place->level > grant->level && mv_place_is_table(f, e, place))
		mv_place_down(f, e, grant->address, place);
	if (mv_place_is_table(f, e, place))
		return -ENOTEMPTY;
	if (mv_entry_present(&e->rules, place->entry))
		return -EEXIST;
	if (mv_entry_is_held(&e->rules, place->entry))
		return MV_STEP_WAIT;
	if (place->level > grant->level)
		return mv_reserve_below(f, e, grant, cache, mark, place);
	/* Another's reservation: who finds its mark gone begins anew; under the same token the
	 * marks are the same, and serve both. */
	if (!mv_entry_swap(f, place->table, place->index, &place->entry, mark))
		return MV_STEP_AGAIN;
	place->entry = mark;
	return 0;
}

/* Reserve, ask, make it real: see region.h. */
MV_INLINE int mv_grant_section(const struct mv_format *f, struct mv_engine *e,
			       const struct mv_grant *grant, struct mv_page_cache *cache,
			       struct mv_mapping *found)
{
	uint64_t mark = mv_mark_make(f, &e->rules, MV_MARK_PENDING, grant->token);
	struct mv_place place;
	int step = mv_reserve(f, e, grant, cache, mark, &place);

	if (step == -EEXIST)
		mv_leaf_mapping(f, &e->rules, place.level, grant->address, place.entry, found);
	if (step)
		return step;
	if (grant->holds && !grant->holds(grant->ctx)) {
		mv_entry_swap(f, place.table, place.index, &place.entry, e->rules.empty);
		return -ESTALE;
	}
	if (mv_entry_swap(f, place.table, place.index, &place.entry,
			  mv_leaf_bits(f, &e->rules, grant->level, grant->attr) |
				  mv_page_bits(f, grant->level, grant->phys)))
		return 0;
	return MV_STEP_AGAIN;
}

MV_INLINE bool mv_grant_valid(const struct mv_format *f, const struct mv_engine *e,
			      const struct mv_grant *grant)
{
	uint64_t mask;

	if (grant->level < 1 || grant->level > 3 || !(e->leaf_levels >> grant->level & 1))
		return false;
	mask = mv_span_mask(f, grant->level);
	return !((grant->address | grant->phys) & mask) &&
	       grant->address <= mv_format_last_address(f) &&
	       mv_phys_fits(f, e, grant->level, grant->phys) &&
	       mv_engine_attr_valid(e, grant->attr);
}

MV_INLINE int mv_do_grant(const struct mv_format *f, struct mv_engine *e,
			  const struct mv_grant *grant, struct mv_mapping *found)
{
	struct mv_page_cache cache = { NULL, 0 };
	unsigned int turns = 0;
	int step;

	if (!mv_grant_valid(f, e, grant))
		return -EINVAL;
	do {
		mv_engine_enter(e);
		step = mv_grant_section(f, e, grant, &cache, found);
		mv_engine_leave(e);
		if (step == MV_STEP_WAIT) {
			mv_engine_relax(e, turns++);
		} else if (step >= MV_STEP_PAGES) {
			int error = mv_page_cache_fill(e, &cache, (size_t)(step - MV_STEP_PAGES));

			step = error ? error : step;
		}
	} while (step > 0);
	mv_page_cache_drain(e, &cache);
	return step;
}

/* --- one leaf that is there --------------------------------------------------------------------
 */

MV_INLINE int mv_change_section(const struct mv_format *f, struct mv_engine *e,
				const struct mv_mapping *expected, uint32_t attr)
{
	const uint32_t processors = MV_ATTR_ACCESSED | MV_ATTR_DIRTY;
	struct mv_place place;

	mv_descend(f, e, expected->address, &place);
	while (mv_entry_present(&e->rules, place.entry)) {
		struct mv_mapping now;
		uint64_t entry;

		mv_leaf_mapping(f, &e->rules, place.level, expected->address, place.entry, &now);
		if (mv_place_is_table(f, e, &place) || now.level != expected->level ||
		    now.phys != expected->phys || ((now.attr ^ expected->attr) & ~processors))
			return -ESTALE;
		entry = mv_leaf_bits(f, &e->rules, now.level, attr | (now.attr & processors)) |
			mv_page_bits(f, now.level, now.phys);
		if (mv_entry_swap(f, place.table, place.index, &place.entry, entry))
			return 0;
	}
	return -ESTALE;
}

MV_INLINE int mv_do_change(const struct mv_format *f, struct mv_engine *e,
			   const struct mv_mapping *expected, uint32_t attr)
{
	int error;

	if (expected->address > mv_format_last_address(f) || !mv_engine_attr_valid(e, attr))
		return -EINVAL;
	mv_engine_enter(e);
	error = mv_change_section(f, e, expected, attr);
	mv_engine_leave(e);
	return error;
}

#endif /* MV_TABLE_CHANGE_H */
