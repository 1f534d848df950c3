/* SPDX-License-Identifier: BSD-2-Clause */
/* Seeds, and assertions for threads. */
#include <time.h>
#include <unistd.h>

#include "support/testing.h"

uint64_t test_seed(void)
{
	const char *given = getenv("SEED");
	struct timespec now;
	uint64_t seed;

	clock_gettime(CLOCK_REALTIME, &now);
	seed = given ? strtoull(given, NULL, 0)
		     : ((uint64_t)now.tv_nsec << 20 ^ (uint64_t)now.tv_sec) & 0xffffffff;
	print_message("# seed: %llu (SEED=%llu runs it again)\n", (unsigned long long)seed,
		      (unsigned long long)seed);
	return seed;
}

struct chance chance_of(uint64_t seed, uint64_t stream)
{
	struct chance chance = { .state = seed + stream * 0xd1342543de82ef95ULL };

	chance_next(&chance);
	return chance;
}

/* splitmix64: any state is good, and neighbouring seeds give unrelated streams. */
uint64_t chance_next(struct chance *chance)
{
	uint64_t z = chance->state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

uint64_t chance_below(struct chance *chance, uint64_t limit)
{
	return chance_next(chance) % limit;
}

uint64_t test_rounds(uint64_t rounds)
{
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
	return rounds / 8 + 1;
#else
	return rounds;
#endif
}

void insist_failed(const char *condition, const char *file, int line)
{
	fflush(stdout);
	dprintf(STDOUT_FILENO, "# %s:%d: this does not hold: %s\n", file, line, condition);
	abort();
}
