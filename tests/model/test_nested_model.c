/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nested walk against a second one that shares no code with it, in small machines at random:
 * all guest modes over EPT and NPT of four and five levels, through a direct map and through
 * accessors. Compared are results, codes, addresses, page sizes, rights, memory types, and what
 * was set in the tables of both stages.
 */
#include "support/nested_reference.h"
#include "support/nested_world.h"
#include "support/testing.h"

#define WALKS_PER_WORLD	  1000
#define COMPARE_ALL_EVERY 250
#define BATCH		  24

static uint64_t seed;

/* Which kinds of ends there were: a test that never sees one proves nothing about it. */
static uint64_t ends[MV_NESTED_STAGE2 + 1], table_faults, final_faults, misconfigured, errors;

static void count_end(int error, const struct mv_nested_walk *walk)
{
	if (error) {
		errors++;
		return;
	}
	ends[walk->kind]++;
	if (walk->kind != MV_NESTED_STAGE2)
		return;
	table_faults += walk->guest_table;
	final_faults += !walk->guest_table;
	misconfigured += walk->stage2_kind == MV_STAGE2_MISCONFIGURED;
}

static void print_walk(const char *who, int error, const struct mv_nested_walk *w)
{
	print_message("# %s: error %d kind %d gpa %#lx hpa %#lx lg2 %u attr %#x type %u pf %#x "
		      "level %u stage 2 %d code %#lx ve %d table %d\n",
		      who, error, w->kind, w->gpa, w->hpa, w->page_lg2, w->attr, w->type,
		      w->error_code, w->level, w->stage2_kind, w->code, w->suppress_ve,
		      w->guest_table);
}

static bool same_walk(const struct mv_nested_walk *a, const struct mv_nested_walk *b)
{
	return a->kind == b->kind && a->gpa == b->gpa && a->hpa == b->hpa &&
	       a->page_lg2 == b->page_lg2 && a->attr == b->attr && a->type == b->type &&
	       a->error_code == b->error_code && a->level == b->level &&
	       a->stage2_kind == b->stage2_kind && a->code == b->code &&
	       a->suppress_ve == b->suppress_ve && a->guest_table == b->guest_table;
}

static void expect_same(const struct nested_world *world, uint64_t gva, unsigned int access,
			int error, const struct mv_nested_walk *walk, int expected_error,
			const struct mv_nested_walk *expected)
{
	if (error == expected_error && (error || same_walk(walk, expected)))
		return;
	print_message("# stage 2 format %d features %#x width %u; cr0 %#lx cr3 %#lx cr4 %#lx "
		      "efer %#lx cpu %u %#x; gva %#lx access %#x\n",
		      world->format2, world->features2, world->width, world->registers.cr0,
		      world->registers.cr3, world->registers.cr4, world->registers.efer,
		      world->cpu.maxphyaddr, world->cpu.features, gva, access);
	print_walk("library", error, walk);
	print_walk("reference", expected_error, expected);
	fail_msg("library and reference disagree");
}

static void compare_memory(const struct nested_world *world, const struct reference *reference)
{
	for (size_t i = 0; i < WORLD_BYTES / 8; i++) {
		uint64_t ours = ((const uint64_t *)world->memory)[i];
		uint64_t theirs = ((const uint64_t *)reference->memory)[i];

		if (ours != theirs)
			fail_msg("entry at %#zx: library %#lx, reference %#lx", i * 8, ours,
				 theirs);
	}
}

static void load_pdptes(struct nested_world *world, struct reference *reference)
{
	struct mv_nested_walk walk = { 0 }, expected = { 0 };
	int error, expected_error;

	memset(reference->pdpte, 0, sizeof(reference->pdpte));
	expected_error = reference_load_pdptes(reference, &expected);
	error = mv_nested_load_pdptes(&world->nested, &walk);
	expect_same(world, world->registers.cr3, 0, error, &walk, expected_error, &expected);
	count_end(error, &walk);
}

static void walk_world(struct nested_world *world, struct reference *reference,
		       struct chance *chance)
{
	for (unsigned int i = 0; i < WALKS_PER_WORLD; i++) {
		uint64_t gva = nested_world_gva(world, chance);
		unsigned int access = nested_world_access(chance);
		struct mv_nested_walk walk = { 0 }, expected = { 0 };
		int expected_error = reference_walk(reference, gva, access, &expected);
		struct mv_nested_trace trace;
		int error;

		if (i % 4)
			error = mv_nested_walk(&world->nested, gva, access, &walk);
		else
			error = mv_nested_trace(&world->nested, gva, access, &walk, &trace);
		expect_same(world, gva, access, error, &walk, expected_error, &expected);
		count_end(error, &walk);
		if (i % COMPARE_ALL_EVERY == 0)
			compare_memory(world, reference);
	}
	compare_memory(world, reference);
}

/* A batch is as many single walks. What it sets, in what order, is the tables' final state. */
static void walk_batch(struct nested_world *world, struct reference *reference,
		       struct chance *chance)
{
	unsigned int access = nested_world_access(chance) | MV_ACCESS_NO_UPDATE;
	uint64_t gva[BATCH], hpa[BATCH];
	size_t expected = 0;

	for (unsigned int i = 0; i < BATCH; i++)
		gva[i] = nested_world_gva(world, chance);
	size_t translated = mv_nested_translate_many(&world->nested, gva, access, hpa, BATCH);

	for (unsigned int i = 0; i < BATCH; i++) {
		struct mv_nested_walk walk;
		int error = reference_walk(reference, gva[i], access, &walk);
		bool found = !error && walk.kind == MV_NESTED_OK;

		assert_int_equal(hpa[i], found ? walk.hpa : UINT64_MAX);
		expected += found;
	}
	assert_int_equal(translated, expected);
	compare_memory(world, reference);
}

static void nested_walks_agree_with_a_naive_reference(void **state)
{
	struct chance chance = chance_of(seed, 1);
	uint64_t worlds = test_rounds(3000);
	struct nested_world world;
	struct reference reference = { .world = &world, .memory = malloc(WORLD_BYTES) };

	assert_non_null(reference.memory);
	nested_world_open(&world);
	for (uint64_t i = 0; i < worlds; i++) {
		nested_world_fill(&world, &chance);
		memcpy(reference.memory, world.memory, WORLD_BYTES);
		load_pdptes(&world, &reference);
		walk_world(&world, &reference, &chance);
		for (unsigned int j = 0; j < 4; j++)
			walk_batch(&world, &reference, &chance);
	}
	nested_world_close(&world);
	free(reference.memory);
	print_message("# %lu translated, %lu page faults, %lu not canonical, %lu bad PDPTEs, %lu "
		      "faults of tables, %lu of final addresses, %lu misconfigured, %lu errors\n",
		      ends[MV_NESTED_OK], ends[MV_NESTED_PAGE_FAULT], ends[MV_NESTED_NOT_CANONICAL],
		      ends[MV_NESTED_BAD_PDPTE], table_faults, final_faults, misconfigured, errors);
	assert_true(ends[MV_NESTED_OK] > worlds * WALKS_PER_WORLD / 20);
	assert_true(ends[MV_NESTED_PAGE_FAULT] > worlds * WALKS_PER_WORLD / 20);
	assert_true(ends[MV_NESTED_NOT_CANONICAL] > 0 && ends[MV_NESTED_BAD_PDPTE] > 0);
	assert_true(table_faults > worlds && final_faults > worlds && misconfigured > worlds);
	assert_true(errors > 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nested_walks_agree_with_a_naive_reference),
	};

	seed = test_seed();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
