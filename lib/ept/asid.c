/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * VPIDs and ASIDs: tags per processor, in generations, and the handshake between entries and
 * flushes. Intel SDM vol. 3, 29.4; AMD APM vol. 2, 15.15 and 15.16.
 *
 * Freestanding. What does not belong here: the instructions that flush, and the kick.
 *
 * Entry and flush must not miss each other, and neither takes a lock that the other wants:
 *
 *	entry                               flush, under space->lock
 *	cpu->running = space                space->sequence + 1
 *	set the cpu's bit in space->ran     take the bits out of space->ran
 *	look at space->sequence             look at cpu->running; put the bit back where it is
 *
 * all of it sequentially consistent. An entry that looked at the sequence before it was raised
 * stored cpu->running and saw or set its bit before that, so the flush finds both. One that
 * looked after has seen the flush, and flushes itself.
 */
#include <errno.h>
#include <stdbool.h>

#include <memvirt/asid.h>

#include "../region.h"

#define WORD_BITS 64

/**
 * struct asid_cpu - one processor
 * @running:    the space it is in, or NULL; atomic, written by the processor alone
 * @generation: of its tags, from 1; its own
 * @next:       tag to hand out next; its own
 */
struct asid_cpu {
	struct mv_asid_space *running;
	uint64_t generation;
	uint32_t next;
} __attribute__((aligned(64)));

struct mv_asids {
	/* Constant. */
	struct mv_platform platform;
	enum mv_asid_kind kind;
	unsigned int cpus;
	unsigned int words;
	uint32_t first_tag;
	uint32_t last_tag;
	void (*kick)(void *ctx, const uint64_t *cpus, unsigned int words);
	void *ctx;

	struct asid_cpu cpu[];
};

/**
 * struct mv_asid_space - what is flushed together
 * @asids:    constant
 * @sequence: flushes asked for, from 1; atomic
 * @seen:     by processor: the sequence at its last entry; atomic, written by the processor alone
 * @ran:      bitmap: processors that may have entered since they were last found outside; atomic
 * @lock:     serialises flushes; protects @done and @kicked
 * @done:     the highest sequence whose flush is complete
 * @kicked:   bitmap for one round
 */
struct mv_asid_space {
	struct mv_asids *asids;
	uint64_t *seen;
	uint64_t *ran;
	uint64_t *kicked;
	uint64_t sequence __attribute__((aligned(64)));
	unsigned int lock __attribute__((aligned(64)));
	uint64_t done;
};

/* --- making and freeing ------------------------------------------------------------------ */

static size_t asids_bytes(unsigned int cpus)
{
	return sizeof(struct mv_asids) + (size_t)cpus * sizeof(struct asid_cpu);
}

static bool config_valid(const struct mv_asids_config *config)
{
	return config && config->size == sizeof(*config) && config->cpus && config->kick &&
	       config->first_tag && config->first_tag <= config->last_tag &&
	       config->last_tag < UINT32_MAX &&
	       (unsigned int)config->kind <= MV_ASID_AMD_FLUSH_BY_ASID;
}

int mv_asids_create(const struct mv_asids_config *config, struct mv_asids **asids)
{
	const struct mv_platform *platform;
	struct mv_asids *made;

	if (!config_valid(config))
		return -EINVAL;
	platform = config->platform ? config->platform : mv_platform_default();
	if (!platform)
		return -EINVAL;
	made = platform->ops->alloc(platform->ctx, asids_bytes(config->cpus), -1);
	if (!made)
		return -ENOMEM;
	made->platform = *platform;
	made->kind = config->kind;
	made->cpus = config->cpus;
	made->words = (config->cpus + WORD_BITS - 1) / WORD_BITS;
	made->first_tag = config->first_tag;
	made->last_tag = config->last_tag;
	made->kick = config->kick;
	made->ctx = config->ctx;
	for (unsigned int cpu = 0; cpu < made->cpus; cpu++) {
		made->cpu[cpu].generation = 1;
		made->cpu[cpu].next = made->first_tag;
	}
	*asids = made;
	return 0;
}

void mv_asids_destroy(struct mv_asids *asids)
{
	struct mv_platform platform;

	if (!asids)
		return;
	platform = asids->platform;
	platform.ops->free(platform.ctx, asids, asids_bytes(asids->cpus));
}

static size_t space_bytes(const struct mv_asids *asids)
{
	return sizeof(struct mv_asid_space) +
	       (asids->cpus + 2 * (size_t)asids->words) * sizeof(uint64_t);
}

int mv_asid_space_create(struct mv_asids *asids, struct mv_asid_space **space)
{
	const struct mv_platform *platform = &asids->platform;
	struct mv_asid_space *made = platform->ops->alloc(platform->ctx, space_bytes(asids), -1);

	if (!made)
		return -ENOMEM;
	made->asids = asids;
	made->seen = (uint64_t *)(made + 1);
	made->ran = made->seen + asids->cpus;
	made->kicked = made->ran + asids->words;
	made->sequence = 1;
	*space = made;
	return 0;
}

void mv_asid_space_destroy(struct mv_asid_space *space)
{
	if (space)
		space->asids->platform.ops->free(space->asids->platform.ctx, space,
						 space_bytes(space->asids));
}

/* --- entry and exit ---------------------------------------------------------------------- */

static uint64_t cpu_bit(unsigned int cpu)
{
	return 1ULL << (cpu % WORD_BITS);
}

/* True where this begins a new generation: tags of the one before may not be in use any more. */
static bool take_tag(const struct mv_asids *asids, struct asid_cpu *cpu,
		     struct mv_asid_context *context)
{
	bool rolled = cpu->next > asids->last_tag;

	if (rolled) {
		cpu->generation++;
		cpu->next = asids->first_tag;
	}
	context->tag = cpu->next++;
	context->generation = cpu->generation;
	return rolled;
}

static bool tag_good(const struct asid_cpu *cpu, const struct mv_asid_context *context,
		     unsigned int number)
{
	return context->cpu == number && context->generation == cpu->generation;
}

/* What @context needs where the space's sequence is @now, and this processor last saw @before. */
static enum mv_asid_flush choose_flush(struct mv_asids *asids, struct mv_asid_context *context,
				       unsigned int cpu, uint64_t before, uint64_t now)
{
	bool good = tag_good(&asids->cpu[cpu], context, cpu);
	bool stale = asids->kind == MV_ASID_VPID ? before != now : context->seen != now;

	if (good && stale && asids->kind == MV_ASID_AMD_FLUSH_BY_ASID)
		return MV_ASID_FLUSH_TAG;
	if (!good || (stale && asids->kind == MV_ASID_AMD)) {
		context->cpu = cpu;
		if (take_tag(asids, &asids->cpu[cpu], context))
			return MV_ASID_FLUSH_ALL;
	}
	return stale && asids->kind == MV_ASID_VPID ? MV_ASID_FLUSH_SPACE : MV_ASID_FLUSH_NONE;
}

void mv_asid_enter(struct mv_asid_space *space, struct mv_asid_context *context, unsigned int cpu,
		   struct mv_asid_entry *entry)
{
	struct mv_asids *asids = space->asids;
	uint64_t *ran = &space->ran[cpu / WORD_BITS];
	uint64_t before, now;

	__atomic_store_n(&asids->cpu[cpu].running, space, __ATOMIC_SEQ_CST);
	if (!(__atomic_load_n(ran, __ATOMIC_SEQ_CST) & cpu_bit(cpu)))
		__atomic_fetch_or(ran, cpu_bit(cpu), __ATOMIC_SEQ_CST);
	now = __atomic_load_n(&space->sequence, __ATOMIC_SEQ_CST);
	/* Nobody else writes it. */
	before = __atomic_load_n(&space->seen[cpu], __ATOMIC_RELAXED);
	entry->flush = choose_flush(asids, context, cpu, before, now);
	entry->tag = context->tag;
	context->seen = now;
	/* Release pairs with the acquire in wait_for_cpu(): a flush that waits may go on. */
	if (before != now)
		__atomic_store_n(&space->seen[cpu], now, __ATOMIC_RELEASE);
}

void mv_asid_exit(struct mv_asid_space *space, unsigned int cpu)
{
	/* Release pairs with the acquire in wait_for_cpu(): what the guest did is done. */
	__atomic_store_n(&space->asids->cpu[cpu].running, NULL, __ATOMIC_RELEASE);
}

void mv_asid_context_renew(struct mv_asid_context *context)
{
	context->generation = 0;
}

/* --- flush ------------------------------------------------------------------------------- */

static bool cpu_stale(const struct mv_asid_space *space, unsigned int cpu, uint64_t sequence)
{
	return __atomic_load_n(&space->asids->cpu[cpu].running, __ATOMIC_SEQ_CST) == space &&
	       __atomic_load_n(&space->seen[cpu], __ATOMIC_ACQUIRE) < sequence;
}

static void wait_for_cpu(const struct mv_asid_space *space, unsigned int cpu, uint64_t sequence)
{
	const struct mv_platform *platform = &space->asids->platform;

	for (unsigned int turns = 0; cpu_stale(space, cpu, sequence);)
		platform->ops->relax(platform->ctx, turns++);
}

/*
 * Under space->lock. Of the processors of one word: those in the space stay in @ran, and those
 * of them that are stale are the result.
 */
static uint64_t find_stale(struct mv_asid_space *space, unsigned int word, uint64_t sequence)
{
	uint64_t bits = 0, stale = 0, inside = 0;

	if (__atomic_load_n(&space->ran[word], __ATOMIC_SEQ_CST))
		bits = __atomic_exchange_n(&space->ran[word], 0, __ATOMIC_SEQ_CST);
	for (; bits; bits &= bits - 1) {
		unsigned int cpu = word * WORD_BITS + (unsigned int)__builtin_ctzll(bits);

		if (__atomic_load_n(&space->asids->cpu[cpu].running, __ATOMIC_SEQ_CST) != space)
			continue;
		inside |= cpu_bit(cpu);
		if (cpu_stale(space, cpu, sequence))
			stale |= cpu_bit(cpu);
	}
	if (inside)
		__atomic_fetch_or(&space->ran[word], inside, __ATOMIC_SEQ_CST);
	return stale;
}

static void wait_for_word(const struct mv_asid_space *space, unsigned int word, uint64_t sequence)
{
	for (uint64_t bits = space->kicked[word]; bits; bits &= bits - 1)
		wait_for_cpu(space, word * WORD_BITS + (unsigned int)__builtin_ctzll(bits),
			     sequence);
}

/* Under space->lock. Return: processors kicked. */
static unsigned int flush_locked(struct mv_asid_space *space)
{
	const struct mv_asids *asids = space->asids;
	/* Those who raised it since, and wait for the lock, are served too. */
	uint64_t sequence = __atomic_load_n(&space->sequence, __ATOMIC_SEQ_CST);
	unsigned int count = 0;

	for (unsigned int word = 0; word < asids->words; word++) {
		space->kicked[word] = find_stale(space, word, sequence);
		/* By hand: the compiler's own count may be a call, which nothing provides here. */
		for (uint64_t left = space->kicked[word]; left; left &= left - 1)
			count++;
	}
	if (count)
		asids->kick(asids->ctx, space->kicked, asids->words);
	for (unsigned int word = 0; count && word < asids->words; word++)
		wait_for_word(space, word, sequence);
	space->done = sequence;
	return count;
}

unsigned int mv_asid_flush(struct mv_asid_space *space)
{
	const struct mv_platform *platform = &space->asids->platform;
	uint64_t wanted = __atomic_add_fetch(&space->sequence, 1, __ATOMIC_SEQ_CST);
	unsigned int kicked = 0;

	/* Acquire pairs with the release below: @done, and the kicks behind it. */
	for (unsigned int turns = 0; __atomic_exchange_n(&space->lock, 1, __ATOMIC_ACQUIRE);)
		platform->ops->relax(platform->ctx, turns++);
	if (space->done < wanted)
		kicked = flush_locked(space);
	__atomic_store_n(&space->lock, 0, __ATOMIC_RELEASE);
	return kicked;
}
