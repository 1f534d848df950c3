/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine for nested page tables of five levels: APM vol. 2, 15.25.
 * What does not belong here: anything else.
 */
#define TABLE_FORMAT mv_format_npt_5l
#include "table_ops.h"

const struct mv_engine_ops mv_engine_npt_5l = TABLE_OPS;
