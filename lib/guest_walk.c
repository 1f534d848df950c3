/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest walk through an accessor, and the accessor of a memory.
 *
 * Freestanding. What does not belong here: the walk itself (guest_walk.h).
 */
#include "guest_walk.h"
#include "region.h"

/* --- the public walk ----------------------------------------------------------------------- */

/* What is there is set, and no more: a caller's walk is not touched before all went well. */
static void give(struct mv_walk *to, const struct mv_walk *from)
{
	to->kind = from->kind;
	to->gpa = from->gpa;
	to->page_lg2 = from->page_lg2;
	to->attr = from->attr;
	to->error_code = from->error_code;
	to->level = from->level;
	to->steps = from->steps;
	for (unsigned int i = 0; i < from->steps; i++)
		to->step[i] = from->step[i];
}

static int read_entry(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
		      uint64_t *entry)
{
	const struct mv_guest_accessor *accessor = ctx;

	return accessor->read(accessor->ctx, gpa, bytes, entry);
}

static int change_entry(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
			uint64_t old, uint64_t entry)
{
	const struct mv_guest_accessor *accessor = ctx;

	return accessor->change(accessor->ctx, gpa, bytes, old, entry);
}

static const struct mv_walk_reach through_accessor = { read_entry, change_entry, false };

/* --- the accessor of a memory ------------------------------------------------------------- */

/* A set of regions, kept, and the one that was used last. */
struct reader {
	struct mv_region_set *set;
	struct mv_region *region;
};

/* Where an entry is. Entries are aligned as regions are, so none lies across an end. */
static void *entry_at(struct reader *reader, uint64_t gpa)
{
	struct mv_region *region = reader->region;

	if (mv_unlikely(!region || gpa < region->first_gpa || gpa > region->last_gpa)) {
		region = mv_set_by_gpa(reader->set, gpa);
		if (!region)
			return NULL;
		reader->region = region;
	}
	return region->hva + (gpa - region->first_gpa);
}

/* Acquire: what a guest wrote into a table before it linked it is seen in it. */
MV_INLINE int read_memory(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
			  uint64_t *entry)
{
	const void *at = entry_at(ctx, gpa);

	if (mv_unlikely(!at))
		return -EFAULT;
	if (bytes == 4)
		*entry = __atomic_load_n((const uint32_t *)at, __ATOMIC_ACQUIRE);
	else
		*entry = __atomic_load_n((const uint64_t *)at, __ATOMIC_ACQUIRE);
	return 0;
}

MV_INLINE int change_memory(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
			    uint64_t old, uint64_t entry)
{
	void *at = entry_at(ctx, gpa);
	uint32_t old_half = (uint32_t)old;
	bool changed;

	if (mv_unlikely(!at))
		return -EFAULT;
	if (bytes == 4)
		changed = __atomic_compare_exchange_n((uint32_t *)at, &old_half, (uint32_t)entry,
						      false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	else
		changed = __atomic_compare_exchange_n((uint64_t *)at, &old, entry, false,
						      __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	return changed ? 0 : -EAGAIN;
}

static const struct mv_walk_reach through_memory = { read_memory, change_memory, false };

static int accessor_read(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct reader reader = { mv_memory_get_set(ctx), NULL };
	int error = read_memory(&reader, 0, gpa, bytes, entry);

	mv_memory_put_set(reader.set);
	return error;
}

static int accessor_change(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t old,
			   uint64_t entry)
{
	struct reader reader = { mv_memory_get_set(ctx), NULL };
	int error = change_memory(&reader, 0, gpa, bytes, old, entry);

	mv_memory_put_set(reader.set);
	return error;
}

void mv_guest_accessor_memory(struct mv_guest_accessor *accessor, struct mv_memory *memory)
{
	accessor->read = accessor_read;
	accessor->change = accessor_change;
	accessor->ctx = memory;
}

/* --- which of the two ----------------------------------------------------------------------- */

/* Apart from each other, so that neither's registers are spent on the other. */
#define APART __attribute__((noinline))

APART static int walk_accessor(const struct mv_paging *paging,
			       const struct mv_guest_accessor *accessor, uint64_t gva,
			       unsigned int access, struct mv_walk *walk)
{
	if (!accessor->change)
		access |= MV_ACCESS_NO_UPDATE;
	/* It is only read from. */
	return mv_walk_any(paging, &through_accessor, (void *)(uintptr_t)accessor, gva, access,
			   walk);
}

/* A memory's regions are kept once for the whole walk, not once for each entry. */
APART static int walk_memory(const struct mv_paging *paging, struct mv_memory *memory, uint64_t gva,
			     unsigned int access, struct mv_walk *walk)
{
	struct reader reader = { mv_memory_get_set(memory), NULL };
	int error = mv_walk_any(paging, &through_memory, &reader, gva, access, walk);

	mv_memory_put_set(reader.set);
	return error;
}

int mv_guest_walk(const struct mv_paging *paging, const struct mv_guest_accessor *accessor,
		  uint64_t gva, unsigned int access, struct mv_walk *walk)
{
	struct mv_walk made;
	int error;

	if (accessor->read == accessor_read && accessor->change == accessor_change)
		error = walk_memory(paging, accessor->ctx, gva, access, &made);
	else
		error = walk_accessor(paging, accessor, gva, access, &made);
	if (!error)
		give(walk, &made);
	return error;
}
