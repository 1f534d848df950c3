// SPDX-License-Identifier: BSD-2-Clause
/*
 * What a decision costs for each VM, under each rule, with a thousand VMs and with ten thousand:
 * beside a microsecond, and beside each other, as it must not grow faster than their number.
 */
#include "support/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memvirt/policy.h>

#define MIB    (1024.0 * 1024)
#define SECOND 1000000000ULL

#define MANY	   10000
#define FEW	   1000
#define MANY_QUICK 2000
#define FEW_QUICK  200

/* Decisions timed together, so that a round of few VMs is as long as one of many. */
#define VMS_A_ROUND 40000

#define GOAL_NS 1000

struct host {
	enum mv_policy_rule rule;
	unsigned int few, many;
	struct mv_policy_vm *fresh;
	struct mv_policy_vm *vms;
	struct mv_policy_curve *curves;
};

static void make_vm(struct host *host, unsigned int at, uint64_t *state)
{
	struct mv_policy_vm *vm = &host->fresh[at];
	struct mv_policy_curve *curve = &host->curves[at];
	struct mv_policy_numbers *n = &vm->numbers;
	uint64_t mib = 256 + bench_random(state) % 3840;

	mv_policy_vm_init(vm);
	*curve = (struct mv_policy_curve){ .count = MV_POLICY_CURVE_POINTS };
	for (unsigned int i = 0; i < curve->count; i++) {
		curve->bytes[i] = (double)mib * MIB * (i + 1) / curve->count;
		curve->misses_per_s[i] = (double)(bench_random(state) % 1000) / (1 << i);
	}
	*n = (struct mv_policy_numbers){
		.pager_fresh = true,
		.guest_fresh = true,
		.configured_bytes = mib << 20,
		.managed_bytes = mib << 20,
		.resident_bytes = (mib / 2) << 20,
		.limit_bytes = (mib * 3 / 4) << 20,
		.stored_pages = mib << 6,
		.store_memory_bytes = mib << 17,
		.overhead_bytes = mib << 12,
		.restores_per_s = bench_random(state) % 1000,
		.active_bytes = (mib / 3) << 20,
		.host_pressure_ppm = bench_random(state) % 4000,
		.guest_pressure_ppm = bench_random(state) % 4000,
		.balloon_actual_bytes = mib << 20,
		.guest_total_bytes = (mib - 32) << 20,
		.guest_free_bytes = (mib / 8) << 20,
		.guest_available_bytes = (mib / 4) << 20,
		.guest_disk_cache_bytes = (mib / 8) << 20,
		.curve = curve,
	};
}

static double a_vm(struct host *host, unsigned int count)
{
	struct mv_policy_config config = { .budget_bytes = (uint64_t)count * 1500 << 20,
					   .floor_bytes = 64 << 20,
					   .interval_ns = SECOND,
					   .rule = host->rule,
					   .idle_tax = 0.75 };
	unsigned int decisions = VMS_A_ROUND / count;
	struct mv_policy policy;
	double start;

	mv_policy_init(&policy, &config);
	memcpy(host->vms, host->fresh, count * sizeof(*host->vms));
	if (mv_policy_decide(&policy, host->vms, count, SECOND))
		bench_die("mv_policy_decide");
	start = bench_now();
	for (unsigned int i = 0; i < decisions; i++)
		mv_policy_decide(&policy, host->vms, count, SECOND);
	start = bench_now() - start;
	mv_policy_fini(&policy);
	return start / decisions / count;
}

static double of_many(void *ctx)
{
	struct host *host = ctx;

	return a_vm(host, host->many);
}

static double of_few(void *ctx)
{
	struct host *host = ctx;

	return a_vm(host, host->few);
}

static double a_microsecond(void *unused)
{
	return GOAL_NS;
}

static void measure(struct bench *bench, struct host *host, enum mv_policy_rule rule)
{
	char name[64];

	host->rule = rule;
	snprintf(name, sizeof(name), "%s: a decision, many VMs", mv_policy_rule_name(rule));
	bench_compare(bench, &(struct bench_pair){ .name = name,
						   .unit = "ns/VM",
						   .peer_name = "a microsecond",
						   .ours = of_many,
						   .peer = a_microsecond,
						   .ctx = host,
						   .goal = "<=1.00" });
	snprintf(name, sizeof(name), "%s: ten times the VMs", mv_policy_rule_name(rule));
	bench_compare(bench, &(struct bench_pair){ .name = name,
						   .unit = "ns/VM",
						   .peer_name = "a tenth of the VMs",
						   .ours = of_many,
						   .peer = of_few,
						   .ctx = host,
						   .goal = "<=1.50" });
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);
	struct host host = { .few = bench.quick ? FEW_QUICK : FEW,
			     .many = bench.quick ? MANY_QUICK : MANY };
	uint64_t state = 1;

	bench_pin(0);
	host.fresh = calloc(MANY, sizeof(*host.fresh));
	host.vms = calloc(MANY, sizeof(*host.vms));
	host.curves = calloc(MANY, sizeof(*host.curves));
	if (!host.fresh || !host.vms || !host.curves)
		bench_die("no memory");
	for (unsigned int i = 0; i < host.many; i++)
		make_vm(&host, i, &state);
	for (enum mv_policy_rule rule = 0; rule < MV_POLICY_RULES; rule++)
		measure(&bench, &host, rule);
	free(host.fresh);
	free(host.vms);
	free(host.curves);
	return bench_close(&bench);
}
