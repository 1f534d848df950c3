// SPDX-License-Identifier: BSD-2-Clause
/*
 * The balloon device, against a driver that behaves and against guests that do not. Judged by
 * memory itself: what was let go reads as zeros and takes no host memory, everything else has its
 * bytes.
 */
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support/balloon_rig.h"
#include "support/testing.h"

static void write_actual(struct balloon_rig *rig, uint32_t pages)
{
	mv_balloon_write_config(rig->balloon, 4, &pages, sizeof(pages));
}

/* --- life and configuration ---------------------------------------------------------------- */

static void a_config_that_cannot_be_is_refused(void **state)
{
	struct balloon_rig rig;
	struct mv_balloon *balloon = NULL;

	balloon_rig_start(&rig, true, 0);
	struct mv_balloon_config config = { .size = sizeof(config), .memory = rig.memory };

	config.size--;
	assert_int_equal(mv_balloon_create(&config, &balloon), -EINVAL);
	config.size++;
	config.features = 1ULL << 40;
	assert_int_equal(mv_balloon_create(&config, &balloon), -EINVAL);
	config.features = 0;
	config.memory = NULL;
	assert_int_equal(mv_balloon_create(&config, &balloon), -EINVAL);
	assert_int_equal(mv_balloon_create(NULL, &balloon), -EINVAL);
	assert_null(balloon);
	mv_balloon_destroy(NULL);
	balloon_rig_stop(&rig);
}

static void features_are_what_was_offered(void **state)
{
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, MV_BALLOON_STATS);
	assert_true(mv_balloon_features(rig.balloon) == (MV_BALLOON_STATS | MV_BALLOON_VERSION_1));
	assert_int_equal(mv_balloon_accept(rig.balloon, MV_BALLOON_STATS), -EINVAL);
	assert_int_equal(mv_balloon_accept(rig.balloon,
					   MV_BALLOON_VERSION_1 | MV_BALLOON_REPORTING),
			 -EINVAL);
	assert_int_equal(mv_balloon_accept(rig.balloon, MV_BALLOON_VERSION_1), 0);
	assert_int_equal(mv_balloon_hint_start(rig.balloon), -EOPNOTSUPP);
	assert_int_equal(mv_balloon_ask_stats(rig.balloon), -EOPNOTSUPP);
	balloon_rig_stop(&rig);
}

static void the_target_is_cut_to_the_memory(void **state)
{
	struct balloon_rig rig;
	uint32_t words[4];

	balloon_rig_start(&rig, true, 0);
	mv_balloon_set_target(rig.balloon, 5 * MV_PAGE_SIZE + 17);
	mv_balloon_set_target(rig.balloon, 5 * MV_PAGE_SIZE);
	assert_int_equal(rig.config_changes, 1);
	mv_balloon_read_config(rig.balloon, 0, words, sizeof(words));
	assert_int_equal(words[0], 5);
	mv_balloon_set_target(rig.balloon, UINT64_MAX);
	mv_balloon_read_config(rig.balloon, 0, words, sizeof(words));
	assert_int_equal(words[0], (RIG_RAM + RIG_HIGH) >> MV_PAGE_SHIFT);
	balloon_rig_stop(&rig);
}

static void the_configuration_space_takes_any_access(void **state)
{
	unsigned char ones[64], got[64];
	struct balloon_rig rig;

	memset(ones, 0xff, sizeof(ones));
	balloon_rig_start(&rig, true, MV_BALLOON_PAGE_POISON);
	mv_balloon_set_target(rig.balloon, MV_PAGE_SIZE);
	for (uint64_t offset = 0; offset < 20; offset++) {
		for (size_t len = 0; len < 24; len++) {
			mv_balloon_write_config(rig.balloon, offset, ones, len);
			mv_balloon_read_config(rig.balloon, offset, got, len);
			for (size_t i = len; i-- > 0 && offset + i >= 16;)
				assert_int_equal(got[i], 0);
		}
	}
	mv_balloon_write_config(rig.balloon, UINT64_MAX, ones, 8);
	mv_balloon_read_config(rig.balloon, UINT64_MAX, got, 8);
	uint32_t words[4];

	mv_balloon_read_config(rig.balloon, 0, words, sizeof(words));
	/* `actual` of 0xffffffff is the guest's claim and nothing more. */
	assert_int_equal(words[0], 1);
	assert_int_equal(words[1], 0xffffffff);
	assert_int_equal(words[2], 0);
	assert_int_equal(words[3], 0xffffffff);
	assert_true(balloon_rig_stats(&rig).given_bytes == 0);
	balloon_rig_stop(&rig);
}

static void poison_is_not_written_unless_negotiated(void **state)
{
	struct balloon_rig rig;
	uint32_t words[4], poison = 0xaaaaaaaa;

	balloon_rig_start(&rig, true, 0);
	mv_balloon_write_config(rig.balloon, 12, &poison, 4);
	mv_balloon_read_config(rig.balloon, 0, words, sizeof(words));
	assert_int_equal(words[3], 0);
	balloon_rig_stop(&rig);
}

/* --- inflate and deflate ------------------------------------------------------------------- */

static void inflate_case(bool shared, uint64_t features)
{
	uint32_t pfns[300];
	struct balloon_rig rig;
	struct stat before, after;

	balloon_rig_start(&rig, shared, features);
	balloon_rig_tag(&rig);
	/* Backwards, every other page, and a run at the end. */
	for (unsigned int i = 0; i < 300; i++)
		pfns[i] = (uint32_t)(i < 200 ? FIRST_PFN + 1000 - 2 * i : FIRST_PFN + 1100 + i);
	rig.ram[RIG_BUFFERS] = 1; /* takes its page now */
	if (shared)
		assert_int_equal(fstat(rig.ram_fd, &before), 0);
	assert_int_equal(balloon_rig_name(&rig, 0, pfns, 300), 0);
	assert_int_equal(balloon_rig_acks(&rig, 0), 1);
	assert_int_equal(rig.interrupts[0], 1);
	assert_true(balloon_rig_stats(&rig).given_bytes == 300 * MV_PAGE_SIZE);
	write_actual(&rig, 300);
	assert_true(balloon_rig_stats(&rig).dropped == 300);
	if (shared) {
		assert_int_equal(fstat(rig.ram_fd, &after), 0);
		assert_int_equal(before.st_blocks - after.st_blocks, 300 * 8);
	}
	for (uint64_t pfn = FIRST_PFN; pfn < PAST_PFN; pfn++) {
		bool given = (pfn >= FIRST_PFN + 602 && pfn <= FIRST_PFN + 1000 && pfn % 2 == 0) ||
			     (pfn >= FIRST_PFN + 1300 && pfn < FIRST_PFN + 1400);

		assert_int_equal(balloon_rig_has_tag(&rig, pfn), !given);
	}
	assert_int_equal(balloon_rig_name(&rig, 1, pfns, 300), 0);
	assert_true(balloon_rig_stats(&rig).given_bytes == 0);
	assert_int_equal(rig.returned, 300);
	assert_int_equal(balloon_rig_acks(&rig, 1), 1);
	balloon_rig_stop(&rig);
}

static void what_is_given_is_let_go_and_nothing_else(void **state)
{
	for (unsigned int i = 0; i < 8; i++)
		inflate_case(i & 1, (i & 2 ? MV_BALLOON_MUST_TELL_HOST : 0) |
					    (i & 4 ? MV_BALLOON_RING_PACKED : 0));
}

static void without_must_tell_host_nothing_goes_after_the_answer(void **state)
{
	uint32_t pfn = FIRST_PFN + 7;
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, 0);
	balloon_rig_tag(&rig);
	balloon_rig_name(&rig, 0, &pfn, 1);
	assert_true(balloon_rig_stats(&rig).collected_bytes == 0);
	/* The guest takes it back, uses it, and tells later. */
	*balloon_rig_page(&rig, pfn) = ~(uint64_t)pfn;
	mv_balloon_settle(rig.balloon);
	write_actual(&rig, 1);
	assert_true(balloon_rig_has_tag(&rig, pfn));
	balloon_rig_stop(&rig);
}

static void a_page_taken_back_before_it_went_keeps_its_content(void **state)
{
	uint32_t pfn = FIRST_PFN + 7;
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, MV_BALLOON_MUST_TELL_HOST);
	balloon_rig_tag(&rig);
	balloon_rig_name(&rig, 0, &pfn, 1);
	assert_true(balloon_rig_stats(&rig).collected_bytes == MV_PAGE_SIZE);
	balloon_rig_name(&rig, 1, &pfn, 1);
	mv_balloon_settle(rig.balloon);
	assert_true(balloon_rig_has_tag(&rig, pfn));
	assert_true(balloon_rig_stats(&rig).dropped == 0);
	balloon_rig_stop(&rig);
}

static void a_pinned_page_keeps_its_content(void **state)
{
	uint32_t pfns[3] = { FIRST_PFN, FIRST_PFN + 1, FIRST_PFN + 2 };
	uint64_t gpa = (FIRST_PFN + 1) << MV_PAGE_SHIFT;
	struct balloon_rig rig;

	balloon_rig_start(&rig, false, 0);
	balloon_rig_tag(&rig);
	assert_int_equal(mv_memory_pin(rig.memory, gpa, gpa), 0);
	balloon_rig_name(&rig, 0, pfns, 3);
	assert_false(balloon_rig_has_tag(&rig, FIRST_PFN));
	assert_true(balloon_rig_has_tag(&rig, FIRST_PFN + 1));
	assert_false(balloon_rig_has_tag(&rig, FIRST_PFN + 2));
	assert_true(balloon_rig_stats(&rig).refused == 1);
	mv_memory_unpin(rig.memory, gpa, gpa);
	balloon_rig_stop(&rig);
}

/* Host pages of 2 MiB go whole, when the last of their 512 pages is given, and not before. */
static void a_part_of_a_huge_page_is_kept(void **state)
{
	const uint64_t huge = 2UL << 20, gpa = 4UL << 30;
	int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB);
	struct mv_region_config region = {
		.size = sizeof(region), .first_gpa = gpa, .last_gpa = gpa + huge - 1, .fd = fd
	};
	struct balloon_rig rig;
	struct stat stat;

	if (fd < 0 || ftruncate(fd, (off_t)huge) ||
	    (region.hva = mmap(NULL, huge, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)) ==
		    MAP_FAILED) {
		print_message("# skip-reason: no huge page is reserved (vm.nr_hugepages)\n");
		skip();
	}
	balloon_rig_start(&rig, true, MV_BALLOON_MUST_TELL_HOST);
	assert_int_equal(mv_memory_add_region(rig.memory, &region), 0);
	memset(region.hva, 0x5a, huge);
	for (uint32_t i = 0; i < 512; i++) {
		uint32_t pfn = (uint32_t)(gpa >> MV_PAGE_SHIFT) + (i * 77) % 512;

		assert_int_equal(fstat(fd, &stat), 0);
		assert_int_equal(stat.st_blocks, huge / 512);
		assert_int_equal(*((unsigned char *)region.hva + i * 4096), 0x5a);
		balloon_rig_name(&rig, 0, &pfn, 1);
		balloon_rig_acks(&rig, 0);
		mv_balloon_settle(rig.balloon);
	}
	assert_int_equal(fstat(fd, &stat), 0);
	assert_int_equal(stat.st_blocks, 0);
	assert_true(balloon_rig_stats(&rig).dropped == 512);
	assert_int_equal(mv_memory_remove_region(rig.memory, gpa), 0);
	munmap(region.hva, huge);
	close(fd);
	balloon_rig_stop(&rig);
}

/* --- hostile guests ------------------------------------------------------------------------ */

static void numbers_of_no_page_are_ignored(void **state)
{
	static const uint32_t pfns[] = {
		0xffffffff, 0x80000000, 0xfee00,    0x40000 + (RIG_HIGH >> 12),
		0x3ffff,    PAST_PFN,	0x7fffffff, 0xfffff,
	};
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, 0);
	balloon_rig_tag(&rig);
	assert_int_equal(balloon_rig_name(&rig, 0, pfns, COUNT_OF(pfns)), 0);
	assert_int_equal(balloon_rig_name(&rig, 1, pfns, COUNT_OF(pfns)), 0);
	struct mv_balloon_stats stats = balloon_rig_stats(&rig);

	assert_true(stats.ignored == 2 * COUNT_OF(pfns));
	assert_true(stats.given_bytes == 0 && stats.dropped == 0);
	assert_int_equal(rig.returned, 0);
	for (uint64_t pfn = FIRST_PFN; pfn < PAST_PFN; pfn++)
		assert_true(balloon_rig_has_tag(&rig, pfn));
	balloon_rig_stop(&rig);
}

static void a_page_given_twice_counts_once(void **state)
{
	uint32_t pfns[3] = { FIRST_PFN, FIRST_PFN, FIRST_PFN };
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, MV_BALLOON_MUST_TELL_HOST);
	balloon_rig_name(&rig, 0, pfns, 3);
	assert_true(balloon_rig_stats(&rig).given_bytes == MV_PAGE_SIZE);
	balloon_rig_name(&rig, 1, pfns, 3);
	assert_true(balloon_rig_stats(&rig).given_bytes == 0);
	assert_int_equal(rig.returned, 1);
	balloon_rig_stop(&rig);
}

static void buffers_that_make_no_sense_are_answered(void **state)
{
	static const struct mv_virtqueue_segment segments[] = {
		{ RIG_BUFFERS, 0, false },	   { RIG_BUFFERS, 3, false },
		{ RIG_BUFFERS, 4096, true },	   { RIG_RAM, 4, false },
		{ RIG_RAM - 2, 4, false },	   { UINT64_MAX - 1, 4, false },
		{ UINT64_MAX, 0xffffffff, false }, { 0x8000000000000000, 8, true },
	};

	for (unsigned int queue = 0; queue < MV_BALLOON_QUEUES; queue++) {
		for (unsigned int i = 0; i < COUNT_OF(segments); i++) {
			struct balloon_rig rig;

			balloon_rig_start(&rig, true,
					  MV_BALLOON_FEATURES &
						  ~(MV_BALLOON_RING_PACKED | MV_BALLOON_EVENT_IDX));
			for (unsigned int more = 2; more < MV_BALLOON_QUEUES; more++)
				balloon_rig_queue(&rig, more);
			balloon_rig_tag(&rig);
			driver_offer(&rig.queues[queue], &segments[i], 1, false);
			assert_int_equal(balloon_rig_kick(&rig, queue), 0);
			/* The statistics buffer is kept, by the standard. */
			assert_int_equal(balloon_rig_acks(&rig, queue), queue != 2);
			assert_true(balloon_rig_stats(&rig).dropped == 0);
			for (uint64_t pfn = FIRST_PFN; pfn < PAST_PFN; pfn += 61)
				assert_true(balloon_rig_has_tag(&rig, pfn));
			balloon_rig_stop(&rig);
		}
	}
}

/* 256 M page numbers in one descriptor: each call does a little, and all calls end. */
static void a_huge_descriptor_is_worked_on_in_parts(void **state)
{
	struct balloon_rig rig;
	unsigned int calls = 0;
	int result;

	balloon_rig_start(&rig, true, 0);
	/* As much as lies in memory: 12 MiB of zeros, 3 M times page 0. */
	balloon_rig_offer(&rig, 0, RIG_PAGES, RIG_RAM - RIG_PAGES, false);
	do {
		result = mv_balloon_kick(rig.balloon, 0);
		calls++;
		assert_int_equal(balloon_rig_acks(&rig, 0), result == 0);
	} while (result == 1);
	assert_int_equal(result, 0);
	assert_in_range(calls, 90, 110);
	/* And 1 GiB, of which the first part is there. */
	balloon_rig_offer(&rig, 0, RIG_PAGES, 1U << 30, false);
	assert_int_equal(balloon_rig_kick(&rig, 0), 0);
	assert_int_equal(balloon_rig_acks(&rig, 0), 1);
	balloon_rig_stop(&rig);
}

static void a_broken_queue_leaves_the_others_at_work(void **state)
{
	uint32_t pfn = FIRST_PFN;
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, 0);
	driver_avail(&rig.queues[1])->idx = 1000;
	assert_int_equal(mv_balloon_kick(rig.balloon, 1), -EPROTO);
	assert_int_equal(mv_balloon_kick(rig.balloon, 1), -EPROTO);
	assert_true(balloon_rig_stats(&rig).broken == 1);
	assert_int_equal(balloon_rig_name(&rig, 0, &pfn, 1), 0);
	mv_balloon_reset(rig.balloon);
	assert_int_equal(mv_balloon_accept(rig.balloon, MV_BALLOON_VERSION_1), 0);
	balloon_rig_queue(&rig, 1);
	assert_int_equal(balloon_rig_name(&rig, 1, &pfn, 1), 0);
	balloon_rig_stop(&rig);
}

static void queues_that_are_not_there_are_refused(void **state)
{
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, 0);
	assert_int_equal(mv_balloon_kick(rig.balloon, 2), -EINVAL);
	assert_int_equal(mv_balloon_kick(rig.balloon, 5), -EINVAL);
	assert_int_equal(mv_balloon_kick(rig.balloon, UINT32_MAX), -EINVAL);
	assert_int_equal(mv_balloon_set_queue(rig.balloon, 5, 16, 0, 0, 0), -EINVAL);
	assert_int_equal(mv_balloon_set_queue(rig.balloon, 0, 16, 0, 0x1000, 0x2000), -EBUSY);
	/* A queue whose feature was not negotiated. */
	balloon_rig_queue(&rig, 3);
	assert_int_equal(mv_balloon_kick(rig.balloon, 3), -EINVAL);
	balloon_rig_stop(&rig);
}

static void a_reset_gives_everything_back(void **state)
{
	uint32_t pfns[2] = { FIRST_PFN, FIRST_PFN + 9 };
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, MV_BALLOON_MUST_TELL_HOST);
	balloon_rig_tag(&rig);
	balloon_rig_name(&rig, 0, pfns, 2);
	mv_balloon_reset(rig.balloon);
	assert_int_equal(rig.returned, 2);
	mv_balloon_settle(rig.balloon);
	/* Had not gone, and does not go any more. */
	assert_true(balloon_rig_has_tag(&rig, pfns[0]) && balloon_rig_has_tag(&rig, pfns[1]));
	assert_true(balloon_rig_stats(&rig).given_bytes == 0);
	assert_int_equal(mv_balloon_kick(rig.balloon, 0), -EINVAL);
	balloon_rig_stop(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_config_that_cannot_be_is_refused),
		cmocka_unit_test(features_are_what_was_offered),
		cmocka_unit_test(the_target_is_cut_to_the_memory),
		cmocka_unit_test(the_configuration_space_takes_any_access),
		cmocka_unit_test(poison_is_not_written_unless_negotiated),
		cmocka_unit_test(what_is_given_is_let_go_and_nothing_else),
		cmocka_unit_test(without_must_tell_host_nothing_goes_after_the_answer),
		cmocka_unit_test(a_page_taken_back_before_it_went_keeps_its_content),
		cmocka_unit_test(a_pinned_page_keeps_its_content),
		cmocka_unit_test(a_part_of_a_huge_page_is_kept),
		cmocka_unit_test(numbers_of_no_page_are_ignored),
		cmocka_unit_test(a_page_given_twice_counts_once),
		cmocka_unit_test(buffers_that_make_no_sense_are_answered),
		cmocka_unit_test(a_huge_descriptor_is_worked_on_in_parts),
		cmocka_unit_test(a_broken_queue_leaves_the_others_at_work),
		cmocka_unit_test(queues_that_are_not_there_are_refused),
		cmocka_unit_test(a_reset_gives_everything_back),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
