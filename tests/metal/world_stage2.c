/* SPDX-License-Identifier: BSD-2-Clause */
/* Stage-2 tables by mv_table_map(): windows to the guest's tables, its code and stamped memory. */
#include <stddef.h>

#include "bare.h"
#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "stamp.h"
#include "world.h"

#include "format.h"

#define PAGE	 4096ull
#define TWO_MIB	 (2ull << 20)
#define ONE_GIB	 (1ull << 30)
#define FOUR_GIB (1ull << 32)

static uint32_t any_ept_attr(struct world *world)
{
	static const uint32_t types[] = { MV_TYPE_UC, MV_TYPE_WC, MV_TYPE_WT, MV_TYPE_WP,
					  MV_TYPE_WB };
	uint32_t all = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_EXEC_USER;
	uint32_t attr =
		one_in(&world->chance, 3) ? (uint32_t)chance_next(&world->chance) & all : all;

	/* Write without read, and without the capability execute without read, are refused. */
	if (!(attr & MV_ATTR_READ) && !(world->features & MV_FEATURE_EXEC_ONLY))
		attr |= MV_ATTR_READ;
	if (attr & MV_ATTR_WRITE)
		attr |= MV_ATTR_READ;
	attr |= one_in(&world->chance, 4) ? MV_ATTR_ACCESSED : 0;
	attr |= one_in(&world->chance, 4) ? MV_ATTR_DIRTY : 0;
	return attr | MV_ATTR_TYPE(types[below(&world->chance, 5)]);
}

static uint32_t any_npt_attr(struct world *world)
{
	uint32_t attr = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC;

	if (one_in(&world->chance, 3))
		attr &= MV_ATTR_READ | (uint32_t)chance_next(&world->chance);
	if (!(world->features & MV_FEATURE_NX))
		attr |= MV_ATTR_EXEC;
	attr |= one_in(&world->chance, 4) ? MV_ATTR_ACCESSED : 0;
	attr |= one_in(&world->chance, 4) ? MV_ATTR_DIRTY : 0;
	attr |= one_in(&world->chance, 4) ? MV_ATTR_GLOBAL : 0;
	return attr;
}

static uint32_t any_attr(struct world *world)
{
	return world->machine->ept ? any_ept_attr(world) : any_npt_attr(world);
}

/* Everything granted; what the guest cannot do without mostly is. */
static uint32_t full_attr(struct world *world)
{
	uint32_t attr = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_EXEC_USER;

	return attr | (world->machine->ept ? MV_ATTR_TYPE(MV_TYPE_WB) : 0);
}

/* Pages of any size up to the largest that fits, or small ones. */
static unsigned int any_largest(struct world *world)
{
	static const unsigned int largest[] = { 0, 0, 12, 21, 30 };

	return largest[below(&world->chance, 5)];
}

static bool map(struct world *world, uint64_t gpa, uint64_t bytes, uint64_t phys, uint32_t attr,
		unsigned int largest_lg2)
{
	return !mv_table_map(world->table, gpa, gpa + bytes - 1, phys, attr, largest_lg2);
}

/* Aligned, and inside what the processor and the table have addresses for. */
static uint64_t any_place(struct world *world, uint64_t align, uint64_t below_gpa)
{
	uint64_t limit = mv_table_last_address(world->table);
	uint64_t width = MV_BITS(world->maxphyaddr - 1, 0);

	limit = limit < width ? limit : width;
	limit = limit < below_gpa - 1 ? limit : below_gpa - 1;
	return chance_next(&world->chance) & limit & ~(align - 1);
}

/* 32-bit guests reach little above 4 GiB: most windows are below. */
static uint64_t any_limit(struct world *world)
{
	return one_in(&world->chance, 4) ? UINT64_MAX : FOUR_GIB;
}

/* --- windows ------------------------------------------------------------------------------- */

static void add_window(struct world *world, uint64_t gpa, uint64_t phys, uint64_t bytes,
		       uint32_t attr)
{
	world->window[world->windows++] = (struct window){ gpa, phys, bytes, attr };
}

static void small_window(struct world *world)
{
	uint64_t pages = 1 + below(&world->chance, 8);
	uint64_t gpa = any_place(world, PAGE, any_limit(world));
	uint64_t room = (GUEST_DATA_END - GUEST_DATA) / PAGE - pages;
	uint64_t phys = GUEST_DATA + below(&world->chance, room) * PAGE;
	uint32_t attr = any_attr(world);

	if (map(world, gpa, pages * PAGE, phys, attr, 12))
		add_window(world, gpa, phys, pages * PAGE, attr);
}

/* Some 2 MiB pages, and perhaps small ones at the end. */
static void middle_window(struct world *world)
{
	uint64_t units = (GUEST_DATA_END - GUEST_DATA) / TWO_MIB;
	uint64_t unit = below(&world->chance, units);
	uint64_t bytes = TWO_MIB * (1 + below(&world->chance, units - unit < 3 ? units - unit : 3));
	uint64_t gpa = any_place(world, TWO_MIB, any_limit(world));
	uint64_t phys = GUEST_DATA + unit * TWO_MIB;
	uint32_t attr = any_attr(world);

	if (one_in(&world->chance, 2))
		bytes -= PAGE * below(&world->chance, 256);
	if (map(world, gpa, bytes, phys, attr, any_largest(world)))
		add_window(world, gpa, phys, bytes, attr);
}

/* One GiB from address 0 on, of which the part that is stamped is the window. */
static void large_window(struct world *world)
{
	uint64_t gpa = any_place(world, ONE_GIB, any_limit(world));
	uint32_t attr = any_attr(world);

	/* As 4 KiB pages it would take more tables than there are. */
	if (map(world, gpa, ONE_GIB, 0, attr, 0))
		add_window(world, gpa + GUEST_DATA, GUEST_DATA, GUEST_DATA_END - GUEST_DATA, attr);
}

static void data_windows(struct world *world)
{
	while (world->windows < 3) {
		switch (below(&world->chance, 4)) {
		case 0:
			large_window(world);
			break;
		case 1:
			middle_window(world);
			break;
		default:
			small_window(world);
		}
	}
}

uint64_t world_any_gpa(struct world *world)
{
	const struct window *window = &world->window[below(&world->chance, world->windows)];

	return window->gpa + below(&world->chance, window->bytes / SLOT_BYTES) * SLOT_BYTES;
}

/* --- what was asked for --------------------------------------------------------------------- */

static const struct window *window_of(const struct world *world, uint64_t gpa)
{
	for (unsigned int i = 0; i < world->windows; i++)
		if (gpa - world->window[i].gpa < world->window[i].bytes)
			return &world->window[i];
	return NULL;
}

static const struct target *target_of(const struct world *world, uint64_t gva)
{
	for (unsigned int i = 0; i < world->targets; i++)
		if (gva - world->target[i].gva < SLOT_BYTES)
			return &world->target[i];
	return NULL;
}

/* With EPT each right is one of its own; with NPT every access reads, as a user. */
static bool grants(const struct world *world, const struct window *window,
		   const struct target *target, unsigned int flags)
{
	bool user = (world->features & MV_FEATURE_MODE_EXEC) && (target->attr & MV_ATTR_USER);
	uint32_t needed = world->machine->ept ? 0 : MV_ATTR_READ;

	needed |= flags & MV_ACCESS_READ ? MV_ATTR_READ : 0;
	needed |= flags & MV_ACCESS_WRITE ? MV_ATTR_WRITE : 0;
	if (flags & MV_ACCESS_FETCH)
		needed |= user ? MV_ATTR_EXEC_USER : MV_ATTR_EXEC;
	return (window->attr & needed) == needed;
}

bool world_keeps_promise(const struct world *world, uint64_t gva, unsigned int flags,
			 const struct mv_nested_walk *walk)
{
	const struct target *target = target_of(world, gva);
	bool final = walk->kind == MV_NESTED_STAGE2 && !walk->guest_table;
	const struct window *window;

	if (!target || (walk->kind != MV_NESTED_OK && !final))
		return true;
	if (walk->gpa != target->gpa + (gva - target->gva))
		return false;
	window = window_of(world, walk->gpa);
	if (final)
		return walk->stage2_kind == MV_STAGE2_VIOLATION &&
		       !grants(world, window, target, flags);
	return walk->hpa == window->phys + (walk->gpa - window->gpa) &&
	       grants(world, window, target, flags);
}

/* --- where the guest keeps its tables and its code ------------------------------------------- */

/* All in one piece: GUEST_RAM, with its tables first and its code after them. */
static bool place_whole(struct world *world)
{
	uint64_t gpa = any_place(world, TWO_MIB, FOUR_GIB);

	if (!map(world, gpa, TWO_MIB, GUEST_RAM, full_attr(world), any_largest(world)))
		return false;
	world->contiguous = true;
	world->tables_gpa = gpa;
	world->code_gpa = gpa + (GUEST_CODE - GUEST_RAM);
	for (unsigned int i = 0; i < TABLES_MAX; i++)
		world->tables_hpa[i] = GUEST_TABLES + i * PAGE;
	return true;
}

/* Page by page, in another order than the guest sees them. */
static bool place_scattered(struct world *world)
{
	uint64_t gpa = any_place(world, PAGE, FOUR_GIB - TABLES_MAX * PAGE);
	uint64_t stride = 1 + below(&world->chance, TABLES_MAX - 1);

	world->contiguous = false;
	world->tables_gpa = gpa;
	for (uint64_t i = 0; i < TABLES_MAX; i++) {
		world->tables_hpa[i] = GUEST_TABLES + i * stride % TABLES_MAX * PAGE;
		if (!map(world, gpa + i * PAGE, PAGE, world->tables_hpa[i], full_attr(world), 0))
			return false;
	}
	world->code_gpa = any_place(world, PAGE, FOUR_GIB);
	return map(world, world->code_gpa, PAGE, GUEST_CODE, full_attr(world), 0);
}

/* --- together ------------------------------------------------------------------------------ */

static void choose_features(struct world *world)
{
	const struct machine *machine = world->machine;

	world->features = machine->features;
	if (one_in(&world->chance, 2))
		world->features &= ~MV_FEATURE_ACCESSED;
	if (one_in(&world->chance, 2))
		world->features &= ~MV_FEATURE_MODE_EXEC;
	if (one_in(&world->chance, 4))
		world->features &= ~MV_FEATURE_NX;
	world->host_nx = world->features & MV_FEATURE_NX;
	world->format = MV_FORMAT_EPT_4L;
	if (!machine->ept)
		world->format = cr4_read() & CR4_LA57 ? MV_FORMAT_NPT_5L : MV_FORMAT_NPT_4L;
}

static void create(struct world *world)
{
	const struct mv_table_config config = {
		.size = sizeof(config),
		.platform = &bare_platform,
		.format = world->format,
		.features = world->features,
		.maxphyaddr = world->maxphyaddr,
		.node = -1,
	};
	int error;

	bare_reset();
	error = mv_table_create(&config, &world->table);
	if (error)
		give_up("mv_table_create() returned -%u", (uint64_t)-error);
}

static void check(const struct mv_table *table)
{
	struct mv_table_defect defect;

	if (!mv_table_check(table, &defect))
		give_up("mv_table_check() found defect %u at %x, level %u, entry %x",
			(uint64_t)defect.kind, defect.address, (uint64_t)defect.level,
			defect.entry);
}

void world_make_stage2(struct world *world)
{
	bool placed;

	world->guest_table = NULL;
	world->maxphyaddr = cpuid(0x80000008, 0).eax & 0xff;
	choose_features(world);
	do {
		create(world);
		placed = one_in(&world->chance, 2) ? place_whole(world) : place_scattered(world);
		if (!placed) /* tables and code were to lie in the same place */
			world_end(world);
	} while (!placed);
	world->windows = 0;
	data_windows(world);
	check(world->table);
}

/* Tables by the library and by hand; accessed and dirty of stage 2 are nobody's business. */
void world_make_plain(struct world *world)
{
	const uint64_t bytes = GUEST_DATA_END - GUEST_RAM;

	world->guest_table = NULL;
	world->maxphyaddr = cpuid(0x80000008, 0).eax & 0xff;
	world->format = MV_FORMAT_EPT_4L;
	world->features = MV_FEATURE_2M;
	world->host_nx = true;
	create(world);
	if (!map(world, 0, bytes, GUEST_RAM, full_attr(world), 0))
		give_up("the guest's memory cannot be mapped");
	world->contiguous = one_in(&world->chance, 2);
	world->tables_gpa = GUEST_TABLES - GUEST_RAM;
	world->code_gpa = GUEST_CODE - GUEST_RAM;
	for (unsigned int i = 0; i < TABLES_MAX; i++)
		world->tables_hpa[i] = GUEST_TABLES + i * PAGE;
	world->windows = 0;
	add_window(world, GUEST_DATA - GUEST_RAM, GUEST_DATA, GUEST_DATA_END - GUEST_DATA,
		   full_attr(world));
	check(world->table);
}

void world_end(struct world *world)
{
	check(world->table);
	mv_table_destroy(world->table);
	if (world->guest_table) {
		check(world->guest_table);
		mv_table_destroy(world->guest_table);
		if (world->tables_freed != world->tables_used)
			give_up("the core kept %u pages of %u",
				(uint64_t)(world->tables_used - world->tables_freed),
				(uint64_t)world->tables_used);
	}
	world->table = world->guest_table = NULL;
	if (bare_pages_in_use() || bare_bytes_in_use())
		give_up("the core kept %u table pages and %u bytes", bare_pages_in_use(),
			bare_bytes_in_use());
}
