/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Both stages together, as a processor in a guest walks them: from a guest-virtual to a
 * host-physical address, with each access to a guest table itself translated by stage 2; and
 * caches of the results that are invalidated exactly.
 *
 * What does not belong here: stage 1 alone (guest_walk.h), stage 2 alone (stage2.h), the
 * resolution of faults (ept.h).
 *
 * Guest frames. A walk reads guest tables at their host-physical addresses, through a direct map
 * or an accessor. Nothing in that pins a page. So a walk, and whatever is then done with the
 * address that it returns, happens in one read section of the platform of the space, and whoever
 * takes a page from the space does, in this order: change the tables, mv_nested_log_add(),
 * platform wait_readers(), and only then drop the page or free the table. A mv_ept does so by
 * itself; guests' tables that somebody else manages need the same from him. Where frames may
 * fault on access (userfaultfd) a read section is no place to touch them: hand in an accessor
 * that refuses what is not resident, and restore the page outside.
 */
#ifndef MEMVIRT_NESTED_H
#define MEMVIRT_NESTED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/guest_walk.h>
#include <memvirt/stage2.h>
#include <memvirt/table.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/* --- what changed in stage 2 -------------------------------------------------------------- */

#define MV_NESTED_LOG_SLOTS 64 /* changes that a cache may lag behind; a power of two */

/**
 * struct mv_nested_log - which translations of a space changed, for caches that others own
 *
 * Plain data: embed it in the space. To be looked at by nobody but the functions below.
 * Atomic: all fields. @head counts the changes so far; slot n % MV_NESTED_LOG_SLOTS holds
 * change n once its @number is n + 1.
 */
struct mv_nested_log {
	uint64_t head __attribute__((aligned(64)));
	struct mv_nested_change {
		uint64_t number;
		uint64_t first_gpa;
		uint64_t last_gpa;
	} slot[MV_NESTED_LOG_SLOTS] __attribute__((aligned(64)));
};

/** mv_nested_log_init() - an empty log. Context: before anybody else sees it. */
void mv_nested_log_init(struct mv_nested_log *log);

/**
 * mv_nested_log_add() - tell all caches that stage 2 changed for a closed range
 * @log:       of the space
 * @first_gpa: first guest-physical address whose translation or rights changed
 * @last_gpa:  last one, inclusive
 *
 * To be called after the change to the tables. From its return on, a walk that begins (enters its
 * read section) uses nothing cached for the range; those that began before have ended when
 * the platform's wait_readers(), called after this, returns.
 *
 * Context: any number of threads at once; never waits, takes no lock.
 */
void mv_nested_log_add(struct mv_nested_log *log, uint64_t first_gpa, uint64_t last_gpa);

/* --- the walk ----------------------------------------------------------------------------- */

/* Memory types beyond enum mv_memory_type. */
#define MV_TYPE_UC_MINUS 7u /* in a PAT only: UC, but gives way to write-combining */
#define MV_TYPE_CD	 8u /* AMD, as a result: cache disabled; uncached, but caches are looked at */
#define MV_TYPE_WC_PLUS	 9u /* AMD, as a result: write-combining, and caches are looked at */

#define MV_PAT_RESET 0x0007040600070406ull /* IA32_PAT after a reset: WB WT UC- UC, twice */

/**
 * struct mv_nested_config - what mv_nested_init() needs
 * @size:       sizeof(struct mv_nested_config)
 * @stage2:     prepared stage-2 tables; copied
 * @direct_map: where this program sees physical address 0; how guest frames are reached where
 *              @frames.read is NULL
 * @frames:     how guest frames are reached otherwise: the addresses handed to it are
 *              host-physical. @frames.change NULL: accessed and dirty of stage 1 stay as they are.
 * @guest_pat:  the guest's IA32_PAT
 * @host_pat:   NPT: the host's IA32_PAT, which the types in nested tables index
 * @mtrr_type:  NPT: the memory type that the host's MTRRs give the page of 2^@page_lg2 bytes at
 *              @hpa, MV_TYPE_UC … MV_TYPE_WB. NULL: write-back everywhere. EPT does without.
 * @mtrr_ctx:   for it
 * @log:        of the space, or NULL where nobody but this thread changes it
 */
struct mv_nested_config {
	size_t size;
	const struct mv_stage2 *stage2;
	uintptr_t direct_map;
	struct mv_guest_accessor frames;
	uint64_t guest_pat;
	uint64_t host_pat;
	unsigned int (*mtrr_type)(void *ctx, uint64_t hpa, unsigned int page_lg2);
	void *mtrr_ctx;
	struct mv_nested_log *log;
};

/**
 * struct mv_nested - a guest's registers over stage-2 tables, prepared for walks
 *
 * To be looked at, not changed; copy it as you like. One for each vCPU.
 */
struct mv_nested {
	struct mv_paging paging;
	struct mv_stage2 stage2;
	uintptr_t direct_map;
	struct mv_guest_accessor frames;
	uint64_t guest_pat;
	uint64_t host_pat;
	unsigned int (*mtrr_type)(void *ctx, uint64_t hpa, unsigned int page_lg2);
	void *mtrr_ctx;
	struct mv_nested_log *log;

	/* For caches: translations of two objects that agree in these are the same. */
	uint64_t space; /* stage-2 tables */
	uint64_t mode;	/* how stage 1 reads its tables */
	uint64_t root;	/* stage-1 tables */
	uint64_t pcid;	/* 0 while CR4.PCIDE is 0 */
};

/** enum mv_nested_kind - how a nested walk ends */
enum mv_nested_kind {
	MV_NESTED_OK,
	MV_NESTED_PAGE_FAULT,	 /* the guest's: #PF with error_code */
	MV_NESTED_NOT_CANONICAL, /* the guest's: #GP(0), or #SS(0) */
	MV_NESTED_BAD_PDPTE,	 /* the guest's: #GP(0), by mv_nested_load_pdptes() */
	MV_NESTED_STAGE2,	 /* the hypervisor's: an exit, described by stage2 */
};

/**
 * struct mv_nested_walk - the result of a nested walk
 * @kind:       how it ended; what follows holds as noted
 * @hpa:        OK: host-physical address
 * @gpa:        OK: guest-physical address. STAGE2: the one that faulted
 * @page_lg2:   OK: log2 of the bytes of the smaller of the two stages' pages
 * @attr:       OK: READ, WRITE, EXEC: both stages grant it (with mode-based execute EXEC is for
 *              the mode of the page: USER); USER, GLOBAL and protection key: of stage 1;
 *              ACCESSED; DIRTY: both stages are dirty, or have no such bit
 * @type:       OK: effective memory type: MV_TYPE_…
 * @error_code: PAGE_FAULT: MV_PF_…
 * @level:      PAGE_FAULT: level of the guest's entry; STAGE2: level of the stage-2 entry
 * @stage2_kind: STAGE2: violation or misconfiguration
 * @code:       STAGE2: exit qualification, or EXITINFO1; as in struct mv_stage2_walk
 * @suppress_ve: STAGE2: as there
 * @guest_table: STAGE2: it was an access to a guest table; otherwise the final one
 */
struct mv_nested_walk {
	enum mv_nested_kind kind;
	unsigned int page_lg2;
	uint64_t hpa;
	uint64_t gpa;
	uint32_t attr;
	unsigned int type;
	uint32_t error_code;
	unsigned int level;
	enum mv_stage2_kind stage2_kind;
	uint64_t code;
	bool suppress_ve;
	bool guest_table;
};

/**
 * struct mv_nested_trace - each step of a nested walk
 * @guest:   stage 1; its steps are those that were read
 * @walks:   stage-2 walks in @stage2
 * @stage2:  in the order in which they were made: one for each guest entry of @guest.step that was
 *           read from memory, which in PAE paging over EPT the first was not; the last one for
 *           the final address where there was one. Walks that set accessed or dirty in guest
 *           entries are not recorded, unless one faulted: it is the last then.
 */
struct mv_nested_trace {
	struct mv_walk guest;
	unsigned int walks;
	struct mv_stage2_walk stage2[MV_LEVEL_MAX + 2];
};

/**
 * mv_nested_init() - prepare stage-2 tables for nested walks, with the guest's paging off
 * @nested: to be filled
 * @config: see struct mv_nested_config
 *
 * Context: any thread; no side effect.
 * Return: 0; -EINVAL for a config that is not valid.
 */
int mv_nested_init(struct mv_nested *nested, const struct mv_nested_config *config);

/**
 * mv_nested_set_paging() - the guest loaded a control register
 * @nested: prepared
 * @paging: the guest's registers, prepared by mv_paging_init(); copied
 *
 * PAE paging over EPT: carries the PDPTEs in @paging->pdpte[] over; a load of CR3 is followed by
 * mv_nested_load_pdptes(). Caches are not told: a load of CR3 that invalidates translations
 * is followed by mv_nested_cache_flush_pcid() as well.
 *
 * Context: as @nested, which nobody else uses meanwhile.
 */
void mv_nested_set_paging(struct mv_nested *nested, const struct mv_paging *paging);

/**
 * mv_nested_set_guest_pat() - the guest wrote IA32_PAT
 * @nested: prepared
 * @pat:    the new value; types that are reserved count as UC
 *
 * Takes effect at once, for cached translations too.
 *
 * Context: as mv_nested_set_paging().
 */
void mv_nested_set_guest_pat(struct mv_nested *nested, uint64_t pat);

/**
 * mv_nested_load_pdptes() - what a load of CR3 does besides, in PAE paging
 * @nested: prepared; its paging.pdpte[] is set where walk->kind is OK
 * @walk:   set where 0 is returned: OK, also where the mode has none; BAD_PDPTE where a present
 *          one has a reserved bit; or STAGE2: a plain read without a linear address
 *
 * EPT: the four are read through stage 2, and no dirty flag is set: SDM vol. 3, 4.4.1 and 29.3.5.
 * NPT: nothing is loaded, for each walk reads the one it needs: APM vol. 2, 15.25.10.
 *
 * Context: as mv_nested_walk().
 * Return: 0; what an accessor returned.
 */
int mv_nested_load_pdptes(struct mv_nested *nested, struct mv_nested_walk *walk);

/**
 * mv_nested_walk() - translate as the processor would
 * @nested: prepared
 * @gva:    guest-virtual address; with paging off guest-physical
 * @access: MV_ACCESS_… of guest_walk.h
 * @walk:   set where 0 is returned
 *
 * The order is the architecture's: each guest table is reached through stage 2 before its
 * entry is looked at; the guest's page fault comes before a stage-2 fault of the final
 * address; accessed and dirty of stage 1 are set, through stage 2, once stage 1 grants the access.
 * Accesses to guest tables: EPT: reads, or with accessed and dirty flags on reads and writes,
 * and writes where they set flags (SDM vol. 3, 29.3.3.2, 29.3.5); NPT: writes of a user (APM
 * vol. 2, 15.25.5).
 *
 * Context: inside a read section, see the head of this file. Any number of threads.
 * Return: 0, whatever walk->kind is; what an accessor returned; -EFAULT where a stage-2 translation
 * leads to a frame that the accessor does not know; -EAGAIN where somebody changed the
 * tables at every one of many attempts.
 */
int mv_nested_walk(const struct mv_nested *nested, uint64_t gva, unsigned int access,
		   struct mv_nested_walk *walk);

/**
 * mv_nested_trace() - the same, and how it came about
 * @nested: prepared
 * @gva:    guest-virtual address
 * @access: MV_ACCESS_…
 * @walk:   set where 0 is returned
 * @trace:  set where 0 is returned
 *
 * Slower than mv_nested_walk().
 *
 * Context: as mv_nested_walk().
 * Return: as mv_nested_walk().
 */
int mv_nested_trace(const struct mv_nested *nested, uint64_t gva, unsigned int access,
		    struct mv_nested_walk *walk, struct mv_nested_trace *trace);

/**
 * mv_nested_translate_many() - host-physical addresses of many, faster than one by one
 * @nested: prepared
 * @gva:    @count addresses
 * @access: one for all
 * @hpa:    set: the host-physical address, or UINT64_MAX where mv_nested_walk() would not end
 *          with MV_NESTED_OK
 * @count:  how many
 *
 * The walks run side by side, so that one's memory latency hides the others'. With all checks.
 *
 * Context: as mv_nested_walk().
 * Return: how many were translated.
 */
size_t mv_nested_translate_many(const struct mv_nested *nested, const uint64_t *gva,
				unsigned int access, uint64_t *hpa, size_t count);

/* --- memory types ------------------------------------------------------------------------- */

/**
 * mv_nested_type_ept() - effective memory type of a page under EPT
 * @ept_type:   MV_TYPE_UC … MV_TYPE_WB, from the EPT entry
 * @ignore_pat: bit 6 of it
 * @pat_type:   from the guest's PAT, MV_TYPE_UC … MV_TYPE_UC_MINUS; MV_TYPE_WB with its paging off
 *
 * With the guest's CR0.CD set the type is UC whatever the tables say; mv_nested_walk() knows.
 * SDM vol. 3, 29.3.7.2 and table 12-7.
 *
 * Context: any; no side effect.
 * Return: MV_TYPE_UC … MV_TYPE_WB.
 */
unsigned int mv_nested_type_ept(unsigned int ept_type, bool ignore_pat, unsigned int pat_type);

/**
 * mv_nested_type_npt() - effective memory type of a page under nested paging
 * @guest_type: from the guest's PAT, MV_TYPE_UC … MV_TYPE_UC_MINUS
 * @host_type:  from the host's, by the nested entry
 * @mtrr_type:  of the host's MTRRs, MV_TYPE_UC … MV_TYPE_WB
 *
 * With the guest's CR0.CD set the type is CD; mv_nested_walk() knows.
 * APM vol. 2, 15.25.8, tables 15-19 and 15-20.
 *
 * Context: any; no side effect.
 * Return: MV_TYPE_UC … MV_TYPE_WB, MV_TYPE_CD, MV_TYPE_WC_PLUS.
 */
unsigned int mv_nested_type_npt(unsigned int guest_type, unsigned int host_type,
				unsigned int mtrr_type);

/* --- caches ------------------------------------------------------------------------------- */

struct mv_nested_cache;

/**
 * struct mv_nested_cache_config - what mv_nested_cache_create() needs
 * @size:     sizeof(struct mv_nested_cache_config)
 * @platform: NULL for mv_platform_linux(); the freestanding library has none to fall back on
 * @pages_lg2: log2 of the entries for pages of 4 KiB; 4 to 20, 0 for 10. An entry holds up to eight
 *            neighbours, where both stages map them in a row with the same rights. Besides there
 *            are a quarter as many entries for pages of 2 MiB, and 16 for 1 GiB.
 * @node:     NUMA node of its memory, or -1
 */
struct mv_nested_cache_config {
	size_t size;
	const struct mv_platform *platform;
	unsigned int pages_lg2;
	int node;
};

/**
 * mv_nested_cache_create() - caches for the walks of one vCPU
 * @config: see struct mv_nested_cache_config
 * @cache:  set on success
 *
 * Combined translations, and the paging structures of both stages that lead to them. One thread
 * at a time uses it; what other threads change in stage 2 reaches it by the log of the space.
 * It may serve any number of spaces, address spaces and modes in turn. Logs must outlive
 * it, or be forgotten by mv_nested_cache_flush_all().
 *
 * Context: any thread; may sleep.
 * Return: 0; -EINVAL; -ENOMEM.
 */
int mv_nested_cache_create(const struct mv_nested_cache_config *config,
			   struct mv_nested_cache **cache);

/** mv_nested_cache_destroy() - free it. @cache may be NULL. Context: may sleep. */
void mv_nested_cache_destroy(struct mv_nested_cache *cache);

/**
 * mv_nested_cached_walk() - mv_nested_walk() by way of a cache
 * @cache:  the vCPU's
 * @nested: the vCPU's
 * @gva:    guest-virtual address
 * @access: MV_ACCESS_…
 * @walk:   set where 0 is returned
 *
 * Rights are checked anew each time, with the registers of now. What a cached translation does
 * not grant, or would have to set dirty for, is walked. So a fault is never one that
 * mv_nested_walk() would not report. A debugger's look (MV_ACCESS_NO_UPDATE) leaves no trace in
 * the cache.
 *
 * Context: as mv_nested_walk(); one thread at a time.
 * Return: as mv_nested_walk().
 */
int mv_nested_cached_walk(struct mv_nested_cache *cache, const struct mv_nested *nested,
			  uint64_t gva, unsigned int access, struct mv_nested_walk *walk);

/*
 * Invalidation. Each drops what the architecture says, in all spaces and modes, and nothing
 * else: but that as soon as one paging structure is in doubt, by an address, the cached ones
 * of its PCID go together, for one invalidation of any address has to do for a guest that
 * changed an entry above the leaf (SDM vol. 3, 4.10.4.1). They are quickly found again.
 */

#define MV_NESTED_ALL_PCIDS UINT32_MAX

/**
 * mv_nested_cache_flush_address() - INVLPG, and INVPCID by address
 * @cache:   the vCPU's
 * @gva:     any address in the page: of the size that stage 1 has it
 * @pcid:    0 where CR4.PCIDE is 0
 * @globals: global translations too: true for INVLPG, false for INVPCID
 *
 * Context: the thread that uses the cache.
 */
void mv_nested_cache_flush_address(struct mv_nested_cache *cache, uint64_t gva, uint32_t pcid,
				   bool globals);

/**
 * mv_nested_cache_flush_pcid() - a load of CR3, and INVPCID of contexts
 * @cache:   the vCPU's
 * @pcid:    0 where CR4.PCIDE is 0; or MV_NESTED_ALL_PCIDS
 * @globals: global translations, which belong to no PCID, too
 *
 * Context: the thread that uses the cache.
 */
void mv_nested_cache_flush_pcid(struct mv_nested_cache *cache, uint32_t pcid, bool globals);

/**
 * mv_nested_cache_flush_table() - a guest table was written, and is to take effect
 * @cache:     the vCPU's
 * @table_gpa: any address in the page that holds it
 *
 * Drops all that was found by way of that page, at whatever level. A processor would not: for
 * who emulates without the guest's help.
 *
 * Context: the thread that uses the cache.
 */
void mv_nested_cache_flush_table(struct mv_nested_cache *cache, uint64_t table_gpa);

/**
 * mv_nested_cache_flush_gpa() - stage 2 changed for a closed range
 * @cache:     the vCPU's
 * @nested:    says which space
 * @first_gpa: first address
 * @last_gpa:  last address, inclusive
 *
 * Drops translations to the range, and those found by way of guest tables in it. What goes through
 * mv_nested_log_add() reaches the cache without this.
 *
 * Context: the thread that uses the cache.
 */
void mv_nested_cache_flush_gpa(struct mv_nested_cache *cache, const struct mv_nested *nested,
			       uint64_t first_gpa, uint64_t last_gpa);

/** mv_nested_cache_flush_all() - forget everything. Context: the thread that uses the cache. */
void mv_nested_cache_flush_all(struct mv_nested_cache *cache);

/**
 * struct mv_nested_cache_counts - what is in a cache, and how it does
 * @translations:  cached now
 * @structures:    paging structures of stage 1, cached now
 * @stage2_structures: of stage 2
 * @hits:          walks answered by a translation
 * @walks:         the others
 * @evicted:       entries that made room for others
 * @overruns:      times that everything of a space went, because its log had gone on too far
 */
struct mv_nested_cache_counts {
	size_t translations;
	size_t structures;
	size_t stage2_structures;
	uint64_t hits;
	uint64_t walks;
	uint64_t evicted;
	uint64_t overruns;
};

/** mv_nested_cache_get_counts() - see there. Context: the thread that uses the cache. */
void mv_nested_cache_get_counts(const struct mv_nested_cache *cache,
				struct mv_nested_cache_counts *counts);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_NESTED_H */
