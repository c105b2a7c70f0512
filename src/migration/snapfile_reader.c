/* SPDX-License-Identifier: Apache-2.0 */
/*
 * snapfile_reader: everything but RAM into memory, and verified, before anybody sees any of it.
 *
 * No byte of the file is outside of a checksum or of a gap that must be zero; holes are believed,
 * they cannot hold anything.
 */
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapfile_chain.h"

#define HEAD_BYTES (2 * SNAPFILE_PAGE) /* superblock and table */

int snapfile_read_at(int fd, uint64_t offset, void *data, uint64_t bytes, struct error *err)
{
    uint8_t *at = data;

    while (bytes > 0) {
        ssize_t n = pread(fd, at, bytes, (off_t)offset);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(err, errno, "at byte %" PRIu64, offset);
        if (n == 0)
            return error_set(err, EPROTO, "ends at byte %" PRIu64 ", too early", offset);
        at += n;
        offset += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return 0;
}

/*
 * The first page at or after `from` that may not be a hole. What a file system says that makes no
 * sense, or nothing, means that all may be data.
 */
uint64_t snapfile_next_data(int fd, uint64_t from, uint64_t end)
{
    off_t at = lseek(fd, (off_t)from, SEEK_DATA);

    if (at < (off_t)from)
        return at < 0 && errno == ENXIO ? end : from;
    uint64_t page = (uint64_t)at / SNAPFILE_PAGE * SNAPFILE_PAGE;
    return page < end ? page : end;
}

uint64_t snapfile_next_hole(int fd, uint64_t from, uint64_t end)
{
    off_t at = lseek(fd, (off_t)from, SEEK_HOLE);

    if (at <= (off_t)from)
        return end;
    uint64_t page = snapfile_align((uint64_t)at, SNAPFILE_PAGE);
    return page < end ? page : end;
}

static int check_gap(int fd, uint64_t from, uint64_t end, struct error *err)
{
    uint8_t page[SNAPFILE_PAGE];

    for (uint64_t at = snapfile_next_data(fd, from, end); at < end;
         at = snapfile_next_data(fd, at + SNAPFILE_PAGE, end)) {
        int r = snapfile_read_at(fd, at, page, sizeof(page), err);

        if (r < 0)
            return r;
        if (!snapfile_is_zero_page(page))
            return error_set(err, EPROTO, "bytes from %" PRIu64 " on: unused, but not zero", at);
    }
    return 0;
}

static int check_gaps(const struct snapfile *file, struct error *err)
{
    const struct snapfile_map *map = &file->map;
    int r = check_gap(file->fd, HEAD_BYTES, SNAPFILE_RAM_OFFSET, err);

    for (unsigned i = 0; r == 0 && i + 1 < map->count; i++)
        r = check_gap(file->fd, map->offsets[i] + map->regions[i].size, map->offsets[i + 1], err);
    return r;
}

int snapfile_read(const struct snapfile *file, uint64_t offset, void *data, uint64_t bytes,
                  struct error *err)
{
    int r = snapfile_read_at(file->fd, offset, data, bytes, err);

    return r < 0 ? error_prefix(err, "%s", file->name) : 0;
}

/* The table is good, the file is not: say how far it goes. */
static int tell_cut(const struct snapfile *file, uint64_t size, struct error *err)
{
    const struct snapfile_entry *cut = file->entries;

    if (size > file->super.file_bytes)
        return error_set(err, EPROTO, "%" PRIu64 " bytes longer than it was made",
                         size - file->super.file_bytes);
    if (size < cut->offset)
        return error_set(err, EPROTO, "cut off in RAM: it has %" PRIu64 " of %" PRIu64 " bytes",
                         size, file->super.file_bytes);
    while (cut->offset + cut->length <= size)
        cut++; /* one of them ends with the whole file */
    return error_set(err, EPROTO,
                     "section '%s': cut off: the file has %" PRIu64 " of %" PRIu64 " bytes",
                     cut->name, size, file->super.file_bytes);
}

static int read_head(struct snapfile *file, uint64_t size, struct error *err)
{
    static const uint8_t archive[] = {0x28, 0xb5, 0x2f, 0xfd}; /* zstd */
    uint8_t head[HEAD_BYTES] = {0};
    int r = snapfile_read_at(file->fd, 0, head, size < HEAD_BYTES ? size : HEAD_BYTES, err);

    if (r == 0 && memcmp(head, archive, sizeof(archive)) == 0)
        return error_set(err, EPROTO, "an archive: 'vmrun snapshot unpack' makes a snapshot of it");
    if (r == 0 && size < HEAD_BYTES)
        return error_set(err, EPROTO, "superblock: not a snapshot of vmrun, or cut off");
    if (r == 0)
        r = snapfile_get_superblock(head, &file->super, err);
    if (r < 0)
        return r;
    r = snapfile_get_table(head + SNAPFILE_TABLE_OFFSET, &file->super, file->entries, &file->count,
                           err);
    if (r == 0 && file->super.file_bytes != size)
        r = tell_cut(file, size, err);
    return r;
}

static uint8_t *section_data(const struct snapfile *file, unsigned index)
{
    return file->sections + (file->entries[index].offset - file->entries[0].offset);
}

static int check_section(const struct snapfile *file, unsigned i, struct error *err)
{
    const struct snapfile_entry *entry = &file->entries[i];
    const uint8_t *data = section_data(file, i);
    uint64_t end =
        i + 1 < file->count ? file->entries[i + 1].offset : entry->offset + entry->length;

    if (snapfile_hash(data, (size_t)entry->length) != entry->checksum)
        return error_set(err, EPROTO, "section '%s': checksum does not match", entry->name);
    for (uint64_t at = entry->length; at < end - entry->offset; at++)
        if (data[at])
            return error_set(err, EPROTO, "section '%s': bytes after it are not zero", entry->name);
    return 0;
}

/* One read for all of them; their sum is limited by the table's check. */
static int read_sections(struct snapfile *file, struct error *err)
{
    int r;

    uint64_t bytes = file->super.file_bytes - file->entries[0].offset;

    file->sections = malloc(bytes ? (size_t)bytes : 1);
    if (!file->sections)
        return error_set(err, ENOMEM, "out of memory");
    r = snapfile_read_at(file->fd, file->entries[0].offset, file->sections, bytes, err);
    for (unsigned i = 0; r == 0 && i < file->count; i++)
        r = check_section(file, i, err);
    return r;
}

static int take_memory(struct snapfile *file, struct error *err)
{
    size_t memory_len = 0, chunks_len = 0;
    const uint8_t *memory = snapfile_section(file, SNAPFILE_MEMORY, &memory_len);
    int r;

    file->chunks = snapfile_section(file, SNAPFILE_CHUNKS, &chunks_len);
    if (!memory || !file->chunks)
        return error_set(err, EPROTO, "section '%s': missing",
                         memory ? SNAPFILE_CHUNKS : SNAPFILE_MEMORY);
    r = snapfile_get_memory(memory, memory_len, &file->map, err);
    if (r < 0)
        return r;
    if (chunks_len != file->map.chunks * 8)
        return error_set(err, EPROTO, "section '" SNAPFILE_CHUNKS "': has the wrong size");
    if (file->entries[0].offset != file->map.end)
        return error_set(err, EPROTO, "section '%s': not where it must be", file->entries[0].name);
    return 0;
}

/* What a file builds on, as far as it can be told from this file alone. */
static int take_base(struct snapfile *file, struct error *err)
{
    size_t base_len = 0, pages_len = 0;
    const uint8_t *base = snapfile_section(file, SNAPFILE_BASE, &base_len);
    int r;

    file->pages = snapfile_section(file, SNAPFILE_PAGES, &pages_len);
    if (!file->super.partial && !base && !file->pages)
        return 0;
    if (!file->super.partial)
        return error_set(err, EPROTO, "section '%s': in a file that builds on none",
                         base ? SNAPFILE_BASE : SNAPFILE_PAGES);
    if (!base || !file->pages)
        return error_set(err, EPROTO, "section '%s': missing",
                         base ? SNAPFILE_PAGES : SNAPFILE_BASE);
    r = snapfile_get_base(base, base_len, &file->super, &file->parent, &file->parent_name, err);
    if (r < 0)
        return r;
    if (pages_len != file->map.chunks * SNAPFILE_PAGES_BYTES)
        return error_set(err, EPROTO, "section '" SNAPFILE_PAGES "': has the wrong size");
    if (!snapfile_check_pages(&file->map, file->pages))
        return error_set(err, EPROTO, "section '" SNAPFILE_PAGES "': more pages than there are");
    return 0;
}

int snapfile_open_fd(int fd, const char *name, struct snapfile **ret_file, struct error *err)
{
    struct snapfile *file = calloc(1, sizeof(*file));
    struct stat st;
    int r;

    if (!file) {
        close(fd);
        return error_set(err, ENOMEM, "%s: out of memory", name);
    }
    file->fd = fd;
    file->zero_sum = snapfile_hash_of_zero_page();
    file->name = strdup(name);
    if (!file->name) {
        r = error_set(err, ENOMEM, "out of memory");
        goto fail;
    }
    if (fstat(fd, &st) < 0) {
        r = error_errno(err, errno, "fstat");
        goto fail;
    }
    if (!S_ISREG(st.st_mode)) {
        r = error_set(err, EINVAL, "is no regular file");
        goto fail;
    }
    r = read_head(file, (uint64_t)st.st_size, err);
    if (r == 0)
        r = read_sections(file, err);
    if (r == 0)
        r = take_memory(file, err);
    if (r == 0)
        r = take_base(file, err);
    file->ram_checksum = snapfile_ram_checksum(file->entries, file->count);
    if (r == 0)
        r = check_gaps(file, err);
    if (r < 0)
        goto fail;
    *ret_file = file;
    return 0;

fail:
    error_prefix(err, "%s", name);
    snapfile_close(file);
    return r;
}

int snapfile_open_alone(const char *path, struct snapfile **ret_file, struct error *err)
{
    /* A pipe of that name would keep us waiting. */
    int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);

    return fd < 0 ? error_errno(err, errno, "%s", path) : snapfile_open_fd(fd, path, ret_file, err);
}

void snapfile_close(struct snapfile *file)
{
    while (file) {
        struct snapfile *base = file->base;

        close(file->fd);
        free(file->parent_name);
        free(file->sections);
        free(file->name);
        free(file);
        file = base;
    }
}

/* What it says */

bool snapfile_section_at(const struct snapfile *file, unsigned index, const char **ret_name,
                         bool *ret_critical, const void **ret_data, size_t *ret_len,
                         uint64_t *ret_checksum)
{
    if (index >= file->count)
        return false;
    *ret_name = file->entries[index].name;
    *ret_critical = file->entries[index].critical;
    *ret_data = section_data(file, index);
    *ret_len = (size_t)file->entries[index].length;
    *ret_checksum = file->entries[index].checksum;
    return true;
}

const void *snapfile_section(const struct snapfile *file, const char *name, size_t *ret_len)
{
    for (unsigned i = 0; i < file->count; i++) {
        if (strcmp(file->entries[i].name, name) != 0)
            continue;
        *ret_len = (size_t)file->entries[i].length;
        return section_data(file, i);
    }
    return NULL;
}

int snapfile_tell_state(const struct snapfile *file, state_told_fn *fn, void *opaque,
                        struct error *err)
{
    struct reader r = {0};
    int rc;

    r.data = snapfile_section(file, "state", &r.len);
    rc = r.data ? state_registry_tell(&r, fn, opaque, err) : error_set(err, EPROTO, "missing");
    return rc < 0 ? error_prefix(err, "%s: section 'state'", file->name) : 0;
}

unsigned snapfile_regions(const struct snapfile *file, const struct snapfile_region **ret_regions)
{
    *ret_regions = file->map.regions;
    return file->map.count;
}

unsigned snapfile_architecture(const struct snapfile *file)
{
    return file->super.architecture;
}

const uint8_t *snapfile_id(const struct snapfile *file)
{
    return file->super.id;
}

uint64_t snapfile_created_ns(const struct snapfile *file)
{
    return file->super.created_ns;
}

uint64_t snapfile_file_bytes(const struct snapfile *file)
{
    return file->super.file_bytes;
}

uint64_t snapfile_data_bytes(const struct snapfile *file)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < file->map.count; i++)
        bytes += file->map.data_bytes[i];
    return bytes;
}

int snapfile_fd(const struct snapfile *file)
{
    return file->fd;
}

uint64_t snapfile_ram_offset(const struct snapfile *file, unsigned region)
{
    assert(region < file->map.count);
    return file->map.offsets[region];
}
