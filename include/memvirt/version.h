/* SPDX-License-Identifier: BSD-2-Clause */
#ifndef MEMVIRT_VERSION_H
#define MEMVIRT_VERSION_H

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#define MV_VERSION_STRING "0.1.0"

/**
 * mv_version() - the version of the library that runs, which may differ from the header's
 *
 * Return: a constant string.
 */
const char *mv_version(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_VERSION_H */
