/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A guest's workload that finds out whether memory keeps its content: fills memory, keeps
 * a part of it busy, now and then looks at the rest, and at the end checks every page.
 *
 *   workload mib=384 hot=96 seconds=40 cold=1000 seed=1
 *
 *   mib      memory to fill
 *   hot      MiB of it that are read, checked and rewritten all the time
 *   seconds  how long, between filling and the last check
 *   cold     pages a second to check of the rest; each eighth is rewritten
 *   seed     makes content and order; equal seeds do the same
 *
 * It prints a line a second and one for each phase, "workload: phase=… name=number …", then
 * "workload: summary …", and ends with 0 where no page was wrong.
 *
 * What does not belong here: what is in a page (content.h).
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "content.h"

#define MIB_PAGES (1 << 20) / PAGE_BYTES
/* Of a wrong page, the first few are described. */
#define WRONG_SHOWN 8
#define COLD_REWRITE 8
/* Pages between two looks at the clock: some milliseconds. */
#define STRIDE 64

struct options {
	uint64_t mib, hot, seconds, cold, seed;
};

struct work {
	struct options options;
	uint64_t *words;       /* the memory */
	uint32_t *generations; /* of each page: how often it was written */
	uint32_t generation;   /* the highest of them */
	uint64_t pages, hot_pages;

	const char *phase;
	double begin, last_report;
	uint64_t verified, written, wrong;
	uint64_t cold_next;    /* where the cold scan stands */
	uint64_t random;
};

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static void report(struct work *work)
{
	work->last_report = now();
	printf("workload: phase=%s elapsed=%.1f generation=%u verified=%llu written=%llu wrong=%llu\n",
	       work->phase, work->last_report - work->begin, work->generation,
	       (unsigned long long)work->verified, (unsigned long long)work->written,
	       (unsigned long long)work->wrong);
}

static void begin_phase(struct work *work, const char *phase)
{
	work->phase = phase;
	report(work);
}

static void report_each_second(struct work *work)
{
	if (now() - work->last_report >= 1)
		report(work);
}

static uint64_t *page_words(struct work *work, uint64_t page)
{
	return work->words + page * PAGE_WORDS;
}

static void write_page(struct work *work, uint64_t page)
{
	uint64_t seed = work->options.seed;

	work->generations[page]++;
	if (work->generations[page] > work->generation)
		work->generation = work->generations[page];
	fill_page(page_words(work, page), page_kind(seed, page),
		  page_tag(seed, page, work->generations[page]));
	work->written++;
}

static void describe_wrong(struct work *work, uint64_t page)
{
	const uint64_t *words = page_words(work, page);
	static uint64_t expected[PAGE_WORDS];
	uint64_t seed = work->options.seed;
	unsigned int at = 0, differ = 0;

	fill_page(expected, page_kind(seed, page),
		  page_tag(seed, page, work->generations[page]));
	for (unsigned int i = PAGE_WORDS; i--;)
		if (words[i] != expected[i]) {
			at = i;
			differ++;
		}
	printf("workload: wrong page=%llu generation=%u words=%u first=%u found=%016llx "
	       "expected=%016llx\n",
	       (unsigned long long)page, work->generations[page], differ, at,
	       (unsigned long long)words[at], (unsigned long long)expected[at]);
}

static void verify_page(struct work *work, uint64_t page)
{
	uint64_t seed = work->options.seed;
	uint64_t tag = page_tag(seed, page, work->generations[page]);

	work->verified++;
	if (check_page(page_words(work, page), page_kind(seed, page), tag))
		return;
	if (work->wrong++ < WRONG_SHOWN)
		describe_wrong(work, page);
}

static void fill(struct work *work)
{
	begin_phase(work, "fill");
	for (uint64_t page = 0; page < work->pages; page++) {
		write_page(work, page);
		if (page % STRIDE == 0)
			report_each_second(work);
	}
}

static void visit_hot(struct work *work)
{
	uint64_t page;

	work->random = next_random(work->random);
	page = (work->random >> 20) % work->hot_pages;
	verify_page(work, page);
	write_page(work, page);
}

static void visit_cold(struct work *work)
{
	uint64_t cold_pages = work->pages - work->hot_pages;
	uint64_t page = work->hot_pages + work->cold_next % cold_pages;

	verify_page(work, page);
	if (work->cold_next % COLD_REWRITE == 0)
		write_page(work, page);
	work->cold_next++;
}

/* The hot set is never idle; the cold scan keeps to its rate. */
static void run(struct work *work)
{
	double begin, end;

	begin_phase(work, "run");
	begin = now();
	end = begin + work->options.seconds;
	for (double time = begin; time < end; time = now()) {
		uint64_t due = (time - begin) * work->options.cold;

		for (unsigned int i = 0; i < STRIDE; i++)
			visit_hot(work);
		for (unsigned int i = 0; i < STRIDE && work->cold_next < due; i++)
			visit_cold(work);
		report_each_second(work);
	}
}

static void verify_all(struct work *work)
{
	begin_phase(work, "verify");
	for (uint64_t page = 0; page < work->pages; page++) {
		verify_page(work, page);
		if (page % STRIDE == 0)
			report_each_second(work);
	}
	begin_phase(work, "done");
}

static void summarize(struct work *work)
{
	uint64_t kinds[KINDS] = { 0 };

	for (uint64_t page = 0; page < work->pages; page++)
		kinds[page_kind(work->options.seed, page)]++;
	printf("workload: summary pages=%llu same=%llu records=%llu random=%llu verified=%llu "
	       "written=%llu wrong=%llu elapsed=%.1f\n",
	       (unsigned long long)work->pages, (unsigned long long)kinds[KIND_SAME],
	       (unsigned long long)kinds[KIND_RECORDS], (unsigned long long)kinds[KIND_RANDOM],
	       (unsigned long long)work->verified, (unsigned long long)work->written,
	       (unsigned long long)work->wrong, now() - work->begin);
}

static void *map(uint64_t bytes)
{
	/* Without a reserve: a guest whose balloon is full may not have that much now. */
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED) {
		perror("workload: mmap");
		exit(1);
	}
	return memory;
}

static void prepare(struct work *work)
{
	work->pages = work->options.mib * MIB_PAGES;
	work->hot_pages = work->options.hot * MIB_PAGES;
	if (!work->hot_pages || work->hot_pages >= work->pages) {
		fprintf(stderr, "workload: hot must be more than 0 and less than mib\n");
		exit(2);
	}
	work->words = map(work->pages * PAGE_BYTES);
	work->generations = map(work->pages * sizeof(*work->generations));
	work->random = mix(work->options.seed);
	work->begin = now();
}

static bool parse_option(struct options *options, const char *text)
{
	const struct {
		const char *name;
		uint64_t *value;
	} known[] = {
		{ "mib=", &options->mib },     { "hot=", &options->hot },
		{ "seconds=", &options->seconds }, { "cold=", &options->cold },
		{ "seed=", &options->seed },
	};

	for (unsigned int i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		size_t length = strlen(known[i].name);
		char *end;

		if (strncmp(text, known[i].name, length))
			continue;
		*known[i].value = strtoull(text + length, &end, 10);
		return end != text + length && !*end;
	}
	return false;
}

int main(int argc, char **argv)
{
	struct work work = {
		.options = { .mib = 384, .hot = 96, .seconds = 40, .cold = 1000, .seed = 1 },
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++)
		if (!parse_option(&work.options, argv[i])) {
			fprintf(stderr, "workload: what is '%s'?\n", argv[i]);
			return 2;
		}
	prepare(&work);
	fill(&work);
	run(&work);
	verify_all(&work);
	summarize(&work);
	return work.wrong ? 1 : 0;
}
