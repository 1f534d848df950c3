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

#define LINE_BYTES 64u

MV_INLINE uint64_t line_entry(const struct mv_format *f, const void *at, unsigned int i)
{
	return f->entry_lg2 == 2 ? __atomic_load_n((const uint32_t *)at + i, __ATOMIC_ACQUIRE)
				 : __atomic_load_n((const uint64_t *)at + i, __ATOMIC_ACQUIRE);
}

/* Entries but @own that are present and accessed, as bits, and what they are; often there are none.
 */
MV_INLINE unsigned int read_line(const struct mv_format *f, const void *at, unsigned int own,
				 uint64_t *entry)
{
	const uint64_t used = f->present | f->accessed;
	unsigned int bits = 0;

	for (unsigned int i = 0; i < LINE_BYTES >> f->entry_lg2; i++)
		bits |= (unsigned int)(!(~line_entry(f, at, i) & used)) << i;
	bits &= ~(1u << own);
	/* They may have changed since. */
	for (unsigned int left = bits; left; left &= left - 1) {
		unsigned int i = (unsigned int)__builtin_ctz(left);

		entry[i] = line_entry(f, at, i);
		if (~entry[i] & used)
			bits &= ~(1u << i);
	}
	return bits;
}

void shadow_look_ahead(const struct mv_shadow_vcpu *vcpu, const struct shadow_seen *seen,
		       struct shadow_line *line)
{
	const struct mv_walk *walk = &seen->walk;
	const void *at = (const void *)((uintptr_t)seen->at & ~(uintptr_t)(LINE_BYTES - 1));
	unsigned int own;
	bool wide;

	line->ready = 0;
	if (!vcpu->paging.enabled || walk->level != 1)
		return;
	wide = mv_formats[vcpu->paging.format]->entry_lg2 == 3;
	/* Older than the line: who writes to it from now on raises the count. */
	line->origin = seen->origin[walk->steps - 1];
	own = (walk->step[walk->steps - 1].gpa & (MV_PAGE_SIZE - 1)) >> (wide ? 3 : 2);
	line->first = own & (SHADOW_ENTRIES - 1) & ~(wide ? 7u : 15u);
	line->ready = wide ? read_line(&mv_format_x86_4l, at, own & 7, line->entry)
			   : read_line(&mv_format_x86_32, at, own & 15, line->entry);
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

	if (mv_entry_reserved(&vcpu->paging.rules, 1, true, entry) ||
	    !shadow_slot_holds(leaf->slot, gpa) || shadow_load(leaf->page, leaf->index) ||
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
		      struct shadow_page *page, const struct shadow_slot *slot)
{
	for (unsigned int ready = line->ready; ready; ready &= ready - 1) {
		unsigned int i = (unsigned int)__builtin_ctz(ready);
		struct shadow_leaf leaf = {
			.page = page,
			.index = line->first + i,
			.slot = slot,
			.ahead = true,
			.origin = line->origin,
			.zaps = shadow_zaps(vcpu->shadow),
		};

		map_one(vcpu, &leaf, line->entry[i]);
	}
}
