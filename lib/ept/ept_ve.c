/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Virtualization exceptions: the area in which a processor tells a guest of its own EPT violations.
 * SDM vol. 3, 26.5.7.
 *
 * Freestanding. What does not belong here: which pages may raise one (ept_views.c).
 */
#include <memvirt/ept.h>

#define EXIT_REASON_EPT_VIOLATION 48
#define AREA_BUSY		  0xffffffffu

_Static_assert(offsetof(struct mv_ve_info, busy) == 4 &&
		       offsetof(struct mv_ve_info, qualification) == 8 &&
		       offsetof(struct mv_ve_info, gla) == 16 &&
		       offsetof(struct mv_ve_info, gpa) == 24 &&
		       offsetof(struct mv_ve_info, eptp_index) == 32,
	       "SDM vol. 3, table 26-1");

bool mv_ve_deliver(struct mv_ve_info *info, const struct mv_stage2_walk *walk, uint64_t gla,
		   unsigned int view)
{
	if (walk->kind != MV_STAGE2_VIOLATION || walk->suppress_ve ||
	    __atomic_load_n(&info->busy, __ATOMIC_ACQUIRE))
		return false;
	info->reason = EXIT_REASON_EPT_VIOLATION;
	info->qualification = walk->code;
	info->gla = gla;
	info->gpa = walk->gpa;
	info->eptp_index = (uint16_t)view;
	/* Release pairs with the acquire in mv_ve_take(): the rest is written. */
	__atomic_store_n(&info->busy, AREA_BUSY, __ATOMIC_RELEASE);
	return true;
}

bool mv_ve_take(struct mv_ve_info *info, uint32_t features, struct mv_stage2_exit *exit,
		unsigned int *view)
{
	if (!__atomic_load_n(&info->busy, __ATOMIC_ACQUIRE))
		return false;
	mv_stage2_decode_violation(info->qualification, info->gpa, info->gla, features, exit);
	*view = info->eptp_index;
	/* Release: it has been read before another may come. */
	__atomic_store_n(&info->busy, 0, __ATOMIC_RELEASE);
	return true;
}
