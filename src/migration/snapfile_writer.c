/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapfile_writer: pages and sections go to their places at once; table, superblock and name come
 * when all is on the disk.
 *
 * A page that is put twice is hashed twice and read back never: `sums` has the checksum of each
 * page, exclusive-or'ed with that of a page of zeros, so that fresh memory means "all holes".
 */
#include "snapfile_writer.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "newfile.h"
#include "snapfile_chain.h"

#if defined(__x86_64__)
#define ARCHITECTURE SNAPFILE_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE SNAPFILE_AARCH64
#endif

#define OWN_SECTIONS(writer) ((writer)->partial ? 4u : 2u)

struct snapfile_writer {
    struct newfile file;
    struct snapfile_map map;
    uint64_t *sums, zero_sum;
    struct snapfile_entry entries[SNAPFILE_MAX_SECTIONS];
    unsigned count;
    uint64_t section_bytes, end; /* of all sections; of the file */
    uint8_t id[SNAPFILE_ID_BYTES];
    uint32_t architecture;
    uint64_t created_ns; /* 0: now */

    /* With a base: its identity, the section "base", and a bit for each page that was put. */
    bool partial;
    uint8_t parent[SNAPFILE_ID_BYTES];
    uint8_t *base, *pages;
    size_t base_len;
};

static int create(const char *path, bool replace, bool named, const struct snapfile_region *regions,
                  unsigned count, struct snapfile_writer **ret_writer, struct error *err)
{
    struct snapfile_writer *w = calloc(1, sizeof(*w));
    int r;

    if (!w)
        return error_set(err, ENOMEM, "%s: out of memory", path);
    w->zero_sum = snapfile_hash_of_zero_page();
    w->architecture = ARCHITECTURE;
    r = snapfile_map_init(&w->map, regions, count, err);
    if (r < 0) {
        error_prefix(err, "%s", path);
        goto fail;
    }
    w->end = w->map.end;
    w->sums = calloc(w->map.chunks, SNAPFILE_CHUNK_PAGES * sizeof(*w->sums));
    if (!w->sums) {
        r = error_set(err, ENOMEM, "%s: out of memory", path);
        goto fail;
    }
    r = newfile_open(&w->file, path, replace, named, err);
    if (r == 0 && getrandom(w->id, sizeof(w->id), 0) != sizeof(w->id))
        r = newfile_failed(&w->file, err);
    if (r < 0)
        goto fail;
    *ret_writer = w;
    return 0;

fail:
    snapfile_abandon(w);
    return r;
}

int snapfile_create(const char *path, bool replace, const struct snapfile_region *regions,
                    unsigned count, struct snapfile_writer **ret_writer, struct error *err)
{
    return create(path, replace, false, regions, count, ret_writer, err);
}

int snapfile_create_named(const char *path, bool replace, const struct snapfile_region *regions,
                          unsigned count, struct snapfile_writer **ret_writer, struct error *err)
{
    return create(path, replace, true, regions, count, ret_writer, err);
}

void snapfile_abandon(struct snapfile_writer *w)
{
    if (!w)
        return;
    newfile_close(&w->file);
    free(w->base);
    free(w->pages);
    free(w->sums);
    free(w);
}

/* On another file */

/* Beneath our own folder it is called from there, so that both can be moved. */
static int name_base(struct snapfile_writer *w, const struct snapfile *base, struct error *err)
{
    char self[40], folder[PATH_MAX], *path = realpath(base->name, NULL);
    ssize_t len;

    if (!path)
        return error_errno(err, errno, "%s", base->name);
    snprintf(self, sizeof(self), "/proc/self/fd/%d", w->file.dir);
    len = readlink(self, folder, sizeof(folder) - 1);
    if (len > 1)
        folder[len++] = '/'; /* not behind that of the root */
    bool beneath = len > 0 && strncmp(path, folder, (size_t)len) == 0;
    const char *name = beneath ? path + len : path;
    size_t name_len = strlen(name);

    if (snapfile_is_base_name(name, name_len)) {
        w->base_len = SNAPFILE_BASE_NAME + name_len;
        w->base = calloc(1, w->base_len);
    }
    if (w->base)
        memcpy(w->base + SNAPFILE_BASE_NAME, name, name_len);
    free(path);
    return w->base ? 0 : error_set(err, EINVAL, "%s: cannot be built on by this name", base->name);
}

/* What is built on must not give way to what builds on it. */
static int check_chain(const char *path, const struct snapfile *base, struct error *err)
{
    unsigned files = 1;

    if (base->map.chunks * SNAPFILE_PAGES_BYTES > SNAPFILE_MAX_SECTION_BYTES)
        return error_set(err, EFBIG, "%s: more RAM than a file that builds on another can have",
                         path);
    if (snapfile_is_of_chain(base, path))
        return error_set(err, EINVAL, "%s: is what the new file would build on", path);
    for (const struct snapfile *file = base; file; file = file->base)
        files++;
    if (files > SNAPFILE_MAX_CHAIN)
        return error_set(err, EMLINK,
                         "%s: is the last of %u files, each on another: more are not possible; "
                         "'vmrun snapshot flatten' makes one of them",
                         base->name, SNAPFILE_MAX_CHAIN);
    return 0;
}

static int build_on(struct snapfile_writer *w, const struct snapfile *base, struct error *err)
{
    if (name_base(w, base, err) < 0)
        return -err->code;
    memcpy(w->base, base->super.id, SNAPFILE_ID_BYTES);
    snapfile_put_le(w->base + SNAPFILE_ID_BYTES, base->ram_checksum, 8);
    memcpy(w->parent, base->super.id, SNAPFILE_ID_BYTES);
    w->partial = true;
    w->architecture = base->super.architecture;
    w->pages = calloc(w->map.chunks, SNAPFILE_PAGES_BYTES);
    return w->pages ? 0 : error_set(err, ENOMEM, "%s: out of memory", w->file.path);
}

int snapfile_create_on(const char *path, bool replace, const struct snapfile *base,
                       struct snapfile_writer **ret_writer, struct error *err)
{
    struct snapfile_writer *w = NULL;

    if (check_chain(path, base, err) < 0 ||
        snapfile_create(path, replace, base->map.regions, base->map.count, &w, err) < 0)
        return -err->code;
    if (w && build_on(w, base, err) == 0) {
        *ret_writer = w;
        return 0;
    }
    snapfile_abandon(w);
    return -err->code;
}

void snapfile_write_as(struct snapfile_writer *w, uint32_t architecture, uint64_t created_ns)
{
    w->architecture = architecture;
    w->created_ns = created_ns;
}

/* Bytes */

static int clear_at(const struct snapfile_writer *w, uint64_t offset, uint64_t bytes,
                    struct error *err)
{
    static const uint8_t zeros[SNAPFILE_PAGE];
    int r = 0;

    if (fallocate(w->file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
                  (off_t)bytes) == 0)
        return 0;
    if (errno != EOPNOTSUPP)
        return newfile_failed(&w->file, err);
    for (uint64_t done = 0; r == 0 && done < bytes; done += SNAPFILE_PAGE)
        r = newfile_write(&w->file, offset + done, zeros, SNAPFILE_PAGE, err);
    return r;
}

enum page_kind { PAGE_DATA, PAGE_WAS_DATA, PAGE_HOLE, PAGE_END };

static enum page_kind take_page(const struct snapfile_writer *w, const uint8_t *page, uint64_t *sum)
{
    uint64_t before = *sum;

    if (!snapfile_is_zero_page(page)) {
        *sum = snapfile_hash(page, SNAPFILE_PAGE) ^ w->zero_sum;
        return PAGE_DATA;
    }
    *sum = 0;
    return before ? PAGE_WAS_DATA : PAGE_HOLE;
}

int snapfile_put_pages(struct snapfile_writer *w, unsigned region, uint64_t offset,
                       const void *data, uint64_t bytes, struct error *err)
{
    assert(region < w->map.count && offset % SNAPFILE_PAGE == 0 && bytes % SNAPFILE_PAGE == 0);
    assert(offset <= w->map.regions[region].size && bytes <= w->map.regions[region].size - offset);

    const uint8_t *pages = data;
    uint64_t count = bytes / SNAPFILE_PAGE, first = 0;
    uint64_t at = w->map.offsets[region] + offset;
    uint64_t *sums =
        w->sums + w->map.first_chunk[region] * SNAPFILE_CHUNK_PAGES + offset / SNAPFILE_PAGE;
    enum page_kind kind = PAGE_END;
    int r = 0;

    for (uint64_t i = (uint64_t)(sums - w->sums), end = i + count; w->pages && i < end; i++)
        w->pages[i / 8] |= (uint8_t)(1u << i % 8);
    for (uint64_t i = 0; r == 0 && i <= count; i++) {
        enum page_kind next =
            i < count ? take_page(w, pages + i * SNAPFILE_PAGE, &sums[i]) : PAGE_END;

        if (next == kind)
            continue;
        uint64_t start = first * SNAPFILE_PAGE, length = (i - first) * SNAPFILE_PAGE;
        if (kind == PAGE_DATA)
            r = newfile_write(&w->file, at + start, pages + start, length, err);
        else if (kind == PAGE_WAS_DATA)
            r = clear_at(w, at + start, length, err);
        kind = next;
        first = i;
    }
    return r;
}

static int put_section(struct snapfile_writer *w, const char *name, bool critical, const void *data,
                       size_t len, struct error *err)
{
    struct snapfile_entry *entry = &w->entries[w->count];
    int r;

    assert(w->count < SNAPFILE_MAX_SECTIONS);
    if (len > SNAPFILE_MAX_SECTION_BYTES || len > SNAPFILE_MAX_SECTIONS_BYTES - w->section_bytes)
        return error_set(err, EFBIG, "%s: section '%s': more than a snapshot may have",
                         w->file.path, name);
    *entry = (struct snapfile_entry){.critical = critical,
                                     .offset = snapfile_align(w->end, SNAPFILE_PAGE),
                                     .length = len,
                                     .checksum = snapfile_hash(data, len)};
    memcpy(entry->name, name, strlen(name));
    r = newfile_write(&w->file, entry->offset, data, len, err);
    if (r < 0)
        return r;
    w->count++;
    w->section_bytes += len;
    w->end = entry->offset + len;
    return 0;
}

int snapfile_put_section(struct snapfile_writer *w, const char *name, bool critical,
                         const void *data, size_t len, struct error *err)
{
    bool taken = snapfile_is_own(name);

    for (unsigned i = 0; i < w->count; i++)
        taken = taken || strcmp(name, w->entries[i].name) == 0;
    if (taken)
        return error_set(err, EINVAL, "%s: section '%s': there is one", w->file.path, name);
    if (w->count >= SNAPFILE_MAX_SECTIONS - OWN_SECTIONS(w))
        return error_set(err, EFBIG, "%s: section '%s': one too many", w->file.path, name);
    if (!snapfile_is_name(name, strlen(name)) || (critical && !snapfile_is_known(name)))
        return error_set(err, EINVAL, "%s: section '%s': nobody could read it", w->file.path, name);
    return put_section(w, name, critical, data, len, err);
}

/* The end */

static uint64_t chunk_checksum(struct snapfile_writer *w, uint64_t chunk)
{
    uint64_t hashes[SNAPFILE_CHUNK_PAGES], offset, bytes;
    unsigned region = snapfile_map_chunk(&w->map, chunk, &offset, &bytes);
    size_t pages = (size_t)(bytes / SNAPFILE_PAGE);

    for (size_t i = 0; i < pages; i++) {
        uint64_t sum = w->sums[chunk * SNAPFILE_CHUNK_PAGES + i];

        hashes[i] = sum ^ w->zero_sum;
        w->map.data_bytes[region] += sum ? SNAPFILE_PAGE : 0;
    }
    return snapfile_hash_of_hashes(hashes, pages);
}

static int put_own_sections(struct snapfile_writer *w, struct error *err)
{
    uint8_t memory[SNAPFILE_MAX_REGIONS * SNAPFILE_MEMORY_ENTRY];
    uint8_t *chunks = malloc((size_t)w->map.chunks * 8);
    int r;

    if (!chunks)
        return error_set(err, ENOMEM, "%s: out of memory", w->file.path);
    for (uint64_t i = 0; i < w->map.chunks; i++)
        snapfile_put_le(chunks + 8 * i, chunk_checksum(w, i), 8);
    snapfile_put_memory(&w->map, memory);
    r = put_section(w, SNAPFILE_MEMORY, true, memory, (size_t)w->map.count * SNAPFILE_MEMORY_ENTRY,
                    err);
    if (r == 0)
        r = put_section(w, SNAPFILE_CHUNKS, true, chunks, (size_t)w->map.chunks * 8, err);
    if (r == 0 && w->partial)
        r = put_section(w, SNAPFILE_BASE, true, w->base, w->base_len, err);
    if (r == 0 && w->partial)
        r = put_section(w, SNAPFILE_PAGES, true, w->pages,
                        (size_t)w->map.chunks * SNAPFILE_PAGES_BYTES, err);
    free(chunks);
    return r;
}

/* The superblock goes to the disk after everything that it speaks of. */
static int write_head(struct snapfile_writer *w, struct error *err)
{
    struct snapfile_superblock super = {.architecture = w->architecture,
                                        .partial = w->partial,
                                        .table_bytes = (uint64_t)w->count * SNAPFILE_TABLE_ENTRY,
                                        .file_bytes = w->end};
    uint8_t page[SNAPFILE_PAGE];
    struct timespec now;
    int r;

    snapfile_put_table(w->entries, w->count, page);
    super.table_checksum = snapfile_hash(page, (size_t)super.table_bytes);
    r = newfile_write(&w->file, SNAPFILE_TABLE_OFFSET, page, sizeof(page), err);
    if (r < 0)
        return r;
    if (ftruncate(w->file.fd, (off_t)w->end) < 0 || fdatasync(w->file.fd) < 0)
        return newfile_failed(&w->file, err);
    clock_gettime(CLOCK_REALTIME, &now);
    super.created_ns =
        w->created_ns ? w->created_ns : (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    memcpy(super.id, w->id, sizeof(super.id));
    memcpy(super.parent, w->parent, sizeof(super.parent));
    snapfile_put_superblock(&super, page);
    r = newfile_write(&w->file, 0, page, sizeof(page), err);
    if (r == 0 && fsync(w->file.fd) < 0)
        r = newfile_failed(&w->file, err);
    return r;
}

static int finish(struct snapfile_writer *w, struct error *err)
{
    int r = put_own_sections(w, err);

    return r < 0 ? r : write_head(w, err);
}

static void tell_written(const struct snapfile_writer *w, uint64_t file_bytes,
                         struct snapfile_written *ret_written)
{
    *ret_written = (struct snapfile_written){.file_bytes = file_bytes};
    for (unsigned i = 0; i < w->map.count; i++)
        ret_written->data_bytes += w->map.data_bytes[i];
    for (unsigned i = 0; !w->pages && i < w->map.count; i++)
        ret_written->held_bytes += w->map.regions[i].size;
    for (uint64_t i = 0; w->pages && i < w->map.chunks * SNAPFILE_PAGES_BYTES; i++)
        ret_written->held_bytes += (uint64_t)__builtin_popcount(w->pages[i]) * SNAPFILE_PAGE;
    memcpy(ret_written->id, w->id, sizeof(w->id));
    ret_written->ram_checksum = snapfile_ram_checksum(w->entries, w->count);
}

int snapfile_publish(struct snapfile_writer *w, struct snapfile_written *ret_written,
                     struct error *err)
{
    int r = finish(w, err);

    if (r == 0)
        r = newfile_take_name(&w->file, err);
    if (r == 0)
        tell_written(w, w->end, ret_written);
    snapfile_abandon(w);
    return r;
}

int snapfile_publish_archive(struct snapfile_writer *w, snapfile_progress_fn *progress,
                             void *opaque, struct snapfile_written *ret_written, struct error *err)
{
    struct snapfile *file = NULL;
    uint64_t bytes = 0;
    int r = finish(w, err);

    if (r == 0) {
        int fd = fcntl(w->file.fd, F_DUPFD_CLOEXEC, 0);

        r = fd < 0 ? newfile_failed(&w->file, err) : snapfile_open_fd(fd, w->file.path, &file, err);
    }
    if (r == 0)
        r = snapfile_pack(file, w->file.path, w->file.replace, progress, opaque, &bytes, err);
    if (r == 0)
        tell_written(w, bytes, ret_written);
    snapfile_close(file);
    snapfile_abandon(w);
    return r;
}
