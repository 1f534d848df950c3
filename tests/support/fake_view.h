/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A view for tests: it reaches guest pages from address 0, refuses those that it is told to,
 * and insists that a transaction keeps its promises: pages busy, prepare before commit,
 * commit before flush, abort only of what was prepared.
 */
#ifndef TESTS_FAKE_VIEW_H
#define TESTS_FAKE_VIEW_H

#include <memvirt/view.h>

#include "region.h"

enum fake_op {
	FAKE_GRANT,
	FAKE_PREPARE,
	FAKE_COMMIT,
	FAKE_ABORT,
	FAKE_FLUSH,
	FAKE_WAKE,
};

enum fake_stage {
	FAKE_REACHED,
	FAKE_PREPARED, /* was reached */
	FAKE_COMMITTED,
	FAKE_REVOKED,
	FAKE_REVOKED_PREPARED, /* was revoked before, and is asked again */
};

/**
 * struct fake_view - a view
 * @view:     to be attached
 * @pages:    that it knows, by their guest-physical number
 * @stages:   enum fake_stage of each page; changed only by whoever has the page busy
 * @refuse:   not 0 for a page that is not given up; atomic
 * @error:    what a grant returns
 * @on_op:    called first in each operation, where not NULL
 * @ctx:      for @on_op
 */
struct fake_view {
	struct mv_view view;
	uint64_t pages;
	uint8_t *stages;
	uint8_t *refuse;
	int error;
	void (*on_op)(struct fake_view *fake, enum fake_op op, const struct mv_batch *batch);
	void *ctx;
};

void fake_view_init(struct fake_view *fake, enum mv_view_rank rank, uint64_t pages);
void fake_view_finish(struct fake_view *fake);

/* The guest-physical number of a batch's page. */
static inline uint64_t fake_view_page(const struct mv_batch *batch, unsigned int bit)
{
	uint64_t gpa;

	mv_batch_region_span(batch, NULL, &gpa);
	return (gpa >> MV_PAGE_SHIFT) + bit;
}

static inline enum fake_stage fake_view_stage(const struct fake_view *fake, uint64_t page)
{
	return (enum fake_stage)__atomic_load_n(&fake->stages[page], __ATOMIC_RELAXED);
}

static inline void fake_view_refuse(struct fake_view *fake, uint64_t page, bool refuse)
{
	__atomic_store_n(&fake->refuse[page], refuse, __ATOMIC_RELAXED);
}

#endif /* TESTS_FAKE_VIEW_H */
