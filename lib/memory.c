/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A memory: its regions, how they are published, found, held and taken away.
 *
 * Freestanding: what it needs of the world comes through the platform's operations.
 * What does not belong here: the pages' words (ledger.c), views (view.c), the guest's
 * bytes (access.c).
 */
#include <errno.h>
#include <string.h>

#include "region.h"

#define SET_ROOM 8 /* regions that fit without growing */

static void *mem_alloc(struct mv_memory *memory, size_t bytes)
{
	return memory->platform.ops->alloc(memory->platform.ctx, bytes, -1);
}

static void mem_free(struct mv_memory *memory, void *mem, size_t bytes)
{
	memory->platform.ops->free(memory->platform.ctx, mem, bytes);
}

/* --- the writers' lock ------------------------------------------------------------------ */

void mv_memory_lock(struct mv_memory *memory)
{
	const struct mv_platform *platform = &memory->platform;

	/* Acquire pairs with the release in mv_memory_unlock(). */
	for (unsigned int turns = 0; __atomic_exchange_n(&memory->lock, 1, __ATOMIC_ACQUIRE);)
		platform->ops->relax(platform->ctx, turns++);
}

void mv_memory_unlock(struct mv_memory *memory)
{
	__atomic_store_n(&memory->lock, 0, __ATOMIC_RELEASE);
}

/* --- sets ------------------------------------------------------------------------------- */

static size_t set_bytes(unsigned int capacity)
{
	return sizeof(struct mv_region_set) + 2 * (size_t)capacity * sizeof(struct mv_region *);
}

static struct mv_region_set *set_alloc(struct mv_memory *memory, unsigned int capacity)
{
	struct mv_region_set *set = mem_alloc(memory, set_bytes(capacity));

	if (!set)
		return NULL;
	set->capacity = capacity;
	set->by_gpa = (struct mv_region **)(set + 1);
	set->by_hva = set->by_gpa + capacity;
	return set;
}

static void set_free(struct mv_memory *memory, struct mv_region_set *set)
{
	if (set)
		mem_free(memory, set, set_bytes(set->capacity));
}

/* How many regions begin at or below an address. */
static unsigned int count_by_gpa(const struct mv_region_set *set, uint64_t gpa)
{
	unsigned int low = 0, high = set->count;

	while (low < high) {
		unsigned int middle = low + (high - low) / 2;

		if (set->by_gpa[middle]->first_gpa <= gpa)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static unsigned int count_by_hva(const struct mv_region_set *set, const void *hva)
{
	unsigned int low = 0, high = set->count;

	while (low < high) {
		unsigned int middle = low + (high - low) / 2;

		if ((uintptr_t)set->by_hva[middle]->hva <= (uintptr_t)hva)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

static uint64_t region_last_byte(const struct mv_region *region)
{
	return region->last_gpa - region->first_gpa;
}

static bool region_has_hva(const struct mv_region *region, const void *hva)
{
	return (uintptr_t)hva - (uintptr_t)region->hva <= region_last_byte(region);
}

/* Under memory->lock: publish a set, and return when nobody reads the one before, now spare. */
static void publish_set(struct mv_memory *memory, struct mv_region_set *set)
{
	const struct mv_platform *platform = &memory->platform;
	struct mv_region_set *before = memory->set;

	memory->spare_set = before;
	/* Release pairs with the acquire in mv_memory_regions(): its regions are whole. */
	__atomic_store_n(&memory->set, set, __ATOMIC_RELEASE);
	platform->ops->wait_readers(platform->ctx);
	/* Acquire pairs with mv_memory_put_set(). Nobody can come to count itself any more. */
	for (unsigned int turns = 0; __atomic_load_n(&before->users, __ATOMIC_ACQUIRE);)
		platform->ops->relax(platform->ctx, turns++);
}

struct mv_region_set *mv_memory_get_set(struct mv_memory *memory)
{
	mv_memory_read_enter(memory);
	struct mv_region_set *set = __atomic_load_n(&memory->set, __ATOMIC_ACQUIRE);

	/* The read section keeps the set until this is counted. */
	__atomic_fetch_add(&set->users, 1, __ATOMIC_RELAXED);
	mv_memory_read_leave(memory);
	return set;
}

void mv_memory_put_set(struct mv_region_set *set)
{
	__atomic_fetch_sub(&set->users, 1, __ATOMIC_RELEASE);
}

static void insert(struct mv_region **to, struct mv_region *const *from, unsigned int count,
		   unsigned int at, struct mv_region *region)
{
	memcpy(to, from, at * sizeof(*to));
	to[at] = region;
	memcpy(to + at + 1, from + at, (count - at) * sizeof(*to));
}

static void leave_out(struct mv_region **to, struct mv_region *const *from, unsigned int count,
		      const struct mv_region *region)
{
	for (unsigned int i = 0; i < count; i++)
		if (from[i] != region)
			*to++ = from[i];
}

/* --- finding and holding ---------------------------------------------------------------- */

struct mv_region *mv_set_by_gpa(const struct mv_region_set *set, uint64_t gpa)
{
	unsigned int below = count_by_gpa(set, gpa);

	if (!below || gpa > set->by_gpa[below - 1]->last_gpa)
		return NULL;
	return set->by_gpa[below - 1];
}

struct mv_region *mv_region_by_gpa(struct mv_memory *memory, uint64_t gpa)
{
	return mv_set_by_gpa(mv_memory_regions(memory), gpa);
}

struct mv_region *mv_region_by_hva(struct mv_memory *memory, const void *hva)
{
	const struct mv_region_set *set = mv_memory_regions(memory);
	unsigned int below = count_by_hva(set, hva);

	if (!below || !region_has_hva(set->by_hva[below - 1], hva))
		return NULL;
	return set->by_hva[below - 1];
}

bool mv_region_hold(struct mv_region *region)
{
	unsigned int now = __atomic_load_n(&region->holds, __ATOMIC_RELAXED);

	/* Acquire pairs with the release of a removal that thought better of it. */
	while (!(now & MV_REGION_CLOSING))
		if (__atomic_compare_exchange_n(&region->holds, &now, now + 1, true,
						__ATOMIC_ACQUIRE, __ATOMIC_RELAXED))
			return true;
	return false;
}

void mv_region_release(struct mv_region *region)
{
	/* Release pairs with the acquire in region_close(): what was done is done. */
	__atomic_fetch_sub(&region->holds, 1, __ATOMIC_RELEASE);
}

struct mv_region *mv_region_get(struct mv_memory *memory, uint64_t gpa)
{
	const struct mv_platform *platform = &memory->platform;

	for (unsigned int turns = 0;; turns++) {
		mv_memory_read_enter(memory);
		struct mv_region *region = mv_region_by_gpa(memory, gpa);
		bool settled = !region || mv_region_hold(region);

		mv_memory_read_leave(memory);
		if (settled)
			return region;
		platform->ops->relax(platform->ctx, turns);
	}
}

int mv_memory_hold_range(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa)
{
	uint64_t gpa = first_gpa;

	for (;;) {
		struct mv_region *region = mv_region_get(memory, gpa);

		if (!region) {
			if (gpa != first_gpa)
				mv_memory_release_range(memory, first_gpa, gpa - 1);
			return -EFAULT;
		}
		if (region->last_gpa >= last_gpa)
			return 0;
		gpa = region->last_gpa + 1;
	}
}

void mv_memory_release_range(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa)
{
	struct mv_pages pages;
	bool more = true;

	mv_pages_first(memory, first_gpa, last_gpa, &pages);
	while (more) {
		struct mv_region *region = pages.region;

		/* Step first: without the hold the region may go at any moment. */
		more = mv_pages_next(&pages);
		mv_region_release(region);
	}
}

void mv_pages_first(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa,
		    struct mv_pages *pages)
{
	mv_memory_read_enter(memory);
	struct mv_region *region = mv_region_by_gpa(memory, first_gpa);

	mv_memory_read_leave(memory);
	pages->region = region;
	pages->first_page = mv_region_page(region, first_gpa);
	pages->last_page =
		last_gpa < region->last_gpa ? mv_region_page(region, last_gpa) : region->pages - 1;
	pages->last_gpa = last_gpa;
}

bool mv_pages_next(struct mv_pages *pages)
{
	const struct mv_region *region = pages->region;

	if (region->last_gpa >= pages->last_gpa)
		return false;
	mv_pages_first(region->memory, region->last_gpa + 1, pages->last_gpa, pages);
	return true;
}

/* --- adding ----------------------------------------------------------------------------- */

static int check_region(const struct mv_region_config *config)
{
	const uint64_t offset = MV_PAGE_SIZE - 1;

	if (!config || config->size != sizeof(*config) || config->last_gpa < config->first_gpa)
		return -EINVAL;
	if ((config->first_gpa & offset) || (config->last_gpa & offset) != offset)
		return -EINVAL;

	uint64_t last_byte = config->last_gpa - config->first_gpa;

	if (!config->hva || ((uintptr_t)config->hva & offset) ||
	    last_byte > UINTPTR_MAX - (uintptr_t)config->hva)
		return -EINVAL;
	if (config->fd >= 0 &&
	    ((config->fd_offset & offset) || last_byte > UINT64_MAX - config->fd_offset))
		return -EINVAL;
	return 0;
}

static bool overlaps(const struct mv_region_set *set, const struct mv_region *region)
{
	unsigned int below = count_by_gpa(set, region->last_gpa);

	if (below && set->by_gpa[below - 1]->last_gpa >= region->first_gpa)
		return true;
	below = count_by_hva(set, region->hva + region_last_byte(region));
	return below && (set->by_hva[below - 1]->hva >= region->hva ||
			 region_has_hva(set->by_hva[below - 1], region->hva));
}

static uint64_t region_granules(const struct mv_region *region)
{
	return (region->pages + MV_GRANULE_PAGES - 1) / MV_GRANULE_PAGES;
}

static void region_free(struct mv_memory *memory, struct mv_region *region)
{
	mem_free(memory, region->words, region->pages * sizeof(*region->words));
	mem_free(memory, region->revokes, region_granules(region) * sizeof(*region->revokes));
	mem_free(memory, region, sizeof(*region));
}

static struct mv_region *region_alloc(struct mv_memory *memory,
				      const struct mv_region_config *config)
{
	struct mv_region *region = mem_alloc(memory, sizeof(*region));

	if (!region)
		return NULL;
	region->memory = memory;
	region->first_gpa = config->first_gpa;
	region->last_gpa = config->last_gpa;
	region->hva = config->hva;
	region->fd = config->fd < 0 ? -1 : config->fd;
	region->fd_offset = config->fd_offset;
	region->pages = (region_last_byte(region) >> MV_PAGE_SHIFT) + 1;
	region->words = mem_alloc(memory, region->pages * sizeof(*region->words));
	region->revokes = mem_alloc(memory, region_granules(region) * sizeof(*region->revokes));
	if (region->words && region->revokes)
		return region;
	region_free(memory, region);
	return NULL;
}

/* Under memory->lock: see to it that the spare has room for one region more. */
static int reserve_set(struct mv_memory *memory)
{
	unsigned int wanted = memory->set->count + 1;
	struct mv_region_set *set;

	if (memory->spare_set && memory->spare_set->capacity >= wanted)
		return 0;
	set = set_alloc(memory, wanted + SET_ROOM);
	if (!set)
		return -ENOMEM;
	set_free(memory, memory->spare_set);
	memory->spare_set = set;
	return 0;
}

static int add_locked(struct mv_memory *memory, struct mv_region *region)
{
	const struct mv_region_set *now = memory->set;
	int error;

	if (overlaps(now, region))
		return -EEXIST;
	error = reserve_set(memory);
	if (error)
		return error;

	struct mv_region_set *next = memory->spare_set;

	insert(next->by_gpa, now->by_gpa, now->count, count_by_gpa(now, region->first_gpa), region);
	insert(next->by_hva, now->by_hva, now->count, count_by_hva(now, region->hva), region);
	next->count = now->count + 1;
	/* Before the region can be found: whoever changes a page's state takes from this. */
	__atomic_fetch_add(&memory->states[MV_PAGE_ABSENT], region->pages, __ATOMIC_RELAXED);
	publish_set(memory, next);
	return 0;
}

int mv_memory_add_region(struct mv_memory *memory, const struct mv_region_config *config)
{
	int error = check_region(config);

	if (error)
		return error;

	struct mv_region *region = region_alloc(memory, config);

	if (!region)
		return -ENOMEM;
	mv_memory_lock(memory);
	error = add_locked(memory, region);
	mv_memory_unlock(memory);
	if (error)
		region_free(memory, region);
	return error;
}

/* --- taking away ------------------------------------------------------------------------ */

/* From here on nobody can take a hold; false, and nothing changed, where somebody has one. */
static bool region_close(struct mv_region *region)
{
	unsigned int none = 0;

	/* Acquire pairs with mv_region_release(). */
	return __atomic_compare_exchange_n(&region->holds, &none, MV_REGION_CLOSING, false,
					   __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
}

static void region_reopen(struct mv_region *region)
{
	__atomic_store_n(&region->holds, 0, __ATOMIC_RELEASE);
}

/* A closed region: is a page pinned or busy? Nobody but an unpin can change the answer. */
static bool region_in_use(const struct mv_region *region)
{
	for (uint64_t page = 0; page < region->pages; page++)
		if (mv_page_load(&region->words[page]) & (MV_WORD_PINS | MV_WORD_BUSY))
			return true;
	return false;
}

static void uncount_region(struct mv_memory *memory, const struct mv_region *region)
{
	uint64_t pages[MV_PAGE_STATES] = { 0 };

	for (uint64_t page = 0; page < region->pages; page++)
		pages[mv_word_state(mv_page_load(&region->words[page]))]++;
	for (unsigned int state = 0; state < MV_PAGE_STATES; state++)
		__atomic_fetch_sub(&memory->states[state], pages[state], __ATOMIC_RELAXED);
}

/* Under memory->lock. Decides first and only then hides the region: a failure is unseen. */
static int remove_locked(struct mv_memory *memory, struct mv_region *region)
{
	const struct mv_region_set *now = memory->set;
	struct mv_region_set *next = memory->spare_set;

	if (!region_close(region))
		return -EBUSY;
	if (region_in_use(region)) {
		region_reopen(region);
		return -EBUSY;
	}
	/* There is a spare, with room: the set before the last region came or went. */
	leave_out(next->by_gpa, now->by_gpa, now->count, region);
	leave_out(next->by_hva, now->by_hva, now->count, region);
	next->count = now->count - 1;
	publish_set(memory, next);
	uncount_region(memory, region);
	return 0;
}

int mv_memory_remove_region(struct mv_memory *memory, uint64_t first_gpa)
{
	mv_memory_lock(memory);
	/* The lock keeps the set: no read section is needed. */
	struct mv_region *region = mv_region_by_gpa(memory, first_gpa);
	int error = -ENOENT;

	if (region && region->first_gpa == first_gpa)
		error = remove_locked(memory, region);
	mv_memory_unlock(memory);
	if (!error)
		region_free(memory, region);
	return error;
}

/* --- the whole -------------------------------------------------------------------------- */

static size_t views_bytes(const struct mv_view_set *set)
{
	return sizeof(*set) + set->capacity * sizeof(set->view[0]);
}

static void free_views(struct mv_memory *memory, struct mv_view_set *set)
{
	if (set)
		mem_free(memory, set, views_bytes(set));
}

static void memory_free(struct mv_memory *memory)
{
	struct mv_platform platform = memory->platform;

	set_free(memory, memory->set);
	set_free(memory, memory->spare_set);
	free_views(memory, memory->views);
	free_views(memory, memory->spare_views);
	platform.ops->free(platform.ctx, memory, sizeof(*memory));
}

int mv_memory_create(const struct mv_memory_config *config, struct mv_memory **memory)
{
	const struct mv_platform *platform;
	struct mv_memory *made;

	if (!config || config->size != sizeof(*config))
		return -EINVAL;
	platform = config->platform ? config->platform : mv_platform_default();
	if (!platform)
		return -EINVAL;
	made = platform->ops->alloc(platform->ctx, sizeof(*made), -1);
	if (!made)
		return -ENOMEM;
	made->platform = *platform;
	made->set = set_alloc(made, SET_ROOM);
	made->views = mem_alloc(made, sizeof(*made->views));
	if (!made->set || !made->views) {
		memory_free(made);
		return -ENOMEM;
	}
	*memory = made;
	return 0;
}

void mv_memory_destroy(struct mv_memory *memory)
{
	if (!memory)
		return;
	for (unsigned int i = 0; i < memory->set->count; i++)
		region_free(memory, memory->set->by_gpa[i]);
	memory_free(memory);
}

void mv_memory_get_counts(struct mv_memory *memory, struct mv_memory_counts *counts)
{
	uint64_t total = 0;

	mv_memory_read_enter(memory);
	const struct mv_region_set *set = mv_memory_regions(memory);

	for (unsigned int i = 0; i < set->count; i++)
		total += set->by_gpa[i]->pages;
	mv_memory_read_leave(memory);

	for (unsigned int state = 0; state < MV_PAGE_STATES; state++)
		counts->pages[state] = __atomic_load_n(&memory->states[state], __ATOMIC_RELAXED);
	counts->pinned = __atomic_load_n(&memory->pinned, __ATOMIC_RELAXED);
	counts->total = total;
}
