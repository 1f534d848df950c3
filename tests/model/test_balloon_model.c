// SPDX-License-Identifier: BSD-2-Clause
/*
 * A guest that gives pages, takes them back, reports them, pins and writes, at random, against an
 * array that knows what each page must hold: its own words for as long as the guest has not given
 * the content up, and words or zeros, never anything else, from then until it writes anew.
 */
#include "support/balloon_rig.h"
#include "support/testing.h"

#define PAGES ((RIG_RAM - RIG_PAGES) >> MV_PAGE_SHIFT)
#define BATCH 256

struct page {
	uint64_t tag; /* what the guest wrote last */
	bool open;    /* the content was given up since: the tag, or zeros */
	bool gone;    /* zeros were seen: it stays so */
	bool given;
	bool pinned;
};

struct model {
	struct balloon_rig rig;
	struct chance chance;
	bool must_tell;
	uint64_t tags;
	uint64_t given;
	struct page pages[PAGES];
};

static volatile uint64_t *words_of(struct model *model, uint64_t page)
{
	return (void *)(model->rig.ram + RIG_PAGES + (page << MV_PAGE_SHIFT));
}

static void check(struct model *model, uint64_t number)
{
	struct page *page = &model->pages[number];
	uint64_t first = words_of(model, number)[0], last = words_of(model, number)[511];

	assert_true(first == last);
	if (first == page->tag) {
		assert_false(page->gone);
		return;
	}
	assert_true(first == 0 && page->open);
	page->gone = true;
}

static void write_page(struct model *model, uint64_t number)
{
	struct page *page = &model->pages[number];

	page->tag = ++model->tags;
	page->open = page->gone = false;
	words_of(model, number)[0] = page->tag;
	words_of(model, number)[511] = page->tag;
}

/* Pages by chance, or a run of neighbours. */
static size_t choose(struct model *model, bool given, uint32_t *pfns)
{
	size_t wanted = 1 + chance_below(&model->chance, BATCH), count = 0;
	uint64_t start = chance_below(&model->chance, PAGES);
	bool run = chance_one_in(&model->chance, 2);

	for (size_t tries = 0; tries < 2 * BATCH && count < wanted; tries++) {
		uint64_t at = run ? (start + tries) % PAGES : chance_below(&model->chance, PAGES);
		struct page *page = &model->pages[at];

		if (page->given == given) {
			page->given = !given;
			pfns[count++] = (uint32_t)(FIRST_PFN + at);
		}
	}
	return count;
}

static void inflate(struct model *model)
{
	uint32_t pfns[BATCH];
	size_t count = choose(model, false, pfns);

	for (size_t i = 0; i < count; i++)
		model->pages[pfns[i] - FIRST_PFN].open = true;
	assert_int_equal(balloon_rig_name(&model->rig, 0, pfns, count), 0);
	model->given += count;
	if (!model->must_tell)
		assert_true(balloon_rig_stats(&model->rig).collected_bytes == 0);
}

static void deflate(struct model *model)
{
	uint32_t pfns[BATCH];
	size_t count = choose(model, true, pfns);

	/* A guest that did not promise to tell first uses its pages at once. */
	for (size_t i = 0; i < count && !model->must_tell; i++)
		write_page(model, pfns[i] - FIRST_PFN);
	assert_int_equal(balloon_rig_name(&model->rig, 1, pfns, count), 0);
	model->given -= count;
	for (size_t i = 0; i < count && model->must_tell; i++)
		if (chance_one_in(&model->chance, 2))
			write_page(model, pfns[i] - FIRST_PFN);
}

static void report(struct model *model)
{
	uint64_t first = chance_below(&model->chance, PAGES), count = 0;
	uint64_t before = balloon_rig_stats(&model->rig).reported, pinned = 0;

	while (first + count < PAGES && count < 64 && !model->pages[first + count].given) {
		model->pages[first + count].open = true;
		pinned += model->pages[first + count].pinned;
		count++;
	}
	if (!count)
		return;
	balloon_rig_offer(&model->rig, 2, RIG_PAGES + (first << MV_PAGE_SHIFT),
			  (uint32_t)(count << MV_PAGE_SHIFT), true);
	assert_int_equal(balloon_rig_kick(&model->rig, 2), 0);
	assert_int_equal(balloon_rig_stats(&model->rig).reported - before, count - pinned);
	for (uint64_t i = first; i < first + count; i++)
		assert_int_equal(words_of(model, i)[0],
				 model->pages[i].pinned ? words_of(model, i)[511] : 0);
}

static void flip_pin(struct model *model, uint64_t at)
{
	uint64_t gpa = RIG_PAGES + (at << MV_PAGE_SHIFT);
	struct page *page = &model->pages[at];

	if (page->pinned)
		mv_memory_unpin(model->rig.memory, gpa, gpa);
	else
		assert_int_equal(mv_memory_pin(model->rig.memory, gpa, gpa), 0);
	page->pinned = !page->pinned;
}

static void use(struct model *model)
{
	for (unsigned int i = 0; i < 64; i++) {
		uint64_t at = chance_below(&model->chance, PAGES);

		check(model, at);
		if (!model->pages[at].given && chance_one_in(&model->chance, 2))
			write_page(model, at);
	}
}

static void step(struct model *model)
{
	switch (chance_below(&model->chance, 8)) {
	case 0:
	case 1:
		inflate(model);
		break;
	case 2:
	case 3:
		deflate(model);
		break;
	case 4:
		report(model);
		break;
	case 5:
		flip_pin(model, chance_below(&model->chance, PAGES));
		break;
	case 6:
		mv_balloon_settle(model->rig.balloon);
		break;
	default:
		use(model);
	}
	for (unsigned int queue = 0; queue < 3; queue++)
		balloon_rig_acks(&model->rig, queue);
	assert_true(balloon_rig_stats(&model->rig).given_bytes == model->given << MV_PAGE_SHIFT);
}

static void run(uint64_t seed, unsigned int kind, uint64_t rounds)
{
	struct model *model = calloc(1, sizeof(*model));

	assert_non_null(model);
	model->chance = chance_of(seed, kind);
	model->must_tell = kind & 1;
	balloon_rig_start(&model->rig, kind & 2,
			  MV_BALLOON_REPORTING | (kind & 1 ? MV_BALLOON_MUST_TELL_HOST : 0) |
				  (kind & 4 ? MV_BALLOON_RING_PACKED : 0) |
				  (kind & 8 ? MV_BALLOON_EVENT_IDX : 0));
	balloon_rig_queue(&model->rig, 2);
	for (uint64_t i = 0; i < PAGES; i++)
		write_page(model, i);
	for (uint64_t round = 0; round < rounds; round++)
		step(model);
	for (uint64_t i = 0; i < PAGES; i++) {
		check(model, i);
		if (model->pages[i].pinned)
			flip_pin(model, i);
	}
	balloon_rig_stop(&model->rig);
	free(model);
}

static void no_page_loses_what_was_not_given_up(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned int kind = 0; kind < 16; kind++)
		run(seed, kind, test_rounds(3000));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_page_loses_what_was_not_given_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
