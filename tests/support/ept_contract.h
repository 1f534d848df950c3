/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the contract tests of stage-2 spaces share: a space and a processor, and each case over
 * all four formats. Only what calls names it: a test may use or leave out any of it.
 */
#ifndef TESTS_EPT_CONTRACT_H
#define TESTS_EPT_CONTRACT_H

#include "support/ept_rig.h"
#include "support/testing.h"

#define PAGE  MV_PAGE_SIZE
#define MIB2  (1ULL << 21)
#define GIB   (1ULL << 30)
#define BASE  (4 * GIB) /* of most regions */
#define READ  MV_ACCESS_READ
#define WRITE MV_ACCESS_WRITE
#define FETCH MV_ACCESS_FETCH
#define R     MV_ATTR_READ
#define RW    (MV_ATTR_READ | MV_ATTR_WRITE)
#define RX    (MV_ATTR_READ | MV_ATTR_EXEC)

/* Of the case that runs. */
extern struct ept_rig rig;
extern struct sim_cpu cpu;

struct ept_case {
	const char *name;
	void (*run)(void **state);
};

#define EPT_CASE(name)                                                                             \
	{                                                                                          \
#name, name                                                                        \
	}

/* Each case with each format. Return: as cmocka_run_group_tests(). */
int ept_cases_run(const struct ept_case *cases, unsigned int count);

/* The format that a case is to use. */
enum mv_format_id format_of(void **state);

/* Of the format, 1 GiB to lay regions in unless the options say more, and a processor. */
void open_with(void **state, struct ept_rig_options options);
void open_plain(void **state);

/* Checks all invariants before. */
void close_rig(void);

/* What a region that begins at BASE maps to. */
uint64_t hpa_at(uint64_t offset);

/* The leaf of an address; page_lg2 0 where there is none. */
struct mv_mapping leaf_at(unsigned int view, uint64_t gpa);

struct mv_ept_stats stats_now(void);

/* The processor's access ends so, and where it is made, at the right place. */
void assert_touch(uint64_t gpa, unsigned int access, enum mv_ept_fault_kind how);

#endif /* TESTS_EPT_CONTRACT_H */
