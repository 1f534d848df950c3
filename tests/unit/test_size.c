/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sizes as people write them, and run directory names: what is taken, what is refused.
 */
#include <sys/stat.h>
#include <unistd.h>

#include "support/testing.h"
#include "vm/rundir.h"
#include "vm/size.h"

static const struct {
	const char *text;
	uint64_t bytes;
} good[] = {
	{ "0", 0 },
	{ "1", 1 },
	{ "4096", 4096 },
	{ "512M", 512ULL << 20 },
	{ "512m", 512ULL << 20 },
	{ "512MB", 512ULL << 20 },
	{ "512MiB", 512ULL << 20 },
	{ "512mib", 512ULL << 20 },
	{ "64K", 64ULL << 10 },
	{ "1.5G", 3ULL << 29 },
	{ "0.5K", 512 },
	{ "2T", 2ULL << 40 },
	{ "12B", 12 },
	{ "007M", 7ULL << 20 },
	{ "1.00000000000000000000000001K", 1024 },
	{ "0.0009765625K", 1 },
	{ "18446744073709551614", UINT64_MAX - 1 },
	{ "16777215T", 16777215ULL << 40 },
};

static const struct {
	const char *text;
	int err;
} bad[] = {
	{ "", -EINVAL },
	{ " 1", -EINVAL },
	{ "1 M", -EINVAL },
	{ "-1", -EINVAL },
	{ "+1", -EINVAL },
	{ "M", -EINVAL },
	{ ".5M", -EINVAL },
	{ "1.M", -EINVAL },
	{ "1.5", -EINVAL },
	{ "1.5B", -EINVAL },
	{ "1..5M", -EINVAL },
	{ "512X", -EINVAL },
	{ "512Mx", -EINVAL },
	{ "512MiBs", -EINVAL },
	{ "0x10", -EINVAL },
	{ "1e9", -EINVAL },
	{ "nan", -EINVAL },
	{ "18446744073709551615", -ERANGE },
	{ "18446744073709551616", -ERANGE },
	{ "99999999999999999999999999999999999999999999M", -ERANGE },
	{ "16777216T", -ERANGE },
	{ "340282366920938463463374607431768211456", -ERANGE },
};

static void test_good_sizes(void **unused)
{
	for (size_t i = 0; i < COUNT_OF(good); i++) {
		uint64_t bytes = 1234;

		if (size_parse(good[i].text, &bytes) || bytes != good[i].bytes)
			fail_msg("'%s' gave %llu", good[i].text, (unsigned long long)bytes);
	}
}

static void test_bad_sizes(void **unused)
{
	for (size_t i = 0; i < COUNT_OF(bad); i++) {
		uint64_t bytes = 1234;
		int err = size_parse(bad[i].text, &bytes);

		if (err != bad[i].err || bytes != 1234)
			fail_msg("'%s' gave %d", bad[i].text, err);
	}
}

/* What is printed without a fraction reads back as what it was. */
static void test_round_trip(void **unused)
{
	struct chance chance = chance_of(test_seed(), 0);

	for (int i = 0; i < 10000; i++) {
		uint64_t bytes = (100 + chance_below(&chance, 900))
				 << (10 * chance_below(&chance, 5));
		char text[SIZE_TEXT];
		uint64_t again;

		size_format(bytes, text);
		char *gap = strchr(text, ' '); /* "512 MiB" */
		memmove(gap, gap + 1, strlen(gap));
		assert_int_equal(size_parse(text, &again), 0);
		assert_true(again == bytes);
	}
}

static void check_text(uint64_t bytes, const char *text, const char *narrow)
{
	char found[SIZE_TEXT];

	assert_string_equal(size_format(bytes, found), text);
	assert_string_equal(size_format_short(bytes, 1024, found), narrow);
}

static void test_formats(void **unused)
{
	char text[SIZE_TEXT];

	check_text(0, "0 B", "0");
	check_text(1023, "1023 B", "1023");
	check_text(1024, "1.0 KiB", "1.0K");
	check_text(512ULL << 20, "512 MiB", "512M");
	check_text(3ULL << 29, "1.5 GiB", "1.5G");
	check_text((1ULL << 30) - 1, "1.0 GiB", "1.0G");
	check_text(UINT64_MAX, "-", "-");
	check_text(UINT64_MAX - 1, "16.0 EiB", "16.0E");
	assert_string_equal(size_format_short(999, 1000, text), "999");
	assert_string_equal(size_format_short(123456, 1000, text), "123K");
}

static void test_narrow_is_narrow(void **unused)
{
	struct chance chance = chance_of(test_seed(), 1);

	for (int i = 0; i < 100000; i++) {
		uint64_t amount = chance_next(&chance) >> chance_below(&chance, 64);
		char text[SIZE_TEXT];

		assert_in_range(strlen(size_format_short(amount, 1024, text)), 1, 5);
		assert_in_range(strlen(size_format_short(amount, 1000, text)), 1, 5);
	}
}

/* --- run directory ------------------------------------------------------------------------ */

static void test_names(void **unused)
{
	char longest[RUNDIR_NAME_MAX + 2];

	memset(longest, 'x', sizeof(longest));
	longest[RUNDIR_NAME_MAX] = '\0';
	assert_true(rundir_name_valid(longest));
	longest[RUNDIR_NAME_MAX] = 'x';
	longest[RUNDIR_NAME_MAX + 1] = '\0';
	assert_false(rundir_name_valid(longest));
	assert_true(rundir_name_valid("a"));
	assert_true(rundir_name_valid("_web-1.example"));
	assert_false(rundir_name_valid(""));
	assert_false(rundir_name_valid("."));
	assert_false(rundir_name_valid(".."));
	assert_false(rundir_name_valid("-x"));
	assert_false(rundir_name_valid("a/b"));
	assert_false(rundir_name_valid("a b"));
	assert_false(rundir_name_valid("a\n"));
	assert_false(rundir_name_valid("\xc3\xa4"));
}

static void test_paths(void **unused)
{
	char path[RUNDIR_PATH_MAX] = "as it was";
	char dir[RUNDIR_PATH_MAX];

	assert_int_equal(rundir_path("/run/memvirt", "web", RUNDIR_SOCKET, path), 0);
	assert_string_equal(path, "/run/memvirt/web.sock");
	assert_int_equal(rundir_path("/run/memvirt", "../web", RUNDIR_SOCKET, path), -EINVAL);
	memset(dir, 'd', sizeof(dir) - 1);
	dir[sizeof(dir) - 1] = '\0';
	assert_int_equal(rundir_path(dir, "web", RUNDIR_SOCKET, path), -ENAMETOOLONG);
	assert_string_equal(path, "/run/memvirt/web.sock");
}

static void test_choice(void **unused)
{
	char dir[RUNDIR_PATH_MAX], here[4096], wanted[5000];

	setenv("MEMVIRT_RUN_DIR", "/from/environment", 1);
	assert_int_equal(rundir_choose(NULL, dir), 0);
	assert_string_equal(dir, "/from/environment");
	assert_int_equal(rundir_choose("/given", dir), 0);
	assert_string_equal(dir, "/given");
	if (getcwd(here, sizeof(here)) && strlen(here) < 80) {
		snprintf(wanted, sizeof(wanted), "%s/given", here);
		assert_int_equal(rundir_choose("given", dir), 0);
		assert_string_equal(dir, wanted);
	}
	unsetenv("MEMVIRT_RUN_DIR");
	if (geteuid() == 0) {
		assert_int_equal(rundir_choose(NULL, dir), 0);
		assert_string_equal(dir, "/run/memvirt");
	}
}

static void test_create(void **unused)
{
	char base[] = "/tmp/memvirt-rundir-XXXXXX";
	char dir[RUNDIR_PATH_MAX];
	struct stat st;

	assert_non_null(mkdtemp(base));
	snprintf(dir, sizeof(dir), "%s/run", base);
	assert_int_equal(rundir_create(dir), 0);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(rundir_create(dir), 0);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(rundir_create(dir), -EPERM);
	assert_int_equal(rmdir(dir), 0);
	fclose(fopen(dir, "w"));
	assert_int_equal(rundir_create(dir), -ENOTDIR);
	assert_int_equal(unlink(dir), 0);
	assert_int_equal(rmdir(base), 0);
	assert_int_equal(rundir_create(dir), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good_sizes),
		cmocka_unit_test(test_bad_sizes),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_formats),
		cmocka_unit_test(test_narrow_is_narrow),
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_paths),
		cmocka_unit_test(test_choice),
		cmocka_unit_test(test_create),
	};

	return cmocka_run_group_tests_name("size", tests, NULL, NULL);
}
