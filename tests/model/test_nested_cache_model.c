/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cached walks, guest tables written, stage 2 changed, invalidations, registers and address spaces
 * in random order: where each change is followed by an invalidation that the manuals say is
 * enough, a cached walk always says what a walk without a cache says, and leaves nothing for
 * that one to set.
 */
#include "support/nested_guest.h"
#include "support/testing.h"

#define SPACES	GUEST_SPACES
#define KERNEL	SPACES /* as the owner of tables: the upper half, which all spaces share */
#define OWNERS	(SPACES + 1)
#define UPPER	0xffff800000000000ull
#define PCIDE	(1ull << 17)
#define PRESENT 1ull
#define ROUNDS	60
#define STEPS	40000
#define DATA_4K 24 /* frames of data by 4 KiB */
#define PAGES	16 /* in use in each leaf table */

/* A table of an owner: level 3, two of level 2, four of level 1. */
struct table {
	uint64_t gpa;
	unsigned int level;
	uint64_t gva; /* the first address that it translates */
	unsigned int owner;
};

static uint64_t seed;
static struct nested_guest guest;
static struct mv_nested_log change_log;
static struct mv_nested_cache *cache;
static struct chance chance;
static struct table tables[OWNERS * 7];
static unsigned int tables_count;
static unsigned int space;
static uint64_t cr4_more, cr0_less;
static uint64_t total_hits, total_walks, kinds[MV_NESTED_STAGE2 + 1];

/* --- the guest ----------------------------------------------------------------------------------
 */

static void add_table(unsigned int owner, unsigned int level, uint64_t gpa, uint64_t gva)
{
	tables[tables_count++] = (struct table){ gpa, level, gva, owner };
}

static uint64_t any_leaf(unsigned int owner, unsigned int index)
{
	uint64_t leaf = GUEST_ENTRY | (owner == KERNEL ? GUEST_GLOBAL : 0);

	if (chance_one_in(&chance, 6))
		leaf &= ~(chance_next(&chance) & 0x66);
	if (chance_one_in(&chance, 8))
		leaf |= 1ull << 63;
	leaf |= chance_one_in(&chance, 4) ? chance_next(&chance) & (0x98 | 15ull << 59) : 0;
	/* Mostly in a row, so that neighbours share an entry. */
	if (!chance_one_in(&chance, 3))
		return leaf | (GUEST_DATA + index * 4096ul);
	if (chance_one_in(&chance, 4))
		return leaf | (GUEST_DATA_2M + chance_below(&chance, 1024) * 4096);
	if (chance_one_in(&chance, 4))
		return leaf | (GUEST_DATA_1G + chance_below(&chance, 1024) * 4096);
	return leaf | (GUEST_DATA + chance_below(&chance, DATA_4K) * 4096);
}

static void build_owner(unsigned int owner)
{
	unsigned int root = owner == KERNEL ? 0 : owner;
	uint64_t base = owner == KERNEL ? UPPER : 0;
	uint64_t three = nested_guest_next(&guest, guest.root[root], 4, base);

	add_table(owner, 3, three, base);
	for (uint64_t i = 0; i < 2; i++) {
		uint64_t two = nested_guest_next(&guest, three, 3, base + (i << 30));

		add_table(owner, 2, two, base + (i << 30));
		for (uint64_t j = 0; j < 2; j++) {
			uint64_t gva = base + (i << 30) + (j << 21);
			uint64_t one = nested_guest_next(&guest, two, 2, gva);

			add_table(owner, 1, one, gva);
			for (unsigned int page = 0; page < PAGES; page++)
				*nested_guest_entry(&guest, one, 1, page * 4096ul) =
					any_leaf(owner, page);
		}
	}
}

static void load(void)
{
	nested_guest_load(&guest, space, PCIDE | cr4_more, cr0_less);
}

static void open_guest(void)
{
	static const enum mv_format_id formats[] = { MV_FORMAT_EPT_4L, MV_FORMAT_EPT_5L,
						     MV_FORMAT_NPT_4L, MV_FORMAT_NPT_5L };
	uint32_t features =
		(uint32_t)chance_next(&chance) & (MV_FEATURE_ACCESSED | MV_FEATURE_EXEC_ONLY);
	struct mv_nested_cache_config config = { .size = sizeof(config), .node = -1 };

	config.pages_lg2 = chance_one_in(&chance, 2) ? 4 : 0;
	nested_guest_open(&guest, formats[chance_below(&chance, 4)], features,
			  chance_one_in(&chance, 4));
	mv_nested_log_init(&change_log);
	guest.world.log = &change_log;
	tables_count = 0;
	for (unsigned int owner = 0; owner < OWNERS; owner++)
		build_owner(owner);
	for (unsigned int i = 1; i < SPACES; i++)
		*nested_guest_entry(&guest, guest.root[i], 4, UPPER) =
			*nested_guest_entry(&guest, guest.root[0], 4, UPPER);
	load();
	assert_int_equal(mv_nested_cache_create(&config, &cache), 0);
}

static void close_guest(void)
{
	struct mv_nested_cache_counts counts;

	mv_nested_cache_get_counts(cache, &counts);
	total_hits += counts.hits;
	total_walks += counts.walks;
	mv_nested_cache_destroy(cache);
	nested_guest_close(&guest);
}

/* --- invalidations -------------------------------------------------------------------------------
 */

static uint32_t pcid_of(unsigned int owner)
{
	return owner == KERNEL ? MV_NESTED_ALL_PCIDS : owner + 1;
}

/* INVLPG in each PCID of every page in use below an entry. */
static void flush_addresses(const struct table *table, unsigned int index)
{
	uint64_t first = table->gva + ((uint64_t)index << (3 + 9 * table->level));
	uint64_t last = first + (1ull << (3 + 9 * table->level)) - 1;

	for (uint64_t i = 0; i < 4 * PAGES; i++) {
		uint64_t gva = (table->owner == KERNEL ? UPPER : 0) + (i / PAGES % 2 << 21) +
			       (i / PAGES / 2 << 30) + i % PAGES * 4096;

		if (gva >= first && gva <= last)
			mv_nested_cache_flush_address(cache, gva, pcid_of(table->owner), true);
	}
}

static void invalidate_entry(const struct table *table, unsigned int index)
{
	switch (chance_below(&chance, 8)) {
	case 0:
		mv_nested_cache_flush_all(cache);
		break;
	case 1:
		mv_nested_cache_flush_pcid(cache, pcid_of(table->owner), table->owner == KERNEL);
		break;
	case 2:
	case 3:
		mv_nested_cache_flush_table(cache, table->gpa + index * 8);
		break;
	default:
		flush_addresses(table, index);
	}
}

/* --- changes -------------------------------------------------------------------------------------
 */

static void write_leaf_table(const struct table *table)
{
	unsigned int index = (unsigned int)chance_below(&chance, PAGES);
	uint64_t *entry = nested_guest_entry(&guest, table->gpa, 1, index * 4096ul);
	uint64_t old = *entry;

	*entry = chance_one_in(&chance, 4) ? 0 : any_leaf(table->owner, index);
	if (old & PRESENT)
		invalidate_entry(table, index);
}

/* An upper entry comes and goes, changes its rights, or becomes a page and a table again. */
static void write_upper_table(const struct table *table)
{
	static uint64_t saved[WORLD_FRAMES][2];
	unsigned int index = (unsigned int)chance_below(&chance, 2);
	uint64_t *entry = nested_guest_entry(&guest, table->gpa, table->level,
					     (uint64_t)index << (3 + 9 * table->level));
	uint64_t *mine = &saved[table->gpa >> 12][index];
	uint64_t old = *entry;

	if ((old & PRESENT) && !(old & GUEST_LARGE))
		*mine = old & 0xffffffffff000ull;
	switch (chance_below(&chance, 12)) {
	case 0:
		*entry = 0;
		break;
	case 1:
		*entry = (table->level == 2 ? GUEST_DATA_2M : GUEST_DATA_1G) | GUEST_LARGE |
			 GUEST_ENTRY | (table->owner == KERNEL ? GUEST_GLOBAL : 0);
		break;
	case 2:
		*entry = *mine | (GUEST_ENTRY & ~(chance_next(&chance) & 0x26));
		break;
	default:
		*entry = *mine | GUEST_ENTRY;
	}
	if (old & PRESENT)
		invalidate_entry(table, index);
}

static void write_guest_table(void)
{
	const struct table *table = &tables[chance_below(&chance, tables_count)];

	if (table->level == 1)
		write_leaf_table(table);
	else if (chance_one_in(&chance, 3))
		write_upper_table(table);
}

static void tell_of_stage2(uint64_t first, uint64_t last)
{
	if (chance_one_in(&chance, 2))
		mv_nested_cache_flush_gpa(cache, &guest.world.nested, first, last);
	else
		mv_nested_log_add(&change_log, first, last);
}

/* What maps a table, or data, loses rights or flags, comes and goes, or moves. */
static void change_stage2(void)
{
	bool ept = nested_world_is_ept(&guest.world);
	bool of_table = chance_one_in(&chance, 2);
	uint64_t gpa = GUEST_DATA + chance_below(&chance, DATA_4K) * 4096, old, last, *leaf;
	uint64_t whole = ept ? 0x337 : 0x67;

	if (of_table)
		gpa = tables[chance_below(&chance, tables_count)].gpa;
	else if (chance_one_in(&chance, 8))
		gpa = chance_one_in(&chance, 2) ? GUEST_DATA_2M : GUEST_DATA_1G;
	last = gpa +
	       (gpa < GUEST_DATA_2M    ? 4096
		: gpa == GUEST_DATA_2M ? 1ul << 21
				       : 1ul << 30) -
	       1;
	leaf = nested_guest_stage2(&guest, gpa);
	old = *leaf;
	*leaf = gpa | whole | (gpa >= GUEST_DATA_2M ? 0x80 : 0);
	/* Without its tables a guest gets nowhere: they mostly come back. */
	if (chance_one_in(&chance, of_table ? 16 : 4))
		*leaf = 0;
	else if (chance_one_in(&chance, of_table ? 8 : 3))
		*leaf &= ~(chance_next(&chance) & (ept ? 0x306 : 0x66));
	else if (!of_table && gpa < GUEST_DATA_2M && chance_one_in(&chance, 3))
		*leaf += 1ull << 24;
	if (old & 7)
		tell_of_stage2(gpa, last);
}

static void change_registers(void)
{
	struct mv_paging_registers *registers = &guest.world.registers;

	cr0_less = chance_one_in(&chance, 4) ? 1ull << 16 : 0;
	cr4_more = chance_next(&chance) & (7ull << 20);
	registers->pkru = chance_one_in(&chance, 2) ? 0 : (uint32_t)chance_next(&chance);
	space = (unsigned int)chance_below(&chance, SPACES);
	load();
	/* A load of CR3 that keeps translations, or does not. */
	if (chance_one_in(&chance, 3))
		mv_nested_cache_flush_pcid(cache, space + 1, false);
}

/* --- walks ---------------------------------------------------------------------------------------
 */

static uint64_t any_gva(void)
{
	uint64_t gva = chance_below(&chance, PAGES) << 12 | chance_below(&chance, 2) << 21 |
		       chance_below(&chance, 2) << 30 | chance_below(&chance, 4096);

	return gva + (chance_one_in(&chance, 3) ? UPPER : 0);
}

/* DIRTY may lag: another address may have set it. */
static bool agree(const struct mv_nested_walk *a, const struct mv_nested_walk *b)
{
	return a->kind == b->kind && a->gpa == b->gpa && a->hpa == b->hpa &&
	       a->page_lg2 == b->page_lg2 && !((a->attr ^ b->attr) & ~MV_ATTR_DIRTY) &&
	       !(a->attr & ~b->attr) && a->type == b->type && a->error_code == b->error_code &&
	       a->level == b->level && a->code == b->code && a->guest_table == b->guest_table;
}

static void walk(void)
{
	static unsigned char before[WORLD_BYTES];
	unsigned int access = nested_world_access(&chance);
	struct mv_nested_walk cached = { 0 }, plain = { 0 };
	bool look = chance_one_in(&chance, 64);
	uint64_t gva = any_gva();

	assert_int_equal(mv_nested_cached_walk(cache, &guest.world.nested, gva, access, &cached),
			 0);
	if (look)
		memcpy(before, guest.world.memory, WORLD_BYTES);
	assert_int_equal(mv_nested_walk(&guest.world.nested, gva, access, &plain), 0);
	kinds[plain.kind]++;
	if (!agree(&cached, &plain))
		fail_msg("gva %#lx access %#x: cached kind %d hpa %#lx lg2 %u attr %#x type %u, "
			 "plain kind %d hpa %#lx lg2 %u attr %#x type %u",
			 gva, access, cached.kind, cached.hpa, cached.page_lg2, cached.attr,
			 cached.type, plain.kind, plain.hpa, plain.page_lg2, plain.attr,
			 plain.type);
	if (look && cached.kind == MV_NESTED_OK)
		assert_memory_equal(before, guest.world.memory, WORLD_BYTES);
}

static void step(void)
{
	uint64_t what = chance_below(&chance, 200);

	if (what < 6)
		write_guest_table();
	else if (what < 8)
		change_stage2();
	else if (what < 11)
		change_registers();
	else
		walk();
}

static void a_cached_walk_says_what_a_walk_says(void **state)
{
	uint64_t rounds = test_rounds(ROUNDS);

	chance = chance_of(seed, 1);
	for (uint64_t round = 0; round < rounds; round++) {
		open_guest();
		for (unsigned int i = 0; i < STEPS; i++)
			step();
		close_guest();
	}
	print_message("# %lu hits, %lu walks; %lu translated, %lu page faults, %lu of stage 2\n",
		      total_hits, total_walks, kinds[MV_NESTED_OK], kinds[MV_NESTED_PAGE_FAULT],
		      kinds[MV_NESTED_STAGE2]);
	assert_true(total_hits > kinds[MV_NESTED_OK] / 5);
	assert_true(kinds[MV_NESTED_STAGE2] > 1000 && kinds[MV_NESTED_PAGE_FAULT] > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_cached_walk_says_what_a_walk_says),
	};

	seed = test_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
