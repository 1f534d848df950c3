/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The pager's machinery inside a VMM; see engine.h.
 */
#include "memvirt/preload/engine.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <memvirt/platform.h>

#include "memvirt/preload/preload.h"

static struct engine *const engine = &preload.engine;

/* The VMM's default may be small, or so large that mlockall() hurts. */
#define STACK_BYTES (1UL << 20)

/* --- what the library says goes where the rest goes -------------------------------------- */

static void log_line(void *ctx, enum mv_log_level level, const char *line)
{
	preload_say(level, "%s", line);
}

static const struct mv_platform *make_platform(void)
{
	engine->platform = *mv_platform_linux();
	engine->platform_ops = *engine->platform.ops;
	engine->platform_ops.log = log_line;
	engine->platform.ops = &engine->platform_ops;
	return &engine->platform;
}

/* --- threads ---------------------------------------------------------------------------- */

/*
 * The handler is the only way back for stored pages, so it is taken up again whatever ended
 * it. It ends between faults, with none half done: going on loses nothing.
 */
static void *fault_thread(void *arg)
{
	const struct timespec moment = {.tv_nsec = 100000000};
	int error;

	preload_enter();
	while ((error = mv_pager_handle_faults(arg)) != 0) {
		preload_say(MV_LOG_ERROR, "the fault handler has ended (%s), and is started again",
			    strerror(-error));
		nanosleep(&moment, NULL);
	}
	return NULL;
}

static void *evict_thread(void *arg)
{
	int error;

	preload_enter();
	error = mv_pager_evict(arg);
	if (error)
		preload_say(MV_LOG_ERROR, "an evictor has ended: %s", strerror(-error));
	return NULL;
}

int engine_thread(pthread_t *thread, const char *name, void *(*run)(void *), void *arg)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int error;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	/* A VMM's signal handlers expect its own threads: QEMU kicks a vCPU with SIGUSR1. */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	error = pthread_create(thread, &attr, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	if (!error)
		pthread_setname_np(*thread, name);
	return -error;
}

/* --- start and stop --------------------------------------------------------------------- */

static const char *probe_error(int error)
{
	if (error == -EACCES || error == -EPERM)
		return "userfaultfd is not allowed to this user: give access to /dev/userfaultfd, "
		       "or set vm.unprivileged_userfaultfd=1";
	if (error == -ENOSYS)
		return "this kernel has no userfaultfd";
	return strerror(-error);
}

/*
 * Keys are pages, and cost the store half a byte each. A VM may be larger than its host;
 * memory may be plugged in later.
 */
static uint64_t store_keys(void)
{
	long pages = sysconf(_SC_PHYS_PAGES);
	uint64_t least = 1ULL << 22;

	return pages > 0 && (uint64_t)pages * 2 > least ? (uint64_t)pages * 2 : least;
}

static int create_store(const struct mv_platform *platform, uint64_t keys, struct mv_store **store)
{
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.platform = platform,
		.keys = keys,
		.limit_bytes = preload.settings.store_limit_bytes,
		.lock_memory = 1,
	};

	return mv_ram_store_create(&config, store);
}

static int create(struct mv_memory **memory, struct mv_store **store, struct mv_pager **pager)
{
	struct mv_memory_config memory_config = { sizeof(memory_config), make_platform() };
	struct mv_pager_config config = { .size = sizeof(config), .store_keys = store_keys() };
	int error = mv_memory_create(&memory_config, memory);

	if (error)
		return error;
	error = create_store(memory_config.platform, config.store_keys, store);
	if (!error) {
		config.memory = *memory;
		config.store = *store;
		config.limit_bytes = preload.settings.limit_bytes;
		error = mv_pager_create(&config, pager);
		if (!error)
			return 0;
		mv_store_destroy(*store);
	}
	mv_memory_destroy(*memory);
	return error;
}

static int start_threads(struct mv_pager *pager)
{
	int error = engine_thread(&engine->fault_thread, "memvirt-fault", fault_thread, pager);

	if (error)
		return error;
	while (!error && engine->evict_count < preload.settings.evictors) {
		error = engine_thread(&engine->evict_threads[engine->evict_count], "memvirt-evict",
				      evict_thread, pager);
		if (!error)
			engine->evict_count++;
	}
	if (engine->evict_count)
		return 0;
	mv_pager_stop(pager);
	pthread_join(engine->fault_thread, NULL);
	return error;
}

/* From here on interposed functions see the pager: those that asked before are heard now. */
static void show_pager(struct mv_memory *memory, struct mv_store *store, struct mv_pager *pager)
{
	pthread_mutex_lock(&engine->hold_lock);
	__atomic_store_n(&engine->memory, memory, __ATOMIC_RELEASE);
	__atomic_store_n(&engine->store, store, __ATOMIC_RELEASE);
	__atomic_store_n(&engine->pager, pager, __ATOMIC_RELEASE);
	if (engine->asked)
		mv_pager_hold(pager, engine->asked);
	for (unsigned int bit = 0; bit < HOLD_REASONS; bit++)
		if (engine->asked >> bit & 1)
			preload_say(MV_LOG_WARNING, "nothing will be evicted: %s",
				    engine->hold_text[bit]);
	__atomic_store_n(&engine->held, engine->asked, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&engine->hold_lock);
}

int engine_start(char *why, size_t why_len)
{
	struct mv_memory *memory;
	struct mv_store *store;
	struct mv_pager *pager;
	unsigned int features;
	int error = mv_pager_probe(&features);

	if (!error)
		error = create(&memory, &store, &pager);
	if (error) {
		snprintf(why, why_len, "%s", probe_error(error));
		return error;
	}
	error = start_threads(pager);
	if (error) {
		snprintf(why, why_len, "the pager's threads cannot be started: %s",
			 strerror(-error));
		mv_pager_destroy(pager);
		mv_store_destroy(store);
		mv_memory_destroy(memory);
		return error;
	}
	show_pager(memory, store, pager);
	return 0;
}

/*
 * The store goes, with the address space that it reserves; nothing is in it. The pager and
 * the memory are left as they are: another thread may be inside a function of theirs.
 */
void engine_close(void)
{
	struct mv_pager *pager = engine_pager(engine);
	struct mv_store *store = engine_store(engine);

	if (!pager)
		return;
	mv_pager_stop(pager);
	pthread_join(engine->fault_thread, NULL);
	for (unsigned int i = 0; i < engine->evict_count; i++)
		pthread_join(engine->evict_threads[i], NULL);
	/* Who collects numbers looks at both under this lock. */
	pthread_mutex_lock(&preload.server.publish_lock);
	__atomic_store_n(&engine->pager, NULL, __ATOMIC_RELEASE);
	__atomic_store_n(&engine->store, NULL, __ATOMIC_RELEASE);
	pthread_mutex_unlock(&preload.server.publish_lock);
	mv_store_destroy(store);
}

/* --- holds ------------------------------------------------------------------------------ */

void engine_hold(unsigned int reason, const char *why)
{
	unsigned int bit = (unsigned int)__builtin_ctz(reason);
	struct mv_pager *pager;
	int saved = errno;

	/* Acquire pairs with the release below: the pager has been told, and has stopped. */
	if (__atomic_load_n(&engine->held, __ATOMIC_ACQUIRE) & reason)
		return;
	preload_enter();
	pthread_mutex_lock(&engine->hold_lock);
	if (!engine->hold_text[bit][0]) {
		snprintf(engine->hold_text[bit], HOLD_TEXT_MAX, "%s", why);
		if (engine->pager)
			preload_say(MV_LOG_WARNING, "nothing is evicted any more: %s", why);
	}
	engine->asked |= reason;
	pager = engine->pager;
	if (pager) {
		mv_pager_hold(pager, reason);
		__atomic_fetch_or(&engine->held, reason, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&engine->hold_lock);
	preload_leave();
	errno = saved;
}

void engine_unhold(unsigned int reason)
{
	unsigned int bit = (unsigned int)__builtin_ctz(reason);
	struct mv_pager *pager;

	pthread_mutex_lock(&engine->hold_lock);
	engine->hold_text[bit][0] = '\0';
	engine->asked &= ~reason;
	__atomic_fetch_and(&engine->held, ~reason, __ATOMIC_RELEASE);
	pager = engine->pager;
	if (pager)
		mv_pager_unhold(pager, reason);
	pthread_mutex_unlock(&engine->hold_lock);
}

void engine_hold_text(unsigned int bit, char *text)
{
	pthread_mutex_lock(&engine->hold_lock);
	memcpy(text, engine->hold_text[bit], HOLD_TEXT_MAX);
	pthread_mutex_unlock(&engine->hold_lock);
}
