/* SPDX-License-Identifier: BSD-2-Clause */
/* What a table has to say; see flat_table.h. */
#include "support/flat_table.h"

#define PAGE  4096ULL
#define NO_AD (~(MV_ATTR_ACCESSED | MV_ATTR_DIRTY))

/* --- formats, from the manuals rather than from the library --------------------------------- */

bool flat_is_ept(const struct flat_table *m)
{
	return m->setting->format == MV_FORMAT_EPT_4L || m->setting->format == MV_FORMAT_EPT_5L;
}

static bool is_npt(const struct flat_table *m)
{
	return m->setting->format == MV_FORMAT_NPT_4L || m->setting->format == MV_FORMAT_NPT_5L;
}

bool flat_is_small(const struct flat_table *m)
{
	return m->setting->format == MV_FORMAT_X86_32 || m->setting->format == MV_FORMAT_X86_PSE;
}

bool flat_has(const struct flat_table *m, uint32_t feature)
{
	return m->setting->features & feature;
}

void flat_learn_format(struct flat_table *m)
{
	static const unsigned int levels[MV_FORMATS] = { 2, 2, 3, 4, 5, 4, 5, 4, 5 };
	unsigned int bits = flat_is_small(m) ? 10 : 9;

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
	if (m->setting->format != MV_FORMAT_X86_32 &&
	    (!flat_is_ept(m) || flat_has(m, MV_FEATURE_2M)))
		m->large_levels |= 1 << 2;
	if (m->levels >= 4 && flat_has(m, MV_FEATURE_1G) && (m->large_levels & 1 << 2))
		m->large_levels |= 1 << 3;
}

uint64_t flat_top(const struct flat_table *m)
{
	return (1ULL << m->shift[m->levels + 1]) - 1;
}

uint64_t flat_span_mask(const struct flat_table *m, unsigned int level)
{
	return (1ULL << m->shift[level]) - 1;
}

uint32_t flat_says(const struct flat_table *m, uint32_t attr)
{
	uint32_t known =
		MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_SOFT0 | MV_ATTR_SOFT1 | MV_ATTR_TYPE_MASK;

	if (flat_is_ept(m)) {
		known |= MV_ATTR_READ | MV_ATTR_IGNORE_PAT;
		known |= flat_has(m, MV_FEATURE_MODE_EXEC) ? MV_ATTR_EXEC_USER : 0;
		known |= flat_has(m, MV_FEATURE_VE) ? MV_ATTR_SUPPRESS_VE : 0;
		known |= flat_has(m, MV_FEATURE_ACCESSED) ? MV_ATTR_ACCESSED | MV_ATTR_DIRTY : 0;
		return attr & known;
	}
	known |= MV_ATTR_GLOBAL | MV_ATTR_ACCESSED | MV_ATTR_DIRTY;
	known |= is_npt(m) ? MV_ATTR_READ : MV_ATTR_USER;
	if (flat_has(m, MV_FEATURE_PKEY) && m->levels >= 4 && !is_npt(m))
		known |= MV_ATTR_PKEY_MASK;
	attr &= known;
	attr |= is_npt(m) ? 0 : MV_ATTR_READ;
	attr |= flat_has(m, MV_FEATURE_NX) && !flat_is_small(m) ? 0 : MV_ATTR_EXEC;
	return attr;
}

/* SDM vol. 3, 29.3.3.1. */
static bool sensible(const struct flat_table *m, uint32_t attr)
{
	uint32_t type = attr >> 12 & 7;

	attr = flat_says(m, attr);
	if (!flat_is_ept(m))
		return true;
	if (type != 0 && type != 1 && type != 4 && type != 5 && type != 6)
		return false;
	if (attr & MV_ATTR_READ)
		return true;
	return !(attr & MV_ATTR_WRITE) && flat_has(m, MV_FEATURE_EXEC_ONLY) &&
	       (attr & (MV_ATTR_EXEC | MV_ATTR_EXEC_USER));
}

/* --- what of the address space is in it ------------------------------------------------------- */

void flat_add_window(struct flat_table *m, uint64_t middle)
{
	uint64_t bytes = m->setting->window_bytes, half = bytes / 2;
	uint64_t first = middle < half ? 0 : middle - half;
	struct flat_window *w = &m->window[m->windows++];

	if (first > flat_top(m) - (bytes - 1))
		first = flat_top(m) - (bytes - 1);
	*w = (struct flat_window){ .first = first, .pages = bytes / PAGE };
	w->page = calloc(w->pages, sizeof(*w->page));
	assert_non_null(w->page);
}

/* By number, so that windows that share a table share its span. */
static uint32_t span_of(struct flat_table *m, unsigned int level, uint64_t number)
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

void flat_number_spans(struct flat_table *m)
{
	for (unsigned int i = 0; i < m->windows; i++) {
		struct flat_window *w = &m->window[i];

		for (uint64_t n = 0; n < w->pages; n++)
			for (unsigned int l = 1; l < m->levels; l++)
				w->page[n].span[l] =
					span_of(m, l, (w->first + n * PAGE) >> m->shift[l + 1]);
	}
}

/* --- the array -------------------------------------------------------------------------------- */

struct flat_page *flat_page_at(struct flat_table *m, uint64_t address)
{
	for (unsigned int i = 0; i < m->windows; i++) {
		struct flat_window *w = &m->window[i];

		if (address >= w->first && address - w->first < w->pages * PAGE)
			return &w->page[(address - w->first) / PAGE];
	}
	return NULL;
}

static void set_page(struct flat_table *m, struct flat_page *page, uint32_t level, uint64_t phys,
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

static void note_peak(struct flat_table *m, size_t more)
{
	if (m->tables + more > m->peak)
		m->peak = m->tables + more;
}

static bool has_room(const struct flat_table *m, size_t more)
{
	return !m->setting->page_limit || m->tables + more <= m->setting->page_limit;
}

/* The leaf that a page is in: [*first, *last]. */
static void leaf_span(const struct flat_table *m, const struct flat_page *page, uint64_t address,
		      uint64_t *first, uint64_t *last)
{
	*first = address & ~flat_span_mask(m, page->level);
	*last = address | flat_span_mask(m, page->level);
}

uint64_t flat_after_leaf(struct flat_table *m, uint64_t address)
{
	const struct flat_page *page = flat_page_at(m, address);

	return (address | flat_span_mask(m, page && page->level ? page->level : 1)) + 1;
}

void flat_set_leaf(struct flat_table *m, uint64_t address, uint32_t level, uint32_t attr)
{
	uint64_t first = address & ~flat_span_mask(m, level),
		 last = address | flat_span_mask(m, level);

	for (uint64_t at = first; at < last; at += PAGE) {
		struct flat_page *page = flat_page_at(m, at);

		set_page(m, page, level, page->phys, attr);
	}
}

bool flat_leaf_fits(const struct flat_table *m, uint64_t address, uint64_t last)
{
	return (address | flat_span_mask(m, 1)) <= last;
}

/* --- maps ------------------------------------------------------------------------------------- */

static unsigned int best_level(const struct flat_table *m, uint64_t at, uint64_t last,
			       uint64_t phys, unsigned int largest_lg2)
{
	for (unsigned int l = 3; l > 1; l--) {
		uint64_t mask = flat_span_mask(m, l);

		if (!(m->large_levels >> l & 1) || (largest_lg2 && m->shift[l] > largest_lg2))
			continue;
		if (!(at & mask) && !(phys & mask) && (at | mask) <= last)
			return l;
	}
	return 1;
}

static int model_map_valid(const struct flat_table *m, uint64_t first, uint64_t last, uint64_t phys,
			   uint32_t attr, unsigned int largest_lg2)
{
	if (first > last || last > flat_top(m) || first % PAGE || (last + 1) % PAGE || phys % PAGE)
		return -EINVAL;
	if ((largest_lg2 && largest_lg2 < 12) || !sensible(m, attr))
		return -EINVAL;
	if ((phys + (last - first)) >> m->width)
		return -EINVAL;
	for (uint64_t at = first; flat_is_small(m) && at < last;) {
		uint64_t to = phys + (at - first);
		unsigned int level = best_level(m, at, last, to, largest_lg2);

		if (level == 1 && to >> 32)
			return -EINVAL;
		at += flat_span_mask(m, level) + 1;
	}
	return 0;
}

int flat_map(struct flat_table *m, uint64_t first, uint64_t last, uint64_t phys, uint32_t attr,
	     unsigned int largest_lg2)
{
	size_t before = m->tables, after;
	int error = model_map_valid(m, first, last, phys, attr, largest_lg2);

	if (error)
		return error;
	for (uint64_t at = first; at < last; at += PAGE)
		if (flat_page_at(m, at)->level)
			return -EEXIST;
	for (uint64_t at = first; at < last;) {
		unsigned int level = best_level(m, at, last, phys + (at - first), largest_lg2);
		uint64_t end = at + flat_span_mask(m, level);

		for (; at < end; at += PAGE)
			set_page(m, flat_page_at(m, at), level, phys + (at - first),
				 flat_says(m, attr));
	}
	after = m->tables;
	if (m->setting->page_limit && after > m->setting->page_limit) {
		for (uint64_t at = first; at < last; at += PAGE)
			set_page(m, flat_page_at(m, at), 0, 0, 0);
		assert_int_equal(m->tables, before);
		return -ENOSPC;
	}
	note_peak(m, 0);
	return 0;
}

/* --- splits ------------------------------------------------------------------------------------
 */

static void split_leaf(struct flat_table *m, uint64_t address)
{
	struct flat_page *page = flat_page_at(m, address);
	uint64_t first, last;

	leaf_span(m, page, address, &first, &last);
	for (uint32_t level = page->level - 1; first < last; first += PAGE) {
		page = flat_page_at(m, first);
		set_page(m, page, level, page->phys, page->attr);
	}
}

static bool reaches_beyond(struct flat_table *m, uint64_t address, uint64_t first, uint64_t last)
{
	struct flat_page *page = flat_page_at(m, address);
	uint64_t leaf_first, leaf_last;

	if (!page->level)
		return false;
	leaf_span(m, page, address, &leaf_first, &leaf_last);
	return leaf_first < first || leaf_last > last;
}

/* PSE-36: what lies above 4 GiB flat_has no small pages. */
static bool unsplittable(struct flat_table *m, uint64_t address)
{
	return flat_is_small(m) && flat_page_at(m, address)->phys >> 32;
}

/* Split at both ends, or nothing. On the way it flat_has all the pages that it takes. */
static int model_split_ends(struct flat_table *m, uint64_t first, uint64_t last)
{
	uint64_t ends[2] = { first, last & ~(PAGE - 1) };
	struct mv_mapping saved[2] = { 0 };
	size_t before = m->tables, after;

	for (int i = 0; i < 2; i++)
		if (reaches_beyond(m, ends[i], first, last) && unsplittable(m, ends[i]))
			return -EINVAL;
	for (int i = 0; i < 2; i++) {
		saved[i].level = flat_page_at(m, ends[i])->level;
		saved[i].attr = flat_page_at(m, ends[i])->attr;
		saved[i].address = ends[i];
		while (reaches_beyond(m, ends[i], first, last))
			split_leaf(m, ends[i]);
	}
	after = m->tables;
	if (m->setting->page_limit && after > m->setting->page_limit) {
		for (int i = 1; i >= 0; i--)
			if (saved[i].level)
				flat_set_leaf(m, saved[i].address, saved[i].level, saved[i].attr);
		assert_int_equal(m->tables, before);
		return -ENOSPC;
	}
	note_peak(m, 0);
	return 0;
}

static bool range_valid(const struct flat_table *m, uint64_t first, uint64_t last)
{
	return first <= last && last <= flat_top(m) && first % PAGE == 0 && (last + 1) % PAGE == 0;
}

int flat_unmap(struct flat_table *m, uint64_t first, uint64_t last, uint64_t *removed)
{
	int error = range_valid(m, first, last) ? model_split_ends(m, first, last) : -EINVAL;

	if (error)
		return error;
	*removed = 0;
	for (uint64_t at = first; at < last; at += PAGE) {
		struct flat_page *page = flat_page_at(m, at);

		*removed += page->level ? PAGE : 0;
		set_page(m, page, 0, 0, 0);
	}
	return 0;
}

int flat_protect(struct flat_table *m, uint64_t first, uint64_t last, uint32_t clear, uint32_t set)
{
	int error;

	if (!range_valid(m, first, last))
		return -EINVAL;
	for (uint64_t at = first; at < last; at = flat_after_leaf(m, at)) {
		const struct flat_page *page = flat_page_at(m, at);

		if (page->level && !sensible(m, (page->attr & ~clear) | set))
			return -EINVAL;
	}
	error = model_split_ends(m, first, last);
	if (error)
		return error;
	for (uint64_t at = first; at < last; at += PAGE) {
		struct flat_page *page = flat_page_at(m, at);

		if (page->level)
			page->attr = flat_says(m, (page->attr & ~clear) | set);
	}
	return 0;
}

int flat_split(struct flat_table *m, uint64_t first, uint64_t last, unsigned int page_lg2)
{
	if (first > last || last > flat_top(m) ||
	    (page_lg2 != m->shift[1] && page_lg2 != m->shift[2]))
		return -EINVAL;
	for (uint64_t at = first & ~(PAGE - 1); at <= last;) {
		struct flat_page *page = flat_page_at(m, at);

		if (!page->level || m->shift[page->level] <= page_lg2) {
			at = flat_after_leaf(m, at);
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
static bool collapsible(struct flat_table *m, uint64_t first, unsigned int level, uint32_t *attr)
{
	const struct flat_page *page = flat_page_at(m, first);

	if (!page || page->level != level - 1 || (page->phys & flat_span_mask(m, level)))
		return false;
	*attr = page->attr;
	for (uint64_t at = first; at <= (first | flat_span_mask(m, level)); at += PAGE) {
		const struct flat_page *other = flat_page_at(m, at);

		if (!other || other->level != level - 1 ||
		    other->phys != page->phys + (at - first) ||
		    ((other->attr ^ page->attr) & NO_AD))
			return false;
		*attr |= other->attr;
	}
	return true;
}

uint64_t flat_collapse(struct flat_table *m, uint64_t first, uint64_t last,
		       unsigned int largest_lg2)
{
	uint64_t collapsed = 0;

	for (unsigned int level = 2; level <= 3; level++) {
		uint64_t mask = flat_span_mask(m, level);
		uint32_t attr;

		if (!(m->large_levels >> level & 1) ||
		    (largest_lg2 && m->shift[level] > largest_lg2))
			continue;
		for (uint64_t at = (first + mask) & ~mask; (at | mask) <= last; at += mask + 1) {
			if (!collapsible(m, at, level, &attr))
				continue;
			flat_set_leaf(m, at, level, attr);
			collapsed++;
		}
	}
	return collapsed;
}
