/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stage-2 space against a model in which nothing can go wrong: one record a page and view.
 * Random regions, faults, revokes, rights, types, tracking, sizes; a processor that forgets nothing
 * until it is flushed. Whatever it finds has to be what the model says at that moment.
 */
#include "support/ept_rig.h"
#include "support/testing.h"

#define PAGE   MV_PAGE_SIZE
#define BASE   (8ULL << 30)
#define PAGES  3072 /* of guest addresses that are used */
#define SLOTS  6
#define VIEWS  3
#define STEPS  300000
#define RIGHTS (MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC)

struct page {
	int slot; /* -1: none */
	bool dirty;
	enum mv_memory_type type;
	uint32_t rights[VIEWS]; /* 0 in views that are not there */
};

struct slot {
	bool used;
	uint64_t first, pages, at; /* page of the guest, how many, page of the mapping */
	enum mv_ept_track how;
};

static struct {
	struct ept_rig rig;
	struct sim_cpu cpu;
	struct chance chance;
	struct page pages[PAGES];
	struct slot slots[SLOTS];
	bool views[VIEWS];
	uint64_t outcomes[MV_EPT_FAULT_KINDS], harvested, collapsed;
} model;

static uint64_t below(uint64_t limit)
{
	return chance_below(&model.chance, limit);
}

static bool one_in(uint64_t times)
{
	return chance_one_in(&model.chance, times);
}

static uint64_t gpa_of(uint64_t page)
{
	return BASE + page * PAGE;
}

static void some_range(uint64_t *first, uint64_t *last)
{
	uint64_t pages = one_in(8) ? 1 + below(1500) : 1 + below(20);

	/* Now and then all of it, so that large pages become possible again. */
	if (one_in(10)) {
		*first = 0;
		*last = PAGES - 1;
		return;
	}
	*first = below(PAGES);
	if (one_in(4))
		*first &= ~511ULL;
	*last = *first + pages - 1 < PAGES ? *first + pages - 1 : PAGES - 1;
}

static unsigned int some_view(void)
{
	unsigned int view = (unsigned int)below(VIEWS);

	return model.views[view] ? view : 0;
}

static uint32_t some_rights(void)
{
	static const uint32_t rights[] = {
		0,	MV_ATTR_READ, MV_ATTR_READ | MV_ATTR_WRITE, MV_ATTR_READ | MV_ATTR_EXEC,
		RIGHTS, RIGHTS
	};

	return rights[below(COUNT_OF(rights))];
}

/* --- regions --------------------------------------------------------------------------------- */

static bool slot_fits(const struct slot *slot)
{
	for (uint64_t i = 0; i < slot->pages; i++)
		if (model.pages[slot->first + i].slot >= 0)
			return false;
	for (unsigned int i = 0; i < SLOTS; i++)
		if (model.slots[i].used && model.slots[i].at < slot->at + slot->pages &&
		    slot->at < model.slots[i].at + model.slots[i].pages)
			return false;
	return true;
}

static void add_region(unsigned int index)
{
	struct slot slot = { .used = true, .pages = 1 + below(one_in(3) ? 30 : 1500) };

	slot.first = below(PAGES - slot.pages);
	if (one_in(2))
		slot.first &= ~511ULL;
	/* As often as not with large pages possible. */
	slot.at = below(4) ? slot.first : below(PAGES - slot.pages);
	if (!slot_fits(&slot))
		return;
	ept_rig_region(&model.rig, gpa_of(slot.first), slot.pages, slot.at * PAGE);
	model.slots[index] = slot;
	for (uint64_t i = 0; i < slot.pages; i++) {
		model.pages[slot.first + i].slot = (int)index;
		model.pages[slot.first + i].dirty = false;
	}
}

static void remove_region(unsigned int index)
{
	struct slot *slot = &model.slots[index];

	assert_int_equal(mv_ept_detach(model.rig.ept, gpa_of(slot->first)), 0);
	assert_int_equal(mv_memory_remove_region(model.rig.guest.memory, gpa_of(slot->first)), 0);
	for (uint64_t i = 0; i < slot->pages; i++)
		model.pages[slot->first + i].slot = -1;
	slot->used = false;
}

static void change_region(void)
{
	unsigned int index = (unsigned int)below(SLOTS);

	if (!model.slots[index].used)
		add_region(index);
	else if (one_in(30))
		remove_region(index);
}

/* --- accesses -------------------------------------------------------------------------------- */

static bool allowed(uint32_t rights, unsigned int access)
{
	if (access == MV_ACCESS_WRITE)
		return rights & MV_ATTR_WRITE;
	return rights & (access == MV_ACCESS_FETCH ? MV_ATTR_EXEC : MV_ATTR_READ);
}

static uint64_t hpa_of(uint64_t page)
{
	const struct slot *slot = &model.slots[model.pages[page].slot];

	return (uintptr_t)model.rig.base + (slot->at + (page - slot->first)) * PAGE;
}

static uint32_t type_of(uint64_t page)
{
	enum mv_memory_type type = model.pages[page].type;

	if (rig_is_ept(model.rig.format))
		return MV_ATTR_TYPE(type);
	return MV_ATTR_TYPE(type == MV_TYPE_WB ? 0 : type == MV_TYPE_WT ? 1 : 3);
}

/* Mostly one that is there. */
static uint64_t some_page(void)
{
	uint64_t page = below(PAGES);

	for (int i = 0; i < 8 && model.pages[page].slot < 0; i++)
		page = below(PAGES);
	return page;
}

static void touch(void)
{
	static const unsigned int accesses[] = { MV_ACCESS_READ, MV_ACCESS_WRITE, MV_ACCESS_FETCH };
	unsigned int access = accesses[below(COUNT_OF(accesses))];
	uint64_t number = some_page(), gpa = gpa_of(number) + below(PAGE), hpa = 0;
	struct page *page = &model.pages[number];
	struct mv_mapping mapping;
	enum mv_ept_fault_kind kind;

	model.cpu.view = some_view();
	model.rig.page_lg2 = one_in(2) ? 12 : 21;
	if (sim_cpu_pml_full(&model.cpu))
		sim_cpu_drain(&model.cpu);
	kind = rig_touch(&model.rig, &model.cpu, gpa, access, &hpa);
	model.outcomes[kind]++;
	if (page->slot < 0) {
		assert_int_equal(kind, MV_EPT_MMIO);
		return;
	}
	if (!allowed(page->rights[model.cpu.view], access)) {
		assert_int_equal(kind, MV_EPT_PROTECTED);
		return;
	}
	assert_true(kind == MV_EPT_FIXED || kind == MV_EPT_SPURIOUS);
	assert_int_equal(hpa, hpa_of(number) + gpa % PAGE);
	assert_int_equal(mv_ept_walk(model.rig.ept, model.cpu.view, gpa, &mapping), 0);
	assert_int_equal(mapping.attr & MV_ATTR_TYPE_MASK, type_of(number));
	page->dirty |= access == MV_ACCESS_WRITE;
}

/* --- what is done to it ---------------------------------------------------------------------- */

static bool range_exists(uint64_t first, uint64_t last)
{
	for (uint64_t page = first; page <= last; page++)
		if (model.pages[page].slot < 0)
			return false;
	return true;
}

/* The processor must not find them before it has faulted again. */
static void discard(void)
{
	uint64_t first, last, hpa;
	struct mv_stage2_exit exit;
	bool there;

	some_range(&first, &last);
	there = range_exists(first, last);
	assert_int_equal(rig_discard(&model.rig, gpa_of(first), gpa_of(last) + PAGE - 1),
			 there ? 0 : -EFAULT);
	for (uint64_t page = first; there && page <= last; page++)
		for (unsigned int view = 0; view < VIEWS; view++) {
			if (!model.views[view])
				continue;
			model.cpu.view = view;
			assert_false(sim_cpu_access(&model.cpu, gpa_of(page), MV_ACCESS_READ, &hpa,
						    &exit));
		}
}

static void protect(void)
{
	unsigned int view = some_view();
	uint32_t rights = some_rights();
	uint64_t first, last;

	some_range(&first, &last);
	if (one_in(3)) {
		assert_int_equal(mv_ept_unprotect(model.rig.ept, view, gpa_of(first),
						  gpa_of(last) + PAGE - 1),
				 0);
		rights = view ? MV_ATTR_READ | MV_ATTR_EXEC : RIGHTS;
	} else {
		assert_int_equal(mv_ept_protect(model.rig.ept, view, gpa_of(first),
						gpa_of(last) + PAGE - 1, rights),
				 0);
	}
	for (uint64_t page = first; page <= last; page++)
		model.pages[page].rights[view] = rights;
}

static void set_type(void)
{
	static const enum mv_memory_type types[] = { MV_TYPE_WB, MV_TYPE_WB, MV_TYPE_UC,
						     MV_TYPE_WT };
	enum mv_memory_type type = types[below(COUNT_OF(types))];
	uint64_t first, last;

	some_range(&first, &last);
	assert_int_equal(mv_ept_set_type(model.rig.ept, gpa_of(first), gpa_of(last) + PAGE - 1,
					 type, false),
			 0);
	for (uint64_t page = first; page <= last; page++)
		model.pages[page].type = type;
}

static void change_view(void)
{
	unsigned int view = 1 + (unsigned int)below(VIEWS - 1), made = 0;

	if (model.views[view]) {
		assert_int_equal(mv_ept_view_destroy(model.rig.ept, view), 0);
		model.views[view] = false;
		return;
	}
	assert_int_equal(mv_ept_view_create(model.rig.ept, MV_ATTR_READ | MV_ATTR_EXEC, &made), 0);
	assert_false(model.views[made]);
	model.views[made] = true;
	sim_cpu_load_view(&model.cpu, made);
	for (uint64_t page = 0; page < PAGES; page++)
		model.pages[page].rights[made] = MV_ATTR_READ | MV_ATTR_EXEC;
}

static void change_sizes(void)
{
	uint64_t first, last;

	some_range(&first, &last);
	if (one_in(2)) {
		assert_int_equal(mv_ept_split(model.rig.ept, gpa_of(first), gpa_of(last) + PAGE - 1,
					      one_in(2) ? 12 : 21),
				 0);
		return;
	}
	model.rig.page_lg2 = 12;
	if (one_in(2))
		assert_int_equal(mv_ept_prefault(model.rig.ept, some_view(),
						 gpa_of(first & ~511ULL),
						 gpa_of(last | 511) + PAGE - 1, NULL),
				 0);
	model.collapsed += mv_ept_collapse(model.rig.ept, gpa_of(0), gpa_of(PAGES) - 1);
}

/* --- tracking -------------------------------------------------------------------------------- */

static void track(void)
{
	struct slot *slot = &model.slots[below(SLOTS)];
	enum mv_ept_track how = (enum mv_ept_track)below(4);

	if (!slot->used)
		return;
	if (how == MV_EPT_TRACK_PML && !rig_is_ept(model.rig.format))
		how = MV_EPT_TRACK_DIRTY;
	/* What a processor has logged belongs to the time before. */
	sim_cpu_drain(&model.cpu);
	assert_int_equal(mv_ept_track(model.rig.ept, gpa_of(slot->first), how), 0);
	slot->how = how;
	for (uint64_t i = 0; i < slot->pages; i++)
		model.pages[slot->first + i].dirty = false;
}

static void harvest(void)
{
	struct slot *slot = &model.slots[below(SLOTS)];
	uint64_t bitmap[PAGES / 64 + 1] = { 0 }, first, last, dirty = 0, count = 0;

	if (!slot->used)
		return;
	first = slot->first + below(slot->pages);
	last = first + below(slot->first + slot->pages - first);
	sim_cpu_drain(&model.cpu);
	assert_int_equal(mv_ept_harvest(model.rig.ept, gpa_of(first), gpa_of(last) + PAGE - 1,
					bitmap, &dirty),
			 slot->how == MV_EPT_TRACK_NONE ? -ENOENT : 0);
	for (uint64_t page = first; slot->how && page <= last; page++) {
		uint64_t bit = page - first;
		bool said = bitmap[bit / 64] >> (bit % 64) & 1;

		assert_true(said || !model.pages[page].dirty);
		/* A huge page is dirty as a whole; the others tell exactly. */
		if (slot->how != MV_EPT_TRACK_DIRTY)
			assert_int_equal(said, model.pages[page].dirty);
		model.pages[page].dirty = false;
		count += said;
	}
	assert_int_equal(dirty, count);
	model.harvested += count;
}

/* --- all together ---------------------------------------------------------------------------- */

static void step(void)
{
	uint64_t chance = below(1000);

	if (chance < 900)
		touch();
	else if (chance < 920)
		discard();
	else if (chance < 935)
		protect();
	else if (chance < 945)
		set_type();
	else if (chance < 960)
		change_sizes();
	else if (chance < 975)
		change_region();
	else if (chance < 980)
		track();
	else if (chance < 995)
		harvest();
	else if (one_in(4))
		change_view();
}

static void open_model(enum mv_format_id format, uint32_t policy, uint64_t seed)
{
	struct ept_rig_options options = { .format = format,
					   .policy = policy,
					   .bytes = PAGES * PAGE };

	memset(&model, 0, sizeof(model));
	model.chance = chance_of(seed, format * 2 + !!policy);
	ept_rig_open(&model.rig, &options);
	sim_cpu_init(&model.cpu, model.rig.ept, &model.rig.guest.fake.platform, 0, seed);
	model.cpu.pml = rig_is_ept(format);
	model.rig.cpus = &model.cpu;
	model.rig.cpu_count = 1;
	model.views[0] = true;
	for (uint64_t page = 0; page < PAGES; page++)
		model.pages[page] =
			(struct page){ .slot = -1, .type = MV_TYPE_WB, .rights = { RIGHTS } };
}

static void run(enum mv_format_id format, uint32_t policy)
{
	open_model(format, policy, test_seed());
	for (uint64_t i = test_rounds(STEPS); i; i--) {
		step();
		if (i % 4096 == 0)
			ept_rig_check(&model.rig);
	}
	print_message(
		"# fixed %llu, spurious %llu, protected %llu, mmio %llu; %llu pages harvested, "
		"%llu collapses\n",
		(unsigned long long)model.outcomes[MV_EPT_FIXED],
		(unsigned long long)model.outcomes[MV_EPT_SPURIOUS],
		(unsigned long long)model.outcomes[MV_EPT_PROTECTED],
		(unsigned long long)model.outcomes[MV_EPT_MMIO],
		(unsigned long long)model.harvested, (unsigned long long)model.collapsed);
	assert_true(model.outcomes[MV_EPT_FIXED] && model.outcomes[MV_EPT_SPURIOUS]);
	assert_true(model.outcomes[MV_EPT_PROTECTED] && model.outcomes[MV_EPT_MMIO]);
	/* Too few steps for this under sanitizers. */
	assert_true((model.harvested && model.collapsed) || test_rounds(8) < 8);
	ept_rig_check(&model.rig);
	ept_rig_close(&model.rig);
}

static void ept_4_levels(void **state)
{
	run(MV_FORMAT_EPT_4L, 0);
}

static void ept_5_levels_no_executable_huge_pages(void **state)
{
	run(MV_FORMAT_EPT_5L, MV_EPT_NX_HUGE);
}

static void npt_4_levels(void **state)
{
	run(MV_FORMAT_NPT_4L, 0);
}

static void npt_5_levels_no_executable_huge_pages(void **state)
{
	run(MV_FORMAT_NPT_5L, MV_EPT_NX_HUGE);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ept_4_levels),
		cmocka_unit_test(ept_5_levels_no_executable_huge_pages),
		cmocka_unit_test(npt_4_levels),
		cmocka_unit_test(npt_5_levels_no_executable_huge_pages),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
