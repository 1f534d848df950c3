/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What travels over a control socket, and how: JSON objects, one a line, in both
 * directions; the protocol is in docs/control.md. A wire never blocks: both ends use it
 * with poll(). QMP is close enough to share the framing.
 *
 * What does not belong here: what the commands mean, connecting, waiting, threads.
 */
#ifndef VM_CONTROL_WIRE_H
#define VM_CONTROL_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

/* The longest message of the control protocol, either way. */
#define WIRE_MESSAGE_MAX 65536

/**
 * enum wire_framing - where a message ends
 * @WIRE_LINES:  at the end of the line; a bad line is reported, and the next one read
 * @WIRE_STREAM: with its closing brace, over any number of lines (QMP, also -qmp-pretty);
 *               after bad text nothing more can be read
 */
enum wire_framing {
	WIRE_LINES,
	WIRE_STREAM,
};

struct wire;

/**
 * wire_open() - speak over a connected socket
 * @fd:          the socket; the wire's on success, made non-blocking and close-on-exec
 * @framing:     where a message ends
 * @message_max: bytes in the longest message to accept or to queue
 * @wire:        set on success
 *
 * Return: 0; -ENOMEM; -errno of fcntl().
 */
int wire_open(int fd, enum wire_framing framing, size_t message_max, struct wire **wire);

/** wire_close() - close the socket and forget what was queued; takes NULL */
void wire_close(struct wire *wire);

/** wire_fd() - the socket, to poll */
int wire_fd(const struct wire *wire);

/** wire_events() - what to poll for: POLLIN, and POLLOUT while something is queued */
short wire_events(const struct wire *wire);

/**
 * wire_receive() - the next message
 * @wire:    the wire
 * @message: set on success to an object; the caller's, to json_object_put()
 *
 * Call until it gives -EAGAIN before polling again: messages that arrived together are kept
 * in the wire, where poll() does not see them.
 *
 * Return: 0; -EAGAIN: nothing whole is there yet; -EBADMSG: not one JSON object (with
 * WIRE_LINES the next call goes on); -EMSGSIZE: too long, hang up; -EPIPE: the other end has
 * closed; -ENOMEM; -errno of read().
 */
int wire_receive(struct wire *wire, struct json_object **message);

/**
 * wire_send() - queue a message and send what goes without waiting
 * @wire:    the wire
 * @message: stays the caller's
 *
 * Return: 0: sent or queued (see wire_events()); -ENOBUFS where the other end does not read
 * and the queue is full, hang up; -EMSGSIZE; -ENOMEM; as wire_flush().
 */
int wire_send(struct wire *wire, struct json_object *message);

/**
 * wire_flush() - send more of what is queued, without waiting
 * @wire: the wire
 *
 * Return: 0, also where some is left; -EPIPE: the other end has closed; -errno of send().
 */
int wire_flush(struct wire *wire);

/**
 * wire_parse_request() - what a message asks for
 * @message:   a message
 * @command:   set to the name, which lives as long as @message
 * @arguments: set to the arguments or to NULL, as long as @message
 *
 * Return: 0; -EINVAL where it is no request: no "execute" text, or "arguments" that are no
 * object.
 */
int wire_parse_request(struct json_object *message, const char **command,
		       struct json_object **arguments);

/**
 * wire_new_request() - {"execute": @command, "arguments": @arguments, "id": @id}
 * @command:   the name
 * @arguments: taken over; NULL for none
 * @id:        comes back with the answer
 *
 * Return: the message; NULL without memory, @arguments are then released.
 */
struct json_object *wire_new_request(const char *command, struct json_object *arguments,
				     uint64_t id);

/**
 * wire_new_return() - {"return": @value, "id": …}
 * @request: whose id to repeat; NULL for none
 * @value:   taken over; NULL for an empty object
 *
 * Return: the message; NULL without memory, @value is then released.
 */
struct json_object *wire_new_return(struct json_object *request, struct json_object *value);

/* Classes of errors. */
#define WIRE_COMMAND_NOT_FOUND "CommandNotFound"
#define WIRE_BAD_REQUEST       "BadRequest" /* malformed, or an argument that cannot be */
#define WIRE_FAILED	       "Failed"	    /* understood and refused or not possible */

/**
 * wire_new_error() - {"error": {"class": @error_class, "desc": …}, "id": …}
 * @request:     whose id to repeat; NULL for none
 * @error_class: one of the above
 * @format:      a sentence that says what to do, as printf()
 *
 * Return: the message; NULL without memory.
 */
__attribute__((format(printf, 3, 4))) struct json_object *
wire_new_error(struct json_object *request, const char *error_class, const char *format, ...);

/**
 * wire_get_u64() - a number of an object
 * @object: may be NULL: then it has no members
 * @name:   the member
 * @value:  set on success
 *
 * Return: 0; -ENOENT: there is none; -ENODATA: it is null; -EINVAL: it is no integer from
 * 0 to 2^64-2 (the greatest stands for unknown in a statistics segment).
 */
int wire_get_u64(struct json_object *object, const char *name, uint64_t *value);

/**
 * wire_add_u64() - add a number to an object
 * @object: the object
 * @name:   the member
 * @value:  UINT64_MAX becomes null
 *
 * Return: 0; -ENOMEM.
 */
int wire_add_u64(struct json_object *object, const char *name, uint64_t value);

/** wire_add_text() - add a text to an object; NULL becomes null. Return: 0; -ENOMEM. */
int wire_add_text(struct json_object *object, const char *name, const char *text);

#endif /* VM_CONTROL_WIRE_H */
