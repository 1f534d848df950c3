/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * How much memory each VM gets: pure functions of the numbers of one moment and of the little
 * that is remembered between moments. docs/governor.md explains the reasoning.
 *
 * What counts against the budget is, summed over the VMs, resident guest memory, the store's
 * memory, and the pager's records. A page that leaves residency goes on costing what its
 * compressed copy needs, so limits are solved for with the ratio measured so far, for as much
 * memory as each guest can have populated until the next two ticks.
 *
 * What does not belong here: where the numbers come from, and who is told.
 */
#ifndef MEMVIRT_GOVERN_POLICY_H
#define MEMVIRT_GOVERN_POLICY_H

#include <stdbool.h>
#include <stdint.h>

#define POLICY_UNKNOWN	 UINT64_MAX
#define POLICY_UNLIMITED UINT64_MAX

/* No floor is lower, as no limit can be. */
#define POLICY_FLOOR_MIN (1UL << 20)

/**
 * struct policy_config - what the user wants
 * @floor_bytes: of each VM's limit and balloon target
 * @interval_ns: from one tick to the next
 * @patience_ns: how long everything has to fit before limits are lifted
 */
struct policy_config {
	uint64_t budget_bytes;
	uint64_t floor_bytes;
	uint64_t interval_ns;
	uint64_t patience_ns;
};

/**
 * struct policy_numbers - what is known of a VM at this moment; POLICY_UNKNOWN where not
 * @pager_fresh:          the pager's numbers are recent; else the limit stays as it is
 * @guest_fresh:          the guest's are; else the balloon stays as it is
 * @held:                 nothing can be evicted, so a limit would have no effect
 * @limit_bytes:          in force; POLICY_UNLIMITED for none
 * @restores_per_s:       pages that came back from the store
 * @balloon_actual_bytes: what the balloon leaves the guest
 */
struct policy_numbers {
	bool pager_fresh;
	bool guest_fresh;
	bool held;
	uint64_t configured_bytes;
	uint64_t managed_bytes;
	uint64_t resident_bytes;
	uint64_t limit_bytes;
	uint64_t stored_pages;
	uint64_t store_memory_bytes;
	uint64_t overhead_bytes;
	uint64_t restores_per_s;
	uint64_t balloon_actual_bytes;
	uint64_t guest_total_bytes;
	uint64_t guest_free_bytes;
	uint64_t guest_available_bytes;
	uint64_t guest_disk_cache_bytes;
};

/** enum policy_why - the reason of a decision, for people */
enum policy_why {
	POLICY_SAME,	     /* nothing to change */
	POLICY_STALE,	     /* its numbers are missing or old: left alone */
	POLICY_HELD,	     /* it cannot evict: left alone */
	POLICY_AMPLE,	     /* everything fits without limits or balloons */
	POLICY_LEARN,	     /* a limit of its own size, to find out what is resident */
	POLICY_GROW,	     /* its demand is worth more than it has */
	POLICY_SHRINK,	     /* others' demand is worth more */
	POLICY_OVER,	     /* the budget would be exceeded */
	POLICY_FLOOR,	     /* the budget is too small: at its floor */
	POLICY_GUEST_SPARES, /* the guest has memory to give */
	POLICY_GUEST_NEEDS,  /* the guest is short */
};

/**
 * struct policy_vm - a VM and what is decided for it
 * @numbers:       set by the caller before each tick
 * @limit_bytes:   decided; equal to @numbers.limit_bytes where nothing is to change
 * @limit_why:     why
 * @balloon_bytes: decided; POLICY_UNKNOWN where nothing is to change
 * @balloon_why:   why
 *
 * The rest is the policy's: what it remembers, and what it works with during a tick. A VM
 * begins with policy_vm_init().
 */
struct policy_vm {
	struct policy_numbers numbers;
	uint64_t limit_bytes;
	enum policy_why limit_why;
	uint64_t balloon_bytes;
	enum policy_why balloon_why;

	/* Remembered. */
	double demand;		 /* smoothed; 0 for none yet */
	double ratio;		 /* host memory for a stored byte */
	double growth_per_s;	 /* populated at most in a second */
	double growth_bytes;	 /* until the tick after next */
	double populated;	 /* resident and stored; 0 for unknown */
	uint64_t reserved_bytes; /* of what it has, outside the guest's own total */
	uint64_t last_actual;
	uint64_t target_bytes; /* of the balloon, decided last */

	/* Of this tick. */
	bool adjustable;
	double cost_fixed; /* of a VM that is not adjustable */
	double floor;
	double potential; /* populated at most until the next ticks */
	double resident;
	double overhead; /* taken whatever the limit */
	double old;	 /* where its limit counts from */
	double target;	 /* what it should have */
	double next;	 /* what it gets now */
};

/** struct policy - the budget and what is remembered of it */
struct policy {
	struct policy_config config;
	bool ample;	  /* no limits at the moment */
	uint64_t fits_ns; /* everything has fitted for so long */

	/* Of the last tick. */
	double usable_bytes;  /* the budget less its headroom */
	double planned_bytes; /* what the decisions cost at most */
	bool waiting;	      /* everything fits, but not for long enough: nothing is done */
	bool over;	      /* it would be exceeded if limits fell gently */
	bool too_small;	      /* floors alone exceed it */
};

void policy_init(struct policy *policy, const struct policy_config *config);
void policy_vm_init(struct policy_vm *vm);

/**
 * policy_decide() - one tick
 * @policy: the budget
 * @vms:    all VMs that count against it, with fresh @numbers
 * @count:  how many
 */
void policy_decide(struct policy *policy, struct policy_vm *vms, unsigned int count);

/** policy_cost() - what a VM costs at most with a limit; valid after policy_decide() */
double policy_cost(const struct policy_vm *vm, double limit);

/** policy_why_text() - a reason in words */
const char *policy_why_text(enum policy_why why);

#endif /* MEMVIRT_GOVERN_POLICY_H */
