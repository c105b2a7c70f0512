/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapfile_rewrite: RAM is copied as it lies, without looking at it: its checksums are copied too.
 * Where the file system shares blocks between files nothing is copied at all.
 */
#include "snapfile_rewrite.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "newfile.h"
#include "snapfile_format.h"

#define PIECE_BYTES (UINT64_C(8) << 20)
#define BUFFER_BYTES (UINT64_C(256) << 10)

struct snapfile_rewrite {
    const struct snapfile *file;
    struct newfile out;
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    unsigned count;
    uint64_t end; /* of what is written */
};

/* Another file of that name is somebody else's, and not to be replaced by this one. */
static int check_name(const struct snapfile_rewrite *rewrite, struct error *err)
{
    const struct newfile *out = &rewrite->out;
    struct stat was, is;

    if (fstat(snapfile_fd(rewrite->file), &was) < 0 ||
        fstatat(out->dir, out->base, &is, AT_SYMLINK_NOFOLLOW) < 0)
        return newfile_failed(out, err);
    if (was.st_dev != is.st_dev || was.st_ino != is.st_ino)
        return error_set(err, ESTALE, "%s: is another file by now", out->path);
    return 0;
}

int snapfile_rewrite_create(const struct snapfile *file, const char *path,
                            struct snapfile_rewrite **ret_rewrite, struct error *err)
{
    struct snapfile_rewrite *rewrite = calloc(1, sizeof(*rewrite));
    char real[PATH_MAX];
    struct stat st;
    int r;

    if (!rewrite)
        return error_set(err, ENOMEM, "%s: out of memory", path);
    rewrite->file = file;
    /* A link stays, and what it leads to is replaced. */
    if (!realpath(path, real)) {
        r = error_errno(err, errno, "%s", path);
        goto fail;
    }
    r = newfile_open(&rewrite->out, real, true, false, err);
    if (r == 0)
        r = check_name(rewrite, err);
    /* Whoever may read the old one may read the new one. */
    if (r == 0 && (fstat(snapfile_fd(file), &st) < 0 ||
                   fchmod(rewrite->out.fd, st.st_mode & (S_IRWXU | S_IRWXG | S_IRWXO)) < 0))
        r = newfile_failed(&rewrite->out, err);
    if (r < 0)
        goto fail;
    *ret_rewrite = rewrite;
    return 0;

fail:
    snapfile_rewrite_abandon(rewrite);
    return r;
}

void snapfile_rewrite_abandon(struct snapfile_rewrite *rewrite)
{
    if (!rewrite)
        return;
    newfile_close(&rewrite->out);
    free(rewrite);
}

/* RAM */

static int copy_by_hand(struct snapfile_rewrite *rewrite, uint64_t at, uint64_t bytes,
                        struct error *err)
{
    uint8_t *buffer = malloc(BUFFER_BYTES);
    int r = buffer ? 0 : error_set(err, ENOMEM, "%s: out of memory", rewrite->out.path);

    while (r == 0 && bytes > 0) {
        uint64_t n = bytes < BUFFER_BYTES ? bytes : BUFFER_BYTES;

        r = snapfile_read(rewrite->file, at, buffer, n, err);
        if (r == 0)
            r = newfile_write(&rewrite->out, at, buffer, n, err);
        at += n;
        bytes -= n;
    }
    free(buffer);
    return r;
}

/* Not every kernel or file system copies by itself; then it is done here. */
static int copy_piece(struct snapfile_rewrite *rewrite, uint64_t at, uint64_t bytes,
                      struct error *err)
{
    while (bytes > 0) {
        off_t from = (off_t)at, to = (off_t)at;
        ssize_t n = copy_file_range(snapfile_fd(rewrite->file), &from, rewrite->out.fd, &to,
                                    (size_t)bytes, 0);

        if (n < 0 && (errno == ENOSPC || errno == EIO || errno == EFBIG || errno == EDQUOT))
            return newfile_failed(&rewrite->out, err);
        if (n <= 0)
            return copy_by_hand(rewrite, at, bytes, err); /* which knows an end, too */
        at += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return 0;
}

/* What comes after RAM goes again: the file's own sections, that are written anew. */
static int copy_ram(struct snapfile_rewrite *rewrite, uint64_t end, const atomic_bool *leave,
                    struct error *err)
{
    int in = snapfile_fd(rewrite->file), r = 0;

    if (ioctl(rewrite->out.fd, FICLONE, in) == 0)
        return ftruncate(rewrite->out.fd, (off_t)end) < 0 ? newfile_failed(&rewrite->out, err) : 0;
    for (uint64_t at = SNAPFILE_RAM_OFFSET, hole; r == 0 && at < end; at = hole) {
        off_t data = lseek(in, (off_t)at, SEEK_DATA);

        if (data < 0 && errno == ENXIO)
            break; /* holes to the end */
        at = data > (off_t)at ? (uint64_t)data : at;
        off_t next = at < end ? lseek(in, (off_t)at, SEEK_HOLE) : (off_t)end;
        hole = next > (off_t)at && (uint64_t)next < end ? (uint64_t)next : end;
        while (r == 0 && at < hole) {
            uint64_t bytes = hole - at < PIECE_BYTES ? hole - at : PIECE_BYTES;

            r = atomic_load(leave) ? error_set(err, ECANCELED, "cancelled")
                                   : copy_piece(rewrite, at, bytes, err);
            at += bytes;
        }
    }
    return r;
}

/* Sections */

static int put_section(struct snapfile_rewrite *rewrite, const char *name, bool critical,
                       const void *data, size_t len, struct error *err)
{
    struct snapfile_entry *entry = &rewrite->entries[rewrite->count];

    if (rewrite->count >= SNAPFILE_MAX_SECTIONS)
        return error_set(err, EFBIG, "%s: section '%s': one too many", rewrite->out.path, name);
    *entry = (struct snapfile_entry){.critical = critical,
                                     .offset = snapfile_align(rewrite->end, SNAPFILE_PAGE),
                                     .length = len,
                                     .checksum = snapfile_hash(data, len)};
    memcpy(entry->name, name, strlen(name));
    rewrite->count++;
    rewrite->end = entry->offset + len;
    return newfile_write(&rewrite->out, entry->offset, data, len, err);
}

static int put_sections(struct snapfile_rewrite *rewrite, const char *name, const void *data,
                        size_t len, struct error *err)
{
    const void *old;
    uint64_t checksum, total = len;
    const char *its;
    bool critical;
    size_t old_len;
    int r = 0;

    for (unsigned i = 0; r == 0 && snapfile_section_at(rewrite->file, i, &its, &critical, &old,
                                                       &old_len, &checksum);
         i++) {
        if (strcmp(its, name) == 0)
            continue;
        total += old_len;
        r = put_section(rewrite, its, critical, old, old_len, err);
    }
    if (r == 0 && (len > SNAPFILE_MAX_SECTION_BYTES || total > SNAPFILE_MAX_SECTIONS_BYTES))
        r = error_set(err, EFBIG, "%s: section '%s': more than a snapshot may have",
                      rewrite->out.path, name);
    return r < 0 ? r : put_section(rewrite, name, false, data, len, err);
}

/* All that the superblock says of the machine stays; what it says of the table does not. */
static int write_head(struct snapfile_rewrite *rewrite, struct error *err)
{
    uint8_t block[SNAPFILE_PAGE], table[SNAPFILE_PAGE];
    uint64_t bytes = (uint64_t)rewrite->count * SNAPFILE_TABLE_ENTRY;
    struct snapfile_superblock super;
    int r = snapfile_read(rewrite->file, 0, block, sizeof(block), err);

    if (r == 0) /* nobody has touched it since: a wrong checksum is not to be made right */
        r = snapfile_get_superblock(block, &super, err);
    if (r < 0)
        return r;
    snapfile_put_table(rewrite->entries, rewrite->count, table);
    snapfile_change_superblock(block, bytes, snapfile_hash(table, (size_t)bytes), rewrite->end);
    r = newfile_write(&rewrite->out, SNAPFILE_TABLE_OFFSET, table, sizeof(table), err);
    if (r == 0 &&
        (ftruncate(rewrite->out.fd, (off_t)rewrite->end) < 0 || fdatasync(rewrite->out.fd) < 0))
        r = newfile_failed(&rewrite->out, err);
    if (r == 0)
        r = newfile_write(&rewrite->out, 0, block, sizeof(block), err);
    if (r == 0 && fsync(rewrite->out.fd) < 0)
        r = newfile_failed(&rewrite->out, err);
    return r;
}

int snapfile_rewrite_publish(struct snapfile_rewrite *rewrite, const char *name, const void *data,
                             size_t len, const atomic_bool *leave, struct error *err)
{
    static const uint8_t zeros[SNAPFILE_PAGE];
    const struct snapfile_region *regions;
    unsigned last = snapfile_regions(rewrite->file, &regions) - 1;
    int r;

    rewrite->end = snapfile_ram_offset(rewrite->file, last) + regions[last].size;
    r = copy_ram(rewrite, rewrite->end, leave, err);
    if (r == 0) /* a clone has the old superblock */
        r = newfile_write(&rewrite->out, 0, zeros, sizeof(zeros), err);
    if (r == 0)
        r = put_sections(rewrite, name, data, len, err);
    if (r == 0)
        r = write_head(rewrite, err);
    if (r == 0 && atomic_load(leave))
        r = error_set(err, ECANCELED, "cancelled");
    if (r == 0)
        r = check_name(rewrite, err);
    if (r == 0)
        r = newfile_take_name(&rewrite->out, err);
    snapfile_rewrite_abandon(rewrite);
    return r;
}
