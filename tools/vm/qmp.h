/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What QEMU's answers about a balloon mean. QEMU's docs/interop/qemu-qmp-ref and
 * docs/virtio-balloon-stats.txt.
 *
 * A guest's number is never trusted: what cannot be is unknown.
 *
 * What does not belong here: the connection (rpc.h).
 */
#ifndef VM_QMP_H
#define VM_QMP_H

#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#define QMP_PATH_MAX 256

/* Where devices with and without an id are found by qom-list. */
#define QMP_PERIPHERAL	    "/machine/peripheral"
#define QMP_PERIPHERAL_ANON "/machine/peripheral-anon"

/**
 * struct qmp_guest_stats - what a guest says of its memory; UINT64_MAX is unknown
 * @update_s: when the guest said it, seconds since 1970 by the host's clock; 0 for never
 */
struct qmp_guest_stats {
	uint64_t update_s;
	uint64_t total_bytes;
	uint64_t free_bytes;
	uint64_t available_bytes;
	uint64_t disk_cache_bytes;
	uint64_t major_faults;
	uint64_t minor_faults;
	uint64_t swap_in_bytes;
	uint64_t swap_out_bytes;
	uint64_t oom_kills;
};

/**
 * qmp_find_balloon() - the balloon device among those of qom-list
 * @list:   the answer
 * @parent: the path that was listed
 * @path:   QMP_PATH_MAX bytes; set on success to the device's own
 *
 * Return: 0; -ENOENT where there is none; -EBADMSG where it is no list.
 */
int qmp_find_balloon(struct json_object *list, const char *parent, char *path);

/**
 * qmp_parse_balloon() - the answer to query-balloon
 * @answer:       the answer
 * @actual_bytes: set on success
 *
 * Return: 0; -EBADMSG.
 */
int qmp_parse_balloon(struct json_object *answer, uint64_t *actual_bytes);

/**
 * qmp_parse_guest_stats() - the answer to qom-get guest-stats
 * @answer: the answer
 * @stats:  set on success
 *
 * Return: 0; -EBADMSG.
 */
int qmp_parse_guest_stats(struct json_object *answer, struct qmp_guest_stats *stats);

/**
 * qmp_parse_memory_size() - the answer to query-memory-size-summary
 * @answer: the answer
 * @bytes:  set on success: what the guest has, with what was plugged in: what a balloon counts from
 *
 * Return: 0; -EBADMSG.
 */
int qmp_parse_memory_size(struct json_object *answer, uint64_t *bytes);

/* Arguments of commands, to be given to rpc_start(); NULL without memory. */
struct json_object *qmp_args_list(const char *path);
struct json_object *qmp_args_get(const char *path, const char *property);
struct json_object *qmp_args_set(const char *path, const char *property, uint64_t value);
struct json_object *qmp_args_balloon(uint64_t bytes);

#endif /* VM_QMP_H */
