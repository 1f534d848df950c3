/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tags of translations: Intel's VPIDs and AMD's ASIDs, handed out per processor and generation,
 * and flushes that disturb only processors that run the space at that moment. All others flush
 * on their own, before they next enter it.
 *
 *	before VM entry:  mv_asid_enter(), then what entry.flush asks for, then VMLAUNCH, VMRUN
 *	after VM exit:    mv_asid_exit()
 *	tables changed:   mv_asid_flush()
 *
 * Intel SDM vol. 3, 29.4 (caching, INVVPID, INVEPT); AMD APM vol. 2, 15.15 and 15.16.
 *
 * What does not belong here: what translations are (ept.h), how a processor is interrupted (the
 * kick operation), the instructions that flush (the caller's).
 */
#ifndef MEMVIRT_ASID_H
#define MEMVIRT_ASID_H

#include <stddef.h>
#include <stdint.h>

#include <memvirt/platform.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct mv_asids;
struct mv_asid_space;

/**
 * enum mv_asid_kind - what a tag tags, and so what a flush must flush
 * @MV_ASID_VPID: Intel. Linear and combined translations carry the VPID; guest-physical ones only
 *                the EPTP, so that a flush of a space is an INVEPT of it, once a processor.
 * @MV_ASID_AMD:  AMD, no FlushByAsid: whatever is stale is left behind under a tag that is not
 *                used again in this generation.
 * @MV_ASID_AMD_FLUSH_BY_ASID: AMD with CPUID Fn8000_000A EDX[6]: VMCB.TLB_CONTROL 3 flushes one tag
 */
enum mv_asid_kind {
	MV_ASID_VPID,
	MV_ASID_AMD,
	MV_ASID_AMD_FLUSH_BY_ASID,
};

/**
 * enum mv_asid_flush - what has to be flushed on this processor before the guest runs
 * @MV_ASID_FLUSH_NONE:  nothing
 * @MV_ASID_FLUSH_TAG:   all of the tag: TLB_CONTROL 3
 * @MV_ASID_FLUSH_SPACE: INVEPT, single-context, of each EPTP that the guest can reach
 * @MV_ASID_FLUSH_ALL:   everything of every guest: a new generation of tags begins here. INVVPID
 *                       and INVEPT, all-context; TLB_CONTROL 1
 */
enum mv_asid_flush {
	MV_ASID_FLUSH_NONE,
	MV_ASID_FLUSH_TAG,
	MV_ASID_FLUSH_SPACE,
	MV_ASID_FLUSH_ALL,
};

/**
 * struct mv_asids_config - what mv_asids_create() needs
 * @size:      sizeof(struct mv_asids_config)
 * @platform:  NULL for mv_platform_linux(); the freestanding library has none to fall back on
 * @kind:      see enum mv_asid_kind
 * @cpus:      processors, numbered from 0
 * @first_tag: lowest tag to hand out; not 0, which is the host's on both makers' processors
 * @last_tag:  highest: 65535 for VPIDs, CPUID Fn8000_000A EBX - 1 for ASIDs
 * @kick:      make processors leave their guests, or make sure that they will: @cpus is a bitmap of
 *             @words words. Need not wait. Never called where no processor is concerned.
 * @ctx:       for @kick
 */
struct mv_asids_config {
	size_t size;
	const struct mv_platform *platform;
	enum mv_asid_kind kind;
	unsigned int cpus;
	uint32_t first_tag;
	uint32_t last_tag;
	void (*kick)(void *ctx, const uint64_t *cpus, unsigned int words);
	void *ctx;
};

/**
 * mv_asids_create() - the tags of a machine's processors
 * @config: see struct mv_asids_config
 * @asids:  set on success
 *
 * Context: any thread; may sleep.
 * Return: 0; -EINVAL for a config that is no valid one; -ENOMEM.
 */
int mv_asids_create(const struct mv_asids_config *config, struct mv_asids **asids);

/**
 * mv_asids_destroy() - free them
 * @asids: may be NULL; all its spaces are destroyed
 *
 * Context: may sleep.
 */
void mv_asids_destroy(struct mv_asids *asids);

/**
 * mv_asid_space_create() - what is flushed together: one stage-2 space with all its views
 * @asids: tags
 * @space: set on success
 *
 * The first entry on each processor flushes: a root that is used again carries no translation of
 * its earlier life over.
 *
 * Context: any thread; may sleep.
 * Return: 0; -ENOMEM.
 */
int mv_asid_space_create(struct mv_asids *asids, struct mv_asid_space **space);

/**
 * mv_asid_space_destroy() - forget a space
 * @space: may be NULL; no processor is in it, and none will be
 *
 * Context: may sleep.
 */
void mv_asid_space_destroy(struct mv_asid_space *space);

/**
 * struct mv_asid_context - the tag of one vCPU; zeroed at first, then to be looked at only
 * @generation: of @cpu's tags, in which @tag was handed out; 0 for none
 * @seen:       flushes of the space that @tag has seen
 * @cpu:        where it ran last
 * @tag:        VPID or ASID
 *
 * Two vCPUs never share one: linear addresses mean different things to them. A tag is good on
 * one processor only, so there is only one at a time.
 */
struct mv_asid_context {
	uint64_t generation;
	uint64_t seen;
	unsigned int cpu;
	uint32_t tag;
};

/**
 * struct mv_asid_entry - what the entry has to use
 * @tag:   VPID or ASID
 * @flush: what to flush before the guest runs
 */
struct mv_asid_entry {
	uint32_t tag;
	enum mv_asid_flush flush;
};

/**
 * mv_asid_enter() - a vCPU is about to run
 * @space:   whose tables it uses
 * @context: the vCPU's; nobody else uses it meanwhile
 * @cpu:     the processor that the caller runs on, and stays on until mv_asid_exit()
 * @entry:   set
 *
 * From here on mv_asid_flush() kicks this processor. A kick that comes between this call and the
 * entry must not be lost: interrupts are off, so that it ends the guest's run at once.
 *
 * Context: preemption off; takes no lock, never waits.
 */
void mv_asid_enter(struct mv_asid_space *space, struct mv_asid_context *context, unsigned int cpu,
		   struct mv_asid_entry *entry);

/**
 * mv_asid_exit() - it has left the guest
 * @space: as in mv_asid_enter()
 * @cpu:   likewise
 *
 * Context: as mv_asid_enter().
 */
void mv_asid_exit(struct mv_asid_space *space, unsigned int cpu);

/**
 * mv_asid_flush() - return when no processor uses translations of a space that are older
 * @space: whose tables have been changed, before the call
 *
 * Processors that are in the space are kicked and waited for. Those that are not flush when they
 * come back. Calls at the same time share one round of kicks where they can.
 *
 * Context: waits for other processors: not between mv_asid_enter() and mv_asid_exit(), not in a
 * read section, interrupts on.
 * Return: how many processors were kicked by this call.
 */
unsigned int mv_asid_flush(struct mv_asid_space *space);

/**
 * mv_asid_context_renew() - a vCPU's own linear translations are stale, all of them
 * @context: the vCPU's; it is not running
 *
 * The next entry uses a new tag. For what INVVPID would do on every processor that it ran on.
 *
 * Context: as mv_asid_enter(); no side effect but on @context.
 */
void mv_asid_context_renew(struct mv_asid_context *context);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_ASID_H */
