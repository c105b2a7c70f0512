/* SPDX-License-Identifier: Apache-2.0 */
/* One access of each kind, in an order that the test knows; what is read is echoed to port 0x610. */
    .globl main
main:
    mov $0x600, %edx
    mov $0x11, %eax
    out %al, %dx
    mov $0x2222, %eax
    out %ax, %dx
    mov $0x44444444, %eax
    out %eax, %dx

    .macro echo
    mov $0x610, %edx
    out %eax, %dx
    mov $0x600, %edx
    .endm
    xor %eax, %eax
    in %dx, %al
    echo
    xor %eax, %eax
    in %dx, %ax
    echo
    in %dx, %eax
    echo

    mov $0x620, %edx
    mov $message, %rsi
    mov $message_end - message, %ecx
    rep outsb
    mov $words, %rsi
    mov $2, %ecx
    rep outsl
    mov $buffer, %rdi
    mov $4, %ecx
    rep insb
    mov buffer, %eax
    echo

    mov $0x7f0, %edx           /* nobody is there: ones */
    in %dx, %eax
    echo

    mov $0xd0000000, %ebx
    mov $0x8877665544332211, %rax
    mov %al, (%rbx)
    mov %ax, (%rbx)
    mov %eax, (%rbx)
    mov %rax, (%rbx)
    mov %rax, 0xffd(%rbx)       /* 3 bytes in one page, 5 in the next */
    xor %eax, %eax
    mov (%rbx), %al
    echo
    xor %eax, %eax
    mov (%rbx), %ax
    echo
    mov (%rbx), %eax
    echo
    mov (%rbx), %rax
    mov %rax, 0x100(%rbx)

    mov $0x10, %eax
    jmp finish

    .data
message:
    .ascii "hello, bus\n"
message_end:
    .balign 4
words:
    .long 0xaaaa5555, 0x5555aaaa
buffer:
    .long 0
