/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What memvirt walk --json prints; docs/walk-json.md describes it. Written as it comes, for a
 * map may have millions of entries. Addresses and entries are texts in hexadecimal: readers
 * that keep numbers as doubles would lose their low bits.
 */
#include "memvirt/walk.h"
#include "memvirt/walk_decode.h"

#define FORMAT_VERSION 1

/* --- pieces ------------------------------------------------------------------------------- */

static void put_name(FILE *file, const char *name)
{
	fputc('"', file);
	fputs(name, file);
	fputs("\":", file);
}

/* Names of VMs and memory blocks, paths: anything may be in them. */
static void put_text(FILE *file, const char *name, const char *text)
{
	struct json_object *string = text ? json_object_new_string(text) : NULL;

	put_name(file, name);
	fputs(string ? json_object_to_json_string_ext(string, JSON_C_TO_STRING_NOSLASHESCAPE)
		     : "null",
	      file);
	json_object_put(string);
}

/* By hand: a map of a hundred thousand leaves is half a million numbers. */
static void put_digits(FILE *file, uint64_t value, unsigned int base)
{
	char text[24], *at = text + sizeof(text) - 1;

	*at = '\0';
	do {
		*--at = "0123456789abcdef"[value % base];
		value /= base;
	} while (value);
	fputs(at, file);
}

static void put_hex(FILE *file, const char *name, uint64_t value)
{
	put_name(file, name);
	fputs("\"0x", file);
	put_digits(file, value, 16);
	fputc('"', file);
}

static void put_number(FILE *file, const char *name, uint64_t value)
{
	put_name(file, name);
	put_digits(file, value, 10);
}

static void put_bool(FILE *file, const char *name, bool value)
{
	put_name(file, name);
	fputs(value ? "true" : "false", file);
}

static void put_null(FILE *file, const char *name)
{
	put_name(file, name);
	fputs("null", file);
}

static void comma(FILE *file)
{
	fputc(',', file);
}

static void put_bits(FILE *file, const char *name, const struct decode_bits *bits)
{
	put_name(file, name);
	fputc('[', file);
	for (unsigned int i = 0; i < bits->count; i++) {
		fputs(i ? ",\"" : "\"", file);
		fputs(bits->name[i], file);
		fputc('"', file);
	}
	fputc(']', file);
}

static void put_rights(FILE *file, uint32_t attr)
{
	put_bool(file, "read", attr & MV_ATTR_READ);
	comma(file);
	put_bool(file, "write", attr & MV_ATTR_WRITE);
	comma(file);
	put_bool(file, "execute", attr & MV_ATTR_EXEC);
	comma(file);
	put_bool(file, "user", attr & MV_ATTR_USER);
	comma(file);
	put_bool(file, "global", attr & MV_ATTR_GLOBAL);
	comma(file);
	put_number(file, "pat", MV_ATTR_TYPE_OF(attr));
	comma(file);
	put_number(file, "key", MV_ATTR_PKEY_OF(attr));
}

/* --- the head ----------------------------------------------------------------------------- */

static void put_registers(FILE *file, const struct walk_printer *printer)
{
	const struct mv_paging_registers *r = &printer->space->paging.registers;
	bool pkru_known =
		printer->vm->registers.pkru_known || (printer->options->given >> WALK_PKRU & 1);

	put_name(file, "registers");
	fputc('{', file);
	put_hex(file, "cr0", r->cr0);
	comma(file);
	put_hex(file, "cr3", r->cr3);
	comma(file);
	put_hex(file, "cr4", r->cr4);
	comma(file);
	put_hex(file, "efer", r->efer);
	comma(file);
	if (pkru_known)
		put_hex(file, "pkru", r->pkru);
	else
		put_null(file, "pkru");
	fputs("},", file);
}

static void put_second_root(FILE *file, const struct walk_space *space)
{
	if (!space->has_second) {
		put_null(file, "second_stage");
		return;
	}
	put_name(file, "second_stage");
	fputc('{', file);
	put_text(file, "paging", decode_mode_name(space->second.format));
	comma(file);
	put_hex(file, "root", space->second.root);
	fputc('}', file);
}

static void begin(void *ctx)
{
	struct walk_printer *printer = ctx;
	const struct mv_paging *paging = &printer->space->paging;
	FILE *file = printer->file;

	fputc('{', file);
	put_number(file, "format_version", FORMAT_VERSION);
	comma(file);
	put_text(file, "vm", printer->vm->name[0] ? printer->vm->name : NULL);
	comma(file);
	put_number(file, "processor", printer->options->cpu);
	comma(file);
	put_text(file, "paging", paging->enabled ? decode_mode_name(paging->format) : NULL);
	comma(file);
	put_number(file, "physical_bits", paging->cpu.maxphyaddr);
	comma(file);
	put_registers(file, printer);
	put_second_root(file, printer->space);
	comma(file);
	put_name(file, printer->options->map ? "mappings" : "walks");
	fputc('[', file);
}

/* --- one address -------------------------------------------------------------------------- */

static void put_stage2(FILE *file, const struct walk_space *space,
		       const struct mv_stage2_walk *walk);

static void put_step(FILE *file, enum mv_format_id format, const struct mv_rules *rules,
		     const struct mv_walk_step *step, uint64_t address)
{
	bool present = decode_is_present(rules, step->entry);
	bool leaf = present && decode_is_leaf(rules, step->level, step->entry);
	struct decode_bits bits;

	decode_entry(format, rules, step->level, step->entry, &bits);
	put_number(file, "level", step->level);
	comma(file);
	put_text(file, "name", decode_level_name(format, step->level));
	comma(file);
	put_number(file, "index", decode_index(format, step->level, address));
	comma(file);
	put_hex(file, "entry_address", step->gpa);
	comma(file);
	put_hex(file, "entry", step->entry);
	comma(file);
	put_bits(file, "bits", &bits);
	comma(file);
	if (present)
		put_hex(file, "points_to", decode_target(format, rules, step->level, step->entry));
	else
		put_null(file, "points_to");
	comma(file);
	if (leaf)
		put_number(file, "page_bytes", 1ULL << decode_shift(format, step->level));
	else
		put_null(file, "page_bytes");
}

static void put_steps(FILE *file, const struct walk_space *space, const struct walk_result *result)
{
	const struct mv_paging *paging = &space->paging;

	put_name(file, "steps");
	fputc('[', file);
	for (unsigned int i = 0; i < result->guest.steps; i++) {
		fputs(i ? ",{" : "{", file);
		put_step(file, paging->format, &paging->rules, &result->guest.step[i],
			 result->address);
		if (space->has_second) {
			comma(file);
			put_name(file, "second_stage");
			put_stage2(file, space, &result->tables[i]);
		}
		fputc('}', file);
	}
	fputc(']', file);
}

static void put_stage2(FILE *file, const struct walk_space *space,
		       const struct mv_stage2_walk *walk)
{
	static const char *const kinds[] = { "ok", "violation", "misconfiguration" };
	const struct mv_stage2 *second = &space->second;

	/* PAE's cached first entry was not read in this walk. */
	if (!walk->steps) {
		fputs("null", file);
		return;
	}
	fputc('{', file);
	put_text(file, "result", kinds[walk->kind]);
	comma(file);
	put_hex(file, "address", walk->gpa);
	comma(file);
	put_name(file, "steps");
	fputc('[', file);
	for (unsigned int i = 0; i < walk->steps; i++) {
		fputs(i ? ",{" : "{", file);
		put_step(file, second->format, &second->rules, &walk->step[i], walk->gpa);
		fputc('}', file);
	}
	fputs("],", file);
	if (walk->kind == MV_STAGE2_OK)
		put_hex(file, "physical", walk->phys);
	else
		put_hex(file, "code", walk->code);
	fputc('}', file);
}

static const char *outcome_name(const struct walk_result *result)
{
	switch (result->outcome) {
	case WALK_OK:
		return "ok";
	case WALK_FAULT:
		return result->guest.kind == MV_WALK_PAGE_FAULT ? "page-fault" : "not-canonical";
	case WALK_STAGE2_FAULT:
		return "second-stage-fault";
	case WALK_OUTSIDE:
		return "table-outside-memory";
	case WALK_READ_FAILED:
		break;
	}
	return "unreadable";
}

static void put_memory(FILE *file, const struct walk_result *result)
{
	const struct walk_range *range = result->range;
	uint64_t into = range ? result->phys - range->machine.first_gpa : 0;

	if (!range) {
		put_null(file, "memory");
		return;
	}
	put_name(file, "memory");
	fputc('{', file);
	put_text(file, "block", range->machine.block);
	comma(file);
	put_hex(file, "offset", range->machine.offset + into);
	comma(file);
	put_bool(file, "rom", range->machine.rom);
	comma(file);
	if (range->hva)
		put_hex(file, "host_address", range->hva + into);
	else
		put_null(file, "host_address");
	comma(file);
	put_text(file, "file", range->file);
	comma(file);
	if (range->file)
		put_hex(file, "file_offset", range->file_offset + into);
	else
		put_null(file, "file_offset");
	fputc('}', file);
}

static void put_found(FILE *file, const struct walk_result *result)
{
	put_hex(file, "gpa", result->gpa);
	comma(file);
	put_hex(file, "physical", result->phys);
	comma(file);
	if (result->paged && result->guest.steps) {
		put_number(file, "page_bytes", 1ULL << result->guest.page_lg2);
		comma(file);
		put_rights(file, result->guest.attr);
		comma(file);
	}
	put_memory(file, result);
}

static void put_failed(FILE *file, const struct walk_printer *printer,
		       const struct walk_result *result)
{
	char reason[DECODE_REASON_MAX];
	struct decode_bits bits;

	walk_reason(printer->space, result, printer->options->access, reason);
	if (result->outcome == WALK_FAULT && result->guest.kind == MV_WALK_PAGE_FAULT) {
		decode_error_code(result->guest.error_code, &bits);
		put_hex(file, "error_code", result->guest.error_code);
		comma(file);
		put_bits(file, "error_bits", &bits);
		comma(file);
		put_number(file, "fault_level", result->guest.level);
		comma(file);
	}
	put_text(file, "reason", reason);
}

static void separate(struct walk_printer *printer)
{
	fputs(printer->printed ? ",\n{" : "\n{", printer->file);
}

static void print_result(void *ctx, const struct walk_result *result)
{
	struct walk_printer *printer = ctx;
	FILE *file = printer->file;

	separate(printer);
	put_hex(file, "address", result->address);
	comma(file);
	put_text(file, "result", outcome_name(result));
	comma(file);
	put_steps(file, printer->space, result);
	comma(file);
	if (result->has_second && !result->second_of_table) {
		put_name(file, "second_stage");
		put_stage2(file, printer->space, &result->second);
		comma(file);
	}
	if (result->outcome == WALK_OK)
		put_found(file, result);
	else
		put_failed(file, printer, result);
	fputc('}', file);
}

/* --- a map -------------------------------------------------------------------------------- */

static void put_leaf(FILE *file, const struct walk_printer *printer,
		     const struct walk_stretch *leaf)
{
	const struct mv_paging *paging = &printer->space->paging;
	struct decode_bits bits;

	decode_entry(paging->format, &paging->rules, leaf->level, leaf->entry, &bits);
	comma(file);
	put_number(file, "level", leaf->level);
	comma(file);
	put_hex(file, "entry", leaf->entry);
	comma(file);
	put_bits(file, "bits", &bits);
}

static void print_stretch(void *ctx, const struct walk_stretch *stretch)
{
	struct walk_printer *printer = ctx;
	FILE *file = printer->file;

	separate(printer);
	put_hex(file, "first", stretch->first);
	comma(file);
	put_hex(file, "last", stretch->last);
	comma(file);
	put_number(file, "page_bytes", 1ULL << stretch->page_lg2);
	comma(file);
	if (stretch->contiguous)
		put_hex(file, "gpa", stretch->phys);
	else
		put_null(file, "gpa");
	comma(file);
	put_rights(file, stretch->attr);
	if (printer->options->leaves)
		put_leaf(file, printer, stretch);
	fputc('}', file);
}

static void end(void *ctx, bool cut)
{
	struct walk_printer *printer = ctx;

	fputs("\n],", printer->file);
	put_bool(printer->file, "complete", !cut);
	fputs("}\n", printer->file);
}

const struct walk_output walk_json = {
	.begin = begin,
	.result = print_result,
	.stretch = print_stretch,
	.end = end,
};
