/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A tidy guest for tests of caches: each of its frames is at one place in host memory, and its
 * tables form a tree of pools, so that it is known which addresses are translated by way of which
 * table. Two address spaces share the upper half, whose pages are global, as Linux's do.
 *
 * Stage 2 maps frame by frame where tables lie, and the data above by 4 KiB, 2 MiB and 1 GiB.
 */
#ifndef TESTS_NESTED_GUEST_H
#define TESTS_NESTED_GUEST_H

#include "support/nested_world.h"

#define GUEST_SPACES  3
#define GUEST_SLOTS   6 /* entries in use in each table, from 0, and from half of it */
#define GUEST_LEVELS  4
#define GUEST_DATA    (2ull << 20) /* data by 4 KiB begins here: one table of stage 2 */
#define GUEST_DATA_2M (4ull << 20)
#define GUEST_DATA_1G (1ull << 30)

#define GUEST_ENTRY  0x67ull /* present, writable, user, accessed, dirty */
#define GUEST_GLOBAL 0x100ull
#define GUEST_LARGE  0x80ull

/**
 * struct nested_guest - the guest and where its tables are
 * @world:  memory, registers, the object under test
 * @frames: guest frames given out; guest frame n is host frame n
 */
struct nested_guest {
	struct nested_world world;
	unsigned int frames;
	uint64_t root[GUEST_SPACES];
};

/* Formats of stage 2: EPT or NPT. @by_call: through accessors. All tables empty but stage 2's. */
void nested_guest_open(struct nested_guest *guest, enum mv_format_id format2, uint32_t features2,
		       bool by_call);
void nested_guest_close(struct nested_guest *guest);

/* A new empty table of the guest: its guest-physical address. */
uint64_t nested_guest_table(struct nested_guest *guest);

/* The guest's entry that translates @gva in a table; its table of the next level; a leaf. */
uint64_t *nested_guest_entry(struct nested_guest *guest, uint64_t table, unsigned int level,
			     uint64_t gva);
uint64_t nested_guest_next(struct nested_guest *guest, uint64_t table, unsigned int level,
			   uint64_t gva);
/* Maps a page of stage 1; @level 1 to 3. Return: GPA of the table that holds the leaf. */
uint64_t nested_guest_map(struct nested_guest *guest, unsigned int space, uint64_t gva,
			  unsigned int level, uint64_t leaf);

/* The leaf of stage 2 for an address below GUEST_DATA_2M, or that of the 2 MiB above. */
uint64_t *nested_guest_stage2(struct nested_guest *guest, uint64_t gpa);

/* Load CR3, CR4 and so on. */
void nested_guest_load(struct nested_guest *guest, unsigned int space, uint64_t cr4_more,
		       uint64_t cr0_less);

#endif /* TESTS_NESTED_GUEST_H */
