/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A platform for tests: the Linux one, but each allocation, table pages among them, is recorded
 * and may be made to fail, and each misuse ends the program: memory freed twice or by a wrong
 * size, a wait for readers inside a read section, a read section left that was never entered.
 * Table pages come full of rubbish, and are filled with it when they are freed.
 */
#ifndef TESTS_FAKE_PLATFORM_H
#define TESTS_FAKE_PLATFORM_H

#include <pthread.h>
#include <stddef.h>

#include <memvirt/platform.h>

struct fake_block;

#define FAKE_BLOCK_LISTS 1024 /* by address */

/**
 * struct fake_platform - what to hand in, what to set, what to look at
 * @platform:    for the code under test
 * @fail_at:     number of the allocation that fails, from 1; 0 for none
 * @fail_after:  all allocations after that number fail; ULONG_MAX for none
 * @allocations: so far
 * @failures:    of these, made to fail
 * @live:        blocks not freed
 * @table_pages: of these, table pages
 * @waits:       grace periods
 */
struct fake_platform {
	struct mv_platform platform;
	unsigned long fail_at;
	unsigned long fail_after;
	unsigned long allocations;
	unsigned long failures;
	unsigned long live;
	unsigned long table_pages;
	unsigned long waits;

	pthread_mutex_t lock;
	struct fake_block *blocks[FAKE_BLOCK_LISTS];
};

void fake_platform_init(struct fake_platform *fake);

/* Fails the test where something was not freed. */
void fake_platform_finish(struct fake_platform *fake);

#endif /* TESTS_FAKE_PLATFORM_H */
