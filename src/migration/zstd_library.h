/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MIGRATION_ZSTD_LIBRARY_H
#define MIGRATION_ZSTD_LIBRARY_H

/* libzstd, opened when it is first needed: a machine that compresses nothing does not pay for it.
 */
#include <zstd.h>

#include "vmrun/error.h"

struct zstd {
    void *library;
    __typeof__(&ZSTD_createCCtx) create_packer;
    __typeof__(&ZSTD_freeCCtx) free_packer;
    __typeof__(&ZSTD_CCtx_setParameter) set;
    __typeof__(&ZSTD_CCtx_setPledgedSrcSize) set_size;
    __typeof__(&ZSTD_compressStream2) pack;
    __typeof__(&ZSTD_compress2) pack_all;
    __typeof__(&ZSTD_createDCtx) create_unpacker;
    __typeof__(&ZSTD_freeDCtx) free_unpacker;
    __typeof__(&ZSTD_decompressStream) unpack;
    __typeof__(&ZSTD_decompressDCtx) unpack_all;
    __typeof__(&ZSTD_isError) is_error;
    __typeof__(&ZSTD_getErrorName) error_name;
};

/* Errors: -ENOTSUP, it is not installed, or too old. */
int zstd_open(struct zstd *z, struct error *err);
void zstd_close(struct zstd *z); /* zeroed is fine */

#endif
