/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What differs between the kernels that this driver builds for (6.1 and later). The only
 * place for such differences; Kbuild finds out which kernel it is.
 */
#ifndef MEMVIRT_BALLOON_COMPAT_H
#define MEMVIRT_BALLOON_COMPAT_H

#include <linux/virtio_config.h>
#include <uapi/linux/virtio_balloon.h>

/* Ask for @count queues; queues without a name are left out. */
static inline int mv_find_vqs(struct virtio_device *vdev, unsigned int count,
			      struct virtqueue *vqs[], vq_callback_t *callbacks[],
			      const char * const names[])
{
#ifdef MV_HAVE_VIRTQUEUE_INFO
	struct virtqueue_info info[8] = {};
	unsigned int i;

	if (count > ARRAY_SIZE(info))
		return -EINVAL;
	for (i = 0; i < count; i++) {
		info[i].name = names[i];
		info[i].callback = callbacks[i];
	}
	return virtio_find_vqs(vdev, count, vqs, info, NULL);
#else
	return virtio_find_vqs(vdev, count, vqs, callbacks, names, NULL);
#endif
}

/* Statistics that VIRTIO 1.3 added; a host that does not know a tag skips it. */
#ifndef VIRTIO_BALLOON_S_OOM_KILL
#define VIRTIO_BALLOON_S_OOM_KILL	10
#define VIRTIO_BALLOON_S_ALLOC_STALL	11
#define VIRTIO_BALLOON_S_ASYNC_SCAN	12
#define VIRTIO_BALLOON_S_DIRECT_SCAN	13
#define VIRTIO_BALLOON_S_ASYNC_RECLAIM	14
#define VIRTIO_BALLOON_S_DIRECT_RECLAIM	15
#endif

#endif /* MEMVIRT_BALLOON_COMPAT_H */
