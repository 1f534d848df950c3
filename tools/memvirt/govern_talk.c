/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The governor's conversations: two connections a VM, each with one task under way at most,
 * all VMs at once.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "govern_tasks.h"
#include "vm/clock.h"
#include "vm/control_wire.h"
#include "vm/say.h"
#include "vm/size.h"

/* After so long a VM that does not answer is worth a message. */
#define SILENCE_NS (5 * CLOCK_S)

/** struct task - one kind of task: what is said, and what becomes of the answer */
struct task {
	const char *command;
	struct json_object *(*arguments)(struct govern_vm *vm);
	void (*done)(struct govern_vm *vm, struct json_object *value);
	/* The other end refused; NULL where that only gets reported. */
	void (*refused)(struct govern_vm *vm, const char *why);
};

/* --- control tasks ------------------------------------------------------------------------ */

static void info_done(struct govern_vm *vm, struct json_object *value)
{
	struct json_object *qmp = NULL;
	struct json_object *balloon = NULL;
	const char *path;

	vm->own_balloon = json_object_is_type(value, json_type_object) &&
			  json_object_object_get_ex(value, "balloon", &balloon) &&
			  json_object_get_boolean(balloon);
	if (vm->qmp.path[0] || !json_object_is_type(value, json_type_object) ||
	    !json_object_object_get_ex(value, "qmp", &qmp) ||
	    !json_object_is_type(qmp, json_type_string))
		return;
	path = json_object_get_string(qmp);
	if (strlen(path) < sizeof(vm->qmp.path))
		strcpy(vm->qmp.path, path);
	else
		say("%s: the path of its QMP socket is too long: %s", vm->found.name, path);
}

static int add_guest_numbers(struct govern_vm *vm, struct json_object *args)
{
	const struct qmp_guest_stats *guest = &vm->guest;

	return wire_add_u64(args, "guest-total-bytes", guest->total_bytes) ||
	       wire_add_u64(args, "guest-free-bytes", guest->free_bytes) ||
	       wire_add_u64(args, "guest-available-bytes", guest->available_bytes) ||
	       wire_add_u64(args, "guest-disk-cache-bytes", guest->disk_cache_bytes) ||
	       wire_add_u64(args, "guest-major-faults", guest->major_faults) ||
	       wire_add_u64(args, "guest-minor-faults", guest->minor_faults) ||
	       wire_add_u64(args, "guest-swap-in-bytes", guest->swap_in_bytes) ||
	       wire_add_u64(args, "guest-swap-out-bytes", guest->swap_out_bytes) ||
	       wire_add_u64(args, "guest-oom-kills", guest->oom_kills);
}

static struct json_object *note_arguments(struct govern_vm *vm)
{
	struct json_object *args = json_object_new_object();
	int err = args ? 0 : -ENOMEM;

	/* The VM stamps them with the time of the call: old numbers must not be told again. */
	if (!err && vm->policy.numbers.balloon_actual_bytes != MV_POLICY_UNKNOWN)
		err = wire_add_u64(args, "balloon-actual-bytes", vm->balloon_actual_bytes) ||
		      wire_add_u64(args, "balloon-target-bytes", vm->policy.target_bytes);
	if (!err && vm->guest_news)
		err = add_guest_numbers(vm, args);
	if (err) {
		json_object_put(args);
		return NULL;
	}
	return args;
}

static void note_done(struct govern_vm *vm, struct json_object *value)
{
	vm->guest_news = false;
}

static struct json_object *limit_arguments(struct govern_vm *vm)
{
	struct json_object *args = json_object_new_object();

	if (args && wire_add_u64(args, "bytes", vm->policy.limit_bytes)) {
		json_object_put(args);
		return NULL;
	}
	vm->limit_asked_bytes = vm->policy.limit_bytes;
	return args;
}

static void limit_done(struct govern_vm *vm, struct json_object *value)
{
	vm->limit_set_bytes = vm->limit_asked_bytes;
	vm->limit_set_ns = clock_now();
}

static struct json_object *set_balloon_arguments(struct govern_vm *vm)
{
	struct json_object *args = json_object_new_object();

	if (args && wire_add_u64(args, "bytes", vm->policy.target_bytes)) {
		json_object_put(args);
		return NULL;
	}
	return args;
}

static void nothing_done(struct govern_vm *vm, struct json_object *value)
{
}

/* --- QMP tasks ---------------------------------------------------------------------------- */

static struct json_object *list_arguments(struct govern_vm *vm)
{
	return qmp_args_list(QMP_PERIPHERAL);
}

static struct json_object *list_anon_arguments(struct govern_vm *vm)
{
	return qmp_args_list(QMP_PERIPHERAL_ANON);
}

static int device_in(struct govern_vm *vm, struct json_object *list, const char *parent)
{
	int err = qmp_find_balloon(list, parent, vm->device);

	if (err)
		return err;
	if (!vm->dry_run)
		task_due(vm, TASK_POLLING);
	task_due(vm, TASK_BALLOON);
	task_due(vm, TASK_STATS);
	return 0;
}

static void list_done(struct govern_vm *vm, struct json_object *value)
{
	if (device_in(vm, value, QMP_PERIPHERAL))
		task_due(vm, TASK_LIST_ANON);
}

static void list_anon_done(struct govern_vm *vm, struct json_object *value)
{
	if (device_in(vm, value, QMP_PERIPHERAL_ANON))
		say("%s: has no balloon device: it %s", vm->found.name,
		    vm->plain ? "cannot be governed" : "is governed by its limit alone");
}

static void size_done(struct govern_vm *vm, struct json_object *value)
{
	uint64_t bytes;

	if (!qmp_parse_memory_size(value, &bytes))
		govern_vm_hear_size(vm, bytes);
}

static struct json_object *polling_arguments(struct govern_vm *vm)
{
	return qmp_args_set(vm->device, "guest-stats-polling-interval", vm->polling_s);
}

static void balloon_done(struct govern_vm *vm, struct json_object *value)
{
	uint64_t actual;

	if (!qmp_parse_balloon(value, &actual))
		govern_vm_hear_balloon(vm, actual);
}

static struct json_object *stats_arguments(struct govern_vm *vm)
{
	return qmp_args_get(vm->device, "guest-stats");
}

static void stats_done(struct govern_vm *vm, struct json_object *value)
{
	struct qmp_guest_stats stats;

	if (!qmp_parse_guest_stats(value, &stats))
		govern_vm_hear_guest(vm, &stats);
}

/* Older QEMUs refuse until the guest has said something: no news, and no complaint. */
static void stats_refused(struct govern_vm *vm, const char *why)
{
}

static struct json_object *target_arguments(struct govern_vm *vm)
{
	return qmp_args_balloon(vm->policy.target_bytes);
}

static void target_refused(struct govern_vm *vm, const char *why)
{
	char size[SIZE_TEXT];

	say("%s: QEMU refuses a balloon target of %s: %s", vm->found.name,
	    size_format(vm->policy.target_bytes, size), why);
	vm->policy.target_bytes = MV_POLICY_UNKNOWN; /* to be decided anew */
}

static const struct task tasks[TASKS] = {
	[TASK_INFO] = { "query-info", NULL, info_done, NULL },
	[TASK_NOTE] = { "note", note_arguments, note_done, NULL },
	[TASK_LIMIT] = { "set-limit", limit_arguments, limit_done, NULL },
	[TASK_SET_BALLOON] = { "set-balloon", set_balloon_arguments, nothing_done, NULL },
	[TASK_LIST] = { "qom-list", list_arguments, list_done, NULL },
	[TASK_LIST_ANON] = { "qom-list", list_anon_arguments, list_anon_done, NULL },
	[TASK_SIZE] = { "query-memory-size-summary", NULL, size_done, NULL },
	[TASK_POLLING] = { "qom-set", polling_arguments, nothing_done, NULL },
	[TASK_BALLOON] = { "query-balloon", NULL, balloon_done, NULL },
	[TASK_STATS] = { "qom-get", stats_arguments, stats_done, stats_refused },
	[TASK_TARGET] = { "balloon", target_arguments, nothing_done, target_refused },
};

/* --- lanes -------------------------------------------------------------------------------- */

static bool is_control(const struct govern_vm *vm, const struct govern_lane *lane)
{
	return lane == &vm->control;
}

/* Once, until the same works again. TASK_NONE stands for the connection. */
static void complain(struct govern_vm *vm, struct govern_lane *lane, enum govern_task task,
		     const char *why)
{
	if (!(lane->complained & (1U << task)))
		say("%s: %s%s%s: %s", vm->found.name,
		    is_control(vm, lane) ? "control socket" : "QMP", task ? ", " : "",
		    task ? tasks[task].command : "", why);
	lane->complained |= 1U << task;
}

static void no_complaint(struct govern_lane *lane, enum govern_task task)
{
	lane->complained &= ~(1U << task);
}

static void hang_up(struct govern_vm *vm, struct govern_lane *lane)
{
	rpc_close(lane->rpc);
	lane->rpc = NULL;
	lane->task = TASK_NONE;
	lane->tried = true;
	/* Another QEMU may answer next time: ask all that was known of this one anew. */
	if (is_control(vm, lane)) {
		task_due(vm, TASK_INFO);
	} else {
		vm->device[0] = '\0';
		vm->due &= (1U << TASK_LIST) - 1;
		task_due(vm, TASK_LIST);
		if (vm->plain)
			task_due(vm, TASK_SIZE);
	}
}

static void connect_lane(struct govern_vm *vm, struct govern_lane *lane)
{
	enum rpc_kind kind = is_control(vm, lane) ? RPC_CONTROL : RPC_QMP;
	char why[RPC_WHY];

	if (rpc_open(kind, lane->path, &lane->rpc, why)) {
		lane->tried = true;
		complain(vm, lane, TASK_NONE, why);
	}
}

static enum govern_task next_task(const struct govern_vm *vm, const struct govern_lane *lane)
{
	enum govern_task first = is_control(vm, lane) ? TASK_INFO : TASK_LIST;
	enum govern_task end = is_control(vm, lane) ? TASK_LIST : TASKS;

	for (enum govern_task task = first; task < end; task++)
		if (task_is_due(vm, task))
			return task;
	return TASK_NONE;
}

static void start_task(struct govern_vm *vm, struct govern_lane *lane)
{
	const struct task *task = &tasks[lane->task];

	lane->started_ns = clock_now();
	task_settled(vm, lane->task);
	rpc_start(lane->rpc, task->command, task->arguments ? task->arguments(vm) : NULL);
}

static void finish_task(struct govern_vm *vm, struct govern_lane *lane)
{
	enum govern_task task = lane->task;
	struct json_object *value = NULL;
	char why[RPC_WHY];
	int err = rpc_finish(lane->rpc, &value, why);

	lane->task = TASK_NONE;
	if (!err || err == -EREMOTEIO)
		no_complaint(lane, TASK_NONE);
	if (!err) {
		no_complaint(lane, task);
		tasks[task].done(vm, value);
		json_object_put(value);
	} else if (err == -EREMOTEIO && tasks[task].refused) {
		tasks[task].refused(vm, why);
	} else if (err == -EREMOTEIO) {
		complain(vm, lane, task, why);
	} else {
		complain(vm, lane, TASK_NONE, why);
		hang_up(vm, lane);
	}
}

static void notice_silence(struct govern_vm *vm, struct govern_lane *lane)
{
	if (clock_now() - lane->started_ns < SILENCE_NS)
		return;
	complain(vm, lane, TASK_NONE,
		 is_control(vm, lane) ? "no answer for some seconds; waiting on"
				      : "no answer for some seconds; waiting on (QEMU serves one "
					"client at a time: is another one connected?)");
}

/* Go on as far as can be without waiting. Returns whether an answer is awaited. */
static bool step(struct govern_vm *vm, struct govern_lane *lane)
{
	for (;;) {
		if (lane->task != TASK_NONE) {
			if (!rpc_answered(lane->rpc)) {
				notice_silence(vm, lane);
				return true;
			}
			finish_task(vm, lane);
			continue;
		}
		if (!lane->path[0] || lane->tried || next_task(vm, lane) == TASK_NONE)
			return false;
		if (!lane->rpc) {
			connect_lane(vm, lane);
			continue;
		}
		lane->task = next_task(vm, lane);
		start_task(vm, lane);
	}
}

/* --- all at once -------------------------------------------------------------------------- */

/* Who was asked before this round began and has not answered is slow, or hangs. */
static bool worth_waiting(const struct govern_lane *lane, uint64_t since)
{
	return lane->task != TASK_NONE && lane->started_ns >= since;
}

/* One step of each lane; the connections under way into @rpcs. Returns whether to wait. */
static bool step_all(struct govern_vm **vms, unsigned int count, struct rpc **rpcs, uint64_t since)
{
	bool wait = false;

	for (unsigned int i = 0; i < count; i++) {
		struct govern_lane *lanes[] = { &vms[i]->control, &vms[i]->qmp };

		for (unsigned int l = 0; l < 2; l++) {
			bool under_way = step(vms[i], lanes[l]);

			rpcs[2 * i + l] = under_way ? lanes[l]->rpc : NULL;
			wait = wait || (under_way && worth_waiting(lanes[l], since));
		}
	}
	return wait;
}

void govern_talk(struct govern_vm **vms, unsigned int count, uint64_t deadline)
{
	struct rpc **rpcs = calloc(2 * (size_t)count + 1, sizeof(*rpcs));
	uint64_t since = clock_now();

	if (!rpcs) {
		say("no memory to talk to the VMs");
		return;
	}
	for (;;) {
		/* What the control socket says may start the QMP lane of the same VM. */
		bool wait = step_all(vms, count, rpcs, since);

		if (!rpc_wait(rpcs, 2 * count, wait ? deadline : 0) || clock_now() >= deadline)
			break;
	}
	step_all(vms, count, rpcs, since);
	free(rpcs);
}
