/* SPDX-License-Identifier: BSD-2-Clause */
/* The nested walk, naively; see nested_reference.h. */
#include "support/nested_reference.h"

#define BIT(n) (1ull << (n))

/* What a step of the walk comes to, besides errors below 0. */
enum { FINE, STOPPED };

struct access {
	bool read, write, fetch;
	bool user, implicit, ac;
	bool update; /* accessed and dirty are to be set */
};

/* An address in host memory and what it is of stage 2. */
struct target {
	uint64_t hpa;
	unsigned int lg2;
	uint64_t leaf;
	bool r, w, x, xu;
};

static uint64_t bits(uint64_t value, unsigned int high, unsigned int low)
{
	return value >> low & (high - low == 63 ? ~0ull : BIT(high - low + 1) - 1);
}

static int load(const struct reference *reference, uint64_t hpa, unsigned int bytes,
		uint64_t *value)
{
	if (hpa > WORLD_BYTES - bytes)
		return -EFAULT;
	*value = 0;
	memcpy(value, reference->memory + hpa, bytes);
	return FINE;
}

static void store(struct reference *reference, uint64_t hpa, unsigned int bytes, uint64_t value)
{
	memcpy(reference->memory + hpa, &value, bytes);
}

static bool has(const struct reference *reference, uint32_t feature)
{
	return reference->world->features2 & feature;
}

/* --- stage 2 ------------------------------------------------------------------------------- */

/* What is asked of stage 2. */
struct demand {
	uint64_t gpa;
	bool table;  /* of the guest's, by a walk */
	bool linear; /* on behalf of an access to a linear address */
	bool read, write, fetch;
	bool user, writable, executable; /* the guest's page */
	bool update;
};

static bool ept_misconfigured(const struct reference *reference, unsigned int level, uint64_t entry,
			      bool page)
{
	bool mbe = has(reference, MV_FEATURE_MODE_EXEC);
	bool large_allowed = (level == 2 && has(reference, MV_FEATURE_2M)) ||
			     (level == 3 && has(reference, MV_FEATURE_1G));
	uint64_t type = bits(entry, 5, 3);

	if (!(entry & 1) && (entry & 2))
		return true;
	if (!(entry & 1) && ((entry & 4) || (mbe && (entry & BIT(10)))) &&
	    !has(reference, MV_FEATURE_EXEC_ONLY))
		return true;
	if (bits(entry, 51, 12) >> (reference->world->width - 12))
		return true;
	if (!page)
		return bits(entry, 6, 3) || (!large_allowed && (entry & 0x80));
	if (level == 2 && bits(entry, 20, 12))
		return true;
	if (level == 3 && bits(entry, 29, 12))
		return true;
	return type == 2 || type == 3 || type == 7;
}

static bool npt_reserved(const struct reference *reference, unsigned int level, uint64_t entry,
			 bool page)
{
	if (bits(entry, 51, 12) >> (reference->world->width - 12))
		return true;
	if ((entry & BIT(63)) && !has(reference, MV_FEATURE_NX))
		return true;
	if (level >= 4 && (entry & 0x100))
		return true;
	if (!page)
		return level > 1 && (entry & 0x80);
	if (level == 2)
		return bits(entry, 20, 13);
	return level == 3 && bits(entry, 29, 13);
}

static bool stage2_is_page(const struct reference *reference, unsigned int level, uint64_t entry)
{
	bool two = has(reference, MV_FEATURE_2M) || !nested_world_is_ept(reference->world);

	if (level == 1)
		return true;
	if (!(entry & 0x80))
		return false;
	return (level == 2 && two) || (level == 3 && has(reference, MV_FEATURE_1G));
}

static void report(struct mv_nested_walk *walk, const struct demand *demand, unsigned int level,
		   enum mv_stage2_kind kind, uint64_t code, bool suppress)
{
	*walk = (struct mv_nested_walk){ .kind = MV_NESTED_STAGE2,
					 .gpa = demand->gpa,
					 .level = level,
					 .stage2_kind = kind,
					 .code = code,
					 .suppress_ve = suppress,
					 .guest_table = demand->table };
}

static uint64_t qualification(const struct reference *reference, const struct demand *demand,
			      bool read, bool write, uint64_t rights)
{
	uint64_t code = (read ? 1 : 0) | (write ? 2 : 0) | (demand->fetch ? 4 : 0);

	code |= bits(rights, 2, 0) << 3;
	if (has(reference, MV_FEATURE_MODE_EXEC))
		code |= bits(rights, 10, 10) << 6;
	if (!demand->linear)
		return code;
	code |= 0x80;
	if (demand->table)
		return code;
	code |= 0x100;
	if (has(reference, MV_FEATURE_EXIT_INFO))
		code |= (demand->user ? 0x200 : 0) | (demand->writable ? 0x400 : 0) |
			(demand->executable ? 0 : 0x800);
	return code;
}

static uint64_t exitinfo(const struct demand *demand, bool write, bool present, bool reserved)
{
	return (demand->table ? BIT(33) : BIT(32)) | 4 | (present ? 1 : 0) | (write ? 2 : 0) |
	       (reserved ? 8 : 0) | (demand->fetch ? 16 : 0);
}

/* The levels on the way down. */
struct way {
	uint64_t at[5];
	uint64_t entry[5];
	unsigned int count;
};

static int stage2_ept(struct reference *reference, const struct demand *demand, struct way *way,
		      struct target *target, struct mv_nested_walk *walk)
{
	unsigned int levels = reference->world->format2 == MV_FORMAT_EPT_5L ? 5 : 4, level = levels;
	bool ad = has(reference, MV_FEATURE_ACCESSED), mbe = has(reference, MV_FEATURE_MODE_EXEC);
	bool ve = has(reference, MV_FEATURE_VE);
	bool read = demand->read, write = demand->write;
	uint64_t table = reference->world->root2, rights = 0x407, entry = 0;
	bool allowed;

	if (demand->table && ad)
		read = write = true;
	if (demand->gpa >> (12 + 9 * levels)) {
		report(walk, demand, levels, MV_STAGE2_VIOLATION,
		       qualification(reference, demand, read, write, 0), ve);
		return STOPPED;
	}
	for (;; level--) {
		uint64_t at = table + bits(demand->gpa, 11 + 9 * level, 3 + 9 * level) * 8;
		int error = load(reference, at, 8, &entry);

		if (error)
			return error;
		way->at[way->count] = at;
		way->entry[way->count++] = entry;
		rights &= entry;
		if (!(entry & 7) && !(mbe && (entry & BIT(10)))) {
			report(walk, demand, level, MV_STAGE2_VIOLATION,
			       qualification(reference, demand, read, write, rights),
			       ve && (entry & BIT(63)));
			return STOPPED;
		}
		if (ept_misconfigured(reference, level, entry,
				      stage2_is_page(reference, level, entry))) {
			report(walk, demand, level, MV_STAGE2_MISCONFIGURED, 0, false);
			return STOPPED;
		}
		if (stage2_is_page(reference, level, entry))
			break;
		table = bits(entry, 51, 12) << 12;
	}
	allowed = (!read || (rights & 1)) && (!write || (rights & 2));
	if (demand->fetch)
		allowed = allowed && (mbe && demand->user ? rights & BIT(10) : rights & 4);
	if (!allowed) {
		report(walk, demand, level, MV_STAGE2_VIOLATION,
		       qualification(reference, demand, read, write, rights),
		       ve && (entry & BIT(63)));
		return STOPPED;
	}
	if (ad && demand->update && (read || write || demand->fetch))
		for (unsigned int i = 0; i < way->count; i++) {
			bool last = i + 1 == way->count;

			store(reference, way->at[i], 8,
			      way->entry[i] | BIT(8) | (last && write ? BIT(9) : 0));
		}
	*target = (struct target){ .lg2 = 3 + 9 * level,
				   .r = rights & 1,
				   .w = rights & 2,
				   .x = rights & 4,
				   .xu = rights & BIT(10) };
	target->hpa =
		bits(entry, 51, target->lg2) << target->lg2 | bits(demand->gpa, target->lg2 - 1, 0);
	return load(reference, way->at[way->count - 1], 8, &target->leaf);
}

static int stage2_npt(struct reference *reference, const struct demand *demand, struct way *way,
		      struct target *target, struct mv_nested_walk *walk)
{
	unsigned int levels = reference->world->format2 == MV_FORMAT_NPT_5L ? 5 : 4, level = levels;
	uint64_t table = reference->world->root2, together = ~0ull, entry = 0;
	bool write = demand->write || demand->table, nx = false;
	bool asks = demand->read || write || demand->fetch;

	if (demand->gpa >> (12 + 9 * levels)) {
		report(walk, demand, levels, MV_STAGE2_VIOLATION,
		       exitinfo(demand, write, false, false), false);
		return STOPPED;
	}
	for (;; level--) {
		uint64_t at = table + bits(demand->gpa, 11 + 9 * level, 3 + 9 * level) * 8;
		int error = load(reference, at, 8, &entry);

		if (error)
			return error;
		way->at[way->count] = at;
		way->entry[way->count++] = entry;
		if (!(entry & 1)) {
			report(walk, demand, level, MV_STAGE2_VIOLATION,
			       exitinfo(demand, write, false, false), false);
			return STOPPED;
		}
		if (npt_reserved(reference, level, entry,
				 stage2_is_page(reference, level, entry))) {
			report(walk, demand, level, MV_STAGE2_MISCONFIGURED,
			       exitinfo(demand, write, true, true), false);
			return STOPPED;
		}
		together &= entry;
		nx = nx || (entry & BIT(63));
		if (stage2_is_page(reference, level, entry))
			break;
		table = bits(entry, 51, 12) << 12;
	}
	if ((asks && !(together & 4)) || (write && !(together & 2)) || (demand->fetch && nx)) {
		report(walk, demand, level, MV_STAGE2_VIOLATION,
		       exitinfo(demand, write, true, false), false);
		return STOPPED;
	}
	if (demand->update && asks)
		for (unsigned int i = 0; i < way->count; i++) {
			bool last = i + 1 == way->count;

			store(reference, way->at[i], 8,
			      way->entry[i] | 0x20 | (last && write ? 0x40 : 0));
		}
	*target = (struct target){
		.lg2 = 3 + 9 * level, .r = together & 4, .w = together & 2, .x = !nx
	};
	target->hpa =
		bits(entry, 51, target->lg2) << target->lg2 | bits(demand->gpa, target->lg2 - 1, 0);
	return load(reference, way->at[way->count - 1], 8, &target->leaf);
}

static int stage2(struct reference *reference, const struct demand *demand, struct target *target,
		  struct mv_nested_walk *walk)
{
	struct way way = { .count = 0 };

	if (nested_world_is_ept(reference->world))
		return stage2_ept(reference, demand, &way, target, walk);
	return stage2_npt(reference, demand, &way, target, walk);
}

/* --- stage 1 ------------------------------------------------------------------------------- */

/* The guest's entries on the way down. */
struct guest_way {
	uint64_t gpa[5];
	uint64_t entry[5];
	unsigned int level[5];
	unsigned int count;
};

static unsigned int entry_bytes(const struct reference *reference)
{
	return nested_world_is_32_bit(reference->world) ? 4 : 8;
}

static bool is_pae(const struct reference *reference)
{
	return nested_world_guest_levels(reference->world) == 3;
}

static struct demand table_demand(const struct access *access, uint64_t gpa, bool write)
{
	return (struct demand){ .gpa = gpa,
				.table = true,
				.linear = true,
				.read = !write,
				.write = write,
				.update = access->update };
}

static int read_guest_entry(struct reference *reference, const struct access *access, uint64_t gpa,
			    uint64_t *entry, struct mv_nested_walk *walk)
{
	struct demand demand = table_demand(access, gpa, false);
	struct target target;
	int end = stage2(reference, &demand, &target, walk);

	return end ? end : load(reference, target.hpa, entry_bytes(reference), entry);
}

/* 2 with paging of 32 bits, 4 MiB pages; and so on. */
static unsigned int guest_shift(const struct reference *reference, unsigned int level)
{
	if (nested_world_is_32_bit(reference->world))
		return level == 1 ? 12 : 22;
	return 3 + 9 * level;
}

static bool guest_is_page(const struct reference *reference, unsigned int level, uint64_t entry)
{
	const struct nested_world *world = reference->world;

	if (level == 1)
		return true;
	if (!(entry & 0x80))
		return false;
	if (nested_world_is_32_bit(world))
		return world->registers.cr4 & 0x10;
	if (level == 2)
		return true;
	return level == 3 && nested_world_is_long(world) && (world->cpu.features & MV_CPU_1G);
}

static bool guest_reserved_32(const struct nested_world *world, unsigned int level, uint64_t entry,
			      bool page)
{
	unsigned int width = world->cpu.features & MV_CPU_PSE36 ? world->cpu.maxphyaddr : 32;

	if (level == 1 || !page)
		return false;
	if (width > 40)
		width = 40;
	return bits(entry, 21, 13) >> (width - 32);
}

static bool guest_reserved(const struct reference *reference, unsigned int level, uint64_t entry,
			   bool page)
{
	const struct nested_world *world = reference->world;

	if (nested_world_is_32_bit(world))
		return guest_reserved_32(world, level, entry, page);
	if (bits(entry, 51, 12) >> (world->cpu.maxphyaddr - 12))
		return true;
	if ((entry & BIT(63)) && !(world->registers.efer & BIT(11)))
		return true;
	if (is_pae(reference) && bits(entry, 62, 52))
		return true;
	if (is_pae(reference) && level == 3)
		return bits(entry, 2, 1) || bits(entry, 8, 5) || (entry & BIT(63));
	if (!page)
		return level > 1 && (entry & 0x80);
	if (level == 2)
		return bits(entry, 20, 13);
	return level == 3 && bits(entry, 29, 13);
}

static uint32_t fault_bits(const struct reference *reference, const struct access *access)
{
	const struct mv_paging_registers *registers = &reference->world->registers;
	bool nx = !nested_world_is_32_bit(reference->world) && (registers->efer & BIT(11));
	uint32_t code = 0;

	if (access->write)
		code |= 2;
	if (access->user)
		code |= 4;
	if (access->fetch && (nx || (registers->cr4 & BIT(20))))
		code |= 16;
	return code;
}

static int page_fault(const struct reference *reference, const struct access *access, uint32_t why,
		      unsigned int level, struct mv_nested_walk *walk)
{
	*walk = (struct mv_nested_walk){ .kind = MV_NESTED_PAGE_FAULT,
					 .error_code = fault_bits(reference, access) | why,
					 .level = level };
	return STOPPED;
}

/* What stage 1 grants in the end. */
struct grant {
	bool u, w, x;
	uint64_t leaf;
	unsigned int lg2;
	uint64_t gpa;
};

static bool refused(const struct reference *reference, const struct access *access,
		    const struct grant *grant)
{
	const struct mv_paging_registers *registers = &reference->world->registers;
	bool wp = registers->cr0 & BIT(16), smep = registers->cr4 & BIT(20);
	bool smap = registers->cr4 & BIT(21), data = access->read || access->write;

	if (access->user && !grant->u && (data || access->fetch))
		return true;
	if (access->write && !grant->w && (access->user || wp))
		return true;
	if (access->fetch && !grant->x)
		return true;
	if (!access->user && grant->u && access->fetch && smep)
		return true;
	return !access->user && grant->u && data && smap && (access->implicit || !access->ac);
}

static bool key_refuses(const struct reference *reference, const struct access *access,
			const struct grant *grant)
{
	const struct mv_paging_registers *registers = &reference->world->registers;
	unsigned int key = (unsigned int)bits(grant->leaf, 62, 59);
	bool on = registers->cr4 & (grant->u ? BIT(22) : BIT(24));
	uint32_t rights = (grant->u ? registers->pkru : registers->pkrs) >> (2 * key);

	if (!nested_world_is_long(reference->world) || !on)
		return false;
	if ((rights & 1) && (access->read || access->write))
		return true;
	return (rights & 2) && access->write &&
	       ((grant->u && access->user) || (registers->cr0 & BIT(16)));
}

static bool has_rights(const struct reference *reference, unsigned int level)
{
	return !(is_pae(reference) && level == 3);
}

/* Down the tables to a leaf. */
static int descend(struct reference *reference, const struct access *access, uint64_t gva,
		   struct guest_way *way, struct grant *grant, struct mv_nested_walk *walk)
{
	const struct nested_world *world = reference->world;
	unsigned int level = nested_world_guest_levels(world), bytes = entry_bytes(reference);
	uint64_t table = world->registers.cr3 & (is_pae(reference) ? 0xffffffe0ull
						 : bytes == 4	   ? 0xfffff000ull
								   : 0xffffffffff000ull);

	*grant = (struct grant){ .u = true, .w = true, .x = true };
	way->count = 0;
	for (;; level--) {
		unsigned int shift = guest_shift(reference, level);
		unsigned int width = is_pae(reference) && level == 3 ? 2 : bytes == 4 ? 10 : 9;
		uint64_t index = bits(gva, shift + width - 1, shift), entry;
		uint64_t gpa = table + index * bytes;
		int end = FINE;

		if (is_pae(reference) && level == 3 && nested_world_is_ept(world))
			entry = reference->pdpte[index];
		else
			end = read_guest_entry(reference, access, gpa, &entry, walk);
		if (end)
			return end;
		way->gpa[way->count] = gpa;
		way->level[way->count] = level;
		way->entry[way->count++] = entry;
		if (!(entry & 1))
			return page_fault(reference, access, 0, level, walk);
		if (guest_reserved(reference, level, entry, guest_is_page(reference, level, entry)))
			return page_fault(reference, access, 9, level, walk);
		if (has_rights(reference, level)) {
			grant->u = grant->u && (entry & 4);
			grant->w = grant->w && (entry & 2);
			grant->x = grant->x && (bytes == 4 || !(entry & BIT(63)));
		}
		grant->leaf = entry;
		grant->lg2 = shift;
		if (guest_is_page(reference, level, entry))
			return FINE;
		table = (bytes == 4 ? bits(entry, 31, 12) : bits(entry, 51, 12)) << 12;
	}
}

static uint64_t page_of(const struct reference *reference, const struct grant *grant)
{
	uint64_t leaf = grant->leaf;

	if (!nested_world_is_32_bit(reference->world))
		return bits(leaf, 51, grant->lg2) << grant->lg2;
	if (grant->lg2 == 12)
		return bits(leaf, 31, 12) << 12;
	return bits(leaf, 31, 22) << 22 | bits(leaf, 20, 13) << 32;
}

/* Accessed everywhere, dirty at the leaf. Return: -EAGAIN where an entry has changed. */
static int mark(struct reference *reference, const struct access *access, struct guest_way *way,
		struct mv_nested_walk *walk)
{
	for (unsigned int i = 0; i < way->count; i++) {
		bool last = i + 1 == way->count;
		uint64_t marked = way->entry[i] | 0x20 | (last && access->write ? 0x40 : 0), now;
		struct demand demand = table_demand(access, way->gpa[i], true);
		struct target target;
		int end;

		if (!has_rights(reference, way->level[i]) || marked == way->entry[i])
			continue;
		end = stage2(reference, &demand, &target, walk);
		if (!end)
			end = load(reference, target.hpa, entry_bytes(reference), &now);
		if (end)
			return end;
		if (now != way->entry[i])
			return -EAGAIN;
		store(reference, target.hpa, entry_bytes(reference), marked);
	}
	return FINE;
}

static int stage1(struct reference *reference, const struct access *access, uint64_t gva,
		  struct grant *grant, struct mv_nested_walk *walk)
{
	struct guest_way way;
	int end = descend(reference, access, gva, &way, grant, walk);
	bool denied, key;

	if (end)
		return end;
	grant->gpa = page_of(reference, grant) | bits(gva, grant->lg2 - 1, 0);
	denied = refused(reference, access, grant);
	key = key_refuses(reference, access, grant);
	if (denied || key)
		return page_fault(reference, access, 1 | (key ? 32 : 0), way.level[way.count - 1],
				  walk);
	if (!access->update || !(access->read || access->write || access->fetch))
		return FINE;
	grant->leaf |= 0x20 | (access->write ? 0x40 : 0);
	return mark(reference, access, &way, walk);
}

/* --- types --------------------------------------------------------------------------------- */

enum { UC, WC, WT = 4, WP, WB, UC_MINUS, CD, WC_PLUS };

static unsigned int pat_at(uint64_t pat, unsigned int index)
{
	return (unsigned int)bits(pat, 8 * index + 2, 8 * index);
}

static unsigned int guest_index(const struct grant *grant)
{
	return (unsigned int)(bits(grant->leaf, 4, 3) | bits(grant->leaf, grant->lg2 == 12 ? 7 : 12,
							     grant->lg2 == 12 ? 7 : 12)
								<< 2);
}

/* By rules: a PAT's UC and WC win; write-combining does not go with caches that hold lines. */
static unsigned int ept_type(unsigned int ept, unsigned int pat)
{
	if (pat == UC || pat == WC)
		return pat;
	if (pat == UC_MINUS)
		return ept == WC || ept == WP ? WC : UC;
	if (pat == WB)
		return ept;
	if (ept == UC || ept == WC)
		return UC;
	return ept == WB || ept == WP ? pat : pat == WP ? WP : WT;
}

static unsigned int both_pats(unsigned int guest, unsigned int host)
{
	bool host_caches = host == WT || host == WP || host == WB;

	if (guest == WC)
		return host_caches ? WC_PLUS : WC;
	if (guest == UC || host == UC)
		return UC;
	if (guest == UC_MINUS)
		return host == UC_MINUS || host == WC ? host : UC;
	if (host == UC_MINUS)
		return UC;
	if (host == WC)
		return WC_PLUS;
	if (guest == WB || host == WB)
		return guest == WB ? host : guest;
	return guest == host ? guest : UC;
}

static unsigned int with_mtrr(unsigned int pat, unsigned int mtrr)
{
	bool mtrr_caches = mtrr == WT || mtrr == WP || mtrr == WB;

	switch (pat) {
	case WC:
		return WC;
	case WC_PLUS:
		return mtrr_caches ? WC_PLUS : WC;
	case WB:
		return mtrr;
	case UC_MINUS:
		return mtrr_caches ? CD : mtrr;
	case UC:
		return mtrr == UC ? UC : CD;
	default: /* WT, WP */
		if (mtrr == UC)
			return UC;
		return mtrr == pat || mtrr == WB ? pat : CD;
	}
}

static unsigned int type_of(const struct reference *reference, const struct grant *grant,
			    const struct target *target)
{
	const struct nested_world *world = reference->world;
	unsigned int guest = WB;
	unsigned int at = target->lg2 == 12 ? 7 : 12;

	if (world->registers.cr0 & BIT(31))
		guest = pat_at(world->guest_pat, guest_index(grant));
	if (!nested_world_is_ept(world)) {
		unsigned int index =
			(unsigned int)(bits(target->leaf, 4, 3) | bits(target->leaf, at, at) << 2);

		if (world->registers.cr0 & BIT(30))
			return CD;
		return with_mtrr(both_pats(guest, pat_at(world->host_pat, index)), world->mtrr);
	}
	if (world->registers.cr0 & BIT(30))
		return UC;
	if (target->leaf & 0x40)
		return (unsigned int)bits(target->leaf, 5, 3);
	return ept_type((unsigned int)bits(target->leaf, 5, 3), guest);
}

/* --- together ------------------------------------------------------------------------------- */

static uint32_t attr_of(const struct reference *reference, const struct grant *grant,
			const struct target *target)
{
	const struct nested_world *world = reference->world;
	bool paging = world->registers.cr0 & BIT(31), ept = nested_world_is_ept(world);
	bool mbe = ept && has(reference, MV_FEATURE_MODE_EXEC);
	bool dirty2 = target->leaf & (ept ? BIT(9) : 0x40);
	uint32_t attr = 0;

	if (ept && !has(reference, MV_FEATURE_ACCESSED))
		dirty2 = true;
	attr |= target->r ? MV_ATTR_READ : 0;
	attr |= grant->w && target->w ? MV_ATTR_WRITE : 0;
	attr |= grant->x && (mbe && grant->u ? target->xu : target->x) ? MV_ATTR_EXEC : 0;
	attr |= grant->u ? MV_ATTR_USER : 0;
	attr |= !paging || (grant->leaf & 0x20) ? MV_ATTR_ACCESSED : 0;
	attr |= (!paging || (grant->leaf & 0x40)) && dirty2 ? MV_ATTR_DIRTY : 0;
	if (!paging)
		return attr;
	if ((grant->leaf & 0x100) && (world->registers.cr4 & 0x80))
		attr |= MV_ATTR_GLOBAL;
	if (nested_world_is_long(world) && (world->registers.cr4 & (BIT(22) | BIT(24))))
		attr |= MV_ATTR_PKEY((uint32_t)bits(grant->leaf, 62, 59));
	return attr;
}

static int finish(struct reference *reference, const struct access *access,
		  const struct grant *grant, struct mv_nested_walk *walk)
{
	struct demand demand = { .gpa = grant->gpa,
				 .linear = true,
				 .read = access->read,
				 .write = access->write,
				 .fetch = access->fetch,
				 .user = grant->u,
				 .writable = grant->w,
				 .executable = grant->x,
				 .update = access->update };
	struct target target;
	int end = stage2(reference, &demand, &target, walk);

	if (end)
		return end;
	*walk = (struct mv_nested_walk){ .kind = MV_NESTED_OK,
					 .hpa = target.hpa,
					 .gpa = grant->gpa,
					 .page_lg2 =
						 grant->lg2 < target.lg2 ? grant->lg2 : target.lg2,
					 .attr = attr_of(reference, grant, &target),
					 .type = type_of(reference, grant, &target) };
	return FINE;
}

static bool canonical(const struct reference *reference, uint64_t gva)
{
	unsigned int width = nested_world_guest_levels(reference->world) == 5 ? 57 : 48;

	if (!nested_world_is_long(reference->world))
		return true;
	return (uint64_t)((int64_t)(gva << (64 - width)) >> (64 - width)) == gva;
}

static int walk_once(struct reference *reference, uint64_t gva, const struct access *access,
		     struct mv_nested_walk *walk)
{
	struct grant grant = { .u = true, .w = true, .x = true, .lg2 = 32, .gpa = (uint32_t)gva };

	if (reference->world->registers.cr0 & BIT(31)) {
		int end;

		if (!canonical(reference, gva)) {
			*walk = (struct mv_nested_walk){ .kind = MV_NESTED_NOT_CANONICAL };
			return STOPPED;
		}
		end = stage1(reference, access, gva, &grant, walk);
		if (end)
			return end;
	}
	return finish(reference, access, &grant, walk);
}

int reference_walk(struct reference *reference, uint64_t gva, unsigned int access,
		   struct mv_nested_walk *walk)
{
	const unsigned int kinds = MV_ACCESS_READ | MV_ACCESS_WRITE | MV_ACCESS_FETCH;
	const struct access split = {
		.read = access & MV_ACCESS_READ,
		.write = access & MV_ACCESS_WRITE,
		.fetch = access & MV_ACCESS_FETCH,
		.implicit = access & MV_ACCESS_IMPLICIT,
		.user = (access & MV_ACCESS_USER) && !(access & MV_ACCESS_IMPLICIT),
		.ac = access & MV_ACCESS_AC,
		.update = (access & kinds) && !(access & MV_ACCESS_NO_UPDATE),
	};
	int end;

	do
		end = walk_once(reference, gva, &split, walk);
	while (end == -EAGAIN);
	return end < 0 ? end : 0;
}

int reference_load_pdptes(struct reference *reference, struct mv_nested_walk *walk)
{
	uint64_t made[4];

	*walk = (struct mv_nested_walk){ .kind = MV_NESTED_OK };
	if (!is_pae(reference) || !(reference->world->registers.cr0 & BIT(31)) ||
	    !nested_world_is_ept(reference->world))
		return 0;
	for (unsigned int i = 0; i < 4; i++) {
		struct demand demand = {
			.gpa = (reference->world->registers.cr3 & 0xffffffe0) + i * 8,
			.read = true,
			.update = true,
		};
		struct target target;
		int end = stage2(reference, &demand, &target, walk);

		if (!end)
			end = load(reference, target.hpa, 8, &made[i]);
		if (end)
			return end < 0 ? end : 0;
		if ((made[i] & 1) && guest_reserved(reference, 3, made[i], false)) {
			walk->kind = MV_NESTED_BAD_PDPTE;
			return 0;
		}
	}
	memcpy(reference->pdpte, made, sizeof(made));
	return 0;
}
