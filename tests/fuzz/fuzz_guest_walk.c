/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest walk over arbitrary registers and memory. Whatever they are: it ends after a
 * bounded number of reads, reads only through the accessor, says the same twice, says what the
 * predicate says of the entries that it read, and sets accessed and dirty where it should.
 *
 * Input: a byte of flags, registers, accesses, and words of memory; see take_registers() and
 * LLVMFuzzerTestOneInput().
 */
#include "support/fuzz_input.h"
#include "support/guest_predicate.h"
#include "support/testing.h"

#define ATTEMPTS 64 /* that the walk may make */
#define LEAVES	 64 /* that are looked at */

#define FLAG_FOLDED 0x01
#define FLAG_REFUSE 0x02

struct fuzz {
	struct fuzz_memory memory;
	uint64_t before[FUZZ_WORDS];
	struct mv_paging paging;
	struct guest_world world;
};

static struct fuzz fuzz;

/* --- registers ------------------------------------------------------------------------------ */

static enum guest_mode mode_of(const struct mv_paging_registers *registers)
{
	if (!(registers->cr4 & 0x20))
		return registers->cr4 & 0x10 ? GUEST_PSE : GUEST_32;
	if (!(registers->efer & 0x100))
		return GUEST_PAE;
	return registers->cr4 & 0x1000 ? GUEST_5L : GUEST_4L;
}

static void describe(const struct mv_paging_registers *registers, const struct mv_cpu_model *cpu,
		     struct guest_world *world)
{
	*world = (struct guest_world){
		.mode = mode_of(registers),
		.wp = registers->cr0 >> 16 & 1,
		.nxe = registers->efer >> 11 & 1,
		.smep = registers->cr4 >> 20 & 1,
		.smap = registers->cr4 >> 21 & 1,
		.pke = registers->cr4 >> 22 & 1,
		.pks = registers->cr4 >> 24 & 1,
		.pages_1g = cpu->features & MV_CPU_1G,
		.pse36 = cpu->features & MV_CPU_PSE36,
		.amd = cpu->features & MV_CPU_AMD,
		.width = cpu->maxphyaddr,
		.pkru = registers->pkru,
		.pkrs = registers->pkrs,
	};
	guest_world_prepare(world);
}

/* Return: whether a processor could be in that state. */
static bool take_registers(struct fuzz_input *input)
{
	struct mv_paging_registers registers;
	struct mv_cpu_model cpu;

	registers.cr0 = fuzz_take(input, 4);
	registers.cr3 = fuzz_take(input, 8);
	registers.cr4 = fuzz_take(input, 4);
	registers.efer = fuzz_take(input, 2);
	registers.pkru = (uint32_t)fuzz_take(input, 4);
	registers.pkrs = (uint32_t)fuzz_take(input, 4);
	cpu.maxphyaddr = (unsigned int)fuzz_take(input, 1);
	cpu.features = (uint32_t)fuzz_take(input, 1);
	if (mv_paging_init(&fuzz.paging, &registers, &cpu))
		return false;
	describe(&registers, &cpu, &fuzz.world);
	return true;
}

/* --- what holds of a walk ------------------------------------------------------------------- */

/* LAM included: the bits that must be like bit 63. SDM vol. 3, 4.5.1. */
static bool is_canonical(uint64_t gva, unsigned int access)
{
	const struct mv_paging_registers *registers = &fuzz.paging.registers;
	unsigned int width = fuzz.world.mode == GUEST_5L ? 57 : 48;
	unsigned int low = width - 1, high = 62;

	if (fuzz.world.mode < GUEST_4L)
		return true;
	if (!(access & (MV_ACCESS_FETCH | MV_ACCESS_IMPLICIT))) {
		if (gva >> 63)
			high = registers->cr4 >> 28 & 1 ? width - 1 : high;
		else if (registers->cr3 >> 61 & 1)
			high = 56;
		else if (registers->cr3 >> 62 & 1)
			high = 47;
	}
	if (high < low)
		low = high;
	for (unsigned int bit = low; bit <= high; bit++)
		if ((gva >> bit & 1) != gva >> 63)
			return false;
	return true;
}

/* The entries lie where those above them say. */
static void check_steps(const struct mv_walk *walk, uint64_t gva)
{
	uint64_t table = fuzz.paging.root;
	unsigned int bytes = fuzz.world.mode <= GUEST_PSE ? 4 : 8;

	insist(walk->steps == fuzz.world.levels + 1 - walk->level);
	for (unsigned int i = 0; i < walk->steps; i++) {
		const struct mv_walk_step *step = &walk->step[i];
		uint64_t index;

		insist(step->level == fuzz.world.levels - i);
		index = guest_index(&fuzz.world, step->level, gva);
		/* LAM48 with 5 levels: the sign takes the place of the tag. */
		if (step->level < 5 || fuzz.world.mode != GUEST_5L)
			insist(step->gpa == table + index * bytes);
		table = step->entry & (bytes == 4 ? 0xfffff000 : 0xffffffffff000);
	}
}

static struct guest_access facts(unsigned int access)
{
	return (struct guest_access){
		.read = access & MV_ACCESS_READ,
		.write = access & MV_ACCESS_WRITE,
		.fetch = access & MV_ACCESS_FETCH,
		.user = access & MV_ACCESS_USER,
		.implicit = access & MV_ACCESS_IMPLICIT,
		.ac = access & MV_ACCESS_AC,
		.shadow_stack = access & MV_ACCESS_SHADOW_STACK,
	};
}

static void check_end(const struct mv_walk *walk, const struct guest_expected *expected)
{
	insist(walk->level == expected->level);
	if (expected->outcome == GUEST_FAULT) {
		insist(walk->kind == MV_WALK_PAGE_FAULT);
		insist(walk->error_code == expected->error);
		return;
	}
	insist(walk->kind == MV_WALK_OK);
	insist(walk->gpa == expected->gpa && walk->page_lg2 == expected->page_lg2);
	insist(!!(walk->attr & MV_ATTR_WRITE) == expected->may_write);
	insist(!!(walk->attr & MV_ATTR_EXEC) == expected->may_fetch);
	insist(!!(walk->attr & MV_ATTR_USER) == expected->may_user);
}

/* Of the entries that were read; the predicate ends where the walk did, or they differ. */
static void expect(const struct mv_walk *walk, uint64_t gva, unsigned int access,
		   struct guest_expected *expected)
{
	struct guest_world *world = &fuzz.world;
	const struct guest_access as = facts(access);
	uint64_t entry[6] = { 0 };

	for (unsigned int i = 0; i < walk->steps; i++) {
		unsigned int level = walk->step[i].level;

		entry[level] = walk->step[i].entry;
		world->table[level - 1] =
			entry[level] & (world->mode <= GUEST_PSE ? 0xfffff000 : 0xffffffffff000);
	}
	guest_predict(world, entry, gva, &as, expected);
}

/* The memory is as it was, but for the marks that the predicate expects. */
static void check_marks(const struct mv_walk *walk, const struct guest_expected *expected)
{
	for (unsigned int i = 0; walk->kind == MV_WALK_OK && i < walk->steps; i++) {
		const struct mv_walk_step *step = &walk->step[i];
		uint64_t marks = expected->after[step->level] & ~step->entry;
		size_t offset = step->gpa % sizeof(fuzz.before);
		uint64_t word;

		if (fuzz.world.mode == GUEST_PAE && step->level == 3)
			continue;
		memcpy(&word, (char *)fuzz.before + (offset & ~7UL), 8);
		word |= marks << 8 * (offset & 4);
		memcpy((char *)fuzz.before + (offset & ~7UL), &word, 8);
	}
	insist(!memcmp(fuzz.before, fuzz.memory.word, sizeof(fuzz.before)));
}

static bool same(const struct mv_walk *a, const struct mv_walk *b)
{
	return a->kind == b->kind && a->gpa == b->gpa && a->page_lg2 == b->page_lg2 &&
	       a->error_code == b->error_code && a->level == b->level && a->steps == b->steps &&
	       /* What is set on the way is no difference. */
	       !((a->attr ^ b->attr) & ~(MV_ATTR_ACCESSED | MV_ATTR_DIRTY));
}

/* --- walks ----------------------------------------------------------------------------------- */

/* A look: nothing is set, few reads are made, and twice the same is said. */
static int look(uint64_t gva, unsigned int access, struct mv_walk *walk)
{
	struct fuzz_memory *memory = &fuzz.memory;
	struct mv_walk again;
	int error, second;

	fuzz_memory_rewind(memory);
	access |= MV_ACCESS_NO_UPDATE;
	error = mv_guest_walk(&fuzz.paging, &memory->accessor, gva, access, walk);
	insist(memory->reads <= 5 && !memory->changes);
	second = mv_guest_walk(&fuzz.paging, &memory->accessor, gva, access, &again);
	insist(error == second && (error || same(walk, &again)));
	insist(!error || error == -EFAULT);
	return error;
}

static void walk_and_mark(uint64_t gva, unsigned int access, const struct mv_walk *looked,
			  const struct guest_expected *expected)
{
	struct fuzz_memory *memory = &fuzz.memory;
	struct mv_walk walk;

	memcpy(fuzz.before, memory->word, sizeof(fuzz.before));
	fuzz_memory_rewind(memory);
	insist(!mv_guest_walk(&fuzz.paging, &memory->accessor, gva, access, &walk));
	insist(same(&walk, looked));
	insist(memory->reads <= 5 * 6);
	if (access & MV_ACCESS_NO_UPDATE)
		insist(!memory->changes);
	else
		check_marks(looked, expected);
	/* All is set now. */
	fuzz_memory_rewind(memory);
	insist(!mv_guest_walk(&fuzz.paging, &memory->accessor, gva, access, &walk));
	insist(!memory->changes || (access & MV_ACCESS_NO_UPDATE));
}

/* A guest that is faster than the walk, so many times. */
static void walk_refused(uint64_t gva, unsigned int access, unsigned int times)
{
	struct fuzz_memory *memory = &fuzz.memory;
	struct mv_walk walk;
	int error;

	fuzz_memory_rewind(memory);
	memory->refuse = times;
	error = mv_guest_walk(&fuzz.paging, &memory->accessor, gva, access, &walk);
	insist(!error || error == -EAGAIN || error == -EFAULT);
	insist(memory->reads <= 5 * ATTEMPTS && memory->changes <= 5 * ATTEMPTS);
}

static void try_access(uint64_t gva, unsigned int access, unsigned int refuse)
{
	struct guest_expected expected;
	struct mv_walk walk;

	if (refuse)
		walk_refused(gva, access, refuse);
	if (look(gva, access, &walk))
		return;
	insist((walk.kind == MV_WALK_NOT_CANONICAL) ==
	       (fuzz.paging.enabled && !is_canonical(gva, access)));
	if (walk.kind == MV_WALK_NOT_CANONICAL)
		return;
	if (!fuzz.paging.enabled) {
		insist(walk.kind == MV_WALK_OK && walk.gpa == (uint32_t)gva && !walk.steps);
		return;
	}
	check_steps(&walk, gva);
	expect(&walk, gva, access, &expected);
	check_end(&walk, &expected);
	walk_and_mark(gva, access, &walk, &expected);
}

/* --- leaves ---------------------------------------------------------------------------------- */

struct seen {
	uint64_t address;
	unsigned int count;
};

static int see_leaf(void *ctx, const struct mv_mapping *mapping)
{
	struct seen *seen = ctx;
	const struct mv_guest_accessor *accessor = &fuzz.memory.accessor;
	struct mv_walk walk;

	insist(!seen->count || mapping->address > seen->address);
	insist(!(mapping->address & ((1ULL << mapping->page_lg2) - 1)));
	fuzz.memory.budget += 5; /* that many more than the listing has left */
	insist(!mv_guest_walk(&fuzz.paging, accessor, mapping->address,
			      MV_ACCESS_IMPLICIT | MV_ACCESS_NO_UPDATE, &walk));
	insist(walk.kind == MV_WALK_OK && walk.gpa == mapping->phys);
	insist(walk.attr == mapping->attr && walk.page_lg2 == mapping->page_lg2);
	seen->address = mapping->address;
	return ++seen->count == LEAVES;
}

static void list_leaves(uint64_t first)
{
	uint64_t last =
		fuzz.paging.enabled && fuzz.world.mode >= GUEST_4L ? UINT64_MAX : UINT32_MAX;
	struct seen seen = { 0 };
	int result;

	fuzz_memory_rewind(&fuzz.memory);
	fuzz.memory.budget = 2000;
	result = mv_guest_for_each_leaf(&fuzz.paging, &fuzz.memory.accessor, first, last, see_leaf,
					&seen);
	insist(!result || result == 1 || result == -EINVAL || result == -EINTR);
	insist(!fuzz.memory.changes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	unsigned int flags = (unsigned int)fuzz_take(&input, 1), accesses;
	struct {
		uint64_t gva;
		unsigned int access;
	} access[4];
	int error;

	if (!take_registers(&input))
		return 0;
	accesses = 1 + flags / 64;
	for (unsigned int i = 0; i < accesses; i++) {
		access[i].gva = fuzz_take(&input, 8);
		access[i].access = (unsigned int)fuzz_take(&input, 1);
	}
	fuzz_memory_open(&fuzz.memory, flags & FLAG_FOLDED);
	fuzz_memory_fill(&fuzz.memory, &input);
	error = mv_paging_load_pdptes(&fuzz.paging, &fuzz.memory.accessor);
	insist(!error || error == -EINVAL || error == -EFAULT);
	fuzz.memory.bytes = fuzz.world.mode <= GUEST_PSE ? 4 : 8;
	for (unsigned int i = 0; i < accesses; i++)
		try_access(access[i].gva, access[i].access,
			   flags & FLAG_REFUSE ? flags / 4 % 16 : 0);
	list_leaves(access[0].gva);
	return 0;
}
