/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table of guest memory; see ranges.h.
 */
#include "memvirt/preload/ranges.h"

static uint64_t load(const void *word)
{
	return __atomic_load_n((const uint64_t *)word, __ATOMIC_RELAXED);
}

static void store(void *word, uint64_t value)
{
	__atomic_store_n((uint64_t *)word, value, __ATOMIC_RELAXED);
}

/* Fields one by one, atomically: the copy may be torn, and is then thrown away. */
static void copy_out(const struct range *from, struct range *to)
{
	to->first = load(&from->first);
	to->last = load(&from->last);
	to->gpa = load(&from->gpa);
	to->flags = __atomic_load_n(&from->flags, __ATOMIC_RELAXED);
}

static void copy_in(const struct range *from, struct range *to)
{
	store(&to->first, from->first);
	store(&to->last, from->last);
	store(&to->gpa, from->gpa);
	__atomic_store_n(&to->flags, from->flags, __ATOMIC_RELAXED);
}

static bool search(const struct ranges *ranges, uintptr_t first, uintptr_t last, struct range *hit)
{
	unsigned int count = __atomic_load_n(&ranges->count, __ATOMIC_RELAXED);

	for (unsigned int i = 0; i < count; i++) {
		copy_out(&ranges->range[i], hit);
		if (hit->first <= last && hit->last >= first)
			return true;
	}
	return false;
}

bool ranges_next(const struct ranges *ranges, const void *addr, size_t len, struct range *hit)
{
	uintptr_t first = (uintptr_t)addr;
	uintptr_t last = ranges_last(addr, len);
	unsigned int before;
	bool found;

	do {
		/* Acquire pairs with the last release in ranges_set(). */
		while ((before = __atomic_load_n(&ranges->sequence, __ATOMIC_ACQUIRE)) & 1)
			__builtin_ia32_pause();
		found = search(ranges, first, last, hit);
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
	} while (__atomic_load_n(&ranges->sequence, __ATOMIC_RELAXED) != before);
	if (!found)
		return false;
	if (hit->first < first) {
		if (hit->gpa != RANGE_NO_GPA)
			hit->gpa += first - hit->first;
		hit->first = first;
	}
	if (hit->last > last)
		hit->last = last;
	return true;
}

void ranges_set(struct ranges *ranges, const struct range *range, unsigned int count)
{
	__atomic_store_n(&ranges->sequence, ranges->sequence + 1, __ATOMIC_RELAXED);
	/* Readers that see any of what follows see the odd sequence, too. */
	__atomic_thread_fence(__ATOMIC_RELEASE);
	for (unsigned int i = 0; i < count; i++)
		copy_in(&range[i], &ranges->range[i]);
	__atomic_store_n(&ranges->count, count, __ATOMIC_RELAXED);
	__atomic_store_n(&ranges->lowest, count ? range[0].first : UINTPTR_MAX, __ATOMIC_RELAXED);
	__atomic_store_n(&ranges->highest, count ? range[count - 1].last : 0, __ATOMIC_RELAXED);
	__atomic_store_n(&ranges->sequence, ranges->sequence + 1, __ATOMIC_RELEASE);
}
