/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * JSON messages over a non-blocking socket; see control_wire.h.
 *
 * A message is parsed when it is whole: json-c's tokener can take a text in pieces, but then
 * lets wrong numbers through where they are cut (0.16). Where it ends is found by the end of
 * the line or by counting brackets.
 */
#include "vm/control_wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Real messages nest 5 deep; the tokener recurses when it frees. */
#define DEPTH_MAX 32

/* In one wire_receive(), so that an endless stream of blanks cannot hold its caller. */
#define READS_MAX 16

#define BUFFER_FIRST 4096

/**
 * struct wire - one end of a connection
 *
 * @in[] from @in_first to @in_last has been read but not delivered; up to @looked it has been
 * looked at for the end of a message. With WIRE_STREAM @open[] are the brackets that are open
 * there, @depth of them, and @string, @escape whether it is inside a text, after a backslash.
 */
struct wire {
	int fd;
	enum wire_framing framing;
	size_t message_max;
	struct json_tokener *tokener;

	char *in;
	size_t in_size;
	size_t in_first;
	size_t in_last;
	size_t looked;
	unsigned int depth;
	bool string;
	bool escape;
	char open[DEPTH_MAX];

	char *out;
	size_t out_first;
	size_t out_last;
};

static int make_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) || fcntl(fd, F_SETFD, FD_CLOEXEC))
		return -errno;
	return 0;
}

int wire_open(int fd, enum wire_framing framing, size_t message_max, struct wire **wire)
{
	int err = make_nonblocking(fd);
	if (err)
		return err;

	struct wire *w = calloc(1, sizeof(*w));
	if (!w)
		return -ENOMEM;
	w->tokener = json_tokener_new_ex(DEPTH_MAX);
	if (!w->tokener) {
		free(w);
		return -ENOMEM;
	}
	w->fd = fd;
	w->framing = framing;
	w->message_max = message_max;
	*wire = w;
	return 0;
}

void wire_close(struct wire *wire)
{
	if (!wire)
		return;
	close(wire->fd);
	json_tokener_free(wire->tokener);
	free(wire->in);
	free(wire->out);
	free(wire);
}

int wire_fd(const struct wire *wire)
{
	return wire->fd;
}

short wire_events(const struct wire *wire)
{
	return wire->out_last > wire->out_first ? POLLIN | POLLOUT : POLLIN;
}

/* --- receiving ---------------------------------------------------------------------------- */

/* Room behind what is there: by moving it to the front, then by growing. */
static int make_room(struct wire *wire)
{
	size_t size = wire->in_size ? 2 * wire->in_size : BUFFER_FIRST;
	size_t left = wire->in_last - wire->in_first;
	char *in;

	if (wire->in_first) {
		memmove(wire->in, wire->in + wire->in_first, left);
		wire->looked -= wire->in_first;
		wire->in_first = 0;
		wire->in_last = left;
	}
	if (wire->in_last < wire->in_size)
		return 0;
	in = realloc(wire->in, size);
	if (!in)
		return -ENOMEM;
	wire->in = in;
	wire->in_size = size;
	return 0;
}

static int fill(struct wire *wire)
{
	ssize_t got;
	int err = wire->in_last == wire->in_size ? make_room(wire) : 0;

	if (err)
		return err;
	do {
		got = read(wire->fd, wire->in + wire->in_last, wire->in_size - wire->in_last);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	if (got == 0)
		return -EPIPE;
	wire->in_last += (size_t)got;
	return 0;
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

static void skip_blanks(struct wire *wire)
{
	while (wire->in_first < wire->in_last && is_blank(wire->in[wire->in_first]))
		wire->in_first++;
	if (wire->looked < wire->in_first)
		wire->looked = wire->in_first;
}

/* Look for the end of the line. 1 where it is before @looked, 0 where it is not there yet. */
static int find_line(struct wire *wire)
{
	char *end = memchr(wire->in + wire->looked, '\n', wire->in_last - wire->looked);

	wire->looked = end ? (size_t)(end - wire->in) + 1 : wire->in_last;
	return end ? 1 : 0;
}

/* One character more. 1 at the end of an object, 0 inside, -EBADMSG where it cannot be. */
static int look_at(struct wire *wire, char c)
{
	if (wire->string) {
		wire->string = c != '"' || wire->escape;
		wire->escape = c == '\\' && !wire->escape;
		return 0;
	}
	switch (c) {
	case '"':
		wire->string = wire->depth > 0;
		break;
	case '{':
	case '[':
		if (wire->depth == DEPTH_MAX)
			return -EBADMSG;
		wire->open[wire->depth++] = c;
		break;
	case '}':
	case ']':
		if (!wire->depth || wire->open[wire->depth - 1] != (c == '}' ? '{' : '['))
			return -EBADMSG;
		return --wire->depth == 0;
	}
	return wire->depth ? 0 : -EBADMSG;
}

static int find_object(struct wire *wire)
{
	while (wire->looked < wire->in_last) {
		int result = look_at(wire, wire->in[wire->looked++]);

		if (result)
			return result;
	}
	return 0;
}

static int parse(struct wire *wire, const char *text, size_t len, struct json_object **message)
{
	struct json_object *object;
	size_t end;

	/* The tokener would take a NUL for the end of the text. */
	if (memchr(text, 0, len))
		return -EBADMSG;
	json_tokener_reset(wire->tokener);
	object = json_tokener_parse_ex(wire->tokener, text, (int)len);
	end = json_tokener_get_parse_end(wire->tokener);
	while (end < len && is_blank(text[end]))
		end++;
	if (end < len || !json_object_is_type(object, json_type_object)) {
		json_object_put(object);
		return -EBADMSG;
	}
	*message = object;
	return 0;
}

/* A message from what has been read: as wire_receive(). */
static int take(struct wire *wire, struct json_object **message)
{
	size_t first;
	int found;

	skip_blanks(wire);
	if (wire->looked == wire->in_last)
		return -EAGAIN;
	found = wire->framing == WIRE_LINES ? find_line(wire) : find_object(wire);
	if (found < 0)
		return found;
	if (wire->looked - wire->in_first > wire->message_max)
		return -EMSGSIZE;
	if (!found)
		return -EAGAIN;
	first = wire->in_first;
	wire->in_first = wire->looked;
	return parse(wire, wire->in + first, wire->looked - first, message);
}

int wire_receive(struct wire *wire, struct json_object **message)
{
	for (int reads = 0;; reads++) {
		int err = take(wire, message);

		/* After so much reading what is left is in the socket, where poll() sees it. */
		if (err != -EAGAIN || reads == READS_MAX)
			return err;
		err = fill(wire);
		if (err)
			return err;
	}
}

/* --- sending ------------------------------------------------------------------------------ */

static void compact(struct wire *wire)
{
	size_t left = wire->out_last - wire->out_first;

	if (left && wire->out_first)
		memmove(wire->out, wire->out + wire->out_first, left);
	wire->out_first = 0;
	wire->out_last = left;
}

/* What is queued stays below twice the longest message, so growth needs no cleverness. */
static int queue(struct wire *wire, const char *text, size_t len)
{
	if (len + 1 > wire->message_max)
		return -EMSGSIZE;
	compact(wire);
	if (wire->out_last >= wire->message_max)
		return -ENOBUFS;

	char *out = realloc(wire->out, wire->out_last + len + 1);
	if (!out)
		return -ENOMEM;
	memcpy(out + wire->out_last, text, len);
	out[wire->out_last + len] = '\n';
	wire->out = out;
	wire->out_last += len + 1;
	return 0;
}

int wire_send(struct wire *wire, struct json_object *message)
{
	size_t len;
	const char *text = json_object_to_json_string_length(
		message, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);

	if (!text)
		return -ENOMEM;
	int err = queue(wire, text, len);
	return err ? err : wire_flush(wire);
}

int wire_flush(struct wire *wire)
{
	while (wire->out_first < wire->out_last) {
		ssize_t sent = send(wire->fd, wire->out + wire->out_first,
				    wire->out_last - wire->out_first, MSG_NOSIGNAL);

		if (sent >= 0)
			wire->out_first += (size_t)sent;
		else if (errno == EAGAIN || errno == EWOULDBLOCK)
			return 0;
		else if (errno != EINTR)
			return errno == ECONNRESET ? -EPIPE : -errno;
	}
	return 0;
}

/* --- messages ----------------------------------------------------------------------------- */

int wire_parse_request(struct json_object *message, const char **command,
		       struct json_object **arguments)
{
	struct json_object *name = NULL;
	struct json_object *args = NULL;

	if (!json_object_object_get_ex(message, "execute", &name) ||
	    !json_object_is_type(name, json_type_string))
		return -EINVAL;
	if (json_object_object_get_ex(message, "arguments", &args) &&
	    !json_object_is_type(args, json_type_object))
		return -EINVAL;
	*command = json_object_get_string(name);
	*arguments = args;
	return 0;
}

/* Add a member that is taken over; a NULL that stands for a failed allocation is one here. */
static int add(struct json_object *object, const char *name, struct json_object *value)
{
	if (value && json_object_object_add(object, name, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

static int add_id(struct json_object *message, struct json_object *request)
{
	struct json_object *id = NULL;

	if (!json_object_object_get_ex(request, "id", &id))
		return 0;
	json_object_get(id);
	if (json_object_object_add(message, "id", id) == 0)
		return 0;
	json_object_put(id);
	return -ENOMEM;
}

struct json_object *wire_new_request(const char *command, struct json_object *arguments,
				     uint64_t id)
{
	struct json_object *message = json_object_new_object();

	if (!message || add(message, "execute", json_object_new_string(command)) ||
	    add(message, "id", json_object_new_uint64(id))) {
		json_object_put(arguments);
		goto no_memory;
	}
	if (arguments && add(message, "arguments", arguments))
		goto no_memory;
	return message;

no_memory:
	json_object_put(message);
	return NULL;
}

static struct json_object *new_answer(struct json_object *request, const char *kind,
				      struct json_object *value)
{
	struct json_object *message = json_object_new_object();

	if (!message) {
		json_object_put(value);
		return NULL;
	}
	if (add(message, kind, value) || add_id(message, request)) {
		json_object_put(message);
		return NULL;
	}
	return message;
}

struct json_object *wire_new_return(struct json_object *request, struct json_object *value)
{
	return new_answer(request, "return", value ? value : json_object_new_object());
}

struct json_object *wire_new_error(struct json_object *request, const char *error_class,
				   const char *format, ...)
{
	struct json_object *error = json_object_new_object();
	char desc[512];
	va_list args;

	va_start(args, format);
	vsnprintf(desc, sizeof(desc), format, args);
	va_end(args);
	if (!error || add(error, "class", json_object_new_string(error_class)) ||
	    add(error, "desc", json_object_new_string(desc))) {
		json_object_put(error);
		return NULL;
	}
	return new_answer(request, "error", error);
}

int wire_get_u64(struct json_object *object, const char *name, uint64_t *value)
{
	struct json_object *member = NULL;

	if (!object || !json_object_object_get_ex(object, name, &member))
		return -ENOENT;
	if (!member)
		return -ENODATA;
	/* The signed reading saturates at its top, so it is negative only for what is. */
	if (!json_object_is_type(member, json_type_int) || json_object_get_int64(member) < 0 ||
	    json_object_get_uint64(member) == UINT64_MAX)
		return -EINVAL;
	*value = json_object_get_uint64(member);
	return 0;
}

int wire_add_u64(struct json_object *object, const char *name, uint64_t value)
{
	if (value == UINT64_MAX)
		return wire_add_text(object, name, NULL);
	return add(object, name, json_object_new_uint64(value));
}

int wire_add_text(struct json_object *object, const char *name, const char *text)
{
	if (text)
		return add(object, name, json_object_new_string(text));
	return json_object_object_add(object, name, NULL) ? -ENOMEM : 0;
}
