/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Reading and printing sizes; see size.h.
 */
#include "vm/size.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <strings.h>

/* Digits of a fraction that can matter: 2^-40 of a T is one byte. */
#define FRACTION_DIGITS 13

/* unsigned __int128 holds 20 digits shifted by 40 bits with room to spare. */
typedef unsigned __int128 wide;

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The shift of a unit, or -1. Without a unit it is bytes. */
static int unit_shift(const char *unit)
{
	static const char letters[] = "KMGT";

	if (!*unit || !strcasecmp(unit, "B"))
		return 0;
	for (int i = 0; letters[i]; i++) {
		if (strncasecmp(unit, &letters[i], 1))
			continue;
		unit++;
		if (!*unit || !strcasecmp(unit, "B") || !strcasecmp(unit, "iB"))
			return 10 * (i + 1);
		return -1;
	}
	return -1;
}

/* The digits after the point as @value / @scale; text moves behind them. */
static bool parse_fraction(const char **text, wide *value, wide *scale)
{
	const char *at = *text;

	for (; is_digit(*at); at++) {
		if (at - *text >= FRACTION_DIGITS)
			continue;
		*value = *value * 10 + (wide)(*at - '0');
		*scale *= 10;
	}
	bool any = at != *text;
	*text = at;
	return any;
}

int size_parse(const char *text, uint64_t *bytes)
{
	wide whole = 0, part = 0, scale = 1;
	bool fraction = false;

	if (!is_digit(*text))
		return -EINVAL;
	for (; is_digit(*text); text++) {
		whole = whole * 10 + (wide)(*text - '0');
		if (whole > UINT64_MAX)
			whole = (wide)UINT64_MAX + 1; /* stays out of range, does not wrap */
	}
	if (*text == '.') {
		text++;
		fraction = parse_fraction(&text, &part, &scale);
		if (!fraction)
			return -EINVAL;
	}
	int shift = unit_shift(text);
	if (shift < 0 || (fraction && shift == 0))
		return -EINVAL;
	wide size = (whole << shift) + (part << shift) / scale;
	if (size >= UINT64_MAX)
		return -ERANGE;
	*bytes = (uint64_t)size;
	return 0;
}

const char *size_format(uint64_t bytes, char *text)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = (double)bytes;
	unsigned int unit = 0;

	if (bytes == UINT64_MAX) {
		snprintf(text, SIZE_TEXT, "-");
		return text;
	}
	while (value >= 1023.5 && unit < sizeof(units) / sizeof(units[0]) - 1) {
		value /= 1024;
		unit++;
	}
	if (unit == 0 || value >= 99.95)
		snprintf(text, SIZE_TEXT, "%.0f %s", value, units[unit]);
	else
		snprintf(text, SIZE_TEXT, "%.1f %s", value, units[unit]);
	return text;
}

const char *size_format_short(uint64_t amount, unsigned int base, char *text)
{
	static const char *const units[] = { "", "K", "M", "G", "T", "P", "E" };
	double value = (double)amount;
	unsigned int unit = 0;

	if (amount == UINT64_MAX) {
		snprintf(text, SIZE_TEXT, "-");
		return text;
	}
	while (value >= base - 0.5 && unit < sizeof(units) / sizeof(units[0]) - 1) {
		value /= base;
		unit++;
	}
	snprintf(text, SIZE_TEXT, unit == 0 || value >= 99.95 ? "%.0f%s" : "%.1f%s", value,
		 units[unit]);
	return text;
}
