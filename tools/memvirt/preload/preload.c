/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The state of the preload library, and its beginning and end in a process.
 *
 * It has a constructor, which the library of memvirt itself does without: nobody in the VMM
 * could call an init function, and the functions behind the interposed ones, the settings
 * and the fork handlers must be known before the VMM's main() runs. No socket, no thread
 * and no memory of the pager's is made before guest memory is found.
 */
#undef _FORTIFY_SOURCE
#include "memvirt/preload/preload.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "memvirt/preload/real.h"

struct preload preload = {
	.ranges = { .lowest = UINTPTR_MAX },
	.ram = { .change_lock = PTHREAD_MUTEX_INITIALIZER,
		 .lock = PTHREAD_MUTEX_INITIALIZER,
		 .next_gpa = 0 },
	.engine = { .hold_lock = PTHREAD_MUTEX_INITIALIZER },
	.aio = { .lock = PTHREAD_MUTEX_INITIALIZER },
	.server = SERVER_INITIALIZER,
	.message_lock = PTHREAD_MUTEX_INITIALIZER,
};

__thread unsigned int preload_inside;

/* --- saying something --------------------------------------------------------------------- */

static void keep_message(const char *text)
{
	pthread_mutex_lock(&preload.message_lock);
	snprintf(preload.messages[preload.message_count % MESSAGES_MAX], MESSAGE_BYTES, "%s", text);
	preload.message_count++;
	pthread_mutex_unlock(&preload.message_lock);
}

/* To the descriptor: the VMM's stdio may be in any state, and locked. */
void preload_say(enum mv_log_level level, const char *format, ...)
{
	char text[MESSAGE_BYTES], line[MESSAGE_BYTES + 96];
	int saved = errno, len;
	va_list args;

	if (level >= MV_LOG_INFO && !preload.settings.verbose)
		return;
	va_start(args, format);
	vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	keep_message(text);
	len = snprintf(line, sizeof(line), "memvirt: %s: %s\n", preload.settings.name, text);
	if (real.write(STDERR_FILENO, line, (size_t)len) < 0) {
		/* A VMM without stderr: the message is in query-info. */
	}
	errno = saved;
}

/* --- settings ----------------------------------------------------------------------------- */

static uint64_t get_bytes(const char *name)
{
	const char *text = getenv(name);
	uint64_t bytes;
	char *end;

	if (!text || !*text)
		return UINT64_MAX;
	errno = 0;
	bytes = strtoull(text, &end, 10);
	if (errno || *end) {
		preload_say(MV_LOG_ERROR, "%s='%s' is no number of bytes: no limit is set", name,
			    text);
		return UINT64_MAX;
	}
	return bytes;
}

static unsigned int get_evictors(void)
{
	const char *text = getenv("MEMVIRT_EVICTORS");
	long count = text && *text ? strtol(text, NULL, 10) : 1;

	return count < 1 ? 1 : count > EVICTORS_MAX ? EVICTORS_MAX : (unsigned int)count;
}

static bool get_text(const char *name, char *text, size_t room)
{
	const char *value = getenv(name);

	return value && snprintf(text, room, "%s", value) < (int)room && *text;
}

/* The process that `memvirt run` became: a child has another number. */
static bool is_first(void)
{
	const char *text = getenv("MEMVIRT_PROCESS");

	return text && strtol(text, NULL, 10) == (long)preload.pid;
}

static void read_settings(struct settings *settings)
{
	const char *verbose = getenv("MEMVIRT_VERBOSE");

	if (!get_text("MEMVIRT_NAME", settings->name, sizeof(settings->name)) ||
	    !rundir_name_valid(settings->name) ||
	    !get_text("MEMVIRT_RUN_DIR", settings->run_dir, sizeof(settings->run_dir)))
		return;
	get_text("MEMVIRT_QMP", settings->qmp, sizeof(settings->qmp));
	settings->verbose = verbose && *verbose && strcmp(verbose, "0") != 0;
	settings->limit_bytes = get_bytes("MEMVIRT_LIMIT");
	settings->store_limit_bytes = get_bytes("MEMVIRT_STORE_LIMIT");
	settings->evictors = get_evictors();
	preload.pid = getpid();
	settings->first = is_first();
	settings->given = true;
}

static bool is_ours(const char *path, size_t len)
{
	static const char name[] = "/libmemvirt-preload.so";
	size_t name_len = sizeof(name) - 1;

	return len >= name_len && memcmp(path + len - name_len, name, name_len) == 0;
}

/* What others have put into LD_PRELOAD stays there. */
static void clean_preload(void)
{
	const char *old = getenv("LD_PRELOAD");
	char *left = old ? calloc(1, strlen(old) + 1) : NULL;

	if (!left)
		return;
	while (*old) {
		size_t len = strcspn(old, " :");

		if (len && !is_ours(old, len)) {
			if (*left)
				strcat(left, ":");
			strncat(left, old, len);
		}
		old += len + (old[len] != '\0');
	}
	if (*left)
		setenv("LD_PRELOAD", left, 1);
	else
		unsetenv("LD_PRELOAD");
	free(left);
}

void preload_clean_environment(void)
{
	static const char *const names[] = {
		"MEMVIRT_NAME",	   "MEMVIRT_LIMIT",   "MEMVIRT_STORE_LIMIT", "MEMVIRT_QMP",
		"MEMVIRT_RUN_DIR", "MEMVIRT_VERBOSE", "MEMVIRT_EVICTORS",    "MEMVIRT_PROCESS",
	};

	clean_preload();
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unsetenv(names[i]);
}

/* --- fork --------------------------------------------------------------------------------- */

/*
 * A child that does not execute another program at once would find zeros where pages are
 * stored. QEMU keeps guest memory from its children, and so nothing happens here.
 */
void preload_before_fork(void)
{
	if (preload_found() && ram_forks())
		ram_share_all("the VMM has forked, and its child has guest memory too");
}

/* Who forks before there is a guest may be a wrapper, or on its way into the background. */
static void in_parent(void)
{
	preload.settings.first = false;
}

static void renew_locks(void)
{
	pthread_mutex_init(&preload.ram.change_lock, NULL);
	pthread_mutex_init(&preload.ram.lock, NULL);
	pthread_mutex_init(&preload.engine.hold_lock, NULL);
	pthread_mutex_init(&preload.message_lock, NULL);
}

/*
 * None of our threads lives in the child of a VMM, and locks may be held for ever: all calls
 * are passed on. A child of a process without a guest may yet become a VMM: qemu -daemonize.
 */
void preload_in_child(void)
{
	preload.settings.first = false;
	if (!__atomic_load_n(&preload.found, __ATOMIC_ACQUIRE)) {
		preload.pid = getpid();
		renew_locks();
		return;
	}
	__atomic_store_n(&preload.inert, true, __ATOMIC_RELAXED);
	__atomic_store_n(&preload.ranges.lowest, UINTPTR_MAX, __ATOMIC_RELAXED);
	__atomic_store_n(&preload.ranges.highest, 0, __ATOMIC_RELAXED);
	server_close_in_child();
}

/* --- beginning and end -------------------------------------------------------------------- */

__attribute__((constructor)) static void begin(void)
{
	real_resolve();
	read_settings(&preload.settings);
	if (preload.settings.given)
		pthread_atfork(preload_before_fork, in_parent, preload_in_child);
}

/* The threads stay: the VMM's own end may still touch guest memory. */
__attribute__((destructor)) static void end(void)
{
	if (preload_idle() || getpid() != preload.pid)
		return;
	if (__atomic_load_n(&preload.found, __ATOMIC_ACQUIRE))
		server_withdraw();
	else if (preload.settings.first)
		preload_say(MV_LOG_WARNING,
			    "no guest memory was found in %s: it ran as without "
			    "memvirt",
			    program_invocation_short_name);
}
