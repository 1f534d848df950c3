/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest walk, inlined: over a format that is a constant, and a way to tables that is a pair
 * of inlined functions. mv_guest_walk() instantiates it over an accessor, the nested walk
 * over its own reading through stage 2; whoever interleaves many walks uses the steps of which
 * it is made (mv_walk_begin, mv_walk_take, mv_walk_finish).
 *
 * SDM vol. 3, 4.3 to 4.8; APM vol. 2, 5.
 *
 * Everything that does not depend on the entries is worked out from the registers, so that
 * a processor does it while it waits for the entries. What depends on them is gathered in two
 * words, and decided once, at the leaf.
 *
 * What does not belong here: registers and PDPTEs (guest_walk_paging.c), all leaves of a space
 * (guest_walk_leaves.c).
 */
#ifndef MV_GUEST_WALK_H
#define MV_GUEST_WALK_H

#include <errno.h>

#include <memvirt/guest_walk.h>

#include "format.h"
#include "formats.h"

#define MV_CR0_PE      MV_BIT(0)
#define MV_CR0_WP      MV_BIT(16)
#define MV_CR0_PG      MV_BIT(31)
#define MV_CR3_LAM_U57 MV_BIT(61)
#define MV_CR3_LAM_U48 MV_BIT(62)
#define MV_CR4_PSE     MV_BIT(4)
#define MV_CR4_PAE     MV_BIT(5)
#define MV_CR4_PGE     MV_BIT(7)
#define MV_CR4_LA57    MV_BIT(12)
#define MV_CR4_SMEP    MV_BIT(20)
#define MV_CR4_SMAP    MV_BIT(21)
#define MV_CR4_PKE     MV_BIT(22)
#define MV_CR4_CET     MV_BIT(23)
#define MV_CR4_PKS     MV_BIT(24)
#define MV_CR4_LAM_SUP MV_BIT(28)
#define MV_EFER_LME    MV_BIT(8)
#define MV_EFER_LMA    MV_BIT(10)
#define MV_EFER_NXE    MV_BIT(11)

#define MV_ACCESS_DATA (MV_ACCESS_READ | MV_ACCESS_WRITE)
#define MV_ACCESS_KIND (MV_ACCESS_DATA | MV_ACCESS_FETCH)

/* How often a walk starts again before it gives up: a guest could go on for ever. */
#define MV_WALK_ATTEMPTS 64

#define mv_likely(x)   __builtin_expect(!!(x), 1)
#define mv_unlikely(x) __builtin_expect(!!(x), 0)

/* Over levels: with the format a constant, each turn becomes code for its level. */
#ifdef __clang__
#define MV_UNROLL_LEVELS _Pragma("unroll")
#else
#define MV_UNROLL_LEVELS _Pragma("GCC unroll 5")
#endif

/**
 * struct mv_walk_reach - how an instantiation reaches tables
 * @read:   as in struct mv_guest_accessor; @step is the number that the entry gets in
 *          walk->step[]. What is not 0, positive too, ends the walk and is returned.
 * @change: the same; -EAGAIN starts the walk again. NULL: accessed and dirty are never set.
 * @pdptes_in_memory: PAE: PDPTEs are read, and their reserved bits found, in each walk, as a
 *          processor with nested paging does (APM vol. 2, 15.25); otherwise the cached ones count
 *
 * A static constant, so that it folds.
 */
struct mv_walk_reach {
	int (*read)(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
		    uint64_t *entry);
	int (*change)(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes, uint64_t old,
		      uint64_t entry);
	bool pdptes_in_memory;
};

/**
 * struct mv_walk_state - a walk between two entries
 * @address: what is translated, without tag and sign
 * @table:   GPA of the table that is read next
 * @granted: all entries so far, by AND: what is granted, and whether all have been accessed
 * @above:   @granted without the leaf
 * @denied:  all entries so far, by OR
 * @level:   of the table
 */
struct mv_walk_state {
	uint64_t address;
	uint64_t table;
	uint64_t granted;
	uint64_t above;
	uint64_t denied;
	unsigned int level;
};

/* --- registers and accesses: what is known before the first entry ------------------------- */

/* Descriptor tables and TSS are accessed as a supervisor, whatever the CPL: SDM vol. 3, 4.6. */
MV_INLINE bool mv_access_is_user(unsigned int access)
{
	return (access & (MV_ACCESS_USER | MV_ACCESS_IMPLICIT)) == MV_ACCESS_USER;
}

/* A write that read-only pages refuse: CR0.WP = 0 lets a supervisor write everywhere. */
MV_INLINE bool mv_access_needs_write(const struct mv_paging *paging, unsigned int access)
{
	return (access & MV_ACCESS_WRITE) &&
	       (mv_access_is_user(access) || (paging->registers.cr0 & MV_CR0_WP));
}

/* SMEP and SMAP: must a supervisor keep off user pages? SDM vol. 3, 4.6.1. */
MV_INLINE bool mv_access_avoids_user(const struct mv_paging *paging, unsigned int access)
{
	uint64_t cr4 = paging->registers.cr4;
	bool excused = (access & (MV_ACCESS_AC | MV_ACCESS_IMPLICIT)) == MV_ACCESS_AC;

	if ((access & MV_ACCESS_FETCH) && (cr4 & MV_CR4_SMEP))
		return true;
	return (access & MV_ACCESS_DATA) && (cr4 & MV_CR4_SMAP) && !excused;
}

/* Error-code bits that describe the access: SDM vol. 3, 4.7. */
MV_INLINE uint32_t mv_access_error(const struct mv_format *f, const struct mv_paging *paging,
				   unsigned int access)
{
	bool tells_fetch = (paging->registers.cr4 & MV_CR4_SMEP) ||
			   (f->no_exec && (paging->registers.efer & MV_EFER_NXE));
	uint32_t error = 0;

	error |= access & MV_ACCESS_WRITE ? MV_PF_WRITE : 0;
	error |= mv_access_is_user(access) ? MV_PF_USER : 0;
	error |= (access & MV_ACCESS_FETCH) && tells_fetch ? MV_PF_FETCH : 0;
	error |= access & MV_ACCESS_SHADOW_STACK ? MV_PF_SHADOW_STACK : 0;
	return error;
}

/* Bits of an address that the tables translate. */
MV_INLINE unsigned int mv_format_width(const struct mv_format *f)
{
	return f->shift[f->levels] + f->index_lg2[f->levels];
}

MV_INLINE uint64_t mv_sign_extend(uint64_t address, unsigned int sign_bit)
{
	unsigned int unused = 63 - sign_bit;

	return (uint64_t)((int64_t)(address << unused) >> unused);
}

/* LAM: the tag of a data pointer gives way to its sign, bit 63 excepted, which stays. */
MV_INLINE uint64_t mv_walk_untag(const struct mv_paging *paging, uint64_t gva, unsigned int access)
{
	unsigned int sign_bit = paging->lam_sign_bit[gva >> 63];

	if (mv_likely(!sign_bit) || (access & (MV_ACCESS_FETCH | MV_ACCESS_IMPLICIT)))
		return gva;
	return (mv_sign_extend(gva, sign_bit) & ~MV_BIT(63)) | (gva & MV_BIT(63));
}

/* --- the steps of a walk ------------------------------------------------------------------- */

/* The PDPTEs of PAE paging know neither rights nor accessed: SDM vol. 3, table 4-8. */
MV_INLINE bool mv_level_has_rights(const struct mv_format *f, unsigned int level)
{
	return level == 1 || (f->table_rights[level] & f->write);
}

/*
 * Before the first entry: @state set; or the walk is over, and @walk set.
 * Return: whether the walk goes on.
 */
MV_INLINE bool mv_walk_begin(const struct mv_format *f, const struct mv_paging *paging,
			     uint64_t gva, unsigned int access, struct mv_walk_state *state,
			     struct mv_walk *walk)
{
	unsigned int width = mv_format_width(f);

	walk->steps = 0;
	walk->error_code = 0;
	if (width > 32) {
		gva = mv_walk_untag(paging, gva, access);
		if (mv_unlikely(mv_sign_extend(gva, width - 1) != gva)) {
			walk->kind = MV_WALK_NOT_CANONICAL;
			walk->gpa = walk->page_lg2 = walk->attr = walk->level = 0;
			return false;
		}
	}
	state->address = gva & (MV_BIT(width) - 1);
	state->table = paging->root;
	state->granted = state->above = ~0ULL;
	state->denied = 0;
	state->level = f->levels;
	return true;
}

/* The entry that is read next. */
MV_INLINE uint64_t mv_walk_entry_gpa(const struct mv_format *f, const struct mv_walk_state *state,
				     unsigned int level)
{
	uint64_t index = mv_index(f, level, state->address);

	return state->table + (index << f->entry_lg2);
}

/** enum mv_walk_turn - where an entry leads */
enum mv_walk_turn {
	MV_TURN_DOWN,	  /* to the next table */
	MV_TURN_LEAF,	  /* to a page: mv_walk_finish() is next */
	MV_TURN_ABSENT,	  /* nowhere: not present */
	MV_TURN_RESERVED, /* nowhere: a reserved bit is set */
};

/* Look at an entry of @level. An absent one is not looked at further: all else is ignored. */
MV_INLINE enum mv_walk_turn mv_walk_take(const struct mv_format *f, const struct mv_paging *paging,
					 struct mv_walk_state *state, unsigned int level,
					 uint64_t entry)
{
	const struct mv_rules *rules = &paging->rules;
	/* No format of a guest has pages above level 3; saying so spares the upper levels. */
	bool leaf = level <= 3 && mv_entry_is_leaf(f, rules, level, entry);

	if (mv_unlikely(!(entry & f->present)))
		return MV_TURN_ABSENT;
	if (mv_unlikely(mv_entry_reserved(rules, level, leaf, entry)))
		return MV_TURN_RESERVED;
	if (mv_level_has_rights(f, level)) {
		state->above = state->granted;
		state->granted &= entry;
		state->denied |= entry;
	}
	state->table = mv_entry_table(f, entry);
	state->level = level - 1;
	return leaf ? MV_TURN_LEAF : MV_TURN_DOWN;
}

MV_INLINE void mv_walk_note(struct mv_walk *walk, uint64_t gpa, uint64_t entry, unsigned int level)
{
	struct mv_walk_step *step = &walk->step[walk->steps++];

	step->gpa = gpa;
	step->entry = entry;
	step->level = level;
}

MV_INLINE void mv_walk_fault(const struct mv_format *f, const struct mv_paging *paging,
			     unsigned int access, uint32_t why, unsigned int level,
			     struct mv_walk *walk)
{
	walk->kind = MV_WALK_PAGE_FAULT;
	walk->gpa = walk->page_lg2 = walk->attr = 0;
	walk->error_code = mv_access_error(f, paging, access) | why;
	walk->level = level;
}

/* A page for shadow stacks is read-only and dirty, under entries that let write: 4.6. */
MV_INLINE bool mv_walk_on_shadow_stack(const struct mv_format *f, const struct mv_walk_state *state,
				       uint64_t leaf)
{
	return (leaf & (f->write | f->dirty)) == f->dirty && (state->above & f->write);
}

/*
 * Whether the levels together refuse the access. Rights that matter are compared with what
 * they have to be, all at once. SDM vol. 3, 4.6.1.
 */
MV_INLINE bool mv_walk_refused(const struct mv_format *f, const struct mv_paging *paging,
			       const struct mv_walk_state *state, uint64_t leaf,
			       unsigned int access)
{
	uint64_t rights = (state->granted & (f->write | f->user)) | (state->denied & f->no_exec);
	uint64_t needed = 0, unwanted = 0;
	bool user = mv_access_is_user(access);

	if (mv_unlikely(access & MV_ACCESS_SHADOW_STACK)) {
		if (!mv_walk_on_shadow_stack(f, state, leaf))
			return true;
		return !(rights & f->user) == user;
	}
	needed |= mv_access_needs_write(paging, access) ? f->write : 0;
	unwanted |= access & MV_ACCESS_FETCH ? f->no_exec : 0;
	if (user)
		needed |= f->user;
	else
		unwanted |= mv_access_avoids_user(paging, access) ? f->user : 0;
	return (rights ^ needed) & (needed | unwanted);
}

/* Whether the page's protection key refuses a data access: SDM vol. 3, 4.6.2. */
MV_INLINE bool mv_walk_key_refuses(const struct mv_format *f, const struct mv_paging *paging,
				   const struct mv_walk_state *state, uint64_t leaf,
				   unsigned int access)
{
	bool user_page = state->granted & f->user;
	bool by_user = user_page && mv_access_is_user(access);
	uint32_t rights, refused = 0;

	if (!f->pkey_low)
		return false;
	rights = paging->keys[user_page] >> 2 * (leaf >> f->pkey_low & 15);
	refused |= access & MV_ACCESS_DATA ? 1 : 0; /* access disable */
	/* Write disable; without CR0.WP it binds users only, on their own pages. */
	if ((access & MV_ACCESS_WRITE) && (by_user || (paging->registers.cr0 & MV_CR0_WP)))
		refused |= 2;
	return rights & refused;
}

/*
 * At the leaf, which mv_walk_take() has found good: may the access be made, and where does
 * it go? SDM vol. 3, 4.6 and 4.7. Sets all of @walk but its steps.
 */
MV_INLINE void mv_walk_finish(const struct mv_format *f, const struct mv_paging *paging,
			      const struct mv_walk_state *state, unsigned int level, uint64_t leaf,
			      unsigned int access, struct mv_walk *walk)
{
	uint64_t together = f->write | f->user;
	bool asks = access & MV_ACCESS_KIND;
	bool refused = asks && mv_walk_refused(f, paging, state, leaf, access);
	bool key_refuses = mv_walk_key_refuses(f, paging, state, leaf, access);
	uint64_t effective;

	if (mv_unlikely(refused || key_refuses)) {
		uint32_t why = MV_PF_PRESENT | (key_refuses ? MV_PF_PKEY : 0);

		mv_walk_fault(f, paging, access, why, level, walk);
		return;
	}
	effective = (leaf & ~together) | (state->granted & together) | (state->denied & f->no_exec);
	walk->kind = MV_WALK_OK;
	walk->gpa = mv_entry_page(f, level, leaf) | (state->address & mv_span_mask(f, level));
	walk->page_lg2 = f->shift[level];
	walk->attr = mv_leaf_attr(f, &paging->rules, level, effective);
	walk->level = level;
}

/* --- accessed and dirty ------------------------------------------------------------------- */

/* The bits that a walk which succeeded must set in entries of a level: SDM vol. 3, 4.8. */
MV_INLINE uint64_t mv_walk_marks(const struct mv_format *f, bool leaf, unsigned int access)
{
	return f->accessed | (leaf && (access & MV_ACCESS_WRITE) ? f->dirty : 0);
}

/* Whether an access leaves marks, and some are missing. */
MV_INLINE bool mv_walk_must_mark(const struct mv_format *f, const struct mv_walk_state *state,
				 uint64_t leaf, unsigned int access)
{
	uint64_t have = (state->granted & f->accessed) | (leaf & f->dirty);

	if (!(access & MV_ACCESS_KIND) || (access & MV_ACCESS_NO_UPDATE))
		return false;
	return ~have & mv_walk_marks(f, true, access);
}

/*
 * Set what is missing, from the root down, each entry only where it is still what was read.
 * Return: 0; -EAGAIN where one has changed: the walk has to start again; what @change returned.
 */
MV_INLINE int mv_walk_mark(const struct mv_format *f, const struct mv_walk_reach *reach, void *ctx,
			   unsigned int access, struct mv_walk *walk)
{
	for (unsigned int i = 0; i < walk->steps; i++) {
		const struct mv_walk_step *step = &walk->step[i];
		uint64_t marks = mv_walk_marks(f, i == walk->steps - 1, access);
		int error;

		if (!mv_level_has_rights(f, step->level) || !(~step->entry & marks))
			continue;
		error = reach->change(ctx, i, step->gpa, 1u << f->entry_lg2, step->entry,
				      step->entry | marks);
		if (error)
			return error;
	}
	walk->attr |= MV_ATTR_ACCESSED | (access & MV_ACCESS_WRITE ? MV_ATTR_DIRTY : 0);
	return 0;
}

/* --- the walk ----------------------------------------------------------------------------- */

MV_INLINE int mv_walk_read(const struct mv_format *f, const struct mv_paging *paging,
			   const struct mv_walk_reach *reach, void *ctx, unsigned int step,
			   const struct mv_walk_state *state, unsigned int level, uint64_t gpa,
			   uint64_t *entry)
{
	if (!mv_level_has_rights(f, level) && !reach->pdptes_in_memory) {
		*entry = paging->pdpte[mv_index(f, level, state->address)];
		return 0;
	}
	return reach->read(ctx, step, gpa, 1u << f->entry_lg2, entry);
}

MV_INLINE int mv_walk_end(const struct mv_format *f, const struct mv_paging *paging,
			  const struct mv_walk_reach *reach, void *ctx,
			  const struct mv_walk_state *state, unsigned int level, uint64_t leaf,
			  unsigned int access, struct mv_walk *walk)
{
	mv_walk_finish(f, paging, state, level, leaf, access, walk);
	if (!reach->change || walk->kind != MV_WALK_OK)
		return 0;
	if (mv_likely(!mv_walk_must_mark(f, state, leaf, access)))
		return 0;
	return mv_walk_mark(f, reach, ctx, access, walk);
}

/*
 * From @state to the end, once. Where @state comes from a cache rather than mv_walk_begin(), the
 * levels above it are skipped, and leave no steps.
 * Return: as mv_walk_guest(); -EAGAIN where the walk has to start again.
 */
MV_INLINE int mv_walk_go_on(const struct mv_format *f, const struct mv_paging *paging,
			    const struct mv_walk_reach *reach, void *ctx,
			    struct mv_walk_state *state, unsigned int access, struct mv_walk *walk)
{
	const unsigned int first = state->level;

	MV_UNROLL_LEVELS
	for (unsigned int level = f->levels; level > 0; level--) {
		uint64_t entry, gpa = mv_walk_entry_gpa(f, state, level);
		enum mv_walk_turn turn;
		uint32_t why;
		int error;

		if (level > first)
			continue;
		error = mv_walk_read(f, paging, reach, ctx, walk->steps, state, level, gpa, &entry);
		if (mv_unlikely(error))
			return error;
		entry = f->entry_lg2 == 2 ? (uint32_t)entry : entry;
		mv_walk_note(walk, gpa, entry, level);
		turn = mv_walk_take(f, paging, state, level, entry);
		if (mv_likely(turn == MV_TURN_DOWN))
			continue;
		if (mv_likely(turn == MV_TURN_LEAF))
			return mv_walk_end(f, paging, reach, ctx, state, level, entry, access,
					   walk);
		why = turn == MV_TURN_ABSENT ? 0 : MV_PF_PRESENT | MV_PF_RESERVED;
		mv_walk_fault(f, paging, access, why, level, walk);
		return 0;
	}
	__builtin_unreachable();
}

/*
 * The whole walk. @walk is scratch: it may hold anything where what is returned is not 0.
 * Return: 0; what @read or @change returned; -EAGAIN after MV_WALK_ATTEMPTS.
 */
MV_INLINE int mv_walk_guest(const struct mv_format *f, const struct mv_paging *paging,
			    const struct mv_walk_reach *reach, void *ctx, uint64_t gva,
			    unsigned int access, struct mv_walk *walk)
{
	struct mv_walk_state state;

	for (unsigned int attempt = 0; attempt < MV_WALK_ATTEMPTS; attempt++) {
		int error;

		if (!mv_walk_begin(f, paging, gva, access, &state, walk))
			return 0;
		error = mv_walk_go_on(f, paging, reach, ctx, &state, access, walk);
		if (mv_likely(error != -EAGAIN))
			return error;
	}
	return -EAGAIN;
}

/* CR0.PG = 0: linear addresses are 32 bits wide, and physical. */
MV_INLINE void mv_walk_identity(uint64_t gva, struct mv_walk *walk)
{
	walk->kind = MV_WALK_OK;
	walk->gpa = (uint32_t)gva;
	walk->page_lg2 = 32;
	walk->attr = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_USER;
	walk->error_code = 0;
	walk->level = 0;
	walk->steps = 0;
}

/* The same, whatever the mode: one copy of the code for each format. */
MV_INLINE int mv_walk_any(const struct mv_paging *paging, const struct mv_walk_reach *reach,
			  void *ctx, uint64_t gva, unsigned int access, struct mv_walk *walk)
{
	if (mv_unlikely(!paging->enabled)) {
		mv_walk_identity(gva, walk);
		return 0;
	}
	switch (paging->format) {
	case MV_FORMAT_X86_4L:
		return mv_walk_guest(&mv_format_x86_4l, paging, reach, ctx, gva, access, walk);
	case MV_FORMAT_X86_5L:
		return mv_walk_guest(&mv_format_x86_5l, paging, reach, ctx, gva, access, walk);
	case MV_FORMAT_X86_PAE:
		return mv_walk_guest(&mv_format_x86_pae, paging, reach, ctx, gva, access, walk);
	case MV_FORMAT_X86_PSE:
		return mv_walk_guest(&mv_format_x86_pse, paging, reach, ctx, gva, access, walk);
	case MV_FORMAT_X86_32:
		return mv_walk_guest(&mv_format_x86_32, paging, reach, ctx, gva, access, walk);
	default: /* no format of a guest: @paging was not prepared */
		return -EINVAL;
	}
}

#endif /* MV_GUEST_WALK_H */
