/* SPDX-License-Identifier: BSD-2-Clause */
/* The image: the payload runs at PAYLOAD and is kept at the start of the ROM. */
#include "layout.h"

ENTRY(start16)
SECTIONS
{
	. = PAYLOAD;
	.payload : AT(ROM_BASE) {
		*(.parameters)
		*(.text*)
		*(.rodata*)
		*(.data*)
		*(.got*)
		. = ALIGN(16);
	}
	.bss (NOLOAD) : {
		bss_first = .;
		*(.bss*)
		*(COMMON)
		. = ALIGN(16);
		bss_end = .;
	}
	payload_rom = LOADADDR(.payload);
	payload_words = SIZEOF(.payload) / 4;
	bss_words = (bss_end - bss_first) / 4;
	ASSERT(bss_end <= PAYLOAD_END, "the payload does not fit below its heap")
	ASSERT(SIZEOF(.payload) <= ROM_BYTES - 0x1000, "the payload does not fit into the ROM")

	. = ROM_BOOT;
	.boot : AT(ROM_BOOT) { *(.boot) }
	. = RESET_VECTOR;
	.reset : AT(RESET_VECTOR) { *(.reset) }
	/DISCARD/ : { *(.comment) *(.note*) *(.eh_frame*) *(.interp) *(.dyn*) *(.gnu*) }
}
