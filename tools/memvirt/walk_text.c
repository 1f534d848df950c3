/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What memvirt walk prints for people; see walk.h.
 */
#include <inttypes.h>

#include "memvirt/walk.h"
#include "memvirt/walk_decode.h"
#include "vm/size.h"

static const char *page_size(unsigned int page_lg2)
{
	switch (page_lg2) {
	case 12:
		return "4K";
	case 21:
		return "2M";
	case 22:
		return "4M";
	case 30:
		return "1G";
	default:
		return "?";
	}
}

static void print_bits(FILE *file, const struct decode_bits *bits)
{
	for (unsigned int i = 0; i < bits->count; i++)
		fprintf(file, "%s%s", i ? " " : "", bits->name[i]);
}

/* --- the head ----------------------------------------------------------------------------- */

static void begin(void *ctx)
{
	struct walk_printer *printer = ctx;
	const struct mv_paging *paging = &printer->space->paging;
	const struct mv_paging_registers *r = &paging->registers;

	fprintf(printer->file,
		"%s%sprocessor %u: %s, CR0=0x%" PRIx64 " CR3=0x%" PRIx64 " CR4=0x%" PRIx64
		" EFER=0x%" PRIx64 ", %u physical bits\n",
		printer->vm->name, printer->vm->name[0] ? ", " : "", printer->options->cpu,
		paging->enabled ? decode_mode_name(paging->format) : "paging is off", r->cr0,
		r->cr3, r->cr4, r->efer, paging->cpu.maxphyaddr);
	if (printer->space->has_second)
		fprintf(printer->file, "second stage: %s, root 0x%" PRIx64 "\n",
			decode_mode_name(printer->space->second.format),
			printer->space->second.root);
	if (printer->options->map)
		fprintf(printer->file, "\n");
}

/* --- one address -------------------------------------------------------------------------- */

static void print_step(FILE *file, enum mv_format_id format, const struct mv_rules *rules,
		       const struct mv_walk_step *step, uint64_t address, const char *indent)
{
	unsigned int level = step->level;
	struct decode_bits bits;

	fprintf(file, "%s%-5s [%3u] at 0x%010" PRIx64 "  0x%016" PRIx64 "  ", indent,
		decode_level_name(format, level), decode_index(format, level, address), step->gpa,
		step->entry);
	if (!decode_is_present(rules, step->entry)) {
		fprintf(file, "not present\n");
		return;
	}
	decode_entry(format, rules, level, step->entry, &bits);
	if (decode_is_leaf(rules, level, step->entry))
		fprintf(file, "%s page at ", page_size(decode_shift(format, level)));
	else
		fprintf(file, "table at ");
	fprintf(file, "0x%" PRIx64 ": ", decode_target(format, rules, level, step->entry));
	print_bits(file, &bits);
	fprintf(file, "\n");
}

static void print_second(const struct walk_printer *printer, const struct mv_stage2_walk *walk,
			 const char *indent)
{
	const struct mv_stage2 *second = &printer->space->second;

	for (unsigned int i = 0; i < walk->steps; i++)
		print_step(printer->file, second->format, &second->rules, &walk->step[i], walk->gpa,
			   indent);
}

static bool shows_second(const struct walk_printer *printer)
{
	return printer->space->has_second && printer->options->stage2;
}

static void print_steps(const struct walk_printer *printer, const struct walk_result *result)
{
	const struct mv_paging *paging = &printer->space->paging;

	for (unsigned int i = 0; i < result->guest.steps; i++) {
		if (shows_second(printer))
			print_second(printer, &result->tables[i], "    ");
		print_step(printer->file, paging->format, &paging->rules, &result->guest.step[i],
			   result->address, "  ");
	}
	if (shows_second(printer) && result->has_second)
		print_second(printer, &result->second, "    ");
}

static void print_rights(FILE *file, uint32_t attr)
{
	fprintf(file, "%c%c%c%c%c", attr & MV_ATTR_READ ? 'r' : '-',
		attr & MV_ATTR_WRITE ? 'w' : '-', attr & MV_ATTR_EXEC ? 'x' : '-',
		attr & MV_ATTR_USER ? 'u' : '-', attr & MV_ATTR_GLOBAL ? 'g' : '-');
	if (MV_ATTR_TYPE_OF(attr))
		fprintf(file, " pat=%u", MV_ATTR_TYPE_OF(attr));
	if (MV_ATTR_PKEY_OF(attr))
		fprintf(file, " key=%u", MV_ATTR_PKEY_OF(attr));
}

static void print_place(const struct walk_printer *printer, const struct walk_result *result)
{
	const struct walk_range *range = result->range;
	uint64_t into;

	if (!range) {
		fprintf(printer->file, "  no memory there: a device's, or nobody's\n");
		return;
	}
	into = result->phys - range->machine.first_gpa;
	fprintf(printer->file, "  %s '%s' + 0x%" PRIx64, range->machine.rom ? "ROM" : "memory",
		range->machine.block, range->machine.offset + into);
	if (range->hva)
		fprintf(printer->file, ", host-virtual 0x%" PRIx64, range->hva + into);
	if (range->file)
		fprintf(printer->file, ", %s + 0x%" PRIx64, range->file, range->file_offset + into);
	fprintf(printer->file, "\n");
}

static void print_found(const struct walk_printer *printer, const struct walk_result *result)
{
	FILE *file = printer->file;

	if (result->paged) {
		fprintf(file, "  guest-physical 0x%" PRIx64, result->gpa);
		if (result->guest.steps) {
			fprintf(file, ", %s page, ", page_size(result->guest.page_lg2));
			print_rights(file, result->guest.attr);
		}
		fprintf(file, "\n");
	}
	if (result->has_second)
		fprintf(file, "  physical 0x%" PRIx64 " by the second stage, %s page\n",
			result->phys, page_size(result->second.page_lg2));
	if (printer->options->stage2 || printer->options->gpa)
		print_place(printer, result);
}

static void print_codes(FILE *file, const struct walk_result *result)
{
	struct decode_bits bits;

	if (result->outcome == WALK_STAGE2_FAULT) {
		fprintf(file, "%s; ",
			result->second_of_table ? "for a table of stage 1"
						: "for the address itself");
		fprintf(file, "%s 0x%" PRIx64,
			result->second.kind == MV_STAGE2_MISCONFIGURED ? "misconfiguration"
								       : "exit code",
			result->second.code);
	} else if (result->outcome == WALK_FAULT && result->guest.kind == MV_WALK_PAGE_FAULT) {
		fprintf(file, "page fault, error code 0x%x", result->guest.error_code);
		decode_error_code(result->guest.error_code, &bits);
		if (bits.count) {
			fprintf(file, " (");
			print_bits(file, &bits);
			fprintf(file, ")");
		}
	}
}

static void print_failed(const struct walk_printer *printer, const struct walk_result *result)
{
	unsigned int access = printer->options->access;
	char name[32], reason[DECODE_REASON_MAX];

	walk_reason(printer->space, result, access, reason);
	fprintf(printer->file, "  no %s: %s", walk_access_name(access, name, sizeof(name)), reason);
	if (result->outcome == WALK_STAGE2_FAULT ||
	    (result->outcome == WALK_FAULT && result->guest.kind == MV_WALK_PAGE_FAULT))
		fprintf(printer->file, "; ");
	print_codes(printer->file, result);
	fprintf(printer->file, "\n");
}

static void print_result(void *ctx, const struct walk_result *result)
{
	struct walk_printer *printer = ctx;

	fprintf(printer->file, "\n0x%016" PRIx64 "\n", result->address);
	print_steps(printer, result);
	if (result->outcome == WALK_OK)
		print_found(printer, result);
	else
		print_failed(printer, result);
}

/* --- a map -------------------------------------------------------------------------------- */

static void print_leaf(const struct walk_printer *printer, const struct walk_stretch *leaf)
{
	const struct mv_paging *paging = &printer->space->paging;
	struct decode_bits bits;

	fprintf(printer->file, "  ");
	decode_entry(paging->format, &paging->rules, leaf->level, leaf->entry, &bits);
	print_bits(printer->file, &bits);
}

static void print_stretch(void *ctx, const struct walk_stretch *stretch)
{
	struct walk_printer *printer = ctx;
	FILE *file = printer->file;
	char size[SIZE_TEXT];

	fprintf(file, "%016" PRIx64 "-%016" PRIx64 " %9s  %s  ", stretch->first, stretch->last,
		size_format(stretch->last - stretch->first + 1, size),
		page_size(stretch->page_lg2));
	print_rights(file, stretch->attr);
	if (stretch->contiguous)
		fprintf(file, "  0x%" PRIx64, stretch->phys);
	else
		fprintf(file, "  scattered");
	if (printer->options->leaves)
		print_leaf(printer, stretch);
	fprintf(file, "\n");
}

static void end(void *ctx, bool cut)
{
}

const struct walk_output walk_text = {
	.begin = begin,
	.result = print_result,
	.stretch = print_stretch,
	.end = end,
};
