/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The peer of eviction and restoring: the kernel's own swap to compressed memory. A zram device
 * of our own, by LZ4, with the highest priority, so that what this process pages out goes there.
 *
 *	struct zram_peer *zram;
 *	const char *reason;
 *
 *	if (zram_peer_open(&bench, &zram, &reason)) {
 *		bench_skip(&bench, "restore, p50", reason);
 *		return;
 *	}
 *	zram_peer_pageout(zram, pages, count, &ns_per_page);
 *	zram_peer_swapin(zram, pages, count, latencies, &measured);
 *	p50 = bench_percentile(latencies, measured, 50);
 *	zram_peer_close(zram);
 *
 * Open it before starting threads. Needs root and zram in the kernel. However the program ends,
 * also by SIGKILL, the device is swapped off and removed: a process of its own holds it, and
 * sees the program's end by a pipe.
 */
#ifndef BENCH_ZRAM_H
#define BENCH_ZRAM_H

#include <stddef.h>

#include "support/bench.h"

struct zram_peer;

/**
 * zram_peer_open() - set up a device
 * @bench:  for its clock
 * @peer:   set on success
 * @reason: set on failure: why there is none, for bench_skip(); constant
 *
 * Return: 0; -1 where it cannot be set up: nothing is left behind.
 */
int zram_peer_open(const struct bench *bench, struct zram_peer **peer, const char **reason);

/* Swap off and remove the device. Takes NULL. Pages still out come back in first. */
void zram_peer_close(struct zram_peer *peer);

/**
 * zram_peer_pageout() - page out private anonymous memory
 * @peer:        the peer
 * @pages:       aligned to 4 KiB, no huge pages (see bench_pages()), written to
 * @count:       pages
 * @ns_per_page: of those that went out
 *
 * Return: 0; -EAGAIN where more than one in twenty stayed (a cgroup that may not swap);
 * -errno of madvise().
 */
int zram_peer_pageout(struct zram_peer *peer, void *pages, size_t count, double *ns_per_page);

/**
 * zram_peer_swapin() - touch each page that is out, in random order
 * @peer:     the peer
 * @pages:    as above
 * @count:    as above
 * @ns:       room for @count latencies: set for each page touched
 * @measured: how many that were
 */
void zram_peer_swapin(struct zram_peer *peer, void *pages, size_t count, double *ns,
		      size_t *measured);

/**
 * zram_peer_usage() - what the device holds now
 * @content: bytes of the pages in it
 * @memory:  bytes of memory that it takes for them
 *
 * Pages that swap-in has brought back may still be there: ask after zram_peer_pageout().
 *
 * Return: 0; -1 where the kernel does not say.
 */
int zram_peer_usage(struct zram_peer *peer, double *content, double *memory);

#endif /* BENCH_ZRAM_H */
