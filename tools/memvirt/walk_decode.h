/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Entries and faults in words: what each bit of an entry is called, and why a walk failed.
 * SDM vol. 3, 4.3 to 4.7 and 29.3.2; APM vol. 2, 5.3 to 5.6 and 15.25.
 *
 * What does not belong here: walking, and printing.
 */
#ifndef MEMVIRT_WALK_DECODE_H
#define MEMVIRT_WALK_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/guest_walk.h>
#include <memvirt/stage2.h>

#define DECODE_BITS_MAX	  32
#define DECODE_BIT_TEXT	  12
#define DECODE_REASON_MAX 256

/** struct decode_bits - names of the bits that are set, from bit 0 up */
struct decode_bits {
	unsigned int count;
	char name[DECODE_BITS_MAX][DECODE_BIT_TEXT];
};

/** decode_mode_name() - "4-level paging", "EPT, 4 levels", … */
const char *decode_mode_name(enum mv_format_id format);

/** decode_level_name() - "PML4E", "PTE", …; the manual's word for an entry of that level */
const char *decode_level_name(enum mv_format_id format, unsigned int level);

/** decode_is_ept() - whether entries are EPT's and not x86's */
bool decode_is_ept(enum mv_format_id format);

/** decode_is_present() - whether the entry says anything */
bool decode_is_present(const struct mv_rules *rules, uint64_t entry);

/** decode_is_leaf() - of a present entry: a page, no table */
bool decode_is_leaf(const struct mv_rules *rules, unsigned int level, uint64_t entry);

/** decode_shift() - log2 of the bytes that an entry of this level stands for */
unsigned int decode_shift(enum mv_format_id format, unsigned int level);

/** decode_index() - which entry of its table an address selects */
unsigned int decode_index(enum mv_format_id format, unsigned int level, uint64_t address);

/** decode_target() - of a present entry: the physical address of the table or page */
uint64_t decode_target(enum mv_format_id format, const struct mv_rules *rules, unsigned int level,
		       uint64_t entry);

/**
 * decode_entry() - the bits that are set
 * @format: of the table
 * @rules:  of the format, in this mode
 * @level:  of the entry
 * @entry:  its value; of one that is not present no bit means anything
 * @bits:   set: "P", "W", …; "avl9" for what software may use, "rsvd51" for what must be 0
 */
void decode_entry(enum mv_format_id format, const struct mv_rules *rules, unsigned int level,
		  uint64_t entry, struct decode_bits *bits);

/** decode_error_code() - the bits of a page fault's error code, SDM vol. 3, 4.7 */
void decode_error_code(uint32_t error_code, struct decode_bits *bits);

/**
 * decode_fault() - why a guest walk failed: which entry, which bit
 * @paging: as walked
 * @walk:   kind is MV_WALK_PAGE_FAULT or MV_WALK_NOT_CANONICAL
 * @gva:    what was translated
 * @access: MV_ACCESS_… as walked
 * @reason: DECODE_REASON_MAX bytes; set to a sentence without its full stop
 */
void decode_fault(const struct mv_paging *paging, const struct mv_walk *walk, uint64_t gva,
		  unsigned int access, char *reason);

/** decode_stage2_fault() - the same for a stage-2 walk that is not MV_STAGE2_OK */
void decode_stage2_fault(const struct mv_stage2 *stage2, const struct mv_stage2_walk *walk,
			 char *reason);

/** decode_type_name() - "UC", "WB", …; EPT's memory types */
const char *decode_type_name(unsigned int type);

#endif /* MEMVIRT_WALK_DECODE_H */
