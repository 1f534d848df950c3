/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The numbers of a statistics segment by name, as query-stats, note and memstat --json
 * spell them. One table, so that none of them forgets a field.
 *
 * What does not belong here: what the numbers mean (memvirt/stats.h).
 */
#ifndef VM_STAT_NAMES_H
#define VM_STAT_NAMES_H

#include <stddef.h>
#include <stdint.h>

#include <memvirt/stats.h>

/** enum stat_group - who supplies a number; each group has one time */
enum stat_group {
	STAT_PAGER,
	STAT_BALLOON, /* may be told with `note` */
	STAT_GUEST,   /* may be told with `note` */
};

/** struct stat_name - one number; the times are not among them */
struct stat_name {
	const char *name; /* "resident-bytes" */
	enum stat_group group;
	size_t offset; /* of its uint64_t in struct mv_stats */
};

extern const struct stat_name stat_names[];
extern const unsigned int stat_name_count;

static inline uint64_t *stat_field(struct mv_stats *stats, const struct stat_name *stat)
{
	return (uint64_t *)((char *)stats + stat->offset);
}

static inline uint64_t stat_value(const struct mv_stats *stats, const struct stat_name *stat)
{
	return *(const uint64_t *)((const char *)stats + stat->offset);
}

/** stat_group_time() - when the numbers of a group were taken; MV_STATS_UNKNOWN for never */
uint64_t stat_group_time(const struct mv_stats *stats, enum stat_group group);

/** stat_hold_name() - why nothing is evicted, in a word; @bit of enum mv_pager_hold */
const char *stat_hold_name(unsigned int bit);

#endif /* VM_STAT_NAMES_H */
