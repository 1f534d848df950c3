/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The freestanding library's default platform: none, so that a caller must bring one.
 * libmemvirt has platform_linux.c in its place.
 */
#include <stddef.h>

#include "region.h"

const struct mv_platform *mv_platform_default(void)
{
	return NULL;
}
