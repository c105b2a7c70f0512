/* SPDX-License-Identifier: Apache-2.0 */
/* zstd_library: the functions of libzstd that are used, by name. */
#include "zstd_library.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>

static bool load(void *library, const char *name, void *ret_function)
{
    void *symbol = dlsym(library, name);

    memcpy(ret_function, &symbol, sizeof(symbol));
    return symbol;
}

void zstd_close(struct zstd *z)
{
    if (z->library)
        dlclose(z->library);
    z->library = NULL;
}

int zstd_open(struct zstd *z, struct error *err)
{
    z->library = dlopen("libzstd.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!z->library)
        return error_set(err, ENOTSUP, "libzstd.so.1 is not installed");
    if (load(z->library, "ZSTD_createCCtx", &z->create_packer) &&
        load(z->library, "ZSTD_freeCCtx", &z->free_packer) &&
        load(z->library, "ZSTD_CCtx_setParameter", &z->set) &&
        load(z->library, "ZSTD_CCtx_setPledgedSrcSize", &z->set_size) &&
        load(z->library, "ZSTD_compressStream2", &z->pack) &&
        load(z->library, "ZSTD_compress2", &z->pack_all) &&
        load(z->library, "ZSTD_createDCtx", &z->create_unpacker) &&
        load(z->library, "ZSTD_freeDCtx", &z->free_unpacker) &&
        load(z->library, "ZSTD_decompressStream", &z->unpack) &&
        load(z->library, "ZSTD_decompressDCtx", &z->unpack_all) &&
        load(z->library, "ZSTD_isError", &z->is_error) &&
        load(z->library, "ZSTD_getErrorName", &z->error_name))
        return 0;
    zstd_close(z);
    return error_set(err, ENOTSUP, "libzstd.so.1 is too old");
}
