/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BOOT_ELF_KERNEL_H
#define VMRUN_BOOT_ELF_KERNEL_H

/* An ELF file with a PVH entry point: a vmlinux, another kernel, or a test payload. */

#include "loader.h"

#define ELF_MAX_SEGMENTS 16

struct elf_kernel {
    struct {
        uint64_t offset, file_size, gpa, size;
    } segments[ELF_MAX_SEGMENTS];
    unsigned count;
    uint64_t low, high; /* all segments lie in [low, high) */
    uint32_t entry;
};

/* head: the file's first 1024 bytes, zeros behind a shorter one. */
bool elf_kernel_is(const uint8_t head[1024]);

/* Errors: -ENOEXEC, -E2BIG, -EIO as boot_open() says. */
int elf_kernel_open(struct elf_kernel *kernel, const struct boot_request *request,
                    struct error *err);
int elf_kernel_load(const struct elf_kernel *kernel, const struct boot_request *request,
                    struct boot_target *target, struct cpu_entry *ret_entry, struct error *err);

#endif
