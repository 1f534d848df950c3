/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nested walk, inlined: stage 1 whose reads go through stage 2, both over format constants,
 * then stage 2 of what stage 1 came to. SDM vol. 3, 29.3; APM vol. 2, 15.25.5.
 *
 * Where all is well nothing but loads and comparisons is left. What is not (a fault, a bit to
 * be set) goes to mv_stage2_walk(), which starts that one stage-2 walk afresh and tells.
 *
 * What does not belong here: caches (nested_cache.h).
 */
#ifndef MV_EPT_NESTED_H
#define MV_EPT_NESTED_H

#include <memvirt/nested.h>

#include "../guest_walk.h"
#include "stage2.h"

#define MV_CR0_CD    MV_BIT(30)
#define MV_CR4_PCIDE MV_BIT(17)

/* What a read returns, to end the guest's walk, where stage 2 faulted; errors are negative. */
#define MV_NESTED_FAULTED 1

/* Of an access to guest memory, what stage 2 is told as well. */
#define MV_ACCESS_BOTH (MV_ACCESS_KIND | MV_ACCESS_SHADOW_STACK | MV_ACCESS_NO_UPDATE)

/* --- accesses ----------------------------------------------------------------------------- */

/* An access to a guest table, as stage 2 is told of it. Translating only sets nothing there. */
MV_INLINE unsigned int mv_nested_table_access(unsigned int access)
{
	bool sets = (access & MV_ACCESS_KIND) && !(access & MV_ACCESS_NO_UPDATE);

	return MV_ACCESS_READ | MV_ACCESS_GUEST_TABLE | MV_ACCESS_LINEAR |
	       (sets ? 0 : MV_ACCESS_NO_UPDATE);
}

/* The final access, as stage 2 is told of it: @attr is what stage 1 grants. */
MV_INLINE unsigned int mv_nested_final_access(unsigned int access, uint32_t attr)
{
	access = (access & MV_ACCESS_BOTH) | MV_ACCESS_LINEAR;
	access |= attr & MV_ATTR_USER ? MV_ACCESS_USER : 0;
	access |= attr & MV_ATTR_WRITE ? MV_ACCESS_GUEST_WRITABLE : 0;
	access |= attr & MV_ATTR_EXEC ? 0 : MV_ACCESS_GUEST_NO_EXEC;
	return access;
}

/* Stage 1 sets nothing where frames cannot be changed; stage 2 may all the same. */
MV_INLINE unsigned int mv_nested_guest_access(const struct mv_nested *nested, unsigned int access)
{
	bool fixed = nested->frames.read && !nested->frames.change;

	return access | (mv_unlikely(fixed) ? MV_ACCESS_NO_UPDATE : 0);
}

/* --- stage 2, where all is well --------------------------------------------------------------- */

/**
 * struct mv_nested_sieve - what an entry has to look like, whatever level it is of
 * @table:  by level: of an entry that points to a table, all that is looked at
 * @page:   by level: of one that maps a page
 * @wanted: of these, what has to be set
 * @wanted_page: in a page
 *
 * One comparison an entry decides at once whether it is well-formed, grants what is asked, and has
 * been marked. What does not pass may be good all the same; mv_stage2_walk() tells.
 */
struct mv_nested_sieve {
	uint64_t table[MV_LEVEL_MAX + 1];
	uint64_t page[MV_LEVEL_MAX + 1];
	uint64_t wanted;
	uint64_t wanted_page;
};

MV_INLINE void mv_nested_make_sieve(const struct mv_format *f2, const struct mv_stage2 *stage2,
				    const struct mv_stage2_demand *demand,
				    struct mv_nested_sieve *sieve)
{
	const struct mv_rules *rules = &stage2->rules;

	/* READ, for that makes an entry present in all formats; and so few entries lack it. */
	sieve->wanted = demand->all | demand->mark | f2->read;
	sieve->wanted_page = sieve->wanted | demand->mark_page;
	MV_UNROLL_LEVELS
	for (unsigned int level = f2->levels; level > 0; level--) {
		sieve->table[level] =
			rules->reserved_table[level] | f2->leaf | demand->none | sieve->wanted;
		sieve->page[level] =
			rules->reserved_leaf[level] | demand->none | sieve->wanted_page;
	}
}

/* An entry that is not a table: whether it is a page that passes. @path->all and ->any are set. */
MV_INLINE bool mv_nested_take_page(const struct mv_format *f2, const struct mv_stage2 *stage2,
				   const struct mv_nested_sieve *sieve, unsigned int level,
				   uint64_t entry, uint64_t gpa, uint64_t *hpa,
				   struct mv_stage2_path *path)
{
	if (mv_unlikely(!mv_entry_is_leaf(f2, &stage2->rules, level, entry) ||
			(entry & sieve->page[level]) != sieve->wanted_page ||
			mv_stage2_type_reserved(f2, entry)))
		return false;
	*hpa = mv_entry_page(f2, level, entry) | (gpa & mv_span_mask(f2, level));
	path->entry = entry;
	path->level = level;
	return true;
}

/* One entry; *table moves to the next. Return: whether it is a table that passes. */
MV_INLINE bool mv_nested_step(const struct mv_format *f2, const struct mv_stage2 *stage2,
			      const struct mv_nested_sieve *sieve, unsigned int level, uint64_t gpa,
			      uint64_t *table, uint64_t *entry, struct mv_stage2_path *path)
{
	uint64_t offset = (uint64_t)mv_index(f2, level, gpa) << f2->entry_lg2;

	mv_stage2_read_direct(stage2, *table, offset, entry);
	path->all &= *entry;
	path->any |= f2->no_exec ? *entry : 0;
	*table = mv_entry_table(f2, *entry);
	return level > 1 && mv_likely((*entry & sieve->table[level]) == sieve->wanted);
}

/*
 * mv_stage2_translate() by a sieve: of @path, what mv_stage2_attr() looks at is set. Each level
 * ends in code of its own, for then all shifts are constants.
 */
MV_INLINE bool mv_nested_translate(const struct mv_format *f2, const struct mv_stage2 *stage2,
				   const struct mv_nested_sieve *sieve, uint64_t gpa, uint64_t *hpa,
				   struct mv_stage2_path *path)
{
	uint64_t entry, table = stage2->root;

	if (mv_unlikely(gpa >> f2->shift[f2->levels] >> f2->index_lg2[f2->levels]))
		return false;
	path->all = ~0ULL;
	path->any = 0;
	if (f2->levels > 4 && !mv_nested_step(f2, stage2, sieve, 5, gpa, &table, &entry, path))
		return false;
	if (!mv_nested_step(f2, stage2, sieve, 4, gpa, &table, &entry, path))
		return false;
	if (!mv_nested_step(f2, stage2, sieve, 3, gpa, &table, &entry, path))
		return mv_nested_take_page(f2, stage2, sieve, 3, entry, gpa, hpa, path);
	if (!mv_nested_step(f2, stage2, sieve, 2, gpa, &table, &entry, path))
		return mv_nested_take_page(f2, stage2, sieve, 2, entry, gpa, hpa, path);
	mv_nested_step(f2, stage2, sieve, 1, gpa, &table, &entry, path);
	return mv_nested_take_page(f2, stage2, sieve, 1, entry, gpa, hpa, path);
}

/**
 * struct mv_nested_reading - what the reads of one walk share
 * @nested: whose walk
 * @cache:  of cached walks: where stage-2 paths may be found
 * @trace:  of traced walks
 * @sieve:  what an access to a guest table asks of stage 2
 * @access: that access
 * @marked: accessed or dirty was set, so that entries are not what was read any more
 * @hpa:    by step: where the entry was
 * @fault:  the stage-2 walk that faulted
 */
struct mv_nested_reading {
	const struct mv_nested *nested;
	struct mv_nested_cache *cache;
	struct mv_nested_trace *trace;
	struct mv_nested_sieve sieve;
	unsigned int access;
	bool marked;
	uint64_t hpa[MV_LEVEL_MAX];
	struct mv_stage2_walk fault;
};

/* --- guest frames ------------------------------------------------------------------------- */

/* With a variable of its own, for one whose address is given away lives in memory. */
MV_INLINE int mv_nested_load_by_call(const struct mv_nested *nested, uint64_t hpa,
				     unsigned int bytes, uint64_t *entry)
{
	uint64_t read = 0;
	int error = nested->frames.read(nested->frames.ctx, hpa, bytes, &read);

	*entry = read;
	return error;
}

/* Acquire: what a guest wrote into a table before it linked it is seen in it. */
MV_INLINE int mv_nested_load(const struct mv_nested *nested, uint64_t hpa, unsigned int bytes,
			     uint64_t *entry)
{
	const void *at = (const void *)(uintptr_t)(nested->direct_map + hpa);

	if (mv_unlikely(nested->frames.read))
		return mv_nested_load_by_call(nested, hpa, bytes, entry);
	if (bytes == 4)
		*entry = __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE);
	else
		*entry = __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
	return 0;
}

/*
 * Stage 2 of a guest table, the whole of it. Return: 0; MV_NESTED_FAULTED, reading->fault set;
 * a negative error.
 */
int mv_nested_find_table(struct mv_nested_reading *reading, uint64_t gpa, unsigned int access,
			 uint64_t *hpa);

/* struct mv_walk_reach's change, for all. */
int mv_nested_change(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes, uint64_t old,
		     uint64_t entry);

/* struct mv_walk_reach's read, over stage-2 tables that lie in the direct map. */
MV_INLINE int mv_nested_read(const struct mv_format *f2, void *ctx, unsigned int step, uint64_t gpa,
			     unsigned int bytes, uint64_t *entry)
{
	struct mv_nested_reading *reading = ctx;
	const struct mv_nested *nested = reading->nested;
	struct mv_stage2_path path;
	uint64_t hpa;

	if (mv_unlikely(
		    !mv_nested_translate(f2, &nested->stage2, &reading->sieve, gpa, &hpa, &path))) {
		int error = mv_nested_find_table(reading, gpa, reading->access, &hpa);

		if (error)
			return error;
	}
	return mv_nested_load(nested, hpa, bytes, entry);
}

/* --- results ------------------------------------------------------------------------------ */

MV_INLINE unsigned int mv_pat_type(uint64_t pat, unsigned int index)
{
	return pat >> (8 * index) & 7;
}

/* Rows: EPT type, or an MTRR's; columns: PAT type. Where no type has the number: UC. */
extern const uint8_t mv_nested_ept_types[8][8];

/* Effective memory type, slowly: NPT, whose host has MTRRs besides. */
unsigned int mv_nested_type_of_npt(const struct mv_nested *nested, uint32_t guest_attr,
				   uint32_t stage2_attr, uint64_t hpa, unsigned int page_lg2);

MV_INLINE unsigned int mv_nested_type(const struct mv_format *f2, const struct mv_nested *nested,
				      uint32_t guest_attr, uint32_t stage2_attr, uint64_t hpa,
				      unsigned int page_lg2)
{
	unsigned int ept_type = MV_ATTR_TYPE_OF(stage2_attr);
	unsigned int pat_type = MV_TYPE_WB;

	if (!mv_stage2_is_ept(f2))
		return mv_nested_type_of_npt(nested, guest_attr, stage2_attr, hpa, page_lg2);
	if (mv_unlikely(nested->paging.registers.cr0 & MV_CR0_CD))
		return MV_TYPE_UC;
	if (stage2_attr & MV_ATTR_IGNORE_PAT)
		return ept_type;
	if (mv_likely(nested->paging.enabled))
		pat_type = mv_pat_type(nested->guest_pat, MV_ATTR_TYPE_OF(guest_attr));
	return mv_nested_ept_types[ept_type][pat_type];
}

/* What both stages grant. With mode-based execute the guest's U/S chooses the bit. */
MV_INLINE uint32_t mv_nested_attr(const struct mv_format *f2, const struct mv_nested *nested,
				  uint32_t guest_attr, uint32_t stage2_attr)
{
	const uint32_t both = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_DIRTY;
	const uint32_t guests =
		MV_ATTR_USER | MV_ATTR_GLOBAL | MV_ATTR_ACCESSED | MV_ATTR_PKEY_MASK;
	bool has_dirty = !mv_stage2_is_ept(f2) || (nested->stage2.features & MV_FEATURE_ACCESSED);

	if (f2->exec_user && (nested->stage2.features & MV_FEATURE_MODE_EXEC) &&
	    (guest_attr & MV_ATTR_USER)) {
		stage2_attr &= ~MV_ATTR_EXEC;
		stage2_attr |= stage2_attr & MV_ATTR_EXEC_USER ? MV_ATTR_EXEC : 0;
	}
	stage2_attr |= has_dirty ? 0 : MV_ATTR_DIRTY;
	guest_attr |= nested->paging.enabled ? 0 : MV_ATTR_ACCESSED | MV_ATTR_DIRTY;
	return (guest_attr & stage2_attr & both) | (guest_attr & guests);
}

MV_INLINE void mv_nested_give_attr(uint64_t gpa, uint64_t hpa, unsigned int page_lg2, uint32_t attr,
				   unsigned int type, struct mv_nested_walk *walk)
{
	walk->kind = MV_NESTED_OK;
	walk->page_lg2 = page_lg2;
	walk->hpa = hpa;
	walk->gpa = gpa;
	walk->attr = attr;
	walk->type = type;
	walk->error_code = 0;
	walk->level = 0;
	walk->stage2_kind = MV_STAGE2_OK;
	walk->code = 0;
	walk->suppress_ve = false;
	walk->guest_table = false;
}

MV_INLINE void mv_nested_give(const struct mv_format *f2, const struct mv_nested *nested,
			      uint64_t gpa, uint64_t hpa, unsigned int page_lg2,
			      uint32_t guest_attr, uint32_t stage2_attr,
			      struct mv_nested_walk *walk)
{
	mv_nested_give_attr(gpa, hpa, page_lg2, mv_nested_attr(f2, nested, guest_attr, stage2_attr),
			    mv_nested_type(f2, nested, guest_attr, stage2_attr, hpa, page_lg2),
			    walk);
}

/* Stage 1 ended with a fault. */
void mv_nested_give_guest_fault(const struct mv_walk *guest, struct mv_nested_walk *walk);

/* Stage 2 did. */
void mv_nested_give_fault(const struct mv_stage2_walk *fault, bool guest_table,
			  struct mv_nested_walk *walk);

/* --- the walk ----------------------------------------------------------------------------- */

MV_INLINE void mv_nested_begin(const struct mv_nested *nested, unsigned int access,
			       struct mv_nested_reading *reading)
{
	reading->nested = nested;
	reading->trace = NULL;
	reading->access = mv_nested_table_access(access);
	reading->marked = false;
}

MV_INLINE unsigned int mv_nested_smaller(unsigned int a, unsigned int b)
{
	return a < b ? a : b;
}

/* The final access with all that may come of it. Return: as mv_nested_walk(). */
int mv_nested_end_slowly(const struct mv_nested *nested, const struct mv_walk *guest,
			 unsigned int access, struct mv_stage2_walk *stage2,
			 struct mv_nested_walk *walk);

MV_INLINE int mv_nested_end(const struct mv_format *f2, const struct mv_nested *nested,
			    const struct mv_walk *guest, unsigned int access,
			    struct mv_nested_walk *walk)
{
	unsigned int final = mv_nested_final_access(access, guest->attr);
	const struct mv_stage2_demand demand = mv_stage2_demand(f2, &nested->stage2, final);
	struct mv_nested_sieve sieve;
	struct mv_stage2_walk scratch;
	struct mv_stage2_path path;
	uint64_t hpa;

	mv_nested_make_sieve(f2, &nested->stage2, &demand, &sieve);
	if (mv_unlikely(!mv_nested_translate(f2, &nested->stage2, &sieve, guest->gpa, &hpa, &path)))
		return mv_nested_end_slowly(nested, guest, access, &scratch, walk);
	mv_nested_give(f2, nested, guest->gpa, hpa,
		       mv_nested_smaller(guest->page_lg2, f2->shift[path.level]), guest->attr,
		       mv_stage2_attr(f2, &nested->stage2, &path), walk);
	return 0;
}

/* The whole walk over one format of stage 2; @reach reads by it. */
MV_INLINE int mv_nested_both(const struct mv_format *f2, const struct mv_walk_reach *reach,
			     const struct mv_nested *nested, uint64_t gva, unsigned int access,
			     struct mv_nested_walk *walk)
{
	struct mv_nested_reading reading;
	struct mv_stage2_demand demand;
	struct mv_walk guest;
	int error;

	mv_nested_begin(nested, access, &reading);
	demand = mv_stage2_demand(f2, &nested->stage2, reading.access);
	mv_nested_make_sieve(f2, &nested->stage2, &demand, &reading.sieve);
	error = mv_walk_any(&nested->paging, reach, &reading, gva,
			    mv_nested_guest_access(nested, access), &guest);
	if (mv_unlikely(error < 0))
		return error;
	if (mv_unlikely(error))
		mv_nested_give_fault(&reading.fault, true, walk);
	else if (mv_unlikely(guest.kind != MV_WALK_OK))
		mv_nested_give_guest_fault(&guest, walk);
	else
		return mv_nested_end(f2, nested, &guest, access, walk);
	return 0;
}

#endif /* MV_EPT_NESTED_H */
