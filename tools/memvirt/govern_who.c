/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Which VMs are governed: those of the run directory, and QEMUs that memvirt did not start, by
 * their QMP sockets or by libvirt.
 */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "govern.h"
#include "vm/say.h"
#include "vm/size.h"

#define QMP_SUFFIX ".qmp"

struct govern_vm *govern_find(const struct governor *governor, const char *name)
{
	for (unsigned int i = 0; i < governor->count; i++)
		if (!strcmp(governor->vms[i]->found.name, name))
			return governor->vms[i];
	return NULL;
}

static bool is_wanted(const struct governor *governor, const char *name)
{
	const struct govern_want *want = govern_config_want(&governor->config, name);

	return !governor->config.some_named || (want && want->named);
}

/* Once its memory has been found. */
static void say_joined(const struct governor *governor, struct govern_vm *vm)
{
	char size[SIZE_TEXT], floor_size[SIZE_TEXT];
	uint64_t configured = govern_vm_configured(vm);

	if (vm->said_joined || configured == MV_POLICY_UNKNOWN)
		return;
	vm->said_joined = true;
	say("%s: governed from now on, %s%s", vm->found.name, size_format(configured, size),
	    vm->plain ? ", by its balloon alone" : "");
	if (configured < governor->config.policy.floor_bytes)
		say("%s: is smaller than the floor of %s: its size is its floor", vm->found.name,
		    size_format(governor->config.policy.floor_bytes, floor_size));
}

static void join(struct governor *governor, const struct find_vm *found, const char *qmp,
		 bool plain)
{
	const struct govern_want *want = govern_config_want(&governor->config, found->name);
	struct govern_vm **more =
		realloc(governor->vms, (governor->count + 1) * sizeof(*governor->vms));
	struct govern_vm *vm = malloc(sizeof(*vm));

	if (more)
		governor->vms = more;
	if (!more || !vm) {
		free(vm);
		say("%s: no memory to govern it", found->name);
		return;
	}
	govern_vm_init(vm, found, want && want->qmp[0] ? want->qmp : qmp,
		       governor->config.interval_s, governor->config.dry_run);
	vm->plain = plain;
	vm->seen = true;
	governor->vms[governor->count++] = vm;
}

static void drop_unseen(struct governor *governor)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < governor->count; i++) {
		struct govern_vm *vm = governor->vms[i];

		if (vm->seen) {
			governor->vms[kept++] = vm;
			continue;
		}
		say("%s: has gone; its memory is free for the others", vm->found.name);
		govern_vm_drop(vm);
		free(vm);
	}
	governor->count = kept;
}

/* --- the run directory -------------------------------------------------------------------- */

/* A name that is used again is another VM: the old one's connections are of no use. */
static bool is_same(const struct govern_vm *vm, const struct find_vm *found)
{
	return !vm->plain &&
	       (found->state == FIND_UNREADABLE || vm->found.state == FIND_UNREADABLE ||
		(vm->found.stats.pid == found->stats.pid &&
		 vm->found.stats.start_time == found->stats.start_time));
}

static void take_found(struct governor *governor, const struct find_vm *found)
{
	struct govern_vm *vm = govern_find(governor, found->name);

	if (found->state == FIND_DEAD || !is_wanted(governor, found->name))
		return;
	if (vm && is_same(vm, found)) {
		vm->found = *found;
		vm->seen = true;
	} else if (found->state != FIND_UNREADABLE) {
		join(governor, found, NULL, false);
	}
}

static int search_run_dir(struct governor *governor)
{
	struct find_vm *found = NULL;
	unsigned int count = 0;
	int err = find_vms(governor->run_dir, &found, &count);

	if (err && err != -ENOENT) {
		say("run directory %s: %s", governor->run_dir, strerror(-err));
		return -1;
	}
	for (unsigned int i = 0; i < count; i++)
		take_found(governor, &found[i]);
	free(found);
	return 0;
}

/* --- QEMUs that memvirt did not start ----------------------------------------------------- */

/* A name may be in the list twice, while one VM goes and another comes. */
static bool is_seen(const struct governor *governor, const char *name)
{
	for (unsigned int i = 0; i < governor->count; i++)
		if (governor->vms[i]->seen && !strcmp(governor->vms[i]->found.name, name))
			return true;
	return false;
}

static void take_plain(struct governor *governor, const char *name, const char *qmp)
{
	struct govern_vm *vm = govern_find(governor, name);
	struct find_vm found = { .state = FIND_UNREADABLE, .error = -ENOENT };

	/* One that memvirt did start has been found already, and stands for its socket. */
	if (is_seen(governor, name) || (vm && !vm->plain) || !is_wanted(governor, name) ||
	    access(qmp, F_OK))
		return;
	if (vm) {
		vm->seen = true;
		return;
	}
	strcpy(found.name, name);
	memset(&found.stats, 0xff, sizeof(found.stats)); /* MV_STATS_UNKNOWN, each of them */
	join(governor, &found, qmp, true);
}

static void take_qmp_file(struct governor *governor, const char *file)
{
	const char *dot = strrchr(file, '.');
	char name[RUNDIR_NAME_MAX + 1] = "", path[RUNDIR_PATH_MAX];
	int len = snprintf(path, sizeof(path), "%s/%s", governor->config.qmp_dir, file);

	if (!dot || strcmp(dot, QMP_SUFFIX) || dot - file > RUNDIR_NAME_MAX || len < 0 ||
	    (size_t)len >= sizeof(path))
		return;
	memcpy(name, file, (size_t)(dot - file));
	if (rundir_name_valid(name))
		take_plain(governor, name, path);
}

static int search_qmp_dir(struct governor *governor)
{
	struct dirent *entry;
	DIR *handle;

	if (!governor->config.qmp_dir[0])
		return 0;
	handle = opendir(governor->config.qmp_dir);
	if (!handle) {
		say("QMP directory %s: %s", governor->config.qmp_dir, strerror(errno));
		return -1;
	}
	while ((entry = readdir(handle)))
		take_qmp_file(governor, entry->d_name);
	closedir(handle);
	return 0;
}

static void search_wanted(struct governor *governor)
{
	for (unsigned int i = 0; i < governor->config.want_count; i++) {
		const struct govern_want *want = &governor->config.wants[i];

		if (want->qmp[0])
			take_plain(governor, want->name, want->qmp);
	}
}

/* --- libvirt's ---------------------------------------------------------------------------- */

static void take_libvirt_vm(struct governor *governor, const struct libvirt_vm *said)
{
	struct govern_vm *vm = govern_find(governor, said->name);
	struct find_vm found = { .state = FIND_UNREADABLE, .error = -ENOENT };

	if ((vm && !vm->libvirt) || !is_wanted(governor, said->name))
		return;
	if (!vm) {
		strcpy(found.name, said->name);
		memset(&found.stats, 0xff, sizeof(found.stats)); /* MV_STATS_UNKNOWN */
		join(governor, &found, NULL, true);
		vm = govern_find(governor, said->name);
		if (!vm)
			return;
		vm->libvirt = governor->libvirt;
	}
	vm->seen = true;
	govern_vm_hear_libvirt(vm, said);
}

static void search_libvirt(struct governor *governor)
{
	struct libvirt_vm *vms;
	unsigned int count = governor->libvirt ? govern_libvirt_vms(governor->libvirt, &vms) : 0;

	for (unsigned int i = 0; i < count; i++)
		take_libvirt_vm(governor, &vms[i]);
	if (governor->libvirt)
		free(vms);
}

/* --- all ---------------------------------------------------------------------------------- */

int govern_search(struct governor *governor)
{
	for (unsigned int i = 0; i < governor->count; i++)
		governor->vms[i]->seen = false;
	if (search_run_dir(governor) || search_qmp_dir(governor))
		return -1;
	search_wanted(governor);
	search_libvirt(governor);
	drop_unseen(governor);
	for (unsigned int i = 0; i < governor->count; i++)
		say_joined(governor, governor->vms[i]);
	if (governor->count == 0 && !governor->said_none)
		say("no VM is running (run directory %s)", governor->run_dir);
	governor->said_none = governor->count == 0;
	return 0;
}

/* Who is named and not there was probably mistyped. */
int govern_check_named(const struct governor *governor)
{
	int status = 0;

	for (unsigned int i = 0; i < governor->config.want_count; i++) {
		const struct govern_want *want = &governor->config.wants[i];

		if (!want->named || govern_find(governor, want->name))
			continue;
		say("no VM named '%s' is running (run directory %s)", want->name,
		    governor->run_dir);
		status = -1;
	}
	return status;
}
