/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The driver's side of a virtqueue, of both kinds, for tests: well-behaved where it is asked to
 * be, and with every field within reach where it is not.
 */
#ifndef TESTS_VIRTIO_DRIVER_H
#define TESTS_VIRTIO_DRIVER_H

#include <linux/virtio_ring.h>
#include <stdbool.h>
#include <stdint.h>

#include <memvirt/virtqueue.h>

#define DRIVER_ENTRIES_MAX 256

/**
 * struct virtio_driver - a queue as its driver sees it
 * @ram:    guest address 0
 * @base:   guest address of the rings, a page each
 * @table:  guest address of a page for indirect descriptors
 */
struct virtio_driver {
	unsigned char *ram;
	uint64_t base, table;
	unsigned int entries;
	bool packed, event_index;

	uint16_t next_offer, next_used; /* of a split ring: free-running */
	bool offer_wrap, used_wrap;
	uint16_t next_desc;		    /* split: the next descriptor of the table */
	uint16_t slots[DRIVER_ENTRIES_MAX]; /* packed: by id */
};

void driver_start(struct virtio_driver *driver, unsigned char *ram, uint64_t base,
		  unsigned int entries, bool packed, bool event_index);

/* A config with these rings. */
struct mv_virtqueue_config driver_config(const struct virtio_driver *driver,
					 struct mv_memory *memory);

/* Offer a chain, directly or by a table. Return: its id. */
uint16_t driver_offer(struct virtio_driver *driver, const struct mv_virtqueue_segment *segments,
		      unsigned int count, bool indirect);

/* The next used buffer. Return: false where there is none. */
bool driver_used(struct virtio_driver *driver, uint16_t *id, uint32_t *written);

/* The parts, to be spoiled. */
struct vring_desc *driver_descs(struct virtio_driver *driver);
struct vring_avail *driver_avail(struct virtio_driver *driver);
struct vring_packed_desc *driver_ring(struct virtio_driver *driver);
struct vring_packed_desc_event *driver_event(struct virtio_driver *driver);

#endif /* TESTS_VIRTIO_DRIVER_H */
