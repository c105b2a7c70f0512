/* SPDX-License-Identifier: Apache-2.0 */
/* The time-stamp counter to port 0x604, for ever: its low half, then its high half. */
    .globl main
main:
    mov $0x604, %ebx
1:  rdtsc
    mov %edx, %ecx
    mov %ebx, %edx
    out %eax, %dx
    mov %ecx, %eax
    out %eax, %dx
    jmp 1b
