/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Regions and views as the library sees them: what memory.c and view.c publish and everyone
 * else reads.
 *
 * A reader takes a set inside a read section and finds a region by guest address, by host
 * address, or holds one it took with mv_region_hold(). Sets are never changed while
 * somebody may read them: a writer fills the spare, publishes it, and keeps the old one as
 * the next spare once its readers have left, so that taking away never needs memory.
 *
 * Who takes what in which order is written in docs/locking.md.
 */
#ifndef MV_REGION_H
#define MV_REGION_H

#include <memvirt/memory.h>
#include <memvirt/view.h>

#include "ledger.h"

/**
 * struct mv_region - one slot
 *
 * Constant once published: all but the following.
 * By compare-exchange: @words[], each on its own.
 * Atomic: @revokes[], @holds.
 *
 * Whoever makes pages busy or pins them holds the region meanwhile.
 */
struct mv_region {
	struct mv_memory *memory;
	uint64_t first_gpa;
	uint64_t last_gpa;
	unsigned char *hva;
	int fd;
	uint64_t fd_offset;
	uint64_t pages;
	uint32_t *words;   /* the ledger: one word a page */
	uint64_t *revokes; /* one a granule: see mv_granule_sample() */
	unsigned int holds; /* and MV_REGION_CLOSING */
};

#define MV_REGION_CLOSING 0x80000000u /* in @holds: being removed; no new hold */

/**
 * struct mv_region_set - what is published: regions by guest and by host address
 *
 * @users counts those that keep the set, and so its regions, longer than a read section
 * should last: an access may take a fault, which others have to resolve first.
 */
struct mv_region_set {
	unsigned int count;
	unsigned int capacity;
	struct mv_region **by_gpa;
	struct mv_region **by_hva;
	unsigned int users __attribute__((aligned(64))); /* atomic; apart from what is looked up */
};

/**
 * struct mv_view_set - what is published: the views, in the order in which they are asked
 *
 * @users counts the transactions that walk this set: a transaction asks the same views in
 * all its steps, and they may sleep, which a read section had better not.
 */
struct mv_view_set {
	unsigned int count;
	unsigned int capacity;
	unsigned int grants; /* views that want to hear of grants */
	unsigned int users;  /* atomic */
	struct mv_view *view[];
};

struct mv_memory {
	struct mv_platform platform; /* constant */

	unsigned int lock; /* serialises writers: regions, views */
	struct mv_region_set *spare_set; /* under lock */
	struct mv_view_set *spare_views; /* under lock */

	struct mv_region_set *set; /* RCU: replaced under lock, read inside read sections */
	struct mv_view_set *views; /* RCU, as @set */

	/* On a line of their own: written by every fault. */
	uint64_t states[MV_PAGE_STATES] __attribute__((aligned(64))); /* atomic: pages by state */
	uint64_t pinned; /* atomic: pages with a pin */
};

/* The platform where a caller names none: NULL in the freestanding library. */
const struct mv_platform *mv_platform_default(void);

/* The set of this moment. Context: inside a read section. */
static inline const struct mv_region_set *mv_memory_regions(struct mv_memory *memory)
{
	/* Acquire pairs with the release in memory.c's publish_set(). */
	return __atomic_load_n(&memory->set, __ATOMIC_ACQUIRE);
}

static inline void mv_memory_read_enter(struct mv_memory *memory)
{
	memory->platform.ops->read_enter(memory->platform.ctx);
}

static inline void mv_memory_read_leave(struct mv_memory *memory)
{
	memory->platform.ops->read_leave(memory->platform.ctx);
}

/*
 * The set of this moment, kept until it is put; may sleep in between, and may touch guest
 * memory. Writers wait for it. Context: any; not a thread that resolves faults.
 */
struct mv_region_set *mv_memory_get_set(struct mv_memory *memory);
void mv_memory_put_set(struct mv_region_set *set);

/* memory->lock. Context: takes it before the lock of any table; not in a read section. */
void mv_memory_lock(struct mv_memory *memory);
void mv_memory_unlock(struct mv_memory *memory);

/* The region that holds an address, or NULL. Context: inside a read section. */
struct mv_region *mv_region_by_gpa(struct mv_memory *memory, uint64_t gpa);
struct mv_region *mv_region_by_hva(struct mv_memory *memory, const void *hva);

/* The same in a set that the caller took: several lookups then agree with each other. */
struct mv_region *mv_set_by_gpa(const struct mv_region_set *set, uint64_t gpa);

/*
 * Keep a region from being removed; taken inside the read section that found it. False
 * where it is being removed just now; whether that comes about is known a moment later,
 * outside the read section: mv_region_get() has that patience.
 */
bool mv_region_hold(struct mv_region *region);
void mv_region_release(struct mv_region *region);

/* The region that holds an address, held, or NULL. Context: not in a read section. */
struct mv_region *mv_region_get(struct mv_memory *memory, uint64_t gpa);

/* The same for all regions of a range. Return: 0; -EFAULT where it leaves them, none held. */
int mv_memory_hold_range(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa);
void mv_memory_release_range(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa);
int mv_memory_hold_ranges(struct mv_memory *memory, const struct mv_gpa_range *ranges,
			  size_t count);
void mv_memory_release_ranges(struct mv_memory *memory, const struct mv_gpa_range *ranges,
			      size_t count);

/* Whether ranges are aligned, ascending and apart. */
bool mv_gpa_ranges_valid(const struct mv_gpa_range *ranges, size_t count);

/**
 * struct mv_pages - the part of a range that lies in one region
 * @region:     the region
 * @first_page: number within the region
 * @last_page:  the last one, inclusive
 * @last_gpa:   where the whole range ends
 */
struct mv_pages {
	struct mv_region *region;
	uint64_t first_page;
	uint64_t last_page;
	uint64_t last_gpa;
};

/*
 * Walk a range: mv_pages_first(), then mv_pages_next() until it is false.
 * Context: all regions of the range are held, or pinned.
 */
void mv_pages_first(struct mv_memory *memory, uint64_t first_gpa, uint64_t last_gpa,
		    struct mv_pages *pages);
bool mv_pages_next(struct mv_pages *pages);

static inline uint64_t mv_region_page(const struct mv_region *region, uint64_t gpa)
{
	return (gpa - region->first_gpa) >> MV_PAGE_SHIFT;
}

/*
 * Move a page that the caller owns (busy) to a state, end its transaction as mv_page_end()
 * does, and keep the counts. The one way in which a transaction ends. Return: the word before;
 * where MV_WORD_WAITED is set in it, the caller wakes the page.
 */
uint32_t mv_region_end(struct mv_region *region, uint64_t page, enum mv_page_state state,
		       uint32_t clear, uint32_t set);

static inline unsigned char *mv_region_hva(const struct mv_region *region, uint64_t page)
{
	return region->hva + (page << MV_PAGE_SHIFT);
}

/*
 * Transactions on a batch; see view.h for the order. The caller has made every page of the
 * batch busy and ends each itself.
 */

/*
 * Revoke in every view. Pages that a view refuses are taken out of the batch; for them, views
 * that had agreed already have been told to abort.
 *
 * Context: no read section; holds no lock that a view takes.
 */
void mv_batch_revoke(struct mv_batch *batch);

/* Let every view reach the pages again. Return: 0, or the first view's refusal. */
int mv_batch_grant(const struct mv_batch *batch);

/* Pages that the caller owned, and that somebody met busy, have been ended: wake them. */
void mv_batch_wake(const struct mv_batch *batch);

/*
 * The granule's revoke sequence: in its low bits how many revokes run, above them how many
 * have ended. Several may run at once, on different pages, and "odd while one runs" would
 * then be even while two do.
 *
 * A grant samples, resolves, and then either, under the lock that the view's commit_revoke
 * takes, installs where mv_granule_changed() says that no revoke ran at the sample or came
 * since; or, without a lock, installs an entry that nobody can use yet, asks, and makes it a
 * real one by a compare-exchange, all sequentially consistent, as is what commit_revoke does
 * to the entry: then either the grant sees the revoke or the revoke sees the entry. (Asking
 * after the real entry is in place would let a processor use it until it is undone.)
 *
 * mv_batch_revoke() raises the sequence before the first prepare and lowers it after the last
 * flush. From then on nothing resolves to the pages if a view of MV_VIEW_RANK_PROCESS is
 * attached, for all others resolve through that mapping. Who drops pages without one
 * (mv_memory_discard() may) brackets revoke and drop with mv_granule_raise() and _lower().
 *
 * A table's large page that lies across two granules of the region looks at both.
 */
#define MV_REVOKES_RUNNING 0x0000ffffULL /* at most one a page, and a bracket around each */
#define MV_REVOKES_ENDED   0x00010000ULL

/* The sequence of the granule that a page of the region is in. */
static inline uint64_t *mv_granule_sequence(const struct mv_region *region, uint64_t page)
{
	return &region->revokes[page / MV_GRANULE_PAGES];
}

/*
 * Sequentially consistent, all of them: raise-then-look-at-the-table on one side and
 * install-then-look-at-the-sequence on the other must not both miss each other.
 */
static inline uint64_t mv_granule_sample(const struct mv_region *region, uint64_t page)
{
	return __atomic_load_n(mv_granule_sequence(region, page), __ATOMIC_SEQ_CST);
}

bool mv_granule_changed(const struct mv_region *region, uint64_t page, uint64_t sample);
void mv_granule_raise(struct mv_region *region, uint64_t page);
void mv_granule_lower(struct mv_region *region, uint64_t page);

static inline bool mv_batch_empty(const struct mv_batch *batch)
{
	uint64_t any = 0;

	for (unsigned int i = 0; i < MV_BATCH_WORDS; i++)
		any |= batch->bits[i];
	return !any;
}

static inline bool mv_batch_has(const struct mv_batch *batch, unsigned int bit)
{
	return batch->bits[bit / 64] >> (bit % 64) & 1;
}

static inline void mv_batch_add(struct mv_batch *batch, unsigned int bit)
{
	batch->bits[bit / 64] |= 1ULL << (bit % 64);
}

static inline void mv_batch_take(struct mv_batch *batch, unsigned int bit)
{
	batch->bits[bit / 64] &= ~(1ULL << (bit % 64));
}

static inline uint32_t *mv_batch_word(const struct mv_batch *batch, unsigned int bit)
{
	return &batch->region->words[batch->first_page + bit];
}

/* Each page of a batch, lowest first; the body may take the page out. */
#define mv_batch_for_each_page(batch, bit)                                                        \
	for (unsigned int bit = 0; bit < MV_GRANULE_PAGES; bit++)                                  \
		if (!mv_batch_has(batch, bit)) {                                                   \
		} else

#endif /* MV_REGION_H */
