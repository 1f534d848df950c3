/* SPDX-License-Identifier: BSD-2-Clause */
/* See shadow_reference.h. Bits are numbered as in the manual's tables. */
#include <stdlib.h>
#include <string.h>

#include "support/shadow_reference.h"
#include "support/testing.h"

#define BIT(n) (1ULL << (n))

#define P  BIT(0)
#define W  BIT(1)
#define U  BIT(2)
#define A  BIT(5)
#define D  BIT(6)
#define PS BIT(7)
#define NX BIT(63)

/* --- memory and its past -------------------------------------------------------------------- */

void sref_init(struct sref *ref)
{
	memset(ref, 0, sizeof(*ref));
	ref->memory = calloc(1, SREF_BYTES);
	ref->newest = calloc(SREF_BYTES / 8, sizeof(ref->newest[0]));
	insist(ref->memory && ref->newest);
}

void sref_finish(struct sref *ref)
{
	free(ref->memory);
	free(ref->newest);
}

void sref_forget(struct sref *ref)
{
	for (unsigned int i = 0; i < ref->changes; i++)
		ref->newest[ref->log[i].slot] = 0;
	ref->changes = 0;
}

bool sref_has_room(const struct sref *ref)
{
	return ref->changes + 2048 < SREF_LOG;
}

bool sref_is_memory(uint64_t gpa)
{
	return gpa < SREF_BYTES && (gpa < SREF_HOLE_FIRST || gpa > SREF_HOLE_LAST);
}

uint64_t sref_read(const struct sref *ref, uint64_t gpa, unsigned int bytes)
{
	uint64_t value = 0;

	insist(sref_is_memory(gpa));
	memcpy(&value, ref->memory + gpa, bytes);
	return value;
}

static void remember(struct sref *ref, uint64_t slot)
{
	struct sref_change *change = &ref->log[ref->changes++];

	insist(ref->changes <= SREF_LOG);
	change->step = ref->step;
	change->slot = slot;
	memcpy(&change->old, ref->memory + slot * 8, 8);
	change->older = ref->newest[slot];
	ref->newest[slot] = ref->changes;
}

void sref_write(struct sref *ref, uint64_t gpa, const void *from, size_t bytes)
{
	const unsigned char *byte = from;

	for (size_t done = 0; done < bytes;) {
		size_t part = 8 - (gpa + done) % 8;

		part = part < bytes - done ? part : bytes - done;
		insist(sref_is_memory(gpa + done));
		if (memcmp(ref->memory + gpa + done, byte + done, part)) {
			remember(ref, (gpa + done) / 8);
			ref->touched[(gpa + done) >> 12] = true;
			memcpy(ref->memory + gpa + done, byte + done, part);
		}
		done += part;
	}
}

void sref_told(struct sref *ref, uint64_t gpa, size_t bytes)
{
	uint64_t first = gpa & ~3ULL, last = (gpa + bytes - 1) | 3;

	/* Entries may be of 4 bytes: the other one of a word keeps its past. */
	for (uint64_t half = first; half < last; half += 4)
		for (uint32_t i = ref->newest[half / 8]; i; i = ref->log[i - 1].older)
			memcpy((char *)&ref->log[i - 1].old + half % 8, ref->memory + half, 4);
}

/* --- modes ---------------------------------------------------------------------------------- */

#define CR0_WP	 BIT(16)
#define CR0_PG	 BIT(31)
#define CR4_PSE	 BIT(4)
#define CR4_PAE	 BIT(5)
#define CR4_LA57 BIT(12)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define EFER_LME BIT(8)
#define EFER_NXE BIT(11)

enum sref_mode sref_mode(const struct sref_cpu *cpu)
{
	if (!(cpu->registers.cr0 & CR0_PG))
		return SREF_OFF;
	if (!(cpu->registers.cr4 & CR4_PAE))
		return cpu->registers.cr4 & CR4_PSE ? SREF_PSE : SREF_32;
	if (!(cpu->registers.efer & EFER_LME))
		return SREF_PAE;
	return cpu->registers.cr4 & CR4_LA57 ? SREF_5L : SREF_4L;
}

static unsigned int levels_of(enum sref_mode mode)
{
	static const unsigned int levels[SREF_MODES] = { 0, 2, 2, 3, 4, 5 };

	return levels[mode];
}

static bool is_narrow(enum sref_mode mode)
{
	return mode == SREF_32 || mode == SREF_PSE;
}

static bool is_long(enum sref_mode mode)
{
	return mode == SREF_4L || mode == SREF_5L;
}

static unsigned int span_lg2(enum sref_mode mode, unsigned int level)
{
	return 12 + (is_narrow(mode) ? 10 : 9) * (level - 1);
}

static uint64_t index_of(enum sref_mode mode, unsigned int level, uint64_t gva)
{
	uint64_t mask = is_narrow(mode) ? 1023 : 511;

	if (mode == SREF_PAE && level == 3)
		mask = 3;
	return gva >> span_lg2(mode, level) & mask;
}

static bool has_pages(const struct sref_cpu *cpu, enum sref_mode mode, unsigned int level)
{
	if (level == 2)
		return mode != SREF_32;
	return level == 3 && is_long(mode) && (cpu->model.features & MV_CPU_1G);
}

/* SDM tables 4-3 to 4-20. */
static uint64_t reserved_narrow(const struct sref_cpu *cpu, unsigned int level, bool page)
{
	unsigned int width = cpu->model.features & MV_CPU_PSE36 ? cpu->model.maxphyaddr : 32;
	uint64_t reserved = BIT(21);

	if (!page || level == 1)
		return 0;
	for (unsigned int bit = 13; bit <= 20; bit++)
		if (bit + 19 >= width || bit + 19 >= 40)
			reserved |= BIT(bit);
	return reserved;
}

static uint64_t reserved_wide(const struct sref_cpu *cpu, enum sref_mode mode, unsigned int level,
			      bool page)
{
	uint64_t reserved = 0;

	for (unsigned int bit = cpu->model.maxphyaddr; bit < 52; bit++)
		reserved |= BIT(bit);
	if (mode == SREF_PAE)
		reserved |= 0x7ffULL << 52;
	if (!(cpu->registers.efer & EFER_NXE))
		reserved |= NX;
	if (mode == SREF_PAE && level == 3)
		return reserved | NX | BIT(1) | BIT(2) | 0xfULL << 5;
	if (page && level > 1)
		return reserved | (level == 2 ? 0xffULL << 13 : 0x1ffffULL << 13);
	if (level >= 4 || (level == 3 && is_long(mode)))
		reserved |= PS;
	if (level >= 4 && (cpu->model.features & MV_CPU_AMD) && is_long(mode))
		reserved |= BIT(8);
	return reserved;
}

static uint64_t frame_of(enum sref_mode mode, unsigned int level, bool page, uint64_t value)
{
	if (is_narrow(mode) && page && level == 2)
		return (value & 0xffc00000) | (value >> 13 & 0xff) << 32;
	value &= is_narrow(mode) ? 0xfffff000 : 0x000ffffffffff000;
	return page ? value & ~(BIT(span_lg2(mode, level)) - 1) : value;
}

bool sref_load_pdptes(const struct sref *ref, struct sref_cpu *cpu, bool *outside)
{
	uint64_t reserved = reserved_wide(cpu, SREF_PAE, 3, false), pdpte[4];
	uint64_t table = cpu->registers.cr3 & 0xffffffe0;

	*outside = false;
	if (sref_mode(cpu) != SREF_PAE)
		return true;
	for (unsigned int i = 0; i < 4; i++) {
		*outside = !sref_is_memory(table + 8 * i);
		if (*outside)
			return false;
		pdpte[i] = sref_read(ref, table + 8 * i, 8);
		if ((pdpte[i] & P) && (pdpte[i] & reserved))
			return false;
	}
	memcpy(cpu->pdpte, pdpte, sizeof(pdpte));
	return true;
}

/* --- one entry ------------------------------------------------------------------------------ */

/* A walk on its way: what the levels above grant, and where the next table is. */
struct state {
	const struct sref_cpu *cpu;
	enum sref_mode mode;
	uint64_t gva;
	unsigned int access;
	unsigned int level;
	uint64_t table;
	bool writable, user, no_exec;
};

enum turn { DOWN, PAGE, ABSENT, RESERVED };

static enum turn take(struct state *state, uint64_t value)
{
	unsigned int level = state->level;
	bool page = level == 1 || ((value & PS) && has_pages(state->cpu, state->mode, level));
	uint64_t reserved = is_narrow(state->mode)
				    ? reserved_narrow(state->cpu, level, page)
				    : reserved_wide(state->cpu, state->mode, level, page);

	if (!(value & P))
		return ABSENT;
	if (value & reserved)
		return RESERVED;
	if (state->mode != SREF_PAE || level < 3) {
		state->writable &= !!(value & W);
		state->user &= !!(value & U);
		state->no_exec |= !is_narrow(state->mode) && (value & NX);
	}
	state->table = frame_of(state->mode, level, page, value);
	state->level--;
	return page ? PAGE : DOWN;
}

/* SDM 4.6.1. */
static bool may(const struct state *state)
{
	const struct mv_paging_registers *registers = &state->cpu->registers;
	unsigned int access = state->access;
	bool implicit = access & MV_ACCESS_IMPLICIT;

	if ((access & MV_ACCESS_FETCH) && state->no_exec)
		return false;
	if ((access & MV_ACCESS_USER) && !implicit)
		return state->user && (state->writable || !(access & MV_ACCESS_WRITE));
	if ((access & MV_ACCESS_WRITE) && !state->writable && (registers->cr0 & CR0_WP))
		return false;
	if (!state->user)
		return true;
	if (access & MV_ACCESS_FETCH)
		return !(registers->cr4 & CR4_SMEP);
	return !(registers->cr4 & CR4_SMAP) || (!implicit && (access & MV_ACCESS_AC));
}

/* SDM 4.7. */
static uint32_t told_of(const struct state *state)
{
	const struct mv_paging_registers *registers = &state->cpu->registers;
	bool nx = (registers->efer & EFER_NXE) && !is_narrow(state->mode);
	uint32_t error = 0;

	if (state->access & MV_ACCESS_WRITE)
		error |= 2;
	if ((state->access & MV_ACCESS_USER) && !(state->access & MV_ACCESS_IMPLICIT))
		error |= 4;
	if ((state->access & MV_ACCESS_FETCH) && (nx || (registers->cr4 & CR4_SMEP)))
		error |= 16;
	return error;
}

/* False: the address is none. */
static bool begin(struct state *state, const struct sref_cpu *cpu, uint64_t gva,
		  unsigned int access)
{
	unsigned int unused;

	memset(state, 0, sizeof(*state));
	state->cpu = cpu;
	state->mode = sref_mode(cpu);
	state->gva = gva;
	state->access = access;
	state->level = levels_of(state->mode);
	state->table =
		cpu->registers.cr3 & (is_long(state->mode) ? 0x000ffffffffff000 : 0xfffff000);
	state->writable = state->user = true;
	unused = is_long(state->mode) ? 64 - 12 - 9 * state->level : 0;
	return (uint64_t)((int64_t)(gva << unused) >> unused) == gva;
}

static uint64_t entry_gpa(const struct state *state)
{
	unsigned int bytes = is_narrow(state->mode) ? 4 : 8;

	return state->table + bytes * index_of(state->mode, state->level, state->gva);
}

/* --- the walk ------------------------------------------------------------------------------- */

static void end(const struct state *state, enum turn turn, struct sref_result *result)
{
	static const uint32_t why[] = { [PAGE] = 1, [ABSENT] = 0, [RESERVED] = 9 };

	if (turn == PAGE && may(state)) {
		result->kind = SREF_GOOD;
		result->page_lg2 = span_lg2(state->mode, state->level + 1);
		result->gpa = state->table + (state->gva & (BIT(result->page_lg2) - 1));
		return;
	}
	result->kind = SREF_FAULT;
	result->error = told_of(state) | why[turn];
}

static uint64_t fetch_entry(const struct sref *ref, const struct state *state,
			    struct sref_result *result)
{
	uint64_t gpa = entry_gpa(state);

	if (state->mode == SREF_PAE && state->level == 3)
		return state->cpu->pdpte[index_of(SREF_PAE, 3, state->gva)];
	if (!sref_is_memory(gpa)) {
		result->kind = SREF_NO_TABLE;
		return 0;
	}
	result->entry[result->entries++] = gpa;
	return sref_read(ref, gpa, result->entry_bytes);
}

void sref_look(const struct sref *ref, const struct sref_cpu *cpu, uint64_t gva,
	       unsigned int access, struct sref_result *result)
{
	struct state state;
	enum turn turn;

	memset(result, 0, sizeof(*result));
	if (!begin(&state, cpu, gva, access)) {
		result->kind = SREF_NOT_CANONICAL;
		return;
	}
	result->gpa = (uint32_t)gva;
	result->page_lg2 = 32;
	result->entry_bytes = is_narrow(state.mode) ? 4 : 8;
	if (state.mode == SREF_OFF)
		return;
	do {
		uint64_t value = fetch_entry(ref, &state, result);

		if (result->kind == SREF_NO_TABLE)
			return;
		turn = take(&state, value);
	} while (turn == DOWN);
	end(&state, turn, result);
}

void sref_walk(struct sref *ref, const struct sref_cpu *cpu, uint64_t gva, unsigned int access,
	       struct sref_result *result)
{
	sref_look(ref, cpu, gva, access, result);
	if (result->kind != SREF_GOOD)
		return;
	for (unsigned int i = 0; i < result->entries; i++) {
		uint64_t value = sref_read(ref, result->entry[i], result->entry_bytes) | A;

		if ((access & MV_ACCESS_WRITE) && i == result->entries - 1)
			value |= D;
		sref_write(ref, result->entry[i], &value, result->entry_bytes);
	}
}

/* --- what may be stale ---------------------------------------------------------------------- */

struct search {
	const struct sref *ref;
	const struct sref_window *window;
	uint64_t gpa;
};

/* INVLPG of an address takes with it all of the page that held it, whatever its size. */
static bool invalidated(const struct search *search, const struct state *state, unsigned int lg2,
			uint64_t until)
{
	const struct sref_window *window = search->window;

	if (until <= window->since)
		return true;
	for (unsigned int i = 0; i < window->invlpgs; i++)
		if (window->invlpg[i].step >= until &&
		    window->invlpg[i].gva >> lg2 == state->gva >> lg2)
			return true;
	return false;
}

static bool search_table(const struct search *search, const struct state *state);

/* An entry that had, or has, a value: does it lead there? @until: 0 where it has it still. */
static bool search_value(const struct search *search, struct state state, uint64_t value,
			 uint64_t until)
{
	bool pdpte = state.mode == SREF_PAE && state.level == 3;
	unsigned int level = state.level;
	uint64_t marks = A;
	enum turn turn = take(&state, value);
	unsigned int lg2 = turn == PAGE ? span_lg2(state.mode, level) : 12;

	if (turn == ABSENT || turn == RESERVED)
		return false;
	if (until && invalidated(search, &state, lg2, until))
		return false;
	if (turn == PAGE && (state.access & MV_ACCESS_WRITE))
		marks |= D;
	if (!pdpte && (value & marks) != marks)
		return false;
	if (turn == DOWN)
		return search_table(search, &state);
	return may(&state) && state.table + (state.gva & (BIT(lg2) - 1)) == search->gpa;
}

static bool search_table(const struct search *search, const struct state *state)
{
	const struct sref *ref = search->ref;
	unsigned int bytes = is_narrow(state->mode) ? 4 : 8;
	uint64_t gpa = entry_gpa(state);

	if (state->mode == SREF_PAE && state->level == 3)
		return search_value(search, *state,
				    state->cpu->pdpte[index_of(SREF_PAE, 3, state->gva)], 0);
	if (!sref_is_memory(gpa))
		return false;
	if (search_value(search, *state, sref_read(ref, gpa, bytes), 0))
		return true;
	for (uint32_t i = ref->newest[gpa / 8]; i; i = ref->log[i - 1].older) {
		const struct sref_change *change = &ref->log[i - 1];
		uint64_t value = change->old;

		if (change->step <= search->window->since)
			break;
		if (bytes == 4)
			value = (uint32_t)(value >> (gpa % 8 * 8));
		if (search_value(search, *state, value, change->step))
			return true;
	}
	return false;
}

bool sref_allows(const struct sref *ref, const struct sref_cpu *cpu,
		 const struct sref_window *window, uint64_t gva, unsigned int access, uint64_t gpa)
{
	struct search search = { ref, window, gpa };
	struct state state;

	if (!begin(&state, cpu, gva, access))
		return false;
	if (state.mode == SREF_OFF)
		return (uint32_t)gva == gpa;
	return search_table(&search, &state);
}
