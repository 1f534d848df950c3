// SPDX-License-Identifier: BSD-2-Clause
/* See balloon_rig.h. */
#include <sys/mman.h>
#include <unistd.h>

#include "support/balloon_rig.h"
#include "support/testing.h"

static void count_interrupt(void *ctx, unsigned int queue)
{
	struct balloon_rig *rig = ctx;

	rig->interrupts[queue]++;
}

static void count_change(void *ctx)
{
	struct balloon_rig *rig = ctx;

	rig->config_changes++;
}

static void count_returned(void *ctx, uint64_t first_gpa, uint64_t last_gpa)
{
	struct balloon_rig *rig = ctx;

	rig->returned += (last_gpa - first_gpa + 1) >> MV_PAGE_SHIFT;
}

static void count_hinted(void *ctx, uint64_t first_gpa, uint64_t last_gpa)
{
	struct balloon_rig *rig = ctx;

	rig->hinted += (last_gpa - first_gpa + 1) >> MV_PAGE_SHIFT;
}

static const struct mv_balloon_ops ops = {
	.interrupt = count_interrupt,
	.config_changed = count_change,
	.returned = count_returned,
	.hinted = count_hinted,
};

static void add_region(struct balloon_rig *rig, uint64_t gpa, unsigned char *hva, uint64_t bytes,
		       int fd)
{
	const struct mv_region_config config = { .size = sizeof(config),
						 .first_gpa = gpa,
						 .last_gpa = gpa + bytes - 1,
						 .hva = hva,
						 .fd = fd };

	insist(!mv_memory_add_region(rig->memory, &config));
}

static void make_memory(struct balloon_rig *rig, bool shared)
{
	const struct mv_memory_config config = { .size = sizeof(config) };

	rig->ram_fd = shared ? memfd_create("balloon", MFD_CLOEXEC) : -1;
	insist(!shared || !ftruncate(rig->ram_fd, RIG_RAM));
	rig->ram = mmap(NULL, RIG_RAM, PROT_READ | PROT_WRITE,
			shared ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS, rig->ram_fd, 0);
	rig->high =
		mmap(NULL, RIG_HIGH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	insist(rig->ram != MAP_FAILED && rig->high != MAP_FAILED);
	insist(!mv_memory_create(&config, &rig->memory));
	add_region(rig, 0, rig->ram, RIG_RAM, rig->ram_fd);
	add_region(rig, RIG_HIGH_GPA, rig->high, RIG_HIGH, -1);
}

void balloon_rig_start(struct balloon_rig *rig, bool shared, uint64_t features)
{
	struct mv_balloon_config config = {
		.size = sizeof(config), .features = features, .ops = &ops, .ctx = rig
	};

	*rig = (struct balloon_rig){ .ram_fd = -1 };
	make_memory(rig, shared);
	config.memory = rig->memory;
	insist(!mv_balloon_create(&config, &rig->balloon));
	insist(!mv_balloon_accept(rig->balloon, features | MV_BALLOON_VERSION_1));
	balloon_rig_queue(rig, 0);
	balloon_rig_queue(rig, 1);
}

void balloon_rig_stop(struct balloon_rig *rig)
{
	mv_balloon_destroy(rig->balloon);
	insist(!mv_memory_remove_region(rig->memory, 0));
	insist(!mv_memory_remove_region(rig->memory, RIG_HIGH_GPA));
	mv_memory_destroy(rig->memory);
	munmap(rig->ram, RIG_RAM);
	munmap(rig->high, RIG_HIGH);
	if (rig->ram_fd >= 0)
		close(rig->ram_fd);
}

void balloon_rig_queue(struct balloon_rig *rig, unsigned int queue)
{
	uint64_t features = mv_balloon_features(rig->balloon);
	struct virtio_driver *driver = &rig->queues[queue];

	driver_start(driver, rig->ram, RIG_RINGS + queue * 0x10000, RIG_ENTRIES,
		     features & MV_BALLOON_RING_PACKED, features & MV_BALLOON_EVENT_IDX);
	struct mv_virtqueue_config config = driver_config(driver, rig->memory);

	insist(!mv_balloon_set_queue(rig->balloon, queue, config.entries, config.desc_gpa,
				     config.driver_gpa, config.device_gpa));
}

int balloon_rig_kick(struct balloon_rig *rig, unsigned int queue)
{
	int result;

	do
		result = mv_balloon_kick(rig->balloon, queue);
	while (result == 1);
	return result;
}

void balloon_rig_offer(struct balloon_rig *rig, unsigned int queue, uint64_t gpa, uint32_t len,
		       bool writable)
{
	const struct mv_virtqueue_segment segment = { gpa, len, writable };

	driver_offer(&rig->queues[queue], &segment, 1, false);
}

int balloon_rig_name(struct balloon_rig *rig, unsigned int queue, const uint32_t *pfns,
		     size_t count)
{
	memcpy(rig->ram + RIG_BUFFERS, pfns, count * sizeof(*pfns));
	balloon_rig_offer(rig, queue, RIG_BUFFERS, (uint32_t)(count * sizeof(*pfns)), false);
	return balloon_rig_kick(rig, queue);
}

unsigned int balloon_rig_acks(struct balloon_rig *rig, unsigned int queue)
{
	unsigned int acks = 0;
	uint32_t written;
	uint16_t id;

	while (driver_used(&rig->queues[queue], &id, &written))
		acks++;
	return acks;
}

struct mv_balloon_stats balloon_rig_stats(struct balloon_rig *rig)
{
	struct mv_balloon_stats stats;

	mv_balloon_get_stats(rig->balloon, &stats);
	return stats;
}

uint64_t *balloon_rig_page(struct balloon_rig *rig, uint64_t pfn)
{
	return (void *)(rig->ram + (pfn << MV_PAGE_SHIFT));
}

void balloon_rig_tag(struct balloon_rig *rig)
{
	for (uint64_t pfn = FIRST_PFN; pfn < PAST_PFN; pfn++)
		*balloon_rig_page(rig, pfn) = ~pfn;
}

bool balloon_rig_has_tag(struct balloon_rig *rig, uint64_t pfn)
{
	uint64_t word = *balloon_rig_page(rig, pfn);

	insist(word == ~pfn || word == 0);
	return word;
}
