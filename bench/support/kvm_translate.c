/* SPDX-License-Identifier: BSD-2-Clause */
/* A VM that is there to be asked for translations; see kvm_translate.h. */
#include "support/kvm_translate.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>

#define ROOT	  0x1000ul /* then the two tables below it, then the leaves' */
#define LEAVES	  0x4000ul
#define ENTRY	  0x63ul       /* present, writable, accessed, dirty */
#define CR0	  0x80050033ul /* PG, AM, WP, NE, ET, MP, PE */
#define CR4_PAE	  0x20ul
#define EFER_LONG 0x500ul /* LMA, LME */

static int failed(struct kvm_guest *guest, const char *what)
{
	snprintf(guest->why, sizeof(guest->why), "%s: %s", what, strerror(errno));
	kvm_guest_close(guest);
	return -1;
}

static uint64_t *table_at(struct kvm_guest *guest, uint64_t gpa)
{
	return (uint64_t *)(guest->memory + gpa);
}

/* One table each of the upper three levels reaches 1 GiB. */
static void build_tables(struct kvm_guest *guest)
{
	table_at(guest, ROOT)[0] = (ROOT + 0x1000) | ENTRY;
	table_at(guest, ROOT + 0x1000)[0] = (ROOT + 0x2000) | ENTRY;
	for (uint64_t i = 0; i < guest->bytes >> 21; i++)
		table_at(guest, ROOT + 0x2000)[i] = (LEAVES + i * 4096) | ENTRY;
	for (uint64_t page = 0; page < guest->bytes >> 12; page++)
		table_at(guest, LEAVES)[page] = page << 12 | ENTRY;
}

static int enter_long_mode(struct kvm_guest *guest)
{
	const struct kvm_segment code = {
		.limit = ~0u, .selector = 8, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1
	};
	const struct kvm_segment data = {
		.limit = ~0u, .selector = 16, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1
	};
	struct kvm_sregs sregs;

	if (ioctl(guest->vcpu, KVM_GET_SREGS, &sregs))
		return -1;
	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = CR0;
	sregs.cr3 = ROOT;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LONG;
	return ioctl(guest->vcpu, KVM_SET_SREGS, &sregs);
}

int kvm_guest_open(struct kvm_guest *guest, size_t bytes)
{
	struct kvm_userspace_memory_region slot = { .memory_size = bytes };

	*guest = (struct kvm_guest){ .vm = -1, .vcpu = -1, .bytes = bytes };
	guest->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (guest->kvm < 0)
		return failed(guest, "/dev/kvm");
	guest->vm = ioctl(guest->kvm, KVM_CREATE_VM, 0);
	if (guest->vm < 0)
		return failed(guest, "KVM_CREATE_VM");
	guest->memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (guest->memory == MAP_FAILED) {
		guest->memory = NULL;
		return failed(guest, "mmap");
	}
	slot.userspace_addr = (uintptr_t)guest->memory;
	if (ioctl(guest->vm, KVM_SET_USER_MEMORY_REGION, &slot))
		return failed(guest, "KVM_SET_USER_MEMORY_REGION");
	guest->vcpu = ioctl(guest->vm, KVM_CREATE_VCPU, 0);
	if (guest->vcpu < 0)
		return failed(guest, "KVM_CREATE_VCPU");
	build_tables(guest);
	if (enter_long_mode(guest))
		return failed(guest, "KVM_SET_SREGS");
	return 0;
}

void kvm_guest_close(struct kvm_guest *guest)
{
	int descriptors[] = { guest->vcpu, guest->vm, guest->kvm };

	for (unsigned int i = 0; i < sizeof(descriptors) / sizeof(descriptors[0]); i++)
		if (descriptors[i] >= 0)
			close(descriptors[i]);
	if (guest->memory)
		munmap(guest->memory, guest->bytes);
}

uint64_t kvm_guest_first_free(const struct kvm_guest *guest)
{
	return LEAVES + (guest->bytes >> 21) * 4096;
}

uint64_t kvm_guest_translate(const struct kvm_guest *guest, uint64_t gva)
{
	struct kvm_translation translation = { .linear_address = gva };

	if (ioctl(guest->vcpu, KVM_TRANSLATE, &translation) || !translation.valid)
		return UINT64_MAX;
	return translation.physical_address;
}
