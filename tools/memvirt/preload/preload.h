/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The preload library of `memvirt run`: it enters an unmodified VMM, finds guest memory as
 * the VMM maps it, hands it to the pager, and keeps the VMM's own system calls and the
 * pager out of each other's way. docs/preload.md says what is interposed and why.
 *
 *	wrap_*.c     the interposed functions, one file per family: find out whether
 *	             a call concerns guest memory, and if so
 *	ram.h        which memory is the guest's: found, gone, lent out
 *	pins.h       keep pages in place while the kernel reaches them
 *	aio_ring.h   the same for libaio, whose end no call announces
 *	engine.h     the pager with its threads
 *	server.h     the control socket and the statistics segment
 *
 * All state is in struct preload, which preload.c defines. The library is inert in every
 * process in which no guest memory is found, and in a child that was forked.
 */
#ifndef PRELOAD_H
#define PRELOAD_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <memvirt/platform.h>

#include "memvirt/preload/aio_ring.h"
#include "memvirt/preload/engine.h"
#include "memvirt/preload/ram.h"
#include "memvirt/preload/ranges.h"
#include "memvirt/preload/server.h"
#include "vm/rundir.h"

#define EXPORT __attribute__((visibility("default")))

#define MESSAGES_MAX  16
#define MESSAGE_BYTES 256

/** struct settings - what `memvirt run` asked for, from the environment */
struct settings {
	bool given; /* else the library was loaded by something else, and does nothing */
	bool first; /* what `memvirt run` became, or what that executed; never forked */
	bool verbose;
	char name[RUNDIR_NAME_MAX + 1];
	char run_dir[RUNDIR_PATH_MAX];
	char qmp[256]; /* empty for none */
	uint64_t limit_bytes;
	uint64_t store_limit_bytes;
	unsigned int evictors;
};

/**
 * struct preload - everything that this library knows
 *
 * Constant once the constructor has returned, but for a fork before there is a guest:
 * @settings, @pid.
 * Atomic: @inert (a forked child), @ranges (see there), @found (guest memory was found: the
 * machinery runs or has said why not).
 * Under message_lock: @messages[], @message_count. Taken last; nothing is called under it.
 * The members of other modules say for themselves.
 */
struct preload {
	struct settings settings;
	pid_t pid;
	bool inert;
	bool found;
	struct ranges ranges;

	struct ram ram;
	struct engine engine;
	struct aio aio;
	struct server server;

	pthread_mutex_t message_lock;
	char messages[MESSAGES_MAX][MESSAGE_BYTES];
	unsigned int message_count;
};

extern struct preload preload;

/*
 * Not 0 in our own threads, and in a VMM's thread while it works for us: then the library's
 * own mappings and calls, which arrive at the interposed functions too, pass straight
 * through. The model spares the C library's allocator, which the default one may call.
 */
extern __thread unsigned int preload_inside __attribute__((tls_model("initial-exec")));

static inline void preload_enter(void)
{
	preload_inside++;
}

static inline void preload_leave(void)
{
	preload_inside--;
}

/** preload_idle() - whether calls are to pass straight through */
static inline bool preload_idle(void)
{
	return preload_inside || !preload.settings.given ||
	       __atomic_load_n(&preload.inert, __ATOMIC_RELAXED);
}

/** preload_touches() - whether a call's memory may be the guest's; see ranges_next() */
static inline bool preload_touches(const void *addr, size_t len)
{
	return ranges_maybe(&preload.ranges, addr, len) && !preload_inside;
}

/** preload_found() - whether this process has guest memory at all */
static inline bool preload_found(void)
{
	return __atomic_load_n(&preload.found, __ATOMIC_ACQUIRE) && !preload_idle();
}

/** preload_say() - one line, to the VMM's stderr and into query-info. Context: any thread. */
__attribute__((format(printf, 2, 3))) void preload_say(enum mv_log_level level, const char *format,
						       ...);

/** preload_before_fork() - for forks that the C library's own handlers do not see */
void preload_before_fork(void);

/** preload_in_child() - the same, in the child */
void preload_in_child(void);

/**
 * preload_clean_environment() - what the VMM executes from now on is none of our business
 *
 * Done when guest memory is found rather than at start, so that `memvirt run` works through
 * wrappers that end in exec: a shell script, taskset, numactl.
 */
void preload_clean_environment(void);

#endif /* PRELOAD_H */
