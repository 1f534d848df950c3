// SPDX-License-Identifier: BSD-2-Clause
/*
 * Calls to userfaultfd(2), ioctl_userfaultfd(2). Nothing here knows about the ledger.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <memvirt/memory.h>

#include "uffd.h"

/*
 * The device asks for no privilege but permission on the file, so it comes first. Never
 * UFFD_USER_MODE_ONLY: the kernel touches guest RAM too, in system calls and for KVM.
 */
static int open_raw(void)
{
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);

	if (device >= 0) {
		int uffd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
		int error = errno;

		close(device);
		return uffd >= 0 ? uffd : -error;
	}
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	return uffd >= 0 ? uffd : -errno;
}

static int handshake(int uffd, uint64_t features, uint64_t *offered)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	if (ioctl(uffd, UFFDIO_API, &api))
		return -errno;
	if (offered)
		*offered = api.features;
	return 0;
}

int mv_uffd_features(uint64_t *features)
{
	int uffd = open_raw();

	if (uffd < 0)
		return uffd;
	int error = handshake(uffd, 0, features);

	close(uffd);
	return error;
}

int mv_uffd_open(uint64_t features)
{
	int uffd = open_raw();

	if (uffd < 0)
		return uffd;
	int error = handshake(uffd, features, NULL);

	if (error) {
		close(uffd);
		return error;
	}
	return uffd;
}

int mv_uffd_register(int uffd, void *start, uint64_t bytes, uint64_t mode)
{
	struct uffdio_register reg = {
		.range = { (uintptr_t)start, bytes },
		.mode = mode,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

int mv_uffd_unregister(int uffd, void *start, uint64_t bytes)
{
	struct uffdio_range range = { (uintptr_t)start, bytes };

	return ioctl(uffd, UFFDIO_UNREGISTER, &range) ? -errno : 0;
}

void mv_uffd_wake(int uffd, void *start, uint64_t bytes)
{
	struct uffdio_range range = { (uintptr_t)start, bytes };

	/* Fails only where the mapping has gone, and its waiters with it. */
	ioctl(uffd, UFFDIO_WAKE, &range);
}

/* The kernel wakes nobody on EEXIST, yet whoever waits there need not. */
static int settle(int uffd, void *dst)
{
	int error = errno;

	if (error == EEXIST)
		mv_uffd_wake(uffd, dst, MV_PAGE_SIZE);
	return -error;
}

int mv_uffd_copy(int uffd, void *dst, const void *src)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)src,
		.len = MV_PAGE_SIZE,
	};

	return ioctl(uffd, UFFDIO_COPY, &copy) ? settle(uffd, dst) : 0;
}

int mv_uffd_zero(int uffd, void *dst)
{
	struct uffdio_zeropage zero = { .range = { (uintptr_t)dst, MV_PAGE_SIZE } };

	return ioctl(uffd, UFFDIO_ZEROPAGE, &zero) ? settle(uffd, dst) : 0;
}

int mv_uffd_poison(int uffd, void *dst)
{
	struct mv_uffdio_poison poison = { .range = { (uintptr_t)dst, MV_PAGE_SIZE } };

	return ioctl(uffd, MV_UFFDIO_POISON, &poison) ? settle(uffd, dst) : 0;
}

int mv_uffd_continue(int uffd, void *dst)
{
	struct uffdio_continue cont = { .range = { (uintptr_t)dst, MV_PAGE_SIZE } };

	if (!ioctl(uffd, UFFDIO_CONTINUE, &cont))
		return 0;
	/* "No page in the file's cache" is EFAULT here. */
	return errno == EFAULT ? -ENOENT : settle(uffd, dst);
}

int64_t mv_uffd_move(int uffd, void *dst, void *src, uint64_t bytes)
{
	struct mv_uffdio_move move = {
		.dst = (uintptr_t)dst,
		.src = (uintptr_t)src,
		.len = bytes,
	};

	if (!ioctl(uffd, MV_UFFDIO_MOVE, &move))
		return (int64_t)bytes;
	if (move.move > 0)
		return move.move;
	int error = errno;

	if (error == EEXIST)
		mv_uffd_wake(uffd, dst, bytes);
	return -error;
}
