/* SPDX-License-Identifier: Apache-2.0 */
/* Counts for ever: each number goes to port 0x604 and then to memory at 0x90000. */
    .globl main
main:
    mov $0x604, %edx
    mov $0x90000, %ebx
    xor %eax, %eax
1:  inc %eax
    out %eax, %dx
    mov %eax, (%rbx)
    jmp 1b
