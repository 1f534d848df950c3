/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * main() of a fuzz target without a fuzzer: runs each file of a directory once. Built by any
 * compiler, so that the corpus is a part of `make check`.
 */
#include <dirent.h>
#include <limits.h>
#include <sys/stat.h>

#include "support/fuzz_input.h"
#include "support/testing.h"

#define INPUT_MAX (1 << 20)

static void run_file(const char *dir, const char *name)
{
	static uint8_t data[INPUT_MAX];
	char path[PATH_MAX];
	size_t size;
	FILE *file;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	file = fopen(path, "rb");
	insist(file);
	size = fread(data, 1, sizeof(data), file);
	insist(!ferror(file));
	fclose(file);
	/* Said first: where the input ends the program, this is the last line. */
	printf("# %s, %zu bytes\n", name, size);
	fflush(stdout);
	LLVMFuzzerTestOneInput(data, size);
}

/* Return: how many there were. */
static unsigned int run_directory(const char *dir)
{
	struct dirent *entry;
	DIR *files = opendir(dir);
	unsigned int count = 0;

	while (files && (entry = readdir(files))) {
		if (entry->d_name[0] == '.')
			continue;
		run_file(dir, entry->d_name);
		count++;
	}
	if (files)
		closedir(files);
	return count;
}

int main(int argc, char **argv)
{
	unsigned int count;

	if (argc != 2) {
		fprintf(stderr, "usage: %s CORPUS-DIRECTORY\n", argv[0]);
		return 2;
	}
	printf("1..1\n");
	count = run_directory(argv[1]);
	printf("%s 1 - %u inputs of %s\n", count ? "ok" : "not ok", count, argv[1]);
	return !count;
}
