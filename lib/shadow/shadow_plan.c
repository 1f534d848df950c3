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

static const struct mv_format *guest_format(const struct mv_paging *paging)
{
	return mv_formats[paging->format];
}

/* Level of the highest shadow page that stands for a table of the guest. */
static unsigned int table_levels(const struct mv_paging *paging)
{
	const struct mv_format *f = guest_format(paging);

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

/* What an entry of the guest grants, from what those above do. PDPTEs grant everything. */
static union shadow_role grant_through(union shadow_role role, const struct mv_format *f,
				       const struct mv_walk_step *step)
{
	if (!mv_level_has_rights(f, step->level))
		return role;
	role.write &= !!(step->entry & f->write);
	role.user &= !!(step->entry & f->user);
	role.exec &= !(step->entry & f->no_exec);
	return role;
}

/* Which part of the guest's table a shadow page of a level stands for. */
static unsigned int quadrant(const struct mv_shadow *s, const struct mv_format *f,
			     unsigned int level, uint64_t address)
{
	if (f->entry_lg2 == 2)
		return level == 2 ? address >> 30 & 3 : address >> 21 & 1;
	return level == 4 && f->levels < s->format->levels ? address >> 47 & 1 : 0;
}

static void top_key(const struct mv_paging *paging, union shadow_role mode, unsigned int level,
		    struct shadow_key *key)
{
	bool pae = guest_format(paging)->id == MV_FORMAT_X86_PAE;

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
	} else if (table_levels(paging) < level) {
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
static unsigned int plan_tables(const struct mv_shadow_vcpu *vcpu, const struct shadow_seen *seen,
				struct shadow_plan *plan, union shadow_role *role)
{
	const struct mv_shadow *s = vcpu->shadow;
	const struct mv_format *f = guest_format(&vcpu->paging);
	unsigned int level = 0;

	*role = grant(vcpu->mode, MV_ATTR_RIGHTS);
	for (unsigned int i = 0; i < seen->walk.steps; i++) {
		const struct mv_walk_step *step = &seen->walk.step[i];

		level = step->level;
		if (level <= table_levels(&vcpu->paging)) {
			struct shadow_key *key = &plan->key[level];

			key->base = step->gpa & ~(uint64_t)(MV_PAGE_SIZE - 1);
			key->role = *role;
			key->role.level = level;
			key->role.quadrant = quadrant(s, f, level, plan->address);
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

void shadow_plan(const struct mv_shadow_vcpu *vcpu, const struct shadow_seen *seen, uint64_t gva,
		 unsigned int bottom, struct shadow_plan *plan)
{
	const struct mv_shadow *s = vcpu->shadow;
	const struct mv_paging *paging = &vcpu->paging;
	unsigned int width = mv_format_width(s->format);
	union shadow_role role;
	unsigned int level;

	plan->top = s->format->levels;
	plan->bottom = bottom;
	for (level = 1; level <= plan->top; level++)
		plan->origin[level].frame = NULL;
	if (!paging->enabled) {
		plan->address = seen->walk.gpa;
		role = grant(vcpu->mode, MV_ATTR_RIGHTS);
		for (level = plan->top; level >= bottom; level--)
			direct_key(s, role, level, plan->address, &plan->key[level]);
		return;
	}
	plan->address = gva & (MV_BIT(width) - 1);
	for (level = plan->top; level > table_levels(paging); level--)
		top_key(paging, vcpu->mode, level, &plan->key[level]);
	level = plan_tables(vcpu, seen, plan, &role);
	plan_direct(s, seen, role, level - 1, plan);
}
