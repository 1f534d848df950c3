/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The constants: one layout each, with the section of the manual that defines it. Static, in a
 * header, so that the compiler folds them into the code of whoever hands one to the engine.
 */
#ifndef MV_FORMATS_H
#define MV_FORMATS_H

#include "format.h"

#define MV_FORMAT_CONSTANT static const struct mv_format __attribute__((unused))

#define X86_P	MV_BIT(0)
#define X86_RW	MV_BIT(1)
#define X86_US	MV_BIT(2)
#define X86_PS	MV_BIT(7)
#define X86_ALL (X86_P | X86_RW | X86_US)

/* Bits that every x86 layout has in the same place: SDM vol. 3, 4.3 to 4.5. */
#define X86_COMMON                                                                                 \
	.present = X86_P, .leaf = X86_PS, .write = X86_RW, .global = MV_BIT(8),                    \
	.accessed = MV_BIT(5), .dirty = MV_BIT(6), .soft = { MV_BIT(9), MV_BIT(10) },              \
	.type_low = 3, .pat_small = MV_BIT(7), .pat_large = MV_BIT(12)

#define SHIFTS_10_BIT { 0, 12, 22 }
#define SHIFTS_9_BIT  { 0, 12, 21, 30, 39, 48 }

/* 32-bit paging without large pages: SDM vol. 3, 4.3, CR4.PSE = 0. */
MV_FORMAT_CONSTANT mv_format_x86_32 = {
	.name = "x86 32-bit", .id = MV_FORMAT_X86_32,
	.levels = 2, .entry_lg2 = 2, .shift = SHIFTS_10_BIT, .index_lg2 = { 0, 10, 10 },
	.leaf_levels = 1 << 1,
	X86_COMMON, .frame = MV_BITS(31, 12), .read = X86_P, .user = X86_US,
	.table_rights = { 0, 0, X86_ALL },
};

/* 32-bit paging with 4 MiB pages: SDM vol. 3, 4.3, CR4.PSE = 1. */
MV_FORMAT_CONSTANT mv_format_x86_pse = {
	.name = "x86 32-bit PSE", .id = MV_FORMAT_X86_PSE,
	.levels = 2, .entry_lg2 = 2, .shift = SHIFTS_10_BIT, .index_lg2 = { 0, 10, 10 },
	.leaf_levels = 1 << 1 | 1 << 2,
	X86_COMMON, .frame = MV_BITS(31, 12), .read = X86_P, .user = X86_US, .pse36 = true,
	.table_rights = { 0, 0, X86_ALL },
};

/* PAE paging: SDM vol. 3, 4.4. The top level has no rights: they are reserved there. */
MV_FORMAT_CONSTANT mv_format_x86_pae = {
	.name = "x86 PAE", .id = MV_FORMAT_X86_PAE,
	.levels = 3, .entry_lg2 = 3, .shift = SHIFTS_9_BIT, .index_lg2 = { 0, 9, 9, 2 },
	.leaf_levels = 1 << 1 | 1 << 2,
	X86_COMMON, .frame = MV_BITS(51, 12), .read = X86_P, .user = X86_US, .no_exec = MV_BIT(63),
	.table_rights = { 0, 0, X86_ALL, X86_P },
};

/* 4-level paging: SDM vol. 3, 4.5. */
MV_FORMAT_CONSTANT mv_format_x86_4l = {
	.name = "x86 4-level", .id = MV_FORMAT_X86_4L,
	.levels = 4, .entry_lg2 = 3, .shift = SHIFTS_9_BIT, .index_lg2 = { 0, 9, 9, 9, 9 },
	.leaf_levels = 1 << 1 | 1 << 2,
	X86_COMMON, .frame = MV_BITS(51, 12), .read = X86_P, .user = X86_US, .no_exec = MV_BIT(63),
	.pkey_low = 59, .table_rights = { 0, 0, X86_ALL, X86_ALL, X86_ALL },
};

/* 5-level paging: SDM vol. 3, 4.5. */
MV_FORMAT_CONSTANT mv_format_x86_5l = {
	.name = "x86 5-level", .id = MV_FORMAT_X86_5L,
	.levels = 5, .entry_lg2 = 3, .shift = SHIFTS_9_BIT, .index_lg2 = { 0, 9, 9, 9, 9, 9 },
	.leaf_levels = 1 << 1 | 1 << 2,
	X86_COMMON, .frame = MV_BITS(51, 12), .read = X86_P, .user = X86_US, .no_exec = MV_BIT(63),
	.pkey_low = 59, .table_rights = { 0, 0, X86_ALL, X86_ALL, X86_ALL, X86_ALL },
};

#define EPT_R	MV_BIT(0)
#define EPT_W	MV_BIT(1)
#define EPT_X	MV_BIT(2)
#define EPT_XU	MV_BIT(10)
#define EPT_ALL (EPT_R | EPT_W | EPT_X | EPT_XU)

/* SDM vol. 3, 29.3.2, tables 29-1 to 29-7. */
#define EPT_COMMON                                                                                 \
	.present = EPT_R | EPT_W | EPT_X, .frame = MV_BITS(51, 12), .leaf = MV_BIT(7),             \
	.leaf_levels = 1 << 1, .read = EPT_R, .write = EPT_W, .exec = EPT_X, .exec_user = EPT_XU,  \
	.accessed = MV_BIT(8), .dirty = MV_BIT(9), .ignore_pat = MV_BIT(6),                        \
	.suppress_ve = MV_BIT(63), .soft = { MV_BIT(52), MV_BIT(53) }, .type_low = 3

/* Extended page tables, page-walk length 4: SDM vol. 3, 29.3.2. */
MV_FORMAT_CONSTANT mv_format_ept_4l = {
	.name = "EPT 4-level", .id = MV_FORMAT_EPT_4L,
	.levels = 4, .entry_lg2 = 3, .shift = SHIFTS_9_BIT, .index_lg2 = { 0, 9, 9, 9, 9 },
	EPT_COMMON, .table_rights = { 0, 0, EPT_ALL, EPT_ALL, EPT_ALL },
};

/* Extended page tables, page-walk length 5: SDM vol. 3, 29.3.2. */
MV_FORMAT_CONSTANT mv_format_ept_5l = {
	.name = "EPT 5-level", .id = MV_FORMAT_EPT_5L,
	.levels = 5, .entry_lg2 = 3, .shift = SHIFTS_9_BIT, .index_lg2 = { 0, 9, 9, 9, 9, 9 },
	EPT_COMMON, .table_rights = { 0, 0, EPT_ALL, EPT_ALL, EPT_ALL, EPT_ALL },
};

/*
 * Nested page tables: APM vol. 2, 15.25.5. The layout of the host's own paging; each access of
 * the guest counts as a user's, so that U/S is what allows to read.
 */
MV_FORMAT_CONSTANT mv_format_npt_4l = {
	.name = "NPT 4-level", .id = MV_FORMAT_NPT_4L,
	.levels = 4, .entry_lg2 = 3, .shift = SHIFTS_9_BIT, .index_lg2 = { 0, 9, 9, 9, 9 },
	.leaf_levels = 1 << 1 | 1 << 2,
	X86_COMMON, .frame = MV_BITS(51, 12), .read = X86_P | X86_US, .no_exec = MV_BIT(63),
	.table_rights = { 0, 0, X86_ALL, X86_ALL, X86_ALL },
};

/* Nested page tables of a host in 5-level paging. */
MV_FORMAT_CONSTANT mv_format_npt_5l = {
	.name = "NPT 5-level", .id = MV_FORMAT_NPT_5L,
	.levels = 5, .entry_lg2 = 3, .shift = SHIFTS_9_BIT, .index_lg2 = { 0, 9, 9, 9, 9, 9 },
	.leaf_levels = 1 << 1 | 1 << 2,
	X86_COMMON, .frame = MV_BITS(51, 12), .read = X86_P | X86_US, .no_exec = MV_BIT(63),
	.table_rights = { 0, 0, X86_ALL, X86_ALL, X86_ALL, X86_ALL },
};

#endif /* MV_FORMATS_H */
