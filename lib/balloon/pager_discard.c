// SPDX-License-Identifier: BSD-2-Clause
/*
 * Content given up: by the caller, by the VMM's own system calls, or, on private memory, as
 * the kernel reports it.
 *
 * A discard takes pages from whoever holds them, also from an evictor that copies: it keeps
 * evictors out of the granules first (claims), so that none reads an alias whose page goes.
 */
#include <errno.h>
#include <string.h>

#include "host_pages.h"
#include "pager_internal.h"

/* The caller owns the page, whose content the host has let go. */
static void end_discarded(struct pager_region *pr, uint64_t page, uint32_t word)
{
	struct mv_pager *pager = pr->pager;

	if (mv_word_state(word) == MV_PAGE_STORED)
		pager->store->ops->drop(pager->store, pr->first_key + page);
	pager_count(&pager->count.discards, 1);
	pr_end(pr, page, MV_PAGE_DISCARDED, MV_WORD_UNMAPPED | MV_WORD_ACTIVE, 0);
}

/* --- as a transaction over all views --------------------------------------------------- */

/*
 * What is resident is unmapped by now; what is stored needs only the store to forget it.
 * The core ends the pages and clears UNMAPPED, of which it keeps no count.
 */
static void drop_managed(struct pager_region *pr, struct mv_batch *batch)
{
	struct mv_store *store = pr->pager->store;
	struct mv_batch resident = *batch;
	uint64_t unmapped = 0;

	mv_batch_for_each_page (batch, bit) {
		uint32_t word = mv_page_load(mv_batch_word(batch, bit));

		/* Its marker in the mapping is not ours to take away. */
		if (mv_word_state(word) == MV_PAGE_POISONED) {
			mv_batch_take(batch, bit);
			mv_batch_take(&resident, bit);
			continue;
		}
		unmapped += !!(word & MV_WORD_UNMAPPED);
		if (mv_word_state(word) == MV_PAGE_STORED)
			store->ops->drop(store, pr->first_key + batch->first_page + bit);
		mv_batch_take(mv_word_state(word) == MV_PAGE_RESIDENT ? batch : &resident, bit);
	}
	pr->backing->drop(pr, &resident);
	for (unsigned int i = 0; i < MV_BATCH_WORDS; i++)
		batch->bits[i] |= resident.bits[i];
	__atomic_fetch_sub(&pr->pager->unmapped, unmapped, __ATOMIC_RELAXED);
}

/* Under pager->lock no region is armed or retired, so what is found stays. */
static struct pager_region *managed_region(struct mv_pager *pager, const struct mv_region *region)
{
	struct pager_region *pr;

	mv_memory_read_enter(pager->memory);
	pr = pager_region_of(pager, region);
	mv_memory_read_leave(pager->memory);
	return pr;
}

static void drop_batch(void *ctx, struct mv_batch *batch)
{
	struct pager_region *pr = managed_region(ctx, batch->region);

	if (pr)
		drop_managed(pr, batch);
	else
		mv_host_pages_drop(batch);
}

/* The last granule claimed, for neighbouring ranges may share one. */
struct claimed {
	struct pager_region *pr;
	uint64_t granule;
};

/* Claim the granules of one range, or let them go. The range's regions are held. */
static void claim_range(struct mv_pager *pager, const struct mv_gpa_range *range,
			struct claimed *last, bool claim)
{
	struct mv_pages pages;

	mv_pages_first(pager->memory, range->first_gpa, range->last_gpa, &pages);
	do {
		struct pager_region *pr = managed_region(pager, pages.region);
		uint64_t first = pages.first_page / MV_GRANULE_PAGES;
		uint64_t granule = pages.last_page / MV_GRANULE_PAGES;

		if (!pr)
			continue;
		if (last->pr == pr && last->granule == first)
			first++;
		*last = (struct claimed){ .pr = pr, .granule = granule };
		if (first > granule)
			continue;
		if (claim)
			pr_claim_wait(pr, first, granule);
		else
			pr_unclaim(pr, first, granule);
	} while (mv_pages_next(&pages));
}

static void claim_ranges(struct mv_pager *pager, const struct mv_gpa_range *ranges, size_t count,
			 bool claim)
{
	struct claimed last = { .pr = NULL };

	for (size_t i = 0; i < count; i++)
		claim_range(pager, &ranges[i], &last, claim);
}

/*
 * Under a hold for DMA any page may be one that a device goes on to use where it is, whatever the
 * processor then finds there. mv_pager_hold() waits for the lock, so none is missed.
 */
static int discard_locked(struct mv_pager *pager, const struct mv_gpa_range *ranges, size_t count,
			  uint64_t *gone)
{
	int error;

	if (__atomic_load_n(&pager->holds, __ATOMIC_SEQ_CST) & MV_PAGER_HOLD_DMA)
		return count ? -EBUSY : 0;
	claim_ranges(pager, ranges, count, true);
	error = mv_memory_discard_ranges(pager->memory, ranges, count, drop_batch, pager, gone);
	claim_ranges(pager, ranges, count, false);
	pager_count(&pager->count.discards, *gone);
	return error;
}

int mv_pager_discard_ranges(struct mv_pager *pager, const struct mv_gpa_range *ranges, size_t count,
			    uint64_t *dropped)
{
	struct mv_memory *memory = pager->memory;
	uint64_t gone = 0;
	int error;

	if (!mv_gpa_ranges_valid(ranges, count))
		return -EINVAL;
	error = mv_memory_hold_ranges(memory, ranges, count);
	if (error)
		return error;
	pthread_mutex_lock(&pager->lock);
	error = discard_locked(pager, ranges, count, &gone);
	pthread_mutex_unlock(&pager->lock);
	mv_memory_release_ranges(memory, ranges, count);
	if (dropped)
		*dropped = gone;
	return error;
}

int mv_pager_discard(struct mv_pager *pager, uint64_t first_gpa, uint64_t last_gpa)
{
	const struct mv_gpa_range range = { .first_gpa = first_gpa, .last_gpa = last_gpa };

	return mv_pager_discard_ranges(pager, &range, 1, NULL);
}

/* --- around the VMM's own system call ---------------------------------------------------- */

struct around {
	struct pager_region *pr;
	uint64_t first, last; /* pages that go whole: first <= last, or none */
	bool any;
};

static void begin_pages(struct around *around)
{
	struct pager_region *pr = around->pr;
	uint64_t first = around->first / MV_GRANULE_PAGES;
	uint64_t last = around->last / MV_GRANULE_PAGES;

	pr_claim_wait(pr, first, last);
	for (uint64_t page = around->first; page <= around->last; page++)
		mv_page_begin(&pr->region->memory->platform, &pr->region->words[page]);
	/* No evictor copies a page that is busy, so the granules are free again. */
	pr_unclaim(pr, first, last);
}

static void end_pages(struct around *around, bool gone)
{
	struct pager_region *pr = around->pr;

	for (uint64_t page = around->first; page <= around->last; page++) {
		uint32_t word = mv_page_load(&pr->region->words[page]);

		if (gone && mv_word_state(word) != MV_PAGE_POISONED)
			end_discarded(pr, page, word);
		else
			pr_end(pr, page, mv_word_state(word), 0, 0);
	}
}

/*
 * A page of which only a part is discarded has to be there for the kernel to clear that
 * part. A pin keeps it there; the touch is an ordinary fault of the caller's thread.
 */
static int pin_edge(struct pager_region *pr, uint64_t page)
{
	uint64_t gpa = pr->region->first_gpa + (page << MV_PAGE_SHIFT);
	int error = mv_memory_pin(pr->region->memory, gpa, gpa);

	if (!error)
		(void)*(volatile unsigned char *)pr_hva(pr, page);
	return error;
}

static void unpin_edge(struct pager_region *pr, uint64_t page)
{
	uint64_t gpa = pr->region->first_gpa + (page << MV_PAGE_SHIFT);

	mv_memory_unpin(pr->region->memory, gpa, gpa);
}

static int call_around(struct pager_region *pr, uint64_t offset, uint64_t len,
		       int (*call)(void *ctx), void *ctx)
{
	uint64_t end = offset + len; /* within the region */
	uint64_t first = (offset + MV_PAGE_SIZE - 1) >> MV_PAGE_SHIFT;
	uint64_t past = end >> MV_PAGE_SHIFT;
	struct around around = { .pr = pr, .first = first, .last = past - 1, .any = past > first };
	bool head = offset % MV_PAGE_SIZE, tail = end % MV_PAGE_SIZE;
	uint64_t head_page = offset >> MV_PAGE_SHIFT, tail_page = past;

	if (tail && head && tail_page == head_page)
		tail = false;
	if (head && pin_edge(pr, head_page))
		return -EFAULT;
	if (tail && pin_edge(pr, tail_page)) {
		if (head)
			unpin_edge(pr, head_page);
		return -EFAULT;
	}
	if (around.any)
		begin_pages(&around);
	int result = call(ctx);
	int error = errno;

	if (around.any)
		end_pages(&around, result == 0);
	if (head)
		unpin_edge(pr, head_page);
	if (tail)
		unpin_edge(pr, tail_page);
	errno = error;
	return result;
}

int mv_pager_discard_around(struct mv_pager *pager, void *hva, uint64_t len, int (*call)(void *ctx),
			    void *ctx)
{
	struct mv_memory *memory = pager->memory;
	struct pager_region *pr;
	int result = -EFAULT;

	if (!len)
		return -EINVAL;
	pthread_mutex_lock(&pager->lock);
	mv_memory_read_enter(memory);
	pr = pager_region_at(pager, hva);
	mv_memory_read_leave(memory);
	if (pr) {
		uint64_t offset = (uint64_t)((unsigned char *)hva - pr->region->hva);
		uint64_t bytes = pr->region->pages << MV_PAGE_SHIFT;

		if (len <= bytes - offset)
			result = call_around(pr, offset, len, call, ctx);
	}
	pthread_mutex_unlock(&pager->lock);
	return result;
}

/* --- as the kernel reports it -------------------------------------------------------------- */

/*
 * One page of private memory that the VMM gives up. Its thread goes on as soon as the event
 * has been read and drops what is mapped; what is unmapped or stored is ours to drop.
 *
 * Waiting for a busy page is safe here: its owner is an evictor that seals or unmaps, or a
 * discard, and neither waits for the handler while it holds pages.
 */
static void remove_page(struct pager_region *pr, uint64_t page)
{
	uint32_t word = mv_page_begin(&pr->region->memory->platform, &pr->region->words[page]);

	if (mv_word_state(word) == MV_PAGE_POISONED) {
		pr_end(pr, page, MV_PAGE_POISONED, 0, 0);
		return;
	}
	if (word & MV_WORD_UNMAPPED)
		pr->backing->sweep(pr, page);
	end_discarded(pr, page, word);
}

void pager_removed(struct mv_pager *pager, uint64_t start, uint64_t end)
{
	while (start < end) {
		struct pager_region *pr = pager_region_at(pager, (void *)(uintptr_t)start);

		if (!pr)
			return;
		uint64_t first = (start - (uintptr_t)pr->region->hva) >> MV_PAGE_SHIFT;
		uint64_t past = (end - (uintptr_t)pr->region->hva) >> MV_PAGE_SHIFT;

		if (past > pr->region->pages)
			past = pr->region->pages;
		for (uint64_t page = first; page < past; page++)
			remove_page(pr, page);
		start = (uintptr_t)pr->region->hva + (past << MV_PAGE_SHIFT);
	}
}
