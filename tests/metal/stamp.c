/* SPDX-License-Identifier: BSD-2-Clause */
#include "stamp.h"

#include "console.h"
#include "layout.h"

/* mov imm32 is bb and the number; 0f a2 is cpuid, f4 hlt, which ends QEMU's translated block. */
#define CODE_FIRST 0xbbull
#define CODE_LAST  0xf4a20full

static void make(uint64_t phys, uint64_t word[2])
{
	uint64_t number = stamp_of(phys);

	word[0] = number | ~number << 32;
	word[1] = CODE_FIRST | number << 8 | CODE_LAST << 40;
}

void stamp_all(void)
{
	for (uint64_t phys = GUEST_DATA; phys < GUEST_DATA_END; phys += SLOT_BYTES)
		make(phys, (uint64_t *)phys);
}

void stamp_check(void)
{
	for (uint64_t phys = GUEST_DATA; phys < GUEST_DATA_END; phys += SLOT_BYTES) {
		const uint64_t *slot = (const uint64_t *)phys;
		uint64_t word[2];

		make(phys, word);
		if (slot[0] != word[0] || slot[1] != word[1])
			give_up("memory at %x was written to, and by nobody: %x %x", phys, slot[0],
				slot[1]);
	}
}
