/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A world: one set of stage-2 tables and one set of guest tables, made by chance, mostly sane.
 * world_stage2.c and world_guest.c make the two.
 *
 * What does not belong here: accesses (rounds.c), what they lead to (predict.h).
 */
#ifndef METAL_WORLD_H
#define METAL_WORLD_H

#include <stdbool.h>
#include <stdint.h>

#include <memvirt/guest_walk.h>
#include <memvirt/nested.h>
#include <memvirt/stage2.h>
#include <memvirt/table.h>

#include "chance.h"
#include "machine.h"

#define WINDOWS_MAX 6
#define TARGETS_MAX 6
#define TABLES_MAX  37 /* of a guest: five levels for each address; a prime */

/* The pieces of guest_code, by their offset. */
#define CODE_READ     0u
#define CODE_WRITE    8u
#define CODE_LOAD_CR3 16u

/**
 * struct window - guest-physical addresses that lead to stamped pages
 * @gpa: the first
 * @phys: where it leads; inside GUEST_DATA
 * @bytes: how many
 * @attr: what they grant
 */
struct window {
	uint64_t gpa, phys, bytes;
	uint32_t attr;
};

/**
 * struct target - an address that the guest's tables map
 * @gva: a slot's
 * @gpa: where it leads; inside a window
 * @attr: what its page grants
 */
struct target {
	uint64_t gva, gpa;
	uint32_t attr;
};

enum guest_mode {
	GUEST_PAGING_OFF,
	GUEST_32,
	GUEST_PSE,
	GUEST_PAE,
	GUEST_4L,
	GUEST_5L,
	GUEST_MODES,
};

/**
 * struct world
 * @chance:     all that is random comes from here
 * @machine:    it runs on
 * @maxphyaddr: the processor's
 * @table:      stage 2, made by the library
 * @format, @features: of @table
 * @windows:    to data
 * @tables_gpa: where the guest has its tables: page n at table_gpa(n)
 * @tables_hpa: by page: where it really is
 * @tables_used, @tables_freed: pages given out, and given back by the library
 * @contiguous: the pages of tables are neighbours in both spaces, in order
 * @code_gpa:   of the page of guest_code
 * @cpu, @registers: of the guest
 * @mode:       its paging
 * @guest_table: its tables, where the library made them; otherwise they were made by hand
 * @code_gva:   where code is mapped for a supervisor, and for a user
 * @target:     addresses to be accessed
 * @lasting:    changes to entries may stay; otherwise each is put back after its access
 * @changed:    one has
 */
struct world {
	struct chance chance;
	const struct machine *machine;
	unsigned int maxphyaddr;

	struct mv_table *table;
	enum mv_format_id format;
	uint32_t features;
	bool host_nx;
	struct window window[WINDOWS_MAX];
	unsigned int windows;

	uint64_t tables_gpa;
	uint64_t tables_hpa[TABLES_MAX];
	unsigned int tables_used, tables_freed;
	bool contiguous;
	uint64_t code_gpa;

	struct mv_cpu_model cpu;
	struct mv_paging_registers registers;
	enum guest_mode mode;
	struct mv_table *guest_table;
	uint64_t code_gva[2];
	struct target target[TARGETS_MAX];
	unsigned int targets;

	bool lasting, changed;
};

/* Stage 2 first: the guest's tables lie in it. */
void world_make_stage2(struct world *world);

/* Or one that grants everything: all of the guest's memory, GUEST_RAM on, from address 0 on. */
void world_make_plain(struct world *world);
void world_make_guest(struct world *world);

/* Tables that nobody changed are still sound, and go back to the platform whole. */
void world_end(struct world *world);

/**
 * world_read_pdptes() - what a guest in PAE paging has loaded: what is in its memory
 * @world: whose
 * @pdpte: set, without reserved bits; zero where its paging has none
 *
 * Return: false where there were reserved bits: a processor would not have loaded these.
 */
bool world_read_pdptes(const struct world *world, uint64_t pdpte[4]);

/**
 * world_keeps_promise() - whether tables do what was asked of those who made them
 * @world: whose tables are as they were made
 * @gva:   what was accessed
 * @flags: MV_ACCESS_… of it
 * @walk:  what came of it, by the processor's judgement too
 */
bool world_keeps_promise(const struct world *world, uint64_t gva, unsigned int flags,
			 const struct mv_nested_walk *walk);

/* An entry of @bytes, 4 or 8, wherever it is. */
uint64_t entry_read(uint64_t hpa, unsigned int bytes);
void entry_write(uint64_t hpa, unsigned int bytes, uint64_t entry);

/* A guest-physical address that leads to a slot of stamped memory, and its window. */
uint64_t world_any_gpa(struct world *world);

#endif /* METAL_WORLD_H */
