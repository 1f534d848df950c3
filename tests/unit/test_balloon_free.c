// SPDX-License-Identifier: BSD-2-Clause
/*
 * The balloon device's other queues: what the guest says of itself, the free pages that it reports,
 * and those that it hints at.
 */
#include <linux/virtio_balloon.h>

#include "support/balloon_rig.h"
#include "support/testing.h"

/* --- statistics ---------------------------------------------------------------------------- */

static void put_stat(struct balloon_rig *rig, unsigned int at, uint16_t tag, uint64_t value)
{
	struct virtio_balloon_stat stat = { .tag = tag, .val = value };

	memcpy(rig->ram + RIG_BUFFERS + at * sizeof(stat), &stat, sizeof(stat));
}

static void statistics_arrive_with_every_tag(void **state)
{
	const uint32_t bytes = sizeof(struct virtio_balloon_stat);
	struct mv_balloon_guest_stats stats;
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, MV_BALLOON_STATS);
	balloon_rig_queue(&rig, 2);
	assert_int_equal(mv_balloon_get_guest_stats(rig.balloon, &stats), -ENODATA);
	assert_int_equal(mv_balloon_ask_stats(rig.balloon), -EAGAIN);
	for (unsigned int tag = 0; tag < 16; tag++)
		put_stat(&rig, tag, (uint16_t)tag, 1000 + tag);
	put_stat(&rig, 16, 0x7777, 1);
	balloon_rig_offer(&rig, 2, RIG_BUFFERS, 17 * bytes, false);
	assert_int_equal(balloon_rig_kick(&rig, 2), 0);
	assert_int_equal(balloon_rig_acks(&rig, 2), 0);
	assert_int_equal(mv_balloon_get_guest_stats(rig.balloon, &stats), 0);
	assert_int_equal(stats.known, 0xffff);
	assert_true(stats.at_ns);
	for (unsigned int tag = 0; tag < 16; tag++)
		assert_int_equal(stats.values[tag], 1000 + tag);

	assert_int_equal(mv_balloon_ask_stats(rig.balloon), 0);
	assert_int_equal(balloon_rig_acks(&rig, 2), 1);
	assert_int_equal(rig.interrupts[2], 1);
	assert_int_equal(mv_balloon_ask_stats(rig.balloon), -EAGAIN);
	/* The next time it says less: what it does not say is unknown, not the old number. */
	put_stat(&rig, 0, MV_BALLOON_STAT_FREE, 5);
	balloon_rig_offer(&rig, 2, RIG_BUFFERS, bytes, false);
	assert_int_equal(balloon_rig_kick(&rig, 2), 0);
	assert_int_equal(mv_balloon_get_guest_stats(rig.balloon, &stats), 0);
	assert_int_equal(stats.known, 1 << MV_BALLOON_STAT_FREE);
	/* A second buffer without being asked: the first comes back. */
	balloon_rig_offer(&rig, 2, RIG_BUFFERS, bytes, false);
	assert_int_equal(balloon_rig_kick(&rig, 2), 0);
	assert_int_equal(balloon_rig_acks(&rig, 2), 1);
	/* Held over a reset it would be a buffer of a queue that is no more. */
	mv_balloon_reset(rig.balloon);
	assert_int_equal(mv_balloon_accept(rig.balloon, MV_BALLOON_STATS | MV_BALLOON_VERSION_1),
			 0);
	balloon_rig_queue(&rig, 2);
	assert_int_equal(mv_balloon_ask_stats(rig.balloon), -EAGAIN);
	assert_int_equal(mv_balloon_get_guest_stats(rig.balloon, &stats), -ENODATA);
	assert_int_equal(balloon_rig_acks(&rig, 2), 0);
	balloon_rig_stop(&rig);
}

/* --- free pages ---------------------------------------------------------------------------- */

static void reported_pages_are_let_go_whole_and_in_memory_only(void **state)
{
	const uint64_t gpa = RIG_PAGES;
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, MV_BALLOON_REPORTING);
	balloon_rig_queue(&rig, 2); /* Linux leaves no gap: number 2 is that of reports */
	balloon_rig_tag(&rig);
	/* From within page 0 to within page 4: pages 1 to 3 go. */
	balloon_rig_offer(&rig, 2, gpa + 100, 4 * MV_PAGE_SIZE, true);
	/* The last byte lies outside; across two regions would be the same. */
	balloon_rig_offer(&rig, 2, RIG_RAM - MV_PAGE_SIZE, MV_PAGE_SIZE + 1, true);
	balloon_rig_offer(&rig, 2, UINT64_MAX - MV_PAGE_SIZE + 1, 2 * MV_PAGE_SIZE, true);
	balloon_rig_offer(&rig, 2, RIG_RAM, MV_PAGE_SIZE, true);
	/* A report is a range the device could write to. */
	balloon_rig_offer(&rig, 2, gpa + 16 * MV_PAGE_SIZE, MV_PAGE_SIZE, false);
	assert_int_equal(balloon_rig_kick(&rig, 2), 0);
	assert_int_equal(balloon_rig_acks(&rig, 2), 5);
	assert_true(balloon_rig_stats(&rig).reported == 3);
	assert_true(balloon_rig_stats(&rig).ignored == 4);
	for (uint64_t pfn = FIRST_PFN; pfn < PAST_PFN; pfn++)
		assert_int_equal(balloon_rig_has_tag(&rig, pfn),
				 pfn == FIRST_PFN || pfn > FIRST_PFN + 3);
	assert_true(balloon_rig_stats(&rig).given_bytes == 0);
	balloon_rig_stop(&rig);
}

static void poisoned_pages_are_not_let_go(void **state)
{
	uint32_t poison = 0xaaaaaaaa;
	struct balloon_rig rig;

	balloon_rig_start(&rig, true, MV_BALLOON_REPORTING | MV_BALLOON_PAGE_POISON);
	balloon_rig_queue(&rig, 4); /* and here by the standard's number */
	balloon_rig_tag(&rig);
	mv_balloon_write_config(rig.balloon, 12, &poison, sizeof(poison));
	balloon_rig_offer(&rig, 4, RIG_PAGES, MV_PAGE_SIZE, true);
	assert_int_equal(balloon_rig_kick(&rig, 4), 0);
	assert_int_equal(balloon_rig_acks(&rig, 4), 1);
	assert_true(balloon_rig_has_tag(&rig, FIRST_PFN));
	poison = 0;
	mv_balloon_write_config(rig.balloon, 12, &poison, sizeof(poison));
	balloon_rig_offer(&rig, 4, RIG_PAGES, MV_PAGE_SIZE, true);
	assert_int_equal(balloon_rig_kick(&rig, 4), 0);
	assert_false(balloon_rig_has_tag(&rig, FIRST_PFN));
	balloon_rig_stop(&rig);
}

static uint32_t hint_word(struct balloon_rig *rig)
{
	uint32_t word;

	mv_balloon_read_config(rig->balloon, 8, &word, sizeof(word));
	return word;
}

static void hint_command(struct balloon_rig *rig, unsigned int queue, uint32_t id)
{
	memcpy(rig->ram + RIG_BUFFERS, &id, sizeof(id));
	balloon_rig_offer(rig, queue, RIG_BUFFERS, sizeof(id), false);
	assert_int_equal(balloon_rig_kick(rig, queue), 0);
}

static void hint_pages(struct balloon_rig *rig, unsigned int queue, uint64_t pages)
{
	balloon_rig_offer(rig, queue, RIG_PAGES, (uint32_t)(pages << MV_PAGE_SHIFT), true);
	assert_int_equal(balloon_rig_kick(rig, queue), 0);
}

static void hints_count_in_their_own_run_only(void **state)
{
	const unsigned int queue = 3;
	struct balloon_rig rig;
	uint32_t first, second;

	balloon_rig_start(&rig, true, MV_BALLOON_STATS | MV_BALLOON_FREE_PAGE_HINT);
	balloon_rig_queue(&rig, 2);
	balloon_rig_queue(&rig, queue);
	balloon_rig_tag(&rig);
	assert_int_equal(hint_word(&rig), VIRTIO_BALLOON_CMD_ID_STOP);
	hint_pages(&rig, queue, 1);
	assert_int_equal(rig.hinted, 0);
	assert_int_equal(mv_balloon_hint_start(rig.balloon), 0);
	first = hint_word(&rig);
	assert_true(first > VIRTIO_BALLOON_CMD_ID_DONE);
	/* Before the guest has taken the run up. */
	hint_pages(&rig, queue, 1);
	assert_int_equal(rig.hinted, 0);
	hint_command(&rig, queue, first);
	hint_pages(&rig, queue, 5);
	assert_int_equal(rig.hinted, 5);
	mv_balloon_hint_stop(rig.balloon, true);
	assert_int_equal(hint_word(&rig), VIRTIO_BALLOON_CMD_ID_DONE);
	hint_pages(&rig, queue, 1);
	assert_int_equal(mv_balloon_hint_start(rig.balloon), 0);
	second = hint_word(&rig);
	assert_int_not_equal(second, first);
	/* The number of the run before. */
	hint_command(&rig, queue, first);
	hint_pages(&rig, queue, 1);
	assert_int_equal(rig.hinted, 5);
	hint_command(&rig, queue, second);
	hint_pages(&rig, queue, 2);
	hint_command(&rig, queue, VIRTIO_BALLOON_CMD_ID_STOP);
	hint_pages(&rig, queue, 1);
	assert_int_equal(rig.hinted, 7);
	/* A hint is no discard. */
	for (uint64_t pfn = FIRST_PFN; pfn < PAST_PFN; pfn++)
		assert_true(balloon_rig_has_tag(&rig, pfn));
	balloon_rig_stop(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(statistics_arrive_with_every_tag),
		cmocka_unit_test(reported_pages_are_let_go_whole_and_in_memory_only),
		cmocka_unit_test(poisoned_pages_are_not_let_go),
		cmocka_unit_test(hints_count_in_their_own_run_only),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
