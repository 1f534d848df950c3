/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Many nested walks side by side: each takes one step in turn, and asks for the entry that it wants
 * next before the others take theirs, so that the memory latency of one is spent on the rest.
 *
 * The steps are those of the single walk, with all their checks. A walk that meets anything but
 * a good entry, and flags that have to be set, leaves the rank and is made alone at the end.
 *
 * Freestanding. What does not belong here: the steps (guest_walk.h, stage2.h).
 */
#include "nested.h"

#define LANES 16

/**
 * struct lane - one walk
 * @state: of stage 1
 * @gpa:   what stage 2 translates now
 * @table: of stage 2, or the host-physical address once that is found
 * @level: of the leaf, or 0 while stage 1 is under way
 * @user:  that is a user's page: which of two sieves its entries of stage 2 have to pass
 * @alone: left the rank
 * @down:  stage 2 is under way
 */
struct lane {
	struct mv_walk_state state;
	uint64_t gpa;
	uint64_t table;
	unsigned int level;
	bool user;
	bool alone;
	bool down;
};

MV_INLINE void prefetch(uint64_t address)
{
	__builtin_prefetch((const void *)(uintptr_t)address);
}

MV_INLINE void make_sieve_of(const struct mv_format *f2, const struct mv_nested *nested,
			     unsigned int access, struct mv_nested_sieve *sieve)
{
	const struct mv_stage2_demand demand = mv_stage2_demand(f2, &nested->stage2, access);

	mv_nested_make_sieve(f2, &nested->stage2, &demand, sieve);
}

static void make_sieve(const struct mv_nested *nested, unsigned int access,
		       struct mv_nested_sieve *sieve)
{
	switch (nested->stage2.format) {
	case MV_FORMAT_EPT_4L:
		make_sieve_of(&mv_format_ept_4l, nested, access, sieve);
		break;
	case MV_FORMAT_EPT_5L:
		make_sieve_of(&mv_format_ept_5l, nested, access, sieve);
		break;
	case MV_FORMAT_NPT_4L:
		make_sieve_of(&mv_format_npt_4l, nested, access, sieve);
		break;
	default:
		make_sieve_of(&mv_format_npt_5l, nested, access, sieve);
	}
}

/* --- stage 2 of all lanes -------------------------------------------------------------------- */

/* A lane that has found its page waits for the others, and for the final address. */
MV_INLINE void start_stage2(const struct mv_format *f2, const struct mv_nested *nested, bool final,
			    struct lane *lane)
{
	lane->down = !lane->alone && (final || !lane->level);
	if (!lane->down)
		return;
	lane->table = nested->stage2.root;
	if (lane->gpa >> f2->shift[f2->levels] >> f2->index_lg2[f2->levels])
		lane->alone = true;
}

/* One entry of @level. Where it is a page, lane->table becomes the address. */
MV_INLINE void step_stage2(const struct mv_format *f2, const struct mv_nested *nested,
			   const struct mv_nested_sieve *sieve, unsigned int level,
			   struct lane *lane)
{
	const struct mv_stage2 *stage2 = &nested->stage2;
	uint64_t entry, table = lane->table;
	struct mv_stage2_path path = { 0 }; /* of no interest, and optimized away */

	if (mv_nested_step(f2, stage2, sieve, level, lane->gpa, &table, &entry, &path)) {
		uint64_t index = mv_index(f2, level - 1, lane->gpa);

		prefetch(stage2->direct_map + (index << f2->entry_lg2) + table);
		lane->table = table;
		return;
	}
	lane->down = false;
	if (!mv_nested_take_page(f2, stage2, sieve, level, entry, lane->gpa, &lane->table, &path))
		lane->alone = true;
	else
		prefetch(nested->direct_map + lane->table);
}

MV_INLINE void step_all(const struct mv_format *f2, const struct mv_nested *nested,
			const struct mv_nested_sieve *sieves, unsigned int level,
			struct lane *lanes, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		if (lanes[i].down && !lanes[i].alone)
			step_stage2(f2, nested, &sieves[lanes[i].user], level, &lanes[i]);
}

MV_INLINE void walk_format(const struct mv_format *f2, const struct mv_nested *nested,
			   const struct mv_nested_sieve *sieves, bool final, struct lane *lanes,
			   unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		start_stage2(f2, nested, final, &lanes[i]);
	if (f2->levels > 4)
		step_all(f2, nested, sieves, 5, lanes, count);
	step_all(f2, nested, sieves, 4, lanes, count);
	step_all(f2, nested, sieves, 3, lanes, count);
	step_all(f2, nested, sieves, 2, lanes, count);
	step_all(f2, nested, sieves, 1, lanes, count);
}

/* @sieves: of lanes at pages of supervisors, and of users. */
static void walk_stage2(const struct mv_nested *nested, const struct mv_nested_sieve *sieves,
			bool final, struct lane *lanes, unsigned int count)
{
	switch (nested->stage2.format) {
	case MV_FORMAT_EPT_4L:
		walk_format(&mv_format_ept_4l, nested, sieves, final, lanes, count);
		break;
	case MV_FORMAT_EPT_5L:
		walk_format(&mv_format_ept_5l, nested, sieves, final, lanes, count);
		break;
	case MV_FORMAT_NPT_4L:
		walk_format(&mv_format_npt_4l, nested, sieves, final, lanes, count);
		break;
	default:
		walk_format(&mv_format_npt_5l, nested, sieves, final, lanes, count);
	}
}

/* --- stage 1 of all lanes -------------------------------------------------------------------- */

/* Of PAE over EPT the top level is in registers. */
MV_INLINE bool is_cached(const struct mv_format *f, const struct mv_nested *nested,
			 unsigned int level)
{
	return !mv_level_has_rights(f, level) &&
	       mv_stage2_is_ept(mv_formats[nested->stage2.format]);
}

/* An entry that has been read. */
MV_INLINE void take(const struct mv_format *f, const struct mv_nested *nested, unsigned int access,
		    unsigned int level, uint64_t entry, struct lane *lane)
{
	enum mv_walk_turn turn;
	struct mv_walk guest;

	entry = f->entry_lg2 == 2 ? (uint32_t)entry : entry;
	turn = mv_walk_take(f, &nested->paging, &lane->state, level, entry);
	if (mv_likely(turn == MV_TURN_DOWN))
		return;
	if (turn != MV_TURN_LEAF || mv_walk_must_mark(f, &lane->state, entry, access)) {
		lane->alone = true;
		return;
	}
	mv_walk_finish(f, &nested->paging, &lane->state, level, entry, access, &guest);
	lane->alone = guest.kind != MV_WALK_OK;
	lane->gpa = guest.gpa;
	lane->user = guest.attr & MV_ATTR_USER;
	lane->level = level;
}

MV_INLINE void step_guest(const struct mv_format *f, const struct mv_nested *nested,
			  unsigned int access, unsigned int level, struct lane *lane)
{
	uint64_t entry;

	if (lane->alone || lane->level)
		return;
	if (is_cached(f, nested, level))
		entry = nested->paging.pdpte[mv_index(f, level, lane->state.address)];
	else if (mv_nested_load(nested, lane->table, 1u << f->entry_lg2, &entry)) {
		lane->alone = true;
		return;
	}
	take(f, nested, access, level, entry, lane);
}

/* All lanes: @lane->gpa is found, or the lane is alone. */
MV_INLINE void walk_guest(const struct mv_format *f, const struct mv_nested *nested,
			  unsigned int access, struct lane *lanes, unsigned int count)
{
	struct mv_nested_sieve sieve;

	make_sieve(nested, mv_nested_table_access(access), &sieve);

	for (unsigned int level = f->levels; level > 0; level--) {
		if (!is_cached(f, nested, level)) {
			for (unsigned int i = 0; i < count; i++)
				if (!lanes[i].level)
					lanes[i].gpa = mv_walk_entry_gpa(f, &lanes[i].state, level);
			walk_stage2(nested, &sieve, false, lanes, count);
		}
		for (unsigned int i = 0; i < count; i++)
			step_guest(f, nested, mv_nested_guest_access(nested, access), level,
				   &lanes[i]);
	}
}

/* --- together ------------------------------------------------------------------------------ */

static uint64_t walk_alone(const struct mv_nested *nested, uint64_t gva, unsigned int access)
{
	struct mv_nested_walk walk;
	int error = mv_nested_walk(nested, gva, access, &walk);

	return error || walk.kind != MV_NESTED_OK ? UINT64_MAX : walk.hpa;
}

MV_INLINE void begin_lane(const struct mv_format *f, const struct mv_nested *nested, uint64_t gva,
			  unsigned int access, struct lane *lane)
{
	struct mv_walk guest;

	lane->alone = !mv_walk_begin(f, &nested->paging, gva, access, &lane->state, &guest);
	lane->level = 0;
	lane->user = false;
	lane->gpa = 0;
}

MV_INLINE void walk_lanes(const struct mv_format *f, const struct mv_nested *nested,
			  const uint64_t *gva, unsigned int access, uint64_t *hpa,
			  unsigned int count)
{
	unsigned int final = mv_nested_final_access(access, 0);
	struct mv_nested_sieve sieves[2];
	struct lane lanes[LANES];

	make_sieve(nested, final, &sieves[0]);
	make_sieve(nested, final | MV_ACCESS_USER, &sieves[1]);
	for (unsigned int i = 0; i < count; i++)
		begin_lane(f, nested, gva[i], access, &lanes[i]);
	walk_guest(f, nested, access, lanes, count);
	walk_stage2(nested, sieves, true, lanes, count);
	for (unsigned int i = 0; i < count; i++)
		hpa[i] = lanes[i].alone ? walk_alone(nested, gva[i], access) : lanes[i].table;
}

static void walk_some(const struct mv_nested *nested, const uint64_t *gva, unsigned int access,
		      uint64_t *hpa, unsigned int count)
{
	if (!nested->paging.enabled || nested->stage2.accessor.read) {
		for (unsigned int i = 0; i < count; i++)
			hpa[i] = walk_alone(nested, gva[i], access);
		return;
	}
	switch (nested->paging.format) {
	case MV_FORMAT_X86_4L:
		walk_lanes(&mv_format_x86_4l, nested, gva, access, hpa, count);
		break;
	case MV_FORMAT_X86_5L:
		walk_lanes(&mv_format_x86_5l, nested, gva, access, hpa, count);
		break;
	case MV_FORMAT_X86_PAE:
		walk_lanes(&mv_format_x86_pae, nested, gva, access, hpa, count);
		break;
	case MV_FORMAT_X86_PSE:
		walk_lanes(&mv_format_x86_pse, nested, gva, access, hpa, count);
		break;
	default:
		walk_lanes(&mv_format_x86_32, nested, gva, access, hpa, count);
	}
}

size_t mv_nested_translate_many(const struct mv_nested *nested, const uint64_t *gva,
				unsigned int access, uint64_t *hpa, size_t count)
{
	size_t translated = 0;

	for (size_t done = 0; done < count; done += LANES) {
		unsigned int some = count - done < LANES ? (unsigned int)(count - done) : LANES;

		walk_some(nested, &gva[done], access, &hpa[done], some);
		for (unsigned int i = 0; i < some; i++)
			translated += hpa[done + i] != UINT64_MAX;
	}
	return translated;
}
