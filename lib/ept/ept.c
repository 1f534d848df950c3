/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A stage-2 space as an object: made and freed, regions attached and detached, flushes, and what
 * can be looked at. SDM vol. 3, 25.6.11 (EPTP), 29.4.3 (what a flush has to reach); APM vol.
 * 2, 15.25.
 *
 * Freestanding. What does not belong here: faults, views, tracking: a file each.
 */
#include <errno.h>
#include <string.h>

#include "ept_internal.h"

#define SLOTS_ROOM 8 /* regions that fit without growing */

/* EPTP, SDM vol. 3, table 25-9: how the processor reaches the tables themselves. */
#define EPTP_WRITE_BACK MV_TYPE_WB
#define EPTP_LENGTH(n)	((uint64_t)((n)-1) << 3)
#define EPTP_ACCESSED	MV_BIT(6)

void ept_lock(struct mv_ept *ept)
{
	/* Acquire pairs with the release in ept_unlock(). */
	for (unsigned int turns = 0; __atomic_exchange_n(&ept->lock, 1, __ATOMIC_ACQUIRE);)
		ept->platform.ops->relax(ept->platform.ctx, turns++);
}

void ept_unlock(struct mv_ept *ept)
{
	__atomic_store_n(&ept->lock, 0, __ATOMIC_RELEASE);
}

/* --- flushes ------------------------------------------------------------------------------ */

/* What all views have in common. */
static void flush_space(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa)
{
	__atomic_fetch_add(&ept->flushes, 1, __ATOMIC_RELAXED);
	if (ept->policy & MV_EPT_SOFTWARE_WALK) {
		mv_nested_log_add(&ept->log, first_gpa, last_gpa);
		ept_wait_readers(ept);
	}
	if (ept->asid_space)
		mv_asid_flush(ept->asid_space);
}

void ept_flush_view(struct ept_view *view, uint64_t first_gpa, uint64_t last_gpa)
{
	struct mv_ept *ept = view->ept;

	flush_space(ept, first_gpa, last_gpa);
	if (ept->ops.flush)
		ept->ops.flush(ept->ctx, view->index, first_gpa, last_gpa);
}

void ept_flush(struct mv_ept *ept, uint64_t first_gpa, uint64_t last_gpa)
{
	flush_space(ept, first_gpa, last_gpa);
	if (!ept->ops.flush)
		return;
	ept_for_each_view(ept, view) ept->ops.flush(ept->ctx, view->index, first_gpa, last_gpa);
}

/* --- slots -------------------------------------------------------------------------------- */

static size_t slots_bytes(unsigned int capacity)
{
	return sizeof(struct ept_slots) + capacity * sizeof(struct ept_slot *);
}

static struct ept_slots *slots_alloc(struct mv_ept *ept, unsigned int capacity)
{
	struct ept_slots *slots = ept_alloc(ept, slots_bytes(capacity));

	if (slots)
		slots->capacity = capacity;
	return slots;
}

static void slots_free(struct mv_ept *ept, struct ept_slots *slots)
{
	if (slots)
		ept_free(ept, slots, slots_bytes(slots->capacity));
}

/* How many begin at or below an address. */
static unsigned int count_upto(const struct ept_slots *slots, uint64_t gpa)
{
	unsigned int low = 0, high = slots->count;

	while (low < high) {
		unsigned int middle = low + (high - low) / 2;

		if (slots->slot[middle]->region->first_gpa <= gpa)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

struct ept_slot *ept_slot_find(struct mv_ept *ept, uint64_t gpa)
{
	/* Acquire pairs with the release in publish(). */
	const struct ept_slots *slots = __atomic_load_n(&ept->slots, __ATOMIC_SEQ_CST);
	unsigned int below = count_upto(slots, gpa);

	if (!below || gpa > slots->slot[below - 1]->region->last_gpa)
		return NULL;
	return slots->slot[below - 1];
}

struct ept_slot *ept_slot_at(struct mv_ept *ept, uint64_t first_gpa)
{
	struct ept_slot *slot = ept_slot_find(ept, first_gpa);

	return slot && slot->region->first_gpa == first_gpa ? slot : NULL;
}

/* Under ept->lock: publish a set, and return when nobody reads the one before, now spare. */
static void publish(struct mv_ept *ept, struct ept_slots *slots)
{
	ept->spare = ept->slots;
	__atomic_store_n(&ept->slots, slots, __ATOMIC_SEQ_CST);
	ept_changed(ept);
	ept_wait_readers(ept);
}

static uint64_t slot_granules(const struct mv_region *region)
{
	return (region->pages + MV_GRANULE_PAGES - 1) / MV_GRANULE_PAGES;
}

static void slot_free(struct mv_ept *ept, struct ept_slot *slot)
{
	const struct mv_region *region = slot->region;

	if (slot->log)
		ept_free(ept, slot->log, (region->pages + 63) / 64 * sizeof(uint64_t));
	ept_free(ept, slot->granules, slot_granules(region) * sizeof(*slot->granules));
	mv_region_release(slot->region);
	ept_free(ept, slot, sizeof(*slot));
}

/* The hold of @region passes to the slot where that comes about. */
static struct ept_slot *slot_make(struct mv_ept *ept, struct mv_region *region)
{
	struct ept_slot *slot = ept_alloc(ept, sizeof(*slot));

	if (!slot)
		return NULL;
	slot->granules = ept_alloc(ept, slot_granules(region) * sizeof(*slot->granules));
	if (!slot->granules) {
		ept_free(ept, slot, sizeof(*slot));
		return NULL;
	}
	slot->region = region;
	return slot;
}

/* Under ept->lock. */
static int slot_insert(struct mv_ept *ept, struct ept_slot *slot)
{
	const struct ept_slots *now = ept->slots;
	unsigned int at = count_upto(now, slot->region->first_gpa);
	struct ept_slots *next = ept->spare;

	if (ept_slot_find(ept, slot->region->first_gpa))
		return -EEXIST;
	if (!next || next->capacity < now->count + 1) {
		next = slots_alloc(ept, now->count + SLOTS_ROOM);
		if (!next)
			return -ENOMEM;
		slots_free(ept, ept->spare);
	}
	slot->born = ept_changes(ept) + 1;
	memcpy(next->slot, now->slot, at * sizeof(slot));
	next->slot[at] = slot;
	memcpy(next->slot + at + 1, now->slot + at, (now->count - at) * sizeof(slot));
	next->count = now->count + 1;
	publish(ept, next);
	return 0;
}

/* Under ept->lock. There is a spare, with room: the set before the last slot came or went. */
static void slot_remove(struct mv_ept *ept, const struct ept_slot *slot)
{
	const struct ept_slots *now = ept->slots;
	struct ept_slots *next = ept->spare;

	next->count = 0;
	for (unsigned int i = 0; i < now->count; i++)
		if (now->slot[i] != slot)
			next->slot[next->count++] = now->slot[i];
	publish(ept, next);
}

int mv_ept_attach(struct mv_ept *ept, uint64_t first_gpa)
{
	struct mv_region *region = mv_region_get(ept->memory, first_gpa);
	struct ept_slot *slot = NULL;
	int error = -ENOENT;

	if (region && region->first_gpa == first_gpa)
		error = region->last_gpa <= ept->last_gpa ? 0 : -ERANGE;
	if (!error) {
		slot = slot_make(ept, region);
		error = slot ? 0 : -ENOMEM;
	}
	if (!error) {
		ept_lock(ept);
		error = slot_insert(ept, slot);
		ept_unlock(ept);
	}
	if (error && slot)
		slot_free(ept, slot);
	else if (error && region)
		mv_region_release(region);
	return error;
}

/*
 * Under ept->lock. Once nobody finds the slot any more nobody installs; what is then unmapped
 * stays so. A revoke that does not find the slot either, and cannot know what was removed,
 * learns from @removing that it has to flush.
 */
static void detach_slot(struct mv_ept *ept, struct ept_slot *slot)
{
	uint64_t first = slot->region->first_gpa, last = slot->region->last_gpa;

	__atomic_fetch_add(&ept->removing, 1, __ATOMIC_SEQ_CST);
	slot_remove(ept, slot);
	ept_zap_all(ept, first, last);
	ept_flush(ept, first, last);
	__atomic_fetch_sub(&ept->removing, 1, __ATOMIC_SEQ_CST);
	/* Nothing is left to be split, so this needs no memory: it takes the tables. */
	ept_for_each_view(ept, view) mv_engine_unmap(&view->engine, first, last, NULL, NULL, NULL);
	slot_free(ept, slot);
}

int mv_ept_detach(struct mv_ept *ept, uint64_t first_gpa)
{
	struct ept_slot *slot;

	ept_lock(ept);
	slot = ept_slot_at(ept, first_gpa);
	if (slot)
		detach_slot(ept, slot);
	ept_unlock(ept);
	return slot ? 0 : -ENOENT;
}

/* --- making and freeing ------------------------------------------------------------------- */

/* Nested tables forbid to fetch only where the host has EFER.NXE set. */
static bool policy_possible(const struct mv_ept_config *config)
{
	return !(config->policy & MV_EPT_NX_HUGE) || config->format <= MV_FORMAT_EPT_5L ||
	       (config->features & MV_FEATURE_NX);
}

static bool config_valid(const struct mv_ept_config *config)
{
	const uint32_t policy = MV_EPT_NX_HUGE | MV_EPT_SOFTWARE_WALK;
	unsigned int largest = config ? config->largest_lg2 : 0;

	return config && config->size == sizeof(*config) && config->memory &&
	       config->format >= MV_FORMAT_EPT_4L && config->format <= MV_FORMAT_NPT_5L &&
	       config->maxphyaddr >= 32 && config->maxphyaddr <= 52 &&
	       !(config->policy & ~policy) && policy_possible(config) &&
	       (!largest || largest == 12 || largest == 21 || largest == 30);
}

/* The index of a memory type in a PAT; uncacheable where it has none. */
static uint8_t pat_index(uint64_t pat, unsigned int type)
{
	for (uint8_t i = 0; i < 8; i++)
		if ((pat >> (8 * i) & 7) == type)
			return i;
	return type == MV_TYPE_UC ? 3 : pat_index(pat, MV_TYPE_UC);
}

static void choose_types(struct mv_ept *ept, uint64_t host_pat)
{
	uint64_t pat = host_pat ? host_pat : MV_PAT_RESET;

	for (uint8_t type = 0; type < 8; type++)
		ept->type_index[type] = ept->format->exec ? type : pat_index(pat, type);
}

static void choose_levels(struct mv_ept *ept, unsigned int largest_lg2)
{
	const struct mv_engine *e = &ept->views[0]->engine;

	for (unsigned int level = 1; level <= 3; level++)
		if ((e->leaf_levels >> level & 1) &&
		    (!largest_lg2 || ept->format->shift[level] <= largest_lg2))
			ept->levels |= 1u << level;
}

static void ept_fill(struct mv_ept *ept, const struct mv_ept_config *config)
{
	uint64_t last = MV_BIT(52) - 1;

	ept->view = (struct mv_view){ .ops = &ept_view_ops, .rank = MV_VIEW_RANK_TABLES };
	ept->memory = config->memory;
	ept->platform = config->memory->platform;
	ept->format = mv_formats[config->format];
	ept->last_gpa = mv_format_last_address(ept->format);
	ept->last_gpa = ept->last_gpa < last ? ept->last_gpa : last;
	ept->features = config->features;
	ept->policy = config->policy;
	if (config->ops)
		ept->ops = *config->ops;
	ept->ctx = config->ctx;
	ept->asid_space = config->asid_space;
	ept->table_config = (struct mv_table_config){
		.size = sizeof(ept->table_config),
		.platform = &ept->platform,
		.format = config->format,
		.features = config->features,
		.maxphyaddr = config->maxphyaddr,
		.node = config->node,
		.page_limit = config->page_limit,
	};
	choose_types(ept, config->host_pat);
	mv_nested_log_init(&ept->log);
}

/* No view and no region is left, and nobody asks for any. */
static void ept_release(struct mv_ept *ept)
{
	struct mv_platform platform = ept->platform;

	for (unsigned int i = 0; i < MV_EPT_VIEWS; i++)
		ept_view_free(ept->views[i]);
	mv_table_destroy(ept->types);
	slots_free(ept, ept->slots);
	slots_free(ept, ept->spare);
	platform.ops->free(platform.ctx, ept, sizeof(*ept));
}

static int ept_build(struct mv_ept *ept, unsigned int largest_lg2)
{
	const uint32_t all = MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_EXEC_USER;
	int error;

	ept->slots = slots_alloc(ept, SLOTS_ROOM);
	if (!ept->slots)
		return -ENOMEM;
	error = ept_view_make(ept, all, 0);
	if (error)
		return error;
	choose_levels(ept, largest_lg2);
	return mv_memory_attach_view(ept->memory, &ept->view);
}

int mv_ept_create(const struct mv_ept_config *config, struct mv_ept **ept)
{
	const struct mv_platform *platform;
	struct mv_ept *made;
	int error;

	if (!config_valid(config))
		return -EINVAL;
	platform = &config->memory->platform;
	made = platform->ops->alloc(platform->ctx, sizeof(*made), -1);
	if (!made)
		return -ENOMEM;
	ept_fill(made, config);
	error = ept_build(made, config->largest_lg2);
	if (error) {
		ept_release(made);
		return error;
	}
	*ept = made;
	return 0;
}

void mv_ept_destroy(struct mv_ept *ept)
{
	if (!ept)
		return;
	/* From here on no revoke asks, and none is under way. */
	mv_memory_detach_view(ept->memory, &ept->view);
	for (unsigned int i = 0; i < ept->slots->count; i++)
		slot_free(ept, ept->slots->slot[i]);
	ept_release(ept);
}

/* --- looking ------------------------------------------------------------------------------ */

uint64_t mv_ept_pointer(struct mv_ept *ept, unsigned int view)
{
	uint64_t pointer = 0;

	ept_enter(ept);
	const struct ept_view *found = ept_view_find(ept, view);

	if (found)
		pointer = found->engine.root;
	ept_leave(ept);
	if (!pointer || !ept->format->exec)
		return pointer;
	return pointer | EPTP_WRITE_BACK | EPTP_LENGTH(ept->format->levels) |
	       (ept->features & MV_FEATURE_ACCESSED ? EPTP_ACCESSED : 0);
}

int mv_ept_get_stage2_config(struct mv_ept *ept, unsigned int view, struct mv_stage2_config *config)
{
	uint64_t root = 0;

	ept_enter(ept);
	const struct ept_view *found = ept_view_find(ept, view);

	if (found)
		root = found->engine.root;
	ept_leave(ept);
	if (!root)
		return -ENOENT;
	*config = (struct mv_stage2_config){
		.size = sizeof(*config),
		.format = ept->table_config.format,
		.features = ept->features,
		.maxphyaddr = ept->table_config.maxphyaddr,
		.root = root,
		.direct_map = ept->platform.direct_map,
	};
	return 0;
}

struct mv_nested_log *mv_ept_log(struct mv_ept *ept)
{
	return ept->policy & MV_EPT_SOFTWARE_WALK ? &ept->log : NULL;
}

static uint64_t load_count(const uint64_t *count)
{
	return __atomic_load_n(count, __ATOMIC_RELAXED);
}

void mv_ept_get_stats(struct mv_ept *ept, struct mv_ept_stats *stats)
{
	memset(stats, 0, sizeof(*stats));
	for (unsigned int i = 0; i < EPT_STRIPES; i++) {
		const struct ept_stripe *stripe = &ept->stripes[i];

		for (unsigned int kind = 0; kind < MV_EPT_FAULT_KINDS; kind++)
			stats->faults[kind] += load_count(&stripe->faults[kind]);
		stats->prefaults += load_count(&stripe->prefaults);
	}
	stats->revoked = load_count(&ept->revoked);
	stats->flushes = load_count(&ept->flushes);
	stats->pml_logged = load_count(&ept->pml_logged);
	stats->pml_ignored = load_count(&ept->pml_ignored);
	ept_for_each_view(ept, view) stats->table_pages +=
		__atomic_load_n(&view->engine.pages, __ATOMIC_RELAXED);
}

int mv_ept_walk(struct mv_ept *ept, unsigned int view, uint64_t gpa, struct mv_mapping *mapping)
{
	int error = -ENOENT;

	ept_enter(ept);
	const struct ept_view *found = ept_view_find(ept, view);

	if (found)
		error = mv_engine_walk(&found->engine, gpa, mapping);
	ept_leave(ept);
	return error;
}

/* --- check -------------------------------------------------------------------------------- */

struct leaf_check {
	struct ept_view *view;
	struct mv_table_defect *defect;
};

/* Is the leaf what may be granted? */
static bool leaf_good(struct ept_view *view, const struct mv_mapping *leaf)
{
	struct mv_ept *ept = view->ept;
	const struct ept_slot *slot = ept_slot_find(ept, leaf->address);
	uint64_t last = leaf->address + (MV_BIT(leaf->page_lg2) - 1);
	struct mv_ept_backing backing;
	uint32_t rights;

	if (!slot || last > slot->region->last_gpa)
		return false;
	for (uint64_t gpa = leaf->address; gpa < last; gpa += MV_PAGE_SIZE) {
		rights = ept_view_rights(view, gpa);
		if (leaf->attr & ~rights &
		    (MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_EXEC | MV_ATTR_EXEC_USER))
			return false;
		if (!ept_resolve(ept, slot, gpa, 0, &backing) &&
		    backing.hpa != leaf->phys + (gpa - leaf->address))
			return false;
	}
	return true;
}

static int check_leaf(void *ctx, const struct mv_mapping *mapping)
{
	struct leaf_check *check = ctx;

	if (leaf_good(check->view, mapping))
		return 0;
	*check->defect = (struct mv_table_defect){
		.kind = MV_DEFECT_ADDRESS,
		.address = mapping->address,
		.level = mapping->level,
		.entry = mapping->phys,
	};
	return 1;
}

bool mv_ept_check(struct mv_ept *ept, struct mv_table_defect *defect)
{
	bool good = true;

	defect->kind = MV_DEFECT_NONE;
	ept_for_each_view(ept, view)
	{
		struct leaf_check check = { view, defect };

		good = good && mv_engine_check(&view->engine, true, defect) &&
		       !mv_engine_for_each_leaf(&view->engine, 0, ept->last_gpa, check_leaf,
						&check);
	}
	return good;
}
