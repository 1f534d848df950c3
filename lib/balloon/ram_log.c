/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Segments of the RAM store's log: opening, sealing, charging, giving back; see ram_log.h.
 *
 * All that moves content is in ram_clean.c.
 */
#include "ram_log.h"

#include <errno.h>
#include <sys/mman.h>

#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* Linux 5.18 */
#endif

int mv_ram_log_init(struct ram_log *log, const struct mv_platform *platform, uint32_t count,
		 uint64_t limit)
{
	size_t bytes = (size_t)count << RAM_SEGMENT_SHIFT;
	void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (base == MAP_FAILED)
		return -ENOMEM;
	/* A huge page would bring in, and keep, memory that nobody has charged. */
	madvise(base, bytes, MADV_NOHUGEPAGE);

	log->platform = platform;
	log->base = base;
	log->bytes = bytes;
	log->count = count;
	log->limit = limit;
	log->counts_records = limit == UINT64_MAX;
	log->blank = log->spare = RAM_SEGMENT_NONE;
	log->put_head = log->clean_head = RAM_HEAD_CLOSED;
	pthread_mutex_init(&log->lock, NULL);
	pthread_mutex_init(&log->clean_lock, NULL);
	return 0;
}

void mv_ram_log_exit(struct ram_log *log)
{
	pthread_mutex_destroy(&log->clean_lock);
	pthread_mutex_destroy(&log->lock);
	munmap(log->base, log->bytes);
}

int mv_ram_log_lock_memory(struct ram_log *log)
{
	if (mlock2(log->base, log->bytes, MLOCK_ONFAULT))
		return -errno;
	log->locked = true;
	return 0;
}

static void *segment_base(const struct ram_log *log, uint32_t segment)
{
	return log->base + ((size_t)segment << RAM_SEGMENT_SHIFT);
}

/* Under @lock; atomic for those who only look. */
static void count_memory(struct ram_log *log, uint64_t memory)
{
	__atomic_store_n(&log->memory, memory, __ATOMIC_RELAXED);
}

static void count_in_use(struct ram_log *log, uint32_t in_use)
{
	__atomic_store_n(&log->in_use, in_use, __ATOMIC_RELAXED);
}

/* Segments that a budget of @left bytes and the mapping allow. Context: log->lock. */
static uint32_t available(const struct ram_log *log, uint64_t left)
{
	uint64_t blanks = log->count - log->fresh + log->blanks;
	uint64_t affordable = left >> RAM_SEGMENT_SHIFT;

	return log->spares + (uint32_t)(affordable < blanks ? affordable : blanks);
}

uint32_t mv_ram_log_available(struct ram_log *log)
{
	pthread_mutex_lock(&log->lock);
	uint32_t segments = available(log, log->limit - log->memory);
	pthread_mutex_unlock(&log->lock);
	return segments;
}

int mv_ram_log_charge(struct ram_log *log, uint64_t bytes)
{
	int error = -ENOSPC;

	pthread_mutex_lock(&log->lock);
	uint64_t left = log->limit - log->memory;

	if (left >= bytes && available(log, left - bytes) >= RAM_LOG_RESERVE) {
		count_memory(log, log->memory + bytes);
		error = 0;
	}
	pthread_mutex_unlock(&log->lock);
	return error;
}

void mv_ram_log_uncharge(struct ram_log *log, uint64_t bytes)
{
	pthread_mutex_lock(&log->lock);
	count_memory(log, log->memory - bytes);
	pthread_mutex_unlock(&log->lock);
}

static void push(struct ram_log *log, uint32_t *list, uint32_t *length, uint32_t segment)
{
	log->segments[segment].next = *list;
	*list = segment;
	++*length;
}

static uint32_t pop(struct ram_log *log, uint32_t *list, uint32_t *length)
{
	uint32_t segment = *list;

	*list = log->segments[segment].next;
	--*length;
	return segment;
}

static void set_state(struct ram_log *log, uint32_t segment, enum ram_segment_state state)
{
	__atomic_store_n(&log->segments[segment].state, state, __ATOMIC_RELEASE);
}

/* Pages that the records of the first @count segments take. */
static uint64_t record_bytes(const struct ram_log *log, uint32_t count)
{
	uint64_t bytes = (uint64_t)count * sizeof(*log->segments);

	return (bytes + MV_PAGE_SIZE - 1) & ~(MV_PAGE_SIZE - 1);
}

/* Without a limit the records count as they come into use, under one from the start. */
static uint64_t first_use_bytes(const struct ram_log *log, uint32_t segment)
{
	if (!log->counts_records)
		return 0;
	return record_bytes(log, segment + 1) - record_bytes(log, segment);
}

/* Give a segment memory, all at once: one system call, and an error where there is none. */
static int populate(struct ram_log *log, uint32_t *segment)
{
	uint32_t blank = log->blanks ? pop(log, &log->blank, &log->blanks) : log->fresh;

	if (madvise(segment_base(log, blank), RAM_SEGMENT_BYTES, MADV_POPULATE_WRITE)) {
		madvise(segment_base(log, blank), RAM_SEGMENT_BYTES,
			log->locked ? MADV_DONTNEED_LOCKED : MADV_DONTNEED);
		if (blank != log->fresh)
			push(log, &log->blank, &log->blanks, blank);
		return -ENOSPC;
	}
	if (blank == log->fresh) {
		count_memory(log, log->memory + first_use_bytes(log, blank));
		__atomic_store_n(&log->fresh, blank + 1, __ATOMIC_RELAXED);
	}
	count_memory(log, log->memory + RAM_SEGMENT_BYTES);
	*segment = blank;
	return 0;
}

static int open_segment(struct ram_log *log, uint32_t reserve, uint32_t *segment)
{
	if (available(log, log->limit - log->memory) <= reserve)
		return -ENOSPC;
	if (log->spares)
		*segment = pop(log, &log->spare, &log->spares);
	else if (populate(log, segment))
		return -ENOSPC;
	__atomic_store_n(&log->segments[*segment].dead, 0, __ATOMIC_RELAXED);
	set_state(log, *segment, RAM_SEGMENT_OPEN);
	count_in_use(log, log->in_use + 1);
	return 0;
}

/*
 * Nobody takes room behind @head any more, so the fill is final; those who took it before
 * entered their read sections before the grace periods that begin from now on.
 */
static void seal(struct ram_log *log, uint64_t head)
{
	struct ram_segment *segment = &log->segments[ram_head_segment(head)];

	segment->filled = ram_head_filled(head);
	segment->sealed_at = log->graces_begun;
	segment->sealed_as = log->seals + 1;
	__atomic_store_n(&log->seals, segment->sealed_as, __ATOMIC_RELAXED);
	set_state(log, ram_head_segment(head), RAM_SEGMENT_SEALED);
}

bool mv_ram_log_take(uint64_t *head, uint32_t bytes, uint64_t *at)
{
	/* Acquire: a segment just opened is seen as mv_ram_log_open() left it. */
	uint64_t now = __atomic_load_n(head, __ATOMIC_ACQUIRE);

	while (ram_head_has_room(now, bytes)) {
		if (__atomic_compare_exchange_n(head, &now, now + bytes, true, __ATOMIC_ACQUIRE,
						__ATOMIC_ACQUIRE)) {
			*at = now;
			return true;
		}
	}
	return false;
}

/* Context: log->lock. */
static int replace_segment(struct ram_log *log, uint64_t *head, uint32_t reserve)
{
	uint32_t segment;
	int error = open_segment(log, reserve, &segment);

	if (error)
		return error;

	uint64_t full = __atomic_exchange_n(head, (uint64_t)segment << 32, __ATOMIC_ACQ_REL);

	if (full != RAM_HEAD_CLOSED)
		seal(log, full);
	return 0;
}

int mv_ram_log_open(struct ram_log *log, uint64_t *head, uint32_t bytes, uint32_t reserve)
{
	int error = 0;

	pthread_mutex_lock(&log->lock);
	/* Another thread may have opened one while this one waited for the lock. */
	if (!ram_head_has_room(__atomic_load_n(head, __ATOMIC_RELAXED), bytes))
		error = replace_segment(log, head, reserve);
	pthread_mutex_unlock(&log->lock);
	return error;
}

void mv_ram_log_settle(struct ram_log *log)
{
	pthread_mutex_lock(&log->lock);
	uint64_t grace = ++log->graces_begun;
	pthread_mutex_unlock(&log->lock);

	log->platform->ops->wait_readers(log->platform->ctx);
	log->graces_done = grace;
}

void mv_ram_log_release(struct ram_log *log, uint32_t segment, uint32_t spares)
{
	int advice = log->locked ? MADV_DONTNEED_LOCKED : MADV_DONTNEED;

	pthread_mutex_lock(&log->lock);
	count_in_use(log, log->in_use - 1);
	if (log->spares < spares ||
	    madvise(segment_base(log, segment), RAM_SEGMENT_BYTES, advice)) {
		set_state(log, segment, RAM_SEGMENT_SPARE);
		push(log, &log->spare, &log->spares, segment);
	} else {
		set_state(log, segment, RAM_SEGMENT_BLANK);
		push(log, &log->blank, &log->blanks, segment);
		count_memory(log, log->memory - RAM_SEGMENT_BYTES);
	}
	pthread_mutex_unlock(&log->lock);
}
