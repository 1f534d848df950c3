/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the freestanding core needs on bare metal: the three functions of memory, and a platform
 * whose memory is a fixed piece and whose read sections are empty, for one processor has no
 * readers beside it.
 */
#ifndef METAL_BARE_H
#define METAL_BARE_H

#include <memvirt/platform.h>

extern const struct mv_platform bare_platform;

/* Forget all that was allocated: each world starts with an empty heap. */
void bare_reset(void);

/* Table pages and bytes of the heap that the core has not given back. */
uint64_t bare_pages_in_use(void);
uint64_t bare_bytes_in_use(void);

/* Host exceptions: say which and where, and give up. */
void bare_catch_exceptions(void);

/* The descriptor tables, for the host's part of a VMCS. */
uint64_t bare_gdt_base(void);
uint64_t bare_idt_base(void);

#endif /* METAL_BARE_H */
