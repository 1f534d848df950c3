/* SPDX-License-Identifier: BSD-2-Clause */
/* Accesses in a world: made, predicted, compared, counted. */
#ifndef METAL_ROUNDS_H
#define METAL_ROUNDS_H

#include <stdint.h>

#include "machine.h"

#define TALLIES 40

/**
 * struct tally - what was met
 * @accesses:   made by the machine
 * @mismatches: of these, not as predicted
 * @what, @count: kinds of ends, modes, page sizes
 */
struct tally {
	uint64_t accesses, mismatches;
	const char *what[TALLIES];
	uint64_t count[TALLIES];
};

void run_world(const struct machine *machine, uint64_t seed, uint64_t number, struct tally *tally);
void tally_say(const struct tally *tally);

#endif /* METAL_ROUNDS_H */
