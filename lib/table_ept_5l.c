/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine for extended page tables of five levels: SDM vol. 3, 29.3.
 * What does not belong here: anything else.
 */
#define TABLE_FORMAT mv_format_ept_5l
#include "table_ops.h"

const struct mv_engine_ops mv_engine_ept_5l = TABLE_OPS;
