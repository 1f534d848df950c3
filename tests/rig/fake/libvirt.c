// SPDX-License-Identifier: BSD-2-Clause
/*
 * A libvirt that is none, loaded in its place by tests of memvirt govern: one VM, "farm", of
 * 512 MiB, whose guest uses little. FAKE_LIBVIRT names a directory: targets are appended to
 * `targets` there, and calls hang while `hang` exists.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define EXPORT	   __attribute__((visibility("default")))
#define CONFIGURED (512UL * 1024)

struct stat_pair {
	int tag;
	unsigned long long value;
};

static unsigned long actual = CONFIGURED;

static const char *path_of(const char *file)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", getenv("FAKE_LIBVIRT"), file);
	return path;
}

static void hang_while_told(void)
{
	while (access(path_of("hang"), F_OK) == 0)
		usleep(20000);
}

EXPORT void *virConnectOpen(const char *uri)
{
	return &actual;
}

EXPORT int virConnectClose(void *connection)
{
	return 0;
}

EXPORT int virConnectListAllDomains(void *connection, void ***domains, unsigned int flags)
{
	hang_while_told();
	*domains = calloc(2, sizeof(**domains));
	(*domains)[0] = &actual;
	return 1;
}

EXPORT const char *virDomainGetName(void *domain)
{
	return "farm";
}

EXPORT unsigned long virDomainGetMaxMemory(void *domain)
{
	return CONFIGURED;
}

/* 32 MiB are the kernel's own, 80 are used. */
EXPORT int virDomainMemoryStats(void *domain, struct stat_pair *stats, unsigned int count,
				unsigned int flags)
{
	unsigned long total = actual - 32 * 1024, available = total - 80 * 1024;

	stats[0] = (struct stat_pair){ 4, available };
	stats[1] = (struct stat_pair){ 5, total };
	stats[2] = (struct stat_pair){ 6, actual };
	stats[3] = (struct stat_pair){ 8, available };
	stats[4] = (struct stat_pair){ 9, (unsigned long long)time(NULL) };
	return 5;
}

EXPORT int virDomainSetMemoryStatsPeriod(void *domain, int seconds, unsigned int flags)
{
	return 0;
}

EXPORT int virDomainSetMemoryFlags(void *domain, unsigned long kib, unsigned int flags)
{
	FILE *file = fopen(path_of("targets"), "a");

	actual = kib;
	fprintf(file, "%lu\n", kib);
	fclose(file);
	return 0;
}

EXPORT int virDomainFree(void *domain)
{
	return 0;
}

EXPORT const char *virGetLastErrorMessage(void)
{
	return "nothing is wrong";
}

EXPORT void virSetErrorFunc(void *data, void (*handler)(void *data, void *error))
{
}
