/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * io_uring through liburing. A VMM reads completions from a ring of its own mapping, and a
 * request may be picked up by a kernel thread long after any call; so instead of being
 * followed, the first request that could reach guest memory holds the VM, before it is
 * submitted.
 *
 * Requests that only wait do not count: QEMU's I/O threads poll their descriptors through
 * io_uring, whatever the guest's disks use.
 *
 * A VMM that carries liburing within itself is not seen here; docs/preload.md says so.
 */
#undef _FORTIFY_SOURCE
#include <errno.h>
#include <liburing.h>

#include "memvirt/preload/preload.h"
#include "memvirt/preload/real.h"

#define LIBURING "liburing.so.2"

static bool only_waits(const struct io_uring_sqe *sqe)
{
	switch (sqe->opcode) {
	case IORING_OP_NOP:
	case IORING_OP_POLL_ADD:
	case IORING_OP_POLL_REMOVE:
	case IORING_OP_TIMEOUT:
	case IORING_OP_TIMEOUT_REMOVE:
	case IORING_OP_LINK_TIMEOUT:
	case IORING_OP_ASYNC_CANCEL:
	case IORING_OP_FSYNC:
	case IORING_OP_CLOSE:
	case IORING_OP_EPOLL_CTL:
	case IORING_OP_MSG_RING:
		return true;
	}
	return false;
}

static void hold(void)
{
	engine_hold(MV_PAGER_HOLD_DMA, "the VMM reads or writes through io_uring");
}

/* Look at what the VMM has prepared and not yet submitted. */
static void notice_requests(const struct io_uring *ring)
{
	unsigned int shift = ring->flags & IORING_SETUP_SQE128 ? 1 : 0;
	const struct io_uring_sq *sq = &ring->sq;

	if (!preload_found() ||
	    __atomic_load_n(&preload.engine.held, __ATOMIC_RELAXED) & MV_PAGER_HOLD_DMA)
		return;
	for (unsigned int i = sq->sqe_head; i != sq->sqe_tail; i++)
		if (!only_waits(&sq->sqes[(i & *sq->kring_mask) << shift])) {
			hold();
			return;
		}
}

static void *next(const char *name)
{
	return real_find(name, LIBURING);
}

EXPORT int io_uring_submit(struct io_uring *ring)
{
	static int (*call)(struct io_uring *);

	notice_requests(ring);
	if (!call)
		call = next("io_uring_submit");
	return call ? call(ring) : -ENOSYS;
}

EXPORT int io_uring_submit_and_wait(struct io_uring *ring, unsigned int wait)
{
	static int (*call)(struct io_uring *, unsigned int);

	notice_requests(ring);
	if (!call)
		call = next("io_uring_submit_and_wait");
	return call ? call(ring, wait) : -ENOSYS;
}

EXPORT int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
					    unsigned int wait, struct __kernel_timespec *ts,
					    sigset_t *mask)
{
	int (*call)(struct io_uring *, struct io_uring_cqe **, unsigned int,
		    struct __kernel_timespec *, sigset_t *) =
		next("io_uring_submit_and_wait_timeout");

	notice_requests(ring);
	return call ? call(ring, cqe, wait, ts, mask) : -ENOSYS;
}

EXPORT int io_uring_submit_and_get_events(struct io_uring *ring)
{
	int (*call)(struct io_uring *) = next("io_uring_submit_and_get_events");

	notice_requests(ring);
	return call ? call(ring) : -ENOSYS;
}

/* On kernels before 5.11 these two submit what is prepared. */
EXPORT int io_uring_wait_cqes(struct io_uring *ring, struct io_uring_cqe **cqe, unsigned int wait,
			      struct __kernel_timespec *ts, sigset_t *mask)
{
	int (*call)(struct io_uring *, struct io_uring_cqe **, unsigned int,
		    struct __kernel_timespec *, sigset_t *) = next("io_uring_wait_cqes");

	notice_requests(ring);
	return call ? call(ring, cqe, wait, ts, mask) : -ENOSYS;
}

EXPORT int io_uring_wait_cqe_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
				     struct __kernel_timespec *ts)
{
	int (*call)(struct io_uring *, struct io_uring_cqe **, struct __kernel_timespec *) =
		next("io_uring_wait_cqe_timeout");

	notice_requests(ring);
	return call ? call(ring, cqe, ts) : -ENOSYS;
}

/* Registered buffers stay pinned in the kernel for as long as the ring lives. */
EXPORT int io_uring_register_buffers(struct io_uring *ring, const struct iovec *iov,
				     unsigned int count)
{
	int (*call)(struct io_uring *, const struct iovec *, unsigned int) =
		next("io_uring_register_buffers");

	hold();
	return call ? call(ring, iov, count) : -ENOSYS;
}

EXPORT int io_uring_register_buffers_tags(struct io_uring *ring, const struct iovec *iov,
					  const __u64 *tags, unsigned int count)
{
	int (*call)(struct io_uring *, const struct iovec *, const __u64 *, unsigned int) =
		next("io_uring_register_buffers_tags");

	hold();
	return call ? call(ring, iov, tags, count) : -ENOSYS;
}

EXPORT int io_uring_register_buffers_update_tag(struct io_uring *ring, unsigned int offset,
						const struct iovec *iov, const __u64 *tags,
						unsigned int count)
{
	int (*call)(struct io_uring *, unsigned int, const struct iovec *, const __u64 *,
		    unsigned int) = next("io_uring_register_buffers_update_tag");

	hold();
	return call ? call(ring, offset, iov, tags, count) : -ENOSYS;
}

/* The bare system calls that liburing exports: whoever uses them keeps rings of his own. */
EXPORT int io_uring_setup(unsigned int entries, struct io_uring_params *params)
{
	int (*call)(unsigned int, struct io_uring_params *) = next("io_uring_setup");

	hold();
	return call ? call(entries, params) : -ENOSYS;
}
