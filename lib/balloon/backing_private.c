// SPDX-License-Identifier: BSD-2-Clause
/*
 * Private anonymous memory, where the kernel has UFFDIO_MOVE (6.8).
 *
 * An unmapped page lies in a staging range of ours, at the same offset, from which a touch
 * moves it back. An evictor may be reading it there just then: it takes a fault in the
 * staging range, gets zeros from the handler, finds that the page is not its own any more,
 * and sweeps. So: where the ledger says RESIDENT and UNMAPPED, the staging range holds the
 * page; anything else there is rubbish that an evictor is about to sweep.
 *
 * Two descriptors: the guest's range reports removals, since MADV_DONTNEED discards here
 * and may come as a bare system call; the staging range does not, so that dropping from it
 * makes nobody wait.
 *
 * UFFDIO_MOVE refuses (EBUSY) pages that the kernel holds, so direct I/O is safe here
 * without pins. Other ways to take a page away lose what a device writes meanwhile: where
 * the kernel lacks UFFDIO_MOVE, private memory is not managed at all.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host_pages.h"
#include "pager_internal.h"
#include "uffd.h"

static int open_uffds(struct mv_pager *pager)
{
	if (pager->private_uffd >= 0)
		return 0;
	int uffd = mv_uffd_open(UFFD_FEATURE_EVENT_REMOVE | MV_UFFD_FEATURE_MOVE);

	if (uffd < 0)
		return uffd;
	int staging = mv_uffd_open(MV_UFFD_FEATURE_MOVE);

	if (staging < 0) {
		close(uffd);
		return staging;
	}
	__atomic_store_n(&pager->private_uffd, uffd, __ATOMIC_RELEASE);
	__atomic_store_n(&pager->staging_uffd, staging, __ATOMIC_RELEASE);
	return 0;
}

static int register_ranges(struct pager_region *pr, void *staging, uint64_t bytes)
{
	struct mv_pager *pager = pr->pager;
	int error = mv_uffd_register(pager->staging_uffd, staging, bytes,
				     UFFDIO_REGISTER_MODE_MISSING);

	if (!error)
		error = mv_uffd_register(pager->private_uffd, pr->region->hva, bytes,
					 UFFDIO_REGISTER_MODE_MISSING);
	return error;
}

static int private_open(struct pager_region *pr)
{
	uint64_t bytes = pr->region->pages << MV_PAGE_SHIFT;
	int error = open_uffds(pr->pager);

	if (error)
		return error;
	void *staging = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (staging == MAP_FAILED)
		return -errno;
	/* Pages come one by one, and a child has no business with them. */
	madvise(staging, bytes, MADV_NOHUGEPAGE);
	madvise(staging, bytes, MADV_DONTFORK);
	error = register_ranges(pr, staging, bytes);
	if (error) {
		munmap(staging, bytes);
		return error;
	}
	pr->uffd = pr->pager->private_uffd;
	pr->alias = staging;
	pr->alias_bytes = bytes;
	return 0;
}

static void private_close(struct pager_region *pr)
{
	mv_uffd_unregister(pr->uffd, pr->region->hva, pr->region->pages << MV_PAGE_SHIFT);
	munmap(pr->alias, pr->alias_bytes);
	pr->alias = NULL;
}

/* Bits of an entry in /proc/PID/pagemap. */
#define PAGEMAP_PRESENT (1ULL << 63)
#define PAGEMAP_SWAPPED (1ULL << 62)

/* Not mincore(): of anonymous memory it does not tell a swapped page from a hole. */
static int private_scan(struct pager_region *pr,
			void (*mark)(struct pager_region *pr, uint64_t page))
{
	uint64_t entries[MV_GRANULE_PAGES];
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	for (uint64_t page = 0; page < pr->region->pages;) {
		off_t at = (off_t)((uintptr_t)pr_hva(pr, page) >> MV_PAGE_SHIFT) * 8;
		ssize_t got = pread(fd, entries, sizeof(entries), at);

		if (got < 8) {
			int error = got < 0 ? -errno : -EIO;

			close(fd);
			return error;
		}
		for (ssize_t i = 0; i < got / 8 && page < pr->region->pages; i++, page++)
			if (entries[i] & (PAGEMAP_PRESENT | PAGEMAP_SWAPPED))
				mark(pr, page);
	}
	close(fd);
	return 0;
}

/* Move a run out; what the kernel holds, or what has gone, leaves the batch. */
static void move_out(struct pager_region *pr, struct mv_batch *batch, unsigned int bit,
		     unsigned int count)
{
	while (count) {
		uint64_t page = batch->first_page + bit;
		int64_t moved = mv_uffd_move(pr->pager->staging_uffd, pr_alias(pr, page),
					     pr_hva(pr, page), (uint64_t)count << MV_PAGE_SHIFT);
		unsigned int done = 1;

		if (moved == -EAGAIN)
			continue;
		if (moved > 0)
			done = (unsigned int)(moved >> MV_PAGE_SHIFT);
		else
			mv_batch_take(batch, bit);
		bit += done;
		count -= done;
	}
}

static void private_prepare(struct pager_region *pr, struct mv_batch *batch)
{
	unsigned int bit = 0, count;

	for (; mv_batch_next_run(batch, &bit, &count); bit += count)
		move_out(pr, batch, bit, count);
}

static int private_map(struct pager_region *pr, uint64_t page)
{
	int64_t moved = mv_uffd_move(pr->uffd, pr_hva(pr, page), pr_alias(pr, page), MV_PAGE_SIZE);

	return moved < 0 ? (int)moved : 0;
}

static void private_abort(struct pager_region *pr, const struct mv_batch *batch)
{
	mv_batch_for_each_page(batch, bit) {
		/* EAGAIN lasts until the handler has read an event; the page must go back. */
		while (private_map(pr, batch->first_page + bit) == -EAGAIN)
			;
	}
}

static void private_commit(struct pager_region *pr, const struct mv_batch *batch)
{
}

static void private_drop(struct pager_region *pr, struct mv_batch *batch)
{
	mv_host_pages_advise(batch, pr_alias(pr, batch->first_page), MADV_DONTNEED, NULL);
}

static void private_sweep(struct pager_region *pr, uint64_t page)
{
	madvise(pr_alias(pr, page), MV_PAGE_SIZE, MADV_DONTNEED);
}

const struct backing_ops mv_backing_private = {
	.name = "private",
	.open = private_open,
	.close = private_close,
	.scan = private_scan,
	.prepare = private_prepare,
	.abort = private_abort,
	.commit = private_commit,
	.map = private_map,
	.drop = private_drop,
	.sweep = private_sweep,
};
