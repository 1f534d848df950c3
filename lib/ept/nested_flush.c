/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What goes from a cache of nested walks, and when: by address, by address space, by guest table,
 * by guest-physical range; and the log by which other threads' changes reach it.
 *
 * SDM vol. 3, 4.10.4 and 29.4.3; APM vol. 2, 5.5 and 15.16. Freestanding.
 * What does not belong here: lookups (nested_cache.c).
 */
#include <string.h>

#include "nested_cache.h"

/* --- everything --------------------------------------------------------------------------- */

void mv_cache_forget(struct mv_nested_cache *cache)
{
	for (unsigned int i = 0; i < MV_CACHE_SIZES; i++) {
		struct mv_cached_pages *pages = &cache->pages[i];

		memset(pages->keys, 0, mv_cache_slots(pages) * sizeof(*pages->keys));
		pages->used = pages->fractured = false;
	}
	memset(cache->tables_1, 0, sizeof(cache->tables_1));
	memset(cache->tables_n, 0, sizeof(cache->tables_n));
	memset(cache->paths_1, 0, sizeof(cache->paths_1));
	memset(cache->paths_2, 0, sizeof(cache->paths_2));
	cache->context = cache->globals = NULL;
	cache->space = NULL;
	cache->contexts_count = cache->spaces_count = 0;
	cache->last.table_key = 0;
	cache->next_tag = 1;
}

void mv_nested_cache_flush_all(struct mv_nested_cache *cache)
{
	mv_cache_forget(cache);
}

/* --- by address space, and by address ------------------------------------------------------ */

/* Whether an invalidation means a context. What has its paging off belongs to no PCID. */
static bool is_meant(const struct mv_cache_context *context, uint32_t pcid, bool globals)
{
	if (context->is_global)
		return globals;
	return context->mode && (pcid == MV_NESTED_ALL_PCIDS || context->pcid == pcid);
}

void mv_nested_cache_flush_pcid(struct mv_nested_cache *cache, uint32_t pcid, bool globals)
{
	mv_cache_spare_tags(cache);
	for (unsigned int i = 0; i < cache->contexts_count; i++) {
		struct mv_cache_context *context = &cache->contexts[i];

		if (!is_meant(context, pcid, globals))
			continue;
		context->pages_tag = mv_cache_new_tag(cache);
		context->tables_tag = mv_cache_new_tag(cache);
	}
}

static const struct mv_format *format_of(const struct mv_cache_context *context)
{
	return mv_formats[context->mode >> MV_CACHE_MODE_FORMAT & 15];
}

/* The part of an address that a context's tables translate. */
static uint64_t address_in(const struct mv_cache_context *context, uint64_t gva)
{
	return gva & (MV_BIT(mv_format_width(format_of(context))) - 1);
}

static void drop_sector(struct mv_cached_pages *pages, size_t slot, unsigned int sector)
{
	struct mv_cached_page *page = &pages->pages[slot];

	page->sectors &= (uint8_t) ~(1u << sector);
	if (!page->sectors)
		pages->keys[slot] = 0;
}

static void drop_page(struct mv_cached_pages *pages, const struct mv_cache_context *context,
		      uint64_t address)
{
	uint64_t key = context->pages_tag | address >> pages->lg2;
	size_t set = mv_cache_set(pages, address);

	for (unsigned int way = 0; way < MV_CACHE_WAYS; way++)
		if (pages->keys[set + way] == key)
			drop_sector(pages, set + way, mv_cache_sector(pages, address));
}

/* A page of stage 1 of which stage 2 made several translations goes whole. SDM 4.10.4.1. */
static void drop_fractured(struct mv_cached_pages *pages, const struct mv_cache_context *context,
			   uint64_t address)
{
	for (size_t slot = 0; slot < mv_cache_slots(pages); slot++) {
		const struct mv_cached_page *page = &pages->pages[slot];
		uint64_t key = pages->keys[slot];
		uint64_t first = (key & MV_CACHE_NUMBER_MASK) << pages->lg2;

		if (mv_cache_tag_of(key) != context->pages_tag || page->guest_lg2 <= pages->lg2)
			continue;
		if (!((first ^ address) >> page->guest_lg2))
			pages->keys[slot] = 0;
	}
}

static void drop_address(struct mv_nested_cache *cache, struct mv_cache_context *context,
			 uint64_t address)
{
	for (unsigned int i = 0; i < MV_CACHE_SIZES; i++) {
		struct mv_cached_pages *pages = &cache->pages[i];

		if (!pages->used)
			continue;
		drop_page(pages, context, address);
		if (pages->fractured)
			drop_fractured(pages, context, address);
	}
	context->tables_tag = mv_cache_new_tag(cache);
}

void mv_nested_cache_flush_address(struct mv_nested_cache *cache, uint64_t gva, uint32_t pcid,
				   bool globals)
{
	mv_cache_spare_tags(cache);
	for (unsigned int i = 0; i < cache->contexts_count; i++) {
		struct mv_cache_context *context = &cache->contexts[i];

		if (is_meant(context, pcid, globals))
			drop_address(cache, context, address_in(context, gva));
	}
}

/* --- by what was found by way of it --------------------------------------------------------- */

/* A closed range of guest-physical addresses. */
struct range {
	uint64_t first;
	uint64_t last;
};

static bool overlaps(const struct range *range, uint64_t first, uint64_t last)
{
	return range->first <= last && first <= range->last;
}

static bool has_source_in(const struct mv_cache_sources *sources, const struct range *range)
{
	for (unsigned int i = 0; i < sources->count; i++) {
		uint64_t first = mv_cache_source(sources, i);

		if (overlaps(range, first, first + MV_BIT(MV_PAGE_BITS) - 1))
			return true;
	}
	return false;
}

static bool table_depends(const struct mv_cached_table *table, const struct range *range)
{
	uint64_t first = table->gpa & ~(MV_BIT(MV_PAGE_BITS) - 1);

	return overlaps(range, first, first + MV_BIT(MV_PAGE_BITS) - 1) ||
	       has_source_in(&table->sources, range);
}

#define ANY_SPACE UINT32_MAX

static void drop_tables(struct mv_cached_table *tables, size_t count, unsigned int space,
			const struct range *ranges, unsigned int ranges_count)
{
	for (size_t slot = 0; slot < count; slot++) {
		struct mv_cached_table *table = &tables[slot];

		if (!table->key || (space != ANY_SPACE && table->sources.space != space))
			continue;
		for (unsigned int i = 0; i < ranges_count; i++)
			if (table_depends(table, &ranges[i]))
				table->key = 0;
	}
}

static void drop_all_tables(struct mv_nested_cache *cache, unsigned int space,
			    const struct range *ranges, unsigned int ranges_count)
{
	drop_tables(cache->tables_1, MV_CACHE_TABLES_1, space, ranges, ranges_count);
	drop_tables(cache->tables_n[0], (MV_LEVEL_MAX - 2) * MV_CACHE_TABLES_N, space, ranges,
		    ranges_count);
}

/* What an entry holds of translations to a range. */
static void drop_targets(struct mv_cached_pages *pages, size_t slot, const struct range *range)
{
	const struct mv_cached_page *page = &pages->pages[slot];

	for (unsigned int sector = 0; sector < 1u << (pages->lg2 - pages->page_lg2); sector++) {
		uint64_t first = page->gpa + ((uint64_t)sector << pages->page_lg2);

		if (overlaps(range, first, first + MV_BIT(pages->page_lg2) - 1))
			drop_sector(pages, slot, sector);
	}
}

/* Translations found by way of a range, and with @targets those to it, too. */
static void drop_pages(struct mv_cached_pages *pages, unsigned int space,
		       const struct range *ranges, unsigned int ranges_count, bool targets)
{
	for (size_t slot = 0; slot < mv_cache_slots(pages); slot++) {
		const struct mv_cache_sources *sources = &pages->sources[slot];

		if (!pages->keys[slot] || (space != ANY_SPACE && sources->space != space))
			continue;
		for (unsigned int i = 0; i < ranges_count; i++) {
			if (has_source_in(sources, &ranges[i]))
				pages->keys[slot] = 0;
			else if (targets)
				drop_targets(pages, slot, &ranges[i]);
		}
	}
}

void mv_nested_cache_flush_table(struct mv_nested_cache *cache, uint64_t table_gpa)
{
	const struct range range = { table_gpa, table_gpa };

	for (unsigned int i = 0; i < MV_CACHE_SIZES; i++)
		if (cache->pages[i].used)
			drop_pages(&cache->pages[i], ANY_SPACE, &range, 1, false);
	drop_all_tables(cache, ANY_SPACE, &range, 1);
}

/* --- by what changed in stage 2 --------------------------------------------------------------- */

static void drop_paths(struct mv_cached_path *paths, size_t count, unsigned int span_lg2,
		       const struct mv_cache_space *space, const struct range *ranges,
		       unsigned int ranges_count)
{
	for (size_t slot = 0; slot < count; slot++) {
		uint64_t first = (paths[slot].key & MV_CACHE_NUMBER_MASK) << span_lg2;

		if (mv_cache_tag_of(paths[slot].key) != space->paths_tag)
			continue;
		for (unsigned int i = 0; i < ranges_count; i++)
			if (overlaps(&ranges[i], first, first + MV_BIT(span_lg2) - 1))
				paths[slot].key = 0;
	}
}

static void drop_ranges(struct mv_nested_cache *cache, const struct mv_cache_space *space,
			const struct range *ranges, unsigned int ranges_count)
{
	unsigned int index = (unsigned int)(space - cache->spaces);

	for (unsigned int i = 0; i < MV_CACHE_SIZES; i++)
		if (cache->pages[i].used)
			drop_pages(&cache->pages[i], index, ranges, ranges_count, true);
	drop_all_tables(cache, index, ranges, ranges_count);
	drop_paths(cache->paths_1, MV_CACHE_PATHS_1, 21, space, ranges, ranges_count);
	drop_paths(cache->paths_2, MV_CACHE_PATHS_2, 30, space, ranges, ranges_count);
}

void mv_nested_cache_flush_gpa(struct mv_nested_cache *cache, const struct mv_nested *nested,
			       uint64_t first_gpa, uint64_t last_gpa)
{
	const struct range range = { first_gpa, last_gpa };

	for (unsigned int i = 0; i < cache->spaces_count; i++)
		if (cache->spaces[i].space == nested->space)
			drop_ranges(cache, &cache->spaces[i], &range, 1);
}

static void drop_space(struct mv_nested_cache *cache, struct mv_cache_space *space)
{
	for (unsigned int i = 0; i < cache->contexts_count; i++) {
		struct mv_cache_context *context = &cache->contexts[i];

		if (context->space_index != (unsigned int)(space - cache->spaces))
			continue;
		context->pages_tag = mv_cache_new_tag(cache);
		context->tables_tag = mv_cache_new_tag(cache);
	}
	space->paths_tag = mv_cache_new_tag(cache);
	cache->overruns++;
}

/* --- the log --------------------------------------------------------------------------------- */

#define LOCKED UINT64_MAX /* as a slot's number: being written */

void mv_nested_log_init(struct mv_nested_log *log)
{
	memset(log, 0, sizeof(*log));
}

/*
 * Take a slot from whoever wrote it last. Not from one who still writes, nor from one who came
 * later: then the change stays unwritten, and readers, who miss its number, drop everything.
 */
static bool take_slot(struct mv_nested_change *slot, uint64_t number)
{
	uint64_t before = __atomic_load_n(&slot->number, __ATOMIC_RELAXED);

	if (before == LOCKED || before > number)
		return false;
	return __atomic_compare_exchange_n(&slot->number, &before, LOCKED, false, __ATOMIC_ACQUIRE,
					   __ATOMIC_RELAXED);
}

void mv_nested_log_add(struct mv_nested_log *log, uint64_t first_gpa, uint64_t last_gpa)
{
	/* Release: whoever sees the new head sees what was done to the tables before. */
	uint64_t number = __atomic_fetch_add(&log->head, 1, __ATOMIC_ACQ_REL);
	struct mv_nested_change *slot = &log->slot[number % MV_NESTED_LOG_SLOTS];

	if (!take_slot(slot, number + 1))
		return;
	/* Release: not before the slot is locked, as far as readers can tell. */
	__atomic_store_n(&slot->first_gpa, first_gpa, __ATOMIC_RELEASE);
	__atomic_store_n(&slot->last_gpa, last_gpa, __ATOMIC_RELEASE);
	__atomic_store_n(&slot->number, number + 1, __ATOMIC_RELEASE);
}

/* Change @number, if it is (still, or already) there. */
static bool read_change(const struct mv_nested_log *log, uint64_t number, struct range *range)
{
	const struct mv_nested_change *slot = &log->slot[number % MV_NESTED_LOG_SLOTS];

	if (__atomic_load_n(&slot->number, __ATOMIC_ACQUIRE) != number + 1)
		return false;
	/* Acquire: the number is looked at again after these. */
	range->first = __atomic_load_n(&slot->first_gpa, __ATOMIC_ACQUIRE);
	range->last = __atomic_load_n(&slot->last_gpa, __ATOMIC_ACQUIRE);
	return __atomic_load_n(&slot->number, __ATOMIC_RELAXED) == number + 1;
}

void mv_cache_follow(struct mv_nested_cache *cache, struct mv_cache_space *space,
		     const struct mv_nested_log *log, uint64_t head)
{
	struct range ranges[MV_NESTED_LOG_SLOTS];
	unsigned int count = 0;

	if (head - space->seen <= MV_NESTED_LOG_SLOTS)
		while (space->seen + count < head &&
		       read_change(log, space->seen + count, &ranges[count]))
			count++;
	if (space->seen + count == head)
		drop_ranges(cache, space, ranges, count);
	else
		drop_space(cache, space);
	space->seen = head;
}

/* --- counts -------------------------------------------------------------------------------- */

static bool is_live_page(const struct mv_nested_cache *cache, uint64_t key)
{
	for (unsigned int i = 0; key && i < cache->contexts_count; i++)
		if (cache->contexts[i].pages_tag == mv_cache_tag_of(key))
			return true;
	return false;
}

static unsigned int count_sectors(unsigned int sectors)
{
	unsigned int count = 0;

	for (; sectors; sectors &= sectors - 1)
		count++;
	return count;
}

static size_t count_pages(const struct mv_nested_cache *cache, const struct mv_cached_pages *pages)
{
	size_t count = 0;

	for (size_t slot = 0; slot < mv_cache_slots(pages); slot++)
		if (is_live_page(cache, pages->keys[slot]))
			count += count_sectors(pages->pages[slot].sectors);
	return count;
}

static bool is_live_table(const struct mv_nested_cache *cache, uint64_t key)
{
	for (unsigned int i = 0; key && i < cache->contexts_count; i++)
		if (cache->contexts[i].tables_tag == mv_cache_tag_of(key))
			return true;
	return false;
}

static bool is_live_path(const struct mv_nested_cache *cache, uint64_t key)
{
	for (unsigned int i = 0; key && i < cache->spaces_count; i++)
		if (cache->spaces[i].paths_tag == mv_cache_tag_of(key))
			return true;
	return false;
}

void mv_nested_cache_get_counts(const struct mv_nested_cache *cache,
				struct mv_nested_cache_counts *counts)
{
	const struct mv_cached_table *tables_n = cache->tables_n[0];
	struct mv_nested_cache_counts made = { .hits = cache->hits,
					       .walks = cache->walks,
					       .evicted = cache->evicted,
					       .overruns = cache->overruns };

	for (unsigned int i = 0; i < MV_CACHE_SIZES; i++)
		made.translations += count_pages(cache, &cache->pages[i]);
	for (size_t slot = 0; slot < MV_CACHE_TABLES_1; slot++)
		made.structures += is_live_table(cache, cache->tables_1[slot].key);
	for (size_t slot = 0; slot < (MV_LEVEL_MAX - 2) * MV_CACHE_TABLES_N; slot++)
		made.structures += is_live_table(cache, tables_n[slot].key);
	for (size_t slot = 0; slot < MV_CACHE_PATHS_1; slot++)
		made.stage2_structures += is_live_path(cache, cache->paths_1[slot].key);
	for (size_t slot = 0; slot < MV_CACHE_PATHS_2; slot++)
		made.stage2_structures += is_live_path(cache, cache->paths_2[slot].key);
	*counts = made;
}
