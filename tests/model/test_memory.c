/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The core against a model in which nothing can go wrong: a flat array of bytes and one
 * record a page. A million random operations, each with the result that the model expects.
 */
#include "support/fake_view.h"
#include "support/guest.h"
#include "support/testing.h"

#define PAGE	    MV_PAGE_SIZE
#define PAGES	    2048 /* of the guest's address space */
#define MAP_PAGES   4096 /* of the mapping that regions lie in */
#define REGION_MAX  900	 /* pages: more than a granule */
#define LONG_ACCESS 9000 /* bytes */
#define PINNED_MAX  64	 /* ranges pinned at a time */
#define STEPS	    1500000

struct page {
	int region; /* index + 1; 0 where none is */
	unsigned int pins;
	enum mv_page_state state;
};

struct slot {
	uint64_t first, pages, at; /* guest page, how many, page of the mapping */
	bool used;
};

struct range {
	uint64_t first, last; /* addresses */
};

struct model {
	struct guest guest;
	struct fake_view views[2];
	struct chance chance;
	struct page pages[PAGES];
	struct slot slots[16];
	bool map_used[MAP_PAGES];
	struct range pinned[PINNED_MAX];
	unsigned int pinned_count;
	bool keep[PAGES]; /* what the drop cannot let go */
	unsigned char bytes[PAGES * PAGE];
	unsigned char buf[LONG_ACCESS], found[LONG_ACCESS];
};

static struct model model;

static uint64_t below(uint64_t limit)
{
	return chance_below(&model.chance, limit);
}

static bool one_in(uint64_t times)
{
	return chance_one_in(&model.chance, times);
}

/* A page, sometimes beyond all regions; near others more often than chance would have it. */
static uint64_t some_page(void)
{
	return one_in(20) ? below(PAGES + 4) : below(PAGES);
}

static bool page_exists(uint64_t page)
{
	return page < PAGES && model.pages[page].region;
}

static bool range_exists(uint64_t first, uint64_t last)
{
	for (uint64_t page = first / PAGE; page <= last / PAGE; page++)
		if (!page_exists(page))
			return false;
	return true;
}

static unsigned char *hva_of(uint64_t gpa)
{
	const struct slot *slot = &model.slots[model.pages[gpa / PAGE].region - 1];

	return model.guest.mem + slot->at * PAGE + (gpa - slot->first * PAGE);
}

/* --- regions ---------------------------------------------------------------------------- */

static bool slot_fits(const struct slot *slot)
{
	for (uint64_t i = 0; i < slot->pages; i++)
		if (page_exists(slot->first + i) || model.map_used[slot->at + i])
			return false;
	return true;
}

static void model_add(int index)
{
	const struct slot *slot = &model.slots[index];

	for (uint64_t i = 0; i < slot->pages; i++) {
		model.pages[slot->first + i] = (struct page){ .region = index + 1 };
		model.map_used[slot->at + i] = true;
	}
	/* The mapping keeps what it held: now that is what the guest finds there. */
	memcpy(model.bytes + slot->first * PAGE, model.guest.mem + slot->at * PAGE,
	       slot->pages * PAGE);
}

static void add_region(int index)
{
	struct slot *slot = &model.slots[index];

	slot->pages = one_in(4) ? 1 + below(REGION_MAX) : 1 + below(40);
	slot->first = below(PAGES - slot->pages + 1);
	slot->at = below(MAP_PAGES - slot->pages + 1);
	slot->used = slot_fits(slot);
	assert_int_equal(guest_add(&model.guest, slot->first * PAGE, slot->pages, slot->at * PAGE),
			 slot->used ? 0 : -EEXIST);
	if (slot->used)
		model_add(index);
}

static bool slot_pinned(const struct slot *slot)
{
	for (uint64_t i = 0; i < slot->pages; i++)
		if (model.pages[slot->first + i].pins)
			return true;
	return false;
}

static void remove_region(int index)
{
	struct slot *slot = &model.slots[index];
	bool busy = slot_pinned(slot);

	assert_int_equal(mv_memory_remove_region(model.guest.memory, slot->first * PAGE),
			 busy ? -EBUSY : 0);
	if (busy)
		return;
	for (uint64_t i = 0; i < slot->pages; i++) {
		model.pages[slot->first + i].region = 0;
		model.map_used[slot->at + i] = false;
	}
	slot->used = false;
}

static void step_region(void)
{
	int index = (int)below(COUNT_OF(model.slots));

	if (!model.slots[index].used)
		add_region(index);
	else if (one_in(3))
		remove_region(index);
}

/* --- access ----------------------------------------------------------------------------- */

static size_t some_length(void)
{
	if (one_in(50))
		return below(LONG_ACCESS + 1);
	return one_in(2) ? (size_t)1 << below(4) : below(64);
}

static uint64_t some_address(void)
{
	uint64_t gpa = some_page() * PAGE + below(PAGE);

	return one_in(2) ? gpa & ~7ULL : gpa;
}

static int expected_access(uint64_t gpa, size_t len)
{
	return !len || range_exists(gpa, gpa + len - 1) ? 0 : -EFAULT;
}

static void step_read(void)
{
	uint64_t gpa = some_address();
	size_t len = some_length();
	int wanted = expected_access(gpa, len);

	memset(model.found, 0x5a, len);
	assert_int_equal(mv_memory_read(model.guest.memory, gpa, model.found, len), wanted);
	if (!wanted && len)
		assert_int_equal(memcmp(model.found, model.bytes + gpa, len), 0);
	for (size_t i = 0; wanted && i < len; i++)
		assert_int_equal(model.found[i], 0x5a);
}

static void step_write(void)
{
	uint64_t gpa = some_address();
	size_t len = some_length();
	int wanted = expected_access(gpa, len);

	for (size_t i = 0; i < len; i++)
		model.buf[i] = (unsigned char)chance_next(&model.chance);
	assert_int_equal(mv_memory_write(model.guest.memory, gpa, model.buf, len), wanted);
	if (!wanted && len)
		memcpy(model.bytes + gpa, model.buf, len);
}

static void step_translate(void)
{
	uint64_t gpa = some_address(), back = 0;
	size_t len = 1 + below(3 * PAGE), wanted = len;
	bool exists = page_exists(gpa / PAGE);
	void *hva = NULL;

	assert_int_equal(mv_memory_hva(model.guest.memory, gpa, &len, &hva), exists ? 0 : -EFAULT);
	if (!exists)
		return;
	const struct slot *slot = &model.slots[model.pages[gpa / PAGE].region - 1];
	uint64_t rest = (slot->first + slot->pages) * PAGE - gpa;

	assert_ptr_equal(hva, hva_of(gpa));
	assert_int_equal(len, wanted < rest ? wanted : rest);
	assert_int_equal(mv_memory_gpa(model.guest.memory, hva, &back), 0);
	assert_int_equal(back, gpa);
}

/* --- pins ------------------------------------------------------------------------------- */

static void count_pins(const struct range *range, int by)
{
	for (uint64_t page = range->first / PAGE; page <= range->last / PAGE; page++)
		model.pages[page].pins += (unsigned int)by;
}

static void step_pin(void)
{
	struct range *range = &model.pinned[model.pinned_count];

	if (model.pinned_count == PINNED_MAX)
		return;
	range->first = some_address();
	range->last = range->first + below(one_in(10) ? 700 * PAGE : 3 * PAGE);
	bool exists = range_exists(range->first, range->last);

	assert_int_equal(mv_memory_pin(model.guest.memory, range->first, range->last),
			 exists ? 0 : -EFAULT);
	if (!exists)
		return;
	count_pins(range, 1);
	model.pinned_count++;
}

static void step_unpin(void)
{
	if (!model.pinned_count)
		return;
	unsigned int which = (unsigned int)below(model.pinned_count);
	struct range range = model.pinned[which];

	mv_memory_unpin(model.guest.memory, range.first, range.last);
	count_pins(&range, -1);
	model.pinned[which] = model.pinned[--model.pinned_count];
}

/* --- transactions ----------------------------------------------------------------------- */

static void drop(void *ctx, struct mv_batch *batch)
{
	mv_batch_for_each_page (batch, bit) {
		if (model.keep[fake_view_page(batch, bit)])
			mv_batch_take(batch, bit);
		else
			memset(mv_region_hva(batch->region, batch->first_page + bit), 0, PAGE);
	}
}

static bool page_stays(uint64_t page)
{
	return model.pages[page].pins || model.views[0].refuse[page] ||
	       model.views[1].refuse[page] || model.keep[page];
}

static uint64_t model_discard(uint64_t first, uint64_t last)
{
	uint64_t dropped = 0;

	for (uint64_t page = first; page <= last; page++) {
		if (page_stays(page))
			continue;
		memset(model.bytes + page * PAGE, 0, PAGE);
		model.pages[page].state = MV_PAGE_DISCARDED;
		dropped++;
	}
	return dropped;
}

static void step_discard(void)
{
	uint64_t first = some_page(), last = first + below(one_in(40) ? 600 : 6);
	uint64_t dropped = 0;
	int error = mv_memory_discard(model.guest.memory, first * PAGE, last * PAGE + PAGE - 1,
				      drop, NULL, &dropped);

	if (!range_exists(first * PAGE, last * PAGE)) {
		assert_int_equal(error, -EFAULT);
		return;
	}
	uint64_t wanted = model_discard(first, last);

	assert_int_equal(dropped, wanted);
	assert_int_equal(error, wanted == last - first + 1 ? 0 : -EBUSY);
}

/* What pager and others do to a page: own it, by one of the ways, and give it a state. */
static void step_transition(void)
{
	uint64_t page = some_page();
	uint32_t word;

	if (!page_exists(page))
		return;
	struct mv_region *region = guest_region(&model.guest, page * PAGE);
	uint64_t number = mv_region_page(region, page * PAGE);
	uint32_t *at = &region->words[number];

	assert_int_equal(mv_word_state(*at), model.pages[page].state);
	assert_int_equal(*at / MV_WORD_PIN, model.pages[page].pins);
	if (one_in(2)) {
		bool can = mv_page_begin_if(at, MV_WORD_PINS, 0, MV_WORD_COPYING, &word);

		assert_int_equal(can, !model.pages[page].pins);
		if (!can)
			return;
		assert_true(mv_page_seal(at));
	} else {
		assert_true(mv_page_claim(at, &word));
	}
	model.pages[page].state = (enum mv_page_state)below(MV_PAGE_STATES);
	mv_region_end(region, number, model.pages[page].state, 0, 0);
}

static void step_grant(void)
{
	uint64_t page = some_page();

	if (!page_exists(page))
		return;
	struct mv_region *region = guest_region(&model.guest, page * PAGE);
	uint64_t number = mv_region_page(region, page * PAGE);
	struct mv_batch batch = { .region = region,
				  .first_page = number / MV_GRANULE_PAGES * MV_GRANULE_PAGES };

	mv_batch_add(&batch, (unsigned int)(number % MV_GRANULE_PAGES));
	mv_page_begin(&region->memory->platform, &region->words[number]);
	assert_int_equal(mv_batch_grant(&batch), 0);
	mv_region_end(region, number, MV_PAGE_RESIDENT, 0, 0);
	model.pages[page].state = MV_PAGE_RESIDENT;
	for (unsigned int i = 0; i < COUNT_OF(model.views); i++)
		assert_int_equal(fake_view_stage(&model.views[i], page), FAKE_REACHED);
}

static void step_moods(void)
{
	uint64_t page = below(PAGES);

	fake_view_refuse(&model.views[below(2)], page, one_in(3));
	model.keep[page] = one_in(6);
}

/* --- all together ----------------------------------------------------------------------- */

static void check_counts(void)
{
	struct mv_memory_counts counts, wanted = { { 0 } };

	for (uint64_t page = 0; page < PAGES; page++) {
		if (!page_exists(page))
			continue;
		wanted.pages[model.pages[page].state]++;
		wanted.pinned += model.pages[page].pins != 0;
		wanted.total++;
	}
	mv_memory_get_counts(model.guest.memory, &counts);
	assert_memory_equal(&counts, &wanted, sizeof(counts));
	guest_check_counts(&model.guest);
}

/* In 1,000. */
static const struct {
	unsigned int share;
	void (*step)(void);
} steps[] = {
	{ 300, step_read }, { 300, step_write },  { 100, step_translate }, { 80, step_pin },
	{ 90, step_unpin }, { 40, step_discard }, { 60, step_transition }, { 20, step_grant },
	{ 9, step_moods },  { 1, step_region },
};

static void step(void)
{
	uint64_t at = below(1000);

	for (size_t i = 0; i < COUNT_OF(steps); at -= steps[i].share, i++) {
		if (at < steps[i].share) {
			steps[i].step();
			return;
		}
	}
}

static void a_million_operations_agree_with_the_model(void **state)
{
	const uint64_t count = test_rounds(STEPS);

	for (int i = 0; i < 12; i++)
		step_region();
	for (uint64_t i = 0; i < count; i++) {
		step();
		if (i % 10000 == 0)
			check_counts();
	}
	check_counts();
	while (model.pinned_count)
		step_unpin();
	for (int i = 0; i < (int)COUNT_OF(model.slots); i++)
		if (model.slots[i].used)
			remove_region(i);
	check_counts();
	print_message("# %llu operations\n", (unsigned long long)count);
}

static int set_up(void **state)
{
	static const enum mv_view_rank ranks[] = { MV_VIEW_RANK_PROCESS, MV_VIEW_RANK_DMA };

	model.chance = chance_of(test_seed(), 0);
	guest_init(&model.guest, MAP_PAGES * PAGE);
	for (unsigned int i = 0; i < COUNT_OF(model.views); i++) {
		fake_view_init(&model.views[i], ranks[i], PAGES);
		assert_int_equal(mv_memory_attach_view(model.guest.memory, &model.views[i].view),
				 0);
	}
	return 0;
}

static int tear_down(void **state)
{
	for (unsigned int i = 0; i < COUNT_OF(model.views); i++) {
		mv_memory_detach_view(model.guest.memory, &model.views[i].view);
		fake_view_finish(&model.views[i]);
	}
	guest_finish(&model.guest);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_million_operations_agree_with_the_model),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
