/* SPDX-License-Identifier: BSD-2-Clause */
/* See bare_restore.h. */
#include "bare_restore.h"

#include <lz4.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"

#define PAGE 4096

/* A block as long as a page is the page. */
static void unpack(void *ctx, uint64_t page, void *content)
{
	const struct bare_restore *b = ctx;
	const char *block = b->blocks + b->at[page];
	size_t length = b->at[page + 1] - b->at[page];

	if (length == PAGE)
		memcpy(content, block, PAGE);
	else if (LZ4_decompress_safe(block, content, (int)length, PAGE) != PAGE)
		bench_die("a block does not unpack");
}

static void pack(struct bare_restore *b, const unsigned char *source, size_t count)
{
	size_t end = 0;

	for (size_t i = 0; i < count; i++) {
		const char *page = (const char *)source + i * PAGE;
		int length = LZ4_compress_default(page, b->blocks + end, PAGE, PAGE - 1);

		if (!length)
			memcpy(b->blocks + end, page, PAGE);
		b->at[i] = end;
		end += length ? (size_t)length : PAGE;
	}
	b->at[count] = end;
}

void bare_restore_open(struct bare_restore *b, enum bench_memory memory,
		       const unsigned char *source, size_t count, unsigned int cpu)
{
	b->blocks = malloc(count * PAGE);
	b->at = malloc((count + 1) * sizeof(*b->at));
	if (!b->blocks || !b->at)
		bench_die("no memory for %zu pages", count);
	pack(b, source, count);
	b->handler = (struct bare_handler){ .fill = unpack, .ctx = b, .cpu = cpu };
	bare_handler_open(&b->handler, memory, count);
}

void bare_restore_close(struct bare_restore *b)
{
	bare_handler_close(&b->handler);
	free(b->blocks);
	free(b->at);
}
