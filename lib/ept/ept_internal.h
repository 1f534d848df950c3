/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stage-2 space from inside. What is shared, and how grants, revokes and changes of what
 * may be granted agree with each other.
 *
 * Two things can make a grant wrong between the moment it is decided and the moment its leaf is
 * in place: a revoke (the granule's sequence tells, region.h), and a change of what the space
 * says itself: rights, types, tracking, regions. For those there is @changes: who changes
 * something does so, then raises it, then passes over the tables (ept_pass()), which takes away
 * leaves that say too much, and reservations. A fault samples @changes first, decides, and asks
 * again between its reservation and the install. All of it is sequentially consistent: either
 * the fault sees the change, or the pass sees the reservation. While records of ranges are being
 * rewritten @changes is odd, and nobody goes by what they say.
 *
 * A leaf that lacks a right that may be granted is not changed in place, which would need
 * the same care once more: it is removed, and granted anew.
 *
 * What was removed has to be flushed before a page is dropped, by whomever it was removed: see
 * struct ept_granule.
 *
 * Order of locks: ept->lock, then memory->lock. Faults, revokes and ageing take none of them.
 */
#ifndef MV_EPT_INTERNAL_H
#define MV_EPT_INTERNAL_H

#include <memvirt/ept.h>
#include <memvirt/nested.h>

#include "../region.h"
#include "../table_engine.h"

#define EPT_STRIPES 64

/**
 * struct ept_granule - removals of leaves that reach a granule of a region
 * @removals: raised before a leaf is removed; atomic
 * @flushed:  the value of @removals that the last complete flush covers; atomic
 *
 * Who finds a page not mapped in a revoke still has to flush where these differ: somebody else
 * may have removed the leaf a moment ago.
 */
struct ept_granule {
	uint64_t removals;
	uint64_t flushed;
};

/**
 * struct ept_slot - an attached region
 * @region:   held
 * @born:     ept->changes when it came: tells it from one that was there before
 * @granules: as the region's, by its pages
 * @how:      enum mv_ept_track; atomic, written under ept->lock
 * @log:      one bit a page that was written, or NULL; atomic, replaced under ept->lock, and
 *            freed after a grace period
 */
struct ept_slot {
	struct mv_region *region;
	uint64_t born;
	struct ept_granule *granules;
	unsigned int how;
	uint64_t *log;
};

/* What is published: slots by address. Never changed while somebody may read it. */
struct ept_slots {
	unsigned int count;
	unsigned int capacity;
	struct ept_slot *slot[];
};

/**
 * struct ept_view - one table
 * @rights: constant: what it grants where @ranges says nothing
 * @ranges: what mv_ept_protect() said, or NULL; see ept_ranges.c; atomic, set once under ept->lock
 * @users:  calls that keep the view longer than a read section lasts; atomic
 */
struct ept_view {
	struct mv_engine engine;
	struct mv_ept *ept;
	unsigned int index;
	uint32_t rights;
	struct mv_table *ranges;
	unsigned int users;
};

/* Counts that faults raise, spread so that few faults share a line; atomic. */
struct ept_stripe {
	uint64_t faults[MV_EPT_FAULT_KINDS];
	uint64_t prefaults;
} __attribute__((aligned(64)));

struct mv_ept {
	/* Constant. */
	struct mv_view view; /* of the ledger; first */
	struct mv_memory *memory;
	struct mv_platform platform;
	const struct mv_format *format;
	struct mv_table_config table_config; /* of views */
	uint64_t last_gpa;		     /* that the tables can map */
	uint32_t features;
	uint32_t policy;
	unsigned int levels;   /* bitmap: pages that are mapped */
	uint8_t type_index[8]; /* what a leaf says for a memory type */
	struct mv_ept_ops ops;
	void *ctx;
	struct mv_asid_space *asid_space;

	unsigned int lock;	 /* serialises all but faults, revokes, ageing and looking */
	struct ept_slots *spare; /* under lock */

	/* RCU: replaced under lock, read inside read sections. */
	struct ept_slots *slots;
	struct ept_view *views[MV_EPT_VIEWS];
	struct mv_table *types; /* NULL until a type is set */
	unsigned int views_end; /* atomic: above the highest view */
	unsigned int removing;	/* atomic: regions and views that are just being taken away */

	/* Atomic, rarely written, read by every fault; odd while records are rewritten. */
	uint64_t changes __attribute__((aligned(64)));

	/* Atomic. */
	uint64_t revoked __attribute__((aligned(64)));
	uint64_t flushes;
	uint64_t pml_logged;
	uint64_t pml_ignored;
	struct ept_stripe stripes[EPT_STRIPES];
	struct mv_nested_log log;
};

MV_INLINE void ept_enter(const struct mv_ept *ept)
{
	ept->platform.ops->read_enter(ept->platform.ctx);
}

MV_INLINE void ept_leave(const struct mv_ept *ept)
{
	ept->platform.ops->read_leave(ept->platform.ctx);
}

MV_INLINE void ept_wait_readers(const struct mv_ept *ept)
{
	ept->platform.ops->wait_readers(ept->platform.ctx);
}

MV_INLINE void *ept_alloc(struct mv_ept *ept, size_t bytes)
{
	return ept->platform.ops->alloc(ept->platform.ctx, bytes, -1);
}

MV_INLINE void ept_free(struct mv_ept *ept, void *mem, size_t bytes)
{
	ept->platform.ops->free(ept->platform.ctx, mem, bytes);
}

/* Something may be granted that was not, or the other way round. Before the pass. */
MV_INLINE void ept_changed(struct mv_ept *ept)
{
	__atomic_fetch_add(&ept->changes, 2, __ATOMIC_SEQ_CST);
}

MV_INLINE uint64_t ept_changes(const struct mv_ept *ept)
{
	return __atomic_load_n(&ept->changes, __ATOMIC_SEQ_CST);
}

MV_INLINE bool ept_range_valid(const struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa)
{
	return first_gpa <= last_gpa && last_gpa <= ept->last_gpa &&
	       !(first_gpa & (MV_PAGE_SIZE - 1)) && !(~last_gpa & (MV_PAGE_SIZE - 1));
}

/* --- ept.c ------------------------------------------------------------------------------ */

/* Context: takes it before memory->lock; not in a read section. */
void ept_lock(struct mv_ept *ept);
void ept_unlock(struct mv_ept *ept);

/* The slot of an address, or NULL; its index below which others begin. Context: read section. */
struct ept_slot *ept_slot_find(struct mv_ept *ept, uint64_t gpa);

/* The slot that begins at an address, or NULL. Context: ept->lock. */
struct ept_slot *ept_slot_at(struct mv_ept *ept, uint64_t first_gpa);

MV_INLINE uint64_t *ept_slot_log(const struct ept_slot *slot)
{
	return __atomic_load_n(&slot->log, __ATOMIC_ACQUIRE);
}

MV_INLINE enum mv_ept_track ept_slot_how(const struct ept_slot *slot)
{
	return (enum mv_ept_track)__atomic_load_n(&slot->how, __ATOMIC_SEQ_CST);
}

/* Return when no processor uses what was removed from a range: of one view, of all. */
void ept_flush_view(struct ept_view *view, uint64_t first_gpa, uint64_t last_gpa);
void ept_flush(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa);

/* --- ept_views.c -------------------------------------------------------------------------- */

int ept_view_make(struct mv_ept *ept, uint32_t rights, unsigned int index);
void ept_view_free(struct ept_view *view);

/* Context: a read section, in which it stays. */
struct ept_view *ept_view_find(struct mv_ept *ept, unsigned int index);

/* Kept until it is put; may sleep in between. NULL where there is none. */
struct ept_view *ept_view_get(struct mv_ept *ept, unsigned int index);
void ept_view_put(struct ept_view *view);

/* Each view, kept during the body; to be left by no break. */
#define ept_for_each_view(ept, view)                                                               \
	for (unsigned int view##_i = 0;                                                            \
	     view##_i < __atomic_load_n(&(ept)->views_end, __ATOMIC_SEQ_CST); view##_i++)          \
		for (struct ept_view *view = ept_view_get(ept, view##_i); view;                    \
		     ept_view_put(view), view = NULL)

/* What a view grants: MV_ATTR_READ … and MV_ATTR_SUPPRESS_VE. Context: read section. */
uint32_t ept_view_rights(const struct ept_view *view, uint64_t gpa);

/* --- ept_ranges.c ------------------------------------------------------------------------- */

/* What is recorded of an address, or @otherwise. Context: any. */
uint32_t ept_ranges_get(struct mv_table *const *ranges, uint64_t gpa, uint32_t otherwise);

/* Whether all of a range is recorded alike. Context: any. */
bool ept_ranges_uniform(struct mv_table *const *ranges, uint64_t first, uint64_t last,
			uint32_t otherwise);

/*
 * Change what is recorded of a range; raises ept->changes. Holes become @otherwise first.
 * Context: ept->lock. Return: 0; -ENOMEM: all is as it was.
 */
int ept_ranges_change(struct mv_ept *ept, struct mv_table **ranges, uint64_t first, uint64_t last,
		      uint32_t otherwise, uint32_t clear, uint32_t set);

/* --- ept_map.c ---------------------------------------------------------------------------- */

/* What is recorded of rights in struct ept_view, and of types: attributes of x86 leaves. */
#define EPT_RECORD_RIGHTS(rights) (MV_ATTR_READ | MV_ATTR_PKEY((rights)&15u))
#define EPT_RECORD_CONVERTIBLE	  MV_ATTR_SOFT0
#define EPT_RECORD_IGNORE_PAT	  MV_ATTR_SOFT0
#define EPT_RECORD_WRITE_BACK	  (MV_ATTR_READ | MV_ATTR_TYPE(MV_TYPE_WB))

/* Beside MV_ACCESS_…: a fetch of which the processor has not told whether it was a user's. */
#define EPT_ACCESS_ANYBODY 0x8000u

/* Whether rights let an access through. */
bool ept_rights_allow(const struct mv_ept *ept, uint32_t rights, unsigned int access);

/* Whether the tables can express them. */
bool ept_rights_valid(const struct mv_ept *ept, uint32_t rights);

/* Without mode-based execute one right stands for both modes. */
MV_INLINE uint32_t ept_rights_normal(const struct mv_ept *ept, uint32_t rights)
{
	if (ept->features & MV_FEATURE_MODE_EXEC)
		return rights;
	return rights & MV_ATTR_EXEC ? rights | MV_ATTR_EXEC_USER : rights & ~MV_ATTR_EXEC_USER;
}

/**
 * struct ept_pass - what is done with the leaves of a range
 * @zap:     remove them; otherwise:
 * @small:   remove those of more than 4 KiB
 * @clear:   attributes to take from them; they are removed where no right remains
 * @set:     attributes to add
 * @changed: out: leaves that were
 */
struct ept_pass {
	bool zap;
	bool small;
	uint32_t clear;
	uint32_t set;
	uint64_t changed;
};

/*
 * Also takes reservations away. A leaf that reaches beyond the range is removed whole unless
 * nothing but rights is taken. Dirty bits of what is removed go to the log. Needs no memory
 * and does not flush.
 *
 * Context: not in a read section; waits for a collapse under way there.
 */
void ept_pass(struct ept_view *view, uint64_t first_gpa, uint64_t last_gpa, struct ept_pass *pass);

/* In all views. */
void ept_pass_all(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa, struct ept_pass *pass);

/* Removed from all views. Return: leaves that were. */
uint64_t ept_zap_all(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa);

/* Split what reaches beyond the ends of a range. Return: 0; -ENOMEM; -ENOSPC. */
int ept_split_ends(struct ept_view *view, uint64_t first_gpa, uint64_t last_gpa);

/* Record pages of a leaf as written. Context: read section. */
void ept_log_pages(struct ept_slot *slot, uint64_t first_gpa, uint64_t last_gpa);

/* --- ept_fault.c -------------------------------------------------------------------------- */

/* As mv_ept_fault(); @access 0 for a prefault. */
int ept_grant(struct mv_ept *ept, unsigned int view, uint64_t gpa, unsigned int access,
	      struct mv_ept_outcome *outcome);

/* What stands behind a page. Context: read section. */
int ept_resolve(struct mv_ept *ept, const struct ept_slot *slot, uint64_t gpa, unsigned int access,
		struct mv_ept_backing *backing);

/* --- ept_ledger.c ------------------------------------------------------------------------- */

extern const struct mv_view_ops ept_view_ops;

#endif /* MV_EPT_INTERNAL_H */
