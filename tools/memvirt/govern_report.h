/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the governor says of its decisions: one line for each that changes something, on
 * standard output, and in its journal.
 */
#ifndef MEMVIRT_GOVERN_REPORT_H
#define MEMVIRT_GOVERN_REPORT_H

#include <stdio.h>

#include "govern_vm.h"

/**
 * struct govern_output - where it is said
 * @json:    on standard output too, as JSON, one object a line
 * @journal: always JSON; NULL for none
 */
struct govern_output {
	bool json;
	FILE *journal;
};

/**
 * govern_journal_open() - open the journal, or the file that has its name by now
 * @path: appended to; made with mode 0600
 *
 * Return: 0; -errno, and a journal that was open stays open.
 */
int govern_journal_open(struct govern_output *output, const char *path);

/** govern_journal_close() - close it; nothing where there is none */
void govern_journal_close(struct govern_output *output);

/** govern_journal_note() - something else than a decision: "begins", "ends", "lease lapsed" */
void govern_journal_note(struct govern_output *output, const char *vm, const char *what);

/**
 * govern_report() - a VM's decisions of this tick that differ from those said last
 *
 * Return: 0; -1 where standard output or the journal takes no more.
 */
int govern_report(struct govern_output *output, struct govern_vm *vm);

#endif /* MEMVIRT_GOVERN_REPORT_H */
