/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Direct I/O from and to memory that the host may evict: whether what goes to a disk, what
 * comes from it, and what stays in memory afterwards, is what it should be.
 *
 *   diskcheck device=/dev/vda mib=32 arena=64 seconds=20 workers=2 seed=1
 *
 *   device   written all over, from its start
 *   mib      of the device to use
 *   arena    MiB of memory for buffers; each is used in turn, and idle until its next turn
 *   seconds  how long to write and read
 *   workers  processes, each with its part of the device and of the arena
 *
 * A transfer moves CHUNK bytes, with O_DIRECT, so that the device reaches the pages of the
 * buffer itself. Buffers keep their content after a transfer, and are checked before the
 * next. A line a second, a summary at the end, and 0 where no page was wrong.
 *
 * What does not belong here: what is in a page (content.h).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "content.h"

#define CHUNK	    (256 << 10)
#define CHUNK_PAGES (CHUNK / PAGE_BYTES)
#define NOTHING	    UINT64_MAX

struct options {
	const char *device;
	uint64_t mib, arena, seconds, workers, seed;
};

/* A buffer, and what it holds: a chunk of the disk in a generation. */
struct slot {
	uint64_t *words;
	uint64_t chunk;
	uint32_t generation;
};

struct worker {
	const struct options *options;
	unsigned int number;
	int fd;
	uint64_t first_chunk, chunks; /* its part of the disk */
	uint32_t *generations;	      /* of each of its chunks, as it is on the disk */
	struct slot *slots;
	uint64_t slot_count, next_slot;
	uint64_t random;
	uint64_t written, read, kept, wrong;
};

static void die(const char *what)
{
	fprintf(stderr, "diskcheck: %s: %s\n", what, strerror(errno));
	exit(1);
}

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static uint64_t tag_of(const struct worker *worker, const struct slot *slot, unsigned int page)
{
	return page_tag(worker->options->seed, slot->chunk * CHUNK_PAGES + page, slot->generation);
}

static void fill_slot(struct worker *worker, struct slot *slot)
{
	for (unsigned int i = 0; i < CHUNK_PAGES; i++)
		fill_page(slot->words + i * PAGE_WORDS, page_kind(worker->options->seed, i),
			  tag_of(worker, slot, i));
}

static void check_slot(struct worker *worker, const struct slot *slot, const char *when)
{
	uint64_t wrong = 0;

	if (slot->chunk == NOTHING)
		return;
	for (unsigned int i = 0; i < CHUNK_PAGES; i++)
		wrong += !check_page(slot->words + i * PAGE_WORDS,
				     page_kind(worker->options->seed, i), tag_of(worker, slot, i));
	if (wrong)
		printf("diskcheck: wrong worker=%u chunk=%llu generation=%u pages=%llu when=%s\n",
		       worker->number, (unsigned long long)slot->chunk, slot->generation,
		       (unsigned long long)wrong, when);
	worker->wrong += wrong;
}

/* The next buffer in turn, after a look whether it has kept what it held. */
static struct slot *take_slot(struct worker *worker)
{
	struct slot *slot = &worker->slots[worker->next_slot++ % worker->slot_count];

	if (slot->chunk != NOTHING)
		worker->kept++;
	check_slot(worker, slot, "kept");
	return slot;
}

static void transfer(struct worker *worker, struct slot *slot, bool write)
{
	off_t offset = (off_t)slot->chunk * CHUNK;
	ssize_t done = write ? pwrite(worker->fd, slot->words, CHUNK, offset)
			     : pread(worker->fd, slot->words, CHUNK, offset);

	if (done != CHUNK)
		die(write ? "write" : "read");
}

static void write_chunk(struct worker *worker, uint64_t chunk)
{
	struct slot *slot = take_slot(worker);

	slot->chunk = worker->first_chunk + chunk;
	slot->generation = ++worker->generations[chunk];
	fill_slot(worker, slot);
	transfer(worker, slot, true);
	worker->written++;
}

static void read_chunk(struct worker *worker, uint64_t chunk)
{
	struct slot *slot = take_slot(worker);

	slot->chunk = worker->first_chunk + chunk;
	slot->generation = worker->generations[chunk];
	transfer(worker, slot, false);
	check_slot(worker, slot, "read");
	worker->read++;
}

static uint64_t any_chunk(struct worker *worker)
{
	worker->random = next_random(worker->random);
	return (worker->random >> 20) % worker->chunks;
}

static void report(const struct worker *worker, const char *what)
{
	printf("diskcheck: %s worker=%u written=%llu read=%llu kept=%llu wrong=%llu\n", what,
	       worker->number, (unsigned long long)worker->written,
	       (unsigned long long)worker->read, (unsigned long long)worker->kept,
	       (unsigned long long)worker->wrong);
}

static void exercise(struct worker *worker)
{
	double end = now() + worker->options->seconds, next = now() + 1;

	for (uint64_t chunk = 0; chunk < worker->chunks; chunk++)
		write_chunk(worker, chunk);
	while (now() < end) {
		write_chunk(worker, any_chunk(worker));
		read_chunk(worker, any_chunk(worker));
		if (now() < next)
			continue;
		report(worker, "running");
		next += 1;
	}
	for (uint64_t chunk = 0; chunk < worker->chunks; chunk++)
		read_chunk(worker, chunk);
	for (uint64_t i = 0; i < worker->slot_count; i++)
		take_slot(worker);
}

static void *map(uint64_t bytes)
{
	void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			    -1, 0);

	if (memory == MAP_FAILED)
		die("mmap");
	return memory;
}

static void prepare(struct worker *worker)
{
	const struct options *options = worker->options;
	uint64_t arena = options->arena * (1 << 20) / options->workers;
	unsigned char *memory = map(arena);

	worker->chunks = options->mib * (1 << 20) / CHUNK / options->workers;
	worker->first_chunk = worker->number * worker->chunks;
	worker->slot_count = arena / CHUNK;
	if (!worker->chunks || worker->slot_count < 2) {
		fprintf(stderr, "diskcheck: mib or arena is too small\n");
		exit(2);
	}
	worker->generations = map(worker->chunks * sizeof(*worker->generations));
	worker->slots = map(worker->slot_count * sizeof(*worker->slots));
	for (uint64_t i = 0; i < worker->slot_count; i++) {
		worker->slots[i].words = (uint64_t *)(memory + i * CHUNK);
		worker->slots[i].chunk = NOTHING;
	}
	worker->random = mix(options->seed + worker->number);
	worker->fd = open(options->device, O_RDWR | O_DIRECT);
	if (worker->fd < 0)
		die(options->device);
}

static int work(const struct options *options, unsigned int number)
{
	struct worker worker = { .options = options, .number = number };

	prepare(&worker);
	exercise(&worker);
	report(&worker, "summary");
	return worker.wrong ? 1 : 0;
}

static bool parse_option(struct options *options, char *text)
{
	const struct {
		const char *name;
		uint64_t *value;
	} known[] = {
		{ "mib=", &options->mib },	   { "arena=", &options->arena },
		{ "seconds=", &options->seconds }, { "workers=", &options->workers },
		{ "seed=", &options->seed },
	};

	if (!strncmp(text, "device=", 7)) {
		options->device = text + 7;
		return true;
	}
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

static int start_workers(const struct options *options)
{
	int failed = 0, status;

	for (unsigned int i = 0; i < options->workers; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (!pid)
			exit(work(options, i));
	}
	while (wait(&status) > 0)
		failed |= status;
	return failed ? 1 : 0;
}

int main(int argc, char **argv)
{
	struct options options = {
		.device = "/dev/vda", .mib = 32, .arena = 64, .seconds = 20, .workers = 2,
		.seed = 1,
	};

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 1; i < argc; i++)
		if (!parse_option(&options, argv[i])) {
			fprintf(stderr, "diskcheck: what is '%s'?\n", argv[i]);
			return 2;
		}
	if (!options.workers) {
		fprintf(stderr, "diskcheck: workers must be at least 1\n");
		return 2;
	}
	return start_workers(&options);
}
