/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A flat array that says what a table has to: a word a page. It knows no tables; how many there
 * must be follows from it: one for each span of a level in which some page is mapped at that level
 * or below. What it knows of formats is from the manuals, and shares no code with the library.
 *
 * What does not belong here: the comparison with a table (test_table_model.c).
 */
#ifndef TESTS_FLAT_TABLE_H
#define TESTS_FLAT_TABLE_H

#include <memvirt/table.h>

#include "support/fake_platform.h"
#include "support/testing.h"

#define FLAT_WINDOWS_MAX 4
#define FLAT_LEVELS_MAX	 5
#define FLAT_FLUSHES_MAX 4096

/**
 * struct flat_setting - a format, and what a processor adds
 * @share: of the operations
 */
struct flat_setting {
	const char *name;
	enum mv_format_id format;
	uint32_t features;
	unsigned int maxphyaddr;
	size_t page_limit;
	uint64_t window_bytes;
	unsigned int share;
};

/* What one page of the array flat_says; @level 0: nothing. @span: by level of a table, which one.
 */
struct flat_page {
	uint64_t phys;
	uint32_t attr;
	uint32_t level;
	uint32_t span[FLAT_LEVELS_MAX];
};

struct flat_window {
	uint64_t first;
	uint64_t pages;
	struct flat_page *page;
};

struct flat_flush {
	uint64_t first, last;
};

struct flat_table {
	const struct flat_setting *setting;
	struct fake_platform fake;
	struct mv_table *table;
	struct chance chance;

	/* The format, in numbers from the manuals. */
	unsigned int levels;
	unsigned int shift[FLAT_LEVELS_MAX + 2];
	unsigned int large_levels; /* bitmap: 2, 3 */
	unsigned int width;

	struct flat_window window[FLAT_WINDOWS_MAX];
	unsigned int windows;
	uint32_t *used[FLAT_LEVELS_MAX]; /* by level, by span: pages at that level or below */
	uint64_t *span_number[FLAT_LEVELS_MAX];
	uint32_t spans[FLAT_LEVELS_MAX];
	size_t tables; /* the root among them */
	size_t peak;

	struct flat_flush flush[FLAT_FLUSHES_MAX];
	unsigned int flushes;
	uint64_t mapped; /* operations that came about, so that a test which does nothing shows */
	uint64_t refused;
};

/* --- the format of @setting ---------------------------------------------------------------- */

void flat_learn_format(struct flat_table *m);
bool flat_is_ept(const struct flat_table *m);
bool flat_is_small(const struct flat_table *m);
bool flat_has(const struct flat_table *m, uint32_t feature);
uint64_t flat_top(const struct flat_table *m);
uint64_t flat_span_mask(const struct flat_table *m, unsigned int level);

/* What a leaf with these attributes will say. */
uint32_t flat_says(const struct flat_table *m, uint32_t attr);

/* --- the array ----------------------------------------------------------------------------- */

/* A window around an address; then, of all of them, which page is in which table's span. */
void flat_add_window(struct flat_table *m, uint64_t middle);
void flat_number_spans(struct flat_table *m);

struct flat_page *flat_page_at(struct flat_table *m, uint64_t address);
/* To the next leaf or hole; a hole is a page. */
uint64_t flat_after_leaf(struct flat_table *m, uint64_t address);
void flat_set_leaf(struct flat_table *m, uint64_t address, uint32_t level, uint32_t attr);
bool flat_leaf_fits(const struct flat_table *m, uint64_t address, uint64_t last);

/* --- operations, with the return codes of the library's ------------------------------------ */

int flat_map(struct flat_table *m, uint64_t first, uint64_t last, uint64_t phys, uint32_t attr,
	     unsigned int largest_lg2);
int flat_unmap(struct flat_table *m, uint64_t first, uint64_t last, uint64_t *removed);
int flat_protect(struct flat_table *m, uint64_t first, uint64_t last, uint32_t clear, uint32_t set);
/* Goes on until a page is lacking. */
int flat_split(struct flat_table *m, uint64_t first, uint64_t last, unsigned int page_lg2);
uint64_t flat_collapse(struct flat_table *m, uint64_t first, uint64_t last,
		       unsigned int largest_lg2);

#endif /* TESTS_FLAT_TABLE_H */
