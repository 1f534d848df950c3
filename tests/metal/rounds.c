/* SPDX-License-Identifier: BSD-2-Clause */
#include "rounds.h"

#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "predict.h"
#include "quirks.h"
#include "stamp.h"
#include "world.h"

#define ACCESSES_PER_WORLD 40
#define MISMATCHES_TOLD	   10 /* then it is no use to go on */

/* --- what was met -------------------------------------------------------------------------- */

static void count(struct tally *tally, const char *what)
{
	unsigned int i = 0;

	while (i < TALLIES && tally->what[i] && tally->what[i] != what)
		i++;
	if (i == TALLIES)
		give_up("more kinds than a tally holds");
	tally->what[i] = what;
	tally->count[i]++;
}

void tally_say(const struct tally *tally)
{
	for (unsigned int i = 0; i < TALLIES && tally->what[i]; i++)
		say("count: %s %u", tally->what[i], tally->count[i]);
}

static const char *const mode_name[GUEST_MODES] = {
	[GUEST_PAGING_OFF] = "guest paging-off",
	[GUEST_32] = "guest 32-bit",
	[GUEST_PSE] = "guest 32-bit-pse",
	[GUEST_PAE] = "guest pae",
	[GUEST_4L] = "guest 4-level",
	[GUEST_5L] = "guest 5-level",
};

static const char *page_fault_name(uint64_t code)
{
	if (!(code & MV_PF_PRESENT))
		return "page-fault absent";
	if (code & MV_PF_RESERVED)
		return "page-fault reserved";
	return code & MV_PF_PKEY ? "page-fault key" : "page-fault rights";
}

static const char *done_name(unsigned int page_lg2)
{
	if (page_lg2 == 12)
		return "done 4k";
	return page_lg2 < 30 ? "done 2m" : "done 1g";
}

static const char *stage2_name(const struct outcome *outcome, const struct mv_nested_walk *walk)
{
	if (outcome->kind == OUTCOME_MISCONFIGURED)
		return walk->guest_table ? "misconfigured guest-table" : "misconfigured final";
	return walk->guest_table ? "violation guest-table" : "violation final";
}

static void count_prediction(struct tally *tally, const struct world *world,
			     const struct access *access, const struct prediction *prediction)
{
	const struct outcome *outcome = &prediction->outcome;
	bool load = !(access->flags & (MV_ACCESS_READ | MV_ACCESS_WRITE | MV_ACCESS_FETCH));

	count(tally, mode_name[world->mode]);
	if (outcome->kind == OUTCOME_EXCEPTION)
		count(tally, outcome->vector == VECTOR_PF ? page_fault_name(outcome->code)
							  : "general-protection");
	else if (outcome->kind != OUTCOME_DONE)
		count(tally, stage2_name(outcome, &prediction->walk));
	else
		count(tally, load ? "done cr3" : done_name(prediction->walk.page_lg2));
}

/* --- an access by chance ------------------------------------------------------------------- */

static uint64_t not_canonical(struct world *world, uint64_t gva)
{
	return gva ^ 1ull << (57 + below(&world->chance, 7));
}

static uint64_t choose_gva(struct world *world, bool fetch)
{
	uint64_t gva = world->target[below(&world->chance, world->targets)].gva;
	bool is_long = world->mode >= GUEST_4L;

	if (fetch)
		return gva + SLOT_CODE;
	gva += one_in(&world->chance, 2) ? sizeof(uint32_t) : 0;
	/* Nowhere, or to a table of another target. */
	if (one_in(&world->chance, 16))
		gva ^= 1ull << (12 + below(&world->chance, is_long ? 35 : 20));
	if (is_long && one_in(&world->chance, 32))
		gva = not_canonical(world, gva);
	return gva;
}

static uint64_t code_gva(struct world *world, bool user, uint64_t piece)
{
	bool wrong = one_in(&world->chance, 32);

	return world->code_gva[user != wrong] + piece;
}

static bool wants_load(struct world *world)
{
	return world->machine->loads_cr3 && world->mode == GUEST_PAE && one_in(&world->chance, 8);
}

static void choose_load(struct world *world, struct access *access)
{
	access->flags = 0;
	access->gva = world->registers.cr3;
	access->code = code_gva(world, false, CODE_LOAD_CR3);
}

static void choose_access(struct world *world, struct access *access)
{
	static const unsigned int kinds[] = { MV_ACCESS_READ, MV_ACCESS_WRITE, MV_ACCESS_FETCH };
	uint64_t random = chance_next(&world->chance);

	*access = (struct access){ .value = (uint32_t)random };
	/* Rights of 16 keys; half of the time none is denied anything. */
	access->pkru = random >> 32 & 1 ? (uint32_t)chance_next(&world->chance) : 0;
	access->pkrs = random >> 33 & 1 ? (uint32_t)chance_next(&world->chance) : 0;
	if (wants_load(world)) {
		choose_load(world, access);
		return;
	}
	access->flags = kinds[below(&world->chance, 3)];
	access->flags |= random >> 34 & 1 ? MV_ACCESS_USER : 0;
	access->flags |= random >> 35 & 1 ? MV_ACCESS_AC : 0;
	access->gva = choose_gva(world, access->flags & MV_ACCESS_FETCH);
	access->code = access->gva;
	if (!(access->flags & MV_ACCESS_FETCH))
		access->code = code_gva(world, access->flags & MV_ACCESS_USER,
					access->flags & MV_ACCESS_WRITE ? CODE_WRITE : CODE_READ);
}

/* --- entries changed under it -------------------------------------------------------------- */

/* What has to be put back. */
struct disturbance {
	const struct note *note;
	uint64_t was;
};

/* An entry as chance will have it: rights, reserved bits, types, presence. */
static uint64_t disturbed(struct world *world, uint64_t entry)
{
	struct chance *chance = &world->chance;
	uint64_t random = chance_next(chance);

	switch (below(chance, 10)) {
	case 0: /* rights */
		return entry ^ 1ull << below(chance, 3);
	case 1:
		return (entry & ~7ull) | (random & 7);
	case 2: /* attributes, size, accessed and dirty */
		return entry ^ 1ull << below(chance, 12);
	case 3:
		return (entry & ~0xfffull) | (random & 0xfff);
	case 4: /* EPT: memory type and what is ignored or reserved beside it */
		return entry ^ (random & 0x78);
	case 5: /* no-execute, keys, suppress-#VE, what is ignored */
		return entry ^ 1ull << (52 + below(chance, 12));
	case 6: /* address bits that the processor lacks */
		return entry ^ 1ull << (world->maxphyaddr + below(chance, 52 - world->maxphyaddr));
	case 7: /* address bits that large pages must not have */
		return entry ^ 1ull << (12 + below(chance, 18));
	case 8:
		return entry ^ (1ull << below(chance, 12) | 1ull << (52 + below(chance, 12)));
	default:
		return random & 1 ? 0 : entry & ~7ull;
	}
}

/*
 * Mostly one of the access itself, which come after those of the guest's code. Under a guest on
 * a shadow there is no stage 2 but in the prediction. NULL where there is none to choose.
 */
static const struct note *choose_note(struct world *world, const struct prediction *prediction)
{
	unsigned int notes = prediction->notes;
	unsigned int first = one_in(&world->chance, 4) ? 0 : notes / 2;
	const struct note *note;

	if (!notes)
		return NULL;
	note = &prediction->note[first + below(&world->chance, notes - first)];
	return world->machine->shadow && note->stage2 ? NULL : note;
}

static void disturb(struct world *world, const struct note *note, struct disturbance *disturbance)
{
	uint64_t entry = entry_read(note->hpa, note->bytes);

	disturbance->note = note;
	disturbance->was = entry;
	entry_write(note->hpa, note->bytes, disturbed(world, entry));
}

static void put_back(struct world *world, const struct disturbance *disturbance)
{
	if (!disturbance->note)
		return;
	if (world->lasting && one_in(&world->chance, 4))
		world->changed = true;
	else
		entry_write(disturbance->note->hpa, disturbance->note->bytes, disturbance->was);
}

/* --- comparison ---------------------------------------------------------------------------- */

static const char *const kind_name[] = {
	[OUTCOME_DONE] = "done",	   [OUTCOME_EXCEPTION] = "exception",
	[OUTCOME_VIOLATION] = "violation", [OUTCOME_MISCONFIGURED] = "misconfigured",
	[OUTCOME_OTHER] = "other",
};

static bool same_outcome(const struct outcome *a, const struct outcome *b)
{
	return a->kind == b->kind && a->rip == b->rip && a->rbx == b->rbx &&
	       a->vector == b->vector && a->code == b->code && a->address == b->address &&
	       a->linear == b->linear;
}

static void say_outcome(const char *who, const struct outcome *o)
{
	say("# %s: %s, vector %u, code %x, address %x, linear %x, rip %x, rbx %x", who,
	    kind_name[o->kind], (uint64_t)o->vector, o->code, o->address, o->linear, o->rip,
	    o->rbx);
}

static void say_access(const struct world *world, const struct access *access)
{
	const struct mv_paging_registers *r = &world->registers;

	say("# access %x to %x, code %x, %s, cr0 %x, cr3 %x, cr4 %x, efer %x, pkru %x, pkrs %x",
	    (uint64_t)access->flags, access->gva, access->code, mode_name[world->mode], r->cr0,
	    r->cr3, r->cr4, r->efer, (uint64_t)access->pkru, (uint64_t)access->pkrs);
	say("# stage 2: format %u, features %x", (uint64_t)world->format,
	    (uint64_t)world->features);
}

static void say_notes(const struct prediction *prediction)
{
	for (unsigned int i = 0; i < prediction->notes; i++) {
		const struct note *n = &prediction->note[i];
		uint64_t now = entry_read(n->hpa, n->bytes);

		say("#   %s level %u at %x: %x, expected %x%s, is %x%s",
		    n->stage2 ? "stage 2" : "guest", (uint64_t)n->level, n->hpa, n->before,
		    n->after, n->may_be_accessed ? " (or accessed)" : "", now,
		    now != n->after ? " <---" : "");
	}
}

/* A quirk is put right in the entry too, so that it changes nothing later. */
static const char *compare_entries(const struct world *world, const struct prediction *prediction)
{
	for (unsigned int i = 0; i < prediction->notes; i++) {
		const struct note *note = &prediction->note[i];
		uint64_t now = entry_read(note->hpa, note->bytes);

		if (now == note->after)
			continue;
		if (!quirk_explains_entry(world, prediction, note, now))
			return "an entry";
		entry_write(note->hpa, note->bytes, note->after);
	}
	return NULL;
}

/* What differs, or NULL. What was written is taken back. */
static const char *compare(struct world *world, const struct access *access,
			   const struct prediction *prediction, struct outcome *outcome)
{
	uint32_t *written = (uint32_t *)prediction->written_hpa;

	quirk_normalise_outcome(world, access, prediction, outcome);
	if (!same_outcome(&prediction->outcome, outcome))
		return "the outcome";
	if (written && *written != access->value)
		return "what was written";
	return compare_entries(world, prediction);
}

static void tell_mismatch(struct tally *tally, const struct world *world, uint64_t number,
			  const struct access *access, const struct prediction *prediction,
			  const struct outcome *outcome, const char *what)
{
	say("mismatch: world %u: %s", number, what);
	say_access(world, access);
	say_outcome("expected", &prediction->outcome);
	say_outcome("machine ", outcome);
	say_notes(prediction);
	if (++tally->mismatches == MISMATCHES_TOLD)
		give_up("%u mismatches in %u accesses", tally->mismatches, tally->accesses);
}

/* --- a round ------------------------------------------------------------------------------- */

/* The same walk through the direct map has to come to the same. */
static void compare_direct(struct world *world, const struct access *access,
			   const struct prediction *prediction)
{
	static struct prediction direct;

	predict_undo(prediction);
	direct = *prediction;
	predict(world, access, true, &direct);
	for (unsigned int i = 0; i < prediction->notes; i++)
		if (direct.note[i].after != prediction->note[i].after)
			give_up("walks by direct map and by accessor leave different entries");
	if (!same_outcome(&direct.outcome, &prediction->outcome))
		give_up("walks by direct map and by accessor end differently");
}

static void set_keys(const struct access *access)
{
	struct cpuid seven = cpuid(7, 0);

	if (seven.ecx & 1u << 3)
		pkru_write(access->pkru);
	if (seven.ecx & 1u << 31)
		msr_write(MSR_PKRS, access->pkrs);
}

static void run(struct world *world, uint64_t number, const struct access *access, bool as_made,
		const struct prediction *prediction, struct tally *tally)
{
	uint32_t stamped = prediction->written_hpa ? *(uint32_t *)prediction->written_hpa : 0;
	struct guest_state state;
	struct outcome outcome;
	const char *difference;

	predict_undo(prediction);
	guest_state_of(world, access, &state);
	set_keys(access);
	world->machine->enter(&state, &outcome);
	tally->accesses++;
	count_prediction(tally, world, access, prediction);
	difference = compare(world, access, prediction, &outcome);
	if (!difference && !world->changed && as_made &&
	    !world_keeps_promise(world, access->gva, access->flags, &prediction->walk))
		difference = "what the tables were made for";
	if (difference)
		tell_mismatch(tally, world, number, access, prediction, &outcome, difference);
	if (prediction->written_hpa)
		*(uint32_t *)prediction->written_hpa = stamped;
}

/* Of the memory of a guest that runs on a shadow: what is there is the VMM's to say. */
static bool leads_out(const struct world *world, const struct prediction *prediction)
{
	enum outcome_kind kind = prediction->outcome.kind;

	return world->machine->shadow &&
	       (kind == OUTCOME_VIOLATION || kind == OUTCOME_MISCONFIGURED);
}

static void make_access(struct world *world, uint64_t number, struct tally *tally)
{
	static struct prediction plain, prediction;
	struct disturbance disturbance = { 0 };
	const struct note *note;
	struct access access;

	choose_access(world, &access);
	if (one_in(&world->chance, 2)) {
		predict(world, &access, false, &plain);
		predict_undo(&plain);
		note = choose_note(world, &plain);
		if (note)
			disturb(world, note, &disturbance);
	}
	predict(world, &access, false, &prediction);
	if (!prediction.possible || leads_out(world, &prediction) || quirk_forbids(world, &access, &prediction)) {
		predict_undo(&prediction);
		count(tally, "not made");
	} else {
		if (one_in(&world->chance, 4))
			compare_direct(world, &access, &prediction);
		run(world, number, &access, !disturbance.note, &prediction, tally);
		if (one_in(&world->chance, 2))
			predict_undo(&prediction);
	}
	put_back(world, &disturbance);
}

void run_world(const struct machine *machine, uint64_t seed, uint64_t number, struct tally *tally)
{
	static struct world world;

	world.machine = machine;
	world.chance = chance_of(seed, number);
	world.changed = false;
	world.lasting = one_in(&world.chance, 4);
	if (machine->shadow) {
		world_make_plain(&world);
		machine_shadow_begin(&world);
	} else {
		world_make_stage2(&world);
	}
	world_make_guest(&world);
	for (unsigned int i = 0; i < ACCESSES_PER_WORLD && world.targets; i++)
		make_access(&world, number, tally);
	if (machine->shadow)
		machine_shadow_end();
	/* Entries that stayed changed are not the library's, and it is not to follow them. */
	if (!world.changed)
		world_end(&world);
}
