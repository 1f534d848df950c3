/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memvirt walk's words: which bits an entry is said to have, and which bit of which entry is
 * blamed for a fault. The faults are the library's walkers', over tables that are spoilt one
 * bit at a time.
 */
#include "support/testing.h"

#include <errno.h>

#include <memvirt/guest_walk.h>
#include <memvirt/stage2.h>

#include "memvirt/walk_decode.h"

#define BIT(n) (1ULL << (n))
#define TABLES 5
#define GVA    0x8040201123ULL /* entry 1 of each of four tables, then 0x123 */

#define CR0  (BIT(31) | BIT(16) | BIT(0))
#define CR4  BIT(5)
#define EFER (BIT(8) | BIT(11))
#define SMEP BIT(20)
#define SMAP BIT(21)
#define PKE  BIT(22)

/* --- a guest of four tables ---------------------------------------------------------------- */

struct guest {
	uint64_t table[TABLES][512]; /* at 0x1000 each, from 0x1000 */
	struct mv_paging_registers registers;
	struct mv_cpu_model cpu;
};

static int read_entry(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct guest *guest = ctx;

	if (gpa < 0x1000 || gpa >= 0x1000 * (TABLES + 1) || bytes != 8)
		return -EFAULT;
	*entry = guest->table[gpa / 0x1000 - 1][gpa % 0x1000 / 8];
	return 0;
}

/* The entry of a level. */
static uint64_t *entry_of(struct guest *guest, unsigned int level)
{
	return &guest->table[4 - level][1];
}

static void make_guest(struct guest *guest, uint64_t bits)
{
	memset(guest, 0, sizeof(*guest));
	for (unsigned int level = 4; level > 1; level--)
		*entry_of(guest, level) = (uint64_t)(4 - level + 2) << 12 | bits;
	*entry_of(guest, 1) = 0x7000 | bits;
	guest->registers = (struct mv_paging_registers){ CR0, 0x1000, CR4, EFER, 0, 0 };
	guest->cpu = (struct mv_cpu_model){ 40, MV_CPU_1G };
}

static struct mv_walk walk(struct guest *guest, struct mv_paging *paging, uint64_t gva,
			   unsigned int access)
{
	const struct mv_guest_accessor accessor = { .read = read_entry, .ctx = guest };
	struct mv_walk walk;

	assert_int_equal(mv_paging_init(paging, &guest->registers, &guest->cpu), 0);
	assert_int_equal(mv_guest_walk(paging, &accessor, gva, access, &walk), 0);
	return walk;
}

/* --- faults -------------------------------------------------------------------------------- */

struct fault {
	unsigned int level;
	uint64_t spoilt; /* bits of that level's entry that are turned over */
	uint64_t cr4;
	uint32_t pkru;
	unsigned int access;
	const char *reason;
};

#define USER_READ  (MV_ACCESS_READ | MV_ACCESS_USER)
#define USER_WRITE (MV_ACCESS_WRITE | MV_ACCESS_USER)
#define USER_FETCH (MV_ACCESS_FETCH | MV_ACCESS_USER)

static const struct fault faults[] = {
	{ 4, BIT(0), 0, 0, 0, "P (bit 0) of the PML4E is 0" },
	{ 3, BIT(0), 0, 0, USER_READ, "P (bit 0) of the PDPTE is 0" },
	{ 2, BIT(0), 0, 0, USER_READ, "P (bit 0) of the PDE is 0" },
	{ 1, BIT(0), 0, 0, USER_READ, "P (bit 0) of the PTE is 0" },
	{ 4, BIT(7), 0, 0, 0, "reserved bit 7 of the PML4E set" },
	{ 2, BIT(51), 0, 0, 0, "reserved bit 51 of the PDE set" },
	{ 1, BIT(40) | BIT(41), 0, 0, 0, "reserved bits 40, 41 of the PTE set" },
	{ 2, BIT(7) | BIT(13), 0, 0, 0, "reserved bits 13, 14 of the PDE set" },
	{ 4, BIT(1), 0, 0, USER_WRITE, "W (bit 1) of the PML4E is 0" },
	{ 1, BIT(1), 0, 0, MV_ACCESS_WRITE, "W (bit 1) of the PTE is 0" },
	{ 3, BIT(2), 0, 0, USER_READ, "U (bit 2) of the PDPTE is 0" },
	{ 2, BIT(2), 0, 0, USER_FETCH, "U (bit 2) of the PDE is 0" },
	{ 3, BIT(63), 0, 0, USER_FETCH, "NX (bit 63) of the PDPTE is 1" },
	{ 1, BIT(63), 0, 0, MV_ACCESS_FETCH, "NX (bit 63) of the PTE is 1" },
	{ 1, 0, SMEP, 0, MV_ACCESS_FETCH, "SMEP" },
	{ 1, 0, SMAP, 0, MV_ACCESS_READ, "SMAP" },
	{ 1, 5 * BIT(59), PKE, 1 << 10, USER_READ, "key 5 of the PTE is denied access by PKRU" },
	{ 1, 5 * BIT(59), PKE, 2 << 10, USER_WRITE, "key 5 of the PTE is denied writing by PKRU" },
};

static void each_fault_is_laid_at_the_right_bit(void **state)
{
	for (size_t i = 0; i < COUNT_OF(faults); i++) {
		const struct fault *fault = &faults[i];
		char reason[DECODE_REASON_MAX];
		struct mv_paging paging;
		struct guest guest;
		struct mv_walk result;

		make_guest(&guest, 7);
		*entry_of(&guest, fault->level) ^= fault->spoilt;
		guest.registers.cr4 |= fault->cr4;
		guest.registers.pkru = fault->pkru;
		result = walk(&guest, &paging, GVA, fault->access);
		assert_int_equal(result.kind, MV_WALK_PAGE_FAULT);
		decode_fault(&paging, &result, GVA, fault->access, reason);
		if (!strstr(reason, fault->reason))
			fail_msg("'%s', not '%s'", reason, fault->reason);
	}
}

static void what_is_not_canonical_is_no_page_fault(void **state)
{
	char reason[DECODE_REASON_MAX];
	struct mv_paging paging;
	struct guest guest;
	struct mv_walk result;

	make_guest(&guest, 7);
	result = walk(&guest, &paging, BIT(47), 0);
	decode_fault(&paging, &result, BIT(47), 0, reason);
	assert_non_null(strstr(reason, "bits 63 to 47"));
	assert_non_null(strstr(reason, "no page fault"));
}

/* --- entries ------------------------------------------------------------------------------- */

static void expect_bits(const struct decode_bits *bits, const char *wanted)
{
	char text[400] = "";

	for (unsigned int i = 0; i < bits->count; i++) {
		strcat(text, i ? " " : "");
		strcat(text, bits->name[i]);
	}
	assert_string_equal(text, wanted);
}

static void every_bit_has_its_name(void **state)
{
	static const struct {
		unsigned int level;
		uint64_t entry;
		const char *names;
	} entries[] = {
		{ 1, 0, "" },
		{ 1, ~1ULL, "" },
		{ 1, BIT(0), "P" },
		{ 1, 0x1ff | BIT(63), "P W U PWT PCD A D PAT G NX" },
		{ 2, 0x11ff | BIT(63), "P W U PWT PCD A D PS G PAT NX" },
		{ 2, 0x17f | BIT(63), "P W U PWT PCD A NX" },
		{ 4, 0xff, "P W U PWT PCD A rsvd7" },
		{ 1, BIT(0) | BIT(9) | BIT(11) | BIT(52) | BIT(58), "P avl9 avl11 avl52 avl58" },
		{ 1, BIT(0) | BIT(40) | BIT(51), "P rsvd40 rsvd51" },
		{ 1, BIT(0) | 7 * BIT(59), "P key=7" },
		{ 2, BIT(0) | BIT(7) | BIT(13) | BIT(20), "P PS rsvd13 rsvd20" },
	};
	struct mv_paging paging;
	struct guest guest;

	make_guest(&guest, 7);
	guest.registers.cr4 |= PKE;
	walk(&guest, &paging, GVA, 0);
	for (size_t i = 0; i < COUNT_OF(entries); i++) {
		struct decode_bits bits;

		decode_entry(paging.format, &paging.rules, entries[i].level, entries[i].entry,
			     &bits);
		expect_bits(&bits, entries[i].names);
	}
}

static void error_codes(void **state)
{
	struct decode_bits bits;

	decode_error_code(0, &bits);
	expect_bits(&bits, "");
	decode_error_code(MV_PF_PRESENT | MV_PF_WRITE | MV_PF_USER | MV_PF_RESERVED | MV_PF_FETCH |
				  MV_PF_PKEY | MV_PF_SHADOW_STACK,
			  &bits);
	expect_bits(&bits, "P W U RSVD I/D PK SS");
}

/* Where an entry points, and which one an address takes, are what the walk says. */
static void targets_and_indices_agree_with_the_walk(void **state)
{
	struct mv_paging paging;
	struct guest guest;
	struct mv_walk result;

	make_guest(&guest, 7);
	result = walk(&guest, &paging, GVA, 0);
	assert_int_equal(result.steps, 4);
	for (unsigned int i = 0; i < 4; i++) {
		const struct mv_walk_step *step = &result.step[i];
		uint64_t target =
			decode_target(paging.format, &paging.rules, step->level, step->entry);

		assert_int_equal(decode_index(paging.format, step->level, GVA), 1);
		assert_int_equal(step->gpa % 0x1000, 8);
		if (i < 3)
			assert_int_equal(target, result.step[i + 1].gpa & ~0xfffULL);
		else
			assert_int_equal(target + (GVA & 0xfff), result.gpa);
	}
	assert_string_equal(decode_level_name(paging.format, 4), "PML4E");
	assert_string_equal(decode_level_name(MV_FORMAT_EPT_5L, 5), "EPT PML5E");
	assert_int_equal(decode_shift(MV_FORMAT_X86_PSE, 2), 22);
	assert_int_equal(decode_index(MV_FORMAT_X86_PAE, 3, UINT64_MAX), 3);
}

static void pse36_keeps_high_bits_low(void **state)
{
	struct mv_rules rules = { .present = 1, .leaf_levels = 1 << 1 | 1 << 2 };

	assert_true(decode_target(MV_FORMAT_X86_PSE, &rules, 2, 0xffc00081 | 0x1fe000) ==
		    0xffffc00000);
	assert_true(decode_target(MV_FORMAT_X86_PSE, &rules, 2, 0xfffff001) == 0xfffff000);
}

/* --- the second stage ---------------------------------------------------------------------- */

static struct mv_stage2_walk walk_second(struct guest *guest, enum mv_format_id format,
					 unsigned int access, char *reason)
{
	const struct mv_stage2_config config = {
		.size = sizeof(config),
		.format = format,
		.features = MV_FEATURE_2M | MV_FEATURE_NX,
		.maxphyaddr = 40,
		.root = 0x1000,
		.accessor = { .read = read_entry, .ctx = guest },
	};
	struct mv_stage2 stage2;
	struct mv_stage2_walk walk;

	assert_int_equal(mv_stage2_init(&stage2, &config), 0);
	assert_int_equal(mv_stage2_walk(&stage2, GVA, access, &walk), 0);
	assert_int_not_equal(walk.kind, MV_STAGE2_OK);
	decode_stage2_fault(&stage2, &walk, reason);
	return walk;
}

static void faults_of_the_second_stage(void **state)
{
	static const struct {
		enum mv_format_id format;
		unsigned int level;
		uint64_t spoilt;
		unsigned int access;
		const char *reason;
	} cases[] = {
		{ MV_FORMAT_EPT_4L, 3, 7, MV_ACCESS_READ, "the EPT PDPTE is not present" },
		{ MV_FORMAT_EPT_4L, 3, BIT(1), MV_ACCESS_WRITE, "do not let it be written" },
		{ MV_FORMAT_EPT_4L, 1, BIT(2), MV_ACCESS_FETCH, "do not let it be executed" },
		{ MV_FORMAT_EPT_4L, 2, BIT(0), MV_ACCESS_READ, "EPT PDE grants writing without" },
		{ MV_FORMAT_EPT_4L, 2, 3, MV_ACCESS_READ, "EPT PDE grants execution alone" },
		{ MV_FORMAT_EPT_4L, 1, 2 << 3, MV_ACCESS_READ, "EPT PTE has memory type 2" },
		{ MV_FORMAT_EPT_4L, 4, BIT(45), MV_ACCESS_READ,
		  "reserved bit 45 of the EPT PML4E" },
		{ MV_FORMAT_NPT_4L, 3, 1, MV_ACCESS_READ, "the PDPTE is not present" },
		{ MV_FORMAT_NPT_4L, 3, BIT(1), MV_ACCESS_WRITE, "W (bit 1) of the PDPTE is 0" },
		{ MV_FORMAT_NPT_4L, 2, BIT(2), MV_ACCESS_READ, "U (bit 2) of the PDE is 0" },
		{ MV_FORMAT_NPT_4L, 1, BIT(63), MV_ACCESS_FETCH, "NX (bit 63) of the PTE is 1" },
		{ MV_FORMAT_NPT_4L, 1, BIT(45), MV_ACCESS_READ, "reserved bit 45 of the PTE" },
	};

	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		char reason[DECODE_REASON_MAX];
		struct guest guest;

		make_guest(&guest, 7);
		*entry_of(&guest, cases[i].level) ^= cases[i].spoilt;
		walk_second(&guest, cases[i].format, cases[i].access, reason);
		if (!strstr(reason, cases[i].reason))
			fail_msg("'%s', not '%s'", reason, cases[i].reason);
	}
}

static void names_of_ept_bits(void **state)
{
	struct mv_rules rules = { .present = 7, .leaf_levels = 1 << 1 | 1 << 2 };
	struct decode_bits bits;

	decode_entry(MV_FORMAT_EPT_4L, &rules, 1, 7 | 6 << 3 | BIT(6) | BIT(8) | BIT(9) | BIT(63),
		     &bits);
	expect_bits(&bits, "R W X IPAT A D SVE WB");
	decode_entry(MV_FORMAT_EPT_4L, &rules, 2, 1 | BIT(7), &bits);
	expect_bits(&bits, "R PS UC");
	decode_entry(MV_FORMAT_EPT_4L, &rules, 3, 7 | BIT(10), &bits);
	expect_bits(&bits, "R W X XU");
	decode_entry(MV_FORMAT_EPT_4L, &rules, 3, BIT(10) | BIT(63), &bits);
	expect_bits(&bits, "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_fault_is_laid_at_the_right_bit),
		cmocka_unit_test(what_is_not_canonical_is_no_page_fault),
		cmocka_unit_test(every_bit_has_its_name),
		cmocka_unit_test(error_codes),
		cmocka_unit_test(targets_and_indices_agree_with_the_walk),
		cmocka_unit_test(pse36_keeps_high_bits_low),
		cmocka_unit_test(faults_of_the_second_stage),
		cmocka_unit_test(names_of_ept_bits),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
