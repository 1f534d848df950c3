/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The server's thread; see server.h. Clients are not trusted to be well-behaved: lines are
 * bounded by the wire, who does not read his answers is dropped, who floods gets a share.
 */
#include "memvirt/preload/server.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "memvirt/preload/preload.h"
#include "vm/clock.h"
#include "vm/control_wire.h"
#include "vm/listen.h"

/* Often enough that a governor learns of pressure within a tenth of a second. */
#define TICK_NS		(50 * CLOCK_MS)
#define MESSAGES_A_TURN 16
#define FAREWELL_NS	CLOCK_S

/* --- clients ------------------------------------------------------------------------------ */

static void drop(struct client *client)
{
	wire_close(client->wire);
	json_object_put(client->request);
	memset(client, 0, sizeof(*client));
}

static void reply(struct client *client, struct json_object *message)
{
	if (!message || wire_send(client->wire, message))
		drop(client);
	json_object_put(message);
}

static void handle(struct server *server, unsigned int place, struct json_object *message)
{
	struct client *client = &server->clients[place];
	struct json_object *result;
	bool job;

	result = command_answer(server, message, place, &job);
	if (job)
		client->request = json_object_get(message);
	else
		reply(client, result);
	json_object_put(message);
}

static void complain(struct client *client)
{
	reply(client, wire_new_error(NULL, WIRE_BAD_REQUEST, "one JSON object a line, please"));
}

/* Read until nothing is left, a command has to be waited for, or others want their turn. */
static void hear(struct server *server, unsigned int place)
{
	struct client *client = &server->clients[place];
	struct json_object *message;

	client->heard = clock_now();
	client->more = true;
	for (int i = 0; i < MESSAGES_A_TURN && client->wire && !client->request; i++) {
		int error = wire_receive(client->wire, &message);

		if (!error) {
			handle(server, place, message);
		} else if (error == -EBADMSG) {
			complain(client);
		} else if (error == -EAGAIN) {
			client->more = false;
			return;
		} else {
			drop(client);
		}
	}
}

/* Return: whether memvirt is to leave this VM. */
static bool finish_job(struct server *server, unsigned int place)
{
	struct client *client = &server->clients[place];
	struct job job;
	bool stop;

	if (!worker_take(server, place, &job))
		return false;
	stop = job.kind == JOB_STOP && !job.error;
	/* Who sees his answer to `stop` finds neither socket nor segment any more. */
	if (stop)
		server_withdraw();
	/* Whoever asked may have hung up. */
	if (client->request) {
		struct json_object *request = client->request;

		client->request = NULL;
		reply(client, command_job_answer(request, &job));
		json_object_put(request);
	}
	free(job.read);
	return stop;
}

static bool finish_jobs(struct server *server)
{
	bool stop = false;

	for (unsigned int i = 0; i < SERVER_CLIENTS; i++)
		stop |= finish_job(server, i);
	return stop;
}

/* A free place, or that of the client that has been silent for longest. */
static struct client *make_place(struct server *server)
{
	struct client *found = &server->clients[0];

	for (unsigned int i = 0; i < SERVER_CLIENTS; i++) {
		struct client *client = &server->clients[i];

		if (!client->wire)
			return client;
		if (client->heard < found->heard)
			found = client;
	}
	drop(found);
	return found;
}

static void greet(struct server *server)
{
	int fd = accept4(server->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *client;

	if (fd < 0)
		return;
	client = make_place(server);
	client->heard = clock_now();
	if (wire_open(fd, WIRE_LINES, WIRE_MESSAGE_MAX, &client->wire)) {
		client->wire = NULL;
		close(fd);
	}
}

/* --- the loop ----------------------------------------------------------------------------- */

static void quiet_bell(struct server *server)
{
	uint64_t count;

	if (read(server->bell, &count, sizeof(count)) < 0) {
		/* It was not ringing. */
	}
}

static bool fill_polls(struct server *server, struct pollfd *polls)
{
	bool more = false;

	polls[SERVER_CLIENTS] = (struct pollfd){ server->listener, POLLIN, 0 };
	polls[SERVER_CLIENTS + 1] = (struct pollfd){ server->bell, POLLIN, 0 };
	for (unsigned int i = 0; i < SERVER_CLIENTS; i++) {
		struct client *client = &server->clients[i];

		polls[i] = (struct pollfd){ -1, 0, 0 };
		if (!client->wire)
			continue;
		polls[i].fd = wire_fd(client->wire);
		polls[i].events = wire_events(client->wire);
		/* Who waits for the worker is heard again afterwards. */
		if (client->request)
			polls[i].events &= ~POLLIN;
		else
			more |= client->more;
	}
	return more;
}

static void serve_client(struct server *server, unsigned int place, short events)
{
	struct client *client = &server->clients[place];

	if ((events & POLLOUT) && client->wire && wire_flush(client->wire))
		drop(client);
	/* A client that has hung up while it waits would make poll() spin. */
	if ((events & (POLLERR | POLLHUP)) && client->request)
		drop(client);
	if (client->wire && !client->request && (client->more || (events & ~POLLOUT)))
		hear(server, place);
}

static bool serve(struct server *server, uint64_t until)
{
	struct pollfd polls[SERVER_CLIENTS + 2];
	bool more = fill_polls(server, polls);
	int count = poll(polls, SERVER_CLIENTS + 2, more ? 0 : clock_poll_ms(until));

	if (count < 0)
		return false;
	if (polls[SERVER_CLIENTS + 1].revents)
		quiet_bell(server);
	for (unsigned int i = 0; i < SERVER_CLIENTS; i++)
		serve_client(server, i, polls[i].revents);
	if (polls[SERVER_CLIENTS].revents)
		greet(server);
	return finish_jobs(server);
}

/* Answers on their way get a second to leave. */
static void say_farewell(struct server *server)
{
	uint64_t until = clock_now() + FAREWELL_NS;

	for (unsigned int i = 0; i < SERVER_CLIENTS; i++) {
		struct client *client = &server->clients[i];

		while (client->wire && (wire_events(client->wire) & POLLOUT)) {
			struct pollfd one = { wire_fd(client->wire), POLLOUT, 0 };

			if (poll(&one, 1, clock_poll_ms(until)) <= 0 || wire_flush(client->wire))
				break;
		}
		if (client->wire)
			drop(client);
	}
}

static void leave(struct server *server)
{
	worker_end(server);
	say_farewell(server);
	close(server->listener);
	server->listener = -1;
	preload_say(MV_LOG_INFO, "told to stop: the VM runs on without memvirt");
}

static void *run(void *arg)
{
	struct server *server = arg;
	uint64_t tick = clock_now();

	preload_enter();
	while (!serve(server, tick)) {
		if (clock_now() < tick)
			continue;
		publish(server);
		aio_reap(&preload.aio);
		tick = clock_now() + TICK_NS;
	}
	leave(server);
	return NULL;
}

/* --- start and end ------------------------------------------------------------------------ */

static int start_threads(struct server *server)
{
	int error;

	server->bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (server->bell < 0)
		return -errno;
	error = worker_start(server);
	if (!error) {
		error = engine_thread(&server->thread, "memvirt-ctl", run, server);
		if (error) {
			worker_end(server);
			pthread_join(server->worker, NULL);
		}
	}
	if (error) {
		close(server->bell);
		server->bell = -1;
	}
	return error;
}

int server_start(char *why, size_t why_len)
{
	struct server *server = &preload.server;
	int error = rundir_path(preload.settings.run_dir, preload.settings.name, RUNDIR_SOCKET,
				server->socket_path);

	error = error ? error : listen_open(server->socket_path, SERVER_CLIENTS, &server->listener);
	if (error) {
		snprintf(why, why_len, "control socket %s: %s", server->socket_path,
			 error == -EADDRINUSE ? "another VM of this name is running"
					      : strerror(-error));
		return error;
	}
	error = publish_open(server);
	error = error ? error : start_threads(server);
	if (error) {
		snprintf(why, why_len, "%s/%s%s: %s", preload.settings.run_dir,
			 preload.settings.name, RUNDIR_STATS, strerror(-error));
		publish_close(server);
		unlink(server->socket_path);
		close(server->listener);
		server->listener = -1;
	}
	return error;
}

/* The segment goes first: who finds a socket without one knows what is happening. */
void server_withdraw(void)
{
	struct server *server = &preload.server;

	publish_close(server);
	if (server->socket_path[0] && server->listener >= 0)
		unlink(server->socket_path);
}

void server_close_in_child(void)
{
	struct server *server = &preload.server;

	if (server->listener >= 0)
		close(server->listener);
	for (unsigned int i = 0; i < SERVER_CLIENTS; i++)
		if (server->clients[i].wire)
			close(wire_fd(server->clients[i].wire));
}
