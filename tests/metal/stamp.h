/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Stamped memory: each slot of 16 bytes says where it is, to who reads it and to who runs it.
 *
 *	0  number of the slot
 *	4  its complement
 *	8  mov $number, %ebx; cpuid; hlt
 */
#ifndef METAL_STAMP_H
#define METAL_STAMP_H

#include <stdbool.h>
#include <stdint.h>

#define SLOT_BYTES 16u
#define SLOT_CODE  8u /* offset of what can be run, and how much of it before the CPUID */
#define SLOT_MOV   5u

/* What the slot at a physical address says. */
static inline uint32_t stamp_of(uint64_t phys)
{
	return (uint32_t)(phys / SLOT_BYTES) ^ 0x5a5a0000;
}

void stamp_all(void);

/* Give up unless each slot is as it was made. */
void stamp_check(void);

#endif /* METAL_STAMP_H */
