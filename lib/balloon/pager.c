// SPDX-License-Identifier: BSD-2-Clause
/*
 * The pager as an object: what it manages, its limit, reasons not to evict, numbers.
 *
 * Faults, eviction and discards are in files of their own; see pager_internal.h.
 */
#include <errno.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "pager_internal.h"
#include "uffd.h"

#define PAGER_LIMIT_MIN (1UL << 20)

/* --- the features of the kernel ------------------------------------------------------- */

int mv_pager_probe(unsigned int *features)
{
	uint64_t kernel;
	unsigned int found = 0;
	int error = mv_uffd_features(&kernel);

	if (error)
		return error;
	if ((kernel & UFFD_FEATURE_MISSING_SHMEM) && (kernel & UFFD_FEATURE_MINOR_SHMEM))
		found |= MV_PAGER_SHMEM;
	if (kernel & MV_UFFD_FEATURE_MOVE)
		found |= MV_PAGER_MOVE;
	if (kernel & MV_UFFD_FEATURE_POISON)
		found |= MV_PAGER_POISON;
	*features = found;
	return 0;
}

/* Which operations manage a region, or -EOPNOTSUPP. */
static int choose_backing(const struct mv_pager *pager, const struct mv_region *region,
			  const struct backing_ops **backing)
{
	struct statfs fs;

	if (region->fd < 0) {
		*backing = &mv_backing_private;
		return pager->features & MV_PAGER_MOVE ? 0 : -EOPNOTSUPP;
	}
	if (fstatfs(region->fd, &fs))
		return -errno;
	*backing = &mv_backing_shared;
	return fs.f_type == TMPFS_MAGIC && (pager->features & MV_PAGER_SHMEM) ? 0 : -EOPNOTSUPP;
}

/* --- life and death ------------------------------------------------------------------- */

static struct mv_pager *new_pager(const struct mv_pager_config *config)
{
	struct mv_pager *pager = calloc(1, sizeof(*pager));

	if (!pager)
		return NULL;
	pager->memory = config->memory;
	pager->store = config->store;
	pager->store_keys = config->store_keys;
	pager->limit_pages = config->limit_bytes == MV_PAGER_UNLIMITED
				     ? UINT64_MAX
				     : config->limit_bytes >> MV_PAGE_SHIFT;
	pager->shared_uffd = pager->private_uffd = pager->staging_uffd = -1;
	pager->view.ops = &pager_view_ops;
	pager->view.rank = MV_VIEW_RANK_PROCESS;
	for (uint64_t i = 0; i < PAGER_PARKED; i++)
		pager->parked.slots[i].turn = i;
	pthread_mutex_init(&pager->lock, NULL);
	return pager;
}

static void free_pager(struct mv_pager *pager)
{
	if (pager->doorbell >= 0)
		close(pager->doorbell);
	pthread_mutex_destroy(&pager->lock);
	free(pager);
}

int mv_pager_create(const struct mv_pager_config *config, struct mv_pager **out)
{
	unsigned int features;

	if (config->size != sizeof(*config) || !config->memory || !config->store ||
	    config->limit_bytes < PAGER_LIMIT_MIN)
		return -EINVAL;
	int error = mv_pager_probe(&features);

	if (error)
		return error;
	struct mv_pager *pager = new_pager(config);

	if (!pager)
		return -ENOMEM;
	pager->features = features & ~config->feature_mask;
	pager->doorbell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	error = pager->doorbell < 0 ? -errno : mv_memory_attach_view(pager->memory, &pager->view);
	if (error) {
		free_pager(pager);
		return error;
	}
	*out = pager;
	return 0;
}

void mv_pager_destroy(struct mv_pager *pager)
{
	if (!pager)
		return;
	mv_memory_detach_view(pager->memory, &pager->view);
	if (pager->shared_uffd >= 0)
		close(pager->shared_uffd);
	if (pager->private_uffd >= 0)
		close(pager->private_uffd);
	if (pager->staging_uffd >= 0)
		close(pager->staging_uffd);
	free_pager(pager);
}

/* --- regions -------------------------------------------------------------------------- */

static struct pager_region *slot_load(struct mv_pager *pager, unsigned int slot)
{
	return __atomic_load_n(&pager->regions[slot], __ATOMIC_ACQUIRE);
}

struct pager_region *pager_region_of(struct mv_pager *pager, const struct mv_region *region)
{
	for (unsigned int i = 0; i < PAGER_REGIONS; i++) {
		struct pager_region *pr = slot_load(pager, i);

		if (pr && pr->region == region && __atomic_load_n(&pr->armed, __ATOMIC_ACQUIRE))
			return pr;
	}
	return NULL;
}

struct pager_region *pager_region_at(struct mv_pager *pager, const void *hva)
{
	struct mv_region *region = mv_region_by_hva(pager->memory, hva);

	return region ? pager_region_of(pager, region) : NULL;
}

/* Under pager->lock: the slot of the region that begins at an address, or -1. */
static int find_slot(struct mv_pager *pager, uint64_t first_gpa)
{
	for (int i = 0; i < PAGER_REGIONS; i++)
		if (pager->regions[i] && pager->regions[i]->region->first_gpa == first_gpa)
			return i;
	return -1;
}

static int free_slot(struct mv_pager *pager)
{
	for (int i = 0; i < PAGER_REGIONS; i++)
		if (!pager->regions[i])
			return i;
	return -1;
}

/* Under pager->lock: the lowest run of keys that no region uses. */
static int find_keys(struct mv_pager *pager, uint64_t pages, uint64_t *first)
{
	uint64_t key = 0;

	for (int i = 0; i < PAGER_REGIONS;) {
		struct pager_region *pr = pager->regions[i];

		if (pr && key < pr->first_key + pr->region->pages && pr->first_key < key + pages) {
			key = pr->first_key + pr->region->pages;
			i = 0;
			continue;
		}
		i++;
	}
	if (pages > pager->store_keys || key > pager->store_keys - pages)
		return -ENOSPC;
	*first = key;
	return 0;
}

static struct mv_region *hold_region(struct mv_memory *memory, uint64_t first_gpa)
{
	struct mv_region *region = mv_region_get(memory, first_gpa);

	if (region && region->first_gpa != first_gpa) {
		mv_region_release(region);
		region = NULL;
	}
	return region;
}

static void free_region(struct pager_region *pr)
{
	mv_region_release(pr->region);
	free(pr->claims);
	free(pr);
}

/* Takes the caller's hold on @region over, on failure too. */
static int new_region(struct mv_pager *pager, struct mv_region *region, struct pager_region **out)
{
	struct pager_region *pr = calloc(1, sizeof(*pr));

	if (!pr) {
		mv_region_release(region);
		return -ENOMEM;
	}
	pr->pager = pager;
	pr->region = region;
	pr->granules = (region->pages + MV_GRANULE_PAGES - 1) / MV_GRANULE_PAGES;
	pr->claims = calloc(pr->granules, 1);
	int error = pr->claims ? choose_backing(pager, region, &pr->backing) : -ENOMEM;

	if (!error)
		error = find_keys(pager, region->pages, &pr->first_key);
	if (error) {
		free_region(pr);
		return error;
	}
	*out = pr;
	return 0;
}

/* A page found present when its region was registered; later ones come through faults. */
static void mark_resident(struct pager_region *pr, uint64_t page)
{
	uint32_t word;

	if (mv_page_begin_if(&pr->region->words[page], MV_WORD_STATE, MV_PAGE_ABSENT, 0, &word))
		pr_end(pr, page, MV_PAGE_RESIDENT, 0, 0);
}

static void ring_doorbell(struct mv_pager *pager)
{
	uint64_t one = 1;

	/* Full means that it rings already. */
	if (write(pager->doorbell, &one, sizeof(one)) < 0)
		return;
}

static void lock_records(struct mv_pager *pager, struct pager_region *pr)
{
	if (mlock(pr->region->words, pr->region->pages * sizeof(uint32_t)))
		__atomic_store_n(&pager->unlocked, true, __ATOMIC_RELAXED);
}

static int retire(struct pager_region *pr);

/*
 * Register a region. Pages that come from now on come through the handler, so what is
 * found present afterwards was so before, and none is missed.
 */
static int arm(struct pager_region *pr)
{
	int error = pr->backing->open(pr);

	if (error)
		return error;
	lock_records(pr->pager, pr);
	__atomic_store_n(&pr->armed, true, __ATOMIC_RELEASE);
	ring_doorbell(pr->pager);
	error = pr->backing->scan(pr, mark_resident);
	if (error)
		retire(pr);
	else
		pager_kick_evictors(pr->pager);
	return error;
}

/* All pages are where the kernel finds them. The ledger forgets what it knew. */
static void disarm(struct pager_region *pr)
{
	struct mv_memory *memory = pr->region->memory;

	__atomic_store_n(&pr->armed, false, __ATOMIC_RELEASE);
	memory->platform.ops->wait_readers(memory->platform.ctx);
	for (uint64_t page = 0; page < pr->region->pages; page++) {
		uint32_t word = mv_page_begin(&memory->platform, &pr->region->words[page]);

		if (mv_word_state(word) == MV_PAGE_POISONED)
			pr_end(pr, page, MV_PAGE_POISONED, 0, 0);
		else
			pr_end(pr, page, MV_PAGE_ABSENT, MV_WORD_UNMAPPED | MV_WORD_ACTIVE, 0);
	}
	pr->backing->close(pr);
}

/* Bring back all that is not mapped. Evictors leave the region alone meanwhile. */
static int bring_all_back(struct pager_region *pr)
{
	void *buffer;
	int result = 0;

	if (posix_memalign(&buffer, MV_PAGE_SIZE, MV_PAGE_SIZE))
		return -ENOMEM;
	for (uint64_t page = 0; page < pr->region->pages; page++) {
		int error = pager_bring_back(pr, page, buffer);

		if (error == -EIO)
			result = -EIO;
		if (error && error != -EIO) {
			result = error;
			break;
		}
	}
	free(buffer);
	return result;
}

static int retire(struct pager_region *pr)
{
	pr_claim_wait(pr, 0, pr->granules - 1);
	int error = bring_all_back(pr);

	if (!error || error == -EIO)
		disarm(pr);
	pr_unclaim(pr, 0, pr->granules - 1);
	return error;
}

int mv_pager_attach(struct mv_pager *pager, uint64_t first_gpa)
{
	struct pager_region *pr = NULL;
	struct mv_region *region = hold_region(pager->memory, first_gpa);
	int slot, error;

	if (!region)
		return -ENOENT;
	pthread_mutex_lock(&pager->lock);
	slot = free_slot(pager);
	error = find_slot(pager, first_gpa) >= 0 ? -EEXIST : slot < 0 ? -ENOSPC : 0;
	if (error)
		mv_region_release(region);
	else
		error = new_region(pager, region, &pr);
	if (!error) {
		__atomic_store_n(&pager->regions[slot], pr, __ATOMIC_RELEASE);
		if (pager->limit_pages != UINT64_MAX)
			error = arm(pr);
		if (error) {
			__atomic_store_n(&pager->regions[slot], NULL, __ATOMIC_RELEASE);
			pager->memory->platform.ops->wait_readers(pager->memory->platform.ctx);
			free_region(pr);
		}
	}
	pthread_mutex_unlock(&pager->lock);
	return error;
}

/* Under pager->lock. */
static void remove_slot(struct mv_pager *pager, int slot)
{
	struct pager_region *pr = pager->regions[slot];

	__atomic_store_n(&pager->regions[slot], NULL, __ATOMIC_RELEASE);
	pager->memory->platform.ops->wait_readers(pager->memory->platform.ctx);
	free_region(pr);
}

int mv_pager_detach(struct mv_pager *pager, uint64_t first_gpa)
{
	int error = -ENOENT;

	pthread_mutex_lock(&pager->lock);
	int slot = find_slot(pager, first_gpa);

	if (slot >= 0) {
		error = pager->regions[slot]->armed ? retire(pager->regions[slot]) : 0;
		if (!error || error == -EIO)
			remove_slot(pager, slot);
	}
	pthread_mutex_unlock(&pager->lock);
	return error;
}

static void drop_all(struct pager_region *pr)
{
	struct mv_store *store = pr->pager->store;

	for (uint64_t page = 0; page < pr->region->pages; page++) {
		uint32_t word = mv_page_begin(&pr->region->memory->platform,
					      &pr->region->words[page]);

		if (mv_word_state(word) == MV_PAGE_STORED)
			store->ops->drop(store, pr->first_key + page);
		pr_end(pr, page, MV_PAGE_ABSENT, MV_WORD_UNMAPPED | MV_WORD_ACTIVE, 0);
	}
}

int mv_pager_forget(struct mv_pager *pager, uint64_t first_gpa)
{
	pthread_mutex_lock(&pager->lock);
	int slot = find_slot(pager, first_gpa);

	if (slot >= 0) {
		struct pager_region *pr = pager->regions[slot];

		if (pr->armed) {
			pr_claim_wait(pr, 0, pr->granules - 1);
			drop_all(pr);
			disarm(pr);
			pr_unclaim(pr, 0, pr->granules - 1);
		}
		remove_slot(pager, slot);
	}
	pthread_mutex_unlock(&pager->lock);
	return slot >= 0 ? 0 : -ENOENT;
}

/* --- limit, holds, statistics --------------------------------------------------------- */

/* Under pager->lock: register all that is not, or let all go. */
static int switch_all(struct mv_pager *pager, bool on)
{
	int result = 0;

	for (int i = 0; i < PAGER_REGIONS; i++) {
		struct pager_region *pr = pager->regions[i];
		int error = 0;

		if (pr && pr->armed != on)
			error = on ? arm(pr) : retire(pr);
		if (error)
			result = error;
	}
	return result;
}

int mv_pager_set_limit(struct mv_pager *pager, uint64_t limit_bytes)
{
	bool unlimited = limit_bytes == MV_PAGER_UNLIMITED;
	int error;

	if (limit_bytes < PAGER_LIMIT_MIN)
		return -EINVAL;
	pthread_mutex_lock(&pager->lock);
	__atomic_store_n(&pager->limit_pages,
			 unlimited ? UINT64_MAX : limit_bytes >> MV_PAGE_SHIFT, __ATOMIC_RELAXED);
	__atomic_store_n(&pager->stuck, false, __ATOMIC_RELAXED);
	error = switch_all(pager, !unlimited);
	pthread_mutex_unlock(&pager->lock);
	pager_kick_evictors(pager);
	return error;
}

/* Evictors look at the holds once they have claimed a granule. */
static void wait_for_evictors(struct pager_region *pr)
{
	for (uint64_t granule = 0; granule < pr->granules; granule++) {
		pr_claim_wait(pr, granule, granule);
		pr_unclaim(pr, granule, granule);
	}
}

void mv_pager_hold(struct mv_pager *pager, unsigned int reason)
{
	__atomic_fetch_or(&pager->holds, reason, __ATOMIC_SEQ_CST);
	pthread_mutex_lock(&pager->lock);
	for (int i = 0; i < PAGER_REGIONS; i++)
		if (pager->regions[i])
			wait_for_evictors(pager->regions[i]);
	pthread_mutex_unlock(&pager->lock);
	pager_wake_evictors(pager);
}

void mv_pager_unhold(struct mv_pager *pager, unsigned int reason)
{
	__atomic_fetch_and(&pager->holds, ~reason, __ATOMIC_SEQ_CST);
	pager_wake_evictors(pager);
}

void mv_pager_stop(struct mv_pager *pager)
{
	__atomic_store_n(&pager->stopping, true, __ATOMIC_RELEASE);
	ring_doorbell(pager);
	pager_wake_evictors(pager);
}

static void add_region_sizes(struct mv_pager *pager, struct mv_pager_stats *stats)
{
	mv_memory_read_enter(pager->memory);
	for (unsigned int i = 0; i < PAGER_REGIONS; i++) {
		struct pager_region *pr = slot_load(pager, i);

		if (!pr || !__atomic_load_n(&pr->armed, __ATOMIC_ACQUIRE))
			continue;
		stats->managed_bytes += pr->region->pages << MV_PAGE_SHIFT;
		stats->overhead_bytes += pr->region->pages * sizeof(uint32_t) + pr->granules +
					 sizeof(*pr);
	}
	mv_memory_read_leave(pager->memory);
}

void mv_pager_get_stats(struct mv_pager *pager, struct mv_pager_stats *stats)
{
	const struct pager_counters *count = &pager->count;
	uint64_t limit = pager_read(&pager->limit_pages);

	*stats = (struct mv_pager_stats){
		.limit_bytes = limit == UINT64_MAX ? MV_PAGER_UNLIMITED : limit << MV_PAGE_SHIFT,
		.resident_bytes = pager_resident(pager) << MV_PAGE_SHIFT,
		.overhead_bytes = sizeof(*pager),
		.holds = __atomic_load_n(&pager->holds, __ATOMIC_RELAXED),
		.memory_locked = __atomic_load_n(&pager->handlers, __ATOMIC_RELAXED) &&
				 !__atomic_load_n(&pager->unlocked, __ATOMIC_RELAXED),
		.faults = pager_read(&count->faults),
		.zero_fills = pager_read(&count->zero_fills),
		.touches = pager_read(&count->touches),
		.restores = pager_read(&count->restores),
		.restore_ns = pager_read(&count->restore_ns),
		.cancels = pager_read(&count->cancels),
		.waits = pager_read(&count->waits),
		.over_limit = pager_read(&count->over_limit),
		.evictions = pager_read(&count->evictions),
		.unmaps = pager_read(&count->unmaps),
		.discards = pager_read(&count->discards),
		.refusals = pager_read(&count->refusals),
		.store_full = pager_read(&count->store_full),
		.poisoned = pager_read(&count->poisoned),
	};
	add_region_sizes(pager, stats);
}
