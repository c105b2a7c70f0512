/* SPDX-License-Identifier: Apache-2.0 */
/* A fault with no way to take it: the IDT is empty and so is address 0xffff800000000000. */
    .globl main
main:
    lidt empty
    mov $0xffff800000000000, %rax
    mov (%rax), %rbx
1:  jmp 1b

    .data
empty:
    .word 0
    .quad 0
