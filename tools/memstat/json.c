/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The JSON output; docs/stats-json.md describes it.
 */
#include "memstat.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "vm/control_wire.h"
#include "vm/stat_names.h"

#define FORMAT_VERSION 1

static int add(struct json_object *object, const char *name, struct json_object *value)
{
	if (value && json_object_object_add(object, name, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

/* @known false becomes null. */
static int add_double(struct json_object *object, const char *name, double value, bool known,
		      const char *format)
{
	char text[64];

	if (!known)
		return wire_add_text(object, name, NULL);
	snprintf(text, sizeof(text), format, value);
	return add(object, name, json_object_new_double_s(value, text));
}

static int add_age(struct json_object *object, const char *name, uint64_t ns)
{
	return add_double(object, name, (double)ns / 1e9, ns != UNKNOWN, "%.3f");
}

static struct json_object *ages(const struct sample *sample)
{
	struct json_object *object = json_object_new_object();

	if (object && !add_age(object, "pager", sample->pager_age_ns) &&
	    !add_age(object, "balloon", sample->balloon_age_ns) &&
	    !add_age(object, "guest", sample->guest_age_ns))
		return object;
	json_object_put(object);
	return NULL;
}

static struct json_object *rates(const struct rates *r)
{
	struct json_object *object = json_object_new_object();

	if (object && !wire_add_u64(object, "faults", r->faults) &&
	    !wire_add_u64(object, "zero_fills", r->zero_fills) &&
	    !wire_add_u64(object, "restores", r->restores) &&
	    !wire_add_u64(object, "evictions", r->evictions) &&
	    !wire_add_u64(object, "discards", r->discards))
		return object;
	json_object_put(object);
	return NULL;
}

/* Nothing holds it: an empty array. Unknown: null, which the caller adds. */
static struct json_object *holds(uint64_t bits)
{
	struct json_object *array = json_object_new_array();

	for (unsigned int bit = 0; array && bit < 64; bit++) {
		if (!(bits >> bit & 1))
			continue;
		struct json_object *name = json_object_new_string(stat_hold_name(bit));

		if (!name || json_object_array_add(array, name)) {
			json_object_put(name);
			json_object_put(array);
			return NULL;
		}
	}
	return array;
}

/* Every number of the segment, as the table of names has them. */
static struct json_object *raw(const struct mv_stats *stats)
{
	struct json_object *object = json_object_new_object();
	int err = object ? 0 : -ENOMEM;

	for (unsigned int i = 0; !err && i < stat_name_count; i++) {
		char name[64];

		snprintf(name, sizeof(name), "%s", stat_names[i].name);
		for (char *c = name; *c; c++)
			*c = *c == '-' ? '_' : *c;
		err = wire_add_u64(object, name, stat_value(stats, &stat_names[i]));
	}
	if (!err)
		return object;
	json_object_put(object);
	return NULL;
}

static int add_identity(struct json_object *object, const struct sample *sample)
{
	return wire_add_text(object, "name", sample->vm.name) ||
	       wire_add_text(object, "state", find_state_name(sample->vm.state)) ||
	       wire_add_u64(object, "pid", sample->vm.stats.pid);
}

static int add_sizes(struct json_object *object, const struct sample *sample)
{
	const struct mv_stats *stats = &sample->vm.stats;

	return wire_add_u64(object, "configured_bytes", stats->configured_bytes) ||
	       wire_add_u64(object, "resident_bytes", stats->resident_bytes) ||
	       wire_add_u64(object, "limit_bytes", stats->limit_bytes) ||
	       wire_add_u64(object, "stored_original_bytes", sample->stored_original_bytes) ||
	       wire_add_u64(object, "stored_compressed_bytes", stats->stored_bytes) ||
	       add_double(object, "stored_ratio", sample->stored_ratio, sample->stored_ratio > 0,
			  "%.3f") ||
	       wire_add_u64(object, "store_memory_bytes", stats->store_memory_bytes) ||
	       wire_add_u64(object, "overhead_bytes", stats->overhead_bytes) ||
	       wire_add_u64(object, "ballooned_bytes", sample->ballooned_bytes) ||
	       wire_add_u64(object, "discarded_bytes", stats->discarded_bytes);
}

static struct json_object *vm_object(const struct sample *sample)
{
	const struct mv_stats *stats = &sample->vm.stats;
	struct json_object *object = json_object_new_object();

	if (object && !add_identity(object, sample) && !add_sizes(object, sample) &&
	    !add(object, "per_s", rates(&sample->rates)) && !add(object, "age_s", ages(sample)) &&
	    !(stats->holds == UNKNOWN ? wire_add_text(object, "holds", NULL)
				      : add(object, "holds", holds(stats->holds))) &&
	    !add(object, "segment", raw(stats)))
		return object;
	json_object_put(object);
	return NULL;
}

static struct json_object *vm_array(const struct sample *samples, unsigned int count)
{
	struct json_object *array = json_object_new_array();

	for (unsigned int i = 0; array && i < count; i++) {
		struct json_object *vm = vm_object(&samples[i]);

		if (!vm || json_object_array_add(array, vm)) {
			json_object_put(vm);
			json_object_put(array);
			return NULL;
		}
	}
	return array;
}

int print_json(const struct sample *samples, unsigned int count, double interval_s)
{
	struct json_object *object = json_object_new_object();
	int err = -ENOMEM;

	if (object && !wire_add_u64(object, "format_version", FORMAT_VERSION) &&
	    !wire_add_u64(object, "time", (uint64_t)time(NULL)) &&
	    !add_double(object, "interval_s", interval_s, true, "%.3f") &&
	    !add(object, "vms", vm_array(samples, count))) {
		puts(json_object_to_json_string_ext(
			object, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_SPACED |
					JSON_C_TO_STRING_NOSLASHESCAPE));
		err = 0;
	}
	json_object_put(object);
	return err;
}
