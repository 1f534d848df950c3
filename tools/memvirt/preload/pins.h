/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Pins around system calls whose buffers lie in guest memory.
 *
 * Direct I/O makes the kernel write to a page behind every protection: a page that is
 * evicted meanwhile would lose what was read into it. Whether a descriptor is open for
 * direct I/O is not asked: a pin costs less than finding out.
 */
#ifndef PRELOAD_PINS_H
#define PRELOAD_PINS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <sys/uio.h>

#define PINS_OWN 8

struct pin {
	uint64_t first_gpa;
	uint64_t last_gpa;
};

/** struct pins - what was pinned; @pin is @own, or allocated where that is too small */
struct pins {
	unsigned int count;
	unsigned int room;
	struct pin *pin;
	struct pin own[PINS_OWN];
};

static inline void pins_begin(struct pins *pins)
{
	pins->count = 0;
	pins->room = PINS_OWN;
	pins->pin = pins->own;
}

/**
 * pins_add() - pin what of a buffer lies in guest memory
 * @pins: begun; not moved in memory from then on
 * @buf:  the buffer
 * @len:  its length
 *
 * Where that is not possible the whole VM is held.
 *
 * Context: keeps errno.
 */
void pins_add(struct pins *pins, const void *buf, size_t len);

/** pins_add_vector() - the same for several; a bad @count adds nothing */
void pins_add_vector(struct pins *pins, const struct iovec *iov, long count);

/** pins_end() - unpin everything. Context: keeps errno. */
void pins_end(struct pins *pins);

/**
 * pins_take() - begin, and pin a buffer
 *
 * Not a pointer to const: a compiler then takes it that the buffer of a read is read here.
 *
 * Return: false where nothing is pinned, and nothing to end.
 */
bool pins_take(struct pins *pins, void *buf, size_t len);

/** pins_take_vector() - the same for several buffers */
bool pins_take_vector(struct pins *pins, const struct iovec *iov, int count);

/** pins_drop() - end, and hand a result on */
ssize_t pins_drop(struct pins *pins, ssize_t result);

#endif /* PRELOAD_PINS_H */
