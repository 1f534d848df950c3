// SPDX-License-Identifier: BSD-2-Clause
/*
 * The balloon's queues: which number is which, how much work a call does, and when a buffer is
 * acknowledged: after what was asked in it has been done.
 */
#include <errno.h>

#include "balloon_internal.h"

/**
 * struct balloon_role - what a queue is for
 * @feature: by which it exists; 0: it always does
 * @serve:   see balloon_serve
 * @keeps:   buffers are not acknowledged when they have been served
 */
struct balloon_role {
	uint64_t feature;
	balloon_serve serve;
	bool keeps;
};

/* In the order, and with the numbers, of VIRTIO 1.2, 5.5.2. */
static const struct balloon_role roles[MV_BALLOON_QUEUES] = {
	[INFLATE] = { .serve = mv_balloon_serve_inflate },
	[DEFLATE] = { .serve = mv_balloon_serve_deflate },
	[STATS] = { MV_BALLOON_STATS, mv_balloon_serve_stats, true },
	[HINTS] = { MV_BALLOON_FREE_PAGE_HINT, mv_balloon_serve_hints },
	[REPORTS] = { MV_BALLOON_REPORTING, mv_balloon_serve_reports },
};

static bool role_exists(const struct mv_balloon *balloon, unsigned int role)
{
	return !roles[role].feature || balloon_has(balloon, roles[role].feature);
}

/* Whether each queue that exists has been set up under the standard's number. */
static bool numbered_by_standard(const struct mv_balloon *balloon)
{
	for (unsigned int role = STATS; role < MV_BALLOON_QUEUES; role++)
		if (role_exists(balloon, role) && !balloon->queues[role])
			return false;
	return true;
}

/* The role of a queue, or -1. Linux leaves no gaps for queues that do not exist. */
static int role_of(const struct mv_balloon *balloon, unsigned int queue)
{
	unsigned int number = 0;

	if (numbered_by_standard(balloon))
		return role_exists(balloon, queue) ? (int)queue : -1;
	for (unsigned int role = 0; role < MV_BALLOON_QUEUES; role++)
		if (role_exists(balloon, role) && number++ == queue)
			return (int)role;
	return -1;
}

static int set_queue_locked(struct mv_balloon *balloon, unsigned int queue,
			    struct mv_virtqueue_config *config)
{
	if (balloon->queues[queue])
		return -EBUSY;
	config->packed = balloon_has(balloon, MV_BALLOON_RING_PACKED);
	config->indirect = balloon_has(balloon, MV_BALLOON_INDIRECT_DESC);
	config->event_index = balloon_has(balloon, MV_BALLOON_EVENT_IDX);
	return mv_virtqueue_create(config, &balloon->queues[queue]);
}

int mv_balloon_set_queue(struct mv_balloon *balloon, unsigned int queue, unsigned int entries,
			 uint64_t desc_gpa, uint64_t driver_gpa, uint64_t device_gpa)
{
	struct mv_virtqueue_config config = {
		.size = sizeof(config),
		.memory = balloon->memory,
		.entries = entries,
		.desc_gpa = desc_gpa,
		.driver_gpa = driver_gpa,
		.device_gpa = device_gpa,
	};
	int error;

	if (queue >= MV_BALLOON_QUEUES)
		return -EINVAL;
	pthread_mutex_lock(&balloon->lock);
	error = set_queue_locked(balloon, queue, &config);
	pthread_mutex_unlock(&balloon->lock);
	return error;
}

const struct mv_virtqueue_segment *mv_balloon_segment(struct balloon_work *work)
{
	if (work->segment < work->chain.count)
		return &work->chain.segments[work->segment];
	work->active = false;
	return NULL;
}

void mv_balloon_next_segment(struct balloon_work *work)
{
	work->segment++;
	work->offset = 0;
}

/* Buffers that are done with, held until all that was asked in them has been done. */
struct acks {
	unsigned int count;
	struct mv_virtqueue_chain chains[BALLOON_ACKS];
};

/*
 * Without MUST_TELL_HOST the guest may take a page back before it says so: then nothing may be
 * let go after the acknowledgement. VIRTIO 1.2, 5.5.6.1.
 */
static void acknowledge(struct mv_balloon *balloon, unsigned int queue, struct acks *acks)
{
	if (!balloon_has(balloon, MV_BALLOON_MUST_TELL_HOST))
		mv_balloon_settle_locked(balloon);
	for (unsigned int i = 0; i < acks->count; i++)
		mv_virtqueue_put(balloon->queues[queue], &acks->chains[i], 0);
	acks->count = 0;
}

/* The next buffer to work on. Return: as mv_virtqueue_take(). */
static int next_work(struct mv_balloon *balloon, unsigned int queue)
{
	struct balloon_work *work = &balloon->work[queue];
	struct balloon_work next = { .active = true };
	int found;

	if (work->active)
		return 1;
	found = mv_virtqueue_take(balloon->queues[queue], &next.chain);
	if (found > 0)
		*work = next;
	return found;
}

static int serve_queue(struct mv_balloon *balloon, unsigned int queue,
		       const struct balloon_role *role)
{
	struct balloon_work *work = &balloon->work[queue];
	uint64_t budget = BALLOON_WORK_PER_KICK;
	struct acks acks = { .count = 0 };
	int found = 0;

	while (budget) {
		found = next_work(balloon, queue);
		if (found <= 0)
			break;
		/* An empty buffer is work, too. */
		budget--;
		role->serve(balloon, work, &budget);
		if (work->active || role->keeps)
			continue;
		acks.chains[acks.count++] = work->chain;
		if (acks.count == BALLOON_ACKS)
			acknowledge(balloon, queue, &acks);
	}
	acknowledge(balloon, queue, &acks);
	return found;
}

static int kick_locked(struct mv_balloon *balloon, unsigned int queue)
{
	struct mv_virtqueue *vq = balloon->queues[queue];
	int role = role_of(balloon, queue), found;

	if (role < 0)
		return -EINVAL;
	if (mv_virtqueue_broken(vq))
		return -EPROTO;
	found = serve_queue(balloon, queue, &roles[role]);
	mv_balloon_interrupt(balloon, queue);
	if (found < 0) {
		balloon->count.broken++;
		return found;
	}
	if (found == 0 && !mv_virtqueue_want_kicks(vq, true))
		return 0;
	return 1;
}

int mv_balloon_kick(struct mv_balloon *balloon, unsigned int queue)
{
	int result = -EINVAL;

	if (queue >= MV_BALLOON_QUEUES)
		return -EINVAL;
	pthread_mutex_lock(&balloon->lock);
	if (balloon->queues[queue])
		result = kick_locked(balloon, queue);
	pthread_mutex_unlock(&balloon->lock);
	return result;
}
