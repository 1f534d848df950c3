/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reclaim: the budget is used up, some shadow pages have to go.
 *
 * A clock goes over all pages by number. It spares once what was used since it passed: a fault came
 * through, or a processor did, which set accessed in an entry that links the page. Pages
 * that nothing links and nobody has loaded are the first to go.
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

/* Whether the clock may take a page; clears the signs of use. */
static bool is_cold(struct mv_shadow *s, struct shadow_page *page, bool linked_too)
{
	struct shadow_frame *frame = __atomic_load_n(&page->frame, __ATOMIC_RELAXED);
	bool cold;

	if (!frame)
		return false;
	shadow_lock(s, frame);
	cold = shadow_lives_on(page, frame) && !page->roots;
	if (cold && page->parents)
		cold = linked_too && !was_walked(s, page) &&
		       !__atomic_exchange_n(&page->used, 0, __ATOMIC_RELAXED);
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

#define BATCH_LEAST 8

bool shadow_reclaim_now(struct mv_shadow *s)
{
	uint32_t batch = s->budget / 16;

	/* Many for one flush. */
	reclaim(s, batch > BATCH_LEAST ? batch : BATCH_LEAST);
	return shadow_bury(s);
}
