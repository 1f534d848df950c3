/* SPDX-License-Identifier: BSD-2-Clause */
/* Small stage-2 tables; see stage2_space.h. */
#include "support/stage2_space.h"
#include "support/testing.h"

static bool is_ept(const struct stage2_space *space)
{
	return space->config.format == MV_FORMAT_EPT_4L || space->config.format == MV_FORMAT_EPT_5L;
}

uint64_t *space_entry(struct stage2_space *space, unsigned int level)
{
	return &space->page[level][SPACE_GPA >> (3 + 9 * level) & 511];
}

struct stage2_space *space_open(enum mv_format_id format, uint32_t features)
{
	bool five = format == MV_FORMAT_EPT_5L || format == MV_FORMAT_NPT_5L;
	struct stage2_space *space = aligned_alloc(4096, (sizeof(*space) + 4095) & ~4095UL);

	assert_non_null(space);
	memset(space, 0, sizeof(*space));
	space->levels = five ? 5 : 4;
	space->config = (struct mv_stage2_config){
		.size = sizeof(space->config),
		.format = format,
		.features = features,
		.maxphyaddr = 46,
		.root = space->levels * 4096,
		.direct_map = (uintptr_t)space->page,
	};
	for (unsigned int level = space->levels; level > 1; level--)
		*space_entry(space, level) = (level - 1) * 4096 | (is_ept(space) ? E_RWX : N_PWU);
	*space_entry(space, 1) = SPACE_PAGE | (is_ept(space) ? E_RWX | E_WB : N_PWU);
	assert_int_equal(mv_stage2_init(&space->stage2, &space->config), 0);
	return space;
}

void space_close(struct stage2_space *space)
{
	free(space);
}

void space_make_page(struct stage2_space *space, unsigned int level)
{
	uint64_t size = 1ULL << (3 + 9 * level);

	*space_entry(space, level) =
		(7 * size) | (level > 1 ? E_PAGE : 0) | (is_ept(space) ? E_RWX | E_WB : N_PWU);
}

/* --- the accessor --------------------------------------------------------------------------- */

static uint64_t *place(struct stage2_space *space, uint64_t gpa, unsigned int bytes)
{
	assert_int_equal(bytes, 8);
	assert_true(gpa < sizeof(space->page) && !(gpa & 7));
	return &space->page[0][0] + gpa / 8;
}

static int read_entry(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct stage2_space *space = ctx;

	if (++space->reads == space->fail_read)
		return space->error;
	*entry = *place(space, gpa, bytes);
	return 0;
}

static int change_entry(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t old, uint64_t entry)
{
	struct stage2_space *space = ctx;
	uint64_t *at = place(space, gpa, bytes);

	space->changes++;
	if (space->disturb) {
		space->disturb--;
		*at ^= space->disturb_xor;
		return -EAGAIN;
	}
	assert_int_equal(*at, old);
	*at = entry;
	return 0;
}

void space_use_accessor(struct stage2_space *space, bool change)
{
	space->config.accessor = (struct mv_guest_accessor){
		.read = read_entry,
		.change = change ? change_entry : NULL,
		.ctx = space,
	};
	assert_int_equal(mv_stage2_init(&space->stage2, &space->config), 0);
}

/* --- walks ---------------------------------------------------------------------------------- */

const struct mv_stage2_walk *space_walk(struct stage2_space *space, unsigned int access)
{
	memset(&space->walk, 0xa5, sizeof(space->walk));
	assert_int_equal(mv_stage2_walk(&space->stage2, SPACE_GPA, access, &space->walk), 0);
	assert_int_equal(space->walk.gpa, SPACE_GPA);
	return &space->walk;
}

void space_expect_ok(struct stage2_space *space, unsigned int access)
{
	const struct mv_stage2_walk *walk = space_walk(space, access);

	assert_int_equal(walk->kind, MV_STAGE2_OK);
}

void space_expect_violation(struct stage2_space *space, unsigned int access, uint64_t code)
{
	const struct mv_stage2_walk *walk = space_walk(space, access);

	assert_int_equal(walk->kind, MV_STAGE2_VIOLATION);
	assert_int_equal(walk->code, code);
}

void space_expect_misconfigured(struct stage2_space *space, unsigned int access, uint64_t code)
{
	const struct mv_stage2_walk *walk = space_walk(space, access);

	assert_int_equal(walk->kind, MV_STAGE2_MISCONFIGURED);
	assert_int_equal(walk->code, code);
}
