/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Looking at a VMM's file; see run_vmm.h. elf(5), execve(2), ld.so(8).
 */
#include "run_vmm.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "vm/say.h"

#if defined(__x86_64__)
#define OWN_MACHINE EM_X86_64
#elif defined(__aarch64__)
#define OWN_MACHINE EM_AARCH64
#else
#error "name this machine's ELF number here"
#endif

/* As the kernel: a script may name a script, but not for ever. */
#define SCRIPT_DEPTH 4
#define SCRIPT_LINE  256
#define PHDRS_MAX    128

/* --- finding ------------------------------------------------------------------------------ */

static bool is_program(const char *path)
{
	struct stat st;

	return !stat(path, &st) && S_ISREG(st.st_mode) && !access(path, X_OK);
}

static int find_by_path(const char *name, char *path)
{
	struct stat st;

	if (strlen(name) >= PATH_MAX)
		say("the path of the VMM is too long");
	else if (stat(name, &st))
		say("cannot run %s: %s", name, strerror(errno));
	else if (!S_ISREG(st.st_mode))
		say("cannot run %s: it is not a file", name);
	else if (access(name, X_OK))
		say("cannot run %s: it is not executable for you", name);
	else
		return strcpy(path, name), 0;
	return -1;
}

int run_find_vmm(const char *name, char *path)
{
	const char *dirs = getenv("PATH");

	if (!*name) {
		say("the VMM's name is empty");
		return -1;
	}
	if (strchr(name, '/'))
		return find_by_path(name, path);
	if (!dirs)
		dirs = "/usr/local/bin:/usr/bin:/bin";
	while (dirs) {
		const char *end = strchrnul(dirs, ':');
		int len = (int)(end - dirs);

		/* An empty entry means the working directory. */
		int used =
			snprintf(path, PATH_MAX, "%.*s/%s", len ? len : 1, len ? dirs : ".", name);
		if (used > 0 && used < PATH_MAX && is_program(path))
			return 0;
		dirs = *end ? end + 1 : NULL;
	}
	say("cannot find %s in PATH: install it, or give its path", name);
	return -1;
}

/* --- looking inside ----------------------------------------------------------------------- */

/* ld.so ignores LD_PRELOAD in a program that gains rights by being started. */
static int check_rights(const char *path, int fd)
{
	struct stat st;
	const char *what = NULL;

	if (fstat(fd, &st)) {
		say("cannot look at %s: %s", path, strerror(errno));
		return -1;
	}
	if ((st.st_mode & S_ISUID) && st.st_uid != getuid())
		what = "set-uid";
	else if ((st.st_mode & S_ISGID) && (st.st_mode & S_IXGRP) && st.st_gid != getgid())
		what = "set-gid";
	else if (getuid() != 0 && fgetxattr(fd, "security.capability", NULL, 0) > 0)
		what = "given file capabilities";
	if (!what)
		return 0;
	say("%s is %s: the system would ignore memvirt in it. Use a copy without that", path, what);
	return -1;
}

/* Read all of a piece of the file; short files are the caller's "not what it should be". */
static bool read_at(int fd, void *buf, size_t len, uint64_t offset)
{
	return offset <= INT64_MAX && pread(fd, buf, len, (off_t)offset) == (ssize_t)len;
}

/* The dynamic linker that a program names, "" for none; -1 where its tables are damaged. */
static int read_interpreter(int fd, const Elf64_Ehdr *ehdr, char *interpreter)
{
	interpreter[0] = '\0';
	if (ehdr->e_phentsize != sizeof(Elf64_Phdr) || ehdr->e_phnum > PHDRS_MAX)
		return -1;
	for (unsigned int i = 0; i < ehdr->e_phnum; i++) {
		Elf64_Phdr phdr;

		if (!read_at(fd, &phdr, sizeof(phdr), ehdr->e_phoff + i * sizeof(phdr)))
			return -1;
		if (phdr.p_type != PT_INTERP)
			continue;
		if (phdr.p_filesz == 0 || phdr.p_filesz >= PATH_MAX ||
		    !read_at(fd, interpreter, phdr.p_filesz, phdr.p_offset))
			return -1;
		interpreter[phdr.p_filesz] = '\0';
		return 0;
	}
	return 0;
}

static int check_elf(const char *path, int fd)
{
	char interpreter[PATH_MAX];
	Elf64_Ehdr ehdr;

	if (!read_at(fd, &ehdr, sizeof(ehdr), 0) || ehdr.e_ident[EI_CLASS] != ELFCLASS64 ||
	    ehdr.e_machine != OWN_MACHINE) {
		say("%s is built for another machine: memvirt manages programs of its own kind "
		    "only",
		    path);
		return -1;
	}
	if (read_interpreter(fd, &ehdr, interpreter)) {
		say("%s is damaged: its ELF headers lead nowhere", path);
		return -1;
	}
	if (!interpreter[0]) {
		say("%s is statically linked: memvirt cannot get into it. Use a dynamically "
		    "linked build, or start it without memvirt",
		    path);
		return -1;
	}
	if (strstr(interpreter, "/ld-musl-")) {
		say("%s is built for the musl C library, memvirt for glibc: use a build for glibc",
		    path);
		return -1;
	}
	return 0;
}

static int check_file(const char *path, unsigned int depth);

/* "#! /usr/bin/env sh": LD_PRELOAD is inherited, so what counts is the interpreter. */
static int check_script(const char *path, char *line, unsigned int depth)
{
	char *interpreter = line + strspn(line, " \t");

	interpreter[strcspn(interpreter, " \t\r\n")] = '\0';
	if (!*interpreter || depth >= SCRIPT_DEPTH) {
		say("%s is a script without a usable interpreter", path);
		return -1;
	}
	return check_file(interpreter, depth + 1);
}

static int check_content(const char *path, int fd, unsigned int depth)
{
	char head[SCRIPT_LINE];
	ssize_t len = pread(fd, head, sizeof(head) - 1, 0);

	if (len < 0) {
		say("cannot read %s: %s", path, strerror(errno));
		return -1;
	}
	head[len] = '\0';
	if (len >= SELFMAG && !memcmp(head, ELFMAG, SELFMAG))
		return check_rights(path, fd) ? -1 : check_elf(path, fd);
	if (len >= 2 && !memcmp(head, "#!", 2))
		return check_script(path, head + 2, depth);
	say("%s is neither an ELF program nor a script", path);
	return -1;
}

static int check_file(const char *path, unsigned int depth)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0) {
		say("cannot read %s: %s", path, strerror(errno));
		return -1;
	}
	int result = check_content(path, fd, depth);
	close(fd);
	return result;
}

int run_check_vmm(const char *path)
{
	return check_file(path, 0);
}
