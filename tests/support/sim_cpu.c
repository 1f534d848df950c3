/* SPDX-License-Identifier: BSD-2-Clause */
/* The processor for tests; see sim_cpu.h. */
#include "format.h"
#include "support/sim_cpu.h"

static bool is_ept(const struct sim_cpu *cpu)
{
	return cpu->format == MV_FORMAT_EPT_4L || cpu->format == MV_FORMAT_EPT_5L;
}

void sim_cpu_load_view(struct sim_cpu *cpu, unsigned int view)
{
	struct mv_stage2_config config;

	insist(view < COUNT_OF(cpu->stage2));
	insist(!mv_ept_get_stage2_config(cpu->ept, view, &config));
	insist(!mv_stage2_init(&cpu->stage2[view], &config));
	cpu->format = config.format;
	cpu->features = config.features;
}

void sim_cpu_init(struct sim_cpu *cpu, struct mv_ept *ept, const struct mv_platform *platform,
		  unsigned int number, uint64_t seed)
{
	memset(cpu, 0, sizeof(*cpu));
	cpu->ept = ept;
	cpu->platform = platform;
	cpu->number = number;
	cpu->pml_index = MV_EPT_PML_ENTRIES - 1;
	cpu->chance = chance_of(seed, 1000 + number);
	sim_cpu_load_view(cpu, 0);
}

void sim_cpu_flush(struct sim_cpu *cpu)
{
	memset(cpu->tlb, 0, sizeof(cpu->tlb));
}

bool sim_cpu_pml_full(const struct sim_cpu *cpu)
{
	return cpu->pml && cpu->pml_index >= MV_EPT_PML_ENTRIES;
}

void sim_cpu_drain(struct sim_cpu *cpu)
{
	mv_ept_pml_drain(cpu->ept, cpu->pml_log, cpu->pml_index);
	cpu->pml_index = MV_EPT_PML_ENTRIES - 1;
}

/* --- the TLB ------------------------------------------------------------------------------ */

static bool covers(const struct sim_translation *t, unsigned int view, uint64_t gpa)
{
	return t->valid && t->view == view && t->gpa == (gpa & ~((1ULL << t->page_lg2) - 1));
}

/* Whether what is cached does; a clean translation does not for a write: dirty has to be set. */
static bool cached_does(const struct sim_cpu *cpu, const struct sim_translation *t,
			unsigned int access)
{
	bool has_dirty = !is_ept(cpu) || (cpu->features & MV_FEATURE_ACCESSED);

	if ((access & MV_ACCESS_READ) && !(t->attr & MV_ATTR_READ))
		return false;
	if ((access & MV_ACCESS_FETCH) && !(t->attr & MV_ATTR_EXEC))
		return false;
	if (!(access & MV_ACCESS_WRITE))
		return true;
	return (t->attr & MV_ATTR_WRITE) && (!has_dirty || (t->attr & MV_ATTR_DIRTY));
}

static struct sim_translation *find_cached(struct sim_cpu *cpu, uint64_t gpa, unsigned int access)
{
	for (unsigned int i = 0; i < SIM_TLB; i++)
		if (covers(&cpu->tlb[i], cpu->view, gpa) && cached_does(cpu, &cpu->tlb[i], access))
			return &cpu->tlb[i];
	return NULL;
}

static void cache(struct sim_cpu *cpu, const struct mv_stage2_walk *walk)
{
	uint64_t mask = (1ULL << walk->page_lg2) - 1;

	cpu->tlb[chance_below(&cpu->chance, SIM_TLB)] = (struct sim_translation){
		.valid = true,
		.view = cpu->view,
		.gpa = walk->gpa & ~mask,
		.hpa = walk->phys & ~mask,
		.page_lg2 = walk->page_lg2,
		.attr = walk->attr,
	};
}

/* A violation drops what is cached of its address: SDM vol. 3, 29.4.3.1. */
static void forget(struct sim_cpu *cpu, uint64_t gpa)
{
	for (unsigned int i = 0; i < SIM_TLB; i++)
		if (covers(&cpu->tlb[i], cpu->view, gpa))
			cpu->tlb[i].valid = false;
}

/* --- an access ---------------------------------------------------------------------------- */

static void report(struct sim_cpu *cpu, const struct mv_stage2_walk *walk,
		   struct mv_stage2_exit *exit)
{
	cpu->exits++;
	forget(cpu, walk->gpa);
	if (!is_ept(cpu))
		mv_stage2_decode_npf(walk->code, walk->gpa, exit);
	else if (walk->kind == MV_STAGE2_MISCONFIGURED)
		mv_stage2_decode_misconfiguration(walk->gpa, exit);
	else
		mv_stage2_decode_violation(walk->code, walk->gpa, walk->gpa, cpu->features, exit);
}

/* Whether the walk is the one that made the leaf dirty. */
static bool made_dirty(const struct sim_cpu *cpu, const struct mv_stage2_walk *walk)
{
	const struct mv_format *f = mv_formats[cpu->format];

	return !(walk->step[walk->steps - 1].entry & f->dirty);
}

bool sim_cpu_access(struct sim_cpu *cpu, uint64_t gpa, unsigned int access, uint64_t *hpa,
		    struct mv_stage2_exit *exit)
{
	struct sim_translation *cached = find_cached(cpu, gpa, access);
	struct mv_stage2_walk walk;
	int error;

	if (cached) {
		cpu->hits++;
		*hpa = cached->hpa + (gpa - cached->gpa);
		return true;
	}
	cpu->walks++;
	cpu->platform->ops->read_enter(cpu->platform->ctx);
	error = mv_stage2_walk(&cpu->stage2[cpu->view], gpa, access | MV_ACCESS_LINEAR, &walk);
	cpu->platform->ops->read_leave(cpu->platform->ctx);
	insist(!error);
	if (walk.kind != MV_STAGE2_OK) {
		report(cpu, &walk, exit);
		return false;
	}
	if (cpu->pml && (access & MV_ACCESS_WRITE) && made_dirty(cpu, &walk)) {
		insist(cpu->pml_index < MV_EPT_PML_ENTRIES);
		cpu->pml_log[cpu->pml_index--] = gpa & ~(MV_PAGE_SIZE - 1);
	}
	cache(cpu, &walk);
	*hpa = walk.phys;
	return true;
}
