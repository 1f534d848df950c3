/* SPDX-License-Identifier: BSD-2-Clause */
/* A guest under a shadow; see shadow_lab.h. */
#include "support/shadow_lab.h"
#include "guest_walk.h"
#include "support/testing.h"

#define PLENTY 4096

static int resolve(void *ctx, uint64_t gpa, void *hva, unsigned int access,
		   struct mv_shadow_backing *backing)
{
	const struct lab *lab = ctx;

	if (!access && lab->on_ahead)
		lab->on_ahead(gpa);
	backing->hpa = (uintptr_t)hva;
	backing->page_lg2 = lab->page_lg2;
	backing->writable = gpa != lab->write_protected;
	return 0;
}

static void flush(void *ctx, const uint64_t *vcpus)
{
	struct lab *lab = ctx;

	__atomic_fetch_add(&lab->flushes, 1, __ATOMIC_RELAXED);
}

static void choose_registers(struct lab *lab)
{
	struct mv_paging_registers *r = &lab->registers;

	r->cr0 = MV_CR0_PE | MV_CR0_PG | MV_CR0_WP;
	r->cr4 = lab->mode == PAGED_32 ? 0 : lab->mode == PAGED_PSE ? MV_CR4_PSE : MV_CR4_PAE;
	if (lab->mode >= PAGED_PAE)
		r->efer = MV_EFER_NXE;
	if (lab->mode >= PAGED_4L)
		r->efer |= MV_EFER_LME | MV_EFER_LMA;
	if (lab->mode == PAGED_5L)
		r->cr4 |= MV_CR4_LA57;
	lab->cpu = (struct mv_cpu_model){ .maxphyaddr = 46, .features = MV_CPU_1G };
}

void lab_init(struct lab *lab, const struct lab_options *options)
{
	const struct mv_shadow_ops ops = {
		.resolve = resolve,
		.flush = flush,
		.short_of_pages = options->short_of_pages,
	};
	struct mv_shadow_config config = {
		.size = sizeof(config),
		.format = options->host_5l ? MV_FORMAT_X86_5L : MV_FORMAT_X86_4L,
		.features = MV_FEATURE_NX | MV_FEATURE_1G,
		.maxphyaddr = 52,
		.node = -1,
		.page_budget = options->budget ? options->budget : PLENTY,
		.ops = &ops,
		.ctx = lab,
	};

	memset(lab, 0, sizeof(*lab));
	lab->mode = options->mode;
	lab->write_protected = UINT64_MAX;
	lab->page_lg2 = 30;
	guest_init(&lab->guest, LAB_PAGES * MV_PAGE_SIZE + MV_GRANULE_SIZE);
	/* Host addresses that allow large pages. */
	lab->mapped = lab->guest.mem;
	lab->guest.mem += -(uintptr_t)lab->guest.mem & (MV_GRANULE_SIZE - 1);
	assert_int_equal(guest_add(&lab->guest, 0, LAB_PAGES, 0), 0);
	config.memory = lab->guest.memory;
	assert_int_equal(mv_shadow_create(&config, &lab->shadow), 0);
	assert_int_equal(mv_shadow_vcpu_create(lab->shadow, &lab->vcpu), 0);
	lab->next_table = LAB_PAGES * MV_PAGE_SIZE;
	choose_registers(lab);
	lab->registers.cr3 = lab_table(lab);
	assert_int_equal(lab_load(lab), 0);
}

void lab_finish(struct lab *lab)
{
	mv_shadow_vcpu_destroy(lab->vcpu);
	mv_shadow_destroy(lab->shadow);
	lab->guest.mem = lab->mapped;
	guest_finish(&lab->guest);
}

int lab_load(struct lab *lab)
{
	return mv_shadow_load_root(lab->vcpu, &lab->registers, &lab->cpu, false, &lab->root_hpa);
}

/* --- the guest's memory -------------------------------------------------------------------- */

static const struct mv_format *format_of(const struct lab *lab)
{
	static const enum mv_format_id ids[PAGED_MODES] = {
		[PAGED_32] = MV_FORMAT_X86_32,	 [PAGED_PSE] = MV_FORMAT_X86_PSE,
		[PAGED_PAE] = MV_FORMAT_X86_PAE, [PAGED_4L] = MV_FORMAT_X86_4L,
		[PAGED_5L] = MV_FORMAT_X86_5L,
	};

	return mv_formats[ids[lab->mode]];
}

uint64_t lab_table(struct lab *lab)
{
	lab->next_table -= MV_PAGE_SIZE;
	memset(lab->guest.mem + lab->next_table, 0, MV_PAGE_SIZE);
	return lab->next_table;
}

uint64_t lab_read(struct lab *lab, uint64_t gpa)
{
	uint64_t value = 0;

	memcpy(&value, lab->guest.mem + gpa, 1u << format_of(lab)->entry_lg2);
	return value;
}

void lab_poke(struct lab *lab, uint64_t gpa, uint64_t value)
{
	memcpy(lab->guest.mem + gpa, &value, 1u << format_of(lab)->entry_lg2);
}

void lab_write(struct lab *lab, uint64_t gpa, uint64_t value)
{
	lab_poke(lab, gpa, value);
	mv_shadow_guest_wrote(lab->shadow, gpa, 1u << format_of(lab)->entry_lg2);
}

uint64_t lab_entry(struct lab *lab, uint64_t gva, unsigned int level)
{
	const struct mv_format *f = format_of(lab);
	uint64_t table = lab->registers.cr3 & ~0x1fULL;

	for (unsigned int l = f->levels;; l--) {
		uint64_t gpa = table + ((uint64_t)mv_index(f, l, gva) << f->entry_lg2);

		if (l == level)
			return gpa;
		if (!(lab_read(lab, gpa) & PTE_P)) {
			lab_write(lab, gpa, lab_table(lab) | f->table_rights[l]);
			/* PDPTEs are read at the load of CR3. */
			if (l == 3 && f->levels == 3)
				assert_int_equal(lab_load(lab), 0);
		}
		table = mv_entry_table(f, lab_read(lab, gpa));
	}
}

void lab_map(struct lab *lab, uint64_t gva, unsigned int level, uint64_t entry)
{
	lab_write(lab, lab_entry(lab, gva, level), entry);
}

/* --- the processor --------------------------------------------------------------------------- */

/* SDM vol. 3, 4.6, of a processor with CR0.WP = 1 and the guest's SMEP and SMAP. */
static bool may(const struct lab *lab, uint32_t attr, unsigned int access)
{
	bool user_page = attr & MV_ATTR_USER, user = mv_access_is_user(access);
	bool smap = (lab->registers.cr4 & MV_CR4_SMAP) &&
		    (access & (MV_ACCESS_AC | MV_ACCESS_IMPLICIT)) != MV_ACCESS_AC;

	if (user && !user_page)
		return false;
	if (!user && user_page && (access & MV_ACCESS_DATA) && smap)
		return false;
	if (!user && user_page && (access & MV_ACCESS_FETCH) && (lab->registers.cr4 & MV_CR4_SMEP))
		return false;
	if ((access & MV_ACCESS_WRITE) && !(attr & MV_ATTR_WRITE))
		return false;
	return !(access & MV_ACCESS_FETCH) || (attr & MV_ATTR_EXEC);
}

bool lab_reaches(struct lab *lab, uint64_t gva, unsigned int access, uint64_t *hpa)
{
	struct mv_mapping mapping;

	if (mv_shadow_walk(lab->vcpu, gva, &mapping) || !may(lab, mapping.attr, access))
		return false;
	*hpa = mapping.phys | (gva & ((1ULL << mapping.page_lg2) - 1));
	return true;
}

struct lab_access lab_touch(struct lab *lab, uint64_t gva, unsigned int access)
{
	struct lab_access made = { .kind = MV_SHADOW_FIXED };

	for (unsigned int turns = 0; turns < 8; turns++) {
		struct mv_shadow_outcome outcome;

		if (lab_reaches(lab, gva, access, &made.hpa)) {
			made.kind = MV_SHADOW_FIXED;
			return made;
		}
		assert_int_equal(mv_shadow_fault(lab->vcpu, gva, access, &outcome), 0);
		lab->faults[outcome.kind]++;
		made.kind = outcome.kind;
		made.walk = outcome.walk;
		if (outcome.kind != MV_SHADOW_FIXED && outcome.kind != MV_SHADOW_RETRY)
			return made;
	}
	fail_msg("an access to %#lx is never made", gva);
	return made;
}

/* Where accessed and dirty of the walk's entries are missing, by the guest's own walk. */
static void check_marks(struct lab *lab, const struct mv_paging *paging, uint64_t gva,
			unsigned int access)
{
	struct mv_guest_accessor accessor;
	struct mv_walk walk;

	mv_guest_accessor_memory(&accessor, lab->guest.memory);
	accessor.change = NULL;
	assert_int_equal(mv_guest_walk(paging, &accessor, gva, access, &walk), 0);
	for (unsigned int i = 0; i < walk.steps; i++) {
		const struct mv_walk_step *step = &walk.step[i];
		bool last = i == walk.steps - 1;

		if (step->level == 3 && lab->mode == PAGED_PAE)
			continue;
		assert_true(step->entry & PTE_A);
		if (last && (access & MV_ACCESS_WRITE))
			assert_true(step->entry & PTE_D);
	}
}

void lab_check(struct lab *lab, uint64_t gva, unsigned int access)
{
	struct mv_guest_accessor accessor;
	struct lab_access made;
	struct mv_paging paging;
	struct mv_walk walk;

	assert_int_equal(mv_paging_init(&paging, &lab->registers, &lab->cpu), 0);
	mv_guest_accessor_memory(&accessor, lab->guest.memory);
	assert_int_equal(mv_paging_load_pdptes(&paging, &accessor), 0);
	assert_int_equal(
		mv_guest_walk(&paging, &accessor, gva, access | MV_ACCESS_NO_UPDATE, &walk), 0);
	made = lab_touch(lab, gva, access);
	if (walk.kind != MV_WALK_OK) {
		assert_int_equal(made.kind, MV_SHADOW_INJECT);
		assert_int_equal(made.walk.kind, walk.kind);
		assert_int_equal(made.walk.error_code, walk.error_code);
		return;
	}
	if (made.kind == MV_SHADOW_FIXED)
		assert_int_equal(made.hpa, lab_hpa(lab, walk.gpa));
	else
		assert_int_not_equal(made.kind, MV_SHADOW_INJECT);
	check_marks(lab, &paging, gva, access);
}
