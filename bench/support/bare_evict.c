/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * See bare_evict.h. Runs are as long as the pager's own: a granule is unmapped at once, 64
 * neighbours are let go together.
 */
#include "bare_evict.h"

#include <fcntl.h>
#include <lz4.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

#define PAGE	4096
#define GRANULE 512 /* pages */
#define RUN	64  /* pages */
#define LOG_STEP ((size_t)256 << 10)

/* Pages that a thread evicts, and where it puts them. */
struct share {
	struct bare *bare;
	unsigned int number;
	size_t first, end;
	unsigned char *log;
	size_t logged;
	size_t populated;
	LZ4_stream_t state;
};

struct bare {
	enum bench_memory memory;
	int fd;
	unsigned char *pages; /* the guest's mapping */
	unsigned char *alias; /* through which they are read */
	size_t bytes;
	unsigned int threads;
	pthread_barrier_t begin;
	struct share share[BARE_EVICT_THREADS];
};

static void *map(size_t bytes, int flags, int fd)
{
	void *mem = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (mem == MAP_FAILED)
		bench_die("cannot map %zu bytes", bytes);
	madvise(mem, bytes, MADV_NOHUGEPAGE);
	return mem;
}

static void bare_open(struct bare *b, enum bench_memory memory, const unsigned char *source,
		      size_t count)
{
	memset(b, 0, sizeof(*b));
	b->memory = memory;
	b->bytes = count * PAGE;
	b->fd = -1;
	if (memory == BENCH_SHARED) {
		b->fd = memfd_create("bare-evict", MFD_CLOEXEC);
		if (b->fd < 0 || ftruncate(b->fd, (off_t)b->bytes))
			bench_die("no memfd of %zu bytes", b->bytes);
		b->pages = map(b->bytes, MAP_SHARED, b->fd);
		b->alias = map(b->bytes, MAP_SHARED, b->fd);
	} else {
		b->pages = b->alias = map(b->bytes, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	}
	memcpy(b->pages, source, b->bytes);
}

static void bare_close(struct bare *b)
{
	munmap(b->pages, b->bytes);
	if (b->memory != BENCH_SHARED)
		return;
	munmap(b->alias, b->bytes);
	close(b->fd);
}

static void append(struct share *s, const unsigned char *page)
{
	char packed[LZ4_COMPRESSBOUND(PAGE)];
	int size = LZ4_compress_fast_extState(&s->state, (const char *)page, packed, PAGE,
					      PAGE - RUN, 1);
	size_t length = size ? (size_t)size : PAGE;

	if (s->logged + length > s->populated) {
		if (madvise(s->log + s->populated, LOG_STEP, MADV_POPULATE_WRITE))
			bench_die("no memory for the log");
		s->populated += LOG_STEP;
	}
	memcpy(s->log + s->logged, size ? (const void *)packed : page, length);
	s->logged += length;
}

static void let_go(const struct bare *b, size_t first)
{
	const size_t bytes = (size_t)RUN * PAGE;
	int error;

	if (b->memory == BENCH_SHARED)
		error = fallocate(b->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  (off_t)(first * PAGE), (off_t)bytes);
	else
		error = madvise(b->pages + first * PAGE, bytes, MADV_DONTNEED);
	if (error)
		bench_die("pages cannot be let go");
}

/* Private pages would have to be moved away first; the limit spares itself that. */
static void unmap(const struct bare *b, size_t first)
{
	if (b->memory == BENCH_SHARED)
		madvise(b->pages + first * PAGE, (size_t)GRANULE * PAGE, MADV_DONTNEED);
}

static void *evict_share(void *ctx)
{
	struct share *s = ctx;
	struct bare *b = s->bare;

	bench_pin(s->number);
	pthread_barrier_wait(&b->begin);
	for (size_t page = s->first; page < s->end; page++) {
		if (page % GRANULE == 0)
			unmap(b, page);
		append(s, b->alias + page * PAGE);
		if (page % RUN == RUN - 1)
			let_go(b, page + 1 - RUN);
	}
	return NULL;
}

/* Threads evict whole granules. Return: nanoseconds from the first's begin to the last's end. */
static double evict_all(struct bare *b, size_t count)
{
	pthread_t thread[BARE_EVICT_THREADS];
	size_t each = count / GRANULE / b->threads * GRANULE;
	double start;

	pthread_barrier_init(&b->begin, NULL, b->threads + 1);
	for (unsigned int i = 0; i < b->threads; i++) {
		struct share *s = &b->share[i];

		s->bare = b;
		s->number = i;
		s->first = i * each;
		s->end = i + 1 == b->threads ? count : s->first + each;
		s->log = map(b->bytes + LOG_STEP, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		if (pthread_create(&thread[i], NULL, evict_share, s))
			bench_die("no thread");
	}
	pthread_barrier_wait(&b->begin);
	start = bench_now();
	for (unsigned int i = 0; i < b->threads; i++)
		pthread_join(thread[i], NULL);
	start = bench_now() - start;
	for (unsigned int i = 0; i < b->threads; i++)
		munmap(b->share[i].log, b->bytes + LOG_STEP);
	pthread_barrier_destroy(&b->begin);
	return start;
}

double bare_evict(enum bench_memory memory, const unsigned char *source, size_t count,
		  unsigned int threads)
{
	struct bare b;
	double took;

	bare_open(&b, memory, source, count);
	b.threads = threads;
	took = evict_all(&b, count);
	bare_close(&b);
	return took / (double)count;
}
