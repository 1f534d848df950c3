/* SPDX-License-Identifier: BSD-2-Clause */
/* See crew.h. */
#include "support/crew.h"

static void *member_main(void *arg)
{
	struct crew_member *member = arg;

	member->work(&member->chance);
	return NULL;
}

void crew_add(struct crew *crew, void (*work)(struct chance *chance))
{
	struct crew_member *member = &crew->members[crew->count];

	insist(crew->count < CREW_MAX);
	*member = (struct crew_member){ .chance = chance_of(crew->seed, crew->count + 1),
					.work = work };
	assert_int_equal(pthread_create(&crew->threads[crew->count++], NULL, member_main, member),
			 0);
}

void crew_finish(struct crew *crew, unsigned int workers)
{
	for (unsigned int i = 0; i < crew->count; i++) {
		if (i == workers)
			__atomic_store_n(&crew->done, true, __ATOMIC_RELAXED);
		pthread_join(crew->threads[i], NULL);
	}
	*crew = (struct crew){ .seed = crew->seed };
}
