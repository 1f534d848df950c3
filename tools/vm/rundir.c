/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The run directory; see rundir.h.
 */
#include "vm/rundir.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((format(printf, 2, 3))) static int format_path(char *path, const char *format, ...)
{
	char text[RUNDIR_PATH_MAX];
	va_list args;

	va_start(args, format);
	int len = vsnprintf(text, sizeof(text), format, args);
	va_end(args);
	if (len < 0 || (size_t)len >= sizeof(text))
		return -ENAMETOOLONG;
	memcpy(path, text, (size_t)len + 1);
	return 0;
}

int rundir_absolute(const char *given, char *path)
{
	if (given[0] == '/')
		return format_path(path, "%s", given);

	char *here = getcwd(NULL, 0);
	if (!here)
		return -errno;
	int err = format_path(path, "%s/%s", here, given);
	free(here);
	return err;
}

int rundir_choose(const char *option, char *dir)
{
	const char *given = option ? option : getenv("MEMVIRT_RUN_DIR");
	const char *runtime = getenv("XDG_RUNTIME_DIR");

	if (given && *given)
		return rundir_absolute(given, dir);
	if (geteuid() == 0)
		return format_path(dir, "/run/memvirt");
	if (runtime && *runtime == '/')
		return format_path(dir, "%s/memvirt", runtime);
	return -ENOENT;
}

int rundir_create(const char *dir)
{
	struct stat st;

	if (mkdir(dir, 0700) && errno != EEXIST)
		return -errno;
	if (stat(dir, &st))
		return -errno;
	if (!S_ISDIR(st.st_mode))
		return -ENOTDIR;
	/* Who may write here can pose as a VM, and gets the governor's trust. */
	if (st.st_uid != geteuid() || (st.st_mode & (S_IWGRP | S_IWOTH)))
		return -EPERM;
	return 0;
}

/* Not isalnum(): the locale of a VMM must not change what a name is. */
static bool name_char_valid(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

bool rundir_name_valid(const char *name)
{
	size_t len = 0;

	if (name[0] == '.' || name[0] == '-')
		return false;
	while (name[len])
		if (!name_char_valid(name[len++]) || len > RUNDIR_NAME_MAX)
			return false;
	return len > 0;
}

int rundir_path(const char *dir, const char *name, const char *suffix, char *path)
{
	if (!rundir_name_valid(name))
		return -EINVAL;
	return format_path(path, "%s/%s%s", dir, name, suffix);
}
