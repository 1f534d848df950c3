/* SPDX-License-Identifier: BSD-2-Clause */
/* Threads of a test, each with chance of its own. */
#ifndef TESTS_CREW_H
#define TESTS_CREW_H

#include <pthread.h>

#include "support/testing.h"

#define CREW_MAX 12

struct crew {
	uint64_t seed;
	unsigned int count;
	pthread_t threads[CREW_MAX];
	struct crew_member {
		struct chance chance;
		void (*work)(struct chance *chance);
	} members[CREW_MAX];
	bool done; /* atomic: those that only accompany the others may stop */
};

/* One more thread, which begins at once. crew->seed is set before the first. */
void crew_add(struct crew *crew, void (*work)(struct chance *chance));

/* Wait for the first @workers, then tell the others to stop, and wait for them. */
void crew_finish(struct crew *crew, unsigned int workers);

static inline bool crew_done(const struct crew *crew)
{
	return __atomic_load_n(&crew->done, __ATOMIC_RELAXED);
}

#endif /* TESTS_CREW_H */
