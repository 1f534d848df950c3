/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Time as the tools count it: CLOCK_MONOTONIC, in nanoseconds, as statistics segments do.
 */
#ifndef VM_CLOCK_H
#define VM_CLOCK_H

#include <stdint.h>
#include <time.h>

#define CLOCK_MS 1000000ULL
#define CLOCK_S	 1000000000ULL

static inline uint64_t clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * CLOCK_S + (uint64_t)now.tv_nsec;
}

/* What is left until a deadline, as poll() wants it: rounded up, so that it is over after. */
static inline int clock_poll_ms(uint64_t deadline)
{
	uint64_t now = clock_now();
	uint64_t left = deadline > now ? (deadline - now + CLOCK_MS - 1) / CLOCK_MS : 0;

	return left > 60000 ? 60000 : (int)left;
}

#endif /* VM_CLOCK_H */
