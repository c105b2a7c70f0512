/* SPDX-License-Identifier: Apache-2.0 */
/*
 * unpack: gzip, zstd and xz streams, read from the file in pieces and written
 * straight to where they belong; lz4 has a file of its own (unpack_lz4.c).
 *
 * The compressed bytes are hostile. All four libraries bound their output by
 * the room they are told of; nothing else is trusted.
 */
#include "unpack.h"

#include <dlfcn.h>
#include <errno.h>
#include <lzma.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "unpack_impl.h"

#define FEED_SIZE (256u << 10)

/* The compressed bytes, a piece at a time. */
struct feed {
    const struct unpack_source *source;
    uint64_t at;
    uint8_t *piece; /* FEED_SIZE */
};

int unpack_damaged(const struct unpack_source *source, const char *why, struct error *err)
{
    return error_set(err, ENOEXEC, "%s: the kernel's %s payload is damaged (%s); fetch it anew",
                     source->file->path, unpack_name(source->format), why);
}

void *unpack_symbol(void *library, const char *name)
{
    return dlsym(library, name);
}

/* The next piece: its length, 0 at the end, or an error. done: bytes that the last ones unpacked
 * to. */
static int feed_next(struct feed *feed, uint64_t done, size_t *ret_len, struct error *err)
{
    struct unpack_watch *watch = feed->source->watch;
    uint64_t left = feed->source->size - feed->at;
    size_t len = left < FEED_SIZE ? (size_t)left : FEED_SIZE;

    int r = watch ? watch->progress(watch, done, err) : 0;
    if (r == 0)
        r = boot_file_read(feed->source->file, feed->source->offset + feed->at, feed->piece, len,
                           err);
    if (r < 0)
        return r;
    feed->at += len;
    *ret_len = len;
    return 0;
}

static int run_gzip(void *library, struct feed *feed, uint8_t *out, size_t len, bool head,
                    struct error *err)
{
    __typeof__(&inflateInit2_) init = unpack_symbol(library, "inflateInit2_");
    __typeof__(&inflate) step = unpack_symbol(library, "inflate");
    __typeof__(&inflateEnd) end = unpack_symbol(library, "inflateEnd");
    z_stream stream = {.next_out = out, .avail_out = (uInt)len};
    int r = 0, status = Z_OK;

    if (!init || !step || !end ||
        init(&stream, 16 + MAX_WBITS, ZLIB_VERSION, sizeof(stream)) != Z_OK)
        return error_set(err, ENOTSUP, "libz is not usable");
    while (status == Z_OK && (stream.avail_out || !head)) {
        size_t got = stream.avail_in;

        if (got == 0) {
            r = feed_next(feed, (uint64_t)(stream.next_out - out), &got, err);
            if (r < 0)
                break;
            stream.next_in = feed->piece;
            stream.avail_in = (uInt)got;
        }
        if (got == 0) {
            r = unpack_damaged(feed->source, "it ends early", err);
            break;
        }
        status = step(&stream, Z_NO_FLUSH);
    }
    if (r == 0 && !(head && stream.avail_out == 0) && (status != Z_STREAM_END || stream.avail_out))
        r = unpack_damaged(feed->source, stream.msg ? stream.msg : "not the size it claims", err);
    end(&stream);
    return r;
}

static int run_zstd(void *library, struct feed *feed, uint8_t *out, size_t len, bool head,
                    struct error *err)
{
    __typeof__(&ZSTD_createDCtx) create = unpack_symbol(library, "ZSTD_createDCtx");
    __typeof__(&ZSTD_DCtx_setParameter) set = unpack_symbol(library, "ZSTD_DCtx_setParameter");
    __typeof__(&ZSTD_decompressStream) step = unpack_symbol(library, "ZSTD_decompressStream");
    __typeof__(&ZSTD_isError) is_error = unpack_symbol(library, "ZSTD_isError");
    __typeof__(&ZSTD_getErrorName) error_name = unpack_symbol(library, "ZSTD_getErrorName");
    __typeof__(&ZSTD_freeDCtx) destroy = unpack_symbol(library, "ZSTD_freeDCtx");
    ZSTD_outBuffer to = {.dst = out, .size = len};
    ZSTD_inBuffer from = {.src = feed->piece};
    ZSTD_DCtx *context =
        create && set && step && is_error && error_name && destroy ? create() : NULL;
    size_t status = 1;
    int r = 0;

    if (!context)
        return error_set(err, ENOTSUP, "libzstd is not usable");
    /* "Stable output buffer": the window is the output itself, not a copy as large as the kernel.
     * A library that does not know the parameter only costs that copy. */
    if (!head)
        (void)set(context, ZSTD_d_experimentalParam2, 1);
    while (status != 0 && (to.pos < to.size || !head)) {
        size_t was = to.pos;

        if (from.pos == from.size) {
            from.pos = 0;
            r = feed_next(feed, to.pos, &from.size, err);
            if (r < 0)
                break;
        }
        size_t left = from.size - from.pos;

        status = step(context, &to, &from);
        if (is_error(status)) {
            r = unpack_damaged(feed->source, error_name(status), err);
            break;
        }
        if (status != 0 && to.pos == was && from.size - from.pos == left) {
            r = unpack_damaged(feed->source, left ? "not the size it claims" : "it ends early",
                               err);
            break;
        }
    }
    if (r == 0 && to.pos < to.size)
        r = unpack_damaged(feed->source, "not the size it claims", err);
    destroy(context);
    return r;
}

static int run_xz(void *library, struct feed *feed, uint8_t *out, size_t len, bool head,
                  struct error *err)
{
    __typeof__(&lzma_stream_decoder) init = unpack_symbol(library, "lzma_stream_decoder");
    __typeof__(&lzma_code) step = unpack_symbol(library, "lzma_code");
    __typeof__(&lzma_end) end = unpack_symbol(library, "lzma_end");
    lzma_stream stream = LZMA_STREAM_INIT;
    lzma_ret status = LZMA_OK;
    int r = 0;

    /* The limit on its dictionary: kernels use 32 MiB, and the number stands in the file. */
    if (!init || !step || !end || init(&stream, UINT64_C(80) << 20, 0) != LZMA_OK)
        return error_set(err, ENOTSUP, "liblzma is not usable");
    stream.next_out = out;
    stream.avail_out = len;
    while (status == LZMA_OK && (stream.avail_out || !head)) {
        if (stream.avail_in == 0) {
            r = feed_next(feed, (uint64_t)(stream.next_out - out), &stream.avail_in, err);
            if (r < 0)
                break;
            stream.next_in = feed->piece;
        }
        status = step(&stream, LZMA_RUN);
    }
    if (r == 0 && !(head && stream.avail_out == 0) &&
        (status != LZMA_STREAM_END || stream.avail_out))
        r = unpack_damaged(feed->source, "not the stream or the size it claims", err);
    end(&stream);
    return r;
}

static int run_lz4(void *library, struct feed *feed, uint8_t *out, size_t len, bool head,
                   struct error *err)
{
    return head ? unpack_lz4_head(library, feed->source, out, len, err)
                : unpack_lz4_all(library, feed->source, out, len, err);
}

static int run_stored(void *library, struct feed *feed, uint8_t *out, size_t len, bool head,
                      struct error *err)
{
    const struct unpack_source *source = feed->source;

    (void)library, (void)head;
    if (len > source->size)
        return unpack_damaged(source, "it ends early", err);
    return boot_file_read(source->file, source->offset, out, len, err);
}

static const struct format {
    const char *name;
    uint8_t magic[UNPACK_MAGIC_SIZE];
    unsigned magic_size;
    const char *library; /* by its ABI's name: the one that the headers here describe */
    int (*run)(void *library, struct feed *feed, uint8_t *out, size_t len, bool head,
               struct error *err);
} formats[] = {
    [UNPACK_UNKNOWN] = {.name = "unknown"},
    [UNPACK_GZIP] = {"gzip", {0x1f, 0x8b, 8}, 3, "libz.so.1", run_gzip},
    [UNPACK_LZ4] = {"lz4", {0x02, 0x21, 0x4c, 0x18}, 4, "liblz4.so.1", run_lz4},
    [UNPACK_ZSTD] = {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, "libzstd.so.1", run_zstd},
    [UNPACK_XZ] = {"xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6, "liblzma.so.5", run_xz},
    [UNPACK_STORED] = {.name = "stored", .run = run_stored},
};

enum unpack_format unpack_identify(const uint8_t magic[UNPACK_MAGIC_SIZE])
{
    for (unsigned i = UNPACK_GZIP; i <= UNPACK_XZ; i++)
        if (memcmp(magic, formats[i].magic, formats[i].magic_size) == 0)
            return (enum unpack_format)i;
    return UNPACK_UNKNOWN;
}

const char *unpack_name(enum unpack_format format)
{
    return formats[format].name;
}

int unpack_open(struct unpack *unpack, const struct unpack_source *source, struct error *err)
{
    const struct format *format = &formats[source->format];

    if (!format->run)
        return error_set(err, ENOTSUP, "no library for its format");
    void *library = format->library ? dlopen(format->library, RTLD_NOW | RTLD_LOCAL) : NULL;
    if (!library && format->library)
        return error_set(err, ENOTSUP, "%s is not installed", format->library);
    *unpack = (struct unpack){.source = *source, .library = library};
    return 0;
}

void unpack_close(struct unpack *unpack)
{
    if (unpack->library)
        dlclose(unpack->library);
}

static int run(struct unpack *unpack, uint8_t *out, size_t len, bool head, struct error *err)
{
    struct feed feed = {.source = &unpack->source, .piece = malloc(FEED_SIZE)};

    if (!feed.piece)
        return error_set(err, ENOMEM, "%s: out of memory", unpack->source.file->path);
    int r = formats[unpack->source.format].run(unpack->library, &feed, out, len, head, err);
    free(feed.piece);
    return r;
}

int unpack_head(struct unpack *unpack, void *out, size_t len, struct error *err)
{
    return run(unpack, out, len, true, err);
}

int unpack_all(struct unpack *unpack, void *out, size_t len, struct error *err)
{
    return run(unpack, out, len, false, err);
}
