/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A miss-ratio curve by sampled reuse distances; see memvirt/workingset.h.
 *
 * Each followed page has the time of its last touch, a number that only grows. How many pages
 * were touched since is the number of times in use above it: a Fenwick tree over times, which is
 * renumbered when times run out. The page with the greatest hash is on top of a heap, to be
 * dropped when there is no room; its hash is the threshold from then on.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <memvirt/workingset.h>

#include "mix.h"

#define STEPS	    1024
#define SAMPLES_MIN 64
#define SAMPLES_MAX (1U << 20)

/* Hashes have so many bits: the finest part that can be sampled. */
#define HASH_BITS 32
#define HASHES	  (1ULL << HASH_BITS)

/* Times for each page that is followed, between two renumberings. */
#define TIMES_A_SAMPLE 4

#define NONE UINT32_MAX

/** struct sample - a followed page */
struct sample {
	uint64_t page;
	uint32_t hash;
	uint32_t time;
	uint32_t next; /* of its bucket */
};

/**
 * struct mv_miss_curve - the curve
 * @threshold: pages with a hash below it are followed
 * @spare:     a sample that was dropped and is not yet used again; NONE
 * @buckets:   by hash, heads of lists of samples
 * @heap:      samples, the greatest hash first
 * @at_time:   which sample was touched at a time; NONE for one that was touched again
 * @tree:      Fenwick tree over times, from 1: how many are in use
 * @steps:     touches by distance, in pages of all; the last for those beyond
 * @first:     touches of pages that were not followed before
 * @touches:   all, sampled or not
 */
struct mv_miss_curve {
	struct mv_miss_curve_config config;
	uint64_t threshold;
	uint32_t count;
	uint32_t now;
	uint32_t times;
	uint32_t bucket_mask;
	uint32_t spare;
	struct sample *samples;
	uint32_t *buckets;
	uint32_t *heap;
	uint32_t *at_time;
	uint32_t *tree;
	double steps[STEPS + 1];
	double first;
	double sampled;
	double touches;
};

/* --- making ------------------------------------------------------------------------------- */

static uint32_t round_up(uint32_t number)
{
	uint32_t power = 1;

	while (power < number)
		power <<= 1;
	return power;
}

int mv_miss_curve_create(const struct mv_miss_curve_config *config, struct mv_miss_curve **curve)
{
	struct mv_miss_curve *made;
	uint32_t buckets;

	if (config->size != sizeof(*config) || config->pages == 0 ||
	    config->samples < SAMPLES_MIN || config->samples > SAMPLES_MAX)
		return -EINVAL;
	made = calloc(1, sizeof(*made));
	if (!made)
		return -ENOMEM;
	buckets = round_up(config->samples);
	made->config = *config;
	made->threshold = HASHES;
	made->spare = NONE;
	made->times = config->samples * TIMES_A_SAMPLE;
	made->bucket_mask = buckets - 1;
	made->samples = calloc(config->samples, sizeof(*made->samples));
	made->heap = calloc(config->samples, sizeof(*made->heap));
	made->buckets = malloc(buckets * sizeof(*made->buckets));
	made->at_time = malloc((made->times + 1) * sizeof(*made->at_time));
	made->tree = calloc(made->times + 1, sizeof(*made->tree));
	if (!made->samples || !made->heap || !made->buckets || !made->at_time || !made->tree) {
		mv_miss_curve_destroy(made);
		return -ENOMEM;
	}
	memset(made->buckets, 0xff, buckets * sizeof(*made->buckets)); /* NONE, each of them */
	*curve = made;
	return 0;
}

void mv_miss_curve_destroy(struct mv_miss_curve *curve)
{
	if (!curve)
		return;
	free(curve->samples);
	free(curve->heap);
	free(curve->buckets);
	free(curve->at_time);
	free(curve->tree);
	free(curve);
}

/* --- times -------------------------------------------------------------------------------- */

static void tree_add(struct mv_miss_curve *curve, uint32_t time, uint32_t number)
{
	for (; time <= curve->times; time += time & -time)
		curve->tree[time] += number;
}

/* How many are in use up to @time. */
static uint32_t tree_sum(const struct mv_miss_curve *curve, uint32_t time)
{
	uint32_t sum = 0;

	for (; time; time -= time & -time)
		sum += curve->tree[time];
	return sum;
}

static void use_time(struct mv_miss_curve *curve, uint32_t sample)
{
	curve->samples[sample].time = ++curve->now;
	curve->at_time[curve->now] = sample;
	tree_add(curve, curve->now, 1);
}

static void free_time(struct mv_miss_curve *curve, uint32_t sample)
{
	uint32_t time = curve->samples[sample].time;

	curve->at_time[time] = NONE;
	tree_add(curve, time, (uint32_t)-1);
}

/* Times have run out: the same order, without the gaps. */
static void renumber(struct mv_miss_curve *curve)
{
	uint32_t last = curve->now;

	curve->now = 0;
	memset(curve->tree, 0, (curve->times + 1) * sizeof(*curve->tree));
	for (uint32_t time = 1; time <= last; time++)
		if (curve->at_time[time] != NONE)
			use_time(curve, curve->at_time[time]);
}

/* --- which pages are followed ------------------------------------------------------------- */

static uint32_t hash_of(uint64_t page)
{
	return (uint32_t)(mix(page + MIX_STEP) >> (64 - HASH_BITS));
}

/* The upper bits decide whether it is followed. */
static uint32_t *bucket_of(struct mv_miss_curve *curve, uint32_t hash)
{
	return &curve->buckets[hash & curve->bucket_mask];
}

static uint32_t find(struct mv_miss_curve *curve, uint64_t page, uint32_t hash)
{
	uint32_t at = *bucket_of(curve, hash);

	while (at != NONE && curve->samples[at].page != page)
		at = curve->samples[at].next;
	return at;
}

static uint32_t heap_hash(const struct mv_miss_curve *curve, uint32_t at)
{
	return curve->samples[curve->heap[at]].hash;
}

static void heap_swap(struct mv_miss_curve *curve, uint32_t a, uint32_t b)
{
	uint32_t saved = curve->heap[a];

	curve->heap[a] = curve->heap[b];
	curve->heap[b] = saved;
}

static void heap_push(struct mv_miss_curve *curve, uint32_t sample)
{
	uint32_t at = curve->count++;

	curve->heap[at] = sample;
	while (at && heap_hash(curve, at) > heap_hash(curve, (at - 1) / 2)) {
		heap_swap(curve, at, (at - 1) / 2);
		at = (at - 1) / 2;
	}
}

static uint32_t heap_pop(struct mv_miss_curve *curve)
{
	uint32_t top = curve->heap[0], at = 0;

	curve->heap[0] = curve->heap[--curve->count];
	for (;;) {
		uint32_t child = 2 * at + 1;

		if (child + 1 < curve->count &&
		    heap_hash(curve, child + 1) > heap_hash(curve, child))
			child++;
		if (child >= curve->count || heap_hash(curve, child) <= heap_hash(curve, at))
			return top;
		heap_swap(curve, at, child);
		at = child;
	}
}

static void forget(struct mv_miss_curve *curve, uint32_t sample)
{
	uint32_t *link = bucket_of(curve, curve->samples[sample].hash);

	while (*link != sample)
		link = &curve->samples[*link].next;
	*link = curve->samples[sample].next;
	free_time(curve, sample);
}

/* So many fewer are sampled from now on: what was counted counts as if that had been so. */
static void scale(struct mv_miss_curve *curve, double part)
{
	for (unsigned int i = 0; i <= STEPS; i++)
		curve->steps[i] *= part;
	curve->first *= part;
	curve->sampled *= part;
}

/*
 * Room for one: without the greatest hash, which is the threshold from now on. Another page of that
 * very hash stays, and is not touched any more. Return: a free sample.
 */
static uint32_t drop_greatest(struct mv_miss_curve *curve)
{
	uint64_t before = curve->threshold;
	uint32_t dropped = heap_pop(curve);

	curve->threshold = curve->samples[dropped].hash;
	forget(curve, dropped);
	scale(curve, (double)curve->threshold / (double)before);
	return dropped;
}

static void follow(struct mv_miss_curve *curve, uint64_t page, uint32_t hash)
{
	uint32_t *bucket = bucket_of(curve, hash);
	uint32_t sample = curve->count;

	if (curve->count == curve->config.samples)
		sample = drop_greatest(curve);
	else if (curve->spare != NONE)
		sample = curve->spare;
	curve->spare = NONE;
	/* It may have been the greatest itself. */
	if (hash >= curve->threshold) {
		curve->spare = sample;
		return;
	}
	curve->samples[sample] = (struct sample){ .page = page, .hash = hash, .next = *bucket };
	*bucket = sample;
	use_time(curve, sample);
	heap_push(curve, sample);
}

/* --- touches ------------------------------------------------------------------------------ */

static double rate(const struct mv_miss_curve *curve)
{
	return (double)curve->threshold / (double)HASHES;
}

/* Of the sample; of all pages it is as much more as there are more pages. */
static void count_distance(struct mv_miss_curve *curve, uint32_t sample)
{
	uint32_t since = curve->count - tree_sum(curve, curve->samples[sample].time);
	double pages = since / rate(curve);
	double step = pages * STEPS / (double)curve->config.pages;

	curve->steps[step < STEPS ? (unsigned int)step : STEPS]++;
}

void mv_miss_curve_touch(struct mv_miss_curve *curve, uint64_t page)
{
	uint32_t hash = hash_of(page);
	uint32_t sample;

	curve->touches++;
	if (hash >= curve->threshold)
		return;
	if (curve->now == curve->times)
		renumber(curve);
	curve->sampled++;
	sample = find(curve, page, hash);
	if (sample == NONE) {
		curve->first++;
		follow(curve, page, hash);
		return;
	}
	count_distance(curve, sample);
	free_time(curve, sample);
	use_time(curve, sample);
}

void mv_miss_curve_age(struct mv_miss_curve *curve, double part)
{
	part = part < 0 ? 0 : part > 1 ? 1 : part;
	scale(curve, part);
	curve->touches *= part;
}

/* --- the curve ---------------------------------------------------------------------------- */

/*
 * Where a few pages get many of the touches, it is chance whether they are in the sample: there
 * are more or fewer sampled touches than there should be. The difference is of short distances
 * (the paper's SHARDS-adj).
 */
static double correction(const struct mv_miss_curve *curve)
{
	return curve->touches * rate(curve) - curve->sampled;
}

/* Touches that hit with so many steps of memory, and a part of the next. */
static double hits(const struct mv_miss_curve *curve, double steps)
{
	double sum = steps > 0 ? correction(curve) : 0;
	unsigned int whole = steps < STEPS ? (unsigned int)steps : STEPS;

	for (unsigned int i = 0; i < whole; i++)
		sum += curve->steps[i];
	if (whole < STEPS)
		sum += curve->steps[whole] * (steps - whole);
	return sum;
}

static double clamp(double ratio)
{
	return ratio < 0 ? 0 : ratio > 1 ? 1 : ratio;
}

double mv_miss_curve_ratio(const struct mv_miss_curve *curve, uint64_t pages)
{
	double all = curve->touches * rate(curve);

	if (all <= 0)
		return 0;
	return clamp(1 - hits(curve, (double)pages * STEPS / (double)curve->config.pages) / all);
}

/* The last step in which there is anything; -1 for none. */
static int last_step(const struct mv_miss_curve *curve)
{
	int last = STEPS - 1;

	while (last >= 0 && curve->steps[last] <= 0)
		last--;
	return last;
}

int mv_miss_curve_points(const struct mv_miss_curve *curve, double touches_per_s,
			 struct mv_policy_curve *points)
{
	double all = curve->touches * rate(curve);
	double end = last_step(curve) + 1;
	double bytes_a_step = (double)curve->config.pages * 4096 / STEPS;

	points->count = 0;
	if (end <= 0 || all <= 0)
		return -ENODATA;
	points->count = MV_POLICY_CURVE_POINTS;
	for (unsigned int i = 0; i < points->count; i++) {
		double steps = end * (i + 1) / points->count;
		double missed = hits(curve, end) - hits(curve, steps);

		points->bytes[i] = steps * bytes_a_step;
		points->misses_per_s[i] = clamp(missed / all) * touches_per_s;
	}
	return 0;
}
