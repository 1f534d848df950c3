/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The transport of a virtio device, and the balloon device behind it. VIRTIO 1.2, 4.2: registers
 * of 32 bits, all from the driver's point of view. The device itself is memvirt's; what is left
 * to a VMM is to hand over features, queues, notifications and the configuration space.
 */
#include <errno.h>
#include <string.h>

#include "minivmm.h"

#define MAGIC	   0x74726976 /* "virt" */
#define VERSION	   2
#define VENDOR	   0x766d656d
#define QUEUE_SIZE 256

/* Table 4.1. */
enum {
	MAGIC_VALUE = 0x000,
	DEVICE_VERSION = 0x004,
	DEVICE_ID = 0x008,
	VENDOR_ID = 0x00c,
	DEVICE_FEATURES = 0x010,
	DEVICE_FEATURES_SEL = 0x014,
	DRIVER_FEATURES = 0x020,
	DRIVER_FEATURES_SEL = 0x024,
	QUEUE_SEL = 0x030,
	QUEUE_SIZE_MAX = 0x034,
	QUEUE_SIZE_NOW = 0x038,
	QUEUE_READY = 0x044,
	QUEUE_NOTIFY = 0x050,
	INTERRUPT_STATUS = 0x060,
	INTERRUPT_ACK = 0x064,
	STATUS = 0x070,
	QUEUE_DESC = 0x080,
	QUEUE_DRIVER = 0x090,
	QUEUE_DEVICE = 0x0a0,
	SHM_LENGTH = 0x0b0,
	CONFIG_GENERATION = 0x0fc,
	CONFIG = 0x100,
};

#define INTERRUPT_USED	 0x1
#define INTERRUPT_CONFIG 0x2

#define STATUS_FEATURES_OK 0x08
#define STATUS_NEEDS_RESET 0x40

/* --- what the device asks of us ----------------------------------------------------------- */

static void raise_interrupt(struct virtio *virtio, uint32_t why)
{
	__atomic_fetch_or(&virtio->interrupts, why, __ATOMIC_SEQ_CST);
	pulse(virtio->vm, VIRTIO_GSI);
}

static void on_interrupt(void *ctx, unsigned int queue)
{
	raise_interrupt(ctx, INTERRUPT_USED);
}

static void on_config_changed(void *ctx)
{
	struct virtio *virtio = ctx;

	__atomic_fetch_add(&virtio->generation, 1, __ATOMIC_SEQ_CST);
	raise_interrupt(virtio, INTERRUPT_CONFIG);
}

static const struct mv_balloon_ops balloon_ops = {
	.interrupt = on_interrupt,
	.config_changed = on_config_changed,
};

/* --- what the driver does ----------------------------------------------------------------- */

static void needs_reset(struct virtio *virtio)
{
	virtio->status |= STATUS_NEEDS_RESET;
	on_config_changed(virtio);
}

/* A call does a bounded amount of work; a device with a thread of its own would go on there. */
static void notify(struct virtio *virtio, uint32_t queue)
{
	int more;

	do
		more = mv_balloon_kick(virtio->balloon, queue);
	while (more > 0);
	if (more == -EPROTO)
		needs_reset(virtio);
}

static void make_ready(struct virtio *virtio, uint32_t value)
{
	uint32_t at = virtio->queue_sel;

	if (!(value & 1) || virtio->queues[at].ready)
		return;
	if (mv_balloon_set_queue(virtio->balloon, at, virtio->queues[at].entries,
				 virtio->queues[at].desc, virtio->queues[at].driver,
				 virtio->queues[at].device))
		needs_reset(virtio);
	else
		virtio->queues[at].ready = true;
}

static void reset(struct virtio *virtio)
{
	mv_balloon_reset(virtio->balloon);
	memset(virtio->queues, 0, sizeof(virtio->queues));
	virtio->driver_features = 0;
	virtio->status = 0;
	__atomic_store_n(&virtio->interrupts, 0, __ATOMIC_SEQ_CST);
}

/* The driver reads the status back, and sees whether its features were taken: 3.1.1. */
static void set_status(struct virtio *virtio, uint32_t value)
{
	if (value == 0) {
		reset(virtio);
		return;
	}
	if ((value & ~virtio->status & STATUS_FEATURES_OK) &&
	    mv_balloon_accept(virtio->balloon, virtio->driver_features))
		value &= ~STATUS_FEATURES_OK;
	virtio->status = value | (virtio->status & STATUS_NEEDS_RESET);
}

static void set_half(uint64_t *number, bool high, uint32_t value)
{
	if (high)
		*number = (*number & 0xffffffff) | (uint64_t)value << 32;
	else
		*number = (*number & ~0xffffffffULL) | value;
}

static void set_queue_register(struct virtio *virtio, uint32_t offset, uint32_t value)
{
	uint32_t at = virtio->queue_sel;
	bool high = offset & 4;

	if (at >= MV_BALLOON_QUEUES)
		return;
	switch (offset & ~4U) {
	case QUEUE_DESC:
		set_half(&virtio->queues[at].desc, high, value);
		break;
	case QUEUE_DRIVER:
		set_half(&virtio->queues[at].driver, high, value);
		break;
	case QUEUE_DEVICE:
		set_half(&virtio->queues[at].device, high, value);
		break;
	default:
		if (offset == QUEUE_SIZE_NOW)
			virtio->queues[at].entries = value;
		else if (offset == QUEUE_READY)
			make_ready(virtio, value);
	}
}

static void set_register(struct virtio *virtio, uint32_t offset, uint32_t value)
{
	switch (offset) {
	case DEVICE_FEATURES_SEL:
		virtio->device_features_sel = value;
		break;
	case DRIVER_FEATURES:
		if (virtio->driver_features_sel < 2)
			set_half(&virtio->driver_features, virtio->driver_features_sel, value);
		break;
	case DRIVER_FEATURES_SEL:
		virtio->driver_features_sel = value;
		break;
	case QUEUE_SEL:
		virtio->queue_sel = value;
		break;
	case QUEUE_NOTIFY:
		notify(virtio, value);
		break;
	case INTERRUPT_ACK:
		__atomic_fetch_and(&virtio->interrupts, ~value, __ATOMIC_SEQ_CST);
		break;
	case STATUS:
		set_status(virtio, value);
		break;
	default:
		set_queue_register(virtio, offset, value);
	}
}

static uint32_t get_register(struct virtio *virtio, uint32_t offset)
{
	uint32_t at = virtio->queue_sel;

	switch (offset) {
	case MAGIC_VALUE:
		return MAGIC;
	case DEVICE_VERSION:
		return VERSION;
	case DEVICE_ID:
		return MV_BALLOON_DEVICE_ID;
	case VENDOR_ID:
		return VENDOR;
	case DEVICE_FEATURES:
		return virtio->device_features_sel > 1
			       ? 0
			       : (uint32_t)(mv_balloon_features(virtio->balloon) >>
					    32 * virtio->device_features_sel);
	case QUEUE_SIZE_MAX:
		return at < MV_BALLOON_QUEUES ? QUEUE_SIZE : 0;
	case QUEUE_READY:
		return at < MV_BALLOON_QUEUES && virtio->queues[at].ready;
	case INTERRUPT_STATUS:
		return __atomic_load_n(&virtio->interrupts, __ATOMIC_SEQ_CST);
	case STATUS:
		return virtio->status;
	case CONFIG_GENERATION:
		return __atomic_load_n(&virtio->generation, __ATOMIC_SEQ_CST);
	default:
		/* No shared memory: its length is all ones. */
		return offset >= SHM_LENGTH && offset < SHM_LENGTH + 16 ? UINT32_MAX : 0;
	}
}

void virtio_read(struct virtio *virtio, uint64_t offset, void *data, unsigned int bytes)
{
	uint32_t value;

	memset(data, 0, bytes);
	if (offset >= CONFIG) {
		mv_balloon_read_config(virtio->balloon, offset - CONFIG, data, bytes);
		return;
	}
	value = bytes == 4 ? get_register(virtio, (uint32_t)offset) : 0;
	memcpy(data, &value, bytes < 4 ? bytes : 4);
}

void virtio_write(struct virtio *virtio, uint64_t offset, const void *data, unsigned int bytes)
{
	uint32_t value;

	if (offset >= CONFIG) {
		mv_balloon_write_config(virtio->balloon, offset - CONFIG, data, bytes);
		return;
	}
	if (bytes != 4)
		return;
	memcpy(&value, data, 4);
	set_register(virtio, (uint32_t)offset, value);
}

void virtio_create(struct virtio *virtio, int vm, struct ram *ram, uint64_t features)
{
	const struct mv_balloon_config config = { .size = sizeof(config),
						  .memory = ram->memory,
						  .pager = ram->pager,
						  .features = features,
						  .ops = &balloon_ops,
						  .ctx = virtio };

	virtio->vm = vm;
	must(mv_balloon_create(&config, &virtio->balloon), "mv_balloon_create");
}

void virtio_destroy(struct virtio *virtio)
{
	mv_balloon_destroy(virtio->balloon);
}
