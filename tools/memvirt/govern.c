/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memvirt govern: find the VMs, hear them, decide, tell them, and again.
 */
#include "govern.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <memvirt/version.h>

#include "commands.h"
#include "vm/clock.h"
#include "vm/say.h"
#include "vm/size.h"

/* What all VMs together may take in a tick, once to be asked and once to be told. */
#define TALK_NS (200 * CLOCK_MS)

/* Numbers older than this many intervals are old, an interval counting as a second or more:
 * guests and pagers do not report more often. */
#define STALE_INTERVALS 3

/* Everything has to fit for so long before limits are lifted; not with --once. */
#define PATIENCE_NS (5 * CLOCK_S)

/* Between ticks the segments are looked at so often, for VMs that are short of memory. */
#define GLANCE_NS (40 * CLOCK_MS)

/* Ticks of --once: VMs without a limit are given one of their own size first, to look. */
#define ONCE_TICKS 4

static void print_help(void)
{
	printf("Usage: memvirt govern --budget SIZE [OPTIONS] [VM[=QMP-PATH]...]\n"
	       "Keep VMs within a budget of host memory: those started by 'memvirt run' by\n"
	       "resident limits and balloons, others by their balloons.\n"
	       "\n"
	       "  --config FILE      settings from a file, and what is wanted of each VM\n"
	       "  --budget SIZE      resident guest memory, stores and records of all VMs\n"
	       "  --floor SIZE       no limit or balloon target goes below it (64M)\n"
	       "  --interval S       seconds between two looks, 0.1 to 3600 (1)\n"
	       "  --rule RULE        demand (the default), shares or pressure\n"
	       "  --idle-tax PART    shares: what may be taken of idle memory (75%%)\n"
	       "  --pressure-target PART\n"
	       "                     pressure: the time that a VM may lose (0.1%%)\n"
	       "  --pressure-limit PART\n"
	       "                     from here on a VM is short of memory (5%%)\n"
	       "  --run-dir DIR      where the VMs are; see memvirt-run(1)\n"
	       "  --qmp-dir DIR      where QMP sockets of other QEMUs are, each NAME.qmp\n"
	       "  --libvirt URI      VMs of libvirt, where that is installed\n"
	       "  --journal FILE     append each decision, as JSON\n"
	       "  --listen PATH      a socket for targets from outside\n"
	       "  --on-exit HOW      safe (give balloons back, keep limits), keep or release\n"
	       "  --once             decide once, then end\n"
	       "  --dry-run          say what would be done, and do nothing\n"
	       "  --json             print decisions as JSON, one a line\n"
	       "  --help, --version\n"
	       "\n"
	       "Without VM all VMs are governed, also those to come. SIGHUP reads the file again\n"
	       "and opens the journal anew. Ends on SIGINT or SIGTERM.\n"
	       "\n"
	       "Examples:\n"
	       "  memvirt govern --budget 4G\n"
	       "  memvirt govern --budget 576M --floor 96M --interval 0.5 web db=/run/db.qmp\n"
	       "  memvirt govern --budget 4G --once --dry-run --json\n"
	       "  memvirt govern --budget 64G --rule shares --listen /run/memvirt/govern.socket\n");
}

/* --- a tick ------------------------------------------------------------------------------- */

static void lapse_leases(struct governor *governor)
{
	uint64_t now = clock_now();

	for (unsigned int i = 0; i < governor->count; i++) {
		struct govern_vm *vm = governor->vms[i];

		if (!vm->outside_until_ns || now < vm->outside_until_ns)
			continue;
		vm->outside_until_ns = 0;
		say("%s: the lease of its target has lapsed; deciding for it again",
		    vm->found.name);
		govern_journal_note(&governor->output, vm->found.name, "lease lapsed");
	}
}

static int decide(struct governor *governor)
{
	struct mv_policy_vm *vms = calloc(governor->count + 1, sizeof(*vms));
	double stale_s = STALE_INTERVALS * fmax(governor->config.interval_s, 1);
	uint64_t now = clock_now();
	uint64_t elapsed_ns = governor->decided_ns ? now - governor->decided_ns
						   : governor->policy.config.interval_ns;
	int err = vms ? 0 : -ENOMEM;

	for (unsigned int i = 0; !err && i < governor->count; i++) {
		struct govern_vm *vm = governor->vms[i];

		govern_vm_numbers(vm, (uint64_t)(stale_s * 1e9));
		govern_vm_set_wants(vm, govern_config_want(&governor->config, vm->found.name));
		vms[i] = vm->policy;
	}
	if (!err)
		err = mv_policy_decide(&governor->policy, vms, governor->count, elapsed_ns);
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
		err = govern_report(&governor->output, governor->vms[i]) || err;
	/* The VMs need the governor more than it needs its output. */
	if (err && !governor->said_output)
		say("standard output or the journal takes no more; governing goes on");
	governor->said_output = governor->said_output || err;
	clearerr(stdout);
	if (governor->output.journal)
		clearerr(governor->output.journal);
}

static void talk(struct governor *governor)
{
	govern_talk(governor->vms, governor->count, clock_now() + TALK_NS);
}

/* On what is known, without asking: where somebody is short of memory that would take too long. */
static int decide_and_tell(struct governor *governor)
{
	lapse_leases(governor);
	if (decide(governor))
		return -1;
	report(governor);
	for (unsigned int i = 0; i < governor->count; i++)
		govern_vm_tell(governor->vms[i]);
	talk(governor);
	return 0;
}

static int tick(struct governor *governor)
{
	if (govern_search(governor))
		return -1;
	for (unsigned int i = 0; i < governor->count; i++)
		govern_vm_begin_tick(governor->vms[i]);
	talk(governor);
	return decide_and_tell(governor);
}

/* --- once --------------------------------------------------------------------------------- */

static bool is_learning(const struct governor *governor)
{
	for (unsigned int i = 0; i < governor->count; i++)
		if (governor->vms[i]->policy.limit_why == MV_POLICY_LEARN)
			return !governor->config.dry_run;
	return false;
}

static int govern_once(struct governor *governor)
{
	for (int i = 0; i < ONCE_TICKS; i++) {
		if (tick(governor))
			return EXIT_FAILURE;
		if (i == 0 && govern_check_named(governor))
			return EXIT_FAILURE;
		if (!is_learning(governor))
			break;
		nanosleep(&(struct timespec){ .tv_sec = 1 }, NULL);
	}
	return governor->count == 0 || governor->policy.too_small || governor->said_output
		       ? EXIT_FAILURE
		       : EXIT_SUCCESS;
}

/* --- on and on ---------------------------------------------------------------------------- */

/* The signal that has come; 0 for none. */
static int read_signal(int fd)
{
	struct signalfd_siginfo info;

	return read(fd, &info, sizeof(info)) == sizeof(info) ? (int)info.ssi_signo : 0;
}

static bool someone_is_short(struct governor *governor)
{
	bool is_short = false;

	for (unsigned int i = 0; i < governor->count; i++)
		is_short |= govern_vm_glance(governor->vms[i],
					     governor->policy.config.pressure_limit_ppm);
	return is_short;
}

/*
 * Until @until, or a signal, which is returned. Requests from outside are served meanwhile, and
 * who comes to be short of memory is decided for at once.
 */
static int rest(struct governor *governor, int signals, uint64_t until)
{
	while (clock_now() < until) {
		struct pollfd polls[GOVERN_CLIENTS + 2] = { { signals, POLLIN, 0 } };
		unsigned int count = 1 + govern_listen_polls(governor->listener, polls + 1);
		uint64_t glance = clock_now() + GLANCE_NS;

		if (poll(polls, count, clock_poll_ms(glance < until ? glance : until)) > 0) {
			govern_listen_serve(governor);
			if (polls[0].revents)
				return read_signal(signals);
		}
		if (clock_now() >= glance && someone_is_short(governor) &&
		    decide_and_tell(governor))
			return SIGTERM;
	}
	return 0;
}

static void open_journal(struct governor *governor)
{
	const char *path = governor->config.journal;
	int err = path[0] ? govern_journal_open(&governor->output, path) : 0;

	if (err)
		say("journal %s: %s", path, strerror(-err));
}

/* SIGHUP: what cannot be read changes nothing. */
static void reload(struct governor *governor, int argc, char **argv)
{
	struct govern_config config;

	if (govern_config_read(argc, argv, &config)) {
		govern_config_free(&config);
		say("nothing has been changed");
		return;
	}
	govern_config_free(&governor->config);
	config.policy.patience_ns = governor->config.policy.patience_ns;
	governor->config = config;
	mv_policy_configure(&governor->policy, &config.policy);
	open_journal(governor);
	say("settings have been read again");
}

static void leave_vms(struct governor *governor)
{
	enum govern_exit how = governor->config.on_exit;
	static const char *const said[] = {
		[GOVERN_EXIT_SAFE] = "limits stay, balloons under a limit are given back",
		[GOVERN_EXIT_KEEP] = "limits and balloons stay as they are",
		[GOVERN_EXIT_RELEASE] = "limits and balloons are given up",
	};

	say("ending, with %u VMs: %s", governor->count, said[how]);
	govern_journal_note(&governor->output, NULL, "ends");
	if (how == GOVERN_EXIT_KEEP)
		return;
	for (unsigned int i = 0; i < governor->count; i++)
		govern_vm_release(governor->vms[i], how == GOVERN_EXIT_RELEASE);
	talk(governor);
}

static int govern_on(struct governor *governor, int signals, int argc, char **argv)
{
	uint64_t next = clock_now();
	int signal = 0;

	govern_journal_note(&governor->output, NULL, "begins");
	for (bool first = true; signal != SIGTERM && signal != SIGINT; first = false) {
		if (tick(governor) || (first && govern_check_named(governor)))
			return EXIT_FAILURE;
		next += governor->policy.config.interval_ns;
		if (next < clock_now())
			next = clock_now();
		signal = rest(governor, signals, next);
		if (signal == SIGHUP)
			reload(governor, argc, argv);
	}
	leave_vms(governor);
	return EXIT_SUCCESS;
}

/* --- the command -------------------------------------------------------------------------- */

static int open_signals(void)
{
	sigset_t signals;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigaddset(&signals, SIGHUP);
	sigprocmask(SIG_BLOCK, &signals, NULL);
	return signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
}

static int open_outside(struct governor *governor)
{
	const struct govern_config *config = &governor->config;
	char why[LIBVIRT_WHY];
	int err;

	governor->output.json = config->json;
	err = config->journal[0] ? govern_journal_open(&governor->output, config->journal) : 0;
	if (err) {
		say("journal %s: %s", config->journal, strerror(-err));
		return -1;
	}
	if (config->libvirt[0] &&
	    govern_libvirt_open(config->libvirt, config->interval_s, &governor->libvirt, why)) {
		say("libvirt: %s", why);
		return -1;
	}
	err = config->listen[0] && !config->once
		      ? govern_listen_open(config->listen, &governor->listener)
		      : 0;
	if (err)
		say("socket %s: %s", config->listen,
		    err == -EADDRINUSE ? "another governor listens there" : strerror(-err));
	return err ? -1 : 0;
}

static int run(struct governor *governor, int argc, char **argv)
{
	int signals, status;

	/* Before any thread begins: it would take signals that are the loop's. */
	signals = governor->config.once ? 0 : open_signals();
	if (signals < 0) {
		say("signals: %s", strerror(errno));
		return EXIT_FAILURE;
	}
	if (open_outside(governor))
		status = EXIT_FAILURE;
	else if (governor->config.once)
		status = govern_once(governor);
	else
		status = govern_on(governor, signals, argc, argv);
	if (signals)
		close(signals);
	return status;
}

static int govern(struct governor *governor, int argc, char **argv)
{
	struct govern_config *config = &governor->config;
	int err = rundir_choose(config->run_dir[0] ? config->run_dir : NULL, governor->run_dir);
	int status;

	if (err) {
		say("no run directory: %s: set XDG_RUNTIME_DIR or MEMVIRT_RUN_DIR, or give "
		    "--run-dir",
		    strerror(-err));
		return EXIT_FAILURE;
	}
	config->policy.patience_ns = config->once ? 0 : PATIENCE_NS;
	mv_policy_init(&governor->policy, &config->policy);
	signal(SIGPIPE, SIG_IGN);
	status = run(governor, argc, argv);
	govern_listen_close(governor->listener);
	govern_libvirt_close(governor->libvirt);
	govern_journal_close(&governor->output);
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
	struct governor governor = { 0 };
	int status;

	say_keep_descriptors();
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
	status = govern_config_read(argc, argv, &governor.config);
	if (!status)
		status = govern(&governor, argc, argv);
	govern_config_free(&governor.config);
	return status;
}
