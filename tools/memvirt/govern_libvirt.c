/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VMs under libvirt; see govern_libvirt.h. libvirt's C API, libvirt-domain.h: the few functions
 * that are needed are declared here, so that nothing of it is needed to build.
 */
#include "govern_libvirt.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "vm/clock.h"
#include "vm/say.h"

#define LIBRARY "libvirt.so.0"

/* virConnectListAllDomainsFlags, virDomainModificationImpact */
#define LIST_ACTIVE 1
#define AFFECT_LIVE 1

/* virDomainMemoryStatTags; in KiB, but for faults and the time */
enum {
	STAT_SWAP_IN,
	STAT_SWAP_OUT,
	STAT_MAJOR_FAULTS,
	STAT_MINOR_FAULTS,
	STAT_UNUSED,
	STAT_AVAILABLE,
	STAT_ACTUAL_BALLOON,
	STAT_RSS,
	STAT_USABLE,
	STAT_LAST_UPDATE,
	STAT_DISK_CACHES,
	STATS = 16,
};

/* Nothing is known of a VM that was seen longer ago than so many intervals. */
#define STALE_INTERVALS 3

/* At the end, so long for what is still to be told. */
#define FAREWELL_NS CLOCK_S

#define VMS_MAX 4096

struct domain_stat {
	int tag;
	unsigned long long value;
};

/** struct library - what is used of it */
struct library {
	void *handle;
	void *(*open)(const char *uri);
	int (*close)(void *connection);
	int (*list)(void *connection, void ***domains, unsigned int flags);
	const char *(*name)(void *domain);
	unsigned long (*max_memory)(void *domain);
	int (*stats)(void *domain, struct domain_stat *stats, unsigned int count,
		     unsigned int flags);
	int (*set_period)(void *domain, int seconds, unsigned int flags);
	int (*set_memory)(void *domain, unsigned long kib, unsigned int flags);
	int (*free)(void *domain);
	const char *(*last_error)(void);
	void (*set_error_func)(void *data, void (*handler)(void *data, void *error));
};

/** struct target - to be told */
struct target {
	char name[RUNDIR_NAME_MAX + 1];
	uint64_t bytes;
};

/*
 * Under @lock: @vms, @seen_ns, @targets, @ending. The rest is the thread's.
 */
struct govern_libvirt {
	struct library library;
	char uri[256];
	uint64_t interval_ns;
	void *connection;
	bool complained;
	pthread_t thread;

	pthread_mutex_t lock;
	pthread_cond_t news;
	struct libvirt_vm *vms;
	unsigned int count;
	uint64_t seen_ns;
	struct target *targets;
	unsigned int target_count;
	bool ending;
	bool ended;
};

/* --- loading ------------------------------------------------------------------------------ */

static bool find(struct library *library, const char *name, void *function)
{
	/* POSIX has functions in the pointers that dlsym() gives. */
	void *found = dlsym(library->handle, name);

	memcpy(function, &found, sizeof(found));
	return found != NULL;
}

static int load(struct library *library, char *why)
{
	library->handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	if (!library->handle) {
		snprintf(why, LIBVIRT_WHY, "is it installed? %s", dlerror());
		return -ENOENT;
	}
	if (find(library, "virConnectOpen", &library->open) &&
	    find(library, "virConnectClose", &library->close) &&
	    find(library, "virConnectListAllDomains", &library->list) &&
	    find(library, "virDomainGetName", &library->name) &&
	    find(library, "virDomainGetMaxMemory", &library->max_memory) &&
	    find(library, "virDomainMemoryStats", &library->stats) &&
	    find(library, "virDomainSetMemoryStatsPeriod", &library->set_period) &&
	    find(library, "virDomainSetMemoryFlags", &library->set_memory) &&
	    find(library, "virDomainFree", &library->free) &&
	    find(library, "virGetLastErrorMessage", &library->last_error) &&
	    find(library, "virSetErrorFunc", &library->set_error_func))
		return 0;
	snprintf(why, LIBVIRT_WHY, "this version lacks functions that are needed");
	dlclose(library->handle);
	return -ENOENT;
}

/* It prints each error itself otherwise. */
static void be_quiet(void *data, void *error)
{
}

/* Once, until it works again. */
static void complain(struct govern_libvirt *v, const char *what)
{
	if (!v->complained)
		say("libvirt %s: %s: %s", v->uri, what, v->library.last_error());
	v->complained = true;
}

/* --- looking ------------------------------------------------------------------------------ */

static uint64_t kib(unsigned long long value)
{
	return value < UINT64_MAX / 1024 ? value * 1024 : UINT64_MAX;
}

static void take_stat(struct libvirt_vm *vm, const struct domain_stat *stat)
{
	switch (stat->tag) {
	case STAT_SWAP_IN:
		vm->guest.swap_in_bytes = kib(stat->value);
		break;
	case STAT_SWAP_OUT:
		vm->guest.swap_out_bytes = kib(stat->value);
		break;
	case STAT_MAJOR_FAULTS:
		vm->guest.major_faults = stat->value;
		break;
	case STAT_MINOR_FAULTS:
		vm->guest.minor_faults = stat->value;
		break;
	case STAT_UNUSED:
		vm->guest.free_bytes = kib(stat->value);
		break;
	case STAT_AVAILABLE:
		vm->guest.total_bytes = kib(stat->value);
		break;
	case STAT_ACTUAL_BALLOON:
		vm->actual_bytes = kib(stat->value);
		break;
	case STAT_USABLE:
		vm->guest.available_bytes = kib(stat->value);
		break;
	case STAT_LAST_UPDATE:
		vm->guest.update_s = stat->value;
		break;
	case STAT_DISK_CACHES:
		vm->guest.disk_cache_bytes = kib(stat->value);
		break;
	}
}

/* Return: whether it can be governed. */
static bool look_at(struct govern_libvirt *v, void *domain, struct libvirt_vm *vm)
{
	struct domain_stat stats[STATS];
	const char *name = v->library.name(domain);
	int count;

	if (!name || strlen(name) > RUNDIR_NAME_MAX || !rundir_name_valid(name))
		return false;
	memset(vm, 0xff, sizeof(*vm)); /* unknown, each of them */
	vm->guest.update_s = 0;
	strcpy(vm->name, name);
	vm->size_bytes = kib(v->library.max_memory(domain));
	count = v->library.stats(domain, stats, STATS, 0);
	for (int i = 0; i < count; i++)
		take_stat(vm, &stats[i]);
	return vm->size_bytes != 0 && count >= 0;
}

static bool take_target(struct govern_libvirt *v, const char *name, uint64_t *bytes)
{
	bool found = false;

	pthread_mutex_lock(&v->lock);
	for (unsigned int i = 0; i < v->target_count && !found; i++) {
		if (strcmp(v->targets[i].name, name))
			continue;
		*bytes = v->targets[i].bytes;
		v->targets[i] = v->targets[--v->target_count];
		found = true;
	}
	pthread_mutex_unlock(&v->lock);
	return found;
}

static void tell(struct govern_libvirt *v, void *domain, const char *name)
{
	uint64_t bytes;

	if (take_target(v, name, &bytes) &&
	    v->library.set_memory(domain, (unsigned long)(bytes / 1024), AFFECT_LIVE))
		complain(v, name);
}

static void show(struct govern_libvirt *v, struct libvirt_vm *vms, unsigned int count)
{
	pthread_mutex_lock(&v->lock);
	free(v->vms);
	v->vms = vms;
	v->count = count;
	v->seen_ns = clock_now();
	pthread_mutex_unlock(&v->lock);
}

static bool has(const struct govern_libvirt *v, const char *name)
{
	for (unsigned int i = 0; i < v->count; i++)
		if (!strcmp(v->vms[i].name, name))
			return true;
	return false;
}

/* A guest speaks once it is asked to. */
static void visit(struct govern_libvirt *v, void *domain, struct libvirt_vm *vms,
		  unsigned int *count)
{
	struct libvirt_vm *vm = &vms[*count];

	if (!look_at(v, domain, vm))
		return;
	(*count)++;
	if (!has(v, vm->name))
		v->library.set_period(domain, 1, AFFECT_LIVE);
	tell(v, domain, vm->name);
}

static void visit_all(struct govern_libvirt *v)
{
	void **domains = NULL;
	int found = v->library.list(v->connection, &domains, LIST_ACTIVE);
	unsigned int count = 0;
	struct libvirt_vm *vms = found > 0 ? calloc((size_t)found, sizeof(*vms)) : NULL;

	if (found < 0) {
		complain(v, "list of VMs");
		v->library.close(v->connection);
		v->connection = NULL;
		return;
	}
	for (int i = 0; i < found; i++) {
		if (vms)
			visit(v, domains[i], vms, &count);
		v->library.free(domains[i]);
	}
	free(domains);
	v->complained = false;
	show(v, vms, count);
}

/* --- the thread --------------------------------------------------------------------------- */

/* Until the next look is due, there is something to tell, or it is to end. */
static bool wait_for_news(struct govern_libvirt *v)
{
	struct timespec until;
	bool end;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += (time_t)(v->interval_ns / CLOCK_S);
	until.tv_nsec += (long)(v->interval_ns % CLOCK_S);
	if (until.tv_nsec >= (long)CLOCK_S) {
		until.tv_sec++;
		until.tv_nsec -= (long)CLOCK_S;
	}
	pthread_mutex_lock(&v->lock);
	while (!v->ending && !v->target_count &&
	       pthread_cond_timedwait(&v->news, &v->lock, &until) != ETIMEDOUT)
		;
	end = v->ending && !v->target_count;
	pthread_mutex_unlock(&v->lock);
	return !end;
}

static void *run(void *arg)
{
	struct govern_libvirt *v = arg;

	do {
		if (!v->connection)
			v->connection = v->library.open(v->uri);
		if (v->connection)
			visit_all(v);
		else
			complain(v, "no connection");
		if (!v->connection) {
			/* Nobody is there to be told. */
			pthread_mutex_lock(&v->lock);
			v->target_count = 0;
			pthread_mutex_unlock(&v->lock);
		}
	} while (wait_for_news(v));
	if (v->connection)
		v->library.close(v->connection);
	pthread_mutex_lock(&v->lock);
	v->ended = true;
	pthread_cond_broadcast(&v->news);
	pthread_mutex_unlock(&v->lock);
	return NULL;
}

int govern_libvirt_open(const char *uri, double interval_s, struct govern_libvirt **libvirt,
			char *why)
{
	struct govern_libvirt *v = calloc(1, sizeof(*v));
	pthread_condattr_t attr;
	int err;

	if (!v) {
		snprintf(why, LIBVIRT_WHY, "no memory");
		return -ENOMEM;
	}
	err = load(&v->library, why);
	if (err) {
		free(v);
		return err;
	}
	snprintf(v->uri, sizeof(v->uri), "%s", uri);
	v->interval_ns = (uint64_t)(interval_s * 1e9);
	v->library.set_error_func(NULL, be_quiet);
	pthread_mutex_init(&v->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&v->news, &attr);
	pthread_condattr_destroy(&attr);
	err = -pthread_create(&v->thread, NULL, run, v);
	if (err) {
		snprintf(why, LIBVIRT_WHY, "its thread: %s", strerror(-err));
		free(v);
		return err;
	}
	*libvirt = v;
	return 0;
}

void govern_libvirt_close(struct govern_libvirt *v)
{
	struct timespec until;
	bool ended;

	if (!v)
		return;
	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += FAREWELL_NS / CLOCK_S;
	pthread_mutex_lock(&v->lock);
	v->ending = true;
	pthread_cond_broadcast(&v->news);
	while (!v->ended && pthread_cond_timedwait(&v->news, &v->lock, &until) != ETIMEDOUT)
		;
	ended = v->ended;
	pthread_mutex_unlock(&v->lock);
	/* One that hangs in a call is left to the end of the process, with what it uses. */
	if (!ended)
		return;
	pthread_join(v->thread, NULL);
	free(v->vms);
	free(v->targets);
	free(v);
}

/* --- the governor's side ------------------------------------------------------------------ */

unsigned int govern_libvirt_vms(struct govern_libvirt *v, struct libvirt_vm **vms)
{
	unsigned int count = 0;

	*vms = NULL;
	pthread_mutex_lock(&v->lock);
	if (v->count && clock_now() - v->seen_ns <= STALE_INTERVALS * (v->interval_ns + CLOCK_S))
		*vms = malloc(v->count * sizeof(**vms));
	if (*vms) {
		count = v->count;
		memcpy(*vms, v->vms, count * sizeof(**vms));
	}
	pthread_mutex_unlock(&v->lock);
	return count;
}

void govern_libvirt_set(struct govern_libvirt *v, const char *name, uint64_t bytes)
{
	struct target *more = NULL;

	pthread_mutex_lock(&v->lock);
	for (unsigned int i = 0; i < v->target_count; i++)
		if (!strcmp(v->targets[i].name, name))
			more = &v->targets[i];
	if (!more && v->target_count < VMS_MAX) {
		more = realloc(v->targets, (v->target_count + 1) * sizeof(*more));
		if (more) {
			v->targets = more;
			more = &more[v->target_count++];
			snprintf(more->name, sizeof(more->name), "%s", name);
		}
	}
	if (more)
		more->bytes = bytes;
	pthread_cond_broadcast(&v->news);
	pthread_mutex_unlock(&v->lock);
}
