/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Each kind of invalidation of a cache of nested walks drops what it is for, and nothing else.
 * What is cached is known by counting, and by whether the next walk is a hit.
 */
#include "support/nested_guest.h"
#include "support/fake_platform.h"
#include "support/testing.h"

#define READ   (MV_ACCESS_READ | MV_ACCESS_USER)
#define WRITE  (MV_ACCESS_WRITE | MV_ACCESS_USER)
#define PCIDE  (1ull << 17)
#define KERNEL 0xffff800000100000ull

/* Pages apart, so that each is in a set of its own. */
#define PAGE(n) ((n)*0x9000ul)

static struct fake_platform platform;
static struct nested_guest guest;
static struct mv_nested_cache *cache;
static struct mv_nested_log change_log;

static int open_guest(void **state)
{
	struct mv_nested_cache_config config = { .size = sizeof(config),
						 .platform = &platform.platform,
						 .node = -1 };

	fake_platform_init(&platform);
	nested_guest_open(&guest, MV_FORMAT_EPT_4L, MV_FEATURE_ACCESSED, false);
	mv_nested_log_init(&change_log);
	guest.world.log = &change_log;
	nested_guest_load(&guest, 0, PCIDE, 0);
	return mv_nested_cache_create(&config, &cache);
}

static int close_guest(void **state)
{
	mv_nested_cache_destroy(cache);
	nested_guest_close(&guest);
	fake_platform_finish(&platform);
	return 0;
}

static void enter(unsigned int space)
{
	nested_guest_load(&guest, space, PCIDE, 0);
}

static struct mv_nested_walk walk(uint64_t gva, unsigned int access)
{
	struct mv_nested_walk made = { 0 };

	assert_int_equal(mv_nested_cached_walk(cache, &guest.world.nested, gva, access, &made), 0);
	return made;
}

static struct mv_nested_cache_counts counts(void)
{
	struct mv_nested_cache_counts made;

	mv_nested_cache_get_counts(cache, &made);
	return made;
}

/* Whether a walk is answered by a cached translation; it is cached afterwards. */
static bool hits(uint64_t gva, unsigned int access)
{
	uint64_t before = counts().hits;
	struct mv_nested_walk made = walk(gva, access);

	assert_int_equal(made.kind, MV_NESTED_OK);
	return counts().hits > before;
}

/* Frames that do not follow each other, so that each page has an entry of its own. */
static uint64_t data(unsigned int page)
{
	return GUEST_DATA + (uint64_t)(page * 7 % 512) * 4096;
}

/* Pages 0 to 3 of two address spaces, and two global ones in both. All of them are cached. */
static void cache_spaces(void)
{
	for (unsigned int space = 0; space < 2; space++)
		for (unsigned int page = 0; page < 4; page++)
			nested_guest_map(&guest, space, PAGE(page), 1,
					 data(space * 4 + page) | GUEST_ENTRY);
	for (unsigned int page = 0; page < 2; page++)
		nested_guest_map(&guest, 0, KERNEL + PAGE(page), 1,
				 data(8 + page) | GUEST_ENTRY | GUEST_GLOBAL);
	*nested_guest_entry(&guest, guest.root[1], 4, KERNEL) =
		*nested_guest_entry(&guest, guest.root[0], 4, KERNEL);
	for (unsigned int space = 0; space < 2; space++) {
		enter(space);
		for (unsigned int page = 0; page < 4; page++)
			hits(PAGE(page), READ);
		for (unsigned int page = 0; page < 2; page++)
			assert_int_equal(hits(KERNEL + PAGE(page), READ), space == 1);
	}
	assert_int_equal(counts().translations, 10);
}

static void walks_are_cached_and_hit(void **state)
{
	struct mv_nested_walk first, second, plain = { 0 };

	nested_guest_map(&guest, 0, 0x5000, 1, data(3) | GUEST_ENTRY);
	first = walk(0x5123, READ);
	assert_int_equal(counts().walks, 1);
	second = walk(0x5123, READ);
	assert_int_equal(counts().hits, 1);
	assert_int_equal(mv_nested_walk(&guest.world.nested, 0x5123, READ, &plain), 0);
	assert_int_equal(first.hpa, data(3) + 0x123);
	assert_memory_equal(&first, &second, sizeof(first));
	assert_memory_equal(&first, &plain, sizeof(first));
}

static void invlpg_drops_one_page_of_its_pcid_and_globals(void **state)
{
	cache_spaces();
	mv_nested_cache_flush_address(cache, PAGE(1) + 0xfff, 1, true);
	assert_int_equal(counts().translations, 9);
	enter(0);
	assert_true(hits(0, READ) && hits(PAGE(2), READ) && hits(PAGE(3), READ));
	assert_false(hits(PAGE(1), READ));
	enter(1);
	assert_true(hits(PAGE(1), READ));
	mv_nested_cache_flush_address(cache, KERNEL, 1, true);
	assert_int_equal(counts().translations, 9);
	assert_true(hits(KERNEL + PAGE(1), READ));
	assert_false(hits(KERNEL, READ));
}

static void invpcid_by_address_spares_globals(void **state)
{
	cache_spaces();
	mv_nested_cache_flush_address(cache, KERNEL, 2, false);
	assert_int_equal(counts().translations, 10);
	mv_nested_cache_flush_address(cache, 0, 2, false);
	assert_int_equal(counts().translations, 9);
}

static void a_pcid_goes_with_and_without_globals(void **state)
{
	cache_spaces();
	mv_nested_cache_flush_pcid(cache, 1, false);
	assert_int_equal(counts().translations, 6);
	enter(1);
	assert_true(hits(0, READ) && hits(KERNEL, READ));
	mv_nested_cache_flush_pcid(cache, 1, true);
	assert_int_equal(counts().translations, 4);
	mv_nested_cache_flush_pcid(cache, MV_NESTED_ALL_PCIDS, false);
	assert_int_equal(counts().translations, 0);
}

static void all_pcids_without_globals_leave_globals(void **state)
{
	cache_spaces();
	mv_nested_cache_flush_pcid(cache, MV_NESTED_ALL_PCIDS, false);
	assert_int_equal(counts().translations, 2);
	assert_int_equal(counts().structures, 0);
	mv_nested_cache_flush_pcid(cache, MV_NESTED_ALL_PCIDS, true);
	assert_int_equal(counts().translations, 0);
}

static void a_flush_of_all_leaves_nothing(void **state)
{
	cache_spaces();
	mv_nested_cache_flush_all(cache);
	assert_int_equal(counts().translations, 0);
	assert_int_equal(counts().structures, 0);
	assert_int_equal(counts().stage2_structures, 0);
	assert_false(hits(0, READ));
}

/* A page of 2 MiB that stage 2 maps by 4 KiB: an address names it all. */
static void invlpg_drops_a_fractured_page_whole(void **state)
{
	nested_guest_map(&guest, 0, 0x40000000, 2, GUEST_DATA | GUEST_ENTRY);
	nested_guest_map(&guest, 0, 0x40200000, 2, GUEST_DATA | GUEST_ENTRY);
	*nested_guest_stage2(&guest, GUEST_DATA + 0x3000) ^= 1ull << 52;
	for (unsigned int page = 0; page < 32; page += 8) {
		hits(0x40000000 + page * 4096ul, READ);
		hits(0x40200000 + page * 4096ul, READ);
	}
	/* Neighbours came along; the page that looks different did not. */
	assert_int_equal(counts().translations, 2 * (4 * 8 - 1));
	mv_nested_cache_flush_address(cache, 0x401ff000, 1, true);
	assert_int_equal(counts().translations, 4 * 8 - 1);
	assert_true(hits(0x40200000, READ));
	assert_false(hits(0x40000000, READ));
}

static void large_pages_are_cached_by_their_size(void **state)
{
	nested_guest_map(&guest, 0, 0x40000000, 2, GUEST_DATA_2M | GUEST_ENTRY);
	nested_guest_map(&guest, 0, 0x80000000, 3, GUEST_DATA_1G | GUEST_ENTRY);
	assert_int_equal(walk(0x40000000, READ).page_lg2, 21);
	assert_int_equal(walk(0x80000000, READ).page_lg2, 30);
	assert_int_equal(counts().translations, 2);
	assert_true(hits(0x401ff123, READ) && hits(0xbffff000, READ));
	mv_nested_cache_flush_address(cache, 0xb0000000, 1, true);
	assert_int_equal(counts().translations, 1);
	assert_true(hits(0x40100000, READ));
}

/* Apart at all levels. */
#define FAR (1ul << 39 | 5ul << 30 | 9ul << 21)

/* Two leaf tables under one table of level 2; and another under another of level 3. */
static void a_written_table_drops_what_was_found_through_it(void **state)
{
	uint64_t leaves = nested_guest_map(&guest, 0, 0, 1, data(0) | GUEST_ENTRY);
	uint64_t upper = nested_guest_next(&guest, guest.root[0], 4, 0);

	nested_guest_map(&guest, 0, 0x200000, 1, data(1) | GUEST_ENTRY);
	nested_guest_map(&guest, 0, FAR, 1, data(2) | GUEST_ENTRY);
	hits(0, READ), hits(0x200000, READ), hits(FAR, READ);
	assert_int_equal(counts().translations, 3);
	/* Level 3, 2 and 1 of the first; level 1 of the second; three of the third. */
	assert_int_equal(counts().structures, 7);
	mv_nested_cache_flush_table(cache, leaves + 0x808);
	assert_int_equal(counts().translations, 2);
	assert_int_equal(counts().structures, 6);
	assert_true(hits(0x200000, READ) && hits(FAR, READ));
	assert_false(hits(0, READ));
	mv_nested_cache_flush_table(cache, upper);
	assert_int_equal(counts().translations, 1);
	assert_int_equal(counts().structures, 3);
	mv_nested_cache_flush_table(cache, guest.root[0]);
	assert_int_equal(counts().translations, 0);
	assert_int_equal(counts().structures, 0);
	/* Data is no table. */
	hits(0, READ);
	mv_nested_cache_flush_table(cache, data(0));
	assert_true(hits(0, READ));
}

static void check_range(void (*change)(uint64_t first, uint64_t last))
{
	uint64_t leaves = nested_guest_map(&guest, 0, 0, 1, data(0) | GUEST_ENTRY);

	nested_guest_map(&guest, 0, 0x1000, 1, data(1) | GUEST_ENTRY);
	nested_guest_map(&guest, 0, FAR, 1, data(2) | GUEST_ENTRY);
	hits(0, READ), hits(0x1000, READ), hits(FAR, READ);
	change(data(1), data(1) + 0xfff);
	hits(FAR, READ);
	assert_int_equal(counts().translations, 2);
	assert_true(hits(0, READ));
	assert_false(hits(0x1000, READ));
	/* The table moved: what it said was read where it was. */
	change(leaves, leaves + 0xfff);
	assert_true(hits(FAR, READ));
	assert_int_equal(counts().translations, 1);
	change(GUEST_DATA_1G, UINT64_MAX);
	assert_true(hits(FAR, READ));
}

static void flush_range(uint64_t first, uint64_t last)
{
	mv_nested_cache_flush_gpa(cache, &guest.world.nested, first, last);
}

static void log_range(uint64_t first, uint64_t last)
{
	mv_nested_log_add(&change_log, first, last);
}

static void a_change_of_stage_2_drops_its_range(void **state)
{
	check_range(flush_range);
}

static void the_log_drops_the_same(void **state)
{
	check_range(log_range);
	assert_int_equal(counts().overruns, 0);
}

static void a_log_that_went_on_too_far_drops_everything(void **state)
{
	cache_spaces();
	for (unsigned int i = 0; i < MV_NESTED_LOG_SLOTS; i++)
		mv_nested_log_add(&change_log, GUEST_DATA_1G, GUEST_DATA_1G);
	enter(0);
	assert_true(hits(0, READ));
	assert_int_equal(counts().overruns, 0);
	for (unsigned int i = 0; i < MV_NESTED_LOG_SLOTS + 1; i++)
		mv_nested_log_add(&change_log, GUEST_DATA_1G, GUEST_DATA_1G);
	assert_false(hits(0, READ));
	assert_int_equal(counts().overruns, 1);
	assert_int_equal(counts().translations, 1);
}

static void a_change_in_the_middle_of_an_entry_spares_its_neighbours(void **state)
{
	for (unsigned int page = 0; page < 8; page++)
		nested_guest_map(&guest, 0, page * 4096ul, 1,
				 (GUEST_DATA + page * 4096ul) | GUEST_ENTRY);
	hits(0x3000, READ);
	assert_int_equal(counts().translations, 8);
	flush_range(GUEST_DATA + 0x5000, GUEST_DATA + 0x5fff);
	assert_int_equal(counts().translations, 7);
	mv_nested_cache_flush_address(cache, 0x2000, 1, true);
	assert_int_equal(counts().translations, 6);
	assert_true(hits(0, READ) && hits(0x3000, READ) && hits(0x4000, READ) &&
		    hits(0x7000, READ));
	assert_false(hits(0x5000, READ));
}

/* Rights are those of the registers of now. */
static void registers_decide_at_once(void **state)
{
	nested_guest_map(&guest, 0, 0, 1, data(0) | (GUEST_ENTRY & ~2ull));
	assert_int_equal(walk(0, MV_ACCESS_READ).kind, MV_NESTED_OK);
	assert_int_equal(walk(0, MV_ACCESS_WRITE).error_code, MV_PF_PRESENT | MV_PF_WRITE);
	nested_guest_load(&guest, 0, PCIDE, 0x10000); /* WP = 0 */
	assert_true(hits(0, MV_ACCESS_WRITE));
	nested_guest_load(&guest, 0, PCIDE | 1ull << 21, 0); /* SMAP */
	assert_int_equal(walk(0, MV_ACCESS_READ).error_code, MV_PF_PRESENT);
	assert_true(hits(0, MV_ACCESS_READ | MV_ACCESS_AC));
	nested_guest_load(&guest, 0, PCIDE, 0);
	assert_true(hits(0, MV_ACCESS_READ));
}

static void the_guests_pat_decides_at_once(void **state)
{
	nested_guest_map(&guest, 0, 0, 1, data(0) | GUEST_ENTRY);
	assert_int_equal(walk(0, READ).type, MV_TYPE_WB);
	mv_nested_set_guest_pat(&guest.world.nested, MV_TYPE_WC);
	assert_true(hits(0, READ));
	assert_int_equal(walk(0, READ).type, MV_TYPE_WC);
}

static void a_write_to_a_clean_page_sets_dirty(void **state)
{
	uint64_t table = nested_guest_map(&guest, 0, 0, 1, data(0) | (GUEST_ENTRY & ~0x40ull));
	uint64_t *leaf = nested_guest_entry(&guest, table, 1, 0);

	hits(0, READ);
	assert_int_equal(*leaf & 0x40, 0);
	assert_false(hits(0, WRITE));
	assert_int_equal(*leaf & 0x40, 0x40);
	hits(0, WRITE);
	assert_true(hits(0, WRITE));
	/* The same of stage 2. */
	*nested_guest_stage2(&guest, data(0)) &= ~(1ull << 9);
	flush_range(data(0), data(0));
	hits(0, READ);
	assert_false(hits(0, WRITE));
	assert_true(*nested_guest_stage2(&guest, data(0)) & 1ull << 9);
}

static void a_debuggers_look_leaves_no_trace(void **state)
{
	nested_guest_map(&guest, 0, 0, 1, data(0) | (GUEST_ENTRY & ~0x60ull));
	assert_int_equal(walk(0, READ | MV_ACCESS_NO_UPDATE).kind, MV_NESTED_OK);
	assert_int_equal(walk(0, 0).kind, MV_NESTED_OK);
	assert_int_equal(counts().translations, 0);
	assert_int_equal(counts().structures, 0);
	assert_int_equal(counts().stage2_structures, 0);
}

/* What becomes present needs no invalidation, at any level. */
static void what_becomes_present_is_seen(void **state)
{
	nested_guest_map(&guest, 0, 0, 1, data(0) | GUEST_ENTRY);
	hits(0, READ);
	assert_int_equal(walk(0x1000, READ).kind, MV_NESTED_PAGE_FAULT);
	assert_int_equal(walk(0x200000, READ).kind, MV_NESTED_PAGE_FAULT);
	nested_guest_map(&guest, 0, 0x1000, 1, data(1) | GUEST_ENTRY);
	nested_guest_map(&guest, 0, 0x200000, 1, data(2) | GUEST_ENTRY);
	assert_int_equal(walk(0x1000, READ).hpa, data(1));
	assert_int_equal(walk(0x200000, READ).hpa, data(2));
}

/* INVLPG of any address has to do where an upper entry was changed: SDM vol. 3, 4.10.4.1. */
static void invlpg_of_another_page_drops_structures(void **state)
{
	uint64_t other, *upper;

	nested_guest_map(&guest, 0, 0, 1, data(0) | GUEST_ENTRY);
	hits(0, READ);
	other = nested_guest_table(&guest);
	*nested_guest_entry(&guest, other, 1, 0x1000) = data(5) | GUEST_ENTRY;
	upper = nested_guest_entry(
		&guest,
		nested_guest_next(&guest, nested_guest_next(&guest, guest.root[0], 4, 0), 3, 0), 2,
		0);
	*upper = other | GUEST_ENTRY;
	mv_nested_cache_flush_address(cache, 0x40000000, 1, true);
	assert_int_equal(walk(0x1000, READ).hpa, data(5));
}

/* Two spaces of one guest: views with tables of their own. */
static void spaces_do_not_mix(void **state)
{
	struct nested_guest view;
	struct mv_nested_walk made;

	nested_guest_map(&guest, 0, 0, 1, data(0) | GUEST_ENTRY);
	hits(0, READ);
	nested_guest_open(&view, MV_FORMAT_EPT_5L, 0, false);
	nested_guest_map(&view, 0, 0, 1, data(9) | GUEST_ENTRY);
	assert_int_equal(mv_nested_cached_walk(cache, &view.world.nested, 0, READ, &made), 0);
	assert_int_equal(made.hpa, data(9));
	assert_true(hits(0, READ));
	mv_nested_cache_flush_gpa(cache, &view.world.nested, 0, UINT64_MAX);
	assert_int_equal(counts().translations, 1);
	assert_true(hits(0, READ));
	nested_guest_close(&view);
}

/* More contexts than a cache can name, and more flushes than there are tags. */
static void names_that_run_out_forget_everything(void **state)
{
	nested_guest_map(&guest, 0, 0, 1, data(0) | GUEST_ENTRY);
	for (unsigned int pcid = 0; pcid < 200; pcid++) {
		guest.world.registers.cr3 = guest.root[0] | pcid;
		nested_world_prepare(&guest.world);
		assert_false(hits(0, READ));
		assert_true(hits(0, READ));
	}
	for (uint64_t i = test_rounds(600000); i; i--)
		mv_nested_cache_flush_address(cache, 0x1000, 7, false);
	assert_int_equal(walk(0, READ).hpa, data(0));
	assert_true(hits(0, READ));
}

static void a_full_set_makes_room(void **state)
{
	for (uint64_t i = 0; i < 32; i++) {
		/* 256 sets of 32 KiB each: these all fall into one. */
		uint64_t gva = i << 23;

		if (i < 8)
			nested_guest_map(&guest, 0, gva, 1, data((unsigned int)i) | GUEST_ENTRY);
		assert_int_equal(walk((i % 8) << 23, READ).hpa, data(i % 8));
	}
	assert_int_equal(counts().translations, 4);
	assert_true(counts().evicted > 0);
}

static void paging_off_is_not_cached(void **state)
{
	guest.world.registers.cr0 = 1;
	guest.world.registers.efer = 0x800;
	nested_world_prepare(&guest.world);
	assert_int_equal(walk(GUEST_DATA + 5, READ).hpa, GUEST_DATA + 5);
	assert_int_equal(counts().translations, 0);
}

static void tagged_addresses_find_the_same_page(void **state)
{
	struct mv_paging paging = guest.world.nested.paging;
	struct mv_paging_registers registers = paging.registers;

	nested_guest_map(&guest, 0, 0x5000, 1, data(3) | GUEST_ENTRY);
	registers.cr3 |= 1ull << 62; /* LAM_U48 */
	assert_int_equal(mv_paging_init(&paging, &registers, &guest.world.cpu), 0);
	mv_nested_set_paging(&guest.world.nested, &paging);
	assert_int_equal(walk(0x5000, READ).hpa, data(3));
	assert_true(hits(0x1234000000005000, READ));
}

static void a_failed_allocation_is_reported(void **state)
{
	struct mv_nested_cache_config config = { .size = sizeof(config),
						 .platform = &platform.platform,
						 .node = -1 };
	struct mv_nested_cache *made = NULL;

	platform.fail_at = platform.allocations + 1;
	assert_int_equal(mv_nested_cache_create(&config, &made), -ENOMEM);
	assert_null(made);
	config.pages_lg2 = 3;
	assert_int_equal(mv_nested_cache_create(&config, &made), -EINVAL);
	config.pages_lg2 = 21;
	assert_int_equal(mv_nested_cache_create(&config, &made), -EINVAL);
	config.size--;
	assert_int_equal(mv_nested_cache_create(&config, &made), -EINVAL);
	mv_nested_cache_destroy(NULL);
}

#define test_of(name) cmocka_unit_test_setup_teardown(name, open_guest, close_guest)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test_of(walks_are_cached_and_hit),
		test_of(invlpg_drops_one_page_of_its_pcid_and_globals),
		test_of(invpcid_by_address_spares_globals),
		test_of(a_pcid_goes_with_and_without_globals),
		test_of(all_pcids_without_globals_leave_globals),
		test_of(a_flush_of_all_leaves_nothing),
		test_of(invlpg_drops_a_fractured_page_whole),
		test_of(large_pages_are_cached_by_their_size),
		test_of(a_written_table_drops_what_was_found_through_it),
		test_of(a_change_of_stage_2_drops_its_range),
		test_of(the_log_drops_the_same),
		test_of(a_log_that_went_on_too_far_drops_everything),
		test_of(a_change_in_the_middle_of_an_entry_spares_its_neighbours),
		test_of(registers_decide_at_once),
		test_of(the_guests_pat_decides_at_once),
		test_of(a_write_to_a_clean_page_sets_dirty),
		test_of(a_debuggers_look_leaves_no_trace),
		test_of(what_becomes_present_is_seen),
		test_of(invlpg_of_another_page_drops_structures),
		test_of(spaces_do_not_mix),
		test_of(names_that_run_out_forget_everything),
		test_of(a_full_set_makes_room),
		test_of(paging_off_is_not_cached),
		test_of(tagged_addresses_find_the_same_page),
		test_of(a_failed_allocation_is_reported),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
