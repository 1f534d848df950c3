/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The statistics segment: how it is published, written and read.
 *
 * The writer keeps a copy of its own and publishes all of it in one go, word by word, so
 * that the sequence is odd for some tens of nanoseconds and never while numbers are being
 * collected. No fences, which ThreadSanitizer does not know: the order comes from release
 * stores of the words themselves.
 *
 * A reader uses pread() and not a mapping: a file cut short under it then is an error, not
 * a signal that ends the monitor.
 *
 * What does not belong here: what the numbers mean.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <memvirt/stats.h>

#define NUMBERS_OFFSET offsetof(struct mv_stats, pager_time)
#define NUMBERS	       ((sizeof(struct mv_stats) - NUMBERS_OFFSET) / sizeof(uint64_t))

/* A live writer is done in a moment, unless it lost its processor: some milliseconds. */
#define READ_TRIES  200
#define READ_NAP_NS 50000

struct mv_stats_writer {
	struct mv_stats next;	 /* what mv_stats_end() publishes */
	struct mv_stats *shared; /* the segment; only the writer's process stores to it */
	dev_t dev;
	ino_t ino;
	char path[];
};

/* --- creation --------------------------------------------------------------------------- */

static uint64_t monotonic_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static void fill_new(struct mv_stats *stats, const char *name)
{
	memset(stats, 0xff, sizeof(*stats)); /* MV_STATS_UNKNOWN, each of them */
	memset(stats->name, 0, sizeof(stats->name));
	memcpy(stats->name, name, strlen(name));
	stats->magic = MV_STATS_MAGIC;
	stats->version = MV_STATS_VERSION;
	stats->bytes = sizeof(*stats);
	stats->sequence = 0;
	stats->pid = (uint64_t)getpid();
	stats->start_time = monotonic_ns();
}

static int map_segment(struct mv_stats_writer *writer, int fd)
{
	struct stat st;
	int error;

	/* Not ftruncate(): on a full file system a hole would be a signal later on. */
	error = posix_fallocate(fd, 0, sizeof(struct mv_stats));
	if (error)
		return -error;
	if (fchmod(fd, 0644) || fstat(fd, &st))
		return -errno;

	void *mem = mmap(NULL, sizeof(struct mv_stats), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (mem == MAP_FAILED)
		return -errno;
	writer->shared = mem;
	writer->dev = st.st_dev;
	writer->ino = st.st_ino;
	return 0;
}

static void unmap_segment(struct mv_stats_writer *writer)
{
	munmap(writer->shared, sizeof(*writer->shared));
}

/* Nobody finds the file before the rename, and then it is whole. */
static int create_segment(struct mv_stats_writer *writer, char *scratch)
{
	int fd = mkostemp(scratch, O_CLOEXEC);
	int error;

	if (fd < 0)
		return -errno;
	error = map_segment(writer, fd);
	close(fd);
	if (!error) {
		*writer->shared = writer->next;
		if (!rename(scratch, writer->path))
			return 0;
		error = -errno;
		unmap_segment(writer);
	}
	unlink(scratch);
	return error;
}

int mv_stats_publish(const char *path, const char *name, struct mv_stats_writer **writer)
{
	static const char suffix[] = ".XXXXXX";
	size_t length = strlen(path);
	struct mv_stats_writer *made;
	int error;

	if (!*name || strlen(name) >= MV_STATS_NAME)
		return -EINVAL;
	made = calloc(1, sizeof(*made) + 2 * (length + 1) + sizeof(suffix));
	if (!made)
		return -ENOMEM;

	char *scratch = made->path + length + 1;

	memcpy(made->path, path, length + 1);
	memcpy(scratch, path, length);
	memcpy(scratch + length, suffix, sizeof(suffix));
	fill_new(&made->next, name);
	error = create_segment(made, scratch);
	if (error) {
		free(made);
		return error;
	}
	*writer = made;
	return 0;
}

/* --- writing ---------------------------------------------------------------------------- */

struct mv_stats *mv_stats_begin(struct mv_stats_writer *writer)
{
	return &writer->next;
}

void mv_stats_end(struct mv_stats_writer *writer)
{
	const uint64_t *from = &writer->next.pager_time;
	uint64_t *to = &writer->shared->pager_time;
	uint64_t *sequence = &writer->shared->sequence;

	writer->next.sequence += 2;
	__atomic_store_n(sequence, writer->next.sequence - 1, __ATOMIC_RELAXED);
	/*
	 * Each release carries the odd sequence along: who sees a new word, and then looks,
	 * sees at least that.
	 */
	for (unsigned int i = 0; i < NUMBERS; i++)
		__atomic_store_n(&to[i], from[i], __ATOMIC_RELEASE);
	/* Pairs with the reader's first look: who sees it even sees all words. */
	__atomic_store_n(sequence, writer->next.sequence, __ATOMIC_RELEASE);
}

void mv_stats_withdraw(struct mv_stats_writer *writer)
{
	struct stat st;

	if (!writer)
		return;
	/* Another may have published under the same path since: that one is not ours. */
	if (!stat(writer->path, &st) && st.st_dev == writer->dev && st.st_ino == writer->ino)
		unlink(writer->path);
	unmap_segment(writer);
	free(writer);
}

/* --- reading ---------------------------------------------------------------------------- */

/* The fields up to the sequence. */
struct header {
	uint64_t magic, version, bytes, sequence;
};

/*
 * Keeps reads by pread() in their order where the processor would not: each is a system
 * call to the compiler. (ThreadSanitizer knows no fence, and does not look inside either.)
 */
static void order_reads(void)
{
#if !defined(__SANITIZE_THREAD__)
	__atomic_thread_fence(__ATOMIC_ACQUIRE);
#endif
}

static int read_exactly(int fd, void *buf, size_t bytes, off_t offset)
{
	ssize_t got;

	do
		got = pread(fd, buf, bytes, offset);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	/* Shorter than it says: not a segment, or cut. */
	return (size_t)got == bytes ? 0 : -EPROTO;
}

static int check_header(const struct header *header)
{
	if (header->magic != MV_STATS_MAGIC || header->version != MV_STATS_VERSION)
		return -EPROTO;
	if (header->bytes < NUMBERS_OFFSET || header->bytes % sizeof(uint64_t))
		return -EPROTO;
	return 0;
}

/* What both the writer and we know; the rest stays unknown. */
static int read_fields(int fd, const struct header *header, struct mv_stats *stats)
{
	size_t known = sizeof(*stats);

	if (header->bytes < known)
		known = (size_t)header->bytes;
	memset(stats, 0xff, sizeof(*stats));
	return read_exactly(fd, stats, known, 0);
}

/* One try: -EAGAIN where the writer came in between. */
static int read_once(int fd, struct mv_stats *stats)
{
	struct header header;
	uint64_t after;
	int error = read_exactly(fd, &header, sizeof(header), 0);

	if (error)
		return error;
	error = check_header(&header);
	if (error)
		return error;
	if (header.sequence & 1)
		return -EAGAIN;
	order_reads();
	error = read_fields(fd, &header, stats);
	if (error)
		return error;
	order_reads();
	error = read_exactly(fd, &after, sizeof(after), offsetof(struct mv_stats, sequence));
	if (error)
		return error;
	return after == header.sequence ? 0 : -EAGAIN;
}

static int read_patiently(int fd, struct mv_stats *stats)
{
	const struct timespec nap = { .tv_nsec = READ_NAP_NS };
	int error = -EAGAIN;

	for (unsigned int i = 0; i < READ_TRIES && error == -EAGAIN; i++) {
		if (i > READ_TRIES / 2)
			nanosleep(&nap, NULL);
		else if (i)
			sched_yield();
		error = read_once(fd, stats);
	}
	if (!error && !memchr(stats->name, 0, sizeof(stats->name)))
		return -EPROTO;
	return error;
}

int mv_stats_read_fd(int fd, struct mv_stats *stats)
{
	struct mv_stats copy;
	struct stat st;
	int error;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISREG(st.st_mode))
		return -EPROTO;
	error = read_patiently(fd, &copy);
	if (!error)
		*stats = copy;
	return error;
}

int mv_stats_read(const char *path, struct mv_stats *stats)
{
	/* Whatever lies there must not make us wait, or follow a terminal. */
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	int error;

	if (fd < 0)
		return -errno;
	error = mv_stats_read_fd(fd, stats);
	close(fd);
	return error;
}
