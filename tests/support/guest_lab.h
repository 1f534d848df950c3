/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that has one address mapped by one entry a level, and the library's walk beside the
 * predicate's verdict on it: a case is a world, the entries, and an access.
 */
#ifndef TESTS_GUEST_LAB_H
#define TESTS_GUEST_LAB_H

#include <memvirt/guest_walk.h>

#include "support/guest_predicate.h"

/**
 * struct guest_lab - one thread's guest
 * @entry: by level: the one entry of a table that exists; set by the user
 * @at:    by level: where it is
 * @cases, @mismatches: so far; the first mismatch is printed
 */
struct guest_lab {
	struct guest_world world;
	struct mv_paging paging;
	uint64_t gva;
	uint64_t entry[6];
	uint64_t at[6];
	unsigned int bytes;
	uint64_t cases;
	uint64_t mismatches;
};

/*
 * Where the table of a level is: at 7 << 3n pages, so that two flipped bits do not lead from one
 * to another, and where an address leads is found without a search.
 */
static inline uint64_t guest_lab_table(unsigned int level)
{
	return 7ULL << 3 * (level - 1) << 12;
}

/* Load the registers that make a world. */
void guest_lab_enter(struct guest_lab *lab, const struct guest_world *world);

/* PAE: load the one PDPTE that is used. Return: as mv_paging_load_pdptes(). */
int guest_lab_load_pdptes(struct guest_lab *lab);

/* One case. @lab->entry[] is afterwards what the walk left. */
void guest_lab_try(struct guest_lab *lab, const struct guest_access *access);

#endif /* TESTS_GUEST_LAB_H */
