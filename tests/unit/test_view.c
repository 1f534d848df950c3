/* SPDX-License-Identifier: BSD-2-Clause */
/* Views: the order in which they are asked, refusals, batches, discards. */
#include "support/fake_view.h"
#include "support/guest.h"
#include "support/testing.h"

#define PAGE  MV_PAGE_SIZE
#define PAGES 1100 /* three granules, the last one short */
#define VIEWS 3

/* What happened, in order. */
struct event {
	int view; /* -1: the drop */
	enum fake_op op;
	struct mv_batch batch;
};

struct scene {
	struct guest guest;
	struct fake_view views[VIEWS];
	struct event events[64];
	unsigned int count;
	struct mv_batch keep; /* what the drop takes out */
	uint64_t dropped_pages;
};

static struct event *add_event(struct scene *scene, int view, enum fake_op op,
			       const struct mv_batch *batch)
{
	struct event *event = &scene->events[scene->count++];

	assert_true(scene->count <= COUNT_OF(scene->events));
	*event = (struct event){ .view = view, .op = op, .batch = *batch };
	return event;
}

static void note_op(struct fake_view *fake, enum fake_op op, const struct mv_batch *batch)
{
	struct scene *scene = fake->ctx;

	add_event(scene, (int)(fake - scene->views), op, batch);
}

static int set_up(void **state)
{
	static const enum mv_view_rank ranks[VIEWS] = {
		MV_VIEW_RANK_DMA,
		MV_VIEW_RANK_TABLES,
		MV_VIEW_RANK_PROCESS,
	};
	static struct scene scene;

	memset(&scene, 0, sizeof(scene));
	guest_init(&scene.guest, 16UL << 20);
	assert_int_equal(guest_add(&scene.guest, 0, PAGES, 0), 0);
	for (unsigned int i = 0; i < VIEWS; i++) {
		fake_view_init(&scene.views[i], ranks[i], PAGES);
		scene.views[i].on_op = note_op;
		scene.views[i].ctx = &scene;
	}
	*state = &scene;
	return 0;
}

static int tear_down(void **state)
{
	struct scene *scene = *state;

	guest_finish(&scene->guest);
	for (unsigned int i = 0; i < VIEWS; i++)
		fake_view_finish(&scene->views[i]);
	return 0;
}

static void attach_all(struct scene *scene)
{
	/* Against the order in which they are to be asked. */
	for (int i = VIEWS - 1; i >= 0; i--)
		assert_int_equal(mv_memory_attach_view(scene->guest.memory, &scene->views[i].view),
				 0);
}

/* A batch of busy pages. */
static struct mv_batch begin(struct scene *scene, uint64_t granule, unsigned int first,
			     unsigned int last)
{
	struct mv_region *region = guest_region(&scene->guest, 0);
	struct mv_batch batch = { .region = region, .first_page = granule * MV_GRANULE_PAGES };

	for (unsigned int bit = first; bit <= last; bit++) {
		mv_page_begin(mv_platform_linux(), &region->words[batch.first_page + bit]);
		mv_batch_add(&batch, bit);
	}
	return batch;
}

static void end(struct mv_batch *batch)
{
	mv_batch_for_each_page (batch, bit)
		mv_page_end(mv_batch_word(batch, bit), 0, 0);
}

static void expect(const struct scene *scene, unsigned int at, int view, enum fake_op op,
		   unsigned int first, unsigned int pages)
{
	unsigned int bit = 0, count = 0;

	assert_true(at < scene->count);
	assert_int_equal(scene->events[at].view, view);
	assert_int_equal(scene->events[at].op, op);
	assert_true(mv_batch_next_run(&scene->events[at].batch, &bit, &count));
	assert_int_equal(bit, first);
	assert_int_equal(count, pages);
	bit += count;
	assert_false(mv_batch_next_run(&scene->events[at].batch, &bit, &count));
}

/* --- attaching -------------------------------------------------------------------------- */

static void attach_wants_its_operations(void **state)
{
	struct scene *scene = *state;
	struct mv_view_ops ops = *scene->views[0].view.ops;
	struct mv_view view = { .ops = &ops };

	ops.flush = NULL;
	assert_int_equal(mv_memory_attach_view(scene->guest.memory, &view), -EINVAL);
	ops = *scene->views[0].view.ops;
	ops.prepare_revoke = NULL;
	assert_int_equal(mv_memory_attach_view(scene->guest.memory, &view), -EINVAL);
	view.ops = NULL;
	assert_int_equal(mv_memory_attach_view(scene->guest.memory, &view), -EINVAL);
	/* These two may be missing. */
	view.ops = &ops;
	ops = *scene->views[0].view.ops;
	ops.grant = NULL;
	ops.wake = NULL;
	assert_int_equal(mv_memory_attach_view(scene->guest.memory, &view), 0);
	struct mv_batch batch = begin(scene, 0, 0, 0);

	assert_int_equal(mv_batch_grant(&batch), 0);
	mv_batch_wake(&batch);
	end(&batch);
	mv_memory_detach_view(scene->guest.memory, &view);
}

static void attach_happens_once(void **state)
{
	struct scene *scene = *state;

	attach_all(scene);
	assert_int_equal(mv_memory_attach_view(scene->guest.memory, &scene->views[1].view),
			 -EEXIST);
	assert_int_equal(scene->guest.memory->views->count, VIEWS);
}

static void equals_keep_the_order_of_attachment(void **state)
{
	struct scene *scene = *state;
	const struct mv_view_set *set;

	for (unsigned int i = 0; i < VIEWS; i++) {
		scene->views[i].view.rank = MV_VIEW_RANK_TABLES;
		assert_int_equal(mv_memory_attach_view(scene->guest.memory, &scene->views[i].view),
				 0);
	}
	set = scene->guest.memory->views;
	for (unsigned int i = 0; i < VIEWS; i++)
		assert_ptr_equal(set->view[i], &scene->views[i].view);
}

static void many_views_come_and_go(void **state)
{
	enum { MANY = 40 };
	struct scene *scene = *state;
	struct mv_memory *memory = scene->guest.memory;
	struct mv_view views[MANY];

	for (unsigned int i = 0; i < MANY; i++) {
		views[i] = (struct mv_view){ .ops = scene->views[0].view.ops,
					     .rank = (enum mv_view_rank)(i % 3) };
		assert_int_equal(mv_memory_attach_view(memory, &views[i]), 0);
	}
	for (unsigned int i = 1; i < MANY; i++)
		assert_true(memory->views->view[i - 1]->rank <= memory->views->view[i]->rank);
	/* Leaving needs no memory. */
	scene->guest.fake.fail_after = scene->guest.fake.allocations;
	for (unsigned int i = 0; i < MANY; i++)
		mv_memory_detach_view(memory, &views[(i * 7) % MANY]);
	assert_int_equal(memory->views->count, 0);
	assert_int_equal(memory->views->grants, 0);
	assert_int_equal(scene->guest.fake.failures, 0);
}

static void a_detached_view_is_not_asked(void **state)
{
	struct scene *scene = *state;

	attach_all(scene);
	mv_memory_detach_view(scene->guest.memory, &scene->views[1].view);
	mv_memory_detach_view(scene->guest.memory, &scene->views[1].view);
	struct mv_batch batch = begin(scene, 0, 3, 4);

	mv_batch_revoke(&batch);
	assert_int_equal(scene->count, 6);
	for (unsigned int i = 0; i < scene->count; i++)
		assert_int_not_equal(scene->events[i].view, 1);
	end(&batch);
}

/* --- revoking --------------------------------------------------------------------------- */

static void all_prepare_then_all_commit_then_all_flush(void **state)
{
	static const enum fake_op ops[] = { FAKE_PREPARE, FAKE_COMMIT, FAKE_FLUSH };
	struct scene *scene = *state;

	attach_all(scene);
	struct mv_batch batch = begin(scene, 1, 10, 20), all = batch;

	mv_batch_revoke(&batch);
	assert_memory_equal(&batch, &all, sizeof(batch));
	assert_int_equal(scene->count, 9);
	for (unsigned int i = 0; i < 9; i++)
		expect(scene, i, (int)(i % 3), ops[i / 3], 10, 11);
	for (unsigned int i = 0; i < VIEWS; i++) {
		assert_int_equal(fake_view_stage(&scene->views[i], 512 + 10), FAKE_REVOKED);
		assert_int_equal(fake_view_stage(&scene->views[i], 512 + 9), FAKE_REACHED);
	}
	end(&batch);
}

static void a_refused_page_is_given_back(void **state)
{
	struct scene *scene = *state;

	attach_all(scene);
	fake_view_refuse(&scene->views[2], 5, true);
	struct mv_batch batch = begin(scene, 0, 4, 6);

	mv_batch_revoke(&batch);
	assert_false(mv_batch_has(&batch, 5));
	assert_true(mv_batch_has(&batch, 4) && mv_batch_has(&batch, 6));
	/* prepare 0, 1, 2; then the others abort exactly that page, last first. */
	expect(scene, 3, 1, FAKE_ABORT, 5, 1);
	expect(scene, 4, 0, FAKE_ABORT, 5, 1);
	assert_int_equal(scene->events[5].op, FAKE_COMMIT);
	for (unsigned int i = 0; i < VIEWS; i++) {
		assert_int_equal(fake_view_stage(&scene->views[i], 4), FAKE_REVOKED);
		assert_int_equal(fake_view_stage(&scene->views[i], 5), FAKE_REACHED);
	}
	mv_batch_add(&batch, 5);
	end(&batch);
}

static void refusals_of_several_views_add_up(void **state)
{
	struct scene *scene = *state;

	attach_all(scene);
	fake_view_refuse(&scene->views[0], 4, true);
	fake_view_refuse(&scene->views[1], 5, true);
	fake_view_refuse(&scene->views[2], 6, true);
	struct mv_batch batch = begin(scene, 0, 3, 6), all = batch;

	mv_batch_revoke(&batch);
	expect(scene, 0, 0, FAKE_PREPARE, 3, 4);
	assert_true(mv_batch_has(&batch, 3));
	for (unsigned int bit = 4; bit <= 6; bit++)
		assert_false(mv_batch_has(&batch, bit));
	for (unsigned int i = 0; i < VIEWS; i++)
		for (uint64_t page = 4; page <= 6; page++)
			assert_int_equal(fake_view_stage(&scene->views[i], page), FAKE_REACHED);
	end(&all);
}

static void nothing_is_committed_where_all_is_refused(void **state)
{
	struct scene *scene = *state;

	attach_all(scene);
	fake_view_refuse(&scene->views[1], 4, true);
	struct mv_batch batch = begin(scene, 0, 4, 4), all = batch;

	mv_batch_revoke(&batch);
	assert_true(mv_batch_empty(&batch));
	assert_int_equal(scene->count, 3);
	expect(scene, 2, 0, FAKE_ABORT, 4, 1);
	end(&all);
}

static void nobody_is_asked_about_nothing(void **state)
{
	struct scene *scene = *state;
	struct mv_batch batch = { .region = guest_region(&scene->guest, 0) };

	attach_all(scene);
	mv_batch_revoke(&batch);
	assert_int_equal(mv_batch_grant(&batch), 0);
	mv_batch_wake(&batch);
	assert_int_equal(scene->count, 0);
}

static void a_grant_reaches_all_in_spite_of_one(void **state)
{
	struct scene *scene = *state;

	attach_all(scene);
	struct mv_batch batch = begin(scene, 0, 4, 4);

	mv_batch_revoke(&batch);
	scene->views[1].error = -ENOMEM;
	scene->views[2].error = -EIO;
	scene->count = 0;
	assert_int_equal(mv_batch_grant(&batch), -ENOMEM);
	assert_int_equal(scene->count, VIEWS);
	assert_int_equal(fake_view_stage(&scene->views[0], 4), FAKE_REACHED);
	assert_int_equal(fake_view_stage(&scene->views[1], 4), FAKE_REVOKED);
	end(&batch);
}

/* --- discarding ------------------------------------------------------------------------- */

static void drop(void *ctx, struct mv_batch *batch)
{
	struct scene *scene = ctx;

	add_event(scene, -1, FAKE_FLUSH, batch);
	mv_batch_for_each_page (batch, bit) {
		if (mv_batch_has(&scene->keep, bit))
			mv_batch_take(batch, bit);
		else
			scene->dropped_pages++;
	}
}

static int discard(struct scene *scene, uint64_t first_page, uint64_t last_page, uint64_t *dropped)
{
	return mv_memory_discard(scene->guest.memory, first_page * PAGE,
				 last_page * PAGE + PAGE - 1, drop, scene, dropped);
}

static void discard_refuses_bad_ranges(void **state)
{
	struct scene *scene = *state;
	struct mv_memory *memory = scene->guest.memory;
	uint64_t dropped = 7;

	assert_int_equal(mv_memory_discard(memory, 1, PAGE - 1, drop, scene, &dropped), -EINVAL);
	assert_int_equal(mv_memory_discard(memory, 0, PAGE, drop, scene, &dropped), -EINVAL);
	assert_int_equal(mv_memory_discard(memory, PAGE, PAGE - 1, drop, scene, &dropped), -EINVAL);
	assert_int_equal(mv_memory_discard(memory, 0, PAGE - 1, NULL, scene, &dropped), -EINVAL);
	assert_int_equal(discard(scene, 0, PAGES, &dropped), -EFAULT);
	assert_int_equal(discard(scene, 4, (UINT64_MAX >> MV_PAGE_SHIFT), &dropped), -EFAULT);
	assert_int_equal(dropped, 7);
	assert_int_equal(scene->count, 0);
	assert_int_equal(guest_region(&scene->guest, 0)->holds, 0);
	guest_check_counts(&scene->guest);
}

static void discard_goes_granule_by_granule(void **state)
{
	struct scene *scene = *state;
	uint64_t dropped = 0;

	assert_int_equal(discard(scene, 500, PAGES - 1, &dropped), 0);
	assert_int_equal(dropped, PAGES - 500);
	assert_int_equal(scene->count, 3);
	expect(scene, 0, -1, FAKE_FLUSH, 500, 12);
	expect(scene, 1, -1, FAKE_FLUSH, 0, 512);
	expect(scene, 2, -1, FAKE_FLUSH, 0, PAGES - 1024);
	assert_int_equal(scene->events[2].batch.first_page, 1024);
	for (uint64_t page = 0; page < PAGES; page++)
		assert_int_equal(*guest_word(&scene->guest, page * PAGE),
				 page < 500 ? MV_PAGE_ABSENT : MV_PAGE_DISCARDED);
	guest_check_counts(&scene->guest);
}

static struct mv_gpa_range pages_range(uint64_t first_page, uint64_t last_page)
{
	return (struct mv_gpa_range){ first_page * PAGE, last_page * PAGE + PAGE - 1 };
}

static void ranges_of_a_granule_share_a_transaction(void **state)
{
	struct scene *scene = *state;
	const struct mv_gpa_range ranges[] = { pages_range(3, 3), pages_range(7, 9),
					       pages_range(500, 513), pages_range(520, 520) };
	uint64_t dropped = 0;

	assert_int_equal(
		mv_memory_discard_ranges(scene->guest.memory, ranges, 4, drop, scene, &dropped), 0);
	assert_int_equal(dropped, 19);
	assert_int_equal(scene->count, 2);
	for (uint64_t page = 0; page < PAGES; page++) {
		bool gone = page == 3 || (page >= 7 && page <= 9) || (page >= 500 && page <= 513) ||
			    page == 520;

		assert_int_equal(*guest_word(&scene->guest, page * PAGE),
				 gone ? MV_PAGE_DISCARDED : MV_PAGE_ABSENT);
	}
	assert_int_equal(guest_region(&scene->guest, 0)->holds, 0);
	guest_check_counts(&scene->guest);
}

static void ranges_are_refused_as_a_whole(void **state)
{
	struct scene *scene = *state;
	const struct mv_gpa_range backwards[] = { pages_range(5, 6), pages_range(1, 2) };
	const struct mv_gpa_range overlap[] = { pages_range(5, 6), pages_range(6, 7) };
	const struct mv_gpa_range outside[] = { pages_range(5, 6), pages_range(PAGES, PAGES) };
	struct mv_memory *memory = scene->guest.memory;
	uint64_t dropped = 7;

	assert_int_equal(mv_memory_discard_ranges(memory, backwards, 2, drop, scene, &dropped),
			 -EINVAL);
	assert_int_equal(mv_memory_discard_ranges(memory, overlap, 2, drop, scene, &dropped),
			 -EINVAL);
	assert_int_equal(mv_memory_discard_ranges(memory, outside, 2, drop, scene, &dropped),
			 -EFAULT);
	assert_int_equal(dropped, 7);
	assert_int_equal(scene->count, 0);
	assert_int_equal(mv_memory_discard_ranges(memory, NULL, 0, drop, scene, &dropped), 0);
	assert_int_equal(dropped, 0);
	assert_int_equal(guest_region(&scene->guest, 0)->holds, 0);
}

static void the_drop_comes_after_the_flush(void **state)
{
	struct scene *scene = *state;

	attach_all(scene);
	assert_int_equal(discard(scene, 0, 0, NULL), 0);
	assert_int_equal(scene->count, 10);
	expect(scene, 8, 2, FAKE_FLUSH, 0, 1);
	expect(scene, 9, -1, FAKE_FLUSH, 0, 1);
}

static void a_pinned_page_keeps_its_content(void **state)
{
	struct scene *scene = *state;
	uint64_t dropped = 0;

	attach_all(scene);
	assert_int_equal(mv_memory_pin(scene->guest.memory, 3 * PAGE, 3 * PAGE), 0);
	assert_int_equal(discard(scene, 2, 4, &dropped), -EBUSY);
	assert_int_equal(dropped, 2);
	assert_int_equal(*guest_word(&scene->guest, 2 * PAGE), MV_PAGE_DISCARDED);
	assert_int_equal(*guest_word(&scene->guest, 3 * PAGE), MV_PAGE_ABSENT | MV_WORD_PIN);
	/* The views were not even asked. */
	assert_int_equal(fake_view_stage(&scene->views[0], 3), FAKE_REACHED);
	/* All of them: then nobody is asked. */
	scene->count = 0;
	assert_int_equal(discard(scene, 3, 3, &dropped), -EBUSY);
	assert_int_equal(dropped, 0);
	assert_int_equal(scene->count, 0);
	mv_memory_unpin(scene->guest.memory, 3 * PAGE, 3 * PAGE);
	guest_check_counts(&scene->guest);
}

static void a_page_that_a_view_refuses_keeps_its_state(void **state)
{
	struct scene *scene = *state;
	uint64_t dropped = 0;

	attach_all(scene);
	mv_page_begin(mv_platform_linux(), guest_word(&scene->guest, PAGE));
	mv_region_end(guest_region(&scene->guest, 0), 1, MV_PAGE_RESIDENT, 0, MV_WORD_ACTIVE);
	fake_view_refuse(&scene->views[1], 1, true);
	assert_int_equal(discard(scene, 0, 2, &dropped), -EBUSY);
	assert_int_equal(dropped, 2);
	assert_int_equal(*guest_word(&scene->guest, PAGE), MV_PAGE_RESIDENT | MV_WORD_ACTIVE);
	guest_check_counts(&scene->guest);
}

static void what_the_drop_keeps_is_granted_again(void **state)
{
	struct scene *scene = *state;
	uint64_t dropped = 0;

	attach_all(scene);
	mv_batch_add(&scene->keep, 1);
	mv_page_begin(mv_platform_linux(), guest_word(&scene->guest, PAGE));
	mv_region_end(guest_region(&scene->guest, 0), 1, MV_PAGE_RESIDENT, 0,
		      MV_WORD_UNMAPPED | MV_WORD_ACTIVE);
	assert_int_equal(discard(scene, 0, 2, &dropped), -EBUSY);
	assert_int_equal(dropped, 2);
	assert_int_equal(scene->dropped_pages, 2);
	for (unsigned int i = 0; i < VIEWS; i++) {
		assert_int_equal(fake_view_stage(&scene->views[i], 0), FAKE_REVOKED);
		assert_int_equal(fake_view_stage(&scene->views[i], 1), FAKE_REACHED);
		expect(scene, 10 + i, (int)i, FAKE_GRANT, 1, 1);
	}
	/* A grant may have mapped it. */
	assert_int_equal(*guest_word(&scene->guest, PAGE), MV_PAGE_RESIDENT | MV_WORD_ACTIVE);
	guest_check_counts(&scene->guest);
}

static void meet_busy(void *ctx, struct mv_batch *batch)
{
	uint32_t word;

	/* A fault of one page while it is being dropped. */
	assert_false(mv_page_claim(mv_batch_word(batch, 2), &word));
	drop(ctx, batch);
}

static void who_met_a_busy_page_is_woken(void **state)
{
	struct scene *scene = *state;

	attach_all(scene);
	assert_int_equal(
		mv_memory_discard(scene->guest.memory, 0, 4 * PAGE - 1, meet_busy, scene, NULL), 0);
	assert_int_equal(scene->count, 13);
	for (unsigned int i = 0; i < VIEWS; i++)
		expect(scene, 10 + i, (int)i, FAKE_WAKE, 2, 1);
	assert_int_equal(*guest_word(&scene->guest, 2 * PAGE), MV_PAGE_DISCARDED);
}

static void a_discard_takes_a_copy_over(void **state)
{
	struct scene *scene = *state;
	uint32_t *page = guest_word(&scene->guest, 0), word;

	assert_true(mv_page_begin_if(page, 0, 0, MV_WORD_COPYING, &word));
	assert_int_equal(discard(scene, 0, 0, NULL), 0);
	assert_false(mv_page_seal(page));
	assert_int_equal(*page, MV_PAGE_DISCARDED);
}

static uint64_t sample_in_drop;

static void sample_drop(void *ctx, struct mv_batch *batch)
{
	sample_in_drop = mv_granule_sample(batch->region, batch->first_page);
}

static void the_sequence_stays_raised_until_the_drop(void **state)
{
	struct scene *scene = *state;
	struct mv_region *region = guest_region(&scene->guest, 0);

	assert_int_equal(
		mv_memory_discard(scene->guest.memory, 0, PAGE - 1, sample_drop, NULL, NULL), 0);
	assert_int_equal(sample_in_drop & MV_REVOKES_RUNNING, 1);
	assert_int_equal(mv_granule_sample(region, 0) & MV_REVOKES_RUNNING, 0);
	assert_true(mv_granule_changed(region, 0, sample_in_drop));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(attach_wants_its_operations),
		TEST(attach_happens_once),
		TEST(equals_keep_the_order_of_attachment),
		TEST(many_views_come_and_go),
		TEST(a_detached_view_is_not_asked),
		TEST(all_prepare_then_all_commit_then_all_flush),
		TEST(a_refused_page_is_given_back),
		TEST(refusals_of_several_views_add_up),
		TEST(nothing_is_committed_where_all_is_refused),
		TEST(nobody_is_asked_about_nothing),
		TEST(a_grant_reaches_all_in_spite_of_one),
		TEST(discard_refuses_bad_ranges),
		TEST(discard_goes_granule_by_granule),
		TEST(ranges_of_a_granule_share_a_transaction),
		TEST(ranges_are_refused_as_a_whole),
		TEST(the_drop_comes_after_the_flush),
		TEST(a_pinned_page_keeps_its_content),
		TEST(a_page_that_a_view_refuses_keeps_its_state),
		TEST(what_the_drop_keeps_is_granted_again),
		TEST(who_met_a_busy_page_is_woken),
		TEST(a_discard_takes_a_copy_over),
		TEST(the_sequence_stays_raised_until_the_drop),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
