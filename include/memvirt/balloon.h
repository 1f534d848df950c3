/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The memory balloon device, device side: VIRTIO 1.2, section 5.5. Independent of any transport:
 * the VMM hands over features, configuration space, queues and notifications.
 *
 * What the guest gives is let go through the memory's ledger, as one transaction over all its
 * views: pinned pages keep their content, and everyone who reaches a page has let go of it before
 * the host does. The guest is not trusted: what it says wrongly is counted and ignored, a queue
 * that breaks the rules is stopped, and a call does a bounded amount of work.
 *
 * Where a device reaches guest memory by addresses that were mapped for it, either its mappings are
 * a view of the memory, or what it reaches is pinned, or the pager has MV_PAGER_HOLD_DMA: otherwise
 * it would go on using pages that the guest does not see any more.
 *
 * Modern devices only (VIRTIO_F_VERSION_1).
 */
#ifndef MEMVIRT_BALLOON_H
#define MEMVIRT_BALLOON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/memory.h>
#include <memvirt/pager.h>
#include <memvirt/stats.h>
#include <memvirt/virtqueue.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct mv_balloon;

/** VIRTIO's number of this kind of device. */
#define MV_BALLOON_DEVICE_ID 5

/** Queues that a transport has to have room for: VIRTIO 1.2, 5.5.2. */
#define MV_BALLOON_QUEUES 5

/** Bytes of the configuration space: VIRTIO 1.2, 5.5.4. */
#define MV_BALLOON_CONFIG_BYTES 16

/* Feature bits: of the device, VIRTIO 1.2, 5.5.3, and of its queues, 6. */
#define MV_BALLOON_MUST_TELL_HOST (1ULL << 0)
#define MV_BALLOON_STATS	  (1ULL << 1)
#define MV_BALLOON_DEFLATE_ON_OOM (1ULL << 2)
#define MV_BALLOON_FREE_PAGE_HINT (1ULL << 3)
#define MV_BALLOON_PAGE_POISON	  (1ULL << 4)
#define MV_BALLOON_REPORTING	  (1ULL << 5)
#define MV_BALLOON_INDIRECT_DESC  (1ULL << 28)
#define MV_BALLOON_EVENT_IDX	  (1ULL << 29)
#define MV_BALLOON_VERSION_1	  (1ULL << 32)
#define MV_BALLOON_RING_PACKED	  (1ULL << 34)
#define MV_BALLOON_FEATURES                                                                        \
	(0x3fULL | MV_BALLOON_INDIRECT_DESC | MV_BALLOON_EVENT_IDX | MV_BALLOON_VERSION_1 |        \
	 MV_BALLOON_RING_PACKED)

/**
 * struct mv_balloon_ops - what the device asks of the VMM; all optional
 * @interrupt:      a queue has used buffers that the driver wants to hear of
 * @config_changed: the configuration has changed: notify the driver
 * @returned:       the guest is about to use pages again that it had given; it is told so only
 *                  after the call. Where devices reach guest memory, this is the time to populate
 *                  and map. Also called for all pages at a reset.
 * @hinted:         the guest does not need the content of a range, until the run of hinting in
 *                  which it says so is over: a migration need not copy it
 *
 * Called with the device's lock held: they must not call the device.
 */
struct mv_balloon_ops {
	void (*interrupt)(void *ctx, unsigned int queue);
	void (*config_changed)(void *ctx);
	void (*returned)(void *ctx, uint64_t first_gpa, uint64_t last_gpa);
	void (*hinted)(void *ctx, uint64_t first_gpa, uint64_t last_gpa);
};

/**
 * struct mv_balloon_config - what mv_balloon_create() needs
 * @size:     sizeof(struct mv_balloon_config)
 * @memory:   the guest's; must outlive the device
 * @pager:    who manages it, or NULL; must outlive the device
 * @features: to offer: of MV_BALLOON_FEATURES; MV_BALLOON_VERSION_1 is always
 * @ops:      may be NULL
 * @ctx:      for @ops
 */
struct mv_balloon_config {
	size_t size;
	struct mv_memory *memory;
	struct mv_pager *pager;
	uint64_t features;
	const struct mv_balloon_ops *ops;
	void *ctx;
};

/**
 * mv_balloon_create() - a balloon device
 * @config:  see struct mv_balloon_config
 * @balloon: set on success
 *
 * Context: may sleep.
 * Return: 0; -EINVAL for features outside MV_BALLOON_FEATURES, or a config of the wrong size;
 * -ENOMEM.
 */
int mv_balloon_create(const struct mv_balloon_config *config, struct mv_balloon **balloon);

/**
 * mv_balloon_destroy() - free a device
 * @balloon: may be NULL; nobody uses it any more
 */
void mv_balloon_destroy(struct mv_balloon *balloon);

/**
 * mv_balloon_reset() - the driver has reset the device (VIRTIO 1.2, 2.4)
 * @balloon: the device
 *
 * Queues and negotiated features are forgotten, a buffer for statistics is held no more, and
 * every page that was given counts as the guest's again.
 *
 * Context: takes the device's lock.
 */
void mv_balloon_reset(struct mv_balloon *balloon);

/**
 * mv_balloon_features() - what the device offers
 * @balloon: the device
 *
 * Return: feature bits.
 */
uint64_t mv_balloon_features(const struct mv_balloon *balloon);

/**
 * mv_balloon_accept() - the driver has chosen (FEATURES_OK)
 * @balloon:  the device
 * @features: what the driver accepts
 *
 * Context: before any queue is set up; takes the device's lock.
 * Return: 0; -EINVAL where that was not offered, or lacks MV_BALLOON_VERSION_1: the transport
 * leaves FEATURES_OK unset.
 */
int mv_balloon_accept(struct mv_balloon *balloon, uint64_t features);

/**
 * mv_balloon_set_queue() - the driver has set a queue up
 * @balloon:  the device
 * @queue:    its number, below MV_BALLOON_QUEUES
 * @entries:  queue size
 * @desc_gpa: descriptor area; see struct mv_virtqueue_config
 * @driver_gpa: driver area
 * @device_gpa: device area
 *
 * Optional queues may be numbered as the standard has it, or, as Linux does, without gaps for
 * those whose feature was not negotiated.
 *
 * Context: takes the device's lock.
 * Return: 0; as mv_virtqueue_create(); -EINVAL also for a number out of range; -EBUSY where it
 * is set up already.
 */
int mv_balloon_set_queue(struct mv_balloon *balloon, unsigned int queue, unsigned int entries,
			 uint64_t desc_gpa, uint64_t driver_gpa, uint64_t device_gpa);

/**
 * mv_balloon_kick() - the driver has notified a queue
 * @balloon: the device
 * @queue:   its number
 *
 * Context: takes the device's lock; discards, so: any thread but one that resolves faults.
 * Return: 0: nothing is left to do; 1: call again, for a call does a bounded amount of work;
 * -EPROTO where the driver broke the queue's rules: set DEVICE_NEEDS_RESET; -EINVAL for a queue
 * that is not set up.
 */
int mv_balloon_kick(struct mv_balloon *balloon, unsigned int queue);

/**
 * mv_balloon_read_config() - the driver reads the configuration space
 * @balloon: the device
 * @offset:  first byte
 * @buf:     set; zeros beyond the end
 * @len:     bytes
 *
 * Context: takes the device's lock.
 */
void mv_balloon_read_config(struct mv_balloon *balloon, uint64_t offset, void *buf, size_t len);

/**
 * mv_balloon_write_config() - the driver writes to the configuration space
 * @balloon: the device
 * @offset:  first byte
 * @buf:     what it writes; only `actual` and `poison_val` take it
 * @len:     bytes
 *
 * Context: as mv_balloon_kick().
 */
void mv_balloon_write_config(struct mv_balloon *balloon, uint64_t offset, const void *buf,
			     size_t len);

/**
 * mv_balloon_set_target() - ask the guest for memory
 * @balloon: the device
 * @bytes:   that the balloon is to hold; rounded down to 4 KiB, cut to the memory's size
 *
 * Context: takes the device's lock.
 */
void mv_balloon_set_target(struct mv_balloon *balloon, uint64_t bytes);

/**
 * mv_balloon_settle() - let go now what the guest gave and the device still collects
 * @balloon: the device
 *
 * Where the guest promised not to touch a page before it has told (MUST_TELL_HOST), pages are
 * collected, so that neighbours go together. It is done by itself when many have come, when
 * the target is reached and when statistics are asked for.
 *
 * Context: as mv_balloon_kick().
 */
void mv_balloon_settle(struct mv_balloon *balloon);

/**
 * enum mv_balloon_stat - the guest's statistics, by their tag (VIRTIO 1.2, 5.5.6.3, and Linux)
 *
 * Memory in bytes, others are counts since the guest's start.
 */
enum mv_balloon_stat {
	MV_BALLOON_STAT_SWAP_IN,
	MV_BALLOON_STAT_SWAP_OUT,
	MV_BALLOON_STAT_MAJOR_FAULTS,
	MV_BALLOON_STAT_MINOR_FAULTS,
	MV_BALLOON_STAT_FREE,
	MV_BALLOON_STAT_TOTAL,
	MV_BALLOON_STAT_AVAILABLE,
	MV_BALLOON_STAT_CACHES,
	MV_BALLOON_STAT_HUGETLB_ALLOCATIONS,
	MV_BALLOON_STAT_HUGETLB_FAILURES,
	MV_BALLOON_STAT_OOM_KILLS,
	MV_BALLOON_STAT_ALLOC_STALLS,
	MV_BALLOON_STAT_ASYNC_SCANS,
	MV_BALLOON_STAT_DIRECT_SCANS,
	MV_BALLOON_STAT_ASYNC_RECLAIMS,
	MV_BALLOON_STAT_DIRECT_RECLAIMS,
	MV_BALLOON_STAT_TAGS,
};

/**
 * struct mv_balloon_guest_stats - what the guest said of itself
 * @known:  a bit for each tag that it sent
 * @at_ns:  when, by CLOCK_MONOTONIC
 * @values: by tag; 0 where not known
 */
struct mv_balloon_guest_stats {
	uint32_t known;
	uint64_t at_ns;
	uint64_t values[MV_BALLOON_STAT_TAGS];
};

/**
 * mv_balloon_ask_stats() - ask the guest for new statistics
 * @balloon: the device
 *
 * Context: as mv_balloon_kick().
 * Return: 0: they will come; -EOPNOTSUPP where they were not negotiated; -EAGAIN where the
 * guest has not answered the last time, or has no driver.
 */
int mv_balloon_ask_stats(struct mv_balloon *balloon);

/**
 * mv_balloon_get_guest_stats() - what the guest said last
 * @balloon: the device
 * @stats:   set on success
 *
 * Context: takes the device's lock.
 * Return: 0; -ENODATA where it has said nothing since the last reset.
 */
int mv_balloon_get_guest_stats(struct mv_balloon *balloon, struct mv_balloon_guest_stats *stats);

/**
 * mv_balloon_hint_start() - begin a run of free page hinting
 * @balloon: the device
 *
 * Context: takes the device's lock.
 * Return: 0; -EOPNOTSUPP where it was not negotiated.
 */
int mv_balloon_hint_start(struct mv_balloon *balloon);

/**
 * mv_balloon_hint_stop() - from now on no hint of this run counts
 * @balloon: the device
 * @done:    the guest may have its pages back; otherwise it keeps them, for another run
 *
 * Context: takes the device's lock; when it returns, @hinted is called no more.
 */
void mv_balloon_hint_stop(struct mv_balloon *balloon, bool done);

/**
 * struct mv_balloon_stats - the device's own numbers
 * @target_bytes:   what the guest was asked for
 * @actual_bytes:   what it says it has given; not to be relied on
 * @given_bytes:    what it has named as given and not taken back
 * @collected_bytes: of these, still to be let go
 * @dropped:        pages let go, of the balloon
 * @reported:       pages let go, of free page reports
 * @refused:        pages that were to be let go, and kept their content: pinned, for one
 * @hinted:         pages that were hinted
 * @ignored:        page numbers, ranges and buffers that made no sense
 * @broken:         queues that were stopped
 */
struct mv_balloon_stats {
	uint64_t target_bytes;
	uint64_t actual_bytes;
	uint64_t given_bytes;
	uint64_t collected_bytes;
	uint64_t dropped;
	uint64_t reported;
	uint64_t refused;
	uint64_t hinted;
	uint64_t ignored;
	uint64_t broken;
};

/**
 * mv_balloon_get_stats() - how it goes
 * @balloon: the device
 * @stats:   set
 *
 * Context: takes the device's lock.
 */
void mv_balloon_get_stats(struct mv_balloon *balloon, struct mv_balloon_stats *stats);

/**
 * mv_balloon_publish() - the balloon's and the guest's part of a statistics segment
 * @balloon: the device
 * @stats:   between mv_stats_begin() and mv_stats_end(); in a segment a balloon's size is what
 *           it leaves the guest. The guest's numbers have the time when it said them
 *
 * Context: takes the device's lock.
 */
void mv_balloon_publish(struct mv_balloon *balloon, struct mv_stats *stats);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_BALLOON_H */
