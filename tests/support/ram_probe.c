/* SPDX-License-Identifier: BSD-2-Clause */
/* Looks into a RAM store; see ram_probe.h. */
#include "support/testing.h"

#include <sys/mman.h>

#include "support/ram_probe.h"

struct mv_store *ram_open(uint64_t keys, uint64_t limit_bytes)
{
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.keys = keys,
		.limit_bytes = limit_bytes,
	};
	struct mv_store *store = NULL;

	assert_int_equal(mv_ram_store_create(&config, &store), 0);
	return store;
}

struct ram_store *ram_of(struct mv_store *store)
{
	return (struct ram_store *)store;
}

struct mv_store_stats ram_stats(struct mv_store *store)
{
	struct mv_store_stats stats;

	store->ops->get_stats(store, &stats);
	return stats;
}

static uint64_t resident(void *base, size_t bytes)
{
	size_t pages = bytes / MV_PAGE_SIZE, count = 0;
	unsigned char *in_core = malloc(pages);

	assert_non_null(in_core);
	assert_int_equal(mincore(base, bytes, in_core), 0);
	for (size_t i = 0; i < pages; i++)
		count += in_core[i] & 1;
	free(in_core);
	return count * MV_PAGE_SIZE;
}

static uint64_t whole_pages(uint64_t bytes)
{
	return (bytes + MV_PAGE_SIZE - 1) / MV_PAGE_SIZE * MV_PAGE_SIZE;
}

static void check_memory(struct ram_store *rs, const struct mv_store_stats *stats)
{
	/* Without a limit only the records of segments that have been in use. */
	uint32_t segments = rs->log.counts_records ? rs->log.fresh : rs->log.count;
	uint64_t records = whole_pages(sizeof(*rs)) + whole_pages(rs->index_pages) +
			   whole_pages(segments * sizeof(*rs->log.segments));
	uint64_t index = resident(rs->index, rs->index_pages * MV_PAGE_SIZE);

	assert_int_equal(stats->memory_bytes, records + index +
						      resident(rs->log.base, rs->log.bytes));
	assert_true(stats->memory_bytes <= stats->limit_bytes);
}

static uint64_t entry_of(struct ram_store *rs, uint64_t key)
{
	return ram_key_usable(rs, key) ? rs->index[key] : RAM_ENTRY_FREE;
}

/* Where an open segment ends, a sealed one ended. */
static uint32_t filled(const struct ram_log *log, uint32_t segment)
{
	const uint64_t heads[] = { log->put_head, log->clean_head };

	for (unsigned int i = 0; i < 2; i++)
		if (heads[i] != RAM_HEAD_CLOSED && ram_head_segment(heads[i]) == segment)
			return ram_head_filled(heads[i]);
	return log->segments[segment].filled;
}

static void check_segments(struct ram_store *rs, const uint32_t *alive)
{
	uint64_t dead = 0;
	uint32_t in_use = 0, spares = 0;

	for (uint32_t i = 0; i < rs->log.count; i++) {
		const struct ram_segment *segment = &rs->log.segments[i];

		if (segment->state == RAM_SEGMENT_BLANK || segment->state == RAM_SEGMENT_SPARE) {
			spares += segment->state == RAM_SEGMENT_SPARE;
			assert_int_equal(alive[i], 0);
			continue;
		}
		in_use++;
		dead += segment->dead;
		assert_int_equal(alive[i] + segment->dead, filled(&rs->log, i));
	}
	assert_int_equal(dead, RAM_SUM(rs, dead));
	assert_int_equal(in_use, rs->log.in_use);
	assert_int_equal(spares, rs->log.spares);
}

static void check_object(struct ram_store *rs, uint64_t key, uint64_t entry)
{
	const struct ram_object *object = ram_entry_object(&rs->log, entry);

	assert_true(ram_entry_segment(entry) < rs->log.fresh);
	assert_int_equal(ram_object_key(object), key);
	assert_int_equal(ram_object_length(object), ram_entry_length(entry));
}

void ram_check(struct mv_store *store)
{
	struct ram_store *rs = ram_of(store);
	struct mv_store_stats stats = ram_stats(store);
	uint32_t *alive = calloc(rs->log.count, sizeof(*alive));
	uint64_t pages = 0, content = 0;

	assert_non_null(alive);
	for (uint64_t key = 0; key < rs->keys; key++) {
		uint64_t entry = entry_of(rs, key);

		pages += entry != RAM_ENTRY_FREE;
		if ((entry & RAM_ENTRY_KIND) != RAM_ENTRY_OBJECT)
			continue;
		check_object(rs, key, entry);
		content += ram_entry_length(entry);
		alive[ram_entry_segment(entry)] += ram_object_bytes(ram_entry_length(entry));
	}
	assert_int_equal(pages, stats.pages);
	assert_int_equal(content, stats.compressed_bytes);
	check_segments(rs, alive);
	check_memory(rs, &stats);
	free(alive);
}

struct ram_object *ram_object_of(struct mv_store *store, uint64_t key)
{
	struct ram_store *rs = ram_of(store);
	uint64_t entry = entry_of(rs, key);

	return (entry & RAM_ENTRY_KIND) == RAM_ENTRY_OBJECT ? ram_entry_object(&rs->log, entry)
							   : NULL;
}

void ram_clean(struct mv_store *store)
{
	unsigned int pieces = 0;

	while (store->ops->maintain(store))
		assert_true(++pieces < 100000);
}
