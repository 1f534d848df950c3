/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much memory each VM of a host gets: pure functions of the numbers of one moment and of
 * the little that is remembered between moments. docs/policy.md explains the reasoning, and
 * which rule to use when.
 *
 * What counts against the budget is, summed over the VMs, resident guest memory, the store's
 * memory, and the pager's records. A page that leaves residency goes on costing what its
 * compressed copy needs, so limits are solved for with the ratio measured so far, for as much
 * memory as each guest can have populated until the next two decisions.
 *
 * What does not belong here: where the numbers come from, and who is told.
 *
 * References: Waldspurger, "Memory Resource Management in VMware ESX Server", OSDI 2002
 * (shares, idle memory tax, states); Weiner et al., "TMO: Transparent Memory Offloading in
 * Datacenters", ASPLOS 2022 (pressure).
 */
#ifndef MEMVIRT_POLICY_H
#define MEMVIRT_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MV_POLICY_UNKNOWN   UINT64_MAX
#define MV_POLICY_UNLIMITED UINT64_MAX

/* No floor is lower, as no limit can be. Bytes. */
#define MV_POLICY_FLOOR_MIN (1UL << 20)

#define MV_POLICY_SHARES_DEFAULT 1000
#define MV_POLICY_SHARES_MAX	 1000000

/* Time that was lost waiting for memory is in millionths of the time that went by. */
#define MV_POLICY_PPM 1000000

/**
 * enum mv_policy_rule - what memory is divided by where it does not suffice for all
 * @MV_POLICY_DEMAND:   demand times shares: who works with more gets more
 * @MV_POLICY_SHARES:   shares, and idle memory is charged more than memory in use (ESX)
 * @MV_POLICY_PRESSURE: nobody has more than he can show to need: each is shrunk until it loses
 *                      a little time to it (TMO); also where everything would fit
 * @MV_POLICY_CURVE:    to where the next page saves most, by the VMs' miss-ratio curves; VMs
 *                      without one as under MV_POLICY_DEMAND
 */
enum mv_policy_rule {
	MV_POLICY_DEMAND,
	MV_POLICY_SHARES,
	MV_POLICY_PRESSURE,
	MV_POLICY_CURVE,
	MV_POLICY_RULES,
};

/**
 * enum mv_policy_state - how much of the budget is free, as in ESX
 * @MV_POLICY_HIGH: 6% or more
 * @MV_POLICY_SOFT: 4% or more: balloons inflate faster
 * @MV_POLICY_HARD: 2% or more: limits fall at once, not gently
 * @MV_POLICY_LOW:  less: besides, no limit rises
 *
 * It is left downwards at once, and upwards once a hundredth more is free.
 */
enum mv_policy_state {
	MV_POLICY_HIGH,
	MV_POLICY_SOFT,
	MV_POLICY_HARD,
	MV_POLICY_LOW,
};

/**
 * struct mv_policy_config - what the user wants of the host
 * @budget_bytes:        for all VMs together
 * @floor_bytes:         of each VM's limit and balloon target; see struct mv_policy_vm too
 * @interval_ns:         from one decision to the next, where nothing presses
 * @patience_ns:         how long everything has to fit before limits are lifted
 * @rule:                what memory is divided by
 * @idle_tax:            MV_POLICY_SHARES: the part of idle memory that may be taken from a VM,
 *                       0 to 0.99; ESX has 0.75
 * @pressure_target_ppm: MV_POLICY_PRESSURE: how much time a VM may lose; 0 for the 1,000 (0.1%)
 *                       of TMO
 * @pressure_limit_ppm:  any rule: from here on a VM is short of memory, and gets more at once;
 *                       0 for 50,000 (5%)
 */
struct mv_policy_config {
	uint64_t budget_bytes;
	uint64_t floor_bytes;
	uint64_t interval_ns;
	uint64_t patience_ns;
	enum mv_policy_rule rule;
	double idle_tax;
	uint32_t pressure_target_ppm;
	uint32_t pressure_limit_ppm;
};

#define MV_POLICY_CURVE_POINTS 16

/**
 * struct mv_policy_curve - how often a VM would miss with so much memory
 * @count:        points used; at least 2
 * @bytes:        rising
 * @misses_per_s: falling
 */
struct mv_policy_curve {
	unsigned int count;
	double bytes[MV_POLICY_CURVE_POINTS];
	double misses_per_s[MV_POLICY_CURVE_POINTS];
};

/**
 * struct mv_policy_numbers - what is known of a VM at this moment; MV_POLICY_UNKNOWN where not
 * @pager_fresh:          the pager's numbers are recent; else the limit stays as it is
 * @guest_fresh:          the guest's are; else the balloon stays as it is
 * @held:                 nothing can be evicted, so a limit would have no effect
 * @reporting:            the guest reports free pages: those are given up without a balloon
 * @limit_bytes:          in force; MV_POLICY_UNLIMITED for none
 * @restores_per_s:       pages that came back from the store
 * @active_bytes:         touched lately, as estimated by the pager
 * @host_pressure_ppm:    time that vCPUs lost to faults, part of the pager's numbers
 * @guest_pressure_ppm:   time that the guest's tasks lost, part of the guest's numbers
 * @balloon_actual_bytes: what the balloon leaves the guest
 * @curve:                its miss-ratio curve; NULL where unknown; the caller's, used during
 *                        the decision only
 */
struct mv_policy_numbers {
	bool pager_fresh;
	bool guest_fresh;
	bool held;
	bool reporting;
	uint64_t configured_bytes;
	uint64_t managed_bytes;
	uint64_t resident_bytes;
	uint64_t limit_bytes;
	uint64_t stored_pages;
	uint64_t store_memory_bytes;
	uint64_t overhead_bytes;
	uint64_t restores_per_s;
	uint64_t active_bytes;
	uint64_t host_pressure_ppm;
	uint64_t guest_pressure_ppm;
	uint64_t balloon_actual_bytes;
	uint64_t guest_total_bytes;
	uint64_t guest_free_bytes;
	uint64_t guest_available_bytes;
	uint64_t guest_disk_cache_bytes;
	const struct mv_policy_curve *curve;
};

/** enum mv_policy_why - the reason of a decision, for people */
enum mv_policy_why {
	MV_POLICY_SAME,		/* nothing to change */
	MV_POLICY_STALE,	/* its numbers are missing or old: left alone */
	MV_POLICY_HELD,		/* it cannot evict: left alone */
	MV_POLICY_AMPLE,	/* everything fits without limits or balloons */
	MV_POLICY_LEARN,	/* a limit of its own size, to find out what is resident */
	MV_POLICY_GROW,		/* by the rule it should have more than it has */
	MV_POLICY_SHRINK,	/* others should have it */
	MV_POLICY_COLD,		/* it loses less time than it may */
	MV_POLICY_PRESSED,	/* it is short of memory */
	MV_POLICY_OVER,		/* the budget would be exceeded */
	MV_POLICY_FLOOR,	/* the budget is too small: at its floor */
	MV_POLICY_OUTSIDE,	/* somebody else decided so */
	MV_POLICY_GUEST_SPARES, /* the guest has memory to give */
	MV_POLICY_GUEST_NEEDS,	/* the guest is short */
};

/**
 * struct mv_policy_vm - a VM and what is decided for it
 * @shares:        set by the caller, as the next four: its weight, 1 to MV_POLICY_SHARES_MAX
 * @floor_bytes:   neither limit nor balloon target goes below, whatever happens; 0 for that of
 *                 the host's configuration
 * @min_bytes:     what it keeps as long as the budget holds everybody's; 0 for the floor
 * @max_bytes:     its limit is never above; MV_POLICY_UNLIMITED
 * @outside_bytes: the limit that somebody else wants for it; MV_POLICY_UNKNOWN for none. Floor,
 *                 maximum and budget hold for it too
 * @numbers:       set by the caller before each decision
 * @limit_bytes:   decided; equal to @numbers.limit_bytes where nothing is to change
 * @limit_why:     why
 * @balloon_bytes: decided; MV_POLICY_UNKNOWN where nothing is to change
 * @balloon_why:   why
 * @pressed:       decided: it is short of memory
 *
 * A VM without a pager (its @managed_bytes are unknown, and no limit is set) whose guest has a
 * balloon and says what it uses is divided for as well, by the balloon: @balloon_bytes is then
 * what it gets. It is never less than what the guest uses.
 *
 * The rest is the policy's: what it remembers, and what it works with during a decision. A VM
 * begins with mv_policy_vm_init().
 */
struct mv_policy_vm {
	uint32_t shares;
	uint64_t floor_bytes;
	uint64_t min_bytes;
	uint64_t max_bytes;
	uint64_t outside_bytes;
	struct mv_policy_numbers numbers;
	uint64_t limit_bytes;
	enum mv_policy_why limit_why;
	uint64_t balloon_bytes;
	enum mv_policy_why balloon_why;
	bool pressed;

	/* Remembered. */
	double demand;		 /* smoothed; 0 for none yet */
	double ratio;		 /* host memory for a stored byte */
	double growth_per_s;	 /* populated at most in a second */
	double growth_bytes;	 /* until the decision after next */
	double populated;	 /* resident and stored; 0 for unknown */
	uint64_t reserved_bytes; /* of what it has, outside the guest's own total */
	uint64_t last_actual;
	uint64_t target_bytes; /* of the balloon, decided last */

	/* Of this decision. */
	bool adjustable;
	bool by_balloon;   /* has no pager: its balloon is the limit */
	double cost_fixed; /* of a VM that is not adjustable */
	double floor;
	double low;	  /* the least limit: its minimum, or less where the budget is too small */
	double high;	  /* the greatest that can be of use */
	double potential; /* populated at most until the decision after next */
	double resident;
	double overhead; /* taken whatever the limit */
	double old;	 /* where its limit counts from */
	double target;	 /* what it should have */
	double next;	 /* what it gets now */
};

/**
 * struct mv_policy - the budget and what is remembered of it
 *
 * To be read, not written, from outside.
 */
struct mv_policy {
	struct mv_policy_config config;
	bool ample;	  /* no limits at the moment */
	uint64_t fits_ns; /* everything has fitted for so long */
	enum mv_policy_state state;

	/* Of the last decision. */
	double elapsed_s;
	double part;	      /* of an interval, that went by; at most 1 */
	double usable_bytes;  /* the budget less its headroom */
	double used_bytes;    /* at this moment */
	double planned_bytes; /* what the decisions cost at most */
	bool waiting;	      /* everything fits, but not for long enough: nothing is done */
	bool over;	      /* it would be exceeded if limits fell gently */
	bool too_small;	      /* floors alone exceed it */
	bool pressed;	      /* some VM is short of memory */

	struct policy_path *paths; /* to work with, for so many VMs */
	struct policy_step *steps;
	unsigned int room, steps_room;
};

/**
 * mv_policy_init() - begin with a budget
 * @policy: to be set
 * @config: copied; numbers outside their range are taken to its nearest end
 *
 * Context: any. mv_policy_fini() ends it.
 */
void mv_policy_init(struct mv_policy *policy, const struct mv_policy_config *config);

/**
 * mv_policy_configure() - change the budget, the rule and the rest; what is remembered stays
 * @policy: the budget
 * @config: copied, as by mv_policy_init()
 *
 * Context: between decisions.
 */
void mv_policy_configure(struct mv_policy *policy, const struct mv_policy_config *config);

/** mv_policy_fini() - give back what it worked with; the VMs hold nothing */
void mv_policy_fini(struct mv_policy *policy);

/** mv_policy_vm_init() - begin with a VM: default shares, no minimum, no maximum */
void mv_policy_vm_init(struct mv_policy_vm *vm);

/**
 * mv_policy_decide() - one decision for all VMs
 * @policy:     the budget
 * @vms:        all VMs that count against it, with fresh @numbers
 * @count:      how many
 * @elapsed_ns: since the last decision; what changes slowly changes by as much. The interval
 *              where there was none
 *
 * Takes time in proportion to @count.
 *
 * Context: one thread a policy. Allocates where @count has grown.
 * Return: 0; -ENOMEM: nothing has been decided, and what is remembered is as before.
 */
int mv_policy_decide(struct mv_policy *policy, struct mv_policy_vm *vms, unsigned int count,
		     uint64_t elapsed_ns);

/** mv_policy_next_ns() - when to decide again at the latest, from now; sooner where some VM is
 * short of memory or little is free */
uint64_t mv_policy_next_ns(const struct mv_policy *policy);

/** mv_policy_cost() - what a VM costs at most with a limit, bytes; valid after a decision */
double mv_policy_cost(const struct mv_policy_vm *vm, double limit);

/** mv_policy_why_text() - a reason in words */
const char *mv_policy_why_text(enum mv_policy_why why);

/** mv_policy_rule_name() - "demand", "shares", "pressure", "curve" */
const char *mv_policy_rule_name(enum mv_policy_rule rule);

/**
 * mv_policy_rule_parse() - a rule by its name
 * @name: as mv_policy_rule_name() gives it
 * @rule: set on success
 *
 * Return: 0; -EINVAL.
 */
int mv_policy_rule_parse(const char *name, enum mv_policy_rule *rule);

/** mv_policy_state_name() - "high", "soft", "hard", "low" */
const char *mv_policy_state_name(enum mv_policy_state state);

#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_POLICY_H */
