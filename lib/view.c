/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Views: attached in an order, asked in that order, and the transactions over all of them.
 *
 *     busy -> prepare -> commit -> flush -> drop
 *
 * Freestanding. What does not belong here: which pages to give up (pager, balloon), and how
 * the host's pages are let go (the caller's drop).
 */
#include <errno.h>
#include <string.h>

#include "region.h"

#define VIEWS_ROOM 4 /* views that fit without growing */

/* --- the published set ------------------------------------------------------------------ */

static size_t views_bytes(unsigned int capacity)
{
	return sizeof(struct mv_view_set) + capacity * sizeof(struct mv_view *);
}

/* Under memory->lock: see to it that the spare has room for one view more. */
static int reserve_views(struct mv_memory *memory)
{
	const struct mv_platform *platform = &memory->platform;
	unsigned int wanted = memory->views->count + 1;
	struct mv_view_set *spare = memory->spare_views;

	if (spare && spare->capacity >= wanted)
		return 0;
	memory->spare_views =
		platform->ops->alloc(platform->ctx, views_bytes(wanted + VIEWS_ROOM), -1);
	if (!memory->spare_views) {
		memory->spare_views = spare;
		return -ENOMEM;
	}
	memory->spare_views->capacity = wanted + VIEWS_ROOM;
	if (spare)
		platform->ops->free(platform->ctx, spare, views_bytes(spare->capacity));
	return 0;
}

/*
 * Under memory->lock: publish the spare, and return when no transaction walks the set
 * before, which is the spare then.
 */
static void publish_views(struct mv_memory *memory)
{
	const struct mv_platform *platform = &memory->platform;
	struct mv_view_set *before = memory->views;

	/* Release pairs with the acquire in views_get(). */
	__atomic_store_n(&memory->views, memory->spare_views, __ATOMIC_RELEASE);
	memory->spare_views = before;
	/* Whoever found it has counted itself in @users after this, and no one can any more. */
	platform->ops->wait_readers(platform->ctx);
	/* Acquire pairs with the release in views_put(). */
	for (unsigned int turns = 0; __atomic_load_n(&before->users, __ATOMIC_ACQUIRE);)
		platform->ops->relax(platform->ctx, turns++);
}

static struct mv_view_set *views_get(struct mv_memory *memory)
{
	mv_memory_read_enter(memory);
	struct mv_view_set *set = __atomic_load_n(&memory->views, __ATOMIC_ACQUIRE);

	/* The read section keeps the set until it is counted. */
	__atomic_fetch_add(&set->users, 1, __ATOMIC_RELAXED);
	mv_memory_read_leave(memory);
	return set;
}

static void views_put(struct mv_view_set *set)
{
	__atomic_fetch_sub(&set->users, 1, __ATOMIC_RELEASE);
}

static unsigned int find_view(const struct mv_view_set *set, const struct mv_view *view)
{
	unsigned int i = 0;

	while (i < set->count && set->view[i] != view)
		i++;
	return i;
}

/* Where a view of a rank comes: after its equals. */
static unsigned int rank_place(const struct mv_view_set *set, enum mv_view_rank rank)
{
	unsigned int i = 0;

	while (i < set->count && set->view[i]->rank <= rank)
		i++;
	return i;
}

static int attach_locked(struct mv_memory *memory, struct mv_view *view)
{
	const struct mv_view_set *now = memory->views;
	int error;

	if (find_view(now, view) < now->count)
		return -EEXIST;
	error = reserve_views(memory);
	if (error)
		return error;

	struct mv_view_set *next = memory->spare_views;
	unsigned int at = rank_place(now, view->rank);

	memcpy(next->view, now->view, at * sizeof(next->view[0]));
	next->view[at] = view;
	memcpy(next->view + at + 1, now->view + at, (now->count - at) * sizeof(next->view[0]));
	next->count = now->count + 1;
	next->grants = now->grants + (view->ops->grant ? 1 : 0);
	publish_views(memory);
	return 0;
}

int mv_memory_attach_view(struct mv_memory *memory, struct mv_view *view)
{
	const struct mv_view_ops *ops = view->ops;
	int error;

	if (!ops || !ops->prepare_revoke || !ops->commit_revoke || !ops->abort_revoke ||
	    !ops->flush)
		return -EINVAL;
	mv_memory_lock(memory);
	error = attach_locked(memory, view);
	mv_memory_unlock(memory);
	return error;
}

static void detach_locked(struct mv_memory *memory, struct mv_view *view)
{
	const struct mv_view_set *now = memory->views;
	/* There is one, with room: the set before a view last came or went. */
	struct mv_view_set *next = memory->spare_views;
	unsigned int at = find_view(now, view);

	if (at == now->count)
		return;
	memcpy(next->view, now->view, at * sizeof(next->view[0]));
	memcpy(next->view + at, now->view + at + 1, (now->count - at - 1) * sizeof(next->view[0]));
	next->count = now->count - 1;
	next->grants = now->grants - (view->ops->grant ? 1 : 0);
	publish_views(memory);
}

void mv_memory_detach_view(struct mv_memory *memory, struct mv_view *view)
{
	mv_memory_lock(memory);
	detach_locked(memory, view);
	mv_memory_unlock(memory);
}

/* --- batches ---------------------------------------------------------------------------- */

void mv_batch_region_span(const struct mv_batch *batch, void **hva, uint64_t *gpa)
{
	if (hva)
		*hva = mv_region_hva(batch->region, batch->first_page);
	if (gpa)
		*gpa = batch->region->first_gpa + (batch->first_page << MV_PAGE_SHIFT);
}

/* First bit from @bit on that is @wanted, or MV_GRANULE_PAGES. */
static unsigned int find_bit(const struct mv_batch *batch, unsigned int bit, bool wanted)
{
	while (bit < MV_GRANULE_PAGES) {
		uint64_t word = batch->bits[bit / 64];
		uint64_t hits = (wanted ? word : ~word) >> (bit % 64);

		if (hits)
			return bit + (unsigned int)__builtin_ctzll(hits);
		bit = (bit | 63) + 1;
	}
	return MV_GRANULE_PAGES;
}

bool mv_batch_next_run(const struct mv_batch *batch, unsigned int *bit, unsigned int *count)
{
	unsigned int first = find_bit(batch, *bit, true);

	if (first >= MV_GRANULE_PAGES)
		return false;
	*bit = first;
	*count = find_bit(batch, first, false) - first;
	return true;
}

/* What @all has and @rest has not, into @gone; false where that is nothing. */
static bool batch_minus(const struct mv_batch *all, const struct mv_batch *rest,
			struct mv_batch *gone)
{
	*gone = *all;
	for (unsigned int i = 0; i < MV_BATCH_WORDS; i++)
		gone->bits[i] &= ~rest->bits[i];
	return !mv_batch_empty(gone);
}

/* --- the granule's revoke sequence ------------------------------------------------------ */

bool mv_granule_changed(const struct mv_region *region, uint64_t page, uint64_t sample)
{
	return (sample & MV_REVOKES_RUNNING) || mv_granule_sample(region, page) != sample;
}

void mv_granule_raise(struct mv_region *region, uint64_t page)
{
	__atomic_fetch_add(mv_granule_sequence(region, page), 1, __ATOMIC_SEQ_CST);
}

void mv_granule_lower(struct mv_region *region, uint64_t page)
{
	__atomic_fetch_add(mv_granule_sequence(region, page), MV_REVOKES_ENDED - 1, __ATOMIC_SEQ_CST);
}

/* --- revoke and grant ------------------------------------------------------------------- */

/* A view refused pages: those asked before it take their consent back. */
static void abort_views(const struct mv_view_set *set, unsigned int count,
			const struct mv_batch *refused)
{
	while (count--)
		set->view[count]->ops->abort_revoke(set->view[count], refused);
}

/* False where no page is left. */
static bool prepare_views(const struct mv_view_set *set, struct mv_batch *batch)
{
	for (unsigned int i = 0; i < set->count; i++) {
		struct mv_batch asked = *batch, refused;

		set->view[i]->ops->prepare_revoke(set->view[i], batch);
		if (!batch_minus(&asked, batch, &refused))
			continue;
		abort_views(set, i, &refused);
		if (mv_batch_empty(batch))
			return false;
	}
	return true;
}

static void revoke_views(const struct mv_view_set *set, struct mv_batch *batch)
{
	if (!prepare_views(set, batch))
		return;
	for (unsigned int i = 0; i < set->count; i++)
		set->view[i]->ops->commit_revoke(set->view[i], batch);
	for (unsigned int i = 0; i < set->count; i++)
		set->view[i]->ops->flush(set->view[i], batch);
}

void mv_batch_revoke(struct mv_batch *batch)
{
	struct mv_view_set *set;

	if (mv_batch_empty(batch))
		return;
	set = views_get(batch->region->memory);
	mv_granule_raise(batch->region, batch->first_page);
	revoke_views(set, batch);
	mv_granule_lower(batch->region, batch->first_page);
	views_put(set);
}

static int grant_views(const struct mv_view_set *set, const struct mv_batch *batch)
{
	int error = 0;

	/* One view's refusal does not keep the pages from the others. */
	for (unsigned int i = 0; i < set->count; i++) {
		struct mv_view *view = set->view[i];
		int refusal = view->ops->grant ? view->ops->grant(view, batch) : 0;

		if (!error)
			error = refusal;
	}
	return error;
}

int mv_batch_grant(const struct mv_batch *batch)
{
	struct mv_view_set *set = views_get(batch->region->memory);
	int error = 0;

	if (set->grants && !mv_batch_empty(batch))
		error = grant_views(set, batch);
	views_put(set);
	return error;
}

void mv_batch_wake(const struct mv_batch *batch)
{
	struct mv_view_set *set;

	if (mv_batch_empty(batch))
		return;
	set = views_get(batch->region->memory);
	for (unsigned int i = 0; i < set->count; i++)
		if (set->view[i]->ops->wake)
			set->view[i]->ops->wake(set->view[i], batch);
	views_put(set);
}

/* --- discard ---------------------------------------------------------------------------- */

/**
 * struct discard - one call of mv_memory_discard_ranges()
 * @drop, @ctx: the caller's
 * @dropped:    pages given up so far
 * @refused:    whether a page was not
 * @batch:      of the granule at hand: pages made busy
 * @waited:     of these, and of those refused at once: what somebody met busy
 */
struct discard {
	void (*drop)(void *ctx, struct mv_batch *batch);
	void *ctx;
	uint64_t dropped;
	bool refused;
	struct mv_batch batch;
	struct mv_batch waited;
};

static void end_page(struct discard *discard, struct mv_batch *batch, unsigned int bit,
		     enum mv_page_state state, uint32_t clear)
{
	uint32_t before = mv_region_end(batch->region, batch->first_page + bit, state, clear, 0);

	if (before & MV_WORD_WAITED)
		mv_batch_add(&discard->waited, bit);
}

static enum mv_page_state state_of(const struct mv_batch *batch, unsigned int bit)
{
	return mv_word_state(mv_page_load(mv_batch_word(batch, bit)));
}

/* Pages that keep their content, and their state with it. */
static void end_refused(struct discard *discard, struct mv_batch *batch, uint32_t clear)
{
	mv_batch_for_each_page (batch, bit) {
		end_page(discard, batch, bit, state_of(batch, bit), clear);
		discard->refused = true;
	}
}

static void end_dropped(struct discard *discard, struct mv_batch *batch)
{
	mv_batch_for_each_page (batch, bit) {
		end_page(discard, batch, bit, MV_PAGE_DISCARDED, MV_WORD_UNMAPPED | MV_WORD_ACTIVE);
		discard->dropped++;
	}
}

/* Upwards, so that two that wait for each other's pages cannot be. */
static void begin_pages(struct discard *discard, struct mv_batch *batch, unsigned int first,
			unsigned int last)
{
	const struct mv_platform *platform = &batch->region->memory->platform;

	for (unsigned int bit = first; bit <= last; bit++) {
		if (mv_page_begin(platform, mv_batch_word(batch, bit)) & MV_WORD_PINS) {
			end_page(discard, batch, bit, state_of(batch, bit), 0);
			discard->refused = true;
		} else {
			mv_batch_add(batch, bit);
		}
	}
}

/*
 * What the drop could not let go stays resident, and may be reached again. Of views without
 * a grant the next access asks; UNMAPPED is cleared because a grant may have mapped it.
 */
static void give_back(struct discard *discard, struct mv_batch *kept)
{
	mv_batch_grant(kept);
	end_refused(discard, kept, MV_WORD_UNMAPPED);
}

static void discard_batch(struct discard *discard, struct mv_batch *batch)
{
	struct mv_batch all = *batch, gone;

	/* Until the drop, for there may be no view of our own mapping to be revoked. */
	mv_granule_raise(batch->region, batch->first_page);
	mv_batch_revoke(batch);
	if (batch_minus(&all, batch, &gone))
		end_refused(discard, &gone, 0);
	all = *batch;
	if (!mv_batch_empty(batch))
		discard->drop(discard->ctx, batch);
	if (batch_minus(&all, batch, &gone))
		give_back(discard, &gone);
	mv_granule_lower(batch->region, batch->first_page);
	end_dropped(discard, batch);
}

/* The granule at hand is complete: its transaction. */
static void finish_granule(struct discard *discard)
{
	if (!mv_batch_empty(&discard->batch))
		discard_batch(discard, &discard->batch);
	mv_batch_wake(&discard->waited);
}

static void begin_granule(struct discard *discard, struct mv_region *region, uint64_t first_page)
{
	struct mv_batch none = { .region = region, .first_page = first_page };

	if (discard->batch.region == region && discard->batch.first_page == first_page)
		return;
	finish_granule(discard);
	discard->batch = none;
	discard->waited = none;
}

static void discard_pages(struct discard *discard, const struct mv_pages *pages)
{
	uint64_t page = pages->first_page;

	while (page <= pages->last_page) {
		uint64_t base = page & ~(uint64_t)(MV_GRANULE_PAGES - 1);
		uint64_t last = base + MV_GRANULE_PAGES - 1;

		if (last > pages->last_page)
			last = pages->last_page;
		begin_granule(discard, pages->region, base);
		begin_pages(discard, &discard->batch, (unsigned int)(page - base),
			    (unsigned int)(last - base));
		page = last + 1;
	}
}

bool mv_gpa_ranges_valid(const struct mv_gpa_range *ranges, size_t count)
{
	const uint64_t offset = MV_PAGE_SIZE - 1;

	for (size_t i = 0; i < count; i++) {
		const struct mv_gpa_range *range = &ranges[i];

		if (range->last_gpa < range->first_gpa || (range->first_gpa & offset) ||
		    (range->last_gpa & offset) != offset)
			return false;
		if (i && range->first_gpa <= ranges[i - 1].last_gpa)
			return false;
	}
	return true;
}

void mv_memory_release_ranges(struct mv_memory *memory, const struct mv_gpa_range *ranges,
			      size_t count)
{
	while (count--)
		mv_memory_release_range(memory, ranges[count].first_gpa, ranges[count].last_gpa);
}

int mv_memory_hold_ranges(struct mv_memory *memory, const struct mv_gpa_range *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		int error = mv_memory_hold_range(memory, ranges[i].first_gpa, ranges[i].last_gpa);

		if (error) {
			mv_memory_release_ranges(memory, ranges, i);
			return error;
		}
	}
	return 0;
}

int mv_memory_discard_ranges(struct mv_memory *memory, const struct mv_gpa_range *ranges,
			     size_t count, void (*drop)(void *ctx, struct mv_batch *batch),
			     void *ctx, uint64_t *dropped)
{
	struct discard discard = { .drop = drop, .ctx = ctx };
	int error;

	if (!drop || !mv_gpa_ranges_valid(ranges, count))
		return -EINVAL;
	/* Held, so that no range can lose a region halfway. */
	error = mv_memory_hold_ranges(memory, ranges, count);
	if (error)
		return error;
	for (size_t i = 0; i < count; i++) {
		struct mv_pages pages;

		mv_pages_first(memory, ranges[i].first_gpa, ranges[i].last_gpa, &pages);
		do
			discard_pages(&discard, &pages);
		while (mv_pages_next(&pages));
	}
	finish_granule(&discard);
	mv_memory_release_ranges(memory, ranges, count);
	if (dropped)
		*dropped = discard.dropped;
	return discard.refused ? -EBUSY : 0;
}

int mv_memory_discard(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa,
		      void (*drop)(void *ctx, struct mv_batch *batch), void *ctx, uint64_t *dropped)
{
	const struct mv_gpa_range range = { .first_gpa = first_gpa, .last_gpa = last_gpa };

	return mv_memory_discard_ranges(memory, &range, 1, drop, ctx, dropped);
}
