/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nested walk over each format of stage 2, its preparation, and the walk that tells of each
 * of its steps.
 *
 * SDM vol. 3, 29.3; APM vol. 2, 15.25. Freestanding. What does not belong here: caches
 * (nested_cache.c), batches (nested_many.c), memory types (nested_type.c).
 */
#include <string.h>

#include "nested_cache.h"

/* --- preparation -------------------------------------------------------------------------- */

static bool is_npt(const struct mv_stage2 *stage2)
{
	return stage2->format == MV_FORMAT_NPT_4L || stage2->format == MV_FORMAT_NPT_5L;
}

static bool is_stage2(const struct mv_stage2 *stage2)
{
	return is_npt(stage2) || stage2->format == MV_FORMAT_EPT_4L ||
	       stage2->format == MV_FORMAT_EPT_5L;
}

/* All of stage 1's registers and of its processor that say what an entry means, but for rights. */
static uint64_t mode_of(const struct mv_paging *paging)
{
	uint64_t mode = paging->cpu.maxphyaddr | (uint64_t)paging->cpu.features << 8;

	if (!paging->enabled)
		return 0;
	mode |= MV_BIT(63) | (uint64_t)paging->format << MV_CACHE_MODE_FORMAT;
	mode |= paging->registers.efer & MV_EFER_NXE ? MV_BIT(48) : 0;
	mode |= paging->registers.cr4 & MV_CR4_PGE ? MV_BIT(49) : 0;
	mode |= paging->registers.cr4 & (MV_CR4_PKE | MV_CR4_PKS) ? MV_BIT(50) : 0;
	return mode;
}

void mv_nested_set_paging(struct mv_nested *nested, const struct mv_paging *paging)
{
	bool pcids = paging->enabled && (paging->registers.cr4 & MV_CR4_PCIDE);

	nested->paging = *paging;
	nested->mode = mode_of(paging);
	nested->root = paging->enabled ? paging->root : 0;
	nested->pcid = pcids ? paging->registers.cr3 & 0xfff : 0;
}

/* Types 2 and 3 do not exist: WRMSR refuses them. SDM vol. 3, 12.12.2. */
static uint64_t legal_pat(uint64_t pat)
{
	for (unsigned int i = 0; i < 64; i += 8)
		if ((pat >> i & 0xff) > 7 || (pat >> i & 6) == 2)
			pat &= ~(0xffULL << i);
	return pat;
}

void mv_nested_set_guest_pat(struct mv_nested *nested, uint64_t pat)
{
	nested->guest_pat = legal_pat(pat);
}

int mv_nested_init(struct mv_nested *nested, const struct mv_nested_config *config)
{
	struct mv_nested made;

	if (config->size != sizeof(*config) || !config->stage2 || !is_stage2(config->stage2))
		return -EINVAL;
	if (config->frames.change && !config->frames.read)
		return -EINVAL;
	memset(&made, 0, sizeof(made));
	made.stage2 = *config->stage2;
	made.direct_map = config->direct_map;
	made.frames = config->frames;
	made.guest_pat = legal_pat(config->guest_pat);
	made.host_pat = legal_pat(config->host_pat);
	made.mtrr_type = is_npt(config->stage2) ? config->mtrr_type : NULL;
	made.mtrr_ctx = config->mtrr_ctx;
	made.log = config->log;
	/* A root is aligned to a page, and no wider than 52 bits. */
	made.space = made.stage2.root | (uint64_t)made.stage2.features << 52 | made.stage2.format;
	*nested = made;
	return 0;
}

/* --- tables and frames, whatever comes ----------------------------------------------------- */

/* A walk that starts again is told from its new start. */
static int restarting(struct mv_nested_reading *reading, int error)
{
	if (error == -EAGAIN && reading->trace)
		reading->trace->walks = 0;
	return error;
}

static void note(struct mv_nested_trace *trace, const struct mv_stage2_walk *stage2)
{
	if (trace && trace->walks < sizeof(trace->stage2) / sizeof(trace->stage2[0]))
		trace->stage2[trace->walks++] = *stage2;
}

int mv_nested_find_table(struct mv_nested_reading *reading, uint64_t gpa, unsigned int access,
			 uint64_t *hpa)
{
	struct mv_stage2_walk *stage2 = &reading->fault;
	int error = mv_stage2_walk(&reading->nested->stage2, gpa, access, stage2);

	if (error)
		return error;
	/* What sets flags is a walk of its own, of no interest unless it faults. */
	if (!(access & MV_ACCESS_WRITE) || stage2->kind != MV_STAGE2_OK)
		note(reading->trace, stage2);
	if (stage2->kind != MV_STAGE2_OK)
		return MV_NESTED_FAULTED;
	*hpa = stage2->phys;
	return 0;
}

static int change_frame(const struct mv_nested *nested, uint64_t hpa, unsigned int bytes,
			uint64_t old, uint64_t entry)
{
	void *at = (void *)(uintptr_t)(nested->direct_map + hpa);
	uint32_t old_half = (uint32_t)old;
	bool changed;

	if (nested->frames.read)
		return nested->frames.change(nested->frames.ctx, hpa, bytes, old, entry);
	if (bytes == 4)
		changed = __atomic_compare_exchange_n((uint32_t *)at, &old_half, (uint32_t)entry,
						      false, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	else
		changed = __atomic_compare_exchange_n((uint64_t *)at, &old, entry, false,
						      __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
	return changed ? 0 : -EAGAIN;
}

/* A write, as far as stage 2 is concerned: SDM vol. 3, 29.3.3.2. */
int mv_nested_change(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes, uint64_t old,
		     uint64_t entry)
{
	struct mv_nested_reading *reading = ctx;
	unsigned int access = (reading->access & ~MV_ACCESS_READ) | MV_ACCESS_WRITE;
	uint64_t hpa;
	int error = mv_nested_find_table(reading, gpa, access, &hpa);

	if (!error) {
		reading->marked = true;
		error = change_frame(reading->nested, hpa, bytes, old, entry);
	}
	return restarting(reading, error);
}

/* --- results ------------------------------------------------------------------------------ */

void mv_nested_give_guest_fault(const struct mv_walk *guest, struct mv_nested_walk *walk)
{
	bool page_fault = guest->kind == MV_WALK_PAGE_FAULT;

	memset(walk, 0, sizeof(*walk));
	walk->kind = page_fault ? MV_NESTED_PAGE_FAULT : MV_NESTED_NOT_CANONICAL;
	walk->error_code = guest->error_code;
	walk->level = guest->level;
}

void mv_nested_give_fault(const struct mv_stage2_walk *fault, bool guest_table,
			  struct mv_nested_walk *walk)
{
	memset(walk, 0, sizeof(*walk));
	walk->kind = MV_NESTED_STAGE2;
	walk->gpa = fault->gpa;
	walk->level = fault->level;
	walk->stage2_kind = fault->kind;
	walk->code = fault->code;
	walk->suppress_ve = fault->suppress_ve;
	walk->guest_table = guest_table;
}

int mv_nested_end_slowly(const struct mv_nested *nested, const struct mv_walk *guest,
			 unsigned int access, struct mv_stage2_walk *stage2,
			 struct mv_nested_walk *walk)
{
	unsigned int final = mv_nested_final_access(access, guest->attr);
	int error = mv_stage2_walk(&nested->stage2, guest->gpa, final, stage2);

	if (error)
		return error;
	if (stage2->kind == MV_STAGE2_OK)
		mv_nested_give(mv_formats[nested->stage2.format], nested, guest->gpa, stage2->phys,
			       mv_nested_smaller(guest->page_lg2, stage2->page_lg2), guest->attr,
			       stage2->attr, walk);
	else
		mv_nested_give_fault(stage2, false, walk);
	return 0;
}

/* --- the walk, by format ------------------------------------------------------------------- */

MV_INLINE int read_ept_4l(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
			  uint64_t *entry)
{
	return mv_nested_read(&mv_format_ept_4l, ctx, step, gpa, bytes, entry);
}

MV_INLINE int read_ept_5l(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
			  uint64_t *entry)
{
	return mv_nested_read(&mv_format_ept_5l, ctx, step, gpa, bytes, entry);
}

MV_INLINE int read_npt_4l(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
			  uint64_t *entry)
{
	return mv_nested_read(&mv_format_npt_4l, ctx, step, gpa, bytes, entry);
}

MV_INLINE int read_npt_5l(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
			  uint64_t *entry)
{
	return mv_nested_read(&mv_format_npt_5l, ctx, step, gpa, bytes, entry);
}

/* Any format, and tables behind an accessor: each step at its slowest, and noted. */
static int read_any(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct mv_nested_reading *reading = ctx;
	uint64_t hpa;
	int error = mv_nested_find_table(reading, gpa, reading->access, &hpa);

	if (!error)
		error = mv_nested_load(reading->nested, hpa, bytes, entry);
	return restarting(reading, error);
}

static const struct mv_walk_reach by_ept_4l = { read_ept_4l, mv_nested_change, false };
static const struct mv_walk_reach by_ept_5l = { read_ept_5l, mv_nested_change, false };
static const struct mv_walk_reach by_npt_4l = { read_npt_4l, mv_nested_change, true };
static const struct mv_walk_reach by_npt_5l = { read_npt_5l, mv_nested_change, true };
static const struct mv_walk_reach by_any_ept = { read_any, mv_nested_change, false };
static const struct mv_walk_reach by_any_npt = { read_any, mv_nested_change, true };

/* Stage 1 with each step noted. Return: 0; MV_NESTED_FAULTED; a negative error. */
static int walk_guest_slowly(struct mv_nested_reading *reading, uint64_t gva, unsigned int access,
			     struct mv_walk *guest)
{
	const struct mv_nested *nested = reading->nested;

	access = mv_nested_guest_access(nested, access);
	if (is_npt(&nested->stage2))
		return mv_walk_any(&nested->paging, &by_any_npt, reading, gva, access, guest);
	return mv_walk_any(&nested->paging, &by_any_ept, reading, gva, access, guest);
}

/* Stage 1's end in words, where it did not lead to an address. */
static bool ended(const struct mv_nested_reading *reading, int result, const struct mv_walk *guest,
		  struct mv_nested_walk *walk)
{
	if (result == MV_NESTED_FAULTED)
		mv_nested_give_fault(&reading->fault, true, walk);
	else if (guest->kind != MV_WALK_OK)
		mv_nested_give_guest_fault(guest, walk);
	else
		return false;
	return true;
}

static int walk_slowly(const struct mv_nested *nested, uint64_t gva, unsigned int access,
		       struct mv_nested_walk *walk, struct mv_nested_trace *trace)
{
	struct mv_nested_reading reading;
	struct mv_stage2_walk stage2;
	struct mv_walk guest;
	int result;

	mv_nested_begin(nested, access, &reading);
	reading.trace = trace;
	result = walk_guest_slowly(&reading, gva, access, &guest);
	if (result < 0)
		return result;
	if (trace)
		trace->guest = guest;
	if (ended(&reading, result, &guest, walk))
		return 0;
	result = mv_nested_end_slowly(nested, &guest, access, &stage2, walk);
	if (!result)
		note(trace, &stage2);
	return result;
}

int mv_nested_walk(const struct mv_nested *nested, uint64_t gva, unsigned int access,
		   struct mv_nested_walk *walk)
{
	if (mv_unlikely(nested->stage2.accessor.read))
		return walk_slowly(nested, gva, access, walk, NULL);
	switch (nested->stage2.format) {
	case MV_FORMAT_EPT_4L:
		return mv_nested_both(&mv_format_ept_4l, &by_ept_4l, nested, gva, access, walk);
	case MV_FORMAT_EPT_5L:
		return mv_nested_both(&mv_format_ept_5l, &by_ept_5l, nested, gva, access, walk);
	case MV_FORMAT_NPT_4L:
		return mv_nested_both(&mv_format_npt_4l, &by_npt_4l, nested, gva, access, walk);
	case MV_FORMAT_NPT_5L:
		return mv_nested_both(&mv_format_npt_5l, &by_npt_5l, nested, gva, access, walk);
	default: /* mv_nested_init() refuses others */
		return -EINVAL;
	}
}

int mv_nested_trace(const struct mv_nested *nested, uint64_t gva, unsigned int access,
		    struct mv_nested_walk *walk, struct mv_nested_trace *trace)
{
	struct mv_nested_trace made = { .walks = 0 };
	int error = walk_slowly(nested, gva, access, walk, &made);

	if (!error)
		*trace = made;
	return error;
}

/* --- PDPTEs --------------------------------------------------------------------------------- */

/* A load reads, whatever the flags of EPT, and knows no linear address: SDM vol. 3, 29.3.5. */
static int read_pdpte(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct mv_nested_reading *reading = ctx;
	uint64_t hpa;
	int error = mv_nested_find_table(reading, gpa, MV_ACCESS_READ, &hpa);

	if (!error)
		error = mv_nested_load(reading->nested, hpa, bytes, entry);
	/* What is left of what reads return is mv_paging_load_pdptes()'s own: -EINVAL. */
	reading->marked = error;
	return error;
}

int mv_nested_load_pdptes(struct mv_nested *nested, struct mv_nested_walk *walk)
{
	struct mv_nested_reading reading = { .nested = nested };
	const struct mv_guest_accessor accessor = { .read = read_pdpte, .ctx = &reading };
	int result = 0;

	if (!is_npt(&nested->stage2))
		result = mv_paging_load_pdptes(&nested->paging, &accessor);
	if (result < 0 && reading.marked)
		return result;
	if (result == MV_NESTED_FAULTED) {
		mv_nested_give_fault(&reading.fault, false, walk);
		return 0;
	}
	memset(walk, 0, sizeof(*walk));
	walk->kind = result ? MV_NESTED_BAD_PDPTE : MV_NESTED_OK;
	return 0;
}
