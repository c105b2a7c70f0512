/* SPDX-License-Identifier: Apache-2.0 */
/* Says hello on the first serial port and ends the machine with status 0x21. */
    .globl main
main:
    mov $message, %rsi
    mov $message_end - message, %ecx
    mov $0x3f8, %edx
    rep outsb
    mov $0x10, %eax
    jmp finish

    .data
message:
    .ascii "hello from the guest\n"
message_end:
