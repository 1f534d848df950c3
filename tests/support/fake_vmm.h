/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A small VMM for the tests of the preload library: the test program runs itself again
 * under LD_PRELOAD, once for each scenario, as `memvirt run` would start a VMM. Holds and
 * settings last as long as a process, hence a process for each.
 *
 *	int main(int argc, char **argv)
 *	{
 *		return vmm_run_all(argc, argv, scenarios, COUNT_OF(scenarios), "16777216");
 *	}
 *
 * A scenario checks with insist(). It sees its own memory as the guest would, and asks its
 * own control socket how memvirt sees it.
 */
#ifndef TESTS_FAKE_VMM_H
#define TESTS_FAKE_VMM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <json-c/json.h>

#define MIB (1UL << 20)

struct vmm_scenario {
	const char *name;
	void (*run)(void);
	bool unlimited; /* no limit, whatever the others have */
};

/* --- in the test --------------------------------------------------------------------------- */

/*
 * All of main(): each scenario is a case, run under a limit of so many bytes. In a process
 * that was started as a scenario it runs that, and does not return.
 */
int vmm_run_all(int argc, char **argv, const struct vmm_scenario *scenarios, size_t count,
		const char *limit);

/* Run a scenario; fails the test where it fails, skips where it says so. @limit: bytes, or
 * NULL for none. */
void vmm_run(const char *scenario, const char *limit);

/* --- in a scenario ------------------------------------------------------------------------- */

/* End the scenario as skipped. */
_Noreturn void vmm_skip(const char *reason);

/* The same where a sanitizer's library cannot do what the scenario asks for. */
void vmm_skip_sanitized(const char *reason);

/* Guest memory as QEMU maps it: address space reserved, then filled at a fixed place. @fd: -1
 * for private memory, -2 for shared memory without a descriptor. */
void *vmm_map(size_t bytes, int fd, off_t offset);
int vmm_memfd(size_t bytes);

/* A private VM's and a shared one's memory, filled, its limit reached. */
void *vmm_full_memfd(size_t bytes, int *fd);

/* Fill with pages that are told apart by @seed and place; check all bytes of them. */
void vmm_fill(void *memory, size_t bytes, uint64_t seed);
bool vmm_holds_content(const void *memory, size_t bytes, uint64_t seed);
/* The same for a part of what was filled, @offset bytes into it. */
bool vmm_holds_content_at(const void *memory, size_t bytes, uint64_t seed, size_t offset);
bool vmm_is_zero(const void *memory, size_t bytes);

/* Ask our own control socket. @arguments: JSON or NULL. NULL where it refused. */
struct json_object *vmm_ask(const char *command, const char *arguments);
uint64_t vmm_stat(const char *name);

/* Once it stays the same: a fault wakes its thread a moment before it is counted. */
uint64_t vmm_stat_at_rest(const char *name);
/* Wait until a number is at least, or at most, so large; fails after 20 s. */
void vmm_wait_at_least(const char *name, uint64_t value);
void vmm_wait_at_most(const char *name, uint64_t value);

/* Whether some reason to hold has this word in it; "" for any. */
bool vmm_held(const char *word);

struct vmm_region {
	bool found;
	bool managed;
	uint64_t first_gpa; /* UINT64_MAX: null */
	uint64_t bytes;
	char backing[16];
	char reason[256];
};
struct vmm_region vmm_region(unsigned int index);

/* Whether memvirt has come to life in this process. */
bool vmm_managed(void);

/* Paths of our socket and segment, and a scratch file for direct I/O. */
const char *vmm_socket(void);
const char *vmm_segment(void);
int vmm_direct_file(size_t bytes);

/* A function of a library that the program does not link: the preload library's comes first. */
void *vmm_function(const char *library, const char *name);

#endif /* TESTS_FAKE_VMM_H */
