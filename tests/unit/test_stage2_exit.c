/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Exits decoded, bit by bit: SDM vol. 3, table 28-7; APM vol. 2, 15.25.6. And back: what a walk
 * predicts decodes to the access that was made.
 */
#include "support/stage2_space.h"
#include "support/testing.h"

#define GPA 0x1234567890ULL
#define GLA 0xffff800012345678ULL

static struct mv_stage2_exit violation(uint64_t qualification, uint32_t features)
{
	struct mv_stage2_exit exit;

	memset(&exit, 0xa5, sizeof(exit));
	mv_stage2_decode_violation(qualification, GPA, GLA, features, &exit);
	assert_int_equal(exit.kind, MV_STAGE2_VIOLATION);
	assert_int_equal(exit.gpa, GPA);
	return exit;
}

static struct mv_stage2_exit npf(uint64_t exitinfo1)
{
	struct mv_stage2_exit exit;

	memset(&exit, 0xa5, sizeof(exit));
	mv_stage2_decode_npf(exitinfo1, GPA, &exit);
	assert_int_equal(exit.gpa, GPA);
	assert_false(exit.gva_valid);
	assert_int_equal(exit.granted, 0);
	assert_false(exit.nmi_unblocking);
	assert_false(exit.user_told);
	return exit;
}

/* --- Intel ---------------------------------------------------------------------------------- */

static void bits_0_to_2_are_the_access(void **state)
{
	assert_int_equal(violation(0x1, 0).access, MV_ACCESS_READ);
	assert_int_equal(violation(0x2, 0).access, MV_ACCESS_WRITE);
	assert_int_equal(violation(0x4, 0).access, MV_ACCESS_FETCH);
	assert_int_equal(violation(0x3, 0).access, MV_ACCESS_READ | MV_ACCESS_WRITE);
}

static void bits_3_to_5_are_what_was_granted(void **state)
{
	assert_int_equal(violation(0x08, 0).granted, MV_ATTR_READ);
	assert_int_equal(violation(0x10, 0).granted, MV_ATTR_WRITE);
	assert_int_equal(violation(0x20, 0).granted, MV_ATTR_EXEC);
	assert_true(violation(0x08, 0).present);
	assert_true(violation(0x20, 0).present);
	assert_false(violation(0x187, 0).present);
	assert_int_equal(violation(0x187, 0).granted, 0);
}

static void bit_6_is_defined_with_mode_based_execute_only(void **state)
{
	assert_int_equal(violation(0x40, MV_FEATURE_MODE_EXEC).granted, MV_ATTR_EXEC_USER);
	assert_true(violation(0x40, MV_FEATURE_MODE_EXEC).present);
	assert_int_equal(violation(0x40, 0).granted, 0);
	assert_false(violation(0x40, 0).present);
}

static void bit_7_makes_the_linear_address_valid(void **state)
{
	struct mv_stage2_exit exit = violation(0x81, 0);

	assert_true(exit.gva_valid);
	assert_int_equal(exit.gva, GLA);
	assert_true(exit.access & MV_ACCESS_LINEAR);
	exit = violation(0x01, 0);
	assert_false(exit.gva_valid);
	assert_int_equal(exit.gva, 0);
	assert_false(exit.access & MV_ACCESS_LINEAR);
}

static void bit_8_is_valid_with_bit_7_only(void **state)
{
	assert_false(violation(0x181, 0).access & MV_ACCESS_GUEST_TABLE);
	assert_true(violation(0x081, 0).access & MV_ACCESS_GUEST_TABLE);
	assert_false(violation(0x001, 0).access & MV_ACCESS_GUEST_TABLE);
	assert_false(violation(0x101, 0).access & MV_ACCESS_GUEST_TABLE);
}

static void bits_9_to_11_need_the_capability_and_a_final_access(void **state)
{
	unsigned int told = MV_ACCESS_USER | MV_ACCESS_GUEST_WRITABLE | MV_ACCESS_GUEST_NO_EXEC;

	assert_int_equal(violation(0x381, MV_FEATURE_EXIT_INFO).access & told, MV_ACCESS_USER);
	assert_int_equal(violation(0x581, MV_FEATURE_EXIT_INFO).access & told,
			 MV_ACCESS_GUEST_WRITABLE);
	assert_int_equal(violation(0x981, MV_FEATURE_EXIT_INFO).access & told,
			 MV_ACCESS_GUEST_NO_EXEC);
	assert_int_equal(violation(0xf81, 0).access & told, 0);
	assert_int_equal(violation(0xe81, MV_FEATURE_EXIT_INFO).access & told, 0);
	assert_int_equal(violation(0xf01, MV_FEATURE_EXIT_INFO).access & told, 0);
}

static void bits_12_and_13_tell_of_nmi_and_shadow_stack(void **state)
{
	assert_true(violation(0x1001, 0).nmi_unblocking);
	assert_false(violation(~0x1000ULL, 0).nmi_unblocking);
	assert_true(violation(0x2002, 0).access & MV_ACCESS_SHADOW_STACK);
	assert_false(violation(~0x2000ULL, 0).access & MV_ACCESS_SHADOW_STACK);
}

static void expect_whose(uint64_t qualification, uint32_t features, bool told, bool user)
{
	struct mv_stage2_exit exit = violation(qualification, features);

	assert_int_equal(exit.user_told, told);
	assert_int_equal(!!(exit.access & MV_ACCESS_USER), user);
}

static void a_refused_fetch_tells_whose_it_was(void **state)
{
	uint32_t mode = MV_FEATURE_MODE_EXEC;

	expect_whose(0x1bc, mode, true, true);
	expect_whose(0x1dc, mode, true, false);
	/* Neither may, or both: it is the read of a read-modify-write that was refused. */
	expect_whose(0x19c, mode, false, false);
	expect_whose(0x1e5, mode, false, false);
	expect_whose(0x1e4, mode, false, false);
	expect_whose(0x1bc, 0, false, false);
	expect_whose(0x1aa, mode, false, false);
	/* Where the processor says so itself, it is right. */
	expect_whose(0x1bc, mode | MV_FEATURE_EXIT_INFO, true, false);
	expect_whose(0x3dc, mode | MV_FEATURE_EXIT_INFO, true, true);
	expect_whose(0x381, MV_FEATURE_EXIT_INFO, true, true);
	expect_whose(0x0bc, mode | MV_FEATURE_EXIT_INFO, false, false);
}

static void a_misconfiguration_tells_the_address_only(void **state)
{
	struct mv_stage2_exit exit;

	memset(&exit, 0xa5, sizeof(exit));
	mv_stage2_decode_misconfiguration(GPA, &exit);
	assert_int_equal(exit.kind, MV_STAGE2_MISCONFIGURED);
	assert_int_equal(exit.gpa, GPA);
	assert_true(exit.present);
	assert_false(exit.gva_valid);
	assert_int_equal(exit.access, 0);
	assert_int_equal(exit.granted, 0);
	assert_false(exit.nmi_unblocking);
}

/* --- AMD ------------------------------------------------------------------------------------ */

static void each_bit_of_a_nested_page_fault(void **state)
{
	assert_false(npf(0x100000004).present);
	assert_true(npf(0x100000005).present);
	assert_int_equal(npf(0x100000004).access, MV_ACCESS_READ);
	assert_int_equal(npf(0x100000006).access, MV_ACCESS_WRITE);
	assert_int_equal(npf(0x100000014).access, MV_ACCESS_FETCH);
	assert_int_equal(npf(0x200000006).access, MV_ACCESS_WRITE | MV_ACCESS_GUEST_TABLE);
	assert_int_equal(npf(0x100000046).access, MV_ACCESS_WRITE | MV_ACCESS_SHADOW_STACK);
	assert_int_equal(npf(0x100000007).kind, MV_STAGE2_VIOLATION);
	assert_int_equal(npf(0x10000000d).kind, MV_STAGE2_MISCONFIGURED);
	assert_true(npf(0x10000000d).present);
}

/* QEMU leaves P out. */
static void a_reserved_bit_is_one_of_a_present_entry(void **state)
{
	assert_int_equal(npf(0x10000000c).kind, MV_STAGE2_MISCONFIGURED);
	assert_true(npf(0x10000000c).present);
}

/* --- there and back ------------------------------------------------------------------------- */

static const unsigned int accesses[] = {
	MV_ACCESS_READ,
	MV_ACCESS_WRITE,
	MV_ACCESS_FETCH,
	MV_ACCESS_READ | MV_ACCESS_WRITE,
	MV_ACCESS_READ | MV_ACCESS_LINEAR,
	MV_ACCESS_WRITE | MV_ACCESS_LINEAR,
	MV_ACCESS_FETCH | MV_ACCESS_LINEAR,
	MV_ACCESS_READ | MV_ACCESS_WRITE | MV_ACCESS_LINEAR,
	MV_ACCESS_READ | MV_ACCESS_LINEAR | MV_ACCESS_USER,
	MV_ACCESS_FETCH | MV_ACCESS_LINEAR | MV_ACCESS_USER,
	MV_ACCESS_WRITE | MV_ACCESS_LINEAR | MV_ACCESS_GUEST_WRITABLE,
	MV_ACCESS_READ | MV_ACCESS_LINEAR | MV_ACCESS_GUEST_NO_EXEC,
	MV_ACCESS_WRITE | MV_ACCESS_LINEAR | MV_ACCESS_SHADOW_STACK,
	MV_ACCESS_READ | MV_ACCESS_LINEAR | MV_ACCESS_GUEST_TABLE,
	MV_ACCESS_WRITE | MV_ACCESS_LINEAR | MV_ACCESS_GUEST_TABLE,
};

/* What of an access a processor tells. */
static unsigned int told_by_ept(unsigned int access, uint32_t features, uint32_t granted)
{
	bool final = (access & MV_ACCESS_LINEAR) && !(access & MV_ACCESS_GUEST_TABLE);
	unsigned int informed = MV_ACCESS_USER | MV_ACCESS_GUEST_WRITABLE | MV_ACCESS_GUEST_NO_EXEC;
	bool one_of_two = (features & MV_FEATURE_MODE_EXEC) && (access & MV_ACCESS_FETCH) &&
			  !(granted & MV_ATTR_EXEC_USER) && (granted & MV_ATTR_EXEC);

	if ((access & MV_ACCESS_GUEST_TABLE) && (features & MV_FEATURE_ACCESSED))
		access |= MV_ACCESS_READ | MV_ACCESS_WRITE;
	if (final && (features & MV_FEATURE_EXIT_INFO))
		return access;
	return (access & ~informed) | (final && one_of_two ? access & MV_ACCESS_USER : 0);
}

static unsigned int told_by_npf(unsigned int access)
{
	unsigned int told = access & (MV_ACCESS_GUEST_TABLE | MV_ACCESS_SHADOW_STACK);

	if (access & MV_ACCESS_GUEST_TABLE)
		return told | MV_ACCESS_WRITE;
	if (access & MV_ACCESS_FETCH)
		return told | MV_ACCESS_FETCH;
	return told | (access & MV_ACCESS_WRITE ? MV_ACCESS_WRITE : MV_ACCESS_READ);
}

/* Decoded, and walked again with what was decoded. Returns whether there was a fault at all. */
static bool there_and_back(struct stage2_space *space, unsigned int access)
{
	bool ept = space->config.format < MV_FORMAT_NPT_4L;
	const struct mv_stage2_walk *walk = space_walk(space, access | MV_ACCESS_NO_UPDATE);
	struct mv_stage2_exit exit;
	uint64_t code = walk->code;

	if (walk->kind == MV_STAGE2_OK || (ept && walk->kind == MV_STAGE2_MISCONFIGURED))
		return false;
	if (ept)
		mv_stage2_decode_violation(code, walk->gpa, GLA, space->config.features, &exit);
	else
		mv_stage2_decode_npf(code, walk->gpa, &exit);
	assert_int_equal(exit.kind, walk->kind);
	assert_int_equal(exit.gpa, SPACE_GPA);
	assert_int_equal(exit.access,
			 ept ? told_by_ept(access, space->config.features, exit.granted)
			     : told_by_npf(access));
	assert_int_equal(space_walk(space, exit.access | MV_ACCESS_NO_UPDATE)->code, code);
	return true;
}

static unsigned int all_accesses(struct stage2_space *space)
{
	unsigned int faults = 0;

	for (unsigned int i = 0; i < COUNT_OF(accesses); i++)
		faults += there_and_back(space, accesses[i]);
	return faults;
}

/* The next subset of @bits; 0 after the last. */
static uint64_t next_subset(uint64_t subset, uint64_t bits)
{
	return ((subset | ~bits) + 1) & bits;
}

/* All rights that an entry may grant, at two levels; absent and reserved among them. */
static unsigned int all_ways(enum mv_format_id format, uint32_t features)
{
	struct stage2_space *space = space_open(format, features);
	uint64_t bits = format < MV_FORMAT_NPT_4L ? E_RWX | E_XU : N_PWU | N_NX | 1ULL << 51;
	uint64_t upper = *space_entry(space, 3) & ~bits, leaf = *space_entry(space, 1) & ~bits;
	uint64_t a = 0, b = 0;
	unsigned int faults = 0;

	do {
		do {
			*space_entry(space, 3) = upper | a;
			*space_entry(space, 1) = leaf | b;
			faults += all_accesses(space);
			b = next_subset(b, bits);
		} while (b);
		a = next_subset(a, bits);
	} while (a);
	space_close(space);
	return faults;
}

static void what_a_walk_predicts_decodes_to_the_access(void **state)
{
	static const uint32_t sets[] = {
		0,
		MV_FEATURE_ACCESSED,
		MV_FEATURE_EXIT_INFO,
		MV_FEATURE_EXEC_ONLY | MV_FEATURE_MODE_EXEC,
		MV_FEATURE_EXEC_ONLY | MV_FEATURE_MODE_EXEC | MV_FEATURE_EXIT_INFO,
		MV_FEATURE_EXEC_ONLY | MV_FEATURE_MODE_EXEC | MV_FEATURE_ACCESSED,
		MV_FEATURE_NX,
	};

	for (enum mv_format_id format = MV_FORMAT_EPT_4L; format <= MV_FORMAT_NPT_5L; format++)
		for (unsigned int i = 0; i < COUNT_OF(sets); i++)
			assert_true(all_ways(format, sets[i]) > 500);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bits_0_to_2_are_the_access),
		cmocka_unit_test(bits_3_to_5_are_what_was_granted),
		cmocka_unit_test(bit_6_is_defined_with_mode_based_execute_only),
		cmocka_unit_test(bit_7_makes_the_linear_address_valid),
		cmocka_unit_test(bit_8_is_valid_with_bit_7_only),
		cmocka_unit_test(bits_9_to_11_need_the_capability_and_a_final_access),
		cmocka_unit_test(bits_12_and_13_tell_of_nmi_and_shadow_stack),
		cmocka_unit_test(a_refused_fetch_tells_whose_it_was),
		cmocka_unit_test(a_misconfiguration_tells_the_address_only),
		cmocka_unit_test(each_bit_of_a_nested_page_fault),
		cmocka_unit_test(a_reserved_bit_is_one_of_a_present_entry),
		cmocka_unit_test(what_a_walk_predicts_decodes_to_the_access),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
