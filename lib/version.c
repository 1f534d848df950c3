/* SPDX-License-Identifier: BSD-2-Clause */
/* The version of the library that runs. */
#include <memvirt/version.h>

const char *mv_version(void)
{
	return MV_VERSION_STRING;
}
