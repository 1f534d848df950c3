/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A processor for tests of stage-2 spaces: walks the tables as hardware does, sets accessed and
 * dirty, logs to a PML page, and keeps translations in a TLB that nothing but a flush empties.
 *
 * What it reports is encoded as its maker would, and decoded again: see mv_stage2_exit.
 */
#ifndef TESTS_SIM_CPU_H
#define TESTS_SIM_CPU_H

#include <memvirt/asid.h>
#include <memvirt/ept.h>

#include "support/testing.h"

#define SIM_TLB 64

struct sim_translation {
	bool valid;
	unsigned int view;
	uint64_t gpa;
	uint64_t hpa;
	unsigned int page_lg2;
	uint32_t attr; /* as cached: what the tables say by now may be something else */
};

/**
 * struct sim_cpu - one processor
 * @ept, @platform: what it runs on
 * @number:   of the processor
 * @view:     in use: switched without an exit, as VMFUNC does
 * @pml:      whether the log is on; @pml_log, @pml_index: it, and the VMCS field
 * @kick:     atomic: leave the guest
 * @hits, @walks, @exits: so far
 */
struct sim_cpu {
	struct mv_ept *ept;
	const struct mv_platform *platform;
	enum mv_format_id format;
	uint32_t features;
	unsigned int number;
	unsigned int view;
	struct mv_stage2 stage2[4]; /* by view */
	struct sim_translation tlb[SIM_TLB];
	struct chance chance;
	bool pml;
	uint64_t pml_log[MV_EPT_PML_ENTRIES];
	unsigned int pml_index;
	struct mv_asid_context context;
	bool kick;
	uint64_t hits, walks, exits;
} __attribute__((aligned(64)));

void sim_cpu_init(struct sim_cpu *cpu, struct mv_ept *ept, const struct mv_platform *platform,
		  unsigned int number, uint64_t seed);

/* Learn the root of a view; again whenever it was made anew. */
void sim_cpu_load_view(struct sim_cpu *cpu, unsigned int view);

void sim_cpu_flush(struct sim_cpu *cpu);

/* The log is full: no write that would be logged can be made before it is drained. */
bool sim_cpu_pml_full(const struct sim_cpu *cpu);

/* Hand the log over, as a hypervisor does at an exit. */
void sim_cpu_drain(struct sim_cpu *cpu);

/*
 * One access. True: made, at *hpa. False: an exit, described by *exit.
 * MV_ACCESS_READ, _WRITE or _FETCH.
 */
bool sim_cpu_access(struct sim_cpu *cpu, uint64_t gpa, unsigned int access, uint64_t *hpa,
		    struct mv_stage2_exit *exit);

#endif /* TESTS_SIM_CPU_H */
