/* SPDX-License-Identifier: BSD-2-Clause */
/* A stage-2 space for tests; see ept_rig.h. */
#include "support/ept_rig.h"

#define GIB (1ULL << 30)

static int resolve(void *ctx, const struct mv_ept_page *page, struct mv_ept_backing *backing)
{
	struct ept_rig *rig = ctx;

	__atomic_fetch_add(&rig->resolves, 1, __ATOMIC_RELAXED);
	if (rig->resolve_error)
		return rig->resolve_error;
	backing->hpa = (uintptr_t)page->hva;
	backing->page_lg2 = rig->page_lg2;
	backing->writable = !rig->read_only;
	return 0;
}

static void flush(void *ctx, unsigned int view, uint64_t first_gpa, uint64_t last_gpa)
{
	struct ept_rig *rig = ctx;
	void (*on_flush)(void) = rig->on_flush;

	insist(first_gpa <= last_gpa);
	rig->flushes++;
	rig->flush_first = first_gpa;
	rig->flush_last = last_gpa;
	for (unsigned int i = 0; i < rig->cpu_count; i++)
		sim_cpu_flush(&rig->cpus[i]);
	rig->on_flush = NULL;
	if (on_flush)
		on_flush();
}

static const struct mv_ept_ops rig_ops = { .resolve = resolve, .flush = flush };

void ept_rig_open(struct ept_rig *rig, const struct ept_rig_options *options)
{
	struct mv_ept_config config = {
		.size = sizeof(config),
		.format = options->format,
		.features = options->features,
		.maxphyaddr = 52,
		.node = -1,
		.page_limit = options->page_limit,
		.policy = options->policy,
		.largest_lg2 = options->largest_lg2,
		.ops = options->ops ? options->ops : &rig_ops,
		.ctx = rig,
	};

	memset(rig, 0, sizeof(*rig));
	if (!config.features)
		config.features = rig_is_ept(options->format) ? RIG_EPT_FEATURES : RIG_NPT_FEATURES;
	rig->format = config.format;
	rig->features = config.features;
	rig->page_lg2 = 30;
	guest_init(&rig->guest, options->bytes + GIB);
	rig->base = (unsigned char *)(((uintptr_t)rig->guest.mem + GIB - 1) & ~(GIB - 1));
	config.memory = rig->guest.memory;
	assert_int_equal(mv_ept_create(&config, &rig->ept), 0);
}

void ept_rig_close(struct ept_rig *rig)
{
	mv_ept_destroy(rig->ept);
	guest_finish(&rig->guest);
}

void ept_rig_region(struct ept_rig *rig, uint64_t first_gpa, uint64_t pages, uint64_t offset)
{
	size_t at = (size_t)(rig->base - rig->guest.mem) + offset;

	assert_int_equal(guest_add(&rig->guest, first_gpa, pages, at), 0);
	assert_int_equal(mv_ept_attach(rig->ept, first_gpa), 0);
}

void ept_rig_check(struct ept_rig *rig)
{
	struct mv_table_defect defect;

	if (!mv_ept_check(rig->ept, &defect))
		fail_msg("defect %d at %#llx, level %u: %#llx", defect.kind,
			 (unsigned long long)defect.address, defect.level,
			 (unsigned long long)defect.entry);
}

struct mv_stage2_exit rig_exit(uint64_t gpa, unsigned int access)
{
	return (struct mv_stage2_exit){
		.kind = MV_STAGE2_VIOLATION,
		.gpa = gpa,
		.access = access,
		.user_told = true,
	};
}

struct mv_ept_outcome rig_fault(struct ept_rig *rig, unsigned int view, uint64_t gpa,
				unsigned int access)
{
	struct mv_stage2_exit exit = rig_exit(gpa, access);
	struct mv_ept_outcome outcome;

	assert_int_equal(mv_ept_fault(rig->ept, view, &exit, &outcome), 0);
	return outcome;
}

enum mv_ept_fault_kind rig_touch(struct ept_rig *rig, struct sim_cpu *cpu, uint64_t gpa,
				 unsigned int access, uint64_t *hpa)
{
	struct mv_ept_outcome outcome = { .kind = MV_EPT_SPURIOUS };
	struct mv_stage2_exit exit;

	for (int i = 0; !sim_cpu_access(cpu, gpa, access, hpa, &exit); i++) {
		insist(i < 8);
		insist(!mv_ept_fault(rig->ept, cpu->view, &exit, &outcome));
		if (outcome.kind != MV_EPT_FIXED && outcome.kind != MV_EPT_SPURIOUS)
			break;
	}
	return outcome.kind;
}

static void drop(void *ctx, struct mv_batch *batch)
{
}

int rig_discard(struct ept_rig *rig, uint64_t first_gpa, uint64_t last_gpa)
{
	return mv_memory_discard(rig->guest.memory, first_gpa, last_gpa, drop, NULL, NULL);
}
