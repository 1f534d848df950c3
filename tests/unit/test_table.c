/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables: what the model test does not reach. Configurations, defects planted one by one, and the
 * engine's own interface: grants, zaps, changes.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>

#include <memvirt/table.h>

#include "support/fake_platform.h"
#include "support/testing.h"
#include "formats.h"
#include "table_unmap.h"

#define RW	   (MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_TYPE(MV_TYPE_WB))
#define MIB2	   0x200000ULL
#define GIB	   0x40000000ULL
#define TOKEN	   7
#define NO_MAPPING ((struct mv_mapping){ .address = 77 })

struct rig {
	struct fake_platform fake;
	struct mv_engine e;
	unsigned int flushes;
	uint64_t first, last; /* of the last one */
};

static void note_flush(void *ctx, uint64_t first, uint64_t last)
{
	struct rig *rig = ctx;

	rig->flushes++;
	rig->first = first;
	rig->last = last;
}

static struct mv_table_config config_of(struct rig *rig, enum mv_format_id format)
{
	return (struct mv_table_config){
		.size = sizeof(struct mv_table_config),
		.platform = &rig->fake.platform,
		.format = format,
		.features = MV_FEATURE_2M | MV_FEATURE_1G | MV_FEATURE_NX | MV_FEATURE_ACCESSED |
			    MV_FEATURE_VE,
		.maxphyaddr = 46,
		.node = -1,
		.flush = note_flush,
		.ctx = rig,
	};
}

static void rig_open(struct rig *rig, enum mv_format_id format)
{
	struct mv_table_config config;

	*rig = (struct rig){ 0 };
	fake_platform_init(&rig->fake);
	config = config_of(rig, format);
	assert_int_equal(mv_engine_init(&rig->e, &config), 0);
}

static void rig_close(struct rig *rig)
{
	mv_engine_finish(&rig->e);
	fake_platform_finish(&rig->fake);
}

/* --- configurations --------------------------------------------------------------------------- */

static void a_bad_configuration_is_refused(void **state)
{
	struct mv_platform no_pages = *mv_platform_linux();
	struct mv_platform_ops ops = *no_pages.ops;
	struct mv_table *table = (void *)1;
	struct mv_table_config good, bad;
	struct rig rig = { 0 };

	fake_platform_init(&rig.fake);
	good = config_of(&rig, MV_FORMAT_EPT_4L);
	assert_int_equal(mv_table_create(NULL, &table), -EINVAL);
	bad = good, bad.size--;
	assert_int_equal(mv_table_create(&bad, &table), -EINVAL);
	bad = good, bad.format = MV_FORMATS;
	assert_int_equal(mv_table_create(&bad, &table), -EINVAL);
	bad = good, bad.maxphyaddr = 31;
	assert_int_equal(mv_table_create(&bad, &table), -EINVAL);
	bad = good, bad.maxphyaddr = 53;
	assert_int_equal(mv_table_create(&bad, &table), -EINVAL);
	ops.table_alloc = NULL;
	no_pages.ops = &ops;
	bad = good, bad.platform = &no_pages;
	assert_int_equal(mv_table_create(&bad, &table), -EINVAL);
	assert_ptr_equal(table, (void *)1);
	assert_int_equal(mv_table_create(&good, &table), 0);
	mv_table_destroy(table);
	mv_table_destroy(NULL);
	fake_platform_finish(&rig.fake);
}

static void the_root_counts_and_is_the_first_page(void **state)
{
	struct mv_table_usage usage;
	struct mv_table_config config;
	struct mv_table *table;
	struct rig rig = { 0 };

	fake_platform_init(&rig.fake);
	config = config_of(&rig, MV_FORMAT_X86_4L);
	config.page_limit = 1;
	assert_int_equal(mv_table_create(&config, &table), 0);
	mv_table_get_usage(table, &usage);
	assert_int_equal(usage.pages, 1);
	assert_int_equal(usage.peak_pages, 1);
	assert_int_equal(mv_table_root(table) % 4096, 0);
	assert_int_equal(mv_table_map(table, 0, 4095, 0, RW, 0), -ENOSPC);
	mv_table_destroy(table);
	fake_platform_finish(&rig.fake);
}

/* A platform whose pages lie where entries cannot say. */
static void *high_page(void *ctx, int node)
{
	return mv_platform_linux()->ops->table_alloc(NULL, node);
}

static void a_page_that_no_entry_can_name_is_not_used(void **state)
{
	static const struct {
		enum mv_format_id format;
		unsigned int maxphyaddr;
		uint64_t away;
		int result;
	} cases[] = {
		{ MV_FORMAT_X86_32, 52, 1ULL << 32, -ENOMEM },
		{ MV_FORMAT_X86_PSE, 52, 1ULL << 32, -ENOMEM },
		{ MV_FORMAT_X86_PAE, 52, 1ULL << 32, -ENOMEM }, /* the root, for CR3's sake */
		{ MV_FORMAT_X86_4L, 52, 1ULL << 32, 0 },
		{ MV_FORMAT_X86_4L, 40, 1ULL << 40, -ENOMEM },
		{ MV_FORMAT_EPT_4L, 40, 1ULL << 40, -ENOMEM },
		{ MV_FORMAT_EPT_4L, 41, 1ULL << 40, 0 },
	};
	struct mv_platform_ops ops = *mv_platform_linux()->ops;
	struct mv_platform far = { .ops = &ops };

	ops.table_alloc = high_page;
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		struct mv_table *table = NULL;
		struct mv_table_config config = {
			.size = sizeof(config),
			.platform = &far,
			.format = cases[i].format,
			.maxphyaddr = cases[i].maxphyaddr,
			.node = -1,
		};

		/* Where we see it, less that, is its physical address. */
		far.direct_map = -(uintptr_t)cases[i].away;
		assert_int_equal(mv_table_create(&config, &table), cases[i].result);
		mv_table_destroy(table);
	}
}

/* --- defects ---------------------------------------------------------------------------------- */

static uint64_t *entry_at(struct rig *rig, uint64_t address, unsigned int level)
{
	uint64_t *table = (uint64_t *)(uintptr_t)rig->e.root;

	for (unsigned int l = rig->e.format->levels;; l--) {
		uint64_t *entry = &table[address >> (12 + 9 * (l - 1)) & 511];

		if (l == level)
			return entry;
		table = (uint64_t *)(uintptr_t)(*entry & 0x000ffffffffff000ULL);
	}
}

static void expect_defect(struct rig *rig, enum mv_table_defect_kind kind, uint64_t address,
			  unsigned int level, uint64_t entry)
{
	struct mv_table_defect defect;

	assert_false(mv_engine_check(&rig->e, false, &defect));
	assert_int_equal(defect.kind, kind);
	assert_int_equal(defect.address, address);
	assert_int_equal(defect.level, level);
	assert_int_equal(defect.entry, entry);
}

/* Put @value where an entry is, see it found, and put it back. */
static void plant(struct rig *rig, uint64_t address, unsigned int level, uint64_t value,
		  enum mv_table_defect_kind kind)
{
	uint64_t *entry = entry_at(rig, address, level), was = *entry;
	struct mv_table_defect defect;

	*entry = value;
	expect_defect(rig, kind, address, level, value);
	*entry = was;
	assert_true(mv_engine_check(&rig->e, false, &defect));
	assert_int_equal(defect.kind, MV_DEFECT_NONE);
}

static void map_a_little(struct rig *rig)
{
	assert_int_equal(mv_engine_map(&rig->e, 0, GIB - 1, 0, RW, 30), 0);
	assert_int_equal(mv_engine_map(&rig->e, GIB, GIB + MIB2 + 0x3fff, GIB, RW, 0), 0);
}

static void every_defect_is_found(void **state)
{
	struct rig rig;
	uint64_t leaf, table;

	rig_open(&rig, MV_FORMAT_EPT_4L);
	map_a_little(&rig);
	leaf = *entry_at(&rig, GIB + MIB2 + 0x1000, 1);
	table = *entry_at(&rig, GIB + MIB2, 2);

	/* Reserved: table 29-1 and those after it. */
	plant(&rig, GIB + MIB2, 2, table | 1 << 3, MV_DEFECT_RESERVED);
	plant(&rig, 0, 3, *entry_at(&rig, 0, 3) | 1 << 12, MV_DEFECT_RESERVED);
	plant(&rig, GIB + MIB2 + 0x1000, 1, leaf & ~1ULL, MV_DEFECT_RESERVED);
	plant(&rig, GIB + MIB2 + 0x1000, 1, (leaf & ~0x38ULL) | 3 << 3, MV_DEFECT_RESERVED);
	/* Beyond the width. */
	plant(&rig, GIB + MIB2 + 0x1000, 1, leaf | 1ULL << 46, MV_DEFECT_ADDRESS);
	plant(&rig, GIB + MIB2, 2, table | 1ULL << 51, MV_DEFECT_ADDRESS);
	/* Neither empty nor a mark. With #VE, what is empty has bit 63. */
	plant(&rig, GIB + 3 * MIB2, 2, 0, MV_DEFECT_NOT_PRESENT);
	plant(&rig, GIB + 3 * MIB2, 2, 0x123000ULL | 1ULL << 63, MV_DEFECT_NOT_PRESENT);
	/* Twice: from its own level, and from below. */
	plant(&rig, GIB + 3 * MIB2, 2, table, MV_DEFECT_LOOP);
	plant(&rig, GIB + 3 * MIB2, 2, rig.e.root | 7, MV_DEFECT_LOOP);
	rig_close(&rig);
}

static void an_empty_table_is_a_defect_unless_it_is_expected(void **state)
{
	struct mv_table_defect defect;
	struct mv_zapped zapped;
	struct rig rig;

	rig_open(&rig, MV_FORMAT_X86_5L);
	map_a_little(&rig);
	mv_engine_zap(&rig.e, GIB + MIB2, GIB + MIB2 + 0x3fff, &zapped, NULL, NULL);
	assert_true(mv_engine_check(&rig.e, true, &defect));
	expect_defect(&rig, MV_DEFECT_EMPTY_TABLE, GIB + MIB2, 2, *entry_at(&rig, GIB + MIB2, 2));
	mv_engine_trim(&rig.e, GIB, 2 * GIB - 1);
	assert_true(mv_engine_check(&rig.e, false, &defect));
	rig_close(&rig);
}

static void pages_that_are_not_accounted_for_are_a_defect(void **state)
{
	struct mv_table_defect defect;
	struct rig rig;

	rig_open(&rig, MV_FORMAT_NPT_4L);
	map_a_little(&rig);
	rig.e.pages++;
	expect_defect(&rig, MV_DEFECT_COUNT, 0, 4, 0);
	rig.e.pages -= 2;
	assert_false(mv_engine_check(&rig.e, false, &defect));
	assert_int_equal(defect.kind, MV_DEFECT_COUNT);
	rig.e.pages++;
	/* The same where there is no memory to note what was seen. */
	rig.fake.fail_after = 0;
	assert_true(mv_engine_check(&rig.e, false, &defect));
	rig_close(&rig);
}

static void marks_are_no_defect_and_read_as_nothing(void **state)
{
	static const enum mv_mark kinds[] = { MV_MARK_FROZEN, MV_MARK_PENDING, MV_MARK_SEALED };
	struct mv_mapping mapping = NO_MAPPING;
	struct mv_table_defect defect;
	struct rig rig;

	rig_open(&rig, MV_FORMAT_EPT_4L);
	map_a_little(&rig);
	for (size_t i = 0; i < COUNT_OF(kinds); i++) {
		uint64_t address = GIB + MIB2 + 0x5000;
		uint64_t mark = mv_mark_make(rig.e.format, &rig.e.rules, kinds[i], 12345);

		*entry_at(&rig, address, 1) = mark;
		assert_true(mv_entry_is_mark(&rig.e.rules, mark, kinds[i]));
		assert_false(mv_entry_is_mark(&rig.e.rules, mark, kinds[(i + 1) % 3]));
		assert_int_equal(mv_mark_number(rig.e.format, mark), 12345);
		assert_int_equal(mark & 7, 0);
		assert_int_equal(mark >> 63, 1); /* a fault here is an exit, no #VE */
		assert_true((mark & 0x000ffffffffff000ULL) >> 46); /* no frame that exists */
		assert_true(mv_engine_check(&rig.e, false, &defect));
		assert_int_equal(mv_engine_walk(&rig.e, address, &mapping), -ENOENT);
		assert_int_equal(mapping.address, 77);
		*entry_at(&rig, address, 1) = rig.e.rules.empty;
	}
	rig_close(&rig);
}

/* --- grants ----------------------------------------------------------------------------------- */

static struct mv_grant grant_of(uint64_t address, unsigned int level)
{
	return (struct mv_grant){ .address = address,
				  .phys = 4 * GIB + address,
				  .level = level,
				  .attr = RW,
				  .token = TOKEN };
}

static void a_grant_installs_a_leaf_and_what_is_above(void **state)
{
	struct mv_mapping mapping, found = NO_MAPPING;
	struct rig rig;

	rig_open(&rig, MV_FORMAT_EPT_5L);
	for (unsigned int level = 1; level <= 3; level++) {
		uint64_t address = 5 * GIB * level;
		struct mv_grant grant = grant_of(address, level);

		assert_int_equal(mv_engine_grant(&rig.e, &grant, &found), 0);
		assert_int_equal(found.address, 77);
		assert_int_equal(mv_engine_walk(&rig.e, address + 5, &mapping), 0);
		assert_int_equal(mapping.level, level);
		assert_int_equal(mapping.phys, 4 * GIB + address);
		assert_int_equal(mapping.attr, RW);
		assert_int_equal(mv_engine_grant(&rig.e, &grant, &found), -EEXIST);
		assert_int_equal(found.address, mapping.address);
		assert_int_equal(found.phys, mapping.phys);
		assert_int_equal(found.level, level);
		assert_int_equal(found.attr, RW);
		found = NO_MAPPING;
	}
	assert_int_equal(rig.flushes, 0);
	rig_close(&rig);
}

static void a_grant_says_what_is_in_the_way(void **state)
{
	struct mv_mapping found = NO_MAPPING;
	struct mv_grant grant;
	struct rig rig;

	rig_open(&rig, MV_FORMAT_EPT_4L);
	map_a_little(&rig);
	grant = grant_of(GIB + MIB2, 2);
	assert_int_equal(mv_engine_grant(&rig.e, &grant, &found), -ENOTEMPTY);
	grant = grant_of(GIB, 3);
	assert_int_equal(mv_engine_grant(&rig.e, &grant, &found), -ENOTEMPTY);
	assert_int_equal(found.address, 77);
	grant = grant_of(0x5000, 1);
	assert_int_equal(mv_engine_grant(&rig.e, &grant, &found), -EEXIST);
	assert_int_equal(found.address, 0);
	assert_int_equal(found.level, 3);
	rig_close(&rig);
}

static void a_bad_grant_is_refused(void **state)
{
	struct mv_mapping found;
	struct mv_grant good, bad;
	struct rig rig;

	rig_open(&rig, MV_FORMAT_EPT_4L);
	good = grant_of(2 * GIB, 2);
	bad = good, bad.level = 0;
	assert_int_equal(mv_engine_grant(&rig.e, &bad, &found), -EINVAL);
	bad = good, bad.level = 4;
	assert_int_equal(mv_engine_grant(&rig.e, &bad, &found), -EINVAL);
	bad = good, bad.address += 4096;
	assert_int_equal(mv_engine_grant(&rig.e, &bad, &found), -EINVAL);
	bad = good, bad.phys += 4096;
	assert_int_equal(mv_engine_grant(&rig.e, &bad, &found), -EINVAL);
	bad = good, bad.phys |= 1ULL << 46;
	assert_int_equal(mv_engine_grant(&rig.e, &bad, &found), -EINVAL);
	bad = good, bad.address = 1ULL << 48;
	assert_int_equal(mv_engine_grant(&rig.e, &bad, &found), -EINVAL);
	bad = good, bad.attr = MV_ATTR_WRITE;
	assert_int_equal(mv_engine_grant(&rig.e, &bad, &found), -EINVAL);
	assert_int_equal(rig.e.pages, 1);
	rig_close(&rig);
}

/* What happens between a reservation and the install. */
struct between {
	struct rig *rig;
	uint64_t address;
	unsigned int level;
	bool answer;
	bool zap;
	unsigned int asked;
	int (*also)(struct between *b);
};

static bool look_between(void *ctx)
{
	struct between *b = ctx;
	struct mv_mapping mapping;
	struct mv_zapped zapped;

	uint64_t mark = *entry_at(b->rig, b->address, b->level);

	b->asked++;
	insist(mv_entry_is_mark(&b->rig->e.rules, mark, MV_MARK_PENDING));
	insist(mv_mark_number(b->rig->e.format, mark) == TOKEN);
	insist(mv_engine_walk(&b->rig->e, b->address, &mapping) == -ENOENT);
	if (b->zap && b->asked == 1)
		mv_engine_zap(&b->rig->e, b->address, b->address + 4095, &zapped, NULL, NULL);
	if (b->also && b->asked == 1)
		insist(b->also(b) == 0);
	return b->answer;
}

static void a_grant_that_does_not_hold_leaves_nothing(void **state)
{
	struct mv_grant grant = grant_of(GIB, 2);
	struct mv_mapping found;
	struct rig rig;
	struct between b = { &rig, GIB, 2, false, false, 0, NULL };

	rig_open(&rig, MV_FORMAT_EPT_4L);
	grant.holds = look_between;
	grant.ctx = &b;
	assert_int_equal(mv_engine_grant(&rig.e, &grant, &found), -ESTALE);
	assert_int_equal(b.asked, 1);
	assert_int_equal(*entry_at(&rig, GIB, 2), rig.e.rules.empty);
	rig_close(&rig);
}

static void a_zap_clears_a_reservation_and_the_grant_asks_again(void **state)
{
	struct mv_grant grant = grant_of(GIB, 2);
	struct mv_mapping mapping;
	struct rig rig;
	/* The zap is of one page of it only. */
	struct between b = { &rig, GIB, 2, true, true, 0, NULL };

	rig_open(&rig, MV_FORMAT_EPT_4L);
	grant.holds = look_between;
	grant.ctx = &b;
	assert_int_equal(mv_engine_grant(&rig.e, &grant, &mapping), 0);
	assert_int_equal(b.asked, 2);
	assert_int_equal(mv_engine_walk(&rig.e, GIB, &mapping), 0);
	rig_close(&rig);
}

static int grant_the_same(struct between *b)
{
	struct mv_grant grant = grant_of(b->address, b->level);
	struct mv_mapping found;

	return mv_engine_grant(&b->rig->e, &grant, &found);
}

static void two_grants_of_a_page_share_a_reservation(void **state)
{
	struct mv_grant grant = grant_of(GIB, 1);
	struct mv_mapping found = NO_MAPPING;
	struct rig rig;
	struct between b = { &rig, GIB, 1, true, false, 0, grant_the_same };

	rig_open(&rig, MV_FORMAT_NPT_4L);
	grant.holds = look_between;
	grant.ctx = &b;
	assert_int_equal(mv_engine_grant(&rig.e, &grant, &found), -EEXIST);
	assert_int_equal(found.address, GIB);
	rig_close(&rig);
}

static int revoke_and_grant_anew(struct between *b)
{
	struct mv_grant grant = grant_of(b->address, b->level);
	struct mv_mapping found;
	struct mv_zapped zapped;

	mv_engine_zap(&b->rig->e, b->address, b->address + 4095, &zapped, NULL, NULL);
	grant.token = 8;
	grant.phys = 64 * GIB; /* it came back elsewhere */
	insist(mv_engine_grant(&b->rig->e, &grant, &found) == 0);
	mv_engine_zap(&b->rig->e, b->address, b->address + 4095, &zapped, NULL, NULL);
	/* And once more, only reserved: the first one must not take it for its own. */
	*entry_at(b->rig, b->address, b->level) =
		mv_mark_make(b->rig->e.format, &b->rig->e.rules, MV_MARK_PENDING, 9);
	b->answer = false; /* it is told when it asks again */
	return 0;
}

/* Its first question is answered before the revoke: then the install itself has to fail. */
static bool late_between(void *ctx)
{
	struct between *b = ctx;
	bool first = !b->asked++;

	if (first)
		insist(revoke_and_grant_anew(b) == 0);
	return first;
}

static void a_late_grant_does_not_take_anothers_reservation(void **state)
{
	struct mv_grant grant = grant_of(GIB, 1);
	struct mv_mapping found;
	struct rig rig;
	struct between b = { &rig, GIB, 1, true, false, 0, NULL };

	rig_open(&rig, MV_FORMAT_EPT_4L);
	grant.holds = late_between;
	grant.ctx = &b;
	assert_int_equal(mv_engine_grant(&rig.e, &grant, &found), -ESTALE);
	assert_int_equal(b.asked, 2);
	assert_int_equal(mv_engine_walk(&rig.e, GIB, &found), -ENOENT);
	rig_close(&rig);
}

/* --- zaps and changes ------------------------------------------------------------------------- */

struct gone {
	unsigned int count;
	uint64_t bytes;
	uint32_t attr;
};

static void note_gone(void *ctx, const struct mv_mapping *mapping)
{
	struct gone *gone = ctx;

	gone->count++;
	gone->bytes += 1ULL << mapping->page_lg2;
	gone->attr |= mapping->attr;
}

static void a_zap_takes_large_pages_whole_and_keeps_tables(void **state)
{
	struct mv_zapped zapped;
	struct gone gone = { 0 };
	struct rig rig;
	size_t pages;

	rig_open(&rig, MV_FORMAT_EPT_4L);
	map_a_little(&rig);
	*entry_at(&rig, GIB, 2) |= 1 << 9; /* a processor wrote */
	pages = rig.e.pages;
	mv_engine_zap(&rig.e, GIB + 0x5000, GIB + MIB2 + 0xfff, &zapped, note_gone, &gone);
	assert_int_equal(zapped.first, GIB);
	assert_int_equal(zapped.last, GIB + MIB2 + 0xfff);
	assert_int_equal(zapped.bytes, MIB2 + 4096);
	assert_int_equal(gone.count, 2);
	assert_int_equal(gone.bytes, zapped.bytes);
	assert_true(gone.attr & MV_ATTR_DIRTY);
	assert_int_equal(rig.e.pages, pages);
	assert_int_equal(rig.flushes, 0);
	assert_int_equal(rig.fake.waits, 0);
	mv_engine_zap(&rig.e, 0, GIB + 2 * GIB, &zapped, NULL, NULL);
	assert_int_equal(zapped.bytes, GIB + 3 * 4096);
	rig_close(&rig);
}

static void an_unmap_tells_of_every_leaf(void **state)
{
	struct gone gone = { 0 };
	uint64_t removed;
	struct rig rig;

	rig_open(&rig, MV_FORMAT_X86_4L);
	map_a_little(&rig);
	*entry_at(&rig, GIB + MIB2 + 0x1000, 1) |= 1 << 6;
	assert_int_equal(mv_engine_unmap(&rig.e, 0, 8 * GIB - 1, &removed, note_gone, &gone), 0);
	assert_int_equal(gone.count, 1 + 1 + 4);
	assert_int_equal(gone.bytes, GIB + MIB2 + 4 * 4096);
	assert_int_equal(removed, gone.bytes);
	assert_true(gone.attr & MV_ATTR_DIRTY);
	assert_int_equal(rig.e.pages, 1);
	rig_close(&rig);
}

static void a_change_is_made_to_what_was_seen_or_not_at_all(void **state)
{
	struct mv_mapping seen, now;
	struct rig rig;

	rig_open(&rig, MV_FORMAT_EPT_4L);
	map_a_little(&rig);
	assert_int_equal(mv_engine_walk(&rig.e, GIB, &seen), 0);
	*entry_at(&rig, GIB, 2) |= 1 << 8; /* accessed meanwhile: no matter, and kept */
	assert_int_equal(mv_engine_change(&rig.e, &seen, MV_ATTR_READ | MV_ATTR_TYPE(6)), 0);
	assert_int_equal(mv_engine_walk(&rig.e, GIB, &now), 0);
	assert_int_equal(now.attr, MV_ATTR_READ | MV_ATTR_TYPE(6) | MV_ATTR_ACCESSED);
	assert_int_equal(now.phys, seen.phys);
	assert_int_equal(mv_engine_change(&rig.e, &seen, RW), -ESTALE);
	now.phys += MIB2;
	assert_int_equal(mv_engine_change(&rig.e, &now, RW), -ESTALE);
	now.phys -= MIB2;
	assert_int_equal(mv_engine_change(&rig.e, &now, MV_ATTR_WRITE), -EINVAL);
	now.address = 1ULL << 48;
	assert_int_equal(mv_engine_change(&rig.e, &now, RW), -EINVAL);
	assert_int_equal(mv_engine_split(&rig.e, GIB, GIB, 12), 0);
	now.address = GIB;
	assert_int_equal(mv_engine_change(&rig.e, &now, RW), -ESTALE);
	rig_close(&rig);
}

/* --- two at once, by hand -------------------------------------------------------------------- */

/* Who found its entry before the table was sealed installs nothing there after. */
static void an_install_into_a_sealed_table_fails(void **state)
{
	const struct mv_format *f = &mv_format_x86_4l;
	struct mv_zapped zapped;
	struct mv_gather g;
	struct mv_place place;
	struct rig rig;
	uint64_t address = GIB + MIB2 + 0x9000;

	rig_open(&rig, MV_FORMAT_X86_4L);
	map_a_little(&rig);
	mv_engine_zap(&rig.e, GIB + MIB2, GIB + MIB2 + 0x3fff, &zapped, NULL, NULL);
	mv_gather_init(&g, &rig.e, NULL, NULL);
	mv_engine_enter(&rig.e);
	mv_descend(f, &rig.e, address, &place);
	assert_int_equal(place.level, 1);
	assert_int_equal(mv_trim_section(f, &rig.e, &g, address), MV_SEAL_DONE);
	assert_false(mv_entry_swap(f, place.table, place.index, &place.entry, address | 7));
	assert_true(mv_entry_is_held(&rig.e.rules, place.entry));
	mv_engine_leave(&rig.e);
	mv_gather_finish(&g);
	assert_int_equal(rig.fake.waits, 1);
	rig_close(&rig);
}

/* A table that somebody else seals is not given up as one in use. */
static void a_table_that_another_seals_is_waited_for(void **state)
{
	const struct mv_format *f = &mv_format_x86_4l;
	struct mv_zapped zapped;
	struct mv_gather g;
	struct rig rig;
	uint64_t address = GIB + MIB2, *first;

	rig_open(&rig, MV_FORMAT_X86_4L);
	map_a_little(&rig);
	mv_engine_zap(&rig.e, GIB + MIB2, GIB + MIB2 + 0x3fff, &zapped, NULL, NULL);
	first = entry_at(&rig, address, 1);
	*first = mv_mark_make(f, &rig.e.rules, MV_MARK_SEALED, 99);
	mv_gather_init(&g, &rig.e, NULL, NULL);
	mv_engine_enter(&rig.e);
	assert_int_equal(mv_trim_section(f, &rig.e, &g, address), MV_SEAL_BUSY);
	/* The other has found something and takes its seals back. */
	*first = 0;
	assert_int_equal(mv_trim_section(f, &rig.e, &g, address), MV_SEAL_DONE);
	mv_engine_leave(&rig.e);
	mv_gather_finish(&g);
	rig_close(&rig);
}

/* What a signal handler changes, between any two instructions of the test's thread. */
static uint64_t *volatile toggled;
static volatile unsigned int toggles;

static void toggle(int signal)
{
	uint64_t empty = 0, leaf = 0x1007;

	if (!__atomic_compare_exchange_n(toggled, &empty, leaf, false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		__atomic_compare_exchange_n(toggled, &leaf, 0, false, __ATOMIC_SEQ_CST,
					    __ATOMIC_SEQ_CST);
	toggles++;
}

static void toggle_every(long microseconds)
{
	struct sigaction action = { .sa_handler = microseconds ? toggle : SIG_IGN };
	struct itimerval timer = { { 0, microseconds }, { 0, microseconds } };

	assert_int_equal(sigaction(SIGALRM, &action, NULL), 0);
	assert_int_equal(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

/* An entry comes to life while the table is being sealed: the seals are taken back. */
static void seals_are_taken_back(void **state)
{
	const struct mv_format *f = &mv_format_x86_4l;
	unsigned int sealed = 0, met = 0;
	struct mv_place place;
	struct rig rig;

	rig_open(&rig, MV_FORMAT_X86_4L);
	assert_int_equal(mv_engine_map(&rig.e, GIB, GIB + 4095, GIB, RW, 0), 0);
	mv_descend(f, &rig.e, GIB, &place);
	mv_entry_fill(f, place.table, 0, 0);
	toggled = (uint64_t *)place.table + 400;
	toggle_every(50);
	for (uint64_t n = 0; n < 3000000 && (sealed < 100 || met < 10); n++) {
		uint64_t mark = mv_mark_make(f, &rig.e.rules, MV_MARK_SEALED, n);
		unsigned int before = toggles;

		if (mv_seal(f, &rig.e, &place, false, mark) == MV_SEAL_DONE) {
			sealed++;
			mv_unseal(f, &rig.e, place.table, 512, mark);
			continue;
		}
		met += toggles != before && *toggled;
		for (unsigned int i = 0; i < 400; i++)
			assert_int_equal(((uint64_t *)place.table)[i], 0);
	}
	toggle_every(0);
	print_message("# sealed %u times, met in it %u times\n", sealed, met);
	assert_true(sealed > 0 && met > 0);
	*toggled = 0x1007;
	rig_close(&rig);
}

/* --- nothing takes the place of what is not flushed yet ------------------------------------------
 */

/* What another thread tries while the flush has not returned. */
struct attempt {
	struct mv_engine *e;
	void (*run)(struct mv_engine *e);
	bool started; /* atomic, as the next */
	bool finished;
	bool early; /* it had finished before the flush returned */
	unsigned int flushes;
	pthread_t thread;
};

static void *run_attempt(void *arg)
{
	struct attempt *a = arg;

	__atomic_store_n(&a->started, true, __ATOMIC_SEQ_CST);
	a->run(a->e);
	__atomic_store_n(&a->finished, true, __ATOMIC_SEQ_CST);
	return NULL;
}

static void flush_slowly(void *ctx, uint64_t first, uint64_t last)
{
	struct attempt *a = ctx;

	if (__atomic_fetch_add(&a->flushes, 1, __ATOMIC_SEQ_CST))
		return;
	insist(!pthread_create(&a->thread, NULL, run_attempt, a));
	while (!__atomic_load_n(&a->started, __ATOMIC_SEQ_CST))
		usleep(1000);
	usleep(20000);
	a->early = __atomic_load_n(&a->finished, __ATOMIC_SEQ_CST);
}

static void try_map_4k(struct mv_engine *e)
{
	insist(mv_engine_map(e, GIB + 0x5000, GIB + 0x5fff, GIB, RW, 0) != -ENOMEM);
}

static void try_map_2m(struct mv_engine *e)
{
	insist(mv_engine_map(e, GIB, GIB + MIB2 - 1, GIB, RW, 0) != -ENOMEM);
}

static void try_grant(struct mv_engine *e)
{
	struct mv_grant grant = grant_of(GIB + 0x7000, 1);
	struct mv_mapping found;

	insist(mv_engine_grant(e, &grant, &found) != -ENOMEM);
}

static void try_unmap(struct mv_engine *e)
{
	insist(mv_engine_unmap(e, GIB + 0x5000, GIB + 0x5fff, NULL, NULL, NULL) == 0);
}

static void try_zap(struct mv_engine *e)
{
	struct mv_zapped zapped;

	mv_engine_zap(e, GIB + 0x5000, GIB + 0x5fff, &zapped, NULL, NULL);
}

static void try_protect(struct mv_engine *e)
{
	insist(mv_engine_protect(e, GIB + 0x5000, GIB + 0x5fff, MV_ATTR_WRITE, 0) == 0);
}

static void try_split(struct mv_engine *e)
{
	insist(mv_engine_split(e, GIB + 0x5000, GIB + 0x5fff, 12) == 0);
}

static int collapse_granule(struct mv_engine *e)
{
	return mv_engine_collapse(e, GIB, GIB + MIB2 - 1, 0) == 1 ? 0 : -EINVAL;
}

static int unmap_granule(struct mv_engine *e)
{
	return mv_engine_unmap(e, GIB, GIB + MIB2 - 1, NULL, NULL, NULL);
}

static void nobody_changes_what_is_not_flushed_yet(void **state)
{
	static void (*const runs[])(struct mv_engine * e) = { try_map_4k, try_map_2m, try_grant,
							      try_unmap,  try_zap,    try_protect,
							      try_split };
	static const struct {
		unsigned int largest_lg2;
		int (*freeze)(struct mv_engine *e);
	} freezers[] = {
		{ 12, collapse_granule },
		{ 12, unmap_granule },
		{ 21, unmap_granule },
	};

	for (size_t i = 0; i < COUNT_OF(runs) * COUNT_OF(freezers); i++) {
		struct attempt a = { .run = runs[i % COUNT_OF(runs)] };
		const unsigned int largest = freezers[i / COUNT_OF(runs)].largest_lg2;
		struct rig rig;

		rig_open(&rig, MV_FORMAT_EPT_4L);
		rig.e.flush = flush_slowly;
		rig.e.flush_ctx = &a;
		a.e = &rig.e;
		/* A neighbour, so that the table above stays. */
		assert_int_equal(mv_engine_map(&rig.e, 0, MIB2 * 512 + MIB2 - 1, 0, RW, largest),
				 0);
		assert_int_equal(freezers[i / COUNT_OF(runs)].freeze(&rig.e), 0);
		pthread_join(a.thread, NULL);
		assert_false(a.early);
		rig_close(&rig);
	}
}

/* --- grace periods, flushes --------------------------------------------------------------------
 */

static void tables_wait_for_readers_and_leaves_do_not(void **state)
{
	struct rig rig;

	rig_open(&rig, MV_FORMAT_X86_4L);
	map_a_little(&rig);
	assert_int_equal(mv_engine_unmap(&rig.e, GIB + MIB2, GIB + MIB2 + 0xfff, NULL, NULL, NULL),
			 0);
	assert_int_equal(rig.flushes, 1);
	assert_int_equal(rig.first, GIB + MIB2);
	assert_int_equal(rig.last, GIB + MIB2 + 0xfff);
	assert_int_equal(rig.fake.waits, 0);
	assert_int_equal(mv_engine_unmap(&rig.e, GIB + MIB2 + 0x1000, GIB + MIB2 + 0x3fff, NULL,
					 NULL, NULL),
			 0);
	assert_true(rig.fake.waits > 0);
	rig_close(&rig);
}

static void a_collapse_breaks_before_it_makes(void **state)
{
	struct mv_mapping mapping;
	struct rig rig;

	rig_open(&rig, MV_FORMAT_EPT_4L);
	assert_int_equal(mv_engine_map(&rig.e, GIB, GIB + MIB2 - 1, GIB, RW, 12), 0);
	*entry_at(&rig, GIB + 0x7000, 1) |= 3 << 8;
	assert_int_equal(mv_engine_collapse(&rig.e, 0, 4 * GIB, 0), 1);
	assert_int_equal(rig.flushes, 1);
	assert_int_equal(rig.first, GIB);
	assert_int_equal(rig.last, GIB + MIB2 - 1);
	assert_int_equal(rig.fake.waits, 1);
	assert_int_equal(mv_engine_walk(&rig.e, GIB, &mapping), 0);
	assert_int_equal(mapping.page_lg2, 21);
	assert_int_equal(mapping.attr, RW | MV_ATTR_ACCESSED | MV_ATTR_DIRTY);
	rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_bad_configuration_is_refused),
		cmocka_unit_test(the_root_counts_and_is_the_first_page),
		cmocka_unit_test(a_page_that_no_entry_can_name_is_not_used),
		cmocka_unit_test(every_defect_is_found),
		cmocka_unit_test(an_empty_table_is_a_defect_unless_it_is_expected),
		cmocka_unit_test(pages_that_are_not_accounted_for_are_a_defect),
		cmocka_unit_test(marks_are_no_defect_and_read_as_nothing),
		cmocka_unit_test(a_grant_installs_a_leaf_and_what_is_above),
		cmocka_unit_test(a_grant_says_what_is_in_the_way),
		cmocka_unit_test(a_bad_grant_is_refused),
		cmocka_unit_test(a_grant_that_does_not_hold_leaves_nothing),
		cmocka_unit_test(a_zap_clears_a_reservation_and_the_grant_asks_again),
		cmocka_unit_test(two_grants_of_a_page_share_a_reservation),
		cmocka_unit_test(a_late_grant_does_not_take_anothers_reservation),
		cmocka_unit_test(a_zap_takes_large_pages_whole_and_keeps_tables),
		cmocka_unit_test(an_unmap_tells_of_every_leaf),
		cmocka_unit_test(a_change_is_made_to_what_was_seen_or_not_at_all),
		cmocka_unit_test(an_install_into_a_sealed_table_fails),
		cmocka_unit_test(a_table_that_another_seals_is_waited_for),
		cmocka_unit_test(seals_are_taken_back),
		cmocka_unit_test(nobody_changes_what_is_not_flushed_yet),
		cmocka_unit_test(tables_wait_for_readers_and_leaves_do_not),
		cmocka_unit_test(a_collapse_breaks_before_it_makes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
