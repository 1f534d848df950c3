/* SPDX-License-Identifier: BSD-2-Clause */
/* What the contract tests of stage-2 spaces share; see ept_contract.h. */
#include "support/ept_contract.h"

struct ept_rig rig;
struct sim_cpu cpu;

enum mv_format_id format_of(void **state)
{
	return *(const enum mv_format_id *)*state;
}

void open_with(void **state, struct ept_rig_options options)
{
	options.format = format_of(state);
	options.bytes = options.bytes ? options.bytes : GIB;
	ept_rig_open(&rig, &options);
	rig.cpus = &cpu;
	rig.cpu_count = 1;
	sim_cpu_init(&cpu, rig.ept, &rig.guest.fake.platform, 0, 1);
}

void open_plain(void **state)
{
	open_with(state, (struct ept_rig_options){ 0 });
}

void close_rig(void)
{
	ept_rig_check(&rig);
	ept_rig_close(&rig);
}

uint64_t hpa_at(uint64_t offset)
{
	return (uintptr_t)rig.base + offset;
}

struct mv_mapping leaf_at(unsigned int view, uint64_t gpa)
{
	struct mv_mapping mapping = { 0 };

	if (mv_ept_walk(rig.ept, view, gpa, &mapping))
		mapping.page_lg2 = 0;
	return mapping;
}

struct mv_ept_stats stats_now(void)
{
	struct mv_ept_stats now;

	mv_ept_get_stats(rig.ept, &now);
	return now;
}

void assert_touch(uint64_t gpa, unsigned int access, enum mv_ept_fault_kind how)
{
	uint64_t hpa = 0;

	assert_int_equal(rig_touch(&rig, &cpu, gpa, access, &hpa), how);
	if (how == MV_EPT_FIXED || how == MV_EPT_SPURIOUS)
		assert_int_equal(hpa, hpa_at(gpa - BASE));
}

/* --- all formats -------------------------------------------------------------------------- */

static enum mv_format_id formats[] = { MV_FORMAT_EPT_4L, MV_FORMAT_EPT_5L, MV_FORMAT_NPT_4L,
				       MV_FORMAT_NPT_5L };
static const char *const format_names[] = { "EPT 4", "EPT 5", "NPT 4", "NPT 5" };

#define NAME_MAX_BYTES 80

int ept_cases_run(const struct ept_case *cases, unsigned int count)
{
	struct CMUnitTest tests[count * COUNT_OF(formats)];
	char names[count * COUNT_OF(formats)][NAME_MAX_BYTES];
	unsigned int all = 0;

	for (unsigned int f = 0; f < COUNT_OF(formats); f++)
		for (unsigned int i = 0; i < count; i++, all++) {
			snprintf(names[all], NAME_MAX_BYTES, "%s: %s", format_names[f],
				 cases[i].name);
			tests[all] = (struct CMUnitTest){ .name = names[all],
							  .test_func = cases[i].run,
							  .initial_state = &formats[f] };
		}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
