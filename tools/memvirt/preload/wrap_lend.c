/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * sendmsg, sendto, vmsplice, exec, fork: guest memory is handed to another process or to
 * the network, or the process that knows where it is stored is replaced.
 */
#undef _FORTIFY_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "memvirt/preload/preload.h"
#include "memvirt/preload/real.h"

/* --- descriptors of guest memory --------------------------------------------------------- */

static void notice_descriptors(const struct cmsghdr *cmsg)
{
	size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < count; i++) {
		dev_t dev;
		ino_t ino;
		int fd;

		memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(fd), sizeof(fd));
		if (ram_file_of(fd, &dev, &ino))
			ram_share_file(dev, ino, "another process maps guest memory (vhost-user)");
	}
}

static void notice_message(const struct msghdr *msg, int flags)
{
	struct msghdr *header = (struct msghdr *)msg; /* CMSG_NXTHDR() only reads it */

	if (!preload_found())
		return;
	if (msg->msg_control && msg->msg_controllen)
		for (struct cmsghdr *cmsg = CMSG_FIRSTHDR(header); cmsg;
		     cmsg = CMSG_NXTHDR(header, cmsg))
			if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS &&
			    cmsg->cmsg_len > CMSG_LEN(0))
				notice_descriptors(cmsg);
	if (flags & MSG_ZEROCOPY)
		for (size_t i = 0; i < msg->msg_iovlen; i++)
			if (preload_touches(msg->msg_iov[i].iov_base, msg->msg_iov[i].iov_len))
				engine_hold(MV_PAGER_HOLD_DMA,
					    "guest memory is sent without copying (MSG_ZEROCOPY)");
}

EXPORT ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
	notice_message(msg, flags);
	return real.sendmsg(fd, msg, flags);
}

EXPORT int sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
	int (*next)(int, struct mmsghdr *, unsigned int, int) = real_find("sendmmsg", NULL);

	for (unsigned int i = 0; i < count; i++)
		notice_message(&messages[i].msg_hdr, flags);
	return next(fd, messages, count, flags);
}

EXPORT ssize_t sendto(int fd, const void *buf, size_t len, int flags, const struct sockaddr *to,
		      socklen_t to_len)
{
	if ((flags & MSG_ZEROCOPY) && preload_touches(buf, len))
		engine_hold(MV_PAGER_HOLD_DMA, "guest memory is sent without copying "
					       "(MSG_ZEROCOPY)");
	return real.sendto(fd, buf, len, flags, to, to_len);
}

EXPORT ssize_t send(int fd, const void *buf, size_t len, int flags)
{
	return sendto(fd, buf, len, flags, NULL, 0);
}

EXPORT ssize_t vmsplice(int fd, const struct iovec *iov, size_t count, unsigned int flags)
{
	ssize_t (*next)(int, const struct iovec *, size_t, unsigned int) =
		real_find("vmsplice", NULL);

	for (size_t i = 0; i < count && preload_found(); i++)
		if (preload_touches(iov[i].iov_base, iov[i].iov_len))
			engine_hold(MV_PAGER_HOLD_DMA, "guest memory is put into a pipe without "
						       "copying (vmsplice)");
	return next(fd, iov, count, flags);
}

/* --- exec -------------------------------------------------------------------------------- */

/*
 * A VMM that replaces itself, as QEMU does to be updated under a running guest, hands its
 * memory files to the new program, which knows nothing of what is stored. A child of
 * vfork() shares this memory and has a process number of its own: it passes.
 */
static void notice_exec(void)
{
	if (preload_found() && getpid() == preload.pid && preload.ranges.count)
		ram_share_all("the VMM replaces itself (exec)");
}

EXPORT int execve(const char *path, char *const argv[], char *const envp[])
{
	notice_exec();
	return real.execve(path, argv, envp);
}

EXPORT int execv(const char *path, char *const argv[])
{
	return execve(path, argv, environ);
}

EXPORT int execvp(const char *file, char *const argv[])
{
	notice_exec();
	return real.execvpe(file, argv, environ);
}

EXPORT int execvpe(const char *file, char *const argv[], char *const envp[])
{
	notice_exec();
	return real.execvpe(file, argv, envp);
}

EXPORT int fexecve(int fd, char *const argv[], char *const envp[])
{
	notice_exec();
	return real.fexecve(fd, argv, envp);
}

/* --- fork -------------------------------------------------------------------------------- */

/* fork() is seen by pthread_atfork(); this is the C library's fork() without its handlers. */
EXPORT pid_t _Fork(void)
{
	pid_t (*next)(void) = real_find("_Fork", NULL);
	pid_t pid;

	preload_before_fork();
	pid = next();
	if (pid == 0)
		preload_in_child();
	return pid;
}
