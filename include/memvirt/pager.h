/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The demand pager: keeps a memory within a resident limit by evicting pages that were not
 * touched, and brings each back when it is.
 *
 * It stands between the VMM's own mapping of guest memory and the host's pages, by
 * userfaultfd, on shared memfd and on private anonymous memory. A pager makes no threads:
 * the caller starts one for mv_pager_handle_faults() and one or more for mv_pager_evict(),
 * and none of its other threads needs to know.
 *
 * Where a kernel lacks what safe eviction needs, the pager says so and evicts nothing:
 * see mv_pager_probe().
 */
#ifndef MEMVIRT_PAGER_H
#define MEMVIRT_PAGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/memory.h>
#include <memvirt/stats.h>
#include <memvirt/store.h>
#include <memvirt/view.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct mv_pager;

/** No limit: nothing is registered or evicted, and huge pages stay whole. */
#define MV_PAGER_UNLIMITED UINT64_MAX

/**
 * enum mv_pager_feature - kernel interfaces, as bits of mv_pager_probe()
 * @MV_PAGER_SHMEM:  userfaultfd on shared memory with minor faults (Linux 5.14): memfd works
 * @MV_PAGER_MOVE:   UFFDIO_MOVE (6.8): private anonymous memory works
 * @MV_PAGER_POISON: UFFDIO_POISON (6.6): a lost page raises a memory error; without it SIGBUS
 */
enum mv_pager_feature {
	MV_PAGER_SHMEM = 1 << 0,
	MV_PAGER_MOVE = 1 << 1,
	MV_PAGER_POISON = 1 << 2,
};

/**
 * struct mv_pager_config - what mv_pager_create() needs
 * @size:         sizeof(struct mv_pager_config)
 * @memory:       whose pages it manages; must outlive the pager
 * @store:        where evicted pages go; stays the caller's and must outlive the pager
 * @store_keys:   keys of the store that the pager may use, from 0; bounds the pages that it
 *                can manage
 * @limit_bytes:  resident limit; MV_PAGER_UNLIMITED for none
 * @feature_mask: features of enum mv_pager_feature to do without, for tests
 */
struct mv_pager_config {
	size_t size;
	struct mv_memory *memory;
	struct mv_store *store;
	uint64_t store_keys;
	uint64_t limit_bytes;
	unsigned int feature_mask;
};

/**
 * mv_pager_probe() - what this kernel offers
 * @features: set to bits of enum mv_pager_feature
 *
 * Context: any thread.
 * Return: 0; -EACCES or -EPERM where userfaultfd is not allowed to this user (see
 * /dev/userfaultfd and vm.unprivileged_userfaultfd); -ENOSYS where there is none.
 */
int mv_pager_probe(unsigned int *features);

/**
 * mv_pager_create() - a pager for a memory
 * @config: see struct mv_pager_config
 * @pager:  set on success
 *
 * Context: may sleep.
 * Return: 0; -EINVAL; -ENOMEM; as mv_pager_probe().
 */
int mv_pager_create(const struct mv_pager_config *config, struct mv_pager **pager);

/**
 * mv_pager_destroy() - free a pager
 * @pager: may be NULL. Its threads have returned, and every region has been detached.
 */
void mv_pager_destroy(struct mv_pager *pager);

/**
 * mv_pager_attach() - manage a region of the memory
 * @pager:     the pager
 * @first_gpa: first address of a region
 *
 * With a limit in force it is registered now, otherwise once there is one. What is in the
 * region stays: pages present are found and count as resident.
 *
 * Context: takes pager->lock; sleeps; not a thread that resolves faults.
 * Return: 0; -ENOENT where no region begins there; -EEXIST where it is attached;
 * -EOPNOTSUPP where the backing cannot be managed on this kernel (private memory without
 * MV_PAGER_MOVE, huge pages, a file on disk); -EBUSY where another userfaultfd has it;
 * -ENOSPC where the store has no keys left; -ENOMEM. On failure the region is as before.
 */
int mv_pager_attach(struct mv_pager *pager, uint64_t first_gpa);

/**
 * mv_pager_detach() - bring every page of a region back, and leave it
 * @pager:     the pager
 * @first_gpa: first address of an attached region
 *
 * The handler thread must be running, for other threads may be waiting for pages.
 *
 * Context: as mv_pager_attach().
 * Return: 0; -ENOENT; -EIO where a page could not be read back: it is poisoned, all others
 * are back; -ENOMEM where the host has no memory for it: the region is managed as before.
 */
int mv_pager_detach(struct mv_pager *pager, uint64_t first_gpa);

/**
 * mv_pager_forget() - the mapping of a region is about to go away: drop what is stored of it
 * @pager:     the pager
 * @first_gpa: first address of an attached region
 *
 * Context: as mv_pager_attach(); nobody touches the region any more.
 * Return: 0; -ENOENT.
 */
int mv_pager_forget(struct mv_pager *pager, uint64_t first_gpa);

/**
 * mv_pager_set_limit() - change the resident limit
 * @pager:       the pager
 * @limit_bytes: at least 1 MiB, or MV_PAGER_UNLIMITED, which brings everything back
 *
 * Returns at once; eviction follows. On -EIO and -ENOMEM see mv_pager_detach().
 *
 * Context: as mv_pager_attach().
 * Return: 0; -EINVAL for a limit below 1 MiB; errors of mv_pager_attach() where the first
 * limit has to register a region.
 */
int mv_pager_set_limit(struct mv_pager *pager, uint64_t limit_bytes);

/**
 * enum mv_pager_hold - reasons not to evict; while any is set nothing is
 * @MV_PAGER_HOLD_CALLER:    the caller wants it so
 * @MV_PAGER_HOLD_DMA:       a device or the kernel reaches pages that are not pinned here
 *                           (vfio, iommufd, io_uring, zero copy)
 * @MV_PAGER_HOLD_SHARED:    another process maps the memory
 * @MV_PAGER_HOLD_FOREIGN:   another userfaultfd of this process uses the memory
 * @MV_PAGER_HOLD_KERNEL:    the kernel lacks what safe eviction needs
 */
enum mv_pager_hold {
	MV_PAGER_HOLD_CALLER = 1 << 0,
	MV_PAGER_HOLD_DMA = 1 << 1,
	MV_PAGER_HOLD_SHARED = 1 << 2,
	MV_PAGER_HOLD_FOREIGN = 1 << 3,
	MV_PAGER_HOLD_KERNEL = 1 << 4,
};

/**
 * mv_pager_hold() - stop evicting
 * @pager:  the pager
 * @reason: bits of enum mv_pager_hold
 *
 * When it returns no eviction is under way, and under MV_PAGER_HOLD_DMA no discard of ours. Pages that are stored come back when touched;
 * where others must find them without a fault, detach.
 *
 * Context: any thread but the pager's own; waits for evictions under way.
 */
void mv_pager_hold(struct mv_pager *pager, unsigned int reason);

/**
 * mv_pager_unhold() - a reason has ceased
 * @pager:  the pager
 * @reason: bits of enum mv_pager_hold
 */
void mv_pager_unhold(struct mv_pager *pager, unsigned int reason);

/**
 * mv_pager_discard_ranges() - the content of ranges is given up
 * @pager:   the pager
 * @ranges:  ascending, without overlap, in any regions of the memory, attached or not
 * @count:   of @ranges
 * @dropped: where not NULL, set to the number of pages given up, also on -EBUSY
 *
 * Pinned pages, and those that a view refuses, keep their content, and so does a part of a host
 * page larger than 4 KiB; under MV_PAGER_HOLD_DMA all do. Many small ranges of a granule cost little more than one.
 *
 * Context: any thread but the pager's own; waits for busy pages; sleeps.
 * Return: 0: the ranges read as zeros; -EINVAL; -EFAULT where one leaves the regions, nothing
 * done; -EBUSY where a page kept its content.
 */
int mv_pager_discard_ranges(struct mv_pager *pager, const struct mv_gpa_range *ranges, size_t count,
			    uint64_t *dropped);

/**
 * mv_pager_discard() - mv_pager_discard_ranges() of one range
 * @pager:     the pager
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  last address, inclusive; the length is a multiple of 4 KiB
 *
 * Context: as there.
 * Return: as there.
 */
int mv_pager_discard(struct mv_pager *pager, uint64_t first_gpa, uint64_t last_gpa);

/**
 * mv_pager_discard_around() - let the caller's own system call discard, pins or not
 * @pager:  the pager
 * @hva:    first byte, any alignment, in an attached region of shared memory
 * @len:    bytes, at least 1, all in that region
 * @call:   does the caller's fallocate or madvise; its result is returned
 * @ctx:    for @call
 *
 * For a VMM that punches holes itself, which userfaultfd does not report. The pages are
 * busy during @call; where it returns 0 they read as zeros afterwards, the partial pages
 * at both ends in the named part; on failure they keep their content.
 *
 * Context: as mv_pager_discard().
 * Return: what @call returned; -EFAULT, -EINVAL: @call was not called.
 */
int mv_pager_discard_around(struct mv_pager *pager, void *hva, uint64_t len,
			    int (*call)(void *ctx), void *ctx);

/**
 * mv_pager_handle_faults() - resolve faults until stopped
 * @pager: the pager
 *
 * To be run by a thread of its own that blocks all signals and touches no guest memory.
 * Locks what it touches into memory as far as the limits allow.
 *
 * Context: sleeps between faults; allocates nothing and takes no lock while it resolves.
 * Return: 0 after mv_pager_stop(); -ENODEV where the memory's process is going away.
 */
int mv_pager_handle_faults(struct mv_pager *pager);

/**
 * mv_pager_evict() - keep residency within the limit until stopped
 * @pager: the pager
 *
 * To be run by one or more threads of their own.
 *
 * Context: sleeps while there is nothing to do.
 * Return: 0 after mv_pager_stop(); -ENOMEM.
 */
int mv_pager_evict(struct mv_pager *pager);

/**
 * mv_pager_stop() - make the pager's threads return
 * @pager: the pager
 *
 * The caller detaches every region first: a fault that nobody resolves hangs its thread.
 *
 * Context: any thread.
 */
void mv_pager_stop(struct mv_pager *pager);

/**
 * struct mv_pager_stats - counters since creation, and levels of this moment
 * @limit_bytes:      resident limit; MV_PAGER_UNLIMITED for none
 * @managed_bytes:    of all registered regions
 * @resident_bytes:   of @managed_bytes in host memory
 * @overhead_bytes:   the pager's and the ledger's own records, as far as populated
 * @holds:            bits of enum mv_pager_hold
 * @memory_locked:    whether all that the fault path touches could be locked
 * @faults:           faults resolved, of any kind
 * @zero_fills:       of these, of a page that was absent or discarded
 * @touches:          of these, of a resident page that had been unmapped to see its use
 * @restores:         of these, from the store
 * @restore_ns:       time that these took, in which their threads waited
 * @cancels:          evictions cancelled by a fault or a pin
 * @waits:            faults that met a page being dropped
 * @over_limit:       faults resolved above the limit, because nothing could be evicted
 * @evictions:        pages put into the store
 * @unmaps:           pages unmapped to see whether they are used
 * @discards:         pages given up
 * @refusals:         pages that could not be evicted: pinned, refused by a view or the kernel
 * @store_full:       evictions undone because the store had no room
 * @poisoned:         pages lost because the store could not give them back
 */
struct mv_pager_stats {
	uint64_t limit_bytes;
	uint64_t managed_bytes;
	uint64_t resident_bytes;
	uint64_t overhead_bytes;
	unsigned int holds;
	bool memory_locked;
	uint64_t faults;
	uint64_t zero_fills;
	uint64_t touches;
	uint64_t restores;
	uint64_t restore_ns;
	uint64_t cancels;
	uint64_t waits;
	uint64_t over_limit;
	uint64_t evictions;
	uint64_t unmaps;
	uint64_t discards;
	uint64_t refusals;
	uint64_t store_full;
	uint64_t poisoned;
};

/**
 * mv_pager_get_stats() - how it goes
 * @pager: the pager
 * @stats: set; each number is exact in itself
 *
 * Context: any thread; never waits.
 */
void mv_pager_get_stats(struct mv_pager *pager, struct mv_pager_stats *stats);

struct mv_pager_sample;

/**
 * mv_pager_sample_begin() - watch a random sample of the resident pages
 * @pager:  the pager
 * @pages:  so many, 16 to 65,536; or fewer, where hardly any are resident. 1,000 tell the used
 *          part within 5% or so; each that is touched costs its thread one fault
 * @seed:   of the choice
 * @sample: set on success; to be given to mv_pager_sample_end()
 *
 * The pages are unmapped from every view and keep their content. Pinned ones count as used.
 *
 * Context: any thread but the pager's own; the pager outlives the sample.
 * Return: 0; -EINVAL; -EBUSY where pages are not to be unmapped now (see mv_pager_hold());
 * -ENODATA where nothing is managed or resident; -ENOMEM.
 */
int mv_pager_sample_begin(struct mv_pager *pager, unsigned int pages, uint64_t seed,
			  struct mv_pager_sample **sample);

/**
 * struct mv_pager_touches - what a sample has shown
 * @sampled:      pages that tell something: those given up meanwhile do not
 * @touched:      of these
 * @active_bytes: of all resident memory, by the same part; 0 where @sampled is
 */
struct mv_pager_touches {
	unsigned int sampled;
	unsigned int touched;
	uint64_t active_bytes;
};

/**
 * mv_pager_sample_end() - see which pages were touched since
 * @sample:  is freed; may be NULL
 * @touches: set
 *
 * Context: as mv_pager_sample_begin(); waits for busy pages.
 */
void mv_pager_sample_end(struct mv_pager_sample *sample, struct mv_pager_touches *touches);

/**
 * mv_pager_publish() - the pager's part of a statistics segment
 * @pager: the pager
 * @stats: between mv_stats_begin() and mv_stats_end(): its numbers from pager_time to
 *         overhead_bytes, and restore_ns, are set. What is configured is what the memory's
 *         regions have
 *
 * Context: as mv_pager_get_stats().
 */
void mv_pager_publish(struct mv_pager *pager, struct mv_stats *stats);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_PAGER_H */
