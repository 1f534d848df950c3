/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Effective memory types: what comes of the guest's PAT, the stage-2 entry and, with nested
 * paging, the host's PAT and MTRRs. SDM vol. 3, 12.5.2.2 and 29.3.7; APM vol. 2, 15.25.8.
 *
 * Freestanding.
 */
#include "nested.h"

/* Short, so that the tables below look like the manuals'. */
enum {
	UC = MV_TYPE_UC,
	WC = MV_TYPE_WC,
	WT = MV_TYPE_WT,
	WP = MV_TYPE_WP,
	WB = MV_TYPE_WB,
	UM = MV_TYPE_UC_MINUS,
	CD = MV_TYPE_CD,
	WD = MV_TYPE_WC_PLUS,
};

/* clang-format off */

/* SDM vol. 3, table 12-7; with EPT its types stand for those of the MTRRs. */
const uint8_t mv_nested_ept_types[8][8] = {
	/*	 UC  WC  -   -   WT  WP  WB  UC- */
	[UC] = { UC, WC, UC, UC, UC, UC, UC, UC },
	[WC] = { UC, WC, UC, UC, UC, UC, WC, WC },
	[WT] = { UC, WC, UC, UC, WT, WP, WT, UC },
	[WP] = { UC, WC, UC, UC, WT, WP, WP, WC },
	[WB] = { UC, WC, UC, UC, WT, WP, WB, UC },
};

/* APM vol. 2, table 15-19: the guest's PAT type (row) with the host's. */
static const uint8_t both_pats[8][8] = {
	/*	 UC  WC  -   -   WT  WP  WB  UC- */
	[UC] = { UC, UC, UC, UC, UC, UC, UC, UC },
	[WC] = { WC, WC, UC, UC, WD, WD, WD, WC },
	[WT] = { UC, WD, UC, UC, WT, UC, WT, UC },
	[WP] = { UC, WD, UC, UC, UC, WP, WP, UC },
	[WB] = { UC, WD, UC, UC, WT, WP, WB, UC },
	[UM] = { UC, WC, UC, UC, UC, UC, UC, UM },
};

/* APM vol. 2, table 15-20: that (row) with the type of the host's MTRRs. */
static const uint8_t pat_and_mtrr[10][8] = {
	/*	 UC  WC  -   -   WT  WP  WB  - */
	[UC] = { UC, CD, UC, UC, CD, CD, CD, UC },
	[UM] = { UC, WC, UC, UC, CD, CD, CD, UC },
	[WC] = { WC, WC, UC, UC, WC, WC, WC, UC },
	[WD] = { WC, WC, UC, UC, WD, WD, WD, UC },
	[WP] = { UC, CD, UC, UC, CD, WP, WP, UC },
	[WT] = { UC, CD, UC, UC, WT, CD, WT, UC },
	[WB] = { UC, WC, UC, UC, WT, WP, WB, UC },
};

/* clang-format on */

unsigned int mv_nested_type_ept(unsigned int ept_type, bool ignore_pat, unsigned int pat_type)
{
	return ignore_pat ? ept_type & 7 : mv_nested_ept_types[ept_type & 7][pat_type & 7];
}

unsigned int mv_nested_type_npt(unsigned int guest_type, unsigned int host_type,
				unsigned int mtrr_type)
{
	return pat_and_mtrr[both_pats[guest_type & 7][host_type & 7]][mtrr_type & 7];
}

unsigned int mv_nested_type_of_npt(const struct mv_nested *nested, uint32_t guest_attr,
				   uint32_t stage2_attr, uint64_t hpa, unsigned int page_lg2)
{
	unsigned int host_type = mv_pat_type(nested->host_pat, MV_ATTR_TYPE_OF(stage2_attr));
	unsigned int guest_type = MV_TYPE_WB, mtrr_type = MV_TYPE_WB;

	if (nested->paging.registers.cr0 & MV_CR0_CD)
		return MV_TYPE_CD;
	if (nested->paging.enabled)
		guest_type = mv_pat_type(nested->guest_pat, MV_ATTR_TYPE_OF(guest_attr));
	if (nested->mtrr_type)
		mtrr_type = nested->mtrr_type(nested->mtrr_ctx, hpa, page_lg2);
	return mv_nested_type_npt(guest_type, host_type, mtrr_type);
}
