/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The core under several threads at once, for ThreadSanitizer and for what the threads
 * themselves insist on: regions that come and go under readers; pins, faults, evictions and
 * discards of the same pages. Grants against revokes are in test_grant_races.c.
 */
#include <pthread.h>
#include <sched.h>
#include <sys/mman.h>
#include <unistd.h>

#include "support/crew.h"
#include "support/fake_view.h"
#include "support/guest.h"
#include "support/testing.h"

#define PAGE MV_PAGE_SIZE

static struct guest guest;
static struct crew crew;

/* --- regions that come and go ----------------------------------------------------------- */

#define SLOTS	   8
#define SLOT_PAGES 3

static uint64_t slot_gpa(uint64_t slot)
{
	return slot * SLOT_PAGES * PAGE;
}

/* Where the slot's region lies; not to be touched while there is none. */
static unsigned char *slot_hva(uint64_t slot)
{
	return guest.mem + (SLOTS - 1 - slot) * SLOT_PAGES * PAGE;
}

static void add_slot(uint64_t slot)
{
	insist(!mprotect(slot_hva(slot), SLOT_PAGES * PAGE, PROT_READ | PROT_WRITE));
	insist(!guest_add(&guest, slot_gpa(slot), SLOT_PAGES,
			  (size_t)(slot_hva(slot) - guest.mem)));
}

/* Nobody may be reading it any more once it is gone: a straggler would be killed. */
static void remove_slot(uint64_t slot)
{
	int error;

	while ((error = mv_memory_remove_region(guest.memory, slot_gpa(slot))) == -EBUSY)
		sched_yield();
	insist(!error);
	insist(!mprotect(slot_hva(slot), SLOT_PAGES * PAGE, PROT_NONE));
}

static void change_regions(struct chance *chance)
{
	bool there[SLOTS];

	memset(there, 1, sizeof(there));
	for (uint64_t i = test_rounds(1500); i; i--) {
		uint64_t slot = chance_below(chance, SLOTS);

		if (there[slot])
			remove_slot(slot);
		else
			add_slot(slot);
		there[slot] = !there[slot];
	}
	for (uint64_t slot = 0; slot < SLOTS; slot++)
		if (!there[slot])
			add_slot(slot);
}

static void read_regions(struct chance *chance)
{
	unsigned char bytes[4 * PAGE];

	while (!crew_done(&crew)) {
		uint64_t gpa = chance_below(chance, slot_gpa(SLOTS));
		size_t len = 1 + chance_below(chance, sizeof(bytes));
		int error = mv_memory_read(guest.memory, gpa, bytes, len);

		insist(!error || error == -EFAULT);
		/* Each byte says in which slot it lies. */
		for (size_t i = 0; !error && i < len; i += PAGE / 2)
			insist(bytes[i] == 1 + (gpa + i) / (SLOT_PAGES * PAGE));
	}
}

static void find_regions(struct chance *chance)
{
	while (!crew_done(&crew)) {
		uint64_t gpa = chance_below(chance, slot_gpa(SLOTS)), back;
		struct mv_memory_counts counts;
		size_t len = 8;
		void *hva;

		if (!mv_memory_hva(guest.memory, gpa, &len, &hva))
			insist((unsigned char *)hva ==
			       slot_hva(gpa / (SLOT_PAGES * PAGE)) + gpa % (SLOT_PAGES * PAGE));
		if (!mv_memory_gpa(guest.memory, slot_hva(3) + 5, &back))
			insist(back == slot_gpa(3) + 5);
		mv_memory_get_counts(guest.memory, &counts);
		insist(counts.total <= SLOTS * SLOT_PAGES && counts.total % SLOT_PAGES == 0);
	}
}

/*
 * Time for a removal; sometimes enough for it to end. Also for ThreadSanitizer: what this
 * thread does next would put in order what it did last.
 */
static void rest(struct chance *chance)
{
	usleep(chance_one_in(chance, 8) ? 5000 : (unsigned int)chance_below(chance, 60));
}

/* A region that is held stays, with its pages. */
static void hold_regions(struct chance *chance)
{
	while (!crew_done(&crew)) {
		uint64_t gpa = chance_below(chance, slot_gpa(SLOTS));
		struct mv_region *region = mv_region_get(guest.memory, gpa);

		if (!region)
			continue;
		if (chance_one_in(chance, 8))
			sched_yield();
		insist(region->hva[gpa - region->first_gpa] == 1 + gpa / (SLOT_PAGES * PAGE));
		mv_region_release(region);
		rest(chance);
	}
}

/* Pins do the same. */
static void pin_regions(struct chance *chance)
{
	while (!crew_done(&crew)) {
		uint64_t gpa = chance_below(chance, slot_gpa(SLOTS));

		if (mv_memory_pin(guest.memory, gpa, gpa))
			continue;
		insist(slot_hva(gpa / (SLOT_PAGES * PAGE))[0]);
		mv_memory_unpin(guest.memory, gpa, gpa);
		rest(chance);
	}
}

static void regions_come_and_go_under_readers(void **state)
{
	guest_init(&guest, SLOTS * SLOT_PAGES * PAGE);
	for (uint64_t slot = 0; slot < SLOTS; slot++) {
		add_slot(slot);
		memset(slot_hva(slot), (int)slot + 1, SLOT_PAGES * PAGE);
	}
	crew_add(&crew, change_regions);
	crew_add(&crew, read_regions);
	crew_add(&crew, find_regions);
	crew_add(&crew, hold_regions);
	crew_add(&crew, hold_regions);
	crew_add(&crew, pin_regions);
	crew_add(&crew, pin_regions);
	crew_finish(&crew, 1);
	guest_check_counts(&guest);
	guest_finish(&guest);
}

/* --- a removal that is refused ---------------------------------------------------------- */

static void remove_in_vain(struct chance *chance)
{
	for (uint64_t i = test_rounds(1000000); i; i--)
		insist(mv_memory_remove_region(guest.memory, 0) == -EBUSY);
}

static void never_miss(struct chance *chance)
{
	unsigned char byte;

	while (!crew_done(&crew)) {
		struct mv_region *region = mv_region_get(guest.memory, PAGE);

		insist(region);
		mv_region_release(region);
		insist(!mv_memory_read(guest.memory, PAGE, &byte, 1));
		insist(!mv_memory_pin(guest.memory, PAGE, PAGE));
		mv_memory_unpin(guest.memory, PAGE, PAGE);
	}
}

static void refused_removals_are_not_seen(void **state)
{
	guest_init(&guest, 4 * PAGE);
	assert_int_equal(guest_add(&guest, 0, 4, 0), 0);
	assert_int_equal(mv_memory_pin(guest.memory, 0, 0), 0);
	crew_add(&crew, remove_in_vain);
	crew_add(&crew, never_miss);
	crew_add(&crew, never_miss);
	crew_finish(&crew, 1);
	mv_memory_unpin(guest.memory, 0, 0);
	guest_finish(&guest);
}

/* --- pages: pins, faults, evictions, discards ------------------------------------------- */

#define PAGES 600 /* more than a granule */
#define HOT   24  /* that they all want, on both sides of the border */
#define FIRST (MV_GRANULE_PAGES - HOT / 2)

/* What a page's owner alone may touch; ThreadSanitizer watches. */
static uint64_t owned[PAGES];
/* Raised by whoever wakes a page; atomic. */
static unsigned int wakes[PAGES];
/* One evictor at a time in a granule, as mv_page_seal() asks for. */
static pthread_mutex_t granules[2] = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER };
static struct fake_view steady;

static void wake_page(uint64_t page)
{
	__atomic_fetch_add(&wakes[page], 1, __ATOMIC_RELEASE);
}

static void end_page(struct mv_region *region, uint64_t page, enum mv_page_state state)
{
	if (mv_region_end(region, page, state, 0, 0) & MV_WORD_WAITED)
		wake_page(page);
}

static void note_wakes(struct fake_view *fake, enum fake_op op, const struct mv_batch *batch)
{
	if (op != FAKE_WAKE)
		return;
	mv_batch_for_each_page (batch, bit)
		wake_page(fake_view_page(batch, bit));
}

static uint64_t hot_page(struct chance *chance)
{
	return FIRST + chance_below(chance, HOT);
}

/* Sleep as a faulting thread does: until somebody wakes the page. */
static void sleep_on(uint64_t page, unsigned int before)
{
	const struct mv_platform *platform = mv_platform_linux();

	for (unsigned int turns = 0; __atomic_load_n(&wakes[page], __ATOMIC_ACQUIRE) == before;) {
		insist(turns < 200000); /* some 10 s: a wake was lost */
		platform->ops->relax(platform->ctx, turns++);
	}
}

static void fault(struct mv_region *region, uint64_t page)
{
	for (;;) {
		unsigned int before = __atomic_load_n(&wakes[page], __ATOMIC_ACQUIRE);
		uint32_t word;

		if (mv_page_claim(&region->words[page], &word)) {
			owned[page]++;
			end_page(region, page, MV_PAGE_RESIDENT);
			return;
		}
		sleep_on(page, before);
	}
}

static void make_faults(struct chance *chance)
{
	struct mv_region *region = mv_region_get(guest.memory, 0);

	for (uint64_t i = test_rounds(200000); i; i--)
		fault(region, hot_page(chance));
	mv_region_release(region);
}

/* Without a lock meanwhile: busy pages are waited for by a discard. */
static void evict_page(struct mv_region *region, uint64_t page)
{
	const uint32_t mask = MV_WORD_STATE | MV_WORD_PINS;
	uint32_t word;

	if (!mv_page_begin_if(&region->words[page], mask, MV_PAGE_RESIDENT, MV_WORD_COPYING, &word))
		return;
	sched_yield();
	if (!mv_page_seal(&region->words[page]))
		return;
	insist(!(mv_page_load(&region->words[page]) & MV_WORD_PINS));
	owned[page]++;
	end_page(region, page, MV_PAGE_STORED);
}

static void evict(struct chance *chance)
{
	struct mv_region *region = mv_region_get(guest.memory, 0);

	while (!crew_done(&crew)) {
		uint64_t page = hot_page(chance);
		pthread_mutex_t *granule = &granules[page / MV_GRANULE_PAGES];

		if (pthread_mutex_trylock(granule))
			continue;
		evict_page(region, page);
		pthread_mutex_unlock(granule);
	}
	mv_region_release(region);
}

static void drop(void *ctx, struct mv_batch *batch)
{
	mv_batch_for_each_page (batch, bit) {
		uint64_t page = batch->first_page + bit;

		insist(!(mv_page_load(mv_batch_word(batch, bit)) & MV_WORD_PINS));
		owned[page]++;
		if (page % 5 == 0)
			mv_batch_take(batch, bit); /* could not be let go */
	}
}

static void discard(struct chance *chance)
{
	for (uint64_t i = test_rounds(20000); i; i--) {
		uint64_t first = hot_page(chance), last = first + chance_below(chance, HOT);
		uint64_t dropped;
		int error = mv_memory_discard(guest.memory, first * PAGE, last * PAGE + PAGE - 1,
					      drop, NULL, &dropped);

		insist(!error || error == -EBUSY);
		insist(dropped <= last - first + 1);
	}
}

/* A pinned page that is resident stays so. */
static void pin(struct chance *chance)
{
	struct mv_region *region = mv_region_get(guest.memory, 0);

	for (uint64_t i = test_rounds(30000); i; i--) {
		uint64_t page = hot_page(chance), last = page + chance_below(chance, 4);
		enum mv_page_state state;

		insist(!mv_memory_pin(guest.memory, page * PAGE, last * PAGE));
		fault(region, page);
		sched_yield();
		insist(!mv_memory_page_state(guest.memory, page * PAGE, &state));
		insist(state == MV_PAGE_RESIDENT);
		mv_memory_unpin(guest.memory, page * PAGE, last * PAGE);
	}
	mv_region_release(region);
}

/* Gone is gone: the view's memory is freed as soon as it is detached. */
static void change_views(struct chance *chance)
{
	while (!crew_done(&crew)) {
		struct fake_view *view = calloc(1, sizeof(*view));

		insist(view);
		fake_view_init(view, (enum mv_view_rank)chance_below(chance, 3), PAGES + HOT);
		fake_view_refuse(view, hot_page(chance), true);
		insist(!mv_memory_attach_view(guest.memory, &view->view));
		usleep((unsigned int)chance_below(chance, 200));
		mv_memory_detach_view(guest.memory, &view->view);
		fake_view_finish(view);
		free(view);
	}
}

static void a_page_has_one_owner_at_a_time(void **state)
{
	guest_init(&guest, (PAGES + HOT) * PAGE);
	assert_int_equal(guest_add(&guest, 0, PAGES + HOT, 0), 0);
	fake_view_init(&steady, MV_VIEW_RANK_PROCESS, PAGES + HOT);
	steady.on_op = note_wakes;
	assert_int_equal(mv_memory_attach_view(guest.memory, &steady.view), 0);
	crew_add(&crew, make_faults);
	crew_add(&crew, discard);
	crew_add(&crew, discard);
	crew_add(&crew, pin);
	crew_add(&crew, pin);
	crew_add(&crew, evict);
	crew_add(&crew, evict);
	crew_add(&crew, change_views);
	crew_finish(&crew, 5);
	guest_check_counts(&guest);
	mv_memory_detach_view(guest.memory, &steady.view);
	fake_view_finish(&steady);
	guest_finish(&guest);
}

static int set_up(void **state)
{
	crew.seed = test_seed();
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(regions_come_and_go_under_readers),
		cmocka_unit_test(refused_removals_are_not_seen),
		cmocka_unit_test(a_page_has_one_owner_at_a_time),
	};

	return cmocka_run_group_tests(tests, set_up, NULL);
}
