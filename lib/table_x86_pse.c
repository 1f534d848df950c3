/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The engine for 32-bit paging with 4 MiB pages and PSE-36: SDM vol. 3, 4.3.
 * What does not belong here: anything else.
 */
#define TABLE_FORMAT mv_format_x86_pse
#include "table_ops.h"

const struct mv_engine_ops mv_engine_x86_pse = TABLE_OPS;
