/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * What QEMU says of its machine, understood: real answers of QEMU 7.2, answers that are odd, and
 * answers that are none.
 */
#include "support/testing.h"

#include <errno.h>

#include "vm/machine.h"

static const char registers_64[] =
	"\r\nCPU#0\r\nRAX=000000000001ad40 RBX=0000000000000000\r\n"
	"RIP=ffffffffb6e592eb RFL=00040246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=1\r\n"
	"CS =0010 0000000000000000 ffffffff 00af9b00 DPL=0 CS64 [-RA]\r\n"
	"CR0=80050033 CR2=00000000005794a9 CR3=000000010251a000 CR4=00751ef0\r\n"
	"DR6=00000000ffff0ff0 DR7=0000000000000400\r\nEFER=0000000000000d01\r\n"
	"FCW=037f FSW=0000 [ST=0] FTW=00 MXCSR=00001f80\r\n";

static const char registers_32[] =
	"EAX=00000000 EBX=00000000\r\nEIP=c1a2b3c4 EFL=00000246 [---Z-P-] CPL=0 II=0\r\n"
	"CR0=80050033 CR2=b7f00000 CR3=01234000 CR4=00000690\r\nEFER=0000000000000000\r\n";

static void registers_are_found(void **state)
{
	struct machine_registers r;

	assert_int_equal(machine_parse_registers(registers_64, &r), 0);
	assert_true(r.cr0 == 0x80050033 && r.cr3 == 0x10251a000 && r.cr4 == 0x751ef0);
	assert_true(r.efer == 0xd01 && r.rflags == 0x40246 && r.cpl == 3 && !r.pkru_known);
	assert_int_equal(machine_parse_registers(registers_32, &r), 0);
	assert_true(r.cr3 == 0x1234000 && r.rflags == 0x246 && r.efer == 0 && r.cpl == 0);
	assert_int_equal(
		machine_parse_registers("CR0=1 CR3=2 CR4=3 CPL=0 RFL=2 PKRU=55555554\n", &r), 0);
	assert_true(r.pkru_known && r.pkru == 0x55555554);
}

static void no_registers_are_no_success(void **state)
{
	static const char *const bad[] = {
		"",
		"unknown command: 'info registers'\r\n",
		"CR0=80050033 CR2=0 CR4=0 CPL=0 RFL=2",
		"CR0=80050033 CR3=x CR4=0 CPL=0 RFL=2",
		"CR0=80050033 CR3=1z CR4=0 CPL=0 RFL=2",
		"CR0=80050033 CR3=11111111111111111 CR4=0 CPL=0 RFL=2",
		"XCR0=7 CR3=0 CR4=0 CPL=0 RFL=2",
		"CR0=1 CR3=0 CR4=0 CPL=0",
		" X00=0 PSTATE=3c5 EL1h\r\n",
	};
	struct machine_registers r = { .cr3 = 77 };

	for (size_t i = 0; i < COUNT_OF(bad); i++)
		assert_int_equal(machine_parse_registers(bad[i], &r), -EBADMSG);
	assert_int_equal(r.cr3, 77);
}

static const char memory[] =
	"FlatView #0\r\n AS \"mch\", root: bus master container\r\n"
	" Root memory region: (none)\r\n  No rendered FlatView\r\n\r\n"
	"FlatView #1\r\n AS \"I/O\", root: io\r\n Root memory region: io\r\n"
	"  0000000000000000-0000000000000007 (prio 0, i/o): dma-chan\r\n\r\n"
	"FlatView #2\r\n AS \"memory\", root: system\r\n AS \"cpu-memory-0\", root: system\r\n"
	" Root memory region: system\r\n"
	"  0000000000000000-00000000000bffff (prio 0, ram): m0 KVM\r\n"
	"  00000000000c0000-00000000000c3fff (prio 0, rom): m0 @00000000000c0000 KVM\r\n"
	"  00000000000c4000-0000000007ffffff (prio 0, ram): m0 @00000000000c4000\r\n"
	"  00000000b0000000-00000000bfffffff (prio 0, i/o): pcie-mmcfg-mmio\r\n"
	"  00000000c0000000-00000000c0ffffff (prio 1, ram): 0000:00:02.0/vga.vram\r\n"
	"  00000000d0000000-00000000d0000fff (prio 0, ramd): 0000:01:00.0 BAR 0 mmaps[0]\r\n"
	"  00000000fffc0000-00000000ffffffff (prio 0, romd): /rom@etc/acpi/tables\r\n"
	"  0000000100000000-0000000107ffffff (prio 0, ram): m0 @0000000008000000\r\n"
	"  0000000200000000-00000002ffffffff (prio 0, nv-ram): a b\r\n"
	"\r\nFlatView #3\r\n AS \"cpu-smm-0\", root: memory\r\n Root memory region: memory\r\n"
	"  0000000000000000-00000000ffffffff (prio 0, ram): wrong\r\n";

static void memory_is_laid_out(void **state)
{
	static const struct machine_range wanted[] = {
		{ 0, 0xbffff, false, "m0", 0 },
		{ 0xc0000, 0xc3fff, true, "m0", 0xc0000 },
		{ 0xc4000, 0x7ffffff, false, "m0", 0xc4000 },
		{ 0xc0000000, 0xc0ffffff, false, "0000:00:02.0/vga.vram", 0 },
		{ 0xfffc0000, 0xffffffff, true, "/rom@etc/acpi/tables", 0 },
		{ 0x100000000, 0x107ffffff, false, "m0", 0x8000000 },
		{ 0x200000000, 0x2ffffffff, false, "a b", 0 },
	};
	struct machine_range *ranges;
	unsigned int count;

	assert_int_equal(machine_parse_memory(memory, &ranges, &count), 0);
	assert_int_equal(count, COUNT_OF(wanted));
	for (unsigned int i = 0; i < count; i++) {
		assert_int_equal(ranges[i].first_gpa, wanted[i].first_gpa);
		assert_int_equal(ranges[i].last_gpa, wanted[i].last_gpa);
		assert_int_equal(ranges[i].rom, wanted[i].rom);
		assert_string_equal(ranges[i].block, wanted[i].block);
		assert_int_equal(ranges[i].offset, wanted[i].offset);
	}
	free(ranges);
}

static void no_memory_is_no_success(void **state)
{
	static const char *const bad[] = {
		"",
		"FlatView #0\n AS \"I/O\", root: io\n  0-7 (prio 0, ram): m0\n",
		"FlatView #0\n AS \"memory\", root: system\n",
		"FlatView #0\n AS \"memory\", root: system\n  No rendered FlatView\n",
		" AS \"memory\", root: system\n  0000000000000000-0000000000000fff (prio 0, ram): "
		"m\n",
		/* Not in order: a lookup would not find them. */
		"FlatView #0\n AS \"memory\", root: system\n"
		"  0000000000001000-0000000000001fff (prio 0, ram): m\n"
		"  0000000000000000-0000000000000fff (prio 0, ram): m\n",
		"FlatView #0\n AS \"memory\", root: system\n"
		"  0000000000000000-0000000000001fff (prio 0, ram): m\n"
		"  0000000000001000-0000000000002fff (prio 0, ram): m\n",
		"FlatView #0\n AS \"memory\", root: system\n"
		"  0000000000002000-0000000000001fff (prio 0, ram): m\n",
	};
	struct machine_range *ranges = NULL;
	unsigned int count = 9;

	for (size_t i = 0; i < COUNT_OF(bad); i++)
		assert_int_equal(machine_parse_memory(bad[i], &ranges, &count), -EBADMSG);
	assert_true(!ranges && count == 9);
}

/* Whatever is cut off or changed: an answer or a refusal, no crash (sanitizers look on). */
static void broken_answers_do_no_harm(void **state)
{
	char text[sizeof(memory)];
	struct machine_range *ranges;
	unsigned int count;
	struct chance chance = chance_of(test_seed(), 0);

	for (size_t cut = 0; cut < sizeof(memory); cut++) {
		memcpy(text, memory, sizeof(memory));
		text[cut] = '\0';
		if (!machine_parse_memory(text, &ranges, &count))
			free(ranges);
	}
	for (int i = 0; i < 20000; i++) {
		memcpy(text, memory, sizeof(memory));
		for (int j = 0; j < 3; j++) {
			uint64_t number = chance_next(&chance);

			text[number % (sizeof(memory) - 1)] = (char)(number >> 56);
		}
		if (!machine_parse_memory(text, &ranges, &count))
			free(ranges);
	}
}

static void long_names_are_cut(void **state)
{
	char text[600];
	struct machine_range *ranges;
	unsigned int count;

	snprintf(text, sizeof(text),
		 "FlatView #0\n AS \"memory\", root: system\n"
		 "  0000000000000000-0000000000000fff (prio 0, ram): %0300d\n",
		 0);
	assert_int_equal(machine_parse_memory(text, &ranges, &count), 0);
	assert_int_equal(strlen(ranges[0].block), MACHINE_NAME_MAX - 1);
	free(ranges);
}

static void host_addresses(void **state)
{
	uint64_t hva = 5;

	assert_int_equal(
		machine_parse_hva("Host virtual address for 0x0 (m0) is 0x7faecffff000\r\n", &hva),
		0);
	assert_true(hva == 0x7faecffff000);
	assert_int_equal(machine_parse_hva("Host virtual address for 0x0 (a) is 0x1) is 0x2000\r\n",
					   &hva),
			 -EBADMSG);
	assert_int_equal(machine_parse_hva("No memory is mapped at address 0xe0000000\r\n", &hva),
			 -ENOENT);
	assert_int_equal(machine_parse_hva("Memory at address 0xfec00000 is not RAM\r\n", &hva),
			 -ENOENT);
	assert_int_equal(machine_parse_hva("", &hva), -EBADMSG);
	assert_int_equal(machine_parse_hva("unknown command: 'gpa2hva'", &hva), -EBADMSG);
	assert_int_equal(machine_parse_hva("Host virtual address for 0x0 (m0) is (nil)", &hva),
			 -EBADMSG);
	assert_true(hva == 0x7faecffff000);
}

static void processors(void **state)
{
	struct json_object *answer = json_tokener_parse(
		"[{\"cpu-index\":0,\"qom-path\":\"/a\"},{\"cpu-index\":1,\"qom-path\":\"/b\"},"
		"{\"cpu-index\":2},7]");
	struct json_object *none = json_tokener_parse("{\"cpu-index\":0}");
	unsigned int count;

	assert_string_equal(machine_find_cpu(answer, 1, &count), "/b");
	assert_int_equal(count, 4);
	assert_null(machine_find_cpu(answer, 2, &count));
	assert_null(machine_find_cpu(answer, 3, &count));
	assert_null(machine_find_cpu(none, 0, &count));
	assert_int_equal(count, 0);
	json_object_put(answer);
	json_object_put(none);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(registers_are_found),
		cmocka_unit_test(no_registers_are_no_success),
		cmocka_unit_test(memory_is_laid_out),
		cmocka_unit_test(no_memory_is_no_success),
		cmocka_unit_test(broken_answers_do_no_harm),
		cmocka_unit_test(long_names_are_cut),
		cmocka_unit_test(host_addresses),
		cmocka_unit_test(processors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
