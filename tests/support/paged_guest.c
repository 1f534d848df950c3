/* SPDX-License-Identifier: BSD-2-Clause */
/* See paged_guest.h. Nothing of the library's formats is used here: the layout is spelled out. */
#include "support/paged_guest.h"
#include "support/testing.h"

#define CR0_PG_WP_PE 0x80010001ULL
#define CR4_PSE	     0x10ULL
#define CR4_PAE	     0x20ULL
#define CR4_LA57     0x1000ULL
#define EFER_LME_NXE 0x900ULL
#define EFER_NXE     0x800ULL

static const struct {
	unsigned int levels;
	uint64_t gva;
	uint64_t cr4;
	uint64_t efer;
} modes[PAGED_MODES] = {
	[PAGED_32] = { 2, 0x80c03123, 0, EFER_NXE },
	[PAGED_PSE] = { 2, 0x80c03123, CR4_PSE, EFER_NXE },
	[PAGED_PAE] = { 3, 0x80603123, CR4_PAE, EFER_NXE },
	[PAGED_4L] = { 4, 0xffff818140603123, CR4_PAE, EFER_LME_NXE },
	[PAGED_5L] = { 5, 0xff81818140603123, CR4_PAE | CR4_LA57, EFER_LME_NXE },
};

static bool is_small(const struct paged_guest *guest)
{
	return guest->mode == PAGED_32 || guest->mode == PAGED_PSE;
}

/* --- memory --------------------------------------------------------------------------------- */

static void *at(struct paged_guest *guest, uint64_t gpa, unsigned int bytes)
{
	insist(bytes == (is_small(guest) ? 4 : 8) && !(gpa & (bytes - 1)));
	return gpa < sizeof(guest->page) ? (char *)guest->page + gpa : NULL;
}

static uint64_t load(const void *from, unsigned int bytes)
{
	uint32_t half;
	uint64_t whole;

	memcpy(&half, from, 4);
	if (bytes == 4)
		return half;
	memcpy(&whole, from, 8);
	return whole;
}

static int memory_read(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t *entry)
{
	struct paged_guest *guest = ctx;
	const void *from = at(guest, gpa, bytes);

	guest->reads++;
	if (gpa == guest->fail_gpa)
		return guest->fail_error;
	if (!from)
		return -EFAULT;
	/* Above 4 bytes is whatever was there: the walk has to look away. */
	*entry = bytes == 4 ? 0xa5a5a5a500000000 | load(from, 4) : load(from, 8);
	return 0;
}

static int memory_change(void *ctx, uint64_t gpa, unsigned int bytes, uint64_t old, uint64_t entry)
{
	struct paged_guest *guest = ctx;
	void *to = at(guest, gpa, bytes);

	guest->changes++;
	if (guest->disturb)
		guest->disturb(guest, gpa);
	if (gpa == guest->fail_gpa)
		return guest->fail_error;
	if (!to)
		return -EFAULT;
	if (load(to, bytes) != old)
		return -EAGAIN;
	memcpy(to, &entry, bytes);
	return 0;
}

/* --- tables --------------------------------------------------------------------------------- */

uint64_t paged_table_gpa(const struct paged_guest *guest, unsigned int level)
{
	return 0x1000 * (1 + guest->levels - level);
}

uint64_t paged_entry_gpa(const struct paged_guest *guest, unsigned int level)
{
	unsigned int bits = is_small(guest) ? 10 : 9;
	uint64_t index = guest->gva >> (12 + bits * (level - 1)) & ((1u << bits) - 1);

	if (guest->mode == PAGED_PAE && level == 3)
		index &= 3;
	return paged_table_gpa(guest, level) + index * (is_small(guest) ? 4 : 8);
}

uint64_t paged_get(const struct paged_guest *guest, unsigned int level)
{
	return load((const char *)guest->page + paged_entry_gpa(guest, level),
		    is_small(guest) ? 4 : 8);
}

void paged_store(struct paged_guest *guest, uint64_t gpa, uint64_t entry)
{
	memcpy((char *)guest->page + gpa, &entry, is_small(guest) ? 4 : 8);
}

void paged_set(struct paged_guest *guest, unsigned int level, uint64_t entry)
{
	paged_store(guest, paged_entry_gpa(guest, level), entry);
}

void paged_load(struct paged_guest *guest)
{
	assert_int_equal(mv_paging_init(&guest->paging, &guest->registers, &guest->cpu), 0);
	assert_int_equal(mv_paging_load_pdptes(&guest->paging, &guest->accessor), 0);
}

void paged_init(struct paged_guest *guest, enum paged_mode mode)
{
	memset(guest, 0, sizeof(*guest));
	guest->mode = mode;
	guest->levels = modes[mode].levels;
	guest->gva = modes[mode].gva;
	guest->registers.cr0 = CR0_PG_WP_PE;
	guest->registers.cr3 = paged_table_gpa(guest, guest->levels);
	guest->registers.cr4 = modes[mode].cr4;
	guest->registers.efer = modes[mode].efer;
	guest->cpu.maxphyaddr = 40;
	guest->cpu.features = MV_CPU_1G | MV_CPU_PSE36;
	guest->accessor = (struct mv_guest_accessor){ memory_read, memory_change, guest };
	guest->fail_gpa = UINT64_MAX;
	for (unsigned int level = guest->levels; level > 1; level--)
		paged_set(guest, level, paged_table_gpa(guest, level - 1) | PTE_ALL);
	if (mode == PAGED_PAE)
		paged_set(guest, 3, paged_table_gpa(guest, 2) | PTE_P);
	paged_set(guest, 1, 0x7654000 | PTE_ALL);
	paged_load(guest);
	guest->reads = 0;
}

uint32_t paged_fault(struct paged_guest *guest, unsigned int access)
{
	assert_int_equal(mv_guest_walk(&guest->paging, &guest->accessor, guest->gva, access,
				       &guest->walk),
			 0);
	assert_int_not_equal(guest->walk.kind, MV_WALK_NOT_CANONICAL);
	return guest->walk.kind == MV_WALK_OK ? PAGED_OK : guest->walk.error_code;
}
