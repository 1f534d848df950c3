/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A trace of what running VMs work with, from their statistics segments.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "sim.h"
#include "vm/clock.h"
#include "vm/find.h"
#include "vm/say.h"

/*
 * What a VM works with: what is resident, and what it had to bring back in a second; without a
 * limit, all that it has.
 */
static double working_of(const struct mv_stats *now, uint64_t restores_before)
{
	double configured = (double)now->configured_bytes;
	double back = 0;

	if (now->resident_bytes == MV_STATS_UNKNOWN || now->managed_bytes == 0)
		return configured;
	if (now->restores != MV_STATS_UNKNOWN && now->restores > restores_before)
		back = (double)(now->restores - restores_before) * 4096;
	return fmin((double)now->resident_bytes + back, configured);
}

/** struct seen - the VMs of the last second */
struct seen {
	struct find_vm *vms;
	unsigned int count;
};

static uint64_t restores_before(const struct seen *seen, const char *name)
{
	for (unsigned int i = 0; i < seen->count; i++)
		if (!strcmp(seen->vms[i].name, name))
			return seen->vms[i].stats.restores;
	return MV_STATS_UNKNOWN;
}

static int record_second(FILE *file, const char *run_dir, unsigned int second, struct seen *seen)
{
	struct seen now = { 0 };
	int err = find_vms(run_dir, &now.vms, &now.count);

	if (err && err != -ENOENT) {
		say("run directory %s: %s", run_dir, strerror(-err));
		return -1;
	}
	for (unsigned int i = 0; i < now.count; i++) {
		const struct mv_stats *stats = &now.vms[i].stats;

		if (now.vms[i].state != FIND_OK || stats->configured_bytes == MV_STATS_UNKNOWN ||
		    stats->configured_bytes < MV_POLICY_FLOOR_MIN)
			continue;
		fprintf(file, "%u,%s,%llu,%d,%.0f\n", second, now.vms[i].name,
			(unsigned long long)stats->configured_bytes, MV_POLICY_SHARES_DEFAULT,
			working_of(stats, restores_before(seen, now.vms[i].name)));
	}
	free(seen->vms);
	*seen = now;
	return fflush(file) || ferror(file) ? -1 : 0;
}

static int record_on(FILE *file, const char *run_dir, unsigned int seconds)
{
	struct seen seen = { 0 };
	uint64_t start = clock_now();
	int err = 0;

	fprintf(file, SIM_TRACE_HEADER "\n");
	for (unsigned int second = 0; !err && second < seconds; second++) {
		uint64_t due = start + (second + 1) * CLOCK_S, now;

		err = record_second(file, run_dir, second, &seen);
		now = clock_now();
		if (!err && second + 1 < seconds && due > now)
			nanosleep(&(struct timespec){ .tv_sec = (time_t)((due - now) / CLOCK_S),
						      .tv_nsec = (long)((due - now) % CLOCK_S) },
				  NULL);
	}
	free(seen.vms);
	return err;
}

int sim_record(const char *path, const char *run_dir_option, unsigned int seconds)
{
	char run_dir[RUNDIR_PATH_MAX];
	int err = rundir_choose(run_dir_option, run_dir);
	FILE *file = err ? NULL : fopen(path, "we");

	if (err) {
		say("no run directory: %s: give --run-dir", strerror(-err));
		return EXIT_FAILURE;
	}
	if (!file) {
		say("%s: %s", path, strerror(errno));
		return EXIT_FAILURE;
	}
	say("recording for %u s to %s", seconds, path);
	err = record_on(file, run_dir, seconds);
	if (fclose(file) || err) {
		say("%s: could not be written whole", path);
		return EXIT_FAILURE;
	}
	return EXIT_SUCCESS;
}
