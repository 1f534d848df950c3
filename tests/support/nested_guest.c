/* SPDX-License-Identifier: BSD-2-Clause */
/* A tidy guest; see nested_guest.h. */
#include "support/nested_guest.h"

#define PCIDE (1ull << 17)

/* Frames of stage 2's tables: one a level, but for two of level 1. */
enum { S2_ROOT, S2_LEVEL_3, S2_LEVEL_2, S2_TABLES, S2_DATA, S2_LEVEL_5 };

static uint64_t *at(const struct nested_guest *guest, uint64_t hpa)
{
	return (uint64_t *)(guest->world.memory + hpa);
}

static uint64_t stage2_down(const struct nested_guest *guest, unsigned int frame)
{
	return (uint64_t)frame << 12 | (nested_world_is_ept(&guest->world) ? 0x107 : 0x27);
}

static uint64_t stage2_page(const struct nested_guest *guest, uint64_t hpa, bool large)
{
	/* EPT: everything, accessed, dirty, write-back. NPT: accessed, dirty, first type. */
	uint64_t bits = nested_world_is_ept(&guest->world) ? 0x337 : 0x67;

	return hpa | bits | (large ? 0x80 : 0);
}

static void fill_stage2(struct nested_guest *guest)
{
	uint64_t top = S2_ROOT;

	if (guest->world.format2 == MV_FORMAT_EPT_5L || guest->world.format2 == MV_FORMAT_NPT_5L) {
		at(guest, S2_LEVEL_5 << 12)[0] = stage2_down(guest, S2_ROOT);
		top = S2_LEVEL_5;
	}
	guest->world.root2 = top << 12;
	at(guest, S2_ROOT << 12)[0] = stage2_down(guest, S2_LEVEL_3);
	at(guest, S2_LEVEL_3 << 12)[0] = stage2_down(guest, S2_LEVEL_2);
	for (uint64_t i = 1; i < 8; i++)
		at(guest, S2_LEVEL_3 << 12)[i] = stage2_page(guest, i << 30, true);
	at(guest, S2_LEVEL_2 << 12)[0] = stage2_down(guest, S2_TABLES);
	at(guest, S2_LEVEL_2 << 12)[1] = stage2_down(guest, S2_DATA);
	for (uint64_t i = 2; i < 64; i++)
		at(guest, S2_LEVEL_2 << 12)[i] = stage2_page(guest, i << 21, true);
	for (uint64_t i = 0; i < 512; i++) {
		at(guest, S2_TABLES << 12)[i] = stage2_page(guest, i << 12, false);
		at(guest, S2_DATA << 12)[i] = stage2_page(guest, GUEST_DATA + (i << 12), false);
	}
}

void nested_guest_open(struct nested_guest *guest, enum mv_format_id format2, uint32_t features2,
		       bool by_call)
{
	*guest = (struct nested_guest){ .frames = WORLD_STAGE2_FRAMES };
	nested_world_open(&guest->world);
	guest->world.format2 = format2;
	guest->world.features2 = features2 | MV_FEATURE_2M | MV_FEATURE_1G | MV_FEATURE_NX;
	guest->world.width = 48;
	guest->world.access_by_call = by_call;
	guest->world.cpu = (struct mv_cpu_model){ .maxphyaddr = 48, .features = MV_CPU_1G };
	guest->world.guest_pat = guest->world.host_pat = MV_PAT_RESET;
	guest->world.mtrr = MV_TYPE_WB;
	fill_stage2(guest);
	for (unsigned int space = 0; space < GUEST_SPACES; space++)
		guest->root[space] = nested_guest_table(guest);
	nested_guest_load(guest, 0, 0, 0);
}

void nested_guest_close(struct nested_guest *guest)
{
	nested_world_close(&guest->world);
}

uint64_t nested_guest_table(struct nested_guest *guest)
{
	insist(guest->frames < WORLD_FRAMES);
	return (uint64_t)guest->frames++ << 12;
}

uint64_t *nested_guest_entry(struct nested_guest *guest, uint64_t table, unsigned int level,
			     uint64_t gva)
{
	return at(guest, table) + (gva >> (3 + 9 * level) & 511);
}

uint64_t nested_guest_next(struct nested_guest *guest, uint64_t table, unsigned int level,
			   uint64_t gva)
{
	uint64_t *entry = nested_guest_entry(guest, table, level, gva);

	if (!(*entry & 1))
		*entry = nested_guest_table(guest) | GUEST_ENTRY;
	return *entry & 0xffffffffff000ull;
}

uint64_t nested_guest_map(struct nested_guest *guest, unsigned int space, uint64_t gva,
			  unsigned int level, uint64_t leaf)
{
	uint64_t table = guest->root[space];

	for (unsigned int down = GUEST_LEVELS; down > level; down--)
		table = nested_guest_next(guest, table, down, gva);
	*nested_guest_entry(guest, table, level, gva) = leaf | (level > 1 ? GUEST_LARGE : 0);
	return table;
}

uint64_t *nested_guest_stage2(struct nested_guest *guest, uint64_t gpa)
{
	if (gpa < GUEST_DATA)
		return at(guest, S2_TABLES << 12) + (gpa >> 12);
	if (gpa < GUEST_DATA_2M)
		return at(guest, S2_DATA << 12) + (gpa >> 12 & 511);
	if (gpa < GUEST_DATA_1G)
		return at(guest, S2_LEVEL_2 << 12) + (gpa >> 21);
	return at(guest, S2_LEVEL_3 << 12) + (gpa >> 30);
}

void nested_guest_load(struct nested_guest *guest, unsigned int space, uint64_t cr4_more,
		       uint64_t cr0_less)
{
	struct mv_paging_registers *registers = &guest->world.registers;
	bool pcids = cr4_more & PCIDE;

	registers->cr0 = 0x80010001 & ~cr0_less;
	registers->cr4 = 0xa0 | cr4_more;
	registers->efer = 0xd00;
	registers->cr3 = guest->root[space] | (pcids ? space + 1 : 0);
	nested_world_prepare(&guest->world);
}
