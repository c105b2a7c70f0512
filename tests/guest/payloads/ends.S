/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fills 4 MiB, says "begun", writes 16 pages over and over, and ends as the serial port's input
 * says: o, off by ACPI; r, a reset; c, a crash.
 */
    .globl main
main:
    mov $0x400000, %rdi
1:  mov %rdi, (%rdi)
    add $512, %rdi
    cmp $0x800000, %rdi
    jne 1b
    mov $message, %rsi
    mov $message_end - message, %ecx
    mov $0x3f8, %edx
    rep outsb
again:
    mov $0x400000, %rdi
    mov $16, %ecx
1:  incq 8(%rdi)
    add $4096, %rdi
    dec %ecx
    jnz 1b
    mov $0x3fd, %edx
    in %dx, %al
    test $1, %al
    jz again
    mov $0x3f8, %edx
    in %dx, %al
    cmp $'o', %al
    je off
    cmp $'r', %al
    je reset
    cmp $'c', %al
    jne again
    ud2
off:
    mov $0x604, %edx
    mov $0x3400, %eax
    out %ax, %dx
1:  jmp 1b
reset:
    mov $0x64, %edx
    mov $0xfe, %al
    out %al, %dx
1:  jmp 1b

    .data
message:
    .ascii "begun\n"
message_end:
