/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reclaim: the budget is used up, or will be soon, and some shadow pages have to go.
 *
 * A clock goes over all pages by number. It spares once what was used since it passed: a fault came
 * through, or a processor did, which set accessed in an entry that links the page. Pages
 * that nothing links and nobody has loaded are the first to go.
 *
 * Pages that go are there for others after a flush and a grace period. So that no fault has to wait
 * for these, a VMM that is told when few are left brings some back from a thread of its own; only a
 * fault that finds none at all does it itself.
 *
 * What does not belong here: how a page goes (shadow_page.c).
 */
#include "shadow_internal.h"

#define PARENTS_ASKED 8 /* of one page: a guest may link it from everywhere */

/* Whether a processor came through since the last look. Under the lock of the page's frame. */
static bool was_walked(struct mv_shadow *s, const struct shadow_page *page)
{
	const uint64_t accessed = s->format->accessed;
	uint32_t id = page->parents;
	uint64_t seen = 0;

	for (unsigned int asked = 0; id && asked < PARENTS_ASKED; asked++) {
		struct shadow_page *parent = shadow_id_page(s, id);
		unsigned int index = id % SHADOW_ENTRIES;

		seen |= __atomic_fetch_and(&parent->table[index], ~accessed, __ATOMIC_RELAXED);
		id = parent->links[index].next;
	}
	return seen & accessed;
}

/* The same for faults as well; all signs of use are cleared. */
static bool was_used(struct mv_shadow *s, struct shadow_page *page)
{
	bool walked = was_walked(s, page);

	return __atomic_exchange_n(&page->used, 0, __ATOMIC_RELAXED) || walked;
}

/* Whether the clock may take a page. */
static bool is_cold(struct mv_shadow *s, struct shadow_page *page, bool linked_too)
{
	struct shadow_frame *frame = __atomic_load_n(&page->frame, __ATOMIC_RELAXED);
	bool cold;

	if (!frame)
		return false;
	shadow_lock(s, frame);
	cold = shadow_lives_on(page, frame) && !page->roots;
	if (cold && page->parents)
		cold = linked_too && !was_used(s, page);
	shadow_unlock(frame);
	return cold;
}

static unsigned int clock_round(struct mv_shadow *s, unsigned int wanted, bool linked_too)
{
	unsigned int killed = 0;

	for (uint32_t i = 0; i < s->budget && killed < wanted; i++) {
		uint32_t hand = __atomic_fetch_add(&s->hand, 1, __ATOMIC_RELAXED);
		struct shadow_page *page = &s->pages[hand % s->budget + 1];

		if (shadow_is_live(page) && is_cold(s, page, linked_too))
			killed += shadow_kill(s, page);
	}
	return killed;
}

static unsigned int reclaim(struct mv_shadow *s, unsigned int wanted)
{
	unsigned int killed = clock_round(s, wanted, false);

	/* Twice round: the first time what was used is spared. */
	for (unsigned int round = 0; round < 2 && killed < wanted; round++)
		killed += clock_round(s, wanted - killed, true);
	return killed;
}

unsigned int shadow_reclaim_now(struct mv_shadow *s)
{
	/* Many for one flush. */
	reclaim(s, shadow_low(s));
	return shadow_bury(s);
}

void shadow_tell_short(struct mv_shadow *s)
{
	if (s->ops.short_of_pages && !__atomic_exchange_n(&s->told, 1, __ATOMIC_SEQ_CST))
		s->ops.short_of_pages(s->ctx);
}

#define ROUNDS 4 /* others may take pages as fast as they come */

unsigned int mv_shadow_reclaim(struct mv_shadow *shadow)
{
	unsigned int count = 0, came = 1;

	/* First: who finds pages short from now on tells again. */
	__atomic_store_n(&shadow->told, 0, __ATOMIC_SEQ_CST);
	for (unsigned int i = 0; i < ROUNDS && came; i++) {
		if (shadow_left(shadow) >= 2 * shadow_low(shadow))
			break;
		came = shadow_reclaim_now(shadow);
		count += came;
	}
	return count;
}
