/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages that are one 64-bit word over and over: to find them, and to make them again.
 *
 * How a store keeps the word does not belong here.
 */
#ifndef MV_SAME_FILL_H
#define MV_SAME_FILL_H

#include <stdbool.h>
#include <stdint.h>

/**
 * mv_same_filled() - is a page one repeated word?
 * @page: 4,096 bytes; may change meanwhile, the answer is then arbitrary
 * @word: set where it is
 *
 * Most pages that are not differ in their first bytes or from their end, and cost next to
 * nothing.
 */
bool mv_same_filled(const void *page, uint64_t *word);

/** mv_same_fill() - fill 4,096 bytes with a word */
void mv_same_fill(void *page, uint64_t word);

#endif /* MV_SAME_FILL_H */
