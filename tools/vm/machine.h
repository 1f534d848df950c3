/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What QEMU says of its machine: a processor's registers, which guest-physical addresses are
 * memory, and where QEMU's process has that. Most of it is text for people, from the human
 * monitor (hmp-commands-info.hx): what cannot be understood is refused, never guessed.
 *
 * What does not belong here: the connection (rpc.h), what registers mean.
 */
#ifndef VM_MACHINE_H
#define VM_MACHINE_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

#define MACHINE_NAME_MAX 128

/**
 * struct machine_registers - a processor's, as far as paging asks for them
 * @rflags: with AC, bit 18
 * @cpl:    current privilege level
 * @pkru:   where @pkru_known; QEMU's own text does not show it
 */
struct machine_registers {
	uint64_t cr0;
	uint64_t cr3;
	uint64_t cr4;
	uint64_t efer;
	uint64_t rflags;
	unsigned int cpl;
	uint32_t pkru;
	bool pkru_known;
};

/**
 * machine_parse_registers() - the answer to `info registers`
 * @text:      the answer
 * @registers: set on success
 *
 * Return: 0; -EBADMSG where one is missing: no x86 machine, or another QEMU.
 */
int machine_parse_registers(const char *text, struct machine_registers *registers);

/**
 * struct machine_range - guest-physical addresses with memory behind them
 * @first_gpa: first address
 * @last_gpa:  last one
 * @rom:       the guest cannot write it
 * @block:     QEMU's name of the memory block
 * @offset:    of @first_gpa, bytes into the block
 */
struct machine_range {
	uint64_t first_gpa;
	uint64_t last_gpa;
	bool rom;
	char block[MACHINE_NAME_MAX];
	uint64_t offset;
};

/**
 * machine_parse_memory() - the answer to `info mtree -f`
 * @text:   the answer
 * @ranges: set on success; the caller's, to free(); sorted, of the address space "memory"
 * @count:  set on success, at least 1
 *
 * What is mapped for devices is left out, theirs are no tables.
 *
 * Return: 0; -EBADMSG; -ENOMEM.
 */
int machine_parse_memory(const char *text, struct machine_range **ranges, unsigned int *count);

/**
 * machine_parse_hva() - the answer to `gpa2hva`
 * @text: the answer
 * @hva:  set on success to the address in QEMU's process
 *
 * Return: 0; -ENOENT where no memory is there; -EBADMSG.
 */
int machine_parse_hva(const char *text, uint64_t *hva);

/**
 * machine_find_cpu() - a processor in the answer to query-cpus-fast
 * @answer: the answer
 * @index:  which
 * @count:  set to how many there are
 *
 * Return: its path in QEMU's object tree, as long as @answer; NULL where there is no such one.
 */
const char *machine_find_cpu(struct json_object *answer, unsigned int index, unsigned int *count);

/** machine_args_human() - for human-monitor-command; @cpu -1 for none; NULL without memory */
struct json_object *machine_args_human(const char *line, int cpu);

#endif /* VM_MACHINE_H */
