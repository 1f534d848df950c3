/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine: what is done with tables, whatever their format. This is the core's own interface
 * to it, which lib/ept, lib/shadow and lib/iommu use; include/memvirt/table.h is the public one.
 *
 * Each operation is written once, inlined over a constant format, in table_map.h, table_unmap.h,
 * table_change.h, table_resize.h and table_walk.h; table_ops.h makes one set of functions for
 * each format of them, and struct mv_engine points to the one that it needs: an indirect
 * call an operation, none an entry.
 *
 * There is no lock. Every operation runs in read sections; each entry is changed on its own by
 * compare-exchange. What has to be agreed between entries goes by marks (table_entry.h):
 *
 *  - A table that is to go is unlinked first: its parent's entry becomes FROZEN. Then, in
 *    table_gather.c and nowhere else: flush, grace period, look at what it held, unfreeze, free.
 *    Until the flush has returned nobody can install anything in its place, so that no processor
 *    sees two sizes of a page. What others still did to the dead table in their read sections
 *    is seen, and counted, after the grace period.
 *  - A table that an unmap left empty is SEALED, entry by entry, so that nobody can install
 *    there any more, then unlinked as above. Who finds a live entry takes its seals back.
 *  - A grant (mv_engine_grant()) installs PENDING, asks whether it holds, then makes it real.
 *
 * Who meets FROZEN or SEALED where it wants to install or change waits: it leaves its read
 * section, completes what it has frozen itself (so that no two wait for each other), and goes on
 * where it was. PENDING is nobody's: a revoke clears it, others install over it.
 *
 * An operation does not allocate inside a read section: it counts first, takes pages into a
 * cache, and where others have changed the table meanwhile leaves the section and takes more.
 *
 * What does not belong here: who may use a page, and when (region.h).
 */
#ifndef MV_TABLE_ENGINE_H
#define MV_TABLE_ENGINE_H

#include <memvirt/platform.h>
#include <memvirt/table.h>

#include "format.h"

struct mv_engine_ops;

/**
 * struct mv_engine - one table of translations
 *
 * Constant once made: all but the following. Atomic: @pages, @peak_pages, @marks.
 */
struct mv_engine {
	const struct mv_engine_ops *ops;
	const struct mv_format *format;
	struct mv_platform platform;
	struct mv_rules rules;
	uint32_t features;
	unsigned int maxphyaddr;
	uint8_t leaf_levels; /* that the engine makes */
	int node;
	uint64_t root; /* physical address */
	size_t page_limit;
	void (*flush)(void *ctx, uint64_t first, uint64_t last);
	void *flush_ctx;

	size_t pages; /* that exist, cached ones among them */
	size_t peak_pages;
	uint64_t marks; /* numbers given out */
};

/* Told of leaves that are being removed, with the bits they had at the end. Not in a read section
 * where tables are removed, inside one where leaves are: must not sleep. */
typedef void (*mv_leaf_fn)(void *ctx, const struct mv_mapping *mapping);

/**
 * struct mv_grant - one leaf, to be installed only if it still holds
 * @address: aligned to the page
 * @phys:    aligned to the page
 * @level:   of the leaf
 * @attr:    MV_ATTR_…
 * @token:   whatever differs whenever an entry that was reserved earlier might be out of date:
 *           the count of ended revokes in the granule's sequence. 48 bits count, 20 in formats with
 *           small entries.
 * @holds:   asked between the reservation and the install; see region.h, "The granule's revoke
 *           sequence". In a read section: may not sleep. NULL: it holds.
 * @ctx:     for @holds
 */
struct mv_grant {
	uint64_t address;
	uint64_t phys;
	unsigned int level;
	uint32_t attr;
	uint64_t token;
	bool (*holds)(void *ctx);
	void *ctx;
};

/** struct mv_zapped - what mv_engine_zap() removed: leaves are removed whole */
struct mv_zapped {
	uint64_t first; /* the range, widened to whole leaves */
	uint64_t last;
	uint64_t bytes;
};

/* By format. The operations that table.h has are documented there, the others below. */
struct mv_engine_ops {
	int (*map)(struct mv_engine *e, uint64_t first, uint64_t last, uint64_t phys, uint32_t attr,
		   unsigned int largest_lg2);
	int (*unmap)(struct mv_engine *e, uint64_t first, uint64_t last, uint64_t *removed,
		     mv_leaf_fn gone, void *ctx);
	void (*zap)(struct mv_engine *e, uint64_t first, uint64_t last, struct mv_zapped *zapped,
		    mv_leaf_fn gone, void *ctx);
	void (*trim)(struct mv_engine *e, uint64_t first, uint64_t last);
	int (*protect)(struct mv_engine *e, uint64_t first, uint64_t last, uint32_t clear,
		       uint32_t set);
	int (*grant)(struct mv_engine *e, const struct mv_grant *grant, struct mv_mapping *found);
	int (*change)(struct mv_engine *e, const struct mv_mapping *expected, uint32_t attr);
	int (*walk)(const struct mv_engine *e, uint64_t address, struct mv_mapping *mapping);
	size_t (*translate_many)(const struct mv_engine *e, const uint64_t *address, uint64_t *phys,
				 size_t count);
	int (*for_each_leaf)(const struct mv_engine *e, uint64_t first, uint64_t last,
			     int (*leaf)(void *ctx, const struct mv_mapping *mapping), void *ctx);
	uint64_t (*harvest)(struct mv_engine *e, uint64_t first, uint64_t last, uint32_t what,
			    mv_leaf_fn found, void *ctx, bool flush);
	int (*split)(struct mv_engine *e, uint64_t first, uint64_t last, unsigned int page_lg2);
	uint64_t (*collapse)(struct mv_engine *e, uint64_t first, uint64_t last,
			     unsigned int largest_lg2);
};

/* As mv_table_create() and _destroy(), of an engine that is part of something larger. */
int mv_engine_init(struct mv_engine *e, const struct mv_table_config *config);
void mv_engine_finish(struct mv_engine *e);

/*
 * As mv_table_check(). @empty_tables: whether tables that map nothing are fine: zaps and grants
 * that did not come about leave them.
 */
bool mv_engine_check(const struct mv_engine *e, bool empty_tables, struct mv_table_defect *defect);

/* The highest address that the format can map. */
MV_INLINE uint64_t mv_format_last_address(const struct mv_format *f)
{
	return MV_BIT(f->shift[f->levels] + f->index_lg2[f->levels]) - 1;
}

/* Whether a leaf may say this: it is present, and nothing in it is reserved. */
bool mv_engine_attr_valid(const struct mv_engine *e, uint32_t attr);

/* As the functions of table.h. */
MV_INLINE int mv_engine_map(struct mv_engine *e, uint64_t first, uint64_t last, uint64_t phys,
			    uint32_t attr, unsigned int largest_lg2)
{
	return e->ops->map(e, first, last, phys, attr, largest_lg2);
}

/*
 * @gone, where not NULL, is told of each leaf, large ones that were split before it in parts.
 * A large page that a collapse replaces at this moment and a table above of which goes is
 * neither told nor counted.
 */
MV_INLINE int mv_engine_unmap(struct mv_engine *e, uint64_t first, uint64_t last, uint64_t *removed,
			      mv_leaf_fn gone, void *ctx)
{
	return e->ops->unmap(e, first, last, removed, gone, ctx);
}

/*
 * A revoke's half: remove all leaves, and reservations, that a range touches, large ones whole.
 * Tables stay; needs no memory, waits for no grace period and does not flush: the caller does,
 * over zapped->first to zapped->last. It waits for a collapse that is under way there.
 *
 * Context: as mv_table_unmap().
 */
MV_INLINE void mv_engine_zap(struct mv_engine *e, uint64_t first, uint64_t last,
			     struct mv_zapped *zapped, mv_leaf_fn gone, void *ctx)
{
	e->ops->zap(e, first, last, zapped, gone, ctx);
}

/* Free the tables of a range that map nothing. Context: as mv_table_unmap(). */
MV_INLINE void mv_engine_trim(struct mv_engine *e, uint64_t first, uint64_t last)
{
	e->ops->trim(e, first, last);
}

MV_INLINE int mv_engine_protect(struct mv_engine *e, uint64_t first, uint64_t last, uint32_t clear,
				uint32_t set)
{
	return e->ops->protect(e, first, last, clear, set);
}

/*
 * Install one leaf if it still holds. Two that grant the same page under the same token share
 * the reservation: one installs, the other finds it mapped.
 *
 * Context: as mv_table_map(); @found is set on -EEXIST.
 * Return: 0; -EEXIST where the address is mapped already; -ENOTEMPTY where there is a table and a
 * large page was wanted; -ESTALE where it does not hold; -EINVAL; -ENOMEM, -ENOSPC.
 */
MV_INLINE int mv_engine_grant(struct mv_engine *e, const struct mv_grant *grant,
			      struct mv_mapping *found)
{
	return e->ops->grant(e, grant, found);
}

/*
 * Change what the leaf at expected->address says, if it is still the one that was seen (same
 * place, size and attributes, accessed and dirty aside, which are kept and may be added). Does
 * not flush.
 *
 * Context: as mv_table_walk().
 * Return: 0; -ESTALE where it is another by now; -EINVAL for attributes that are not valid.
 */
MV_INLINE int mv_engine_change(struct mv_engine *e, const struct mv_mapping *expected,
			       uint32_t attr)
{
	return e->ops->change(e, expected, attr);
}

MV_INLINE int mv_engine_walk(const struct mv_engine *e, uint64_t address,
			     struct mv_mapping *mapping)
{
	return e->ops->walk(e, address, mapping);
}

MV_INLINE size_t mv_engine_translate_many(const struct mv_engine *e, const uint64_t *address,
					  uint64_t *phys, size_t count)
{
	return e->ops->translate_many(e, address, phys, count);
}

MV_INLINE int mv_engine_for_each_leaf(const struct mv_engine *e, uint64_t first, uint64_t last,
				      int (*leaf)(void *ctx, const struct mv_mapping *mapping),
				      void *ctx)
{
	return e->ops->for_each_leaf(e, first, last, leaf, ctx);
}

MV_INLINE uint64_t mv_engine_harvest(struct mv_engine *e, uint64_t first, uint64_t last,
				     uint32_t what, mv_leaf_fn found, void *ctx, bool flush)
{
	return e->ops->harvest(e, first, last, what, found, ctx, flush);
}

MV_INLINE int mv_engine_split(struct mv_engine *e, uint64_t first, uint64_t last,
			      unsigned int page_lg2)
{
	return e->ops->split(e, first, last, page_lg2);
}

MV_INLINE uint64_t mv_engine_collapse(struct mv_engine *e, uint64_t first, uint64_t last,
				      unsigned int largest_lg2)
{
	return e->ops->collapse(e, first, last, largest_lg2);
}

MV_INLINE void mv_engine_flush(struct mv_engine *e, uint64_t first, uint64_t last)
{
	if (e->flush)
		e->flush(e->flush_ctx, first, last);
}

MV_INLINE void mv_engine_enter(const struct mv_engine *e)
{
	e->platform.ops->read_enter(e->platform.ctx);
}

MV_INLINE void mv_engine_leave(const struct mv_engine *e)
{
	e->platform.ops->read_leave(e->platform.ctx);
}

/* Where the program sees a table page, and back. */
MV_INLINE void *mv_engine_page(const struct mv_engine *e, uint64_t phys)
{
	return (void *)((uintptr_t)phys + e->platform.direct_map);
}

MV_INLINE uint64_t mv_engine_phys(const struct mv_engine *e, const void *page)
{
	return (uintptr_t)page - e->platform.direct_map;
}

/* The numbers by which operations know their marks again. */
MV_INLINE uint64_t mv_engine_mark_number(struct mv_engine *e)
{
	return __atomic_fetch_add(&e->marks, 1, __ATOMIC_RELAXED);
}

extern const struct mv_engine_ops mv_engine_x86_32, mv_engine_x86_pse, mv_engine_x86_pae,
	mv_engine_x86_4l, mv_engine_x86_5l, mv_engine_ept_4l, mv_engine_ept_5l, mv_engine_npt_4l,
	mv_engine_npt_5l;

#endif /* MV_TABLE_ENGINE_H */
