/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The peer of a translation service: a small VM by KVM's API, with 4-level tables of its own over
 * all of its memory, asked by KVM_TRANSLATE. It never runs.
 */
#ifndef BENCH_KVM_TRANSLATE_H
#define BENCH_KVM_TRANSLATE_H

#include <stddef.h>
#include <stdint.h>

/**
 * struct kvm_guest - what there is of the VM
 * @why: where it could not be made: in words
 */
struct kvm_guest {
	int kvm, vm, vcpu;
	unsigned char *memory;
	size_t bytes;
	char why[128];
};

/* Each address is mapped to itself, by 4 KiB pages. Return: 0; -1, guest->why set. */
int kvm_guest_open(struct kvm_guest *guest, size_t bytes);
void kvm_guest_close(struct kvm_guest *guest);

/* Where the guest's tables end; what lies above is mapped, and holds nothing. */
uint64_t kvm_guest_first_free(const struct kvm_guest *guest);

/* The guest-physical address by KVM_TRANSLATE, or UINT64_MAX. */
uint64_t kvm_guest_translate(const struct kvm_guest *guest, uint64_t gva);

#endif /* BENCH_KVM_TRANSLATE_H */
