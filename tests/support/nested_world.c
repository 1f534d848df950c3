/* SPDX-License-Identifier: BSD-2-Clause */
/* A small machine at random; see nested_world.h. */
#include "support/nested_world.h"

#include <sys/mman.h>

#define PG   0x80000000u
#define LME  0x100u
#define NXE  0x800u
#define PAE  0x20u
#define PSE  0x10u
#define LA57 0x1000u

/* --- memory, and the two ways to it --------------------------------------------------------- */

static int read_memory(void *ctx, uint64_t hpa, unsigned int bytes, uint64_t *entry)
{
	const struct nested_world *world = ctx;

	if (hpa > WORLD_BYTES - bytes)
		return -EFAULT;
	*entry = 0;
	memcpy(entry, world->memory + hpa, bytes);
	return 0;
}

static int change_memory(void *ctx, uint64_t hpa, unsigned int bytes, uint64_t old, uint64_t entry)
{
	const struct nested_world *world = ctx;
	uint64_t now;
	int error = read_memory(ctx, hpa, bytes, &now);

	if (error)
		return error;
	if (now != old)
		return -EAGAIN;
	memcpy(world->memory + hpa, &entry, bytes);
	return 0;
}

static unsigned int mtrr_type(void *ctx, uint64_t hpa, unsigned int page_lg2)
{
	const struct nested_world *world = ctx;

	return world->mtrr;
}

void nested_world_open(struct nested_world *world)
{
	*world = (struct nested_world){ 0 };
	world->memory =
		mmap(NULL, WORLD_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	insist(world->memory != MAP_FAILED);
}

void nested_world_close(struct nested_world *world)
{
	munmap(world->memory, WORLD_BYTES);
}

/* --- what it is ----------------------------------------------------------------------------- */

bool nested_world_is_ept(const struct nested_world *world)
{
	return world->format2 == MV_FORMAT_EPT_4L || world->format2 == MV_FORMAT_EPT_5L;
}

static unsigned int stage2_levels(const struct nested_world *world)
{
	return world->format2 == MV_FORMAT_EPT_5L || world->format2 == MV_FORMAT_NPT_5L ? 5 : 4;
}

bool nested_world_is_32_bit(const struct nested_world *world)
{
	return !(world->registers.cr4 & PAE);
}

bool nested_world_is_long(const struct nested_world *world)
{
	return (world->registers.cr0 & PG) && (world->registers.efer & LME);
}

unsigned int nested_world_guest_levels(const struct nested_world *world)
{
	if (nested_world_is_32_bit(world))
		return 2;
	if (!nested_world_is_long(world))
		return 3;
	return world->registers.cr4 & LA57 ? 5 : 4;
}

unsigned int nested_world_stage2_frame(const struct nested_world *world, unsigned int level,
				       unsigned int *count)
{
	unsigned int top = stage2_levels(world);

	*count = level == top ? 1 : 3;
	return level == top ? 0 : 1 + (level - 1) * 3;
}

/* --- choices -----------------------------------------------------------------------------------
 */

static uint64_t some_of(struct chance *chance, uint64_t bits)
{
	return chance_next(chance) & bits;
}

/* Not one that a large page of stage 2, which begins at 0, would lead to tables of stage 2. */
static uint64_t guest_frame(struct chance *chance)
{
	return WORLD_STAGE2_FRAMES + chance_below(chance, WORLD_FRAMES - WORLD_STAGE2_FRAMES);
}

static uint64_t choose_pat(struct chance *chance)
{
	static const uint8_t types[] = { 0, 1, 4, 5, 6, 7 };
	uint64_t pat = 0;

	for (unsigned int i = 0; i < 8; i++)
		pat = pat << 8 | types[chance_below(chance, COUNT_OF(types))];
	return pat;
}

void nested_world_choose_stage2(struct nested_world *world, struct chance *chance)
{
	static const uint8_t mtrrs[] = { 0, 1, 4, 5, 6 };

	world->format2 = MV_FORMAT_EPT_4L + chance_below(chance, 4);
	world->features2 = (uint32_t)some_of(chance, 0x1ff);
	world->width = 36 + (unsigned int)chance_below(chance, 17);
	world->access_by_call = chance_one_in(chance, 3);
	world->bad = chance_one_in(chance, 4) ? 20 : chance_one_in(chance, 3) ? 100 : 1000;
	world->root2 = 0;
	world->host_pat = choose_pat(chance);
	world->mtrr = mtrrs[chance_below(chance, COUNT_OF(mtrrs))];
}

void nested_world_choose_registers(struct nested_world *world, struct chance *chance)
{
	struct mv_paging_registers *registers = &world->registers;
	uint64_t frame = guest_frame(chance);

	registers->cr0 = 1 | some_of(chance, 0x10000) | (chance_one_in(chance, 16) ? 0 : PG);
	registers->cr0 |= chance_one_in(chance, 8) ? 0x40000000 : 0;
	/* PGE, SMEP, SMAP, PKE, PKS */
	registers->cr4 = some_of(chance, 0x80 | 7u << 20 | 1u << 24 | PAE | PSE | LA57);
	registers->efer = some_of(chance, NXE);
	if (chance_one_in(chance, 3))
		registers->cr4 |= PAE;
	if ((registers->cr4 & PAE) && !chance_one_in(chance, 4))
		registers->efer |= LME;
	registers->cr3 = frame << 12;
	if (!nested_world_is_32_bit(world) && !nested_world_is_long(world))
		registers->cr3 |= chance_below(chance, 128) << 5;
	registers->pkru = (uint32_t)chance_next(chance);
	registers->pkrs = (uint32_t)chance_next(chance);
	world->cpu.maxphyaddr = 36 + (unsigned int)chance_below(chance, 17);
	world->cpu.features = (uint32_t)some_of(chance, MV_CPU_1G | MV_CPU_PSE36);
	world->guest_pat = choose_pat(chance);
}

/* --- entries -----------------------------------------------------------------------------------
 */

/*
 * An entry with a bit turned, without its leading out of memory. A large page stays one: as
 * a table it would lie among those of stage 2, whose entries a guest's walk takes anywhere.
 */
static uint64_t turn_bit(const struct nested_world *world, struct chance *chance,
			 unsigned int width, bool large, uint64_t entry)
{
	unsigned int bit = (unsigned int)chance_below(chance, 64);

	if (world->access_by_call)
		return entry ^ 1ull << bit;
	if (bit >= 12 && bit < width)
		bit = 7;
	return (entry ^ 1ull << bit) | (large ? 0x80 : 0);
}

static uint64_t rights_of_ept(const struct nested_world *world, struct chance *chance)
{
	if (chance_one_in(chance, 6))
		return some_of(chance, 0x407);
	return chance_one_in(chance, 6) ? 5 : 0x407;
}

static uint64_t ept_entry(const struct nested_world *world, struct chance *chance, bool page)
{
	static const uint8_t types[] = { 0, 1, 4, 5, 6 };
	uint64_t entry = rights_of_ept(world, chance) | (3ull << 8) | some_of(chance, 1ull << 63);

	if (chance_one_in(chance, 3))
		entry &= ~some_of(chance, 3ull << 8);
	if (page)
		entry |= (uint64_t)types[chance_below(chance, COUNT_OF(types))] << 3 |
			 some_of(chance, 0x40);
	return entry;
}

static uint64_t npt_entry(const struct nested_world *world, struct chance *chance,
			  unsigned int level)
{
	uint64_t entry = 0x67 | some_of(chance, level < 4 ? 0x118 : 0x18);

	if (chance_one_in(chance, 6))
		entry &= ~some_of(chance, 6);
	if (chance_one_in(chance, 3))
		entry &= ~some_of(chance, 0x60);
	if (chance_one_in(chance, 6) &&
	    ((world->features2 & MV_FEATURE_NX) || chance_one_in(chance, 8)))
		entry |= 1ull << 63;
	return entry;
}

uint64_t nested_world_stage2_entry(const struct nested_world *world, struct chance *chance,
				   unsigned int level)
{
	bool large = level > 1 && level < 4 && chance_one_in(chance, 5);
	uint64_t entry, frame;
	unsigned int count;

	if (chance_one_in(chance, world->bad))
		return chance_next(chance) & ~0x407ull &
		       (nested_world_is_ept(world) ? ~0ull : ~1ull);
	entry = nested_world_is_ept(world) ? ept_entry(world, chance, large || level == 1)
					   : npt_entry(world, chance, level);
	if (level > 1 && !large) {
		frame = nested_world_stage2_frame(world, level - 1, &count);
		frame += chance_below(chance, count);
	} else {
		frame = guest_frame(chance);
	}
	/* A large page begins at 0. It reaches the tables too, but tables of stage 2 only. */
	entry |= large ? 0x80 : frame << 12;
	if (large && !nested_world_is_ept(world))
		entry |= some_of(chance, 0x1000);
	if (chance_one_in(chance, world->bad))
		entry = turn_bit(world, chance, world->width, large, entry);
	return entry;
}

/* Where it has none, what would be a large page is a table: see turn_bit(). */
static bool has_large_pages(const struct nested_world *world)
{
	return !nested_world_is_32_bit(world) || (world->registers.cr4 & PSE);
}

uint64_t nested_world_guest_entry(const struct nested_world *world, struct chance *chance)
{
	uint64_t entry = 0x27 | some_of(chance, 0x158);
	bool large = has_large_pages(world) && chance_one_in(chance, 6);

	if (chance_one_in(chance, world->bad))
		return chance_next(chance) & ~1ull;
	if (chance_one_in(chance, 5))
		entry &= ~some_of(chance, 6);
	if (chance_one_in(chance, 5))
		entry &= ~0x20ull;
	if (!nested_world_is_32_bit(world) && chance_one_in(chance, 6) &&
	    (world->registers.efer & NXE))
		entry |= 1ull << 63;
	if (nested_world_is_long(world))
		entry |= some_of(chance, 0x78ull << 56);
	entry |= large ? 0x80 | some_of(chance, 0x1000) : guest_frame(chance) << 12;
	if (world->access_by_call && chance_one_in(chance, 6))
		entry ^= some_of(chance, (1ull << world->cpu.maxphyaddr) - (1ull << 21));
	if (chance_one_in(chance, world->bad))
		entry = turn_bit(world, chance, world->cpu.maxphyaddr, large, entry);
	return nested_world_is_32_bit(world) ? (uint32_t)entry : entry;
}

/* --- tables ------------------------------------------------------------------------------------
 */

static void fill_guest_frames(struct nested_world *world, struct chance *chance)
{
	const size_t first = WORLD_STAGE2_FRAMES * 4096ul;

	if (nested_world_is_32_bit(world))
		for (size_t at = first; at < WORLD_BYTES; at += 4)
			*(uint32_t *)(world->memory + at) =
				(uint32_t)nested_world_guest_entry(world, chance);
	else
		for (size_t at = first; at < WORLD_BYTES; at += 8)
			*(uint64_t *)(world->memory + at) = nested_world_guest_entry(world, chance);
}

/* The load of PDPTEs finds 32 bytes of a page; make them good ones now and then. */
static void fill_pdptes(struct nested_world *world, struct chance *chance)
{
	for (size_t at = WORLD_STAGE2_FRAMES * 4096ul; at < WORLD_BYTES; at += 8)
		*(uint64_t *)(world->memory + at) &= chance_one_in(chance, 20) ? ~0ull : ~0x1e6ull;
}

static void fill_stage2_frames(struct nested_world *world, struct chance *chance)
{
	for (unsigned int level = stage2_levels(world); level > 0; level--) {
		unsigned int count, first = nested_world_stage2_frame(world, level, &count);

		for (size_t i = first * 512ul; i < (first + count) * 512ul; i++)
			((uint64_t *)world->memory)[i] =
				nested_world_stage2_entry(world, chance, level);
	}
}

void nested_world_fill_tables(struct nested_world *world, struct chance *chance)
{
	fill_stage2_frames(world, chance);
	fill_guest_frames(world, chance);
	if (nested_world_guest_levels(world) == 3 && chance_one_in(chance, 2))
		fill_pdptes(world, chance);
}

void nested_world_prepare(struct nested_world *world)
{
	const struct mv_guest_accessor accessor = { read_memory, change_memory, world };
	struct mv_stage2_config config2 = {
		.size = sizeof(config2),
		.format = world->format2,
		.features = world->features2,
		.maxphyaddr = world->width,
		.root = world->root2,
		.direct_map = (uintptr_t)world->memory,
	};
	struct mv_stage2 stage2;
	struct mv_nested_config config = {
		.size = sizeof(config),
		.stage2 = &stage2,
		.direct_map = (uintptr_t)world->memory,
		.guest_pat = world->guest_pat,
		.host_pat = world->host_pat,
		.mtrr_type = mtrr_type,
		.mtrr_ctx = world,
		.log = world->log,
	};
	struct mv_paging paging;

	if (world->access_by_call)
		config2.accessor = config.frames = accessor;
	insist(!mv_stage2_init(&stage2, &config2));
	insist(!mv_nested_init(&world->nested, &config));
	insist(!mv_paging_init(&paging, &world->registers, &world->cpu));
	mv_nested_set_paging(&world->nested, &paging);
}

void nested_world_fill(struct nested_world *world, struct chance *chance)
{
	nested_world_choose_stage2(world, chance);
	nested_world_choose_registers(world, chance);
	nested_world_fill_tables(world, chance);
	nested_world_prepare(world);
}

/* --- walks -------------------------------------------------------------------------------------
 */

uint64_t nested_world_gva(const struct nested_world *world, struct chance *chance)
{
	uint64_t gva = chance_next(chance);

	if (!nested_world_is_long(world))
		return (uint32_t)gva;
	if (chance_one_in(chance, 32))
		return gva;
	if (world->registers.cr4 & LA57)
		return (uint64_t)((int64_t)(gva << 7) >> 7);
	return (uint64_t)((int64_t)(gva << 16) >> 16);
}

unsigned int nested_world_access(struct chance *chance)
{
	static const unsigned int kinds[] = { 0,
					      MV_ACCESS_READ,
					      MV_ACCESS_READ,
					      MV_ACCESS_WRITE,
					      MV_ACCESS_WRITE,
					      MV_ACCESS_READ | MV_ACCESS_WRITE,
					      MV_ACCESS_FETCH };
	unsigned int access = kinds[chance_below(chance, COUNT_OF(kinds))];

	access |= chance_next(chance) & (MV_ACCESS_USER | MV_ACCESS_AC);
	if (chance_one_in(chance, 10))
		access |= MV_ACCESS_IMPLICIT;
	if (chance_one_in(chance, 10))
		access |= MV_ACCESS_NO_UPDATE;
	return access;
}
