/* SPDX-License-Identifier: BSD-2-Clause */
/* Rounds, statistics and reports of the benchmarks; see bench.h. */
#include "support/bench.h"

#include <errno.h>
#include <math.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#define ROUNDS	     15
#define ROUNDS_QUICK 3

/* What the process might use at its start, whatever its threads were pinned to since. */
static cpu_set_t allowed;

static void usage(FILE *to, const char *program)
{
	fprintf(to,
		"usage: %s [--rounds N] [--quick]\n"
		"Measures, and prints one JSON object a line; bench/run makes a table of them.\n"
		"  --rounds N  rounds of each side, 1 to %d (default %d)\n"
		"  --quick     few rounds and little data: to see that it works\n"
		"example: %s --rounds 31\n",
		program, BENCH_ROUNDS_MAX, ROUNDS, program);
}

static unsigned int rounds_of(const char *text, const char *program)
{
	char *end;
	unsigned long rounds = text ? strtoul(text, &end, 10) : 0;

	if (rounds < 1 || rounds > BENCH_ROUNDS_MAX || *end) {
		usage(stderr, program);
		exit(2);
	}
	return (unsigned int)rounds;
}

static double clock_ns(clockid_t clock)
{
	struct timespec now;

	clock_gettime(clock, &now);
	return (double)now.tv_sec * 1e9 + (double)now.tv_nsec;
}

double bench_now(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

double bench_cpu_time(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

static double measure_ticks_per_ns(void)
{
	double begin = bench_now(), end;
	uint64_t ticks = bench_ticks();

	do
		end = bench_now();
	while (end - begin < 20e6);
	return (double)(bench_ticks() - ticks) / (end - begin);
}

struct bench bench_open(int argc, char **argv)
{
	struct bench bench = { .rounds = ROUNDS };

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--quick")) {
			bench.quick = true;
			bench.rounds = ROUNDS_QUICK;
		} else if (!strcmp(argv[i], "--rounds")) {
			bench.rounds = rounds_of(argv[++i], argv[0]);
		} else if (!strcmp(argv[i], "--help")) {
			usage(stdout, argv[0]);
			exit(0);
		} else {
			usage(stderr, argv[0]);
			exit(2);
		}
	}
	if (sched_getaffinity(0, sizeof(allowed), &allowed))
		bench_die("sched_getaffinity: %s", strerror(errno));
	bench.ticks_per_ns = measure_ticks_per_ns();
	return bench;
}

int bench_close(struct bench *bench)
{
	return fflush(stdout) ? 1 : 0;
}

/* --- statistics ------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

double bench_percentile(double *values, size_t count, double percent)
{
	qsort(values, count, sizeof(*values), ascending);
	return values[(size_t)(percent / 100 * (double)(count - 1) + 0.5)];
}

double bench_median(double *values, size_t count)
{
	qsort(values, count, sizeof(*values), ascending);
	return count % 2 ? values[count / 2] : (values[count / 2 - 1] + values[count / 2]) / 2;
}

double bench_mean(double *values, size_t count, double percent)
{
	size_t kept = (size_t)(percent / 100 * (double)count);
	double sum = 0;

	qsort(values, count, sizeof(*values), ascending);
	if (!kept)
		kept = 1;
	for (size_t i = 0; i < kept; i++)
		sum += values[i];
	return sum / (double)kept;
}

uint64_t bench_random(uint64_t *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 33;
}

void bench_shuffle(uint32_t *order, size_t count, uint64_t seed)
{
	for (size_t i = 0; i < count; i++)
		order[i] = (uint32_t)i;
	for (size_t i = count; i > 1; i--) {
		size_t other = bench_random(&seed) % i;
		uint32_t mine = order[i - 1];

		order[i - 1] = order[other];
		order[other] = mine;
	}
}

/* --- reports ---------------------------------------------------------------------------- */

static void print_text(const char *key, const char *text)
{
	printf(", \"%s\": \"", key);
	for (; *text; text++) {
		if (*text == '"' || *text == '\\')
			putchar('\\');
		putchar((unsigned char)*text < ' ' ? ' ' : *text);
	}
	putchar('"');
}

static double print_side(const char *key, const double *values, unsigned int count)
{
	double sorted[BENCH_ROUNDS_MAX];

	memcpy(sorted, values, count * sizeof(*values));

	double median = bench_median(sorted, count);

	if (isfinite(sorted[0]) && isfinite(sorted[count - 1]))
		printf(", \"%s\": {\"median\": %.9g, \"min\": %.9g, \"max\": %.9g}", key, median,
		       sorted[0], sorted[count - 1]);
	else
		printf(", \"%s\": null", key);
	return median;
}

static const char *verdict(const char *goal, double ratio)
{
	double bound = strtod(goal + 2, NULL);
	bool at_most = !strncmp(goal, "<=", 2);

	if (!at_most && strncmp(goal, ">=", 2))
		bench_die("a goal is \"<=1.10\" or \">=0.95\", not \"%s\"", goal);
	return (at_most ? ratio <= bound : ratio >= bound) ? "holds" : "short";
}

void bench_report(struct bench *bench, const struct bench_figure *figure)
{
	double ratios[BENCH_ROUNDS_MAX];
	unsigned int rounds = figure->rounds;

	if (rounds < 1 || rounds > BENCH_ROUNDS_MAX)
		bench_die("%s: %u rounds are not 1 to %d", figure->name, rounds, BENCH_ROUNDS_MAX);
	for (unsigned int i = 0; i < rounds; i++)
		ratios[i] = figure->peer ? figure->ours[i] / figure->peer[i] : figure->ours[i];

	printf("{\"rounds\": %u", rounds);
	print_text("name", figure->name);
	print_text("unit", figure->unit);
	print_side("ours", figure->ours, rounds);
	if (figure->peer) {
		print_text("peer_name", figure->peer_name);
		print_side("peer", figure->peer, rounds);
	}

	double ratio = print_side("ratio", ratios, rounds);

	if (figure->goal)
		print_text("goal", figure->goal);
	print_text("verdict", !figure->goal	  ? "none"
			      : !isfinite(ratio) ? "short"
						 : verdict(figure->goal, ratio));
	printf("}\n");
	fflush(stdout);
}

void bench_skip(struct bench *bench, const char *name, const char *reason)
{
	printf("{\"rounds\": 0");
	print_text("name", name);
	print_text("verdict", "skipped");
	print_text("reason", reason);
	printf("}\n");
	fflush(stdout);
}

void bench_compare(struct bench *bench, const struct bench_pair *pair)
{
	double ours[BENCH_ROUNDS_MAX], peer[BENCH_ROUNDS_MAX];
	unsigned int rounds = pair->rounds ? pair->rounds : bench->rounds;

	pair->ours(pair->ctx);
	pair->peer(pair->ctx);
	/* Who goes first changes, so that neither always finds what the other left behind. */
	for (unsigned int i = 0; i < rounds; i++) {
		if (i % 2)
			peer[i] = pair->peer(pair->ctx);
		ours[i] = pair->ours(pair->ctx);
		if (i % 2 == 0)
			peer[i] = pair->peer(pair->ctx);
	}
	bench_report(bench, &(struct bench_figure){
				    .name = pair->name,
				    .unit = pair->unit,
				    .ours = ours,
				    .peer_name = pair->peer_name,
				    .peer = peer,
				    .goal = pair->goal,
				    .rounds = rounds,
			    });
}

/* --- the machine ------------------------------------------------------------------------ */

unsigned int bench_cpus(void)
{
	return (unsigned int)CPU_COUNT(&allowed);
}

void bench_pin(unsigned int index)
{
	cpu_set_t one;
	unsigned int cpu = 0;

	for (; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &allowed) && !index--)
			break;
	CPU_ZERO(&one);
	if (cpu < CPU_SETSIZE)
		CPU_SET(cpu, &one);
	if (sched_setaffinity(0, sizeof(one), &one))
		bench_die("cannot pin to a processor: this process may use %u", bench_cpus());
}

void *bench_pages(size_t bytes)
{
	void *pages = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (pages == MAP_FAILED || madvise(pages, bytes, MADV_NOHUGEPAGE) ||
	    madvise(pages, bytes, MADV_POPULATE_WRITE))
		bench_die("no memory for %zu bytes: %s", bytes, strerror(errno));
	return pages;
}

void bench_die(const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fputs("bench: ", stderr);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
	exit(1);
}
