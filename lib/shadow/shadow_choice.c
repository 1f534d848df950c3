/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow or nested: rates, what they cost either way, and when to change. See choice.h.
 *
 * Freestanding, integers only. What does not belong here: what is counted (shadow_fault.c).
 */
#include <errno.h>

#include <memvirt/choice.h>

#include "../format.h"

#define SECOND_NS 1000000000ULL
#define SMOOTH_NS 100000000ULL
#define RATE_MAX  SECOND_NS /* events a second: no more are possible, and products stay in range */

/* --- rates ---------------------------------------------------------------------------------- */

static uint64_t rate_of(uint64_t events, uint64_t ns)
{
	/* So that the product below stays in range. */
	uint64_t capped = events < RATE_MAX * 8 ? events : RATE_MAX * 8;
	uint64_t rate = capped * SECOND_NS / ns;

	return rate < RATE_MAX ? rate : RATE_MAX;
}

/* A long sample counts for more than a short one. */
static void smooth(uint64_t *rate, uint64_t events, uint64_t ns)
{
	uint64_t weight = ns < SMOOTH_NS ? ns : SMOOTH_NS, now;

	if (events == MV_CHOICE_UNKNOWN || !ns)
		return;
	now = rate_of(events, ns);
	*rate = *rate == MV_CHOICE_UNKNOWN
			? now
			: (*rate * (SMOOTH_NS - weight) + now * weight) / SMOOTH_NS;
}

/* --- costs: nanoseconds a second -------------------------------------------------------------- */

static uint64_t misses(const struct mv_choice *choice)
{
	return choice->misses == MV_CHOICE_UNKNOWN ? choice->costs.assumed_misses : choice->misses;
}

static uint64_t nested_cost(const struct mv_choice *choice)
{
	return misses(choice) * choice->costs.nested_miss_ns;
}

static uint64_t known(uint64_t rate)
{
	return rate == MV_CHOICE_UNKNOWN ? 0 : rate;
}

/* Where nothing is known of traps: the least that it can be. */
static uint64_t shadow_cost(const struct mv_choice *choice)
{
	return misses(choice) * choice->costs.shadow_miss_ns +
	       known(choice->traps) * choice->costs.trap_ns +
	       known(choice->syncs) * choice->costs.sync_ns;
}

static bool is_much_less(uint64_t cost, uint64_t than)
{
	return cost < than / 4 * 3;
}

/* --- decisions -------------------------------------------------------------------------------- */

static void change_to(struct mv_choice *choice, enum mv_translation to)
{
	choice->now = to;
	choice->held_ns = 0;
}

/* Shadow tables were in force for so long that it is worth coming back soon. */
static bool paid(const struct mv_choice *choice)
{
	return choice->held_ns >= choice->wait_ns;
}

static void leave_shadow(struct mv_choice *choice)
{
	uint64_t longer = choice->wait_ns * 2;

	if (paid(choice))
		longer = MV_CHOICE_WAIT_NS;
	choice->wait_ns = longer < MV_CHOICE_WAIT_MAX_NS ? longer : MV_CHOICE_WAIT_MAX_NS;
	change_to(choice, MV_TRANSLATE_NESTED);
}

/* What is known of traps is from the last time; it counts until the wait is over. */
static void consider_shadow(struct mv_choice *choice, bool traps_known)
{
	if (!traps_known && choice->held_ns < choice->wait_ns)
		return;
	if (!traps_known)
		choice->traps = choice->syncs = MV_CHOICE_UNKNOWN;
	if (is_much_less(shadow_cost(choice), nested_cost(choice)))
		change_to(choice, MV_TRANSLATE_SHADOW);
}

int mv_choice_init(struct mv_choice *choice, const struct mv_choice_costs *costs,
		   enum mv_translation now)
{
	if (costs->trap_ns > MV_CHOICE_COST_MAX || costs->sync_ns > MV_CHOICE_COST_MAX ||
	    costs->shadow_miss_ns > MV_CHOICE_COST_MAX ||
	    costs->nested_miss_ns > MV_CHOICE_COST_MAX)
		return -EINVAL;
	*choice = (struct mv_choice){
		.costs = *costs,
		.now = now,
		.traps = MV_CHOICE_UNKNOWN,
		.syncs = MV_CHOICE_UNKNOWN,
		.misses = MV_CHOICE_UNKNOWN,
		.wait_ns = MV_CHOICE_WAIT_NS,
	};
	return 0;
}

enum mv_translation mv_choice_update(struct mv_choice *choice,
				     const struct mv_choice_sample *sample)
{
	smooth(&choice->traps, sample->traps, sample->ns);
	smooth(&choice->syncs, sample->syncs, sample->ns);
	smooth(&choice->misses, sample->tlb_misses, sample->ns);
	choice->held_ns = sample->ns > UINT64_MAX - choice->held_ns ? UINT64_MAX
								    : choice->held_ns + sample->ns;
	if (choice->held_ns < MV_CHOICE_HOLD_NS)
		return choice->now;
	if (choice->now == MV_TRANSLATE_NESTED)
		consider_shadow(choice, sample->traps != MV_CHOICE_UNKNOWN);
	else if (is_much_less(nested_cost(choice), shadow_cost(choice)))
		leave_shadow(choice);
	return choice->now;
}
