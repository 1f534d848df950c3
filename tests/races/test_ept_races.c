/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stage-2 space under processors that run while pages are given away, rights and types change,
 * pages are split and collapsed, aged, and tracked. Each processor keeps translations until it is
 * told to flush, and insists at every access that
 *
 *  - the page is not one that has been given away,
 *  - the address is the page's own,
 *  - a write is not one to a page that was write-protected before.
 *
 * In the end, whoever copied the pages that were reported as written has all that was written.
 */
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "support/ept_rig.h"
#include "support/testing.h"

#define PAGE	 MV_PAGE_SIZE
#define CPUS	 3
#define SHIFT	 37 /* pages: granules of the region lie across large pages */
#define PAGES	 (3 * 512 + 100)
#define BASE	 ((4ULL << 30) + SHIFT * PAGE)
#define GRANULES 4

struct vcpu {
	pthread_t thread;
	struct sim_cpu sim;
	uint32_t tag;
	uint64_t accesses, faults[MV_EPT_FAULT_KINDS];
} __attribute__((aligned(64)));

static struct {
	struct guest guest;
	struct mv_ept *ept;
	struct mv_asids *asids;
	struct mv_asid_space *space;
	unsigned char *mem; /* of the region */
	struct vcpu vcpus[CPUS];
	unsigned int second; /* a view that grants no writes anywhere but where it is said */
	enum mv_ept_track how;
	uint64_t seed;
	bool done;	       /* atomic */
	bool dropping[PAGES];  /* atomic: given away, and nobody may reach it */
	bool sealed[2][PAGES]; /* atomic: by view: may not be written */
	uint64_t saved[PAGES]; /* of the harvester: what it has copied */
	uint64_t drops, harvests, reported, collapsed;
} rig;

static bool done(void)
{
	return __atomic_load_n(&rig.done, __ATOMIC_RELAXED);
}

static bool flag(const bool *flag)
{
	return __atomic_load_n(flag, __ATOMIC_SEQ_CST);
}

static void set_flag(bool *flag, bool value)
{
	__atomic_store_n(flag, value, __ATOMIC_SEQ_CST);
}

/* The guest's content of a page is its first word. */
static uint64_t *word_of(uint64_t page)
{
	return (uint64_t *)(rig.mem + page * PAGE);
}

/*
 * As a space without this operation says, but slower now and then: what was decided before is
 * out of date then, and must be found so.
 */
static int resolve_page(void *ctx, const struct mv_ept_page *page, struct mv_ept_backing *backing)
{
	static __thread unsigned int calls;

	if (++calls % 16 == 0)
		sched_yield();
	backing->hpa = (uintptr_t)page->hva;
	backing->page_lg2 = 30;
	backing->writable = true;
	return 0;
}

static const struct mv_ept_ops ept_ops = { .resolve = resolve_page };

/* --- processors ------------------------------------------------------------------------------ */

static void kick(void *ctx, const uint64_t *cpus, unsigned int words)
{
	for (unsigned int i = 0; i < CPUS; i++)
		if (cpus[0] >> i & 1)
			set_flag(&rig.vcpus[i].sim.kick, true);
}

static unsigned int some_access(struct chance *chance)
{
	static const unsigned int accesses[] = { MV_ACCESS_READ, MV_ACCESS_WRITE, MV_ACCESS_WRITE,
						 MV_ACCESS_FETCH };

	return accesses[chance_below(chance, COUNT_OF(accesses))];
}

/* Often the same few pages, on both sides of each border. */
static uint64_t some_page(struct chance *chance)
{
	uint64_t page = chance_below(chance, GRANULES) * 512 + chance_below(chance, 16);

	if (chance_one_in(chance, 4))
		return chance_below(chance, PAGES);
	page = chance_one_in(chance, 2) ? page + 512 - SHIFT - 8 : page;
	return page % PAGES;
}

static void made(struct vcpu *vcpu, uint64_t page, unsigned int access, uint64_t hpa)
{
	vcpu->accesses++;
	insist(hpa == (uintptr_t)word_of(page));
	insist(!flag(&rig.dropping[page]));
	if (!(access & MV_ACCESS_WRITE))
		return;
	insist(!flag(&rig.sealed[vcpu->sim.view != 0][page]));
	__atomic_fetch_add(word_of(page), 1, __ATOMIC_SEQ_CST);
}

/* In the guest, until an exit. True where it is one to be resolved. */
static bool run_guest(struct vcpu *vcpu, struct mv_stage2_exit *exit)
{
	struct sim_cpu *sim = &vcpu->sim;

	for (int i = 0; i < 100; i++) {
		uint64_t page = some_page(&sim->chance), hpa;
		unsigned int access = some_access(&sim->chance);

		if (flag(&sim->kick) || sim_cpu_pml_full(sim))
			return false;
		if (chance_one_in(&sim->chance, 16))
			sim->view = sim->view ? 0 : rig.second;
		if (!sim_cpu_access(sim, BASE + page * PAGE, access, &hpa, exit))
			return true;
		made(vcpu, page, access, hpa);
	}
	return false;
}

static void resolve(struct vcpu *vcpu, const struct mv_stage2_exit *exit)
{
	struct mv_ept_outcome outcome;

	insist(!mv_ept_fault(rig.ept, vcpu->sim.view, exit, &outcome));
	insist(outcome.kind != MV_EPT_MMIO && outcome.kind != MV_EPT_MISCONFIGURED);
	vcpu->faults[outcome.kind]++;
	if (outcome.kind == MV_EPT_RETRY)
		sched_yield();
}

static void *vcpu_main(void *arg)
{
	struct vcpu *vcpu = arg;
	struct sim_cpu *sim = &vcpu->sim;

	while (!done()) {
		struct mv_stage2_exit exit;
		struct mv_asid_entry entry;
		bool fault;

		set_flag(&sim->kick, false);
		mv_asid_enter(rig.space, &sim->context, sim->number, &entry);
		/* What lies under another tag is not found. */
		if (entry.flush != MV_ASID_FLUSH_NONE || entry.tag != vcpu->tag)
			sim_cpu_flush(sim);
		vcpu->tag = entry.tag;
		fault = run_guest(vcpu, &exit);
		mv_asid_exit(rig.space, sim->number);
		if (sim->pml)
			sim_cpu_drain(sim);
		if (fault)
			resolve(vcpu, &exit);
	}
	return NULL;
}

/* --- those who meddle ------------------------------------------------------------------------ */

struct meddler {
	pthread_t thread;
	unsigned int index; /* among those that do the same */
	struct chance chance;
};

static void drop(void *ctx, struct mv_batch *batch)
{
	mv_batch_for_each_page (batch, bit)
		set_flag(&rig.dropping[batch->first_page + bit], true);
	sched_yield();
	mv_batch_for_each_page (batch, bit)
		set_flag(&rig.dropping[batch->first_page + bit], false);
	__atomic_fetch_add(&rig.drops, 1, __ATOMIC_RELAXED);
}

static void some_range(struct chance *chance, uint64_t *first, uint64_t *last)
{
	*first = some_page(chance);
	*last = *first + chance_below(chance, chance_one_in(chance, 8) ? 600 : 8);
	if (*last >= PAGES)
		*last = PAGES - 1;
}

static void discard(uint64_t first, uint64_t last)
{
	insist(!mv_memory_discard(rig.guest.memory, BASE + first * PAGE,
				  BASE + last * PAGE + PAGE - 1, drop, NULL, NULL));
}

static void *discard_main(void *arg)
{
	struct meddler *m = arg;

	while (!done()) {
		uint64_t first, last;

		some_range(&m->chance, &first, &last);
		discard(first, last);
		/* Bursts, and time to map all of a large page in between. */
		usleep(chance_one_in(&m->chance, 20) ? 30000
						     : (unsigned int)chance_below(&m->chance, 100));
	}
	return NULL;
}

/* One page at a time, so that large pages come about again and again. */
static void *discard_one_main(void *arg)
{
	struct meddler *m = arg;

	while (!done()) {
		uint64_t page = some_page(&m->chance);

		discard(page, page);
		usleep((unsigned int)chance_below(&m->chance, 1000));
	}
	return NULL;
}

static void protect(struct meddler *m, uint64_t first, uint64_t last)
{
	unsigned int which = (unsigned int)chance_below(&m->chance, 2);
	unsigned int view = which ? rig.second : 0;
	uint64_t first_gpa = BASE + first * PAGE, last_gpa = BASE + last * PAGE + PAGE - 1;
	uint32_t rights = MV_ATTR_READ | MV_ATTR_EXEC;

	insist(!mv_ept_protect(rig.ept, view, first_gpa, last_gpa, rights));
	for (uint64_t page = first; page <= last; page++)
		set_flag(&rig.sealed[which][page], true);
	usleep((unsigned int)chance_below(&m->chance, 400));
	for (uint64_t page = first; page <= last; page++)
		set_flag(&rig.sealed[which][page], false);
	insist(!mv_ept_unprotect(rig.ept, view, first_gpa, last_gpa));
}

/* Of two, each has pages of its own to seal: what one records must not unsettle the other's. */
static void *change_main(void *arg)
{
	struct meddler *m = arg;

	while (!done()) {
		uint64_t first, last, first_gpa, last_gpa;

		some_range(&m->chance, &first, &last);
		first_gpa = BASE + first * PAGE;
		last_gpa = BASE + last * PAGE + PAGE - 1;
		if (chance_one_in(&m->chance, 6)) {
			insist(!mv_ept_set_type(
				rig.ept, first_gpa, last_gpa,
				chance_one_in(&m->chance, 3) ? MV_TYPE_WT : MV_TYPE_WB, false));
		} else if (chance_one_in(&m->chance, 4)) {
			insist(!mv_ept_age(rig.ept, first_gpa, last_gpa, NULL, NULL));
		} else if (m->index ? first >= PAGES / 2 : last < PAGES / 2) {
			protect(m, first, last);
		}
		usleep((unsigned int)chance_below(&m->chance, 100));
	}
	return NULL;
}

static void *size_main(void *arg)
{
	struct meddler *m = arg;

	while (!done()) {
		uint64_t first, last;

		some_range(&m->chance, &first, &last);
		if (chance_one_in(&m->chance, 2))
			insist(!mv_ept_prefault(rig.ept,
						chance_one_in(&m->chance, 2) ? rig.second : 0, BASE,
						BASE + PAGES * PAGE - 1, NULL));
		__atomic_fetch_add(&rig.collapsed,
				   mv_ept_collapse(rig.ept, BASE, BASE + PAGES * PAGE - 1),
				   __ATOMIC_RELAXED);
		if (chance_one_in(&m->chance, 4))
			insist(!mv_ept_split(rig.ept, BASE + first * PAGE,
					     BASE + last * PAGE + PAGE - 1, 12));
		usleep((unsigned int)chance_below(&m->chance, 300));
	}
	return NULL;
}

static void harvest(void)
{
	uint64_t bitmap[(PAGES + 63) / 64] = { 0 }, dirty;
	static uint64_t before[PAGES];

	for (uint64_t page = 0; page < PAGES; page++)
		before[page] = __atomic_load_n(word_of(page), __ATOMIC_SEQ_CST);
	insist(!mv_ept_harvest(rig.ept, BASE, BASE + PAGES * PAGE - 1, bitmap, &dirty));
	for (uint64_t page = 0; page < PAGES; page++)
		if (bitmap[page / 64] >> (page % 64) & 1)
			rig.saved[page] = __atomic_load_n(word_of(page), __ATOMIC_SEQ_CST);
	/*
	 * Dirty bits lag behind nothing. (A fault records its write after it has let it through,
	 * and a log may still be in the processor.)
	 */
	for (uint64_t page = 0; rig.how == MV_EPT_TRACK_DIRTY && page < PAGES; page++)
		insist(rig.saved[page] >= before[page]);
	rig.harvests++;
	rig.reported += dirty;
}

static void *harvest_main(void *arg)
{
	struct meddler *m = arg;

	while (!done()) {
		harvest();
		usleep((unsigned int)chance_below(&m->chance, 500));
	}
	return NULL;
}

/* --- all together ---------------------------------------------------------------------------- */

static void open_rig(enum mv_format_id format, enum mv_ept_track how, uint32_t policy)
{
	struct mv_asids_config asids = { .size = sizeof(asids),
					 .kind = rig_is_ept(format) ? MV_ASID_VPID : MV_ASID_AMD,
					 .cpus = CPUS,
					 .first_tag = 1,
					 .last_tag = 50,
					 .kick = kick };
	struct mv_ept_config config = { .size = sizeof(config),
					.format = format,
					.features = rig_is_ept(format) ? RIG_EPT_FEATURES
								       : RIG_NPT_FEATURES,
					.maxphyaddr = 52,
					.node = -1,
					.policy = policy,
					.ops = &ept_ops };
	size_t bytes = (PAGES + SHIFT + 1024) * PAGE;
	uintptr_t aligned;

	rig.how = how;
	guest_init(&rig.guest, bytes);
	aligned = ((uintptr_t)rig.guest.mem + MV_GRANULE_SIZE - 1) & ~(MV_GRANULE_SIZE - 1);
	rig.mem = (unsigned char *)aligned + SHIFT * PAGE;
	assert_int_equal(guest_add(&rig.guest, BASE, PAGES, (size_t)(rig.mem - rig.guest.mem)), 0);
	assert_int_equal(mv_asids_create(&asids, &rig.asids), 0);
	assert_int_equal(mv_asid_space_create(rig.asids, &rig.space), 0);
	config.memory = rig.guest.memory;
	config.asid_space = rig.space;
	assert_int_equal(mv_ept_create(&config, &rig.ept), 0);
	assert_int_equal(mv_ept_attach(rig.ept, BASE), 0);
	assert_int_equal(mv_ept_view_create(rig.ept, RIG_ALL, &rig.second), 0);
	assert_int_equal(mv_ept_track(rig.ept, BASE, how), 0);
}

static void close_rig(void)
{
	struct mv_table_defect defect;

	assert_true(mv_ept_check(rig.ept, &defect));
	mv_ept_destroy(rig.ept);
	mv_asid_space_destroy(rig.space);
	mv_asids_destroy(rig.asids);
	guest_finish(&rig.guest);
}

static void start_vcpus(void)
{
	for (unsigned int i = 0; i < CPUS; i++) {
		struct vcpu *vcpu = &rig.vcpus[i];

		sim_cpu_init(&vcpu->sim, rig.ept, &rig.guest.fake.platform, i, rig.seed);
		sim_cpu_load_view(&vcpu->sim, rig.second);
		vcpu->sim.pml = rig.how == MV_EPT_TRACK_PML;
		assert_int_equal(pthread_create(&vcpu->thread, NULL, vcpu_main, vcpu), 0);
	}
}

struct job {
	void *(*main)(void *);
	unsigned int index;
};

/* Jobs of a run, up to one without a main(). */
static const struct job all_jobs[] = { { discard_main, 0 }, { discard_main, 1 },
				       { change_main, 0 },  { change_main, 1 },
				       { size_main, 0 },    { harvest_main, 0 },
				       { NULL, 0 } };
static const struct job size_jobs[] = {
	{ discard_one_main, 0 }, { size_main, 0 }, { harvest_main, 0 }, { NULL, 0 }
};

static bool enough(const struct job *jobs)
{
	return __atomic_load_n(&rig.drops, __ATOMIC_RELAXED) &&
	       (jobs != size_jobs || __atomic_load_n(&rig.collapsed, __ATOMIC_RELAXED));
}

static void run(const struct job *jobs, enum mv_format_id format, enum mv_ept_track how,
		uint32_t policy)
{
	struct meddler meddlers[COUNT_OF(all_jobs)];
	uint64_t accesses = 0, fixed = 0, retries = 0, hits = 0;
	unsigned int count = 0;

	memset(&rig, 0, sizeof(rig));
	rig.seed = test_seed();
	open_rig(format, how, policy);
	start_vcpus();
	while (jobs[count].main && (how != MV_EPT_TRACK_NONE || jobs[count].main != harvest_main))
		count++;
	for (unsigned int i = 0; i < count; i++) {
		meddlers[i].index = jobs[i].index;
		meddlers[i].chance = chance_of(rig.seed, i);
		assert_int_equal(
			pthread_create(&meddlers[i].thread, NULL, jobs[i].main, &meddlers[i]), 0);
	}
	/* Longer where the machine is slow, or shared. */
	for (int i = 0; i < 100 && (i < 15 || !enough(jobs)); i++)
		usleep(100000);
	__atomic_store_n(&rig.done, true, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < count; i++)
		pthread_join(meddlers[i].thread, NULL);
	for (unsigned int i = 0; i < CPUS; i++) {
		pthread_join(rig.vcpus[i].thread, NULL);
		accesses += rig.vcpus[i].accesses;
		hits += rig.vcpus[i].sim.hits;
		fixed += rig.vcpus[i].faults[MV_EPT_FIXED];
		retries += rig.vcpus[i].faults[MV_EPT_RETRY];
	}
	if (how != MV_EPT_TRACK_NONE) {
		harvest();
		for (uint64_t page = 0; page < PAGES; page++)
			assert_int_equal(rig.saved[page], *word_of(page));
	}
	print_message("# %llu accesses, %llu of them cached, %llu faults resolved, %llu retries, "
		      "%llu drops, %llu harvests of %llu pages, %llu collapses\n",
		      (unsigned long long)accesses, (unsigned long long)hits,
		      (unsigned long long)fixed, (unsigned long long)retries,
		      (unsigned long long)rig.drops, (unsigned long long)rig.harvests,
		      (unsigned long long)rig.reported, (unsigned long long)rig.collapsed);
	assert_true(hits && fixed && rig.drops);
	if (jobs == size_jobs)
		assert_true(rig.collapsed);
	close_rig();
}

static void ept_untracked(void **state)
{
	run(all_jobs, MV_FORMAT_EPT_4L, MV_EPT_TRACK_NONE, 0);
}

static void ept_with_dirty_bits(void **state)
{
	run(all_jobs, MV_FORMAT_EPT_4L, MV_EPT_TRACK_DIRTY, 0);
}

static void ept_with_modification_logs(void **state)
{
	run(all_jobs, MV_FORMAT_EPT_4L, MV_EPT_TRACK_PML, 0);
}

static void ept_write_protected(void **state)
{
	run(all_jobs, MV_FORMAT_EPT_5L, MV_EPT_TRACK_WRITE_PROTECT, 0);
}

static void npt_with_dirty_bits(void **state)
{
	run(all_jobs, MV_FORMAT_NPT_4L, MV_EPT_TRACK_DIRTY, 0);
}

static void npt_write_protected(void **state)
{
	run(all_jobs, MV_FORMAT_NPT_5L, MV_EPT_TRACK_WRITE_PROTECT, 0);
}

static void without_executable_huge_pages(void **state)
{
	run(all_jobs, MV_FORMAT_EPT_4L, MV_EPT_TRACK_DIRTY, MV_EPT_NX_HUGE);
}

static void with_software_that_walks(void **state)
{
	run(all_jobs, MV_FORMAT_NPT_4L, MV_EPT_TRACK_DIRTY, MV_EPT_SOFTWARE_WALK);
}

static void large_pages_come_and_go(void **state)
{
	run(size_jobs, MV_FORMAT_EPT_4L, MV_EPT_TRACK_NONE, 0);
	run(size_jobs, MV_FORMAT_NPT_4L, MV_EPT_TRACK_DIRTY, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(ept_untracked),
		cmocka_unit_test(ept_with_dirty_bits),
		cmocka_unit_test(ept_with_modification_logs),
		cmocka_unit_test(ept_write_protected),
		cmocka_unit_test(npt_with_dirty_bits),
		cmocka_unit_test(npt_write_protected),
		cmocka_unit_test(without_executable_huge_pages),
		cmocka_unit_test(with_software_that_walks),
		cmocka_unit_test(large_pages_come_and_go),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
