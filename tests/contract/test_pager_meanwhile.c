/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the pager promises about what others do: in the middle of an eviction, by discards, and
 * behind its back. Each case is run on memfd and on anonymous memory.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/pager_rig.h"

#define MIB (1UL << 20)

static struct pager_rig rig;

/* --- interleavings: something happens while the evictor is in the middle of a copy --------- */

static void during(void (*what)(void *ctx), uint64_t page)
{
	*(volatile unsigned char *)rig_page(&rig, page);
	rig.store.during_put = what;
	rig.store.ctx = (void *)(uintptr_t)page;
	__atomic_store_n(&rig.store.pause_key, page, __ATOMIC_RELEASE);
}

/* Make the evictor come round to the paused page. */
static void provoke(uint64_t page)
{
	for (int round = 0; round < 200 && !__atomic_load_n(&rig.store.paused, __ATOMIC_ACQUIRE);
	     round++)
		for (uint64_t i = 0; i < rig.pages; i++)
			if (i != page)
				*(volatile unsigned char *)rig_page(&rig, i);
	assert_true(__atomic_load_n(&rig.store.paused, __ATOMIC_ACQUIRE) > 0);
	__atomic_store_n(&rig.store.pause_key, RIG_NO_KEY, __ATOMIC_RELEASE);
}

/* Runs in the evictor: a touch that it waits for would never return if faults waited for it. */
static void write_meanwhile(void *ctx)
{
	uint64_t page = (uintptr_t)ctx;

	rig_fill_page(rig_page(&rig, page), page, 1);
}

static void test_fault_takes_an_eviction_over(void **state)
{
	rig_open_full(&rig, rig_kind_of(state), 1024, MIB);
	during(write_meanwhile, 77);
	provoke(77);
	assert_true(rig_stats(&rig).cancels > 0);
	assert_true(rig_check_page(rig_page(&rig, 77), 77, 1));
	rig_fill_page(rig_page(&rig, 77), 77, 0);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void pin_meanwhile(void *ctx)
{
	uint64_t gpa = RIG_GPA + (uintptr_t)ctx * MV_PAGE_SIZE;

	assert_int_equal(mv_memory_pin(rig.memory, gpa, gpa), 0);
}

static void test_pin_ends_an_eviction(void **state)
{
	uint64_t gpa = RIG_GPA + 77 * MV_PAGE_SIZE;

	rig_open_full(&rig, rig_kind_of(state), 1024, MIB);
	during(pin_meanwhile, 77);
	provoke(77);
	for (uint64_t i = 0; i < rig.pages; i++)
		*(volatile unsigned char *)rig_page(&rig, i);
	assert_int_equal(rig_state(&rig, 77), MV_PAGE_RESIDENT);
	assert_true(rig_check_page(rig_page(&rig, 77), 77, 0));
	mv_memory_unpin(rig.memory, gpa, gpa);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

/* --- discards -------------------------------------------------------------------------------- */

struct hole {
	uint64_t offset, bytes;
	int how; /* 0: fallocate, 1: MADV_REMOVE, 2: fails */
};

static int punch(void *ctx)
{
	struct hole *hole = ctx;

	if (hole->how == 2) {
		errno = EPERM;
		return -1;
	}
	if (hole->how == 1)
		return madvise(rig.mem + hole->offset, hole->bytes, MADV_REMOVE);
	return fallocate(rig.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)hole->offset,
			 (off_t)hole->bytes);
}

/* What a VMM does to give pages up, by kind. */
static void vmm_discard(uint64_t page, uint64_t count, int how)
{
	struct hole hole = { page * MV_PAGE_SIZE, count * MV_PAGE_SIZE, how };

	if (rig.kind == RIG_PRIVATE)
		assert_int_equal(madvise(rig_page(&rig, page), hole.bytes, MADV_DONTNEED), 0);
	else
		assert_int_equal(mv_pager_discard_around(rig.pager, rig_page(&rig, page),
							 hole.bytes, punch, &hole),
				 0);
}

static void test_discards_read_as_zeros(void **state)
{
	rig_open_full(&rig, rig_kind_of(state), 2048, 2 * MIB);
	for (uint64_t page = 0; page < rig.pages; page += 4)
		vmm_discard(page, 2, (int)(page / 4 % 2));
	for (uint64_t page = 0; page < rig.pages; page++) {
		if (page % 4 < 2)
			assert_true(rig_page_is_zero(rig_page(&rig, page)));
		else
			assert_true(rig_check_page(rig_page(&rig, page), page, 0));
	}
	rig_fill(&rig);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void test_api_discard(void **state)
{
	uint64_t gpa = RIG_GPA + 10 * MV_PAGE_SIZE;

	rig_open_full(&rig, rig_kind_of(state), 1024, MIB);
	assert_int_equal(mv_pager_discard(rig.pager, gpa, gpa + 600 * MV_PAGE_SIZE - 1), 0);
	for (uint64_t page = 0; page < rig.pages; page++)
		assert_true(page >= 10 && page < 610
				    ? rig_page_is_zero(rig_page(&rig, page))
				    : rig_check_page(rig_page(&rig, page), page, 0));
	assert_int_equal(mv_pager_discard(rig.pager, gpa + 1, gpa + 8), -EINVAL);
	assert_int_equal(mv_pager_discard(rig.pager, 0, MV_PAGE_SIZE - 1), -EFAULT);
	rig_close(&rig);
}

/* Scattered pages, under eviction, with a limit and without one. */
static void test_api_discard_ranges(void **state)
{
	for (int limited = 0; limited < 2; limited++) {
		struct mv_gpa_range ranges[256];
		uint64_t dropped = 0;

		rig_open_full(&rig, rig_kind_of(state), 1024, limited ? MIB : MV_PAGER_UNLIMITED);
		for (unsigned int i = 0; i < 256; i++) {
			uint64_t gpa = RIG_GPA + (4 * i + i % 3) * MV_PAGE_SIZE;

			ranges[i] = (struct mv_gpa_range){ gpa, gpa + MV_PAGE_SIZE - 1 };
		}
		assert_int_equal(mv_pager_discard_ranges(rig.pager, ranges, 256, &dropped), 0);
		assert_int_equal(dropped, 256);
		for (uint64_t page = 0; page < rig.pages; page++)
			assert_true(page % 4 == page / 4 % 3
					    ? rig_page_is_zero(rig_page(&rig, page))
					    : rig_check_page(rig_page(&rig, page), page, 0));
		ranges[255].first_gpa = ranges[0].first_gpa;
		assert_int_equal(mv_pager_discard_ranges(rig.pager, ranges, 256, NULL), -EINVAL);
		rig_fill(&rig);
		assert_int_equal(rig_check(&rig), 0);
		rig_close(&rig);
	}
}

/* Of what a device reaches nothing goes, with a limit and without one. */
static void test_api_discard_refuses_under_dma(void **state)
{
	for (int limited = 0; limited < 2; limited++) {
		const uint64_t last = RIG_GPA + 8 * MV_PAGE_SIZE - 1;

		rig_open_full(&rig, rig_kind_of(state), 1024, limited ? MIB : MV_PAGER_UNLIMITED);
		mv_pager_hold(rig.pager, MV_PAGER_HOLD_DMA);
		assert_int_equal(mv_pager_discard(rig.pager, RIG_GPA, last), -EBUSY);
		assert_int_equal(rig_check(&rig), 0);
		mv_pager_unhold(rig.pager, MV_PAGER_HOLD_DMA);
		assert_int_equal(mv_pager_discard(rig.pager, RIG_GPA, last), 0);
		for (uint64_t page = 0; page < 8; page++)
			assert_true(rig_page_is_zero(rig_page(&rig, page)));
		rig_close(&rig);
	}
}

static void test_api_discard_refuses_pinned(void **state)
{
	uint64_t gpa = RIG_GPA + 5 * MV_PAGE_SIZE;

	rig_open_full(&rig, rig_kind_of(state), 1024, MIB);
	assert_int_equal(mv_memory_pin(rig.memory, gpa, gpa), 0);
	assert_int_equal(mv_pager_discard(rig.pager, RIG_GPA, RIG_GPA + 8 * MV_PAGE_SIZE - 1),
			 -EBUSY);
	for (uint64_t page = 0; page < 8; page++)
		assert_true(page == 5 ? rig_check_page(rig_page(&rig, page), page, 0)
				      : rig_page_is_zero(rig_page(&rig, page)));
	mv_memory_unpin(rig.memory, gpa, gpa);
	rig_close(&rig);
}

static void discard_meanwhile(void *ctx)
{
	vmm_discard((uintptr_t)ctx, 1, 0);
}

/* The evictor holds the page's granule, so on shared memory another thread has to ask. */
static void *discard_thread(void *ctx)
{
	discard_meanwhile(ctx);
	return NULL;
}

static pthread_t discarder;

static void start_discard(void *ctx)
{
	assert_int_equal(pthread_create(&discarder, NULL, discard_thread, ctx), 0);
	usleep(20000);
}

static void test_discard_meets_an_eviction(void **state)
{
	rig_open_full(&rig, rig_kind_of(state), 1024, MIB);
	during(rig.kind == RIG_PRIVATE ? discard_meanwhile : start_discard, 77);
	provoke(77);
	if (rig.kind == RIG_SHARED)
		pthread_join(discarder, NULL);
	assert_true(rig_page_is_zero(rig_page(&rig, 77)));
	rig_fill_page(rig_page(&rig, 77), 77, 0);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void test_failed_discard_keeps_content(void **state)
{
	struct hole hole = { 0, 64 * MV_PAGE_SIZE, 2 };

	if (rig_kind_of(state) == RIG_PRIVATE) {
		print_message("# skip-reason: private memory is discarded by the kernel itself\n");
		skip();
	}
	rig_open_full(&rig, rig_kind_of(state), 1024, MIB);
	assert_int_equal(mv_pager_discard_around(rig.pager, rig.mem, hole.bytes, punch, &hole), -1);
	assert_int_equal(errno, EPERM);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

/* The kernel clears parts of pages; a page that is stored has to be there for it. */
static void test_unaligned_punch_clears_the_edges(void **state)
{
	struct hole hole = { 3 * MV_PAGE_SIZE + 100, 2 * MV_PAGE_SIZE, 0 };
	unsigned char expected[5 * MV_PAGE_SIZE];

	if (rig_kind_of(state) == RIG_PRIVATE) {
		print_message("# skip-reason: madvise() takes whole pages only\n");
		skip();
	}
	rig_open_full(&rig, rig_kind_of(state), 1024, MIB);
	for (uint64_t page = 2; page < 7; page++)
		rig_fill_page(expected + (page - 2) * MV_PAGE_SIZE, page, 0);
	memset(expected + MV_PAGE_SIZE + 100, 0, hole.bytes);
	assert_int_equal(mv_pager_discard_around(rig.pager, rig.mem + hole.offset, hole.bytes,
						 punch, &hole),
			 0);
	assert_memory_equal(rig_page(&rig, 2), expected, sizeof(expected));
	rig_close(&rig);
}

/* MADV_DONTNEED on shared memory discards nothing, ours or the VMM's. */
static void test_dontneed_on_shared_keeps_content(void **state)
{
	if (rig_kind_of(state) == RIG_PRIVATE) {
		print_message("# skip-reason: there it is a discard\n");
		skip();
	}
	rig_open_full(&rig, rig_kind_of(state), 2048, 2 * MIB);
	for (int round = 0; round < 3; round++) {
		assert_int_equal(madvise(rig.mem, rig.pages * MV_PAGE_SIZE, MADV_DONTNEED), 0);
		assert_int_equal(rig_check(&rig), 0);
	}
	rig_close(&rig);
}

/* --- what others do behind the pager's back -------------------------------------------------- */

static void test_zero_page_from_a_foreign_touch_is_overwritten(void **state)
{
	unsigned char *other;
	uint64_t page;

	if (rig_kind_of(state) == RIG_PRIVATE) {
		print_message("# skip-reason: private memory has no other mapping\n");
		skip();
	}
	rig_open_full(&rig, rig_kind_of(state), 1024, MIB);
	other = mmap(NULL, rig.pages * MV_PAGE_SIZE, PROT_READ, MAP_SHARED, rig.fd, 0);
	assert_ptr_not_equal(other, MAP_FAILED);
	page = rig_find_page(&rig, MV_PAGE_STORED);
	assert_int_equal(other[page * MV_PAGE_SIZE], 0);
	assert_true(rig_check_page(rig_page(&rig, page), page, 0));
	assert_int_equal(rig_check(&rig), 0);
	munmap(other, rig.pages * MV_PAGE_SIZE);
	rig_close(&rig);
}

static void test_direct_io_into_private_pages_is_not_lost(void **state)
{
	char path[] = "/var/tmp/memvirt-direct-XXXXXX";
	unsigned char *page = NULL;
	int fd;

	if (rig_kind_of(state) == RIG_SHARED) {
		print_message(
			"# skip-reason: shared memory needs pins, see test_pinned_pages_stay\n");
		skip();
	}
	fd = mkostemp(path, O_DIRECT);
	if (fd < 0) {
		print_message("# skip-reason: no direct I/O in /var/tmp: %s\n", strerror(errno));
		skip();
	}
	unlink(path);
	assert_int_equal(posix_memalign((void **)&page, MV_PAGE_SIZE, MV_PAGE_SIZE), 0);
	for (uint64_t i = 0; i < 256; i++) {
		rig_fill_page(page, i, 9);
		assert_int_equal(pwrite(fd, page, MV_PAGE_SIZE, (off_t)(i * MV_PAGE_SIZE)),
				 MV_PAGE_SIZE);
	}
	rig_open_full(&rig, rig_kind_of(state), 1024, MIB);
	for (uint64_t i = 0; i < 256; i++)
		assert_int_equal(pread(fd, rig_page(&rig, i * 4), MV_PAGE_SIZE,
				       (off_t)(i * MV_PAGE_SIZE)),
				 MV_PAGE_SIZE);
	for (uint64_t i = 0; i < 256; i++)
		assert_true(rig_check_page(rig_page(&rig, i * 4), i, 9));
	free(page);
	close(fd);
	rig_close(&rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		RIG_BOTH(test_fault_takes_an_eviction_over),
		RIG_BOTH(test_pin_ends_an_eviction),
		RIG_BOTH(test_discards_read_as_zeros),
		RIG_BOTH(test_api_discard),
		RIG_BOTH(test_api_discard_ranges),
		RIG_BOTH(test_api_discard_refuses_under_dma),
		RIG_BOTH(test_api_discard_refuses_pinned),
		RIG_BOTH(test_discard_meets_an_eviction),
		RIG_BOTH(test_failed_discard_keeps_content),
		RIG_BOTH(test_unaligned_punch_clears_the_edges),
		RIG_BOTH(test_dontneed_on_shared_keeps_content),
		RIG_BOTH(test_zero_page_from_a_foreign_touch_is_overwritten),
		RIG_BOTH(test_direct_io_into_private_pages_is_not_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
