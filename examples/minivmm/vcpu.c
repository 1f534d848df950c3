/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The processor. Documentation/virt/kvm/api.rst of Linux.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "minivmm.h"

#define CPUID_ENTRIES 256

/* With it Linux looks for KVM's clock, and needs no other. */
#define CPUID_1_ECX_HYPERVISOR (1U << 31)

/* KVM on Intel keeps things there, where no memory of the guest is. */
#define TSS_GPA		 0xfffbd000UL
#define IDENTITY_MAP_GPA 0xffffc000UL

void pulse(int vm, unsigned int gsi)
{
	struct kvm_irq_level line = { .irq = gsi, .level = 1 };

	ioctl(vm, KVM_IRQ_LINE, &line);
	line.level = 0;
	ioctl(vm, KVM_IRQ_LINE, &line);
}

/* A host whose KVM has no interrupt controllers can still run a payload. */
static void create_irqchip(struct vmm *vmm)
{
	const struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	uint64_t identity_map = IDENTITY_MAP_GPA;

	ioctl(vmm->vm, KVM_SET_TSS_ADDR, TSS_GPA);
	ioctl(vmm->vm, KVM_SET_IDENTITY_MAP_ADDR, &identity_map);
	vmm->irqchip =
		!ioctl(vmm->vm, KVM_CREATE_IRQCHIP) && !ioctl(vmm->vm, KVM_CREATE_PIT2, &pit);
}

static void give_memory(struct vmm *vmm)
{
	struct kvm_userspace_memory_region slot = { .guest_phys_addr = 0,
						    .memory_size = vmm->ram.bytes,
						    .userspace_addr = (uintptr_t)vmm->ram.hva };

	if (ioctl(vmm->vm, KVM_SET_USER_MEMORY_REGION, &slot))
		die("KVM_SET_USER_MEMORY_REGION: %s", strerror(errno));
}

static void give_cpuid(struct vmm *vmm)
{
	struct kvm_cpuid2 *cpuid =
		calloc(1, sizeof(*cpuid) + CPUID_ENTRIES * sizeof(cpuid->entries[0]));

	if (!cpuid)
		die("no memory");
	cpuid->nent = CPUID_ENTRIES;
	if (ioctl(vmm->kvm, KVM_GET_SUPPORTED_CPUID, cpuid))
		die("KVM_GET_SUPPORTED_CPUID: %s", strerror(errno));
	for (uint32_t i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 1)
			cpuid->entries[i].ecx |= CPUID_1_ECX_HYPERVISOR;
	if (ioctl(vmm->vcpu, KVM_SET_CPUID2, cpuid))
		die("KVM_SET_CPUID2: %s", strerror(errno));
	free(cpuid);
}

void vcpu_create(struct vmm *vmm)
{
	int bytes;

	vmm->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vmm->kvm < 0)
		die("/dev/kvm: %s", strerror(errno));
	vmm->vm = ioctl(vmm->kvm, KVM_CREATE_VM, 0);
	if (vmm->vm < 0)
		die("KVM_CREATE_VM: %s", strerror(errno));
	create_irqchip(vmm);
	give_memory(vmm);
	vmm->vcpu = ioctl(vmm->vm, KVM_CREATE_VCPU, 0);
	bytes = ioctl(vmm->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (vmm->vcpu < 0 || bytes < 0)
		die("KVM_CREATE_VCPU: %s", strerror(errno));
	vmm->run_bytes = (size_t)bytes;
	vmm->run = mmap(NULL, vmm->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vmm->vcpu, 0);
	if (vmm->run == MAP_FAILED)
		die("kvm_run: %s", strerror(errno));
	give_cpuid(vmm);
}

/* --- exits -------------------------------------------------------------------------------- */

/* Return: whether the guest has reset the machine. */
static bool port_write(struct vmm *vmm, uint16_t port, uint8_t value)
{
	if (port >= SERIAL_PORT && port < SERIAL_PORT + SERIAL_PORTS)
		serial_write(&vmm->serial, port - SERIAL_PORT, value);
	return port == KEYBOARD_PORT && value == KEYBOARD_RESET;
}

/* Where nothing is, all bits are set; the keyboard's buffers are empty. */
static uint8_t port_read(struct vmm *vmm, uint16_t port)
{
	if (port >= SERIAL_PORT && port < SERIAL_PORT + SERIAL_PORTS)
		return serial_read(&vmm->serial, port - SERIAL_PORT);
	return port == KEYBOARD_PORT ? 0 : 0xff;
}

static bool handle_io(struct vmm *vmm)
{
	struct kvm_run *run = vmm->run;
	uint8_t *data = (uint8_t *)run + run->io.data_offset;
	bool reset = false;

	for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
		if (run->io.direction == KVM_EXIT_IO_OUT) {
			reset = port_write(vmm, run->io.port, data[0]) || reset;
			continue;
		}
		memset(data, 0xff, run->io.size);
		data[0] = port_read(vmm, run->io.port);
	}
	return reset;
}

static void handle_mmio(struct vmm *vmm)
{
	struct kvm_run *run = vmm->run;
	uint64_t offset = run->mmio.phys_addr - VIRTIO_GPA;
	bool virtio = run->mmio.phys_addr >= VIRTIO_GPA && offset < VIRTIO_BYTES;

	if (virtio && run->mmio.is_write)
		virtio_write(&vmm->virtio, offset, run->mmio.data, run->mmio.len);
	else if (virtio)
		virtio_read(&vmm->virtio, offset, run->mmio.data, run->mmio.len);
	else if (!run->mmio.is_write)
		memset(run->mmio.data, 0xff, sizeof(run->mmio.data));
}

int vcpu_run(struct vmm *vmm)
{
	for (;;) {
		/* Interrupted by a signal: nothing has been asked of us. */
		if (ioctl(vmm->vcpu, KVM_RUN, 0)) {
			if (errno == EINTR || errno == EAGAIN)
				continue;
			die("KVM_RUN: %s", strerror(errno));
		}
		switch (vmm->run->exit_reason) {
		case KVM_EXIT_IO:
			if (handle_io(vmm))
				return 0;
			break;
		case KVM_EXIT_MMIO:
			handle_mmio(vmm);
			break;
		case KVM_EXIT_SHUTDOWN: /* a triple fault: how Linux resets where all else fails */
		case KVM_EXIT_HLT:	/* without interrupt controllers: nothing would wake it */
			return 0;
		default:
			fprintf(stderr, "minivmm: the guest cannot go on: exit reason %u\n",
				vmm->run->exit_reason);
			return 1;
		}
	}
}
