/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Entries in memory: how one is read and changed while others, processors among them, do the
 * same; and marks, the not-present entries with which operations speak to each other.
 *
 * A live entry is changed by compare-exchange, never stored: a processor may set accessed and
 * dirty in it at any moment. Plain stores fill tables that nobody can reach
 * yet; the compare-exchange that links such a table releases them.
 *
 * What does not belong here: what an entry means (format.h).
 */
#ifndef MV_TABLE_ENTRY_H
#define MV_TABLE_ENTRY_H

#include "format.h"

#define MV_TABLE_BYTES 4096

MV_INLINE unsigned int mv_entries(const struct mv_format *f, unsigned int level)
{
	return 1u << f->index_lg2[level];
}

/* Acquire pairs with the release in mv_entry_swap(): a table that is reached is whole. */
MV_INLINE uint64_t mv_entry_load(const struct mv_format *f, const void *table, unsigned int index)
{
	if (f->entry_lg2 == 2)
		return __atomic_load_n((const uint32_t *)table + index, __ATOMIC_ACQUIRE);
	return __atomic_load_n((const uint64_t *)table + index, __ATOMIC_ACQUIRE);
}

/* In a table that nobody else reaches. */
MV_INLINE void mv_entry_fill(const struct mv_format *f, void *table, unsigned int index,
			     uint64_t entry)
{
	if (f->entry_lg2 == 2)
		((uint32_t *)table)[index] = (uint32_t)entry;
	else
		((uint64_t *)table)[index] = entry;
}

/*
 * Change @old into @entry; false, and @old as it is, where it differs. Sequentially consistent:
 * lib/region.h needs that of the entries of grants and revokes.
 */
MV_INLINE bool mv_entry_swap(const struct mv_format *f, void *table, unsigned int index,
			     uint64_t *old, uint64_t entry)
{
	if (f->entry_lg2 == 2) {
		uint32_t was = (uint32_t)*old;
		bool swapped = __atomic_compare_exchange_n((uint32_t *)table + index, &was,
							   (uint32_t)entry, false, __ATOMIC_SEQ_CST,
							   __ATOMIC_SEQ_CST);
		*old = was;
		return swapped;
	}
	return __atomic_compare_exchange_n((uint64_t *)table + index, old, entry, false,
					   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* The union of four neighbours: to see quickly that none of them has some bits. */
MV_INLINE uint64_t mv_entry_four(const struct mv_format *f, const void *table, unsigned int index)
{
	return mv_entry_load(f, table, index) | mv_entry_load(f, table, index + 1) |
	       mv_entry_load(f, table, index + 2) | mv_entry_load(f, table, index + 3);
}

MV_INLINE void mv_entry_prefetch(const struct mv_format *f, const void *table, unsigned int index)
{
	__builtin_prefetch((const char *)table + ((size_t)index << f->entry_lg2));
}

MV_INLINE bool mv_entry_is_table(const struct mv_format *f, const struct mv_rules *rules,
				 unsigned int level, uint64_t entry)
{
	return mv_entry_present(rules, entry) && !mv_entry_is_leaf(f, rules, level, entry);
}

/* --- marks -------------------------------------------------------------------------------- */

/*
 * A mark has bit 11, its kind in bits 4:3, and a number from bit 12 up: bits that make neither
 * an x86 nor an EPT entry present, and that are none of the accessed and dirty bits. The number is
 * stored inverted: where a processor speculates on entries that are not present (L1TF), it finds a
 * frame at the far end of physical memory, not some real one.
 */
enum mv_mark {
	/* Somebody replaces what was here, and has to flush first. Who wants to install waits. */
	MV_MARK_FROZEN,
	/* Reserved by a grant that has yet to see whether it still holds. */
	MV_MARK_PENDING,
	/* Somebody makes sure that the table is empty, to take it away. Who wants to install waits.
	 */
	MV_MARK_SEALED,
};

#define MV_MARK_BIT	 MV_BIT(11)
#define MV_MARK_KIND_LOW 3

/* 51 bits of number; 20 in formats with small entries, where it comes round. */
MV_INLINE uint64_t mv_mark_number_bits(const struct mv_format *f)
{
	return f->entry_lg2 == 2 ? MV_BITS(31, 12) : MV_BITS(62, 12);
}

MV_INLINE uint64_t mv_mark_make(const struct mv_format *f, const struct mv_rules *rules,
				enum mv_mark kind, uint64_t number)
{
	return rules->empty | MV_MARK_BIT | (uint64_t)kind << MV_MARK_KIND_LOW |
	       (~(number << 12) & mv_mark_number_bits(f));
}

MV_INLINE bool mv_entry_is_mark(const struct mv_rules *rules, uint64_t entry, enum mv_mark kind)
{
	return !mv_entry_present(rules, entry) && (entry & MV_MARK_BIT) &&
	       (entry >> MV_MARK_KIND_LOW & 3) == kind;
}

/* The number of a mark. */
MV_INLINE uint64_t mv_mark_number(const struct mv_format *f, uint64_t entry)
{
	return (~entry & mv_mark_number_bits(f)) >> 12;
}

/* Somebody is at work here, and who wants to change the entry waits for them. */
MV_INLINE bool mv_entry_is_held(const struct mv_rules *rules, uint64_t entry)
{
	return mv_entry_is_mark(rules, entry, MV_MARK_FROZEN) ||
	       mv_entry_is_mark(rules, entry, MV_MARK_SEALED);
}

#endif /* MV_TABLE_ENTRY_H */
