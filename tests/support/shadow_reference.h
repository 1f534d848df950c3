/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a guest's address space is, for tests of shadow tables: a second copy of guest memory, the
 * walk as the manual tells it, and a memory of what each word held before. No line of lib/ is
 * used; the types of registers and of accesses are the library's, so that tests can compare.
 *
 * SDM vol. 3, 4.3 to 4.8 (walk), 4.10.2 to 4.10.4 (what may be stale).
 *
 * What does not belong here: the shadow, and the processor that walks it (shadow_machine.h).
 */
#ifndef TESTS_SHADOW_REFERENCE_H
#define TESTS_SHADOW_REFERENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/guest_walk.h>

#define SREF_BYTES	(16ULL << 20) /* of guest-physical addresses, from 0 */
#define SREF_HOLE_FIRST (8ULL << 20)  /* no memory from here … */
#define SREF_HOLE_LAST	((12ULL << 20) - 1)
#define SREF_PAGES	(SREF_BYTES >> 12)
#define SREF_LOG	8192

/* A value that a word of 8 bytes had, until @step. @older: index + 1 of the one before. */
struct sref_change {
	uint64_t step;
	uint64_t slot;
	uint64_t old;
	uint32_t older;
};

/**
 * struct sref - the reference's view of a machine
 * @memory:  its copy
 * @newest:  by word of 8 bytes: index + 1 into @log of its last change, 0 for none
 * @log:     changes since sref_forget()
 * @step:    counts what happened
 * @touched: by page: whether it was ever written
 */
struct sref {
	unsigned char *memory;
	uint32_t *newest;
	struct sref_change log[SREF_LOG];
	unsigned int changes;
	uint64_t step;
	bool touched[SREF_PAGES];
};

enum sref_mode { SREF_OFF, SREF_32, SREF_PSE, SREF_PAE, SREF_4L, SREF_5L, SREF_MODES };

/* What one vCPU has loaded. */
struct sref_cpu {
	struct mv_paging_registers registers;
	struct mv_cpu_model model;
	uint64_t pdpte[4];
};

enum sref_kind {
	SREF_GOOD,
	SREF_FAULT,
	SREF_NOT_CANONICAL,
	SREF_NO_TABLE, /* a table lies where there is no memory */
};

/**
 * struct sref_result - how a walk ended
 * @entry:       where the entries that were read are; without PDPTEs of PAE paging
 * @entry_bytes: 4 or 8
 */
struct sref_result {
	enum sref_kind kind;
	uint32_t error;
	uint64_t gpa;
	unsigned int page_lg2;
	unsigned int entries;
	unsigned int entry_bytes;
	uint64_t entry[5];
};

/* An INVLPG that a vCPU executed. */
struct sref_invlpg {
	uint64_t step;
	uint64_t gva;
};

/**
 * struct sref_window - since when a vCPU may remember what it has seen
 * @since:  the step of its last flush
 * @invlpg: what it invalidated after that
 */
struct sref_window {
	uint64_t since;
	const struct sref_invlpg *invlpg;
	unsigned int invlpgs;
};

void sref_init(struct sref *ref);
void sref_finish(struct sref *ref);

/* All vCPUs have been flushed: no word has a past. */
void sref_forget(struct sref *ref);

/* Whether the log has room for some more changes. */
bool sref_has_room(const struct sref *ref);

bool sref_is_memory(uint64_t gpa);
uint64_t sref_read(const struct sref *ref, uint64_t gpa, unsigned int bytes);

/* A store that others may overlook until they invalidate. */
void sref_write(struct sref *ref, uint64_t gpa, const void *from, size_t bytes);

/* After a store that all were told of: what stood there before is nobody's any more. */
void sref_told(struct sref *ref, uint64_t gpa, size_t bytes);

enum sref_mode sref_mode(const struct sref_cpu *cpu);

/* Load the PDPTEs. False: #GP; or a table outside memory, where *@outside. */
bool sref_load_pdptes(const struct sref *ref, struct sref_cpu *cpu, bool *outside);

/* The walk to @gva. Sets accessed and dirty in the copy, where it succeeds. */
void sref_walk(struct sref *ref, const struct sref_cpu *cpu, uint64_t gva, unsigned int access,
	       struct sref_result *result);

/* As sref_walk(), but changes nothing. */
void sref_look(const struct sref *ref, const struct sref_cpu *cpu, uint64_t gva,
	       unsigned int access, struct sref_result *result);

/*
 * Whether an access may reach @gpa without a fault: by entries as they are, or as each was at
 * some moment in the window; present, accessed, and dirty where it writes.
 */
bool sref_allows(const struct sref *ref, const struct sref_cpu *cpu,
		 const struct sref_window *window, uint64_t gva, unsigned int access, uint64_t gpa);

#endif /* TESTS_SHADOW_REFERENCE_H */
