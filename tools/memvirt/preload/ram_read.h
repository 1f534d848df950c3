/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory for those who look at it from outside (read-memory): every page's content
 * wherever it is, without giving a page to what has none.
 */
#ifndef PRELOAD_RAM_READ_H
#define PRELOAD_RAM_READ_H

#include <stddef.h>
#include <stdint.h>

/**
 * ram_read() - copy guest memory
 * @hva:   first byte, as this process sees it; any alignment
 * @len:   bytes
 * @bytes: set on success
 *
 * A page that is stored is brought back. One that has no content reads as zeros and stays
 * without: no hole of a file is filled, no zero page mapped.
 *
 * Context: any thread but those that serve the pager; takes the change lock; sleeps.
 * Return: 0; -EFAULT where a byte is not guest memory; -EIO where a page is lost; -errno of
 * the file behind it.
 */
int ram_read(uint64_t hva, size_t len, void *bytes);

#endif /* PRELOAD_RAM_READ_H */
