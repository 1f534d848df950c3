/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The least that bringing pages back takes from user space: a bare handler that finds each
 * page's LZ4 block by its number, unpacks it and copies it in. No index, checksum or lock.
 */
#ifndef BARE_RESTORE_H
#define BARE_RESTORE_H

#include "bare_handler.h"

struct bare_restore {
	struct bare_handler handler;
	char *blocks;
	size_t *at; /* of each page's block, and the end of the last */
};

/* The range that handler.mem points to gets @count pages of @source, each when it is touched. */
void bare_restore_open(struct bare_restore *b, enum bench_memory memory,
		       const unsigned char *source, size_t count, unsigned int cpu);
void bare_restore_close(struct bare_restore *b);

#endif /* BARE_RESTORE_H */
