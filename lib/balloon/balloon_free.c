// SPDX-License-Identifier: BSD-2-Clause
/*
 * Free pages that the guest keeps: reports (VIRTIO 1.2, 5.5.6.5), of pages that the host may let
 * go at once, and hints (5.5.6.4), of pages that a migration need not copy while a run of
 * hinting lasts. Both name ranges by descriptors that the device could write to.
 */
#include <errno.h>

#include "balloon_internal.h"

/*
 * The next whole pages of a segment, at most @budget. Return: false where none are left; a segment
 * that does not lie in guest memory as a whole, and in one region, is nothing.
 */
static bool next_range(struct mv_balloon *balloon, const struct balloon_work *work,
		       const struct mv_virtqueue_segment *segment, uint64_t budget,
		       struct mv_gpa_range *range)
{
	const uint64_t offset = MV_PAGE_SIZE - 1;
	uint64_t end = segment->gpa + segment->len, first, past;
	size_t len = segment->len;
	void *hva;

	if (!len || mv_memory_hva(balloon->memory, segment->gpa, &len, &hva) ||
	    len != segment->len) {
		balloon->count.ignored++;
		return false;
	}
	/* Parts of pages at both ends are still in use. */
	first = ((segment->gpa + offset) & ~offset) + work->offset;
	past = end & ~offset;
	if (first >= past)
		return false;
	if ((past - first) >> MV_PAGE_SHIFT > budget)
		past = first + (budget << MV_PAGE_SHIFT);
	*range = (struct mv_gpa_range){ first, past - 1 };
	return true;
}

static void report(struct mv_balloon *balloon, const struct mv_gpa_range *range)
{
	/* The guest expects to find its poison in these pages, and a page let go reads as zeros. */
	if (balloon_has(balloon, MV_BALLOON_PAGE_POISON) && balloon->config.poison_val)
		return;
	balloon->count.reported += mv_balloon_drop(balloon, range, 1);
}

static void hint(struct mv_balloon *balloon, const struct mv_gpa_range *range)
{
	/* A hint of a run before, or of one that has been stopped. */
	if (balloon->hinting != HINTING_RUNS)
		return;
	balloon->count.hinted += (range->last_gpa - range->first_gpa + 1) >> MV_PAGE_SHIFT;
	if (balloon->ops->hinted)
		balloon->ops->hinted(balloon->ctx, range->first_gpa, range->last_gpa);
}

/* The guest begins or ends a run, by the number that it was given. */
static void hint_command(struct mv_balloon *balloon, const struct mv_virtqueue_segment *segment)
{
	uint32_t id;

	if (segment->len < sizeof(id) ||
	    mv_memory_read(balloon->memory, segment->gpa, &id, sizeof(id))) {
		balloon->count.ignored++;
		return;
	}
	if (id == balloon->hint_id && balloon->hinting == HINTING_ASKED)
		balloon->hinting = HINTING_RUNS;
	else if (id == VIRTIO_BALLOON_CMD_ID_STOP && balloon->hinting == HINTING_RUNS)
		balloon->hinting = HINTING_OFF;
}

static void serve_ranges(struct mv_balloon *balloon, struct balloon_work *work, uint64_t *budget,
			 void (*command)(struct mv_balloon *balloon,
					 const struct mv_virtqueue_segment *segment),
			 void (*act)(struct mv_balloon *balloon, const struct mv_gpa_range *range))
{
	const struct mv_virtqueue_segment *segment;

	while (*budget && (segment = mv_balloon_segment(work))) {
		struct mv_gpa_range range;

		if (!segment->writable) {
			command(balloon, segment);
		} else if (next_range(balloon, work, segment, *budget, &range)) {
			uint64_t bytes = range.last_gpa - range.first_gpa + 1;

			act(balloon, &range);
			work->offset += bytes;
			*budget -= bytes >> MV_PAGE_SHIFT;
			continue;
		}
		mv_balloon_next_segment(work);
		--*budget;
	}
}

static void ignore(struct mv_balloon *balloon, const struct mv_virtqueue_segment *segment)
{
	balloon->count.ignored++;
}

void mv_balloon_serve_reports(struct mv_balloon *balloon, struct balloon_work *work,
			      uint64_t *budget)
{
	serve_ranges(balloon, work, budget, ignore, report);
}

void mv_balloon_serve_hints(struct mv_balloon *balloon, struct balloon_work *work, uint64_t *budget)
{
	serve_ranges(balloon, work, budget, hint_command, hint);
}

int mv_balloon_hint_start(struct mv_balloon *balloon)
{
	int error = 0;

	pthread_mutex_lock(&balloon->lock);
	if (!balloon_has(balloon, MV_BALLOON_FREE_PAGE_HINT)) {
		error = -EOPNOTSUPP;
	} else {
		/* Numbers below are commands, not runs. */
		if (++balloon->hint_id <= VIRTIO_BALLOON_CMD_ID_DONE)
			balloon->hint_id = VIRTIO_BALLOON_CMD_ID_DONE + 1;
		balloon->hinting = HINTING_ASKED;
		mv_balloon_config_changed(balloon);
	}
	pthread_mutex_unlock(&balloon->lock);
	return error;
}

void mv_balloon_hint_stop(struct mv_balloon *balloon, bool done)
{
	pthread_mutex_lock(&balloon->lock);
	if (balloon_has(balloon, MV_BALLOON_FREE_PAGE_HINT)) {
		balloon->hinting = done ? HINTING_DONE : HINTING_OFF;
		mv_balloon_config_changed(balloon);
	}
	pthread_mutex_unlock(&balloon->lock);
}
