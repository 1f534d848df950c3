/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Regions as the library sees them: what memory.c publishes and everyone else reads.
 *
 * A reader takes the set inside a read section and finds a region by guest address, by
 * host address, or holds one it took with mv_region_hold(). Sets are never changed: a
 * writer publishes a new one and frees the old after the readers have left.
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
	uint32_t *revokes; /* revoke sequence, one a granule; odd while a revoke runs */
	unsigned int holds;
};

/** struct mv_region_set - what is published: regions by guest and by host address */
struct mv_region_set {
	unsigned int count;
	struct mv_region **by_gpa;
	struct mv_region **by_hva;
};

struct mv_memory {
	struct mv_platform platform; /* constant */

	unsigned int lock;	 /* serialises writers: regions, views */
	struct mv_view *views;	 /* under lock; read inside read sections */
	struct mv_region_set *set; /* RCU: replaced under lock, read inside read sections */

	uint64_t states[MV_PAGE_STATES]; /* atomic: pages by state */
	uint64_t pinned;		 /* atomic: pages with a pin */
};

/* The set of this moment. Context: inside a read section. */
static inline const struct mv_region_set *mv_memory_regions(struct mv_memory *memory)
{
	/* Acquire pairs with the release in memory.c's publish(). */
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

/* The region that holds an address, or NULL. Context: inside a read section. */
struct mv_region *mv_region_by_gpa(struct mv_memory *memory, uint64_t gpa);
struct mv_region *mv_region_by_hva(struct mv_memory *memory, const void *hva);

/* Keep a region from being removed; taken inside the read section that found it. */
void mv_region_hold(struct mv_region *region);
void mv_region_release(struct mv_region *region);

/* Move a page that the caller owns (busy) to a state, in the counts too; then end it. */
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

/* Revoke in every view. Pages that a view refuses are taken out of the batch. */
void mv_batch_revoke(struct mv_batch *batch);

/* Let every view reach the pages again. Return: 0, or the first view's refusal. */
int mv_batch_grant(const struct mv_batch *batch);

/*
 * A grant's side of the granule's revoke sequence: sample, resolve, install, and do it again
 * where mv_granule_changed() says that a revoke came between.
 */
uint32_t mv_granule_sample(const struct mv_region *region, uint64_t page);
bool mv_granule_changed(const struct mv_region *region, uint64_t page, uint32_t sample);

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
