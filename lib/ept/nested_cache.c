/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Nested walks by way of a cache: looked up with all checks, resumed at the deepest table that
 * is known, kept where nothing had to be set.
 *
 * Nothing that a cache says is ever a fault. Where it does not lead to an address that may be
 * accessed as things are, the walk is made without it; and what that finds is true.
 *
 * SDM vol. 3, 4.10 and 29.4. Freestanding. What does not belong here: invalidation
 * (nested_flush.c).
 */
#include <string.h>

#include "nested_page.h"

#define PAGES_LG2_MIN	  4
#define PAGES_LG2_MAX	  20
#define PAGES_LG2_DEFAULT 10
#define LARGEST_LG2	  4 /* 16 pages of 1 GiB */

const struct mv_platform *mv_platform_default(void);

/* --- making one --------------------------------------------------------------------------- */

/* Where a piece of @bytes begins; *at moves on to where the next may. */
static void *piece(uintptr_t *at, size_t bytes)
{
	void *begin = (void *)*at;

	*at = (*at + bytes + 63) & ~(uintptr_t)63;
	return begin;
}

/* All pieces follow the cache itself in one. Return: bytes; where @cache is NULL, that is all. */
static size_t lay_out(struct mv_nested_cache *cache, unsigned int pages_lg2)
{
	const unsigned int lg2[MV_CACHE_SIZES] = { 12, 21, 30 };
	const unsigned int sectors_lg2[MV_CACHE_SIZES] = { MV_CACHE_SECTORS_LG2, 0, 0 };
	const unsigned int count_lg2[MV_CACHE_SIZES] = { pages_lg2, pages_lg2 - 2, LARGEST_LG2 };
	uintptr_t at = (uintptr_t)cache;

	piece(&at, sizeof(*cache));
	for (unsigned int i = 0; i < MV_CACHE_SIZES; i++) {
		struct mv_cached_pages pages = { .page_lg2 = lg2[i],
						 .lg2 = lg2[i] + sectors_lg2[i],
						 .sets_lg2 = count_lg2[i] - 2,
						 .sets_mask = MV_BIT(count_lg2[i] - 2) - 1 };
		size_t slots = mv_cache_slots(&pages);

		pages.keys = piece(&at, slots * sizeof(*pages.keys));
		pages.pages = piece(&at, slots * sizeof(*pages.pages));
		pages.sources = piece(&at, slots * sizeof(*pages.sources));
		if (cache)
			cache->pages[i] = pages;
	}
	return at - (uintptr_t)cache;
}

int mv_nested_cache_create(const struct mv_nested_cache_config *config,
			   struct mv_nested_cache **cache)
{
	unsigned int pages_lg2 = config->pages_lg2 ? config->pages_lg2 : PAGES_LG2_DEFAULT;
	const struct mv_platform *platform = config->platform;
	struct mv_nested_cache *made;
	size_t bytes;

	if (!platform)
		platform = mv_platform_default();
	if (config->size != sizeof(*config) || !platform)
		return -EINVAL;
	if (pages_lg2 < PAGES_LG2_MIN || pages_lg2 > PAGES_LG2_MAX)
		return -EINVAL;
	bytes = lay_out(NULL, pages_lg2);
	made = platform->ops->alloc(platform->ctx, bytes, config->node);
	if (!made)
		return -ENOMEM;
	made->platform = *platform;
	made->bytes = bytes;
	lay_out(made, pages_lg2);
	mv_cache_forget(made);
	*cache = made;
	return 0;
}

void mv_nested_cache_destroy(struct mv_nested_cache *cache)
{
	if (cache)
		cache->platform.ops->free(cache->platform.ctx, cache, cache->bytes);
}

/* --- which context ------------------------------------------------------------------------ */

static struct mv_cache_space *find_space(struct mv_nested_cache *cache,
					 const struct mv_nested *nested)
{
	struct mv_cache_space *space;

	for (unsigned int i = 0; i < cache->spaces_count; i++)
		if (cache->spaces[i].space == nested->space)
			return &cache->spaces[i];
	if (cache->spaces_count == MV_CACHE_SPACES)
		mv_cache_forget(cache);
	space = &cache->spaces[cache->spaces_count++];
	space->space = nested->space;
	/* Nothing of it is cached yet. Acquire: the tables are walked as they are by then. */
	space->seen = nested->log ? __atomic_load_n(&nested->log->head, __ATOMIC_ACQUIRE) : 0;
	space->paths_tag = mv_cache_new_tag(cache);
	return space;
}

static bool same_space_and_mode(const struct mv_cache_context *context,
				const struct mv_nested *nested)
{
	return context->space == nested->space && context->mode == nested->mode;
}

static struct mv_cache_context *find_context(struct mv_nested_cache *cache,
					     const struct mv_nested *nested, bool is_global)
{
	struct mv_cache_context *context;
	uint64_t root = is_global ? 0 : nested->root, pcid = is_global ? 0 : nested->pcid;

	for (unsigned int i = 0; i < cache->contexts_count; i++) {
		context = &cache->contexts[i];
		if (same_space_and_mode(context, nested) && context->is_global == is_global &&
		    context->root == root && context->pcid == pcid)
			return context;
	}
	context = &cache->contexts[cache->contexts_count++];
	context->space = nested->space;
	context->mode = nested->mode;
	context->root = root;
	context->pcid = pcid;
	context->is_global = is_global;
	context->unused = 0;
	if (nested->paging.enabled)
		context->unused =
			(uint8_t)(64 - mv_format_width(mv_formats[nested->paging.format]));
	context->is_narrow = context->unused == 32;
	context->space_index = (uint8_t)(cache->space - cache->spaces);
	context->pages_tag = mv_cache_new_tag(cache);
	context->tables_tag = mv_cache_new_tag(cache);
	return context;
}

/* Another guest, another address space, another mode. */
static void change_context(struct mv_nested_cache *cache, const struct mv_nested *nested)
{
	mv_cache_spare_tags(cache);
	if (cache->contexts_count + 2 > MV_CACHE_CONTEXTS)
		mv_cache_forget(cache);
	cache->space = find_space(cache, nested);
	cache->context = find_context(cache, nested, false);
	cache->globals = find_context(cache, nested, true);
}

MV_INLINE bool in_context(const struct mv_nested_cache *cache, const struct mv_nested *nested)
{
	const struct mv_cache_context *context = cache->context;

	return context && !((context->space ^ nested->space) | (context->mode ^ nested->mode) |
			    (context->root ^ nested->root) | (context->pcid ^ nested->pcid));
}

/* The log has gone on. Acquire pairs with mv_nested_log_add(): its change to tables is seen. */
static void catch_up(struct mv_nested_cache *cache, const struct mv_nested *nested)
{
	mv_cache_spare_tags(cache);
	if (!in_context(cache, nested))
		change_context(cache, nested);
	mv_cache_follow(cache, cache->space, nested->log,
			__atomic_load_n(&nested->log->head, __ATOMIC_ACQUIRE));
}

MV_INLINE bool same_rights(const struct mv_cache_rights *rights, const struct mv_nested *nested)
{
	const struct mv_paging_registers *registers = &nested->paging.registers;

	return !((rights->cr0 ^ registers->cr0) | (rights->cr4 ^ registers->cr4) |
		 (rights->guest_pat ^ nested->guest_pat) |
		 ((rights->pkru ^ registers->pkru) | (rights->pkrs ^ registers->pkrs)));
}

/* All that was checked is to be checked anew. */
static void change_rights(struct mv_nested_cache *cache, const struct mv_nested *nested)
{
	const struct mv_paging_registers *registers = &nested->paging.registers;

	cache->rights = (struct mv_cache_rights){ .cr0 = registers->cr0,
						  .cr4 = registers->cr4,
						  .guest_pat = nested->guest_pat,
						  .pkru = registers->pkru,
						  .pkrs = registers->pkrs };
	if (!++cache->epoch) {
		mv_cache_forget(cache);
		change_context(cache, nested);
	}
}

/* One load of what others write. */
MV_INLINE bool is_ready(const struct mv_nested_cache *cache, const struct mv_nested *nested)
{
	if (!in_context(cache, nested) || !same_rights(&cache->rights, nested))
		return false;
	return !nested->log ||
	       __atomic_load_n(&nested->log->head, __ATOMIC_RELAXED) == cache->space->seen;
}

static void prepare(struct mv_nested_cache *cache, const struct mv_nested *nested)
{
	if (!in_context(cache, nested))
		change_context(cache, nested);
	if (!same_rights(&cache->rights, nested))
		change_rights(cache, nested);
	if (nested->log &&
	    __atomic_load_n(&nested->log->head, __ATOMIC_RELAXED) != cache->space->seen)
		catch_up(cache, nested);
}

/* --- stage 1, by way of known tables --------------------------------------------------------- */

/* struct mv_walk_reach's read. @ctx is the first member of a route. */
MV_INLINE int read_entry(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
			 uint64_t *entry)
{
	struct mv_cache_route *route = ctx;
	struct mv_nested_reading *reading = &route->reading;
	struct mv_cache_place place;

	if (mv_likely(!((gpa ^ route->table_gpa) >> MV_PAGE_BITS))) {
		place.hpa = route->table_hpa + (gpa & (MV_BIT(MV_PAGE_BITS) - 1));
	} else {
		int error = mv_cache_place_of(reading->cache, reading->nested, gpa, reading->access,
					      &place);

		if (error)
			return error;
	}
	reading->hpa[step] = place.hpa;
	return mv_nested_load(reading->nested, place.hpa, bytes, entry);
}

static const struct mv_walk_reach by_cache_ept = { read_entry, mv_nested_change, false };
static const struct mv_walk_reach by_cache_npt = { read_entry, mv_nested_change, true };

/* Resume at the lowest table that is known. */
MV_INLINE void resume(const struct mv_format *f, struct mv_nested_cache *cache,
		      struct mv_cache_route *route, struct mv_walk_state *state)
{
	route->table_gpa = ~0ULL;
	route->sources.count = 0;
	route->sources.space = cache->context->space_index;
	for (unsigned int level = 1; level < f->levels; level++) {
		const struct mv_cached_table *slot =
			mv_cache_table_slot(f, cache, level, state->address);

		if (slot->key != mv_cache_table_key(f, cache->context, level, state->address))
			continue;
		route->table_gpa = slot->gpa;
		route->table_hpa = slot->hpa;
		route->sources = slot->sources;
		state->table = slot->gpa;
		state->granted = slot->granted;
		state->denied = slot->denied;
		state->level = level;
		break;
	}
	route->start = *state;
}

/* A cached PDPTE is a register, no table. */
MV_INLINE bool is_in_table(const struct mv_format *f, const struct mv_nested *nested,
			   unsigned int level)
{
	return mv_level_has_rights(f, level) ||
	       !mv_stage2_is_ept(mv_formats[nested->stage2.format]);
}

/*
 * Keep the tables that the walk went down to. Return: the sources of what the last one holds.
 */
MV_INLINE void keep_tables(const struct mv_format *f, struct mv_nested_cache *cache,
			   struct mv_cache_route *route, const struct mv_walk *guest)
{
	const struct mv_nested *nested = route->reading.nested;
	uint64_t granted = route->start.granted, denied = route->start.denied;

	for (unsigned int i = 0; i + 1 < guest->steps; i++) {
		const struct mv_walk_step *step = &guest->step[i];
		unsigned int below = step->level - 1;
		struct mv_cached_table *slot =
			mv_cache_table_slot(f, cache, below, route->start.address);

		if (mv_level_has_rights(f, step->level)) {
			granted &= step->entry;
			denied |= step->entry;
		}
		if (is_in_table(f, nested, step->level))
			mv_cache_add_source(&route->sources, step->gpa);
		slot->key = mv_cache_table_key(f, cache->context, below, route->start.address);
		slot->gpa = mv_entry_table(f, step->entry);
		slot->hpa = route->reading.hpa[i + 1] & ~(MV_BIT(MV_PAGE_BITS) - 1);
		slot->granted = granted;
		slot->denied = denied;
		slot->sources = route->sources;
	}
	mv_cache_add_source(&route->sources, guest->step[guest->steps - 1].gpa);
}

/* --- the walk ----------------------------------------------------------------------------- */

/*
 * By way of known tables and paths. Return: whether @walk holds a translation. Everything else,
 * faults and errors, may come of what is not true any more.
 */
MV_INLINE bool walk_by_cache(const struct mv_format *f, struct mv_nested_cache *cache,
			     const struct mv_nested *nested, struct mv_walk_state *state,
			     struct mv_walk *guest, unsigned int access,
			     enum mv_cache_answer answer, struct mv_nested_walk *walk)
{
	const struct mv_format *f2 = mv_formats[nested->stage2.format];
	unsigned int guest_access = mv_nested_guest_access(nested, access);
	struct mv_cache_route route;
	struct mv_cache_place place;
	int result;

	route.reading.nested = nested;
	route.reading.cache = cache;
	route.reading.trace = NULL;
	route.reading.access = mv_nested_table_access(access);
	route.reading.marked = false;
	/* For gcc, which does not see that a walk that returns 0 has set them. */
	guest->kind = MV_WALK_PAGE_FAULT;
	guest->gpa = guest->page_lg2 = guest->attr = guest->level = 0;
	resume(f, cache, &route, state);
	if (mv_stage2_is_ept(f2))
		result = mv_walk_go_on(f, &nested->paging, &by_cache_ept, &route, state,
				       guest_access, guest);
	else
		result = mv_walk_go_on(f, &nested->paging, &by_cache_npt, &route, state,
				       guest_access, guest);
	if (mv_unlikely(result || guest->kind != MV_WALK_OK))
		return false;
	if (mv_unlikely(mv_cache_place_of(cache, nested, guest->gpa,
					  mv_nested_final_access(access, guest->attr), &place)))
		return false;
	mv_nested_give(f2, nested, guest->gpa, place.hpa,
		       mv_nested_smaller(guest->page_lg2, place.page_lg2), guest->attr, place.attr,
		       walk);
	/* What had to be set is set now, but not in what was read: the next walk will see it. */
	if (mv_likely(!route.reading.marked && mv_access_leaves_traces(access))) {
		const struct mv_cache_found found = { state, guest, &place, walk };

		keep_tables(f, cache, &route, guest);
		mv_cache_keep_page(f, cache, &route, &found, access, answer);
	}
	return true;
}

/* What is known led to no good. If nothing did, so be it; otherwise what is known is wrong. */
static int walk_afresh(struct mv_nested_cache *cache, const struct mv_nested *nested, uint64_t gva,
		       unsigned int access, struct mv_nested_walk *walk)
{
	int error = mv_nested_walk(nested, gva, access, walk);

	if (!error && walk->kind == MV_NESTED_OK) {
		cache->context->tables_tag = mv_cache_new_tag(cache);
		cache->space->paths_tag = mv_cache_new_tag(cache);
		if (cache->next_tag + MV_CACHE_TAGS_SPARE > MV_CACHE_TAGS)
			mv_cache_forget(cache);
	}
	return error;
}

/* What was cached for the address did not do; with LAM it was not even asked. */
MV_INLINE int walk_on(const struct mv_format *f, struct mv_nested_cache *cache,
		      const struct mv_nested *nested, uint64_t gva, unsigned int access,
		      struct mv_nested_walk *walk)
{
	enum mv_cache_answer answer;
	struct mv_walk_state state;
	struct mv_walk guest;

	if (mv_unlikely(!mv_walk_begin(f, &nested->paging, gva, access, &state, &guest))) {
		mv_nested_give_guest_fault(&guest, walk);
		return 0;
	}
	answer = mv_cache_look_up(cache, nested, false, state.address, access, walk);
	if (answer == MV_CACHE_FOUND) {
		cache->hits++;
		return 0;
	}
	cache->walks++;
	if (walk_by_cache(f, cache, nested, &state, &guest, access, answer, walk))
		return 0;
	return walk_afresh(cache, nested, gva, access, walk);
}

static __attribute__((noinline)) int walk_any(struct mv_nested_cache *cache,
					      const struct mv_nested *nested, uint64_t gva,
					      unsigned int access, struct mv_nested_walk *walk)
{
	prepare(cache, nested);
	if (!nested->paging.enabled)
		return mv_nested_walk(nested, gva, access, walk);
	switch (nested->paging.format) {
	case MV_FORMAT_X86_4L:
		return walk_on(&mv_format_x86_4l, cache, nested, gva, access, walk);
	case MV_FORMAT_X86_5L:
		return walk_on(&mv_format_x86_5l, cache, nested, gva, access, walk);
	case MV_FORMAT_X86_PAE:
		return walk_on(&mv_format_x86_pae, cache, nested, gva, access, walk);
	case MV_FORMAT_X86_PSE:
		return walk_on(&mv_format_x86_pse, cache, nested, gva, access, walk);
	default:
		return walk_on(&mv_format_x86_32, cache, nested, gva, access, walk);
	}
}

/*
 * The part of @gva that is translated, whatever the format. Return: false where this is not the
 * place to tell: LAM is on, or the address is not canonical.
 */
MV_INLINE bool plain_address(const struct mv_nested_cache *cache, const struct mv_nested *nested,
			     uint64_t gva, uint64_t *address)
{
	const struct mv_cache_context *context = cache->context;
	unsigned int unused = context->unused;
	uint64_t high = gva << unused;

	*address = high >> unused;
	if (mv_unlikely(nested->paging.lam_sign_bit[0] | nested->paging.lam_sign_bit[1]))
		return false;
	return context->is_narrow || (uint64_t)((int64_t)high >> unused) == gva;
}

/* Nothing was cached that is known to do. */
static __attribute__((noinline)) int walk_missed(struct mv_nested_cache *cache,
						 const struct mv_nested *nested, uint64_t gva,
						 unsigned int access, struct mv_nested_walk *walk,
						 uint64_t address, enum mv_cache_answer answer)
{
	if (answer == MV_CACHE_ABSENT && mv_cache_again(cache, nested, address, access, walk)) {
		cache->walks++;
		return 0;
	}
	return walk_any(cache, nested, gva, access, walk);
}

int mv_nested_cached_walk(struct mv_nested_cache *cache, const struct mv_nested *nested,
			  uint64_t gva, unsigned int access, struct mv_nested_walk *walk)
{
	enum mv_cache_answer answer;
	uint64_t address;

	if (mv_unlikely(!is_ready(cache, nested)) || mv_unlikely(!nested->paging.enabled) ||
	    mv_unlikely(!plain_address(cache, nested, gva, &address)))
		return walk_any(cache, nested, gva, access, walk);
	answer = mv_cache_look_up(cache, nested, true, address, access, walk);
	if (mv_unlikely(answer != MV_CACHE_FOUND))
		return walk_missed(cache, nested, gva, access, walk, address, answer);
	cache->hits++;
	return 0;
}
