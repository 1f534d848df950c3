/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every test program begins with: cmocka and what it wants included before it, and the
 * seed of those that use chance.
 */
#ifndef TESTS_TESTING_H
#define TESTS_TESTING_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Elements of an array. */
#define COUNT_OF(array) (sizeof(array) / sizeof((array)[0]))

/* Numbers by chance: the same ones for the same seed on every machine. */
struct chance {
	uint64_t state;
};

/*
 * The environment's SEED, or a new one each time; printed, so that a failure can be had
 * again.
 */
uint64_t test_seed(void);

/* A stream of its own for each (seed, stream): one a thread. */
struct chance chance_of(uint64_t seed, uint64_t stream);
uint64_t chance_next(struct chance *chance);

/* 0 … limit-1 */
uint64_t chance_below(struct chance *chance, uint64_t limit);

/* True once in @times. */
static inline bool chance_one_in(struct chance *chance, uint64_t times)
{
	return !chance_below(chance, times);
}

/* How often to repeat: less where a sanitizer makes everything ten times slower. */
uint64_t test_rounds(uint64_t rounds);

/*
 * For threads and callbacks, where cmocka's assertions may not be used: says what is wrong
 * and ends the program.
 */
#define insist(condition)                                                                         \
	((condition) ? (void)0 : insist_failed(#condition, __FILE__, __LINE__))
_Noreturn void insist_failed(const char *condition, const char *file, int line);

#endif /* TESTS_TESTING_H */
