/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ioctl: KVM names guest memory; drivers map it for devices; the VMM registers it with a
 * userfaultfd of its own.
 *
 * A request number is enough to go by: those below are the same on every descriptor that
 * they could be meant for, and a mistaken hold costs speed, never content. KVM_RUN, the
 * one that matters for speed, passes after one comparison chain.
 */
#undef _FORTIFY_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <linux/udmabuf.h>
#include <linux/userfaultfd.h>
#include <linux/vfio.h>
#include <linux/vhost.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "memvirt/preload/preload.h"
#include "memvirt/preload/real.h"

/* Newer than Linux 6.1's headers. */
struct kvm_region2 {
	struct kvm_userspace_memory_region region;
	uint64_t guest_memfd_offset;
	uint32_t guest_memfd;
	uint32_t pad1;
	uint64_t pad2[14];
};
#define KVM_SET_REGION2	      _IOW(KVMIO, 0x49, struct kvm_region2)
#define IOMMUFD_IOAS_MAP      _IO(';', 0x85)
#define IOMMUFD_IOAS_MAP_FILE _IO(';', 0x8f)

/* --- KVM -------------------------------------------------------------------------------- */

/*
 * A slot that is deleted often comes back with other flags: its memory stays managed until
 * it is unmapped.
 */
static void notice_slot(const struct kvm_userspace_memory_region *slot)
{
	if (!slot->memory_size)
		ram_slot_gone(slot->guest_phys_addr);
	else if (!(slot->flags & KVM_MEM_READONLY) && slot->memory_size >= RAM_SLOT_MIN)
		ram_found((void *)(uintptr_t)slot->userspace_addr, slot->memory_size,
			  slot->guest_phys_addr);
}

/* --- what maps guest memory for devices -------------------------------------------------- */

/*
 * vhost workers copy to and from guest memory like any thread, and fault like one. Only
 * zero copy reaches pages directly: that of vhost-net is off unless the module was told.
 */
static bool vhost_net_copies(void)
{
	char value = '0';
	int fd =
		open("/sys/module/vhost_net/parameters/experimental_zcopytx", O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return true;
	if (real.read(fd, &value, 1) != 1)
		value = '0';
	close(fd);
	return value == '0';
}

/* Who is about to reach guest memory behind the ledger's back; NULL for nobody. */
static const char *direct_user(unsigned long request)
{
	switch (request) {
	case VFIO_IOMMU_MAP_DMA:
		return "a device reaches guest memory through vfio";
	case IOMMUFD_IOAS_MAP:
	case IOMMUFD_IOAS_MAP_FILE:
		return "a device reaches guest memory through iommufd";
	case VHOST_SCSI_SET_ENDPOINT:
		return "vhost-scsi reaches guest memory directly";
	case VHOST_NET_SET_BACKEND:
		return vhost_net_copies() ? NULL
					  : "vhost-net sends without copying "
					    "(experimental_zcopytx)";
	case VHOST_VDPA_GET_DEVICE_ID:
	case VHOST_VDPA_SET_STATUS:
		return "a device reaches guest memory through vDPA";
	case UDMABUF_CREATE:
	case UDMABUF_CREATE_LIST:
		return "guest memory is shown to the graphics device (udmabuf)";
	case KVM_MEMORY_ENCRYPT_REG_REGION:
		return "guest memory is encrypted";
	}
	/* Registering memory with an RDMA device is one of many methods of one request. */
	if (_IOC_TYPE(request) == 0x1b)
		return "the VMM uses RDMA";
	return NULL;
}

static void notice_direct_user(unsigned long request)
{
	const char *who = direct_user(request);

	if (who)
		engine_hold(MV_PAGER_HOLD_DMA, who);
}

/* --- userfaultfds of the VMM's own ------------------------------------------------------- */

static void notice_register(const struct uffdio_register *reg)
{
	if (preload_touches((void *)(uintptr_t)reg->range.start, reg->range.len))
		ram_lend((void *)(uintptr_t)reg->range.start, reg->range.len);
}

static void notice_unregister(const struct uffdio_range *range)
{
	if (preload_touches((void *)(uintptr_t)range->start, range->len))
		ram_take_back((void *)(uintptr_t)range->start, range->len);
}

/* ------------------------------------------------------------------------------------------ */

static void notice_before(unsigned long request, const void *arg)
{
	if (request == UFFDIO_REGISTER && arg)
		notice_register(arg);
	else
		notice_direct_user(request);
}

static void notice_after(unsigned long request, const void *arg)
{
	if (request == KVM_SET_USER_MEMORY_REGION || request == KVM_SET_REGION2)
		notice_slot(arg);
	else if (request == UFFDIO_UNREGISTER)
		notice_unregister(arg);
}

EXPORT int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;
	int result;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (request == KVM_RUN || preload_idle())
		return real.ioctl(fd, request, arg);
	notice_before(request, arg);
	result = real.ioctl(fd, request, arg);
	if (result == 0)
		notice_after(request, arg);
	return result;
}
