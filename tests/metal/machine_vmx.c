/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Intel: VMX with EPT. SDM vol. 3, chapters 24 to 27 for the control structure and its checks,
 * appendix A for what the processor can, appendix B for the fields' numbers.
 */
#include <stddef.h>

#include <memvirt/table.h>

#include "bare.h"
#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "machine.h"

int vmx_switch(int launched, uint64_t registers[2]);
extern const char vmx_exit_arrives[];

#define MSR_FEATURE_CONTROL  0x3au
#define MSR_VMX_BASIC	     0x480u
#define MSR_VMX_PIN	     0x481u
#define MSR_VMX_PROC	     0x482u
#define MSR_VMX_EXIT	     0x483u
#define MSR_VMX_ENTRY	     0x484u
#define MSR_VMX_CR4_FIXED1   0x489u
#define MSR_VMX_PROC2	     0x48bu
#define MSR_VMX_EPT_VPID_CAP 0x48cu
#define MSR_VMX_TRUE_PROC    0x48eu

#define BASIC_TRUE_CONTROLS (1ull << 55)

#define PROC_SECONDARY	   (1u << 31)
#define PROC2_EPT	   (1u << 1)
#define PROC2_UNRESTRICTED (1u << 7)
#define PROC2_MODE_EXECUTE (1u << 22)
#define EXIT_HOST_64	   (1u << 9)
#define EXIT_SAVE_EFER	   (1u << 20)
#define EXIT_LOAD_EFER	   (1u << 21)
#define ENTRY_IA32E	   (1u << 9)
#define ENTRY_LOAD_EFER	   (1u << 15)

/* IA32_VMX_EPT_VPID_CAP: SDM vol. 3, A.10. */
#define CAP_EXEC_ONLY (1u << 0)
#define CAP_2M	      (1u << 16)
#define CAP_1G	      (1u << 17)
#define CAP_ACCESSED  (1u << 21)
#define CAP_EXIT_INFO (1u << 22)

#define EPTP_WRITE_BACK 6u
#define EPTP_LENGTH_4	(3u << 3)
#define EPTP_ACCESSED	(1u << 6)
#define INVEPT_ALL	2u

#define REASON_EXCEPTION     0
#define REASON_CPUID	     10
#define REASON_VIOLATION     48
#define REASON_MISCONFIGURED 49
#define REASON_ENTRY_FAILED  0xffff

#define QUALIFICATION_LINEAR (1u << 7)
#define INTERRUPTION_ERROR   (1u << 11)

enum field {
	GUEST_ES_SELECTOR = 0x800,
	HOST_ES_SELECTOR = 0xc00,
	HOST_TR_SELECTOR = 0xc0c,
	EPT_POINTER = 0x201a,
	GUEST_PHYSICAL_ADDRESS = 0x2400,
	VMCS_LINK = 0x2800,
	GUEST_DEBUGCTL = 0x2802,
	GUEST_EFER = 0x2806,
	GUEST_PDPTE0 = 0x280a,
	HOST_EFER = 0x2c02,
	PIN_CONTROLS = 0x4000,
	PROC_CONTROLS = 0x4002,
	EXCEPTION_BITMAP = 0x4004,
	PF_ERROR_MASK = 0x4006,
	PF_ERROR_MATCH = 0x4008,
	CR3_TARGETS = 0x400a,
	EXIT_CONTROLS = 0x400c,
	EXIT_MSR_STORES = 0x400e,
	EXIT_MSR_LOADS = 0x4010,
	ENTRY_CONTROLS = 0x4012,
	ENTRY_MSR_LOADS = 0x4014,
	ENTRY_EVENT = 0x4016,
	PROC2_CONTROLS = 0x401e,
	INSTRUCTION_ERROR = 0x4400,
	EXIT_REASON = 0x4402,
	EXIT_EVENT = 0x4404,
	EXIT_EVENT_ERROR = 0x4406,
	GUEST_ES_LIMIT = 0x4800,
	GUEST_GDTR_LIMIT = 0x4810,
	GUEST_IDTR_LIMIT = 0x4812,
	GUEST_ES_RIGHTS = 0x4814,
	GUEST_INTERRUPTIBILITY = 0x4824,
	GUEST_ACTIVITY = 0x4826,
	GUEST_SYSENTER_CS = 0x482a,
	HOST_SYSENTER_CS = 0x4c00,
	CR0_MASK = 0x6000,
	CR4_MASK = 0x6002,
	CR0_SHADOW = 0x6004,
	CR4_SHADOW = 0x6006,
	EXIT_QUALIFICATION = 0x6400,
	GUEST_LINEAR_ADDRESS = 0x640a,
	GUEST_CR0 = 0x6800,
	GUEST_CR3 = 0x6802,
	GUEST_CR4 = 0x6804,
	GUEST_ES_BASE = 0x6806,
	GUEST_GDTR_BASE = 0x6816,
	GUEST_IDTR_BASE = 0x6818,
	GUEST_DR7 = 0x681a,
	GUEST_RSP = 0x681c,
	GUEST_RIP = 0x681e,
	GUEST_RFLAGS = 0x6820,
	GUEST_PENDING_DEBUG = 0x6822,
	GUEST_SYSENTER_ESP = 0x6824,
	GUEST_SYSENTER_EIP = 0x6826,
	HOST_CR0 = 0x6c00,
	HOST_CR3 = 0x6c02,
	HOST_CR4 = 0x6c04,
	HOST_FS_BASE = 0x6c06,
	HOST_GS_BASE = 0x6c08,
	HOST_TR_BASE = 0x6c0a,
	HOST_GDTR_BASE = 0x6c0c,
	HOST_IDTR_BASE = 0x6c0e,
	HOST_SYSENTER_ESP = 0x6c10,
	HOST_SYSENTER_EIP = 0x6c12,
	HOST_RIP = 0x6c16,
};

enum segment { SEG_ES, SEG_CS, SEG_SS, SEG_DS, SEG_FS, SEG_GS, SEG_LDTR, SEG_TR, SEGMENTS };

static struct {
	uint32_t proc2; /* without mode-based execute */
	uint32_t entry; /* without IA-32e mode */
	int launched;
} vmx;

static uint8_t vmxon_region[4096] __attribute__((aligned(4096)));
static uint8_t vmcs_region[4096] __attribute__((aligned(4096)));

static void vm_write(enum field field, uint64_t value)
{
	uint8_t failed;

	__asm__ volatile("vmwrite %2, %1; setna %0"
			 : "=q"(failed)
			 : "r"((uint64_t)field), "r"(value)
			 : "cc");
	if (failed)
		give_up("vmwrite of field %x failed", (uint64_t)field);
}

static uint64_t vm_read(enum field field)
{
	uint64_t value;

	__asm__ volatile("vmread %1, %0" : "=r"(value) : "r"((uint64_t)field) : "cc");
	return value;
}

/* What must be 1, what may be 1: SDM vol. 3, A.3. */
static uint32_t allowed(uint32_t msr, uint32_t wanted)
{
	uint64_t fixed = msr_read(msr);

	return (wanted | (uint32_t)fixed) & (uint32_t)(fixed >> 32);
}

static bool may_set(uint32_t msr, uint32_t control)
{
	return msr_read(msr) >> 32 & control;
}

static void write_controls(void)
{
	vm_write(PIN_CONTROLS, allowed(MSR_VMX_PIN, 0));
	/* Without the newer MSR, loads of CR3 cannot but exit. */
	vm_write(PROC_CONTROLS,
		 allowed(machine_vmx.loads_cr3 ? MSR_VMX_TRUE_PROC : MSR_VMX_PROC, PROC_SECONDARY));
	vm_write(EXIT_CONTROLS,
		 allowed(MSR_VMX_EXIT, EXIT_HOST_64 | EXIT_SAVE_EFER | EXIT_LOAD_EFER));
	vmx.entry = allowed(MSR_VMX_ENTRY, ENTRY_LOAD_EFER) & ~ENTRY_IA32E;
	vm_write(EXCEPTION_BITMAP, UINT32_MAX);
	vm_write(VMCS_LINK, UINT64_MAX);

	static const enum field zero[] = {
		PF_ERROR_MASK,	PF_ERROR_MATCH,	 CR3_TARGETS, EXIT_MSR_STORES,
		EXIT_MSR_LOADS, ENTRY_MSR_LOADS, ENTRY_EVENT, CR0_MASK,
		CR4_MASK,	CR0_SHADOW,	 CR4_SHADOW,  GUEST_DEBUGCTL,
	};
	for (unsigned int i = 0; i < sizeof(zero) / sizeof(*zero); i++)
		vm_write(zero[i], 0);
}

static void write_host(void)
{
	for (unsigned int i = 0; i < HOST_TR_SELECTOR - HOST_ES_SELECTOR; i += 2)
		vm_write(HOST_ES_SELECTOR + i, i == 2 * SEG_CS ? SELECTOR_CODE64 : SELECTOR_DATA);
	vm_write(HOST_TR_SELECTOR, SELECTOR_TSS);
	vm_write(HOST_CR0, cr0_read());
	vm_write(HOST_CR3, cr3_read());
	vm_write(HOST_CR4, cr4_read());
	vm_write(HOST_EFER, msr_read(MSR_EFER));
	vm_write(HOST_GDTR_BASE, bare_gdt_base());
	vm_write(HOST_IDTR_BASE, bare_idt_base());
	vm_write(HOST_RIP, (uint64_t)vmx_exit_arrives);

	static const enum field zero[] = {
		HOST_FS_BASE,	  HOST_GS_BASE,	     HOST_TR_BASE,
		HOST_SYSENTER_CS, HOST_SYSENTER_ESP, HOST_SYSENTER_EIP,
	};
	for (unsigned int i = 0; i < sizeof(zero) / sizeof(*zero); i++)
		vm_write(zero[i], 0);
}

/* What stays the same in all guests: no descriptor tables, for nothing is ever loaded. */
static void write_guest(void)
{
	static const enum field zero[] = {
		GUEST_GDTR_BASE,    GUEST_GDTR_LIMIT,	 GUEST_IDTR_BASE,
		GUEST_IDTR_LIMIT,   GUEST_PENDING_DEBUG, GUEST_SYSENTER_CS,
		GUEST_SYSENTER_ESP, GUEST_SYSENTER_EIP,	 GUEST_RSP,
	};

	for (unsigned int i = 0; i < sizeof(zero) / sizeof(*zero); i++)
		vm_write(zero[i], 0);
	for (unsigned int i = 0; i < SEGMENTS; i++)
		vm_write(GUEST_ES_BASE + 2 * i, 0);
	vm_write(GUEST_DR7, 0x400);
}

static bool vmx_on(void)
{
	uint64_t control = msr_read(MSR_FEATURE_CONTROL);
	uint64_t region = (uint64_t)vmxon_region, vmcs = (uint64_t)vmcs_region;
	uint8_t failed;

	if (!(control & 1))
		msr_write(MSR_FEATURE_CONTROL, control | 5);
	cr4_write(cr4_read() | CR4_VMXE);
	*(uint32_t *)vmxon_region = *(uint32_t *)vmcs_region = (uint32_t)msr_read(MSR_VMX_BASIC);
	__asm__ volatile("vmxon %1; setna %0" : "=q"(failed) : "m"(region) : "cc", "memory");
	if (failed)
		return false;
	__asm__ volatile("vmclear %1; setna %0" : "=q"(failed) : "m"(vmcs) : "cc", "memory");
	if (failed)
		return false;
	__asm__ volatile("vmptrld %1; setna %0" : "=q"(failed) : "m"(vmcs) : "cc", "memory");
	return !failed;
}

static uint32_t ept_features(void)
{
	uint64_t cap = msr_read(MSR_VMX_EPT_VPID_CAP);
	uint32_t features = 0;

	features |= cap & CAP_2M ? MV_FEATURE_2M : 0;
	features |= cap & CAP_1G ? MV_FEATURE_1G : 0;
	features |= cap & CAP_EXEC_ONLY ? MV_FEATURE_EXEC_ONLY : 0;
	features |= cap & CAP_ACCESSED ? MV_FEATURE_ACCESSED : 0;
	features |= cap & CAP_EXIT_INFO ? MV_FEATURE_EXIT_INFO : 0;
	features |= may_set(MSR_VMX_PROC2, PROC2_MODE_EXECUTE) ? MV_FEATURE_MODE_EXEC : 0;
	return features;
}

static bool vmx_start(void)
{
	if (!(cpuid(1, 0).ecx & (1u << 5)))
		return false;
	if (!may_set(MSR_VMX_PROC, PROC_SECONDARY) || !may_set(MSR_VMX_PROC2, PROC2_EPT))
		return false;
	if (!vmx_on())
		give_up("VMX does not start");
	vmx.proc2 = allowed(MSR_VMX_PROC2, PROC2_EPT | PROC2_UNRESTRICTED);
	machine_vmx.features = ept_features();
	machine_vmx.loads_cr3 = msr_read(MSR_VMX_BASIC) & BASIC_TRUE_CONTROLS;
	machine_vmx.paging_off = vmx.proc2 & PROC2_UNRESTRICTED;
	machine_vmx.keys = machine_vmx.five_levels = true;
	write_controls();
	write_host();
	write_guest();
	return true;
}

/* --- a run --------------------------------------------------------------------------------- */

#define RIGHTS_CODE64	0xa09bu /* accessed, read and execute, present, long, 4 KiB units */
#define RIGHTS_CODE32	0xc09bu
#define RIGHTS_DATA	0xc093u
#define RIGHTS_TSS	0x8bu
#define RIGHTS_UNUSABLE 0x10000u

static void write_segment(enum segment segment, uint16_t selector, uint32_t limit, uint32_t rights)
{
	vm_write(GUEST_ES_SELECTOR + 2 * segment, selector);
	vm_write(GUEST_ES_LIMIT + 2 * segment, limit);
	vm_write(GUEST_ES_RIGHTS + 2 * segment, rights);
}

static void write_segments(const struct guest_state *state)
{
	uint32_t cpl = state->user ? 3 : 0, dpl = cpl << 5;
	uint32_t code = state->long_mode ? RIGHTS_CODE64 : RIGHTS_CODE32;

	write_segment(SEG_CS, (uint16_t)(SELECTOR_CODE64 | cpl), UINT32_MAX, code | dpl);
	write_segment(SEG_SS, (uint16_t)(SELECTOR_DATA | cpl), UINT32_MAX, RIGHTS_DATA | dpl);
	write_segment(SEG_DS, (uint16_t)(SELECTOR_DATA | cpl), UINT32_MAX, RIGHTS_DATA | dpl);
	write_segment(SEG_ES, 0, 0, RIGHTS_UNUSABLE);
	write_segment(SEG_FS, 0, 0, RIGHTS_UNUSABLE);
	write_segment(SEG_GS, 0, 0, RIGHTS_UNUSABLE);
	write_segment(SEG_LDTR, 0, 0, RIGHTS_UNUSABLE);
	write_segment(SEG_TR, SELECTOR_TSS, 0x67, RIGHTS_TSS);
}

static uint64_t ept_pointer(const struct guest_state *state)
{
	uint64_t pointer = state->stage2_root | EPTP_LENGTH_4 | EPTP_WRITE_BACK;

	return pointer | (state->stage2_ad ? EPTP_ACCESSED : 0);
}

/* An unrestricted guest needs EPT: SDM vol. 3, 27.2.1.1. */
static uint32_t proc2_of(const struct guest_state *state)
{
	if (state->one_stage)
		return vmx.proc2 & ~(uint32_t)(PROC2_EPT | PROC2_UNRESTRICTED);
	return vmx.proc2 | (state->mode_execute ? PROC2_MODE_EXECUTE : 0);
}

static void write_state(const struct guest_state *state)
{
	write_segments(state);
	vm_write(GUEST_CR0, state->cr0 | CR0_NE | CR0_ET);
	vm_write(GUEST_CR3, state->cr3);
	vm_write(GUEST_CR4, (state->cr4 | CR4_VMXE) & msr_read(MSR_VMX_CR4_FIXED1));
	vm_write(GUEST_EFER, state->efer);
	for (unsigned int i = 0; i < 4; i++)
		vm_write(GUEST_PDPTE0 + 2 * i, state->pdpte[i]);
	vm_write(ENTRY_CONTROLS, vmx.entry | (state->efer & EFER_LMA ? ENTRY_IA32E : 0));
	vm_write(PROC2_CONTROLS, proc2_of(state));
	vm_write(EPT_POINTER, ept_pointer(state));
	vm_write(GUEST_RIP, state->rip);
	vm_write(GUEST_RFLAGS, 2 | (state->ac ? 1u << 18 : 0));
	vm_write(GUEST_INTERRUPTIBILITY, 0);
	vm_write(GUEST_ACTIVITY, 0);
}

/* Guest-physical mappings survive VM entries: SDM vol. 3, 28.4.3.1. */
static void invalidate(void)
{
	struct {
		uint64_t pointer, reserved;
	} descriptor = { 0, 0 };

	__asm__ volatile("invept %0, %1"
			 :
			 : "m"(descriptor), "r"((uint64_t)INVEPT_ALL)
			 : "cc", "memory");
}

static void read_exception(struct outcome *outcome)
{
	uint32_t event = (uint32_t)vm_read(EXIT_EVENT);

	outcome->kind = OUTCOME_EXCEPTION;
	outcome->vector = event & 0xff;
	outcome->code = event & INTERRUPTION_ERROR ? vm_read(EXIT_EVENT_ERROR) : 0;
	/* CR2 is not changed by an intercepted #PF: SDM vol. 3, 27.2.1. */
	outcome->address = outcome->vector == VECTOR_PF ? vm_read(EXIT_QUALIFICATION) : 0;
}

static void read_violation(struct outcome *outcome)
{
	outcome->kind = OUTCOME_VIOLATION;
	outcome->code = vm_read(EXIT_QUALIFICATION);
	outcome->address = vm_read(GUEST_PHYSICAL_ADDRESS);
	outcome->linear = outcome->code & QUALIFICATION_LINEAR ? vm_read(GUEST_LINEAR_ADDRESS) : 0;
}

static void read_outcome(uint64_t rbx, struct outcome *outcome)
{
	uint64_t reason = vm_read(EXIT_REASON);

	*outcome = (struct outcome){ .rip = vm_read(GUEST_RIP) };
	switch (reason) {
	case REASON_EXCEPTION:
		read_exception(outcome);
		break;
	case REASON_CPUID:
		outcome->kind = OUTCOME_DONE;
		outcome->rbx = rbx;
		break;
	case REASON_VIOLATION:
		read_violation(outcome);
		break;
	case REASON_MISCONFIGURED:
		outcome->kind = OUTCOME_MISCONFIGURED;
		outcome->address = vm_read(GUEST_PHYSICAL_ADDRESS);
		break;
	default:
		outcome->kind = OUTCOME_OTHER;
		outcome->code = reason;
		outcome->address = vm_read(EXIT_QUALIFICATION);
	}
}

static void vmx_enter(const struct guest_state *state, struct outcome *outcome)
{
	uint64_t registers[2] = { state->rax, state->rbx };

	write_state(state);
	invalidate();
	if (vmx_switch(vmx.launched, registers))
		give_up("VM entry failed, VM-instruction error %u", vm_read(INSTRUCTION_ERROR));
	vmx.launched = 1;
	read_outcome(registers[1], outcome);
}

struct machine machine_vmx = {
	.name = "VMX+EPT",
	.ept = true,
	.start = vmx_start,
	.enter = vmx_enter,
};
