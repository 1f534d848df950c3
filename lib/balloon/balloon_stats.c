// SPDX-License-Identifier: BSD-2-Clause
/*
 * The guest's statistics: VIRTIO 1.2, 5.5.6.3. The driver hands over a buffer with numbers; the
 * device gives it back when it wants newer ones.
 */
#include <errno.h>

#include "balloon_internal.h"
#include "now.h"

/* More entries than there are tags would be the same ones again. */
#define ENTRIES_MAX 64

static void read_entries(struct mv_balloon *balloon, const struct mv_virtqueue_segment *segment)
{
	size_t count = segment->len / sizeof(struct virtio_balloon_stat);
	struct virtio_balloon_stat entries[ENTRIES_MAX];

	if (count > ENTRIES_MAX)
		count = ENTRIES_MAX;
	if (segment->writable ||
	    mv_memory_read(balloon->memory, segment->gpa, entries, count * sizeof(entries[0]))) {
		balloon->count.ignored++;
		return;
	}
	for (size_t i = 0; i < count; i++) {
		/* Tags of a later Linux are not an error. */
		if (entries[i].tag >= MV_BALLOON_STAT_TAGS)
			continue;
		balloon->guest.values[entries[i].tag] = entries[i].val;
		balloon->guest.known |= 1u << entries[i].tag;
	}
}

static void give_back(struct mv_balloon *balloon)
{
	mv_virtqueue_put(balloon->queues[STATS], &balloon->stats_chain, 0);
	balloon->stats_held = false;
}

void mv_balloon_serve_stats(struct mv_balloon *balloon, struct balloon_work *work, uint64_t *budget)
{
	/* One buffer is held; a guest that sends a second one gets the first back. */
	if (balloon->stats_held)
		give_back(balloon);
	balloon->guest = (struct mv_balloon_guest_stats){ .at_ns = now_ns() };
	/* In one piece, as every driver sends it. */
	read_entries(balloon, &work->chain.segments[0]);
	work->active = false;
	balloon->stats_chain = work->chain;
	balloon->stats_held = true;
}

int mv_balloon_ask_stats(struct mv_balloon *balloon)
{
	int error = 0;

	pthread_mutex_lock(&balloon->lock);
	mv_balloon_settle_locked(balloon);
	if (!balloon_has(balloon, MV_BALLOON_STATS)) {
		error = -EOPNOTSUPP;
	} else if (!balloon->stats_held) {
		error = -EAGAIN;
	} else {
		give_back(balloon);
		mv_balloon_interrupt(balloon, STATS);
	}
	pthread_mutex_unlock(&balloon->lock);
	return error;
}

int mv_balloon_get_guest_stats(struct mv_balloon *balloon, struct mv_balloon_guest_stats *stats)
{
	int error = -ENODATA;

	pthread_mutex_lock(&balloon->lock);
	if (balloon->guest.at_ns) {
		*stats = balloon->guest;
		error = 0;
	}
	pthread_mutex_unlock(&balloon->lock);
	return error;
}
