/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memvirt: a table of commands.
 */
#include "commands.h"

#include <stdio.h>
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
	{ "run", "start a VMM and manage its guest's memory", command_run },
	{ "govern", "keep the running VMs within a budget of host memory", command_govern },
	{ "sim", "replay VMs' demand under each rule of the policy", command_sim },
	{ "walk", "translate a running guest's addresses, step by step", command_walk },
};
#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < COMMANDS; i++)
		if (!strcmp(commands[i].name, name))
			return &commands[i];
	return NULL;
}

static void print_help(void)
{
	printf("Usage: memvirt COMMAND [ARGUMENTS]\n"
	       "Manage the memory of virtual machines under unmodified VMMs.\n\n"
	       "Commands:\n");
	for (size_t i = 0; i < COMMANDS; i++)
		printf("  %-8s  %s\n", commands[i].name, commands[i].summary);
	printf("\n"
	       "  --help     this text; 'memvirt COMMAND --help' for a command\n"
	       "  --version  the version\n"
	       "\n"
	       "Examples:\n"
	       "  memvirt run --name web --limit 384M -- qemu-system-x86_64 -m 512 disk.img\n"
	       "  memvirt govern --budget 4G\n"
	       "  memvirt walk web ffffffff81000000\n"
	       "  memvirt run --help\n"
	       "\n"
	       "See also: memstat(1), which shows what the VMs use.\n");
}

static int no_command(const char *name)
{
	if (name[0] == '-')
		return say_usage(NULL, "unknown option '%s'", name);
	return say_usage(NULL, "unknown command '%s'", name);
}

static int help(int argc, char **argv)
{
	const struct command *command;

	if (argc < 1) {
		print_help();
		return EXIT_SUCCESS;
	}
	command = find_command(argv[0]);
	if (!command)
		return no_command(argv[0]);

	char *args[] = { argv[0], "--help", NULL };
	return command->call(2, args);
}

static int dispatch(int argc, char **argv)
{
	const char *name = argv[1];

	if (!name)
		return say_usage(NULL, "which command?");
	if (!strcmp(name, "--help") || !strcmp(name, "-h") || !strcmp(name, "help"))
		return help(argc - 2, argv + 2);
	if (!strcmp(name, "--version")) {
		printf("memvirt %s\n", mv_version());
		return EXIT_SUCCESS;
	}
	const struct command *command = find_command(name);
	return command ? command->call(argc - 1, argv + 1) : no_command(name);
}

/* memvirt-qemu-system-x86_64, a link to memvirt, stands in for that program. */
static const char *program_stood_for(const char *argv0)
{
	const char *slash = strrchr(argv0, '/');
	const char *base = slash ? slash + 1 : argv0;
	size_t prefix = strlen("memvirt-");

	return strncmp(base, "memvirt-", prefix) || !base[prefix] ? NULL : base + prefix;
}

int main(int argc, char **argv)
{
	const char *program = argc > 0 ? program_stood_for(argv[0]) : NULL;

	if (argc < 1)
		return EXIT_USAGE;
	return say_finish(program ? run_as(program, argv) : dispatch(argc, argv));
}
