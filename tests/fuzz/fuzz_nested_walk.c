/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The nested walk over arbitrary registers, guest tables and stage-2 tables, all in one memory, so
 * that each may point into the other. Whatever they are: it ends after a bounded number of
 * reads, reads only through the accessor, and says the same as the two walks of which it is
 * made, put together here one entry after the other; as its trace; as translate_many; and as
 * the cached walk, before and after its cache knows the answer.
 *
 * The same memory is reached through the accessor, or lies in a direct map, which is a code of
 * its own: then a terabyte of zeros follows it, for tables may point anywhere.
 *
 * Input: a byte of flags, the guest's registers, stage 2, accesses, and words of memory.
 */
#include <sys/mman.h>

#include <memvirt/nested.h>

#include "support/fuzz_input.h"
#include "support/testing.h"

#define FLAG_FOLDED 0x01
#define FLAG_MARK   0x02 /* accesses set accessed and dirty; or else they only look */
#define FLAG_MANY   0x04
#define FLAG_DIRECT 0x08 /* where the width allows */

#define DIRECT_WIDTH 40
#define DIRECT_BYTES (1ULL << DIRECT_WIDTH)

#define ACCESSES 4
#define READS	 (64 * 36) /* attempts, and reads of each: (5 + 1) * 5 + 5 and then some */

struct fuzz {
	struct fuzz_memory memory;
	struct mv_paging paging;
	struct mv_stage2 stage2;
	struct mv_nested nested;
	struct mv_nested_cache *cache;
	bool direct;
	void *map; /* the direct map, made once */
	uint64_t gva[ACCESSES];
	unsigned int access[ACCESSES];
};

static struct fuzz fuzz;

/* --- both stages, put together here ----------------------------------------------------------- */

/* What the model's reading of guest tables ended with. */
struct model {
	unsigned int access; /* of the one that walks, for stage 2 */
	struct mv_stage2_walk fault;
};

#define MODEL_FAULTED (-ECANCELED)

static bool is_npt(void)
{
	return fuzz.stage2.format >= MV_FORMAT_NPT_4L;
}

static int model_read(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct model *model = ctx;
	struct mv_guest_accessor *frames = &fuzz.memory.accessor;
	int error = mv_stage2_walk(&fuzz.stage2, gpa, model->access, &model->fault);

	if (error)
		return error;
	if (model->fault.kind != MV_STAGE2_OK)
		return MODEL_FAULTED;
	return frames->read(frames->ctx, model->fault.phys, bytes, entry);
}

static void model_stage2_fault(const struct mv_stage2_walk *fault, bool guest_table,
			       struct mv_nested_walk *walk)
{
	walk->kind = MV_NESTED_STAGE2;
	walk->gpa = fault->gpa;
	walk->stage2_kind = fault->kind;
	walk->level = fault->level;
	walk->code = fault->code;
	walk->suppress_ve = fault->suppress_ve;
	walk->guest_table = guest_table;
}

static int model_final(const struct mv_walk *guest, unsigned int access,
		       struct mv_nested_walk *walk)
{
	struct mv_stage2_walk final;
	int error;

	access &= MV_ACCESS_READ | MV_ACCESS_WRITE | MV_ACCESS_FETCH | MV_ACCESS_SHADOW_STACK;
	access |= MV_ACCESS_LINEAR | MV_ACCESS_NO_UPDATE;
	access |= guest->attr & MV_ATTR_USER ? MV_ACCESS_USER : 0;
	access |= guest->attr & MV_ATTR_WRITE ? MV_ACCESS_GUEST_WRITABLE : 0;
	access |= guest->attr & MV_ATTR_EXEC ? 0 : MV_ACCESS_GUEST_NO_EXEC;
	error = mv_stage2_walk(&fuzz.stage2, guest->gpa, access, &final);
	if (error)
		return error;
	walk->gpa = guest->gpa;
	walk->hpa = final.phys;
	walk->page_lg2 = guest->page_lg2 < final.page_lg2 ? guest->page_lg2 : final.page_lg2;
	walk->attr = guest->attr & final.attr & (MV_ATTR_READ | MV_ATTR_WRITE);
	walk->attr |= guest->attr & (MV_ATTR_USER | MV_ATTR_PKEY_MASK);
	if (final.kind == MV_STAGE2_OK)
		walk->kind = MV_NESTED_OK;
	else
		model_stage2_fault(&final, false, walk);
	return 0;
}

/* A look; nothing is set. PAE paging under NPT reads its PDPTEs anew: not modelled. */
static int model_walk(uint64_t gva, unsigned int access, struct mv_nested_walk *walk)
{
	struct model model = {
		.access = MV_ACCESS_READ | MV_ACCESS_GUEST_TABLE | MV_ACCESS_LINEAR |
			  MV_ACCESS_NO_UPDATE,
	};
	const struct mv_guest_accessor accessor = { model_read, NULL, &model };
	struct mv_walk guest;
	int error = mv_guest_walk(&fuzz.paging, &accessor, gva, access, &guest);

	memset(walk, 0, sizeof(*walk));
	if (error == MODEL_FAULTED) {
		model_stage2_fault(&model.fault, true, walk);
		return 0;
	}
	if (error)
		return error;
	if (guest.kind == MV_WALK_OK)
		return model_final(&guest, access, walk);
	walk->kind =
		guest.kind == MV_WALK_PAGE_FAULT ? MV_NESTED_PAGE_FAULT : MV_NESTED_NOT_CANONICAL;
	walk->error_code = guest.error_code;
	walk->level = guest.level;
	return 0;
}

/* --- comparisons ----------------------------------------------------------------------------- */

static bool same_fault(const struct mv_nested_walk *a, const struct mv_nested_walk *b)
{
	return a->level == b->level && a->gpa == b->gpa && a->stage2_kind == b->stage2_kind &&
	       a->guest_table == b->guest_table && a->code == b->code &&
	       a->suppress_ve == b->suppress_ve;
}

#define SAME_ATTR (MV_ATTR_READ | MV_ATTR_WRITE | MV_ATTR_USER | MV_ATTR_PKEY_MASK)

static bool same(const struct mv_nested_walk *a, const struct mv_nested_walk *b)
{
	if (a->kind != b->kind)
		return false;
	switch (a->kind) {
	case MV_NESTED_OK:
		return a->hpa == b->hpa && a->gpa == b->gpa && a->page_lg2 == b->page_lg2 &&
		       !((a->attr ^ b->attr) & SAME_ATTR);
	case MV_NESTED_PAGE_FAULT:
		return a->error_code == b->error_code && a->level == b->level;
	case MV_NESTED_STAGE2:
		return same_fault(a, b);
	default:
		return true;
	}
}

/* Two ways to look at one address; errors too have to be the same. */
static void insist_same(int a_error, const struct mv_nested_walk *a, int b_error,
			const struct mv_nested_walk *b)
{
	insist(a_error == b_error);
	insist(a_error || same(a, b));
}

static bool is_modelled(void)
{
	return !(is_npt() && fuzz.paging.enabled && fuzz.paging.format == MV_FORMAT_X86_PAE);
}

static void look(uint64_t gva, unsigned int access)
{
	static struct mv_nested_trace trace;
	struct mv_nested_walk walk, other;
	int error, second;

	access |= MV_ACCESS_NO_UPDATE;
	fuzz_memory_rewind(&fuzz.memory);
	error = mv_nested_walk(&fuzz.nested, gva, access, &walk);
	insist(fuzz.memory.reads <= 2 * 36);
	second = mv_nested_trace(&fuzz.nested, gva, access, &other, &trace);
	insist_same(error, &walk, second, &other);
	second = mv_nested_cached_walk(fuzz.cache, &fuzz.nested, gva, access, &other);
	insist_same(error, &walk, second, &other);
	insist(!fuzz.memory.changes);
	insist(!fuzz.direct || !memcmp(fuzz.map, fuzz.memory.word, sizeof(fuzz.memory.word)));
	if (!is_modelled())
		return;
	second = model_walk(gva, access, &other);
	insist_same(error, &walk, second, &other);
}

/* What was set in the direct map, for the model, which reads the memory. */
static void take_marks(void)
{
	if (fuzz.direct)
		memcpy(fuzz.memory.word, fuzz.map, sizeof(fuzz.memory.word));
}

/* With marks set: the tables change under the walks, so each is held to less. */
static void mark(uint64_t gva, unsigned int access)
{
	struct mv_nested_walk walk, cached;
	int error;

	fuzz_memory_rewind(&fuzz.memory);
	error = mv_nested_walk(&fuzz.nested, gva, access, &walk);
	insist(fuzz.memory.reads <= READS);
	insist(!error || error == -EFAULT || error == -EAGAIN);
	mv_nested_cache_flush_all(fuzz.cache);
	error = mv_nested_cached_walk(fuzz.cache, &fuzz.nested, gva, access, &cached);
	insist(!error || error == -EFAULT || error == -EAGAIN);
	/* The second time the cache may know. */
	error = mv_nested_cached_walk(fuzz.cache, &fuzz.nested, gva, access, &cached);
	insist(!error || error == -EFAULT || error == -EAGAIN);
	mv_nested_cache_flush_all(fuzz.cache);
	take_marks();
}

static void translate_many(unsigned int access)
{
	uint64_t hpa[ACCESSES];
	size_t good = 0;

	access |= MV_ACCESS_NO_UPDATE;
	fuzz_memory_rewind(&fuzz.memory);
	mv_nested_translate_many(&fuzz.nested, fuzz.gva, access, hpa, ACCESSES);
	for (unsigned int i = 0; i < ACCESSES; i++) {
		struct mv_nested_walk walk;
		int error = mv_nested_walk(&fuzz.nested, fuzz.gva[i], access, &walk);
		bool ok = !error && walk.kind == MV_NESTED_OK;

		insist(hpa[i] == (ok ? walk.hpa : UINT64_MAX));
		good += ok;
	}
	insist(good == mv_nested_translate_many(&fuzz.nested, fuzz.gva, access, hpa, ACCESSES));
}

/* --- registers ------------------------------------------------------------------------------- */

static bool take_registers(struct fuzz_input *input)
{
	struct mv_paging_registers registers;
	struct mv_cpu_model cpu;

	registers.cr0 = fuzz_take(input, 4);
	registers.cr3 = fuzz_take(input, 8);
	registers.cr4 = fuzz_take(input, 4);
	registers.efer = fuzz_take(input, 2);
	registers.pkru = (uint32_t)fuzz_take(input, 4);
	registers.pkrs = (uint32_t)fuzz_take(input, 4);
	cpu.maxphyaddr = (unsigned int)fuzz_take(input, 1);
	cpu.features = (uint32_t)fuzz_take(input, 1);
	return !mv_paging_init(&fuzz.paging, &registers, &cpu);
}

/* Context: once. Return: false where there is no such address space. */
static bool make_map(void)
{
	if (!fuzz.map)
		fuzz.map = mmap(NULL, DIRECT_BYTES, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return fuzz.map != MAP_FAILED;
}

/* The walk that is tried: over the same tables as fuzz.stage2. */
static bool make_nested(struct mv_stage2_config *config)
{
	struct mv_nested_config nested = {
		.size = sizeof(nested),
		.guest_pat = MV_PAT_RESET,
		.host_pat = MV_PAT_RESET,
	};
	struct mv_stage2 direct;

	nested.stage2 = fuzz.direct ? &direct : &fuzz.stage2;
	if (!fuzz.direct) {
		nested.frames = fuzz.memory.accessor;
		return !mv_nested_init(&fuzz.nested, &nested);
	}
	nested.direct_map = config->direct_map = (uintptr_t)fuzz.map;
	memset(&config->accessor, 0, sizeof(config->accessor));
	return !mv_stage2_init(&direct, config) && !mv_nested_init(&fuzz.nested, &nested);
}

static bool take_stage2(struct fuzz_input *input, bool direct)
{
	struct mv_stage2_config config = { .size = sizeof(config) };

	config.format = (enum mv_format_id)fuzz_take(input, 1);
	config.features = (uint32_t)fuzz_take(input, 2);
	config.maxphyaddr = (unsigned int)fuzz_take(input, 1);
	config.root = fuzz_take(input, 8);
	config.accessor = fuzz.memory.accessor;
	if (mv_stage2_init(&fuzz.stage2, &config))
		return false;
	fuzz.direct = direct && config.maxphyaddr <= DIRECT_WIDTH && make_map();
	fuzz.memory.zeros = fuzz.direct;
	fuzz.memory.folded &= !fuzz.direct;
	return make_nested(&config);
}

/* As a guest does, and where that fails, with PDPTEs that are absent. */
static void enter_guest(void)
{
	struct mv_nested_walk walk;
	int error;

	mv_nested_set_paging(&fuzz.nested, &fuzz.paging);
	error = mv_nested_load_pdptes(&fuzz.nested, &walk);
	insist(!error || error == -EFAULT || error == -EAGAIN);
	take_marks();
	memcpy(fuzz.paging.pdpte, fuzz.nested.paging.pdpte, sizeof(fuzz.paging.pdpte));
	if (!fuzz.cache) {
		const struct mv_nested_cache_config config = { .size = sizeof(config),
							       .pages_lg2 = 4,
							       .node = -1 };

		insist(!mv_nested_cache_create(&config, &fuzz.cache));
	}
	mv_nested_cache_flush_all(fuzz.cache);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz_input input = { data, size };
	unsigned int flags = (unsigned int)fuzz_take(&input, 1);

	fuzz_memory_open(&fuzz.memory, flags & FLAG_FOLDED);
	if (!take_registers(&input) || !take_stage2(&input, flags & FLAG_DIRECT))
		return 0;
	for (unsigned int i = 0; i < ACCESSES; i++) {
		fuzz.gva[i] = fuzz_take(&input, 8);
		fuzz.access[i] = (unsigned int)fuzz_take(&input, 1);
	}
	fuzz_memory_fill(&fuzz.memory, &input);
	if (fuzz.direct)
		memcpy(fuzz.map, fuzz.memory.word, sizeof(fuzz.memory.word));
	enter_guest();
	for (unsigned int i = 0; i < ACCESSES; i++)
		look(fuzz.gva[i], fuzz.access[i]);
	if (flags & FLAG_MANY)
		translate_many(fuzz.access[0]);
	for (unsigned int i = 0; i < ACCESSES && (flags & FLAG_MARK); i++) {
		mark(fuzz.gva[i], fuzz.access[i]);
		look(fuzz.gva[i], fuzz.access[i]);
	}
	return 0;
}
