/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the parts of lib/shadow share: frames, shadow pages, roles, and the rules by which several
 * vCPUs change them at once. docs/locking.md, "Shadow", has the orders and what pairs with what.
 *
 *	shadow.c		the object, its vCPUs, flushes
 *	shadow_frame.c		the record of each guest page; its lock
 *	shadow_entry.c		one entry of a shadow page: mapped, linked, taken away
 *	shadow_page.c		shadow pages: found, made, killed, buried
 *	shadow_reclaim.c	which of them has to go
 *	shadow_plan.c		which shadow pages stand for a walk of the guest's tables
 *	shadow_fault.c		a fault, from the guest's walk to the entry
 *	shadow_root.c		loads of CR3
 *	shadow_write.c		writes of the guest to its tables, emulated
 *	shadow_sync.c		leaf tables that the guest writes to by itself
 *	shadow_ledger.c		pages that are given away
 *	shadow_walk.c		what a processor would find
 *
 * Chains. An entry that maps a guest page, or links a shadow page, is on the chain of what it leads
 * to, so that it can be found from there. A chain runs through the shadow pages themselves, each
 * of which has a link (two numbers) for each entry. So an entry costs 8 bytes whether or not it is
 * used, and in return no fault ever allocates for a chain, and an entry leaves it in constant
 * time, however often a hostile guest maps one page. (Lists of blocks would take less where tables
 * are sparse, and need both.)
 *
 * What does not belong here: the guest's walk (guest_walk.h), what an entry means (format.h).
 */
#ifndef MV_SHADOW_INTERNAL_H
#define MV_SHADOW_INTERNAL_H

#include <errno.h>

#include <memvirt/shadow.h>

#include "../format.h"
#include "../guest_walk.h"
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
 *          read sections too. Larger: how many shadow pages stand for tables inside
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

#define SHADOW_LOCK   0x00000001u
#define SHADOW_UNSYNC 0x00000002u /* the guest may write: its shadow pages follow at flushes */
#define SHADOW_TABLE  0x00010000u /* one shadow page of the guest's table here; counts */
#define SHADOW_TABLES 0xffff0000u

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
 * Atomic: @need, @used, @flood. Under pool_lock: @pool.
 *
 * @frame:   of the page that @base is in
 * @next:    in frame->pages
 * @parents: chain of the entries that link it
 * @roots:   vCPUs that have it loaded
 * @need:    a flush has to have passed this before it may be linked (alive) or used again (dead)
 * @used:    a fault came through since the clock passed
 * @flood:   writes to its guest page since a fault came through
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
};

/** struct shadow_slot - a region, held, and its frames by level */
struct shadow_slot {
	struct mv_region *region;
	struct shadow_frame *frames[SHADOW_SIZES];
};

#define SHADOW_UNSYNCS	    256 /* tables out of sync at once; a power of two */
#define SHADOW_UNSYNC_TAKEN 1	/* in @table */

/**
 * struct shadow_unsync - a place for a table that is out of sync. Atomic
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
 * Under pool_lock: @free, @unmade (no memory yet), @dead, and page->pool.
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
	uint64_t vcpus[MV_SHADOW_VCPUS / 64];
	uint64_t running[MV_SHADOW_VCPUS / 64];

	struct mv_shadow_stats stats; /* but for @taken, which is @gone */
	uint32_t unsync_count __attribute__((aligned(64)));
	struct shadow_unsync unsync[SHADOW_UNSYNCS];

	uint32_t pool_lock __attribute__((aligned(64)));
	uint32_t free;
	uint32_t unmade;
	uint32_t dead;
};

#define SHADOW_CACHE MV_LEVEL_MAX /* pages that one fault may need */

/**
 * struct mv_shadow_vcpu - a virtual processor; used by one thread at a time
 * @mode:  the fields of its roles that registers decide
 * @cache: numbers of pages that it has taken to make shadow pages of
 * @copy:  of a table of the guest
 */
struct mv_shadow_vcpu {
	struct mv_shadow *shadow;
	unsigned int number;
	struct mv_paging paging;
	union shadow_role mode;
	struct shadow_page *root; /* NULL before the first load */
	uint64_t faults[MV_SHADOW_KINDS]; /* written here, read by anyone */
	unsigned int cached;
	uint32_t cache[SHADOW_CACHE];
	uint64_t copy[SHADOW_ENTRIES];
};

/* --- the object -------------------------------------------------------------------------- */

MV_INLINE void shadow_enter(const struct mv_shadow *s)
{
	s->platform.ops->read_enter(s->platform.ctx);
}

MV_INLINE void shadow_leave(const struct mv_shadow *s)
{
	s->platform.ops->read_leave(s->platform.ctx);
}

/*
 * Between two looks at a lock that is held for a few steps, also in a read section, where the
 * platform's patience, which may sleep, must not be asked for.
 */
MV_INLINE void shadow_pause(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#endif
}

MV_INLINE void shadow_count(uint64_t *number, uint64_t more)
{
	__atomic_fetch_add(number, more, __ATOMIC_RELAXED);
}

/* Out of read sections. */
MV_INLINE void shadow_relax(const struct mv_shadow *s, unsigned int turns)
{
	s->platform.ops->relax(s->platform.ctx, turns);
}

/*
 * See to it that no processor uses what has gone before the call. Calls ops->flush where that is
 * not so yet. Context: no lock, no read section; may sleep.
 */
void shadow_flush(struct mv_shadow *s);

/* Account for what has just been taken away. Return: the number up to which to flush for it. */
MV_INLINE uint64_t shadow_gone(struct mv_shadow *s)
{
	return __atomic_add_fetch(&s->gone, 1, __ATOMIC_SEQ_CST);
}

/* Whether processors have forgotten what went up to a number. */
MV_INLINE bool shadow_flushed(const struct mv_shadow *s, uint64_t number)
{
	return __atomic_load_n(&s->flushed, __ATOMIC_SEQ_CST) >= number;
}

/* --- frames --------------------------------------------------------------------------------- */

int shadow_frames_init(struct mv_shadow *s);
void shadow_frames_finish(struct mv_shadow *s);

/* The slot that holds an address, or NULL. */
const struct shadow_slot *shadow_slot_at(const struct mv_shadow *s, uint64_t gpa);

/* The frame, of a page of a level, that holds an address of the slot. */
MV_INLINE struct shadow_frame *shadow_frame_in(const struct mv_shadow *s,
					       const struct shadow_slot *slot, unsigned int level,
					       uint64_t gpa)
{
	unsigned int shift = s->format->shift[level];

	return &slot->frames[level][(gpa >> shift) - (slot->region->first_gpa >> shift)];
}

/* The frame of the 4 KiB page that a base is in; one is shared by others outside all slots. */
struct shadow_frame *shadow_frame_of_base(struct mv_shadow *s, uint64_t base);

/*
 * Spin until the lock is had. Held for a bounded number of steps, never two at once, and nobody
 * who has one waits for anything: so they may be taken in a read section.
 */
void shadow_lock(const struct mv_shadow *s, struct shadow_frame *frame);

MV_INLINE void shadow_unlock(struct shadow_frame *frame)
{
	/* Release pairs with the acquire in shadow_lock(). */
	__atomic_fetch_and(&frame->word, ~SHADOW_LOCK, __ATOMIC_RELEASE);
}

MV_INLINE uint32_t shadow_writes(const struct shadow_frame *frame)
{
	return __atomic_load_n(&frame->writes, __ATOMIC_SEQ_CST);
}

/* Atomic also under the lock: who waits for it writes to the word. */
MV_INLINE uint32_t shadow_word(const struct shadow_frame *frame)
{
	return __atomic_load_n(&frame->word, __ATOMIC_SEQ_CST);
}

/* Whether the guest must not be let to write to a page. Under the lock. */
MV_INLINE bool shadow_is_tracked(const struct shadow_frame *frame)
{
	uint32_t word = shadow_word(frame);

	return (word & SHADOW_TABLES) && !(word & SHADOW_UNSYNC);
}

/* Whether some processor may still write to a page whose entries all are read-only by now. */
MV_INLINE bool shadow_is_stale(const struct mv_shadow *s, const struct shadow_frame *frame)
{
	uint32_t flushed = (uint32_t)__atomic_load_n(&s->flushed, __ATOMIC_SEQ_CST);

	return frame->stale && (int32_t)(frame->stale - flushed) > 0;
}

/* --- shadow pages and their entries --------------------------------------------------------- */

MV_INLINE uint32_t shadow_number(const struct mv_shadow *s, const struct shadow_page *page)
{
	return (uint32_t)(page - s->pages);
}

/* An entry by number; never 0. */
MV_INLINE uint32_t shadow_id(const struct mv_shadow *s, const struct shadow_page *page,
			     unsigned int index)
{
	return shadow_number(s, page) * SHADOW_ENTRIES + index;
}

MV_INLINE struct shadow_page *shadow_id_page(const struct mv_shadow *s, uint32_t id)
{
	return &s->pages[id / SHADOW_ENTRIES];
}

MV_INLINE uint64_t shadow_load(const struct shadow_page *page, unsigned int index)
{
	return __atomic_load_n(&page->table[index], __ATOMIC_SEQ_CST);
}

MV_INLINE uint64_t shadow_note(const struct shadow_page *page, unsigned int index)
{
	return __atomic_load_n(&page->notes[index], __ATOMIC_RELAXED);
}

MV_INLINE bool shadow_present(const struct mv_shadow *s, uint64_t entry)
{
	return entry & s->format->present;
}

/* Of a present entry of a shadow page: a page, not a link. */
MV_INLINE bool shadow_is_leaf(const struct mv_shadow *s, unsigned int level, uint64_t entry)
{
	return level == 1 || (entry & s->format->leaf);
}

MV_INLINE bool shadow_is_live(const struct shadow_page *page)
{
	return __atomic_load_n(&page->state, __ATOMIC_SEQ_CST) == SHADOW_LIVE;
}

/* Whether it stands for a table of the guest: what is written there concerns it. */
MV_INLINE bool shadow_of_table(union shadow_role role)
{
	return !role.top && !role.direct;
}

/*
 * Whether a page is alive and of a frame, whose lock the caller has: then it stays so. In this
 * order: a page that is made anew gets its frame before it is alive.
 */
MV_INLINE bool shadow_lives_on(const struct shadow_page *page, const struct shadow_frame *frame)
{
	return shadow_is_live(page) && __atomic_load_n(&page->frame, __ATOMIC_RELAXED) == frame;
}

/* Whether what had to be flushed before it may be linked, or used again, has been. */
MV_INLINE bool shadow_is_clean(const struct mv_shadow *s, const struct shadow_page *page)
{
	return shadow_flushed(s, __atomic_load_n(&page->need, __ATOMIC_RELAXED));
}

/* Physical address of its table; that of nothing where it has none yet. */
MV_INLINE uint64_t shadow_phys(const struct mv_shadow *s, const struct shadow_page *page)
{
	uint64_t *table = __atomic_load_n(&page->table, __ATOMIC_ACQUIRE);

	return (uintptr_t)table - s->platform.direct_map;
}

/* What a present link leads to, or NULL where it has just changed. In a read section. */
struct shadow_page *shadow_child(const struct mv_shadow *s, const struct shadow_page *page,
				 unsigned int index, uint64_t entry);

/**
 * struct shadow_origin - the guest's table that an entry is made from, as it was when read
 * @frame:  of the table; NULL where the entry depends on none
 * @writes: frame->writes before the read
 */
struct shadow_origin {
	struct shadow_frame *frame;
	uint32_t writes;
};

/**
 * struct shadow_leaf - a page to be mapped
 * @page, @index: where; @page is alive, or was in this read section
 * @slot:     of the guest page
 * @note:     see struct shadow_page
 * @hpa:      of the page
 * @attr:     MV_ATTR_…; without MV_ATTR_WRITE where the page is tracked
 * @write:    the access that is being served writes
 * @origin:   see above
 * @sample:   of the granules' sequences; see shadow_sample()
 */
struct shadow_leaf {
	struct shadow_page *page;
	unsigned int index;
	const struct shadow_slot *slot;
	uint64_t note;
	uint64_t hpa;
	uint32_t attr;
	bool write;
	struct shadow_origin origin;
	uint64_t sample;
};

#define SHADOW_TRACKED 1 /* mapped, but not for the write that was wanted */

/*
 * Map a page; whatever else the entry held goes. Context: in a read section.
 * Return: 0; SHADOW_TRACKED; -EAGAIN where something has changed since it was looked at.
 */
int shadow_map(struct mv_shadow *s, const struct shadow_leaf *leaf);

/* Link a shadow page, as above; it has to be alive and flushed for, else -EAGAIN. */
int shadow_link(struct mv_shadow *s, struct shadow_page *page, unsigned int index,
		struct shadow_page *child, const struct shadow_origin *origin);

/* Take an entry away, or keep it from coming about. Return: whether it led anywhere. */
bool shadow_zap(struct mv_shadow *s, struct shadow_page *page, unsigned int index);

/* Take away all entries that map a frame. Return: how many. Takes the lock. */
unsigned int shadow_zap_frame(struct mv_shadow *s, struct shadow_frame *frame);

/* The same, and the right to write only, under the lock. */
unsigned int shadow_zap_locked(struct mv_shadow *s, struct shadow_frame *frame);
void shadow_protect_locked(struct mv_shadow *s, struct shadow_frame *frame);

/* Unlink a page from up to @most parents; under its frame's lock. Return: whether none is left. */
bool shadow_unlink_locked(struct mv_shadow *s, struct shadow_page *page, unsigned int most);

/*
 * The sum of the sequences of the granules that a page of a level touches: it changes whenever one
 * of them does, since they only grow. False where a revoke runs.
 */
bool shadow_sample(const struct mv_shadow *s, const struct shadow_slot *slot, unsigned int level,
		   uint64_t gpa, uint64_t *sum);

/* --- pages: found, made, killed ------------------------------------------------------------- */

/* The live page of a key, or NULL. Under the lock of @frame, which is its base's. */
struct shadow_page *shadow_find(const struct mv_shadow *s, const struct shadow_frame *frame,
				const struct shadow_key *key);

bool shadow_has_key(const struct shadow_page *page, const struct shadow_key *key);

/*
 * Take pages until the cache of the vCPU has @wanted. Context: no lock, no read section; may
 * sleep. Return: 0; -ENOMEM; -EAGAIN where others have them all at this moment.
 */
int shadow_reserve(struct mv_shadow_vcpu *vcpu, unsigned int wanted);

/*
 * See to it that the page of a key exists; made from the vCPU's cache, which has one. What has
 * to be flushed before it may be linked is in page->need. Context: no lock; may sleep.
 * Return: the page, which others may kill at any time after, unless @root: then it counts as
 * loaded once more. NULL where the guest's page is just changing.
 */
struct shadow_page *shadow_make(struct mv_shadow_vcpu *vcpu, const struct shadow_key *key,
				bool root);

/* A vCPU no longer has it loaded. */
void shadow_put_root(struct mv_shadow *s, struct shadow_page *page);

/*
 * Take a page out of use: unlinked, emptied, dead until buried. Nothing is flushed. Context: no
 * lock; a read section is fine. Return: false where it is loaded, or not alive.
 */
bool shadow_kill(struct mv_shadow *s, struct shadow_page *page);

/* Take away all entries of a page. */
void shadow_sweep(struct mv_shadow *s, struct shadow_page *page);

/* Give dead pages back to the pool, after a flush and a grace period. Return: how many. */
unsigned int shadow_bury(struct mv_shadow *s);

/* Give unused pages back at once. */
void shadow_give(struct mv_shadow *s, uint32_t number);

int shadow_pages_init(struct mv_shadow *s);
void shadow_pages_finish(struct mv_shadow *s);

/*
 * The pool is empty: kill the coldest pages, and bury them. Context: no lock, no read section;
 * sleeps. Return: whether pages came back.
 */
bool shadow_reclaim_now(struct mv_shadow *s);

/* --- tables out of sync ----------------------------------------------------------------------- */

/*
 * Let the guest write to a page that is tracked, where only leaf tables are made from it.
 * Under the lock of its frame. Return: false where it may not.
 */
bool shadow_let_write(struct mv_shadow *s, struct shadow_frame *frame, uint64_t gpa);

/*
 * Bring the tables that are out of sync in line with the guest's: all, or the entries that may
 * translate an address. Context: no lock, no read section; sleeps.
 */
void shadow_sync_all(struct mv_shadow_vcpu *vcpu);
void shadow_sync_address(struct mv_shadow_vcpu *vcpu, uint64_t gva);

/* --- walks and plans ----------------------------------------------------------------------- */

/**
 * struct shadow_seen - a guest walk, and of each table that it read the frame before the read
 */
struct shadow_seen {
	struct mv_shadow *shadow;
	const struct shadow_slot *slot; /* of the last one */
	struct shadow_origin origin[MV_LEVEL_MAX];
	struct mv_walk walk;
};

/**
 * struct shadow_plan - the shadow pages through which an address is reached
 * @address: as the host's table sees it
 * @top:     level of the root
 * @bottom:  level of the leaf
 * @key:     by level, @top to @bottom
 * @origin:  by level: of the entry there
 */
struct shadow_plan {
	uint64_t address;
	unsigned int top;
	unsigned int bottom;
	struct shadow_key key[MV_LEVEL_MAX + 1];
	struct shadow_origin origin[MV_LEVEL_MAX + 1];
};

/* The highest level at which the guest's page could be mapped, before anything is resolved. */
unsigned int shadow_leaf_level(const struct mv_shadow *s, const struct mv_walk *walk);

/* Fill a plan for a walk that was OK, its leaf at level @bottom. */
void shadow_plan(const struct mv_shadow_vcpu *vcpu, const struct shadow_seen *seen, uint64_t gva,
		 unsigned int bottom, struct shadow_plan *plan);

/* The key of the root of the vCPU's mode. */
void shadow_root_key(const struct mv_shadow *s, const struct mv_paging *paging,
		     union shadow_role mode, struct shadow_key *key);

extern const struct mv_view_ops shadow_view_ops;

#endif /* MV_SHADOW_INTERNAL_H */
