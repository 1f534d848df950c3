/* SPDX-License-Identifier: BSD-2-Clause */
/* See shadow_machine.h: memory, the object, and what guests do but for their accesses. */
#include <sys/mman.h>
#include <unistd.h>

#include <memvirt/view.h>

#include "support/shadow_machine.h"

#define GRANULE (2ULL << 20)

/* --- memory --------------------------------------------------------------------------------- */

static unsigned char *map_place(int fd)
{
	unsigned char *reserved = mmap(NULL, SREF_BYTES + GRANULE, PROT_NONE,
				       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	unsigned char *at;

	insist(reserved != MAP_FAILED);
	at = (void *)(((uintptr_t)reserved + GRANULE - 1) & ~(GRANULE - 1));
	munmap(reserved, (size_t)(at - reserved));
	munmap(at + SREF_BYTES, (size_t)(reserved + GRANULE - at));
	at = mmap(at, SREF_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0);
	insist(at != MAP_FAILED);
	return at;
}

void sm_map(struct shadow_machine *machine)
{
	memset(machine, 0, sizeof(*machine));
	machine->format = MV_FORMAT_X86_4L;
	machine->features = MV_FEATURE_NX;
	machine->maxphyaddr = 52;
	machine->budget = 512;
	machine->large = true;
	machine->fd = memfd_create("guest", MFD_CLOEXEC);
	insist(machine->fd >= 0 && !ftruncate(machine->fd, SREF_BYTES));
	machine->hva = map_place(machine->fd);
	for (unsigned int i = 0; i < SM_PLACES; i++)
		machine->place[i] = map_place(machine->fd);
	machine->seen = calloc(1, SREF_BYTES);
	insist(machine->seen);
	sref_init(&machine->ref);
}

void sm_unmap(struct shadow_machine *machine)
{
	munmap(machine->hva, SREF_BYTES);
	for (unsigned int i = 0; i < SM_PLACES; i++)
		munmap(machine->place[i], SREF_BYTES);
	close(machine->fd);
	free(machine->seen);
	sref_finish(&machine->ref);
}

static void forget_content(struct shadow_machine *machine)
{
	struct sref *ref = &machine->ref;

	for (uint64_t page = 0; page < SREF_PAGES; page++) {
		if (!ref->touched[page])
			continue;
		memset(machine->hva + (page << 12), 0, 4096);
		memset(ref->memory + (page << 12), 0, 4096);
	}
	memset(ref->touched, 0, sizeof(ref->touched));
	sref_forget(ref);
}

/* --- what the shadow asks of its VMM -------------------------------------------------------- */

static void look_whether_mixed(struct shadow_machine *machine, uint64_t granule)
{
	uint64_t first = granule << 9;

	machine->mixed[granule] = false;
	for (uint64_t page = first; page < first + 512; page++)
		if (machine->placed[page] != machine->placed[first] ||
		    machine->read_only[page] != machine->read_only[first])
			machine->mixed[granule] = true;
}

static int resolve(void *ctx, uint64_t gpa, void *hva, unsigned int access,
		   struct mv_shadow_backing *backing)
{
	struct shadow_machine *machine = ctx;
	uint64_t page = gpa >> 12;
	bool large = machine->large && !machine->mixed[gpa / GRANULE];

	insist(sref_is_memory(gpa) && !(gpa & 4095) && hva == machine->hva + gpa);
	if (machine->busy) {
		machine->busy--;
		return -EAGAIN;
	}
	backing->hpa = (uint64_t)(uintptr_t)machine->place[machine->placed[page]] + gpa;
	backing->page_lg2 = large ? 21 : 12;
	backing->writable = !machine->read_only[page];
	if (large)
		memset(&machine->reachable[page & ~511ULL], true, 512);
	machine->reachable[page] = true;
	return 0;
}

static void flush(void *ctx, const uint64_t *vcpus)
{
	struct shadow_machine *machine = ctx;

	machine->flushes++;
	for (unsigned int i = 0; i < machine->vcpu_count; i++) {
		unsigned int bit = mv_shadow_vcpu_number(machine->vcpus[i].vcpu);

		if (!vcpus || vcpus[bit / 64] >> bit % 64 & 1)
			sm_tlb_forget(&machine->vcpus[i], NULL);
	}
}

static const struct mv_shadow_ops shadow_ops = { .resolve = resolve, .flush = flush };

/* --- the object ----------------------------------------------------------------------------- */

static int add_region(struct shadow_machine *machine, uint64_t first, uint64_t last)
{
	struct mv_region_config config = {
		.size = sizeof(config),
		.first_gpa = first,
		.last_gpa = last,
		.hva = machine->hva + first,
		.fd = -1,
	};

	return mv_memory_add_region(machine->memory, &config);
}

static int open_memory(struct shadow_machine *machine)
{
	struct mv_memory_config config = {
		.size = sizeof(config),
		.platform = &machine->fake.platform,
	};
	int error = mv_memory_create(&config, &machine->memory);

	if (!error)
		error = add_region(machine, 0, SREF_HOLE_FIRST - 1);
	if (!error)
		error = add_region(machine, SREF_HOLE_LAST + 1, SREF_BYTES - 1);
	return error;
}

static int open_shadow(struct shadow_machine *machine)
{
	struct mv_shadow_config config = {
		.size = sizeof(config),
		.memory = machine->memory,
		.format = machine->format,
		.features = machine->features,
		.maxphyaddr = machine->maxphyaddr,
		.node = -1,
		.page_budget = machine->budget,
		.ops = &shadow_ops,
		.ctx = machine,
	};

	return mv_shadow_create(&config, &machine->shadow);
}

static int open_vcpu(struct shadow_machine *machine, unsigned int number)
{
	struct sm_vcpu *vcpu = &machine->vcpus[number];
	int error;

	memset(vcpu, 0, sizeof(*vcpu));
	vcpu->cpu.model.maxphyaddr = 40;
	vcpu->cpu.model.features = MV_CPU_1G | MV_CPU_PSE36;
	error = mv_shadow_vcpu_create(machine->shadow, &vcpu->vcpu);
	if (!error)
		machine->vcpu_count++;
	return error;
}

static void close_all(struct shadow_machine *machine)
{
	for (unsigned int i = 0; i < machine->vcpu_count; i++)
		mv_shadow_vcpu_destroy(machine->vcpus[i].vcpu);
	machine->vcpu_count = 0;
	mv_shadow_destroy(machine->shadow);
	mv_memory_destroy(machine->memory);
	forget_content(machine);
}

int sm_try_open(struct shadow_machine *machine, unsigned int vcpus)
{
	int error;

	machine->shadow = NULL;
	machine->memory = NULL;
	machine->ref.step = 1;
	machine->busy = 0;
	memset(machine->placed, 0, sizeof(machine->placed));
	memset(machine->mixed, 0, sizeof(machine->mixed));
	memset(machine->read_only, 0, sizeof(machine->read_only));
	memset(machine->reachable, 0, sizeof(machine->reachable));
	memset(machine->logged, 0, sizeof(machine->logged));
	memset(machine->tracked, 0, sizeof(machine->tracked));
	memset(machine->used, 0, sizeof(machine->used));
	error = open_memory(machine);
	if (!error)
		error = open_shadow(machine);
	for (unsigned int i = 0; i < vcpus && !error; i++)
		error = open_vcpu(machine, i);
	if (error)
		close_all(machine);
	return error;
}

void sm_open(struct shadow_machine *machine, unsigned int vcpus)
{
	fake_platform_init(&machine->fake);
	insist(!sm_try_open(machine, vcpus));
}

void sm_close(struct shadow_machine *machine)
{
	close_all(machine);
	fake_platform_finish(&machine->fake);
}

/* --- registers ------------------------------------------------------------------------------ */

void sm_registers(enum sref_mode mode, uint64_t root, struct mv_paging_registers *registers)
{
	static const uint64_t cr4[SREF_MODES] = {
		[SREF_PSE] = SM_CR4_PSE,
		[SREF_PAE] = SM_CR4_PAE,
		[SREF_4L] = SM_CR4_PAE,
		[SREF_5L] = SM_CR4_PAE | SM_CR4_LA57,
	};

	memset(registers, 0, sizeof(*registers));
	registers->cr0 = SM_CR0_PE | SM_CR0_WP | (mode == SREF_OFF ? 0 : SM_CR0_PG);
	registers->cr3 = root;
	registers->cr4 = cr4[mode];
	if (mode >= SREF_PAE)
		registers->efer |= SM_EFER_NXE;
	if (mode >= SREF_4L)
		registers->efer |= SM_EFER_LME;
}

static unsigned int pcid_of(const struct sref_cpu *cpu)
{
	unsigned int pcid = cpu->registers.cr4 & SM_CR4_PCIDE ? cpu->registers.cr3 & 0xfff : 0;

	insist(pcid < SM_PCIDS);
	return pcid;
}

static void forget_pcid(struct shadow_machine *machine, struct sm_vcpu *vcpu, unsigned int pcid)
{
	vcpu->memory[pcid].since = machine->ref.step;
	vcpu->memory[pcid].invlpgs = 0;
}

/* What a load has to come to. */
static int expected_load(struct shadow_machine *machine, struct sref_cpu *cpu)
{
	bool outside;

	if (sref_mode(cpu) == SREF_5L && machine->format == MV_FORMAT_X86_4L)
		return -EOPNOTSUPP;
	if (!sref_load_pdptes(&machine->ref, cpu, &outside))
		return outside ? -EFAULT : -EINVAL;
	return 0;
}

int sm_load(struct shadow_machine *machine, unsigned int number,
	    const struct mv_paging_registers *registers, bool preserve)
{
	struct sm_vcpu *vcpu = &machine->vcpus[number];
	struct sref_cpu cpu = vcpu->cpu;
	int error, expected;

	machine->ref.step++;
	cpu.registers = *registers;
	memset(cpu.pdpte, 0, sizeof(cpu.pdpte));
	expected = expected_load(machine, &cpu);
	error = mv_shadow_load_root(vcpu->vcpu, registers, &cpu.model, preserve, &vcpu->root);
	if (error == -ENOMEM && machine->lenient)
		return error;
	insist(error == expected);
	if (error)
		return error;
	sm_tlb_forget(vcpu, NULL);
	vcpu->cpu = cpu;
	if (!preserve)
		forget_pcid(machine, vcpu, pcid_of(&cpu));
	return 0;
}

int sm_reload(struct shadow_machine *machine, unsigned int vcpu)
{
	struct mv_paging_registers registers = machine->vcpus[vcpu].cpu.registers;

	return sm_load(machine, vcpu, &registers, false);
}

/* --- invalidations -------------------------------------------------------------------------- */

static void note_invlpg(struct shadow_machine *machine, struct sm_vcpu *vcpu, unsigned int pcid,
			uint64_t gva)
{
	struct sm_memory *memory = &vcpu->memory[pcid];

	if (memory->invlpgs == SM_INVLPGS) {
		mv_shadow_invpcid(vcpu->vcpu, MV_INVPCID_CONTEXT, pcid, 0);
		sm_tlb_forget(vcpu, NULL);
		forget_pcid(machine, vcpu, pcid);
		return;
	}
	memory->invlpg[memory->invlpgs].step = machine->ref.step;
	memory->invlpg[memory->invlpgs++].gva = gva;
}

void sm_invlpg(struct shadow_machine *machine, unsigned int number, uint64_t gva)
{
	struct sm_vcpu *vcpu = &machine->vcpus[number];

	machine->ref.step++;
	mv_shadow_invlpg(vcpu->vcpu, gva);
	sm_tlb_forget(vcpu, &gva);
	note_invlpg(machine, vcpu, pcid_of(&vcpu->cpu), gva);
}

void sm_invpcid(struct shadow_machine *machine, unsigned int number, enum mv_invpcid type,
		unsigned int pcid, uint64_t gva)
{
	struct sm_vcpu *vcpu = &machine->vcpus[number];

	machine->ref.step++;
	mv_shadow_invpcid(vcpu->vcpu, type, pcid, gva);
	sm_tlb_forget(vcpu, type == MV_INVPCID_ADDRESS ? &gva : NULL);
	if (type == MV_INVPCID_ADDRESS)
		note_invlpg(machine, vcpu, pcid, gva);
	else if (type == MV_INVPCID_CONTEXT)
		forget_pcid(machine, vcpu, pcid);
	else
		for (unsigned int i = 0; i < SM_PCIDS; i++)
			forget_pcid(machine, vcpu, i);
}

void sm_flush(struct shadow_machine *machine, unsigned int number, bool global)
{
	struct sm_vcpu *vcpu = &machine->vcpus[number];

	machine->ref.step++;
	mv_shadow_flush(vcpu->vcpu, global);
	sm_tlb_forget(vcpu, NULL);
	for (unsigned int i = 0; i < SM_PCIDS; i++)
		if (global || i == pcid_of(&vcpu->cpu))
			forget_pcid(machine, vcpu, i);
}

/* --- the VMM's own ways --------------------------------------------------------------------- */

void sm_emulate(struct shadow_machine *machine, uint64_t gpa, const void *from, size_t bytes)
{
	machine->ref.step++;
	memcpy(machine->hva + gpa, from, bytes);
	mv_shadow_guest_wrote(machine->shadow, gpa, bytes);
	sref_write(&machine->ref, gpa, from, bytes);
	if (!machine->tlb)
		sref_told(&machine->ref, gpa, bytes);
}

void sm_set(struct shadow_machine *machine, uint64_t gpa, uint64_t entry)
{
	sm_emulate(machine, gpa, &entry, sizeof(entry));
}

void sm_set_narrow(struct shadow_machine *machine, uint64_t gpa, uint32_t entry)
{
	sm_emulate(machine, gpa, &entry, sizeof(entry));
}

uint64_t sm_get(const struct shadow_machine *machine, uint64_t gpa)
{
	uint64_t value;

	memcpy(&value, machine->hva + gpa, sizeof(value));
	return value;
}

static void drop_page(struct shadow_machine *machine, uint64_t gpa)
{
	static const unsigned char zeros[4096];
	uint64_t page = gpa >> 12;

	memset(machine->hva + gpa, 0, 4096);
	sref_write(&machine->ref, gpa, zeros, 4096);
	/* Nobody wrote there: whoever gives a page away knows. */
	memset(machine->seen + gpa, 0, 4096);
	machine->placed[page] = (machine->placed[page] + 1) % SM_PLACES;
	machine->reachable[page] = false;
}

void sm_move(struct shadow_machine *machine, uint64_t page)
{
	machine->placed[page] = (machine->placed[page] + 1) % SM_PLACES;
	machine->reachable[page] = false;
	look_whether_mixed(machine, page >> 9);
}

static void drop(void *ctx, struct mv_batch *batch)
{
	struct shadow_machine *machine = ctx;
	unsigned int bit = 0, count;
	uint64_t gpa;

	mv_batch_region_span(batch, NULL, &gpa);
	for (; mv_batch_next_run(batch, &bit, &count); bit += count)
		for (unsigned int i = 0; i < count; i++)
			drop_page(machine, gpa + ((uint64_t)(bit + i) << 12));
	look_whether_mixed(machine, gpa / GRANULE);
}

void sm_discard(struct shadow_machine *machine, uint64_t first_gpa, uint64_t pages)
{
	machine->ref.step++;
	insist(!mv_memory_discard(machine->memory, first_gpa, first_gpa + (pages << 12) - 1, drop,
				  machine, NULL));
}

void sm_set_read_only(struct shadow_machine *machine, uint64_t gpa, bool read_only)
{
	machine->read_only[gpa >> 12] = read_only;
	look_whether_mixed(machine, gpa / GRANULE);
}

void sm_compare(struct shadow_machine *machine, uint64_t first_gpa, uint64_t pages)
{
	insist(!memcmp(machine->hva + first_gpa, machine->ref.memory + first_gpa, pages << 12));
}

void sm_compare_all(struct shadow_machine *machine)
{
	sm_compare(machine, 0, SREF_PAGES);
}
