/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What came of a simulation, as a table or as JSON.
 */
#include <string.h>

#include "sim.h"
#include "vm/control_wire.h"
#include "vm/size.h"

static void print_text(const struct sim_trace *trace, const struct sim_result *results,
		       unsigned int count)
{
	char moved[SIZE_TEXT], most[SIZE_TEXT];

	printf("rule      slowdown  worst VM  restores/s  fairness   moved/s   most used  "
	       "over\n");
	for (unsigned int i = 0; i < count; i++) {
		const struct sim_result *r = &results[i];

		printf("%-8s  %8.2f  %8.2f  %10.0f  %8.3f  %8s  %10s  %4u\n",
		       mv_policy_rule_name(r->rule), r->slowdown, r->worst,
		       r->restores / trace->seconds, r->fairness,
		       size_format((uint64_t)(r->moved / trace->seconds), moved),
		       size_format((uint64_t)r->most_used, most), r->over_budget);
	}
}

static int add_double(struct json_object *object, const char *name, double value)
{
	struct json_object *number = json_object_new_double(value);

	if (!number || json_object_object_add(object, name, number)) {
		json_object_put(number);
		return -1;
	}
	return 0;
}

static int add_vm(struct json_object *list, const struct sim_vm_trace *trace,
		  const struct sim_vm_result *result)
{
	struct json_object *vm = json_object_new_object();

	if (!vm || wire_add_text(vm, "vm", trace->name) || add_double(vm, "speed", result->speed) ||
	    wire_add_u64(vm, "restores", (uint64_t)result->restores) ||
	    wire_add_u64(vm, "moved-bytes", (uint64_t)result->moved) ||
	    json_object_array_add(list, vm)) {
		json_object_put(vm);
		return -1;
	}
	return 0;
}

static struct json_object *new_vms(const struct sim_trace *trace, const struct sim_result *r)
{
	struct json_object *list = json_object_new_array();

	for (unsigned int i = 0; list && i < trace->vms; i++)
		if (add_vm(list, &trace->vm[i], &r->vm[i])) {
			json_object_put(list);
			list = NULL;
		}
	return list;
}

/* One object for each rule, one a line. */
static int print_json(const struct sim_trace *trace, const struct sim_result *r)
{
	struct json_object *line = json_object_new_object();
	struct json_object *vms = new_vms(trace, r);
	int err = !line || !vms || wire_add_u64(line, "format-version", 1) ||
		  wire_add_text(line, "rule", mv_policy_rule_name(r->rule)) ||
		  wire_add_u64(line, "seconds", trace->seconds) ||
		  add_double(line, "slowdown", r->slowdown) ||
		  add_double(line, "worst-slowdown", r->worst) ||
		  wire_add_u64(line, "restores", (uint64_t)r->restores) ||
		  add_double(line, "fairness", r->fairness) ||
		  wire_add_u64(line, "moved-bytes", (uint64_t)r->moved) ||
		  wire_add_u64(line, "most-used-bytes", (uint64_t)r->most_used) ||
		  wire_add_u64(line, "over-budget-steps", r->over_budget) ||
		  json_object_object_add(line, "vms", vms);

	if (err)
		json_object_put(vms);
	else
		puts(json_object_to_json_string_ext(line, JSON_C_TO_STRING_PLAIN));
	json_object_put(line);
	return err ? -1 : 0;
}

int sim_print(const struct sim_trace *trace, const struct sim_result *results, unsigned int count,
	      bool json)
{
	int err = 0;

	if (!json)
		print_text(trace, results, count);
	for (unsigned int i = 0; json && !err && i < count; i++)
		err = print_json(trace, &results[i]);
	return err || fflush(stdout) || ferror(stdout) ? -1 : 0;
}
