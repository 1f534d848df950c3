/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Instructions that C has no words for, and the bits of control registers and MSRs.
 * SDM vol. 3, 2.5 and APM vol. 2, 3.1 for the registers; the rest where it is used.
 */
#ifndef METAL_CPU_H
#define METAL_CPU_H

#include <stdint.h>

#define CR0_PE 0x1u
#define CR0_NE 0x20u
#define CR0_ET 0x10u
#define CR0_WP 0x10000u
#define CR0_PG 0x80000000u

#define CR4_PSE	 0x10u
#define CR4_PAE	 0x20u
#define CR4_LA57 0x1000u
#define CR4_VMXE 0x2000u
#define CR4_SMEP 0x100000u
#define CR4_SMAP 0x200000u
#define CR4_PKE	 0x400000u
#define CR4_PKS	 0x1000000u

#define EFER_LME  0x100u
#define EFER_LMA  0x400u
#define EFER_NXE  0x800u
#define EFER_SVME 0x1000u

#define MSR_EFER 0xc0000080u
#define MSR_PAT	 0x277u
#define MSR_PKRS 0x6e1u

#define VECTOR_SS 12
#define VECTOR_GP 13
#define VECTOR_PF 14

static inline void port_write8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static inline void port_write32(uint16_t port, uint32_t value)
{
	__asm__ volatile("outl %0, %1" : : "a"(value), "Nd"(port));
}

static inline uint64_t msr_read(uint32_t msr)
{
	uint32_t low, high;

	__asm__ volatile("rdmsr" : "=a"(low), "=d"(high) : "c"(msr));
	return low | (uint64_t)high << 32;
}

static inline void msr_write(uint32_t msr, uint64_t value)
{
	__asm__ volatile("wrmsr" : : "a"((uint32_t)value), "d"((uint32_t)(value >> 32)), "c"(msr));
}

struct cpuid {
	uint32_t eax, ebx, ecx, edx;
};

static inline struct cpuid cpuid(uint32_t leaf, uint32_t subleaf)
{
	struct cpuid r;

	__asm__ volatile("cpuid"
			 : "=a"(r.eax), "=b"(r.ebx), "=c"(r.ecx), "=d"(r.edx)
			 : "a"(leaf), "c"(subleaf));
	return r;
}

static inline uint64_t cr0_read(void)
{
	uint64_t value;

	__asm__ volatile("mov %%cr0, %0" : "=r"(value));
	return value;
}

static inline uint64_t cr2_read(void)
{
	uint64_t value;

	__asm__ volatile("mov %%cr2, %0" : "=r"(value));
	return value;
}

static inline uint64_t cr3_read(void)
{
	uint64_t value;

	__asm__ volatile("mov %%cr3, %0" : "=r"(value));
	return value;
}

static inline uint64_t cr4_read(void)
{
	uint64_t value;

	__asm__ volatile("mov %%cr4, %0" : "=r"(value));
	return value;
}

static inline void cr4_write(uint64_t value)
{
	__asm__ volatile("mov %0, %%cr4" : : "r"(value) : "memory");
}

/* Needs CR4.PKE. */
static inline void pkru_write(uint32_t value)
{
	__asm__ volatile("wrpkru" : : "a"(value), "c"(0), "d"(0));
}

#endif /* METAL_CPU_H */
