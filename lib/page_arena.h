/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Table pages of a Linux process: platform_linux.c's table_alloc and table_free.
 *
 * What does not belong here: who wants pages for what.
 */
#ifndef MV_PAGE_ARENA_H
#define MV_PAGE_ARENA_H

/*
 * A page of 4096 bytes, its content whatever; on a node, or any where it is negative. As low in the
 * address space as can be had, since a process has no physical addresses and its tables hold
 * pointers: 32-bit formats, and widths below 47 bits, need small ones.
 *
 * Context: any thread; may sleep. NULL where there is none.
 */
void *mv_page_arena_alloc(int node);
void mv_page_arena_free(void *page);

#endif /* MV_PAGE_ARENA_H */
