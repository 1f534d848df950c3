/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow tables, case by case: modes, rights, and the cases that shadows get wrong. What any
 * sequence of them comes to is the model test's.
 */
#include "guest_walk.h"
#include "support/shadow_lab.h"
#include "support/testing.h"

#define READ  MV_ACCESS_READ
#define WRITE MV_ACCESS_WRITE
#define FETCH MV_ACCESS_FETCH
#define USER  MV_ACCESS_USER

#define DATA 0x100000ULL /* guest pages from here on are nobody's */

static struct lab lab;

static const struct lab_options every_mode[] = {
	{ .mode = PAGED_32 },		     { .mode = PAGED_PSE },
	{ .mode = PAGED_PAE },		     { .mode = PAGED_4L },
	{ .mode = PAGED_32, .host_5l = true }, { .mode = PAGED_PSE, .host_5l = true },
	{ .mode = PAGED_PAE, .host_5l = true }, { .mode = PAGED_4L, .host_5l = true },
	{ .mode = PAGED_5L, .host_5l = true },
};

static const struct lab_options four_levels = { .mode = PAGED_4L };

/* Addresses in every part of a mode's tables. */
static const uint64_t places[] = {
	0x1000, 0x3ff000, 0x601000, 0x40000000, 0x7fe00000, 0x80c03000, 0xc0000000, 0xfffff000,
};
static const uint64_t high_places[] = {
	0xffff800000000000, 0xfffffffffffff000, 0x00007ffffffff000, 0xffff8000c0601000,
};

static void with_each_mode(void (*test)(void))
{
	for (size_t i = 0; i < COUNT_OF(every_mode); i++) {
		lab_init(&lab, &every_mode[i]);
		test();
		lab_finish(&lab);
	}
}

static void try_place(uint64_t gva, uint64_t gpa)
{
	uint64_t nx = lab.mode >= PAGED_PAE ? PTE_NX : 0;

	lab_map(&lab, gva, 1, gpa | PTE_ALL);
	lab_check(&lab, gva + 8, READ);
	lab_check(&lab, gva, WRITE | USER);
	lab_check(&lab, gva, FETCH);
	lab_map(&lab, gva, 1, gpa | PTE_P | nx);
	lab_check(&lab, gva, READ);
	lab_check(&lab, gva, READ | USER);
	lab_check(&lab, gva, WRITE);
	lab_check(&lab, gva, FETCH);
	lab_map(&lab, gva, 1, gpa);
	lab_check(&lab, gva, READ);
	/* Present again: nobody has to be told. */
	lab_map(&lab, gva, 1, (gpa + MV_PAGE_SIZE) | PTE_ALL);
	lab_check(&lab, gva, WRITE);
}

static void all_places(void)
{
	for (size_t i = 0; i < COUNT_OF(places); i++)
		try_place(places[i], DATA + 4 * i * MV_PAGE_SIZE);
	for (size_t i = 0; lab.mode >= PAGED_4L && i < COUNT_OF(high_places); i++)
		try_place(high_places[i], DATA + (4 * i + 2) * MV_PAGE_SIZE);
}

static void test_modes(void **state)
{
	with_each_mode(all_places);
}

static void large_pages(void)
{
	unsigned int large_lg2 = lab.mode == PAGED_PSE ? 22 : 21;
	uint64_t gva = 3ULL << 22, gpa = 1ULL << 22;

	if (lab.mode == PAGED_32)
		return;
	for (unsigned int page_lg2 = 12; page_lg2 <= 21; page_lg2 += 9) {
		lab.page_lg2 = page_lg2;
		lab_map(&lab, gva, 2, gpa | PTE_P | PTE_PS);
		lab_check(&lab, gva + 0x3456, READ);
		lab_check(&lab, gva + 0x3456, WRITE);
		lab_map(&lab, gva, 2, gpa | PTE_ALL | PTE_PS);
		lab_check(&lab, gva + 0x3456, READ | USER);
		lab_check(&lab, gva + 0x3456, WRITE | USER);
		lab_check(&lab, gva + (1u << large_lg2) - 1, WRITE);
		/* To small ones, and back. */
		lab_map(&lab, gva, 2, lab_table(&lab) | PTE_ALL);
		lab_check(&lab, gva + 0x3456, READ);
		lab_map(&lab, gva + 0x3000, 1, DATA | PTE_ALL);
		lab_check(&lab, gva + 0x3456, WRITE);
		lab_map(&lab, gva, 2, 0);
		lab_check(&lab, gva, READ);
	}
}

static void test_large_pages(void **state)
{
	with_each_mode(large_pages);
}

static void test_large_where_the_host_can(void **state)
{
	struct mv_mapping mapping;

	lab_init(&lab, &four_levels);
	lab_map(&lab, 0x40000000, 2, 0x400000 | PTE_ALL | PTE_PS);
	lab_check(&lab, 0x40003000, WRITE);
	assert_int_equal(mv_shadow_walk(lab.vcpu, 0x40003000, &mapping), 0);
	assert_int_equal(mapping.page_lg2, 21);
	/* One of its pages becomes an upper table: only the others may be written to. */
	lab_map(&lab, 0x80000000, 3, 0x403000 | PTE_ALL);
	lab_map(&lab, 0x80000000, 1, DATA | PTE_ALL);
	lab_check(&lab, 0x80000000, WRITE);
	assert_int_equal(lab_touch(&lab, 0x40003000, READ).kind, MV_SHADOW_FIXED);
	assert_int_equal(lab_touch(&lab, 0x40003000, WRITE).kind, MV_SHADOW_EMULATE_WRITE);
	lab_check(&lab, 0x40004000, WRITE);
	assert_int_equal(mv_shadow_walk(lab.vcpu, 0x40004000, &mapping), 0);
	assert_int_equal(mapping.page_lg2, 12);
	lab_finish(&lab);
}

static void test_paging_off(void **state)
{
	struct mv_mapping mapping;

	lab_init(&lab, &four_levels);
	lab.registers = (struct mv_paging_registers){ .cr0 = MV_CR0_PE };
	assert_int_equal(lab_load(&lab), 0);
	lab_check(&lab, 0x123456, READ);
	lab_check(&lab, 0x523456, WRITE);
	assert_int_equal(mv_shadow_walk(lab.vcpu, 0x523456, &mapping), 0);
	assert_int_equal(mapping.page_lg2, 21);
	assert_int_equal(lab_touch(&lab, LAB_PAGES * MV_PAGE_SIZE, READ).kind, MV_SHADOW_MMIO);
	lab_finish(&lab);
}

/* --- rights ---------------------------------------------------------------------------------- */

static const unsigned int accesses[] = {
	READ,	     WRITE,	   FETCH,	 READ | MV_ACCESS_AC, WRITE | MV_ACCESS_AC,
	READ | USER, WRITE | USER, FETCH | USER, READ | MV_ACCESS_IMPLICIT,
};

/* Every access, whatever came before it, and again after the guest has asked for nothing. */
static void try_accesses(uint64_t gva)
{
	for (size_t i = 0; i < COUNT_OF(accesses); i++)
		for (size_t j = 0; j < COUNT_OF(accesses); j++) {
			lab_check(&lab, gva, accesses[i]);
			lab_check(&lab, gva, accesses[j]);
		}
}

static void try_rights(uint64_t upper, uint64_t leaf)
{
	lab_map(&lab, 0x40000000, 2, (lab_read(&lab, lab_entry(&lab, 0x40000000, 2)) &
				      ~(PTE_ALL | PTE_NX)) | upper);
	lab_map(&lab, 0x40000000, 1, DATA | leaf);
	try_accesses(0x40000000);
}

static const uint64_t rights[] = {
	PTE_P, PTE_P | PTE_W, PTE_P | PTE_U, PTE_ALL, PTE_ALL | PTE_NX, PTE_P | PTE_U | PTE_NX,
};

static void test_rights(void **state)
{
	lab_init(&lab, &four_levels);
	(void)lab_entry(&lab, 0x40000000, 1);
	for (unsigned int mode = 0; mode < 8; mode++) {
		lab.registers.cr0 = MV_CR0_PE | MV_CR0_PG | (mode & 1 ? MV_CR0_WP : 0);
		lab.registers.cr4 = MV_CR4_PAE | (mode & 2 ? MV_CR4_SMEP : 0) |
				    (mode & 4 ? MV_CR4_SMAP : 0);
		assert_int_equal(lab_load(&lab), 0);
		for (size_t i = 0; i < COUNT_OF(rights); i++)
			for (size_t j = 0; j < COUNT_OF(rights); j++)
				try_rights(rights[i], rights[j]);
	}
	lab_finish(&lab);
}

/* What CR0.WP = 0 made writable must not be when it is 1 again, nor what SMEP was off for. */
static void test_modes_changed(void **state)
{
	lab_init(&lab, &four_levels);
	lab_map(&lab, 0x40000000, 1, DATA | PTE_P | PTE_U);
	lab_map(&lab, 0x40001000, 1, DATA | PTE_P);
	for (unsigned int turn = 0; turn < 16; turn++) {
		lab.registers.cr0 ^= turn & 1 ? MV_CR0_WP : 0;
		lab.registers.cr4 ^= turn & 2 ? MV_CR4_SMEP : 0;
		lab.registers.cr4 ^= turn & 4 ? MV_CR4_SMAP : 0;
		lab.registers.efer ^= turn & 8 ? MV_EFER_NXE : 0;
		assert_int_equal(lab_load(&lab), 0);
		lab_check(&lab, 0x40000000, WRITE);
		lab_check(&lab, 0x40000000, FETCH);
		lab_check(&lab, 0x40000000, READ);
		lab_check(&lab, 0x40001000, WRITE);
	}
	lab_finish(&lab);
}

static void test_smap_without_wp_is_emulated(void **state)
{
	lab_init(&lab, &four_levels);
	lab_map(&lab, 0x40000000, 1, DATA | PTE_P | PTE_U);
	lab.registers.cr0 &= ~MV_CR0_WP;
	lab.registers.cr4 |= MV_CR4_SMAP;
	assert_int_equal(lab_load(&lab), 0);
	assert_int_equal(lab_touch(&lab, 0x40000000, WRITE | MV_ACCESS_AC).kind,
			 MV_SHADOW_EMULATE_RIGHTS);
	assert_true(lab_read(&lab, lab_entry(&lab, 0x40000000, 1)) & PTE_D);
	lab_check(&lab, 0x40000000, READ);
	lab_finish(&lab);
}

/* Four paths to one table, of different rights, used in one of the 24 orders. */
static void use_paths(const unsigned int *order)
{
	static const uint64_t grants[] = {
		PTE_ALL, PTE_P | PTE_U, PTE_P | PTE_W, PTE_P | PTE_U | PTE_NX,
	};
	uint64_t table;

	lab_init(&lab, &four_levels);
	table = lab_table(&lab);
	lab_poke(&lab, table, DATA | PTE_ALL);
	for (unsigned int i = 0; i < 4; i++)
		lab_map(&lab, (uint64_t)i << 21, 2, table | grants[i]);
	for (unsigned int round = 0; round < 2; round++)
		for (unsigned int i = 0; i < 4; i++) {
			uint64_t gva = (uint64_t)order[i] << 21;

			lab_check(&lab, gva, WRITE | USER);
			lab_check(&lab, gva, READ | USER);
			lab_check(&lab, gva, FETCH);
			lab_check(&lab, gva, WRITE);
		}
	lab_finish(&lab);
}

/* CVE-2021-38198: the role has to carry what the parents grant. */
static void test_paths_of_different_rights(void **state)
{
	for (unsigned int a = 0; a < 4; a++)
		for (unsigned int b = 0; b < 4; b++)
			for (unsigned int c = 0; c < 4; c++) {
				unsigned int order[4] = { a, b, c, 6 - a - b - c };

				if (a != b && b != c && a != c)
					use_paths(order);
			}
}

/* --- roots ---------------------------------------------------------------------------------- */

static void test_pdptes_count_at_the_load(void **state)
{
	static const struct lab_options pae = { .mode = PAGED_PAE };
	uint64_t pdpte;

	lab_init(&lab, &pae);
	lab_map(&lab, 0x40000000, 1, DATA | PTE_ALL);
	lab_check(&lab, 0x40000000, WRITE);
	pdpte = lab_entry(&lab, 0x40000000, 3);
	lab_write(&lab, pdpte, 0);
	assert_int_equal(lab_touch(&lab, 0x40000000, READ).kind, MV_SHADOW_FIXED);
	assert_int_equal(lab_load(&lab), 0);
	lab_check(&lab, 0x40000000, READ);
	lab_write(&lab, pdpte, PTE_P | PTE_U);
	assert_int_equal(lab_load(&lab), -EINVAL);
	lab_write(&lab, pdpte, 0);
	lab_finish(&lab);
}

/* Under a 5-level host the guest's two halves must not be found at each other's addresses. */
static void test_not_canonical_for_the_guest(void **state)
{
	static const struct lab_options deep = { .mode = PAGED_4L, .host_5l = true };
	struct lab_access made;

	lab_init(&lab, &deep);
	lab_map(&lab, 0xffff800000000000, 1, DATA | PTE_ALL);
	lab_map(&lab, 0x00007ffffffff000, 1, DATA | PTE_ALL);
	lab_check(&lab, 0xffff800000000000, WRITE);
	lab_check(&lab, 0x00007ffffffff000, WRITE);
	made = lab_touch(&lab, 0x0000800000000000, READ);
	assert_int_equal(made.kind, MV_SHADOW_INJECT);
	assert_int_equal(made.walk.kind, MV_WALK_NOT_CANONICAL);
	made = lab_touch(&lab, 0xffff7ffffffff000, READ);
	assert_int_equal(made.kind, MV_SHADOW_INJECT);
	lab_finish(&lab);
}

static void test_roots_are_found_again(void **state)
{
	uint64_t first, second, first_hpa, hpa;

	lab_init(&lab, &four_levels);
	first = lab.registers.cr3;
	first_hpa = lab.root_hpa;
	lab_map(&lab, 0x40000000, 1, DATA | PTE_ALL);
	lab_check(&lab, 0x40000000, WRITE);
	second = lab.registers.cr3 = lab_table(&lab);
	assert_int_equal(lab_load(&lab), 0);
	assert_int_not_equal(lab.root_hpa, first_hpa);
	lab_check(&lab, 0x40000000, READ);
	lab.registers.cr3 = first;
	assert_int_equal(lab_load(&lab), 0);
	assert_int_equal(lab.root_hpa, first_hpa);
	assert_true(lab_reaches(&lab, 0x40000000, WRITE, &hpa));
	(void)second;
	lab_finish(&lab);
}

static void test_what_cannot_be_shadowed(void **state)
{
	lab_init(&lab, &four_levels);
	lab.registers.cr4 |= MV_CR4_LA57;
	assert_int_equal(lab_load(&lab), -EOPNOTSUPP);
	lab.registers.cr4 ^= MV_CR4_LA57 | MV_CR4_PKE;
	assert_int_equal(lab_load(&lab), -EOPNOTSUPP);
	lab.registers.cr4 ^= MV_CR4_PKE | MV_CR4_CET;
	assert_int_equal(lab_load(&lab), -EOPNOTSUPP);
	lab.registers.cr4 ^= MV_CR4_CET;
	lab.registers.cr0 ^= MV_CR0_PE;
	assert_int_equal(lab_load(&lab), -EINVAL);
	lab_finish(&lab);
}

/* --- what is not memory, and what is given away --------------------------------------------- */

static void test_mmio_and_read_only(void **state)
{
	struct lab_access made;

	lab_init(&lab, &four_levels);
	lab_map(&lab, 0x40000000, 1, (LAB_PAGES + 5) * MV_PAGE_SIZE | PTE_ALL);
	made = lab_touch(&lab, 0x40000010, WRITE);
	assert_int_equal(made.kind, MV_SHADOW_MMIO);
	assert_int_equal(made.walk.gpa, (LAB_PAGES + 5) * MV_PAGE_SIZE + 0x10);
	lab.write_protected = DATA;
	lab_map(&lab, 0x40000000, 1, DATA | PTE_ALL);
	lab_check(&lab, 0x40000000, READ);
	assert_int_equal(lab_touch(&lab, 0x40000000, WRITE).kind, MV_SHADOW_MMIO);
	lab_finish(&lab);
}

static void drop(void *ctx, struct mv_batch *batch)
{
}

static void test_pages_given_away(void **state)
{
	uint64_t dropped, hpa, table;

	lab_init(&lab, &four_levels);
	lab_map(&lab, 0x40000000, 1, DATA | PTE_ALL);
	lab_map(&lab, 0x40001000, 1, (DATA + MV_PAGE_SIZE) | PTE_ALL);
	lab_map(&lab, 0x40200000, 2, 0x400000 | PTE_ALL | PTE_PS);
	lab_check(&lab, 0x40000000, WRITE);
	lab_check(&lab, 0x40001000, WRITE);
	lab_check(&lab, 0x40203000, WRITE);
	lab.flushes = 0;
	assert_int_equal(mv_memory_discard(lab.guest.memory, DATA, DATA + 0xfff, drop, NULL,
					   &dropped), 0);
	assert_false(lab_reaches(&lab, 0x40000000, READ, &hpa));
	assert_true(lab_reaches(&lab, 0x40001000, READ, &hpa));
	assert_int_equal(lab.flushes, 1);
	assert_int_equal(mv_memory_discard(lab.guest.memory, 0x5ff000, 0x5fffff, drop, NULL,
					   &dropped), 0);
	assert_false(lab_reaches(&lab, 0x40203000, READ, &hpa));
	lab_check(&lab, 0x40203000, WRITE);
	/* A table goes: what was made from it goes with it. */
	table = lab_entry(&lab, 0x40001000, 1) & ~0xfffULL;
	memset(lab.guest.mem + table, 0, MV_PAGE_SIZE);
	assert_int_equal(mv_memory_discard(lab.guest.memory, table, table + 0xfff, drop, NULL,
					   &dropped), 0);
	lab_check(&lab, 0x40001000, READ);
	lab_finish(&lab);
}

/* --- bounds --------------------------------------------------------------------------------- */

/* Far more tables than pages to shadow them with. */
static void test_smallest_budget(void **state)
{
	static const struct lab_options small = { .mode = PAGED_4L,
						  .budget = MV_SHADOW_BUDGET_MIN };

	lab_init(&lab, &small);
	for (uint64_t round = 0; round < 3; round++)
		for (uint64_t i = 0; i < 200; i++) {
			uint64_t gva = i << 30 | i << 21 | i << 12;

			if (!round)
				lab_map(&lab, gva, 1, (DATA + (i << 12)) | PTE_ALL);
			lab_check(&lab, gva, WRITE);
		}
	lab_finish(&lab);
}

/* Each allocation fails once: what was begun is given back, and the next attempt succeeds. */
static void test_each_allocation_fails(void **state)
{
	struct mv_shadow_config config = {
		.size = sizeof(config), .format = MV_FORMAT_X86_4L, .maxphyaddr = 46,
		.node = -1, .page_budget = MV_SHADOW_BUDGET_MIN,
	};
	const struct mv_paging_registers off = { .cr0 = MV_CR0_PE };
	const struct mv_cpu_model cpu = { .maxphyaddr = 46 };
	struct mv_shadow_outcome outcome;
	struct mv_shadow *first;
	struct guest guest;
	int error = -ENOMEM;

	guest_init(&guest, 16 * MV_PAGE_SIZE);
	assert_int_equal(guest_add(&guest, 0, 16, 0), 0);
	config.memory = guest.memory;
	/* The memory keeps what it needs to attach a view. */
	assert_int_equal(mv_shadow_create(&config, &first), 0);
	mv_shadow_destroy(first);
	for (unsigned long n = 1; error; n++) {
		struct mv_shadow_vcpu *vcpu = NULL;
		struct mv_shadow *shadow = NULL;
		unsigned long live = guest.fake.live;
		uint64_t root;

		guest.fake.fail_at = guest.fake.allocations + n;
		error = mv_shadow_create(&config, &shadow);
		if (!error)
			error = mv_shadow_vcpu_create(shadow, &vcpu);
		if (!error)
			error = mv_shadow_load_root(vcpu, &off, &cpu, false, &root);
		if (!error)
			error = mv_shadow_fault(vcpu, 0x3000, WRITE, &outcome);
		assert_true(!error || error == -ENOMEM);
		if (error && shadow && vcpu) {
			assert_int_equal(mv_shadow_load_root(vcpu, &off, &cpu, false, &root), 0);
			assert_int_equal(mv_shadow_fault(vcpu, 0x3000, WRITE, &outcome), 0);
			assert_int_equal(outcome.kind, MV_SHADOW_FIXED);
		}
		mv_shadow_vcpu_destroy(vcpu);
		mv_shadow_destroy(shadow);
		assert_int_equal(guest.fake.live, live);
		assert_true(n < 100);
	}
	guest_finish(&guest);
}

static void test_config(void **state)
{
	struct mv_shadow_config config = { .size = sizeof(config) };
	struct mv_shadow_vcpu *vcpu, *more[MV_SHADOW_BUDGET_MIN];
	struct mv_shadow *shadow = NULL;
	struct guest guest;
	unsigned int count = 0;

	guest_init(&guest, MV_PAGE_SIZE);
	assert_int_equal(guest_add(&guest, 0x1000, 1, 0), 0);
	config.memory = guest.memory;
	config.format = MV_FORMAT_X86_PAE;
	config.maxphyaddr = 46;
	config.page_budget = MV_SHADOW_BUDGET_MIN;
	assert_int_equal(mv_shadow_create(&config, &shadow), -EINVAL);
	config.format = MV_FORMAT_X86_4L;
	config.page_budget--;
	assert_int_equal(mv_shadow_create(&config, &shadow), -EINVAL);
	config.page_budget++;
	assert_null(shadow);
	assert_int_equal(mv_shadow_create(&config, &shadow), 0);
	/* Its regions stay. */
	assert_int_equal(mv_memory_remove_region(guest.memory, 0x1000), -EBUSY);
	while (!mv_shadow_vcpu_create(shadow, &vcpu))
		more[count++] = vcpu;
	assert_int_equal(count, MV_SHADOW_BUDGET_MIN / MV_SHADOW_BUDGET_VCPU);
	assert_int_equal(mv_shadow_vcpu_create(shadow, &vcpu), -ENOSPC);
	assert_int_equal(mv_shadow_vcpu_number(more[3]), 3);
	while (count)
		mv_shadow_vcpu_destroy(more[--count]);
	mv_shadow_vcpu_destroy(NULL);
	mv_shadow_destroy(shadow);
	mv_shadow_destroy(NULL);
	assert_int_equal(mv_memory_remove_region(guest.memory, 0x1000), 0);
	guest_finish(&guest);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_large_pages),
		cmocka_unit_test(test_large_where_the_host_can),
		cmocka_unit_test(test_paging_off),
		cmocka_unit_test(test_rights),
		cmocka_unit_test(test_modes_changed),
		cmocka_unit_test(test_smap_without_wp_is_emulated),
		cmocka_unit_test(test_paths_of_different_rights),
		cmocka_unit_test(test_pdptes_count_at_the_load),
		cmocka_unit_test(test_not_canonical_for_the_guest),
		cmocka_unit_test(test_roots_are_found_again),
		cmocka_unit_test(test_what_cannot_be_shadowed),
		cmocka_unit_test(test_mmio_and_read_only),
		cmocka_unit_test(test_pages_given_away),
		cmocka_unit_test(test_smallest_budget),
		cmocka_unit_test(test_config),
		cmocka_unit_test(test_each_allocation_fails),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
