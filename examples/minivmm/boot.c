/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Starting a guest in 64-bit mode: a Linux kernel by its boot protocol
 * (Documentation/arch/x86/boot.rst of Linux, "64-bit boot protocol"), or a payload.
 */
#include <asm/bootparam.h>
#include <errno.h>
#include <linux/kvm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "minivmm.h"

/* Below 1 MiB. */
#define GDT_GPA	    0x500UL
#define PARAMS_GPA  0x7000UL
#define STACK_GPA   0x8ff0UL
#define TABLES_GPA  0x9000UL /* one page, one page, and one for each GiB */
#define CMDLINE_GPA 0x20000UL
#define CMDLINE_MAX 2048
#define LOW_END	    0x9fc00UL

#define CODE_GPA 0x100000UL

/* From its code's start, in bytes. */
#define ENTRY_64 0x200

#define CODE_SELECTOR 0x10
#define DATA_SELECTOR 0x18

/* Of the structures that the processor reads: Intel SDM volume 3, 3.4.5 and 4.5. */
#define GDT_CODE_64   0x00af9b000000ffffULL
#define GDT_DATA      0x00cf93000000ffffULL
#define TABLE_PRESENT 0x3ULL
#define TABLE_LARGE   0x83ULL

#define CR0_PE	 0x1ULL
#define CR0_PG	 0x80000000ULL
#define CR4_PAE	 0x20ULL
#define EFER_LME 0x100ULL
#define EFER_LMA 0x400ULL

/** struct file - what was read */
struct file {
	unsigned char *data;
	size_t bytes;
};

static struct file read_file(const char *path)
{
	FILE *stream = fopen(path, "rb");
	struct file file = { 0 };
	long bytes = -1;

	if (stream && !fseek(stream, 0, SEEK_END))
		bytes = ftell(stream);
	if (bytes < 0)
		die("%s: %s", path, strerror(errno));
	rewind(stream);
	file.bytes = (size_t)bytes;
	file.data = malloc(file.bytes + 1);
	if (!file.data || fread(file.data, 1, file.bytes, stream) != file.bytes)
		die("%s: cannot be read whole", path);
	fclose(stream);
	return file;
}

/* --- the processor ------------------------------------------------------------------------ */

/* The first 4 GiB at their own addresses, by pages of 2 MiB. */
static void write_tables(struct ram *ram)
{
	uint64_t pdpt = TABLES_GPA + 4096, entry = pdpt | TABLE_PRESENT;
	uint64_t table[512];

	ram_write(ram, TABLES_GPA, &entry, sizeof(entry));
	for (uint64_t gib = 0; gib < 4; gib++) {
		uint64_t pd = pdpt + 4096 * (gib + 1);

		entry = pd | TABLE_PRESENT;
		ram_write(ram, pdpt + 8 * gib, &entry, sizeof(entry));
		for (uint64_t i = 0; i < 512; i++)
			table[i] = (gib << 30 | i << 21) | TABLE_LARGE;
		ram_write(ram, pd, table, sizeof(table));
	}
}

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool code)
{
	return (struct kvm_segment){ .limit = 0xffffffff,
				     .selector = selector,
				     .type = type,
				     .present = 1,
				     .db = !code,
				     .s = 1,
				     .l = code,
				     .g = 1 };
}

static void enter(struct vmm *vmm, uint64_t rip, uint64_t rsi)
{
	const uint64_t gdt[] = { 0, 0, GDT_CODE_64, GDT_DATA };
	struct kvm_regs regs = { .rip = rip, .rsi = rsi, .rsp = STACK_GPA, .rflags = 2 };
	struct kvm_sregs sregs;

	write_tables(&vmm->ram);
	ram_write(&vmm->ram, GDT_GPA, gdt, sizeof(gdt));
	if (ioctl(vmm->vcpu, KVM_GET_SREGS, &sregs))
		die("KVM_GET_SREGS: %s", strerror(errno));
	sregs.gdt.base = GDT_GPA;
	sregs.gdt.limit = sizeof(gdt) - 1;
	sregs.cs = segment(CODE_SELECTOR, 11, true);
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = segment(DATA_SELECTOR, 3, false);
	sregs.cr3 = TABLES_GPA;
	sregs.cr4 |= CR4_PAE;
	sregs.cr0 |= CR0_PE | CR0_PG;
	sregs.efer |= EFER_LME | EFER_LMA;
	if (ioctl(vmm->vcpu, KVM_SET_SREGS, &sregs) || ioctl(vmm->vcpu, KVM_SET_REGS, &regs))
		die("the processor's registers: %s", strerror(errno));
}

/* --- Linux -------------------------------------------------------------------------------- */

static void add_range(struct boot_params *params, uint64_t first, uint64_t end, uint32_t type)
{
	params->e820_table[params->e820_entries++] =
		(struct boot_e820_entry){ .addr = first, .size = end - first, .type = type };
}

static void describe_memory(struct boot_params *params, uint64_t bytes)
{
	add_range(params, 0, LOW_END, 1);
	add_range(params, LOW_END, CODE_GPA, 2);
	add_range(params, CODE_GPA, bytes, 1);
}

/* The header begins at 0x1f1 and says itself where it ends. */
static void take_header(struct boot_params *params, const struct file *kernel, const char *path)
{
	size_t end = 0x202 + (kernel->bytes > 0x201 ? kernel->data[0x201] : 0);

	if (kernel->bytes < 4096 || end > sizeof(params->hdr) + 0x1f1)
		end = 0x1f1 + sizeof(params->hdr);
	if (kernel->bytes < 4096)
		die("%s: is no Linux kernel", path);
	memcpy(&params->hdr, kernel->data + 0x1f1, end - 0x1f1);
	if (params->hdr.header != 0x53726448 || params->hdr.version < 0x20c ||
	    !(params->hdr.xloadflags & XLF_KERNEL_64))
		die("%s: is no 64-bit Linux kernel (bzImage)", path);
}

/* As high as it goes, on a page. */
static void load_initrd(struct vmm *vmm, struct boot_params *params, uint64_t code_end)
{
	struct file initrd;
	uint64_t gpa;

	if (!vmm->options.initrd)
		return;
	initrd = read_file(vmm->options.initrd);
	if (initrd.bytes > vmm->ram.bytes || vmm->ram.bytes - initrd.bytes < code_end)
		die("%s: is too large for the guest's memory", vmm->options.initrd);
	gpa = (vmm->ram.bytes - initrd.bytes) & ~4095ULL;
	ram_write(&vmm->ram, gpa, initrd.data, initrd.bytes);
	params->hdr.ramdisk_image = (uint32_t)gpa;
	params->hdr.ramdisk_size = (uint32_t)initrd.bytes;
	free(initrd.data);
}

static void load_cmdline(struct vmm *vmm, struct boot_params *params)
{
	const char *text = vmm->options.append ? vmm->options.append : "console=ttyS0";

	if (strlen(text) >= CMDLINE_MAX)
		die("the kernel's command line is too long");
	ram_write(&vmm->ram, CMDLINE_GPA, text, strlen(text) + 1);
	params->hdr.cmd_line_ptr = CMDLINE_GPA;
}

void boot_linux(struct vmm *vmm)
{
	struct file kernel = read_file(vmm->options.kernel);
	struct boot_params params = { 0 };
	size_t code;

	if (!vmm->irqchip)
		die("this host's KVM has no interrupt controllers: Linux cannot run, but "
		    "--payload can");
	take_header(&params, &kernel, vmm->options.kernel);
	code = (size_t)(params.hdr.setup_sects ? params.hdr.setup_sects + 1 : 5) * 512;
	if (code >= kernel.bytes || CODE_GPA + params.hdr.init_size > vmm->ram.bytes)
		die("%s: is too large for the guest's memory", vmm->options.kernel);
	params.hdr.type_of_loader = 0xff;
	params.acpi_rsdp_addr = ACPI_GPA;
	describe_memory(&params, vmm->ram.bytes);
	load_initrd(vmm, &params, CODE_GPA + params.hdr.init_size);
	load_cmdline(vmm, &params);
	acpi_write(&vmm->ram);
	ram_write(&vmm->ram, CODE_GPA, kernel.data + code, kernel.bytes - code);
	ram_write(&vmm->ram, PARAMS_GPA, &params, sizeof(params));
	free(kernel.data);
	enter(vmm, CODE_GPA + ENTRY_64, PARAMS_GPA);
}

/* --- a payload ---------------------------------------------------------------------------- */

void boot_payload(struct vmm *vmm)
{
	struct file payload = read_file(vmm->options.payload);

	ram_write(&vmm->ram, CODE_GPA, payload.data, payload.bytes);
	free(payload.data);
	/* It is told how much memory there is. */
	enter(vmm, CODE_GPA, vmm->ram.bytes);
}
