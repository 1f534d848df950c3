/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Entries in words; see walk_decode.h. Why walks fail is in walk_fault.c.
 */
#include "memvirt/walk_decode.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BIT(n)		(1ULL << (n))
#define BITS(high, low) ((~0ULL >> (63 - (high))) & (~0ULL << (low)))
#define FRAME		BITS(51, 12)
#define PAGE_SIZE_BIT	BIT(7)
#define COUNT_OF(a)	(sizeof(a) / sizeof((a)[0]))

/* Kinds of entries, as bits. */
#define TABLE 1u
#define SMALL 2u /* maps 4 KiB */
#define LARGE 4u
#define LEAF  (SMALL | LARGE)
#define ALL   (TABLE | LEAF)

struct bit_name {
	uint8_t bit;
	uint8_t where;
	char name[7];
};

static const struct bit_name x86_bits[] = {
	{ 0, ALL, "P" },      { 1, ALL, "W" },	    { 2, ALL, "U" },	  { 3, ALL, "PWT" },
	{ 4, ALL, "PCD" },    { 5, ALL, "A" },	    { 6, LEAF, "D" },	  { 7, SMALL, "PAT" },
	{ 7, LARGE, "PS" },   { 8, LEAF, "G" },	    { 9, ALL, "avl9" },	  { 10, ALL, "avl10" },
	{ 11, ALL, "avl11" }, { 12, LARGE, "PAT" }, { 52, ALL, "avl52" }, { 53, ALL, "avl53" },
	{ 54, ALL, "avl54" }, { 55, ALL, "avl55" }, { 56, ALL, "avl56" }, { 57, ALL, "avl57" },
	{ 58, ALL, "avl58" }, { 63, ALL, "NX" },
};

static const struct bit_name ept_bits[] = {
	{ 0, ALL, "R" },      { 1, ALL, "W" },	    { 2, ALL, "X" },	  { 6, LEAF, "IPAT" },
	{ 7, LARGE, "PS" },   { 8, ALL, "A" },	    { 9, LEAF, "D" },	  { 10, ALL, "XU" },
	{ 52, ALL, "avl52" }, { 53, ALL, "avl53" }, { 54, ALL, "avl54" }, { 55, ALL, "avl55" },
	{ 57, LEAF, "VGP" },  { 58, LEAF, "PW" },   { 60, LEAF, "SSS" },  { 61, SMALL, "SPP" },
	{ 63, LEAF, "SVE" },
};

static const struct bit_name error_bits[] = {
	{ 0, ALL, "P" },   { 1, ALL, "W" },  { 2, ALL, "U" },  { 3, ALL, "RSVD" },
	{ 4, ALL, "I/D" }, { 5, ALL, "PK" }, { 6, ALL, "SS" },
};

/* --- formats ------------------------------------------------------------------------------ */

static bool is_32_bit(enum mv_format_id format)
{
	return format == MV_FORMAT_X86_32 || format == MV_FORMAT_X86_PSE;
}

bool decode_is_ept(enum mv_format_id format)
{
	return format == MV_FORMAT_EPT_4L || format == MV_FORMAT_EPT_5L;
}

const char *decode_mode_name(enum mv_format_id format)
{
	static const char *const names[MV_FORMATS] = {
		[MV_FORMAT_X86_32] = "32-bit paging",
		[MV_FORMAT_X86_PSE] = "32-bit paging with 4 MiB pages",
		[MV_FORMAT_X86_PAE] = "PAE paging",
		[MV_FORMAT_X86_4L] = "4-level paging",
		[MV_FORMAT_X86_5L] = "5-level paging",
		[MV_FORMAT_EPT_4L] = "EPT, 4 levels",
		[MV_FORMAT_EPT_5L] = "EPT, 5 levels",
		[MV_FORMAT_NPT_4L] = "nested paging, 4 levels",
		[MV_FORMAT_NPT_5L] = "nested paging, 5 levels",
	};

	return names[format];
}

const char *decode_level_name(enum mv_format_id format, unsigned int level)
{
	static const char *const x86[] = { "", "PTE", "PDE", "PDPTE", "PML4E", "PML5E" };
	static const char *const ept[] = { "",		"EPT PTE",   "EPT PDE",
					   "EPT PDPTE", "EPT PML4E", "EPT PML5E" };

	return decode_is_ept(format) ? ept[level] : x86[level];
}

unsigned int decode_shift(enum mv_format_id format, unsigned int level)
{
	return 12 + (level - 1) * (is_32_bit(format) ? 10 : 9);
}

unsigned int decode_index(enum mv_format_id format, unsigned int level, uint64_t address)
{
	unsigned int entries = is_32_bit(format) ? 1024 : 512;

	if (format == MV_FORMAT_X86_PAE && level == 3)
		entries = 4;
	return (unsigned int)(address >> decode_shift(format, level)) & (entries - 1);
}

/* --- one entry ---------------------------------------------------------------------------- */

bool decode_is_present(const struct mv_rules *rules, uint64_t entry)
{
	return entry & rules->present;
}

bool decode_is_leaf(const struct mv_rules *rules, unsigned int level, uint64_t entry)
{
	return level == 1 || ((rules->leaf_levels >> level & 1) && (entry & PAGE_SIZE_BIT));
}

uint64_t decode_target(enum mv_format_id format, const struct mv_rules *rules, unsigned int level,
		       uint64_t entry)
{
	uint64_t frame = entry & (is_32_bit(format) ? BITS(31, 12) : FRAME);

	if (!decode_is_leaf(rules, level, entry))
		return frame;
	frame &= ~(BIT(decode_shift(format, level)) - 1);
	/* PSE-36: address bits 39:32 in bits 20:13. */
	if (format == MV_FORMAT_X86_PSE && level == 2)
		frame |= (entry & BITS(20, 13)) << 19;
	return frame;
}

__attribute__((format(printf, 2, 3))) static void add(struct decode_bits *bits, const char *format,
						      ...)
{
	va_list args;

	if (bits->count == DECODE_BITS_MAX)
		return;
	va_start(args, format);
	vsnprintf(bits->name[bits->count++], DECODE_BIT_TEXT, format, args);
	va_end(args);
}

static void add_name(struct decode_bits *bits, const char *name)
{
	if (bits->count < DECODE_BITS_MAX)
		strcpy(bits->name[bits->count++], name);
}

static const char *name_of(const struct bit_name *names, size_t count, unsigned int bit,
			   unsigned int where)
{
	for (size_t i = 0; i < count; i++)
		if (names[i].bit == bit && (names[i].where & where))
			return names[i].name;
	return NULL;
}

const char *decode_type_name(unsigned int type)
{
	static const char *const names[8] = { "UC", "WC", "type 2", "type 3",
					      "WT", "WP", "WB",	    "type 7" };

	return names[type & 7];
}

/* What is more than one bit. */
static void add_fields(enum mv_format_id format, const struct mv_rules *rules, unsigned int where,
		       uint64_t entry, struct decode_bits *bits)
{
	if (!(where & LEAF))
		return;
	if (decode_is_ept(format))
		add_name(bits, decode_type_name((unsigned int)(entry >> 3)));
	else if ((format == MV_FORMAT_X86_4L || format == MV_FORMAT_X86_5L) &&
		 (rules->meaningful & BITS(62, 59)) && (entry & BITS(62, 59)))
		add(bits, "key=%u", (unsigned int)(entry >> 59) & 15);
}

void decode_entry(enum mv_format_id format, const struct mv_rules *rules, unsigned int level,
		  uint64_t entry, struct decode_bits *bits)
{
	bool ept = decode_is_ept(format);
	const struct bit_name *names = ept ? ept_bits : x86_bits;
	size_t count = ept ? COUNT_OF(ept_bits) : COUNT_OF(x86_bits);
	bool leaf = decode_is_leaf(rules, level, entry);
	unsigned int where = !leaf ? TABLE : level == 1 ? SMALL : LARGE;
	uint64_t reserved = leaf ? rules->reserved_leaf[level] : rules->reserved_table[level];

	bits->count = 0;
	if (!decode_is_present(rules, entry))
		return;
	for (uint64_t left = entry; left; left &= left - 1) {
		unsigned int bit = (unsigned int)__builtin_ctzll(left);
		const char *name = name_of(names, count, bit, where);

		if (reserved >> bit & 1)
			add(bits, "rsvd%u", bit);
		else if (name)
			add_name(bits, name);
	}
	add_fields(format, rules, where, entry, bits);
}

void decode_error_code(uint32_t error_code, struct decode_bits *bits)
{
	bits->count = 0;
	for (uint32_t left = error_code; left; left &= left - 1) {
		unsigned int bit = (unsigned int)__builtin_ctz(left);
		const char *name = name_of(error_bits, COUNT_OF(error_bits), bit, ALL);

		if (name)
			add_name(bits, name);
	}
}
