/* SPDX-License-Identifier: BSD-2-Clause */
/* Batches, and the sequence by which a grant sees a revoke in its granule. */
#include "support/fake_view.h"
#include "support/guest.h"
#include "support/testing.h"

#define PAGE  MV_PAGE_SIZE
#define PAGES 1100 /* three granules, the last one short */

static int set_up(void **state)
{
	static struct guest guest;

	guest_init(&guest, 16UL << 20);
	assert_int_equal(guest_add(&guest, 0, PAGES, 0), 0);
	*state = &guest;
	return 0;
}

static int tear_down(void **state)
{
	guest_finish(*state);
	return 0;
}

static void runs_are_found(void **state)
{
	struct mv_batch batch = { .first_page = 0 };
	static const struct {
		unsigned int first, count;
	} runs[] = { { 0, 1 }, { 62, 4 }, { 127, 1 }, { 130, 130 }, { 511, 1 } };
	unsigned int bit = 0, count = 99;

	assert_false(mv_batch_next_run(&batch, &bit, &count));
	assert_int_equal(count, 99);
	for (size_t i = 0; i < COUNT_OF(runs); i++)
		for (unsigned int j = 0; j < runs[i].count; j++)
			mv_batch_add(&batch, runs[i].first + j);
	for (size_t i = 0; i < COUNT_OF(runs); i++, bit += count) {
		assert_true(mv_batch_next_run(&batch, &bit, &count));
		assert_int_equal(bit, runs[i].first);
		assert_int_equal(count, runs[i].count);
	}
	assert_false(mv_batch_next_run(&batch, &bit, &count));
	memset(batch.bits, 0xff, sizeof(batch.bits));
	bit = 100;
	assert_true(mv_batch_next_run(&batch, &bit, &count));
	assert_int_equal(bit, 100);
	assert_int_equal(count, 412);
	bit = MV_GRANULE_PAGES;
	assert_false(mv_batch_next_run(&batch, &bit, &count));
}

static void a_batch_knows_its_place(void **state)
{
	struct guest *guest = *state;
	struct mv_batch batch = { .region = guest_region(guest, 0), .first_page = 1024 };
	uint64_t gpa;
	void *hva;

	mv_batch_region_span(&batch, &hva, &gpa);
	assert_ptr_equal(hva, guest->mem + 1024 * PAGE);
	assert_int_equal(gpa, 1024 * PAGE);
	mv_batch_region_span(&batch, NULL, NULL);
}

static uint64_t sample_in_prepare;

static void sample_op(struct fake_view *fake, enum fake_op op, const struct mv_batch *batch)
{
	if (op == FAKE_PREPARE)
		sample_in_prepare = mv_granule_sample(batch->region, batch->first_page);
}

static void a_revoke_changes_its_granule_only(void **state)
{
	struct guest *guest = *state;
	struct mv_region *region = guest_region(guest, 0);
	struct mv_batch batch = { .region = region, .first_page = 512, .bits = { 1 } };
	struct fake_view view;
	uint64_t sample = mv_granule_sample(region, 600), other = mv_granule_sample(region, 0);

	fake_view_init(&view, MV_VIEW_RANK_DMA, PAGES);
	view.on_op = sample_op;
	assert_int_equal(mv_memory_attach_view(guest->memory, &view.view), 0);
	assert_false(mv_granule_changed(region, 600, sample));
	mv_page_begin(mv_platform_linux(), &region->words[512]);
	mv_batch_revoke(&batch);
	/* Sampled while it ran: never good, not even now that it has ended. */
	assert_true(mv_granule_changed(region, 600, sample_in_prepare));
	assert_true(mv_granule_changed(region, 1023, sample));
	assert_false(mv_granule_changed(region, 511, other));
	assert_false(mv_granule_changed(region, 1024, mv_granule_sample(region, 1024)));
	assert_false(mv_granule_changed(region, 600, mv_granule_sample(region, 600)));
	mv_page_end(&region->words[512], 0, 0);
	mv_memory_detach_view(guest->memory, &view.view);
	fake_view_finish(&view);
}

static void two_revokes_at_once_are_both_seen(void **state)
{
	struct mv_region *region = guest_region(*state, 0);

	mv_granule_raise(region, 0);
	mv_granule_raise(region, 511);
	assert_true(mv_granule_changed(region, 0, mv_granule_sample(region, 0)));
	mv_granule_lower(region, 0);
	uint64_t between = mv_granule_sample(region, 0);

	assert_true(mv_granule_changed(region, 0, between));
	mv_granule_lower(region, 0);
	assert_true(mv_granule_changed(region, 0, between));
	assert_false(mv_granule_changed(region, 0, mv_granule_sample(region, 0)));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(runs_are_found),
		TEST(a_batch_knows_its_place),
		TEST(a_revoke_changes_its_granule_only),
		TEST(two_revokes_at_once_are_both_seen),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
