/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asking another process: a client of control sockets and of QMP, which differ in little.
 * Many connections can be asked at once and waited for together; nothing ever waits past
 * its deadline, whatever the other end does.
 *
 * What does not belong here: which commands there are and what their answers mean.
 */
#ifndef VM_RPC_H
#define VM_RPC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <sys/types.h>

#include <json-c/json.h>

/**
 * enum rpc_kind - what is spoken
 * @RPC_CONTROL: the control protocol of a VM under memvirt (docs/control.md)
 * @RPC_QMP:     QEMU's: a greeting, capabilities, events in between
 */
enum rpc_kind {
	RPC_CONTROL,
	RPC_QMP,
};

/* Room for the reason of a failure. */
#define RPC_WHY 256

struct rpc;

/**
 * rpc_open() - connect; never waits
 * @kind: what is spoken there
 * @path: of the socket
 * @rpc:  set on success
 * @why:  RPC_WHY bytes; on failure set to the reason
 *
 * For QMP the greeting and the capabilities are still to come: the first call waits for
 * them.
 *
 * Return: 0; -EAGAIN: the other end is not taking connections at the moment; -ENOENT,
 * -ECONNREFUSED: nobody is there; -ENAMETOOLONG; -ENOMEM; -errno of socket() and connect().
 */
int rpc_open(enum rpc_kind kind, const char *path, struct rpc **rpc, char *why);

/**
 * rpc_peer() - who listens there
 * @rpc: the connection
 * @pid: set on success to the process that made the socket
 *
 * Return: 0; -ESRCH where it is none that we can see; -errno of getsockopt().
 */
int rpc_peer(const struct rpc *rpc, pid_t *pid);

/** rpc_close() - hang up, whatever is under way; takes NULL */
void rpc_close(struct rpc *rpc);

/**
 * rpc_start() - ask
 * @rpc:       the connection; no call may be under way
 * @command:   the name
 * @arguments: taken over; NULL for none
 *
 * A failure shows when the call is finished with rpc_finish().
 */
void rpc_start(struct rpc *rpc, const char *command, struct json_object *arguments);

/** rpc_idle() - whether no call is under way, nor one to be finished */
bool rpc_idle(const struct rpc *rpc);

/** rpc_answered() - whether rpc_finish() would give a result */
bool rpc_answered(const struct rpc *rpc);

/**
 * rpc_wait() - until a call is answered, or the deadline
 * @rpcs:     connections; NULL entries and idle ones are left out
 * @count:    how many
 * @deadline: CLOCK_MONOTONIC, nanoseconds
 *
 * Return: whether there is one to be finished; false also where none is under way. Calls
 * that are not answered stay under way.
 */
bool rpc_wait(struct rpc *const *rpcs, unsigned int count, uint64_t deadline);

/**
 * rpc_finish() - the result of a call
 * @rpc:   the connection
 * @value: set on success to what came back; the caller's
 * @why:   RPC_WHY bytes; on failure set to the reason
 *
 * Return: 0; -EAGAIN: no answer yet, the call stays under way; -EREMOTEIO: refused by the
 * other end, which says why; and what ends the connection (see rpc_broken()): -EPIPE closed,
 * -EBADMSG, -EMSGSIZE, -ENOBUFS, -ENOMEM, -errno of the socket.
 */
int rpc_finish(struct rpc *rpc, struct json_object **value, char *why);

/** rpc_abandon() - stop waiting for an answer; it is thrown away when it comes */
void rpc_abandon(struct rpc *rpc);

/** rpc_broken() - whether nothing more can be said here: close it */
bool rpc_broken(const struct rpc *rpc);

/**
 * rpc_connect() - as rpc_open(), trying again until a deadline while the answer is -EAGAIN
 */
int rpc_connect(enum rpc_kind kind, const char *path, uint64_t deadline, struct rpc **rpc,
		char *why);

/**
 * rpc_execute() - ask and wait
 * @rpc:       the connection; no call may be under way
 * @command:   the name
 * @arguments: taken over; NULL for none
 * @deadline:  CLOCK_MONOTONIC, nanoseconds
 * @value:     set on success; the caller's
 * @why:       RPC_WHY bytes; on failure set to the reason
 *
 * Return: 0; -ETIMEDOUT; as rpc_finish().
 */
int rpc_execute(struct rpc *rpc, const char *command, struct json_object *arguments,
		uint64_t deadline, struct json_object **value, char *why);

#endif /* VM_RPC_H */
