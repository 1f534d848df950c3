/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The numbers of a VM: what the pager publishes, what the governor tells of the guest, shown in the statistics segment and by query-stats; see server.h.
 */
#include "memvirt/preload/server.h"

#include <errno.h>
#include <string.h>

#include <memvirt/stats.h>

#include "memvirt/preload/preload.h"
#include "vm/clock.h"
#include "vm/control_wire.h"
#include "vm/stat_names.h"

int publish_open(struct server *server)
{
	char path[RUNDIR_PATH_MAX];
	int error =
		rundir_path(preload.settings.run_dir, preload.settings.name, RUNDIR_STATS, path);

	if (!error)
		error = mv_stats_publish(path, preload.settings.name, &server->writer);
	return error;
}

void publish_close(struct server *server)
{
	pthread_mutex_lock(&server->publish_lock);
	mv_stats_withdraw(server->writer);
	server->writer = NULL;
	pthread_mutex_unlock(&server->publish_lock);
}

static void forget_pager(struct mv_stats *stats)
{
	for (unsigned int i = 0; i < stat_name_count; i++)
		if (stat_names[i].group == STAT_PAGER)
			*stat_field(stats, &stat_names[i]) = MV_STATS_UNKNOWN;
}

/* Without a pager its numbers are unknown. */
static void collect(struct mv_stats *stats)
{
	struct mv_pager *pager = engine_pager(&preload.engine);

	if (pager) {
		mv_pager_publish(pager, stats);
	} else {
		forget_pager(stats);
		stats->pager_time = clock_now();
	}
	stats->configured_bytes = ram_bytes();
}

void publish(struct server *server)
{
	pthread_mutex_lock(&server->publish_lock);
	if (server->writer) {
		collect(mv_stats_begin(server->writer));
		mv_stats_end(server->writer);
	}
	pthread_mutex_unlock(&server->publish_lock);
}

/* --- the same over the control socket ----------------------------------------------------- */

static int add_numbers(struct json_object *object, const struct mv_stats *stats)
{
	int error = wire_add_u64(object, "pid", stats->pid);

	error = error ? error : wire_add_u64(object, "start-time", stats->start_time);
	error = error ? error : wire_add_u64(object, "pager-time", stats->pager_time);
	error = error ? error : wire_add_u64(object, "balloon-time", stats->balloon_time);
	error = error ? error : wire_add_u64(object, "guest-time", stats->guest_time);
	for (unsigned int i = 0; i < stat_name_count && !error; i++)
		error = wire_add_u64(object, stat_names[i].name, stat_value(stats, &stat_names[i]));
	return error;
}

struct json_object *publish_query(struct server *server)
{
	struct json_object *object = json_object_new_object();
	struct mv_stats stats;

	publish(server);
	memset(&stats, 0xff, sizeof(stats));
	pthread_mutex_lock(&server->publish_lock);
	if (server->writer)
		stats = *mv_stats_begin(server->writer);
	pthread_mutex_unlock(&server->publish_lock);
	if (object && add_numbers(object, &stats)) {
		json_object_put(object);
		object = NULL;
	}
	return object;
}

static const struct stat_name *find_note(const char *name)
{
	for (unsigned int i = 0; i < stat_name_count; i++)
		if (stat_names[i].group != STAT_PAGER && strcmp(stat_names[i].name, name) == 0)
			return &stat_names[i];
	return NULL;
}

/*
 * Take one number into a copy; null forgets it. A name that this version does not know is
 * passed over.
 */
static int note_number(struct mv_stats *stats, struct json_object *arguments, const char *name)
{
	const struct stat_name *stat = find_note(name);
	uint64_t value = MV_STATS_UNKNOWN;
	int error = stat ? wire_get_u64(arguments, name, &value) : 0;

	if (error && error != -ENODATA)
		return -EINVAL;
	if (!stat)
		return 0;
	*stat_field(stats, stat) = value;
	*(stat->group == STAT_BALLOON ? &stats->balloon_time : &stats->guest_time) = clock_now();
	return 0;
}

int publish_note(struct server *server, struct json_object *arguments, const char **wrong)
{
	struct mv_stats *shown, copy;
	int error = 0;

	pthread_mutex_lock(&server->publish_lock);
	shown = server->writer ? mv_stats_begin(server->writer) : NULL;
	if (shown) {
		copy = *shown;
		json_object_object_foreach (arguments, name, value) {
			(void)value;
			error = error ? error : note_number(&copy, arguments, name);
			if (error && !*wrong)
				*wrong = name;
		}
		if (!error) {
			*shown = copy;
			mv_stats_end(server->writer);
		}
	}
	pthread_mutex_unlock(&server->publish_lock);
	return error;
}
