/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One snapshot file of each format that was released, as it was written then: read for ever.
 *
 * They are dumps of xxd(1), without the lines that are all zeros but for a last one; `xxd -r` makes
 * files of them. They are never made anew: a format that changes gets one more.
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "folder.h"
#include "snapshot.h"

#define MIB (UINT64_C(1) << 20)
#define GIB (UINT64_C(1) << 30)

/* "00001000: 6d61 6368 ...": an offset, and up to 16 bytes. */
static void write_line(int fd, const char *line)
{
    char *at;
    off_t offset = (off_t)strtoull(line, &at, 16);
    uint8_t bytes[16];
    size_t count = 0;
    unsigned byte;

    assert_int_equal(*at++, ':');
    while (count < sizeof(bytes)) {
        at += *at == ' ';
        if (sscanf(at, "%2x", &byte) != 1 || *at == ' ')
            break;
        bytes[count++] = (uint8_t)byte;
        at += 2;
    }
    assert_int_equal(pwrite(fd, bytes, count, offset), count);
}

static struct snapfile *open_dump(const char *name)
{
    char path[512], line[128];

    snprintf(path, sizeof(path), "%s/%s.xxd", VMRUN_TEST_DATA, name);
    FILE *dump = fopen(path, "re");
    int fd = open(name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_non_null(dump);
    assert_true(fd >= 0);
    while (fgets(line, sizeof(line), dump))
        write_line(fd, line);
    fclose(dump);
    close(fd);
    return snapshot_file_open(name);
}

static void check_text(const struct snapfile *file, const char *section, const char *text)
{
    size_t len = 0;
    const char *data = snapfile_section(file, section, &len);

    assert_non_null(data);
    assert_int_equal(len, strlen(text));
    assert_memory_equal(data, text, len);
}

/* What stands at an offset of a chunk. */
static void check_ram(const struct snapfile *file, uint64_t chunk, uint64_t offset,
                      const char *text)
{
    uint8_t *ram = malloc(SNAPFILE_CHUNK_BYTES);
    struct error err;

    assert_non_null(ram);
    if (snapfile_verify_chunk(file, chunk, ram, &err) < 0)
        fail_msg("%s", err.msg);
    assert_string_equal((const char *)ram + offset, text);
    free(ram);
}

static void print_field(void *opaque, const struct state_told *told)
{
    FILE *out = opaque;

    fprintf(out, "%.*s.%.*s %u*%u:", (int)told->id_len, told->id, (int)told->field_len, told->field,
            told->count, told->size);
    for (uint32_t i = 0; i < told->count * told->size; i++)
        fprintf(out, " %02x", told->values[i]);
    fputc('\n', out);
}

static void format_1_0_is_read(void **state)
{
    static const uint8_t id[SNAPFILE_ID_BYTES] = {0x68, 0xfd, 0x28, 0x71, 0x1f, 0xa3, 0x4d, 0xbf,
                                                  0xf1, 0xba, 0x18, 0x95, 0x7d, 0x98, 0x2f, 0x61};
    static const struct snapfile_region expected[] = {{0, 2 * MIB + 8192}, {4 * GIB, 12288}};
    struct snapfile *file = open_dump("snapshot-1.0");
    const struct snapfile_region *regions;
    uint64_t gpa, bytes;
    size_t len = 0;

    (void)state;
    assert_memory_equal(snapfile_id(file), id, sizeof(id));
    assert_int_equal(snapfile_created_ns(file), UINT64_C(0x18ea1c65b53889f6));
    assert_int_equal(snapfile_architecture(file), SNAPFILE_X86_64);
    check_text(file, "machine",
               "{\"config\": {\"name\": \"golden\", \"cpus\": 2}, \"disks\": [], "
               "\"host\": {\"vmrun\": \"0.1.0\"}}");
    check_text(file, "about", "{\"note\": \"a file of format 1.0, to be read for ever\"}");
    check_text(file, "of-later", "ignored");
    assert_non_null(snapfile_section(file, "cpuid", &len));
    assert_int_equal(len, 60);

    assert_int_equal(snapfile_regions(file, &regions), 2);
    assert_memory_equal(regions, expected, sizeof(expected));
    assert_int_equal(snapfile_ram_offset(file, 1), 6 * MIB);
    assert_int_equal(snapfile_data_bytes(file), 3 * SNAPSHOT_PAGE);
    assert_int_equal(snapfile_chunks(file), 3);
    snapfile_chunk_range(file, 2, &gpa, &bytes);
    assert_int_equal(gpa, 4 * GIB);
    assert_int_equal(bytes, 12288);
    check_ram(file, 0, 4096, "a page of RAM, at 4096");
    check_ram(file, 1, 2048, "in the short chunk");
    check_ram(file, 2, 8192 + 16, "above 4 GiB");
    snapshot_file_verify(file);
    snapfile_close(file);
}

static void state_of_format_1_0_is_told(void **state)
{
    struct snapfile *file = open_dump("snapshot-1.0");
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    struct error err;

    (void)state;
    if (snapfile_tell_state(file, print_field, out, &err) < 0)
        fail_msg("%s", err.msg);
    fclose(out);
    assert_string_equal(text, "chip0.ticks 1*4: 07 00 00 00\n"
                              "chip0.flags 8*1: 01 02 03 00 00 00 00 fe\n"
                              "chip0.deadline 1*8: 00 00 00 00 00 00 00 80\n"
                              "chip0.on 1*1: 01\n"
                              "line3.level 3*2: 00 00 01 00 ff ff\n");
    free(text);
    snapfile_close(file);
}

/* What builds on the one of format 1.0, which is there beside it. */
static void format_1_1_builds_on_it(void **state)
{
    static const uint8_t id[SNAPFILE_ID_BYTES] = {0xf9, 0xf5, 0xbc, 0x7c, 0x81, 0xcc, 0xae, 0xb7,
                                                  0x3f, 0x07, 0xd8, 0xe5, 0x23, 0xa2, 0xf5, 0x23};
    struct snapfile *base = open_dump("snapshot-1.0"), *file = open_dump("snapshot-1.1");
    struct snapfile_parent parent;

    (void)state;
    assert_memory_equal(snapfile_id(file), id, sizeof(id));
    assert_int_equal(snapfile_created_ns(file), UINT64_C(0x18ea2678ecabc037));
    assert_true(snapfile_parent(file, &parent));
    assert_string_equal(parent.name, "snapshot-1.0");
    assert_memory_equal(parent.id, snapfile_id(base), SNAPFILE_ID_BYTES);
    check_text(file, "about", "{\"note\": \"a file of format 1.1 that builds on one of 1.0\"}");
    assert_int_equal(snapfile_pages_held(file), 3);
    assert_int_equal(snapfile_data_bytes(file), 2 * SNAPSHOT_PAGE);
    check_ram(file, 0, 4096, "this page of RAM changed");
    check_ram(file, 1, 2048, ""); /* of zeros by now */
    check_ram(file, 2, 16, "changed above 4 GiB");
    check_ram(file, 2, 8192 + 16, "above 4 GiB"); /* of the other file */
    snapshot_file_verify(file);
    snapfile_close(file);
    snapfile_close(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(format_1_0_is_read),
        cmocka_unit_test(state_of_format_1_0_is_told),
        cmocka_unit_test(format_1_1_builds_on_it),
    };

    return cmocka_run_group_tests_name("snapfile_golden", tests, folder_enter, folder_leave);
}
