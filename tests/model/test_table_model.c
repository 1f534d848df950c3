/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables of every format against a flat array: random operations, and after each the same
 * translations, attributes, return codes, flushes, and number of table pages, now and at most.
 *
 * The array knows no tables: it has a word a page. How many tables there must be follows from
 * it: one for each span of a level in which some page is mapped at that level or below.
 *
 * OPS says how many operations in total; by default about 20 s of them.
 */
#include <memvirt/table.h>

#include "support/fake_platform.h"
#include "support/testing.h"

#define PAGE	    4096ULL
#define WINDOWS_MAX 4
#define LEVELS_MAX  5
#define FLUSHES_MAX 4096
#define OPS_DEFAULT 2000000ULL

#define NO_AD (~(MV_ATTR_ACCESSED | MV_ATTR_DIRTY))

/**
 * struct setting - a format, and what a processor adds
 * @share: of the operations
 */
struct setting {
	const char *name;
	enum mv_format_id format;
	uint32_t features;
	unsigned int maxphyaddr;
	size_t page_limit;
	uint64_t window_bytes;
	unsigned int share;
};

/* What one page of the array says; @level 0: nothing. @span: by level of a table, which one. */
struct page {
	uint64_t phys;
	uint32_t attr;
	uint32_t level;
	uint32_t span[LEVELS_MAX];
};

struct window {
	uint64_t first;
	uint64_t pages;
	struct page *page;
};

struct flush {
	uint64_t first, last;
};

struct model {
	const struct setting *setting;
	struct fake_platform fake;
	struct mv_table *table;
	struct chance chance;

	/* The format, in numbers of this test's own. */
	unsigned int levels;
	unsigned int shift[LEVELS_MAX + 2];
	unsigned int large_levels; /* bitmap: 2, 3 */
	unsigned int width;

	struct window window[WINDOWS_MAX];
	unsigned int windows;
	uint32_t *used[LEVELS_MAX]; /* by level, by span: pages mapped at that level or below */
	uint64_t *span_number[LEVELS_MAX];
	uint32_t spans[LEVELS_MAX];
	size_t tables; /* the root among them */
	size_t peak;

	struct flush flush[FLUSHES_MAX];
	unsigned int flushes;
	uint64_t mapped; /* operations that came about, so that a test which does nothing shows */
	uint64_t refused;
};

/* --- formats, from the manuals rather than from the library --------------------------------- */

static bool is_ept(const struct model *m)
{
	return m->setting->format == MV_FORMAT_EPT_4L || m->setting->format == MV_FORMAT_EPT_5L;
}

static bool is_npt(const struct model *m)
{
	return m->setting->format == MV_FORMAT_NPT_4L || m->setting->format == MV_FORMAT_NPT_5L;
}

static bool is_small(const struct model *m)
{
	return m->setting->format == MV_FORMAT_X86_32 || m->setting->format == MV_FORMAT_X86_PSE;
}

static bool has(const struct model *m, uint32_t feature)
{
	return m->setting->features & feature;
}

static void learn_format(struct model *m)
{
	static const unsigned int levels[MV_FORMATS] = { 2, 2, 3, 4, 5, 4, 5, 4, 5 };
	unsigned int bits = is_small(m) ? 10 : 9;

	m->levels = levels[m->setting->format];
	for (unsigned int l = 1; l <= m->levels; l++)
		m->shift[l] = 12 + bits * (l - 1);
	m->shift[m->levels + 1] =
		m->setting->format == MV_FORMAT_X86_PAE ? 32 : m->shift[m->levels] + bits;
	m->width = m->setting->maxphyaddr;
	if (m->setting->format == MV_FORMAT_X86_32)
		m->width = 32;
	if (m->setting->format == MV_FORMAT_X86_PSE && m->width > 40)
		m->width = 40;
	m->large_levels = 0;
	if (m->setting->format != MV_FORMAT_X86_32 && (!is_ept(m) || has(m, MV_FEATURE_2M)))
		m->large_levels |= 1 << 2;
	if (m->levels >= 4 && has(m, MV_FEATURE_1G) && (m->large_levels & 1 << 2))
		m->large_levels |= 1 << 3;
}

static uint64_t top(const struct model *m)
{
	return (1ULL << m->shift[m->levels + 1]) - 1;
}

static uint64_t span_mask(const struct model *m, unsigned int level)
{
	return (1ULL << m->shift[level]) - 1;
}

/* What a leaf with these attributes will say. */
static uint32_t says(const struct model *m, uint32_t attr)
{
	uint32_t known =
		MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_SOFT0 | MV_ATTR_SOFT1 | MV_ATTR_TYPE_MASK;

	if (is_ept(m)) {
		known |= MV_ATTR_READ | MV_ATTR_IGNORE_PAT;
		known |= has(m, MV_FEATURE_MODE_EXEC) ? MV_ATTR_EXEC_USER : 0;
		known |= has(m, MV_FEATURE_VE) ? MV_ATTR_SUPPRESS_VE : 0;
		known |= has(m, MV_FEATURE_ACCESSED) ? MV_ATTR_ACCESSED | MV_ATTR_DIRTY : 0;
		return attr & known;
	}
	known |= MV_ATTR_GLOBAL | MV_ATTR_ACCESSED | MV_ATTR_DIRTY;
	known |= is_npt(m) ? MV_ATTR_READ : MV_ATTR_USER;
	if (has(m, MV_FEATURE_PKEY) && m->levels >= 4 && !is_npt(m))
		known |= MV_ATTR_PKEY_MASK;
	attr &= known;
	attr |= is_npt(m) ? 0 : MV_ATTR_READ;
	attr |= has(m, MV_FEATURE_NX) && !is_small(m) ? 0 : MV_ATTR_EXEC;
	return attr;
}

/* SDM vol. 3, 29.3.3.1. */
static bool sensible(const struct model *m, uint32_t attr)
{
	uint32_t type = attr >> 12 & 7;

	attr = says(m, attr);
	if (!is_ept(m))
		return true;
	if (type != 0 && type != 1 && type != 4 && type != 5 && type != 6)
		return false;
	if (attr & MV_ATTR_READ)
		return true;
	return !(attr & MV_ATTR_WRITE) && has(m, MV_FEATURE_EXEC_ONLY) &&
	       (attr & (MV_ATTR_EXEC | MV_ATTR_EXEC_USER));
}

/* --- the array -------------------------------------------------------------------------------- */

static struct page *page_at(struct model *m, uint64_t address)
{
	for (unsigned int i = 0; i < m->windows; i++) {
		struct window *w = &m->window[i];

		if (address >= w->first && address - w->first < w->pages * PAGE)
			return &w->page[(address - w->first) / PAGE];
	}
	return NULL;
}

static void set_page(struct model *m, struct page *page, uint32_t level, uint64_t phys,
		     uint32_t attr)
{
	for (unsigned int l = 1; l < m->levels; l++) {
		uint32_t *used = &m->used[l][page->span[l]];
		bool was = page->level && page->level <= l, is = level && level <= l;

		if (was == is)
			continue;
		*used += is ? 1 : -1;
		if (*used == is)
			m->tables += is ? 1 : -1;
	}
	page->level = level;
	page->phys = phys;
	page->attr = attr;
}

static void note_peak(struct model *m, size_t more)
{
	if (m->tables + more > m->peak)
		m->peak = m->tables + more;
}

static bool has_room(const struct model *m, size_t more)
{
	return !m->setting->page_limit || m->tables + more <= m->setting->page_limit;
}

/* The leaf that a page is in: [*first, *last]. */
static void leaf_span(const struct model *m, const struct page *page, uint64_t address,
		      uint64_t *first, uint64_t *last)
{
	*first = address & ~span_mask(m, page->level);
	*last = address | span_mask(m, page->level);
}

/* To the next leaf or hole; a hole is a page. */
static uint64_t after_leaf(struct model *m, uint64_t address)
{
	const struct page *page = page_at(m, address);

	return (address | span_mask(m, page && page->level ? page->level : 1)) + 1;
}

static void set_leaf(struct model *m, uint64_t address, uint32_t level, uint32_t attr)
{
	uint64_t first = address & ~span_mask(m, level), last = address | span_mask(m, level);

	for (uint64_t at = first; at < last; at += PAGE) {
		struct page *page = page_at(m, at);

		set_page(m, page, level, page->phys, attr);
	}
}

static bool leaf_fits(const struct model *m, uint64_t address, uint64_t last)
{
	return (address | span_mask(m, 1)) <= last;
}

/* --- maps ------------------------------------------------------------------------------------- */

static unsigned int best_level(const struct model *m, uint64_t at, uint64_t last, uint64_t phys,
			       unsigned int largest_lg2)
{
	for (unsigned int l = 3; l > 1; l--) {
		uint64_t mask = span_mask(m, l);

		if (!(m->large_levels >> l & 1) || (largest_lg2 && m->shift[l] > largest_lg2))
			continue;
		if (!(at & mask) && !(phys & mask) && (at | mask) <= last)
			return l;
	}
	return 1;
}

static int model_map_valid(const struct model *m, uint64_t first, uint64_t last, uint64_t phys,
			   uint32_t attr, unsigned int largest_lg2)
{
	if (first > last || last > top(m) || first % PAGE || (last + 1) % PAGE || phys % PAGE)
		return -EINVAL;
	if ((largest_lg2 && largest_lg2 < 12) || !sensible(m, attr))
		return -EINVAL;
	if ((phys + (last - first)) >> m->width)
		return -EINVAL;
	for (uint64_t at = first; is_small(m) && at < last;) {
		uint64_t to = phys + (at - first);
		unsigned int level = best_level(m, at, last, to, largest_lg2);

		if (level == 1 && to >> 32)
			return -EINVAL;
		at += span_mask(m, level) + 1;
	}
	return 0;
}

static int model_map(struct model *m, uint64_t first, uint64_t last, uint64_t phys, uint32_t attr,
		     unsigned int largest_lg2)
{
	size_t before = m->tables, after;
	int error = model_map_valid(m, first, last, phys, attr, largest_lg2);

	if (error)
		return error;
	for (uint64_t at = first; at < last; at += PAGE)
		if (page_at(m, at)->level)
			return -EEXIST;
	for (uint64_t at = first; at < last;) {
		unsigned int level = best_level(m, at, last, phys + (at - first), largest_lg2);
		uint64_t end = at + span_mask(m, level);

		for (; at < end; at += PAGE)
			set_page(m, page_at(m, at), level, phys + (at - first), says(m, attr));
	}
	after = m->tables;
	if (m->setting->page_limit && after > m->setting->page_limit) {
		for (uint64_t at = first; at < last; at += PAGE)
			set_page(m, page_at(m, at), 0, 0, 0);
		assert_int_equal(m->tables, before);
		return -ENOSPC;
	}
	note_peak(m, 0);
	return 0;
}

/* --- splits ------------------------------------------------------------------------------------
 */

static void split_leaf(struct model *m, uint64_t address)
{
	struct page *page = page_at(m, address);
	uint64_t first, last;

	leaf_span(m, page, address, &first, &last);
	for (uint32_t level = page->level - 1; first < last; first += PAGE) {
		page = page_at(m, first);
		set_page(m, page, level, page->phys, page->attr);
	}
}

static bool reaches_beyond(struct model *m, uint64_t address, uint64_t first, uint64_t last)
{
	struct page *page = page_at(m, address);
	uint64_t leaf_first, leaf_last;

	if (!page->level)
		return false;
	leaf_span(m, page, address, &leaf_first, &leaf_last);
	return leaf_first < first || leaf_last > last;
}

/* PSE-36: what lies above 4 GiB has no small pages. */
static bool unsplittable(struct model *m, uint64_t address)
{
	return is_small(m) && page_at(m, address)->phys >> 32;
}

/* Split at both ends, or nothing. On the way it has all the pages that it takes. */
static int model_split_ends(struct model *m, uint64_t first, uint64_t last)
{
	uint64_t ends[2] = { first, last & ~(PAGE - 1) };
	struct mv_mapping saved[2] = { 0 };
	size_t before = m->tables, after;

	for (int i = 0; i < 2; i++)
		if (reaches_beyond(m, ends[i], first, last) && unsplittable(m, ends[i]))
			return -EINVAL;
	for (int i = 0; i < 2; i++) {
		saved[i].level = page_at(m, ends[i])->level;
		saved[i].attr = page_at(m, ends[i])->attr;
		saved[i].address = ends[i];
		while (reaches_beyond(m, ends[i], first, last))
			split_leaf(m, ends[i]);
	}
	after = m->tables;
	if (m->setting->page_limit && after > m->setting->page_limit) {
		for (int i = 1; i >= 0; i--)
			if (saved[i].level)
				set_leaf(m, saved[i].address, saved[i].level, saved[i].attr);
		assert_int_equal(m->tables, before);
		return -ENOSPC;
	}
	note_peak(m, 0);
	return 0;
}

static bool range_valid(const struct model *m, uint64_t first, uint64_t last)
{
	return first <= last && last <= top(m) && first % PAGE == 0 && (last + 1) % PAGE == 0;
}

static int model_unmap(struct model *m, uint64_t first, uint64_t last, uint64_t *removed)
{
	int error = range_valid(m, first, last) ? model_split_ends(m, first, last) : -EINVAL;

	if (error)
		return error;
	*removed = 0;
	for (uint64_t at = first; at < last; at += PAGE) {
		struct page *page = page_at(m, at);

		*removed += page->level ? PAGE : 0;
		set_page(m, page, 0, 0, 0);
	}
	return 0;
}

static int model_protect(struct model *m, uint64_t first, uint64_t last, uint32_t clear,
			 uint32_t set)
{
	int error;

	if (!range_valid(m, first, last))
		return -EINVAL;
	for (uint64_t at = first; at < last; at = after_leaf(m, at)) {
		const struct page *page = page_at(m, at);

		if (page->level && !sensible(m, (page->attr & ~clear) | set))
			return -EINVAL;
	}
	error = model_split_ends(m, first, last);
	if (error)
		return error;
	for (uint64_t at = first; at < last; at += PAGE) {
		struct page *page = page_at(m, at);

		if (page->level)
			page->attr = says(m, (page->attr & ~clear) | set);
	}
	return 0;
}

/* Goes on until a page is lacking. */
static int model_split(struct model *m, uint64_t first, uint64_t last, unsigned int page_lg2)
{
	if (first > last || last > top(m) || (page_lg2 != m->shift[1] && page_lg2 != m->shift[2]))
		return -EINVAL;
	for (uint64_t at = first & ~(PAGE - 1); at <= last;) {
		struct page *page = page_at(m, at);

		if (!page->level || m->shift[page->level] <= page_lg2) {
			at = after_leaf(m, at);
			continue;
		}
		if (unsplittable(m, at))
			return -EINVAL;
		if (!has_room(m, 1))
			return -ENOSPC;
		split_leaf(m, at);
		note_peak(m, 0);
	}
	return 0;
}

/* One large page that might come about; its attributes, or false. */
static bool collapsible(struct model *m, uint64_t first, unsigned int level, uint32_t *attr)
{
	const struct page *page = page_at(m, first);

	if (!page || page->level != level - 1 || (page->phys & span_mask(m, level)))
		return false;
	*attr = page->attr;
	for (uint64_t at = first; at <= (first | span_mask(m, level)); at += PAGE) {
		const struct page *other = page_at(m, at);

		if (!other || other->level != level - 1 ||
		    other->phys != page->phys + (at - first) ||
		    ((other->attr ^ page->attr) & NO_AD))
			return false;
		*attr |= other->attr;
	}
	return true;
}

static uint64_t model_collapse(struct model *m, uint64_t first, uint64_t last,
			       unsigned int largest_lg2)
{
	uint64_t collapsed = 0;

	for (unsigned int level = 2; level <= 3; level++) {
		uint64_t mask = span_mask(m, level);
		uint32_t attr;

		if (!(m->large_levels >> level & 1) ||
		    (largest_lg2 && m->shift[level] > largest_lg2))
			continue;
		for (uint64_t at = (first + mask) & ~mask; (at | mask) <= last; at += mask + 1) {
			if (!collapsible(m, at, level, &attr))
				continue;
			set_leaf(m, at, level, attr);
			collapsed++;
		}
	}
	return collapsed;
}

/* --- looking at both ---------------------------------------------------------------------------
 */

static void compare_page(struct model *m, uint64_t address)
{
	const struct page *page = page_at(m, address);
	struct mv_mapping mapping;
	int error = mv_table_walk(m->table, address, &mapping);

	if (!page->level) {
		assert_int_equal(error, -ENOENT);
		return;
	}
	assert_int_equal(error, 0);
	assert_int_equal(mapping.level, page->level);
	assert_int_equal(mapping.page_lg2, m->shift[page->level]);
	assert_int_equal(mapping.address, address & ~span_mask(m, page->level));
	assert_int_equal(mapping.phys + (address - mapping.address),
			 page->phys + (address & (PAGE - 1)));
	assert_int_equal(mapping.attr, page->attr);
}

static void compare_counts(struct model *m)
{
	struct mv_table_usage usage;

	mv_table_get_usage(m->table, &usage);
	assert_int_equal(usage.pages, m->tables);
	assert_int_equal(usage.peak_pages, m->peak);
	assert_int_equal(m->fake.table_pages, m->tables);
}

/* Ends of a range, and around, and some in between. */
static void compare_range(struct model *m, uint64_t first, uint64_t last)
{
	uint64_t pages = (last - first) / PAGE + 1, step = pages / 64 + 1;

	for (uint64_t i = 0; i < pages; i += step)
		compare_page(m, first + i * PAGE + chance_below(&m->chance, PAGE));
	if (page_at(m, first - PAGE))
		compare_page(m, first - PAGE);
	if (page_at(m, last + 1))
		compare_page(m, last + 1);
	compare_page(m, last);
	compare_counts(m);
}

struct leaves {
	struct model *m;
	uint64_t at;
};

static int compare_leaf(void *ctx, const struct mv_mapping *mapping)
{
	struct leaves *leaves = ctx;
	struct model *m = leaves->m;

	insist(mapping->address >= leaves->at);
	for (; leaves->at < mapping->address; leaves->at += PAGE)
		insist(!page_at(m, leaves->at)->level);
	insist(page_at(m, leaves->at)->level == mapping->level);
	insist(page_at(m, leaves->at)->phys == mapping->phys);
	insist(page_at(m, leaves->at)->attr == mapping->attr);
	leaves->at += 1ULL << mapping->page_lg2;
	return 0;
}

static void compare_translations(struct model *m, const struct window *w)
{
	uint64_t address[100], phys[100];
	size_t mapped = 0;

	for (size_t i = 0; i < COUNT_OF(address); i++)
		address[i] = w->first + chance_below(&m->chance, w->pages * PAGE);
	address[17] = top(m) + 1 + address[16];
	mapped = mv_table_translate_many(m->table, address, phys, COUNT_OF(address));
	for (size_t i = 0; i < COUNT_OF(address); i++) {
		const struct page *page = page_at(m, address[i]);

		if (!page || !page->level) {
			assert_int_equal(phys[i], UINT64_MAX);
			continue;
		}
		assert_int_equal(phys[i], page->phys + (address[i] & (PAGE - 1)));
		mapped--;
	}
	assert_int_equal(mapped, 0);
}

static void compare_all(struct model *m)
{
	struct mv_table_defect defect;

	for (unsigned int i = 0; i < m->windows; i++) {
		const struct window *w = &m->window[i];
		uint64_t last = w->first + w->pages * PAGE - 1;
		struct leaves leaves = { m, w->first };

		assert_int_equal(
			mv_table_for_each_leaf(m->table, w->first, last, compare_leaf, &leaves), 0);
		for (; leaves.at < last; leaves.at += PAGE)
			assert_int_equal(page_at(m, leaves.at)->level, 0);
		compare_translations(m, w);
	}
	mv_table_check(m->table, &defect);
	assert_int_equal(defect.kind, MV_DEFECT_NONE);
	compare_counts(m);
}

static void note_flush(void *ctx, uint64_t first, uint64_t last)
{
	struct model *m = ctx;

	insist(first <= last);
	insist(m->flushes < FLUSHES_MAX);
	m->flush[m->flushes++] = (struct flush){ first, last };
}

static bool flushed(const struct model *m, uint64_t address)
{
	for (unsigned int i = 0; i < m->flushes; i++)
		if (m->flush[i].first <= address && address <= m->flush[i].last)
			return true;
	return false;
}

/* --- a processor -------------------------------------------------------------------------------
 */

/* The entry of a leaf, found by reading memory as a processor does. */
static void *leaf_entry(struct model *m, uint64_t address)
{
	unsigned int level = m->levels, leaf = page_at(m, address)->level;
	uint64_t table = mv_table_root(m->table);

	for (;; level--) {
		unsigned int bits = is_small(m) ? 10 : 9;
		uint64_t index = address >> m->shift[level] & ((1u << bits) - 1);

		if (is_small(m)) {
			uint32_t *entry = (uint32_t *)(uintptr_t)table + index;

			if (level == leaf)
				return entry;
			table = *entry & 0xfffff000u;
		} else {
			uint64_t *entry = (uint64_t *)(uintptr_t)table + index;

			if (level == leaf)
				return entry;
			table = *entry & 0x000ffffffffff000ULL;
		}
	}
}

static void touch(struct model *m, uint64_t address)
{
	bool write = chance_one_in(&m->chance, 2);
	uint64_t accessed = is_ept(m) ? 1 << 8 : 1 << 5, dirty = is_ept(m) ? 1 << 9 : 1 << 6;
	struct page *page = page_at(m, address);
	uint64_t bits = accessed | (write ? dirty : 0);

	if (!page->level || (is_ept(m) && !has(m, MV_FEATURE_ACCESSED)))
		return;
	if (is_small(m))
		*(uint32_t *)leaf_entry(m, address) |= (uint32_t)bits;
	else
		*(uint64_t *)leaf_entry(m, address) |= bits;
	set_leaf(m, address, page->level,
		 page->attr | MV_ATTR_ACCESSED | (write ? MV_ATTR_DIRTY : 0));
}

/* --- one operation ------------------------------------------------------------------------------
 */

static uint64_t random_page(struct model *m, const struct window *w)
{
	uint64_t page = chance_below(&m->chance, w->pages);

	/* Boundaries of large pages, often. */
	if (chance_one_in(&m->chance, 2))
		page &= ~((span_mask(m, 2) + 1) / PAGE - 1);
	if (chance_one_in(&m->chance, 8))
		page &= ~((span_mask(m, 3) + 1) / PAGE - 1);
	return page;
}

static void random_range(struct model *m, uint64_t *first, uint64_t *last)
{
	const struct window *w = &m->window[chance_below(&m->chance, m->windows)];
	uint64_t from = random_page(m, w), count;

	switch (chance_below(&m->chance, 4)) {
	case 0:
		count = 1 + chance_below(&m->chance, 8);
		break;
	case 1:
		count = 1 + chance_below(&m->chance, 600);
		break;
	case 2:
		count = (span_mask(m, 2) + 1) / PAGE * (1 + chance_below(&m->chance, 2));
		break;
	default:
		count = chance_one_in(&m->chance, 40) ? w->pages : 1;
	}
	if (from + count > w->pages)
		count = w->pages - from;
	*first = w->first + from * PAGE;
	*last = *first + count * PAGE - 1;
}

static uint32_t random_attr(struct model *m)
{
	uint32_t attr = (uint32_t)chance_next(&m->chance);

	if (chance_one_in(&m->chance, 20))
		return attr;
	/* Few kinds, so that neighbours agree and can be collapsed. */
	return MV_ATTR_READ | (attr & MV_ATTR_WRITE) | MV_ATTR_EXEC | MV_ATTR_TYPE(6) |
	       (attr & 1 ? MV_ATTR_SOFT0 : 0);
}

static uint64_t random_phys(struct model *m, uint64_t first)
{
	uint64_t phys = chance_next(&m->chance) & ((1ULL << m->width) - 1) & ~(PAGE - 1);

	switch (chance_below(&m->chance, 8)) {
	case 0:
		return phys;
	case 1:
		return (phys & ~span_mask(m, 2)) | (first & span_mask(m, 2));
	case 2:
		return m->levels > 2 ? (phys & ~span_mask(m, 3)) | (first & span_mask(m, 3)) : phys;
	default:
		/* The same for neighbours. */
		return (first + (span_mask(m, 2) + 1) * 3) & ((1ULL << m->width) - 1);
	}
}

static unsigned int random_lg2(struct model *m)
{
	static const unsigned int some[] = { 0, 0, 0, 0, 12, 21, 22, 30, 11, 40 };

	return some[chance_below(&m->chance, COUNT_OF(some))];
}

static void try_map(struct model *m, uint64_t first, uint64_t last)
{
	uint32_t attr = random_attr(m);
	uint64_t phys = random_phys(m, first);
	unsigned int lg2 = random_lg2(m);
	int error;

	if (chance_one_in(&m->chance, 200))
		phys += 1 + chance_below(&m->chance, PAGE - 1);
	if (chance_one_in(&m->chance, 200))
		phys |= 1ULL << m->width;
	error = model_map(m, first, last, phys, attr, lg2);
	assert_int_equal(mv_table_map(m->table, first, last, phys, attr, lg2), error);
	assert_int_equal(m->flushes, 0);
	*(error ? &m->refused : &m->mapped) += 1;
}

static void try_unmap(struct model *m, uint64_t first, uint64_t last)
{
	uint64_t removed = 77, expected = 77;
	bool some = false;
	int error;

	if (chance_one_in(&m->chance, 500)) {
		assert_int_equal(mv_table_unmap(m->table, first + 1, last, &removed), -EINVAL);
		assert_int_equal(mv_table_unmap(m->table, first, last - 1, &removed), -EINVAL);
		assert_int_equal(mv_table_unmap(m->table, last + 1, first - 1, &removed), -EINVAL);
	}
	assert_int_equal(removed, 77);
	m->flushes = 0;
	error = mv_table_unmap(m->table, first, last, &removed);
	for (uint64_t at = first; !error && at < last; at += PAGE) {
		if (!page_at(m, at)->level)
			continue;
		some = true;
		assert_true(flushed(m, at));
	}
	assert_int_equal(error, model_unmap(m, first, last, &expected));
	assert_int_equal(removed, expected);
	if (!some && !error && m->flushes) {
		/* Nothing went away: then there is nothing to flush. */
		fail_msg("a flush without need");
	}
}

/* Taken, cleared or of another kind: then no processor may know the old. */
static bool must_flush(uint32_t before, uint32_t after)
{
	uint32_t grows = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_EXEC_USER |
			 MV_ATTR_ACCESSED | MV_ATTR_DIRTY;

	return (before & ~after & grows) ||
	       ((before ^ after) & (MV_ATTR_TYPE_MASK | MV_ATTR_IGNORE_PAT | MV_ATTR_USER |
				    MV_ATTR_GLOBAL | MV_ATTR_PKEY_MASK | MV_ATTR_SUPPRESS_VE));
}

static void try_protect(struct model *m, uint64_t first, uint64_t last)
{
	uint32_t clear = (uint32_t)chance_next(&m->chance) & (uint32_t)chance_next(&m->chance);
	uint32_t set = random_attr(m);
	int error;

	if (chance_one_in(&m->chance, 2)) {
		clear &= MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_SOFT0;
		set &= MV_ATTR_WRITE | MV_ATTR_EXEC;
	}
	error = mv_table_protect(m->table, first, last, clear, set);
	for (uint64_t at = first; !error && at < last; at += PAGE) {
		const struct page *page = page_at(m, at);

		if (page->level && must_flush(page->attr, says(m, (page->attr & ~clear) | set)))
			assert_true(flushed(m, at));
	}
	assert_int_equal(error, model_protect(m, first, last, clear, set));
}

static void try_split(struct model *m, uint64_t first, uint64_t last)
{
	unsigned int lg2 = chance_one_in(&m->chance, 20)  ? random_lg2(m)
			   : chance_one_in(&m->chance, 2) ? m->shift[2]
							  : 12;
	int error = mv_table_split(m->table, first, last, lg2);

	assert_int_equal(error, model_split(m, first, last, lg2));
	assert_int_equal(m->flushes, 0);
}

static void try_collapse(struct model *m, uint64_t first, uint64_t last)
{
	const struct window *w = m->window;
	unsigned int lg2 = random_lg2(m);

	for (unsigned int i = 0; i < m->windows; i++)
		if (first >= m->window[i].first)
			w = &m->window[i];
	/* Pages that were one before, and of which a processor has used some. */
	if (chance_one_in(&m->chance, 2)) {
		assert_int_equal(mv_table_split(m->table, first, last, 12),
				 model_split(m, first, last, 12));
		for (int i = 0; i < 4; i++)
			touch(m, first + chance_below(&m->chance, last - first + 1));
	}
	if (chance_one_in(&m->chance, 4)) {
		first = w->first;
		last = first + w->pages * PAGE - 1;
	}
	assert_int_equal(mv_table_collapse(m->table, first, last, lg2),
			 model_collapse(m, first, last, lg2));
	compare_range(m, first, last);
}

struct harvested {
	struct model *m;
	uint64_t count;
	uint64_t after;
	uint32_t what;
};

static void check_harvested(void *ctx, const struct mv_mapping *mapping)
{
	struct harvested *h = ctx;
	const struct page *page = page_at(h->m, mapping->address);

	insist(mapping->address >= h->after);
	insist(page->level == mapping->level);
	insist(page->phys == mapping->phys);
	insist(mapping->attr == (page->attr & h->what));
	insist(mapping->attr);
	h->after = mapping->address + (1ULL << mapping->page_lg2);
	h->count++;
}

static void try_harvest(struct model *m, uint64_t first, uint64_t last)
{
	static const uint32_t kinds[] = { MV_ATTR_ACCESSED, MV_ATTR_DIRTY,
					  MV_ATTR_ACCESSED | MV_ATTR_DIRTY };
	uint32_t what = kinds[chance_below(&m->chance, COUNT_OF(kinds))];
	struct harvested h = { m, 0, 0, what };
	bool flush = chance_one_in(&m->chance, 2);
	uint64_t found = mv_table_harvest(m->table, first, last, what, check_harvested, &h, flush);

	assert_int_equal(found, h.count);
	for (uint64_t at = first; at < last; at = after_leaf(m, at)) {
		struct page *page = page_at(m, at);

		if (!page->level || !(page->attr & what))
			continue;
		found--;
		assert_int_equal(flushed(m, at), flush);
		set_leaf(m, at, page->level, page->attr & ~what);
	}
	assert_int_equal(found, 0);
}

static void one_operation(struct model *m)
{
	uint64_t first, last;

	random_range(m, &first, &last);
	assert_true(leaf_fits(m, first, last));
	m->flushes = 0;
	switch (chance_below(&m->chance, 20)) {
	case 0 ... 6:
		try_map(m, first, last);
		break;
	case 7 ... 10:
		try_unmap(m, first, last);
		break;
	case 11 ... 13:
		try_protect(m, first, last);
		break;
	case 14:
		try_split(m, first, last);
		break;
	case 15:
	case 16:
		try_collapse(m, first, last);
		break;
	case 17:
		try_harvest(m, first, last);
		break;
	default:
		for (int i = 0; i < 8; i++)
			touch(m, first + chance_below(&m->chance, last - first + 1));
	}
	compare_range(m, first, last);
}

/* --- a setting ----------------------------------------------------------------------------------
 */

static void add_window(struct model *m, uint64_t middle)
{
	uint64_t bytes = m->setting->window_bytes, half = bytes / 2;
	uint64_t first = middle < half ? 0 : middle - half;
	struct window *w = &m->window[m->windows++];

	if (first > top(m) - (bytes - 1))
		first = top(m) - (bytes - 1);
	*w = (struct window){ .first = first, .pages = bytes / PAGE };
	w->page = calloc(w->pages, sizeof(*w->page));
	assert_non_null(w->page);
}

/* By number, so that windows that share a table share its span. */
static uint32_t span_of(struct model *m, unsigned int level, uint64_t number)
{
	uint32_t i;

	for (i = m->spans[level]; i-- > 0;)
		if (m->span_number[level][i] == number)
			return i;
	i = m->spans[level]++;
	m->span_number[level] = realloc(m->span_number[level], m->spans[level] * sizeof(uint64_t));
	m->used[level] = realloc(m->used[level], m->spans[level] * sizeof(uint32_t));
	assert_non_null(m->span_number[level]);
	assert_non_null(m->used[level]);
	m->span_number[level][i] = number;
	m->used[level][i] = 0;
	return i;
}

static void number_spans(struct model *m)
{
	for (unsigned int i = 0; i < m->windows; i++) {
		struct window *w = &m->window[i];

		for (uint64_t n = 0; n < w->pages; n++)
			for (unsigned int l = 1; l < m->levels; l++)
				w->page[n].span[l] =
					span_of(m, l, (w->first + n * PAGE) >> m->shift[l + 1]);
	}
}

static void model_open(struct model *m, const struct setting *setting, uint64_t seed)
{
	struct mv_table_config config = {
		.size = sizeof(config),
		.platform = &m->fake.platform,
		.format = setting->format,
		.features = setting->features,
		.maxphyaddr = setting->maxphyaddr,
		.node = -1,
		.page_limit = setting->page_limit,
		.flush = note_flush,
		.ctx = m,
	};

	memset(m, 0, sizeof(*m));
	m->setting = setting;
	m->chance = chance_of(seed, (uint64_t)setting->format * 100 + setting->features);
	m->tables = m->peak = 1;
	learn_format(m);
	fake_platform_init(&m->fake);
	assert_int_equal(mv_table_create(&config, &m->table), 0);
	assert_int_equal(mv_table_last_address(m->table), top(m));
	add_window(m, 0);
	if (setting->window_bytes < 1ULL << 30) {
		add_window(m, 1ULL << 30);
		add_window(m, top(m));
		if (m->levels > 3)
			add_window(m, 1ULL << 39);
	}
	number_spans(m);
}

static void model_close(struct model *m)
{
	struct mv_table_usage usage;
	uint64_t removed;

	assert_int_equal(mv_table_unmap(m->table, 0, top(m), &removed), 0);
	mv_table_get_usage(m->table, &usage);
	assert_int_equal(usage.pages, 1);
	assert_int_equal(usage.peak_pages, m->peak);
	mv_table_destroy(m->table);
	fake_platform_finish(&m->fake);
	for (unsigned int i = 0; i < m->windows; i++)
		free(m->window[i].page);
	for (unsigned int l = 0; l < LEVELS_MAX; l++) {
		free(m->used[l]);
		free(m->span_number[l]);
	}
}

#define SMALL (16ULL << 20)
#define HUGE  (3ULL << 30)
#define ALL_OF_EPT                                                                                 \
	(MV_FEATURE_2M | MV_FEATURE_1G | MV_FEATURE_EXEC_ONLY | MV_FEATURE_MODE_EXEC |             \
	 MV_FEATURE_ACCESSED | MV_FEATURE_VE)

/* The share is small where an operation is large. */
static const struct setting settings[] = {
	{ "32-bit", MV_FORMAT_X86_32, 0, 32, 0, SMALL, 100 },
	{ "32-bit, limited", MV_FORMAT_X86_32, MV_FEATURE_NX, 52, 6, SMALL, 60 },
	{ "PSE", MV_FORMAT_X86_PSE, 0, 32, 0, SMALL, 60 },
	{ "PSE-36", MV_FORMAT_X86_PSE, 0, 36, 0, SMALL, 60 },
	{ "PSE-40, limited", MV_FORMAT_X86_PSE, 0, 48, 5, SMALL, 60 },
	{ "PAE", MV_FORMAT_X86_PAE, MV_FEATURE_NX, 52, 0, SMALL, 60 },
	{ "PAE, no NX, narrow", MV_FORMAT_X86_PAE, 0, 36, 12, SMALL, 60 },
	{ "4-level", MV_FORMAT_X86_4L, MV_FEATURE_NX | MV_FEATURE_PKEY | MV_FEATURE_1G, 46, 0,
	  SMALL, 100 },
	{ "4-level, no NX, narrow", MV_FORMAT_X86_4L, 0, 39, 20, SMALL, 60 },
	{ "4-level, 1G", MV_FORMAT_X86_4L, MV_FEATURE_1G | MV_FEATURE_NX, 52, 0, HUGE, 3 },
	{ "5-level", MV_FORMAT_X86_5L, MV_FEATURE_NX | MV_FEATURE_PKEY, 52, 0, SMALL, 60 },
	{ "5-level, 1G, limited", MV_FORMAT_X86_5L, MV_FEATURE_1G, 40, 40, HUGE, 3 },
	{ "EPT, 4K only", MV_FORMAT_EPT_4L, 0, 48, 0, SMALL, 60 },
	{ "EPT, 1G without 2M", MV_FORMAT_EPT_4L, MV_FEATURE_1G, 40, 0, SMALL, 30 },
	{ "EPT, 2M, A/D", MV_FORMAT_EPT_4L, MV_FEATURE_2M | MV_FEATURE_ACCESSED, 36, 25, SMALL,
	  60 },
	{ "EPT, all", MV_FORMAT_EPT_4L, ALL_OF_EPT, 52, 0, SMALL, 100 },
	{ "EPT, all, 1G", MV_FORMAT_EPT_4L, ALL_OF_EPT, 46, 0, HUGE, 3 },
	{ "EPT 5-level", MV_FORMAT_EPT_5L, ALL_OF_EPT, 52, 0, SMALL, 60 },
	{ "EPT 5-level, #VE", MV_FORMAT_EPT_5L, MV_FEATURE_2M | MV_FEATURE_VE, 45, 30, SMALL, 60 },
	{ "NPT", MV_FORMAT_NPT_4L, MV_FEATURE_NX, 48, 0, SMALL, 60 },
	{ "NPT, no NX, 1G", MV_FORMAT_NPT_4L, MV_FEATURE_1G, 40, 0, HUGE, 3 },
	{ "NPT 5-level", MV_FORMAT_NPT_5L, MV_FEATURE_NX | MV_FEATURE_1G, 52, 30, SMALL, 60 },
};

static uint64_t all_shares(void)
{
	uint64_t shares = 0;

	for (size_t i = 0; i < COUNT_OF(settings); i++)
		shares += settings[i].share;
	return shares;
}

static void tables_equal_the_array(void **state)
{
	const char *given = getenv("OPS");
	uint64_t total = given ? strtoull(given, NULL, 0) : test_rounds(OPS_DEFAULT);
	uint64_t seed = test_seed();
	static struct model m;

	for (size_t i = 0; i < COUNT_OF(settings); i++) {
		uint64_t ops = total * settings[i].share / all_shares() + 1;

		model_open(&m, &settings[i], seed);
		for (uint64_t n = 0; n < ops; n++) {
			one_operation(&m);
			if (n % 512 == 0)
				compare_all(&m);
		}
		compare_all(&m);
		print_message("# %s: %llu operations, %llu maps came about, %llu were refused, "
			      "at most %zu tables\n",
			      settings[i].name, (unsigned long long)ops,
			      (unsigned long long)m.mapped, (unsigned long long)m.refused, m.peak);
		model_close(&m);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(tables_equal_the_array),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
