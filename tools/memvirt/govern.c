/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memvirt govern: find the VMs, hear them, decide, tell them, and again.
 */
#include "commands.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <memvirt/version.h>

#include "govern_report.h"
#include "govern_vm.h"
#include "vm/clock.h"
#include "vm/say.h"
#include "vm/size.h"

/* What all VMs together may take in a tick, once to be asked and once to be told. */
#define TALK_NS (200 * CLOCK_MS)

/* Numbers older than this many intervals are old, an interval counting as a second or more:
 * guests and pagers do not report more often. */
#define STALE_INTERVALS 3

#define INTERVAL_MIN_S 0.1
#define INTERVAL_MAX_S 3600
#define FLOOR_DEFAULT  (64UL << 20)

/* Everything has to fit for so long before limits are lifted; not with --once. */
#define PATIENCE_NS (5 * CLOCK_S)

/* Ticks of --once: VMs without a limit are given one of their own size first, to look. */
#define ONCE_TICKS 4

/** struct wanted - a VM named on the command line */
struct wanted {
	char name[RUNDIR_NAME_MAX + 1];
	char qmp[RUNDIR_PATH_MAX]; /* empty where none was given */
};

/** struct governor - the command's state */
struct governor {
	struct mv_policy_config config;
	double interval_s;
	const char *run_dir_option;
	char run_dir[RUNDIR_PATH_MAX];
	bool once;
	bool dry_run;
	bool json;
	struct wanted *wanted; /* empty: all */
	unsigned int wanted_count;

	struct mv_policy policy;
	uint64_t decided_ns; /* 0 for not yet */
	struct govern_vm **vms;
	unsigned int count;
	bool said_none;
	bool said_too_small;
	bool said_output;
};

static void print_help(void)
{
	printf("Usage: memvirt govern --budget SIZE [OPTIONS] [VM[=QMP-PATH]...]\n"
	       "Keep the VMs started by 'memvirt run' within a budget of host memory: what the\n"
	       "guests can spare by their balloons, the rest by resident limits.\n"
	       "\n"
	       "  --budget SIZE    resident guest memory, stores and records of all VMs together\n"
	       "  --floor SIZE     no limit or balloon target goes below it (64M)\n"
	       "  --interval S     seconds between two looks, 0.1 to 3600 (1)\n"
	       "  --run-dir DIR    where the VMs are; see memvirt-run(1)\n"
	       "  --once           decide once, then end\n"
	       "  --dry-run        say what would be done, and do nothing\n"
	       "  --json           print decisions as JSON, one a line\n"
	       "  --help, --version\n"
	       "\n"
	       "Without VM all VMs of the run directory are governed, also those to come.\n"
	       "Ends on SIGINT or SIGTERM; limits and balloons then stay as they are.\n"
	       "\n"
	       "Examples:\n"
	       "  memvirt govern --budget 4G\n"
	       "  memvirt govern --budget 576M --floor 96M --interval 0.5 web db=/run/db.qmp\n"
	       "  memvirt govern --budget 4G --once --dry-run --json\n");
}

/* --- options ------------------------------------------------------------------------------ */

static int take_size(const char *what, const char *text, uint64_t *bytes)
{
	int err = size_parse(text, bytes);

	if (err == -ERANGE)
		return say_usage("govern", "%s: '%s' is too large", what, text);
	if (err)
		return say_usage("govern", "%s: '%s' is no size; write 512M or 1.5G", what, text);
	if (*bytes < MV_POLICY_FLOOR_MIN)
		return say_usage("govern", "%s: '%s' is below the least, 1M", what, text);
	return 0;
}

static int take_interval(const char *text, double *interval_s)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= INTERVAL_MIN_S && value <= INTERVAL_MAX_S))
		return say_usage("govern", "--interval: '%s' is not from %g to %d seconds", text,
				 INTERVAL_MIN_S, INTERVAL_MAX_S);
	*interval_s = value;
	return 0;
}

enum {
	OPT_BUDGET = 256,
	OPT_FLOOR,
	OPT_INTERVAL,
	OPT_RUN_DIR,
	OPT_ONCE,
	OPT_DRY_RUN,
	OPT_JSON,
	OPT_VERSION
};

static const struct option options[] = {
	{ "budget", required_argument, NULL, OPT_BUDGET },
	{ "floor", required_argument, NULL, OPT_FLOOR },
	{ "interval", required_argument, NULL, OPT_INTERVAL },
	{ "run-dir", required_argument, NULL, OPT_RUN_DIR },
	{ "once", no_argument, NULL, OPT_ONCE },
	{ "dry-run", no_argument, NULL, OPT_DRY_RUN },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, OPT_VERSION },
	{ NULL, 0, NULL, 0 },
};

static int take_option(int option, char **argv, struct governor *governor)
{
	switch (option) {
	case OPT_BUDGET:
		return take_size("--budget", optarg, &governor->config.budget_bytes);
	case OPT_FLOOR:
		return take_size("--floor", optarg, &governor->config.floor_bytes);
	case OPT_INTERVAL:
		return take_interval(optarg, &governor->interval_s);
	case OPT_RUN_DIR:
		governor->run_dir_option = optarg;
		return *optarg ? 0 : say_usage("govern", "--run-dir: is empty");
	case OPT_ONCE:
		governor->once = true;
		return 0;
	case OPT_DRY_RUN:
		governor->dry_run = true;
		return 0;
	case OPT_JSON:
		governor->json = true;
		return 0;
	}
	return say_bad_option("govern", argv, option);
}

/* "web" or "web=/run/web.qmp" */
static int take_wanted(const char *text, struct wanted *wanted)
{
	const char *equals = strchrnul(text, '=');
	size_t len = (size_t)(equals - text);

	if (len > RUNDIR_NAME_MAX)
		return say_usage("govern", "'%s': the name is too long", text);
	memcpy(wanted->name, text, len);
	if (!rundir_name_valid(wanted->name))
		return say_usage("govern", "'%s' is no VM's name", text);
	if (!*equals)
		return 0;
	if (!equals[1])
		return say_usage("govern", "'%s': no QMP path after the '='", text);
	if (strlen(equals + 1) >= sizeof(wanted->qmp))
		return say_usage("govern", "'%s': the path is too long for a socket", text);
	strcpy(wanted->qmp, equals + 1);
	return 0;
}

static int take_arguments(int argc, char **argv, struct governor *governor)
{
	int option, status;

	while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		status = take_option(option, argv, governor);
		if (status)
			return status;
	}
	if (!governor->config.budget_bytes)
		return say_usage("govern", "--budget is needed: how much memory have the VMs?");
	if (governor->config.floor_bytes > governor->config.budget_bytes)
		return say_usage("govern", "--floor is above --budget");
	governor->wanted = calloc((size_t)argc, sizeof(*governor->wanted));
	if (!governor->wanted) {
		say("no memory");
		return EXIT_FAILURE;
	}
	for (int i = optind; i < argc; i++) {
		status = take_wanted(argv[i], &governor->wanted[governor->wanted_count++]);
		if (status)
			return status;
	}
	return 0;
}

/* --- which VMs ---------------------------------------------------------------------------- */

static const struct wanted *find_wanted(const struct governor *governor, const char *name)
{
	for (unsigned int i = 0; i < governor->wanted_count; i++)
		if (!strcmp(governor->wanted[i].name, name))
			return &governor->wanted[i];
	return NULL;
}

static struct govern_vm *find_governed(const struct governor *governor, const char *name)
{
	for (unsigned int i = 0; i < governor->count; i++)
		if (!strcmp(governor->vms[i]->found.name, name))
			return governor->vms[i];
	return NULL;
}

/* Once its memory has been found. */
static void say_joined(const struct governor *governor, struct govern_vm *vm)
{
	char size[SIZE_TEXT], floor_size[SIZE_TEXT];
	uint64_t configured = vm->found.stats.configured_bytes;

	if (vm->said_joined || vm->found.state != FIND_OK || configured == 0 ||
	    configured == MV_STATS_UNKNOWN)
		return;
	vm->said_joined = true;
	say("%s: governed from now on, %s", vm->found.name, size_format(configured, size));
	if (configured < governor->config.floor_bytes)
		say("%s: is smaller than the floor of %s: its size is its floor", vm->found.name,
		    size_format(governor->config.floor_bytes, floor_size));
}

static void join(struct governor *governor, const struct find_vm *found)
{
	const struct wanted *wanted = find_wanted(governor, found->name);
	struct govern_vm **more =
		realloc(governor->vms, (governor->count + 1) * sizeof(*governor->vms));
	struct govern_vm *vm = malloc(sizeof(*vm));

	if (more)
		governor->vms = more;
	if (!more || !vm) {
		free(vm);
		say("%s: no memory to govern it", found->name);
		return;
	}
	govern_vm_init(vm, found, wanted && wanted->qmp[0] ? wanted->qmp : NULL,
		       governor->interval_s, governor->dry_run);
	vm->seen = true;
	governor->vms[governor->count++] = vm;
}

static void drop_unseen(struct governor *governor)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < governor->count; i++) {
		struct govern_vm *vm = governor->vms[i];

		if (vm->seen) {
			governor->vms[kept++] = vm;
			continue;
		}
		say("%s: has gone; its memory is free for the others", vm->found.name);
		govern_vm_drop(vm);
		free(vm);
	}
	governor->count = kept;
}

/* A name that is used again is another VM: the old one's connections are of no use. */
static bool is_same(const struct govern_vm *vm, const struct find_vm *found)
{
	return found->state == FIND_UNREADABLE || vm->found.state == FIND_UNREADABLE ||
	       (vm->found.stats.pid == found->stats.pid &&
		vm->found.stats.start_time == found->stats.start_time);
}

static void take_found(struct governor *governor, const struct find_vm *found)
{
	struct govern_vm *vm = find_governed(governor, found->name);

	if (found->state == FIND_DEAD ||
	    (governor->wanted_count && !find_wanted(governor, found->name)))
		return;
	if (vm && is_same(vm, found)) {
		vm->found = *found;
		vm->seen = true;
	} else if (found->state != FIND_UNREADABLE) {
		join(governor, found);
	}
}

static int search(struct governor *governor)
{
	struct find_vm *found = NULL;
	unsigned int count = 0;
	int err = find_vms(governor->run_dir, &found, &count);

	if (err && err != -ENOENT) {
		say("run directory %s: %s", governor->run_dir, strerror(-err));
		return -1;
	}
	for (unsigned int i = 0; i < governor->count; i++)
		governor->vms[i]->seen = false;
	for (unsigned int i = 0; i < count; i++)
		take_found(governor, &found[i]);
	free(found);
	drop_unseen(governor);
	for (unsigned int i = 0; i < governor->count; i++)
		say_joined(governor, governor->vms[i]);
	if (governor->count == 0 && !governor->said_none)
		say("no VM is running (run directory %s)", governor->run_dir);
	governor->said_none = governor->count == 0;
	return 0;
}

/* Who is named and not there was probably mistyped. */
static int check_wanted(const struct governor *governor)
{
	int status = 0;

	for (unsigned int i = 0; i < governor->wanted_count; i++) {
		if (find_governed(governor, governor->wanted[i].name))
			continue;
		say("no VM named '%s' is running (run directory %s)", governor->wanted[i].name,
		    governor->run_dir);
		status = -1;
	}
	return status;
}

/* --- a tick ------------------------------------------------------------------------------- */

static int decide(struct governor *governor)
{
	struct mv_policy_vm *vms = calloc(governor->count + 1, sizeof(*vms));
	double stale_s = STALE_INTERVALS * fmax(governor->interval_s, 1);
	uint64_t now;
	int err;

	if (!vms) {
		say("no memory");
		return -1;
	}
	for (unsigned int i = 0; i < governor->count; i++) {
		govern_vm_numbers(governor->vms[i], (uint64_t)(stale_s * 1e9));
		vms[i] = governor->vms[i]->policy;
	}
	now = clock_now();
	err = mv_policy_decide(&governor->policy, vms, governor->count,
			       governor->decided_ns ? now - governor->decided_ns
						    : governor->config.interval_ns);
	if (err) {
		say("no memory");
		free(vms);
		return -1;
	}
	governor->decided_ns = now;
	for (unsigned int i = 0; i < governor->count; i++)
		governor->vms[i]->policy = vms[i];
	free(vms);
	return 0;
}

static void report_budget(struct governor *governor)
{
	const struct mv_policy *policy = &governor->policy;
	char budget[SIZE_TEXT], floor_size[SIZE_TEXT];

	if (policy->too_small && !governor->said_too_small)
		say("the budget of %s is too small for %u VMs, even at their floors of %s. The "
		    "floors hold: raise --budget, lower --floor, or stop a VM",
		    size_format(policy->config.budget_bytes, budget), governor->count,
		    size_format(policy->config.floor_bytes, floor_size));
	if (!policy->too_small && governor->said_too_small)
		say("the budget suffices again");
	governor->said_too_small = policy->too_small;
}

static void report(struct governor *governor)
{
	int err = 0;

	report_budget(governor);
	for (unsigned int i = 0; i < governor->count; i++)
		err = govern_report(governor->vms[i], governor->json) || err;
	/* The VMs need the governor more than it needs its output. */
	if (err && !governor->said_output)
		say("standard output takes no more; governing goes on");
	governor->said_output = governor->said_output || err;
	clearerr(stdout);
}

static int tick(struct governor *governor)
{
	if (search(governor))
		return -1;
	for (unsigned int i = 0; i < governor->count; i++)
		govern_vm_begin_tick(governor->vms[i]);
	govern_talk(governor->vms, governor->count, clock_now() + TALK_NS);
	if (decide(governor))
		return -1;
	report(governor);
	for (unsigned int i = 0; i < governor->count; i++)
		govern_vm_tell(governor->vms[i]);
	govern_talk(governor->vms, governor->count, clock_now() + TALK_NS);
	return 0;
}

/* --- the loop ----------------------------------------------------------------------------- */

static bool is_learning(const struct governor *governor)
{
	for (unsigned int i = 0; i < governor->count; i++)
		if (governor->vms[i]->policy.limit_why == MV_POLICY_LEARN)
			return !governor->dry_run;
	return false;
}

static int govern_once(struct governor *governor)
{
	for (int i = 0; i < ONCE_TICKS; i++) {
		if (tick(governor))
			return EXIT_FAILURE;
		if (i == 0 && check_wanted(governor))
			return EXIT_FAILURE;
		if (!is_learning(governor))
			break;
		nanosleep(&(struct timespec){ .tv_sec = 1 }, NULL);
	}
	return governor->count == 0 || governor->policy.too_small || governor->said_output
		       ? EXIT_FAILURE
		       : EXIT_SUCCESS;
}

/* Until the next tick is due, or a signal. Returns whether to end. */
static bool rest(const sigset_t *signals, uint64_t until)
{
	uint64_t now = clock_now();
	uint64_t left = until > now ? until - now : 0;
	const struct timespec time = { .tv_sec = (time_t)(left / CLOCK_S),
				       .tv_nsec = (long)(left % CLOCK_S) };

	return sigtimedwait(signals, NULL, &time) > 0;
}

static int govern_on(struct governor *governor)
{
	uint64_t next = clock_now();
	sigset_t signals;

	/* Blocked but for the rests, so that no tick is cut short. */
	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	for (bool first = true;; first = false) {
		if (tick(governor) || (first && check_wanted(governor)))
			return EXIT_FAILURE;
		next += (uint64_t)(governor->interval_s * 1e9);
		if (next < clock_now())
			next = clock_now();
		if (rest(&signals, next))
			break;
	}
	say("ending: limits and balloons of %u VMs stay as they are", governor->count);
	return EXIT_SUCCESS;
}

static int govern(struct governor *governor)
{
	int err = rundir_choose(governor->run_dir_option, governor->run_dir);
	int status;

	if (err) {
		say("no run directory: %s: set XDG_RUNTIME_DIR or MEMVIRT_RUN_DIR, or give "
		    "--run-dir",
		    strerror(-err));
		return EXIT_FAILURE;
	}
	governor->config.patience_ns = governor->once ? 0 : PATIENCE_NS;
	governor->config.interval_ns = (uint64_t)(governor->interval_s * 1e9);
	mv_policy_init(&governor->policy, &governor->config);
	signal(SIGPIPE, SIG_IGN);
	status = governor->once ? govern_once(governor) : govern_on(governor);
	for (unsigned int i = 0; i < governor->count; i++) {
		govern_vm_drop(governor->vms[i]);
		free(governor->vms[i]);
	}
	free(governor->vms);
	mv_policy_fini(&governor->policy);
	return status;
}

int command_govern(int argc, char **argv)
{
	struct governor governor = {
		.config.floor_bytes = FLOOR_DEFAULT,
		.interval_s = 1,
	};
	int status;

	say_keep_descriptors();
	opterr = 0;
	for (int i = 1; i < argc && strcmp(argv[i], "--"); i++) {
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			print_help();
			return EXIT_SUCCESS;
		}
		if (!strcmp(argv[i], "--version")) {
			printf("memvirt %s\n", mv_version());
			return EXIT_SUCCESS;
		}
	}
	status = take_arguments(argc, argv, &governor);
	if (!status)
		status = govern(&governor);
	free(governor.wanted);
	return status;
}
