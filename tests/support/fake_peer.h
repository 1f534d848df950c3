/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The other end of a socket, played from a script: a QEMU or a VM that answers well, late,
 * wrongly, without end or not at all.
 */
#ifndef TESTS_SUPPORT_FAKE_PEER_H
#define TESTS_SUPPORT_FAKE_PEER_H

#include <pthread.h>
#include <stdbool.h>

/** enum peer_act - what the peer does next; after the last it hangs up */
enum peer_act {
	PEER_SEND,    /* the text */
	PEER_DRIBBLE, /* the text, a byte at a time */
	PEER_FLOOD,   /* the text again and again, until the other end has gone */
	PEER_FILL,    /* @count bytes of the text's first character */
	PEER_READ,    /* a line, which contains the text */
	PEER_WAIT,    /* @count milliseconds */
	PEER_HANG,    /* until the other end has gone */
	PEER_END,
};

struct peer_step {
	enum peer_act act;
	const char *text;
	unsigned int count;
};

/** struct fake_peer - one; @path is where it listens */
struct fake_peer {
	char path[108];
	const struct peer_step *steps;
	int listener;
	bool stop;
	pthread_t thread;
};

/* Listen, and play the script to who connects first. @name tells peers of a test apart. */
void fake_peer_start(struct fake_peer *peer, const char *name, const struct peer_step *steps);

/* Wait until the script has been played, and take the socket away. */
void fake_peer_stop(struct fake_peer *peer);

#endif /* TESTS_SUPPORT_FAKE_PEER_H */
