/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What every benchmark is written with.
 *
 * A figure is ours beside a limit or a peer, measured in the same run, and their ratio. A
 * program prints one JSON object a line for each; bench/run makes the table. So a benchmark
 * reads:
 *
 *	int main(int argc, char **argv)
 *	{
 *		struct bench bench = bench_open(argc, argv);
 *
 *		bench_pin(0);
 *		bench_compare(&bench, &(struct bench_pair){
 *			.name = "lookup", .unit = "ns", .peer_name = "flat array",
 *			.ours = our_lookup, .peer = array_lookup, .ctx = &tables,
 *			.goal = "<=1.10" });
 *		return bench_close(&bench);
 *	}
 *
 * where our_lookup() and array_lookup() each measure one round and return its figure. Rounds
 * of the two alternate, and the ratio is the median of the rounds' ratios: what slows the
 * machine down for a while slows both.
 */
#ifndef BENCH_H
#define BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <x86intrin.h>

#define BENCH_ROUNDS_MAX 101

struct bench {
	unsigned int rounds; /* of each side: 15, or what --rounds says */
	bool quick;	     /* --quick: enough to see that it works; not to be trusted */
	double ticks_per_ns;
};

/* Options --rounds N, --quick and --help; exits with status 2 on others. */
struct bench bench_open(int argc, char **argv);

/* The exit status. */
int bench_close(struct bench *bench);

/**
 * struct bench_figure - a figure whose rounds have been measured
 * @name:      what is measured; unique in the program
 * @unit:      of both sides
 * @ours:      one value a round
 * @peer_name: the limit or peer, or NULL where there is none: the ratio then is ours
 * @peer:      one value a round, of the same rounds
 * @goal:      on the ratio: "<=1.10" or ">=0.95", or NULL
 * @rounds:    values on each side, at least 1
 */
struct bench_figure {
	const char *name;
	const char *unit;
	const double *ours;
	const char *peer_name;
	const double *peer;
	const char *goal;
	unsigned int rounds;
};

void bench_report(struct bench *bench, const struct bench_figure *figure);

/* A figure that cannot be measured here, and why. */
void bench_skip(struct bench *bench, const char *name, const char *reason);

/**
 * struct bench_pair - a figure to measure
 * @ours, @peer: one round each; called in turn, after one call of each that does not count
 * @rounds:      0 for bench->rounds
 */
struct bench_pair {
	const char *name;
	const char *unit;
	const char *peer_name;
	double (*ours)(void *ctx);
	double (*peer)(void *ctx);
	void *ctx;
	const char *goal;
	unsigned int rounds;
};

/* Measure in alternation, and report. */
void bench_compare(struct bench *bench, const struct bench_pair *pair);

/* --- time ------------------------------------------------------------------------------- */

/* CLOCK_MONOTONIC in nanoseconds: for a round. */
double bench_now(void);

/* What the calling thread has used of a processor, in nanoseconds. */
double bench_cpu_time(void);

/* The processor's own counter: for a single operation of some 100 ns and more. */
static inline uint64_t bench_ticks(void)
{
	unsigned int cpu;

	_mm_lfence();
	uint64_t ticks = __rdtscp(&cpu);
	_mm_lfence();
	return ticks;
}

static inline double bench_ns(const struct bench *bench, uint64_t ticks)
{
	return (double)ticks / bench->ticks_per_ns;
}

/* --- statistics ------------------------------------------------------------------------- */

/* These sort @values. */
double bench_median(double *values, size_t count);
double bench_percentile(double *values, size_t count, double percent);

/* The mean of the lowest @percent of them. */
double bench_mean(double *values, size_t count, double percent);

/* The next of a sequence of numbers; the state may begin as anything. */
uint64_t bench_random(uint64_t *state);

/* 0 … count-1 in an order that no prefetcher guesses; the same for the same seed. */
void bench_shuffle(uint32_t *order, size_t count, uint64_t seed);

/* --- the machine ------------------------------------------------------------------------ */

unsigned int bench_cpus(void);

/* Keep the calling thread on the @index-th processor that the process may use. */
void bench_pin(unsigned int index);

/* Memory of whole pages, all there, never a huge page; ends the program where there is none. */
void *bench_pages(size_t bytes);

/* Say what went wrong, on stderr, and end the program with status 1. */
_Noreturn void bench_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif /* BENCH_H */
