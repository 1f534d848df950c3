/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The commands of the control socket; docs/control.md is the agreement.
 */
#include "memvirt/preload/server.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <memvirt/pager.h>
#include <memvirt/version.h>

#include "memvirt/preload/preload.h"
#include "vm/control_wire.h"

#define FORMAT_VERSION 1
#define LIMIT_MIN      (1UL << 20)

/* --- query-info ------------------------------------------------------------------------- */

static int add_region(struct json_object *list, const struct region *region)
{
	struct json_object *object = json_object_new_object();
	int error;

	if (!object)
		return -ENOMEM;
	error = wire_add_u64(object, "first-gpa", region->slot_gpa);
	error = error ? error : wire_add_u64(object, "first-hva", region->backing.first);
	error = error ? error
		      : wire_add_u64(object, "bytes",
				     region->backing.last - region->backing.first + 1);
	error = error ? error
		      : wire_add_text(object, "backing", backing_kind_name(region->backing.kind));
	if (!error &&
	    json_object_object_add(object, "managed", json_object_new_boolean(region->managed)))
		error = -ENOMEM;
	error = error ? error
		      : wire_add_text(object, "reason", region->managed ? NULL : region->reason);
	if (!error && json_object_array_add(list, object))
		error = -ENOMEM;
	if (error)
		json_object_put(object);
	return error;
}

static struct json_object *list_regions(void)
{
	struct region *regions = malloc(RANGES_MAX * sizeof(*regions));
	struct json_object *list = json_object_new_array();
	unsigned int count = regions ? ram_list(regions) : 0;

	for (unsigned int i = 0; i < count && list; i++)
		if (add_region(list, &regions[i])) {
			json_object_put(list);
			list = NULL;
		}
	free(regions);
	return list;
}

static int add_line(struct json_object *list, const char *text)
{
	struct json_object *line = json_object_new_string(text);

	if (!line || json_object_array_add(list, line)) {
		json_object_put(line);
		return -ENOMEM;
	}
	return 0;
}

/* What the pager holds for a reason of its own has no text of ours. */
static const char *hold_word(unsigned int bit)
{
	static const char *const words[HOLD_REASONS] = {
		"the VMM wants its memory resident",
		"a device or the kernel reaches guest memory directly",
		"another process maps guest memory",
		"another userfaultfd has guest memory",
		"the kernel lacks what safe eviction needs",
	};

	return words[bit];
}

static struct json_object *list_holds(unsigned int holds)
{
	struct json_object *list = json_object_new_array();
	char text[HOLD_TEXT_MAX];

	for (unsigned int bit = 0; bit < HOLD_REASONS && list; bit++) {
		if (!(holds >> bit & 1))
			continue;
		engine_hold_text(bit, text);
		if (add_line(list, text[0] ? text : hold_word(bit))) {
			json_object_put(list);
			list = NULL;
		}
	}
	return list;
}

static struct json_object *list_messages(void)
{
	char lines[MESSAGES_MAX][MESSAGE_BYTES];
	struct json_object *list = json_object_new_array();
	unsigned int count, first;

	pthread_mutex_lock(&preload.message_lock);
	memcpy(lines, preload.messages, sizeof(lines));
	count = preload.message_count;
	pthread_mutex_unlock(&preload.message_lock);
	first = count > MESSAGES_MAX ? count - MESSAGES_MAX : 0;
	for (unsigned int i = first; i < count && list; i++)
		if (add_line(list, lines[i % MESSAGES_MAX])) {
			json_object_put(list);
			list = NULL;
		}
	return list;
}

/* Takes @value over. */
static int add(struct json_object *object, const char *name, struct json_object *value)
{
	if (value && json_object_object_add(object, name, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

static int add_identity(struct json_object *object)
{
	int error = wire_add_u64(object, "format-version", FORMAT_VERSION);

	error = error ? error : wire_add_text(object, "name", preload.settings.name);
	error = error ? error : wire_add_u64(object, "pid", (uint64_t)preload.pid);
	error = error ? error : wire_add_text(object, "version", mv_version());
	error = error ? error : wire_add_u64(object, "configured-bytes", ram_bytes());
	return error ? error
		     : wire_add_text(object, "qmp",
				     preload.settings.qmp[0] ? preload.settings.qmp : NULL);
}

static int add_state(struct json_object *object)
{
	struct mv_pager *pager = engine_pager(&preload.engine);
	struct mv_pager_stats stats = { .limit_bytes = MV_PAGER_UNLIMITED };
	int error;

	if (pager)
		mv_pager_get_stats(pager, &stats);
	/* No limit and unknown are the same number, and null. */
	error = wire_add_u64(object, "limit-bytes", stats.limit_bytes);
	error = error ? error : add(object, "regions", list_regions());
	error = error ? error : add(object, "holds", list_holds(stats.holds));
	error = error ? error : add(object, "messages", list_messages());
	return error ? error
		     : add(object, "memory-locked", json_object_new_boolean(stats.memory_locked));
}

static struct json_object *query_info(struct server *server)
{
	struct json_object *object = json_object_new_object();

	if (object && (add_identity(object) || add_state(object))) {
		json_object_put(object);
		object = NULL;
	}
	return object;
}

/* --- the others --------------------------------------------------------------------------- */

static struct json_object *give(struct server *server, struct json_object *message,
				unsigned int place, const struct job *wanted, bool *job)
{
	*job = worker_give(server, place, wanted);
	if (*job)
		return NULL;
	free(wanted->read);
	return wire_new_error(message, WIRE_FAILED,
			      "a command of a connection that has gone is still under way: try "
			      "again");
}

static struct json_object *set_limit(struct server *server, struct json_object *message,
				     struct json_object *arguments, unsigned int place, bool *job)
{
	uint64_t bytes;
	int error = wire_get_u64(arguments, "bytes", &bytes);

	if (error == -ENODATA)
		bytes = MV_PAGER_UNLIMITED;
	else if (error || bytes < LIMIT_MIN)
		return wire_new_error(
			message, WIRE_BAD_REQUEST,
			"set-limit takes \"bytes\": a number of at least %lu, or null "
			"for no limit",
			LIMIT_MIN);
	return give(server, message, place, &(struct job){ .kind = JOB_SET_LIMIT, .bytes = bytes },
		    job);
}

static struct json_object *read_memory(struct server *server, struct json_object *message,
				       struct json_object *arguments, unsigned int place, bool *job)
{
	struct job wanted = { .kind = JOB_READ_MEMORY };
	const char *wrong;
	int error = command_read_parse(arguments, &wanted.read, &wrong);

	if (error == -EINVAL)
		return wire_new_error(message, WIRE_BAD_REQUEST, "read-memory %s", wrong);
	if (error)
		return NULL;
	return give(server, message, place, &wanted, job);
}

static struct json_object *note(struct server *server, struct json_object *message,
				struct json_object *arguments)
{
	const char *wrong = NULL;

	if (arguments && publish_note(server, arguments, &wrong))
		return wire_new_error(message, WIRE_BAD_REQUEST,
				      "note: \"%.64s\" is to be a number of at least 0, or null",
				      wrong);
	return wire_new_return(message, NULL);
}

static struct json_object *answer(struct json_object *message, struct json_object *value)
{
	return value ? wire_new_return(message, value) : NULL;
}

struct json_object *command_answer(struct server *server, struct json_object *message,
				   unsigned int place, bool *job)
{
	struct json_object *arguments;
	const char *command;

	*job = false;
	if (wire_parse_request(message, &command, &arguments))
		return wire_new_error(message, WIRE_BAD_REQUEST,
				      "a request is {\"execute\": NAME, \"arguments\": {…}}");
	if (strcmp(command, "set-limit") == 0)
		return set_limit(server, message, arguments, place, job);
	if (strcmp(command, "note") == 0)
		return note(server, message, arguments);
	if (strcmp(command, "stop") == 0)
		return give(server, message, place, &(struct job){ .kind = JOB_STOP }, job);
	if (strcmp(command, "read-memory") == 0)
		return read_memory(server, message, arguments, place, job);
	if (strcmp(command, "query-info") == 0)
		return answer(message, query_info(server));
	if (strcmp(command, "query-stats") == 0)
		return answer(message, publish_query(server));
	return wire_new_error(message, WIRE_COMMAND_NOT_FOUND, "there is no command \"%.64s\"",
			      command);
}

struct json_object *command_job_answer(struct json_object *request, const struct job *job)
{
	if (job->error)
		return wire_new_error(request, WIRE_FAILED, "%s", job->text);
	if (job->kind == JOB_READ_MEMORY)
		return answer(request, command_read_result(job->read));
	return wire_new_return(request, NULL);
}
