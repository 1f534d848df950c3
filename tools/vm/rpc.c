/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The client of control sockets and QMP; see rpc.h. QMP: QEMU's docs/interop/qmp-spec.
 *
 * A connection goes GREETING → NEGOTIATING → READY (control starts READY) and ends BROKEN.
 * Its one call goes IDLE → STARTED → SENT → ANSWERED; what is sent depends on both. Answers
 * are told apart by id, so an abandoned call's answer is recognised when it comes.
 */
#include "vm/rpc.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "vm/clock.h"
#include "vm/control_wire.h"

/* query-qmp-schema, the longest answer of QEMU 10, has a quarter of a MiB. */
#define QMP_MESSAGE_MAX (4UL << 20)

/* Messages to look at before the deadline is looked at again: events may come in floods. */
#define ADVANCE_MAX 64

/* Between two attempts to connect to a socket whose queue is full. */
#define RETRY_NS (10 * CLOCK_MS)

/* Of qmp_capabilities; calls count from 1. */
#define NEGOTIATION_ID 0

enum rpc_state {
	RPC_GREETING,
	RPC_NEGOTIATING,
	RPC_READY,
	RPC_BROKEN,
};

enum call_state {
	CALL_IDLE,
	CALL_STARTED,
	CALL_SENT,
	CALL_ANSWERED,
};

/**
 * struct rpc - a connection and its one call
 * @id:      of the last call
 * @more:    messages may lie in the wire, where poll() does not see them
 * @request: of a call that is STARTED
 * @value:   of a call that is ANSWERED with success, else NULL
 * @error:   of a call that is ANSWERED, or of a BROKEN connection
 */
struct rpc {
	struct wire *wire;
	enum rpc_kind kind;
	enum rpc_state state;
	enum call_state call;
	uint64_t id;
	bool more;
	struct json_object *request;
	struct json_object *value;
	int error;
	char why[RPC_WHY];
};

__attribute__((format(printf, 2, 3))) static void explain(char *why, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(why, RPC_WHY, format, args);
	va_end(args);
}

/* --- connecting --------------------------------------------------------------------------- */

static int connect_socket(const char *path, int *fd)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int s;

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	s = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (s < 0)
		return -errno;
	/* A unix socket is connected at once or not at all; it is never in progress. */
	if (connect(s, (struct sockaddr *)&addr, sizeof(addr))) {
		int err = -errno;

		close(s);
		return err;
	}
	*fd = s;
	return 0;
}

static int wrap_socket(enum rpc_kind kind, int fd, struct rpc **rpc)
{
	struct rpc *r = calloc(1, sizeof(*r));
	int err;

	if (!r)
		return -ENOMEM;
	if (kind == RPC_QMP)
		err = wire_open(fd, WIRE_STREAM, QMP_MESSAGE_MAX, &r->wire);
	else
		err = wire_open(fd, WIRE_LINES, WIRE_MESSAGE_MAX, &r->wire);
	if (err) {
		free(r);
		return err;
	}
	r->kind = kind;
	r->state = kind == RPC_QMP ? RPC_GREETING : RPC_READY;
	*rpc = r;
	return 0;
}

int rpc_open(enum rpc_kind kind, const char *path, struct rpc **rpc, char *why)
{
	int fd = -1;
	int err = connect_socket(path, &fd);

	if (!err) {
		err = wrap_socket(kind, fd, rpc);
		if (err)
			close(fd);
	}
	if (err == -ECONNREFUSED)
		explain(why, "%s: nobody answers there any more", path);
	else if (err == -EAGAIN)
		explain(why, "%s: takes no connection at the moment", path);
	else if (err)
		explain(why, "%s: %s", path, strerror(-err));
	return err;
}

int rpc_peer(const struct rpc *rpc, pid_t *pid)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(wire_fd(rpc->wire), SOL_SOCKET, SO_PEERCRED, &peer, &len))
		return -errno;
	if (peer.pid <= 0)
		return -ESRCH;
	*pid = peer.pid;
	return 0;
}

void rpc_close(struct rpc *rpc)
{
	if (!rpc)
		return;
	wire_close(rpc->wire);
	json_object_put(rpc->request);
	json_object_put(rpc->value);
	free(rpc);
}

/* --- the conversation --------------------------------------------------------------------- */

static void break_off(struct rpc *rpc, int err)
{
	switch (err) {
	case -EPIPE:
		explain(rpc->why, "the other end closed the connection");
		break;
	case -EBADMSG:
		explain(rpc->why, "the answer is not the JSON that was expected");
		break;
	case -EMSGSIZE:
		explain(rpc->why, "the answer is longer than any should be");
		break;
	case -ENOBUFS:
		explain(rpc->why, "the other end does not read what it is sent");
		break;
	default:
		explain(rpc->why, "%s", strerror(-err));
	}
	rpc->state = RPC_BROKEN;
	rpc->error = err;
	if (rpc->call != CALL_IDLE)
		rpc->call = CALL_ANSWERED;
}

static void send_request(struct rpc *rpc, struct json_object *request)
{
	int err = request ? wire_send(rpc->wire, request) : -ENOMEM;

	json_object_put(request);
	if (err)
		break_off(rpc, err);
}

/* Send the call that waits for the connection to be ready. */
static void send_started(struct rpc *rpc)
{
	struct json_object *request = rpc->request;

	if (rpc->state != RPC_READY || rpc->call != CALL_STARTED)
		return;
	rpc->request = NULL;
	rpc->call = CALL_SENT;
	send_request(rpc, request);
}

static void handle_greeting(struct rpc *rpc, struct json_object *message)
{
	if (!json_object_object_get_ex(message, "QMP", NULL)) {
		break_off(rpc, -EBADMSG);
		explain(rpc->why, "it does not greet as QMP does");
		return;
	}
	rpc->state = RPC_NEGOTIATING;
	send_request(rpc, wire_new_request("qmp_capabilities", NULL, NEGOTIATION_ID));
}

static void take_error(struct rpc *rpc, struct json_object *error)
{
	struct json_object *desc = NULL;

	json_object_object_get_ex(error, "desc", &desc);
	explain(rpc->why, "%s", desc ? json_object_get_string(desc) : "refused without a reason");
	rpc->error = -EREMOTEIO;
}

/*
 * Whether a message answers the request sent last. An error without an id is one about
 * text that could not be read: there was no other text but ours.
 */
static bool is_answer(const struct rpc *rpc, struct json_object *message)
{
	uint64_t id;
	int err = wire_get_u64(message, "id", &id);

	if (err)
		return err == -ENOENT && json_object_object_get_ex(message, "error", NULL);
	return id == (rpc->state == RPC_NEGOTIATING ? NEGOTIATION_ID : rpc->id);
}

static void handle_answer(struct rpc *rpc, struct json_object *message)
{
	struct json_object *value = NULL;
	struct json_object *error = NULL;

	json_object_object_get_ex(message, "return", &value);
	if (json_object_object_get_ex(message, "error", &error))
		take_error(rpc, error);
	else if (!value) {
		break_off(rpc, -EBADMSG);
		return;
	} else
		rpc->error = 0;

	if (rpc->state == RPC_NEGOTIATING) {
		rpc->state = RPC_READY;
		if (error) {
			break_off(rpc, -EBADMSG);
			explain(rpc->why, "it refuses qmp_capabilities");
		}
		return;
	}
	rpc->value = error ? NULL : json_object_get(value);
	rpc->call = CALL_ANSWERED;
}

static void handle_message(struct rpc *rpc, struct json_object *message)
{
	if (rpc->state == RPC_GREETING)
		handle_greeting(rpc, message);
	else if (json_object_object_get_ex(message, "event", NULL))
		return;
	else if (is_answer(rpc, message) &&
		 (rpc->state == RPC_NEGOTIATING || rpc->call == CALL_SENT))
		handle_answer(rpc, message);
	/* Else the answer to a call that was abandoned. */
}

/* Take in what has come and send what can go, without waiting and not for ever. */
static void advance(struct rpc *rpc)
{
	rpc->more = false;
	for (int i = 0; i < ADVANCE_MAX && rpc->state != RPC_BROKEN; i++) {
		struct json_object *message;
		int err = wire_receive(rpc->wire, &message);

		if (err == -EAGAIN) {
			err = wire_flush(rpc->wire);
			if (err)
				break_off(rpc, err);
			send_started(rpc);
			return;
		}
		if (err) {
			break_off(rpc, err);
			return;
		}
		handle_message(rpc, message);
		json_object_put(message);
		send_started(rpc);
	}
	rpc->more = rpc->state != RPC_BROKEN;
}

/* --- calls -------------------------------------------------------------------------------- */

void rpc_start(struct rpc *rpc, const char *command, struct json_object *arguments)
{
	struct json_object *request;

	rpc->call = CALL_STARTED;
	if (rpc->state == RPC_BROKEN) {
		json_object_put(arguments);
		rpc->call = CALL_ANSWERED;
		return;
	}
	request = wire_new_request(command, arguments, ++rpc->id);
	if (!request) {
		break_off(rpc, -ENOMEM);
		return;
	}
	rpc->request = request;
	send_started(rpc);
}

bool rpc_idle(const struct rpc *rpc)
{
	return rpc->call == CALL_IDLE;
}

bool rpc_answered(const struct rpc *rpc)
{
	return rpc->call == CALL_ANSWERED;
}

bool rpc_broken(const struct rpc *rpc)
{
	return rpc->state == RPC_BROKEN;
}

static bool under_way(const struct rpc *rpc)
{
	return rpc && (rpc->call == CALL_STARTED || rpc->call == CALL_SENT);
}

/* One poll() over all calls under way. Returns how many there were; 0 also on failure. */
static unsigned int wait_once(struct rpc *const *rpcs, unsigned int count, struct pollfd *polls,
			      uint64_t deadline)
{
	int timeout_ms = clock_poll_ms(deadline);
	unsigned int waiting = 0;

	for (unsigned int i = 0; i < count; i++) {
		polls[i] = (struct pollfd){ .fd = -1 }; /* which poll() leaves out */
		if (!under_way(rpcs[i]))
			continue;
		polls[i].fd = wire_fd(rpcs[i]->wire);
		polls[i].events = wire_events(rpcs[i]->wire);
		if (rpcs[i]->more)
			timeout_ms = 0;
		waiting++;
	}
	if (waiting == 0 || (poll(polls, count, timeout_ms) < 0 && errno != EINTR))
		return 0;
	for (unsigned int i = 0; i < count; i++)
		if (polls[i].fd >= 0 && (polls[i].revents || rpcs[i]->more))
			advance(rpcs[i]);
	return waiting;
}

static bool any_answered(struct rpc *const *rpcs, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++)
		if (rpcs[i] && rpc_answered(rpcs[i]))
			return true;
	return false;
}

bool rpc_wait(struct rpc *const *rpcs, unsigned int count, uint64_t deadline)
{
	struct pollfd *polls = calloc(count ? count : 1, sizeof(*polls));
	bool answered = any_answered(rpcs, count);

	/* Without memory it is as if nobody had answered in time. */
	if (!polls)
		return answered;
	/* One look at least, so that a deadline that is over still takes what is there. */
	while (!answered && wait_once(rpcs, count, polls, deadline)) {
		answered = any_answered(rpcs, count);
		if (clock_now() >= deadline)
			break;
	}
	free(polls);
	return answered;
}

int rpc_finish(struct rpc *rpc, struct json_object **value, char *why)
{
	if (!rpc_answered(rpc)) {
		explain(why, "no answer yet");
		return -EAGAIN;
	}
	rpc->call = CALL_IDLE;
	if (rpc->error) {
		explain(why, "%s", rpc->why);
		return rpc->error;
	}
	*value = rpc->value;
	rpc->value = NULL;
	return 0;
}

void rpc_abandon(struct rpc *rpc)
{
	json_object_put(rpc->request);
	json_object_put(rpc->value);
	rpc->request = NULL;
	rpc->value = NULL;
	rpc->call = CALL_IDLE;
}

/* --- one at a time ------------------------------------------------------------------------ */

int rpc_connect(enum rpc_kind kind, const char *path, uint64_t deadline, struct rpc **rpc,
		char *why)
{
	const struct timespec nap = { .tv_nsec = RETRY_NS };
	int err;

	while ((err = rpc_open(kind, path, rpc, why)) == -EAGAIN && clock_now() < deadline)
		nanosleep(&nap, NULL);
	return err;
}

int rpc_execute(struct rpc *rpc, const char *command, struct json_object *arguments,
		uint64_t deadline, struct json_object **value, char *why)
{
	int err;

	rpc_start(rpc, command, arguments);
	rpc_wait(&rpc, 1, deadline);
	err = rpc_finish(rpc, value, why);
	if (err != -EAGAIN)
		return err;
	if (rpc->state == RPC_GREETING)
		explain(why, "no greeting in time: is another client connected to it?");
	else
		explain(why, "no answer to %s in time", command);
	rpc_abandon(rpc);
	return -ETIMEDOUT;
}
