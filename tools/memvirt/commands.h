/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The commands of memvirt, one file each.
 */
#ifndef MEMVIRT_COMMANDS_H
#define MEMVIRT_COMMANDS_H

/*
 * Each takes its own arguments, argv[0] being the command's name, and returns the exit
 * status.
 */
int command_run(int argc, char **argv);
int command_govern(int argc, char **argv);
int command_walk(int argc, char **argv);
int command_sim(int argc, char **argv);

/**
 * run_as() - what memvirt does under the name memvirt-PROGRAM
 * @program: the rest of the name
 * @argv:    the program's arguments; argv[0] is replaced
 *
 * Return: the exit status, where PROGRAM could not be started.
 */
int run_as(const char *program, char **argv);

#endif /* MEMVIRT_COMMANDS_H */
