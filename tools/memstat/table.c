/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The table for people: two lines a VM, a third where something keeps it from evicting.
 */
#include "memstat.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "vm/size.h"
#include "vm/stat_names.h"

#define NAME_COLUMN 16

static void print_size(uint64_t bytes)
{
	char text[SIZE_TEXT];

	printf(" %6s", size_format_short(bytes, 1024, text));
}

static void print_count(uint64_t count)
{
	char text[SIZE_TEXT];

	printf(" %6s", size_format_short(count, 1000, text));
}

static void print_ratio(double ratio)
{
	if (ratio > 0 && ratio < 9999)
		printf(" %5.1f", ratio);
	else
		printf(" %5s", "-");
}

static void print_age(const char *group, uint64_t age_ns)
{
	if (age_ns == UNKNOWN)
		printf(" %s -", group);
	else if (age_ns < 100 * 1000000000ULL)
		printf(" %s %.1fs", group, (double)age_ns / 1e9);
	else
		printf(" %s %" PRIu64 "s", group, age_ns / 1000000000);
}

static void print_numbers(const struct sample *sample)
{
	const struct mv_stats *stats = &sample->vm.stats;

	/* A long name has a line of its own. */
	printf("%-*s", NAME_COLUMN, sample->vm.name);
	if (strlen(sample->vm.name) > NAME_COLUMN)
		printf("\n%-*s", NAME_COLUMN, "");
	print_size(stats->configured_bytes);
	print_size(stats->resident_bytes);
	print_size(stats->limit_bytes);
	print_size(sample->stored_original_bytes);
	print_size(stats->stored_bytes);
	print_ratio(sample->stored_ratio);
	print_size(sample->ballooned_bytes);
	print_count(sample->rates.faults);
	print_count(sample->rates.restores);
	printf("\n");
}

static void print_state(const struct sample *sample)
{
	char text[SIZE_TEXT];

	printf("  %s", find_state_name(sample->vm.state));
	if (sample->vm.state == FIND_UNREADABLE) {
		printf(": %s\n", sample->vm.error == -EPROTO ? "not a segment of this version"
							     : strerror(-sample->vm.error));
		return;
	}
	printf(", pid %" PRIu64, sample->vm.stats.pid);
	if (sample->vm.state == FIND_DEAD) {
		printf(", has gone and left its files\n");
		return;
	}
	printf(", discarded %s, age:",
	       size_format_short(sample->vm.stats.discarded_bytes, 1024, text));
	print_age("pager", sample->pager_age_ns);
	print_age("balloon", sample->balloon_age_ns);
	print_age("guest", sample->guest_age_ns);
	printf("\n");
}

static void print_holds(uint64_t holds)
{
	if (holds == UNKNOWN || holds == 0)
		return;
	printf("  not evicting:");
	for (unsigned int bit = 0; bit < 64; bit++)
		if (holds >> bit & 1)
			printf(" %s", stat_hold_name(bit));
	printf("\n");
}

void print_table(const struct sample *samples, unsigned int count)
{
	if (count == 0)
		return;
	printf("%-*s %6s %6s %6s %6s %6s %5s %6s %6s %6s\n", NAME_COLUMN, "VM", "SIZE", "RESID",
	       "LIMIT", "STORED", "AS", "RATIO", "BALLN", "FLT/S", "RST/S");
	for (unsigned int i = 0; i < count; i++) {
		print_numbers(&samples[i]);
		print_state(&samples[i]);
		print_holds(samples[i].vm.stats.holds);
	}
}
