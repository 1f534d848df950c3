/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pages of a real heap: the private memory of a Python process that has parsed part of its own
 * library. For figures that depend on what memory really looks like, as space does; where they
 * must be the same on each machine there is tests/support/page_mix.h.
 */
#ifndef BENCH_HEAP_PAGES_H
#define BENCH_HEAP_PAGES_H

#include <stddef.h>

/**
 * heap_pages() - fill memory with pages of a heap
 * @pages:  room for @count pages
 * @count:  at most 30,000
 *
 * Return: 0; -1 where there is no python3, or it gave too few.
 */
int heap_pages(void *pages, size_t count);

#endif /* BENCH_HEAP_PAGES_H */
