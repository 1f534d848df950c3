// SPDX-License-Identifier: BSD-2-Clause
/*
 * Split rings: VIRTIO 1.2, section 2.7.
 *
 * The driver's index runs free, modulo 2^16; how far it is ahead of ours says how many chains
 * wait. Slots of the ring and descriptors are apart here, so a chain in flight counts as one slot
 * of the ring.
 */
#include <errno.h>

#include "virtqueue_internal.h"

static struct vring_avail *avail_of(const struct mv_virtqueue *queue)
{
	return queue->driver;
}

static struct vring_used *used_of(const struct mv_virtqueue *queue)
{
	return queue->device;
}

/* The two fields behind the rings, by which each side says when it wants to be told. */
static void *used_event(const struct mv_virtqueue *queue)
{
	return &avail_of(queue)->ring[queue->entries];
}

static void *avail_event(const struct mv_virtqueue *queue)
{
	return &used_of(queue)->ring[queue->entries];
}

static bool split_more(const struct mv_virtqueue *queue)
{
	return mv_ring_load(&avail_of(queue)->idx) != queue->next_take;
}

/* A descriptor of the table, read once. */
static void read_desc(const struct mv_virtqueue *queue, uint16_t at, struct vring_desc *desc)
{
	const volatile struct vring_desc *table = queue->desc;

	desc->addr = table[at].addr;
	desc->len = table[at].len;
	desc->flags = table[at].flags;
	desc->next = table[at].next;
}

/* VIRTIO 1.2, 2.7.5.3: a table of descriptors, linked from its first on, none indirect again. */
static int take_indirect(struct mv_virtqueue *queue, const struct vring_desc *table,
			 struct mv_virtqueue_chain *chain)
{
	unsigned int entries = table->len / sizeof(*table);
	unsigned int at = 0;

	if (!queue->indirect || (table->flags & VRING_DESC_F_NEXT) || !entries ||
	    table->len % sizeof(*table))
		return mv_virtqueue_break(queue);
	for (;;) {
		struct vring_desc desc;

		/* A chain that links back grows until it is too long. */
		if (at >= entries || mv_memory_read(queue->memory, table->addr + at * sizeof(desc),
						    &desc, sizeof(desc)))
			return mv_virtqueue_break(queue);
		if ((desc.flags & VRING_DESC_F_INDIRECT) ||
		    !mv_virtqueue_add(queue, chain, desc.addr, desc.len,
				      desc.flags & VRING_DESC_F_WRITE))
			return mv_virtqueue_break(queue);
		if (!(desc.flags & VRING_DESC_F_NEXT))
			return 1;
		at = desc.next;
	}
}

static int take_chain(struct mv_virtqueue *queue, uint16_t head, struct mv_virtqueue_chain *chain)
{
	uint16_t at = head;

	for (unsigned int links = 0; links < queue->entries; links++) {
		struct vring_desc desc;

		if (at >= queue->entries)
			break;
		read_desc(queue, at, &desc);
		if (desc.flags & VRING_DESC_F_INDIRECT)
			return take_indirect(queue, &desc, chain);
		if (!mv_virtqueue_add(queue, chain, desc.addr, desc.len,
				      desc.flags & VRING_DESC_F_WRITE))
			break;
		if (!(desc.flags & VRING_DESC_F_NEXT))
			return 1;
		at = desc.next;
	}
	/* A loop, or a link out of the table. */
	return mv_virtqueue_break(queue);
}

static int split_take(struct mv_virtqueue *queue, struct mv_virtqueue_chain *chain)
{
	uint16_t waiting = mv_ring_load(&avail_of(queue)->idx) - queue->next_take;
	uint16_t head;
	int taken;

	if (waiting > queue->entries)
		return mv_virtqueue_break(queue);
	head = mv_ring_load(&avail_of(queue)->ring[queue->next_take % queue->entries]);
	chain->id = head;
	chain->slots = 1;
	taken = take_chain(queue, head, chain);
	if (taken > 0)
		queue->next_take++;
	return taken;
}

static void split_put(struct mv_virtqueue *queue, const struct mv_virtqueue_chain *chain,
		      uint32_t written)
{
	struct vring_used *used = used_of(queue);
	volatile struct vring_used_elem *elem = &used->ring[queue->next_put % queue->entries];

	elem->id = chain->id;
	elem->len = written;
	queue->next_put++;
	queue->put_since++;
	mv_ring_store(&used->idx, queue->next_put);
}

/* VIRTIO 1.2, 2.7.7.2: whether the driver's mark was passed. */
static bool split_wants(struct mv_virtqueue *queue)
{
	if (queue->event_index)
		return vring_need_event(mv_ring_load(used_event(queue)), queue->next_put,
					queue->told);
	return !(mv_ring_load(&avail_of(queue)->flags) & VRING_AVAIL_F_NO_INTERRUPT);
}

static void split_kicks(struct mv_virtqueue *queue, bool want)
{
	/* A mark just behind us is passed only after 2^16 chains. */
	if (queue->event_index)
		mv_ring_store(avail_event(queue),
			      want ? queue->next_take : (uint16_t)(queue->next_take - 1));
	else
		mv_ring_store(&used_of(queue)->flags, want ? 0 : VRING_USED_F_NO_NOTIFY);
}

const struct mv_virtqueue_ops mv_virtqueue_split = {
	.take = split_take,
	.put = split_put,
	.wants = split_wants,
	.kicks = split_kicks,
	.more = split_more,
};
