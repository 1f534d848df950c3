/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The RAM store's index and counters: what its setting up (ram_setup.c), its operations
 * (ram_store.c) and its cleaning (ram_clean.c) share.
 *
 * The index has one word of 64 bits a key, changed only atomically:
 *
 *   63                                   14 13           2 1 0
 *  +---------------------------------------+--------------+---+
 *  | place in the log, in units of 4 bytes | length less 1|0 1|  an object
 *  +---------------------------------------+--------------+---+
 *  | 62 bits, sign-extended                               |1 0|  a page of one such word
 *  +------------------------------------------------------+---+
 *  | 0                     | 32 bits                      |1 1|  a page of two such halves
 *  +------------------------------------------------------+---+
 *  | 0                                                        |  free
 *  +----------------------------------------------------------+
 *
 * So a page of zeros, of small or negative numbers, of pointers, or of any repeated byte,
 * 16- or 32-bit pattern takes nothing but its word here. Another repeated 64-bit word is an
 * object with a payload of 8 bytes, which is less than LZ4 can give. A payload of 4,096 bytes
 * is the page as it is.
 */
#ifndef MV_RAM_STORE_H
#define MV_RAM_STORE_H

#include <memvirt/store.h>

#include "ram_log.h"

/* Lengths that tell how a payload is to be read; all others are LZ4's. */
#define RAM_LENGTH_WORD sizeof(uint64_t)
#define RAM_LENGTH_RAW	MV_PAGE_SIZE

#define RAM_ENTRY_FREE	 0u
#define RAM_ENTRY_OBJECT 1u
#define RAM_ENTRY_WORD	 2u
#define RAM_ENTRY_HALVES 3u
#define RAM_ENTRY_KIND	 3u

#define RAM_ENTRY_KIND_BITS 2
#define RAM_ENTRY_AT_SHIFT  (RAM_ENTRY_KIND_BITS + RAM_LENGTH_BITS)

#define RAM_ENTRIES_PER_PAGE (MV_PAGE_SIZE / sizeof(uint64_t))

#define RAM_STRIPES 16

/**
 * struct ram_stripe - counters of the threads that hash to it, all atomic
 *
 * A counter that both grows and shrinks may wrap in one stripe; the sum is right.
 */
struct ram_stripe {
	uint64_t puts;
	uint64_t gets;
	uint64_t drops;
	uint64_t same_filled;
	uint64_t incompressible;
	uint64_t content; /* bytes of payload alive */
	uint64_t dead;	  /* bytes of log that nobody needs, in open and sealed segments */
	uint64_t moved;
} __attribute__((aligned(64)));

/**
 * struct ram_store - the RAM store
 *
 * Constant: the first block, but for what its pointers show. Atomic: @index[], each on its own;
 * @populated[]; the counters.
 */
struct ram_store {
	struct mv_store store;
	struct mv_platform platform;
	uint64_t keys;
	uint64_t *index;
	uint64_t index_pages;
	unsigned char *populated; /* one a page of the index: may it be touched? */
	unsigned int slack_percent;

	uint64_t full;
	uint64_t corrupt;
	struct ram_log log;
	struct ram_stripe stripes[RAM_STRIPES];
};

/* Threads have stacks of their own, megabytes apart, so an address on it tells them apart. */
static inline struct ram_stripe *ram_stripe(struct ram_store *rs)
{
	uint64_t frame = (uintptr_t)__builtin_frame_address(0) >> 16;

	return &rs->stripes[frame * 0x9e3779b97f4a7c15ULL >> 60];
}

static inline void ram_count(uint64_t *counter, uint64_t add)
{
	__atomic_fetch_add(counter, add, __ATOMIC_RELAXED);
}

/* The sum of one counter over all stripes: RAM_SUM(rs, dead). */
#define RAM_SUM(rs, counter) ram_sum(&(rs)->stripes[0].counter)

static inline uint64_t ram_sum(const uint64_t *first)
{
	uint64_t sum = 0;

	for (unsigned int i = 0; i < RAM_STRIPES; i++)
		sum += __atomic_load_n(first + i * (sizeof(struct ram_stripe) / sizeof(*first)),
				       __ATOMIC_RELAXED);
	/* The stripes are read one after the other: a sum of what shrinks may come out below 0. */
	return (int64_t)sum < 0 ? 0 : sum;
}

static inline uint64_t ram_entry(uint64_t at, uint32_t length)
{
	uint64_t place = ((uint64_t)ram_head_segment(at) << RAM_SEGMENT_SHIFT) +
			 ram_head_filled(at);

	return place >> RAM_LOG_UNIT_SHIFT << RAM_ENTRY_AT_SHIFT |
	       (uint64_t)(length - 1) << RAM_ENTRY_KIND_BITS | RAM_ENTRY_OBJECT;
}

static inline uint32_t ram_entry_length(uint64_t entry)
{
	return (uint32_t)(entry >> RAM_ENTRY_KIND_BITS & ((1u << RAM_LENGTH_BITS) - 1)) + 1;
}

static inline uint32_t ram_entry_segment(uint64_t entry)
{
	return (uint32_t)(entry >> RAM_ENTRY_AT_SHIFT >> (RAM_SEGMENT_SHIFT - RAM_LOG_UNIT_SHIFT));
}

static inline struct ram_object *ram_entry_object(const struct ram_log *log, uint64_t entry)
{
	return (struct ram_object *)(log->base +
				     (entry >> RAM_ENTRY_AT_SHIFT << RAM_LOG_UNIT_SHIFT));
}

/* May the key's word be looked at? Acquire pairs with the release in ram_store.c. */
static inline bool ram_key_usable(const struct ram_store *rs, uint64_t key)
{
	return key < rs->keys &&
	       __atomic_load_n(&rs->populated[key / RAM_ENTRIES_PER_PAGE], __ATOMIC_ACQUIRE);
}

/* An object lost its entry. */
static inline void ram_bury(struct ram_store *rs, uint64_t entry)
{
	uint32_t bytes = ram_object_bytes(ram_entry_length(entry));

	ram_log_bury(&rs->log, ram_entry_segment(entry), bytes);
	ram_count(&ram_stripe(rs)->dead, bytes);
}

/** mv_ram_store_maintain() - the store's maintain operation */
int mv_ram_store_maintain(struct mv_store *store);

/** mv_ram_store_destroy() - the store's destroy operation */
void mv_ram_store_destroy(struct mv_store *store);

extern const struct mv_store_ops mv_ram_store_ops;

#endif /* MV_RAM_STORE_H */
