/* SPDX-License-Identifier: Apache-2.0 */
#ifndef VMRUN_BOOT_UNPACK_H
#define VMRUN_BOOT_UNPACK_H

/*
 * Decompression of a kernel's payload from its file into memory.
 *
 * The libraries are opened with dlopen() on first use and closed after: a
 * machine that needs one of them needs one, once, for a few milliseconds, and
 * start-up and memory of all the others should not pay for four.
 */

#include <stddef.h>
#include <stdint.h>

#include "loader.h"

/* STORED: not compressed, in a file of the cache (cache.h); no kernel's payload is identified as
 * it. */
enum unpack_format {
    UNPACK_UNKNOWN,
    UNPACK_GZIP,
    UNPACK_LZ4,
    UNPACK_ZSTD,
    UNPACK_XZ,
    UNPACK_STORED,
};

#define UNPACK_MAGIC_SIZE 6

/* By the first bytes. LZ4 means the legacy frame, the one that kernels have. */
enum unpack_format unpack_identify(const uint8_t magic[UNPACK_MAGIC_SIZE]);
const char *unpack_name(enum unpack_format format); /* "lz4" …, "unknown" */

/* Told between two pieces that the first `done` bytes are unpacked; its error ends the work. */
struct unpack_watch {
    int (*progress)(struct unpack_watch *watch, uint64_t done, struct error *err);
};

/* Where the compressed bytes lie. */
struct unpack_source {
    const struct boot_file *file;
    uint64_t offset, size;
    enum unpack_format format;
    struct unpack_watch *watch; /* NULL, or in the background: on one thread, and watched */
};

struct unpack {
    struct unpack_source source;
    void *library; /* NULL for STORED */
};

/*
 * Open the library for the source's format.
 * Errors: -ENOTSUP the format, or its library, is not to be had here.
 */
int unpack_open(struct unpack *unpack, const struct unpack_source *source, struct error *err);
void unpack_close(struct unpack *unpack);

/*
 * The first len bytes that it unpacks to.
 * Errors: -ENOEXEC damaged, or it unpacks to fewer bytes; -ENOTSUP, -EIO, -ENOMEM
 */
int unpack_head(struct unpack *unpack, void *out, size_t len, struct error *err);

/* The whole, which must be exactly len bytes. Errors: as above. Any of out may be written then. */
int unpack_all(struct unpack *unpack, void *out, size_t len, struct error *err);

#endif
