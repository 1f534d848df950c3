/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Working sets: how often a VM would miss with so much memory, from a sample of the pages that it
 * touches.
 *
 * SHARDS (Waldspurger, Park, Garthwaite and Ahmad, "Efficient MRC Construction with SHARDS", FAST
 * 2015): only pages whose hash is below a threshold are followed. Of these, for each touch, how
 * many other ones were touched since the last touch of the same page is its reuse distance, of
 * the sample; divided by the sampled part it is that of all. The threshold falls when more pages
 * are followed than there is room for, so memory and time are bounded, whatever the guest does.
 *
 * A pure object: it knows no pager, and is fed by whoever sees touches: a pager, a trace.
 */
#ifndef MEMVIRT_WORKINGSET_H
#define MEMVIRT_WORKINGSET_H

#include <stddef.h>
#include <stdint.h>

#include <memvirt/policy.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct mv_miss_curve;

/**
 * struct mv_miss_curve_config - what mv_miss_curve_create() needs
 * @size:    sizeof(struct mv_miss_curve_config)
 * @pages:   that there are; distances are kept up to so many, with 1,024 steps
 * @samples: pages followed at most, 64 to 1,048,576; 8,192 are right within 1% or so, and take
 *           some 400 KiB
 */
struct mv_miss_curve_config {
	size_t size;
	uint64_t pages;
	uint32_t samples;
};

/**
 * mv_miss_curve_create() - begin with a curve of nothing
 * @config: see struct mv_miss_curve_config
 * @curve:  set on success
 *
 * Context: may sleep.
 * Return: 0; -EINVAL; -ENOMEM.
 */
int mv_miss_curve_create(const struct mv_miss_curve_config *config, struct mv_miss_curve **curve);

/** mv_miss_curve_destroy() - free it; takes NULL */
void mv_miss_curve_destroy(struct mv_miss_curve *curve);

/**
 * mv_miss_curve_touch() - a page is touched
 * @curve: the curve
 * @page:  its number; any
 *
 * Most touches are of pages that are not followed, and cost a multiplication and a comparison.
 *
 * Context: one thread at a time; allocates nothing.
 */
void mv_miss_curve_touch(struct mv_miss_curve *curve, uint64_t page);

/**
 * mv_miss_curve_age() - let what was seen so far count less
 * @curve: the curve
 * @part:  of it that goes on counting, 0 to 1; pages are followed on
 *
 * Context: as mv_miss_curve_touch().
 */
void mv_miss_curve_age(struct mv_miss_curve *curve, double part);

/**
 * mv_miss_curve_ratio() - of the touches, how many would miss
 * @curve: the curve
 * @pages: of memory, replaced by least recent use
 *
 * First touches miss whatever there is.
 *
 * Context: as mv_miss_curve_touch().
 * Return: 0 to 1; 0 where nothing was touched.
 */
double mv_miss_curve_ratio(const struct mv_miss_curve *curve, uint64_t pages);

/**
 * mv_miss_curve_points() - the same for the policy
 * @curve:         the curve
 * @touches_per_s: how many touches there are in a second, of all pages
 * @points:        set: MV_POLICY_CURVE_POINTS points up to the greatest distance that was seen.
 *                 First touches are left out, since no memory saves them
 *
 * Context: as mv_miss_curve_touch().
 * Return: 0; -ENODATA where nothing was touched twice: @points has no points.
 */
int mv_miss_curve_points(const struct mv_miss_curve *curve, double touches_per_s,
			 struct mv_policy_curve *points);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_WORKINGSET_H */
