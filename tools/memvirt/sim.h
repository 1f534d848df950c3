/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The simulator: demand for memory over time (sim_trace.c, sim_record.c), VMs that live by it under
 * a policy (sim_model.c), and what came of it (sim_report.c, sim_svg.c). sim.c is the command.
 *
 * A VM is a working set: of the pages that it touches, as many as are resident cost nothing, and
 * each other one costs a restore, during which it does not get on. So who has his working set
 * gets on at full speed, and who has half of it spends most of his time waiting.
 */
#ifndef MEMVIRT_SIM_H
#define MEMVIRT_SIM_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include <memvirt/policy.h>

#define SIM_NAME 64

/* The first line of a trace: its columns. */
#define SIM_TRACE_HEADER "second,vm,configured-bytes,shares,working-bytes"

/** struct sim_vm_trace - one VM's demand, a working set for each second */
struct sim_vm_trace {
	char name[SIM_NAME];
	uint64_t configured_bytes;
	uint32_t shares;
	double *working_bytes;
};

/** struct sim_trace - of all VMs */
struct sim_trace {
	unsigned int vms;
	unsigned int seconds;
	struct sim_vm_trace *vm;
};

/**
 * sim_trace_make() - from a stated distribution
 * @kind: "steady", "swap", "spikes", "ramp", "idle" or "mixed"
 *
 * Return: 0; -EINVAL for another kind; -ENOMEM.
 */
int sim_trace_make(struct sim_trace *trace, const char *kind, unsigned int vms,
		   unsigned int seconds, uint64_t configured_bytes, uint64_t seed);

/**
 * sim_trace_read() - from a file that sim_trace_write() or another program wrote
 * @line: set to where it is wrong, on -EINVAL
 *
 * Return: 0; -EINVAL; -ENOMEM; -errno of the file.
 */
int sim_trace_read(struct sim_trace *trace, const char *path, unsigned int *line);

/** sim_trace_write() - as lines "second,vm,configured-bytes,shares,working-bytes" */
int sim_trace_write(const struct sim_trace *trace, FILE *file);

void sim_trace_free(struct sim_trace *trace);

/**
 * sim_record() - write a trace of the running VMs, a line for each and second
 * @path:    file to write
 * @run_dir: where they are, as given; NULL for the usual place
 * @seconds: for so long
 *
 * Return: the exit status, with a message where it is not 0.
 */
int sim_record(const char *path, const char *run_dir, unsigned int seconds);

/**
 * struct sim_vm_result - how a VM fared
 * @speed:    part of what it would have done with all its memory, over the whole time
 * @restores: pages that came back
 * @moved:    bytes by which its limit was changed, up and down
 * @limit, @resident: at each second, bytes; for the picture
 */
struct sim_vm_result {
	double speed;
	double restores;
	double moved;
	double *limit;
	double *resident;
};

/**
 * struct sim_result - how all fared
 * @slowdown:    time for the same work, over that with enough memory: of all together
 * @worst:       the same of the VM that fared worst
 * @fairness:    Jain's index of speed by shares: 1 where all fare alike, 1/n where one has all
 * @over_budget: parts of a second in which more was used than there is
 */
struct sim_result {
	enum mv_policy_rule rule;
	struct sim_vm_result *vm;
	double slowdown;
	double worst;
	double restores;
	double fairness;
	double moved;
	unsigned int over_budget;
	double most_used;
};

/**
 * struct sim_host - what the VMs have to live with
 * @ratio:      host memory for a stored byte
 * @restore_ns: what a restore costs
 * @access_ns:  between two touches of different pages
 */
struct sim_host {
	struct mv_policy_config policy;
	double ratio;
	double restore_ns;
	double access_ns;
};

/**
 * sim_run() - replay a trace under a rule
 *
 * Return: 0, with @result to be given to sim_result_free(); -ENOMEM.
 */
int sim_run(const struct sim_trace *trace, const struct sim_host *host, enum mv_policy_rule rule,
	    struct sim_result *result);

void sim_result_free(struct sim_result *result, const struct sim_trace *trace);

/* Return: 0; -1 where the output takes no more. */
int sim_print(const struct sim_trace *trace, const struct sim_result *results, unsigned int count,
	      bool json);
int sim_write_svg(const struct sim_trace *trace, const struct sim_host *host,
		  const struct sim_result *results, unsigned int count, FILE *file);

#endif /* MEMVIRT_SIM_H */
