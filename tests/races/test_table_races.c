/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables changed by several threads at once, walked by others, and by a processor that knows
 * nothing of read sections.
 *
 * Whatever a walker is told was true at some moment during its walk. Freed tables are filled with
 * rubbish by plain stores, so that a walker that comes too late is a race that ThreadSanitizer
 * sees, and an answer that the test does.
 *
 * What may go wrong goes wrong between two instructions. So that threads do stop there, on a
 * machine with few processors too, a timer interrupts each of them all the time and makes it
 * sleep while the others run.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <memvirt/table.h>

#include "formats.h"
#include "support/testing.h"
#include "table_engine.h"
#include "table_entry.h"

#define RW	(MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_TYPE(6))
#define PAGE	4096ULL
#define MIB2	0x200000ULL
#define GIB	0x40000000ULL
#define RUN_MS	1200
#define THREADS 4

/* --- the platform ------------------------------------------------------------------------------
 */

static unsigned long table_pages; /* atomic */

static void *counted_alloc(void *ctx, int node)
{
	__atomic_fetch_add(&table_pages, 1, __ATOMIC_RELAXED);
	return mv_platform_linux()->ops->table_alloc(NULL, node);
}

static void poisoned_free(void *ctx, void *page)
{
	memset(page, 0xdb, PAGE);
	__atomic_fetch_sub(&table_pages, 1, __ATOMIC_RELAXED);
	mv_platform_linux()->ops->table_free(NULL, page);
}

/* --- what all tests have ------------------------------------------------------------------------
 */

struct race {
	struct mv_platform_ops ops;
	struct mv_platform platform;
	struct mv_engine e;
	uint64_t seed;
	uint64_t stop_at;     /* ns */
	unsigned int walking; /* atomic: odd while the processor uses the table */
	void *more;	      /* the test's own */
};

struct runner {
	struct race *race;
	unsigned int number;
	struct chance chance;
	void (*body)(struct runner *r);
	pthread_t thread;
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static bool goes_on(const struct race *race)
{
	return now_ns() < race->stop_at;
}

/* As an inter-processor interrupt does it: whoever was walking has finished. */
static void flush(void *ctx, uint64_t first, uint64_t last)
{
	struct race *race = ctx;
	unsigned int before = __atomic_load_n(&race->walking, __ATOMIC_SEQ_CST);

	if (before % 2 == 0)
		return;
	for (unsigned int turns = 0; __atomic_load_n(&race->walking, __ATOMIC_SEQ_CST) == before;)
		race->platform.ops->relax(NULL, turns++);
}

static void race_open(struct race *race, enum mv_format_id format)
{
	struct mv_table_config config = {
		.size = sizeof(config),
		.platform = &race->platform,
		.format = format,
		.features = MV_FEATURE_2M | MV_FEATURE_1G | MV_FEATURE_ACCESSED | MV_FEATURE_NX,
		.maxphyaddr = 46,
		.node = -1,
		.flush = flush,
		.ctx = race,
	};

	*race = (struct race){ .ops = *mv_platform_linux()->ops, .seed = test_seed() };
	race->ops.table_alloc = counted_alloc;
	race->ops.table_free = poisoned_free;
	race->platform.ops = &race->ops;
	race->stop_at = now_ns() + RUN_MS * 1000000ULL;
	assert_int_equal(mv_engine_init(&race->e, &config), 0);
}

/* Whatever happened: it can be unmapped, and then only the root is left. */
static void race_close(struct race *race)
{
	struct mv_table_defect defect;

	mv_engine_check(&race->e, true, &defect);
	assert_int_equal(defect.kind, MV_DEFECT_NONE);
	assert_int_equal(mv_engine_unmap(&race->e, 0, mv_format_last_address(race->e.format), NULL,
					 NULL, NULL),
			 0);
	assert_int_equal(race->e.pages, 1);
	assert_int_equal(table_pages, 1);
	mv_engine_finish(&race->e);
	assert_int_equal(table_pages, 0);
}

#define SHAKE_NS 500000
#define NAP_NS	 30000

static void take_a_nap(int signal)
{
	const struct timespec nap = { .tv_nsec = NAP_NS };
	int saved = errno;

	nanosleep(&nap, NULL);
	errno = saved;
}

/* ThreadSanitizer hands signals out at calls only, where they do no good. */
static timer_t shake(unsigned int number)
{
	struct sigevent event = { .sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGRTMIN };
	struct itimerspec often = { .it_interval = { 0, SHAKE_NS + number * 7919 },
				    .it_value = { 0, SHAKE_NS } };
	struct sigaction action = { .sa_handler = take_a_nap, .sa_flags = SA_RESTART };
	timer_t timer;

	event._sigev_un._tid = (pid_t)syscall(SYS_gettid);
	insist(!sigaction(SIGRTMIN, &action, NULL));
	insist(!timer_create(CLOCK_MONOTONIC, &event, &timer));
	insist(!timer_settime(timer, 0, &often, NULL));
	return timer;
}

static void *run_body(void *arg)
{
	struct runner *r = arg;
	timer_t timer = shake(r->number);

	r->body(r);
	timer_delete(timer);
	return NULL;
}

static void race_run(struct race *race, void (*const *bodies)(struct runner *r), unsigned int count)
{
	struct runner runners[THREADS];

	for (unsigned int i = 0; i < count; i++) {
		runners[i] = (struct runner){ .race = race,
					      .number = i,
					      .body = bodies[i],
					      .chance = chance_of(race->seed, i) };
		assert_int_equal(pthread_create(&runners[i].thread, NULL, run_body, &runners[i]),
				 0);
	}
	for (unsigned int i = 0; i < count; i++)
		pthread_join(runners[i].thread, NULL);
}

/* --- walkers against everything that changes -----------------------------------------------------
 */

#define REGIONS 8
#define HISTORY 4096

/*
 * One region has one owner, who writes what each of its operations will make of it, then that it
 * has begun, and at the end that it is done. A walker looks at `done` before and at `begun`
 * after: its answer is one of those in between.
 */
struct region {
	uint64_t first;
	uint64_t begun, done;	 /* atomic: numbers of operations */
	uint64_t phys[HISTORY];	 /* 0: nothing mapped */
	uint8_t broken[HISTORY]; /* nothing may be mapped for a moment */
};

struct regions {
	struct region region[REGIONS];
	uint64_t walks, hits; /* atomic */
};

static void begin(struct region *region, uint64_t phys, bool broken)
{
	uint64_t next = region->begun + 1;

	region->phys[next % HISTORY] = phys;
	region->broken[next % HISTORY] = broken;
	__atomic_store_n(&region->begun, next, __ATOMIC_SEQ_CST);
}

static void done(struct region *region)
{
	__atomic_store_n(&region->done, region->begun, __ATOMIC_SEQ_CST);
}

static uint64_t phys_now(const struct region *region)
{
	return region->phys[region->begun % HISTORY];
}

/* Whether an answer was true between two moments; @phys is that of the region's first page. */
static bool was_true(const struct region *region, uint64_t from, uint64_t to, uint64_t phys)
{
	for (uint64_t i = from; i <= to; i++)
		if (region->phys[i % HISTORY] == phys || (!phys && region->broken[i % HISTORY]))
			return true;
	return false;
}

static void change_region(struct runner *r, struct region *region)
{
	struct mv_engine *e = &r->race->e;
	uint64_t first = region->first, last = first + MIB2 - 1, phys = phys_now(region);
	uint64_t fresh = GIB * (2 + chance_below(&r->chance, 60));

	switch (chance_below(&r->chance, 6)) {
	case 0:
	case 1:
		begin(region, phys ? 0 : fresh, false);
		if (phys)
			insist(mv_engine_unmap(e, first, last, NULL, NULL, NULL) == 0);
		else
			insist(mv_engine_map(e, first, last, fresh, RW,
					     chance_one_in(&r->chance, 2) ? 12 : 0) == 0);
		break;
	case 2:
		begin(region, phys, false);
		insist(mv_engine_split(e, first, last, 12) == 0);
		break;
	case 3:
		begin(region, phys, true);
		mv_engine_collapse(e, first, last, 21);
		break;
	case 4:
		begin(region, phys, false);
		insist(mv_engine_protect(e, first + 0x5000, first + 0x7fff, MV_ATTR_WRITE,
					 chance_one_in(&r->chance, 2) ? MV_ATTR_WRITE : 0) == 0);
		break;
	default:
		begin(region, phys, false);
		mv_engine_harvest(e, first, last, MV_ATTR_ACCESSED | MV_ATTR_DIRTY, NULL, NULL,
				  true);
	}
	done(region);
}

static void change_regions(struct runner *r)
{
	struct regions *regions = r->race->more;

	while (goes_on(r->race))
		change_region(r, &regions->region[2 * chance_below(&r->chance, REGIONS / 2) +
						  r->number % 2]);
}

static void walk_one(struct runner *r, struct region *region)
{
	uint64_t offset = chance_below(&r->chance, MIB2), phys = 0;
	uint64_t from = __atomic_load_n(&region->done, __ATOMIC_SEQ_CST), to;
	struct mv_mapping mapping;

	if (!mv_engine_walk(&r->race->e, region->first + offset, &mapping))
		phys = mapping.phys + (region->first + offset - mapping.address) - offset;
	to = __atomic_load_n(&region->begun, __ATOMIC_SEQ_CST);
	insist(to - from < HISTORY - 2);
	insist(was_true(region, from, to, phys));
}

static uint64_t walk_many(struct runner *r, struct regions *regions)
{
	uint64_t address[40], phys[40], from[40], hits;

	for (size_t i = 0; i < COUNT_OF(address); i++) {
		address[i] = regions->region[i % REGIONS].first + chance_below(&r->chance, MIB2);
		from[i] = __atomic_load_n(&regions->region[i % REGIONS].done, __ATOMIC_SEQ_CST);
	}
	hits = mv_engine_translate_many(&r->race->e, address, phys, COUNT_OF(address));
	for (size_t i = 0; i < COUNT_OF(address); i++) {
		struct region *region = &regions->region[i % REGIONS];
		uint64_t to = __atomic_load_n(&region->begun, __ATOMIC_SEQ_CST);
		uint64_t base = phys[i] == UINT64_MAX ? 0 : phys[i] - (address[i] - region->first);

		insist(to - from[i] < HISTORY - 2);
		insist(was_true(region, from[i], to, base));
	}
	return hits;
}

static int leaf_is_sane(void *ctx, const struct mv_mapping *mapping)
{
	insist(mapping->phys >= 2 * GIB && mapping->phys < 64 * GIB);
	insist(mapping->page_lg2 == 12 || mapping->page_lg2 == 21);
	return 0;
}

static void walk_regions(struct runner *r)
{
	struct regions *regions = r->race->more;

	while (goes_on(r->race)) {
		for (unsigned int i = 0; i < REGIONS; i++)
			walk_one(r, &regions->region[i]);
		__atomic_fetch_add(&regions->hits, walk_many(r, regions), __ATOMIC_RELAXED);
		__atomic_fetch_add(&regions->walks, 40, __ATOMIC_RELAXED);
		mv_engine_for_each_leaf(&r->race->e, 0, UINT64_MAX, leaf_is_sane, NULL);
	}
}

static void walkers_are_told_what_was_true(void **state)
{
	static const enum mv_format_id formats[] = { MV_FORMAT_EPT_4L, MV_FORMAT_X86_5L };
	static void (*const bodies[])(struct runner * r) = { change_regions, change_regions,
							     walk_regions, walk_regions };

	for (size_t i = 0; i < COUNT_OF(formats); i++) {
		struct regions *regions = calloc(1, sizeof(*regions));
		struct race race;

		race_open(&race, formats[i]);
		race.more = regions;
		for (unsigned int n = 0; n < REGIONS; n++)
			regions->region[n].first = 512 * GIB - REGIONS / 2 * MIB2 + n * MIB2;
		race_run(&race, bodies, COUNT_OF(bodies));
		assert_true(regions->walks > 1000 && regions->hits > 100);
		race_close(&race);
		free(regions);
	}
}

/* --- neighbours in one table that comes and goes
 * --------------------------------------------------- */

/* Each owns every fourth page: what it did is so the moment it has been done. */
static void map_and_unmap_own_pages(struct runner *r)
{
	struct mv_engine *e = &r->race->e;
	bool mapped[8] = { false };

	while (goes_on(r->race)) {
		unsigned int n = (unsigned int)chance_below(&r->chance, COUNT_OF(mapped));
		uint64_t address = (n * THREADS + r->number) * PAGE, removed;
		struct mv_mapping mapping;

		if (mapped[n]) {
			insist(mv_engine_unmap(e, address, address + PAGE - 1, &removed, NULL,
					       NULL) == 0);
			insist(removed == PAGE);
			insist(mv_engine_walk(e, address, &mapping) == -ENOENT);
		} else {
			insist(mv_engine_map(e, address, address + PAGE - 1, GIB + address, RW,
					     0) == 0);
			insist(mv_engine_walk(e, address, &mapping) == 0);
			insist(mapping.phys == GIB + address);
		}
		mapped[n] = !mapped[n];
		/* Empty now and then, so that tables go, all levels of them. */
		for (n = 0; chance_one_in(&r->chance, 4) && n < COUNT_OF(mapped); n++)
			if (mapped[n]) {
				address = (n * THREADS + r->number) * PAGE;
				insist(mv_engine_unmap(e, address, address + PAGE - 1, NULL, NULL,
						       NULL) == 0);
				mapped[n] = false;
			}
	}
	for (unsigned int n = 0; n < COUNT_OF(mapped); n++) {
		uint64_t address = (n * THREADS + r->number) * PAGE;

		insist(mv_engine_unmap(e, address, address + PAGE - 1, NULL, NULL, NULL) == 0);
	}
}

static void a_table_goes_only_when_nobody_uses_it(void **state)
{
	static void (*const bodies[])(struct runner * r) = { map_and_unmap_own_pages,
							     map_and_unmap_own_pages,
							     map_and_unmap_own_pages };
	static const enum mv_format_id formats[] = { MV_FORMAT_NPT_4L, MV_FORMAT_X86_32 };

	for (size_t i = 0; i < COUNT_OF(formats); i++) {
		struct race race;

		race_open(&race, formats[i]);
		race_run(&race, bodies, COUNT_OF(bodies));
		/* They have unmapped all of it themselves: nothing may be left. */
		assert_int_equal(race.e.pages, 1);
		race_close(&race);
	}
}

/* Two pages of one table, each mapped or unmapped at the same moment, over and over. */
struct pair {
	pthread_barrier_t begin, end;
	unsigned int running; /* atomic: arrivals, two a round */
	bool mapped[2];
	bool over; /* written between barriers */
	unsigned int rounds;
};

static uint64_t pair_address(unsigned int who)
{
	return 3 * GIB + who * 300 * PAGE;
}

static void judge_pair(struct race *race, struct pair *pair)
{
	const bool any = pair->mapped[0] || pair->mapped[1];
	struct mv_mapping mapping;

	for (unsigned int who = 0; who < 2; who++)
		insist(mv_engine_walk(&race->e, pair_address(who), &mapping) ==
		       (pair->mapped[who] ? 0 : -ENOENT));
	insist(race->e.pages == (any ? race->e.format->levels : 1));
	pair->rounds++;
	pair->over = !goes_on(race);
}

static void toggle_own_page(struct runner *r)
{
	struct pair *pair = r->race->more;
	uint64_t first = pair_address(r->number), removed = 0;
	struct mv_engine *e = &r->race->e;
	struct chance *chance = &r->chance;

	for (unsigned int arrivals = 2; !pair->over; arrivals += 2) {
		pthread_barrier_wait(&pair->begin);
		/* Who was asleep in the barrier is late: begin when both run. */
		__atomic_fetch_add(&pair->running, 1, __ATOMIC_RELAXED);
		while (__atomic_load_n(&pair->running, __ATOMIC_RELAXED) < arrivals)
			__asm__ volatile("pause");
		/* Each comes at another moment of what the other does. */
		for (uint64_t n = chance_below(chance, 400); n; n--)
			__asm__ volatile("pause");
		if (pair->mapped[r->number])
			insist(mv_engine_unmap(e, first, first + PAGE - 1, &removed, NULL, NULL) ==
			       0);
		else
			insist(mv_engine_map(e, first, first + PAGE - 1, first, RW, 0) == 0);
		insist(!pair->mapped[r->number] || removed == PAGE);
		pair->mapped[r->number] = !pair->mapped[r->number];
		pthread_barrier_wait(&pair->end);
		if (r->number == 0)
			judge_pair(r->race, pair);
		pthread_barrier_wait(&pair->end);
	}
}

static void the_last_to_leave_takes_the_table_away(void **state)
{
	static void (*const bodies[])(struct runner * r) = { toggle_own_page, toggle_own_page };
	struct pair pair = { 0 };
	struct race race;

	race_open(&race, MV_FORMAT_NPT_4L);
	race.more = &pair;
	pthread_barrier_init(&pair.begin, NULL, 2);
	pthread_barrier_init(&pair.end, NULL, 2);
	race_run(&race, bodies, COUNT_OF(bodies));
	print_message("# %u rounds\n", pair.rounds);
	race_close(&race);
}

/* --- the same range, mapped by two ---------------------------------------------------------------
 */

struct contest {
	pthread_barrier_t begin, end;
	uint64_t first[2], last[2];
	int result[2];
	bool over; /* written between barriers */
	unsigned int both, none;
};

static uint64_t contest_phys(unsigned int who, uint64_t address)
{
	return (2 + who) * 64 * GIB + address;
}

/* One of them has all that it wanted, and who failed has nothing. */
static void judge(struct race *race, struct contest *c)
{
	bool overlap = c->first[0] <= c->last[1] && c->first[1] <= c->last[0];

	insist(!overlap || c->result[0] || c->result[1]);
	c->both += !c->result[0] && !c->result[1];
	c->none += c->result[0] && c->result[1];
	for (uint64_t at = 0; at < 3 * MIB2; at += PAGE) {
		uint64_t expected = 0;
		struct mv_mapping mapping;

		for (unsigned int who = 0; who < 2; who++)
			if (!c->result[who] && at >= c->first[who] && at <= c->last[who])
				expected = contest_phys(who, at);
		if (mv_engine_walk(&race->e, at, &mapping))
			insist(!expected);
		else
			insist(mapping.phys + (at - mapping.address) == expected);
	}
	insist(mv_engine_unmap(&race->e, 0, 4 * MIB2 - 1, NULL, NULL, NULL) == 0);
	insist(race->e.pages == 1);
}

static void map_in_contest(struct runner *r)
{
	struct contest *c = r->race->more;
	unsigned int who = r->number;

	for (;;) {
		uint64_t first = chance_below(&r->chance, 2) * chance_below(&r->chance, 600) * PAGE;
		uint64_t last = first + (1 + chance_below(&r->chance, 600)) * PAGE - 1;

		pthread_barrier_wait(&c->begin);
		if (c->over)
			return;
		c->first[who] = first;
		c->last[who] = last;
		c->result[who] =
			mv_engine_map(&r->race->e, first, last, contest_phys(who, first), RW, 0);
		insist(!c->result[who] || c->result[who] == -EEXIST);
		pthread_barrier_wait(&c->end);
		if (who == 0) {
			judge(r->race, c);
			c->over = !goes_on(r->race);
		}
	}
}

static void of_two_mappers_one_wins(void **state)
{
	static void (*const bodies[])(struct runner * r) = { map_in_contest, map_in_contest };
	struct contest c = { 0 };
	struct race race;

	race_open(&race, MV_FORMAT_EPT_4L);
	race.more = &c;
	pthread_barrier_init(&c.begin, NULL, 2);
	pthread_barrier_init(&c.end, NULL, 2);
	race_run(&race, bodies, COUNT_OF(bodies));
	print_message("# both %u times, none %u times\n", c.both, c.none);
	race_close(&race);
}

/* --- dirty bits, while pages change their size
 * ------------------------------------------------------ */

#define DIRTY_PAGES 1024ULL /* from 2 GiB on */
#define DIRTY_FIRST (2 * GIB)
#define DIRTY_LAST  (DIRTY_FIRST + DIRTY_PAGES * PAGE - 1)

struct dirty {
	uint64_t clock;			/* atomic */
	uint64_t touched[DIRTY_PAGES];	/* the clock before a processor wrote there last */
	uint64_t reported[DIRTY_PAGES]; /* the clock when it was harvested last */
	uint64_t writes;
};

/* Walks and sets accessed and dirty as hardware does: no read section, only flushes stop it. */
static void write_as_a_processor(struct runner *r)
{
	struct dirty *d = r->race->more;
	const struct mv_engine *e = &r->race->e;
	const struct mv_format *f = &mv_format_ept_4l;

	while (goes_on(r->race)) {
		uint64_t page = chance_below(&r->chance, DIRTY_PAGES), stamp;
		uint64_t address = DIRTY_FIRST + page * PAGE, entry;
		void *table = mv_engine_page(e, e->root);

		__atomic_fetch_add(&r->race->walking, 1, __ATOMIC_SEQ_CST);
		stamp = __atomic_fetch_add(&d->clock, 1, __ATOMIC_SEQ_CST);
		for (unsigned int level = 4; level; level--) {
			unsigned int index = mv_index(f, level, address);

			entry = mv_entry_load(f, table, index);
			while (mv_entry_present(&e->rules, entry)) {
				bool leaf = mv_entry_is_leaf(f, &e->rules, level, entry);

				if (!mv_entry_swap(f, table, index, &entry,
						   entry | f->accessed | (leaf ? f->dirty : 0)))
					continue;
				if (leaf) {
					d->touched[page] = stamp;
					d->writes++;
					level = 1;
				}
				break;
			}
			if (!mv_entry_present(&e->rules, entry))
				break;
			table = mv_engine_page(e, mv_entry_table(f, entry));
		}
		__atomic_fetch_add(&r->race->walking, 1, __ATOMIC_SEQ_CST);
	}
}

static void note_dirty(void *ctx, const struct mv_mapping *mapping)
{
	struct dirty *d = ctx;
	uint64_t stamp = __atomic_fetch_add(&d->clock, 1, __ATOMIC_SEQ_CST);
	uint64_t first = (mapping->address - DIRTY_FIRST) / PAGE;

	for (uint64_t i = 0; i < 1ULL << (mapping->page_lg2 - 12); i++)
		d->reported[first + i] = stamp;
}

static void harvest_dirty(struct runner *r)
{
	while (goes_on(r->race))
		mv_engine_harvest(&r->race->e, DIRTY_FIRST, DIRTY_LAST, MV_ATTR_DIRTY, note_dirty,
				  r->race->more, true);
}

static void change_sizes(struct runner *r)
{
	struct mv_engine *e = &r->race->e;

	while (goes_on(r->race)) {
		uint64_t first = DIRTY_FIRST + chance_below(&r->chance, DIRTY_PAGES) * PAGE;

		switch (chance_below(&r->chance, 4)) {
		case 0:
			insist(mv_engine_split(e, first, first, 12) == 0);
			break;
		case 1:
			/* There is nothing dirty where a right was taken: it stays writable. */
			insist(mv_engine_protect(e, first, first + PAGE - 1, 0, MV_ATTR_EXEC) == 0);
			break;
		case 2:
			insist(mv_engine_protect(e, DIRTY_FIRST, DIRTY_LAST, MV_ATTR_EXEC, 0) == 0);
			break;
		default:
			mv_engine_collapse(e, DIRTY_FIRST, DIRTY_LAST, 0);
		}
	}
}

static void no_dirty_bit_is_lost(void **state)
{
	static void (*const bodies[])(struct runner * r) = { write_as_a_processor, harvest_dirty,
							     change_sizes, change_sizes };
	struct dirty *d = calloc(1, sizeof(*d));
	struct race race;

	race_open(&race, MV_FORMAT_EPT_4L);
	race.more = d;
	d->clock = 1;
	assert_int_equal(mv_engine_map(&race.e, DIRTY_FIRST, DIRTY_LAST, GIB, RW, 0), 0);
	race_run(&race, bodies, COUNT_OF(bodies));
	mv_engine_harvest(&race.e, DIRTY_FIRST, DIRTY_LAST, MV_ATTR_DIRTY, note_dirty, d, true);
	for (uint64_t i = 0; i < DIRTY_PAGES; i++)
		assert_true(d->reported[i] >= d->touched[i]);
	assert_true(d->writes > 1000);
	race_close(&race);
	free(d);
}

/* --- grants against revokes
 * -------------------------------------------------------------------------- */

#define GRANULES 4

/* As lib/region.h has it, of one granule each; what backs its pages changes with each revoke. */
struct granule {
	uint64_t sequence; /* atomic */
	uint64_t phys;	   /* atomic; changes only while a revoke runs */
};

struct ledger {
	struct granule granule[GRANULES];
	uint64_t grants, stale; /* atomic */
};

struct question {
	const struct granule *granule;
	uint64_t sample;
};

static bool still_holds(void *ctx)
{
	const struct question *q = ctx;

	return __atomic_load_n(&q->granule->sequence, __ATOMIC_SEQ_CST) == q->sample;
}

static void grant_pages(struct runner *r)
{
	struct ledger *ledger = r->race->more;

	while (goes_on(r->race)) {
		unsigned int n = (unsigned int)chance_below(&r->chance, GRANULES);
		struct question q = { &ledger->granule[n], 0 };
		unsigned int level = chance_one_in(&r->chance, 2) ? 1 : 2;
		uint64_t offset = level == 2 ? 0 : chance_below(&r->chance, 512) * PAGE;
		struct mv_grant grant = { .address = GIB - MIB2 + n * MIB2 + offset,
					  .level = level,
					  .attr = RW,
					  .holds = still_holds,
					  .ctx = &q };
		struct mv_mapping found;
		int error;

		q.sample = __atomic_load_n(&q.granule->sequence, __ATOMIC_SEQ_CST);
		if (q.sample & 0xffff)
			continue;
		grant.token = q.sample >> 16;
		grant.phys = __atomic_load_n(&q.granule->phys, __ATOMIC_SEQ_CST) + offset;
		error = mv_engine_grant(&r->race->e, &grant, &found);
		insist(error == 0 || error == -EEXIST || error == -ENOTEMPTY || error == -ESTALE);
		__atomic_fetch_add(&ledger->grants, !error, __ATOMIC_RELAXED);
		__atomic_fetch_add(&ledger->stale, error == -ESTALE, __ATOMIC_RELAXED);
	}
}

static void revoke_granules(struct runner *r)
{
	struct ledger *ledger = r->race->more;
	struct mv_engine *e = &r->race->e;

	while (goes_on(r->race)) {
		unsigned int n = (unsigned int)chance_below(&r->chance, GRANULES);
		struct granule *g = &ledger->granule[n];
		uint64_t first = GIB - MIB2 + n * MIB2, last = first + MIB2 - 1;
		struct mv_zapped zapped;
		struct mv_mapping mapping;

		__atomic_fetch_add(&g->sequence, 1, __ATOMIC_SEQ_CST);
		mv_engine_zap(e, first, last, &zapped, NULL, NULL);
		mv_engine_flush(e, zapped.first, zapped.last);
		/* From here nobody reaches it until the revoke ends. */
		for (int i = 0; i < 50; i++)
			insist(mv_engine_walk(e, first + chance_below(&r->chance, 512) * PAGE,
					      &mapping) == -ENOENT);
		__atomic_store_n(&g->phys, GIB * (1 + chance_below(&r->chance, 1000)),
				 __ATOMIC_SEQ_CST);
		if (chance_one_in(&r->chance, 4))
			mv_engine_trim(e, first, last);
		insist(mv_engine_walk(e, first, &mapping) == -ENOENT);
		__atomic_fetch_add(&g->sequence, 0xffff, __ATOMIC_SEQ_CST);
	}
}

static void what_is_revoked_stays_so_until_it_is_granted(void **state)
{
	static void (*const bodies[])(struct runner * r) = { grant_pages, grant_pages, grant_pages,
							     revoke_granules };
	struct ledger ledger = { 0 };
	struct race race;

	race_open(&race, MV_FORMAT_EPT_5L);
	race.more = &ledger;
	for (unsigned int i = 0; i < GRANULES; i++)
		ledger.granule[i].phys = GIB;
	race_run(&race, bodies, COUNT_OF(bodies));
	/* What is mapped at the end is what backs it now. */
	for (unsigned int i = 0; i < GRANULES * 512; i++) {
		uint64_t address = GIB - MIB2 + i * PAGE;
		struct mv_mapping mapping;

		if (!mv_engine_walk(&race.e, address, &mapping))
			assert_int_equal(mapping.phys + (address - mapping.address),
					 ledger.granule[i / 512].phys + i % 512 * PAGE);
	}
	print_message("# %llu grants, %llu stale\n", (unsigned long long)ledger.grants,
		      (unsigned long long)ledger.stale);
	assert_true(ledger.grants > 100);
	race_close(&race);
}

/* --- unmaps of each other's tables
 * -------------------------------------------------------------------- */

/* Ranges that contain each other: who removes a table may find another in the middle of it. */
static void map_and_unmap_anything(struct runner *r)
{
	static const uint64_t sizes[] = { PAGE, 64 * PAGE, MIB2, 16 * MIB2, GIB, 4 * GIB };
	struct mv_engine *e = &r->race->e;

	while (goes_on(r->race)) {
		uint64_t size = sizes[chance_below(&r->chance, COUNT_OF(sizes))];
		uint64_t first = 511 * GIB + chance_below(&r->chance, 2 * GIB / PAGE) * PAGE;
		int error;

		first &= ~(size - 1);
		switch (chance_below(&r->chance, 4)) {
		case 0:
			error = mv_engine_map(e, first, first + size - 1, first % (4 * GIB), RW, 0);
			insist(error == 0 || error == -EEXIST);
			break;
		case 1:
			mv_engine_collapse(e, first & ~(MIB2 - 1), first + size - 1, 0);
			break;
		case 2:
			if (size > MIB2)
				size = MIB2;
			/* fall through */
		default:
			insist(mv_engine_unmap(e, first, first + size - 1, NULL, NULL, NULL) == 0);
		}
	}
}

static void walk_anything(struct runner *r)
{
	while (goes_on(r->race)) {
		uint64_t at = 511 * GIB + chance_below(&r->chance, 2 * GIB);
		struct mv_mapping mapping;

		if (!mv_engine_walk(&r->race->e, at, &mapping))
			insist(mapping.phys + (at - mapping.address) == at % (4 * GIB));
	}
}

static void unmaps_of_ranges_within_each_other_complete(void **state)
{
	static void (*const bodies[])(struct runner *
				      r) = { map_and_unmap_anything, map_and_unmap_anything,
					     map_and_unmap_anything, walk_anything };
	struct race race;

	race_open(&race, MV_FORMAT_X86_4L);
	race_run(&race, bodies, COUNT_OF(bodies));
	race_close(&race);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(walkers_are_told_what_was_true),
		cmocka_unit_test(a_table_goes_only_when_nobody_uses_it),
		cmocka_unit_test(the_last_to_leave_takes_the_table_away),
		cmocka_unit_test(of_two_mappers_one_wins),
		cmocka_unit_test(no_dirty_bit_is_lost),
		cmocka_unit_test(what_is_revoked_stays_so_until_it_is_granted),
		cmocka_unit_test(unmaps_of_ranges_within_each_other_complete),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
