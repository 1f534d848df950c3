/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Guest memory under the preload library is reached by others: another process, a child, a
 * userfaultfd of the VMM's own, a program that replaces it. Each finds every byte, and what
 * is none of memvirt's business runs as if it were not there.
 */
#include "support/testing.h"
#include "support/fake_vmm.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIMIT "4194304"
#define RAM   (32 * MIB)
#define PAGE  4096UL

static void wait_for_child(pid_t child)
{
	int status;

	insist(child > 0 && waitpid(child, &status, 0) == child);
	insist(WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* --- other processes ------------------------------------------------------------------------ */

static void send_fd(int socket, int fd)
{
	char byte = 'x', space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = space,
			      .msg_controllen = sizeof(space) };
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	insist(sendmsg(socket, &msg, 0) == 1);
}

static int receive_fd(int socket)
{
	char byte, space[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = space,
			      .msg_controllen = sizeof(space) };
	int fd;

	insist(recvmsg(socket, &msg, 0) == 1 && CMSG_FIRSTHDR(&msg));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	return fd;
}

/* As a vhost-user back end: started before there is a guest, given its memory later. */
static void back_end(int socket)
{
	void *ram = mmap(NULL, RAM, PROT_READ, MAP_SHARED, receive_fd(socket), 0);

	insist(ram != MAP_FAILED);
	_exit(vmm_holds_content(ram, RAM, 1) ? 0 : 1);
}

static void share_by_socket(void)
{
	int ends[2], own[2], fd, other = open("/dev/null", O_RDONLY);
	pid_t child;
	void *ram;

	insist(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	insist(socketpair(AF_UNIX, SOCK_STREAM, 0, own) == 0);
	child = fork();
	if (child == 0)
		back_end(ends[1]);
	ram = vmm_full_memfd(RAM, &fd);
	send_fd(own[0], other);
	close(receive_fd(own[1]));
	insist(!vmm_held(""));
	/* A copy of the descriptor is as good as the descriptor. */
	send_fd(ends[0], dup(fd));
	wait_for_child(child);
	insist(vmm_held("vhost-user") && !vmm_region(0).managed);
	insist(strstr(vmm_region(0).reason, "vhost-user"));
	insist(vmm_holds_content(ram, RAM, 1));
}

static void map_twice(void)
{
	int fd;
	void *ram = vmm_full_memfd(RAM, &fd);
	void *second = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	insist(second != MAP_FAILED);
	insist(vmm_held("twice"));
	insist(vmm_holds_content(second, RAM, 1));
	vmm_fill(second, RAM, 2);
	insist(vmm_holds_content(ram, RAM, 2));
}

/* --- children ------------------------------------------------------------------------------- */

static void check_child_of(void *ram, bool sees)
{
	/* Nothing of memvirt: its calls go straight through, its threads are elsewhere. */
	if (sees && !vmm_holds_content(ram, RAM, 1))
		_exit(1);
	void *own = vmm_map(RAM, -1, 0);

	vmm_fill(own, MIB, 5);
	_exit(vmm_holds_content(own, MIB, 5) && munmap(own, RAM) == 0 ? 0 : 2);
}

static void fork_with_memory(void)
{
	int fd;
	void *ram = vmm_full_memfd(RAM, &fd);
	pid_t child = fork();

	if (child == 0)
		check_child_of(ram, true);
	wait_for_child(child);
	insist(vmm_held("forked"));
	insist(vmm_holds_content(ram, RAM, 1));
}

static void fork_by_number(void)
{
	int fd;
	void *ram = vmm_full_memfd(RAM, &fd);
	long child = syscall(SYS_clone, SIGCHLD, 0L, 0L, 0L, 0L);

	if (child == 0)
		check_child_of(ram, true);
	wait_for_child((pid_t)child);
	insist(vmm_held("forked"));
}

static void fork_without_memory(void)
{
	int fd;
	void *ram = vmm_full_memfd(RAM, &fd);
	pid_t child;

	insist(madvise(ram, RAM, MADV_DONTFORK) == 0);
	child = fork();
	if (child == 0)
		check_child_of(ram, false);
	wait_for_child(child);
	insist(!vmm_held("") && vmm_region(0).managed);
	insist(vmm_holds_content(ram, RAM, 1));
	insist(madvise(ram, PAGE, MADV_DOFORK) == 0);
	child = fork();
	if (child == 0)
		_exit(0);
	wait_for_child(child);
	insist(vmm_held("forked"));
}

/* qemu -daemonize: the process that maps guest memory is a child that executes nothing. */
static void go_into_background(void)
{
	pid_t child = fork();
	void *ram;
	int fd;

	if (child == 0) {
		ram = vmm_full_memfd(RAM, &fd);
		insist(vmm_region(0).managed && vmm_holds_content(ram, RAM, 1));
		exit(0);
	}
	wait_for_child(child);
	insist(!vmm_managed()); /* it has tidied up */
}

/* What a VMM executes is a program like any other. */
static void run_helper(void)
{
	static char script[] = "test -z \"$LD_PRELOAD$MEMVIRT_NAME$MEMVIRT_LIMIT$MEMVIRT_PROCESS\""
			       " && test \"$OTHER\" = kept && ! grep -q memvirt /proc/self/maps"
			       " && ! ls -l /proc/self/fd | grep -E 'userfaultfd|memfd|eventfd'";
	char *argv[] = { "sh", "-c", script, NULL };
	pid_t child;
	int fd;
	void *ram;

	setenv("OTHER", "kept", 1);
	ram = vmm_full_memfd(RAM, &fd);
	insist(madvise(ram, RAM, MADV_DONTFORK) == 0);
	insist(posix_spawn(&child, "/bin/sh", NULL, NULL, argv, environ) == 0);
	wait_for_child(child);
	child = vfork();
	if (child == 0) {
		execv("/bin/sh", argv);
		_exit(127);
	}
	wait_for_child(child);
	insist(system(script) == 0);
	insist(!vmm_held("") && vmm_region(0).managed);
	insist(vmm_holds_content(ram, RAM, 1));
}

/* Before there is a guest, what is executed may yet be the VMM. */
static void run_wrapper(void)
{
	vmm_skip_sanitized("a shell without AddressSanitizer cannot load a library with it");
	if (!getenv("WRAPPED")) {
		setenv("WRAPPED", "1", 1);
		execlp("sh", "sh", "-c", "exec \"$0\" --scenario run-wrapper",
		       program_invocation_name, NULL);
	}
	int fd;
	void *ram = vmm_full_memfd(RAM, &fd);

	insist(vmm_region(0).managed && vmm_holds_content(ram, RAM, 1));
}

/* A VMM that is updated under its guest: the new program finds its memory whole. */
static void replace_itself(void)
{
	const char *number = getenv("GUEST_FD");
	char text[16];
	void *ram;
	int fd;

	if (number) {
		ram = mmap(NULL, RAM, PROT_READ, MAP_SHARED, atoi(number), 0);
		insist(ram != MAP_FAILED && vmm_holds_content(ram, RAM, 1));
		return;
	}
	vmm_full_memfd(RAM, &fd);
	snprintf(text, sizeof(text), "%d", dup(fd));
	setenv("GUEST_FD", text, 1);
	insist(execlp("/nonexistent", "/nonexistent", NULL) == -1 && errno == ENOENT);
	char *argv[] = { program_invocation_name, "--scenario", "replace-itself", NULL };
	execv("/proc/self/exe", argv);
	insist(!"it was replaced");
}

/* --- userfaultfds of the VMM's own ------------------------------------------------------------ */

static int open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MINOR_SHMEM };
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	insist(fd >= 0 && ioctl(fd, UFFDIO_API, &api) == 0);
	return fd;
}

static void own_userfaultfd(void)
{
	int fd, uffd = open_uffd();
	char *ram = vmm_full_memfd(RAM, &fd);
	struct uffdio_register whole = { .range = { (uintptr_t)ram, RAM },
					 .mode = UFFDIO_REGISTER_MODE_MISSING };
	struct uffdio_range half = { (uintptr_t)ram, RAM / 2 };
	struct pollfd poll_it = { uffd, POLLIN, 0 };

	insist(ioctl(uffd, UFFDIO_REGISTER, &whole) == 0);
	insist(vmm_held("postcopy") && !vmm_region(0).managed);
	insist(vmm_holds_content(ram, RAM, 1));
	insist(poll(&poll_it, 1, 0) == 0); /* all pages were there */
	insist(ioctl(uffd, UFFDIO_UNREGISTER, &half) == 0);
	insist(vmm_held("postcopy"));
	insist(ioctl(uffd, UFFDIO_UNREGISTER, &whole.range) == 0);
	insist(!vmm_held("") && vmm_region(0).managed);
	vmm_wait_at_most("resident-bytes", 4 * MIB);
	insist(vmm_holds_content(ram, RAM, 1));
	/* And what is not the guest's is not touched. */
	whole.range.start = (uintptr_t)mmap(NULL, MIB, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	whole.range.len = MIB;
	insist(ioctl(uffd, UFFDIO_REGISTER, &whole) == 0);
	insist(!vmm_held("") && vmm_region(0).managed);
}

/* --- locked memory, sockets ---------------------------------------------------------------------
 */

static void lock_memory(void)
{
	struct rlimit limit;
	uint64_t evictions;
	void *ram;
	int fd;

	insist(getrlimit(RLIMIT_MEMLOCK, &limit) == 0);
	if (geteuid() != 0 && limit.rlim_cur < 2 * RAM)
		vmm_skip("this user may not lock as much memory");
	ram = vmm_full_memfd(RAM, &fd);
	insist(mlock(ram, RAM) == 0);
	insist(vmm_held("locks"));
	evictions = vmm_stat("evictions");
	vmm_fill(ram, RAM, 2);
	insist(vmm_holds_content(ram, RAM, 2));
	insist(vmm_stat("evictions") == evictions && vmm_stat("stored-pages") == 0);
}

static unsigned long address_space(void)
{
	unsigned long pages = 0;
	FILE *statm = fopen("/proc/self/statm", "re");

	insist(statm && fscanf(statm, "%lu", &pages) == 1);
	fclose(statm);
	return pages * PAGE;
}

/*
 * With all memory locked nothing could be evicted, and all that is mapped would be filled.
 * The first call fills nothing yet, so that no more than a test fails where the store's
 * reservations, more than the host's memory, are still there.
 */
static void lock_everything(void *ram)
{
	vmm_skip_sanitized("a sanitizer's own reservations would be filled");
	if (mlockall(MCL_CURRENT | MCL_ONFAULT))
		vmm_skip("this user may not lock all memory");
	insist(address_space() < 1024 * MIB);
	insist(mlockall(MCL_CURRENT | MCL_FUTURE) == 0);
	if (ram)
		insist(vmm_holds_content(ram, RAM, 1));
}

static void lock_all(void)
{
	int fd;
	void *ram = vmm_full_memfd(RAM, &fd);

	lock_everything(ram);
	insist(!vmm_region(0).managed && strstr(vmm_region(0).reason, "locks all"));
	insist(vmm_stat("resident-bytes") == UINT64_MAX);
	insist(!vmm_ask("set-limit", "{\"bytes\": 8388608}"));
	insist(munmap(ram, RAM) == 0 && !vmm_region(0).found);
}

static void lock_all_first(void)
{
	void *ram;

	lock_everything(NULL);
	ram = vmm_map(RAM, vmm_memfd(RAM), 0);
	insist(!vmm_region(0).managed && strstr(vmm_region(0).reason, "locks all"));
	vmm_fill(ram, RAM, 1);
	insist(vmm_holds_content(ram, RAM, 1));
}

static int connected_socket(void)
{
	struct sockaddr_in addr = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	socklen_t len = sizeof(addr);
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (listener < 0 || bind(listener, (struct sockaddr *)&addr, len) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&addr, &len) ||
	    connect(fd, (struct sockaddr *)&addr, len))
		vmm_skip("no network to itself");
	if (setsockopt(fd, SOL_SOCKET, SO_ZEROCOPY, &one, sizeof(one)))
		vmm_skip("this kernel has no MSG_ZEROCOPY");
	return fd;
}

static void send_without_copy(void)
{
	int fd, socket = connected_socket();
	char *ram = vmm_full_memfd(RAM, &fd);
	struct iovec iov = { ram, PAGE };
	struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };

	insist(send(socket, ram, PAGE, 0) == PAGE);
	insist(sendmsg(socket, &msg, 0) == PAGE);
	insist(!vmm_held(""));
	insist(sendmsg(socket, &msg, MSG_ZEROCOPY) == PAGE);
	insist(vmm_held("MSG_ZEROCOPY"));
}

/* --------------------------------------------------------------------------------------------- */

static const struct vmm_scenario scenarios[] = {
	{ "share-by-socket", share_by_socket },
	{ "map-twice", map_twice },
	{ "fork-with-memory", fork_with_memory },
	{ "fork-by-number", fork_by_number },
	{ "fork-without-memory", fork_without_memory },
	{ "go-into-background", go_into_background },
	{ "run-helper", run_helper },
	{ "run-wrapper", run_wrapper },
	{ "replace-itself", replace_itself },
	{ "own-userfaultfd", own_userfaultfd },
	{ "lock-memory", lock_memory },
	{ "lock-all", lock_all },
	{ "lock-all-first", lock_all_first },
	{ "send-without-copy", send_without_copy },
};

int main(int argc, char **argv)
{
	return vmm_run_all(argc, argv, scenarios, COUNT_OF(scenarios), LIMIT);
}
