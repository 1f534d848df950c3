/* SPDX-License-Identifier: BSD-2-Clause */
/* See pager_rig.h. */
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
#include <sys/stat.h>
#include <unistd.h>

#include "pager_rig.h"

const char *rig_kind_name(enum rig_kind kind)
{
	return kind == RIG_SHARED ? "memfd" : "anonymous";
}

bool rig_possible(enum rig_kind kind)
{
	unsigned int features = 0, needed = kind == RIG_SHARED ? MV_PAGER_SHMEM : MV_PAGER_MOVE;
	int error = mv_pager_probe(&features);

	if (!error && (features & needed))
		return true;
	print_message("# skip-reason: %s memory: %s\n", rig_kind_name(kind),
		      error ? strerror(-error)
			    : kind == RIG_SHARED ? "no minor faults on shared memory (Linux 5.14)"
						 : "no UFFDIO_MOVE (Linux 6.8)");
	return false;
}

/* --- the store in front --------------------------------------------------------------- */

static struct meddling_store *meddler(struct mv_store *store)
{
	return (struct meddling_store *)store;
}

static int meddling_put(struct mv_store *store, uint64_t key, const void *page, void *scratch)
{
	struct meddling_store *meddling = meddler(store);
	int error = __atomic_load_n(&meddling->put_error, __ATOMIC_ACQUIRE);

	if (error)
		return error;
	error = meddling->real->ops->put(meddling->real, key, page, scratch);
	if (key == __atomic_load_n(&meddling->pause_key, __ATOMIC_ACQUIRE)) {
		__atomic_fetch_add(&meddling->paused, 1, __ATOMIC_ACQ_REL);
		meddling->during_put(meddling->ctx);
	}
	return error;
}

static int meddling_get(struct mv_store *store, uint64_t key, void *page)
{
	struct meddling_store *meddling = meddler(store);
	int error = __atomic_load_n(&meddling->get_error, __ATOMIC_ACQUIRE);

	if (error && key == meddling->get_error_key)
		return error;
	return meddling->real->ops->get(meddling->real, key, page);
}

static void meddling_drop(struct mv_store *store, uint64_t key)
{
	meddler(store)->real->ops->drop(meddler(store)->real, key);
}

static int meddling_maintain(struct mv_store *store)
{
	return meddler(store)->real->ops->maintain(meddler(store)->real);
}

static void meddling_stats(struct mv_store *store, struct mv_store_stats *stats)
{
	meddler(store)->real->ops->get_stats(meddler(store)->real, stats);
}

static struct mv_store_ops meddling_ops = {
	.put = meddling_put,
	.get = meddling_get,
	.drop = meddling_drop,
	.maintain = meddling_maintain,
	.get_stats = meddling_stats,
};

static void open_store(struct pager_rig *rig)
{
	struct mv_ram_store_config config = {
		.size = sizeof(config),
		.keys = rig->pages,
		.limit_bytes = UINT64_MAX,
	};

	assert_int_equal(mv_ram_store_create(&config, &rig->store.real), 0);
	meddling_ops.scratch_bytes = rig->store.real->ops->scratch_bytes;
	rig->store.store.ops = &meddling_ops;
	rig->store.pause_key = RIG_NO_KEY;
}

/* --- the rig -------------------------------------------------------------------------- */

static void map_region(struct pager_rig *rig)
{
	uint64_t bytes = rig->pages * MV_PAGE_SIZE;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;

	rig->fd = -1;
	if (rig->kind == RIG_SHARED) {
		rig->fd = memfd_create("guest", MFD_CLOEXEC);
		assert_true(rig->fd >= 0);
		assert_int_equal(ftruncate(rig->fd, (off_t)bytes), 0);
		flags = MAP_SHARED;
	}
	rig->mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, rig->fd, 0);
	assert_ptr_not_equal(rig->mem, MAP_FAILED);
}

void rig_open(struct pager_rig *rig, enum rig_kind kind, uint64_t pages, uint64_t limit)
{
	*rig = (struct pager_rig){ .kind = kind, .pages = pages };
	map_region(rig);
	open_store(rig);
	struct mv_memory_config memory = { .size = sizeof(memory) };
	struct mv_region_config region = {
		.size = sizeof(region),
		.first_gpa = RIG_GPA,
		.last_gpa = RIG_GPA + pages * MV_PAGE_SIZE - 1,
		.hva = rig->mem,
		.fd = rig->fd,
	};

	assert_int_equal(mv_memory_create(&memory, &rig->memory), 0);
	assert_int_equal(mv_memory_add_region(rig->memory, &region), 0);
	struct mv_pager_config config = {
		.size = sizeof(config),
		.memory = rig->memory,
		.store = &rig->store.store,
		.store_keys = pages,
		.limit_bytes = limit,
	};

	assert_int_equal(mv_pager_create(&config, &rig->pager), 0);
}

static void *handle(void *ctx)
{
	return (void *)(intptr_t)mv_pager_handle_faults(ctx);
}

static void *evict(void *ctx)
{
	return (void *)(intptr_t)mv_pager_evict(ctx);
}

void rig_start(struct pager_rig *rig, unsigned int evictors)
{
	assert_int_equal(pthread_create(&rig->handler, NULL, handle, rig->pager), 0);
	rig->handling = true;
	for (unsigned int i = 0; i < evictors; i++)
		assert_int_equal(pthread_create(&rig->evictors[i], NULL, evict, rig->pager), 0);
	rig->evictor_count = evictors;
}

void rig_close(struct pager_rig *rig)
{
	struct mv_store_stats stats;
	void *result;

	mv_pager_detach(rig->pager, RIG_GPA);
	mv_pager_stop(rig->pager);
	if (rig->handling) {
		pthread_join(rig->handler, &result);
		assert_null(result);
	}
	for (unsigned int i = 0; i < rig->evictor_count; i++) {
		pthread_join(rig->evictors[i], &result);
		assert_null(result);
	}
	rig->store.real->ops->get_stats(rig->store.real, &stats);
	assert_int_equal(stats.pages, 0);
	mv_pager_destroy(rig->pager);
	assert_int_equal(mv_memory_remove_region(rig->memory, RIG_GPA), 0);
	mv_memory_destroy(rig->memory);
	mv_store_destroy(rig->store.real);
	munmap(rig->mem, rig->pages * MV_PAGE_SIZE);
	if (rig->fd >= 0)
		close(rig->fd);
}

/* --- content -------------------------------------------------------------------------- */

static uint64_t word_of(uint64_t number, uint64_t generation, uint64_t index)
{
	uint64_t tag = (number + 1) * 0x9e3779b97f4a7c15ULL ^ generation * 0xbf58476d1ce4e5b9ULL;

	/* A mix of pages: same-filled, compressible, not compressible. */
	switch (number % 10) {
	case 0:
		return tag;
	case 1:
	case 2:
		tag = (tag ^ index * 0x94d049bb133111ebULL) * 0xd6e8feb86659fd93ULL;
		return tag ^ tag >> 29;
	default:
		return index % 4 ? tag : tag + index;
	}
}

void rig_fill_page(unsigned char *page, uint64_t number, uint64_t generation)
{
	uint64_t *words = (uint64_t *)page;

	for (uint64_t i = 0; i < MV_PAGE_SIZE / 8; i++)
		words[i] = word_of(number, generation, i);
}

bool rig_check_page(const unsigned char *page, uint64_t number, uint64_t generation)
{
	const uint64_t *words = (const uint64_t *)page;

	for (uint64_t i = 0; i < MV_PAGE_SIZE / 8; i++)
		if (words[i] != word_of(number, generation, i))
			return false;
	return true;
}

bool rig_page_is_zero(const unsigned char *page)
{
	return page[0] == 0 && !memcmp(page, page + 1, MV_PAGE_SIZE - 1);
}

void rig_fill(struct pager_rig *rig)
{
	for (uint64_t i = 0; i < rig->pages; i++)
		rig_fill_page(rig_page(rig, i), i, 0);
}

uint64_t rig_check(struct pager_rig *rig)
{
	uint64_t wrong = 0;

	for (uint64_t i = 0; i < rig->pages; i++)
		wrong += !rig_check_page(rig_page(rig, i), i, 0);
	return wrong;
}

/* --- looking -------------------------------------------------------------------------- */

struct mv_pager_stats rig_stats(struct pager_rig *rig)
{
	struct mv_pager_stats stats;

	mv_pager_get_stats(rig->pager, &stats);
	return stats;
}

uint64_t rig_resident(struct pager_rig *rig)
{
	return rig_stats(rig).resident_bytes;
}

/* Present pages of an anonymous range, by pagemap. */
static uint64_t count_present(const unsigned char *mem, uint64_t pages)
{
	int fd = open("/proc/self/pagemap", O_RDONLY);
	uint64_t entry, count = 0;

	assert_true(fd >= 0);
	for (uint64_t i = 0; i < pages; i++) {
		off_t at = (off_t)((uintptr_t)mem / MV_PAGE_SIZE + i) * 8;

		assert_int_equal(pread(fd, &entry, 8, at), 8);
		count += entry >> 63;
	}
	close(fd);
	return count;
}

uint64_t rig_allocated(struct pager_rig *rig)
{
	struct stat stat;

	if (rig->kind == RIG_PRIVATE)
		return count_present(rig->mem, rig->pages) * MV_PAGE_SIZE;
	assert_int_equal(fstat(rig->fd, &stat), 0);
	return (uint64_t)stat.st_blocks * 512;
}

enum mv_page_state rig_state(struct pager_rig *rig, uint64_t page)
{
	enum mv_page_state state;

	assert_int_equal(mv_memory_page_state(rig->memory, RIG_GPA + page * MV_PAGE_SIZE, &state), 0);
	return state;
}

enum rig_kind rig_kind_of(void **state)
{
	enum rig_kind kind = (enum rig_kind)(intptr_t)*state;

	if (!rig_possible(kind))
		skip();
	return kind;
}

void rig_open_full(struct pager_rig *rig, enum rig_kind kind, uint64_t pages, uint64_t limit)
{
	rig_open(rig, kind, pages, limit);
	rig_start(rig, 1);
	assert_int_equal(mv_pager_attach(rig->pager, RIG_GPA), 0);
	rig_fill(rig);
	rig_wait(rig_resident(rig) <= limit);
}

uint64_t rig_find_page(struct pager_rig *rig, enum mv_page_state state)
{
	for (uint64_t page = 0; page < rig->pages; page++)
		if (rig_state(rig, page) == state)
			return page;
	fail_msg("no page in state %d", state);
	return 0;
}
