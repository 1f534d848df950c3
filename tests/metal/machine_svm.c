/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * AMD: SVM with nested paging. APM vol. 2, chapter 15; appendix B for the VMCB's layout.
 */
#include <stddef.h>

#include <memvirt/table.h>

#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "machine.h"

void svm_switch(uint64_t vmcb, uint64_t registers[2]);

#define MSR_HSAVE 0xc0010117u

#define INTERCEPT_SHUTDOWN (1u << 31) /* third word */
#define INTERCEPT_CPUID	   (1u << 18)
#define INTERCEPT_VMRUN	   1u /* fourth word; must be set */
#define FLUSH_ALL	   1u
#define NESTED_PAGING	   1u

#define EXIT_EXCEPTION 0x40u
#define EXIT_CPUID     0x72u
#define EXIT_NPF       0x400u
#define NPF_RESERVED   8u

struct vmcb_segment {
	uint16_t selector, attributes;
	uint32_t limit;
	uint64_t base;
};

/* APM vol. 2, appendix B: what is used here, the rest left zero. */
struct vmcb {
	uint32_t intercept_cr, intercept_dr, intercept_exceptions, intercept[2];
	uint8_t reserved1[0x40 - 0x14];
	uint64_t io_permissions, msr_permissions, tsc_offset;
	uint32_t asid;
	uint8_t flush, reserved2[3];
	uint64_t virtual_interrupt, interrupt_shadow;
	uint64_t exit_code, exit_info1, exit_info2, exit_event;
	uint64_t nested_control;
	uint8_t reserved3[0xa8 - 0x98];
	uint64_t inject_event, nested_cr3;
	uint8_t reserved4[0x400 - 0xb8];
	struct vmcb_segment es, cs, ss, ds, fs, gs, gdtr, ldtr, idtr, tr;
	uint8_t reserved5[0x4cb - 0x4a0];
	uint8_t cpl;
	uint32_t reserved6;
	uint64_t efer;
	uint8_t reserved7[0x548 - 0x4d8];
	uint64_t cr4, cr3, cr0, dr7, dr6, rflags, rip;
	uint8_t reserved8[0x5d8 - 0x580];
	uint64_t rsp;
	uint8_t reserved9[0x5f8 - 0x5e0];
	uint64_t rax;
	uint8_t reserved10[0x668 - 0x600];
	uint64_t pat;
	uint8_t reserved11[0x1000 - 0x670];
};

_Static_assert(offsetof(struct vmcb, exit_code) == 0x70, "APM vol. 2, table B-1");
_Static_assert(offsetof(struct vmcb, nested_cr3) == 0xb0, "APM vol. 2, table B-1");
_Static_assert(offsetof(struct vmcb, efer) == 0x4d0, "APM vol. 2, table B-2");
_Static_assert(offsetof(struct vmcb, rip) == 0x578, "APM vol. 2, table B-2");
_Static_assert(sizeof(struct vmcb) == 4096, "APM vol. 2, 15.5.1");

static struct vmcb vmcb __attribute__((aligned(4096)));
static uint8_t host_save[4096] __attribute__((aligned(4096)));
/* Nothing is allowed to go wrong unseen: all ports and all MSRs are intercepted. */
static uint8_t permissions[3 * 4096] __attribute__((aligned(4096)));

static uint32_t npt_features(void)
{
	uint32_t features = MV_FEATURE_2M | MV_FEATURE_NX;

	return features | (cpuid(0x80000001, 0).edx & (1u << 26) ? MV_FEATURE_1G : 0);
}

static void write_constants(void)
{
	for (unsigned int i = 0; i < sizeof(permissions); i++)
		permissions[i] = 0xff;
	vmcb.intercept_exceptions = UINT32_MAX;
	vmcb.intercept[0] = INTERCEPT_SHUTDOWN | INTERCEPT_CPUID;
	vmcb.intercept[1] = INTERCEPT_VMRUN;
	vmcb.io_permissions = vmcb.msr_permissions = (uint64_t)permissions;
	vmcb.asid = 1;
	vmcb.dr6 = 0xffff0ff0;
	vmcb.dr7 = 0x400;
	vmcb.pat = msr_read(MSR_PAT);
}

static bool svm_start(void)
{
	if (!(cpuid(0x80000001, 0).ecx & (1u << 2)) || !(cpuid(0x8000000a, 0).edx & 1))
		return false;
	msr_write(MSR_EFER, msr_read(MSR_EFER) | EFER_SVME);
	msr_write(MSR_HSAVE, (uint64_t)host_save);
	machine_svm.features = npt_features();
	machine_svm.loads_cr3 = machine_svm.paging_off = true;
	machine_svm.keys = machine_svm.five_levels = true;
	write_constants();
	return true;
}

/* --- a run --------------------------------------------------------------------------------- */

#define ATTRIBUTES_CODE64 0x29bu
#define ATTRIBUTES_CODE32 0xc9bu
#define ATTRIBUTES_DATA	  0xc93u

static void write_segments(const struct guest_state *state)
{
	uint32_t cpl = state->user ? 3 : 0, dpl = cpl << 5;
	uint32_t code = state->long_mode ? ATTRIBUTES_CODE64 : ATTRIBUTES_CODE32;
	uint16_t data_selector = (uint16_t)(SELECTOR_DATA | cpl);

	vmcb.cs = (struct vmcb_segment){ (uint16_t)(SELECTOR_CODE64 | cpl), (uint16_t)(code | dpl),
					 UINT32_MAX, 0 };
	vmcb.ss = (struct vmcb_segment){ data_selector, (uint16_t)(ATTRIBUTES_DATA | dpl),
					 UINT32_MAX, 0 };
	vmcb.ds = vmcb.es = vmcb.ss;
	vmcb.cpl = (uint8_t)cpl;
}

static void write_state(const struct guest_state *state)
{
	write_segments(state);
	vmcb.cr0 = state->cr0 | CR0_NE | CR0_ET;
	vmcb.cr3 = state->cr3;
	vmcb.cr4 = state->cr4;
	vmcb.efer = state->efer | EFER_SVME;
	vmcb.rflags = 2 | (state->ac ? 1u << 18 : 0);
	vmcb.rip = state->rip;
	vmcb.rax = state->rax;
	vmcb.nested_control = state->one_stage ? 0 : NESTED_PAGING;
	vmcb.nested_cr3 = state->stage2_root;
	vmcb.flush = FLUSH_ALL;
	vmcb.interrupt_shadow = 0;
	vmcb.inject_event = 0;
}

static void read_exception(struct outcome *outcome)
{
	outcome->kind = OUTCOME_EXCEPTION;
	outcome->vector = (unsigned int)(vmcb.exit_code - EXIT_EXCEPTION);
	outcome->code = vmcb.exit_info1;
	outcome->address = outcome->vector == VECTOR_PF ? vmcb.exit_info2 : 0;
}

static void read_outcome(uint64_t rbx, struct outcome *outcome)
{
	*outcome = (struct outcome){ .rip = vmcb.rip };
	if (vmcb.exit_code - EXIT_EXCEPTION < 32) {
		read_exception(outcome);
	} else if (vmcb.exit_code == EXIT_CPUID) {
		outcome->kind = OUTCOME_DONE;
		outcome->rbx = rbx;
	} else if (vmcb.exit_code == EXIT_NPF) {
		outcome->kind =
			vmcb.exit_info1 & NPF_RESERVED ? OUTCOME_MISCONFIGURED : OUTCOME_VIOLATION;
		outcome->code = vmcb.exit_info1;
		outcome->address = vmcb.exit_info2;
	} else {
		outcome->kind = OUTCOME_OTHER;
		outcome->code = vmcb.exit_code;
		outcome->address = vmcb.exit_info1;
	}
}

static void svm_enter(const struct guest_state *state, struct outcome *outcome)
{
	uint64_t registers[2] = { state->rax, state->rbx };
	uint64_t efer = msr_read(MSR_EFER);

	/* Nested tables are read as the host's own mode says: APM vol. 2, 15.25.3. */
	efer = state->host_nx ? efer | EFER_NXE : efer & ~(uint64_t)EFER_NXE;
	msr_write(MSR_EFER, efer);
	write_state(state);
	svm_switch((uint64_t)&vmcb, registers);
	read_outcome(registers[1], outcome);
}

struct machine machine_svm = {
	.name = "SVM+NPT",
	.ept = false,
	.start = svm_start,
	.enter = svm_enter,
};
