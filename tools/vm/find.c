/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding VMs; see find.h. proc(5).
 */
#include "vm/find.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "vm/clock.h"

/* The start of a process is known in ticks of 10 ms, and two clocks are read one by one. */
#define START_SLACK_NS (50 * CLOCK_MS)

/* --- the process -------------------------------------------------------------------------- */

/** struct process - what proc(5) says of one; all 0 where it cannot be read */
struct process {
	char state;
	uint64_t start_ns; /* CLOCK_BOOTTIME */
};

static struct process read_process(uint64_t pid)
{
	struct process process = { 0 };
	unsigned long long ticks;
	char path[64], line[1024];

	snprintf(path, sizeof(path), "/proc/%llu/stat", (unsigned long long)pid);
	FILE *file = fopen(path, "re");
	if (!file)
		return process;
	size_t len = fread(line, 1, sizeof(line) - 1, file);
	fclose(file);
	line[len] = '\0';

	/* The second field is the program's name, which may hold anything; the 22nd is ours. */
	const char *at = strrchr(line, ')');
	if (at && sscanf(at + 1,
			 " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d "
			 "%*d %*d %*d %llu",
			 &process.state, &ticks) == 2)
		process.start_ns = ticks * (CLOCK_S / (uint64_t)sysconf(_SC_CLK_TCK));
	return process;
}

/* What CLOCK_BOOTTIME is ahead of CLOCK_MONOTONIC: the time that was slept through. */
static uint64_t suspended_ns(void)
{
	struct timespec boot;
	uint64_t monotonic = clock_now();

	clock_gettime(CLOCK_BOOTTIME, &boot);
	return (uint64_t)boot.tv_sec * CLOCK_S + (uint64_t)boot.tv_nsec - monotonic;
}

/* Whether the process that published a segment still lives, and is not one that got its id. */
static bool publisher_lives(const struct mv_stats *stats)
{
	if (stats->pid == 0 || stats->pid > INT32_MAX)
		return false;
	if (kill((pid_t)stats->pid, 0) && errno == ESRCH)
		return false;
	struct process process = read_process(stats->pid);
	if (process.state == 'Z' || process.state == 'X')
		return false;
	return process.start_ns <= stats->start_time + suspended_ns() + START_SLACK_NS;
}

static enum find_state state_of(const struct mv_stats *stats)
{
	uint64_t now = clock_now();

	if (!publisher_lives(stats))
		return FIND_DEAD;
	/* A time in the future comes from before the host's last start. */
	if (stats->pager_time == MV_STATS_UNKNOWN || stats->pager_time > now ||
	    now - stats->pager_time > FIND_SILENT_NS)
		return FIND_SILENT;
	return FIND_OK;
}

void find_refresh(struct find_vm *vm)
{
	vm->error = mv_stats_read(vm->stats_path, &vm->stats);
	vm->state = vm->error ? FIND_UNREADABLE : state_of(&vm->stats);
}

/* --- the directory ------------------------------------------------------------------------ */

static int set_paths(const char *dir, const char *name, struct find_vm *vm)
{
	int err = rundir_path(dir, name, RUNDIR_STATS, vm->stats_path);

	if (!err)
		err = rundir_path(dir, name, RUNDIR_SOCKET, vm->socket);
	if (!err)
		strcpy(vm->name, name);
	return err;
}

int find_vm(const char *dir, const char *name, struct find_vm *vm)
{
	struct find_vm found = { 0 };
	int err = set_paths(dir, name, &found);

	if (err)
		return err;
	if (access(found.stats_path, F_OK) && access(found.socket, F_OK))
		return -ENOENT;
	find_refresh(&found);
	*vm = found;
	return 0;
}

/* The VM's name where a file is one of a VM's: either of its two. */
static bool name_of_file(const char *file, char *name)
{
	const char *dot = strrchr(file, '.');

	if (!dot || (strcmp(dot, RUNDIR_SOCKET) && strcmp(dot, RUNDIR_STATS)) ||
	    dot - file > RUNDIR_NAME_MAX)
		return false;
	memcpy(name, file, (size_t)(dot - file));
	name[dot - file] = '\0';
	return rundir_name_valid(name);
}

static bool is_socket_name(const char *file)
{
	return !strcmp(strrchr(file, '.'), RUNDIR_SOCKET);
}

static int append(struct find_vm **vms, unsigned int *count, const struct find_vm *vm)
{
	struct find_vm *more = *vms;

	/* Grown by doubling: at each power of two. */
	if ((*count & (*count - 1)) == 0) {
		more = realloc(*vms, (*count ? 2 * *count : 1) * sizeof(*more));
		if (!more)
			return -ENOMEM;
		*vms = more;
	}
	more[(*count)++] = *vm;
	return 0;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct find_vm *)a)->name, ((const struct find_vm *)b)->name);
}

int find_vms(const char *dir, struct find_vm **vms, unsigned int *count)
{
	struct find_vm *list = NULL;
	unsigned int n = 0;
	struct dirent *entry;
	int err = 0;
	DIR *handle = opendir(dir);

	if (!handle)
		return -errno;
	while (!err && (entry = readdir(handle))) {
		char name[RUNDIR_NAME_MAX + 1];
		struct find_vm vm;

		/* What vanishes meanwhile is no VM any more. */
		if (!name_of_file(entry->d_name, name) || find_vm(dir, name, &vm))
			continue;
		if (is_socket_name(entry->d_name) && vm.error != -ENOENT)
			continue; /* its other file is here too, and stands for it */
		err = append(&list, &n, &vm);
	}
	closedir(handle);
	if (err) {
		free(list);
		return err;
	}
	if (n)
		qsort(list, n, sizeof(*list), by_name);
	*vms = list;
	*count = n;
	return 0;
}

const char *find_state_name(enum find_state state)
{
	switch (state) {
	case FIND_OK:
		return "ok";
	case FIND_DEAD:
		return "dead";
	case FIND_SILENT:
		return "no answer";
	case FIND_UNREADABLE:
		break;
	}
	return "unreadable";
}
