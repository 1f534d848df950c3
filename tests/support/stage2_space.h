/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stage-2 tables small enough to look at: one table a level, one way down, entries set by hand.
 * They lie in the direct map, at physical addresses that fit every width, or behind an accessor
 * that fails and changes entries on demand.
 */
#ifndef TESTS_STAGE2_SPACE_H
#define TESTS_STAGE2_SPACE_H

#include <memvirt/stage2.h>

/* What the tests translate: another index at each level. */
#define SPACE_GPA  0x123456789abcULL
#define SPACE_PAGE 0x55555000ULL /* where the page is that it leads to */

/* Bits of EPT entries. */
#define E_R	   0x1ULL
#define E_W	   0x2ULL
#define E_X	   0x4ULL
#define E_RWX	   0x7ULL
#define E_WB	   0x30ULL
#define E_PAGE	   0x80ULL
#define E_ACCESSED 0x100ULL
#define E_DIRTY	   0x200ULL
#define E_XU	   0x400ULL
#define E_NO_VE	   (1ULL << 63)

/* Bits of NPT entries. */
#define N_P	   0x1ULL
#define N_W	   0x2ULL
#define N_U	   0x4ULL
#define N_PWU	   0x7ULL
#define N_ACCESSED 0x20ULL
#define N_DIRTY	   0x40ULL
#define N_PAGE	   0x80ULL
#define N_NX	   (1ULL << 63)

struct stage2_space {
	uint64_t page[6][512] __attribute__((aligned(4096))); /* by level; at level * 4096 */
	struct mv_stage2_config config;
	struct mv_stage2 stage2;
	struct mv_stage2_walk walk; /* of the last space_walk() */
	unsigned int levels;

	/* The accessor. */
	unsigned int reads, changes; /* calls so far */
	unsigned int fail_read;	     /* the Nth read fails with @error, counted from 1; 0: none */
	int error;
	unsigned int disturb; /* so many changes find the entry changed by somebody else */
	uint64_t disturb_xor; /* what he changes in it */
};

/* Tables that map SPACE_GPA to SPACE_PAGE by a 4 KiB page, all rights granted at all levels. */
struct stage2_space *space_open(enum mv_format_id format, uint32_t features);
void space_close(struct stage2_space *space);

/* The entry of a level on the way down. */
uint64_t *space_entry(struct stage2_space *space, unsigned int level);

/* Make a level's entry a page of its size, with the rights and the type of the others. */
void space_make_page(struct stage2_space *space, unsigned int level);

/* From here on through the accessor. @change: it can set bits. */
void space_use_accessor(struct stage2_space *space, bool change);

/* Walk; insists that it returns 0. */
const struct mv_stage2_walk *space_walk(struct stage2_space *space, unsigned int access);

/* Walk and insist on what comes of it. */
void space_expect_ok(struct stage2_space *space, unsigned int access);
void space_expect_violation(struct stage2_space *space, unsigned int access, uint64_t code);
void space_expect_misconfigured(struct stage2_space *space, unsigned int access, uint64_t code);

#endif /* TESTS_STAGE2_SPACE_H */
