/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Cleaning of the RAM store's log: what is alive moves out of segments where much is dead, and
 * they are given back.
 *
 *   choose victims -> copy what is alive, exchange its index word -> wait for readers ->
 *   give back those of which every byte is dead by now
 *
 * The last step is what makes it safe: whatever went wrong on the way, a segment with a byte
 * that someone may need is not dead in every byte. An object is alive where its key's index
 * word names its place; no word names the inside of an object, so even a walk that is led
 * astray by a broken header moves nothing that it should not.
 *
 * One thread cleans at a time; puts, gets and drops go on meanwhile.
 */
#include "ram_store.h"

#include <errno.h>
#include <string.h>

/* Segments looked at for one choice, so that a piece of cleaning stays bounded. */
#define LOOK_MAX 4096

/* Victims of one piece: those with something alive, and those without. */
#define ALIVE_MAX 8
#define EMPTY_MAX 32

/* A victim must have this part of its bytes dead to be worth the copying. */
#define WORTH_DIVISOR 128

struct victim {
	uint32_t segment;
	uint64_t worth;
};

/* Those with something alive are sorted, the one most worth it first. */
struct victims {
	unsigned int wanted; /* of those with something alive */
	unsigned int count;
	unsigned int empties;
	struct victim alive[ALIVE_MAX];
	uint32_t empty[EMPTY_MAX];
};

static uint64_t in_use_bytes(const struct ram_log *log)
{
	return (uint64_t)__atomic_load_n(&log->in_use, __ATOMIC_RELAXED) << RAM_SEGMENT_SHIFT;
}

/* Near the limit a quarter of the slack must do: better to copy more than to be full. */
static bool is_pressed(const struct ram_log *log)
{
	uint64_t memory = __atomic_load_n(&log->memory, __ATOMIC_RELAXED);

	return log->limit - memory < 2 * RAM_SEGMENT_BYTES;
}

/* Bytes that may lie dead before cleaning sets in. */
static uint64_t slack(const struct ram_store *rs)
{
	uint64_t bytes = in_use_bytes(&rs->log) / 100 * rs->slack_percent;

	if (is_pressed(&rs->log))
		bytes /= 4;
	/* With less than one segment dead there is none to gain. */
	return bytes < RAM_SEGMENT_BYTES ? RAM_SEGMENT_BYTES : bytes;
}

static bool wants_cleaning(const struct ram_store *rs)
{
	return RAM_SUM(rs, dead) > slack(rs);
}

/* Segments cleaned in one piece, that is in one grace period. */
static unsigned int piece(const struct ram_log *log)
{
	unsigned int segments = __atomic_load_n(&log->in_use, __ATOMIC_RELAXED) / 256;

	return segments < 1 ? 1 : segments > ALIVE_MAX ? ALIVE_MAX : segments;
}

/*
 * Empty segments worth keeping: what the next piece will fill, or what is left of the slack,
 * since puts will take as much from them as drops add to what is dead. To give memory back and
 * to get it again costs as much as to compress a dozen pages.
 */
static uint32_t spares(const struct ram_store *rs)
{
	uint64_t dead = RAM_SUM(rs, dead), allowed = slack(rs);
	uint64_t left = dead < allowed ? (allowed - dead) >> RAM_SEGMENT_SHIFT : 0;

	/* And two, or what is just too much is given back and taken again for ever. */
	return left + 2 > piece(&rs->log) ? (uint32_t)left + 2 : piece(&rs->log);
}

/* --- choosing ---------------------------------------------------------------------------- */

static void insert(struct victims *victims, struct victim victim)
{
	unsigned int at = victims->count;

	if (at == victims->wanted && victims->alive[--at].worth >= victim.worth)
		return;
	for (; at > 0 && victims->alive[at - 1].worth < victim.worth; at--)
		victims->alive[at] = victims->alive[at - 1];
	victims->alive[at] = victim;
	if (victims->count < victims->wanted)
		victims->count++;
}

/*
 * What is gained, times how long it will last, by what it costs: to read the segment and to
 * write what is alive (Rosenblum and Ousterhout's rule for a log-structured file system). A
 * young segment is likely to empty further by itself, so it waits; an old one, once cleaned,
 * stays clean. Where a tenth of the pages gets nine tenths of the drops, this copies a third
 * less than to take the emptiest.
 */
static uint64_t worth(const struct ram_log *log, const struct ram_segment *segment, uint32_t dead)
{
	uint64_t age = __atomic_load_n(&log->seals, __ATOMIC_RELAXED) - segment->sealed_as + 1;

	return (age * dead << 8) / (2 * (uint64_t)segment->filled - dead);
}

static void consider(const struct ram_log *log, uint32_t number, struct victims *victims)
{
	const struct ram_segment *segment = &log->segments[number];
	uint32_t state = __atomic_load_n(&segment->state, __ATOMIC_ACQUIRE);

	if (state != RAM_SEGMENT_SEALED && state != RAM_SEGMENT_DAMAGED)
		return;

	uint32_t dead = __atomic_load_n(&segment->dead, __ATOMIC_ACQUIRE);

	if (dead == segment->filled) {
		if (victims->empties < EMPTY_MAX)
			victims->empty[victims->empties++] = number;
	} else if (state == RAM_SEGMENT_SEALED && segment->sealed_at < log->graces_done &&
		   dead >= segment->filled / WORTH_DIVISOR) {
		insert(victims, (struct victim){ number, worth(log, segment, dead) });
	}
}

/* In a big store each piece looks at the next part of it. */
static void choose(struct ram_store *rs, struct victims *victims)
{
	struct ram_log *log = &rs->log;
	uint32_t used = __atomic_load_n(&log->fresh, __ATOMIC_RELAXED);
	uint32_t look = used < LOOK_MAX ? used : LOOK_MAX;

	*victims = (struct victims){ .wanted = piece(log) };
	for (uint32_t i = 0; i < look; i++) {
		if (log->clean_cursor >= used)
			log->clean_cursor = 0;
		consider(log, log->clean_cursor++, victims);
	}
}

/* --- moving ------------------------------------------------------------------------------ */

static int take_room(struct ram_log *log, uint32_t bytes, uint64_t *at)
{
	while (!mv_ram_log_take(&log->clean_head, bytes, at)) {
		int error = mv_ram_log_open(log, &log->clean_head, bytes, 0);

		if (error)
			return error;
	}
	return 0;
}

/* Copy one object, and let its key name the copy, unless it has been dropped meanwhile. */
static int move(struct ram_store *rs, const struct ram_object *object, uint64_t entry)
{
	uint32_t length = ram_entry_length(entry);
	uint64_t *word = &rs->index[ram_object_key(object)];
	uint64_t old = entry, at;
	int error = take_room(&rs->log, ram_object_bytes(length), &at);

	if (error)
		return error;
	ram_copy(ram_log_object(&rs->log, at), object, sizeof(*object) + length);
	if (__atomic_compare_exchange_n(word, &old, ram_entry(at, length), false, __ATOMIC_RELEASE,
					__ATOMIC_RELAXED)) {
		ram_bury(rs, entry);
		ram_count(&ram_stripe(rs)->moved, length);
	} else {
		ram_bury(rs, ram_entry(at, length));
	}
	return 0;
}

static bool is_alive(const struct ram_store *rs, const struct ram_object *object, uint64_t entry)
{
	uint64_t key = ram_object_key(object);

	/* Acquire: the object that the word names is seen as it was written. */
	return ram_key_usable(rs, key) &&
	       __atomic_load_n(&rs->index[key], __ATOMIC_ACQUIRE) == entry;
}

/*
 * What the walk will want of the object at an offset, one step ahead: its bytes, which are worth
 * asking for where it may be alive, and its key's word in the index.
 */
static void look_ahead(const struct ram_store *rs, uint32_t number, uint32_t offset,
		       uint32_t filled)
{
	const struct ram_object *object =
		ram_log_object(&rs->log, (uint64_t)number << 32 | offset);

	if (offset >= filled)
		return;
	if (ram_key_usable(rs, ram_object_key(object)))
		__builtin_prefetch(&rs->index[ram_object_key(object)]);
	ram_prefetch(object, ram_object_bytes(ram_object_length(object)) + sizeof(*object));
}

/*
 * Move what is alive in a segment.
 * Return: 0 at its end; -ENOSPC; -EILSEQ where the walk has been led astray.
 */
static int evacuate(struct ram_store *rs, uint32_t number)
{
	uint32_t filled = rs->log.segments[number].filled;

	for (uint32_t offset = 0; offset < filled;) {
		uint64_t at = (uint64_t)number << 32 | offset;
		const struct ram_object *object = ram_log_object(&rs->log, at);
		uint32_t length = ram_object_length(object);
		uint64_t entry = ram_entry(at, length);

		if (ram_object_bytes(length) > filled - offset)
			return -EILSEQ;
		offset += ram_object_bytes(length);
		look_ahead(rs, number, offset, filled);
		if (is_alive(rs, object, entry)) {
			int error = move(rs, object, entry);

			if (error)
				return error;
		}
	}
	return 0;
}

/* --- giving back -------------------------------------------------------------------------- */

static bool release_dead(struct ram_store *rs, uint32_t number)
{
	struct ram_segment *segment = &rs->log.segments[number];

	/* Acquire pairs with the release in ram_log_bury(). */
	if (__atomic_load_n(&segment->dead, __ATOMIC_ACQUIRE) != segment->filled)
		return false;
	ram_count(&ram_stripe(rs)->dead, -(uint64_t)segment->filled);
	mv_ram_log_release(&rs->log, number, spares(rs));
	return true;
}

/*
 * Every object was looked at, none was found alive, and yet some are: a header is broken. What
 * is whole can still be read, so the segment stays until all of it has been dropped.
 */
static void set_aside(struct ram_store *rs, uint32_t number)
{
	const struct mv_platform *platform = &rs->platform;

	__atomic_store_n(&rs->log.segments[number].state, RAM_SEGMENT_DAMAGED, __ATOMIC_RELEASE);
	if (platform->ops->log)
		platform->ops->log(platform->ctx, MV_LOG_ERROR,
				   "store: a record in memory is damaged: check the host's memory");
}

static bool choose_settled(struct ram_store *rs, struct victims *victims)
{
	choose(rs, victims);
	if (victims->count || victims->empties)
		return true;
	/* Nothing, but perhaps what was sealed since the last grace period. */
	mv_ram_log_settle(&rs->log);
	choose(rs, victims);
	return victims->count || victims->empties;
}

/* Return: true where memory was gained. */
static bool clean_piece(struct ram_store *rs)
{
	struct victims victims;
	unsigned int done = 0, released = 0;
	int error = 0;

	if (!choose_settled(rs, &victims))
		return false;
	/* Where some can be had for nothing, others may yet empty by themselves. */
	if (victims.empties)
		victims.count = 0;
	while (done < victims.count && error != -ENOSPC)
		error = evacuate(rs, victims.alive[done++].segment);
	mv_ram_log_settle(&rs->log);

	for (unsigned int i = 0; i < victims.empties; i++)
		released += release_dead(rs, victims.empty[i]);
	for (unsigned int i = 0; i < done; i++) {
		bool cut_short = error == -ENOSPC && i == done - 1;

		if (release_dead(rs, victims.alive[i].segment))
			released++;
		else if (!cut_short)
			set_aside(rs, victims.alive[i].segment);
	}
	return released;
}

int mv_ram_store_maintain(struct mv_store *store)
{
	struct ram_store *rs = (struct ram_store *)store;
	bool more = false;

	if (!wants_cleaning(rs))
		return 0;
	pthread_mutex_lock(&rs->log.clean_lock);
	/* Another thread may have done it while this one waited. */
	if (wants_cleaning(rs))
		more = clean_piece(rs) && wants_cleaning(rs);
	pthread_mutex_unlock(&rs->log.clean_lock);
	return more;
}
