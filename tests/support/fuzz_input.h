/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the fuzz targets share: an input taken apart byte by byte, and a small memory that it
 * fills, reached through an accessor that insists on how it is used.
 */
#ifndef TESTS_FUZZ_INPUT_H
#define TESTS_FUZZ_INPUT_H

#include <memvirt/guest_walk.h>

/* What libFuzzer calls, and what fuzz_replay.c calls with the corpus. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* An input; beyond its end there are zeros. */
struct fuzz_input {
	const uint8_t *at;
	size_t left;
};

uint64_t fuzz_take(struct fuzz_input *input, unsigned int bytes);

#define FUZZ_PAGES 4
#define FUZZ_WORDS (FUZZ_PAGES * 512)

/**
 * struct fuzz_memory - a guest's memory
 * @word:    what it holds
 * @folded:  every address is somewhere in it; otherwise it ends where it ends
 * @zeros:   beyond its end zeros are read
 * @reads, @changes: calls so far
 * @budget:  reads and changes that are answered; then -EINTR
 * @refuse:  changes that are refused with -EAGAIN, as if the guest had been faster
 * @bytes:   an access must have; 0 for 4 or 8
 */
struct fuzz_memory {
	uint64_t word[FUZZ_WORDS];
	bool folded;
	bool zeros;
	unsigned int reads;
	unsigned int changes;
	unsigned int budget;
	unsigned int refuse;
	unsigned int bytes;
	struct mv_guest_accessor accessor;
};

/* Its accessor; it need not hold anything yet. */
void fuzz_memory_open(struct fuzz_memory *memory, bool folded);

/* The rest of the input, over and over, so that a few words fill all tables. */
void fuzz_memory_fill(struct fuzz_memory *memory, struct fuzz_input *input);

/* As if it had just been filled, but for what it holds. */
void fuzz_memory_rewind(struct fuzz_memory *memory);

/* Where an address leads, or NULL. */
void *fuzz_memory_at(struct fuzz_memory *memory, uint64_t address);

#endif /* TESTS_FUZZ_INPUT_H */
