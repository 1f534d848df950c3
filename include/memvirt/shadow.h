/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow page tables: translations from guest-virtual to host-physical addresses that a
 * processor without nested paging walks in place of the guest's own tables. They are a cache of
 * the guest's tables: filled at faults, kept true by write-protecting what they were made from.
 *
 *	mv_shadow_create(); one mv_shadow_vcpu for each virtual processor
 *	at a load of CR3 or of a mode register:  mv_shadow_load_root(), load what it says
 *	at a page fault:   mv_shadow_fault(); by outcome.kind: run on, inject, emulate
 *	at INVLPG, INVPCID, an emulated write:   mv_shadow_invlpg(), _invpcid(), _guest_wrote()
 *
 * A guest may leave a translation stale for as long as the architecture lets it: until it
 * invalidates it. A not-present entry that becomes present needs no invalidation, ever.
 *
 * The processor that walks a shadow runs in 4- or 5-level paging with CR0.WP = 1, EFER.NXE = 1 and
 * without protection keys and shadow stacks; CR4.SMEP, CR4.SMAP and EFLAGS.AC are the guest's.
 * All pages have index 0 of the PAT, and none is global. The caller forgets what that
 * processor's TLB holds where the guest asked for it: it loads CR3, or executes INVLPG, after the
 * call here has returned. What the guest knows nothing of is flushed by ops->flush.
 *
 * Nothing here trusts the guest: whatever its tables hold, memory and time are bounded.
 *
 * What does not belong here: stage 2 (ept.h), emulation of instructions (the VMM).
 */
#ifndef MEMVIRT_SHADOW_H
#define MEMVIRT_SHADOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/guest_walk.h>
#include <memvirt/memory.h>
#include <memvirt/table.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct mv_shadow;
struct mv_shadow_vcpu;

#define MV_SHADOW_VCPUS 512

#define MV_SHADOW_BUDGET_MIN 64	     /* pages */
#define MV_SHADOW_BUDGET_MAX 4194303 /* pages */
#define MV_SHADOW_BUDGET_VCPU 8	     /* pages a vCPU has to have */

/**
 * struct mv_shadow_backing - what stands behind a guest page
 * @hpa:      host-physical address of the page; aligned to 4 KiB
 * @page_lg2: it lies in one of 2^this bytes, aligned, contiguous in guest- and host-physical
 *            addresses, that may be mapped as a whole: 12, 21, 30
 * @writable: whether the guest may write there
 */
struct mv_shadow_backing {
	uint64_t hpa;
	unsigned int page_lg2;
	bool writable;
};

/**
 * struct mv_shadow_ops - operations that a shadow calls; each may be NULL
 * @resolve: what stands behind a page; @hva is where this process has it, @access some of
 *           MV_ACCESS_READ, _WRITE, _FETCH; none of them for a neighbour that might be used soon:
 *           then do nothing to bring it in, and any error means no. 0; -EAGAIN: not now, the fault
 *           ends as RETRY; another negative code ends the fault with it. Called in a read section:
 *           must not sleep.
 *           NULL: hpa is hva, as in a process, writable, and as large as its alignment allows.
 * @flush:   return when the processors that run the vCPUs of a bitmap (of MV_SHADOW_VCPUS bits, by
 *           mv_shadow_vcpu_number()) use no translation that was taken away before the call;
 *           NULL bitmap: all. May sleep; never called in a read section or with a lock held.
 *           Several may be under way at once. NULL: no processor walks the tables.
 * @short_of_pages: few are left of the budget: have some thread call mv_shadow_reclaim(), which
 *           is then told of it again. Called by faults, for the first that notices; must not sleep.
 *           NULL: faults that find none reclaim by themselves, and wait for the flush.
 */
struct mv_shadow_ops {
	int (*resolve)(void *ctx, uint64_t gpa, void *hva, unsigned int access,
		       struct mv_shadow_backing *backing);
	void (*flush)(void *ctx, const uint64_t *vcpus);
	void (*short_of_pages)(void *ctx);
};

/**
 * struct mv_shadow_config - what mv_shadow_create() needs
 * @size:        sizeof(struct mv_shadow_config)
 * @memory:      the guest's; the regions that it has at creation are what is mapped, and cannot be
 *               removed meanwhile; its platform is used
 * @format:      of the host: MV_FORMAT_X86_4L or MV_FORMAT_X86_5L
 * @features:    MV_FEATURE_NX, MV_FEATURE_1G of the host
 * @maxphyaddr:  of the host
 * @node:        NUMA node of table pages, or -1
 * @page_budget: shadow pages that may exist at once, MV_SHADOW_BUDGET_MIN to _MAX. Each takes a
 *               table page and 8 KiB of records.
 * @ops, @ctx:   see struct mv_shadow_ops; @ops may be NULL
 */
struct mv_shadow_config {
	size_t size;
	struct mv_memory *memory;
	enum mv_format_id format;
	uint32_t features;
	unsigned int maxphyaddr;
	int node;
	size_t page_budget;
	const struct mv_shadow_ops *ops;
	void *ctx;
};

/**
 * mv_shadow_create() - a shadow without vCPUs
 * @config: see struct mv_shadow_config
 * @shadow: set on success
 *
 * It is a view of its memory (MV_VIEW_RANK_TABLES): what is given away is no longer mapped.
 *
 * Context: takes memory->lock; may sleep; not in a read section.
 * Return: 0; -EINVAL for a config that is no valid one; -EBUSY where a region is just being
 * removed; -ENOMEM.
 */
int mv_shadow_create(const struct mv_shadow_config *config, struct mv_shadow **shadow);

/**
 * mv_shadow_destroy() - free a shadow and all its pages
 * @shadow: may be NULL. No thread and no processor may use it any more; all vCPUs are destroyed.
 *
 * Context: takes memory->lock; sleeps.
 */
void mv_shadow_destroy(struct mv_shadow *shadow);

/**
 * mv_shadow_vcpu_create() - one virtual processor
 * @shadow: the shadow
 * @vcpu:   set on success; it has no root yet
 *
 * A vCPU is used by one thread at a time; several vCPUs by as many threads at once.
 *
 * Context: any thread; may sleep.
 * Return: 0; -ENOSPC for more than MV_SHADOW_VCPUS, or where the budget has fewer than
 * MV_SHADOW_BUDGET_VCPU pages for each; -ENOMEM.
 */
int mv_shadow_vcpu_create(struct mv_shadow *shadow, struct mv_shadow_vcpu **vcpu);

/** mv_shadow_vcpu_destroy() - its processor uses no root any more. Takes NULL. May sleep. */
void mv_shadow_vcpu_destroy(struct mv_shadow_vcpu *vcpu);

/** mv_shadow_vcpu_number() - its bit in the bitmap of ops->flush. Context: any thread. */
unsigned int mv_shadow_vcpu_number(const struct mv_shadow_vcpu *vcpu);

/**
 * mv_shadow_load_root() - the guest has loaded CR3, or changed CR0, CR4 or EFER
 * @vcpu:      the vCPU
 * @registers: as they are now
 * @cpu:       the processor that the guest believes in
 * @preserve:  bit 63 of a MOV to CR3 with PCIDs on: translations of the PCID stay
 * @root:      set: what the processor's CR3 has to hold: the root's host-physical address
 *
 * Roots that were loaded before are kept like all shadow pages, and found again. In PAE paging
 * the PDPTEs are loaded too. SDM vol. 3, 4.10.4.1 and 4.4.1.
 *
 * Context: sleeps; not in a read section; not on a thread that resolves faults.
 * Return: 0; -EINVAL: the guest gets #GP (PDPTEs with reserved bits, a combination that cannot
 * be), the old root stays; -EOPNOTSUPP for what the host cannot shadow: 5-level paging on
 * 4-level tables, EFER.NXE without MV_FEATURE_NX, protection keys, CET (hide them from CPUID: leaf
 * 7, ECX bits 3, 7 and 31, EDX bit 20); -EFAULT where PDPTEs lie
 * outside memory; -ENOMEM.
 */
int mv_shadow_load_root(struct mv_shadow_vcpu *vcpu, const struct mv_paging_registers *registers,
			const struct mv_cpu_model *cpu, bool preserve, uint64_t *root);

/**
 * enum mv_shadow_kind - how a fault ends
 * @MV_SHADOW_FIXED:	      the shadow maps it now, or did already: run on
 * @MV_SHADOW_INJECT:	      the guest's own fault: inject what outcome.walk says (its kind may
 *			      also be MV_WALK_NOT_CANONICAL)
 * @MV_SHADOW_EMULATE_WRITE:  a write to a table of the guest, or to a page that somebody tracks:
 *			      emulate it, then mv_shadow_guest_wrote()
 * @MV_SHADOW_EMULATE_RIGHTS: the guest's rights allow the access, but the host's cannot express it:
 *			      a supervisor's write to a read-only user page with CR0.WP = 0 and
 *			      CR4.SMAP = 1. Emulate it.
 * @MV_SHADOW_MMIO:	      no memory at outcome.walk.gpa, or a write to memory that is
 *			      read-only for the guest: emulate the access
 * @MV_SHADOW_RETRY:	      the page is being given away, or tables change all the time: run on,
 *			      it faults again
 * @MV_SHADOW_KINDS:	      how many there are
 */
enum mv_shadow_kind {
	MV_SHADOW_FIXED,
	MV_SHADOW_INJECT,
	MV_SHADOW_EMULATE_WRITE,
	MV_SHADOW_EMULATE_RIGHTS,
	MV_SHADOW_MMIO,
	MV_SHADOW_RETRY,
	MV_SHADOW_KINDS,
};

/**
 * struct mv_shadow_outcome - what a fault came to
 * @kind: see enum mv_shadow_kind
 * @walk: all but RETRY: the guest's own walk
 */
struct mv_shadow_outcome {
	enum mv_shadow_kind kind;
	struct mv_walk walk;
};

/**
 * mv_shadow_fault() - a page fault of the processor that walks the shadow
 * @vcpu:    with a root
 * @gva:     CR2
 * @access:  MV_ACCESS_… of the access: one of READ, WRITE, FETCH, and what else is known of it
 * @outcome: set where 0 is returned
 *
 * The guest's tables are walked as the processor would, accessed and dirty set; what they allow
 * is then mapped. A fault that the guest has to see is told from one that only the shadow caused.
 *
 * Context: several vCPUs at once; touches guest memory, so not on a thread that resolves faults;
 * may sleep, where a page becomes a table; not in a read section.
 * Return: 0; -EINVAL where no root was loaded, or for an access of no kind; -EFAULT where a table
 * of the guest lies outside its memory (a processor reads all ones); -ENOMEM; what
 * ops->resolve returned.
 */
int mv_shadow_fault(struct mv_shadow_vcpu *vcpu, uint64_t gva, unsigned int access,
		    struct mv_shadow_outcome *outcome);

/**
 * mv_shadow_invlpg() - the guest executes INVLPG
 * @vcpu: the vCPU
 * @gva:  any address
 *
 * SDM vol. 3, 4.10.4.1.
 *
 * Context: as mv_shadow_fault().
 */
void mv_shadow_invlpg(struct mv_shadow_vcpu *vcpu, uint64_t gva);

/** enum mv_invpcid - the type of an INVPCID, by its number in the instruction */
enum mv_invpcid {
	MV_INVPCID_ADDRESS,
	MV_INVPCID_CONTEXT,
	MV_INVPCID_ALL_GLOBAL,
	MV_INVPCID_ALL,
};

/**
 * mv_shadow_invpcid() - the guest executes INVPCID
 * @vcpu: the vCPU
 * @type: see enum mv_invpcid
 * @pcid: ADDRESS, CONTEXT: whose translations
 * @gva:  ADDRESS: of which page
 *
 * Context: as mv_shadow_fault().
 */
void mv_shadow_invpcid(struct mv_shadow_vcpu *vcpu, enum mv_invpcid type, unsigned int pcid,
		       uint64_t gva);

/**
 * mv_shadow_flush() - the vCPU forgets its translations without a load of CR3
 * @vcpu:   the vCPU
 * @global: those of global pages too (CR4.PGE was changed)
 *
 * Context: as mv_shadow_fault().
 */
void mv_shadow_flush(struct mv_shadow_vcpu *vcpu, bool global);

/**
 * mv_shadow_guest_wrote() - the VMM has written guest memory on behalf of the guest
 * @shadow: the shadow
 * @gpa:    first byte
 * @bytes:  how many
 *
 * Emulated writes, and whatever else writes where a table may be. When it returns no vCPU is given
 * a translation that was made from what stood there before.
 *
 * Context: any thread; after the write; may sleep; not in a read section.
 */
void mv_shadow_guest_wrote(struct mv_shadow *shadow, uint64_t gpa, size_t bytes);

/**
 * mv_shadow_reclaim() - have pages at hand before faults need them
 * @shadow: the shadow
 *
 * Takes those out of use that no processor and no fault has been through for longest, until an
 * eighth of the budget is free; one flush for many. A fault takes from these, and waits for
 * nobody. What the guest still uses comes back with a fault.
 *
 * Context: a thread that serves no fault, several are fine; flushes; sleeps; not in a read section.
 * Return: how many pages came back; 0 where enough are free, or all that are left are in use.
 */
unsigned int mv_shadow_reclaim(struct mv_shadow *shadow);

/* --- ranges of guest memory ------------------------------------------------------------------ */

/**
 * mv_shadow_zap() - take away everything that maps a range of guest pages
 * @shadow:    the shadow
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 *
 * For a VMM whose ops->resolve would give other answers from now on. (What the ledger gives away is
 * taken without being asked for.) Large pages that reach into the range go whole. When it returns
 * no processor uses what was there; faults map the pages again.
 *
 * Context: any thread; flushes; may sleep; not in a read section.
 * Return: 0; -EINVAL for a bad range.
 */
int mv_shadow_zap(struct mv_shadow *shadow, uint64_t first_gpa, uint64_t last_gpa);

/**
 * mv_shadow_age() - which pages have been used since they were last asked for?
 * @shadow:    the shadow
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 * @bitmap:    one bit a page from @first_gpa on, bit 0 of word 0 first; bits are set, none is
 *             cleared; a large page is used as a whole. NULL: only clear.
 * @used:      where not NULL, set to the number of pages used
 *
 * Clears accessed bits in all that maps the range. No flush: a processor that holds a translation
 * may use a page without saying so again, for a while. Good enough to tell hot from cold.
 *
 * Context: any thread; takes the lock of one page's record at a time.
 * Return: 0; -EINVAL for a bad range.
 */
int mv_shadow_age(struct mv_shadow *shadow, uint64_t first_gpa, uint64_t last_gpa, uint64_t *bitmap,
		  uint64_t *used);

/**
 * mv_shadow_track() - let every write to a range of guest pages be seen
 * @shadow:    the shadow
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 *
 * From the return on such writes end as MV_SHADOW_EMULATE_WRITE, until each call has been taken back
 * by mv_shadow_untrack(): they are counted, a page at a time. Large pages around are taken apart.
 *
 * Context: any thread; flushes; may sleep; not in a read section.
 * Return: 0; -EINVAL for a bad range; -ENOENT where a page of it is in no region; -EOVERFLOW where
 * one is tracked 4095 times already. On failure nothing is tracked that was not before.
 */
int mv_shadow_track(struct mv_shadow *shadow, uint64_t first_gpa, uint64_t last_gpa);

/**
 * mv_shadow_untrack() - take one mv_shadow_track() of the same pages back
 * @shadow:    the shadow
 * @first_gpa: of a range that is tracked; not necessarily as a whole by one call
 * @last_gpa:  inclusive
 *
 * Context: any thread.
 */
void mv_shadow_untrack(struct mv_shadow *shadow, uint64_t first_gpa, uint64_t last_gpa);

/**
 * mv_shadow_track_dirty() - begin or end to take note of a region's writes
 * @shadow:    the shadow
 * @first_gpa: first address of a region
 * @on:        begin, with no page dirty; or end, and forget
 *
 * By write protection: the first write to each page faults, and pages are 4 KiB meanwhile.
 * Counted are writes of the guest, accessed and dirty flags that faults set in its tables, and what
 * mv_shadow_guest_wrote() tells; what else the VMM writes it knows itself.
 *
 * Context: one thread at a time; flushes; may sleep; not in a read section.
 * Return: 0; -ENOENT where no such region is.
 */
int mv_shadow_track_dirty(struct mv_shadow *shadow, uint64_t first_gpa, bool on);

/**
 * mv_shadow_harvest() - which pages have been written since they were last reported?
 * @shadow:    the shadow
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 * @bitmap:    as in mv_shadow_age(); not NULL
 * @dirty:     where not NULL, set to the number of dirty pages reported
 *
 * Clears, then flushes: when it returns, whoever reads the reported pages finds the writes that made
 * them dirty; later ones are reported again.
 *
 * Context: any thread; may sleep; not in a read section.
 * Return: 0; -EINVAL for a bad range; -ENOENT where a page of it is not tracked.
 */
int mv_shadow_harvest(struct mv_shadow *shadow, uint64_t first_gpa, uint64_t last_gpa,
		      uint64_t *bitmap, uint64_t *dirty);

/**
 * mv_shadow_walk() - what the processor would find: for software walks and tests
 * @vcpu:    with a root
 * @gva:     any address
 * @mapping: set on success; attr: what the leaf grants (tables above grant everything)
 *
 * Context: as mv_table_walk(); the vCPU's own thread.
 * Return: 0; -ENOENT where nothing is mapped; -EINVAL without a root, or where the host's paging
 * has no such address.
 */
int mv_shadow_walk(struct mv_shadow_vcpu *vcpu, uint64_t gva, struct mv_mapping *mapping);

/**
 * struct mv_shadow_stats - what a shadow did since its creation
 * @taken:     entries, and rights to write, that were taken away, one by one or with their page
 * @flushes:   calls of ops->flush
 * @unsyncs:   leaf tables that the guest was let to write to
 * @syncs:     comparisons of a whole table with what was made from it
 * @emulated:  pages' worth of mv_shadow_guest_wrote()
 * @ahead:     pages that were mapped as neighbours of one that faulted
 * @reclaimed: shadow pages that came back to the pool
 */
struct mv_shadow_stats {
	uint64_t taken;
	uint64_t flushes;
	uint64_t unsyncs;
	uint64_t syncs;
	uint64_t emulated;
	uint64_t ahead;
	uint64_t reclaimed;
};

/** mv_shadow_get_stats() - look at them. Context: any thread; each number is exact in itself. */
void mv_shadow_get_stats(const struct mv_shadow *shadow, struct mv_shadow_stats *stats);

/**
 * mv_shadow_vcpu_faults() - how the faults of a vCPU ended, by kind
 * @vcpu:   the vCPU
 * @faults: set: MV_SHADOW_KINDS numbers. MV_SHADOW_INJECT counts those that the guest brought
 *          about itself; all others are the hypervisor's.
 *
 * Context: any thread, as long as the vCPU exists.
 */
void mv_shadow_vcpu_faults(const struct mv_shadow_vcpu *vcpu, uint64_t faults[MV_SHADOW_KINDS]);

/**
 * struct mv_shadow_cost - what an address space has cost because it is shadowed
 * @faults:       that the guest did not bring about itself
 * @table_writes: of them, writes to tables that had to be emulated
 * @syncs:        tables compared
 */
struct mv_shadow_cost {
	uint64_t faults;
	uint64_t table_writes;
	uint64_t syncs;
};

/**
 * mv_shadow_root_cost() - of the root that a vCPU has loaded, since that was made
 * @vcpu: with a root
 * @cost: set on success
 *
 * Of all vCPUs that had it loaded; of those that have it at this moment up to 64 faults each may
 * be missing. It begins at 0 again after the root was reclaimed. For mv_choice_update().
 *
 * Context: the vCPU's own thread.
 * Return: 0; -EINVAL without a root.
 */
int mv_shadow_root_cost(struct mv_shadow_vcpu *vcpu, struct mv_shadow_cost *cost);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_SHADOW_H */
