/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What differs between the kinds of memory that a guest's pages can be made of, behind one
 * table of operations; the pager above knows none of it.
 *
 * A page in host memory is either mapped (the VMM and KVM reach it without a fault) or
 * unmapped: then its content lies in the *alias*, a second mapping of ours of which no
 * fault is reported.
 *
 *	              shared (memfd, tmpfs)           private (anonymous)
 *	alias         the same file, mapped again     a staging range, empty but for pages
 *	                                              that are unmapped
 *	unmap         MADV_DONTNEED                   UFFDIO_MOVE out
 *	map           UFFDIO_CONTINUE                 UFFDIO_MOVE back
 *	drop          punch a hole                    MADV_DONTNEED on the staging range
 *
 * UFFDIO_MOVE refuses pages that the kernel holds for I/O; of shared memory nothing tells,
 * so there they have to be pinned in the ledger (mv_memory_pin()).
 */
#ifndef MV_BACKING_H
#define MV_BACKING_H

#include <stdint.h>

#include "../region.h"

struct mv_pager;
struct pager_region;

/**
 * struct backing_ops - one kind of memory
 * @open:    make the alias and register the region; 0 or -errno with nothing left behind
 * @close:   unregister, unmap the alias; whoever waits for a page is woken
 * @scan:    call mark() for each page present now
 * @prepare: unmap what can be unmapped only by trying; takes out of the batch what the
 *           kernel holds
 * @abort:   undo @prepare
 * @commit:  unmap the rest
 * @map:     make one unmapped page reachable again and wake whoever waits; 0, -EEXIST where
 *           it is mapped, -ENOENT where it is gone, -EAGAIN: later
 * @drop:    give the host's pages of unmapped pages back
 * @sweep:   drop what the alias may still have of a page that is not, or no more, there
 *
 * A page's operations are called by its owner only (busy bit).
 */
struct backing_ops {
	const char *name;
	int (*open)(struct pager_region *pr);
	void (*close)(struct pager_region *pr);
	int (*scan)(struct pager_region *pr, void (*mark)(struct pager_region *pr, uint64_t page));
	void (*prepare)(struct pager_region *pr, struct mv_batch *batch);
	void (*abort)(struct pager_region *pr, const struct mv_batch *batch);
	void (*commit)(struct pager_region *pr, const struct mv_batch *batch);
	int (*map)(struct pager_region *pr, uint64_t page);
	void (*drop)(struct pager_region *pr, struct mv_batch *batch);
	void (*sweep)(struct pager_region *pr, uint64_t page);
};

extern const struct backing_ops mv_backing_shared;
extern const struct backing_ops mv_backing_private;

#endif /* MV_BACKING_H */
