/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory from outside; see walk_memory.h. docs/control.md for read-memory.
 */
#include "memvirt/walk_memory.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm/base64.h"
#include "vm/clock.h"
#include "vm/control_wire.h"

/* Pages kept; a guest's tables for 64 GiB of 4 KiB pages are twice as many. */
#define CACHE_PAGES 65536
#define CACHE_FIRST 256
#define FETCH_PAGES 10 /* docs/control.md: 40,960 bytes at once */
#define CONTROL_NS  (10 * CLOCK_S)

void walk_memory_init(struct walk_memory *memory)
{
	*memory = (struct walk_memory){ .pagemap = -1 };
}

/* --- pages that were read ----------------------------------------------------------------- */

static void forget_pages(struct walk_memory *memory)
{
	for (size_t i = 0; i < memory->places; i++)
		free(memory->page[i].bytes);
	free(memory->page);
	memory->page = NULL;
	memory->places = 0;
	memory->pages = 0;
}

/* Fibonacci hashing: page numbers come in rows. */
static size_t place_of(size_t places, uint64_t key)
{
	return (size_t)(key * 0x9e3779b97f4a7c15ULL >> 32) & (places - 1);
}

/* The place of a page, or the free one where it belongs. */
static struct walk_page *look_up(struct walk_page *page, size_t places, uint64_t key)
{
	size_t at = place_of(places, key);

	while (page[at].key && page[at].key != key)
		at = (at + 1) & (places - 1);
	return &page[at];
}

/* At least half of the places stay free. */
static int make_room(struct walk_memory *memory)
{
	size_t places = memory->places ? 2 * memory->places : CACHE_FIRST;
	struct walk_page *page;

	if (memory->pages >= CACHE_PAGES)
		forget_pages(memory), places = CACHE_FIRST;
	else if (2 * (memory->pages + 1) <= memory->places)
		return 0;
	page = calloc(places, sizeof(*page));
	if (!page)
		return -ENOMEM;
	for (size_t i = 0; i < memory->places; i++)
		if (memory->page[i].key)
			*look_up(page, places, memory->page[i].key) = memory->page[i];
	free(memory->page);
	memory->page = page;
	memory->places = places;
	return 0;
}

static const unsigned char *cached(const struct walk_memory *memory, uint64_t gpa)
{
	return memory->places ? look_up(memory->page, memory->places, gpa / WALK_PAGE + 1)->bytes
			      : NULL;
}

/* @bytes are taken over. */
static int keep(struct walk_memory *memory, uint64_t gpa, unsigned char *bytes)
{
	struct walk_page *place;

	if (make_room(memory)) {
		free(bytes);
		return -ENOMEM;
	}
	place = look_up(memory->page, memory->places, gpa / WALK_PAGE + 1);
	free(place->bytes);
	memory->pages += !place->key;
	place->key = gpa / WALK_PAGE + 1;
	place->bytes = bytes;
	return 0;
}

/* --- ranges ------------------------------------------------------------------------------- */

const struct walk_range *walk_memory_find(const struct walk_memory *memory, uint64_t gpa)
{
	unsigned int low = 0, high = memory->count;

	while (low < high) {
		unsigned int middle = low + (high - low) / 2;
		const struct walk_range *range = &memory->ranges[middle];

		if (gpa < range->machine.first_gpa)
			high = middle;
		else if (gpa > range->machine.last_gpa)
			low = middle + 1;
		else
			return range;
	}
	return NULL;
}

void walk_memory_close(struct walk_memory *memory)
{
	forget_pages(memory);
	for (unsigned int i = 0; i < memory->count; i++) {
		if (memory->ranges[i].fd >= 0)
			close(memory->ranges[i].fd);
		free(memory->ranges[i].file);
	}
	free(memory->ranges);
	if (memory->pagemap >= 0)
		close(memory->pagemap);
	walk_memory_init(memory);
}

/* --- reading a page ----------------------------------------------------------------------- */

__attribute__((format(printf, 2, 3))) static int fail(struct walk_memory *memory,
						      const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(memory->failure, sizeof(memory->failure), format, args);
	va_end(args);
	return -EIO;
}

/* A hole reads as zeros and stays one; so does what lies behind the end of the file. */
static int read_file(struct walk_memory *memory, const struct walk_range *range, uint64_t into,
		     unsigned char *bytes)
{
	size_t done = 0;

	while (done < WALK_PAGE) {
		ssize_t got = pread(range->fd, bytes + done, WALK_PAGE - done,
				    (off_t)(range->file_offset + into + done));

		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return fail(memory, "%s: %s", range->file, strerror(errno));
		if (got == 0)
			break;
		done += (size_t)got;
	}
	memset(bytes + done, 0, WALK_PAGE - done);
	return 0;
}

static int read_process(struct walk_memory *memory, const struct walk_range *range, uint64_t into,
			unsigned char *bytes)
{
	uint64_t hva = range->hva + into;
	bool has;
	int err = process_page_has_content(memory->pagemap, hva, &has);

	if (!err && !has && range->fd >= 0)
		return read_file(memory, range, into, bytes);
	if (!err && !has) {
		memset(bytes, 0, WALK_PAGE);
		return 0;
	}
	if (!err)
		err = process_read(memory->pid, hva, bytes, WALK_PAGE);
	return err ? fail(memory, "memory of process %d: %s", (int)memory->pid, strerror(-err)) : 0;
}

/* --- asking the VM ------------------------------------------------------------------------ */

static int add_pair(struct json_object *list, uint64_t hva)
{
	struct json_object *pair = json_object_new_array();
	struct json_object *address = json_object_new_uint64(hva);
	struct json_object *bytes = json_object_new_int(WALK_PAGE);

	if (pair && address && bytes) {
		json_object_array_add(pair, address);
		json_object_array_add(pair, bytes);
		if (json_object_array_add(list, pair) == 0)
			return 0;
	} else {
		json_object_put(address);
		json_object_put(bytes);
	}
	json_object_put(pair);
	return -ENOMEM;
}

static struct json_object *read_arguments(const uint64_t *hva, size_t count)
{
	struct json_object *arguments = json_object_new_object();
	struct json_object *list = json_object_new_array();

	if (!arguments || !list || json_object_object_add(arguments, "ranges", list)) {
		json_object_put(arguments);
		json_object_put(list);
		return NULL;
	}
	for (size_t i = 0; i < count; i++)
		if (add_pair(list, hva[i])) {
			json_object_put(arguments);
			return NULL;
		}
	return arguments;
}

static int take_text(struct json_object *text, unsigned char *bytes)
{
	if (!json_object_is_type(text, json_type_string))
		return -EBADMSG;
	return base64_decode(json_object_get_string(text), (size_t)json_object_get_string_len(text),
			     bytes, WALK_PAGE);
}

/* @bytes: an array of pages. */
static int ask(struct walk_memory *memory, const uint64_t *hva, size_t count, unsigned char *bytes)
{
	struct json_object *value, *data = NULL;
	int err = rpc_execute(memory->control, "read-memory", read_arguments(hva, count),
			      clock_now() + CONTROL_NS, &value, memory->failure);

	if (err)
		return -EIO;
	json_object_object_get_ex(value, "data", &data);
	if (!json_object_is_type(data, json_type_array) || json_object_array_length(data) != count)
		err = -EBADMSG;
	for (size_t i = 0; i < count && !err; i++)
		err = take_text(json_object_array_get_idx(data, i), bytes + i * WALK_PAGE);
	json_object_put(value);
	return err ? fail(memory, "read-memory: not the answer that was expected") : 0;
}

/* --- any page ----------------------------------------------------------------------------- */

static int read_page(struct walk_memory *memory, uint64_t gpa, unsigned char *bytes)
{
	const struct walk_range *range = walk_memory_find(memory, gpa);
	uint64_t into, hva;

	if (!range || range->machine.last_gpa - gpa < WALK_PAGE - 1)
		return -EFAULT;
	into = gpa - range->machine.first_gpa;
	switch (range->source) {
	case WALK_FILE:
		return read_file(memory, range, into, bytes);
	case WALK_PROCESS:
		return read_process(memory, range, into, bytes);
	case WALK_CONTROL:
		hva = range->hva + into;
		return ask(memory, &hva, 1, bytes);
	case WALK_UNREADABLE:
		break;
	}
	return fail(memory, "the memory block '%s' cannot be read from outside",
		    range->machine.block);
}

int walk_memory_read(struct walk_memory *memory, uint64_t gpa, void *bytes, size_t len)
{
	uint64_t page_gpa = gpa & ~(uint64_t)(WALK_PAGE - 1);
	const unsigned char *page = cached(memory, page_gpa);
	unsigned char *fresh;
	int err;

	if (!page) {
		fresh = malloc(WALK_PAGE);
		if (!fresh)
			return -ENOMEM;
		err = read_page(memory, page_gpa, fresh);
		if (err) {
			free(fresh);
			return err;
		}
		memcpy(bytes, fresh + (gpa - page_gpa), len);
		return keep(memory, page_gpa, fresh);
	}
	memcpy(bytes, page + (gpa - page_gpa), len);
	return 0;
}

/* --- ahead -------------------------------------------------------------------------------- */

static void fetch_batch(struct walk_memory *memory, const uint64_t *gpa, const uint64_t *hva,
			size_t count)
{
	unsigned char bytes[FETCH_PAGES * WALK_PAGE];

	if (!count || ask(memory, hva, count, bytes))
		return;
	for (size_t i = 0; i < count; i++) {
		unsigned char *page = malloc(WALK_PAGE);

		if (!page)
			return;
		memcpy(page, bytes + i * WALK_PAGE, WALK_PAGE);
		keep(memory, gpa[i], page);
	}
}

void walk_memory_fetch(struct walk_memory *memory, const uint64_t *gpa, size_t count)
{
	uint64_t wanted[FETCH_PAGES], hva[FETCH_PAGES];
	size_t n = 0;

	for (size_t i = 0; i < count; i++) {
		const struct walk_range *range = walk_memory_find(memory, gpa[i]);

		if (!range || range->source != WALK_CONTROL || cached(memory, gpa[i]))
			continue;
		wanted[n] = gpa[i];
		hva[n++] = range->hva + (gpa[i] - range->machine.first_gpa);
		if (n == FETCH_PAGES) {
			fetch_batch(memory, wanted, hva, n);
			n = 0;
		}
	}
	fetch_batch(memory, wanted, hva, n);
}
