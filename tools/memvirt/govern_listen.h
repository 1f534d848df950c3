/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Targets from outside: where many hosts are looked after by somebody who knows more than one
 * host does, he decides and the governor obeys, for as long as a lease says. When it lapses,
 * because he has crashed or cannot be reached, the governor decides for itself again.
 *
 * The protocol is that of docs/control.md; the commands are in docs/policy.md.
 */
#ifndef MEMVIRT_GOVERN_LISTEN_H
#define MEMVIRT_GOVERN_LISTEN_H

#include <poll.h>
#include <stdint.h>

struct governor;
struct govern_listener;

#define GOVERN_CLIENTS 16

/**
 * govern_listen_open() - make the socket
 * @path:     of the socket, mode 0600; one that nobody listens on is replaced
 * @listener: set on success
 *
 * Return: 0; -EADDRINUSE; -ENOMEM; -errno of the socket.
 */
int govern_listen_open(const char *path, struct govern_listener **listener);

/** govern_listen_close() - hang up on everybody and remove the socket; takes NULL */
void govern_listen_close(struct govern_listener *listener);

/**
 * govern_listen_polls() - what to poll for
 * @polls: GOVERN_CLIENTS + 1 entries
 *
 * Return: how many entries were set; 0 for NULL.
 */
unsigned int govern_listen_polls(struct govern_listener *listener, struct pollfd *polls);

/** govern_listen_serve() - hear and answer; never waits */
void govern_listen_serve(struct governor *governor);

#endif /* MEMVIRT_GOVERN_LISTEN_H */
