/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A zram device of our own; see zram.h.
 *
 * Its keeper is a child process: it sets the device up, says how that went, waits until the
 * pipe from the program is closed, and takes the device down. So there is one place that cleans
 * up, which no signal to the program and no crash of it can prevent.
 */
#include "support/zram.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE	   4096UL
#define DISK_BYTES (1UL << 30) /* takes memory only as it is written */
#define TRIES	   100	       /* of what a device manager may hold for a moment */
#define NAP_US	   20000
#define PRIORITY   SWAP_FLAG_PRIO_MASK

#define CONTROL "/sys/class/zram-control"

struct zram_peer {
	const struct bench *bench;
	pid_t keeper;
	int alive; /* the pipe that the keeper watches */
	int id;
};

/* What the keeper answers: the device, or why there is none. */
struct answer {
	int id;
	char reason[120];
};

/* Only the keeper's. */
struct device {
	int id;
	char path[32];
	bool made_node;
	bool swapping;
};

/* --- small files -------------------------------------------------------------------------- */

static int write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t written = fd < 0 ? -1 : write(fd, text, strlen(text));
	int error = written < 0 ? -errno : 0;

	if (fd >= 0)
		close(fd);
	return error;
}

static int read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, size - 1);
	int error = got < 0 ? -errno : 0;

	text[got > 0 ? got : 0] = '\0';
	if (fd >= 0)
		close(fd);
	return error;
}

static const char *attribute(int id, const char *name)
{
	static char path[80];

	snprintf(path, sizeof(path), "/sys/block/zram%d/%s", id, name);
	return path;
}

/* --- the keeper --------------------------------------------------------------------------- */

/* Where no device manager makes the node, we do. */
static int find_node(struct device *device)
{
	unsigned int major, minor;
	char numbers[32];

	snprintf(device->path, sizeof(device->path), "/dev/zram%d", device->id);
	for (int i = 0; i < 10; i++, usleep(NAP_US))
		if (!access(device->path, R_OK | W_OK))
			return 0;
	if (read_text(attribute(device->id, "dev"), numbers, sizeof(numbers)) ||
	    sscanf(numbers, "%u:%u", &major, &minor) != 2 ||
	    mknod(device->path, S_IFBLK | 0600, makedev(major, minor)))
		return -1;
	device->made_node = true;
	return 0;
}

/* What mkswap writes: see union swap_header in include/linux/swap.h. */
static int make_swap(const char *path)
{
	static unsigned char page[PAGE];
	const uint32_t info[] = { 1, DISK_BYTES / PAGE - 1, 0 }; /* version, last page, bad ones */
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool good;

	memcpy(page + 1024, info, sizeof(info));
	memcpy(page + PAGE - 10, "SWAPSPACE2", 10);
	good = fd >= 0 && pwrite(fd, page, PAGE, 0) == (ssize_t)PAGE && !fsync(fd);
	if (fd >= 0)
		close(fd);
	return good ? 0 : -1;
}

/* Return: NULL, or why there is no device. */
static const char *set_up(struct device *device)
{
	char text[32];

	if (geteuid())
		return "a zram device needs root";
	if (access(CONTROL, F_OK))
		return "this kernel has no zram: load it (modprobe zram), and run again";
	if (read_text(CONTROL "/hot_add", text, sizeof(text)) ||
	    sscanf(text, "%d", &device->id) != 1)
		return "a zram device cannot be added here (" CONTROL "/hot_add)";
	if (write_text(attribute(device->id, "comp_algorithm"), "lz4"))
		return "this kernel's zram has no lz4";
	snprintf(text, sizeof(text), "%lu", DISK_BYTES);
	if (write_text(attribute(device->id, "disksize"), text))
		return "the zram device takes no size";
	if (find_node(device))
		return "the zram device has no node in /dev";
	if (make_swap(device->path) || swapon(device->path, SWAP_FLAG_PREFER | PRIORITY))
		return "swapping to a zram device is not allowed here";
	device->swapping = true;
	return NULL;
}

/* Return: 0 where nothing is left. */
static int take_down(struct device *device)
{
	char text[16];
	int error = 0;

	if (device->id < 0)
		return 0;
	for (int i = 0; i < TRIES && device->swapping; i++, error ? usleep(NAP_US) : 0) {
		error = swapoff(device->path);
		device->swapping = error && errno != EINVAL;
	}
	snprintf(text, sizeof(text), "%d", device->id);
	for (int i = 0; i < TRIES; i++, usleep(NAP_US)) {
		write_text(attribute(device->id, "reset"), "1");
		error = write_text(CONTROL "/hot_remove", text);
		if (!error)
			break;
	}
	if (device->made_node)
		unlink(device->path);
	return error;
}

static void ignore_signals(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	setsid();
}

/* @alive: readable at its end when the program has ended. @answer: where to say how it went. */
_Noreturn static void keep(int alive, int answer)
{
	struct device device = { .id = -1 };
	struct answer said = { 0 };
	const char *reason;
	char byte;

	ignore_signals();
	reason = set_up(&device);
	said.id = device.id;
	if (reason)
		snprintf(said.reason, sizeof(said.reason), "%s", reason);
	if (write(answer, &said, sizeof(said)) == (ssize_t)sizeof(said) && !reason)
		while (read(alive, &byte, 1) < 0)
			;
	_exit(take_down(&device) ? 1 : 0);
}

/* --- the program's side ------------------------------------------------------------------- */

/* Start the keeper; its ends of the pipes are closed here. */
static pid_t start_keeper(int *alive, int *answer)
{
	int lives[2], says[2];
	pid_t keeper;

	if (pipe2(lives, O_CLOEXEC))
		return -1;
	if (pipe2(says, O_CLOEXEC)) {
		close(lives[0]);
		close(lives[1]);
		return -1;
	}
	fflush(NULL);
	keeper = fork();
	if (!keeper) {
		close(lives[1]);
		close(says[0]);
		keep(lives[0], says[1]);
	}
	close(lives[0]);
	close(says[1]);
	*alive = lives[1];
	*answer = says[0];
	return keeper;
}

int zram_peer_open(const struct bench *bench, struct zram_peer **peer, const char **reason)
{
	static struct answer said;
	int alive, answer;
	pid_t keeper = start_keeper(&alive, &answer);

	*reason = "no process for a zram device";
	if (keeper < 0)
		return -1;
	if (read(answer, &said, sizeof(said)) != (ssize_t)sizeof(said))
		snprintf(said.reason, sizeof(said.reason), "the zram device's keeper died");
	close(answer);
	if (said.reason[0]) {
		close(alive);
		waitpid(keeper, NULL, 0);
		*reason = said.reason;
		return -1;
	}
	*peer = malloc(sizeof(**peer));
	if (!*peer)
		bench_die("no memory");
	**peer = (struct zram_peer){ bench, keeper, alive, said.id };
	return 0;
}

void zram_peer_close(struct zram_peer *peer)
{
	int status;

	if (!peer)
		return;
	close(peer->alive);
	if (waitpid(peer->keeper, &status, 0) != peer->keeper || !WIFEXITED(status) ||
	    WEXITSTATUS(status))
		bench_die("zram%d could not be removed: swapoff /dev/zram%d; echo %d > "
			  CONTROL "/hot_remove", peer->id, peer->id, peer->id);
	free(peer);
}

/* Which pages are in memory: one byte each, to be freed. */
static unsigned char *residency(void *pages, size_t count)
{
	unsigned char *in_core = malloc(count);

	if (!in_core || mincore(pages, count * PAGE, in_core))
		bench_die("mincore: %s", strerror(errno));
	return in_core;
}

int zram_peer_pageout(struct zram_peer *peer, void *pages, size_t count, double *ns_per_page)
{
	double begin = bench_now();
	int error = madvise(pages, count * PAGE, MADV_PAGEOUT) ? -errno : 0;
	double took = bench_now() - begin;
	size_t out = 0;

	if (error)
		return error;

	unsigned char *in_core = residency(pages, count);

	for (size_t i = 0; i < count; i++)
		out += !(in_core[i] & 1);
	free(in_core);
	if (out < count - count / 20)
		return -EAGAIN;
	*ns_per_page = took / (double)out;
	return 0;
}

void zram_peer_swapin(struct zram_peer *peer, void *pages, size_t count, double *ns,
		      size_t *measured)
{
	unsigned char *in_core = residency(pages, count);
	uint32_t *order = malloc(count * sizeof(*order));
	size_t done = 0;

	if (!order)
		bench_die("no memory");
	bench_shuffle(order, count, 1);
	for (size_t i = 0; i < count; i++) {
		volatile char *page = (char *)pages + order[i] * PAGE;

		if (in_core[order[i]] & 1)
			continue;

		uint64_t begin = bench_ticks();

		(void)*page;
		ns[done++] = bench_ns(peer->bench, bench_ticks() - begin);
	}
	free(order);
	free(in_core);
	*measured = done;
}

int zram_peer_usage(struct zram_peer *peer, double *content, double *memory)
{
	double compressed;
	char text[256];

	if (read_text(attribute(peer->id, "mm_stat"), text, sizeof(text)) ||
	    sscanf(text, "%lf %lf %lf", content, &compressed, memory) != 3)
		return -1;
	return 0;
}
