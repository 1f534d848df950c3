/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What the core asks of the world it runs in: memory for its own records, read
 * sections, patience and a place to say something. A Linux process uses
 * mv_platform_linux(); bare metal brings its own table.
 *
 * Nothing here knows about guest pages.
 */
#ifndef MEMVIRT_PLATFORM_H
#define MEMVIRT_PLATFORM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

/** enum mv_log_level - how bad it is; the order is the order of severity. */
enum mv_log_level {
	MV_LOG_ERROR,
	MV_LOG_WARNING,
	MV_LOG_INFO,
	MV_LOG_DEBUG,
};

/**
 * struct mv_platform_ops - the operations the core calls
 * @alloc:        zeroed memory of @bytes bytes, aligned to 64, and to 4096 where @bytes is
 *                a multiple of it; NUMA node @node, or any where it is negative. May sleep;
 *                NULL where there is none. The core owns it until @free.
 * @free:         give back what @alloc returned; @bytes as then. Takes NULL. Cannot fail.
 * @read_enter:   open a read section. Nests. Takes no lock, never sleeps.
 * @read_leave:   close it.
 * @wait_readers: return when every read section that was open at the call has closed.
 *                Sleeps; never called inside a read section.
 * @relax:        called in a loop that waits for another thread, with the number of turns
 *                so far: pause the processor, yield, or sleep a little.
 * @log:          one line, no newline at its end. May be NULL. Must not call the library.
 * @table_alloc:  a page of 4096 bytes for a table, its content whatever, that can be reached at
 *                its physical address plus @direct_map of struct mv_platform; NUMA node as in
 *                @alloc. NULL where there is none. May be NULL where no tables are made. A page
 *                whose address the table's format or width cannot say is given back unused.
 *                May sleep; never called inside a read section.
 * @table_free:   give it back. Cannot fail.
 *
 * All may be called by several threads at once.
 */
struct mv_platform_ops {
	void *(*alloc)(void *ctx, size_t bytes, int node);
	void (*free)(void *ctx, void *mem, size_t bytes);
	void (*read_enter)(void *ctx);
	void (*read_leave)(void *ctx);
	void (*wait_readers)(void *ctx);
	void (*relax)(void *ctx, unsigned int turns);
	void (*log)(void *ctx, enum mv_log_level level, const char *line);
	void *(*table_alloc)(void *ctx, int node);
	void (*table_free)(void *ctx, void *page);
};

/**
 * struct mv_platform - operations and what they are called with
 * @ops:        see above
 * @ctx:        for each of them
 * @direct_map: where this program sees physical address 0: physical address plus this is the
 *              pointer, for every table page. A number rather than an operation, because each
 *              step of each walk needs it. A process has no physical addresses and leaves it 0:
 *              tables then hold pointers.
 */
struct mv_platform {
	const struct mv_platform_ops *ops;
	void *ctx;
	uintptr_t direct_map;
};

/**
 * mv_platform_linux() - the platform of a Linux process
 *
 * Memory by mmap and malloc, placed by libnuma; table pages from the lowest addresses that are
 * free, for tables then hold pointers, and 32-bit ones small pointers; read sections by liburcu's bulletproof
 * flavour, which needs no registration of threads; the log goes to stderr.
 *
 * Context: any thread.
 * Return: a constant that lives as long as the process.
 */
const struct mv_platform *mv_platform_linux(void);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif /* MEMVIRT_PLATFORM_H */
