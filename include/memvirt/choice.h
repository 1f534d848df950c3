/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow or nested? For hypervisors that can translate an address space either way, and change
 * between the two while it runs.
 *
 * Shadow tables are walked as fast as bare ones, and cost traps: at faults that a nested walk would
 * not have, at writes to tables, and at flushes, when written tables are compared. Nested tables
 * cost nothing but longer walks: up to 24 loads at a TLB miss instead of 4. Which is cheaper is a
 * matter of how often the guest changes its tables and how often it misses its TLB; both are
 *measured, and change with what the guest does.
 *
 *	mv_choice_init(&choice, &costs, MV_TRANSLATE_NESTED);
 *	every some milliseconds, for an address space that ran:
 *		sample.traps = of mv_shadow_root_cost(), since the last sample; or of dirty tables
 *		sample.tlb_misses = of the processor's counter
 *		if (mv_choice_update(&choice, &sample) != in force)
 *			change over at the next load of CR3
 *
 * Everything here is a pure function of what it is told.
 *
 * What does not belong here: the tables (shadow.h, ept.h), reading counters (the hypervisor).
 */
#ifndef MEMVIRT_CHOICE_H
#define MEMVIRT_CHOICE_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/** enum mv_translation - how an address space is translated */
enum mv_translation {
	MV_TRANSLATE_NESTED,
	MV_TRANSLATE_SHADOW,
};

#define MV_CHOICE_COST_MAX 1000000 /* nanoseconds */

/**
 * struct mv_choice_costs - what things take on this machine; nanoseconds, up to MV_CHOICE_COST_MAX
 * @trap_ns:   an exit to the hypervisor and its answer, mean
 * @sync_ns:   a table compared
 * @shadow_miss_ns, @nested_miss_ns: a TLB miss, by either kind of tables
 * @assumed_misses: a second: where samples do not know
 */
struct mv_choice_costs {
	uint32_t trap_ns;
	uint32_t sync_ns;
	uint32_t shadow_miss_ns;
	uint32_t nested_miss_ns;
	uint32_t assumed_misses;
};

#define MV_CHOICE_UNKNOWN UINT64_MAX

/**
 * struct mv_choice_sample - what happened in a time; numbers may be MV_CHOICE_UNKNOWN
 * @ns:         how long it ran
 * @traps:      exits that shadow tables brought about, or would have; unknown under nested tables
 *              unless the hypervisor counts writes to the guest's tables by other means
 * @syncs:      tables compared
 * @tlb_misses: as the processor counts
 */
struct mv_choice_sample {
	uint64_t ns;
	uint64_t traps;
	uint64_t syncs;
	uint64_t tlb_misses;
};

/**
 * struct mv_choice - of one address space
 * @costs:   see above
 * @now:     in force
 * @traps, @syncs, @misses: a second, smoothed over a tenth of one; MV_CHOICE_UNKNOWN: never known
 * @held_ns: how long @now has been
 * @wait_ns: under nested tables: how long until shadow tables are tried, where nothing is known
 */
struct mv_choice {
	struct mv_choice_costs costs;
	enum mv_translation now;
	uint64_t traps, syncs, misses;
	uint64_t held_ns;
	uint64_t wait_ns;
};

#define MV_CHOICE_HOLD_NS 100000000ULL /* at least so long between two changes */
#define MV_CHOICE_WAIT_NS                                                                          \
	1000000000ULL /* before the first trial; twice as long after each in vain */
#define MV_CHOICE_WAIT_MAX_NS (64 * MV_CHOICE_WAIT_NS)

/**
 * mv_choice_init() - before the first sample
 * @choice: set
 * @costs:  see struct mv_choice_costs
 * @now:    how the address space begins
 *
 * Context: any.
 * Return: 0; -EINVAL for a cost above MV_CHOICE_COST_MAX.
 */
int mv_choice_init(struct mv_choice *choice, const struct mv_choice_costs *costs,
		   enum mv_translation now);

/**
 * mv_choice_update() - take a sample into account
 * @choice: changed
 * @sample: of a time that passed under what is in force; any numbers are fine
 *
 * It changes to what would cost less than three quarters of what is in force, and not sooner than
 * MV_CHOICE_HOLD_NS after the last change. Where the cost of shadow tables is not known they are
 * tried now and then, less and less often when that does not pay.
 *
 * Context: one thread at a time for one @choice.
 * Return: what is to be in force from now on.
 */
enum mv_translation mv_choice_update(struct mv_choice *choice,
				     const struct mv_choice_sample *sample);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_CHOICE_H */
