/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The smallest use of the pager: 64 MiB of guest memory in 16 MiB of the host's.
 *
 * A VMM does the same with its own mapping of guest RAM: describe it as a region, give the
 * pager a store, start the pager's two threads, and set a limit. Nothing else in the VMM
 * changes: vCPUs and device threads fault, and find their pages.
 *
 *	cc overcommit.c $(pkg-config --cflags --libs memvirt) -pthread
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* memfd_create() */
#endif
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memvirt/memory.h>
#include <memvirt/pager.h>
#include <memvirt/store.h>

#define GUEST_BYTES (64UL << 20)
#define HOST_BYTES  (16UL << 20)

static void must(int error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "overcommit: %s: %s\n", what, strerror(-error));
	exit(1);
}

static void *handle_faults(void *pager)
{
	must(mv_pager_handle_faults(pager), "mv_pager_handle_faults");
	return NULL;
}

static void *evict(void *pager)
{
	must(mv_pager_evict(pager), "mv_pager_evict");
	return NULL;
}

/* The pager's threads take no signals: those are the VMM's. */
static void start(pthread_t *thread, void *(*run)(void *), struct mv_pager *pager)
{
	sigset_t all, before;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	must(-pthread_create(thread, NULL, run, pager), "pthread_create");
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

/* Guest RAM as a VMM maps it: shared, so that the pager works on every kernel from 5.14. */
static unsigned char *map_guest_ram(int *fd)
{
	*fd = memfd_create("guest-ram", MFD_CLOEXEC);
	if (*fd < 0 || ftruncate(*fd, GUEST_BYTES)) {
		perror("overcommit: memfd");
		exit(1);
	}
	void *ram = mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);

	if (ram == MAP_FAILED) {
		perror("overcommit: mmap");
		exit(1);
	}
	return ram;
}

/* The guest's work: fill everything, then find it all again. */
static unsigned long run_guest(unsigned char *ram)
{
	unsigned long wrong = 0;

	for (uint64_t at = 0; at < GUEST_BYTES; at += sizeof(at))
		memcpy(ram + at, &(uint64_t){ at >> 6 }, sizeof(at));
	for (uint64_t at = 0; at < GUEST_BYTES; at += sizeof(at))
		wrong += !!memcmp(ram + at, &(uint64_t){ at >> 6 }, sizeof(at));
	return wrong;
}

int main(void)
{
	struct mv_memory_config memory_config = { .size = sizeof(memory_config) };
	struct mv_ram_store_config store_config = { .size = sizeof(store_config),
						    .keys = GUEST_BYTES / MV_PAGE_SIZE,
						    .limit_bytes = UINT64_MAX };
	struct mv_memory *memory;
	struct mv_store *store;
	struct mv_pager *pager;
	struct mv_pager_stats stats;
	struct mv_store_stats stored;
	pthread_t handler, evictor;
	int fd;
	unsigned char *ram = map_guest_ram(&fd);
	struct mv_region_config region = { .size = sizeof(region),
					   .first_gpa = 0,
					   .last_gpa = GUEST_BYTES - 1,
					   .hva = ram,
					   .fd = fd };

	must(mv_memory_create(&memory_config, &memory), "mv_memory_create");
	must(mv_memory_add_region(memory, &region), "mv_memory_add_region");
	must(mv_ram_store_create(&store_config, &store), "mv_ram_store_create");

	struct mv_pager_config pager_config = { .size = sizeof(pager_config),
						.memory = memory,
						.store = store,
						.store_keys = GUEST_BYTES / MV_PAGE_SIZE,
						.limit_bytes = HOST_BYTES };
	must(mv_pager_create(&pager_config, &pager), "mv_pager_create");
	start(&handler, handle_faults, pager);
	start(&evictor, evict, pager);
	must(mv_pager_attach(pager, region.first_gpa), "mv_pager_attach");

	unsigned long wrong = run_guest(ram);

	mv_pager_get_stats(pager, &stats);
	store->ops->get_stats(store, &stored);
	printf("guest %lu MiB, resident %llu MiB, stored %llu pages in %llu KiB; "
	       "%llu faults, %llu evictions, %llu restores; wrong words: %lu\n",
	       GUEST_BYTES >> 20, (unsigned long long)stats.resident_bytes >> 20,
	       (unsigned long long)stored.pages, (unsigned long long)stored.memory_bytes >> 10,
	       (unsigned long long)stats.faults, (unsigned long long)stats.evictions,
	       (unsigned long long)stats.restores, wrong);

	must(mv_pager_detach(pager, region.first_gpa), "mv_pager_detach");
	mv_pager_stop(pager);
	pthread_join(handler, NULL);
	pthread_join(evictor, NULL);
	mv_pager_destroy(pager);
	mv_store_destroy(store);
	must(mv_memory_remove_region(memory, region.first_gpa), "mv_memory_remove_region");
	mv_memory_destroy(memory);
	munmap(ram, GUEST_BYTES);
	close(fd);
	return wrong ? 1 : 0;
}
