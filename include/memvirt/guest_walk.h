/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's own translation, stage 1: from a guest-virtual to a guest-physical address as
 * the guest's registers and tables say, with the checks and the fault codes of a processor.
 *
 * The guest's tables are reached through an accessor only. A guest is not trusted: whatever
 * its tables hold, a walk reads at most one entry a level, and ends.
 *
 * What does not belong here: stage 2 (stage2.h), both together (nested.h).
 */
#ifndef MEMVIRT_GUEST_WALK_H
#define MEMVIRT_GUEST_WALK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/table.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct mv_memory;

/**
 * struct mv_paging_registers - what a guest has loaded
 * @cr0, @cr3, @cr4, @efer: as the processor holds them; EFER.LMA may be left out
 * @pkru, @pkrs:            protection-key rights for user and for supervisor pages
 */
struct mv_paging_registers {
	uint64_t cr0;
	uint64_t cr3;
	uint64_t cr4;
	uint64_t efer;
	uint32_t pkru;
	uint32_t pkrs;
};

/* What the processor that the guest believes in can do: CPUID, not a register. */
#define MV_CPU_1G	0x0001u /* 1 GiB pages (PDPE1GB) */
#define MV_CPU_PSE36	0x0002u /* 4 MiB pages above 4 GiB */
#define MV_CPU_AMD	0x0004u /* where the two vendors differ, AMD's manual holds */

/**
 * struct mv_cpu_model - the guest's processor
 * @maxphyaddr: guest-physical address width, bits; 32 to 52
 * @features:   MV_CPU_…
 */
struct mv_cpu_model {
	unsigned int maxphyaddr;
	uint32_t features;
};

/**
 * struct mv_paging - the registers, prepared for walks; to be looked at, not changed
 *
 * Plain data, no pointer in it: copy it as you like. Prepared by mv_paging_init().
 * @keys: rights by protection key, for supervisor [0] and user pages [1]; 0 where there are none
 * @lam_sign_bit: LAM: which bit replaces the tag above it, of pointers with bit 63 clear [0] and
 *        set [1]; 0 for none
 */
struct mv_paging {
	bool enabled;		  /* CR0.PG; otherwise GVA is GPA */
	enum mv_format_id format; /* where enabled */
	struct mv_paging_registers registers;
	struct mv_cpu_model cpu;
	struct mv_rules rules;	  /* of the format, in this mode */
	uint64_t root;		  /* GPA of the root table, from CR3 */
	uint64_t pdpte[4];	  /* PAE: cached at the load of CR3 */
	uint32_t keys[2];
	uint8_t lam_sign_bit[2];
};

/**
 * struct mv_guest_accessor - how a walk reaches the guest's tables
 * @read:   the entry of @bytes (4 or 8) at @gpa, whole: no half of what a guest stores.
 *          0; -EFAULT where there is no memory. Another negative code ends the walk with it.
 * @change: compare-exchange of that entry. 0; -EAGAIN where it is not *@old any more; as @read
 *          otherwise. NULL: accessed and dirty are never set.
 * @ctx:    for both
 */
struct mv_guest_accessor {
	int (*read)(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry);
	int (*change)(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t old, uint64_t entry);
	void *ctx;
};

/*
 * The access to be made. None of READ, WRITE, FETCH: translate only; no rights are asked, and
 * nothing is set.
 */
#define MV_ACCESS_READ	       0x0001u
#define MV_ACCESS_WRITE	       0x0002u
#define MV_ACCESS_FETCH	       0x0004u
#define MV_ACCESS_USER	       0x0008u /* by CPL 3, and not implicit */
#define MV_ACCESS_IMPLICIT     0x0010u /* supervisor access of its own: descriptor tables, TSS */
#define MV_ACCESS_AC	       0x0020u /* EFLAGS.AC is set: SMAP lets explicit accesses through */
#define MV_ACCESS_SHADOW_STACK 0x0040u /* CET: a shadow-stack access; with READ or WRITE */
#define MV_ACCESS_NO_UPDATE    0x0080u /* a debugger's look: accessed and dirty stay as they are */

/* Page-fault error code, SDM vol. 3, 4.7. */
#define MV_PF_PRESENT	   0x0001u
#define MV_PF_WRITE	   0x0002u
#define MV_PF_USER	   0x0004u
#define MV_PF_RESERVED	   0x0008u
#define MV_PF_FETCH	   0x0010u
#define MV_PF_PKEY	   0x0020u
#define MV_PF_SHADOW_STACK 0x0040u

/** enum mv_walk_kind - how a guest walk ends */
enum mv_walk_kind {
	MV_WALK_OK,
	MV_WALK_PAGE_FAULT,    /* #PF with error_code */
	MV_WALK_NOT_CANONICAL, /* #GP(0), or #SS(0) through the stack segment */
};

/**
 * struct mv_walk_step - one entry that a walk read
 * @gpa:   where it was
 * @entry: what it held when read, before accessed or dirty was set
 * @level: its level
 */
struct mv_walk_step {
	uint64_t gpa;
	uint64_t entry;
	unsigned int level;
};

/**
 * struct mv_walk - the result of a guest walk
 * @kind:       how it ended; what follows holds as noted
 * @gpa:        OK: the guest-physical address
 * @page_lg2:   OK: log2 of the page's bytes; 32 with paging off
 * @attr:       OK: what all levels together grant (READ, WRITE, EXEC, USER), and the rest of
 *              the leaf (GLOBAL, PAT index, protection key, ACCESSED, DIRTY, SOFT0, SOFT1), as
 *              it is after the walk
 * @error_code: PAGE_FAULT: MV_PF_…
 * @level:      level of the entry that ended the walk; 0 where none was read
 * @steps:      entries in @step; 0 with paging off
 * @step:       from the root down; with PAE the cached PDPTE comes first
 *
 * What does not hold for a kind is 0.
 */
struct mv_walk {
	enum mv_walk_kind kind;
	uint64_t gpa;
	unsigned int page_lg2;
	uint32_t attr;
	uint32_t error_code;
	unsigned int level;
	unsigned int steps;
	struct mv_walk_step step[MV_LEVEL_MAX];
};

/**
 * mv_paging_init() - prepare a guest's registers for walks
 * @paging:    to be filled
 * @registers: the guest's
 * @cpu:       the processor it believes in
 *
 * PAE: the four PDPTEs are not loaded yet, all are absent; see mv_paging_load_pdptes().
 * SDM vol. 3, 4.1.
 *
 * Context: any thread; no side effect.
 * Return: 0; -EINVAL for a combination that no processor can be in (PG without PE, LME with PG
 * and without PAE, LMA without LME or PG, CET without WP, a CR3 beyond the width), and for a
 * width out of range.
 */
int mv_paging_init(struct mv_paging *paging, const struct mv_paging_registers *registers,
		   const struct mv_cpu_model *cpu);

/**
 * mv_paging_load_pdptes() - PAE: what a load of CR3 does, SDM vol. 3, 4.4.1
 * @paging:   prepared; its pdpte[] is set on success
 * @accessor: the guest's memory
 *
 * Context: as the accessor.
 * Return: 0, also where the mode has none; -EINVAL where a present one has a reserved bit: the
 * guest gets #GP(0), and keeps the old ones; what the accessor returned.
 */
int mv_paging_load_pdptes(struct mv_paging *paging, const struct mv_guest_accessor *accessor);

/**
 * mv_guest_walk() - translate as the processor would
 * @paging:   prepared registers
 * @accessor: the guest's memory
 * @gva:      guest-virtual address
 * @access:   MV_ACCESS_…
 * @walk:     set where 0 is returned
 *
 * Sets accessed on every level and dirty on the leaf of a write, by compare-exchange, after all
 * checks have passed; where an entry changed meanwhile the walk starts again. A faulting walk
 * leaves the leaf alone.
 * SDM vol. 3, 4.6 to 4.8; APM vol. 2, 5.
 *
 * Context: as the accessor.
 * Return: 0, whatever walk->kind is; what the accessor returned where it failed, -EFAULT where
 * a table lies outside memory (a processor reads all ones from there); -EAGAIN where the
 * guest changed its tables at every one of many attempts.
 */
int mv_guest_walk(const struct mv_paging *paging, const struct mv_guest_accessor *accessor,
		  uint64_t gva, unsigned int access, struct mv_walk *walk);

/**
 * mv_guest_accessor_memory() - the accessor of a memory
 * @accessor: filled
 * @memory:   regions in which the guest's tables lie
 *
 * Context: the accessor sleeps while a page is restored; not on a thread that resolves faults.
 */
void mv_guest_accessor_memory(struct mv_guest_accessor *accessor, struct mv_memory *memory);

/**
 * mv_guest_for_each_leaf() - every leaf of a guest's address space
 * @paging:   prepared registers
 * @accessor: the guest's memory
 * @first:    first address; canonical
 * @last:     last address, inclusive; canonical
 * @leaf:     called in ascending order, attr as in struct mv_walk; not 0 ends the walk
 * @ctx:      for @leaf
 *
 * Entries with reserved bits, and tables outside memory, are passed over. Nothing is set in the
 * tables. A guest may point all entries of a table at one table, with or without leaves at the
 * end: the time is bounded by the size of the address space only, so end it from @leaf, or from
 * the accessor by an error.
 *
 * Context: as the accessor.
 * Return: 0; -EINVAL where @first or @last is not canonical, or above @last; what @leaf returned;
 * what the accessor returned other than -EFAULT.
 */
int mv_guest_for_each_leaf(const struct mv_paging *paging, const struct mv_guest_accessor *accessor,
			   uint64_t first, uint64_t last,
			   int (*leaf)(void *ctx, const struct mv_mapping *mapping), void *ctx);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_GUEST_WALK_H */
