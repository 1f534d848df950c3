/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The stage-2 walk against the predicate: every bit of an entry changed alone and together with
 * every other, at every level, in EPT and NPT with 4 and 5 levels, with features on and off,
 * several widths, every kind of access; then entries changed at several levels at once.
 *
 * memvirt-test-timeout: 3600
 */
#include "support/stage2_rig.h"
#include "support/testing.h"

#define FLIPS	   (1 + 64 + 64 * 63 / 2)
#define SHARE	   16 /* one in so many is tried without EXHAUSTIVE */
#define RANDOM	   1000000
#define EXHAUSTIVE 50 /* times as many */

static const unsigned int widths[] = { 32, 36, 40, 46, 52 };

/* Each way the library can be asked; a row is a kind of access that a processor makes. */
static const struct stage2_access accesses[] = {
	{ .read = true },
	{ .read = true, .linear = true, .user = true },
	{ .write = true, .linear = true },
	{ .read = true, .write = true },
	{ .fetch = true, .linear = true },
	{ .fetch = true, .linear = true, .user = true, .guest_writable = true },
	{ .fetch = true },
	{ .guest_table = true, .linear = true },
	{ .guest_table = true, .read = true, .linear = true, .user = true },
	{ .guest_table = true, .write = true, .linear = true },
	{ .guest_table = true },
	{ .linear = true }, /* translate only */
	{ .write = true, .linear = true, .user = true, .guest_no_exec = true, .look = true },
	{ .write = true, .linear = true, .shadow_stack = true },
};

/* Tables far enough apart that two changed bits make no two of them one. */
static uint64_t table_at(unsigned int level)
{
	return (uint64_t)(level | level << 3 | level << 6 | level << 9) << 12;
}

/* --- worlds --------------------------------------------------------------------------------- */

static struct stage2_world ept_world(unsigned int features, unsigned int levels, unsigned int width)
{
	return (struct stage2_world){
		.ept = true,
		.pages_2m = features & 1,
		.pages_1g = features & 2,
		.exec_only = features & 4,
		.mode_exec = features & 8,
		.accessed = features & 16,
		.ve = features & 32,
		/* One of two would do for these; they meet all others. */
		.exit_info = (features ^ features >> 3) & 1,
		.no_exec = (features ^ features >> 4) & 1,
		.levels = levels,
		.width = width,
	};
}

/* What EPT alone knows is ignored: it follows the others. */
static struct stage2_world npt_world(unsigned int features, unsigned int levels, unsigned int width)
{
	return (struct stage2_world){
		.pages_1g = features & 1,
		.no_exec = features & 2,
		.pages_2m = features & 4,
		.exec_only = features & 1,
		.mode_exec = features & 4,
		.accessed = features & 2,
		.ve = features & 4,
		.exit_info = features & 4,
		.levels = levels,
		.width = width,
	};
}

/* --- entries -------------------------------------------------------------------------------- */

/* How an entry looks before bits are changed. */
enum base { GRANTS_ALL, ACCESSED_AND_DIRTY, EMPTY, BASES };

/* Bits that mean something good: rights, a memory type, A and D. */
static uint64_t plain_entry(const struct stage2_world *world, unsigned int level,
			    unsigned int page_level, enum base base)
{
	uint64_t entry = level == page_level ? 0x123ULL << 30 & ((1ULL << world->width) - 1)
					     : table_at(level - 1);
	uint64_t marks = world->ept ? 0x100 : 0x20;

	entry |= world->ept ? 0x407 : 0x7;
	if (level == page_level)
		entry |= (world->ept ? 0x30 : 0x18) | (level > 1 ? 0x80 : 0);
	if (base == ACCESSED_AND_DIRTY)
		entry |= level == page_level ? marks | marks << 1 : marks;
	return entry;
}

static void plain_entries(const struct stage2_world *world, unsigned int page_level,
			  unsigned int changed, enum base base, uint64_t *entry)
{
	memset(entry, 0, 6 * sizeof(*entry));
	for (unsigned int level = page_level; level <= world->levels; level++)
		entry[level] =
			plain_entry(world, level, page_level, base == EMPTY ? GRANTS_ALL : base);
	if (base == EMPTY)
		entry[changed] = 0;
}

/* None, each bit, each pair. */
static void make_flips(uint64_t *flips)
{
	unsigned int n = 0;

	flips[n++] = 0;
	for (unsigned int a = 0; a < 64; a++) {
		flips[n++] = 1ULL << a;
		for (unsigned int b = 0; b < a; b++)
			flips[n++] = 1ULL << a | 1ULL << b;
	}
	assert_int_equal(n, FLIPS);
}

/* --- every bit and pair --------------------------------------------------------------------- */

struct sweep {
	struct stage2_rig rig;
	struct chance chance;
	bool all;
	uint64_t flips[FLIPS];
};

static void sweep_entry(struct sweep *sweep, unsigned int page_level, unsigned int changed,
			enum base base)
{
	uint64_t gpa =
		chance_next(&sweep->chance) & ((1ULL << (12 + 9 * sweep->rig.world.levels)) - 1);
	uint64_t entry[6], plain;
	unsigned int i = sweep->all ? 0 : chance_below(&sweep->chance, SHARE);

	plain_entries(&sweep->rig.world, page_level, changed, base, entry);
	plain = entry[changed];
	for (; i < FLIPS; i += sweep->all ? 1 : 1 + chance_below(&sweep->chance, 2 * SHARE - 1)) {
		entry[changed] = plain ^ sweep->flips[i];
		for (unsigned int a = 0; a < COUNT_OF(accesses); a++)
			stage2_rig_try(&sweep->rig, entry, gpa, &accesses[a]);
	}
}

static void sweep_world(struct sweep *sweep, const struct stage2_world *world)
{
	stage2_rig_enter(&sweep->rig, world, table_at(world->levels));
	for (unsigned int page_level = 1; page_level <= 3; page_level++)
		for (unsigned int changed = page_level; changed <= world->levels; changed++)
			for (enum base base = 0; base < BASES; base++)
				sweep_entry(sweep, page_level, changed, base);
}

static void sweep_worlds(struct sweep *sweep, unsigned int sets,
			 struct stage2_world (*world)(unsigned int, unsigned int, unsigned int),
			 unsigned int levels)
{
	for (unsigned int features = 0; features < sets; features++)
		for (unsigned int w = 0; w < COUNT_OF(widths); w++) {
			struct stage2_world one = world(features, levels, widths[w]);

			sweep_world(sweep, &one);
		}
}

static void sweep_format(unsigned int sets,
			 struct stage2_world (*world)(unsigned int, unsigned int, unsigned int),
			 unsigned int levels)
{
	struct sweep *sweep = calloc(1, sizeof(*sweep));

	assert_non_null(sweep);
	sweep->all = getenv("EXHAUSTIVE") != NULL;
	sweep->chance = chance_of(test_seed(), levels);
	make_flips(sweep->flips);
	stage2_rig_open(&sweep->rig);
	sweep_worlds(sweep, sets, world, levels);
	stage2_rig_close(&sweep->rig);
	print_message("# %llu combinations\n", (unsigned long long)sweep->rig.cases);
	assert_int_equal(sweep->rig.mismatches, 0);
	assert_true(sweep->rig.cases > (sweep->all ? 10000000 : 100000));
	free(sweep);
}

static void every_bit_and_pair_of_ept_with_4_levels(void **state)
{
	sweep_format(64, ept_world, 4);
}

static void every_bit_and_pair_of_ept_with_5_levels(void **state)
{
	sweep_format(64, ept_world, 5);
}

static void every_bit_and_pair_of_npt_with_4_levels(void **state)
{
	sweep_format(8, npt_world, 4);
}

static void every_bit_and_pair_of_npt_with_5_levels(void **state)
{
	sweep_format(8, npt_world, 5);
}

/* --- several levels at once ------------------------------------------------------------------ */

static struct stage2_world random_world(struct chance *chance)
{
	unsigned int levels = 4 + chance_below(chance, 2);
	unsigned int width = 32 + chance_below(chance, 21);

	if (chance_one_in(chance, 3))
		return npt_world(chance_below(chance, 8), levels, width);
	return ept_world(chance_below(chance, 64), levels, width);
}

/* Mostly bits with a meaning: others only make entries that are ill formed. */
static uint64_t random_bits(struct chance *chance, const struct stage2_world *world)
{
	uint64_t telling = world->ept ? 0x8000000000000f87ULL : 0x80000000000001e7ULL;
	uint64_t bits = chance_next(chance) & chance_next(chance);

	if (chance_one_in(chance, 8))
		return 1ULL << chance_below(chance, 64);
	return bits & telling;
}

static void random_case(struct stage2_rig *rig, struct chance *chance)
{
	unsigned int page_level = 1 + chance_below(chance, 3);
	uint64_t gpa = chance_next(chance) & ((1ULL << (12 + 9 * rig->world.levels)) - 1);
	uint64_t entry[6];

	plain_entries(&rig->world, page_level, 1, chance_below(chance, EMPTY), entry);
	/* Below a page that turns out to be a table there is nothing. */
	for (unsigned int level = page_level; level <= rig->world.levels; level++)
		if (chance_one_in(chance, 2))
			entry[level] ^= random_bits(chance, &rig->world);
	stage2_rig_try(rig, entry, gpa, &accesses[chance_below(chance, COUNT_OF(accesses))]);
}

static void entries_changed_at_several_levels(void **state)
{
	uint64_t worlds = RANDOM / 1000 * (getenv("EXHAUSTIVE") ? EXHAUSTIVE : 1);
	struct chance chance = chance_of(test_seed(), 0);
	struct stage2_rig rig;

	stage2_rig_open(&rig);
	for (uint64_t i = 0; i < test_rounds(worlds); i++) {
		struct stage2_world world = random_world(&chance);

		stage2_rig_enter(&rig, &world, table_at(world.levels));
		for (unsigned int j = 0; j < 1000; j++)
			random_case(&rig, &chance);
	}
	stage2_rig_close(&rig);
	print_message("# %llu combinations\n", (unsigned long long)rig.cases);
	assert_int_equal(rig.mismatches, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_bit_and_pair_of_ept_with_4_levels),
		cmocka_unit_test(every_bit_and_pair_of_ept_with_5_levels),
		cmocka_unit_test(every_bit_and_pair_of_npt_with_4_levels),
		cmocka_unit_test(every_bit_and_pair_of_npt_with_5_levels),
		cmocka_unit_test(entries_changed_at_several_levels),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
