/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The governor's output; see govern_report.h.
 */
#include "govern_report.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "vm/control_wire.h"
#include "vm/size.h"

/** struct change - one decision; MV_POLICY_UNLIMITED where there is no limit */
struct change {
	const char *vm;
	const char *what;
	uint64_t from;
	uint64_t to;
	enum mv_policy_why why;
	bool dry_run;
};

static const char *size_or_none(uint64_t bytes, char *text)
{
	return bytes == MV_POLICY_UNLIMITED ? "none" : size_format(bytes, text);
}

static void print_text(const struct change *change)
{
	char from[SIZE_TEXT], to[SIZE_TEXT], clock[16];
	time_t now = time(NULL);
	struct tm tm;

	localtime_r(&now, &tm);
	strftime(clock, sizeof(clock), "%H:%M:%S", &tm);
	printf("%s %s: %s %s -> %s%s: %s\n", clock, change->vm, change->what,
	       size_or_none(change->from, from), size_or_none(change->to, to),
	       change->dry_run ? " (dry run)" : "", mv_policy_why_text(change->why));
}

static void print_line(FILE *file, struct json_object *line)
{
	fprintf(file, "%s\n",
		json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN |
							     JSON_C_TO_STRING_NOSLASHESCAPE));
}

static struct json_object *new_line(const char *vm, const char *what)
{
	struct json_object *line = json_object_new_object();

	if (line && (wire_add_u64(line, "format-version", 1) ||
		     wire_add_u64(line, "time", (uint64_t)time(NULL)) ||
		     wire_add_text(line, "vm", vm) || wire_add_text(line, "what", what))) {
		json_object_put(line);
		return NULL;
	}
	return line;
}

static void print_json(FILE *file, const struct change *change)
{
	struct json_object *line = new_line(change->vm, change->what);

	if (line && !wire_add_u64(line, "from-bytes", change->from) &&
	    !wire_add_u64(line, "to-bytes", change->to) &&
	    !wire_add_text(line, "why", mv_policy_why_text(change->why)) &&
	    !json_object_object_add(line, "dry-run", json_object_new_boolean(change->dry_run)))
		print_line(file, line);
	json_object_put(line);
}

static void print_change(const struct govern_output *output, const struct change *change)
{
	if (output->json)
		print_json(stdout, change);
	else
		print_text(change);
	if (output->journal)
		print_json(output->journal, change);
}

static void report_limit(const struct govern_output *output, struct govern_vm *vm)
{
	const struct mv_policy_vm *policy = &vm->policy;
	const struct change change = {
		.vm = vm->found.name,
		.what = "limit",
		.from = policy->numbers.limit_bytes,
		.to = policy->limit_bytes,
		.why = policy->limit_why,
		.dry_run = vm->dry_run,
	};

	/* What could not be set is decided again each time; it is said once. */
	if (change.to == change.from || (vm->limit_shown && change.to == vm->shown_limit_bytes))
		return;
	vm->limit_shown = true;
	vm->shown_limit_bytes = change.to;
	print_change(output, &change);
}

static void report_balloon(const struct govern_output *output, struct govern_vm *vm)
{
	const struct mv_policy_vm *policy = &vm->policy;
	const struct change change = {
		.vm = vm->found.name,
		.what = "balloon",
		.from = policy->numbers.balloon_actual_bytes,
		.to = policy->balloon_bytes,
		.why = policy->balloon_why,
		.dry_run = vm->dry_run,
	};

	if (change.to == MV_POLICY_UNKNOWN || change.to == vm->shown_balloon_bytes)
		return;
	vm->shown_balloon_bytes = change.to;
	print_change(output, &change);
}

int govern_report(struct govern_output *output, struct govern_vm *vm)
{
	int err;

	report_limit(output, vm);
	report_balloon(output, vm);
	err = fflush(stdout) || ferror(stdout);
	if (output->journal)
		err = fflush(output->journal) || ferror(output->journal) || err;
	return err ? -1 : 0;
}

/* --- the journal -------------------------------------------------------------------------- */

int govern_journal_open(struct govern_output *output, const char *path)
{
	int fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	FILE *file = fd < 0 ? NULL : fdopen(fd, "a");

	if (!file) {
		int err = -errno;

		if (fd >= 0)
			close(fd);
		return err;
	}
	govern_journal_close(output);
	output->journal = file;
	return 0;
}

void govern_journal_close(struct govern_output *output)
{
	if (output->journal)
		fclose(output->journal);
	output->journal = NULL;
}

void govern_journal_note(struct govern_output *output, const char *vm, const char *what)
{
	struct json_object *line = output->journal ? new_line(vm, what) : NULL;

	if (!line)
		return;
	print_line(output->journal, line);
	fflush(output->journal);
	json_object_put(line);
}
