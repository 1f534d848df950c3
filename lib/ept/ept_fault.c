/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Faults resolved, and pages mapped ahead of them: look, sample, resolve, choose a size, grant.
 * SDM vol. 3, 29.3.3; APM vol. 2, 15.25.6. Why it holds is written in ept_internal.h.
 *
 * Freestanding. What does not belong here: decoding (stage2_exit.c), rights (ept_map.c).
 */
#include <errno.h>

#include "../table_walk.h"
#include "ept_internal.h"

#define ATTEMPTS 8 /* before the guest is to try again itself */

/**
 * struct attempt - one way through a fault
 * @ept, @view, @gpa, @access: what was asked; @access 0: a prefault
 * @slot:    of @gpa; good in the read section in which @changes is as it was
 * @how:     it is tracked
 * @changes: sampled before anything was looked at
 * @samples: by level: the sum of the sequences of the granules that such a page touches
 * @top:     the largest page that could be, in levels
 * @rights:  that the view grants
 * @found:   the leaf that is there, where @there
 * @backing: as resolved
 * @level:   of the page that is being granted
 */
struct attempt {
	struct mv_ept *ept;
	struct ept_view *view;
	uint64_t gpa;
	unsigned int access;
	struct ept_slot *slot;
	enum mv_ept_track how;
	uint64_t changes;
	uint64_t samples[MV_LEVEL_MAX + 1];
	unsigned int top;
	uint32_t rights;
	struct mv_mapping found;
	bool there;
	struct mv_ept_backing backing;
	unsigned int level;
};

/* What an attempt came to, besides 0, which says that its outcome stands, and errors. */
enum attempt_step {
	ATTEMPT_AGAIN = 1,
	ATTEMPT_GRANT,
	ATTEMPT_REPLACE, /* a leaf is there that lacks a right */
};

static uint64_t level_mask(const struct attempt *a, unsigned int level)
{
	return mv_span_mask(a->ept->format, level);
}

/* --- the granules' sequences -------------------------------------------------------------- */

/*
 * The sequences only grow, so their sum changes where any of them does. False where a revoke
 * runs.
 */
static bool sample_level(const struct attempt *a, unsigned int level, uint64_t *sum)
{
	const struct mv_region *region = a->slot->region;
	uint64_t page = mv_region_page(region, a->gpa & ~level_mask(a, level));
	uint64_t last = mv_region_page(region, a->gpa | level_mask(a, level));

	*sum = 0;
	for (page &= ~(uint64_t)(MV_GRANULE_PAGES - 1); page <= last; page += MV_GRANULE_PAGES) {
		uint64_t sample = mv_granule_sample(region, page);

		if (sample & MV_REVOKES_RUNNING)
			return false;
		*sum += sample;
	}
	return true;
}

static bool sample_all(struct attempt *a)
{
	for (unsigned int level = 1; level <= a->top; level++)
		if ((a->ept->levels >> level & 1) && !sample_level(a, level, &a->samples[level]))
			return false;
	return true;
}

/* Asked between the reservation and the install, in the engine's read section. */
static bool grant_holds(void *ctx)
{
	const struct attempt *a = ctx;
	uint64_t sum;

	/* First: where nothing has changed the slot is there, and stays while we are here. */
	if (ept_changes(a->ept) != a->changes)
		return false;
	return sample_level(a, a->level, &sum) && sum == a->samples[a->level];
}

/* --- how large ---------------------------------------------------------------------------- */

static bool may_be_large(const struct attempt *a)
{
	if (a->how == MV_EPT_TRACK_WRITE_PROTECT || a->how == MV_EPT_TRACK_PML)
		return false;
	if (!(a->ept->policy & MV_EPT_NX_HUGE))
		return true;
	/* What may only be fetched from would have no right left. */
	return !(a->access & MV_ACCESS_FETCH) && (a->rights & MV_ATTR_READ);
}

static bool level_fits(const struct attempt *a, unsigned int level)
{
	const struct mv_region *region = a->slot->region;
	uint64_t first = a->gpa & ~level_mask(a, level), last = a->gpa | level_mask(a, level);

	return (a->ept->levels >> level & 1) && first >= region->first_gpa &&
	       last <= region->last_gpa &&
	       ept_ranges_uniform(&a->ept->types, first, last, EPT_RECORD_WRITE_BACK) &&
	       ept_ranges_uniform(&a->view->ranges, first, last,
				  EPT_RECORD_RIGHTS(a->view->rights));
}

/* @highest: level of the entry that maps nothing yet. */
static unsigned int top_level(const struct attempt *a, unsigned int highest)
{
	unsigned int level = highest < 3 ? highest : 3;

	if (!may_be_large(a))
		return 1;
	while (level > 1 && !level_fits(a, level))
		level--;
	return level;
}

/* The largest page at or below a level that the backing allows. */
static unsigned int backed_level(const struct attempt *a, unsigned int level)
{
	uint64_t differ = a->gpa ^ a->backing.hpa;

	for (; level > 1; level--)
		if ((a->ept->levels >> level & 1) && !(differ & level_mask(a, level)) &&
		    a->backing.page_lg2 >= a->ept->format->shift[level])
			return level;
	return 1;
}

/* --- what it says ------------------------------------------------------------------------- */

static uint32_t type_attr(const struct mv_ept *ept, uint64_t gpa)
{
	uint32_t record = ept_ranges_get(&ept->types, gpa, EPT_RECORD_WRITE_BACK);

	return MV_ATTR_TYPE(ept->type_index[MV_ATTR_TYPE_OF(record)]) |
	       (record & EPT_RECORD_IGNORE_PAT ? MV_ATTR_IGNORE_PAT : 0);
}

static uint32_t leaf_attr(const struct attempt *a)
{
	uint32_t attr = a->rights | type_attr(a->ept, a->gpa);

	if (!a->backing.writable)
		attr &= ~MV_ATTR_WRITE;
	/* Whoever writes takes a fault of their own, and is recorded. */
	if (a->how == MV_EPT_TRACK_WRITE_PROTECT && !(a->access & MV_ACCESS_WRITE))
		attr &= ~MV_ATTR_WRITE;
	if (a->level > 1 && (a->ept->policy & MV_EPT_NX_HUGE))
		attr &= ~(MV_ATTR_EXEC | MV_ATTR_EXEC_USER);
	/* It is about to be used; dirty is left to the processor, which logs it. */
	if (a->access)
		attr |= MV_ATTR_ACCESSED;
	return attr;
}

/* --- looking, inside one read section ------------------------------------------------------ */

int ept_resolve(struct mv_ept *ept, const struct ept_slot *slot, uint64_t gpa, unsigned int access,
		struct mv_ept_backing *backing)
{
	const struct mv_region *region = slot->region;
	uint64_t offset = gpa - region->first_gpa;
	struct mv_ept_page page = {
		.gpa = gpa,
		.hva = region->hva + offset,
		.first_gpa = region->first_gpa,
		.last_gpa = region->last_gpa,
		.fd = region->fd,
		.fd_offset = region->fd_offset + offset,
		.access = access & (MV_ACCESS_READ | MV_ACCESS_WRITE | MV_ACCESS_FETCH),
	};

	if (ept->ops.resolve)
		return ept->ops.resolve(ept->ctx, &page, backing);
	*backing = (struct mv_ept_backing){
		.hpa = (uintptr_t)page.hva,
		.page_lg2 = 30,
		.writable = true,
	};
	return 0;
}

static int end_at_rights(const struct attempt *a, struct mv_ept_outcome *outcome)
{
	outcome->kind = MV_EPT_PROTECTED;
	outcome->mapping = (struct mv_mapping){
		.address = a->gpa,
		.page_lg2 = MV_PAGE_SHIFT,
		.level = 1,
		.attr = a->rights & ~MV_ATTR_SUPPRESS_VE,
	};
	return 0;
}

/* The entry that decides. Return: its level. */
static unsigned int look_at_entry(struct attempt *a)
{
	const struct mv_engine *e = &a->view->engine;
	struct mv_place place;

	mv_descend(e->format, e, a->gpa, &place);
	a->there = mv_entry_present(&e->rules, place.entry);
	if (a->there)
		mv_leaf_mapping(e->format, &e->rules, place.level, a->gpa, place.entry, &a->found);
	return place.level;
}

/* Whether a leaf does for the access; a prefault is content with any. */
static bool leaf_does(const struct attempt *a, const struct mv_mapping *leaf)
{
	return !a->access || ept_rights_allow(a->ept, leaf->attr, a->access);
}

/* Rights, not memory, may end it; where a leaf does for the access already it is spurious. */
static int look_at_rights(struct attempt *a, struct mv_ept_outcome *outcome, unsigned int *highest)
{
	a->rights = ept_view_rights(a->view, a->gpa);
	if (!(a->rights & ~MV_ATTR_SUPPRESS_VE) ||
	    (a->access && !ept_rights_allow(a->ept, a->rights, a->access)))
		return end_at_rights(a, outcome);
	*highest = look_at_entry(a);
	if (!a->there || !leaf_does(a, &a->found))
		return ATTEMPT_GRANT;
	outcome->kind = MV_EPT_SPURIOUS;
	outcome->mapping = a->found;
	return 0;
}

static int look_at_backing(struct attempt *a, struct mv_ept_outcome *outcome)
{
	int error = ept_resolve(a->ept, a->slot, a->gpa, a->access, &a->backing);

	if (error == -EAGAIN) {
		outcome->kind = MV_EPT_RETRY;
		return 0;
	}
	if (error)
		return error;
	if ((a->access & MV_ACCESS_WRITE) && !a->backing.writable) {
		a->rights &= ~MV_ATTR_WRITE;
		return end_at_rights(a, outcome);
	}
	return a->there ? ATTEMPT_REPLACE : ATTEMPT_GRANT;
}

static int look(struct attempt *a, unsigned int index, struct mv_ept_outcome *outcome)
{
	unsigned int highest = 1;
	int step;

	a->changes = ept_changes(a->ept);
	if (a->changes & 1)
		return ATTEMPT_AGAIN;
	a->view = ept_view_find(a->ept, index);
	if (!a->view)
		return -ENOENT;
	a->slot = ept_slot_find(a->ept, a->gpa);
	if (!a->slot) {
		outcome->kind = MV_EPT_MMIO;
		return 0;
	}
	a->how = ept_slot_how(a->slot);
	step = look_at_rights(a, outcome, &highest);
	if (step != ATTEMPT_GRANT)
		return step;
	a->top = top_level(a, highest);
	if (!sample_all(a))
		return ATTEMPT_AGAIN;
	return look_at_backing(a, outcome);
}

/* --- the leaf that is there lacks a right --------------------------------------------------- */

/*
 * A page that is fetched from must not be huge any more, and no processor may know it as huge when
 * it becomes executable: MV_EPT_NX_HUGE.
 */
static int split_found(struct attempt *a)
{
	struct mv_engine *e = &a->view->engine;
	uint64_t mask = level_mask(a, a->found.level);
	int error = mv_engine_split(e, a->gpa, a->gpa, MV_PAGE_SHIFT);

	if (!error)
		ept_flush_view(a->view, a->gpa & ~mask, a->gpa | mask);
	return error;
}

/*
 * Take it away, to be granted anew. Not flushed: what processors know of it maps the same page
 * with fewer rights; a revoke flushes it, for it is accounted for as removed.
 */
static int replace_found(struct attempt *a)
{
	const uint32_t rights = MV_ATTR_RIGHTS;
	struct ept_pass pass = { .zap = true };
	struct mv_mapping now;

	if (a->found.level > 1 && !may_be_large(a))
		return split_found(a);
	/* Another vCPU may have done it meanwhile. */
	if (!mv_engine_walk(&a->view->engine, a->gpa, &now) &&
	    !((now.attr ^ a->found.attr) & rights))
		ept_pass(a->view, a->gpa, a->gpa | (MV_PAGE_SIZE - 1), &pass);
	return 0;
}

/* --- the grant ------------------------------------------------------------------------------ */

/*
 * The right to write comes first and the record of it after: who harvests in between finds the
 * record the next time, and the page is writable until then.
 */
static void record_write(struct attempt *a)
{
	struct mv_ept *ept = a->ept;

	ept_enter(ept);
	struct ept_slot *slot = ept_slot_find(ept, a->gpa);

	if (slot && ept_slot_how(slot) == MV_EPT_TRACK_WRITE_PROTECT)
		ept_log_pages(slot, a->gpa, a->gpa);
	ept_leave(ept);
}

static int grant_level(struct attempt *a, struct mv_ept_outcome *outcome)
{
	uint64_t mask = level_mask(a, a->level);
	struct mv_grant grant = {
		.address = a->gpa & ~mask,
		.phys = a->backing.hpa & ~mask,
		.level = a->level,
		.attr = leaf_attr(a),
		/*
		 * Of one entry the granules are always the same, so this grows with each
		 * revoke and each change that could make a reservation in it wrong.
		 */
		.token = a->samples[a->level] / MV_REVOKES_ENDED + a->changes,
		.holds = grant_holds,
		.ctx = a,
	};
	int error = mv_engine_grant(&a->view->engine, &grant, &a->found);

	if (error == -EEXIST && leaf_does(a, &a->found)) {
		outcome->kind = MV_EPT_SPURIOUS;
		outcome->mapping = a->found;
		return 0;
	}
	if (error == -EEXIST || error == -ESTALE)
		return ATTEMPT_AGAIN;
	if (error)
		return error;
	outcome->kind = MV_EPT_FIXED;
	outcome->mapping = (struct mv_mapping){
		.address = grant.address,
		.phys = grant.phys,
		.page_lg2 = a->ept->format->shift[a->level],
		.level = a->level,
		.attr = grant.attr,
	};
	return 0;
}

static int grant_found_backing(struct attempt *a, struct mv_ept_outcome *outcome)
{
	int step;

	a->level = backed_level(a, a->top);
	/* Where others have put a table there the page is smaller. */
	while ((step = grant_level(a, outcome)) == -ENOTEMPTY)
		a->level = backed_level(a, a->level - 1);
	if (!step && (outcome->mapping.attr & MV_ATTR_WRITE) &&
	    a->how == MV_EPT_TRACK_WRITE_PROTECT)
		record_write(a);
	return step;
}

static int attempt(struct attempt *a, unsigned int index, struct mv_ept_outcome *outcome)
{
	int step;

	ept_enter(a->ept);
	step = look(a, index, outcome);
	ept_leave(a->ept);
	if (step == ATTEMPT_REPLACE) {
		step = replace_found(a);
		return step ? step : ATTEMPT_AGAIN;
	}
	return step == ATTEMPT_GRANT ? grant_found_backing(a, outcome) : step;
}

static struct ept_stripe *stripe_of(struct mv_ept *ept, uint64_t gpa)
{
	/* Neighbouring granules, which neighbouring vCPUs may fault in, count apart. */
	return &ept->stripes[(gpa >> MV_GRANULE_SHIFT) % EPT_STRIPES];
}

int ept_grant(struct mv_ept *ept, unsigned int view, uint64_t gpa, unsigned int access,
	      struct mv_ept_outcome *outcome)
{
	struct attempt a = { .ept = ept, .gpa = gpa & ~(MV_PAGE_SIZE - 1), .access = access };
	struct mv_ept_outcome made = { .kind = MV_EPT_RETRY };
	int step = ATTEMPT_AGAIN;

	for (unsigned int i = 0; step == ATTEMPT_AGAIN && i < ATTEMPTS; i++) {
		if (i)
			ept->platform.ops->relax(ept->platform.ctx, i);
		step = attempt(&a, view, &made);
	}
	if (step < 0)
		return step;
	if (step > 0)
		made.kind = MV_EPT_RETRY;
	*outcome = made;
	return 0;
}

/* --- faults --------------------------------------------------------------------------------- */

/* An access as rights know it: one to a guest table, and one of which nothing is said, reads. */
static unsigned int access_of(const struct mv_stage2_exit *exit)
{
	unsigned int access = exit->access &
			      (MV_ACCESS_READ | MV_ACCESS_WRITE | MV_ACCESS_FETCH | MV_ACCESS_USER);

	if (!(access & (MV_ACCESS_WRITE | MV_ACCESS_FETCH)))
		access |= MV_ACCESS_READ;
	if ((access & MV_ACCESS_FETCH) && !exit->user_told)
		access |= EPT_ACCESS_ANYBODY;
	return access;
}

/* A misconfiguration tells no access. Where no entry of ours is there, it is none of ours. */
static int misconfigured(struct mv_ept *ept, unsigned int view, const struct mv_stage2_exit *exit,
			 struct mv_ept_outcome *outcome)
{
	struct mv_mapping mapping = { 0 };

	ept_enter(ept);
	struct ept_view *found = ept_view_find(ept, view);

	if (found)
		mv_engine_walk(&found->engine, exit->gpa, &mapping);
	ept_leave(ept);
	if (!found)
		return -ENOENT;
	outcome->kind = MV_EPT_MISCONFIGURED;
	outcome->mapping = mapping;
	return 0;
}

int mv_ept_fault(struct mv_ept *ept, unsigned int view, const struct mv_stage2_exit *exit,
		 struct mv_ept_outcome *outcome)
{
	uint64_t gpa = exit->gpa;
	int error;

	if (exit->kind == MV_STAGE2_MISCONFIGURED)
		error = misconfigured(ept, view, exit, outcome);
	else
		error = ept_grant(ept, view, gpa, access_of(exit), outcome);
	if (!error)
		__atomic_fetch_add(&stripe_of(ept, gpa)->faults[outcome->kind], 1,
				   __ATOMIC_RELAXED);
	return error;
}

/* --- ahead of faults ------------------------------------------------------------------------ */

/* Where the next region begins, or beyond @last. */
static uint64_t next_slot(struct mv_ept *ept, uint64_t gpa, uint64_t last)
{
	uint64_t next = last + 1;

	ept_enter(ept);
	const struct ept_slots *slots = __atomic_load_n(&ept->slots, __ATOMIC_ACQUIRE);

	for (unsigned int i = slots->count; i--;) {
		uint64_t first = slots->slot[i]->region->first_gpa;

		if (first > gpa && first < next)
			next = first;
	}
	ept_leave(ept);
	return next;
}

/* One leaf. @gpa moves past it. */
static int prefault_one(struct mv_ept *ept, unsigned int view, uint64_t *gpa, uint64_t last,
			uint64_t *mapped)
{
	struct mv_ept_outcome outcome;
	int error = ept_grant(ept, view, *gpa, 0, &outcome);
	uint64_t end = *gpa + MV_PAGE_SIZE;

	if (error)
		return error;
	if (outcome.kind == MV_EPT_MMIO) {
		*gpa = next_slot(ept, *gpa, last);
		return 0;
	}
	if (outcome.kind == MV_EPT_FIXED || outcome.kind == MV_EPT_SPURIOUS) {
		end = outcome.mapping.address + MV_BIT(outcome.mapping.page_lg2);
		*mapped += (end <= last ? end : last + 1) - *gpa;
	}
	if (outcome.kind == MV_EPT_FIXED)
		__atomic_fetch_add(&stripe_of(ept, *gpa)->prefaults, 1, __ATOMIC_RELAXED);
	*gpa = end;
	return 0;
}

int mv_ept_prefault(struct mv_ept *ept, unsigned int view, uint64_t first_gpa, uint64_t last_gpa,
		    uint64_t *mapped)
{
	uint64_t gpa = first_gpa, bytes = 0;
	int error = 0;

	if (!ept_range_valid(ept, first_gpa, last_gpa))
		return -EINVAL;
	while (!error && gpa <= last_gpa)
		error = prefault_one(ept, view, &gpa, last_gpa, &bytes);
	if (mapped)
		*mapped = bytes;
	return error;
}
