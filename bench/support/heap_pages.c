/* SPDX-License-Identifier: BSD-2-Clause */
/* Pages of a Python process; see heap_pages.h. */
#include "support/heap_pages.h"

#include <stdio.h>

#define PAGE 4096UL

/* Parses modules until there is enough to show, then writes its own anonymous memory. */
static const char command[] =
	"python3 -c '\n"
	"import ast, json, os, pathlib, re\n"
	"trees = []\n"
	"for path in sorted(pathlib.Path(json.__file__).parents[1].glob(\"*.py\"))[:120]:\n"
	"    trees.append(ast.parse(path.read_text()))\n"
	"regions = [re.match(\"([0-9a-f]+)-([0-9a-f]+) rw-p 00000000 00:00 0\", line)\n"
	"           for line in open(\"/proc/self/maps\")]\n"
	"with open(\"/proc/self/mem\", \"rb\", 0) as memory, open(1, \"wb\", 0) as out:\n"
	"    for region in filter(None, regions):\n"
	"        first, end = int(region[1], 16), int(region[2], 16)\n"
	"        for at in range(first, end, 1 << 20):\n"
	"            memory.seek(at)\n"
	"            out.write(memory.read(min(1 << 20, end - at)))\n"
	"' 2>/dev/null";

int heap_pages(void *pages, size_t count)
{
	FILE *python = popen(command, "r");
	size_t got;

	if (!python)
		return -1;
	got = fread(pages, PAGE, count, python);
	/* It may well have more to write than is wanted, and then ends by a broken pipe. */
	pclose(python);
	return got == count ? 0 : -1;
}
