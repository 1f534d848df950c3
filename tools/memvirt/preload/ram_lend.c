/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory that leaves our hands: for good, because the VMM unmaps it or another
 * process maps it too, or for a while, because the VMM puts a userfaultfd of its own on it;
 * see ram.h.
 */
#include "memvirt/preload/ram.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "memvirt/preload/preload.h"

static struct ram *const ram = &preload.ram;

#define FOREIGN_REASON "a userfaultfd of the VMM's own has guest memory (postcopy, snapshot)"

/* Keeps errno: most of what is here stands in the way of a system call. */
static int begin(void)
{
	int saved = errno;

	preload_enter();
	pthread_mutex_lock(&ram->change_lock);
	return saved;
}

static void end(int saved)
{
	pthread_mutex_unlock(&ram->change_lock);
	preload_leave();
	errno = saved;
}

static bool overlaps(const struct region *region, const void *addr, size_t len)
{
	return len && region->backing.first <= ranges_last(addr, len) &&
	       region->backing.last >= (uintptr_t)addr;
}

static bool inside_of(const struct region *region, const void *addr, size_t len)
{
	return region->backing.first >= (uintptr_t)addr &&
	       region->backing.last <= ranges_last(addr, len);
}

/* --- mappings that change --------------------------------------------------------------- */

static void leave_region(struct ram_leave *leave, unsigned int index, bool drop)
{
	struct region *region = &ram->region[index];

	leave->span[leave->count].first = region->backing.first;
	leave->span[leave->count].last = region->backing.last;
	leave->span[leave->count].slot_gpa = region->slot_gpa;
	leave->count++;
	if (region->managed && (drop || region_detach(region, "unmapped") == -ENOMEM)) {
		if (!drop)
			preload_say(MV_LOG_ERROR,
				    "the host has no memory to bring guest memory back that "
				    "the VMM remaps: its content is lost");
		mv_pager_forget(engine_pager(&preload.engine), region->gpa);
	}
	region_remove(index);
}

void ram_leave(struct ram_leave *leave, const void *addr, size_t len, bool drop)
{
	int saved = errno;

	preload_enter();
	pthread_mutex_lock(&ram->change_lock);
	leave->count = 0;
	for (unsigned int i = 0; i < ram->count;) {
		struct region *region = &ram->region[i];

		if (overlaps(region, addr, len))
			leave_region(leave, i, drop && inside_of(region, addr, len));
		else
			i++;
	}
	ram_publish();
	errno = saved;
}

void ram_leave_file(struct ram_leave *leave, dev_t dev, ino_t ino, uint64_t offset)
{
	int saved = errno;

	preload_enter();
	pthread_mutex_lock(&ram->change_lock);
	leave->count = 0;
	for (unsigned int i = 0; i < ram->count;) {
		const struct backing *backing = &ram->region[i].backing;

		if (backing->shared && backing->dev == dev && backing->ino == ino &&
		    backing->offset + (backing->last - backing->first) >= offset)
			leave_region(leave, i, false);
		else
			i++;
	}
	ram_publish();
	errno = saved;
}

static void add_span(const struct ram_leave *leave, unsigned int i, uintptr_t first, uintptr_t last)
{
	uint64_t gpa = leave->span[i].slot_gpa;

	if (gpa != RAM_NO_SLOT)
		gpa += first - leave->span[i].first;
	ram_add(first, last, gpa);
}

void ram_return(struct ram_leave *leave, const void *gone, size_t len)
{
	uintptr_t from = (uintptr_t)gone, to = len ? ranges_last(gone, len) : 0;
	int saved = errno;

	for (unsigned int i = 0; i < leave->count; i++) {
		uintptr_t first = leave->span[i].first, last = leave->span[i].last;

		if (!len || from > last || to < first) {
			add_span(leave, i, first, last);
			continue;
		}
		if (first < from)
			add_span(leave, i, first, from - 1);
		if (last > to)
			add_span(leave, i, to + 1, last);
	}
	end(saved);
}

/* --- files that others see -------------------------------------------------------------- */

bool ram_file_of(int fd, dev_t *dev, ino_t *ino)
{
	struct stat st;
	int saved = errno;
	bool found = fstat(fd, &st) == 0 && ram_has_file(st.st_dev, st.st_ino, 0, UINT64_MAX);

	errno = saved;
	if (found) {
		*dev = st.st_dev;
		*ino = st.st_ino;
	}
	return found;
}

static void share_region(struct region *region, const char *why)
{
	/* Without memory to bring it all back, what is missing comes when this VMM asks. */
	if (region_detach(region, why) == -ENOMEM)
		preload_say(MV_LOG_ERROR,
			    "the host has no memory to bring guest memory back, and %s: "
			    "whoever maps it may find zeros",
			    why);
	region->shared = true;
}

void share_file(dev_t dev, ino_t ino, const char *why)
{
	engine_hold(MV_PAGER_HOLD_SHARED, why);
	for (unsigned int i = 0; i < ram->count; i++) {
		struct region *region = &ram->region[i];

		if (region->backing.shared && region->backing.dev == dev &&
		    region->backing.ino == ino)
			share_region(region, why);
	}
	ram_publish();
}

void ram_share_file(dev_t dev, ino_t ino, const char *why)
{
	int saved = begin();

	share_file(dev, ino, why);
	end(saved);
}

void ram_share_all(const char *why)
{
	int saved = begin();

	engine_hold(MV_PAGER_HOLD_SHARED, why);
	for (unsigned int i = 0; i < ram->count; i++)
		share_region(&ram->region[i], why);
	ram_publish();
	end(saved);
}

/* --- userfaultfds of the VMM's own ------------------------------------------------------ */

void ram_lend(const void *addr, size_t len)
{
	int saved = begin();

	engine_hold(MV_PAGER_HOLD_FOREIGN, FOREIGN_REASON);
	for (unsigned int i = 0; i < ram->count; i++) {
		struct region *region = &ram->region[i];

		if (region_detach(region, FOREIGN_REASON) == -ENOMEM)
			preload_say(MV_LOG_ERROR,
				    "the host has no memory to bring guest memory back for "
				    "the VMM's own userfaultfd: it will be refused");
		if (overlaps(region, addr, len))
			region->lent = true;
	}
	ram_publish();
	end(saved);
}

static bool anything_lent(void)
{
	for (unsigned int i = 0; i < ram->count; i++)
		if (ram->region[i].lent)
			return true;
	return false;
}

void ram_take_back(const void *addr, size_t len)
{
	int saved = begin();
	bool lent = anything_lent();

	for (unsigned int i = 0; i < ram->count; i++)
		if (inside_of(&ram->region[i], addr, len))
			ram->region[i].lent = false;
	if (lent && !anything_lent() && !ram->refusal[0]) {
		for (unsigned int i = 0; i < ram->count; i++)
			region_attach(&ram->region[i]);
		ram_publish();
		engine_unhold(MV_PAGER_HOLD_FOREIGN);
		preload_say(MV_LOG_INFO,
			    "the VMM's own userfaultfd has gone: managing guest memory again");
	}
	end(saved);
}

/* --- fork ------------------------------------------------------------------------------- */

void ram_fork_advice(const void *addr, size_t len, bool dontfork)
{
	pthread_mutex_lock(&ram->lock);
	for (unsigned int i = 0; i < ram->count; i++) {
		struct region *region = &ram->region[i];

		if (dontfork ? inside_of(region, addr, len) : overlaps(region, addr, len))
			region->dontfork = dontfork;
	}
	pthread_mutex_unlock(&ram->lock);
}

bool ram_forks(void)
{
	bool found = false;

	pthread_mutex_lock(&ram->lock);
	for (unsigned int i = 0; i < ram->count; i++)
		found |= ram->region[i].managed && !ram->region[i].dontfork;
	pthread_mutex_unlock(&ram->lock);
	return found;
}

/* --- the end ---------------------------------------------------------------------------- */

int ram_close(const char *why)
{
	int saved = begin(), error = 0;

	for (unsigned int i = 0; i < ram->count && error != -ENOMEM; i++)
		error = region_detach(&ram->region[i], why);
	if (error == -ENOMEM) {
		for (unsigned int i = 0; i < ram->count; i++)
			region_attach(&ram->region[i]);
	} else {
		snprintf(ram->refusal, sizeof(ram->refusal), "%s", why);
		engine_close();
		error = 0;
	}
	ram_publish();
	end(saved);
	return error;
}
