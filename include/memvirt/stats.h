/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The statistics segment: a file in memory that a VM's process publishes and that others
 * map read-only, so that a monitor never disturbs or waits for a VM.
 *
 * The layout is an interface between processes of different versions: fields are only
 * added at the end, each is 64 bits wide, and @bytes says how many there are. A number that
 * nobody has supplied is MV_STATS_UNKNOWN, never 0. One writer; readers use the sequence.
 */
#ifndef MEMVIRT_STATS_H
#define MEMVIRT_STATS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define MV_STATS_MAGIC	 0x74617473766d656dULL /* "memvstat" in memory order */
#define MV_STATS_VERSION 1
#define MV_STATS_UNKNOWN UINT64_MAX
#define MV_STATS_NAME	 64

/**
 * struct mv_stats - what a VM publishes of itself
 *
 * Times are CLOCK_MONOTONIC in nanoseconds, bytes are bytes, the rest counts since start.
 * A *_time says when the numbers behind it were taken; MV_STATS_UNKNOWN where never.
 */
struct mv_stats {
	uint64_t magic;	   /* MV_STATS_MAGIC; a segment is whole before it has its name */
	uint64_t version;  /* MV_STATS_VERSION */
	uint64_t bytes;	   /* sizeof(struct mv_stats) of the writer */
	uint64_t sequence; /* odd while the writer writes */
	uint64_t pid;
	uint64_t start_time;
	char name[MV_STATS_NAME]; /* NUL-terminated */

	uint64_t pager_time; /* of all up to overhead_bytes */
	uint64_t configured_bytes;
	uint64_t managed_bytes;
	uint64_t resident_bytes;
	uint64_t limit_bytes; /* MV_STATS_UNKNOWN where none is set */
	uint64_t stored_pages;
	uint64_t stored_same_filled;
	uint64_t stored_bytes;	 /* compressed content */
	uint64_t store_memory_bytes; /* host memory that the store uses */
	uint64_t discarded_bytes; /* given up by the guest: balloon, reporting */
	uint64_t pinned_bytes;
	uint64_t holds; /* enum mv_pager_hold */
	uint64_t faults;
	uint64_t zero_fills;
	uint64_t touches;
	uint64_t restores;
	uint64_t evictions;
	uint64_t discards;
	uint64_t cancels;
	uint64_t waits;
	uint64_t over_limit;
	uint64_t refusals;
	uint64_t store_full;
	uint64_t poisoned;
	uint64_t overhead_bytes;

	uint64_t balloon_time; /* of the balloon's, told by the governor */
	uint64_t balloon_actual_bytes; /* what the guest says that it has */
	uint64_t balloon_target_bytes;

	uint64_t guest_time; /* of the guest's own, told by the governor */
	uint64_t guest_total_bytes;
	uint64_t guest_free_bytes;
	uint64_t guest_available_bytes;
	uint64_t guest_disk_cache_bytes;
	uint64_t guest_major_faults;
	uint64_t guest_minor_faults;
	uint64_t guest_swap_in_bytes;
	uint64_t guest_swap_out_bytes;
	uint64_t guest_oom_kills;

	uint64_t restore_ns; /* of the pager's: time that threads waited for restores */
	uint64_t active_bytes; /* of the pager's: touched lately, by mv_pager_sample_begin() */
};

struct mv_stats_writer;

/**
 * mv_stats_publish() - create a segment
 * @path:   file to create; replaced atomically where it exists
 * @name:   the VM's name; at most MV_STATS_NAME - 1 bytes
 * @writer: set on success; all numbers begin as MV_STATS_UNKNOWN
 *
 * The file is made under a name of its own in the same directory, and renamed when whole.
 *
 * Context: may sleep.
 * Return: 0; -EINVAL for an empty or long name; -ENOMEM; -errno of the file.
 */
int mv_stats_publish(const char *path, const char *name, struct mv_stats_writer **writer);

/**
 * mv_stats_begin() - the numbers, to be changed
 * @writer: the writer
 *
 * Context: one thread at a time; no system call. Readers go on seeing the numbers of before.
 * Return: the writer's own copy, as it was left last, of which the fields after @name may be
 * written with plain stores.
 */
struct mv_stats *mv_stats_begin(struct mv_stats_writer *writer);

/**
 * mv_stats_end() - publish what was written since mv_stats_begin()
 * @writer: the writer
 *
 * Context: as mv_stats_begin(). Readers retry meanwhile: some tens of nanoseconds.
 */
void mv_stats_end(struct mv_stats_writer *writer);

/** mv_stats_withdraw() - unmap, and remove the file if it still is ours; takes NULL */
void mv_stats_withdraw(struct mv_stats_writer *writer);

/**
 * mv_stats_read() - one consistent copy of a segment
 * @path:  its file
 * @stats: set on success; fields that the writer does not have are MV_STATS_UNKNOWN
 *
 * Context: any process; never waits for the writer: a writer that died in between gives
 * -EAGAIN after a bounded number of tries.
 * Return: 0; -EPROTO where the file is no segment or a version we do not know; -EAGAIN;
 * -errno of the file.
 */
int mv_stats_read(const char *path, struct mv_stats *stats);

/**
 * mv_stats_read_fd() - the same of a file that is open
 * @fd:    open for reading; where it stands does not matter and is not changed. A segment that
 *         was replaced or removed goes on being read as it was left
 * @stats: set on success
 *
 * Context: as mv_stats_read(), at a third of its cost.
 * Return: as mv_stats_read().
 */
int mv_stats_read_fd(int fd, struct mv_stats *stats);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_STATS_H */
