// SPDX-License-Identifier: BSD-2-Clause
/*
 * Packed rings: VIRTIO 1.2, section 2.8.
 *
 * One ring of descriptors, of which each tells by two bits, against a wrap counter that flips
 * with each round, whether it is offered or used. A chain lies in neighbouring descriptors; its
 * name stands in the last one.
 */
#include <errno.h>

#include "virtqueue_internal.h"

#define AVAIL ((uint16_t)(1u << VRING_PACKED_DESC_F_AVAIL))
#define USED  ((uint16_t)(1u << VRING_PACKED_DESC_F_USED))

static struct vring_packed_desc *ring_of(const struct mv_virtqueue *queue)
{
	return queue->desc;
}

static bool is_offered(uint16_t flags, bool wrap)
{
	return !!(flags & AVAIL) == wrap && !!(flags & USED) != wrap;
}

static bool packed_more(const struct mv_virtqueue *queue)
{
	return is_offered(mv_ring_load(&ring_of(queue)[queue->next_take].flags), queue->take_wrap);
}

/* A descriptor, read once: its flags first, which say that the rest is written. */
static uint16_t read_desc(const struct mv_virtqueue *queue, uint16_t at,
			  struct vring_packed_desc *desc)
{
	volatile struct vring_packed_desc *from = &ring_of(queue)[at];

	desc->flags = mv_ring_load((const void *)&from->flags);
	desc->addr = from->addr;
	desc->len = from->len;
	desc->id = from->id;
	return desc->flags;
}

/* VIRTIO 1.2, 2.8.7: a table without links; of the flags only WRITE counts there. */
static int take_indirect(struct mv_virtqueue *queue, const struct vring_packed_desc *table,
			 struct mv_virtqueue_chain *chain)
{
	unsigned int entries = table->len / sizeof(*table);

	if (!queue->indirect || (table->flags & VRING_DESC_F_NEXT) || !entries ||
	    entries > queue->segments_max || table->len % sizeof(*table))
		return mv_virtqueue_break(queue);
	for (unsigned int i = 0; i < entries; i++) {
		struct vring_packed_desc desc;

		if (mv_memory_read(queue->memory, table->addr + i * sizeof(desc), &desc,
				   sizeof(desc)) ||
		    !mv_virtqueue_add(queue, chain, desc.addr, desc.len,
				      desc.flags & VRING_DESC_F_WRITE))
			return mv_virtqueue_break(queue);
	}
	chain->id = table->id;
	return 1;
}

static void step(const struct mv_virtqueue *queue, uint16_t *at, bool *wrap, unsigned int slots)
{
	unsigned int next = *at + slots;

	if (next >= queue->entries) {
		next -= queue->entries;
		*wrap = !*wrap;
	}
	*at = (uint16_t)next;
}

/* Descriptors from the queue's place on, to the one without NEXT. */
static int take_chain(struct mv_virtqueue *queue, struct mv_virtqueue_chain *chain)
{
	uint16_t at = queue->next_take;
	bool wrap = queue->take_wrap;

	for (chain->slots = 1; chain->slots <= queue->entries; chain->slots++) {
		struct vring_packed_desc desc;
		uint16_t flags = read_desc(queue, at, &desc);

		/* Of a chain whose first is offered all are: 2.8.6. */
		if (!is_offered(flags, wrap))
			break;
		if (flags & VRING_DESC_F_INDIRECT)
			return chain->slots == 1 ? take_indirect(queue, &desc, chain)
						 : mv_virtqueue_break(queue);
		if (!mv_virtqueue_add(queue, chain, desc.addr, desc.len,
				      flags & VRING_DESC_F_WRITE))
			break;
		chain->id = desc.id;
		if (!(flags & VRING_DESC_F_NEXT))
			return 1;
		step(queue, &at, &wrap, 1);
	}
	return mv_virtqueue_break(queue);
}

static int packed_take(struct mv_virtqueue *queue, struct mv_virtqueue_chain *chain)
{
	int taken = take_chain(queue, chain);

	if (taken > 0)
		step(queue, &queue->next_take, &queue->take_wrap, chain->slots);
	return taken;
}

/* VIRTIO 1.2, 2.8.8: one used descriptor stands for the whole chain. */
static void packed_put(struct mv_virtqueue *queue, const struct mv_virtqueue_chain *chain,
		       uint32_t written)
{
	volatile struct vring_packed_desc *desc = &ring_of(queue)[queue->next_put];
	uint16_t flags = queue->put_wrap ? AVAIL | USED : 0;

	desc->id = chain->id;
	desc->len = written;
	if (written)
		flags |= VRING_DESC_F_WRITE;
	mv_ring_store((void *)&desc->flags, flags);
	step(queue, &queue->next_put, &queue->put_wrap, chain->slots);
	queue->put_since += chain->slots;
}

/*
 * VIRTIO 1.2, 2.8.10: the driver's mark is a place and a wrap counter. A mark of another round
 * lies that much lower, as counted from ours.
 */
static bool mark_passed(const struct mv_virtqueue *queue, uint16_t off_wrap)
{
	bool wrap = off_wrap >> VRING_PACKED_EVENT_F_WRAP_CTR;
	uint16_t mark = off_wrap & (uint16_t) ~(1u << VRING_PACKED_EVENT_F_WRAP_CTR);

	if (wrap != queue->put_wrap)
		mark -= (uint16_t)queue->entries;
	return vring_need_event(mark, queue->next_put,
				(uint16_t)(queue->next_put - queue->put_since));
}

static bool packed_wants(struct mv_virtqueue *queue)
{
	const struct vring_packed_desc_event *event = queue->driver;
	uint16_t flags = mv_ring_load(&event->flags) & 3;

	if (flags == VRING_PACKED_EVENT_FLAG_DESC && queue->event_index)
		return mark_passed(queue, mv_ring_load(&event->off_wrap));
	return flags != VRING_PACKED_EVENT_FLAG_DISABLE;
}

static void packed_kicks(struct mv_virtqueue *queue, bool want)
{
	struct vring_packed_desc_event *event = queue->device;

	if (want && queue->event_index) {
		mv_ring_store(&event->off_wrap,
			      (uint16_t)(queue->next_take |
					 queue->take_wrap << VRING_PACKED_EVENT_F_WRAP_CTR));
		mv_ring_store(&event->flags, VRING_PACKED_EVENT_FLAG_DESC);
		return;
	}
	mv_ring_store(&event->flags,
		      want ? VRING_PACKED_EVENT_FLAG_ENABLE : VRING_PACKED_EVENT_FLAG_DISABLE);
}

const struct mv_virtqueue_ops mv_virtqueue_packed = {
	.take = packed_take,
	.put = packed_put,
	.wants = packed_wants,
	.kicks = packed_kicks,
	.more = packed_more,
};
