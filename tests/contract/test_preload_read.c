/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * read-memory of the control socket: what it reads is what the guest sees, wherever the page
 * is; and looking gives no page to what has none.
 */
#include "support/testing.h"
#include "support/fake_vmm.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "vm/base64.h"

#define LIMIT	"4194304"
#define RAM	(32 * MIB)
#define PAGE	4096UL
#define BYTES	40960 /* of one command */
#define REQUEST 65536

/* --- asking -------------------------------------------------------------------------------- */

static struct json_object *ask(const char *ranges)
{
	char arguments[REQUEST];

	insist(snprintf(arguments, sizeof(arguments), "{\"ranges\":%s}", ranges) <
	       (int)sizeof(arguments));
	return vmm_ask("read-memory", arguments);
}

static void decode(struct json_object *answer, size_t index, void *bytes, size_t len)
{
	struct json_object *data, *text;

	insist(json_object_object_get_ex(answer, "data", &data));
	text = json_object_array_get_idx(data, index);
	insist(base64_decode(json_object_get_string(text), (size_t)json_object_get_string_len(text),
			     bytes, len) == 0);
}

static void read_one(const void *at, void *bytes, size_t len)
{
	char range[64];
	struct json_object *answer;

	snprintf(range, sizeof(range), "[[%lu,%zu]]", (unsigned long)at, len);
	answer = ask(range);
	insist(answer);
	decode(answer, 0, bytes, len);
	json_object_put(answer);
}

/* The answer came before we look ourselves: our own look brings the page back. */
static void expect_same(const void *at, size_t len)
{
	unsigned char bytes[BYTES];

	read_one(at, bytes, len);
	insist(memcmp(bytes, at, len) == 0);
}

static void expect_zeros(const void *at, size_t len)
{
	unsigned char bytes[BYTES];

	memset(bytes, 0xff, len);
	read_one(at, bytes, len);
	insist(vmm_is_zero(bytes, len));
}

static uint64_t blocks(int fd)
{
	struct stat st;

	insist(fstat(fd, &st) == 0);
	return (uint64_t)st.st_blocks;
}

/* Whether our own page table has something there: without a touch. */
static bool has_page(const void *at)
{
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	insist(fd >= 0);
	insist(pread(fd, &entry, 8, (off_t)((uintptr_t)at / PAGE * 8)) == 8);
	close(fd);
	return entry >> 62;
}

static void lift_limit(void)
{
	struct json_object *answer = vmm_ask("set-limit", "{\"bytes\":null}");

	insist(answer);
	json_object_put(answer);
}

/* --- content ------------------------------------------------------------------------------- */

static void stored_pages(void)
{
	int fd;
	unsigned char *ram = vmm_full_memfd(RAM, &fd);
	uint64_t before = vmm_stat("restores");

	insist(vmm_stat("stored-pages") > 6000);
	for (unsigned int i = 0; i < 200; i++)
		expect_same(ram + i * 37 * PAGE, 10 * PAGE);
	insist(vmm_stat("restores") > before);
	insist(vmm_stat("poisoned") == 0);
	insist(vmm_holds_content(ram, RAM, 1));
}

static void odd_places(void)
{
	int fd;
	unsigned char *ram = vmm_full_memfd(RAM, &fd);

	expect_same(ram + 1, 1);
	expect_same(ram + PAGE - 3, 7);
	expect_same(ram + 100 * PAGE - 1, 2 * PAGE + 2);
	expect_same(ram + RAM - 5, 5);
	expect_same(ram + 7 * PAGE + 8, 8);
	expect_same(ram + 12345, BYTES);
}

static void many_ranges(void)
{
	static char text[REQUEST];
	int fd, used = 0;
	unsigned char *ram = vmm_full_memfd(RAM, &fd);
	struct json_object *answer;

	for (unsigned int i = 0; i < 512; i++)
		used += snprintf(text + used, sizeof(text) - (size_t)used, "%c[%lu,%u]",
				 i ? ',' : '[', (unsigned long)(ram + i * 13 * PAGE + i), i % 80);
	snprintf(text + used, sizeof(text) - (size_t)used, "]");
	answer = ask(text);
	insist(answer);
	for (unsigned int i = 0; i < 512; i++) {
		unsigned char bytes[80];

		decode(answer, i, bytes, i % 80);
		insist(memcmp(bytes, ram + i * 13 * PAGE + i, i % 80) == 0);
	}
	json_object_put(answer);
}

/* While pages come and go: each word is one that was there. */
static void under_pressure(void)
{
	int fd;
	unsigned char *ram = vmm_full_memfd(RAM, &fd);

	for (unsigned int round = 0; round < 40; round++) {
		insist(vmm_holds_content_at(ram + (round % 8) * 4 * MIB, MIB, 1,
					    (round % 8) * 4 * MIB));
		for (unsigned int i = 0; i < 10; i++)
			expect_same(ram + ((round * 977 + i * 331) % 8000) * PAGE, 10 * PAGE);
	}
}

/* --- nothing ------------------------------------------------------------------------------- */

/* A hole stays a hole, in the file and in the ledger. */
static void holes(void)
{
	int fd = vmm_memfd(RAM);
	unsigned char *ram = vmm_map(RAM, fd, 0);
	uint64_t had, resident, fills;

	vmm_fill(ram, MIB, 1);
	had = blocks(fd);
	resident = vmm_stat_at_rest("resident-bytes");
	fills = vmm_stat_at_rest("zero-fills");
	for (unsigned int i = 0; i < 100; i++)
		expect_zeros(ram + 2 * MIB + i * 64 * PAGE, 10 * PAGE);
	insist(blocks(fd) == had);
	insist(vmm_stat("resident-bytes") == resident);
	insist(vmm_stat("zero-fills") == fills);
	/* And it still is the guest's to fill. */
	vmm_fill(ram + 2 * MIB, MIB, 2);
	expect_same(ram + 2 * MIB, 10 * PAGE);
	insist(vmm_holds_content(ram, MIB, 1));
}

/* Next to one that has content, and read together with it. */
static void holes_between(void)
{
	int fd = vmm_memfd(RAM);
	unsigned char *ram = vmm_map(RAM, fd, 0);
	uint64_t had, fills;

	for (unsigned int i = 0; i < 100; i++)
		ram[3 * i * PAGE] = (unsigned char)(i + 1);
	had = blocks(fd);
	fills = vmm_stat_at_rest("zero-fills");
	for (unsigned int i = 0; i < 100; i++) {
		unsigned char bytes[3 * PAGE];

		read_one(ram + 3 * i * PAGE, bytes, sizeof(bytes));
		insist(bytes[0] == i + 1 && vmm_is_zero(bytes + PAGE, 2 * PAGE));
	}
	insist(blocks(fd) == had);
	insist(vmm_stat("zero-fills") == fills);
}

static void discarded_pages(void)
{
	int fd;
	unsigned char *ram = vmm_full_memfd(RAM, &fd);
	uint64_t fills;

	insist(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8 * MIB, 4 * MIB) == 0);
	insist(vmm_stat("discards") > 0);
	fills = vmm_stat_at_rest("zero-fills");
	for (unsigned int i = 0; i < 64; i++)
		expect_zeros(ram + 8 * MIB + i * 16 * PAGE, 10 * PAGE);
	insist(vmm_stat("zero-fills") == fills);
	insist(vmm_holds_content(ram, 8 * MIB, 1));
}

/* The VMM wrote past the mapping: the ledger knows nothing of it, the file does. */
static void written_to_the_file(void)
{
	int fd = vmm_memfd(RAM);
	unsigned char *ram = vmm_map(RAM, fd, 0);

	insist(vmm_managed());
	insist(pwrite(fd, "by the file", 11, 3 * MIB) == 11);
	expect_same(ram + 3 * MIB, 64);
	insist(memcmp(ram + 3 * MIB, "by the file", 11) == 0);
}

/* Without a limit the ledger knows of no page. */
static void unlimited(void)
{
	int fd = vmm_memfd(RAM);
	unsigned char *ram = vmm_map(RAM, fd, 0);
	uint64_t had;

	vmm_fill(ram, MIB, 1);
	had = blocks(fd);
	expect_same(ram + 5 * PAGE, 10 * PAGE);
	expect_zeros(ram + 4 * MIB, 10 * PAGE);
	insist(blocks(fd) == had);
}

static void limit_lifted(void)
{
	int fd;
	unsigned char *ram = vmm_full_memfd(RAM, &fd);

	lift_limit();
	for (unsigned int i = 0; i < 100; i++)
		expect_same(ram + i * 64 * PAGE, 10 * PAGE);
}

/* --- private memory ------------------------------------------------------------------------ */

static unsigned char *private_vm(void)
{
	unsigned char *ram = vmm_map(RAM, -1, 0);

	insist(vmm_managed());
	if (!vmm_region(0).managed)
		vmm_skip(vmm_region(0).reason);
	return ram;
}

static void private_pages(void)
{
	unsigned char *ram = private_vm();
	uint64_t fills;

	vmm_fill(ram, 16 * MIB, 1);
	vmm_wait_at_most("resident-bytes", 4 * MIB);
	fills = vmm_stat_at_rest("zero-fills");
	for (unsigned int i = 0; i < 100; i++) {
		expect_same(ram + i * 37 * PAGE, 10 * PAGE);
		expect_zeros(ram + 20 * MIB + i * 16 * PAGE, 10 * PAGE);
		insist(!has_page(ram + 20 * MIB + i * 16 * PAGE));
	}
	insist(vmm_stat("zero-fills") == fills);
	insist(vmm_holds_content(ram, 16 * MIB, 1));
}

static void private_unlimited(void)
{
	unsigned char *ram = vmm_map(RAM, -1, 0);

	insist(vmm_managed());
	insist(madvise(ram, RAM, MADV_NOHUGEPAGE) == 0);
	vmm_fill(ram, MIB, 1);
	expect_same(ram, 10 * PAGE);
	expect_zeros(ram + 4 * MIB, 10 * PAGE);
	insist(!has_page(ram + 4 * MIB));
}

/* --- refusals ------------------------------------------------------------------------------ */

static void refuse(const char *ranges)
{
	struct json_object *answer = ask(ranges);

	if (answer)
		fprintf(stderr, "%s was taken\n", ranges);
	insist(!answer);
}

static void refusals(void)
{
	char range[128];
	int fd;
	unsigned char *ram = vmm_full_memfd(RAM, &fd);
	static int own;

	refuse("7");
	refuse("[7]");
	refuse("[[1,2,3]]");
	refuse("[[-4096,8]]");
	refuse("[[\"0\",8]]");
	refuse("[[4096,8]]");
	refuse("[[18446744073709551615,8]]");
	insist(!vmm_ask("read-memory", NULL));
	/* No door to the rest of the VMM's memory. */
	snprintf(range, sizeof(range), "[[%lu,4]]", (unsigned long)&own);
	refuse(range);
	snprintf(range, sizeof(range), "[[%lu,4096]]", (unsigned long)(ram + RAM - 4095));
	refuse(range);
	snprintf(range, sizeof(range), "[[%lu,%d]]", (unsigned long)ram, BYTES + 1);
	refuse(range);
	snprintf(range, sizeof(range), "[[%lu,%d],[%lu,1]]", (unsigned long)ram, BYTES,
		 (unsigned long)ram);
	refuse(range);
	json_object_put(ask("[]"));
	expect_same(ram, BYTES);
}

/* One that is unmapped is guest memory no more. */
static void unmapped(void)
{
	char range[64];
	int fd;
	unsigned char *ram = vmm_full_memfd(RAM, &fd);

	insist(munmap(ram, RAM) == 0);
	snprintf(range, sizeof(range), "[[%lu,8]]", (unsigned long)ram);
	refuse(range);
}

/* query-info says where guest memory is. */
static void where_it_is(void)
{
	int fd;
	unsigned char *ram = vmm_full_memfd(RAM, &fd);
	struct json_object *info = vmm_ask("query-info", NULL), *regions, *hva;

	insist(info && json_object_object_get_ex(info, "regions", &regions));
	insist(json_object_object_get_ex(json_object_array_get_idx(regions, 0), "first-hva", &hva));
	insist(json_object_get_uint64(hva) == (uint64_t)(uintptr_t)ram);
	json_object_put(info);
}

/* --------------------------------------------------------------------------------------------- */

static const struct vmm_scenario scenarios[] = {
	{ "stored-pages", stored_pages },
	{ "odd-places", odd_places },
	{ "many-ranges", many_ranges },
	{ "under-pressure", under_pressure },
	{ "holes", holes },
	{ "holes-between", holes_between },
	{ "discarded-pages", discarded_pages },
	{ "written-to-the-file", written_to_the_file },
	{ "unlimited", unlimited, .unlimited = true },
	{ "limit-lifted", limit_lifted },
	{ "private-pages", private_pages },
	{ "private-unlimited", private_unlimited, .unlimited = true },
	{ "refusals", refusals },
	{ "unmapped", unmapped },
	{ "where-it-is", where_it_is },
};

int main(int argc, char **argv)
{
	return vmm_run_all(argc, argv, scenarios, COUNT_OF(scenarios), LIMIT);
}
