/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Where a model is known to differ from the manual, or the manual leaves a choice: each by
 * name, with its reason, here and nowhere else. What is not one of these is a mismatch.
 */
#ifndef METAL_QUIRKS_H
#define METAL_QUIRKS_H

#include "predict.h"

enum quirk {
	QUIRK_RESERVED_WITHOUT_PRESENT,
	QUIRK_ACCESSED_BEFORE_FAULT,
	QUIRK_GUEST_TABLE_READ_NOT_COUNTED,
	QUIRK_PDPTE_ACCESSED,
	QUIRK_PDPTE_RESERVED_UNCHECKED,
	QUIRK_FETCH_WITHOUT_NX,
	QUIRK_KEY_NOT_TOLD,
	QUIRK_GUEST_FLAGS_UNCHECKED,
	QUIRK_ACCESSED_IN_RESERVED_PAGE,
	QUIRK_EPT_PAGE_BIT_12,
	QUIRK_GLOBAL_IN_TABLE,
	QUIRK_PDPTE_ADDRESS,
	QUIRK_LARGEST_PAGE_UNCHECKED,
	QUIRKS,
};

extern const char *const quirk_name[QUIRKS];

/* How often each was met. */
extern uint64_t quirk_count[QUIRKS];

/* Whether what the model will do instead is anybody's guess: the access is not to be made. */
bool quirk_forbids(struct world *world, const struct access *access,
		   const struct prediction *prediction);

/* Change @outcome, the machine's, where a quirk explains it, to what it ought to have been. */
void quirk_normalise_outcome(struct world *world, const struct access *access,
			     const struct prediction *prediction, struct outcome *outcome);

/* Whether an entry that is not what was predicted is explained by a quirk. */
bool quirk_explains_entry(const struct world *world, const struct prediction *prediction,
			  const struct note *note, uint64_t now);

#endif /* METAL_QUIRKS_H */
