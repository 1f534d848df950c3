/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the pager promises, for every kind of memory: directed cases, each run on memfd and
 * on anonymous memory. Storms of random accesses are in tests/races.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support/pager_rig.h"

#define MIB (1UL << 20)

static struct pager_rig rig;

static enum rig_kind kind_of(void **state)
{
	enum rig_kind kind = (enum rig_kind)(intptr_t)*state;

	if (!rig_possible(kind))
		skip();
	return kind;
}

/* A rig with all pages filled and the evictor at work: residency is at the limit. */
static void open_full(void **state, uint64_t pages, uint64_t limit)
{
	rig_open(&rig, kind_of(state), pages, limit);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	rig_fill(&rig);
	rig_wait(rig_resident(&rig) <= limit);
}

static uint64_t find_page(enum mv_page_state state)
{
	for (uint64_t page = 0; page < rig.pages; page++)
		if (rig_state(&rig, page) == state)
			return page;
	fail_msg("no page in state %d", state);
	return 0;
}

/* --- limits ----------------------------------------------------------------------------- */

static void test_keeps_the_limit_and_every_byte(void **state)
{
	open_full(state, 4096, 4 * MIB);
	assert_true(rig_allocated(&rig) <= 4 * MIB);
	assert_int_equal(rig_check(&rig), 0);
	assert_true(rig_stats(&rig).evictions > 3000);
	assert_true(rig_stats(&rig).restores > 3000);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void test_unlimited_registers_nothing(void **state)
{
	rig_open(&rig, kind_of(state), 1024, MV_PAGER_UNLIMITED);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	/* No handler runs: a fault reported to the pager would hang. */
	rig_fill(&rig);
	assert_int_equal(rig_check(&rig), 0);
	assert_int_equal(rig_stats(&rig).managed_bytes, 0);
	rig_close(&rig);
}

static void test_limit_comes_and_goes_on_a_living_memory(void **state)
{
	rig_open(&rig, kind_of(state), 2048, MV_PAGER_UNLIMITED);
	rig_start(&rig, 2);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	rig_fill(&rig);
	for (int round = 0; round < 3; round++) {
		assert_int_equal(mv_pager_set_limit(rig.pager, 2 * MIB), 0);
		rig_wait(rig_resident(&rig) <= 2 * MIB);
		assert_true(rig_allocated(&rig) <= 2 * MIB);
		assert_int_equal(mv_pager_set_limit(rig.pager, 4 * MIB), 0);
		assert_int_equal(rig_check(&rig), 0);
		assert_int_equal(mv_pager_set_limit(rig.pager, MV_PAGER_UNLIMITED), 0);
		assert_int_equal(rig_stats(&rig).managed_bytes, 0);
		assert_int_equal(rig_allocated(&rig), 2048 * MV_PAGE_SIZE);
		assert_int_equal(rig_check(&rig), 0);
	}
	assert_int_equal(mv_pager_set_limit(rig.pager, MIB - 1), -EINVAL);
	rig_close(&rig);
}

static void test_untouched_pages_read_as_zeros_and_are_not_stored(void **state)
{
	rig_open(&rig, kind_of(state), 1024, 2 * MIB);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	for (uint64_t page = 0; page < rig.pages; page++)
		assert_true(rig_page_is_zero(rig_page(&rig, page)));
	rig_close(&rig);
}

static void test_cold_scan_spares_the_hot_set(void **state)
{
	uint64_t hot = 256, restores;

	open_full(state, 8192, 8 * MIB);
	for (int round = 0; round < 50; round++)
		for (uint64_t page = 0; page < hot; page++)
			assert_true(rig_check_page(rig_page(&rig, page), page, 0));
	restores = rig_stats(&rig).restores;
	/* Scan all the rest slowly, touching the hot set all the time. */
	for (uint64_t page = hot; page < rig.pages; page++) {
		assert_true(rig_check_page(rig_page(&rig, page), page, 0));
		assert_true(rig_check_page(rig_page(&rig, page % hot), page % hot, 0));
	}
	/* Nearly all restores are the scan's own: a hot page is hardly ever among them. */
	restores = rig_stats(&rig).restores - restores;
	assert_true(restores < (rig.pages - hot) + hot * 4);
	rig_close(&rig);
}

/* --- attach and detach -------------------------------------------------------------------- */

static void test_attach_errors(void **state)
{
	rig_open(&rig, kind_of(state), 512, 2 * MIB);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA + MV_PAGE_SIZE), -ENOENT);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), -EEXIST);
	assert_int_equal(mv_pager_detach(rig.pager, RIG_GPA + MV_PAGE_SIZE), -ENOENT);
	assert_int_equal(mv_memory_remove_region(rig.memory, RIG_GPA), -EBUSY);
	rig_fill(&rig);
	assert_int_equal(mv_pager_detach(rig.pager, RIG_GPA), 0);
	assert_int_equal(mv_pager_detach(rig.pager, RIG_GPA), -ENOENT);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void test_detach_brings_everything_back(void **state)
{
	open_full(state, 2048, 2 * MIB);
	assert_int_equal(mv_pager_detach(rig.pager, RIG_GPA), 0);
	assert_int_equal(rig_allocated(&rig), rig.pages * MV_PAGE_SIZE);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void test_forget_empties_the_store(void **state)
{
	struct mv_store_stats stats;

	open_full(state, 2048, 2 * MIB);
	assert_int_equal(mv_pager_forget(rig.pager, RIG_GPA), 0);
	rig.store.real->ops->get_stats(rig.store.real, &stats);
	assert_int_equal(stats.pages, 0);
	rig_close(&rig);
}

static void *keep_touching(void *ctx)
{
	const bool *stop = ctx;
	uint64_t wrong = 0;

	while (!__atomic_load_n(stop, __ATOMIC_RELAXED))
		wrong += rig_check(&rig);
	return (void *)(uintptr_t)wrong;
}

static void test_detach_under_fire(void **state)
{
	bool stop = false;
	pthread_t threads[2];
	void *wrong;

	open_full(state, 1024, MIB);
	for (int i = 0; i < 2; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, keep_touching, &stop), 0);
	for (int round = 0; round < 20; round++) {
		usleep(10000);
		assert_int_equal(mv_pager_detach(rig.pager, RIG_GPA), 0);
		assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	}
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	for (int i = 0; i < 2; i++) {
		pthread_join(threads[i], &wrong);
		assert_null(wrong);
	}
	rig_close(&rig);
}

static void test_masked_features_are_refused(void **state)
{
	struct mv_pager_config config = { .size = sizeof(config),
					  .store_keys = 512,
					  .limit_bytes = MIB,
					  .feature_mask = MV_PAGER_SHMEM | MV_PAGER_MOVE };
	struct mv_pager *pager;

	rig_open(&rig, kind_of(state), 512, MIB);
	mv_pager_detach(rig.pager, RIG_GPA);
	config.memory = rig.memory;
	config.store = &rig.store.store;
	assert_int_equal(mv_pager_create(&config, &pager), 0);
	assert_int_equal(mv_pager_attach(pager, RIG_GPA), -EOPNOTSUPP);
	rig_fill(&rig);
	assert_int_equal(rig_check(&rig), 0);
	mv_pager_destroy(pager);
	rig_close(&rig);
}

/* --- holds and pins ------------------------------------------------------------------------ */

static void test_hold_stops_evicting(void **state)
{
	uint64_t evictions;

	open_full(state, 2048, 2 * MIB);
	mv_pager_hold(rig.pager, MV_PAGER_HOLD_CALLER);
	evictions = rig_stats(&rig).evictions;
	assert_int_equal(rig_check(&rig), 0);
	assert_int_equal(rig_stats(&rig).evictions, evictions);
	assert_int_equal(rig_resident(&rig), rig.pages * MV_PAGE_SIZE);
	mv_pager_unhold(rig.pager, MV_PAGER_HOLD_CALLER);
	rig_wait(rig_resident(&rig) <= 2 * MIB);
	rig_close(&rig);
}

static void test_pinned_pages_stay(void **state)
{
	uint64_t first = RIG_GPA + 100 * MV_PAGE_SIZE, last = first + 50 * MV_PAGE_SIZE - 1;

	rig_open(&rig, kind_of(state), 2048, 2 * MIB);
	rig_start(&rig, 2);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	assert_int_equal(mv_memory_pin(rig.memory, first, last), 0);
	rig_fill(&rig);
	for (int i = 0; i < 3; i++)
		assert_int_equal(rig_check(&rig), 0);
	for (uint64_t page = 100; page < 150; page++)
		assert_int_equal(rig_state(&rig, page), MV_PAGE_RESIDENT);
	mv_memory_unpin(rig.memory, first, last);
	for (int i = 0; i < 3; i++)
		assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

/* Everything pinned: faults must pass the limit instead of waiting for ever. */
static void test_all_pinned_passes_the_limit(void **state)
{
	rig_open(&rig, kind_of(state), 1024, MIB);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	assert_int_equal(
		mv_memory_pin(rig.memory, RIG_GPA, RIG_GPA + 1024 * MV_PAGE_SIZE - 1), 0);
	rig_fill(&rig);
	assert_int_equal(rig_check(&rig), 0);
	assert_true(rig_stats(&rig).over_limit > 0);
	mv_memory_unpin(rig.memory, RIG_GPA, RIG_GPA + 1024 * MV_PAGE_SIZE - 1);
	rig_wait(rig_resident(&rig) <= MIB);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static void *touch_last(void *ctx)
{
	*(volatile unsigned char *)rig_page(&rig, rig.pages - 1) = 1;
	return NULL;
}

/* Runs in one evictor, which so keeps all there is to evict from the other. */
static void let_the_other_look(void *ctx)
{
	usleep(20000);
	assert_int_equal(pthread_create(ctx, NULL, touch_last, NULL), 0);
	usleep(100000);
}

/* An evictor that finds nothing, because another is at it, is not stuck: faults still wait. */
static void test_idle_evictor_lets_nothing_pass(void **state)
{
	pthread_t toucher;

	rig_open(&rig, kind_of(state), 512, MV_PAGER_UNLIMITED);
	rig_start(&rig, 2);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	for (uint64_t i = 0; i < rig.pages - 1; i++)
		rig_fill_page(rig_page(&rig, i), i, 0);
	rig.store.during_put = let_the_other_look;
	rig.store.ctx = &toucher;
	rig.store.pause_key = 70;
	assert_int_equal(mv_pager_set_limit(rig.pager, MIB), 0);
	rig_wait(__atomic_load_n(&rig.store.paused, __ATOMIC_ACQUIRE));
	rig_wait(rig_resident(&rig) <= MIB);
	assert_int_equal(pthread_join(toucher, NULL), 0);
	assert_int_equal(rig_stats(&rig).over_limit, 0);
	rig_close(&rig);
}

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
	open_full(state, 1024, MIB);
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

	open_full(state, 1024, MIB);
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
	open_full(state, 2048, 2 * MIB);
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

	open_full(state, 1024, MIB);
	assert_int_equal(mv_pager_discard(rig.pager, gpa, gpa + 600 * MV_PAGE_SIZE - 1), 0);
	for (uint64_t page = 0; page < rig.pages; page++)
		assert_true(page >= 10 && page < 610
				    ? rig_page_is_zero(rig_page(&rig, page))
				    : rig_check_page(rig_page(&rig, page), page, 0));
	assert_int_equal(mv_pager_discard(rig.pager, gpa + 1, gpa + 8), -EINVAL);
	assert_int_equal(mv_pager_discard(rig.pager, 0, MV_PAGE_SIZE - 1), -EFAULT);
	rig_close(&rig);
}

static void test_api_discard_refuses_pinned(void **state)
{
	uint64_t gpa = RIG_GPA + 5 * MV_PAGE_SIZE;

	open_full(state, 1024, MIB);
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
	open_full(state, 1024, MIB);
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

	if (kind_of(state) == RIG_PRIVATE) {
		print_message("# skip-reason: private memory is discarded by the kernel itself\n");
		skip();
	}
	open_full(state, 1024, MIB);
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

	if (kind_of(state) == RIG_PRIVATE) {
		print_message("# skip-reason: madvise() takes whole pages only\n");
		skip();
	}
	open_full(state, 1024, MIB);
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
	if (kind_of(state) == RIG_PRIVATE) {
		print_message("# skip-reason: there it is a discard\n");
		skip();
	}
	open_full(state, 2048, 2 * MIB);
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

	if (kind_of(state) == RIG_PRIVATE) {
		print_message("# skip-reason: private memory has no other mapping\n");
		skip();
	}
	open_full(state, 1024, MIB);
	other = mmap(NULL, rig.pages * MV_PAGE_SIZE, PROT_READ, MAP_SHARED, rig.fd, 0);
	assert_ptr_not_equal(other, MAP_FAILED);
	page = find_page(MV_PAGE_STORED);
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

	if (kind_of(state) == RIG_SHARED) {
		print_message("# skip-reason: shared memory needs pins, see test_pinned_pages_stay\n");
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
	open_full(state, 1024, MIB);
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

/* --- the store fails --------------------------------------------------------------------------- */

static void test_full_store_keeps_pages_resident(void **state)
{
	rig_open(&rig, kind_of(state), 1024, MIB);
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	__atomic_store_n(&rig.store.put_error, -ENOSPC, __ATOMIC_RELEASE);
	rig_fill(&rig);
	assert_int_equal(rig_check(&rig), 0);
	rig_wait(rig_stats(&rig).store_full > 0);
	assert_int_equal(rig_stats(&rig).evictions, 0);
	__atomic_store_n(&rig.store.put_error, 0, __ATOMIC_RELEASE);
	rig_wait(rig_resident(&rig) <= MIB);
	assert_int_equal(rig_check(&rig), 0);
	rig_close(&rig);
}

static sigjmp_buf escape;

static void on_bus_error(int signal)
{
	siglongjmp(escape, signal);
}

/* Return: whether a touch raises SIGBUS. */
static bool touch_raises(uint64_t page)
{
	struct sigaction action = { .sa_handler = on_bus_error }, before;
	volatile bool raised = false;

	sigaction(SIGBUS, &action, &before);
	if (sigsetjmp(escape, 1))
		raised = true;
	else
		*(volatile unsigned char *)rig_page(&rig, page);
	sigaction(SIGBUS, &before, NULL);
	return raised;
}

static void lost_page(unsigned int feature_mask, void **state)
{
	uint64_t lost;

	rig_open(&rig, kind_of(state), 1024, MIB);
	if (feature_mask) {
		struct mv_pager_config config = { .size = sizeof(config),
						  .memory = rig.memory,
						  .store = &rig.store.store,
						  .store_keys = 1024,
						  .limit_bytes = MIB,
						  .feature_mask = feature_mask };

		mv_pager_destroy(rig.pager);
		assert_int_equal(mv_pager_create(&config, &rig.pager), 0);
	}
	rig_start(&rig, 1);
	assert_int_equal(mv_pager_attach(rig.pager, RIG_GPA), 0);
	rig_fill(&rig);
	rig_wait(rig_resident(&rig) <= MIB);
	mv_pager_hold(rig.pager, MV_PAGER_HOLD_CALLER);
	lost = find_page(MV_PAGE_STORED);
	rig.store.get_error_key = lost;
	__atomic_store_n(&rig.store.get_error, -EILSEQ, __ATOMIC_RELEASE);
	assert_true(touch_raises(lost));
	assert_true(touch_raises(lost));
	rig_wait(rig_state(&rig, lost) == MV_PAGE_POISONED);
	assert_int_equal(rig_stats(&rig).poisoned, 1);
	for (uint64_t page = 0; page < rig.pages; page++)
		assert_true(page == lost || rig_check_page(rig_page(&rig, page), page, 0));
	rig_close(&rig);
}

static void test_unreadable_page_raises_an_error(void **state)
{
	lost_page(0, state);
}

static void test_unreadable_page_without_poison(void **state)
{
	lost_page(MV_PAGER_POISON, state);
}

#define ON(kind, test)                                                                             \
	{                                                                                          \
		#test " on " kind, test, NULL, NULL,                                              \
			(void *)(intptr_t)(kind[0] == 'm' ? RIG_SHARED : RIG_PRIVATE)             \
	}
#define BOTH(test) ON("memfd", test), ON("anonymous", test)

int main(void)
{
	const struct CMUnitTest tests[] = {
		BOTH(test_keeps_the_limit_and_every_byte),
		BOTH(test_unlimited_registers_nothing),
		BOTH(test_limit_comes_and_goes_on_a_living_memory),
		BOTH(test_untouched_pages_read_as_zeros_and_are_not_stored),
		BOTH(test_cold_scan_spares_the_hot_set),
		BOTH(test_attach_errors),
		BOTH(test_detach_brings_everything_back),
		BOTH(test_forget_empties_the_store),
		BOTH(test_detach_under_fire),
		BOTH(test_masked_features_are_refused),
		BOTH(test_hold_stops_evicting),
		BOTH(test_pinned_pages_stay),
		BOTH(test_all_pinned_passes_the_limit),
		BOTH(test_idle_evictor_lets_nothing_pass),
		BOTH(test_fault_takes_an_eviction_over),
		BOTH(test_pin_ends_an_eviction),
		BOTH(test_discards_read_as_zeros),
		BOTH(test_api_discard),
		BOTH(test_api_discard_refuses_pinned),
		BOTH(test_discard_meets_an_eviction),
		BOTH(test_failed_discard_keeps_content),
		BOTH(test_unaligned_punch_clears_the_edges),
		BOTH(test_dontneed_on_shared_keeps_content),
		BOTH(test_zero_page_from_a_foreign_touch_is_overwritten),
		BOTH(test_direct_io_into_private_pages_is_not_lost),
		BOTH(test_full_store_keeps_pages_resident),
		BOTH(test_unreadable_page_raises_an_error),
		BOTH(test_unreadable_page_without_poison),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
