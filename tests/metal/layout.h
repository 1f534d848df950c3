/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where things are in the machine's physical memory, for C, the assembler and the linker.
 *
 * The machine sees physical memory at its own addresses (4 GiB, identity), so that the direct
 * map of the library's platform is 0.
 */
#ifndef METAL_LAYOUT_H
#define METAL_LAYOUT_H

/* The image: a ROM that ends at 4 GiB. Its code runs from RAM, for tables must be written. */
#define ROM_BYTES    0x100000
#define ROM_BASE     (0x100000000 - ROM_BYTES)
#define ROM_BOOT     0xfffff000 /* last page: the code that copies the rest */
#define RESET_VECTOR 0xfffffff0

#define HOST_TABLES	0x1000 /* root, then one table a level, then four of 2 MiB pages */
#define HOST_TABLES_END 0x9000
#define HOST_STACK	0x80000

#define PAYLOAD	    0x100000 /* A20 is open from reset on in both models */
#define PAYLOAD_END 0x500000

/* Records of the library, then pages of its tables. */
#define HEAP		0x500000
#define HEAP_END	0x600000
#define TABLE_PAGES	0x600000
#define TABLE_PAGES_END 0x700000

/* What is mapped into guests: their tables, their code, then pages with a stamp in each slot. */
#define GUEST_RAM	 0x1000000
#define GUEST_TABLES	 GUEST_RAM
#define GUEST_TABLES_END 0x1040000
#define GUEST_CODE	 0x1100000
#define GUEST_DATA	 0x1200000
#define GUEST_DATA_END	 0x1800000

/* The first bytes of the payload: struct metal_parameters. */
#define PARAMETERS_MAGIC 0x3130544d4d454d56 /* "VMEMMT01" */
#define PARAMETER_FLAGS	 24
#define FLAG_HOST_LA57	 1 /* the host, and so nested page tables, in 5-level paging */
#define FLAG_SHADOW	 2 /* guests on shadow tables, without a second stage */

#define SELECTOR_CODE64 0x08
#define SELECTOR_DATA	0x10
#define SELECTOR_CODE32 0x18
#define SELECTOR_TSS	0x20

#endif /* METAL_LAYOUT_H */
