/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * mmap, munmap, mremap, mlock: guest memory comes, goes, moves, or is to stay resident.
 */
#undef _FORTIFY_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <sys/mman.h>

#include <memvirt/memory.h>

#include "memvirt/preload/preload.h"
#include "memvirt/preload/real.h"

/*
 * QEMU reserves address space without access and then maps guest memory at a fixed place in
 * it; under TCG this pattern is all that there is to see. Finding memory that is not the
 * guest's costs nothing but the work of managing it; missing the guest's would be worse.
 */
static void notice_mapping(void *addr, size_t len, int prot, int flags)
{
	if (len < RAM_MAPPING_MIN)
		return;
	if (prot == PROT_NONE)
		ram_reserve(addr, len);
	else if ((flags & MAP_FIXED) && prot == (PROT_READ | PROT_WRITE) &&
		 ram_is_reserved(addr, len))
		ram_found(addr, len, RAM_NO_SLOT);
}

/*
 * A second mapping of guest memory would find holes where pages are stored, and fill them
 * with zeros; so everything is brought back first, for good.
 */
static void notice_alias(size_t len, int flags, int fd, off_t offset)
{
	dev_t dev;
	ino_t ino;

	if (fd < 0 || (flags & MAP_ANONYMOUS) || !preload_found() || !ram_file_of(fd, &dev, &ino))
		return;
	if (ram_has_file(dev, ino, (uint64_t)offset, len))
		ram_share_file(dev, ino, "the VMM maps guest memory twice");
}

static size_t whole_pages(size_t len)
{
	return (len + MV_PAGE_SIZE - 1) & ~(MV_PAGE_SIZE - 1);
}

static bool page_aligned(const void *addr, off_t offset)
{
	return (((uintptr_t)addr | (uintptr_t)offset) & (MV_PAGE_SIZE - 1)) == 0;
}

static void *map(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	bool replaces =
		(flags & MAP_FIXED) && preload_touches(addr, len) && page_aligned(addr, offset);
	struct ram_leave leave;
	void *result;

	if (replaces)
		ram_leave(&leave, addr, len, false);
	else
		notice_alias(len, flags, fd, offset);
	result = real.mmap(addr, len, prot, flags, fd, offset);
	if (replaces)
		ram_return(&leave, NULL, 0);
	if (result != MAP_FAILED)
		notice_mapping(result, len, prot, flags);
	return result;
}

EXPORT void *mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	if (preload_idle())
		return real.mmap(addr, len, prot, flags, fd, offset);
	return map(addr, len, prot, flags, fd, offset);
}

EXPORT void *mmap64(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return mmap(addr, len, prot, flags, fd, offset);
}

EXPORT int munmap(void *addr, size_t len)
{
	struct ram_leave leave;
	int result;

	if (!preload_touches(addr, len) || !page_aligned(addr, 0))
		return real.munmap(addr, len);
	ram_leave(&leave, addr, len, true);
	result = real.munmap(addr, len);
	ram_return(&leave, addr, result == 0 ? whole_pages(len) : 0);
	return result;
}

EXPORT void *mremap(void *old, size_t old_len, size_t len, int flags, ...)
{
	struct ram_leave leave;
	va_list args;
	void *fixed, *result;

	va_start(args, flags);
	fixed = va_arg(args, void *);
	va_end(args);
	/* An old length of 0 makes a second mapping: one byte finds what it is of. */
	if (!preload_touches(old, old_len ? old_len : 1) &&
	    !((flags & MREMAP_FIXED) && preload_touches(fixed, len)))
		return real.mremap(old, old_len, len, flags, fixed);
	if (!old_len || (flags & MREMAP_FIXED)) {
		/* Rare enough to be treated bluntly: all of it back, and hands off. */
		ram_share_all("the VMM moves guest memory with mremap()");
		return real.mremap(old, old_len, len, flags, fixed);
	}
	ram_leave(&leave, old, old_len, false);
	result = real.mremap(old, old_len, len, flags, fixed);
	if (result == MAP_FAILED)
		ram_return(&leave, NULL, 0);
	else if (result != old)
		ram_return(&leave, old, whole_pages(old_len));
	else if (len < old_len)
		ram_return(&leave, (char *)old + whole_pages(len),
			   whole_pages(old_len) - whole_pages(len));
	else
		ram_return(&leave, NULL, 0);
	if (result != MAP_FAILED)
		ram_found(result, len, leave.count ? leave.span[0].slot_gpa : RAM_NO_SLOT);
	return result;
}

/*
 * A locked page can be neither unmapped nor moved, and whoever locks guest memory wants it
 * to be resident. What is stored comes back as the kernel populates the range.
 */
static void notice_lock(void)
{
	engine_hold(MV_PAGER_HOLD_CALLER, "the VMM locks guest memory (mlock)");
}

EXPORT int mlock(const void *addr, size_t len)
{
	int (*next)(const void *, size_t) = real_find("mlock", NULL);

	if (preload_touches(addr, len))
		notice_lock();
	return next(addr, len);
}

EXPORT int mlock2(const void *addr, size_t len, unsigned int flags)
{
	int (*next)(const void *, size_t, unsigned int) = real_find("mlock2", NULL);

	if (preload_touches(addr, len))
		notice_lock();
	return next(addr, len, flags);
}

/*
 * All memory of the process would be populated, also the address space that a store reserves
 * for more content than the host has memory. And no page may be evicted any more: so all
 * comes back, and memvirt leaves.
 */
EXPORT int mlockall(int flags)
{
	int (*next)(int) = real_find("mlockall", NULL);

	if (!preload_idle()) {
		if (ram_close("the VMM locks all its memory (-overcommit mem-lock=on)")) {
			errno = ENOMEM;
			return -1;
		}
		if (preload_found())
			preload_say(MV_LOG_WARNING,
				    "the VM runs unmanaged: it locks all its memory");
	}
	return next(flags);
}
