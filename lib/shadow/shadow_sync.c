/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Leaf tables out of sync. A guest that writes to a leaf table writes to many of its entries, and
 * says afterwards what is to be forgotten (INVLPG, a load of CR3). So it is let write: the first
 * write makes the table writable, and what was made from it is compared, entry by entry, with
 * what stands there now, whenever the guest asks. SDM vol. 3, 4.10.4.2 and .3 say what may be stale
 * until then. Tables above stay protected: what hangs on their entries is too much to compare.
 *
 * A table that was compared a few times and had not changed is protected again, or each load of
 * CR3 would go over all tables that were ever written to. A limited number may be out of sync at
 * once; beyond it writes are emulated.
 *
 * A table's place in the list lasts as long as anything may be stale: whoever protects it again
 * keeps the place until all processors have forgotten that they may write, and a last comparison
 * is done.
 *
 * Freestanding. What does not belong here: writes that are emulated (shadow_write.c).
 */
#include "shadow_internal.h"

#define QUIET_ENOUGH 4 /* comparisons in a row that found nothing */

/* --- a table goes out of sync --------------------------------------------------------------- */

/* What is made from an upper table is not compared. Under the lock. */
static bool has_leaf_tables_only(const struct mv_shadow *s, const struct shadow_frame *frame)
{
	for (uint32_t number = frame->pages; number; number = s->pages[number].next) {
		union shadow_role role = s->pages[number].role;

		if (shadow_of_table(role) && role.level > 1)
			return false;
	}
	return true;
}

static uint64_t *taken_word(struct mv_shadow *s, const struct shadow_unsync *place)
{
	return &s->unsync_taken[(place - s->unsync) / 64];
}

static uint64_t taken_bit(const struct mv_shadow *s, const struct shadow_unsync *place)
{
	return MV_BIT((place - s->unsync) % 64);
}

static bool take_place(struct mv_shadow *s, uint64_t gpa)
{
	unsigned int start = gpa >> MV_PAGE_SHIFT & (SHADOW_UNSYNCS - 1);

	for (unsigned int i = 0; i < SHADOW_UNSYNCS; i++) {
		struct shadow_unsync *place = &s->unsync[(start + i) % SHADOW_UNSYNCS];
		uint64_t none = 0;

		if (__atomic_compare_exchange_n(&place->table, &none, gpa | SHADOW_UNSYNC_TAKEN,
						false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
			__atomic_store_n(&place->quiet, 0, __ATOMIC_RELAXED);
			/* Before the guest may write: who is told of its write finds the place. */
			__atomic_fetch_or(taken_word(s, place), taken_bit(s, place),
					  __ATOMIC_SEQ_CST);
			return true;
		}
	}
	return false;
}

bool shadow_let_write(struct mv_shadow *s, struct shadow_frame *frame, uint64_t gpa)
{
	if ((shadow_word(frame) & SHADOW_TRACKERS) || !has_leaf_tables_only(s, frame) ||
	    !take_place(s, gpa & SHADOW_FRAMES))
		return false;
	__atomic_fetch_or(&frame->word, SHADOW_UNSYNC, __ATOMIC_SEQ_CST);
	shadow_count(&s->stats.unsyncs, 1);
	return true;
}

/* --- comparisons ---------------------------------------------------------------------------- */

/* Where the guest has it. */
static void *table_at(const struct mv_shadow *s, uint64_t gpa)
{
	return shadow_host_address(shadow_slot_at(s, gpa), gpa);
}

static struct shadow_frame *table_frame(struct mv_shadow *s, uint64_t gpa)
{
	return shadow_frame_of_base(s, gpa);
}

/* Acquire, as in the walk. @copy is a whole page; only some words of it may be wanted. */
static void copy_words(const struct mv_shadow *s, uint64_t gpa, uint64_t *copy, unsigned int first,
		       unsigned int last)
{
	const uint64_t *table = table_at(s, gpa);

	for (unsigned int i = first; i <= last; i++)
		copy[i] = __atomic_load_n(&table[i], __ATOMIC_ACQUIRE);
}

/* An entry of the guest's table; of 32-bit tables a page of ours has only one half. */
static uint64_t copied_entry(const struct shadow_page *page, const uint64_t *copy,
			     unsigned int index)
{
	if (mv_formats[page->role.format]->entry_lg2 == 3)
		return copy[index];
	index += page->role.quadrant * SHADOW_ENTRIES;
	return (uint32_t)(copy[index / 2] >> index % 2 * 32);
}

/*
 * Take away what was made from another entry than the one that is there now. What is being
 * installed at this moment has no note yet: it does not come about.
 */
MV_INLINE unsigned int compare_entry(struct mv_shadow *s, struct shadow_page *page,
				     uint64_t present, unsigned int index, uint64_t now)
{
	uint64_t entry = shadow_load(page, index);

	if (!entry)
		return 0;
	if (mv_likely((entry & present) && shadow_note(page, index) == now))
		return 0;
	shadow_zap(s, page, index);
	return 1;
}

static unsigned int compare_page(struct mv_shadow *s, struct shadow_page *page,
				 const uint64_t *copy)
{
	const bool wide = mv_formats[page->role.format]->entry_lg2 == 3;
	const uint64_t present = s->format->present;
	unsigned int changed = 0;

	for (unsigned int index = 0; wide && index < SHADOW_ENTRIES; index++)
		changed += compare_entry(s, page, present, index, copy[index]);
	for (unsigned int index = 0; !wide && index < SHADOW_ENTRIES; index++)
		changed += compare_entry(s, page, present, index, copied_entry(page, copy, index));
	return changed;
}

/* Which entry of a page of ours translates an address; false for one in the other half. */
static bool index_of(const struct shadow_page *page, uint64_t gva, unsigned int *index)
{
	*index = gva >> MV_PAGE_SHIFT & (SHADOW_ENTRIES - 1);
	return mv_formats[page->role.format]->entry_lg2 == 3 ||
	       (gva >> 21 & 1) == page->role.quadrant;
}

static bool is_leaf_table(const struct shadow_page *page)
{
	return shadow_of_table(page->role) && page->role.level == 1;
}

/* Compare all that was made from a table. Return: how many entries went. */
static unsigned int compare_table(struct mv_shadow_vcpu *vcpu, uint64_t gpa)
{
	struct mv_shadow *s = vcpu->shadow;
	struct shadow_frame *frame = table_frame(s, gpa);
	unsigned int changed = 0;
	uint32_t number;

	shadow_count(&s->stats.syncs, 1);
	vcpu->cost.syncs++;
	/* Before the table is read: who installs from now on has read no older entry. */
	__atomic_fetch_add(&frame->writes, 1, __ATOMIC_SEQ_CST);
	/* It may have to be brought in, so not in a read section. */
	copy_words(s, gpa, vcpu->copy, 0, SHADOW_ENTRIES - 1);
	shadow_enter(s);
	number = __atomic_load_n(&frame->pages, __ATOMIC_SEQ_CST);
	for (; number; number = __atomic_load_n(&s->pages[number].next, __ATOMIC_SEQ_CST))
		if (is_leaf_table(&s->pages[number]))
			changed += compare_page(s, &s->pages[number], vcpu->copy);
	shadow_leave(s);
	return changed;
}

/* The same for the entries that may translate an address. */
static void compare_address(struct mv_shadow_vcpu *vcpu, uint64_t gpa, uint64_t gva)
{
	struct mv_shadow *s = vcpu->shadow;
	struct shadow_frame *frame = table_frame(s, gpa);
	unsigned int index = gva >> MV_PAGE_SHIFT & (SHADOW_ENTRIES - 1), half;
	uint32_t number;

	half = (index + (gva >> 21 & 1 ? SHADOW_ENTRIES : 0)) / 2;
	__atomic_fetch_add(&frame->writes, 1, __ATOMIC_SEQ_CST);
	copy_words(s, gpa, vcpu->copy, index, index);
	copy_words(s, gpa, vcpu->copy, half, half);
	shadow_enter(s);
	number = __atomic_load_n(&frame->pages, __ATOMIC_SEQ_CST);
	for (; number; number = __atomic_load_n(&s->pages[number].next, __ATOMIC_SEQ_CST)) {
		struct shadow_page *page = &s->pages[number];

		if (is_leaf_table(page) && index_of(page, gva, &index))
			compare_entry(s, page, s->format->present, index,
				      copied_entry(page, vcpu->copy, index));
	}
	shadow_leave(s);
}

/* --- what the guest asks for ---------------------------------------------------------------- */

static uint64_t place_table(const struct shadow_unsync *place)
{
	uint64_t table = __atomic_load_n(&place->table, __ATOMIC_SEQ_CST);

	return table & SHADOW_UNSYNC_TAKEN ? table & SHADOW_FRAMES : UINT64_MAX;
}

/* A page that is no table any more may have been given away: it must not be touched. */
static bool is_shadowed(struct mv_shadow *s, uint64_t gpa)
{
	return shadow_word(table_frame(s, gpa)) & SHADOW_TABLES;
}

static bool is_unsync(struct mv_shadow *s, uint64_t gpa)
{
	return shadow_word(table_frame(s, gpa)) & SHADOW_UNSYNC;
}

static void give_place(struct mv_shadow *s, struct shadow_unsync *place)
{
	/* First, or it would be the next one's. */
	__atomic_fetch_and(taken_word(s, place), ~taken_bit(s, place), __ATOMIC_SEQ_CST);
	__atomic_store_n(&place->table, 0, __ATOMIC_SEQ_CST);
	/* Last: who has the place owns it. */
	__atomic_store_n(&place->owned, 0, __ATOMIC_SEQ_CST);
}

static void protect_again(struct mv_shadow *s, uint64_t gpa)
{
	struct shadow_frame *frame = table_frame(s, gpa);

	shadow_lock(s, frame);
	if (shadow_word(frame) & SHADOW_UNSYNC) {
		__atomic_fetch_and(&frame->word, ~SHADOW_UNSYNC, __ATOMIC_SEQ_CST);
		shadow_protect_locked(s, frame);
	}
	shadow_unlock(frame);
}

/* A place whose table is quiet, or not out of sync any more, becomes this vCPU's. */
static bool own_quiet(struct mv_shadow *s, struct shadow_unsync *place)
{
	uint64_t table = place_table(place);

	if (table == UINT64_MAX ||
	    (is_unsync(s, table) &&
	     __atomic_load_n(&place->quiet, __ATOMIC_RELAXED) < QUIET_ENOUGH))
		return false;
	if (__atomic_exchange_n(&place->owned, 1, __ATOMIC_SEQ_CST))
		return false;
	/* Another may have given it away just before. */
	table = place_table(place);
	if (table == UINT64_MAX) {
		__atomic_store_n(&place->owned, 0, __ATOMIC_SEQ_CST);
		return false;
	}
	protect_again(s, table);
	return true;
}

static void compare_place(struct mv_shadow_vcpu *vcpu, struct shadow_unsync *place)
{
	uint64_t table = place_table(place);

	if (table == UINT64_MAX || !is_shadowed(vcpu->shadow, table))
		return;
	if (compare_table(vcpu, table))
		__atomic_store_n(&place->quiet, 0, __ATOMIC_RELAXED);
	else
		__atomic_fetch_add(&place->quiet, 1, __ATOMIC_RELAXED);
}

/* Places whose table is to be given up, protected and flushed for. Return: by number, as bits. */
static uint64_t own_quiet_ones(struct mv_shadow *s, unsigned int word, uint64_t taken)
{
	uint64_t owned = 0;

	for (; taken; taken &= taken - 1) {
		unsigned int bit = (unsigned int)__builtin_ctzll(taken);

		if (own_quiet(s, &s->unsync[word * 64 + bit]))
			owned |= MV_BIT(bit);
	}
	/* One flush for all of them, before the last comparison. */
	if (owned)
		shadow_flush(s);
	return owned;
}

static uint64_t taken_places(const struct mv_shadow *s, unsigned int word)
{
	return __atomic_load_n(&s->unsync_taken[word], __ATOMIC_SEQ_CST);
}

void shadow_sync_all(struct mv_shadow_vcpu *vcpu)
{
	struct mv_shadow *s = vcpu->shadow;

	for (unsigned int word = 0; word < SHADOW_UNSYNCS / 64; word++) {
		uint64_t taken = taken_places(s, word);
		uint64_t owned = own_quiet_ones(s, word, taken);

		for (; taken; taken &= taken - 1) {
			unsigned int bit = (unsigned int)__builtin_ctzll(taken);

			compare_place(vcpu, &s->unsync[word * 64 + bit]);
			if (owned & MV_BIT(bit))
				give_place(s, &s->unsync[word * 64 + bit]);
		}
	}
}

void shadow_sync_address(struct mv_shadow_vcpu *vcpu, uint64_t gva)
{
	struct mv_shadow *s = vcpu->shadow;

	/* The processor's own INVLPG would leave the other parts of a page. */
	if (!shadow_flushed(s, __atomic_load_n(&s->split, __ATOMIC_SEQ_CST)))
		shadow_flush(s);
	for (unsigned int word = 0; word < SHADOW_UNSYNCS / 64; word++) {
		uint64_t taken = taken_places(s, word);

		for (; taken; taken &= taken - 1) {
			unsigned int bit = (unsigned int)__builtin_ctzll(taken);
			uint64_t table = place_table(&s->unsync[word * 64 + bit]);

			if (table != UINT64_MAX && is_shadowed(s, table))
				compare_address(vcpu, table, gva);
		}
	}
}

void mv_shadow_invlpg(struct mv_shadow_vcpu *vcpu, uint64_t gva)
{
	shadow_sync_address(vcpu, gva);
}

/* More is compared than the guest asks for: a table may be one of several contexts. */
void mv_shadow_invpcid(struct mv_shadow_vcpu *vcpu, enum mv_invpcid type, unsigned int pcid,
		       uint64_t gva)
{
	if (type == MV_INVPCID_ADDRESS)
		shadow_sync_address(vcpu, gva);
	else
		shadow_sync_all(vcpu);
}

void mv_shadow_flush(struct mv_shadow_vcpu *vcpu, bool global)
{
	shadow_sync_all(vcpu);
}
