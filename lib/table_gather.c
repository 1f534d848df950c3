/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Table pages come and go: caches, and the one place where an unlinked table is freed. See
 * table_gather.h.
 *
 * Freestanding. Written over a format at run time: what costs here is the flush and the grace
 * period, and the memory of the tables that are looked at.
 */
#include <errno.h>

#include "table_gather.h"
#include "table_walk.h"

/* --- pages -------------------------------------------------------------------------------- */

/* Entries have to be able to hold its address, and so has CR3 where the root is PAE's. */
static bool page_fits(const struct mv_engine *e, const void *page)
{
	unsigned int width = e->maxphyaddr;

	if (e->format->entry_lg2 == 2)
		width = 32;
	return mv_engine_phys(e, page) >> width == 0;
}

static bool charge(struct mv_engine *e, size_t count)
{
	size_t pages = __atomic_load_n(&e->pages, __ATOMIC_RELAXED);

	do {
		if (e->page_limit && (count > e->page_limit || pages > e->page_limit - count))
			return false;
	} while (!__atomic_compare_exchange_n(&e->pages, &pages, pages + count, true,
					      __ATOMIC_RELAXED, __ATOMIC_RELAXED));
	return true;
}

static void uncharge(struct mv_engine *e, size_t count)
{
	__atomic_sub_fetch(&e->pages, count, __ATOMIC_RELAXED);
}

static void note_peak(struct mv_engine *e)
{
	size_t pages = __atomic_load_n(&e->pages, __ATOMIC_RELAXED);
	size_t peak = __atomic_load_n(&e->peak_pages, __ATOMIC_RELAXED);

	while (pages > peak && !__atomic_compare_exchange_n(&e->peak_pages, &peak, pages, true,
							    __ATOMIC_RELAXED, __ATOMIC_RELAXED))
		;
}

static void give_back(struct mv_engine *e, void *page)
{
	e->platform.ops->table_free(e->platform.ctx, page);
	uncharge(e, 1);
}

static void *take_page(struct mv_engine *e)
{
	void *page = e->platform.ops->table_alloc(e->platform.ctx, e->node);

	if (!page || page_fits(e, page))
		return page;
	e->platform.ops->table_free(e->platform.ctx, page);
	return NULL;
}

/* In the order in which they come: a platform gives neighbours in ascending order, if it can. */
int mv_page_cache_fill(struct mv_engine *e, struct mv_page_cache *cache, size_t count)
{
	size_t missing = cache->count < count ? count - cache->count : 0;
	void *first = NULL, **tail = &first;

	if (!missing)
		return 0;
	if (!charge(e, missing))
		return -ENOSPC;
	for (; missing; missing--, cache->count++) {
		*tail = take_page(e);
		if (!*tail)
			break;
		tail = *tail;
	}
	*tail = cache->head;
	cache->head = first;
	if (missing) {
		uncharge(e, missing);
		return -ENOMEM;
	}
	note_peak(e);
	return 0;
}

void mv_page_cache_drain(struct mv_engine *e, struct mv_page_cache *cache)
{
	while (cache->count)
		give_back(e, mv_page_cache_take(cache));
}

/* --- what is frozen ----------------------------------------------------------------------- */

void mv_gather_tell(struct mv_gather *g, unsigned int level, uint64_t address, uint64_t entry)
{
	struct mv_mapping mapping;

	mv_leaf_mapping(g->engine->format, &g->engine->rules, level, address, entry, &mapping);
	g->gone(g->ctx, &mapping);
}

bool mv_gather_freeze(struct mv_gather *g, uint64_t address, struct mv_place *place)
{
	struct mv_engine *e = g->engine;
	const struct mv_format *f = e->format;
	struct mv_frozen *frozen = &g->frozen[g->count];
	bool table = mv_place_is_table(f, e, place);

	frozen->mark = mv_mark_make(f, &e->rules, MV_MARK_FROZEN, mv_engine_mark_number(e));
	if (!mv_entry_swap(f, place->table, place->index, &place->entry, frozen->mark))
		return false;
	frozen->address = address & ~mv_span_mask(f, place->level);
	frozen->level = place->level;
	frozen->entry = place->entry;
	frozen->table = table ? mv_engine_page(e, mv_entry_table(f, place->entry)) : NULL;
	g->tables |= table;
	g->count++;
	mv_gather_range(g, frozen->address, frozen->address | mv_span_mask(f, place->level));
	return true;
}

void mv_gather_flush(struct mv_gather *g)
{
	const struct mv_platform *platform = &g->engine->platform;

	if (g->first <= g->last)
		mv_engine_flush(g->engine, g->first, g->last);
	if (g->tables)
		platform->ops->wait_readers(platform->ctx);
}

bool mv_gather_settle(struct mv_gather *g, const struct mv_frozen *frozen, uint64_t entry)
{
	struct mv_engine *e = g->engine;
	const struct mv_format *f = e->format;
	struct mv_place place;
	bool settled = false;

	/* From the root again: the table that the mark was in may be gone. */
	mv_engine_enter(e);
	if (mv_descend_to(f, e, frozen->address, frozen->level, &place) &&
	    place.entry == frozen->mark)
		settled = mv_entry_swap(f, place.table, place.index, &place.entry, entry);
	mv_engine_leave(e);
	return settled;
}

/* How many leaves a table of the lowest level has. */
static unsigned int count_leaves(const struct mv_engine *e, const void *table)
{
	const struct mv_format *f = e->format;
	unsigned int leaves = 0;

	if (f->entry_lg2 == 3)
		for (unsigned int i = 0; i < MV_TABLE_BYTES / 8; i++)
			leaves += mv_entry_present(&e->rules, ((const uint64_t *)table)[i]);
	else
		for (unsigned int i = 0; i < MV_TABLE_BYTES / 4; i++)
			leaves += mv_entry_present(&e->rules, ((const uint32_t *)table)[i]);
	return leaves;
}

static void free_below(struct mv_engine *e, struct mv_gather *g, void *table, unsigned int level,
		       uint64_t address);

/* What the entries of a table say, before it goes. */
static void free_entries(struct mv_engine *e, struct mv_gather *g, void *table, unsigned int level,
			 uint64_t address)
{
	const struct mv_format *f = e->format;

	for (unsigned int i = 0; i < mv_entries(f, level); i++) {
		uint64_t entry = mv_entry_load(f, table, i);
		uint64_t at = address + ((uint64_t)i << f->shift[level]);

		if (!mv_entry_present(&e->rules, entry))
			continue;
		if (mv_entry_is_table(f, &e->rules, level, entry))
			free_below(e, g, mv_engine_page(e, mv_entry_table(f, entry)), level - 1,
				   at);
		else if (g)
			mv_gather_leaf(f, g, level, at, entry);
	}
}

/*
 * Nobody reaches the table any more. @g: where its leaves are counted, and told of; NULL where
 * nobody asks.
 */
static void free_below(struct mv_engine *e, struct mv_gather *g, void *table, unsigned int level,
		       uint64_t address)
{
	if (level > 1 || (g && g->gone))
		free_entries(e, g, table, level, address);
	else if (g)
		g->removed += (uint64_t)count_leaves(e, table) << e->format->shift[1];
	give_back(e, table);
}

void mv_gather_free(struct mv_gather *g, const struct mv_frozen *frozen, bool leaves)
{
	free_below(g->engine, leaves ? g : NULL, frozen->table, frozen->level - 1, frozen->address);
}

void mv_gather_finish(struct mv_gather *g)
{
	mv_gather_flush(g);
	for (unsigned int i = 0; i < g->count; i++) {
		const struct mv_frozen *frozen = &g->frozen[i];

		mv_gather_settle(g, frozen, g->engine->rules.empty);
		if (frozen->table)
			mv_gather_free(g, frozen, true);
		else
			mv_gather_leaf(g->engine->format, g, frozen->level, frozen->address,
				       frozen->entry);
	}
	g->count = 0;
	g->tables = false;
	g->first = UINT64_MAX;
	g->last = 0;
}

void mv_engine_free_tables(struct mv_engine *e, void *table, unsigned int level)
{
	free_below(e, NULL, table, level, 0);
}
