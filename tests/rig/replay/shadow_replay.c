/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The page tables of a running guest, moment by moment, behind lib/shadow: what the guest's kernel
 * has written into its tables between two stops is written again, through the guest's own mapping
 * of its memory, by a processor that walks shadow tables; then CR3 is loaded and pages all over the
 * address space are accessed. Each access has to end as the pure walk of the guest's tables says,
 * with accessed and dirty set as a processor would.
 *
 *	shadow_replay FILE BYTES DIRECT_MAP
 *
 * FILE is the guest's RAM from address 0 on, DIRECT_MAP where its kernel maps address 0. A line on
 * standard input "CR0 CR3 CR4 EFER", in hex, says that the guest has stopped; it is answered by a
 * line "ok", or "wrong: ..." and the end. At the end of the input it says what it has met.
 *
 * What does not belong here: stopping the guest (test_shadow_replay.py).
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <memvirt/guest_walk.h>
#include <memvirt/memory.h>
#include <memvirt/shadow.h>

#define PAGE	 4096ULL
#define FRAME	 0x000ffffffffff000ULL
#define P	 0x01ULL
#define U	 0x04ULL
#define PS	 0x80ULL
#define LA57	 (1ULL << 12)
#define SMEP	 (1ULL << 20)
#define SMAP	 (1ULL << 21)
#define LEAVES	 (1u << 20)
#define ACCESSES 4000 /* at each stop */
#define TRIES	 64   /* of one access */

/**
 * struct leaf - a page that the guest's tables map
 * @gva:  of its first byte
 * @lg2:  its size
 * @user: by its own entry
 */
struct leaf {
	uint64_t gva;
	unsigned int lg2;
	bool user;
};

static struct {
	int file;
	uint64_t bytes, direct_map;
	unsigned char *mem, *next; /* of the guest behind the shadow; as it stands now */
	bool *is_table;		   /* by page: was one at some stop */
	struct mv_memory *memory;
	struct mv_shadow *shadow;
	struct mv_shadow_vcpu *vcpu;
	struct mv_paging_registers registers;
	struct mv_cpu_model cpu;
	struct mv_guest_accessor accessor;
	struct leaf_list {
		struct leaf *leaves;
		uint32_t count;
	} now, before; /* at this stop, and at the last one */
	uint64_t random;
	uint64_t stops, roots, writes, unmapped, write_faults, emulated, accesses, hits, injected,
		outside;
} r;

static void wrong(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	printf("wrong: stop %" PRIu64 ": ", r.stops);
	vprintf(format, arguments);
	printf("\n");
	va_end(arguments);
	exit(1);
}

static uint64_t any(uint64_t limit)
{
	r.random ^= r.random << 13;
	r.random ^= r.random >> 7;
	r.random ^= r.random << 17;
	return r.random % limit;
}

/* --- the guest's tables as they stand ------------------------------------------------------ */

static unsigned int top_level(const struct mv_paging_registers *registers)
{
	return registers->cr4 & LA57 ? 5 : 4;
}

static uint64_t sign_extended(uint64_t gva, unsigned int levels)
{
	unsigned int unused = 64 - (12 + 9 * levels);

	return (uint64_t)((int64_t)(gva << unused) >> unused);
}

static void note_leaf(uint64_t gva, unsigned int lg2, uint64_t entry)
{
	/* Of more than fit, any; of devices, few. */
	uint32_t at = r.now.count < LEAVES ? r.now.count : (uint32_t)any(LEAVES);

	if ((entry & FRAME) >= r.bytes && any(64))
		return;
	r.now.leaves[at] = (struct leaf){ gva, lg2, entry & U };
	r.now.count += at == r.now.count;
}

static void gather(uint64_t table, unsigned int level, unsigned int levels, uint64_t gva)
{
	if (table >= r.bytes)
		return;
	r.is_table[table / PAGE] = true;
	for (uint64_t i = 0; i < 512; i++) {
		uint64_t entry = ((const uint64_t *)(r.next + table))[i];
		uint64_t here = gva | i << (3 + 9 * level);

		if (!(entry & P))
			continue;
		if (level == 1 || (level < 4 && (entry & PS)))
			note_leaf(sign_extended(here, levels), 3 + 9 * level, entry);
		else
			gather(entry & FRAME, level - 1, levels, here);
	}
}

/* --- the processor ---------------------------------------------------------------------------- */

/* SDM vol. 3, 4.6, with CR0.WP = 1. */
static bool permits(uint32_t attr, unsigned int access)
{
	bool user_page = attr & MV_ATTR_USER, user = access & MV_ACCESS_USER;
	bool fetch = access & MV_ACCESS_FETCH;

	if (user && !user_page)
		return false;
	if (!user && user_page && fetch && (r.registers.cr4 & SMEP))
		return false;
	if (!user && user_page && !fetch && (r.registers.cr4 & SMAP) && !(access & MV_ACCESS_AC))
		return false;
	if ((access & MV_ACCESS_WRITE) && !(attr & MV_ATTR_WRITE))
		return false;
	return !fetch || (attr & MV_ATTR_EXEC);
}

static bool reaches(uint64_t gva, unsigned int access, uint64_t *hpa)
{
	struct mv_mapping mapping;

	if (mv_shadow_walk(r.vcpu, gva, &mapping) || !permits(mapping.attr, access))
		return false;
	*hpa = mapping.phys | (gva & ((1ULL << mapping.page_lg2) - 1));
	return true;
}

/* Return: how the access ended; FIXED where it was made, at *@hpa. */
static enum mv_shadow_kind access_once(uint64_t gva, unsigned int access, uint64_t *hpa,
				       struct mv_walk *walk, unsigned int *faults)
{
	for (*faults = 0; *faults < TRIES; ++*faults) {
		struct mv_shadow_outcome outcome;
		int error;

		if (reaches(gva, access, hpa))
			return MV_SHADOW_FIXED;
		error = mv_shadow_fault(r.vcpu, gva, access, &outcome);
		if (error)
			wrong("mv_shadow_fault(%#" PRIx64 ", %#x) returned %d", gva, access, error);
		*walk = outcome.walk;
		if (outcome.kind != MV_SHADOW_FIXED && outcome.kind != MV_SHADOW_RETRY)
			return outcome.kind;
	}
	wrong("no end of faults at %#" PRIx64, gva);
	return MV_SHADOW_RETRY;
}

/* --- what the kernel has written ------------------------------------------------------------ */

static void store(uint64_t gpa, uint64_t value)
{
	memcpy(r.mem + gpa, &value, sizeof(value));
}

/* Through the kernel's own mapping, where it has one by now. */
static void write_word(uint64_t gpa, uint64_t value)
{
	uint64_t hpa = 0;
	unsigned int faults;
	struct mv_walk walk;
	enum mv_shadow_kind kind =
		access_once(r.direct_map + gpa, MV_ACCESS_WRITE, &hpa, &walk, &faults);

	r.writes++;
	r.unmapped += kind == MV_SHADOW_INJECT;
	r.write_faults += faults + (kind != MV_SHADOW_FIXED);
	if (kind == MV_SHADOW_FIXED && hpa != (uintptr_t)r.mem + gpa)
		wrong("the kernel's mapping of %#" PRIx64 " leads to %#" PRIx64, gpa,
		      hpa - (uintptr_t)r.mem);
	store(gpa, value);
	if (kind == MV_SHADOW_FIXED)
		return;
	r.emulated++;
	mv_shadow_guest_wrote(r.shadow, gpa, sizeof(value));
}

/* Data first: a kernel fills a table before it links it. */
static void follow(bool first)
{
	for (uint64_t page = 0; page < r.bytes / PAGE; page++) {
		unsigned char *at = r.mem + page * PAGE;
		const unsigned char *now = r.next + page * PAGE;

		if ((first || !r.is_table[page]) && memcmp(at, now, PAGE))
			memcpy(at, now, PAGE);
	}
	for (uint64_t page = 0; page < r.bytes / PAGE; page++)
		for (uint64_t i = 0; r.is_table[page] && i < PAGE; i += 8)
			if (memcmp(r.mem + page * PAGE + i, r.next + page * PAGE + i, 8)) {
				uint64_t value;

				memcpy(&value, r.next + page * PAGE + i, 8);
				write_word(page * PAGE + i, value);
			}
}

/* --- accesses, judged ------------------------------------------------------------------------- */

static void judge(uint64_t gva, unsigned int access, const struct mv_walk *pure,
		  enum mv_shadow_kind kind, uint64_t hpa, const struct mv_walk *walk)
{
	if (pure->kind != MV_WALK_OK) {
		if (kind != MV_SHADOW_INJECT || walk->kind != pure->kind ||
		    walk->error_code != pure->error_code)
			wrong("access %#x to %#" PRIx64 ": ended as %d, code %#x; pure walk: %#x",
			      access, gva, kind, walk->error_code, pure->error_code);
		r.injected++;
		return;
	}
	if (pure->gpa >= r.bytes && kind == MV_SHADOW_MMIO) {
		r.outside++;
		return;
	}
	if (kind == MV_SHADOW_EMULATE_WRITE && (access & MV_ACCESS_WRITE) &&
	    walk->gpa == pure->gpa && r.is_table[pure->gpa / PAGE])
		return;
	if (kind != MV_SHADOW_FIXED || hpa != (uintptr_t)r.mem + pure->gpa)
		wrong("access %#x to %#" PRIx64 ": ended as %d at %#" PRIx64
		      "; pure walk: %#" PRIx64,
		      access, gva, kind, hpa - (uintptr_t)r.mem, pure->gpa);
}

static void judge_marks(const struct mv_paging *paging, uint64_t gva, unsigned int access)
{
	const uint32_t wanted = MV_ATTR_ACCESSED | (access & MV_ACCESS_WRITE ? MV_ATTR_DIRTY : 0);
	struct mv_walk walk;

	if (mv_guest_walk(paging, &r.accessor, gva, access, &walk) || walk.kind != MV_WALK_OK ||
	    (walk.attr & wanted) != wanted)
		wrong("access %#x to %#" PRIx64 " has left attributes %#x", access, gva, walk.attr);
	for (unsigned int i = 0; i < walk.steps; i++)
		if (!(walk.step[i].entry & 0x20))
			wrong("access to %#" PRIx64 " has left level %u unaccessed", gva,
			      walk.step[i].level);
}

/* Half of them in user space, where there is one: it is small beside the kernel's. Some are gone.
 */
static const struct leaf *choose_leaf(void)
{
	const struct leaf_list *list = r.before.count && !any(4) ? &r.before : &r.now;
	uint32_t users = 0;

	while (users < list->count && list->leaves[users].user)
		users++;
	return &list->leaves[any(users && any(2) ? users : list->count)];
}

/* Return: the address; @user: who mostly goes there. */
static uint64_t choose_gva(bool *user)
{
	const struct leaf *leaf = choose_leaf();
	uint64_t gva = leaf->gva + (any(1ULL << leaf->lg2) & ~7ULL);

	*user = leaf->user;
	/* Next to it, where perhaps nothing is. */
	return any(16) ? gva : gva ^ 1ULL << (12 + any(20));
}

static void access_and_judge(const struct mv_paging *paging)
{
	static const unsigned int kinds[] = { MV_ACCESS_READ, MV_ACCESS_WRITE, MV_ACCESS_FETCH };
	unsigned int access = kinds[any(3)], faults;
	uint64_t gva, hpa = 0;
	enum mv_shadow_kind kind;
	bool user;
	struct mv_walk pure, walk = { 0 };
	int error;

	gva = choose_gva(&user);
	access |= user == !!any(8) ? MV_ACCESS_USER : 0;
	access |= any(2) ? MV_ACCESS_AC : 0;
	error = mv_guest_walk(paging, &r.accessor, gva, access, &pure);
	if (error)
		return; /* a table outside memory */
	kind = access_once(gva, access, &hpa, &walk, &faults);
	r.accesses++;
	r.hits += !faults && kind == MV_SHADOW_FIXED;
	judge(gva, access, &pure, kind, hpa, &walk);
	if (pure.kind == MV_WALK_OK)
		judge_marks(paging, gva, access);
}

/* --- a stop -------------------------------------------------------------------------------------
 */

static void read_memory(void)
{
	for (uint64_t done = 0; done < r.bytes;) {
		ssize_t some = pread(r.file, r.next + done, r.bytes - done, (off_t)done);

		if (some <= 0)
			wrong("the guest's RAM cannot be read: %s", strerror(errno));
		done += (uint64_t)some;
	}
}

static void load(const struct mv_paging_registers *registers, struct mv_paging *paging)
{
	uint64_t root;
	int error;

	r.roots += registers->cr3 != r.registers.cr3;
	r.registers = *registers;
	error = mv_shadow_load_root(r.vcpu, registers, &r.cpu, false, &root);
	if (error || mv_paging_init(paging, registers, &r.cpu))
		wrong("CR0 %#" PRIx64 ", CR3 %#" PRIx64 ", CR4 %#" PRIx64 " is refused: %d",
		      registers->cr0, registers->cr3, registers->cr4, error);
}

static void stop(const struct mv_paging_registers *registers)
{
	struct leaf_list was;
	struct mv_paging paging;
	bool first = !r.stops++;

	read_memory();
	was = r.before;
	r.before = r.now;
	r.now = (struct leaf_list){ was.leaves, 0 };
	gather(registers->cr3 & FRAME, top_level(registers), top_level(registers), 0);
	if (!r.now.count)
		wrong("CR3 %#" PRIx64 " maps nothing", registers->cr3);
	follow(first);
	load(registers, &paging);
	for (unsigned int i = 0; i < ACCESSES; i++)
		access_and_judge(&paging);
}

/* --- together --------------------------------------------------------------------------------- */

static void must(int error, const char *what)
{
	if (error) {
		fprintf(stderr, "shadow_replay: %s: %s\n", what, strerror(-error));
		exit(2);
	}
}

static void open_guest(void)
{
	struct mv_memory_config memory = { .size = sizeof(memory) };
	struct mv_region_config region = {
		.size = sizeof(region), .last_gpa = r.bytes - 1, .hva = r.mem, .fd = -1
	};
	struct mv_shadow_config shadow = {
		.size = sizeof(shadow),
		.format = MV_FORMAT_X86_5L,
		.features = MV_FEATURE_NX | MV_FEATURE_1G,
		.maxphyaddr = 52,
		.node = -1,
		.page_budget = 256, /* fewer than the guest has */
	};

	must(mv_memory_create(&memory, &r.memory), "memory");
	must(mv_memory_add_region(r.memory, &region), "region");
	shadow.memory = r.memory;
	must(mv_shadow_create(&shadow, &r.shadow), "shadow");
	must(mv_shadow_vcpu_create(r.shadow, &r.vcpu), "vCPU");
	mv_guest_accessor_memory(&r.accessor, r.memory);
	r.accessor.change = NULL;
	r.cpu = (struct mv_cpu_model){ .maxphyaddr = 40, .features = MV_CPU_1G };
}

static void *zeros(size_t bytes)
{
	void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(at == MAP_FAILED ? -errno : 0, "memory");
	return at;
}

static void say(void)
{
	uint64_t faults[MV_SHADOW_KINDS];
	struct mv_shadow_stats stats;

	mv_shadow_vcpu_faults(r.vcpu, faults);
	mv_shadow_get_stats(r.shadow, &stats);
	printf("stops %" PRIu64 "\nroots %" PRIu64 "\nwrites %" PRIu64 "\nunmapped %" PRIu64
	       "\nwrite-faults %" PRIu64 "\nemulated %" PRIu64 "\naccesses %" PRIu64
	       "\nhits %" PRIu64 "\ninjected %" PRIu64 "\noutside %" PRIu64 "\n",
	       r.stops, r.roots, r.writes, r.unmapped, r.write_faults, r.emulated, r.accesses,
	       r.hits, r.injected, r.outside);
	printf("guest-faults %" PRIu64 "\nfixed %" PRIu64 "\nunsyncs %" PRIu64 "\nsyncs %" PRIu64
	       "\nahead %" PRIu64 "\nreclaimed %" PRIu64 "\n",
	       faults[MV_SHADOW_INJECT], faults[MV_SHADOW_FIXED], stats.unsyncs, stats.syncs,
	       stats.ahead, stats.reclaimed);
}

int main(int argc, char **argv)
{
	struct mv_paging_registers now = { 0 };
	const char *seed = getenv("SEED");

	if (argc != 4) {
		fprintf(stderr, "usage: shadow_replay FILE BYTES DIRECT_MAP\n");
		return 2;
	}
	r.file = open(argv[1], O_RDONLY | O_CLOEXEC);
	must(r.file < 0 ? -errno : 0, argv[1]);
	r.bytes = strtoull(argv[2], NULL, 0);
	r.direct_map = strtoull(argv[3], NULL, 0);
	r.random = (seed ? strtoull(seed, NULL, 0) : 1) * 2 + 1;
	r.mem = zeros(r.bytes);
	r.next = zeros(r.bytes);
	r.is_table = zeros(r.bytes / PAGE * sizeof(*r.is_table));
	r.now.leaves = zeros(LEAVES * sizeof(struct leaf));
	r.before.leaves = zeros(LEAVES * sizeof(struct leaf));
	open_guest();
	setvbuf(stdout, NULL, _IOLBF, 0);
	while (scanf("%" SCNx64 " %" SCNx64 " %" SCNx64 " %" SCNx64, &now.cr0, &now.cr3, &now.cr4,
		     &now.efer) == 4) {
		stop(&now);
		printf("ok\n");
	}
	say();
	mv_shadow_vcpu_destroy(r.vcpu);
	mv_shadow_destroy(r.shadow);
	mv_memory_destroy(r.memory);
	return 0;
}
