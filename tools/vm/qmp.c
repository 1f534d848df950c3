/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * QEMU's answers about a balloon; see qmp.h.
 */
#include "vm/qmp.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "vm/control_wire.h"

static const char *member_text(struct json_object *object, const char *name)
{
	struct json_object *member = NULL;

	if (!json_object_is_type(object, json_type_object) ||
	    !json_object_object_get_ex(object, name, &member) ||
	    !json_object_is_type(member, json_type_string))
		return NULL;
	return json_object_get_string(member);
}

/* "child<virtio-balloon-pci>", -ccw, -device and whatever transports there are. */
static int is_balloon(struct json_object *entry)
{
	const char *type = member_text(entry, "type");

	return type && !strncmp(type, "child<virtio-balloon", strlen("child<virtio-balloon"));
}

int qmp_find_balloon(struct json_object *list, const char *parent, char *path)
{
	char text[QMP_PATH_MAX];

	if (!json_object_is_type(list, json_type_array))
		return -EBADMSG;
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *entry = json_object_array_get_idx(list, i);
		const char *name = member_text(entry, "name");

		if (!name || !is_balloon(entry))
			continue;
		int len = snprintf(text, sizeof(text), "%s/%s", parent, name);
		if (len < 0 || len >= (int)sizeof(text))
			return -EBADMSG;
		memcpy(path, text, (size_t)len + 1);
		return 0;
	}
	return -ENOENT;
}

int qmp_parse_memory_size(struct json_object *answer, uint64_t *bytes)
{
	uint64_t base, plugged = 0;

	if (!json_object_is_type(answer, json_type_object) ||
	    wire_get_u64(answer, "base-memory", &base))
		return -EBADMSG;
	if (wire_get_u64(answer, "plugged-memory", &plugged) || plugged > UINT64_MAX / 2 ||
	    base > UINT64_MAX / 2)
		plugged = 0;
	*bytes = base + plugged;
	return 0;
}

int qmp_parse_balloon(struct json_object *answer, uint64_t *actual_bytes)
{
	if (!json_object_is_type(answer, json_type_object) ||
	    wire_get_u64(answer, "actual", actual_bytes))
		return -EBADMSG;
	return 0;
}

/* QEMU gives what a guest does not supply as 2^64-1, or as -1; either is no such number. */
static uint64_t stat_or_unknown(struct json_object *stats, const char *name)
{
	uint64_t value = UINT64_MAX;

	return wire_get_u64(stats, name, &value) ? UINT64_MAX : value;
}

int qmp_parse_guest_stats(struct json_object *answer, struct qmp_guest_stats *stats)
{
	struct json_object *list = NULL;
	uint64_t update_s;

	if (!json_object_is_type(answer, json_type_object) ||
	    wire_get_u64(answer, "last-update", &update_s) ||
	    !json_object_object_get_ex(answer, "stats", &list) ||
	    !json_object_is_type(list, json_type_object))
		return -EBADMSG;
	*stats = (struct qmp_guest_stats){
		.update_s = update_s,
		.total_bytes = stat_or_unknown(list, "stat-total-memory"),
		.free_bytes = stat_or_unknown(list, "stat-free-memory"),
		.available_bytes = stat_or_unknown(list, "stat-available-memory"),
		.disk_cache_bytes = stat_or_unknown(list, "stat-disk-caches"),
		.major_faults = stat_or_unknown(list, "stat-major-faults"),
		.minor_faults = stat_or_unknown(list, "stat-minor-faults"),
		.swap_in_bytes = stat_or_unknown(list, "stat-swap-in"),
		.swap_out_bytes = stat_or_unknown(list, "stat-swap-out"),
		.oom_kills = stat_or_unknown(list, "stat-oom-kills"),
	};
	return 0;
}

/* --- arguments ---------------------------------------------------------------------------- */

struct json_object *qmp_args_list(const char *path)
{
	return qmp_args_get(path, NULL);
}

struct json_object *qmp_args_get(const char *path, const char *property)
{
	struct json_object *args = json_object_new_object();

	if (!args || wire_add_text(args, "path", path) ||
	    (property && wire_add_text(args, "property", property))) {
		json_object_put(args);
		return NULL;
	}
	return args;
}

struct json_object *qmp_args_set(const char *path, const char *property, uint64_t value)
{
	struct json_object *args = qmp_args_get(path, property);

	if (args && wire_add_u64(args, "value", value)) {
		json_object_put(args);
		return NULL;
	}
	return args;
}

struct json_object *qmp_args_balloon(uint64_t bytes)
{
	struct json_object *args = json_object_new_object();

	if (args && wire_add_u64(args, "value", bytes)) {
		json_object_put(args);
		return NULL;
	}
	return args;
}
