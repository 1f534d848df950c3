/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Loads of CR3 and of the mode registers. SDM vol. 3, 4.1, 4.4.1 and 4.10.4.1; APM vol. 2, 5.
 *
 * Roots are shadow pages like others: what a vCPU had loaded before stays until it is reclaimed,
 * and is found again by its key.
 *
 * Freestanding. What does not belong here: what the registers mean (guest_walk_paging.c).
 */
#include "shadow_internal.h"

/* What the guest may not do on this host. */
static bool is_supported(const struct mv_shadow *s, const struct mv_paging *paging)
{
	const struct mv_paging_registers *registers = &paging->registers;
	bool keys = registers->cr4 & (MV_CR4_PKE | MV_CR4_PKS);

	if (!paging->enabled)
		return true;
	if (paging->format == MV_FORMAT_X86_5L && s->format->levels < 5)
		return false;
	/* 32-bit paging has no such bit: that it is set means nothing. */
	if ((registers->efer & MV_EFER_NXE) && mv_formats[paging->format]->no_exec &&
	    !(s->features & MV_FEATURE_NX))
		return false;
	return !keys && !(registers->cr4 & MV_CR4_CET);
}

static union shadow_role mode_of(const struct mv_paging *paging)
{
	const struct mv_paging_registers *registers = &paging->registers;
	union shadow_role mode = { .word = 0 };

	mode.format = paging->enabled ? paging->format : MV_FORMATS;
	if (!paging->enabled)
		return mode;
	mode.wp = !!(registers->cr0 & MV_CR0_WP);
	mode.nxe = !!(registers->efer & MV_EFER_NXE);
	mode.smep = !mode.wp && (registers->cr4 & MV_CR4_SMEP);
	mode.smap = !mode.wp && (registers->cr4 & MV_CR4_SMAP);
	mode.width = paging->cpu.maxphyaddr;
	mode.cpu = paging->cpu.features;
	return mode;
}

/* The page of the new root, counted as loaded. */
static int get_root(struct mv_shadow_vcpu *vcpu, const struct mv_paging *paging,
		    union shadow_role mode, struct shadow_page **root)
{
	struct shadow_key key;
	int error;

	shadow_root_key(vcpu->shadow, paging, mode, &key);
	do {
		error = shadow_reserve(vcpu, 1);
		if (error && error != -EAGAIN)
			return error;
		*root = error ? NULL : shadow_make(vcpu, &key, true);
	} while (!*root);
	if (!shadow_is_clean(vcpu->shadow, *root))
		shadow_flush(vcpu->shadow);
	return 0;
}

static void set_running(struct mv_shadow_vcpu *vcpu)
{
	uint64_t bit = MV_BIT(vcpu->number % 64);

	__atomic_fetch_or(&vcpu->shadow->running[vcpu->number / 64], bit, __ATOMIC_SEQ_CST);
}

int mv_shadow_load_root(struct mv_shadow_vcpu *vcpu, const struct mv_paging_registers *registers,
			const struct mv_cpu_model *cpu, bool preserve, uint64_t *root)
{
	struct mv_guest_accessor accessor;
	struct shadow_page *page;
	struct mv_paging paging;
	union shadow_role mode;
	int error = mv_paging_init(&paging, registers, cpu);

	if (error)
		return error;
	if (!is_supported(vcpu->shadow, &paging))
		return -EOPNOTSUPP;
	mv_guest_accessor_memory(&accessor, vcpu->shadow->memory);
	error = mv_paging_load_pdptes(&paging, &accessor);
	if (error)
		return error;
	mode = mode_of(&paging);
	if (!preserve)
		shadow_sync_all(vcpu);
	/* From here on flushes reach it. */
	set_running(vcpu);
	error = get_root(vcpu, &paging, mode, &page);
	if (error)
		return error;
	if (vcpu->root) {
		shadow_settle(vcpu);
		shadow_put_root(vcpu->shadow, vcpu->root);
	}
	vcpu->paging = paging;
	vcpu->mode = mode;
	vcpu->root = page;
	*root = shadow_phys(vcpu->shadow, page);
	return 0;
}
