/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * minivmm: a small VMM on KVM that links libmemvirt, for authors of VMMs to copy from.
 * docs/linking.md walks through it.
 *
 *   main.c     options; what is made in which order
 *   ram.c      the guest's memory: what memvirt needs of a VMM, and gives it
 *   vcpu.c     the processor: KVM_RUN, and where its exits go
 *   boot.c     a Linux kernel, or a payload of 64-bit code
 *   acpi.c     the tables by which Linux finds the devices
 *   serial.c   the console
 *   virtio.c   virtio over MMIO, with the balloon device behind it
 *   control.c  statistics segment and control socket: memstat and memvirt govern
 *
 * One vCPU, one console, one device: what a VMM has besides is its own business.
 */
#ifndef MINIVMM_H
#define MINIVMM_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <memvirt/balloon.h>
#include <memvirt/memory.h>
#include <memvirt/pager.h>
#include <memvirt/store.h>

/* Guest-physical addresses. RAM begins at 0 and ends below the devices. */
#define RAM_BYTES_MAX 0xc0000000UL
#define VIRTIO_GPA    0xd0000000UL
#define VIRTIO_BYTES  0x1000UL
#define ACPI_GPA      0xe0000UL
#define ACPI_BYTES    0x10000UL

/* Interrupts of the IOAPIC. */
#define SERIAL_GSI 4
#define VIRTIO_GSI 16

#define SERIAL_PORT    0x3f8
#define SERIAL_PORTS   8
#define KEYBOARD_PORT  0x64 /* Linux resets the machine there */
#define KEYBOARD_RESET 0xfe

struct options {
	const char *kernel;
	const char *initrd;
	const char *append;
	const char *payload;
	const char *name;
	const char *run_dir;
	uint64_t memory_bytes;
	uint64_t limit_bytes;
	uint64_t features;
};

/** struct ram - the guest's memory, and who keeps it within its limit */
struct ram {
	unsigned char *hva;
	uint64_t bytes;
	int fd;
	struct mv_memory *memory;
	struct mv_store *store;
	struct mv_pager *pager;
	pthread_t handler;
	pthread_t evictor;
};

/** struct serial - a 16550, as far as Linux uses it */
struct serial {
	pthread_mutex_t lock;
	int vm;
	uint8_t ier, lcr, mcr, scratch, divisor[2];
	bool sent; /* the transmitter has become empty, and nobody has been told */
	unsigned char input[64];
	unsigned int input_head, input_tail;
	pthread_t reader;
};

/** struct virtio - the registers of virtio over MMIO: VIRTIO 1.2, 4.2.2 */
struct virtio {
	int vm;
	struct mv_balloon *balloon;
	uint32_t device_features_sel, driver_features_sel, queue_sel;
	uint64_t driver_features;
	uint32_t status;
	uint32_t interrupts; /* atomic */
	uint32_t generation; /* atomic */
	struct {
		uint32_t entries;
		bool ready;
		uint64_t desc, driver, device;
	} queues[MV_BALLOON_QUEUES];
};

struct control;

struct vmm {
	struct options options;
	int kvm, vm, vcpu;
	struct kvm_run *run;
	size_t run_bytes;
	bool irqchip;
	struct ram ram;
	struct serial serial;
	struct virtio virtio;
	struct control *control; /* NULL where nobody is to look */
};

/* Say what is wrong, and end with status 1. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A negative errno of the library ends the program. */
void must(int err, const char *what);

void ram_create(struct ram *ram, const struct options *options);
void ram_destroy(struct ram *ram);

/* Copy into guest memory at start, before the guest runs. */
void ram_write(struct ram *ram, uint64_t gpa, const void *from, size_t bytes);

void vcpu_create(struct vmm *vmm);

/* Until the guest resets the machine: 0; or 1 where it cannot go on. */
int vcpu_run(struct vmm *vmm);

void boot_linux(struct vmm *vmm);
void boot_payload(struct vmm *vmm);
void acpi_write(struct ram *ram);

void serial_create(struct serial *serial, int vm);
uint8_t serial_read(struct serial *serial, unsigned int offset);
void serial_write(struct serial *serial, unsigned int offset, uint8_t value);

void virtio_create(struct virtio *virtio, int vm, struct ram *ram, uint64_t features);
void virtio_destroy(struct virtio *virtio);
void virtio_read(struct virtio *virtio, uint64_t offset, void *data, unsigned int bytes);
void virtio_write(struct virtio *virtio, uint64_t offset, const void *data, unsigned int bytes);

void control_create(struct vmm *vmm);
void control_destroy(struct vmm *vmm);

/* An interrupt that is an edge. */
void pulse(int vm, unsigned int gsi);

#endif /* MINIVMM_H */
