// SPDX-License-Identifier: GPL-2.0-only
/*
 * The device's life: bind, follow the host's target, freeze, restore, unbind.
 *
 * One work moves the balloon towards the target, a batch at a time. Where the guest has
 * nothing to give, or the pages are in motion, it waits, longer each time, and begins anew
 * when the target changes.
 *
 * What does not belong here: pages (inflate.c), queues (queue.c), numbers (stats.c).
 */
#include <linux/delay.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/slab.h>

#include "memvirt_balloon.h"

#define BACKOFF_MIN	(HZ / 4)
#define BACKOFF_MAX	(8 * HZ)

enum { INFLATE_VQ, DEFLATE_VQ, STATS_VQ, QUEUES };

/* Pages between the balloon and its target: above 0, pages are missing. */
static long gap_to_target(struct mv_balloon *balloon)
{
	u32 pfns;

	virtio_cread_le(balloon->vdev, struct virtio_balloon_config, num_pages, &pfns);
	return (long)(pfns / MV_PFNS_PER_PAGE) - (long)READ_ONCE(balloon->held);
}

/* Under the lock, so that of two who publish the later one has the last word. */
static void publish_actual(struct mv_balloon *balloon)
{
	u32 actual;

	mutex_lock(&balloon->lock);
	actual = balloon->held * MV_PFNS_PER_PAGE;
	virtio_cwrite_le(balloon->vdev, struct virtio_balloon_config, actual, &actual);
	mutex_unlock(&balloon->lock);
}

/* Each failure in a row doubles the wait. */
static unsigned long next_delay(struct mv_balloon *balloon, bool moved)
{
	if (moved)
		balloon->backoff = 0;
	else
		balloon->backoff = clamp(balloon->backoff * 2, (unsigned long)BACKOFF_MIN,
					 (unsigned long)BACKOFF_MAX);
	return balloon->backoff;
}

static void resize_again(struct mv_balloon *balloon, bool moved)
{
	unsigned long flags;

	spin_lock_irqsave(&balloon->state_lock, flags);
	/* No effect where a new target has queued the work already, without a delay. */
	if (balloon->running)
		queue_delayed_work(system_freezable_wq, &balloon->resize,
				   next_delay(balloon, moved));
	spin_unlock_irqrestore(&balloon->state_lock, flags);
}

static void resize_now(struct mv_balloon *balloon)
{
	unsigned long flags;

	spin_lock_irqsave(&balloon->state_lock, flags);
	balloon->backoff = 0;
	if (balloon->running)
		mod_delayed_work(system_freezable_wq, &balloon->resize, 0);
	spin_unlock_irqrestore(&balloon->state_lock, flags);
}

void mv_balloon_gave_way(struct mv_balloon *balloon)
{
	unsigned long flags;

	publish_actual(balloon);
	spin_lock_irqsave(&balloon->state_lock, flags);
	balloon->backoff = BACKOFF_MAX;
	if (balloon->running)
		mod_delayed_work(system_freezable_wq, &balloon->resize, BACKOFF_MAX);
	spin_unlock_irqrestore(&balloon->state_lock, flags);
}

static void resize_work(struct work_struct *work)
{
	struct mv_balloon *balloon = container_of(to_delayed_work(work), struct mv_balloon,
						  resize);
	long gap = gap_to_target(balloon);
	unsigned long moved;

	if (!gap || virtqueue_is_broken(balloon->inflate_vq))
		return;
	moved = gap > 0 ? mv_balloon_inflate(balloon, gap) : mv_balloon_deflate(balloon, -gap);
	if (moved)
		publish_actual(balloon);
	resize_again(balloon, moved);
}

static void stats_work(struct work_struct *work)
{
	mv_stats_answer(container_of(work, struct mv_balloon, stats_work));
}

static void stats_wanted(struct virtqueue *vq)
{
	struct mv_balloon *balloon = vq->vdev->priv;
	unsigned long flags;

	spin_lock_irqsave(&balloon->state_lock, flags);
	if (balloon->running)
		queue_work(system_freezable_wq, &balloon->stats_work);
	spin_unlock_irqrestore(&balloon->state_lock, flags);
}

static void target_changed(struct virtio_device *vdev)
{
	resize_now(vdev->priv);
}

static int find_queues(struct mv_balloon *balloon)
{
	vq_callback_t *callbacks[QUEUES] = { mv_queue_acked, mv_queue_acked, stats_wanted };
	const char *names[QUEUES] = { "inflate", "deflate", "stats" };
	struct virtqueue *vqs[QUEUES] = {};
	int err;

	if (!virtio_has_feature(balloon->vdev, VIRTIO_BALLOON_F_STATS_VQ))
		names[STATS_VQ] = NULL;
	err = mv_find_vqs(balloon->vdev, QUEUES, vqs, callbacks, names);
	if (err)
		return err;
	balloon->inflate_vq = vqs[INFLATE_VQ];
	balloon->deflate_vq = vqs[DEFLATE_VQ];
	balloon->stats_vq = names[STATS_VQ] ? vqs[STATS_VQ] : NULL;
	return 0;
}

/* From nothing to a balloon that follows its target; undone by stop(). */
static int start(struct mv_balloon *balloon)
{
	int err = find_queues(balloon);

	if (err)
		return err;
	virtio_device_ready(balloon->vdev);
	balloon->deflate_on_oom = virtio_has_feature(balloon->vdev,
						     VIRTIO_BALLOON_F_DEFLATE_ON_OOM);
	mv_oom_watch(balloon);

	spin_lock_irq(&balloon->state_lock);
	balloon->running = true;
	spin_unlock_irq(&balloon->state_lock);

	if (balloon->stats_vq && mv_stats_prime(balloon))
		dev_warn(&balloon->vdev->dev, "no statistics: the queue takes no buffer\n");
	resize_now(balloon);
	return 0;
}

/* A page that compaction is just moving comes back to the list within moments. */
static void deflate_all(struct mv_balloon *balloon)
{
	while (READ_ONCE(balloon->held))
		if (!mv_balloon_deflate(balloon, balloon->held))
			msleep(20);
	publish_actual(balloon);
}

static void stop(struct mv_balloon *balloon)
{
	struct virtio_device *vdev = balloon->vdev;

	spin_lock_irq(&balloon->state_lock);
	balloon->running = false;
	spin_unlock_irq(&balloon->state_lock);
	mv_oom_unwatch(balloon);
	cancel_delayed_work_sync(&balloon->resize);
	cancel_work_sync(&balloon->stats_work);

	deflate_all(balloon);
	virtio_reset_device(vdev);
	vdev->config->del_vqs(vdev);
}

static struct mv_balloon *create(struct virtio_device *vdev)
{
	struct mv_balloon *balloon = kzalloc(sizeof(*balloon), GFP_KERNEL);

	if (!balloon)
		return NULL;
	balloon->vdev = vdev;
	init_waitqueue_head(&balloon->acked);
	spin_lock_init(&balloon->state_lock);
	mutex_init(&balloon->lock);
	INIT_DELAYED_WORK(&balloon->resize, resize_work);
	INIT_WORK(&balloon->stats_work, stats_work);
	balloon_devinfo_init(&balloon->pages);
	balloon->pages.migratepage = mv_balloon_migrate;
	return balloon;
}

static int balloon_validate(struct virtio_device *vdev)
{
	if (!vdev->config->get) {
		dev_err(&vdev->dev, "the device has no configuration space\n");
		return -EINVAL;
	}
	/*
	 * The balloon names pages by their physical address, for which an IOMMU's
	 * addresses are of no use: the feature must not be taken.
	 */
	__virtio_clear_bit(vdev, VIRTIO_F_ACCESS_PLATFORM);
	return 0;
}

static int balloon_probe(struct virtio_device *vdev)
{
	struct mv_balloon *balloon = create(vdev);
	int err;

	if (!balloon)
		return -ENOMEM;
	vdev->priv = balloon;
	err = start(balloon);
	if (err)
		kfree(balloon);
	return err;
}

static void balloon_remove(struct virtio_device *vdev)
{
	struct mv_balloon *balloon = vdev->priv;

	stop(balloon);
	kfree(balloon);
}

#ifdef CONFIG_PM_SLEEP
/* The host forgets the balloon over a reset, so nothing may be in it then. */
static int balloon_freeze(struct virtio_device *vdev)
{
	stop(vdev->priv);
	return 0;
}

static int balloon_restore(struct virtio_device *vdev)
{
	return start(vdev->priv);
}
#endif

/* Every bit that virtio_has_feature() is asked about must be here: another one is a BUG. */
static const unsigned int features[] = {
	VIRTIO_BALLOON_F_MUST_TELL_HOST,
	VIRTIO_BALLOON_F_STATS_VQ,
	VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
};

static const struct virtio_device_id ids[] = {
	{ VIRTIO_ID_BALLOON, VIRTIO_DEV_ANY_ID },
	{ 0 },
};
MODULE_DEVICE_TABLE(virtio, ids);

static struct virtio_driver memvirt_balloon = {
	.driver.name = KBUILD_MODNAME,
	.driver.owner = THIS_MODULE,
	.id_table = ids,
	.feature_table = features,
	.feature_table_size = ARRAY_SIZE(features),
	.validate = balloon_validate,
	.probe = balloon_probe,
	.remove = balloon_remove,
	.config_changed = target_changed,
#ifdef CONFIG_PM_SLEEP
	.freeze = balloon_freeze,
	.restore = balloon_restore,
#endif
};
module_virtio_driver(memvirt_balloon);

MODULE_DESCRIPTION("memvirt: driver for the virtio memory balloon");
MODULE_LICENSE("GPL");
