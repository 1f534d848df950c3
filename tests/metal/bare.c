/* SPDX-License-Identifier: BSD-2-Clause */
#include "bare.h"

#include <stddef.h>

#include "console.h"
#include "cpu.h"
#include "layout.h"

void *memcpy(void *to, const void *from, size_t bytes);
void *memset(void *to, int value, size_t bytes);
int memcmp(const void *a, const void *b, size_t bytes);
void bare_exception(uint64_t vector, const uint64_t *frame) __attribute__((noreturn));

/*
 * Assembler, so that the compiler does not find a memcpy in them and call it. By words, for
 * Bochs counts each round of a repeated instruction as one.
 */
void *memcpy(void *to, const void *from, size_t bytes)
{
	void *start = to;
	size_t words = bytes / 8, rest = bytes % 8;

	__asm__ volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
	__asm__ volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(rest) : : "memory");
	return start;
}

void *memset(void *to, int value, size_t bytes)
{
	void *start = to;
	uint64_t word = (uint8_t)value * 0x0101010101010101;
	size_t words = bytes / 8, rest = bytes % 8;

	__asm__ volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(word) : "memory");
	__asm__ volatile("rep stosb" : "+D"(to), "+c"(rest) : "a"(word) : "memory");
	return start;
}

int memcmp(const void *a, const void *b, size_t bytes)
{
	const unsigned char *x = a, *y = b;

	for (size_t i = 0; i < bytes; i++)
		if (x[i] != y[i])
			return x[i] - y[i];
	return 0;
}

/* --- platform ------------------------------------------------------------------------------ */

#define PAGE_BYTES 4096u
#define PAGES	   ((TABLE_PAGES_END - TABLE_PAGES) / PAGE_BYTES)

static struct {
	uint64_t heap_next;
	uint64_t bytes;
	uint64_t pages;
	uint16_t free[PAGES]; /* a stack of page numbers */
	uint64_t free_count;
	uint64_t touched; /* pages ever given out since the last bare_reset() */
} bare;

void bare_reset(void)
{
	/* A world is the same whichever came before. The first pages are given out first. */
	memset((void *)TABLE_PAGES, 0, bare.touched * PAGE_BYTES);
	bare.touched = 0;
	bare.heap_next = HEAP;
	bare.bytes = bare.pages = 0;
	bare.free_count = PAGES;
	for (uint64_t i = 0; i < PAGES; i++)
		bare.free[i] = (uint16_t)(PAGES - 1 - i);
}

uint64_t bare_pages_in_use(void)
{
	return bare.pages;
}

uint64_t bare_bytes_in_use(void)
{
	return bare.bytes;
}

/* What is freed is not used again before bare_reset(): a world is small. */
static void *heap_alloc(void *ctx, size_t bytes, int node)
{
	uint64_t align = bytes % PAGE_BYTES ? 64 : PAGE_BYTES;
	uint64_t start = (bare.heap_next + align - 1) & ~(align - 1);

	if (bytes > HEAP_END - start)
		return NULL;
	bare.heap_next = start + bytes;
	bare.bytes += bytes;
	return memset((void *)start, 0, bytes);
}

static void heap_free(void *ctx, void *mem, size_t bytes)
{
	if (mem)
		bare.bytes -= bytes;
}

static void *page_alloc(void *ctx, int node)
{
	if (!bare.free_count)
		return NULL;
	bare.pages++;
	if (PAGES - bare.free_count >= bare.touched)
		bare.touched = PAGES - bare.free_count + 1;
	/* The content is nobody's promise: garbage shows who relies on it. */
	return memset((void *)(TABLE_PAGES + bare.free[--bare.free_count] * (uint64_t)PAGE_BYTES),
		      0xa5, PAGE_BYTES);
}

static void page_free(void *ctx, void *page)
{
	bare.pages--;
	bare.free[bare.free_count++] = (uint16_t)(((uint64_t)page - TABLE_PAGES) / PAGE_BYTES);
}

static void no_readers(void *ctx)
{
}

static void relax(void *ctx, unsigned int turns)
{
	give_up("the core waits for another thread, and there is none");
}

static void log_line(void *ctx, enum mv_log_level level, const char *line)
{
	say("# core: %s", line);
}

static const struct mv_platform_ops bare_ops = {
	.alloc = heap_alloc,
	.free = heap_free,
	.read_enter = no_readers,
	.read_leave = no_readers,
	.wait_readers = no_readers,
	.relax = relax,
	.log = log_line,
	.table_alloc = page_alloc,
	.table_free = page_free,
};

const struct mv_platform bare_platform = { .ops = &bare_ops };

/* --- exceptions ---------------------------------------------------------------------------- */

#define VECTORS 32

struct gate {
	uint16_t offset_low, selector;
	uint16_t type;
	uint16_t offset_mid;
	uint32_t offset_high, reserved;
};

struct table_register {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

extern const char bare_exception_entries[]; /* switch.S: 16 bytes each */
static struct gate idt[VECTORS];
static uint64_t gdt[] = {
	0,
	0x00af9b000000ffff, /* SELECTOR_CODE64 */
	0x00cf93000000ffff, /* SELECTOR_DATA */
	0x00cf9b000000ffff, /* SELECTOR_CODE32 */
	0,		    /* SELECTOR_TSS: never loaded but by a VM exit, which does not look */
	0,
};

uint64_t bare_gdt_base(void)
{
	return (uint64_t)gdt;
}

uint64_t bare_idt_base(void)
{
	return (uint64_t)idt;
}

/* @frame: error code, RIP, … as an exception pushes them. */
void bare_exception(uint64_t vector, const uint64_t *frame)
{
	give_up("host exception %u, error code %x, rip %x, cr2 %x", vector, frame[0], frame[1],
		cr2_read());
}

void bare_catch_exceptions(void)
{
	struct table_register gdtr = { sizeof(gdt) - 1, (uint64_t)gdt };
	struct table_register idtr = { sizeof(idt) - 1, (uint64_t)idt };

	for (unsigned int i = 0; i < VECTORS; i++) {
		uint64_t entry = (uint64_t)bare_exception_entries + 16 * i;

		idt[i] = (struct gate){ (uint16_t)entry,	 SELECTOR_CODE64,	  0x8e00,
					(uint16_t)(entry >> 16), (uint32_t)(entry >> 32), 0 };
	}
	__asm__ volatile("lgdt %0" : : "m"(gdtr));
	__asm__ volatile("lidt %0" : : "m"(idtr));
}
