/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapfile_archive: a snapshot as one frame of zstd, and back.
 *
 * An archive is the snapshot's bytes and nothing else: zeros cost almost nothing there, so it knows
 * no holes. What goes in was verified, and what came out is verified before it has a name. libzstd
 * is opened when it is needed.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "newfile.h"
#include "snapfile_format.h"
#include "zstd_library.h"

#define LEVEL 3
#define MOST_WORKERS 8
#define PIECE_BYTES SNAPFILE_CHUNK_BYTES
#define PACKED_BYTES (UINT64_C(256) << 10)
#define MOST_BYTES \
    (SNAPFILE_MAX_RAM_BYTES + SNAPFILE_MAX_SECTIONS_BYTES + 16 * SNAPFILE_CHUNK_BYTES)

/* A snapshot or an archive on its way into the other. */
struct passing {
    const char *name; /* of the archive, for messages */
    struct zstd zstd;
    ZSTD_CCtx *packer;
    ZSTD_DCtx *unpacker;
    int in; /* the archive that is unpacked */
    struct newfile out;
    uint64_t out_bytes;
    uint8_t *piece, *packed; /* PIECE_BYTES of the snapshot, PACKED_BYTES of the archive */
    uint64_t done, all;      /* bytes of the snapshot */
    snapfile_progress_fn *progress;
    void *opaque;
};

static int begin(struct passing *p, const char *path, bool replace, struct error *err)
{
    int r = newfile_open(&p->out, path, replace, false, err);

    if (r == 0)
        r = zstd_open(&p->zstd, err);
    if (r < 0)
        return r;
    p->piece = calloc(1, PIECE_BYTES);
    p->packed = malloc(PACKED_BYTES);
    return p->piece && p->packed ? 0 : error_set(err, ENOMEM, "%s: out of memory", path);
}

static void end(struct passing *p)
{
    if (p->packer)
        p->zstd.free_packer(p->packer);
    if (p->unpacker)
        p->zstd.free_unpacker(p->unpacker);
    zstd_close(&p->zstd);
    if (p->in >= 0)
        close(p->in);
    newfile_close(&p->out);
    free(p->piece);
    free(p->packed);
}

static int step(struct passing *p, uint64_t bytes, struct error *err)
{
    p->done += bytes;
    if (p->progress && !p->progress(p->opaque, p->done, p->all))
        return error_set(err, ECANCELED, "%s: cancelled", p->name);
    return 0;
}

static int make_durable(struct passing *p, struct error *err)
{
    return fsync(p->out.fd) < 0 ? newfile_failed(&p->out, err) : newfile_take_name(&p->out, err);
}

/* Packing */

/* The first bytes of the piece; the last ones end the frame. */
static int pack_piece(struct passing *p, uint64_t bytes, struct error *err)
{
    bool last = p->done + bytes == p->all;
    ZSTD_inBuffer in = {.src = p->piece, .size = (size_t)bytes};
    size_t left;
    int r = 0;

    do {
        ZSTD_outBuffer out = {.dst = p->packed, .size = PACKED_BYTES};

        left = p->zstd.pack(p->packer, &out, &in, last ? ZSTD_e_end : ZSTD_e_continue);
        if (p->zstd.is_error(left))
            return error_set(err, EIO, "%s: %s", p->name, p->zstd.error_name(left));
        r = newfile_write(&p->out, p->out_bytes, p->packed, out.pos, err);
        p->out_bytes += out.pos;
    } while (r == 0 && (last ? left > 0 : in.pos < in.size));
    return r < 0 ? r : step(p, bytes, err);
}

/* What is no RAM, from where we are up to there. */
static int pack_up_to(struct passing *p, const struct snapfile *file, uint64_t to,
                      struct error *err)
{
    int r = 0;

    while (r == 0 && p->done < to) {
        uint64_t bytes = to - p->done < PIECE_BYTES ? to - p->done : PIECE_BYTES;

        r = snapfile_read(file, p->done, p->piece, bytes, err);
        if (r == 0)
            r = pack_piece(p, bytes, err);
    }
    return r;
}

static int pack_all(struct passing *p, const struct snapfile *file, struct error *err)
{
    const struct snapfile_region *regions;
    unsigned count = snapfile_regions(file, &regions);
    struct snapfile_parent parent;
    uint64_t chunk = 0, gpa, bytes;
    int r = 0;

    for (unsigned i = 0; r == 0 && i < count; i++) {
        uint64_t start = snapfile_ram_offset(file, i);

        r = pack_up_to(p, file, start, err);
        while (r == 0 && p->done < start + regions[i].size) {
            snapfile_chunk_range(file, chunk, &gpa, &bytes);
            /* What it does not hold is left alone, and zero. */
            if (snapfile_parent(file, &parent))
                memset(p->piece, 0, (size_t)bytes);
            r = snapfile_verify_alone(file, chunk++, p->piece, err);
            if (r == 0)
                r = pack_piece(p, bytes, err);
        }
    }
    return r < 0 ? r : pack_up_to(p, file, p->all, err);
}

static int begin_packing(struct passing *p, struct error *err)
{
    cpu_set_t set;
    int cpus = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;

    p->packer = p->zstd.create_packer();
    if (!p->packer || p->zstd.is_error(p->zstd.set(p->packer, ZSTD_c_compressionLevel, LEVEL)) ||
        p->zstd.is_error(p->zstd.set(p->packer, ZSTD_c_checksumFlag, 1)) ||
        p->zstd.is_error(p->zstd.set_size(p->packer, p->all)))
        return error_set(err, ENOMEM, "%s: out of memory", p->name);
    /* A library without threads refuses this, and does it all itself. */
    (void)p->zstd.set(p->packer, ZSTD_c_nbWorkers, cpus < MOST_WORKERS ? cpus : MOST_WORKERS);
    return 0;
}

int snapfile_pack(const struct snapfile *file, const char *path, bool replace,
                  snapfile_progress_fn *progress, void *opaque, uint64_t *ret_bytes,
                  struct error *err)
{
    struct passing p = {.name = path,
                        .in = -1,
                        .all = snapfile_file_bytes(file),
                        .progress = progress,
                        .opaque = opaque};
    int r = begin(&p, path, replace, err);

    if (r == 0)
        r = begin_packing(&p, err);
    if (r == 0)
        r = pack_all(&p, file, err);
    if (r == 0)
        r = make_durable(&p, err);
    if (r == 0)
        *ret_bytes = p.out_bytes;
    end(&p);
    return r;
}

/* Unpacking */

static int not_a_snapshot(const struct passing *p, const char *why, struct error *err)
{
    return error_set(err, EPROTO, "%s: as an archive of a snapshot: %s", p->name, why);
}

/* The first piece says how much is to come. */
static int look_at_head(struct passing *p, uint64_t bytes, struct error *err)
{
    struct snapfile_superblock super;
    int r;

    if (bytes < SNAPFILE_PAGE)
        return not_a_snapshot(p, "too short", err);
    r = snapfile_get_superblock(p->piece, &super, err);
    if (r < 0)
        return error_prefix(err, "%s", p->name);
    if (super.file_bytes > MOST_BYTES)
        return not_a_snapshot(p, "larger than any can be", err);
    p->all = super.file_bytes;
    return 0;
}

/* Pages of zeros stay holes; what is no whole page at the end is written as it is. */
static int store_piece(struct passing *p, uint64_t bytes, struct error *err)
{
    int r = p->done == 0 ? look_at_head(p, bytes, err) : 0;
    uint64_t first = 0;

    if (r == 0 && bytes > p->all - p->done)
        r = not_a_snapshot(p, "longer than it says", err);
    for (uint64_t at = 0; r == 0 && at < bytes; at += SNAPFILE_PAGE) {
        bool whole = bytes - at >= SNAPFILE_PAGE;

        if (!whole || !snapfile_is_zero_page(p->piece + at))
            continue;
        r = newfile_write(&p->out, p->done + first, p->piece + first, at - first, err);
        first = at + SNAPFILE_PAGE;
    }
    if (r == 0 && first < bytes)
        r = newfile_write(&p->out, p->done + first, p->piece + first, bytes - first, err);
    return r < 0 ? r : step(p, bytes, err);
}

/* The next bytes of the archive; none are left: *ret_bytes is 0. */
static int feed(struct passing *p, size_t *ret_bytes, struct error *err)
{
    ssize_t n;

    do
        n = read(p->in, p->packed, PACKED_BYTES);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return error_errno(err, errno, "%s", p->name);
    *ret_bytes = (size_t)n;
    return 0;
}

static int unpack_all(struct passing *p, struct error *err)
{
    ZSTD_inBuffer in = {.src = p->packed};
    ZSTD_outBuffer out = {.dst = p->piece, .size = PIECE_BYTES};
    size_t left = 1;
    int r = 0;

    while (r == 0 && left > 0) {
        size_t was_in = in.pos, was_out = out.pos;

        if (in.pos == in.size) {
            in.pos = was_in = 0;
            r = feed(p, &in.size, err);
        }
        if (r < 0)
            break;
        left = p->zstd.unpack(p->unpacker, &out, &in);
        if (p->zstd.is_error(left))
            return not_a_snapshot(p, p->zstd.error_name(left), err);
        if (left > 0 && in.pos == was_in && out.pos == was_out && in.size == 0)
            return not_a_snapshot(p, "cut off", err);
        if (out.pos == out.size || left == 0) {
            r = store_piece(p, out.pos, err);
            out.pos = 0;
        }
    }
    if (r == 0 && in.pos == in.size) {
        in.pos = 0;
        r = feed(p, &in.size, err);
    }
    if (r == 0 && in.pos < in.size)
        r = not_a_snapshot(p, "something follows it", err);
    if (r == 0 && p->done != p->all)
        r = not_a_snapshot(p, "shorter than it says", err);
    return r;
}

/* All of what was written, as it lies on the disk or will. */
static int verify(struct passing *p, struct error *err)
{
    struct snapfile *file;
    uint64_t gpa, bytes;
    int r, fd;

    if (ftruncate(p->out.fd, (off_t)p->all) < 0)
        return newfile_failed(&p->out, err);
    fd = fcntl(p->out.fd, F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return newfile_failed(&p->out, err);
    r = snapfile_open_fd(fd, p->name, &file, err);
    if (r < 0)
        return r;
    for (uint64_t i = 0; r == 0 && i < snapfile_chunks(file); i++) {
        snapfile_chunk_range(file, i, &gpa, &bytes);
        r = snapfile_verify_chunk(file, i, NULL, err);
        if (r == 0)
            r = step(p, 0, err);
    }
    snapfile_close(file);
    return r;
}

static int open_archive(struct passing *p, struct error *err)
{
    struct stat st;

    p->in = open(p->name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
    if (p->in < 0 || fstat(p->in, &st) < 0)
        return error_errno(err, errno, "%s", p->name);
    return S_ISREG(st.st_mode) ? 0 : error_set(err, EINVAL, "%s: is no regular file", p->name);
}

int snapfile_unpack(const char *archive, const char *path, bool replace,
                    snapfile_progress_fn *progress, void *opaque, uint64_t *ret_bytes,
                    struct error *err)
{
    struct passing p = {.name = archive, .in = -1, .progress = progress, .opaque = opaque};
    int r = open_archive(&p, err);

    if (r == 0)
        r = begin(&p, path, replace, err);
    if (r == 0) {
        p.unpacker = p.zstd.create_unpacker();
        r = p.unpacker ? unpack_all(&p, err) : error_set(err, ENOMEM, "%s: out of memory", archive);
    }
    if (r == 0)
        r = verify(&p, err);
    if (r == 0)
        r = make_durable(&p, err);
    if (r == 0)
        *ret_bytes = p.all;
    end(&p);
    return r;
}
