/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The processor's side: put a guest into a state, let it make one access, and tell how that
 * ended. One machine per vendor: machine_vmx.c, machine_svm.c; and one that runs guests on shadow
 * tables, on either of these: machine_shadow.c.
 *
 * What does not belong here: what ought to come out (predict.h).
 */
#ifndef METAL_MACHINE_H
#define METAL_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

/**
 * struct guest_state - what the guest starts with
 * @long_mode:    64-bit code; otherwise 32-bit
 * @user:         CPL 3
 * @ac:           EFLAGS.AC
 * @pdpte:        PAE: what a load of CR3 would have cached
 * @stage2_root:  physical address of the EPT or nested tables
 * @stage2_ad:    EPT accessed and dirty flags
 * @mode_execute: EPT mode-based execute
 * @host_nx:      EFER.NXE of the host, which holds for nested page tables
 * @one_stage:    there are no stage-2 tables: what @cr3 points to leads to physical memory
 */
struct guest_state {
	uint64_t cr0, cr3, cr4, efer;
	uint32_t pkru, pkrs;
	bool long_mode, user, ac;
	uint64_t rip, rax, rbx;
	uint64_t pdpte[4];
	uint64_t stage2_root;
	bool stage2_ad, mode_execute, host_nx;
	bool one_stage;
};

enum outcome_kind {
	OUTCOME_DONE,	       /* the guest reached its CPUID */
	OUTCOME_EXCEPTION,     /* it would have taken one */
	OUTCOME_VIOLATION,     /* EPT violation, #NPF without the reserved bit */
	OUTCOME_MISCONFIGURED, /* EPT misconfiguration, #NPF with it */
	OUTCOME_OTHER,	       /* nothing that is ever predicted */
};

/**
 * struct outcome - how a run ended, as a machine reports it or as it is predicted
 * @rip:     of the instruction that ended it
 * @rbx:     DONE: what was read, or what the fetched instruction left there
 * @vector:  EXCEPTION
 * @code:    EXCEPTION: error code; VIOLATION and MISCONFIGURED: qualification or EXITINFO1;
 *           OTHER: exit reason or code
 * @address: EXCEPTION #PF: CR2; VIOLATION and MISCONFIGURED: guest-physical address
 * @linear:  VIOLATION: guest-linear address, where there is one
 */
struct outcome {
	enum outcome_kind kind;
	uint64_t rip, rbx;
	unsigned int vector;
	uint64_t code, address, linear;
};

/**
 * struct machine - one way to run guests
 * @name:         for people
 * @ept:          EPT; otherwise nested page tables
 * @start:        switch it on; false where the processor has no such thing
 * @features:     after @start: MV_FEATURE_… that the second stage may use
 * @paging_off:   after @start: guests may run without paging
 * @loads_cr3:    after @start: guests may load CR3 by themselves
 * @keys:         guests may use protection keys
 * @five_levels:  guests may have five levels, where the processor has them
 * @shadow:       guests run on shadow tables: all their memory is there, in one piece
 * @enter:        one run; never returns what it does not know but as OUTCOME_OTHER
 */
struct machine {
	const char *name;
	bool ept;
	bool (*start)(void);
	uint32_t features;
	bool paging_off;
	bool loads_cr3;
	bool keys, five_levels;
	bool shadow;
	void (*enter)(const struct guest_state *state, struct outcome *outcome);
};

extern struct machine machine_vmx, machine_svm, machine_shadow;

struct world;

/* Guests run on shadow tables from now on, by a machine that has been started. */
void machine_shadow_start(const struct machine *below);

/* A shadow for the guest of a world, before that is made; and the end of it. */
void machine_shadow_begin(struct world *world);
void machine_shadow_end(void);

/* How the faults of all worlds ended. */
void machine_shadow_say(void);

#endif /* METAL_MACHINE_H */
