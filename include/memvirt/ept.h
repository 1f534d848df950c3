/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stage-2 spaces: the EPT or nested page tables of a guest over its memory. Pages are mapped
 * from the memory's regions, at faults or ahead of them, tracked, aged, and revoked with all
 * other views of the memory when they are given away.
 *
 * A space has one table or more: *views*, numbered from 0 as the EPTP list numbers them. They map
 * the same pages with different rights (altp2m, EPTP switching). View 0 is always there.
 *
 *	mv_ept_create(); mv_ept_attach() each region
 *	at VM entry:  load mv_ept_pointer(); see asid.h for tags and flushes
 *	at VM exit:   mv_stage2_decode_…(); mv_ept_fault(); by outcome.kind: run on, emulate, inject
 *
 * Ranges are closed and consist of whole pages. Unless said otherwise: any thread, at any
 * time, with faults and revokes under way.
 *
 * What does not belong here: who may use a page (memory.h, view.h), what a processor does with
 * the tables (stage2.h), tags of translations (asid.h), guest hypervisors' tables (nested.h).
 */
#ifndef MEMVIRT_EPT_H
#define MEMVIRT_EPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/asid.h>
#include <memvirt/memory.h>
#include <memvirt/stage2.h>
#include <memvirt/table.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct mv_ept;
struct mv_nested_log;

#define MV_EPT_VIEWS 512 /* at most; SDM vol. 3, 26.5.6.3: a page of 8-byte entries */

/* --- what the caller brings --------------------------------------------------------------- */

/**
 * struct mv_ept_page - what mv_ept_ops.resolve is asked for
 * @gpa:       guest-physical address; aligned to 4 KiB
 * @hva:       where this process sees it
 * @first_gpa: of its region
 * @last_gpa:  of its region
 * @fd:        of its region, or -1
 * @fd_offset: offset of @gpa in @fd
 * @access:    MV_ACCESS_READ, _WRITE, _FETCH that brought us here; 0 for a prefault
 */
struct mv_ept_page {
	uint64_t gpa;
	void *hva;
	uint64_t first_gpa;
	uint64_t last_gpa;
	int fd;
	uint64_t fd_offset;
	unsigned int access;
};

/**
 * struct mv_ept_backing - what stands behind it
 * @hpa:      host-physical address of the page; aligned to 4 KiB
 * @page_lg2: the page lies in one of 2^this bytes, aligned, contiguous in guest- and in
 *            host-physical addresses, that may be mapped as a whole: 12, 21, 30. More than
 *            alignment and region allow does no harm.
 * @writable: whether the guest may write there. Where it may not, a write ends as
 *            MV_EPT_PROTECTED.
 */
struct mv_ept_backing {
	uint64_t hpa;
	unsigned int page_lg2;
	bool writable;
};

/**
 * struct mv_ept_ops - operations that a space calls; each may be NULL
 * @resolve: what stands behind a page, at this moment. 0; -EAGAIN where it cannot be said now: the
 *           fault ends as MV_EPT_RETRY, and the caller brings the page in; another negative
 *           code ends the call with it.
 *           Runs in a read section: must not sleep, nor touch guest memory. If the page is given
 *           away meanwhile, what it says is thrown away: no lock need be held, but it must
 *           resolve through what a revoke changes (the memory's views of
 *           MV_VIEW_RANK_PROCESS: the process's own mapping).
 *           NULL: hpa is hva, as it is for a process that has no physical addresses;
 *           writable; as large as region and alignment allow.
 * @flush:   return when no processor uses translations that a view had for any part of a closed
 *           range, of huge pages that reach into it too. May sleep. Never called in a read
 *           section, and from mv_ept_fault() only where a huge page that is mapped has to be
 *           mapped smaller: see MV_EPT_NX_HUGE. NULL: see struct mv_ept_config.
 */
struct mv_ept_ops {
	int (*resolve)(void *ctx, const struct mv_ept_page *page, struct mv_ept_backing *backing);
	void (*flush)(void *ctx, unsigned int view, uint64_t first_gpa, uint64_t last_gpa);
};

/* Policy. */
#define MV_EPT_NX_HUGE                                                                             \
	0x0001u /* no executable huge pages: mapped without X, and split when                      \
		   fetched from (the instruction-TLB multihit erratum) */
#define MV_EPT_SOFTWARE_WALK                                                                       \
	0x0002u /* threads of this program walk the tables too (nested.h): a                       \
		   flush also tells their caches, and waits for readers */

/**
 * struct mv_ept_config - what mv_ept_create() needs
 * @size:        sizeof(struct mv_ept_config)
 * @memory:      must live as long as the space. Its platform is used; where that has no
 *               tables (table_alloc), creation fails.
 * @format:      MV_FORMAT_EPT_4L to MV_FORMAT_NPT_5L
 * @features:    MV_FEATURE_…
 * @maxphyaddr:  physical-address width, bits; 32 to 52. Where hpa is hva, those of pointers: 47
 *               at least.
 * @node:        NUMA node of table pages, or -1
 * @page_limit:  table pages of one view, or 0 for no limit
 * @policy:      MV_EPT_…
 * @largest_lg2: largest page to map: 12, 21, 30; 0 for whatever there is
 * @host_pat:    NPT: the host's IA32_PAT, which memory types index; 0 for its value after a reset
 * @ops:         may be NULL
 * @ctx:         for @ops
 * @asid_space:  where not NULL, a flush is mv_asid_flush() of it, then @ops.flush. Where both are
 *               missing no processor walks the tables.
 */
struct mv_ept_config {
	size_t size;
	struct mv_memory *memory;
	enum mv_format_id format;
	uint32_t features;
	unsigned int maxphyaddr;
	int node;
	size_t page_limit;
	uint32_t policy;
	unsigned int largest_lg2;
	uint64_t host_pat;
	const struct mv_ept_ops *ops;
	void *ctx;
	struct mv_asid_space *asid_space;
};

/* --- the object --------------------------------------------------------------------------- */

/**
 * mv_ept_create() - an empty space with one view, attached to its memory
 * @config: see struct mv_ept_config
 * @ept:    set on success
 *
 * Context: takes memory->lock; sleeps; not in a read section.
 * Return: 0; -EINVAL for a config that is no valid one; -ENOMEM; -ENOSPC for a page limit of less
 * than a root.
 */
int mv_ept_create(const struct mv_ept_config *config, struct mv_ept **ept);

/**
 * mv_ept_destroy() - detach from the memory, free all tables
 * @ept: may be NULL. No processor and no other thread may use it any more; revokes may be
 *       under way, and are waited for.
 *
 * Context: takes memory->lock; sleeps; not in a read section.
 */
void mv_ept_destroy(struct mv_ept *ept);

/**
 * mv_ept_attach() - map a region from now on
 * @ept:       the space
 * @first_gpa: first address of the region
 *
 * Nothing is mapped yet. The region cannot be removed until it is detached.
 *
 * Context: takes ept->lock; sleeps; not in a read section.
 * Return: 0; -ENOENT where no region begins there; -ERANGE where it ends beyond what the tables
 * can map; -EEXIST where it is attached; -ENOMEM.
 */
int mv_ept_attach(struct mv_ept *ept, uint64_t first_gpa);

/**
 * mv_ept_detach() - unmap a region from all views
 * @ept:       the space
 * @first_gpa: first address of the region
 *
 * Returns when no processor reaches it any more. Tables that served it alone are freed.
 *
 * Context: takes ept->lock; sleeps; not in a read section.
 * Return: 0; -ENOENT where no such region is attached.
 */
int mv_ept_detach(struct mv_ept *ept, uint64_t first_gpa);

/**
 * mv_ept_pointer() - what a processor has to load
 * @ept:  the space
 * @view: its number
 *
 * EPT: the EPTP (SDM vol. 3, table 25-9): write-back tables, the walk length, accessed and
 * dirty flags where MV_FEATURE_ACCESSED. NPT: nCR3.
 *
 * Context: any.
 * Return: the value; 0, which no processor takes as an EPTP, where there is no such view.
 */
uint64_t mv_ept_pointer(struct mv_ept *ept, unsigned int view);

/**
 * mv_ept_get_stage2_config() - walk a view as a processor would: see mv_stage2_init()
 * @ept:    the space
 * @view:   its number
 * @config: filled on success
 *
 * Walks take place in read sections of the memory's platform.
 *
 * Context: any.
 * Return: 0; -ENOENT where there is no such view.
 */
int mv_ept_get_stage2_config(struct mv_ept *ept, unsigned int view,
			     struct mv_stage2_config *config);

/**
 * mv_ept_log() - where caches of software walks learn of changes
 * @ept: a space with MV_EPT_SOFTWARE_WALK
 *
 * Context: any.
 * Return: the log, of all views together; NULL without that policy.
 */
struct mv_nested_log *mv_ept_log(struct mv_ept *ept);

/* --- faults ------------------------------------------------------------------------------- */

/**
 * enum mv_ept_fault_kind - how a fault ended
 * @MV_EPT_FIXED:     the page is mapped now: run on
 * @MV_EPT_SPURIOUS:  it was already, as the access needs it: run on
 * @MV_EPT_RETRY:     it is being given away, or not there yet (resolve said -EAGAIN): run on,
 *                    and take the fault again, after bringing the page in where that is yours to do
 * @MV_EPT_MMIO:      no attached region is there: emulate the access
 * @MV_EPT_PROTECTED: the view's rights, or the backing, forbid the access: a page that is
 *                    write-protected or read-only, or one for a monitor to look at
 * @MV_EPT_MISCONFIGURED: the processor calls an entry malformed. Ours never are: the features
 *                    or the width of the space are not the processor's, or memory is damaged
 */
enum mv_ept_fault_kind {
	MV_EPT_FIXED,
	MV_EPT_SPURIOUS,
	MV_EPT_RETRY,
	MV_EPT_MMIO,
	MV_EPT_PROTECTED,
	MV_EPT_MISCONFIGURED,
	MV_EPT_FAULT_KINDS,
};

/**
 * struct mv_ept_outcome - of a fault
 * @kind: how it ended
 * @mapping: FIXED, SPURIOUS: the leaf that maps the page; PROTECTED: what the view's rights
 *           grant there, in mapping.attr
 */
struct mv_ept_outcome {
	enum mv_ept_fault_kind kind;
	struct mv_mapping mapping;
};

/**
 * mv_ept_fault() - resolve a fault that a processor reported
 * @ept:     the space
 * @view:    that the processor used
 * @exit:    decoded by mv_stage2_decode_…(); the guest chose what is in it, and nothing of it
 *           is trusted
 * @outcome: set where 0 is returned
 *
 * Maps the largest page that alignment, region, backing, memory types, rights and tracking allow.
 *
 * Context: any number of threads at once, the same page included: takes no lock, waits for
 * nobody but a collapse of the same page, allocates nothing but table pages (and so may
 * sleep there); not in a read section.
 * With MV_EPT_NX_HUGE a fetch from a huge page flushes.
 * Return: 0; -ENOENT where there is no such view; -ENOMEM, or -ENOSPC at the page limit: nothing
 * is mapped, try again; what resolve returned.
 */
int mv_ept_fault(struct mv_ept *ept, unsigned int view, const struct mv_stage2_exit *exit,
		 struct mv_ept_outcome *outcome);

/**
 * mv_ept_prefault() - map a range ahead of its faults
 * @ept:       the space
 * @view:      in which
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 * @mapped:    where not NULL, set to the bytes that are mapped now, also on failure
 *
 * As faults would; pages that are mapped already stay as they are. Holes between regions, pages
 * without rights, and pages that are just being given away are passed over.
 *
 * Context: as mv_ept_fault().
 * Return: 0; -EINVAL for a bad range; otherwise as mv_ept_fault().
 */
int mv_ept_prefault(struct mv_ept *ept, unsigned int view, uint64_t first_gpa, uint64_t last_gpa,
		    uint64_t *mapped);

/* --- memory types ------------------------------------------------------------------------- */

/**
 * mv_ept_set_type() - the memory type of a range: what the guest's MTRRs say, or a device needs
 * @ept:       the space
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 * @type:      from now on; everything is write-back at first
 * @ignore_pat: EPT: the guest's own PAT has no say (bit 6)
 *
 * For pages mapped already too: they are taken away, and mapped again when touched. NPT has no
 * such bit; a type that the host's PAT lacks becomes uncacheable.
 *
 * Context: takes ept->lock; sleeps; flushes; not in a read section.
 * Return: 0; -EINVAL for a bad range or type; -ENOMEM, nothing changed.
 */
int mv_ept_set_type(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa,
		    enum mv_memory_type type, bool ignore_pat);

/* --- views and rights --------------------------------------------------------------------- */

/**
 * mv_ept_view_create() - one more table over the same memory
 * @ept:    the space
 * @rights: what it grants where nothing else is said: MV_ATTR_READ, _WRITE, _EXEC, _EXEC_USER
 * @view:   set to its number, the lowest that is free
 *
 * Without mode-based execute, EXEC stands for both modes. Nothing is mapped yet. The view's
 * number is its index in the EPTP list.
 *
 * Context: takes ept->lock; sleeps; not in a read section.
 * Return: 0; -EINVAL for rights that the tables cannot express: write without read, execute alone
 * without MV_FEATURE_EXEC_ONLY, in NPT read without execute without MV_FEATURE_NX; -ENOSPC where
 * 512 are there; -ENOMEM.
 */
int mv_ept_view_create(struct mv_ept *ept, uint32_t rights, unsigned int *view);

/**
 * mv_ept_view_destroy() - free a view
 * @ept:  the space
 * @view: its number, not 0. No processor uses it, no EPTP list names it, and no other call that
 *        names it is under way.
 *
 * Context: takes ept->lock; sleeps; flushes; not in a read section.
 * Return: 0; -ENOENT where there is no such view; -EINVAL for view 0.
 */
int mv_ept_view_destroy(struct mv_ept *ept, unsigned int view);

/**
 * mv_ept_protect() - what a view grants in a range
 * @ept:       the space
 * @view:      its number
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 * @rights:    MV_ATTR_…, at most; 0 forbids every access
 *
 * Holds until it is said otherwise, whether or not pages are mapped, and for regions to come.
 * Rights that are taken are gone when it returns; huge pages that the range cuts are split
 * first, so that their other pages do not fault. Rights that are given come with the next fault.
 *
 * Context: takes ept->lock; sleeps; flushes; not in a read section.
 * Return: 0; -EINVAL for a bad range, or rights as in mv_ept_view_create(); -ENOENT; -ENOMEM or
 * -ENOSPC, rights as before.
 */
int mv_ept_protect(struct mv_ept *ept, unsigned int view, uint64_t first_gpa, uint64_t last_gpa,
		   uint32_t rights);

/**
 * mv_ept_unprotect() - back to what the view grants where nothing is said
 *
 * Parameters, context and return as mv_ept_protect().
 */
int mv_ept_unprotect(struct mv_ept *ept, unsigned int view, uint64_t first_gpa, uint64_t last_gpa);

/**
 * mv_ept_get_rights() - what a view grants at an address, by mv_ept_protect() or by default
 * @ept:    the space
 * @view:   its number
 * @gpa:    any address
 * @rights: set on success
 *
 * Context: any thread; waits while rights are being changed.
 * Return: 0; -ENOENT where there is no such view.
 */
int mv_ept_get_rights(struct mv_ept *ept, unsigned int view, uint64_t gpa, uint32_t *rights);

/**
 * mv_ept_fill_eptp_list() - the page that VMFUNC 0 looks at
 * @ept:  the space
 * @list: 4 KiB, aligned; may be in use: entries are stored whole, a view that is not there is
 *        0, which makes VMFUNC exit. SDM vol. 3, 26.5.6.3.
 *
 * Context: any.
 */
void mv_ept_fill_eptp_list(struct mv_ept *ept, uint64_t list[MV_EPT_VIEWS]);

/* --- #VE ---------------------------------------------------------------------------------- */

/**
 * struct mv_ve_info - the virtualization-exception information area; SDM vol. 3, 26.5.7.2
 * @reason:        48, for an EPT violation
 * @busy:          all ones once written; the guest stores 0 when it has read the rest: no #VE
 *                 comes before
 * @qualification: as an exit's
 * @gla:           guest-linear address
 * @gpa:           guest-physical address
 * @eptp_index:    the view
 *
 * One 4 KiB page a vCPU, naturally aligned; the rest of it is not defined.
 */
struct mv_ve_info {
	uint32_t reason;
	uint32_t busy;
	uint64_t qualification;
	uint64_t gla;
	uint64_t gpa;
	uint16_t eptp_index;
};

/**
 * mv_ve_deliver() - what a processor does where a violation may become a #VE
 * @info: the vCPU's area, as this program sees it
 * @walk: that ended in MV_STAGE2_VIOLATION
 * @gla:  guest-linear address
 * @view: in which it happened
 *
 * For who emulates: SDM vol. 3, 26.5.7.1. (The guest must be in protected mode, and not be
 * delivering an event: the caller's to know.)
 *
 * Context: the vCPU's thread.
 * Return: true where #VE is to be injected; false where it is an exit: suppressed, or the area is
 * busy.
 */
bool mv_ve_deliver(struct mv_ve_info *info, const struct mv_stage2_walk *walk, uint64_t gla,
		   unsigned int view);

/**
 * mv_ve_take() - read the area as its guest does, and let the next #VE come
 * @info:     the vCPU's area
 * @features: MV_FEATURE_…, which say what qualification bits mean
 * @exit:     filled: mv_ept_fault() takes it for a fault that the guest has handed on
 * @view:     set: in which it happened
 *
 * Context: the vCPU's thread.
 * Return: false where the area is empty.
 */
bool mv_ve_take(struct mv_ve_info *info, uint32_t features, struct mv_stage2_exit *exit,
		unsigned int *view);

/**
 * mv_ept_set_convertible() - may violations in a range become a #VE?
 * @ept:         the space, with MV_FEATURE_VE
 * @view:        its number
 * @first_gpa:   aligned to 4 KiB
 * @last_gpa:    inclusive; the length is a multiple of 4 KiB
 * @convertible: false: always an exit, as everything is at first
 *
 * Concerns violations by rights: of pages that are mapped, and lack the right. Those of pages that
 * are not, because they were not touched yet, or grant nothing at all, stay exits: faults and
 * revokes are never the guest's affair.
 *
 * Context: takes ept->lock; sleeps; flushes; not in a read section.
 * Return: 0; -EINVAL for a bad range, or without MV_FEATURE_VE; -ENOENT; -ENOMEM or -ENOSPC,
 * nothing changed.
 */
int mv_ept_set_convertible(struct mv_ept *ept, unsigned int view, uint64_t first_gpa,
			   uint64_t last_gpa, bool convertible);

/* --- tracking ----------------------------------------------------------------------------- */

/**
 * enum mv_ept_track - how writes are noticed
 * @MV_EPT_TRACK_NONE:  they are not
 * @MV_EPT_TRACK_DIRTY: by the dirty bits; a huge page is dirty as a whole. A harvest looks at
 *                      every leaf.
 * @MV_EPT_TRACK_WRITE_PROTECT: by a fault at the first write to each page. Works on every
 *                      processor; a harvest costs what has been written.
 * @MV_EPT_TRACK_PML:   by the processor's page-modification log (SDM vol. 3, 29.3.6), handed to
 *                      mv_ept_pml_drain(). Pages are 4 KiB; a harvest costs what has been written.
 */
enum mv_ept_track {
	MV_EPT_TRACK_NONE,
	MV_EPT_TRACK_DIRTY,
	MV_EPT_TRACK_WRITE_PROTECT,
	MV_EPT_TRACK_PML,
};

/**
 * mv_ept_track() - begin, end, or change how a region's writes are tracked
 * @ept:       the space
 * @first_gpa: first address of an attached region
 * @how:       from now on. Beginning counts nothing as dirty; what was recorded is forgotten.
 *
 * WRITE_PROTECT and PML split huge pages now, and map none until they end.
 *
 * Context: takes ept->lock; sleeps; flushes; not in a read section.
 * Return: 0; -ENOENT where no such region is attached; -EOPNOTSUPP for DIRTY and PML in EPT without
 * MV_FEATURE_ACCESSED, for PML in NPT; -ENOMEM or -ENOSPC, tracking as before.
 */
int mv_ept_track(struct mv_ept *ept, uint64_t first_gpa, enum mv_ept_track how);

#define MV_EPT_PML_ENTRIES 512

/**
 * mv_ept_pml_drain() - take over a processor's page-modification log
 * @ept:   the space
 * @log:   the page of 512 addresses, which the processor fills downwards
 * @index: PML index of the VMCS: the next entry to be written. 511: empty; 0xffff: full.
 *
 * SDM vol. 3, 29.3.6. The caller sets the index to 511 afterwards. Addresses that no tracked
 * region has are counted and otherwise ignored.
 *
 * Context: the vCPU is not in the guest; takes no lock, never waits.
 * Return: how many addresses were recorded.
 */
unsigned int mv_ept_pml_drain(struct mv_ept *ept, const uint64_t *log, unsigned int index);

/**
 * mv_ept_harvest() - which pages have been written since they were last reported?
 * @ept:       the space
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 * @bitmap:    one bit a page from @first_gpa on, bit 0 of word 0 first; bits are set, none is
 *             cleared
 * @dirty:     where not NULL, set to the number of dirty pages reported
 *
 * Whatever tracks. Clears, then flushes: when it returns, whoever reads the reported pages finds
 * the writes that made them dirty; later ones are reported again. With PML, drain the logs first:
 * what a processor still keeps is reported the next time, not lost.
 *
 * Context: takes ept->lock; sleeps; not in a read section.
 * Return: 0; -EINVAL for a bad range; -ENOENT where a page of it is not tracked.
 */
int mv_ept_harvest(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa, uint64_t *bitmap,
		   uint64_t *dirty);

/**
 * mv_ept_age() - which pages have been used since they were last asked for?
 * @ept:       the space
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 * @bitmap:    as in mv_ept_harvest(); a huge page is used as a whole. NULL: only clear.
 * @used:      where not NULL, set to the number of pages used
 *
 * Clears accessed bits, of all views, and of huge pages that reach into the range. No flush: a
 * processor that holds a translation may use a page without saying so again, for a while. Good
 * enough to tell hot from cold.
 *
 * Context: takes no lock, waits for nobody.
 * Return: 0; -EINVAL for a bad range; -EOPNOTSUPP in EPT without MV_FEATURE_ACCESSED.
 */
int mv_ept_age(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa, uint64_t *bitmap,
	       uint64_t *used);

/**
 * mv_ept_split() - map a range by small pages, of all views
 * @ept:       the space
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 * @page_lg2:  12 or 21
 *
 * Ahead of what would split them one by one. Faults may map huge pages again, where none is mapped.
 *
 * Context: takes ept->lock; sleeps; flushes; not in a read section.
 * Return: 0; -EINVAL; -ENOMEM or -ENOSPC, some split then.
 */
int mv_ept_split(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa, unsigned int page_lg2);

/**
 * mv_ept_collapse() - huge pages again, where all small ones are mapped and nothing forbids it
 * @ept:       the space
 * @first_gpa: aligned to 4 KiB
 * @last_gpa:  inclusive; the length is a multiple of 4 KiB
 *
 * Leaves alone what is tracked by write protection or PML. With MV_EPT_NX_HUGE pages lose the right
 * to be fetched from, until they are.
 *
 * Context: takes ept->lock; sleeps; flushes; not in a read section.
 * Return: how many tables were replaced.
 */
uint64_t mv_ept_collapse(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa);

/* --- looking ------------------------------------------------------------------------------ */

/**
 * struct mv_ept_stats - counts since creation, but for @table_pages
 * @faults:      by outcome
 * @prefaults:   leaves that mv_ept_prefault() mapped
 * @revoked:     leaves that revokes took away
 * @flushes:     calls of the flush operation
 * @pml_logged:  addresses of page-modification logs that were recorded
 * @pml_ignored: those that no tracked region has
 * @table_pages: of all views, now
 */
struct mv_ept_stats {
	uint64_t faults[MV_EPT_FAULT_KINDS];
	uint64_t prefaults;
	uint64_t revoked;
	uint64_t flushes;
	uint64_t pml_logged;
	uint64_t pml_ignored;
	uint64_t table_pages;
};

/** mv_ept_get_stats() - each exact in itself. Context: any; never waits. */
void mv_ept_get_stats(struct mv_ept *ept, struct mv_ept_stats *stats);

/**
 * mv_ept_walk() - the leaf that maps a page in a view, whatever a processor would say
 * @ept:     the space
 * @view:    its number
 * @gpa:     any address
 * @mapping: set on success
 *
 * Context: any; never waits.
 * Return: 0; -ENOENT where there is no such view or nothing is mapped; -EINVAL beyond the last
 * address.
 */
int mv_ept_walk(struct mv_ept *ept, unsigned int view, uint64_t gpa, struct mv_mapping *mapping);

/**
 * mv_ept_check() - do all invariants hold? for tests and debug builds
 * @ept:    a space that nobody changes meanwhile
 * @defect: set; see mv_table_check()
 *
 * Also that no leaf lies outside the attached regions, maps a page to elsewhere than it is
 * resolved to, or grants more than its view does.
 *
 * Context: not in a read section.
 * Return: true where all is well.
 */
bool mv_ept_check(struct mv_ept *ept, struct mv_table_defect *defect);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_EPT_H */
