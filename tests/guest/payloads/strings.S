/* SPDX-License-Identifier: Apache-2.0 */
/* Sends the same 5000 words to port 0x604 for ever, each time by one string instruction. */
    .globl main
main:
    mov $0x604, %edx
1:  mov $words, %rsi
    mov $5000, %ecx
    rep outsl
    jmp 1b

    .data
    .balign 4
words:
    .set word, 0
    .rept 5000
    .long word
    .set word, word + 1
    .endr
