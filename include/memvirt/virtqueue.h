/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A virtqueue, device side: VIRTIO 1.2, sections 2.7 (split) and 2.8 (packed), with indirect
 * descriptors and event suppression by index. Independent of any transport.
 *
 * The driver on the other side is a guest, and hostile until proven otherwise: each field is
 * read once, every chain is bounded and checked as a whole before anyone sees it, and a queue
 * that breaks a rule is broken until it is made anew.
 *
 * A queue has no lock: one thread at a time.
 */
#ifndef MEMVIRT_VIRTQUEUE_H
#define MEMVIRT_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/memory.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct mv_virtqueue;

/** Largest queue: VIRTIO 1.2, 2.7 and 2.8.10.1. */
#define MV_VIRTQUEUE_ENTRIES_MAX 32768

/**
 * struct mv_virtqueue_config - a queue as the driver has set it up
 * @size:        sizeof(struct mv_virtqueue_config)
 * @memory:      where it lies; must outlive the queue
 * @entries:     queue size; of a split queue a power of two
 * @packed:      VIRTIO_F_RING_PACKED was negotiated
 * @indirect:    VIRTIO_F_INDIRECT_DESC was
 * @event_index: VIRTIO_F_EVENT_IDX was
 * @desc_gpa:    descriptor area; aligned to 16
 * @driver_gpa:  driver area: available ring (aligned to 2), or event suppression (to 4)
 * @device_gpa:  device area: used ring, or event suppression (to 4)
 */
struct mv_virtqueue_config {
	size_t size;
	struct mv_memory *memory;
	unsigned int entries;
	bool packed;
	bool indirect;
	bool event_index;
	uint64_t desc_gpa;
	uint64_t driver_gpa;
	uint64_t device_gpa;
};

/**
 * struct mv_virtqueue_segment - one descriptor's buffer; nothing of it is checked yet
 * @gpa:      first address, any alignment; may lie outside all memory
 * @len:      bytes
 * @writable: the device writes here; otherwise it reads
 */
struct mv_virtqueue_segment {
	uint64_t gpa;
	uint32_t len;
	bool writable;
};

/**
 * struct mv_virtqueue_chain - what the driver offered as one buffer
 * @id:       the driver's name for it
 * @slots:    entries of the ring that it takes up
 * @count:    of @segments, at least 1
 * @segments: good until the next mv_virtqueue_take()
 */
struct mv_virtqueue_chain {
	uint16_t id;
	uint16_t slots;
	unsigned int count;
	const struct mv_virtqueue_segment *segments;
};

/**
 * mv_virtqueue_create() - begin to serve a queue
 * @config: see struct mv_virtqueue_config
 * @queue:  set on success
 *
 * The regions that the three areas lie in cannot be removed until mv_virtqueue_destroy().
 *
 * Context: any thread; may sleep.
 * Return: 0; -EINVAL for a bad size or alignment; -EFAULT where an area does not lie within
 * one region; -ENOMEM.
 */
int mv_virtqueue_create(const struct mv_virtqueue_config *config, struct mv_virtqueue **queue);

/**
 * mv_virtqueue_destroy() - stop serving a queue
 * @queue: may be NULL
 *
 * Context: nobody else uses it.
 */
void mv_virtqueue_destroy(struct mv_virtqueue *queue);

/**
 * mv_virtqueue_take() - the next chain that the driver offers
 * @queue: the queue
 * @chain: set where there is one
 *
 * Context: the queue's thread; not one that resolves faults, for guest memory is touched.
 * Return: 1; 0 where there is none; -EPROTO where the driver has broken a rule, or the queue
 * is broken: the device needs a reset (VIRTIO 1.2, 2.1.1).
 */
int mv_virtqueue_take(struct mv_virtqueue *queue, struct mv_virtqueue_chain *chain);

/**
 * mv_virtqueue_put() - give a chain back
 * @queue:   the queue
 * @chain:   one that was taken and not yet put; only @id and @slots are looked at
 * @written: bytes written to its writable segments
 *
 * Chains may be put in any order.
 *
 * Context: as mv_virtqueue_take().
 */
void mv_virtqueue_put(struct mv_virtqueue *queue, const struct mv_virtqueue_chain *chain,
		      uint32_t written);

/**
 * mv_virtqueue_wants_interrupt() - whether the driver wants to hear of what was put
 * @queue: the queue
 *
 * Asked once after one or more mv_virtqueue_put(). VIRTIO 1.2, 2.7.7 and 2.8.10.
 *
 * Context: as mv_virtqueue_take().
 * Return: whether to send a used buffer notification.
 */
bool mv_virtqueue_wants_interrupt(struct mv_virtqueue *queue);

/**
 * mv_virtqueue_want_kicks() - ask the driver to notify when it offers more
 * @queue: the queue
 * @want:  false while the device polls
 *
 * Context: as mv_virtqueue_take().
 * Return: whether more has been offered meanwhile, of which no notification may come: take again.
 */
bool mv_virtqueue_want_kicks(struct mv_virtqueue *queue, bool want);

/**
 * mv_virtqueue_broken() - whether the driver has broken a rule
 * @queue: the queue
 *
 * Context: as mv_virtqueue_take().
 * Return: true until the queue is made anew.
 */
bool mv_virtqueue_broken(const struct mv_virtqueue *queue);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_VIRTQUEUE_H */
