/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memstat: what the VMs use, from their statistics segments and nothing else.
 */
#ifndef MEMSTAT_H
#define MEMSTAT_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "vm/find.h"

/** The number nobody has supplied; printed as null or "-". */
#define UNKNOWN UINT64_MAX

/** struct rates - of two samples, each a second; UNKNOWN without */
struct rates {
	uint64_t faults;
	uint64_t zero_fills;
	uint64_t restores;
	uint64_t evictions;
	uint64_t discards;
};

/**
 * struct sample - one VM at one moment
 * @vm:    as found; its numbers are all UNKNOWN where its process has gone
 * @rates: since the sample before
 * @now:   CLOCK_MONOTONIC when it was taken, nanoseconds
 *
 * The rest is derived.
 */
struct sample {
	struct find_vm vm;
	struct rates rates;
	uint64_t now;

	uint64_t stored_original_bytes;
	double stored_ratio; /* original to compressed; 0 where unknown */
	uint64_t ballooned_bytes;
	uint64_t pager_age_ns;
	uint64_t balloon_age_ns;
	uint64_t guest_age_ns;
};

/** sample_first() - derive what one moment gives */
void sample_first(struct sample *sample, const struct find_vm *vm);

/** sample_again() - read a VM's segment again, with rates since the last time */
void sample_again(struct sample *sample);

/** print_table() - for people, at most 80 columns wide */
void print_table(const struct sample *samples, unsigned int count);

/**
 * print_json() - docs/stats-json.md
 * @interval_s: between the two samples; 0 for one only
 *
 * Return: 0; -ENOMEM.
 */
int print_json(const struct sample *samples, unsigned int count, double interval_s);

/** command_once() - memstat once; argv[0] is the command. Return: the exit status. */
int command_once(int argc, char **argv);

#endif /* MEMSTAT_H */
