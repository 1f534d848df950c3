/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Translation tables: one engine builds and walks every format that memvirt knows.
 *
 * A table maps addresses of one space (GVA, GPA) to addresses of another (GPA, HPA); which,
 * is its user's affair, so here they are just `address` and `phys`. Ranges are closed.
 *
 * What does not belong here: who may use a page (memory.h, view.h), the checks that a
 * processor makes on an access (guest_walk.h, stage2.h).
 */
#ifndef MEMVIRT_TABLE_H
#define MEMVIRT_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/platform.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/**
 * enum mv_format_id - the layouts of tables
 * @MV_FORMAT_X86_32:  32-bit paging, 4 KiB pages only (CR4.PSE = 0); SDM vol. 3, 4.3
 * @MV_FORMAT_X86_PSE: 32-bit paging with 4 MiB pages and PSE-36; SDM vol. 3, 4.3
 * @MV_FORMAT_X86_PAE: PAE paging; SDM vol. 3, 4.4
 * @MV_FORMAT_X86_4L:  4-level paging; SDM vol. 3, 4.5
 * @MV_FORMAT_X86_5L:  5-level paging; SDM vol. 3, 4.5
 * @MV_FORMAT_EPT_4L:  extended page tables, page-walk length 4; SDM vol. 3, 29.3
 * @MV_FORMAT_EPT_5L:  extended page tables, page-walk length 5
 * @MV_FORMAT_NPT_4L:  nested page tables of a host in 4-level paging; APM vol. 2, 15.25
 * @MV_FORMAT_NPT_5L:  nested page tables of a host in 5-level paging
 */
enum mv_format_id {
	MV_FORMAT_X86_32,
	MV_FORMAT_X86_PSE,
	MV_FORMAT_X86_PAE,
	MV_FORMAT_X86_4L,
	MV_FORMAT_X86_5L,
	MV_FORMAT_EPT_4L,
	MV_FORMAT_EPT_5L,
	MV_FORMAT_NPT_4L,
	MV_FORMAT_NPT_5L,
	MV_FORMATS,
};

/* Levels count up from the one whose entries map 4 KiB. */
#define MV_LEVEL_MAX 5

/*
 * What the processor, or its mode, adds to a format. Each is ignored by formats that do not
 * know it.
 */
#define MV_FEATURE_2M	      0x0001u /* large pages at level 2, where a format may lack them: EPT */
#define MV_FEATURE_1G	      0x0002u /* large pages at level 3 */
#define MV_FEATURE_NX	      0x0004u /* EFER.NXE: bit 63 forbids to fetch; reserved otherwise */
#define MV_FEATURE_EXEC_ONLY  0x0008u /* EPT: execute without read */
#define MV_FEATURE_MODE_EXEC  0x0010u /* EPT: mode-based execute, bit 10 for user mode */
#define MV_FEATURE_ACCESSED   0x0020u /* EPT: accessed and dirty flags are on */
#define MV_FEATURE_VE	      0x0040u /* EPT: violations may become #VE; bit 63 suppresses them */
#define MV_FEATURE_PKEY	      0x0080u /* x86: bits 62:59 of a leaf are a protection key */
#define MV_FEATURE_EXIT_INFO  0x0100u /* EPT: exits tell what the guest's own tables grant */

/*
 * What a leaf grants, the same for all formats. A format that cannot express a bit ignores
 * it when it writes, and reports what holds when it reads: x86 leaves always READ. (NPT keeps
 * READ in U/S, since each access of a guest counts as a user's there.)
 */
#define MV_ATTR_READ	    0x00000001u
#define MV_ATTR_WRITE	    0x00000002u
#define MV_ATTR_EXEC	    0x00000004u /* EPT with mode-based execute: in supervisor mode */
#define MV_ATTR_EXEC_USER   0x00000008u /* EPT with mode-based execute: in user mode */
#define MV_ATTR_USER	    0x00000010u /* x86: user mode may */
#define MV_ATTR_GLOBAL	    0x00000020u /* x86 */
#define MV_ATTR_ACCESSED    0x00000040u
#define MV_ATTR_DIRTY	    0x00000080u
#define MV_ATTR_SUPPRESS_VE 0x00000100u /* EPT with #VE: a violation here is an exit, always */
#define MV_ATTR_IGNORE_PAT  0x00000200u /* EPT bit 6 */
#define MV_ATTR_SOFT0	    0x00000400u /* for the user of the table; processors ignore them */
#define MV_ATTR_SOFT1	    0x00000800u
#define MV_ATTR_RIGHTS                                                                             \
	(MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_EXEC_USER | MV_ATTR_USER)

/* EPT: the memory type, SDM's numbers. x86 and NPT: the index into the PAT. */
#define MV_ATTR_TYPE(n)	   ((uint32_t)(n) << 12)
#define MV_ATTR_TYPE_OF(a) ((a) >> 12 & 7u)
#define MV_ATTR_TYPE_MASK  MV_ATTR_TYPE(7)

/* x86 with protection keys. */
#define MV_ATTR_PKEY(n)	   ((uint32_t)(n) << 16)
#define MV_ATTR_PKEY_OF(a) ((a) >> 16 & 15u)
#define MV_ATTR_PKEY_MASK  MV_ATTR_PKEY(15)

/** enum mv_memory_type - SDM vol. 3, 11.3 and table 29-6 */
enum mv_memory_type {
	MV_TYPE_UC = 0,
	MV_TYPE_WC = 1,
	MV_TYPE_WT = 4,
	MV_TYPE_WP = 5,
	MV_TYPE_WB = 6,
};

/**
 * struct mv_rules - what a processor's features and width make of a format; computed once
 * @present:        present where any of these is set
 * @leaf_levels:    bitmap of levels that may map a page
 * @meaningful:     all but the bits of features that are absent
 * @reserved_table: by level: what a present entry that points to a table must not have set
 * @reserved_leaf:  by level: what a present entry that maps a page must not have set
 * @empty:          the not-present entry that says nothing
 *
 * To be looked at only. What no mask can say is left to who checks: EPT's write without read,
 * and its memory types.
 */
struct mv_rules {
	uint64_t present;
	uint8_t leaf_levels;
	uint64_t meaningful;
	uint64_t reserved_table[MV_LEVEL_MAX + 1];
	uint64_t reserved_leaf[MV_LEVEL_MAX + 1];
	uint64_t empty;
};

struct mv_table;

/**
 * struct mv_table_config - what mv_table_create() needs
 * @size:       sizeof(struct mv_table_config)
 * @platform:   NULL for mv_platform_linux(); the freestanding library has none to fall back on
 * @format:     layout
 * @features:   MV_FEATURE_…
 * @maxphyaddr: physical-address width, bits; 32 to 52
 * @node:       NUMA node of the table pages, or -1
 * @page_limit: table pages that may exist at once, or 0 for no limit
 * @flush:      called when translations of a closed range, or tables above them, went away:
 *              returns when no processor uses them any more. May be NULL where no processor
 *              walks the table. May sleep; never called inside a read section.
 * @ctx:        for @flush
 */
struct mv_table_config {
	size_t size;
	const struct mv_platform *platform;
	enum mv_format_id format;
	uint32_t features;
	unsigned int maxphyaddr;
	int node;
	size_t page_limit;
	void (*flush)(void *ctx, uint64_t first, uint64_t last);
	void *ctx;
};

/**
 * mv_table_create() - an empty table: its root page
 * @config: see struct mv_table_config
 * @table:  set on success
 *
 * Where a processor has pages of 1 GiB but none of 2 MiB (EPT tells of each), the 1 GiB ones are
 * not used: they could not be split.
 *
 * Context: any thread; may sleep.
 * Return: 0; -EINVAL for a config that is no valid one, or a platform without table pages;
 * -ENOMEM, also where the platform's pages lie higher than entries can say (32-bit formats, a small
 * @maxphyaddr) or CR3 can (PAE: 4 GiB).
 */
int mv_table_create(const struct mv_table_config *config, struct mv_table **table);

/**
 * mv_table_destroy() - free a table and all its pages
 * @table: may be NULL. No thread and no processor may use it any more.
 *
 * Context: may sleep.
 */
void mv_table_destroy(struct mv_table *table);

/** mv_table_root() - the physical address of the root page. Context: any thread. */
uint64_t mv_table_root(const struct mv_table *table);

/** mv_table_last_address() - the highest address the format can map. Context: any thread. */
uint64_t mv_table_last_address(const struct mv_table *table);

/**
 * mv_table_map() - map a closed range
 * @table: table to change
 * @first: first address; aligned to 4 KiB
 * @last:  last address, inclusive; the length is a multiple of 4 KiB
 * @phys:  what @first maps to; aligned to 4 KiB
 * @attr:  MV_ATTR_…
 * @largest_lg2: largest page that may be used: 12, 21 (22), 30; 0 for whatever the format has
 *
 * All or nothing, though where another thread maps a part of the range at the same moment some
 * of this one's pages may be there until it gives up. Uses the largest page that both addresses
 * allow and no table is in the way of. With PSE-36 what lies above 4 GiB has to be mapped
 * by large pages alone. x86 formats with sparse
 * canonical halves take addresses without the sign: mv_table_last_address() is the limit.
 *
 * Context: any number of threads at once, also with unmaps; may sleep; not in a read section.
 * Return: 0; -EINVAL for a bad alignment, range, or attributes that the format calls reserved;
 * -EEXIST where a page of the range is mapped already; -ENOMEM, or -ENOSPC at the page limit.
 * On failure the table is as it was.
 */
int mv_table_map(struct mv_table *table, uint64_t first, uint64_t last, uint64_t phys,
		 uint32_t attr, unsigned int largest_lg2);

/**
 * mv_table_unmap() - unmap a closed range; holes in it are fine
 * @table:   table to change
 * @first:   aligned to 4 KiB
 * @last:    inclusive; the length is a multiple of 4 KiB
 * @removed: where not NULL, set to the number of bytes that were mapped
 *
 * A large page that the range covers in part is split first. Tables that become empty are freed,
 * after the flush and a grace period. What another thread unmaps at the same moment, that one
 * counts and flushes.
 *
 * Context: as mv_table_map().
 * Return: 0; -EINVAL, also where a page of PSE-36 above 4 GiB would have to be split; -ENOMEM or
 * -ENOSPC where a split needs a page. Nothing is unmapped then, unless a collapse by another
 * thread undoes the split meanwhile, and there is no page for another.
 */
int mv_table_unmap(struct mv_table *table, uint64_t first, uint64_t last, uint64_t *removed);

/**
 * mv_table_protect() - change what a closed range grants; holes in it are fine
 * @table: table to change
 * @first: aligned to 4 KiB
 * @last:  inclusive; the length is a multiple of 4 KiB
 * @clear: attributes to take away
 * @set:   attributes to give; applied after @clear
 *
 * Accessed and dirty bits that a processor sets meanwhile are kept unless cleared here. A large
 * page that the range covers in part is split first. Flushes where a right was taken, a dirty or
 * accessed bit was cleared, or the memory type changed.
 *
 * Context: as mv_table_map().
 * Return: 0; -EINVAL, also for attributes that any leaf of the range must not have; -ENOMEM or
 * -ENOSPC where a split needs a page. Nothing changed then, but as with mv_table_unmap().
 */
int mv_table_protect(struct mv_table *table, uint64_t first, uint64_t last, uint32_t clear,
		     uint32_t set);

/**
 * struct mv_mapping - one leaf
 * @address:  first address that the leaf maps
 * @phys:     what it maps to
 * @page_lg2: log2 of the page's bytes
 * @level:    where the leaf is
 * @attr:     what the leaf itself says (a table's parents grant everything)
 */
struct mv_mapping {
	uint64_t address;
	uint64_t phys;
	unsigned int page_lg2;
	unsigned int level;
	uint32_t attr;
};

/**
 * mv_table_walk() - the leaf that maps an address
 * @table:   table to read
 * @address: any address
 * @mapping: set on success
 *
 * Context: any thread, also while others change the table; never waits; takes a read section.
 * Return: 0; -ENOENT where nothing is mapped; -EINVAL beyond the last address.
 */
int mv_table_walk(const struct mv_table *table, uint64_t address, struct mv_mapping *mapping);

/**
 * mv_table_translate_many() - physical addresses of many, faster than one by one
 * @table:   table to read
 * @address: @count addresses
 * @phys:    set: the physical address, or UINT64_MAX where nothing is mapped
 * @count:   how many
 *
 * The walks run side by side, so that one's memory latency hides the others'.
 *
 * Context: as mv_table_walk().
 * Return: how many were mapped.
 */
size_t mv_table_translate_many(const struct mv_table *table, const uint64_t *address,
			       uint64_t *phys, size_t count);

/**
 * mv_table_for_each_leaf() - call a function for each leaf that maps a part of a range
 * @table: table to read
 * @first: first address
 * @last:  last address, inclusive
 * @leaf:  called in ascending order; not 0 ends the walk. Runs inside a read section.
 * @ctx:   for @leaf
 *
 * Context: as mv_table_walk(); leaves that others add or remove meanwhile may or may not appear.
 * Return: 0, or what @leaf returned.
 */
int mv_table_for_each_leaf(const struct mv_table *table, uint64_t first, uint64_t last,
			   int (*leaf)(void *ctx, const struct mv_mapping *mapping), void *ctx);

/**
 * mv_table_harvest() - collect and clear accessed or dirty bits
 * @table: table to change
 * @first: first address
 * @last:  last address, inclusive
 * @what:  MV_ATTR_ACCESSED, MV_ATTR_DIRTY, or both
 * @found: called for each leaf that had one of them, with the bits it had in mapping->attr, in
 *         ascending order; inside a read section; may be NULL
 * @ctx:   for @found
 * @flush: whether to flush at the end. Without it a processor may go on without setting the bit
 *         again: good enough for ageing, never for dirty pages that are then copied.
 *
 * Context: as mv_table_map().
 * Return: the number of leaves that had one.
 */
uint64_t mv_table_harvest(struct mv_table *table, uint64_t first, uint64_t last, uint32_t what,
			  void (*found)(void *ctx, const struct mv_mapping *mapping), void *ctx,
			  bool flush);

/**
 * mv_table_split() - see to it that a range is mapped by pages of at most a size
 * @table:    table to change
 * @first:    first address
 * @last:     last address, inclusive
 * @page_lg2: 12, or 21 (22)
 *
 * Translations stay as they are; new leaves inherit accessed and dirty.
 *
 * Context: as mv_table_map().
 * Return: 0; -EINVAL, also for a page of PSE-36 above 4 GiB; -ENOMEM or -ENOSPC. Some pages may be
 * split then; all translations are as before.
 */
int mv_table_split(struct mv_table *table, uint64_t first, uint64_t last, unsigned int page_lg2);

/**
 * mv_table_collapse() - replace tables whose leaves are one contiguous large page by that page
 * @table:       table to change
 * @first:       first address
 * @last:        last address, inclusive
 * @largest_lg2: largest page that may come about; 0 for whatever the format has
 *
 * Leaves must agree in what they grant; accessed and dirty are united. The page is not present
 * for a moment (break before make), so that no processor holds two sizes of it: a fault then
 * is spurious. Only tables that the range covers whole are looked at.
 *
 * Context: as mv_table_map().
 * Return: the number of tables replaced.
 */
uint64_t mv_table_collapse(struct mv_table *table, uint64_t first, uint64_t last,
			   unsigned int largest_lg2);

/** enum mv_table_defect_kind - what mv_table_check() may find */
enum mv_table_defect_kind {
	MV_DEFECT_NONE,
	MV_DEFECT_RESERVED,	/* a present entry has a reserved bit, or says what a leaf must not */
	MV_DEFECT_EMPTY_TABLE,	/* a table below the root maps nothing */
	MV_DEFECT_LOOP,		/* a table page is reached twice */
	MV_DEFECT_ADDRESS,	/* an entry points outside the physical-address width */
	MV_DEFECT_NOT_PRESENT,	/* a not-present entry is neither empty nor a known mark */
	MV_DEFECT_COUNT,	/* the pages reached are not those accounted for */
};

/**
 * struct mv_table_defect - the first broken invariant
 * @kind:    which
 * @address: first address that the entry stands for
 * @level:   its level
 * @entry:   its value
 */
struct mv_table_defect {
	enum mv_table_defect_kind kind;
	uint64_t address;
	unsigned int level;
	uint64_t entry;
};

/**
 * mv_table_check() - look whether every invariant holds
 * @table:  a table that nobody changes meanwhile
 * @defect: set; kind MV_DEFECT_NONE where all is well
 *
 * Where there is no memory to note the pages seen, a page reached twice is told as a wrong count.
 *
 * Context: any thread; may sleep; time in proportion to the table.
 * Return: true where all is well.
 */
bool mv_table_check(const struct mv_table *table, struct mv_table_defect *defect);

/** struct mv_table_usage - table pages, the root among them, now and at most since creation */
struct mv_table_usage {
	size_t pages;
	size_t peak_pages;
};

/** mv_table_get_usage() - how much memory the table takes. Context: any thread. */
void mv_table_get_usage(const struct mv_table *table, struct mv_table_usage *usage);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_TABLE_H */
