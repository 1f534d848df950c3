/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stage-2 space and the pager over one memory: processors use guest pages through translations
 * while the pager evicts them, and find in each what they last wrote.
 *
 * A second mapping of the memory's file stands for physical memory: it takes no fault that
 * userfaultfd would report, so whoever uses it through a stale translation finds, or writes, a
 * page that is not the guest's any more.
 */
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#include "region.h"
#include "support/ept_rig.h"
#include "support/pager_rig.h"
#include "support/testing.h"

#define PAGE	MV_PAGE_SIZE
#define PAGES	4096
#define LIMIT	(PAGES / 4 * PAGE)
#define CPUS	2
#define SECONDS 4

struct vcpu {
	pthread_t thread;
	struct sim_cpu sim;
	uint64_t values[PAGES]; /* what it wrote last; page n belongs to vCPU n % CPUS */
	uint64_t accesses, brought_in;
};

static struct {
	struct pager_rig pager;
	struct mv_ept *ept;
	struct mv_asids *asids;
	struct mv_asid_space *space;
	unsigned char *frames; /* "physical memory" */
	struct vcpu vcpus[CPUS];
	bool done; /* atomic */
} rig;

/* As a hypervisor asks its host's page tables: a page that they do not map has to be brought in. */
static int resolve(void *ctx, const struct mv_ept_page *page, struct mv_ept_backing *backing)
{
	const struct mv_region *region = mv_region_by_gpa(rig.pager.memory, page->gpa);
	uint32_t word = mv_page_load(&region->words[mv_region_page(region, page->gpa)]);

	if (mv_word_state(word) != MV_PAGE_RESIDENT ||
	    (word & (MV_WORD_BUSY | MV_WORD_COPYING | MV_WORD_UNMAPPED)))
		return -EAGAIN;
	backing->hpa = (uintptr_t)rig.frames + (page->gpa - RIG_GPA);
	backing->page_lg2 = 12;
	backing->writable = true;
	return 0;
}

static void kick(void *ctx, const uint64_t *cpus, unsigned int words)
{
	for (unsigned int i = 0; i < CPUS; i++)
		if (cpus[0] >> i & 1)
			__atomic_store_n(&rig.vcpus[i].sim.kick, true, __ATOMIC_SEQ_CST);
}

/* The whole page is checked and written: the word at its begin, and one that moves. */
static void use_page(struct vcpu *vcpu, uint64_t page, bool write, uint64_t hpa)
{
	uint64_t *words = (uint64_t *)(uintptr_t)hpa, *value = &vcpu->values[page];
	unsigned int at = 1 + (unsigned int)(*value % 511);

	insist(words[0] == *value);
	insist(words[at] == (*value ? *value ^ page : 0));
	if (write) {
		words[at] = 0;
		words[0] = ++*value;
		words[1 + *value % 511] = *value ^ page;
	}
	vcpu->accesses++;
}

/* True where the exit is to be resolved. */
static bool run_guest(struct vcpu *vcpu, struct mv_stage2_exit *exit)
{
	struct sim_cpu *sim = &vcpu->sim;

	for (int i = 0; i < 64; i++) {
		uint64_t page = chance_below(&sim->chance, PAGES / CPUS) * CPUS + sim->number, hpa;
		bool write = chance_one_in(&sim->chance, 2);

		/* Mostly the same few, so that there is something to keep. */
		if (!chance_one_in(&sim->chance, 4))
			page %= 256;
		if (__atomic_load_n(&sim->kick, __ATOMIC_SEQ_CST))
			return false;
		if (!sim_cpu_access(sim, RIG_GPA + page * PAGE,
				    write ? MV_ACCESS_WRITE : MV_ACCESS_READ, &hpa, exit))
			return true;
		use_page(vcpu, page, write, hpa);
	}
	return false;
}

static void resolve_exit(struct vcpu *vcpu, const struct mv_stage2_exit *exit)
{
	struct mv_ept_outcome outcome;

	insist(!mv_ept_fault(rig.ept, 0, exit, &outcome));
	insist(outcome.kind <= MV_EPT_RETRY);
	if (outcome.kind != MV_EPT_RETRY)
		return;
	/* Outside the guest: the pager may be waiting for this processor. */
	*(volatile unsigned char *)rig_page(&rig.pager, (exit->gpa - RIG_GPA) / PAGE);
	vcpu->brought_in++;
}

static void *vcpu_main(void *arg)
{
	struct vcpu *vcpu = arg;
	struct sim_cpu *sim = &vcpu->sim;

	while (!__atomic_load_n(&rig.done, __ATOMIC_RELAXED)) {
		struct mv_stage2_exit exit;
		struct mv_asid_entry entry;
		bool fault;

		__atomic_store_n(&sim->kick, false, __ATOMIC_SEQ_CST);
		mv_asid_enter(rig.space, &sim->context, sim->number, &entry);
		if (entry.flush != MV_ASID_FLUSH_NONE)
			sim_cpu_flush(sim);
		fault = run_guest(vcpu, &exit);
		mv_asid_exit(rig.space, sim->number);
		if (fault)
			resolve_exit(vcpu, &exit);
	}
	return NULL;
}

static void open_space(void)
{
	static const struct mv_ept_ops ops = { .resolve = resolve };
	struct mv_asids_config asids = { .size = sizeof(asids),
					 .kind = MV_ASID_VPID,
					 .cpus = CPUS,
					 .first_tag = 1,
					 .last_tag = 65535,
					 .kick = kick };
	struct mv_ept_config config = { .size = sizeof(config),
					.memory = rig.pager.memory,
					.format = MV_FORMAT_EPT_4L,
					.features = RIG_EPT_FEATURES,
					.maxphyaddr = 52,
					.node = -1,
					.ops = &ops };

	rig.frames = mmap(NULL, PAGES * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, rig.pager.fd, 0);
	assert_true(rig.frames != MAP_FAILED);
	assert_int_equal(mv_asids_create(&asids, &rig.asids), 0);
	assert_int_equal(mv_asid_space_create(rig.asids, &rig.space), 0);
	config.asid_space = rig.space;
	assert_int_equal(mv_ept_create(&config, &rig.ept), 0);
	assert_int_equal(mv_ept_attach(rig.ept, RIG_GPA), 0);
}

static void close_space(void)
{
	struct mv_table_defect defect;

	assert_true(mv_ept_check(rig.ept, &defect));
	assert_int_equal(mv_ept_detach(rig.ept, RIG_GPA), 0);
	mv_ept_destroy(rig.ept);
	mv_asid_space_destroy(rig.space);
	mv_asids_destroy(rig.asids);
	munmap(rig.frames, PAGES * PAGE);
}

/* What the VMM finds through its own mapping. */
static void check_content(void)
{
	for (uint64_t page = 0; page < PAGES; page++) {
		const uint64_t *words = (const uint64_t *)rig_page(&rig.pager, page);
		uint64_t value = rig.vcpus[page % CPUS].values[page];

		assert_int_equal(words[0], value);
		assert_int_equal(words[1 + value % 511], value ? value ^ page : 0);
	}
}

static void evicted_pages_come_back_as_they_were(void **state)
{
	uint64_t seed = test_seed(), accesses = 0, brought_in = 0;
	struct mv_pager_stats stats;
	struct mv_ept_stats ept;

	if (!rig_possible(RIG_SHARED))
		skip();
	memset(&rig, 0, sizeof(rig));
	rig_open(&rig.pager, RIG_SHARED, PAGES, LIMIT);
	rig_start(&rig.pager, 1);
	assert_int_equal(mv_pager_attach(rig.pager.pager, RIG_GPA), 0);
	open_space();
	for (unsigned int i = 0; i < CPUS; i++) {
		sim_cpu_init(&rig.vcpus[i].sim, rig.ept, mv_platform_linux(), i, seed);
		assert_int_equal(
			pthread_create(&rig.vcpus[i].thread, NULL, vcpu_main, &rig.vcpus[i]), 0);
	}
	sleep(SECONDS);
	__atomic_store_n(&rig.done, true, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < CPUS; i++) {
		pthread_join(rig.vcpus[i].thread, NULL);
		accesses += rig.vcpus[i].accesses;
		brought_in += rig.vcpus[i].brought_in;
	}
	stats = rig_stats(&rig.pager);
	mv_ept_get_stats(rig.ept, &ept);
	close_space();
	check_content();
	print_message("# %llu accesses, %llu leaves revoked, %llu evictions, %llu restores, "
		      "%llu touches to bring a page in\n",
		      (unsigned long long)accesses, (unsigned long long)ept.revoked,
		      (unsigned long long)stats.evictions, (unsigned long long)stats.restores,
		      (unsigned long long)brought_in);
	assert_true(accesses && ept.revoked && stats.evictions && stats.restores);
	rig_close(&rig.pager);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(evicted_pages_come_back_as_they_were),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
