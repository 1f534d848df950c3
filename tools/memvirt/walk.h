/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memvirt walk: what the parts of the command share.
 *
 *	walk.c         the command line
 *	walk_vm.c      the VM: its registers, its memory, how to reach them
 *	walk_memory.c  reading its memory
 *	walk_space.c   one address space: translate, through both stages
 *	walk_map.c     all of an address space
 *	walk_decode.c, walk_fault.c  entries and faults in words
 *	walk_text.c, walk_json.c     output
 */
#ifndef MEMVIRT_WALK_H
#define MEMVIRT_WALK_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <memvirt/guest_walk.h>
#include <memvirt/stage2.h>

#include "memvirt/walk_memory.h"
#include "vm/machine.h"
#include "vm/rundir.h"

/** enum walk_second - whose second stage is walked */
enum walk_second {
	WALK_NO_SECOND,
	WALK_EPT,
	WALK_NPT,
};

/* Registers that the command line may replace, as bits of walk_options.given. */
enum walk_register {
	WALK_CR0,
	WALK_CR3,
	WALK_CR4,
	WALK_EFER,
	WALK_PKRU,
	WALK_REGISTERS,
};

/**
 * struct walk_options - the command line
 * @vm:      name, or path of the control socket; NULL with @qmp
 * @qmp:     QEMU's monitor socket; NULL with @vm
 * @ram:     file behind the guest's RAM; NULL to find it out
 * @run_dir: NULL for the usual one
 * @cpu:     which processor
 * @value:   of registers that are @given, bits by enum walk_register
 * @second:  second stage of a guest's own guest, with its root register @second_root, and for
 *           NPT @second_levels
 * @access:  MV_ACCESS_…
 * @limit:   mappings to print; UINT64_MAX for all
 */
struct walk_options {
	const char *vm;
	const char *qmp;
	const char *ram;
	const char *run_dir;
	unsigned int cpu;
	unsigned int given;
	uint64_t value[WALK_REGISTERS];
	enum walk_second second;
	uint64_t second_root;
	unsigned int second_levels;
	unsigned int access;
	uint64_t limit;
	bool gpa;
	bool map;
	bool leaves;
	bool json;
	bool stage2;
};

/* --- the VM ------------------------------------------------------------------------------- */

/**
 * struct walk_vm - a VM that is looked at
 * @name:      as memvirt knows it; empty for none
 * @pid:       the VMM's; 0 for unknown
 * @qmp:       connection to its monitor
 * @control:   to its control socket; NULL where it is not managed
 * @registers: of the processor that was asked for
 * @cpu:       what that processor can do
 * @memory:    its memory
 */
struct walk_vm {
	char name[RUNDIR_NAME_MAX + 1];
	pid_t pid;
	struct rpc *qmp;
	struct rpc *control;
	struct machine_registers registers;
	struct mv_cpu_model cpu;
	struct walk_memory memory;
};

/**
 * walk_vm_open() - connect, and learn all that a walk needs
 * @options: which
 * @vm:      set on success
 *
 * Says what is wrong.
 *
 * Return: 0; -1.
 */
int walk_vm_open(const struct walk_options *options, struct walk_vm *vm);

/** walk_vm_close() - hang up */
void walk_vm_close(struct walk_vm *vm);

/* --- its address spaces ------------------------------------------------------------------- */

/** enum walk_outcome - how a translation ended */
enum walk_outcome {
	WALK_OK,
	WALK_FAULT,	   /* stage 1: page fault, or not canonical */
	WALK_STAGE2_FAULT, /* stage 2 of a guest's guest */
	WALK_OUTSIDE,	   /* a table lies where no memory is */
	WALK_READ_FAILED,  /* memory that exists could not be read */
};

/**
 * struct walk_result - one address, translated
 * @address: as given
 * @outcome: how it ended
 * @paged:   stage 1 was walked: @guest holds, with the entries read also where it did not end
 * @guest:   stage 1
 * @gpa:     what stage 1 made of it, or what was given as such
 * @tables:  with a second stage: translations of the tables of stage 1, by step
 * @second:  with a second stage: that of @gpa; with WALK_STAGE2_FAULT the one that failed
 * @has_second: it holds
 * @second_of_table: the one that failed was for a table of stage 1
 * @phys:    OK: address in the VM's memory
 * @range:   OK: where that is; NULL: no memory, a device or nothing
 * @missing: OUTSIDE: where the table would be
 */
struct walk_result {
	uint64_t address;
	enum walk_outcome outcome;
	bool paged;
	struct mv_walk guest;
	uint64_t gpa;
	struct mv_stage2_walk tables[MV_LEVEL_MAX];
	bool has_second;
	bool second_of_table;
	struct mv_stage2_walk second;
	uint64_t phys;
	const struct walk_range *range;
	uint64_t missing;
};

/**
 * struct walk_space - an address space
 * @memory:   where tables are
 * @paging:   stage 1
 * @has_second, @second: the second stage of a guest's guest, whose addresses stage 1 then gives
 * @accessor: for stage 1, through the second stage where there is one
 * @more_access: what the processor's flags add to every access
 * @pkru_guessed: rights by key are asked for, and not known
 * @trace:    what the walk under way has read of stage 1, @traced entries
 * @tables:   and the translations of these entries' addresses
 * @stopped:  what made it end early, besides an error: WALK_OK for nothing
 * @missing:  where no memory is
 */
struct walk_space {
	struct walk_memory *memory;
	struct mv_paging paging;
	bool has_second;
	struct mv_stage2 second;
	struct mv_guest_accessor accessor;
	unsigned int more_access;
	bool pkru_guessed;

	struct mv_walk_step trace[MV_LEVEL_MAX];
	struct mv_stage2_walk tables[MV_LEVEL_MAX];
	unsigned int traced;
	enum walk_outcome stopped;
	struct mv_stage2_walk failed;
	uint64_t missing;
};

/**
 * walk_space_open() - the address space that registers and options name
 * @space: set on success; not moved in memory from then on
 *
 * Says what is wrong.
 *
 * Return: 0; -1.
 */
int walk_space_open(struct walk_space *space, struct walk_vm *vm,
		    const struct walk_options *options);

/** walk_space_translate() - one address, as the options say. Return: 0; -1, and says why. */
int walk_space_translate(struct walk_space *space, const struct walk_options *options,
			 uint64_t address, struct walk_result *result);

/** walk_access_name() - "read", "user write", …; "translation" for none */
const char *walk_access_name(unsigned int access, char *text, size_t len);

/** walk_reason() - why it was not translated; DECODE_REASON_MAX bytes */
void walk_reason(const struct walk_space *space, const struct walk_result *result,
		 unsigned int access, char *text);

/* --- all of it ---------------------------------------------------------------------------- */

/**
 * struct walk_stretch - neighbouring addresses that are mapped alike
 * @first, @last: addresses
 * @page_lg2:     of each page
 * @attr:         MV_ATTR_… that all have
 * @phys:         of the first
 * @contiguous:   the others follow it in physical memory too
 * @level, @entry: of the leaf, where it is one
 */
struct walk_stretch {
	uint64_t first;
	uint64_t last;
	unsigned int page_lg2;
	uint32_t attr;
	uint64_t phys;
	bool contiguous;
	unsigned int level;
	uint64_t entry;
};

/**
 * walk_map() - every mapping of an address space, in ascending order
 * @first: first address
 * @last:  last one
 * @print: called for each leaf, or for each stretch
 * @ctx:   for @print
 *
 * Says what is wrong.
 *
 * Return: 0; 1 where the limit ended it; -1.
 */
int walk_map(struct walk_space *space, const struct walk_options *options, uint64_t first,
	     uint64_t last, void (*print)(void *ctx, const struct walk_stretch *stretch),
	     void *ctx);

/* --- output ------------------------------------------------------------------------------- */

/**
 * struct walk_output - how results are printed
 * @begin:   before the first
 * @result:  one address
 * @stretch: one of a map
 * @end:     after the last; @cut: there was more
 *
 * All take struct walk_printer as context.
 */
struct walk_output {
	void (*begin)(void *printer);
	void (*result)(void *printer, const struct walk_result *result);
	void (*stretch)(void *printer, const struct walk_stretch *stretch);
	void (*end)(void *printer, bool cut);
};

/** struct walk_printer - for whom and of what; @printed counts results and stretches */
struct walk_printer {
	FILE *file;
	const struct walk_output *output;
	const struct walk_options *options;
	const struct walk_vm *vm;
	const struct walk_space *space;
	uint64_t printed;
};

extern const struct walk_output walk_text;
extern const struct walk_output walk_json;

#endif /* MEMVIRT_WALK_H */
