/* SPDX-License-Identifier: Apache-2.0 */
/* Says 1 to port 0x604, then counts at 0x90000 and does nothing else, for ever. */
    .globl main
main:
    mov $0x604, %edx
    mov $1, %eax
    out %eax, %dx
    mov $0x90000, %ebx
1:  incq (%rbx)
    jmp 1b
