/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the library says that an access will lead to, and which entries it touches.
 *
 * What does not belong here: what it does lead to (machine.h), where both may differ (quirks.h).
 */
#ifndef METAL_PREDICT_H
#define METAL_PREDICT_H

#include <stdbool.h>
#include <stdint.h>

#include "world.h"

/**
 * struct access - one access of a guest
 * @flags:  MV_ACCESS_…, one of READ, WRITE and FETCH among them; of none, where it loads CR3
 * @gva:    what is accessed, or what CR3 is loaded with
 * @code:   where the guest starts: the piece of guest_code that does it, or, for a fetch, @gva
 * @value:  WRITE: what is written
 * @pkru, @pkrs: protection-key rights
 */
struct access {
	unsigned int flags;
	uint64_t gva, code;
	uint32_t value;
	uint32_t pkru, pkrs;
};

#define NOTES_MAX 160

/**
 * struct note - an entry that was read
 * @hpa:    where
 * @before: what it was at first
 * @after:  what the library made of it
 * @bytes:  4 or 8
 * @level:  in its table
 * @stage2: of stage 2; otherwise of the guest
 * @may_be_accessed: on the way to a fault: the processor may have set accessed, or not
 */
struct note {
	uint64_t hpa, before, after;
	uint8_t bytes, level;
	bool stage2, may_be_accessed;
};

/**
 * struct prediction
 * @possible: false: the way leads out of the memory that tests may touch; the rest is not set
 * @outcome:  how it ends
 * @written_hpa: where @value is to be found afterwards, or 0
 * @walk:     the last nested walk
 * @note:     the entries; one for each place
 */
struct prediction {
	bool possible;
	struct outcome outcome;
	uint64_t written_hpa;
	struct mv_nested_walk walk;
	unsigned int notes;
	struct note note[NOTES_MAX];
};

/**
 * predict() - let the library walk
 * @world:  its tables; accessed and dirty are set in them
 * @access: to be made
 * @direct: through the direct map, as it would be used here; otherwise through accessors, which
 *          find out what is touched. The first knows no bounds: only after the second.
 * @prediction: set; with @direct its notes, made before, get their @after
 */
void predict(struct world *world, const struct access *access, bool direct,
	     struct prediction *prediction);

/* Give all entries noted their first value. */
void predict_undo(const struct prediction *prediction);

/* The guest as the machine has to set it up for an access. */
void guest_state_of(struct world *world, const struct access *access, struct guest_state *state);

#endif /* METAL_PREDICT_H */
