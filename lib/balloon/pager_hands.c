// SPDX-License-Identifier: BSD-2-Clause
/*
 * How many pages go, and from which granules: the marks below the limit, claims, and the two
 * hands of the clock that pager_evict.c describes.
 *
 * What is done with a granule does not belong here.
 */
#include "pager_internal.h"

#define SLACK_SHARE    64 /* residency is kept this part of the limit below it */
#define SLACK_MIN      64
#define SLACK_MAX      4096
#define UNMAPPED_SHARE 8 /* of the limit: how far the unmap hand works ahead */
#define EVICTORS_MAX   8 /* more find nothing to do */

/* --- how many -------------------------------------------------------------------------- */

static uint64_t slack(uint64_t limit)
{
	uint64_t pages = limit / SLACK_SHARE;

	return pages < SLACK_MIN ? SLACK_MIN : pages > SLACK_MAX ? SLACK_MAX : pages;
}

/* Eviction starts above limit - slack/2 and stops at limit - slack. */
bool pager_above_start(struct mv_pager *pager)
{
	uint64_t limit = pager_read(&pager->limit_pages);

	return limit != UINT64_MAX && pager_resident(pager) > limit - slack(limit) / 2;
}

bool pager_above_stop(struct mv_pager *pager)
{
	uint64_t limit = pager_read(&pager->limit_pages);

	return limit != UINT64_MAX && pager_resident(pager) > limit - slack(limit);
}

/* How many pages the unmap hand keeps ahead; evictors share granules only where it is enough. */
static uint64_t unmapped_target(struct mv_pager *pager)
{
	uint64_t limit = pager_read(&pager->limit_pages);
	uint64_t target = slack(limit) * 2 + limit / UNMAPPED_SHARE;
	uint64_t shared =
		2 * MV_GRANULE_PAGES * __atomic_load_n(&pager->evictors, __ATOMIC_RELAXED);

	if (target < shared)
		target = shared;
	return target < limit / 2 ? target : limit / 2;
}

bool pager_may_evict(struct mv_pager *pager)
{
	return !__atomic_load_n(&pager->holds, __ATOMIC_SEQ_CST) &&
	       !__atomic_load_n(&pager->stopping, __ATOMIC_ACQUIRE);
}

/* --- claims ---------------------------------------------------------------------------- */

bool pr_claim(struct pager_region *pr, uint64_t granule)
{
	return !__atomic_exchange_n(&pr->claims[granule], 1, __ATOMIC_SEQ_CST);
}

void pr_claim_wait(struct pager_region *pr, uint64_t first, uint64_t last)
{
	const struct mv_platform *platform = &pr->region->memory->platform;

	for (uint64_t granule = first; granule <= last; granule++)
		for (unsigned int turns = 0; !pr_claim(pr, granule);)
			platform->ops->relax(platform->ctx, turns++);
}

void pr_unclaim(struct pager_region *pr, uint64_t first, uint64_t last)
{
	for (uint64_t granule = first; granule <= last; granule++)
		__atomic_store_n(&pr->claims[granule], 0, __ATOMIC_RELEASE);
}

/* --- the hands -------------------------------------------------------------------------- */

uint64_t pager_all_granules(struct mv_pager *pager)
{
	uint64_t granules = 0;

	for (unsigned int i = 0; i < PAGER_REGIONS; i++) {
		struct pager_region *pr = __atomic_load_n(&pager->regions[i], __ATOMIC_ACQUIRE);

		if (pr && __atomic_load_n(&pr->armed, __ATOMIC_ACQUIRE))
			granules += pr->granules;
	}
	return granules;
}

bool pager_claim_for_eviction(struct pager_region *pr, uint64_t granule)
{
	if (!pr_claim(pr, granule))
		return false;
	if (__atomic_load_n(&pr->armed, __ATOMIC_SEQ_CST) && pager_may_evict(pr->pager))
		return true;
	pr_unclaim(pr, granule, granule);
	return false;
}

/* The granule at a hand's position, claimed; NULL where that cannot be. */
static struct pager_region *claim_at(struct mv_pager *pager, uint64_t position, uint64_t *granule)
{
	uint64_t total = pager_all_granules(pager), at = total ? position % total : 0;

	for (unsigned int i = 0; i < PAGER_REGIONS; i++) {
		struct pager_region *pr = __atomic_load_n(&pager->regions[i], __ATOMIC_ACQUIRE);

		if (!pr || !__atomic_load_n(&pr->armed, __ATOMIC_ACQUIRE))
			continue;
		if (at < pr->granules) {
			*granule = at;
			return pager_claim_for_eviction(pr, at) ? pr : NULL;
		}
		at -= pr->granules;
	}
	return NULL;
}

/* Both hands within a lap of each other, the evict hand behind. */
bool pager_unmap_hand_leads(struct mv_pager *pager, uint64_t total)
{
	int64_t ahead = (int64_t)(pager_read(&pager->unmap_hand) - pager_read(&pager->evict_hand));

	if (ahead <= 0) /* several evictors may have moved the other hand past it */
		return true;
	return (uint64_t)ahead < total && pager_read(&pager->unmapped) < unmapped_target(pager);
}

/* Move the unmap hand on, and claim the granule where it was. */
struct pager_region *pager_next_to_unmap(struct mv_pager *pager, uint64_t *granule)
{
	return claim_at(pager, __atomic_fetch_add(&pager->unmap_hand, 1, __ATOMIC_RELAXED),
			granule);
}

void pager_evict_hand_done(struct mv_pager *pager, uint64_t position)
{
	__atomic_compare_exchange_n(&pager->evict_hand, &position, position + 1, false,
				    __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

/*
 * The first that can be had, from where the evictor itself got to: nearer to the hand lie
 * granules that others are at, and empty ones that it is done with before they are.
 */
struct pager_region *pager_next_to_evict(struct mv_pager *pager, uint64_t *next, uint64_t *granule,
					 uint64_t *position)
{
	uint64_t hand = pager_read(&pager->evict_hand);
	uint64_t from = *next - hand < EVICTORS_MAX ? *next : hand;
	struct pager_region *pr = NULL;

	for (uint64_t at = from; !pr && at < hand + EVICTORS_MAX; at++) {
		pr = claim_at(pager, at, granule);
		*position = at;
		*next = at + 1;
	}
	if (pr)
		return pr;
	*next = hand;
	if (from == hand)
		pager_evict_hand_done(pager, hand);
	return NULL;
}
