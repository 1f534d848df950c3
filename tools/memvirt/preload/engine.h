/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The machinery inside a VMM: one memory, one store, one pager, and the threads that serve
 * them. Started when the first guest memory is found, in the thread that found it.
 *
 * What does not belong here: which memory is the guest's (ram.h).
 */
#ifndef PRELOAD_ENGINE_H
#define PRELOAD_ENGINE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <memvirt/memory.h>
#include <memvirt/pager.h>
#include <memvirt/platform.h>
#include <memvirt/store.h>

#define EVICTORS_MAX  16
#define HOLD_REASONS  5
#define HOLD_TEXT_MAX 160

/**
 * struct engine - the machinery
 *
 * Set under ram.change_lock, and read by anyone with an acquire load: @memory, @store,
 * @pager. Memory and pager live as long as the process; see engine_close().
 * Atomic: @held: reasons that the pager has been told; @asked: those told before there was
 * one.
 * Under hold_lock: @hold_text[].
 * Under ram.change_lock: the rest.
 */
struct engine {
	struct mv_memory *memory;
	struct mv_store *store;
	struct mv_pager *pager;
	struct mv_platform platform; /* Linux's, with the log turned our way */
	struct mv_platform_ops platform_ops;

	unsigned int held;
	unsigned int asked;
	pthread_mutex_t hold_lock;
	char hold_text[HOLD_REASONS][HOLD_TEXT_MAX]; /* empty: no such reason */

	pthread_t fault_thread;
	pthread_t evict_threads[EVICTORS_MAX];
	unsigned int evict_count;
};

/**
 * engine_start() - make the memory, the store and the pager, and start their threads
 * @why: on failure set to a sentence that says what is missing; @why_len bytes
 *
 * Context: ram.change_lock held; once.
 * Return: 0; -errno, with nothing running.
 */
int engine_start(char *why, size_t why_len);

/**
 * engine_close() - end the threads, and give the store's memory and address space back
 *
 * Context: ram.change_lock held; every region is detached. Takes server.publish_lock.
 */
void engine_close(void);

/**
 * engine_thread() - start a thread of ours, with every signal blocked
 * @thread: set on success
 * @name:   at most 15 bytes
 * @run:    what it runs; calls preload_enter() first
 * @arg:    for @run
 *
 * Return: 0; -errno.
 */
int engine_thread(pthread_t *thread, const char *name, void *(*run)(void *), void *arg);

static inline struct mv_memory *engine_memory(struct engine *engine)
{
	return __atomic_load_n(&engine->memory, __ATOMIC_ACQUIRE);
}

static inline struct mv_pager *engine_pager(struct engine *engine)
{
	return __atomic_load_n(&engine->pager, __ATOMIC_ACQUIRE);
}

static inline struct mv_store *engine_store(struct engine *engine)
{
	return __atomic_load_n(&engine->store, __ATOMIC_ACQUIRE);
}

/**
 * engine_hold() - stop evicting this VM, and say why
 * @reason: one of enum mv_pager_hold
 * @why:    what the VMM does
 *
 * When it returns no eviction is under way. Cheap once it stands.
 *
 * Context: any thread but the pager's own.
 */
void engine_hold(unsigned int reason, const char *why);

/** engine_unhold() - the reason has ceased */
void engine_unhold(unsigned int reason);

/**
 * engine_hold_text() - why nothing is evicted
 * @bit:  number of a bit of enum mv_pager_hold
 * @text: HOLD_TEXT_MAX bytes; set, empty where the reason does not stand
 */
void engine_hold_text(unsigned int bit, char *text);

#endif /* PRELOAD_ENGINE_H */
