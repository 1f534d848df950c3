/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * libaio's completion ring; see aio_ring.h. The layout of the ring is that of the kernel's
 * fs/aio.c, and known to user space since libaio 0.3.110: its magic number says that it
 * still holds.
 */
#undef _FORTIFY_SOURCE
#include "memvirt/preload/aio_ring.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "memvirt/preload/pins.h"
#include "memvirt/preload/preload.h"
#include "memvirt/preload/real.h"

#define RING_MAGIC   0xa10a10a1
#define FLIGHT_LISTS 64

struct ring {
	uint32_t id;
	uint32_t nr;
	uint32_t head;
	uint32_t tail;
	uint32_t magic;
	uint32_t compat_features;
	uint32_t incompat_features;
	uint32_t header_length;
	struct io_event events[];
};

/*
 * struct flight - the requests under way that share one iocb
 *
 * A VMM may use an iocb again, even in one submission; which of them is done first cannot
 * be told, so their pins fall together.
 */
struct flight {
	const struct iocb *iocb;
	unsigned int under_way;
	struct pins pins;
	struct flight *next;
};

/* struct aio_context - one io_context_t. Under its lock: everything but @next. */
struct aio_context {
	pthread_mutex_t lock;
	aio_context_t id; /* 0: destroyed, to be used again */
	uint32_t seen;	  /* the ring's tail at the last look */
	unsigned int flights;
	struct flight *list[FLIGHT_LISTS];
	struct aio_context *next;
};

static struct flight **flight_place(struct aio_context *context, const struct iocb *iocb)
{
	struct flight **place = &context->list[((uintptr_t)iocb >> 6) % FLIGHT_LISTS];

	while (*place && (*place)->iocb != iocb)
		place = &(*place)->next;
	return place;
}

static void land(struct aio_context *context, const struct iocb *iocb)
{
	struct flight **place = flight_place(context, iocb), *flight = *place;

	if (!flight || --flight->under_way)
		return;
	*place = flight->next;
	pins_end(&flight->pins);
	free(flight);
	context->flights--;
}

static void land_all(struct aio_context *context)
{
	for (unsigned int i = 0; i < FLIGHT_LISTS; i++)
		while (context->list[i]) {
			context->list[i]->under_way = 1;
			land(context, context->list[i]->iocb);
		}
}

static bool ring_known(const struct ring *ring)
{
	return ring->magic == RING_MAGIC && !ring->incompat_features && ring->nr &&
	       ring->header_length == sizeof(*ring);
}

/* Unpin what was completed since the last look. */
static void look(struct aio_context *context)
{
	const struct ring *ring = (const struct ring *)context->id;
	/* Acquire: the kernel writes entries before the tail. */
	uint32_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE) % ring->nr;

	for (; context->seen != tail; context->seen = (context->seen + 1) % ring->nr)
		if (context->flights)
			land(context,
			     (const struct iocb *)(uintptr_t)ring->events[context->seen].obj);
}

static struct aio_context *find(aio_context_t id)
{
	struct aio_context *context = __atomic_load_n(&preload.aio.contexts, __ATOMIC_ACQUIRE);

	while (context && __atomic_load_n(&context->id, __ATOMIC_ACQUIRE) != id)
		context = context->next;
	return context;
}

static struct aio_context *make(aio_context_t id)
{
	struct aio_context *context;

	pthread_mutex_lock(&preload.aio.lock);
	context = find(id);
	if (!context)
		context = find(0);
	if (!context && (context = calloc(1, sizeof(*context)))) {
		pthread_mutex_init(&context->lock, NULL);
		context->next = preload.aio.contexts;
		__atomic_store_n(&preload.aio.contexts, context, __ATOMIC_RELEASE);
	}
	if (context && context->id != id) {
		context->seen = ((const struct ring *)id)->tail % ((const struct ring *)id)->nr;
		__atomic_store_n(&context->id, id, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&preload.aio.lock);
	return context;
}

/* Locked; NULL where the context cannot be followed, and the whole VM is held instead. */
static struct aio_context *get(aio_context_t id)
{
	struct aio_context *context = find(id);

	if (!context && !ring_known((const struct ring *)id)) {
		engine_hold(MV_PAGER_HOLD_DMA, "the VMM uses native aio, and this kernel's ring "
					       "is not known");
		return NULL;
	}
	if (!context)
		context = make(id);
	if (context)
		pthread_mutex_lock(&context->lock);
	else
		engine_hold(MV_PAGER_HOLD_DMA, "no memory to keep record of direct I/O");
	return context;
}

static void pin_request(struct pins *pins, const struct iocb *iocb)
{
	const void *buf = (const void *)(uintptr_t)iocb->aio_buf;

	switch (iocb->aio_lio_opcode) {
	case IOCB_CMD_PREAD:
	case IOCB_CMD_PWRITE:
		pins_add(pins, buf, iocb->aio_nbytes);
		break;
	case IOCB_CMD_PREADV:
	case IOCB_CMD_PWRITEV:
		pins_add_vector(pins, buf, (long)iocb->aio_nbytes);
		break;
	case IOCB_CMD_FSYNC:
	case IOCB_CMD_FDSYNC:
	case IOCB_CMD_POLL:
	case IOCB_CMD_NOOP:
		break;
	default:
		engine_hold(MV_PAGER_HOLD_DMA, "the VMM uses a native aio request that memvirt "
					       "does not know");
	}
}

static struct flight *new_flight(struct aio_context *context, const struct iocb *iocb)
{
	struct flight *flight = malloc(sizeof(*flight));

	if (!flight) {
		engine_hold(MV_PAGER_HOLD_DMA, "no memory to keep record of direct I/O");
		return NULL;
	}
	flight->iocb = iocb;
	flight->under_way = 0;
	flight->next = NULL;
	pins_begin(&flight->pins);
	context->flights++;
	return flight;
}

static void take_off(struct aio_context *context, const struct iocb *iocb)
{
	struct flight **place = flight_place(context, iocb);

	if (!*place)
		*place = new_flight(context, iocb);
	if (*place) {
		pin_request(&(*place)->pins, iocb);
		(*place)->under_way++;
	}
}

static long call_submit(aio_context_t id, long count, struct iocb **iocbs)
{
	int saved = errno;
	long done = real.syscall(SYS_io_submit, id, count, iocbs);

	if (done < 0)
		done = -errno;
	errno = saved;
	return done;
}

long aio_submit(aio_context_t id, long count, struct iocb **iocbs)
{
	struct aio_context *context;
	long done;

	if (!preload_found() || !id || count <= 0)
		return call_submit(id, count, iocbs);
	context = get(id);
	if (!context)
		return call_submit(id, count, iocbs);
	look(context);
	for (long i = 0; i < count; i++)
		take_off(context, iocbs[i]);
	done = call_submit(id, count, iocbs);
	for (long i = done < 0 ? 0 : done; i < count; i++)
		land(context, iocbs[i]);
	pthread_mutex_unlock(&context->lock);
	return done;
}

static long call_destroy(aio_context_t id)
{
	int saved = errno;
	long result = real.syscall(SYS_io_destroy, id);

	if (result < 0)
		result = -errno;
	errno = saved;
	return result;
}

long aio_destroy(aio_context_t id)
{
	struct aio_context *context = preload_found() && id ? find(id) : NULL;
	long result;

	if (!context)
		return call_destroy(id);
	/* The lock keeps others from looking into a ring that goes away. */
	pthread_mutex_lock(&context->lock);
	result = call_destroy(id);
	if (result == 0) {
		/* The kernel has waited for every request. */
		land_all(context);
		__atomic_store_n(&context->id, 0, __ATOMIC_RELEASE);
	}
	pthread_mutex_unlock(&context->lock);
	return result;
}

void aio_reap(struct aio *aio)
{
	struct aio_context *context = __atomic_load_n(&aio->contexts, __ATOMIC_ACQUIRE);

	for (; context; context = context->next) {
		if (pthread_mutex_trylock(&context->lock))
			continue;
		if (context->id && context->flights)
			look(context);
		pthread_mutex_unlock(&context->lock);
	}
}
