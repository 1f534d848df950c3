/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stage 2 as a processor sees it: the walk of EPT or nested page tables with every check, the
 * fault that it would report, and the decoding of the faults that a real one reports.
 *
 * The tables may be memvirt's own (table.h, ept.h) or anybody's: those that a guest hypervisor
 * built for its guest are walked by the same code.
 *
 * What does not belong here: building tables (table.h), spaces over a memory and their faults'
 * resolution (ept.h), stage 1 (guest_walk.h), both stages (nested.h).
 */
#ifndef MEMVIRT_STAGE2_H
#define MEMVIRT_STAGE2_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/guest_walk.h>
#include <memvirt/table.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/**
 * struct mv_stage2_config - what mv_stage2_init() needs
 * @size:       sizeof(struct mv_stage2_config)
 * @format:     MV_FORMAT_EPT_4L to MV_FORMAT_NPT_5L
 * @features:   MV_FEATURE_…
 * @maxphyaddr: physical-address width, bits; 32 to 52
 * @root:       physical address of the root table
 * @direct_map: where this program sees physical address 0; see struct mv_platform. Used
 *              where @accessor.read is NULL.
 * @accessor:   how to reach tables that lie in somebody's memory. @accessor.change NULL: accessed
 *              and dirty bits are never set.
 */
struct mv_stage2_config {
	size_t size;
	enum mv_format_id format;
	uint32_t features;
	unsigned int maxphyaddr;
	uint64_t root;
	uintptr_t direct_map;
	struct mv_guest_accessor accessor;
};

/**
 * struct mv_stage2 - stage-2 tables, prepared for walks; to be looked at, not changed
 *
 * Copy it as you like; it holds no pointer but the accessor's.
 */
struct mv_stage2 {
	enum mv_format_id format;
	uint32_t features;
	uint64_t root;
	uintptr_t direct_map;
	struct mv_guest_accessor accessor;
	struct mv_rules rules;
};

/*
 * An access to a guest-physical address: MV_ACCESS_READ, _WRITE, _FETCH, _SHADOW_STACK,
 * _NO_UPDATE and _USER of guest_walk.h (USER says that the page is a user page of the guest: AND
 * of U/S over its tables; true while CR0.PG is 0), and these. None of READ, WRITE and FETCH, nor
 * GUEST_TABLE: translate only, ask no rights, set nothing.
 *
 * A load of PDPTEs by MOV to CR is a plain READ, without LINEAR and GUEST_TABLE: SDM vol. 3,
 * 29.3.5 and table 28-7.
 */
#define MV_ACCESS_GUEST_TABLE	 0x0100u /* the guest walk reads a table; WRITE: sets A or D there */
#define MV_ACCESS_LINEAR	 0x0200u /* a guest linear address is known: qualification bit 7 */
#define MV_ACCESS_GUEST_WRITABLE 0x0400u /* the guest's tables let the page be written */
#define MV_ACCESS_GUEST_NO_EXEC	 0x0800u /* they forbid to fetch; both for EXIT_INFO only */

/** enum mv_stage2_kind - how a stage-2 walk, or a real processor's, ends */
enum mv_stage2_kind {
	MV_STAGE2_OK,
	MV_STAGE2_VIOLATION,	/* EPT violation; #NPF by rights or by absence */
	MV_STAGE2_MISCONFIGURED, /* EPT misconfiguration; #NPF with the reserved bit */
};

/**
 * struct mv_stage2_walk - the result
 * @kind:     how it ended
 * @phys:     OK: host-physical address
 * @page_lg2: OK: log2 of the page's bytes
 * @attr:     OK: rights that all levels together grant, and the leaf's type and other bits, as
 *            they are after the walk
 * @gpa:      what was translated
 * @level:    level of the last entry read; the root's where none was
 * @code:     VIOLATION: the exit qualification (EPT; SDM vol. 3, table 28-7) or the EXITINFO1
 *            (NPT; APM vol. 2, 15.25.6); MISCONFIGURED: EXITINFO1 (NPT), 0 (EPT has none)
 * @suppress_ve: VIOLATION, with MV_FEATURE_VE: bit 63 of the entry that decided is set, or there
 *            was none, so an exit, not a #VE
 * @steps, @step: the entries read, from the root down; 0 where @gpa is too wide for the format
 */
struct mv_stage2_walk {
	enum mv_stage2_kind kind;
	uint64_t phys;
	unsigned int page_lg2;
	uint32_t attr;
	uint64_t gpa;
	unsigned int level;
	uint64_t code;
	bool suppress_ve;
	unsigned int steps;
	struct mv_walk_step step[MV_LEVEL_MAX];
};

/**
 * mv_stage2_init() - prepare tables for walks
 * @stage2: to be filled
 * @config: see struct mv_stage2_config
 *
 * Context: any thread; no side effect.
 * Return: 0; -EINVAL for a format that is no stage 2, or a config that is not valid.
 */
int mv_stage2_init(struct mv_stage2 *stage2, const struct mv_stage2_config *config);

/**
 * mv_stage2_walk() - translate a guest-physical address as the processor would
 * @stage2: prepared tables
 * @gpa:    guest-physical address
 * @access: MV_ACCESS_…
 * @walk:   set where 0 is returned
 *
 * SDM vol. 3, 29.3; APM vol. 2, 15.25. With EPT A/D flags on, an access to a guest table counts
 * as a write: SDM vol. 3, 29.3.5; with NPT always.
 *
 * Sets accessed and dirty where the accessor can, after the checks, and starts again where an
 * entry changed meanwhile; through the direct map it sets them only where
 * MV_ACCESS_NO_UPDATE is not given.
 *
 * Context: a read section of the tables' platform where they may be freed meanwhile; as the
 * accessor.
 * Return: 0, whatever walk->kind is; what the accessor returned; -EAGAIN where the tables changed
 * at every one of many attempts.
 */
int mv_stage2_walk(const struct mv_stage2 *stage2, uint64_t gpa, unsigned int access,
		   struct mv_stage2_walk *walk);

/**
 * struct mv_stage2_exit - a fault that a processor reported, whatever its maker
 * @kind:         violation or misconfiguration
 * @gpa:          guest-physical address
 * @gva:          guest-linear address, where @gva_valid
 * @gva_valid:    EPT: qualification bit 7
 * @access:       what the processor says of the access, as it counts it; given to
 *                mv_stage2_walk() it leads to the same fault. READ, WRITE, FETCH, GUEST_TABLE,
 *                SHADOW_STACK; LINEAR where @gva_valid; with MV_FEATURE_EXIT_INFO also USER,
 *                GUEST_WRITABLE and GUEST_NO_EXEC. Without that, USER only where mode-based
 *                execute grants one right of two: the other must have been asked for. (#NPF
 *                calls each access a user's, and so tells nothing.)
 * @user_told:    @access has USER if and only if it was one; otherwise it may have been
 * @granted:      MV_ATTR_… that the entries together granted; EPT only, as far as reported
 * @present:      an entry was there: it is a matter of rights (NPT: P; EPT: @granted is not 0)
 * @nmi_unblocking: EPT: IRET had unblocked NMIs; SDM vol. 3, 28.2.3
 */
struct mv_stage2_exit {
	enum mv_stage2_kind kind;
	uint64_t gpa;
	uint64_t gva;
	bool gva_valid;
	unsigned int access;
	bool user_told;
	uint32_t granted;
	bool present;
	bool nmi_unblocking;
};

/**
 * mv_stage2_decode_violation() - Intel: exit reason 48
 * @qualification: exit qualification
 * @gpa:           guest-physical address field
 * @gla:           guest-linear address field
 * @features:      MV_FEATURE_… in force: says which bits are defined
 * @exit:          filled
 *
 * SDM vol. 3, table 28-7.
 * Context: any; no side effect.
 */
void mv_stage2_decode_violation(uint64_t qualification, uint64_t gpa, uint64_t gla,
				uint32_t features, struct mv_stage2_exit *exit);

/**
 * mv_stage2_decode_misconfiguration() - Intel: exit reason 49, which tells the address only
 * @gpa:  guest-physical address field
 * @exit: filled
 *
 * SDM vol. 3, 29.3.3.1.
 * Context: any; no side effect.
 */
void mv_stage2_decode_misconfiguration(uint64_t gpa, struct mv_stage2_exit *exit);

/**
 * mv_stage2_decode_npf() - AMD: VMEXIT_NPF
 * @exitinfo1: fault code
 * @exitinfo2: guest-physical address
 * @exit:      filled; @kind MISCONFIGURED where the reserved bit is set
 *
 * APM vol. 2, 15.25.6.
 * Context: any; no side effect.
 */
void mv_stage2_decode_npf(uint64_t exitinfo1, uint64_t exitinfo2, struct mv_stage2_exit *exit);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_STAGE2_H */
