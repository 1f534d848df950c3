/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stage 2 walked with every check, and the fault that a processor would report: exit
 * qualification or EXITINFO1. SDM vol. 3, 29.3 and table 28-7; APM vol. 2, 15.25.
 *
 * The common case, tables in the direct map and nothing in the way, is inlined for each of the
 * four formats. Everything else starts again from the root in one walk for all: a fault, a bit to
 * be set or an accessor costs more than asking the format at run time does.
 *
 * Freestanding. What does not belong here: the way down itself (stage2.h), faults that a processor
 * reported (stage2_exit.c).
 */
#include <errno.h>

#include "stage2.h"

#include "../formats.h"

/* A guest hypervisor that changes its tables under each attempt gets no more than this. */
#define ATTEMPTS 100

/* --- entries at leisure ------------------------------------------------------------------- */

/*
 * SDM vol. 3, 29.3.3.1. Bit 10 counts as a right to execute with mode-based execute only, and
 * then an entry may be present by it alone.
 */
static bool ept_rights_reserved(const struct mv_format *f, uint32_t features, uint64_t entry)
{
	if (entry & f->read)
		return false;
	/* Present without read: it may be written, or else must be meant to be executed only. */
	return (entry & f->write) || !(features & MV_FEATURE_EXEC_ONLY);
}

enum mv_stage2_end mv_stage2_judge_any(const struct mv_format *f, const struct mv_stage2 *stage2,
				       unsigned int level, uint64_t entry)
{
	const struct mv_rules *rules = &stage2->rules;
	bool leaf = mv_entry_is_leaf(f, rules, level, entry);

	if (!mv_entry_present(rules, entry))
		return MV_STAGE2_ABSENT;
	if (mv_stage2_is_ept(f) && ept_rights_reserved(f, stage2->features, entry))
		return MV_STAGE2_RESERVED;
	if (mv_entry_reserved(rules, level, leaf, entry))
		return MV_STAGE2_RESERVED;
	if (leaf && mv_stage2_type_reserved(f, entry))
		return MV_STAGE2_RESERVED;
	return leaf ? MV_STAGE2_PAGE : MV_STAGE2_DOWN;
}

/* --- faults ------------------------------------------------------------------------------- */

/*
 * Bits 12 (NMI unblocking), 14 and above tell of things that no table knows; they stay 0. Bit 2
 * of a fetch, and bits 1:0, are those of the access; where an instruction reads and writes, the
 * manual leaves bit 0 to the processor, and we to the caller.
 */
static uint64_t ept_qualification(const struct mv_format *f, uint32_t features, unsigned int access,
				  uint64_t rights)
{
	uint64_t code = access & MV_EPT_VIOLATION_ACCESS;

	code |= (rights & (f->read | f->write | f->exec)) << MV_EPT_VIOLATION_RIGHTS_LOW;
	if ((features & MV_FEATURE_MODE_EXEC) && (rights & f->exec_user))
		code |= MV_EPT_VIOLATION_EXEC_USER;
	if (access & MV_ACCESS_SHADOW_STACK)
		code |= MV_EPT_VIOLATION_SHADOW_STACK;
	if (!(access & MV_ACCESS_LINEAR))
		return code;
	code |= MV_EPT_VIOLATION_LINEAR;
	if (access & MV_ACCESS_GUEST_TABLE)
		return code;
	code |= MV_EPT_VIOLATION_FINAL;
	if (!(features & MV_FEATURE_EXIT_INFO))
		return code;
	code |= access & MV_ACCESS_USER ? MV_EPT_VIOLATION_GUEST_USER : 0;
	code |= access & MV_ACCESS_GUEST_WRITABLE ? MV_EPT_VIOLATION_GUEST_WRITABLE : 0;
	code |= access & MV_ACCESS_GUEST_NO_EXEC ? MV_EPT_VIOLATION_GUEST_NO_EXEC : 0;
	return code;
}

/*
 * Each access is a user's. I/D says that it was a fetch: the manual does not make it depend on
 * NXE as it does for #PF, and Bochs sets it always; QEMU and KVM want NXE.
 */
static uint64_t npf_code(unsigned int access, int end)
{
	uint64_t code = MV_PF_USER;

	code |= end != MV_STAGE2_ABSENT ? MV_PF_PRESENT : 0;
	code |= end == MV_STAGE2_RESERVED ? MV_PF_RESERVED : 0;
	code |= access & MV_ACCESS_WRITE ? MV_PF_WRITE : 0;
	code |= access & MV_ACCESS_FETCH ? MV_PF_FETCH : 0;
	code |= access & MV_ACCESS_SHADOW_STACK ? MV_PF_SHADOW_STACK : 0;
	return code | (access & MV_ACCESS_GUEST_TABLE ? MV_NPF_TABLE : MV_NPF_FINAL);
}

/*
 * @walk but for gpa and steps. The entry that decides about #VE is the absent one, or the
 * leaf; bit 63 of one that points to a table means nothing: SDM vol. 3, 26.5.7.1.
 */
static void fault(const struct mv_format *f, const struct mv_stage2 *stage2, unsigned int access,
		  int end, const struct mv_stage2_path *path, struct mv_stage2_walk *walk)
{
	uint64_t suppress = path->entry & f->suppress_ve & stage2->rules.meaningful;

	access = mv_stage2_counts_as(f, stage2->features, access);
	walk->level = walk->steps ? path->level : f->levels;
	walk->kind = end == MV_STAGE2_RESERVED ? MV_STAGE2_MISCONFIGURED : MV_STAGE2_VIOLATION;
	if (!mv_stage2_is_ept(f))
		walk->code = npf_code(access, end);
	else if (end != MV_STAGE2_RESERVED)
		walk->code = ept_qualification(f, stage2->features, access, path->all);
	walk->suppress_ve = end != MV_STAGE2_RESERVED && suppress;
}

/* --- accessed and dirty ------------------------------------------------------------------- */

static int change_direct(const struct mv_stage2 *stage2, uint64_t phys, uint64_t old,
			 uint64_t entry)
{
	uint64_t *place = (uint64_t *)(stage2->direct_map + phys);
	bool changed = __atomic_compare_exchange_n(place, &old, entry, false, __ATOMIC_RELAXED,
						   __ATOMIC_RELAXED);

	return changed ? 0 : -EAGAIN;
}

static int change(const struct mv_stage2 *stage2, uint64_t phys, uint64_t old, uint64_t entry)
{
	const struct mv_guest_accessor *accessor = &stage2->accessor;

	if (old == entry)
		return 0;
	if (!accessor->read)
		return change_direct(stage2, phys, old, entry);
	return accessor->change(accessor->ctx, phys, sizeof(entry), old, entry);
}

/* From the root down. Return: 0; -EAGAIN where an entry is not what the walk saw. */
static int mark(const struct mv_stage2 *stage2, const struct mv_stage2_demand *demand,
		const struct mv_stage2_walk *walk)
{
	for (unsigned int i = 0; i < walk->steps; i++) {
		const struct mv_walk_step *step = &walk->step[i];
		uint64_t bits = demand->mark;
		int error;

		if (i == walk->steps - 1)
			bits |= demand->mark_page;
		error = change(stage2, step->gpa, step->entry, step->entry | bits);
		if (error)
			return error;
	}
	return 0;
}

/* --- the walk ----------------------------------------------------------------------------- */

MV_INLINE void found(const struct mv_format *f, const struct mv_stage2 *stage2, uint64_t gpa,
		     const struct mv_stage2_path *path, struct mv_stage2_walk *walk)
{
	walk->phys = mv_stage2_phys(f, path, gpa);
	/* In this order: who waits for the address goes on while the rest is worked out. */
	__asm__ volatile("" ::: "memory");
	walk->kind = MV_STAGE2_OK;
	walk->page_lg2 = f->shift[path->level];
	walk->attr = mv_stage2_attr(f, stage2, path);
	walk->gpa = gpa;
	walk->level = path->level;
	walk->code = 0;
	walk->suppress_ve = false;
	walk->steps = mv_stage2_steps(f, path);
}

/* Through either way to the tables. */
static int read_any(const struct mv_stage2 *stage2, uint64_t table, uint64_t offset,
		    uint64_t *entry)
{
	const struct mv_guest_accessor *accessor = &stage2->accessor;

	if (!accessor->read)
		return mv_stage2_read_direct(stage2, table, offset, entry);
	return accessor->read(accessor->ctx, table + offset, sizeof(*entry), entry);
}

/* Return: 0, the walk is done; -EAGAIN, it has to start again; what an accessor returned. */
static int attempt(const struct mv_format *f, const struct mv_stage2 *stage2, unsigned int access,
		   struct mv_stage2_walk *walk)
{
	const struct mv_stage2_demand demand = mv_stage2_demand(f, stage2, access);
	struct mv_stage2_path path;
	int end = mv_stage2_descend(f, read_any, stage2, walk->gpa, &path, walk->step);
	int error;

	if (end < 0)
		return end;
	walk->steps = mv_stage2_steps(f, &path);
	if (end != MV_STAGE2_PAGE || !mv_stage2_allows(&demand, &path)) {
		fault(f, stage2, access, end, &path, walk);
		return 0;
	}
	if (!mv_stage2_marked(&demand, &path)) {
		error = mark(stage2, &demand, walk);
		if (error)
			return error;
		path.entry |= demand.mark | demand.mark_page;
	}
	found(f, stage2, walk->gpa, &path, walk);
	return 0;
}

/* Whatever the tables hold and wherever they are. @walk is left alone until all is known. */
static int walk_any(const struct mv_stage2 *stage2, uint64_t gpa, unsigned int access,
		    struct mv_stage2_walk *walk)
{
	struct mv_stage2_walk result = { .gpa = gpa };
	int error = -EAGAIN;

	for (unsigned int i = 0; i < ATTEMPTS && error == -EAGAIN; i++)
		error = attempt(mv_formats[stage2->format], stage2, access, &result);
	if (!error)
		*walk = result;
	return error;
}

/* --- the common case, once for each format ------------------------------------------------ */

/* @level is constant, and so is where everything goes. */
MV_INLINE int finish(const struct mv_format *f, const struct mv_stage2 *stage2, uint64_t gpa,
		     unsigned int level, struct mv_stage2_path path,
		     const struct mv_walk_step *step, struct mv_stage2_walk *walk)
{
	path.level = level;
	found(f, stage2, gpa, &path, walk);
	walk->step[0] = step[0];
	walk->step[1] = step[1];
	if (f->levels - level > 1)
		walk->step[2] = step[2];
	if (f->levels - level > 2)
		walk->step[3] = step[3];
	if (f->levels - level > 3)
		walk->step[4] = step[4];
	return 0;
}

/*
 * A page that grants what is asked, A and D set before. Every field is stored once, from a
 * register: a copy of the whole would wait for those stores.
 */
MV_INLINE int walk_direct(const struct mv_format *f, const struct mv_stage2 *stage2, uint64_t gpa,
			  unsigned int access, struct mv_stage2_walk *walk)
{
	const struct mv_stage2_demand demand = mv_stage2_demand(f, stage2, access);
	struct mv_walk_step step[MV_LEVEL_MAX];
	struct mv_stage2_path path;
	int end = mv_stage2_descend(f, mv_stage2_read_direct, stage2, gpa, &path, step);

	if (end != MV_STAGE2_PAGE || !mv_stage2_allows(&demand, &path) ||
	    !mv_stage2_marked(&demand, &path))
		return walk_any(stage2, gpa, access, walk);
	switch (path.level) {
	case 1:
		return finish(f, stage2, gpa, 1, path, step, walk);
	case 2:
		return finish(f, stage2, gpa, 2, path, step, walk);
	default:
		return finish(f, stage2, gpa, 3, path, step, walk);
	}
}

static int walk_ept_4l(const struct mv_stage2 *stage2, uint64_t gpa, unsigned int access,
		       struct mv_stage2_walk *walk)
{
	return walk_direct(&mv_format_ept_4l, stage2, gpa, access, walk);
}

static int walk_ept_5l(const struct mv_stage2 *stage2, uint64_t gpa, unsigned int access,
		       struct mv_stage2_walk *walk)
{
	return walk_direct(&mv_format_ept_5l, stage2, gpa, access, walk);
}

static int walk_npt_4l(const struct mv_stage2 *stage2, uint64_t gpa, unsigned int access,
		       struct mv_stage2_walk *walk)
{
	return walk_direct(&mv_format_npt_4l, stage2, gpa, access, walk);
}

static int walk_npt_5l(const struct mv_stage2 *stage2, uint64_t gpa, unsigned int access,
		       struct mv_stage2_walk *walk)
{
	return walk_direct(&mv_format_npt_5l, stage2, gpa, access, walk);
}

int mv_stage2_walk(const struct mv_stage2 *stage2, uint64_t gpa, unsigned int access,
		   struct mv_stage2_walk *walk)
{
	if (stage2->accessor.read)
		return walk_any(stage2, gpa, access, walk);
	switch (stage2->format) {
	case MV_FORMAT_EPT_4L:
		return walk_ept_4l(stage2, gpa, access, walk);
	case MV_FORMAT_EPT_5L:
		return walk_ept_5l(stage2, gpa, access, walk);
	case MV_FORMAT_NPT_4L:
		return walk_npt_4l(stage2, gpa, access, walk);
	default:
		return walk_npt_5l(stage2, gpa, access, walk);
	}
}

/* --- preparation -------------------------------------------------------------------------- */

static bool config_is_valid(const struct mv_stage2_config *config)
{
	if (!config || config->size != sizeof(*config))
		return false;
	if (config->format < MV_FORMAT_EPT_4L || config->format > MV_FORMAT_NPT_5L)
		return false;
	if (config->maxphyaddr < 32 || config->maxphyaddr > 52)
		return false;
	if (config->accessor.change && !config->accessor.read)
		return false;
	return !(config->root & 0xfff) && !(config->root >> config->maxphyaddr);
}

int mv_stage2_init(struct mv_stage2 *stage2, const struct mv_stage2_config *config)
{
	if (!config_is_valid(config))
		return -EINVAL;
	stage2->format = config->format;
	stage2->features = config->features;
	stage2->root = config->root;
	stage2->direct_map = config->direct_map;
	stage2->accessor = config->accessor;
	mv_rules_init(mv_formats[config->format], config->features, config->maxphyaddr,
		      &stage2->rules);
	return 0;
}
