/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * All leaves of a guest's address space, in ascending order: for tools and for whoever copies
 * the guest's view. It asks no rights and sets nothing.
 *
 * Freestanding. One table of each level is open at a time; the depth is that of the format.
 * What does not belong here: the walk to one address (guest_walk.h).
 */
#include "guest_walk.h"

typedef int leaf_fn(void *ctx, const struct mv_mapping *mapping);

/**
 * struct visit - one pass over a space
 * @first, @last: what is wanted, without the sign
 */
struct visit {
	const struct mv_format *f;
	const struct mv_paging *paging;
	struct mv_walk_reach reach;
	void *ctx;
	uint64_t first;
	uint64_t last;
	leaf_fn *leaf;
	void *leaf_ctx;
};

static int read_entry(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
		      uint64_t *entry)
{
	const struct mv_guest_accessor *accessor = ctx;

	return accessor->read(accessor->ctx, gpa, bytes, entry);
}

/* The sign is put back where the format has one. */
static uint64_t canonical(const struct mv_format *f, uint64_t address)
{
	unsigned int width = mv_format_width(f);

	return width > 32 ? mv_sign_extend(address, width - 1) : address;
}

static int give_leaf(const struct visit *visit, const struct mv_walk_state *state,
		     unsigned int level, uint64_t entry)
{
	struct mv_walk walk;
	struct mv_mapping mapping;

	mv_walk_finish(visit->f, visit->paging, state, level, entry, 0, &walk);
	mapping.address = canonical(visit->f, state->address);
	mapping.phys = walk.gpa;
	mapping.page_lg2 = walk.page_lg2;
	mapping.level = level;
	mapping.attr = walk.attr;
	return visit->leaf(visit->leaf_ctx, &mapping);
}

static int visit_table(const struct visit *visit, const struct mv_walk_state *table);

/* @state is at an entry, which it has not looked at yet. */
static int visit_entry(const struct visit *visit, struct mv_walk_state *state)
{
	const struct mv_format *f = visit->f;
	unsigned int level = state->level;
	uint64_t entry, gpa = mv_walk_entry_gpa(f, state, level);
	int error = mv_walk_read(f, visit->paging, &visit->reach, visit->ctx, 0, state, level, gpa,
				 &entry);

	if (error)
		return error == -EFAULT ? 0 : error;
	entry = f->entry_lg2 == 2 ? (uint32_t)entry : entry;
	switch (mv_walk_take(f, visit->paging, state, level, entry)) {
	case MV_TURN_DOWN:
		return visit_table(visit, state);
	case MV_TURN_LEAF:
		return give_leaf(visit, state, level, entry);
	default:
		return 0;
	}
}

/* The entries of a table that cover a part of what is wanted; the table begins at its address. */
static int visit_table(const struct visit *visit, const struct mv_walk_state *table)
{
	const struct mv_format *f = visit->f;
	uint64_t span = mv_span_mask(f, table->level) + 1;
	uint64_t end = table->address + (span << f->index_lg2[table->level]);
	uint64_t address = table->address;

	if (address < visit->first)
		address = visit->first & ~(span - 1);
	for (; address < end && address <= visit->last; address += span) {
		struct mv_walk_state state = *table;
		int error;

		state.address = address;
		error = visit_entry(visit, &state);
		if (error)
			return error;
	}
	return 0;
}

static int identity_leaf(leaf_fn *leaf, void *ctx)
{
	struct mv_mapping mapping = { .page_lg2 = 32 };
	struct mv_walk walk;

	mv_walk_identity(0, &walk);
	mapping.attr = walk.attr;
	return leaf(ctx, &mapping);
}

static int visit_space(struct visit *visit, uint64_t first, uint64_t last)
{
	const struct mv_format *f = mv_formats[visit->paging->format];
	uint64_t mask = MV_BIT(mv_format_width(f)) - 1;
	struct mv_walk_state root = {
		.table = visit->paging->root,
		.granted = ~0ULL,
		.above = ~0ULL,
		.level = f->levels,
	};

	if (canonical(f, first & mask) != first || canonical(f, last & mask) != last)
		return -EINVAL;
	visit->f = f;
	visit->first = first & mask;
	visit->last = last & mask;
	return visit_table(visit, &root);
}

int mv_guest_for_each_leaf(const struct mv_paging *paging, const struct mv_guest_accessor *accessor,
			   uint64_t first, uint64_t last, leaf_fn *leaf, void *ctx)
{
	struct visit visit = {
		.paging = paging,
		.reach = { .read = read_entry },
		/* It is only read from. */
		.ctx = (void *)(uintptr_t)accessor,
		.leaf = leaf,
		.leaf_ctx = ctx,
	};

	if (first > last || (!paging->enabled && last > UINT32_MAX))
		return -EINVAL;
	if (!paging->enabled)
		return identity_leaf(leaf, ctx);
	return visit_space(&visit, first, last);
}
