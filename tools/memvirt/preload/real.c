/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Finding the functions behind ours; see real.h.
 */
#undef _FORTIFY_SOURCE
#include "memvirt/preload/real.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/syscall.h>

#ifndef __x86_64__
#error "memvirt run is for x86-64: early_call() needs this machine's system call here"
#endif

/* The C library's own syscall() is one of those that are not found yet. */
static long early_call(long number, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long result;

	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	if (result < 0 && result >= -4095) {
		errno = (int)-result;
		return -1;
	}
	return result;
}

static void *early_mmap(void *addr, size_t len, int prot, int flags, int fd, off_t offset)
{
	return (void *)early_call(SYS_mmap, (long)addr, (long)len, prot, flags, fd, offset);
}

static int early_munmap(void *addr, size_t len)
{
	return (int)early_call(SYS_munmap, (long)addr, (long)len, 0, 0, 0, 0);
}

static void *early_mremap(void *old, size_t old_len, size_t len, int flags, ...)
{
	va_list args;
	void *fixed;

	va_start(args, flags);
	fixed = va_arg(args, void *);
	va_end(args);
	return (void *)early_call(SYS_mremap, (long)old, (long)old_len, (long)len, flags,
				  (long)fixed, 0);
}

static int early_madvise(void *addr, size_t len, int advice)
{
	return (int)early_call(SYS_madvise, (long)addr, (long)len, advice, 0, 0, 0);
}

static int early_fallocate(int fd, int mode, off_t offset, off_t len)
{
	return (int)early_call(SYS_fallocate, fd, mode, offset, len, 0, 0);
}

static int early_ftruncate(int fd, off_t len)
{
	return (int)early_call(SYS_ftruncate, fd, len, 0, 0, 0, 0);
}

static int early_ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	long arg;

	va_start(args, request);
	arg = va_arg(args, long);
	va_end(args);
	return (int)early_call(SYS_ioctl, fd, (long)request, arg, 0, 0, 0);
}

static ssize_t early_read(int fd, void *buf, size_t len)
{
	return early_call(SYS_read, fd, (long)buf, (long)len, 0, 0, 0);
}

static ssize_t early_write(int fd, const void *buf, size_t len)
{
	return early_call(SYS_write, fd, (long)buf, (long)len, 0, 0, 0);
}

static ssize_t early_pread(int fd, void *buf, size_t len, off_t offset)
{
	return early_call(SYS_pread64, fd, (long)buf, (long)len, offset, 0, 0);
}

static ssize_t early_pwrite(int fd, const void *buf, size_t len, off_t offset)
{
	return early_call(SYS_pwrite64, fd, (long)buf, (long)len, offset, 0, 0);
}

static ssize_t early_readv(int fd, const struct iovec *iov, int count)
{
	return early_call(SYS_readv, fd, (long)iov, count, 0, 0, 0);
}

static ssize_t early_writev(int fd, const struct iovec *iov, int count)
{
	return early_call(SYS_writev, fd, (long)iov, count, 0, 0, 0);
}

static ssize_t early_preadv(int fd, const struct iovec *iov, int count, off_t offset)
{
	return early_call(SYS_preadv, fd, (long)iov, count, offset, 0, 0);
}

static ssize_t early_pwritev(int fd, const struct iovec *iov, int count, off_t offset)
{
	return early_call(SYS_pwritev, fd, (long)iov, count, offset, 0, 0);
}

static ssize_t early_preadv2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return early_call(SYS_preadv2, fd, (long)iov, count, offset, 0, flags);
}

static ssize_t early_pwritev2(int fd, const struct iovec *iov, int count, off_t offset, int flags)
{
	return early_call(SYS_pwritev2, fd, (long)iov, count, offset, 0, flags);
}

static ssize_t early_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	return early_call(SYS_sendmsg, fd, (long)msg, flags, 0, 0, 0);
}

static ssize_t early_sendto(int fd, const void *buf, size_t len, int flags,
			    const struct sockaddr *to, socklen_t to_len)
{
	return early_call(SYS_sendto, fd, (long)buf, (long)len, flags, (long)to, to_len);
}

static long early_syscall(long number, ...)
{
	long arg[6];
	va_list args;

	va_start(args, number);
	for (int i = 0; i < 6; i++)
		arg[i] = va_arg(args, long);
	va_end(args);
	return early_call(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
}

static int early_execve(const char *path, char *const argv[], char *const envp[])
{
	return (int)early_call(SYS_execve, (long)path, (long)argv, (long)envp, 0, 0, 0);
}

static int early_fexecve(int fd, char *const argv[], char *const envp[])
{
	return (int)early_call(SYS_execveat, fd, (long)"", (long)argv, (long)envp, AT_EMPTY_PATH,
			       0);
}

struct real real = {
	.mmap = early_mmap,
	.munmap = early_munmap,
	.mremap = early_mremap,
	.madvise = early_madvise,
	.fallocate = early_fallocate,
	.ftruncate = early_ftruncate,
	.ioctl = early_ioctl,
	.read = early_read,
	.write = early_write,
	.pread = early_pread,
	.pwrite = early_pwrite,
	.readv = early_readv,
	.writev = early_writev,
	.preadv = early_preadv,
	.pwritev = early_pwritev,
	.preadv2 = early_preadv2,
	.pwritev2 = early_pwritev2,
	.sendmsg = early_sendmsg,
	.sendto = early_sendto,
	.syscall = early_syscall,
	.execve = early_execve,
	.execvpe = early_execve,
	.fexecve = early_fexecve,
};

/* off_t is 64 bits wide here: each pair of names, such as pread and pread64, is one. */
static const struct {
	const char *name;
	void *slot;
} wanted[] = {
	{ "mmap", &real.mmap },		  { "munmap", &real.munmap },
	{ "mremap", &real.mremap },	  { "madvise", &real.madvise },
	{ "fallocate", &real.fallocate }, { "ftruncate", &real.ftruncate },
	{ "ioctl", &real.ioctl },	  { "read", &real.read },
	{ "write", &real.write },	  { "pread", &real.pread },
	{ "pwrite", &real.pwrite },	  { "readv", &real.readv },
	{ "writev", &real.writev },	  { "preadv", &real.preadv },
	{ "pwritev", &real.pwritev },	  { "preadv2", &real.preadv2 },
	{ "pwritev2", &real.pwritev2 },	  { "sendmsg", &real.sendmsg },
	{ "sendto", &real.sendto },	  { "syscall", &real.syscall },
	{ "execve", &real.execve },	  { "execvpe", &real.execvpe },
	{ "fexecve", &real.fexecve },
};

void real_resolve(void)
{
	for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++) {
		void *found = dlsym(RTLD_NEXT, wanted[i].name);

		if (found)
			__atomic_store_n((void **)wanted[i].slot, found, __ATOMIC_RELEASE);
	}
}

void *real_find(const char *name, const char *library)
{
	void *found = dlsym(RTLD_NEXT, name);

	if (!found && library) {
		/* A plug-in's libraries are not in the scope that RTLD_NEXT searches. */
		void *handle = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);

		if (handle) {
			found = dlsym(handle, name);
			dlclose(handle);
		}
	}
	return found;
}
