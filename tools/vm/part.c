/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Parts of a whole; see part.h.
 */
#include "vm/part.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>

int part_parse(const char *text, double max, double *part)
{
	char *end;
	double value = strtod(text, &end);
	bool percent = *end == '%';

	if (percent)
		value /= 100;
	/* Written so that what is no number is refused. */
	if (end == text || end[percent] || !(value >= 0 && value <= max))
		return -EINVAL;
	*part = value;
	return 0;
}
