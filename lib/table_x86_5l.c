/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine for 5-level paging: SDM vol. 3, 4.5.
 * What does not belong here: anything else.
 */
#define TABLE_FORMAT mv_format_x86_5l
#include "table_ops.h"

const struct mv_engine_ops mv_engine_x86_5l = TABLE_OPS;
