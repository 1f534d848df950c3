// SPDX-License-Identifier: BSD-2-Clause
/*
 * The handler thread: reads what userfaultfd reports and brings pages back, one at a time.
 *
 * On this path nothing is allocated, no lock is taken but the page's own busy bit, and
 * nothing waits for a store, an evictor, or a discard: who finds a page busy leaves it, and
 * its owner wakes the faulting thread, which then faults again.
 *
 * There is one handler to a pager, because the order in which faults and removals are read
 * is the order in which they hold.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "now.h"
#include "pager_internal.h"
#include "uffd.h"

#define MESSAGES    16 /* read at once; faults resolve one by one, so more gains nothing */
#define READS	    32 /* of one descriptor, before the others have their turn */
#define HANDLER_FDS 4

/* --- one page ------------------------------------------------------------------------- */

void pr_end(struct pager_region *pr, uint64_t page, enum mv_page_state state, uint32_t clear,
	    uint32_t set)
{
	uint32_t before = mv_region_end(pr->region, page, state, clear, set);
	uint32_t after = (before & ~clear) | set;

	if ((before ^ after) & MV_WORD_UNMAPPED)
		__atomic_fetch_add(&pr->pager->unmapped, after & MV_WORD_UNMAPPED ? 1 : -1,
				   __ATOMIC_RELAXED);
	if (before & MV_WORD_WAITED)
		mv_uffd_wake(pr->uffd, pr_hva(pr, page), MV_PAGE_SIZE);
}

/* Leave a page as it was. */
static void put_back(struct pager_region *pr, uint64_t page, uint32_t word)
{
	pr_end(pr, page, mv_word_state(word), 0, 0);
}

/*
 * A page that cannot be brought back raises an error at every touch, and never reads as
 * zeros. Without UFFDIO_POISON a mapping of nothing, which raises SIGBUS, takes its place.
 */
static int poison(struct pager_region *pr, uint64_t page)
{
	unsigned char *hva = pr_hva(pr, page);

	if (pr->pager->features & MV_PAGER_POISON) {
		int error = mv_uffd_poison(pr->uffd, hva);

		return error == -EEXIST ? 0 : error;
	}
	int fd = memfd_create("memvirt-poison", MFD_CLOEXEC);

	if (fd < 0)
		return -errno;
	void *at = mmap(hva, MV_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	int error = at == MAP_FAILED ? -errno : 0;

	close(fd);
	if (!error)
		mv_uffd_wake(pr->uffd, hva, MV_PAGE_SIZE);
	return error;
}

static const char *what_failed(int error)
{
	return error == -EILSEQ ? "its checksum does not match" : strerror(-error);
}

/* The store cannot give a page back. Where it cannot be poisoned either, its threads wait on. */
static int lose(struct pager_region *pr, uint64_t page, int why)
{
	const struct mv_platform *platform = &pr->region->memory->platform;
	struct mv_pager *pager = pr->pager;
	char line[200];
	int error = poison(pr, page);

	snprintf(line, sizeof(line), "the page at %p is lost: the store: %s; touching it %s",
		 (void *)pr_hva(pr, page), what_failed(why),
		 error ? "hangs, for it could not be poisoned" : "raises a memory error");
	if (platform->ops->log)
		platform->ops->log(platform->ctx, MV_LOG_ERROR, line);
	if (error) {
		pr_end(pr, page, MV_PAGE_STORED, 0, 0);
		return -EIO;
	}
	pager->store->ops->drop(pager->store, pr->first_key + page);
	pager_count(&pager->count.poisoned, 1);
	pr_end(pr, page, MV_PAGE_POISONED, MV_WORD_ACTIVE, 0);
	return -EIO;
}

/*
 * A page of zeros for one that never had content, or whose content was given up. Shared
 * memory may hold one there all the same, put by whoever wrote to the file: that counts.
 */
static int fill_zero(struct pager_region *pr, uint64_t page, uint32_t word, bool minor)
{
	unsigned char *hva = pr_hva(pr, page);
	int error = minor ? -EEXIST : mv_uffd_zero(pr->uffd, hva);

	if (error == -EEXIST && pr->backing == &mv_backing_shared)
		error = mv_uffd_continue(pr->uffd, hva);
	if (error == -EEXIST)
		error = 0;
	if (error) {
		put_back(pr, page, word);
		return error;
	}
	if (mv_word_state(word) != MV_PAGE_RESIDENT)
		pager_count(&pr->pager->count.zero_fills, 1);
	pr_end(pr, page, MV_PAGE_RESIDENT, MV_WORD_UNMAPPED, 0);
	return 0;
}

/* A resident page: unmapped by us and now used, or mapped a moment ago by another's fault. */
static int remap(struct pager_region *pr, uint64_t page, uint32_t word, bool minor)
{
	bool taken_over = word & MV_WORD_COPYING;
	int error;

	if (!(word & MV_WORD_UNMAPPED))
		return fill_zero(pr, page, word, minor);
	error = pr->backing->map(pr, page);
	if (error == -ENOENT) /* dropped behind our back: the VMM's own discard */
		return fill_zero(pr, page, word, false);
	if (error && error != -EEXIST) {
		put_back(pr, page, word);
		return error;
	}
	pager_count(taken_over ? &pr->pager->count.cancels : &pr->pager->count.touches, 1);
	pr_end(pr, page, MV_PAGE_RESIDENT, MV_WORD_UNMAPPED, MV_WORD_ACTIVE);
	return 0;
}

/*
 * The file holds a page where ours is stored: someone touched the hole through another
 * mapping and got zeros. The store has the truth.
 */
static int overwrite(struct pager_region *pr, uint64_t page, const void *buffer)
{
	if (pr->backing != &mv_backing_shared)
		return -EEXIST;
	memcpy(pr_alias(pr, page), buffer, MV_PAGE_SIZE);
	return mv_uffd_continue(pr->uffd, pr_hva(pr, page));
}

static int restore(struct pager_region *pr, uint64_t page, uint32_t word, void *buffer)
{
	struct mv_store *store = pr->pager->store;
	uint64_t key = pr->first_key + page;
	uint64_t begun = now_ns();
	int error = store->ops->get(store, key, buffer);

	if (error)
		return lose(pr, page, error);
	error = mv_uffd_copy(pr->uffd, pr_hva(pr, page), buffer);
	if (error == -EEXIST)
		error = overwrite(pr, page, buffer);
	if (error) {
		put_back(pr, page, word);
		return error;
	}
	store->ops->drop(store, key);
	pager_count(&pr->pager->count.restores, 1);
	pager_count(&pr->pager->count.restore_ns, now_ns() - begun);
	pr_end(pr, page, MV_PAGE_RESIDENT, MV_WORD_UNMAPPED | MV_WORD_ACTIVE, 0);
	return 0;
}

/* The caller owns the page. */
static int supply(struct pager_region *pr, uint64_t page, uint32_t word, bool minor, void *buffer)
{
	switch (mv_word_state(word)) {
	case MV_PAGE_RESIDENT:
		return remap(pr, page, word, minor);
	case MV_PAGE_STORED:
		return restore(pr, page, word, buffer);
	case MV_PAGE_POISONED:
		put_back(pr, page, word);
		return poison(pr, page);
	default:
		return fill_zero(pr, page, word, minor);
	}
}

int pager_resolve(struct pager_region *pr, uint64_t page, bool minor, void *buffer)
{
	uint32_t word;

	if (!mv_page_claim(&pr->region->words[page], &word)) {
		pager_count(&pr->pager->count.waits, 1);
		return 0;
	}
	int error = supply(pr, page, word, minor, buffer);

	switch (error) {
	case -EIO: /* poisoned: the thread has been woken to find out */
		return 0;
	case -ENOENT:
	case -ESRCH:
		return -ENODEV;
	case -EAGAIN:
	case -ENOMEM:
		return -EAGAIN;
	default:
		if (!error)
			pager_count(&pr->pager->count.faults, 1);
		return error;
	}
}

int pager_bring_back(struct pager_region *pr, uint64_t page, void *buffer)
{
	struct mv_platform *platform = &pr->region->memory->platform;
	int error = 0;

	for (unsigned int turns = 0; turns < 1000; turns++) {
		uint32_t word = mv_page_begin(platform, &pr->region->words[page]);

		if (mv_word_state(word) == MV_PAGE_STORED)
			error = restore(pr, page, word, buffer);
		else if (mv_word_state(word) == MV_PAGE_RESIDENT && (word & MV_WORD_UNMAPPED))
			error = remap(pr, page, word, true);
		else
			put_back(pr, page, word), error = 0;
		if (error != -EAGAIN)
			return error;
		/* An event has to be read first, which the handler does. */
		platform->ops->relax(platform->ctx, turns);
	}
	return error;
}

/* --- parked faults -------------------------------------------------------------------- */

bool parked_put(struct parked_ring *ring, const struct parked_fault *fault)
{
	uint64_t at = __atomic_load_n(&ring->tail, __ATOMIC_RELAXED);

	for (;;) {
		uint64_t *turn = &ring->slots[at % PAGER_PARKED].turn;

		if (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != at)
			return false;
		if (__atomic_compare_exchange_n(&ring->tail, &at, at + 1, false, __ATOMIC_SEQ_CST,
						__ATOMIC_RELAXED)) {
			ring->slots[at % PAGER_PARKED].fault = *fault;
			__atomic_store_n(turn, at + 1, __ATOMIC_RELEASE);
			return true;
		}
	}
}

bool parked_take(struct parked_ring *ring, struct parked_fault *fault)
{
	uint64_t at = __atomic_load_n(&ring->head, __ATOMIC_RELAXED);

	for (;;) {
		uint64_t *turn = &ring->slots[at % PAGER_PARKED].turn;

		if (__atomic_load_n(turn, __ATOMIC_ACQUIRE) != at + 1)
			return false;
		if (__atomic_compare_exchange_n(&ring->head, &at, at + 1, false, __ATOMIC_RELAXED,
						__ATOMIC_RELAXED)) {
			*fault = ring->slots[at % PAGER_PARKED].fault;
			__atomic_store_n(turn, at + PAGER_PARKED, __ATOMIC_RELEASE);
			return true;
		}
	}
}

bool parked_any(const struct parked_ring *ring)
{
	return __atomic_load_n(&ring->head, __ATOMIC_SEQ_CST) !=
	       __atomic_load_n(&ring->tail, __ATOMIC_SEQ_CST);
}

bool parked_valid(struct mv_pager *pager, const struct parked_fault *fault)
{
	for (unsigned int i = 0; i < PAGER_REGIONS; i++) {
		struct pager_region *pr = __atomic_load_n(&pager->regions[i], __ATOMIC_ACQUIRE);

		if (pr && pr == fault->pr)
			return __atomic_load_n(&pr->armed, __ATOMIC_ACQUIRE) &&
			       fault->page < pr->region->pages;
	}
	return false;
}

static bool at_limit(struct mv_pager *pager)
{
	return pager_resident(pager) >= pager_read(&pager->limit_pages);
}

/* Whether there is an evictor who could make room. */
static bool may_park(struct mv_pager *pager)
{
	return __atomic_load_n(&pager->evictors, __ATOMIC_RELAXED) &&
	       !__atomic_load_n(&pager->stuck, __ATOMIC_RELAXED) &&
	       !__atomic_load_n(&pager->holds, __ATOMIC_RELAXED);
}

bool pager_no_room(struct mv_pager *pager)
{
	return at_limit(pager) && may_park(pager);
}

/* --- the thread ----------------------------------------------------------------------- */

struct handler {
	struct mv_pager *pager;
	void *buffer;
	struct uffd_msg messages[MESSAGES];
	/* Faults that the kernel would not let us resolve before an event is read. */
	struct parked_fault retry[PAGER_PARKED];
	unsigned int retries;
};

static bool needs_room(uint32_t word)
{
	return mv_word_state(word) != MV_PAGE_RESIDENT && mv_word_state(word) != MV_PAGE_POISONED;
}

static void keep_for_retry(struct handler *handler, const struct parked_fault *fault)
{
	if (handler->retries < PAGER_PARKED)
		handler->retry[handler->retries++] = *fault;
	else /* woken, it faults and is reported again */
		mv_uffd_wake(fault->pr->uffd, pr_hva(fault->pr, fault->page), MV_PAGE_SIZE);
}

static void handle_one(struct handler *handler, const struct parked_fault *fault)
{
	struct mv_pager *pager = handler->pager;
	uint32_t word = mv_page_load(&fault->pr->region->words[fault->page]);

	if (needs_room(word) && at_limit(pager)) {
		if (may_park(pager) && parked_put(&pager->parked, fault)) {
			pager_wake_evictors(pager);
			return;
		}
		pager_count(&pager->count.over_limit, 1);
	}
	if (pager_resolve(fault->pr, fault->page, fault->minor, handler->buffer) == -EAGAIN)
		keep_for_retry(handler, fault);
}

static void handle_fault(struct handler *handler, const struct uffd_msg *message)
{
	void *at = (void *)(uintptr_t)message->arg.pagefault.address;
	struct pager_region *pr = pager_region_at(handler->pager, at);

	if (!pr) /* detached meanwhile, and woken by that */
		return;
	struct parked_fault fault = {
		.pr = pr,
		.page = (uint64_t)((unsigned char *)at - pr->region->hva) >> MV_PAGE_SHIFT,
		.minor = message->arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_MINOR,
	};
	handle_one(handler, &fault);
	pager_kick_evictors(handler->pager);
}

static void retry_all(struct handler *handler)
{
	unsigned int count = handler->retries;

	handler->retries = 0;
	for (unsigned int i = 0; i < count; i++) {
		struct parked_fault fault = handler->retry[i];

		if (parked_valid(handler->pager, &fault))
			handle_one(handler, &fault);
	}
}

/* An evictor reads a staging page that has been moved back: see backing_private.c. */
static void handle_staging_fault(struct handler *handler, const struct uffd_msg *message)
{
	uint64_t at = message->arg.pagefault.address & ~(MV_PAGE_SIZE - 1);

	mv_uffd_zero(handler->pager->staging_uffd, (void *)(uintptr_t)at);
}

static void handle_message(struct handler *handler, int uffd, const struct uffd_msg *message)
{
	if (uffd == handler->pager->staging_uffd)
		handle_staging_fault(handler, message);
	else if (message->event == UFFD_EVENT_PAGEFAULT)
		handle_fault(handler, message);
	else if (message->event == UFFD_EVENT_REMOVE)
		pager_removed(handler->pager, message->arg.remove.start, message->arg.remove.end);
}

/* Return: whether there was anything to read. */
static bool read_messages(struct handler *handler, int uffd)
{
	ssize_t got = read(uffd, handler->messages, sizeof(handler->messages));

	for (ssize_t i = 0; i < got / (ssize_t)sizeof(handler->messages[0]); i++)
		handle_message(handler, uffd, &handler->messages[i]);
	return got > 0;
}

/*
 * Whoever was woken on this processor has often faulted again by the time we run on: to read
 * once more finds that at a third of what it costs to poll all descriptors first. The read
 * section is left in between, for those who wait for readers.
 */
static void drain(struct handler *handler, int uffd)
{
	struct mv_memory *memory = handler->pager->memory;
	bool more = true;

	for (unsigned int i = 0; more && i < READS; i++) {
		mv_memory_read_enter(memory);
		more = read_messages(handler, uffd);
		mv_memory_read_leave(memory);
	}
}

static void one_round(struct handler *handler, const struct pollfd *fds)
{
	struct mv_memory *memory = handler->pager->memory;
	uint64_t rung;

	if (fds[0].revents && read(fds[0].fd, &rung, sizeof(rung)) < 0 && errno != EAGAIN)
		return;
	for (int i = 1; i < HANDLER_FDS; i++)
		if (fds[i].revents)
			drain(handler, fds[i].fd);
	if (!handler->retries)
		return;
	mv_memory_read_enter(memory);
	retry_all(handler);
	mv_memory_read_leave(memory);
}

/* What waits for an event or for memory is tried again after a moment, whatever is read. */
static int wait_time(const struct handler *handler)
{
	return handler->retries ? 1 : -1;
}

static int handle_until_stopped(struct handler *handler)
{
	struct mv_pager *pager = handler->pager;

	while (!__atomic_load_n(&pager->stopping, __ATOMIC_ACQUIRE)) {
		/* Negative descriptors, of memory that there is none of, poll() passes over. */
		struct pollfd fds[HANDLER_FDS] = {
			{ pager->doorbell, POLLIN, 0 },
			{ __atomic_load_n(&pager->shared_uffd, __ATOMIC_ACQUIRE), POLLIN, 0 },
			{ __atomic_load_n(&pager->private_uffd, __ATOMIC_ACQUIRE), POLLIN, 0 },
			{ __atomic_load_n(&pager->staging_uffd, __ATOMIC_ACQUIRE), POLLIN, 0 },
		};
		if (poll(fds, HANDLER_FDS, wait_time(handler)) < 0 && errno != EINTR)
			return -errno;
		one_round(handler, fds);
	}
	return 0;
}

/* All that the path touches but the store's memory, which locks itself. */
static void lock_handler(struct handler *handler)
{
	if (mlock(handler, sizeof(*handler)) || mlock(handler->buffer, MV_PAGE_SIZE) ||
	    mlock(handler->pager, sizeof(*handler->pager)))
		__atomic_store_n(&handler->pager->unlocked, true, __ATOMIC_RELAXED);
}

int mv_pager_handle_faults(struct mv_pager *pager)
{
	struct handler *handler = calloc(1, sizeof(*handler));
	int error = handler ? 0 : -ENOMEM;

	if (__atomic_exchange_n(&pager->handlers, 1, __ATOMIC_ACQ_REL)) {
		free(handler);
		return -EBUSY;
	}
	if (!error && posix_memalign(&handler->buffer, MV_PAGE_SIZE, MV_PAGE_SIZE))
		error = -ENOMEM;
	if (!error) {
		handler->pager = pager;
		lock_handler(handler);
		error = handle_until_stopped(handler);
		munlock(handler->buffer, MV_PAGE_SIZE);
		munlock(handler, sizeof(*handler));
		free(handler->buffer);
	}
	free(handler);
	__atomic_store_n(&pager->handlers, 0, __ATOMIC_RELEASE);
	return error;
}
