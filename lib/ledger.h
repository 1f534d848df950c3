/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ledger's word: all that is recorded of one guest page, in 32 bits that change only
 * by compare-exchange.
 *
 *   31            16 15        8 7      6        5      4       3    2     0
 *  +----------------+-----------+------+--------+------+-------+----+-------+
 *  | pins           | 0         |ACTIVE|UNMAPPED|WAITED|COPYING|BUSY| state |
 *  +----------------+-----------+------+--------+------+-------+----+-------+
 *
 * BUSY is the page's transaction lock. Who sets it owns the page until mv_page_end().
 *
 * An eviction has two phases. While it only copies (BUSY|COPYING) the page still is where
 * it was, so whoever needs it takes it over: clears COPYING, and is the owner from then on,
 * or pins it, which ends the transaction. The one who copied finds out in mv_page_seal(),
 * and throws the copy away. Once sealed, the page is dropped and others wait: they set
 * WAITED, and the owner wakes them. For this to be sound, whoever copies a page sees to it
 * that no other thread begins to copy the same page before it has called mv_page_seal().
 *
 * UNMAPPED: resident, but revoked from every view, so that the next touch shows.
 * ACTIVE: touched since the replacement hand last passed.
 *
 * What does not belong here: why a page changes state (pager, transactions).
 */
#ifndef MV_LEDGER_H
#define MV_LEDGER_H

#include <stdbool.h>
#include <stdint.h>

#include <memvirt/memory.h>

#define MV_WORD_STATE	 0x00000007u
#define MV_WORD_BUSY	 0x00000008u
#define MV_WORD_COPYING	 0x00000010u
#define MV_WORD_WAITED	 0x00000020u
#define MV_WORD_UNMAPPED 0x00000040u
#define MV_WORD_ACTIVE	 0x00000080u
#define MV_WORD_PIN	 0x00010000u
#define MV_WORD_PINS	 0xffff0000u

/* What a transaction leaves behind is state, UNMAPPED, ACTIVE and pins; these end with it. */
#define MV_WORD_TRANSIENT (MV_WORD_BUSY | MV_WORD_COPYING | MV_WORD_WAITED)

static inline enum mv_page_state mv_word_state(uint32_t word)
{
	return (enum mv_page_state)(word & MV_WORD_STATE);
}

/* Acquire pairs with the release in mv_page_end(): what the last owner did is seen. */
static inline uint32_t mv_page_load(const uint32_t *page)
{
	return __atomic_load_n(page, __ATOMIC_ACQUIRE);
}

/* One compare-exchange; on failure *word is what stands there now. */
static inline bool mv_page_change(uint32_t *page, uint32_t *word, uint32_t next)
{
	return __atomic_compare_exchange_n(page, word, next, false, __ATOMIC_ACQ_REL,
					   __ATOMIC_ACQUIRE);
}

/**
 * mv_page_begin_if() - take the busy bit where the word is as wanted
 * @page:  the page's word
 * @mask:  bits to look at
 * @value: what they must be
 * @set:   bits set with BUSY: 0 or MV_WORD_COPYING
 * @word:  the word before, on success and on failure
 *
 * Return: false where the page is busy or its word is not as wanted; never waits.
 */
static inline bool mv_page_begin_if(uint32_t *page, uint32_t mask, uint32_t value, uint32_t set,
				    uint32_t *word)
{
	uint32_t now = mv_page_load(page);

	while (!(now & MV_WORD_BUSY) && (now & mask) == value) {
		if (mv_page_change(page, &now, now | MV_WORD_BUSY | set)) {
			*word = now;
			return true;
		}
	}
	*word = now;
	return false;
}

/**
 * mv_page_claim() - the fault path's way in: own the page, or be woken
 * @page: the page's word
 * @word: the word before; COPYING in it tells that an eviction was taken over
 *
 * Never waits.
 *
 * Return: true where the caller owns the page now; false where it is busy, and its owner
 * will wake whoever waits.
 */
static inline bool mv_page_claim(uint32_t *page, uint32_t *word)
{
	uint32_t now = mv_page_load(page);

	for (;;) {
		bool free = !(now & MV_WORD_BUSY) || (now & MV_WORD_COPYING);
		uint32_t next = free ? (now | MV_WORD_BUSY) & ~MV_WORD_COPYING
				     : now | MV_WORD_WAITED;

		if (mv_page_change(page, &now, next)) {
			*word = now;
			return free;
		}
	}
}

/**
 * mv_page_begin() - take the busy bit, taking over an eviction, waiting for other owners
 * @platform: for patience
 * @page:     the page's word
 *
 * Context: holds no mutex and no busy page of a higher number; waits for an owner that
 * never waits for a fault.
 * Return: the word before; COPYING in it tells that an eviction was taken over.
 */
static inline uint32_t mv_page_begin(const struct mv_platform *platform, uint32_t *page)
{
	uint32_t now = mv_page_load(page);

	for (unsigned int turns = 0;;) {
		if ((now & MV_WORD_BUSY) && !(now & MV_WORD_COPYING)) {
			platform->ops->relax(platform->ctx, turns++);
			now = mv_page_load(page);
		} else if (mv_page_change(page, &now,
					  (now | MV_WORD_BUSY) & ~MV_WORD_COPYING)) {
			return now;
		}
	}
}

/**
 * mv_page_seal() - end the copying phase: from here the page is dropped
 * @page: a page that the caller began with MV_WORD_COPYING
 *
 * Return: false where another took the page over meanwhile: it is not the caller's any more.
 */
static inline bool mv_page_seal(uint32_t *page)
{
	uint32_t now = mv_page_load(page);

	while (now & MV_WORD_COPYING)
		if (mv_page_change(page, &now, now & ~MV_WORD_COPYING))
			return true;
	return false;
}

/**
 * mv_page_end() - let a page go
 * @page:  a page that the caller owns
 * @clear: bits to clear, besides what ends with the transaction
 * @set:   bits to set: the new state, where MV_WORD_STATE is cleared
 *
 * Return: the word before. Where MV_WORD_WAITED is set in it, the caller wakes the page.
 */
static inline uint32_t mv_page_end(uint32_t *page, uint32_t clear, uint32_t set)
{
	uint32_t now = mv_page_load(page);

	while (!mv_page_change(page, &now, (now & ~(clear | MV_WORD_TRANSIENT)) | set))
		;
	return now;
}

/**
 * mv_page_pin() - one pin more; see mv_memory_pin()
 * @platform: for patience
 * @page:     the page's word
 * @first:    set on success: whether this is the page's only pin
 *
 * An eviction that only copies is ended on the way: the page is then resident as before.
 *
 * Return: true; false where the count is full.
 */
static inline bool mv_page_pin(const struct mv_platform *platform, uint32_t *page, bool *first)
{
	uint32_t now = mv_page_load(page);

	for (unsigned int turns = 0;;) {
		if ((now & MV_WORD_PINS) == MV_WORD_PINS)
			return false;
		if ((now & MV_WORD_BUSY) && !(now & MV_WORD_COPYING)) {
			platform->ops->relax(platform->ctx, turns++);
			now = mv_page_load(page);
			continue;
		}
		if (mv_page_change(page, &now,
				   (now & ~(MV_WORD_BUSY | MV_WORD_COPYING)) + MV_WORD_PIN)) {
			*first = !(now & MV_WORD_PINS);
			return true;
		}
	}
}

/** mv_page_unpin() - one pin less; true where it was the last. The caller holds one. */
static inline bool mv_page_unpin(uint32_t *page)
{
	uint32_t before = __atomic_fetch_sub(page, MV_WORD_PIN, __ATOMIC_ACQ_REL);

	return (before & MV_WORD_PINS) == MV_WORD_PIN;
}

#endif /* MV_LEDGER_H */
