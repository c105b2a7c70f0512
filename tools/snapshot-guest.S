/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What tools/bench-snapshot measures: a guest that fills FILL MiB with random words, says "!", and
 * then reads its TSC for ever. Where two readings are more than GAP ticks apart somebody stopped
 * it: it says "g" and the ticks, in hexadecimal. Meanwhile it writes a page each EVERY ticks (0:
 * none), in turn in the first WRITTEN MiB. It runs in ring 3 (begin its command line with "3"),
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
    mov $'g', %al
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
    call now
    mov %r8, %r9                /* what the port took does not count */
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

now:
    rdtsc
    shl $32, %rdx
    or %rdx, %rax
    mov %rax, %r8
    ret

put:
    mov $0x3f8, %edx
    out %al, %dx
    ret
