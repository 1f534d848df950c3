/* SPDX-License-Identifier: BSD-2-Clause */
#include "quirks.h"

#include "cpu.h"

const char *const quirk_name[QUIRKS] = {
	[QUIRK_RESERVED_WITHOUT_PRESENT] = "reserved-without-present",
	[QUIRK_ACCESSED_BEFORE_FAULT] = "accessed-before-fault",
	[QUIRK_GUEST_TABLE_READ_NOT_COUNTED] = "guest-table-read-not-counted",
	[QUIRK_PDPTE_ACCESSED] = "pdpte-accessed",
	[QUIRK_PDPTE_RESERVED_UNCHECKED] = "pdpte-reserved-unchecked",
	[QUIRK_FETCH_WITHOUT_NX] = "fetch-without-nx",
	[QUIRK_KEY_NOT_TOLD] = "key-not-told",
	[QUIRK_GUEST_FLAGS_UNCHECKED] = "guest-flags-unchecked",
	[QUIRK_ACCESSED_IN_RESERVED_PAGE] = "accessed-in-reserved-page",
	[QUIRK_EPT_PAGE_BIT_12] = "ept-page-bit-12",
	[QUIRK_GLOBAL_IN_TABLE] = "global-in-table",
	[QUIRK_PDPTE_ADDRESS] = "pdpte-address",
	[QUIRK_LARGEST_PAGE_UNCHECKED] = "largest-page-unchecked",
};

uint64_t quirk_count[QUIRKS];

#define QUALIFICATION_READ   0x001u
#define QUALIFICATION_WRITE  0x002u
#define QUALIFICATION_LINEAR 0x080u
#define QUALIFICATION_FINAL  0x100u

#define X86_ACCESSED 0x020u
#define EPT_ACCESSED 0x100u

static bool is_qemu(void)
{
	static uint32_t name;

	if (!name)
		name = cpuid(0x40000000, 0).ebx;
	return name == 0x54474354; /* "TCGT" */
}

static bool met(enum quirk quirk)
{
	quirk_count[quirk]++;
	return true;
}

static bool is_pdpte(const struct world *world, const struct note *note)
{
	return world->mode == GUEST_PAE && !note->stage2 && note->level == 3;
}

/*
 * QEMU reports a reserved bit, in a guest's or a nested table, without the present bit.
 * APM vol. 2, 8.4.2: P says that the fault was no absent page; SDM vol. 3, 4.7: reserved bits
 * are looked for in present entries only, so that RSVD comes with P.
 */
static void reserved_without_present(const struct prediction *prediction, struct outcome *outcome)
{
	uint64_t expected = prediction->outcome.code;

	if (!is_qemu() || outcome->kind != prediction->outcome.kind ||
	    outcome->vector != prediction->outcome.vector)
		return;
	if ((expected & MV_PF_RESERVED) && outcome->code == (expected & ~(uint64_t)MV_PF_PRESENT)) {
		outcome->code |= MV_PF_PRESENT;
		met(QUIRK_RESERVED_WITHOUT_PRESENT);
	}
}

/*
 * QEMU's walk takes the PDPTEs of PAE paging for entries like others. APM vol. 2, 5.2.3: bits
 * 8:5 and 2:1 are reserved, so there is no accessed flag, and where one is set 15.25.10 wants
 * a page fault. What QEMU does instead depends on the bit.
 */
static bool pdpte_reserved(const struct world *world, const struct prediction *prediction)
{
	const struct outcome *outcome = &prediction->outcome;

	return is_qemu() && world->mode == GUEST_PAE && outcome->kind == OUTCOME_EXCEPTION &&
	       outcome->vector == VECTOR_PF && (outcome->code & MV_PF_RESERVED) &&
	       prediction->walk.level == 3 && met(QUIRK_PDPTE_RESERVED_UNCHECKED);
}

static bool pdpte_accessed(const struct world *world, const struct note *note, uint64_t now)
{
	return is_qemu() && is_pdpte(world, note) && now == (note->after | X86_ACCESSED) &&
	       met(QUIRK_PDPTE_ACCESSED);
}

/*
 * Bochs counts an access to a guest table with EPT's accessed and dirty flags on as a write only.
 * SDM vol. 3, 29.3.3.2: the processor sets both bit 0 and bit 1 of the exit qualification.
 */
static void read_not_counted(const struct world *world, const struct prediction *prediction,
			     struct outcome *outcome)
{
	const uint64_t table = QUALIFICATION_LINEAR | QUALIFICATION_WRITE;

	if (is_qemu() || !world->machine->ept || !(world->features & MV_FEATURE_ACCESSED) ||
	    outcome->kind != OUTCOME_VIOLATION || prediction->outcome.kind != OUTCOME_VIOLATION)
		return;
	if ((outcome->code & (table | QUALIFICATION_FINAL)) == table &&
	    (outcome->code ^ prediction->outcome.code) == QUALIFICATION_READ) {
		outcome->code |= QUALIFICATION_READ;
		met(QUIRK_GUEST_TABLE_READ_NOT_COUNTED);
	}
}

/*
 * QEMU reports no fetch in EXITINFO1 while the host's NXE is 0. APM vol. 2, 8.4.2: the bit is
 * defined only where no-execute is enabled; 15.25.6 says nothing of its own.
 */
static void fetch_without_nx(const struct world *world, const struct prediction *prediction,
			     struct outcome *outcome)
{
	if (!is_qemu() || world->machine->ept || world->host_nx ||
	    outcome->kind != prediction->outcome.kind || outcome->kind < OUTCOME_VIOLATION)
		return;
	if ((prediction->outcome.code & MV_PF_FETCH) && !(outcome->code & MV_PF_FETCH)) {
		outcome->code |= MV_PF_FETCH;
		met(QUIRK_FETCH_WITHOUT_NX);
	}
}

/* Whether it faults for another reason, with the code that it would have for that alone. */
static bool faults_without_keys(struct world *world, const struct access *access, uint64_t code)
{
	static struct prediction keyless;
	struct access without = *access;

	without.pkru = without.pkrs = 0;
	predict(world, &without, true, &keyless);
	return keyless.outcome.kind == OUTCOME_EXCEPTION && keyless.outcome.code == code;
}

/*
 * QEMU looks at protection keys only where nothing else denies the access. SDM vol. 3, 4.7: the PK
 * flag is set whenever the key does not permit it.
 */
static void key_not_told(struct world *world, const struct access *access,
			 const struct prediction *prediction, struct outcome *outcome)
{
	uint64_t expected = prediction->outcome.code;

	if (!is_qemu() || outcome->kind != OUTCOME_EXCEPTION || outcome->vector != VECTOR_PF ||
	    prediction->outcome.kind != OUTCOME_EXCEPTION)
		return;
	if ((expected & MV_PF_PKEY) && outcome->code == (expected & ~(uint64_t)MV_PF_PKEY) &&
	    faults_without_keys(world, access, outcome->code)) {
		outcome->code |= MV_PF_PKEY;
		met(QUIRK_KEY_NOT_TOLD);
	}
}

/*
 * Bochs sets accessed and dirty in guest tables without asking EPT, where EPT's own flags are
 * off. SDM vol. 3, 29.3.3.2: writes to guest paging structures that update these flags are data
 * writes. What comes after the violation that it misses is not known here.
 */
static bool guest_flags_unchecked(const struct world *world, const struct prediction *prediction)
{
	const struct outcome *outcome = &prediction->outcome;

	return !is_qemu() && world->machine->ept && !(world->features & MV_FEATURE_ACCESSED) &&
	       outcome->kind == OUTCOME_VIOLATION && prediction->walk.guest_table &&
	       (outcome->code & QUALIFICATION_WRITE) && met(QUIRK_GUEST_FLAGS_UNCHECKED);
}

/* A fault by a reserved bit: of the guest's, or of stage 2. */
static bool is_reserved(const struct prediction *prediction)
{
	const struct outcome *outcome = &prediction->outcome;

	if (outcome->kind == OUTCOME_EXCEPTION && outcome->vector == VECTOR_PF)
		return outcome->code & MV_PF_RESERVED;
	return outcome->kind == OUTCOME_MISCONFIGURED;
}

/*
 * Whether of an entry with reserved bits, which is the last that was read, one bit alone is the
 * reason.
 */
static bool is_reserved_by(struct world *world, const struct access *access,
			   const struct prediction *prediction, uint64_t bit)
{
	const struct note *note = &prediction->note[prediction->notes - 1];
	static struct prediction other;

	if (!is_reserved(prediction) || !(note->before & bit))
		return false;
	entry_write(note->hpa, note->bytes, note->before & ~bit);
	predict(world, access, false, &other);
	predict_undo(&other);
	entry_write(note->hpa, note->bytes, note->before);
	return !is_reserved(&other) || other.note[other.notes - 1].hpa != note->hpa;
}

/*
 * Bochs takes bit 12 of an EPT entry that maps a 2 MiB or 1 GiB page for one that it ignores, as
 * the PAT bit of other tables. SDM vol. 3, tables 29-3 and 29-5: bits 20:12 and 29:12 must be 0.
 */
static bool ept_page_bit_12(struct world *world, const struct access *access,
			    const struct prediction *prediction)
{
	return !is_qemu() && prediction->outcome.kind == OUTCOME_MISCONFIGURED &&
	       prediction->walk.level > 1 && is_reserved_by(world, access, prediction, 1u << 12) &&
	       met(QUIRK_EPT_PAGE_BIT_12);
}

/*
 * The models ignore the bit of global pages in entries that point to tables. APM vol. 2, 5.3.3
 * and 5.3.4: it must be 0 at level 3 and above.
 */
static bool global_in_table(struct world *world, const struct access *access,
			    const struct prediction *prediction)
{
	return !world->machine->ept && prediction->walk.level >= 3 &&
	       is_reserved_by(world, access, prediction, 1u << 8) && met(QUIRK_GLOBAL_IN_TABLE);
}

/*
 * QEMU takes an entry of level 3 for a 1 GiB page also where the processor has none. APM vol. 2,
 * 5.3.3 and SDM vol. 3, table 4-16: the bit is reserved then. Seldom met: mostly the address below
 * it has reserved bits of its own.
 */
static bool largest_page_unchecked(struct world *world, const struct access *access,
				   const struct prediction *prediction)
{
	bool has = cpuid(0x80000001, 0).edx & 1u << 26;

	return is_qemu() && !has && !world->machine->shadow && prediction->walk.level == 3 &&
	       is_reserved_by(world, access, prediction, 1u << 7) &&
	       met(QUIRK_LARGEST_PAGE_UNCHECKED);
}

bool quirk_forbids(struct world *world, const struct access *access,
		   const struct prediction *prediction)
{
	return pdpte_reserved(world, prediction) || guest_flags_unchecked(world, prediction) ||
	       ept_page_bit_12(world, access, prediction) ||
	       global_in_table(world, access, prediction) ||
	       largest_page_unchecked(world, access, prediction);
}

/*
 * Bochs translates where the four PDPTEs of PAE paging begin, and then takes one of them: it is
 * the address of the first that it reports. APM vol. 2, 15.25.6: EXITINFO2 is the address that
 * was accessed.
 */
static void pdpte_address(const struct world *world, const struct prediction *prediction,
			  struct outcome *outcome)
{
	uint64_t expected = prediction->outcome.address;

	if (is_qemu() || world->machine->ept || world->mode != GUEST_PAE ||
	    !prediction->walk.guest_table || outcome->kind != prediction->outcome.kind)
		return;
	if (outcome->kind >= OUTCOME_VIOLATION && outcome->address == world->registers.cr3 &&
	    expected != outcome->address && (expected & ~31ull) == outcome->address) {
		outcome->address = expected;
		met(QUIRK_PDPTE_ADDRESS);
	}
}

void quirk_normalise_outcome(struct world *world, const struct access *access,
			     const struct prediction *prediction, struct outcome *outcome)
{
	fetch_without_nx(world, prediction, outcome);
	reserved_without_present(prediction, outcome);
	key_not_told(world, access, prediction, outcome);
	read_not_counted(world, prediction, outcome);
	pdpte_address(world, prediction, outcome);
}

/*
 * A processor may set accessed in each entry that it uses, as soon as it does, or only once it
 * knows that there is no fault: SDM vol. 3, 4.8. The library does the latter.
 */
static bool accessed_before_fault(const struct world *world, const struct note *note, uint64_t now)
{
	bool ept = note->stage2 && world->machine->ept;

	return note->may_be_accessed &&
	       now == (note->after | (ept ? EPT_ACCESSED : X86_ACCESSED)) &&
	       met(QUIRK_ACCESSED_BEFORE_FAULT);
}

/*
 * QEMU sets accessed in an entry for a large page before it looks at the bits between attributes
 * and address. SDM vol. 3, 4.7 and 4.8: an entry with a reserved bit is not used to translate.
 */
static bool accessed_in_reserved_page(const struct prediction *prediction, const struct note *note,
				      uint64_t now)
{
	const uint64_t page = 1u << 7;

	return is_qemu() && is_reserved(prediction) && note->level == prediction->walk.level &&
	       note->level > 1 && (note->before & page) && now == (note->after | X86_ACCESSED) &&
	       met(QUIRK_ACCESSED_IN_RESERVED_PAGE);
}

bool quirk_explains_entry(const struct world *world, const struct prediction *prediction,
			  const struct note *note, uint64_t now)
{
	return pdpte_accessed(world, note, now) || accessed_before_fault(world, note, now) ||
	       accessed_in_reserved_page(prediction, note, now);
}
