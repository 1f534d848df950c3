/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Views: several tables over one memory, each with rights of its own, and the page that lists
 * them for VMFUNC. SDM vol. 3, 26.5.6 (VM functions).
 *
 * Freestanding. What does not belong here: where rights are recorded (ept_ranges.c), how they are
 * taken from leaves (ept_map.c).
 */
#include <errno.h>
#include <string.h>

#include "ept_internal.h"

/* --- finding and keeping ------------------------------------------------------------------ */

struct ept_view *ept_view_find(struct mv_ept *ept, unsigned int index)
{
	if (index >= MV_EPT_VIEWS)
		return NULL;
	/* Acquire pairs with the release in ept_view_make(). */
	return __atomic_load_n(&ept->views[index], __ATOMIC_SEQ_CST);
}

struct ept_view *ept_view_get(struct mv_ept *ept, unsigned int index)
{
	ept_enter(ept);
	struct ept_view *view = ept_view_find(ept, index);

	/* The read section keeps the view until it is counted. */
	if (view)
		__atomic_fetch_add(&view->users, 1, __ATOMIC_RELAXED);
	ept_leave(ept);
	return view;
}

void ept_view_put(struct ept_view *view)
{
	/* Release pairs with the acquire in mv_ept_view_destroy(). */
	__atomic_fetch_sub(&view->users, 1, __ATOMIC_RELEASE);
}

/* --- making and freeing ------------------------------------------------------------------- */

/* Of the engine: what it removes by itself, in splits, collapses and trims. */
static void engine_flush(void *ctx, uint64_t first, uint64_t last)
{
	ept_flush_view(ctx, first, last);
}

int ept_view_make(struct mv_ept *ept, uint32_t rights, unsigned int index)
{
	struct ept_view *view = ept_alloc(ept, sizeof(*view));
	struct mv_table_config config = ept->table_config;
	int error;

	if (!view)
		return -ENOMEM;
	config.flush = engine_flush;
	config.ctx = view;
	error = mv_engine_init(&view->engine, &config);
	if (error) {
		ept_free(ept, view, sizeof(*view));
		return error;
	}
	view->ept = ept;
	view->index = index;
	view->rights = rights;
	__atomic_store_n(&ept->views[index], view, __ATOMIC_SEQ_CST);
	if (index >= ept->views_end)
		__atomic_store_n(&ept->views_end, index + 1, __ATOMIC_SEQ_CST);
	return 0;
}

void ept_view_free(struct ept_view *view)
{
	if (!view)
		return;
	mv_engine_finish(&view->engine);
	mv_table_destroy(view->ranges);
	ept_free(view->ept, view, sizeof(*view));
}

int mv_ept_view_create(struct mv_ept *ept, uint32_t rights, unsigned int *view)
{
	unsigned int index = 0;
	int error = -ENOSPC;

	if (!ept_rights_valid(ept, rights))
		return -EINVAL;
	rights = ept_rights_normal(ept, rights);
	ept_lock(ept);
	while (index < MV_EPT_VIEWS && ept->views[index])
		index++;
	if (index < MV_EPT_VIEWS)
		error = ept_view_make(ept, rights, index);
	ept_unlock(ept);
	if (!error)
		*view = index;
	return error;
}

/* Under ept->lock. When it returns nobody has a way to the view. */
static void hide_view(struct mv_ept *ept, struct ept_view *view)
{
	__atomic_store_n(&ept->views[view->index], NULL, __ATOMIC_SEQ_CST);
	ept_wait_readers(ept);
	/* Acquire pairs with the release in ept_view_put(): revokes and ageing have ended. */
	for (unsigned int turns = 0; __atomic_load_n(&view->users, __ATOMIC_ACQUIRE);)
		ept->platform.ops->relax(ept->platform.ctx, turns++);
}

int mv_ept_view_destroy(struct mv_ept *ept, unsigned int view)
{
	struct ept_pass zap = { .zap = true };
	struct ept_view *found;

	if (!view)
		return -EINVAL;
	ept_lock(ept);
	found = ept_view_find(ept, view);
	if (found) {
		__atomic_fetch_add(&ept->removing, 1, __ATOMIC_SEQ_CST);
		hide_view(ept, found);
		/* What was written through it is logged on the way. */
		ept_pass(found, 0, ept->last_gpa, &zap);
		/* No processor uses it, but one may still know what it used. */
		ept_flush_view(found, 0, ept->last_gpa);
		__atomic_fetch_sub(&ept->removing, 1, __ATOMIC_SEQ_CST);
		ept_view_free(found);
	}
	ept_unlock(ept);
	return found ? 0 : -ENOENT;
}

/* --- rights ------------------------------------------------------------------------------- */

static uint32_t record_of(const struct ept_view *view)
{
	return EPT_RECORD_RIGHTS(view->rights);
}

uint32_t ept_view_rights(const struct ept_view *view, uint64_t gpa)
{
	uint32_t record = ept_ranges_get(&view->ranges, gpa, record_of(view));

	return MV_ATTR_PKEY_OF(record) |
	       (record & EPT_RECORD_CONVERTIBLE ? 0 : MV_ATTR_SUPPRESS_VE);
}

/*
 * Under ept->lock: record it, then take from the leaves what they have too much. Splits come first,
 * so that a lack of memory is met before anything has changed.
 */
static int change_record(struct mv_ept *ept, struct ept_view *view, uint64_t first_gpa,
			 uint64_t last_gpa, uint32_t record_clear, uint32_t record_set,
			 struct ept_pass *pass)
{
	int error = ept_split_ends(view, first_gpa, last_gpa);

	if (!error)
		error = ept_ranges_change(ept, &view->ranges, first_gpa, last_gpa, record_of(view),
					  record_clear, record_set);
	if (error)
		return error;
	ept_pass(view, first_gpa, last_gpa, pass);
	ept_flush_view(view, first_gpa, last_gpa);
	return 0;
}

static int protect_view(struct mv_ept *ept, struct ept_view *view, uint64_t first_gpa,
			uint64_t last_gpa, uint32_t rights)
{
	const uint32_t all = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_EXEC_USER;
	struct ept_pass pass = { .clear = all & ~rights };

	return change_record(ept, view, first_gpa, last_gpa, MV_ATTR_PKEY_MASK,
			     EPT_RECORD_RIGHTS(rights), &pass);
}

int mv_ept_protect(struct mv_ept *ept, unsigned int view, uint64_t first_gpa, uint64_t last_gpa,
		   uint32_t rights)
{
	struct ept_view *found;
	int error = -ENOENT;

	if (!ept_range_valid(ept, first_gpa, last_gpa) || !ept_rights_valid(ept, rights))
		return -EINVAL;
	rights = ept_rights_normal(ept, rights);
	ept_lock(ept);
	found = ept_view_find(ept, view);
	if (found)
		error = protect_view(ept, found, first_gpa, last_gpa, rights);
	ept_unlock(ept);
	return error;
}

int mv_ept_unprotect(struct mv_ept *ept, unsigned int view, uint64_t first_gpa, uint64_t last_gpa)
{
	struct ept_view *found;
	int error = -ENOENT;

	if (!ept_range_valid(ept, first_gpa, last_gpa))
		return -EINVAL;
	ept_lock(ept);
	found = ept_view_find(ept, view);
	if (found)
		error = protect_view(ept, found, first_gpa, last_gpa, found->rights);
	ept_unlock(ept);
	return error;
}

int mv_ept_get_rights(struct mv_ept *ept, unsigned int view, uint64_t gpa, uint32_t *rights)
{
	for (unsigned int turns = 0;; turns++) {
		uint64_t changes = ept_changes(ept);
		uint32_t granted = 0;

		ept_enter(ept);
		const struct ept_view *found = ept_view_find(ept, view);

		if (found)
			granted = ept_view_rights(found, gpa) & ~MV_ATTR_SUPPRESS_VE;
		ept_leave(ept);
		if (!found)
			return -ENOENT;
		if (!(changes & 1) && ept_changes(ept) == changes) {
			*rights = granted;
			return 0;
		}
		ept->platform.ops->relax(ept->platform.ctx, turns);
	}
}

int mv_ept_set_convertible(struct mv_ept *ept, unsigned int view, uint64_t first_gpa,
			   uint64_t last_gpa, bool convertible)
{
	struct ept_pass pass = { .clear = convertible ? MV_ATTR_SUPPRESS_VE : 0,
				 .set = convertible ? 0 : MV_ATTR_SUPPRESS_VE };
	uint32_t set = convertible ? EPT_RECORD_CONVERTIBLE : 0;
	struct ept_view *found;
	int error = -ENOENT;

	if (!ept_range_valid(ept, first_gpa, last_gpa) || !(ept->features & MV_FEATURE_VE) ||
	    !ept->format->exec)
		return -EINVAL;
	ept_lock(ept);
	found = ept_view_find(ept, view);
	if (found)
		error = change_record(ept, found, first_gpa, last_gpa, EPT_RECORD_CONVERTIBLE, set,
				      &pass);
	ept_unlock(ept);
	return error;
}

/* --- the EPTP list ------------------------------------------------------------------------ */

void mv_ept_fill_eptp_list(struct mv_ept *ept, uint64_t list[MV_EPT_VIEWS])
{
	for (unsigned int i = 0; i < MV_EPT_VIEWS; i++)
		__atomic_store_n(&list[i], mv_ept_pointer(ept, i), __ATOMIC_RELEASE);
}
