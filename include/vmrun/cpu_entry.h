/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_CPU_ENTRY_H
#define VMRUN_CPU_ENTRY_H

#include <stdint.h>

/*
 * Where and how the boot processor begins: what a boot protocol asks of the
 * loader, in the words of the x86 manuals. boot fills it in, kvm carries it out.
 */
enum cpu_entry_mode {
    CPU_ENTRY_PROTECTED, /* 32-bit, paging off, flat segments (PVH) */
    CPU_ENTRY_LONG,      /* 64-bit, paging on with cr3, flat segments (Linux 64-bit protocol) */
};

struct cpu_entry {
    enum cpu_entry_mode mode;
    uint64_t rip, rsp;
    uint64_t rbx, rsi; /* protocol arguments */
    uint64_t cr3;      /* CPU_ENTRY_LONG: page tables that map at least what the protocol asks */
    uint64_t gdt_base; /* guest-physical; 0: none needed, segment caches suffice */
    uint16_t gdt_limit;
    uint16_t code_selector, data_selector;
};

#endif
