/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * From the reset vector to metal_main() in long mode: no BIOS, no boot loader. The last page of
 * the ROM; all but `reset` and `start16` runs at its linear address below 4 GiB.
 *
 * What does not belong here: entering guests (switch.S).
 */
#include "layout.h"

#define EFER		0xc0000080
#define EFER_LME	(1 << 8)
#define EFER_NXE	(1 << 11)
#define CR0_PE		1
#define CR0_MP		(1 << 1)
#define CR0_EM		(1 << 2)
#define CR0_NE		(1 << 5)
#define CR0_WP		(1 << 16)
#define CR0_NW_CD	(3 << 29)
#define CR0_PG		(1 << 31)
#define CR4_PAE		(1 << 5)
#define CR4_SSE		(3 << 9)	/* the core is compiled for plain x86-64: SSE2 */
#define CR4_LA57	(1 << 12)

#define TABLE_BITS	0x3		/* supervisor only: the guest's PKRU is the host's too */
#define LARGE_BITS	0x83

	.section .boot, "ax"
	.code16
	.globl	start16
start16:
	cli
	cld
	/* CS still has its base of 0xffff0000: the offset is what is left of the address. */
	lgdtl	%cs:(boot_gdtr - 0xffff0000)
	movl	%cr0, %eax
	orb	$CR0_PE, %al
	movl	%eax, %cr0
	ljmpl	$SELECTOR_CODE32, $start32

	.code32
start32:
	movw	$SELECTOR_DATA, %ax
	movw	%ax, %ds
	movw	%ax, %es
	movw	%ax, %ss
	movw	%ax, %fs
	movw	%ax, %gs

	movl	$payload_rom, %esi
	movl	$PAYLOAD, %edi
	movl	$payload_words, %ecx
	rep movsl
	xorl	%eax, %eax
	movl	$bss_first, %edi
	movl	$bss_words, %ecx
	rep stosl
	movl	$HOST_TABLES, %edi
	movl	$(HOST_TABLES_END - HOST_TABLES) / 4, %ecx
	rep stosl

	/* PML5 at +0, PML4 at +0x1000, PDPT at +0x2000, four page directories from +0x3000. */
	movl	$(HOST_TABLES + 0x1000 + TABLE_BITS), HOST_TABLES
	movl	$(HOST_TABLES + 0x2000 + TABLE_BITS), HOST_TABLES + 0x1000
	movl	$(HOST_TABLES + 0x3000 + TABLE_BITS), HOST_TABLES + 0x2000
	movl	$(HOST_TABLES + 0x4000 + TABLE_BITS), HOST_TABLES + 0x2008
	movl	$(HOST_TABLES + 0x5000 + TABLE_BITS), HOST_TABLES + 0x2010
	movl	$(HOST_TABLES + 0x6000 + TABLE_BITS), HOST_TABLES + 0x2018
	movl	$(HOST_TABLES + 0x3000), %edi
	movl	$LARGE_BITS, %eax
	movl	$2048, %ecx
1:	movl	%eax, (%edi)
	addl	$0x200000, %eax
	addl	$8, %edi
	loop	1b

	movl	$(CR4_PAE | CR4_SSE), %eax
	movl	$(HOST_TABLES + 0x1000), %ebx
	testb	$FLAG_HOST_LA57, PAYLOAD + PARAMETER_FLAGS
	jz	2f
	orl	$CR4_LA57, %eax
	movl	$HOST_TABLES, %ebx
2:	movl	%eax, %cr4
	movl	%ebx, %cr3
	movl	$EFER, %ecx
	rdmsr
	orl	$(EFER_LME | EFER_NXE), %eax
	wrmsr
	movl	%cr0, %eax
	andl	$~(CR0_EM | CR0_NW_CD), %eax
	orl	$(CR0_PG | CR0_WP | CR0_NE | CR0_MP), %eax
	movl	%eax, %cr0
	ljmpl	$SELECTOR_CODE64, $start64

	.balign	8
boot_gdt:
	.quad	0
	.quad	0x00af9b000000ffff	/* SELECTOR_CODE64 */
	.quad	0x00cf93000000ffff	/* SELECTOR_DATA */
	.quad	0x00cf9b000000ffff	/* SELECTOR_CODE32 */
boot_gdtr:
	.word	boot_gdtr - boot_gdt - 1
	.long	boot_gdt

	.section .reset, "ax"
	.code16
reset:
	jmp	start16
	.balign	16, 0

/* --- in RAM -------------------------------------------------------------------------------- */

	.text
	.code64
	.globl	start64
start64:
	movl	$HOST_STACK, %esp
	call	metal_main
1:	hlt
	jmp	1b

	.section .note.GNU-stack, "", @progbits
