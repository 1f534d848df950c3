/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * syscall(): calls that a program makes by number go where the same calls go by name. It is
 * the way in which VMMs in Rust use io_uring and native aio.
 *
 * userfaultfd() itself passes: what matters is which memory is registered (wrap_ioctl.c).
 */
#undef _FORTIFY_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "memvirt/preload/aio_ring.h"
#include "memvirt/preload/preload.h"
#include "memvirt/preload/real.h"

static long with_errno(long result)
{
	if (result >= 0)
		return result;
	errno = (int)-result;
	return -1;
}

static void hold_uring(void)
{
	engine_hold(MV_PAGER_HOLD_DMA, "the VMM uses io_uring without liburing");
}

/* Calls by number that have a name of their own here. Return: whether it was one. */
static bool by_name(long number, const long *arg, long *result)
{
	void *buf = (void *)arg[1];

	switch (number) {
	case SYS_io_submit:
		*result = with_errno(
			aio_submit((aio_context_t)arg[0], arg[1], (struct iocb **)arg[2]));
		return true;
	case SYS_io_destroy:
		*result = with_errno(aio_destroy((aio_context_t)arg[0]));
		return true;
	case SYS_munmap:
		*result = munmap((void *)arg[0], (size_t)arg[1]);
		return true;
	case SYS_madvise:
		*result = madvise((void *)arg[0], (size_t)arg[1], (int)arg[2]);
		return true;
	case SYS_fallocate:
		*result = fallocate((int)arg[0], (int)arg[1], arg[2], arg[3]);
		return true;
	case SYS_pread64:
		*result = pread((int)arg[0], buf, (size_t)arg[2], arg[3]);
		return true;
	case SYS_pwrite64:
		*result = pwrite((int)arg[0], buf, (size_t)arg[2], arg[3]);
		return true;
	case SYS_preadv2:
		*result = preadv2((int)arg[0], buf, (int)arg[2], arg[3], (int)arg[5]);
		return true;
	case SYS_pwritev2:
		*result = pwritev2((int)arg[0], buf, (int)arg[2], arg[3], (int)arg[5]);
		return true;
	case SYS_sendmsg:
		*result = sendmsg((int)arg[0], buf, (int)arg[2]);
		return true;
	}
	return false;
}

/* Forks by number, without the C library's handlers: jails of devices, say. */
static bool forks(long number, const long *arg)
{
	switch (number) {
	case SYS_fork:
		return true;
	case SYS_clone:
		return !(arg[0] & CLONE_VM);
	case SYS_clone3:
		/* The first member is the flags. */
		return arg[0] && !(*(const uint64_t *)arg[0] & CLONE_VM);
	}
	return false;
}

static long fork_by_number(long number, const long *arg)
{
	long result;

	preload_before_fork();
	result = real.syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	if (result == 0)
		preload_in_child();
	return result;
}

/*
 * Rings of a program's own are out of sight from their making on: with IORING_SETUP_SQPOLL
 * requests need no call at all.
 */
EXPORT __attribute__((no_sanitize("address"))) long syscall(long number, ...)
{
	long arg[6], result;
	va_list args;

	/* As the C library does: six are taken, however many were given. */
	va_start(args, number);
	for (int i = 0; i < 6; i++)
		arg[i] = va_arg(args, long);
	va_end(args);
	if (!preload_idle()) {
		if (number == SYS_io_uring_setup || number == SYS_io_uring_enter ||
		    number == SYS_io_uring_register)
			hold_uring();
		else if (forks(number, arg))
			return fork_by_number(number, arg);
		else if (preload_found() && by_name(number, arg, &result))
			return result;
	}
	return real.syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}
