/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fuzz_snapfile: a hostile snapshot file, alone and as what another builds on, through all that
 * reads one.
 *
 * An input is what of a small file is not zero: a byte of choices, the superblock's beginning, the
 * table's, and pieces of 128 bytes, a page's number (from 2 MiB on) and how it begins. The choices
 * have checksums made right, so that what lies behind them is reached.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "migration/snapfile_format.h"
#include "snapshot.h"
#include "vmrun/working_set.h"

#define SUPERBLOCK_BYTES 120u
#define TABLE_BYTES 448u
#define PIECE 128u
#define MOST_PAGES 1024u
#define MOST_BYTES (UINT64_C(16) << 20)
#define TAKE_LENGTH 8u /* a choice: the file is as long as it says itself */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void put(int fd, const uint8_t **data, size_t *left, size_t most, uint64_t at)
{
    size_t bytes = *left < most ? *left : most;

    if (pwrite(fd, *data, bytes, (off_t)at) != (ssize_t)bytes)
        abort();
    *data += bytes;
    *left -= bytes;
}

static void build(int fd, const uint8_t *data, size_t size)
{
    unsigned choices = size ? data[0] : 0;
    size_t left = size ? size - 1 : 0;
    uint64_t length = SNAPFILE_RAM_OFFSET;
    uint8_t told[8];

    data += size ? 1 : 0;
    put(fd, &data, &left, SUPERBLOCK_BYTES, 0);
    put(fd, &data, &left, TABLE_BYTES, SNAPFILE_TABLE_OFFSET);
    while (left >= 2) {
        uint64_t at = SNAPFILE_RAM_OFFSET + snapfile_get_le(data, 2) % MOST_PAGES * SNAPFILE_PAGE;

        data += 2;
        left -= 2;
        put(fd, &data, &left, PIECE - 2, at);
        length = length > at + SNAPFILE_PAGE ? length : at + SNAPFILE_PAGE;
    }
    if (choices & TAKE_LENGTH && pread(fd, told, 8, 104) == 8 &&
        snapfile_get_le(told, 8) <= MOST_BYTES)
        length = snapfile_get_le(told, 8);
    if (ftruncate(fd, (off_t)length) < 0)
        abort();
    if (length >= 2 * SNAPFILE_PAGE)
        snapshot_mend(fd, choices & SNAPSHOT_ALL);
}

static void touch(void *opaque, const struct state_told *told)
{
    uint64_t *sum = opaque;

    for (size_t i = 0; i < (size_t)told->size * told->count; i++)
        *sum += told->values[i];
}

/* What it builds on, and the runs of pages that are its own. */
static uint64_t read_parts(const struct snapfile *file)
{
    const struct snapfile_region *regions;
    unsigned count = snapfile_regions(file, &regions);
    uint64_t held = snapfile_pages_held(file), all = 0, run;
    struct snapfile_parent parent;

    if (snapfile_parent(file, &parent) &&
        (!snapfile_is_base_name(parent.name, strlen(parent.name)) || snapfile_base(file)))
        abort();
    for (unsigned i = 0; i < count; i++)
        for (uint64_t page = 0; page < regions[i].size / SNAPFILE_PAGE; page += run, all += run)
            if (snapfile_source(file, i, page, &run) != file || run == 0)
                abort();
    if (held > all)
        abort();
    return held;
}

static uint64_t read_all(struct snapfile *file)
{
    static uint8_t chunk[SNAPFILE_CHUNK_BYTES];
    uint64_t sum = 0, checksum, gpa, bytes;
    struct working_set set = {0};
    struct error err;
    const char *name;
    const void *section;
    bool critical;
    size_t len;

    for (unsigned i = 0; snapfile_section_at(file, i, &name, &critical, &section, &len, &checksum);
         i++) {
        if (checksum != snapfile_hash(section, len) || strlen(name) >= SNAPFILE_NAME_BYTES)
            abort();
        sum += checksum;
    }
    if (working_set_find(file, &set, &err) == 0)
        for (size_t i = 0; i < set.runs; i++)
            sum += working_set_run(&set, i).pages;
    if (set.pages > MOST_BYTES / SNAPFILE_PAGE)
        abort();
    (void)snapfile_tell_state(file, touch, &sum, &err);
    sum += read_parts(file);
    for (uint64_t i = 0; i < snapfile_chunks(file); i++) {
        snapfile_chunk_range(file, i, &gpa, &bytes);
        int quiet = snapfile_verify_chunk(file, i, NULL, &err);
        if (quiet != snapfile_verify_chunk(file, i, chunk, &err))
            abort();
        sum += gpa + chunk[bytes - 1];
    }
    return sum;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint64_t seen; /* so that all that is read is needed */
    static int fd = -1;
    struct snapfile *file;
    struct error err;

    if (fd < 0)
        fd = memfd_create("snapshot", MFD_CLOEXEC);
    if (fd < 0 || ftruncate(fd, 0) < 0)
        abort();
    build(fd, data, size);
    if (snapfile_open_fd(dup(fd), "snapshot", &file, &err) == 0) {
        __atomic_fetch_add(&seen, read_all(file), __ATOMIC_RELAXED);
        snapfile_close(file);
    }
    return 0;
}
