/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a cache of nested walks holds, and how it is named.
 *
 * Three kinds of things are cached: translations by both stages (pages), where the tables of
 * stage 1 are and what leads to them (tables), and where the tables of stage 2 are (paths).
 * Each is found by a key: a tag, and the number of what it stands for. A tag belongs to a
 * context (of stage 1) or a space (of stage 2) and is given out once; a new tag makes all that
 * had the old one disappear at no cost, which is how whole contexts are flushed.
 *
 * Each page and each table names its sources: the guest's table pages that it was found by way of.
 * So whatever happens to one of these, what has to go is known exactly.
 *
 * What does not belong here: the walk (nested_cache.c), invalidation (nested_flush.c).
 */
#ifndef MV_EPT_NESTED_CACHE_H
#define MV_EPT_NESTED_CACHE_H

#include "nested.h"

#define MV_PAGE_BITS	     12
#define MV_CACHE_NUMBER_BITS 45 /* of a key: pages of a 57-bit address space */
#define MV_CACHE_TAGS	     (1u << (64 - MV_CACHE_NUMBER_BITS))
#define MV_CACHE_CONTEXTS    64
#define MV_CACHE_SPACES	     16
#define MV_CACHE_WAYS	     4
#define MV_CACHE_SIZES	     3

/* Where the format of stage 1 stands in struct mv_nested's mode. */
#define MV_CACHE_MODE_FORMAT 40

/* So many tags are left when an operation begins: more than any needs. */
#define MV_CACHE_TAGS_SPARE 1024

/* Tables of stage 1, by level; a power of two each. */
#define MV_CACHE_TABLES_1 256
#define MV_CACHE_TABLES_N 32

/* Paths to tables of stage 2 of level 1, and of level 2. */
#define MV_CACHE_PATHS_1 512
#define MV_CACHE_PATHS_2 16

/* Neighbouring pages of 4 KiB that one entry may hold the translations of. */
#define MV_CACHE_SECTORS_LG2 3
#define MV_CACHE_SECTORS     (1u << MV_CACHE_SECTORS_LG2)

/**
 * struct mv_cache_sources - the guest's table pages that something was found by way of
 * @low, @high: page frames, in 40 bits each
 * @count:      of them
 * @space:      index; it lies here for the room there is
 */
struct mv_cache_sources {
	uint32_t low[MV_LEVEL_MAX];
	uint8_t high[MV_LEVEL_MAX];
	uint8_t count;
	uint8_t space;
};

/**
 * struct mv_cached_page - translations by both stages; their key and sources stand apart
 * @hpa, @gpa:   of the page; of sector 0 where there are sectors, whether it is valid or not
 * @checked:     bitmap of accesses (MV_CACHE_ACCESS) that the registers of @epoch grant
 * @stage2_attr: rights of all levels of stage 2, and the leaf's other bits
 * @guest_attr:  of stage 1 likewise
 * @attr, @type: what the walk gives; @type is that of @epoch
 * @granted:     stage 1, all levels by AND: bits 7:0
 * @above:       the same without the leaf
 * @leaf:        bits 7:0 of stage 1's leaf
 * @guest_lg2:   size of stage 1's page
 * @page_lg2:    of the smaller of both
 * @sectors:     valid ones
 *
 * Pages of 4 KiB whose neighbours go on where they end, in both stages and with the same bits,
 * share an entry: one a cache line of the guest's table.
 */
struct mv_cached_page {
	uint64_t hpa;
	uint64_t gpa;
	uint64_t checked;
	uint32_t stage2_attr;
	uint32_t guest_attr;
	uint32_t attr;
	uint32_t epoch;
	uint8_t granted;
	uint8_t above;
	uint8_t leaf;
	uint8_t type;
	uint8_t guest_lg2;
	uint8_t page_lg2;
	uint8_t sectors;
} __attribute__((aligned(64)));

/* Accesses that differ in what they ask of stage 1: READ, WRITE, FETCH, USER, IMPLICIT, AC. */
#define MV_CACHE_ACCESS 0x003fu

/**
 * struct mv_cached_pages - the translations of one size
 * @page_lg2:  size
 * @lg2:       that of all sectors of an entry
 * @sets_lg2:  log2 of the number of sets; @sets_mask: that number less one
 * @last_slot: where the last one was put
 * @used:      something was put in since all was forgotten
 * @fractured: some have a larger page in stage 1
 * @clock:     whose turn it is to make room
 * @keys:      MV_CACHE_WAYS a set; 0 where there is nothing
 */
struct mv_cached_pages {
	unsigned int page_lg2;
	unsigned int lg2;
	unsigned int sets_lg2;
	uint64_t sets_mask;
	size_t last_slot;
	bool used;
	bool fractured;
	unsigned int clock;
	uint64_t *keys;
	struct mv_cached_page *pages;
	struct mv_cache_sources *sources;
};

/**
 * struct mv_cached_table - where a table of stage 1 is
 * @gpa, @hpa: of the table; @hpa is that of its page, and @gpa may lie within it
 * @granted, @denied: of the levels above: struct mv_walk_state
 */
struct mv_cached_table {
	uint64_t key;
	uint64_t gpa;
	uint64_t hpa;
	uint64_t granted;
	uint64_t denied;
	struct mv_cache_sources sources;
};

/**
 * struct mv_cached_path - where a table of stage 2 is
 * @table:     its address
 * @all, @any: of the levels above: struct mv_stage2_path
 */
struct mv_cached_path {
	uint64_t key;
	uint64_t table;
	uint64_t all;
	uint64_t any;
};

/**
 * struct mv_cache_context - an address space of a guest in a mode, over a space; or what is
 * global in all address spaces of that mode
 * @is_global:  the latter
 * @unused:     bits of an address that stage 1 does not translate
 * @is_narrow:  these are to be ignored: 32 bits; they are copies of the sign otherwise
 * @space_index: of @space
 * @pages_tag, @tables_tag: in place in a key
 */
struct mv_cache_context {
	uint64_t space;
	uint64_t mode;
	uint64_t root;
	uint64_t pcid;
	bool is_global;
	uint8_t unused;
	bool is_narrow;
	uint8_t space_index;
	uint64_t pages_tag;
	uint64_t tables_tag;
};

/**
 * struct mv_cache_space - stage-2 tables
 * @seen: how far their log has been followed
 * @paths_tag: in place in a key
 */
struct mv_cache_space {
	uint64_t space;
	uint64_t seen;
	uint64_t paths_tag;
};

/* Registers that decide what a translation grants, and its type. */
struct mv_cache_rights {
	uint64_t cr0;
	uint64_t cr4;
	uint64_t guest_pat;
	uint32_t pkru;
	uint32_t pkrs;
};

/**
 * struct mv_cache_last - the last page of 4 KiB that was kept, and all that made it what it is
 * @table_key:  its table's; 0 where there is none
 * @access, @epoch: what was asked, and by which registers
 * @leaf_bits:  of stage 1's leaf, all but the address
 * @all, @any:  of stage 2's levels above the leaf
 * @stage2_bits: of stage 2's leaf, all but the address
 * @page, @sources, @pages_tag: what was kept
 *
 * Where all of this is the same again, so is the result, but for the addresses.
 */
struct mv_cache_last {
	uint64_t table_key;
	unsigned int access;
	uint32_t epoch;
	uint64_t leaf_bits;
	uint64_t all;
	uint64_t any;
	uint64_t stage2_bits;
	uint64_t pages_tag;
	struct mv_cached_page page;
	struct mv_cache_sources sources;
};

/* Touched by one thread at a time, all of it. */
struct mv_nested_cache {
	struct mv_cache_context *context; /* that of the last walk, or NULL */
	struct mv_cache_context *globals; /* and its global one */
	struct mv_cache_space *space;
	struct mv_cache_rights rights; /* of the last walk */
	uint32_t epoch;		       /* changes with them */
	struct mv_cached_pages pages[MV_CACHE_SIZES];
	struct mv_cache_last last;
	uint64_t next_tag;
	uint64_t hits;
	uint64_t walks;
	uint64_t evicted;
	uint64_t overruns;
	unsigned int contexts_count;
	unsigned int spaces_count;
	struct mv_cache_context contexts[MV_CACHE_CONTEXTS];
	struct mv_cache_space spaces[MV_CACHE_SPACES];
	struct mv_cached_table tables_1[MV_CACHE_TABLES_1];
	struct mv_cached_table tables_n[MV_LEVEL_MAX - 2][MV_CACHE_TABLES_N]; /* level 2 and up */
	struct mv_cached_path paths_1[MV_CACHE_PATHS_1];
	struct mv_cached_path paths_2[MV_CACHE_PATHS_2];

	struct mv_platform platform;
	size_t bytes;
};

/* --- keys --------------------------------------------------------------------------------- */

#define MV_CACHE_NUMBER_MASK (MV_BIT(MV_CACHE_NUMBER_BITS) - 1)

MV_INLINE uint64_t mv_cache_new_tag(struct mv_nested_cache *cache)
{
	return cache->next_tag++ << MV_CACHE_NUMBER_BITS;
}

MV_INLINE uint64_t mv_cache_tag_of(uint64_t key)
{
	return key & ~MV_CACHE_NUMBER_MASK;
}

/* The first of the keys of the set in which an address may be found. */
MV_INLINE size_t mv_cache_set(const struct mv_cached_pages *pages, uint64_t address)
{
	return (address >> pages->lg2 & (MV_BIT(pages->sets_lg2) - 1)) * MV_CACHE_WAYS;
}

/* Which sector of an entry an address is in. */
MV_INLINE unsigned int mv_cache_sector(const struct mv_cached_pages *pages, uint64_t address)
{
	return address >> pages->page_lg2 & (MV_BIT(pages->lg2 - pages->page_lg2) - 1);
}

MV_INLINE size_t mv_cache_slots(const struct mv_cached_pages *pages)
{
	return MV_CACHE_WAYS << pages->sets_lg2;
}

/* Where the table of @level that translates an address would be, and under which key. */
MV_INLINE struct mv_cached_table *mv_cache_table_slot(const struct mv_format *f,
						      struct mv_nested_cache *cache,
						      unsigned int level, uint64_t address)
{
	uint64_t number = address >> f->shift[level + 1];

	if (level == 1)
		return &cache->tables_1[number % MV_CACHE_TABLES_1];
	return &cache->tables_n[level - 2][number % MV_CACHE_TABLES_N];
}

MV_INLINE uint64_t mv_cache_table_key(const struct mv_format *f,
				      const struct mv_cache_context *context, unsigned int level,
				      uint64_t address)
{
	return context->tables_tag | address >> f->shift[level + 1];
}

/* --- sources ------------------------------------------------------------------------------ */

MV_INLINE void mv_cache_add_source(struct mv_cache_sources *sources, uint64_t gpa)
{
	unsigned int i = sources->count;

	sources->low[i] = (uint32_t)(gpa >> MV_PAGE_BITS);
	sources->high[i] = (uint8_t)(gpa >> MV_PAGE_BITS >> 32);
	sources->count = (uint8_t)(i + 1);
}

MV_INLINE uint64_t mv_cache_source(const struct mv_cache_sources *sources, unsigned int i)
{
	return ((uint64_t)sources->high[i] << 32 | sources->low[i]) << MV_PAGE_BITS;
}

/* --- walks -------------------------------------------------------------------------------- */

/* Whether an access may leave something behind: it sets what a processor sets. */
MV_INLINE bool mv_access_leaves_traces(unsigned int access)
{
	return (access & MV_ACCESS_KIND) && !(access & MV_ACCESS_NO_UPDATE);
}

/**
 * struct mv_cache_place - what stage 2 made of an address
 * @entry_at: the leaf in the direct map, where it was read there
 * @entry:    what it held
 */
struct mv_cache_place {
	uint64_t hpa;
	uint32_t attr;
	unsigned int page_lg2;
	const uint64_t *entry_at;
	uint64_t entry;
};

/*
 * Stage 2 of an address, by way of known paths where there are any. Return: 0;
 * MV_NESTED_FAULTED; a negative error.
 */
int mv_cache_place_of(struct mv_nested_cache *cache, const struct mv_nested *nested, uint64_t gpa,
		      unsigned int access, struct mv_cache_place *place);

/**
 * struct mv_cache_route - a cached walk under way
 * @reading: what mv_nested_change() wants
 * @table_gpa, @table_hpa: page of the table at which the walk was resumed; @table_gpa is odd
 *           where it began at the root
 * @start:   as it was resumed
 * @sources: of what it was resumed from
 */
struct mv_cache_route {
	struct mv_nested_reading reading;
	uint64_t table_gpa;
	uint64_t table_hpa;
	struct mv_walk_state start;
	struct mv_cache_sources sources;
};

/* --- for the walk: nested_flush.c ------------------------------------------------------------ */

/* Forget everything; the tags begin anew. */
void mv_cache_forget(struct mv_nested_cache *cache);

/* See to it that there are tags enough for an operation. May forget everything. */
MV_INLINE void mv_cache_spare_tags(struct mv_nested_cache *cache)
{
	if (mv_unlikely(cache->next_tag + MV_CACHE_TAGS_SPARE > MV_CACHE_TAGS))
		mv_cache_forget(cache);
}

/* Apply what the log says has changed, up to @head. */
void mv_cache_follow(struct mv_nested_cache *cache, struct mv_cache_space *space,
		     const struct mv_nested_log *log, uint64_t head);

#endif /* MV_EPT_NESTED_CACHE_H */
