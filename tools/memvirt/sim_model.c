/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VMs that live by a trace under a policy; see sim.h. A second is ten steps; the policy decides
 * once a second, or as soon as it asks to, and its limits hold from the next step on.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>

#include "sim.h"

#define STEPS_A_SECOND 10
#define STEP_S	       (1.0 / STEPS_A_SECOND)
#define PAGE	       4096.0
#define OVERHEAD_BYTES (1024.0 * 1024)

/* Pages come and go at most so fast. */
#define EVICT_PER_S (400.0 * 1024 * 1024)

/** struct vm - as it is */
struct vm {
	struct mv_policy_vm policy;
	struct mv_policy_curve curve;
	double working;
	double populated;
	double resident;
	double done, wanted; /* seconds of work */
	double restores;
	double second_restores, second_lost; /* since the last decision */
};

static double limit_of(const struct vm *vm)
{
	return vm->policy.numbers.limit_bytes == MV_POLICY_UNLIMITED
		       ? INFINITY
		       : (double)vm->policy.numbers.limit_bytes;
}

/*
 * A touch misses with the probability that its page is not resident: of the pages that are, those
 * of the working set are there first. A miss costs a restore, and brings its page.
 */
static void touch(struct vm *vm, const struct sim_host *host)
{
	double have = fmin(vm->resident, vm->working);
	double missing = vm->working > 0 ? 1 - have / vm->working : 0;
	double speed = host->access_ns / (host->access_ns + missing * host->restore_ns);
	double touches = STEP_S * 1e9 / host->access_ns * speed;
	double restores = touches * missing;

	vm->done += STEP_S * speed;
	vm->wanted += STEP_S;
	vm->restores += restores;
	vm->second_restores += restores;
	vm->second_lost += STEP_S * (1 - speed);
	/* Under its limit it fills up; at its limit for each that comes one goes. */
	vm->resident = fmin(fmin(vm->resident + restores * PAGE, vm->populated),
			    fmax(limit_of(vm), vm->resident));
}

static void live(struct vm *vm, const struct sim_host *host)
{
	if (vm->working > vm->populated) {
		/* Pages that it never had cost no restore. */
		vm->resident += vm->working - vm->populated;
		vm->populated = vm->working;
	}
	touch(vm, host);
	if (vm->resident > limit_of(vm))
		vm->resident = fmax(limit_of(vm), vm->resident - EVICT_PER_S * STEP_S);
}

static double used(const struct vm *vm, const struct sim_host *host)
{
	return vm->resident + (vm->populated - vm->resident) * host->ratio + OVERHEAD_BYTES;
}

/* What the model would say of itself with so much memory. */
static void make_curve(struct vm *vm, const struct sim_host *host)
{
	struct mv_policy_curve *curve = &vm->curve;
	double rate = 1e9 / host->access_ns;

	curve->count = 8;
	for (unsigned int i = 0; i < curve->count; i++) {
		double part = (i + 1) / (double)curve->count;

		curve->bytes[i] = fmax(vm->working * part, PAGE * (i + 1));
		curve->misses_per_s[i] = rate * (1 - part);
	}
	vm->policy.numbers.curve = curve;
}

static void say_numbers(struct vm *vm, const struct sim_host *host, double seconds)
{
	struct mv_policy_numbers *n = &vm->policy.numbers;

	n->resident_bytes = (uint64_t)vm->resident;
	n->stored_pages = (uint64_t)((vm->populated - vm->resident) / PAGE);
	n->store_memory_bytes = (uint64_t)((vm->populated - vm->resident) * host->ratio);
	n->restores_per_s = (uint64_t)(vm->second_restores / seconds);
	n->active_bytes = (uint64_t)fmin(vm->working, vm->resident);
	n->host_pressure_ppm = (uint64_t)(fmin(vm->second_lost / seconds, 1) * MV_POLICY_PPM);
	make_curve(vm, host);
	vm->second_restores = 0;
	vm->second_lost = 0;
}

static void begin(struct vm *vm, const struct sim_vm_trace *trace)
{
	struct mv_policy_numbers *n = &vm->policy.numbers;

	mv_policy_vm_init(&vm->policy);
	vm->policy.shares = trace->shares;
	vm->working = trace->working_bytes[0];
	vm->populated = vm->working;
	vm->resident = vm->working;
	*n = (struct mv_policy_numbers){
		.pager_fresh = true,
		.configured_bytes = trace->configured_bytes,
		.managed_bytes = trace->configured_bytes,
		.limit_bytes = trace->configured_bytes,
		.overhead_bytes = (uint64_t)OVERHEAD_BYTES,
		.guest_pressure_ppm = MV_POLICY_UNKNOWN,
		.balloon_actual_bytes = MV_POLICY_UNKNOWN,
		.guest_total_bytes = MV_POLICY_UNKNOWN,
		.guest_free_bytes = MV_POLICY_UNKNOWN,
		.guest_available_bytes = MV_POLICY_UNKNOWN,
		.guest_disk_cache_bytes = MV_POLICY_UNKNOWN,
	};
}

/** struct run - a replay under way */
struct run {
	const struct sim_trace *trace;
	const struct sim_host *host;
	struct sim_result *result;
	struct mv_policy policy;
	struct vm *vms;
	struct mv_policy_vm *deciding;
	double since_s; /* the last decision */
};

static int decide(struct run *run)
{
	int err;

	for (unsigned int i = 0; i < run->trace->vms; i++) {
		say_numbers(&run->vms[i], run->host, run->since_s);
		run->deciding[i] = run->vms[i].policy;
	}
	err = mv_policy_decide(&run->policy, run->deciding, run->trace->vms,
			       (uint64_t)(run->since_s * 1e9));
	for (unsigned int i = 0; !err && i < run->trace->vms; i++) {
		struct vm *vm = &run->vms[i];
		double before = fmin(limit_of(vm), (double)run->trace->vm[i].configured_bytes);

		vm->policy = run->deciding[i];
		vm->policy.numbers.limit_bytes = vm->policy.limit_bytes;
		run->result->vm[i].moved += fabs(
			fmin(limit_of(vm), (double)run->trace->vm[i].configured_bytes) - before);
	}
	run->since_s = 0;
	return err;
}

static int step(struct run *run)
{
	double total = 0;

	for (unsigned int i = 0; i < run->trace->vms; i++) {
		live(&run->vms[i], run->host);
		total += used(&run->vms[i], run->host);
	}
	run->result->most_used = fmax(run->result->most_used, total);
	if (total > (double)run->host->policy.budget_bytes)
		run->result->over_budget++;
	run->since_s += STEP_S;
	/* A step is longer than a governor in a hurry would wait. */
	if (run->since_s * 1e9 + 1 < (double)mv_policy_next_ns(&run->policy))
		return 0;
	return decide(run);
}

static void begin_second(struct run *run, unsigned int second)
{
	for (unsigned int i = 0; i < run->trace->vms; i++) {
		run->vms[i].working = run->trace->vm[i].working_bytes[second];
		run->result->vm[i].limit[second] =
			fmin(limit_of(&run->vms[i]), (double)run->trace->vm[i].configured_bytes);
		run->result->vm[i].resident[second] = run->vms[i].resident;
	}
}

static void sum_up(struct run *run)
{
	struct sim_result *result = run->result;
	double done = 0, wanted = 0, sum = 0, squares = 0;

	result->worst = 1;
	for (unsigned int i = 0; i < run->trace->vms; i++) {
		struct vm *vm = &run->vms[i];
		double by_share;

		result->vm[i].speed = vm->done / vm->wanted;
		result->vm[i].restores = vm->restores;
		by_share = result->vm[i].speed / run->trace->vm[i].shares;
		done += vm->done;
		wanted += vm->wanted;
		sum += by_share;
		squares += by_share * by_share;
		result->worst = fmax(result->worst, 1 / result->vm[i].speed);
		result->restores += result->vm[i].restores;
		result->moved += result->vm[i].moved;
	}
	result->slowdown = wanted / done;
	result->fairness = sum * sum / (run->trace->vms * squares);
}

static int replay(struct run *run)
{
	int err = 0;

	for (unsigned int i = 0; i < run->trace->vms; i++)
		begin(&run->vms[i], &run->trace->vm[i]);
	for (unsigned int second = 0; !err && second < run->trace->seconds; second++) {
		begin_second(run, second);
		for (int i = 0; !err && i < STEPS_A_SECOND; i++)
			err = step(run);
	}
	return err;
}

static int make_room(struct run *run)
{
	unsigned int vms = run->trace->vms;
	size_t seconds = run->trace->seconds;

	run->vms = calloc(vms, sizeof(*run->vms));
	run->deciding = calloc(vms, sizeof(*run->deciding));
	run->result->vm = calloc(vms, sizeof(*run->result->vm));
	if (!run->vms || !run->deciding || !run->result->vm)
		return -ENOMEM;
	for (unsigned int i = 0; i < vms; i++) {
		run->result->vm[i].limit = calloc(seconds, sizeof(double));
		run->result->vm[i].resident = calloc(seconds, sizeof(double));
		if (!run->result->vm[i].limit || !run->result->vm[i].resident)
			return -ENOMEM;
	}
	return 0;
}

int sim_run(const struct sim_trace *trace, const struct sim_host *host, enum mv_policy_rule rule,
	    struct sim_result *result)
{
	struct mv_policy_config config = host->policy;
	struct run run = { .trace = trace, .host = host, .result = result };
	int err;

	*result = (struct sim_result){ .rule = rule };
	config.rule = rule;
	mv_policy_init(&run.policy, &config);
	err = make_room(&run);
	if (!err)
		err = replay(&run);
	if (!err)
		sum_up(&run);
	else
		sim_result_free(result, trace);
	mv_policy_fini(&run.policy);
	free(run.vms);
	free(run.deciding);
	return err;
}

void sim_result_free(struct sim_result *result, const struct sim_trace *trace)
{
	for (unsigned int i = 0; result->vm && i < trace->vms; i++) {
		free(result->vm[i].limit);
		free(result->vm[i].resident);
	}
	free(result->vm);
	result->vm = NULL;
}
