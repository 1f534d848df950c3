/* SPDX-License-Identifier: BSD-2-Clause */
/* Checked access: what lies outside the regions is never touched, at either end. */
#include <limits.h>

#include "support/guest.h"
#include "support/testing.h"

#define PAGE MV_PAGE_SIZE
#define TOP  (UINT64_MAX - 2 * PAGE + 1) /* a region of two pages at the very top */

/* Guest: 0-1 at 20-21, 2-3 at 10-11, a hole, 6-7 at 0-1, the top at 30-31. */
static int set_up(void **state)
{
	static struct guest guest;

	guest_init(&guest, 16UL << 20);
	assert_int_equal(guest_add(&guest, 0, 2, 20 * PAGE), 0);
	assert_int_equal(guest_add(&guest, 2 * PAGE, 2, 10 * PAGE), 0);
	assert_int_equal(guest_add(&guest, 6 * PAGE, 2, 0), 0);
	assert_int_equal(guest_add(&guest, TOP, 2, 30 * PAGE), 0);
	*state = &guest;
	return 0;
}

static int tear_down(void **state)
{
	guest_finish(*state);
	return 0;
}

static void bytes_go_in_and_come_out(void **state)
{
	struct guest *guest = *state;
	unsigned char in[300], out[300];

	for (size_t len = 1; len <= 17; len++) {
		for (uint64_t gpa = 100; gpa < 117; gpa++) {
			for (size_t i = 0; i < len; i++)
				in[i] = (unsigned char)(gpa * 31 + len * 7 + i);
			memset(guest->mem + 20 * PAGE + 90, 0xee, 60);
			memset(out, 0xcc, sizeof(out));
			assert_int_equal(mv_memory_write(guest->memory, gpa, in, len), 0);
			assert_memory_equal(guest->mem + 20 * PAGE + gpa, in, len);
			assert_int_equal(guest->mem[20 * PAGE + gpa - 1], 0xee);
			assert_int_equal(guest->mem[20 * PAGE + gpa + len], 0xee);
			assert_int_equal(mv_memory_read(guest->memory, gpa, out, len), 0);
			assert_memory_equal(out, in, len);
			assert_int_equal(out[len], 0xcc);
		}
	}
}

static void an_access_crosses_regions_that_touch(void **state)
{
	struct guest *guest = *state;
	static unsigned char in[4 * PAGE], out[4 * PAGE];

	for (size_t i = 0; i < sizeof(in); i++)
		in[i] = (unsigned char)(i * 13 + i / 256);
	assert_int_equal(mv_memory_write(guest->memory, 0, in, sizeof(in)), 0);
	assert_memory_equal(guest->mem + 20 * PAGE, in, 2 * PAGE);
	assert_memory_equal(guest->mem + 10 * PAGE, in + 2 * PAGE, 2 * PAGE);
	assert_int_equal(mv_memory_read(guest->memory, 0, out, sizeof(out)), 0);
	assert_memory_equal(in, out, sizeof(in));
	/* Eight bytes across the border: no single access, and right all the same. */
	assert_int_equal(mv_memory_read(guest->memory, 2 * PAGE - 4, out, 8), 0);
	assert_memory_equal(out, in + 2 * PAGE - 4, 8);
}

static void nothing_is_touched_where_a_byte_is_outside(void **state)
{
	struct guest *guest = *state;
	static unsigned char buf[8 * PAGE], before[8 * PAGE];
	static const struct {
		uint64_t gpa;
		size_t len;
	} cases[] = {
		{ 3 * PAGE, PAGE + 1 },	  { 4 * PAGE, 1 },	    { 4 * PAGE - 1, 2 },
		{ 5 * PAGE, PAGE + 1 },	  { 0, 8 * PAGE },	    { 6 * PAGE - 1, 2 },
		{ TOP - 1, 2 },		  { TOP, 2 * PAGE + 1 },    { UINT64_MAX, 2 },
		{ TOP + 5, SIZE_MAX },	  { 0, SIZE_MAX },	    { 1, SIZE_MAX },
		{ UINT64_MAX, SIZE_MAX }, { TOP - PAGE, PAGE - 1 }, { PAGE, SIZE_MAX - PAGE + 1 },
	};

	memset(buf, 0xa5, sizeof(buf));
	memset(before, 0xa5, sizeof(before));
	for (size_t i = 0; i < COUNT_OF(cases); i++) {
		assert_int_equal(mv_memory_read(guest->memory, cases[i].gpa, buf, cases[i].len),
				 -EFAULT);
		assert_memory_equal(buf, before, sizeof(buf));
		assert_int_equal(mv_memory_write(guest->memory, cases[i].gpa, buf, cases[i].len),
				 -EFAULT);
	}
	for (size_t i = 0; i < 40 * PAGE; i++)
		assert_int_equal(guest->mem[i], 0);
}

static void the_last_byte_can_be_reached(void **state)
{
	struct guest *guest = *state;
	unsigned char buf[16] = "0123456789abcde";

	assert_int_equal(mv_memory_write(guest->memory, UINT64_MAX, "!", 1), 0);
	assert_int_equal(guest->mem[32 * PAGE - 1], '!');
	assert_int_equal(mv_memory_write(guest->memory, UINT64_MAX - 15, buf, 16), 0);
	assert_memory_equal(guest->mem + 32 * PAGE - 16, buf, 16);
	assert_int_equal(mv_memory_read(guest->memory, UINT64_MAX - 7, buf, 8), 0);
	assert_memory_equal(buf, "89abcde", 8);
}

static void no_bytes_are_no_access(void **state)
{
	struct guest *guest = *state;

	assert_int_equal(mv_memory_read(guest->memory, 5 * PAGE, NULL, 0), 0);
	assert_int_equal(mv_memory_write(guest->memory, UINT64_MAX, NULL, 0), 0);
}

static void addresses_are_translated_both_ways(void **state)
{
	struct guest *guest = *state;
	uint64_t gpa = 77;
	size_t len = 100;
	void *hva = NULL;

	assert_int_equal(mv_memory_hva(guest->memory, 2 * PAGE + 5, &len, &hva), 0);
	assert_ptr_equal(hva, guest->mem + 10 * PAGE + 5);
	assert_int_equal(len, 100);
	assert_int_equal(mv_memory_gpa(guest->memory, hva, &gpa), 0);
	assert_int_equal(gpa, 2 * PAGE + 5);
	/* The first byte of a region, and the last. */
	assert_int_equal(mv_memory_gpa(guest->memory, guest->mem, &gpa), 0);
	assert_int_equal(gpa, 6 * PAGE);
	assert_int_equal(mv_memory_gpa(guest->memory, guest->mem + 32 * PAGE - 1, &gpa), 0);
	assert_int_equal(gpa, UINT64_MAX);
	assert_int_equal(mv_memory_gpa(guest->memory, guest->mem + 32 * PAGE, &gpa), -EFAULT);
	assert_int_equal(mv_memory_gpa(guest->memory, guest->mem + 2 * PAGE, &gpa), -EFAULT);
	assert_int_equal(mv_memory_gpa(guest->memory, guest->mem + 9 * PAGE, &gpa), -EFAULT);
	assert_int_equal(mv_memory_gpa(guest->memory, NULL, &gpa), -EFAULT);
	assert_int_equal(gpa, UINT64_MAX);
}

static void a_pointer_ends_with_its_region(void **state)
{
	struct guest *guest = *state;
	size_t len = SIZE_MAX;
	void *hva = NULL;

	assert_int_equal(mv_memory_hva(guest->memory, 2 * PAGE - 6, &len, &hva), 0);
	assert_int_equal(len, 6);
	len = SIZE_MAX;
	assert_int_equal(mv_memory_hva(guest->memory, UINT64_MAX, &len, &hva), 0);
	assert_int_equal(len, 1);
	assert_ptr_equal(hva, guest->mem + 32 * PAGE - 1);
	len = 0;
	assert_int_equal(mv_memory_hva(guest->memory, 0, &len, &hva), -EINVAL);
	len = 3;
	assert_int_equal(mv_memory_hva(guest->memory, 4 * PAGE, &len, &hva), -EFAULT);
	assert_int_equal(len, 3);
	assert_ptr_equal(hva, guest->mem + 32 * PAGE - 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(bytes_go_in_and_come_out),
		TEST(an_access_crosses_regions_that_touch),
		TEST(nothing_is_touched_where_a_byte_is_outside),
		TEST(the_last_byte_can_be_reached),
		TEST(no_bytes_are_no_access),
		TEST(addresses_are_translated_both_ways),
		TEST(a_pointer_ends_with_its_region),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
