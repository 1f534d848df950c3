/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A scripted peer; see fake_peer.h.
 */
#include "support/fake_peer.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "support/testing.h"

static void nap_ms(unsigned int ms)
{
	const struct timespec nap = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	nanosleep(&nap, NULL);
}

/* False where the other end has gone. */
static bool send_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t sent = send(fd, text, len, MSG_NOSIGNAL);

		if (sent < 0 && errno == EINTR)
			continue;
		if (sent <= 0)
			return false;
		text += sent;
		len -= (size_t)sent;
	}
	return true;
}

static bool dribble(int fd, const char *text)
{
	for (; *text; text++)
		if (!send_all(fd, text, 1))
			return false;
	return true;
}

static bool fill(int fd, char with, unsigned int count)
{
	char block[4096];

	memset(block, with, sizeof(block));
	for (unsigned int left = count; left;) {
		unsigned int len = left < sizeof(block) ? left : (unsigned int)sizeof(block);

		if (!send_all(fd, block, len))
			return false;
		left -= len;
	}
	return true;
}

static bool read_line(int fd, const char *wanted)
{
	char line[70000];
	size_t used = 0;

	while (used < sizeof(line) - 1 && read(fd, &line[used], 1) == 1) {
		if (line[used++] != '\n')
			continue;
		line[used] = '\0';
		if (wanted && !strstr(line, wanted)) {
			printf("# expected '%s' in: %s", wanted, line);
			insist(!"what was expected");
		}
		return true;
	}
	return false;
}

static void hang(int fd)
{
	char byte[256];

	while (read(fd, byte, sizeof(byte)) > 0)
		;
}

/* Whether to go on. */
static bool play(int fd, const struct peer_step *step)
{
	switch (step->act) {
	case PEER_SEND:
		return send_all(fd, step->text, strlen(step->text));
	case PEER_DRIBBLE:
		return dribble(fd, step->text);
	case PEER_FLOOD:
		while (send_all(fd, step->text, strlen(step->text)))
			;
		return false;
	case PEER_FILL:
		return fill(fd, step->text[0], step->count);
	case PEER_READ:
		return read_line(fd, step->text);
	case PEER_WAIT:
		nap_ms(step->count);
		return true;
	case PEER_HANG:
		hang(fd);
		return true;
	case PEER_END:
		break;
	}
	return false;
}

static void *run(void *arg)
{
	struct fake_peer *peer = arg;
	struct pollfd poll_listener = { .fd = peer->listener, .events = POLLIN };

	while (!__atomic_load_n(&peer->stop, __ATOMIC_ACQUIRE)) {
		if (poll(&poll_listener, 1, 20) != 1)
			continue;
		int fd = accept(peer->listener, NULL, NULL);
		insist(fd >= 0);
		for (const struct peer_step *step = peer->steps; play(fd, step); step++)
			;
		close(fd);
		break;
	}
	return NULL;
}

void fake_peer_start(struct fake_peer *peer, const char *name, const struct peer_step *steps)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	*peer = (struct fake_peer){ .steps = steps };
	snprintf(peer->path, sizeof(peer->path), "/tmp/memvirt-peer-%d-%s", (int)getpid(), name);
	unlink(peer->path);
	strcpy(addr.sun_path, peer->path);
	peer->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	insist(peer->listener >= 0);
	insist(!bind(peer->listener, (struct sockaddr *)&addr, sizeof(addr)));
	insist(!listen(peer->listener, 1));
	insist(!pthread_create(&peer->thread, NULL, run, peer));
}

void fake_peer_stop(struct fake_peer *peer)
{
	__atomic_store_n(&peer->stop, true, __ATOMIC_RELEASE);
	insist(!pthread_join(peer->thread, NULL));
	close(peer->listener);
	unlink(peer->path);
}
