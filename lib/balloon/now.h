/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The time by which everything here is stamped.
 */
#ifndef BALLOON_NOW_H
#define BALLOON_NOW_H

#include <stdint.h>
#include <time.h>

/* CLOCK_MONOTONIC, nanoseconds. */
static inline uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

#endif /* BALLOON_NOW_H */
