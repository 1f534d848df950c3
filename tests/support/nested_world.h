/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small machine at random for tests of the nested walk: some frames of host memory, of which
 * the first hold stage-2 tables and the rest what the guest calls its memory, its own tables
 * among it. All entries are made by chance, most of them good.
 */
#ifndef TESTS_NESTED_WORLD_H
#define TESTS_NESTED_WORLD_H

#include <memvirt/nested.h>

#include "support/testing.h"

#define WORLD_FRAMES	    64 /* of host memory; guest-physical ones are as many */
#define WORLD_STAGE2_FRAMES 16
#define WORLD_BYTES	    (WORLD_FRAMES * 4096ul)

/**
 * struct nested_world - what there is
 * @memory:    host-physical memory from 0
 * @access_by_call: tables and frames are reached through accessors, and entries may lead
 *             anywhere; otherwise through a direct map, and they stay within memory
 * @bad:       one in so many entries is a bad one
 * @width:     host-physical width
 * @mtrr:      NPT: type of everything
 * @nested:    the object under test
 */
struct nested_world {
	unsigned char *memory;
	bool access_by_call;
	unsigned int bad;

	enum mv_format_id format2;
	uint32_t features2;
	unsigned int width;
	uint64_t root2;
	uint64_t guest_pat, host_pat;
	unsigned int mtrr;

	struct mv_paging_registers registers;
	struct mv_cpu_model cpu;
	struct mv_nested nested;
	struct mv_nested_log *log;
};

void nested_world_open(struct nested_world *world);
void nested_world_close(struct nested_world *world);

/* Everything anew: formats, features, registers, tables. */
void nested_world_fill(struct nested_world *world, struct chance *chance);

/* The parts of it. */
void nested_world_choose_stage2(struct nested_world *world, struct chance *chance);
void nested_world_choose_registers(struct nested_world *world, struct chance *chance);
void nested_world_fill_tables(struct nested_world *world, struct chance *chance);
void nested_world_prepare(struct nested_world *world);

/* An entry of a stage-2 table of a level; of any guest table. */
uint64_t nested_world_stage2_entry(const struct nested_world *world, struct chance *chance,
				   unsigned int level);
uint64_t nested_world_guest_entry(const struct nested_world *world, struct chance *chance);

/* Frames of the stage-2 tables of a level: first, and how many. */
unsigned int nested_world_stage2_frame(const struct nested_world *world, unsigned int level,
				       unsigned int *count);

bool nested_world_is_ept(const struct nested_world *world);
bool nested_world_is_32_bit(const struct nested_world *world);
bool nested_world_is_long(const struct nested_world *world);
unsigned int nested_world_guest_levels(const struct nested_world *world);

/* An address that tables of few entries are likely to know; and an access. */
uint64_t nested_world_gva(const struct nested_world *world, struct chance *chance);
unsigned int nested_world_access(struct chance *chance);

#endif /* TESTS_NESTED_WORLD_H */
