/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow tables under vCPUs that fault at once, a guest that changes its tables under them, pages
 * that are given away, and a budget so small that reclaim never rests.
 *
 * A processor is a thread that looks an address up in the shadow and uses what it finds, both
 * between two counts, on which ops->flush waits: so that what a TLB would remember is forgotten
 * when a flush returns, and not before.
 */
#include <pthread.h>
#include <sched.h>

#include <memvirt/shadow.h>
#include <memvirt/view.h>

#include "guest_walk.h"
#include "support/guest.h"
#include "support/paged_guest.h"
#include "support/testing.h"

#define VCPUS  8
#define ROUNDS 20000
#define ENOUGH 50 /* writes and drops */

#define PAGES		 1024		      /* of guest memory */
#define TABLES		 (64 * MV_PAGE_SIZE)  /* they begin at address 0; then come … */
#define CHOICES		 (512 * MV_PAGE_SIZE) /* … two data pages for each shared address */
#define SHARED		 24		      /* addresses, each in a leaf table of its own */
#define SHARED_GVA(i)	 (0x40000000ULL + ((uint64_t)(i) << 21))
#define OWN_GVA(v)	 (0x100000000ULL + ((uint64_t)(v) << 21)) /* leaf table of one thread */
#define OWN_TABLE_GVA(v) (0x140000000ULL + ((uint64_t)(v) << 21)) /* where it is mapped */

/**
 * struct race - one guest
 * @count:    by vCPU: odd while it uses a translation
 * @turn:     by shared address: odd while its entry changes
 * @target:   what it leads to while @turn is even
 * @dropping: by page: being dropped, so nobody may reach it
 * @written:  by page: writes that have been made
 * @told:     by page: of them, when a harvest last told of the page
 */
static struct race {
	struct guest guest;
	struct mv_shadow *shadow;
	struct mv_shadow_vcpu *vcpu[VCPUS];
	uint64_t next_table;
	uint64_t entry[SHARED];
	uint64_t own_table[VCPUS];
	uint64_t count[VCPUS];
	uint64_t turn[SHARED];
	uint64_t target[SHARED];
	unsigned int dropping[PAGES];
	uint64_t written[PAGES];
	uint64_t told[PAGES];
	unsigned int stop;
	uint64_t seed;
	uint64_t hits, faults, writes, drops, harvests;
} race;

/* --- processors ------------------------------------------------------------------------------ */

static void flush(void *ctx, const uint64_t *vcpus)
{
	for (unsigned int v = 0; v < VCPUS; v++) {
		uint64_t count = __atomic_load_n(&race.count[v], __ATOMIC_SEQ_CST);

		while ((count & 1) && __atomic_load_n(&race.count[v], __ATOMIC_SEQ_CST) == count)
			sched_yield();
	}
}

static const struct mv_shadow_ops race_ops = { .flush = flush };

/* Use what the shadow says. Return: whether it lets the access through; *@gpa what was reached. */
static bool use(unsigned int v, uint64_t gva, bool write, uint64_t value, uint64_t *gpa)
{
	struct mv_mapping mapping;
	bool through;

	__atomic_fetch_add(&race.count[v], 1, __ATOMIC_SEQ_CST);
	through = !mv_shadow_walk(race.vcpu[v], gva, &mapping) &&
		  (!write || (mapping.attr & MV_ATTR_WRITE));
	if (through) {
		uint64_t hpa = mapping.phys | (gva & ((1ULL << mapping.page_lg2) - 1));

		*gpa = hpa - (uintptr_t)race.guest.mem;
		insist(*gpa < PAGES * MV_PAGE_SIZE);
		insist(!__atomic_load_n(&race.dropping[*gpa >> 12], __ATOMIC_SEQ_CST));
		if (write) {
			__atomic_store_n((uint64_t *)(uintptr_t)hpa, value, __ATOMIC_RELEASE);
			__atomic_fetch_add(&race.written[*gpa >> 12], 1, __ATOMIC_SEQ_CST);
		}
	}
	__atomic_fetch_add(&race.count[v], 1, __ATOMIC_SEQ_CST);
	return through;
}

static void store(uint64_t gpa, uint64_t value)
{
	__atomic_store_n((uint64_t *)(race.guest.mem + gpa), value, __ATOMIC_RELEASE);
}

/* On behalf of the guest. */
static void emulate(uint64_t gpa, uint64_t value)
{
	store(gpa, value);
	mv_shadow_guest_wrote(race.shadow, gpa, sizeof(value));
	__atomic_fetch_add(&race.written[gpa >> 12], 1, __ATOMIC_SEQ_CST);
}

/* An access, as often as it takes. Return: what was reached; a write is made in any case. */
static uint64_t reach(unsigned int v, uint64_t gva, bool write, uint64_t value)
{
	uint64_t gpa;

	while (!use(v, gva, write, value, &gpa)) {
		struct mv_shadow_outcome outcome;
		unsigned int access = write ? MV_ACCESS_WRITE : MV_ACCESS_READ;

		insist(!mv_shadow_fault(race.vcpu[v], gva, access, &outcome));
		__atomic_fetch_add(&race.faults, 1, __ATOMIC_RELAXED);
		if (outcome.kind == MV_SHADOW_EMULATE_WRITE) {
			emulate(outcome.walk.gpa, value);
			return outcome.walk.gpa;
		}
		insist(outcome.kind == MV_SHADOW_FIXED || outcome.kind == MV_SHADOW_RETRY);
		if (outcome.kind == MV_SHADOW_RETRY)
			sched_yield();
	}
	__atomic_fetch_add(&race.hits, 1, __ATOMIC_RELAXED);
	return gpa;
}

/* --- what the threads do ---------------------------------------------------------------------- */

static uint64_t choice(unsigned int i, unsigned int which)
{
	return CHOICES + (2 * i + which) * MV_PAGE_SIZE;
}

/* Nothing stale is ever found of an entry whose writer has been through mv_shadow_guest_wrote(). */
static void use_shared(unsigned int v, struct chance *chance)
{
	unsigned int i = (unsigned int)chance_below(chance, SHARED);
	uint64_t turn = __atomic_load_n(&race.turn[i], __ATOMIC_SEQ_CST);
	uint64_t target = __atomic_load_n(&race.target[i], __ATOMIC_SEQ_CST);
	uint64_t gpa = reach(v, SHARED_GVA(i), chance_one_in(chance, 4), v);

	insist(gpa == choice(i, 0) || gpa == choice(i, 1));
	if (!(turn & 1) && __atomic_load_n(&race.turn[i], __ATOMIC_SEQ_CST) == turn)
		insist(gpa == target);
}

/* A thread writes to its own table by itself, and asks for it to be seen. */
static void change_own(unsigned int v, struct chance *chance)
{
	uint64_t index = chance_below(chance, 8), gva = OWN_GVA(v) + (index << 12);
	uint64_t gpa = choice((unsigned int)chance_below(chance, SHARED), 0);

	reach(v, OWN_TABLE_GVA(v) + index * 8, true, gpa | PTE_ALL);
	mv_shadow_invlpg(race.vcpu[v], gva);
	insist(reach(v, gva, false, 0) == gpa);
}

static void load(unsigned int v)
{
	struct mv_paging_registers registers = {
		.cr0 = MV_CR0_PE | MV_CR0_PG | MV_CR0_WP,
		.cr4 = MV_CR4_PAE,
		.efer = MV_EFER_LME | MV_EFER_NXE,
	};
	const struct mv_cpu_model cpu = { .maxphyaddr = 46 };
	uint64_t root;

	insist(!mv_shadow_load_root(race.vcpu[v], &registers, &cpu, false, &root));
}

/* Threads that came late, or are not let run, have to have had their turn. */
static bool others_did_enough(void)
{
	return __atomic_load_n(&race.writes, __ATOMIC_RELAXED) >= ENOUGH &&
	       __atomic_load_n(&race.harvests, __ATOMIC_RELAXED) >= ENOUGH &&
	       __atomic_load_n(&race.drops, __ATOMIC_RELAXED) >= ENOUGH;
}

static void *run_vcpu(void *arg)
{
	unsigned int v = (unsigned int)(uintptr_t)arg;
	struct chance chance = chance_of(race.seed, v);

	uint64_t rounds = test_rounds(ROUNDS);

	for (uint64_t round = 0; round < rounds || !others_did_enough(); round++) {
		if (chance_one_in(&chance, 50))
			load(v);
		else if (chance_one_in(&chance, 4))
			change_own(v, &chance);
		else
			use_shared(v, &chance);
	}
	return NULL;
}

/* Emulated writes to the shared tables. */
static void *run_writer(void *arg)
{
	struct chance chance = chance_of(race.seed, VCPUS);

	while (!__atomic_load_n(&race.stop, __ATOMIC_RELAXED)) {
		unsigned int i = (unsigned int)chance_below(&chance, SHARED);
		uint64_t target = choice(i, (unsigned int)chance_below(&chance, 2));

		__atomic_fetch_add(&race.turn[i], 1, __ATOMIC_SEQ_CST);
		/* Every other time it is there to be mapped ahead. */
		emulate(race.entry[i],
			target | PTE_ALL | (chance_one_in(&chance, 2) ? PTE_A | PTE_D : 0));
		__atomic_store_n(&race.target[i], target, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&race.turn[i], 1, __ATOMIC_SEQ_CST);
		__atomic_fetch_add(&race.writes, 1, __ATOMIC_RELAXED);
		sched_yield();
	}
	return NULL;
}

static void drop(void *ctx, struct mv_batch *batch)
{
	uint64_t gpa;

	mv_batch_region_span(batch, NULL, &gpa);
	mv_batch_for_each_page (batch, bit)
		__atomic_store_n(&race.dropping[(gpa >> 12) + bit], 1, __ATOMIC_SEQ_CST);
	sched_yield();
	mv_batch_for_each_page (batch, bit)
		__atomic_store_n(&race.dropping[(gpa >> 12) + bit], 0, __ATOMIC_SEQ_CST);
}

static void *run_revoker(void *arg)
{
	struct chance chance = chance_of(race.seed, VCPUS + 1);

	while (!__atomic_load_n(&race.stop, __ATOMIC_RELAXED)) {
		uint64_t gpa = choice((unsigned int)chance_below(&chance, SHARED), 0);

		insist(!mv_memory_discard(race.guest.memory, gpa, gpa + 2 * MV_PAGE_SIZE - 1, drop,
					  NULL, NULL));
		__atomic_fetch_add(&race.drops, 1, __ATOMIC_RELAXED);
		sched_yield();
	}
	return NULL;
}

/* Where a page is not told of, nobody has written there since it was told of last. */
static void harvest(bool last)
{
	uint64_t bitmap[PAGES / 64] = { 0 };

	insist(!mv_shadow_harvest(race.shadow, 0, PAGES * MV_PAGE_SIZE - 1, bitmap, NULL));
	for (unsigned int page = 0; page < PAGES; page++) {
		if (bitmap[page / 64] >> page % 64 & 1)
			race.told[page] = __atomic_load_n(&race.written[page], __ATOMIC_SEQ_CST);
		else if (last)
			insist(race.told[page] == race.written[page]);
	}
	__atomic_fetch_add(&race.harvests, 1, __ATOMIC_RELAXED);
}

static void *run_operator(void *arg)
{
	struct chance chance = chance_of(race.seed, VCPUS + 2);

	while (!__atomic_load_n(&race.stop, __ATOMIC_RELAXED)) {
		uint64_t first = chance_below(&chance, 2 * SHARED) * MV_PAGE_SIZE, last;

		first += chance_one_in(&chance, 2) ? CHOICES : 0;
		last = first + 16 * MV_PAGE_SIZE - 1;
		insist(!mv_shadow_track(race.shadow, first, last));
		harvest(false);
		mv_shadow_age(race.shadow, first, last, NULL, NULL);
		mv_shadow_untrack(race.shadow, first, last);
		if (chance_one_in(&chance, 4))
			insist(!mv_shadow_zap(race.shadow, first, last));
		mv_shadow_reclaim(race.shadow);
		sched_yield();
	}
	return NULL;
}

/* --- the guest ------------------------------------------------------------------------------ */

static uint64_t entry_of(uint64_t gva)
{
	uint64_t table = 0;

	for (unsigned int shift = 39;; shift -= 9) {
		uint64_t gpa = table + (gva >> shift & 511) * 8;
		uint64_t *entry = (uint64_t *)(race.guest.mem + gpa);

		if (shift == 12)
			return gpa;
		if (!*entry) {
			*entry = race.next_table | PTE_ALL;
			race.next_table += MV_PAGE_SIZE;
			insist(race.next_table <= CHOICES);
		}
		table = *entry & ~0xfffULL;
	}
}

static void build(void)
{
	race.next_table = MV_PAGE_SIZE;
	for (unsigned int i = 0; i < SHARED; i++) {
		race.entry[i] = entry_of(SHARED_GVA(i));
		race.target[i] = choice(i, 0);
		store(race.entry[i], race.target[i] | PTE_ALL);
	}
	for (unsigned int v = 0; v < VCPUS; v++) {
		race.own_table[v] = entry_of(OWN_GVA(v)) & ~0xfffULL;
		for (unsigned int i = 0; i < 8; i++)
			store(race.own_table[v] + i * 8, choice(i, 0) | PTE_ALL);
		store(entry_of(OWN_TABLE_GVA(v)), race.own_table[v] | PTE_ALL);
	}
}

static void open_race(size_t budget)
{
	struct mv_shadow_config config = {
		.size = sizeof(config),
		.format = MV_FORMAT_X86_4L,
		.features = MV_FEATURE_NX,
		.maxphyaddr = 52,
		.node = -1,
		.page_budget = budget,
		.ops = &race_ops,
	};

	memset(&race, 0, sizeof(race));
	race.seed = test_seed();
	guest_init(&race.guest, PAGES * MV_PAGE_SIZE);
	assert_int_equal(guest_add(&race.guest, 0, PAGES, 0), 0);
	config.memory = race.guest.memory;
	assert_int_equal(mv_shadow_create(&config, &race.shadow), 0);
	build();
	for (unsigned int v = 0; v < VCPUS; v++) {
		assert_int_equal(mv_shadow_vcpu_create(race.shadow, &race.vcpu[v]), 0);
		load(v);
	}
}

static void run_race(size_t budget)
{
	pthread_t vcpu[VCPUS], writer, revoker, operator;
	struct mv_shadow_stats stats;

	open_race(budget);
	assert_int_equal(mv_shadow_track_dirty(race.shadow, 0, true), 0);
	for (uintptr_t v = 0; v < VCPUS; v++)
		assert_int_equal(pthread_create(&vcpu[v], NULL, run_vcpu, (void *)v), 0);
	assert_int_equal(pthread_create(&writer, NULL, run_writer, NULL), 0);
	assert_int_equal(pthread_create(&revoker, NULL, run_revoker, NULL), 0);
	assert_int_equal(pthread_create(&operator, NULL, run_operator, NULL), 0);
	for (unsigned int v = 0; v < VCPUS; v++)
		pthread_join(vcpu[v], NULL);
	__atomic_store_n(&race.stop, 1, __ATOMIC_RELAXED);
	pthread_join(writer, NULL);
	pthread_join(revoker, NULL);
	pthread_join(operator, NULL);
	harvest(true);
	mv_shadow_get_stats(race.shadow, &stats);
	print_message("# %lu hits, %lu faults, %lu writes, %lu drops, %lu harvests, %lu mapped "
		      "ahead\n",
		      race.hits, race.faults, race.writes, race.drops, race.harvests, stats.ahead);
	assert_true(race.writes && race.drops && race.faults > VCPUS);
	for (unsigned int v = 0; v < VCPUS; v++)
		mv_shadow_vcpu_destroy(race.vcpu[v]);
	mv_shadow_destroy(race.shadow);
	guest_finish(&race.guest);
}

static void test_faults_writes_and_revokes(void **state)
{
	run_race(1024);
}

static void test_the_same_at_the_smallest_budget(void **state)
{
	run_race(MV_SHADOW_BUDGET_VCPU * VCPUS);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_faults_writes_and_revokes),
		cmocka_unit_test(test_the_same_at_the_smallest_budget),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
