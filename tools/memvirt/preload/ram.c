/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The list of guest memory, and how memory comes onto it and leaves it; see ram.h.
 */
#include "memvirt/preload/ram.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "memvirt/preload/preload.h"

/* The ledger's address space is ours: regions lie apart, so that none touches another. */
#define GPA_GAP	     MV_GRANULE_SIZE
#define REMOVE_TRIES 1000

static struct ram *const ram = &preload.ram;

void ram_reserve(const void *addr, size_t len)
{
	pthread_mutex_lock(&ram->lock);
	ram->reserved[ram->reserved_next].first = (uintptr_t)addr;
	ram->reserved[ram->reserved_next].last = ranges_last(addr, len);
	ram->reserved_next = (ram->reserved_next + 1) % RAM_RESERVED;
	pthread_mutex_unlock(&ram->lock);
}

/*
 * A reservation that was unmapped is not struck off: memory that is mapped at a fixed place
 * where once a large piece of address space was reserved is guest memory often enough, and
 * harmless to manage where it is not.
 */
bool ram_is_reserved(const void *addr, size_t len)
{
	uintptr_t first = (uintptr_t)addr, last = ranges_last(addr, len);
	bool found = false;

	pthread_mutex_lock(&ram->lock);
	for (unsigned int i = 0; i < RAM_RESERVED && !found; i++)
		found = ram->reserved[i].last && ram->reserved[i].first <= first &&
			ram->reserved[i].last >= last;
	pthread_mutex_unlock(&ram->lock);
	return found;
}

void ram_publish(void)
{
	struct range table[RANGES_MAX];

	for (unsigned int i = 0; i < ram->count; i++) {
		const struct region *region = &ram->region[i];

		table[i].first = region->backing.first;
		table[i].last = region->backing.last;
		table[i].gpa = region->in_memory ? region->gpa : RANGE_NO_GPA;
		table[i].flags = (region->managed ? RANGE_MANAGED : 0) |
				 (region->backing.shared ? 0 : RANGE_PRIVATE);
	}
	ranges_set(&preload.ranges, table, ram->count);
}

static uint64_t region_bytes(const struct region *region)
{
	return region->backing.last - region->backing.first + 1;
}

static const char *attach_error(int error)
{
	switch (error) {
	case -EOPNOTSUPP:
		return "this kernel cannot page private memory out safely (it lacks UFFDIO_MOVE, "
		       "Linux 6.8): use memory-backend-memfd with share=on";
	case -EBUSY:
		return "another userfaultfd has it";
	case -ENOSPC:
		return "the page store has no keys left";
	}
	return strerror(-error);
}

static void set_reason(struct region *region, const char *reason)
{
	pthread_mutex_lock(&ram->lock);
	snprintf(region->reason, sizeof(region->reason), "%s", reason);
	region->managed = reason[0] == '\0';
	pthread_mutex_unlock(&ram->lock);
}

void region_attach(struct region *region)
{
	int error;

	if (region->managed || region->shared || region->lent || !region->in_memory)
		return;
	error = mv_pager_attach(engine_pager(&preload.engine), region->gpa);
	set_reason(region, error ? attach_error(error) : "");
	if (error)
		preload_say(MV_LOG_WARNING, "%lu MiB of guest memory (%s) run unmanaged: %s",
			    (unsigned long)(region_bytes(region) >> 20),
			    backing_kind_name(region->backing.kind), region->reason);
	else
		preload_say(MV_LOG_INFO, "managing %lu MiB of guest memory (%s)",
			    (unsigned long)(region_bytes(region) >> 20),
			    backing_kind_name(region->backing.kind));
}

int region_detach(struct region *region, const char *reason)
{
	int error;

	if (!region->managed)
		return 0;
	error = mv_pager_detach(engine_pager(&preload.engine), region->gpa);
	if (error == -ENOMEM)
		return error;
	if (error)
		preload_say(MV_LOG_ERROR, "pages of the guest could not be brought back: %s",
			    strerror(-error));
	set_reason(region, reason);
	return error;
}

/* Pins of reads and writes under way keep a region; they end soon. */
static void leave_memory(struct region *region)
{
	struct mv_memory *memory = engine_memory(&preload.engine);

	for (int i = 0; i < REMOVE_TRIES; i++) {
		if (mv_memory_remove_region(memory, region->gpa) != -EBUSY)
			return;
		aio_reap(&preload.aio);
		usleep(1000);
	}
	preload_say(MV_LOG_WARNING, "guest memory was unmapped while the VMM reads or writes it");
}

void region_remove(unsigned int index)
{
	struct region *region = &ram->region[index];

	if (region->in_memory)
		leave_memory(region);
	if (region->backing.fd >= 0)
		close(region->backing.fd);
	pthread_mutex_lock(&ram->lock);
	ram->count--;
	memmove(region, region + 1, (ram->count - index) * sizeof(*region));
	pthread_mutex_unlock(&ram->lock);
}

static int enter_memory(struct region *region)
{
	struct mv_region_config config = {
		.size = sizeof(config),
		.first_gpa = ram->next_gpa,
		.last_gpa = ram->next_gpa + region_bytes(region) - 1,
		.hva = (void *)region->backing.first,
		.fd = region->backing.shared ? region->backing.fd : -1,
		.fd_offset = region->backing.offset,
	};
	int error = mv_memory_add_region(engine_memory(&preload.engine), &config);

	if (error)
		return error;
	region->gpa = config.first_gpa;
	region->in_memory = true;
	ram->next_gpa = (config.last_gpa | (MV_GRANULE_SIZE - 1)) + 1 + GPA_GAP;
	return 0;
}

/* Two mappings of one piece of a file would take each other's holes for content. */
static bool mapped_already(const struct backing *backing)
{
	return backing->ino && ram_has_file(backing->dev, backing->ino, backing->offset,
					    backing->last - backing->first + 1);
}

static unsigned int insert(const struct region *region)
{
	unsigned int at = 0;

	pthread_mutex_lock(&ram->lock);
	while (at < ram->count && ram->region[at].backing.first < region->backing.first)
		at++;
	memmove(&ram->region[at + 1], &ram->region[at], (ram->count - at) * sizeof(ram->region[0]));
	ram->region[at] = *region;
	ram->count++;
	pthread_mutex_unlock(&ram->lock);
	return at;
}

static void add_piece(const struct backing *backing, uint64_t slot_gpa)
{
	struct region region = { .backing = *backing, .slot_gpa = slot_gpa };
	const char *why = ram->refusal[0] ? ram->refusal : backing->why;
	unsigned int at;
	int error;

	if (ram->count == RANGES_MAX) {
		preload_say(MV_LOG_WARNING,
			    "more than %d pieces of guest memory: the rest runs unmanaged",
			    RANGES_MAX);
		if (backing->fd >= 0)
			close(backing->fd);
		return;
	}
	if (!why && mapped_already(backing)) {
		share_file(backing->dev, backing->ino, "the VMM maps guest memory twice");
		region.shared = true;
		why = "the VMM maps it twice";
	}
	if (!why && (error = enter_memory(&region)))
		why = strerror(-error);
	if (why) {
		snprintf(region.reason, sizeof(region.reason), "%s", why);
		preload_say(MV_LOG_WARNING, "%lu MiB of guest memory (%s) run unmanaged: %s",
			    (unsigned long)(region_bytes(&region) >> 20),
			    backing_kind_name(backing->kind), why);
	}
	at = insert(&region);
	/* Pins and discards must find the region before the pager may evict from it. */
	ram_publish();
	region_attach(&ram->region[at]);
	ram_publish();
}

void ram_add(uintptr_t first, uintptr_t last, uint64_t slot_gpa)
{
	struct backing pieces[BACKING_PIECES_MAX];
	unsigned int count;
	int error = backing_examine(first, last, pieces, &count);

	if (error) {
		preload_say(MV_LOG_ERROR, "guest memory runs unmanaged: /proc/self/maps: %s",
			    strerror(-error));
		return;
	}
	for (unsigned int i = 0; i < count; i++) {
		uintptr_t offset = pieces[i].first - first;

		if (pieces[i].last - pieces[i].first + 1 >= RAM_SLOT_MIN)
			add_piece(&pieces[i],
				  slot_gpa == RAM_NO_SLOT ? RAM_NO_SLOT : slot_gpa + offset);
		else if (pieces[i].fd >= 0)
			close(pieces[i].fd);
	}
}

/* The first guest memory: from here on this process is a VMM under our care. */
static void start(void)
{
	char why[RAM_REASON_MAX] = "";

	preload_clean_environment();
	snprintf(why, sizeof(why), "%s", ram->refusal);
	if (server_start(why, sizeof(why)) == 0 && !why[0])
		engine_start(why, sizeof(why));
	if (why[0]) {
		preload_say(MV_LOG_ERROR, "the VM runs unmanaged: %s", why);
		snprintf(ram->refusal, sizeof(ram->refusal), "%s", why);
	}
	__atomic_store_n(&preload.found, true, __ATOMIC_RELEASE);
}

/* KVM names again what a mapping has shown already: keep the address, for query-info. */
static void note_slot(const void *addr, size_t len, uint64_t slot_gpa)
{
	uintptr_t first = (uintptr_t)addr, last = ranges_last(addr, len);

	if (slot_gpa == RAM_NO_SLOT)
		return;
	pthread_mutex_lock(&ram->lock);
	for (unsigned int i = 0; i < ram->count; i++) {
		struct region *region = &ram->region[i];

		if (region->backing.first >= first && region->backing.first <= last)
			region->slot_gpa = slot_gpa + (region->backing.first - first);
	}
	pthread_mutex_unlock(&ram->lock);
}

/* Add what no region covers yet. */
static void add_gaps(const void *addr, size_t len, uint64_t slot_gpa)
{
	uintptr_t first = (uintptr_t)addr, last = ranges_last(addr, len), cursor = first;
	struct range hit;

	while (cursor <= last) {
		bool known = ranges_next(&preload.ranges, (void *)cursor, last - cursor + 1, &hit);
		uintptr_t end = known ? hit.first : last + 1;
		uint64_t gpa = slot_gpa == RAM_NO_SLOT ? RAM_NO_SLOT : slot_gpa + (cursor - first);

		if (end > cursor && end - cursor >= RAM_SLOT_MIN)
			ram_add(cursor, end - 1, gpa);
		if (!known || hit.last >= last)
			break;
		cursor = hit.last + 1;
	}
}

void ram_found(void *addr, size_t len, uint64_t slot_gpa)
{
	int saved = errno;

	preload_enter();
	pthread_mutex_lock(&ram->change_lock);
	if (!__atomic_load_n(&preload.found, __ATOMIC_ACQUIRE))
		start();
	note_slot(addr, len, slot_gpa);
	add_gaps(addr, len, slot_gpa);
	pthread_mutex_unlock(&ram->change_lock);
	preload_leave();
	errno = saved;
}

void ram_slot_gone(uint64_t slot_gpa)
{
	pthread_mutex_lock(&ram->lock);
	for (unsigned int i = 0; i < ram->count; i++)
		if (ram->region[i].slot_gpa == slot_gpa)
			ram->region[i].slot_gpa = RAM_NO_SLOT;
	pthread_mutex_unlock(&ram->lock);
}

bool ram_file_span(dev_t dev, ino_t ino, uint64_t offset, uint64_t len, unsigned int *index,
		   uint64_t *start, void **addr, size_t *bytes)
{
	uint64_t last = len > UINT64_MAX - offset ? UINT64_MAX : offset + len - 1;
	bool found = false;

	if (!len)
		return false;
	pthread_mutex_lock(&ram->lock);
	while (*index < ram->count && !found) {
		const struct region *region = &ram->region[(*index)++];
		uint64_t from = region->backing.offset, to = from + region_bytes(region) - 1;

		if (!region->backing.shared || region->backing.ino != ino ||
		    region->backing.dev != dev || from > last || to < offset)
			continue;
		from = offset > from ? offset : from;
		to = last < to ? last : to;
		*start = from;
		*addr = (void *)(region->backing.first + (from - region->backing.offset));
		*bytes = to - from + 1;
		found = true;
	}
	pthread_mutex_unlock(&ram->lock);
	return found;
}

bool ram_has_file(dev_t dev, ino_t ino, uint64_t offset, uint64_t len)
{
	unsigned int index = 0;
	uint64_t start;
	size_t bytes;
	void *addr;

	return ram_file_span(dev, ino, offset, len, &index, &start, &addr, &bytes);
}

unsigned int ram_list(struct region *regions)
{
	unsigned int count;

	pthread_mutex_lock(&ram->lock);
	count = ram->count;
	memcpy(regions, ram->region, count * sizeof(*regions));
	pthread_mutex_unlock(&ram->lock);
	return count;
}

uint64_t ram_bytes(void)
{
	uint64_t bytes = 0;

	pthread_mutex_lock(&ram->lock);
	for (unsigned int i = 0; i < ram->count; i++)
		bytes += region_bytes(&ram->region[i]);
	pthread_mutex_unlock(&ram->lock);
	return bytes;
}
