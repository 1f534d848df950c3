// SPDX-License-Identifier: BSD-2-Clause
/*
 * Pages into the balloon and out of it: VIRTIO 1.2, 5.5.6.1 and 5.5.6.2.
 *
 * The guest names pages of 4 KiB, in any order. They are collected, sorted and let go as ranges;
 * of a larger host page only when all of it is given.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "balloon_internal.h"
#include "host_pages.h"

#define PFNS_AT_ONCE 256

static bool is_given(const struct mv_balloon *balloon, uint64_t pfn)
{
	return balloon->given[pfn / 64] >> (pfn % 64) & 1;
}

static void flip_given(struct mv_balloon *balloon, uint64_t pfn)
{
	balloon->given[pfn / 64] ^= 1ULL << (pfn % 64);
}

/* --- letting go ---------------------------------------------------------------------------- */

static void drop_unmanaged(void *ctx, struct mv_batch *batch)
{
	mv_host_pages_drop(batch);
}

static int discard(struct mv_balloon *balloon, const struct mv_gpa_range *ranges, size_t count,
		   uint64_t *dropped)
{
	*dropped = 0;
	if (balloon->pager)
		return mv_pager_discard_ranges(balloon->pager, ranges, count, dropped);
	return mv_memory_discard_ranges(balloon->memory, ranges, count, drop_unmanaged, NULL,
					dropped);
}

uint64_t mv_balloon_drop(struct mv_balloon *balloon, const struct mv_gpa_range *ranges,
			 size_t count)
{
	uint64_t dropped, wanted = 0, all = 0;

	if (!count)
		return 0;
	for (size_t i = 0; i < count; i++)
		wanted += (ranges[i].last_gpa - ranges[i].first_gpa + 1) >> MV_PAGE_SHIFT;
	if (discard(balloon, ranges, count, &all) == -EFAULT) {
		/* A region has gone since the guest named its pages: the others still count. */
		for (size_t i = 0; i < count; i++) {
			discard(balloon, &ranges[i], 1, &dropped);
			all += dropped;
		}
	}
	balloon->count.refused += wanted - all;
	return all;
}

/**
 * struct sweep - what is collected, on its way into ranges
 * @first_gpa, @last_gpa: of the region at hand; empty at first
 * @host_page:            bytes of a host page there
 * @host_offset:          what aligns a guest address there to host pages, when added
 * @count:                ranges so far
 */
struct sweep {
	uint64_t first_gpa, last_gpa;
	uint64_t host_page;
	uint64_t host_offset;
	size_t count;
};

static bool sweep_region(struct mv_balloon *balloon, struct sweep *sweep, uint64_t gpa)
{
	struct mv_region *region;

	if (sweep->host_page && gpa >= sweep->first_gpa && gpa <= sweep->last_gpa)
		return true;
	region = mv_region_get(balloon->memory, gpa);
	if (!region)
		return false;
	sweep->first_gpa = region->first_gpa;
	sweep->last_gpa = region->last_gpa;
	sweep->host_page = mv_host_page_bytes(region);
	sweep->host_offset = region->fd_offset - region->first_gpa;
	mv_region_release(region);
	return true;
}

static bool all_given(const struct mv_balloon *balloon, uint64_t first_pfn, uint64_t past_pfn)
{
	for (uint64_t pfn = first_pfn; pfn < past_pfn; pfn++)
		if (!is_given(balloon, pfn))
			return false;
	return true;
}

/* The host page around a page, into the ranges, where all of it is given and not there yet. */
static void sweep_page(struct mv_balloon *balloon, struct sweep *sweep, uint64_t gpa)
{
	struct mv_gpa_range *last = sweep->count ? &balloon->ranges[sweep->count - 1] : NULL;
	uint64_t first, past;

	if (last && gpa <= last->last_gpa)
		return;
	if (!sweep_region(balloon, sweep, gpa))
		return;
	first = gpa - ((gpa + sweep->host_offset) & (sweep->host_page - 1));
	past = first + sweep->host_page;
	if (first < sweep->first_gpa || past - 1 > sweep->last_gpa ||
	    !all_given(balloon, first >> MV_PAGE_SHIFT, past >> MV_PAGE_SHIFT))
		return;
	if (last && first == last->last_gpa + 1)
		last->last_gpa = past - 1;
	else
		balloon->ranges[sweep->count++] = (struct mv_gpa_range){ first, past - 1 };
}

static void forget_collected(struct mv_balloon *balloon)
{
	balloon->collected_count = 0;
	balloon->collected_mixed = false;
}

static int by_number(const void *a, const void *b)
{
	uint32_t left = *(const uint32_t *)a, right = *(const uint32_t *)b;

	return (left > right) - (left < right);
}

void mv_balloon_settle_locked(struct mv_balloon *balloon)
{
	struct sweep sweep = { .count = 0 };

	if (!balloon->collected_count)
		return;
	/* Guests often give what lies in a row. */
	if (balloon->collected_mixed)
		qsort(balloon->collected, balloon->collected_count, sizeof(*balloon->collected),
		      by_number);
	for (size_t i = 0; i < balloon->collected_count; i++)
		sweep_page(balloon, &sweep, (uint64_t)balloon->collected[i] << MV_PAGE_SHIFT);
	forget_collected(balloon);
	balloon->count.dropped += mv_balloon_drop(balloon, balloon->ranges, sweep.count);
}

void mv_balloon_settle(struct mv_balloon *balloon)
{
	pthread_mutex_lock(&balloon->lock);
	mv_balloon_settle_locked(balloon);
	pthread_mutex_unlock(&balloon->lock);
}

/* --- what the guest names ------------------------------------------------------------------ */

static void collect(struct mv_balloon *balloon, uint32_t pfn)
{
	if (balloon->collected_count == BALLOON_COLLECT_MAX)
		mv_balloon_settle_locked(balloon);
	if (balloon->collected_count && pfn < balloon->collected[balloon->collected_count - 1])
		balloon->collected_mixed = true;
	balloon->collected[balloon->collected_count++] = pfn;
}

static void give(struct mv_balloon *balloon, uint32_t pfn)
{
	enum mv_page_state state;

	if (mv_memory_page_state(balloon->memory, (uint64_t)pfn << MV_PAGE_SHIFT, &state)) {
		balloon->count.ignored++;
		return;
	}
	if (is_given(balloon, pfn))
		return;
	flip_given(balloon, pfn);
	balloon->given_pages++;
	if (pfn >= balloon->given_past)
		balloon->given_past = (uint64_t)pfn + 1;
	collect(balloon, pfn);
}

static void tell_returned(struct mv_balloon *balloon, uint64_t first_pfn, uint64_t past_pfn)
{
	if (past_pfn > first_pfn && balloon->ops->returned)
		balloon->ops->returned(balloon->ctx, first_pfn << MV_PAGE_SHIFT,
				       (past_pfn << MV_PAGE_SHIFT) - 1);
}

static void give_all(struct mv_balloon *balloon, const uint32_t *pfns, size_t count)
{
	for (size_t i = 0; i < count; i++)
		give(balloon, pfns[i]);
}

/* Neighbours are told of together. */
static void take_back_all(struct mv_balloon *balloon, const uint32_t *pfns, size_t count)
{
	uint64_t first = 0, past = 0;

	for (size_t i = 0; i < count; i++) {
		if (!is_given(balloon, pfns[i])) {
			balloon->count.ignored++;
			continue;
		}
		flip_given(balloon, pfns[i]);
		balloon->given_pages--;
		if (pfns[i] != past) {
			tell_returned(balloon, first, past);
			first = pfns[i];
		}
		past = (uint64_t)pfns[i] + 1;
	}
	tell_returned(balloon, first, past);
}

void mv_balloon_return_all(struct mv_balloon *balloon)
{
	uint64_t first = 0, past = 0;

	for (uint64_t word = 0; word * 64 < balloon->given_past; word++) {
		for (uint64_t bits = balloon->given[word]; bits; bits &= bits - 1) {
			uint64_t pfn = word * 64 + (uint64_t)__builtin_ctzll(bits);

			if (pfn != past) {
				tell_returned(balloon, first, past);
				first = pfn;
			}
			past = pfn + 1;
		}
	}
	tell_returned(balloon, first, past);
	/* All of it reads as zeros again, and takes no memory. */
	madvise(balloon->given, BALLOON_PFNS / 8, MADV_DONTNEED);
	balloon->given_past = balloon->given_pages = 0;
	forget_collected(balloon);
}

/* --- buffers of page numbers --------------------------------------------------------------- */

/* The next numbers of a segment. Return: how many; 0 at its end, or where it makes no sense. */
static size_t read_pfns(struct mv_balloon *balloon, const struct balloon_work *work,
			const struct mv_virtqueue_segment *segment, uint32_t *pfns, uint64_t budget)
{
	uint64_t left = (segment->len - work->offset) / sizeof(*pfns);
	size_t count = left < PFNS_AT_ONCE ? left : PFNS_AT_ONCE;

	if (count > budget)
		count = budget;
	if (!work->offset && (segment->writable || segment->len % sizeof(*pfns)))
		balloon->count.ignored++;
	if (segment->writable || !count)
		return 0;
	if (mv_memory_read(balloon->memory, segment->gpa + work->offset, pfns,
			   count * sizeof(*pfns))) {
		balloon->count.ignored++;
		return 0;
	}
	return count;
}

static void serve_pfns(struct mv_balloon *balloon, struct balloon_work *work, uint64_t *budget,
		       void (*act)(struct mv_balloon *balloon, const uint32_t *pfns, size_t count))
{
	const struct mv_virtqueue_segment *segment;

	while (*budget && (segment = mv_balloon_segment(work))) {
		uint32_t pfns[PFNS_AT_ONCE];
		size_t count = read_pfns(balloon, work, segment, pfns, *budget);

		if (!count) {
			mv_balloon_next_segment(work);
			--*budget;
			continue;
		}
		act(balloon, pfns, count);
		work->offset += count * sizeof(*pfns);
		*budget -= count;
	}
}

void mv_balloon_serve_inflate(struct mv_balloon *balloon, struct balloon_work *work,
			      uint64_t *budget)
{
	serve_pfns(balloon, work, budget, give_all);
}

void mv_balloon_serve_deflate(struct mv_balloon *balloon, struct balloon_work *work,
			      uint64_t *budget)
{
	serve_pfns(balloon, work, budget, take_back_all);
}
