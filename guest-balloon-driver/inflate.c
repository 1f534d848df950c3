// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages into the balloon and out of it, a batch at a time.
 *
 * Allocation never pushes: it does not retry, does not touch the emergency reserves, and
 * does not complain, so that a guest short of memory gets a smaller balloon and neither an
 * out-of-memory kill nor a log full of warnings.
 *
 * What does not belong here: the target (main.c), and how far to go (reserve.c).
 */
#include <linux/mm.h>
#include <linux/sched.h>

#include "memvirt_balloon.h"

/*
 * Pages in the balloon do not count as the guest's memory, unless it may have them back when
 * it wants: then they are memory in use.
 */
void mv_balloon_count_out(struct mv_balloon *balloon, struct page *page)
{
	if (!balloon->deflate_on_oom)
		adjust_managed_page_count(page, -1);
}

void mv_balloon_count_in(struct mv_balloon *balloon, struct page *page)
{
	if (!balloon->deflate_on_oom)
		adjust_managed_page_count(page, 1);
}

static struct page *take_page(void)
{
	return alloc_page(balloon_mapping_gfp_mask() | __GFP_NOMEMALLOC | __GFP_NORETRY |
			  __GFP_NOWARN);
}

/* Allocation comes before the lock: it may reclaim, and reclaim may want to migrate. */
static unsigned long take_pages(struct list_head *pages, unsigned long wanted)
{
	unsigned long taken;
	struct page *page;

	for (taken = 0; taken < wanted; taken++) {
		page = take_page();
		if (!page)
			break;
		balloon_page_push(pages, page);
	}
	return taken;
}

/**
 * mv_balloon_inflate() - take up to one batch of pages from the guest
 * @balloon: the balloon
 * @wanted:  pages still missing to the target
 *
 * Return: pages taken; 0 where the guest has none to spare, or the device has gone.
 */
unsigned long mv_balloon_inflate(struct mv_balloon *balloon, unsigned long wanted)
{
	unsigned long room = mv_reserve_room(balloon);
	struct page *page;
	LIST_HEAD(pages);
	unsigned long taken;

	wanted = min3(wanted, room, MV_PAGES_PER_BATCH);
	taken = take_pages(&pages, wanted);
	if (!taken)
		return 0;

	mutex_lock(&balloon->lock);
	mv_batch_begin(balloon);
	list_for_each_entry(page, &pages, lru) {
		mv_batch_add(balloon, page);
		mv_balloon_count_out(balloon, page);
	}
	balloon_page_list_enqueue(&balloon->pages, &pages);
	WRITE_ONCE(balloon->held, balloon->held + taken);
	/* Should the device be gone, the pages go back with the rest in remove. */
	mv_batch_tell(balloon, balloon->inflate_vq);
	mutex_unlock(&balloon->lock);
	return taken;
}

static void return_pages(struct mv_balloon *balloon, struct list_head *pages)
{
	struct page *page;

	while ((page = balloon_page_pop(pages))) {
		mv_balloon_count_in(balloon, page);
		put_page(page);
	}
}

/**
 * mv_balloon_deflate() - give up to one batch of pages back to the guest
 * @balloon: the balloon
 * @wanted:  pages above the target
 *
 * Return: pages given back; 0 where none is held, or all are just being moved.
 */
unsigned long mv_balloon_deflate(struct mv_balloon *balloon, unsigned long wanted)
{
	unsigned long given;
	struct page *page;
	LIST_HEAD(pages);

	mutex_lock(&balloon->lock);
	wanted = min3(wanted, balloon->held, MV_PAGES_PER_BATCH);
	/* The list form: the one for a single page is a BUG on an empty list. */
	given = balloon_page_list_dequeue(&balloon->pages, &pages, wanted);
	mv_batch_begin(balloon);
	list_for_each_entry(page, &pages, lru)
		mv_batch_add(balloon, page);
	WRITE_ONCE(balloon->held, balloon->held - given);
	/* Only when the host has answered may the guest use the pages. */
	mv_batch_tell(balloon, balloon->deflate_vq);
	mutex_unlock(&balloon->lock);

	return_pages(balloon, &pages);
	cond_resched();
	return given;
}
