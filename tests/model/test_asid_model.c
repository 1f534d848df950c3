/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tags against processors that forget nothing by themselves: each keeps every translation it
 * ever made, under its tag, until it is told to flush. A million random entries, exits and
 * flushes; whatever a vCPU finds under its tag must be its own, and no older than the last
 * flush of its space.
 */
#include <memvirt/asid.h>

#include "support/testing.h"

#define CPUS	 5
#define SPACES	 3
#define CONTEXTS 9 /* vCPU i belongs to space i % SPACES */
#define TAGS	 7
#define STEPS	 1000000

/* What lies under a tag: combined translations, of one vCPU. */
struct cached {
	int context; /* -1: nothing */
	uint64_t version;
};

struct processor {
	struct cached tagged[TAGS + 1];
	uint64_t physical[SPACES]; /* EPT: guest-physical translations, by EPTP; 0: none */
	int running;		   /* context, or -1 */
};

static struct {
	struct mv_asids *asids;
	struct mv_asid_space *spaces[SPACES];
	struct mv_asid_context contexts[CONTEXTS];
	bool inside[CONTEXTS];
	uint64_t version[SPACES]; /* of the tables */
	struct processor cpus[CPUS];
	enum mv_asid_kind kind;
	struct chance chance;
	uint64_t flushes[MV_ASID_FLUSH_ALL + 1], kicked;
} model;

static void leave(unsigned int cpu)
{
	int context = model.cpus[cpu].running;

	mv_asid_exit(model.spaces[context % SPACES], cpu);
	model.inside[context] = false;
	model.cpus[cpu].running = -1;
}

static void kick(void *ctx, const uint64_t *cpus, unsigned int words)
{
	insist(words == 1 && cpus[0]);
	for (unsigned int cpu = 0; cpu < CPUS; cpu++)
		if (cpus[0] >> cpu & 1) {
			insist(model.cpus[cpu].running >= 0);
			leave(cpu);
			model.kicked++;
		}
	insist(!(cpus[0] >> CPUS));
}

static void flush_all(struct processor *p)
{
	memset(p->physical, 0, sizeof(p->physical));
	for (unsigned int tag = 0; tag <= TAGS; tag++)
		p->tagged[tag].context = -1;
}

static void flush_space(struct processor *p, int space)
{
	p->physical[space] = 0;
	for (unsigned int tag = 0; tag <= TAGS; tag++)
		if (p->tagged[tag].context >= 0 && p->tagged[tag].context % SPACES == space)
			p->tagged[tag].context = -1;
}

static void obey(struct processor *p, int context, const struct mv_asid_entry *entry)
{
	model.flushes[entry->flush]++;
	if (entry->flush == MV_ASID_FLUSH_ALL)
		flush_all(p);
	else if (entry->flush == MV_ASID_FLUSH_SPACE)
		flush_space(p, context % SPACES);
	else if (entry->flush == MV_ASID_FLUSH_TAG)
		p->tagged[entry->tag].context = -1;
}

/* The guest touches its memory: what it finds cached must be good; what it does not, it caches. */
static void run_guest(struct processor *p, int context, uint32_t tag)
{
	int space = context % SPACES;
	uint64_t now = model.version[space];
	struct cached *cached = &p->tagged[tag];

	if (model.kind == MV_ASID_VPID) {
		assert_true(!p->physical[space] || p->physical[space] == now);
		p->physical[space] = now;
	}
	if (cached->context >= 0) {
		assert_int_equal(cached->context, context);
		assert_int_equal(cached->version, now);
	}
	*cached = (struct cached){ .context = context, .version = now };
}

static void enter(unsigned int cpu)
{
	int context = (int)chance_below(&model.chance, CONTEXTS);
	struct processor *p = &model.cpus[cpu];
	struct mv_asid_entry entry;

	if (model.inside[context])
		return;
	if (chance_one_in(&model.chance, 50))
		mv_asid_context_renew(&model.contexts[context]);
	mv_asid_enter(model.spaces[context % SPACES], &model.contexts[context], cpu, &entry);
	assert_in_range(entry.tag, 1, TAGS);
	model.inside[context] = true;
	p->running = context;
	obey(p, context, &entry);
	run_guest(p, context, entry.tag);
}

static void flush(void)
{
	int space = (int)chance_below(&model.chance, SPACES);
	unsigned int inside = 0;

	model.version[space]++;
	for (unsigned int cpu = 0; cpu < CPUS; cpu++)
		inside += model.cpus[cpu].running >= 0 && model.cpus[cpu].running % SPACES == space;
	/* Exactly those that are in it: nobody else is disturbed, nobody forgotten. */
	assert_int_equal(mv_asid_flush(model.spaces[space]), inside);
}

/* A space goes, and another comes with the same root: its first entries flush. */
static void replace_space(void)
{
	int space = (int)chance_below(&model.chance, SPACES);

	for (int context = space; context < CONTEXTS; context += SPACES)
		if (model.inside[context])
			return;
	mv_asid_space_destroy(model.spaces[space]);
	assert_int_equal(mv_asid_space_create(model.asids, &model.spaces[space]), 0);
	for (int context = space; context < CONTEXTS; context += SPACES)
		memset(&model.contexts[context], 0, sizeof(model.contexts[context]));
	model.version[space]++;
}

static void step(void)
{
	unsigned int cpu = (unsigned int)chance_below(&model.chance, CPUS);

	if (chance_one_in(&model.chance, 12))
		flush();
	else if (chance_one_in(&model.chance, 200))
		replace_space();
	else if (model.cpus[cpu].running < 0)
		enter(cpu);
	else
		leave(cpu);
}

static void open_model(enum mv_asid_kind kind, uint64_t seed)
{
	struct mv_asids_config config = { .size = sizeof(config),
					  .kind = kind,
					  .cpus = CPUS,
					  .first_tag = 1,
					  .last_tag = TAGS,
					  .kick = kick };

	memset(&model, 0, sizeof(model));
	model.kind = kind;
	model.chance = chance_of(seed, kind);
	assert_int_equal(mv_asids_create(&config, &model.asids), 0);
	for (unsigned int i = 0; i < SPACES; i++) {
		assert_int_equal(mv_asid_space_create(model.asids, &model.spaces[i]), 0);
		model.version[i] = 1;
	}
	for (unsigned int cpu = 0; cpu < CPUS; cpu++) {
		flush_all(&model.cpus[cpu]);
		model.cpus[cpu].running = -1;
	}
}

static void close_model(void)
{
	for (unsigned int i = 0; i < SPACES; i++)
		mv_asid_space_destroy(model.spaces[i]);
	mv_asids_destroy(model.asids);
}

static void no_vcpu_finds_what_is_not_its_own(void **state)
{
	uint64_t seed = test_seed();

	for (unsigned int kind = 0; kind <= MV_ASID_AMD_FLUSH_BY_ASID; kind++) {
		open_model((enum mv_asid_kind)kind, seed);
		for (uint64_t i = test_rounds(STEPS); i; i--)
			step();
		close_model();
		print_message(
			"# kind %u: flushes none %llu tag %llu space %llu all %llu, kicked %llu\n",
			kind, (unsigned long long)model.flushes[MV_ASID_FLUSH_NONE],
			(unsigned long long)model.flushes[MV_ASID_FLUSH_TAG],
			(unsigned long long)model.flushes[MV_ASID_FLUSH_SPACE],
			(unsigned long long)model.flushes[MV_ASID_FLUSH_ALL],
			(unsigned long long)model.kicked);
		assert_true(model.flushes[MV_ASID_FLUSH_NONE] && model.kicked);
		assert_true(model.flushes[MV_ASID_FLUSH_ALL]);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_vcpu_finds_what_is_not_its_own),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
