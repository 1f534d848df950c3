/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memstat: a table of commands.
 */
#include "memstat.h"

#include <stdlib.h>
#include <string.h>

#include <memvirt/version.h>

#include "vm/say.h"

struct command {
	const char *name;
	const char *summary;
	int (*call)(int argc, char **argv);
};

static const struct command commands[] = {
	{ "once", "show each VM once", command_once },
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(void)
{
	printf("Usage: memstat COMMAND [ARGUMENTS]\n"
	       "Show how much memory the VMs under memvirt use, without disturbing them.\n\n"
	       "Commands:\n");
	for (size_t i = 0; i < COMMANDS; i++)
		printf("  %-8s  %s\n", commands[i].name, commands[i].summary);
	printf("\n"
	       "  --help     this text; 'memstat COMMAND --help' for a command\n"
	       "  --version  the version\n"
	       "\n"
	       "Examples:\n"
	       "  memstat once\n"
	       "  memstat once --json --interval 5 web db\n");
}

static int run_command(int argc, char **argv)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (!strcmp(commands[i].name, argv[0]))
			return commands[i].call(argc, argv);
	if (argv[0][0] == '-')
		return say_usage(NULL, "unknown option '%s'", argv[0]);
	return say_usage(NULL, "unknown command '%s'", argv[0]);
}

static int dispatch(int argc, char **argv)
{
	if (argc < 2)
		return say_usage(NULL, "which command?");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    (!strcmp(argv[1], "help") && argc == 2)) {
		print_help();
		return EXIT_SUCCESS;
	}
	if (!strcmp(argv[1], "help")) {
		char *args[] = { argv[2], "--help", NULL };

		return run_command(2, args);
	}
	if (!strcmp(argv[1], "--version")) {
		printf("memstat %s\n", mv_version());
		return EXIT_SUCCESS;
	}
	return run_command(argc - 1, argv + 1);
}

int main(int argc, char **argv)
{
	say_as("memstat");
	say_keep_descriptors();
	return say_finish(dispatch(argc, argv));
}
