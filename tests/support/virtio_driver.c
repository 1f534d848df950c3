// SPDX-License-Identifier: BSD-2-Clause
/* See virtio_driver.h. Shares no code with the device: the rings are filled as the manual says. */
#include <assert.h>
#include <string.h>

#include "support/virtio_driver.h"

#define DRIVER_AREA 0x2000 /* from one ring to the next */

struct vring_desc *driver_descs(struct virtio_driver *driver)
{
	return (void *)(driver->ram + driver->base);
}

struct vring_packed_desc *driver_ring(struct virtio_driver *driver)
{
	return (void *)(driver->ram + driver->base);
}

struct vring_avail *driver_avail(struct virtio_driver *driver)
{
	return (void *)(driver->ram + driver->base + DRIVER_AREA);
}

struct vring_packed_desc_event *driver_event(struct virtio_driver *driver)
{
	return (void *)(driver->ram + driver->base + DRIVER_AREA);
}

static struct vring_used *used_ring(struct virtio_driver *driver)
{
	return (void *)(driver->ram + driver->base + 2 * DRIVER_AREA);
}

void driver_start(struct virtio_driver *driver, unsigned char *ram, uint64_t base,
		  unsigned int entries, bool packed, bool event_index)
{
	assert(entries <= DRIVER_ENTRIES_MAX);
	*driver = (struct virtio_driver){
		.ram = ram,
		.base = base,
		.table = base + 3 * DRIVER_AREA,
		.entries = entries,
		.packed = packed,
		.event_index = event_index,
		.offer_wrap = true,
		.used_wrap = true,
	};
	memset(ram + base, 0, 3 * DRIVER_AREA);
}

struct mv_virtqueue_config driver_config(const struct virtio_driver *driver,
					 struct mv_memory *memory)
{
	return (struct mv_virtqueue_config){
		.size = sizeof(struct mv_virtqueue_config),
		.memory = memory,
		.entries = driver->entries,
		.packed = driver->packed,
		.indirect = true,
		.event_index = driver->event_index,
		.desc_gpa = driver->base,
		.driver_gpa = driver->base + DRIVER_AREA,
		.device_gpa = driver->base + 2 * DRIVER_AREA,
	};
}

static uint16_t write_flag(const struct mv_virtqueue_segment *segment)
{
	return segment->writable ? VRING_DESC_F_WRITE : 0;
}

static void fill_split(struct vring_desc *table, uint16_t first, unsigned int entries,
		       const struct mv_virtqueue_segment *segments, unsigned int count)
{
	for (unsigned int i = 0; i < count; i++) {
		struct vring_desc *desc = &table[(first + i) % entries];

		desc->addr = segments[i].gpa;
		desc->len = segments[i].len;
		desc->flags = write_flag(&segments[i]) | (i + 1 < count ? VRING_DESC_F_NEXT : 0);
		desc->next = (uint16_t)((first + i + 1) % entries);
	}
}

static uint16_t offer_split(struct virtio_driver *driver,
			    const struct mv_virtqueue_segment *segments, unsigned int count,
			    bool indirect)
{
	struct vring_avail *avail = driver_avail(driver);
	uint16_t head = driver->next_desc;

	if (indirect) {
		struct vring_desc *desc = &driver_descs(driver)[head];

		fill_split((void *)(driver->ram + driver->table), 0, count, segments, count);
		*desc = (struct vring_desc){ driver->table, count * (uint32_t)sizeof(*desc),
					     VRING_DESC_F_INDIRECT, 0 };
	} else {
		fill_split(driver_descs(driver), head, driver->entries, segments, count);
	}
	driver->next_desc = (uint16_t)((head + (indirect ? 1 : count)) % driver->entries);
	avail->ring[driver->next_offer++ % driver->entries] = head;
	__atomic_store_n(&avail->idx, driver->next_offer, __ATOMIC_SEQ_CST);
	return head;
}

static void step(const struct virtio_driver *driver, uint16_t *at, bool *wrap, unsigned int slots)
{
	while (slots--) {
		if (++*at == driver->entries) {
			*at = 0;
			*wrap = !*wrap;
		}
	}
}

static uint16_t offered_flags(const struct virtio_driver *driver)
{
	return driver->offer_wrap ? 1u << VRING_PACKED_DESC_F_AVAIL
				  : 1u << VRING_PACKED_DESC_F_USED;
}

static uint16_t offer_packed(struct virtio_driver *driver,
			     const struct mv_virtqueue_segment *segments, unsigned int count,
			     bool indirect)
{
	struct vring_packed_desc *ring = driver_ring(driver);
	uint16_t id = driver->next_offer, first = driver->next_offer, head = 0;

	driver->slots[id] = (uint16_t)(indirect ? 1 : count);
	if (indirect) {
		struct vring_packed_desc *table = (void *)(driver->ram + driver->table);

		for (unsigned int i = 0; i < count; i++)
			table[i] = (struct vring_packed_desc){ segments[i].gpa, segments[i].len, 0,
							       write_flag(&segments[i]) };
		ring[first].addr = driver->table;
		ring[first].len = count * (uint32_t)sizeof(*table);
		ring[first].id = id;
		head = offered_flags(driver) | VRING_DESC_F_INDIRECT;
		count = 1;
	} else {
		bool wrap = driver->offer_wrap;
		uint16_t at = first;

		for (unsigned int i = 0; i < count; i++) {
			uint16_t flags = write_flag(&segments[i]) |
					 (i + 1 < count ? VRING_DESC_F_NEXT : 0) |
					 (wrap ? 1u << VRING_PACKED_DESC_F_AVAIL
					       : 1u << VRING_PACKED_DESC_F_USED);

			ring[at].addr = segments[i].gpa;
			ring[at].len = segments[i].len;
			ring[at].id = id;
			if (i)
				ring[at].flags = flags;
			else
				head = flags;
			step(driver, &at, &wrap, 1);
		}
	}
	/* The first one's flags last: they offer the whole chain. */
	__atomic_store_n(&ring[first].flags, head, __ATOMIC_SEQ_CST);
	step(driver, &driver->next_offer, &driver->offer_wrap, count);
	return id;
}

uint16_t driver_offer(struct virtio_driver *driver, const struct mv_virtqueue_segment *segments,
		      unsigned int count, bool indirect)
{
	return driver->packed ? offer_packed(driver, segments, count, indirect)
			      : offer_split(driver, segments, count, indirect);
}

static bool used_packed(struct virtio_driver *driver, uint16_t *id, uint32_t *written)
{
	struct vring_packed_desc *desc = &driver_ring(driver)[driver->next_used];
	uint16_t flags = __atomic_load_n(&desc->flags, __ATOMIC_SEQ_CST);

	if (!!(flags & 1u << VRING_PACKED_DESC_F_USED) != driver->used_wrap ||
	    !!(flags & 1u << VRING_PACKED_DESC_F_AVAIL) != driver->used_wrap)
		return false;
	*id = desc->id;
	*written = desc->len;
	step(driver, &driver->next_used, &driver->used_wrap, driver->slots[desc->id]);
	return true;
}

bool driver_used(struct virtio_driver *driver, uint16_t *id, uint32_t *written)
{
	struct vring_used *used = used_ring(driver);

	if (driver->packed)
		return used_packed(driver, id, written);
	if (__atomic_load_n(&used->idx, __ATOMIC_SEQ_CST) == driver->next_used)
		return false;
	*id = (uint16_t)used->ring[driver->next_used % driver->entries].id;
	*written = used->ring[driver->next_used % driver->entries].len;
	driver->next_used++;
	return true;
}
