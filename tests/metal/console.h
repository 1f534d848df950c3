/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the image says: lines on port 0xE9, which both models pass on. And its end.
 * models.py reads it; main.c describes the lines.
 */
#ifndef METAL_CONSOLE_H
#define METAL_CONSOLE_H

#include <stdint.h>

/* %s, %u (uint64_t, decimal), %x (uint64_t, hexadecimal with 0x), %%. Nothing else. */
void say(const char *format, ...);

/* "bad: …", and off. For what is no mismatch but makes going on pointless. */
void give_up(const char *format, ...) __attribute__((noreturn));

void power_off(void) __attribute__((noreturn));

#endif /* METAL_CONSOLE_H */
