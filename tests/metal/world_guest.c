/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest's registers and tables: by mv_table_map() where its table pages lie in one piece, by
 * hand where they are scattered.
 */
#include <stddef.h>
#include <string.h>

#include "bare.h"
#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "stamp.h"
#include "world.h"

#include "format.h"

#define PAGE	 4096ull
#define FOUR_GIB (1ull << 32)

static const enum mv_format_id format_of[GUEST_MODES] = {
	[GUEST_32] = MV_FORMAT_X86_32,	 [GUEST_PSE] = MV_FORMAT_X86_PSE,
	[GUEST_PAE] = MV_FORMAT_X86_PAE, [GUEST_4L] = MV_FORMAT_X86_4L,
	[GUEST_5L] = MV_FORMAT_X86_5L,
};

static const struct mv_format *format(const struct world *world)
{
	return mv_formats[format_of[world->mode]];
}

static bool is_long(const struct world *world)
{
	return world->mode >= GUEST_4L;
}

uint64_t entry_read(uint64_t hpa, unsigned int bytes)
{
	return bytes == 4 ? *(const uint32_t *)hpa : *(const uint64_t *)hpa;
}

void entry_write(uint64_t hpa, unsigned int bytes, uint64_t entry)
{
	if (bytes == 4)
		*(uint32_t *)hpa = (uint32_t)entry;
	else
		*(uint64_t *)hpa = entry;
}

/* --- registers ----------------------------------------------------------------------------- */

static void choose_cpu(struct world *world)
{
	bool amd = cpuid(0, 0).ebx == 0x68747541; /* "Auth" */

	world->cpu.maxphyaddr = world->maxphyaddr;
	world->cpu.features = amd ? MV_CPU_AMD : 0;
	world->cpu.features |= cpuid(0x80000001, 0).edx & 1u << 26 ? MV_CPU_1G : 0;
	world->cpu.features |= cpuid(1, 0).edx & 1u << 17 ? MV_CPU_PSE36 : 0;
}

static void choose_mode(struct world *world)
{
	static const enum guest_mode modes[] = {
		GUEST_PAGING_OFF, GUEST_32, GUEST_PSE, GUEST_PSE, GUEST_PAE, GUEST_PAE,
		GUEST_4L,	  GUEST_4L, GUEST_4L,  GUEST_4L,  GUEST_5L,  GUEST_5L,
	};
	bool la57 = cpuid(7, 0).ecx & 1u << 16;

	do {
		world->mode = modes[below(&world->chance, sizeof(modes) / sizeof(*modes))];
	} while ((world->mode == GUEST_PAGING_OFF && !world->machine->paging_off) ||
		 (world->mode == GUEST_5L && !(la57 && world->machine->five_levels)));
}

/* What paging pays attention to, and the processor has. */
static uint64_t any_cr4(struct world *world)
{
	struct cpuid seven = cpuid(7, 0);
	uint64_t cr4 = 0;

	cr4 |= seven.ebx & 1u << 7 ? CR4_SMEP : 0;
	cr4 |= seven.ebx & 1u << 20 ? CR4_SMAP : 0;
	if (world->machine->keys) {
		cr4 |= seven.ecx & 1u << 3 ? CR4_PKE : 0;
		cr4 |= seven.ecx & 1u << 31 ? CR4_PKS : 0;
	}
	return cr4 & chance_next(&world->chance);
}

static void choose_registers(struct world *world)
{
	struct mv_paging_registers *registers = &world->registers;
	bool nx = cpuid(0x80000001, 0).edx & 1u << 20;

	*registers = (struct mv_paging_registers){ .cr0 = CR0_PE };
	if (world->mode == GUEST_PAGING_OFF)
		return;
	registers->cr0 |= CR0_PG | (one_in(&world->chance, 2) ? CR0_WP : 0);
	registers->cr4 = any_cr4(world);
	registers->cr4 |= world->mode == GUEST_PSE ? CR4_PSE : 0;
	registers->cr4 |= world->mode >= GUEST_PAE ? CR4_PAE : 0;
	registers->cr4 |= world->mode == GUEST_5L ? CR4_LA57 : 0;
	registers->efer = nx && !one_in(&world->chance, 4) ? EFER_NXE : 0;
	registers->efer |= is_long(world) ? EFER_LME | EFER_LMA : 0;
}

/* --- tables by hand ------------------------------------------------------------------------ */

static unsigned int entry_bytes(const struct world *world)
{
	return 1u << format(world)->entry_lg2;
}

static uint64_t page_hpa(const struct world *world, uint64_t gpa)
{
	uint64_t page = (gpa - world->tables_gpa) / PAGE;

	return world->tables_hpa[page] + gpa % PAGE;
}

static uint64_t new_page(struct world *world)
{
	uint64_t gpa = world->tables_gpa + world->tables_used++ * PAGE;

	if (world->tables_used > TABLES_MAX)
		give_up("a guest has more than %u table pages", (uint64_t)TABLES_MAX);
	return gpa;
}

static uint64_t any_table_bits(struct world *world, const struct mv_format *f, unsigned int level)
{
	uint64_t bits = f->table_rights[level];

	/* PDPTEs of PAE paging have no accessed flag: SDM vol. 3, table 4-8. */
	if ((bits & f->write) && one_in(&world->chance, 2))
		bits |= f->accessed;
	return bits;
}

static uint32_t any_leaf_attr(struct world *world)
{
	uint32_t attr = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC;
	uint32_t some = MV_ATTR_ACCESSED | MV_ATTR_DIRTY | MV_ATTR_GLOBAL;

	attr |= one_in(&world->chance, 2) ? MV_ATTR_USER : 0;
	attr &= one_in(&world->chance, 3) ? ~(MV_ATTR_WRITE | MV_ATTR_EXEC) : ~0u;
	attr |= (uint32_t)chance_next(&world->chance) & some;
	attr |= MV_ATTR_PKEY((uint32_t)below(&world->chance, 16));
	return attr;
}

/* The bits of a leaf, key included where keys are off: they are ignored then. */
static uint64_t leaf_entry(struct world *world, const struct mv_format *f, unsigned int level,
			   uint64_t gpa, uint32_t attr)
{
	uint64_t entry = mv_page_bits(f, level, gpa & ~mv_span_mask(f, level)) | f->present;

	entry |= level > 1 ? f->leaf : 0;
	entry |= attr & MV_ATTR_WRITE ? f->write : 0;
	entry |= attr & MV_ATTR_USER ? f->user : 0;
	entry |= attr & MV_ATTR_ACCESSED ? f->accessed : 0;
	entry |= attr & MV_ATTR_DIRTY ? f->dirty : 0;
	entry |= attr & MV_ATTR_GLOBAL ? f->global : 0;
	entry |= f->pkey_low ? (uint64_t)MV_ATTR_PKEY_OF(attr) << f->pkey_low : 0;
	if (!(attr & MV_ATTR_EXEC) && (world->registers.efer & EFER_NXE))
		entry |= f->no_exec;
	return entry;
}

static bool map_by_hand(struct world *world, uint64_t gva, uint64_t gpa, unsigned int leaf_level,
			uint32_t attr)
{
	const struct mv_format *f = format(world);
	unsigned int bytes = entry_bytes(world);
	uint64_t table = world->registers.cr3;

	for (unsigned int level = f->levels;; level--) {
		uint64_t hpa = page_hpa(world, table + ((uint64_t)mv_index(f, level, gva)
							<< f->entry_lg2));
		uint64_t entry = entry_read(hpa, bytes);

		if (level == leaf_level && !entry)
			entry_write(hpa, bytes, leaf_entry(world, f, level, gpa, attr));
		if (level == leaf_level)
			return !entry;
		if (!entry) {
			entry = new_page(world) | any_table_bits(world, f, level);
			entry_write(hpa, bytes, entry);
		} else if (level < 4 && level > 1 && (entry & f->leaf)) {
			return false;
		}
		table = mv_entry_table(f, entry);
	}
}

/* SDM vol. 3, table 4-8: reserved bits 2:1, 8:5 and all above the address. */
bool world_read_pdptes(const struct world *world, uint64_t pdpte[4])
{
	uint64_t reserved = 0x1e6 | ~MV_BITS(world->maxphyaddr - 1, 0);
	bool sound = true;

	for (unsigned int i = 0; i < 4; i++) {
		pdpte[i] = 0;
		if (world->mode != GUEST_PAE)
			continue;
		pdpte[i] = entry_read(page_hpa(world, world->registers.cr3 + 8 * i), 8);
		if (!(pdpte[i] & 1) || !(pdpte[i] & reserved))
			continue;
		pdpte[i] &= ~reserved;
		sound = false;
	}
	return sound;
}

/* --- tables by the library ----------------------------------------------------------------- */

static void *guest_page_alloc(void *ctx, int node)
{
	struct world *world = ctx;

	if (world->tables_used == TABLES_MAX)
		return NULL;
	return (void *)(GUEST_TABLES + world->tables_used++ * PAGE);
}

static void guest_page_free(void *ctx, void *page)
{
	struct world *world = ctx;

	world->tables_freed++;
}

/* A guest's table page is where it thinks it is plus this. */
static struct mv_platform guest_platform(struct world *world, struct mv_platform_ops *ops)
{
	*ops = *bare_platform.ops;
	ops->table_alloc = guest_page_alloc;
	ops->table_free = guest_page_free;
	return (struct mv_platform){ ops, world, GUEST_TABLES - world->tables_gpa };
}

static void create_guest_table(struct world *world)
{
	static struct mv_platform_ops ops;
	static struct mv_platform platform;
	struct mv_table_config config = {
		.size = sizeof(config),
		.platform = &platform,
		.format = format_of[world->mode],
		.maxphyaddr = world->maxphyaddr,
		.node = -1,
	};
	int error;

	platform = guest_platform(world, &ops);
	config.features |= world->cpu.features & MV_CPU_1G ? MV_FEATURE_1G : 0;
	config.features |= world->registers.efer & EFER_NXE ? MV_FEATURE_NX : 0;
	config.features |= world->registers.cr4 & (CR4_PKE | CR4_PKS) ? MV_FEATURE_PKEY : 0;
	if (world->mode == GUEST_PSE && !(world->cpu.features & MV_CPU_PSE36))
		config.maxphyaddr = 32;
	error = mv_table_create(&config, &world->guest_table);
	if (error)
		give_up("mv_table_create() of a guest's returned -%u", (uint64_t)-error);
	world->registers.cr3 = mv_table_root(world->guest_table);
}

static bool map_by_library(struct world *world, uint64_t gva, uint64_t gpa, unsigned int leaf_level,
			   uint32_t attr)
{
	const struct mv_format *f = format(world);
	uint64_t mask = mv_span_mask(f, leaf_level);
	uint64_t first = gva & ~mask & mv_table_last_address(world->guest_table);

	attr |= world->registers.efer & EFER_NXE ? 0 : MV_ATTR_EXEC;
	return !mv_table_map(world->guest_table, first, first + mask, gpa & ~mask, attr,
			     f->shift[leaf_level]);
}

/* --- together ------------------------------------------------------------------------------ */

static bool map(struct world *world, uint64_t gva, uint64_t gpa, unsigned int level, uint32_t attr)
{
	if (world->guest_table)
		return map_by_library(world, gva, gpa, level, attr);
	return map_by_hand(world, gva, gpa, level, attr);
}

static uint64_t canonical(const struct world *world, uint64_t gva)
{
	const struct mv_format *f = format(world);
	unsigned int width = f->shift[f->levels] + f->index_lg2[f->levels];
	unsigned int unused = 64 - width;

	if (!is_long(world))
		return (uint32_t)gva;
	return (uint64_t)((int64_t)(gva << unused) >> unused);
}

static bool has_page(const struct world *world, unsigned int level)
{
	if (level == 3)
		return is_long(world) && (world->cpu.features & MV_CPU_1G);
	return level == 1 || world->mode != GUEST_32;
}

/* An address whose page is of a size of @level, near another target or anywhere. */
static uint64_t any_gva(struct world *world, unsigned int level, uint64_t gpa)
{
	uint64_t mask = mv_span_mask(format(world), level);
	uint64_t gva = chance_next(&world->chance);

	if (world->targets && one_in(&world->chance, 2)) {
		uint64_t other = world->target[below(&world->chance, world->targets)].gva;

		gva = other ^ (gva & MV_BITS(12 + below(&world->chance, 27), 12));
	}
	return canonical(world, (gva & ~mask) | (gpa & mask));
}

static void add_target(struct world *world)
{
	unsigned int level = 1 + (unsigned int)below(&world->chance, 3);
	uint64_t gpa = world_any_gpa(world), gva;
	uint32_t attr;

	while (!has_page(world, level))
		level--;
	/* 32-bit entries have room for more address in 4 MiB pages only: PSE-36. */
	if (world->mode < GUEST_PAE && gpa >= (level == 2 ? 1ull << 40 : FOUR_GIB))
		return;
	gva = any_gva(world, level, gpa);
	attr = any_leaf_attr(world);
	if (map(world, gva, gpa, level, attr))
		world->target[world->targets++] = (struct target){ gva, gpa, attr };
}

/* Code for a supervisor, whom SMEP keeps off user pages, and for a user. */
static void map_code(struct world *world)
{
	uint32_t attr = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC;

	for (unsigned int user = 0; user < 2; user++) {
		uint64_t gva;

		do {
			gva = canonical(world, chance_next(&world->chance) & ~(PAGE - 1));
		} while (!map(world, gva, world->code_gpa, 1, attr | (user ? MV_ATTR_USER : 0)));
		world->code_gva[user] = gva;
	}
}

/* A world is the same whichever came before: also where a changed entry leads to old tables. */
static void clear_tables(void)
{
	memset((void *)GUEST_TABLES, 0, TABLES_MAX * PAGE);
}

static void make_tables(struct world *world)
{
	clear_tables();
	world->tables_used = world->tables_freed = 0;
	world->guest_table = NULL;
	if (world->contiguous) {
		create_guest_table(world);
	} else {
		world->registers.cr3 = new_page(world);
		/* Four PDPTEs may lie anywhere in a page: SDM vol. 3, table 4-7. */
		if (world->mode == GUEST_PAE)
			world->registers.cr3 += 32 * below(&world->chance, PAGE / 32);
	}
	map_code(world);
	for (unsigned int i = 0; i < TARGETS_MAX; i++)
		add_target(world);
}

static void make_without_paging(struct world *world)
{
	world->guest_table = NULL;
	world->code_gva[0] = world->code_gva[1] = world->code_gpa;
	for (unsigned int i = 0; i < TARGETS_MAX; i++) {
		uint64_t gpa = world_any_gpa(world);

		if (gpa < FOUR_GIB)
			world->target[world->targets++] = (struct target){ gpa, gpa, MV_ATTR_USER };
	}
}

void world_make_guest(struct world *world)
{
	choose_cpu(world);
	choose_mode(world);
	choose_registers(world);
	world->targets = 0;
	if (world->mode == GUEST_PAGING_OFF)
		make_without_paging(world);
	else
		make_tables(world);
}
