/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stage-2 walk, inlined over a format constant and a reader: down the tables, one verdict an
 * entry, and whether what was found allows an access. SDM vol. 3, 29.3; APM vol. 2, 15.25.
 *
 * mv_stage2_translate() is for those who walk often and want the address only (the nested walk
 * does it five times for each translation): it answers where all is well, and leaves
 * everything else to mv_stage2_walk(), which starts afresh.
 *
 * What does not belong here: faults put into words (stage2.c), their decoding (stage2_exit.c).
 */
#ifndef MV_EPT_STAGE2_H
#define MV_EPT_STAGE2_H

#include <memvirt/stage2.h>

#include "../format.h"

/* The exit qualification of an EPT violation: SDM vol. 3, table 28-7. */
#define MV_EPT_VIOLATION_ACCESS		0x0007u /* as MV_ACCESS_READ, _WRITE, _FETCH */
#define MV_EPT_VIOLATION_RIGHTS_LOW	3	/* R, W, X of the entries, as their bits 2:0 */
#define MV_EPT_VIOLATION_EXEC_USER	0x0040u /* with mode-based execute */
#define MV_EPT_VIOLATION_LINEAR		0x0080u
#define MV_EPT_VIOLATION_FINAL		0x0100u /* these and the following: with LINEAR only */
#define MV_EPT_VIOLATION_GUEST_USER	0x0200u /* these three: with MV_FEATURE_EXIT_INFO only */
#define MV_EPT_VIOLATION_GUEST_WRITABLE 0x0400u
#define MV_EPT_VIOLATION_GUEST_NO_EXEC	0x0800u
#define MV_EPT_VIOLATION_NMI_UNBLOCKING 0x1000u
#define MV_EPT_VIOLATION_SHADOW_STACK	0x2000u

/* EXITINFO1 of #NPF: APM vol. 2, 15.25.6. The low bits are those of a page fault. */
#define MV_NPF_FINAL MV_BIT(32)
#define MV_NPF_TABLE MV_BIT(33)

#define MV_ACCESS_RIGHTS (MV_ACCESS_READ | MV_ACCESS_WRITE | MV_ACCESS_FETCH)

/* How a way down the tables ends. What is negative is the reader's error. */
enum mv_stage2_end {
	MV_STAGE2_DOWN, /* not yet: the entry points to a table */
	MV_STAGE2_PAGE,
	MV_STAGE2_ABSENT,
	MV_STAGE2_RESERVED, /* misconfigured, or reserved bits */
};

/**
 * struct mv_stage2_path - what a way down the tables has met
 * @entry: the last entry read
 * @all:   AND of all that were read
 * @any:   OR of them
 * @level: of the last; one above the root's where none was read
 */
struct mv_stage2_path {
	uint64_t entry;
	uint64_t all;
	uint64_t any;
	unsigned int level;
};

/**
 * struct mv_stage2_demand - what an access asks of the entries
 * @all:  must be set in each
 * @none: must be clear in each
 * @mark: the processor sets it in each
 * @mark_page: and this in the leaf
 */
struct mv_stage2_demand {
	uint64_t all;
	uint64_t none;
	uint64_t mark;
	uint64_t mark_page;
};

/* Reads an entry of a table, @offset bytes into it: 0, or a negative code that ends the walk. */
typedef int mv_stage2_read_fn(const struct mv_stage2 *stage2, uint64_t table, uint64_t offset,
			      uint64_t *entry);

MV_INLINE int mv_stage2_read_direct(const struct mv_stage2 *stage2, uint64_t table, uint64_t offset,
				    uint64_t *entry)
{
	uint64_t mapped = mv_sum_first(stage2->direct_map + offset);

	/* Acquire pairs with the release in mv_entry_swap(): a table that is reached is whole. */
	*entry = __atomic_load_n((const uint64_t *)(mapped + table), __ATOMIC_ACQUIRE);
	return 0;
}

MV_INLINE bool mv_stage2_is_ept(const struct mv_format *f)
{
	return f->exec;
}

/* --- entries ------------------------------------------------------------------------------ */

/* Types 2, 3 and 7 are reserved: SDM vol. 3, 29.3.3.1. The types of NPT are all good. */
MV_INLINE bool mv_stage2_type_reserved(const struct mv_format *f, uint64_t entry)
{
	return mv_stage2_is_ept(f) && (0x8c >> (entry >> f->type_low & 7) & 1);
}

/* The verdict on any entry; for those that mv_stage2_judge() does not know at a glance. */
enum mv_stage2_end mv_stage2_judge_any(const struct mv_format *f, const struct mv_stage2 *stage2,
				       unsigned int level, uint64_t entry);

/*
 * The verdict on an entry. Nearly all are readable, hence present, and fit for their place: one
 * comparison with a mask tells.
 */
MV_INLINE enum mv_stage2_end mv_stage2_judge(const struct mv_format *f,
					     const struct mv_stage2 *stage2, unsigned int level,
					     uint64_t entry)
{
	const struct mv_rules *rules = &stage2->rules;
	uint64_t plain = f->read & f->present;
	uint64_t table = rules->reserved_table[level] | f->leaf | plain;
	uint64_t page = rules->reserved_leaf[level] | plain;

	if (level > 1 && __builtin_expect((entry & table) == plain, 1))
		return MV_STAGE2_DOWN;
	if (mv_entry_is_leaf(f, rules, level, entry) && (entry & page) == plain &&
	    !mv_stage2_type_reserved(f, entry))
		return MV_STAGE2_PAGE;
	return mv_stage2_judge_any(f, stage2, level, entry);
}

/* --- down the tables ---------------------------------------------------------------------- */

/* One level; *table moves to the next. Every call has a constant level, so shifts are constant. */
MV_INLINE int mv_stage2_step(const struct mv_format *f, mv_stage2_read_fn *read,
			     const struct mv_stage2 *stage2, uint64_t gpa, unsigned int level,
			     uint64_t *table, struct mv_stage2_path *path,
			     struct mv_walk_step *steps)
{
	uint64_t offset = (uint64_t)mv_index(f, level, gpa) << f->entry_lg2;
	uint64_t entry;
	int error = read(stage2, *table, offset, &entry);

	if (error)
		return error;
	if (steps)
		steps[f->levels - level] = (struct mv_walk_step){ .gpa = *table + offset,
								  .entry = entry,
								  .level = level };
	path->entry = entry;
	path->all &= entry;
	path->any |= entry;
	path->level = level;
	*table = mv_entry_table(f, entry);
	return mv_stage2_judge(f, stage2, level, entry);
}

/*
 * Down to the entry that decides. @steps: where not NULL, the entries, from the root.
 *
 * An address that is too wide for the format has no entry. A processor with 52 bits and 4-level
 * EPT reports a violation with no rights (found by KVM's developers on Sierra Forest; the
 * manual speaks of narrower processors only). AMD's manual does not say; absent, too.
 *
 * Return: enum mv_stage2_end, never DOWN; what @read returned.
 */
MV_INLINE int mv_stage2_descend(const struct mv_format *f, mv_stage2_read_fn *read,
				const struct mv_stage2 *stage2, uint64_t gpa,
				struct mv_stage2_path *path, struct mv_walk_step *steps)
{
	uint64_t table = stage2->root;
	int end = MV_STAGE2_DOWN;

	*path = (struct mv_stage2_path){ .all = ~0ULL, .level = f->levels + 1 };
	if (gpa >> f->shift[f->levels] >> f->index_lg2[f->levels]) {
		path->all = 0;
		/* No entry says that it may become a #VE, so it is an exit. */
		path->entry = f->suppress_ve;
		return MV_STAGE2_ABSENT;
	}
	if (f->levels > 4)
		end = mv_stage2_step(f, read, stage2, gpa, 5, &table, path, steps);
	if (!end)
		end = mv_stage2_step(f, read, stage2, gpa, 4, &table, path, steps);
	if (!end)
		end = mv_stage2_step(f, read, stage2, gpa, 3, &table, path, steps);
	if (!end)
		end = mv_stage2_step(f, read, stage2, gpa, 2, &table, path, steps);
	if (!end)
		end = mv_stage2_step(f, read, stage2, gpa, 1, &table, path, steps);
	return end;
}

/* --- accesses ----------------------------------------------------------------------------- */

/*
 * An access as the processor counts it. A guest table is written to, as far as NPT is concerned
 * (APM vol. 2, 15.25.6), and with EPT's A/D flags on read and written (SDM vol. 3, 29.3.5).
 */
MV_INLINE unsigned int mv_stage2_counts_as(const struct mv_format *f, uint32_t features,
					   unsigned int access)
{
	if (!(access & MV_ACCESS_GUEST_TABLE))
		return access;
	if (!mv_stage2_is_ept(f))
		return (access & ~MV_ACCESS_RIGHTS) | MV_ACCESS_WRITE;
	if (features & MV_FEATURE_ACCESSED)
		return access | MV_ACCESS_READ | MV_ACCESS_WRITE;
	return access & MV_ACCESS_RIGHTS ? access : access | MV_ACCESS_READ;
}

/* The bit that a fetch needs, where there is one for it: SDM vol. 3, 29.3.3.2. */
MV_INLINE uint64_t mv_stage2_exec_bit(const struct mv_format *f, uint32_t features,
				      unsigned int access)
{
	bool user = (features & MV_FEATURE_MODE_EXEC) && (access & MV_ACCESS_USER);

	return user ? f->exec_user : f->exec;
}

/* Whether accessed and dirty are to be set: the tables have them on, and we may and can. */
MV_INLINE bool mv_stage2_marks(const struct mv_format *f, const struct mv_stage2 *stage2,
			       unsigned int access)
{
	if (mv_stage2_is_ept(f) && !(stage2->features & MV_FEATURE_ACCESSED))
		return false;
	if (access & MV_ACCESS_NO_UPDATE)
		return false;
	return !stage2->accessor.read || stage2->accessor.change;
}

MV_INLINE struct mv_stage2_demand
mv_stage2_demand(const struct mv_format *f, const struct mv_stage2 *stage2, unsigned int access)
{
	struct mv_stage2_demand demand = { 0 };

	access = mv_stage2_counts_as(f, stage2->features, access);
	if (access & MV_ACCESS_READ)
		demand.all |= f->read;
	if (access & MV_ACCESS_WRITE)
		demand.all |= f->write;
	if (access & MV_ACCESS_FETCH) {
		demand.all |= mv_stage2_exec_bit(f, stage2->features, access);
		demand.none |= f->no_exec;
	}
	/* With NPT an access is a user's, whatever else it is: U/S is not EPT's R. */
	if (!mv_stage2_is_ept(f) && (access & MV_ACCESS_RIGHTS))
		demand.all |= f->read;
	if ((access & MV_ACCESS_RIGHTS) && mv_stage2_marks(f, stage2, access)) {
		demand.mark = f->accessed;
		demand.mark_page = access & MV_ACCESS_WRITE ? f->dirty : 0;
	}
	return demand;
}

/* How many entries were read. */
MV_INLINE unsigned int mv_stage2_steps(const struct mv_format *f, const struct mv_stage2_path *path)
{
	return f->levels + 1 - path->level;
}

/* The next three are of a way that ended in a page. */
MV_INLINE uint64_t mv_stage2_phys(const struct mv_format *f, const struct mv_stage2_path *path,
				  uint64_t gpa)
{
	return mv_entry_page(f, path->level, path->entry) | (gpa & mv_span_mask(f, path->level));
}

MV_INLINE bool mv_stage2_allows(const struct mv_stage2_demand *demand,
				const struct mv_stage2_path *path)
{
	return (path->all & demand->all) == demand->all && !(path->any & demand->none);
}

/* Whether all bits that the access sets are set already. */
MV_INLINE bool mv_stage2_marked(const struct mv_stage2_demand *demand,
				const struct mv_stage2_path *path)
{
	return (path->all & demand->mark) == demand->mark &&
	       (path->entry & demand->mark_page) == demand->mark_page;
}

/* --- together ----------------------------------------------------------------------------- */

/**
 * mv_stage2_translate() - the address, where nothing stands in the way
 * @f, @read: constants
 * @stage2: prepared tables
 * @demand: of mv_stage2_demand(); once for many walks
 * @gpa:    guest-physical address
 * @phys:   set on success
 * @path:   set: what was met; attributes of the page by mv_stage2_attr()
 *
 * Return: true; false for faults, for bits that have to be set, for errors: mv_stage2_walk()
 * tells and does.
 */
MV_INLINE bool mv_stage2_translate(const struct mv_format *f, mv_stage2_read_fn *read,
				   const struct mv_stage2 *stage2,
				   const struct mv_stage2_demand *demand, uint64_t gpa,
				   uint64_t *phys, struct mv_stage2_path *path)
{
	int end = mv_stage2_descend(f, read, stage2, gpa, path, NULL);

	if (end != MV_STAGE2_PAGE || !mv_stage2_allows(demand, path) ||
	    !mv_stage2_marked(demand, path))
		return false;
	*phys = mv_stage2_phys(f, path, gpa);
	return true;
}

/* What a page grants: rights of all levels, everything else of the leaf. */
MV_INLINE uint32_t mv_stage2_attr(const struct mv_format *f, const struct mv_stage2 *stage2,
				  const struct mv_stage2_path *path)
{
	uint64_t rights = f->read | f->write | f->exec | f->exec_user;
	uint64_t entry = (path->entry & ~rights) | (path->all & rights) | (path->any & f->no_exec);

	return mv_leaf_attr(f, &stage2->rules, path->level, entry);
}

#endif /* MV_EPT_STAGE2_H */
