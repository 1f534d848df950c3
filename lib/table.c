/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Tables as the library's users see them: memvirt/table.h, and how an engine comes and goes.
 *
 * Freestanding. What does not belong here: what is done with tables (table_engine.h).
 */
#include <errno.h>
#include <string.h>

#include "region.h"
#include "table_gather.h"
#include "table_walk.h"

struct mv_table {
	struct mv_engine engine;
};

static const struct mv_engine_ops *const ops_of_format[MV_FORMATS] = {
	[MV_FORMAT_X86_32] = &mv_engine_x86_32,	  [MV_FORMAT_X86_PSE] = &mv_engine_x86_pse,
	[MV_FORMAT_X86_PAE] = &mv_engine_x86_pae, [MV_FORMAT_X86_4L] = &mv_engine_x86_4l,
	[MV_FORMAT_X86_5L] = &mv_engine_x86_5l,	  [MV_FORMAT_EPT_4L] = &mv_engine_ept_4l,
	[MV_FORMAT_EPT_5L] = &mv_engine_ept_5l,	  [MV_FORMAT_NPT_4L] = &mv_engine_npt_4l,
	[MV_FORMAT_NPT_5L] = &mv_engine_npt_5l,
};

/* --- engines ------------------------------------------------------------------------------ */

/* SDM vol. 3, 29.3.3.1, for EPT; in x86 formats no combination of attributes is wrong. */
bool mv_engine_attr_valid(const struct mv_engine *e, uint32_t attr)
{
	uint32_t exec = MV_ATTR_EXEC;
	unsigned int type = MV_ATTR_TYPE_OF(attr);

	if (!e->format->exec)
		return true;
	if (e->features & MV_FEATURE_MODE_EXEC)
		exec |= MV_ATTR_EXEC_USER;
	if (type == 2 || type == 3 || type == 7)
		return false;
	if (attr & MV_ATTR_READ)
		return true;
	return !(attr & MV_ATTR_WRITE) && (attr & exec) && (e->features & MV_FEATURE_EXEC_ONLY);
}

static bool config_valid(const struct mv_table_config *config)
{
	return config && config->size == sizeof(*config) &&
	       (unsigned int)config->format < MV_FORMATS && config->maxphyaddr >= 32 &&
	       config->maxphyaddr <= 52;
}

/* A page may only be as large as all smaller ones make it possible to split it. */
static uint8_t made_leaf_levels(const struct mv_rules *rules)
{
	uint8_t levels = rules->leaf_levels;

	return levels & 1 << 2 ? levels : 1 << 1;
}

static void fill(struct mv_engine *e, const struct mv_table_config *config,
		 const struct mv_platform *platform)
{
	*e = (struct mv_engine){
		.ops = ops_of_format[config->format],
		.format = mv_formats[config->format],
		.platform = *platform,
		.features = config->features,
		.maxphyaddr = config->maxphyaddr,
		.node = config->node,
		.page_limit = config->page_limit,
		.flush = config->flush,
		.flush_ctx = config->ctx,
	};
	mv_rules_init(e->format, config->features, config->maxphyaddr, &e->rules);
	e->leaf_levels = made_leaf_levels(&e->rules);
}

static int make_root(struct mv_engine *e)
{
	struct mv_page_cache cache = { NULL, 0 };
	int error = mv_page_cache_fill(e, &cache, 1);
	void *root;

	if (error)
		return error;
	root = mv_page_cache_take(&cache);
	/* CR3 has 32 bits with PAE, whatever the width: SDM vol. 3, table 4-7. */
	if (e->format->id == MV_FORMAT_X86_PAE && mv_engine_phys(e, root) >> 32) {
		mv_page_cache_put(&cache, root);
		mv_page_cache_drain(e, &cache);
		return -ENOMEM;
	}
	memset(root, 0, MV_TABLE_BYTES);
	for (unsigned int i = 0; i < mv_entries(e->format, e->format->levels); i++)
		mv_entry_fill(e->format, root, i, e->rules.empty);
	e->root = mv_engine_phys(e, root);
	return 0;
}

int mv_engine_init(struct mv_engine *e, const struct mv_table_config *config)
{
	const struct mv_platform *platform;

	if (!config_valid(config))
		return -EINVAL;
	platform = config->platform ? config->platform : mv_platform_default();
	if (!platform || !platform->ops->table_alloc || !platform->ops->table_free)
		return -EINVAL;
	fill(e, config, platform);
	return make_root(e);
}

void mv_engine_finish(struct mv_engine *e)
{
	mv_engine_free_tables(e, mv_engine_page(e, e->root), e->format->levels);
}

/* --- tables ------------------------------------------------------------------------------- */

int mv_table_create(const struct mv_table_config *config, struct mv_table **table)
{
	const struct mv_platform *platform;
	struct mv_table *made;
	int error;

	if (!config_valid(config))
		return -EINVAL;
	platform = config->platform ? config->platform : mv_platform_default();
	if (!platform)
		return -EINVAL;
	made = platform->ops->alloc(platform->ctx, sizeof(*made), -1);
	if (!made)
		return -ENOMEM;
	error = mv_engine_init(&made->engine, config);
	if (error) {
		platform->ops->free(platform->ctx, made, sizeof(*made));
		return error;
	}
	*table = made;
	return 0;
}

void mv_table_destroy(struct mv_table *table)
{
	struct mv_platform platform;

	if (!table)
		return;
	platform = table->engine.platform;
	mv_engine_finish(&table->engine);
	platform.ops->free(platform.ctx, table, sizeof(*table));
}

uint64_t mv_table_root(const struct mv_table *table)
{
	return table->engine.root;
}

uint64_t mv_table_last_address(const struct mv_table *table)
{
	return mv_format_last_address(table->engine.format);
}

int mv_table_map(struct mv_table *table, uint64_t first, uint64_t last, uint64_t phys,
		 uint32_t attr, unsigned int largest_lg2)
{
	return mv_engine_map(&table->engine, first, last, phys, attr, largest_lg2);
}

int mv_table_unmap(struct mv_table *table, uint64_t first, uint64_t last, uint64_t *removed)
{
	return mv_engine_unmap(&table->engine, first, last, removed, NULL, NULL);
}

int mv_table_protect(struct mv_table *table, uint64_t first, uint64_t last, uint32_t clear,
		     uint32_t set)
{
	return mv_engine_protect(&table->engine, first, last, clear, set);
}

int mv_table_walk(const struct mv_table *table, uint64_t address, struct mv_mapping *mapping)
{
	return mv_engine_walk(&table->engine, address, mapping);
}

size_t mv_table_translate_many(const struct mv_table *table, const uint64_t *address,
			       uint64_t *phys, size_t count)
{
	return mv_engine_translate_many(&table->engine, address, phys, count);
}

int mv_table_for_each_leaf(const struct mv_table *table, uint64_t first, uint64_t last,
			   int (*leaf)(void *ctx, const struct mv_mapping *mapping), void *ctx)
{
	return mv_engine_for_each_leaf(&table->engine, first, last, leaf, ctx);
}

uint64_t mv_table_harvest(struct mv_table *table, uint64_t first, uint64_t last, uint32_t what,
			  void (*found)(void *ctx, const struct mv_mapping *mapping), void *ctx,
			  bool flush)
{
	return mv_engine_harvest(&table->engine, first, last, what, found, ctx, flush);
}

int mv_table_split(struct mv_table *table, uint64_t first, uint64_t last, unsigned int page_lg2)
{
	return mv_engine_split(&table->engine, first, last, page_lg2);
}

uint64_t mv_table_collapse(struct mv_table *table, uint64_t first, uint64_t last,
			   unsigned int largest_lg2)
{
	return mv_engine_collapse(&table->engine, first, last, largest_lg2);
}

bool mv_table_check(const struct mv_table *table, struct mv_table_defect *defect)
{
	return mv_engine_check(&table->engine, false, defect);
}

void mv_table_get_usage(const struct mv_table *table, struct mv_table_usage *usage)
{
	usage->pages = __atomic_load_n(&table->engine.pages, __ATOMIC_RELAXED);
	usage->peak_pages = __atomic_load_n(&table->engine.peak_pages, __ATOMIC_RELAXED);
}
