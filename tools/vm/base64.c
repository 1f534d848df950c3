/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * base64; see base64.h.
 */
#include "vm/base64.h"

#include <errno.h>
#include <stdint.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(const void *bytes, size_t count, char *text)
{
	const unsigned char *in = bytes;

	for (; count >= 3; in += 3, count -= 3) {
		*text++ = alphabet[in[0] >> 2];
		*text++ = alphabet[(in[0] & 3) << 4 | in[1] >> 4];
		*text++ = alphabet[(in[1] & 15) << 2 | in[2] >> 6];
		*text++ = alphabet[in[2] & 63];
	}
	if (count) {
		unsigned int second = count == 2 ? in[1] : 0;

		*text++ = alphabet[in[0] >> 2];
		*text++ = alphabet[(in[0] & 3) << 4 | second >> 4];
		*text++ = count == 2 ? alphabet[(second & 15) << 2] : '=';
		*text++ = '=';
	}
	*text = '\0';
}

/* 64 for what is no character of the alphabet. */
static unsigned int value_of(char c)
{
	if (c >= 'A' && c <= 'Z')
		return (unsigned int)(c - 'A');
	if (c >= 'a' && c <= 'z')
		return (unsigned int)(c - 'a') + 26;
	if (c >= '0' && c <= '9')
		return (unsigned int)(c - '0') + 52;
	return c == '+' ? 62 : c == '/' ? 63 : 64;
}

/* Four characters, of which the last @pad are to be '='. Bits that carry nothing must be 0. */
static int decode_four(const char *text, unsigned int pad, unsigned char *out)
{
	uint32_t bits = 0;

	for (unsigned int i = 0; i < 4; i++) {
		unsigned int value = i < 4 - pad ? value_of(text[i]) : text[i] == '=' ? 0 : 64;

		if (value == 64)
			return -EINVAL;
		bits = bits << 6 | value;
	}
	if (bits & ((1u << 8 * pad) - 1))
		return -EINVAL;
	for (unsigned int i = 0; i < 3 - pad; i++)
		out[i] = (unsigned char)(bits >> (16 - 8 * i));
	return 0;
}

int base64_decode(const char *text, size_t length, void *bytes, size_t count)
{
	unsigned char *out = bytes;

	if (length != BASE64_LENGTH(count))
		return -EINVAL;
	for (; count; text += 4) {
		unsigned int pad = count >= 3 ? 0 : (unsigned int)(3 - count);

		if (decode_four(text, pad, out))
			return -EINVAL;
		out += 3 - pad;
		count -= 3 - pad;
	}
	return 0;
}
