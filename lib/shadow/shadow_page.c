/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow pages: found by what they stand for, made, killed, buried.
 *
 * The pages of a guest's page hang on its frame. One that no entry links any more stays there, to
 * be found when the guest comes back (another CR3, a fork that ended), until it is reclaimed.
 *
 * A page that begins to stand for a table of the guest makes that page read-only for the guest, in
 * all its mappings and, by a flush, in all TLBs, before the table is read for it: so its first
 * entries are made after a second walk.
 *
 * What does not belong here: which page is reclaimed (shadow_reclaim.c).
 */
#include <string.h>

#include "shadow_internal.h"

/* --- the pool -------------------------------------------------------------------------------- */

static void pool_lock(struct mv_shadow *s)
{
	/* Acquire pairs with the release in pool_unlock(). */
	while (__atomic_exchange_n(&s->pool_lock, 1, __ATOMIC_ACQUIRE))
		shadow_pause();
}

static void pool_unlock(struct mv_shadow *s)
{
	__atomic_store_n(&s->pool_lock, 0, __ATOMIC_RELEASE);
}

/* A page that had a life before, or the number of one that has no memory yet, or 0. */
static uint32_t pool_pop(struct mv_shadow *s, bool *fresh)
{
	uint32_t number = 0, left;

	pool_lock(s);
	*fresh = !s->free;
	if (s->free) {
		number = s->free;
		s->free = s->pages[number].pool;
	} else if (s->unmade) {
		number = s->unmade;
		s->unmade = s->pages[number].pool;
	}
	left = s->left -= !!number;
	pool_unlock(s);
	if (mv_unlikely(left < shadow_low(s)))
		shadow_tell_short(s);
	return number;
}

static void push(struct mv_shadow *s, uint32_t *head, uint32_t number)
{
	s->pages[number].pool = *head;
	*head = number;
}

/* On one of the two lists of which pages are taken. */
static void pool_push(struct mv_shadow *s, uint32_t *head, uint32_t number)
{
	pool_lock(s);
	push(s, head, number);
	s->left++;
	pool_unlock(s);
}

void shadow_give(struct mv_shadow *s, uint32_t number)
{
	pool_push(s, &s->free, number);
}

uint32_t shadow_left(struct mv_shadow *s)
{
	uint32_t left;

	pool_lock(s);
	left = s->left;
	pool_unlock(s);
	return left;
}

#define RECORD_BYTES (SHADOW_ENTRIES * (sizeof(uint64_t) + sizeof(struct shadow_link)))

/* Memory for a page that has none. */
static int furnish(struct mv_shadow *s, struct shadow_page *page)
{
	const struct mv_platform_ops *ops = s->platform.ops;
	uint64_t *table = ops->table_alloc(s->platform.ctx, s->node);
	unsigned char *records = ops->alloc(s->platform.ctx, RECORD_BYTES, s->node);

	if (!table || !records) {
		if (table)
			ops->table_free(s->platform.ctx, table);
		ops->free(s->platform.ctx, records, RECORD_BYTES);
		return -ENOMEM;
	}
	memset(table, 0, SHADOW_TABLE_BYTES);
	page->notes = (uint64_t *)records;
	page->links = (struct shadow_link *)(records + SHADOW_ENTRIES * sizeof(uint64_t));
	/* Release pairs with shadow_child(), whose number may be from any time. */
	__atomic_store_n(&page->table, table, __ATOMIC_RELEASE);
	return 0;
}

void shadow_pages_finish(struct mv_shadow *s)
{
	const struct mv_platform_ops *ops = s->platform.ops;

	for (uint32_t number = 1; number <= s->budget; number++) {
		struct shadow_page *page = &s->pages[number];

		if (!page->table)
			continue;
		ops->table_free(s->platform.ctx, page->table);
		ops->free(s->platform.ctx, page->notes, RECORD_BYTES);
	}
	ops->free(s->platform.ctx, s->pages, (s->budget + 1) * sizeof(*s->pages));
}

int shadow_pages_init(struct mv_shadow *s)
{
	s->pages = s->platform.ops->alloc(s->platform.ctx, (s->budget + 1) * sizeof(*s->pages),
					  s->node);
	if (!s->pages)
		return -ENOMEM;
	for (uint32_t number = s->budget; number > 0; number--)
		pool_push(s, &s->unmade, number);
	return 0;
}

/* One page for a vCPU, or 0. */
static int take_page(struct mv_shadow *s, uint32_t *number)
{
	bool fresh;
	uint32_t taken = pool_pop(s, &fresh);

	if (!taken)
		return -EAGAIN;
	if (fresh && furnish(s, &s->pages[taken])) {
		pool_push(s, &s->unmade, taken);
		return -ENOMEM;
	}
	*number = taken;
	return 0;
}

#define RESERVE_ATTEMPTS 64

int shadow_reserve(struct mv_shadow_vcpu *vcpu, unsigned int wanted)
{
	struct mv_shadow *s = vcpu->shadow;

	for (unsigned int turns = 0; vcpu->cached < wanted;) {
		int error = take_page(s, &vcpu->cache[vcpu->cached]);

		if (!error) {
			vcpu->cached++;
			continue;
		}
		/* Without memory for more, what there is has to do. */
		if (shadow_reclaim_now(s))
			continue;
		if (turns++ == RESERVE_ATTEMPTS)
			return error;
		shadow_relax(s, turns);
	}
	return 0;
}

/* --- found ----------------------------------------------------------------------------------- */

struct shadow_page *shadow_find(const struct mv_shadow *s, const struct shadow_frame *frame,
				const struct shadow_key *key)
{
	uint32_t number = frame->pages;

	for (; number; number = s->pages[number].next)
		if (shadow_has_key(&s->pages[number], key))
			return &s->pages[number];
	return NULL;
}

/* --- made ------------------------------------------------------------------------------------ */

/* It could not be read-only by itself otherwise. */
uint64_t shadow_break_up_around(struct mv_shadow *s, uint64_t gpa)
{
	const struct shadow_slot *slot = shadow_slot_at(s, gpa);
	uint64_t need = 0;

	for (unsigned int level = SHADOW_LARGEST; slot && level > 1; level--) {
		struct shadow_frame *frame = shadow_frame_in(s, slot, level, gpa);

		shadow_lock(s, frame);
		frame->pages++;
		shadow_zap_locked(s, frame);
		if (shadow_is_stale(s, frame))
			need = __atomic_load_n(&s->gone, __ATOMIC_SEQ_CST);
		shadow_unlock(frame);
	}
	return need;
}

void shadow_let_grow_around(struct mv_shadow *s, uint64_t gpa)
{
	const struct shadow_slot *slot = shadow_slot_at(s, gpa);

	for (unsigned int level = SHADOW_LARGEST; slot && level > 1; level--) {
		struct shadow_frame *frame = shadow_frame_in(s, slot, level, gpa);

		shadow_lock(s, frame);
		frame->pages--;
		shadow_unlock(frame);
	}
}

/* Under the lock of @frame. */
static void page_init(struct mv_shadow *s, struct shadow_page *page, const struct shadow_key *key,
		      struct shadow_frame *frame, uint64_t need)
{
	page->base = key->base;
	page->role = key->role;
	if (key->pdpte)
		memcpy(page->pdpte, key->pdpte, sizeof(page->pdpte));
	__atomic_store_n(&page->frame, frame, __ATOMIC_RELAXED);
	page->parents = 0;
	page->roots = 0;
	page->cost = (struct mv_shadow_cost){ 0 };
	__atomic_store_n(&page->used, 1, __ATOMIC_RELAXED);
	__atomic_store_n(&page->flood, 0, __ATOMIC_RELAXED);
	if (shadow_of_table(key->role))
		__atomic_fetch_add(&frame->word, SHADOW_TABLE, __ATOMIC_SEQ_CST);
	if (shadow_of_table(key->role) && shadow_is_tracked(frame)) {
		shadow_protect_locked(s, frame);
		if (shadow_is_stale(s, frame))
			need = __atomic_load_n(&s->gone, __ATOMIC_SEQ_CST);
	}
	__atomic_store_n(&page->need, need, __ATOMIC_RELAXED);
	__atomic_store_n(&page->state, SHADOW_LIVE, __ATOMIC_SEQ_CST);
	page->next = frame->pages;
	__atomic_store_n(&frame->pages, shadow_number(s, page), __ATOMIC_SEQ_CST);
}

/* Upper tables are not out of sync. Holds under the lock only. */
static bool may_stand_for(const struct shadow_frame *frame, union shadow_role role)
{
	return !shadow_of_table(role) || role.level == 1 || !(shadow_word(frame) & SHADOW_UNSYNC);
}

/*
 * A leaf table that the guest writes to becomes an upper one, or is both: what was made from it
 * before goes, instead of being compared.
 */
static void end_unsync(struct mv_shadow *s, uint64_t base, union shadow_role role)
{
	struct shadow_frame *frame = shadow_frame_of_base(s, base);
	uint32_t number;

	if (may_stand_for(frame, role))
		return;
	shadow_enter(s);
	number = __atomic_load_n(&frame->pages, __ATOMIC_SEQ_CST);
	while (number) {
		struct shadow_page *page = &s->pages[number];

		number = __atomic_load_n(&page->next, __ATOMIC_SEQ_CST);
		if (shadow_of_table(page->role))
			shadow_kill(s, page);
	}
	shadow_leave(s);
}

/* Return: the page, and in *@made whether it is a new one, from the cache. */
static struct shadow_page *find_or_make(struct mv_shadow_vcpu *vcpu, const struct shadow_key *key,
					bool root, uint64_t need, bool *made)
{
	struct mv_shadow *s = vcpu->shadow;
	struct shadow_frame *frame = shadow_frame_of_base(s, key->base);
	struct shadow_page *page;

	shadow_lock(s, frame);
	page = shadow_find(s, frame, key);
	*made = !page && may_stand_for(frame, key->role);
	if (*made) {
		page = &s->pages[vcpu->cache[--vcpu->cached]];
		page_init(s, page, key, frame, need);
	}
	if (page)
		page->roots += root;
	shadow_unlock(frame);
	return page;
}

static bool is_there(struct mv_shadow *s, const struct shadow_key *key)
{
	struct shadow_frame *frame = shadow_frame_of_base(s, key->base);
	bool there;

	shadow_lock(s, frame);
	there = shadow_find(s, frame, key);
	shadow_unlock(frame);
	return there;
}

struct shadow_page *shadow_make(struct mv_shadow_vcpu *vcpu, const struct shadow_key *key,
				bool root)
{
	struct mv_shadow *s = vcpu->shadow;
	bool counted = shadow_of_table(key->role) && !is_there(s, key), made;
	uint64_t need = counted ? shadow_break_up_around(s, key->base) : 0;
	struct shadow_page *page;

	end_unsync(s, key->base, key->role);
	page = find_or_make(vcpu, key, root, need, &made);
	if (counted && !made)
		shadow_let_grow_around(s, key->base);
	return page;
}

void shadow_put_root(struct mv_shadow *s, struct shadow_page *page)
{
	struct shadow_frame *frame = page->frame;

	shadow_lock(s, frame);
	page->roots--;
	shadow_unlock(frame);
}

/* --- killed ---------------------------------------------------------------------------------- */

/* Under the lock: nobody finds it from here on. */
static void take_off_frame(struct mv_shadow *s, struct shadow_page *page,
			   struct shadow_frame *frame)
{
	uint32_t number = shadow_number(s, page), *at = &frame->pages;

	while (*at != number)
		at = &s->pages[*at].next;
	/* The page keeps its own: readers may be on it. */
	__atomic_store_n(at, page->next, __ATOMIC_SEQ_CST);
	if (shadow_of_table(page->role))
		__atomic_fetch_sub(&frame->word, SHADOW_TABLE, __ATOMIC_SEQ_CST);
	if (!(shadow_word(frame) & SHADOW_TABLES))
		__atomic_fetch_and(&frame->word, ~SHADOW_UNSYNC, __ATOMIC_SEQ_CST);
}

static bool begin_to_die(struct mv_shadow *s, struct shadow_page *page, struct shadow_frame *frame)
{
	bool mine;

	shadow_lock(s, frame);
	mine = shadow_lives_on(page, frame) && !page->roots;
	if (mine) {
		/* Before the sweep: who installs after it sees this. */
		__atomic_store_n(&page->state, SHADOW_DEAD, __ATOMIC_SEQ_CST);
		take_off_frame(s, page, frame);
	}
	shadow_unlock(frame);
	return mine;
}

#define UNLINK_AT_ONCE 64 /* under one hold of the lock */

static void unlink_all(struct mv_shadow *s, struct shadow_page *page, struct shadow_frame *frame)
{
	bool done;

	do {
		shadow_lock(s, frame);
		done = shadow_unlink_locked(s, page, UNLINK_AT_ONCE);
		shadow_unlock(frame);
	} while (!done);
}

void shadow_sweep(struct mv_shadow *s, struct shadow_page *page)
{
	for (unsigned int index = 0; index < SHADOW_ENTRIES; index++)
		shadow_zap(s, page, index);
}

bool shadow_kill(struct mv_shadow *s, struct shadow_page *page)
{
	struct shadow_frame *frame = __atomic_load_n(&page->frame, __ATOMIC_RELAXED);

	if (!frame || !begin_to_die(s, page, frame))
		return false;
	unlink_all(s, page, frame);
	shadow_sweep(s, page);
	if (shadow_of_table(page->role))
		shadow_let_grow_around(s, page->base);
	/* After all of it: a flush that passes this has it forgotten. */
	__atomic_store_n(&page->need, shadow_gone(s), __ATOMIC_RELAXED);
	pool_lock(s);
	push(s, &s->dead, shadow_number(s, page));
	pool_unlock(s);
	return true;
}

unsigned int shadow_bury(struct mv_shadow *s)
{
	unsigned int count = 0;
	uint32_t dead;

	pool_lock(s);
	dead = s->dead;
	s->dead = 0;
	pool_unlock(s);
	if (!dead)
		return 0;
	shadow_flush(s);
	s->platform.ops->wait_readers(s->platform.ctx);
	while (dead) {
		uint32_t next = s->pages[dead].pool;

		__atomic_store_n(&s->pages[dead].state, SHADOW_FREE, __ATOMIC_RELAXED);
		shadow_give(s, dead);
		dead = next;
		count++;
	}
	shadow_count(&s->stats.reclaimed, count);
	return count;
}
