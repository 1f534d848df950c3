/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cached translations: found, checked, kept. In a header because it is the inner part of
 * nested_cache.c, and nobody else's.
 *
 * SDM vol. 3, 4.10.2 and 29.4.1: combined mappings.
 * What does not belong here: tables and paths (nested_cache.c, nested_place.c).
 */
#ifndef MV_EPT_NESTED_PAGE_H
#define MV_EPT_NESTED_PAGE_H

#include "nested_cache.h"

/* --- translations ------------------------------------------------------------------------- */

#define NO_SLOT SIZE_MAX

/* @page_lg2 and @lg2 are those of @pages, as constants. */
MV_INLINE size_t mv_cache_find_page(const struct mv_nested_cache *cache,
				    const struct mv_cached_pages *pages, unsigned int page_lg2,
				    unsigned int lg2, uint64_t address)
{
	uint64_t number = address >> lg2;
	uint64_t own = cache->context->pages_tag | number;
	uint64_t global = cache->globals->pages_tag | number;
	unsigned int sector = (address >> page_lg2) % (1u << (lg2 - page_lg2));
	size_t set = (number & pages->sets_mask) * MV_CACHE_WAYS, last = pages->last_slot;
	uint64_t last_key = pages->keys[last];

	/* Whoever goes through memory comes back to the same entry; its set is not the question. */
	if (mv_likely((last_key == own || last_key == global) &&
		      (pages->pages[last].sectors >> sector & 1)))
		return last;
	for (unsigned int way = 0; way < MV_CACHE_WAYS; way++) {
		uint64_t key = pages->keys[set + way];

		if ((key == own || key == global) &&
		    (pages->pages[set + way].sectors >> sector & 1))
			return set + way;
	}
	return NO_SLOT;
}

/* Whether stage 2 grants the access by what was found once, and has nothing to set. */
static bool stage2_grants(const struct mv_nested *nested, uint32_t attr, unsigned int access)
{
	const struct mv_format *f2 = mv_formats[nested->stage2.format];
	uint32_t needed = 0;

	if (!(access & MV_ACCESS_KIND))
		return true;
	if ((access & MV_ACCESS_READ) || !mv_stage2_is_ept(f2))
		needed |= MV_ATTR_READ;
	if (access & MV_ACCESS_WRITE)
		needed |= MV_ATTR_WRITE |
			  (mv_stage2_marks(f2, &nested->stage2, access) ? MV_ATTR_DIRTY : 0);
	if (access & MV_ACCESS_FETCH) {
		bool user = f2->exec_user && (nested->stage2.features & MV_FEATURE_MODE_EXEC) &&
			    (access & MV_ACCESS_USER);

		needed |= user ? MV_ATTR_EXEC_USER : MV_ATTR_EXEC;
	}
	return (attr & needed) == needed;
}

/* Whether both stages grant an access by a cached translation, as the registers are now. */
static bool grants(const struct mv_format *f, const struct mv_nested *nested,
		   const struct mv_cached_page *page, unsigned int access)
{
	uint64_t key = MV_ATTR_PKEY_OF(page->guest_attr);
	uint64_t leaf = page->leaf | (f->pkey_low ? key << f->pkey_low : 0);
	struct mv_walk_state state = {
		.granted = page->granted,
		.above = page->above,
		.denied = page->guest_attr & MV_ATTR_EXEC ? 0 : f->no_exec,
	};

	if ((access & MV_ACCESS_KIND) && mv_walk_refused(f, &nested->paging, &state, leaf, access))
		return false;
	if (mv_walk_key_refuses(f, &nested->paging, &state, leaf, access))
		return false;
	if (mv_walk_must_mark(f, &state, leaf, mv_nested_guest_access(nested, access)))
		return false;
	return stage2_grants(nested, page->stage2_attr,
			     mv_nested_final_access(access, page->guest_attr));
}

/* The same for the first time since the registers changed. What a debugger may is not noted. */
static __attribute__((noinline)) bool check(const struct mv_nested_cache *cache,
					    const struct mv_nested *nested,
					    struct mv_cached_page *page, unsigned int access)
{
	if (page->epoch != cache->epoch) {
		page->epoch = cache->epoch;
		page->checked = 0;
		page->type = (uint8_t)mv_nested_type(mv_formats[nested->stage2.format], nested,
						     page->guest_attr, page->stage2_attr, page->hpa,
						     page->page_lg2);
	}
	if (!grants(mv_formats[nested->paging.format], nested, page, access))
		return false;
	if (!(access & (MV_ACCESS_NO_UPDATE | MV_ACCESS_SHADOW_STACK)))
		page->checked |= MV_BIT(access & MV_CACHE_ACCESS);
	return true;
}

/*
 * The access by a cached translation, if that grants it now. @glance: if it is known to, by a
 * check that was made before; nothing is called then.
 */
MV_INLINE bool mv_cache_use_page(const struct mv_nested_cache *cache,
				 const struct mv_nested *nested, bool glance,
				 struct mv_cached_page *page, uint64_t within, unsigned int access,
				 struct mv_nested_walk *walk)
{
	bool checked = page->epoch == cache->epoch && !(access & MV_ACCESS_SHADOW_STACK) &&
		       (page->checked >> (access & MV_CACHE_ACCESS) & 1);

	if (mv_unlikely(!checked) && (glance || !check(cache, nested, page, access)))
		return false;
	mv_nested_give_attr(page->gpa + within, page->hpa + within, page->page_lg2, page->attr,
			    page->type, walk);
	return true;
}

/* What a look-up comes to. */
enum mv_cache_answer {
	MV_CACHE_ABSENT,
	MV_CACHE_REFUSED, /* there is one, and it does not grant the access */
	MV_CACHE_FOUND,
};

/* The same. Pages of other sizes are rare in a guest that has none here. */
MV_INLINE enum mv_cache_answer look_up_size(struct mv_nested_cache *cache,
					    const struct mv_nested *nested, bool glance,
					    struct mv_cached_pages *pages, unsigned int page_lg2,
					    unsigned int lg2, uint64_t address, unsigned int access,
					    struct mv_nested_walk *walk)
{
	size_t slot;

	if (!pages->used)
		return MV_CACHE_ABSENT;
	slot = mv_cache_find_page(cache, pages, page_lg2, lg2, address);
	if (slot == NO_SLOT)
		return MV_CACHE_ABSENT;
	if (mv_cache_use_page(cache, nested, glance, &pages->pages[slot],
			      address & (MV_BIT(lg2) - 1), access, walk))
		return MV_CACHE_FOUND;
	return MV_CACHE_REFUSED;
}

MV_INLINE enum mv_cache_answer mv_cache_look_up(struct mv_nested_cache *cache,
						const struct mv_nested *nested, bool glance,
						uint64_t address, unsigned int access,
						struct mv_nested_walk *walk)
{
	enum mv_cache_answer small, large, huge;

	small = look_up_size(cache, nested, glance, &cache->pages[0], 12, 12 + MV_CACHE_SECTORS_LG2,
			     address, access, walk);
	if (mv_likely(small == MV_CACHE_FOUND))
		return small;
	large = look_up_size(cache, nested, glance, &cache->pages[1], 21, 21, address, access,
			     walk);
	if (large == MV_CACHE_FOUND)
		return large;
	huge = look_up_size(cache, nested, glance, &cache->pages[2], 30, 30, address, access, walk);
	if (huge == MV_CACHE_FOUND)
		return huge;
	return small | large | huge; /* what refused, if any did */
}

/* --- what is kept ----------------------------------------------------------------------------- */

/* Where a walk came to, for those who keep it. */
struct mv_cache_found {
	const struct mv_walk_state *state;
	const struct mv_walk *guest;
	const struct mv_cache_place *place;
	const struct mv_nested_walk *walk;
};

/* Of eight neighbours at @line, those that are @entry but for an address that goes on with them. */
MV_INLINE unsigned int neighbours_64(const uint64_t *line, unsigned int sector, uint64_t entry)
{
	uint64_t expected = entry - ((uint64_t)sector << MV_PAGE_BITS);
	unsigned int sectors = 0;

	/* Who goes through memory page by page wants the next line next. */
	__builtin_prefetch(line + 2 * MV_CACHE_SECTORS);
	for (unsigned int i = 0; i < MV_CACHE_SECTORS; i++, expected += MV_BIT(MV_PAGE_BITS))
		if (__atomic_load_n(&line[i], __ATOMIC_RELAXED) == expected)
			sectors |= 1u << i;
	return sectors;
}

MV_INLINE unsigned int neighbours_32(const uint32_t *line, unsigned int sector, uint64_t entry)
{
	uint64_t expected = entry - ((uint64_t)sector << MV_PAGE_BITS);
	unsigned int sectors = 0;

	for (unsigned int i = 0; i < MV_CACHE_SECTORS; i++, expected += MV_BIT(MV_PAGE_BITS))
		if (__atomic_load_n(&line[i], __ATOMIC_RELAXED) == (uint32_t)expected)
			sectors |= 1u << i;
	return sectors;
}

/* Stage 1's part: neighbours in the same line of its table, or of the same larger page. */
MV_INLINE unsigned int guest_neighbours(const struct mv_format *f, const struct mv_nested *nested,
					const struct mv_walk *guest, uint64_t leaf_hpa,
					unsigned int sector)
{
	uint64_t line = leaf_hpa - ((uint64_t)sector << f->entry_lg2);
	uint64_t leaf = guest->step[guest->steps - 1].entry;
	const void *at = (const void *)(uintptr_t)(nested->direct_map + line);

	if (guest->level > 1)
		return (1u << MV_CACHE_SECTORS) - 1;
	if (nested->frames.read)
		return 1u << sector;
	return f->entry_lg2 == 2 ? neighbours_32(at, sector, leaf)
				 : neighbours_64(at, sector, leaf);
}

/* Stage 2's, provided that guest-physical addresses are as far within a line as the guest's. */
MV_INLINE unsigned int stage2_neighbours(const struct mv_cache_place *place, uint64_t gpa,
					 unsigned int sector)
{
	if ((gpa >> MV_PAGE_BITS) % MV_CACHE_SECTORS != sector)
		return 1u << sector;
	if (place->page_lg2 > MV_PAGE_BITS)
		return (1u << MV_CACHE_SECTORS) - 1;
	if (!place->entry_at)
		return 1u << sector;
	return neighbours_64(place->entry_at - sector, sector, place->entry);
}

/* The sectors that one entry can hold together with the page that was found. */
MV_INLINE unsigned int sectors_of(const struct mv_format *f, const struct mv_cache_route *route,
				  const struct mv_cached_pages *pages,
				  const struct mv_cache_found *found)
{
	const struct mv_nested *nested = route->reading.nested;
	unsigned int sector = mv_cache_sector(pages, found->state->address);
	uint64_t leaf_hpa = route->reading.hpa[found->guest->steps - 1];

	/* MTRRs may tell neighbours apart. */
	if (pages->lg2 == pages->page_lg2 || nested->mtrr_type)
		return 1u << sector;
	return guest_neighbours(f, nested, found->guest, leaf_hpa, sector) &
	       stage2_neighbours(found->place, found->guest->gpa, sector);
}

/* No two entries may hold one page: what is kept now takes the place of what was. */
MV_INLINE void drop_sectors(const struct mv_nested_cache *cache, struct mv_cached_pages *pages,
			    uint64_t address, unsigned int sectors)
{
	uint64_t own = cache->context->pages_tag | address >> pages->lg2;
	uint64_t global = cache->globals->pages_tag | address >> pages->lg2;
	size_t set = mv_cache_set(pages, address);

	for (unsigned int way = 0; way < MV_CACHE_WAYS; way++) {
		struct mv_cached_page *page = &pages->pages[set + way];
		uint64_t key = pages->keys[set + way];

		if (key != own && key != global)
			continue;
		page->sectors &= (uint8_t)~sectors;
		if (!page->sectors)
			pages->keys[set + way] = 0;
	}
}

/* The same of other sizes, where a page has changed its size. */
MV_INLINE void drop_other_sizes(const struct mv_nested_cache *cache, struct mv_cached_pages *all,
				const struct mv_cached_pages *kept, uint64_t address)
{
	for (unsigned int i = 0; i < MV_CACHE_SIZES; i++)
		if (&all[i] != kept && all[i].used)
			drop_sectors(cache, &all[i], address,
				     1u << mv_cache_sector(&all[i], address));
}

/*
 * An empty place in a set, or else the one whose turn it is. Return: NO_SLOT where the set has
 * an entry for neighbours already.
 */
MV_INLINE size_t make_room(struct mv_nested_cache *cache, struct mv_cached_pages *pages,
			   uint64_t address)
{
	uint64_t own = cache->context->pages_tag | address >> pages->lg2;
	uint64_t global = cache->globals->pages_tag | address >> pages->lg2;
	size_t set = mv_cache_set(pages, address), slot = NO_SLOT;

	for (unsigned int way = 0; way < MV_CACHE_WAYS; way++) {
		uint64_t key = pages->keys[set + way];

		if (key == own || key == global)
			return NO_SLOT;
		if (!key && slot == NO_SLOT)
			slot = set + way;
	}
	if (slot != NO_SLOT)
		return slot;
	cache->evicted++;
	return set + pages->clock++ % MV_CACHE_WAYS;
}

/* The same where neighbours are there: some of them may have to go, the others stay. */
static __attribute__((noinline)) size_t make_room_beside(struct mv_nested_cache *cache,
							 struct mv_cached_pages *pages,
							 uint64_t address, unsigned int sectors)
{
	size_t set = mv_cache_set(pages, address);

	drop_sectors(cache, pages, address, sectors);
	for (unsigned int way = 0; way < MV_CACHE_WAYS; way++)
		if (!pages->keys[set + way])
			return set + way;
	cache->evicted++;
	return set + pages->clock++ % MV_CACHE_WAYS;
}

/* Remember what made a page what it is. */
MV_INLINE void note_last(const struct mv_format *f, struct mv_nested_cache *cache,
			 const struct mv_cache_route *route, const struct mv_cache_found *found,
			 unsigned int access, uint64_t pages_tag, const struct mv_cached_page *page)
{
	const struct mv_nested *nested = route->reading.nested;
	const struct mv_walk *guest = found->guest;
	const struct mv_cached_path *path = &cache->paths_1[(guest->gpa >> 21) % MV_CACHE_PATHS_1];
	struct mv_cache_last *last = &cache->last;

	last->table_key = 0;
	if (f->entry_lg2 != 3 || guest->level > 1 || !found->place->entry_at)
		return;
	if (nested->frames.read || nested->mtrr_type || (access & MV_ACCESS_SHADOW_STACK) ||
	    path->key != (cache->space->paths_tag | guest->gpa >> 21))
		return;
	last->table_key = mv_cache_table_key(f, cache->context, 1, found->state->address);
	last->access = access;
	last->epoch = cache->epoch;
	last->leaf_bits = guest->step[guest->steps - 1].entry & ~f->frame;
	last->all = path->all;
	last->any = path->any;
	last->stage2_bits = found->place->entry & ~f->frame;
	last->pages_tag = pages_tag;
	last->page = *page;
	last->sources = route->sources;
}

MV_INLINE void mv_cache_keep_page(const struct mv_format *f, struct mv_nested_cache *cache,
				  const struct mv_cache_route *route,
				  const struct mv_cache_found *found, unsigned int access,
				  enum mv_cache_answer answer)
{
	unsigned int page_lg2 = found->walk->page_lg2;
	struct mv_cached_pages *pages = &cache->pages[page_lg2 >= 30 ? 2 : page_lg2 >= 21 ? 1 : 0];
	bool is_global = found->guest->attr & MV_ATTR_GLOBAL;
	uint64_t address = found->state->address, within = address & (MV_BIT(pages->lg2) - 1);
	uint64_t pages_tag = (is_global ? cache->globals : cache->context)->pages_tag;
	unsigned int sectors = sectors_of(f, route, pages, found);
	struct mv_cached_page *page;
	size_t slot = make_room(cache, pages, address);

	if (mv_unlikely(answer == MV_CACHE_REFUSED))
		drop_other_sizes(cache, cache->pages, pages, address);
	if (mv_unlikely(slot == NO_SLOT))
		slot = make_room_beside(cache, pages, address, sectors);
	page = &pages->pages[slot];
	page->hpa = found->walk->hpa - within;
	page->gpa = found->walk->gpa - within;
	/* The walk has just shown it. */
	page->checked = access & MV_ACCESS_SHADOW_STACK ? 0 : MV_BIT(access & MV_CACHE_ACCESS);
	page->stage2_attr = found->place->attr;
	page->guest_attr = found->guest->attr;
	page->attr = found->walk->attr;
	page->epoch = cache->epoch;
	page->granted = (uint8_t)found->state->granted;
	page->above = (uint8_t)found->state->above;
	page->leaf = (uint8_t)found->guest->step[found->guest->steps - 1].entry;
	page->type = (uint8_t)found->walk->type;
	page->guest_lg2 = (uint8_t)found->guest->page_lg2;
	page->page_lg2 = (uint8_t)page_lg2;
	page->sectors = (uint8_t)sectors;
	pages->sources[slot] = route->sources;
	pages->keys[slot] = pages_tag | address >> pages->lg2;
	pages->used = true;
	pages->fractured |= found->guest->page_lg2 > pages->page_lg2;
	pages->last_slot = slot;
	note_last(f, cache, route, found, access, pages_tag, page);
}

/* --- the same again --------------------------------------------------------------------------- */

/*
 * The leaves of an address, where all above them is as it was for the page kept last. Return:
 * whether they are like that page's, but for the addresses: *leaf and *entry set.
 */
MV_INLINE bool leaves_again(const struct mv_nested_cache *cache, const struct mv_nested *nested,
			    const uint64_t *leaf_at, const uint64_t **entry_at, uint64_t *leaf,
			    uint64_t *entry)
{
	const struct mv_format *f = &mv_format_x86_4l;
	const struct mv_cache_last *last = &cache->last;
	const struct mv_cached_path *path;
	uint64_t gpa;

	*leaf = __atomic_load_n(leaf_at, __ATOMIC_ACQUIRE);
	if ((*leaf & ~f->frame) != last->leaf_bits ||
	    (*leaf & nested->paging.rules.reserved_leaf[1]))
		return false;
	gpa = *leaf & f->frame;
	path = &cache->paths_1[(gpa >> 21) % MV_CACHE_PATHS_1];
	if (path->key != (cache->space->paths_tag | gpa >> 21) || path->all != last->all ||
	    path->any != last->any)
		return false;
	*entry_at = (const uint64_t *)(uintptr_t)(nested->stage2.direct_map + path->table) +
		    (gpa >> MV_PAGE_BITS & 511);
	*entry = __atomic_load_n(*entry_at, __ATOMIC_RELAXED);
	return (*entry & ~f->frame) == last->stage2_bits &&
	       !(*entry & nested->stage2.rules.reserved_leaf[1]);
}

/*
 * Who goes through memory page by page meets the same rights again and again: the whole of
 * what was worked out for the last page holds for this one. Nothing cached answered before.
 *
 * Formats with entries of 8 bytes have their leaf tables in common; of others nothing is noted.
 */
MV_INLINE bool mv_cache_again(struct mv_nested_cache *cache, const struct mv_nested *nested,
			      uint64_t address, unsigned int access, struct mv_nested_walk *walk)
{
	const struct mv_format *f = &mv_format_x86_4l;
	const struct mv_cache_last *last = &cache->last;
	struct mv_cached_pages *pages = &cache->pages[0];
	const struct mv_cached_table *table = mv_cache_table_slot(f, cache, 1, address);
	uint64_t key = mv_cache_table_key(f, cache->context, 1, address);
	unsigned int sector = mv_cache_sector(pages, address), sectors = 1u << sector;
	const uint64_t *leaf_at, *entry_at;
	uint64_t leaf, entry, within;
	struct mv_cached_page *page;
	size_t slot;

	if (last->table_key != key || table->key != key || last->access != access ||
	    last->epoch != cache->epoch)
		return false;
	leaf_at = (const uint64_t *)(uintptr_t)(nested->direct_map + table->hpa) +
		  mv_index(f, 1, address);
	if (!leaves_again(cache, nested, leaf_at, &entry_at, &leaf, &entry))
		return false;
	slot = make_room(cache, pages, address);
	if (slot == NO_SLOT)
		return false;
	if ((leaf >> MV_PAGE_BITS) % MV_CACHE_SECTORS == sector)
		sectors = neighbours_64(leaf_at - sector, sector, leaf) &
			  neighbours_64(entry_at - sector, sector, entry);
	within = address & (MV_BIT(pages->lg2) - 1);
	page = &pages->pages[slot];
	*page = last->page;
	page->hpa = (entry & f->frame) + (address & (MV_BIT(MV_PAGE_BITS) - 1)) - within;
	page->gpa = (leaf & f->frame) + (address & (MV_BIT(MV_PAGE_BITS) - 1)) - within;
	page->sectors = (uint8_t)sectors;
	pages->sources[slot] = last->sources;
	pages->keys[slot] = last->pages_tag | address >> pages->lg2;
	pages->last_slot = slot;
	mv_nested_give_attr(page->gpa + within, page->hpa + within, page->page_lg2, page->attr,
			    page->type, walk);
	return true;
}

#endif /* MV_EPT_NESTED_PAGE_H */
