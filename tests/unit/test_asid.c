/* SPDX-License-Identifier: BSD-2-Clause */
/* Tags and flushes, one thread at a time: what each entry has to use and to flush. */
#include <memvirt/asid.h>

#include "support/fake_platform.h"
#include "support/testing.h"

#define CPUS 130 /* three words */

struct rig {
	struct fake_platform fake;
	struct mv_asids *asids;
	struct mv_asid_space *space[2];
	struct mv_asid_context vcpu[4];
	unsigned int kicks;
	uint64_t kicked[3];
};

static struct rig rig;

/* As a processor does when it is interrupted: it leaves. */
static void kick(void *ctx, const uint64_t *cpus, unsigned int words)
{
	struct rig *r = ctx;

	insist(words == 3);
	r->kicks++;
	memcpy(r->kicked, cpus, sizeof(r->kicked));
	for (unsigned int cpu = 0; cpu < CPUS; cpu++)
		if (cpus[cpu / 64] >> (cpu % 64) & 1)
			mv_asid_exit(r->space[0], cpu);
}

static void open_rig(enum mv_asid_kind kind, uint32_t last_tag)
{
	struct mv_asids_config config = { .size = sizeof(config),
					  .platform = &rig.fake.platform,
					  .kind = kind,
					  .cpus = CPUS,
					  .first_tag = 1,
					  .last_tag = last_tag,
					  .kick = kick,
					  .ctx = &rig };

	memset(&rig, 0, sizeof(rig));
	fake_platform_init(&rig.fake);
	assert_int_equal(mv_asids_create(&config, &rig.asids), 0);
	for (unsigned int i = 0; i < 2; i++)
		assert_int_equal(mv_asid_space_create(rig.asids, &rig.space[i]), 0);
}

static void close_rig(void)
{
	mv_asid_space_destroy(rig.space[0]);
	mv_asid_space_destroy(rig.space[1]);
	mv_asids_destroy(rig.asids);
	fake_platform_finish(&rig.fake);
}

static struct mv_asid_entry enter(unsigned int space, unsigned int vcpu, unsigned int cpu)
{
	struct mv_asid_entry entry;

	mv_asid_enter(rig.space[space], &rig.vcpu[vcpu], cpu, &entry);
	return entry;
}

static struct mv_asid_entry run(unsigned int space, unsigned int vcpu, unsigned int cpu)
{
	struct mv_asid_entry entry = enter(space, vcpu, cpu);

	mv_asid_exit(rig.space[space], cpu);
	return entry;
}

static void assert_entry(struct mv_asid_entry entry, uint32_t tag, enum mv_asid_flush flush)
{
	assert_int_equal(entry.tag, tag);
	assert_int_equal(entry.flush, flush);
}

static void a_tag_is_kept_on_its_processor(void **state)
{
	open_rig(MV_ASID_VPID, 9);
	assert_entry(run(0, 0, 3), 1, MV_ASID_FLUSH_SPACE);
	assert_entry(run(0, 0, 3), 1, MV_ASID_FLUSH_NONE);
	assert_entry(run(0, 1, 3), 2, MV_ASID_FLUSH_NONE);
	assert_entry(run(1, 2, 3), 3, MV_ASID_FLUSH_SPACE);
	assert_entry(run(0, 0, 3), 1, MV_ASID_FLUSH_NONE);
	/* Elsewhere it is another, and back again yet another. */
	assert_entry(run(0, 0, 129), 1, MV_ASID_FLUSH_SPACE);
	assert_entry(run(0, 0, 3), 4, MV_ASID_FLUSH_NONE);
	close_rig();
}

static void a_generation_begins_where_tags_run_out(void **state)
{
	open_rig(MV_ASID_AMD, 2);
	assert_entry(run(0, 0, 0), 1, MV_ASID_FLUSH_NONE);
	assert_entry(run(0, 1, 0), 2, MV_ASID_FLUSH_NONE);
	assert_entry(run(0, 2, 0), 1, MV_ASID_FLUSH_ALL);
	/* Of the generation before: neither tag is good any more. */
	assert_entry(run(0, 0, 0), 2, MV_ASID_FLUSH_NONE);
	assert_entry(run(0, 1, 0), 1, MV_ASID_FLUSH_ALL);
	close_rig();
}

static void a_flush_kicks_who_is_inside_only(void **state)
{
	open_rig(MV_ASID_VPID, 9);
	run(0, 0, 1);
	enter(0, 1, 64);
	enter(1, 2, 65);
	assert_int_equal(mv_asid_flush(rig.space[0]), 1);
	assert_int_equal(rig.kicks, 1);
	assert_int_equal(rig.kicked[0], 0);
	assert_int_equal(rig.kicked[1], 1);
	assert_int_equal(rig.kicked[2], 0);
	/* Nobody is inside now: nobody is disturbed. */
	assert_int_equal(mv_asid_flush(rig.space[0]), 0);
	assert_int_equal(rig.kicks, 1);
	assert_entry(run(0, 0, 1), 1, MV_ASID_FLUSH_SPACE);
	assert_entry(run(0, 0, 1), 1, MV_ASID_FLUSH_NONE);
	assert_entry(run(0, 1, 64), 1, MV_ASID_FLUSH_SPACE);
	mv_asid_exit(rig.space[1], 65);
	assert_entry(run(1, 2, 65), 1, MV_ASID_FLUSH_NONE);
	close_rig();
}

/* The space's flush is one per processor with EPT, one per tag with AMD. */
static void each_kind_flushes_what_its_tags_tag(void **state)
{
	open_rig(MV_ASID_VPID, 9);
	run(0, 0, 0), run(0, 1, 0);
	mv_asid_flush(rig.space[0]);
	assert_entry(run(0, 0, 0), 1, MV_ASID_FLUSH_SPACE);
	assert_entry(run(0, 1, 0), 2, MV_ASID_FLUSH_NONE);
	close_rig();

	open_rig(MV_ASID_AMD_FLUSH_BY_ASID, 9);
	run(0, 0, 0), run(0, 1, 0);
	mv_asid_flush(rig.space[0]);
	assert_entry(run(0, 0, 0), 1, MV_ASID_FLUSH_TAG);
	assert_entry(run(0, 0, 0), 1, MV_ASID_FLUSH_NONE);
	assert_entry(run(0, 1, 0), 2, MV_ASID_FLUSH_TAG);
	close_rig();

	open_rig(MV_ASID_AMD, 9);
	run(0, 0, 0), run(0, 1, 0);
	mv_asid_flush(rig.space[0]);
	assert_entry(run(0, 0, 0), 3, MV_ASID_FLUSH_NONE);
	assert_entry(run(0, 1, 0), 4, MV_ASID_FLUSH_NONE);
	close_rig();
}

static void a_renewed_context_takes_another_tag(void **state)
{
	open_rig(MV_ASID_VPID, 9);
	assert_entry(run(0, 0, 0), 1, MV_ASID_FLUSH_SPACE);
	mv_asid_context_renew(&rig.vcpu[0]);
	assert_entry(run(0, 0, 0), 2, MV_ASID_FLUSH_NONE);
	close_rig();
}

static void configs_that_make_no_sense_are_refused(void **state)
{
	const struct mv_asids_config good = {
		.size = sizeof(good), .cpus = 1, .first_tag = 1, .last_tag = 1, .kick = kick
	};
	struct mv_asids_config bad;
	struct mv_asids *asids = NULL;

	assert_int_equal(mv_asids_create(NULL, &asids), -EINVAL);
#define REFUSED(field, value)                                                                      \
	(bad = good, bad.field = value, assert_int_equal(mv_asids_create(&bad, &asids), -EINVAL))
	REFUSED(size, 8);
	REFUSED(cpus, 0);
	REFUSED(first_tag, 0);
	REFUSED(first_tag, 2);
	REFUSED(last_tag, UINT32_MAX);
	REFUSED(kick, NULL);
	REFUSED(kind, (enum mv_asid_kind)7);
	assert_null(asids);
	mv_asids_destroy(NULL);
	mv_asid_space_destroy(NULL);
}

static void without_memory_nothing_is_made(void **state)
{
	struct mv_asids_config config = { .size = sizeof(config),
					  .platform = &rig.fake.platform,
					  .cpus = CPUS,
					  .first_tag = 1,
					  .last_tag = 1,
					  .kick = kick };
	struct mv_asid_space *space;

	fake_platform_init(&rig.fake);
	rig.fake.fail_at = 1;
	assert_int_equal(mv_asids_create(&config, &rig.asids), -ENOMEM);
	assert_int_equal(mv_asids_create(&config, &rig.asids), 0);
	rig.fake.fail_at = rig.fake.allocations + 1;
	assert_int_equal(mv_asid_space_create(rig.asids, &space), -ENOMEM);
	mv_asids_destroy(rig.asids);
	fake_platform_finish(&rig.fake);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_tag_is_kept_on_its_processor),
		cmocka_unit_test(a_generation_begins_where_tags_run_out),
		cmocka_unit_test(a_flush_kicks_who_is_inside_only),
		cmocka_unit_test(each_kind_flushes_what_its_tags_tag),
		cmocka_unit_test(a_renewed_context_takes_another_tag),
		cmocka_unit_test(configs_that_make_no_sense_are_refused),
		cmocka_unit_test(without_memory_nothing_is_made),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
