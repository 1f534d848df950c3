// SPDX-License-Identifier: GPL-2.0-only
/*
 * Batches of page numbers: put together, sent to the host, and waited for.
 *
 * The host is always told, and its answer awaited, before a page goes back to the guest.
 * That is what VIRTIO_BALLOON_F_MUST_TELL_HOST demands, and right without it as well.
 *
 * What does not belong here: which pages, and why.
 */
#include <linux/scatterlist.h>

#include "memvirt_balloon.h"

/* How often a silent host is looked at, to notice that the device has gone. */
#define ACK_CHECK	HZ

void mv_batch_begin(struct mv_balloon *balloon)
{
	balloon->count = 0;
}

void mv_batch_add(struct mv_balloon *balloon, struct page *page)
{
	u32 first = page_to_pfn(page) * MV_PFNS_PER_PAGE;
	unsigned int i;

	BUILD_BUG_ON(PAGE_SHIFT < VIRTIO_BALLOON_PFN_SHIFT);
	for (i = 0; i < MV_PFNS_PER_PAGE; i++)
		balloon->pfns[balloon->count++] = cpu_to_virtio32(balloon->vdev, first + i);
}

/**
 * mv_batch_tell() - send the batch and wait until the host has taken it
 * @balloon: the balloon, its lock held
 * @vq:      inflate or deflate queue
 *
 * A host may take its time, so this waits as long as the device is there. The wait is cut
 * into pieces, which also keeps the hung-task detector from blaming the guest for it.
 *
 * Return: 0; -EIO when the device has gone, and nobody is left to tell.
 */
int mv_batch_tell(struct mv_balloon *balloon, struct virtqueue *vq)
{
	struct scatterlist sg;
	unsigned int len;
	int err;

	if (!balloon->count)
		return 0;
	sg_init_one(&sg, balloon->pfns, balloon->count * sizeof(balloon->pfns[0]));
	err = virtqueue_add_outbuf(vq, &sg, 1, balloon, GFP_KERNEL);
	if (err)
		return -EIO;
	virtqueue_kick(vq);
	while (!wait_event_timeout(balloon->acked, virtqueue_get_buf(vq, &len), ACK_CHECK))
		if (virtqueue_is_broken(vq))
			return -EIO;
	return 0;
}

/* The queues' callback; in interrupt context. */
void mv_queue_acked(struct virtqueue *vq)
{
	struct mv_balloon *balloon = vq->vdev->priv;

	wake_up(&balloon->acked);
}
