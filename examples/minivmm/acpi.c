/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * ACPI tables, as few as Linux needs to find an IOAPIC, the console and a virtio device over
 * MMIO. ACPI specification 6.5: 5.2 for the tables, 20 for the byte code (AML) of the DSDT.
 */
#include <string.h>

#include "minivmm.h"

#define LAPIC_GPA  0xfee00000U
#define IOAPIC_GPA 0xfec00000U

/** struct out - a table being written, at its place in guest memory */
struct out {
	struct ram *ram;
	uint64_t gpa; /* of the next table */
	unsigned char bytes[1024];
	unsigned int len;
};

static void put(struct out *out, const void *data, unsigned int len)
{
	if (len > sizeof(out->bytes) - out->len)
		die("an ACPI table is too long");
	memcpy(out->bytes + out->len, data, len);
	out->len += len;
}

static void put_number(struct out *out, uint64_t value, unsigned int len)
{
	put(out, &value, len);
}

/* All bytes of a table add up to 0. */
static unsigned char checksum(const unsigned char *bytes, unsigned int len)
{
	unsigned char sum = 0;

	for (unsigned int i = 0; i < len; i++)
		sum = (unsigned char)(sum + bytes[i]);
	return (unsigned char)-sum;
}

/* 5.2.6: the header of all but the first. Length and checksum follow at the end. */
static void begin(struct out *out, const char *signature, unsigned char revision)
{
	out->len = 0;
	put(out, signature, 4);
	put_number(out, 0, 4);
	put_number(out, revision, 1);
	put_number(out, 0, 1);
	put(out, "MEMVRTMINIVMM ", 14);
	put_number(out, 1, 4);
	put(out, "MEMV", 4);
	put_number(out, 1, 4);
}

/* Return: where it stands. */
static uint64_t end(struct out *out)
{
	uint64_t gpa = out->gpa;

	memcpy(out->bytes + 4, &out->len, 4);
	out->bytes[9] = checksum(out->bytes, out->len);
	ram_write(out->ram, gpa, out->bytes, out->len);
	out->gpa += (out->len + 15) & ~15U;
	return gpa;
}

/* --- the DSDT, in AML --------------------------------------------------------------------- */

/* 20.2.4: a length that counts itself; always in two bytes here. Return: where it is. */
static unsigned int begin_package(struct out *out)
{
	put_number(out, 0, 2);
	return out->len - 2;
}

static void end_package(struct out *out, unsigned int at)
{
	unsigned int len = out->len - at;

	out->bytes[at] = (unsigned char)(0x40 | (len & 0xf));
	out->bytes[at + 1] = (unsigned char)(len >> 4);
}

static void put_name(struct out *out, const char *name)
{
	put_number(out, 0x08, 1);
	put(out, name, 4);
}

static void put_text(struct out *out, const char *name, const char *text)
{
	put_name(out, name);
	put_number(out, 0x0d, 1);
	put(out, text, (unsigned int)strlen(text) + 1);
}

/* A buffer of resource descriptors: 6.4. */
static void put_resources(struct out *out, const void *resources, unsigned int len)
{
	unsigned int package;

	put_name(out, "_CRS");
	put_number(out, 0x11, 1);
	package = begin_package(out);
	put_number(out, 0x0a, 1);
	put_number(out, len + 2, 1);
	put(out, resources, len);
	put_number(out, 0x0079, 2); /* the end */
	end_package(out, package);
}

static void put_device(struct out *out, const char *name, const char *hid, const void *resources,
		       unsigned int len)
{
	unsigned int package;

	put_number(out, 0x825b, 2);
	package = begin_package(out);
	put(out, name, 4);
	put_text(out, "_HID", hid);
	put_name(out, "_UID");
	put_number(out, 0x00, 1);
	/* Its DMA is coherent. */
	put_name(out, "_CCA");
	put_number(out, 0x01, 1);
	put_resources(out, resources, len);
	end_package(out, package);
}

/* 6.4.3.6: an edge, active high. */
#define INTERRUPT(gsi) 0x89, 6, 0, 3, 1, (gsi), 0, 0, 0

static uint64_t write_dsdt(struct out *out)
{
	static const unsigned char virtio[] = { 0x86,
						9,
						0,
						1, /* memory that is written, 6.4.3.4 */
						VIRTIO_GPA & 0xff,
						VIRTIO_GPA >> 8 & 0xff,
						VIRTIO_GPA >> 16 & 0xff,
						VIRTIO_GPA >> 24,
						0,
						VIRTIO_BYTES >> 8,
						0,
						0,
						INTERRUPT(VIRTIO_GSI) };
	static const unsigned char serial[] = { 0x47,
						1, /* ports, 6.4.2.5 */
						SERIAL_PORT & 0xff,
						SERIAL_PORT >> 8,
						SERIAL_PORT & 0xff,
						SERIAL_PORT >> 8,
						1,
						SERIAL_PORTS,
						INTERRUPT(SERIAL_GSI) };
	unsigned int scope;

	begin(out, "DSDT", 2);
	put_number(out, 0x10, 1);
	scope = begin_package(out);
	put(out, "\\_SB_", 5);
	put_device(out, "VIO0", "LNRO0005", virtio, sizeof(virtio));
	put_device(out, "COM1", "PNP0501", serial, sizeof(serial));
	end_package(out, scope);
	return end(out);
}

/* --- the others --------------------------------------------------------------------------- */

/* 5.2.9. Hardware-reduced: no port of the old ACPI hardware is there. */
static uint64_t write_fadt(struct out *out, uint64_t dsdt)
{
	static const unsigned char none[128];

	begin(out, "FACP", 6);
	put(out, none, 76);
	put_number(out, 1 << 20, 4); /* at 112: HW_REDUCED_ACPI */
	put(out, none, 15);
	put_number(out, 5, 1); /* at 131: minor version */
	put(out, none, 8);     /* at 132: X_FIRMWARE_CTRL */
	put_number(out, dsdt, 8);
	put(out, none, 128);
	return end(out);
}

/* 5.2.12: one processor, one IOAPIC for all interrupts. */
static uint64_t write_madt(struct out *out)
{
	begin(out, "APIC", 5);
	put_number(out, LAPIC_GPA, 4);
	put_number(out, 0, 4);
	put(out, (const unsigned char[]){ 0, 8, 0, 0, 1, 0, 0, 0 }, 8);
	put(out, (const unsigned char[]){ 1, 12, 0, 0 }, 4);
	put_number(out, IOAPIC_GPA, 4);
	put_number(out, 0, 4);
	return end(out);
}

static uint64_t write_xsdt(struct out *out, uint64_t fadt, uint64_t madt)
{
	begin(out, "XSDT", 1);
	put_number(out, fadt, 8);
	put_number(out, madt, 8);
	return end(out);
}

/* 5.2.5.3: two checksums, of the first 20 bytes and of all 36. */
static void write_rsdp(struct ram *ram, uint64_t xsdt)
{
	unsigned char rsdp[36] = "RSD PTR \0MEMVRT\2";
	uint32_t len = sizeof(rsdp);

	memcpy(rsdp + 20, &len, 4);
	memcpy(rsdp + 24, &xsdt, 8);
	rsdp[8] = checksum(rsdp, 20);
	rsdp[32] = checksum(rsdp, sizeof(rsdp));
	ram_write(ram, ACPI_GPA, rsdp, sizeof(rsdp));
}

void acpi_write(struct ram *ram)
{
	struct out out = { .ram = ram, .gpa = ACPI_GPA + 64 };
	uint64_t dsdt = write_dsdt(&out);
	uint64_t fadt = write_fadt(&out, dsdt);
	uint64_t madt = write_madt(&out);

	write_rsdp(ram, write_xsdt(&out, fadt, madt));
}
