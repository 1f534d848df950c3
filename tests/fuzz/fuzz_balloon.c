// SPDX-License-Identifier: BSD-2-Clause
/*
 * The balloon device and both kinds of virtqueue, over what a hostile driver may do: features,
 * rings that hold anything at any place, configuration accesses, kicks of any queue, resets.
 *
 * What must hold: every call ends, after a bounded number of repetitions; nothing outside guest
 * memory is touched (the sanitizers see to that); what is given is never more than there is; and
 * the memory can be taken away afterwards, so that nothing is held.
 */
#include <sys/mman.h>

#include <memvirt/balloon.h>

#include "support/fuzz_input.h"
#include "support/testing.h"

#define RAM	  (256UL << 10)
#define WORDS	  (RAM / 8)
#define STEPS_MAX 64

struct fuzzed {
	unsigned char *ram;
	struct mv_memory *memory;
	struct mv_balloon *balloon;
};

static void start(struct fuzzed *fuzzed, uint64_t features)
{
	const struct mv_memory_config memory = { .size = sizeof(memory) };
	struct mv_region_config region = { .size = sizeof(region), .last_gpa = RAM - 1, .fd = -1 };
	struct mv_balloon_config config = { .size = sizeof(config),
					    .features = MV_BALLOON_FEATURES };

	fuzzed->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	insist(fuzzed->ram != MAP_FAILED);
	region.hva = fuzzed->ram;
	insist(!mv_memory_create(&memory, &fuzzed->memory));
	insist(!mv_memory_add_region(fuzzed->memory, &region));
	config.memory = fuzzed->memory;
	insist(!mv_balloon_create(&config, &fuzzed->balloon));
	mv_balloon_accept(fuzzed->balloon, features);
}

static void stop(struct fuzzed *fuzzed)
{
	mv_balloon_destroy(fuzzed->balloon);
	insist(!mv_memory_remove_region(fuzzed->memory, 0));
	mv_memory_destroy(fuzzed->memory);
	munmap(fuzzed->ram, RAM);
}

/* Small numbers lead into the rings, which is where it is interesting. */
static uint64_t take_gpa(struct fuzz_input *input)
{
	return fuzz_take(input, 1) & 1 ? fuzz_take(input, 8) : (fuzz_take(input, 1) & 63) * 0x1000;
}

static void set_queue(struct fuzzed *fuzzed, struct fuzz_input *input)
{
	unsigned int queue = (unsigned int)fuzz_take(input, 1) % 6;
	unsigned int entries = (unsigned int)fuzz_take(input, 1);
	uint64_t desc = take_gpa(input), driver = take_gpa(input);

	mv_balloon_set_queue(fuzzed->balloon, queue, entries, desc, driver, take_gpa(input));
}

/* A few words at a place, as a driver would write descriptors or an index. */
static void write_ram(struct fuzzed *fuzzed, struct fuzz_input *input)
{
	uint64_t at = fuzz_take(input, 2) % WORDS;
	uint64_t count = fuzz_take(input, 1) % 8;

	for (uint64_t i = 0; i < count && at + i < WORDS; i++) {
		uint64_t word = fuzz_take(input, 8);

		memcpy(fuzzed->ram + 8 * (at + i), &word, sizeof(word));
	}
}

static void kick(struct fuzzed *fuzzed, unsigned int queue)
{
	/* 2^16 chains in the ring at most, of 2^15 segments each; a call does 2^15 of them. */
	for (unsigned int i = 0; i < 100; i++)
		if (mv_balloon_kick(fuzzed->balloon, queue) != 1)
			return;
}

static void access_config(struct fuzzed *fuzzed, struct fuzz_input *input, bool write)
{
	unsigned char buf[16];
	uint64_t offset = fuzz_take(input, 1), word = fuzz_take(input, 8);
	size_t len = fuzz_take(input, 1) % sizeof(buf);

	memset(buf, 0, sizeof(buf));
	memcpy(buf, &word, sizeof(word));
	if (write)
		mv_balloon_write_config(fuzzed->balloon, offset, buf, len);
	else
		mv_balloon_read_config(fuzzed->balloon, offset, buf, len);
}

static void step(struct fuzzed *fuzzed, struct fuzz_input *input)
{
	uint64_t action = fuzz_take(input, 1);

	switch (action % 10) {
	case 0:
		set_queue(fuzzed, input);
		break;
	case 1:
	case 2:
		write_ram(fuzzed, input);
		break;
	case 3:
	case 4:
		kick(fuzzed, (unsigned int)(action / 10) % 6);
		break;
	case 5:
		access_config(fuzzed, input, action / 10 % 2);
		break;
	case 6:
		mv_balloon_set_target(fuzzed->balloon, fuzz_take(input, 8));
		break;
	case 7:
		mv_balloon_ask_stats(fuzzed->balloon);
		break;
	case 8:
		if (action / 10 % 2)
			mv_balloon_hint_start(fuzzed->balloon);
		else
			mv_balloon_hint_stop(fuzzed->balloon, action / 20 % 2);
		break;
	default:
		mv_balloon_reset(fuzzed->balloon);
		mv_balloon_accept(fuzzed->balloon, MV_BALLOON_VERSION_1 | (fuzz_take(input, 8) &
									   MV_BALLOON_FEATURES));
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { .at = data, .left = size };
	struct mv_balloon_stats stats;
	struct fuzzed fuzzed;

	start(&fuzzed, MV_BALLOON_VERSION_1 | (fuzz_take(&input, 8) & MV_BALLOON_FEATURES));
	for (unsigned int i = 0; i < STEPS_MAX && input.left; i++)
		step(&fuzzed, &input);
	mv_balloon_get_stats(fuzzed.balloon, &stats);
	insist(stats.given_bytes <= RAM);
	stop(&fuzzed);
	return 0;
}
