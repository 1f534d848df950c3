/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Plans: which shadow pages stand for a walk of the guest's tables, from the root of the host's
 * table down to the leaf.
 *
 *   guest	host level 5	4		3		2		1
 *   5-level	table		table		table		table		table
 *   4-level	top, by half	table, by half	table		table		table
 *   PAE	top		top		top: PDPTEs	table		table
 *   32-bit	top		top		top		quarter of one	half of one
 *   none	direct …
 *
 * (With a 4-level host the first column is not there, and its 4-level tables are not halved.) A
 * half of a 4-level root stands under its own entry of the 5-level one, so that an address that is
 * not canonical for the guest finds nothing. What stands below a large page of the guest is direct.
 *
 * What does not belong here: the pages themselves (shadow_page.c).
 */
#include "shadow_internal.h"

/* Level of the highest shadow page that stands for a table of the guest. */
MV_INLINE unsigned int table_levels(const struct mv_format *f)
{
	/* The PDPTEs are registers. */
	return f->id == MV_FORMAT_X86_PAE ? 2 : f->levels;
}

/* First byte that a table of a level maps, when it maps @address. */
static uint64_t table_base(const struct mv_shadow *s, unsigned int level, uint64_t address)
{
	unsigned int shift = s->format->shift[level] + s->format->index_lg2[level];

	return address >> shift << shift;
}

static union shadow_role grant(union shadow_role role, uint32_t attr)
{
	role.write = !!(attr & MV_ATTR_WRITE);
	role.user = !!(attr & MV_ATTR_USER);
	role.exec = !!(attr & MV_ATTR_EXEC);
	return role;
}

#define ROLE_WRITE  ((union shadow_role){ .write = 1 }.word)
#define ROLE_USER   ((union shadow_role){ .user = 1 }.word)
#define ROLE_EXEC   ((union shadow_role){ .exec = 1 }.word)
#define ROLE_RIGHTS (ROLE_WRITE | ROLE_USER | ROLE_EXEC)

/* All three at once: a fault does this for each level. */
MV_INLINE uint64_t entry_grants(const struct mv_format *f, uint64_t entry)
{
	uint64_t granted = entry & f->no_exec ? 0 : ROLE_EXEC;

	granted |= entry & f->write ? ROLE_WRITE : 0;
	granted |= entry & f->user ? ROLE_USER : 0;
	return granted;
}

/* What an entry of the guest grants, from what those above do. PDPTEs grant everything. */
MV_INLINE union shadow_role grant_through(union shadow_role role, const struct mv_format *f,
					  const struct mv_walk_step *step)
{
	uint64_t granted = entry_grants(f, step->entry);

	if (mv_level_has_rights(f, step->level))
		role.word &= granted | ~ROLE_RIGHTS;
	return role;
}

/* Which part of the guest's table a shadow page of a level stands for. */
MV_INLINE unsigned int quadrant(const struct mv_shadow *s, const struct mv_format *f,
				unsigned int level, uint64_t address)
{
	if (f->entry_lg2 == 2)
		return level == 2 ? address >> 30 & 3 : address >> 21 & 1;
	return level == 4 && f->levels < s->format->levels ? address >> 47 & 1 : 0;
}

static void top_key(const struct mv_paging *paging, union shadow_role mode, unsigned int level,
		    struct shadow_key *key)
{
	bool pae = paging->format == MV_FORMAT_X86_PAE;

	key->base = paging->root;
	key->role = grant(mode, MV_ATTR_RIGHTS);
	key->role.level = level;
	key->role.top = 1;
	key->pdpte = pae ? paging->pdpte : NULL;
}

static void direct_key(const struct mv_shadow *s, union shadow_role role, unsigned int level,
		       uint64_t gpa, struct shadow_key *key)
{
	key->base = table_base(s, level, gpa);
	key->role = role;
	key->role.level = level;
	key->role.direct = 1;
	key->pdpte = NULL;
}

void shadow_root_key(const struct mv_shadow *s, const struct mv_paging *paging,
		     union shadow_role mode, struct shadow_key *key)
{
	unsigned int level = s->format->levels;

	if (!paging->enabled) {
		direct_key(s, grant(mode, MV_ATTR_RIGHTS), level, 0, key);
	} else if (table_levels(mv_formats[paging->format]) < level) {
		top_key(paging, mode, level, key);
	} else {
		key->base = paging->root;
		key->role = grant(mode, MV_ATTR_RIGHTS);
		key->role.level = level;
		key->pdpte = NULL;
	}
}

unsigned int shadow_leaf_level(const struct mv_shadow *s, const struct mv_walk *walk)
{
	unsigned int level = SHADOW_LARGEST;

	/* A page of 4 MiB is two of ours, paging that is off one of any size. */
	while (level > 1 &&
	       (!(s->rules.leaf_levels >> level & 1) || s->format->shift[level] > walk->page_lg2))
		level--;
	return level;
}

/* The tables of the guest that were walked. Return: the level of its leaf. */
MV_INLINE unsigned int plan_tables(const struct mv_format *f, const struct mv_shadow_vcpu *vcpu,
				   const struct shadow_seen *seen, struct shadow_plan *plan,
				   union shadow_role *role)
{
	const struct mv_shadow *s = vcpu->shadow;
	unsigned int level = 0;

	*role = grant(vcpu->mode, MV_ATTR_RIGHTS);
	for (unsigned int i = 0; i < seen->walk.steps; i++) {
		const struct mv_walk_step *step = &seen->walk.step[i];

		level = step->level;
		if (level <= table_levels(f)) {
			struct shadow_key *key = &plan->key[level];

			key->base = step->gpa & ~(uint64_t)(MV_PAGE_SIZE - 1);
			key->role.word = role->word |
					 (union shadow_role){ .level = level,
							      .quadrant = quadrant(s, f, level,
										   plan->address) }
						 .word;
			key->pdpte = NULL;
			plan->origin[level] = seen->origin[i];
		}
		*role = grant_through(*role, f, step);
	}
	return level;
}

/* Large pages of the guest: all that they grant depends on the walk, but nothing else does. */
static void plan_direct(const struct mv_shadow *s, const struct shadow_seen *seen,
			union shadow_role role, unsigned int level, struct shadow_plan *plan)
{
	/* So the guest's first write finds other pages. */
	role.dirty = !!(seen->walk.attr & MV_ATTR_DIRTY);
	for (; level >= plan->bottom; level--)
		direct_key(s, role, level, seen->walk.gpa, &plan->key[level]);
}

/* The same code for each of the guest's formats, with what is constant of it worked out. */
MV_INLINE void plan_of(const struct mv_format *f, const struct mv_shadow_vcpu *vcpu,
		       const struct shadow_seen *seen, struct shadow_plan *plan)
{
	union shadow_role role;
	unsigned int level;

	for (level = table_levels(f) + 1; level <= MV_LEVEL_MAX && level <= plan->top; level++)
		top_key(&vcpu->paging, vcpu->mode, level, &plan->key[level]);
	level = plan_tables(f, vcpu, seen, plan, &role);
	if (level - 1 >= plan->bottom)
		plan_direct(vcpu->shadow, seen, role, level - 1, plan);
}

static void plan_paging_off(const struct mv_shadow_vcpu *vcpu, const struct shadow_seen *seen,
			    struct shadow_plan *plan)
{
	union shadow_role role = grant(vcpu->mode, MV_ATTR_RIGHTS);

	plan->address = seen->walk.gpa;
	for (unsigned int level = plan->top; level >= plan->bottom; level--)
		direct_key(vcpu->shadow, role, level, plan->address, &plan->key[level]);
}

void shadow_plan(const struct mv_shadow_vcpu *vcpu, const struct shadow_seen *seen, uint64_t gva,
		 unsigned int bottom, struct shadow_plan *plan)
{
	const struct mv_shadow *s = vcpu->shadow;

	plan->top = s->format->levels;
	plan->bottom = bottom;
	for (unsigned int level = 1; level <= plan->top; level++)
		plan->origin[level].frame = NULL;
	if (!vcpu->paging.enabled) {
		plan_paging_off(vcpu, seen, plan);
		return;
	}
	plan->address = gva & (MV_BIT(mv_format_width(s->format)) - 1);
	switch (vcpu->paging.format) {
	case MV_FORMAT_X86_4L:
		plan_of(&mv_format_x86_4l, vcpu, seen, plan);
		break;
	case MV_FORMAT_X86_5L:
		plan_of(&mv_format_x86_5l, vcpu, seen, plan);
		break;
	case MV_FORMAT_X86_PAE:
		plan_of(&mv_format_x86_pae, vcpu, seen, plan);
		break;
	default: /* 32 bits: large pages are the walk's concern */
		plan_of(&mv_format_x86_32, vcpu, seen, plan);
	}
}
