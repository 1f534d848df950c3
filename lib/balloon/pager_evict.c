// SPDX-License-Identifier: BSD-2-Clause
/*
 * The evictor threads: keep residency a little below the limit.
 *
 * Which pages go is decided by two hands that go round all granules, in the manner of the
 * two-handed clock. The unmap hand takes pages out of the VMM's mapping, where nothing is
 * lost and a touch is a cheap fault; the evict hand follows at a distance and evicts what
 * stayed untouched. A page touched in between is marked ACTIVE and passed over once, so a
 * hot page costs a fault every second round; one that was only just restored is not, so a
 * cold scan does not push the hot set out.
 *
 * How a page goes: copy to the store through the alias (anyone may take the page over
 * meanwhile) -> seal -> drop -> mark stored. Only the short time from seal to mark makes a
 * fault wait.
 */
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "pager_internal.h"
#include "uffd.h"

#define EVICT_RUN   64 /* pages sealed at once: bounds how long a fault waits */
/* Pages that a full store may refuse before faults are let past the limit: a millisecond. */
#define REFUSED_MAX 256
#define TICK_NS	    100000000

struct evictor {
	struct mv_pager *pager;
	void *scratch; /* the store's */
	void *buffer;
	uint64_t next; /* where to look for the next granule; see pager_next_to_evict() */
	/* In this shrink(): steps since anybody evicted anything, and what tells that. */
	uint64_t idle_steps, evictions;
	unsigned int turns;   /* of patience with the others */
	unsigned int refused; /* pages that the store had no room for */
};

/* For the other evictors: one more, or one less, has found something to do. */
static void working(struct mv_pager *pager, int add)
{
	__atomic_fetch_add(&pager->working, (unsigned int)add, __ATOMIC_RELAXED);
}

/* --- unmapping ------------------------------------------------------------------------- */

#define WORD_WANTED (MV_WORD_STATE | MV_WORD_UNMAPPED | MV_WORD_PINS)

static void start_batch(struct mv_batch *batch, struct pager_region *pr, uint64_t granule)
{
	memset(batch, 0, sizeof(*batch));
	batch->region = pr->region;
	batch->first_page = granule * MV_GRANULE_PAGES;
}

static unsigned int granule_pages(const struct pager_region *pr, uint64_t granule)
{
	uint64_t left = pr->region->pages - granule * MV_GRANULE_PAGES;

	return left < MV_GRANULE_PAGES ? (unsigned int)left : (unsigned int)MV_GRANULE_PAGES;
}

/* A page used since the hand last passed is let off this time. */
static bool let_off(uint32_t *page)
{
	uint32_t word = mv_page_load(page);

	while ((word & MV_WORD_ACTIVE) && !(word & MV_WORD_BUSY))
		if (mv_page_change(page, &word, word & ~MV_WORD_ACTIVE))
			return true;
	return false;
}

static void collect_mapped(struct pager_region *pr, uint64_t granule, bool spare_active,
			   struct mv_batch *batch)
{
	unsigned int count = granule_pages(pr, granule);
	uint32_t word;

	start_batch(batch, pr, granule);
	for (unsigned int bit = 0; bit < count; bit++) {
		uint32_t *page = mv_batch_word(batch, bit);

		if (spare_active && let_off(page))
			continue;
		if (mv_page_begin_if(page, WORD_WANTED, MV_PAGE_RESIDENT, 0, &word))
			mv_batch_add(batch, bit);
	}
}

/* Under the granule's claim: revoke its pages from every view. Return: pages unmapped. */
static unsigned int unmap_granule(struct pager_region *pr, uint64_t granule, bool spare_active)
{
	struct mv_batch wanted, batch;
	unsigned int unmapped = 0, refused = 0;

	collect_mapped(pr, granule, spare_active, &wanted);
	if (mv_batch_empty(&wanted))
		return 0;
	working(pr->pager, 1);
	batch = wanted;
	mv_batch_revoke(&batch);
	mv_batch_for_each_page(&wanted, bit) {
		bool gone = mv_batch_has(&batch, bit);

		pr_end(pr, wanted.first_page + bit, MV_PAGE_RESIDENT, 0,
		       gone ? MV_WORD_UNMAPPED : 0);
		unmapped += gone;
		refused += !gone;
	}
	pager_count(&pr->pager->count.unmaps, unmapped);
	pager_count(&pr->pager->count.refusals, refused);
	working(pr->pager, -1);
	return unmapped;
}

/* --- evicting -------------------------------------------------------------------------- */

/* Begin to copy up to @most pages that stayed unmapped. Return: the bit to go on from. */
static unsigned int collect_unmapped(struct pager_region *pr, unsigned int from, unsigned int most,
				     struct mv_batch *batch)
{
	unsigned int end = granule_pages(pr, batch->first_page / MV_GRANULE_PAGES);
	uint32_t word;

	for (; from < end && most; from++) {
		uint32_t *page = mv_batch_word(batch, from);

		if (mv_page_begin_if(page, WORD_WANTED, MV_PAGE_RESIDENT | MV_WORD_UNMAPPED,
				     MV_WORD_COPYING, &word)) {
			mv_batch_add(batch, from);
			most--;
		}
	}
	return from;
}

/*
 * A page whose copying another ended. Whoever took it over may still be reading the alias;
 * when the page is free and mapped, what is left there is nobody's. Where it is unmapped
 * still (it was pinned, or we gave up ourselves), the alias has its content.
 */
static void sweep_lost(struct pager_region *pr, uint64_t page)
{
	struct mv_platform *platform = &pr->region->memory->platform;
	uint32_t *word = &pr->region->words[page], now;

	for (unsigned int turns = 0;; turns++) {
		if (mv_page_begin_if(word, MV_WORD_UNMAPPED, 0, 0, &now)) {
			pr->backing->sweep(pr, page);
			pr_end(pr, page, mv_word_state(now), 0, 0);
			return;
		}
		if (!(now & MV_WORD_BUSY))
			return;
		platform->ops->relax(platform->ctx, turns);
	}
}

/* Put each page into the store; those that it does not take stay resident. */
static void copy_batch(struct evictor *evictor, struct pager_region *pr, struct mv_batch *batch)
{
	struct mv_store *store = evictor->pager->store;

	mv_batch_for_each_page(batch, bit) {
		uint64_t page = batch->first_page + bit;
		int error = store->ops->put(store, pr->first_key + page, pr_alias(pr, page),
					    evictor->scratch);
		if (!error)
			continue;
		mv_batch_take(batch, bit);
		if (error == -ENOSPC) {
			pager_count(&evictor->pager->count.store_full, 1);
			evictor->refused++;
		}
		if (mv_page_seal(mv_batch_word(batch, bit)))
			pr_end(pr, page, MV_PAGE_RESIDENT, 0, 0);
		else
			sweep_lost(pr, page);
	}
}

/* Keep the pages that are still ours; throw the copies of the others away. */
static void seal_batch(struct pager_region *pr, struct mv_batch *batch, struct mv_batch *lost)
{
	struct mv_store *store = pr->pager->store;

	*lost = *batch;
	mv_batch_for_each_page(batch, bit) {
		if (mv_page_seal(mv_batch_word(batch, bit))) {
			mv_batch_take(lost, bit);
			continue;
		}
		mv_batch_take(batch, bit);
		store->ops->drop(store, pr->first_key + batch->first_page + bit);
	}
}

/* The pages are ours and in the store: let the host's memory go. Return: pages evicted. */
static unsigned int drop_sealed(struct pager_region *pr, struct mv_batch *batch)
{
	struct mv_store *store = pr->pager->store;
	struct mv_batch sealed = *batch;
	unsigned int evicted = 0;

	pr->backing->drop(pr, batch);
	mv_batch_for_each_page(&sealed, bit) {
		uint64_t page = sealed.first_page + bit;

		if (mv_batch_has(batch, bit)) {
			pr_end(pr, page, MV_PAGE_STORED, MV_WORD_UNMAPPED | MV_WORD_ACTIVE, 0);
			evicted++;
		} else {
			store->ops->drop(store, pr->first_key + page);
			pr_end(pr, page, MV_PAGE_RESIDENT, 0, 0);
		}
	}
	return evicted;
}

static unsigned int evict_batch(struct evictor *evictor, struct pager_region *pr,
				struct mv_batch *batch)
{
	struct mv_batch lost;
	unsigned int evicted;

	working(evictor->pager, 1);
	copy_batch(evictor, pr, batch);
	seal_batch(pr, batch, &lost);
	evicted = drop_sealed(pr, batch);
	mv_batch_for_each_page(&lost, bit)
		sweep_lost(pr, lost.first_page + bit);
	pager_count(&evictor->pager->count.evictions, evicted);
	working(evictor->pager, -1);
	return evicted;
}

/* Under the granule's claim. @done: nothing unmapped is left there. Return: pages evicted. */
static unsigned int evict_granule(struct evictor *evictor, struct pager_region *pr,
				  uint64_t granule, bool *done)
{
	unsigned int count = granule_pages(pr, granule), from = 0, evicted = 0;

	while (from < count && pager_above_stop(evictor->pager) && pager_may_evict(evictor->pager)) {
		struct mv_batch batch;

		start_batch(&batch, pr, granule);
		from = collect_unmapped(pr, from, EVICT_RUN, &batch);
		if (!mv_batch_empty(&batch))
			evicted += evict_batch(evictor, pr, &batch);
	}
	*done = from == count;
	return evicted;
}

/* --- steps ------------------------------------------------------------------------------ */

/* Return: whether there was something to unmap, or the hand went on at least. */
static bool unmap_step(struct mv_pager *pager)
{
	struct mv_memory *memory = pager->memory;
	struct pager_region *pr;
	uint64_t granule;

	mv_memory_read_enter(memory);
	if (!pager_unmap_hand_leads(pager, pager_all_granules(pager))) {
		mv_memory_read_leave(memory);
		return false;
	}
	pr = pager_next_to_unmap(pager, &granule);
	mv_memory_read_leave(memory);
	if (pr) {
		unmap_granule(pr, granule, true);
		pr_unclaim(pr, granule, granule);
	}
	return true;
}

/*
 * @force: everything in the granule goes, used or not, for a VM that uses all it has faster
 * than a page can prove itself cold. Return: pages evicted.
 */
static unsigned int evict_step(struct evictor *evictor, bool force)
{
	struct mv_pager *pager = evictor->pager;
	uint64_t granule, position;
	unsigned int evicted;
	bool done;

	mv_memory_read_enter(pager->memory);
	struct pager_region *pr = pager_next_to_evict(pager, &evictor->next, &granule, &position);

	mv_memory_read_leave(pager->memory);
	if (!pr)
		return 0;
	if (force)
		unmap_granule(pr, granule, false);
	evicted = evict_granule(evictor, pr, granule, &done);
	if (done)
		pager_evict_hand_done(pager, position);
	else
		evictor->next = position;
	pr_unclaim(pr, granule, granule);
	return evicted;
}

/* One granule's work by one of the hands. Return: pages evicted. */
static unsigned int step(struct evictor *evictor, bool force)
{
	if (!force && unmap_step(evictor->pager))
		return 0;
	return evict_step(evictor, force);
}

/* --- the thread -------------------------------------------------------------------------- */

/* Resolve what waits for room, while there is some, or in any case. */
static void drain_parked(struct evictor *evictor, bool any)
{
	struct mv_pager *pager = evictor->pager;
	struct parked_fault fault;

	mv_memory_read_enter(pager->memory);
	while ((any || !pager_no_room(pager)) && parked_take(&pager->parked, &fault)) {
		if (!parked_valid(pager, &fault))
			continue;
		if (pager_resident(pager) >= pager_read(&pager->limit_pages))
			pager_count(&pager->count.over_limit, 1);
		if (pager_resolve(fault.pr, fault.page, fault.minor, evictor->buffer) == -EAGAIN) {
			/* It will be reported again. */
			mv_uffd_wake(fault.pr->uffd, pr_hva(fault.pr, fault.page), MV_PAGE_SIZE);
			break;
		}
	}
	mv_memory_read_leave(pager->memory);
}

static void clean_store(struct mv_pager *pager)
{
	if (pager->store->ops->maintain)
		while (pager->store->ops->maintain(pager->store) == 1 && pager_may_evict(pager))
			;
}

static bool is_stuck(struct mv_pager *pager)
{
	return __atomic_load_n(&pager->stuck, __ATOMIC_ACQUIRE);
}

static void set_stuck(struct mv_pager *pager, bool stuck)
{
	__atomic_store_n(&pager->stuck, stuck, __ATOMIC_RELEASE);
}

/*
 * Count the steps in which nobody evicted anything. While others are at what there is, one
 * that finds nothing waits for them: neither would it help to take what is in use, nor are
 * they stuck.
 */
static uint64_t count_idle(struct evictor *evictor, uint64_t round)
{
	struct mv_pager *pager = evictor->pager;
	const struct mv_platform *platform = &pager->memory->platform;
	uint64_t evictions = pager_read(&pager->count.evictions);

	if (evictions != evictor->evictions)
		evictor->idle_steps = evictor->turns = 0;
	else if (evictor->idle_steps < round ||
		 !__atomic_load_n(&pager->working, __ATOMIC_RELAXED))
		evictor->idle_steps++;
	else
		platform->ops->relax(platform->ctx, evictor->turns++);
	evictor->evictions = evictions;
	return evictor->idle_steps;
}

/*
 * Evict down to the stop mark. A whole round without success means that everything is in
 * use: then take what comes. A round of that in vain too, and faults may pass the limit.
 * So they may once the store has refused many pages: the odd one that it still takes is not
 * worth that every fault waits for it.
 */
static void shrink(struct evictor *evictor)
{
	struct mv_pager *pager = evictor->pager;

	evictor->refused = 0;
	evictor->idle_steps = 0;
	while (pager_above_stop(pager) && pager_may_evict(pager)) {
		uint64_t round = 2 * pager_all_granules(pager) + 2;

		if (step(evictor, evictor->idle_steps >= round))
			set_stuck(pager, false);
		if (count_idle(evictor, round) > 2 * round || evictor->refused > REFUSED_MAX) {
			set_stuck(pager, true);
			break;
		}
		drain_parked(evictor, false);
		clean_store(pager);
	}
}

static bool work_to_do(struct mv_pager *pager)
{
	return pager_above_start(pager) && pager_may_evict(pager) && !is_stuck(pager);
}

static void sleep_until_kicked(struct mv_pager *pager)
{
	const struct timespec tick = { .tv_nsec = TICK_NS };
	uint32_t seen = __atomic_load_n(&pager->work, __ATOMIC_ACQUIRE);

	__atomic_fetch_add(&pager->idle, 1, __ATOMIC_SEQ_CST);
	if (!work_to_do(pager) && !parked_any(&pager->parked) &&
	    !__atomic_load_n(&pager->stopping, __ATOMIC_ACQUIRE))
		syscall(SYS_futex, &pager->work, FUTEX_WAIT_PRIVATE, seen, &tick, NULL, 0);
	__atomic_fetch_sub(&pager->idle, 1, __ATOMIC_SEQ_CST);
	/* What was stuck may have come loose: a pin gone, room in the store. */
	set_stuck(pager, false);
}

void pager_wake_evictors(struct mv_pager *pager)
{
	/* Pairs with sleep_until_kicked(): either it sees what there is to do, or we see it. */
	if (!__atomic_load_n(&pager->idle, __ATOMIC_SEQ_CST))
		return;
	__atomic_fetch_add(&pager->work, 1, __ATOMIC_SEQ_CST);
	syscall(SYS_futex, &pager->work, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0);
}

void pager_kick_evictors(struct mv_pager *pager)
{
	if (work_to_do(pager))
		pager_wake_evictors(pager);
}

static int open_evictor(struct evictor *evictor, struct mv_pager *pager)
{
	size_t scratch = pager->store->ops->scratch_bytes;

	*evictor = (struct evictor){ .pager = pager };
	evictor->scratch = malloc(scratch ? scratch : 1);
	if (!evictor->scratch)
		return -ENOMEM;
	if (posix_memalign(&evictor->buffer, MV_PAGE_SIZE, MV_PAGE_SIZE)) {
		free(evictor->scratch);
		return -ENOMEM;
	}
	return 0;
}

int mv_pager_evict(struct mv_pager *pager)
{
	struct evictor evictor;
	int error = open_evictor(&evictor, pager);

	if (error)
		return error;
	__atomic_fetch_add(&pager->evictors, 1, __ATOMIC_SEQ_CST);
	while (!__atomic_load_n(&pager->stopping, __ATOMIC_ACQUIRE)) {
		if (work_to_do(pager))
			shrink(&evictor);
		drain_parked(&evictor, !pager_may_evict(pager) || is_stuck(pager));
		clean_store(pager);
		if (!work_to_do(pager))
			sleep_until_kicked(pager);
	}
	/* From here faults are not parked any more; those that are go first. */
	__atomic_fetch_sub(&pager->evictors, 1, __ATOMIC_SEQ_CST);
	drain_parked(&evictor, true);
	free(evictor.buffer);
	free(evictor.scratch);
	return 0;
}
