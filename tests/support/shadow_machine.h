/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A machine whose guest runs on shadow tables, for tests: guest memory whose pages change their
 * place in host-physical addresses, processors that walk the shadow as a plain x86 table, with
 * or without a TLB, a VMM that obeys every outcome, and after each access the judgement of the
 * reference (shadow_reference.h): was it allowed, was the fault the guest's own, are accessed and
 * dirty as they have to be. What is wrong ends the program.
 *
 * What does not belong here: what the guest does. That is up to each test.
 */
#ifndef TESTS_SHADOW_MACHINE_H
#define TESTS_SHADOW_MACHINE_H

#include <memvirt/shadow.h>

#include "support/fake_platform.h"
#include "support/shadow_reference.h"
#include "support/testing.h"

#define SM_VCPUS   4
#define SM_PLACES  4 /* where guest memory may be in host-physical addresses */
#define SM_INVLPGS 64
#define SM_PCIDS   4

/* Registers' bits. */
#define SM_CR0_PE    (1ULL << 0)
#define SM_CR0_WP    (1ULL << 16)
#define SM_CR0_PG    (1ULL << 31)
#define SM_CR4_PSE   (1ULL << 4)
#define SM_CR4_PAE   (1ULL << 5)
#define SM_CR4_PGE   (1ULL << 7)
#define SM_CR4_LA57  (1ULL << 12)
#define SM_CR4_PCIDE (1ULL << 17)
#define SM_CR4_SMEP  (1ULL << 20)
#define SM_CR4_SMAP  (1ULL << 21)
#define SM_EFER_LME  (1ULL << 8)
#define SM_EFER_NXE  (1ULL << 11)

/* Since when a vCPU may remember what it saw with one PCID. */
struct sm_memory {
	uint64_t since;
	struct sref_invlpg invlpg[SM_INVLPGS];
	unsigned int invlpgs;
};

#define SM_TLB 32

/* What a processor remembers of a page; what is a part of a larger one knows of it. */
struct sm_translation {
	bool valid, writable, user, no_exec, dirty;
	unsigned int lg2;
	uint64_t gva;
	uint64_t hpa;
};

struct sm_vcpu {
	struct mv_shadow_vcpu *vcpu;
	struct sref_cpu cpu;
	struct sm_translation tlb[SM_TLB];
	uint64_t root; /* of the shadow, in the processor's CR3 */
	struct sm_memory memory[SM_PCIDS];
};

/**
 * struct sm_counts - what happened
 * @accesses: made by guests; of these without a fault: @hits; through
 *            what was stale, with or without one: @stale
 * @faults:   of the processors
 * @kinds:    by how they ended
 */
struct sm_counts {
	uint64_t accesses, hits, stale, faults;
	uint64_t kinds[MV_SHADOW_KINDS];
};

/**
 * struct shadow_machine - all of it
 * @format, @features, @maxphyaddr, @budget: of the host; set before sm_open()
 * @hva:       guest memory, where the library sees it
 * @place:     the same memory, where the processor does
 * @placed:    by page: in which of these it is
 * @reachable: by page: resolved, and not given away since
 * @tlb:       processors have one. What the VMM writes for the guest may be stale in it, as if
 *             the guest had written it
 * @large:     whether backing may be of 2 MiB
 * @read_only: by page
 * @mixed:     by 2 MiB: its pages lie in several places, or differ in @read_only
 * @seen:      memory as it was when each page was last harvested, or made zeros
 * @logged:    by region: writes are to be told of by harvests
 * @tracked:   by page: so many want to see each write
 * @used:      by page: a processor walked there, and nobody has asked since
 * @busy:      resolve says -EAGAIN so many times
 * @lenient:   allocations fail: -ENOMEM ends an access, and says so
 */
struct shadow_machine {
	enum mv_format_id format;
	uint32_t features;
	unsigned int maxphyaddr;
	size_t budget;

	struct fake_platform fake;
	struct mv_memory *memory;
	struct mv_shadow *shadow;
	struct sm_vcpu vcpus[SM_VCPUS];
	unsigned int vcpu_count;
	struct sref ref;
	int fd;
	unsigned char *hva;
	unsigned char *seen;
	unsigned char *place[SM_PLACES];
	uint8_t placed[SREF_PAGES];
	bool reachable[SREF_PAGES];
	bool read_only[SREF_PAGES];
	bool mixed[SREF_BYTES >> 21];
	bool logged[2];
	uint16_t tracked[SREF_PAGES];
	bool used[SREF_PAGES];
	bool tlb;
	bool large;
	bool lenient;
	unsigned int busy;
	uint64_t flushes;
	struct { /* for who reads what went wrong */
		uint64_t world;
		unsigned int vcpu;
		uint64_t gva;
		unsigned int kind;
	} now;
	struct sm_counts counts;
};

/* Memory, once for many machines in turn. */
void sm_map(struct shadow_machine *machine);
void sm_unmap(struct shadow_machine *machine);

/* A machine of @vcpus, memory all zeros. Return: 0, or what the library returned; then closed. */
int sm_try_open(struct shadow_machine *machine, unsigned int vcpus);
void sm_open(struct shadow_machine *machine, unsigned int vcpus);

/* Fails where something was not freed. */
void sm_close(struct shadow_machine *machine);

/* Registers of a mode, with WP, and NXE where there is NX; the root table is at @root. */
void sm_registers(enum sref_mode mode, uint64_t root, struct mv_paging_registers *registers);

/* Load CR3, or change the mode. Return: as mv_shadow_load_root(), which was as it has to be. */
int sm_load(struct shadow_machine *machine, unsigned int vcpu,
	    const struct mv_paging_registers *registers, bool preserve);

/* The same once more: a load of CR3, with the value it has. */
int sm_reload(struct shadow_machine *machine, unsigned int vcpu);

void sm_invlpg(struct shadow_machine *machine, unsigned int vcpu, uint64_t gva);
void sm_invpcid(struct shadow_machine *machine, unsigned int vcpu, enum mv_invpcid type,
		unsigned int pcid, uint64_t gva);
void sm_flush(struct shadow_machine *machine, unsigned int vcpu, bool global);

/* How an access ended. */
enum sm_end {
	SM_DONE,
	SM_FAULTED, /* the guest has got a fault, with *error */
	SM_EMULATED,
	SM_MMIO,
	SM_NO_TABLE,
	SM_NO_MEMORY, /* where the machine is lenient */
};

/**
 * struct sm_access - what a vCPU does
 * @gva, @kind:     where, and MV_ACCESS_…
 * @value, @bytes:  what a write stores there: 1 to 8 bytes, not across a page
 * @end:            set: how it ended; and what follows
 * @error:          FAULTED
 * @faults:         of the processor, on the way
 * @gpa:            DONE, EMULATED, MMIO: where it went
 */
struct sm_access {
	uint64_t gva;
	unsigned int kind;
	uint64_t value;
	unsigned int bytes;
	enum sm_end end;
	uint32_t error;
	unsigned int faults;
	uint64_t gpa;
};

void sm_access(struct shadow_machine *machine, unsigned int vcpu, struct sm_access *access);

/* The same in one line, for tests that know how it ends: where the access went. */
#define SM_NOWHERE UINT64_MAX
uint64_t sm_touch(struct shadow_machine *machine, unsigned int vcpu, uint64_t gva,
		  unsigned int kind);

/* The error code, or UINT32_MAX where there was no fault. */
uint32_t sm_error(struct shadow_machine *machine, unsigned int vcpu, uint64_t gva,
		  unsigned int kind);

/* Whether the processor would make the access now, without a fault. */
bool sm_maps(struct shadow_machine *machine, unsigned int vcpu, uint64_t gva, unsigned int kind);

/* As the processor's instruction; all of the TLB where @gva is NULL. */
void sm_tlb_forget(struct sm_vcpu *vcpu, const uint64_t *gva);

/* The VMM stores on behalf of the guest, and says so. */
void sm_emulate(struct shadow_machine *machine, uint64_t gpa, const void *from, size_t bytes);
void sm_set(struct shadow_machine *machine, uint64_t gpa, uint64_t entry);
void sm_set_narrow(struct shadow_machine *machine, uint64_t gpa, uint32_t entry);

/* What guest memory holds. */
uint64_t sm_get(const struct shadow_machine *machine, uint64_t gpa);

/* Give pages up; they read as zeros then, and come back in another place. */
void sm_discard(struct shadow_machine *machine, uint64_t first_gpa, uint64_t pages);

/* Whether pages are read-only for the guest; before it touches them. */
void sm_set_read_only(struct shadow_machine *machine, uint64_t gpa, bool read_only);

/*
 * Ranges of pages: taken out of the shadow; asked whether they were used, or written to, which
 * fails where one that was is not told of; all writes seen, or no more; a region logged, or no more.
 */
void sm_zap(struct shadow_machine *machine, uint64_t first_page, uint64_t pages);
void sm_age(struct shadow_machine *machine, uint64_t first_page, uint64_t pages);
void sm_harvest(struct shadow_machine *machine, uint64_t first_page, uint64_t pages);
void sm_track(struct shadow_machine *machine, uint64_t first_page, uint64_t pages);
void sm_untrack(struct shadow_machine *machine, uint64_t first_page, uint64_t pages);
void sm_log(struct shadow_machine *machine, unsigned int region, bool on);

/* A page is in another place; whoever has a translation of it must lose that. */
void sm_move(struct shadow_machine *machine, uint64_t page);

/* For the processor: what it has done to a page. */
void sm_note_hit(struct shadow_machine *machine, uint64_t gpa, bool write);

/* Compare memory with the reference's: accessed and dirty, too. */
void sm_compare(struct shadow_machine *machine, uint64_t first_gpa, uint64_t pages);
void sm_compare_all(struct shadow_machine *machine);

#endif /* TESTS_SHADOW_MACHINE_H */
