/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looks into a RAM store from outside: what of it really is in memory, whether its records
 * agree with its log, and where an object lies, to break it.
 */
#ifndef TESTS_RAM_PROBE_H
#define TESTS_RAM_PROBE_H

#include <stdint.h>

#include <memvirt/store.h>

#include "balloon/ram_store.h"

/* A RAM store with these keys and limit, or a failed test. */
struct mv_store *ram_open(uint64_t keys, uint64_t limit_bytes);

/* The store behind the interface. */
struct ram_store *ram_of(struct mv_store *store);

struct mv_store_stats ram_stats(struct mv_store *store);

/*
 * Fails the test unless, with nobody using the store: memory_bytes is what mincore() finds
 * of index and log, and the records that are there from the start; each object that the
 * index names is whole and its key's; each segment's dead bytes are those of no such object;
 * the counters agree with the index.
 */
void ram_check(struct mv_store *store);

/* The object of a key, or NULL where the index holds its content or nothing. */
struct ram_object *ram_object_of(struct mv_store *store, uint64_t key);

/* maintain() until it has nothing more to do. */
void ram_clean(struct mv_store *store);

#endif /* TESTS_RAM_PROBE_H */
