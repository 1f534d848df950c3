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
 *	shadow_ahead.c		neighbours of the page that a fault was about
 *	shadow_root.c		loads of CR3
 *	shadow_write.c		writes of the guest to its tables, emulated
 *	shadow_sync.c		leaf tables that the guest writes to by itself
 *	shadow_track.c		who has to see writes; what was written, what was used
 *	shadow_ledger.c		pages that are given away
 *	shadow_walk.c		what a processor would find
 *	shadow_choice.c		shadow or nested, by what each would cost
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
#include <string.h>

#include "../guest_walk.h"
#include "shadow_types.h"

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

/* Add what a vCPU has done for its root to what others have. It has one. */
void shadow_settle(struct mv_shadow_vcpu *vcpu);

/* How often backing was declared void. */
MV_INLINE uint32_t shadow_zaps(const struct mv_shadow *s)
{
	return __atomic_load_n(&s->zaps, __ATOMIC_SEQ_CST);
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

	return &slot->frames[level][(gpa >> shift) - (slot->first_gpa >> shift)];
}

MV_INLINE bool shadow_slot_holds(const struct shadow_slot *slot, uint64_t gpa)
{
	return gpa >= slot->first_gpa && gpa <= slot->last_gpa;
}

/* Where this process has an address of a slot. */
MV_INLINE void *shadow_host_address(const struct shadow_slot *slot, uint64_t gpa)
{
	return (void *)(slot->mapped + gpa);
}

/* The frame of the 4 KiB page that a base is in; one is shared by others outside all slots. */
struct shadow_frame *shadow_frame_of_base(struct mv_shadow *s, uint64_t base);

/* Until the lock, which somebody has, is had. */
void shadow_lock_slowly(struct shadow_frame *frame);

/*
 * Spin until the lock is had. Held for a bounded number of steps, never two at once, and nobody
 * who has one waits for anything: so they may be taken in a read section.
 */
MV_INLINE void shadow_lock(const struct mv_shadow *s, struct shadow_frame *frame)
{
	/* Acquire pairs with the release in shadow_unlock(). */
	if (mv_unlikely(__atomic_fetch_or(&frame->word, SHADOW_LOCK, __ATOMIC_ACQUIRE) &
			SHADOW_LOCK))
		shadow_lock_slowly(frame);
}

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

	return (word & SHADOW_TRACKERS) || ((word & SHADOW_TABLES) && !(word & SHADOW_UNSYNC));
}

MV_INLINE bool shadow_is_logging(const struct shadow_slot *slot)
{
	return __atomic_load_n(&slot->logging, __ATOMIC_SEQ_CST);
}

/* Guest memory has been written to, other than by a processor that walks the shadow. */
MV_INLINE void shadow_log_write(const struct shadow_slot *slot, struct shadow_frame *frame)
{
	if (mv_unlikely(shadow_is_logging(slot)))
		__atomic_fetch_or(&frame->word, SHADOW_DIRTY, __ATOMIC_SEQ_CST);
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
MV_INLINE struct shadow_page *shadow_child(const struct mv_shadow *s,
					   const struct shadow_page *page, unsigned int index,
					   uint64_t entry)
{
	uint64_t number = shadow_note(page, index);
	struct shadow_page *child;

	if (!number || number > s->budget)
		return NULL;
	child = &s->pages[number];
	/* The note may be another entry's, a moment earlier or later: the table decides. */
	return shadow_phys(s, child) == mv_entry_table(s->format, entry) ? child : NULL;
}

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
 * @ahead:    no access is being served: the page is mapped for one that may come
 * @origin:   see above
 * @sample:   of the granules' sequences; see shadow_sample()
 * @zaps:     mv_shadow.zaps, before the backing was asked for
 */
struct shadow_leaf {
	struct shadow_page *page;
	unsigned int index;
	const struct shadow_slot *slot;
	uint64_t note;
	uint64_t hpa;
	uint32_t attr;
	bool write;
	bool ahead;
	struct shadow_origin origin;
	uint64_t sample;
	uint32_t zaps;
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

/* Clear all signs that a frame was used, under the lock. Return: whether there were any. */
bool shadow_age_locked(struct mv_shadow *s, struct shadow_frame *frame);

/* Unlink a page from up to @most parents; under its frame's lock. Return: whether none is left. */
bool shadow_unlink_locked(struct mv_shadow *s, struct shadow_page *page, unsigned int most);

/*
 * The sum of the sequences of the granules that a page of a level touches: it changes whenever one
 * of them does, since they only grow. False where a revoke runs.
 */
bool shadow_sample_large(const struct mv_shadow *s, const struct shadow_slot *slot,
			 unsigned int level, uint64_t gpa, uint64_t *sum);

MV_INLINE bool shadow_sample(const struct mv_shadow *s, const struct shadow_slot *slot,
			     unsigned int level, uint64_t gpa, uint64_t *sum)
{
	if (level > 1)
		return shadow_sample_large(s, slot, level, gpa, sum);
	*sum = mv_granule_sample(slot->region, (gpa - slot->first_gpa) >> MV_PAGE_SHIFT);
	return !(*sum & MV_REVOKES_RUNNING);
}

/* --- pages: found, made, killed ------------------------------------------------------------- */

/* The live page of a key, or NULL. Under the lock of @frame, which is its base's. */
struct shadow_page *shadow_find(const struct mv_shadow *s, const struct shadow_frame *frame,
				const struct shadow_key *key);

MV_INLINE bool shadow_has_key(const struct shadow_page *page, const struct shadow_key *key)
{
	if (page->base != key->base || page->role.word != key->role.word)
		return false;
	return mv_likely(!key->pdpte) || !memcmp(page->pdpte, key->pdpte, sizeof(page->pdpte));
}

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

/*
 * The page at an address is about to have writes seen: large pages around it are taken apart, and
 * stay so until the other call. Return: what to flush up to, or 0. Takes locks.
 */
uint64_t shadow_break_up_around(struct mv_shadow *s, uint64_t gpa);
void shadow_let_grow_around(struct mv_shadow *s, uint64_t gpa);

int shadow_pages_init(struct mv_shadow *s);
void shadow_pages_finish(struct mv_shadow *s);

#define SHADOW_LOW_LEAST 8

/* Fewer pages in the pool are few; and so many are brought back at once. */
MV_INLINE uint32_t shadow_low(const struct mv_shadow *s)
{
	uint32_t low = s->budget / 16;

	return low > SHADOW_LOW_LEAST ? low : SHADOW_LOW_LEAST;
}

/* How many are in the pool. */
uint32_t shadow_left(struct mv_shadow *s);

/* Tell the VMM, once until it has brought some back. Context: no lock. */
void shadow_tell_short(struct mv_shadow *s);

/*
 * Kill the coldest pages, and bury them. Context: no lock, no read section; sleeps.
 * Return: how many came back.
 */
unsigned int shadow_reclaim_now(struct mv_shadow *s);

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
	const void *at;			/* where the last entry was read */
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

#define SHADOW_LINE 16 /* entries in a cache line, at most */

/**
 * struct shadow_line - the entries around the one that a walk ended with
 * @ready:  those that may be mapped ahead, as bits
 * @first:  number of the first in a page of ours
 * @origin: of all of them
 */
struct shadow_line {
	unsigned int ready;
	unsigned int first;
	struct shadow_origin origin;
	uint64_t entry[SHADOW_LINE];
};

/* Read the line of a walk that was OK; touches guest memory. */
void shadow_look_ahead(const struct mv_shadow_vcpu *vcpu, const struct shadow_seen *seen,
		       struct shadow_line *line);

/* Map those neighbours of an entry of a page that are ready. In a read section. */
void shadow_map_ahead(struct mv_shadow_vcpu *vcpu, const struct shadow_line *line,
		      struct shadow_page *page, const struct shadow_slot *slot);

/*
 * What a leaf may grant, of what the guest's entries do. Return: false where the host has no way to
 * say it.
 */
bool shadow_rights(const struct mv_shadow_vcpu *vcpu, unsigned int access, uint32_t granted,
		   uint32_t *attr);

/* What stands behind a page of a slot. In a read section. Return: as ops->resolve. */
int shadow_resolve(const struct mv_shadow *s, const struct shadow_slot *slot, uint64_t gpa,
		   unsigned int access, struct mv_shadow_backing *backing);

/* The key of the root of the vCPU's mode. */
void shadow_root_key(const struct mv_shadow *s, const struct mv_paging *paging,
		     union shadow_role mode, struct shadow_key *key);

extern const struct mv_view_ops shadow_view_ops;

#endif /* MV_SHADOW_INTERNAL_H */
