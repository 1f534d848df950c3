/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The store in compressed host memory: its operations on keys. How a store comes into
 * being is in ram_setup.c, how its log gets its segments in ram_log.c, how that is cleaned in
 * ram_clean.c.
 *
 * A page may change while it is put. So it is compared and copied where it is, by functions
 * that stay within their bounds whatever they read, and compressed from the copy: LZ4 trusts
 * that a match it has found still is one, and with a page that changed between its two looks
 * it writes offsets that point ahead, and may read past the end. (Seen: one page in a few
 * thousand under a busy writer does not decompress.)
 */
#include "ram_store.h"

#include <errno.h>
#include <lz4.h>
#include <string.h>
#include <sys/mman.h>
#include <xxh_x86dispatch.h>

#include "same_fill.h"

/* Content is kept compressed where that saves at least 1/64 of the page. */
#define PACKED_MAX (MV_PAGE_SIZE - MV_PAGE_SIZE / 64)

/* See looks_random(). */
#define SAMPLES	       128u
#define SAMPLE_STRIDE  31u
#define REPEATS_MAX    35u
/* LZ4's acceleration there: long repetitions are found still, and what there is none in, sooner. */
#define HASTE	       16

#define SCRATCH_ALIGN 64UL

/*
 * What a thread needs to compress; lies in the caller's scratch, aligned. The page lies a page
 * and a line behind what is written: were it a page exactly, or a little less, each load would
 * seem to the processor to depend on a store, and incompressible pages would take twice as long.
 */
struct scratch {
	LZ4_stream_t lz4;
	char packed[MV_PAGE_SIZE + 64];
	char page[MV_PAGE_SIZE];
};

/* What is to be kept of a page. */
struct content {
	const void *data;
	uint32_t length;
};

static struct ram_store *ram_store_of(struct mv_store *store)
{
	return (struct ram_store *)store;
}

/*
 * 32 bits of XXH3, by the variant that picks the processor's widest vectors: it takes a
 * quarter of the time of the baseline. Key and length go in by one multiplication, because
 * XXH3's own seed costs the derivation of a secret on each call.
 */
static uint32_t checksum(const struct ram_object *object, uint32_t length)
{
	uint64_t name = (uint64_t)object->key_and_length << 32 | object->key_low;
	uint64_t hash = XXH3_64bits_dispatch(object->payload, length);

	hash ^= (name + 1) * 0x9e3779b97f4a7c15ULL;
	return (uint32_t)(hash * 0xd6e8feb86659fd93ULL >> 32);
}

/* --- the index -------------------------------------------------------------------------- */

/* A word that the index can hold as it is; see ram_store.h. */
static bool entry_of_word(uint64_t word, uint64_t *entry)
{
	if ((int64_t)(word << RAM_ENTRY_KIND_BITS) >> RAM_ENTRY_KIND_BITS == (int64_t)word)
		*entry = word << RAM_ENTRY_KIND_BITS | RAM_ENTRY_WORD;
	else if (word >> 32 == (uint32_t)word)
		*entry = word >> 32 << RAM_ENTRY_KIND_BITS | RAM_ENTRY_HALVES;
	else
		return false;
	return true;
}

static uint64_t word_of_entry(uint64_t entry)
{
	uint64_t half = (uint32_t)(entry >> RAM_ENTRY_KIND_BITS);

	return (entry & RAM_ENTRY_KIND) == RAM_ENTRY_HALVES
		       ? half << 32 | half
		       : (uint64_t)((int64_t)entry >> RAM_ENTRY_KIND_BITS);
}

/* Was the page of a key kept as one word, wherever that word is? */
static bool entry_is_same(uint64_t entry)
{
	return (entry & RAM_ENTRY_KIND) != RAM_ENTRY_OBJECT ||
	       ram_entry_length(entry) == RAM_LENGTH_WORD;
}

static bool entry_is_raw(uint64_t entry)
{
	return (entry & RAM_ENTRY_KIND) == RAM_ENTRY_OBJECT &&
	       ram_entry_length(entry) == RAM_LENGTH_RAW;
}

static uint32_t entry_content(uint64_t entry)
{
	return (entry & RAM_ENTRY_KIND) == RAM_ENTRY_OBJECT ? ram_entry_length(entry) : 0;
}

/* See to it that the key's word has memory, and that this memory is charged. */
static int populate_key(struct ram_store *rs, uint64_t key)
{
	uint64_t page = key / RAM_ENTRIES_PER_PAGE;
	unsigned char no = 0;

	if (ram_key_usable(rs, key))
		return 0;
	if (mv_ram_log_charge(&rs->log, MV_PAGE_SIZE))
		return -ENOSPC;
	if (madvise((char *)rs->index + page * MV_PAGE_SIZE, MV_PAGE_SIZE, MADV_POPULATE_WRITE)) {
		mv_ram_log_uncharge(&rs->log, MV_PAGE_SIZE);
		return -ENOSPC;
	}
	/* Another thread may have been first; then it has paid. */
	if (!__atomic_compare_exchange_n(&rs->populated[page], &no, 1, false, __ATOMIC_RELEASE,
					 __ATOMIC_RELAXED))
		mv_ram_log_uncharge(&rs->log, MV_PAGE_SIZE);
	return 0;
}

/* Name the key's content. Release: who finds the entry finds the object complete. */
static int publish(struct ram_store *rs, uint64_t key, uint64_t entry)
{
	uint64_t free = RAM_ENTRY_FREE;
	struct ram_stripe *stripe = ram_stripe(rs);

	if (!__atomic_compare_exchange_n(&rs->index[key], &free, entry, false, __ATOMIC_RELEASE,
					 __ATOMIC_RELAXED))
		return -EEXIST;
	ram_count(&stripe->puts, 1);
	if (entry_content(entry))
		ram_count(&stripe->content, entry_content(entry));
	if (entry_is_same(entry))
		ram_count(&stripe->same_filled, 1);
	if (entry_is_raw(entry))
		ram_count(&stripe->incompressible, 1);
	return 0;
}

/* --- put -------------------------------------------------------------------------------- */

static struct scratch *align_scratch(void *scratch)
{
	return (void *)(((uintptr_t)scratch + SCRATCH_ALIGN - 1) & ~(SCRATCH_ALIGN - 1));
}

/*
 * Whether a page looks like random, encrypted or compressed content, by bytes spread over it and
 * over the places in a word: of random ones 27 +- 4 in 128 have occurred before, of others as
 * many within the first few dozen. With a quarter of something else a page is not taken for it.
 */
static bool looks_random(const char *page)
{
	unsigned char seen[256] = { 0 };
	unsigned int repeats = 0;

	for (unsigned int i = 0; i < SAMPLES && repeats <= REPEATS_MAX; i++) {
		unsigned char *sample = &seen[(unsigned char)page[i * SAMPLE_STRIDE]];

		repeats += *sample;
		*sample = 1;
	}
	return repeats <= REPEATS_MAX;
}

static struct content pack(struct ram_store *rs, const void *page, struct scratch *scratch)
{
	uint64_t head = __atomic_load_n(&rs->log.put_head, __ATOMIC_RELAXED);

	ram_copy(scratch->page, page, MV_PAGE_SIZE);
	/* Where the object will lie: it comes while LZ4 works. Another thread may take it first. */
	if (ram_head_has_room(head, MV_PAGE_SIZE))
		ram_prefetch(ram_log_object(&rs->log, head), MV_PAGE_SIZE);

	int length = LZ4_compress_fast_extState(&scratch->lz4, scratch->page, scratch->packed,
						MV_PAGE_SIZE, PACKED_MAX,
						looks_random(scratch->page) ? HASTE : 1);

	return length > 0 ? (struct content){ scratch->packed, (uint32_t)length }
			  : (struct content){ scratch->page, RAM_LENGTH_RAW };
}

static int append(struct ram_store *rs, uint64_t key, struct content content)
{
	uint32_t bytes = ram_object_bytes(content.length);
	const struct mv_platform *platform = &rs->platform;
	struct ram_log *log = &rs->log;
	uint64_t at;

	for (;;) {
		platform->ops->read_enter(platform->ctx);
		if (mv_ram_log_take(&log->put_head, bytes, &at))
			break;
		platform->ops->read_leave(platform->ctx);

		int error = mv_ram_log_open(log, &log->put_head, bytes, RAM_LOG_RESERVE);

		if (error)
			return error;
	}

	struct ram_object *object = ram_log_object(log, at);

	ram_object_set(object, key, content.length);
	ram_copy(object->payload, content.data, content.length);
	object->checksum = checksum(object, content.length);

	int error = publish(rs, key, ram_entry(at, content.length));

	if (error)
		ram_bury(rs, ram_entry(at, content.length));
	platform->ops->read_leave(platform->ctx);
	return error;
}

static int keep(struct ram_store *rs, uint64_t key, const void *page, void *scratch)
{
	uint64_t word, entry;

	ram_prefetch(page, MV_PAGE_SIZE);

	int error = populate_key(rs, key);

	if (error)
		return error;
	__builtin_prefetch(&rs->index[key], 1);
	if (!mv_same_filled(page, &word))
		return append(rs, key, pack(rs, page, align_scratch(scratch)));
	if (!entry_of_word(word, &entry))
		return append(rs, key, (struct content){ &word, RAM_LENGTH_WORD });
	return publish(rs, key, entry);
}

static int ram_store_put(struct mv_store *store, uint64_t key, const void *page, void *scratch)
{
	struct ram_store *rs = ram_store_of(store);
	int error = key < rs->keys ? keep(rs, key, page, scratch) : -EINVAL;

	if (error == -ENOSPC)
		ram_count(&rs->full, 1);
	return error;
}

/* --- get and drop ----------------------------------------------------------------------- */

static int unpack(const struct ram_object *object, uint32_t length, void *page)
{
	uint64_t word;

	switch (length) {
	case RAM_LENGTH_RAW:
		ram_copy(page, object->payload, MV_PAGE_SIZE);
		return 0;
	case RAM_LENGTH_WORD:
		memcpy(&word, object->payload, sizeof(word));
		mv_same_fill(page, word);
		return 0;
	default:
		return LZ4_decompress_safe((const char *)object->payload, page, (int)length,
					   MV_PAGE_SIZE) == MV_PAGE_SIZE
			       ? 0
			       : -EILSEQ;
	}
}

/*
 * The object is fetched from memory all at once, unpacked, which is safe whatever it holds,
 * and then verified: in this order the checksum finds it in the cache.
 *
 * Context: inside a read section, from before the entry was read.
 */
static int open_object(struct ram_store *rs, uint64_t key, uint64_t entry, void *page)
{
	const struct ram_object *object = ram_entry_object(&rs->log, entry);
	uint32_t length = ram_entry_length(entry);

	ram_prefetch(object, ram_object_bytes(length));
	int error = unpack(object, length, page);

	if (ram_object_key(object) != key || ram_object_length(object) != length ||
	    object->checksum != checksum(object, length))
		return -EILSEQ;
	return error;
}

static int fetch(struct ram_store *rs, uint64_t key, void *page)
{
	uint64_t entry = __atomic_load_n(&rs->index[key], __ATOMIC_ACQUIRE);

	if (entry == RAM_ENTRY_FREE)
		return -ENOENT;
	if ((entry & RAM_ENTRY_KIND) == RAM_ENTRY_OBJECT)
		return open_object(rs, key, entry, page);
	mv_same_fill(page, word_of_entry(entry));
	return 0;
}

static int ram_store_get(struct mv_store *store, uint64_t key, void *page)
{
	struct ram_store *rs = ram_store_of(store);
	const struct mv_platform *platform = &rs->platform;

	if (!ram_key_usable(rs, key))
		return -ENOENT;

	platform->ops->read_enter(platform->ctx);
	int error = fetch(rs, key, page);
	platform->ops->read_leave(platform->ctx);

	if (error == -EILSEQ)
		ram_count(&rs->corrupt, 1);
	else if (!error)
		ram_count(&ram_stripe(rs)->gets, 1);
	return error;
}

static void ram_store_drop(struct mv_store *store, uint64_t key)
{
	struct ram_store *rs = ram_store_of(store);
	const struct mv_platform *platform = &rs->platform;
	struct ram_stripe *stripe = ram_stripe(rs);

	if (!ram_key_usable(rs, key))
		return;

	/* In a read section, so that cleaning finds the segment's dead bytes complete. */
	platform->ops->read_enter(platform->ctx);
	uint64_t entry = __atomic_exchange_n(&rs->index[key], RAM_ENTRY_FREE, __ATOMIC_ACQ_REL);

	if ((entry & RAM_ENTRY_KIND) == RAM_ENTRY_OBJECT)
		ram_bury(rs, entry);
	platform->ops->read_leave(platform->ctx);

	if (entry == RAM_ENTRY_FREE)
		return;
	ram_count(&stripe->drops, 1);
	if (entry_content(entry))
		ram_count(&stripe->content, -(uint64_t)entry_content(entry));
	if (entry_is_same(entry))
		ram_count(&stripe->same_filled, -1ULL);
	if (entry_is_raw(entry))
		ram_count(&stripe->incompressible, -1ULL);
}

/* --- the rest --------------------------------------------------------------------------- */

static void ram_store_get_stats(struct mv_store *store, struct mv_store_stats *stats)
{
	struct ram_store *rs = ram_store_of(store);
	/* Drops first: what is put and dropped in between must not bring the difference below 0. */
	uint64_t drops = RAM_SUM(rs, drops);
	uint64_t puts = RAM_SUM(rs, puts);

	*stats = (struct mv_store_stats){
		.pages = puts - drops,
		.same_filled = RAM_SUM(rs, same_filled),
		.incompressible = RAM_SUM(rs, incompressible),
		.compressed_bytes = RAM_SUM(rs, content),
		.memory_bytes = __atomic_load_n(&rs->log.memory, __ATOMIC_RELAXED),
		.limit_bytes = rs->log.limit,
		.puts = puts,
		.gets = RAM_SUM(rs, gets),
		.drops = drops,
		.full = __atomic_load_n(&rs->full, __ATOMIC_RELAXED),
		.corrupt = __atomic_load_n(&rs->corrupt, __ATOMIC_RELAXED),
		.moved_bytes = RAM_SUM(rs, moved),
	};
}

const struct mv_store_ops mv_ram_store_ops = {
	.scratch_bytes = sizeof(struct scratch) + SCRATCH_ALIGN,
	.put = ram_store_put,
	.get = ram_store_get,
	.drop = ram_store_drop,
	.maintain = mv_ram_store_maintain,
	.get_stats = ram_store_get_stats,
	.destroy = mv_ram_store_destroy,
};
