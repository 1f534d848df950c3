/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * madvise, fallocate, ftruncate: the VMM gives content up, as it does for a balloon.
 *
 * Holes punched into shared memory must be told to the pager, because userfaultfd does not
 * report fallocate() at all, and reports MADV_REMOVE no differently from MADV_DONTNEED,
 * which keeps the content of shared memory. On private memory MADV_DONTNEED is reported as
 * what it is, and passes.
 *
 * posix_madvise() is not interposed: the C library makes nothing of POSIX_MADV_DONTNEED,
 * and the rest is advice.
 */
#undef _FORTIFY_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "memvirt/preload/preload.h"
#include "memvirt/preload/real.h"

/*
 * struct discard - a system call that discards a stretch of addresses, or of a file
 * @call: make it for a part of the stretch; sets errno
 * @find: a part of the stretch that the pager has, and where it is
 */
struct discard {
	int (*call)(const struct discard *discard, uint64_t first, uint64_t len);
	bool (*find)(const struct discard *discard, uint64_t first, uint64_t len, uint64_t *start,
		     void **addr, size_t *bytes);
	int advice; /* madvise */
	int fd;	    /* fallocate */
	int mode;
	dev_t dev;
	ino_t ino;
};

/* struct part - what is called with the pages of one region busy */
struct part {
	const struct discard *discard;
	uint64_t first;
	uint64_t len;
	bool called;
};

static int call_part(void *ctx)
{
	struct part *part = ctx;

	part->called = true;
	return part->discard->call(part->discard, part->first, part->len);
}

static int discard_part(const struct discard *discard, uint64_t first, void *addr, size_t len)
{
	struct part part = { discard, first, len, false };
	int result =
		mv_pager_discard_around(engine_pager(&preload.engine), addr, len, call_part, &part);

	/* Where the pager would not have it, nothing of the region is stored. */
	return part.called ? result : call_part(&part);
}

/* madvise() passes over what is not mapped, and says so at the end. */
static bool goes_on(int result)
{
	return result == 0 || errno == ENOMEM;
}

/*
 * A stretch may touch several regions and what lies between; each part is a call of its own.
 */
static int discard_range(const struct discard *discard, uint64_t first, uint64_t len)
{
	int before = 0, result, after = 0, error;
	uint64_t start;
	size_t bytes;
	void *addr;

	if (!discard->find(discard, first, len, &start, &addr, &bytes))
		return discard->call(discard, first, len);
	if (start > first)
		before = discard_range(discard, first, start - first);
	if (!goes_on(before))
		return before;
	error = before ? errno : 0;
	result = discard_part(discard, start, addr, bytes);
	if (!goes_on(result))
		return result;
	error = result ? errno : error;
	if (start + bytes < first + len)
		after = discard_range(discard, start + bytes, first + len - start - bytes);
	if (!after && error)
		errno = error;
	return after || error ? -1 : 0;
}

static int discard_run(const struct discard *discard, uint64_t first, uint64_t len)
{
	int saved = errno, result;

	preload_enter();
	result = discard_range(discard, first, len);
	preload_leave();
	if (!result)
		errno = saved;
	return result;
}

/* --- by address ------------------------------------------------------------------------- */

static int call_madvise(const struct discard *discard, uint64_t first, uint64_t len)
{
	return real.madvise((void *)first, len, discard->advice);
}

static bool find_by_address(const struct discard *discard, uint64_t first, uint64_t len,
			    uint64_t *start, void **addr, size_t *bytes)
{
	const void *from = (const void *)first;
	struct range hit;

	while (ranges_next(&preload.ranges, from, len, &hit)) {
		if ((hit.flags & RANGE_MANAGED) && !(hit.flags & RANGE_PRIVATE)) {
			*start = hit.first;
			*addr = (void *)hit.first;
			*bytes = hit.last - hit.first + 1;
			return true;
		}
		if (!ranges_after(&hit, &from, &len))
			break;
	}
	return false;
}

static int remove_content(void *addr, size_t len)
{
	struct discard discard = {
		.call = call_madvise,
		.find = find_by_address,
		.advice = MADV_REMOVE,
	};

	return discard_run(&discard, (uint64_t)addr, len);
}

/*
 * A page that was freed lazily may lose its content at any later moment without a word, and
 * the ledger would be wrong. To drop it at once is what MADV_FREE allows.
 */
static bool all_private(const void *addr, size_t len)
{
	struct range hit;
	bool more = true;

	while (more) {
		if (!ranges_next(&preload.ranges, addr, len, &hit) ||
		    hit.first != (uintptr_t)addr || !(hit.flags & RANGE_PRIVATE))
			return false;
		more = ranges_after(&hit, &addr, &len);
	}
	return true;
}

EXPORT int madvise(void *addr, size_t len, int advice)
{
	int result;

	if (!preload_touches(addr, len))
		return real.madvise(addr, len, advice);
	if (advice == MADV_REMOVE)
		return remove_content(addr, len);
	if (advice == MADV_FREE && all_private(addr, len))
		advice = MADV_DONTNEED;
	result = real.madvise(addr, len, advice);
	if (!result && (advice == MADV_DONTFORK || advice == MADV_DOFORK))
		ram_fork_advice(addr, len, advice == MADV_DONTFORK);
	return result;
}

/* --- by file ---------------------------------------------------------------------------- */

static int call_fallocate(const struct discard *discard, uint64_t first, uint64_t len)
{
	return real.fallocate(discard->fd, discard->mode, (off_t)first, (off_t)len);
}

static bool find_by_file(const struct discard *discard, uint64_t first, uint64_t len,
			 uint64_t *start, void **addr, size_t *bytes)
{
	unsigned int index = 0;
	struct range hit;

	while (ram_file_span(discard->dev, discard->ino, first, len, &index, start, addr, bytes))
		if (ranges_next(&preload.ranges, *addr, *bytes, &hit) &&
		    (hit.flags & RANGE_MANAGED))
			return true;
	return false;
}

EXPORT int fallocate(int fd, int mode, off_t offset, off_t len)
{
	struct discard discard = {
		.call = call_fallocate,
		.find = find_by_file,
		.fd = fd,
		.mode = mode,
	};

	if (!(mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) || offset < 0 || len <= 0 ||
	    len > INT64_MAX - offset || !preload_found() ||
	    !ram_file_of(fd, &discard.dev, &discard.ino))
		return real.fallocate(fd, mode, offset, len);
	return discard_run(&discard, (uint64_t)offset, (uint64_t)len);
}

EXPORT int fallocate64(int fd, int mode, off_t offset, off_t len)
{
	return fallocate(fd, mode, offset, len);
}

/* What lies behind the new end is no memory any more, whoever has its content. */
EXPORT int ftruncate(int fd, off_t len)
{
	struct ram_leave leave;
	dev_t dev;
	ino_t ino;
	int result;

	if (len < 0 || !preload_found() || !ram_file_of(fd, &dev, &ino))
		return real.ftruncate(fd, len);
	ram_leave_file(&leave, dev, ino, (uint64_t)len);
	result = real.ftruncate(fd, len);
	ram_return(&leave, NULL, 0);
	return result;
}

EXPORT int ftruncate64(int fd, off_t len)
{
	return ftruncate(fd, len);
}
