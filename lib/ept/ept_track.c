/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which pages are written, which are used: by dirty and accessed bits, by write protection, by
 * page-modification logs. SDM vol. 3, 29.3.5 and 29.3.6.
 *
 * A tracked slot has a log, one bit a page. What was written is in it, or still in the dirty bit
 * of a leaf. A leaf that is removed is logged before it is gone, and a harvest looks at the
 * leaves first and at the log afterwards: so nothing falls between the two.
 *
 * Freestanding. What does not belong here: how a fault records a write (ept_fault.c), how a removal
 * does (ept_map.c).
 */
#include <errno.h>

#include "../page_report.h"
#include "ept_internal.h"

static size_t log_bytes(const struct ept_slot *slot)
{
	return (slot->region->pages + 63) / 64 * sizeof(uint64_t);
}

/* --- bitmaps ------------------------------------------------------------------------------ */

/**
 * struct report - what a harvest has to tell, and where it puts the rest
 * @slot: of dirty leaves: where those of their pages are logged that are not asked for
 */
struct report {
	struct mv_page_report pages;
	struct ept_slot *slot;
};

static void report_leaf(void *ctx, const struct mv_mapping *mapping)
{
	struct report *report = ctx;
	uint64_t gpa = mapping->address, last = gpa + (MV_BIT(mapping->page_lg2) - 1);

	if (report->slot && gpa < report->pages.first_gpa)
		ept_log_pages(report->slot, gpa, report->pages.first_gpa - 1);
	if (report->slot && last > report->pages.last_gpa)
		ept_log_pages(report->slot, report->pages.last_gpa + 1, last);
	mv_report_range(&report->pages, gpa, last);
}

/* --- ageing ------------------------------------------------------------------------------- */

static bool has_accessed(const struct mv_ept *ept)
{
	return !ept->format->exec || (ept->features & MV_FEATURE_ACCESSED);
}

int mv_ept_age(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa, uint64_t *bitmap,
	       uint64_t *used)
{
	struct report report = { { first_gpa, last_gpa, bitmap, 0, false }, NULL };

	if (!ept_range_valid(ept, first_gpa, last_gpa))
		return -EINVAL;
	if (!has_accessed(ept))
		return -EOPNOTSUPP;
	ept_for_each_view(ept, view) mv_engine_harvest(
		&view->engine, first_gpa, last_gpa, MV_ATTR_ACCESSED, report_leaf, &report, false);
	if (used)
		*used = report.pages.count;
	return 0;
}

/* --- begin and end ------------------------------------------------------------------------ */

static int check_how(const struct mv_ept *ept, enum mv_ept_track how)
{
	if (how == MV_EPT_TRACK_PML && !ept->format->exec)
		return -EOPNOTSUPP;
	if (how != MV_EPT_TRACK_NONE && how != MV_EPT_TRACK_WRITE_PROTECT && !has_accessed(ept))
		return -EOPNOTSUPP;
	return 0;
}

/* What a leaf must not have, so that the next write shows. */
static uint32_t armed_by(enum mv_ept_track how)
{
	return how == MV_EPT_TRACK_WRITE_PROTECT ? MV_ATTR_WRITE : MV_ATTR_DIRTY;
}

static bool by_small_pages(enum mv_ept_track how)
{
	return how == MV_EPT_TRACK_WRITE_PROTECT || how == MV_EPT_TRACK_PML;
}

/* Ahead of writes, that each would split a page. */
static int split_slot(struct mv_ept *ept, const struct ept_slot *slot)
{
	const struct mv_region *region = slot->region;
	int error = 0;

	ept_for_each_view(ept, view) if (!error) error =
		mv_engine_split(&view->engine, region->first_gpa, region->last_gpa, MV_PAGE_SHIFT);
	return error;
}

/* What is needed to begin, before anything has changed. */
static int prepare(struct mv_ept *ept, struct ept_slot *slot, enum mv_ept_track how, uint64_t **log)
{
	int error = 0;

	*log = NULL;
	if (how == MV_EPT_TRACK_NONE)
		return 0;
	*log = ept_alloc(ept, log_bytes(slot));
	if (!*log)
		return -ENOMEM;
	if (by_small_pages(how))
		error = split_slot(ept, slot);
	if (error)
		ept_free(ept, *log, log_bytes(slot));
	return error;
}

/*
 * The log first, then how: who finds the one finds the other. Leaves lose what the new way must
 * not find in them; huge ones that came about since the split go whole.
 */
static void begin(struct mv_ept *ept, struct ept_slot *slot, enum mv_ept_track how, uint64_t *log)
{
	uint64_t first = slot->region->first_gpa, last = slot->region->last_gpa;
	uint64_t *before = slot->log;
	struct ept_pass arm = { .clear = armed_by(how) }, small = { .small = true };

	__atomic_store_n(&slot->log, log, __ATOMIC_SEQ_CST);
	__atomic_store_n(&slot->how, how, __ATOMIC_SEQ_CST);
	ept_changed(ept);
	if (how != MV_EPT_TRACK_NONE)
		ept_pass_all(ept, first, last, &arm);
	/* Clean by now, so that nothing is logged that was written before. */
	if (by_small_pages(how))
		ept_pass_all(ept, first, last, &small);
	ept_flush(ept, first, last);
	ept_wait_readers(ept);
	if (before)
		ept_free(ept, before, log_bytes(slot));
}

int mv_ept_track(struct mv_ept *ept, uint64_t first_gpa, enum mv_ept_track how)
{
	int error = check_how(ept, how);
	struct ept_slot *slot;
	uint64_t *log;

	if (error)
		return error;
	ept_lock(ept);
	slot = ept_slot_at(ept, first_gpa);
	error = slot ? prepare(ept, slot, how, &log) : -ENOENT;
	if (!error)
		begin(ept, slot, how, log);
	ept_unlock(ept);
	return error;
}

/* --- page-modification logs ------------------------------------------------------------------ */

/* The guest chose the address, and no processor checks it against our regions. */
static bool pml_record(struct mv_ept *ept, uint64_t gpa)
{
	struct ept_slot *slot = ept_slot_find(ept, gpa);

	if (!slot || ept_slot_how(slot) != MV_EPT_TRACK_PML)
		return false;
	ept_log_pages(slot, gpa, gpa);
	return true;
}

unsigned int mv_ept_pml_drain(struct mv_ept *ept, const uint64_t *log, unsigned int index)
{
	/* Any value that is no index says that the log is full: SDM vol. 3, 29.3.6. */
	unsigned int first = index < MV_EPT_PML_ENTRIES ? index + 1 : 0, recorded = 0;

	ept_enter(ept);
	for (unsigned int i = first; i < MV_EPT_PML_ENTRIES; i++)
		recorded += pml_record(ept, log[i]);
	ept_leave(ept);
	__atomic_fetch_add(&ept->pml_logged, recorded, __ATOMIC_RELAXED);
	__atomic_fetch_add(&ept->pml_ignored, MV_EPT_PML_ENTRIES - first - recorded,
			   __ATOMIC_RELAXED);
	return recorded;
}

/* --- harvest -------------------------------------------------------------------------------- */

/* Pages that the log held, in runs: their leaves are to tell of the next write. */
static void rearm(struct mv_ept *ept, enum mv_ept_track how, uint64_t first_gpa, uint64_t last_gpa)
{
	struct ept_pass pass = { .clear = armed_by(how) };

	if (by_small_pages(how))
		ept_pass_all(ept, first_gpa, last_gpa, &pass);
}

/* One word of the log: 64 pages from @page on. */
static void harvest_word(struct mv_ept *ept, struct ept_slot *slot, uint64_t page, uint64_t mask,
			 struct report *report)
{
	uint64_t *word = &slot->log[page / 64], bits;
	uint64_t base = slot->region->first_gpa + (page << MV_PAGE_SHIFT);

	if (!(__atomic_load_n(word, __ATOMIC_SEQ_CST) & mask))
		return;
	bits = __atomic_fetch_and(word, ~mask, __ATOMIC_SEQ_CST) & mask;
	while (bits) {
		unsigned int low = (unsigned int)__builtin_ctzll(bits);
		uint64_t rest = ~(bits >> low);
		unsigned int run = rest ? (unsigned int)__builtin_ctzll(rest) : 64 - low;
		uint64_t first = base + ((uint64_t)low << MV_PAGE_SHIFT);

		for (unsigned int i = 0; i < run; i++)
			mv_report_page(&report->pages, first + ((uint64_t)i << MV_PAGE_SHIFT));
		rearm(ept, (enum mv_ept_track)slot->how, first,
		      first + ((uint64_t)run << MV_PAGE_SHIFT) - 1);
		bits &= run + low < 64 ? ~0ULL << (run + low) : 0;
	}
}

static void harvest_log(struct mv_ept *ept, struct ept_slot *slot, struct report *report)
{
	const struct mv_region *region = slot->region;
	uint64_t first = report->pages.first_gpa, last = report->pages.last_gpa;

	if (first < region->first_gpa)
		first = region->first_gpa;
	if (last > region->last_gpa)
		last = region->last_gpa;
	first = mv_region_page(region, first);
	last = mv_region_page(region, last);
	for (uint64_t page = first & ~63ULL; page <= last; page += 64) {
		uint64_t mask = ~0ULL;

		if (page < first)
			mask &= ~0ULL << (first - page);
		if (page + 63 > last)
			mask &= ~0ULL >> (page + 63 - last);
		harvest_word(ept, slot, page, mask, report);
	}
}

static void harvest_slot(struct mv_ept *ept, struct ept_slot *slot, struct report *report)
{
	const struct mv_region *region = slot->region;
	uint64_t first = report->pages.first_gpa, last = report->pages.last_gpa;

	first = first > region->first_gpa ? first : region->first_gpa;
	last = last < region->last_gpa ? last : region->last_gpa;
	report->slot = slot;
	if (slot->how == MV_EPT_TRACK_DIRTY)
		ept_for_each_view(ept, view) mv_engine_harvest(
			&view->engine, first, last, MV_ATTR_DIRTY, report_leaf, report, false);
	harvest_log(ept, slot, report);
}

/* Under ept->lock: every page of the range is tracked. */
static bool all_tracked(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa)
{
	for (uint64_t gpa = first_gpa;;) {
		const struct ept_slot *slot = ept_slot_find(ept, gpa);

		if (!slot || slot->how == MV_EPT_TRACK_NONE)
			return false;
		if (slot->region->last_gpa >= last_gpa)
			return true;
		gpa = slot->region->last_gpa + 1;
	}
}

int mv_ept_harvest(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa, uint64_t *bitmap,
		   uint64_t *dirty)
{
	struct report report = { { first_gpa, last_gpa, bitmap, 0, false }, NULL };
	int error = 0;

	if (!ept_range_valid(ept, first_gpa, last_gpa) || !bitmap)
		return -EINVAL;
	ept_lock(ept);
	if (all_tracked(ept, first_gpa, last_gpa)) {
		for (unsigned int i = 0; i < ept->slots->count; i++) {
			struct ept_slot *slot = ept->slots->slot[i];

			if (slot->region->first_gpa <= last_gpa &&
			    slot->region->last_gpa >= first_gpa)
				harvest_slot(ept, slot, &report);
		}
		if (report.pages.found)
			ept_flush(ept, first_gpa, last_gpa);
	} else {
		error = -ENOENT;
	}
	ept_unlock(ept);
	if (!error && dirty)
		*dirty = report.pages.count;
	return error;
}
