/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stage-2 walk over arbitrary tables, and the decoding of arbitrary exits. Whatever they
 * are: a walk ends after one read a level, reads only through the accessor, says the same twice,
 * says what the predicate says of the entries that it read, and sets accessed and dirty where
 * it should.
 *
 * Input: a byte of flags, the processor, accesses, and words of memory; see below.
 */
#include <memvirt/stage2.h>

#include "support/fuzz_input.h"
#include "support/stage2_rig.h"
#include "support/testing.h"

#define FLAG_FOLDED 0x01
#define FLAG_REFUSE 0x02

#define ATTEMPTS 100 /* that the walk may make */

struct fuzz {
	struct fuzz_memory memory;
	uint64_t before[FUZZ_WORDS];
	struct mv_stage2 stage2;
	struct stage2_world world;
};

static struct fuzz fuzz;

/* --- the processor --------------------------------------------------------------------------- */

static bool take_stage2(struct fuzz_input *input)
{
	struct mv_stage2_config config = { .size = sizeof(config) };

	config.format = (enum mv_format_id)fuzz_take(input, 1);
	config.features = (uint32_t)fuzz_take(input, 2);
	config.maxphyaddr = (unsigned int)fuzz_take(input, 1);
	config.root = fuzz_take(input, 8);
	config.accessor = fuzz.memory.accessor;
	if (mv_stage2_init(&fuzz.stage2, &config))
		return false;
	fuzz.world = (struct stage2_world){
		.ept = config.format <= MV_FORMAT_EPT_5L,
		.pages_2m = config.features & MV_FEATURE_2M,
		.pages_1g = config.features & MV_FEATURE_1G,
		.exec_only = config.features & MV_FEATURE_EXEC_ONLY,
		.mode_exec = config.features & MV_FEATURE_MODE_EXEC,
		.accessed = config.features & MV_FEATURE_ACCESSED,
		.ve = config.features & MV_FEATURE_VE,
		.no_exec = config.features & MV_FEATURE_NX,
		.exit_info = config.features & MV_FEATURE_EXIT_INFO,
		.levels = config.format == MV_FORMAT_EPT_5L || config.format == MV_FORMAT_NPT_5L
				  ? 5
				  : 4,
		.width = config.maxphyaddr,
	};
	stage2_world_prepare(&fuzz.world);
	return true;
}

static struct stage2_access facts(unsigned int access)
{
	return (struct stage2_access){
		.read = access & MV_ACCESS_READ,
		.write = access & MV_ACCESS_WRITE,
		.fetch = access & MV_ACCESS_FETCH,
		.user = access & MV_ACCESS_USER,
		.guest_table = access & MV_ACCESS_GUEST_TABLE,
		.linear = access & MV_ACCESS_LINEAR,
		.guest_writable = access & MV_ACCESS_GUEST_WRITABLE,
		.guest_no_exec = access & MV_ACCESS_GUEST_NO_EXEC,
		.shadow_stack = access & MV_ACCESS_SHADOW_STACK,
		.look = access & MV_ACCESS_NO_UPDATE,
	};
}

/* --- what holds of a walk -------------------------------------------------------------------- */

static void check_steps(const struct mv_stage2_walk *walk, const struct stage2_expected *expected)
{
	insist(walk->steps == fuzz.world.levels + 1 - expected->level);
	for (unsigned int i = 0; i < walk->steps; i++) {
		insist(walk->step[i].level == fuzz.world.levels - i);
		insist(walk->step[i].gpa == expected->at[walk->step[i].level]);
	}
}

static void check_end(const struct mv_stage2_walk *walk, const struct stage2_expected *expected)
{
	insist(walk->level == expected->level);
	check_steps(walk, expected);
	if (expected->outcome == STAGE2_GOOD) {
		insist(walk->kind == MV_STAGE2_OK);
		insist(walk->phys == expected->phys && walk->page_lg2 == expected->page_lg2);
		return;
	}
	insist(walk->kind == (expected->outcome == STAGE2_FORBIDDEN ? MV_STAGE2_VIOLATION
								    : MV_STAGE2_MISCONFIGURED));
	insist(walk->code == expected->code && walk->suppress_ve == expected->suppress_ve);
}

static void expect(const struct mv_stage2_walk *walk, uint64_t gpa, unsigned int access,
		   struct stage2_expected *expected)
{
	const struct stage2_access as = facts(access);
	uint64_t entry[6] = { 0 };

	for (unsigned int i = 0; i < walk->steps; i++)
		entry[walk->step[i].level] = walk->step[i].entry;
	stage2_expect(&fuzz.world, fuzz.stage2.root, entry, gpa, &as, expected);
}

/* The memory is as it was, but for the marks that the predicate expects. */
static void check_marks(const struct mv_stage2_walk *walk, const struct stage2_expected *expected)
{
	for (unsigned int i = 0; walk->kind == MV_STAGE2_OK && i < walk->steps; i++) {
		const struct mv_walk_step *step = &walk->step[i];
		uint64_t marks = expected->after[step->level] & ~step->entry;

		fuzz.before[step->gpa % sizeof(fuzz.before) / 8] |= marks;
	}
	insist(!memcmp(fuzz.before, fuzz.memory.word, sizeof(fuzz.before)));
}

static bool same(const struct mv_stage2_walk *a, const struct mv_stage2_walk *b)
{
	return a->kind == b->kind && a->phys == b->phys && a->page_lg2 == b->page_lg2 &&
	       a->level == b->level && a->code == b->code && a->gpa == b->gpa &&
	       !((a->attr ^ b->attr) & ~(MV_ATTR_ACCESSED | MV_ATTR_DIRTY));
}

/* --- walks ----------------------------------------------------------------------------------- */

static int look(uint64_t gpa, unsigned int access, struct mv_stage2_walk *walk)
{
	struct mv_stage2_walk again;
	int error, second;

	fuzz_memory_rewind(&fuzz.memory);
	access |= MV_ACCESS_NO_UPDATE;
	error = mv_stage2_walk(&fuzz.stage2, gpa, access, walk);
	insist(fuzz.memory.reads <= 5 && !fuzz.memory.changes);
	second = mv_stage2_walk(&fuzz.stage2, gpa, access, &again);
	insist(error == second && (error || same(walk, &again)));
	insist(!error || error == -EFAULT);
	return error;
}

static void walk_refused(uint64_t gpa, unsigned int access, unsigned int times)
{
	struct mv_stage2_walk walk;
	int error;

	fuzz_memory_rewind(&fuzz.memory);
	fuzz.memory.refuse = times;
	error = mv_stage2_walk(&fuzz.stage2, gpa, access, &walk);
	insist(!error || error == -EAGAIN || error == -EFAULT);
	insist(fuzz.memory.reads <= 5 * ATTEMPTS && fuzz.memory.changes <= 5 * ATTEMPTS);
}

static void try_access(uint64_t gpa, unsigned int access, unsigned int refuse)
{
	struct stage2_expected expected;
	struct mv_stage2_walk walk, marked;

	if (refuse)
		walk_refused(gpa, access, refuse);
	if (look(gpa, access, &walk))
		return;
	insist(walk.gpa == gpa);
	if (!walk.steps) {
		insist(gpa >> (12 + 9 * fuzz.world.levels) && walk.kind != MV_STAGE2_OK);
		return;
	}
	expect(&walk, gpa, access, &expected);
	check_end(&walk, &expected);
	memcpy(fuzz.before, fuzz.memory.word, sizeof(fuzz.before));
	fuzz_memory_rewind(&fuzz.memory);
	insist(!mv_stage2_walk(&fuzz.stage2, gpa, access, &marked));
	insist(same(&marked, &walk) && fuzz.memory.reads <= 5 * 7);
	check_marks(&walk, &expected);
}

/* --- exits ----------------------------------------------------------------------------------- */

static void check_exit(const struct mv_stage2_exit *exit, uint64_t gpa)
{
	insist(exit->gpa == gpa);
	insist(exit->kind == MV_STAGE2_VIOLATION || exit->kind == MV_STAGE2_MISCONFIGURED);
}

static void decode(uint64_t code, uint64_t gpa, uint64_t gla, uint32_t features)
{
	struct mv_stage2_exit exit;

	mv_stage2_decode_violation(code, gpa, gla, features, &exit);
	check_exit(&exit, gpa);
	insist(exit.gva_valid == (code >> 7 & 1));
	insist(!(exit.access & MV_ACCESS_WRITE) == !(code & 2));
	mv_stage2_decode_misconfiguration(gpa, &exit);
	check_exit(&exit, gpa);
	insist(exit.kind == MV_STAGE2_MISCONFIGURED);
	mv_stage2_decode_npf(code, gpa, &exit);
	check_exit(&exit, gpa);
	insist((exit.kind == MV_STAGE2_MISCONFIGURED) == (code >> 3 & 1));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	unsigned int flags = (unsigned int)fuzz_take(&input, 1);
	const struct fuzz_input start = input;
	struct {
		uint64_t gpa;
		unsigned int access;
	} access[4];

	fuzz_memory_open(&fuzz.memory, flags & FLAG_FOLDED);
	if (!take_stage2(&input)) {
		input = start;
		decode(fuzz_take(&input, 8), fuzz_take(&input, 8), fuzz_take(&input, 8),
		       (uint32_t)fuzz_take(&input, 2));
		return 0;
	}
	for (unsigned int i = 0; i < 1 + flags / 64; i++) {
		access[i].gpa = fuzz_take(&input, 8);
		access[i].access = (unsigned int)fuzz_take(&input, 2);
	}
	fuzz_memory_fill(&fuzz.memory, &input);
	fuzz.memory.bytes = 8;
	for (unsigned int i = 0; i < 1 + flags / 64; i++) {
		try_access(access[i].gpa, access[i].access,
			   flags & FLAG_REFUSE ? flags / 4 % 16 : 0);
		decode(access[i].gpa, access[i].access, flags, access[i].access);
	}
	return 0;
}
