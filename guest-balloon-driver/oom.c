// SPDX-License-Identifier: GPL-2.0-only
/*
 * Where the host allows it (VIRTIO_BALLOON_F_DEFLATE_ON_OOM), a guest that runs out of memory
 * takes pages out of the balloon before it kills a process.
 *
 * What does not belong here: going back to the target, which main.c does after a while.
 */
#include <linux/oom.h>

#include "memvirt_balloon.h"

/* Called where the killer is about to act; whoever frees pages averts it. */
static int oom_near(struct notifier_block *notifier, unsigned long unused, void *freed)
{
	struct mv_balloon *balloon = container_of(notifier, struct mv_balloon, oom);
	unsigned long given = mv_balloon_deflate(balloon, MV_PAGES_PER_BATCH);

	if (given) {
		*(unsigned long *)freed += given;
		mv_balloon_gave_way(balloon);
	}
	return NOTIFY_OK;
}

void mv_oom_watch(struct mv_balloon *balloon)
{
	if (!balloon->deflate_on_oom)
		return;
	balloon->oom.notifier_call = oom_near;
	register_oom_notifier(&balloon->oom);
}

void mv_oom_unwatch(struct mv_balloon *balloon)
{
	if (balloon->deflate_on_oom)
		unregister_oom_notifier(&balloon->oom);
}
