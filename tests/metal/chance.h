/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Chance that can be repeated: each world has a generator of its own, started from the seed and
 * the world's number, so that one world runs again without those before it.
 */
#ifndef METAL_CHANCE_H
#define METAL_CHANCE_H

#include <stdbool.h>
#include <stdint.h>

struct chance {
	uint64_t state;
};

/* SplitMix64: any start gives a good sequence. */
static inline uint64_t chance_next(struct chance *chance)
{
	uint64_t z = (chance->state += 0x9e3779b97f4a7c15);

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static inline struct chance chance_of(uint64_t seed, uint64_t world)
{
	struct chance chance = { seed };

	chance.state = chance_next(&chance) ^ world * 0xd6e8feb86659fd93;
	return chance;
}

static inline uint64_t below(struct chance *chance, uint64_t limit)
{
	return (chance_next(chance) >> 32) % limit;
}

static inline bool one_in(struct chance *chance, unsigned int n)
{
	return !below(chance, n);
}

#endif /* METAL_CHANCE_H */
