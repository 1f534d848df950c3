/* SPDX-License-Identifier: BSD-2-Clause */
/* The view for tests; see fake_view.h. */
#include "support/fake_view.h"
#include "support/testing.h"

static struct fake_view *fake_of(struct mv_view *view)
{
	return (struct fake_view *)view;
}

static void note(struct fake_view *fake, enum fake_op op, const struct mv_batch *batch)
{
	if (fake->on_op)
		fake->on_op(fake, op, batch);
}

/* A page of a batch: ours, and not merely being copied. */
static uint8_t *stage_of(struct fake_view *fake, const struct mv_batch *batch, unsigned int bit)
{
	uint32_t word = mv_page_load(mv_batch_word(batch, bit));

	insist((word & (MV_WORD_BUSY | MV_WORD_COPYING)) == MV_WORD_BUSY);
	insist(batch->first_page % MV_GRANULE_PAGES == 0);
	insist(fake_view_page(batch, bit) < fake->pages);
	return &fake->stages[fake_view_page(batch, bit)];
}

static void set_stage(uint8_t *stage, enum fake_stage value)
{
	__atomic_store_n(stage, value, __ATOMIC_RELAXED);
}

static int fake_grant(struct mv_view *view, const struct mv_batch *batch)
{
	struct fake_view *fake = fake_of(view);

	note(fake, FAKE_GRANT, batch);
	mv_batch_for_each_page (batch, bit) {
		uint8_t *stage = stage_of(fake, batch, bit);

		insist(*stage == FAKE_REVOKED || *stage == FAKE_REACHED);
		if (!fake->error)
			set_stage(stage, FAKE_REACHED);
	}
	return fake->error;
}

static void fake_prepare(struct mv_view *view, struct mv_batch *batch)
{
	struct fake_view *fake = fake_of(view);

	note(fake, FAKE_PREPARE, batch);
	mv_batch_for_each_page (batch, bit) {
		uint8_t *stage = stage_of(fake, batch, bit);

		insist(*stage == FAKE_REVOKED || *stage == FAKE_REACHED);
		if (__atomic_load_n(&fake->refuse[fake_view_page(batch, bit)], __ATOMIC_RELAXED))
			mv_batch_take(batch, bit);
		else
			set_stage(stage,
				  *stage == FAKE_REACHED ? FAKE_PREPARED : FAKE_REVOKED_PREPARED);
	}
}

static void fake_abort(struct mv_view *view, const struct mv_batch *batch)
{
	struct fake_view *fake = fake_of(view);

	note(fake, FAKE_ABORT, batch);
	mv_batch_for_each_page (batch, bit) {
		uint8_t *stage = stage_of(fake, batch, bit);

		insist(*stage == FAKE_PREPARED || *stage == FAKE_REVOKED_PREPARED);
		set_stage(stage, *stage == FAKE_PREPARED ? FAKE_REACHED : FAKE_REVOKED);
	}
}

static void fake_commit(struct mv_view *view, const struct mv_batch *batch)
{
	struct fake_view *fake = fake_of(view);

	note(fake, FAKE_COMMIT, batch);
	mv_batch_for_each_page (batch, bit) {
		uint8_t *stage = stage_of(fake, batch, bit);

		insist(*stage == FAKE_PREPARED || *stage == FAKE_REVOKED_PREPARED);
		set_stage(stage, FAKE_COMMITTED);
	}
}

static void fake_flush(struct mv_view *view, const struct mv_batch *batch)
{
	struct fake_view *fake = fake_of(view);

	note(fake, FAKE_FLUSH, batch);
	mv_batch_for_each_page (batch, bit) {
		uint8_t *stage = stage_of(fake, batch, bit);

		insist(*stage == FAKE_COMMITTED);
		set_stage(stage, FAKE_REVOKED);
	}
}

static void fake_wake(struct mv_view *view, const struct mv_batch *batch)
{
	note(fake_of(view), FAKE_WAKE, batch);
}

static const struct mv_view_ops fake_ops = {
	.grant = fake_grant,
	.prepare_revoke = fake_prepare,
	.commit_revoke = fake_commit,
	.abort_revoke = fake_abort,
	.flush = fake_flush,
	.wake = fake_wake,
};

void fake_view_init(struct fake_view *fake, enum mv_view_rank rank, uint64_t pages)
{
	*fake = (struct fake_view){
		.view = { .ops = &fake_ops, .rank = rank },
		.pages = pages,
		.stages = calloc(pages, 1),
		.refuse = calloc(pages, 1),
	};
	assert_non_null(fake->stages);
	assert_non_null(fake->refuse);
}

void fake_view_finish(struct fake_view *fake)
{
	free(fake->stages);
	free(fake->refuse);
}
