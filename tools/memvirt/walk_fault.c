/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Why a walk failed, in a sentence: which entry, which bit; see walk_decode.h. The walkers say
 * that it failed and with which code; here the entries that they read are looked at again, in
 * the order in which a processor checks them. SDM vol. 3, 4.6 and 4.7; 29.3.3.
 */
#include "memvirt/walk_decode.h"

#include <stdarg.h>
#include <stdio.h>

#define BIT(n)	   (1ULL << (n))
#define ENTRY_W	   BIT(1)
#define ENTRY_U	   BIT(2)
#define ENTRY_NX   BIT(63)
#define CR4_SMEP   BIT(20)
#define CR4_SMAP   BIT(21)
#define EPT_R	   BIT(0)
#define EPT_W	   BIT(1)
#define EPT_RIGHTS 7ULL
#define PKEY_SHIFT 59

/* Where which half of a fault's words are collected. */
struct sentence {
	char *text;
	size_t used;
};

__attribute__((format(printf, 2, 3))) static void say_more(struct sentence *s, const char *format,
							   ...)
{
	va_list args;
	int len;

	va_start(args, format);
	len = vsnprintf(s->text + s->used, DECODE_REASON_MAX - s->used, format, args);
	va_end(args);
	if (len > 0)
		s->used += (size_t)len;
	if (s->used >= DECODE_REASON_MAX)
		s->used = DECODE_REASON_MAX - 1;
}

/* --- stage 1 ------------------------------------------------------------------------------ */

/* A PDPTE of PAE paging has no rights. */
static bool has_rights(const struct mv_paging *paging, const struct mv_walk_step *step)
{
	return paging->format != MV_FORMAT_X86_PAE || step->level != 3;
}

/* The first entry that has a bit set, or clear; NULL where none has. */
static const struct mv_walk_step *find_step(const struct mv_paging *paging,
					    const struct mv_walk *walk, uint64_t bit, bool set)
{
	for (unsigned int i = 0; i < walk->steps; i++) {
		const struct mv_walk_step *step = &walk->step[i];

		if (has_rights(paging, step) && !!(step->entry & bit) == set)
			return step;
	}
	return NULL;
}

static void say_bits(struct sentence *s, uint64_t bits)
{
	const char *comma = "";

	for (unsigned int bit = 0; bit < 64; bit++)
		if (bits >> bit & 1) {
			say_more(s, "%s%u", comma, bit);
			comma = ", ";
		}
}

static void say_reserved(struct sentence *s, enum mv_format_id format, const struct mv_rules *rules,
			 const struct mv_walk_step *step)
{
	bool leaf = decode_is_leaf(rules, step->level, step->entry);
	uint64_t reserved =
		leaf ? rules->reserved_leaf[step->level] : rules->reserved_table[step->level];

	reserved &= step->entry;
	say_more(s, "reserved bit%s ", reserved & (reserved - 1) ? "s" : "");
	say_bits(s, reserved);
	say_more(s, " of the %s set", decode_level_name(format, step->level));
}

static void say_key(struct sentence *s, const struct mv_paging *paging, const struct mv_walk *walk)
{
	const struct mv_walk_step *leaf = &walk->step[walk->steps - 1];
	bool user = !find_step(paging, walk, ENTRY_U, false);
	unsigned int key = (unsigned int)(leaf->entry >> PKEY_SHIFT) & 15;
	uint32_t rights = paging->keys[user ? 1 : 0] >> (2 * key) & 3;

	say_more(s, "protection key %u of the %s is denied %s by %s", key,
		 decode_level_name(paging->format, leaf->level), rights & 1 ? "access" : "writing",
		 user ? "PKRU" : "PKRS");
}

/* One entry whose bit forbids. Return: whether there was one. */
static bool say_bit(struct sentence *s, const struct mv_paging *paging, const struct mv_walk *walk,
		    const char *name, unsigned int bit, bool forbids_set)
{
	const struct mv_walk_step *step = find_step(paging, walk, BIT(bit), forbids_set);

	if (step)
		say_more(s, "%s (bit %u) of the %s is %d", name, bit,
			 decode_level_name(paging->format, step->level), forbids_set);
	return step;
}

static void say_rights(struct sentence *s, const struct mv_paging *paging,
		       const struct mv_walk *walk, unsigned int access)
{
	uint64_t cr4 = paging->registers.cr4;
	bool user_page = !find_step(paging, walk, ENTRY_U, false);
	bool fetch = access & MV_ACCESS_FETCH;

	if (walk->error_code & MV_PF_PKEY)
		say_key(s, paging, walk);
	else if (fetch && (paging->rules.meaningful & ENTRY_NX) &&
		 say_bit(s, paging, walk, "NX", 63, true))
		return;
	else if ((access & MV_ACCESS_USER) && say_bit(s, paging, walk, "U", 2, false))
		return;
	else if (!(access & MV_ACCESS_USER) && user_page && fetch && (cr4 & CR4_SMEP))
		say_more(s, "the page is a user's, from which SMEP lets no supervisor fetch");
	else if ((access & MV_ACCESS_WRITE) && say_bit(s, paging, walk, "W", 1, false))
		return;
	else if (!(access & MV_ACCESS_USER) && user_page && !fetch && (cr4 & CR4_SMAP))
		say_more(s, "the page is a user's, which SMAP keeps from supervisors");
	else
		say_more(s, "the access is not allowed");
}

static void say_not_canonical(struct sentence *s, const struct mv_paging *paging, uint64_t gva)
{
	unsigned int sign = paging->format == MV_FORMAT_X86_5L ? 56 : 47;

	if (paging->format == MV_FORMAT_X86_4L || paging->format == MV_FORMAT_X86_5L)
		say_more(s, "bits 63 to %u are not all equal", sign);
	else
		say_more(s, "it has more than 32 bits");
	say_more(s, ": not canonical, a general-protection fault and no page fault");
}

void decode_fault(const struct mv_paging *paging, const struct mv_walk *walk, uint64_t gva,
		  unsigned int access, char *reason)
{
	struct sentence s = { reason, 0 };
	const struct mv_walk_step *last = walk->steps ? &walk->step[walk->steps - 1] : NULL;

	reason[0] = '\0';
	if (walk->kind == MV_WALK_NOT_CANONICAL || !last)
		say_not_canonical(&s, paging, gva);
	else if (!(walk->error_code & MV_PF_PRESENT))
		say_more(&s, "P (bit 0) of the %s is 0",
			 decode_level_name(paging->format, last->level));
	else if (walk->error_code & MV_PF_RESERVED)
		say_reserved(&s, paging->format, &paging->rules, last);
	else
		say_rights(&s, paging, walk, access);
}

/* --- stage 2 ------------------------------------------------------------------------------ */

static void say_misconfigured(struct sentence *s, const struct mv_stage2 *stage2,
			      const struct mv_walk_step *step)
{
	bool leaf = decode_is_leaf(&stage2->rules, step->level, step->entry);
	uint64_t reserved = leaf ? stage2->rules.reserved_leaf[step->level]
				 : stage2->rules.reserved_table[step->level];
	const char *name = decode_level_name(stage2->format, step->level);

	if (step->entry & reserved)
		say_reserved(s, stage2->format, &stage2->rules, step);
	else if ((step->entry & EPT_W) && !(step->entry & EPT_R))
		say_more(s, "the %s grants writing without reading", name);
	else if (!(step->entry & EPT_R))
		say_more(s, "the %s grants execution alone", name);
	else
		say_more(s, "the %s has memory type %u", name,
			 (unsigned int)(step->entry >> 3) & 7);
}

/* Qualification bits 2:0 of the access, 5:3 of what all entries grant. SDM vol. 3, table 28-7. */
static void say_ept_rights(struct sentence *s, uint64_t code)
{
	static const char *const rights[] = { "read", "written", "executed" };
	uint64_t missing = code & EPT_RIGHTS & ~(code >> 3);

	for (unsigned int i = 0; i < 3; i++)
		if (missing >> i & 1) {
			say_more(s, "the entries together do not let it be %s", rights[i]);
			return;
		}
	say_more(s, "the entries together do not let a %s access through",
		 code & 4 ? "user's or supervisor's" : "guest's");
}

/* EXITINFO1 is a page fault's error code of a user access. APM vol. 2, 15.25.6. */
static void say_npt_rights(struct sentence *s, const struct mv_stage2 *stage2,
			   const struct mv_stage2_walk *walk)
{
	static const struct {
		unsigned int code;
		unsigned int bit;
		bool forbids_set;
		const char *name;
	} causes[] = {
		{ MV_PF_FETCH, 63, true, "NX" },
		{ MV_PF_USER, 2, false, "U" },
		{ MV_PF_WRITE, 1, false, "W" },
	};

	for (unsigned int c = 0; c < 3; c++)
		for (unsigned int i = 0; i < walk->steps; i++) {
			if (!(walk->code & causes[c].code) ||
			    !!(walk->step[i].entry >> causes[c].bit & 1) != causes[c].forbids_set)
				continue;
			say_more(s, "%s (bit %u) of the %s is %d", causes[c].name, causes[c].bit,
				 decode_level_name(stage2->format, walk->step[i].level),
				 causes[c].forbids_set);
			return;
		}
	say_more(s, "the access is not allowed");
}

void decode_stage2_fault(const struct mv_stage2 *stage2, const struct mv_stage2_walk *walk,
			 char *reason)
{
	const struct mv_walk_step *last = walk->steps ? &walk->step[walk->steps - 1] : NULL;
	struct sentence s = { reason, 0 };

	reason[0] = '\0';
	if (!last)
		say_more(&s, "the address is wider than the tables");
	else if (walk->kind == MV_STAGE2_MISCONFIGURED && decode_is_ept(stage2->format))
		say_misconfigured(&s, stage2, last);
	else if (walk->kind == MV_STAGE2_MISCONFIGURED)
		say_reserved(&s, stage2->format, &stage2->rules, last);
	else if (!decode_is_present(&stage2->rules, last->entry))
		say_more(&s, "the %s is not present",
			 decode_level_name(stage2->format, last->level));
	else if (decode_is_ept(stage2->format))
		say_ept_rights(&s, walk->code);
	else
		say_npt_rights(&s, stage2, walk);
}
