/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What a processor would find in the shadow that a vCPU has loaded.
 *
 * Freestanding. What does not belong here: the rights that an access needs (the processor).
 */
#include "shadow_internal.h"

/* The entry that decides. In a read section. */
static uint64_t find_entry(const struct mv_shadow *s, const uint64_t *table, uint64_t address,
			   unsigned int *level)
{
	uint64_t entry;

	for (*level = s->format->levels;; (*level)--) {
		unsigned int index = mv_index(s->format, *level, address);

		entry = __atomic_load_n(&table[index], __ATOMIC_ACQUIRE);
		if (!shadow_present(s, entry) || shadow_is_leaf(s, *level, entry))
			return entry;
		table = (const uint64_t *)((uintptr_t)mv_entry_table(s->format, entry) +
					   s->platform.direct_map);
	}
}

int mv_shadow_walk(struct mv_shadow_vcpu *vcpu, uint64_t gva, struct mv_mapping *mapping)
{
	const struct mv_shadow *s = vcpu->shadow;
	const struct mv_format *f = s->format;
	unsigned int width = mv_format_width(f), level;
	uint64_t entry;

	if (!vcpu->root || mv_sign_extend(gva, width - 1) != gva)
		return -EINVAL;
	shadow_enter(s);
	entry = find_entry(s, vcpu->root->table, gva & (MV_BIT(width) - 1), &level);
	shadow_leave(s);
	if (!shadow_present(s, entry))
		return -ENOENT;
	*mapping = (struct mv_mapping){
		.address = gva & ~mv_span_mask(f, level),
		.phys = mv_entry_page(f, level, entry),
		.page_lg2 = f->shift[level],
		.level = level,
		.attr = mv_leaf_attr(f, &s->rules, level, entry),
	};
	return 0;
}
