/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The guest's memory. What a VMM does for memvirt is all here: it maps shared memory, describes
 * it as a region, and starts two threads. Nothing else in the VMM changes: vCPUs and devices
 * fault, and find their pages.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "minivmm.h"

/*
 * The handler stays on the processor that faults: woken there it finds everything in the cache,
 * and nobody waits for another processor to wake up. With one vCPU thread that is simple: both
 * stay on the processor on which we begin.
 */
static void stay_here(void)
{
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET(sched_getcpu(), &here);
	/* Where it may not be so, it is slower. */
	sched_setaffinity(0, sizeof(here), &here);
}

static void *handle_faults(void *pager)
{
	must(mv_pager_handle_faults(pager), "mv_pager_handle_faults");
	return NULL;
}

/* Anywhere but where the vCPU is. */
static void *evict(void *pager)
{
	cpu_set_t all;

	CPU_ZERO(&all);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		CPU_SET(cpu, &all);
	sched_setaffinity(0, sizeof(all), &all);
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

/* Shared, so that the pager works on every kernel from 5.14 on. */
static void map(struct ram *ram)
{
	ram->fd = memfd_create("guest-ram", MFD_CLOEXEC);
	if (ram->fd < 0 || ftruncate(ram->fd, (off_t)ram->bytes))
		die("guest memory: %s", strerror(errno));
	ram->hva = mmap(NULL, ram->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ram->fd, 0);
	if (ram->hva == MAP_FAILED)
		die("guest memory: %s", strerror(errno));
}

static void manage(struct ram *ram, uint64_t limit_bytes)
{
	const struct mv_ram_store_config store = { .size = sizeof(store),
						   .keys = ram->bytes / MV_PAGE_SIZE,
						   .limit_bytes = UINT64_MAX };
	struct mv_pager_config pager = { .size = sizeof(pager),
					 .memory = ram->memory,
					 .store_keys = store.keys,
					 .limit_bytes = limit_bytes };

	must(mv_ram_store_create(&store, &ram->store), "mv_ram_store_create");
	pager.store = ram->store;
	must(mv_pager_create(&pager, &ram->pager), "mv_pager_create");
	start(&ram->handler, handle_faults, ram->pager);
	start(&ram->evictor, evict, ram->pager);
	must(mv_pager_attach(ram->pager, 0), "mv_pager_attach");
}

void ram_create(struct ram *ram, const struct options *options)
{
	const struct mv_memory_config config = { .size = sizeof(config) };
	struct mv_region_config region = { .size = sizeof(region), .first_gpa = 0 };

	ram->bytes = options->memory_bytes;
	map(ram);
	region.last_gpa = ram->bytes - 1;
	region.hva = ram->hva;
	region.fd = ram->fd;
	must(mv_memory_create(&config, &ram->memory), "mv_memory_create");
	must(mv_memory_add_region(ram->memory, &region), "mv_memory_add_region");
	stay_here();
	manage(ram, options->limit_bytes);
}

/* In the order in which they lean on each other. The guest does not run any more. */
void ram_destroy(struct ram *ram)
{
	must(mv_pager_forget(ram->pager, 0), "mv_pager_forget");
	mv_pager_stop(ram->pager);
	pthread_join(ram->handler, NULL);
	pthread_join(ram->evictor, NULL);
	mv_pager_destroy(ram->pager);
	mv_store_destroy(ram->store);
	must(mv_memory_remove_region(ram->memory, 0), "mv_memory_remove_region");
	mv_memory_destroy(ram->memory);
	munmap(ram->hva, ram->bytes);
	close(ram->fd);
}

void ram_write(struct ram *ram, uint64_t gpa, const void *from, size_t bytes)
{
	must(mv_memory_write(ram->memory, gpa, from, bytes), "what is loaded does not fit");
}
