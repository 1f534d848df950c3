/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A hypervisor without a second stage: the processor walks shadow tables that the core keeps, each
 * page fault of the guest goes to the core, and what the core says is done. It runs on either
 * vendor's machine. What the guest's tables have become behind its back, by the tests, it is told
 * as a VMM tells of writes that it has emulated.
 *
 * What does not belong here: entering guests (machine_vmx.c, machine_svm.c).
 */
#include <string.h>

#include <memvirt/memory.h>
#include <memvirt/shadow.h>

#include "bare.h"
#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "world.h"

#define GUEST_BYTES (GUEST_DATA_END - GUEST_RAM)
#define TABLE_BYTES (TABLES_MAX * 4096u)
#define FAULTS_MAX  100 /* of one access */
#define WRITE_BYTES 2u	/* of the instruction that writes */

static struct {
	const struct machine *below;
	struct world *world;
	struct mv_platform_ops ops;
	struct mv_platform platform;
	struct mv_memory *memory;
	struct mv_shadow *shadow;
	struct mv_shadow_vcpu *vcpu;
	bool five_levels; /* of the tables that the processor walks */
	bool loaded;
	struct mv_paging_registers registers;
	uint64_t root;
	uint64_t tables[TABLE_BYTES / 8]; /* as the core knows them */
	uint64_t kinds[MV_SHADOW_KINDS];  /* of faults, in all worlds */
	uint64_t ahead, reclaimed;
} shadow;

/* --- a world ------------------------------------------------------------------------------ */

/* The core may look twice, where others could be at work; here there are none. */
static void look_again(void *ctx, unsigned int turns)
{
}

static void must(int error, const char *what)
{
	if (error)
		give_up("%s returned -%u", what, (uint64_t)-error);
}

static void open_memory(void)
{
	const struct mv_memory_config config = { .size = sizeof(config),
						 .platform = &shadow.platform };
	const struct mv_region_config region = { .size = sizeof(region),
						 .last_gpa = GUEST_BYTES - 1,
						 .hva = (void *)GUEST_RAM,
						 .fd = -1 };

	shadow.ops = *bare_platform.ops;
	shadow.ops.relax = look_again;
	shadow.platform = (struct mv_platform){ .ops = &shadow.ops };
	must(mv_memory_create(&config, &shadow.memory), "mv_memory_create()");
	must(mv_memory_add_region(shadow.memory, &region), "mv_memory_add_region()");
}

void machine_shadow_begin(struct world *world)
{
	struct mv_shadow_config config = {
		.size = sizeof(config),
		.features = MV_FEATURE_NX,
		.maxphyaddr = cpuid(0x80000008, 0).eax & 0xff,
		.node = -1,
		.page_budget = MV_SHADOW_BUDGET_MIN,
	};

	shadow.world = world;
	shadow.five_levels = (cpuid(7, 0).ecx & 1u << 16) && one_in(&world->chance, 2);
	machine_shadow.five_levels = shadow.five_levels;
	config.format = shadow.five_levels ? MV_FORMAT_X86_5L : MV_FORMAT_X86_4L;
	config.features |= cpuid(0x80000001, 0).edx & 1u << 26 ? MV_FEATURE_1G : 0;
	open_memory();
	config.memory = shadow.memory;
	must(mv_shadow_create(&config, &shadow.shadow), "mv_shadow_create()");
	must(mv_shadow_vcpu_create(shadow.shadow, &shadow.vcpu), "mv_shadow_vcpu_create()");
	shadow.loaded = false;
}

void machine_shadow_end(void)
{
	struct mv_shadow_stats stats;

	mv_shadow_get_stats(shadow.shadow, &stats);
	shadow.ahead += stats.ahead;
	shadow.reclaimed += stats.reclaimed;
	mv_shadow_vcpu_destroy(shadow.vcpu);
	mv_shadow_destroy(shadow.shadow);
	mv_memory_destroy(shadow.memory);
}

void machine_shadow_say(void)
{
	static const char *const name[MV_SHADOW_KINDS] = {
		[MV_SHADOW_FIXED] = "fixed",
		[MV_SHADOW_INJECT] = "injected",
		[MV_SHADOW_EMULATE_WRITE] = "write emulated",
		[MV_SHADOW_EMULATE_RIGHTS] = "rights emulated",
		[MV_SHADOW_MMIO] = "mmio",
		[MV_SHADOW_RETRY] = "again",
	};

	for (unsigned int kind = 0; kind < MV_SHADOW_KINDS; kind++)
		say("count: shadow %s %u", name[kind], shadow.kinds[kind]);
	say("count: shadow ahead %u", shadow.ahead);
	say("count: shadow reclaimed %u", shadow.reclaimed);
}

/* --- what the core has to be told ------------------------------------------------------------ */

/* Of guest tables, what is not as it was when the guest last ran. */
static void tell_of_writes(void)
{
	const uint64_t *now = (const uint64_t *)GUEST_TABLES;

	for (unsigned int i = 0; i < TABLE_BYTES / 8; i++)
		if (now[i] != shadow.tables[i])
			mv_shadow_guest_wrote(shadow.shadow, GUEST_TABLES - GUEST_RAM + 8ull * i,
					      8);
}

static bool same_registers(const struct mv_paging_registers *a, const struct mv_paging_registers *b)
{
	return a->cr0 == b->cr0 && a->cr3 == b->cr3 && a->cr4 == b->cr4 && a->efer == b->efer;
}

/* PDPTEs are read at a load of CR3 only, and what is predicted has the present ones. */
static void load(const struct guest_state *state)
{
	const struct mv_paging_registers registers = {
		.cr0 = state->cr0, .cr3 = state->cr3, .cr4 = state->cr4, .efer = state->efer
	};
	bool again = shadow.world->mode == GUEST_PAE || one_in(&shadow.world->chance, 2);

	if (shadow.loaded && same_registers(&registers, &shadow.registers) && !again)
		return;
	must(mv_shadow_load_root(shadow.vcpu, &registers, &shadow.world->cpu, false, &shadow.root),
	     "mv_shadow_load_root()");
	shadow.registers = registers;
	shadow.loaded = true;
}

/* --- a run --------------------------------------------------------------------------------- */

/* What the header asks of the processor: shadow.h. */
static void prepare(const struct guest_state *state, struct guest_state *real)
{
	const uint64_t guests = CR4_SMEP | CR4_SMAP;

	*real = *state;
	real->cr0 = CR0_PE | CR0_PG | CR0_WP;
	real->cr3 = shadow.root;
	real->cr4 = CR4_PAE | (shadow.five_levels ? CR4_LA57 : 0) | (state->cr4 & guests);
	real->efer = EFER_LME | EFER_LMA | EFER_NXE;
	real->host_nx = true;
	real->one_stage = true;
}

/* What a page fault's error code says of the access: SDM vol. 3, 4.7. */
static unsigned int access_of(const struct guest_state *state, uint64_t code)
{
	unsigned int access = state->ac ? MV_ACCESS_AC : 0;

	access |= code & MV_PF_USER ? MV_ACCESS_USER : 0;
	if (code & MV_PF_FETCH)
		return access | MV_ACCESS_FETCH;
	return access | (code & MV_PF_WRITE ? MV_ACCESS_WRITE : MV_ACCESS_READ);
}

static void inject(const struct mv_walk *walk, struct outcome *outcome)
{
	if (walk->kind == MV_WALK_NOT_CANONICAL)
		*outcome = (struct outcome){ .kind = OUTCOME_EXCEPTION,
					     .rip = outcome->rip,
					     .vector = VECTOR_GP };
	else
		outcome->code = walk->error_code;
}

static void emulate_write(const struct guest_state *state, uint64_t gpa, struct outcome *outcome)
{
	*(uint32_t *)(GUEST_RAM + gpa) = (uint32_t)state->rbx;
	mv_shadow_guest_wrote(shadow.shadow, gpa, sizeof(uint32_t));
	*outcome = (struct outcome){ .kind = OUTCOME_DONE,
				     .rip = outcome->rip + WRITE_BYTES,
				     .rbx = state->rbx };
}

/* Return: whether the guest goes on where it was. */
static bool answer(const struct guest_state *state, struct outcome *outcome)
{
	struct mv_shadow_outcome what;

	must(mv_shadow_fault(shadow.vcpu, outcome->address, access_of(state, outcome->code), &what),
	     "mv_shadow_fault()");
	shadow.kinds[what.kind]++;
	switch (what.kind) {
	case MV_SHADOW_FIXED:
	case MV_SHADOW_RETRY:
		return true;
	case MV_SHADOW_INJECT:
		inject(&what.walk, outcome);
		return false;
	case MV_SHADOW_EMULATE_WRITE:
	case MV_SHADOW_EMULATE_RIGHTS:
		emulate_write(state, what.walk.gpa, outcome);
		return false;
	default:
		outcome->kind = OUTCOME_OTHER;
		outcome->code = what.kind;
		return false;
	}
}

static void shadow_enter(const struct guest_state *state, struct outcome *outcome)
{
	struct guest_state real;
	unsigned int faults = 0;

	tell_of_writes();
	load(state);
	prepare(state, &real);
	do {
		if (faults++ == FAULTS_MAX)
			give_up("a guest faults at %x and never gets on", outcome->address);
		shadow.below->enter(&real, outcome);
	} while (outcome->kind == OUTCOME_EXCEPTION && outcome->vector == VECTOR_PF &&
		 answer(state, outcome));
	/* What it has done itself it knows. */
	memcpy(shadow.tables, (const void *)GUEST_TABLES, sizeof(shadow.tables));
}

void machine_shadow_start(const struct machine *below)
{
	shadow.below = below;
	machine_shadow.name = below->ept ? "VMX+shadow" : "SVM+shadow";
}

/* With EPT's ways, of which PDPTEs that are loaded with CR3 are the one that shows. */
struct machine machine_shadow = {
	.ept = true,
	.paging_off = true,
	.shadow = true,
	.enter = shadow_enter,
};
