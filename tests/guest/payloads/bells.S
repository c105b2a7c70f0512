/* SPDX-License-Identifier: Apache-2.0 */
/* Rings doorbells: a port, an address of any width, an address and value. Then says that it is done. */
    .globl main
main:
    mov $0x604, %edx
    mov $7, %eax
    out %ax, %dx
    mov $0xd0000000, %ebx
    movw $1, (%rbx)
    movl $2, (%rbx)
    movw $5, 0x10(%rbx)         /* matches */
    movw $6, 0x10(%rbx)         /* does not: the device sees it */
    mov $1, %eax
    jmp finish
