// SPDX-License-Identifier: BSD-2-Clause
/*
 * The balloon device: its life, features, configuration space and target.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "balloon_internal.h"

#define GIVEN_BYTES (BALLOON_PFNS / 8)

static bool config_valid(const struct mv_balloon_config *config)
{
	return config && config->size == sizeof(*config) && config->memory &&
	       !(config->features & ~MV_BALLOON_FEATURES);
}

static void release(struct mv_balloon *balloon)
{
	if (balloon->given != MAP_FAILED)
		munmap(balloon->given, GIVEN_BYTES);
	free(balloon->collected);
	free(balloon->ranges);
	free(balloon);
}

static struct mv_balloon *allocate(void)
{
	struct mv_balloon *balloon = calloc(1, sizeof(*balloon));

	if (!balloon)
		return NULL;
	balloon->given = mmap(NULL, GIVEN_BYTES, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	balloon->collected = calloc(BALLOON_COLLECT_MAX, sizeof(*balloon->collected));
	balloon->ranges = calloc(BALLOON_COLLECT_MAX, sizeof(*balloon->ranges));
	if (balloon->given == MAP_FAILED || !balloon->collected || !balloon->ranges) {
		release(balloon);
		return NULL;
	}
	return balloon;
}

int mv_balloon_create(const struct mv_balloon_config *config, struct mv_balloon **balloon)
{
	static const struct mv_balloon_ops none;
	struct mv_balloon *made;

	if (!config_valid(config))
		return -EINVAL;
	made = allocate();
	if (!made)
		return -ENOMEM;
	made->memory = config->memory;
	made->pager = config->pager;
	made->ops = config->ops ? config->ops : &none;
	made->ctx = config->ctx;
	made->offered = config->features | MV_BALLOON_VERSION_1;
	made->hint_id = VIRTIO_BALLOON_CMD_ID_DONE;
	pthread_mutex_init(&made->lock, NULL);
	*balloon = made;
	return 0;
}

static void forget_queues(struct mv_balloon *balloon)
{
	for (unsigned int i = 0; i < MV_BALLOON_QUEUES; i++) {
		mv_virtqueue_destroy(balloon->queues[i]);
		balloon->queues[i] = NULL;
		balloon->work[i].active = false;
	}
	balloon->stats_held = false;
}

void mv_balloon_destroy(struct mv_balloon *balloon)
{
	if (!balloon)
		return;
	forget_queues(balloon);
	pthread_mutex_destroy(&balloon->lock);
	release(balloon);
}

void mv_balloon_reset(struct mv_balloon *balloon)
{
	pthread_mutex_lock(&balloon->lock);
	forget_queues(balloon);
	balloon->accepted = 0;
	balloon->guest = (struct mv_balloon_guest_stats){ .known = 0 };
	balloon->hinting = HINTING_OFF;
	balloon->config.actual = 0;
	balloon->config.poison_val = 0;
	mv_balloon_return_all(balloon);
	pthread_mutex_unlock(&balloon->lock);
}

uint64_t mv_balloon_features(const struct mv_balloon *balloon)
{
	return balloon->offered;
}

int mv_balloon_accept(struct mv_balloon *balloon, uint64_t features)
{
	if ((features & ~balloon->offered) || !(features & MV_BALLOON_VERSION_1))
		return -EINVAL;
	pthread_mutex_lock(&balloon->lock);
	balloon->accepted = features;
	pthread_mutex_unlock(&balloon->lock);
	return 0;
}

void mv_balloon_interrupt(struct mv_balloon *balloon, unsigned int queue)
{
	if (mv_virtqueue_wants_interrupt(balloon->queues[queue]) && balloon->ops->interrupt)
		balloon->ops->interrupt(balloon->ctx, queue);
}

void mv_balloon_config_changed(struct mv_balloon *balloon)
{
	if (balloon->ops->config_changed)
		balloon->ops->config_changed(balloon->ctx);
}

/* --- configuration space: VIRTIO 1.2, 5.5.4 ---------------------------------------------- */

static_assert(sizeof(struct virtio_balloon_config) == MV_BALLOON_CONFIG_BYTES,
	      "the configuration space has four words");

static uint32_t hint_word(const struct mv_balloon *balloon)
{
	switch (balloon->hinting) {
	case HINTING_ASKED:
	case HINTING_RUNS:
		return balloon->hint_id;
	case HINTING_DONE:
		return VIRTIO_BALLOON_CMD_ID_DONE;
	default:
		return VIRTIO_BALLOON_CMD_ID_STOP;
	}
}

/* The part of an access that lies within the space. */
static size_t config_part(uint64_t offset, size_t len)
{
	if (offset >= MV_BALLOON_CONFIG_BYTES)
		return 0;
	return len < MV_BALLOON_CONFIG_BYTES - offset ? len : MV_BALLOON_CONFIG_BYTES - offset;
}

void mv_balloon_read_config(struct mv_balloon *balloon, uint64_t offset, void *buf, size_t len)
{
	size_t part = config_part(offset, len);

	memset(buf, 0, len);
	pthread_mutex_lock(&balloon->lock);
	balloon->config.free_page_hint_cmd_id = hint_word(balloon);
	memcpy(buf, (const unsigned char *)&balloon->config + (part ? offset : 0), part);
	pthread_mutex_unlock(&balloon->lock);
}

void mv_balloon_write_config(struct mv_balloon *balloon, uint64_t offset, const void *buf,
			     size_t len)
{
	size_t part = config_part(offset, len);
	struct virtio_balloon_config next;

	pthread_mutex_lock(&balloon->lock);
	next = balloon->config;
	memcpy((unsigned char *)&next + (part ? offset : 0), buf, part);
	balloon->config.actual = next.actual;
	if (balloon_has(balloon, MV_BALLOON_PAGE_POISON))
		balloon->config.poison_val = next.poison_val;
	/* The guest has given what it was asked for: nothing more will come to go with it. */
	if (balloon->config.actual >= balloon->config.num_pages)
		mv_balloon_settle_locked(balloon);
	pthread_mutex_unlock(&balloon->lock);
}

void mv_balloon_set_target(struct mv_balloon *balloon, uint64_t bytes)
{
	uint64_t pages = bytes >> MV_PAGE_SHIFT;
	struct mv_memory_counts counts;

	mv_memory_get_counts(balloon->memory, &counts);
	if (pages > counts.total)
		pages = counts.total;
	if (pages >= BALLOON_PFNS)
		pages = BALLOON_PFNS - 1;
	pthread_mutex_lock(&balloon->lock);
	if (balloon->config.num_pages != pages) {
		balloon->config.num_pages = (uint32_t)pages;
		mv_balloon_config_changed(balloon);
	}
	pthread_mutex_unlock(&balloon->lock);
}

void mv_balloon_get_stats(struct mv_balloon *balloon, struct mv_balloon_stats *stats)
{
	pthread_mutex_lock(&balloon->lock);
	*stats = balloon->count;
	stats->target_bytes = (uint64_t)balloon->config.num_pages << MV_PAGE_SHIFT;
	stats->actual_bytes = (uint64_t)balloon->config.actual << MV_PAGE_SHIFT;
	stats->given_bytes = balloon->given_pages << MV_PAGE_SHIFT;
	stats->collected_bytes = balloon->collected_count << MV_PAGE_SHIFT;
	pthread_mutex_unlock(&balloon->lock);
}
