/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The VM that is looked at: found, connected to, asked; see walk.h. QEMU's monitor commands
 * are those of its hmp-commands-info.hx.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memvirt/walk.h"
#include "vm/clock.h"
#include "vm/control_wire.h"
#include "vm/find.h"
#include "vm/say.h"

#define ASK_NS	     (20 * CLOCK_S)
#define PRELOAD_NAME "libmemvirt-preload.so"

/* Where QEMU does not tell: all that an entry can hold. */
#define WIDTH_UNKNOWN 52

/* --- asking ------------------------------------------------------------------------------- */

static int ask(struct rpc *rpc, const char *command, struct json_object *arguments,
	       struct json_object **value)
{
	char why[RPC_WHY];
	int err = rpc_execute(rpc, command, arguments, clock_now() + ASK_NS, value, why);

	if (err)
		say("%s: %s", command, why);
	return err;
}

/* The text of a command of the human monitor; the caller's, to free(). NULL, with a message. */
static char *ask_human(struct walk_vm *vm, const char *line, int cpu)
{
	struct json_object *value = NULL;
	char *text = NULL;

	if (ask(vm->qmp, "human-monitor-command", machine_args_human(line, cpu), &value))
		return NULL;
	if (json_object_is_type(value, json_type_string))
		text = strdup(json_object_get_string(value));
	if (!text)
		say("%s: QEMU gives no text", line);
	json_object_put(value);
	return text;
}

/* A property of an object of QEMU's; NULL where there is none, without a word. */
static struct json_object *property(struct walk_vm *vm, const char *path, const char *name)
{
	struct json_object *arguments = json_object_new_object();
	struct json_object *value = NULL;
	char why[RPC_WHY];

	if (!arguments || wire_add_text(arguments, "path", path) ||
	    wire_add_text(arguments, "property", name)) {
		json_object_put(arguments);
		return NULL;
	}
	if (rpc_execute(vm->qmp, "qom-get", arguments, clock_now() + ASK_NS, &value, why))
		return NULL;
	return value;
}

/* --- the processor ------------------------------------------------------------------------ */

static bool has_feature(struct walk_vm *vm, const char *path, const char *name)
{
	struct json_object *value = property(vm, path, name);
	/* Unknown: yes, for what is there may use it. */
	bool has = !value || json_object_get_boolean(value);

	json_object_put(value);
	return has;
}

static bool is_amd(struct walk_vm *vm, const char *path)
{
	struct json_object *value = property(vm, path, "vendor");
	const char *vendor = value ? json_object_get_string(value) : "";
	bool amd = !strcmp(vendor, "AuthenticAMD") || !strcmp(vendor, "HygonGenuine");

	json_object_put(value);
	return amd;
}

static unsigned int width_of(struct walk_vm *vm, const char *path)
{
	struct json_object *value = property(vm, path, "phys-bits");
	int64_t width = value ? json_object_get_int64(value) : 0;

	json_object_put(value);
	return width >= 32 && width <= WIDTH_UNKNOWN ? (unsigned int)width : WIDTH_UNKNOWN;
}

static void learn_model(struct walk_vm *vm, const char *path)
{
	vm->cpu.maxphyaddr = width_of(vm, path);
	vm->cpu.features = (has_feature(vm, path, "pdpe1gb") ? MV_CPU_1G : 0) |
			   (has_feature(vm, path, "pse36") ? MV_CPU_PSE36 : 0) |
			   (is_amd(vm, path) ? MV_CPU_AMD : 0);
}

static int learn_registers(struct walk_vm *vm, unsigned int cpu)
{
	char *text = ask_human(vm, "info registers", (int)cpu);
	int err = text ? machine_parse_registers(text, &vm->registers) : -1;

	if (text && err)
		say("QEMU's 'info registers' is not that of an x86 machine");
	free(text);
	return err ? -1 : 0;
}

static int learn_cpu(struct walk_vm *vm, unsigned int cpu)
{
	struct json_object *answer = NULL;
	unsigned int count;
	const char *path;

	if (ask(vm->qmp, "query-cpus-fast", NULL, &answer))
		return -1;
	path = machine_find_cpu(answer, cpu, &count);
	if (path)
		learn_model(vm, path);
	else
		say("there is no processor %u: the VM has %u, counted from 0", cpu, count);
	json_object_put(answer);
	return path ? learn_registers(vm, cpu) : -1;
}

/* --- the memory --------------------------------------------------------------------------- */

static int find_hva(struct walk_vm *vm, struct walk_range *range)
{
	char line[64];
	char *text;
	int err;

	snprintf(line, sizeof(line), "gpa2hva 0x%llx",
		 (unsigned long long)range->machine.first_gpa);
	text = ask_human(vm, line, -1);
	if (!text)
		return -1;
	err = machine_parse_hva(text, &range->hva);
	/* What a device has mapped and unmapped meanwhile is no memory any more. */
	if (err == -EBADMSG)
		say("QEMU's answer to '%s' is not understood", line);
	free(text);
	return err == -EBADMSG ? -1 : 0;
}

/* The file that the user named stands behind the block that holds the lowest addresses. */
static int use_named_file(struct walk_vm *vm, const char *path)
{
	const char *block = vm->memory.ranges[0].machine.block;

	for (unsigned int i = 0; i < vm->memory.count; i++) {
		struct walk_range *range = &vm->memory.ranges[i];

		if (strcmp(range->machine.block, block))
			continue;
		range->fd = open(path, O_RDONLY | O_CLOEXEC);
		range->file = strdup(path);
		if (range->fd < 0 || !range->file) {
			say("%s: %s", path, strerror(errno));
			return -1;
		}
		range->file_offset = range->machine.offset;
		range->source = WALK_FILE;
	}
	return 0;
}

/* A file that both ranges and mapping agree on; nothing where it cannot be opened. */
static void use_mapping(struct walk_vm *vm, struct walk_range *range,
			const struct process_mapping *mapping)
{
	if (mapping->inode && process_open_file(vm->pid, mapping, &range->fd) == 0) {
		range->file_offset = mapping->offset + (range->hva - mapping->first);
		range->file = strdup(mapping->path);
	}
	if (mapping->shared)
		range->source = range->fd >= 0 ? WALK_FILE : WALK_UNREADABLE;
	else if (!mapping->inode || range->fd >= 0)
		range->source = vm->memory.pagemap >= 0 ? WALK_PROCESS : WALK_UNREADABLE;
}

static void find_source(struct walk_vm *vm, struct walk_range *range)
{
	struct process_mapping mapping;
	uint64_t bytes = range->machine.last_gpa - range->machine.first_gpa;

	if (range->source != WALK_UNREADABLE || !range->hva || !vm->pid ||
	    process_find_mapping(vm->pid, range->hva, &mapping))
		return;
	/* Within one mapping, or how it goes on is not known. */
	if (mapping.last - range->hva >= bytes)
		use_mapping(vm, range, &mapping);
}

static int learn_ranges(struct walk_vm *vm)
{
	char *text = ask_human(vm, "info mtree -f", -1);
	struct machine_range *ranges;
	unsigned int count;
	int err = text ? machine_parse_memory(text, &ranges, &count) : -1;

	if (text && err)
		say("QEMU's 'info mtree -f' is not understood");
	free(text);
	if (err)
		return -1;
	vm->memory.ranges = calloc(count, sizeof(*vm->memory.ranges));
	if (!vm->memory.ranges) {
		free(ranges);
		say("no memory");
		return -1;
	}
	vm->memory.count = count;
	for (unsigned int i = 0; i < count; i++) {
		vm->memory.ranges[i].machine = ranges[i];
		vm->memory.ranges[i].fd = -1;
	}
	free(ranges);
	return 0;
}

static int learn_memory(struct walk_vm *vm, const struct walk_options *options)
{
	if (learn_ranges(vm))
		return -1;
	for (unsigned int i = 0; i < vm->memory.count; i++)
		if (find_hva(vm, &vm->memory.ranges[i]))
			return -1;
	if (options->ram)
		return use_named_file(vm, options->ram);
	return 0;
}

/* --- memory that is managed --------------------------------------------------------------- */

/* A range may lie in several regions, which are asked for by address all the same. */
static bool region_overlaps(struct json_object *region, const struct walk_range *range)
{
	uint64_t rest = range->machine.last_gpa - range->machine.first_gpa;
	uint64_t first, bytes;

	return !wire_get_u64(region, "first-hva", &first) &&
	       !wire_get_u64(region, "bytes", &bytes) && bytes &&
	       range->hva <= first + (bytes - 1) && range->hva + rest >= first;
}

static bool is_managed(struct json_object *regions, const struct walk_range *range)
{
	if (!range->hva || !json_object_is_type(regions, json_type_array))
		return false;
	for (size_t i = 0; i < json_object_array_length(regions); i++)
		if (region_overlaps(json_object_array_get_idx(regions, i), range))
			return true;
	return false;
}

/* All guest memory that memvirt knows is read through it, whether it evicts there or not. */
static int use_control(struct walk_vm *vm, struct json_object *info)
{
	struct json_object *regions = NULL;
	unsigned int found = 0;

	json_object_object_get_ex(info, "regions", &regions);
	for (unsigned int i = 0; i < vm->memory.count; i++)
		if (is_managed(regions, &vm->memory.ranges[i])) {
			vm->memory.ranges[i].source = WALK_CONTROL;
			found++;
		}
	vm->memory.control = vm->control;
	if (found)
		return 0;
	say("memvirt in the VM does not name the memory that QEMU names: is it an older memvirt, "
	    "or another VM's monitor?");
	return -1;
}

/* --- finding it --------------------------------------------------------------------------- */

static int open_rpc(enum rpc_kind kind, const char *path, struct rpc **rpc)
{
	char why[RPC_WHY];

	if (!rpc_connect(kind, path, clock_now() + ASK_NS, rpc, why))
		return 0;
	say("%s", why);
	return -1;
}

/* The socket that a name stands for: a VM's in the run directory, or the path of one. */
static int socket_of(const struct walk_options *options, char *path)
{
	char dir[RUNDIR_PATH_MAX];
	int err;

	if (strchr(options->vm, '/')) {
		err = rundir_absolute(options->vm, path);
		if (err)
			say("%s: %s", options->vm, strerror(-err));
		return err;
	}
	err = rundir_choose(options->run_dir, dir);
	if (!err)
		err = rundir_path(dir, options->vm, RUNDIR_SOCKET, path);
	if (err == -EINVAL)
		say("'%s' is no name of a VM", options->vm);
	else if (err)
		say("run directory: %s: give it with --run-dir", strerror(-err));
	else if (access(path, F_OK)) {
		say("no VM is called '%s' in %s; see memstat(1)", options->vm, dir);
		err = -ENOENT;
	}
	return err;
}

static int connect_control(struct walk_vm *vm, const char *path, struct json_object **info)
{
	struct json_object *name = NULL;
	uint64_t pid = 0;

	if (open_rpc(RPC_CONTROL, path, &vm->control) || ask(vm->control, "query-info", NULL, info))
		return -1;
	json_object_object_get_ex(*info, "name", &name);
	snprintf(vm->name, sizeof(vm->name), "%s", name ? json_object_get_string(name) : "");
	wire_get_u64(*info, "pid", &pid);
	vm->pid = (pid_t)pid;
	return 0;
}

static int connect_by_name(struct walk_vm *vm, const struct walk_options *options,
			   struct json_object **info)
{
	char path[RUNDIR_PATH_MAX];
	struct json_object *qmp = NULL;

	if (socket_of(options, path) || connect_control(vm, path, info))
		return -1;
	json_object_object_get_ex(*info, "qmp", &qmp);
	if (!qmp) {
		say("memvirt does not know the monitor of '%s': name it with --qmp", vm->name);
		return -1;
	}
	return open_rpc(RPC_QMP, json_object_get_string(qmp), &vm->qmp);
}

/* The control socket of a process that memvirt manages. Return: whether it was found. */
static bool control_of(const struct walk_options *options, pid_t pid, char *path)
{
	char dir[RUNDIR_PATH_MAX];
	struct find_vm *vms = NULL;
	unsigned int count = 0;
	bool found = false;

	if (rundir_choose(options->run_dir, dir) || find_vms(dir, &vms, &count))
		return false;
	for (unsigned int i = 0; i < count && !found; i++)
		if (vms[i].state != FIND_UNREADABLE && vms[i].state != FIND_DEAD &&
		    vms[i].stats.pid == (uint64_t)pid) {
			strcpy(path, vms[i].socket);
			found = true;
		}
	free(vms);
	return found;
}

static int connect_by_qmp(struct walk_vm *vm, const struct walk_options *options,
			  struct json_object **info)
{
	char path[RUNDIR_PATH_MAX];

	if (open_rpc(RPC_QMP, options->qmp, &vm->qmp))
		return -1;
	if (rpc_peer(vm->qmp, &vm->pid)) {
		vm->pid = 0;
		return 0;
	}
	if (control_of(options, vm->pid, path))
		return connect_control(vm, path, info);
	if (!process_maps_file(vm->pid, PRELOAD_NAME))
		return 0;
	/* Its stored pages are holes in the file: what is there must not be taken for content. */
	say("the VM runs under memvirt, and its control socket is not in the run directory: name "
	    "that with --run-dir");
	return -1;
}

/* --- all together ------------------------------------------------------------------------- */

static int learn(struct walk_vm *vm, const struct walk_options *options, struct json_object *info)
{
	if (learn_cpu(vm, options->cpu) || learn_memory(vm, options))
		return -1;
	if (vm->control && use_control(vm, info))
		return -1;
	if (vm->pid && process_open_pagemap(vm->pid, &vm->memory.pagemap))
		vm->memory.pagemap = -1;
	vm->memory.pid = vm->pid;
	for (unsigned int i = 0; i < vm->memory.count; i++)
		find_source(vm, &vm->memory.ranges[i]);
	return 0;
}

int walk_vm_open(const struct walk_options *options, struct walk_vm *vm)
{
	struct walk_vm made = { 0 };
	struct json_object *info = NULL;
	int err;

	walk_memory_init(&made.memory);
	err = options->vm ? connect_by_name(&made, options, &info)
			  : connect_by_qmp(&made, options, &info);
	if (!err)
		err = learn(&made, options, info);
	json_object_put(info);
	if (err) {
		walk_vm_close(&made);
		return -1;
	}
	*vm = made;
	return 0;
}

void walk_vm_close(struct walk_vm *vm)
{
	walk_memory_close(&vm->memory);
	rpc_close(vm->control);
	rpc_close(vm->qmp);
}
