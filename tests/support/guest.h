/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A memory on the fake platform, for tests of the core: regions over one mapping of this
 * process.
 */
#ifndef TESTS_GUEST_H
#define TESTS_GUEST_H

#include <memvirt/memory.h>

#include "region.h"
#include "support/fake_platform.h"

struct guest {
	struct fake_platform fake;
	struct mv_memory *memory;
	unsigned char *mem; /* for regions to lie in */
	size_t bytes;
};

void guest_init(struct guest *guest, size_t bytes);
void guest_finish(struct guest *guest);

/* Add a region of whole pages, @offset bytes into the mapping. Return: as add_region. */
int guest_add(struct guest *guest, uint64_t first_gpa, uint64_t pages, size_t offset);

/* The region at an address; for tests that know that it stays. */
struct mv_region *guest_region(struct guest *guest, uint64_t gpa);

static inline uint32_t *guest_word(struct guest *guest, uint64_t gpa)
{
	struct mv_region *region = guest_region(guest, gpa);

	return &region->words[mv_region_page(region, gpa)];
}

/* Fails the test where the counts are not what the words say. */
void guest_check_counts(struct guest *guest);

#endif /* TESTS_GUEST_H */
