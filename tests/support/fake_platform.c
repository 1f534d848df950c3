/* SPDX-License-Identifier: BSD-2-Clause */
/* The platform for tests; see fake_platform.h. */
#include <limits.h>

#include "support/fake_platform.h"
#include "support/testing.h"

#define TABLE_BYTES 4096

struct fake_block {
	struct fake_block *next;
	void *mem;
	size_t bytes;
};

/* Read sections nest, each thread's on its own. */
static __thread unsigned int read_depth;

static const struct mv_platform *real(void)
{
	return mv_platform_linux();
}

static bool may_allocate(struct fake_platform *fake)
{
	unsigned long number = ++fake->allocations;

	if (number != fake->fail_at && number <= fake->fail_after)
		return true;
	fake->failures++;
	return false;
}

static struct fake_block **list_of(struct fake_platform *fake, const void *mem)
{
	return &fake->blocks[((uintptr_t)mem >> 12 ^ (uintptr_t)mem >> 6) % FAKE_BLOCK_LISTS];
}

static void record(struct fake_platform *fake, void *mem, size_t bytes)
{
	struct fake_block *block = malloc(sizeof(*block)), **list = list_of(fake, mem);

	insist(block);
	*block = (struct fake_block){ .next = *list, .mem = mem, .bytes = bytes };
	*list = block;
	fake->live++;
}

static void *fake_alloc(void *ctx, size_t bytes, int node)
{
	struct fake_platform *fake = ctx;
	void *mem = NULL;

	insist(read_depth == 0);
	pthread_mutex_lock(&fake->lock);
	if (may_allocate(fake))
		mem = real()->ops->alloc(real()->ctx, bytes, node);
	if (mem)
		record(fake, mem, bytes);
	pthread_mutex_unlock(&fake->lock);
	return mem;
}

static void forget(struct fake_platform *fake, void *mem, size_t bytes)
{
	struct fake_block **place = list_of(fake, mem), *block;

	while (*place && (*place)->mem != mem)
		place = &(*place)->next;
	block = *place;
	insist(block);
	insist(block->bytes == bytes);
	*place = block->next;
	free(block);
	fake->live--;
}

static void fake_free(void *ctx, void *mem, size_t bytes)
{
	struct fake_platform *fake = ctx;

	if (!mem)
		return;
	pthread_mutex_lock(&fake->lock);
	forget(fake, mem, bytes);
	pthread_mutex_unlock(&fake->lock);
	memset(mem, 0xdb, bytes); /* whoever still reads it shall notice */
	real()->ops->free(real()->ctx, mem, bytes);
}

static void *fake_table_alloc(void *ctx, int node)
{
	struct fake_platform *fake = ctx;
	void *page = NULL;

	insist(read_depth == 0);
	pthread_mutex_lock(&fake->lock);
	if (may_allocate(fake))
		page = real()->ops->table_alloc(real()->ctx, node);
	if (page) {
		record(fake, page, TABLE_BYTES);
		fake->table_pages++;
		memset(page, 0xa5, TABLE_BYTES);
	}
	pthread_mutex_unlock(&fake->lock);
	return page;
}

static void fake_table_free(void *ctx, void *page)
{
	struct fake_platform *fake = ctx;

	pthread_mutex_lock(&fake->lock);
	forget(fake, page, TABLE_BYTES);
	fake->table_pages--;
	pthread_mutex_unlock(&fake->lock);
	memset(page, 0xdb, TABLE_BYTES);
	real()->ops->table_free(real()->ctx, page);
}

static void fake_read_enter(void *ctx)
{
	read_depth++;
	real()->ops->read_enter(real()->ctx);
}

static void fake_read_leave(void *ctx)
{
	insist(read_depth > 0);
	read_depth--;
	real()->ops->read_leave(real()->ctx);
}

static void fake_wait_readers(void *ctx)
{
	struct fake_platform *fake = ctx;

	insist(read_depth == 0);
	__atomic_fetch_add(&fake->waits, 1, __ATOMIC_RELAXED);
	real()->ops->wait_readers(real()->ctx);
}

static void fake_relax(void *ctx, unsigned int turns)
{
	insist(read_depth == 0);
	real()->ops->relax(real()->ctx, turns);
}

static const struct mv_platform_ops fake_ops = {
	.alloc = fake_alloc,
	.free = fake_free,
	.read_enter = fake_read_enter,
	.read_leave = fake_read_leave,
	.wait_readers = fake_wait_readers,
	.relax = fake_relax,
	.table_alloc = fake_table_alloc,
	.table_free = fake_table_free,
};

void fake_platform_init(struct fake_platform *fake)
{
	*fake = (struct fake_platform){
		.platform = { .ops = &fake_ops, .ctx = fake },
		.fail_after = ULONG_MAX,
		.lock = PTHREAD_MUTEX_INITIALIZER,
	};
}

void fake_platform_finish(struct fake_platform *fake)
{
	assert_int_equal(fake->live, 0);
	for (int i = 0; i < FAKE_BLOCK_LISTS; i++)
		assert_null(fake->blocks[i]);
	pthread_mutex_destroy(&fake->lock);
}
