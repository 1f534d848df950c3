/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Messages on standard error; see say.h.
 */
#include "vm/say.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *program_name = "memvirt";

void say_as(const char *program)
{
	program_name = program;
}

static void say_list(const char *format, va_list args)
{
	char line[1024];
	size_t used = (size_t)snprintf(line, sizeof(line), "%s: ", program_name);
	int len = vsnprintf(line + used, sizeof(line) - used, format, args);

	if (len > 0)
		used += (size_t)len;
	if (used > sizeof(line) - 1)
		used = sizeof(line) - 1;
	line[used++] = '\n';
	/* Where even this fails there is nobody left to tell. */
	if (write(STDERR_FILENO, line, used) < 0)
		return;
}

void say(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_list(format, args);
	va_end(args);
}

static void say_see_help(const char *command)
{
	if (command)
		say("see '%s %s --help'", program_name, command);
	else
		say("see '%s --help'", program_name);
}

int say_bad_option(const char *command, char **argv, int result)
{
	if (result == ':')
		say("option '%s' needs a value", argv[optind - 1]);
	else if (optopt > ' ' && optopt < 127 && strncmp(argv[optind - 1], "--", 2))
		say("unknown option '-%c'", optopt);
	else
		say("unknown option, or one that takes no value: '%s'", argv[optind - 1]);
	say_see_help(command);
	return EXIT_USAGE;
}

int say_usage(const char *command, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say_list(format, args);
	va_end(args);
	say_see_help(command);
	return EXIT_USAGE;
}

int say_finish(int status)
{
	int err = ferror(stdout) ? EIO : 0;
	bool pending = __fpending(stdout) > 0;

	/* Closed from the start and never used is no loss. */
	if (fclose(stdout) && (pending || errno != EBADF))
		err = errno;
	if (!err)
		return status;
	if (err != EPIPE) /* who closed the pipe knows */
		say("cannot write to standard output: %s", strerror(err));
	return EXIT_FAILURE;
}

void say_keep_descriptors(void)
{
	int fd;

	/* Opened the wrong way round, so that use still fails as if it were closed. */
	do {
		fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}
