// SPDX-License-Identifier: BSD-2-Clause
/*
 * ask SOCKET LINE: say a line on a unix socket, and print the line that comes back.
 */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	char byte;

	if (argc != 3 || strlen(argv[1]) >= sizeof(addr.sun_path))
		return 2;
	strcpy(addr.sun_path, argv[1]);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) ||
	    write(fd, argv[2], strlen(argv[2])) < 0 || write(fd, "\n", 1) < 0) {
		perror(argv[1]);
		return 1;
	}
	while (read(fd, &byte, 1) == 1) {
		putchar(byte);
		if (byte == '\n')
			return 0;
	}
	return 1;
}
