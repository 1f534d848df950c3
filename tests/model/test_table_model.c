/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables of every format against a flat array: random operations, and after each the same
 * translations, attributes, return codes, flushes, and number of table pages, now and at most.
 *
 * What does not belong here: the array (support/flat_table.h).
 *
 * OPS says how many operations in total; by default about 20 s of them.
 */
#include "support/flat_table.h"

#define PAGE	    4096ULL
#define OPS_DEFAULT 2000000ULL

/* --- looking at both ---------------------------------------------------------------------------
 */

static void compare_page(struct flat_table *m, uint64_t address)
{
	const struct flat_page *page = flat_page_at(m, address);
	struct mv_mapping mapping;
	int error = mv_table_walk(m->table, address, &mapping);

	if (!page->level) {
		assert_int_equal(error, -ENOENT);
		return;
	}
	assert_int_equal(error, 0);
	assert_int_equal(mapping.level, page->level);
	assert_int_equal(mapping.page_lg2, m->shift[page->level]);
	assert_int_equal(mapping.address, address & ~flat_span_mask(m, page->level));
	assert_int_equal(mapping.phys + (address - mapping.address),
			 page->phys + (address & (PAGE - 1)));
	assert_int_equal(mapping.attr, page->attr);
}

static void compare_counts(struct flat_table *m)
{
	struct mv_table_usage usage;

	mv_table_get_usage(m->table, &usage);
	assert_int_equal(usage.pages, m->tables);
	assert_int_equal(usage.peak_pages, m->peak);
	assert_int_equal(m->fake.table_pages, m->tables);
}

/* Ends of a range, and around, and some in between. */
static void compare_range(struct flat_table *m, uint64_t first, uint64_t last)
{
	uint64_t pages = (last - first) / PAGE + 1, step = pages / 64 + 1;

	for (uint64_t i = 0; i < pages; i += step)
		compare_page(m, first + i * PAGE + chance_below(&m->chance, PAGE));
	if (flat_page_at(m, first - PAGE))
		compare_page(m, first - PAGE);
	if (flat_page_at(m, last + 1))
		compare_page(m, last + 1);
	compare_page(m, last);
	compare_counts(m);
}

struct leaves {
	struct flat_table *m;
	uint64_t at;
};

static int compare_leaf(void *ctx, const struct mv_mapping *mapping)
{
	struct leaves *leaves = ctx;
	struct flat_table *m = leaves->m;

	insist(mapping->address >= leaves->at);
	for (; leaves->at < mapping->address; leaves->at += PAGE)
		insist(!flat_page_at(m, leaves->at)->level);
	insist(flat_page_at(m, leaves->at)->level == mapping->level);
	insist(flat_page_at(m, leaves->at)->phys == mapping->phys);
	insist(flat_page_at(m, leaves->at)->attr == mapping->attr);
	leaves->at += 1ULL << mapping->page_lg2;
	return 0;
}

static void compare_translations(struct flat_table *m, const struct flat_window *w)
{
	uint64_t address[100], phys[100];
	size_t mapped = 0;

	for (size_t i = 0; i < COUNT_OF(address); i++)
		address[i] = w->first + chance_below(&m->chance, w->pages * PAGE);
	address[17] = flat_top(m) + 1 + address[16];
	mapped = mv_table_translate_many(m->table, address, phys, COUNT_OF(address));
	for (size_t i = 0; i < COUNT_OF(address); i++) {
		const struct flat_page *page = flat_page_at(m, address[i]);

		if (!page || !page->level) {
			assert_int_equal(phys[i], UINT64_MAX);
			continue;
		}
		assert_int_equal(phys[i], page->phys + (address[i] & (PAGE - 1)));
		mapped--;
	}
	assert_int_equal(mapped, 0);
}

static void compare_all(struct flat_table *m)
{
	struct mv_table_defect defect;

	for (unsigned int i = 0; i < m->windows; i++) {
		const struct flat_window *w = &m->window[i];
		uint64_t last = w->first + w->pages * PAGE - 1;
		struct leaves leaves = { m, w->first };

		assert_int_equal(
			mv_table_for_each_leaf(m->table, w->first, last, compare_leaf, &leaves), 0);
		for (; leaves.at < last; leaves.at += PAGE)
			assert_int_equal(flat_page_at(m, leaves.at)->level, 0);
		compare_translations(m, w);
	}
	mv_table_check(m->table, &defect);
	assert_int_equal(defect.kind, MV_DEFECT_NONE);
	compare_counts(m);
}

static void note_flush(void *ctx, uint64_t first, uint64_t last)
{
	struct flat_table *m = ctx;

	insist(first <= last);
	insist(m->flushes < FLAT_FLUSHES_MAX);
	m->flush[m->flushes++] = (struct flat_flush){ first, last };
}

static bool flushed(const struct flat_table *m, uint64_t address)
{
	for (unsigned int i = 0; i < m->flushes; i++)
		if (m->flush[i].first <= address && address <= m->flush[i].last)
			return true;
	return false;
}

/* --- a processor -------------------------------------------------------------------------------
 */

/* The entry of a leaf, found by reading memory as a processor does. */
static void *leaf_entry(struct flat_table *m, uint64_t address)
{
	unsigned int level = m->levels, leaf = flat_page_at(m, address)->level;
	uint64_t table = mv_table_root(m->table);

	for (;; level--) {
		unsigned int bits = flat_is_small(m) ? 10 : 9;
		uint64_t index = address >> m->shift[level] & ((1u << bits) - 1);

		if (flat_is_small(m)) {
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

static void touch(struct flat_table *m, uint64_t address)
{
	bool write = chance_one_in(&m->chance, 2);
	uint64_t accessed = flat_is_ept(m) ? 1 << 8 : 1 << 5,
		 dirty = flat_is_ept(m) ? 1 << 9 : 1 << 6;
	struct flat_page *page = flat_page_at(m, address);
	uint64_t bits = accessed | (write ? dirty : 0);

	if (!page->level || (flat_is_ept(m) && !flat_has(m, MV_FEATURE_ACCESSED)))
		return;
	if (flat_is_small(m))
		*(uint32_t *)leaf_entry(m, address) |= (uint32_t)bits;
	else
		*(uint64_t *)leaf_entry(m, address) |= bits;
	flat_set_leaf(m, address, page->level,
		      page->attr | MV_ATTR_ACCESSED | (write ? MV_ATTR_DIRTY : 0));
}

/* --- one operation ------------------------------------------------------------------------------
 */

static uint64_t random_page(struct flat_table *m, const struct flat_window *w)
{
	uint64_t page = chance_below(&m->chance, w->pages);

	/* Boundaries of large pages, often. */
	if (chance_one_in(&m->chance, 2))
		page &= ~((flat_span_mask(m, 2) + 1) / PAGE - 1);
	if (chance_one_in(&m->chance, 8))
		page &= ~((flat_span_mask(m, 3) + 1) / PAGE - 1);
	return page;
}

static void random_range(struct flat_table *m, uint64_t *first, uint64_t *last)
{
	const struct flat_window *w = &m->window[chance_below(&m->chance, m->windows)];
	uint64_t from = random_page(m, w), count;

	switch (chance_below(&m->chance, 4)) {
	case 0:
		count = 1 + chance_below(&m->chance, 8);
		break;
	case 1:
		count = 1 + chance_below(&m->chance, 600);
		break;
	case 2:
		count = (flat_span_mask(m, 2) + 1) / PAGE * (1 + chance_below(&m->chance, 2));
		break;
	default:
		count = chance_one_in(&m->chance, 40) ? w->pages : 1;
	}
	if (from + count > w->pages)
		count = w->pages - from;
	*first = w->first + from * PAGE;
	*last = *first + count * PAGE - 1;
}

static uint32_t random_attr(struct flat_table *m)
{
	uint32_t attr = (uint32_t)chance_next(&m->chance);

	if (chance_one_in(&m->chance, 20))
		return attr;
	/* Few kinds, so that neighbours agree and can be collapsed. */
	return MV_ATTR_READ | (attr & MV_ATTR_WRITE) | MV_ATTR_EXEC | MV_ATTR_TYPE(6) |
	       (attr & 1 ? MV_ATTR_SOFT0 : 0);
}

static uint64_t random_phys(struct flat_table *m, uint64_t first)
{
	uint64_t phys = chance_next(&m->chance) & ((1ULL << m->width) - 1) & ~(PAGE - 1);

	switch (chance_below(&m->chance, 8)) {
	case 0:
		return phys;
	case 1:
		return (phys & ~flat_span_mask(m, 2)) | (first & flat_span_mask(m, 2));
	case 2:
		return m->levels > 2
			       ? (phys & ~flat_span_mask(m, 3)) | (first & flat_span_mask(m, 3))
			       : phys;
	default:
		/* The same for neighbours. */
		return (first + (flat_span_mask(m, 2) + 1) * 3) & ((1ULL << m->width) - 1);
	}
}

static unsigned int random_lg2(struct flat_table *m)
{
	static const unsigned int some[] = { 0, 0, 0, 0, 12, 21, 22, 30, 11, 40 };

	return some[chance_below(&m->chance, COUNT_OF(some))];
}

static void try_map(struct flat_table *m, uint64_t first, uint64_t last)
{
	uint32_t attr = random_attr(m);
	uint64_t phys = random_phys(m, first);
	unsigned int lg2 = random_lg2(m);
	int error;

	if (chance_one_in(&m->chance, 200))
		phys += 1 + chance_below(&m->chance, PAGE - 1);
	if (chance_one_in(&m->chance, 200))
		phys |= 1ULL << m->width;
	error = flat_map(m, first, last, phys, attr, lg2);
	assert_int_equal(mv_table_map(m->table, first, last, phys, attr, lg2), error);
	assert_int_equal(m->flushes, 0);
	*(error ? &m->refused : &m->mapped) += 1;
}

static void try_unmap(struct flat_table *m, uint64_t first, uint64_t last)
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
		if (!flat_page_at(m, at)->level)
			continue;
		some = true;
		assert_true(flushed(m, at));
	}
	assert_int_equal(error, flat_unmap(m, first, last, &expected));
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

static void try_protect(struct flat_table *m, uint64_t first, uint64_t last)
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
		const struct flat_page *page = flat_page_at(m, at);

		if (page->level &&
		    must_flush(page->attr, flat_says(m, (page->attr & ~clear) | set)))
			assert_true(flushed(m, at));
	}
	assert_int_equal(error, flat_protect(m, first, last, clear, set));
}

static void try_split(struct flat_table *m, uint64_t first, uint64_t last)
{
	unsigned int lg2 = chance_one_in(&m->chance, 20)  ? random_lg2(m)
			   : chance_one_in(&m->chance, 2) ? m->shift[2]
							  : 12;
	int error = mv_table_split(m->table, first, last, lg2);

	assert_int_equal(error, flat_split(m, first, last, lg2));
	assert_int_equal(m->flushes, 0);
}

static void try_collapse(struct flat_table *m, uint64_t first, uint64_t last)
{
	const struct flat_window *w = m->window;
	unsigned int lg2 = random_lg2(m);

	for (unsigned int i = 0; i < m->windows; i++)
		if (first >= m->window[i].first)
			w = &m->window[i];
	/* Pages that were one before, and of which a processor flat_has used some. */
	if (chance_one_in(&m->chance, 2)) {
		assert_int_equal(mv_table_split(m->table, first, last, 12),
				 flat_split(m, first, last, 12));
		for (int i = 0; i < 4; i++)
			touch(m, first + chance_below(&m->chance, last - first + 1));
	}
	if (chance_one_in(&m->chance, 4)) {
		first = w->first;
		last = first + w->pages * PAGE - 1;
	}
	assert_int_equal(mv_table_collapse(m->table, first, last, lg2),
			 flat_collapse(m, first, last, lg2));
	compare_range(m, first, last);
}

struct harvested {
	struct flat_table *m;
	uint64_t count;
	uint64_t after;
	uint32_t what;
};

static void check_harvested(void *ctx, const struct mv_mapping *mapping)
{
	struct harvested *h = ctx;
	const struct flat_page *page = flat_page_at(h->m, mapping->address);

	insist(mapping->address >= h->after);
	insist(page->level == mapping->level);
	insist(page->phys == mapping->phys);
	insist(mapping->attr == (page->attr & h->what));
	insist(mapping->attr);
	h->after = mapping->address + (1ULL << mapping->page_lg2);
	h->count++;
}

static void try_harvest(struct flat_table *m, uint64_t first, uint64_t last)
{
	static const uint32_t kinds[] = { MV_ATTR_ACCESSED, MV_ATTR_DIRTY,
					  MV_ATTR_ACCESSED | MV_ATTR_DIRTY };
	uint32_t what = kinds[chance_below(&m->chance, COUNT_OF(kinds))];
	struct harvested h = { m, 0, 0, what };
	bool flush = chance_one_in(&m->chance, 2);
	uint64_t found = mv_table_harvest(m->table, first, last, what, check_harvested, &h, flush);

	assert_int_equal(found, h.count);
	for (uint64_t at = first; at < last; at = flat_after_leaf(m, at)) {
		struct flat_page *page = flat_page_at(m, at);

		if (!page->level || !(page->attr & what))
			continue;
		found--;
		assert_int_equal(flushed(m, at), flush);
		flat_set_leaf(m, at, page->level, page->attr & ~what);
	}
	assert_int_equal(found, 0);
}

static void one_operation(struct flat_table *m)
{
	uint64_t first, last;

	random_range(m, &first, &last);
	assert_true(flat_leaf_fits(m, first, last));
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

static void model_open(struct flat_table *m, const struct flat_setting *setting, uint64_t seed)
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
	flat_learn_format(m);
	fake_platform_init(&m->fake);
	assert_int_equal(mv_table_create(&config, &m->table), 0);
	assert_int_equal(mv_table_last_address(m->table), flat_top(m));
	flat_add_window(m, 0);
	if (setting->window_bytes < 1ULL << 30) {
		flat_add_window(m, 1ULL << 30);
		flat_add_window(m, flat_top(m));
		if (m->levels > 3)
			flat_add_window(m, 1ULL << 39);
	}
	flat_number_spans(m);
}

static void model_close(struct flat_table *m)
{
	struct mv_table_usage usage;
	uint64_t removed;

	assert_int_equal(mv_table_unmap(m->table, 0, flat_top(m), &removed), 0);
	mv_table_get_usage(m->table, &usage);
	assert_int_equal(usage.pages, 1);
	assert_int_equal(usage.peak_pages, m->peak);
	mv_table_destroy(m->table);
	fake_platform_finish(&m->fake);
	for (unsigned int i = 0; i < m->windows; i++)
		free(m->window[i].page);
	for (unsigned int l = 0; l < FLAT_LEVELS_MAX; l++) {
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
static const struct flat_setting settings[] = {
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
	static struct flat_table m;

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
