/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A page store keeps the content of evicted pages: compressed memory here, files and
 * the network later, all behind one table of operations.
 *
 * Pages are named by dense keys, chosen by the caller. A key has one user at a time (for
 * the pager: whoever holds the page's busy bit); different keys may be used by any number
 * of threads at once.
 */
#ifndef MEMVIRT_STORE_H
#define MEMVIRT_STORE_H

#include <stddef.h>
#include <stdint.h>

#include <memvirt/platform.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/**
 * struct mv_store_stats - what a store holds, at this moment
 * @pages:            pages kept
 * @same_filled:      of these, kept as one repeated 64-bit word
 * @incompressible:   of these, kept as they are
 * @compressed_bytes: content as kept, without any overhead
 * @memory_bytes:     host memory in use: content, overhead, free space in partly filled
 *                    segments, and the index as far as it is populated
 * @limit_bytes:      what @memory_bytes may grow to; UINT64_MAX for no limit
 * @puts, @gets, @drops: operations so far
 * @full:             puts refused for want of space
 * @corrupt:          gets that found a checksum or length wrong
 * @moved_bytes:      copied by cleaning so far
 */
struct mv_store_stats {
	uint64_t pages;
	uint64_t same_filled;
	uint64_t incompressible;
	uint64_t compressed_bytes;
	uint64_t memory_bytes;
	uint64_t limit_bytes;
	uint64_t puts;
	uint64_t gets;
	uint64_t drops;
	uint64_t full;
	uint64_t corrupt;
	uint64_t moved_bytes;
};

struct mv_store;

/**
 * struct mv_store_ops - the operations of a store
 * @scratch_bytes: working memory that @put needs; one piece a thread, any content
 * @put:      keep the 4,096 bytes at @page under @key, which must be free. The page may
 *            change meanwhile (its eviction is then cancelled and the copy dropped): what is
 *            kept is then undefined but still readable and droppable.
 *            0; -ENOSPC full, -EIO: nothing kept; -EEXIST where the key is not free, -EINVAL
 *            where there is no such key.
 * @get:      copy out what @key holds. Allocates nothing and takes no lock.
 *            0; -EILSEQ where what was kept does not match its checksum, -EIO, -ENOENT where
 *            the key is free: @page then holds nothing of use.
 * @drop:     free the key. Takes no lock, allocates nothing; a free key is left alone.
 * @maintain: one bounded piece of cleaning, for a thread that may sleep and is no reader.
 *            1 where there is more to do, 0 where not.
 * @get_stats: see struct mv_store_stats.
 * @destroy:  free everything. No key is in use.
 */
struct mv_store_ops {
	size_t scratch_bytes;
	int (*put)(struct mv_store *store, uint64_t key, const void *page, void *scratch);
	int (*get)(struct mv_store *store, uint64_t key, void *page);
	void (*drop)(struct mv_store *store, uint64_t key);
	int (*maintain)(struct mv_store *store);
	void (*get_stats)(struct mv_store *store, struct mv_store_stats *stats);
	void (*destroy)(struct mv_store *store);
};

/** struct mv_store - embedded in every implementation, as its first member */
struct mv_store {
	const struct mv_store_ops *ops;
};

/**
 * struct mv_ram_store_config - what mv_ram_store_create() needs
 * @size:        sizeof(struct mv_ram_store_config)
 * @platform:    NULL for mv_platform_linux()
 * @keys:        keys are 0 … @keys-1; address space for the index is reserved at once,
 *               memory only where keys are used
 * @limit_bytes: bound on mv_store_stats.memory_bytes; UINT64_MAX for none
 * @lock_memory: keep index and content in memory (mlock), so that a get never waits for
 *               the host's swap; best effort, see mv_ram_store_create()
 * @slack_percent: part of the content's memory that may lie in dropped pages before
 *               cleaning sets in, 1 to 50; less costs more copying. 0 for the default of 3.
 */
struct mv_ram_store_config {
	size_t size;
	const struct mv_platform *platform;
	uint64_t keys;
	uint64_t limit_bytes;
	int lock_memory;
	unsigned int slack_percent;
};

/**
 * mv_ram_store_create() - a store in compressed host memory
 * @config: see struct mv_ram_store_config
 * @store:  set on success
 *
 * A page filled with one repeated 64-bit word is kept as that word; the rest by LZ4, or as
 * it is where LZ4 gains nothing; a checksum on each. Content lies in an append-only log of
 * segments; cleaning moves what is alive out of the emptiest and gives their memory back.
 *
 * Where @lock_memory cannot be honoured (RLIMIT_MEMLOCK), the store works and logs it once.
 *
 * Context: may sleep.
 * Return: 0; -EINVAL for a bad config; -ENOMEM.
 */
int mv_ram_store_create(const struct mv_ram_store_config *config, struct mv_store **store);

/**
 * mv_store_destroy() - free a store of any kind
 * @store: may be NULL
 */
void mv_store_destroy(struct mv_store *store);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_STORE_H */
