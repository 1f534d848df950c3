/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest that has one address translated by one entry a level, each in a table of its own, for
 * tests of walks: set an entry, walk, look. Its memory counts and may fail, or change under
 * the walk.
 */
#ifndef TESTS_PAGED_GUEST_H
#define TESTS_PAGED_GUEST_H

#include <memvirt/guest_walk.h>

#define PAGED_PAGES 64 /* of guest memory, from address 0 */

/* Bits of entries, as the manual numbers them. */
#define PTE_P	   (1ULL << 0)
#define PTE_W	   (1ULL << 1)
#define PTE_U	   (1ULL << 2)
#define PTE_A	   (1ULL << 5)
#define PTE_D	   (1ULL << 6)
#define PTE_PS	   (1ULL << 7)
#define PTE_G	   (1ULL << 8)
#define PTE_NX	   (1ULL << 63)
#define PTE_KEY(k) ((uint64_t)(k) << 59)
#define PTE_ALL	   (PTE_P | PTE_W | PTE_U)

enum paged_mode {
	PAGED_32,
	PAGED_PSE,
	PAGED_PAE,
	PAGED_4L,
	PAGED_5L,
	PAGED_MODES,
};

/**
 * struct paged_guest - registers and memory
 * @page:     what the guest has at addresses 0 …
 * @levels:   of the mode
 * @gva:      the address that is mapped
 * @reads, @changes: calls so far
 * @fail_gpa: reads and changes there return @fail_error; UINT64_MAX for none
 * @disturb:  called before each compare-exchange; may change what it likes
 */
struct paged_guest {
	uint64_t page[PAGED_PAGES][512];
	enum paged_mode mode;
	unsigned int levels;
	uint64_t gva;
	struct mv_paging_registers registers;
	struct mv_cpu_model cpu;
	struct mv_paging paging;
	struct mv_guest_accessor accessor;
	struct mv_walk walk;
	unsigned int reads;
	unsigned int changes;
	uint64_t fail_gpa;
	int fail_error;
	void (*disturb)(struct paged_guest *guest, uint64_t gpa);
};

/* Registers of the mode with everything optional off but WP and NX; entries grant all. */
void paged_init(struct paged_guest *guest, enum paged_mode mode);

/* After @registers or @cpu were changed: prepare them again, and load the PDPTEs. */
void paged_load(struct paged_guest *guest);

/* The entry that translates @gva at a level, and where it is. */
uint64_t paged_entry_gpa(const struct paged_guest *guest, unsigned int level);
uint64_t paged_get(const struct paged_guest *guest, unsigned int level);
void paged_set(struct paged_guest *guest, unsigned int level, uint64_t entry);

/* Any entry of 4 or 8 bytes, as the mode has it. */
void paged_store(struct paged_guest *guest, uint64_t gpa, uint64_t entry);

/* Where the table of a level lies. */
uint64_t paged_table_gpa(const struct paged_guest *guest, unsigned int level);

#define PAGED_OK UINT32_MAX /* no fault; 0 is an error code too */

/* Walk to @gva. Return: the error code of its page fault, or PAGED_OK. */
uint32_t paged_fault(struct paged_guest *guest, unsigned int access);

#endif /* TESTS_PAGED_GUEST_H */
