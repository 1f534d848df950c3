/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stage-2 space over a memory on the fake platform, for tests: the formats it is to be tried
 * with, and flushes that are counted and empty the TLBs of simulated processors.
 */
#ifndef TESTS_EPT_RIG_H
#define TESTS_EPT_RIG_H

#include <memvirt/ept.h>

#include "support/guest.h"
#include "support/sim_cpu.h"

#define RIG_EPT_FEATURES                                                                           \
	(MV_FEATURE_2M | MV_FEATURE_1G | MV_FEATURE_ACCESSED | MV_FEATURE_EXEC_ONLY | MV_FEATURE_VE)
#define RIG_NPT_FEATURES (MV_FEATURE_2M | MV_FEATURE_1G | MV_FEATURE_NX)

#define RIG_ALL (MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_EXEC_USER)

/* What a test may change before ept_rig_open(). */
struct ept_rig_options {
	enum mv_format_id format;
	uint32_t features; /* 0: all that the format has */
	uint32_t policy;
	size_t page_limit;
	unsigned int largest_lg2;
	const struct mv_ept_ops *ops; /* NULL: the rig's: hpa is hva, flushes are recorded */
	size_t bytes;		      /* of the mapping that regions lie in; aligned to 1 GiB */
};

struct ept_rig {
	struct guest guest;
	struct mv_ept *ept;
	enum mv_format_id format;
	uint32_t features;
	unsigned char *base;  /* aligned to 1 GiB, within guest.mem */
	struct sim_cpu *cpus; /* flushed when the space is */
	unsigned int cpu_count;
	uint64_t flushes;
	uint64_t flush_first, flush_last; /* of the last one */
	void (*on_flush)(void);		  /* called once, at the next flush, where not NULL */
	/* What resolve says. */
	unsigned int page_lg2;
	bool read_only;
	int resolve_error;
	uint64_t resolves;
};

static inline bool rig_is_ept(enum mv_format_id format)
{
	return format == MV_FORMAT_EPT_4L || format == MV_FORMAT_EPT_5L;
}

void ept_rig_open(struct ept_rig *rig, const struct ept_rig_options *options);

/* Detaches, destroys, and fails where something was not freed. */
void ept_rig_close(struct ept_rig *rig);

/* A region of whole pages, @offset bytes into the aligned mapping, attached. */
void ept_rig_region(struct ept_rig *rig, uint64_t first_gpa, uint64_t pages, uint64_t offset);

/* Fails the test where an invariant of the space does not hold. */
void ept_rig_check(struct ept_rig *rig);

/* A fault as a processor would report it. */
struct mv_stage2_exit rig_exit(uint64_t gpa, unsigned int access);
struct mv_ept_outcome rig_fault(struct ept_rig *rig, unsigned int view, uint64_t gpa,
				unsigned int access);

/* A processor's access with all the faults that it takes. Return: how the last one ended. */
enum mv_ept_fault_kind rig_touch(struct ept_rig *rig, struct sim_cpu *cpu, uint64_t gpa,
				 unsigned int access, uint64_t *hpa);

/* Give a range's content up. */
int rig_discard(struct ept_rig *rig, uint64_t first_gpa, uint64_t last_gpa);

#endif /* TESTS_EPT_RIG_H */
