/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The sampled miss-ratio curve against the exact one, over traces of several kinds.
 *
 * The exact curve knows every page's last touch and counts the pages touched since, one by one
 * of a Fenwick tree over all touches; it shares no code with the sampled one, and no idea but the
 * tree.
 */
#include <math.h>
#include <stdlib.h>

#include <memvirt/workingset.h>

#include "support/testing.h"

#define PAGES	200000
#define TOUCHES 2000000
#define SIZES	40
#define SAMPLES 8192

/* --- the exact one ------------------------------------------------------------------------ */

/** struct exact - @last: of each page, its touch's number, from 1; @distances: how many */
struct exact {
	uint32_t *last;
	uint32_t *tree;
	uint32_t *distances;
	uint64_t touches;
};

static struct exact make_exact(void)
{
	struct exact exact = { calloc(PAGES, sizeof(uint32_t)),
			       calloc(TOUCHES + 1, sizeof(uint32_t)),
			       calloc(PAGES, sizeof(uint32_t)), 0 };

	assert_true(exact.last && exact.tree && exact.distances);
	return exact;
}

static void free_exact(struct exact *exact)
{
	free(exact->last);
	free(exact->tree);
	free(exact->distances);
}

static void mark(struct exact *exact, uint64_t at, int number)
{
	for (; at <= TOUCHES; at += at & -at)
		exact->tree[at] += (uint32_t)number;
}

static uint32_t marks(const struct exact *exact, uint64_t up_to)
{
	uint32_t sum = 0;

	for (; up_to; up_to -= up_to & -up_to)
		sum += exact->tree[up_to];
	return sum;
}

static void exact_touch(struct exact *exact, uint32_t page)
{
	uint64_t now = ++exact->touches;
	uint32_t last = exact->last[page];

	if (last) {
		exact->distances[marks(exact, now - 1) - marks(exact, last)]++;
		mark(exact, last, -1);
	}
	mark(exact, now, 1);
	exact->last[page] = (uint32_t)now;
}

/* With @size pages a touch hits that has fewer than @size others since the last. */
static double exact_ratio(const struct exact *exact, uint64_t size)
{
	uint64_t hits = 0;

	for (uint64_t i = 0; i < size && i < PAGES; i++)
		hits += exact->distances[i];
	return 1 - (double)hits / (double)exact->touches;
}

/* --- traces ------------------------------------------------------------------------------- */

typedef uint32_t (*next_page)(struct chance *chance, uint64_t touch);

static uint32_t uniform_page(struct chance *chance, uint64_t touch)
{
	return (uint32_t)chance_below(chance, PAGES / 2);
}

/* The nth page gets 1/n^0.9 or so of the touches: by inversion of its integral. */
static uint32_t zipf_page(struct chance *chance, uint64_t touch)
{
	double u = (double)chance_below(chance, 1 << 30) / (1 << 30);
	double most = pow(PAGES, 0.1);
	uint32_t rank = (uint32_t)pow(1 + u * (most - 1), 10) - 1;

	/* Spread, so that neighbours are not alike. */
	return (uint32_t)((uint64_t)(rank < PAGES ? rank : PAGES - 1) * 104729 % PAGES);
}

/* Round and round: with one page less nothing hits. */
static uint32_t scanned_page(struct chance *chance, uint64_t touch)
{
	return (uint32_t)(touch % (PAGES / 4));
}

/* A working set of a tenth that moves on, and a scan of everything in one touch of eight. */
static uint32_t phased_page(struct chance *chance, uint64_t touch)
{
	uint64_t phase = touch / (TOUCHES / 8);

	if (chance_one_in(chance, 8))
		return (uint32_t)(touch / 8 % PAGES);
	return (uint32_t)((phase * PAGES / 10 + chance_below(chance, PAGES / 10)) % PAGES);
}

/* --- tests -------------------------------------------------------------------------------- */

static struct mv_miss_curve *make_curve(uint32_t samples)
{
	const struct mv_miss_curve_config config = { .size = sizeof(config),
						     .pages = PAGES,
						     .samples = samples };
	struct mv_miss_curve *curve;

	assert_int_equal(mv_miss_curve_create(&config, &curve), 0);
	return curve;
}

/* The greatest and the mean difference. At a cliff a step more or less is all the difference. */
static void compare(const struct exact *exact, const struct mv_miss_curve *curve, double mean,
		    unsigned int cliffs)
{
	double sum = 0;
	unsigned int far = 0;

	for (unsigned int i = 1; i <= SIZES; i++) {
		uint64_t size = (uint64_t)PAGES * i / SIZES;
		double off = fabs(exact_ratio(exact, size) - mv_miss_curve_ratio(curve, size));

		sum += off;
		far += off > 0.05;
	}
	print_message("# mean difference %.4f, %u of %u sizes off by more than 0.05\n", sum / SIZES,
		      far, SIZES);
	assert_true(sum / SIZES <= mean);
	assert_true(far <= cliffs);
}

static void run(next_page next, uint32_t samples, double mean, unsigned int cliffs)
{
	struct chance chance = chance_of(test_seed(), 2);
	struct mv_miss_curve *curve = make_curve(samples);
	struct exact exact = make_exact();

	for (uint64_t i = 0; i < TOUCHES; i++) {
		uint32_t page = next(&chance, i);

		exact_touch(&exact, page);
		mv_miss_curve_touch(curve, page);
	}
	compare(&exact, curve, mean, cliffs);
	free_exact(&exact);
	mv_miss_curve_destroy(curve);
}

static void test_uniform(void **unused)
{
	run(uniform_page, SAMPLES, 0.02, 0);
}

static void test_zipf(void **unused)
{
	run(zipf_page, SAMPLES, 0.02, 0);
}

static void test_scan(void **unused)
{
	run(scanned_page, SAMPLES, 0.05, 1);
}

static void test_phases(void **unused)
{
	run(phased_page, SAMPLES, 0.02, 0);
}

/* A sample that is not dropped from is exact, but for the steps. */
static void test_all_followed(void **unused)
{
	run(zipf_page, PAGES, 0.002, 0);
}

/* With few samples it is coarser, and still right on the whole. */
static void test_few_samples(void **unused)
{
	run(zipf_page, 1024, 0.05, SIZES / 4);
}

/* What was seen long ago counts less and less. */
static void test_age(void **unused)
{
	struct chance chance = chance_of(test_seed(), 3);
	struct mv_miss_curve *curve = make_curve(SAMPLES);

	for (unsigned int i = 0; i < TOUCHES / 4; i++)
		mv_miss_curve_touch(curve, uniform_page(&chance, i));
	assert_true(mv_miss_curve_ratio(curve, PAGES / 20) > 0.8);
	/* From now on a twentieth of the pages is all that is used. */
	for (unsigned int round = 0; round < 20; round++) {
		mv_miss_curve_age(curve, 0.5);
		for (unsigned int i = 0; i < TOUCHES / 20; i++)
			mv_miss_curve_touch(curve, (uint64_t)chance_below(&chance, PAGES / 25));
	}
	assert_true(mv_miss_curve_ratio(curve, PAGES / 20) < 0.05);
	mv_miss_curve_destroy(curve);
}

/* For the policy: bytes rise, misses fall to none. */
static void test_points(void **unused)
{
	struct chance chance = chance_of(test_seed(), 4);
	struct mv_miss_curve *curve = make_curve(SAMPLES);
	struct mv_policy_curve points;

	assert_int_equal(mv_miss_curve_points(curve, 1000, &points), -ENODATA);
	assert_true(mv_miss_curve_ratio(curve, 1000) == 0);
	for (unsigned int i = 0; i < TOUCHES / 4; i++)
		mv_miss_curve_touch(curve, zipf_page(&chance, i));
	assert_int_equal(mv_miss_curve_points(curve, 1000, &points), 0);
	assert_int_equal(points.count, MV_POLICY_CURVE_POINTS);
	for (unsigned int i = 1; i < points.count; i++) {
		assert_true(points.bytes[i] > points.bytes[i - 1]);
		assert_true(points.misses_per_s[i] <= points.misses_per_s[i - 1]);
	}
	assert_true(points.misses_per_s[points.count - 1] < 1);
	assert_true(points.bytes[points.count - 1] <= PAGES * 4096.0);
	mv_miss_curve_destroy(curve);
}

static void test_config(void **unused)
{
	struct mv_miss_curve_config config = { .size = sizeof(config), .pages = 1, .samples = 64 };
	struct mv_miss_curve *curve;

	assert_int_equal(mv_miss_curve_create(&config, &curve), 0);
	mv_miss_curve_touch(curve, UINT64_MAX);
	mv_miss_curve_touch(curve, UINT64_MAX);
	assert_true(mv_miss_curve_ratio(curve, 1) == 0.5);
	mv_miss_curve_destroy(curve);
	mv_miss_curve_destroy(NULL);
	config.samples = 63;
	assert_int_equal(mv_miss_curve_create(&config, &curve), -EINVAL);
	config.samples = 64;
	config.pages = 0;
	assert_int_equal(mv_miss_curve_create(&config, &curve), -EINVAL);
	config.size = 1;
	assert_int_equal(mv_miss_curve_create(&config, &curve), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_uniform),	     cmocka_unit_test(test_zipf),
		cmocka_unit_test(test_scan),	     cmocka_unit_test(test_phases),
		cmocka_unit_test(test_all_followed), cmocka_unit_test(test_few_samples),
		cmocka_unit_test(test_age),	     cmocka_unit_test(test_points),
		cmocka_unit_test(test_config),
	};

	return cmocka_run_group_tests_name("miss_curve_model", tests, NULL, NULL);
}
