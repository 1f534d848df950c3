/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the governor prints: one line for each decision that changes something.
 */
#ifndef MEMVIRT_GOVERN_REPORT_H
#define MEMVIRT_GOVERN_REPORT_H

#include "govern_vm.h"

/**
 * govern_report() - print a VM's decisions of this tick that differ from those printed last
 * @json: as JSON, one object a line
 *
 * Return: 0; -1 where standard output takes no more.
 */
int govern_report(struct govern_vm *vm, bool json);

#endif /* MEMVIRT_GOVERN_REPORT_H */
