/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes pages in two parts: 16 from 4 MiB, every third, then 8 from 5 MiB, every fifth. What goes
 * to port 0x604 says where it is: 1 before, 2 between, 3 after. Then it writes the first page of
 * the second part for ever, and says 4 each time.
 */
    .globl main
main:
    mov $0x604, %edx
    mov $1, %eax
    out %eax, %dx
    mov $0x400000, %ebx
    mov $16, %ecx
1:  mov %ecx, (%rbx)
    add $0x3000, %ebx
    dec %ecx
    jnz 1b
    mov $2, %eax
    out %eax, %dx
    mov $0x500000, %ebx
    mov $8, %ecx
2:  mov %ecx, (%rbx)
    add $0x5000, %ebx
    dec %ecx
    jnz 2b
    mov $3, %eax
    out %eax, %dx
    mov $0x500000, %ebx
    mov $4, %eax
3:  incl (%rbx)
    out %eax, %dx
    jmp 3b
