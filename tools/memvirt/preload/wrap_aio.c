/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Asynchronous I/O in its two older forms: libaio, followed from submission to completion,
 * and POSIX aio, whose threads are inside the C library.
 *
 * io_cancel() is not interposed: a request that it cancels ends with an entry in the ring,
 * like any other. Nor are io_setup() and io_getevents(): a context is known from its first
 * submission, and who reads the ring does not matter.
 */
#undef _FORTIFY_SOURCE
#include <aio.h>
#include <errno.h>
#include <linux/aio_abi.h>

#include "memvirt/preload/aio_ring.h"
#include "memvirt/preload/preload.h"
#include "memvirt/preload/real.h"

int io_submit(aio_context_t context, long count, struct iocb **iocbs);
int io_destroy(aio_context_t context);

EXPORT int io_submit(aio_context_t context, long count, struct iocb **iocbs)
{
	return (int)aio_submit(context, count, iocbs);
}

EXPORT int io_destroy(aio_context_t context)
{
	return (int)aio_destroy(context);
}

static void notice_posix(const struct aiocb *request)
{
	if (request && preload_touches((const void *)request->aio_buf, request->aio_nbytes))
		engine_hold(MV_PAGER_HOLD_DMA, "the VMM reads or writes guest memory through POSIX "
					       "aio");
}

static int call_posix(const char *name, struct aiocb *request)
{
	int (*next)(struct aiocb *) = real_find(name, "librt.so.1");

	notice_posix(request);
	return next(request);
}

EXPORT int aio_read(struct aiocb *request)
{
	return call_posix("aio_read", request);
}

EXPORT int aio_read64(struct aiocb64 *request)
{
	return call_posix("aio_read64", (struct aiocb *)request);
}

EXPORT int aio_write(struct aiocb *request)
{
	return call_posix("aio_write", request);
}

EXPORT int aio_write64(struct aiocb64 *request)
{
	return call_posix("aio_write64", (struct aiocb *)request);
}

static int call_list(const char *name, int mode, struct aiocb *const *list, int count,
		     struct sigevent *event)
{
	int (*next)(int, struct aiocb *const *, int, struct sigevent *) =
		real_find(name, "librt.so.1");

	for (int i = 0; i < count; i++)
		notice_posix(list[i]);
	return next(mode, list, count, event);
}

EXPORT int lio_listio(int mode, struct aiocb *const list[], int count, struct sigevent *event)
{
	return call_list("lio_listio", mode, list, count, event);
}

EXPORT int lio_listio64(int mode, struct aiocb64 *const list[], int count, struct sigevent *event)
{
	return call_list("lio_listio64", mode, (struct aiocb *const *)list, count, event);
}
