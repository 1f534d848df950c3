/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest under a shadow, for directed tests: its memory, tables that are built entry by entry, and
 * a processor that walks what the shadow says, with the checks that hardware makes there, and
 * hands its faults in.
 */
#ifndef TESTS_SHADOW_LAB_H
#define TESTS_SHADOW_LAB_H

#include <memvirt/shadow.h>

#include "support/guest.h"
#include "support/paged_guest.h"

#define LAB_PAGES 4096 /* of guest memory, from address 0 */

/**
 * struct lab - one guest, one vCPU
 * @mapped:     where guest.mem began before it was aligned
 * @next_table: pages that lab_map() makes tables of, counting down
 * @write_protected: page that ops->resolve calls read-only; UINT64_MAX for none
 * @page_lg2:   what ops->resolve says
 * @faults:     by kind, so far
 * @flushes:    of ops->flush
 * @on_ahead:   called when ops->resolve is asked for a neighbour, or NULL
 */
struct lab {
	struct guest guest;
	unsigned char *mapped;
	struct mv_shadow *shadow;
	struct mv_shadow_vcpu *vcpu;
	enum paged_mode mode;
	struct mv_paging_registers registers;
	struct mv_cpu_model cpu;
	uint64_t root_hpa;
	uint64_t next_table;
	uint64_t write_protected;
	unsigned int page_lg2;
	unsigned int faults[MV_SHADOW_KINDS];
	unsigned int flushes;
	void (*on_ahead)(uint64_t gpa);
};

struct lab_options {
	enum paged_mode mode;
	bool host_5l;
	size_t budget; /* 0: plenty */
	void (*short_of_pages)(void *ctx);
};

void lab_init(struct lab *lab, const struct lab_options *options);
void lab_finish(struct lab *lab);

/* Load the registers. Return: as mv_shadow_load_root(). */
int lab_load(struct lab *lab);

/* A page of zeros for a table. */
uint64_t lab_table(struct lab *lab);

/* The guest's memory; and a write that the VMM has emulated. */
uint64_t lab_read(struct lab *lab, uint64_t gpa);
void lab_poke(struct lab *lab, uint64_t gpa, uint64_t value);
void lab_write(struct lab *lab, uint64_t gpa, uint64_t value);

/* Where the entry that translates @gva at @level is; tables above are made (and grant all). */
uint64_t lab_entry(struct lab *lab, uint64_t gva, unsigned int level);

/* Set that entry, by an emulated write. */
void lab_map(struct lab *lab, uint64_t gva, unsigned int level, uint64_t entry);

/** struct lab_access - how an access ended: FIXED where it was made, at @hpa */
struct lab_access {
	enum mv_shadow_kind kind;
	uint64_t hpa;
	struct mv_walk walk;
};

/* Make an access, as often as it takes. */
struct lab_access lab_touch(struct lab *lab, uint64_t gva, unsigned int access);

/* The same, and fail the test where it does not end as the guest's own walk says. */
void lab_check(struct lab *lab, uint64_t gva, unsigned int access);

/* Whether the shadow, as it is, lets an access through. */
bool lab_reaches(struct lab *lab, uint64_t gva, unsigned int access, uint64_t *hpa);

static inline uint64_t lab_hpa(const struct lab *lab, uint64_t gpa)
{
	return (uintptr_t)lab->guest.mem + gpa;
}

#endif /* TESTS_SHADOW_LAB_H */
