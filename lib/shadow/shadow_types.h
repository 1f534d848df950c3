/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What lib/shadow keeps: frames, shadow pages, roles, the object and its vCPUs. Who may touch what
 * is said with each; docs/locking.md, "Shadow", has the orders and what pairs with what.
 *
 * What does not belong here: what is done with them (shadow_internal.h).
 */
#ifndef MV_SHADOW_TYPES_H
#define MV_SHADOW_TYPES_H

#include <memvirt/shadow.h>

#include "../format.h"
#include "../region.h"

#define SHADOW_ENTRIES	   512
#define SHADOW_TABLE_BYTES 4096
#define SHADOW_FRAMES	   MV_BITS(51, 12) /* of a note: the guest page */
#define SHADOW_LARGEST	   3		   /* level of the largest page */
#define SHADOW_SIZES	   (SHADOW_LARGEST + 1)

/*
 * Entries that are not present: being installed, by the one who has the lock of what it is to lead
 * to; and the same, but it does not come about, or is just leaving its chain. The address bits
 * are all ones: no frame stands in a not-present entry (L1TF).
 */
#define SHADOW_RESERVED	 (SHADOW_FRAMES | MV_BIT(1))
#define SHADOW_CANCELLED (SHADOW_FRAMES | MV_BIT(1) | MV_BIT(2))

/**
 * struct shadow_frame - what is recorded of a guest page, or of 2 MiB or 1 GiB of them
 * @word:   SHADOW_LOCK and what it counts; changed by compare-exchange
 * @chain:  entries that map it whole, in one piece. Under the lock
 * @pages:  4 KiB: first of the shadow pages that stand for it. Changed under the lock, read in
 *          read sections too. Larger: how many shadow pages and trackers are about pages inside
 * @writes: 4 KiB: raised after each write that the guest makes through us, and before what was
 *          made from the page is looked at again. Atomic
 * @stale:  mv_shadow.gone when a right to write went last: until a flush has passed that, some
 *          processor may still write. Under the lock
 */
struct shadow_frame {
	uint32_t word;
	uint32_t chain;
	uint32_t pages;
	uint32_t writes;
	uint32_t stale;
};

#define SHADOW_LOCK	0x00000001u
#define SHADOW_UNSYNC	0x00000002u /* the guest may write: its shadow pages follow at flushes */
#define SHADOW_DIRTY	0x00000004u /* written to since the last harvest, or while none is wanted */
#define SHADOW_USED	0x00000008u /* an entry had accessed when it went */
#define SHADOW_TRACKER	0x00000010u /* somebody who wants to see each write; counts */
#define SHADOW_TRACKERS 0x0000fff0u
#define SHADOW_TABLE	0x00010000u /* one shadow page of the guest's table here; counts */
#define SHADOW_TABLES	0xffff0000u

/** struct shadow_link - neighbours in a chain; see shadow_id() */
struct shadow_link {
	uint32_t next;
	uint32_t prev; /* 0: the chain's head points here */
};

/**
 * union shadow_role - what a shadow page is made for, besides which table
 * @level:    its own, in the host's table
 * @quadrant: which part of the guest's table: 32-bit tables have more entries than ours, and of a
 *            4-level root under a 5-level one each half has its own
 * @top:      stands above the guest's root (or for the PDPTEs, which are registers)
 * @direct:   the base is the first page that it maps: a part of a large guest page
 * @dirty:    of a direct page: the guest's large page is. Without it nothing is writable, also not
 *            for a supervisor with CR0.WP = 0
 * @write, @user, @exec: what the guest's entries above grant; of a direct page: all together
 * @format:   enum mv_format_id of the guest, MV_FORMATS for none
 * @wp, @nxe: CR0.WP, EFER.NXE
 * @smep, @smap: as in CR4 where CR0.WP = 0: user pages may then be disguised as a supervisor's
 * @width, @cpu: struct mv_cpu_model: they decide which bits are reserved
 */
union shadow_role {
	uint64_t word;
	struct {
		uint64_t level : 3;
		uint64_t quadrant : 2;
		uint64_t top : 1;
		uint64_t direct : 1;
		uint64_t dirty : 1;
		uint64_t write : 1;
		uint64_t user : 1;
		uint64_t exec : 1;
		uint64_t format : 4;
		uint64_t wp : 1;
		uint64_t nxe : 1;
		uint64_t smep : 1;
		uint64_t smap : 1;
		uint64_t width : 6;
		uint64_t cpu : 3;
	};
};

/**
 * struct shadow_key - which shadow page
 * @base:  guest-physical address of the guest's table; direct: of the first page that is mapped
 * @role:  see above
 * @pdpte: top pages of PAE paging: the four PDPTEs; NULL otherwise
 */
struct shadow_key {
	uint64_t base;
	union shadow_role role;
	const uint64_t *pdpte;
};

enum shadow_state {
	SHADOW_FREE,
	SHADOW_LIVE,
	SHADOW_DEAD, /* nobody finds it any more; processors and readers may still be in it */
};

/**
 * struct shadow_page - one page of tables, and what is known of it
 * @table:   what processors walk; each entry atomic
 * @notes:   by entry, while it leads anywhere: a leaf's guest page, at level 1 in the guest's
 *           entry as it was; a link's shadow page, by number. Written by whoever has reserved
 *           the entry, or under the lock of what it leads to
 * @links:   by entry: its place in the chain of what it leads to; under that lock
 *
 * Constant while it lives: @base, @role, @pdpte, @frame. Numbers and pages belong together for
 * good, so that a reader who is late finds another page, never none.
 * Under the frame's lock: @state, @next (both read without), @parents, @roots.
 * Atomic: @need, @used, @flood, @cost. Under pool_lock: @pool.
 *
 * @frame:   of the page that @base is in
 * @next:    in frame->pages
 * @parents: chain of the entries that link it
 * @roots:   vCPUs that have it loaded
 * @need:    a flush has to have passed this before it may be linked (alive) or used again (dead)
 * @used:    a fault came through since the clock passed
 * @flood:   writes to its guest page since a fault came through
 * @cost:    while it was a root: what vCPUs had to do for it, but for what they have not settled
 */
struct shadow_page {
	uint64_t *table;
	uint64_t *notes;
	struct shadow_link *links;
	uint64_t base;
	union shadow_role role;
	uint64_t pdpte[4];
	struct shadow_frame *frame;
	uint32_t state;
	uint32_t next;
	uint32_t parents;
	uint32_t roots;
	uint64_t need;
	uint32_t used;
	uint32_t flood;
	uint32_t pool;
	struct mv_shadow_cost cost;
};

/**
 * struct shadow_slot - a region, held
 * @first_gpa, @last_gpa: of it, here too: each step of a walk asks
 * @mapped:  what to add to an address for where this process has it
 * @frames:  by level
 * @logging: the first write to each page is to be seen. Atomic
 */
struct shadow_slot {
	struct mv_region *region;
	uint64_t first_gpa, last_gpa;
	uintptr_t mapped;
	struct shadow_frame *frames[SHADOW_SIZES];
	uint32_t logging;
};

#define SHADOW_UNSYNCS	    256 /* tables out of sync at once; a power of two */
#define SHADOW_UNSYNC_TAKEN 1	/* in @table */

/**
 * struct shadow_unsync - a place for a table that is out of sync. Atomic. Those that are taken are
 * found by mv_shadow.unsync_taken
 * @table: its address and SHADOW_UNSYNC_TAKEN, or 0. Becomes 0 by the owner only
 * @owned: somebody protects it again
 * @quiet: comparisons in a row that found nothing
 */
struct shadow_unsync {
	uint64_t table;
	uint32_t owned;
	uint32_t quiet;
};

#define SHADOW_STRAYS 64 /* frames for bases outside all regions; a power of two */

/**
 * struct mv_shadow - a shadow
 *
 * Constant once made: all up to @pages. Atomic: all up to @unsync.
 * Under pool_lock: @free, @unmade (no memory yet), @left (of both), @dead, and page->pool.
 *
 * @gone:    entries that were taken away so far, by number
 * @flushed: that processors have forgotten, at least
 * @split:   the last of @gone that was a part of a larger page of the guest's: an INVLPG has to
 *           reach all parts of a page, but executed by the processor it reaches one
 */
struct mv_shadow {
	struct mv_view view;
	struct mv_memory *memory;
	struct mv_platform platform;
	const struct mv_format *format;
	struct mv_rules rules;
	struct mv_shadow_ops ops;
	void *ctx;
	uint32_t features;
	int node;
	uint32_t budget;
	unsigned int slot_count;
	unsigned int slot_room;
	struct shadow_slot *slots; /* by address */
	struct shadow_frame strays[SHADOW_STRAYS];
	struct shadow_page *pages; /* by number, from 1 */

	uint64_t gone __attribute__((aligned(64)));
	uint64_t flushed __attribute__((aligned(64)));
	uint64_t split;
	uint32_t hand;
	uint32_t zaps; /* calls of mv_shadow_zap(): what was resolved before is void */
	uint32_t told; /* that pages are short */
	uint64_t vcpus[MV_SHADOW_VCPUS / 64];
	uint64_t running[MV_SHADOW_VCPUS / 64];

	struct mv_shadow_stats stats; /* but for @taken, which is @gone */
	uint64_t unsync_taken[SHADOW_UNSYNCS / 64] __attribute__((aligned(64)));
	struct shadow_unsync unsync[SHADOW_UNSYNCS];

	uint32_t pool_lock __attribute__((aligned(64)));
	uint32_t free;
	uint32_t unmade;
	uint32_t left;
	uint32_t dead;
};

#define SHADOW_CACHE MV_LEVEL_MAX /* pages that one fault may need */

/**
 * struct mv_shadow_vcpu - a virtual processor; used by one thread at a time
 * @mode:  the fields of its roles that registers decide
 * @cache: numbers of pages that it has taken to make shadow pages of
 * @cost:  what it has done for its root and not added to root->cost yet: a word that all vCPUs
 *         write to at each fault would be in no cache for long
 * @copy:  of a table of the guest
 */
struct mv_shadow_vcpu {
	struct mv_shadow *shadow;
	unsigned int number;
	struct mv_paging paging;
	union shadow_role mode;
	struct shadow_page *root;	  /* NULL before the first load */
	uint64_t faults[MV_SHADOW_KINDS]; /* written here, read by anyone */
	unsigned int cached;
	uint32_t cache[SHADOW_CACHE];
	struct mv_shadow_cost cost;
	uint64_t copy[SHADOW_ENTRIES];
};

#endif /* MV_SHADOW_TYPES_H */
