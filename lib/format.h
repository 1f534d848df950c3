/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Formats: the constant description of each table layout, and the few questions that are asked
 * of an entry. All that differs between 32-bit paging and 5-level EPT is here; what is done
 * with tables (table_engine.h, guest_walk.c, ept/stage2.c) is written once.
 *
 * Everything takes the format first and is inlined: a caller that hands in a constant gets code
 * for that format alone.
 *
 * Levels count up from 1, whose entries map 4 KiB; arrays by level leave element 0 unused. An
 * entry is a uint64_t here whatever it takes in memory.
 */
#ifndef MV_FORMAT_H
#define MV_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#include <memvirt/table.h>

#define MV_INLINE static inline __attribute__((always_inline))

#define MV_BIT(n)	  (1ULL << (n))
#define MV_BITS(high, low) ((~0ULL >> (63 - (high))) & (~0ULL << (low)))

/**
 * struct mv_format - one layout
 * @name:       as users say it
 * @id:         its number
 * @levels:     level of the root
 * @entry_lg2:  log2 of an entry's bytes: 2 or 3
 * @shift:      by level: log2 of the bytes that an entry stands for
 * @index_lg2:  by level: log2 of the number of entries
 * @leaf_levels: bitmap of levels that map pages whatever the features
 * @present:    present where any of these is set
 * @frame:      physical address, bits
 * @leaf:       above level 1: a page, not a table
 * @read:       a leaf may be read where all of these are set
 * @write, @exec, @exec_user, @user, @global: granted where set; 0 where there is no such bit
 * @no_exec:    fetches forbidden where set
 * @accessed, @dirty: set by the processor; tables have @accessed only
 * @ignore_pat: EPT bit 6
 * @suppress_ve: EPT bit 63
 * @soft:       processors ignore these, in tables and leaves
 * @table_rights: of an entry that points to a table, by level: grants everything, so that
 *              leaves alone decide
 * @type_low:   lowest bit of the memory type: three in a row (EPT), or PWT and PCD (x86)
 * @pat_small, @pat_large: x86: third bit of the PAT index, in a 4 KiB leaf and in a larger one
 * @pkey_low:   lowest bit of the protection key, 0 for none
 * @pse36:      a large leaf keeps bits 39:32 of its address in bits 20:13
 */
struct mv_format {
	const char *name;
	enum mv_format_id id;
	uint8_t levels;
	uint8_t entry_lg2;
	uint8_t shift[MV_LEVEL_MAX + 1];
	uint8_t index_lg2[MV_LEVEL_MAX + 1];
	uint8_t leaf_levels;
	uint64_t present;
	uint64_t frame;
	uint64_t leaf;
	uint64_t read, write, exec, exec_user, user, global;
	uint64_t no_exec;
	uint64_t accessed, dirty;
	uint64_t ignore_pat, suppress_ve;
	uint64_t soft[2];
	uint64_t table_rights[MV_LEVEL_MAX + 1];
	uint8_t type_low;
	uint64_t pat_small, pat_large;
	uint8_t pkey_low;
	bool pse36;
};

/* By enum mv_format_id. Who wants code folded for one format names its constant: formats.h. */
extern const struct mv_format *const mv_formats[MV_FORMATS];

/* @maxphyaddr: 32 to 52. For PSE-36 a width above 32 says that it is there. */
void mv_rules_init(const struct mv_format *f, uint32_t features, unsigned int maxphyaddr,
		   struct mv_rules *rules);

/* --- questions of one entry --------------------------------------------------------------- */

MV_INLINE bool mv_entry_present(const struct mv_rules *rules, uint64_t entry)
{
	return entry & rules->present;
}

/* Of a present entry. PS where no page of that size exists is a reserved bit, or ignored. */
MV_INLINE bool mv_entry_is_leaf(const struct mv_format *f, const struct mv_rules *rules,
				unsigned int level, uint64_t entry)
{
	return level == 1 || ((rules->leaf_levels >> level & 1) && (entry & f->leaf));
}

MV_INLINE uint64_t mv_entry_reserved(const struct mv_rules *rules, unsigned int level, bool leaf,
				     uint64_t entry)
{
	return entry & (leaf ? rules->reserved_leaf[level] : rules->reserved_table[level]);
}

MV_INLINE unsigned int mv_index(const struct mv_format *f, unsigned int level, uint64_t address)
{
	return (unsigned int)(address >> f->shift[level]) & ((1u << f->index_lg2[level]) - 1);
}

/*
 * A sum that is made before what it is added to is known. Left to themselves, compilers add in an
 * order that makes the next load of a walk wait longer for the last one.
 */
MV_INLINE uint64_t mv_sum_first(uint64_t sum)
{
	__asm__("" : "+r"(sum));
	return sum;
}

/* Bytes of address that one entry of a level stands for, less one. */
MV_INLINE uint64_t mv_span_mask(const struct mv_format *f, unsigned int level)
{
	return MV_BIT(f->shift[level]) - 1;
}

/* The physical address in an entry that points to a table. */
MV_INLINE uint64_t mv_entry_table(const struct mv_format *f, uint64_t entry)
{
	return entry & f->frame;
}

/* The physical address of the page that a leaf maps. */
MV_INLINE uint64_t mv_entry_page(const struct mv_format *f, unsigned int level, uint64_t entry)
{
	uint64_t phys = entry & f->frame & ~mv_span_mask(f, level);

	if (f->pse36 && level > 1)
		phys |= (entry & MV_BITS(20, 13)) << (32 - 13);
	return phys;
}

/* --- making and reading entries ----------------------------------------------------------- */

/* @phys where a leaf keeps it. */
MV_INLINE uint64_t mv_page_bits(const struct mv_format *f, unsigned int level, uint64_t phys)
{
	if (f->pse36 && level > 1)
		return (phys & f->frame) | (phys >> (32 - 13) & MV_BITS(20, 13));
	return phys;
}

/* Third bit of the PAT index; 0 in EPT, whose three bits of type are neighbours. */
MV_INLINE uint64_t mv_pat_bit(const struct mv_format *f, unsigned int level)
{
	return level == 1 ? f->pat_small : f->pat_large;
}

MV_INLINE uint64_t mv_type_bits(const struct mv_format *f, unsigned int level, uint32_t attr)
{
	uint64_t type = MV_ATTR_TYPE_OF(attr);
	uint64_t pat = mv_pat_bit(f, level);

	if (!pat)
		return type << f->type_low;
	return (type & 3) << f->type_low | (type & 4 ? pat : 0);
}

MV_INLINE uint32_t mv_type_attr(const struct mv_format *f, unsigned int level, uint64_t entry)
{
	uint32_t type = (uint32_t)(entry >> f->type_low);
	uint64_t pat = mv_pat_bit(f, level);

	if (!pat)
		return MV_ATTR_TYPE(type & 7);
	return MV_ATTR_TYPE((type & 3) | (entry & pat ? 4 : 0));
}

/* The bits of a leaf that attributes decide. */
MV_INLINE uint64_t mv_leaf_bits(const struct mv_format *f, const struct mv_rules *rules,
				unsigned int level, uint32_t attr)
{
	uint64_t entry = mv_type_bits(f, level, attr) | (level > 1 ? f->leaf : 0);

	/* EPT has no bit that says no more than present; elsewhere rights do not decide it. */
	entry |= f->exec ? 0 : f->present;
	entry |= attr & MV_ATTR_READ ? f->read : 0;
	entry |= attr & MV_ATTR_WRITE ? f->write : 0;
	entry |= attr & MV_ATTR_EXEC ? f->exec : f->no_exec;
	entry |= attr & MV_ATTR_EXEC_USER ? f->exec_user : 0;
	entry |= attr & MV_ATTR_USER ? f->user : 0;
	entry |= attr & MV_ATTR_GLOBAL ? f->global : 0;
	entry |= attr & MV_ATTR_ACCESSED ? f->accessed : 0;
	entry |= attr & MV_ATTR_DIRTY ? f->dirty : 0;
	entry |= attr & MV_ATTR_IGNORE_PAT ? f->ignore_pat : 0;
	entry |= attr & MV_ATTR_SUPPRESS_VE ? f->suppress_ve : 0;
	entry |= attr & MV_ATTR_SOFT0 ? f->soft[0] : 0;
	entry |= attr & MV_ATTR_SOFT1 ? f->soft[1] : 0;
	entry |= f->pkey_low ? (uint64_t)MV_ATTR_PKEY_OF(attr) << f->pkey_low : 0;
	return entry & rules->meaningful;
}

/* Bits moved to where attributes have them. @from: none, or as many neighbours as @to. */
MV_INLINE uint32_t mv_bits_attr(uint64_t entry, uint64_t from, uint32_t to)
{
	int right = from ? __builtin_ctzll(from) - __builtin_ctz(to) : 0;

	entry &= from;
	return (uint32_t)(right < 0 ? entry << -right : entry >> right);
}

/* What the bits of a leaf say; the inverse of mv_leaf_bits(). */
MV_INLINE uint32_t mv_leaf_attr(const struct mv_format *f, const struct mv_rules *rules,
				unsigned int level, uint64_t entry)
{
	uint32_t attr;

	entry &= rules->meaningful;
	attr = mv_type_attr(f, level, entry);
	attr |= (entry & f->read) == f->read ? MV_ATTR_READ : 0;
	attr |= mv_bits_attr(entry, f->write, MV_ATTR_WRITE);
	attr |= (f->exec ? entry & f->exec : !(entry & f->no_exec)) ? MV_ATTR_EXEC : 0;
	attr |= mv_bits_attr(entry, f->exec_user, MV_ATTR_EXEC_USER);
	attr |= mv_bits_attr(entry, f->user, MV_ATTR_USER);
	attr |= mv_bits_attr(entry, f->global, MV_ATTR_GLOBAL);
	attr |= mv_bits_attr(entry, f->accessed | f->dirty, MV_ATTR_ACCESSED | MV_ATTR_DIRTY);
	attr |= mv_bits_attr(entry, f->ignore_pat, MV_ATTR_IGNORE_PAT);
	attr |= mv_bits_attr(entry, f->suppress_ve, MV_ATTR_SUPPRESS_VE);
	attr |= mv_bits_attr(entry, f->soft[0] | f->soft[1], MV_ATTR_SOFT0 | MV_ATTR_SOFT1);
	attr |= f->pkey_low ? MV_ATTR_PKEY((uint32_t)(entry >> f->pkey_low) & 15) : 0;
	return attr;
}

#endif /* MV_FORMAT_H */
