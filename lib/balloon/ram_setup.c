/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How a RAM store comes into being, with all that it will ever allocate, and how it goes.
 *
 * What it does in between is in ram_store.c.
 */
#include "ram_store.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* What an object's header can name is 2^52; address space ends before. */
#define KEYS_MAX (1ULL << 40)

/* One segment open for puts, one for cleaning, one that cleaning may need, one to gain. */
#define SEGMENTS_MIN 4

#define SLACK_PERCENT	  3
#define SLACK_PERCENT_MAX 50

static size_t whole_pages(size_t bytes)
{
	return (bytes + MV_PAGE_SIZE - 1) & ~(MV_PAGE_SIZE - 1);
}

/*
 * Records are allocated as whole pages, so that locking them locks nothing else, and
 * unlocking them frees nobody else's lock.
 */
static void *alloc_record(const struct mv_platform *platform, size_t bytes)
{
	return platform->ops->alloc(platform->ctx, whole_pages(bytes), -1);
}

static void free_record(const struct mv_platform *platform, void *record, size_t bytes)
{
	if (record)
		munlock(record, whole_pages(bytes));
	platform->ops->free(platform->ctx, record, whole_pages(bytes));
}

static size_t index_bytes(const struct ram_store *rs)
{
	return rs->index_pages * MV_PAGE_SIZE;
}

static size_t segment_records(const struct ram_store *rs)
{
	return rs->log.count * sizeof(*rs->log.segments);
}

/*
 * Memory that is there from the start, whatever is kept, or, of the records of segments under
 * a limit, may come to be. Without a limit there are as many records as a host could ever
 * need, and they count as they come into use: see populate() in ram_log.c.
 */
static uint64_t fixed_bytes(const struct ram_store *rs)
{
	uint64_t bytes = whole_pages(sizeof(*rs)) + whole_pages(rs->index_pages);

	return rs->log.counts_records ? bytes : bytes + whole_pages(segment_records(rs));
}

void mv_ram_store_destroy(struct mv_store *store)
{
	struct ram_store *rs = (struct ram_store *)store;
	struct mv_platform platform = rs->platform;

	free_record(&platform, rs->log.segments, segment_records(rs));
	mv_ram_log_exit(&rs->log);
	munmap(rs->index, index_bytes(rs));
	free_record(&platform, rs->populated, rs->index_pages);
	free_record(&platform, rs, sizeof(*rs));
}

/*
 * Segments for every key in its worst case and for what is dead between cleanings, where the
 * limit does not end it before. It is address space only.
 */
static uint32_t segments_for(const struct mv_ram_store_config *config)
{
	uint64_t worst = config->keys / (RAM_SEGMENT_BYTES / ram_object_bytes(MV_PAGE_SIZE)) + 1;
	uint64_t most = worst + worst / 2 + 16;
	uint64_t allowed = config->limit_bytes >> RAM_SEGMENT_SHIFT;

	if (most > allowed)
		most = allowed;
	return most < RAM_SEGMENT_NONE ? (uint32_t)most : RAM_SEGMENT_NONE - 1;
}

static int map_index(struct ram_store *rs)
{
	void *index = mmap(NULL, index_bytes(rs), PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (index == MAP_FAILED)
		return -ENOMEM;
	/* A huge page would bring in, and keep, memory that nobody has charged. */
	madvise(index, index_bytes(rs), MADV_NOHUGEPAGE);
	rs->index = index;
	return 0;
}

static void lock_memory(struct ram_store *rs)
{
	char line[192];

	if (!mv_ram_log_lock_memory(&rs->log) &&
	    !mlock2(rs->index, index_bytes(rs), MLOCK_ONFAULT) &&
	    !mlock(rs->populated, whole_pages(rs->index_pages)) &&
	    !mlock2(rs->log.segments, whole_pages(segment_records(rs)), MLOCK_ONFAULT) &&
	    !mlock(rs, whole_pages(sizeof(*rs))))
		return;
	if (!rs->platform.ops->log)
		return;
	snprintf(line, sizeof(line),
		 "store: its memory cannot be locked (%s): a page may have to wait for the host's "
		 "swap; raise RLIMIT_MEMLOCK (ulimit -l)",
		 strerror(errno));
	rs->platform.ops->log(rs->platform.ctx, MV_LOG_WARNING, line);
}

static int set_up(struct ram_store *rs, const struct mv_ram_store_config *config)
{
	const struct mv_platform *platform = &rs->platform;
	uint32_t segments = segments_for(config);
	int error = -ENOMEM;

	rs->populated = alloc_record(platform, rs->index_pages);
	rs->log.segments = alloc_record(platform, segments * sizeof(*rs->log.segments));
	if (!rs->populated || !rs->log.segments || map_index(rs))
		goto free_records;
	if (mv_ram_log_init(&rs->log, platform, segments, config->limit_bytes))
		goto unmap_index;
	error = -EINVAL;
	if (mv_ram_log_charge(&rs->log, fixed_bytes(rs)) ||
	    mv_ram_log_available(&rs->log) < SEGMENTS_MIN)
		goto exit_log;
	return 0;

exit_log:
	mv_ram_log_exit(&rs->log);
unmap_index:
	munmap(rs->index, index_bytes(rs));
free_records:
	free_record(platform, rs->log.segments, segments * sizeof(*rs->log.segments));
	free_record(platform, rs->populated, rs->index_pages);
	return error;
}

static bool config_is_good(const struct mv_ram_store_config *config)
{
	return config && config->size == sizeof(*config) && config->keys &&
	       config->keys <= KEYS_MAX && config->slack_percent <= SLACK_PERCENT_MAX &&
	       segments_for(config) >= SEGMENTS_MIN;
}

int mv_ram_store_create(const struct mv_ram_store_config *config, struct mv_store **store)
{
	if (!config_is_good(config))
		return -EINVAL;

	const struct mv_platform *platform =
		config->platform ? config->platform : mv_platform_linux();
	struct ram_store *rs = alloc_record(platform, sizeof(*rs));

	if (!rs)
		return -ENOMEM;
	rs->store.ops = &mv_ram_store_ops;
	rs->platform = *platform;
	rs->keys = config->keys;
	rs->index_pages = (config->keys + RAM_ENTRIES_PER_PAGE - 1) / RAM_ENTRIES_PER_PAGE;
	rs->slack_percent = config->slack_percent ? config->slack_percent : SLACK_PERCENT;

	int error = set_up(rs, config);

	if (error) {
		free_record(platform, rs, sizeof(*rs));
		return error;
	}
	if (config->lock_memory)
		lock_memory(rs);
	*store = &rs->store;
	return 0;
}
