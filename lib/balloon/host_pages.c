// SPDX-License-Identifier: BSD-2-Clause
/*
 * Host pages let go: holes punched into files, madvise() on anonymous memory.
 *
 * Scattered pages go in one process_madvise() on ourselves where the kernel takes it (Linux 6.13),
 * which flushes TLBs once; else run by run.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "host_pages.h"

#define RUNS_MAX	  (MV_GRANULE_PAGES / 2)
#define RUNS_WORTH_A_CALL 3
#define MV_PIDFD_SELF	  (-10000) /* the calling thread, without a descriptor (Linux 6.14) */

uint64_t mv_host_page_bytes(const struct mv_region *region)
{
	struct statfs fs;

	if (region->fd < 0 || fstatfs(region->fd, &fs) || fs.f_type != HUGETLBFS_MAGIC)
		return MV_PAGE_SIZE;
	return (uint64_t)fs.f_bsize;
}

static void take_run(struct mv_batch *batch, unsigned int bit, unsigned int count)
{
	while (count--)
		mv_batch_take(batch, bit++);
}

static size_t runs_of(const struct mv_batch *batch, unsigned char *base, struct iovec *runs)
{
	unsigned int bit = 0, count;
	size_t n = 0;

	for (; mv_batch_next_run(batch, &bit, &count); bit += count)
		runs[n++] = (struct iovec){ base + ((size_t)bit << MV_PAGE_SHIFT),
					    (size_t)count << MV_PAGE_SHIFT };
	return n;
}

static long process_madvise_self(const struct iovec *runs, size_t count, int advice)
{
	long done = syscall(SYS_process_madvise, MV_PIDFD_SELF, runs, count, advice, 0);
	int self;

	if (done >= 0 || errno != EBADF)
		return done;
	self = (int)syscall(SYS_pidfd_open, getpid(), 0);
	if (self < 0)
		return -1;
	done = syscall(SYS_process_madvise, self, runs, count, advice, 0);
	close(self);
	return done;
}

void mv_host_pages_advise(const struct mv_batch *batch, void *base, int advice,
			  struct mv_batch *refused)
{
	unsigned int bit = 0, count;
	struct iovec runs[RUNS_MAX];
	size_t n = runs_of(batch, base, runs);
	long done = n < RUNS_WORTH_A_CALL ? 0 : process_madvise_self(runs, n, advice);

	for (; mv_batch_next_run(batch, &bit, &count); bit += count) {
		size_t bytes = (size_t)count << MV_PAGE_SHIFT;

		if (done >= (long)bytes) {
			done -= (long)bytes;
			continue;
		}
		done = 0; /* the run it ended in is begun again, which hurts nothing */
		if (madvise((unsigned char *)base + ((size_t)bit << MV_PAGE_SHIFT), bytes,
			    advice) &&
		    refused)
			take_run(refused, bit, count);
	}
}

void mv_host_pages_punch(struct mv_batch *batch)
{
	struct mv_region *region = batch->region;
	unsigned int bit = 0, count;

	for (; mv_batch_next_run(batch, &bit, &count); bit += count) {
		uint64_t offset = (batch->first_page + bit) << MV_PAGE_SHIFT;

		if (!fallocate(region->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			       (off_t)(region->fd_offset + offset), (off_t)count << MV_PAGE_SHIFT))
			continue;
		/* A seal, or a signal: the pages are still there, all of them or some. */
		take_run(batch, bit, count);
	}
}

static void take_all(struct mv_batch *batch)
{
	for (unsigned int i = 0; i < MV_BATCH_WORDS; i++)
		batch->bits[i] = 0;
}

/* A hole in a part of a huge page would only clear it: the host gains nothing by that. */
static void keep_parts(struct mv_batch *batch, uint64_t host_page)
{
	struct mv_region *region = batch->region;
	uint64_t offset = region->fd_offset + (batch->first_page << MV_PAGE_SHIFT);
	unsigned int bit = 0, count;

	if (host_page > MV_GRANULE_SIZE || offset % host_page ||
	    !mv_batch_next_run(batch, &bit, &count) || count < MV_GRANULE_PAGES)
		take_all(batch);
}

void mv_host_pages_drop(struct mv_batch *batch)
{
	struct mv_region *region = batch->region;
	void *base = mv_region_hva(region, batch->first_page);
	uint64_t host_page = mv_host_page_bytes(region);

	if (host_page > MV_PAGE_SIZE)
		keep_parts(batch, host_page);
	if (region->fd >= 0) {
		/* Unmapped together first: a hole in what is mapped costs three times as much. */
		mv_host_pages_advise(batch, base, MADV_DONTNEED, NULL);
		mv_host_pages_punch(batch);
	} else {
		struct mv_batch all = *batch;

		/* Memory that is locked, for one, does not go. */
		mv_host_pages_advise(&all, base, MADV_DONTNEED, batch);
	}
}
