/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Direct I/O through libaio: pinned when submitted, unpinned when it is done, although no
 * call announces that. A VMM reads completions straight from the ring that the kernel maps
 * into the process, and so do we: each entry names its iocb.
 *
 * Nothing is missed: entries stay in the ring until the kernel comes round again, and
 * between two looks no more requests can be completed than were under way at the first,
 * which the kernel keeps below the size of the ring. Hence a look before each submission,
 * and the two as one under the context's lock.
 */
#ifndef PRELOAD_AIO_RING_H
#define PRELOAD_AIO_RING_H

#include <linux/aio_abi.h>
#include <pthread.h>

struct aio_context;

/**
 * struct aio - all contexts that were seen
 *
 * @contexts only grows, at its head, under @lock; a context that was destroyed is used
 * again.
 */
struct aio {
	pthread_mutex_t lock;
	struct aio_context *contexts;
};

/**
 * aio_submit() - io_submit() with pins
 *
 * Return: what the system call returns, -errno on failure. Keeps errno.
 */
long aio_submit(aio_context_t id, long count, struct iocb **iocbs);

/** aio_destroy() - io_destroy(), after which nothing of the context is pinned. As above. */
long aio_destroy(aio_context_t id);

/** aio_reap() - unpin what is done in every context that nobody is just submitting to */
void aio_reap(struct aio *aio);

#endif /* PRELOAD_AIO_RING_H */
