/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The library's stage-2 walk beside the predicate's verdict: one case is a world, an entry a level,
 * an address and an access. The entries are served twice: by an accessor that insists on the
 * order and the addresses of what is read, and from real memory through the direct map.
 */
#ifndef TESTS_STAGE2_RIG_H
#define TESTS_STAGE2_RIG_H

#include <memvirt/stage2.h>

#include "support/stage2_predicate.h"

/* Physical addresses below this are real memory, as far as they are touched. */
#define STAGE2_RIG_MEMORY (1ULL << 40)

struct stage2_rig {
	struct stage2_world world;
	struct mv_stage2 behind_accessor;
	struct mv_stage2 direct;
	unsigned char *memory;
	struct stage2_expected expected;

	/* What the accessor serves and is told. */
	uint64_t entry[6];
	unsigned int next; /* level that is to be read next */
	bool astray;	   /* an address that was not to be accessed */

	uint64_t root;
	uint64_t gpa;
	struct stage2_access access;

	uint64_t cases;
	uint64_t mismatches; /* the first few are printed */
};

/* Context: a test; skips it where there is no address space. */
void stage2_rig_open(struct stage2_rig *rig);
void stage2_rig_close(struct stage2_rig *rig);

/* Another world, with its root where @root says. */
void stage2_rig_enter(struct stage2_rig *rig, const struct stage2_world *world, uint64_t root);

/* One case, both ways. @entry: by level. */
void stage2_rig_try(struct stage2_rig *rig, const uint64_t *entry, uint64_t gpa,
		    const struct stage2_access *access);

/* The same facts, in the library's words. */
unsigned int stage2_rig_access(const struct stage2_access *access);
uint32_t stage2_rig_features(const struct stage2_world *world);

#endif /* TESTS_STAGE2_RIG_H */
