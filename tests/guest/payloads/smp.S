/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Starts all other CPUs by INIT and SIPI, as a kernel does. Each comes up in
 * real mode at 0x8000 and tells its APIC identifier to port 0x604.
 */
    .set APIC, 0xfee00000

    .globl main
main:
    mov $trampoline, %esi
    mov $0x8000, %edi
    mov $trampoline_end - trampoline, %ecx
    rep movsb
    mov $APIC, %ebx
    movl $0x1ff, 0xf0(%rbx)     /* enabled */
    movl $0x000c4500, 0x300(%rbx) /* INIT to all but self */
    mov $2000, %ecx
1:  dec %ecx
    jnz 1b
    movl $0x000c4608, 0x300(%rbx) /* SIPI, page 8 */
2:  jmp 2b

    .code16
trampoline:
    cli
    mov $1, %eax
    cpuid                       /* EBX[31:24]: initial APIC identifier */
    shr $24, %ebx
    mov %bl, %al
    mov $0x604, %dx
    out %al, %dx
3:  jmp 3b
trampoline_end:
