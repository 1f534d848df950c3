/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A fault: walk the guest's tables as the processor would, tell the guest's faults from ours, then
 * go down the shadow and make what is missing. SDM vol. 3, 4.6 to 4.8.
 *
 * Of each table the frame's count of writes is taken before an entry is read there, and asked again
 * when what was made of the entry is installed: so nothing of the guest's memory is touched
 * under a lock or in a read section, where it might not be resident.
 *
 * Freestanding. What does not belong here: which pages there are to be (shadow_plan.c), how an
 * entry is installed (shadow_entry.c).
 */
#include "shadow_internal.h"

#define FAULT_ATTEMPTS 32 /* before the guest is to try again itself */

enum step {
	STEP_DONE,  /* the outcome stands */
	STEP_AGAIN, /* something has changed */
	STEP_MAKE,  /* a page is missing */
};

/**
 * struct attempt - one way through a fault
 * @access:  MV_ACCESS_…
 * @gva:     without a tag
 * @slot:    of the guest page, whose address is @seen.walk.gpa
 * @samples: by level: of the granules that such a page touches
 * @zaps:    of the backing
 * @attr:    what the leaf is to grant
 * @line:    the entry's neighbours
 * @missing: STEP_MAKE: the level of the page
 */
struct attempt {
	struct mv_shadow_vcpu *vcpu;
	unsigned int access;
	uint64_t gva;
	struct shadow_seen seen;
	const struct shadow_slot *slot;
	uint64_t samples[SHADOW_SIZES];
	uint32_t zaps;
	struct mv_shadow_backing backing;
	uint32_t attr;
	struct shadow_line line;
	struct shadow_plan plan;
	unsigned int missing;
};

/* --- the guest's walk ----------------------------------------------------------------------- */

MV_INLINE const struct shadow_slot *slot_of(struct shadow_seen *seen, uint64_t gpa)
{
	const struct shadow_slot *slot = seen->slot;

	if (mv_unlikely(!slot || !shadow_slot_holds(slot, gpa))) {
		slot = shadow_slot_at(seen->shadow, gpa);
		if (slot)
			seen->slot = slot;
	}
	return slot;
}

/* Acquire: what a guest wrote into a table before it linked it is seen in it. */
MV_INLINE int read_seen(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
			uint64_t *entry)
{
	struct shadow_seen *seen = ctx;
	const struct shadow_slot *slot = slot_of(seen, gpa);
	struct shadow_frame *frame;
	const void *at;

	if (mv_unlikely(!slot))
		return -EFAULT;
	frame = shadow_frame_in(seen->shadow, slot, 1, gpa);
	seen->origin[step].frame = frame;
	seen->origin[step].writes = shadow_writes(frame);
	at = seen->at = shadow_host_address(slot, gpa);
	if (bytes == 4)
		*entry = __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE);
	else
		*entry = __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
	return 0;
}

MV_INLINE int change_seen(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
			  uint64_t old, uint64_t entry)
{
	struct shadow_seen *seen = ctx;
	const struct shadow_slot *slot = slot_of(seen, gpa);
	void *at = shadow_host_address(slot, gpa);
	uint32_t old_half = (uint32_t)old;
	bool changed;

	if (bytes == 4)
		changed = __atomic_compare_exchange_n((uint32_t *)at, &old_half, (uint32_t)entry,
						      false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	else
		changed = __atomic_compare_exchange_n((uint64_t *)at, &old, entry, false,
						      __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	if (!changed)
		return -EAGAIN;
	/* After the write: a harvest in between finds it, and reports the page once more. */
	shadow_log_write(slot, shadow_frame_in(seen->shadow, slot, 1, gpa));
	return 0;
}

static const struct mv_walk_reach through_slots = { read_seen, change_seen, false };

static int walk_guest(struct attempt *a)
{
	const struct mv_shadow_vcpu *vcpu = a->vcpu;

	a->seen.shadow = vcpu->shadow;
	a->seen.slot = NULL;
	/* A cached PDPTE is read from nowhere. */
	a->seen.origin[0].frame = NULL;
	return mv_walk_any(&vcpu->paging, &through_slots, &a->seen, a->gva, a->access,
			   &a->seen.walk);
}

/* --- what the leaf grants -------------------------------------------------------------------- */

/* CR0.WP = 0: a supervisor writes where the guest's entries are read-only. */
static bool writes_through(unsigned int access)
{
	return (access & MV_ACCESS_WRITE) && !mv_access_is_user(access);
}

/*
 * The host's CR0.WP is 1. A read-only page of the supervisor is simply writable. A user page is
 * one or the other: read-only for the user, or disguised as a writable page of the supervisor, in
 * which the user faults, and SMEP would no longer see a user page (SDM vol. 3, 4.6). SMAP would
 * not either, and there is no right that stands in for it.
 */
static bool express_without_wp(const struct mv_shadow_vcpu *vcpu, unsigned int access,
			       uint32_t *attr)
{
	union shadow_role mode = vcpu->mode;

	if (!(*attr & MV_ATTR_USER)) {
		*attr |= MV_ATTR_WRITE;
		return true;
	}
	if (!writes_through(access))
		return true;
	if (mode.smap || (mode.smep && !(vcpu->shadow->features & MV_FEATURE_NX)))
		return false;
	*attr = (*attr | MV_ATTR_WRITE) & ~MV_ATTR_USER;
	if (mode.smep)
		*attr &= ~MV_ATTR_EXEC;
	return true;
}

bool shadow_rights(const struct mv_shadow_vcpu *vcpu, unsigned int access, uint32_t granted,
		   uint32_t *attr)
{
	uint32_t made = granted & (MV_ATTR_WRITE | MV_ATTR_USER | MV_ATTR_EXEC);

	if (vcpu->paging.enabled) {
		if (!vcpu->mode.wp && !(made & MV_ATTR_WRITE) &&
		    !express_without_wp(vcpu, access, &made))
			return false;
		/* The first write has to be seen: it sets dirty. */
		if (!(granted & MV_ATTR_DIRTY))
			made &= ~MV_ATTR_WRITE;
	}
	*attr = made;
	return true;
}

/* --- what stands behind the page ----------------------------------------------------------- */

int shadow_resolve(const struct mv_shadow *s, const struct shadow_slot *slot, uint64_t gpa,
		   unsigned int access, struct mv_shadow_backing *backing)
{
	void *hva;

	gpa &= ~(uint64_t)(MV_PAGE_SIZE - 1);
	hva = shadow_host_address(slot, gpa);
	if (s->ops.resolve)
		return s->ops.resolve(s->ctx, gpa, hva, access & MV_ACCESS_KIND, backing);
	backing->hpa = (uintptr_t)hva;
	backing->page_lg2 = 30;
	backing->writable = true;
	return 0;
}

/* Before anything is resolved. False where a revoke runs on the page itself. */
static bool sample_all(struct attempt *a, unsigned int *level)
{
	const struct mv_shadow *s = a->vcpu->shadow;
	const struct mv_region *region = a->slot->region;
	uint64_t gpa = a->seen.walk.gpa;

	for (; *level > 1; (*level)--) {
		uint64_t mask = mv_span_mask(s->format, *level);

		if ((gpa & ~mask) >= region->first_gpa && (gpa | mask) <= region->last_gpa &&
		    shadow_sample(s, a->slot, *level, gpa, &a->samples[*level]))
			break;
	}
	for (unsigned int lower = 1; lower < *level; lower++)
		if (!shadow_sample(s, a->slot, lower, gpa, &a->samples[lower]))
			return false;
	return *level > 1 || shadow_sample(s, a->slot, 1, gpa, &a->samples[1]);
}

/* The largest page at or below a level that backing and tables allow. */
static unsigned int backed_level(const struct attempt *a, unsigned int level)
{
	const struct mv_shadow *s = a->vcpu->shadow;
	uint64_t gpa = a->seen.walk.gpa;

	if (shadow_is_logging(a->slot))
		return 1;
	for (; level > 1; level--) {
		const struct shadow_frame *frame = shadow_frame_in(s, a->slot, level, gpa);
		uint64_t differ = (gpa ^ a->backing.hpa) & ~(uint64_t)(MV_PAGE_SIZE - 1);

		if ((s->rules.leaf_levels >> level & 1) &&
		    a->backing.page_lg2 >= s->format->shift[level] &&
		    !(differ & mv_span_mask(s->format, level)) &&
		    !__atomic_load_n(&frame->pages, __ATOMIC_RELAXED))
			return level;
	}
	return 1;
}

/* --- down the shadow ------------------------------------------------------------------------- */

static unsigned int index_at(const struct attempt *a, unsigned int level)
{
	return mv_index(a->vcpu->shadow->format, level, a->plan.address);
}

static void mark_used(struct shadow_page *page)
{
	if (!__atomic_load_n(&page->used, __ATOMIC_RELAXED))
		__atomic_store_n(&page->used, 1, __ATOMIC_RELAXED);
	if (__atomic_load_n(&page->flood, __ATOMIC_RELAXED))
		__atomic_store_n(&page->flood, 0, __ATOMIC_RELAXED);
}

/* The page that an entry should link, if it exists and may be linked. */
static struct shadow_page *find_child(struct mv_shadow *s, const struct shadow_key *key)
{
	struct shadow_frame *frame = shadow_frame_of_base(s, key->base);
	struct shadow_page *child;

	shadow_lock(s, frame);
	child = shadow_find(s, frame, key);
	if (child && !shadow_is_clean(s, child))
		child = NULL;
	shadow_unlock(frame);
	return child;
}

/* One level down. */
static enum step descend(struct attempt *a, struct shadow_page **page, unsigned int level)
{
	struct mv_shadow *s = a->vcpu->shadow;
	const struct shadow_key *key = &a->plan.key[level - 1];
	unsigned int index = index_at(a, level);
	uint64_t entry = shadow_load(*page, index);
	struct shadow_page *child = NULL;

	if (shadow_present(s, entry) && !shadow_is_leaf(s, level, entry))
		child = shadow_child(s, *page, index, entry);
	if (mv_unlikely(!child || !shadow_has_key(child, key))) {
		child = find_child(s, key);
		if (!child) {
			a->missing = level - 1;
			return STEP_MAKE;
		}
		/* Not what somebody is just installing: two would undo each other's for ever. */
		if (shadow_present(s, entry))
			shadow_zap(s, *page, index);
		if (shadow_link(s, *page, index, child, &a->plan.origin[level]))
			return STEP_AGAIN;
	}
	mark_used(child);
	*page = child;
	return STEP_DONE;
}

/* What the leaf was made from, for a page of tables; or which page, where that says all. */
static uint64_t leaf_note(const struct attempt *a)
{
	const struct mv_walk *walk = &a->seen.walk;
	uint64_t mask = mv_span_mask(a->vcpu->shadow->format, a->plan.bottom);

	if (a->plan.bottom > 1 || a->plan.key[1].role.direct)
		return walk->gpa & ~mask;
	return walk->step[walk->steps - 1].entry |
	       mv_walk_marks(mv_formats[a->vcpu->paging.format], true, a->access);
}

static enum step map_leaf(struct attempt *a, struct shadow_page *page, enum mv_shadow_kind *kind)
{
	struct mv_shadow *s = a->vcpu->shadow;
	unsigned int level = a->plan.bottom, index = index_at(a, level);
	struct shadow_leaf leaf = {
		.page = page,
		.index = index,
		.slot = a->slot,
		.note = leaf_note(a),
		.hpa = a->backing.hpa & ~mv_span_mask(s->format, level),
		.attr = a->backing.writable ? a->attr : a->attr & ~MV_ATTR_WRITE,
		.write = a->access & MV_ACCESS_WRITE,
		.origin = a->plan.origin[level],
		.sample = a->samples[level],
		.zaps = a->zaps,
	};
	int mapped;

	/* All at once, rather than one after the other. */
	__builtin_prefetch(&page->table[index], 1);
	__builtin_prefetch(&page->notes[index], 1);
	__builtin_prefetch(&page->links[index], 1);
	mapped = shadow_map(s, &leaf);
	if (mapped < 0)
		return STEP_AGAIN;
	*kind = mapped == SHADOW_TRACKED ? MV_SHADOW_EMULATE_WRITE : MV_SHADOW_FIXED;
	if (*kind == MV_SHADOW_FIXED && level == 1 && !a->plan.key[1].role.direct)
		shadow_map_ahead(a->vcpu, &a->line, page, a->slot);
	return STEP_DONE;
}

static enum step go_down(struct attempt *a, enum mv_shadow_kind *kind)
{
	struct shadow_page *page = a->vcpu->root;

	for (unsigned int level = a->plan.top; level > a->plan.bottom; level--) {
		enum step step = descend(a, &page, level);

		if (step != STEP_DONE)
			return step;
	}
	return map_leaf(a, page, kind);
}

/* --- one attempt ---------------------------------------------------------------------------- */

/* In a read section. */
static int fix(struct attempt *a, enum mv_shadow_kind *kind, enum step *step)
{
	unsigned int level = shadow_leaf_level(a->vcpu->shadow, &a->seen.walk);
	int error;

	*step = STEP_DONE;
	*kind = MV_SHADOW_RETRY;
	if (!sample_all(a, &level))
		return 0;
	a->zaps = shadow_zaps(a->vcpu->shadow);
	error = shadow_resolve(a->vcpu->shadow, a->slot, a->seen.walk.gpa, a->access, &a->backing);
	if (error)
		return error == -EAGAIN ? 0 : error;
	if ((a->access & MV_ACCESS_WRITE) && !a->backing.writable) {
		*kind = MV_SHADOW_MMIO;
		return 0;
	}
	shadow_plan(a->vcpu, &a->seen, a->gva, backed_level(a, level), &a->plan);
	*step = go_down(a, kind);
	return 0;
}

/* Pages for all levels from the missing one down, and one flush for all of them. */
static int make_missing(struct attempt *a)
{
	struct mv_shadow *s = a->vcpu->shadow;
	bool flush = false;
	int error = shadow_reserve(a->vcpu, a->missing - a->plan.bottom + 1);

	if (error)
		return error;
	for (unsigned int level = a->missing; level >= a->plan.bottom; level--) {
		struct shadow_page *page = shadow_make(a->vcpu, &a->plan.key[level], false);

		if (!page)
			return -EAGAIN;
		flush |= !shadow_is_clean(s, page);
	}
	if (flush)
		shadow_flush(s);
	return 0;
}

static int attempt(struct attempt *a, enum mv_shadow_kind *kind, enum step *step)
{
	int error = walk_guest(a);

	*step = STEP_DONE;
	if (error) {
		*kind = MV_SHADOW_RETRY;
		return error == -EAGAIN ? 0 : error;
	}
	if (a->seen.walk.kind != MV_WALK_OK) {
		*kind = MV_SHADOW_INJECT;
		return 0;
	}
	shadow_look_ahead(a->vcpu, &a->seen, &a->line);
	a->slot = slot_of(&a->seen, a->seen.walk.gpa);
	if (!a->slot) {
		*kind = MV_SHADOW_MMIO;
		return 0;
	}
	if (!shadow_rights(a->vcpu, a->access, a->seen.walk.attr, &a->attr)) {
		*kind = MV_SHADOW_EMULATE_RIGHTS;
		return 0;
	}
	/* Needed last; in no cache, most likely. */
	__builtin_prefetch(shadow_frame_in(a->vcpu->shadow, a->slot, 1, a->seen.walk.gpa), 1);
	shadow_enter(a->vcpu->shadow);
	error = fix(a, kind, step);
	shadow_leave(a->vcpu->shadow);
	return error;
}

static int resolve_fault(struct attempt *a, enum mv_shadow_kind *kind)
{
	for (unsigned int turns = 0; turns < FAULT_ATTEMPTS; turns++) {
		enum step step;
		int error = attempt(a, kind, &step);

		if (error || step == STEP_DONE)
			return error;
		if (step == STEP_MAKE) {
			error = make_missing(a);
			if (error && error != -EAGAIN)
				return error;
		} else {
			shadow_relax(a->vcpu->shadow, turns);
		}
	}
	*kind = MV_SHADOW_RETRY;
	return 0;
}

#define SETTLE_EVERY 64 /* faults */

static void count(struct mv_shadow_vcpu *vcpu, enum mv_shadow_kind kind)
{
	/* One writer. */
	__atomic_store_n(&vcpu->faults[kind], vcpu->faults[kind] + 1, __ATOMIC_RELAXED);
	if (kind == MV_SHADOW_INJECT)
		return;
	vcpu->cost.faults++;
	vcpu->cost.table_writes += kind == MV_SHADOW_EMULATE_WRITE;
	if (vcpu->cost.faults == SETTLE_EVERY)
		shadow_settle(vcpu);
}

int mv_shadow_fault(struct mv_shadow_vcpu *vcpu, uint64_t gva, unsigned int access,
		    struct mv_shadow_outcome *outcome)
{
	enum mv_shadow_kind kind;
	struct attempt a;
	int error;

	if (!vcpu->root || !(access & MV_ACCESS_KIND) || (access & MV_ACCESS_SHADOW_STACK))
		return -EINVAL;
	a.vcpu = vcpu;
	a.access = access & ~MV_ACCESS_NO_UPDATE;
	a.gva = mv_walk_untag(&vcpu->paging, gva, access);
	error = resolve_fault(&a, &kind);
	if (error)
		return error;
	count(vcpu, kind);
	outcome->kind = kind;
	outcome->walk = a.seen.walk;
	return 0;
}
