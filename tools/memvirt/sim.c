/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memvirt sim: how VMs would fare under each rule of the policy.
 */
#include "sim.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#include <memvirt/version.h>

#include "commands.h"
#include "vm/clock.h"
#include "vm/part.h"
#include "vm/say.h"
#include "vm/size.h"

#define VMS_MAX	    10000
#define SECONDS_MAX 86400

/* A restore by the pager and the store in RAM, and a program that touches a page now and then. */
#define RATIO	   0.4
#define RESTORE_NS 10000
#define ACCESS_NS  2000

/** struct sim_options - the command line */
struct sim_options {
	const char *trace;
	const char *kind;
	const char *write;
	const char *svg;
	const char *record;
	const char *run_dir;
	unsigned int vms;
	unsigned int seconds;
	uint64_t size_bytes;
	uint64_t seed;
	int rule; /* MV_POLICY_RULES for all */
	bool json;
	struct sim_host host;
};

static void print_help(void)
{
	printf("Usage: memvirt sim [OPTIONS]\n"
	       "Replay the demand of many VMs for memory under each rule of the policy.\n"
	       "\n"
	       "  --kind KIND      steady, swap, spikes, ramp, idle or mixed (mixed)\n"
	       "  --trace FILE     replay this instead; see memvirt-sim(1)\n"
	       "  --vms N          so many VMs (8)\n"
	       "  --seconds S      for so long (300)\n"
	       "  --size SIZE      of each VM (1G)\n"
	       "  --budget SIZE    for all of them (60%% of their sizes)\n"
	       "  --rule RULE      demand, shares, pressure, curve or all (all)\n"
	       "  --idle-tax PART  of shares, 0%% to 99%% (75%%)\n"
	       "  --seed N         of the distributions (1)\n"
	       "  --write FILE     write the trace\n"
	       "  --svg FILE       write a picture\n"
	       "  --record FILE    write what the running VMs work with, for --seconds\n"
	       "  --run-dir DIR    where those are; see memvirt-run(1)\n"
	       "  --json           one object a line for each rule\n"
	       "  --help, --version\n"
	       "\n"
	       "Examples:\n"
	       "  memvirt sim --kind swap --vms 2 --svg swap.svg\n"
	       "  memvirt sim --vms 100 --budget 40G --rule shares --json\n"
	       "  memvirt sim --record today.csv --seconds 3600\n");
}

/* --- options ------------------------------------------------------------------------------ */

enum {
	OPT_KIND = 256,
	OPT_TRACE,
	OPT_VMS,
	OPT_SECONDS,
	OPT_SIZE,
	OPT_BUDGET,
	OPT_RULE,
	OPT_IDLE_TAX,
	OPT_SEED,
	OPT_WRITE,
	OPT_SVG,
	OPT_RECORD,
	OPT_RUN_DIR,
	OPT_JSON,
	OPT_VERSION,
};

static const struct option options[] = {
	{ "kind", required_argument, NULL, OPT_KIND },
	{ "trace", required_argument, NULL, OPT_TRACE },
	{ "vms", required_argument, NULL, OPT_VMS },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "budget", required_argument, NULL, OPT_BUDGET },
	{ "rule", required_argument, NULL, OPT_RULE },
	{ "idle-tax", required_argument, NULL, OPT_IDLE_TAX },
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "write", required_argument, NULL, OPT_WRITE },
	{ "svg", required_argument, NULL, OPT_SVG },
	{ "record", required_argument, NULL, OPT_RECORD },
	{ "run-dir", required_argument, NULL, OPT_RUN_DIR },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static int take_number(const char *what, uint64_t least, uint64_t most, uint64_t *number)
{
	char *end;
	unsigned long long value = strtoull(optarg, &end, 10);

	if (*optarg < '0' || *optarg > '9' || *end || value < least || value > most)
		return say_usage("sim", "%s: '%s' is not from %llu to %llu", what, optarg,
				 (unsigned long long)least, (unsigned long long)most);
	*number = value;
	return 0;
}

static int take_count(const char *what, uint64_t most, unsigned int *count)
{
	uint64_t number;
	int status = take_number(what, 1, most, &number);

	if (!status)
		*count = (unsigned int)number;
	return status;
}

static int take_size(const char *what, uint64_t *bytes)
{
	if (size_parse(optarg, bytes) || *bytes < MV_POLICY_FLOOR_MIN || *bytes > 1ULL << 50)
		return say_usage("sim", "%s: '%s' is no size from 1M to 1024T", what, optarg);
	return 0;
}

static int take_rule(int *rule)
{
	enum mv_policy_rule found;

	if (!strcmp(optarg, "all")) {
		*rule = MV_POLICY_RULES;
		return 0;
	}
	if (mv_policy_rule_parse(optarg, &found))
		return say_usage("sim",
				 "--rule: '%s' is none of demand, shares, pressure, curve, all",
				 optarg);
	*rule = found;
	return 0;
}

static int take_idle_tax(double *tax)
{
	if (part_parse(optarg, 0.99, tax))
		return say_usage("sim", "--idle-tax: '%s' is no part from 0 to 99%%", optarg);
	return 0;
}

static int take_option(int option, char **argv, struct sim_options *o)
{
	switch (option) {
	case OPT_KIND:
		o->kind = optarg;
		return 0;
	case OPT_TRACE:
		o->trace = optarg;
		return 0;
	case OPT_VMS:
		return take_count("--vms", VMS_MAX, &o->vms);
	case OPT_SECONDS:
		return take_count("--seconds", SECONDS_MAX, &o->seconds);
	case OPT_SIZE:
		return take_size("--size", &o->size_bytes);
	case OPT_BUDGET:
		return take_size("--budget", &o->host.policy.budget_bytes);
	case OPT_RULE:
		return take_rule(&o->rule);
	case OPT_IDLE_TAX:
		return take_idle_tax(&o->host.policy.idle_tax);
	case OPT_SEED:
		return take_number("--seed", 0, UINT64_MAX, &o->seed);
	case OPT_WRITE:
		o->write = optarg;
		return 0;
	case OPT_SVG:
		o->svg = optarg;
		return 0;
	case OPT_RECORD:
		o->record = optarg;
		return 0;
	case OPT_RUN_DIR:
		o->run_dir = optarg;
		return 0;
	case OPT_JSON:
		o->json = true;
		return 0;
	}
	return say_bad_option("sim", argv, option);
}

/* --- simulating --------------------------------------------------------------------------- */

static int get_trace(const struct sim_options *o, struct sim_trace *trace)
{
	unsigned int line = 0;
	int err = o->trace ? sim_trace_read(trace, o->trace, &line)
			   : sim_trace_make(trace, o->kind, o->vms, o->seconds, o->size_bytes,
					    o->seed);

	if (!err)
		return 0;
	if (err != -EINVAL)
		say("%s: %s", o->trace ? o->trace : "trace", strerror(-err));
	else if (o->trace)
		say("%s:%u: is not second,vm,configured-bytes,shares,working-bytes", o->trace,
		    line);
	else
		return say_usage("sim",
				 "--kind: '%s' is none of steady, swap, spikes, ramp, idle, mixed",
				 o->kind);
	return EXIT_FAILURE;
}

static uint64_t default_budget(const struct sim_trace *trace)
{
	double total = 0;

	for (unsigned int i = 0; i < trace->vms; i++)
		total += (double)trace->vm[i].configured_bytes;
	return (uint64_t)(total * 0.6);
}

/* Return: 0; -1 with a message. */
static int write_to(const char *path, const struct sim_trace *trace, const struct sim_host *host,
		    const struct sim_result *results, unsigned int count)
{
	FILE *file = fopen(path, "we");
	int err;

	if (!file) {
		say("%s: %s", path, strerror(errno));
		return -1;
	}
	err = results ? sim_write_svg(trace, host, results, count, file)
		      : sim_trace_write(trace, file);
	if (fclose(file) || err) {
		say("%s: could not be written whole", path);
		return -1;
	}
	return 0;
}

static int simulate(const struct sim_options *o, const struct sim_trace *trace)
{
	struct sim_result results[MV_POLICY_RULES];
	unsigned int count = 0;
	int err = 0;

	for (int rule = 0; !err && rule < MV_POLICY_RULES; rule++) {
		if (o->rule != MV_POLICY_RULES && o->rule != rule)
			continue;
		err = sim_run(trace, &o->host, rule, &results[count]);
		if (!err)
			count++;
	}
	if (err)
		say("%s", strerror(-err));
	if (!err && o->write)
		err = write_to(o->write, trace, &o->host, NULL, 0);
	if (!err && o->svg)
		err = write_to(o->svg, trace, &o->host, results, count);
	if (!err)
		err = sim_print(trace, results, count, o->json);
	while (count)
		sim_result_free(&results[--count], trace);
	return err ? EXIT_FAILURE : EXIT_SUCCESS;
}

static int run(struct sim_options *o)
{
	struct sim_trace trace = { 0 };
	int status;

	if (o->record)
		return sim_record(o->record, o->run_dir, o->seconds);
	status = get_trace(o, &trace);
	if (status)
		return status;
	if (!o->host.policy.budget_bytes)
		o->host.policy.budget_bytes = default_budget(&trace);
	status = simulate(o, &trace);
	sim_trace_free(&trace);
	return status;
}

int command_sim(int argc, char **argv)
{
	struct sim_options o = {
		.kind = "mixed",
		.vms = 8,
		.seconds = 300,
		.size_bytes = 1ULL << 30,
		.seed = 1,
		.rule = MV_POLICY_RULES,
		.host = { .ratio = RATIO, .restore_ns = RESTORE_NS, .access_ns = ACCESS_NS },
	};
	int option, status = 0;

	o.host.policy.floor_bytes = 64UL << 20;
	o.host.policy.interval_ns = CLOCK_S;
	o.host.policy.idle_tax = 0.75;
	opterr = 0;
	while (!status && (option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		if (option == 'h') {
			print_help();
			return EXIT_SUCCESS;
		}
		if (option == OPT_VERSION) {
			printf("memvirt %s\n", mv_version());
			return EXIT_SUCCESS;
		}
		status = take_option(option, argv, &o);
	}
	if (!status && optind < argc)
		status = say_usage("sim", "what is '%s'?", argv[optind]);
	return status ? status : run(&o);
}
