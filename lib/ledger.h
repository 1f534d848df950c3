/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The ledger's word: all that is recorded of one guest page, in 32 bits that change only
 * by compare-exchange.
 *
 *   31            16 15        9 8      7        6      5      4       3    2     0
 *  +----------------+-----------+------+--------+------+------+-------+----+-------+
 *  | pins           | 0         |ACTIVE|UNMAPPED|WAITED|CANCEL|COPYING|BUSY| state |
 *  +----------------+-----------+------+--------+------+------+-------+----+-------+
 *
 * BUSY is the page's transaction lock. Who sets it owns the page until mv_page_end().
 *
 * An eviction has two phases. While it only copies (BUSY|COPYING) a fault or a pin may
 * cancel it: CANCEL is set, the page stays where it is and may be mapped at once, since
 * the copy will be thrown away. mv_page_seal() ends the phase; from then on the page is
 * dropped and others wait. Who met a busy page sets WAITED, and the owner wakes them.
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
#define MV_WORD_CANCEL	 0x00000020u
#define MV_WORD_WAITED	 0x00000040u
#define MV_WORD_UNMAPPED 0x00000080u
#define MV_WORD_ACTIVE	 0x00000100u
#define MV_WORD_PIN	 0x00010000u
#define MV_WORD_PINS	 0xffff0000u

/* What a transaction leaves behind is state, UNMAPPED, ACTIVE and pins; these end with it. */
#define MV_WORD_TRANSIENT (MV_WORD_BUSY | MV_WORD_COPYING | MV_WORD_CANCEL | MV_WORD_WAITED)

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

/** enum mv_claim - what mv_page_claim() found */
enum mv_claim {
	MV_CLAIM_OWNED,	    /* the caller holds the busy bit */
	MV_CLAIM_CANCELLED, /* another thread's copy is cancelled: resident, may be mapped */
	MV_CLAIM_WAITED,    /* busy; its owner will wake whoever waits */
};

/**
 * mv_page_claim() - the fault path's way in: own the page, cancel its copy, or be woken
 * @page: the page's word
 * @word: the word as it was before the claim
 *
 * Never waits.
 */
static inline enum mv_claim mv_page_claim(uint32_t *page, uint32_t *word)
{
	uint32_t now = mv_page_load(page);

	for (;;) {
		uint32_t flag = !(now & MV_WORD_BUSY)	 ? MV_WORD_BUSY
				: now & MV_WORD_COPYING ? MV_WORD_CANCEL
							 : MV_WORD_WAITED;
		if (mv_page_change(page, &now, now | flag)) {
			*word = now;
			return flag == MV_WORD_BUSY	? MV_CLAIM_OWNED
			       : flag == MV_WORD_CANCEL ? MV_CLAIM_CANCELLED
							: MV_CLAIM_WAITED;
		}
	}
}

/**
 * mv_page_begin() - take the busy bit, waiting for its owner and cancelling a copy
 * @platform: for patience
 * @page:     the page's word
 *
 * Context: holds no mutex and no other busy page of a higher number; not a thread that
 * resolves faults.
 * Return: the word before, without BUSY.
 */
static inline uint32_t mv_page_begin(const struct mv_platform *platform, uint32_t *page)
{
	uint32_t now = mv_page_load(page);

	for (unsigned int turns = 0;;) {
		uint32_t next = !(now & MV_WORD_BUSY)	? now | MV_WORD_BUSY
				: now & MV_WORD_COPYING ? now | MV_WORD_CANCEL
							: now;
		if (next != now) {
			if (mv_page_change(page, &now, next) && (next ^ now) == MV_WORD_BUSY)
				return now;
			continue;
		}
		platform->ops->relax(platform->ctx, turns++);
		now = mv_page_load(page);
	}
}

/**
 * mv_page_seal() - end the copying phase: from here the page is dropped
 * @page: a page whose eviction the caller owns
 *
 * Return: false where the eviction was cancelled; the page is then still busy and copying,
 * and only mv_page_end() may follow.
 */
static inline bool mv_page_seal(uint32_t *page)
{
	uint32_t now = mv_page_load(page);

	while (!(now & MV_WORD_CANCEL))
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
 *
 * A copy is cancelled on the way: once CANCEL stands, the page will not be dropped.
 *
 * Return: 0; -1 where the count is full. *first tells whether this was the only pin.
 */
static inline int mv_page_pin(const struct mv_platform *platform, uint32_t *page, bool *first)
{
	uint32_t now = mv_page_load(page);

	for (unsigned int turns = 0;;) {
		if ((now & MV_WORD_PINS) == MV_WORD_PINS)
			return -1;
		if ((now & MV_WORD_BUSY) && !(now & MV_WORD_COPYING)) {
			platform->ops->relax(platform->ctx, turns++);
			now = mv_page_load(page);
			continue;
		}
		uint32_t cancel = now & MV_WORD_COPYING ? MV_WORD_CANCEL : 0;
		if (mv_page_change(page, &now, (now | cancel) + MV_WORD_PIN)) {
			*first = !(now & MV_WORD_PINS);
			return 0;
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
