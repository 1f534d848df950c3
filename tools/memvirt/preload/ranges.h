/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where guest memory lies in this process: the small table that every interposed function
 * asks first. Nearly always the answer is "not here", and costs two loads.
 *
 * Readers take no lock; the table is copied out under a sequence count. A reader that races
 * with a change sees the table before or after it, which is all that a caller can expect
 * who uses memory while another thread maps or unmaps it.
 */
#ifndef PRELOAD_RANGES_H
#define PRELOAD_RANGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RANGES_MAX 256

enum range_flag {
	RANGE_PRIVATE = 1 << 0, /* private anonymous memory; else shared */
	RANGE_MANAGED = 1 << 1, /* the pager has it */
};

/**
 * struct range - a stretch of guest memory
 * @first: first byte
 * @last:  last byte
 * @gpa:   of @first, in the ledger's terms; RANGE_NO_GPA where the ledger does not know it
 * @flags: bits of enum range_flag
 */
struct range {
	uintptr_t first;
	uintptr_t last;
	uint64_t gpa;
	unsigned int flags;
};

#define RANGE_NO_GPA UINT64_MAX

/**
 * struct ranges - the table, sorted by address
 *
 * Atomic: @lowest, @highest: bounds of all ranges; empty where @lowest > @highest.
 * By the sequence: @count, @range[]. Written under the lock of whoever owns the table.
 */
struct ranges {
	uintptr_t lowest;
	uintptr_t highest;
	unsigned int sequence;
	unsigned int count;
	struct range range[RANGES_MAX];
};

static inline uintptr_t ranges_last(const void *addr, size_t len)
{
	uintptr_t first = (uintptr_t)addr;

	return len > UINTPTR_MAX - first ? UINTPTR_MAX : first + len - 1;
}

/** ranges_maybe() - whether a look into the table can be worth it */
static inline bool ranges_maybe(const struct ranges *ranges, const void *addr, size_t len)
{
	return len && (uintptr_t)addr <= __atomic_load_n(&ranges->highest, __ATOMIC_RELAXED) &&
	       ranges_last(addr, len) >= __atomic_load_n(&ranges->lowest, __ATOMIC_RELAXED);
}

/**
 * ranges_next() - the first piece of guest memory in a buffer
 * @ranges: the table
 * @addr:   the buffer
 * @len:    its length
 * @hit:    set to the piece: the part of the range that lies in the buffer
 *
 * Context: any thread; waits only while the table is being written.
 * Return: false where there is none.
 */
bool ranges_next(const struct ranges *ranges, const void *addr, size_t len, struct range *hit);

/** ranges_after() - what is left of a buffer behind a piece: moves @addr and @len on */
static inline bool ranges_after(const struct range *hit, const void **addr, size_t *len)
{
	uintptr_t last = ranges_last(*addr, *len);

	if (hit->last >= last)
		return false;
	*addr = (const void *)(hit->last + 1);
	*len = last - hit->last;
	return true;
}

/** ranges_set() - replace the table; @range is sorted. Context: one thread at a time. */
void ranges_set(struct ranges *ranges, const struct range *range, unsigned int count);

#endif /* PRELOAD_RANGES_H */
