/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nested walk as the manuals tell it, once more: plain, slow, without a line of the library's
 * code. What both agree on is either right or misunderstood twice.
 *
 * SDM vol. 3, chapters 4 and 29; APM vol. 2, 5 and 15.25.
 */
#ifndef TESTS_NESTED_REFERENCE_H
#define TESTS_NESTED_REFERENCE_H

#include "support/nested_world.h"

/**
 * struct reference - the reference's view of a world
 * @world:  formats, registers; its memory is not touched
 * @memory: a copy, walked and changed by the reference
 * @pdpte:  PAE over EPT: as loaded
 */
struct reference {
	const struct nested_world *world;
	unsigned char *memory;
	uint64_t pdpte[4];
};

/* As mv_nested_walk(); -EFAULT where a table or a frame lies outside memory. */
int reference_walk(struct reference *reference, uint64_t gva, unsigned int access,
		   struct mv_nested_walk *walk);

/* As mv_nested_load_pdptes(). */
int reference_load_pdptes(struct reference *reference, struct mv_nested_walk *walk);

#endif /* TESTS_NESTED_REFERENCE_H */
