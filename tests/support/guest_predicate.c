/* SPDX-License-Identifier: BSD-2-Clause */
/* See guest_predicate.h. */
#include <string.h>

#include "support/guest_predicate.h"

#define BIT(n) (1ULL << (n))

static bool is_long(const struct guest_world *world)
{
	return world->mode == GUEST_4L || world->mode == GUEST_5L;
}

static bool is_32(const struct guest_world *world)
{
	return world->mode == GUEST_32 || world->mode == GUEST_PSE;
}

/* --- what a mode has ------------------------------------------------------------------------ */

static unsigned int page_lg2(const struct guest_world *world, unsigned int level)
{
	static const unsigned int wide[] = { 0, 12, 21, 30 };

	if (is_32(world))
		return level == 2 ? 22 : 12;
	return wide[level];
}

static unsigned int page_levels(const struct guest_world *world)
{
	unsigned int levels = 1 << 1;

	if (world->mode != GUEST_32)
		levels |= 1 << 2;
	if (is_long(world) && world->pages_1g)
		levels |= 1 << 3;
	return levels;
}

/* SDM tables 4-4 to 4-6: the 32-bit formats. Bit 21 of a 4 MiB page, and what PSE-36 lacks. */
static bool is_reserved_32(const struct guest_world *world, bool page, unsigned int level,
			   unsigned int bit)
{
	unsigned int address_bits = world->width < 40 ? world->width : 40;

	if (!page || level == 1)
		return false;
	if (bit == 21)
		return true;
	if (bit < 13 || bit > 20)
		return false;
	return !world->pse36 || bit - 13 + 32 >= address_bits;
}

/* SDM tables 4-8 to 4-11 and 4-15 to 4-20. */
static bool is_reserved_wide(const struct guest_world *world, bool page, unsigned int level,
			     unsigned int bit)
{
	bool pdpte = world->mode == GUEST_PAE && level == 3;

	if (bit == 63)
		return pdpte || !world->nxe;
	if (bit >= 52)
		return world->mode == GUEST_PAE;
	if (bit >= world->width)
		return true;
	if (pdpte)
		return bit == 1 || bit == 2 || (bit >= 5 && bit <= 8);
	if (page && level == 2)
		return bit >= 13 && bit <= 20;
	if (page && level == 3)
		return bit >= 13 && bit <= 29;
	if (bit == 7)
		return level >= 4 || (level == 3 && !world->pages_1g);
	return bit == 8 && world->amd && level >= 4;
}

void guest_world_prepare(struct guest_world *world)
{
	static const unsigned int levels[GUEST_MODES] = { 2, 2, 3, 4, 5 };

	world->levels = levels[world->mode];
	world->page_levels = page_levels(world);
	memset(world->reserved, 0, sizeof(world->reserved));
	for (unsigned int level = 1; level <= world->levels; level++)
		for (unsigned int bit = 0; bit < (is_32(world) ? 32 : 64); bit++)
			for (unsigned int page = 0; page < 2; page++)
				if (is_32(world) ? is_reserved_32(world, page, level, bit)
						 : is_reserved_wide(world, page, level, bit))
					world->reserved[level][page] |= BIT(bit);
}

unsigned int guest_index(const struct guest_world *world, unsigned int level, uint64_t gva)
{
	if (is_32(world))
		return gva >> (level == 2 ? 22 : 12) & 1023;
	if (world->mode == GUEST_PAE && level == 3)
		return gva >> 30 & 3;
	return gva >> (12 + 9 * (level - 1)) & 511;
}

bool guest_pdpte_refused(const struct guest_world *world, uint64_t pdpte)
{
	return (pdpte & 1) && (pdpte & world->reserved[3][0]);
}

/* --- entries as sets of levels -------------------------------------------------------------- */

struct sets {
	unsigned int absent, ill_formed, elsewhere;
	unsigned int writable, user, no_exec;
};

static unsigned int highest(unsigned int set)
{
	return set ? 31 - (unsigned int)__builtin_clz(set) : 0;
}

/* The level that maps the page, if the walk comes so far. */
static unsigned int leaf_level(const struct guest_world *world, const uint64_t *entry)
{
	unsigned int pages = 1 << 1;

	for (unsigned int level = 2; level <= 3 && level <= world->levels; level++)
		pages |= (unsigned int)(entry[level] >> 7 & 1) << level;
	return highest(pages & world->page_levels);
}

static void collect(const struct guest_world *world, const uint64_t *entry, unsigned int leaf,
		    struct sets *sets)
{
	uint64_t address = is_32(world) ? 0xfffff000 : 0x000ffffffffff000;

	memset(sets, 0, sizeof(*sets));
	for (unsigned int level = leaf; level <= world->levels; level++) {
		uint64_t value = entry[level];
		bool bad = value & world->reserved[level][level == leaf];

		sets->absent |= (unsigned int)(~value & 1) << level;
		sets->ill_formed |= (unsigned int)bad << level;
		sets->writable |= (unsigned int)(value >> 1 & 1) << level;
		sets->user |= (unsigned int)(value >> 2 & 1) << level;
		sets->no_exec |= (unsigned int)(value >> 63) << level;
		if (level > leaf && (value & address) != world->table[level - 1])
			sets->elsewhere |= 1u << level;
	}
}

/* --- rights ---------------------------------------------------------------------------------- */

/* What the levels together say of the page. */
struct page {
	bool writable, user, no_exec, shadow_stack;
	unsigned int key;
};

/* SDM 4.6.1, by its own order: supervisor or user, then read, write, fetch. */
static bool supervisor_may(const struct guest_world *world, const struct guest_access *access,
			   const struct page *page)
{
	if (access->read || access->write) {
		if (page->user && world->smap && (access->implicit || !access->ac))
			return false;
		if (access->write && world->wp && !page->writable)
			return false;
	}
	if (access->fetch) {
		if (page->user && world->smep)
			return false;
		if (page->no_exec)
			return false;
	}
	return true;
}

static bool user_may(const struct guest_access *access, const struct page *page)
{
	if (!page->user)
		return false;
	if (access->write && !page->writable)
		return false;
	return !(access->fetch && page->no_exec);
}

static bool may(const struct guest_world *world, const struct guest_access *access, bool as_user,
		const struct page *page)
{
	if (!access->read && !access->write && !access->fetch)
		return true;
	if (access->shadow_stack)
		return page->shadow_stack && page->user == as_user;
	return as_user ? user_may(access, page) : supervisor_may(world, access, page);
}

/* SDM 4.6.2. */
static bool key_denies(const struct guest_world *world, const struct guest_access *access,
		       bool as_user, const struct page *page)
{
	uint32_t rights = page->user ? world->pkru : world->pkrs;
	bool disable_access = rights >> 2 * page->key & 1;
	bool disable_write = rights >> (2 * page->key + 1) & 1;

	if (!is_long(world) || !(page->user ? world->pke : world->pks))
		return false;
	if (disable_access && (access->read || access->write))
		return true;
	return disable_write && access->write && (world->wp || (page->user && as_user));
}

/* SDM 4.7: the bits that tell of the access alone. */
static unsigned int told_of_access(const struct guest_world *world,
				   const struct guest_access *access, bool as_user)
{
	unsigned int error = 0;

	if (access->write)
		error += 0x02;
	if (as_user)
		error += 0x04;
	if (access->fetch && (world->smep || (world->nxe && !is_32(world))))
		error += 0x10;
	if (access->shadow_stack)
		error += 0x40;
	return error;
}

/* --- together -------------------------------------------------------------------------------- */

static uint64_t page_address(const struct guest_world *world, unsigned int leaf, uint64_t value)
{
	if (!is_32(world))
		return value & 0x000ffffffffff000 & ~(BIT(page_lg2(world, leaf)) - 1);
	if (leaf == 1)
		return value & 0xfffff000;
	return (value & 0xffc00000) | (value >> 13 & 0xff) << 32;
}

static void good(const struct guest_world *world, const uint64_t *entry, unsigned int leaf,
		 uint64_t gva, const struct guest_access *access, const struct page *page,
		 struct guest_expected *expected)
{
	bool accesses = access->read || access->write || access->fetch;

	expected->outcome = GUEST_GOOD;
	expected->level = leaf;
	expected->page_lg2 = page_lg2(world, leaf);
	expected->gpa = page_address(world, leaf, entry[leaf]);
	expected->gpa += gva & (BIT(expected->page_lg2) - 1);
	expected->may_write = page->writable;
	expected->may_fetch = !page->no_exec;
	expected->may_user = page->user;
	for (unsigned int level = leaf; level <= world->levels && accesses; level++)
		if (world->mode != GUEST_PAE || level < 3)
			expected->after[level] |= BIT(5);
	if (access->write)
		expected->after[leaf] |= BIT(6);
	expected->dirty = expected->after[leaf] & BIT(6);
}

static void fault(unsigned int level, unsigned int error, struct guest_expected *expected)
{
	expected->outcome = GUEST_FAULT;
	expected->level = level;
	expected->error = error;
}

static void see_page(const struct guest_world *world, const uint64_t *entry, unsigned int leaf,
		     const struct sets *sets, struct page *page)
{
	/* The levels that have rights, and those of them above the page. */
	unsigned int top = world->mode == GUEST_PAE ? 2 : world->levels;
	unsigned int all = (2u << top) - (1u << leaf);
	unsigned int above = all & (all - 1);

	page->writable = (sets->writable & all) == all;
	page->user = (sets->user & all) == all;
	page->no_exec = sets->no_exec & all;
	page->shadow_stack = (sets->writable & all) == above && (entry[leaf] & BIT(6));
	page->key = entry[leaf] >> 59 & 15;
}

void guest_predict(const struct guest_world *world, const uint64_t entry[6], uint64_t gva,
		   const struct guest_access *access, struct guest_expected *expected)
{
	bool as_user = access->user && !access->implicit;
	unsigned int told = told_of_access(world, access, as_user);
	unsigned int leaf = leaf_level(world, entry);
	unsigned int end, error = told | 0x01;
	struct page page;
	struct sets sets;

	memcpy(expected->after, entry, sizeof(expected->after));
	collect(world, entry, leaf, &sets);
	end = highest(sets.absent | sets.ill_formed);
	if (highest(sets.elsewhere) > end) {
		expected->outcome = GUEST_ELSEWHERE;
	} else if (end) {
		fault(end, sets.absent >> end & 1 ? told : told | 0x09, expected);
	} else {
		see_page(world, entry, leaf, &sets, &page);
		if (key_denies(world, access, as_user, &page))
			error |= 0x20;
		if (error & 0x20 || !may(world, access, as_user, &page))
			fault(leaf, error, expected);
		else
			good(world, entry, leaf, gva, access, &page, expected);
	}
}
