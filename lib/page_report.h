/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What is told of pages, page by page, into a caller's bitmap: which were written, which were used.
 *
 * What does not belong here: how it was found out (lib/ept, lib/shadow).
 */
#ifndef MV_PAGE_REPORT_H
#define MV_PAGE_REPORT_H

#include <memvirt/memory.h>

#include "format.h"

/**
 * struct mv_page_report - the caller's bitmap
 * @first_gpa, @last_gpa: what it stands for
 * @bitmap: one bit a page, bit 0 of word 0 first; may be NULL
 * @count:  pages set in it that were not, or all pages told of where it is NULL
 * @found:  whether any was told of
 */
struct mv_page_report {
	uint64_t first_gpa, last_gpa;
	uint64_t *bitmap;
	uint64_t count;
	bool found;
};

MV_INLINE void mv_report_page(struct mv_page_report *report, uint64_t gpa)
{
	uint64_t page = (gpa - report->first_gpa) >> MV_PAGE_SHIFT;

	report->found = true;
	if (!report->bitmap) {
		report->count++;
		return;
	}
	if (report->bitmap[page / 64] & MV_BIT(page % 64))
		return;
	report->bitmap[page / 64] |= MV_BIT(page % 64);
	report->count++;
}

/* All pages of a range that the bitmap stands for. */
MV_INLINE void mv_report_range(struct mv_page_report *report, uint64_t gpa, uint64_t last)
{
	gpa = gpa < report->first_gpa ? report->first_gpa : gpa;
	last = last > report->last_gpa ? report->last_gpa : last;
	/* The last page may end the address space. */
	for (; gpa < last; gpa += MV_PAGE_SIZE) {
		mv_report_page(report, gpa);
		if (last - gpa < MV_PAGE_SIZE)
			break;
	}
}

#endif /* MV_PAGE_REPORT_H */
