// SPDX-License-Identifier: GPL-2.0-only
/*
 * The floor: what the guest keeps, whatever the host asks for.
 *
 * Measured in available memory: what is free, and what the page cache could give without
 * swapping. The zones' high watermarks are where the kernel stops reclaiming in the
 * background; the margin above them lets an ordinary burst of allocations pass without the
 * balloon having caused a stall.
 */
#include <linux/mm.h>
#include <linux/mmzone.h>
#include <linux/nodemask.h>

#include "memvirt_balloon.h"

#define MARGIN_PART	32	/* of the guest's memory */
#define MARGIN_MIN	(2UL << 20 >> PAGE_SHIFT)
#define MARGIN_MAX	(64UL << 20 >> PAGE_SHIFT)

static unsigned long high_watermarks(void)
{
	unsigned long pages = 0;
	struct zone *zone;
	int nid;

	for_each_online_node(nid) {
		struct zone *first = NODE_DATA(nid)->node_zones;

		for (zone = first; zone < first + MAX_NR_ZONES; zone++)
			pages += high_wmark_pages(zone);
	}
	return pages;
}

/* The guest's size, the balloon's pages included: the floor must not sink with them. */
static unsigned long guest_pages(const struct mv_balloon *balloon)
{
	unsigned long held = balloon->deflate_on_oom ? 0 : READ_ONCE(balloon->held);

	return totalram_pages() + held;
}

/**
 * mv_reserve_room() - pages that may go into the balloon now
 * @balloon: the balloon
 *
 * Return: 0 at the floor.
 */
unsigned long mv_reserve_room(const struct mv_balloon *balloon)
{
	unsigned long margin = clamp(guest_pages(balloon) / MARGIN_PART, MARGIN_MIN, MARGIN_MAX);
	long room = si_mem_available() - (long)(high_watermarks() + margin);

	return max(room, 0L);
}
