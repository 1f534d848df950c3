/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading guest memory from outside; see ram_read.h.
 *
 * Touching the mapping is right only for pages that have content: of others the touch would
 * make one, in the pager or in the file. So the ledger is asked first, and the page pinned
 * meanwhile, so that its answer stays true. Where the ledger knows of no content, which it
 * also says of memory that has no limit and is not watched, the file is read instead, whose
 * holes stay holes, or the page table is looked at.
 */
#undef _FORTIFY_SOURCE
#include "memvirt/preload/ram_read.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "memvirt/preload/preload.h"
#include "memvirt/preload/real.h"

/* Linux, Documentation/admin-guide/mm/pagemap.rst: present or swapped. */
#define PAGEMAP_CONTENT (3ULL << 62)

static uintptr_t page_last(uintptr_t addr)
{
	return addr | (MV_PAGE_SIZE - 1);
}

/* --- without the ledger ----------------------------------------------------------------- */

static int read_file(const struct backing *backing, uintptr_t addr, size_t len, void *bytes)
{
	off_t offset = (off_t)(backing->offset + (addr - backing->first));
	ssize_t got;

	do {
		got = real.pread(backing->fd, bytes, len, offset);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	/* The file has been cut short under the mapping. */
	return got == (ssize_t)len ? 0 : -EFAULT;
}

/* Where it cannot be found out: true, for a touch is harmless but for the page it takes. */
static bool has_content(uintptr_t addr)
{
	uint64_t entry = PAGEMAP_CONTENT;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return true;
	if (real.pread(fd, &entry, sizeof(entry), (off_t)(addr / MV_PAGE_SIZE * sizeof(entry))) !=
	    sizeof(entry))
		entry = PAGEMAP_CONTENT;
	close(fd);
	return entry & PAGEMAP_CONTENT;
}

/* The kernel copies, so that memory which cannot be read is an error and no signal. */
static int read_mapping(uintptr_t addr, size_t len, void *bytes)
{
	struct iovec to = { bytes, len };
	struct iovec from = { (void *)addr, len };
	ssize_t got = process_vm_readv(getpid(), &to, 1, &from, 1, 0);

	if (got < 0)
		return -errno;
	return got == (ssize_t)len ? 0 : -EFAULT;
}

static int read_unwatched(const struct backing *backing, uintptr_t addr, size_t len, void *bytes)
{
	if (backing->shared && backing->fd >= 0)
		return read_file(backing, addr, len, bytes);
	if (backing->kind == BACKING_ANONYMOUS && !has_content(addr)) {
		memset(bytes, 0, len);
		return 0;
	}
	return read_mapping(addr, len, bytes);
}

/* --- with it ---------------------------------------------------------------------------- */

static int read_pinned(const struct region *region, uint64_t gpa, size_t len, void *bytes)
{
	struct mv_memory *memory = engine_memory(&preload.engine);
	enum mv_page_state state = MV_PAGE_ABSENT;
	int error = mv_memory_page_state(memory, gpa, &state);

	if (error)
		return error;
	switch (state) {
	case MV_PAGE_RESIDENT:
	case MV_PAGE_STORED:
		return mv_memory_read(memory, gpa, bytes, len);
	case MV_PAGE_POISONED:
		return -EIO;
	default:
		return read_unwatched(&region->backing, region->backing.first + (gpa - region->gpa),
				      len, bytes);
	}
}

/* Within one page. */
static int read_page(const struct region *region, uintptr_t addr, size_t len, void *bytes)
{
	uint64_t gpa = region->gpa + (addr - region->backing.first);
	struct mv_memory *memory = engine_memory(&preload.engine);
	int error;

	if (!region->in_memory)
		return read_unwatched(&region->backing, addr, len, bytes);
	error = mv_memory_pin(memory, gpa, gpa);
	if (error)
		return error;
	error = read_pinned(region, gpa, len, bytes);
	mv_memory_unpin(memory, gpa, gpa);
	return error;
}

/* Under the change lock, so that the list holds still. */
static const struct region *region_at(uintptr_t addr)
{
	for (unsigned int i = 0; i < preload.ram.count; i++) {
		const struct region *region = &preload.ram.region[i];

		if (region->backing.first <= addr && region->backing.last >= addr)
			return region;
	}
	return NULL;
}

static int read_range(uintptr_t addr, size_t len, unsigned char *bytes)
{
	while (len) {
		const struct region *region = region_at(addr);
		size_t in_page = page_last(addr) - addr + 1;
		size_t now = in_page < len ? in_page : len;
		int error = region ? read_page(region, addr, now, bytes) : -EFAULT;

		if (error)
			return error;
		addr += now;
		bytes += now;
		len -= now;
	}
	return 0;
}

int ram_read(uint64_t hva, size_t len, void *bytes)
{
	int error;

	if (len && len - 1 > UINT64_MAX - hva)
		return -EFAULT;
	pthread_mutex_lock(&preload.ram.change_lock);
	error = read_range((uintptr_t)hva, len, bytes);
	pthread_mutex_unlock(&preload.ram.change_lock);
	return error;
}
