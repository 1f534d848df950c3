/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stage 2 for cached walks, by way of the tables that are known.
 *
 * SDM vol. 3, 29.4.1: guest-physical paging-structure caches. Freestanding.
 * What does not belong here: stage 1 (nested_cache.c).
 */
#include "nested_cache.h"

/* --- stage 2, by way of known paths ---------------------------------------------------------- */

MV_INLINE void keep_path(struct mv_cached_path *slot, uint64_t key, uint64_t table,
			 const struct mv_stage2_path *path)
{
	slot->key = key;
	slot->table = table;
	slot->all = path->all;
	slot->any = path->any;
}

MV_INLINE bool take_path(const struct mv_cached_path *slot, uint64_t key, uint64_t *table,
			 struct mv_stage2_path *path)
{
	if (slot->key != key)
		return false;
	*table = slot->table;
	path->all = slot->all;
	path->any = slot->any;
	return true;
}

/*
 * From the root to a table of level 2, the last step but two. Return: enum mv_stage2_end;
 * DOWN where @table is that table.
 */
MV_INLINE int descend_to_2(const struct mv_format *f2, const struct mv_stage2 *stage2, uint64_t gpa,
			   uint64_t *table, struct mv_stage2_path *path)
{
	int end = MV_STAGE2_DOWN;

	*table = stage2->root;
	path->all = ~0ULL;
	path->any = 0;
	if (f2->levels > 4)
		end = mv_stage2_step(f2, mv_stage2_read_direct, stage2, gpa, 5, table, path, NULL);
	if (!end)
		end = mv_stage2_step(f2, mv_stage2_read_direct, stage2, gpa, 4, table, path, NULL);
	if (!end)
		end = mv_stage2_step(f2, mv_stage2_read_direct, stage2, gpa, 3, table, path, NULL);
	return end;
}

/*
 * mv_stage2_translate(), by way of paths. Those that lack what the access would have to set
 * are not kept.
 */
MV_INLINE bool find_place(const struct mv_format *f2, struct mv_nested_cache *cache,
			  const struct mv_nested *nested, uint64_t gpa, unsigned int access,
			  struct mv_cache_place *place)
{
	const struct mv_stage2_demand demand = mv_stage2_demand(f2, &nested->stage2, access);
	struct mv_cached_path *one = &cache->paths_1[(gpa >> 21) % MV_CACHE_PATHS_1];
	struct mv_cached_path *two = &cache->paths_2[(gpa >> 30) % MV_CACHE_PATHS_2];
	uint64_t key_1 = cache->space->paths_tag | gpa >> 21;
	uint64_t key_2 = cache->space->paths_tag | gpa >> 30;
	const struct mv_stage2 *stage2 = &nested->stage2;
	const bool keep = mv_access_leaves_traces(access);
	struct mv_stage2_path path;
	uint64_t table, leaves;
	int end = MV_STAGE2_DOWN;

	if (mv_unlikely(gpa >> f2->shift[f2->levels] >> f2->index_lg2[f2->levels]))
		return false;
	if (mv_unlikely(!take_path(one, key_1, &table, &path))) {
		if (!take_path(two, key_2, &table, &path)) {
			end = descend_to_2(f2, stage2, gpa, &table, &path);
			if (!end && keep && (path.all & demand.mark) == demand.mark)
				keep_path(two, key_2, table, &path);
		}
		if (!end)
			end = mv_stage2_step(f2, mv_stage2_read_direct, stage2, gpa, 2, &table,
					     &path, NULL);
		if (!end && keep && (path.all & demand.mark) == demand.mark)
			keep_path(one, key_1, table, &path);
	}
	leaves = table;
	if (!end)
		end = mv_stage2_step(f2, mv_stage2_read_direct, stage2, gpa, 1, &table, &path,
				     NULL);
	if (end != MV_STAGE2_PAGE || !mv_stage2_allows(&demand, &path) ||
	    !mv_stage2_marked(&demand, &path))
		return false;
	place->hpa =
		mv_entry_page(f2, path.level, path.entry) | (gpa & mv_span_mask(f2, path.level));
	place->attr = mv_stage2_attr(f2, stage2, &path);
	place->page_lg2 = f2->shift[path.level];
	place->entry = path.entry;
	place->entry_at = NULL;
	if (path.level == 1)
		place->entry_at =
			(const uint64_t *)(stage2->direct_map + leaves) + mv_index(f2, 1, gpa);
	return true;
}

MV_INLINE bool find_place_any(struct mv_nested_cache *cache, const struct mv_nested *nested,
			      uint64_t gpa, unsigned int access, struct mv_cache_place *place)
{
	if (mv_unlikely(nested->stage2.accessor.read))
		return false;
	switch (nested->stage2.format) {
	case MV_FORMAT_EPT_4L:
		return find_place(&mv_format_ept_4l, cache, nested, gpa, access, place);
	case MV_FORMAT_EPT_5L:
		return find_place(&mv_format_ept_5l, cache, nested, gpa, access, place);
	case MV_FORMAT_NPT_4L:
		return find_place(&mv_format_npt_4l, cache, nested, gpa, access, place);
	default:
		return find_place(&mv_format_npt_5l, cache, nested, gpa, access, place);
	}
}

/* The paths to an address said less than its tables do: they are out of date. */
static void forget_paths(struct mv_nested_cache *cache, uint64_t gpa)
{
	cache->paths_1[(gpa >> 21) % MV_CACHE_PATHS_1].key = 0;
	cache->paths_2[(gpa >> 30) % MV_CACHE_PATHS_2].key = 0;
}

/* Return: 0; MV_NESTED_FAULTED; a negative error. */
int mv_cache_place_of(struct mv_nested_cache *cache, const struct mv_nested *nested, uint64_t gpa,
		      unsigned int access, struct mv_cache_place *place)
{
	struct mv_stage2_walk walk;
	int error;

	if (mv_likely(find_place_any(cache, nested, gpa, access, place)))
		return 0;
	error = mv_stage2_walk(&nested->stage2, gpa, access, &walk);
	if (error)
		return error;
	if (walk.kind != MV_STAGE2_OK)
		return MV_NESTED_FAULTED;
	forget_paths(cache, gpa);
	place->hpa = walk.phys;
	place->attr = walk.attr;
	place->page_lg2 = walk.page_lg2;
	place->entry_at = NULL;
	return 0;
}
