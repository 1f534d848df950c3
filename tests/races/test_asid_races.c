/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Entries against flushes, with processors as threads. Each has a TLB that only its own flushes
 * empty. A flusher changes the tables (a number that grows), flushes, and announces the number:
 * from then on no guest may use an older one, cached or not.
 */
#include <pthread.h>
#include <sched.h>

#include <memvirt/asid.h>

#include "support/testing.h"

#define CPUS	 4
#define SPACES	 2
#define CONTEXTS 6 /* vCPU i belongs to space i % SPACES */
#define TAGS	 5
#define FLUSHERS 2

struct cached {
	int context; /* -1: nothing */
	uint64_t value;
};

struct processor {
	pthread_t thread;
	struct chance chance;
	unsigned int number;
	bool kick; /* atomic: leave the guest */
	/* Its own: */
	struct cached tlb[TAGS + 1];
	uint64_t physical[SPACES]; /* EPT: by EPTP */
	uint64_t entries, flushes, hits;
} __attribute__((aligned(64)));

static struct {
	enum mv_asid_kind kind;
	struct mv_asids *asids;
	struct mv_asid_space *spaces[SPACES];
	struct mv_asid_context contexts[CONTEXTS];
	pthread_mutex_t vcpu[CONTEXTS]; /* one processor at a time */
	struct processor cpus[CPUS];
	uint64_t tables[SPACES]; /* atomic: what a walk finds now */
	uint64_t floor[SPACES];	 /* atomic: nothing older may be used */
	bool done;		 /* atomic */
	uint64_t kicked;	 /* atomic */
} rig;

static void kick(void *ctx, const uint64_t *cpus, unsigned int words)
{
	for (unsigned int cpu = 0; cpu < CPUS; cpu++)
		if (cpus[0] >> cpu & 1)
			__atomic_store_n(&rig.cpus[cpu].kick, true, __ATOMIC_SEQ_CST);
}

static void forget(struct processor *p, int space)
{
	for (int s = 0; s < SPACES; s++)
		if (space < 0 || s == space)
			p->physical[s] = 0;
	for (unsigned int tag = 0; tag <= TAGS; tag++)
		if (space < 0 || p->tlb[tag].context % SPACES == space)
			p->tlb[tag].context = -1;
}

static void obey(struct processor *p, int space, const struct mv_asid_entry *entry)
{
	p->flushes += entry->flush != MV_ASID_FLUSH_NONE;
	if (entry->flush == MV_ASID_FLUSH_ALL)
		forget(p, -1);
	else if (entry->flush == MV_ASID_FLUSH_SPACE)
		forget(p, space);
	else if (entry->flush == MV_ASID_FLUSH_TAG)
		p->tlb[entry->tag].context = -1;
}

/* EPT walks fill from guest-physical translations that another vCPU's walk may have left. */
static uint64_t walk(struct processor *p, int space)
{
	uint64_t value = p->physical[space];

	if (rig.kind == MV_ASID_VPID && value)
		return value;
	value = __atomic_load_n(&rig.tables[space], __ATOMIC_SEQ_CST);
	p->physical[space] = value;
	return value;
}

static void access(struct processor *p, int context, uint32_t tag)
{
	int space = context % SPACES;
	struct cached *cached = &p->tlb[tag];
	/* Read first: what is used after it was announced must not be older. */
	uint64_t floor = __atomic_load_n(&rig.floor[space], __ATOMIC_SEQ_CST);

	if (cached->context < 0)
		*cached = (struct cached){ context, walk(p, space) };
	else
		p->hits++;
	insist(cached->context == context);
	insist(cached->value >= floor);
}

static void run_guest(struct processor *p, int context)
{
	int space = context % SPACES;
	struct mv_asid_entry entry;

	__atomic_store_n(&p->kick, false, __ATOMIC_SEQ_CST);
	mv_asid_enter(rig.spaces[space], &rig.contexts[context], p->number, &entry);
	insist(entry.tag >= 1 && entry.tag <= TAGS);
	obey(p, space, &entry);
	p->entries++;
	for (uint64_t i = chance_below(&p->chance, 60); i; i--) {
		if (__atomic_load_n(&p->kick, __ATOMIC_SEQ_CST))
			break;
		access(p, context, entry.tag);
	}
	mv_asid_exit(rig.spaces[space], p->number);
}

static void *processor_main(void *arg)
{
	struct processor *p = arg;

	while (!__atomic_load_n(&rig.done, __ATOMIC_RELAXED)) {
		int context = (int)chance_below(&p->chance, CONTEXTS);

		if (pthread_mutex_trylock(&rig.vcpu[context]))
			continue;
		for (uint64_t i = 1 + chance_below(&p->chance, 20); i; i--)
			run_guest(p, context);
		pthread_mutex_unlock(&rig.vcpu[context]);
		if (chance_one_in(&p->chance, 64))
			sched_yield();
	}
	return NULL;
}

static void raise_floor(int space, uint64_t value)
{
	uint64_t now = __atomic_load_n(&rig.floor[space], __ATOMIC_SEQ_CST);

	while (now < value && !__atomic_compare_exchange_n(&rig.floor[space], &now, value, false,
							   __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

static bool met_some(void)
{
	return __atomic_load_n(&rig.kicked, __ATOMIC_RELAXED) >= 16;
}

static void *flusher_main(void *arg)
{
	const uint64_t rounds = test_rounds(60000);
	struct chance *chance = arg;

	/* On, where the machine is busy and nobody was met inside. */
	for (uint64_t i = 0; i < rounds || (i < 100 * rounds && !met_some()); i++) {
		int space = (int)chance_below(chance, SPACES);
		uint64_t value = __atomic_add_fetch(&rig.tables[space], 1, __ATOMIC_SEQ_CST);
		unsigned int kicked = mv_asid_flush(rig.spaces[space]);

		raise_floor(space, value);
		__atomic_fetch_add(&rig.kicked, kicked, __ATOMIC_RELAXED);
		for (uint64_t pause = chance_below(chance, 200); pause; pause--)
			__builtin_ia32_pause();
	}
	return NULL;
}

static void open_rig(enum mv_asid_kind kind)
{
	struct mv_asids_config config = { .size = sizeof(config),
					  .kind = kind,
					  .cpus = CPUS,
					  .first_tag = 1,
					  .last_tag = TAGS,
					  .kick = kick };

	memset(&rig, 0, sizeof(rig));
	rig.kind = kind;
	assert_int_equal(mv_asids_create(&config, &rig.asids), 0);
	for (unsigned int i = 0; i < SPACES; i++) {
		assert_int_equal(mv_asid_space_create(rig.asids, &rig.spaces[i]), 0);
		rig.tables[i] = 1;
	}
	for (unsigned int i = 0; i < CONTEXTS; i++)
		pthread_mutex_init(&rig.vcpu[i], NULL);
}

static void run_race(enum mv_asid_kind kind, uint64_t seed)
{
	struct chance chances[FLUSHERS];
	pthread_t flushers[FLUSHERS];
	uint64_t entries = 0, hits = 0, flushes = 0;

	open_rig(kind);
	for (unsigned int i = 0; i < CPUS; i++) {
		struct processor *p = &rig.cpus[i];

		p->number = i;
		p->chance = chance_of(seed, i);
		forget(p, -1);
		assert_int_equal(pthread_create(&p->thread, NULL, processor_main, p), 0);
	}
	for (unsigned int i = 0; i < FLUSHERS; i++) {
		chances[i] = chance_of(seed, CPUS + i);
		assert_int_equal(pthread_create(&flushers[i], NULL, flusher_main, &chances[i]), 0);
	}
	for (unsigned int i = 0; i < FLUSHERS; i++)
		pthread_join(flushers[i], NULL);
	__atomic_store_n(&rig.done, true, __ATOMIC_RELAXED);
	for (unsigned int i = 0; i < CPUS; i++) {
		pthread_join(rig.cpus[i].thread, NULL);
		entries += rig.cpus[i].entries;
		hits += rig.cpus[i].hits;
		flushes += rig.cpus[i].flushes;
	}
	for (unsigned int i = 0; i < SPACES; i++)
		mv_asid_space_destroy(rig.spaces[i]);
	mv_asids_destroy(rig.asids);
	print_message("# kind %d: %llu entries, %llu of them flushed, %llu hits, %llu kicks\n",
		      (int)kind, (unsigned long long)entries, (unsigned long long)flushes,
		      (unsigned long long)hits, (unsigned long long)rig.kicked);
	assert_true(entries && hits && flushes && rig.kicked);
}

static void no_flush_is_lost(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned int kind = 0; kind <= MV_ASID_AMD_FLUSH_BY_ASID; kind++)
		run_race((enum mv_asid_kind)kind, seed);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_flush_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
