/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Whether a table is what the engine left it to be: every invariant, entry by entry. For tests
 * and debug builds.
 *
 * Freestanding, over a format at run time. What does not belong here: checks on a walk.
 */
#include <string.h>

#include "table_gather.h"
#include "table_walk.h"

/**
 * struct checker - a check under way
 * @seen:     table pages reached: a hash table, open addressing; NULL where there is no memory
 * @capacity: of @seen, a power of two
 * @pages:    reached
 */
struct checker {
	const struct mv_engine *engine;
	bool empty_tables;
	uint64_t *seen;
	size_t capacity;
	size_t pages;
	struct mv_table_defect *defect;
};

static bool found(struct checker *c, enum mv_table_defect_kind kind, uint64_t address,
		  unsigned int level, uint64_t entry)
{
	*c->defect = (struct mv_table_defect){ kind, address, level, entry };
	return false;
}

/* Room for twice the pages that are accounted for; more than those are a defect anyway. */
static void seen_init(struct checker *c)
{
	const struct mv_platform *platform = &c->engine->platform;

	for (c->capacity = 64; c->capacity < 2 * c->engine->pages;)
		c->capacity *= 2;
	c->seen = platform->ops->alloc(platform->ctx, c->capacity * sizeof(*c->seen), -1);
}

static void seen_finish(struct checker *c)
{
	const struct mv_platform *platform = &c->engine->platform;

	platform->ops->free(platform->ctx, c->seen, c->capacity * sizeof(*c->seen));
}

/* False where a page was reached before. Its address plus one stands for it, for 0 is free. */
static bool seen_add(struct checker *c, uint64_t page)
{
	size_t at = (size_t)((page >> 12) * 0x9e3779b97f4a7c15ULL >> 20) & (c->capacity - 1);

	if (!c->seen)
		return true;
	while (c->seen[at] && c->seen[at] != page + 1)
		at = (at + 1) & (c->capacity - 1);
	if (c->seen[at])
		return false;
	c->seen[at] = page + 1;
	return true;
}

static bool check_absent(struct checker *c, uint64_t address, unsigned int level, uint64_t entry)
{
	const struct mv_rules *rules = &c->engine->rules;
	const struct mv_format *f = c->engine->format;

	if (entry == rules->empty)
		return true;
	for (enum mv_mark kind = MV_MARK_FROZEN; kind <= MV_MARK_SEALED; kind++)
		if (entry == mv_mark_make(f, rules, kind, mv_mark_number(f, entry)))
			return true;
	return found(c, MV_DEFECT_NOT_PRESENT, address, level, entry);
}

/* The addresses that the processor, or the format, does not have. */
static uint64_t beyond_width(const struct mv_engine *e)
{
	if (e->format->entry_lg2 == 2 || e->maxphyaddr >= 52)
		return 0;
	return MV_BITS(51, e->maxphyaddr);
}

static bool check_present(struct checker *c, uint64_t address, unsigned int level, uint64_t entry)
{
	const struct mv_engine *e = c->engine;
	bool leaf = mv_entry_is_leaf(e->format, &e->rules, level, entry);

	if (entry & beyond_width(e))
		return found(c, MV_DEFECT_ADDRESS, address, level, entry);
	if (mv_entry_reserved(&e->rules, level, leaf, entry) ||
	    (leaf && !mv_engine_attr_valid(e, mv_leaf_attr(e->format, &e->rules, level, entry))))
		return found(c, MV_DEFECT_RESERVED, address, level, entry);
	return true;
}

static bool check_table(struct checker *c, uint64_t page, uint64_t address, unsigned int level,
			uint64_t parent);

static bool check_entry(struct checker *c, uint64_t address, unsigned int level, uint64_t entry)
{
	const struct mv_engine *e = c->engine;

	if (!mv_entry_present(&e->rules, entry))
		return check_absent(c, address, level, entry);
	if (!check_present(c, address, level, entry))
		return false;
	if (!mv_entry_is_table(e->format, &e->rules, level, entry))
		return true;
	return check_table(c, mv_entry_table(e->format, entry), address, level - 1, entry);
}

/* Says of a defect of the table itself that the entry which points to it has it. */
static bool check_table(struct checker *c, uint64_t page, uint64_t address, unsigned int level,
			uint64_t parent)
{
	const struct mv_engine *e = c->engine;
	const struct mv_format *f = e->format;
	bool empty = true;

	if (!seen_add(c, page))
		return found(c, MV_DEFECT_LOOP, address, level + 1, parent);
	if (++c->pages > e->pages)
		return found(c, MV_DEFECT_COUNT, address, level + 1, parent);
	for (unsigned int i = 0; i < mv_entries(f, level); i++) {
		uint64_t entry = mv_entry_load(f, mv_engine_page(e, page), i);

		empty &= !mv_entry_present(&e->rules, entry);
		if (!check_entry(c, address + ((uint64_t)i << f->shift[level]), level, entry))
			return false;
	}
	if (empty && level < f->levels && !c->empty_tables)
		return found(c, MV_DEFECT_EMPTY_TABLE, address, level + 1, parent);
	return true;
}

bool mv_engine_check(const struct mv_engine *e, bool empty_tables, struct mv_table_defect *defect)
{
	struct checker c = { .engine = e, .empty_tables = empty_tables, .defect = defect };
	bool fine;

	*defect = (struct mv_table_defect){ .kind = MV_DEFECT_NONE };
	seen_init(&c);
	fine = check_table(&c, e->root, 0, e->format->levels, 0);
	if (fine && c.pages != e->pages)
		fine = found(&c, MV_DEFECT_COUNT, 0, e->format->levels, 0);
	seen_finish(&c);
	return fine;
}
