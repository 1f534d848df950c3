/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * QEMU's answers about its machine; see machine.h. As QEMU 7.2 to 10.0 print them.
 */
#include "vm/machine.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "vm/control_wire.h"

/* --- registers ---------------------------------------------------------------------------- */

/* "CR0=80050033": the name at the head of a line or after a blank. */
static bool find_number(const char *text, const char *name, int base, uint64_t *value)
{
	size_t len = strlen(name);

	for (const char *at = text; (at = strstr(at, name)); at += len) {
		char *end;
		unsigned long long number;

		if (at > text && !isspace((unsigned char)at[-1]))
			continue;
		if (!isxdigit((unsigned char)at[len]))
			continue;
		errno = 0;
		number = strtoull(at + len, &end, base);
		if (errno || (*end && !isspace((unsigned char)*end)))
			continue;
		*value = number;
		return true;
	}
	return false;
}

int machine_parse_registers(const char *text, struct machine_registers *registers)
{
	struct machine_registers found = { 0 };
	uint64_t cpl, pkru;

	if (!find_number(text, "CR0=", 16, &found.cr0) ||
	    !find_number(text, "CR3=", 16, &found.cr3) ||
	    !find_number(text, "CR4=", 16, &found.cr4) || !find_number(text, "CPL=", 10, &cpl))
		return -EBADMSG;
	if (!find_number(text, "RFL=", 16, &found.rflags) &&
	    !find_number(text, "EFL=", 16, &found.rflags))
		return -EBADMSG;
	/* A processor without long mode and NX has none. */
	find_number(text, "EFER=", 16, &found.efer);
	found.cpl = (unsigned int)cpl;
	found.pkru_known = find_number(text, "PKRU=", 16, &pkru);
	found.pkru = found.pkru_known ? (uint32_t)pkru : 0;
	*registers = found;
	return 0;
}

/* --- memory ------------------------------------------------------------------------------- */

/* The lines of the flat view that the address space "memory" has; NULL where there is none. */
static const char *find_view(const char *text)
{
	static const char head[] = "FlatView #";
	const char *mark = strstr(text, " AS \"memory\", root: ");
	const char *view = NULL;

	for (const char *at = text; mark && (at = strstr(at, head)) && at < mark; at++)
		view = at;
	return view;
}

/* Behind the kind: "m0 @00000000000c3000 KVM". */
static void parse_block(const char *text, size_t len, struct machine_range *range)
{
	static const char kvm[] = " KVM";
	const char *at;

	if (len >= strlen(kvm) && !memcmp(text + len - strlen(kvm), kvm, strlen(kvm)))
		len -= strlen(kvm);
	range->offset = 0;
	at = memrchr(text, ' ', len);
	if (at && at[1] == '@' && len - (size_t)(at - text) == 18) {
		range->offset = strtoull(at + 2, NULL, 16);
		len = (size_t)(at - text);
	}
	if (len >= sizeof(range->block))
		len = sizeof(range->block) - 1;
	memcpy(range->block, text, len);
	range->block[len] = '\0';
}

/* Whether a line is a range with memory behind it. "ramd" is a device's, like VFIO's. */
static bool parse_range(const char *line, size_t len, struct machine_range *range)
{
	unsigned long long first, last;
	char kind[16] = "";
	const char *name = kind;
	int used = 0;

	if (sscanf(line, "  %16llx-%16llx (prio %*d, %15[^)]): %n", &first, &last, kind, &used) <
		    3 ||
	    !used || (size_t)used > len || last < first)
		return false;
	if (!strncmp(kind, "nv-", 3))
		name += 3;
	if (strcmp(name, "ram") && strcmp(name, "rom") && strcmp(name, "romd"))
		return false;
	range->first_gpa = first;
	range->last_gpa = last;
	range->rom = strcmp(name, "ram") != 0;
	parse_block(line + used, len - (size_t)used, range);
	return true;
}

static int add_range(struct machine_range **ranges, unsigned int *count,
		     const struct machine_range *range)
{
	struct machine_range *more = *ranges;

	/* Grown by doubling: at each power of two. */
	if ((*count & (*count - 1)) == 0) {
		more = realloc(*ranges, (*count ? 2 * *count : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		*ranges = more;
	}
	more[(*count)++] = *range;
	return 0;
}

static int collect_ranges(const char *view, struct machine_range **ranges, unsigned int *count)
{
	const char *line = strchr(view, '\n');

	while (line && *++line) {
		struct machine_range range;
		size_t len = strcspn(line, "\r\n");

		if (!strncmp(line, "FlatView #", 10))
			break;
		if (parse_range(line, len, &range)) {
			/* QEMU prints them in order; a lookup relies on it. */
			if (*count && range.first_gpa <= (*ranges)[*count - 1].last_gpa)
				return -EBADMSG;
			if (add_range(ranges, count, &range))
				return -ENOMEM;
		}
		line = strchr(line + len, '\n');
	}
	return *count ? 0 : -EBADMSG;
}

int machine_parse_memory(const char *text, struct machine_range **ranges, unsigned int *count)
{
	const char *view = find_view(text);
	struct machine_range *list = NULL;
	unsigned int n = 0;
	int err;

	if (!view)
		return -EBADMSG;
	err = collect_ranges(view, &list, &n);
	if (err) {
		free(list);
		return err;
	}
	*ranges = list;
	*count = n;
	return 0;
}

int machine_parse_hva(const char *text, uint64_t *hva)
{
	const char *at = strstr(text, ") is 0x");
	char *end;
	unsigned long long number;

	if (!strncmp(text, "No memory is mapped", 19) || strstr(text, "is not RAM"))
		return -ENOENT;
	if (strncmp(text, "Host virtual address for ", 25) || !at)
		return -EBADMSG;
	errno = 0;
	number = strtoull(at + 5, &end, 16);
	if (errno || (*end && !isspace((unsigned char)*end)))
		return -EBADMSG;
	*hva = number;
	return 0;
}

/* --- processors --------------------------------------------------------------------------- */

static const char *path_if(struct json_object *cpu, unsigned int index)
{
	struct json_object *path = NULL;
	uint64_t number;

	if (!json_object_is_type(cpu, json_type_object) ||
	    wire_get_u64(cpu, "cpu-index", &number) || number != index ||
	    !json_object_object_get_ex(cpu, "qom-path", &path) ||
	    !json_object_is_type(path, json_type_string))
		return NULL;
	return json_object_get_string(path);
}

const char *machine_find_cpu(struct json_object *answer, unsigned int index, unsigned int *count)
{
	const char *found = NULL;

	*count = 0;
	if (!json_object_is_type(answer, json_type_array))
		return NULL;
	*count = (unsigned int)json_object_array_length(answer);
	for (unsigned int i = 0; i < *count && !found; i++)
		found = path_if(json_object_array_get_idx(answer, i), index);
	return found;
}

struct json_object *machine_args_human(const char *line, int cpu)
{
	struct json_object *args = json_object_new_object();

	if (!args || wire_add_text(args, "command-line", line) ||
	    (cpu >= 0 && wire_add_u64(args, "cpu-index", (uint64_t)cpu))) {
		json_object_put(args);
		return NULL;
	}
	return args;
}
