/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * memstat once: two looks at each VM, an interval apart, and what they show.
 */
#include "memstat.h"

#include <errno.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <memvirt/version.h>

#include "vm/say.h"

#define INTERVAL_MAX_S 3600

/** struct once - the command's state */
struct once {
	bool json;
	double interval_s;
	const char *run_dir_option;
	char run_dir[RUNDIR_PATH_MAX];
	struct sample *samples;
	unsigned int count;
	bool missing; /* a VM that was named is not there */
};

static void print_help(void)
{
	printf("Usage: memstat once [OPTIONS] [VM...]\n"
	       "Show each VM once, or those named.\n"
	       "\n"
	       "  --json         JSON instead of a table\n"
	       "  --interval S   seconds between the two looks that rates need (1); 0 for one\n"
	       "                 look only, without rates\n"
	       "  --run-dir DIR  where the VMs are; see memvirt-run(1)\n"
	       "  --help, --version\n"
	       "\n"
	       "SIZE of the guest's memory; RESID is in host memory, at most LIMIT; STORED was\n"
	       "evicted and takes AS, compressed; BALLN the balloon holds; FLT/S faults and\n"
	       "RST/S restores in a second. '-' is unknown, or no limit.\n"
	       "\n"
	       "Examples:\n"
	       "  memstat once\n"
	       "  memstat once --interval 5 web db\n"
	       "  memstat once --json --interval 0\n");
}

static const struct option options[] = {
	{ "json", no_argument, NULL, 'j' },	     { "interval", required_argument, NULL, 'i' },
	{ "run-dir", required_argument, NULL, 'd' }, { "help", no_argument, NULL, 'h' },
	{ "version", no_argument, NULL, 'v' },	     { NULL, 0, NULL, 0 },
};

static int take_interval(const char *text, double *interval_s)
{
	char *end;
	double value = strtod(text, &end);

	if (end == text || *end || !(value >= 0 && value <= INTERVAL_MAX_S))
		return say_usage("once", "--interval: '%s' is not from 0 to %d seconds", text,
				 INTERVAL_MAX_S);
	*interval_s = value;
	return 0;
}

/* -1 to go on; else the exit status. */
static int take_option(int option, char **argv, struct once *once)
{
	switch (option) {
	case 'j':
		once->json = true;
		return -1;
	case 'i':
		return take_interval(optarg, &once->interval_s) ? EXIT_USAGE : -1;
	case 'd':
		once->run_dir_option = optarg;
		return *optarg ? -1 : say_usage("once", "--run-dir: is empty");
	case 'h':
		print_help();
		return EXIT_SUCCESS;
	case 'v':
		printf("memstat %s\n", mv_version());
		return EXIT_SUCCESS;
	}
	return say_bad_option("once", argv, option);
}

/* --- looking ------------------------------------------------------------------------------ */

static int look_for_all(struct once *once)
{
	struct find_vm *vms = NULL;
	unsigned int count = 0;
	int err = find_vms(once->run_dir, &vms, &count);

	/* Where there is no run directory no VM ever ran. */
	if (err && err != -ENOENT)
		return err;
	once->samples = calloc(count + 1, sizeof(*once->samples));
	if (!once->samples) {
		free(vms);
		return -ENOMEM;
	}
	for (unsigned int i = 0; i < count; i++)
		sample_first(&once->samples[once->count++], &vms[i]);
	free(vms);
	return 0;
}

static int look_for(struct once *once, char **names, int count)
{
	once->samples = calloc((size_t)count + 1, sizeof(*once->samples));
	if (!once->samples)
		return -ENOMEM;
	for (int i = 0; i < count; i++) {
		struct find_vm vm;
		int err = find_vm(once->run_dir, names[i], &vm);

		if (!err) {
			sample_first(&once->samples[once->count++], &vm);
			continue;
		}
		say("no VM named '%s' is running (run directory %s)", names[i], once->run_dir);
		once->missing = true;
	}
	return 0;
}

static void look_again(struct once *once)
{
	const struct timespec interval = {
		.tv_sec = (time_t)once->interval_s,
		.tv_nsec = (long)((once->interval_s - (double)(time_t)once->interval_s) * 1e9),
	};

	nanosleep(&interval, NULL);
	for (unsigned int i = 0; i < once->count; i++)
		sample_again(&once->samples[i]);
}

static int show(struct once *once)
{
	if (once->json)
		return print_json(once->samples, once->count, once->interval_s);
	if (once->count == 0 && !once->missing)
		say("no VM is running (run directory %s)", once->run_dir);
	print_table(once->samples, once->count);
	return 0;
}

static int look_and_show(struct once *once, char **names, int count)
{
	int err = count ? look_for(once, names, count) : look_for_all(once);

	if (!err && once->interval_s > 0 && once->count)
		look_again(once);
	return err ? err : show(once);
}

static int check_names(char **names, int count)
{
	for (int i = 0; i < count; i++)
		if (!rundir_name_valid(names[i]))
			return say_usage("once", "'%s' is no VM's name", names[i]);
	return 0;
}

int command_once(int argc, char **argv)
{
	struct once once = { .interval_s = 1 };
	int option, status, err;

	opterr = 0;
	while ((option = getopt_long(argc, argv, ":h", options, NULL)) != -1) {
		status = take_option(option, argv, &once);
		if (status >= 0)
			return status;
	}
	status = check_names(argv + optind, argc - optind);
	if (status)
		return status;
	err = rundir_choose(once.run_dir_option, once.run_dir);
	if (err) {
		say("no run directory: %s: set XDG_RUNTIME_DIR or MEMVIRT_RUN_DIR, or give "
		    "--run-dir",
		    strerror(-err));
		return EXIT_FAILURE;
	}
	err = look_and_show(&once, argv + optind, argc - optind);
	free(once.samples);
	if (err)
		say("run directory %s: %s", once.run_dir, strerror(-err));
	return err || once.missing ? EXIT_FAILURE : EXIT_SUCCESS;
}
