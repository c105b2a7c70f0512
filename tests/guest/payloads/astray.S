/* SPDX-License-Identifier: Apache-2.0 */
/* Jumps to where there is neither RAM nor a device. */
    .globl main
main:
    mov $0x4b1d, %r12d          /* to be found in the report */
    mov $0xc0000000, %eax
    jmp *%rax
