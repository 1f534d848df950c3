/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Neighbours: a fault that is fixed from an entry of a leaf table maps what the other entries of
 * the same cache line say too, for that line has just been read, and a guest seldom uses one page
 * alone.
 *
 * Only entries that the guest has accessed before: of others the first access has to be seen. They
 * grant what is dirty to be written and everything else to be read, bring nothing in, displace
 * nothing, and are not accessed themselves until a processor comes through.
 *
 * Freestanding. What does not belong here: the page that the fault is about (shadow_fault.c).
 */
#include "shadow_internal.h"

#define LINE_BYTES 64

static bool is_in(const struct shadow_slot *slot, uint64_t gpa)
{
	return gpa >= slot->region->first_gpa && gpa <= slot->region->last_gpa;
}

/* Where this process has a table that has just been read. */
static const void *table_at(const struct shadow_seen *seen, uint64_t gpa)
{
	const struct shadow_slot *slot = seen->slot;

	if (!is_in(slot, gpa))
		slot = shadow_slot_at(seen->shadow, gpa);
	return slot->region->hva + (gpa - slot->region->first_gpa);
}

void shadow_look_ahead(const struct mv_shadow_vcpu *vcpu, const struct shadow_seen *seen,
		       struct shadow_line *line)
{
	const struct mv_walk *walk = &seen->walk;
	unsigned int entry_lg2;
	const void *at;
	uint64_t gpa;

	line->count = 0;
	if (!vcpu->paging.enabled || walk->level != 1)
		return;
	entry_lg2 = mv_formats[vcpu->paging.format]->entry_lg2;
	gpa = walk->step[walk->steps - 1].gpa & ~(uint64_t)(LINE_BYTES - 1);
	line->count = LINE_BYTES >> entry_lg2;
	line->first = (gpa & (MV_PAGE_SIZE - 1)) >> entry_lg2;
	/* Older than the line: who writes to it from now on raises the count. */
	line->origin = seen->origin[walk->steps - 1];
	at = table_at(seen, gpa);
	for (unsigned int i = 0; i < line->count; i++)
		if (entry_lg2 == 2)
			line->entry[i] =
				__atomic_load_n((const uint32_t *)at + i, __ATOMIC_ACQUIRE);
		else
			line->entry[i] =
				__atomic_load_n((const uint64_t *)at + i, __ATOMIC_ACQUIRE);
}

/* Whether an access would find nothing to be set and nothing to complain of. */
static bool is_ready(const struct mv_shadow_vcpu *vcpu, const struct mv_format *f, uint64_t entry)
{
	return (entry & f->present) && (entry & f->accessed) &&
	       !mv_entry_reserved(&vcpu->paging.rules, 1, true, entry);
}

/* What the guest's entries grant together; those above by the role that they gave the page. */
static uint32_t granted(const struct mv_format *f, union shadow_role role, uint64_t entry)
{
	uint32_t attr = MV_ATTR_READ;

	attr |= role.write && (entry & f->write) ? MV_ATTR_WRITE : 0;
	attr |= role.user && (entry & f->user) ? MV_ATTR_USER : 0;
	attr |= role.exec && !(entry & f->no_exec) ? MV_ATTR_EXEC : 0;
	attr |= entry & f->dirty ? MV_ATTR_DIRTY : 0;
	return attr;
}

/* Into the slot of the page that faulted only: most neighbours are near in guest memory too. */
static void map_one(struct mv_shadow_vcpu *vcpu, struct shadow_leaf *leaf, uint64_t entry)
{
	struct mv_shadow *s = vcpu->shadow;
	const struct mv_format *f = mv_formats[vcpu->paging.format];
	uint64_t gpa = mv_entry_page(f, 1, entry);
	struct mv_shadow_backing backing;

	if (!is_ready(vcpu, f, entry) || !is_in(leaf->slot, gpa) ||
	    shadow_load(leaf->page, leaf->index) ||
	    !shadow_rights(vcpu, MV_ACCESS_READ, granted(f, leaf->page->role, entry), &leaf->attr))
		return;
	if (!shadow_sample(s, leaf->slot, 1, gpa, &leaf->sample) ||
	    shadow_resolve(s, leaf->slot, gpa, 0, &backing))
		return;
	leaf->note = entry;
	leaf->hpa = backing.hpa;
	leaf->attr &= backing.writable ? ~0u : ~(uint32_t)MV_ATTR_WRITE;
	if (!shadow_map(s, leaf))
		shadow_count(&s->stats.ahead, 1);
}

void shadow_map_ahead(struct mv_shadow_vcpu *vcpu, const struct shadow_line *line,
		      struct shadow_page *page, unsigned int index, const struct shadow_slot *slot)
{
	unsigned int first = line->first & (SHADOW_ENTRIES - 1);

	for (unsigned int i = 0; i < line->count; i++) {
		struct shadow_leaf leaf = {
			.page = page,
			.index = first + i,
			.slot = slot,
			.ahead = true,
			.origin = line->origin,
		};

		if (leaf.index != index)
			map_one(vcpu, &leaf, line->entry[i]);
	}
}
