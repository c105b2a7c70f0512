/* SPDX-License-Identifier: Apache-2.0 */
#include "snapshot.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../../src/migration/snapfile_format.h"
#include "vmrun/state.h"

struct chip {
    uint32_t ticks;
    uint8_t flags[8];
    uint64_t deadline;
};

static const struct state_field chip_fields[] = {
    STATE(struct chip, ticks),
    STATE_ARRAY(struct chip, flags),
    STATE(struct chip, deadline),
    STATE_END,
};
static const struct state_desc chip_state = {.name = "chip", .version = 1, .fields = chip_fields};

struct snapshot_like snapshot_small(void)
{
    return (struct snapshot_like){
        .regions = {{0, 4 * SNAPSHOT_PAGE}},
        .region_count = 1,
        .pages = {0, 2 * SNAPSHOT_PAGE, UINT64_MAX},
        .fill = 1,
        .ticks = 7,
    };
}

void snapshot_fill_page(uint8_t *page, uint64_t gpa, uint8_t fill)
{
    for (unsigned i = 0; i < SNAPSHOT_PAGE; i++)
        page[i] = (uint8_t)(fill + i * 7 + (gpa >> 12) * 13 + (i >> 8));
}

static void put_state(struct snapfile_writer *writer, const struct snapshot_like *like)
{
    struct chip chip = {
        .ticks = like->ticks, .flags = {1, 2, 3, [7] = like->flag}, .deadline = UINT64_C(1) << 63};
    struct state_registry *registry;
    struct writer bytes = {0};
    struct error err;

    assert_int_equal(state_registry_create(&registry, &err), 0);
    assert_int_equal(state_registry_add(registry, "chip0", &chip_state, &chip, NULL, &err), 0);
    assert_int_equal(state_registry_save(registry, &bytes, &err), 0);
    assert_int_equal(snapfile_put_section(writer, "state", true, bytes.data, bytes.len, &err), 0);
    free(bytes.data);
    state_registry_destroy(registry);
}

void snapshot_put(struct snapfile_writer *writer, const struct snapshot_like *like)
{
    const char *machine = like->machine ? like->machine : SNAPSHOT_MACHINE;
    uint8_t page[SNAPSHOT_PAGE];
    struct error err;

    for (unsigned i = 0; like->pages[i] != UINT64_MAX; i++) {
        unsigned region = 0;

        while (like->pages[i] >= like->regions[region].gpa + like->regions[region].size)
            region++;
        snapshot_fill_page(page, like->pages[i], like->fill);
        assert_int_equal(snapfile_put_pages(writer, region,
                                            like->pages[i] - like->regions[region].gpa, page,
                                            sizeof(page), &err),
                         0);
    }
    assert_int_equal(snapfile_put_section(writer, "machine", true, machine, strlen(machine), &err),
                     0);
    assert_int_equal(
        snapfile_put_section(writer, "about", false, SNAPSHOT_ABOUT, strlen(SNAPSHOT_ABOUT), &err),
        0);
    put_state(writer, like);
}

void snapshot_make(const char *path, const struct snapshot_like *like)
{
    struct snapfile_written written;
    struct snapfile_writer *writer;
    struct error err;

    if (snapfile_create(path, true, like->regions, like->region_count, &writer, &err) < 0)
        fail_msg("%s", err.msg);
    snapshot_put(writer, like);
    if (snapfile_publish(writer, &written, &err) < 0)
        fail_msg("%s", err.msg);
}

void snapshot_make_on(const char *path, const char *base, const struct snapshot_like *like)
{
    struct snapfile *file = snapshot_file_open(base);
    struct snapfile_writer *writer;
    struct error err;

    if (snapfile_create_on(path, true, file, &writer, &err) < 0)
        fail_msg("%s", err.msg);
    snapfile_close(file);
    snapshot_put(writer, like);
    (void)snapshot_file_publish(writer);
}

struct snapfile *snapshot_file_open(const char *path)
{
    struct snapfile *file;
    struct error err;

    if (snapfile_open(path, &file, &err) < 0)
        fail_msg("%s", err.msg);
    return file;
}

void snapshot_file_verify(const struct snapfile *file)
{
    struct error err;

    for (uint64_t i = 0; i < snapfile_chunks(file); i++)
        if (snapfile_verify_chunk(file, i, NULL, &err) < 0)
            fail_msg("%s", err.msg);
}

struct snapfile_written snapshot_file_publish(struct snapfile_writer *writer)
{
    struct snapfile_written written;
    struct error err;

    if (snapfile_publish(writer, &written, &err) < 0)
        fail_msg("%s", err.msg);
    return written;
}

#define MOST_TO_MEND (UINT64_C(1) << 20)

static void mend_entry(int fd, uint8_t *entry)
{
    uint64_t offset = snapfile_get_le(entry + 24, 8), length = snapfile_get_le(entry + 32, 8);
    uint8_t *data = length <= MOST_TO_MEND ? malloc((size_t)length + 1) : NULL;

    if (data && offset <= INT64_MAX && pread(fd, data, length, (off_t)offset) == (ssize_t)length)
        snapfile_put_le(entry + 40, snapfile_hash(data, (size_t)length), 8);
    free(data);
}

void snapshot_mend(int fd, unsigned what)
{
    uint8_t head[2 * SNAPSHOT_PAGE] = {0}, *table = head + SNAPSHOT_PAGE;

    assert_true(pread(fd, head, sizeof(head), 0) >= 0);
    uint64_t bytes = snapfile_get_le(head + 88, 8);
    bytes = bytes < SNAPSHOT_PAGE ? bytes : SNAPSHOT_PAGE;
    for (uint64_t at = 0; what & SNAPSHOT_SECTIONS && at + 64 <= bytes; at += 64)
        mend_entry(fd, table + at);
    if (what & SNAPSHOT_TABLE)
        snapfile_put_le(head + 96, snapfile_hash(table, (size_t)bytes), 8);
    if (what & SNAPSHOT_SUPERBLOCK)
        snapfile_put_le(head + SNAPSHOT_PAGE - 8, snapfile_hash(head, SNAPSHOT_PAGE - 8), 8);
    assert_int_equal(pwrite(fd, head, sizeof(head), 0), sizeof(head));
}

unsigned snapshot_file_table(int fd, struct snapfile_entry *entries)
{
    struct snapfile_superblock super;
    struct error err;
    unsigned count;
    uint8_t head[2 * SNAPSHOT_PAGE];

    assert_int_equal(pread(fd, head, sizeof(head), 0), sizeof(head));
    assert_int_equal(snapfile_get_superblock(head, &super, &err), 0);
    assert_int_equal(snapfile_get_table(head + SNAPSHOT_PAGE, &super, entries, &count, &err), 0);
    return count;
}

#define HALF (UINT64_C(2) << 20)
#define HOLE_END (UINT64_C(4) << 30)

const struct snapfile_region snapshot_halves[2] = {{0, HALF}, {HOLE_END, HALF}};

void snapshot_put_halves(struct snapfile_writer *writer, const uint64_t data[2])
{
    static uint8_t ram[HALF];
    struct error err;

    memset(ram, 0x5a, sizeof(ram));
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(snapfile_put_pages(writer, i, 0, ram, data[i], &err), 0);
}

struct guest_memory *snapshot_map_halves(const struct snapfile *file)
{
    const struct memory_layout layout = {
        .size = 2 * HALF, .hole_start = HALF, .hole_end = HOLE_END};
    struct guest_memory *memory;
    struct error err;

    assert_int_equal(guest_memory_create(&layout, &memory, &err), 0);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(
            guest_memory_map_file(memory, i, snapfile_fd(file), snapfile_ram_offset(file, i), &err),
            0);
    return memory;
}
