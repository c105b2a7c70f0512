/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BOOT_BZIMAGE_H
#define VMRUN_BOOT_BZIMAGE_H

/* Linux in its own wrapping, by the 64-bit boot protocol. */

#include <asm/bootparam.h>

#include "loader.h"
#include "unpack.h"

struct bzimage {
    struct setup_header header;
    uint64_t code_offset, code_size; /* of the protected-mode part, in the file */
    enum unpack_format format;       /* of the payload */
    uint32_t unpacked_size;
    char version[64]; /* "6.1.0-37-cloud-amd64", or "" */
};

/* Whether the file begins like one. head: its first 1024 bytes, zeros behind a shorter one. */
bool bzimage_is(const uint8_t head[1024]);

/* Errors: -ENOEXEC, -E2BIG, -EIO as boot_open() says. */
int bzimage_open(struct bzimage *image, const struct boot_request *request, struct error *err);
int bzimage_load(const struct bzimage *image, const struct boot_request *request,
                 struct boot_target *target, struct cpu_entry *ret_entry, struct error *err);

#endif
