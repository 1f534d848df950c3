/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Kernel interfaces of userfaultfd that are newer than the headers of Debian 12 (6.1), in
 * our own words. Values are the kernel's (include/uapi/linux/userfaultfd.h); whether a
 * kernel has them is asked at run time.
 */
#ifndef MV_UFFD_ABI_H
#define MV_UFFD_ABI_H

#include <linux/types.h>
#include <linux/userfaultfd.h>

#define MV_UFFD_FEATURE_POISON (1ULL << 14) /* Linux 6.6 */
#define MV_UFFD_FEATURE_MOVE   (1ULL << 16) /* Linux 6.8 */

struct mv_uffdio_move {
	__u64 dst;
	__u64 src;
	__u64 len;
	__u64 mode;
	__s64 move; /* bytes moved, or -errno */
};

struct mv_uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};

#define MV_UFFDIO_MOVE	 _IOWR(UFFDIO, 0x05, struct mv_uffdio_move)
#define MV_UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct mv_uffdio_poison)

#endif /* MV_UFFD_ABI_H */
