/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which memory of this process is the guest's: found when the VMM maps it or gives it to
 * KVM, given up when the VMM unmaps it, and lent out where the VMM, the kernel or another
 * process needs it whole.
 *
 * Under TCG nobody says at which guest address a mapping appears, so the ledger gets
 * addresses of our own making; those that KVM names are only kept to be shown.
 *
 * What does not belong here: how memory is managed (engine.h, the pager).
 */
#ifndef PRELOAD_RAM_H
#define PRELOAD_RAM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "memvirt/preload/backing.h"
#include "memvirt/preload/ranges.h"

/*
 * Mappings of a pattern, not named by KVM, count as guest memory from here. QEMU's video
 * memory is 16 MiB unless told otherwise, and no guest is as small.
 */
#define RAM_MAPPING_MIN ((16UL << 20) + 1)
/* Slots below hold firmware. */
#define RAM_SLOT_MIN   (1UL << 20)
#define RAM_REASON_MAX 192
#define RAM_RESERVED   64
#define RAM_NO_SLOT    UINT64_MAX

/**
 * struct region - one stretch of guest memory
 * @backing:   where it is and what is behind it; its descriptor is ours
 * @gpa:       address in the ledger
 * @slot_gpa:  where the guest sees its first byte, as KVM was told; RAM_NO_SLOT for unknown
 * @in_memory: the ledger has it
 * @managed:   the pager has it
 * @lent:      a userfaultfd of the VMM's own has it
 * @shared:    others reach it outside this mapping: never to be managed again
 * @dontfork:  a forked child does not get it
 * @reason:    why it is not managed
 */
struct region {
	struct backing backing;
	uint64_t gpa;
	uint64_t slot_gpa;
	bool in_memory;
	bool managed;
	bool lent;
	bool shared;
	bool dontfork;
	char reason[RAM_REASON_MAX];
};

/**
 * struct ram - all of it
 *
 * @change_lock is held while regions come, go or change hands, which may take seconds.
 * Under it: @next_gpa, @refusal (why nothing at all is managed; empty where all is well).
 * @lock is held for a moment, by whoever changes or reads @region[], @count, @reserved[].
 * Order: change_lock, lock.
 */
struct ram {
	pthread_mutex_t change_lock;
	uint64_t next_gpa;
	char refusal[RAM_REASON_MAX];

	pthread_mutex_t lock;
	struct region region[RANGES_MAX]; /* sorted by address */
	unsigned int count;
	struct {
		uintptr_t first;
		uintptr_t last;
	} reserved[RAM_RESERVED]; /* address space that was mapped without access */
	unsigned int reserved_next;
};

/** ram_reserve() - remember address space that was reserved, to be filled later */
void ram_reserve(const void *addr, size_t len);

/** ram_is_reserved() - whether a mapping lies within such a reservation */
bool ram_is_reserved(const void *addr, size_t len);

/**
 * ram_found() - this is guest memory
 * @addr:     first byte
 * @len:      bytes
 * @slot_gpa: guest address that KVM was told, or RAM_NO_SLOT
 *
 * What of it is known already is only noted down again.
 *
 * Context: the thread that mapped it, after the mapping stands. Sleeps. Keeps errno.
 */
void ram_found(void *addr, size_t len, uint64_t slot_gpa);

/** ram_slot_gone() - KVM does not show this memory at @slot_gpa any more */
void ram_slot_gone(uint64_t slot_gpa);

/** struct ram_leave - regions that are on their way out while a system call is made */
struct ram_leave {
	unsigned int count;
	struct {
		uintptr_t first;
		uintptr_t last;
		uint64_t slot_gpa;
	} span[RANGES_MAX];
};

/**
 * ram_leave() - mappings are about to change: give up every region that they touch
 * @leave: filled, for ram_return()
 * @addr:  where
 * @len:   bytes
 * @drop:  what lies wholly inside is about to vanish, so its content may be dropped; else
 *         all content is brought back first
 *
 * Holds the change lock until ram_return(). Keeps errno.
 */
void ram_leave(struct ram_leave *leave, const void *addr, size_t len, bool drop);

/** ram_leave_file() - as ram_leave(), for what lies behind @offset of a file */
void ram_leave_file(struct ram_leave *leave, dev_t dev, ino_t ino, uint64_t offset);

/**
 * ram_return() - take in again what is still mapped of the regions that left
 * @leave: filled by ram_leave()
 * @gone:  what the call has unmapped: the library or another thread may have mapped
 *         something of its own there already
 * @len:   bytes of that; 0 for nothing
 *
 * Keeps errno.
 */
void ram_return(struct ram_leave *leave, const void *gone, size_t len);

/**
 * ram_file_span() - where a stretch of a file is seen as guest memory
 * @dev:    of the file
 * @ino:    of the file
 * @offset: first byte
 * @len:    bytes
 * @index:  in: where to begin, 0 at first; out: where to go on
 * @start:  set to its offset in the file
 * @addr:   set to its first byte
 * @bytes:  set to its length
 *
 * Return: false where there is no further one.
 */
bool ram_file_span(dev_t dev, ino_t ino, uint64_t offset, uint64_t len, unsigned int *index,
		   uint64_t *start, void **addr, size_t *bytes);

/** ram_has_file() - whether any of a stretch of a file is seen as guest memory */
bool ram_has_file(dev_t dev, ino_t ino, uint64_t offset, uint64_t len);

/**
 * ram_file_of() - whether a descriptor's file is behind guest memory
 * @fd:  the descriptor
 * @dev: set where it is
 * @ino: set where it is
 */
bool ram_file_of(int fd, dev_t *dev, ino_t *ino);

/**
 * ram_share_file() - someone is about to see a file behind guest memory otherwise than
 * through the mapping that is managed
 * @why: who; holds the whole VM with MV_PAGER_HOLD_SHARED
 *
 * All its content is back when this returns, for good.
 */
void ram_share_file(dev_t dev, ino_t ino, const char *why);

/** ram_share_all() - the same for all guest memory */
void ram_share_all(const char *why);

/** ram_lend() - a userfaultfd of the VMM's own is about to register a range */
void ram_lend(const void *addr, size_t len);

/** ram_take_back() - it has unregistered a range: manage it again once nothing is lent */
void ram_take_back(const void *addr, size_t len);

/** ram_fork_advice() - whether forked children get a range, as madvise() was told */
void ram_fork_advice(const void *addr, size_t len, bool dontfork);

/** ram_forks() - whether a forked child would get memory that is managed */
bool ram_forks(void);

/**
 * ram_close() - bring everything back, close the engine, and manage nothing from now on
 * @why: for query-info; also before there is any guest memory
 *
 * Return: 0; -ENOMEM: the host has no room for it, and all is managed as before.
 */
int ram_close(const char *why);

/** ram_list() - a copy of the regions; @regions has room for RANGES_MAX. Return: how many. */
unsigned int ram_list(struct region *regions);

/** ram_bytes() - size of all regions */
uint64_t ram_bytes(void);

/* Between ram.c and ram_lend.c; under the change lock. */

/* Let the pager have a region, or note why not. */
void region_attach(struct region *region);
/* Take a region from the pager. Return: as mv_pager_detach(). */
int region_detach(struct region *region, const char *reason);
/* Take a region off the list; closes its descriptor. */
void region_remove(unsigned int index);
/* Make regions of what is mapped in a range. */
void ram_add(uintptr_t first, uintptr_t last, uint64_t slot_gpa);
/* ram_share_file() for who holds the change lock. */
void share_file(dev_t dev, ino_t ino, const char *why);
/* Show the interposed functions the list as it is. */
void ram_publish(void);

#endif /* PRELOAD_RAM_H */
