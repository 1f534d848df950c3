/* SPDX-License-Identifier: BSD-2-Clause */
/* The walk beside the predicate; see stage2_rig.h. */
#include <sys/mman.h>

#include "support/stage2_rig.h"
#include "support/testing.h"

#define SHOWN 5 /* mismatches that are printed */

/* --- the same facts in the library's words ------------------------------------------------- */

unsigned int stage2_rig_access(const struct stage2_access *access)
{
	return (access->read ? MV_ACCESS_READ : 0) | (access->write ? MV_ACCESS_WRITE : 0) |
	       (access->fetch ? MV_ACCESS_FETCH : 0) | (access->user ? MV_ACCESS_USER : 0) |
	       (access->guest_table ? MV_ACCESS_GUEST_TABLE : 0) |
	       (access->linear ? MV_ACCESS_LINEAR : 0) |
	       (access->guest_writable ? MV_ACCESS_GUEST_WRITABLE : 0) |
	       (access->guest_no_exec ? MV_ACCESS_GUEST_NO_EXEC : 0) |
	       (access->shadow_stack ? MV_ACCESS_SHADOW_STACK : 0) |
	       (access->look ? MV_ACCESS_NO_UPDATE : 0);
}

uint32_t stage2_rig_features(const struct stage2_world *world)
{
	return (world->pages_2m ? MV_FEATURE_2M : 0) | (world->pages_1g ? MV_FEATURE_1G : 0) |
	       (world->exec_only ? MV_FEATURE_EXEC_ONLY : 0) |
	       (world->mode_exec ? MV_FEATURE_MODE_EXEC : 0) |
	       (world->accessed ? MV_FEATURE_ACCESSED : 0) | (world->ve ? MV_FEATURE_VE : 0) |
	       (world->no_exec ? MV_FEATURE_NX : 0) | (world->exit_info ? MV_FEATURE_EXIT_INFO : 0);
}

static enum mv_format_id format_of(const struct stage2_world *world)
{
	if (world->ept)
		return world->levels == 5 ? MV_FORMAT_EPT_5L : MV_FORMAT_EPT_4L;
	return world->levels == 5 ? MV_FORMAT_NPT_5L : MV_FORMAT_NPT_4L;
}

static uint32_t attr_of(const struct stage2_grant *grant)
{
	return (grant->read ? MV_ATTR_READ : 0) | (grant->write ? MV_ATTR_WRITE : 0) |
	       (grant->exec ? MV_ATTR_EXEC : 0) | (grant->exec_user ? MV_ATTR_EXEC_USER : 0) |
	       (grant->global ? MV_ATTR_GLOBAL : 0) | (grant->accessed ? MV_ATTR_ACCESSED : 0) |
	       (grant->dirty ? MV_ATTR_DIRTY : 0) | (grant->suppress_ve ? MV_ATTR_SUPPRESS_VE : 0) |
	       (grant->ignore_pat ? MV_ATTR_IGNORE_PAT : 0) | (grant->soft[0] ? MV_ATTR_SOFT0 : 0) |
	       (grant->soft[1] ? MV_ATTR_SOFT1 : 0) | MV_ATTR_TYPE(grant->type);
}

/* --- memory that serves one case ------------------------------------------------------------ */

/* The walk reads each level once, from the root down, and nowhere else. */
static int serve(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct stage2_rig *rig = ctx;

	if (bytes != 8 || rig->next < rig->expected.level || gpa != rig->expected.at[rig->next]) {
		rig->astray = true;
		return -EFAULT;
	}
	*entry = rig->entry[rig->next--];
	return 0;
}

static int serve_change(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t old, uint64_t entry)
{
	struct stage2_rig *rig = ctx;
	unsigned int level = rig->expected.level;

	while (level <= rig->world.levels && rig->expected.at[level] != gpa)
		level++;
	if (bytes != 8 || level > rig->world.levels || rig->entry[level] != old) {
		rig->astray = true;
		return -EFAULT;
	}
	rig->entry[level] = entry;
	return 0;
}

static uint64_t *place(struct stage2_rig *rig, unsigned int level)
{
	return (uint64_t *)(rig->memory + rig->expected.at[level]);
}

static bool is_in_memory(const struct stage2_rig *rig)
{
	for (unsigned int level = rig->expected.level; level <= rig->world.levels; level++)
		if (rig->expected.at[level] >= STAGE2_RIG_MEMORY)
			return false;
	return true;
}

/* --- comparison ----------------------------------------------------------------------------- */

static bool faults_agree(const struct stage2_expected *expected, const struct mv_stage2_walk *walk)
{
	return walk->kind == (expected->outcome == STAGE2_FORBIDDEN ? MV_STAGE2_VIOLATION
								    : MV_STAGE2_MISCONFIGURED) &&
	       walk->code == expected->code && walk->suppress_ve == expected->suppress_ve;
}

static bool pages_agree(const struct stage2_expected *expected, const struct mv_stage2_walk *walk)
{
	return walk->kind == MV_STAGE2_OK && walk->phys == expected->phys &&
	       walk->page_lg2 == expected->page_lg2 && walk->attr == attr_of(&expected->grant);
}

static bool steps_agree(const struct stage2_rig *rig, const uint64_t *entry,
			const struct mv_stage2_walk *walk)
{
	unsigned int level = rig->world.levels;

	if (walk->steps != level + 1 - rig->expected.level)
		return false;
	for (unsigned int i = 0; i < walk->steps; i++, level--)
		if (walk->step[i].gpa != rig->expected.at[level] ||
		    walk->step[i].entry != entry[level] || walk->step[i].level != level)
			return false;
	return true;
}

static bool agrees(const struct stage2_rig *rig, const uint64_t *entry, const uint64_t *after,
		   const struct mv_stage2_walk *walk)
{
	const struct stage2_expected *expected = &rig->expected;

	for (unsigned int level = expected->level; level <= rig->world.levels; level++)
		if (after[level] != expected->after[level])
			return false;
	if (walk->gpa != rig->gpa || walk->level != expected->level ||
	    !steps_agree(rig, entry, walk))
		return false;
	return expected->outcome == STAGE2_GOOD ? pages_agree(expected, walk)
						: faults_agree(expected, walk);
}

static void show(const struct stage2_rig *rig, const char *way, int error, const uint64_t *entry,
		 const uint64_t *after, const struct mv_stage2_walk *walk)
{
	const struct stage2_expected *expected = &rig->expected;

	print_message(
		"# mismatch %s: format %d features %#x width %u root %#lx gpa %#lx access %#x\n",
		way, format_of(&rig->world), stage2_rig_features(&rig->world), rig->world.width,
		rig->root, rig->gpa, stage2_rig_access(&rig->access));
	for (unsigned int level = rig->world.levels; level >= expected->level; level--)
		print_message("#   level %u at %#lx: %#lx, after %#lx, expected %#lx\n", level,
			      expected->at[level], entry[level], after[level],
			      expected->after[level]);
	print_message("#   expected %d phys %#lx lg2 %u attr %#x code %#lx level %u suppress %d\n",
		      expected->outcome, expected->phys, expected->page_lg2,
		      attr_of(&expected->grant), expected->code, expected->level,
		      expected->suppress_ve);
	print_message("#   walk %d: %d phys %#lx lg2 %u attr %#x code %#lx level %u suppress %d\n",
		      error, walk->kind, walk->phys, walk->page_lg2, walk->attr, walk->code,
		      walk->level, walk->suppress_ve);
}

static void judge(struct stage2_rig *rig, const char *way, int error, const uint64_t *entry,
		  const uint64_t *after, const struct mv_stage2_walk *walk)
{
	if (!error && !rig->astray && agrees(rig, entry, after, walk))
		return;
	if (rig->mismatches++ < SHOWN)
		show(rig, way, error, entry, after, walk);
}

/* --- a case --------------------------------------------------------------------------------- */

static void try_accessor(struct stage2_rig *rig, const uint64_t *entry)
{
	struct mv_stage2_walk walk = { 0 };
	int error;

	memcpy(rig->entry, entry, sizeof(rig->entry));
	rig->next = rig->world.levels;
	rig->astray = false;
	error = mv_stage2_walk(&rig->behind_accessor, rig->gpa, stage2_rig_access(&rig->access),
			       &walk);
	judge(rig, "behind an accessor", error, entry, rig->entry, &walk);
}

static void try_direct(struct stage2_rig *rig, const uint64_t *entry)
{
	struct mv_stage2_walk walk = { 0 };
	uint64_t after[6];
	int error;

	for (unsigned int level = rig->expected.level; level <= rig->world.levels; level++)
		*place(rig, level) = entry[level];
	rig->astray = false;
	error = mv_stage2_walk(&rig->direct, rig->gpa, stage2_rig_access(&rig->access), &walk);
	for (unsigned int level = rig->expected.level; level <= rig->world.levels; level++) {
		after[level] = *place(rig, level);
		*place(rig, level) = 0;
	}
	judge(rig, "in the direct map", error, entry, after, &walk);
}

void stage2_rig_try(struct stage2_rig *rig, const uint64_t *entry, uint64_t gpa,
		    const struct stage2_access *access)
{
	rig->gpa = gpa;
	rig->access = *access;
	stage2_expect(&rig->world, rig->root, entry, gpa, access, &rig->expected);
	try_accessor(rig, entry);
	if (is_in_memory(rig))
		try_direct(rig, entry);
	rig->cases++;
}

/* --- setting up ----------------------------------------------------------------------------- */

void stage2_rig_open(struct stage2_rig *rig)
{
	memset(rig, 0, sizeof(*rig));
	rig->memory = mmap(NULL, STAGE2_RIG_MEMORY, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (rig->memory == MAP_FAILED) {
		print_message("# skip-reason: no 1 TiB of address space to be had\n");
		skip();
	}
}

void stage2_rig_close(struct stage2_rig *rig)
{
	munmap(rig->memory, STAGE2_RIG_MEMORY);
}

void stage2_rig_enter(struct stage2_rig *rig, const struct stage2_world *world, uint64_t root)
{
	struct mv_stage2_config config = {
		.size = sizeof(config),
		.format = format_of(world),
		.features = stage2_rig_features(world),
		.maxphyaddr = world->width,
		.root = root,
		.direct_map = (uintptr_t)rig->memory,
	};

	rig->world = *world;
	rig->root = root;
	stage2_world_prepare(&rig->world);
	assert_int_equal(mv_stage2_init(&rig->direct, &config), 0);
	config.accessor = (struct mv_guest_accessor){
		.read = serve,
		.change = serve_change,
		.ctx = rig,
	};
	assert_int_equal(mv_stage2_init(&rig->behind_accessor, &config), 0);
}
