/* SPDX-License-Identifier: BSD-2-Clause */
/* See bare_handler.h. */
#include "bare_handler.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "balloon/uffd.h"
#include "bench.h"

static void answer(struct bare_handler *bare, uint64_t address)
{
	unsigned char *page = (unsigned char *)(uintptr_t)(address & ~(MV_PAGE_SIZE - 1));

	if (bare->fill)
		bare->fill(bare->ctx, (uint64_t)(page - bare->mem) / MV_PAGE_SIZE, bare->content);
	if (mv_uffd_copy(bare->uffd, page, bare->content))
		bench_die("UFFDIO_COPY: %s", strerror(errno));
}

static void *handle(void *ctx)
{
	struct bare_handler *bare = ctx;

	bench_pin(bare->cpu);
	for (;;) {
		struct pollfd fds[2] = { { bare->stop, POLLIN, 0 }, { bare->uffd, POLLIN, 0 } };
		struct uffd_msg message;

		poll(fds, 2, -1);
		if (fds[0].revents)
			return NULL;
		if (read(bare->uffd, &message, sizeof(message)) == sizeof(message))
			answer(bare, message.arg.pagefault.address);
	}
}

void bare_handler_open(struct bare_handler *bare, enum bench_memory memory, uint64_t pages)
{
	bare->bytes = pages * MV_PAGE_SIZE;
	bare->stop = eventfd(0, 0);
	bare->content = bench_pages(MV_PAGE_SIZE);
	bare->mem = bench_map(memory, bare->bytes, &bare->fd);
	bare->uffd = mv_uffd_open(memory == BENCH_SHARED ? UFFD_FEATURE_MISSING_SHMEM : 0);
	if (bare->uffd < 0 ||
	    mv_uffd_register(bare->uffd, bare->mem, bare->bytes, UFFDIO_REGISTER_MODE_MISSING))
		bench_die("userfaultfd: %s", strerror(errno));
	if (pthread_create(&bare->thread, NULL, handle, bare))
		bench_die("no thread");
}

void bare_handler_close(struct bare_handler *bare)
{
	if (eventfd_write(bare->stop, 1))
		bench_die("eventfd: %s", strerror(errno));
	pthread_join(bare->thread, NULL);
	close(bare->uffd);
	close(bare->stop);
	bench_unmap(bare->mem, bare->bytes, bare->fd);
	munmap(bare->content, MV_PAGE_SIZE);
}
