/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a processor reports of a stage-2 fault, brought into one form for both makers:
 * SDM vol. 3, 28.2.1 and table 28-7; APM vol. 2, 15.25.6.
 *
 * Freestanding. What does not belong here: what a walk predicts (stage2.c), what is to be done
 * about it (ept_fault.c).
 */
#include "stage2.h"

/* --- Intel -------------------------------------------------------------------------------- */

/* EPT's bits for read, write and execute are MV_ATTR_READ, _WRITE and _EXEC. */
static uint32_t ept_granted(uint64_t qualification, uint32_t features)
{
	uint32_t granted = (uint32_t)(qualification >> MV_EPT_VIOLATION_RIGHTS_LOW) &
			   (MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC);

	/* Undefined without mode-based execute. */
	if ((features & MV_FEATURE_MODE_EXEC) && (qualification & MV_EPT_VIOLATION_EXEC_USER))
		granted |= MV_ATTR_EXEC_USER;
	return granted;
}

/*
 * With mode-based execute one of two rights was asked for. Where the tables grant one of them, a
 * fetch that was refused asked for the other.
 */
static bool told_by_rights(unsigned int access, uint32_t granted, uint32_t features)
{
	bool super = granted & MV_ATTR_EXEC, user = granted & MV_ATTR_EXEC_USER;

	return (features & MV_FEATURE_MODE_EXEC) && access == MV_ACCESS_FETCH && super != user;
}

/* Bits 9 to 11. */
static unsigned int told_by_guest_tables(uint64_t qualification)
{
	unsigned int access = qualification & MV_EPT_VIOLATION_GUEST_USER ? MV_ACCESS_USER : 0;

	if (qualification & MV_EPT_VIOLATION_GUEST_WRITABLE)
		access |= MV_ACCESS_GUEST_WRITABLE;
	if (qualification & MV_EPT_VIOLATION_GUEST_NO_EXEC)
		access |= MV_ACCESS_GUEST_NO_EXEC;
	return access;
}

/* Bits 8 to 11 mean something only where those below them do. */
static void decode_access(uint64_t qualification, uint32_t features, struct mv_stage2_exit *exit)
{
	unsigned int rights = qualification & MV_EPT_VIOLATION_ACCESS;

	exit->access = rights;
	if (qualification & MV_EPT_VIOLATION_SHADOW_STACK)
		exit->access |= MV_ACCESS_SHADOW_STACK;
	if (!exit->gva_valid)
		return;
	exit->access |= MV_ACCESS_LINEAR;
	if (!(qualification & MV_EPT_VIOLATION_FINAL)) {
		exit->access |= MV_ACCESS_GUEST_TABLE;
	} else if (features & MV_FEATURE_EXIT_INFO) {
		exit->user_told = true;
		exit->access |= told_by_guest_tables(qualification);
	} else if (told_by_rights(rights, exit->granted, features)) {
		exit->user_told = true;
		exit->access |= exit->granted & MV_ATTR_EXEC ? MV_ACCESS_USER : 0;
	}
}

void mv_stage2_decode_violation(uint64_t qualification, uint64_t gpa, uint64_t gla,
				uint32_t features, struct mv_stage2_exit *exit)
{
	bool linear = qualification & MV_EPT_VIOLATION_LINEAR;
	uint32_t granted = ept_granted(qualification, features);

	*exit = (struct mv_stage2_exit){
		.kind = MV_STAGE2_VIOLATION,
		.gpa = gpa,
		.gva = linear ? gla : 0,
		.gva_valid = linear,
		.granted = granted,
		.present = granted,
		.nmi_unblocking = qualification & MV_EPT_VIOLATION_NMI_UNBLOCKING,
	};
	decode_access(qualification, features, exit);
}

void mv_stage2_decode_misconfiguration(uint64_t gpa, struct mv_stage2_exit *exit)
{
	*exit = (struct mv_stage2_exit){
		.kind = MV_STAGE2_MISCONFIGURED,
		.gpa = gpa,
		.present = true,
	};
}

/* --- AMD ---------------------------------------------------------------------------------- */

/* What is neither write nor fetch is a read. A shadow stack may be read or written. */
static unsigned int npf_access(uint64_t exitinfo1)
{
	unsigned int access = exitinfo1 & MV_NPF_TABLE ? MV_ACCESS_GUEST_TABLE : 0;

	if (exitinfo1 & MV_PF_SHADOW_STACK)
		access |= MV_ACCESS_SHADOW_STACK;
	if (exitinfo1 & MV_PF_FETCH)
		return access | MV_ACCESS_FETCH;
	return access | (exitinfo1 & MV_PF_WRITE ? MV_ACCESS_WRITE : MV_ACCESS_READ);
}

void mv_stage2_decode_npf(uint64_t exitinfo1, uint64_t exitinfo2, struct mv_stage2_exit *exit)
{
	bool reserved = exitinfo1 & MV_PF_RESERVED;

	*exit = (struct mv_stage2_exit){
		.kind = reserved ? MV_STAGE2_MISCONFIGURED : MV_STAGE2_VIOLATION,
		.gpa = exitinfo2,
		.access = npf_access(exitinfo1),
		/* QEMU leaves P out where it reports a reserved bit; such an entry is present. */
		.present = reserved || (exitinfo1 & MV_PF_PRESENT),
	};
}
