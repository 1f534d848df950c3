/* SPDX-License-Identifier: BSD-2-Clause */
/* Stage 2 by the manuals' tables; see stage2_predicate.h. Nothing of lib/ belongs here. */
#include <string.h>

#include "support/stage2_predicate.h"

static bool bit(uint64_t entry, unsigned int number)
{
	return entry >> number & 1;
}

static bool within(unsigned int number, unsigned int low, unsigned int high)
{
	return number >= low && number <= high;
}

/* Lowest bit of the guest-physical address that selects an entry. */
static unsigned int lowest(unsigned int level)
{
	return 3 + 9 * level;
}

/* --- one entry ---------------------------------------------------------------------------- */

/* SDM vol. 3, tables 29-1 to 29-7. */
static bool ept_reserves(const struct stage2_world *world, unsigned int level, bool page,
			 unsigned int number)
{
	if (within(number, world->width, 51))
		return true;
	if (!page)
		return within(number, 3, 7);
	return level > 1 && within(number, 12, lowest(level) - 1);
}

/* APM vol. 2, 5.3.3 to 5.3.5. */
static bool npt_reserves(const struct stage2_world *world, unsigned int level, bool page,
			 unsigned int number)
{
	if (within(number, world->width, 51))
		return true;
	if (number == 63)
		return !world->no_exec;
	if (!page)
		return number == 7 || (number == 8 && level > 3);
	return level > 1 && within(number, 13, lowest(level) - 1);
}

static uint64_t reserved_bits(const struct stage2_world *world, unsigned int level, bool page)
{
	uint64_t reserved = 0;

	for (unsigned int number = 0; number < 64; number++)
		if (world->ept ? ept_reserves(world, level, page, number)
			       : npt_reserves(world, level, page, number))
			reserved |= 1ULL << number;
	return reserved;
}

void stage2_world_prepare(struct stage2_world *world)
{
	memset(world->reserved, 0, sizeof(world->reserved));
	for (unsigned int level = 1; level <= world->levels; level++)
		for (unsigned int page = 0; page < 2; page++)
			world->reserved[level][page] = reserved_bits(world, level, page);
}

static bool is_page(const struct stage2_world *world, unsigned int level, uint64_t entry)
{
	switch (level) {
	case 1:
		return true;
	case 2:
		return bit(entry, 7) && (world->pages_2m || !world->ept);
	case 3:
		return bit(entry, 7) && world->pages_1g;
	default:
		return false;
	}
}

static bool is_present(const struct stage2_world *world, uint64_t entry)
{
	if (!world->ept)
		return bit(entry, 0);
	return bit(entry, 0) || bit(entry, 1) || bit(entry, 2) ||
	       (world->mode_exec && bit(entry, 10));
}

/* SDM vol. 3, 29.3.3.1, condition by condition. */
static bool is_ill_formed(const struct stage2_world *world, unsigned int level, uint64_t entry)
{
	bool page = is_page(world, level, entry);
	unsigned int type = entry >> 3 & 7;

	if (entry & world->reserved[level][page])
		return true;
	if (!world->ept)
		return false;
	if (!bit(entry, 0) && bit(entry, 1))
		return true;
	if (!bit(entry, 0) && !world->exec_only && bit(entry, 2))
		return true;
	if (!bit(entry, 0) && !world->exec_only && world->mode_exec && bit(entry, 10))
		return true;
	return page && (type == 2 || type == 3 || type == 7);
}

/* --- an access ---------------------------------------------------------------------------- */

/* What the processor takes it for. */
static struct stage2_access taken_for(const struct stage2_world *world,
				      const struct stage2_access *access)
{
	struct stage2_access as = *access;

	if (!as.guest_table)
		return as;
	if (!world->ept) {
		as.read = as.fetch = false;
		as.write = true;
	} else if (world->accessed) {
		as.read = as.write = true;
	} else if (!as.write && !as.fetch) {
		as.read = true;
	}
	return as;
}

/* @every: bit is set in each entry. @some: in at least one. */
static bool is_allowed(const struct stage2_world *world, const struct stage2_access *as,
		       uint64_t every, uint64_t some)
{
	bool any = as->read || as->write || as->fetch;

	if (!world->ept)
		return (!any || bit(every, 2)) && (!as->write || bit(every, 1)) &&
		       (!as->fetch || !bit(some, 63));
	return (!as->read || bit(every, 0)) && (!as->write || bit(every, 1)) &&
	       (!as->fetch || bit(every, world->mode_exec && as->user ? 10 : 2));
}

static uint64_t qualification(const struct stage2_world *world, const struct stage2_access *as,
			      uint64_t every)
{
	bool final = as->linear && !as->guest_table;
	bool informed = final && world->exit_info;

	return (uint64_t)as->read << 0 | (uint64_t)as->write << 1 | (uint64_t)as->fetch << 2 |
	       (uint64_t)bit(every, 0) << 3 | (uint64_t)bit(every, 1) << 4 |
	       (uint64_t)bit(every, 2) << 5 | (uint64_t)(world->mode_exec && bit(every, 10)) << 6 |
	       (uint64_t)as->linear << 7 | (uint64_t) final << 8 |
	       (uint64_t)(informed && as->user) << 9 |
	       (uint64_t)(informed && as->guest_writable) << 10 |
	       (uint64_t)(informed && as->guest_no_exec) << 11 | (uint64_t)as->shadow_stack << 13;
}

static uint64_t exitinfo1(const struct stage2_access *as, bool present, bool reserved)
{
	return (uint64_t)present << 0 | (uint64_t)as->write << 1 | 1ULL << 2 |
	       (uint64_t)reserved << 3 | (uint64_t)as->fetch << 4 |
	       (uint64_t)as->shadow_stack << 6 | 1ULL << (as->guest_table ? 33 : 32);
}

/* --- the whole ---------------------------------------------------------------------------- */

static struct stage2_grant grant_of(const struct stage2_world *world, unsigned int level,
				    uint64_t leaf, uint64_t every, uint64_t some)
{
	if (world->ept)
		return (struct stage2_grant){
			.read = bit(every, 0),
			.write = bit(every, 1),
			.exec = bit(every, 2),
			.exec_user = world->mode_exec && bit(every, 10),
			.accessed = world->accessed && bit(leaf, 8),
			.dirty = world->accessed && bit(leaf, 9),
			.suppress_ve = world->ve && bit(leaf, 63),
			.ignore_pat = bit(leaf, 6),
			.soft = { bit(leaf, 52), bit(leaf, 53) },
			.type = leaf >> 3 & 7,
		};
	return (struct stage2_grant){
		.read = bit(every, 2),
		.write = bit(every, 1),
		.exec = !bit(some, 63),
		.global = bit(leaf, 8),
		.accessed = bit(leaf, 5),
		.dirty = bit(leaf, 6),
		.soft = { bit(leaf, 9), bit(leaf, 10) },
		.type = (leaf >> 3 & 3) | (unsigned int)bit(leaf, level == 1 ? 7 : 12) << 2,
	};
}

/* Bits that the processor sets on the way, and in the page's entry for a write. */
static void set_accessed_and_dirty(const struct stage2_world *world, const struct stage2_access *as,
				   struct stage2_expected *expected)
{
	unsigned int accessed = world->ept ? 8 : 5;

	if (as->look || !(as->read || as->write || as->fetch))
		return;
	if (world->ept && !world->accessed)
		return;
	for (unsigned int level = expected->level; level <= world->levels; level++)
		expected->after[level] |= 1ULL << accessed;
	if (as->write)
		expected->after[expected->level] |= 1ULL << (accessed + 1);
}

static void expect_fault(const struct stage2_world *world, const struct stage2_access *as,
			 bool present, bool ill_formed, uint64_t every,
			 struct stage2_expected *expected)
{
	expected->outcome = ill_formed ? STAGE2_ILL_FORMED : STAGE2_FORBIDDEN;
	if (!world->ept)
		expected->code = exitinfo1(as, present, ill_formed);
	else if (!ill_formed)
		expected->code = qualification(world, as, every);
	expected->suppress_ve =
		world->ept && world->ve && !ill_formed && bit(expected->after[expected->level], 63);
}

void stage2_expect(const struct stage2_world *world, uint64_t root, const uint64_t *entry,
		   uint64_t gpa, const struct stage2_access *access,
		   struct stage2_expected *expected)
{
	const struct stage2_access as = taken_for(world, access);
	uint64_t every = ~0ULL, some = 0, table = root, offset;
	unsigned int level;
	bool present, ill_formed;

	memset(expected, 0, sizeof(*expected));
	for (level = world->levels;; level--) {
		expected->at[level] = table + (gpa >> lowest(level) & 511) * 8;
		expected->after[level] = entry[level];
		every &= entry[level];
		some |= entry[level];
		present = is_present(world, entry[level]);
		ill_formed = present && is_ill_formed(world, level, entry[level]);
		if (!present || ill_formed || is_page(world, level, entry[level]))
			break;
		table = entry[level] & 0xffffffffff000ULL;
	}
	expected->level = level;
	if (!present || ill_formed || !is_allowed(world, &as, every, some)) {
		expect_fault(world, &as, present, ill_formed, every, expected);
		return;
	}
	offset = (1ULL << lowest(level)) - 1;
	expected->outcome = STAGE2_GOOD;
	expected->page_lg2 = lowest(level);
	expected->phys = (entry[level] & 0xfffffffffffffULL & ~offset) | (gpa & offset);
	set_accessed_and_dirty(world, &as, expected);
	expected->grant = grant_of(world, level, expected->after[level], every, some);
}
