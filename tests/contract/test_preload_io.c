/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Direct I/O into guest memory under the preload library: nothing is lost to an eviction
 * while the kernel writes, pages are pinned as long as that lasts and no longer, and where
 * pins are not possible eviction stops visibly.
 */
#include "support/testing.h"
#include "support/fake_vmm.h"

#include <aio.h>
#include <fcntl.h>
#include <liburing.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define LIMIT	   "4194304"
#define RAM	   (32 * MIB)
#define DISK	   (16 * MIB)
#define PAGE	   4096UL
#define BLOCK	   65536UL
#define AIO_EVENTS 32

static char *ram;
static int disk;

/* A full guest, and a disk that holds what the first half of its memory does. */
static void begin(void)
{
	int fd;

	ram = vmm_full_memfd(RAM, &fd);
	disk = vmm_direct_file(DISK);
	for (size_t at = 0; at < DISK; at += BLOCK)
		insist(pwrite(disk, ram + at, BLOCK, (off_t)at) == BLOCK);
	insist(vmm_stat("pinned-bytes") == 0);
}

/* The second half gets what the disk has; a scratch range is read and dirtied meanwhile. */
static void check_second_half(void)
{
	insist(vmm_holds_content(ram + DISK, DISK, 1));
	insist(vmm_holds_content(ram, DISK, 1));
	vmm_wait_at_most("pinned-bytes", 0);
	vmm_wait_at_most("resident-bytes", 4 * MIB);
	insist(vmm_holds_content(ram + DISK, DISK, 1));
	insist(!vmm_held(""));
}

/* --- calls that wait ------------------------------------------------------------------------ */

static void read_pread(void)
{
	begin();
	for (size_t at = 0; at < DISK; at += BLOCK)
		insist(pread(disk, ram + DISK + at, BLOCK, (off_t)at) == BLOCK);
	check_second_half();
}

static void read_plain(void)
{
	begin();
	insist(lseek(disk, 0, SEEK_SET) == 0);
	for (size_t at = 0; at < DISK; at += BLOCK)
		insist(read(disk, ram + DISK + at, BLOCK) == BLOCK);
	check_second_half();
}

/* Scattered as a guest's requests are: more pieces than a list of pins has room for. */
static void fill_vector(struct iovec *iov, size_t at)
{
	for (size_t i = 0; i < BLOCK / PAGE; i++) {
		iov[i].iov_base = ram + DISK + at + i * PAGE;
		iov[i].iov_len = PAGE;
	}
}

static void read_vectors(void)
{
	struct iovec iov[BLOCK / PAGE];

	begin();
	for (size_t at = 0; at < DISK; at += BLOCK) {
		fill_vector(iov, at);
		insist(preadv(disk, iov, BLOCK / PAGE, (off_t)at) == BLOCK);
	}
	check_second_half();
	memset(ram + DISK, 0, DISK);
	insist(lseek(disk, 0, SEEK_SET) == 0);
	for (size_t at = 0; at < DISK; at += 2 * BLOCK) {
		fill_vector(iov, at);
		insist(preadv2(disk, iov, BLOCK / PAGE, (off_t)at, 0) == BLOCK);
		insist(lseek(disk, (off_t)(at + BLOCK), SEEK_SET) == (off_t)(at + BLOCK));
		fill_vector(iov, at + BLOCK);
		insist(readv(disk, iov, BLOCK / PAGE) == BLOCK);
	}
	check_second_half();
}

static void write_all(void)
{
	struct iovec iov[BLOCK / PAGE];
	char *copy = aligned_alloc(PAGE, DISK);

	begin();
	vmm_fill(ram + DISK, DISK, 4);
	vmm_wait_at_most("resident-bytes", 4 * MIB);
	for (size_t at = 0; at < DISK; at += 2 * BLOCK) {
		insist(pwrite(disk, ram + DISK + at, BLOCK, (off_t)at) == BLOCK);
		fill_vector(iov, at + BLOCK);
		insist(pwritev(disk, iov, BLOCK / PAGE, (off_t)(at + BLOCK)) == BLOCK);
	}
	for (size_t at = 0; at < DISK; at += BLOCK)
		insist(pread(disk, copy + at, BLOCK, (off_t)at) == BLOCK);
	insist(vmm_holds_content(copy, DISK, 4));
	vmm_wait_at_most("pinned-bytes", 0);
}

/* A call that waits shows its pins: a pipe into guest memory. */
static void *write_later(void *arg)
{
	vmm_wait_at_least("pinned-bytes", 2 * PAGE);
	insist(write(*(int *)arg, "0123456789", 10) == 10);
	return NULL;
}

static void pins_while_it_waits(void)
{
	int ends[2];
	pthread_t thread;

	begin();
	insist(pipe(ends) == 0);
	insist(pthread_create(&thread, NULL, write_later, &ends[1]) == 0);
	insist(read(ends[0], ram + PAGE - 5, PAGE) == 10);
	insist(memcmp(ram + PAGE - 5, "0123456789", 10) == 0);
	pthread_join(thread, NULL);
	vmm_wait_at_most("pinned-bytes", 0);
}

static void errors_stay_errors(void)
{
	/* Not known to the compiler, which would complain. */
	volatile int too_few = -1, too_many = 100000;
	struct iovec iov;

	begin();
	errno = 0;
	insist(read(-1, ram, PAGE) == -1 && errno == EBADF);
	insist(pread(disk, ram + 1, PAGE, 0) == -1 && errno == EINVAL);
	iov = (struct iovec){ ram, PAGE };
	insist(preadv(disk, &iov, too_few, 0) == -1 && errno == EINVAL);
	insist(preadv(disk, &iov, too_many, 0) == -1 && errno == EINVAL);
	insist(vmm_stat("pinned-bytes") == 0);
	insist(vmm_holds_content(ram, RAM, 1));
}

/* --- libaio --------------------------------------------------------------------------------- */

static int (*submit)(aio_context_t, long, struct iocb **);
static int (*destroy)(aio_context_t);

/* Only what the kernel maps: completions are read as QEMU reads them, without a call. */
struct ring {
	uint32_t id, nr, head, tail, magic, compat, incompat, header;
	struct io_event events[];
};

static aio_context_t open_aio(void)
{
	int (*setup)(int, aio_context_t *) = vmm_function("libaio.so.1", "io_setup");
	aio_context_t context = 0;

	submit = vmm_function("libaio.so.1", "io_submit");
	destroy = vmm_function("libaio.so.1", "io_destroy");
	insist(setup(AIO_EVENTS, &context) == 0);
	return context;
}

static unsigned int take_events(aio_context_t context)
{
	struct ring *ring = (struct ring *)context;
	uint32_t tail = __atomic_load_n(&ring->tail, __ATOMIC_ACQUIRE), head = ring->head;
	unsigned int count = 0;

	for (; head != tail; head = (head + 1) % ring->nr, count++)
		insist(ring->events[head].res == BLOCK);
	__atomic_store_n(&ring->head, head, __ATOMIC_RELEASE);
	return count;
}

static void prepare(struct iocb *iocb, int operation, size_t at)
{
	memset(iocb, 0, sizeof(*iocb));
	iocb->aio_fildes = (uint32_t)disk;
	iocb->aio_lio_opcode = (uint16_t)operation;
	iocb->aio_buf = (uint64_t)(uintptr_t)(ram + DISK + at);
	iocb->aio_nbytes = BLOCK;
	iocb->aio_offset = (int64_t)at;
}

/* Keep some requests under way, again and again from the same iocbs, all round the ring. */
static void read_aio(void)
{
	struct iocb iocbs[8], *list[8];
	unsigned int under_way = 0;
	uint64_t pinned = 0;
	aio_context_t context;

	begin();
	context = open_aio();
	for (size_t at = 0; at < DISK; at += COUNT_OF(iocbs) * BLOCK) {
		for (unsigned int i = 0; i < COUNT_OF(iocbs); i++) {
			prepare(&iocbs[i], IOCB_CMD_PREAD, at + i * BLOCK);
			list[i] = &iocbs[i];
		}
		insist(submit(context, COUNT_OF(list), list) == COUNT_OF(list));
		under_way += COUNT_OF(list);
		pinned += vmm_stat("pinned-bytes") != 0;
		while (under_way)
			under_way -= take_events(context);
	}
	/* Unpinned by the tick, with no further call of ours. */
	vmm_wait_at_most("pinned-bytes", 0);
	insist(pinned);
	check_second_half();
	insist(destroy(context) == 0);
}

static void vector_aio(void)
{
	struct iovec iov[BLOCK / PAGE];
	struct iocb iocb, *list[1] = { &iocb };
	aio_context_t context;

	begin();
	context = open_aio();
	for (size_t at = 0; at < DISK; at += BLOCK) {
		prepare(&iocb, IOCB_CMD_PREADV, at);
		fill_vector(iov, at);
		iocb.aio_buf = (uint64_t)(uintptr_t)iov;
		iocb.aio_nbytes = BLOCK / PAGE;
		/* By number, as a VMM in Rust does. */
		insist(syscall(SYS_io_submit, context, 1L, list) == 1);
		while (!take_events(context))
			;
	}
	check_second_half();
	insist(syscall(SYS_io_destroy, context) == 0);
}

/* One iocb twice, one that is refused, and a context that goes away with requests in it. */
static void odd_aio(void)
{
	struct iocb same, bad, *list[4] = { &same, &same, &bad, &same };
	aio_context_t context;
	unsigned int done = 0;

	begin();
	context = open_aio();
	prepare(&same, IOCB_CMD_PREAD, 0);
	prepare(&bad, IOCB_CMD_PREAD, BLOCK);
	bad.aio_fildes = 9999;
	insist(submit(context, 4, list) == 2);
	while (done < 2)
		done += take_events(context);
	vmm_wait_at_most("pinned-bytes", 0);
	errno = 0;
	insist(submit(context, 1, &list[2]) == -EBADF && errno == 0);
	insist(vmm_stat("pinned-bytes") == 0);
	insist(syscall(SYS_io_submit, context, 1L, &list[2]) == -1 && errno == EBADF);
	insist(submit(context, 1, list) == 1);
	insist(destroy(context) == 0);
	insist(vmm_stat("pinned-bytes") == 0);
	insist(destroy(context) == -EINVAL);
	insist(!vmm_held(""));
}

static void posix_aio(void)
{
	struct aiocb request = { .aio_fildes = 0, .aio_nbytes = BLOCK, .aio_lio_opcode = LIO_READ };

	begin();
	request.aio_fildes = disk;
	request.aio_buf = ram + DISK;
	insist(aio_read(&request) == 0);
	insist(vmm_held("POSIX aio"));
	while (aio_error(&request) == EINPROGRESS)
		;
	insist(aio_return(&request) == BLOCK);
	insist(vmm_holds_content(ram + DISK, BLOCK, 1));
}

/* --- io_uring ------------------------------------------------------------------------------- */

#define LIBURING "liburing.so.2"

static struct io_uring uring;

static void open_uring(void)
{
	int (*init)(unsigned int, struct io_uring *, unsigned int) =
		vmm_function(LIBURING, "io_uring_queue_init");

	if (init(8, &uring, 0))
		vmm_skip("this kernel has no io_uring");
}

static struct io_uring_sqe *new_request(void)
{
	struct io_uring_sqe *(*get)(struct io_uring *) = vmm_function(LIBURING, "io_uring_get_sqe");

	return get(&uring);
}

static void uring_submit(void)
{
	int (*go)(struct io_uring *, unsigned int) =
		vmm_function(LIBURING, "io_uring_submit_and_wait");
	int (*only)(struct io_uring *) = vmm_function(LIBURING, "io_uring_submit");
	uint64_t evictions;
	int ends[2];

	begin();
	open_uring();
	insist(pipe(ends) == 0 && write(ends[1], "x", 1) == 1);
	io_uring_prep_nop(new_request());
	insist(only(&uring) == 1);
	io_uring_prep_poll_add(new_request(), ends[0], POLLIN);
	insist(go(&uring, 1) == 1);
	insist(!vmm_held(""));
	for (size_t at = 0; at < DISK; at += BLOCK) {
		io_uring_prep_read(new_request(), disk, ram + DISK + at, BLOCK, at);
		insist(go(&uring, 1) == 1);
		io_uring_cq_advance(&uring, 1);
	}
	insist(vmm_held("io_uring"));
	evictions = vmm_stat("evictions");
	insist(vmm_holds_content(ram + DISK, DISK, 1));
	insist(vmm_holds_content(ram, DISK, 1));
	insist(vmm_stat("evictions") == evictions);
}

/*
 * The kernel keeps the very pages of a registered buffer: had one been evicted since, the
 * guest would not see what is read into it.
 */
static void uring_buffers(void)
{
	int (*keep)(struct io_uring *, const struct iovec *, unsigned int) =
		vmm_function(LIBURING, "io_uring_register_buffers");
	int (*go)(struct io_uring *, unsigned int) =
		vmm_function(LIBURING, "io_uring_submit_and_wait");
	struct iovec iov;

	begin();
	open_uring();
	iov = (struct iovec){ ram + DISK, BLOCK };
	insist(keep(&uring, &iov, 1) == 0);
	insist(vmm_held("io_uring"));
	vmm_fill(ram, DISK, 2);
	vmm_fill(ram + DISK + BLOCK, DISK - BLOCK, 3);
	io_uring_prep_read_fixed(new_request(), disk, ram + DISK, BLOCK, 0, 0);
	insist(go(&uring, 1) == 1);
	insist(vmm_holds_content(ram + DISK, BLOCK, 1));
}

static void uring_by_number(void)
{
	struct io_uring_params params = { 0 };

	begin();
	if (syscall(SYS_io_uring_setup, 8L, &params) < 0)
		vmm_skip("this kernel has no io_uring");
	insist(vmm_held("without liburing"));
}

/* --- pipes and sockets ---------------------------------------------------------------------- */

static void splice_memory(void)
{
	struct iovec iov;
	int ends[2];

	begin();
	iov = (struct iovec){ ram, PAGE };
	insist(pipe(ends) == 0);
	insist(vmsplice(ends[1], &iov, 1, 0) == PAGE);
	insist(vmm_held("vmsplice"));
}

/* --- all at once ------------------------------------------------------------------------------ */

#define PART (4 * MIB)

static bool enough;

static bool go_on(void)
{
	return !__atomic_load_n(&enough, __ATOMIC_RELAXED);
}

/* Direct reads into a part of its own, over and over. */
static void *keep_reading(void *arg)
{
	char *part = arg;

	while (go_on()) {
		memset(part, 0, PART);
		for (size_t at = 0; at < PART; at += BLOCK)
			insist(pread(disk, part + at, BLOCK, (off_t)at) == BLOCK);
		insist(vmm_holds_content(part, PART, 1));
	}
	return NULL;
}

/* What a balloon does, in a part of its own. */
static void *keep_discarding(void *arg)
{
	char *part = arg;

	for (uint64_t seed = 1; go_on(); seed++) {
		vmm_fill(part, PART, seed);
		insist(madvise(part + PART / 2, PART / 4, MADV_REMOVE) == 0);
		insist(vmm_is_zero(part + PART / 2, PART / 4));
		insist(vmm_holds_content(part, PART / 2, seed));
	}
	return NULL;
}

/* Memory that is plugged in and taken out again. */
static void *keep_plugging(void *arg)
{
	size_t bytes = 17 * MIB;

	while (go_on()) {
		int fd = vmm_memfd(bytes);
		char *memory = vmm_map(bytes, fd, 0);

		vmm_fill(memory, MIB, 9);
		insist(vmm_holds_content(memory, MIB, 9));
		insist(munmap(memory, bytes + PAGE) == 0);
		close(fd);
	}
	return arg;
}

static void all_at_once(void)
{
	pthread_t threads[4];

	begin();
	insist(madvise(ram, RAM, MADV_DONTFORK) == 0);
	insist(!pthread_create(&threads[0], NULL, keep_reading, ram + DISK));
	insist(!pthread_create(&threads[1], NULL, keep_reading, ram + DISK + PART));
	insist(!pthread_create(&threads[2], NULL, keep_discarding, ram + DISK + 2 * PART));
	insist(!pthread_create(&threads[3], NULL, keep_plugging, NULL));
	for (int i = 0; i < 20; i++) {
		insist(vmm_ask("set-limit",
			       i % 4 == 3 ? "{\"bytes\": null}" : "{\"bytes\": 4194304}"));
		insist(system("true") == 0);
		usleep(100000);
	}
	__atomic_store_n(&enough, true, __ATOMIC_RELAXED);
	for (size_t i = 0; i < COUNT_OF(threads); i++)
		pthread_join(threads[i], NULL);
	insist(vmm_holds_content(ram, DISK, 1));
	insist(!vmm_held("") && vmm_stat("poisoned") == 0);
	vmm_wait_at_most("pinned-bytes", 0);
}

/* --------------------------------------------------------------------------------------------- */

static const struct vmm_scenario scenarios[] = {
	{ "read-pread", read_pread },
	{ "read-plain", read_plain },
	{ "read-vectors", read_vectors },
	{ "write-all", write_all },
	{ "pins-while-it-waits", pins_while_it_waits },
	{ "errors-stay-errors", errors_stay_errors },
	{ "read-aio", read_aio },
	{ "vector-aio", vector_aio },
	{ "odd-aio", odd_aio },
	{ "posix-aio", posix_aio },
	{ "uring-submit", uring_submit },
	{ "uring-buffers", uring_buffers },
	{ "uring-by-number", uring_by_number },
	{ "splice-memory", splice_memory },
	{ "all-at-once", all_at_once },
};

int main(int argc, char **argv)
{
	return vmm_run_all(argc, argv, scenarios, COUNT_OF(scenarios), LIMIT);
}
