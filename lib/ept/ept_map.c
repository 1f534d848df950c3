/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is done with the leaves of a space: rights and what they let through, the pass that takes
 * leaves, rights and reservations away, splits, and memory types. SDM vol. 3, 29.3.
 *
 * Freestanding. What does not belong here: how leaves come about (ept_fault.c).
 */
#include <errno.h>

#include "../table_walk.h"
#include "ept_internal.h"

/* --- rights ------------------------------------------------------------------------------- */

static bool is_ept(const struct mv_ept *ept)
{
	return ept->format->exec;
}

static bool fetch_allowed(const struct mv_ept *ept, uint32_t rights, unsigned int access)
{
	if (!(ept->features & MV_FEATURE_MODE_EXEC))
		return rights & MV_ATTR_EXEC;
	if (access & EPT_ACCESS_ANYBODY)
		return rights & (MV_ATTR_EXEC | MV_ATTR_EXEC_USER);
	return rights & (access & MV_ACCESS_USER ? MV_ATTR_EXEC_USER : MV_ATTR_EXEC);
}

bool ept_rights_allow(const struct mv_ept *ept, uint32_t rights, unsigned int access)
{
	if ((access & MV_ACCESS_WRITE) && !(rights & MV_ATTR_WRITE))
		return false;
	if (access & MV_ACCESS_FETCH)
		/* Nested tables have no way to say "not readable". */
		return fetch_allowed(ept, rights, access) &&
		       (is_ept(ept) || (rights & MV_ATTR_READ));
	return rights & MV_ATTR_READ;
}

bool ept_rights_valid(const struct mv_ept *ept, uint32_t rights)
{
	const uint32_t exec = MV_ATTR_EXEC | MV_ATTR_EXEC_USER;

	if (rights & ~(MV_ATTR_READ | MV_ATTR_WRITE | exec))
		return false;
	if (!rights)
		return true;
	/* Where nothing forbids to fetch from what may be read. */
	if (!is_ept(ept) && !(ept->features & MV_FEATURE_NX) && !(rights & MV_ATTR_EXEC))
		return false;
	if (rights & MV_ATTR_READ)
		return true;
	return !(rights & MV_ATTR_WRITE) && is_ept(ept) && (ept->features & MV_FEATURE_EXEC_ONLY);
}

/* --- accounts ----------------------------------------------------------------------------- */

static void note_in_slot(struct ept_slot *slot, uint64_t first, uint64_t last)
{
	const struct mv_region *region = slot->region;
	uint64_t end;

	if (first < region->first_gpa)
		first = region->first_gpa;
	if (last > region->last_gpa)
		last = region->last_gpa;
	end = mv_region_page(region, last) / MV_GRANULE_PAGES;
	for (uint64_t g = mv_region_page(region, first) / MV_GRANULE_PAGES; g <= end; g++)
		__atomic_fetch_add(&slot->granules[g].removals, 1, __ATOMIC_SEQ_CST);
}

void ept_log_pages(struct ept_slot *slot, uint64_t first_gpa, uint64_t last_gpa)
{
	uint64_t *log = ept_slot_log(slot);
	uint64_t end = mv_region_page(slot->region, last_gpa);

	if (!log)
		return;
	for (uint64_t page = mv_region_page(slot->region, first_gpa); page <= end; page++) {
		uint64_t bit = MV_BIT(page % 64);

		if (!(__atomic_load_n(&log[page / 64], __ATOMIC_SEQ_CST) & bit))
			__atomic_fetch_or(&log[page / 64], bit, __ATOMIC_SEQ_CST);
	}
}

/* --- the pass ----------------------------------------------------------------------------- */

enum pass_step {
	PASS_ON,
	PASS_DOWN, /* a table is here: into it */
	PASS_WAIT, /* somebody replaces what was here */
};

/* What an entry becomes. @inside: whether the range covers all that it maps. */
static uint64_t pass_result(const struct ept_view *view, const struct ept_pass *pass,
			    const struct mv_place *place, bool inside)
{
	const struct mv_engine *e = &view->engine;
	const struct mv_format *f = e->format;
	bool rights_only = !pass->set && !(pass->clear & ~MV_ATTR_RIGHTS);
	uint32_t attr, next;

	if (pass->zap || !mv_entry_present(&e->rules, place->entry) ||
	    (pass->small && place->level > 1) || !(inside || rights_only))
		return e->rules.empty;
	attr = mv_leaf_attr(f, &e->rules, place->level, place->entry);
	next = (attr & ~pass->clear) | pass->set;
	if (next == attr)
		return place->entry;
	if (!(next & MV_ATTR_RIGHTS) || !mv_engine_attr_valid(e, next) ||
	    !ept_rights_valid(view->ept, next & MV_ATTR_RIGHTS))
		return e->rules.empty;
	return mv_leaf_bits(f, &e->rules, place->level, next) |
	       mv_page_bits(f, place->level, mv_entry_page(f, place->level, place->entry));
}

/*
 * A leaf is about to be removed. Before it is: who finds it gone finds the accounts right. Where
 * the removal does not come about, a flush too much and a page reported once more do no harm.
 */
static void pass_account(struct ept_view *view, uint64_t at, const struct mv_place *place,
			 bool *noted)
{
	const struct mv_format *f = view->engine.format;
	uint64_t mask = mv_span_mask(f, place->level);
	struct ept_slot *slot = ept_slot_find(view->ept, at);

	if (!slot)
		return;
	if (!*noted)
		note_in_slot(slot, at & ~mask, at | mask);
	*noted = true;
	/* Where writes fault they are logged as they do, and dirty bits are of earlier times. */
	if ((place->entry & f->dirty & view->engine.rules.meaningful) &&
	    ept_slot_how(slot) != MV_EPT_TRACK_WRITE_PROTECT)
		ept_log_pages(slot, at & ~mask, at | mask);
}

static enum pass_step pass_entry(struct ept_view *view, struct ept_pass *pass, uint64_t at,
				 uint64_t first, uint64_t last, struct mv_place *place)
{
	const struct mv_engine *e = &view->engine;
	bool noted = false;

	while (place->entry != e->rules.empty) {
		bool present = mv_entry_present(&e->rules, place->entry);
		uint64_t next;

		if (mv_place_is_table(e->format, e, place))
			return PASS_DOWN;
		if (mv_entry_is_mark(&e->rules, place->entry, MV_MARK_FROZEN))
			return PASS_WAIT;
		if (mv_entry_is_mark(&e->rules, place->entry, MV_MARK_SEALED))
			return PASS_ON; /* as good as empty */
		next = pass_result(view, pass, place,
				   mv_span_inside(e->format, place->level, at, first, last));
		if (next == place->entry)
			return PASS_ON;
		if (present && next == e->rules.empty)
			pass_account(view, at, place, &noted);
		if (!mv_entry_swap(e->format, place->table, place->index, &place->entry, next))
			continue;
		pass->changed += present;
		return PASS_ON;
	}
	return PASS_ON;
}

/* To the next entry of the same table; false at its end, or the range's. */
static bool next_entry(const struct mv_format *f, uint64_t *at, uint64_t last,
		       struct mv_place *place)
{
	*at = (*at | mv_span_mask(f, place->level)) + 1;
	if (*at > last || place->index + 1 == mv_entries(f, place->level))
		return false;
	place->index++;
	place->entry = mv_entry_load(f, place->table, place->index);
	return true;
}

/* One table's entries. False where somebody has to be waited for. */
static bool pass_table(struct ept_view *view, struct ept_pass *pass, uint64_t *at, uint64_t first,
		       uint64_t last)
{
	const struct mv_engine *e = &view->engine;
	struct mv_place place;

	mv_descend(e->format, e, *at, &place);
	do {
		enum pass_step step = pass_entry(view, pass, *at, first, last, &place);

		if (step != PASS_ON)
			return step == PASS_DOWN;
	} while (next_entry(e->format, at, last, &place));
	return true;
}

void ept_pass(struct ept_view *view, uint64_t first_gpa, uint64_t last_gpa, struct ept_pass *pass)
{
	const struct mv_engine *e = &view->engine;
	unsigned int turns = 0;

	if (last_gpa > view->ept->last_gpa)
		last_gpa = view->ept->last_gpa;
	for (uint64_t at = first_gpa; at <= last_gpa;) {
		bool free = true;

		mv_engine_enter(e);
		for (int i = 0; free && at <= last_gpa && i < MV_TABLES_A_SECTION; i++)
			free = pass_table(view, pass, &at, first_gpa, last_gpa);
		mv_engine_leave(e);
		if (!free)
			e->platform.ops->relax(e->platform.ctx, turns++);
	}
}

void ept_pass_all(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa, struct ept_pass *pass)
{
	ept_for_each_view(ept, view) ept_pass(view, first_gpa, last_gpa, pass);
}

uint64_t ept_zap_all(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa)
{
	struct ept_pass pass = { .zap = true };

	ept_pass_all(ept, first_gpa, last_gpa, &pass);
	return pass.changed;
}

/* --- sizes -------------------------------------------------------------------------------- */

/*
 * Between @gpa and the address before it a border is to run that no page crosses. Only pages that
 * do are split, so one page on one side of it is all that has to be named.
 */
static int split_border(struct ept_view *view, uint64_t gpa)
{
	struct mv_engine *e = &view->engine;

	if (!(gpa & (MV_BIT(30) - 1)))
		return 0;
	return mv_engine_split(e, gpa, gpa, gpa & (MV_BIT(21) - 1) ? 12 : 21);
}

int ept_split_ends(struct ept_view *view, uint64_t first_gpa, uint64_t last_gpa)
{
	int error = split_border(view, first_gpa);

	if (!error && last_gpa < view->ept->last_gpa)
		error = split_border(view, last_gpa + 1);
	return error;
}

int mv_ept_split(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa, unsigned int page_lg2)
{
	int error = 0;

	if (!ept_range_valid(ept, first_gpa, last_gpa) || (page_lg2 != 12 && page_lg2 != 21))
		return -EINVAL;
	ept_lock(ept);
	ept_for_each_view(ept, view) if (!error) error =
		mv_engine_split(&view->engine, first_gpa, last_gpa, page_lg2);
	ept_flush(ept, first_gpa, last_gpa);
	ept_unlock(ept);
	return error;
}

/* Of a part of one slot that may have huge pages. */
static uint64_t collapse_view(struct ept_view *view, uint64_t first, uint64_t last)
{
	struct mv_ept *ept = view->ept;
	unsigned int largest = ept->levels >> 3 & 1 ? 30 : 21;

	if (ept->policy & MV_EPT_NX_HUGE) {
		struct ept_pass pass = { .clear = MV_ATTR_EXEC | MV_ATTR_EXEC_USER };

		ept_pass(view, first, last, &pass);
		if (pass.changed)
			ept_flush_view(view, first, last);
	}
	return mv_engine_collapse(&view->engine, first, last, largest);
}

static bool may_collapse(const struct ept_slot *slot)
{
	enum mv_ept_track how = ept_slot_how(slot);

	return how == MV_EPT_TRACK_NONE || how == MV_EPT_TRACK_DIRTY;
}

uint64_t mv_ept_collapse(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa)
{
	uint64_t collapsed = 0;

	if (!ept_range_valid(ept, first_gpa, last_gpa) || !(ept->levels & ~2u))
		return 0;
	ept_lock(ept);
	for (unsigned int i = 0; i < ept->slots->count; i++) {
		struct ept_slot *slot = ept->slots->slot[i];
		uint64_t first = slot->region->first_gpa, last = slot->region->last_gpa;

		first = first > first_gpa ? first : first_gpa;
		last = last < last_gpa ? last : last_gpa;
		if (first > last || !may_collapse(slot))
			continue;
		ept_for_each_view(ept, view) collapsed += collapse_view(view, first, last);
	}
	ept_unlock(ept);
	return collapsed;
}

/* --- memory types ------------------------------------------------------------------------- */

static bool type_valid(enum mv_memory_type type)
{
	return type == MV_TYPE_UC || type == MV_TYPE_WC || type == MV_TYPE_WT ||
	       type == MV_TYPE_WP || type == MV_TYPE_WB;
}

int mv_ept_set_type(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa,
		    enum mv_memory_type type, bool ignore_pat)
{
	uint32_t set = MV_ATTR_TYPE(type) | (ignore_pat ? EPT_RECORD_IGNORE_PAT : 0);
	int error;

	if (!ept_range_valid(ept, first_gpa, last_gpa) || !type_valid(type))
		return -EINVAL;
	ept_lock(ept);
	error = ept_ranges_change(ept, &ept->types, first_gpa, last_gpa, EPT_RECORD_WRITE_BACK,
				  MV_ATTR_TYPE_MASK | EPT_RECORD_IGNORE_PAT, set);
	if (!error) {
		ept_zap_all(ept, first_gpa, last_gpa);
		ept_flush(ept, first_gpa, last_gpa);
	}
	ept_unlock(ept);
	return error;
}
