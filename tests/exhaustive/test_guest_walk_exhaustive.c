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

#include <memvirt/guest_walk.h>

#include "support/guest_predicate.h"
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

/* --- a guest in which one address is mapped --------------------------------------------------- */

/**
 * struct lab - one thread's guest
 * @entry:  by level: the one entry of a table that exists
 * @at:     by level: where it is
 * @cases, @mismatches: so far; the first mismatch is printed
 */
struct lab {
	struct guest_world world;
	struct mv_paging paging;
	uint64_t gva;
	uint64_t entry[6];
	uint64_t at[6];
	unsigned int bytes;
	uint64_t cases;
	uint64_t mismatches;
};

/*
 * Tables lie at 7 << 3n pages: two flipped bits do not lead from one to another, and where an
 * address leads is found without a search. 0 for none.
 */
static unsigned int level_at(const struct lab *lab, uint64_t gpa)
{
	unsigned int level;

	if (!(gpa >> 12))
		return 0;
	level = (unsigned int)(__builtin_ctzll(gpa >> 12) / 3) + 1;
	return level <= lab->world.levels && lab->at[level] == gpa ? level : 0;
}

static uint64_t table_at(unsigned int level)
{
	return 7ULL << 3 * (level - 1) << 12;
}

static int lab_read(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct lab *lab = ctx;
	unsigned int level = level_at(lab, gpa);

	if (!level || bytes != lab->bytes)
		return -EFAULT;
	*entry = lab->entry[level];
	return 0;
}

static int lab_change(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t old, uint64_t entry)
{
	struct lab *lab = ctx;
	unsigned int level = level_at(lab, gpa);

	if (!level || bytes != lab->bytes)
		return -EFAULT;
	if (lab->entry[level] != old)
		return -EAGAIN;
	lab->entry[level] = entry;
	return 0;
}

/* PDPTEs that are not used are absent, and not there to be read. */
static int lab_read_pdpte(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct lab *lab = ctx;

	*entry = gpa == lab->at[3] ? lab->entry[3] : 0;
	return 0;
}

static int load_pdptes(struct lab *lab)
{
	const struct mv_guest_accessor accessor = { lab_read_pdpte, NULL, lab };

	return mv_paging_load_pdptes(&lab->paging, &accessor);
}

static const uint64_t mapped_gva[GUEST_MODES] = {
	0xd5a3c9f1, 0x9b27e4d3, 0xe6b1d7a5, 0xffffb5a6c9e3d7f1, 0xffb5d3a6c9e3d7f1,
};

/* The registers that make a world. */
static void lab_enter(struct lab *lab, const struct guest_world *world)
{
	struct mv_paging_registers registers = { 0 };
	struct mv_cpu_model cpu = { .maxphyaddr = world->width };

	lab->world = *world;
	for (unsigned int level = 1; level < 6; level++)
		lab->world.table[level] = table_at(level);
	guest_world_prepare(&lab->world);
	lab->gva = mapped_gva[world->mode];
	lab->bytes = world->mode <= GUEST_PSE ? 4 : 8;
	for (unsigned int level = 1; level <= lab->world.levels; level++)
		lab->at[level] = table_at(level) +
				 guest_index(&lab->world, level, lab->gva) * lab->bytes;
	registers.cr0 = 0x80000001 | (uint64_t)world->wp << 16;
	registers.cr3 = table_at(lab->world.levels);
	registers.cr4 = (uint64_t)(world->mode == GUEST_PSE) << 4 |
			(uint64_t)(world->mode >= GUEST_PAE) << 5 |
			(uint64_t)(world->mode == GUEST_5L) << 12 | (uint64_t)world->smep << 20 |
			(uint64_t)world->smap << 21 | (uint64_t)world->pke << 22 |
			(uint64_t)world->pks << 24;
	registers.efer = (uint64_t)world->nxe << 11 | (world->mode >= GUEST_4L ? 0x500 : 0);
	registers.pkru = world->pkru;
	registers.pkrs = world->pkrs;
	cpu.features = (world->pages_1g ? MV_CPU_1G : 0) | (world->pse36 ? MV_CPU_PSE36 : 0) |
		       (world->amd ? MV_CPU_AMD : 0);
	insist(!mv_paging_init(&lab->paging, &registers, &cpu));
}

/* --- one case -------------------------------------------------------------------------------- */

static unsigned int access_bits(const struct guest_access *access)
{
	return (access->read ? MV_ACCESS_READ : 0) | (access->write ? MV_ACCESS_WRITE : 0) |
	       (access->fetch ? MV_ACCESS_FETCH : 0) | (access->user ? MV_ACCESS_USER : 0) |
	       (access->implicit ? MV_ACCESS_IMPLICIT : 0) | (access->ac ? MV_ACCESS_AC : 0) |
	       (access->shadow_stack ? MV_ACCESS_SHADOW_STACK : 0);
}

static bool good_agrees(const struct guest_expected *expected, const struct mv_walk *walk)
{
	uint32_t rights = MV_ATTR_READ | (expected->may_write ? MV_ATTR_WRITE : 0) |
			  (expected->may_fetch ? MV_ATTR_EXEC : 0) |
			  (expected->may_user ? MV_ATTR_USER : 0) |
			  (expected->dirty ? MV_ATTR_DIRTY : 0);

	return walk->kind == MV_WALK_OK && walk->gpa == expected->gpa &&
	       walk->page_lg2 == expected->page_lg2 && walk->level == expected->level &&
	       (walk->attr & (MV_ATTR_RIGHTS | MV_ATTR_DIRTY)) == rights;
}

static bool agrees(const struct guest_expected *expected, int error, const struct mv_walk *walk)
{
	if (expected->outcome == GUEST_ELSEWHERE)
		return error == -EFAULT;
	if (error)
		return false;
	if (expected->outcome == GUEST_GOOD)
		return good_agrees(expected, walk);
	return walk->kind == MV_WALK_PAGE_FAULT && walk->error_code == expected->error &&
	       walk->level == expected->level;
}

static void tell(const struct lab *lab, const uint64_t *before, unsigned int access,
		 const struct guest_expected *expected, int error, const struct mv_walk *walk)
{
	const struct guest_world *world = &lab->world;

	print_message("# mode %d wp %d nxe %d smep %d smap %d pke %d pks %d 1g %d pse36 %d amd %d "
		      "width %u pkru %x pkrs %x access %x\n",
		      world->mode, world->wp, world->nxe, world->smep, world->smap, world->pke,
		      world->pks, world->pages_1g, world->pse36, world->amd, world->width,
		      world->pkru, world->pkrs, access);
	for (unsigned int level = world->levels; level; level--)
		print_message("#   level %u: %016lx, then %016lx, expected %016lx\n", level,
			      before[level], lab->entry[level], expected->after[level]);
	print_message("#   expected outcome %d level %u error %x gpa %lx lg2 %u w%d x%d u%d d%d\n",
		      expected->outcome, expected->level, expected->error, expected->gpa,
		      expected->page_lg2, expected->may_write, expected->may_fetch,
		      expected->may_user, expected->dirty);
	print_message("#   got %d kind %d level %u error %x gpa %lx lg2 %u attr %x\n", error,
		      walk->kind, walk->level, walk->error_code, walk->gpa, walk->page_lg2,
		      walk->attr);
}

static void try_case(struct lab *lab, const struct guest_access *access, unsigned int bits)
{
	const struct mv_guest_accessor accessor = { lab_read, lab_change, lab };
	struct guest_expected expected = { 0 };
	uint64_t before[6];
	struct mv_walk walk;
	int error;

	memcpy(before, lab->entry, sizeof(before));
	guest_predict(&lab->world, before, lab->gva, access, &expected);
	error = mv_guest_walk(&lab->paging, &accessor, lab->gva, bits, &walk);
	lab->cases++;
	if (agrees(&expected, error, &walk) &&
	    !memcmp(lab->entry, expected.after, sizeof(lab->entry)))
		return;
	if (!lab->mismatches++)
		tell(lab, before, bits, &expected, error, &walk);
}

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
		entry[level] = table_at(level - 1) | P | W | U | A;
	entry[leaf] = page | P | W | U | A | D | (leaf > 1 ? PS : 0);
	if (leaf == 1)
		entry[1] |= 0x5000;
	if (world->mode == GUEST_PAE)
		entry[3] = table_at(2) | P;
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
	void (*run)(struct lab *lab, enum guest_mode mode, uint64_t block);
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
static bool apply_marks(struct lab *lab, unsigned int leaf, unsigned int marks)
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
static void set_rights(struct lab *lab, const uint64_t *base, unsigned int leaf, unsigned int top,
		       unsigned int rights)
{
	for (unsigned int level = leaf; level <= top; level++, rights >>= 3)
		lab->entry[level] = (base[level] & ~(W | U)) | (rights & 3) << 1 |
				    (uint64_t)(rights & 4) << 61;
	for (unsigned int level = top + 1; level <= lab->world.levels; level++)
		lab->entry[level] = base[level];
}

/* 32-bit entries have no NX: every other value of their rights is skipped. */
static bool has_wrong_bits(enum guest_mode mode, unsigned int rights)
{
	return mode <= GUEST_PSE && (rights & 044);
}

static void run_rights(struct lab *lab, enum guest_mode mode, uint64_t block)
{
	struct guest_world world = { .mode = mode, .width = 40, .pages_1g = true, .pse36 = true };
	unsigned int leaf = digit(&block, page_sizes(mode)) + 1;
	unsigned int marks = digit(&block, MARKS_MAX);
	const struct guest_access *access = &accesses[digit(&block, COUNT_OF(accesses))];
	unsigned int bits = access_bits(access), top = levels_with_rights(mode);
	uint64_t base[6];

	world.wp = yes(&block);
	world.nxe = yes(&block);
	world.smep = yes(&block);
	world.smap = yes(&block);
	set_keys(&world, (unsigned int)block);
	lab_enter(lab, &world);
	lead_to(&lab->world, leaf, lab->entry);
	if (!apply_marks(lab, leaf, marks))
		return;
	if (mode >= GUEST_4L)
		lab->entry[leaf] |= KEY;
	memcpy(base, lab->entry, sizeof(base));
	insist(!load_pdptes(lab));
	for (unsigned int rights = 0; rights < 1u << 3 * (top - leaf + 1); rights++) {
		if (has_wrong_bits(mode, rights))
			continue;
		set_rights(lab, base, leaf, top, rights);
		try_case(lab, access, bits);
	}
}

/* --- sweep: every bit, singly and in pairs, also of two levels --------------------------------- */

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

static void flip(struct lab *lab, unsigned int place)
{
	unsigned int places = lab->bytes * 8;

	lab->entry[1 + place / places] ^= 1ULL << place % places;
}

/* PAE: the entry of level 3 is judged when CR3 is loaded. */
static bool is_loaded(struct lab *lab, uint64_t pdpte_before)
{
	if (lab->world.mode != GUEST_PAE || lab->entry[3] == pdpte_before)
		return true;
	if (guest_pdpte_refused(&lab->world, lab->entry[3])) {
		lab->cases++;
		lab->mismatches += load_pdptes(lab) != -EINVAL;
		return false;
	}
	insist(!load_pdptes(lab));
	return true;
}

static void run_bits(struct lab *lab, enum guest_mode mode, uint64_t block)
{
	struct guest_world world = { .mode = mode, .wp = true, .pke = true, .pkru = 0x55555554 };
	unsigned int leaf = digit(&block, page_sizes(mode)) + 1;
	const struct guest_access *access = &bit_accesses[digit(&block, COUNT_OF(bit_accesses))];
	unsigned int bits = access_bits(access), places;
	uint64_t base[6];

	world.width = widths[digit(&block, COUNT_OF(widths))];
	world.nxe = yes(&block);
	world.pages_1g = yes(&block);
	world.pse36 = yes(&block);
	world.amd = yes(&block);
	if (world.width < 39) /* the pages' addresses are that wide */
		world.width = leaf == 1 || mode <= GUEST_PSE ? world.width : 39;
	lab_enter(lab, &world);
	lead_to(&lab->world, leaf, base);
	places = lab->world.levels * lab->bytes * 8;
	for (unsigned int one = 0; one < places; one++) {
		for (unsigned int other = one; other < places; other++) {
			memcpy(lab->entry, base, sizeof(base));
			insist(mode != GUEST_PAE || !load_pdptes(lab));
			flip(lab, one);
			if (other != one)
				flip(lab, other);
			if (is_loaded(lab, base[3]))
				try_case(lab, access, bits);
		}
	}
}

/* --- sweep: absent and ill-formed entries on any levels, with rights and keys that refuse ------- */

static uint64_t presence_blocks(enum guest_mode mode)
{
	return 16 * COUNT_OF(accesses) * page_sizes(mode);
}

static void run_presence(struct lab *lab, enum guest_mode mode, uint64_t block)
{
	struct guest_world world = { .mode = mode, .width = 40, .pages_1g = true, .wp = true };
	unsigned int leaf = digit(&block, page_sizes(mode)) + 1;
	const struct guest_access *access = &accesses[digit(&block, COUNT_OF(accesses))];
	unsigned int bits = access_bits(access), levels;
	uint64_t base[6], bad = mode <= GUEST_PSE ? 1ULL << 21 : 1ULL << 45;

	world.nxe = yes(&block);
	world.smep = yes(&block);
	world.smap = yes(&block);
	world.pke = world.pks = yes(&block);
	world.pkru = world.pkrs = 0xffffffff;
	lab_enter(lab, &world);
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
		insist(mode != GUEST_PAE || kinds || !load_pdptes(lab));
		try_case(lab, access, bits);
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
	struct lab lab;
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
