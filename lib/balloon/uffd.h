/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * userfaultfd as the pager uses it: one page or one run at a time, errors as -errno.
 *
 * Every call that supplies a page also wakes whoever waits for it.
 */
#ifndef MV_UFFD_H
#define MV_UFFD_H

#include <stdint.h>

#include "uffd_abi.h"

/* Features this kernel offers to this user, as bits of the kernel's. 0 or -errno. */
int mv_uffd_features(uint64_t *features);

/* A descriptor with the named features, non-blocking, closed on exec; or -errno. */
int mv_uffd_open(uint64_t features);

/* @mode: UFFDIO_REGISTER_MODE_…; -EBUSY where another descriptor has the range. */
int mv_uffd_register(int uffd, void *start, uint64_t bytes, uint64_t mode);
int mv_uffd_unregister(int uffd, void *start, uint64_t bytes);

/*
 * Supply the page at @dst. -EEXIST where there is one (waiters are woken then too),
 * -EAGAIN where the mapping is just changing: an event waits to be read first, -ENOENT or
 * -ESRCH where mapping or process have gone.
 */
int mv_uffd_copy(int uffd, void *dst, const void *src);
int mv_uffd_zero(int uffd, void *dst);
int mv_uffd_poison(int uffd, void *dst);

/* Map the page that the file holds at @dst; -ENOENT where it holds none. */
int mv_uffd_continue(int uffd, void *dst);

/*
 * Move @bytes of anonymous pages. Return: bytes moved, from the start on, or -errno of the
 * first page: -ENOENT where there is none, -EBUSY where the kernel holds it.
 */
int64_t mv_uffd_move(int uffd, void *dst, void *src, uint64_t bytes);

void mv_uffd_wake(int uffd, void *start, uint64_t bytes);

#endif /* MV_UFFD_H */
