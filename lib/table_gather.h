/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Table pages: where operations take them from, and the one place where they go back.
 *
 * A gather remembers what an operation has frozen: entries that pointed to tables, and large
 * leaves. It completes them together, so that a flush and a grace period serve many:
 *
 *     freeze -> flush -> grace period -> look at what was there -> unfreeze -> free
 *
 * Only who froze a table frees it. So its number in the mark is its own until it is unfrozen, and
 * a mark that is not found again (somebody removed a table above it) needs no care.
 *
 * What does not belong here: which entries are to go (table_unmap.h, table_resize.h).
 */
#ifndef MV_TABLE_GATHER_H
#define MV_TABLE_GATHER_H

#include "table_engine.h"

/**
 * struct mv_page_cache - table pages that an operation has at hand
 * @head:  linked through their first word
 * @count: how many
 */
struct mv_page_cache {
	void *head;
	size_t count;
};

/*
 * See to it that a cache has so many pages. What was taken before a failure stays in it.
 * Context: not in a read section; may sleep.
 * Return: 0; -ENOSPC at the page limit; -ENOMEM.
 */
int mv_page_cache_fill(struct mv_engine *e, struct mv_page_cache *cache, size_t count);

/* Give back what is left. Context: not in a read section. */
void mv_page_cache_drain(struct mv_engine *e, struct mv_page_cache *cache);

/* Of a cache that has one. */
MV_INLINE void *mv_page_cache_take(struct mv_page_cache *cache)
{
	void **page = cache->head;

	cache->head = *page;
	cache->count--;
	/* The next one is wanted as soon as this one is filled. */
	__builtin_prefetch(cache->head, 1);
	return page;
}

/* A page that nobody else has seen. */
MV_INLINE void mv_page_cache_put(struct mv_page_cache *cache, void *page)
{
	*(void **)page = cache->head;
	cache->head = page;
	cache->count++;
}

#define MV_GATHER_MAX 32

/**
 * struct mv_frozen - one entry, frozen
 * @address: first address it stands for
 * @level:   its level
 * @table:   what it pointed to; NULL for a leaf
 * @mark:    what is there now
 * @entry:   what was there
 */
struct mv_frozen {
	uint64_t address;
	unsigned int level;
	void *table;
	uint64_t mark;
	uint64_t entry;
};

/**
 * struct mv_gather - what one operation removes
 * @engine:       the table
 * @first, @last: what has to be flushed; nothing where @first is above @last
 * @tables:       whether a table is among @frozen
 * @removed:      bytes of leaves removed
 * @gone, @ctx:   told of each, where not NULL
 */
struct mv_gather {
	struct mv_engine *engine;
	uint64_t first, last;
	bool tables;
	unsigned int count;
	struct mv_frozen frozen[MV_GATHER_MAX];
	uint64_t removed;
	mv_leaf_fn gone;
	void *ctx;
};

MV_INLINE void mv_gather_init(struct mv_gather *g, struct mv_engine *e, mv_leaf_fn gone, void *ctx)
{
	g->engine = e;
	g->first = UINT64_MAX;
	g->last = 0;
	g->tables = false;
	g->count = 0;
	g->removed = 0;
	g->gone = gone;
	g->ctx = ctx;
}

MV_INLINE bool mv_gather_full(const struct mv_gather *g)
{
	return g->count == MV_GATHER_MAX;
}

/* A closed range has to be flushed. */
MV_INLINE void mv_gather_range(struct mv_gather *g, uint64_t first, uint64_t last)
{
	if (first < g->first)
		g->first = first;
	if (last > g->last)
		g->last = last;
}

/* Tell of a leaf that was removed. */
void mv_gather_tell(struct mv_gather *g, unsigned int level, uint64_t address, uint64_t entry);

/* A leaf was removed: count it, tell of it, flush it. */
MV_INLINE void mv_gather_leaf(const struct mv_format *f, struct mv_gather *g, unsigned int level,
			      uint64_t address, uint64_t entry)
{
	uint64_t mask = mv_span_mask(f, level);

	mv_gather_range(g, address & ~mask, address | mask);
	g->removed += mask + 1;
	if (g->gone)
		mv_gather_tell(g, level, address, entry);
}

struct mv_place;

/*
 * Freeze an entry: a table's, or a large leaf. False where it has changed; @place->entry is then
 * what it is now.
 * Context: in a read section; the gather is not full.
 */
bool mv_gather_freeze(struct mv_gather *g, uint64_t address, struct mv_place *place);

/*
 * Flush, and where tables are among what was frozen wait for a grace period. Afterwards nobody
 * but the caller reaches these tables. Context: not in a read section; sleeps.
 */
void mv_gather_flush(struct mv_gather *g);

/*
 * Replace a mark by an entry. False where the mark is gone, for somebody removed a table above
 * it; then so is all that it stood for. Context: after mv_gather_flush().
 */
bool mv_gather_settle(struct mv_gather *g, const struct mv_frozen *frozen, uint64_t entry);

/* Free a table and all below it; leaves in it are told of, where @leaves. As above. */
void mv_gather_free(struct mv_gather *g, const struct mv_frozen *frozen, bool leaves);

/* All of it: flush, leave empty entries, free; and begin anew. Context: not in a read section. */
void mv_gather_finish(struct mv_gather *g);

/* Free tables that nobody reaches any more, from @table of a level down. */
void mv_engine_free_tables(struct mv_engine *e, void *table, unsigned int level);

#endif /* MV_TABLE_GATHER_H */
