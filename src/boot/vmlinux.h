/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BOOT_VMLINUX_H
#define VMRUN_BOOT_VMLINUX_H

/*
 * The kernel inside a bzImage, unpacked and placed by us instead of by its own
 * decompressor.
 */

#include "loader.h"
#include "unpack.h"

struct vmlinux_image {
    struct unpack_source payload; /* without the unpacked size at its end; or STORED */
    uint32_t unpacked_size;
    uint64_t pref_address; /* where it was linked to run, physical */
    uint64_t init_size;    /* room that it needs from where it is loaded */
    uint64_t alignment;    /* of that address; a power of two */
    bool relocatable;
};

struct vmlinux_place {
    uint64_t entry; /* 64-bit entry point, physical */
    bool kaslr;     /* its addresses were randomised */
};

/*
 * Unpack to where it runs, relocate it (at random unless the command line says
 * "nokaslr"), and take its room in the target's layout.
 *
 * Errors: -ENOTSUP this is not for us: leave it to the kernel's own decompressor
 *         -ENOEXEC damaged; -EIO, -ENOMEM
 */
int vmlinux_load(const struct vmlinux_image *image, const char *cmdline, struct boot_target *target,
                 struct vmlinux_place *ret_place, struct error *err);

#endif
