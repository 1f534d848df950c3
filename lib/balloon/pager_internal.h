/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pager's own structs, shared by its files:
 *
 *   pager.c          create, attach, limits, holds, statistics
 *   pager_view.c     the VMM's mapping as a view of the memory
 *   pager_fault.c    the handler thread: one page brought back at a time
 *   pager_evict.c    the evictor threads: how pages go
 *   pager_hands.c    how many go, and from which granules
 *   pager_discard.c  content given up
 *   backing_*.c      what differs between kinds of memory
 *
 * Glossary. A page is *parked* when its fault waits for room below the limit. The *unmap
 * hand* goes round all granules and unmaps pages; the *evict hand* follows and evicts those
 * that nobody touched in between.
 */
#ifndef MV_PAGER_INTERNAL_H
#define MV_PAGER_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <memvirt/pager.h>
#include <memvirt/store.h>
#include <memvirt/view.h>

#include "../region.h"
#include "backing.h"

#define PAGER_REGIONS 256  /* slots of one pager; VMs have a handful */
#define PAGER_PARKED  1024 /* more than a VM has threads that can fault at once */

/**
 * struct pager_region - a region that the pager manages
 *
 * Constant while published in pager->regions[]: all but the following.
 * Atomic: @claims[].
 */
struct pager_region {
	struct mv_pager *pager;
	struct mv_region *region;
	const struct backing_ops *backing;
	uint64_t first_key; /* the store's key of page 0 */
	uint64_t granules;
	unsigned char *alias;
	uint64_t alias_bytes;
	int uffd;    /* of faults in the VMM's mapping */
	bool armed;  /* registered; under pager->lock */
	/* Held by the one evictor that works in a granule, so that no page is copied twice
	 * at a time, and by whoever must not meet one: discard, detach. A claim keeps the
	 * region armed. */
	uint8_t *claims;
};

/* A fault that waits for room, or for an event to be read. */
struct parked_fault {
	struct pager_region *pr;
	uint64_t page;
	bool minor;
};

/* A ring of faults: one handler puts, any evictor takes; slots are handed over by @turn. */
struct parked_ring {
	uint64_t head; /* atomic: next to take */
	uint64_t tail; /* atomic: next to put */
	struct {
		uint64_t turn; /* atomic: index of the put that may use it, + 1 once filled */
		struct parked_fault fault;
	} slots[PAGER_PARKED];
};

/* Counters by who writes them would be faster, but all these come with a system call. */
struct pager_counters {
	uint64_t faults, zero_fills, touches, restores, restore_ns, cancels, waits, over_limit;
	uint64_t evictions, unmaps, discards, refusals, store_full, poisoned;
};

/**
 * struct mv_pager - the pager
 *
 * Under @lock: regions coming and going, @store_used, @limit being changed, the uffds
 * being opened.
 * RCU (the memory's read sections): the pointers in @regions[].
 * Atomic: the rest from @limit_pages on.
 */
struct mv_pager {
	struct mv_memory *memory;
	struct mv_store *store;
	uint64_t store_keys;
	unsigned int features;
	struct mv_view view;

	pthread_mutex_t lock;
	struct pager_region *regions[PAGER_REGIONS]; /* armed and not; NULL where free */
	int shared_uffd, private_uffd, staging_uffd; /* -1 until needed */
	int doorbell; /* eventfd: the handler is to look at the descriptors again */

	uint64_t limit_pages;
	unsigned int holds;
	bool stopping;
	bool stuck;	  /* nothing could be evicted in two rounds: let faults pass the limit */
	bool unlocked;	  /* not all that the fault path touches could be locked in memory */
	unsigned int handlers, evictors;
	unsigned int working; /* evictors that unmap or copy pages just now */
	uint32_t work;	  /* futex: raised when there is something for evictors to do */
	unsigned int idle; /* evictors that sleep on @work */
	uint64_t unmapped; /* pages resident but unmapped */
	uint64_t unmap_hand, evict_hand; /* granules passed; modulo all granules */
	struct parked_ring parked;
	struct pager_counters count;
};

static inline void pager_count(uint64_t *counter, uint64_t n)
{
	__atomic_fetch_add(counter, n, __ATOMIC_RELAXED);
}

static inline uint64_t pager_read(const uint64_t *counter)
{
	return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

/* Pages in host memory, mapped or not. Only managed pages are ever marked resident. */
static inline uint64_t pager_resident(struct mv_pager *pager)
{
	return pager_read(&pager->memory->states[MV_PAGE_RESIDENT]);
}

static inline unsigned char *pr_hva(const struct pager_region *pr, uint64_t page)
{
	return mv_region_hva(pr->region, page);
}

static inline unsigned char *pr_alias(const struct pager_region *pr, uint64_t page)
{
	return pr->alias + (page << MV_PAGE_SHIFT);
}

extern const struct mv_view_ops pager_view_ops;

/* The armed region behind a core's region or an address, or NULL. Inside a read section. */
struct pager_region *pager_region_of(struct mv_pager *pager, const struct mv_region *region);
struct pager_region *pager_region_at(struct mv_pager *pager, const void *hva);

/* End a page's transaction, keep count of the unmapped, and wake who met it busy. */
void pr_end(struct pager_region *pr, uint64_t page, enum mv_page_state state, uint32_t clear,
	    uint32_t set);

/* One evictor at a time in a granule; see struct pager_region. */
bool pr_claim(struct pager_region *pr, uint64_t granule);
void pr_claim_wait(struct pager_region *pr, uint64_t first, uint64_t last);
void pr_unclaim(struct pager_region *pr, uint64_t first, uint64_t last);

/*
 * Claim a granule to unmap or evict, unless the region is being left or nothing may be evicted.
 * Inside a read section, which may be left with the claim.
 */
bool pager_claim_for_eviction(struct pager_region *pr, uint64_t granule);

/* Eviction begins above the one mark and ends at the other, a little lower. */
bool pager_above_start(struct mv_pager *pager);
bool pager_above_stop(struct mv_pager *pager);
/* Whether nobody holds eviction off. */
bool pager_may_evict(struct mv_pager *pager);

/*
 * The hands, which go round all granules: positions count for ever, modulo all granules.
 * Inside a read section. The granule is returned claimed; NULL where that cannot be.
 */
uint64_t pager_all_granules(struct mv_pager *pager);
/* Whether the unmap hand has yet to go on, to be far enough ahead of the evict hand. */
bool pager_unmap_hand_leads(struct mv_pager *pager, uint64_t total);
struct pager_region *pager_next_to_unmap(struct mv_pager *pager, uint64_t *granule);
/* @next: the evictor's own: where to go on, 0 at first. */
struct pager_region *pager_next_to_evict(struct mv_pager *pager, uint64_t *next,
					 uint64_t *granule, uint64_t *position);
/* Nothing unmapped is left there: what would be left behind is not seen for a whole round. */
void pager_evict_hand_done(struct mv_pager *pager, uint64_t position);

/*
 * Bring the page that faulted back, from wherever it is. @buffer: a page of the caller's.
 * Return: 0, also where the page is busy and its owner will wake the faulter; -EAGAIN: to be
 * tried again (an event has to be read, or the host is short of memory); -ENODEV where the
 * mapping has gone.
 */
int pager_resolve(struct pager_region *pr, uint64_t page, bool minor, void *buffer);

/* As pager_resolve() for a page that is not resident, without a fault; for detaching. */
int pager_bring_back(struct pager_region *pr, uint64_t page, void *buffer);

/* The VMM has discarded a range, the kernel says (UFFD_EVENT_REMOVE). Handler only. */
void pager_removed(struct mv_pager *pager, uint64_t start, uint64_t end);

/* Whether a fault had better wait until something has been evicted. */
bool pager_no_room(struct mv_pager *pager);

/* Wake the evictors where residency is too high, or in any case. */
void pager_kick_evictors(struct mv_pager *pager);
void pager_wake_evictors(struct mv_pager *pager);

bool parked_put(struct parked_ring *ring, const struct parked_fault *fault);
bool parked_take(struct parked_ring *ring, struct parked_fault *fault);
bool parked_any(const struct parked_ring *ring);

/* Whether the region of a fault kept aside is still managed. Inside a read section. */
bool parked_valid(struct mv_pager *pager, const struct parked_fault *fault);

#endif /* MV_PAGER_INTERNAL_H */
