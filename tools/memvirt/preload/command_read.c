/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * read-memory: its arguments, its work and its answer. docs/control.md is the agreement.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "memvirt/preload/preload.h"
#include "memvirt/preload/ram_read.h"
#include "memvirt/preload/server.h"
#include "vm/base64.h"
#include "vm/control_wire.h"

static bool get_number(struct json_object *pair, size_t index, uint64_t *value)
{
	struct json_object *number = json_object_array_get_idx(pair, index);

	if (!json_object_is_type(number, json_type_int) || json_object_get_int64(number) < 0)
		return false;
	*value = json_object_get_uint64(number);
	return true;
}

static const char *add_range(struct json_object *pair, struct memory_read *read, size_t *total)
{
	uint64_t hva, len;

	if (!json_object_is_type(pair, json_type_array) || json_object_array_length(pair) != 2 ||
	    !get_number(pair, 0, &hva) || !get_number(pair, 1, &len))
		return "takes \"ranges\": an array of pairs of numbers, address and bytes";
	if (len > READ_BYTES_MAX - *total)
		return "reads at most 40960 bytes at once";
	read->range[read->count].hva = hva;
	read->range[read->count].len = (uint32_t)len;
	read->count++;
	*total += len;
	return NULL;
}

static const char *add_ranges(struct json_object *ranges, struct memory_read *read)
{
	size_t count, total = 0;
	const char *wrong = NULL;

	if (!json_object_is_type(ranges, json_type_array))
		return "takes \"ranges\": an array of pairs of numbers, address and bytes";
	count = json_object_array_length(ranges);
	if (count > READ_RANGES_MAX)
		return "takes at most 512 ranges at once";
	for (size_t i = 0; i < count && !wrong; i++)
		wrong = add_range(json_object_array_get_idx(ranges, i), read, &total);
	return wrong;
}

int command_read_parse(struct json_object *arguments, struct memory_read **read, const char **wrong)
{
	struct json_object *ranges = NULL;
	struct memory_read *r = calloc(1, sizeof(*r));
	const char *what;

	if (!r)
		return -ENOMEM;
	json_object_object_get_ex(arguments, "ranges", &ranges);
	what = add_ranges(ranges, r);
	if (what) {
		*wrong = what;
		free(r);
		return -EINVAL;
	}
	*read = r;
	return 0;
}

static const char *why_not(int error)
{
	switch (error) {
	case -EFAULT:
		return "is not all guest memory: see the regions of query-info";
	case -EIO:
		return "has a page that is lost: the store could not give it back";
	}
	return strerror(-error);
}

void command_read_carry_out(struct job *job)
{
	struct memory_read *read = job->read;
	unsigned char *bytes = read->bytes;

	for (unsigned int i = 0; i < read->count; i++) {
		uint64_t hva = read->range[i].hva;
		uint32_t len = read->range[i].len;

		job->error = ram_read(hva, len, bytes);
		if (job->error) {
			snprintf(job->text, sizeof(job->text), "range %u, %u bytes at 0x%llx, %s",
				 i, len, (unsigned long long)hva, why_not(job->error));
			return;
		}
		bytes += len;
	}
}

static int add_text(struct json_object *array, const char *text, size_t len)
{
	struct json_object *string = json_object_new_string_len(text, (int)len);

	if (string && json_object_array_add(array, string) == 0)
		return 0;
	json_object_put(string);
	return -ENOMEM;
}

static struct json_object *texts(const struct memory_read *read, char *text)
{
	struct json_object *array = json_object_new_array();
	const unsigned char *bytes = read->bytes;

	for (unsigned int i = 0; array && i < read->count; i++) {
		uint32_t len = read->range[i].len;

		base64_encode(bytes, len, text);
		bytes += len;
		if (add_text(array, text, BASE64_LENGTH(len))) {
			json_object_put(array);
			array = NULL;
		}
	}
	return array;
}

struct json_object *command_read_result(const struct memory_read *read)
{
	struct json_object *object = json_object_new_object();
	char *text = malloc(BASE64_LENGTH(READ_BYTES_MAX) + 1);
	struct json_object *data = text ? texts(read, text) : NULL;

	free(text);
	if (object && data && json_object_object_add(object, "data", data) == 0)
		return object;
	json_object_put(object);
	json_object_put(data);
	return NULL;
}
