/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a tool says on standard error: one line at a time, each in one write, so that lines
 * of several processes on one terminal or log do not mix.
 *
 * What does not belong here: data, which goes to standard output.
 */
#ifndef VM_SAY_H
#define VM_SAY_H

/* Exit statuses; EXIT_SUCCESS and EXIT_FAILURE besides. */
#define EXIT_USAGE 2

/** say_as() - the name at the head of each line; a constant string */
void say_as(const char *program);

/** say() - "PROGRAM: …"; no newline in @format */
__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

/**
 * say_bad_option() - what getopt_long() met, where its own messages are switched off
 * @command: "run", or NULL where the program has no commands
 * @argv:    as given to getopt_long()
 * @result:  ':' for a missing argument, '?' for an unknown option
 *
 * Return: EXIT_USAGE.
 */
int say_bad_option(const char *command, char **argv, int result);

/**
 * say_usage() - a usage error, with where to read more
 * @command: as for say_bad_option()
 *
 * Return: EXIT_USAGE.
 */
__attribute__((format(printf, 2, 3))) int say_usage(const char *command, const char *format, ...);

/**
 * say_finish() - flush standard output at the end of a program
 * @status: what the program would return
 *
 * Return: @status; EXIT_FAILURE with a message where output was lost.
 */
int say_finish(int status);

/**
 * say_keep_descriptors() - where standard input, output or error are closed, keep their
 * numbers from being given to sockets, into which messages would then go
 */
void say_keep_descriptors(void);

#endif /* VM_SAY_H */
