/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What features and widths make of the formats: which pages exist, which bits are reserved.
 *
 * Freestanding. What does not belong here: mode registers of a guest (guest_walk.c turns them
 * into features).
 */
#include "formats.h"

const struct mv_format *const mv_formats[MV_FORMATS] = {
	[MV_FORMAT_X86_32] = &mv_format_x86_32,	  [MV_FORMAT_X86_PSE] = &mv_format_x86_pse,
	[MV_FORMAT_X86_PAE] = &mv_format_x86_pae, [MV_FORMAT_X86_4L] = &mv_format_x86_4l,
	[MV_FORMAT_X86_5L] = &mv_format_x86_5l,	  [MV_FORMAT_EPT_4L] = &mv_format_ept_4l,
	[MV_FORMAT_EPT_5L] = &mv_format_ept_5l,	  [MV_FORMAT_NPT_4L] = &mv_format_npt_4l,
	[MV_FORMAT_NPT_5L] = &mv_format_npt_5l,
};

static bool is_ept(const struct mv_format *f)
{
	return f->exec;
}

static bool is_npt(const struct mv_format *f)
{
	return f->id == MV_FORMAT_NPT_4L || f->id == MV_FORMAT_NPT_5L;
}

static uint8_t leaf_levels(const struct mv_format *f, uint32_t features)
{
	uint8_t levels = f->leaf_levels;

	if (f->levels < 4)
		return levels;
	if (is_ept(f) && (features & MV_FEATURE_2M))
		levels |= 1 << 2;
	if (features & MV_FEATURE_1G)
		levels |= 1 << 3;
	return levels;
}

/* All but the bits that a missing feature leaves without a meaning. */
static uint64_t meaningful(const struct mv_format *f, uint32_t features)
{
	uint64_t without = 0;

	if (!(features & MV_FEATURE_NX))
		without |= f->no_exec;
	if (!(features & MV_FEATURE_MODE_EXEC))
		without |= f->exec_user;
	if (!(features & MV_FEATURE_VE))
		without |= f->suppress_ve;
	if (is_ept(f) && !(features & MV_FEATURE_ACCESSED))
		without |= f->accessed | f->dirty;
	if (f->pkey_low && !(features & MV_FEATURE_PKEY))
		without |= 15ULL << f->pkey_low;
	return ~without;
}

/* Reserved in every present entry of a level: the address bits that the processor lacks. */
static uint64_t reserved_width(const struct mv_format *f, unsigned int maxphyaddr)
{
	if (f->entry_lg2 == 2 || maxphyaddr >= 52)
		return 0;
	return MV_BITS(51, maxphyaddr);
}

/* PAE has no ignored bits above the address: SDM vol. 3, table 4-8 to 4-11. */
static uint64_t reserved_high(const struct mv_format *f, unsigned int level, uint32_t features)
{
	bool pae = f->id == MV_FORMAT_X86_PAE;
	uint64_t reserved = pae ? MV_BITS(62, 52) : 0;

	if (!(features & MV_FEATURE_NX) || (pae && level == 3))
		reserved |= f->no_exec;
	return reserved;
}

/* What an entry that points to a table must not have, besides what all must not. */
static uint64_t reserved_in_table(const struct mv_format *f, const struct mv_rules *rules,
				  unsigned int level)
{
	if (f->id == MV_FORMAT_X86_PAE && level == 3)
		return MV_BITS(2, 1) | MV_BITS(8, 5);
	if (is_ept(f))
		return rules->leaf_levels >> level & 1 ? MV_BITS(6, 3) : MV_BITS(7, 3);
	/* Bit 8, too: APM vol. 2, 5.3.3. Bochs and QEMU ignore it; KVM does as AMD says. */
	if (is_npt(f) && level >= 4)
		return f->leaf | f->global;
	/* 32-bit paging ignores PS where there are no large pages. */
	if (f->entry_lg2 == 2 || (rules->leaf_levels >> level & 1))
		return 0;
	return f->leaf;
}

/* PSE-36 gives bits 20:13 to the address, as far as the width goes: SDM vol. 3, table 4-4. */
static uint64_t reserved_in_4m_leaf(unsigned int maxphyaddr)
{
	unsigned int width = maxphyaddr < 40 ? maxphyaddr : 40;

	return MV_BITS(21, width - 32 + 13);
}

/* Bits between the attributes and the address of a large page. */
static uint64_t reserved_in_leaf(const struct mv_format *f, unsigned int level,
				 unsigned int maxphyaddr)
{
	if (level == 1 || level > f->levels)
		return 0;
	if (f->pse36)
		return reserved_in_4m_leaf(maxphyaddr);
	return MV_BITS(f->shift[level] - 1, is_ept(f) ? 12 : 13);
}

void mv_rules_init(const struct mv_format *f, uint32_t features, unsigned int maxphyaddr,
		   struct mv_rules *rules)
{
	rules->leaf_levels = leaf_levels(f, features);
	rules->meaningful = meaningful(f, features);
	rules->present = f->present;
	if (features & MV_FEATURE_MODE_EXEC)
		rules->present |= f->exec_user;
	rules->empty = f->suppress_ve & rules->meaningful;
	rules->reserved_table[0] = rules->reserved_leaf[0] = 0;
	for (unsigned int level = 1; level <= MV_LEVEL_MAX; level++) {
		uint64_t reserved = 0;

		if (level <= f->levels)
			reserved = reserved_width(f, maxphyaddr) | reserved_high(f, level, features);
		rules->reserved_table[level] = reserved | reserved_in_table(f, rules, level);
		rules->reserved_leaf[level] = reserved | reserved_in_leaf(f, level, maxphyaddr);
	}
}
