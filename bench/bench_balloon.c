// SPDX-License-Identifier: BSD-2-Clause
/*
 * Memory let go by the balloon device, as the guest names it: the whole way from the descriptor to
 * the host's page, beside bare madvise() on the same pages.
 *
 * In order, the limit is one call for each 2 MiB; in random order, the peer is what a device does
 * that lets go page by page. On anonymous memory, where a page costs least to let go.
 */
#include "support/bench.h"

#include <string.h>
#include <sys/mman.h>

#include <memvirt/balloon.h>

#include "support/virtio_driver.h"

#define PAGES	      16384
#define PAGES_QUICK   2048
#define RAM_RINGS     0x10000UL
#define RAM_BUFFER    0x20000UL
#define RAM_PAGES     0x200000UL /* of what is given */
#define PFNS_A_BUFFER 256

struct setting {
	uint32_t pages;
	uint32_t *order; /* of the pages, or NULL: as they lie */
	unsigned char *ram;
	uint64_t bytes;
	struct mv_memory *memory;
};

static void fault_in(struct setting *s)
{
	memset(s->ram + RAM_PAGES, 1, (size_t)s->pages << MV_PAGE_SHIFT);
}

static uint32_t page_at(const struct setting *s, uint32_t at)
{
	return s->order ? s->order[at] : at;
}

static void queue_up(struct mv_balloon *balloon, struct virtio_driver *driver, unsigned int queue,
		     struct setting *s)
{
	driver_start(driver, s->ram, RAM_RINGS, 64, false, false);
	struct mv_virtqueue_config config = driver_config(driver, s->memory);

	if (mv_balloon_set_queue(balloon, queue, config.entries, config.desc_gpa, config.driver_gpa,
				 config.device_gpa))
		bench_die("mv_balloon_set_queue");
}

static void give(struct mv_balloon *balloon, struct virtio_driver *driver, struct setting *s,
		 uint32_t first)
{
	uint32_t *pfns = (void *)(s->ram + RAM_BUFFER);
	const struct mv_virtqueue_segment segment = { RAM_BUFFER, PFNS_A_BUFFER * 4, false };
	uint32_t written;
	uint16_t id;

	for (uint32_t i = 0; i < PFNS_A_BUFFER; i++)
		pfns[i] = (uint32_t)(RAM_PAGES >> MV_PAGE_SHIFT) + page_at(s, first + i);
	driver_offer(driver, &segment, 1, false);
	if (mv_balloon_kick(balloon, 0) || !driver_used(driver, &id, &written))
		bench_die("the device did not take a buffer");
}

/* ns a page */
static double by_device(void *ctx)
{
	struct setting *s = ctx;
	struct mv_balloon_config config = { .size = sizeof(config),
					    .memory = s->memory,
					    .features = MV_BALLOON_MUST_TELL_HOST };
	struct virtio_driver driver;
	struct mv_balloon *balloon;
	struct mv_balloon_stats stats;

	fault_in(s);
	if (mv_balloon_create(&config, &balloon) ||
	    mv_balloon_accept(balloon, MV_BALLOON_MUST_TELL_HOST | MV_BALLOON_VERSION_1))
		bench_die("mv_balloon_create");
	queue_up(balloon, &driver, 0, s);
	double start = bench_now();

	for (uint32_t first = 0; first < s->pages; first += PFNS_A_BUFFER)
		give(balloon, &driver, s, first);
	mv_balloon_settle(balloon);
	double took = bench_now() - start;

	mv_balloon_get_stats(balloon, &stats);
	if (stats.dropped != s->pages)
		bench_die("the device let go of %lu pages", (unsigned long)stats.dropped);
	mv_balloon_destroy(balloon);
	return took / s->pages;
}

static double advise(struct setting *s, uint32_t pages_a_call)
{
	fault_in(s);
	double start = bench_now();

	for (uint32_t at = 0; at < s->pages; at += pages_a_call)
		if (madvise(s->ram + RAM_PAGES + ((size_t)page_at(s, at) << MV_PAGE_SHIFT),
			    (size_t)pages_a_call << MV_PAGE_SHIFT, MADV_DONTNEED))
			bench_die("madvise");
	return (bench_now() - start) / s->pages;
}

static double by_granules(void *ctx)
{
	return advise(ctx, MV_GRANULE_PAGES);
}

static double by_pages(void *ctx)
{
	return advise(ctx, 1);
}

static void make_memory(struct setting *s)
{
	const struct mv_memory_config memory = { .size = sizeof(memory) };
	struct mv_region_config region = { .size = sizeof(region), .fd = -1 };

	s->bytes = RAM_PAGES + ((uint64_t)s->pages << MV_PAGE_SHIFT);
	s->ram = bench_pages(s->bytes);
	region.last_gpa = s->bytes - 1;
	region.hva = s->ram;
	if (mv_memory_create(&memory, &s->memory) || mv_memory_add_region(s->memory, &region))
		bench_die("mv_memory_create");
}

int main(int argc, char **argv)
{
	struct bench bench = bench_open(argc, argv);
	uint32_t pages = bench.quick ? PAGES_QUICK : PAGES, order[PAGES];
	struct setting s = { .pages = pages };

	bench_pin(0);
	make_memory(&s);
	bench_compare(&bench, &(struct bench_pair){ .name = "release, in order",
						    .unit = "ns/page",
						    .peer_name = "madvise() by 2 MiB",
						    .ours = by_device,
						    .peer = by_granules,
						    .ctx = &s,
						    .goal = "<=1.11" });
	bench_shuffle(order, pages, 1);
	s.order = order;
	bench_compare(&bench, &(struct bench_pair){ .name = "release, random order",
						    .unit = "ns/page",
						    .peer_name = "madvise() by page",
						    .ours = by_device,
						    .peer = by_pages,
						    .ctx = &s,
						    .goal = "<=0.33" });
	return bench_close(&bench);
}
