/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A pager at work in the test's own process: one region of a chosen kind, a store that can
 * be told to fail or to pause, and the pager's threads.
 */
#ifndef TESTS_PAGER_RIG_H
#define TESTS_PAGER_RIG_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include <memvirt/memory.h>
#include <memvirt/pager.h>
#include <memvirt/store.h>

enum rig_kind {
	RIG_SHARED,  /* memfd */
	RIG_PRIVATE, /* anonymous */
	RIG_KINDS,
};

/* A store in front of a real one. All fields may be changed while it is used. */
struct meddling_store {
	struct mv_store store;
	struct mv_store *real;
	int put_error;	   /* returned by every put, where not 0 */
	int get_error;	   /* by every get of get_error_key */
	uint64_t get_error_key;
	/* A put of pause_key calls during_put(), with the evictor in the middle of it. */
	uint64_t pause_key;
	void (*during_put)(void *ctx);
	void *ctx;
	uint64_t paused; /* how often */
};

struct pager_rig {
	enum rig_kind kind;
	struct mv_memory *memory;
	struct meddling_store store;
	struct mv_pager *pager;
	uint64_t pages;
	unsigned char *mem;
	int fd;
	pthread_t handler;
	pthread_t evictors[4];
	unsigned int evictor_count;
	bool handling;
};

#define RIG_GPA	   0x100000000ULL
#define RIG_NO_KEY UINT64_MAX

const char *rig_kind_name(enum rig_kind kind);

/* Whether the machine can run a kind; where not, says why on a "# skip-reason:" line. */
bool rig_possible(enum rig_kind kind);

/* Everything but the threads. @limit in bytes. Fails the test on an error. */
void rig_open(struct pager_rig *rig, enum rig_kind kind, uint64_t pages, uint64_t limit);
void rig_start(struct pager_rig *rig, unsigned int evictors);

/* Detach (unless already done), stop, free; checks that nothing is left in the store. */
void rig_close(struct pager_rig *rig);

/* The kind that a test of RIG_BOTH() is to run on; skips it where the machine cannot. */
enum rig_kind rig_kind_of(void **state);

/* With all pages filled and the evictor at work: residency is at the limit. */
void rig_open_full(struct pager_rig *rig, enum rig_kind kind, uint64_t pages, uint64_t limit);

/* The first page in a state; fails the test where there is none. */
uint64_t rig_find_page(struct pager_rig *rig, enum mv_page_state state);

/* A page's whole content follows from its number and a generation. */
void rig_fill_page(unsigned char *page, uint64_t number, uint64_t generation);
bool rig_check_page(const unsigned char *page, uint64_t number, uint64_t generation);
bool rig_page_is_zero(const unsigned char *page);

/* Fill all pages with generation 0; check all. Returns the number of wrong ones. */
void rig_fill(struct pager_rig *rig);
uint64_t rig_check(struct pager_rig *rig);

/* Wait up to ten seconds for a condition; fails the test where it does not come. */
#define rig_wait(condition)                                                                        \
	do {                                                                                       \
		for (int rig_turns = 0; !(condition); rig_turns++) {                              \
			if (rig_turns == 10000)                                                    \
				fail_msg("timed out: %s", #condition);                             \
			usleep(1000);                                                              \
		}                                                                                  \
	} while (0)

uint64_t rig_resident(struct pager_rig *rig); /* bytes, by the pager */
uint64_t rig_allocated(struct pager_rig *rig); /* bytes, as the kernel counts from outside */
enum mv_page_state rig_state(struct pager_rig *rig, uint64_t page);
struct mv_pager_stats rig_stats(struct pager_rig *rig);

static inline unsigned char *rig_page(const struct pager_rig *rig, uint64_t page)
{
	return rig->mem + page * MV_PAGE_SIZE;
}

/* In an array of tests: the test on each kind of memory. */
#define RIG_ON(kind, name, test)                                                                   \
	{                                                                                          \
		#test " on " name, test, NULL, NULL, (void *)(intptr_t)(kind)                      \
	}
#define RIG_BOTH(test)                                                                             \
	RIG_ON(RIG_SHARED, "memfd", test), RIG_ON(RIG_PRIVATE, "anonymous", test)

#endif /* TESTS_PAGER_RIG_H */
