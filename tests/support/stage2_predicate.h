/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a processor makes of stage-2 tables, written down a second time: from the manuals' tables,
 * bit number by bit number, without a walk and without anything of lib/. It judges entries
 * that are given by level, so it needs no memory either.
 *
 * SDM vol. 3, 29.3.2 to 29.3.5 and table 28-7; APM vol. 2, 5.3 and 15.25.
 */
#ifndef TESTS_STAGE2_PREDICATE_H
#define TESTS_STAGE2_PREDICATE_H

#include <stdbool.h>
#include <stdint.h>

/* A processor and its mode. Fill in all down to @width, then stage2_world_prepare(). */
struct stage2_world {
	bool ept; /* or else NPT */
	bool pages_2m, pages_1g, exec_only, mode_exec, accessed, ve, no_exec, exit_info;
	unsigned int levels;
	unsigned int width;

	uint64_t reserved[6][2]; /* by level, and whether the entry maps a page */
};

/* An access, one fact each. */
struct stage2_access {
	bool read, write, fetch;
	bool user;	  /* the page is a user page of the guest */
	bool guest_table; /* the guest walk asks */
	bool linear;	  /* there is a linear address */
	bool guest_writable, guest_no_exec;
	bool shadow_stack;
	bool look; /* accessed and dirty stay as they are */
};

enum stage2_outcome { STAGE2_GOOD, STAGE2_FORBIDDEN, STAGE2_ILL_FORMED };

/* A right or attribute of a page, one fact each. */
struct stage2_grant {
	bool read, write, exec, exec_user, global, accessed, dirty, suppress_ve, ignore_pat;
	bool soft[2];
	unsigned int type;
};

struct stage2_expected {
	enum stage2_outcome outcome;
	unsigned int level; /* of the entry that decides */
	uint64_t at[6];	    /* physical address of each entry that is read, by level */
	uint64_t after[6];  /* and its value in the end */

	uint64_t phys; /* where good */
	unsigned int page_lg2;
	struct stage2_grant grant;

	uint64_t code; /* where not; 0 for EPT misconfigurations */
	bool suppress_ve;
};

void stage2_world_prepare(struct stage2_world *world);

/* @entry: by level, 1 to world->levels; those below what is decided do not matter. */
void stage2_expect(const struct stage2_world *world, uint64_t root, const uint64_t *entry,
		   uint64_t gpa, const struct stage2_access *access,
		   struct stage2_expected *expected);

#endif /* TESTS_STAGE2_PREDICATE_H */
