// SPDX-License-Identifier: BSD-2-Clause
/*
 * Virtqueues: both kinds of ring carry chains there and back, in any order, over many rounds; and
 * whatever rule a driver breaks, the queue is broken and nothing else is.
 */
#include <sys/mman.h>

#include "support/testing.h"
#include "support/virtio_driver.h"

#define RAM   (1UL << 20)
#define RINGS 0x10000UL

struct lab {
	unsigned char *ram;
	struct mv_memory *memory;
	struct virtio_driver driver;
	struct mv_virtqueue *queue;
};

static void lab_start(struct lab *lab, unsigned int entries, bool packed, bool event_index)
{
	const struct mv_memory_config memory = { .size = sizeof(memory) };
	struct mv_region_config region = { .size = sizeof(region), .last_gpa = RAM - 1, .fd = -1 };

	lab->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	assert_ptr_not_equal(lab->ram, MAP_FAILED);
	region.hva = lab->ram;
	assert_int_equal(mv_memory_create(&memory, &lab->memory), 0);
	assert_int_equal(mv_memory_add_region(lab->memory, &region), 0);
	driver_start(&lab->driver, lab->ram, RINGS, entries, packed, event_index);
	struct mv_virtqueue_config config = driver_config(&lab->driver, lab->memory);

	assert_int_equal(mv_virtqueue_create(&config, &lab->queue), 0);
}

static void lab_stop(struct lab *lab)
{
	mv_virtqueue_destroy(lab->queue);
	/* The queue has let go of its region. */
	assert_int_equal(mv_memory_remove_region(lab->memory, 0), 0);
	mv_memory_destroy(lab->memory);
	munmap(lab->ram, RAM);
}

/* --- what is offered arrives, what is put comes back --------------------------------------- */

struct offered {
	uint16_t id;
	unsigned int count;
	struct mv_virtqueue_segment segments[7]; /* four such chains fit the smallest ring */
	struct mv_virtqueue_chain chain;
};

static void offer_by_chance(struct lab *lab, struct chance *chance, struct offered *offered)
{
	bool indirect = chance_one_in(chance, 2);

	offered->count = 1 + (unsigned int)chance_below(chance, COUNT_OF(offered->segments));
	for (unsigned int i = 0; i < offered->count; i++)
		offered->segments[i] = (struct mv_virtqueue_segment){ chance_next(chance),
								      (uint32_t)chance_next(chance),
								      chance_one_in(chance, 2) };
	offered->id = driver_offer(&lab->driver, offered->segments, offered->count, indirect);
	/* Taken at once, for there is only one table for indirect chains. */
	assert_int_equal(mv_virtqueue_take(lab->queue, &offered->chain), 1);
	assert_int_equal(offered->chain.id, offered->id);
	assert_int_equal(offered->chain.count, offered->count);
	for (unsigned int i = 0; i < offered->count; i++) {
		const struct mv_virtqueue_segment *got = &offered->chain.segments[i];

		assert_true(got->gpa == offered->segments[i].gpa);
		assert_int_equal(got->len, offered->segments[i].len);
		assert_int_equal(got->writable, offered->segments[i].writable);
	}
}

static void carry(struct lab *lab, struct chance *chance, uint64_t rounds)
{
	struct mv_virtqueue_chain none;

	for (uint64_t round = 0; round < rounds; round++) {
		struct offered offered[4];
		unsigned int count = 1 + (unsigned int)chance_below(chance, COUNT_OF(offered));
		uint16_t id;
		uint32_t written;

		for (unsigned int i = 0; i < count; i++)
			offer_by_chance(lab, chance, &offered[i]);
		assert_int_equal(mv_virtqueue_take(lab->queue, &none), 0);
		for (unsigned int i = 0; i < count; i++) {
			mv_virtqueue_put(lab->queue, &offered[i].chain, 7 * i);
			assert_true(driver_used(&lab->driver, &id, &written));
			assert_int_equal(id, offered[i].id);
			assert_int_equal(written, 7 * i);
		}
		assert_false(driver_used(&lab->driver, &id, &written));
	}
	assert_false(mv_virtqueue_broken(lab->queue));
}

static void chains_go_there_and_back(void **state)
{
	static const unsigned int sizes[] = { 32, 64, 256 };
	uint64_t seed = test_seed();

	for (unsigned int i = 0; i < 2 * COUNT_OF(sizes); i++) {
		struct chance chance = chance_of(seed, i);
		struct lab lab;

		/* A packed ring may have any size. */
		lab_start(&lab, sizes[i / 2] - (i % 2 ? 3 : 0), i % 2, false);
		/* Past 2^16 chains, where a split ring's counts begin again. */
		carry(&lab, &chance, 40000);
		lab_stop(&lab);
	}
}

static void nothing_waits_in_a_new_queue(void **state)
{
	for (int packed = 0; packed < 2; packed++) {
		struct mv_virtqueue_chain chain;
		struct lab lab;

		lab_start(&lab, 16, packed, false);
		assert_int_equal(mv_virtqueue_take(lab.queue, &chain), 0);
		assert_false(mv_virtqueue_wants_interrupt(lab.queue));
		assert_false(mv_virtqueue_want_kicks(lab.queue, true));
		lab_stop(&lab);
	}
}

/* --- notifications ------------------------------------------------------------------------- */

static void exchange(struct lab *lab)
{
	const struct mv_virtqueue_segment segment = { 0x1000, 4, false };
	struct mv_virtqueue_chain chain;
	uint16_t id;
	uint32_t written;

	driver_offer(&lab->driver, &segment, 1, false);
	assert_int_equal(mv_virtqueue_take(lab->queue, &chain), 1);
	mv_virtqueue_put(lab->queue, &chain, 0);
	assert_true(driver_used(&lab->driver, &id, &written));
}

static void interrupts_are_suppressed_by_flag(void **state)
{
	struct lab lab;

	lab_start(&lab, 16, false, false);
	exchange(&lab);
	assert_true(mv_virtqueue_wants_interrupt(lab.queue));
	assert_false(mv_virtqueue_wants_interrupt(lab.queue));
	driver_avail(&lab.driver)->flags = VRING_AVAIL_F_NO_INTERRUPT;
	exchange(&lab);
	assert_false(mv_virtqueue_wants_interrupt(lab.queue));
	lab_stop(&lab);

	lab_start(&lab, 16, true, false);
	exchange(&lab);
	assert_true(mv_virtqueue_wants_interrupt(lab.queue));
	driver_event(&lab.driver)->flags = VRING_PACKED_EVENT_FLAG_DISABLE;
	exchange(&lab);
	assert_false(mv_virtqueue_wants_interrupt(lab.queue));
	lab_stop(&lab);
}

/* The mark is passed once a round, whatever the place and however often the ring has gone round. */
static void interrupts_come_where_the_driver_marks(void **state)
{
	for (int packed = 0; packed < 2; packed++) {
		struct lab lab;

		lab_start(&lab, 16, packed, true);
		for (unsigned int round = 0; round < 1000; round++) {
			struct virtio_driver *driver = &lab.driver;

			/* "Tell me when the third from now has been used." */
			unsigned int mark = driver->next_used + 2u;

			if (packed) {
				bool wrap = driver->used_wrap ^ (mark >= 16);

				driver_event(driver)->off_wrap = (uint16_t)(mark % 16 | wrap << 15);
				driver_event(driver)->flags = VRING_PACKED_EVENT_FLAG_DESC;
			} else {
				driver_avail(driver)->ring[16] = (uint16_t)mark;
			}
			for (unsigned int i = 0; i < 5; i++) {
				exchange(&lab);
				assert_int_equal(mv_virtqueue_wants_interrupt(lab.queue), i == 2);
			}
		}
		lab_stop(&lab);
	}
}

/* --- drivers that break the rules ---------------------------------------------------------- */

typedef void (*spoil)(struct virtio_driver *driver);

static void refused(bool packed, spoil spoil)
{
	static const struct mv_virtqueue_segment segments[3] = { { 0x1000, 16, false },
								 { 0x2000, 16, false },
								 { 0x3000, 16, true } };
	struct mv_virtqueue_chain chain = { .id = 4711 };
	struct lab lab;

	lab_start(&lab, 16, packed, false);
	driver_offer(&lab.driver, segments, 3, false);
	spoil(&lab.driver);
	assert_int_equal(mv_virtqueue_take(lab.queue, &chain), -EPROTO);
	assert_int_equal(chain.id, 4711);
	assert_true(mv_virtqueue_broken(lab.queue));
	assert_int_equal(mv_virtqueue_take(lab.queue, &chain), -EPROTO);
	assert_false(mv_virtqueue_wants_interrupt(lab.queue));
	lab_stop(&lab);
}

static void head_out_of_table(struct virtio_driver *driver)
{
	driver_avail(driver)->ring[0] = 16;
}

static void index_too_far(struct virtio_driver *driver)
{
	driver_avail(driver)->idx = 17;
}

static void index_backwards(struct virtio_driver *driver)
{
	driver_avail(driver)->idx = 0xffff;
}

static void next_out_of_table(struct virtio_driver *driver)
{
	driver_descs(driver)[1].next = 16;
}

static void next_far_out_of_table(struct virtio_driver *driver)
{
	driver_descs(driver)[1].next = 0xffff;
}

static void link_to_itself(struct virtio_driver *driver)
{
	driver_descs(driver)[1].next = 1;
}

static void loop(struct virtio_driver *driver)
{
	driver_descs(driver)[2].flags |= VRING_DESC_F_NEXT;
	driver_descs(driver)[2].next = 0;
}

static void make_indirect(struct virtio_driver *driver, uint64_t addr, uint32_t len, uint16_t flags)
{
	if (driver->packed) {
		driver_ring(driver)[0].addr = addr;
		driver_ring(driver)[0].len = len;
		driver_ring(driver)[0].flags &= (uint16_t)~VRING_DESC_F_NEXT;
		driver_ring(driver)[0].flags |= flags | VRING_DESC_F_INDIRECT;
	} else {
		driver_descs(driver)[0] =
			(struct vring_desc){ addr, len, flags | VRING_DESC_F_INDIRECT, 0 };
	}
}

static void indirect_empty(struct virtio_driver *driver)
{
	make_indirect(driver, driver->table, 0, 0);
}

static void indirect_not_whole(struct virtio_driver *driver)
{
	make_indirect(driver, driver->table, 17, 0);
}

static void indirect_outside_memory(struct virtio_driver *driver)
{
	make_indirect(driver, RAM, 16, 0);
}

static void indirect_half_outside(struct virtio_driver *driver)
{
	memset(driver->ram + RAM - 16, 0, 16);
	driver->ram[RAM - 16 + 12] = VRING_DESC_F_NEXT;
	driver->ram[RAM - 16 + 14] = 1;
	make_indirect(driver, RAM - 16, 32, 0);
}

static void indirect_at_the_top(struct virtio_driver *driver)
{
	make_indirect(driver, UINT64_MAX - 7, 32, 0);
}

static void indirect_with_next(struct virtio_driver *driver)
{
	make_indirect(driver, driver->table, 16, VRING_DESC_F_NEXT);
}

static void indirect_huge(struct virtio_driver *driver)
{
	/* Linked to itself for ever, in a table that is long enough. */
	struct vring_desc *table = (void *)(driver->ram + driver->table);

	table[0] = (struct vring_desc){ 0x1000, 4, VRING_DESC_F_NEXT, 0 };
	make_indirect(driver, driver->table, 0xfffffff0, 0);
}

static void indirect_in_indirect(struct virtio_driver *driver)
{
	struct vring_desc *table = (void *)(driver->ram + driver->table);

	table[0] = (struct vring_desc){ driver->table, 16, VRING_DESC_F_INDIRECT, 0 };
	make_indirect(driver, driver->table, 16, 0);
}

static void indirect_next_out_of_table(struct virtio_driver *driver)
{
	struct vring_desc *table = (void *)(driver->ram + driver->table);

	table[0] = (struct vring_desc){ 0x1000, 4, VRING_DESC_F_NEXT, 1 };
	make_indirect(driver, driver->table, 16, 0);
}

static void packed_second_not_offered(struct virtio_driver *driver)
{
	driver_ring(driver)[1].flags = VRING_DESC_F_NEXT;
}

static void packed_indirect_within_chain(struct virtio_driver *driver)
{
	driver_ring(driver)[1].flags |= VRING_DESC_F_INDIRECT;
}

static void packed_without_end(struct virtio_driver *driver)
{
	for (unsigned int i = 0; i < driver->entries; i++)
		driver_ring(driver)[i].flags =
			(1u << VRING_PACKED_DESC_F_AVAIL) | VRING_DESC_F_NEXT;
}

static void broken_rules_break_a_split_queue(void **state)
{
	static const spoil spoils[] = {
		head_out_of_table,
		index_too_far,
		index_backwards,
		next_out_of_table,
		next_far_out_of_table,
		link_to_itself,
		loop,
		indirect_empty,
		indirect_not_whole,
		indirect_outside_memory,
		indirect_half_outside,
		indirect_at_the_top,
		indirect_with_next,
		indirect_huge,
		indirect_in_indirect,
		indirect_next_out_of_table,
	};

	for (unsigned int i = 0; i < COUNT_OF(spoils); i++)
		refused(false, spoils[i]);
}

static void broken_rules_break_a_packed_queue(void **state)
{
	static const spoil spoils[] = {
		packed_second_not_offered,
		packed_indirect_within_chain,
		packed_without_end,
		indirect_empty,
		indirect_not_whole,
		indirect_outside_memory,
		indirect_at_the_top,
		indirect_with_next,
		indirect_huge,
	};

	for (unsigned int i = 0; i < COUNT_OF(spoils); i++)
		refused(true, spoils[i]);
}

/* CVE-2016-5403's kind: the same buffers again and again, while none comes back. */
static void no_more_in_flight_than_the_ring_holds(void **state)
{
	for (int packed = 0; packed < 2; packed++) {
		const struct mv_virtqueue_segment segment = { 0x1000, 4, false };
		struct mv_virtqueue_chain chain;
		unsigned int taken = 0;
		int result;
		struct lab lab;

		lab_start(&lab, 16, packed, false);
		do {
			driver_offer(&lab.driver, &segment, 1, false);
			result = mv_virtqueue_take(lab.queue, &chain);
		} while (result == 1 && ++taken < 100);
		assert_int_equal(taken, 16);
		assert_int_equal(result, -EPROTO);
		lab_stop(&lab);
	}
}

static void a_config_that_cannot_be_is_refused(void **state)
{
	struct mv_virtqueue_config good, bad;
	struct mv_virtqueue *queue = NULL;
	struct lab lab;

	lab_start(&lab, 16, false, false);
	good = driver_config(&lab.driver, lab.memory);
#define REFUSED(field, value, error)                                                               \
	do {                                                                                       \
		bad = good;                                                                        \
		bad.field = (value);                                                               \
		assert_int_equal(mv_virtqueue_create(&bad, &queue), error);                        \
		assert_null(queue);                                                                \
	} while (0)
	REFUSED(size, 1, -EINVAL);
	REFUSED(memory, NULL, -EINVAL);
	REFUSED(entries, 0, -EINVAL);
	REFUSED(entries, 24, -EINVAL);
	REFUSED(entries, 65536, -EINVAL);
	REFUSED(desc_gpa, 8, -EINVAL);
	REFUSED(driver_gpa, 1, -EINVAL);
	REFUSED(device_gpa, 2, -EINVAL);
	REFUSED(desc_gpa, RAM, -EFAULT);
	REFUSED(desc_gpa, RAM - 16 * 15, -EFAULT);
	REFUSED(device_gpa, RAM - 4, -EFAULT);
	REFUSED(driver_gpa, UINT64_MAX - 1, -EFAULT);
#undef REFUSED
	lab_stop(&lab);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(chains_go_there_and_back),
		cmocka_unit_test(nothing_waits_in_a_new_queue),
		cmocka_unit_test(interrupts_are_suppressed_by_flag),
		cmocka_unit_test(interrupts_come_where_the_driver_marks),
		cmocka_unit_test(broken_rules_break_a_split_queue),
		cmocka_unit_test(broken_rules_break_a_packed_queue),
		cmocka_unit_test(no_more_in_flight_than_the_ring_holds),
		cmocka_unit_test(a_config_that_cannot_be_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
