// SPDX-License-Identifier: GPL-2.0-only
/*
 * Statistics: every tag that the kernel has a number for (VIRTIO 1.3, section 5.5.6.3).
 *
 * The host holds one buffer and returns it when it wants fresh numbers.
 */
#include <linux/mm.h>
#include <linux/scatterlist.h>
#include <linux/vmstat.h>

#include "memvirt_balloon.h"

static u64 bytes(u64 pages)
{
	return pages << PAGE_SHIFT;
}

static unsigned int add_stat(struct mv_balloon *balloon, unsigned int at, u16 tag, u64 value)
{
	balloon->stats[at].tag = cpu_to_virtio16(balloon->vdev, tag);
	balloon->stats[at].val = cpu_to_virtio64(balloon->vdev, value);
	return at + 1;
}

#ifdef CONFIG_VM_EVENT_COUNTERS
static const struct {
	u16 tag;
	u16 event;
	bool in_pages;
} events_told[] = {
	{ VIRTIO_BALLOON_S_SWAP_IN, PSWPIN, true },
	{ VIRTIO_BALLOON_S_SWAP_OUT, PSWPOUT, true },
	{ VIRTIO_BALLOON_S_MAJFLT, PGMAJFAULT, false },
	{ VIRTIO_BALLOON_S_MINFLT, PGFAULT, false },
#ifdef CONFIG_HUGETLB_PAGE
	{ VIRTIO_BALLOON_S_HTLB_PGALLOC, HTLB_BUDDY_PGALLOC, false },
	{ VIRTIO_BALLOON_S_HTLB_PGFAIL, HTLB_BUDDY_PGALLOC_FAIL, false },
#endif
	{ VIRTIO_BALLOON_S_OOM_KILL, OOM_KILL, false },
	{ VIRTIO_BALLOON_S_ASYNC_SCAN, PGSCAN_KSWAPD, true },
	{ VIRTIO_BALLOON_S_DIRECT_SCAN, PGSCAN_DIRECT, true },
	{ VIRTIO_BALLOON_S_ASYNC_RECLAIM, PGSTEAL_KSWAPD, true },
	{ VIRTIO_BALLOON_S_DIRECT_RECLAIM, PGSTEAL_DIRECT, true },
};

/* Stalls are counted by the zone that was asked for. */
static u64 stalls(const unsigned long *events)
{
	u64 sum = 0;
	int zid;

	for (zid = 0; zid < MAX_NR_ZONES; zid++)
		sum += events[ALLOCSTALL_NORMAL - ZONE_NORMAL + zid];
	return sum;
}

static unsigned int add_events(struct mv_balloon *balloon, unsigned int at)
{
	unsigned long events[NR_VM_EVENT_ITEMS];
	unsigned int i;
	u64 value;

	all_vm_events(events);
	for (i = 0; i < ARRAY_SIZE(events_told); i++) {
		value = events[events_told[i].event];
		at = add_stat(balloon, at, events_told[i].tag,
			      events_told[i].in_pages ? bytes(value) : value);
	}
	return add_stat(balloon, at, VIRTIO_BALLOON_S_ALLOC_STALL, stalls(events));
}
#else
static unsigned int add_events(struct mv_balloon *balloon, unsigned int at)
{
	return at;
}
#endif

static unsigned int add_sizes(struct mv_balloon *balloon, unsigned int at)
{
	struct sysinfo info;

	si_meminfo(&info);
	at = add_stat(balloon, at, VIRTIO_BALLOON_S_MEMFREE, bytes(info.freeram));
	at = add_stat(balloon, at, VIRTIO_BALLOON_S_MEMTOT, bytes(info.totalram));
	at = add_stat(balloon, at, VIRTIO_BALLOON_S_AVAIL,
		      bytes(max(si_mem_available(), 0L)));
	return add_stat(balloon, at, VIRTIO_BALLOON_S_CACHES,
			bytes(global_node_page_state(NR_FILE_PAGES)));
}

/**
 * mv_stats_prime() - give the host its buffer, filled
 * @balloon: a balloon with a statistics queue that is empty
 *
 * Return: 0; -errno where the device has gone.
 */
int mv_stats_prime(struct mv_balloon *balloon)
{
	unsigned int count = add_sizes(balloon, add_events(balloon, 0));
	struct scatterlist sg;
	int err;

	sg_init_one(&sg, balloon->stats, count * sizeof(balloon->stats[0]));
	err = virtqueue_add_outbuf(balloon->stats_vq, &sg, 1, balloon, GFP_KERNEL);
	if (err)
		return err;
	virtqueue_kick(balloon->stats_vq);
	return 0;
}

/* The host has returned the buffer: fresh numbers, please. */
void mv_stats_answer(struct mv_balloon *balloon)
{
	unsigned int len;

	if (virtqueue_get_buf(balloon->stats_vq, &len))
		mv_stats_prime(balloon);
}
