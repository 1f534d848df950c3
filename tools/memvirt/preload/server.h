/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What others see of a VM: the control socket (docs/control.md) and the statistics segment
 * (memvirt/stats.h), both served by one thread that never waits for either.
 *
 *	server.c   the thread: sockets, clients, the clock
 *	command.c  what a request asks for, and its answer
 *	command_read.c  of read-memory
 *	publish.c  the numbers
 *	worker.c   commands that may take long: a new limit can bring gigabytes back
 */
#ifndef PRELOAD_SERVER_H
#define PRELOAD_SERVER_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vm/rundir.h"

#define SERVER_CLIENTS 16
#define JOB_TEXT_MAX   192

/* Of one read-memory; as base64 the bytes leave room for the rest of a message. */
#define READ_BYTES_MAX	40960
#define READ_RANGES_MAX 512

struct json_object;
struct mv_stats_writer;
struct wire;

enum job_kind {
	JOB_SET_LIMIT,
	JOB_READ_MEMORY,
	JOB_STOP,
};

enum job_state {
	JOB_FREE,
	JOB_QUEUED,
	JOB_RUNNING,
	JOB_DONE,
};

/**
 * struct memory_read - what read-memory asks for, and what is found
 * @count: of ranges
 * @range: each at @hva in this process, @len bytes
 * @bytes: the content of all, one after the other
 */
struct memory_read {
	unsigned int count;
	struct {
		uint64_t hva;
		uint32_t len;
	} range[READ_RANGES_MAX];
	unsigned char bytes[READ_BYTES_MAX];
};

/**
 * struct job - a command that the worker carries out
 * @state:  where it is
 * @kind:   what it is
 * @ticket: its place in the queue
 * @bytes:  of JOB_SET_LIMIT
 * @read:   of JOB_READ_MEMORY; whoever takes the job frees it
 * @error:  0, or -errno
 * @text:   with an error, what to do about it
 */
struct job {
	enum job_state state;
	enum job_kind kind;
	uint64_t ticket;
	uint64_t bytes;
	struct memory_read *read;
	int error;
	char text[JOB_TEXT_MAX];
};

/**
 * struct client - one connection
 * @wire:      NULL: none
 * @heard:     when it last said something
 * @request:   the one that the worker is at, to be answered; NULL for none
 * @more:      messages may be waiting in the wire
 */
struct client {
	struct wire *wire;
	uint64_t heard;
	struct json_object *request;
	bool more;
};

/**
 * struct server - all of it
 *
 * The thread's own: @listener, @clients.
 * Constant while it runs: @socket_path, @bell (an eventfd that the worker rings), @thread,
 * @worker.
 * Under publish_lock: @writer, NULL once withdrawn.
 * Under job_lock: @jobs[] (one for each client's place), @next_ticket, @closing; job_ready
 * tells the worker.
 */
struct server {
	pthread_t thread;
	pthread_t worker;
	char socket_path[RUNDIR_PATH_MAX];
	int listener;
	int bell;
	struct client clients[SERVER_CLIENTS];

	pthread_mutex_t publish_lock;
	struct mv_stats_writer *writer;

	pthread_mutex_t job_lock;
	pthread_cond_t job_ready;
	struct job jobs[SERVER_CLIENTS];
	uint64_t next_ticket;
	bool closing;
};

#define SERVER_INITIALIZER                                                                         \
	{                                                                                          \
		.listener = -1, .bell = -1, .publish_lock = PTHREAD_MUTEX_INITIALIZER,             \
		.job_lock = PTHREAD_MUTEX_INITIALIZER, .job_ready = PTHREAD_COND_INITIALIZER,      \
	}

/**
 * server_start() - open socket and segment and start the threads
 * @why: on failure set to a sentence that says what is wrong; @why_len bytes
 *
 * Return: 0; -errno, with nothing left behind.
 */
int server_start(char *why, size_t why_len);

/** server_withdraw() - remove socket and segment: the process ends. Context: any thread. */
void server_withdraw(void);

/** server_close_in_child() - a forked child lets go of the sockets. Calls close() alone. */
void server_close_in_child(void);

/* --- between the files of the server -------------------------------------------------------- */

/** publish_open() - make the segment. Return: 0; -errno. */
int publish_open(struct server *server);

/** publish() - put fresh numbers into the segment */
void publish(struct server *server);

/** publish_close() - remove it. Context: any thread. */
void publish_close(struct server *server);

/** publish_query() - the numbers as query-stats shows them. Return: NULL without memory. */
struct json_object *publish_query(struct server *server);

/**
 * publish_note() - take in what the governor knows
 * @arguments: of the command
 * @wrong:     on -EINVAL set to the member that is not understood
 *
 * All or nothing. Return: 0; -EINVAL.
 */
int publish_note(struct server *server, struct json_object *arguments, const char **wrong);

/**
 * command_answer() - carry out a request
 * @server:  the server
 * @message: what arrived
 * @place:   of its client
 *
 * Return: the answer; NULL where the worker has been given the job, or without memory (*@job
 * tells which).
 */
struct json_object *command_answer(struct server *server, struct json_object *message,
				   unsigned int place, bool *job);

/** command_job_answer() - the answer to a request whose job is done; NULL without memory */
struct json_object *command_job_answer(struct json_object *request, const struct job *job);

/**
 * command_read_parse() - the arguments of read-memory
 * @arguments: of the command
 * @read:      set on success; the caller's, to free()
 * @wrong:     on -EINVAL set to what is not right about them
 *
 * Return: 0; -EINVAL; -ENOMEM.
 */
int command_read_parse(struct json_object *arguments, struct memory_read **read,
		       const char **wrong);

/** command_read_carry_out() - for the worker: read; sets the job's error and text */
void command_read_carry_out(struct job *job);

/** command_read_result() - what read-memory returns. Return: NULL without memory. */
struct json_object *command_read_result(const struct memory_read *read);

/** worker_start(), Return: 0; -errno */
int worker_start(struct server *server);

/** worker_end() - make it return, without waiting for it */
void worker_end(struct server *server);

/**
 * worker_give() - queue a job
 * @wanted: its kind and what belongs to that; copied
 *
 * Return: false where one of this place is still under way.
 */
bool worker_give(struct server *server, unsigned int place, const struct job *wanted);

/** worker_take() - collect a job that is done. Return: false where there is none. */
bool worker_take(struct server *server, unsigned int place, struct job *job);

#endif /* PRELOAD_SERVER_H */
