/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * One entry of a shadow page: mapped, linked, taken away, while other vCPUs do the same.
 *
 * Who installs takes the lock of what the entry is to lead to (a guest page's frame, or the frame
 * of the shadow page's base), reserves the entry, asks whether what it is made from still
 * holds, and makes it real. Who takes away something that is present takes the same lock, found
 * through the entry's note. Who only knows that the entry must not come about, because the guest
 * has changed what it is made from, cancels the reservation, and waits for nobody. All of it is
 * sequentially consistent: of "the guest's entry changes, then the shadow's is looked at" and "the
 * shadow's is reserved, then the guest's is asked" one sees the other.
 *
 * What does not belong here: which entry, and what it says (shadow_plan.c, shadow_fault.c).
 */
#include "shadow_internal.h"

/* --- chains ---------------------------------------------------------------------------------- */

static struct shadow_link *link_of(const struct mv_shadow *s, uint32_t id)
{
	return &shadow_id_page(s, id)->links[id % SHADOW_ENTRIES];
}

static void chain_add(const struct mv_shadow *s, uint32_t *head, uint32_t id)
{
	struct shadow_link *link = link_of(s, id);

	link->next = *head;
	link->prev = 0;
	if (*head)
		link_of(s, *head)->prev = id;
	*head = id;
}

static void chain_take(const struct mv_shadow *s, uint32_t *head, uint32_t id)
{
	const struct shadow_link *link = link_of(s, id);

	if (link->prev)
		link_of(s, link->prev)->next = link->next;
	else
		*head = link->next;
	if (link->next)
		link_of(s, link->next)->prev = link->prev;
}

/* --- entries ------------------------------------------------------------------------------- */

static bool swap(struct shadow_page *page, unsigned int index, uint64_t old, uint64_t entry)
{
	return __atomic_compare_exchange_n(&page->table[index], &old, entry, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Nobody's from here on. */
static void clear(struct shadow_page *page, unsigned int index)
{
	__atomic_store_n(&page->table[index], 0, __ATOMIC_SEQ_CST);
}

/*
 * Take away a present entry, which is on a chain whose lock the caller has. Its link is ours
 * until the entry is clear: so it is not before it has left the chain. Return: what it said.
 */
static uint64_t take(struct mv_shadow *s, struct shadow_page *page, unsigned int index,
		     uint32_t *chain)
{
	uint64_t old = __atomic_exchange_n(&page->table[index], SHADOW_CANCELLED, __ATOMIC_SEQ_CST);

	chain_take(s, chain, shadow_id(s, page, index));
	clear(page, index);
	return old;
}

static void set_note(struct shadow_page *page, unsigned int index, uint64_t note)
{
	__atomic_store_n(&page->notes[index], note, __ATOMIC_RELAXED);
}

static bool origin_holds(const struct shadow_origin *origin)
{
	return !origin->frame || shadow_writes(origin->frame) == origin->writes;
}

/* Reserve an empty entry of a page that is alive, for what the caller has the lock of. */
static bool reserve(struct shadow_page *page, unsigned int index, uint64_t note)
{
	if (!swap(page, index, 0, SHADOW_RESERVED))
		return false;
	set_note(page, index, note);
	return true;
}

/* Asked last, when the entry is reserved: who makes it false looks at the entry afterwards. */
static bool may_install(const struct shadow_page *page, const struct shadow_origin *origin)
{
	return origin_holds(origin) && shadow_is_live(page);
}

/*
 * Make a reserved entry real and put it on a chain; or give the reservation up.
 * Return: whether it is real. Under the lock of the chain.
 */
static bool install(struct mv_shadow *s, struct shadow_page *page, unsigned int index,
		    uint64_t entry, uint32_t *chain, const struct shadow_origin *origin)
{
	/* Before it is real: whoever finds it real finds it on the chain, under the lock. */
	chain_add(s, chain, shadow_id(s, page, index));
	if (may_install(page, origin) && swap(page, index, SHADOW_RESERVED, entry))
		return true;
	chain_take(s, chain, shadow_id(s, page, index));
	clear(page, index);
	return false;
}

/* --- leaves -------------------------------------------------------------------------------- */

static unsigned int leaf_level(const struct shadow_leaf *leaf)
{
	return leaf->page->role.level;
}

static struct shadow_frame *leaf_frame(const struct mv_shadow *s, const struct shadow_leaf *leaf)
{
	return shadow_frame_in(s, leaf->slot, leaf_level(leaf), leaf->note & SHADOW_FRAMES);
}

static uint64_t leaf_entry(const struct mv_shadow *s, const struct shadow_leaf *leaf, uint32_t attr)
{
	unsigned int level = leaf_level(leaf);

	attr |= MV_ATTR_READ | (attr & MV_ATTR_WRITE ? MV_ATTR_DIRTY : 0);
	attr |= leaf->ahead ? 0 : MV_ATTR_ACCESSED;
	return mv_leaf_bits(s->format, &s->rules, level, attr) |
	       mv_page_bits(s->format, level, leaf->hpa);
}

bool shadow_sample_large(const struct mv_shadow *s, const struct shadow_slot *slot,
			 unsigned int level, uint64_t gpa, uint64_t *sum)
{
	const struct mv_region *region = slot->region;
	uint64_t mask = mv_span_mask(s->format, level);
	uint64_t page = mv_region_page(region, gpa & ~mask);
	uint64_t last = mv_region_page(region, gpa | mask);

	*sum = 0;
	for (page &= ~(uint64_t)(MV_GRANULE_PAGES - 1); page <= last; page += MV_GRANULE_PAGES) {
		uint64_t sample = mv_granule_sample(region, page);

		if (sample & MV_REVOKES_RUNNING)
			return false;
		*sum += sample;
	}
	return true;
}

static bool sample_holds(const struct mv_shadow *s, const struct shadow_leaf *leaf)
{
	uint64_t sum;

	return shadow_zaps(s) == leaf->zaps &&
	       shadow_sample(s, leaf->slot, leaf_level(leaf), leaf->note & SHADOW_FRAMES, &sum) &&
	       sum == leaf->sample;
}

/* A right to write has gone: until a flush, some processor may have it still. */
static void note_write_gone(struct mv_shadow *s, struct shadow_frame *frame, uint64_t old)
{
	if (old & s->format->write)
		frame->stale = (uint32_t)shadow_gone(s);
}

/* A present leaf, on the chain of @frame, whose lock the caller has. */
static void take_leaf(struct mv_shadow *s, struct shadow_page *page, unsigned int index,
		      struct shadow_frame *frame)
{
	uint64_t old = take(s, page, index, &frame->chain);

	if ((old & s->format->accessed) && !(shadow_word(frame) & SHADOW_USED))
		__atomic_fetch_or(&frame->word, SHADOW_USED, __ATOMIC_RELAXED);
	if (old & s->format->write)
		note_write_gone(s, frame, old);
	else
		shadow_gone(s);
}

/* Whether the entry maps the guest page that @leaf is about. Under that page's lock. */
static bool is_same_page(const struct mv_shadow *s, const struct shadow_leaf *leaf, uint64_t entry)
{
	return shadow_present(s, entry) && shadow_is_leaf(s, leaf_level(leaf), entry) &&
	       !((shadow_note(leaf->page, leaf->index) ^ leaf->note) & SHADOW_FRAMES);
}

/*
 * Other rights for a page that is mapped already. It is real while the origin is asked, but who
 * takes it away waits for our lock: nobody has been told that it is gone.
 */
static int change_leaf(struct mv_shadow *s, const struct shadow_leaf *leaf,
		       struct shadow_frame *frame, uint64_t old, uint64_t entry)
{
	struct shadow_page *page = leaf->page;
	unsigned int index = leaf->index;

	set_note(page, index, leaf->note);
	/* A processor only ever adds accessed and dirty, and those are in the new one. */
	if (old != entry) {
		old = __atomic_exchange_n(&page->table[index], entry, __ATOMIC_SEQ_CST);
		if (old & ~entry & s->format->write)
			note_write_gone(s, frame, old);
	}
	if (may_install(page, &leaf->origin))
		return 0;
	take_leaf(s, page, index, frame);
	return -EAGAIN;
}

#define MAP_OCCUPIED 2 /* something else is there */

static int map_locked(struct mv_shadow *s, const struct shadow_leaf *leaf,
		      struct shadow_frame *frame, uint64_t entry)
{
	uint64_t old = shadow_load(leaf->page, leaf->index);

	if (is_same_page(s, leaf, old))
		return change_leaf(s, leaf, frame, old, entry);
	if (shadow_present(s, old))
		return MAP_OCCUPIED;
	if (!reserve(leaf->page, leaf->index, leaf->note))
		return -EAGAIN;
	return install(s, leaf->page, leaf->index, entry, &frame->chain, &leaf->origin) ? 0
											: -EAGAIN;
}

/* Whether tables of the guest, or parts of them, keep the page from being mapped in one piece. */
static bool is_broken_up(const struct shadow_leaf *leaf, const struct shadow_frame *frame)
{
	return leaf_level(leaf) > 1 && (frame->pages || shadow_is_logging(leaf->slot));
}

/* A first write is logged; what only reads does not get the right to write before. */
static bool may_write_logged(const struct shadow_leaf *leaf, struct shadow_frame *frame)
{
	if (!shadow_is_logging(leaf->slot) || (shadow_word(frame) & SHADOW_DIRTY))
		return true;
	if (!leaf->write)
		return false;
	__atomic_fetch_or(&frame->word, SHADOW_DIRTY, __ATOMIC_SEQ_CST);
	return true;
}

/* What a small page may grant at this moment. Under its lock. */
static uint32_t allowed(struct mv_shadow *s, const struct shadow_leaf *leaf,
			struct shadow_frame *frame, bool *tracked)
{
	*tracked = false;
	if (leaf_level(leaf) > 1 || !(leaf->attr & MV_ATTR_WRITE))
		return leaf->attr;
	if (shadow_is_tracked(frame) && !(leaf->write && shadow_let_write(s, frame, leaf->note))) {
		*tracked = leaf->write;
		return leaf->attr & ~MV_ATTR_WRITE;
	}
	return may_write_logged(leaf, frame) ? leaf->attr : leaf->attr & ~MV_ATTR_WRITE;
}

/* All that has to be asked under the lock: what revokes and trackers do before they take it. */
static int map_once(struct mv_shadow *s, const struct shadow_leaf *leaf)
{
	struct shadow_frame *frame = leaf_frame(s, leaf);
	int error = -EAGAIN;
	uint32_t attr;
	bool tracked;

	shadow_lock(s, frame);
	if (frame->chain)
		__builtin_prefetch(link_of(s, frame->chain), 1);
	attr = allowed(s, leaf, frame, &tracked);
	if (sample_holds(s, leaf) && !is_broken_up(leaf, frame))
		error = map_locked(s, leaf, frame, leaf_entry(s, leaf, attr));
	shadow_unlock(frame);
	return !error && tracked ? SHADOW_TRACKED : error;
}

int shadow_map(struct mv_shadow *s, const struct shadow_leaf *leaf)
{
	int error = map_once(s, leaf);

	if (error == MAP_OCCUPIED) {
		shadow_zap(s, leaf->page, leaf->index);
		error = map_once(s, leaf);
	}
	return error == MAP_OCCUPIED ? -EAGAIN : error;
}

/* --- links --------------------------------------------------------------------------------- */

/* Tables above the leaves grant everything: it is the leaves that decide. */
static uint64_t link_entry(const struct mv_shadow *s, const struct shadow_page *page,
			   const struct shadow_page *child)
{
	return s->format->table_rights[page->role.level] | s->format->accessed |
	       shadow_phys(s, child);
}

int shadow_link(struct mv_shadow *s, struct shadow_page *page, unsigned int index,
		struct shadow_page *child, const struct shadow_origin *origin)
{
	struct shadow_frame *frame = __atomic_load_n(&child->frame, __ATOMIC_RELAXED);
	bool linked = false;

	shadow_lock(s, frame);
	/* Looked at under the lock: it may have been killed, and made another page, meanwhile. */
	if (shadow_lives_on(child, frame) && shadow_is_clean(s, child) &&
	    reserve(page, index, shadow_number(s, child)))
		linked = install(s, page, index, link_entry(s, page, child), &child->parents,
				 origin);
	shadow_unlock(frame);
	return linked ? 0 : -EAGAIN;
}

bool shadow_unlink_locked(struct mv_shadow *s, struct shadow_page *page, unsigned int most)
{
	while (page->parents && most--) {
		uint32_t id = page->parents;

		take(s, shadow_id_page(s, id), id % SHADOW_ENTRIES, &page->parents);
	}
	return !page->parents;
}

/* --- taken away ------------------------------------------------------------------------------ */

/* What an entry leads to, by its note; NULL where note and entry are of different times. */
static struct shadow_frame *holder_of(struct mv_shadow *s, const struct shadow_page *page,
				      uint64_t entry, uint64_t note)
{
	const struct shadow_slot *slot;

	if (!shadow_is_leaf(s, page->role.level, entry)) {
		if (!note || note > s->budget)
			return NULL;
		return __atomic_load_n(&s->pages[note].frame, __ATOMIC_RELAXED);
	}
	slot = shadow_slot_at(s, note & SHADOW_FRAMES);
	return slot ? shadow_frame_in(s, slot, page->role.level, note & SHADOW_FRAMES) : NULL;
}

/*
 * Whether what an entry leads to is a part of a larger page of the guest's. At level 2 of 32-bit
 * paging it is one half.
 */
static bool is_split(const struct mv_shadow *s, const struct shadow_page *page,
		     const struct shadow_page *child)
{
	if (!shadow_of_table(page->role))
		return false;
	return child ? child->role.direct
		     : page->role.level == 2 && mv_formats[page->role.format]->entry_lg2 == 2;
}

static void note_split(struct mv_shadow *s)
{
	uint64_t gone = __atomic_load_n(&s->gone, __ATOMIC_SEQ_CST);
	uint64_t split = __atomic_load_n(&s->split, __ATOMIC_SEQ_CST);

	/* Only raised. */
	while (split < gone && !__atomic_compare_exchange_n(&s->split, &split, gone, false,
							    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

static void take_link(struct mv_shadow *s, struct shadow_page *page, unsigned int index)
{
	struct shadow_page *child = &s->pages[shadow_note(page, index)];

	take(s, page, index, &child->parents);
	shadow_gone(s);
	if (is_split(s, page, child))
		note_split(s);
}

/* Take away what leads to @holder, where it still does. */
static bool zap_present(struct mv_shadow *s, struct shadow_page *page, unsigned int index,
			struct shadow_frame *holder)
{
	uint64_t entry;
	bool same;

	shadow_lock(s, holder);
	entry = shadow_load(page, index);
	/* Nobody but a holder of this lock can change the entry while it leads here. */
	same = shadow_present(s, entry) &&
	       holder_of(s, page, entry, shadow_note(page, index)) == holder;
	if (same && shadow_is_leaf(s, page->role.level, entry)) {
		take_leaf(s, page, index, holder);
		if (is_split(s, page, NULL))
			note_split(s);
	} else if (same) {
		take_link(s, page, index);
	}
	shadow_unlock(holder);
	return same;
}

bool shadow_zap(struct mv_shadow *s, struct shadow_page *page, unsigned int index)
{
	for (;;) {
		uint64_t entry = shadow_load(page, index);
		struct shadow_frame *holder;

		if (!entry || entry == SHADOW_CANCELLED)
			return false;
		if (!shadow_present(s, entry)) {
			if (swap(page, index, entry, SHADOW_CANCELLED))
				return false;
			continue;
		}
		holder = holder_of(s, page, entry, shadow_note(page, index));
		if (holder && zap_present(s, page, index, holder))
			return true;
		shadow_pause();
	}
}

unsigned int shadow_zap_locked(struct mv_shadow *s, struct shadow_frame *frame)
{
	unsigned int count = 0;

	for (; frame->chain; count++) {
		uint32_t id = frame->chain;

		take_leaf(s, shadow_id_page(s, id), id % SHADOW_ENTRIES, frame);
	}
	return count;
}

unsigned int shadow_zap_frame(struct mv_shadow *s, struct shadow_frame *frame)
{
	unsigned int count;

	shadow_lock(s, frame);
	count = shadow_zap_locked(s, frame);
	shadow_unlock(frame);
	return count;
}

/* Clear bits in all entries that map a frame. Return: those that any of them had. */
static uint64_t clear_in_chain(struct mv_shadow *s, struct shadow_frame *frame, uint64_t bits)
{
	uint64_t old = 0;

	for (uint32_t id = frame->chain; id; id = link_of(s, id)->next) {
		uint64_t *entry = &shadow_id_page(s, id)->table[id % SHADOW_ENTRIES];

		if (__atomic_load_n(entry, __ATOMIC_RELAXED) & bits)
			old |= __atomic_fetch_and(entry, ~bits, __ATOMIC_SEQ_CST);
	}
	return old & bits;
}

bool shadow_age_locked(struct mv_shadow *s, struct shadow_frame *frame)
{
	bool used = clear_in_chain(s, frame, s->format->accessed);

	if (!(shadow_word(frame) & SHADOW_USED))
		return used;
	__atomic_fetch_and(&frame->word, ~SHADOW_USED, __ATOMIC_RELAXED);
	return true;
}

void shadow_protect_locked(struct mv_shadow *s, struct shadow_frame *frame)
{
	note_write_gone(s, frame, clear_in_chain(s, frame, s->format->write));
}
