/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest walk against a predicate that shares nothing with it (support/guest_predicate.h), over
 * all that can be combined: more than 10^9 cases with EXHAUSTIVE=1, a share of them by chance
 * otherwise. What is compared: how the walk ends, error code, level, address, page size,
 * rights, and every entry afterwards.
 *
 * A sweep is an outer product of registers, page size and access, made of numbered blocks;
 * each block runs through all values of the bits of the entries. Threads share the blocks out.
 *
 * memvirt-test-timeout: 1800
 */
#include <pthread.h>
#include <time.h>
#include <unistd.h>

#include "support/guest_lab.h"
#include "support/testing.h"

#define THREADS_MAX 8

/* One of so many blocks, by default, where there are many; about 20 s of processor time. */
#define SHARE 11

#define P   (1ULL << 0)
#define W   (1ULL << 1)
#define U   (1ULL << 2)
#define A   (1ULL << 5)
#define D   (1ULL << 6)
#define PS  (1ULL << 7)
#define NX  (1ULL << 63)
#define KEY (9ULL << 59)

/* --- what is combined ------------------------------------------------------------------------ */

static const struct guest_access accesses[] = {
	{ .read = true, .user = true },
	{ .write = true, .user = true },
	{ .fetch = true, .user = true },
	{ .read = true },
	{ .write = true },
	{ .fetch = true },
	{ .read = true, .ac = true },
	{ .write = true, .ac = true },
	{ .fetch = true, .ac = true },
	{ .read = true, .implicit = true },
	{ .write = true, .implicit = true },
	{ .read = true, .implicit = true, .ac = true },
	{ .write = true, .implicit = true, .ac = true },
	{ .read = true, .implicit = true, .user = true },
	{ .read = true, .write = true, .user = true },
	{ .read = true, .shadow_stack = true, .user = true },
	{ .write = true, .shadow_stack = true, .user = true },
	{ .read = true, .shadow_stack = true },
	{ .write = true, .shadow_stack = true },
	{ .user = true },
};

/* Takes the next digit of a number whose places have different bases. */
static unsigned int digit(uint64_t *number, unsigned int base)
{
	unsigned int now = (unsigned int)(*number % base);

	*number /= base;
	return now;
}

static bool yes(uint64_t *number)
{
	return digit(number, 2);
}

/* Entries that lead to a page at @leaf, granting everything, accessed and dirty. */
static void lead_to(const struct guest_world *world, unsigned int leaf, uint64_t *entry)
{
	const uint64_t page = world->mode <= GUEST_PSE ? 0xb6c00000 : 0xb680000000;

	memset(entry, 0, 6 * sizeof(*entry));
	for (unsigned int level = leaf + 1; level <= world->levels; level++)
		entry[level] = guest_lab_table(level - 1) | P | W | U | A;
	entry[leaf] = page | P | W | U | A | D | (leaf > 1 ? PS : 0);
	if (leaf == 1)
		entry[1] |= 0x5000;
	if (world->mode == GUEST_PAE)
		entry[3] = guest_lab_table(2) | P;
}

/* How many sizes of pages a mode has. */
static unsigned int page_sizes(enum guest_mode mode)
{
	return mode == GUEST_32 ? 1 : mode <= GUEST_PAE ? 2 : 3;
}

static unsigned int levels_with_rights(enum guest_mode mode)
{
	static const unsigned int levels[GUEST_MODES] = { 2, 2, 2, 4, 5 };

	return levels[mode];
}

/**
 * struct sweep - one product of combinations
 * @name:   for the report
 * @blocks: of a mode
 * @run:    all cases of one block
 */
struct sweep {
	const char *name;
	uint64_t (*blocks)(enum guest_mode mode);
	void (*run)(struct guest_lab *lab, enum guest_mode mode, uint64_t block);
};

/* --- sweep: rights on every level ------------------------------------------------------------ */

/* Which accessed and dirty bits are set: all, none, and all but one. */
#define MARKS_MAX 8

static uint64_t key_worlds(enum guest_mode mode)
{
	return mode >= GUEST_4L ? 16 : 1;
}

static uint64_t rights_blocks(enum guest_mode mode)
{
	return 16 * key_worlds(mode) * COUNT_OF(accesses) * page_sizes(mode) * MARKS_MAX;
}

static void set_keys(struct guest_world *world, unsigned int choice)
{
	world->pke = choice & 1;
	world->pks = choice >> 1 & 1;
	world->pkru = (uint32_t)(choice >> 2) << 18;
	/* The other way round: keys denied by one register only are seen. */
	world->pkrs = (uint32_t)(choice >> 2 ^ 3) << 18;
}

/* Clears what pattern @marks leaves out; false where the pattern is one too many. */
static bool apply_marks(struct guest_lab *lab, unsigned int leaf, unsigned int marks)
{
	unsigned int top = lab->world.mode == GUEST_PAE ? 2 : lab->world.levels;

	if (marks == 1) {
		for (unsigned int level = leaf; level <= top; level++)
			lab->entry[level] &= ~(A | D);
	} else if (marks == 2) {
		lab->entry[leaf] &= ~D;
	} else if (marks > 2) {
		unsigned int level = leaf + marks - 3;

		if (level > top)
			return false;
		lab->entry[level] &= ~A;
	}
	return true;
}

/* Three bits a level: W, U, NX where there is one. */
static void set_rights(struct guest_lab *lab, const uint64_t *base, unsigned int leaf,
		       unsigned int top, unsigned int rights)
{
	for (unsigned int level = leaf; level <= top; level++, rights >>= 3)
		lab->entry[level] =
			(base[level] & ~(W | U)) | (rights & 3) << 1 | (uint64_t)(rights & 4) << 61;
	for (unsigned int level = top + 1; level <= lab->world.levels; level++)
		lab->entry[level] = base[level];
}

/* 32-bit entries have no NX: every other value of their rights is skipped. */
static bool has_wrong_bits(enum guest_mode mode, unsigned int rights)
{
	return mode <= GUEST_PSE && (rights & 044);
}

static void run_rights(struct guest_lab *lab, enum guest_mode mode, uint64_t block)
{
	struct guest_world world = { .mode = mode, .width = 40, .pages_1g = true, .pse36 = true };
	unsigned int leaf = digit(&block, page_sizes(mode)) + 1;
	unsigned int marks = digit(&block, MARKS_MAX);
	const struct guest_access *access = &accesses[digit(&block, COUNT_OF(accesses))];
	unsigned int top = levels_with_rights(mode);
	uint64_t base[6];

	world.wp = yes(&block);
	world.nxe = yes(&block);
	world.smep = yes(&block);
	world.smap = yes(&block);
	set_keys(&world, (unsigned int)block);
	guest_lab_enter(lab, &world);
	lead_to(&lab->world, leaf, lab->entry);
	if (!apply_marks(lab, leaf, marks))
		return;
	if (mode >= GUEST_4L)
		lab->entry[leaf] |= KEY;
	memcpy(base, lab->entry, sizeof(base));
	insist(!guest_lab_load_pdptes(lab));
	for (unsigned int rights = 0; rights < 1u << 3 * (top - leaf + 1); rights++) {
		if (has_wrong_bits(mode, rights))
			continue;
		set_rights(lab, base, leaf, top, rights);
		guest_lab_try(lab, access);
	}
}

/* --- sweep: every bit, singly and in pairs, also of two levels ---------------------------------
 */

static const unsigned int widths[] = { 32, 36, 39, 40, 46, 52 };
static const struct guest_access bit_accesses[] = {
	{ .write = true, .user = true },
	{ .fetch = true, .user = true },
	{ .read = true },
};

static uint64_t bits_blocks(enum guest_mode mode)
{
	return 16 * COUNT_OF(widths) * COUNT_OF(bit_accesses) * page_sizes(mode);
}

static void flip(struct guest_lab *lab, unsigned int place)
{
	unsigned int places = lab->bytes * 8;

	lab->entry[1 + place / places] ^= 1ULL << place % places;
}

/* PAE: the entry of level 3 is judged when CR3 is loaded. */
static bool is_loaded(struct guest_lab *lab, uint64_t pdpte_before)
{
	if (lab->world.mode != GUEST_PAE || lab->entry[3] == pdpte_before)
		return true;
	if (guest_pdpte_refused(&lab->world, lab->entry[3])) {
		lab->cases++;
		lab->mismatches += guest_lab_load_pdptes(lab) != -EINVAL;
		return false;
	}
	insist(!guest_lab_load_pdptes(lab));
	return true;
}

static void run_bits(struct guest_lab *lab, enum guest_mode mode, uint64_t block)
{
	struct guest_world world = { .mode = mode, .wp = true, .pke = true, .pkru = 0x55555554 };
	unsigned int leaf = digit(&block, page_sizes(mode)) + 1;
	const struct guest_access *access = &bit_accesses[digit(&block, COUNT_OF(bit_accesses))];
	unsigned int places;
	uint64_t base[6];

	world.width = widths[digit(&block, COUNT_OF(widths))];
	world.nxe = yes(&block);
	world.pages_1g = yes(&block);
	world.pse36 = yes(&block);
	world.amd = yes(&block);
	if (world.width < 39) /* the pages' addresses are that wide */
		world.width = leaf == 1 || mode <= GUEST_PSE ? world.width : 39;
	guest_lab_enter(lab, &world);
	lead_to(&lab->world, leaf, base);
	places = lab->world.levels * lab->bytes * 8;
	for (unsigned int one = 0; one < places; one++) {
		for (unsigned int other = one; other < places; other++) {
			memcpy(lab->entry, base, sizeof(base));
			insist(mode != GUEST_PAE || !guest_lab_load_pdptes(lab));
			flip(lab, one);
			if (other != one)
				flip(lab, other);
			if (is_loaded(lab, base[3]))
				guest_lab_try(lab, access);
		}
	}
}

/* --- sweep: absent and ill-formed entries on any levels, with rights and keys that refuse -------
 */

static uint64_t presence_blocks(enum guest_mode mode)
{
	return 16 * COUNT_OF(accesses) * page_sizes(mode);
}

static void run_presence(struct guest_lab *lab, enum guest_mode mode, uint64_t block)
{
	struct guest_world world = { .mode = mode, .width = 40, .pages_1g = true, .wp = true };
	unsigned int leaf = digit(&block, page_sizes(mode)) + 1;
	const struct guest_access *access = &accesses[digit(&block, COUNT_OF(accesses))];
	unsigned int levels;
	uint64_t base[6], bad = mode <= GUEST_PSE ? 1ULL << 21 : 1ULL << 45;

	world.nxe = yes(&block);
	world.smep = yes(&block);
	world.smap = yes(&block);
	world.pke = world.pks = yes(&block);
	world.pkru = world.pkrs = 0xffffffff;
	guest_lab_enter(lab, &world);
	lead_to(&lab->world, leaf, base);
	levels = levels_with_rights(mode) - leaf + 1;
	/* Three bits a level: absent, ill-formed, refuses everything. */
	for (unsigned int kinds = 0; kinds < 1u << 3 * levels; kinds++) {
		memcpy(lab->entry, base, sizeof(base));
		for (unsigned int level = leaf, left = kinds; left; level++, left >>= 3) {
			lab->entry[level] &= ~((left & 1 ? P : 0) | (left & 4 ? W | U : 0));
			if (left & 2 && (mode > GUEST_PSE || level == leaf))
				lab->entry[level] |= bad;
		}
		insist(mode != GUEST_PAE || kinds || !guest_lab_load_pdptes(lab));
		guest_lab_try(lab, access);
	}
}

/* --- threads --------------------------------------------------------------------------------- */

/**
 * struct crew - the threads at one sweep of one mode
 * Constant while they work: all but the following.
 * Atomic: @next, @cases, @mismatches.
 */
struct crew {
	const struct sweep *sweep;
	enum guest_mode mode;
	uint64_t blocks;
	uint64_t seed;
	unsigned int share;
	uint64_t next;
	uint64_t cases;
	uint64_t mismatches;
};

/* Whether this run takes a block: each seed takes others. */
static bool is_chosen(const struct crew *crew, uint64_t block)
{
	struct chance chance = chance_of(crew->seed, block);

	return crew->share == 1 || chance_one_in(&chance, crew->share);
}

static void *work(void *arg)
{
	struct crew *crew = arg;
	struct guest_lab lab;
	uint64_t block;

	memset(&lab, 0, sizeof(lab));
	while ((block = __atomic_fetch_add(&crew->next, 1, __ATOMIC_RELAXED)) < crew->blocks)
		if (is_chosen(crew, block))
			crew->sweep->run(&lab, crew->mode, block);
	__atomic_fetch_add(&crew->cases, lab.cases, __ATOMIC_RELAXED);
	__atomic_fetch_add(&crew->mismatches, lab.mismatches, __ATOMIC_RELAXED);
	return NULL;
}

static uint64_t total_cases;

/* The modes of 32 bits are small enough to be had whole each time. */
static unsigned int share_of(enum guest_mode mode)
{
	if (getenv("EXHAUSTIVE") || mode <= GUEST_PSE)
		return 1;
	return (unsigned int)(SHARE * 100 / test_rounds(100));
}

static void run_crew(struct crew *crew)
{
	long processors = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t thread[THREADS_MAX];
	long threads = processors < THREADS_MAX ? processors : THREADS_MAX;

	for (long i = 0; i < threads; i++)
		assert_int_equal(pthread_create(&thread[i], NULL, work, crew), 0);
	for (long i = 0; i < threads; i++)
		assert_int_equal(pthread_join(thread[i], NULL), 0);
}

static void run_sweep(const struct sweep *sweep)
{
	uint64_t seed = test_seed();

	for (enum guest_mode mode = 0; mode < GUEST_MODES; mode++) {
		struct crew crew = {
			.sweep = sweep,
			.mode = mode,
			.blocks = sweep->blocks(mode),
			.seed = seed,
			.share = share_of(mode),
		};

		run_crew(&crew);
		print_message("# %s, mode %d: %lu combinations, %lu mismatches\n", sweep->name,
			      mode, crew.cases, crew.mismatches);
		total_cases += crew.cases;
		assert_int_equal(crew.mismatches, 0);
	}
}

static void rights_on_every_level(void **state)
{
	static const struct sweep sweep = { "rights", rights_blocks, run_rights };

	run_sweep(&sweep);
}

static void every_bit_singly_and_in_pairs(void **state)
{
	static const struct sweep sweep = { "bits", bits_blocks, run_bits };

	run_sweep(&sweep);
}

static void absent_and_ill_formed_levels(void **state)
{
	static const struct sweep sweep = { "presence", presence_blocks, run_presence };

	run_sweep(&sweep);
}

static void there_were_as_many_as_promised(void **state)
{
	print_message("# %lu combinations in all\n", total_cases);
	if (getenv("EXHAUSTIVE"))
		assert_true(total_cases >= 1000000000);
	else
		assert_true(total_cases >= test_rounds(50000000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rights_on_every_level),
		cmocka_unit_test(every_bit_singly_and_in_pairs),
		cmocka_unit_test(absent_and_ill_formed_levels),
		cmocka_unit_test(there_were_as_many_as_promised),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
