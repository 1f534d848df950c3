/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The least that evicting pages takes from user space: unmap, compress with LZ4 where they are,
 * append to memory that is there, let the host's pages go. No ledger, index, checksum or threads,
 * and nobody may touch a page meanwhile: the limit to measure an evictor against.
 */
#ifndef BARE_EVICT_H
#define BARE_EVICT_H

#include <stddef.h>

#include "bench_pager.h"

#define BARE_EVICT_THREADS 2 /* at most */

/*
 * A copy of @count pages of @source, a multiple of 512, is made on shared or private memory and
 * evicted by so many threads, a part each. Return: the time a page, in nanoseconds, without the
 * copy.
 */
double bare_evict(enum bench_memory memory, const unsigned char *source, size_t count,
		  unsigned int threads);

#endif /* BARE_EVICT_H */
