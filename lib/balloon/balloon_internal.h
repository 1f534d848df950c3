/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The balloon device's own structs, shared by its files:
 *
 *   balloon.c         create, reset, features, configuration space, target
 *   balloon_queue.c   queues: which is which, how much a call does, acknowledgements
 *   balloon_pages.c   inflate and deflate; pages collected and let go
 *   balloon_free.c    free page reports and hints
 *   balloon_stats.c   the guest's statistics
 *
 * Glossary. A page is *given* from the time the guest names it on the inflate queue until it names
 * it on the deflate queue. It is *collected* while it is given and has yet to be let go.
 */
#ifndef MV_BALLOON_INTERNAL_H
#define MV_BALLOON_INTERNAL_H

#include <linux/virtio_balloon.h>
#include <pthread.h>

#include <memvirt/balloon.h>

#include "../region.h"

/* What queues are for, and their numbers in the standard; that of STATS is so in Linux' count, too.
 */
enum balloon_queue { INFLATE, DEFLATE, STATS, HINTS, REPORTS };

/* Work of one mv_balloon_kick(), in pages, descriptors or buffers: some milliseconds. */
#define BALLOON_WORK_PER_KICK 32768

/* Pages collected before they go: enough that a granule sees several in any order. */
#define BALLOON_COLLECT_MAX 16384

/* Buffers acknowledged together. */
#define BALLOON_ACKS 64

/* A page's number has 32 bits on the wire. */
#define BALLOON_PFNS (1ULL << 32)

enum balloon_hinting { HINTING_OFF, HINTING_ASKED, HINTING_RUNS, HINTING_DONE };

/**
 * struct balloon_work - a buffer of the guest, being worked on, perhaps over several kicks
 * @active:  there is one
 * @chain:   it; its segments stay, since none is taken meanwhile
 * @segment: the next one
 * @offset:  bytes of it that are done
 */
struct balloon_work {
	bool active;
	struct mv_virtqueue_chain chain;
	unsigned int segment;
	uint64_t offset;
};

/**
 * struct mv_balloon - the device
 *
 * Constant: all up to @lock. Under @lock: the rest.
 */
struct mv_balloon {
	struct mv_memory *memory;
	struct mv_pager *pager;
	const struct mv_balloon_ops *ops;
	void *ctx;
	uint64_t offered;

	pthread_mutex_t lock;
	uint64_t accepted;
	struct mv_virtqueue *queues[MV_BALLOON_QUEUES];
	struct balloon_work work[MV_BALLOON_QUEUES];
	struct virtio_balloon_config config;

	uint64_t *given; /* a bit for each page number; address space, until it is used */
	uint64_t given_pages;
	uint64_t given_past; /* no number from here on was given */

	uint32_t *collected; /* page numbers, some twice, some taken back meanwhile */
	size_t collected_count;
	bool collected_mixed;	     /* not in ascending order */
	struct mv_gpa_range *ranges; /* of what goes, while it goes */

	bool stats_held; /* the guest's buffer, given back to ask for more */
	struct mv_virtqueue_chain stats_chain;
	struct mv_balloon_guest_stats guest;

	enum balloon_hinting hinting;
	uint32_t hint_id;

	struct mv_balloon_stats count; /* the counters of it */
};

/*
 * Serve a queue's buffer from where its work stands: until it is done, @work->active is false
 * then, or until @budget is used up.
 */
typedef void (*balloon_serve)(struct mv_balloon *balloon, struct balloon_work *work,
			      uint64_t *budget);

void mv_balloon_serve_inflate(struct mv_balloon *, struct balloon_work *, uint64_t *budget);
void mv_balloon_serve_deflate(struct mv_balloon *, struct balloon_work *, uint64_t *budget);
void mv_balloon_serve_stats(struct mv_balloon *, struct balloon_work *, uint64_t *budget);
void mv_balloon_serve_hints(struct mv_balloon *, struct balloon_work *, uint64_t *budget);
void mv_balloon_serve_reports(struct mv_balloon *, struct balloon_work *, uint64_t *budget);

/* The segment that work goes on with, or NULL, and the work is no longer active. */
const struct mv_virtqueue_segment *mv_balloon_segment(struct balloon_work *work);

/* That segment is done with. */
void mv_balloon_next_segment(struct balloon_work *work);

/* Let go of ranges, ascending and apart. Return: pages that have gone. */
uint64_t mv_balloon_drop(struct mv_balloon *balloon, const struct mv_gpa_range *ranges,
			 size_t count);

/* mv_balloon_settle(), under the lock. */
void mv_balloon_settle_locked(struct mv_balloon *balloon);

/* Every page is the guest's again. */
void mv_balloon_return_all(struct mv_balloon *balloon);

void mv_balloon_interrupt(struct mv_balloon *balloon, unsigned int queue);
void mv_balloon_config_changed(struct mv_balloon *balloon);

static inline bool balloon_has(const struct mv_balloon *balloon, uint64_t feature)
{
	return balloon->accepted & feature;
}

#endif /* MV_BALLOON_INTERNAL_H */
