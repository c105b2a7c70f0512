/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tools/bench-snapshot measures: a guest that fills FILL MiB with random words, says "!", and
 * then reads its TSC for ever. Where two readings are more than GAP ticks apart somebody stopped
 * it: it says "g" and the ticks, in hexadecimal. Meanwhile it writes a page each EVERY ticks (0:
 * none), in turn in the first WRITTEN MiB. With TOUCHED (a power of two) it touches, after a
 * stop of more than LONG_GAP ticks, so many pages spread over what it filled, in an order as good
 * as random, reads one and writes the next, and says "d" and the ticks that it took. It runs in ring 3 (begin its command line with "3"),
 * where every host's KVM lets the CPU itself run it.
 */
    .globl main
main:
    mov $0x1000000, %rbx
    mov $(FILL << 17), %rcx
    mov $0x9e3779b97f4a7c15, %rax
1:  mov %rax, %rdx
    shl $13, %rdx
    xor %rdx, %rax
    mov %rax, %rdx
    shr $7, %rdx
    xor %rdx, %rax
    mov %rax, %rdx
    shl $17, %rdx
    xor %rdx, %rax
    mov %rax, (%rbx)
    add $8, %rbx
    dec %rcx
    jnz 1b

    mov $'!', %al
    call put
    mov $'\n', %al
    call put

    call now
    mov %r8, %r9                /* the last reading */
    mov %r8, %r10               /* when the next page is due */
    xor %rbx, %rbx
2:  call now
    mov %r8, %rax
    sub %r9, %rax
    mov %r8, %r9
    cmp $GAP, %rax
    jb 3f
    mov %rax, %r12
    mov %rax, %r9
    mov $'g', %al
    call tell
#if TOUCHED
    mov $LONG_GAP, %rax
    cmp %rax, %r9
    jb 8f
    call now
    mov %r8, %r13
    xor %esi, %esi              /* each number below TOUCHED once */
    mov $TOUCHED, %ecx
6:  imul $1664525, %esi
    add $1013904223, %esi
    and $(TOUCHED - 1), %esi
    mov %rsi, %rdi
    imul $((FILL << 20) / TOUCHED), %rdi
    mov 0x1000000(%rdi), %rax
    test $1, %cl
    jz 7f
    mov %rcx, 0x1000008(%rdi)
7:  dec %ecx
    jnz 6b
    call now
    sub %r13, %r8
    mov %r8, %r12
    mov $'d', %al
    call tell
8:
#endif
    call now
    mov %r8, %r9                /* what this took does not count */
    mov %r8, %r10
3:
#if EVERY
    cmp %r10, %r8
    jb 2b
    add $EVERY, %r10
    mov %r8, 0x1000000(%rbx)
    add $4096, %rbx
    cmp $(WRITTEN << 20), %rbx
    jb 2b
    xor %rbx, %rbx
#endif
    jmp 2b

tell:                           /* al, r12 and a newline; then, if it was stopped meanwhile, of that */
    mov %eax, %r11d
    call now
    mov %r8, %r15
    xor %r14d, %r14d
    mov %r11d, %eax
    call put
    mov $16, %ecx
4:  rol $4, %r12
    mov %r12, %rax
    and $15, %eax
    add $'0', %eax
    cmp $'9', %eax
    jbe 5f
    add $('a' - '9' - 1), %eax
5:  call put
    dec %ecx
    jnz 4b
    mov $'\n', %al
    call put
    mov %r14, %r12
    mov $'g', %al
    cmp $GAP, %r14
    jae tell
    ret

now:
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mov %rax, %r8
    ret

put:                            /* al; the longest since tell began is in r14 */
    mov $0x3f8, %edx
    out %al, %dx
    call now
    mov %r8, %rax
    sub %r15, %rax
    mov %r8, %r15
    cmp %r14, %rax
    cmovae %rax, %r14
    ret
