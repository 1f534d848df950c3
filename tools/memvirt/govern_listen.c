/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Targets from outside; see govern_listen.h.
 */
#include "govern_listen.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "govern.h"
#include "vm/clock.h"
#include "vm/control_wire.h"
#include "vm/listen.h"
#include "vm/say.h"

#define FORMAT_VERSION	1
#define LEASE_MAX_S	86400
#define MESSAGES_A_TURN 16

struct govern_listener {
	int fd;
	char path[RUNDIR_PATH_MAX];
	struct wire *clients[GOVERN_CLIENTS];
};

int govern_listen_open(const char *path, struct govern_listener **listener)
{
	struct govern_listener *made = calloc(1, sizeof(*made));
	int err;

	if (!made)
		return -ENOMEM;
	strcpy(made->path, path);
	err = listen_open(path, GOVERN_CLIENTS, &made->fd);
	if (err) {
		free(made);
		return err;
	}
	*listener = made;
	return 0;
}

void govern_listen_close(struct govern_listener *listener)
{
	if (!listener)
		return;
	for (unsigned int i = 0; i < GOVERN_CLIENTS; i++)
		wire_close(listener->clients[i]);
	unlink(listener->path);
	close(listener->fd);
	free(listener);
}

/* --- query-status ------------------------------------------------------------------------- */

static int add_vm(struct json_object *list, const struct govern_vm *vm, uint64_t now)
{
	struct json_object *object = json_object_new_object();
	const struct mv_policy_vm *policy = &vm->policy;
	bool outside = vm->outside_until_ns > now;

	if (!object || wire_add_text(object, "vm", vm->found.name) ||
	    wire_add_u64(object, "configured-bytes", policy->numbers.configured_bytes) ||
	    wire_add_u64(object, "resident-bytes", policy->numbers.resident_bytes) ||
	    wire_add_u64(object, "limit-bytes", policy->limit_bytes) ||
	    wire_add_u64(object, "balloon-actual-bytes", policy->numbers.balloon_actual_bytes) ||
	    wire_add_u64(object, "balloon-target-bytes", policy->target_bytes) ||
	    wire_add_u64(object, "outside-bytes", outside ? vm->outside_bytes : UINT64_MAX) ||
	    wire_add_u64(object, "lease-s",
			 outside ? (vm->outside_until_ns - now) / CLOCK_S : UINT64_MAX) ||
	    wire_add_text(object, "why", mv_policy_why_text(policy->limit_why)) ||
	    json_object_array_add(list, object)) {
		json_object_put(object);
		return -ENOMEM;
	}
	return 0;
}

static struct json_object *status_vms(const struct governor *governor)
{
	struct json_object *list = json_object_new_array();
	uint64_t now = clock_now();

	for (unsigned int i = 0; list && i < governor->count; i++)
		if (add_vm(list, governor->vms[i], now)) {
			json_object_put(list);
			list = NULL;
		}
	return list;
}

static struct json_object *query_status(struct governor *governor, struct json_object *request,
					struct json_object *arguments)
{
	const struct mv_policy *policy = &governor->policy;
	struct json_object *value = json_object_new_object();
	struct json_object *vms = status_vms(governor);

	if (!value || !vms || wire_add_u64(value, "format-version", FORMAT_VERSION) ||
	    wire_add_u64(value, "budget-bytes", policy->config.budget_bytes) ||
	    wire_add_u64(value, "used-bytes", (uint64_t)policy->used_bytes) ||
	    wire_add_text(value, "rule", mv_policy_rule_name(policy->config.rule)) ||
	    wire_add_text(value, "state", mv_policy_state_name(policy->state)) ||
	    json_object_object_add(value, "vms", vms)) {
		json_object_put(vms);
		json_object_put(value);
		return NULL;
	}
	return wire_new_return(request, value);
}

/* --- set-target --------------------------------------------------------------------------- */

static struct json_object *bad(struct json_object *request, const char *text)
{
	return wire_new_error(request, WIRE_BAD_REQUEST, "%s", text);
}

static struct json_object *set_target(struct governor *governor, struct json_object *request,
				      struct json_object *arguments)
{
	struct json_object *name = NULL;
	uint64_t bytes, lease_s = 0;
	struct govern_vm *vm;
	int err = wire_get_u64(arguments, "bytes", &bytes);

	if (!json_object_object_get_ex(arguments, "vm", &name) ||
	    !json_object_is_type(name, json_type_string))
		return bad(request, "vm: which one? Its name, please");
	if (err && err != -ENODATA)
		return bad(request, "bytes: a number, or null to let the governor decide again");
	if (!err &&
	    (wire_get_u64(arguments, "lease-s", &lease_s) || lease_s < 1 || lease_s > LEASE_MAX_S))
		return bad(request, "lease-s: for how long? From 1 to 86400 seconds");
	vm = govern_find(governor, json_object_get_string(name));
	if (!vm)
		return wire_new_error(request, WIRE_FAILED, "no VM named '%s' is governed here",
				      json_object_get_string(name));
	vm->outside_bytes = err ? MV_POLICY_UNKNOWN : bytes;
	vm->outside_until_ns = err ? 0 : clock_now() + lease_s * CLOCK_S;
	return wire_new_return(request, NULL);
}

/* --- clients ------------------------------------------------------------------------------ */

/** struct listen_command - what may be asked */
struct listen_command {
	const char *name;
	struct json_object *(*answer)(struct governor *governor, struct json_object *request,
				      struct json_object *arguments);
};

static struct json_object *answer(struct governor *governor, struct json_object *request)
{
	static const struct listen_command commands[] = {
		{ "query-status", query_status },
		{ "set-target", set_target },
	};
	struct json_object *arguments;
	const char *name;

	if (wire_parse_request(request, &name, &arguments))
		return bad(request, "this is no request: {\"execute\": NAME}");
	for (unsigned int i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (!strcmp(commands[i].name, name))
			return commands[i].answer(governor, request, arguments);
	return wire_new_error(request, WIRE_COMMAND_NOT_FOUND,
			      "there is query-status and set-target, not '%s'", name);
}

/* Return: whether to hang up. */
static bool reply(struct wire *wire, struct json_object *message)
{
	bool failed = !message || wire_send(wire, message);

	json_object_put(message);
	return failed;
}

/* Return: whether to hang up. */
static bool hear(struct governor *governor, struct wire *wire)
{
	if (wire_flush(wire))
		return true;
	for (int i = 0; i < MESSAGES_A_TURN; i++) {
		struct json_object *message;
		int err = wire_receive(wire, &message);
		bool failed;

		if (err == -EAGAIN)
			return false;
		if (err == -EBADMSG)
			failed = reply(wire, bad(NULL, "one JSON object a line, please"));
		else if (err)
			failed = true;
		else {
			failed = reply(wire, answer(governor, message));
			json_object_put(message);
		}
		if (failed)
			return true;
	}
	return false;
}

/* Return: whether somebody came. */
static bool greet(struct govern_listener *listener)
{
	int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd < 0)
		return false;
	for (unsigned int i = 0; i < GOVERN_CLIENTS; i++) {
		if (listener->clients[i])
			continue;
		if (wire_open(fd, WIRE_LINES, WIRE_MESSAGE_MAX, &listener->clients[i]))
			break;
		return true;
	}
	close(fd);
	return true;
}

unsigned int govern_listen_polls(struct govern_listener *listener, struct pollfd *polls)
{
	unsigned int count = 0;

	if (!listener)
		return 0;
	polls[count++] = (struct pollfd){ listener->fd, POLLIN, 0 };
	for (unsigned int i = 0; i < GOVERN_CLIENTS; i++)
		if (listener->clients[i])
			polls[count++] = (struct pollfd){ wire_fd(listener->clients[i]),
							  wire_events(listener->clients[i]), 0 };
	return count;
}

void govern_listen_serve(struct governor *governor)
{
	struct govern_listener *listener = governor->listener;

	if (!listener)
		return;
	for (unsigned int i = 0; i < GOVERN_CLIENTS && greet(listener); i++)
		;
	for (unsigned int i = 0; i < GOVERN_CLIENTS; i++) {
		if (!listener->clients[i] || !hear(governor, listener->clients[i]))
			continue;
		wire_close(listener->clients[i]);
		listener->clients[i] = NULL;
	}
}
