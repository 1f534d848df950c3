/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much of what is resident is used: a random sample of resident pages is unmapped, in which
 * nothing is lost, and after a while it is seen which of them were touched (Waldspurger, OSDI
 * 2002, 5.3). A page that is unmapped anyway is watched as it is.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "mix.h"
#include "pager_internal.h"

#define SAMPLE_MIN 16
#define SAMPLE_MAX 65536

/* Most pages may be stored or absent: so many looks for each page of the sample. */
#define LOOKS 64

/** struct sampled_page - one of the sample; by address, for its region may go meanwhile */
struct sampled_page {
	uint64_t gpa;
	bool pinned;
};

struct mv_pager_sample {
	struct mv_pager *pager;
	uint64_t random;
	unsigned int count;
	struct sampled_page pages[];
};

static uint64_t next_random(struct mv_pager_sample *sample)
{
	sample->random += MIX_STEP;
	return mix(sample->random);
}

/* --- which regions there are; inside a read section --------------------------------------- */

static struct pager_region *armed_region(struct mv_pager *pager, unsigned int slot)
{
	struct pager_region *pr = __atomic_load_n(&pager->regions[slot], __ATOMIC_ACQUIRE);

	return pr && __atomic_load_n(&pr->armed, __ATOMIC_ACQUIRE) ? pr : NULL;
}

static uint64_t armed_pages(struct mv_pager *pager)
{
	uint64_t pages = 0;

	for (unsigned int i = 0; i < PAGER_REGIONS; i++) {
		struct pager_region *pr = armed_region(pager, i);

		pages += pr ? pr->region->pages : 0;
	}
	return pages;
}

/* The @page'th of all; NULL where regions have gone meanwhile. @page: set to that of the region. */
static struct pager_region *region_of_nth(struct mv_pager *pager, uint64_t *page)
{
	for (unsigned int i = 0; i < PAGER_REGIONS; i++) {
		struct pager_region *pr = armed_region(pager, i);

		if (!pr)
			continue;
		if (*page < pr->region->pages)
			return pr;
		*page -= pr->region->pages;
	}
	return NULL;
}

static struct pager_region *region_of_gpa(struct mv_pager *pager, uint64_t gpa)
{
	for (unsigned int i = 0; i < PAGER_REGIONS; i++) {
		struct pager_region *pr = armed_region(pager, i);

		if (pr && gpa >= pr->region->first_gpa &&
		    (gpa - pr->region->first_gpa) >> MV_PAGE_SHIFT < pr->region->pages)
			return pr;
	}
	return NULL;
}

/* --- beginning ---------------------------------------------------------------------------- */

/* Under the granule's claim. Return: whether it is unmapped now. */
static bool unmap(struct pager_region *pr, uint64_t page)
{
	struct mv_batch batch = { .region = pr->region,
				  .first_page = page / MV_GRANULE_PAGES * MV_GRANULE_PAGES };
	unsigned int bit = (unsigned int)(page % MV_GRANULE_PAGES);
	uint32_t word;
	bool gone;

	if (!mv_page_begin_if(&pr->region->words[page],
			      MV_WORD_STATE | MV_WORD_UNMAPPED | MV_WORD_PINS, MV_PAGE_RESIDENT, 0,
			      &word))
		return false;
	mv_batch_add(&batch, bit);
	mv_batch_revoke(&batch);
	gone = mv_batch_has(&batch, bit);
	pr_end(pr, page, MV_PAGE_RESIDENT, 0, gone ? MV_WORD_UNMAPPED : 0);
	pager_count(&pr->pager->count.unmaps, gone);
	return gone;
}

static void add(struct mv_pager_sample *sample, const struct pager_region *pr, uint64_t page,
		bool pinned)
{
	sample->pages[sample->count++] =
		(struct sampled_page){ .gpa = pr->region->first_gpa + (page << MV_PAGE_SHIFT),
				       .pinned = pinned };
}

/* Under the granule's claim: a page that is resident, in whatever way, is one of the sample. */
static void watch(struct mv_pager_sample *sample, struct pager_region *pr, uint64_t page)
{
	uint32_t word = mv_page_load(&pr->region->words[page]);

	if (mv_word_state(word) != MV_PAGE_RESIDENT)
		return;
	if (word & MV_WORD_PINS)
		add(sample, pr, page, true);
	else if ((word & MV_WORD_UNMAPPED) || unmap(pr, page))
		add(sample, pr, page, false);
}

static void look(struct mv_pager_sample *sample)
{
	struct mv_pager *pager = sample->pager;
	struct pager_region *pr = NULL;
	uint64_t total, page, granule;

	mv_memory_read_enter(pager->memory);
	total = armed_pages(pager);
	page = total ? next_random(sample) % total : 0;
	if (total)
		pr = region_of_nth(pager, &page);
	granule = page / MV_GRANULE_PAGES;
	if (pr && !pager_claim_for_eviction(pr, granule))
		pr = NULL;
	mv_memory_read_leave(pager->memory);
	if (!pr)
		return;
	watch(sample, pr, page);
	pr_unclaim(pr, granule, granule);
}

int mv_pager_sample_begin(struct mv_pager *pager, unsigned int pages, uint64_t seed,
			  struct mv_pager_sample **sample)
{
	struct mv_pager_sample *made;

	if (pages < SAMPLE_MIN || pages > SAMPLE_MAX)
		return -EINVAL;
	if (!pager_may_evict(pager))
		return -EBUSY;
	made = malloc(sizeof(*made) + pages * sizeof(made->pages[0]));
	if (!made)
		return -ENOMEM;
	made->pager = pager;
	made->random = seed;
	made->count = 0;
	for (uint64_t i = 0; i < (uint64_t)pages * LOOKS && made->count < pages; i++)
		look(made);
	if (made->count == 0) {
		free(made);
		return -ENODATA;
	}
	*sample = made;
	return 0;
}

/* --- the end ------------------------------------------------------------------------------ */

/* A fault wakes its thread a moment before the page's word says so: wait until nobody is at it. */
static uint32_t settled_word(struct pager_region *pr, uint64_t page)
{
	struct mv_platform *platform = &pr->region->memory->platform;

	for (unsigned int turns = 0;; turns++) {
		uint32_t word = mv_page_load(&pr->region->words[page]);

		if (!(word & MV_WORD_BUSY))
			return word;
		platform->ops->relax(platform->ctx, turns);
	}
}

/* What has been given up meanwhile says nothing, what has been evicted was not touched. */
static void count_page(struct mv_pager *pager, const struct sampled_page *page,
		       struct mv_pager_touches *touches)
{
	struct pager_region *pr = region_of_gpa(pager, page->gpa);
	uint32_t word;

	if (!pr)
		return;
	word = settled_word(pr, (page->gpa - pr->region->first_gpa) >> MV_PAGE_SHIFT);
	if (mv_word_state(word) != MV_PAGE_RESIDENT && mv_word_state(word) != MV_PAGE_STORED)
		return;
	touches->sampled++;
	if (page->pinned || (mv_word_state(word) == MV_PAGE_RESIDENT && !(word & MV_WORD_UNMAPPED)))
		touches->touched++;
}

void mv_pager_sample_end(struct mv_pager_sample *sample, struct mv_pager_touches *touches)
{
	struct mv_pager *pager;

	*touches = (struct mv_pager_touches){ 0 };
	if (!sample)
		return;
	pager = sample->pager;
	mv_memory_read_enter(pager->memory);
	for (unsigned int i = 0; i < sample->count; i++)
		count_page(pager, &sample->pages[i], touches);
	mv_memory_read_leave(pager->memory);
	if (touches->sampled)
		touches->active_bytes = (pager_resident(pager) << MV_PAGE_SHIFT) *
					touches->touched / touches->sampled;
	free(sample);
}
