/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest walk and the guest's memory: accessed and dirty, entries that change under the
 * walk, tables that are not there or lead in circles, accessors that fail; and the accessor of a
 * memory. SDM vol. 3, 4.8.
 */
#include "guest_walk.h"

#include "support/guest.h"
#include "support/paged_guest.h"
#include "support/testing.h"

#define READ  MV_ACCESS_READ
#define WRITE MV_ACCESS_WRITE
#define FETCH MV_ACCESS_FETCH
#define USER  MV_ACCESS_USER

static struct paged_guest guest;

static bool is_marked(enum paged_mode mode, unsigned int level)
{
	return mode != PAGED_PAE || level < 3;
}

/* Exactly these bits are set, and no other bit has changed. */
static void assert_marks(const uint64_t *before, uint64_t tables, uint64_t leaf)
{
	for (unsigned int level = 1; level <= guest.levels; level++) {
		uint64_t marks = level == 1 ? leaf : tables;

		if (!is_marked(guest.mode, level))
			marks = 0;
		assert_int_equal(paged_get(&guest, level), before[level] | marks);
	}
}

static void note_entries(uint64_t *before)
{
	for (unsigned int level = 1; level <= guest.levels; level++)
		before[level] = paged_get(&guest, level);
}

static void accessed_is_set_everywhere_and_dirty_on_what_is_written(void **state)
{
	for (enum paged_mode mode = 0; mode < PAGED_MODES; mode++) {
		uint64_t before[6];

		paged_init(&guest, mode);
		note_entries(before);
		assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
		assert_marks(before, PTE_A, PTE_A);
		assert_true(guest.walk.attr & MV_ATTR_ACCESSED);
		assert_false(guest.walk.attr & MV_ATTR_DIRTY);
		assert_int_equal(guest.changes, guest.levels - (mode == PAGED_PAE));
		assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
		assert_marks(before, PTE_A, PTE_A | PTE_D);
		assert_true(guest.walk.attr & MV_ATTR_DIRTY);
		guest.changes = 0;
		assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
		assert_int_equal(paged_fault(&guest, FETCH), PAGED_OK);
		assert_true(guest.walk.attr & MV_ATTR_DIRTY);
		assert_int_equal(guest.changes, 0);
	}
}

static void only_what_lacks_a_mark_is_changed(void **state)
{
	for (unsigned int level = 1; level <= 5; level++) {
		paged_init(&guest, PAGED_5L);
		assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
		paged_set(&guest, level, paged_get(&guest, level) & ~PTE_A);
		guest.changes = 0;
		assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
		assert_int_equal(guest.changes, 1);
		assert_true(paged_get(&guest, level) & PTE_A);
	}
}

static void a_large_page_is_marked_too(void **state)
{
	paged_init(&guest, PAGED_4L);
	paged_set(&guest, 3, PTE_ALL | PTE_PS);
	assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
	assert_int_equal(paged_get(&guest, 3), PTE_ALL | PTE_PS | PTE_A | PTE_D);
	assert_true(paged_get(&guest, 4) & PTE_A);
	assert_false(paged_get(&guest, 4) & PTE_D);
}

static void steps_tell_what_was_read(void **state)
{
	paged_init(&guest, PAGED_4L);
	assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
	for (unsigned int i = 0; i < guest.walk.steps; i++)
		assert_false(guest.walk.step[i].entry & (PTE_A | PTE_D));
}

static void a_walk_that_faults_sets_nothing(void **state)
{
	uint64_t before[6];

	paged_init(&guest, PAGED_4L);
	paged_set(&guest, 1, PTE_P | PTE_U);
	note_entries(before);
	assert_int_not_equal(paged_fault(&guest, WRITE), PAGED_OK);
	assert_marks(before, 0, 0);
	assert_int_equal(guest.changes, 0);
}

static void a_look_sets_nothing(void **state)
{
	uint64_t before[6];

	paged_init(&guest, PAGED_4L);
	note_entries(before);
	assert_int_equal(paged_fault(&guest, WRITE | MV_ACCESS_NO_UPDATE), PAGED_OK);
	assert_int_equal(paged_fault(&guest, 0), PAGED_OK);
	assert_int_equal(paged_fault(&guest, USER), PAGED_OK);
	guest.accessor.change = NULL;
	assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
	assert_marks(before, 0, 0);
	assert_false(guest.walk.attr & (MV_ATTR_ACCESSED | MV_ATTR_DIRTY));
}

/* --- changes under the walk ------------------------------------------------------------------ */

/* The guest maps another page just before the leaf is marked. */
static void remap(struct paged_guest *g, uint64_t gpa)
{
	if (gpa != paged_entry_gpa(g, 1))
		return;
	paged_set(g, 1, 0x1111000 | PTE_ALL);
	g->disturb = NULL;
}

static void a_walk_starts_again_where_an_entry_has_changed(void **state)
{
	for (enum paged_mode mode = 0; mode < PAGED_MODES; mode++) {
		paged_init(&guest, mode);
		guest.disturb = remap;
		assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
		assert_int_equal(guest.walk.gpa, 0x1111123);
		assert_int_equal(guest.walk.steps, guest.levels);
		assert_int_equal(paged_get(&guest, 1), 0x1111000 | PTE_ALL | PTE_A | PTE_D);
	}
}

/* The guest takes the right to write away just before an upper entry is marked. */
static void take_write(struct paged_guest *g, uint64_t gpa)
{
	paged_set(g, 3, paged_get(g, 3) & ~PTE_W);
	g->disturb = NULL;
}

static void what_changed_is_checked_again(void **state)
{
	paged_init(&guest, PAGED_4L);
	guest.disturb = take_write;
	assert_int_equal(paged_fault(&guest, WRITE | USER), 7);
	assert_false(paged_get(&guest, 1) & (PTE_A | PTE_D));
}

/* Another processor sets the same bits. */
static void mark_first(struct paged_guest *g, uint64_t gpa)
{
	for (unsigned int level = 1; level <= g->levels; level++)
		paged_set(g, level, paged_get(g, level) | PTE_A);
	g->disturb = NULL;
}

static void another_processor_may_set_the_bits_first(void **state)
{
	paged_init(&guest, PAGED_5L);
	guest.disturb = mark_first;
	assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
	assert_int_equal(guest.changes, 1);
}

static void change_always(struct paged_guest *g, uint64_t gpa)
{
	paged_set(g, 1, paged_get(g, 1) ^ 0x1000);
	paged_set(g, 4, paged_get(g, 4) ^ 0x200);
}

static void a_guest_that_always_changes_gets_no_answer(void **state)
{
	struct mv_walk before;

	paged_init(&guest, PAGED_4L);
	guest.disturb = change_always;
	before = guest.walk;
	assert_int_equal(mv_guest_walk(&guest.paging, &guest.accessor, guest.gva, READ,
				       &guest.walk),
			 -EAGAIN);
	assert_memory_equal(&before, &guest.walk, sizeof(before));
	assert_true(guest.reads <= 4 * MV_WALK_ATTEMPTS);
}

/* --- memory that is not there --------------------------------------------------------------- */

static void what_the_accessor_says_is_passed_on(void **state)
{
	const int errors[] = { -EFAULT, -EIO, -EINTR };

	for (unsigned int level = 1; level <= 5; level++) {
		for (unsigned int i = 0; i < COUNT_OF(errors); i++) {
			struct mv_walk before;

			paged_init(&guest, PAGED_5L);
			guest.fail_gpa = paged_entry_gpa(&guest, level);
			guest.fail_error = errors[i];
			memset(&guest.walk, 0x5a, sizeof(guest.walk));
			memcpy(&before, &guest.walk, sizeof(before));
			assert_int_equal(mv_guest_walk(&guest.paging, &guest.accessor, guest.gva,
						       READ, &guest.walk),
					 errors[i]);
			assert_memory_equal(&before, &guest.walk, sizeof(before));
			assert_int_equal(guest.reads, 6 - level);
		}
	}
}

static void refuse_change(struct paged_guest *g, uint64_t gpa)
{
	g->fail_gpa = gpa;
}

static void so_is_what_it_says_to_a_change(void **state)
{
	paged_init(&guest, PAGED_4L);
	guest.disturb = refuse_change;
	guest.fail_error = -EROFS;
	assert_int_equal(mv_guest_walk(&guest.paging, &guest.accessor, guest.gva, READ,
				       &guest.walk),
			 -EROFS);
}

static void a_table_outside_memory_is_efault(void **state)
{
	for (enum paged_mode mode = 0; mode < PAGED_MODES; mode++) {
		paged_init(&guest, mode);
		paged_set(&guest, 2, 0x7fff0000 | PTE_ALL);
		assert_int_equal(mv_guest_walk(&guest.paging, &guest.accessor, guest.gva, READ,
					       &guest.walk),
				 -EFAULT);
	}
}

static void a_table_that_holds_itself_ends_the_walk_like_any_other(void **state)
{
	for (enum paged_mode mode = PAGED_4L; mode < PAGED_MODES; mode++) {
		paged_init(&guest, mode);
		memset(guest.page[1], 0, sizeof(guest.page[1]));
		for (unsigned int i = 0; i < 512; i++)
			guest.page[1][i] = 0x1000 | PTE_ALL;
		assert_int_equal(paged_fault(&guest, WRITE), PAGED_OK);
		assert_int_equal(guest.walk.gpa, 0x1123);
		assert_true(guest.reads <= guest.levels * (guest.levels + 1));
	}
}

/* --- parts of the inlined walk that only the nested one uses -------------------------------- */

static int step_read(void *ctx, unsigned int step, uint64_t gpa, unsigned int bytes,
		     uint64_t *entry)
{
	struct paged_guest *g = ctx;

	return g->accessor.read(g, gpa, bytes, entry);
}

static void pdptes_may_be_read_and_checked_in_each_walk(void **state)
{
	const struct mv_walk_reach reach = { .read = step_read, .pdptes_in_memory = true };

	paged_init(&guest, PAGED_PAE);
	memset(guest.paging.pdpte, 0, sizeof(guest.paging.pdpte));
	assert_int_equal(mv_walk_any(&guest.paging, &reach, &guest, guest.gva, READ, &guest.walk),
			 0);
	assert_int_equal(guest.walk.kind, MV_WALK_OK);
	assert_int_equal(guest.reads, 3);
	paged_set(&guest, 3, paged_get(&guest, 3) | PTE_W);
	assert_int_equal(mv_walk_any(&guest.paging, &reach, &guest, guest.gva, READ, &guest.walk),
			 0);
	assert_int_equal(guest.walk.error_code, 9);
	assert_int_equal(guest.walk.level, 3);
}

static void a_walk_may_begin_below_the_root(void **state)
{
	const struct mv_walk_reach reach = { .read = step_read };
	struct mv_walk_state half = { 0 };

	paged_init(&guest, PAGED_4L);
	assert_true(mv_walk_begin(&mv_format_x86_4l, &guest.paging, guest.gva, WRITE | USER, &half,
				  &guest.walk));
	half.level = 2;
	half.table = paged_table_gpa(&guest, 2);
	assert_int_equal(mv_walk_go_on(&mv_format_x86_4l, &guest.paging, &reach, &guest, &half,
				       WRITE | USER, &guest.walk),
			 0);
	assert_int_equal(guest.walk.kind, MV_WALK_OK);
	assert_int_equal(guest.walk.gpa, 0x7654123);
	assert_int_equal(guest.walk.steps, 2);
	assert_int_equal(guest.reads, 2);

	/* Rights that the skipped levels did not grant stay away. */
	assert_true(mv_walk_begin(&mv_format_x86_4l, &guest.paging, guest.gva, WRITE | USER, &half,
				  &guest.walk));
	half.level = 2;
	half.table = paged_table_gpa(&guest, 2);
	half.granted &= ~PTE_W;
	assert_int_equal(mv_walk_go_on(&mv_format_x86_4l, &guest.paging, &reach, &guest, &half,
				       WRITE | USER, &guest.walk),
			 0);
	assert_int_equal(guest.walk.error_code, 7);
}

/* --- a memory as accessor -------------------------------------------------------------------- */

#define REGION_PAGES 8

/* The tables of a guest, in two regions with a hole between. */
static void copy_tables(struct guest *machine, const struct paged_guest *from)
{
	assert_int_equal(guest_add(machine, 0, 3, 0), 0);
	assert_int_equal(guest_add(machine, 3 * MV_PAGE_SIZE, REGION_PAGES, 64 * MV_PAGE_SIZE), 0);
	assert_int_equal(mv_memory_write(machine->memory, 0, from->page, 8 * MV_PAGE_SIZE), 0);
}

static void tables_may_lie_in_a_memory(void **state)
{
	for (enum paged_mode mode = 0; mode < PAGED_MODES; mode++) {
		struct guest machine;
		uint64_t leaf = 0;

		guest_init(&machine, 1 << 20);
		paged_init(&guest, mode);
		copy_tables(&machine, &guest);
		mv_guest_accessor_memory(&guest.accessor, machine.memory);
		assert_int_equal(paged_fault(&guest, WRITE | USER), PAGED_OK);
		assert_int_equal(guest.walk.gpa, 0x7654123);
		assert_int_equal(mv_memory_read(machine.memory, paged_entry_gpa(&guest, 1), &leaf,
						mode < PAGED_PAE ? 4 : 8),
				 0);
		assert_int_equal(leaf, 0x7654000 | PTE_ALL | PTE_A | PTE_D);
		/* A copied accessor of the same memory, with nothing to change. */
		guest.accessor.change = NULL;
		assert_int_equal(paged_fault(&guest, READ), PAGED_OK);
		guest_finish(&machine);
	}
}

static void a_memory_ends_where_its_regions_do(void **state)
{
	struct guest machine;

	guest_init(&machine, 1 << 20);
	paged_init(&guest, PAGED_4L);
	paged_set(&guest, 2, 0x20000 | PTE_ALL);
	copy_tables(&machine, &guest);
	mv_guest_accessor_memory(&guest.accessor, machine.memory);
	assert_int_equal(mv_guest_walk(&guest.paging, &guest.accessor, guest.gva, READ,
				       &guest.walk),
			 -EFAULT);
	guest_finish(&machine);
}

static void the_accessor_of_a_memory_compares_before_it_changes(void **state)
{
	struct mv_guest_accessor accessor;
	struct guest machine;
	uint64_t entry;

	guest_init(&machine, 1 << 20);
	assert_int_equal(guest_add(&machine, 0, 4, 0), 0);
	mv_guest_accessor_memory(&accessor, machine.memory);
	assert_int_equal(accessor.change(accessor.ctx, 8, 8, 0, 0x1122334455667788), 0);
	assert_int_equal(accessor.read(accessor.ctx, 8, 8, &entry), 0);
	assert_int_equal(entry, 0x1122334455667788);
	assert_int_equal(accessor.read(accessor.ctx, 12, 4, &entry), 0);
	assert_int_equal(entry, 0x11223344);
	assert_int_equal(accessor.change(accessor.ctx, 8, 8, 0, 1), -EAGAIN);
	assert_int_equal(accessor.change(accessor.ctx, 12, 4, 1, 1), -EAGAIN);
	assert_int_equal(accessor.change(accessor.ctx, 12, 4, 0x11223344, 1), 0);
	assert_int_equal(accessor.read(accessor.ctx, 8, 8, &entry), 0);
	assert_int_equal(entry, 0x155667788);
	assert_int_equal(accessor.read(accessor.ctx, 0x4000, 8, &entry), -EFAULT);
	assert_int_equal(accessor.change(accessor.ctx, 0x4000, 8, 0, 0), -EFAULT);
	guest_finish(&machine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accessed_is_set_everywhere_and_dirty_on_what_is_written),
		cmocka_unit_test(only_what_lacks_a_mark_is_changed),
		cmocka_unit_test(a_large_page_is_marked_too),
		cmocka_unit_test(steps_tell_what_was_read),
		cmocka_unit_test(a_walk_that_faults_sets_nothing),
		cmocka_unit_test(a_look_sets_nothing),
		cmocka_unit_test(a_walk_starts_again_where_an_entry_has_changed),
		cmocka_unit_test(what_changed_is_checked_again),
		cmocka_unit_test(another_processor_may_set_the_bits_first),
		cmocka_unit_test(a_guest_that_always_changes_gets_no_answer),
		cmocka_unit_test(what_the_accessor_says_is_passed_on),
		cmocka_unit_test(so_is_what_it_says_to_a_change),
		cmocka_unit_test(a_table_outside_memory_is_efault),
		cmocka_unit_test(a_table_that_holds_itself_ends_the_walk_like_any_other),
		cmocka_unit_test(pdptes_may_be_read_and_checked_in_each_walk),
		cmocka_unit_test(a_walk_may_begin_below_the_root),
		cmocka_unit_test(tables_may_lie_in_a_memory),
		cmocka_unit_test(a_memory_ends_where_its_regions_do),
		cmocka_unit_test(the_accessor_of_a_memory_compares_before_it_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
