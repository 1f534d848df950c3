/* SPDX-License-Identifier: BSD-2-Clause */
/* See fuzz_input.h. */
#include "support/fuzz_input.h"
#include "support/testing.h"

uint64_t fuzz_take(struct fuzz_input *input, unsigned int bytes)
{
	uint64_t number = 0;

	for (unsigned int i = 0; i < bytes && input->left; i++, input->left--)
		number |= (uint64_t)*input->at++ << 8 * i;
	return number;
}

void *fuzz_memory_at(struct fuzz_memory *memory, uint64_t address)
{
	if (memory->folded)
		address %= sizeof(memory->word);
	return address < sizeof(memory->word) ? (char *)memory->word + address : NULL;
}

static void insist_on_access(const struct fuzz_memory *memory, uint64_t gpa, unsigned int bytes)
{
	insist(bytes == 4 || bytes == 8);
	insist(!memory->bytes || bytes == memory->bytes);
	insist(!(gpa & (bytes - 1)));
	insist(!(gpa >> 52));
}

static int fuzz_read(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct fuzz_memory *memory = ctx;
	const void *at = fuzz_memory_at(memory, gpa);

	insist_on_access(memory, gpa, bytes);
	memory->reads++;
	if (!memory->budget)
		return -EINTR;
	memory->budget--;
	if (!at && !memory->zeros)
		return -EFAULT;
	/* What is beyond 4 bytes is no business of the walk's. */
	*entry = 0xa5a5a5a5a5a5a5a5;
	if (at)
		memcpy(entry, at, bytes);
	else
		*entry = 0;
	return 0;
}

static int fuzz_change(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t old, uint64_t entry)
{
	struct fuzz_memory *memory = ctx;
	void *at = fuzz_memory_at(memory, gpa);

	insist_on_access(memory, gpa, bytes);
	memory->changes++;
	if (!memory->budget)
		return -EINTR;
	memory->budget--;
	if (!at)
		return -EFAULT;
	if (memory->refuse) {
		memory->refuse--;
		return -EAGAIN;
	}
	if (memcmp(at, &old, bytes))
		return -EAGAIN;
	memcpy(at, &entry, bytes);
	return 0;
}

void fuzz_memory_rewind(struct fuzz_memory *memory)
{
	memory->reads = memory->changes = memory->refuse = 0;
	memory->budget = UINT32_MAX;
}

void fuzz_memory_open(struct fuzz_memory *memory, bool folded)
{
	memory->accessor = (struct mv_guest_accessor){ fuzz_read, fuzz_change, memory };
	memory->folded = folded;
	memory->zeros = false;
	memory->bytes = 0;
	fuzz_memory_rewind(memory);
}

void fuzz_memory_fill(struct fuzz_memory *memory, struct fuzz_input *input)
{
	size_t stride = fuzz_take(input, 1) | 1;
	size_t words = (input->left + 7) / 8, from = 0;

	words = words > FUZZ_WORDS ? FUZZ_WORDS : words ? words : 1;
	for (size_t i = 0; i < words; i++)
		memory->word[i] = fuzz_take(input, 8);
	stride %= words;
	/* The words that follow repeat them in another order, so that tables differ. */
	for (size_t i = words; i < FUZZ_WORDS; i++) {
		memory->word[i] = memory->word[from];
		from += stride;
		from -= from >= words ? words : 0;
	}
}
