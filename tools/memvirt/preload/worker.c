/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The thread for commands that may take long; see server.h. With a limit that is raised or
 * removed, memory comes back from the store at about a gigabyte a second, and the statistics
 * are not to stand still meanwhile.
 */
#include "memvirt/preload/server.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <memvirt/pager.h>

#include "memvirt/preload/preload.h"

static const char *limit_error(int error)
{
	switch (error) {
	case -EINVAL:
		return "the limit is below 1 MiB";
	case -EBUSY:
		return "another userfaultfd has the guest's memory: try again when the snapshot or "
		       "migration is over";
	case -EOPNOTSUPP:
		return "this guest's memory cannot be managed: see query-info";
	case -ENOMEM:
		return "the host has no memory to bring everything back: free some, or set a limit";
	case -EIO:
		return "pages could not be read back from the store";
	}
	return strerror(-error);
}

static void set_limit(struct job *job)
{
	struct mv_pager *pager = engine_pager(&preload.engine);

	if (!pager) {
		job->error = -EOPNOTSUPP;
		snprintf(job->text, sizeof(job->text), "%s", preload.ram.refusal);
		return;
	}
	job->error = mv_pager_set_limit(pager, job->bytes);
	if (job->error)
		snprintf(job->text, sizeof(job->text), "%s", limit_error(job->error));
}

static void stop(struct job *job)
{
	job->error = ram_close("memvirt was told to stop");
	if (job->error)
		snprintf(job->text, sizeof(job->text), "%s", limit_error(job->error));
}

static void carry_out(struct job *job)
{
	switch (job->kind) {
	case JOB_SET_LIMIT:
		set_limit(job);
		break;
	case JOB_READ_MEMORY:
		command_read_carry_out(job);
		break;
	case JOB_STOP:
		stop(job);
		break;
	}
}

static struct job *oldest(struct server *server)
{
	struct job *found = NULL;

	for (unsigned int i = 0; i < SERVER_CLIENTS; i++) {
		struct job *job = &server->jobs[i];

		if (job->state == JOB_QUEUED && (!found || job->ticket < found->ticket))
			found = job;
	}
	return found;
}

static void ring(struct server *server)
{
	uint64_t one = 1;

	if (write(server->bell, &one, sizeof(one)) < 0) {
		/* The counter is full: the bell is ringing already. */
	}
}

static void *work(void *arg)
{
	struct server *server = arg;
	struct job *job;

	preload_enter();
	pthread_mutex_lock(&server->job_lock);
	while (!server->closing) {
		job = oldest(server);
		if (!job) {
			pthread_cond_wait(&server->job_ready, &server->job_lock);
			continue;
		}
		job->state = JOB_RUNNING;
		pthread_mutex_unlock(&server->job_lock);
		carry_out(job);
		pthread_mutex_lock(&server->job_lock);
		job->state = JOB_DONE;
		ring(server);
	}
	pthread_mutex_unlock(&server->job_lock);
	return NULL;
}

int worker_start(struct server *server)
{
	return engine_thread(&server->worker, "memvirt-work", work, server);
}

void worker_end(struct server *server)
{
	pthread_mutex_lock(&server->job_lock);
	server->closing = true;
	/* Nobody takes these any more; the one that runs is `stop`, which has none. */
	for (unsigned int i = 0; i < SERVER_CLIENTS; i++) {
		free(server->jobs[i].read);
		server->jobs[i].read = NULL;
	}
	pthread_cond_signal(&server->job_ready);
	pthread_mutex_unlock(&server->job_lock);
}

bool worker_give(struct server *server, unsigned int place, const struct job *wanted)
{
	struct job *job = &server->jobs[place];
	bool free;

	pthread_mutex_lock(&server->job_lock);
	free = job->state == JOB_FREE;
	if (free) {
		*job = *wanted;
		job->state = JOB_QUEUED;
		job->ticket = server->next_ticket++;
		pthread_cond_signal(&server->job_ready);
	}
	pthread_mutex_unlock(&server->job_lock);
	return free;
}

bool worker_take(struct server *server, unsigned int place, struct job *job)
{
	struct job *ours = &server->jobs[place];
	bool done;

	pthread_mutex_lock(&server->job_lock);
	done = ours->state == JOB_DONE;
	if (done) {
		*job = *ours;
		ours->read = NULL;
		ours->state = JOB_FREE;
	}
	pthread_mutex_unlock(&server->job_lock);
	return done;
}
