/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All of an address space: its leaves, and stretches of them that are mapped alike; see walk.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "memvirt/walk.h"
#include "memvirt/walk_decode.h"
#include "vm/say.h"

/* What makes neighbours differ. Accessed and dirty do not: they come and go. */
#define ALIKE (MV_ATTR_RIGHTS | MV_ATTR_GLOBAL | MV_ATTR_TYPE_MASK | MV_ATTR_PKEY_MASK)

/* Tables of one level that are read ahead; a guest's loop of tables must not fill memory. */
#define AHEAD_MAX 16384

#define LIMIT_REACHED 1

/**
 * struct map - the map under way
 * @accessor: passes over what cannot be reached, where a single walk would end
 * @now:      the stretch that grows; @growing: there is one
 * @left:     how many may still be printed
 */
struct map {
	struct walk_space *space;
	const struct walk_options *options;
	struct mv_guest_accessor accessor;
	void (*print)(void *ctx, const struct walk_stretch *stretch);
	void *ctx;
	struct walk_stretch now;
	bool growing;
	uint64_t left;
};

static int read_table(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct map *map = ctx;
	const struct mv_guest_accessor *accessor = &map->space->accessor;
	int err;

	map->space->traced = 0;
	err = accessor->read(accessor->ctx, gpa, bytes, entry);
	return err == -ECANCELED ? -EFAULT : err;
}

/* --- reading ahead ------------------------------------------------------------------------ */

/** struct table - a table page and the first address that it maps */
struct table {
	uint64_t gpa;
	uint64_t address;
};

static unsigned int entries_of(enum mv_format_id format, unsigned int level)
{
	return decode_index(format, level, UINT64_MAX) + 1;
}

static unsigned int entry_bytes(enum mv_format_id format)
{
	return format == MV_FORMAT_X86_32 || format == MV_FORMAT_X86_PSE ? 4 : 8;
}

/* The tables that one table points to, appended. Return: how many there are now. */
static size_t add_children(struct map *map, const struct table *table, unsigned int level,
			   uint64_t last, struct table *child, size_t count)
{
	const struct mv_paging *paging = &map->space->paging;
	enum mv_format_id format = paging->format;
	unsigned int bytes = entry_bytes(format);

	for (unsigned int i = 0; i < entries_of(format, level) && count < AHEAD_MAX; i++) {
		uint64_t address = table->address + ((uint64_t)i << decode_shift(format, level));
		uint64_t entry = 0;

		if (address > last ||
		    read_table(map, table->gpa + (uint64_t)i * bytes, bytes, &entry))
			break;
		if (!decode_is_present(&paging->rules, entry) ||
		    decode_is_leaf(&paging->rules, level, entry))
			continue;
		child[count].gpa = decode_target(format, &paging->rules, level, entry);
		child[count++].address = address;
	}
	return count;
}

static void fetch(struct map *map, const struct table *table, size_t count)
{
	uint64_t *gpa = calloc(count + 1, sizeof(*gpa));

	for (size_t i = 0; gpa && i < count; i++)
		gpa[i] = table[i].gpa & ~(uint64_t)(WALK_PAGE - 1);
	if (gpa)
		walk_memory_fetch(map->space->memory, gpa, count);
	free(gpa);
}

/*
 * Level by level, so that memory that has to be asked for comes many pages at a time. It is a
 * hint: what is left out is read when its turn comes. Only a whole space is read so.
 */
static void read_ahead(struct map *map, unsigned int level, uint64_t last)
{
	struct table *now = calloc(AHEAD_MAX, sizeof(*now));
	struct table *next = calloc(AHEAD_MAX, sizeof(*next));
	size_t count = 1;

	if (!now || !next)
		goto out;
	now[0] = (struct table){ map->space->paging.root, 0 };
	for (; count; level--) {
		struct table *other = now;
		size_t children = 0;

		fetch(map, now, count);
		if (level == 1)
			break;
		for (size_t i = 0; i < count; i++)
			children = add_children(map, &now[i], level, last, next, children);
		now = next;
		next = other;
		count = children;
	}
out:
	free(now);
	free(next);
}

static unsigned int levels_of(enum mv_format_id format)
{
	switch (format) {
	case MV_FORMAT_X86_5L:
		return 5;
	case MV_FORMAT_X86_4L:
		return 4;
	case MV_FORMAT_X86_PAE:
		return 3;
	default:
		return 2;
	}
}

/* --- leaves and stretches ----------------------------------------------------------------- */

static int flush(struct map *map)
{
	if (!map->growing)
		return 0;
	if (!map->left)
		return LIMIT_REACHED;
	map->print(map->ctx, &map->now);
	map->growing = false;
	map->left--;
	return 0;
}

static bool continues(const struct walk_stretch *now, const struct mv_mapping *mapping)
{
	return mapping->address == now->last + 1 && mapping->page_lg2 == now->page_lg2 &&
	       (mapping->attr & ALIKE) == now->attr;
}

static uint64_t last_of(const struct mv_mapping *mapping)
{
	return mapping->address + ((1ULL << mapping->page_lg2) - 1);
}

static int add_stretch(struct map *map, const struct mv_mapping *mapping)
{
	int err;

	if (map->growing && continues(&map->now, mapping)) {
		uint64_t follows = map->now.phys + (mapping->address - map->now.first);

		map->now.contiguous &= mapping->phys == follows;
		map->now.last = last_of(mapping);
		return 0;
	}
	err = flush(map);
	if (err)
		return err;
	map->growing = true;
	map->now = (struct walk_stretch){
		.first = mapping->address,
		.last = last_of(mapping),
		.page_lg2 = mapping->page_lg2,
		.attr = mapping->attr & ALIKE,
		.phys = mapping->phys,
		.contiguous = true,
	};
	return 0;
}

/* The library does not hand out the entry: the pages that it is in are at hand. */
static uint64_t entry_of(struct map *map, uint64_t address)
{
	struct mv_walk walk;

	map->space->traced = 0;
	if (mv_guest_walk(&map->space->paging, &map->space->accessor, address, 0, &walk) ||
	    walk.kind != MV_WALK_OK || !walk.steps)
		return 0;
	return walk.step[walk.steps - 1].entry;
}

static int add_leaf(struct map *map, const struct mv_mapping *mapping)
{
	struct walk_stretch leaf = {
		.first = mapping->address,
		.last = last_of(mapping),
		.page_lg2 = mapping->page_lg2,
		.attr = mapping->attr,
		.phys = mapping->phys,
		.contiguous = true,
		.level = mapping->level,
	};

	if (!map->left)
		return LIMIT_REACHED;
	leaf.entry = entry_of(map, mapping->address);
	map->print(map->ctx, &leaf);
	map->left--;
	return 0;
}

static int take_leaf(void *ctx, const struct mv_mapping *mapping)
{
	struct map *map = ctx;

	return map->options->leaves ? add_leaf(map, mapping) : add_stretch(map, mapping);
}

static int finish(struct map *map, int result)
{
	if (result == 0)
		result = flush(map);
	if (result >= 0)
		return result;
	if (result == -EINVAL)
		say("the first address is above the last, or one of them is not canonical");
	else if (result == -EIO)
		say("%s", map->space->memory->failure);
	else
		say("%s", strerror(-result));
	return -1;
}

int walk_map(struct walk_space *space, const struct walk_options *options, uint64_t first,
	     uint64_t last, void (*print)(void *ctx, const struct walk_stretch *stretch), void *ctx)
{
	struct map map = {
		.space = space,
		.options = options,
		.accessor = { .read = read_table },
		.print = print,
		.ctx = ctx,
		.left = options->limit,
	};

	map.accessor.ctx = &map;
	if (!space->paging.enabled) {
		say("paging is off: every address is its own physical one");
		return -1;
	}
	if (space->memory->control && !space->has_second && first == 0 && last == UINT64_MAX)
		read_ahead(&map, levels_of(space->paging.format), last);
	if (levels_of(space->paging.format) < 4 && last > UINT32_MAX && last == UINT64_MAX)
		last = UINT32_MAX;
	return finish(&map, mv_guest_for_each_leaf(&space->paging, &map.accessor, first, last,
						   take_leaf, &map));
}
