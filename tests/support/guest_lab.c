/* SPDX-License-Identifier: BSD-2-Clause */
/* See guest_lab.h. */
#include "support/guest_lab.h"
#include "support/testing.h"

/* --- its memory ------------------------------------------------------------------------------ */

/* 0 for none. */
static unsigned int level_at(const struct guest_lab *lab, uint64_t gpa)
{
	unsigned int level;

	if (!(gpa >> 12))
		return 0;
	level = (unsigned int)(__builtin_ctzll(gpa >> 12) / 3) + 1;
	return level <= lab->world.levels && lab->at[level] == gpa ? level : 0;
}

static int lab_read(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct guest_lab *lab = ctx;
	unsigned int level = level_at(lab, gpa);

	if (!level || bytes != lab->bytes)
		return -EFAULT;
	*entry = lab->entry[level];
	return 0;
}

static int lab_change(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t old, uint64_t entry)
{
	struct guest_lab *lab = ctx;
	unsigned int level = level_at(lab, gpa);

	if (!level || bytes != lab->bytes)
		return -EFAULT;
	if (lab->entry[level] != old)
		return -EAGAIN;
	lab->entry[level] = entry;
	return 0;
}

/* PDPTEs that are not used are absent, and not there to be read. */
static int lab_read_pdpte(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct guest_lab *lab = ctx;

	*entry = gpa == lab->at[3] ? lab->entry[3] : 0;
	return 0;
}

int guest_lab_load_pdptes(struct guest_lab *lab)
{
	const struct mv_guest_accessor accessor = { lab_read_pdpte, NULL, lab };

	return mv_paging_load_pdptes(&lab->paging, &accessor);
}

static const uint64_t mapped_gva[GUEST_MODES] = {
	0xd5a3c9f1, 0x9b27e4d3, 0xe6b1d7a5, 0xffffb5a6c9e3d7f1, 0xffb5d3a6c9e3d7f1,
};

void guest_lab_enter(struct guest_lab *lab, const struct guest_world *world)
{
	struct mv_paging_registers registers = { 0 };
	struct mv_cpu_model cpu = { .maxphyaddr = world->width };

	lab->world = *world;
	for (unsigned int level = 1; level < 6; level++)
		lab->world.table[level] = guest_lab_table(level);
	guest_world_prepare(&lab->world);
	lab->gva = mapped_gva[world->mode];
	lab->bytes = world->mode <= GUEST_PSE ? 4 : 8;
	for (unsigned int level = 1; level <= lab->world.levels; level++)
		lab->at[level] = guest_lab_table(level) +
				 guest_index(&lab->world, level, lab->gva) * lab->bytes;
	registers.cr0 = 0x80000001 | (uint64_t)world->wp << 16;
	registers.cr3 = guest_lab_table(lab->world.levels);
	registers.cr4 = (uint64_t)(world->mode == GUEST_PSE) << 4 |
			(uint64_t)(world->mode >= GUEST_PAE) << 5 |
			(uint64_t)(world->mode == GUEST_5L) << 12 | (uint64_t)world->smep << 20 |
			(uint64_t)world->smap << 21 | (uint64_t)world->pke << 22 |
			(uint64_t)world->pks << 24;
	registers.efer = (uint64_t)world->nxe << 11 | (world->mode >= GUEST_4L ? 0x500 : 0);
	registers.pkru = world->pkru;
	registers.pkrs = world->pkrs;
	cpu.features = (world->pages_1g ? MV_CPU_1G : 0) | (world->pse36 ? MV_CPU_PSE36 : 0) |
		       (world->amd ? MV_CPU_AMD : 0);
	insist(!mv_paging_init(&lab->paging, &registers, &cpu));
}

/* --- one case -------------------------------------------------------------------------------- */

static unsigned int access_bits(const struct guest_access *access)
{
	return (access->read ? MV_ACCESS_READ : 0) | (access->write ? MV_ACCESS_WRITE : 0) |
	       (access->fetch ? MV_ACCESS_FETCH : 0) | (access->user ? MV_ACCESS_USER : 0) |
	       (access->implicit ? MV_ACCESS_IMPLICIT : 0) | (access->ac ? MV_ACCESS_AC : 0) |
	       (access->shadow_stack ? MV_ACCESS_SHADOW_STACK : 0);
}

static bool good_agrees(const struct guest_expected *expected, const struct mv_walk *walk)
{
	uint32_t rights = MV_ATTR_READ | (expected->may_write ? MV_ATTR_WRITE : 0) |
			  (expected->may_fetch ? MV_ATTR_EXEC : 0) |
			  (expected->may_user ? MV_ATTR_USER : 0) |
			  (expected->dirty ? MV_ATTR_DIRTY : 0);

	return walk->kind == MV_WALK_OK && walk->gpa == expected->gpa &&
	       walk->page_lg2 == expected->page_lg2 && walk->level == expected->level &&
	       (walk->attr & (MV_ATTR_RIGHTS | MV_ATTR_DIRTY)) == rights;
}

static bool agrees(const struct guest_expected *expected, int error, const struct mv_walk *walk)
{
	if (expected->outcome == GUEST_ELSEWHERE)
		return error == -EFAULT;
	if (error)
		return false;
	if (expected->outcome == GUEST_GOOD)
		return good_agrees(expected, walk);
	return walk->kind == MV_WALK_PAGE_FAULT && walk->error_code == expected->error &&
	       walk->level == expected->level;
}

static void tell(const struct guest_lab *lab, const uint64_t *before, unsigned int access,
		 const struct guest_expected *expected, int error, const struct mv_walk *walk)
{
	const struct guest_world *world = &lab->world;

	print_message("# mode %d wp %d nxe %d smep %d smap %d pke %d pks %d 1g %d pse36 %d amd %d "
		      "width %u pkru %x pkrs %x access %x\n",
		      world->mode, world->wp, world->nxe, world->smep, world->smap, world->pke,
		      world->pks, world->pages_1g, world->pse36, world->amd, world->width,
		      world->pkru, world->pkrs, access);
	for (unsigned int level = world->levels; level; level--)
		print_message("#   level %u: %016lx, then %016lx, expected %016lx\n", level,
			      before[level], lab->entry[level], expected->after[level]);
	print_message("#   expected outcome %d level %u error %x gpa %lx lg2 %u w%d x%d u%d d%d\n",
		      expected->outcome, expected->level, expected->error, expected->gpa,
		      expected->page_lg2, expected->may_write, expected->may_fetch,
		      expected->may_user, expected->dirty);
	print_message("#   got %d kind %d level %u error %x gpa %lx lg2 %u attr %x\n", error,
		      walk->kind, walk->level, walk->error_code, walk->gpa, walk->page_lg2,
		      walk->attr);
}

void guest_lab_try(struct guest_lab *lab, const struct guest_access *access)
{
	const struct mv_guest_accessor accessor = { lab_read, lab_change, lab };
	struct guest_expected expected = { 0 };
	unsigned int bits = access_bits(access);
	uint64_t before[6];
	struct mv_walk walk;
	int error;

	memcpy(before, lab->entry, sizeof(before));
	guest_predict(&lab->world, before, lab->gva, access, &expected);
	error = mv_guest_walk(&lab->paging, &accessor, lab->gva, bits, &walk);
	lab->cases++;
	if (agrees(&expected, error, &walk) &&
	    !memcmp(lab->entry, expected.after, sizeof(lab->entry)))
		return;
	if (!lab->mismatches++)
		tell(lab, before, bits, &expected, error, &walk);
}
