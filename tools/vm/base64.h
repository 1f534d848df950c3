/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Bytes as text, for JSON: base64 with padding, RFC 4648, section 4. No json-c: the preload
 * library links this.
 */
#ifndef VM_BASE64_H
#define VM_BASE64_H

#include <stddef.h>

/* Characters of so many bytes, without a NUL. */
#define BASE64_LENGTH(bytes) (((bytes) + 2) / 3 * 4)

/**
 * base64_encode() - bytes to text
 * @bytes: what to encode
 * @count: how many
 * @text:  BASE64_LENGTH(@count) + 1 bytes; set, with a NUL
 */
void base64_encode(const void *bytes, size_t count, char *text);

/**
 * base64_decode() - text to bytes
 * @text:   what to decode
 * @length: of it, characters
 * @bytes:  set; on failure perhaps in part
 * @count:  how many are expected, and fit
 *
 * Return: 0; -EINVAL where the text is not base64 of @count bytes exactly.
 */
int base64_decode(const char *text, size_t length, void *bytes, size_t count);

#endif /* VM_BASE64_H */
