/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Mappings of this process, from /proc; see backing.h.
 */
#include "memvirt/preload/backing.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <memvirt/memory.h>

/* struct mapping - a line of /proc/self/maps; @path lives until the next line is read */
struct mapping {
	uintptr_t first;
	uintptr_t last;
	char perms[5];
	uint64_t offset;
	dev_t dev;
	ino_t ino;
	const char *path;
};

const char *backing_kind_name(enum backing_kind kind)
{
	static const char *const names[] = {
		[BACKING_ANONYMOUS] = "anonymous", [BACKING_MEMFD] = "memfd",
		[BACKING_SHM_FILE] = "shm-file",   [BACKING_HUGETLB] = "hugetlb",
		[BACKING_FILE] = "file",
	};

	return names[kind];
}

static bool parse(char *line, struct mapping *mapping)
{
	unsigned int major, minor;
	uintptr_t end;
	uint64_t ino;
	int used = 0;

	line[strcspn(line, "\n")] = '\0';
	if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %4s %" SCNx64 " %x:%x %" SCNu64 " %n",
		   &mapping->first, &end, mapping->perms, &mapping->offset, &major, &minor, &ino,
		   &used) < 7 ||
	    !used)
		return false;
	mapping->last = end - 1;
	mapping->dev = makedev(major, minor);
	mapping->ino = ino;
	mapping->path = line + used;
	return true;
}

static bool starts(const char *text, const char *with)
{
	return strncmp(text, with, strlen(with)) == 0;
}

/* Whether an open descriptor can serve as ours: the same file, open both ways. */
static bool same_file(int fd, dev_t dev, ino_t ino)
{
	struct stat st;
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && (flags & O_ACCMODE) == O_RDWR && !(flags & O_PATH) &&
	       fstat(fd, &st) == 0 && st.st_dev == dev && st.st_ino == ino;
}

/* The VMM nearly always keeps the descriptor that it mapped. Return: ours, or -1. */
static int find_open_file(dev_t dev, ino_t ino)
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *entry;
	int found = -1;

	if (!dir)
		return -1;
	while (found < 0 && (entry = readdir(dir))) {
		int fd = atoi(entry->d_name);

		if (entry->d_name[0] != '.' && fd != dirfd(dir) && same_file(fd, dev, ino))
			found = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	}
	closedir(dir);
	return found;
}

/*
 * Shared anonymous memory has no descriptor, and a VMM may have closed that of a memfd. The
 * kernel opens what is mapped for us, given CAP_CHECKPOINT_RESTORE or CAP_SYS_ADMIN.
 */
static int open_mapped_file(const struct mapping *mapping)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/map_files/%" PRIxPTR "-%" PRIxPTR, mapping->first,
		 mapping->last + 1);
	return open(path, O_RDWR | O_CLOEXEC);
}

static enum backing_kind kind_of_file(int fd, const char *path)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) != 0)
		return BACKING_FILE;
	if (fs.f_type == HUGETLBFS_MAGIC)
		return BACKING_HUGETLB;
	if (fs.f_type != TMPFS_MAGIC)
		return BACKING_FILE;
	return starts(path, "/memfd:") ? BACKING_MEMFD : BACKING_SHM_FILE;
}

/* A touch behind the end of the file is a SIGBUS: such a tail is no memory. */
static void cut_at_end_of_file(struct backing *piece)
{
	struct stat st;
	uint64_t room;

	if (fstat(piece->fd, &st) != 0)
		return;
	room = (uint64_t)st.st_size > piece->offset ? (uint64_t)st.st_size - piece->offset : 0;
	room &= ~(uint64_t)(MV_PAGE_SIZE - 1);
	if (room == 0)
		piece->why = "it lies behind the end of its file";
	else if (piece->last - piece->first >= room)
		piece->last = piece->first + room - 1;
}

static void identify_shared(const struct mapping *mapping, struct backing *piece)
{
	piece->fd = find_open_file(piece->dev, piece->ino);
	if (piece->fd < 0)
		piece->fd = open_mapped_file(mapping);
	if (piece->fd < 0) {
		piece->kind = starts(mapping->path, "/memfd:") ? BACKING_MEMFD : BACKING_SHM_FILE;
		piece->why = "its file is not open any more, and opening it again takes "
			     "CAP_CHECKPOINT_RESTORE: run as root, or use memory-backend-memfd";
		return;
	}
	piece->kind = kind_of_file(piece->fd, mapping->path);
	if (piece->kind == BACKING_HUGETLB)
		piece->why = "huge pages of hugetlbfs are not managed: use ordinary memory "
			     "(transparent huge pages are fine)";
	else if (piece->kind == BACKING_FILE)
		piece->why = "a file on disk is not managed: use memory-backend-memfd";
}

static void identify_private(const struct mapping *mapping, struct backing *piece)
{
	if (piece->ino == 0) {
		piece->kind = BACKING_ANONYMOUS;
		return;
	}
	if (starts(mapping->path, "/anon_hugepage")) {
		piece->kind = BACKING_HUGETLB;
		piece->why = "huge pages of hugetlbfs are not managed: use ordinary memory "
			     "(transparent huge pages are fine)";
		return;
	}
	piece->kind = BACKING_FILE;
	piece->why = "a private copy of a file is not managed: use share=on";
}

static void identify(const struct mapping *mapping, struct backing *piece)
{
	piece->fd = -1;
	piece->why = NULL;
	if (piece->shared)
		identify_shared(mapping, piece);
	else
		identify_private(mapping, piece);
}

/* The kernel keeps neighbours apart that differ only in advice or NUMA policy. */
static bool continues(const struct backing *piece, const struct mapping *mapping)
{
	return piece->last + 1 == mapping->first && piece->ino == mapping->ino &&
	       piece->dev == mapping->dev && piece->shared == (mapping->perms[3] == 's') &&
	       (piece->ino == 0 ||
		piece->offset + (mapping->first - piece->first) == mapping->offset);
}

static void begin_piece(const struct mapping *mapping, uintptr_t first, struct backing *piece)
{
	uintptr_t from = first > mapping->first ? first : mapping->first;

	memset(piece, 0, sizeof(*piece));
	piece->first = from;
	piece->last = mapping->last;
	piece->offset = mapping->offset + (from - mapping->first);
	piece->shared = mapping->perms[3] == 's';
	piece->dev = mapping->dev;
	piece->ino = mapping->ino;
	piece->fd = -1;
}

/* Return: whether the mapping became a new piece; false where it continues the last one. */
static bool take_mapping(const struct mapping *mapping, uintptr_t first, struct backing *pieces,
			 unsigned int *count)
{
	if (*count && continues(&pieces[*count - 1], mapping)) {
		pieces[*count - 1].last = mapping->last;
		return false;
	}
	if (*count == BACKING_PIECES_MAX)
		return false;
	begin_piece(mapping, first, &pieces[(*count)++]);
	return true;
}

int backing_examine(uintptr_t first, uintptr_t last, struct backing *pieces, unsigned int *count)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char *line = NULL;
	size_t room = 0;
	struct mapping mapping;

	if (!maps)
		return -errno;
	*count = 0;
	while (getline(&line, &room, maps) > 0) {
		if (!parse(line, &mapping) || mapping.last < first || !starts(mapping.perms, "rw"))
			continue;
		if (mapping.first > last)
			break;
		if (take_mapping(&mapping, first, pieces, count))
			identify(&mapping, &pieces[*count - 1]);
	}
	free(line);
	fclose(maps);
	for (unsigned int i = 0; i < *count; i++) {
		if (pieces[i].last > last)
			pieces[i].last = last;
		if (pieces[i].fd >= 0 && !pieces[i].why)
			cut_at_end_of_file(&pieces[i]);
	}
	return 0;
}
