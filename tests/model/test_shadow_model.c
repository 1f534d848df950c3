/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow tables against the pure walk: random guests on a machine that obeys the shadow's every
 * outcome, and after each access the judgement of shadow_machine.h. An access that makes no fault
 * must be one that the guest's tables allow, as they are or as they were at some moment since
 * the vCPU's last invalidation; each fault that the guest gets must be its own, with its error
 * code; accessed and dirty are as the pure walk sets them.
 *
 * Guests have a few table pages, linked at random but mostly level by level, some of them mapped as
 * data, and write them through these mappings too.
 *
 * OPS says how many steps in total; by default about half a minute of them. WORLD=n runs only that guest of
 * a SEED, and VERBOSE=1 tells each step.
 */
#include "support/shadow_machine.h"

#define OPS_DEFAULT 20000000ULL
#define WORLD_STEPS 5000
#define POOL	    24 /* pages that are meant as tables, from 0 */
#define RECENT	    16
#define TRACKS	    3 /* ranges that are tracked at once */

/* Bits of entries. */
#define P  0x001ULL
#define W  0x002ULL
#define U  0x004ULL
#define A  0x020ULL
#define D  0x040ULL
#define PS 0x080ULL
#define G  0x100ULL
#define NX (1ULL << 63)

/**
 * struct world - one random guest
 * @mode:   of most vCPUs
 * @root:   page of the table that is most often loaded
 * @recent: addresses to come back to
 * @tracks: ranges that are tracked: first page, and how many, or 0
 */
struct world {
	struct shadow_machine machine;
	struct chance chance;
	enum sref_mode mode;
	uint64_t root;
	uint64_t recent[RECENT];
	unsigned int recents;
	struct {
		uint64_t first, pages;
	} tracks[TRACKS];
	bool verbose;
};

#define tell(world, ...) ((world)->verbose ? print_message("# " __VA_ARGS__) : (void)0)

static uint64_t below(struct world *world, uint64_t limit)
{
	return chance_below(&world->chance, limit);
}

static bool percent(struct world *world, unsigned int chances)
{
	return below(world, 100) < chances;
}

static bool is_narrow(enum sref_mode mode)
{
	return mode == SREF_32 || mode == SREF_PSE;
}

static unsigned int levels_of(enum sref_mode mode)
{
	static const unsigned int levels[SREF_MODES] = { 1, 2, 2, 3, 4, 5 };

	return levels[mode];
}

/* --- entries and addresses by chance -------------------------------------------------------- */

static uint64_t any_index(struct world *world, bool narrow)
{
	static const uint16_t wide[] = { 0, 1, 2, 3, 511 };
	static const uint16_t thin[] = { 0, 1, 2, 512, 1023 };

	return narrow ? thin[below(world, COUNT_OF(thin))] : wide[below(world, COUNT_OF(wide))];
}

static uint64_t any_gva(struct world *world, enum sref_mode mode)
{
	unsigned int levels = levels_of(mode), bits = is_narrow(mode) ? 10 : 9;
	uint64_t gva = 0;

	if (world->recents && percent(world, 75))
		return world->recent[below(world, world->recents)];
	if (mode == SREF_OFF)
		return below(world, 6000) << 12 | (any_index(world, false) << 3);
	for (unsigned int level = levels; level >= 1; level--) {
		uint64_t index = any_index(world, is_narrow(mode));

		if (mode == SREF_PAE && level == 3)
			index &= 3;
		if (level == levels && level >= 4 && percent(world, 60))
			index = 0;
		gva = gva << bits | index;
	}
	gva = gva << 12 | any_index(world, is_narrow(world->mode))
				  << (is_narrow(world->mode) ? 2 : 3);
	if (levels >= 4 && !percent(world, 1))
		gva = (uint64_t)((int64_t)(gva << (52 - 9 * levels)) >> (52 - 9 * levels));
	return gva & ~7ULL;
}

/* Addresses that lead somewhere are worth to be come back to. */
static void note_recent(struct world *world, const struct sm_access *access)
{
	bool good = access->end == SM_DONE || access->end == SM_EMULATED;

	if (!percent(world, good ? 80 : 3))
		return;
	world->recent[world->recents < RECENT ? world->recents++ : below(world, RECENT)] =
		access->gva & ~7ULL;
}

/* Where an entry of a level of the world's mode leads. */
static uint64_t any_frame(struct world *world, unsigned int level)
{
	unsigned int levels = levels_of(world->mode);

	if (percent(world, 2))
		return SREF_HOLE_FIRST + (below(world, 1024) << 12);
	if (level > 1 && percent(world, 90))
		return (level - 2 + levels * below(world, POOL / levels)) << 12;
	if (percent(world, 40))
		return below(world, POOL) << 12;
	if (percent(world, 50))
		return (POOL + below(world, 8)) << 12;
	return (below(world, SREF_PAGES) << 12) | (percent(world, 50) ? SREF_HOLE_LAST + 1 : 0);
}

static uint64_t any_large(struct world *world, unsigned int level)
{
	unsigned int lg2 = is_narrow(world->mode) ? 22 : level == 3 ? 30 : 21;
	uint64_t at = percent(world, 70) ? 0 : below(world, SREF_BYTES);

	return at & ~((1ULL << lg2) - 1);
}

static uint64_t any_reserved(struct world *world)
{
	return 1ULL << (percent(world, 50) ? 12 + below(world, 10) : 36 + below(world, 28));
}

/* An entry as the world's mode has them. */
static uint64_t any_entry(struct world *world, unsigned int level)
{
	static const unsigned int large_percent[] = { 0, 0, 15, 6, 1, 1 };
	bool large = percent(world, large_percent[level]);
	uint64_t entry = large ? any_large(world, level) | PS : any_frame(world, level);

	if (percent(world, 3))
		return 0;
	entry |= percent(world, 96) ? P : 0;
	entry |= percent(world, 92) ? W : 0;
	entry |= percent(world, 88) ? U : 0;
	entry |= percent(world, 60) ? A : 0;
	entry |= percent(world, 60) ? D : 0;
	entry |= percent(world, level < 3 ? 20 : 2) ? G : 0;
	entry |= percent(world, 5) && !is_narrow(world->mode) ? NX : 0;
	entry ^= percent(world, 1) ? any_reserved(world) : 0;
	return is_narrow(world->mode) ? (uint32_t)entry : entry;
}

/* The level that a page of the pool is meant for. */
static unsigned int level_of(struct world *world, uint64_t gpa)
{
	return 1 + (unsigned int)((gpa >> 12) % levels_of(world->mode));
}

/* Two entries where they are narrow: a store of eight bytes. */
static uint64_t any_word(struct world *world, uint64_t gpa)
{
	uint64_t entry = any_entry(world, level_of(world, gpa));

	if (is_narrow(world->mode))
		entry |= any_entry(world, level_of(world, gpa)) << 32;
	return entry;
}

/* --- registers by chance -------------------------------------------------------------------- */

static uint64_t any_root(struct world *world, enum sref_mode mode)
{
	unsigned int levels = levels_of(world->mode);
	uint64_t page = levels - 1 + levels * below(world, POOL / levels);

	if (percent(world, 60))
		return world->root << 12;
	if (percent(world, 1))
		return percent(world, 50) ? SREF_HOLE_FIRST : below(world, SREF_PAGES) << 12;
	return page << 12 | (mode == SREF_PAE && percent(world, 20) ? 32 * below(world, 3) : 0);
}

static enum sref_mode any_mode(struct world *world)
{
	if (percent(world, 85))
		return world->mode;
	return below(world, SREF_MODES);
}

static void any_registers(struct world *world, enum sref_mode mode,
			  struct mv_paging_registers *registers)
{
	sm_registers(mode, any_root(world, mode), registers);
	registers->cr0 &= percent(world, 35) ? ~SM_CR0_WP : ~0ULL;
	registers->efer &= percent(world, 15) ? ~SM_EFER_NXE : ~0ULL;
	registers->cr4 |= percent(world, 40) ? SM_CR4_SMEP : 0;
	registers->cr4 |= percent(world, 30) ? SM_CR4_SMAP : 0;
	registers->cr4 |= percent(world, 50) ? SM_CR4_PGE : 0;
	if (mode >= SREF_4L && percent(world, 50)) {
		registers->cr4 |= SM_CR4_PCIDE;
		registers->cr3 |= below(world, SM_PCIDS);
	}
}

static void change_mode(struct world *world, unsigned int vcpu)
{
	struct mv_paging_registers registers = world->machine.vcpus[vcpu].cpu.registers;
	enum sref_mode mode = sref_mode(&world->machine.vcpus[vcpu].cpu);
	static const uint64_t cr4[] = { SM_CR4_SMEP, SM_CR4_SMAP, SM_CR4_PGE };

	if (percent(world, 30))
		any_registers(world, any_mode(world), &registers);
	else if (percent(world, 30))
		registers.cr0 ^= SM_CR0_WP;
	else if (mode >= SREF_PAE && percent(world, 20))
		registers.efer ^= SM_EFER_NXE;
	else
		registers.cr4 ^= cr4[below(world, COUNT_OF(cr4))];
	tell(world, "mode: vcpu %u cr0 %#lx cr3 %#lx cr4 %#lx efer %#lx\n", vcpu,
	     (long)registers.cr0, (long)registers.cr3, (long)registers.cr4, (long)registers.efer);
	sm_load(&world->machine, vcpu, &registers, false);
}

static void load_root(struct world *world, unsigned int vcpu)
{
	struct mv_paging_registers registers = world->machine.vcpus[vcpu].cpu.registers;
	bool pcids = registers.cr4 & SM_CR4_PCIDE;
	bool preserve = pcids && percent(world, 60);

	if (percent(world, 70))
		registers.cr3 = any_root(world, sref_mode(&world->machine.vcpus[vcpu].cpu)) |
				(pcids ? below(world, SM_PCIDS) : 0);
	tell(world, "cr3: vcpu %u %#lx preserve %d\n", vcpu, (long)registers.cr3, preserve);
	sm_load(&world->machine, vcpu, &registers, preserve);
}

/* --- steps ---------------------------------------------------------------------------------- */

static unsigned int any_access(struct world *world)
{
	unsigned int access = percent(world, 50)   ? MV_ACCESS_WRITE
			      : percent(world, 70) ? MV_ACCESS_READ
						   : MV_ACCESS_FETCH;

	access |= percent(world, 45) ? MV_ACCESS_USER : 0;
	access |= percent(world, 30) ? MV_ACCESS_AC : 0;
	if (!(access & (MV_ACCESS_USER | MV_ACCESS_FETCH)) && percent(world, 10))
		access |= MV_ACCESS_IMPLICIT;
	return access;
}

static void step_access(struct world *world, unsigned int vcpu)
{
	static const uint8_t sizes[] = { 8, 4, 2, 1 };
	struct shadow_machine *machine = &world->machine;
	enum sref_mode mode = sref_mode(&machine->vcpus[vcpu].cpu);
	struct sm_access access = {
		.gva = any_gva(world, mode),
		.kind = any_access(world),
		.bytes = sizes[percent(world, 90) ? 0 : below(world, COUNT_OF(sizes))],
	};
	struct sref_result there;

	if (mode <= SREF_PAE)
		access.gva = (uint32_t)access.gva;
	sref_look(&machine->ref, &machine->vcpus[vcpu].cpu, access.gva, access.kind, &there);
	access.value = any_word(world, there.gpa % (POOL << 12));
	sm_access(machine, vcpu, &access);
	note_recent(world, &access);
	tell(world,
	     "access: vcpu %u gva %#lx kind %#x value %#lx/%u: end %d error %#x gpa %#lx, %u\n",
	     vcpu, (long)access.gva, access.kind, (long)access.value, access.bytes, access.end,
	     access.error, (long)access.gpa, access.faults);
}

static void step_emulate(struct world *world)
{
	bool narrow = is_narrow(world->mode);
	uint64_t gpa = below(world, POOL) << 12;
	uint64_t value = any_word(world, gpa);
	unsigned int bytes = narrow ? 4 : 8;

	gpa += any_index(world, narrow) * bytes;
	if (percent(world, 20)) { /* a part of an entry, or of two */
		gpa += below(world, 8);
		bytes = 1 + (unsigned int)below(world, 8);
	}
	if (percent(world, 30)) { /* some bits of what there is */
		value = sref_read(&world->machine.ref, gpa, bytes);
		value ^= 1ULL << below(world, 8);
	}
	if ((gpa & 4095) + bytes > 4096)
		bytes = 4096 - (gpa & 4095);
	tell(world, "emulate: gpa %#lx %#lx/%u\n", (long)gpa, (long)value, bytes);
	sm_emulate(&world->machine, gpa, &value, bytes);
}

static void step_invalidate(struct world *world, unsigned int vcpu)
{
	struct shadow_machine *machine = &world->machine;
	struct sref_cpu *cpu = &machine->vcpus[vcpu].cpu;
	uint64_t gva = any_gva(world, sref_mode(cpu));
	unsigned int pcid = (unsigned int)below(world, SM_PCIDS);
	enum mv_invpcid type = below(world, 4);

	if (percent(world, 80)) {
		tell(world, "invlpg: vcpu %u gva %#lx\n", vcpu, (long)gva);
		sm_invlpg(machine, vcpu, gva);
	} else if (percent(world, 70)) {
		pcid = cpu->registers.cr4 & SM_CR4_PCIDE ? pcid : 0;
		tell(world, "invpcid: vcpu %u type %d pcid %u gva %#lx\n", vcpu, type, pcid,
		     (long)gva);
		sm_invpcid(machine, vcpu, type, pcid, gva);
	} else {
		tell(world, "flush: vcpu %u\n", vcpu);
		sm_flush(machine, vcpu, percent(world, 50));
	}
}

static void step_discard(struct world *world)
{
	uint64_t page = percent(world, 10) ? below(world, POOL) : below(world, SREF_PAGES - 1);

	if (!sref_is_memory(page << 12) || !sref_is_memory((page + 1) << 12))
		return;
	tell(world, "discard: gpa %#lx\n", (long)page << 12);
	sm_discard(&world->machine, page << 12, 1 + below(world, 2));
}

/* A range of pages, most of which are in use, in one region. */
static uint64_t any_range(struct world *world, uint64_t *pages)
{
	uint64_t first = percent(world, 70) ? below(world, 2 * POOL) : below(world, SREF_PAGES);

	*pages = 1 + below(world, 32);
	if (!sref_is_memory(first << 12) || !sref_is_memory((first + *pages - 1) << 12))
		first = 0;
	return first;
}

static void step_track(struct world *world)
{
	unsigned int i = (unsigned int)below(world, TRACKS);
	uint64_t pages, first = any_range(world, &pages);

	if (world->tracks[i].pages) {
		first = world->tracks[i].first;
		pages = world->tracks[i].pages;
		tell(world, "untrack: page %#lx, %lu\n", (long)first, (long)pages);
		sm_untrack(&world->machine, first, pages);
		world->tracks[i].pages = 0;
		return;
	}
	tell(world, "track: page %#lx, %lu\n", (long)first, (long)pages);
	sm_track(&world->machine, first, pages);
	world->tracks[i].first = first;
	world->tracks[i].pages = pages;
}

static void step_log(struct world *world)
{
	struct shadow_machine *machine = &world->machine;
	uint64_t pages, first = any_range(world, &pages);
	unsigned int region = first << 12 > SREF_HOLE_LAST;

	if (!machine->logged[region] || percent(world, 2)) {
		tell(world, "log: region %u %d\n", region, !machine->logged[region]);
		sm_log(machine, region, !machine->logged[region]);
	} else {
		tell(world, "harvest: page %#lx, %lu\n", (long)first, (long)pages);
		sm_harvest(machine, first, pages);
	}
}

static void step_range(struct world *world)
{
	uint64_t pages, first = any_range(world, &pages);

	switch (below(world, 6)) {
	case 0:
		tell(world, "zap: page %#lx, %lu\n", (long)first, (long)pages);
		sm_zap(&world->machine, first, pages);
		break;
	case 1:
	case 2:
		tell(world, "age: page %#lx, %lu\n", (long)first, (long)pages);
		sm_age(&world->machine, first, pages);
		break;
	case 3:
		step_track(world);
		break;
	case 4:
		step_log(world);
		break;
	default:
		tell(world, "reclaim\n");
		mv_shadow_reclaim(world->machine.shadow);
	}
}

/* The log of what words held is full: nobody may remember anything. */
static void make_room(struct world *world)
{
	struct shadow_machine *machine = &world->machine;

	if (sref_has_room(&machine->ref))
		return;
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		sm_invpcid(machine, i, MV_INVPCID_ALL_GLOBAL, 0, 0);
	tell(world, "all forget\n");
	sref_forget(&machine->ref);
}

static void step(struct world *world)
{
	unsigned int vcpu = (unsigned int)below(world, world->machine.vcpu_count);
	uint64_t what = below(world, 1000);

	make_room(world);
	if (what < 668)
		step_access(world, vcpu);
	else if (what < 680)
		step_range(world);
	else if (what < 800)
		step_emulate(world);
	else if (what < 920)
		step_invalidate(world, vcpu);
	else if (what < 970)
		load_root(world, vcpu);
	else if (what < 988)
		change_mode(world, vcpu);
	else if (what < 994)
		step_discard(world);
	else
		world->machine.busy = 1 + (unsigned int)below(world, 2);
}

/* --- worlds --------------------------------------------------------------------------------- */

static void fill_tables(struct world *world)
{
	bool narrow = is_narrow(world->mode);

	for (uint64_t page = 0; page < POOL; page++)
		for (unsigned int i = 0; i < 12; i++) {
			uint64_t gpa = (page << 12) + any_index(world, narrow) * (narrow ? 4 : 8);

			sm_set(&world->machine, gpa & ~7ULL, any_word(world, gpa));
		}
}

static void start_vcpu(struct world *world, unsigned int number)
{
	struct mv_cpu_model *model = &world->machine.vcpus[number].cpu.model;
	struct mv_paging_registers registers;

	model->maxphyaddr = 36 + (unsigned int)below(world, 17);
	model->features = (uint32_t)below(world, 8);
	do
		any_registers(world, any_mode(world), &registers);
	while (sm_load(&world->machine, number, &registers, false));
}

static void set_host(struct world *world)
{
	static const size_t budgets[] = { 64, 64, 96, 1024 };
	struct shadow_machine *machine = &world->machine;

	world->mode = 1 + below(world, SREF_MODES - 1);
	machine->format =
		world->mode == SREF_5L || percent(world, 50) ? MV_FORMAT_X86_5L : MV_FORMAT_X86_4L;
	machine->features = MV_FEATURE_NX | (percent(world, 50) ? MV_FEATURE_1G : 0);
	machine->maxphyaddr = 48 + (unsigned int)below(world, 5);
	machine->budget = budgets[below(world, COUNT_OF(budgets))];
	machine->large = percent(world, 70);
	machine->tlb = percent(world, 50);
	world->root = levels_of(world->mode) - 1;
	world->recents = 0;
	memset(world->tracks, 0, sizeof(world->tracks));
}

static void run_world(struct world *world, uint64_t seed, uint64_t number, uint64_t steps)
{
	struct shadow_machine *machine = &world->machine;

	world->chance = chance_of(seed, number);
	machine->now.world = number;
	set_host(world);
	tell(world, "world %lu: mode %d host %d budget %zu large %d tlb %d\n", (long)number,
	     world->mode, machine->format, machine->budget, machine->large, machine->tlb);
	sm_open(machine, 1 + (unsigned int)below(world, SM_VCPUS));
	for (unsigned int i = 0; i < 4; i++)
		sm_set_read_only(machine, below(world, 2 * POOL) << 12, percent(world, 60));
	fill_tables(world);
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		start_vcpu(world, i);
	for (uint64_t i = 0; i < steps; i++) {
		step(world);
		if (i % 512 == 511)
			sm_compare(machine, 0, POOL + 8);
	}
	sm_compare_all(machine);
	sm_close(machine);
}

static void say_counts(const struct sm_counts *counts)
{
	print_message(
		"# %llu accesses, %llu without a fault, %llu through what was stale, %llu faults: "
		"%llu fixed, %llu injected, %llu + %llu emulated, %llu MMIO, %llu again\n",
		(unsigned long long)counts->accesses, (unsigned long long)counts->hits,
		(unsigned long long)counts->stale, (unsigned long long)counts->faults,
		(unsigned long long)counts->kinds[MV_SHADOW_FIXED],
		(unsigned long long)counts->kinds[MV_SHADOW_INJECT],
		(unsigned long long)counts->kinds[MV_SHADOW_EMULATE_WRITE],
		(unsigned long long)counts->kinds[MV_SHADOW_EMULATE_RIGHTS],
		(unsigned long long)counts->kinds[MV_SHADOW_MMIO],
		(unsigned long long)counts->kinds[MV_SHADOW_RETRY]);
}

static void a_shadow_shows_what_the_guests_tables_say(void **state)
{
	const char *given = getenv("OPS"), *one = getenv("WORLD");
	uint64_t total = given ? strtoull(given, NULL, 0) : test_rounds(OPS_DEFAULT);
	uint64_t seed = test_seed(), worlds = total / WORLD_STEPS + 1;
	struct world *world = calloc(1, sizeof(*world));
	const struct sm_counts *counts = &world->machine.counts;

	assert_non_null(world);
	sm_map(&world->machine);
	world->verbose = getenv("VERBOSE");
	for (uint64_t i = 0; i < worlds; i++)
		if (!one || strtoull(one, NULL, 0) == i)
			run_world(world, seed, i, WORLD_STEPS);
	say_counts(counts);
	/* What never happened was not tried. */
	if (total >= 1000000 && !one) {
		for (unsigned int kind = 0; kind < MV_SHADOW_KINDS; kind++)
			assert_true(counts->kinds[kind]);
	}
	sm_unmap(&world->machine);
	free(world);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_shadow_shows_what_the_guests_tables_say),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
