/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pins around system calls; see pins.h.
 */
#include "memvirt/preload/pins.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "memvirt/preload/preload.h"

static bool make_room(struct pins *pins)
{
	unsigned int room = pins->room * 4;
	struct pin *pin;

	if (pins->count < pins->room)
		return true;
	pin = malloc(room * sizeof(*pin));
	if (!pin)
		return false;
	memcpy(pin, pins->pin, pins->count * sizeof(*pin));
	if (pins->pin != pins->own)
		free(pins->pin);
	pins->pin = pin;
	pins->room = room;
	return true;
}

static void add_hit(struct pins *pins, const struct range *hit)
{
	struct pin pin = { hit->gpa, hit->gpa + (hit->last - hit->first) };
	int error;

	if (hit->gpa == RANGE_NO_GPA)
		return;
	if (!make_room(pins)) {
		engine_hold(MV_PAGER_HOLD_DMA, "no memory to keep record of direct I/O");
		return;
	}
	error = mv_memory_pin(engine_memory(&preload.engine), pin.first_gpa, pin.last_gpa);
	if (error == -EOVERFLOW)
		engine_hold(MV_PAGER_HOLD_DMA, "a page has more direct I/O under way than can be "
					       "counted");
	if (!error)
		pins->pin[pins->count++] = pin;
}

void pins_add(struct pins *pins, const void *buf, size_t len)
{
	struct range hit;
	int saved = errno;

	if (!preload_touches(buf, len))
		return;
	preload_enter();
	while (ranges_next(&preload.ranges, buf, len, &hit)) {
		add_hit(pins, &hit);
		if (!ranges_after(&hit, &buf, &len))
			break;
	}
	preload_leave();
	errno = saved;
}

void pins_add_vector(struct pins *pins, const struct iovec *iov, long count)
{
	if (count > IOV_MAX)
		return;
	for (long i = 0; i < count; i++)
		pins_add(pins, iov[i].iov_base, iov[i].iov_len);
}

void pins_end(struct pins *pins)
{
	int saved = errno;

	if (!pins->count)
		return;
	preload_enter();
	for (unsigned int i = 0; i < pins->count; i++)
		mv_memory_unpin(engine_memory(&preload.engine), pins->pin[i].first_gpa,
				pins->pin[i].last_gpa);
	if (pins->pin != pins->own)
		free(pins->pin);
	pins_begin(pins);
	preload_leave();
	errno = saved;
}

bool pins_take(struct pins *pins, void *buf, size_t len)
{
	if (!preload_touches(buf, len))
		return false;
	pins_begin(pins);
	pins_add(pins, buf, len);
	return pins->count;
}

bool pins_take_vector(struct pins *pins, const struct iovec *iov, int count)
{
	if (!preload_found())
		return false;
	pins_begin(pins);
	pins_add_vector(pins, iov, count);
	return pins->count;
}

ssize_t pins_drop(struct pins *pins, ssize_t result)
{
	pins_end(pins);
	return result;
}
