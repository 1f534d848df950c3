/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A shadow as an object: made and freed, its vCPUs, flushes. SDM vol. 3, 4.10.4.
 *
 * Freestanding. What does not belong here: loads of CR3 (shadow_root.c), faults (shadow_fault.c).
 */
#include <string.h>

#include "../formats.h"
#include "shadow_internal.h"

/* --- flushes -------------------------------------------------------------------------------- */

static void call_flush(struct mv_shadow *s)
{
	uint64_t vcpus[MV_SHADOW_VCPUS / 64];

	for (unsigned int i = 0; i < MV_SHADOW_VCPUS / 64; i++)
		vcpus[i] = __atomic_load_n(&s->running[i], __ATOMIC_SEQ_CST);
	shadow_count(&s->stats.flushes, 1);
	s->ops.flush(s->ctx, vcpus);
}

void shadow_flush(struct mv_shadow *s)
{
	/* All of it is gone already when it counts. */
	uint64_t gone = __atomic_load_n(&s->gone, __ATOMIC_SEQ_CST);
	uint64_t flushed = __atomic_load_n(&s->flushed, __ATOMIC_SEQ_CST);

	if (flushed >= gone)
		return;
	if (s->ops.flush)
		call_flush(s);
	/* Only raised: of two flushes the later one may be the first to end. */
	while (flushed < gone && !__atomic_compare_exchange_n(&s->flushed, &flushed, gone, false,
							      __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

/* --- made and freed ------------------------------------------------------------------------- */

static const struct mv_format *host_format(enum mv_format_id id)
{
	if (id == MV_FORMAT_X86_4L)
		return &mv_format_x86_4l;
	return id == MV_FORMAT_X86_5L ? &mv_format_x86_5l : NULL;
}

static bool is_valid(const struct mv_shadow_config *config)
{
	if (!config || config->size != sizeof(*config) || !config->memory)
		return false;
	return host_format(config->format) && config->maxphyaddr >= 32 &&
	       config->maxphyaddr <= 52 && config->page_budget >= MV_SHADOW_BUDGET_MIN &&
	       config->page_budget <= MV_SHADOW_BUDGET_MAX &&
	       !(config->features & ~(MV_FEATURE_NX | MV_FEATURE_1G)) &&
	       config->memory->platform.ops->table_alloc &&
	       config->memory->platform.ops->table_free;
}

static void init(struct mv_shadow *s, const struct mv_shadow_config *config)
{
	s->view.ops = &shadow_view_ops;
	s->view.rank = MV_VIEW_RANK_TABLES;
	s->memory = config->memory;
	s->platform = config->memory->platform;
	s->format = host_format(config->format);
	mv_rules_init(s->format, config->features, config->maxphyaddr, &s->rules);
	if (config->ops)
		s->ops = *config->ops;
	s->ctx = config->ctx;
	s->features = config->features;
	s->node = config->node;
	s->budget = (uint32_t)config->page_budget;
}

static void finish(struct mv_shadow *s)
{
	struct mv_platform platform = s->platform;

	if (s->pages)
		shadow_pages_finish(s);
	shadow_frames_finish(s);
	platform.ops->free(platform.ctx, s, sizeof(*s));
}

int mv_shadow_create(const struct mv_shadow_config *config, struct mv_shadow **shadow)
{
	struct mv_shadow *made;
	int error;

	if (!is_valid(config))
		return -EINVAL;
	made = config->memory->platform.ops->alloc(config->memory->platform.ctx, sizeof(*made),
						   config->node);
	if (!made)
		return -ENOMEM;
	init(made, config);
	error = shadow_frames_init(made);
	if (!error)
		error = shadow_pages_init(made);
	if (!error)
		error = mv_memory_attach_view(made->memory, &made->view);
	if (error) {
		finish(made);
		return error;
	}
	*shadow = made;
	return 0;
}

void mv_shadow_destroy(struct mv_shadow *shadow)
{
	if (!shadow)
		return;
	mv_memory_detach_view(shadow->memory, &shadow->view);
	finish(shadow);
}

/* --- vCPUs ------------------------------------------------------------------------------------ */

/* A number that is free, taken. Return: MV_SHADOW_VCPUS where there is none. */
static unsigned int take_number(struct mv_shadow *s)
{
	unsigned int most = s->budget / MV_SHADOW_BUDGET_VCPU;

	for (unsigned int number = 0; number < MV_SHADOW_VCPUS && number < most; number++) {
		uint64_t bit = MV_BIT(number % 64);

		if (!(__atomic_fetch_or(&s->vcpus[number / 64], bit, __ATOMIC_SEQ_CST) & bit))
			return number;
	}
	return MV_SHADOW_VCPUS;
}

static void give_number(struct mv_shadow *s, unsigned int number)
{
	uint64_t others = ~MV_BIT(number % 64);

	__atomic_fetch_and(&s->running[number / 64], others, __ATOMIC_SEQ_CST);
	__atomic_fetch_and(&s->vcpus[number / 64], others, __ATOMIC_SEQ_CST);
}

int mv_shadow_vcpu_create(struct mv_shadow *shadow, struct mv_shadow_vcpu **vcpu)
{
	struct mv_shadow_vcpu *made;
	unsigned int number = take_number(shadow);

	if (number == MV_SHADOW_VCPUS)
		return -ENOSPC;
	made = shadow->platform.ops->alloc(shadow->platform.ctx, sizeof(*made), shadow->node);
	if (!made) {
		give_number(shadow, number);
		return -ENOMEM;
	}
	made->shadow = shadow;
	made->number = number;
	*vcpu = made;
	return 0;
}

void mv_shadow_vcpu_destroy(struct mv_shadow_vcpu *vcpu)
{
	if (!vcpu)
		return;
	struct mv_shadow *s = vcpu->shadow;

	if (vcpu->root) {
		shadow_settle(vcpu);
		shadow_put_root(s, vcpu->root);
	}
	while (vcpu->cached)
		shadow_give(s, vcpu->cache[--vcpu->cached]);
	give_number(s, vcpu->number);
	s->platform.ops->free(s->platform.ctx, vcpu, sizeof(*vcpu));
}

unsigned int mv_shadow_vcpu_number(const struct mv_shadow_vcpu *vcpu)
{
	return vcpu->number;
}

/* --- statistics ----------------------------------------------------------------------------- */

static uint64_t counted(const uint64_t *number)
{
	return __atomic_load_n(number, __ATOMIC_RELAXED);
}

void mv_shadow_get_stats(const struct mv_shadow *shadow, struct mv_shadow_stats *stats)
{
	*stats = (struct mv_shadow_stats){
		.taken = counted(&shadow->gone),
		.flushes = counted(&shadow->stats.flushes),
		.unsyncs = counted(&shadow->stats.unsyncs),
		.syncs = counted(&shadow->stats.syncs),
		.emulated = counted(&shadow->stats.emulated),
		.ahead = counted(&shadow->stats.ahead),
		.reclaimed = counted(&shadow->stats.reclaimed),
	};
}

void mv_shadow_vcpu_faults(const struct mv_shadow_vcpu *vcpu, uint64_t faults[MV_SHADOW_KINDS])
{
	for (unsigned int kind = 0; kind < MV_SHADOW_KINDS; kind++)
		faults[kind] = counted(&vcpu->faults[kind]);
}

void shadow_settle(struct mv_shadow_vcpu *vcpu)
{
	struct mv_shadow_cost *cost = &vcpu->root->cost;

	shadow_count(&cost->faults, vcpu->cost.faults);
	shadow_count(&cost->table_writes, vcpu->cost.table_writes);
	shadow_count(&cost->syncs, vcpu->cost.syncs);
	vcpu->cost = (struct mv_shadow_cost){ 0 };
}

int mv_shadow_root_cost(struct mv_shadow_vcpu *vcpu, struct mv_shadow_cost *cost)
{
	if (!vcpu->root)
		return -EINVAL;
	shadow_settle(vcpu);
	cost->faults = counted(&vcpu->root->cost.faults);
	cost->table_writes = counted(&vcpu->root->cost.table_writes);
	cost->syncs = counted(&vcpu->root->cost.syncs);
	return 0;
}
