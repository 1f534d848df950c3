/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * splitmix64 (Steele, Lea and Flood, OOPSLA 2014): neighbours become strangers.
 */
#ifndef BALLOON_MIX_H
#define BALLOON_MIX_H

#include <stdint.h>

#define MIX_STEP 0x9e3779b97f4a7c15ULL

/* Of consecutive numbers, or of multiples of MIX_STEP, as good as random. */
static inline uint64_t mix(uint64_t z)
{
	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

#endif /* BALLOON_MIX_H */
