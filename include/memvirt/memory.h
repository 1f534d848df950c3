/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest's physical memory: regions of guest-physical addresses, each backed by a range
 * of this process, with the ledger that says of each page where its content is and who
 * holds it. Everything else in memvirt is a view of a memory, or works for one.
 *
 * Ranges are closed (first, last), so that the top of the address space can be named.
 */
#ifndef MEMVIRT_MEMORY_H
#define MEMVIRT_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/platform.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define MV_PAGE_SHIFT	 12
#define MV_PAGE_SIZE	 (1UL << MV_PAGE_SHIFT)
#define MV_GRANULE_SHIFT 21
#define MV_GRANULE_SIZE	 (1UL << MV_GRANULE_SHIFT)
#define MV_GRANULE_PAGES (MV_GRANULE_SIZE / MV_PAGE_SIZE)

struct mv_memory;

/**
 * enum mv_page_state - where the content of a guest page is
 * @MV_PAGE_ABSENT:    never touched; reads as zeros
 * @MV_PAGE_RESIDENT:  in host memory
 * @MV_PAGE_STORED:    in a page store
 * @MV_PAGE_DISCARDED: given up by the guest (balloon, reporting); reads as zeros
 * @MV_PAGE_POISONED:  lost to an error of the store; an access must fault, never read zeros
 */
enum mv_page_state {
	MV_PAGE_ABSENT,
	MV_PAGE_RESIDENT,
	MV_PAGE_STORED,
	MV_PAGE_DISCARDED,
	MV_PAGE_POISONED,
	MV_PAGE_STATES,
};

/**
 * struct mv_memory_config - what mv_memory_create() needs
 * @size:     sizeof(struct mv_memory_config)
 * @platform: NULL for mv_platform_linux(); libmemvirt-core has none to fall back on
 */
struct mv_memory_config {
	size_t size;
	const struct mv_platform *platform;
};

/**
 * struct mv_region_config - one slot of guest memory
 * @size:      sizeof(struct mv_region_config)
 * @first_gpa: first guest-physical address; aligned to 4 KiB
 * @last_gpa:  last one, inclusive; the length is a multiple of 4 KiB
 * @hva:       where this process maps it; aligned to 4 KiB
 * @fd:        descriptor behind a shared mapping, or -1 for private anonymous memory.
 *             The caller keeps it open until the region is removed.
 * @fd_offset: offset in @fd of @first_gpa, bytes; aligned to 4 KiB
 */
struct mv_region_config {
	size_t size;
	uint64_t first_gpa;
	uint64_t last_gpa;
	void *hva;
	int fd;
	uint64_t fd_offset;
};

/**
 * mv_memory_create() - an empty guest memory
 * @config: see struct mv_memory_config
 * @memory: set on success
 *
 * Context: any thread; may sleep.
 * Return: 0; -EINVAL for a config of the wrong size, or without a platform where the
 * library has none; -ENOMEM.
 */
int mv_memory_create(const struct mv_memory_config *config, struct mv_memory **memory);

/**
 * mv_memory_destroy() - free a memory and what it records; the guest's pages stay as they are
 * @memory: may be NULL. No other thread may use it any more; all views are detached.
 *
 * Context: may sleep.
 */
void mv_memory_destroy(struct mv_memory *memory);

/**
 * mv_memory_add_region() - add a slot
 * @memory: the memory
 * @config: see struct mv_region_config; all pages begin as MV_PAGE_ABSENT
 *
 * Published last: a reader sees the whole region or none of it.
 *
 * Context: takes memory->lock; may sleep; not in a read section.
 * Return: 0; -EINVAL for a bad alignment, an empty or wrapping range or a config of the
 * wrong size; -EEXIST where guest-physical or host-virtual addresses overlap a region;
 * -ENOMEM, memory unchanged.
 */
int mv_memory_add_region(struct mv_memory *memory, const struct mv_region_config *config);

/**
 * mv_memory_remove_region() - take a slot away
 * @memory:    the memory
 * @first_gpa: first address of the region
 *
 * Waits until all readers have left; the content of the pages is not touched.
 *
 * Context: takes memory->lock; sleeps; not in a read section.
 * Return: 0; -ENOENT where no region begins there; -EBUSY while a page is pinned, a
 * transaction runs on it, or a view holds the region (the pager: detach it first).
 */
int mv_memory_remove_region(struct mv_memory *memory, uint64_t first_gpa);

/**
 * mv_memory_read() - copy from guest memory
 * @memory: the memory
 * @gpa:    guest-physical address, any alignment
 * @buf:    at least @len bytes
 * @len:    bytes; 0 succeeds
 *
 * The one checked way in: a guest's number is never trusted. May cross regions that touch.
 * A page that is not resident is brought in by the fault that the copy takes. An aligned
 * access of 2, 4 or 8 bytes is single: it sees no half of what a guest stores.
 *
 * Context: any thread but one that resolves faults; sleeps while a page is restored.
 * Return: 0; -EFAULT where a byte lies outside every region, @buf then untouched.
 */
int mv_memory_read(struct mv_memory *memory, uint64_t gpa, void *buf, size_t len);

/**
 * mv_memory_write() - copy into guest memory
 * @memory: the memory
 * @gpa:    guest-physical address, any alignment
 * @buf:    @len bytes
 * @len:    bytes; 0 succeeds
 *
 * Context: as mv_memory_read().
 * Return: 0; -EFAULT where a byte lies outside every region, guest memory then untouched.
 */
int mv_memory_write(struct mv_memory *memory, uint64_t gpa, const void *buf, size_t len);

/**
 * mv_memory_hva() - where this process sees a guest address
 * @memory: the memory
 * @gpa:    guest-physical address
 * @len:    in: bytes wanted, at least 1; out: bytes that follow @gpa in its region, at most
 *          that
 * @hva:    set on success
 *
 * The pointer stays good until the region is removed.
 *
 * Context: any thread.
 * Return: 0; -EFAULT where @gpa lies outside every region; -EINVAL for a length of 0.
 */
int mv_memory_hva(struct mv_memory *memory, uint64_t gpa, size_t *len, void **hva);

/**
 * mv_memory_gpa() - the guest address of a host-virtual one
 * @memory: the memory
 * @hva:    an address of this process
 * @gpa:    set on success
 *
 * Context: any thread.
 * Return: 0; -EFAULT where @hva belongs to no region.
 */
int mv_memory_gpa(struct mv_memory *memory, const void *hva, uint64_t *gpa);

/**
 * mv_memory_pin() - promise that pages keep their place
 * @memory:    the memory
 * @first_gpa: any address in the first page
 * @last_gpa:  any address in the last page
 *
 * For DMA, direct I/O, and whatever else reaches pages behind the processor's back. A
 * pinned page is neither evicted nor discarded by memvirt. A pin does not bring a page
 * in: whoever pins touches it next, and from then on it stays. Pins count; an eviction
 * that has not yet dropped the page is cancelled.
 *
 * Context: any thread but one that resolves faults; waits, for microseconds, for a page
 * that is just being dropped.
 * Return: 0; -EFAULT where the range leaves the regions; -EOVERFLOW where a page has
 * 65,535 pins. On failure nothing is pinned.
 */
int mv_memory_pin(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa);

/**
 * mv_memory_unpin() - take one pin from each page of a range that was pinned
 * @memory:    the memory
 * @first_gpa: as in mv_memory_pin()
 * @last_gpa:  as in mv_memory_pin()
 *
 * Context: any thread; never waits.
 */
void mv_memory_unpin(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa);

/**
 * mv_memory_page_state() - the ledger's word on one page, at this moment
 * @memory: the memory
 * @gpa:    any address in the page
 * @state:  set on success
 *
 * Context: any thread.
 * Return: 0; -EFAULT where @gpa lies outside every region.
 */
int mv_memory_page_state(struct mv_memory *memory, uint64_t gpa, enum mv_page_state *state);

/**
 * struct mv_memory_counts - pages of a memory
 * @pages:  by state
 * @pinned: with at least one pin, whatever their state
 * @total:  of all regions
 */
struct mv_memory_counts {
	uint64_t pages[MV_PAGE_STATES];
	uint64_t pinned;
	uint64_t total;
};

/**
 * mv_memory_get_counts() - how many pages are in which state
 * @memory: the memory
 * @counts: set; each number is exact in itself, their sum may be off while pages change
 *
 * Context: any thread; never waits.
 */
void mv_memory_get_counts(struct mv_memory *memory, struct mv_memory_counts *counts);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_MEMORY_H */
