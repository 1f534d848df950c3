/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Formats: bits and masks against literal values from the manuals' tables. SDM vol. 3, tables 4-4
 * to 4-20 and 29-1 to 29-7; APM vol. 2, 5.3, 5.4 and 15.25.
 */
#include <memvirt/table.h>

#include "formats.h"
#include "support/testing.h"
#include "table_entry.h"

/* --- layouts ---------------------------------------------------------------------------------- */

static void shapes_are_the_manuals(void **state)
{
	static const struct {
		enum mv_format_id id;
		unsigned int levels, entry_bytes, entries, root_entries;
		unsigned int shift[MV_LEVEL_MAX + 1];
		unsigned int bits; /* of an address */
	} shapes[] = {
		{ MV_FORMAT_X86_32, 2, 4, 1024, 1024, { 0, 12, 22 }, 32 },
		{ MV_FORMAT_X86_PSE, 2, 4, 1024, 1024, { 0, 12, 22 }, 32 },
		{ MV_FORMAT_X86_PAE, 3, 8, 512, 4, { 0, 12, 21, 30 }, 32 },
		{ MV_FORMAT_X86_4L, 4, 8, 512, 512, { 0, 12, 21, 30, 39 }, 48 },
		{ MV_FORMAT_X86_5L, 5, 8, 512, 512, { 0, 12, 21, 30, 39, 48 }, 57 },
		{ MV_FORMAT_EPT_4L, 4, 8, 512, 512, { 0, 12, 21, 30, 39 }, 48 },
		{ MV_FORMAT_EPT_5L, 5, 8, 512, 512, { 0, 12, 21, 30, 39, 48 }, 57 },
		{ MV_FORMAT_NPT_4L, 4, 8, 512, 512, { 0, 12, 21, 30, 39 }, 48 },
		{ MV_FORMAT_NPT_5L, 5, 8, 512, 512, { 0, 12, 21, 30, 39, 48 }, 57 },
	};

	assert_int_equal(COUNT_OF(shapes), MV_FORMATS);
	for (size_t i = 0; i < COUNT_OF(shapes); i++) {
		const struct mv_format *f = mv_formats[shapes[i].id];

		assert_int_equal(f->id, shapes[i].id);
		assert_int_equal(f->levels, shapes[i].levels);
		assert_int_equal(1u << f->entry_lg2, shapes[i].entry_bytes);
		for (unsigned int l = 1; l <= f->levels; l++) {
			assert_int_equal(f->shift[l], shapes[i].shift[l]);
			assert_int_equal(mv_entries(f, l), l == f->levels ? shapes[i].root_entries
									  : shapes[i].entries);
		}
		assert_int_equal(f->shift[f->levels] + f->index_lg2[f->levels], shapes[i].bits);
	}
}

/* --- leaves: each attribute is a certain bit ---------------------------------------------------
 */

#define ALL_FEATURES 0xffu

struct bit_case {
	uint32_t attr;
	unsigned int level;
	uint64_t bits; /* that it adds to what @base has */
};

static struct mv_rules rules_of(enum mv_format_id id, uint32_t features, unsigned int maxphyaddr)
{
	struct mv_rules rules;

	memset(&rules, 0xee, sizeof(rules));
	mv_rules_init(mv_formats[id], features, maxphyaddr, &rules);
	return rules;
}

static void check_bits(enum mv_format_id id, uint32_t base, const uint64_t *base_bits,
		       const struct bit_case *cases, size_t count)
{
	struct mv_rules rules = rules_of(id, ALL_FEATURES, 52);
	const struct mv_format *f = mv_formats[id];

	for (size_t i = 0; i < count; i++) {
		unsigned int l = cases[i].level;

		assert_int_equal(mv_leaf_bits(f, &rules, l, base), base_bits[l]);
		assert_int_equal(mv_leaf_bits(f, &rules, l, base | cases[i].attr),
				 base_bits[l] | cases[i].bits);
		assert_int_equal(mv_leaf_attr(f, &rules, l, base_bits[l] | cases[i].bits),
				 base | cases[i].attr);
	}
}

static void x86_bits_are_the_manuals(void **state)
{
	/* Present alone; larger ones have PS, bit 7. EXEC is the absence of bit 63. */
	static const uint64_t base[] = { 0, 0x1, 0x81, 0x81 };
	static const struct bit_case cases[] = {
		{ MV_ATTR_WRITE, 1, 0x2 },
		{ MV_ATTR_USER, 1, 0x4 },
		{ MV_ATTR_TYPE(1), 1, 0x8 },	/* PWT */
		{ MV_ATTR_TYPE(2), 1, 0x10 },	/* PCD */
		{ MV_ATTR_TYPE(4), 1, 0x80 },	/* PAT of a small page */
		{ MV_ATTR_TYPE(4), 2, 0x1000 }, /* and of a large one */
		{ MV_ATTR_TYPE(7), 3, 0x1018 },
		{ MV_ATTR_ACCESSED, 1, 0x20 },
		{ MV_ATTR_DIRTY, 2, 0x40 },
		{ MV_ATTR_GLOBAL, 3, 0x100 },
		{ MV_ATTR_SOFT0, 1, 0x200 },
		{ MV_ATTR_SOFT1, 1, 0x400 },
		{ MV_ATTR_PKEY(15), 1, 0x7800000000000000 },
		{ MV_ATTR_PKEY(8), 2, 0x4000000000000000 },
	};
	static const enum mv_format_id long_mode[] = { MV_FORMAT_X86_4L, MV_FORMAT_X86_5L };

	for (size_t i = 0; i < COUNT_OF(long_mode); i++)
		check_bits(long_mode[i], MV_ATTR_READ | MV_ATTR_EXEC, base, cases, COUNT_OF(cases));
	/* PAE and 32-bit have no keys, and PAE no third level of leaves. */
	check_bits(MV_FORMAT_X86_PAE, MV_ATTR_READ | MV_ATTR_EXEC, base, cases, 6);
	check_bits(MV_FORMAT_X86_PSE, MV_ATTR_READ | MV_ATTR_EXEC, base, cases, 6);
	check_bits(MV_FORMAT_X86_32, MV_ATTR_READ | MV_ATTR_EXEC, base, cases, 5);
}

static void execution_is_the_absence_of_nx(void **state)
{
	static const enum mv_format_id with_nx[] = { MV_FORMAT_X86_PAE, MV_FORMAT_X86_4L,
						     MV_FORMAT_X86_5L, MV_FORMAT_NPT_4L,
						     MV_FORMAT_NPT_5L };

	for (size_t i = 0; i < COUNT_OF(with_nx); i++) {
		const struct mv_format *f = mv_formats[with_nx[i]];
		struct mv_rules with = rules_of(with_nx[i], MV_FEATURE_NX, 52);
		struct mv_rules without = rules_of(with_nx[i], 0, 52);

		assert_int_equal(mv_leaf_bits(f, &with, 1, MV_ATTR_READ) >> 63, 1);
		assert_int_equal(mv_leaf_bits(f, &with, 1, MV_ATTR_READ | MV_ATTR_EXEC) >> 63, 0);
		assert_int_equal(mv_leaf_bits(f, &without, 1, MV_ATTR_READ) >> 63, 0);
		assert_true(mv_leaf_attr(f, &without, 1, f->read) & MV_ATTR_EXEC);
	}
}

static void nested_bits_are_the_hosts_for_a_user(void **state)
{
	/* Every access of a guest is a user's: U/S is what lets it read. */
	static const uint64_t base[] = { 0, 0x5, 0x85, 0x85 };
	static const struct bit_case cases[] = {
		{ MV_ATTR_WRITE, 1, 0x2 },	{ MV_ATTR_TYPE(4), 1, 0x80 },
		{ MV_ATTR_TYPE(4), 3, 0x1000 }, { MV_ATTR_ACCESSED, 1, 0x20 },
		{ MV_ATTR_DIRTY, 1, 0x40 },
	};
	struct mv_rules rules = rules_of(MV_FORMAT_NPT_4L, ALL_FEATURES, 52);

	check_bits(MV_FORMAT_NPT_4L, MV_ATTR_READ | MV_ATTR_EXEC, base, cases, COUNT_OF(cases));
	check_bits(MV_FORMAT_NPT_5L, MV_ATTR_READ | MV_ATTR_EXEC, base, cases, COUNT_OF(cases));
	/* Present, and nobody may: there is such a thing. */
	assert_int_equal(mv_leaf_bits(mv_formats[MV_FORMAT_NPT_4L], &rules, 1, MV_ATTR_EXEC), 0x1);
}

static void ept_bits_are_the_manuals(void **state)
{
	static const uint64_t base[] = { 0, 0x1, 0x81, 0x81 };
	static const struct bit_case cases[] = {
		{ MV_ATTR_WRITE, 1, 0x2 },
		{ MV_ATTR_EXEC, 1, 0x4 },
		{ MV_ATTR_EXEC_USER, 1, 0x400 },
		{ MV_ATTR_TYPE(MV_TYPE_WB), 1, 0x30 },
		{ MV_ATTR_TYPE(MV_TYPE_WC), 2, 0x8 },
		{ MV_ATTR_TYPE(MV_TYPE_WT), 3, 0x20 },
		{ MV_ATTR_TYPE(MV_TYPE_WP), 3, 0x28 },
		{ MV_ATTR_IGNORE_PAT, 1, 0x40 },
		{ MV_ATTR_ACCESSED, 1, 0x100 },
		{ MV_ATTR_DIRTY, 3, 0x200 },
		{ MV_ATTR_SUPPRESS_VE, 1, 0x8000000000000000 },
		{ MV_ATTR_SOFT0, 1, 0x10000000000000 },
		{ MV_ATTR_SOFT1, 1, 0x20000000000000 },
	};

	check_bits(MV_FORMAT_EPT_4L, MV_ATTR_READ, base, cases, COUNT_OF(cases));
	check_bits(MV_FORMAT_EPT_5L, MV_ATTR_READ, base, cases, COUNT_OF(cases));
}

static void a_feature_that_is_absent_is_never_written(void **state)
{
	struct mv_rules ept = rules_of(MV_FORMAT_EPT_4L, 0, 52);
	struct mv_rules x86 = rules_of(MV_FORMAT_X86_4L, 0, 52);

	assert_int_equal(mv_leaf_bits(mv_formats[MV_FORMAT_EPT_4L], &ept, 1, 0xfffu),
			 0x30000000000047);
	assert_int_equal(mv_leaf_bits(mv_formats[MV_FORMAT_X86_4L], &x86, 1, ~0u) >> 59, 0);
	assert_int_equal(mv_leaf_attr(mv_formats[MV_FORMAT_EPT_4L], &ept, 1, ~0ULL) &
				 (MV_ATTR_EXEC_USER | MV_ATTR_ACCESSED | MV_ATTR_DIRTY |
				  MV_ATTR_SUPPRESS_VE),
			 0);
}

/* Figure 4-4: bits 39:32 of the address of a 4 MiB page are bits 20:13. */
static void pse36_scatters_the_address(void **state)
{
	const struct mv_format *f = mv_formats[MV_FORMAT_X86_PSE];

	assert_int_equal(mv_page_bits(f, 2, 0xff40000000ULL), 0x401fe000);
	assert_int_equal(mv_page_bits(f, 2, 0x0100400000ULL), 0x402000);
	assert_int_equal(mv_entry_page(f, 2, 0x401fe083), 0xff40000000ULL);
	assert_int_equal(mv_entry_page(f, 2, 0x00402083), 0x0100400000ULL);
	assert_int_equal(mv_entry_page(f, 1, 0x00402067), 0x402000);
}

/* --- rules --------------------------------------------------------------------------------------
 */

struct reserved_case {
	enum mv_format_id id;
	uint32_t features;
	unsigned int maxphyaddr, level;
	uint64_t in_table, in_leaf;
};

#define NX_BIT 0x8000000000000000ULL

static const struct reserved_case reserved_cases[] = {
	/* Table 4-4 and its notes. Without PSE, PS is ignored. */
	{ MV_FORMAT_X86_32, 0, 52, 1, 0, 0 },
	{ MV_FORMAT_X86_32, 0, 52, 2, 0, 0 },
	{ MV_FORMAT_X86_PSE, 0, 32, 2, 0, 0x3fe000 },
	{ MV_FORMAT_X86_PSE, 0, 36, 2, 0, 0x3e0000 },
	{ MV_FORMAT_X86_PSE, 0, 40, 2, 0, 0x200000 },
	{ MV_FORMAT_X86_PSE, 0, 52, 2, 0, 0x200000 },
	/* Tables 4-8 to 4-11. */
	{ MV_FORMAT_X86_PAE, MV_FEATURE_NX, 52, 3, 0xfff00000000001e6, 0 },
	{ MV_FORMAT_X86_PAE, MV_FEATURE_NX, 36, 3, 0xfffffff0000001e6, 0 },
	{ MV_FORMAT_X86_PAE, MV_FEATURE_NX, 52, 2, 0x7ff0000000000000, 0x7ff00000001fe000 },
	{ MV_FORMAT_X86_PAE, 0, 52, 2, 0xfff0000000000000, 0xfff00000001fe000 },
	{ MV_FORMAT_X86_PAE, 0, 40, 1, 0, 0xffffff0000000000 },
	/* Tables 4-14 to 4-20. */
	{ MV_FORMAT_X86_4L, MV_FEATURE_NX, 52, 4, 0x80, 0 },
	{ MV_FORMAT_X86_4L, 0, 52, 4, NX_BIT | 0x80, 0 },
	{ MV_FORMAT_X86_4L, MV_FEATURE_NX, 52, 3, 0x80, 0 },
	{ MV_FORMAT_X86_4L, MV_FEATURE_NX | MV_FEATURE_1G, 52, 3, 0, 0x3fffe000 },
	{ MV_FORMAT_X86_4L, MV_FEATURE_NX, 46, 2, 0x000fc00000000000, 0x000fc000001fe000 },
	{ MV_FORMAT_X86_4L, MV_FEATURE_NX, 39, 1, 0, 0x000fff8000000000 },
	{ MV_FORMAT_X86_5L, MV_FEATURE_NX, 52, 5, 0x80, 0 },
	{ MV_FORMAT_X86_5L, MV_FEATURE_NX, 52, 4, 0x80, 0 },
	{ MV_FORMAT_NPT_4L, 0, 48, 1, 0, NX_BIT | 0x000f000000000000 },
	{ MV_FORMAT_NPT_5L, MV_FEATURE_NX | MV_FEATURE_1G, 52, 3, 0, 0x3fffe000 },
	/* Tables 29-1 to 29-7. */
	{ MV_FORMAT_EPT_4L, MV_FEATURE_2M | MV_FEATURE_1G, 52, 4, 0xf8, 0 },
	{ MV_FORMAT_EPT_4L, MV_FEATURE_2M | MV_FEATURE_1G, 52, 3, 0x78, 0x3ffff000 },
	{ MV_FORMAT_EPT_4L, MV_FEATURE_2M, 52, 3, 0xf8, 0 },
	{ MV_FORMAT_EPT_4L, MV_FEATURE_2M, 52, 2, 0x78, 0x1ff000 },
	{ MV_FORMAT_EPT_4L, 0, 52, 2, 0xf8, 0 },
	{ MV_FORMAT_EPT_4L, 0, 46, 1, 0, 0x000fc00000000000 },
	{ MV_FORMAT_EPT_5L, MV_FEATURE_2M | MV_FEATURE_1G, 48, 5, 0x000f0000000000f8, 0 },
	{ MV_FORMAT_EPT_5L, MV_FEATURE_2M | MV_FEATURE_1G, 48, 4, 0x000f0000000000f8, 0 },
};

static void reserved_bits_are_the_manuals(void **state)
{
	for (size_t i = 0; i < COUNT_OF(reserved_cases); i++) {
		const struct reserved_case *c = &reserved_cases[i];
		struct mv_rules rules = rules_of(c->id, c->features, c->maxphyaddr);

		if (c->level > 1)
			assert_int_equal(mv_entry_reserved(&rules, c->level, false, ~0ULL),
					 c->in_table);
		if (rules.leaf_levels >> c->level & 1)
			assert_int_equal(mv_entry_reserved(&rules, c->level, true, ~0ULL),
					 c->in_leaf);
		else
			assert_int_equal(c->in_leaf, 0);
	}
}

static void pages_exist_where_the_features_say(void **state)
{
	static const struct {
		enum mv_format_id id;
		uint32_t features;
		unsigned int levels; /* bitmap */
	} cases[] = {
		{ MV_FORMAT_X86_32, ALL_FEATURES, 1 << 1 },
		{ MV_FORMAT_X86_PSE, 0, 1 << 1 | 1 << 2 },
		{ MV_FORMAT_X86_PAE, ALL_FEATURES, 1 << 1 | 1 << 2 },
		{ MV_FORMAT_X86_4L, 0, 1 << 1 | 1 << 2 },
		{ MV_FORMAT_X86_4L, MV_FEATURE_1G, 1 << 1 | 1 << 2 | 1 << 3 },
		{ MV_FORMAT_X86_5L, MV_FEATURE_1G, 1 << 1 | 1 << 2 | 1 << 3 },
		{ MV_FORMAT_EPT_4L, 0, 1 << 1 },
		{ MV_FORMAT_EPT_4L, MV_FEATURE_2M, 1 << 1 | 1 << 2 },
		{ MV_FORMAT_EPT_5L, MV_FEATURE_1G, 1 << 1 | 1 << 3 },
		{ MV_FORMAT_NPT_5L, ALL_FEATURES, 1 << 1 | 1 << 2 | 1 << 3 },
	};

	for (size_t i = 0; i < COUNT_OF(cases); i++)
		assert_int_equal(rules_of(cases[i].id, cases[i].features, 52).leaf_levels,
				 cases[i].levels);
}

/* SDM vol. 3, 29.3.2: any of bits 2:0, and of bit 10 with mode-based execute. */
static void presence_is_the_manuals(void **state)
{
	struct mv_rules ept = rules_of(MV_FORMAT_EPT_4L, 0, 52);
	struct mv_rules mode = rules_of(MV_FORMAT_EPT_5L, MV_FEATURE_MODE_EXEC, 52);

	for (unsigned int bit = 0; bit < 64; bit++) {
		assert_int_equal(mv_entry_present(&ept, 1ULL << bit), bit <= 2);
		assert_int_equal(mv_entry_present(&mode, 1ULL << bit), bit <= 2 || bit == 10);
		for (int id = 0; id < MV_FORMATS; id++) {
			struct mv_rules x86 = rules_of((enum mv_format_id)id, ALL_FEATURES, 52);

			if (id != MV_FORMAT_EPT_4L && id != MV_FORMAT_EPT_5L)
				assert_int_equal(mv_entry_present(&x86, 1ULL << bit), bit == 0);
		}
	}
}

/* With #VE an absent entry has to keep bit 63, or a violation there becomes an exception. */
static void what_is_empty_suppresses_ve(void **state)
{
	assert_int_equal(rules_of(MV_FORMAT_EPT_4L, MV_FEATURE_VE, 52).empty, NX_BIT);
	assert_int_equal(rules_of(MV_FORMAT_EPT_4L, 0, 52).empty, 0);
	assert_int_equal(rules_of(MV_FORMAT_X86_4L, ALL_FEATURES, 52).empty, 0);
}

/* Entries that point to tables grant everything, so that leaves alone decide. */
static void tables_grant_everything(void **state)
{
	for (int id = 0; id < MV_FORMATS; id++) {
		const struct mv_format *f = mv_formats[id];
		bool ept = id == MV_FORMAT_EPT_4L || id == MV_FORMAT_EPT_5L;

		for (unsigned int l = 2; l <= f->levels; l++) {
			bool pdpte = id == MV_FORMAT_X86_PAE && l == 3;

			assert_int_equal(f->table_rights[l], ept ? 0x407 : pdpte ? 0x1 : 0x7);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(shapes_are_the_manuals),
		cmocka_unit_test(x86_bits_are_the_manuals),
		cmocka_unit_test(execution_is_the_absence_of_nx),
		cmocka_unit_test(nested_bits_are_the_hosts_for_a_user),
		cmocka_unit_test(ept_bits_are_the_manuals),
		cmocka_unit_test(a_feature_that_is_absent_is_never_written),
		cmocka_unit_test(pse36_scatters_the_address),
		cmocka_unit_test(reserved_bits_are_the_manuals),
		cmocka_unit_test(pages_exist_where_the_features_say),
		cmocka_unit_test(presence_is_the_manuals),
		cmocka_unit_test(what_is_empty_suppresses_ve),
		cmocka_unit_test(tables_grant_everything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
