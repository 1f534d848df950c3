/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest's registers, prepared for walks: which mode, which rules, where the root is; and the
 * load of the PDPTEs.
 *
 * SDM vol. 3, 4.1 and 4.4.1; APM vol. 2, 5.1. Freestanding.
 * What does not belong here: the walk (guest_walk.h).
 */
#include <string.h>

#include "guest_walk.h"

#define WIDTH_MIN 32
#define WIDTH_MAX 52

#define PDPTES 4

static bool is_long_mode(const struct mv_paging_registers *registers)
{
	return (registers->cr0 & MV_CR0_PG) && (registers->efer & MV_EFER_LME);
}

/* SDM vol. 3, 4.1.1 and 2.5: MOV to a control register refuses these with #GP. */
static bool is_possible(const struct mv_paging_registers *registers)
{
	bool paging = registers->cr0 & MV_CR0_PG;

	if (paging && !(registers->cr0 & MV_CR0_PE))
		return false;
	if (is_long_mode(registers) && !(registers->cr4 & MV_CR4_PAE))
		return false;
	if ((registers->efer & MV_EFER_LMA) && !is_long_mode(registers))
		return false;
	return !(registers->cr4 & MV_CR4_CET) || (registers->cr0 & MV_CR0_WP);
}

static enum mv_format_id format_of(const struct mv_paging_registers *registers)
{
	if (!(registers->cr4 & MV_CR4_PAE))
		return registers->cr4 & MV_CR4_PSE ? MV_FORMAT_X86_PSE : MV_FORMAT_X86_32;
	if (!is_long_mode(registers))
		return MV_FORMAT_X86_PAE;
	return registers->cr4 & MV_CR4_LA57 ? MV_FORMAT_X86_5L : MV_FORMAT_X86_4L;
}

static bool in_long_mode(const struct mv_paging *paging)
{
	return paging->format == MV_FORMAT_X86_4L || paging->format == MV_FORMAT_X86_5L;
}

static uint32_t features_of(const struct mv_paging *paging)
{
	uint32_t features = 0;

	if (paging->registers.efer & MV_EFER_NXE)
		features |= MV_FEATURE_NX;
	if (!in_long_mode(paging))
		return features;
	if (paging->cpu.features & MV_CPU_1G)
		features |= MV_FEATURE_1G;
	if (paging->registers.cr4 & (MV_CR4_PKE | MV_CR4_PKS))
		features |= MV_FEATURE_PKEY;
	return features;
}

static void init_rules(struct mv_paging *paging)
{
	const struct mv_format *f = mv_formats[paging->format];
	unsigned int width = paging->cpu.maxphyaddr;

	if (f->pse36 && !(paging->cpu.features & MV_CPU_PSE36))
		width = WIDTH_MIN;
	mv_rules_init(f, features_of(paging), width, &paging->rules);
	if (!(paging->registers.cr4 & MV_CR4_PGE))
		paging->rules.meaningful &= ~f->global;
	/* AMD reserves the global bit where no page can be. APM vol. 2, 5.3.3. */
	if (in_long_mode(paging) && (paging->cpu.features & MV_CPU_AMD))
		for (unsigned int level = 4; level <= f->levels; level++)
			paging->rules.reserved_table[level] |= f->global;
}

/* Bits of CR3: SDM vol. 3, tables 4-3, 4-7 and 4-12. */
static uint64_t root_bits(enum mv_format_id format)
{
	if (format == MV_FORMAT_X86_PAE)
		return MV_BITS(31, 5);
	return format == MV_FORMAT_X86_32 || format == MV_FORMAT_X86_PSE ? MV_BITS(31, 12)
									 : MV_BITS(51, 12);
}

static void init_keys(struct mv_paging *paging)
{
	uint64_t cr4 = in_long_mode(paging) ? paging->registers.cr4 : 0;

	paging->keys[0] = cr4 & MV_CR4_PKS ? paging->registers.pkrs : 0;
	paging->keys[1] = cr4 & MV_CR4_PKE ? paging->registers.pkru : 0;
}

/* SDM vol. 3, linear-address pre-processing: which width, for user and supervisor pointers. */
static void init_lam(struct mv_paging *paging)
{
	const struct mv_paging_registers *registers = &paging->registers;

	if (!in_long_mode(paging))
		return;
	if (registers->cr3 & MV_CR3_LAM_U57)
		paging->lam_sign_bit[0] = 56;
	else if (registers->cr3 & MV_CR3_LAM_U48)
		paging->lam_sign_bit[0] = 47;
	if (registers->cr4 & MV_CR4_LAM_SUP)
		paging->lam_sign_bit[1] = paging->format == MV_FORMAT_X86_5L ? 56 : 47;
}

int mv_paging_init(struct mv_paging *paging, const struct mv_paging_registers *registers,
		   const struct mv_cpu_model *cpu)
{
	struct mv_paging made;

	if (!is_possible(registers) || cpu->maxphyaddr < WIDTH_MIN || cpu->maxphyaddr > WIDTH_MAX)
		return -EINVAL;
	memset(&made, 0, sizeof(made));
	made.registers = *registers;
	made.cpu = *cpu;
	made.enabled = registers->cr0 & MV_CR0_PG;
	if (made.enabled) {
		made.format = format_of(registers);
		made.root = registers->cr3 & root_bits(made.format);
		if (made.root >> cpu->maxphyaddr)
			return -EINVAL;
		init_rules(&made);
		init_keys(&made);
		init_lam(&made);
	}
	*paging = made;
	return 0;
}

int mv_paging_load_pdptes(struct mv_paging *paging, const struct mv_guest_accessor *accessor)
{
	const uint64_t reserved = paging->rules.reserved_table[3];
	uint64_t pdpte[PDPTES];

	if (!paging->enabled || paging->format != MV_FORMAT_X86_PAE)
		return 0;
	for (unsigned int i = 0; i < PDPTES; i++) {
		uint64_t gpa = paging->root + i * sizeof(pdpte[0]);
		int error = accessor->read(accessor->ctx, gpa, sizeof(pdpte[0]), &pdpte[i]);

		if (error)
			return error;
		if ((pdpte[i] & paging->rules.present) && (pdpte[i] & reserved))
			return -EINVAL;
	}
	memcpy(paging->pdpte, pdpte, sizeof(pdpte));
	return 0;
}
