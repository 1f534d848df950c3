/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Being seen and governed: a statistics segment, which memstat and memvirt govern read, and a
 * control socket, over which the governor sets the resident limit and the balloon.
 * docs/control.md is the agreement; json-c reads and writes the messages.
 */
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <memvirt/stats.h>

#include "minivmm.h"

#define PUBLISH_MS  50
#define LOOK_MS	    1000
#define MESSAGE_MAX 65536
#define CLIENTS	    4

/*
 * Resident pages watched, for so long, to see how much is used. Each that is touched is a fault: a
 * tenth of a millisecond a second on a host, but nested in another hypervisor a fault takes
 * milliseconds.
 */
#define SAMPLE_PAGES 100
#define SAMPLE_MS    10000
#define FOREVER	     UINT64_MAX

/** struct client - a connection, and what came of a line so far; fd is -1 for none */
struct client {
	int fd;
	size_t len;
	char text[MESSAGE_MAX];
};

struct control {
	struct vmm *vmm;
	struct mv_stats_writer *writer;
	struct sockaddr_un addr;
	int listener;
	int ending[2]; /* a pipe: to be readable at the end */
	pthread_t thread;
	struct mv_pager_sample *sample;
	uint64_t random;
	uint64_t active_bytes;
	struct client clients[CLIENTS];
};

/* --- statistics --------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* How much was used since the last call, and what is watched until the next. */
static void sample(struct control *control)
{
	struct mv_pager_touches touches;

	mv_pager_sample_end(control->sample, &touches);
	control->sample = NULL;
	control->active_bytes = touches.sampled ? touches.active_bytes : MV_STATS_UNKNOWN;
	/* While nothing is to be unmapped, or without a limit, it stays unknown. */
	if (mv_pager_sample_begin(control->vmm->ram.pager, SAMPLE_PAGES, control->random++,
				  &control->sample))
		control->sample = NULL;
}

static void publish(struct control *control)
{
	struct mv_stats *stats = mv_stats_begin(control->writer);

	mv_pager_publish(control->vmm->ram.pager, stats);
	mv_balloon_publish(control->vmm->virtio.balloon, stats);
	stats->active_bytes = control->active_bytes;
	mv_stats_end(control->writer);
}

/* --- commands ----------------------------------------------------------------------------- */

static struct json_object *failed(const char *class, const char *text)
{
	struct json_object *answer = json_object_new_object(), *error = json_object_new_object();

	json_object_object_add(error, "class", json_object_new_string(class));
	json_object_object_add(error, "desc", json_object_new_string(text));
	json_object_object_add(answer, "error", error);
	return answer;
}

static struct json_object *returned(struct json_object *value)
{
	struct json_object *answer = json_object_new_object();

	json_object_object_add(answer, "return", value);
	return answer;
}

static struct json_object *query_info(struct control *control)
{
	struct json_object *value = json_object_new_object();

	json_object_object_add(value, "format-version", json_object_new_int(1));
	json_object_object_add(value, "name", json_object_new_string(control->vmm->options.name));
	json_object_object_add(value, "pid", json_object_new_int(getpid()));
	json_object_object_add(value, "configured-bytes",
			       json_object_new_uint64(control->vmm->ram.bytes));
	/* The balloon is set here, and the guest's numbers are in the segment: there is no QMP. */
	json_object_object_add(value, "balloon", json_object_new_boolean(1));
	return returned(value);
}

/* @bytes: set to FOREVER for null. Return: whether it is there. */
static bool get_bytes(struct json_object *request, uint64_t *bytes)
{
	struct json_object *arguments, *value;

	if (!json_object_object_get_ex(request, "arguments", &arguments) ||
	    !json_object_object_get_ex(arguments, "bytes", &value))
		return false;
	*bytes = FOREVER;
	if (!value)
		return true;
	*bytes = json_object_get_uint64(value);
	return json_object_is_type(value, json_type_int) && json_object_get_int64(value) >= 0;
}

static struct json_object *set_limit(struct control *control, uint64_t bytes)
{
	uint64_t limit = bytes == FOREVER ? MV_PAGER_UNLIMITED : bytes;
	int err = mv_pager_set_limit(control->vmm->ram.pager, limit);

	if (err == -EINVAL)
		return failed("BadRequest", "a limit is at least 1 MiB, or null");
	return err ? failed("Failed", strerror(-err)) : returned(json_object_new_object());
}

/* What the guest is to have; the rest is the balloon's. */
static struct json_object *set_balloon(struct control *control, uint64_t bytes)
{
	uint64_t ram = control->vmm->ram.bytes;

	mv_balloon_set_target(control->vmm->virtio.balloon, bytes < ram ? ram - bytes : 0);
	return returned(json_object_new_object());
}

/* Beyond the agreement, for who wants to see what the device does. */
static struct json_object *query_device(struct control *control)
{
	struct json_object *value = json_object_new_object();
	struct mv_balloon_stats stats;

	mv_balloon_get_stats(control->vmm->virtio.balloon, &stats);
	json_object_object_add(value, "given-bytes", json_object_new_uint64(stats.given_bytes));
	json_object_object_add(value, "dropped", json_object_new_uint64(stats.dropped));
	json_object_object_add(value, "reported", json_object_new_uint64(stats.reported));
	json_object_object_add(value, "refused", json_object_new_uint64(stats.refused));
	json_object_object_add(value, "hinted", json_object_new_uint64(stats.hinted));
	json_object_object_add(value, "ignored", json_object_new_uint64(stats.ignored));
	json_object_object_add(value, "broken", json_object_new_uint64(stats.broken));
	return returned(value);
}

/* A migration would begin and end a run of hints so. */
static struct json_object *hint(struct control *control, bool start)
{
	struct mv_balloon *balloon = control->vmm->virtio.balloon;
	int err = 0;

	if (start)
		err = mv_balloon_hint_start(balloon);
	else
		mv_balloon_hint_stop(balloon, true);
	return err ? failed("Failed", strerror(-err)) : returned(json_object_new_object());
}

static struct json_object *set_bytes(struct control *control, const char *command,
				     struct json_object *request)
{
	uint64_t bytes;

	if (!get_bytes(request, &bytes))
		return failed("BadRequest", "bytes: a number of bytes, or null");
	return !strcmp(command, "set-limit") ? set_limit(control, bytes)
					     : set_balloon(control, bytes);
}

static struct json_object *answer_to(struct control *control, struct json_object *request)
{
	struct json_object *name;
	const char *command;

	if (!json_object_is_type(request, json_type_object) ||
	    !json_object_object_get_ex(request, "execute", &name) ||
	    !json_object_is_type(name, json_type_string))
		return failed("BadRequest", "one JSON object with \"execute\" a line, please");
	command = json_object_get_string(name);
	if (!strcmp(command, "query-info"))
		return query_info(control);
	/* What the guest says is published already. */
	if (!strcmp(command, "note"))
		return returned(json_object_new_object());
	if (!strcmp(command, "set-limit") || !strcmp(command, "set-balloon"))
		return set_bytes(control, command, request);
	if (!strcmp(command, "query-device"))
		return query_device(control);
	if (!strcmp(command, "hint-start") || !strcmp(command, "hint-stop"))
		return hint(control, !strcmp(command, "hint-start"));
	return failed("CommandNotFound", "there is query-info, set-limit, set-balloon, "
					 "query-device, hint-start and hint-stop");
}

/* --- clients ------------------------------------------------------------------------------ */

static void hang_up(struct client *client)
{
	close(client->fd);
	client->fd = -1;
}

/* Who does not read his answers is hung up on. */
static void reply(struct client *client, struct json_object *answer)
{
	const char *text = json_object_to_json_string_ext(answer, JSON_C_TO_STRING_PLAIN);
	size_t len = strlen(text);

	if (send(client->fd, text, len, MSG_NOSIGNAL) != (ssize_t)len ||
	    send(client->fd, "\n", 1, MSG_NOSIGNAL) != 1)
		hang_up(client);
	json_object_put(answer);
}

static void hear_line(struct control *control, struct client *client, const char *line)
{
	struct json_object *request = json_tokener_parse(line), *id = NULL, *answer;

	if (!*line)
		return;
	answer = answer_to(control, request);
	if (json_object_is_type(request, json_type_object) &&
	    json_object_object_get_ex(request, "id", &id))
		json_object_object_add(answer, "id", json_object_get(id));
	reply(client, answer);
	json_object_put(request);
}

static void hear(struct control *control, struct client *client)
{
	ssize_t got =
		recv(client->fd, client->text + client->len, sizeof(client->text) - client->len, 0);
	char *line = client->text, *end;

	if (got <= 0) {
		hang_up(client);
		return;
	}
	client->len += (size_t)got;
	while (client->fd >= 0 &&
	       (end = memchr(line, '\n', client->len - (size_t)(line - client->text)))) {
		*end = '\0';
		hear_line(control, client, line);
		line = end + 1;
	}
	client->len -= (size_t)(line - client->text);
	memmove(client->text, line, client->len);
	if (client->len == sizeof(client->text) && client->fd >= 0)
		hang_up(client);
}

static void greet(struct control *control)
{
	int fd = accept4(control->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	for (unsigned int i = 0; fd >= 0 && i < CLIENTS; i++) {
		if (control->clients[i].fd >= 0)
			continue;
		control->clients[i].fd = fd;
		control->clients[i].len = 0;
		return;
	}
	if (fd >= 0)
		close(fd);
}

/* Return: whether to go on. */
static bool serve(struct control *control)
{
	struct pollfd polls[CLIENTS + 2];

	for (unsigned int i = 0; i < CLIENTS; i++)
		polls[i] = (struct pollfd){ control->clients[i].fd, POLLIN, 0 };
	polls[CLIENTS] = (struct pollfd){ control->listener, POLLIN, 0 };
	polls[CLIENTS + 1] = (struct pollfd){ control->ending[0], POLLIN, 0 };
	if (poll(polls, CLIENTS + 2, PUBLISH_MS) <= 0)
		return true;
	for (unsigned int i = 0; i < CLIENTS; i++)
		if (polls[i].revents)
			hear(control, &control->clients[i]);
	if (polls[CLIENTS].revents)
		greet(control);
	return !polls[CLIENTS + 1].revents;
}

static void *run(void *arg)
{
	struct control *control = arg;
	uint64_t looked = 0, sampled = 0;

	while (serve(control)) {
		publish(control);
		if (now_ms() - looked < LOOK_MS)
			continue;
		/* Without a driver there is nobody to answer. */
		mv_balloon_ask_stats(control->vmm->virtio.balloon);
		looked = now_ms();
		if (looked - sampled < SAMPLE_MS)
			continue;
		sample(control);
		sampled = looked;
	}
	return NULL;
}

/* --- beginning and end -------------------------------------------------------------------- */

static void listen_at(struct control *control)
{
	const struct sockaddr *addr = (const struct sockaddr *)&control->addr;

	control->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	/* One that was left behind by a VM that was killed. */
	if (!connect(control->listener, addr, sizeof(control->addr)))
		die("%s: another VM of this name is running", control->addr.sun_path);
	unlink(control->addr.sun_path);
	if (bind(control->listener, addr, sizeof(control->addr)) ||
	    chmod(control->addr.sun_path, 0600) || listen(control->listener, CLIENTS))
		die("%s: %s", control->addr.sun_path, strerror(errno));
}

void control_create(struct vmm *vmm)
{
	struct control *control = calloc(1, sizeof(*control));
	const struct options *o = &vmm->options;
	char path[sizeof(control->addr.sun_path)];
	int len = snprintf(path, sizeof(path), "%s/%s.stats", o->run_dir, o->name);

	if (!control || len < 0 || (size_t)len >= sizeof(path))
		die("run directory %s: its path is too long", o->run_dir);
	control->vmm = vmm;
	control->active_bytes = MV_STATS_UNKNOWN;
	control->addr.sun_family = AF_UNIX;
	snprintf(control->addr.sun_path, sizeof(control->addr.sun_path), "%s/%s.sock", o->run_dir,
		 o->name);
	for (unsigned int i = 0; i < CLIENTS; i++)
		control->clients[i].fd = -1;
	listen_at(control);
	must(mv_stats_publish(path, o->name, &control->writer), path);
	publish(control);
	if (pipe(control->ending))
		die("pipe: %s", strerror(errno));
	must(-pthread_create(&control->thread, NULL, run, control), "pthread_create");
	vmm->control = control;
}

void control_destroy(struct vmm *vmm)
{
	struct control *control = vmm->control;

	if (!control)
		return;
	close(control->ending[1]);
	pthread_join(control->thread, NULL);
	mv_pager_sample_end(control->sample, &(struct mv_pager_touches){ 0 });
	mv_stats_withdraw(control->writer);
	unlink(control->addr.sun_path);
	close(control->listener);
	for (unsigned int i = 0; i < CLIENTS; i++)
		if (control->clients[i].fd >= 0)
			hang_up(&control->clients[i]);
	close(control->ending[0]);
	free(control);
	vmm->control = NULL;
}
