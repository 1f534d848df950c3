/* SPDX-License-Identifier: BSD-2-Clause */
/* The statistics segment: written, read, cut, broken, older, newer, abandoned. */
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <memvirt/stats.h>

#include "support/testing.h"

struct place {
	char dir[64];
	char path[96];
	char other[96];
};

static int set_up(void **state)
{
	static struct place place;

	strcpy(place.dir, "/tmp/memvirt-stats-XXXXXX");
	assert_non_null(mkdtemp(place.dir));
	snprintf(place.path, sizeof(place.path), "%s/vm.stats", place.dir);
	snprintf(place.other, sizeof(place.other), "%s/other.stats", place.dir);
	*state = &place;
	return 0;
}

/* Fails where a file was left behind. */
static int tear_down(void **state)
{
	struct place *place = *state;

	unlink(place->path);
	unlink(place->other);
	return rmdir(place->dir);
}

static struct mv_stats_writer *publish(const struct place *place)
{
	struct mv_stats_writer *writer;

	assert_int_equal(mv_stats_publish(place->path, "vm", &writer), 0);
	return writer;
}

/* A segment by hand, of any size. */
static void write_file(const char *path, const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

static struct mv_stats by_hand(void)
{
	struct mv_stats stats;

	memset(&stats, 0xff, sizeof(stats));
	stats.magic = MV_STATS_MAGIC;
	stats.version = MV_STATS_VERSION;
	stats.bytes = sizeof(stats);
	stats.sequence = 4;
	memset(stats.name, 0, sizeof(stats.name));
	strcpy(stats.name, "by hand");
	stats.pager_time = 11;
	stats.resident_bytes = 12;
	return stats;
}

static void all_is_unknown_at_first(void **state)
{
	struct place *place = *state;
	struct mv_stats_writer *writer = publish(place);
	struct mv_stats stats;

	assert_int_equal(mv_stats_read(place->path, &stats), 0);
	assert_int_equal(stats.pid, getpid());
	assert_string_equal(stats.name, "vm");
	assert_true(stats.start_time != MV_STATS_UNKNOWN);
	for (const uint64_t *number = &stats.pager_time;
	     (const void *)number < (void *)(&stats + 1); number++)
		assert_true(*number == MV_STATS_UNKNOWN);
	mv_stats_withdraw(writer);
	assert_int_equal(mv_stats_read(place->path, &stats), -ENOENT);
}

static void numbers_come_across(void **state)
{
	struct place *place = *state;
	struct mv_stats_writer *writer = publish(place);
	struct mv_stats *mine = mv_stats_begin(writer), stats;

	mine->pager_time = 5;
	mine->faults = 0;
	mine->guest_oom_kills = 17; /* the last one */
	assert_int_equal(mv_stats_read(place->path, &stats), 0);
	assert_true(stats.faults == MV_STATS_UNKNOWN);
	mv_stats_end(writer);
	assert_int_equal(mv_stats_read(place->path, &stats), 0);
	assert_int_equal(stats.pager_time, 5);
	assert_int_equal(stats.faults, 0);
	assert_int_equal(stats.guest_oom_kills, 17);
	assert_true(stats.restores == MV_STATS_UNKNOWN);
	/* What was written once stays. */
	mv_stats_begin(writer)->restores = 3;
	mv_stats_end(writer);
	assert_int_equal(mv_stats_read(place->path, &stats), 0);
	assert_int_equal(stats.faults, 0);
	assert_int_equal(stats.restores, 3);
	mv_stats_withdraw(writer);
}

static void a_name_must_fit(void **state)
{
	struct place *place = *state;
	struct mv_stats_writer *writer = (void *)1;
	char name[MV_STATS_NAME + 1];
	struct mv_stats stats;

	memset(name, 'n', sizeof(name));
	name[MV_STATS_NAME] = 0;
	assert_int_equal(mv_stats_publish(place->path, name, &writer), -EINVAL);
	assert_int_equal(mv_stats_publish(place->path, "", &writer), -EINVAL);
	assert_ptr_equal(writer, (void *)1);
	name[MV_STATS_NAME - 1] = 0;
	assert_int_equal(mv_stats_publish(place->path, name, &writer), 0);
	assert_int_equal(mv_stats_read(place->path, &stats), 0);
	assert_string_equal(stats.name, name);
	mv_stats_withdraw(writer);
}

static void a_directory_must_be_there(void **state)
{
	struct place *place = *state;
	struct mv_stats_writer *writer = (void *)1;
	char path[128];

	snprintf(path, sizeof(path), "%s/none/vm.stats", place->dir);
	assert_int_equal(mv_stats_publish(path, "vm", &writer), -ENOENT);
	/* A rename that cannot be: nothing is left of the scratch file, or tear_down() fails. */
	snprintf(path, sizeof(path), "%s/dir", place->dir);
	assert_int_equal(mkdir(path, 0700), 0);
	assert_int_equal(mv_stats_publish(path, "vm", &writer), -EISDIR);
	assert_ptr_equal(writer, (void *)1);
	assert_int_equal(rmdir(path), 0);
}

static void a_successor_keeps_its_file(void **state)
{
	struct place *place = *state;
	struct mv_stats_writer *first = publish(place), *second = publish(place);
	struct mv_stats stats;

	mv_stats_begin(second)->faults = 2;
	mv_stats_end(second);
	mv_stats_begin(first)->faults = 1;
	mv_stats_end(first);
	mv_stats_withdraw(first);
	assert_int_equal(mv_stats_read(place->path, &stats), 0);
	assert_int_equal(stats.faults, 2);
	mv_stats_withdraw(second);
	mv_stats_withdraw(NULL);
}

static void a_writer_that_died_halfway_is_not_waited_for(void **state)
{
	struct place *place = *state;
	struct mv_stats hand = by_hand(), stats = { .magic = 99 };

	hand.sequence = 5;
	write_file(place->path, &hand, sizeof(hand));
	assert_int_equal(mv_stats_read(place->path, &stats), -EAGAIN);
	assert_int_equal(stats.magic, 99);
}

static void an_older_writer_leaves_the_rest_unknown(void **state)
{
	struct place *place = *state;
	struct mv_stats hand = by_hand(), stats;

	hand.bytes = offsetof(struct mv_stats, limit_bytes);
	write_file(place->path, &hand, hand.bytes);
	assert_int_equal(mv_stats_read(place->path, &stats), 0);
	assert_int_equal(stats.resident_bytes, 12);
	assert_true(stats.limit_bytes == MV_STATS_UNKNOWN);
	assert_true(stats.guest_oom_kills == MV_STATS_UNKNOWN);
	assert_int_equal(stats.bytes, offsetof(struct mv_stats, limit_bytes));
	/* What follows in the file is not its: bytes says so. */
	hand.limit_bytes = 77;
	write_file(place->path, &hand, sizeof(hand));
	assert_int_equal(mv_stats_read(place->path, &stats), 0);
	assert_true(stats.limit_bytes == MV_STATS_UNKNOWN);
}

static void a_newer_writer_may_know_more(void **state)
{
	struct place *place = *state;
	struct {
		struct mv_stats stats;
		uint64_t more[9];
	} newer = { .stats = by_hand() };
	struct mv_stats stats;

	newer.stats.bytes = sizeof(newer);
	newer.stats.guest_oom_kills = 3;
	write_file(place->path, &newer, sizeof(newer));
	assert_int_equal(mv_stats_read(place->path, &stats), 0);
	assert_int_equal(stats.guest_oom_kills, 3);
	assert_int_equal(stats.bytes, sizeof(newer));
}

static void check_broken(struct place *place, const struct mv_stats *hand, size_t len)
{
	struct mv_stats stats = { .magic = 99 };

	write_file(place->path, hand, len);
	assert_int_equal(mv_stats_read(place->path, &stats), -EPROTO);
	assert_int_equal(stats.magic, 99);
}

static void what_is_no_segment_is_said_to_be_none(void **state)
{
	struct place *place = *state;
	struct mv_stats hand = by_hand();

	/* Cut at any length. */
	for (size_t len = 0; len < sizeof(hand); len += 7)
		check_broken(place, &hand, len);
	hand.magic ^= 1;
	check_broken(place, &hand, sizeof(hand));
	hand = by_hand();
	hand.version = MV_STATS_VERSION + 1;
	check_broken(place, &hand, sizeof(hand));
	hand.version = 0;
	check_broken(place, &hand, sizeof(hand));
	hand = by_hand();
	for (uint64_t bytes = 0; bytes < offsetof(struct mv_stats, pager_time); bytes += 8) {
		hand.bytes = bytes;
		check_broken(place, &hand, sizeof(hand));
	}
	hand.bytes = sizeof(hand) - 1;
	check_broken(place, &hand, sizeof(hand));
	hand.bytes = UINT64_MAX;
	check_broken(place, &hand, sizeof(hand));
	hand = by_hand();
	memset(hand.name, 'x', sizeof(hand.name));
	check_broken(place, &hand, sizeof(hand));
}

static void what_is_no_file_does_not_hold_us_up(void **state)
{
	struct place *place = *state;
	struct mv_stats stats;

	assert_int_equal(mv_stats_read(place->path, &stats), -ENOENT);
	assert_int_equal(mv_stats_read(place->dir, &stats), -EPROTO);
	assert_int_equal(mkfifo(place->path, 0600), 0);
	assert_int_equal(mv_stats_read(place->path, &stats), -EPROTO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(all_is_unknown_at_first),
		TEST(numbers_come_across),
		TEST(a_name_must_fit),
		TEST(a_directory_must_be_there),
		TEST(a_successor_keeps_its_file),
		TEST(a_writer_that_died_halfway_is_not_waited_for),
		TEST(an_older_writer_leaves_the_rest_unknown),
		TEST(a_newer_writer_may_know_more),
		TEST(what_is_no_segment_is_said_to_be_none),
		TEST(what_is_no_file_does_not_hold_us_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
