/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * A unix socket to be asked on; see listen.h. unix(7).
 */
#include "vm/listen.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static bool is_live(const struct sockaddr_un *addr)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	bool live;

	if (fd < 0)
		return true;
	/* EAGAIN: it listens, with a full queue. */
	live = connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0 || errno == EAGAIN;
	close(fd);
	return live;
}

static int bind_to(int fd, const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };

	if (strlen(path) >= sizeof(addr.sun_path))
		return -ENAMETOOLONG;
	strcpy(addr.sun_path, path);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0)
		return 0;
	if (errno != EADDRINUSE || is_live(&addr))
		return -errno;
	/* Left behind by a process that was killed. */
	unlink(path);
	return bind(fd, (struct sockaddr *)&addr, sizeof(addr)) ? -errno : 0;
}

int listen_open(const char *path, int backlog, int *fd)
{
	int made = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	int err;

	if (made < 0)
		return -errno;
	err = bind_to(made, path);
	/* Nobody can connect before listen(), so nobody comes in before the mode is right. */
	if (!err && (chmod(path, 0600) || listen(made, backlog))) {
		err = -errno;
		unlink(path);
	}
	if (err) {
		close(made);
		return err;
	}
	*fd = made;
	return 0;
}
