/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The statistics segment under a writer that never rests: readers, in this process and in
 * another, get copies that belong together, and never step back.
 */
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

#include <memvirt/stats.h>

#include "support/testing.h"

#define NUMBERS_OFFSET offsetof(struct mv_stats, pager_time)
#define NUMBERS	       ((sizeof(struct mv_stats) - NUMBERS_OFFSET) / sizeof(uint64_t))

static char path[] = "/tmp/memvirt-stats-races-XXXXXX";
static bool done; /* atomic */

static void *write_all(void *arg)
{
	struct mv_stats_writer *writer = arg;

	for (uint64_t value = 1; !__atomic_load_n(&done, __ATOMIC_RELAXED); value++) {
		uint64_t *numbers = &mv_stats_begin(writer)->pager_time;

		for (unsigned int i = 0; i < NUMBERS; i++)
			numbers[i] = value + i;
		mv_stats_end(writer);
		if (value % 64 == 0)
			usleep(1);
	}
	return NULL;
}

/* Each number tells which round wrote it. */
static uint64_t round_of(const struct mv_stats *stats)
{
	const uint64_t *numbers = &stats->pager_time;

	for (unsigned int i = 1; i < NUMBERS; i++)
		insist(numbers[i] == numbers[0] + i);
	return numbers[0];
}

static void *read_all(void *arg)
{
	uint64_t last = 0, good = 0;
	struct mv_stats stats;

	for (uint64_t i = test_rounds(40000); i; i--) {
		int error = mv_stats_read(path, &stats);

		/* The writer may lose its processor in between, for longer than we wait. */
		insist(!error || error == -EAGAIN);
		if (error)
			continue;
		insist(round_of(&stats) >= last);
		last = stats.pager_time;
		good++;
	}
	insist(good > test_rounds(40000) / 2);
	insist(last > 1);
	return NULL;
}

static void copies_belong_together(void **state)
{
	struct mv_stats_writer *writer;
	pthread_t threads[3];
	struct mv_stats *mine;
	int status = -1;

	insist(!mv_stats_publish(path, "race", &writer));
	mine = mv_stats_begin(writer);
	for (unsigned int i = 0; i < NUMBERS; i++)
		(&mine->pager_time)[i] = 1 + i;
	mv_stats_end(writer);

	pid_t child = fork();

	if (!child) {
		read_all(NULL);
		_exit(0);
	}
	assert_int_equal(pthread_create(&threads[0], NULL, write_all, writer), 0);
	for (int i = 1; i < 3; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, read_all, NULL), 0);
	for (int i = 1; i < 3; i++)
		pthread_join(threads[i], NULL);
	assert_int_equal(waitpid(child, &status, 0), child);
	__atomic_store_n(&done, true, __ATOMIC_RELAXED);
	pthread_join(threads[0], NULL);
	mv_stats_withdraw(writer);
	assert_int_equal(status, 0);
}

static int set_up(void **state)
{
	int fd = mkstemp(path);

	if (fd < 0)
		return -1;
	return close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(copies_belong_together),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
