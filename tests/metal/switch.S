/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Into a guest and back, and where host exceptions arrive.
 *
 * registers[0] is the guest's RAX, registers[1] its RBX: set before, read after. Guests have no
 * use for others, and none of their code touches SSE.
 */
	.text

	.macro	save
	pushq	%rbp
	pushq	%rbx
	pushq	%r12
	pushq	%r13
	pushq	%r14
	pushq	%r15
	.endm

	.macro	restore
	popq	%r15
	popq	%r14
	popq	%r13
	popq	%r12
	popq	%rbx
	popq	%rbp
	.endm

#define HOST_RSP 0x6c14

/* int vmx_switch(int launched, uint64_t registers[2]): 0 after an exit, 1 where the entry failed. */
	.globl	vmx_switch
vmx_switch:
	save
	pushq	%rsi
	movl	$HOST_RSP, %eax
	vmwrite	%rsp, %rax
	movl	%edi, %ecx
	movq	(%rsi), %rax
	movq	8(%rsi), %rbx
	testl	%ecx, %ecx
	jnz	1f
	vmlaunch
	jmp	2f
1:	vmresume
2:	popq	%rsi
	movl	$1, %eax
	restore
	ret

	.globl	vmx_exit_arrives
vmx_exit_arrives:
	popq	%rsi
	movq	%rax, (%rsi)
	movq	%rbx, 8(%rsi)
	xorl	%eax, %eax
	restore
	ret

/* void svm_switch(uint64_t vmcb, uint64_t registers[2]); RAX is kept in the VMCB. */
	.globl	svm_switch
svm_switch:
	save
	pushq	%rsi
	movq	8(%rsi), %rbx
	movq	%rdi, %rax
	vmrun	%rax
	popq	%rsi
	movq	%rbx, 8(%rsi)
	restore
	ret

/*
 * The code that guests run: the same bytes do the same in 32-bit and in 64-bit mode. Copied to
 * a page of theirs.
 */
	.globl	guest_code, guest_code_end
	.balign 16
guest_code:
	.byte	0x8b, 0x18		/* mov (%rax), %ebx */
	cpuid
	.balign	8
	.byte	0x89, 0x18		/* mov %ebx, (%rax) */
	cpuid
	.balign	8
	mov	%rax, %cr3
	cpuid
	.balign	8
guest_code_end:

/* Vectors that push no error code get one. */
	.globl	bare_exception_entries
	.balign	16
bare_exception_entries:
	.set	vector, 0
	.rept	32
	.balign	16
	.if !((vector >= 10 && vector <= 14) || vector == 8 || vector == 17 || vector == 21)
	pushq	$0
	.endif
	movl	$vector, %edi
	jmp	1f
	.set	vector, vector + 1
	.endr
1:	movq	%rsp, %rsi
	andq	$-16, %rsp
	call	bare_exception

	.section .note.GNU-stack, "", @progbits
