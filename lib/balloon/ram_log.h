/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The log in which a RAM store keeps content: objects appended one after the other to
 * segments, which lie in one big mapping that has memory only where it is used.
 *
 *   mapping   | segment 0 | segment 1 | segment 2 | ...
 *   segment   | object | object | object | ... | unused end |
 *   object    | checksum, key, length | payload | up to 3 bytes of padding |
 *
 * Two segments are open at a time: one takes what is put, the other what cleaning moves, so
 * that content which lives long gathers in segments that hardly ever need cleaning. Taking
 * room is one compare-exchange; opening a segment takes @lock, once in some 200 objects.
 *
 * An object that is dropped stays where it is; its bytes are added to the segment's @dead.
 * A segment of which every byte is dead may be given back once no reader is left in it.
 *
 * A segment in which room was taken is written inside a read section. So, once a grace
 * period has passed since it was sealed, all its objects are complete: it is settled.
 *
 * What does not belong here: which object is alive, and which segment to clean (ram_clean.c).
 */
#ifndef MV_RAM_LOG_H
#define MV_RAM_LOG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <memvirt/memory.h>
#include <memvirt/platform.h>

#define RAM_SEGMENT_SHIFT 18
#define RAM_SEGMENT_BYTES (1UL << RAM_SEGMENT_SHIFT)
#define RAM_SEGMENT_NONE  UINT32_MAX

/* Objects begin at multiples of this. */
#define RAM_LOG_UNIT_SHIFT 2
#define RAM_LOG_UNIT	   (1UL << RAM_LOG_UNIT_SHIFT)

#define RAM_LENGTH_BITS 12
#define RAM_KEY_BITS	(64 - RAM_LENGTH_BITS)

/**
 * struct ram_object - how content lies in the log
 * @checksum:       of key, length and payload
 * @key_low:        bits 0..31 of the key
 * @key_and_length: bits 32..51 of the key, then the payload's length less one
 * @payload:        1 to 4,096 bytes
 *
 * Three words of 32 bits, so that 4 bytes are alignment enough: at a thousand bytes of
 * content an object each byte of overhead counts.
 */
struct ram_object {
	uint32_t checksum;
	uint32_t key_low;
	uint32_t key_and_length;
	unsigned char payload[];
};

static inline uint64_t ram_object_key(const struct ram_object *object)
{
	return (uint64_t)(object->key_and_length >> RAM_LENGTH_BITS) << 32 | object->key_low;
}

static inline uint32_t ram_object_length(const struct ram_object *object)
{
	return (object->key_and_length & ((1u << RAM_LENGTH_BITS) - 1)) + 1;
}

static inline void ram_object_set(struct ram_object *object, uint64_t key, uint32_t length)
{
	object->key_low = (uint32_t)key;
	object->key_and_length = (uint32_t)(key >> 32) << RAM_LENGTH_BITS | (length - 1);
}

/* Bytes of log that an object of this payload takes. */
static inline uint32_t ram_object_bytes(uint32_t length)
{
	return (uint32_t)((sizeof(struct ram_object) + length + RAM_LOG_UNIT - 1) &
			  ~(RAM_LOG_UNIT - 1));
}

/**
 * enum ram_segment_state - what a segment is in use for
 * @RAM_SEGMENT_BLANK:   nothing; has no memory
 * @RAM_SEGMENT_SPARE:   nothing; has memory, to be used next
 * @RAM_SEGMENT_OPEN:    objects are appended
 * @RAM_SEGMENT_SEALED:  full
 * @RAM_SEGMENT_DAMAGED: holds an object with a broken header; never cleaned, given back only
 *                       once everything in it has been dropped
 */
enum ram_segment_state {
	RAM_SEGMENT_BLANK,
	RAM_SEGMENT_SPARE,
	RAM_SEGMENT_OPEN,
	RAM_SEGMENT_SEALED,
	RAM_SEGMENT_DAMAGED,
};

/**
 * struct ram_segment - the record of one segment
 *
 * Atomic: @dead. Written under log->lock: the others; @state is published last, so that
 * cleaning may read what a sealed segment's record says without the lock.
 */
struct ram_segment {
	uint32_t dead;	    /* bytes that nobody needs any more */
	uint32_t filled;    /* bytes taken by objects, once sealed */
	uint64_t sealed_at; /* log->graces_begun when it was sealed */
	uint64_t sealed_as; /* number of its sealing: tells its age */
	uint32_t next;	    /* in the list of blank or spare ones */
	uint32_t state;	    /* enum ram_segment_state */
};

/*
 * Where a head stands: segment in the upper half, bytes taken in the lower. No segment has
 * as many bytes as RAM_HEAD_CLOSED says are taken.
 */
#define RAM_HEAD_CLOSED UINT64_MAX

/**
 * struct ram_log - see the top
 *
 * Constant: the first block. Under @lock, and some read without it as hints: the second.
 * Under @clean_lock: the third block. By compare-exchange: the heads.
 * Order: clean_lock, then lock.
 */
struct ram_log {
	const struct mv_platform *platform;
	unsigned char *base;
	size_t bytes; /* address space at @base */
	struct ram_segment *segments;
	uint32_t count;
	uint64_t limit; /* on @memory */
	bool locked;	/* mlocked */
	bool counts_records; /* as they come into use; or all were charged at the start */

	pthread_mutex_t lock;
	uint64_t memory;	/* bytes charged; atomic, written under @lock */
	uint32_t fresh;		/* segments from here on were never used; atomic likewise */
	uint32_t in_use;	/* open, sealed or damaged; atomic likewise */
	uint32_t blank, blanks; /* list of those used before, and its length */
	uint32_t spare, spares;
	uint64_t graces_begun;
	uint64_t seals; /* so far; atomic likewise */

	pthread_mutex_t clean_lock;
	uint64_t graces_done;
	uint32_t clean_cursor; /* where to look for victims next */

	uint64_t put_head __attribute__((aligned(64)));
	uint64_t clean_head __attribute__((aligned(64)));
};

/* Segments that puts leave free, so that cleaning can go on in a full store. */
#define RAM_LOG_RESERVE 1

/**
 * mv_ram_log_init() - reserve address space; nothing is populated
 * @log:      zeroed, but for @segments, which the caller allocated and frees
 * @platform: of the store
 * @count:    segments
 * @limit:    on everything charged
 *
 * Return: 0; -ENOMEM, @log needs no exit.
 */
int mv_ram_log_init(struct ram_log *log, const struct mv_platform *platform, uint32_t count,
		 uint64_t limit);
void mv_ram_log_exit(struct ram_log *log);

/** mv_ram_log_lock_memory() - mlock it as it gets populated; 0 or -errno */
int mv_ram_log_lock_memory(struct ram_log *log);

/** mv_ram_log_charge() - count memory that lies elsewhere; 0 or -ENOSPC */
int mv_ram_log_charge(struct ram_log *log, uint64_t bytes);
void mv_ram_log_uncharge(struct ram_log *log, uint64_t bytes);

/**
 * mv_ram_log_take() - room for an object in an open segment
 * @head:  put_head or clean_head
 * @bytes: of ram_object_bytes()
 * @at:    set to its place: the head's word
 *
 * Context: inside a read section, which lasts until the object is written.
 * Return: false where there is none left; leave the read section, mv_ram_log_open(), try again.
 */
bool mv_ram_log_take(uint64_t *head, uint32_t bytes, uint64_t *at);

/**
 * mv_ram_log_open() - seal a head's segment and open another, where it has no room left
 * @log:     the log
 * @head:    put_head or clean_head
 * @bytes:   wanted
 * @reserve: segments that must stay free
 *
 * Context: takes log->lock; sleeps; not in a read section.
 * Return: 0: try again; -ENOSPC.
 */
int mv_ram_log_open(struct ram_log *log, uint64_t *head, uint32_t bytes, uint32_t reserve);

/**
 * mv_ram_log_settle() - wait until no reader is left of those that are there now
 *
 * Context: under clean_lock; sleeps.
 */
void mv_ram_log_settle(struct ram_log *log);

/**
 * mv_ram_log_release() - take back a segment that is dead in every byte and has no readers
 * @log:     the log
 * @segment: sealed or damaged
 * @spares:  how many spare segments are worth keeping
 */
void mv_ram_log_release(struct ram_log *log, uint32_t segment, uint32_t spares);

/** mv_ram_log_available() - segments that could be opened now */
uint32_t mv_ram_log_available(struct ram_log *log);

static inline uint32_t ram_head_segment(uint64_t head)
{
	return (uint32_t)(head >> 32);
}

static inline uint32_t ram_head_filled(uint64_t head)
{
	return (uint32_t)head;
}

static inline bool ram_head_has_room(uint64_t head, uint32_t bytes)
{
	return (uint64_t)ram_head_filled(head) + bytes <= RAM_SEGMENT_BYTES;
}

static inline struct ram_object *ram_log_object(const struct ram_log *log, uint64_t at)
{
	return (struct ram_object *)(log->base +
				     ((uint64_t)ram_head_segment(at) << RAM_SEGMENT_SHIFT) +
				     ram_head_filled(at));
}

/* Release: who finds the segment dead in every byte may overwrite it. */
static inline void ram_log_bury(struct ram_log *log, uint32_t segment, uint32_t bytes)
{
	__atomic_fetch_add(&log->segments[segment].dead, bytes, __ATOMIC_RELEASE);
}

/*
 * Through the C library, whose copy picks the processor's widest vectors: of a size that it
 * knows something of, the compiler makes a string instruction that takes three times as long.
 */
static inline void ram_copy(void *to, const void *from, size_t bytes)
{
	__asm__("" : "+r"(bytes));
	memcpy(to, from, bytes);
}

/* Ask for memory that is used soon: all of it at once, where a loop would wait for each line. */
static inline void ram_prefetch(const void *memory, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += 64)
		__builtin_prefetch((const char *)memory + at);
}

#endif /* MV_RAM_LOG_H */
