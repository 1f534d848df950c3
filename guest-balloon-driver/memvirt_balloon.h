/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A driver for the standard virtio memory balloon (device id 5; VIRTIO 1.2, section 5.5).
 *
 * main.c	binds the device, follows its target, freezes and restores
 * queue.c	tells the host about pages, and waits for its word
 * inflate.c	takes pages from the guest and gives them back
 * oom.c	gives pages back before the guest kills a process
 * reserve.c	says how many pages may still be taken
 * stats.c	answers the host's requests for statistics
 * migrate.c	lets compaction move pages of the balloon
 */
#ifndef MEMVIRT_BALLOON_H
#define MEMVIRT_BALLOON_H

#include <linux/balloon_compaction.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/spinlock.h>
#include <linux/virtio.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "compat.h"

/* The device counts in pages of 4 KiB, whatever the guest's page is. */
#define MV_PFNS_PER_PAGE	(PAGE_SIZE >> VIRTIO_BALLOON_PFN_SHIFT)

/* One buffer of page numbers: as many as a page holds, so that it never crosses one. */
#define MV_PFNS_PER_BATCH	1024
#define MV_PAGES_PER_BATCH	(MV_PFNS_PER_BATCH / MV_PFNS_PER_PAGE)

/* Room for each tag that VIRTIO 1.3 knows. */
#define MV_STATS		16

/**
 * struct mv_balloon - one device
 *
 * Constant while it runs: @vdev, the queues, @deflate_on_oom.
 *
 * Under @lock, which is held while a batch is on its way to the host and thus keeps at most
 * one in flight: @pfns, @count, @held.
 *
 * Under @state_lock: @running, @backoff.
 *
 * Only the statistics work uses @stats.
 */
struct mv_balloon {
	struct virtio_device *vdev;
	struct virtqueue *inflate_vq;
	struct virtqueue *deflate_vq;
	struct virtqueue *stats_vq;	/* NULL where the device has none */
	bool deflate_on_oom;		/* the host lets the guest have pages back */
	struct notifier_block oom;

	wait_queue_head_t acked;	/* a buffer came back from the host */
	struct delayed_work resize;
	struct work_struct stats_work;

	spinlock_t state_lock;		/* whether and when to work; taken in interrupts */
	bool running;			/* works may be queued */
	unsigned long backoff;		/* jiffies to wait after a failure; 0: none yet */

	struct mutex lock;		/* one batch at a time */
	unsigned long held;		/* pages in the balloon, moving ones included */
	unsigned int count;		/* entries of @pfns in use */
	struct balloon_dev_info pages;	/* the pages themselves; has its own lock */

	struct virtio_balloon_stat stats[MV_STATS];
	__virtio32 pfns[MV_PFNS_PER_BATCH];
};

/* queue.c: the caller holds @lock, but for mv_queue_acked() */
void mv_batch_begin(struct mv_balloon *balloon);
void mv_batch_add(struct mv_balloon *balloon, struct page *page);
int mv_batch_tell(struct mv_balloon *balloon, struct virtqueue *vq);
void mv_queue_acked(struct virtqueue *vq);

/* main.c: the guest took pages out on its own; the target can wait */
void mv_balloon_gave_way(struct mv_balloon *balloon);

/* inflate.c: at most one batch; the number of pages moved */
unsigned long mv_balloon_inflate(struct mv_balloon *balloon, unsigned long wanted);
unsigned long mv_balloon_deflate(struct mv_balloon *balloon, unsigned long wanted);
void mv_balloon_count_out(struct mv_balloon *balloon, struct page *page);
void mv_balloon_count_in(struct mv_balloon *balloon, struct page *page);

/* reserve.c */
unsigned long mv_reserve_room(const struct mv_balloon *balloon);

/* oom.c */
void mv_oom_watch(struct mv_balloon *balloon);
void mv_oom_unwatch(struct mv_balloon *balloon);

/* stats.c */
int mv_stats_prime(struct mv_balloon *balloon);
void mv_stats_answer(struct mv_balloon *balloon);

/* migrate.c */
#ifdef CONFIG_BALLOON_COMPACTION
int mv_balloon_migrate(struct balloon_dev_info *pages, struct page *newpage,
		       struct page *page, enum migrate_mode mode);
#else
#define mv_balloon_migrate NULL
#endif

#endif /* MEMVIRT_BALLOON_H */
