/* SPDX-License-Identifier: BSD-2-Clause */
#include "predict.h"

#include <errno.h>
#include <stddef.h>

#include "console.h"
#include "cpu.h"
#include "layout.h"
#include "stamp.h"

/* Bytes of guest_code's pieces before their CPUID. */
#define DATA_INSTRUCTION 2u
#define LOAD_INSTRUCTION 3u

#define ACCESS_KINDS (MV_ACCESS_READ | MV_ACCESS_WRITE | MV_ACCESS_FETCH)

/* --- notes --------------------------------------------------------------------------------- */

/*
 * Which note is of an entry: one word for each place where an entry of a table may be. Those of
 * earlier predictions have another number.
 */
#define GUEST_PLACES  ((GUEST_TABLES_END - GUEST_TABLES) / 4)
#define STAGE2_PLACES ((TABLE_PAGES_END - TABLE_PAGES) / 8)

struct place {
	uint32_t number, note;
};

static struct {
	struct prediction *prediction;
	uint32_t number;
	struct place guest[GUEST_PLACES], stage2[STAGE2_PLACES];
} book;

static bool in(uint64_t hpa, uint64_t first, uint64_t end)
{
	return hpa >= first && hpa < end;
}

static struct note *find_note(uint64_t hpa, unsigned int bytes, bool stage2)
{
	struct place *place = stage2 ? &book.stage2[(hpa - TABLE_PAGES) / 8]
				     : &book.guest[(hpa - GUEST_TABLES) / 4];
	struct prediction *prediction = book.prediction;
	struct note *note;

	if (place->number == book.number)
		return &prediction->note[place->note];
	if (prediction->notes == NOTES_MAX)
		give_up("an access touches more than %u entries", (uint64_t)NOTES_MAX);
	*place = (struct place){ book.number, prediction->notes };
	note = &prediction->note[prediction->notes++];
	*note = (struct note){ .hpa = hpa, .bytes = (uint8_t)bytes, .stage2 = stage2 };
	note->before = note->after = entry_read(hpa, bytes);
	return note;
}

static int read_entry(bool stage2, uint64_t hpa, unsigned int bytes, uint64_t *entry)
{
	if (!(stage2 ? in(hpa, TABLE_PAGES, TABLE_PAGES_END)
		     : in(hpa, GUEST_TABLES, GUEST_TABLES_END)))
		return -EFAULT;
	*entry = find_note(hpa, bytes, stage2)->after;
	return 0;
}

static int change_entry(bool stage2, uint64_t hpa, unsigned int bytes, uint64_t old, uint64_t entry)
{
	uint64_t now;
	int error = read_entry(stage2, hpa, bytes, &now);

	if (error)
		return error;
	if (now != old)
		return -EAGAIN;
	find_note(hpa, bytes, stage2)->after = entry;
	entry_write(hpa, bytes, entry);
	return 0;
}

static int read_stage2(void *ctx, uint64_t hpa, unsigned int bytes, uint64_t *entry)
{
	return read_entry(true, hpa, bytes, entry);
}

static int change_stage2(void *ctx, uint64_t hpa, unsigned int bytes, uint64_t old, uint64_t entry)
{
	return change_entry(true, hpa, bytes, old, entry);
}

static int read_guest(void *ctx, uint64_t hpa, unsigned int bytes, uint64_t *entry)
{
	return read_entry(false, hpa, bytes, entry);
}

static int change_guest(void *ctx, uint64_t hpa, unsigned int bytes, uint64_t old, uint64_t entry)
{
	return change_entry(false, hpa, bytes, old, entry);
}

static void begin_notes(struct prediction *prediction)
{
	book.prediction = prediction;
	book.number++;
	prediction->notes = 0;
}

void predict_undo(const struct prediction *prediction)
{
	for (unsigned int i = 0; i < prediction->notes; i++) {
		const struct note *note = &prediction->note[i];

		entry_write(note->hpa, note->bytes, note->before);
	}
}

/* What a walk through the direct map made of entries that are known already. */
static void take_notes(struct prediction *prediction)
{
	for (unsigned int i = 0; i < prediction->notes; i++) {
		struct note *note = &prediction->note[i];

		note->after = entry_read(note->hpa, note->bytes);
	}
}

/* --- both stages --------------------------------------------------------------------------- */

static void prepare_stage2(struct world *world, bool direct, struct mv_stage2 *stage2)
{
	struct mv_stage2_config config = {
		.size = sizeof(config),
		.format = world->format,
		.features = world->features,
		.maxphyaddr = world->maxphyaddr,
		.root = mv_table_root(world->table),
	};

	if (!direct)
		config.accessor = (struct mv_guest_accessor){ read_stage2, change_stage2, world };
	if (mv_stage2_init(stage2, &config))
		give_up("mv_stage2_init() refuses");
}

static void prepare_paging(struct world *world, const struct access *access,
			   struct mv_paging *paging)
{
	struct mv_paging_registers registers = world->registers;

	registers.pkru = access->pkru;
	registers.pkrs = access->pkrs;
	if (mv_paging_init(paging, &registers, &world->cpu))
		give_up("mv_paging_init() refuses");
}

/* Return: whether the guest can be started. */
static bool prepare(struct world *world, const struct access *access, bool direct,
		    struct mv_nested *nested)
{
	struct mv_nested_config config = { .size = sizeof(config),
					   .guest_pat = MV_PAT_RESET,
					   .host_pat = MV_PAT_RESET };
	struct mv_stage2 stage2;
	struct mv_paging paging;

	prepare_stage2(world, direct, &stage2);
	prepare_paging(world, access, &paging);
	/* A VM entry checks them as a load does. What is about to be loaded anew was sound once. */
	if (world->machine->ept && !world_read_pdptes(world, paging.pdpte) &&
	    (access->flags & ACCESS_KINDS))
		return false;
	config.stage2 = &stage2;
	if (!direct)
		config.frames = (struct mv_guest_accessor){ read_guest, change_guest, world };
	if (mv_nested_init(nested, &config))
		give_up("mv_nested_init() refuses");
	mv_nested_set_paging(nested, &paging);
	return true;
}

/* --- from a walk to an outcome ------------------------------------------------------------- */

static void outcome_of_stage2(const struct world *world, const struct mv_nested_walk *walk,
			      uint64_t gva, struct outcome *outcome)
{
	bool violation = walk->stage2_kind == MV_STAGE2_VIOLATION;

	outcome->kind = violation ? OUTCOME_VIOLATION : OUTCOME_MISCONFIGURED;
	outcome->code = walk->code;
	outcome->address = walk->gpa;
	outcome->linear = world->machine->ept && violation ? gva : 0;
}

static void outcome_of_fault(const struct world *world, const struct mv_nested_walk *walk,
			     uint64_t gva, struct outcome *outcome)
{
	switch (walk->kind) {
	case MV_NESTED_PAGE_FAULT:
		outcome->kind = OUTCOME_EXCEPTION;
		outcome->vector = VECTOR_PF;
		outcome->code = walk->error_code;
		outcome->address = gva;
		break;
	case MV_NESTED_NOT_CANONICAL:
		outcome->kind = OUTCOME_EXCEPTION;
		outcome->vector = VECTOR_GP;
		break;
	case MV_NESTED_STAGE2:
		outcome_of_stage2(world, walk, gva, outcome);
		break;
	default:
		give_up("a nested walk ended with kind %u", (uint64_t)walk->kind);
	}
}

/* The note of an entry of the guest that a walk read, or NULL: cached PDPTEs are not in memory. */
static struct note *guest_note(const struct world *world, const struct mv_nested_trace *trace,
			       unsigned int step)
{
	bool cached = world->machine->ept && world->mode == GUEST_PAE;
	const struct mv_stage2_walk *reached;

	if (cached && step == 0)
		return NULL;
	reached = &trace->stage2[step - cached];
	return find_note(reached->phys, world->mode < GUEST_PAE ? 4 : 8, false);
}

/* A fault by rights, not by an entry that is absent or unsound. */
static bool lacks_rights(const struct mv_nested_walk *walk)
{
	if (walk->kind == MV_NESTED_PAGE_FAULT)
		return (walk->error_code & (MV_PF_PRESENT | MV_PF_RESERVED)) == MV_PF_PRESENT;
	if (walk->stage2_kind != MV_STAGE2_VIOLATION)
		return false;
	/* Bits above 31 are NPT's only; of EPT, 6:3 tell what was granted. */
	return walk->code & (walk->code >> 32 ? MV_PF_PRESENT : 0x78);
}

/*
 * Entries on the way to a fault: SDM vol. 3, 4.8. The last one too, where it is sound and only
 * does not grant enough.
 */
static void allow_accessed(const struct world *world, const struct mv_nested_walk *walk,
			   const struct mv_nested_trace *trace)
{
	bool stage2 = walk->kind == MV_NESTED_STAGE2;
	const struct mv_stage2_walk *last = &trace->stage2[trace->walks - 1];
	unsigned int guest_last = stage2 || lacks_rights(walk) ? 0 : 1;
	unsigned int stage2_last = lacks_rights(walk) ? 0 : 1;

	for (unsigned int i = 0; i + guest_last < trace->guest.steps; i++) {
		struct note *note = guest_note(world, trace, i);

		if (note)
			note->may_be_accessed = true;
	}
	for (unsigned int i = 0; stage2 && i + stage2_last < last->steps; i++)
		find_note(last->step[i].gpa, 8, true)->may_be_accessed = true;
}

static void note_levels(const struct world *world, const struct mv_nested_trace *trace)
{
	for (unsigned int i = 0; i < trace->guest.steps; i++) {
		struct note *note = guest_note(world, trace, i);

		if (note)
			note->level = (uint8_t)trace->guest.step[i].level;
	}
	for (unsigned int i = 0; i < trace->walks; i++)
		for (unsigned int j = 0; j < trace->stage2[i].steps; j++)
			find_note(trace->stage2[i].step[j].gpa, 8, true)->level =
				(uint8_t)trace->stage2[i].step[j].level;
}

/*
 * One walk. Return: whether the guest goes on; otherwise the prediction is made.
 */
static bool walk(struct world *world, const struct mv_nested *nested, uint64_t gva,
		 unsigned int access, struct prediction *prediction)
{
	bool direct = !nested->frames.read;
	struct mv_nested_trace trace;
	int error;

	error = direct ? mv_nested_walk(nested, gva, access, &prediction->walk)
		       : mv_nested_trace(nested, gva, access, &prediction->walk, &trace);
	if (error) {
		prediction->possible = false;
		return false;
	}
	if (!direct)
		note_levels(world, &trace);
	if (prediction->walk.kind == MV_NESTED_OK)
		return true;
	outcome_of_fault(world, &prediction->walk, gva, &prediction->outcome);
	if (!direct)
		allow_accessed(world, &prediction->walk, &trace);
	return false;
}

/* --- an access ----------------------------------------------------------------------------- */

static unsigned int mode_flags(const struct access *access)
{
	return access->flags & (MV_ACCESS_USER | MV_ACCESS_AC);
}

/* A place in stamped memory that holds what the access wants. */
static bool is_good_place(const struct access *access, uint64_t hpa)
{
	if (!in(hpa, GUEST_DATA, GUEST_DATA_END))
		return false;
	return !(access->flags & MV_ACCESS_FETCH) || hpa % SLOT_BYTES == SLOT_CODE;
}

static void predict_done(const struct access *access, struct prediction *prediction)
{
	uint64_t hpa = prediction->walk.hpa;
	struct outcome *outcome = &prediction->outcome;

	if (!is_good_place(access, hpa)) {
		prediction->possible = false;
		return;
	}
	outcome->kind = OUTCOME_DONE;
	if (access->flags & MV_ACCESS_FETCH) {
		outcome->rip += SLOT_MOV;
		outcome->rbx = stamp_of(hpa);
		return;
	}
	outcome->rip += DATA_INSTRUCTION;
	outcome->rbx = access->flags & MV_ACCESS_READ ? *(const uint32_t *)hpa : access->value;
	prediction->written_hpa = access->flags & MV_ACCESS_WRITE ? hpa : 0;
}

/* Whether the guest's code is where it ought to be. */
static bool fetch_code(struct world *world, const struct mv_nested *nested,
		       const struct access *access, unsigned int offset,
		       struct prediction *prediction)
{
	uint64_t gva = access->code + offset;

	if (!walk(world, nested, gva, mode_flags(access) | MV_ACCESS_FETCH, prediction))
		return false;
	prediction->possible = prediction->walk.hpa == GUEST_CODE + gva % 4096;
	return prediction->possible;
}

/* What a load of CR3 does in PAE paging. In others it only forgets translations. */
static bool load_cr3(struct world *world, struct mv_nested *nested, struct prediction *prediction)
{
	struct mv_nested_walk *walk = &prediction->walk;

	if (mv_nested_load_pdptes(nested, walk)) {
		prediction->possible = false;
	} else if (walk->kind == MV_NESTED_BAD_PDPTE) {
		prediction->outcome.kind = OUTCOME_EXCEPTION;
		prediction->outcome.vector = VECTOR_GP;
	} else if (walk->kind == MV_NESTED_STAGE2) {
		outcome_of_stage2(world, walk, 0, &prediction->outcome);
	}
	return prediction->possible && walk->kind == MV_NESTED_OK;
}

static void follow(struct world *world, struct mv_nested *nested, const struct access *access,
		   struct prediction *prediction)
{
	bool fetch = access->flags & MV_ACCESS_FETCH;

	if (!fetch && !fetch_code(world, nested, access, 0, prediction))
		return;
	if (!(access->flags & ACCESS_KINDS)) {
		if (!load_cr3(world, nested, prediction))
			return;
		/* Everything is walked anew: the next instruction is fetched by the new PDPTEs. */
		prediction->outcome.rip += LOAD_INSTRUCTION;
		if (!fetch_code(world, nested, access, LOAD_INSTRUCTION, prediction))
			return;
		prediction->outcome.kind = OUTCOME_DONE;
		prediction->outcome.rbx = access->value;
	} else if (walk(world, nested, access->gva, access->flags, prediction)) {
		predict_done(access, prediction);
	}
}

void predict(struct world *world, const struct access *access, bool direct,
	     struct prediction *prediction)
{
	struct mv_nested nested;

	if (!direct)
		begin_notes(prediction);
	prediction->outcome = (struct outcome){ .rip = access->code };
	prediction->written_hpa = 0;
	prediction->possible = prepare(world, access, direct, &nested);
	if (prediction->possible)
		follow(world, &nested, access, prediction);
	if (direct)
		take_notes(prediction);
}

void guest_state_of(struct world *world, const struct access *access, struct guest_state *state)
{
	const struct mv_paging_registers *registers = &world->registers;

	*state = (struct guest_state){
		.cr0 = registers->cr0,
		.cr3 = registers->cr3,
		.cr4 = registers->cr4,
		.efer = registers->efer,
		.pkru = access->pkru,
		.pkrs = access->pkrs,
		.long_mode = world->mode >= GUEST_4L,
		.user = access->flags & MV_ACCESS_USER,
		.ac = access->flags & MV_ACCESS_AC,
		.rip = access->code,
		.rax = access->gva,
		.rbx = access->value,
		.stage2_root = mv_table_root(world->table),
		.stage2_ad = world->features & MV_FEATURE_ACCESSED,
		.mode_execute = world->features & MV_FEATURE_MODE_EXEC,
		.host_nx = world->host_nx,
	};
	world_read_pdptes(world, state->pdpte);
}
