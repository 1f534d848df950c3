// SPDX-License-Identifier: BSD-2-Clause
/*
 * Shared memory: memfd and files on tmpfs.
 *
 * The file keeps a page's content whether it is mapped or not, so unmapping is only
 * MADV_DONTNEED, which on shared memory discards nothing, and the next touch raises a
 * *minor* fault. No remove events are asked for: the kernel would report our own unmapping
 * just as a discard by the VMM, and MADV_DONTNEED just as MADV_REMOVE. Who discards says
 * so: mv_pager_discard_around().
 *
 * Reading the alias of a hole would put a zero page there, which the guest then finds. So
 * it is only read of pages known to be in the file, by the page's owner.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "host_pages.h"
#include "pager_internal.h"
#include "uffd.h"

static int open_uffd(struct mv_pager *pager)
{
	if (pager->shared_uffd < 0) {
		int uffd = mv_uffd_open(UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MINOR_SHMEM);

		if (uffd < 0)
			return uffd;
		__atomic_store_n(&pager->shared_uffd, uffd, __ATOMIC_RELEASE);
	}
	return 0;
}

static int shared_open(struct pager_region *pr)
{
	struct mv_region *region = pr->region;
	uint64_t bytes = region->pages << MV_PAGE_SHIFT;
	int error = open_uffd(pr->pager);

	if (error)
		return error;
	void *alias = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, region->fd,
			   (off_t)region->fd_offset);
	if (alias == MAP_FAILED)
		return -errno;
	madvise(alias, bytes, MADV_DONTFORK);
	error = mv_uffd_register(pr->pager->shared_uffd, region->hva, bytes,
				 UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_MINOR);
	if (error) {
		munmap(alias, bytes);
		return error;
	}
	pr->uffd = pr->pager->shared_uffd;
	pr->alias = alias;
	pr->alias_bytes = bytes;
	return 0;
}

static void shared_close(struct pager_region *pr)
{
	/* Fails where the VMM has unmapped the range already, which unregistered it. */
	mv_uffd_unregister(pr->uffd, pr->region->hva, pr->region->pages << MV_PAGE_SHIFT);
	munmap(pr->alias, pr->alias_bytes);
	pr->alias = NULL;
}

/* Of a file in memory, mincore() tells what the file holds, mapped or not. */
static int shared_scan(struct pager_region *pr,
		       void (*mark)(struct pager_region *pr, uint64_t page))
{
	unsigned char present[MV_GRANULE_PAGES];

	for (uint64_t page = 0; page < pr->region->pages; page += MV_GRANULE_PAGES) {
		uint64_t count = pr->region->pages - page;

		if (count > MV_GRANULE_PAGES)
			count = MV_GRANULE_PAGES;
		if (mincore(pr_alias(pr, page), count << MV_PAGE_SHIFT, present))
			return -errno;
		for (uint64_t i = 0; i < count; i++)
			if (present[i] & 1)
				mark(pr, page + i);
	}
	return 0;
}

/* Nothing can refuse: what the kernel holds of shared memory is not to be seen. */
static void shared_prepare(struct pager_region *pr, struct mv_batch *batch)
{
}

static void shared_abort(struct pager_region *pr, const struct mv_batch *batch)
{
}

static void shared_commit(struct pager_region *pr, const struct mv_batch *batch)
{
	mv_host_pages_advise(batch, pr_hva(pr, batch->first_page), MADV_DONTNEED, NULL);
}

static int shared_map(struct pager_region *pr, uint64_t page)
{
	return mv_uffd_continue(pr->uffd, pr_hva(pr, page));
}

static void shared_drop(struct pager_region *pr, struct mv_batch *batch)
{
	mv_host_pages_punch(batch);
}

/* The alias is the file itself. */
static void shared_sweep(struct pager_region *pr, uint64_t page)
{
}

const struct backing_ops mv_backing_shared = {
	.name = "shared",
	.open = shared_open,
	.close = shared_close,
	.scan = shared_scan,
	.prepare = shared_prepare,
	.abort = shared_abort,
	.commit = shared_commit,
	.map = shared_map,
	.drop = shared_drop,
	.sweep = shared_sweep,
};
