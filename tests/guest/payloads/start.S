/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where every payload begins: a PVH entry (32-bit, paging off) that goes to
 * 64-bit mode with the first 4 GiB mapped onto themselves and calls main. With a
 * command line that begins with "3" main runs in ring 3, allowed to do port I/O:
 * on hosts that emulate ring 0 that is the only code that the CPU itself runs.
 *
 * It uses few kinds of instructions, since such an emulator knows few.
 */
    .section .note.pvh, "a", @note
    .balign 4
    .long 4, 4, 18              /* XEN_ELFNOTE_PHYS32_ENTRY */
    .asciz "Xen"
    .long _start

    .section .text.start, "ax"
    .code32
    .globl _start
_start:
    cli
    cld
    mov $stack_top, %esp
    mov 24(%ebx), %esi          /* hvm_start_info: address of the command line */
    xor %ebp, %ebp
    test %esi, %esi
    jz 1f
    movzbl (%esi), %ebp
1:  mov $pml4, %eax
    mov %eax, %cr3
    mov %cr4, %eax
    or $0x20, %eax              /* PAE */
    mov %eax, %cr4
    mov $0xc0000080, %ecx
    mov $0x100, %eax            /* LME */
    xor %edx, %edx
    wrmsr
    lgdt gdt_pointer
    mov %cr0, %eax
    or $0x80000001, %eax
    mov %eax, %cr0
    ljmp $0x10, $long_mode

    .code64
long_mode:
    mov $0x18, %eax
    mov %eax, %ds
    mov %eax, %es
    mov %eax, %ss
    cmp $'3', %ebp
    jne main
    mov $0x174, %ecx            /* SYSENTER_CS: ring 3 is at +32 and +40 */
    mov $0x10, %eax
    xor %edx, %edx
    wrmsr
    mov $tss, %eax
    mov %ax, gdt_tss + 2
    shr $16, %eax
    mov %al, gdt_tss + 4
    mov $0x40, %eax
    ltr %ax
    mov $main, %edx
    mov $stack_top, %ecx
    sysexitq

/* Ends the machine with status (%al << 1 | 1). */
    .globl finish
finish:
    mov $0x501, %edx
    out %al, %dx
1:  jmp 1b

    .data
    .balign 8
gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    /* 08 ring 0, 32-bit code */
    .quad 0x00af9b000000ffff    /* 10 ring 0, 64-bit code */
    .quad 0x00cf93000000ffff    /* 18 ring 0, data */
    .quad 0x00cffb000000ffff    /* 20 ring 3, 32-bit code */
    .quad 0x00cff3000000ffff    /* 28 ring 3, data */
    .quad 0x00affb000000ffff    /* 30 ring 3, 64-bit code */
    .quad 0x00cff3000000ffff    /* 38 ring 3, data */
gdt_tss:
    .quad 0x0000890000000168, 0 /* 40 task state, its base is filled in */
    .globl gdt_pointer
gdt_pointer:
    .word . - gdt - 1
    .long gdt

    .balign 8
tss:
    .fill 102, 1, 0
    .word 104                   /* where the bitmap of allowed ports begins: 0 to 0x7ff */
    .fill 256, 1, 0
    .byte 0xff

/* Marked as accessed and written to already, so that the CPU writes nothing here: see pages.S. */
    .balign 4096
    .globl pml4
pml4:
    .quad pdpt + 0x27
    .fill 511, 8, 0
pdpt:
    .quad pd + 0x27, pd + 0x1027, pd + 0x2027, pd + 0x3027
    .fill 508, 8, 0
pd:
    .set page, 0
    .rept 2048
    .quad page + 0xe7           /* present, writable, user, 2 MiB */
    .set page, page + 0x200000
    .endr

    .bss
    .balign 16
    .skip 4096
stack_top:
