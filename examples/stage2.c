/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The smallest use of a stage-2 space: a guest's memory, EPT for it, a fault, and the walk that a
 * processor then makes.
 *
 * A VMM does the same with what its processor reports. Here a walk of our own stands for it: it
 * ends in a violation with the exit qualification that Intel's manual defines, which is decoded
 * and resolved; the next walk succeeds.
 *
 *	cc stage2.c $(pkg-config --cflags --libs memvirt) -pthread
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* MAP_ANONYMOUS */
#endif
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <memvirt/ept.h>
#include <memvirt/memory.h>
#include <memvirt/stage2.h>

#define GUEST_GPA   0x100000000ULL
#define GUEST_BYTES (64UL << 20)
#define FEATURES    (MV_FEATURE_2M | MV_FEATURE_ACCESSED)

static void must(int error, const char *what)
{
	if (!error)
		return;
	fprintf(stderr, "stage2: %s: %s\n", what, strerror(-error));
	exit(1);
}

/* One access of the guest, as often as it takes. */
static void access_guest(struct mv_ept *ept, const struct mv_stage2 *processor, uint64_t gpa,
			 unsigned int access)
{
	static const char *const kinds[] = { "fixed", "spurious",  "retry",
					     "MMIO",  "protected", "misconfigured" };
	struct mv_ept_outcome outcome = { .kind = MV_EPT_FIXED };
	struct mv_stage2_walk walk;
	struct mv_stage2_exit exit;

	for (;;) {
		must(mv_stage2_walk(processor, gpa, access, &walk), "mv_stage2_walk");
		if (walk.kind == MV_STAGE2_OK || outcome.kind > MV_EPT_RETRY)
			break;
		printf("gpa %#llx: EPT violation, qualification %#llx", (unsigned long long)gpa,
		       (unsigned long long)walk.code);
		mv_stage2_decode_violation(walk.code, gpa, 0, FEATURES, &exit);
		must(mv_ept_fault(ept, 0, &exit, &outcome), "mv_ept_fault");
		printf(": %s\n", kinds[outcome.kind]);
	}
	if (walk.kind == MV_STAGE2_OK)
		printf("gpa %#llx: host address %#llx in a page of %llu KiB\n",
		       (unsigned long long)gpa, (unsigned long long)walk.phys,
		       1ULL << walk.page_lg2 >> 10);
}

int main(void)
{
	struct mv_memory_config memory_config = { .size = sizeof(memory_config) };
	struct mv_region_config region = { .size = sizeof(region),
					   .first_gpa = GUEST_GPA,
					   .last_gpa = GUEST_GPA + GUEST_BYTES - 1,
					   .fd = -1 };
	struct mv_ept_config config = { .size = sizeof(config),
					.format = MV_FORMAT_EPT_4L,
					.features = FEATURES,
					.maxphyaddr = 48,
					.node = -1 };
	struct mv_stage2_config tables;
	struct mv_stage2 processor;
	struct mv_ept *ept;

	region.hva =
		mmap(NULL, GUEST_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(region.hva == MAP_FAILED ? -12 : 0, "mmap");
	must(mv_memory_create(&memory_config, &config.memory), "mv_memory_create");
	must(mv_memory_add_region(config.memory, &region), "mv_memory_add_region");

	/* The space, and what the VMM would load into the VMCS. */
	must(mv_ept_create(&config, &ept), "mv_ept_create");
	must(mv_ept_attach(ept, GUEST_GPA), "mv_ept_attach");
	printf("EPTP %#llx\n", (unsigned long long)mv_ept_pointer(ept, 0));

	must(mv_ept_get_stage2_config(ept, 0, &tables), "mv_ept_get_stage2_config");
	must(mv_stage2_init(&processor, &tables), "mv_stage2_init");
	access_guest(ept, &processor, GUEST_GPA + 0x345678, MV_ACCESS_WRITE);
	access_guest(ept, &processor, 0xfee00000, MV_ACCESS_READ);
	must(mv_ept_protect(ept, 0, GUEST_GPA, GUEST_GPA + 0xfff, MV_ATTR_READ), "mv_ept_protect");
	access_guest(ept, &processor, GUEST_GPA, MV_ACCESS_WRITE);
	access_guest(ept, &processor, GUEST_GPA, MV_ACCESS_READ);

	mv_ept_destroy(ept);
	must(mv_memory_remove_region(config.memory, GUEST_GPA), "mv_memory_remove_region");
	mv_memory_destroy(config.memory);
	munmap(region.hva, GUEST_BYTES);
	return 0;
}
