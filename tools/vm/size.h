/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Sizes as people write and read them.
 */
#ifndef VM_SIZE_H
#define VM_SIZE_H

#include <stdint.h>

#define SIZE_TEXT 24

/**
 * size_parse() - a size in bytes
 * @text:  digits, perhaps a fraction, perhaps K, M, G or T (powers of 1,024; iB or B may
 *         follow, and case does not matter): "512M", "1.5G", "4096", "256MiB"
 * @bytes: set on success; parts of a byte are cut off
 *
 * Return: 0; -EINVAL where it is no size; -ERANGE where it is 2^64-1 or more, which stands
 * for unknown and unlimited.
 */
int size_parse(const char *text, uint64_t *bytes);

/**
 * size_format() - a size for people, three digits or a little more: "384 MiB", "1.5 GiB"
 * @bytes: UINT64_MAX gives "-"
 * @text:  SIZE_TEXT bytes
 *
 * Return: @text.
 */
const char *size_format(uint64_t bytes, char *text);

/**
 * size_format_short() - a size or a count for a narrow column: at most 5 characters, "512M",
 * "1.5G", "0"
 * @amount: UINT64_MAX gives "-"
 * @base:   1024 for sizes, 1000 for counts
 * @text:   SIZE_TEXT bytes
 *
 * Return: @text.
 */
const char *size_format_short(uint64_t amount, unsigned int base, char *text);

#endif /* VM_SIZE_H */
