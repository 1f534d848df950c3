/* SPDX-License-Identifier: BSD-2-Clause */
/* A memory on the fake platform; see guest.h. */
#include <sys/mman.h>

#include "support/guest.h"
#include "support/testing.h"

void guest_init(struct guest *guest, size_t bytes)
{
	struct mv_memory_config config = { .size = sizeof(config) };

	memset(guest, 0, sizeof(*guest));
	fake_platform_init(&guest->fake);
	config.platform = &guest->fake.platform;
	assert_int_equal(mv_memory_create(&config, &guest->memory), 0);
	guest->bytes = bytes;
	guest->mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	assert_true(guest->mem != MAP_FAILED);
}

void guest_finish(struct guest *guest)
{
	mv_memory_destroy(guest->memory);
	fake_platform_finish(&guest->fake);
	munmap(guest->mem, guest->bytes);
}

int guest_add(struct guest *guest, uint64_t first_gpa, uint64_t pages, size_t offset)
{
	struct mv_region_config config = {
		.size = sizeof(config),
		.first_gpa = first_gpa,
		.last_gpa = first_gpa + (pages * MV_PAGE_SIZE - 1),
		.hva = guest->mem + offset,
		.fd = -1,
	};

	assert_true(offset + pages * MV_PAGE_SIZE <= guest->bytes);
	return mv_memory_add_region(guest->memory, &config);
}

struct mv_region *guest_region(struct guest *guest, uint64_t gpa)
{
	mv_memory_read_enter(guest->memory);
	struct mv_region *region = mv_region_by_gpa(guest->memory, gpa);

	mv_memory_read_leave(guest->memory);
	assert_non_null(region);
	return region;
}

static void count_region(const struct mv_region *region, struct mv_memory_counts *counts)
{
	for (uint64_t page = 0; page < region->pages; page++) {
		uint32_t word = region->words[page];

		counts->pages[mv_word_state(word)]++;
		counts->pinned += (word & MV_WORD_PINS) != 0;
		assert_false(word & MV_WORD_TRANSIENT);
	}
	counts->total += region->pages;
}

void guest_check_counts(struct guest *guest)
{
	struct mv_memory_counts counts, wanted = { { 0 } };
	const struct mv_region_set *set = guest->memory->set;

	for (unsigned int i = 0; i < set->count; i++)
		count_region(set->by_gpa[i], &wanted);
	mv_memory_get_counts(guest->memory, &counts);
	assert_memory_equal(&counts, &wanted, sizeof(counts));
}
