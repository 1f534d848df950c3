/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's bytes: the one checked way to read and write them, and addresses translated
 * between guest-physical and this process's.
 *
 * Freestanding. A copy keeps the set of regions, so that none goes away under it. It is in
 * no read section: it may take a fault, and whoever resolves that may wait for readers.
 */
#include <errno.h>
#include <string.h>

#include "region.h"

/* --- single accesses -------------------------------------------------------------------- */

/* Virtqueue indices and the like: a device must not see half of what a driver stores. */
static bool is_single(const void *guest, size_t len)
{
	return (len == 2 || len == 4 || len == 8) && !((uintptr_t)guest & (len - 1));
}

static void load_single(const void *guest, void *buf, size_t len)
{
	uint16_t half;
	uint32_t word;
	uint64_t pair;

	switch (len) {
	case 2:
		half = __atomic_load_n((const uint16_t *)guest, __ATOMIC_RELAXED);
		memcpy(buf, &half, sizeof(half));
		break;
	case 4:
		word = __atomic_load_n((const uint32_t *)guest, __ATOMIC_RELAXED);
		memcpy(buf, &word, sizeof(word));
		break;
	default:
		pair = __atomic_load_n((const uint64_t *)guest, __ATOMIC_RELAXED);
		memcpy(buf, &pair, sizeof(pair));
	}
}

static void store_single(void *guest, const void *buf, size_t len)
{
	uint16_t half;
	uint32_t word;
	uint64_t pair;

	switch (len) {
	case 2:
		memcpy(&half, buf, sizeof(half));
		__atomic_store_n((uint16_t *)guest, half, __ATOMIC_RELAXED);
		break;
	case 4:
		memcpy(&word, buf, sizeof(word));
		__atomic_store_n((uint32_t *)guest, word, __ATOMIC_RELAXED);
		break;
	default:
		memcpy(&pair, buf, sizeof(pair));
		__atomic_store_n((uint64_t *)guest, pair, __ATOMIC_RELAXED);
	}
}

static void copy_out(void *guest, void *buf, size_t len)
{
	if (is_single(guest, len))
		load_single(guest, buf, len);
	else
		memcpy(buf, guest, len);
}

static void copy_in(void *guest, void *buf, size_t len)
{
	if (is_single(guest, len))
		store_single(guest, buf, len);
	else
		memcpy(guest, buf, len);
}

/* --- ranges ----------------------------------------------------------------------------- */

static unsigned char *byte_at(const struct mv_region *region, uint64_t gpa)
{
	return region->hva + (gpa - region->first_gpa);
}

/* Does a region stand behind every byte? */
static bool range_exists(const struct mv_region_set *set, uint64_t first_gpa, uint64_t last_gpa)
{
	for (uint64_t gpa = first_gpa;;) {
		const struct mv_region *region = mv_set_by_gpa(set, gpa);

		if (!region)
			return false;
		if (region->last_gpa >= last_gpa)
			return true;
		gpa = region->last_gpa + 1;
	}
}

typedef void copy_fn(void *guest, void *buf, size_t len);

static void copy_range(const struct mv_region_set *set, uint64_t gpa, unsigned char *buf,
		       size_t len, copy_fn *copy)
{
	while (len) {
		const struct mv_region *region = mv_set_by_gpa(set, gpa);
		uint64_t rest = region->last_gpa - gpa;
		/* One less than the bytes left in the region: their number may not fit. */
		size_t now = rest < len - 1 ? (size_t)rest + 1 : len;

		copy(byte_at(region, gpa), buf, now);
		gpa += now;
		buf += now;
		len -= now;
	}
}

/* Nothing is touched before the whole range is known to exist, in one and the same set. */
static int access_range(struct mv_memory *memory, uint64_t gpa, void *buf, size_t len,
			copy_fn *copy)
{
	struct mv_region_set *set;
	int error = -EFAULT;

	if (!len)
		return 0;
	if (len - 1 > UINT64_MAX - gpa)
		return -EFAULT;
	set = mv_memory_get_set(memory);
	if (range_exists(set, gpa, gpa + (len - 1))) {
		copy_range(set, gpa, buf, len, copy);
		error = 0;
	}
	mv_memory_put_set(set);
	return error;
}

int mv_memory_read(struct mv_memory *memory, uint64_t gpa, void *buf, size_t len)
{
	return access_range(memory, gpa, buf, len, copy_out);
}

int mv_memory_write(struct mv_memory *memory, uint64_t gpa, const void *buf, size_t len)
{
	/* copy_in() only reads from it. */
	return access_range(memory, gpa, (void *)(uintptr_t)buf, len, copy_in);
}

/* --- addresses -------------------------------------------------------------------------- */

int mv_memory_hva(struct mv_memory *memory, uint64_t gpa, size_t *len, void **hva)
{
	int error = -EFAULT;

	if (!*len)
		return -EINVAL;
	mv_memory_read_enter(memory);
	const struct mv_region *region = mv_region_by_gpa(memory, gpa);

	if (region) {
		uint64_t rest = region->last_gpa - gpa;

		if (rest < *len - 1)
			*len = (size_t)rest + 1;
		*hva = byte_at(region, gpa);
		error = 0;
	}
	mv_memory_read_leave(memory);
	return error;
}

int mv_memory_gpa(struct mv_memory *memory, const void *hva, uint64_t *gpa)
{
	int error = -EFAULT;

	mv_memory_read_enter(memory);
	const struct mv_region *region = mv_region_by_hva(memory, hva);

	if (region) {
		*gpa = region->first_gpa + (uint64_t)((const unsigned char *)hva - region->hva);
		error = 0;
	}
	mv_memory_read_leave(memory);
	return error;
}
