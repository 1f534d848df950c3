/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One address space: registers become a mode, an address is translated; see walk.h. The walks
 * are the library's. With a second stage of a guest hypervisor's the two are put together here:
 * each table of stage 1 is reached through it.
 */
#include <errno.h>
#include <string.h>

#include "memvirt/walk.h"
#include "memvirt/walk_decode.h"
#include "vm/say.h"

#define EPTP_AD		   (1ULL << 6)
#define EPTP_LENGTH	   (7ULL << 3) /* page-walk length less 1; SDM vol. 3, table 25-9 */
#define FRAME		   0x000ffffffffff000ULL
#define RFLAGS_AC	   (1ULL << 18)
#define PDPTE_TCG_ACCESSED (1ULL << 5)
#define CR4_PKE		   (1ULL << 22)
#define CR0_PG		   (1ULL << 31)
#define EFER_LME	   (1ULL << 8)
#define EFER_LMA	   (1ULL << 10)
#define STAGE2_TABLE                                                                               \
	(MV_ACCESS_READ | MV_ACCESS_GUEST_TABLE | MV_ACCESS_LINEAR | MV_ACCESS_NO_UPDATE)

/* --- what the walks read ------------------------------------------------------------------ */

/* Ends the walk under way; what it ended for is in the space. */
static int stop(struct walk_space *space, enum walk_outcome why)
{
	space->stopped = why;
	return -ECANCELED;
}

static int read_entry(struct walk_space *space, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	uint32_t half;
	int err;

	if (bytes == sizeof(half)) {
		err = walk_memory_read(space->memory, gpa, &half, sizeof(half));
		if (!err)
			*entry = half;
	} else {
		err = walk_memory_read(space->memory, gpa, entry, sizeof(*entry));
	}
	if (err == -EFAULT)
		space->missing = gpa;
	return err;
}

static int read_second(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct walk_space *space = ctx;
	int err = read_entry(space, gpa, bytes, entry);

	return err == -EFAULT ? stop(space, WALK_OUTSIDE) : err;
}

/* Where a table of stage 1 lies, through the second stage. */
static int find_table(struct walk_space *space, uint64_t *gpa)
{
	struct mv_stage2_walk walk;
	int err = mv_stage2_walk(&space->second, *gpa, STAGE2_TABLE, &walk);

	if (err)
		return err;
	if (walk.kind != MV_STAGE2_OK) {
		space->failed = walk;
		return stop(space, WALK_STAGE2_FAULT);
	}
	if (space->traced < MV_LEVEL_MAX)
		space->tables[space->traced] = walk;
	*gpa = walk.phys;
	return 0;
}

static int read_first(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct walk_space *space = ctx;
	uint64_t at = gpa;
	int err = space->has_second ? find_table(space, &at) : 0;

	if (!err)
		err = read_entry(space, at, bytes, entry);
	if (!err && space->traced < MV_LEVEL_MAX) {
		space->trace[space->traced].gpa = gpa;
		space->trace[space->traced++].entry = *entry;
	}
	return err;
}

/* --- the mode ----------------------------------------------------------------------------- */

static uint64_t chosen(const struct walk_options *options, enum walk_register which, uint64_t value)
{
	return options->given >> which & 1 ? options->value[which] : value;
}

static void choose_registers(const struct walk_vm *vm, const struct walk_options *options,
			     struct mv_paging_registers *registers)
{
	memset(registers, 0, sizeof(*registers));
	registers->cr0 = chosen(options, WALK_CR0, vm->registers.cr0);
	registers->cr3 = chosen(options, WALK_CR3, vm->registers.cr3);
	registers->cr4 = chosen(options, WALK_CR4, vm->registers.cr4);
	registers->efer = chosen(options, WALK_EFER, vm->registers.efer);
	registers->pkru = (uint32_t)chosen(options, WALK_PKRU, vm->registers.pkru);
	/* LMA follows from the others, which may have been replaced. */
	registers->efer &= ~EFER_LMA;
	if ((registers->cr0 & CR0_PG) && (registers->efer & EFER_LME))
		registers->efer |= EFER_LMA;
}

static int open_second(struct walk_space *space, const struct walk_vm *vm,
		       const struct walk_options *options)
{
	struct mv_stage2_config config = {
		.size = sizeof(config),
		.features = MV_FEATURE_2M | MV_FEATURE_1G | MV_FEATURE_NX | MV_FEATURE_EXEC_ONLY,
		.maxphyaddr = vm->cpu.maxphyaddr,
		.root = options->second_root & FRAME,
		.accessor = { .read = read_second, .ctx = space },
	};
	bool five = options->second_levels == 5;

	if (options->second == WALK_EPT) {
		five = (options->second_root & EPTP_LENGTH) == 4 << 3;
		config.format = five ? MV_FORMAT_EPT_5L : MV_FORMAT_EPT_4L;
		if (options->second_root & EPTP_AD)
			config.features |= MV_FEATURE_ACCESSED;
	} else {
		config.format = five ? MV_FORMAT_NPT_5L : MV_FORMAT_NPT_4L;
	}
	if (mv_stage2_init(&space->second, &config)) {
		say("0x%llx is no root of a second stage",
		    (unsigned long long)options->second_root);
		return -1;
	}
	space->has_second = true;
	return 0;
}

/*
 * QEMU's TCG (7.2 does) keeps its accessed bit in PDPTEs too, where the manual reserves bit 5,
 * and does not look for reserved bits when CR3 is loaded. No other reserved bit is forgiven.
 */
static int read_pdpte(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	int err = read_first(ctx, gpa, bytes, entry);

	if (!err)
		*entry &= ~PDPTE_TCG_ACCESSED;
	return err;
}

static int load_pdptes(struct walk_space *space)
{
	const struct mv_guest_accessor accessor = { .read = read_pdpte, .ctx = space };
	int err = mv_paging_load_pdptes(&space->paging, &accessor);

	if (err == -EINVAL)
		say("the PDPTEs that CR3 names have reserved bits set: a load of CR3 would fault");
	else if (err)
		say("the PDPTEs that CR3 names cannot be read: %s",
		    space->memory->failure[0] ? space->memory->failure : "no memory is there");
	return err ? -1 : 0;
}

int walk_space_open(struct walk_space *space, struct walk_vm *vm,
		    const struct walk_options *options)
{
	struct mv_paging_registers registers;

	memset(space, 0, sizeof(*space));
	space->memory = &vm->memory;
	choose_registers(vm, options, &registers);
	if (mv_paging_init(&space->paging, &registers, &vm->cpu)) {
		say("no processor can have CR0=0x%llx CR3=0x%llx CR4=0x%llx EFER=0x%llx together",
		    (unsigned long long)registers.cr0, (unsigned long long)registers.cr3,
		    (unsigned long long)registers.cr4, (unsigned long long)registers.efer);
		return -1;
	}
	space->accessor = (struct mv_guest_accessor){ .read = read_first, .ctx = space };
	space->more_access = vm->registers.rflags & RFLAGS_AC ? MV_ACCESS_AC : 0;
	if (options->second != WALK_NO_SECOND && open_second(space, vm, options))
		return -1;
	space->pkru_guessed = (options->access & (MV_ACCESS_READ | MV_ACCESS_WRITE)) &&
			      (registers.cr4 & CR4_PKE) && !vm->registers.pkru_known &&
			      !(options->given >> WALK_PKRU & 1);
	return load_pdptes(space);
}

/* --- one address -------------------------------------------------------------------------- */

static unsigned int top_level(const struct mv_paging *paging)
{
	switch (paging->format) {
	case MV_FORMAT_X86_5L:
		return 5;
	case MV_FORMAT_X86_4L:
		return 4;
	case MV_FORMAT_X86_PAE:
		return 3;
	default:
		return 2;
	}
}

/* A walk that ended early: the entries that it got to see. */
static void take_trace(const struct walk_space *space, uint64_t gva, struct mv_walk *walk)
{
	unsigned int level = top_level(&space->paging);

	memset(walk, 0, sizeof(*walk));
	if (space->paging.format == MV_FORMAT_X86_PAE) {
		unsigned int index = (unsigned int)(gva >> 30) & 3;

		walk->step[walk->steps++] =
			(struct mv_walk_step){ space->paging.root + 8 * index,
					       space->paging.pdpte[index], level };
		level--;
	}
	for (unsigned int i = 0; i < space->traced && walk->steps < MV_LEVEL_MAX; i++, level--) {
		walk->step[walk->steps] = space->trace[i];
		walk->step[walk->steps++].level = level;
	}
	walk->level = level;
}

/* PAE's first entry is not read in the walk: the traces begin at the second. */
static void take_tables(const struct walk_space *space, struct walk_result *result)
{
	unsigned int skip = space->paging.format == MV_FORMAT_X86_PAE ? 1 : 0;

	memset(result->tables, 0, sizeof(result->tables));
	for (unsigned int i = 0; i < space->traced && i + skip < MV_LEVEL_MAX; i++)
		result->tables[i + skip] = space->tables[i];
}

/* An error of a walk. Return: 0 where it is a result. */
static int take_error(struct walk_space *space, int err, struct walk_result *result)
{
	if (err == -EFAULT)
		result->outcome = WALK_OUTSIDE;
	else if (err == -ECANCELED)
		result->outcome = space->stopped;
	else if (err == -EIO)
		result->outcome = WALK_READ_FAILED;
	else {
		say("0x%llx: %s", (unsigned long long)result->address, strerror(-err));
		return -1;
	}
	result->missing = space->missing;
	if (result->outcome == WALK_STAGE2_FAULT) {
		result->second = space->failed;
		result->has_second = true;
		result->second_of_table = true;
	}
	return 0;
}

/* Once: without PKRU nothing can be said of accesses to user pages that have a key. */
static void warn_of_key(struct walk_space *space, const struct mv_walk *walk)
{
	if (!space->pkru_guessed || walk->kind != MV_WALK_OK || !MV_ATTR_PKEY_OF(walk->attr) ||
	    !(walk->attr & MV_ATTR_USER))
		return;
	say("pages have protection keys, and QEMU does not show PKRU: taken for 0, which denies "
	    "nothing; see --pkru");
	space->pkru_guessed = false;
}

static int walk_first(struct walk_space *space, unsigned int access, struct walk_result *result)
{
	int err;

	space->traced = 0;
	space->stopped = WALK_OK;
	result->paged = true;
	err = mv_guest_walk(&space->paging, &space->accessor, result->address, access,
			    &result->guest);
	take_tables(space, result);
	if (err) {
		take_trace(space, result->address, &result->guest);
		return take_error(space, err, result);
	}
	warn_of_key(space, &result->guest);
	if (result->guest.kind != MV_WALK_OK)
		result->outcome = WALK_FAULT;
	result->gpa = result->guest.gpa;
	return 0;
}

static unsigned int second_access(const struct walk_result *result, unsigned int access)
{
	unsigned int more = MV_ACCESS_NO_UPDATE;

	if (result->paged) {
		more |= MV_ACCESS_LINEAR;
		more |= result->guest.attr & MV_ATTR_USER ? MV_ACCESS_USER : 0;
	}
	return (access & (MV_ACCESS_READ | MV_ACCESS_WRITE | MV_ACCESS_FETCH)) | more;
}

static int walk_second(struct walk_space *space, unsigned int access, struct walk_result *result)
{
	struct mv_stage2_walk walk;
	int err = mv_stage2_walk(&space->second, result->gpa, second_access(result, access), &walk);

	if (err)
		return take_error(space, err, result);
	result->second = walk;
	result->has_second = true;
	if (walk.kind != MV_STAGE2_OK)
		result->outcome = WALK_STAGE2_FAULT;
	result->phys = walk.phys;
	return 0;
}

int walk_space_translate(struct walk_space *space, const struct walk_options *options,
			 uint64_t address, struct walk_result *result)
{
	unsigned int access = options->access | space->more_access | MV_ACCESS_NO_UPDATE;

	memset(result, 0, sizeof(*result));
	result->address = address;
	result->gpa = address;
	space->memory->failure[0] = '\0';
	if (!options->gpa && walk_first(space, access, result))
		return -1;
	result->phys = result->gpa;
	if (result->outcome == WALK_OK && space->has_second && walk_second(space, access, result))
		return -1;
	if (result->outcome == WALK_OK)
		result->range = walk_memory_find(space->memory, result->phys);
	return 0;
}

/* --- in words ----------------------------------------------------------------------------- */

const char *walk_access_name(unsigned int access, char *text, size_t len)
{
	const char *who = access & MV_ACCESS_USER ? "user " : "supervisor ";

	if (access & MV_ACCESS_WRITE)
		snprintf(text, len, "%swrite", who);
	else if (access & MV_ACCESS_FETCH)
		snprintf(text, len, "%sfetch", who);
	else if (access & MV_ACCESS_READ)
		snprintf(text, len, "%sread", who);
	else
		snprintf(text, len, "translation");
	return text;
}

void walk_reason(const struct walk_space *space, const struct walk_result *result,
		 unsigned int access, char *text)
{
	text[0] = '\0';
	switch (result->outcome) {
	case WALK_FAULT:
		decode_fault(&space->paging, &result->guest, result->address, access, text);
		break;
	case WALK_STAGE2_FAULT:
		decode_stage2_fault(&space->second, &result->second, text);
		break;
	case WALK_OUTSIDE:
		snprintf(text, DECODE_REASON_MAX, "a table would be at 0x%llx, where no memory is",
			 (unsigned long long)result->missing);
		break;
	case WALK_READ_FAILED:
		snprintf(text, DECODE_REASON_MAX, "%s", space->memory->failure);
		break;
	case WALK_OK:
		break;
	}
}
