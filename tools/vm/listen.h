/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A unix socket to be asked on.
 *
 * What does not belong here: what is said there (control_wire.h).
 */
#ifndef VM_LISTEN_H
#define VM_LISTEN_H

/**
 * listen_open() - make a socket and listen
 * @path:    at most 107 bytes; made with mode 0600; one that nobody listens on is replaced
 * @backlog: connections that may wait
 * @fd:      set on success; non-blocking, close-on-exec. Who closes it removes @path
 *
 * Return: 0; -EADDRINUSE: somebody listens there; -ENAMETOOLONG; -errno of the socket.
 */
int listen_open(const char *path, int backlog, int *fd);

#endif /* VM_LISTEN_H */
