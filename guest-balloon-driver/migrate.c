// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages of the balloon stay movable, so that a balloon does not fragment the guest.
 *
 * To the host a move is two steps: the new page enters the balloon, the old one leaves it.
 */
#include <linux/migrate.h>
#include <linux/mm.h>
#include <linux/vmstat.h>

#include "memvirt_balloon.h"

/* The zones' accounts, where the page leaves one for another. */
static void move_account(struct mv_balloon *balloon, struct page *newpage, struct page *page)
{
	if (page_zone(page) == page_zone(newpage))
		return;
	mv_balloon_count_in(balloon, page);
	mv_balloon_count_out(balloon, newpage);
}

static void swap_pages(struct balloon_dev_info *pages, struct page *newpage)
{
	unsigned long flags;

	/* The reference that every page in the balloon has. */
	get_page(newpage);
	spin_lock_irqsave(&pages->pages_lock, flags);
	balloon_page_insert(pages, newpage);
	pages->isolated_pages--;
	__count_vm_event(BALLOON_MIGRATE);
	spin_unlock_irqrestore(&pages->pages_lock, flags);
}

static void tell_page(struct mv_balloon *balloon, struct virtqueue *vq, struct page *page)
{
	mv_batch_begin(balloon);
	mv_batch_add(balloon, page);
	mv_batch_tell(balloon, vq);
}

/**
 * mv_balloon_migrate() - put one page of the balloon in the place of another
 * @pages:   the balloon's
 * @newpage: page that enters it; locked
 * @page:    page that leaves it; locked and isolated
 * @mode:    no mode needs anything special, for there is no content to copy
 *
 * Return: MIGRATEPAGE_SUCCESS; -EAGAIN while a batch is on its way to the host.
 */
int mv_balloon_migrate(struct balloon_dev_info *pages, struct page *newpage,
		       struct page *page, enum migrate_mode mode)
{
	struct mv_balloon *balloon = container_of(pages, struct mv_balloon, pages);

	/*
	 * Never wait for the lock: its holder may be waiting for a page that the caller
	 * has locked.
	 */
	if (!mutex_trylock(&balloon->lock))
		return -EAGAIN;
	move_account(balloon, newpage, page);
	swap_pages(pages, newpage);
	tell_page(balloon, balloon->inflate_vq, newpage);
	balloon_page_finalize(page);
	tell_page(balloon, balloon->deflate_vq, page);
	mutex_unlock(&balloon->lock);

	put_page(page);
	return MIGRATEPAGE_SUCCESS;
}
