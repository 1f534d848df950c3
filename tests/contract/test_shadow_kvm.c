/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Shadow tables as the real CR3 of a virtual machine of KVM's: built for random guest tables by the
 * faults of random accesses, then loaded, and each of many accesses that a processor makes there
 * reaches the address that mv_shadow_walk() says, or faults where it must.
 *
 * The machine's memory is the guest's, at the same addresses, and after it the shadow's tables.
 * A fault ends the machine's run, for there is no handler; CR2 tells where it was.
 */
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>
#include <memvirt/shadow.h>

#include "support/testing.h"

#define PAGE	     4096ULL
#define GUEST_BYTES  (8ULL << 20)
#define TABLE_BYTES  (2ULL << 20)
#define MEMORY_BYTES (GUEST_BYTES + TABLE_BYTES)
#define ROOT	     0x1000ULL /* of the guest; more tables follow */
#define CODE	     0x100000ULL
#define DATA	     0x200000ULL /* to the end: stamped */
#define FRAME	     0x000ffffffffff000ULL
#define P	     0x01ULL
#define W	     0x02ULL
#define U	     0x04ULL
#define A	     0x20ULL
#define D	     0x40ULL
#define PS	     0x80ULL
#define NX	     (1ULL << 63)
#define TARGETS	     24
#define ACCESSES     60
#define PORT	     0x10
#define SMEP	     (1ULL << 20)
#define NO_FAULT     1ULL /* in CR2 */

/* Each 16 bytes of data: where they are, and `out %al, $PORT`. */
#define SLOT_CODE 8
static const unsigned char end_code[8] = { 0xe6, PORT, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90 };
static const unsigned char read_code[8] = { 0x48, 0x8b, 0x18, 0xe6, PORT, 0x90, 0x90, 0x90 };
static const unsigned char write_code[8] = { 0x48, 0x89, 0x18, 0xe6, PORT, 0x90, 0x90, 0x90 };

static struct machine {
	int kvm, vm, cpu;
	struct kvm_run *run;
	size_t run_bytes;
	unsigned char *memory;
	const char *why; /* there is none */

	struct mv_platform_ops ops;
	struct mv_platform platform;
	uint32_t free_tables;
	uint16_t free_table[TABLE_BYTES / PAGE];

	struct mv_memory *guest;
	struct mv_shadow *shadow;
	struct mv_shadow_vcpu *vcpu;
	struct mv_paging_registers registers;
	uint64_t root;
	uint64_t next_table;
	uint64_t code_gva[2]; /* of a supervisor, of a user */
	uint64_t target[TARGETS];
	struct chance chance;
	uint64_t made, faulted;
} m;

/* --- KVM ---------------------------------------------------------------------------------------
 */

static void set_memory(uint64_t bytes)
{
	struct kvm_userspace_memory_region slot = { .memory_size = bytes,
						    .userspace_addr = (uintptr_t)m.memory };

	insist(!ioctl(m.vm, KVM_SET_USER_MEMORY_REGION, &slot));
}

static bool open_kvm(void)
{
	int size;

	m.why = "/dev/kvm cannot be opened";
	m.kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (m.kvm < 0)
		return false;
	m.why = "KVM makes no virtual machine here";
	m.vm = ioctl(m.kvm, KVM_CREATE_VM, 0);
	m.cpu = m.vm < 0 ? -1 : ioctl(m.vm, KVM_CREATE_VCPU, 0);
	size = ioctl(m.kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (m.cpu < 0 || size < 0)
		return false;
	m.run_bytes = (size_t)size;
	m.run = mmap(NULL, m.run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, m.cpu, 0);
	m.memory =
		mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (m.run == MAP_FAILED || m.memory == MAP_FAILED)
		return false;
	set_memory(MEMORY_BYTES);
	return true;
}

/* A KVM that keeps shadows itself has seen none of what was written into these tables. */
static void forget_all(void)
{
	set_memory(0);
	set_memory(MEMORY_BYTES);
}

static void set_state(bool user, uint64_t rip, uint64_t rax, uint64_t rbx)
{
	const uint8_t dpl = user ? 3 : 0;
	const struct kvm_segment code = { .limit = ~0u,
					  .selector = (uint16_t)(8 | dpl),
					  .type = 11,
					  .present = 1,
					  .dpl = dpl,
					  .s = 1,
					  .l = 1,
					  .g = 1 };
	const struct kvm_segment data = { .limit = ~0u,
					  .selector = (uint16_t)(16 | dpl),
					  .type = 3,
					  .present = 1,
					  .dpl = dpl,
					  .s = 1,
					  .db = 1,
					  .g = 1 };
	/* IOPL 3, so that a user may write to the port too. */
	const struct kvm_regs registers = { .rip = rip, .rax = rax, .rbx = rbx, .rflags = 0x3002 };
	struct kvm_vcpu_events events = { .flags = 0 };
	struct kvm_sregs sregs;

	insist(!ioctl(m.cpu, KVM_GET_SREGS, &sregs));
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.gdt.limit = sregs.idt.limit = 0;
	sregs.cr0 = 0x80010033; /* PG, WP, NE, ET, MP, PE */
	sregs.cr2 = NO_FAULT;
	sregs.cr3 = m.root;
	sregs.cr4 = 0x20 | (m.registers.cr4 & SMEP);
	sregs.efer = 0xd00;
	insist(!ioctl(m.cpu, KVM_SET_SREGS, &sregs));
	insist(!ioctl(m.cpu, KVM_SET_REGS, &registers));
	insist(!ioctl(m.cpu, KVM_SET_VCPU_EVENTS, &events));
}

/* --- the shadow's tables in the machine's memory -----------------------------------------------
 */

static void *table_alloc(void *ctx, int node)
{
	if (!m.free_tables)
		return NULL;
	return m.memory + GUEST_BYTES + m.free_table[--m.free_tables] * PAGE;
}

static void table_free(void *ctx, void *page)
{
	size_t offset = (size_t)((unsigned char *)page - m.memory) - GUEST_BYTES;

	m.free_table[m.free_tables++] = (uint16_t)(offset / PAGE);
}

static int resolve(void *ctx, uint64_t gpa, void *hva, unsigned int access,
		   struct mv_shadow_backing *backing)
{
	*backing = (struct mv_shadow_backing){ .hpa = gpa, .page_lg2 = 21, .writable = true };
	return 0;
}

static void open_shadow(void)
{
	static const struct mv_shadow_ops ops = { .resolve = resolve };
	struct mv_memory_config memory = { .size = sizeof(memory), .platform = &m.platform };
	struct mv_region_config region = {
		.size = sizeof(region), .last_gpa = GUEST_BYTES - 1, .hva = m.memory, .fd = -1
	};
	struct mv_shadow_config shadow = { .size = sizeof(shadow),
					   .format = MV_FORMAT_X86_4L,
					   .features = MV_FEATURE_NX,
					   .maxphyaddr = 36,
					   .node = -1,
					   .page_budget = TABLE_BYTES / PAGE,
					   .ops = &ops };

	m.ops = *mv_platform_linux()->ops;
	m.ops.table_alloc = table_alloc;
	m.ops.table_free = table_free;
	m.platform = *mv_platform_linux();
	m.platform.ops = &m.ops;
	m.platform.direct_map = (uintptr_t)m.memory;
	m.free_tables = 0;
	for (uint16_t i = 0; i < TABLE_BYTES / PAGE; i++)
		m.free_table[m.free_tables++] = i;
	insist(!mv_memory_create(&memory, &m.guest));
	insist(!mv_memory_add_region(m.guest, &region));
	shadow.memory = m.guest;
	insist(!mv_shadow_create(&shadow, &m.shadow));
	insist(!mv_shadow_vcpu_create(m.shadow, &m.vcpu));
}

static void close_shadow(void)
{
	mv_shadow_vcpu_destroy(m.vcpu);
	mv_shadow_destroy(m.shadow);
	mv_memory_destroy(m.guest);
}

/* --- a guest -------------------------------------------------------------------------------------
 */

static uint64_t *word(uint64_t gpa)
{
	return (uint64_t *)(m.memory + gpa);
}

/* Return: whether the entry was free. */
static bool map(uint64_t gva, unsigned int level, uint64_t entry)
{
	bool code = (entry & FRAME) == CODE;
	uint64_t table = ROOT;

	for (unsigned int l = 4;; l--) {
		uint64_t *at = word(table + (gva >> (3 + 9 * l) & 511) * 8);

		if (l == level) {
			if (*at & P)
				return false;
			*at = entry;
			return true;
		}
		if (!(*at & P)) {
			*at = m.next_table | P | W | U | (chance_next(&m.chance) & A);
			if (!code && chance_one_in(&m.chance, 8))
				*at &= ~(chance_next(&m.chance) & (W | U));
			m.next_table += PAGE;
		}
		if (l < 4 && (*at & PS))
			return false;
		table = *at & FRAME;
	}
}

static void stamp(void)
{
	for (uint64_t gpa = DATA; gpa < GUEST_BYTES; gpa += 16) {
		*word(gpa) = gpa;
		memcpy(m.memory + gpa + SLOT_CODE, end_code, sizeof(end_code));
	}
	memcpy(m.memory + CODE, read_code, sizeof(read_code));
	memcpy(m.memory + CODE + 8, write_code, sizeof(write_code));
}

static uint64_t any_gva(void)
{
	return (chance_next(&m.chance) & 0x7ffffffff000ULL) | PAGE;
}

static void make_guest(void)
{
	memset(word(ROOT), 0, CODE - ROOT);
	m.next_table = ROOT + PAGE;
	for (unsigned int user = 0; user < 2; user++) {
		m.code_gva[user] = any_gva();
		/* Tables above grant everything, for these come first. */
		insist(map(m.code_gva[user], 1, CODE | P | A | (user ? U : 0)));
	}
	for (unsigned int i = 0; i < TARGETS; i++) {
		bool large = chance_one_in(&m.chance, 4);
		uint64_t entry = P | (chance_next(&m.chance) & (W | U | A | D | NX));
		uint64_t gpa = DATA + chance_below(&m.chance, (GUEST_BYTES - DATA) / PAGE) * PAGE;

		m.target[i] =
			i && chance_one_in(&m.chance, 2) ? m.target[i - 1] ^ PAGE << 1 : any_gva();
		if (large)
			map(m.target[i], 2, (gpa & ~0x1fffffULL) | entry | PS);
		else
			map(m.target[i], 1, gpa | entry);
	}
	m.registers = (struct mv_paging_registers){ .cr0 = 0x80000001,
						    .cr3 = ROOT,
						    .cr4 = 0x20 | (chance_next(&m.chance) & SMEP),
						    .efer = 0xd00 };
	m.registers.cr0 |= chance_one_in(&m.chance, 4) ? 0 : 1u << 16;
}

/* --- accesses ------------------------------------------------------------------------------------
 */

struct access {
	uint64_t gva;
	unsigned int kind;
};

static struct access any_access(void)
{
	static const unsigned int kinds[] = { MV_ACCESS_READ, MV_ACCESS_WRITE, MV_ACCESS_FETCH };
	struct access access = { m.target[chance_below(&m.chance, TARGETS)],
				 kinds[chance_below(&m.chance, 3)] };

	access.gva += chance_below(&m.chance, PAGE / 16) * 16;
	access.gva ^= chance_one_in(&m.chance, 8) ? PAGE << chance_below(&m.chance, 9) : 0;
	access.kind |= chance_one_in(&m.chance, 2) ? MV_ACCESS_USER : 0;
	return access;
}

/* SDM vol. 3, 4.6, with CR0.WP = 1 and without SMAP. */
static bool permits(uint32_t attr, unsigned int kind)
{
	bool user_page = attr & MV_ATTR_USER;

	if ((kind & MV_ACCESS_USER) && !user_page)
		return false;
	if (!(kind & MV_ACCESS_USER) && user_page && (kind & MV_ACCESS_FETCH) &&
	    (m.registers.cr4 & SMEP))
		return false;
	if ((kind & MV_ACCESS_WRITE) && !(attr & MV_ATTR_WRITE))
		return false;
	return !(kind & MV_ACCESS_FETCH) || (attr & MV_ATTR_EXEC);
}

static bool predicted(const struct access *access, uint64_t *hpa)
{
	struct mv_mapping mapping;

	if (mv_shadow_walk(m.vcpu, access->gva, &mapping) || !permits(mapping.attr, access->kind))
		return false;
	*hpa = mapping.phys | (access->gva & ((1ULL << mapping.page_lg2) - 1));
	return true;
}

static void fault(uint64_t gva, unsigned int kind)
{
	struct mv_shadow_outcome outcome;

	insist(!mv_shadow_fault(m.vcpu, gva, kind, &outcome));
}

/* Enough of the shadow for code to run and for many accesses; others will fault. */
static void build_shadow(void)
{
	for (unsigned int user = 0; user < 2; user++)
		fault(m.code_gva[user], MV_ACCESS_FETCH | (user ? MV_ACCESS_USER : 0));
	for (unsigned int i = 0; i < TARGETS; i++) {
		struct access access = any_access();

		fault(access.gva, access.kind);
	}
}

static void say_wrong(const struct access *access, const char *what, uint64_t have, uint64_t want)
{
	fail_msg("access %#x to %#lx: %s: %#lx, expected %#lx; exit %u", access->kind,
		 (long)access->gva, what, (long)have, (long)want, m.run->exit_reason);
}

#define ACCESS_BYTES 3 /* of the instruction */

static uint64_t start_of(const struct access *access)
{
	if (access->kind & MV_ACCESS_FETCH)
		return access->gva + SLOT_CODE;
	return m.code_gva[!!(access->kind & MV_ACCESS_USER)] +
	       (access->kind & MV_ACCESS_WRITE ? 8 : 0);
}

/* To the end of its code; where a user may not write to a port that ends it as well. */
static bool came_to_end(const struct access *access, uint64_t cr2)
{
	const uint64_t end = access->kind & MV_ACCESS_FETCH ? access->gva + SLOT_CODE
							    : start_of(access) + ACCESS_BYTES;
	struct kvm_regs registers;

	if (m.run->exit_reason == KVM_EXIT_IO)
		return m.run->io.port == PORT;
	if (m.run->exit_reason != KVM_EXIT_SHUTDOWN)
		say_wrong(access, "exit", m.run->exit_reason, KVM_EXIT_SHUTDOWN);
	insist(!ioctl(m.cpu, KVM_GET_REGS, &registers));
	return (access->kind & MV_ACCESS_USER) && cr2 == NO_FAULT && registers.rip == end;
}

/* Return: whether the machine made the access; it faulted where it was to otherwise. */
static bool run(const struct access *access)
{
	const bool fetch = access->kind & MV_ACCESS_FETCH;
	const uint64_t address = access->gva + (fetch ? SLOT_CODE : 0);
	struct kvm_sregs sregs;

	set_state(access->kind & MV_ACCESS_USER, start_of(access), access->gva,
		  access->gva ^ 0x5555);
	insist(!ioctl(m.cpu, KVM_RUN, 0));
	insist(!ioctl(m.cpu, KVM_GET_SREGS, &sregs));
	if (came_to_end(access, sregs.cr2))
		return true;
	if (sregs.cr2 != address)
		say_wrong(access, "CR2", sregs.cr2, address);
	return false;
}

static void make_access(void)
{
	struct access access = any_access();
	uint64_t hpa = 0, before = 0;
	bool expected = predicted(&access, &hpa), made;
	struct kvm_regs registers;

	if (expected && hpa < DATA)
		return; /* it would run, or change, what is there */
	if (expected)
		before = *word(hpa);
	made = run(&access);
	if (made != expected)
		say_wrong(&access, "made", made, expected);
	m.made += made;
	m.faulted += !made;
	if (!made)
		return;
	insist(!ioctl(m.cpu, KVM_GET_REGS, &registers));
	if ((access.kind & MV_ACCESS_READ) && registers.rbx != before)
		say_wrong(&access, "read", registers.rbx, before);
	if ((access.kind & MV_ACCESS_WRITE) && *word(hpa) != (access.gva ^ 0x5555))
		say_wrong(&access, "written", *word(hpa), access.gva ^ 0x5555);
	*word(hpa) = before;
}

static void a_processor_goes_where_the_shadow_says(void **state)
{
	const struct mv_cpu_model model = { .maxphyaddr = 36, .features = MV_CPU_1G };
	uint64_t worlds = test_rounds(500);

	if (!open_kvm()) {
		print_message("# skip-reason: %s\n", m.why);
		skip();
	}
	m.chance = chance_of(test_seed(), 0);
	stamp();
	for (uint64_t world = 0; world < worlds; world++) {
		open_shadow();
		make_guest();
		insist(!mv_shadow_load_root(m.vcpu, &m.registers, &model, false, &m.root));
		build_shadow();
		forget_all();
		for (unsigned int i = 0; i < ACCESSES; i++)
			make_access();
		close_shadow();
	}
	print_message("# %lu accesses made, %lu faulted\n", (long)m.made, (long)m.faulted);
	assert_true(m.made > worlds * 3 && m.faulted > worlds * 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_processor_goes_where_the_shadow_says),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
