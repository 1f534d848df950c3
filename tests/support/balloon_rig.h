/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A balloon device over real memory of this process, with its driver: RIG_RAM bytes at guest
 * address 0, and RIG_HIGH bytes at RIG_HIGH_GPA, so that there is a hole between.
 */
#ifndef TESTS_BALLOON_RIG_H
#define TESTS_BALLOON_RIG_H

#include <memvirt/balloon.h>

#include "support/virtio_driver.h"

#define RIG_RAM	     (16UL << 20)
#define RIG_HIGH_GPA (1UL << 30)
#define RIG_HIGH     (4UL << 20)
#define RIG_RINGS    0x100000UL /* guest address of the first queue's rings */
#define RIG_BUFFERS  0x200000UL /* of what descriptors point to */
#define RIG_PAGES    0x400000UL /* from here on pages are free for the balloon */
#define RIG_ENTRIES  64
#define FIRST_PFN    (RIG_PAGES >> MV_PAGE_SHIFT)
#define PAST_PFN     (RIG_RAM >> MV_PAGE_SHIFT)

struct balloon_rig {
	unsigned char *ram, *high;
	int ram_fd;
	struct mv_memory *memory;
	struct mv_balloon *balloon;
	struct virtio_driver queues[MV_BALLOON_QUEUES];
	unsigned int interrupts[MV_BALLOON_QUEUES];
	unsigned int config_changes;
	uint64_t returned, hinted; /* pages */
};

/* @shared: on a memfd, otherwise private anonymous memory. */
void balloon_rig_start(struct balloon_rig *rig, bool shared, uint64_t features);
void balloon_rig_stop(struct balloon_rig *rig);

/* Set up a queue under a number. */
void balloon_rig_queue(struct balloon_rig *rig, unsigned int queue);

/* Name pages on a queue, in one buffer, and kick until it is done. Return: the last result. */
int balloon_rig_name(struct balloon_rig *rig, unsigned int queue, const uint32_t *pfns,
		     size_t count);

/* Kick until nothing is left to do. */
int balloon_rig_kick(struct balloon_rig *rig, unsigned int queue);

/* Offer one segment. */
void balloon_rig_offer(struct balloon_rig *rig, unsigned int queue, uint64_t gpa, uint32_t len,
		       bool writable);

/* Used buffers since the last call. */
unsigned int balloon_rig_acks(struct balloon_rig *rig, unsigned int queue);

struct mv_balloon_stats balloon_rig_stats(struct balloon_rig *rig);

/* A page from FIRST_PFN on; a tag into each of them; whether it is there still: else zeros. */
uint64_t *balloon_rig_page(struct balloon_rig *rig, uint64_t pfn);
void balloon_rig_tag(struct balloon_rig *rig);
bool balloon_rig_has_tag(struct balloon_rig *rig, uint64_t pfn);

#endif /* TESTS_BALLOON_RIG_H */
