// SPDX-License-Identifier: BSD-2-Clause
/*
 * Virtqueues: set up, and what both kinds of ring have in common.
 *
 * The rings are reached through pointers, since fields have to be read and written in one piece
 * and in order; their regions are held, so that the pointers stay good. What a descriptor points
 * to is nobody's promise: whoever uses it goes through mv_memory_read() and its like.
 */
#include <errno.h>
#include <stdlib.h>

#include "virtqueue_internal.h"

struct area {
	uint64_t gpa;
	size_t bytes;
	size_t align;
	void **place;
};

/* An area that lies within one region, which is held from then on. */
static int map_area(struct mv_virtqueue *queue, const struct area *area, struct mv_region **held)
{
	struct mv_region *region;

	if (area->gpa % area->align)
		return -EINVAL;
	region = mv_region_get(queue->memory, area->gpa);
	if (!region)
		return -EFAULT;
	if (region->last_gpa - area->gpa < area->bytes - 1) {
		mv_region_release(region);
		return -EFAULT;
	}
	*area->place = region->hva + (area->gpa - region->first_gpa);
	*held = region;
	return 0;
}

static void release_areas(struct mv_virtqueue *queue)
{
	for (unsigned int i = 0; i < 3; i++)
		if (queue->regions[i])
			mv_region_release(queue->regions[i]);
}

static int map_areas(struct mv_virtqueue *queue, const struct mv_virtqueue_config *config)
{
	const size_t event = config->event_index ? sizeof(uint16_t) : 0;
	const size_t ring = config->entries * sizeof(uint16_t);
	const size_t used = config->entries * sizeof(struct vring_used_elem);
	const size_t suppress = sizeof(struct vring_packed_desc_event);
	const struct area areas[3] = {
		{ config->desc_gpa, config->entries * sizeof(struct vring_desc), 16, &queue->desc },
		{ config->driver_gpa, config->packed ? suppress : 4 + ring + event,
		  config->packed ? 4 : 2, &queue->driver },
		{ config->device_gpa, config->packed ? suppress : 4 + used + event, 4,
		  &queue->device },
	};

	for (unsigned int i = 0; i < 3; i++) {
		int error = map_area(queue, &areas[i], &queue->regions[i]);

		if (error) {
			release_areas(queue);
			return error;
		}
	}
	return 0;
}

static bool config_valid(const struct mv_virtqueue_config *config)
{
	unsigned int entries;

	if (!config || config->size != sizeof(*config) || !config->memory)
		return false;
	entries = config->entries;
	if (!entries || entries > MV_VIRTQUEUE_ENTRIES_MAX)
		return false;
	return config->packed || !(entries & (entries - 1));
}

static struct mv_virtqueue *allocate(const struct mv_virtqueue_config *config)
{
	struct mv_virtqueue *queue = calloc(1, sizeof(*queue));

	if (!queue)
		return NULL;
	queue->segments_max = config->entries;
	if (config->indirect && queue->segments_max < VIRTQUEUE_INDIRECT_MAX)
		queue->segments_max = VIRTQUEUE_INDIRECT_MAX;
	queue->segments = calloc(queue->segments_max, sizeof(*queue->segments));
	if (!queue->segments) {
		free(queue);
		return NULL;
	}
	queue->ops = config->packed ? &mv_virtqueue_packed : &mv_virtqueue_split;
	queue->memory = config->memory;
	queue->entries = config->entries;
	queue->indirect = config->indirect;
	queue->event_index = config->event_index;
	queue->take_wrap = queue->put_wrap = true;
	return queue;
}

int mv_virtqueue_create(const struct mv_virtqueue_config *config, struct mv_virtqueue **queue)
{
	struct mv_virtqueue *made;
	int error;

	if (!config_valid(config))
		return -EINVAL;
	made = allocate(config);
	if (!made)
		return -ENOMEM;
	error = map_areas(made, config);
	if (error) {
		free(made->segments);
		free(made);
		return error;
	}
	*queue = made;
	return 0;
}

void mv_virtqueue_destroy(struct mv_virtqueue *queue)
{
	if (!queue)
		return;
	release_areas(queue);
	free(queue->segments);
	free(queue);
}

int mv_virtqueue_break(struct mv_virtqueue *queue)
{
	queue->broken = true;
	return -EPROTO;
}

bool mv_virtqueue_broken(const struct mv_virtqueue *queue)
{
	return queue->broken;
}

bool mv_virtqueue_add(struct mv_virtqueue *queue, struct mv_virtqueue_chain *chain, uint64_t gpa,
		      uint32_t len, bool writable)
{
	if (chain->count == queue->segments_max)
		return false;
	queue->segments[chain->count++] =
		(struct mv_virtqueue_segment){ .gpa = gpa, .len = len, .writable = writable };
	return true;
}

int mv_virtqueue_take(struct mv_virtqueue *queue, struct mv_virtqueue_chain *chain)
{
	struct mv_virtqueue_chain next = { .segments = queue->segments };
	int found;

	if (queue->broken)
		return -EPROTO;
	if (!queue->ops->more(queue))
		return 0;
	found = queue->ops->take(queue, &next);
	if (found <= 0)
		return found;
	/* More in flight than the ring has entries: some were offered twice. */
	if (next.slots > queue->entries - queue->in_flight)
		return mv_virtqueue_break(queue);
	queue->in_flight += next.slots;
	*chain = next;
	return 1;
}

void mv_virtqueue_put(struct mv_virtqueue *queue, const struct mv_virtqueue_chain *chain,
		      uint32_t written)
{
	if (queue->broken)
		return;
	queue->ops->put(queue, chain, written);
	queue->in_flight -= chain->slots;
}

bool mv_virtqueue_wants_interrupt(struct mv_virtqueue *queue)
{
	bool wants = !queue->broken && queue->put_since && queue->ops->wants(queue);

	queue->told = queue->next_put;
	queue->put_since = 0;
	return wants;
}

bool mv_virtqueue_want_kicks(struct mv_virtqueue *queue, bool want)
{
	if (queue->broken)
		return false;
	queue->ops->kicks(queue, want);
	return want && queue->ops->more(queue);
}
