/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a processor makes of a guest's tables, written down a second time: from the manual's
 * tables and prose, bit number by bit number, without a walk and without anything of lib/. It
 * judges entries that are given by level, as sets of levels that have a bit: which are absent,
 * which let write, and so on; so it needs no memory either.
 *
 * SDM vol. 3, 4.3 to 4.8; APM vol. 2, 5.3.
 */
#ifndef TESTS_GUEST_PREDICATE_H
#define TESTS_GUEST_PREDICATE_H

#include <stdbool.h>
#include <stdint.h>

enum guest_mode { GUEST_32, GUEST_PSE, GUEST_PAE, GUEST_4L, GUEST_5L, GUEST_MODES };

/*
 * A processor and its registers. Fill in all down to @table, then guest_world_prepare().
 * @table: where the table of each level lies
 */
struct guest_world {
	enum guest_mode mode;
	bool wp, nxe, smep, smap, pke, pks, pages_1g, pse36, amd;
	unsigned int width;
	uint32_t pkru, pkrs;
	uint64_t table[6];

	unsigned int levels;
	unsigned int page_levels; /* set of levels that may map a page */
	uint64_t reserved[6][2];  /* by level, and whether the entry maps a page */
};

/* An access, one fact each; none of the first three: only translate. */
struct guest_access {
	bool read, write, fetch;
	bool user, implicit, ac, shadow_stack;
};

enum guest_outcome {
	GUEST_GOOD,
	GUEST_FAULT,
	GUEST_ELSEWHERE, /* a table lies where the guest of the test has none */
};

struct guest_expected {
	enum guest_outcome outcome;
	unsigned int level; /* of the entry that decides */
	unsigned int error; /* of the fault */
	uint64_t gpa;	    /* where good, and what follows */
	unsigned int page_lg2;
	bool may_write, may_fetch, may_user, dirty;
	uint64_t after[6]; /* entries in the end */
};

void guest_world_prepare(struct guest_world *world);

/* Bits of @gva that choose an entry at a level. */
unsigned int guest_index(const struct guest_world *world, unsigned int level, uint64_t gva);

/* PAE: whether a load of CR3 is refused for this PDPTE. */
bool guest_pdpte_refused(const struct guest_world *world, uint64_t pdpte);

void guest_predict(const struct guest_world *world, const uint64_t entry[6], uint64_t gva,
		   const struct guest_access *access, struct guest_expected *expected);

#endif /* TESTS_GUEST_PREDICATE_H */
