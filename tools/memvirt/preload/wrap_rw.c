/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * read, write and their relatives: pages of a buffer in guest memory are pinned while the
 * call runs. See pins.h for why.
 *
 * A thread that is cancelled inside such a call leaves its pins behind: these pages are
 * then never evicted, which is safe.
 */
#undef _FORTIFY_SOURCE
#include <sys/uio.h>
#include <unistd.h>

#include "memvirt/preload/pins.h"
#include "memvirt/preload/preload.h"
#include "memvirt/preload/real.h"

EXPORT ssize_t read(int fd, void *buf, size_t len)
{
	struct pins pins;

	if (!pins_take(&pins, buf, len))
		return real.read(fd, buf, len);
	return pins_drop(&pins, real.read(fd, buf, len));
}

EXPORT ssize_t write(int fd, const void *buf, size_t len)
{
	struct pins pins;

	if (!pins_take(&pins, (void *)buf, len))
		return real.write(fd, buf, len);
	return pins_drop(&pins, real.write(fd, buf, len));
}

EXPORT ssize_t pread(int fd, void *buf, size_t len, off_t offset)
{
	struct pins pins;

	if (!pins_take(&pins, buf, len))
		return real.pread(fd, buf, len, offset);
	return pins_drop(&pins, real.pread(fd, buf, len, offset));
}

EXPORT ssize_t pread64(int fd, void *buf, size_t len, off_t offset)
{
	return pread(fd, buf, len, offset);
}

EXPORT ssize_t pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	struct pins pins;

	if (!pins_take(&pins, (void *)buf, len))
		return real.pwrite(fd, buf, len, offset);
	return pins_drop(&pins, real.pwrite(fd, buf, len, offset));
}

EXPORT ssize_t pwrite64(int fd, const void *buf, size_t len, off_t offset)
{
	return pwrite(fd, buf, len, offset);
}

EXPORT ssize_t readv(int fd, const struct iovec *iov, int count)
{
	struct pins pins;

	if (!pins_take_vector(&pins, iov, count))
		return real.readv(fd, iov, count);
	return pins_drop(&pins, real.readv(fd, iov, count));
}

EXPORT ssize_t writev(int fd, const struct iovec *iov, int count)
{
	struct pins pins;

	if (!pins_take_vector(&pins, iov, count))
		return real.writev(fd, iov, count);
	return pins_drop(&pins, real.writev(fd, iov, count));
}

EXPORT ssize_t preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
	struct pins pins;

	if (!pins_take_vector(&pins, iov, count))
		return real.preadv(fd, iov, count, offset);
	return pins_drop(&pins, real.preadv(fd, iov, count, offset));
}

EXPORT ssize_t preadv64(int fd, const struct iovec *iov, int count, off_t offset)
{
	return preadv(fd, iov, count, offset);
}

EXPORT ssize_t pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	struct pins pins;

	if (!pins_take_vector(&pins, iov, count))
		return real.pwritev(fd, iov, count, offset);
	return pins_drop(&pins, real.pwritev(fd, iov, count, offset));
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *iov, int count, off_t offset)
{
	return pwritev(fd, iov, count, offset);
}

EXPORT ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	struct pins pins;

	if (!pins_take_vector(&pins, iov, count))
		return real.preadv2(fd, iov, count, offset, flags);
	return pins_drop(&pins, real.preadv2(fd, iov, count, offset, flags));
}

EXPORT ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return preadv2(fd, iov, count, offset, flags);
}

EXPORT ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	struct pins pins;

	if (!pins_take_vector(&pins, iov, count))
		return real.pwritev2(fd, iov, count, offset, flags);
	return pins_drop(&pins, real.pwritev2(fd, iov, count, offset, flags));
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return pwritev2(fd, iov, count, offset, flags);
}

/*
 * What a compiler makes of the above with _FORTIFY_SOURCE, where it knows how large the
 * buffer is. The check is the C library's to make: a buffer that is too small ends the
 * program there.
 */
ssize_t __read_chk(int fd, void *buf, size_t len, size_t room);
ssize_t __pread_chk(int fd, void *buf, size_t len, off_t offset, size_t room);
ssize_t __pread64_chk(int fd, void *buf, size_t len, off_t offset, size_t room);
void __chk_fail(void) __attribute__((noreturn));

EXPORT ssize_t __read_chk(int fd, void *buf, size_t len, size_t room)
{
	if (len > room)
		__chk_fail();
	return read(fd, buf, len);
}

EXPORT ssize_t __pread_chk(int fd, void *buf, size_t len, off_t offset, size_t room)
{
	if (len > room)
		__chk_fail();
	return pread(fd, buf, len, offset);
}

EXPORT ssize_t __pread64_chk(int fd, void *buf, size_t len, off_t offset, size_t room)
{
	if (len > room)
		__chk_fail();
	return pread(fd, buf, len, offset);
}
