/* SPDX-License-Identifier: BSD-2-Clause */
/* The platform of a Linux process keeps what memvirt/platform.h promises. */
#include <pthread.h>
#include <unistd.h>

#include <memvirt/platform.h>
#include <memvirt/version.h>

#include "support/testing.h"

static const struct mv_platform *platform;

static int set_up(void **state)
{
	platform = mv_platform_linux();
	return 0;
}

static void memory_is_zeroed_and_aligned(void **state)
{
	static const size_t sizes[] = { 0, 1, 63, 64, 100, 4095, 4096, 4097, 8192, 3 << 20 };

	for (int round = 0; round < 3; round++) {
		for (size_t i = 0; i < COUNT_OF(sizes); i++) {
			unsigned char *mem = platform->ops->alloc(platform->ctx, sizes[i], -1);

			assert_non_null(mem);
			assert_int_equal((uintptr_t)mem % 64, 0);
			assert_int_equal(
				sizes[i] && sizes[i] % 4096 == 0 ? (uintptr_t)mem % 4096 : 0, 0);
			for (size_t at = 0; at < sizes[i]; at++)
				assert_int_equal(mem[at], 0);
			memset(mem, 0x77, sizes[i]);
			platform->ops->free(platform->ctx, mem, sizes[i]);
		}
	}
	platform->ops->free(platform->ctx, NULL, 4096);
	platform->ops->free(platform->ctx, NULL, 5);
}

static void any_node_will_do(void **state)
{
	static const int nodes[] = { 0, 1, 4000, -7 };

	for (size_t i = 0; i < COUNT_OF(nodes); i++) {
		unsigned char *mem = platform->ops->alloc(platform->ctx, 1 << 20, nodes[i]);

		assert_non_null(mem);
		memset(mem, 1, 1 << 20);
		platform->ops->free(platform->ctx, mem, 1 << 20);
	}
}

static void too_much_is_refused(void **state)
{
	assert_null(platform->ops->alloc(platform->ctx, (size_t)1 << 60, -1));
	assert_null(platform->ops->alloc(platform->ctx, ((size_t)1 << 60) + 1, -1));
}

#define TABLE_PAGES 3000 /* several chunks */

/* Each says whose it is; nobody else writes there. */
static void *use_table_pages(void *arg)
{
	static __thread uint64_t *pages[TABLE_PAGES];
	uint64_t own = (uint64_t)(uintptr_t)arg;

	for (int round = 0; round < 3; round++) {
		for (uint64_t i = 0; i < TABLE_PAGES; i++) {
			pages[i] = platform->ops->table_alloc(platform->ctx, (int)(i % 3) - 1);
			insist(pages[i] && (uintptr_t)pages[i] % 4096 == 0);
			pages[i][0] = pages[i][511] = own << 32 | i;
		}
		for (uint64_t i = 0; i < TABLE_PAGES; i++) {
			/* In an order that empties chunks and leaves holes in others. */
			uint64_t n = i * 7 % TABLE_PAGES;

			insist(pages[n][0] == (own << 32 | n) && pages[n][511] == pages[n][0]);
			platform->ops->table_free(platform->ctx, pages[n]);
		}
	}
	return NULL;
}

static void table_pages_are_nobody_elses(void **state)
{
	pthread_t threads[3];

	for (uintptr_t i = 0; i < COUNT_OF(threads); i++)
		assert_int_equal(
			pthread_create(&threads[i], NULL, use_table_pages, (void *)(i + 1)), 0);
	for (size_t i = 0; i < COUNT_OF(threads); i++)
		pthread_join(threads[i], NULL);
}

/* 32-bit tables hold their addresses. */
static void table_pages_are_low(void **state)
{
	void *page = platform->ops->table_alloc(platform->ctx, -1);

	assert_true(page && (uintptr_t)page >> 32 == 0);
	platform->ops->table_free(platform->ctx, page);
}

struct reader {
	int in_section; /* atomic */
	int leave;	/* atomic */
};

static void *read_for_a_while(void *arg)
{
	struct reader *reader = arg;

	platform->ops->read_enter(platform->ctx);
	platform->ops->read_enter(platform->ctx);
	platform->ops->read_leave(platform->ctx);
	__atomic_store_n(&reader->in_section, 1, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&reader->leave, __ATOMIC_ACQUIRE))
		platform->ops->relax(platform->ctx, 1000);
	__atomic_store_n(&reader->in_section, 0, __ATOMIC_RELAXED);
	platform->ops->read_leave(platform->ctx);
	return NULL;
}

static void *let_go_later(void *arg)
{
	struct reader *reader = arg;

	usleep(20000);
	__atomic_store_n(&reader->leave, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void waiting_outlasts_the_readers(void **state)
{
	struct reader reader = { 0 };
	pthread_t threads[2];

	assert_int_equal(pthread_create(&threads[0], NULL, read_for_a_while, &reader), 0);
	for (unsigned int turns = 0; !__atomic_load_n(&reader.in_section, __ATOMIC_ACQUIRE);)
		platform->ops->relax(platform->ctx, turns++);
	assert_int_equal(pthread_create(&threads[1], NULL, let_go_later, &reader), 0);
	platform->ops->wait_readers(platform->ctx);
	assert_int_equal(__atomic_load_n(&reader.in_section, __ATOMIC_RELAXED), 0);
	for (int i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
}

static void a_log_line_goes_to_stderr(void **state)
{
	char text[128] = { 0 };
	int pipes[2], saved = dup(STDERR_FILENO);

	assert_int_equal(pipe(pipes), 0);
	dup2(pipes[1], STDERR_FILENO);
	platform->ops->log(platform->ctx, MV_LOG_DEBUG, "not shown");
	platform->ops->log(platform->ctx, MV_LOG_WARNING, "the store is full");
	dup2(saved, STDERR_FILENO);
	close(saved);
	close(pipes[1]);
	assert_true(read(pipes[0], text, sizeof(text) - 1) > 0);
	close(pipes[0]);
	assert_string_equal(text, "memvirt: the store is full\n");
}

static void the_version_is_the_headers(void **state)
{
	assert_string_equal(mv_version(), MV_VERSION_STRING);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_is_zeroed_and_aligned),
		cmocka_unit_test(any_node_will_do),
		cmocka_unit_test(too_much_is_refused),
		cmocka_unit_test(table_pages_are_nobody_elses),
		cmocka_unit_test(table_pages_are_low),
		cmocka_unit_test(waiting_outlasts_the_readers),
		cmocka_unit_test(a_log_line_goes_to_stderr),
		cmocka_unit_test(the_version_is_the_headers),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
