/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * The functions that our interposed ones stand in front of.
 *
 * Those that a VMM calls often are kept as pointers, found once; until our constructor has
 * run they make the bare system call, because other libraries' constructors, and an
 * allocator that dlsym() itself calls, may come before. The rest is looked up when called.
 *
 * What does not belong here: any decision.
 */
#ifndef PRELOAD_REAL_H
#define PRELOAD_REAL_H

#include <stddef.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>

struct real {
	void *(*mmap)(void *addr, size_t len, int prot, int flags, int fd, off_t offset);
	int (*munmap)(void *addr, size_t len);
	void *(*mremap)(void *old, size_t old_len, size_t len, int flags, ...);
	int (*madvise)(void *addr, size_t len, int advice);
	int (*fallocate)(int fd, int mode, off_t offset, off_t len);
	int (*ftruncate)(int fd, off_t len);
	int (*ioctl)(int fd, unsigned long request, ...);
	ssize_t (*read)(int fd, void *buf, size_t len);
	ssize_t (*write)(int fd, const void *buf, size_t len);
	ssize_t (*pread)(int fd, void *buf, size_t len, off_t offset);
	ssize_t (*pwrite)(int fd, const void *buf, size_t len, off_t offset);
	ssize_t (*readv)(int fd, const struct iovec *iov, int count);
	ssize_t (*writev)(int fd, const struct iovec *iov, int count);
	ssize_t (*preadv)(int fd, const struct iovec *iov, int count, off_t offset);
	ssize_t (*pwritev)(int fd, const struct iovec *iov, int count, off_t offset);
	ssize_t (*preadv2)(int fd, const struct iovec *iov, int count, off_t offset, int flags);
	ssize_t (*pwritev2)(int fd, const struct iovec *iov, int count, off_t offset, int flags);
	ssize_t (*sendmsg)(int fd, const struct msghdr *msg, int flags);
	ssize_t (*sendto)(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to,
			  socklen_t to_len);
	long (*syscall)(long number, ...);
	/* Found once because they are called between vfork() and exec. */
	int (*execve)(const char *path, char *const argv[], char *const envp[]);
	int (*execvpe)(const char *file, char *const argv[], char *const envp[]);
	int (*fexecve)(int fd, char *const argv[], char *const envp[]);
};

extern struct real real;

/** real_resolve() - find them all; called once, by the constructor */
void real_resolve(void);

/**
 * real_find() - the next definition of a function that is seldom called
 * @name:    the function
 * @library: where to look if it is not among what was loaded at start, such as a library
 *           that came in with a plug-in; NULL for nowhere
 *
 * Return: the function; NULL where there is none.
 */
void *real_find(const char *name, const char *library);

#endif /* PRELOAD_REAL_H */
