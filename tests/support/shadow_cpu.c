/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The processor of shadow_machine.h, and the judgement of its accesses.
 *
 * It walks host tables as SDM vol. 3, 4.5 to 4.7 tell: paging of 4 or 5 levels, CR0.WP = 1,
 * EFER.NXE = 1; SMEP and SMAP as the guest has them. Without a TLB all that is stale is in the
 * tables; with one, the processor goes on with what it has found until it is told to forget it.
 */
#include <unistd.h>

#include "support/shadow_machine.h"

#define FAULTS_MAX 12

#define ACCESSED (1ULL << 5)
#define DIRTY	 (1ULL << 6)
#define LARGE	 (1ULL << 7)
#define NO_EXEC	 (1ULL << 63)
#define FRAME	 0x000ffffffffff000ULL

static _Noreturn void wrong(const struct shadow_machine *machine, const char *what, uint64_t a,
			    uint64_t b)
{
	const struct sref_cpu *cpu = &machine->vcpus[machine->now.vcpu].cpu;

	fflush(stdout);
	dprintf(STDOUT_FILENO,
		"# %s: %#llx %#llx; world %llu, step %llu, vcpu %u, gva %#llx, access %#x, mode "
		"%d, cr0 %#llx, "
		"cr3 %#llx, cr4 %#llx, efer %#llx\n",
		what, (unsigned long long)a, (unsigned long long)b,
		(unsigned long long)machine->now.world, (unsigned long long)machine->ref.step,
		machine->now.vcpu, (unsigned long long)machine->now.gva, machine->now.kind,
		(int)sref_mode(cpu), (unsigned long long)cpu->registers.cr0,
		(unsigned long long)cpu->registers.cr3, (unsigned long long)cpu->registers.cr4,
		(unsigned long long)cpu->registers.efer);
	abort();
}

/* --- the processor -------------------------------------------------------------------------- */

enum hit { HIT, PAGE_FAULT, GENERAL_PROTECTION };

struct hardware {
	const struct shadow_machine *machine;
	bool smep, smap;
	unsigned int access;
	struct sm_translation found;
	uint64_t *entry[5];
	unsigned int entries;
};

static uint64_t reserved(const struct shadow_machine *machine, unsigned int level, bool page)
{
	uint64_t bits = FRAME & ~((1ULL << machine->maxphyaddr) - 1);

	if (level >= 4 || (level == 3 && !(machine->features & MV_FEATURE_1G)))
		bits |= LARGE;
	if (page && level > 1)
		bits |= ((1ULL << (12 + 9 * (level - 1))) - 1) & ~0x1fffULL;
	return bits;
}

/* L1TF: no address of memory may stand in an entry that is not present. */
static void judge_absent(const struct shadow_machine *machine, uint64_t entry)
{
	for (unsigned int i = 0; i < SM_PLACES; i++)
		if ((entry & FRAME) - (uintptr_t)machine->place[i] < SREF_BYTES)
			wrong(machine, "frame in an absent entry", entry, i);
}

static bool hardware_may(const struct hardware *hw)
{
	bool implicit = hw->access & MV_ACCESS_IMPLICIT;

	if ((hw->access & MV_ACCESS_FETCH) && hw->found.no_exec)
		return false;
	if ((hw->access & MV_ACCESS_WRITE) && !hw->found.writable)
		return false;
	if ((hw->access & MV_ACCESS_USER) && !implicit)
		return hw->found.user;
	if (!hw->found.user)
		return true;
	if (hw->access & MV_ACCESS_FETCH)
		return !hw->smep;
	return !hw->smap || (!implicit && (hw->access & MV_ACCESS_AC));
}

static void hardware_mark(struct hardware *hw)
{
	for (unsigned int i = 0; i < hw->entries; i++)
		*hw->entry[i] |= ACCESSED;
	if (hw->access & MV_ACCESS_WRITE)
		*hw->entry[hw->entries - 1] |= DIRTY;
}

/* An entry of a table: the rights that it leaves. */
static void hardware_take(struct hardware *hw, uint64_t *entry)
{
	hw->entry[hw->entries++] = entry;
	hw->found.writable &= *entry >> 1 & 1;
	hw->found.user &= *entry >> 2 & 1;
	hw->found.no_exec |= *entry >> 63;
	hw->found.dirty = *entry & DIRTY;
}

/* From the root to the page, or to where there is none. */
static bool hardware_descend(struct hardware *hw, uint64_t root, uint64_t gva)
{
	const struct shadow_machine *machine = hw->machine;
	unsigned int level = machine->format == MV_FORMAT_X86_5L ? 5 : 4;
	uint64_t table = root & FRAME;

	hw->found = (struct sm_translation){ .writable = true, .user = true, .gva = gva };
	for (;; level--) {
		unsigned int lg2 = 12 + 9 * (level - 1);
		uint64_t *entry = (uint64_t *)(uintptr_t)table + (gva >> lg2 & 511);
		bool page = level == 1 || (level <= 3 && (*entry & LARGE));

		if (!(*entry & 1)) {
			judge_absent(machine, *entry);
			return false;
		}
		if (*entry & reserved(machine, level, page))
			wrong(machine, "reserved bits in the shadow", *entry, level);
		hardware_take(hw, entry);
		table = *entry & FRAME;
		if (!page)
			continue;
		hw->found.lg2 = lg2;
		hw->found.hpa = (table & ~((1ULL << lg2) - 1)) + (gva & ((1ULL << lg2) - 1));
		hw->found.hpa &= ~4095ULL;
		return true;
	}
}

static struct sm_translation *tlb_slot(struct sm_vcpu *vcpu, uint64_t gva)
{
	uint64_t mixed = gva >> 12 ^ gva >> 23 ^ gva >> 32 ^ gva >> 41;

	return &vcpu->tlb[mixed % SM_TLB];
}

void sm_tlb_forget(struct sm_vcpu *vcpu, const uint64_t *gva)
{
	for (unsigned int i = 0; i < SM_TLB; i++) {
		struct sm_translation *known = &vcpu->tlb[i];

		if (!gva || known->gva >> known->lg2 == *gva >> known->lg2)
			known->valid = false;
	}
}

/* Whether what is remembered will do; a first write has to find the entry, to set dirty. */
static bool tlb_finds(struct hardware *hw, const struct sm_translation *known, uint64_t gva)
{
	if (!known->valid || known->gva >> 12 != gva >> 12)
		return false;
	hw->found = *known;
	return hardware_may(hw) && (known->dirty || !(hw->access & MV_ACCESS_WRITE));
}

static bool hardware_walk(struct hardware *hw, struct sm_vcpu *vcpu, uint64_t gva, bool mark)
{
	if (!hardware_descend(hw, vcpu->root, gva) || !hardware_may(hw))
		return false;
	if (!mark)
		return true;
	hardware_mark(hw);
	hw->found.dirty |= !!(hw->access & MV_ACCESS_WRITE);
	hw->found.valid = hw->machine->tlb;
	*tlb_slot(vcpu, gva) = hw->found;
	return true;
}

static enum hit hardware_access(struct shadow_machine *machine, struct sm_vcpu *vcpu, uint64_t gva,
				unsigned int access, bool mark, uint64_t *hpa)
{
	const struct mv_paging_registers *registers = &vcpu->cpu.registers;
	bool paging = registers->cr0 & SM_CR0_PG;
	struct hardware hw = {
		.machine = machine,
		.smep = paging && (registers->cr4 & SM_CR4_SMEP),
		.smap = paging && (registers->cr4 & SM_CR4_SMAP),
		.access = access,
	};
	unsigned int unused = machine->format == MV_FORMAT_X86_5L ? 7 : 16;

	if ((uint64_t)((int64_t)(gva << unused) >> unused) != gva)
		return GENERAL_PROTECTION;
	if (!tlb_finds(&hw, tlb_slot(vcpu, gva), gva) && !hardware_walk(&hw, vcpu, gva, mark)) {
		/* A page fault makes the processor forget the page: SDM vol. 3, 4.10.4.1. */
		tlb_slot(vcpu, gva)->valid &= !mark;
		return PAGE_FAULT;
	}
	*hpa = hw.found.hpa + (gva & 4095);
	return HIT;
}

/* --- judgement ------------------------------------------------------------------------------ */

/* Which guest page an access has reached, and whether its frame is the guest's still. */
static uint64_t guest_of(struct shadow_machine *machine, uint64_t hpa, unsigned int access)
{
	for (unsigned int i = 0; i < SM_PLACES; i++) {
		uint64_t gpa = hpa - (uintptr_t)machine->place[i];

		if (gpa >= SREF_BYTES)
			continue;
		if (machine->placed[gpa >> 12] != i || !machine->reachable[gpa >> 12])
			wrong(machine, "reaches a page that was given away", gpa, i);
		if (machine->read_only[gpa >> 12] && (access & MV_ACCESS_WRITE))
			wrong(machine, "writes what is read-only", gpa, i);
		return gpa;
	}
	wrong(machine, "reaches what is no memory of the guest", hpa, 0);
}

static void judge_hit(struct shadow_machine *machine, const struct sm_vcpu *vcpu,
		      const struct sm_access *access)
{
	const struct mv_paging_registers *registers = &vcpu->cpu.registers;
	unsigned int pcid = registers->cr4 & SM_CR4_PCIDE ? registers->cr3 & 0xfff : 0;
	const struct sm_memory *memory = &vcpu->memory[pcid];
	struct sref_window nothing = { machine->ref.step, NULL, 0 };
	struct sref_window window = { memory->since, memory->invlpg, memory->invlpgs };
	struct sref *ref = &machine->ref;
	struct sref_result now;

	if (sref_allows(ref, &vcpu->cpu, &nothing, access->gva, access->kind, access->gpa))
		return;
	machine->counts.stale++;
	if (sref_allows(ref, &vcpu->cpu, &window, access->gva, access->kind, access->gpa))
		return;
	sref_look(ref, &vcpu->cpu, access->gva, access->kind, &now);
	wrong(machine, "a hit that nothing allows: reached, pure walk", access->gpa,
	      now.kind == SREF_GOOD ? now.gpa : now.error | (uint64_t)now.kind << 60);
}

static void judge_marks(struct shadow_machine *machine, const struct sref_result *walk)
{
	for (unsigned int i = 0; i < walk->entries; i++) {
		uint64_t want = sref_read(&machine->ref, walk->entry[i], walk->entry_bytes);
		uint64_t have = 0;

		memcpy(&have, machine->hva + walk->entry[i], walk->entry_bytes);
		if (have != want)
			wrong(machine, "accessed or dirty: have, want", have, want);
	}
}

/* A fault that ended early may have set what is to be set, or not. */
static void take_marks(struct shadow_machine *machine, const struct sref_result *walk)
{
	for (unsigned int i = 0; i < walk->entries; i++) {
		uint64_t had = sref_read(&machine->ref, walk->entry[i], walk->entry_bytes);
		uint64_t have = 0;

		memcpy(&have, machine->hva + walk->entry[i], walk->entry_bytes);
		if ((have ^ had) & ~(ACCESSED | DIRTY) || (had & ~have))
			wrong(machine, "more than accessed and dirty: had, have", had, have);
		sref_write(&machine->ref, walk->entry[i], &have, walk->entry_bytes);
	}
}

static bool expected_kind(const struct shadow_machine *machine, const struct sm_vcpu *vcpu,
			  const struct sref_result *walk, unsigned int access,
			  enum mv_shadow_kind kind)
{
	const struct mv_paging_registers *registers = &vcpu->cpu.registers;
	bool write = access & MV_ACCESS_WRITE, memory, read_only;

	if (walk->kind != SREF_GOOD)
		return kind == MV_SHADOW_INJECT;
	memory = sref_is_memory(walk->gpa);
	read_only = memory && write && machine->read_only[walk->gpa >> 12];
	switch (kind) {
	case MV_SHADOW_FIXED:
		return memory && !read_only;
	case MV_SHADOW_EMULATE_WRITE:
		return memory && write;
	case MV_SHADOW_EMULATE_RIGHTS:
		return memory && write && !(registers->cr0 & SM_CR0_WP) &&
		       (registers->cr4 & SM_CR4_SMAP);
	case MV_SHADOW_MMIO:
		return !memory || read_only;
	default:
		return false;
	}
}

/* What the library says of the walk has to be what the reference finds. */
static void judge_outcome(struct shadow_machine *machine, const struct sm_vcpu *vcpu,
			  const struct sm_access *access, const struct sref_result *walk,
			  const struct mv_shadow_outcome *outcome)
{
	static const enum mv_walk_kind kinds[] = {
		[SREF_GOOD] = MV_WALK_OK,
		[SREF_FAULT] = MV_WALK_PAGE_FAULT,
		[SREF_NOT_CANONICAL] = MV_WALK_NOT_CANONICAL,
	};

	if (!expected_kind(machine, vcpu, walk, access->kind, outcome->kind))
		wrong(machine, "outcome: have, pure walk", outcome->kind, walk->kind);
	if (outcome->walk.kind != kinds[walk->kind])
		wrong(machine, "kind of walk: have, want", outcome->walk.kind, kinds[walk->kind]);
	if (walk->kind == SREF_GOOD && outcome->walk.gpa != walk->gpa)
		wrong(machine, "gpa: have, want", outcome->walk.gpa, walk->gpa);
	if (walk->kind == SREF_FAULT && outcome->walk.error_code != walk->error)
		wrong(machine, "error code: have, want", outcome->walk.error_code, walk->error);
}

/* --- a fault, as a VMM handles it ----------------------------------------------------------- */

/* Return: whether the access is over. */
static bool obey(struct shadow_machine *machine, struct sm_access *access,
		 const struct sref_result *walk, enum mv_shadow_kind kind)
{
	access->gpa = walk->gpa;
	access->error = walk->error;
	switch (kind) {
	case MV_SHADOW_INJECT:
		access->end = SM_FAULTED;
		return true;
	case MV_SHADOW_EMULATE_WRITE:
	case MV_SHADOW_EMULATE_RIGHTS:
		access->end = SM_EMULATED;
		sm_emulate(machine, walk->gpa, &access->value, access->bytes);
		return true;
	case MV_SHADOW_MMIO:
		access->end = SM_MMIO;
		return true;
	default:
		return false;
	}
}

static bool end_without_outcome(struct shadow_machine *machine, struct sm_access *access,
				const struct sref_result *walk, int error)
{
	if (error == -ENOMEM && machine->lenient) {
		take_marks(machine, walk);
		access->end = SM_NO_MEMORY;
		return true;
	}
	if (error != (walk->kind == SREF_NO_TABLE ? -EFAULT : 0))
		wrong(machine, "error: have, pure walk", (uint64_t)-error, walk->kind);
	access->end = SM_NO_TABLE;
	return error;
}

static bool fault(struct shadow_machine *machine, struct sm_vcpu *vcpu, struct sm_access *access)
{
	struct mv_shadow_outcome outcome;
	struct sref_result walk;
	int error;

	machine->ref.step++;
	machine->counts.faults++;
	sref_look(&machine->ref, &vcpu->cpu, access->gva, access->kind, &walk);
	error = mv_shadow_fault(vcpu->vcpu, access->gva, access->kind, &outcome);
	if (end_without_outcome(machine, access, &walk, error))
		return true;
	machine->counts.kinds[outcome.kind]++;
	if (outcome.kind == MV_SHADOW_RETRY) {
		take_marks(machine, &walk);
		return false;
	}
	sref_walk(&machine->ref, &vcpu->cpu, access->gva, access->kind, &walk);
	judge_outcome(machine, vcpu, access, &walk, &outcome);
	judge_marks(machine, &walk);
	return obey(machine, access, &walk, outcome.kind);
}

/* --- accesses ------------------------------------------------------------------------------- */

static void hit(struct shadow_machine *machine, struct sm_vcpu *vcpu, struct sm_access *access,
		uint64_t hpa)
{
	machine->ref.step++;
	access->end = SM_DONE;
	access->gpa = guest_of(machine, hpa, access->kind);
	sm_note_hit(machine, access->gpa, access->kind & MV_ACCESS_WRITE);
	judge_hit(machine, vcpu, access);
	if (!(access->kind & MV_ACCESS_WRITE))
		return;
	/* The processor stores where the shadow leads it, not where the library sees it. */
	memcpy((void *)(uintptr_t)hpa, &access->value, access->bytes);
	sref_write(&machine->ref, access->gpa, &access->value, access->bytes);
}

void sm_access(struct shadow_machine *machine, unsigned int number, struct sm_access *access)
{
	struct sm_vcpu *vcpu = &machine->vcpus[number];
	uint64_t hpa = 0;

	machine->now.vcpu = number;
	machine->now.gva = access->gva;
	machine->now.kind = access->kind;
	machine->counts.accesses++;
	for (access->faults = 0;; access->faults++) {
		enum hit how =
			hardware_access(machine, vcpu, access->gva, access->kind, true, &hpa);

		if (access->faults > FAULTS_MAX)
			wrong(machine, "no end of faults", access->faults, how);
		if (how == HIT) {
			machine->counts.hits += !access->faults;
			hit(machine, vcpu, access, hpa);
			return;
		}
		if (how == GENERAL_PROTECTION) {
			access->end = SM_FAULTED;
			return;
		}
		if (fault(machine, vcpu, access))
			return;
	}
}

uint64_t sm_touch(struct shadow_machine *machine, unsigned int vcpu, uint64_t gva,
		  unsigned int kind)
{
	struct sm_access access = {
		.gva = gva,
		.kind = kind,
		.value = machine->ref.step,
		.bytes = 8,
	};

	sm_access(machine, vcpu, &access);
	return access.end == SM_DONE || access.end == SM_EMULATED ? access.gpa : SM_NOWHERE;
}

uint32_t sm_error(struct shadow_machine *machine, unsigned int vcpu, uint64_t gva,
		  unsigned int kind)
{
	struct sm_access access = { .gva = gva, .kind = kind, .bytes = 8 };

	sm_access(machine, vcpu, &access);
	return access.end == SM_FAULTED ? access.error : UINT32_MAX;
}

bool sm_maps(struct shadow_machine *machine, unsigned int number, uint64_t gva, unsigned int kind)
{
	struct sm_vcpu *vcpu = &machine->vcpus[number];
	uint64_t hpa;

	return hardware_access(machine, vcpu, gva, kind, false, &hpa) == HIT;
}
