/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Demand for memory over time: made from a stated distribution, or read from a file.
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

#define LINE_MAX_BYTES 512
#define VMS_MAX	       10000
#define SECONDS_MAX    86400

/* Demand swaps between the halves of the VMs so often. */
#define SWAP_S 30

/* --- chance ------------------------------------------------------------------------------- */

/* splitmix64: the same seed makes the same trace everywhere. */
static uint64_t next(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static double uniform(uint64_t *state, double low, double high)
{
	return low + (high - low) * (double)(next(state) >> 11) / 9007199254740992.0;
}

/* --- stated distributions ----------------------------------------------------------------- */

/** struct pattern - one VM's part of a kind; parts of its configured size */
struct pattern {
	double base;
	double peak;
	double phase_s;
	uint64_t state;
};

typedef double (*working_part)(struct pattern *pattern, unsigned int vm, unsigned int second);

/* A size of its own for each VM, a tenth of noise. */
static double steady(struct pattern *p, unsigned int vm, unsigned int second)
{
	return p->base * uniform(&p->state, 0.95, 1.05);
}

/* Each second VM works while the others rest, and the other way round. */
static double swap(struct pattern *p, unsigned int vm, unsigned int second)
{
	return (second / SWAP_S + vm) % 2 ? 0.85 : 0.15;
}

/* Little most of the time, and now and then nearly everything for some seconds. */
static double spikes(struct pattern *p, unsigned int vm, unsigned int second)
{
	if (p->phase_s > 0)
		p->phase_s--;
	else if (uniform(&p->state, 0, 1) < 0.01)
		p->phase_s = uniform(&p->state, 5, 20);
	return p->phase_s > 0 ? p->peak : p->base * 0.4;
}

/* From a tenth up to its peak, and from the start again, each at its own pace. */
static double ramp(struct pattern *p, unsigned int vm, unsigned int second)
{
	double at = fmod(second + p->phase_s, 120) / 120;

	return 0.1 + at * (p->peak - 0.1);
}

/* One VM in four works, the others have nothing to do. */
static double idle(struct pattern *p, unsigned int vm, unsigned int second)
{
	return vm % 4 == 0 ? p->peak : 0.08;
}

static double mixed(struct pattern *p, unsigned int vm, unsigned int second)
{
	static const working_part parts[] = { steady, swap, spikes, ramp, idle };

	return parts[vm % 5](p, vm, second);
}

static working_part find_kind(const char *kind)
{
	static const struct {
		const char *name;
		working_part part;
	} kinds[] = { { "steady", steady }, { "swap", swap }, { "spikes", spikes },
		      { "ramp", ramp },	    { "idle", idle }, { "mixed", mixed } };

	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (!strcmp(kinds[i].name, kind))
			return kinds[i].part;
	return NULL;
}

static int allocate(struct sim_trace *trace, unsigned int vms, unsigned int seconds)
{
	*trace = (struct sim_trace){ .vms = vms, .seconds = seconds };
	trace->vm = calloc(vms, sizeof(*trace->vm));
	if (!trace->vm)
		return -ENOMEM;
	for (unsigned int i = 0; i < vms; i++) {
		trace->vm[i].shares = MV_POLICY_SHARES_DEFAULT;
		trace->vm[i].working_bytes = calloc(seconds, sizeof(double));
		if (!trace->vm[i].working_bytes) {
			sim_trace_free(trace);
			return -ENOMEM;
		}
	}
	return 0;
}

int sim_trace_make(struct sim_trace *trace, const char *kind, unsigned int vms,
		   unsigned int seconds, uint64_t configured_bytes, uint64_t seed)
{
	working_part part = find_kind(kind);
	int err = part ? allocate(trace, vms, seconds) : -EINVAL;

	for (unsigned int i = 0; !err && i < vms; i++) {
		struct sim_vm_trace *vm = &trace->vm[i];
		struct pattern pattern = { .state = seed + i * 0x632be59bd9b4e019ULL };

		pattern.base = uniform(&pattern.state, 0.2, 0.7);
		pattern.peak = uniform(&pattern.state, 0.6, 0.95);
		pattern.phase_s = uniform(&pattern.state, 0, 120);
		snprintf(vm->name, sizeof(vm->name), "vm%u", i);
		vm->configured_bytes = configured_bytes;
		for (unsigned int s = 0; s < seconds; s++)
			vm->working_bytes[s] = part(&pattern, i, s) * (double)configured_bytes;
	}
	return err;
}

void sim_trace_free(struct sim_trace *trace)
{
	for (unsigned int i = 0; trace->vm && i < trace->vms; i++)
		free(trace->vm[i].working_bytes);
	free(trace->vm);
	*trace = (struct sim_trace){ 0 };
}

/* --- files -------------------------------------------------------------------------------- */

int sim_trace_write(const struct sim_trace *trace, FILE *file)
{
	fprintf(file, SIM_TRACE_HEADER "\n");
	for (unsigned int s = 0; s < trace->seconds; s++)
		for (unsigned int i = 0; i < trace->vms; i++)
			fprintf(file, "%u,%s,%llu,%u,%.0f\n", s, trace->vm[i].name,
				(unsigned long long)trace->vm[i].configured_bytes,
				trace->vm[i].shares, trace->vm[i].working_bytes[s]);
	return ferror(file) ? -1 : 0;
}

/** struct row - a line of a file */
struct row {
	unsigned int second;
	char name[SIM_NAME];
	unsigned long long configured;
	unsigned int shares;
	double working;
};

static bool parse_row(const char *line, struct row *row)
{
	int end = 0;

	if (sscanf(line, "%u,%63[^,\n],%llu,%u,%lf%n", &row->second, row->name, &row->configured,
		   &row->shares, &row->working, &end) != 5)
		return false;
	return (line[end] == '\n' || line[end] == '\0') && row->second < SECONDS_MAX &&
	       row->configured >= MV_POLICY_FLOOR_MIN && row->shares >= 1 &&
	       row->shares <= MV_POLICY_SHARES_MAX && row->working >= 0 &&
	       row->working <= (double)row->configured;
}

static struct sim_vm_trace *vm_of(struct sim_trace *trace, const struct row *row)
{
	struct sim_vm_trace *vm;

	for (unsigned int i = 0; i < trace->vms; i++)
		if (!strcmp(trace->vm[i].name, row->name))
			return &trace->vm[i];
	if (trace->vms == VMS_MAX)
		return NULL;
	vm = realloc(trace->vm, (trace->vms + 1) * sizeof(*vm));
	if (!vm)
		return NULL;
	trace->vm = vm;
	vm += trace->vms;
	*vm = (struct sim_vm_trace){ .configured_bytes = row->configured, .shares = row->shares };
	strcpy(vm->name, row->name);
	vm->working_bytes = calloc(SECONDS_MAX, sizeof(double));
	if (!vm->working_bytes)
		return NULL;
	trace->vms++;
	return vm;
}

/* The first line names the columns. */
static int take_line(struct sim_trace *trace, const char *line, unsigned int number)
{
	struct sim_vm_trace *vm;
	struct row row;

	if (number == 1)
		return strncmp(line, "second,vm,", 10) ? -EINVAL : 0;
	if (!parse_row(line, &row))
		return -EINVAL;
	vm = vm_of(trace, &row);
	if (!vm)
		return -ENOMEM;
	vm->working_bytes[row.second] = row.working;
	if (row.second >= trace->seconds)
		trace->seconds = row.second + 1;
	return 0;
}

int sim_trace_read(struct sim_trace *trace, const char *path, unsigned int *line)
{
	FILE *file = fopen(path, "re");
	char text[LINE_MAX_BYTES];
	int err = 0;

	*trace = (struct sim_trace){ 0 };
	*line = 0;
	if (!file)
		return -errno;
	while (!err && fgets(text, sizeof(text), file))
		err = take_line(trace, text, ++*line);
	if (!err && ferror(file))
		err = -EIO;
	if (!err && trace->vms == 0)
		err = -EINVAL;
	fclose(file);
	if (err)
		sim_trace_free(trace);
	return err;
}
