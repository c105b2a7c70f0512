/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BOOT_H
#define VMRUN_BOOT_H

/*
 * Loading a kernel: what kind of file it is, where its parts go in guest RAM,
 * and how the first vCPU enters it.
 *
 * Sources: The Linux/x86 Boot Protocol (Documentation/arch/x86/boot.rst),
 * "64-bit Boot Protocol"; the Xen "x86/HVM direct boot ABI" (PVH); ELF-64.
 */

#include <stdbool.h>
#include <stdint.h>

#include "vmrun/cpu_entry.h"
#include "vmrun/memory.h"

enum boot_unpack {
    /*
     * By vmrun, where the host has the library for the payload's format: gzip, lz4, zstd, xz. The
     * kernel's addresses are randomised as its own decompressor would ("nokaslr" is heeded).
     * What was unpacked is kept in the user's cache folder and read from there the next time.
     */
    BOOT_UNPACK_AUTO,
    BOOT_UNPACK_GUEST,  /* always leave it to the kernel's own decompressor */
    BOOT_UNPACK_ALWAYS, /* as AUTO, without the cache */
};

struct boot_params_host {
    const char *kernel;   /* path */
    const char *initrd;   /* path, or NULL */
    const char *cmdline;  /* "" when there is none */
    uint64_t memory_size; /* of the machine, to refuse what cannot fit before anything starts */
    enum boot_unpack unpack;
    unsigned cache_delay_ms; /* with AUTO: how long after a load to begin to fill the cache */
};

/* A range of guest-physical addresses that is not plain RAM. */
struct boot_reserved {
    uint64_t gpa, size;
    uint32_t e820_type; /* 2 reserved, 3 ACPI reclaimable, 4 ACPI NVS */
};

struct boot;

/*
 * Open and check kernel and initrd. The files stay open (and are read again at
 * each load, so a guest can reboot after they were renamed or removed).
 *
 * Errors (the message names the file and what would be right):
 *   -ENOENT, -EACCES …   what open(2) says     -EISDIR   a directory
 *   -ENOEXEC  not a kernel (says what it looks like), too old a boot protocol, cut short, no PVH
 *             note; kernel or initrd is empty or no regular file
 *   -E2BIG    kernel or initrd larger than RAM; command line over the kernel's own limit
 */
int boot_open(const struct boot_params_host *params, struct boot **ret_boot, struct error *err);
void boot_close(struct boot *boot); /* NULL is fine; ends what still fills the cache */

/*
 * Put kernel, initrd, command line, memory map and entry structures into RAM.
 * May be called again after each reset. acpi_rsdp: guest-physical, or 0.
 * reserved: ranges to leave out of the usable memory map, `count` of them; they may
 * lie outside of RAM, and must leave [0x1000, 0xf000) and [0x20000, 0x30000) free.
 * What it writes is marked dirty. For a few milliseconds it uses up to four threads; one
 * may stay at work for the cache, at a quarter of a CPU, until boot_close() at the latest.
 *
 * Errors: -E2BIG    no room below the hole; says both sizes
 *         -ENOEXEC  the kernel's payload is damaged: found only as it is unpacked
 *         -EIO      a file has become shorter, or cannot be read
 *         -EINVAL   reserved ranges that overlap, or too many of them
 *         -ENOMEM
 */
int boot_load(struct boot *boot, struct guest_memory *mem, uint64_t acpi_rsdp,
              const struct boot_reserved *reserved, unsigned count, struct cpu_entry *ret_entry,
              struct error *err);

/* "bzImage 6.1.0-37-cloud-amd64, lz4" or "ELF, PVH": for logs and status. */
const char *boot_describe(const struct boot *boot);

#endif
