/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Host pages behind a region that nobody manages: how large they are, and how they are let go.
 */
#ifndef MV_HOST_PAGES_H
#define MV_HOST_PAGES_H

#include <stdint.h>

#include "../region.h"

/*
 * Bytes of one host page of a region that can be let go: 4 KiB, or what the file system of huge
 * pages says. Context: the region is held.
 */
uint64_t mv_host_page_bytes(const struct mv_region *region);

/*
 * Let the host's pages of a batch go. What cannot go is taken out of it: parts of a larger host
 * page, and what a seal or the kernel keeps. Context: the pages are the caller's.
 */
void mv_host_pages_drop(struct mv_batch *batch);

/* Punch holes into the region's file; as mv_host_pages_drop(). */
void mv_host_pages_punch(struct mv_batch *batch);

/*
 * madvise() on each run of a batch, counted from @base, in as few calls as the kernel allows.
 * What the kernel refuses is taken out of @refused, where that is not NULL.
 */
void mv_host_pages_advise(const struct mv_batch *batch, void *base, int advice,
			  struct mv_batch *refused);

#endif /* MV_HOST_PAGES_H */
