/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtqueue's own structs, shared by its files:
 *
 *   virtqueue.c          create, destroy, and what both kinds of ring have in common
 *   virtqueue_split.c    descriptor table, available and used ring (VIRTIO 1.2, 2.7)
 *   virtqueue_packed.c   one ring of descriptors (2.8)
 */
#ifndef MV_VIRTQUEUE_INTERNAL_H
#define MV_VIRTQUEUE_INTERNAL_H

#include <linux/virtio_ring.h>

#include <memvirt/virtqueue.h>

#include "../region.h"

/* Segments of an indirect table that a small queue takes nevertheless. */
#define VIRTQUEUE_INDIRECT_MAX 1024

/**
 * struct mv_virtqueue_ops - one kind of ring
 * @take:   the chain at the queue's place; as mv_virtqueue_take()
 * @put:    as mv_virtqueue_put()
 * @wants:  as mv_virtqueue_wants_interrupt()
 * @kicks:  as mv_virtqueue_want_kicks(), without the answer
 * @more:   whether a chain waits
 */
struct mv_virtqueue_ops {
	int (*take)(struct mv_virtqueue *queue, struct mv_virtqueue_chain *chain);
	void (*put)(struct mv_virtqueue *queue, const struct mv_virtqueue_chain *chain,
		    uint32_t written);
	bool (*wants)(struct mv_virtqueue *queue);
	void (*kicks)(struct mv_virtqueue *queue, bool want);
	bool (*more)(const struct mv_virtqueue *queue);
};

/**
 * struct mv_virtqueue - a queue at work
 *
 * Constant: all up to @segments. The queue's one thread: the rest.
 *
 * @next_take, @next_put: counts modulo 2^16 of a split ring; places of a packed one
 * @take_wrap, @put_wrap: wrap counters of a packed ring
 * @in_flight:            entries taken and not yet put
 * @told:                 @next_put when the driver was last asked for its wishes
 */
struct mv_virtqueue {
	const struct mv_virtqueue_ops *ops;
	struct mv_memory *memory;
	unsigned int entries;
	bool indirect;
	bool event_index;
	struct mv_region *regions[3]; /* held */
	void *desc;
	void *driver;
	void *device;
	unsigned int segments_max;
	struct mv_virtqueue_segment *segments;

	bool broken;
	bool take_wrap, put_wrap;
	uint16_t next_take;
	uint16_t next_put;
	uint16_t told;
	unsigned int in_flight;
	unsigned int put_since; /* entries put since the driver was last asked */
};

extern const struct mv_virtqueue_ops mv_virtqueue_split;
extern const struct mv_virtqueue_ops mv_virtqueue_packed;

/* The driver has broken a rule. Return: -EPROTO. */
int mv_virtqueue_break(struct mv_virtqueue *queue);

/* Append a segment to the chain. Return: false where it is longer than any may be. */
bool mv_virtqueue_add(struct mv_virtqueue *queue, struct mv_virtqueue_chain *chain, uint64_t gpa,
		      uint32_t len, bool writable);

/*
 * A field that the guest writes: once, with what the guest wrote before it. Release and
 * acquire on each field pair with the driver's barriers.
 */
static inline uint16_t mv_ring_load(const void *field)
{
	return __atomic_load_n((const uint16_t *)field, __ATOMIC_SEQ_CST);
}

static inline void mv_ring_store(void *field, uint16_t value)
{
	__atomic_store_n((uint16_t *)field, value, __ATOMIC_SEQ_CST);
}

#endif /* MV_VIRTQUEUE_INTERNAL_H */
