/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading QEMU's command line; see run_qemu.h.
 *
 * QEMU takes -option and --option alike. A value is a list of key=value; the first may come
 * without its key; a comma in a value is written twice.
 */
#include "run_qemu.h"

#include <string.h>

/* Whether an argument is this option. */
static bool is_option(const char *arg, const char *option)
{
	if (arg[0] != '-')
		return false;
	return !strcmp(arg + (arg[1] == '-' ? 2 : 1), option);
}

/* The value of an option's next use from *at on, or NULL; *at moves behind it. */
static const char *next_value(char *const **at, const char *option)
{
	for (; **at; ++*at) {
		if (!is_option(**at, option) || !(*at)[1])
			continue;
		*at += 2;
		return (*at)[-1];
	}
	return NULL;
}

/* Where the item of a list ends: at a single comma or the end. */
static const char *item_end(const char *item)
{
	for (; *item; item++) {
		if (*item != ',')
			continue;
		if (item[1] != ',')
			break;
		item++;
	}
	return item;
}

/* Copy an item, double commas as one. What does not fit is cut off and false returned. */
static bool copy_item(const char *item, char *text, size_t size)
{
	const char *end = item_end(item);
	size_t used = 0;

	for (; item < end; item++) {
		if (used + 1 >= size)
			break;
		text[used++] = *item;
		if (*item == ',')
			item++;
	}
	text[used] = '\0';
	return item >= end;
}

/*
 * The value of a key in a list; NULL for none. @implied is the key of a first item that has
 * none.
 */
static const char *find_key(const char *list, const char *key, const char *implied)
{
	size_t len = strlen(key);
	bool first = true;

	for (const char *item = list; *item; first = false) {
		const char *end = item_end(item);
		const char *equals = memchr(item, '=', (size_t)(end - item));

		if (equals && (size_t)(equals - item) == len && !memcmp(item, key, len))
			return equals + 1;
		if (!equals && first && !strcmp(key, implied))
			return item;
		item = *end ? end + 1 : end;
	}
	return NULL;
}

/* Whether a key has this value. */
static bool key_is(const char *list, const char *key, const char *implied, const char *value)
{
	const char *found = find_key(list, key, implied);
	size_t len = strlen(value);

	return found && (size_t)(item_end(found) - found) == len && !memcmp(found, value, len);
}

bool run_qemu_name(char *const *args, char *name, size_t size)
{
	const char *value = next_value(&args, "name");
	const char *guest = value ? find_key(value, "guest", "guest") : NULL;

	if (!guest || item_end(guest) == guest)
		return false;
	copy_item(guest, name, size);
	return true;
}

/* Copy a path, whole or not at all. */
static bool take_path(const char *item, char *path, size_t size)
{
	char text[4096];

	if (item_end(item) == item || !copy_item(item, text, sizeof(text)) || strlen(text) >= size)
		return false;
	strcpy(path, text);
	return true;
}

static bool qmp_of_option(char *const *args, const char *option, char *path, size_t size)
{
	const char *value;

	while ((value = next_value(&args, option)))
		if (!strncmp(value, "unix:", 5) && take_path(value + 5, path, size))
			return true;
	return false;
}

/* The path of the socket of a character device. */
static bool path_of_chardev(char *const *args, const char *id, char *path, size_t size)
{
	const char *value;

	while ((value = next_value(&args, "chardev"))) {
		const char *found = find_key(value, "path", "backend");

		if (found && key_is(value, "backend", "backend", "socket") &&
		    key_is(value, "id", "backend", id))
			return take_path(found, path, size);
	}
	return false;
}

static bool qmp_of_monitor(char *const *args, char *path, size_t size)
{
	char *const *at = args;
	const char *value;
	char id[256];

	while ((value = next_value(&at, "mon"))) {
		const char *chardev = find_key(value, "chardev", "chardev");

		if (chardev && key_is(value, "mode", "chardev", "control") &&
		    copy_item(chardev, id, sizeof(id)) && path_of_chardev(args, id, path, size))
			return true;
	}
	return false;
}

bool run_qemu_qmp(char *const *args, char *path, size_t size)
{
	return qmp_of_option(args, "qmp", path, size) ||
	       qmp_of_option(args, "qmp-pretty", path, size) || qmp_of_monitor(args, path, size);
}

static bool asks_for_help(const char *value)
{
	return !strcmp(value, "help") || !strcmp(value, "?") || strstr(value, ",help");
}

bool run_qemu_is_probe(char *const *args)
{
	static const char *const alone[] = { "version", "help", "h" };
	static const char *const listing[] = { "machine", "M", "cpu", "device", "accel" };
	char *const *at;
	const char *value;

	for (at = args; *at; at++)
		for (size_t i = 0; i < sizeof(alone) / sizeof(alone[0]); i++)
			if (is_option(*at, alone[i]))
				return true;
	for (size_t i = 0; i < sizeof(listing) / sizeof(listing[0]); i++)
		for (at = args; (value = next_value(&at, listing[i]));)
			if (asks_for_help(value) ||
			    (i < 2 && key_is(value, "type", "type", "none")))
				return true;
	return false;
}
